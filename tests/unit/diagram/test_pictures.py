"""Nothing lies on anything else in a drawing, and its text can be read in a notebook's cell."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from dipeo_nb.diagram.document import load
from dipeo_nb.diagram.drawing import draw, overview
from dipeo_nb.diagram.labels import NodeLook, clean, measure
from dipeo_nb.diagram.layout import place
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, Vec2
from dipeo_nb.domain.enums import Status
from tests.support import svg_reader as pictures
from tests.support.graph_shapes import SHAPES, of_shape

ROOT = Path(__file__).parents[3]
SMALLEST = {700: 9.5, 820: 11.0, 964: 11.0}
"""Width of a notebook's cell (small screens beside a file browser, middling ones, large ones) → pixels of the smallest text."""


LOOPS = {
    "two nodes": "s > draft; draft > ?ok:draft; ok- > draft:again; ok+ > e",
    "three nodes": "s > a; a > b; b > ?c; c- > a:again; c+ > e",
    "one in the other": "s > a; a > b; b > ?c; c- > b:again; c+ > ?d; d- > a:from the start; d+ > e",
    "across each other": "s > a; a > b; b > ?c; c- > a; c+ > ?d; d- > b; d+ > e",
    "beside each other": "s > a; s > b; s > c; a > ?x; b > ?y; c > ?z; x- > a:more; y- > b:more; z- > c:more; x+ > j; y+ > j; z+ > j",
    "long": "s > a; a > b; b > c; c > d; d > f; f > g; g > ?h; h- > a:again; h- > c; h+ > e",
    "of its own": "s > a; a > a:retry; a > a; a > b; b > e",
    "crossing": "s > c; s > d; t > c; t > d; c > e; d > e",
}
BRANCHES = {
    "four": "s > ?r; r > a:A; r > b:B; r > c:C; r > d:D; a > j; b > j; c > j; d > j; j > e",
    "ten": ";".join(f"s > w{i}; w{i} > e:part {i}" for i in range(10)),
    "a chain": ";".join(f"a{i} > a{i + 1}" for i in range(39)),
    "past others": "s > a; a > b; b > c; c > e; s > c:topic; s > e; a > c:draft",
    "parallel": "; ".join(f"s > a:name {i}" for i in range(8)) + "; a > e",
    "loose": "s > a; x > y; y > x; p > q; q > r; r > z",
}


