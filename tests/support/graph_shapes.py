"""About fifty shapes of diagrams, and what every run of every node is given.

The table reads: name; arrows (see `tests.support.graph_dsl`); what conditions decide; what each node was given, run after run (`|` stands
between runs; a bare value came without a label); nodes that did not simply complete; why the run failed.
"""

from __future__ import annotations

from typing import NamedTuple

from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode


class Shape(NamedTuple):
    name: str
    arrows: str
    decisions: str
    given: str
    statuses: str
    error: str


SHAPES = [
    Shape(
        "one node",
        "s > a",
        "",
        "a: s1",
        "",
        "",
    ),
    Shape(
        "chain",
        "s > a; a > b; b > c",
        "",
        "a: s1; b: a1; c: b1",
        "",
        "",
    ),
    Shape(
        "fan-out",
        "s > a; s > b; s > c",
        "",
        "a: s1; b: s1; c: s1",
        "",
        "",
    ),
    Shape(
        "fan-in",
        "s > a; s > b; a > j:x; b > j:y",
        "",
        "a: s1; b: s1; j: x=a1 y=b1",
        "",
        "",
    ),
    Shape(
        "fan-in without labels",
        "s > a; s > b; a > j; b > j",
        "",
        "a: s1; b: s1; j: b1",
        "",
        "",
    ),
    Shape(
        "diamond",
        "s > a; a > b; a > c; b > d:left; c > d:right",
        "",
        "a: s1; b: a1; c: a1; d: left=b1 right=c1",
        "",
        "",
    ),
    Shape(
        "diamond of unequal legs",
        "s > a; a > b; b > b2; b2 > b3; a > c; b3 > d:long; c > d:short",
        "",
        "a: s1; b: a1; c: a1; b2: b1; b3: b21; d: long=b31 short=c1",
        "",
        "",
    ),
    Shape(
        "double diamond",
        "s > a; a > b; a > c; b > d:x; c > d:y; d > e; d > f; e > g:x; f > g:y",
        "",
        "a: s1; b: a1; c: a1; d: x=b1 y=c1; e: d1; f: d1; g: x=e1 y=f1",
        "",
        "",
    ),
    Shape(
        "skip a level",
        "s > a; a > b; a > c:far; b > c:near",
        "",
        "a: s1; b: a1; c: far=a1 near=b1",
        "",
        "",
    ),
    Shape(
        "two starts",
        "s > a:x; t > a:y",
        "",
        "a: x=s1 y=t1",
        "",
        "",
    ),
    Shape(
        "two starts apart",
        "s > a; t > b",
        "",
        "a: s1; b: t1",
        "",
        "",
    ),
    Shape(
        "two arrows between two nodes",
        "s > a; a > b:x; a > b:y",
        "",
        "a: s1; b: x=a1 y=a1",
        "",
        "",
    ),
    Shape(
        "node without arrows in",
        "s > a; lone > b",
        "",
        "lone: -; a: s1; b: lone1",
        "",
        "",
    ),
    Shape(
        "wide join",
        "s > a; s > b; s > c; s > d; a > j:a; b > j:b; c > j:c; d > j:d",
        "",
        "a: s1; b: s1; c: s1; d: s1; j: a=a1 b=b1 c=c1 d=d1",
        "",
        "",
    ),
    Shape(
        "ladder",
        "s > a; a > b; a > c; b > d:x; c > d:y; c > e; d > f:x; e > f:y",
        "",
        "a: s1; b: a1; c: a1; d: x=b1 y=c1; e: c1; f: x=d1 y=e1",
        "",
        "",
    ),
    Shape(
        "true branch",
        "s > ?c; c+ > a; c- > b",
        "c=T",
        "c: s1; a: s1",
        "b=skipped",
        "",
    ),
    Shape(
        "false branch",
        "s > ?c; c+ > a; c- > b",
        "c=F",
        "c: s1; b: s1",
        "a=skipped",
        "",
    ),
    Shape(
        "two endpoints on branches",
        "s > ?c; c+ > a; a > e1; c- > b; b > e2",
        "c=T",
        "c: s1; a: s1; e1: a1",
        "b=skipped e2=skipped",
        "",
    ),
    Shape(
        "branches join again",
        "s > ?c; c+ > a; c- > b; a > j; b > j",
        "c=T",
        "c: s1; a: s1; j: a1",
        "b=skipped",
        "",
    ),
    Shape(
        "branches join again, other",
        "s > ?c; c+ > a; c- > b; a > j; b > j",
        "c=F",
        "c: s1; b: s1; j: b1",
        "a=skipped",
        "",
    ),
    Shape(
        "branches join with labels",
        "s > ?c; c+ > a; c- > b; a > j:x; b > j:y",
        "c=F",
        "c: s1; b: s1; j: y=b1",
        "a=skipped",
        "",
    ),
    Shape(
        "branch straight into the join",
        "s > ?c; c+ > j:short; c- > b; b > j:long",
        "c=T",
        "c: s1; j: short=s1",
        "b=skipped",
        "",
    ),
    Shape(
        "long dead path",
        "s > ?c; c+ > a; c- > b; b > b2; b2 > b3; a > j:x; b3 > j:y",
        "c=T",
        "c: s1; a: s1; j: x=a1",
        "b=skipped b2=skipped b3=skipped",
        "",
    ),
    Shape(
        "dead path beside a live one",
        "s > ?c; s > z; c+ > a; c- > b; a > j:x; b > j:y; z > j:z",
        "c=F",
        "c: s1; z: s1; b: s1; j: y=b1 z=z1",
        "a=skipped",
        "",
    ),
    Shape(
        "condition after condition",
        "s > ?c; c+ > ?d; c- > a; d+ > b; d- > e",
        "c=T d=F",
        "c: s1; d: s1; e: s1",
        "a=skipped b=skipped",
        "",
    ),
    Shape(
        "condition on a dead path",
        "s > ?c; c+ > a; c- > ?d; d+ > b; d- > e; a > j:x; b > j:y; e > j:z",
        "c=T",
        "c: s1; a: s1; j: x=a1",
        "d=skipped b=skipped e=skipped",
        "",
    ),
    Shape(
        "two conditions in parallel",
        "s > ?c; s > ?d; c+ > a; c- > x; d+ > b; d- > y; a > j:c; b > j:d",
        "c=T d=T",
        "c: s1; d: s1; a: s1; b: s1; j: c=a1 d=b1",
        "x=skipped y=skipped",
        "",
    ),
    Shape(
        "two conditions, one dead",
        "s > ?c; s > ?d; c+ > a; c- > x; d+ > b; d- > y; a > j:c; b > j:d",
        "c=T d=F",
        "c: s1; d: s1; a: s1; y: s1; j: c=a1",
        "x=skipped b=skipped",
        "",
    ),
    Shape(
        "both branches into one node",
        "s > ?c; c+ > a:yes; c- > a:no",
        "c=F",
        "c: s1; a: no=s1",
        "",
        "",
    ),
    Shape(
        "only one branch drawn",
        "s > ?c; c+ > a; a > b",
        "c=F",
        "c: s1",
        "a=skipped b=skipped",
        "",
    ),
    Shape(
        "any-join",
        "s > a; s > b; b > b2; a > ?c:x; b2 > ?c:y; c+ > e",
        "c=TT",
        "a: s1; b: s1; c: x=a1 | x=a1 y=b21; b2: b1; e: {x=a1} | {x=a1, y=b21}",
        "",
        "",
    ),
    Shape(
        "loop",
        "s > a; a > ?c; c- > a; c+ > e",
        "c=FFT",
        "a: s1 | a1 | a2; c: a1 | a2 | a3; e: a3",
        "",
        "",
    ),
    Shape(
        "loop of two",
        "s > a; a > b; b > ?c; c- > a; c+ > e",
        "c=FT",
        "a: s1 | b1; b: a1 | a2; c: b1 | b2; e: b2",
        "",
        "",
    ),
    Shape(
        "loop once",
        "s > a; a > ?c; c- > a; c+ > e",
        "c=T",
        "a: s1; c: a1; e: a1",
        "",
        "",
    ),
    Shape(
        "loop with ordinary entry",
        "s > p; p > a; a > ?c; c- > a; c+ > e",
        "c=FT",
        "p: s1; a: p1 | a1; c: a1 | a2; e: a2",
        "",
        "",
    ),
    Shape(
        "loop headed by a condition",
        "s > ?c; c- > a; a > c; c+ > e",
        "c=FFT",
        "c: s1 | a1 | a2; a: s1 | a1; e: a2",
        "",
        "",
    ),
    Shape(
        "loop with a join inside",
        "s > h; h > a; h > b; a > j:x; b > j:y; j > ?c; c- > h; c+ > e",
        "c=FT",
        "h: s1 | j1; a: h1 | h2; b: h1 | h2; j: x=a1 y=b1 | x=a2 y=b2; c: j1 | j2; e: j2",
        "",
        "",
    ),
    Shape(
        "loop with a constant from outside",
        "s > k; s > a; k > b:k; a > b:a; b > ?c; c- > a; c+ > e",
        "c=FT",
        "k: s1; a: s1 | b1; b: k=k1 a=a1 | k=k1 a=a2; c: b1 | b2; e: b2",
        "",
        "",
    ),
    Shape(
        "loop with a side branch",
        "s > a; a > side; a > ?c; c- > a; c+ > e",
        "c=FT",
        "a: s1 | a1; c: a1 | a2; side: a1 | a2; e: a2",
        "",
        "",
    ),
    Shape(
        "branch within a loop",
        "s > h; h > ?b; b+ > x; b- > y; x > j:x; y > j:y; j > ?c; c- > h; c+ > e",
        "b=TF c=FT",
        "h: s1 | j1; b: h1 | h2; x: h1; j: x=x1 | x=x1 y=y1; c: j1 | j2; y: h2; e: j2",
        "",
        "",
    ),
    Shape(
        "nested loops",
        "s > o; o > i; i > ?c; c- > i; c+ > ?d; d- > o; d+ > e",
        "c=FTFT d=FT",
        "o: s1 | i2; i: o1 | i1 | o2 | i3; c: i1 | i2 | i3 | i4; d: i2 | i4; e: i4",
        "",
        "",
    ),
    Shape(
        "two loops one after the other",
        "s > a; a > ?c; c- > a; c+ > b; b > ?d; d- > b; d+ > e",
        "c=FT d=FT",
        "a: s1 | a1; c: a1 | a2; b: a2 | b1; d: b1 | b2; e: b2",
        "",
        "",
    ),
    Shape(
        "two loops side by side",
        "s > a; s > b; a > ?c; c- > a; c+ > j:a; b > ?d; d- > b; d+ > j:b",
        "c=FT d=FFT",
        "a: s1 | a1; b: s1 | b1 | b2; c: a1 | a2; d: b1 | b2 | b3; j: a=a2 b=b3",
        "",
        "",
    ),
    Shape(
        "two exits",
        "s > a; a > ?c; c+ > x; c- > ?d; d+ > y; d- > a",
        "c=FF d=FT",
        "a: s1 | a1; c: a1 | a2; d: a1 | a2; y: a2",
        "x=skipped",
        "",
    ),
    Shape(
        "loop that feeds a join after it",
        "s > a; s > z; a > ?c; c- > a; c+ > j:loop; z > j:once",
        "c=FT",
        "a: s1 | a1; z: s1; c: a1 | a2; j: loop=a2 once=z1",
        "",
        "",
    ),
    Shape(
        "skippable back edge",
        "s > a; a > ?~c; c- > a; c+ > e",
        "c=FT",
        "a: s1 | a1; c: a1 | a2; e: a2",
        "",
        "",
    ),
    Shape(
        "skippable condition before a join",
        "s > ?~c; s > a; c+ > j:c; a > j:a",
        "c=F",
        "c: s1; a: s1; j: a=a1",
        "",
        "",
    ),
    Shape(
        "person at its limit",
        "s > p/2; p > ?c; c- > p; c+ > e",
        "c=FFT",
        "p: s1 | p1; c: p1 | p2 | p2; e: p2",
        "p=maxiter_reached",
        "",
    ),
    Shape(
        "two persons of different limits",
        "s > p/1; p > q/2; q > ?c; c- > p; c+ > e",
        "c=FFT",
        "p: s1; q: p1 | p1; c: q1 | q2 | q2; e: q2",
        "p=maxiter_reached q=maxiter_reached",
        "",
    ),
    Shape(
        "first handle",
        "s > a; a > p/9^:open; p > ?c; c- > b; b > p:later; c+ > e",
        "c=FFT",
        "a: s1; p: open=a1 | later=b1 | later=b2; c: p1 | p2 | p3; b: p1 | p2; e: p3",
        "",
        "",
    ),
    Shape(
        "first handle alone",
        "s > a; a > p/9^; p > ?c; c- > p:again; c+ > e",
        "c=FT",
        "a: s1; p: first=a1 a1 | again=p1; c: p1 | p2; e: p2",
        "",
        "",
    ),
    Shape(
        "waits for what cannot come",
        "s > a; x > y; y > x; x > a:never",
        "",
        "",
        "a=pending x=skipped y=skipped",
        "Deadlock: 'a' waits for 'x', to which no start leads.",
    ),
    Shape(
        "island",
        "s > a; x > y; y > x",
        "",
        "a: s1",
        "x=skipped y=skipped",
        "",
    ),
]


def of_shape(arrows: str) -> DomainDiagram:
    """A diagram in the notation of `tests.support.graph_dsl`."""
    nodes: dict[str, DomainNode] = {}
    drawn: list[DomainArrow] = []
    for i, arrow in enumerate(arrows.split(";")):
        ends: list[tuple[str, str]] = []
        label = arrow.partition(":")[2].strip()
        for end in arrow.partition(":")[0].split(">"):
            text = end.strip().partition("/")[0].lstrip("~?").replace("^", "")
            kind = "condition" if "?" in end else "start" if text in ("s", "t") else "person_job"
            name = text.rstrip("+-")
            nodes.setdefault(name, DomainNode(name, kind, name))
            ends.append((name, {"+": "condtrue", "-": "condfalse"}.get(text[-1], "default")))
        (source, handle), (target, _) = ends
        drawn.append(DomainArrow(f"a{i}", source, target, handle, label=label or None))
    return DomainDiagram(tuple(nodes.values()), tuple(drawn))
