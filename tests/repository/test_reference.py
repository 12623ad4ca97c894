"""The reference of node types and the index of errors: whole, current, and true."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import dipeo_nb as dp
from dipeo_nb import cli
from dipeo_nb.diagram.document import load
from dipeo_nb.diagram.reference import EXAMPLES, common_fields, node_reference, page
from dipeo_nb.diagram.schema import light_schema
from dipeo_nb.domain.enums import NodeCategory, NodeType
from dipeo_nb.domain.nodes import NODE_SPECS, NodeMeta, NodeSpec, register_node_spec, spec
from dipeo_nb.errors import ValidationError
from dipeo_nb.integrations import BaseProvider, IntegratedApiService
from tests.support.node_types import restored

ROOT = Path(__file__).parents[2]


def make_docs() -> Any:
    """scripts/make_docs.py, imported."""
    found = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts/make_docs.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_what_is_generated_is_current() -> None:
    """docs/nodes.md, docs/errors.md, the README's diagram and its picture are what `make docs` writes."""
    for name, text in make_docs().generated().items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, f"{name} is stale: make docs"


@pytest.mark.parametrize("name", list(NodeType))
def test_every_field_says_what_it_means(name: str) -> None:
    """So does the schema, which editors show."""
    reference = node_reference(name)
    assert [field.name for field in (*reference.fields, *common_fields()) if not field.doc] == []
    assert {f.name for f in (*reference.fields, *common_fields())} == {f.name for f in fields(NODE_SPECS[name])}
    assert f"type: {name}" in reference.example


class Weather(BaseHTTPRequestHandler):
    """Answers every call with a value."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"asked": self.path}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    """A web server on this machine."""
    with HTTPServer(("127.0.0.1", 0), Weather) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Notion(BaseProvider):
    """The provider of the example."""

    name = "notion"

    async def read_page(self, resource_id: str) -> dict[str, str]:
        return {"page": resource_id}


SCHEMA = Draft202012Validator(light_schema())
"""What editors check by."""
OUTPUTS: dict[str, Any] = {
    "start": {"End": "Hello, reader."},
    "endpoint": {"Result": {"greeting": "Hello"}},
    "person_job": {"Poem": "[Poet] A haiku about rain."},
    "condition": {"Buy": {"price": 7}},
    "code_job": {"End": 4.0},
    "api_job": {"End": {"asked": "/weather?q=Bern&units=metric"}},
    "user_response": {"Kept": False},
    "hook": {"Said": "hello"},
    "json_schema_validator": {"Good": {"name": "Ann"}},
    "sub_diagram": {"End": ["[Poet] A haiku about rain.", "[Poet] A haiku about snow."]},
    "integrated_api": {"End": {"page": "42"}},
    "ir_builder": {"End": "City: str, str"},
    "typescript_ast": {
        "End": {
            "ast": {
                "enums": [
                    {
                        "name": "Size",
                        "isExported": True,
                        "isConst": False,
                        "members": [{"name": "Small", "value": "s"}, {"name": "Large", "value": "l"}],
                    }
                ],
                "constants": [{"name": "sizes", "isExported": True, "type": None, "value": ["s", "l"]}],
            },
            "metadata": {
                "success": True,
                "extractedPatterns": ["enum", "const"],
                "diagnostics": [],
                "astSummary": {
                    "kind": "SourceFile",
                    "childCount": 2,
                    "hasInterfaces": False,
                    "hasTypes": False,
                    "hasEnums": True,
                    "hasClasses": False,
                    "hasFunctions": False,
                    "hasConstants": True,
                    "hasExports": False,
                },
            },
        }
    },
}
"""Type → the results of its example; those with paths and times in them are checked by their files."""
FILES = {"endpoint": "result.json", "db": "all-notes.json", "diff_patch": "settings.txt", "template_job": "letters.txt"}


@pytest.mark.parametrize("name", list(NodeType))
def test_every_example_runs(name: str, tmp_path: Path, address: str) -> None:
    """It is valid without a warning, and gives what it should on the model `echo`."""
    for path in EXAMPLES.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8").replace("https://api.example.org", address))
    diagram = load(f"{name}.light.yaml", base_dir=tmp_path)
    assert [str(finding) for finding in diagram.check()] == []
    SCHEMA.validate(yaml.safe_load(diagram.text))
    session = dp.Session(base_dir=tmp_path, integrations=IntegratedApiService(Notion()))
    result = session.run(diagram, view=False, answers={"Approve": "no"} if name == "user_response" else None)
    assert result.status == "completed"
    assert name not in OUTPUTS or dict(result.outputs) == OUTPUTS[name]
    assert name not in FILES or (tmp_path / FILES[name]).read_text()
    assert name in OUTPUTS or name in FILES


def test_the_commands_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    """`dipeo-nb nodes` lists the types, `nodes TYPE` one, in any letter case; an unknown one is a mistake with a hint."""
    assert cli.main(["nodes"]) == 0
    assert set(NodeType) <= set(capsys.readouterr().out.split())
    assert cli.main(["nodes", "Code_Job"]) == 0
    shown = capsys.readouterr().out
    assert "isolated" in shown
    assert "retry_delay" in shown
    assert node_reference("code_job").example in shown
    assert cli.main(["nodes", "--json"]) == 0
    assert {row["type"] for row in json.loads(capsys.readouterr().out)["nodes"]} >= set(NodeType)
    assert cli.main(["nodes", "code_jbo", "--json"]) == 2
    assert "Did you mean 'code_job'?" in capsys.readouterr().err


def test_types_of_your_own_are_described() -> None:
    """Their fields and summary, without an example."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ShoutNode(NodeSpec):
        META = NodeMeta("shout_loud", NodeCategory.UTILITY, "Says it loudly", aliases={"n": "times"})
        times: int = spec(1, minimum=1, doc="How often")

    with restored():
        register_node_spec(ShoutNode)
        assert "| `times` | `n` | integer, ≥ 1 | `1` | How often |" in page("shout_loud")
        assert "```" not in page("shout_loud")
    with pytest.raises(ValidationError):
        page("shout_loud")


def test_the_magic_shows_it() -> None:
    """A table of the types; Markdown of one."""
    from dipeo_nb.notebook import magics

    assert len(magics._nodes([])) == len(NODE_SPECS)
    shown = magics._nodes(["hook"])
    assert shown._repr_markdown_() == repr(shown) == page("hook")
    with pytest.raises(ValidationError):
        magics._nodes(["hook", "more"])


def test_every_finding_is_in_the_index() -> None:
    """Each code that the package can report has its row, with a fix where it is an error."""
    index = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", index, re.MULTILINE))
    reported = {
        argument.value
        for folder in ("diagram", "execution")
        for file in (ROOT / "dipeo_nb" / folder).rglob("*.py")
        if re.search(r'"[a-z]+(-[a-z]+)+",', text := file.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in REPORTING
        for argument in node.args[:3]
        if isinstance(argument, ast.Constant) and re.fullmatch(r"[a-z]+(-[a-z]+)+", str(argument.value))
    }
    assert len(reported) > 50
    assert reported <= rows.keys()
    assert [code for code, row in rows.items() if row.startswith("error") and row.endswith("|")] == []


REPORTING = {"Finding", "warn", "error", "Problem", "inform", "report", "FileProblem", "Diagnostic"}
"""Functions that are given the code of a finding."""
