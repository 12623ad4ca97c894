"""Node types of one's own: `@dp.node` (execution/function_nodes.py)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from pydantic import BaseModel

import dipeo_nb as dp
from dipeo_nb.errors import InvalidDiagramError, NodeExecutionError, NodeTimeoutError, ValidationError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted


class Point(BaseModel):
    x: int


@dataclass
class Pair:
    left: int
    right: tuple[int, ...]


def run(base: Path, kind: str, props: dict[str, Any] | None = None, label: str | None = None, **variables: Any) -> Any:
    """Start → a node of that type → End."""
    into = {"from": "Start", "to": "Mine", "content_type": "generic"}
    diagram = {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "Mine", "type": kind, "props": props or {}},
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [
            {**into, "label": label} if label else into,
            {"from": "Mine", "to": "End", "content_type": "generic"},
        ],
    }
    with Session(base, llm=scripted()) as session:
        return session.run(diagram, view=False, inputs=variables).output


def test_values_come_from_properties_inputs_and_defaults(tmp_path: Path):
    """In this order; texts of properties are templates."""

    @dp.node
    def shout(text: str, times: int = 2, end: str = "!") -> str:
        """Says it louder."""
        return " ".join([text.upper()] * times) + end

    assert shout("a") == "A A!"
    assert run(tmp_path, "shout", {"text": "hi {{name}}", "times": 3}, name="ada") == "HI ADA HI ADA HI ADA!"
    assert run(tmp_path, "shout", text="x", times=1) == "X!"
    assert run(tmp_path, "shout", {"times": "1"}, text="x", end="?") == "X?"


def test_the_only_input_is_the_first_parameter(tmp_path: Path):
    """No label is needed for a function of one thing."""

    @dp.node
    def size(data: dict[str, Any], unit: str = "keys") -> str:
        return f"{len(data)} {unit}"

    assert run(tmp_path, "size", a=1, b=2) == "2 keys"


def test_types_are_checked_before_and_during_the_run(tmp_path: Path):
    """A wrong property is a mistake of the diagram, with its place; a wrong input is a failure of the node."""

    @dp.node
    def move(point: Point, by: int = 1, way: Literal["up", "down"] = "up") -> Point:
        return Point(x=point.x + (by if way == "up" else -by))

    assert run(tmp_path, "move", {"point": {"x": "4"}, "way": "down"}) == {"x": 3}
    with pytest.raises(InvalidDiagramError, match="'by' is a whole number, not 'much'"):
        run(tmp_path, "move", {"point": {"x": 1}, "by": "much"})
    with pytest.raises(NodeExecutionError, match=r"'point\.x' of 'move' does not fit"):
        run(tmp_path, "move", point={"x": "one"})

    @dp.node
    def two(first: int, point: Point) -> int:
        return first

    with pytest.raises(NodeExecutionError, match="needs 'point', and nothing brings it"):
        run(tmp_path, "two", first=1)


def test_async_functions_and_context(tmp_path: Path):
    """Async ones run on a loop of their own; `context` gives the services and a key for doing things once."""
    seen: list[Any] = []

    @dp.node(name="my_async")
    async def anything(context: NodeContext) -> str:
        seen.append((threading.current_thread().name, context.idempotency_key))
        return context.node.label

    assert run(tmp_path, "my_async") == "Mine"
    assert seen[0][0] == "dipeo-functions"
    assert seen[0][1].endswith(":node_1:1")


def test_results_are_recorded_as_json(tmp_path: Path):
    """Dataclasses and models are turned into it; anything else is refused with what to do."""

    @dp.node
    def pair() -> Pair:
        return Pair(1, (2, 3))

    @dp.node
    def odd() -> Any:
        return object()

    assert run(tmp_path, "pair") == {"left": 1, "right": [2, 3]}
    with pytest.raises(NodeExecutionError, match="The result is of type object, which has no form"):
        run(tmp_path, "odd")


def test_errors_name_the_node(tmp_path: Path):
    """Whatever the function raises."""

    @dp.node
    def broken() -> None:
        raise KeyError("nothing")

    with pytest.raises(NodeExecutionError, match="KeyError: 'nothing'") as caught:
        run(tmp_path, "broken")
    assert caught.value.node == "Mine"


class Place(TypedDict):
    name: str
    height: NotRequired[float]


def test_parameters_that_are_typed_dicts(tmp_path: Path):
    """Those of `typing` and, before Python 3.12, those that pydantic would want; a key that is missing is an error with its name."""

    @dp.node
    def visit(place: Place, more: list[Place] | None = None) -> str:
        return f"{place['name']} {place.get('height')} {more}"

    assert run(tmp_path, "visit", place={"name": "Bern", "height": "540"}) == "Bern 540.0 None"
    with pytest.raises(NodeExecutionError, match=r"'place\.name' of 'visit' does not fit"):
        run(tmp_path, "visit", {"place": {"height": 1.5}})


def test_time_limits(tmp_path: Path):
    """`timeout=` of the decorator, or of the node."""

    @dp.node(timeout=0.05)
    def slow() -> None:
        threading.Event().wait(0.5)

    with pytest.raises(NodeTimeoutError):
        run(tmp_path, "slow")


def test_defining_it_again_replaces_it(tmp_path: Path):
    """As a notebook's cell that runs twice."""

    @dp.node
    def again() -> int:
        return 1

    assert run(tmp_path, "again") == 1

    @dp.node(name="again")
    def other() -> int:
        return 2

    assert run(tmp_path, "again") == 2


