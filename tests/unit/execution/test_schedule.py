"""The scheduler by itself: named graph shapes, and properties over random graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.domain.nodes import NodeSpec
from dipeo_nb.execution import schedule
from dipeo_nb.execution.recovery import downstream
from tests.support.examples import examples
from tests.support.graphs import COND, END, SKIPPABLE, START, WORK, person, plan_of, play


def until(times: int, label: str = "C"):
    """Decide false until the condition has run *times* times."""
    return lambda node, done: "condtrue" if done.get(node.label, 0) >= times else "condfalse"


def test_chain():
    """A chain runs in order, each node with its predecessor's output."""
    played = play(plan_of({"S": START, "A": WORK, "E": END}, ["S -> A", "A -> E"]))
    assert [r.label for r in played.runs] == ["S", "A", "E"]
    assert played.inputs("E") == {"A": 1}
    assert played.end == schedule.Finish((), ())


def test_fan_in_waits_for_all():
    """A join runs once, with every source."""
    plan = plan_of(
        {"S": START, "A": WORK, "B": WORK, "C2": WORK, "J": WORK},
        ["S -> A", "S -> B", "B -> C2", "A -> J", "C2 -> J"],
    )
    for seed in range(10):
        played = play(plan, seed=seed)
        assert played.count("J") == 1
        assert played.inputs("J") == {"A": 1, "C2": 1}


def test_untaken_branch_is_skipped_and_holds_nobody_back():
    """Two branches that join again: the join goes on with the live one; the other's nodes are skipped."""
    plan = plan_of(
        {"S": START, "C": COND, "A": WORK, "A2": WORK, "B": WORK, "J": WORK, "E": END},
        ["S -> C", "C[condtrue] -> A", "A -> A2", "C[condfalse] -> B", "A2 -> J", "B -> J", "J -> E"],
    )
    played = play(plan, lambda n, d: "condfalse")
    assert played.inputs("J") == {"B": 1}
    assert {plan.nodes[i].label for i in played.end.skipped} == {"A", "A2"}


def test_two_endpoints_on_branches():
    """Of two endpoints on two branches one runs and the other is skipped."""
    plan = plan_of({"S": START, "C": COND, "E1": END, "E2": END}, ["S -> C", "C[condtrue] -> E1", "C[condfalse] -> E2"])
    played = play(plan, lambda n, d: "condtrue")
    assert played.count("E1") == 1
    assert [plan.nodes[i].label for i in played.end.skipped] == ["E2"]


def test_loop_with_ordinary_entry():
    """A loop entered from an ordinary node keeps that node's output as a sticky input."""
    plan = plan_of(
        {"S": START, "L": WORK, "P": WORK, "C": COND, "E": END},
        ["S -> L", "L -> P", "P -> C", "C[condfalse] -> P", "C[condtrue] -> E"],
    )
    played = play(plan, until(4))
    assert played.count("P") == 4
    assert played.inputs("P", 3) == {"L": 1, "C": 2}
    assert played.count("E") == 1


@pytest.mark.parametrize("condition", [COND, SKIPPABLE])
def test_simple_iter(condition: NodeSpec):
    """The canonical loop of the samples: printer and condition three times, ask and endpoint once."""
    plan = plan_of(
        {"S": START, "printer": person(3), "C": condition, "ask": person(1), "E": END},
        ["S -> printer", "printer -> C", "C[condfalse] -> printer", "C[condtrue] -> ask", "ask -> E"],
    )
    played = play(plan, lambda n, d: "condtrue" if d["printer"] >= 3 else "condfalse")
    assert {label: played.count(label) for label in ("printer", "C", "ask", "E")} == {
        "printer": 3,
        "C": 3,
        "ask": 1,
        "E": 1,
    }


DEBATE = {"S": START, "L": WORK, "O": person(2), "P": person(3), "J": person(1), "D": COND, "E": END}
DEBATE_ARROWS = [
    "S -> L", "L -> O[first] : topic", "L -> P[first] : topic", "O -> P", "P -> D",
    "D[condfalse] -> O", "D[condtrue] -> J", "J -> E",
]  # fmt: skip


