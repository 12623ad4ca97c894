"""Exit codes of all commands."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the commands."""

    DONE = 0
    FAILED = 1
    """The run, or something outside, failed."""
    MISTAKE = 2
    """The user made a mistake: nothing was run."""
    INTERRUPTED = 130
