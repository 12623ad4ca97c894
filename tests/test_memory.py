"""What a person remembers."""

from __future__ import annotations

import pytest

from dipeo_nb.domain import selection
from dipeo_nb.execution import memory
from dipeo_nb.execution.memory import SYSTEM, ConversationLog


@pytest.fixture
def log() -> ConversationLog:
    """Ada and Bob are each asked, and answer, twice."""
    log = ConversationLog()
    for n, (sender, receiver, text) in enumerate(
        [
            (SYSTEM, "ada", "ask 1"), ("ada", SYSTEM, "ada 1"), (SYSTEM, "bob", "ask 2"), ("bob", SYSTEM, "bob 1"),
            (SYSTEM, "ada", "ask 3"), ("ada", SYSTEM, "ada 2"), ("bob", "ada", "bob to ada"),
        ]
    ):  # fmt: skip
        log.add(sender, receiver, text, timestamp=1000.0 + n)
    return log


VIEWS = {
    "GOLDFISH": [],
    "ALL_MESSAGES": ["ask 1", "ada 1", "ask 2", "bob 1", "ask 3", "ada 2", "bob to ada"],
    "ALL_INVOLVED": ["ask 1", "ada 1", "ask 3", "ada 2", "bob to ada"],
    "SENT_BY_ME": ["ada 1", "ada 2"],
    "SENT_TO_ME": ["ask 1", "ask 3", "bob to ada"],
    "SYSTEM_AND_ME": ["ask 1", "ada 1", "ask 3", "ada 2"],
    "CONVERSATION_PAIRS": ["ask 1", "ada 1", "ask 3", "ada 2"],
}


@pytest.mark.parametrize("view", VIEWS)
def test_views(log: ConversationLog, view: str):
    """Each named view selects what its name says, in log order."""
    assert [m.content for m in memory.recall(log.messages, "ada", view)] == VIEWS[view]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "ALL_INVOLVED"),
        (" ", "ALL_INVOLVED"),
        ("goldfish", "GOLDFISH"),
        ("All messages", "ALL_MESSAGES"),
        ("remember all", None),
    ],
)
def test_view_name(text: str | None, expected: str | None):
    """Names are views in any case; blank is ALL_INVOLVED; other words are a criterion."""
    assert memory.view_name(text) == expected


def test_at_most_keeps_the_most_recent(log: ConversationLog):
    """at_most is enforced, most recent last."""
    assert [m.content for m in memory.limited(log.messages, 2)] == ["ada 2", "bob to ada"]
    assert memory.limited(log.messages, None) == log.messages
    assert memory.limited(log.messages, 100) == log.messages


def test_ignoring(log: ConversationLog):
    """Ignored persons disappear as senders and as receivers."""
    assert all("bob" not in (m.from_person_id, m.to_person_id) for m in memory.ignoring(log.messages, ["bob"]))


def test_told_names_the_others(log: ConversationLog):
    """Own words are the assistant's; others' words carry their name."""
    told = memory.told(log.messages, "ada", {"ada": "Ada", "bob": "Bob"})
    assert [(m.role, m.content) for m in told][:4] == [
        ("user", "ask 1"), ("assistant", "ada 1"), ("user", "[to Bob]: ask 2"), ("user", "[Bob]: bob 1"),
    ]  # fmt: skip


def test_ids_are_unique_and_repeatable():
    """Message ids count up, so a replayed run has the same ones."""
    log = ConversationLog()
    assert [log.add(SYSTEM, "a", "x", timestamp=0).id for _ in range(3)] == ["m1", "m2", "m3"]
    assert log.get("m2") is log.messages[1]


def test_ranking_drops_near_duplicates_and_prefers_recent():
    """Near-duplicates count as one; recent messages come first; 150 at most."""
    log = ConversationLog()
    for n in range(400):
        words = f"unique{n} alpha{n} beta{n}" if n % 2 else "the same words again"
        log.add("a", "b", words, timestamp=n * 60)
    best = selection.ranked(log.messages, now=400 * 60)
    assert len(best) == 150
    assert sum(m.content == "the same words again" for m in best) <= 1
    assert best[0].timestamp > best[-1].timestamp


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ({"message_ids": ["m2", "m9", "m1"]}, "", ["m2", "m1"]),
        (["m1"], "", ["m1"]),
        (None, "I would keep m2 and m1, not words like model", ["m2", "m1"]),
        (None, "nothing", []),
    ],
)
def test_chosen_ids(log: ConversationLog, answer, text, expected):
    """Ids come from structure first, from text else; unknown ones are dropped."""
    assert selection.chosen_ids(answer, text, log.messages) == expected
