"""Counts the steps that a backtracking engine takes for a regular expression: an upper bound for `re`, the same on every machine.

`attacks` makes the texts on which an expression could be slow: its own parts, repeated, with an end that does not fit.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any

sre: Any = importlib.import_module("re._constants")
parser: Any = importlib.import_module("re._parser")

Continue = Callable[[int], bool]
Match = Callable[[int, Continue], bool]


class TooManyStepsError(Exception):
    """More steps than allowed."""


class Steps:
    """One expression, matched while steps are counted."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self.tree = parser.parse(pattern, flags)
        self.flags = self.tree.state.flags
        self.groups: dict[int, tuple[int, int]] = {}
        self.count, self.limit, self.text = 0, 0, ""
        self._match = self._sequence(list(self.tree))

    def spend(self) -> None:
        self.count += 1
        if self.count > self.limit:
            raise TooManyStepsError

    def run(self, text: str, *, anchored: bool, whole: bool, limit: int) -> int:
        """Steps for `match` (anchored), `fullmatch` (whole), or else for finding all matches; TooManyStepsError above *limit*."""
        self.text, self.count, self.limit = text, 0, limit
        at = 0
        while at <= len(text):
            end: list[int] = []

            def accepted(stop: int, end: list[int] = end) -> bool:
                if whole and stop != len(text):
                    return False
                end.append(stop)
                return True

            self.groups.clear()
            found = self._match(at, accepted)
            if anchored:
                break
            at = max(end[-1], at + 1) if found else at + 1
        return self.count

    # Building.

    def _sequence(self, items: list[Any]) -> Match:
        parts = [self._item(op, value) for op, value in items]

        def run(number: int, at: int, then: Continue) -> bool:
            if number == len(parts):
                return then(at)
            return parts[number](at, lambda stop: run(number + 1, stop, then))

        return lambda at, then: run(0, at, then)

    def _item(self, op: Any, value: Any) -> Match:
        name = str(op)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            fits = self._character(op, value)

            def one(at: int, then: Continue) -> bool:
                self.spend()
                return at < len(self.text) and fits(self.text[at]) and then(at + 1)

            return one
        if name == "BRANCH":
            branches = [self._sequence(list(branch)) for branch in value[1]]
            return lambda at, then: any(branch(at, then) for branch in branches)
        if name == "SUBPATTERN":
            number, added, removed, inner = value
            before, self.flags = self.flags, (self.flags | added) & ~removed
            body = self._sequence(list(inner))
            self.flags = before

            def group(at: int, then: Continue) -> bool:
                def closed(stop: int) -> bool:
                    if number is not None:
                        self.groups[number] = (at, stop)
                    return then(stop)

                return body(at, closed)

            return group
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            return self._repeat(name, *value)
        if name == "ATOMIC_GROUP":
            return self._atomic(self._sequence(list(value)))
        if name in ("ASSERT", "ASSERT_NOT"):
            return self._look(name == "ASSERT", *value)
        if name == "AT":
            return self._place(str(value))
        if name == "GROUPREF":

            def same(at: int, then: Continue) -> bool:
                self.spend()
                start, stop = self.groups.get(value, (0, -1))
                return stop >= start and self.text.startswith(self.text[start:stop], at) and then(at + stop - start)

            return same
        raise NotImplementedError(name)

    def _atomic(self, body: Match) -> Match:
        def run(at: int, then: Continue) -> bool:
            stops: list[int] = []
            return body(at, lambda stop: stops.append(stop) is None) and then(stops[-1])

        return run

    def _look(self, wanted: bool, direction: int, inner: Any) -> Match:
        body = self._sequence(list(inner))
        width = inner.getwidth()[0] if direction < 0 else 0

        def run(at: int, then: Continue) -> bool:
            start = at - width
            found = start >= 0 and body(start, lambda stop: direction > 0 or stop == at)
            return found is wanted and then(at)

        return run

    def _place(self, name: str) -> Match:
        lines = bool(self.flags & re.MULTILINE)

        def holds(at: int) -> bool:
            text = self.text
            if name in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
                return at == 0 or (lines and name == "AT_BEGINNING" and text[at - 1] == "\n")
            if name == "AT_END_STRING":
                return at == len(text)
            if name == "AT_END":
                return at == len(text) or (text[at] == "\n" and (lines or at == len(text) - 1))
            word = [bool(re.match(r"\w", c)) for c in (text[at - 1 : at] or " ", text[at : at + 1] or " ")]
            return (word[0] != word[1]) is (name == "AT_BOUNDARY")

        def run(at: int, then: Continue) -> bool:
            self.spend()
            return holds(at) and then(at)

        return run

    def _repeat(self, name: str, least: int, most: Any, inner: Any) -> Match:
        most = 1 << 60 if most is sre.MAXREPEAT else int(most)
        items = list(inner)
        if len(items) == 1 and str(items[0][0]) in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            body = self._of_characters(name, least, most, self._character(*items[0]))
        else:
            body = self._of_groups(name, least, most, self._sequence(items))
        return self._atomic(body) if name == "POSSESSIVE_REPEAT" else body

    def _of_characters(self, name: str, least: int, most: int, fits: Callable[[str], bool]) -> Match:
        def run(at: int, then: Continue) -> bool:
            stop = at
            lazy = name == "MIN_REPEAT"
            while stop < len(self.text) and stop - at < most:
                if lazy and stop - at >= least and then(stop):
                    return True
                self.spend()
                if not fits(self.text[stop]):
                    break
                stop += 1
            else:
                if lazy:
                    return stop - at >= least and then(stop)
            if lazy:
                return False
            while stop - at >= least:
                self.spend()
                if then(stop):
                    return True
                stop -= 1
            return False

        return run

    def _of_groups(self, name: str, least: int, most: int, body: Match) -> Match:
        lazy = name == "MIN_REPEAT"

        def run(done: int, at: int, then: Continue) -> bool:
            self.spend()

            def further(stop: int) -> bool:
                return (stop > at or done < least) and run(done + 1, stop, then)

            if done < least:
                return body(at, further)
            if lazy:
                return then(at) or (done < most and body(at, further))
            return (done < most and body(at, further)) or then(at)

        return lambda at, then: run(0, at, then)

    def _character(self, op: Any, value: Any) -> Callable[[str], bool]:
        found: dict[str, bool] = {}
        pattern = _pattern_of(op, value)
        compiled = re.compile(pattern, self.flags & (re.IGNORECASE | re.DOTALL | re.ASCII))

        def fits(character: str) -> bool:
            if character not in found:
                found[character] = compiled.fullmatch(character) is not None
            return found[character]

        return fits


