"""json_schema_validator: what fits goes on, what does not is an error that can be led on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import DipeoError, NodeExecutionError, StorageError
from tests.support.single_node import run_node

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0},
        "mail": {"type": "string", "format": "email"},
        "home": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
    "required": ["name"],
}
KIND = "json_schema_validator"


@pytest.mark.parametrize("schema", [PERSON, json.dumps(PERSON)])
def test_what_fits_leaves_as_it_came(tmp_path: Path, schema: Any):
    """A mapping or JSON text as schema."""
    data = {"name": "Ada", "age": 36, "mail": "ada@example.org"}
    assert run_node(tmp_path, KIND, {"json_schema": schema}, data).output == data


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_files(tmp_path: Path, suffix: str):
    """Schema and data from files of the base directory, JSON or YAML, named with inputs."""
    (tmp_path / f"s.{suffix}").write_text(json.dumps(PERSON))
    (tmp_path / f"ada.{suffix}").write_text('{"name": "Ada"}')
    props = {"schema_path": f"s.{suffix}", "data_path": "{who}." + suffix}
    assert run_node(tmp_path, KIND, props, {"who": "ada"}).output == {"name": "Ada"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "'name' is a required property"),
        ({"name": 1}, "$.name: 1 is not of type 'string'"),
        ({"name": "A", "age": -1}, "$.age: -1 is less than the minimum"),
        ({"name": "A", "mail": "nobody"}, "$.mail: 'nobody' is not a 'email'"),
        ({"name": "A", "home": {"city": 3}}, "$.home.city: 3 is not"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, data: dict[str, Any], words: str):
    """The place and the rule; with an arrow from `error` the run goes on there, with the violations."""
    with pytest.raises(NodeExecutionError) as caught:
        run_node(tmp_path, KIND, {"json_schema": PERSON}, data)
    assert words in str(caught.value)
    done = run_node(tmp_path, KIND, {"json_schema": PERSON}, data, error_arrow=True)
    assert list(done.outputs) == ["Failed"]
    (violation,) = done.outputs["Failed"]["violations"]
    assert words.startswith(violation["path"]) or violation["message"] in words


def test_strict_lists_every_violation(tmp_path: Path):
    """In the order of their places."""
    props = {"json_schema": PERSON, "strict": True}
    done = run_node(tmp_path, KIND, props, {"name": 1, "age": -1, "home": {"city": 2}}, error_arrow=True)
    assert [v["path"] for v in done.outputs["Failed"]["violations"]] == ["$.age", "$.home.city", "$.name"]


def test_extra_fields(tmp_path: Path):
    """error_on_extra refuses what the schema does not list, at every depth."""
    data = {"name": "A", "home": {"city": "x", "zip": 1}}
    assert run_node(tmp_path, KIND, {"json_schema": PERSON}, data).output == data
    with pytest.raises(NodeExecutionError, match="'zip' was unexpected"):
        run_node(tmp_path, KIND, {"json_schema": PERSON, "error_on_extra": True}, data)


@pytest.mark.parametrize(
    ("props", "kind", "words"),
    [
        ({}, NodeExecutionError, "has no schema"),
        ({"json_schema": "{"}, NodeExecutionError, "is not JSON"),
        ({"json_schema": "3"}, NodeExecutionError, "is not a mapping"),
        ({"json_schema": {"type": "nonsense"}}, NodeExecutionError, "The schema is wrong at"),
        ({"json_schema": {"$ref": "https://example.org/x.json"}}, NodeExecutionError, "which is not in it"),
        ({"json_schema": {"$ref": "#/$defs/none"}}, NodeExecutionError, "which is not in it"),
        ({"schema_path": "none.json"}, StorageError, "none.json"),
        ({"schema_path": "../s.json"}, StorageError, "../s.json"),
        ({"json_schema": True, "data_path": "none.json"}, StorageError, "none.json"),
    ],
)
def test_bad_input(tmp_path: Path, props: dict[str, Any], kind: type[DipeoError], words: str):
    """One error that says what to do; no schema is fetched."""
    with pytest.raises(kind) as caught:
        run_node(tmp_path, KIND, props, {"a": 1})
    assert words in str(caught.value)
    assert caught.value.hint
