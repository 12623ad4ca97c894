"""The readable format: names with places and kinds, types by evidence, every way to write the flow."""

from __future__ import annotations

from typing import Any

import pytest

from dipeo_nb.diagram import from_model, load_text
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, DomainPerson, LLMConfig, Vec2

HEAD = """version: readable
nodes:
- Start @(1,2): {}
- A: {person: P}
- My Check: {expression: x}
- B - C (d): {code: "1"}
- with "quotes": {operation: read, file: f}
"""


def readable(flow: str) -> Diagram:
    return load_text(f"{HEAD}flow:\n{flow}\n")


def arrows(diagram: Diagram) -> list[tuple[Any, ...]]:
    labels = {n.id: n.label for n in diagram.nodes}
    return [
        (labels[a.source], a.source_handle, labels[a.target], a.target_handle, a.content_type, a.label) for a in diagram.arrows
    ]


def codes(diagram: Diagram) -> list[str]:
    return [d.code for d in diagram.diagnostics]


@pytest.mark.parametrize(
    ("key", "label", "node_type", "position"),
    [
        ("Foo", "Foo", "person_job", None),
        ("Foo @(1,2)", "Foo", "person_job", Vec2(1, 2)),
        ("Foo @( -1.5 , 2 )", "Foo", "person_job", Vec2(-1.5, 2)),
        ("Foo [condition] @(1,2)", "Foo", "condition", Vec2(1, 2)),
        ("Foo [Code_Job]", "Foo", "code_job", None),
        ("Foo [other]", "Foo [other]", "person_job", None),
        ("Foo @(x,2)", "Foo @(x,2)", "person_job", None),
    ],
)
def test_node_keys(key: str, label: str, node_type: str, position: Vec2 | None) -> None:
    """A key holds the name, optionally a kind and a place; brackets that are neither belong to the name."""
    node = load_text(f"version: readable\nnodes:\n- First: {{}}\n- '{key}': {{}}\n").nodes[1]
    assert (node.label, node.type, node.position) == (label, node_type, position)


