"""The native format: what the lenient reader takes, and the wire model that is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dipeo_nb.diagram import from_model, load_text
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, DomainPerson, LLMConfig, Vec2


def native(**parts: Any) -> Diagram:
    return load_text(json.dumps({"nodes": [], "arrows": [], "handles": [], "persons": [], **parts}, indent=1))


def codes(diagram: Diagram) -> list[str]:
    return [d.code for d in diagram.diagnostics]


START = {"id": "a_b", "type": "start", "position": {"x": 1, "y": 2.5}, "data": {"label": "S"}}
CHECK = {"id": "n-1", "type": "condition", "position": {"x": 0, "y": 0}, "data": {"label": "C", "expression": "x"}}
JOB = {"id": "job", "type": "PERSON_JOB", "data": {"label": "J", "person": "P", "memory_profile": "FULL"}}
PERSON = {
    "id": "person_P",
    "label": "P",
    "type": "person",
    "llm_config": {"service": "openai", "model": "m", "api_key_id": "K"},
}
ARROW = {"id": "x", "source": "a_b_default_output", "target": "n-1_default_input", "content_type": None, "label": None}


def keyed(*entries: dict[str, Any]) -> dict[str, Any]:
    return {e["id"]: {k: v for k, v in e.items() if k != "id"} for e in entries}


def test_collections_may_be_lists_or_mappings() -> None:
    """Each collection is read in either form, with the same result; the key becomes the id."""
    as_lists = native(nodes=[START, CHECK], arrows=[ARROW], persons=[PERSON])
    as_mappings = native(nodes=keyed(START, CHECK), arrows=keyed(ARROW), persons=keyed(PERSON))
    assert as_lists.model == as_mappings.model
    assert [n.id for n in as_lists.nodes] == ["a_b", "n-1"]
    assert codes(as_lists) == codes(as_mappings) == []


def test_graphql_leftovers_are_removed_at_every_depth() -> None:
    """Keys that begin with two underscores are no data."""
    node = {**START, "__typename": "X", "data": {"label": "S", "custom_data": {"__typename": "Y", "k": [{"__z": 1, "a": 2}]}}}
    diagram = native(nodes=[node], __typename="D")
    assert diagram.nodes[0].data == {"custom_data": {"k": [{"a": 2}]}}
    assert codes(diagram) == []


def test_aliases_types_and_profiles_are_those_of_light() -> None:
    """Upper-case types, aliases and legacy memory settings are read as in light; fractions of coordinates stay."""
    diagram = native(
        nodes=[START, JOB, {"id": "e", "type": "endpoint", "data": {"label": "E", "file_path": "f"}}], persons=[PERSON]
    )
    assert diagram.nodes[0].position == Vec2(1, 2.5)
    assert (diagram.nodes[1].type, diagram.nodes[1].data) == (
        "person_job",
        {"person": "person_P", "memorize_to": "ALL_MESSAGES"},
    )
    assert diagram.nodes[2].data == {"file_name": "f"}


def test_old_branch_handles_are_renamed() -> None:
    """`true` and `false` are the branches of old conditions, in arrows and in listed handles."""
    diagram = native(
        nodes=[CHECK, JOB],
        arrows=[
            {"id": "y", "source": "n-1_true_output", "target": "job_default_input"},
            {"id": "z", "source": "n-1_false_output", "target": "job_first_input"},
        ],
        handles=[
            {
                "id": "n-1_true_output",
                "node_id": "n-1",
                "label": "true",
                "direction": "output",
                "data_type": "boolean",
                "position": "right",
            }
        ],
    )
    assert [(a.source, a.source_handle, a.target_handle) for a in diagram.arrows] == [
        ("n-1", "condtrue", "default"),
        ("n-1", "condfalse", "first"),
    ]
    assert diagram.model.handles[0].id == "n-1_condtrue_output"
    assert codes(diagram) == []


def test_flat_persons_and_flat_nodes_are_read() -> None:
    """A person without llm_config and a node without data keep their settings."""
    diagram = native(
        nodes=[{"id": "c", "type": "code_job", "label": "C", "code": "1"}],
        persons=[{"id": "p", "label": "P", "service": "claude", "model": ""}],
    )
    assert (diagram.nodes[0].label, diagram.nodes[0].data) == ("C", {"code": "1"})
    assert diagram.persons == (DomainPerson("p", "P", LLMConfig("anthropic", None)),)


def test_api_keys_and_unknown_keys_are_tolerated() -> None:
    """Both are warnings; unknown keys survive, keys do not."""
    diagram = native(api_keys={"K": {"key": "sk-1"}}, extra=[1])
    assert codes(diagram) == ["api-keys", "unknown-key"]
    assert json.loads(from_model(diagram.model, format="native").text)["metadata"]["extra"] == [1]


@pytest.mark.parametrize(
    ("arrow", "code"),
    [
        ({"target": "n-1_default_input"}, "missing-end"),
        ({"source": "zz_default_output", "target": "n-1_default_input"}, "unknown-node"),
        ({"source": "nonsense", "target": "n-1_default_input"}, "bad-handle-id"),
        ({"source": "a_b_default_input", "target": "n-1_default_input"}, "wrong-direction"),
        ({"source": "a_b_default_output", "target": "n-1_default_output"}, "wrong-direction"),
        ({"source": "a_b_default_output", "target": "n-1_default_input", "content_type": "txt"}, "unknown-content-type"),
    ],
)
def test_bad_arrows_are_one_error_each(arrow: dict[str, Any], code: str) -> None:
    """Each mistake is an error with line, column and a next action."""
    (found,) = native(nodes=[START, CHECK], arrows=[{"id": "x", **arrow}]).diagnostics
    assert (found.severity.value, found.code) == ("error", code)
    assert found.line
    assert found.column
    assert found.hint


def test_places_in_json() -> None:
    """Nodes, their fields, arrows and persons know their lines and columns in JSON as well."""
    diagram = load_text(
        '{"nodes": {"n": {"type": "code_job",\n   "data": {"label": "ö\\"",\n\t"code_type": "python"}}},\n "arrows": [], "persons": [\n {"id": "p", "label": "P"}]}'
    )
    assert diagram.source.node("n") == (1, 12)
    assert diagram.source.node("n", "language") == (3, 2)
    assert diagram.source.person("p") == (5, 2)
    assert diagram.source.place("nodes", "n", "data", "label") == (2, 13)
    assert diagram.source.node("unknown") is None


def test_what_is_written() -> None:
    """Id-keyed mappings, nulls left out, every handle listed, the model always present."""
    model = DomainDiagram(
        nodes=(
            DomainNode("a", "start", "S", Vec2(1, 2.5), {"custom_data": {"k": None}, "hook_event": None}),
            DomainNode("b", "endpoint", "E"),
        ),
        arrows=(DomainArrow("x", "a", "b", execution_priority=1, data={"k": 1}),),
        persons=(DomainPerson("p", "P", LLMConfig("local", extra={"z": 1})),),
    )
    text = from_model(model, format="native").text
    assert json.loads(text) == {
        "nodes": {
            "a": {
                "id": "a",
                "type": "start",
                "position": {"x": 1, "y": 2.5},
                "data": {"label": "S", "custom_data": {"k": None}},
            },
            "b": {"id": "b", "type": "endpoint", "data": {"label": "E"}},
        },
        "arrows": {
            "x": {
                "id": "x",
                "source": "a_default_output",
                "target": "b_default_input",
                "execution_priority": 1,
                "data": {"k": 1},
            }
        },
        "handles": {
            "a_default_output": {
                "id": "a_default_output",
                "node_id": "a",
                "label": "default",
                "direction": "output",
                "data_type": "any",
                "position": "right",
            },
            "b_default_input": {
                "id": "b_default_input",
                "node_id": "b",
                "label": "default",
                "direction": "input",
                "data_type": "any",
                "position": "left",
            },
        },
        "persons": {"p": {"id": "p", "label": "P", "type": "person", "llm_config": {"service": "local", "model": "", "z": 1}}},
    }
    again = load_text(text).model
    assert (again.nodes[1], again.arrows, again.persons) == (model.nodes[1], model.arrows, model.persons)


def test_repeated_ids_are_not_lost() -> None:
    """A collection in which an id repeats is written as a list."""
    model = DomainDiagram(nodes=(DomainNode("a", "start", "S"), DomainNode("a", "endpoint", "E")))
    assert len(load_text(from_model(model, format="native").text).nodes) == 2