@pytest.mark.parametrize("seed", [None, *range(20)])
@pytest.mark.parametrize("flip", [False, True])
def test_debate(seed: int | None, flip: bool):
    """The debate of the samples: two, three, one, one, in whatever order answers arrive and arrows are drawn."""
    arrows = [*DEBATE_ARROWS]
    if flip:
        arrows[1], arrows[2] = arrows[2], arrows[1]
    played = play(
        plan_of(DEBATE, arrows),
        lambda n, d: "condtrue" if d.get("O", 0) >= 2 and d.get("P", 0) >= 3 else "condfalse",
        seed=seed,
    )
    assert {x: played.count(x) for x in "OPJE"} == {"O": 2, "P": 3, "J": 1, "E": 1}
    assert played.inputs("P") == {"L": 1}, "the opening comes from the first-edge alone"


def test_loop_headed_by_a_condition():
    """A while-loop: the condition is entered from outside and from the body."""
    plan = plan_of({"S": START, "C": COND, "B": WORK, "E": END}, ["S -> C", "C[condtrue] -> B", "B -> C", "C[condfalse] -> E"])
    played = play(plan, lambda n, d: "condtrue" if d["C"] <= 3 else "condfalse")
    assert (played.count("C"), played.count("B"), played.count("E")) == (4, 3, 1)


def test_join_inside_a_loop_pairs_rounds():
    """Two branches of different length in a loop body: each round's join sees that round's outputs."""
    plan = plan_of(
        {"S": START, "H": WORK, "A": WORK, "B": WORK, "B2": WORK, "J": WORK, "C": COND, "E": END},
        [
            "S -> H",
            "H -> A",
            "H -> B",
            "B -> B2",
            "A -> J",
            "B2 -> J",
            "J -> C",
            "C[condfalse] -> H",
            "C[condtrue] -> E",
        ],
    )
    for seed in range(20):
        played = play(plan, until(3), seed=seed)
        assert [played.inputs("J", r) for r in (1, 2, 3)] == [{"A": r, "B2": r} for r in (1, 2, 3)]


def test_side_branch_of_a_loop_sees_every_round():
    """A join outside the loop, fed by two nodes of its body, pairs them round by round."""
    plan = plan_of(
        {"S": START, "A": WORK, "B": WORK, "C": COND, "LOG": WORK, "E": END},
        ["S -> A", "A -> B", "B -> C", "C[condfalse] -> A", "C[condtrue] -> E", "A -> LOG", "B -> LOG"],
    )
    for seed in range(20):
        played = play(plan, until(4), seed=seed)
        assert [played.inputs("LOG", r) for r in (1, 2, 3, 4)] == [{"A": r, "B": r} for r in (1, 2, 3, 4)]


def test_nested_loops():
    """Inner rounds start afresh in each outer round; the join after the inner loop pairs outer rounds."""
    plan = plan_of(
        {"S": START, "O": WORK, "I": WORK, "CI": COND, "X": WORK, "J": WORK, "CO": COND, "E": END},
        ["S -> O", "O -> I", "I -> CI", "CI[condfalse] -> I", "O -> X", "CI[condtrue] -> J", "X -> J", "J -> CO",
         "CO[condfalse] -> O", "CO[condtrue] -> E"],
    )  # fmt: skip
    for seed in range(20):
        played = play(
            plan, lambda n, d: "condtrue" if d[n.label] % (3 if n.label == "CI" else 2) == 0 else "condfalse", seed=seed
        )
        assert (played.count("O"), played.count("I"), played.count("J"), played.count("E")) == (2, 6, 2, 1)
        assert [played.inputs("J", r) for r in (1, 2)] == [{"CI": 3, "X": 1}, {"CI": 6, "X": 2}]


def test_branch_dead_in_one_round_keeps_its_last_value():
    """A branch not taken in a round leaves the join its value of an earlier round."""
    plan = plan_of(
        {"S": START, "H": WORK, "K": COND, "B": WORK, "J": WORK, "C": COND, "E": END},
        ["S -> H", "H -> K", "K[condtrue] -> B", "H -> J", "B -> J", "J -> C", "C[condfalse] -> H", "C[condtrue] -> E"],
    )
    played = play(plan, lambda n, d: ("condtrue" if d["K"] != 2 else "condfalse") if n.label == "K" else until(3)(n, d))
    assert [played.inputs("J", r) for r in (1, 2, 3)] == [{"H": 1, "B": 1}, {"H": 2, "B": 1}, {"H": 3, "B": 2}]


def test_nodes_without_incoming_edges_run_once():
    """A node nobody leads to runs once, and its join waits for it."""
    plan = plan_of({"S": START, "X": WORK, "J": WORK}, ["S -> J", "X -> J"])
    played = play(plan)
    assert played.count("X") == 1
    assert played.inputs("J") == {"S": 1, "X": 1}


