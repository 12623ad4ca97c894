"""Damage for recorded streams: seeded, so that each case can be had again by its number."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

DEEP = 3_000
"""Levels of nesting of what is nested deeply."""
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 7, 2.5, 10**30, -(10**30), float("inf"), float("nan"), "", " ", "x", "\ud800", "\u2028", "0",
    [], {}, [None], [[]], {"": None}, ["a", 1], {"type": None}, {"type": "text"}, {"text": 5},
)  # fmt: skip
UNKNOWN: tuple[Any, ...] = (
    {"type": "response.later_than_this_test", "delta": "x"},
    {"type": "content_block_later", "index": 0},
    {"type": "ping"},
    {},
    {"type": None},
    {"type": ["a"]},
    None,
    5,
    "text",
    [],
    [1],
    {"error": None},
    {"error": "stop"},
    {"error": {"code": "server_error", "message": None}},
    {"type": "error", "error": {"type": "timeout_error", "message": "slow"}},
    {"candidates": None},
    {"candidates": [None]},
    {"done": True},
    {"message": None, "done": True},
)
"""Events of later versions, of other providers, and what is no event."""


@dataclass(frozen=True)
class Damaged:
    """A stream to send."""

    pieces: tuple[bytes, ...]
    intact: int
    """Number of the recording's events that come whole before anything is wrong."""
    breaks: bool
    """Whether the connection breaks at its end."""
    harmless: bool
    """Whether it says the same as the recording."""
    story: str
    """What was done to it."""


Render = Callable[[Any], bytes]


def split(random: Random, data: bytes) -> tuple[bytes, ...]:
    """*data* in pieces, some of a single byte."""
    way = random.randrange(4)
    if way == 0 or not data:
        return (data,)
    if way == 1 and len(data) < 3_000:
        return tuple(data[i : i + 1] for i in range(len(data)))
    cuts = sorted({random.randrange(len(data)) for _ in range(random.randrange(1, 12))})
    return tuple(data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b)


def damaged(
    random: Random, events: Sequence[Any], render: Render, harmless: Callable[[Random, Sequence[Any]], bytes]
) -> Damaged:
    """The events of a recording with one to three things wrong, or as they are but written otherwise."""
    if random.random() < 0.25:
        return Damaged(split(random, harmless(random, events)), len(events), False, True, "written otherwise")
    story: list[str] = []
    intact = len(events)
    mine: list[Any] = [copy.deepcopy(event) for event in events]
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        if mine:
            at, said = _wrong_events(random, mine)
            intact = min(intact, at)
            story.append(said)
    texts = list(map(render, mine))
    data = b"".join(texts)
    if not story or random.random() < 0.25:
        data, at, said = wrong_bytes(random, data)
        story.append(said)
        ends = [sum(map(len, texts[: n + 1])) for n in range(len(texts))]
        intact = min(intact, sum(end <= at for end in ends))
    breaks = random.random() < 0.15
    return Damaged(split(random, data), intact, breaks, False, "; ".join(story) + "; breaks" * breaks)


def _wrong_events(random: Random, events: list[Any]) -> tuple[int, str]:
    """(place, what) of something wrong with the events from there on."""
    at = random.randrange(len(events))
    match random.randrange(11):
        case 0:
            del events[at]
            return at, f"without event {at}"
        case 1:
            events.insert(at, copy.deepcopy(events[at]))
            return at + 1, f"event {at} twice"
        case 2:
            other = random.randrange(len(events))
            events[at], events[other] = events[other], events[at]
            return min(at, other), f"events {at} and {other} swapped"
        case 3:
            tail = events[at:]
            random.shuffle(tail)
            events[at:] = tail
            return at, f"shuffled from {at}"
        case 4:
            del events[at:]
            return at, f"ends before {at}"
        case 5:
            unknown = copy.deepcopy(random.choice(UNKNOWN))
            events.insert(at, unknown)
            return at, f"{unknown!r} before {at}"
        case 6:
            events[at] = _deep(random)
            return at, f"event {at} nested deeply"
        case _:
            return at, f"event {at}: {wrong_value(random, events, at)}"


