"""What changed between two texts, word by word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_LINES = 4000
"""Of changed lines that are compared; beyond that, all of them count as changed."""
_WORD = re.compile(r"\w+|[^\S\n]+|\n|[^\w\s]")


class Change(NamedTuple):
    """A piece of text: kept (both are it), or what it was and what it is now."""

    kept: bool
    old: str
    new: str


def word_diff(old: str, new: str) -> list[Change]:
    """The pieces of both texts, in their order. Lines first, then the words of lines that changed."""
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    if max(len(before), len(after)) > 50 * MAX_LINES:
        return [Change(old == new, old, new)]
    changes: list[Change] = []
    for same, one, other in _matched(before, after):
        if same:
            changes.append(Change(True, "".join(one), "".join(one)))
        elif not one or not other or max(len(one), len(other)) > MAX_LINES:
            changes.append(Change(False, "".join(one), "".join(other)))
        else:
            words = _matched(_WORD.findall("".join(one)), _WORD.findall("".join(other)))
            changes += [Change(same_words, "".join(a), "".join(b)) for same_words, a, b in words]
    return changes


def _matched(one: list[str], other: list[str]) -> Iterator[tuple[bool, list[str], list[str]]]:
    """(whether they are the same, items of the one, of the other). Equal ends are taken off first: it keeps long texts fast."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(one), len(other)) - start and one[-1 - end] == other[-1 - end]:
        end += 1
    if start:
        yield True, one[:start], other[:start]
    a, b = one[start : len(one) - end], other[start : len(other) - end]
    if len(a) * len(b) > MAX_LINES**2:
        yield False, a, b
    else:
        for tag, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
            yield tag == "equal", a[i:j], b[k:m]
    if end:
        yield True, one[len(one) - end :], other[len(other) - end :]


def counts(changes: list[Change]) -> tuple[int, int]:
    """(words added, words removed)."""
    added = sum(len(re.findall(r"\w+", change.new)) for change in changes if not change.kept)
    return added, sum(len(re.findall(r"\w+", change.old)) for change in changes if not change.kept)
