"""Shapes of structured answers."""

import json
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from dipeo_nb.diagram.text_format import answer_shape, response_model
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
        ("{bad", "not JSON", 1),
        ('{"type": 3}', "not valid at type", None),
        ('{"a": 3}', "not a JSON schema", None),
        ("x = 3", "defines no pydantic class", None),
        ("[1]", "defines no pydantic class", None),
        ("print(1)", "defines no pydantic class", None),
        ("if True:\n    class A(BaseModel):\n        x: int", "defines no pydantic class", None),
        ("from enum import Enum\nclass E(Enum):\n    A = 1", "defines no pydantic class", None),
        ("import os\nclass A(BaseModel):\n    x: os.PathLike", "'os', imported from 'os', which is not read", 3),
        ("from shapes import Item\nclass A(BaseModel):\n    x: list[Item]", "'Item', imported from 'shapes'", 3),
        ("from .shapes import Item as I\nclass A(BaseModel):\n    x: 'I | None'", "'I', imported from '.shapes'", 3),
        ("from dipeo.models import N\nclass A(BaseModel):\n    x: N", "DiPeO's own classes", 3),
        ("from dipeo.models import N\nclass A(N):\n    x: int", "base of class 'A' 'N', imported from 'dipeo.models'", 2),
        ("class A(BaseModel):\n    x: int = Field(default_factory=lambda: open('f'))", "open", 2),
        ("class A(BaseModel):\n    x: int = Field(default_factory=make)", "default_factory", 2),
        ("class A(BaseModel, extra=open('f')):\n    x: int", "open", 1),
        ("class A(BaseModel):\n    x: int = 10 ** 10 ** 10", "10", 2),
        ("class A(BaseModel):\n    x: str = 'a' * 10", "'a'", 2),
        ("class P(BaseModel, Generic[T]):\n    x: T\nclass A(BaseModel):\n    x: P[int, str]", "P takes 1 type", 4),
        ("class P(BaseModel):\n    x: int\nclass A(BaseModel):\n    x: P[int]", "takes no types", 4),
        ("class A(BaseModel):\n    x: int = __import__('os')", r"`__import__\('os'\)`", 2),
        ("class A(BaseModel):\n    x: int = [open('f')]", "open", 2),
        ("class A(BaseModel):\n    x: Literal[open('f')]", "open", 2),
        ("class A(BaseModel):\n    x: Annotated[int, print(1)]", "print", 2),
        ("class A(BaseModel):\n    x: __import__('os')", "__import__", 2),
        ("class A(BaseModel):\n    x: \"__import__('os')\"", "__import__", 2),
        ("class A:\n    x: int", "derives from nothing", 1),
        ("class A(Foo):\n    x: int", "base 'Foo'", 1),
        ("class A(BaseModel, metaclass=M):\n    x: int", "class arguments", 1),
        ("class A(A):\n    x: int", "derives from itself", 1),
        ("class A(BaseModel):\n    x: strr", "Did you mean 'str'", 2),
        ("class A(BaseModel):\n    x = 3", "without a type", 2),
        ("class A(BaseModel):\n    x: int = Field(gee=3)", "Did you mean 'ge'", 2),
        ("class A(BaseModel):\n    x: str = Field(pattern='(?=a)')", "look-around", 1),
        ("class A(BaseModel):\n    x: list[int, str]", "takes 1 type", 2),
        ("class E(Enum):\n    A = open('f')\nclass A(BaseModel):\n    x: E", "open", 2),
        ("class E(Enum):\n    A = 'a'\nclass A(BaseModel):\n    x: E = E.B", "Members: A", 4),
        ("A = A\nclass B(BaseModel):\n    x: A", "deeply nested", 1),
        ("class A(BaseModel):\n    x: " + "list[" * 200 + "int" + "]" * 200, "nested|parentheses", 2),
    ],
)  # fmt: skip
def test_anything_else_is_refused(source: str, message: str, line: int | None) -> None:
    """What is no shape is refused with its line and construct, and nothing of it runs."""
    with pytest.raises(ValidationError, match=message) as caught:
        response_model(source)
    assert caught.value.facts["line"] == line
    assert caught.value.hint


