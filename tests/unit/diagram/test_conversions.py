"""Conversions between the formats: whatever names and ids are, every reference means the same as before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram import formats, load_text
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.formats import FORMATS
from dipeo_nb.diagram.person_fields import resolve_persons
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainHandle, DomainNode, DomainPerson, LLMConfig
from dipeo_nb.domain.enums import HandleDirection
from dipeo_nb.domain.nodes import NODE_SPECS
from dipeo_nb.errors import InvalidDiagramError, ValidationError
from tests.support.examples import examples

CLASH = """
version: light
persons:
  Ann: {id: Bob, service: openai, model: of-ann}
  Bob: {id: p2, service: ollama, model: of-bob}
nodes:
- {label: Start, type: start}
- {label: Ask, type: person_job, person: p2, default_prompt: hi}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Ask}
- {from: Ask, to: End}
"""


def converted(diagram: Diagram, *chain: str) -> Diagram:
    for name in chain:
        diagram = load_text(formats.write(diagram.model, name), format=name)
    return diagram


def asked(diagram: Diagram, label: str = "Ask") -> str | None:
    """The model that a node asks."""
    plan = diagram.compile()
    spec: Any = plan.node(label).spec
    return plan.persons[spec.person].llm.model


# ---------------------------------------------------------------------------------------------------- persons


@pytest.mark.parametrize("chain", [(a, b) for a in FORMATS for b in FORMATS], ids="-".join)
@pytest.mark.parametrize(("reference", "model"), [("p2", "of-bob"), ("Bob", "of-ann"), ("Ann", "of-ann")])
def test_a_label_that_is_the_id_of_another_person(reference: str, model: str, chain: tuple[str, ...]) -> None:
    """The id counts, before and after any conversion, and a warning says so."""
    diagram = load_text(CLASH.replace("person: p2", f"person: {reference}"))
    assert asked(diagram) == asked(converted(diagram, *chain)) == model
    clashes = [d for d in converted(diagram, *chain).check() if d.code == "person-clash"]
    assert [d.severity.value for d in clashes] == ["warning"]


def test_a_label_that_two_persons_share_is_refused_where_it_is_used() -> None:
    """Such a reference names both ids; a reference by id is fine, also after conversions."""
    text = CLASH.replace("  Ann: {id: Bob,", "  Ann: {id: p1, label: Bob,")
    for diagram in (load_text(text), converted(load_text(text), "native", "readable", "light")):
        assert asked(diagram) == "of-bob"
        wrong = load_text(diagram.text.replace("person: p2", "person: Bob"))
        (error,) = [d for d in wrong.check() if d.severity == "error"]
        assert error.code == "ambiguous-person"
        assert error.hint == "Name the id of the one you mean: p1, p2."


def test_persons_keep_their_ids() -> None:
    """native → light → native changes no id, and light writes one only where its reader would make another."""
    text = '{"nodes": [], "arrows": [], "persons": {"person_Judge": {"label": "Judge"}, "Ann": {"label": "Ann"}}}'
    diagram = load_text(text)
    assert [p.id for p in converted(diagram, "light", "native").persons] == ["person_Judge", "Ann"]
    light, readable = (converted(diagram, name).text for name in ("light", "readable"))
    assert "id: person_Judge" in light
    assert "id: Ann" not in light
    assert "id: person_Judge" not in readable
    assert "id: Ann" in readable


def test_a_key_with_a_label_is_the_id() -> None:
    """Nodes may name the key, and the label."""
    for reference in ("judge", "The Judge", "person_The Judge"):
        text = CLASH.replace("Bob: {id: p2", "judge: {label: The Judge").replace("person: p2", f"person: {reference}")
        assert asked(load_text(text)) == "of-bob"


def test_two_persons_of_one_id_are_refused_and_both_written() -> None:
    """A reference to that id would be ambiguous."""
    diagram = load_text(CLASH.replace("id: Bob", "id: p2"))
    for one in (diagram, converted(diagram, "light"), converted(diagram, "readable", "native", "light")):
        assert [p.label for p in one.persons] == ["Ann", "Bob"]
        assert [d.code for d in one.check() if d.severity == "error"] == ["duplicate-id"]


def test_editing_never_makes_a_name_ambiguous() -> None:
    """A name that means two things is refused with the ids, and a new label is neither a label nor an id of another."""
    diagram = load_text(CLASH)
    with pytest.raises(ValidationError, match="may mean 2 of the persons: those with the ids 'Bob', 'p2'"):
        diagram.set("persons.Bob.model", "x")
    assert diagram.set("persons.p2.model", "x").persons[1].llm.model == "x"
    for path, label in (("persons.p2.label", "Bob"), ("nodes.Ask.label", "node_0"), ("nodes.Ask.label", "Start")):
        with pytest.raises(ValidationError, match="already the label or id"):
            diagram.set(path, label)


def test_a_node_without_an_id_never_takes_that_of_another() -> None:
    """Numbers that other nodes or arrows have as ids are left to them."""
    diagram = load_text(
        "nodes:\n- {label: A, type: start, id: node_1}\n- {label: B, type: endpoint}\n"
        "connections:\n- {from: A, to: B, id: arrow_1}\n- {from: A, to: B, label: x}\n"
    )
    assert [n.id for n in diagram.nodes] == ["node_1", "node_1_"]
    assert [a.id for a in diagram.arrows] == ["arrow_1", "arrow_1_"]
    for name in FORMATS:
        assert converted(diagram, name).model.arrows == diagram.arrows


# ------------------------------------------------------------------------------------------- any diagram at all

NAMES = [
    "A", "a", "B", "A[first]", "A[condtrue]", "A_first", "A_first_input", "A__first", "A_default_output", "A[ condtrue]",
    "B[condtrue]", "node_0", "node_1", "person_A", "person_person_A", "A~1", 'to "A"', 'to "B" in "_first"', "A -> B", "A - B",
    "A (raw_text)", "A [hook]", "A @(1,2)", "é", "e\u0301", "İ", "ß", "null", "1.0", "007", "yes", "~", "a, b", "x: y", "- z", "[A]",
    "{a}", "# c", "'q'", 'say "hi"', "\\", "😀", "Ａ", "id", "label", "__typename", "start", "{{ x }}", "A\u00a0B", "A B", "A_B",
]  # fmt: skip
name = st.sampled_from(NAMES)
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "text", "true", "1", "null", "a\nb", " a"])


@st.composite
def diagrams(draw: st.DrawFn) -> DomainDiagram:
    """Persons, nodes and arrows whose ids and labels are each other's."""
    people = [
        DomainPerson(person_id, draw(name), LLMConfig(draw(st.sampled_from(["openai", "local"])), f"model of {person_id}"))
        for person_id in draw(st.lists(name, max_size=4, unique=True))
    ]
    called = [text for p in people for text in (p.id, p.label, f"person_{p.label}")] or ["A"]
    ids = draw(st.lists(name, min_size=2, max_size=6, unique=True))
    labels = draw(st.lists(name, min_size=len(ids), max_size=len(ids), unique=True))
    nodes: list[DomainNode] = []
    for index, (node_id, label) in enumerate(zip(ids, labels, strict=True)):
        kind = "start" if not index else draw(st.sampled_from(["person_job", "condition", "code_job", "endpoint", "hook"]))
        data: dict[str, Any] = {"metadata": {"k": draw(scalars)}} if draw(st.booleans()) else {}
        match kind:
            case "person_job":
                data |= {"person": draw(st.sampled_from(called)), "default_prompt": "hi"}
            case "condition":
                data |= draw(
                    st.sampled_from(
                        [
                            {"expression": "1 > 0"},
                            {"condition_type": "check_nodes_executed", "node_indices": [draw(st.sampled_from(ids + labels))]},
                            {"condition_type": "llm_decision", "person": draw(st.sampled_from(called)), "judge_by": "?"},
                        ]
                    )
                )
            case "code_job":
                data |= {"code": "1"}
            case "hook":
                data |= {"command": "true"}
            case _:
                pass
        nodes.append(DomainNode(node_id, kind, label, None, data))
    arrows: list[DomainArrow] = []
    for arrow_id in draw(st.lists(name, max_size=6, unique=True)):
        source = draw(st.sampled_from([n for n in nodes if n.type != "endpoint"]))
        target = draw(st.sampled_from([n for n in nodes if n.type != "start"]))
        meta, into = NODE_SPECS[source.type].META, NODE_SPECS[target.type].META
        arrows.append(
            DomainArrow(
                arrow_id,
                source.id,
                target.id,
                draw(st.sampled_from([*meta.outputs * 3, "default", "condtrue"])),  # also such as the node does not have
                draw(st.sampled_from([*into.inputs * 3, "first"])),
                draw(st.none() | name),
                draw(st.sampled_from([None, "raw_text", "object"])),
                draw(st.sampled_from([0, 2])),
                draw(st.sampled_from([{}, {"k": [1, None]}, {"branch": "else"}])),
            )
        )
    return DomainDiagram(resolve_persons(nodes, people), tuple(arrows), tuple(people))


