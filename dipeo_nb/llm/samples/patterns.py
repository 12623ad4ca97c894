"""Texts that fit a regular expression."""

from __future__ import annotations

import random
import re
from re import _parser  # type: ignore[attr-defined]  # pyright: ignore - the parser of patterns has no public name
from typing import Any

from dipeo_nb.llm.samples.limits import ImpossibleError, Room


def matching(pattern: str, rng: random.Random | None, extra: int = 0, least: int = 0, *, room: Room | None = None) -> str:
    """A text in which the pattern is found.

    Args:
        extra: how often more than needed repeats are repeated.
        least: characters at least, where the pattern leaves room beside what it matches.

    Raises:
        ImpossibleError: the pattern is none, or asks what is not followed (look-around is checked later).
    """
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ImpossibleError(f"'{pattern}' is not a pattern: {error}") from None
    groups: dict[int, str] = {}
    room = room or Room()
    made = _written(parsed, rng, extra, groups, room)
    if len(made) < least and not pattern.endswith("$"):
        room.take(least)
        made = made.ljust(least, "o")
    return made


_CATEGORIES = {
    "CATEGORY_DIGIT": "0123456789", "CATEGORY_WORD": "abcdefghijklmnopqrstuvwxyz0123456789_", "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_DIGIT": "abcdefgh", "CATEGORY_NOT_WORD": " -", "CATEGORY_NOT_SPACE": "abcdefgh0123456789",
}  # fmt: skip
_USUAL = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ _-.,;:!?/+*#@%&()[]{}<>|\\^$'\"~`=\t\n"


def _written(parts: Any, rng: random.Random | None, extra: int, groups: dict[int, str], room: Room) -> str:
    made: list[str] = []
    for operation, value in parts:
        room.take(1)
        name = str(operation)
        match name:
            case "LITERAL":
                made.append(chr(value))
            case "NOT_LITERAL":
                made.append(next(c for c in _USUAL if c != chr(value)))
            case "ANY":
                made.append(rng.choice(_USUAL[:36]) if rng else "o")
            case "IN":
                made.append(_one_of(value, rng))
            case "BRANCH":
                branches = value[1]
                made.append(_written(rng.choice(branches) if rng else branches[0], rng, extra, groups, room))
            case "SUBPATTERN":
                text = _written(value[-1], rng, extra, groups, room)
                groups[value[0]] = text
                made.append(text)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                low, high, inner = value
                times = min(int(low) + extra + (rng.randrange(3) if rng else 0), int(high))
                room.take(times)
                made += [_written(inner, rng, extra, groups, room) for _ in range(times)]
            case "ATOMIC_GROUP":
                made.append(_written(value, rng, extra, groups, room))
            case "GROUPREF":
                room.take(len(groups.get(value, "")))
                made.append(groups.get(value, ""))
            case "AT" | "ASSERT_NOT":
                pass
            case "ASSERT":
                if value[0] > 0:
                    made.append("")  # what follows has to do what it asks; the check decides
            case _:
                raise ImpossibleError(f"patterns with {name} cannot be followed")
    return "".join(made)


def _one_of(members: Any, rng: random.Random | None) -> str:
    """A character of a class such as `[a-z_]`."""
    allowed: list[str] = []
    negated = False
    for operation, value in members:
        match str(operation):
            case "NEGATE":
                negated = True
            case "LITERAL":
                allowed.append(chr(value))
            case "RANGE":
                allowed += [chr(c) for c in range(value[0], min(value[1], value[0] + 200) + 1)]
            case "CATEGORY":
                allowed += _CATEGORIES.get(str(value), "")
            case _:
                pass
    if negated:
        allowed = [c for c in _USUAL if c not in allowed]
    if not allowed:
        raise ImpossibleError("no character fits")
    return rng.choice(allowed) if rng else allowed[0]
