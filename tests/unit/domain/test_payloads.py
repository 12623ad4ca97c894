"""Payloads of events are what their types say, and the page about them is made from these."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.payloads import PAYLOADS, NodeMeta

ROOT = Path(__file__).parents[3]
LINE = re.compile(r"[* ][\d-]+ \S+ (?P<type>\w+) \S+ (?P<payload>\{.*\})")
OWN_TYPES = {"test_note", "test_pause"}
"""Node types that tests register, which add to `meta` what they like."""


def wrong(value: Any, kind: Any, place: str = "") -> Iterator[str]:
    """What of a JSON value is not as a type says: missing and unknown keys, values of other kinds."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if is_typeddict(kind):
        if not isinstance(value, Mapping):
            yield f"{place} is not a mapping"
            return
        hints = get_type_hints(kind)
        yield from (f"{place}.{name} is missing" for name in sorted(kind.__required_keys__ - value.keys()))
        yield from (f"{place}.{name} is unknown" for name in sorted(value.keys() - hints.keys()))
        for name in value.keys() & hints.keys():
            yield from wrong(value[name], hints[name], f"{place}.{name}")
    elif origin in (Union, types.UnionType):
        if all(list(wrong(value, part, place)) for part in parts):
            yield f"{place} is none of {kind}: {value!r}"
    elif origin is NotRequired:
        yield from wrong(value, parts[0], place)
    elif origin is Literal:
        if value not in parts:
            yield f"{place} is not one of {parts}: {value!r}"
    elif origin is tuple:
        if not isinstance(value, list) or len(value) != len(parts):
            yield f"{place} does not have {len(parts)} items"
        else:
            for index, part in enumerate(parts):
                yield from wrong(value[index], part, f"{place}[{index}]")
    elif origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            yield f"{place} is not a mapping"
        else:
            for name, item in value.items():
                yield from wrong(item, parts[1], f"{place}.{name}")
    elif origin is not None and issubclass(origin, Sequence):
        if not isinstance(value, list):
            yield f"{place} is not a list"
        else:
            for index, item in enumerate(value):
                yield from wrong(item, parts[0], f"{place}[{index}]")
    elif not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
        yield f"{place} is not {kind}: {value!r}"


def of(kind: EventType, payload: Mapping[str, Any]) -> type:
    """The type of a payload."""
    first, *others = PAYLOADS[kind]
    if not others:
        return first
    return next(t for t in PAYLOADS[kind] if payload["kind"] in get_args(get_type_hints(t)["kind"]))


def recorded() -> Iterator[tuple[EventType, dict[str, Any]]]:
    """The events of all golden runs. Pieces of one text stand in one line there, and a diagram only once."""
    for name in ("runs", "shapes"):
        for line in (ROOT / f"tests/golden/{name}.txt").read_text(encoding="utf-8").splitlines():
            if found := LINE.fullmatch(line):
                payload = json.loads(found["payload"])
                if payload.get("source") == "as above":
                    payload["source"] = {}
                if isinstance(payload.get("text"), list):
                    payload["text"] = "".join(payload["text"])
                yield EventType(found["type"]), payload


def test_recorded_payloads_are_of_their_type() -> None:
    """Of every golden run, whatever was done in it; each type and kind occurs there but three."""
    seen: set[type] = set()
    count = 0
    for kind, payload in recorded():
        count += 1
        seen.add(of(kind, payload))
        if payload.get("node_type") in OWN_TYPES and "meta" in payload:
            payload["meta"] = {}
        assert list(wrong(payload, of(kind, payload), str(kind))) == []
    assert count > 2000
    assert {t.__name__ for kinds in PAYLOADS.values() for t in kinds if t not in seen} == {
        "ToolOutput",
        "NodeWaiting",
        "RunNote",
    }


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_payloads_of_older_versions_are_of_their_type(version: int) -> None:
    """What they lack is not required."""
    database = (ROOT / f"tests/golden/runs-v{version}.db").as_uri()
    count = 0
    with contextlib.closing(sqlite3.connect(f"{database}?mode=ro&immutable=1", uri=True)) as connection:
        for kind, text in connection.execute("SELECT type, payload FROM events"):
            count += 1
            payload = json.loads(text)
            assert list(wrong(payload, of(EventType(kind), payload), kind)) == []
    assert count > 20


@pytest.mark.parametrize(
    ("payload", "problems"),
    [
        ({"request_id": "a", "answer": "b", "source": "user"}, []),
        ({"request_id": "a", "answer": "b", "source": "user", "mac": "c"}, []),
        ({"request_id": "a", "answer": "b"}, [".source is missing"]),
        ({"request_id": "a", "answer": "b", "source": "user", "who": "c"}, [".who is unknown"]),
        ({"request_id": 1, "answer": "b", "source": "user"}, [".request_id is not <class 'str'>: 1"]),
        ({"request_id": None, "answer": "b", "source": "user"}, [".request_id is not <class 'str'>: None"]),
    ],
)
def test_what_is_wrong_is_found(payload: Mapping[str, Any], problems: list[str]) -> None:
    assert list(wrong(payload, PAYLOADS[EventType.INTERACTIVE_RESPONSE][0])) == problems


@pytest.mark.parametrize(
    ("meta", "fine"),
    [
        ({}, True),
        ({"cost_usd": None}, True),
        ({"cost_usd": "1"}, False),
        ({"usage": {"input": 1.5}}, False),
        ({"other": 1}, False),
    ],
)
def test_parts_are_looked_into(meta: Mapping[str, Any], fine: bool) -> None:
    assert (list(wrong(meta, NodeMeta)) == []) is fine


def test_every_type_of_event_has_its_payload() -> None:
    assert set(PAYLOADS) == set(EventType)


def test_the_reference_is_up_to_date() -> None:
    """`docs/events.md` is what `scripts/make_events_reference.py` writes."""
    script = [sys.executable, str(ROOT / "scripts/make_events_reference.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
