"""What is recordable as it stands is plain and holds no secret; the rest is looked at closely."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Any

import pytest

from dipeo_nb.common.recordable import FEW, is_recordable
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.values import is_plain

SECRET = "s3cret-of-the-recordable-test"
KEY = "sk-" + "abcdefgh12345678"


class Word(StrEnum):
    ONE = "one"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redactor, "known", redactor.known)
    redactor.add(SECRET)


@pytest.mark.parametrize(
    "value", [None, True, 0, -3, 0.5, float("nan"), "", "text", "a longer text", {}, {"x": 1}, {"a b": "word", "c": None}]
)
def test_what_nodes_mostly_give_is(value: Any):
    assert is_recordable(value)


@pytest.mark.parametrize(
    "value",
    [
        SECRET, f"({SECRET})", KEY, {"x": SECRET}, {SECRET: 1}, {"x": KEY}, {KEY: 1},  # secrets
        10**400, {"x": -(10**400)}, "\ud800", {"x": "\ud800"}, {"\ud800": 1}, {1: 1}, {None: 1}, b"x", {"x": b"x"}, {"x": object()},
        Word.ONE, {"x": Word.ONE}, {Word.ONE: 1},  # not plain
        "für", [], [1], (1,), {"x": []}, {"x": {}}, dict.fromkeys(map(str, range(FEW + 1))),  # to be looked at
    ],
)  # fmt: skip
def test_what_may_be_something_else_is_not(value: Any):
    assert not is_recordable(value)


def test_it_never_says_yes_where_a_closer_look_says_no():
    """Of ten thousand random values."""
    parts: list[Any] = [
        "",
        "x",
        "word",
        SECRET,
        SECRET[:-1],
        KEY,
        KEY[:-4],
        "ü",
        "\udfff",
        1,
        10**400,
        1e308,
        None,
        True,
        b"",
        [],
        {},
        Word.ONE,
        2.5,
    ]
    rng = random.Random(3)
    yes = 0
    for _ in range(10_000):
        value = rng.choice(parts)
        if rng.random() < 0.8:
            keys = [key for key in rng.choices(parts, k=rng.randrange(5)) if not isinstance(key, (list, dict))]
            value = {key: rng.choice(parts) for key in keys}
        if is_recordable(value):
            yes += 1
            assert is_plain(value), value
            assert redactor(value) is value, value
    assert yes > 500
