"""integrated_api, typescript_ast and ir_builder: nodes whose work is done behind a port that a user can supply."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.ports import ASTParserPort, IntegrationPort, IRBuilderPort
from dipeo_nb.errors import NodeExecutionError, ValidationError
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted


class Tracker:
    """An issue tracker in memory."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def operations(self) -> Mapping[str, Any]:
        return {"tracker": ("create", "list")}

    async def execute(self, provider: str, operation: str, **options: Any) -> Any:
        if operation not in self.operations().get(provider, ()):
            raise ValidationError(f"{provider} has no operation '{operation}'.", hint="It has create, list.")
        self.calls.append(options)
        return {"id": len(self.calls), "title": options["config"]["title"]}


class Parser:
    async def parse(self, sources: Mapping[str, str], options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            name: {"ast": {"interfaces": text.count("interface")}, "metadata": dict(options)} for name, text in sources.items()
        }


class Builder:
    async def build(self, source: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"data": source, "metadata": {"builder": options["builder_type"]}}


def diagram(kind: str, **props: Any) -> dict[str, Any]:
    return {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "Work", "type": kind, "props": props},
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [
            {"from": "Start", "to": "Work", "content_type": "generic"},
            {"from": "Work", "to": "End", "content_type": "generic"},
        ],
    }


def run(base: Path, kind: str, props: dict[str, Any], variables: dict[str, Any] | None = None, **services: Any) -> Any:
    with Session(base, llm=scripted(), **services) as dp:
        return dp.run(diagram(kind, **props), view=False, inputs=variables or {}).output


def test_they_are_the_ports():
    """The examples below have every method."""
    assert isinstance(Tracker(), IntegrationPort)
    assert isinstance(Parser(), ASTParserPort)
    assert isinstance(Builder(), IRBuilderPort)


def test_an_operation_gets_its_rendered_configuration(tmp_path: Path):
    """Over what arrives; with a key that is the same for every attempt."""
    tracker = Tracker()
    props = {
        "provider": "tracker",
        "operation": "create",
        "resource_id": "{{name}}",
        "config": {"title": "T {{name}}", "n": [1, "{{name}}"]},
    }
    answer = run(tmp_path, "integrated_api", props, {"name": "x", "more": 2}, integrations=tracker)
    assert answer == {"id": 1, "title": "T x"}
    (call,) = tracker.calls
    assert call["config"] == {"name": "x", "more": 2, "title": "T x", "n": [1, "x"]}
    assert call["resource_id"] == "x"
    assert call["timeout"] == 30
    assert call["idempotency_key"].endswith(":node_1:1")


@pytest.mark.parametrize(
    ("props", "message"),
    [
        ({"provider": "tracker"}, "names no operation of tracker"),
        ({"provider": "tracker", "operation": "sing"}, "no operation 'sing'"),
    ],
)
def test_bad_operations(tmp_path: Path, props: dict[str, Any], message: str):
    """One error that lists what there is."""
    with pytest.raises((NodeExecutionError, ValidationError), match=message) as caught:
        run(tmp_path, "integrated_api", props, integrations=Tracker())
    assert "create, list" in str(caught.value.hint)


def test_typescript_from_everywhere(tmp_path: Path):
    """The node's own text, a file, what arrives, and batches."""
    (tmp_path / "a.ts").write_text("interface A {}\ninterface B {}")
    assert run(tmp_path, "typescript_ast", {"source": "interface A {}"}, typescript=Parser())["ast"] == {"interfaces": 1}
    assert run(tmp_path, "typescript_ast", {"source_file": "{which}.ts"}, {"which": "a"}, typescript=Parser())["ast"] == {
        "interfaces": 2
    }
    found = run(tmp_path, "typescript_ast", {"include_jsdoc": True}, {"source": "x"}, typescript=Parser())
    assert found["metadata"]["include_jsdoc"] is True
    assert found["metadata"]["extract_patterns"] == ["interface", "type", "enum"]
    many = run(tmp_path, "typescript_ast", {"batch": True}, {"sources": {"a": "interface", "b": ""}}, typescript=Parser())
    assert {name: found["ast"]["interfaces"] for name, found in many.items()} == {"a": 1, "b": 0}
    assert run(tmp_path, "typescript_ast", {}, {"_skip_parsing": True, "x": 1}, typescript=Parser()) == {
        "_skip_parsing": True,
        "x": 1,
    }
    for props, message in (({}, "has no source to read"), ({"batch": True}, "needs 'sources'")):
        with pytest.raises(NodeExecutionError, match=message):
            run(tmp_path, "typescript_ast", props, typescript=Parser())


def test_intermediate_forms(tmp_path: Path):
    """What arrives goes to the builder with the node's options."""
    built = run(tmp_path, "ir_builder", {"builder_type": "frontend"}, {"a": 1}, ir=Builder())
    assert built == {"data": {"a": 1}, "metadata": {"builder": "frontend"}}
