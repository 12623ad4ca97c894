"""How often tests kill processes."""

from __future__ import annotations

import os


def kills(few: int) -> int:
    """A few times, or as often as `DIPEO_KILLS` says."""
    return int(os.environ.get("DIPEO_KILLS", few))