_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip


def _pattern_of(op: Any, value: Any) -> str:
    """The source of an item that fits one character."""
    name = str(op)
    if name == "ANY":
        return "."
    if name in ("LITERAL", "NOT_LITERAL"):
        return f"[{'^' * (name == 'NOT_LITERAL')}{_escaped(value)}]"
    parts: list[str] = []
    for kind, what in value:
        match str(kind):
            case "NEGATE":
                parts.append("^")
            case "LITERAL":
                parts.append(_escaped(what))
            case "RANGE":
                parts.append(f"{_escaped(what[0])}-{_escaped(what[1])}")
            case _:
                parts.append(_CATEGORIES[str(what)])
    return f"[{''.join(parts)}]"


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


# Attacks.

_PROBES = "a0 \n\t_-.:,;/\\\"'`<>()[]{}!@#$%&=*+~?|A\u00e4"


def attacks(pattern: str, flags: int = 0) -> Iterator[tuple[str, str, str]]:
    """(before, unit, after): texts `before + unit * n + after`. Units are made of every repeated part of the expression, and of what
    leads to it."""
    steps = Steps(pattern, flags)
    seen: set[tuple[str, str, str]] = set()
    heads: list[str] = []
    for head, bodies in _repeats(steps, list(steps.tree), ""):
        heads.append(head)
        units = dict.fromkeys([*bodies, head, *(head + body for body in bodies), *(2 * body for body in bodies)])
        for unit in filter(None, units):
            for before in dict.fromkeys(("", head)):
                for after in ("", "\n\x00"):
                    if (before, unit, after) not in seen:
                        seen.add((before, unit, after))
                        yield before, unit, after


def _samples(steps: Steps, items: list[Any], most: int = 3) -> list[str]:
    """A few texts that fit a sequence of items."""
    texts = [""]
    for op, value in items:
        name = str(op)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            fits = steps._character(op, value)
            literal = [chr(value)] if name == "LITERAL" else []
            options = (literal or [c for c in _PROBES if fits(c)] or [c for c in map(chr, range(0x3000)) if fits(c)])[:most]
        elif name == "BRANCH":
            options = [t for branch in value[1] for t in _samples(steps, list(branch), 2)][: 2 * most]
        elif name == "SUBPATTERN":
            options = _samples(steps, list(value[3]), most)
        elif name.endswith("REPEAT"):
            options = [t * max(value[0], 1) for t in _samples(steps, list(value[2]), most)] + ([""] if not value[0] else [])
        elif name == "ATOMIC_GROUP":
            options = _samples(steps, list(value), most)
        else:
            continue
        texts = [before + option for before in texts for option in options or [""]][: 4 * most]
    return texts


def _repeats(steps: Steps, items: list[Any], head: str) -> Iterator[tuple[str, list[str]]]:
    """(a text that leads there, samples of its body) of every repeated part."""
    for number, (op, value) in enumerate(items):
        lead = head + _samples(steps, items[:number], 1)[0]
        name = str(op)
        if name.endswith("REPEAT"):
            # A repeat, alone and with what stands around it.
            around = [_samples(steps, items[n : number + 1], 2)[0] for n in range(number)]
            tails = [_samples(steps, items[number : n + 1], 2)[0] for n in range(number, len(items))]
            yield lead, [*_samples(steps, list(value[2]), 4), *around, *tails]
            yield from _repeats(steps, list(value[2]), lead)
        elif name == "BRANCH":
            for branch in value[1]:
                yield from _repeats(steps, list(branch), lead)
        elif name == "SUBPATTERN":
            yield from _repeats(steps, list(value[3]), lead)
        elif name == "ATOMIC_GROUP":
            yield from _repeats(steps, list(value), lead)
        elif name in ("ASSERT", "ASSERT_NOT"):
            yield from _repeats(steps, list(value[1]), lead)
