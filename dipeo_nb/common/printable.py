"""Lines that a screen shows as they are."""

from __future__ import annotations


def printable(line: str) -> str:
    """A line with everything as its escape that a screen does not show, or that a terminal would obey; letters of all
    languages stay."""
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
