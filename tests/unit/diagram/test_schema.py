"""The JSON schema of the light format: generated from the node specs, true to what loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dipeo_nb.diagram import from_model, light_schema
from dipeo_nb.diagram.source import parse
from dipeo_nb.diagram.vocabulary import field_names
from dipeo_nb.domain.diagram import DomainDiagram, DomainNode
from dipeo_nb.domain.enums import NodeType
from dipeo_nb.domain.nodes import NODE_SPECS

SAMPLES = Path(__file__).parents[4] / "shared" / "diagrams"
VALIDATOR = jsonschema.Draft202012Validator(light_schema())


def valid(**node: Any) -> bool:
    return VALIDATOR.is_valid({"version": "light", "nodes": [{"label": "X", **node}]})


def test_it_is_a_schema_and_plain_json() -> None:
    """The schema itself is valid and can be dumped."""
    jsonschema.Draft202012Validator.check_schema(light_schema())
    json.dumps(light_schema())


@pytest.mark.parametrize("node_type", sorted(NodeType))
def test_every_node_type_with_its_defaults_is_valid(node_type: str) -> None:
    """Each type takes its own fields, in the short and in the long form, in any of the two letter cases."""
    properties = light_schema()["$defs"][f"{node_type}_properties"]["properties"]
    assert set(field_names(NODE_SPECS[node_type])) <= properties.keys()
    defaults = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    assert valid(type=node_type, **defaults)
    assert valid(type=node_type.upper(), props=defaults)


@pytest.mark.parametrize(
    "node",
    [
        {"type": "person_job", "max_iteration": "three"},
        {"type": "person_job", "max_iteration": 0},
        {"type": "person_job", "at_most": 501},
        {"type": "person_job", "props": {"batch": "yes"}},
        {"type": "condition", "condition_type": "maybe"},
        {"type": "endpoint", "save_to_file": 1},
        {"type": "endpoint", "file_format": "docx"},
        {"type": "db", "file": 5},
        {"type": "start", "position": {"x": "1", "y": 2}},
        {"type": "start", "expression": "x"},
        {"type": "strat"},
        {},
    ],
)
def test_wrong_nodes_are_not_valid(node: dict[str, Any]) -> None:
    """A wrong type, an unknown value, a property of another node, an unknown or missing type."""
    assert not valid(**node)


@pytest.mark.parametrize(
    "node",
    [
        {"type": "ENDPOINT", "file_path": "x", "file_format": None},
        {"type": "start", "trigger_mode": "automatic", "custom_data.a.b": 1},
        {"type": "person_job", "memory_profile": "FULL", "memory_config": {}, "prompt": "x", "flipped": [True, False]},
        {"type": "typescript_ast", "extract": ["interfaces", "enum"]},
        {"type": "hook", "hook_type": "webhook"},
        {"type": "db", "source_details": ["a", "b"], "position": [1, 2.5]},
    ],
)
def test_aliases_and_legacy_spellings_are_valid(node: dict[str, Any]) -> None:
    """What loads without a warning is valid."""
    assert valid(**node)


@pytest.mark.parametrize(
    "connection",
    [
        {"from": "A"},
        {"from": "A", "to": ["B"]},
        {"from": "A", "to": "B", "content_type": "txt"},
        {"from": "A", "to": "B", "lable": "x"},
    ],
)
def test_wrong_connections_are_not_valid(connection: dict[str, Any]) -> None:
    """Missing or wrong ends, unknown content types and keys."""
    assert not VALIDATOR.is_valid({"nodes": [], "connections": [connection]})


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="not here: the real diagrams are not beside the repository")
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.yaml")), ids=lambda p: p.name)
def test_real_light_diagrams_are_valid(path: Path) -> None:
    """Each real light diagram validates as it is."""
    document = parse(path.read_text()).value
    if document["version"] == "light":
        VALIDATOR.validate(document)


def test_what_the_writer_writes_is_valid() -> None:
    """Every node type as the light writer spells it."""
    for number, node_type in enumerate(NodeType):
        text = from_model(
            DomainDiagram(nodes=(DomainNode(f"n{number}", node_type.value, "L", None, {"timeout": 3.5}),)), name="N"
        ).text
        VALIDATOR.validate(parse(text).value)
