"""Patches as pure functions: hunks out of a diff, and a text with hunks applied, by the rules of GNU patch.

A hunk whose place has moved is looked for nearby; what still does not fit may do so with up to *fuzz* lines of its context left
out at either end (https://www.gnu.org/software/diffutils/manual/html_node/Inexact.html).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

FORMATS = ("unified", "git", "context", "normal", "ed")
"""Kinds of diffs that are understood."""


class Hunk(NamedTuple):
    """Some lines that are replaced."""

    start: int
    """0-based line of the old text where it begins."""
    old: tuple[str, ...]
    new: tuple[str, ...]
    before: int
    """Lines of context at the beginning; they are in both."""
    after: int
    """Lines of context at the end."""
    exact: bool
    """It has no context, so it is applied only where it says."""


class Patch(NamedTuple):
    """The hunks for one file."""

    path: str
    """Of the new file, else the old one; empty in formats that name none."""
    hunks: tuple[Hunk, ...]
    bare: tuple[bool, bool] | None
    """Whether the old and the new text end without a line end; None: the diff does not say."""


class Applied(NamedTuple):
    """What became of it."""

    text: str
    placed: tuple[tuple[int, int, int], ...]
    """(number of the hunk, line, lines of fuzz) of those that fitted; 1-based."""
    rejected: tuple[int, ...]
    """Numbers of those that did not."""


def parse(diff: str, text: str = "", *, form: str = "unified", reverse: bool = False) -> list[Patch]:
    """The patches of a diff, one for each file.

    Args:
        text: the old text; ed scripts, which do not hold the lines that go, are read against it.
        form: one of `FORMATS`; `unified` and `git` are the same here.
        reverse: old for new.

    Raises:
        ValueError: no diff of that form, or a damaged one.
    """
    lines = _Lines(diff)
    patches = list(_PARSERS[form](lines, text))
    if not any(patch.hunks for patch in patches):
        raise ValueError(f"it holds no {form} changes")
    if form == "ed" and reverse:
        raise ValueError("an ed script cannot be reversed, since it does not hold the old lines")
    return [_reversed(patch) for patch in patches] if reverse else patches


def apply(text: str, patch: Patch, *, fuzz: int = 2, ignore_whitespace: bool = False, force: bool = False) -> Applied:
    """*text* with the hunks applied. Line ends stay as they are: those of the text, also for lines that are added.

    Args:
        fuzz: lines of context that may be left out.
        ignore_whitespace: blanks at the ends and their number do not count when lines are compared.
        force: apply what fits when something does not; else one hunk that does not fit leaves the text as it is.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    bare = bool(text) and not text.endswith(("\n", "\r"))
    lines = text.split("\n") if newline == "\n" else text.replace("\r\n", "\n").split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    key = (lambda line: " ".join(line.split())) if ignore_whitespace else (lambda line: line.rstrip("\r"))
    placed: list[tuple[int, int, int]] = []
    rejected: list[int] = []
    shift = 0  # by how many lines the text has grown so far, and where the last hunk was found
    lowest = 0
    for number, hunk in enumerate(patch.hunks, 1):
        where = _place(lines, hunk, hunk.start + shift, lowest, fuzz, key)
        if where is None:
            rejected.append(number)
            continue
        at, head, tail = where
        old = hunk.old[head : len(hunk.old) - tail]
        new = hunk.new[head : len(hunk.new) - tail]
        # Context comes from the text, so that what was ignored in comparing stays.
        kept_before = lines[at : at + hunk.before - head] if hunk.before > head else []
        kept_after = lines[at + len(old) - (hunk.after - tail) : at + len(old)] if hunk.after > tail else []
        middle = new[len(kept_before) : len(new) - len(kept_after)]
        lines[at : at + len(old)] = [*kept_before, *middle, *kept_after]
        placed.append((number, at + 1, max(head, tail)))
        shift = at - head - hunk.start + len(new) - len(old)
        lowest = at + len(new)
    if rejected and not force:
        return Applied(text, (), tuple(rejected))
    ends_bare = bare if patch.bare is None else patch.bare[1]
    made = newline.join(lines) + ("" if ends_bare or not lines else newline)
    return Applied(made, tuple(placed), tuple(rejected))


