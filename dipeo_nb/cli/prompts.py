"""Asks the user at the terminal."""

from __future__ import annotations

import sys
from getpass import getpass

from dipeo_nb.terminal import safe


def interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def ask_hidden(question: str) -> str:
    """Read an answer that the terminal does not show."""
    return getpass(safe(question, 200), stream=sys.stderr)
