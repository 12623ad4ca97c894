"""Answers of each kind: what they mean, and why others are none."""

from __future__ import annotations

import pytest

from dipeo_nb.domain.answer_forms import AnswerForm, Approval

CHOICES = AnswerForm("choice", ("Red", "Green", "3"))
CALL = AnswerForm("approval", arguments={"to": "ann"}, tool="mail.send")


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        ("Red", "Red"),
        (" green ", "Green"),
        ("2", "Green"),
        ("3", "3"),
        ("4", None),
        ("0", None),
        ("", None),
        ("²", None),
        ("9" * 5000, None),
    ],
)
def test_a_choice_is_named_by_its_text_or_its_number(answer: str, meant: str | None) -> None:
    assert CHOICES.choice(answer) == meant
    assert (CHOICES.problem(answer) is None) is (meant is not None)


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        ("approve", Approval(True)),
        ("YES", Approval(True)),
        ("reject", Approval(False)),
        ("no: too early", Approval(False, "too early")),
        ('{"to": "bob"}', Approval(True, arguments={"to": "bob"})),
        ('{"to": ', None),
        ("[" * 10_000, None),
        ("maybe", None),
        ("yes, but", None),
    ],
)
def test_an_approval_is_a_yes_a_no_or_other_arguments(answer: str, decision: Approval | None) -> None:
    assert CALL.approval(answer) == decision
    assert (CALL.problem(answer) is None) is (decision is not None)


def test_arguments_can_be_changed_only_where_there_are_some() -> None:
    assert AnswerForm("approval").approval('{"to": "bob"}') is None


def test_text_is_always_an_answer() -> None:
    assert AnswerForm().problem("") is None
    assert AnswerForm("multiline").problem("a\nb") is None


def test_who_types_is_told_how() -> None:
    assert CHOICES.hint == "\n  1. Red\n  2. Green\n  3. 3"
    assert "JSON" in CALL.hint
    assert AnswerForm().hint == ""
