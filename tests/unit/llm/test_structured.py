"""Schemas for providers, and values out of answers."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

from dipeo_nb.errors import StructureError, ValidationError
from dipeo_nb.llm.structured import name_of, parsed, schema_of, strict_schema, validated


class Leaf(BaseModel):
    size: int


class Tree(BaseModel):
    leaf: Leaf = Field(description="the best leaf")
    children: list[Tree] = []
    other: Tree | None = Field(default=None, description="another")
    title: str = "Oak"


class Free(BaseModel):
    counts: dict[str, int]


class Cat(BaseModel):
    kind: str = "cat"


class Either(BaseModel):
    pet: Cat | Leaf


def test_a_class_becomes_strict():
    """Every object is closed and complete; references stand alone; a property may be called `title`."""
    schema = strict_schema(Tree)
    assert schema is not None
    tree = schema["$defs"]["Tree"]
    assert tree["required"] == ["leaf", "children", "other", "title"]
    assert tree["properties"]["title"] == {"type": "string"}
    leaf = tree["properties"]["leaf"]
    assert leaf["description"] == "the best leaf"
    assert leaf["additionalProperties"] is False
    assert "$ref" not in leaf
    assert tree["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


@pytest.mark.parametrize(
    "shape",
    [
        Free,
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"a": {"not": {"type": "string"}}}, "required": ["a"]},
    ],
    ids=["dictionary", "free", "optional", "keyword"],
)
def test_what_strict_mode_would_change_is_not_strict(shape: Any):
    """Free-form dictionaries, optional properties of a given schema and unknown keywords are left as they are."""
    assert strict_schema(shape) is None


def test_unions_stay():
    """A union of classes is `anyOf`, each side closed."""
    schema = strict_schema(Either)
    assert schema is not None
    assert len(schema["properties"]["pet"]["anyOf"]) == 2


def test_names_are_what_providers_take():
    """A class's name or a schema's title, in letters they allow."""
    assert name_of(Tree) == "Tree"
    assert name_of({"title": "My answer!"}) == "My_answer_"
    assert name_of({}) == "answer"


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    day: datetime.date
    size: Annotated[tuple[int, int], Field(strict=True)]
    id: uuid.UUID


@dataclasses.dataclass
class Place:
    name: str
    size: int


class Pair(TypedDict):
    left: int
    right: str


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("shape", "text", "expected"),
    [
        (
            Strict,
            '{"day": "2026-11-28", "size": [1, 2], "id": "00000000-0000-0000-0000-000000000001"}',
            Strict(day=datetime.date(2026, 11, 28), size=(1, 2), id=uuid.UUID(int=1)),
        ),
        (list[Place], '[{"name": "Oslo", "size": 3}]', [Place("Oslo", 3)]),
        (Place, 'It is {"name": "Oslo", "size": 3}.', Place("Oslo", 3)),
        (Pair, '{"left": 1, "right": "x"}', {"left": 1, "right": "x"}),
        (Place | Pair, '{"left": 1, "right": "x"}', {"left": 1, "right": "x"}),
        (Colour, '"red"', Colour.RED),
        (Literal["yes", "no"], '"no"', "no"),
        (int, "7", 7),
        (dict[str, int], '{"a": 1}', {"a": 1}),
    ],
)
def test_all_types_that_pydantic_knows(shape: Any, text: str, expected: Any):
    """Strict ones too: an answer is JSON, where a date is a text and a tuple a list."""
    value = parsed(text, shape, provider="p", model="m")
    assert value == expected
    assert type(value) is type(expected)
    assert schema_of(shape)
    assert validated(expected, shape)[1] == expected


@pytest.mark.parametrize(
    ("shape", "text", "problem"),
    [
        (Place, '{"name": "Oslo", "size": ["a", "b"]}', "size: Input should be a valid integer"),
        ({"type": "array"}, '{"error": "no data", "years": [2019, 2020]}', "is not of type 'array'"),
        ({"type": "object", "properties": {"age": {"type": "integer"}}}, '{"age": "forty", "tags": ["a"]}', "age: 'forty'"),
    ],
)
def test_the_problem_is_that_of_the_whole(shape: Any, text: str, problem: str):
    """A part of an answer that is JSON is not the answer."""
    with pytest.raises(StructureError) as caught:
        parsed(text, shape, provider="p", model="m")
    assert problem in caught.value.problem


@pytest.mark.parametrize("shape", ["text", 3, object(), [1]])
def test_other_formats_are_refused(shape: Any):
    """A response format that is neither type nor schema is the caller's mistake."""
    with pytest.raises(ValidationError, match="a type or a JSON schema"):
        schema_of(shape)