def findings(diagram: Diagram) -> list[tuple[str, ...]]:
    """What is said about a diagram, apart from the places."""
    return sorted((d.severity.value, d.code, d.message, d.hint or "", d.node or "", d.field or "") for d in diagram.check())


def meaning(diagram: Diagram) -> dict[str, Any]:
    """All that a run would notice."""
    try:
        plan = diagram.compile()
    except InvalidDiagramError:
        compiled = None
    else:
        compiled = (plan.nodes, plan.edges, dict(plan.persons))
    return {
        "nodes": [replace(n, position=None) for n in diagram.nodes],
        "arrows": diagram.arrows,
        "persons": diagram.persons,
        "plan": compiled,
    }


@examples(120)
@given(model=diagrams(), chain=st.lists(st.sampled_from(sorted(FORMATS)), min_size=1, max_size=4))
def test_any_chain_of_formats_keeps_every_reference(model: DomainDiagram, chain: list[str]) -> None:
    """Nodes, arrows, persons, the plan and the findings are the same after any chain of conversions."""
    diagram = Diagram(model)
    there, native = converted(diagram, *chain), converted(diagram, "native")
    assert meaning(there) == meaning(native) == meaning(diagram)
    assert findings(there) == findings(native)


def test_handles_with_underscores_are_told_apart_by_the_nodes() -> None:
    """A handle that a file lists may hold underscores; the longest id that exists is the node's."""
    handle = DomainHandle("a_my_out_output", "a", "my_out", HandleDirection.OUTPUT)
    model = DomainDiagram(
        (DomainNode("a", "hook", "A"), DomainNode("b", "endpoint", "B")),
        (DomainArrow("x", "a", "b", "my_out"),),
        (),
        None,
        (handle,),
    )
    for name in FORMATS:
        assert converted(Diagram(model), name).arrows == model.arrows
