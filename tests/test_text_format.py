"""Shapes of structured answers."""

import json
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from dipeo_nb.diagram.text_format import response_model
from dipeo_nb.errors import ValidationError

SOURCE = '''
"""Shapes of a review."""
from __future__ import annotations
from enum import Enum, auto
from typing import Annotated, Dict, List, Literal, Optional, Union
from pydantic import BaseModel, ConfigDict, Field
import datetime

Level = Literal["low", "high", 3]

class Mood(str, Enum):
    """How one feels."""
    HAPPY = "happy"
    SAD = "sad"

class Node(BaseModel):
    name: str
    children: list["Node"] = Field(default_factory=list)

class Base(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: int = 3

class ReviewResponse(Base):
    """A review."""
    score: float = Field(..., ge=0, le=10, description="how good")
    mood: Mood = Mood.HAPPY
    tags: List[str] = []
    level: Optional[Level] = None
    tree: Node | None = None
    later: "Later"
    pair: tuple[int, str] = (1, "x")
    many: tuple[int, ...] = ()
    table: Dict[str, list[int]] = {}
    either: Union[int, str, None] = -1
    code: Annotated[str, Field(pattern="^[a-z]+$", max_length=5), "a code"] = "abc"
    day: datetime.date | None = None
    model_name: str = "m"
    copy: bool = False

class Later(BaseModel):
    x: int | None = None
'''


def model(source: str) -> type[BaseModel]:
    made = response_model(source)
    assert not isinstance(made, Mapping)
    return made


def test_pydantic_source() -> None:
    """Models, enumerations, references, limits, defaults and docstrings come out as pydantic makes them."""
    review = model(SOURCE)
    assert review.__name__ == "ReviewResponse"
    made = review.model_validate(
        {
            "score": 3,
            "later": {"x": 1},
            "mood": "sad",
            "level": 3,
            "tree": {"name": "a", "children": [{"name": "b"}]},
            "day": "2025-01-02",
        }
    )
    dumped = made.model_dump(mode="json")
    assert dumped["id"] == 3
    assert dumped["mood"] == "sad"
    assert dumped["tree"]["children"][0]["name"] == "b"
    assert dumped["either"] == -1
    assert dumped["day"] == "2025-01-02"
    schema = review.model_json_schema()
    assert schema["description"] == "A review."
    assert schema["properties"]["score"] == {
        "description": "how good",
        "maximum": 10,
        "minimum": 0,
        "title": "Score",
        "type": "number",
    }
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["score", "later"]
    for bad in (
        {"score": 11, "later": {}},
        {"score": 1, "later": {}, "code": "ABC"},
        {"score": 1, "later": {}, "other": 1},
    ):
        with pytest.raises(PydanticError):
            review.model_validate(bad)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["Response", "Later"], "Response"),
        (["AResponse", "BResponse", "Later"], "BResponse"),
        (["First", "Last"], "Last"),
    ],
)
def test_choice_of_the_model(names: list[str], chosen: str) -> None:
    """`Response` wins, then the last name that ends so, then the last class."""
    source = "\n".join(f"class {name}(BaseModel):\n    x: int" for name in names)
    assert model(source).__name__ == chosen


