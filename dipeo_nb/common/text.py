"""Text for messages and displays: made printable, cut to length, with the nearest correct spelling of a name.

Text from users, models and files is never shown as it is, since a control character may clear a terminal (`\\x1b[2J`) and a
right-to-left override may show a line of code as another one:

    printable   one line; every character that a screen does not show becomes its escape
    visible     several lines, such as code to review; control and direction characters become their escapes
    inert       several lines, such as the output of a program; control and direction characters are removed
    displayed   decorator of `__repr__` and `_repr_*_`: without secrets and control characters
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from dipeo_nb.common.redaction import redactor


def printable(line: str) -> str:
    """A line with everything as its escape that a screen does not show, or that a terminal would obey; letters of all
    languages stay."""
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def shorten(text: object, limit: int = 60) -> str:
    """Text for a message: one line, at most *limit* characters; what a screen does not show is written out."""
    line = printable(redactor(" ".join(str(text).split())))  # before it is cut: a piece of a secret would not be found any more
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters (C0 and C1) and those that change the direction of writing."""
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
"""The same without isolates and marks, which our own texts put around labels."""


def visible(text: str) -> str:
    """*text* with every harmful character as its escape: `\\x1b`, `\\u202e`. CR LF counts as one line break."""
    if text.isascii() and text.isprintable():
        return text
    return _HARMFUL.sub(_escape, text.replace("\r\n", "\n"))


def visible_json(text: str) -> str:
    """JSON text with harmful characters as JSON's own escapes; it stays the same value."""
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_SEQUENCES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,1000}(?:\x07|\x1b\\)|[PX^_][^\x1b]{0,1000}\x1b\\|[ -/]*[0-~])"
)
"""Terminal control sequences: colours, the cursor, titles, links."""
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    """Text that controls neither a terminal nor the direction of the text around it; line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    if "\x1b" in text:
        text = _SEQUENCES.sub("", text)
    return _CONTROLS.sub("", text.replace("\r\n", "\n"))


P = ParamSpec("P")
R = TypeVar("R")


def displayed(method: Callable[P, R]) -> Callable[P, R]:
    """For a method that makes what is shown of an object (`__repr__`, `_repr_html_`, `_repr_mimebundle_`): without secrets and
    control characters, also in the output that a notebook saves."""

    @functools.wraps(method)
    def clean(*args: P.args, **kwargs: P.kwargs) -> R:
        return _clean(method(*args, **kwargs))

    return clean


def _clean(shown: Any) -> Any:
    if isinstance(shown, Mapping):
        return {kind: item if str(kind).startswith("image/png") else _clean(item) for kind, item in shown.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(shown, tuple):
        return tuple(map(_clean, shown))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(shown, str):
        return _STEERING.sub(_escape, redactor(shown))
    return shown


def nearest(word: object, candidates: Iterable[str]) -> str | None:
    """The candidate spelled most like *word*, if any comes close."""
    # Bounded, since the comparison is quadratic and the words are the user's.
    text = str(word)[:100]
    choices = {c[:100].lower(): c for c in list(candidates)[:1000]}
    word_form = text.lower()
    found = difflib.get_close_matches(word_form, choices, n=1, cutoff=0.6)
    if not found and len(word_form) > 2:
        found = [c for c in choices if c.startswith(word_form) or (len(c) > 2 and word_form.startswith(c))]
    return choices[found[0]] if found else None


def did_you_mean(word: object, candidates: Iterable[str], otherwise: str) -> str:
    """A hint: the nearest correct spelling, else *otherwise*."""
    choice = nearest(word, candidates)
    return f"Did you mean '{shorten(choice)}'?" if choice else otherwise


def known_names(names: Iterable[object]) -> str:
    """The names that can be written in a template or an expression, for a message: the first 30 of them."""
    written = sorted(name for name in map(str, names) if name.isidentifier())
    return ", ".join(written[:30]) or "none"


def money(usd: float | None) -> str:
    """US dollars: `$0.0012`, `$1.50`, `under $0.0001`, `no cost`; None, a price that is not known, is `cost unknown`."""
    if usd is None:
        return "cost unknown"
    if usd == 0:
        return "no cost"
    return "under $0.0001" if usd < 0.0001 else f"${usd:.4f}" if usd < 1 else f"${usd:.2f}"
