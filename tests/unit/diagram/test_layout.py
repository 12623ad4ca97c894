"""Where boxes and arrows of a drawing stand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram.layout import Layout, place
from dipeo_nb.diagram.routing import Box, Point, route
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, Vec2
from tests.support.examples import examples
from tests.support.waiting import cpu_within


def diagram(
    count: int, ends: Sequence[tuple[int, int]], positions: Sequence[tuple[float, float]] | None = None, label: str = ""
) -> DomainDiagram:
    """*count* nodes `n0` …, arrows `a0` … between them."""
    kinds = ("person_job", "condition", "code_job", "db")
    nodes = tuple(
        DomainNode(f"n{i}", kinds[i % 4], f"Node number {i}", Vec2(*positions[i]) if positions else None) for i in range(count)
    )
    arrows = tuple(DomainArrow(f"a{k}", f"n{s}", f"n{t}", label=label or None) for k, (s, t) in enumerate(ends))
    return DomainDiagram(nodes, arrows)


def overlapping(layout: Layout) -> list[tuple[str, str]]:
    return [
        (a, b)
        for (a, p), (b, q) in itertools.combinations(layout.nodes.items(), 2)
        if p.x < q.right and q.x < p.right and p.y < q.bottom and q.y < p.bottom
    ]


def check(layout: Layout, model: DomainDiagram) -> None:
    """What every layout must keep to."""
    assert set(layout.nodes) == {n.id for n in model.nodes}
    together = [arrow for bundle in layout.bundles.values() for arrow in bundle]
    assert {*layout.edges, *together} == {a.id for a in model.arrows}
    assert len(layout.edges) == len(model.arrows) - len(together) + len(layout.bundles)
    assert overlapping(layout) == []
    for box in layout.nodes.values():
        assert box.x >= 0
        assert box.y >= 0
        assert box.right <= layout.width
        assert box.bottom <= layout.height
    for arrow in model.arrows:
        if arrow.id not in layout.edges:
            continue
        points = layout.edges[arrow.id]
        assert len(points) >= 2
        for point, box in ((points[0], layout.nodes[arrow.source]), (points[-1], layout.nodes[arrow.target])):
            assert touches(point, box), (arrow, point, box)


def touches(point: Point, box: Box) -> bool:
    """On the border of a box, or a little inside it where the outline is round."""
    inside = box.x - 0.5 <= point[0] <= box.right + 0.5 and box.y - 0.5 <= point[1] <= box.bottom + 0.5
    far_in = box.x + 35 < point[0] < box.right - 35 and box.y + 5 < point[1] < box.bottom - 5
    return inside and not far_in


graphs = st.integers(1, 14).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=24))
)
coordinates = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0, 100.0, 200.0, 1e300, -1e300])


@examples(150)
@given(graphs)
def test_any_graph_is_laid_out(graph: tuple[int, list[tuple[int, int]]]) -> None:
    """Loops, self-loops, doubled arrows and loose parts: boxes apart, every arrow from border to border."""
    model = diagram(*graph, label="variable")
    check(place(model), model)


@examples(150)
@given(graphs, st.lists(st.tuples(coordinates, coordinates), min_size=14, max_size=14))
def test_any_positions_are_survived(graph: tuple[int, list[tuple[int, int]]], positions: list[tuple[float, float]]) -> None:
    """Wherever a file puts its nodes, boxes end up apart and the drawing stays of a readable size."""
    model = diagram(*graph, positions)
    layout = place(model)
    check(layout, model)
    assert layout.width < 600 * len(layout.nodes) + 1500
    assert layout.height < 600 * len(layout.nodes) + 1500


def test_given_positions_keep_their_order() -> None:
    """What is left of, or above, something in the file is so in the drawing; equal lines stay equal."""
    spots = [(0, 0), (230, 0), (460, 0), (460, 90), (0, 300)]
    boxes = place(diagram(5, [(0, 1), (1, 2), (2, 3), (3, 4)], spots, label="a_longer_name")).nodes
    assert boxes["n0"].right < boxes["n1"].x
    assert boxes["n1"].right < boxes["n2"].x
    assert boxes["n2"].x == boxes["n3"].x
    assert boxes["n0"].x == boxes["n4"].x
    assert boxes["n0"].y == boxes["n1"].y == boxes["n2"].y
    assert boxes["n2"].bottom < boxes["n3"].y < boxes["n4"].y


def test_touching_boxes_are_moved_apart_for_their_label() -> None:
    """Between two neighbours there is room for the words on their arrow."""
    layout = place(diagram(2, [(0, 1)], [(0, 0), (205, 0)], label="csv_content"))
    box, _, words = layout.labels["a0"]
    assert words == "csv_content"
    assert layout.nodes["n0"].right < box.x
    assert box.right < layout.nodes["n1"].x


@pytest.mark.parametrize("spot", [(0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_senseless_positions_are_ignored(spot: tuple[float, float]) -> None:
    """All nodes on one spot, or nowhere, are laid out as if the file gave no positions."""
    chain = [(0, 1), (1, 2)]
    assert place(diagram(3, chain, [spot] * 3)) == place(diagram(3, chain))


def test_layers_run_from_left_to_right() -> None:
    """Without positions a chain runs to the right, and its loop is marked."""
    layout = place(diagram(4, [(0, 1), (1, 2), (2, 1), (2, 3)]))
    lefts = [layout.nodes[f"n{i}"].x for i in range(4)]
    assert lefts == sorted(lefts)
    assert layout.back == {"a2"}


def test_long_chains_are_folded() -> None:
    """Forty nodes in a row make a drawing of several rows, small graph or large."""
    for count in (40, 400):
        layout = place(diagram(count, [(i, i + 1) for i in range(count - 1)]))
        assert layout.width / layout.height < 8
        assert overlapping(layout) == []


def test_arrows_keep_clear_of_boxes() -> None:
    """An arrow between boxes that stand in a row does not run through those between them."""
    boxes = [Box(250.0 * i, 0, 160, 52) for i in range(5)]
    (points,) = route(boxes, [(0, 4)])
    for (px, py), (qx, qy) in itertools.pairwise(points):
        assert px == qx or py == qy
        for box in boxes[1:4]:
            assert max(px, qx) <= box.x or min(px, qx) >= box.right or max(py, qy) <= box.y or min(py, qy) >= box.bottom


def test_two_arrows_between_the_same_boxes_are_apart() -> None:
    """A condition's two branches to one node are two lines."""
    layout = place(diagram(2, [(0, 1), (0, 1)], [(0, 0), (400, 0)]))
    assert layout.edges["a0"] != layout.edges["a1"]


