"""What the events of a run say."""

from __future__ import annotations

from typing import Any


def warnings_of(result: Any) -> list[str]:
    """The warnings that a run logged."""
    return [e.payload["message"] for e in result.events if e.type == "execution_log" and e.payload["level"] == "WARNING"]