def test_skippable_condition_holds_no_join_back():
    """An edge from a skippable condition is not awaited."""
    plan = plan_of(
        {"S": START, "A": WORK, "C": SKIPPABLE, "J": WORK, "B": WORK},
        ["S -> J", "S -> A", "A -> B", "B -> C", "C[condtrue] -> J"],
    )
    played = play(plan)
    assert played.inputs("J", 1) == {"S": 1}
    assert played.inputs("J", 2) == {"S": 1, "C": 1}


def test_persons_in_a_ring_stop_at_their_limits():
    """Without a condition the limits end the loop, and a token that is only passed on dies."""
    plan = plan_of({"S": START, "A": person(3), "B": person(2)}, ["S -> A", "A -> B", "B -> A"])
    played = play(plan)
    assert (played.count("A"), played.count("B")) == (3, 2)
    assert isinstance(played.end, schedule.Finish)


def test_limits_of_different_size_let_the_condition_decide():
    """Persons at their limit pass on until the one with the largest limit is there too."""
    plan = plan_of(
        {"S": START, "A": person(1), "B": person(2), "D": person(4), "C": COND, "E": END},
        ["S -> A", "A -> B", "B -> D", "D -> C", "C[condfalse] -> A", "C[condtrue] -> E"],
    )
    played = play(plan, lambda n, d: "condtrue" if d["D"] >= 4 else "condfalse")
    assert {x: played.count(x) for x in "ABDE"} == {"A": 1, "B": 2, "D": 4, "E": 1}


def test_endless_loop_is_reported():
    """A loop whose condition never ends it is exhausted, not endless."""
    plan = plan_of({"S": START, "A": WORK, "C": COND, "E": END}, ["S -> A", "A -> C", "C[condfalse] -> A", "C[condtrue] -> E"])
    played = play(plan, lambda n, d: "condfalse", limit=50)
    assert isinstance(played.end, schedule.Exhausted)
    assert played.end.visits == 50


def test_deadlock_names_what_is_missing():
    """An input from a cycle that no start reaches is a deadlock that names the edge."""
    plan = plan_of({"S": START, "J": WORK, "X": WORK, "Y": WORK}, ["S -> J", "X -> Y", "Y -> X", "Y -> J"])
    played = play(plan)
    assert isinstance(played.end, schedule.Finish)
    [(node, edges)] = played.end.blocked
    assert plan.nodes[node].label == "J"
    assert [plan.edges[e].arrow_id for e in edges] == ["arrow_3"]


def test_priority_orders_siblings():
    """Of siblings the one with the higher execution_priority starts first."""
    from dataclasses import replace

    from dipeo_nb.diagram.graph import link

    plan = plan_of({"S": START, "A": WORK, "B": WORK}, ["S -> A", "S -> B"])
    arrows = [plan.diagram.arrows[0], replace(plan.diagram.arrows[1], execution_priority=5)]
    nodes, edges = link(list(zip(plan.diagram.nodes, (n.spec for n in plan.nodes), strict=True)), arrows)
    played = play(replace(plan, nodes=nodes, edges=edges))
    assert [r.label for r in played.runs] == ["S", "B", "A"]


# Properties over random graphs.


@st.composite
def acyclic(draw: st.DrawFn):
    """A random acyclic diagram: work nodes and conditions with one input, drawn from earlier to later nodes."""
    count = draw(st.integers(2, 12))
    nodes: dict[str, NodeSpec] = {"n0": START}
    arrows: list[str] = []
    for i in range(1, count):
        is_condition = draw(st.booleans())
        nodes[f"n{i}"] = COND if is_condition else WORK
        sources = draw(st.lists(st.integers(0, i - 1), min_size=0, max_size=1 if is_condition else 4, unique=True))
        for s in sources:
            handle = f"[{draw(st.sampled_from(['condtrue', 'condfalse']))}]" if nodes[f"n{s}"] is COND else ""
            arrows.append(f"n{s}{handle} -> n{i}")
    decisions = {f"n{i}": draw(st.sampled_from(["condtrue", "condfalse"])) for i in range(count)}
    return nodes, arrows, decisions


