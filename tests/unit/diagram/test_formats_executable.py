"""The executable format: the compiled form is written, read, checked, changed and run like the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dipeo_nb.diagram import from_model, load, load_text
from dipeo_nb.diagram.formats import FORMATS
from dipeo_nb.errors import InvalidDiagramError

LOOP = """
version: light
name: loop
persons:
  Ann: {service: echo, prompt_file: ann.txt}
nodes:
- {label: Start, type: start, custom_data: {n: 0}}
- {label: Ask, type: person_job, person: Ann, prompt_file: ask.txt, max_iteration: 2}
- {label: Full, type: condition, condition_type: detect_max_iterations}
- {label: End, type: endpoint}
connections:
- {from: Start, to: "Ask[first]", label: topic}
- {from: Ask, to: Full, content_type: conversation_state}
- {from: "Full[condfalse]", to: Ask}
- {from: "Full[condtrue]", to: End, execution_priority: 2, data: {k: 1}}
"""
PROMPTS = {"ann.txt": "You are Ann.", "ask.txt": "Say {{ topic }}"}


def written(folder: Path) -> str:
    """The executable form of the loop, whose prompt files are gone afterwards."""
    for name, text in PROMPTS.items():
        (folder / name).write_text(text)
    (folder / "loop.light.yaml").write_text(LOOP)
    text = load("loop.light.yaml", base_dir=folder).to_text("executable")
    for name in (*PROMPTS, "loop.light.yaml"):
        (folder / name).unlink()
    return text


def test_what_is_written(tmp_path: Path) -> None:
    """Ids at the ends of edges, what leaves and enters, the order, and the texts of prompt files."""
    document = json.loads(written(tmp_path))
    assert (document["format"], document["version"], document["metadata"]["name"]) == ("executable", "1.0", "loop")
    assert document["execution_order"] == ["node_0", "node_1", "node_2", "node_3"]
    assert document["execution_hints"]["start_nodes"] == ["node_0"]
    assert document["execution_hints"]["node_dependencies"]["node_1"] == ["node_0", "node_2"]
    ask = document["nodes"][1]["data"]
    assert (ask["person"], ask["resolved_prompt"], "prompt_file" in ask) == ("Ann", "Say {{ topic }}", False)
    assert document["persons"][0]["llm_config"]["system_prompt"] == "You are Ann."
    first, *_, last = document["edges"]
    assert (first["source_node_id"], first["target_input"], first["metadata"]) == (
        "node_0",
        "topic",
        {"original_target_handle": "first"},
    )
    assert (last["source_output"], last["is_conditional"], last["execution_priority"]) == ("condtrue", True, 2)


def test_it_runs_without_the_files_it_was_made_of(tmp_path: Path) -> None:
    """A fresh process finds, checks, draws and runs it by name."""
    (tmp_path / "loop.executable.json").write_text(written(tmp_path))
    for arguments in (["validate", "loop"], ["render", "loop.executable.json", "-o", "loop.svg"]):
        subprocess.run([sys.executable, "-m", "dipeo_nb", *arguments], cwd=tmp_path, check=True, capture_output=True)
    command = [sys.executable, "-m", "dipeo_nb", "run", "loop.executable.json", "--input", "topic=tea", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["status"] == "completed"
    assert report["node_runs"] == {"Start": 1, "Ask": 2, "Full": 2, "End": 1}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_round_trips_with_every_format(tmp_path: Path, name: str) -> None:
    """The same plan from the executable form, and after any other format."""
    diagram = load_text(written(tmp_path))
    assert diagram.format == "executable"
    again = load_text(from_model(diagram.model, format=name).to_text("executable"))
    plans = [d.compile(base_dir=tmp_path) for d in (diagram, again)]
    assert plans[0].nodes == plans[1].nodes
    assert plans[0].edges == plans[1].edges
    assert plans[0].persons == plans[1].persons


def test_edits_keep_the_form(tmp_path: Path) -> None:
    """Nodes, persons and arrows are changed in place; what follows from arrows is written anew."""
    diagram = load_text(written(tmp_path))
    changed = diagram.set("nodes.Ask.max_iteration", 1).set("persons.Ann.model", "m").set("nodes.Ask.label", "Question")
    changed = changed.set(f"arrows.{changed.arrows[0].id}.label", None)
    assert (changed.nodes[1].data["max_iteration"], changed.nodes[1].label, changed.persons[0].llm.model) == (
        1,
        "Question",
        "m",
    )
    assert (changed.arrows[0].label, changed.arrows[0].target_handle, changed.format) == (None, "first", "executable")
    assert json.loads(changed.text)["edges"][0]["target_input"] == "first"


def test_only_a_diagram_that_can_run_has_this_form() -> None:
    """Otherwise the findings are given, as for a run."""
    with pytest.raises(InvalidDiagramError, match="no start node"):
        load_text("nodes: [{label: E, type: endpoint}]").to_text("executable")


def test_what_upstream_writes_is_read() -> None:
    """Persons in the metadata, labels in place of inputs without a handle beside them, flags without data."""
    document = {
        "format": "executable", "version": "1.0", "execution_order": [], "execution_hints": {},
        "nodes": [
            {"id": "a", "type": "start", "data": {"label": "A"}},
            {"id": "b", "type": "person_job", "data": {"label": "B", "person": "p", "default_prompt": "hi"}},
        ],
        "edges": [
            {"id": "e", "source_node_id": "a", "target_node_id": "b", "source_output": "default", "target_input": "topic",
             "content_type": "raw_text", "transform_rules": {"content_type": "raw_text"}, "is_conditional": False,
             "requires_first_execution": True, "metadata": {}},
        ],
        "metadata": {"name": "x", "persons": {"p": {"service": "echo", "model": "m"}}},
    }  # fmt: skip
    diagram = load_text(json.dumps(document))
    (arrow,) = diagram.arrows
    assert (arrow.label, arrow.target_handle, arrow.data) == ("topic", "default", {"requires_first_execution": True})
    assert [(p.id, p.llm.service) for p in diagram.persons] == [("p", "echo")]
    assert not [d for d in diagram.check() if d.severity == "error"]


@pytest.mark.parametrize(
    ("edge", "code"),
    [
        ({"target_node_id": "a"}, "missing-end"),
        ({"source_node_id": "z", "target_node_id": "a"}, "unknown-node"),
        ({"source_node_id": "a", "target_node_id": "a", "content_type": "txt"}, "unknown-content-type"),
        ({"source_node_id": "a", "target_node_id": "a", "from": "a"}, "unknown-property"),
    ],
)
def test_mistakes_have_places(edge: dict[str, str], code: str) -> None:
    """Each is one finding with its line and the next action."""
    document = {"format": "executable", "nodes": [{"id": "a", "type": "code_job", "data": {"label": "A"}}], "edges": [edge]}
    (found,) = load_text(json.dumps(document, indent=1)).diagnostics
    assert found.code == code
    assert found.line
    assert found.hint
