"""What a person remembers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dipeo_nb.domain import selection
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig, is_facet
from dipeo_nb.execution import conversation
from dipeo_nb.execution.conversation import SYSTEM, ConversationLog
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.row_diagrams import diagram


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
    assert [m.content for m in conversation.recall(log.messages, "ada", view)] == VIEWS[view]


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
    assert conversation.view_name(text) == expected


def test_at_most_keeps_the_most_recent(log: ConversationLog):
    """at_most is enforced, most recent last."""
    assert [m.content for m in conversation.limited(log.messages, 2)] == ["ada 2", "bob to ada"]
    assert conversation.limited(log.messages, None) == log.messages
    assert conversation.limited(log.messages, 100) == log.messages


def test_ignoring(log: ConversationLog):
    """Ignored persons disappear as senders and as receivers."""
    assert all("bob" not in (m.from_person_id, m.to_person_id) for m in conversation.ignoring(log.messages, ["bob"]))


def test_told_names_the_others(log: ConversationLog):
    """Own words are the assistant's; others' words carry their name."""
    told = conversation.as_seen_by(log.messages, "ada", {"ada": "Ada", "bob": "Bob"})
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


DEBATE = """
version: light
persons:
  Ada: {service: openai, model: m}
  Bob: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: A, type: person_job, person: Ada, default_prompt: "Open.", memorize_to: GOLDFISH}
- {label: B, type: person_job, person: Bob, default_prompt: "Reply.", memorize_to: ALL_MESSAGES}
- {label: C, type: person_job, person: Ada, default_prompt: "Close.", memorize_to: what Bob said, at_most: 1}
- {label: D, type: condition, condition_type: llm_decision, person: Bob, judge_by: "Good?", memorize_to: SENT_BY_ME}
- {label: End, type: endpoint}
connections:
- {from: Start, to: A}
- {from: A, to: B, content_type: conversation_state}
- {from: B, to: C}
- {from: C, to: D}
- {from: D_condtrue, to: End}
"""
SCRIPT = {"A": "a", "B": "b", "C": [{"message_ids": ["m4", "m3"]}, "c"], "D": [{"decision": True}]}


def test_what_each_person_saw(tmp_path: Path):
    """`conversation.turns`: view or criterion, the messages that were shown, prompt and answer; of decisions too."""
    llm = scripted(SCRIPT)
    with Session(tmp_path, llm=llm) as dp:
        conversation = dp.run(DEBATE, view=False).conversation
    turns = conversation.turns
    assert [(t["node"], t["memory"], [m["content"] for m in t["saw"]], t["answer"]) for t in turns[:3]] == [
        ("A", "GOLDFISH", [], "a"),
        ("B", "ALL_MESSAGES", ["Open.", "a"], "b"),
        ("C", "what Bob said", ["b"], "c"),
    ]
    assert (turns[3]["node"], turns[3]["memory"], [m["content"] for m in turns[3]["saw"]]) == ("D", "SENT_BY_ME", ["b"])
    assert [m["content"] for m in conversation] == ["Open.", "a", "Reply.", "b", "Close.", "c"]
    html = conversation._repr_html_()
    assert "saw 2" in html
    assert "C#1: " in repr(turns)


def test_the_selector_is_a_facet_and_leaves_no_trace(tmp_path: Path):
    """The question and answer of a selection are in nobody's memory, nor in the conversation; the call is charged to the person."""
    llm = scripted(SCRIPT)
    with Session(tmp_path, llm=llm) as dp:
        run = dp.run(DEBATE, view=False)
    selection_call = next(r for r in llm.requests if "facet" in r.context)
    assert selection_call.context["facet"].endswith(".__selector")
    later = llm.requests[llm.requests.index(selection_call) + 1 :]
    assert not any("Select the messages" in m.content for r in later for m in r.messages)
    assert not any("Select the messages" in m["content"] for m in run.conversation)
    assert run.run.persons["Ada"].calls == 3


def test_facets_never_leak():
    """What a facet of a person hears and says is in no view of anybody, except its own."""
    log = ConversationLog()
    log.add(SYSTEM, "ada", "ask", timestamp=1)
    log.add("ada.__critic", SYSTEM, "secret doubt", timestamp=2)
    log.add(SYSTEM, "ada.__critic", "doubt?", timestamp=3)
    for person in ("ada", "bob"):
        kept = conversation.without_facets(log.messages, person)
        for view in VIEWS:
            assert "doubt" not in str([m.content for m in conversation.recall(kept, person, view)])
    own = conversation.without_facets(log.messages, "ada.__critic")
    assert [m.content for m in conversation.recall(own, "ada.__critic", "ALL_INVOLVED")] == ["secret doubt", "doubt?"]
    person = DomainPerson("ada", "Ada", LLMConfig(service="openai", model="m", system_prompt="Be Ada."))
    facet = person.facet("critic", system_prompt="Doubt.")
    assert (facet.id, facet.llm.model, facet.llm.system_prompt) == ("ada.__critic", "m", "Doubt.")
    assert is_facet(facet.id)
    assert not is_facet(person.id)