def rejects(patch: Patch, numbers: Iterable[int]) -> str:
    """The hunks of these numbers as a unified diff, for a reject file."""
    out = [f"--- {patch.path}", f"+++ {patch.path}"]
    for number in numbers:
        hunk = patch.hunks[number - 1]
        out.append(f"@@ -{hunk.start + 1},{len(hunk.old)} +{hunk.start + 1},{len(hunk.new)} @@")
        end_old, end_new = len(hunk.old) - hunk.after, len(hunk.new) - hunk.after
        out += [f" {line}" for line in hunk.old[: hunk.before]]
        out += [f"-{line}" for line in hunk.old[hunk.before : end_old]]
        out += [f"+{line}" for line in hunk.new[hunk.before : end_new]]
        out += [f" {line}" for line in hunk.old[end_old:]]
    return "\n".join(out) + "\n"


class _Lines:
    """The lines of a diff, one after the other."""

    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").split("\n")
        self._at = 0

    @property
    def next(self) -> str | None:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def take(self) -> str:
        line = self.next
        if line is None:
            raise ValueError("it ends in the middle of a hunk")
        self._at += 1
        return line

    def match(self, pattern: str) -> re.Match[str] | None:
        """Take the next line if it has that form."""
        found = re.match(pattern, self.next) if self.next is not None else None
        if found:
            self._at += 1
        return found

    @property
    def bare(self) -> bool:
        """Take the remark that the line before has no line end."""
        return self.match(r"\\ ") is not None