@pytest.mark.parametrize(
    ("entry", "node_type"),
    [
        ("Start~1: {}", "start"),
        ("X: {trigger_mode: manual}", "start"),
        ("X: {custom_data: {}}", "start"),
        ("X: {person: P}", "person_job"),
        ("X: {default_prompt: p}", "person_job"),
        ("X: {max_iteration: 1}", "person_job"),
        ("X: {condition_type: llm_decision, person: P}", "condition"),
        ("X: {expression: a > 1}", "condition"),
        ("Used: {}", "condition"),
        ("X: {code: a}", "code_job"),
        ("X: {code_type: bash}", "code_job"),
        ("X: {operation: read, sub_type: file}", "db"),
        ("X: {save_to_file: true}", "endpoint"),
        ("End: {}", "endpoint"),
        ("endpoint~2: {}", "endpoint"),
        ("X: {url: u, method: GET}", "api_job"),
        ("X: {diagram_name: d}", "sub_diagram"),
        ("X: {template_path: t}", "template_job"),
        ("X: {template_content: t}", "template_job"),
        ("X: {hook_type: shell}", "hook"),
        ("X: {prompt: p}", "user_response"),
        ("X: {prompt: p, type: person_job}", "person_job"),
        ("X: {}", "person_job"),
        ("- {label: X, code: a}", "code_job"),
        ("X", "person_job"),
    ],
)
def test_types_by_evidence(entry: str, node_type: str) -> None:
    """Without a type, properties, label and use in the flow tell it."""
    entry = entry.removeprefix("- ")
    flow = "flow:\n- Used_condtrue: First\n" if entry.startswith("Used") else ""
    diagram = load_text(f"version: readable\nnodes:\n- First: {{}}\n- {entry}\n{flow}")
    assert [n.type for n in diagram.nodes] == ["start", node_type]
    assert codes(diagram) == []


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        ("- Start -> A", [("Start", "default", "A", "default", None, None)]),
        ("- Start: A", [("Start", "default", "A", "default", None, None)]),
        ("- Start -> My Check -> A", [("Start", "default", "My Check", "default", None, None), ("My Check", "default", "A", "default", None, None)]),
        ("- Start: A_first (raw_text)(topic)", [("Start", "default", "A", "first", "raw_text", "topic")]),
        ("- Start: A (topic) (json)", [("Start", "default", "A", "default", "object", "topic")]),
        ("- Start: A(variable)", [("Start", "default", "A", "default", "variable", None)]),
        ("- Start: A (generic)", [("Start", "default", "A", "default", None, "generic")]),
        ("- Start: B - C (d) (x)", [("Start", "default", "B - C (d)", "default", None, "x")]),
        ("- Start: B - C (d)", [("Start", "default", "B - C (d)", "default", None, None)]),
        ("- My Check_condtrue: A (object)", [("My Check", "condtrue", "A", "default", "object", None)]),
        ("- My_Check_condfalse: A", [("My Check", "condfalse", "A", "default", None, None)]),
        ("- My Check[condtrue]: A[first]", [("My Check", "condtrue", "A", "first", None, None)]),
        ("- Start: to \"A\"", [("Start", "default", "A", "default", None, None)]),
        ("- Start: to \"A\" in \"_first\" as \"raw_text\" naming \"topic\"", [("Start", "default", "A", "first", "raw_text", "topic")]),
        ("- Start: naming \"v\" as \"json\" in \"first\" to \"A\"", [("Start", "default", "A", "first", "object", "v")]),
        ("- My Check_condtrue: from \"_condfalse\" to \"A\"", [("My Check", "condfalse", "A", "default", None, None)]),
        ("- Start: to \"with \\\"quotes\\\"\"", [("Start", "default", 'with "quotes"', "default", None, None)]),
        ("- Start: to \"A\" as \"raw_text\" - to \"B - C (d)\" - to \"My Check\"",
         [("Start", "default", "A", "default", "raw_text", None), ("Start", "default", "B - C (d)", "default", None, None), ("Start", "default", "My Check", "default", None, None)]),
        ("- Start: A (x) - My Check", [("Start", "default", "A", "default", None, "x"), ("Start", "default", "My Check", "default", None, None)]),
        ("- Start:\n  - A\n  - to \"My Check\"", [("Start", "default", "A", "default", None, None), ("Start", "default", "My Check", "default", None, None)]),
        ("- My Check: {from: _condtrue, to: A, in: _first, as: raw_text, naming: topic}", [("My Check", "condtrue", "A", "first", "raw_text", "topic")]),
        ("- My Check:\n  - {from: 'true', to: A, content_type: object, label: v}", [("My Check", "condtrue", "A", "default", "object", "v")]),
        ("- {Start: A, A: My Check}", [("Start", "default", "A", "default", None, None), ("A", "default", "My Check", "default", None, None)]),
    ],
)  # fmt: skip
def test_flow(flow: str, expected: list[tuple[Any, ...]]) -> None:
    """Every form of a flow item gives its arrows, each with an id of its own, without a warning."""
    diagram = readable(flow)
    assert arrows(diagram) == expected
    assert len({a.id for a in diagram.arrows}) == len(expected)
    assert codes(diagram) == []


@pytest.mark.parametrize(
    ("flow", "code"),
    [
        ("- Start: Nowhere", "unknown-node"),
        ("- Nowhere: A", "unknown-node"),
        ("- Start: to \"A\" in \"_frist\"", "unknown-handle"),
        ("- Start: to \"A\" as \"raw\"", "unknown-content-type"),
        ("- Start: as \"raw_text\"", "unknown-node"),
        ("- Start: {in: first}", "missing-end"),
        ("- Start:", "bad-flow"),
        ("- Start and A", "bad-flow"),
        ("- Start: to \"A\" with joy", "bad-flow"),
        ("- Start: A (a)(b)", "bad-flow"),
        ("- Start: {to: A, sa: raw_text}", "unknown-property"),
        ("-", "stray-item"),
    ],
)  # fmt: skip
def test_mistakes_in_the_flow_are_found_once(flow: str, code: str) -> None:
    """Each mistake is one finding with its line and a next action."""
    (found,) = readable(flow).diagnostics
    assert found.code == code
    assert found.line == 9
    assert found.hint


