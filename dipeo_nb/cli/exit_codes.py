"""Exit codes of all commands."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command says of its end to whoever called it."""

    DONE = 0
    FAILED = 1
    """The run, or something outside, failed."""
    MISTAKE = 2
    """The user made a mistake: nothing was run."""
    INTERRUPTED = 130