REAL = """
from __future__ import annotations
import json, os
import datetime as dt
import pydantic as pd
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Generic, Literal, NewType, Optional, TypeVar
from pydantic import AfterValidator, BaseModel as Model, ConfigDict, EmailStr, Field, PositiveInt, RootModel, StringConstraints
from pydantic import conint, constr, field_validator, model_validator
from dipeo.diagram_generated import DomainNode

try:
    from enum import StrEnum
except ImportError:
    StrEnum = None

T = TypeVar("T")
UserId = NewType("UserId", int)
LIMIT = 60 * 60
NOTE = "at " + "most"
Short = Annotated[str, StringConstraints(max_length=5)]

def helper(x):
    return json.dumps(x)

class Mood(StrEnum):
    HAPPY = "happy"
    SAD = "sad"

    @property
    def shout(self):
        return self.upper()

class Unneeded(DomainNode):
    x: Undefined

class Cat(Model):
    kind: Literal["cat"]
    lives: conint(ge=1, le=9) = 9

class Dog(Model):
    kind: Literal["dog"]

@dataclass(frozen=True)
class Point:
    x: float = 0.0
    tags: list[str] = field(default_factory=list)

class Page(Model, Generic[T]):
    items: list[T]
    after: Optional[Page[T]] = None

class Names(RootModel[list[str]]):
    pass

class Settings(Model):
    depth: int = 2

class Base(Model, extra="forbid", arbitrary_types_allowed=True):
    model_config: ClassVar = {}
    registry: ClassVar[dict] = {}
    _cache: dict = {}
    id: UserId
    created: dt.date | None = None

    class Config:
        orm_mode = True

class ReviewResponse(Base):
    class Inner(Model):
        y: int

    mood: Mood = Mood.HAPPY
    word: str = Field(default=Mood.SAD.value, description=f"{NOTE}")
    seconds: int = Field(LIMIT, le=LIMIT, description=NOTE, repr=False)
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    mail: EmailStr = "a@b.c"
    count: PositiveInt = 1
    short: Short = "abc"
    code: constr(pattern="^[a-z]+$") = "x"
    checked: Annotated[int, AfterValidator(lambda v: v + open("/tmp/x"))] = 0
    page: Page[Inner]
    pages: dict[str, Page[str]] = Field(default_factory=dict)
    names: Names = Names(root=["a"])
    where: Point = Field(default_factory=Point)
    settings: Settings = Settings(depth=3)
    inner: ReviewResponse.Inner | None = None
    more: pd.JsonValue | None = None if False else None
    made: list[int] = Field(default_factory=lambda: [1, 2])
    me: "ReviewResponse | None" = None

    @field_validator("count")
    @classmethod
    def small(cls, v):
        raise SystemExit

    @model_validator(mode="after")
    def whole(self):
        return self

ReviewResponse.model_rebuild()
EXAMPLE = ReviewResponse(id=1, pet={"kind": "cat"})
assert os.environ

if __name__ == "__main__":
    print(ReviewResponse.model_json_schema())
"""


def test_real_sources() -> None:
    """What people write in modules of models is read; what the chosen class does not need is skipped and said."""
    shape = answer_shape(REAL.replace("    more: pd.JsonValue | None = None if False else None\n", ""))
    assert not isinstance(shape.model, dict)
    made = shape.model.model_validate({"id": 1, "pet": {"kind": "cat"}, "page": {"items": [{"y": 1}]}})
    assert made.model_dump(mode="json") == {
        "id": 1, "created": None, "mood": "happy", "word": "sad", "seconds": 3600, "pet": {"kind": "cat", "lives": 9},
        "mail": "a@b.c", "count": 1, "short": "abc", "code": "x", "checked": 0, "page": {"items": [{"y": 1}], "after": None},
        "pages": {}, "names": ["a"], "where": {"x": 0.0, "tags": []}, "settings": {"depth": 3}, "inner": None, "made": [1, 2],
        "me": None,
    }  # fmt: skip
    wrong = [
        {"pet": {"kind": "cow"}}, {"pet": {"kind": "cat", "lives": 10}}, {"seconds": 3601}, {"short": "abcdef"}, {"count": 0},
        {"code": "A"}, {"page": {"items": ["text"]}}, {"pages": {"a": {"items": [{"y": 1}]}}}, {"other": 1}, {"mood": "angry"},
    ]  # fmt: skip
    for values in wrong:
        with pytest.raises(PydanticError):
            shape.model.model_validate({"id": 1, "pet": {"kind": "cat"}, "page": {"items": []}, **values})
    said = " ".join(shape.skipped)
    for part in ("'helper'", "'shout'", "_cache", "Config of Base", "arbitrary_types_allowed", "AfterValidator", "validator 'small'",
                 "validator 'whole'", "ReviewResponse.model_rebuild()", "`if __name__ == '__main__':`", "the description"):  # fmt: skip
        assert part in said
    assert "Unneeded" not in said


def test_what_the_class_needs_decides() -> None:
    """The same text is read or refused by which class is chosen."""
    text = "from shapes import Item\nclass {}(BaseModel):\n    x: Item\nclass Other(BaseModel):\n    y: int"
    assert model(text.format("A")).__name__ == "Other"
    with pytest.raises(ValidationError, match="imported from 'shapes'"):
        response_model(text.format("Response"))


def test_types_that_double() -> None:
    """Names that stand for pairs of names are refused, not unfolded for ever."""
    lines = ["A0 = int", *(f"A{i} = tuple[A{i - 1}, A{i - 1}]" for i in range(1, 20)), "class B(BaseModel):\n    x: A19"]
    with pytest.raises(ValidationError, match="so large"):
        response_model("\n".join(lines))


@pytest.mark.parametrize("text", ["type Name = str", "class Page[T](BaseModel):\n    x: T"])
def test_newer_syntax(text: str) -> None:
    """What Python 3.12 brought is read there; older versions say what they lack."""
    source = f"{text}\nclass A(BaseModel):\n    a: {'Name' if 'Name' in text else 'Page[int]'}"
    if sys.version_info >= (3, 12):
        assert list(model(source).model_fields) == ["a"]
    else:
        with pytest.raises(ValidationError, match=r"Python 3\.12, and this is Python 3\.11") as caught:
            response_model(source)
        assert caught.value.facts["line"] == 1


def test_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Code in any place of the source has no effect."""
    for place in (
        "class A(BaseModel):\n    x: int = {}",
        "class A(BaseModel):\n    x: {}",
        "class A({}):\n    x: int",
    ):
        with pytest.raises(ValidationError):
            response_model(place.format("print('ran') or int"))
    response_model("{0}\nclass A(BaseModel):\n    x: int\n    {0}\n    def f(self, a={0}): {0}".format("print('ran')"))
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
    assert not hasattr(sys.modules["dipeo_nb.diagram.pydantic_source"], "Ghost")
