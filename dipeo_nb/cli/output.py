"""Writes results to stdout, and diagnostics and summaries to stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.values import json_text
from dipeo_nb.terminal import new_console, safe, say

if TYPE_CHECKING:
    from dipeo_nb.domain.diagnostics import Diagnostic
    from dipeo_nb.execution.run_state import RunState


def print_diagnostics(found: Sequence[Diagnostic]) -> None:
    """Write findings to stderr, errors in red on a terminal."""
    if not found:
        return
    from rich.text import Text

    console = new_console()
    styles = {"error": "red", "warning": "yellow", "info": "dim"}
    for diagnostic in found:
        console.print(Text(safe(str(diagnostic)), style=styles.get(str(diagnostic.severity), "")), soft_wrap=True)


def print_traceback(text: Any) -> None:
    """The last lines of the traceback of a diagram's code."""
    lines = str(text or "").rstrip().splitlines()
    if len(lines) > TRACEBACK_LINES:
        lines = ["…", *lines[-TRACEBACK_LINES:]]
    for line in lines:
        say(f"  {line}")


TRACEBACK_LINES = 12


def print_outputs(state: RunState) -> None:
    """A single output alone, several with their labels; text as it is, everything else as JSON."""
    for label, value in state.outputs.items():
        if len(state.outputs) > 1:
            print(f"{for_terminal(label)}:")
        if value is not None:
            print(for_terminal(value if isinstance(value, str) else json_text(value, indent=2)))


def for_terminal(text: str) -> str:
    """Write results as they are, except to a terminal."""
    return safe(text) if sys.stdout.isatty() else text


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
