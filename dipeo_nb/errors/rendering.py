"""The display of errors: safe text, and the user's line that led to one."""

from __future__ import annotations

import linecache
import os
import traceback

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def printable(text: str) -> str:
    """A text of unknown origin for a terminal: characters that a screen does not show are written as escapes; line breaks stay.

    The same as `common.text.printable`, which is in a room above this one.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def quoted(text: str) -> str:
    """A text as a literal of Python in double quotes, with escapes for everything that a screen would not show."""
    inside = printable(text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t"))
    return f'"{inside}"'


def line_of_caller(error: BaseException) -> str:
    """The user's line that called into this package, as `line 3: dp.run(d)`; empty when there is none."""
    caller = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename.startswith(_PACKAGE):
            break
        caller = frame.f_code.co_filename, number
    if caller is None or f"{os.sep}IPython{os.sep}" in caller[0]:  # a magic: IPython called
        return ""
    if not (line := linecache.getline(*caller).strip()):
        return ""
    return f"line {caller[1]}: {line}"
