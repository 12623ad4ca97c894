"""A node type from outside is a spec and an entry: read, checked, drawn, exported, trusted or not, and run as the built-in ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import pytest

from dipeo_nb import Session
from dipeo_nb.diagram.closure import closure
from dipeo_nb.diagram.document import load_text
from dipeo_nb.domain.enums import NodeCategory, NodeType
from dipeo_nb.domain.nodes import NODE_SPECS, NodeMeta, NodeSpec, spec
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import InvalidDiagramError, TrustError
from dipeo_nb.execution import handlers
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.handlers import NodeHandler
from dipeo_nb.execution.inputs import Output
from dipeo_nb.testing import scripted
from tests.support.node_types import registered


@dataclass(frozen=True, slots=True, kw_only=True)
class Shout(NodeSpec):
    META: ClassVar = NodeMeta("test_shout", NodeCategory.COMPUTE, "Says it louder")

    text: str = spec("", template=True, required=True)
    times: int = spec(1)


def shout(context: NodeContext) -> Output:
    mine = cast(Shout, context.node.spec)
    return Output(context.render(mine.text).upper() * mine.times)


LIGHT = """
version: light
nodes:
  - {label: Start, type: start}
  - {label: Loud, type: test_shout, props: {text: "hi {{name}}", times: 2}}
  - {label: End, type: endpoint}
connections:
  - {from: Start, to: Loud}
  - {from: Loud, to: End}
"""


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    with registered((Shout, shout)):
        yield


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path, llm=scripted()) as session:
        yield session


def test_it_runs(session: Session) -> None:
    assert session.run(load_text(LIGHT), view=False, inputs={"name": "ada"}).output == "HI ADAHI ADA"


def test_its_fields_are_checked() -> None:
    """A value of another kind, an unknown field, and one that lacks."""
    codes = lambda text: {d.code for d in load_text(text).check()}  # noqa: E731
    assert not codes(LIGHT) - {"unknown-name"}
    assert "wrong-value" in codes(LIGHT.replace("times: 2", "times: many"))
    assert "unknown-property" in codes(LIGHT.replace("times: 2", "tmies: 2"))
    assert codes(LIGHT.replace('text: "hi {{name}}", ', "")) - codes(LIGHT)


def test_it_is_drawn_and_exported() -> None:
    """Every format keeps it, and reads it again."""
    diagram = load_text(LIGHT)
    assert "Loud" in diagram.svg()
    for form in ("native", "readable", "light"):
        text = diagram.to_text(form)
        again = next(n for n in load_text(text, format=form).nodes if n.type == "test_shout")
        assert json.loads(json.dumps(again.data))["times"] == 2


def test_what_a_diagram_may_have_it_do_is_asked_for(tmp_path: Path, session: Session) -> None:
    """It is somebody's function: a diagram from elsewhere does not call it by itself."""
    path = tmp_path / "given.light.yaml"
    path.write_text(LIGHT)
    found = closure(load_text(LIGHT), base_dir=tmp_path)
    assert [(use.kind, use.node) for use in found.uses] == [("function", "Loud")]
    with pytest.raises(TrustError, match="wants more than to call models"):
        session.run(load_text(LIGHT, path=str(path)), view=False, inputs={"name": "a"}, trust=False)


def test_without_work_it_is_only_drawn(session: Session) -> None:
    del handlers._registered["test_shout"]
    handlers._lookup.cache_clear()
    with pytest.raises(InvalidDiagramError, match="do not run yet"):
        session.run(load_text(LIGHT), view=False)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (NodeHandler(shout, port="integrations"), "need the service 'integrations'"),
        (
            NodeHandler(shout, missing=lambda node, services: (f"'{node.label}' needs a horn.", "Buy one.")),
            "'Loud' needs a horn",
        ),
    ],
    ids=["service", "missing"],
)
def test_what_it_needs_is_looked_for_before_anything_runs(session: Session, entry: NodeHandler, message: str) -> None:
    handlers.register("test_shout", entry)
    if entry.port:  # as where a service has no adapter
        object.__setattr__(session.runtime.services, entry.port, None)
    with pytest.raises(InvalidDiagramError, match=message):
        session.run(load_text(LIGHT), view=False)


@pytest.mark.parametrize(
    ("entry", "limit"),
    [
        (NodeHandler(shout), 0.05),
        (NodeHandler(shout, timeout=9.0), 0.05),
        (NodeHandler(shout, timeout=9.0, own_timeout=True), 9.0),
    ],
)
def test_its_time_limit(entry: NodeHandler, limit: float) -> None:
    """The node's own one, unless that field is for the handler."""
    handlers.register("test_shout", entry)
    plan = load_text(LIGHT.replace("times: 2", "timeout: 0.05")).compile()
    assert handlers.time_limit(plan.node("Loud"), 600.0) == limit


def test_every_built_in_type_has_an_entry() -> None:
    """A module each; what it says is of the kind that it should be."""
    services = set(Services.__dataclass_fields__)
    built_in = [kind for kind in NODE_SPECS if kind not in handlers._registered]
    assert set(built_in) == set(NodeType)
    for kind in built_in:
        entry = handlers._lookup(kind)
        assert callable(entry.execute), kind
        assert entry.port is None or entry.port in services, kind
        assert entry.timeout is None or entry.timeout == "default" or cast(float, entry.timeout) > 0, kind
    assert [kind for kind in built_in if handlers._lookup(kind).resume] == ["sub_diagram"]
    assert [kind for kind in built_in if handlers._lookup(kind).own_timeout] == ["user_response"]
