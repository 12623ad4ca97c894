"""JSDoc comments."""

from __future__ import annotations

import re
from typing import TypedDict


class Tag(TypedDict):
    """`@name text` of a JSDoc comment."""

    name: str
    text: str


_STAR = re.compile(r"^[ \t]*\*?[ \t]?", re.MULTILINE)
_TAG = re.compile(r"^[ \t]*@(?=[A-Za-z])", re.MULTILINE)


def is_jsdoc(comment: str) -> bool:
    return comment.startswith("/**") and comment.endswith("*/") and len(comment) > 4


def description(comment: str) -> str:
    """The text of a JSDoc comment before its tags."""
    return _TAG.split(_body(comment), maxsplit=1)[0].strip()


def tags(comment: str) -> list[Tag]:
    """The tags of a JSDoc comment, in their order."""
    found: list[Tag] = []
    for part in _TAG.split(_body(comment))[1:]:
        name, _, text = part.partition("\n") if re.match(r"\w+\n", part) else part.partition(" ")
        found.append(Tag(name=name.strip(), text=text.strip()))
    return found


def _body(comment: str) -> str:
    inner = comment[3:-2]
    return _STAR.sub("", inner)
