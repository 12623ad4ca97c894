"""Pieces of streamed text become events: together, in order, without secrets, and none is lost."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from dipeo_nb.common.redaction import Redactor
from dipeo_nb.execution import streamed_texts
from dipeo_nb.execution.streamed_texts import LONGEST, StreamedTexts

SECRET = "correct-horse-battery-staple-42"


@pytest.fixture(autouse=True)
def redactor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_texts, "redactor", Redactor([SECRET]))


class Writer:
    """Writes to texts as a journal does, and keeps what becomes of it."""

    def __init__(self) -> None:
        self.texts = StreamedTexts()
        self.events: list[tuple[str, float, Mapping[str, Any]]] = []
        self.now = 0.0

    def write(self, piece: str, node: str = "a", **fields: Any) -> None:
        payload = {"kind": "text", "text": piece, "run": 1, **fields}
        self.now += 1
        text = self.texts.of(node, payload)
        assert text is not None
        if text.waits and not text.takes(payload):
            self.commit()
        if not text.waits:
            text.begin(payload, self.now)
            self.texts.waiting.append(text)
        text.add(piece)

    def commit(self) -> None:
        self.events += self.texts.take()

    def end(self, node: str = "a") -> None:
        self.commit()
        self.events += [(node, self.now, payload) for payload in self.texts.end(node)]

    def text(self, node: str = "a") -> str:
        return "".join(payload["text"] for name, _, payload in self.events if name == node)


def test_pieces_until_a_commit_are_one_event_with_the_time_of_the_first():
    writer = Writer()
    for piece in ("one ", "two ", "three "):
        writer.write(piece)
    writer.commit()
    writer.write("four")
    writer.end()
    assert [(at, payload) for _, at, payload in writer.events] == [
        (1.0, {"kind": "text", "text": "one two three ", "run": 1, "pieces": 3}),
        (4.0, {"kind": "text", "text": "four", "run": 1}),
    ]


def test_texts_of_several_nodes_and_calls_do_not_mix():
    writer = Writer()
    for n in range(3):
        writer.write(f"a{n} ")
        writer.write(f"b{n} ", "b")
        writer.write(f"c{n} ", call_id="c")
    writer.end("a")
    writer.end("b")
    found = [(node, at, payload["text"], payload.get("call_id")) for node, at, payload in writer.events]
    assert found == [("a", 1.0, "a0 a1 a2 ", None), ("b", 2.0, "b0 b1 b2 ", None), ("a", 3.0, "c0 c1 c2 ", "c")]


def test_an_answer_that_begins_again_is_told_from_the_first():
    writer = Writer()
    writer.write("wrong ")
    writer.write("", restart=True)
    writer.write("right ")
    writer.write("now ")
    writer.end()
    assert [(payload["text"], payload.get("restart", False)) for _, _, payload in writer.events] == [
        ("wrong ", False),
        ("", True),
        ("right now ", False),
    ]


def test_a_long_text_is_several_events():
    writer = Writer()
    for _ in range(10):
        writer.write("x" * (LONGEST // 2))
    writer.end()
    assert [len(payload["text"]) for _, _, payload in writer.events] == [LONGEST] * 5


@pytest.mark.parametrize("seed", range(30))
def test_no_secret_is_shown_and_nothing_else_is_lost(seed: int):
    """However it is cut, and whenever it is committed."""
    rng = random.Random(seed)
    whole = f"It is {SECRET}, not {SECRET[:-3]}; or sk-abcdefghijklmnop0123456789? No: {SECRET}"
    writer, rest = Writer(), whole
    while rest:
        n = rng.choice((1, 1, 2, 3, 8, 20))
        writer.write(rest[:n])
        rest = rest[n:]
        if rng.random() < 0.3:
            writer.commit()
    writer.end()
    assert writer.text() == f"It is [hidden], not {SECRET[:-3]}; or [hidden]? No: [hidden]"
    assert all(SECRET not in payload["text"] and payload["text"] for _, _, payload in writer.events)


def test_what_is_no_text_in_pieces_belongs_to_none():
    texts = StreamedTexts()
    for payload in (
        {"kind": "tool", "text": "x"},
        {"kind": "text"},
        {"kind": "text", "text": 1},
        {"kind": ["text"], "text": "x"},
    ):
        assert texts.of("a", payload) is None