def test_two_hundred_messages_at_most_five(tmp_path: Path):
    """S72: from a long log at most five come along, the same ones each time, and near-duplicates count once."""
    log = ConversationLog()
    for n in range(100):
        log.add(SYSTEM, "ada", f"question number {n} about topic {n % 7}", timestamp=1000.0 + n)
        log.add("ada", SYSTEM, "the same answer as always", timestamp=1000.5 + n)
    candidates = selection.ranked(log.messages, 2000.0)
    assert sum(m.content == "the same answer as always" for m in candidates) == 1
    assert candidates == selection.ranked(log.messages, 2000.0)
    assert len(conversation.limited(candidates, 5)) == 5


@pytest.mark.parametrize("at_most", [None, 1, 3])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_grows_as_one_that_is_made_anew(view: str, at_most: int | None):
    """However a conversation grows between two turns, a person sees what it would if all of it were looked through."""
    told = random.Random(0)
    log, sides = ConversationLog(), [SYSTEM, "ada", "bob", "cem", "ada.__critic"]
    for _ in range(60):
        for _ in range(told.randrange(4)):
            sender, receiver = told.choices(sides, k=2)
            log.add(sender, receiver, "…", timestamp=0.0)
        for person, ignored in [("ada", []), ("bob", ["cem"]), ("ada.__critic", [])]:
            everything = conversation.ignoring(conversation.without_facets(log.messages, person), ignored)
            seen = log.view(person, ignored, view)
            assert seen.candidates == len(everything)
            assert seen.limited(at_most) == conversation.limited(conversation.recall(everything, person, view), at_most)


@pytest.mark.parametrize("more", [{"batch": True, "memorize_to": "GOLDFISH"}, {"max_iteration": 100, "at_most": 4}])
def test_each_message_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, object]):
    """Turns of persons that remember little cost the same, however long the conversation is already."""
    looked: list[str] = []
    monkeypatch.setattr(conversation, "is_facet", lambda side: looked.append(side) or is_facet(side))
    turn = {"label": "Say", "type": "person_job", "person": "P", "default_prompt": "Go on.", **more}
    enough = {"label": "Enough", "type": "condition", "condition_type": "detect_max_iterations"}
    again = [("Start", "Say"), ("Say", "Enough"), ("Enough[condfalse]", "Say"), ("Enough[condtrue]", "End")]
    arrows = [{"from": a, "to": b} for a, b in again]
    described = diagram(turn) if "batch" in more else diagram(turn, enough, arrows=arrows)
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(described, inputs={"items": list(range(100))}, max_iterations=1000, view=False)
    assert len(run.conversation) == 200
    assert len(looked) <= 4 * 2 * 200  # twice for each of its sides, by what templates see and by the person


def test_ranking_compares_what_may_be_alike(monkeypatch: pytest.MonkeyPatch):
    """Not each message with each: only those that share rare words."""
    compared: list[int] = []
    monkeypatch.setattr(selection, "min", lambda *sizes: compared.append(1) or min(*sizes), raising=False)
    log, told = ConversationLog(), random.Random(0)
    vocabulary = [f"word{n}" for n in range(5000)]
    for n in range(400):
        log.add("a", "b", "the same few words and " + " ".join(told.sample(vocabulary, 20)), timestamp=n)
    assert len(selection.ranked(log.messages, now=400.0)) == 150
    assert len(compared) <= 8 * 400  # with each they would be 80,000


def test_ranking_finds_every_message_that_is_alike():
    """As if each were compared with each, in order."""
    told = random.Random(0)
    for size in [3, 12, 30] * 30:
        log = ConversationLog()
        for n in range(30):
            log.add(
                "a", "b", " ".join(f"w{told.randrange(size)}" for _ in range(told.choice([0, 1, 9, 10, 11, 40]))), timestamp=n
            )
        first: list[tuple[str, set[str]]] = []
        for message in log.messages:
            said = set(message.content.split())
            if not any(
                min(map(len, (said, seen))) and len(said & seen) / min(len(said), len(seen)) >= 0.9 for _, seen in first
            ):
                first.append((message.id, said))
        assert {message.id for message in selection.ranked(log.messages, now=30.0)} == {found for found, _ in first}


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "ALL_MESSAGES"])
def test_of_many_persons_none_looks_through_the_whole_conversation(view: str, monkeypatch: pytest.MonkeyPatch):
    looked: list[str] = []
    monkeypatch.setattr(conversation, "is_facet", lambda side: looked.append(side) or is_facet(side))
    log = ConversationLog()
    for n in range(300):
        person = f"person_{n}"
        assert log.view(person, [], view).messages == []
        log.add(SYSTEM, person, "question", timestamp=0.0)
        log.add(person, SYSTEM, "answer", timestamp=0.0)
        assert log.view(person, [], view).candidates == 2 * n + 2
    assert len(looked) <= 600 * 8
