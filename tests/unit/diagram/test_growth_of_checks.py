"""Checks of large diagrams grow with the diagram: how often they look at things is counted, not how long they take."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dipeo_nb.diagram.document import Diagram, load
from dipeo_nb.domain.diagnostics import Diagnostic
from tests.support.line_steps import steps

PERSON = "- {{label: {0}, type: person_job, person: Ada, default_prompt: Hello, max_iteration: 2}}"
CHECK = "- {{label: {0}, type: condition, condition_type: detect_max_iterations}}"


def diagram(nodes: list[str], arrows: list[str]) -> Diagram:
    head = ["version: light", "persons: {Ada: {service: openai, model: gpt-5}}", "nodes:", "- {label: Start, type: start}"]
    return load("\n".join([*head, *nodes, "connections:", *(f"- {{{arrow}}}" for arrow in arrows)]) + "\n")


def loops(n: int, *, backwards: bool = False) -> Diagram:
    nodes: list[str] = []
    arrows: list[str] = []
    last = "Start"
    for i in range(n):
        nodes += [PERSON.format(f"A{i}"), CHECK.format(f"C{i}")]
        arrows += [f"from: {last}, to: A{i}", f"from: A{i}, to: C{i}", f"from: C{i}_condfalse, to: A{i}"]
        last = f"C{i}_condtrue"
    return diagram(nodes, arrows[::-1] if backwards else arrows)


def following(n: int) -> Diagram:
    """Loops, each with a node behind it that also takes what a node inside gives."""
    nodes: list[str] = []
    arrows: list[str] = []
    last = "Start"
    for i in range(n):
        nodes += [PERSON.format(f"A{i}"), CHECK.format(f"C{i}"), f"- {{label: F{i}, type: template_job, template_content: x}}"]
        arrows += [f"from: {last}, to: A{i}", f"from: A{i}, to: C{i}", f"from: C{i}_condfalse, to: A{i}"]
        arrows += [f"from: A{i}, to: F{i}", f"from: C{i}_condtrue, to: F{i}, label: z"]
        last = f"F{i}"
    return diagram(nodes, arrows)


def unlooped(n: int) -> Diagram:
    """Conditions that watch limits, outside all loops."""
    nodes: list[str] = []
    arrows = ["from: Start, to: A0"]
    for i in range(n):
        nodes += [PERSON.format(f"A{i}"), CHECK.format(f"C{i}")]
        arrows += [f"from: A{i}, to: C{i}", *([f"from: C{i}_condtrue, to: A{i + 1}"] if i < n - 1 else [])]
    return diagram(nodes, arrows)


def chain(n: int, node: Callable[[int], str]) -> Diagram:
    nodes = [f"- {{label: N{i}, {node(i)}}}" for i in range(n)]
    return diagram(nodes, ["from: Start, to: N0", *(f"from: N{i}, to: N{i + 1}" for i in range(n - 1))])


def batches(n: int) -> Diagram:
    kinds = (
        "type: code_job, code: 'xs = [1]'",
        "type: person_job, person: Ada, default_prompt: '{{item}}', batch: true, batch_input_key: xs",
    )
    return chain(n, lambda i: kinds[i % 2])


def unknown_names(n: int) -> Diagram:
    return chain(n, lambda i: f"type: template_job, template_content: '{{{{nowhere{i}}}}}'")


def conditions(n: int) -> Diagram:
    """A ladder of conditions, both of whose branches lead to the next one, so that there are 2**n ways back."""
    nodes = [f"- {{label: C{i}, type: condition, expression: 'nowhere{i} == 1'}}" for i in range(n)]
    arrows = ["from: Start, to: C0"]
    arrows += [f"from: C{i}_{branch}, to: C{i + 1}" for i in range(n - 1) for branch in ("condtrue", "condfalse")]
    return diagram(nodes, arrows)


FAMILIES: dict[str, Callable[[int], Diagram]] = {
    "loops": loops,
    "loops, last arrow first": lambda n: loops(n, backwards=True),
    "nodes behind loops": following,
    "conditions outside loops": unlooped,
    "batches": batches,
    "unknown names": unknown_names,
    "conditions in a row": conditions,
}


def test_table() -> None:
    assert len(FAMILIES) == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_four_times_the_nodes_take_four_times_the_steps(family: str) -> None:
    make = FAMILIES[family]
    make(4).check()  # what is made once for all diagrams
    small, large = make(60), make(240)
    few, many = steps(small.check), steps(large.check)
    assert many < 4.8 * few, (few, many)


def test_a_long_row_of_conditions_is_checked() -> None:
    """As long as no recursion goes."""
    found = conditions(1_100).check()
    assert sum(one.code == "unknown-name" for one in found) == 1_100


def by_code(found: tuple[Diagnostic, ...], code: str) -> list[Diagnostic]:
    return [one for one in found if one.code == code]


def test_a_message_names_ten_nodes() -> None:
    nodes = [f"- {{label: P{i}, type: person_job, person: Ada, default_prompt: Hello}}" for i in range(13)]
    arrows = [
        "from: Start, to: P0",
        *(f"from: P{i}, to: P{i + 1}" for i in range(12)),
        "from: P12, to: C",
        "from: C_condfalse, to: P0",
    ]
    (one,) = by_code(diagram([*nodes, CHECK.format("C")], arrows).check(), "no-limit")
    assert "'P9' and 3 more have run" in one.message
    assert "P10" not in one.message


def test_a_chain_of_many_nodes_names_nobody_to_wait_for() -> None:
    plan = chain(50, lambda i: "type: template_job, template_content: x").compile()
    assert [node.awaited.sources for node in plan.nodes] == [0] * 51
    joined = diagram(
        [f"- {{label: {name}, type: template_job, template_content: x}}" for name in ("A", "B", "Join")],
        ["from: Start, to: A", "from: Start, to: B", "from: A, to: Join, label: a", "from: B, to: Join, label: b"],
    ).compile()
    assert joined.nodes[3].awaited.sources == 0b111


def test_ways_in_nested_loops_grow_with_the_loops_around_a_node() -> None:
    """A condition waits for each loop around it; what is recorded of one of these does not grow with the number of them."""

    def size(depth: int) -> int:
        nodes = [PERSON.format(f"A{i}") for i in range(depth)] + [CHECK.format(f"C{i}") for i in range(depth)]
        inwards = [f"from: {f'A{i - 1}' if i else 'Start'}, to: A{i}" for i in range(depth)]
        outwards = [f"from: {f'C{i + 1}_condtrue' if i < depth - 1 else f'A{i}'}, to: C{i}" for i in range(depth)]
        back = [f"from: C{i}_condfalse, to: A{i}" for i in range(depth)]
        plan = diagram(nodes, [*inwards, *outwards, *back]).compile()
        awaited = [one for node in plan.nodes for one in (node.awaited, node.first_awaited, *node.gathers.values())]
        return sum(3 + len(rest) for one in awaited for _, _, rest, _ in one.ways)

    few, many = size(12), size(24)
    assert few > 12 * 12
    assert many < 4.2 * few, (few, many)
