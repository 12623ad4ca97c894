"""The log of a run in memory reads as a list of the events that were appended."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.state.packed_log import PackedLog

KINDS = tuple(EventType)
VALUES: list[Any] = [
    1, -(2**70), 0.1, float("inf"), None, True, "", "שלום\n😀", [1, [2, ("a", "b")]], {"a": {"b": []}},
    Status.FAILED,  # cannot be packed
    "x" * 100_000,  # is not: it may be shared
]  # fmt: skip


def log_of(count: int) -> tuple[PackedLog, list[Event]]:
    events = [
        Event(
            n,
            KINDS[n % len(KINDS)],
            "exec_1",
            n / 3,
            f"n{n}" if n % 5 else None,
            {"run": n, "value": VALUES[n % 97 % len(VALUES)]},
        )
        for n in range(1, count + 1)
    ]
    log = PackedLog("exec_1")
    for event in events:
        log.extend([event])
    return log, events


@pytest.mark.parametrize("count", [1, 2, 300])
def test_it_reads_as_a_list(count: int):
    log, events = log_of(count)
    assert len(log) == count
    assert list(log) == events
    assert log.latest_of_run == next(event for event in reversed(events) if event.type is not EventType.RUN_NOTE)
    places = [None, 0, 1, count - 1, count, count + 5, -1, -2, -count - 5]
    for begin in places:
        for end in places:
            assert log[begin:end] == events[begin:end]
            assert log[begin:end:7] == events[begin:end:7]
    for index in range(-count, count, 13):
        assert log[index] == events[index]
    with pytest.raises(IndexError):
        log[count]


def test_events_come_back_exactly():
    """Types of values and of events, too."""
    log, events = log_of(300)
    for event, before in zip(log, events, strict=True):
        assert type(event) is Event
        assert event.type is before.type
        assert repr(event.payload) == repr(before.payload)


def test_equal_big_values_are_one_object():
    """Also those that came as objects of their own."""
    log = PackedLog("r")
    for n in range(1, 40):
        output: Any = ["x" * 70_000] if n % 8 == 0 else n
        log.extend([Event(n, EventType.NODE_COMPLETED, "r", 0.0, "n", {"output": output})])
    big = [e.payload["output"] for e in log if isinstance(e.payload["output"], list)]
    assert len(big) == 4
    assert len({id(value[0]) for value in big}) == 1


def test_the_collector_has_little_to_go_through():
    before = len(gc.get_objects())
    log = PackedLog("r")
    for n in range(1, 3000):
        log.extend([Event(n, EventType.NODE_COMPLETED, "r", 0.0, "n", {"output": {"x": [n]}, "inputs": {"default": ["a", n]}})])
    assert len(gc.get_objects()) - before < 1000