@pytest.mark.parametrize(("source", "most"), [(0, 8), (1, 3)])
def test_many_arrows_between_the_same_boxes_are_one_line(source: int, most: int) -> None:
    """More than can be told apart are drawn as one, with their number; up to then each is drawn."""
    for count in (most, most + 1, 1000):
        layout = place(diagram(2, [(0, 1), *[(source, 1)] * (count - (source == 0))], label="name"))
        lines = {i for i in layout.edges if source == 0 or i != "a0"}
        if count == most:
            assert len(lines) == most
            assert not layout.bundles
        else:
            (first,) = lines
            assert len(layout.bundles[first]) == count
            assert layout.labels[first][2] == f"{count:,} arrows"


def test_labels_stand_clear_of_boxes_and_each_other() -> None:
    """No two labels meet, and none covers a box."""
    model = diagram(6, [(0, 1), (1, 2), (2, 3), (3, 1), (2, 4), (4, 5), (5, 5)], label="input_data")
    layout = place(model)
    placed = [box for box, _, _ in layout.labels.values()]
    assert len(placed) == 7
    for a, b in itertools.combinations([*placed, *layout.nodes.values()], 2):
        assert a.x >= b.right or b.x >= a.right or a.y >= b.bottom or b.y >= a.bottom


def test_arrows_to_nowhere_and_doubled_ids_are_left_out() -> None:
    """A broken diagram is still drawn."""
    node = DomainNode("n0", "start", "Start")
    model = DomainDiagram((node, node), (DomainArrow("a0", "n0", "gone"), DomainArrow("a1", "gone", "n0")))
    layout = place(model)
    assert list(layout.nodes) == ["n0"]
    assert layout.edges == {}


def test_an_empty_diagram_has_a_size() -> None:
    """No nodes: a small empty card."""
    layout = place(DomainDiagram())
    assert layout.nodes == {}
    assert layout.width > 0


def test_the_same_diagram_gives_the_same_layout() -> None:
    """Two layouts of one diagram are equal, small or large."""
    for count in (12, 300):
        ends = [(i // 2, i) for i in range(1, count)] + [(count - 1, 0), (3, 3)]
        assert place(diagram(count, ends)) == place(diagram(count, ends))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "degree"), [(500, 1), (2000, 1), (500, 4)])
def test_large_graphs_take_bounded_time(count: int, degree: int) -> None:
    """Hundreds of nodes are placed, dense ones too, in a time that a person waits for (20 s would be a wrong order)."""
    ends = [((i * 7919 + d * 104729) % count, (i * 31 + d) % count) for i in range(count) for d in range(degree)]
    with cpu_within(20):
        layout = place(diagram(count, ends))
    assert len(layout.nodes) == count