@examples(300)
@given(acyclic(), st.integers(0, 10_000))
def test_acyclic_graphs(graph, seed):
    """A node runs once, with its live inputs, if it has any and one of those that decide, or none is drawn at all."""
    nodes, arrows, decisions = graph
    played = play(plan_of(nodes, arrows), lambda n, d: decisions[n.label], seed=seed)
    live: dict[str, dict[str, int]] = {}
    above: dict[str, set[str]] = {}
    for name in nodes:
        into = [a.split(" -> ")[0].partition("[") for a in arrows if a.endswith(f" -> {name}")]
        above[name] = {label for label, _, _ in into}.union(*(above[label] for label, _, _ in into))
        deciders = {label for label, _, _ in into if nodes[label] is COND}
        given_inputs: dict[str, int] = {}
        decided = not deciders
        for label, _, handle in into:
            if label in live and (not handle or handle.rstrip("]") == decisions[label]):
                given_inputs[label] = 1
                decided |= label in deciders or bool(above[label] & deciders)
        if not into or (given_inputs and decided):
            live[name] = given_inputs
    assert {r.label: r.inputs for r in played.runs} == live
    assert len(played.runs) == len(live)
    assert isinstance(played.end, schedule.Finish)
    assert not played.end.blocked
    assert {plan_of(nodes, arrows).nodes[i].label for i in played.end.skipped} == set(nodes) - set(live)


@st.composite
def looping(draw: st.DrawFn):
    """A random structured program: sequences, forks that join again, and loops, nested."""
    nodes: dict[str, NodeSpec] = {"S": START}
    arrows: list[str] = []
    rounds: dict[str, int] = {}

    def block(entry: str, depth: int) -> str:
        kind = draw(st.sampled_from(["work", "work", "fork", "loop"] if depth < 3 else ["work"]))
        number = len(nodes)
        if kind == "work":
            nodes[f"w{number}"] = WORK
            arrows.append(f"{entry} -> w{number}")
            return f"w{number}"
        if kind == "fork":
            nodes[f"f{number}"] = WORK
            arrows.append(f"{entry} -> f{number}")
            ends = [block(f"f{number}", depth + 1) for _ in range(draw(st.integers(2, 3)))]
            join = f"j{len(nodes)}"
            nodes[join] = WORK
            arrows.extend(f"{end} -> {join}" for end in ends)
            return join
        nodes[f"h{number}"] = WORK
        arrows.append(f"{entry} -> h{number}")
        end = block(f"h{number}", depth + 1)
        condition = f"c{len(nodes)}"
        nodes[condition] = COND
        rounds[condition] = draw(st.integers(1, 3))
        arrows.append(f"{end} -> {condition}")
        arrows.append(f"{condition}[condfalse] -> h{number}")
        return f"{condition}[condtrue]"

    last = "S"
    for _ in range(draw(st.integers(1, 3))):
        last = block(last, 0)
    nodes["E"] = END
    arrows.append(f"{last} -> E")
    return nodes, arrows, rounds


@examples(200)
@given(looping(), st.lists(st.integers(0, 10_000), min_size=2, max_size=4))
def test_structured_programs(program, seeds):
    """Structured programs run as written: once to the end, joins with all their sources of one round, whatever order
    the work ends in."""
    nodes, arrows, rounds = program
    plan = plan_of(nodes, arrows)

    def decide(node, done):
        return "condtrue" if done[node.label] % rounds[node.label] == 0 else "condfalse"

    first = play(plan, decide, limit=1000)
    assert isinstance(first.end, schedule.Finish)
    assert first.end == schedule.Finish((), ())
    assert first.count("E") == 1
    for ran in first.runs:
        if ran.label.startswith("j"):
            assert ran.fresh == set(ran.inputs), "each source of a join has a new value in every round"

    def record(played):
        return sorted((r.label, r.run, tuple(sorted(r.inputs.items()))) for r in played.runs)

    for seed in seeds:
        assert record(play(plan, decide, seed=seed, limit=1000)) == record(first)


@st.composite
def anything(draw: st.DrawFn):
    """Any graph at all: cycles, self loops, several roots, orphans."""
    count = draw(st.integers(1, 8))
    nodes: dict[str, NodeSpec] = {"n0": START}
    for i in range(1, count):
        nodes[f"n{i}"] = draw(st.sampled_from([WORK, COND, SKIPPABLE, person(1), person(3), END]))
    arrows: list[str] = []
    for _ in range(draw(st.integers(0, 16))):
        source, target = draw(st.integers(0, count - 1)), draw(st.integers(0, count - 1))
        if target == 0 or nodes[f"n{source}"] is END:
            continue
        out = f"[{draw(st.sampled_from(['condtrue', 'condfalse']))}]" if nodes[f"n{source}"] in (COND, SKIPPABLE) else ""
        into = "[first]" if nodes[f"n{target}"].META.type == "person_job" and draw(st.booleans()) else ""
        arrows.append(f"n{source}{out} -> n{target}{into}")
    return nodes, arrows


