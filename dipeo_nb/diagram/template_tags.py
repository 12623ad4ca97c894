"""Finds the tags of a template, in time that grows with its length and with nothing else.

A tag ends at the first closing that is not within quotes. Where quotes would swallow the closing (`{{ it's }} and that's`) they are
ordinary characters; and what never closes is text. An expression that tries both for every quote takes twice the time for each of
them, so where the plain reading fails, the closings of all positions are worked out once, from the end to the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple


class Tag(NamedTuple):
    """A tag of a template."""

    kind: Literal["comment", "raw", "triple", "double", "statement"]
    start: int
    end: int
    inner: str
    """The text between the delimiters; of `raw`, the text that it protects."""


def tags(template: str) -> Iterator[Tag]:
    """The tags of *template* in order; they do not overlap."""
    scanner = _Scanner(template)
    at = 0
    while opening := _OPENING.search(template, at):
        tag = scanner.tag(opening.start())
        if tag is None:
            at = opening.start() + 1
        else:
            yield tag
            at = tag.end


_OPENING = re.compile(r"\{[{%#]")
_BLOCK_COMMENT = re.compile(r"\{\{[~-]?!--")
_LINE_COMMENT = re.compile(r"\{\{[~-]?!")
_RAW = re.compile(r"\{%[-+]?\s*+raw\s*+-?%\}")
_TRIPLE = re.compile(r"\{\{\{([^{}]*+)\}\}\}")
# The plain readings: every quote begins a string that ends.
_DOUBLE = re.compile(r"\{\{((?:\"(?:\\.|[^\"\\\n])*+\"|'(?:\\.|[^'\\\n])*+'|\{[^{}]*+\}|[^{}\"']++)*+)\}\}", re.DOTALL)
_STATEMENT = re.compile(r"\{%((?:\"(?:\\.|[^\"\\])*+\"|'(?:\\.|[^'\\])*+'|[^\"'%]++|%(?!\}))*+)%\}", re.DOTALL)
_CLOSINGS = {
    "block comment": re.compile(r"--[~-]?\}\}"),
    "line comment": re.compile(r"\}\}"),
    "comment": re.compile(r"#\}"),
    "raw": re.compile(r"\{%[-+]?\s*+endraw\s*+-?%\}"),
}


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.closings: dict[str, re.Match[str] | None] = {}
        """The next closing of each kind, as last looked for."""
        self.ends: dict[str, list[int]] = {}
        """By kind of tag: where the one that is open at a position closes; -1: nowhere."""

    def tag(self, start: int) -> Tag | None:
        """The tag that begins at *start*, where a `{` stands."""
        match self.text[start + 1]:
            case "#":
                return self.up_to("comment", start, start + 2, "comment")
            case "%":
                if opening := _RAW.match(self.text, start):
                    raw = self.up_to("raw", start, opening.end(), "raw")
                    if raw is not None:
                        return raw
                return self.quoted("statement", start, _STATEMENT.match)
            case _:
                if opening := _LINE_COMMENT.match(self.text, start):
                    block = _BLOCK_COMMENT.match(self.text, start)
                    found = block and self.up_to("comment", start, block.end(), "block comment")
                    found = found or self.up_to("comment", start, opening.end(), "line comment")
                    if found:
                        return found
                if triple := _TRIPLE.match(self.text, start):
                    return Tag("triple", start, triple.end(), triple[1])
                return self.quoted("double", start, _DOUBLE.match)

    def up_to(self, kind: Literal["comment", "raw"], start: int, inside: int, closing: str) -> Tag | None:
        """A tag that ends at the next closing, whatever is before it."""
        found = self.closings.get(closing)
        if closing not in self.closings or (found is not None and found.start() < inside):
            found = self.closings[closing] = _CLOSINGS[closing].search(self.text, inside)
        return None if found is None else Tag(kind, start, found.end(), self.text[inside : found.start()])

    def quoted(
        self, kind: Literal["double", "statement"], start: int, plain: Callable[[str, int], re.Match[str] | None]
    ) -> Tag | None:
        """A tag whose closing may also be within quotes."""
        if kind not in self.ends:
            if found := plain(self.text, start):
                return Tag(kind, start, found.end(), found[1])
            self.ends[kind] = _double_ends(self.text) if kind == "double" else _statement_ends(self.text)
        end = self.ends[kind][start + 2]
        return None if end < 0 else Tag(kind, start, end + 2, self.text[start + 2 : end])


def _strings(text: str, quote: str, *, lines: bool) -> list[int]:
    """For every position within a string of that quote: where the string is over; -1: it is not.

    Args:
        lines: a string may go over several lines.
    """
    size = len(text)
    ends = [-1] * (size + 2)
    for at in range(size - 1, -1, -1):
        character = text[at]
        if character == quote:
            ends[at] = at + 1
        elif character == "\\":
            ends[at] = ends[at + 2]
        elif lines or character != "\n":
            ends[at] = ends[at + 1]
    return ends


def _double_ends(text: str) -> list[int]:
    """For every position within `{{`: where its `}}` is."""
    strings = {quote: _strings(text, quote, lines=False) for quote in "\"'"}
    size = len(text)
    ends = [-1] * (size + 2)
    brace = size  # the next one
    for at in range(size - 1, -1, -1):
        character = text[at]
        if character == "}":
            ends[at] = at if text.startswith("}", at + 1) else -1
            brace = at
        elif character == "{":
            ends[at] = ends[brace + 1] if text.startswith("}", brace) else -1  # a mapping literal
            brace = at
        elif character in strings:
            after = strings[character][at + 1]
            ends[at] = ends[after] if after >= 0 and ends[after] >= 0 else ends[at + 1]
        else:
            ends[at] = ends[at + 1]
    return ends


def _statement_ends(text: str) -> list[int]:
    """For every position within `{%`: where its `%}` is."""
    strings = {quote: _strings(text, quote, lines=True) for quote in "\"'"}
    ends = [-1] * (len(text) + 2)
    for at in range(len(text) - 1, -1, -1):
        character = text[at]
        if character == "%" and text.startswith("}", at + 1):
            ends[at] = at
        elif character in strings:
            after = strings[character][at + 1]
            ends[at] = ends[after] if after >= 0 and ends[after] >= 0 else ends[at + 1]
        else:
            ends[at] = ends[at + 1]
    return ends
