"""Two texts, and their difference as programs write it."""

from __future__ import annotations

import difflib

OLD = "".join(f"line {n}\n" for n in range(1, 21))
NEW = OLD.replace("line 5\n", "line five\n").replace("line 15\n", "line 15\nline 15a\n").replace("line 20\n", "")


def unified(old: str, new: str, context: int = 3) -> str:
    """What diff -u writes, with its mark where a text ends without a line end."""
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), "a/x", "b/x", n=context)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