@examples(400)
@given(anything(), st.integers(0, 10_000), st.integers(0, 10_000))
def test_every_graph_ends(graph, seed, coin):
    """Whatever the graph: the run ends, says so once, and no person_job exceeds its limit."""
    nodes, arrows = graph
    plan = plan_of(nodes, arrows)
    import random

    flip = random.Random(coin)
    played = play(plan, lambda n, d: flip.choice(["condtrue", "condfalse"]), seed=seed, limit=30)
    for node in plan.nodes:
        if node.max_runs is not None:
            assert played.count(node.label) <= node.max_runs
    if isinstance(played.end, schedule.Finish):
        stuck = downstream(plan, [index for index, _ in played.end.blocked])  # and those that wait for them
        for node in plan.nodes:
            if node.index not in stuck and not played.count(node.label):
                assert node.index in played.end.skipped


@examples(100)
@given(graph=anything(), seed=st.integers(0, 5), coin=st.randoms(use_true_random=False))
def test_equal_ticks_give_equal_commands(graph, seed, coin):
    """What a scheduler commands depends on nothing but the ticks it has seen: a run that is resumed goes on as it would have."""
    plan = plan_of(*graph)
    seen: list[tuple[schedule.Tick, list[schedule.Command]]] = []

    class Recording(schedule.Scheduler):
        def step(self, tick: schedule.Tick) -> list[schedule.Command]:
            commands = super().step(tick)
            seen.append((tick, commands))
            return commands

    play(plan, lambda node, done: coin.choice(["condtrue", "condfalse"]), seed=seed, limit=5, scheduler=Recording)
    again = schedule.Scheduler(plan, max_visits=5)
    assert [again.step(tick) for tick, _ in seen] == [commands for _, commands in seen]


def test_a_node_that_is_not_at_work_is_not_done():
    scheduler = schedule.Scheduler(plan_of({"S": START, "A": WORK}, ["S -> A"]))
    scheduler.step(schedule.Begin())
    with pytest.raises(ValueError, match="not running"):
        scheduler.step(schedule.Done(1, ("default",)))


def counted(monkeypatch: pytest.MonkeyPatch, kind: type) -> list[object]:
    """What is compared with another of its kind, one by one."""
    compared: list[object] = []
    monkeypatch.setattr(kind, "__eq__", lambda one, other: compared.append(one) or one is other)
    return compared


def test_nodes_that_wait_for_one_node_are_not_compared(monkeypatch: pytest.MonkeyPatch):
    """Many nodes that wait for the same one: each is noted once, and none is compared with the others."""
    compared = counted(monkeypatch, schedule._Node)
    many = [f"N{n}" for n in range(100)]
    arrows = ["S -> Slow", *(f"S -> {n}" for n in many), *(f"Slow -> {n}" for n in many)]
    played = play(plan_of({"S": START, "Slow": WORK, **dict.fromkeys(many, WORK)}, arrows))
    assert len(played.runs) == 102
    assert len(compared) <= 100


def test_values_that_come_again_are_not_compared_with_the_new_ones(monkeypatch: pytest.MonkeyPatch):
    """In a loop, a join of many new values and many that stay costs what it takes, not their product."""

    class Number(int):
        __hash__ = int.__hash__

    compared = counted(monkeypatch, Number)
    old, new = [f"O{n}" for n in range(100)], [f"N{n}" for n in range(100)]
    arrows = ["S -> H", *(f"S -> {n}" for n in old), *(f"H -> {n}" for n in new), *(f"{n} -> J" for n in [*old, *new])]
    nodes = {"S": START, "H": WORK, **dict.fromkeys([*old, *new], WORK), "J": WORK, "C": COND, "E": END}
    plan = plan_of(nodes, [*arrows, "J -> C", "C[condfalse] -> H", "C[condtrue] -> E"])
    edges = tuple(replace(edge, index=Number(edge.index)) for edge in plan.edges)
    numbered = tuple(replace(node, incoming=tuple(map(Number, node.incoming))) for node in plan.nodes)
    played = play(replace(plan, nodes=numbered, edges=edges), until(3))
    assert [len(ran.fresh) for ran in played.runs if ran.label == "J"] == [200, 100, 100]
    assert 0 < len(compared) <= 3000