def _unified(lines: _Lines, text: str) -> Iterator[Patch]:
    path, hunks, ends = "", list[Hunk](), dict[str, bool]()
    while lines.next is not None:
        if found := lines.match(r"--- ([^\t]*)"):
            if hunks:
                yield _patch(path, hunks, ends)
            old, hunks, ends = found[1], [], {}
            after = lines.match(r"\+\+\+ ([^\t]*)")
            path = after[1] if after and after[1] != "/dev/null" else old
        elif found := lines.match(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@"):
            start, olds, _, news = (1 if n is None else int(n) for n in found.groups())
            hunks.append(_unified_hunk(lines, start, olds, news, ends))
        else:
            lines.take()
    yield _patch(path, hunks, ends)


def _unified_hunk(lines: _Lines, start: int, olds: int, news: int, ends: dict[str, bool]) -> Hunk:
    marked: list[str] = []
    while olds > 0 or news > 0:
        line = lines.take() or " "  # an empty line of context whose blank was lost on the way
        if line[0] not in " +-":
            raise ValueError(f"the line '{line[:40]}' is none of a hunk")
        marked.append(line)
        olds -= line[0] != "+"
        news -= line[0] != "-"
        if lines.bare:
            ends |= dict.fromkeys("-+" if line[0] == " " else line[0], True)
    if olds or news:
        raise ValueError("a hunk has other lines than its head says")
    return _hunk(start, [(line[0], line[1:]) for line in marked])


def _normal(lines: _Lines, text: str) -> Iterator[Patch]:
    hunks, ends = list[Hunk](), dict[str, bool]()
    while lines.next is not None:
        found = lines.match(r"(\d+)(?:,(\d+))?([acd])(\d+)(?:,(\d+))?$")
        if not found:
            lines.take()
            continue
        marked: list[tuple[str, str]] = []
        while line := lines.match(r"([<>]) (.*)|---$"):
            if line[1]:
                marked.append(("-" if line[1] == "<" else "+", line[2]))
            if lines.bare and marked:
                ends[marked[-1][0]] = True
        wanted = int(found[2] or found[1]) - int(found[1]) + 1 if found[3] != "a" else 0
        if sum(mark == "-" for mark, _ in marked) != wanted:
            raise ValueError(f"the change '{found[0]}' has other lines than it says")
        hunks.append(_hunk(int(found[1]), marked))
    yield _patch("", hunks, ends)


def _context(lines: _Lines, text: str) -> Iterator[Patch]:
    path, hunks, ends = "", list[Hunk](), dict[str, bool]()
    while lines.next is not None:
        if found := lines.match(r"\*\*\* (\d+)(?:,(\d+))? \*\*\*\*"):
            olds = _context_half(lines, ends, "-")
            if not lines.match(r"--- \d+(,\d+)? ----"):
                raise ValueError("a hunk has no second half")
            news = _context_half(lines, ends, "+")
            hunks.append(_hunk(int(found[1]), _merged(olds, news)))
        elif (found := lines.match(r"\*\*\* ([^\t]*)")) and (after := lines.match(r"--- ([^\t]*)")):
            if hunks:
                yield _patch(path, hunks, ends)
            path, hunks, ends = (after[1] if after[1] != "/dev/null" else found[1]), [], {}
        else:
            lines.take()
    yield _patch(path, hunks, ends)


def _context_half(lines: _Lines, ends: dict[str, bool], side: str) -> list[tuple[str, str]]:
    half: list[tuple[str, str]] = []
    while lines.next is not None and (line := lines.match(r"([ +\-!]) (.*)")):
        half.append((line[1], line[2]))
        if lines.bare:
            ends[side] = True
    return half


def _merged(olds: list[tuple[str, str]], news: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The two halves of a hunk as one list; a half without changes is left out by diff, and is the other's context."""
    olds = olds or [pair for pair in news if pair[0] == " "]
    news = news or [pair for pair in olds if pair[0] == " "]
    merged: list[tuple[str, str]] = []
    rest = iter(news)
    waiting = next(rest, None)
    for mark, line in olds:
        if mark == " ":
            while waiting is not None and waiting[0] != " ":
                merged.append(("+", waiting[1]))
                waiting = next(rest, None)
            waiting = next(rest, None)
        merged.append((mark if mark == " " else "-", line))
    while waiting is not None:
        merged.append(("+", waiting[1]))
        waiting = next(rest, None)
    return merged


def _ed(lines: _Lines, text: str) -> Iterator[Patch]:
    """A script of a, c and d commands, from the end of the text to its beginning, as diff -e writes it."""
    have = text.replace("\r\n", "\n").split("\n")
    hunks: list[Hunk] = []
    while lines.next:
        found = lines.match(r"(\d+)(?:,(\d+))?([acd])$")
        if not found:
            raise ValueError(f"'{lines.next[:40]}' is not a command of an ed script")
        first, last = int(found[1]), int(found[2] or found[1])
        new: list[tuple[str, str]] = []
        while found[3] != "d" and (line := lines.take()) != ".":
            new.append(("+", line))
        gone = [] if found[3] == "a" else have[first - 1 : last]
        if last > len(have):
            raise ValueError(f"line {last} is beyond the end of the text")
        hunks.append(_hunk(first, [*(("-", line) for line in gone), *new]))
    yield _patch("", hunks[::-1], {})


_PARSERS: Mapping[str, Callable[[_Lines, str], Iterator[Patch]]] = {
    "unified": _unified, "git": _unified, "normal": _normal, "context": _context, "ed": _ed,
}  # fmt: skip


def _hunk(start: int, marked: Sequence[tuple[str, str]]) -> Hunk:
    """*start* is the 1-based line of the first old line; where none is, of the line after which the new ones come."""
    old = tuple(line for mark, line in marked if mark != "+")
    new = tuple(line for mark, line in marked if mark != "-")
    changed = [n for n, (mark, _) in enumerate(marked) if mark != " "]
    before, after = (changed[0], len(marked) - 1 - changed[-1]) if changed else (len(marked), 0)
    return Hunk(start - 1 if old else start, old, new, before, after, all(mark != " " for mark, _ in marked))


def _patch(path: str, hunks: Sequence[Hunk], ends: Mapping[str, bool]) -> Patch:
    return Patch(path, tuple(hunks), (ends.get("-", False), ends.get("+", False)) if ends else None)


def _reversed(patch: Patch) -> Patch:
    shift = 0
    hunks: list[Hunk] = []
    for hunk in patch.hunks:
        hunks.append(hunk._replace(start=hunk.start + shift, old=hunk.new, new=hunk.old))
        shift += len(hunk.new) - len(hunk.old)
    return patch._replace(hunks=tuple(hunks), bare=patch.bare[::-1] if patch.bare else None)


def _place(
    lines: Sequence[str], hunk: Hunk, wanted: int, lowest: int, fuzz: int, key: Callable[[str], str]
) -> tuple[int, int, int] | None:
    """(line where it fits, lines of context left out before, and after), the nearest first; None: nowhere."""
    for left_out in range(0 if hunk.exact else min(fuzz, max(hunk.before, hunk.after)) + 1) or [0]:
        head, tail = min(left_out, hunk.before), min(left_out, hunk.after)
        old = [key(line) for line in hunk.old[head : len(hunk.old) - tail]]
        top = len(lines) - len(old)
        aim = min(max(wanted + head, lowest), max(top, 0))
        reach = range(1) if hunk.exact or not old else range(max(aim - lowest, top - aim) + 1)
        for distance in reach:
            for at in dict.fromkeys((aim + distance, aim - distance)):
                if lowest <= at <= top and [key(line) for line in lines[at : at + len(old)]] == old:
                    return at, head, tail
    return None
