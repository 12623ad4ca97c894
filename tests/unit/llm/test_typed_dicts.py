"""`typing.TypedDict` as a structure of answers and as a parameter of tools, on every Python: pydantic takes only that of
`typing_extensions` before 3.12."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, NotRequired, Optional, Required, TypedDict, TypeVar, Union

import pytest
import typing_extensions
from pydantic import Field, TypeAdapter

import dipeo_nb as dp
from dipeo_nb.common.typed_dicts import readable
from dipeo_nb.errors import StructureError, ValidationError
from dipeo_nb.llm.structured import parsed, schema_of
from dipeo_nb.llm.tools import tool_of


class Place(TypedDict):
    """A place on a map."""

    name: str
    tags: NotRequired[list[str]]


class Station(Place, total=False):
    height: Annotated[float, Field(ge=0)]
    code: Required[str]
    near: list[Station]
    within: Optional[Place]  # noqa: UP045 - as users of old versions write it


class OtherPlace(typing_extensions.TypedDict):
    """A place on a map."""

    name: str
    tags: typing_extensions.NotRequired[list[str]]


class OtherStation(OtherPlace, total=False):
    height: Annotated[float, Field(ge=0)]
    code: typing_extensions.Required[str]
    near: list[OtherStation]
    within: Optional[OtherPlace]  # noqa: UP045


Item = TypeVar("Item")


class Box(TypedDict, Generic[Item]):
    held: Item


class Lost(TypedDict):
    place: Nowhere  # pyright: ignore[reportUndefinedVariable]  # noqa: F821


KINDS: dict[str, tuple[Any, Any]] = {
    "plain": (Place, OtherPlace),
    "inherited, recursive, nested": (Station, OtherStation),
    "a list": (list[Station], list[OtherStation]),
    "an old list": (typing.List[Place], typing.List[OtherPlace]),  # noqa: UP006
    "a dict of lists": (dict[str, list[Place]], dict[str, list[OtherPlace]]),
    "an old dict": (typing.Dict[str, Station], typing.Dict[str, OtherStation]),  # noqa: UP006
    "an abstract one": (Mapping[str, Sequence[Place]], Mapping[str, Sequence[OtherPlace]]),
    "a tuple": (tuple[Place, Station], tuple[OtherPlace, OtherStation]),
    "a tuple of any length": (tuple[Place, ...], tuple[OtherPlace, ...]),
    "or none": (Place | None, OtherPlace | None),
    "an old union": (Union[Station, int], Union[OtherStation, int]),  # noqa: UP007
    "annotated": (Annotated[Place, Field(description="where")], Annotated[OtherPlace, Field(description="where")]),
}
assert len(KINDS) == 12


@pytest.mark.parametrize("name", KINDS)
def test_the_schema_is_that_of_the_other_class(name: str):
    kind, other = KINDS[name]
    assert str(schema_of(kind)).replace("Other", "") == str(schema_of(other)).replace("Other", "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"name": "Bern", "code": "BN", "near": [{"name": "Thun", "code": "TH"}]}', None),
        ('{"name": "Bern", "code": "BN", "within": {"name": "Europe"}, "height": 540.5, "tags": ["old"]}', None),
        ('{"name": "Bern"}', "code"),
        ('{"code": "BN"}', "name"),
        ('{"name": "Bern", "code": "BN", "height": -1}', "height"),
        ('{"name": "Bern", "code": "BN", "near": [{"name": "Thun"}]}', "near.0.code"),
        ('{"name": "Bern", "code": "BN", "within": {}}', "within.name"),
    ],
)
def test_answers_are_checked(text: str, problem: str | None):
    if problem is None:
        assert parsed(text, Station, provider="p", model="m")["name"] == "Bern"
        return
    with pytest.raises(StructureError) as caught:
        parsed(text, Station, provider="p", model="m")
    assert str(caught.value.problem).startswith(f"{problem}:")


def test_an_answer_has_it():
    """On the path of a user; the embedded echo makes up a value that fits."""
    answer = dp.llm("echo").chat("Where?", response_format=list[Place])
    value = answer.structured
    assert isinstance(value, list)
    TypeAdapter(list[OtherPlace]).validate_python(value)


def test_tools_take_it():
    def travel(to: Station, via: list[Place] | None = None) -> str:
        """Go there."""
        return to["code"]

    parameters = tool_of(travel).parameters or {}
    assert parameters["$defs"]["Station"]["required"] == ["name", "code"]
    assert parameters["required"] == ["to"]


def test_what_needs_nothing_stays():
    class Own(typing_extensions.TypedDict):
        x: int

    for kind in (
        int,
        list[int],
        typing.Literal["a"],
        dict[str, Any],
        typing.Callable[[int], str],
        int | None,
        Annotated[int, "x"],
    ):
        assert readable(kind) is kind or readable(kind) == kind
    assert TypeAdapter(readable(Own)).json_schema()["required"] == ["x"]


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValidationError, match="Nowhere"):
        schema_of(Lost)


def test_one_with_types_that_are_given_later():
    """Generic ones get their types from what is between the brackets."""
    schema = schema_of(Box[Place])
    assert schema["$defs"]["Place"]["required"] == ["name"]