def test_labels_that_yaml_takes_for_something_else() -> None:
    """A destination `No` or `1.0` is the node of that name."""
    diagram = load_text("version: readable\nnodes:\n- Yes: {}\n- No: {}\n- 1.0: {}\nflow:\n- Yes: No\n- No: [1.0, Yes]\n")
    assert [a[2] for a in arrows(diagram)] == ["No", "1.0", "Yes"]


def test_persons_by_id_or_label_from_list_or_mapping() -> None:
    """The id is person_<name>; nodes may use either."""
    for people in ("- P: {service: openai, model: m}", "  P: {service: openai, model: m}"):
        diagram = load_text(
            f"version: readable\npersons:\n{people}\nnodes:\n- A: {{person: P}}\n- B: {{person: person_P}}\nflow: []\n"
        )
        assert diagram.persons == (DomainPerson("person_P", "P", LLMConfig("openai", "m")),)
        assert [n.data["person"] for n in diagram.nodes] == ["person_P", "person_P"]


def test_every_list_position_counts_for_ids() -> None:
    """A stray null takes a number, other than in light."""
    diagram = load_text("version: readable\nnodes:\n- A: {}\n-\n- B: {}\n- B: {}\nflow:\n- A: B~1\n")
    assert [(n.id, n.label) for n in diagram.nodes] == [("node_0", "A"), ("node_2", "B"), ("node_3", "B~1")]
    assert diagram.arrows[0].target == "node_3"
    assert codes(diagram) == ["stray-item", "duplicate-label"]


def test_what_is_written() -> None:
    """Types always, places where known, arrows in words and in order, mappings where words do not suffice, metadata."""
    model = DomainDiagram(
        nodes=(
            DomainNode("node_0", "start", "S", Vec2(0, 0)),
            DomainNode("node_1", "condition", "C", None, {"expression": "x"}),
            DomainNode("node_2", "person_job", 'J "q"', None, {"person": "p", "memorize_to": ""}),
            DomainNode("e", "endpoint", "E [hook]", Vec2(1.6, 2), {"file_name": "f"}),
        ),
        arrows=(
            DomainArrow("arrow_0", "node_0", "node_1", content_type="raw_text"),
            DomainArrow("arrow_1", "node_1", "node_2", "condtrue", "first", label="v"),
            DomainArrow("arrow_2", "node_1", "e", "condfalse", content_type="generic"),
            DomainArrow("arrow_3", "node_0", "e", execution_priority=2),
        ),
        persons=(DomainPerson("p", "P", LLMConfig("local")),),
    )
    diagram = from_model(model, name="N", format="readable")
    assert diagram.text == (
        "version: readable\nname: N\npersons:\n- P:\n    service: local\n    id: p\nnodes:\n- S @(0,0):\n    type: start\n"
        '- C:\n    type: condition\n    expression: x\n- J "q":\n    type: person_job\n    person: P\n'
        "- E [hook] @(2,2):\n    type: endpoint\n    label: E [hook]\n    id: e\n    file_name: f\n"
        'flow:\n- S: to "C" as "raw_text"\n- C:\n  - {from: _condtrue, to: J "q", in: _first, naming: v}\n'
        '  - from "_condfalse" to "E [hook]" as "generic"\n- S: {to: \'E [hook]\', execution_priority: 2}\n'
    )
    assert diagram.model.arrows == model.arrows
    assert diagram.persons == model.persons