def wrong_value(random: Random, events: list[Any], at: int) -> str:
    """Something wrong at a place within an event."""
    places = list(_places(events[at]))
    if not places:
        events[at] = random.choice(ODD_VALUES)
        return repr(events[at])
    holder, key = random.choice(places)
    if isinstance(holder, dict) and random.random() < 0.25:
        del holder[key]
        return f"without {key!r}"
    value = _deep(random) if random.random() < 0.03 else copy.deepcopy(random.choice(ODD_VALUES))
    holder[key] = value
    return f"{key!r} = {value!r:.60}"


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from _places(inner)


def _deep(random: Random) -> Any:
    """Marks a value that `dumps` writes as brackets within brackets."""
    return random.choice(("\0deep[", "\0deep{"))


def dumps(value: Any, **options: Any) -> bytes:
    """JSON, with what Python's writer cannot: nesting, lone surrogates as escapes, numbers that are none."""
    text = json.dumps(value, **options)
    text = text.replace('"\\u0000deep["', "[" * DEEP + "]" * DEEP)
    text = text.replace('"\\u0000deep{"', '{"a":' * DEEP + "1" + "}" * DEEP)
    return text.encode("utf-8", "surrogatepass")


def wrong_bytes(random: Random, data: bytes) -> tuple[bytes, int, str]:
    """(bytes, place, what) of something wrong with the bytes from there on."""
    at = random.randrange(len(data)) if data else 0
    more = random.choice((b"\xff", b"\x00", b"\xed\xa0\x80", b"\n", b"\r", b"\n\n", b"data: ", b"{", b"}", b'"', b"\\", b"\xef\xbb\xbf",
                          b"data: [DONE]\n\n", b"event: error\n", b": c\n", b"\xe2\x80\xa8", b"1e999", b"<html>"))  # fmt: skip
    match random.randrange(5):
        case 0:
            return data[:at], at, f"ends at byte {at}"
        case 1:
            return data[:at] + more + data[at:], at, f"{more!r} at byte {at}"
        case 2:
            return data[:at] + data[at + random.randrange(1, 40) :], at, f"bytes left out at {at}"
        case 3:
            return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :], at, f"another byte at {at}"
        case _:
            end = at + random.randrange(1, 60)
            return data[:end] + data[at:end] + data[end:], min(end, len(data)), f"bytes {at} to {end} twice"


# What makes no difference.


def otherwise_lines(random: Random, events: Sequence[Any]) -> bytes:
    """Lines of JSON with other blanks, escapes and ends of lines, and empty lines."""
    found = [b"\xef\xbb\xbf"] if random.random() < 0.2 else []
    for event in events:
        found += [
            random.choice((b"", b"", b"\n", b"\r\n", b"  \n")),
            _json_otherwise(random, event),
            random.choice((b"\n", b"\r\n")),
        ]
    return b"".join(found if random.random() < 0.7 else found[:-1])


def otherwise_events(random: Random, events: Sequence[Any], *, named: bool) -> bytes:
    """Server-sent events with comments, numbers, other ends of lines, and data over several lines."""
    end = random.choice((b"\n", b"\r\n", b"\r"))
    found: list[bytes] = []
    for event in events:
        if random.random() < 0.3:
            found.append(random.choice((b": ping", b":", b"retry: 3000", b"id: 7", b": OPENROUTER PROCESSING", b"event: x")))
            found += [b""] * random.randrange(3)
            if found[-1] != b"" and found[-1].startswith(b"event"):
                found.append(b"")
        lines = [b"id: " + str(random.random()).encode()] if random.random() < 0.3 else []
        if named:
            lines.append(b"event: " + event["type"].encode())
        blank = random.choice((b" ", b""))
        data = _json_otherwise(random, event, {"indent": 1})
        lines += [b"data:" + blank + part for part in data.split(b"\n")]
        if random.random() < 0.2:
            lines.append(b": within")
        found += [*lines, *[b""] * random.randrange(1, 4)]
    bom = b"\xef\xbb\xbf" if random.random() < 0.2 else b""
    return bom + b"".join(line + end for line in found)


def _json_otherwise(random: Random, event: Any, *more: dict[str, Any]) -> bytes:
    ways: tuple[dict[str, Any], ...] = ({}, {"ensure_ascii": False}, {"separators": (",", ":")}, {"separators": (" , ", " : ")})
    return dumps(event, **random.choice((*ways, *more)))
