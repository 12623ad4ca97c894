"""Conversation and memory of one run.

One append-only log per run, shared by its persons. What a person brings along is a *view* of it (`memorize_to`),
filtered by `ignore_person`, cut by `at_most`, and rendered with the speakers' names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dipeo_nb.domain.chat import ChatMessage, Message
from dipeo_nb.domain.diagram import is_facet
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.domain.selection import SYSTEM


class ConversationLog:
    """The messages of one run, in order."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.of: dict[str, list[Message]] = {}
        """The messages from and to each person, in order: of thousands of persons, none looks through the whole conversation."""
        self.without_facets: int = 0
        """How many messages are not of facets."""
        self._by_id: dict[str, Message] = {}
        self._last = 0
        self._spoken: list[Mapping[str, Any]] = []
        self._seen = 0
        self._views: dict[tuple[str, frozenset[str], str], PersonView] = {}

    def add(self, sender: str, receiver: str, content: str, *, timestamp: float, node_id: str | None = None) -> Message:
        """Append a message; its id is its number, so ids are unique and a replayed run has the same ones."""
        kind = (
            MessageType.SYSTEM_TO_PERSON
            if sender == SYSTEM
            else MessageType.PERSON_TO_SYSTEM
            if receiver == SYSTEM
            else MessageType.PERSON_TO_PERSON
        )
        self._last += 1
        message = Message(f"m{self._last}", sender, receiver, content, kind, timestamp, node_id)
        self._take(message)
        return message

    def restore(self, message: Message) -> None:
        """Take in a message of a recorded run, under the id it had."""
        if message.id not in self._by_id:
            self._take(message)
            self._last = max(self._last, int(message.id[1:]) if message.id[1:].isdecimal() else 0)

    def _take(self, message: Message) -> None:
        self.messages.append(message)
        self._by_id[message.id] = message
        sides = {message.from_person_id, message.to_person_id}
        for person in sides:
            self.of.setdefault(person, []).append(message)
        self.without_facets += not any(map(is_facet, sides))

    def conversation(self, person_id: str, model: str, upto: int, whole: bool) -> dict[str, Any]:
        """What a conversation_state edge delivers: messages, last_message, person_id, model; and `at`, from which a recorded
        run makes it again.

        Args:
            upto: how many messages the log had when the person had spoken.
            whole: all messages from and to the person until then; else only its last turn (question and answer).
        """
        if whole:
            chosen = recall(without_facets(self.messages[:upto]), person_id, "ALL_INVOLVED")
        else:
            chosen = self.messages[max(0, upto - 2) : upto]
        messages = [as_record(m) for m in chosen]
        at = {"person_id": person_id, "model": model, "upto": upto, "whole": whole}
        last = messages[-1] if messages else None
        return {"messages": messages, "last_message": last, "person_id": person_id, "model": model, "at": at}

    def spoken(self, labels: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """The messages so far as templates name them (`global_conversation`), without the messages of facets.

        Args:
            labels: person id → label, which stands in `from` and `to`; the run itself is `system`.
        """
        self._spoken += [  # each message once, however many nodes ask
            {
                "from": labels.get(m.from_person_id, m.from_person_id),
                "to": labels.get(m.to_person_id, m.to_person_id),
                **as_record(m),
            }
            for m in without_facets(self.messages[self._seen :])
        ]
        self._seen = len(self.messages)
        return list(self._spoken)

    def get(self, message_id: str) -> Message | None:
        return self._by_id.get(message_id)

    def view(self, person: str, ignored: Iterable[str], name: str) -> PersonView:
        """What a person may see by a view, of all messages so far but those from and to the persons *ignored* (by id)."""
        key = person, frozenset(ignored), name
        if (view := self._views.get(key)) is None:
            view = self._views[key] = PersonView(*key)
        view.follow(self)
        return view


class PersonView:
    """What a person may see of a conversation that grows: each message is looked at once, however many turns the person has."""

    def __init__(self, person: str, ignored: frozenset[str], name: str) -> None:
        self._person, self._ignored, self._name = person, ignored, name
        self.messages: list[Message] = []
        """In log order; more are added when the conversation has grown."""
        self.candidates: int = 0
        """How many messages there were to choose from."""
        self._seen = 0
        self._as_facet = 0
        """How many messages of a facet itself there are."""
        self._notes: list[int] = []
        self._question: Message | None = None
        self._own = name != "ALL_MESSAGES" and not self._ignored
        """Whether it is enough to look at the messages from and to the person; the others are only counted."""

    def follow(self, log: ConversationLog) -> None:
        """Take in what is new in the conversation."""
        messages = log.of.get(self._person, []) if self._own else log.messages
        new = ignoring(without_facets(messages[self._seen :], self._person), self._ignored)
        self._seen = len(messages)
        if self._own:
            self._as_facet += len(new) if is_facet(self._person) else 0
            self.candidates = log.without_facets + self._as_facet
        else:
            self.candidates += len(new)
        if self._name == "CONVERSATION_PAIRS":
            seen, self._question = _pairs(new, self._person, self._question)
        else:
            seen = recall(new, self._person, self._name)
        self._notes += [place for place, message in enumerate(seen, len(self.messages)) if _is_note(message)]
        self.messages += seen

    def limited(self, at_most: int | None) -> list[Message]:
        """As the function of that name."""
        return limited(self.messages, at_most, self._notes)


def as_record(message: Message) -> dict[str, Any]:
    """A message as events and conversation edges carry it; `role` as seen by others."""
    return {
        "id": message.id,
        "from_person_id": message.from_person_id,
        "to_person_id": message.to_person_id,
        "role": "user" if message.from_person_id == SYSTEM else "assistant",
        "content": message.content,
        "message_type": str(message.message_type),
        "timestamp": message.timestamp,
        "node_id": message.node_id,
    }


def involved(message: Message, person: str) -> bool:
    return person in (message.from_person_id, message.to_person_id)


VIEWS: Mapping[str, Callable[[Message, str], bool]] = {
    "GOLDFISH": lambda m, me: False,
    "ALL_MESSAGES": lambda m, me: True,
    "ALL_INVOLVED": involved,
    "SENT_BY_ME": lambda m, me: m.from_person_id == me,
    "SENT_TO_ME": lambda m, me: m.to_person_id == me,
    "SYSTEM_AND_ME": lambda m, me: involved(m, me) and SYSTEM in (m.from_person_id, m.to_person_id),
    "CONVERSATION_PAIRS": lambda m, me: False,  # pairs need the neighbours: see `recall`
}
"""`memorize_to` names that are views; any other text is a criterion for a selecting model."""


def view_name(memorize_to: str | None) -> str | None:
    """The view a `memorize_to` names; ALL_INVOLVED when blank, None when it is a criterion in words."""
    if memorize_to is None or not memorize_to.strip():
        return "ALL_INVOLVED"
    name = memorize_to.strip().upper().replace(" ", "_").replace("-", "_")
    return name if name in VIEWS else None


def recall(messages: Sequence[Message], person: str, view: str) -> list[Message]:
    """The messages of a named view, in log order."""
    if view != "CONVERSATION_PAIRS":
        wanted = VIEWS[view]
        return [m for m in messages if wanted(m, person)]
    return _pairs(messages, person)[0]


def _pairs(messages: Iterable[Message], person: str, question: Message | None = None) -> tuple[list[Message], Message | None]:
    """Questions to a person with its answers, and the last question when that has none.

    Args:
        question: the one that was open before these messages.
    """
    kept: list[Message] = []
    for m in messages:
        if m.to_person_id == person:
            question = m
        elif m.from_person_id == person and question is not None:
            kept += [question, m]
            question = None
    return kept, question


def without_facets(messages: Iterable[Message], person: str | None = None) -> list[Message]:
    """Without the messages of facets of persons; those of *person* stay, when it is a facet itself."""
    return [m for m in messages if not any(is_facet(side) and side != person for side in (m.from_person_id, m.to_person_id))]


def ignoring(messages: Iterable[Message], ignored: Iterable[str]) -> list[Message]:
    """Without messages from or to those persons (by id)."""
    names = set(ignored)
    return [m for m in messages if not names & {m.from_person_id, m.to_person_id}]


def limited(messages: Sequence[Message], at_most: int | None, notes: Sequence[int] | None = None) -> list[Message]:
    """All system-to-system notes first, then the most recent others, *at_most* in all, in log order.

    Args:
        notes: the places of the notes, when they are known: then a long conversation is not looked through for them.
    """
    if at_most is None or len(messages) <= at_most:
        return list(messages)
    if notes is None:
        notes = [place for place, message in enumerate(messages) if _is_note(message)]
    always = set(notes[:at_most])
    others = (place for place in range(len(messages) - 1, -1, -1) if place not in always)
    return [messages[place] for place in sorted([*always, *itertools.islice(others, at_most - len(always))])]


def _is_note(message: Message) -> bool:
    return message.from_person_id == SYSTEM and message.to_person_id == SYSTEM


def as_seen_by(messages: Iterable[Message], person: str, names: Mapping[str, str]) -> list[ChatMessage]:
    """Messages as the person's model hears them: its own words as the assistant, others' with their name."""
    spoken: list[ChatMessage] = []
    for m in messages:
        if m.from_person_id == person:
            spoken.append(ChatMessage("assistant", m.content))
        elif m.from_person_id == SYSTEM and m.to_person_id in (person, SYSTEM):
            spoken.append(ChatMessage("user", m.content))
        elif m.from_person_id == SYSTEM:
            spoken.append(ChatMessage("user", f"[to {names.get(m.to_person_id, m.to_person_id)}]: {m.content}"))
        else:
            spoken.append(ChatMessage("user", f"[{names.get(m.from_person_id, m.from_person_id)}]: {m.content}"))
    return spoken