def random_diagram(seed: int) -> DomainDiagram:
    """Two to forty nodes of any kind, up to two arrows for each node, near and far, back and to themselves."""
    rng = random.Random(seed)
    count, density, reach = rng.randint(2, 40), rng.choice([0.5, 1, 1.3, 1.6, 2]), rng.choice([2, 5, 40])
    titles = ("Node", "A longer label that needs two lines", "Überprüfung", "x")
    kinds = ("person_job", "condition", "code_job", "db", "start", "endpoint")
    words = ("topic", "a rather long name of a variable", "x", None, None, None)
    placed = rng.random() < 0.2
    nodes = tuple(
        DomainNode(
            f"n{i}",
            rng.choice(kinds),
            rng.choice(titles),
            Vec2(rng.randint(0, 5) * 150.0, rng.randint(0, 5) * 100.0) if placed else None,
        )
        for i in range(count)
    )
    arrows: list[DomainArrow] = []
    for k in range(int(count * density)):
        source = rng.randrange(count)
        target = max(0, min(count - 1, source + rng.randint(-reach // 2, reach)))
        handle = rng.choice(["default", "condtrue", "condfalse"])
        arrows.append(DomainArrow(f"a{k}", f"n{source}", f"n{target}", handle, label=rng.choice(words)))
    return DomainDiagram(nodes, tuple(arrows))


def all_diagrams() -> dict[str, DomainDiagram]:
    files = sorted((ROOT / "dipeo_nb" / "demo").glob("*.yaml")) + sorted((ROOT / "notebooks").glob("*.yaml"))
    found = {path.name: load(path).model for path in files}
    found |= {f"shape {shape.name}": of_shape(shape.arrows) for shape in SHAPES}
    found |= {f"loop {name}": of_shape(arrows) for name, arrows in LOOPS.items()}
    found |= {f"branches {name}": of_shape(arrows) for name, arrows in BRANCHES.items()}
    return found


DIAGRAMS = all_diagrams()


def check(diagram: DomainDiagram, **options: object) -> pictures.Picture:
    picture = pictures.read(draw(diagram, **options))  # pyright: ignore[reportArgumentType]
    assert pictures.faults(picture) == dict.fromkeys(pictures.faults(picture), 0)
    return picture


@pytest.mark.parametrize("name", DIAGRAMS)
def test_nothing_lies_on_anything_else(name: str) -> None:
    """Labels, boxes and arrows are apart, and in the widths of cells every text has 11 pixels, from 820 on."""
    picture = check(DIAGRAMS[name])
    for width, size in SMALLEST.items():
        assert picture.text_at(width) >= size


@pytest.mark.parametrize(
    "seeds", [range(40), *(pytest.param(r, marks=pytest.mark.slow) for r in (range(40, 80), range(80, 120))), (1672,)], ids=str
)
def test_random_diagrams(seeds: Iterable[int]) -> None:
    """So it is for any diagram of up to forty nodes, with and without positions."""
    for seed in seeds:
        picture = check(random_diagram(seed))
        assert all(picture.text_at(width) >= size for width, size in SMALLEST.items()), seed


def test_the_measure_sees_what_lies_on_what() -> None:
    """Each kind of fault is found where one is made."""
    picture = check(DIAGRAMS["loop two nodes"])
    draft, start = picture.boxes["draft"], picture.boxes["s"]
    picture.tags[0] = pictures.Rect(start.left, start.top, draft.right, draft.bottom + 20)
    assert pictures.faults(picture)["labels on boxes"] > 0
    assert pictures.faults(picture)["arrows under labels"] > 0
    picture.tags[1] = picture.tags[0]
    assert pictures.faults(picture)["labels on labels"] > 0
    piece = picture.pieces[0]
    picture.pieces.append(piece._replace(arrow="a3"))
    assert pictures.faults(picture)["arrows on arrows"] > 0
    middle = (start.top + start.bottom) / 2
    picture.pieces.append(pictures.Piece("a1", pictures.Rect(start.left - 9, middle, start.right + 9, middle), False))
    assert pictures.faults(picture)["arrows through boxes"] > 0


def test_the_loop_of_two_nodes_is_two_lines() -> None:
    """The way back runs beside the way there, with its label between its ends."""
    picture = check(DIAGRAMS["loop two nodes"])
    there = [p.rect for p in picture.pieces if p.arrow == "a1"]
    back = [p.rect for p in picture.pieces if p.arrow == "a2"]
    assert len(there) == 1
    assert max(r.bottom for r in back) > picture.boxes["draft"].bottom + 10
    label = picture.tags[picture.tag_owner.index("a2")]
    assert picture.boxes["draft"].bottom < label.top


@pytest.mark.parametrize("name", ["branches four", "branches ten"])
def test_branches_stand_in_the_order_of_the_file(name: str) -> None:
    """The first branch is the highest."""
    picture = check(DIAGRAMS[name])
    names = ["a", "b", "c", "d"] if name == "branches four" else [f"w{i}" for i in range(10)]
    tops = [picture.boxes[n].top for n in names]
    assert tops == sorted(tops)


def test_words_that_fit_are_whole() -> None:
    """A branch and a label beside it are cut only where they are too long together."""
    picture = check(of_shape("s > ?c; c+ > a:x; c- > b:topic; a > e; b > e"))
    assert sorted(picture.words.values()) == [["false", "topic"], ["true", "x"]]


def test_boxes_of_a_column_are_equally_wide() -> None:
    """What stands under each other has one left and one right side."""
    nodes = tuple(DomainNode(i, "db", f"{i} " * n) for i, n in (("a", 1), ("b", 5), ("c", 9), ("d", 14)))
    diagram = DomainDiagram(nodes, tuple(DomainArrow(f"x{t}", "a", t) for t in "bcd"))
    boxes = check(diagram).boxes
    assert len({(boxes[t].left, boxes[t].right) for t in "bcd"}) == 1


@pytest.mark.parametrize("name", DIAGRAMS)
def test_arrows_leave_right_and_enter_left(name: str) -> None:
    """But for loops, each side of a box has one role: arrows come in on the left and go out on the right."""
    svg = draw(DIAGRAMS[name])
    picture = pictures.read(svg)
    back = {part.split('data-arrow="')[1].split('"')[0] for part in svg.split("<g ")[1:] if '-back"' in part}
    for arrow, (source, target) in picture.arrows.items():
        if arrow not in back:
            pieces = [p.rect for p in picture.pieces if p.arrow == arrow]
            assert picture.boxes[source].right - 30 <= pieces[0].left <= picture.boxes[source].right
            # The line ends under its head.
            assert picture.boxes[target].left - 8 <= pieces[-1].right <= picture.boxes[target].left + 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_large_diagrams(seed: int) -> None:
    """Hundreds of nodes: wider than a cell, for zooming, and nothing on anything either."""
    rng = random.Random(seed)
    nodes = tuple(DomainNode(f"n{i}", "db", f"Node {i}") for i in range(150))
    ends = [(max(0, i - rng.randint(1, 4)), i) for i in range(1, 150)]
    ends += [(rng.randrange(150), rng.randrange(150)) for _ in range(40)]
    arrows = tuple(DomainArrow(f"a{k}", f"n{s}", f"n{t}", label=rng.choice([None, "name"])) for k, (s, t) in enumerate(ends))
    model = DomainDiagram(nodes, arrows)
    check(model)
    layout = place(model)
    shown = overview(model, layout, status={"n3": NodeLook(Status.FAILED)})
    assert shown is not None
    size = float(re.search(r"-label\{font-size:([\d.]+)px;text-anchor", shown)[1])  # type: ignore[index]
    boxes = re.findall(r"<g [^>]*data-node=[^>]*>.*?</g>", shown)
    assert len(boxes) == 150
    assert sum('data-status="failed"' in box for box in boxes) == 1
    for width, smallest in SMALLEST.items():
        assert size * width / layout.width >= smallest - 0.05
    for box, rect in zip(boxes, layout.nodes.values(), strict=True):
        lines = re.findall("<text[^>]*>([^<]*)", box)
        assert lines
        assert all(measure(line, size, bold=True) <= rect.w for line in lines)


def test_a_drawing_that_fits_needs_no_overview() -> None:
    model = of_shape("s > a; a > e")
    assert overview(model, place(model)) is None


HOSTILE_WORDS = {
    "markup": "<script>alert(1)</script><b>&amp;",
    "the end of a comment": "]]> --> <!-- \"'",
    "control characters": "nul\x00 tab\t\nnew\x1b[31mline\x85\u2028",
    "right to left": "שלום עולם مرحبا",
    "turned round": "\u202eevil\u2066override\u2069",
    "half a character": "lone \ud800 surrogate \uffff",
    "ten thousand letters": "W" * 10_000,
    "ten thousand words": "word " * 10_000,
    "wide letters": "漢字" * 40,
    "joined emoji": "👩‍👩‍👧‍👦🚀" * 30,
    "stacked accents": "e" + "\u0301" * 500,
    "of no width": "\u200b\u2060\u200d" * 100,
    "spaces": "   \t ",
    "nothing": "",
    "dollars": "$x^2$ \\(y\\) `code` **bold**",
}


@pytest.mark.parametrize("words", HOSTILE_WORDS.values(), ids=list(HOSTILE_WORDS))
@pytest.mark.parametrize("where", ["labels of nodes", "labels of arrows", "handles", "ids"])
def test_hostile_words_change_nothing_of_the_picture(words: str, where: str) -> None:
    """Whatever is written, and wherever: as wide as any other drawing, and nothing on anything."""
    shape = DIAGRAMS["loop one in the other"]
    label, name, handle, ident = (
        words if where == kind else None for kind in ("labels of nodes", "labels of arrows", "handles", "ids")
    )
    nodes = tuple(
        replace(n, label=n.label if label is None else label, id=n.id if ident is None else f"{n.id}{ident}")
        for n in shape.nodes
    )
    new_id = {old.id: new.id for old, new in zip(shape.nodes, nodes, strict=True)}
    arrows = tuple(
        replace(
            a,
            source=new_id[a.source],
            target=new_id[a.target],
            label=a.label if name is None else name,
            source_handle=a.source_handle if handle is None else handle,
        )
        for a in shape.arrows
    )
    svg = draw(DomainDiagram(nodes, arrows))
    picture = pictures.read(svg)
    assert len(picture.boxes) == len({clean(n.id) for n in nodes})
    if where != "ids" or len(picture.boxes) == len(nodes):
        assert not any(pictures.faults(picture).values())
    assert picture.text_at(820) >= 11
    assert len(svg) < 60_000


HOSTILE_GRAPHS = {
    "no nodes": (0, []),
    "one node": (1, []),
    "loose nodes": (400, []),
    "loose pairs": (400, [(2 * i, 2 * i + 1) for i in range(200)]),
    "a thousand parallel arrows": (2, [(0, 1)] * 1000),
    "a thousand there and back": (2, [(0, 1), (1, 0)] * 500),
    "a thousand arrows to itself": (1, [(0, 0)] * 1000),
    "each to itself": (300, [(i, i) for i in range(300) for _ in range(3)]),
    "two loops at each": (100, [(i, i + d) for i in range(1, 99) for d in (-1, 0, 1)]),
    "a star": (600, [(0, i) for i in range(1, 600)]),
    "into a star": (600, [(i, 0) for i in range(1, 600)]),
    "a chain": (1000, [(i, i + 1) for i in range(999)]),
    "a ring": (400, [(i, (i + 1) % 400) for i in range(400)]),
    "a ladder": (400, [(i, i + d) for i in range(398) for d in (1, 2)]),
    "all back to the first": (200, [(i, i + 1) for i in range(199)] + [(i, 0) for i in range(1, 200)]),
    "all from the first to the last": (2, [(0, 1)] * 8 + [(1, 0)] * 8),
    "everyone to everyone": (16, [(i, j) for i in range(16) for j in range(16)]),
    "two layers": (40, [(i, 20 + j) for i in range(20) for j in range(20)]),
    "a binary tree": (511, [((i - 1) // 2, i) for i in range(1, 511)]),
    "nested loops": (60, [(i, i + 1) for i in range(59)] + [(59 - i, i) for i in range(30)]),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if len(ends) > 300 else []) for n, (_, ends) in HOSTILE_GRAPHS.items()],
)
def test_hostile_graphs_are_drawn_with_nothing_on_anything(name: str) -> None:
    """Whatever arrows there are, they can be told apart; what would be too many at one place becomes one line."""
    count, ends = HOSTILE_GRAPHS[name]
    nodes = tuple(DomainNode(f"n{i}", "db", f"Node {i}") for i in range(count))
    arrows = tuple(DomainArrow(f"a{k}", f"n{s}", f"n{t}", label="x" if k % 7 == 0 else None) for k, (s, t) in enumerate(ends))
    picture = check(DomainDiagram(nodes, arrows))
    assert len(picture.boxes) == count


def test_the_tables_of_attacks_are_whole() -> None:
    """Nothing is lost from them by chance."""
    assert (4 * len(HOSTILE_WORDS), len(HOSTILE_GRAPHS)) == (60, 20)


def test_badges_of_a_run_stay_clear_of_arrows() -> None:
    """No arrow comes to a box where a run shows its state and its number of runs."""
    for name, diagram in DIAGRAMS.items():
        looks = {n.id: NodeLook(Status.COMPLETED, 3) for n in diagram.nodes}
        picture = check(diagram, status=looks)
        for box in picture.boxes.values():
            badges = pictures.Rect(box.right - 62, box.top - 10, box.right - 2, box.top + 10)
            assert not any(p.rect.meets(badges) and not p.outermost for p in picture.pieces), name
            assert not any(tag.meets(badges) for tag in picture.tags), name
