"""The questions that the log of a run leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import InteractivePrompt, InteractiveResponse


class Asked(dict[str, Mapping[str, Any]]):
    """Open questions in the order in which they were asked: request_id → payload, with `node_id`.

    Thousands may wait at once, so those of a node, and the one of a place, are not looked for among all of them.
    """

    __slots__ = ("_by_node",)

    def __init__(self, questions: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        super().__init__(questions or {})
        self._by_node: dict[str, dict[tuple[str, ...], str]] | None = None
        """Node → path → question; made when it is needed, as most copies never change."""

    def ask(self, question: Mapping[str, Any]) -> list[str]:
        """A question takes the place of an earlier one from there, which was not answered in time: its node tries again.

        Returns:
            The ids of those that are over.
        """
        request_id, (node_id, path) = question["request_id"], place_of(question)
        over = [request_id] if request_id in self else []
        self.drop(request_id)
        paths = self._places().setdefault(node_id, {})
        if (earlier := paths.get(path)) is not None:
            del self[earlier]
            over.append(earlier)
        self[request_id] = question
        paths[path] = request_id
        return over

    def drop(self, request_id: str) -> None:
        """A question is over, if it is open."""
        if (question := self.pop(request_id, None)) is not None and self._by_node is not None:
            node_id, path = place_of(question)
            paths = self._by_node.get(node_id, {})
            if paths.get(path) == request_id:  # else another of that place, which a record may have
                del paths[path]
                if not paths:
                    del self._by_node[node_id]

    def drop_of(self, node_id: str) -> list[str]:
        """A node asks no longer.

        Returns:
            The ids of its questions.
        """
        over = list(self._places().pop(node_id, {}).values())
        for request_id in over:
            del self[request_id]
        return over

    def clear(self) -> None:
        super().clear()
        self._by_node = None

    def _places(self) -> dict[str, dict[tuple[str, ...], str]]:
        if self._by_node is None:
            self._by_node = {}
            for request_id, question in self.items():
                node_id, path = place_of(question)
                self._by_node.setdefault(node_id, {})[path] = request_id
        return self._by_node


class OpenQuestions:
    """The questions that a log leaves open: takes its events in order."""

    def __init__(self) -> None:
        self.found: Asked = Asked()
        self.seq: int = 0
        """Number of the last event."""

    def take(self, event: Event) -> list[str]:
        """Take one event in.

        Returns:
            The ids of the questions that are over with it.
        """
        self.seq, found = event.seq, self.found
        if event.type is EventType.INTERACTIVE_PROMPT:
            return found.ask({**cast(InteractivePrompt, event.payload), "node_id": event.node_id})
        if not found:
            return []
        if event.type is EventType.INTERACTIVE_RESPONSE:
            answered = cast(InteractiveResponse, event.payload)["request_id"]
            found.drop(answered)
            return [answered]
        if event.type in (EventType.NODE_ERROR, EventType.NODE_COMPLETED):
            return found.drop_of(event.node_id or "")
        if event.type is EventType.EXECUTION_COMPLETED:
            over = list(found)
            found.clear()
            return over
        return []


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