def test_it_is_drawn_and_in_the_schema():
    """The drawing has it by its label; editors know its properties."""

    @dp.node
    def special(amount: int = 3) -> int:
        """Does special things."""
        return amount

    from dipeo_nb.diagram.schema import light_schema

    d = dp.load("version: light\nnodes:\n- {label: Mine, type: special, amount: 4}\n")
    assert "Mine" in d.svg()
    assert d.diagnostics == ()
    assert "special" in str(light_schema())


def test_resumed_runs_do_not_call_it_again(tmp_path: Path):
    """Its result is in the log."""
    calls: list[str] = []

    @dp.node
    def first() -> str:
        calls.append("first")
        return "done"

    @dp.node
    def second(text: str) -> str:
        calls.append("second")
        if len(calls) < 3:
            raise ValueError("not yet")
        return text

    diagram = (
        "version: light\nnodes:\n- {label: S, type: start}\n- {label: A, type: first}\n- {label: B, type: second}\n"
        "- {label: E, type: endpoint}\nconnections:\n- {from: S, to: A}\n- {from: A, to: B}\n- {from: B, to: E}\n"
    )
    with Session(tmp_path, llm=scripted()) as session:
        r = session.start(diagram, view=False)
        with pytest.raises(NodeExecutionError, match="not yet"):
            r.result()
        assert r.resume(view=False).result().output == "done"
    assert calls == ["first", "second", "second"]


def test_what_cannot_be_a_node_type():
    """Each with what to do."""
    with pytest.raises(ValidationError, match="not the name of a node type"):
        dp.node(lambda: 1)
    with pytest.raises(ValidationError, match=r"Write @dp.node\(name='pause'\)"):
        dp.node("pause")  # pyright: ignore[reportCallIssue,reportArgumentType]
    with pytest.raises(ValidationError, match="A node type is a function, not int"):
        dp.node(3)  # pyright: ignore[reportCallIssue,reportArgumentType]
    with pytest.raises(ValidationError, match="is a built-in node type"):
        dp.node(name="condition")(lambda: 1)
    for function, why in (
        (lambda *args: 1, "no property can fill"),
        (lambda timeout: 1, "means something else"),
        (lambda label: 1, "means something else"),
    ):
        with pytest.raises(ValidationError, match=why):
            dp.node(name="fine")(function)
