"""The questions that the log of a run leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import InteractivePrompt, InteractiveResponse


class OpenQuestions:
    """The questions that a log leaves open: takes its events in order."""

    def __init__(self) -> None:
        self.found: dict[str, Mapping[str, Any]] = {}
        """request_id → payload (with `node_id`)."""
        self._at: dict[tuple[str, tuple[str, ...]], str] = {}
        """Place → the question that was asked there last."""
        self.seq: int = 0
        """Number of the last event."""

    def take(self, event: Event) -> None:
        self.seq, found = event.seq, self.found
        if event.type is EventType.INTERACTIVE_PROMPT:
            payload = {**cast(InteractivePrompt, event.payload), "node_id": event.node_id}
            place = place_of(payload)
            found.pop(self._at.get(place, ""), None)  # it was not answered in time, and its node tries again
            found[payload["request_id"]] = payload
            self._at[place] = payload["request_id"]
        elif not found:
            return
        elif event.type is EventType.INTERACTIVE_RESPONSE:
            if answered := found.pop(cast(InteractiveResponse, event.payload)["request_id"], None):
                self._at.pop(place_of(answered), None)
        elif event.type in (EventType.NODE_ERROR, EventType.NODE_COMPLETED):
            for request_id in [r for r, p in found.items() if p["node_id"] == event.node_id]:
                del found[request_id]
        elif event.type is EventType.EXECUTION_COMPLETED:
            found.clear()


def unanswered(events: Iterable[Event]) -> dict[str, Mapping[str, Any]]:
    """request_id → payload (with `node_id`) of each question that a log leaves open."""
    questions = OpenQuestions()
    for event in events:
        questions.take(event)
    return questions.found


def place_of(payload: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The node that asks, and its path: another question from there takes the place of the first."""
    return payload["node_id"], path_of(payload)


def path_of(payload: Mapping[str, Any]) -> tuple[str, ...]:
    """The nodes from the outermost run down to the one that asks, by label."""
    return tuple(payload.get("path") or (payload.get("label") or payload["node_id"],))