@pytest.mark.parametrize(
    "text",
    [
        '{"size": 3}',
        '  {"size": 3}\n',
        'Sure!\n```json\n{"size": 3}\n```\nHope it helps.',
        'The answer is {"size": 3}.',
    ],
)
def test_json_is_found(text: str):
    """Plain, fenced, or between words."""
    assert parsed(text, Leaf, provider="p", model="m") == Leaf(size=3)
    assert parsed(text, Leaf.model_json_schema(), provider="p", model="m") == {"size": 3}


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "no JSON"), ("none", "no JSON"), ('{"size": "big"}', "size"), ("{}", "size"), ("[" * 100_000, "nested too deep")],
    ids=["empty", "words", "wrong", "missing", "deep"],
)
def test_what_does_not_fit_says_where(text: str, problem: str):
    """The error names the place, may be repaired, and keeps the answer; a cut answer may not."""
    for shape in (Leaf, Leaf.model_json_schema()):
        with pytest.raises(StructureError, match=problem) as caught:
            parsed(text, shape, provider="p", model="m")
        assert caught.value.repairable
        assert caught.value.text == text
    with pytest.raises(StructureError, match="cut off") as caught:
        parsed(text, Leaf, provider="p", model="m", cut=True)
    assert not caught.value.repairable


@pytest.mark.parametrize(
    "text",
    [
        'First:\n```json\n{"answer": 1}\n```\nBut finally:\n```json\n{"answer": 2}\n```',
        '<think>{"answer": 1}</think>\n{"answer": 2}',
        '<think>```{"answer": 1}```</think> So: {"answer": 2}.',
        '```\n{"answer": 2}\n```',
        '```json {"answer": 2}```',
    ],
)
def test_the_final_value_counts(text: str):
    """Of several fenced values the last one is the answer; a model's thoughts are none."""
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    assert parsed(text, schema, provider="x", model="m") == {"answer": 2}


YEAR = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
LIST = {"type": "array"}


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ('{"year": 4,}', YEAR, {"year": 4}),
        ('So: {"year": 4, "more": ["x",],} Good?', YEAR, {"year": 4, "more": ["x"]}),
        ('{"year": 4, "more": "a\nb,]"}', YEAR, {"year": 4, "more": "a\nb,]"}),
        ('{"year": 4, "more": ",}"}', YEAR, {"year": 4, "more": ",}"}),
        ("[1, 2,\n]", LIST, [1, 2]),
        ('See [1] and {x}: {"year": 4}', YEAR, {"year": 4}),
        ('First {"wrong": [1]}, then {"year": 7}', YEAR, {"year": 7}),
        ('{"year": 4}\n{"year": 4}', YEAR, {"year": 4}),
        ('```json\n{"year": 3}\n``` and not {"year": 9}', YEAR, {"year": 3}),
        ('<thinking>{"year": 1}</thinking> {"year": 5}', YEAR, {"year": 5}),
        ('\ufeff{"year": 4}', YEAR, {"year": 4}),
        ('{"year": 4, "more": "}"} }', YEAR, {"year": 4, "more": "}"}),
    ],
)  # fmt: skip
def test_slips_of_models_are_forgiven(text: str, schema: Any, value: Any):
    """Commas at the end, line breaks in texts, words and other brackets around."""
    assert parsed(text, schema, provider="p", model="m") == value


@pytest.mark.parametrize(
    ("text", "schema", "problem"),
    [
        ('{"year": "old", "tags": ["a", "b"]}', YEAR, "year: 'old' is not of type 'integer'"),
        ('Well: {"year": "old", "tags": ["a", "b"]}', YEAR, "year: 'old' is not of type 'integer'"),
        ('{"error": "no data", "years": [2019, 2020]}', LIST, "is not of type 'array'"),
        ('Sorry: {"error": "no data", "years": [2019, 2020]}', LIST, "is not of type 'array'"),
        ('{"items": [1, 2], "x": oops}', LIST, "not JSON"),
        ('[{"year": 1}, {"year": 2', YEAR, "not JSON"),
        ('{"year": 4}\n{"year": 5}', YEAR, "2 different answers"),
        ("The lists are [1, 2] and [3].", LIST, "2 different answers"),
        ('<think>perhaps {"year": 1}', YEAR, "only thoughts"),
        ("{'year': 4}", YEAR, "not JSON"),
        ("none", YEAR, "no JSON"),
        ('{"a": ' * 100_000, YEAR, "nested too deep"),
    ],
)
def test_the_problem_that_is_named_is_the_right_one(text: str, schema: Any, problem: str):
    """That of the whole answer: never of a part of it, and a part is not the answer."""
    with pytest.raises(StructureError) as caught:
        parsed(text, schema, provider="p", model="m")
    assert problem in caught.value.problem