def test_defaults_are_not_shared() -> None:
    """Two answers do not share a default list."""
    made = model("class A(BaseModel):\n    xs: list[int] = []")
    first, second = made(), made()
    first.xs.append(1)  # type: ignore[attr-defined]
    assert second.xs == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "source",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        '{"type": "object", "properties": {"a": {"type": "string"}}}',
        "type: object\nproperties:\n  a: {type: string}",
        {"name": "x", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
        {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
        },
    ],
)
def test_json_schemas(source: str | dict[str, object]) -> None:
    """A JSON schema comes back as a mapping of its own, from a mapping, JSON or YAML, wrapped or not."""
    made = response_model(source)
    assert made == {"type": "object", "properties": {"a": {"type": "string"}}}
    assert isinstance(made, dict)
    made.clear()
    assert response_model(source)


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("", "empty", None),
        ("hello world", "does not parse as Python", 1),
        ("{bad", "no JSON", 1),
        ('{"type": 3}', "not valid at type", None),
        ('{"a": 3}', "no JSON schema", None),
        ("[1]", r"`\[1\]`", 1),
        ("x = 3", "defines no pydantic class", None),
        ("import os\nclass A(BaseModel):\n    x: int", "import of 'os'", 1),
        ("from os import path", "import of 'os'", 1),
        ("class A(BaseModel):\n    def f(self): pass", "function 'f' in class A", 2),
        ("class A(BaseModel):\n    x: int = __import__('os')", r"`__import__\('os'\)`", 2),
        ("class A(BaseModel):\n    x: int = Field(default_factory=lambda: 1)", "default_factory", 2),
        ("class A(BaseModel):\n    x: int = [open('f')]", "open", 2),
        ("class A(BaseModel):\n    x: Literal[open('f')]", "open", 2),
        ("class A(BaseModel):\n    x: Annotated[int, print(1)]", "print", 2),
        ("class A(BaseModel):\n    x: __import__('os')", "__import__", 2),
        ("class A(BaseModel):\n    x: \"__import__('os')\"", "__import__", 2),
        ("print(1)", r"`print\(1\)`", 1),
        ("if True:\n    pass", "if cannot", 1),
        ("@d\nclass A(BaseModel):\n    x: int", "decorator", 1),
        ("class A:\n    x: int", "derives from nothing", 1),
        ("class A(Foo):\n    x: int", "base 'Foo'", 1),
        ("class A(BaseModel, metaclass=M):\n    x: int", "class arguments", 1),
        ("class A(A):\n    x: int", "derives from itself", 1),
        ("class A(BaseModel):\n    x: strr", "Did you mean 'str'", 2),
        ("class A(BaseModel):\n    x = 3", "without a type", 2),
        ("class A(BaseModel):\n    _x: int", "underscore", 2),
        ("class A(BaseModel):\n    x: int = Field(gee=3)", "Did you mean 'ge'", 2),
        ("class A(BaseModel):\n    x: str = Field(pattern='(?=a)')", "look-around", 1),
        ("class A(BaseModel):\n    x: list[int, str]", "takes 1 type", 2),
        ("class E(Enum):\n    A = open('f')\nclass A(BaseModel):\n    x: E", "open", 2),
        ("class E(Enum):\n    A = 'a'\nclass A(BaseModel):\n    x: E = E.B", "Members: A", 4),
        ("class A(BaseModel):\n    model_config = {'arbitrary_types_allowed': True}\n    x: int", "arbitrary_types_allowed", 2),
        ("A = A\nclass B(BaseModel):\n    x: A", "deeply nested", 1),
        ("class A(BaseModel):\n    x: " + "list[" * 200 + "int" + "]" * 200, "nested|parentheses", 2),
        ("class A(BaseModel):\n    x: int\n    x.y = 3", "x.y|assignment", 3),
        ("class A(BaseModel):\n    x: int = 1; exec('1')", "exec", 2),
    ],
)  # fmt: skip
def test_anything_else_is_refused(source: str, message: str, line: int | None) -> None:
    """What is no shape is refused with its line and construct, and nothing of it runs."""
    with pytest.raises(ValidationError, match=message) as caught:
        response_model(source)
    assert caught.value.facts["line"] == line
    assert caught.value.hint


def test_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Code in any place of the source has no effect."""
    for place in (
        "{}",
        "class A(BaseModel):\n    x: int = {}",
        "class A(BaseModel):\n    x: {}",
        "class A({}):\n    x: int",
    ):
        with pytest.raises(ValidationError):
            response_model(place.format("print('ran') or int"))
    assert capsys.readouterr().out == ""


def test_billion_laughs() -> None:
    """A YAML bomb is refused at once."""
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)), "type: object"]
    with pytest.raises(ValidationError):
        response_model("\n".join(lines))


@given(st.text(max_size=100))
def test_any_text(text: str) -> None:
    """Any text is a shape or a ValidationError."""
    try:
        made = response_model(text)
    except ValidationError:
        return
    assert json.dumps(made if isinstance(made, dict) else made.model_json_schema())


def test_modules_stay_unloaded() -> None:
    """No class of a source is left behind in a module."""
    model("class Ghost(BaseModel):\n    x: int")
    assert not hasattr(sys.modules["dipeo_nb.diagram.text_format"], "Ghost")
