"""How outputs become named inputs."""

from __future__ import annotations

from typing import Any

import pytest

from dipeo_nb.domain.plan import PlanEdge
from dipeo_nb.execution.inputs import Arrived, ConversationView, Inputs, Output, TextView, as_text, plain, resolve, view


def arrived(
    body: Any, label: str | None = None, *, source: str = "A", fresh: bool = True, handle: str = "default",
    content_type: str | None = None, text: str | None = None,
) -> Arrived:  # fmt: skip
    edge = PlanEdge(0, "arrow_0", 0, 1, "default", handle, label, content_type)
    return Arrived(edge, source, source, 1, fresh, Output(body, text))


def test_label_names_the_input():
    """A label is the variable's name; without one it is `default`."""
    assert resolve([arrived(1, "x"), arrived(2)]).values == {"x": 1, "default": 2}


def test_freshest_unlabelled_input_is_default():
    """Of several unlabelled inputs the last fresh one is `default`; each is also named by its source."""
    inputs = resolve([arrived("old", source="A", fresh=False), arrived("new", source="B")])
    assert inputs.values["default"] == "new"
    assert inputs.names({})["A"] == "old"
    assert inputs.names({})["B"] == "new"


def test_default_mapping_is_spread_under_labels_and_over_variables():
    """label > spread > variables."""
    inputs = resolve([arrived({"x": 1, "y": 2, "z": 3}), arrived(9, "x")])
    names = inputs.names({"y": 0, "w": 0})
    assert (names["x"], names["y"], names["z"], names["w"]) == (9, 2, 3, 0)


def test_nested_single_default_is_unwrapped():
    """Mappings that hold only `default` are looked through."""
    assert resolve([arrived({"default": {"default": {"a": 1}}})]).names({})["a"] == 1


def test_labelled_mappings_are_spread_where_unambiguous():
    """Keys of labelled mappings are names, unless two of them have the same key."""
    names = resolve([arrived({"a": 1, "b": 2}, "p"), arrived({"b": 3, "c": 4}, "q")]).names({})
    assert (names["a"], names["c"]) == (1, 4)
    assert "b" not in names


def test_first_handle_is_named_first():
    """An unlabelled input of the first handle is both `first` and `default`."""
    assert resolve([arrived("t", handle="first")]).values == {"first": "t", "default": "t"}


def test_stale_names_are_known():
    """Names that only stale tokens provide are marked."""
    assert resolve([arrived(1, "x", fresh=False), arrived(2, "y")]).stale == {"x"}
    assert resolve([arrived(1, fresh=False)]).stale == {"default"}


def test_raw_text_keeps_the_object_behind_it():
    """A raw_text view is text and remembers its value."""
    seen = view(Output({"a": 1}), "raw_text")
    assert isinstance(seen, TextView)
    assert seen == '{\n  "a": 1\n}'
    assert seen.__dipeo_value__ == {"a": 1}
    assert type(view(Output("t"), "raw_text")) is str
    assert view(Output([{"a": "1"}], "a\n1\n"), "raw_text") == "a\n1\n", "the file's own text, not JSON of its rows"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"a": 1}, {"a": 1}), ('{"a": 1}', {"a": 1}), ("hello", "hello"), ([1], [1]), (None, None), (3, 3), ("7", 7),
        ("NaN", "NaN"), ('{"a": "\\ud83d"}', {"a": "\\ud83d"}),
    ],
)  # fmt: skip
def test_object_view(body: Any, expected: Any):
    """JSON text through an object edge is parsed; other text stays text."""
    assert view(Output(body), "object") == expected


def test_conversation_view_reads_as_its_last_message():
    """A conversation is a mapping for programs and its last message for templates."""
    output = Output("hi", conversation={"messages": [1], "last_message": {"content": "hi"}, "person_id": "p"})
    seen = view(output, "conversation_state")
    assert isinstance(seen, ConversationView)
    assert (str(seen), as_text(seen), seen["person_id"]) == ("hi", "hi", "p")
    assert str(view(Output("plain text"), "conversation_state")) == "plain text"


def test_body_is_the_only_unlabelled_input_or_the_mapping():
    """One unlabelled input is the body itself."""
    assert resolve([arrived([1, 2])]).body == [1, 2]
    assert resolve([arrived(1, "x"), arrived(2, "y")]).body == {"x": 1, "y": 2}
    assert Inputs().body == {}


def test_code_gets_the_value_behind_a_view():
    """Numbers, booleans, None, lists and mappings stay themselves on every arrow; only a text of its own is text."""
    for body in (30, 1.5, False, None, [1], {"a": 1}):
        seen = plain(view(Output(body), "raw_text"))
        assert (seen, type(seen)) == (body, type(body))
    assert plain(view(Output(False, "no"), "raw_text")) is False, "what a user typed for it is for templates"
    assert plain(view(Output([{"a": "1"}], "a\n1\n"), "raw_text")) == "a\n1\n", "a file's text, as csv.DictReader wants it"
    value = plain({"t": TextView("x", {"a": 1}), "c": [ConversationView(a=1)]})
    assert value == {"t": {"a": 1}, "c": [{"a": 1}]}
    assert type(value["c"][0]) is dict
