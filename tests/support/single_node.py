"""A diagram of start, one node and endpoints on its outputs; what came out where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted


def diagram(kind: str, props: dict[str, Any], *, error_arrow: bool = False) -> dict[str, Any]:
    """Start → Work → End, and Work's error output → Failed."""
    extra = [{"from": "Work_error", "to": "Failed", "content_type": "generic"}] if error_arrow else []
    return {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "Work", "type": kind, "props": props},
            {"label": "End", "type": "endpoint"},
            *([{"label": "Failed", "type": "endpoint"}] if error_arrow else []),
        ],
        "connections": [
            {"from": "Start", "to": "Work", "content_type": "object"},
            {"from": "Work", "to": "End", "content_type": "generic"},
            *extra,
        ],
    }


def run_node(
    base: Path,
    kind: str,
    props: dict[str, Any],
    inputs: dict[str, Any] | None = None,
    *,
    error_arrow: bool = False,
    **services: Any,
) -> Any:
    """The finished run of such a diagram; what the start node hands on are the inputs."""
    with Session(base, llm=scripted(), **services) as dp:
        return dp.run(diagram(kind, props, error_arrow=error_arrow), view=False, inputs=inputs or {})
