"""Events as clients receive them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dipeo_nb as dp
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import EVENT_VERSION, Event
from dipeo_nb.errors import EventBusError
from dipeo_nb.testing import scripted

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(EventType), st.integers(1, 10**9), st.text(min_size=1), st.none() | st.text(),
    st.floats(0, 4e9), st.dictionaries(st.text(), JSON, max_size=4),
)  # fmt: skip
def test_through_json_and_back(kind: EventType, seq: int, run: str, node: str | None, at: float, payload: Any):
    """Row S82: each of the ten types; nothing changes, but that times are of whole microseconds."""
    sent = Event(seq, kind, run, at, node, payload)
    wire = json.loads(json.dumps(sent.to_wire()))
    got = Event.from_wire(wire)
    assert got.to_wire() == wire
    assert got._replace(occurred_at=at) == sent
    assert got.occurred_at == pytest.approx(at, abs=1e-5)
    assert got.priority == sent.priority


def test_a_run_through_json_and_back():
    """What an exported run holds can be read and folded again."""
    diagram = "version: light\npersons:\n  A: {service: openai, model: m}\nnodes:\n- {label: S, type: start}\n"
    diagram += "- {label: P, type: person_job, person: A, default_prompt: Hi.}\n- {label: E, type: endpoint}\n"
    diagram += "connections:\n- {from: S, to: P}\n- {from: P, to: E}\n"
    with dp.Session(llm=scripted("one two")) as session:
        run = session.run(diagram, view=False)
        lines = [json.dumps(event.to_wire()) for event in run.events]
        again = [Event.from_wire(json.loads(line)) for line in lines]
        state = type(run.run.state).fold(again)
    assert (state.run_id, state.outputs, str(state.status)) == (run.id, {"E": "one two"}, "completed")


GOOD = Event(1, EventType.NODE_STARTED, "r", 1000.0, "n", {}).to_wire()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"type": "explosion"}, "explosion"),
        ({"timestamp": "yesterday"}, "yesterday"),
        ({"timestamp": "2026-01-01T00:00:00"}, "without a zone"),
        ({"metadata": {}}, "version"),
        ({"metadata": {"version": "99.0.0", "seq": 1}}, "version 99.0.0"),
        ({"metadata": {"version": EVENT_VERSION, "seq": "x"}}, "'x'"),
        ({"node_id": 7}, "not text"),
        ({"data": 7}, "int"),
    ],
)
def test_what_is_no_event(change: dict[str, Any], says: str):
    """One clear error that says what to do."""
    with pytest.raises(EventBusError, match=says) as error:
        Event.from_wire(GOOD | change)
    assert error.value.facts["cause"] == "invalid"
    assert error.value.hint


def test_nothing_at_all():
    with pytest.raises(EventBusError):
        Event.from_wire({})
