"""The page's fold of a log and Python's are the same at every event; seeking back and forth gives the same states."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.values import json_text
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution import run_page
from dipeo_nb.execution.left_out import LeftOut
from dipeo_nb.execution.node_state import NodeState
from dipeo_nb.execution.run_state import RunState
from tests.support.golden_logs import logs
from tests.support.js_engine import run_module
from tests.support.random_logs import random_log

DIGEST = """
const spent = (x) => [x.usage, costOf(x), x.complete, x.calls];
const digest = (s) => ({
  seq: s.seq, status: s.status, diagram: s.diagram, model: s.model, order: s.order, error: s.error, spent: spent(s.spent), parent: s.parent, forked: s.forked,
  labels: [...s.labels], outputs: [...s.outputs], resumed: s.resumed, seconds: s.seconds, finished: s.ended !== null,
  persons: [...s.persons].map(([name, x]) => [name, spent(x)]), conversation: s.conversation.map((m) => m.id), questions: [...s.questions].map(([k, q]) => [k, q.node_id, q.prompt]),
  nodes: [...s.nodes].map(([id, n]) => [id, n.status, n.runs, n.text, n.error, n.output ?? null, spent(n.spent), n.retries, n.reused, n.children.map((c) => c.run_id),
    [...n.progress], n.paid.length, n.meta, n.seconds, n.pieces, n.estimated, n.waiting !== null,
    n.status === "running" ? [...(n.turns.at(-1)?.sent ?? [])].map(([k, v]) => [k, v.prompt, v.system]).sort() : []]),
  estimated: estimatedTokens(s), notes: s.notes.map((n) => n.text), systems: [...s.systems].sort(),
});
const same = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(a));
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return a === b;
  const [x, y] = [Object.keys(a), Object.keys(b)];
  return Array.isArray(a) === Array.isArray(b) && x.length === y.length && x.every((k) => Object.hasOwn(b, k) && same(a[k], b[k]));
};
const difference = (a, b) => Object.keys(a).filter((k) => !same(a[k], b[k])).map((k) => `${k}: ${JSON.stringify(a[k])} is not ${JSON.stringify(b[k])}`);
"""


def spent(of: RunState | NodeState) -> list[Any]:
    usage = of.usage.to_dict()
    usage.pop("total", None)
    return [usage, of.cost_usd, of.cost_complete, of.spent.calls]


def digest(s: RunState) -> dict[str, Any]:
    """What the page must say of a run, too."""
    persons = [
        [name, [{k: v for k, v in p.usage.to_dict().items() if k != "total"}, p.cost_usd, p.complete, p.calls]]
        for name, p in s.persons.items()
    ]
    nodes = [
        [i, str(n.status), n.runs, n.text, n.error, n.output, spent(n), n.retries, n.reused, n.children,
         [list(p) for p in n.progress.items()], len(n.paid), n.meta, n.duration_s, n.pieces, n.estimated, n.waiting_since is not None,
         sorted([k, v["prompt"], v.get("system")] for k, v in n.sent.items()) if n.status == "running" else []]
        for i, n in s.nodes.items()
    ]  # fmt: skip
    return {
        "seq": s.events, "status": str(s.status), "diagram": s.diagram, "model": s.model, "order": s.order, "error": s.error, "spent": spent(s),
        "parent": s.parent, "forked": s.forked_from, "labels": [list(p) for p in s.labels.items()],
        "outputs": [list(p) for p in s.outputs.items()], "resumed": s.resumed, "seconds": s.duration_s, "finished": s.ended_at is not None,
        "persons": persons, "conversation": [m["id"] for m in s.conversation],
        "questions": [[k, q["node_id"], q["prompt"]] for k, q in s.questions.items()], "nodes": nodes,
        "estimated": s.estimated_tokens, "notes": [n["text"] for n in s.notes], "systems": sorted([k, v] for k, v in s.systems.items()),
    }  # fmt: skip


def in_steps(name: str, events: Sequence[Event]) -> dict[str, Any]:
    """A log, and Python's state after each of its events."""
    state, after = RunState(), list[dict[str, Any]]()
    for event in events:
        state.apply(event)
        after.append(digest(state.snapshot()))
    return {"name": name, "rows": list(run_page.rows(events, limit=10**9)), "after": after}


def differences(given: Iterable[dict[str, Any]], folder: Path) -> list[str]:
    script = f"""{run_page.script()}{DIGEST}
    const answer = (logs) => logs.flatMap(({{ name, rows, after }}) => {{
      const fold = new Fold();
      return rows.flatMap((row, i) => {{ fold.take(row, i); return difference(digest(fold.give()), after[i]).map((d) => `${{name}} ${{row[0]}} ${{row[1]}} ${{d}}`); }});
    }}).slice(0, 5);"""
    return run_module(script, list(given), folder)


def test_the_page_and_python_agree_on_every_golden_log(tmp_path: Path) -> None:
    given = [in_steps(name, events) for name, events in logs()]
    assert len(given) > 150
    assert {row[1] for log in given for row in log["rows"]} >= {
        "node_error",
        "interactive_prompt",
        "execution_error",
        "node_output",
    }
    assert differences(given, tmp_path) == []


def test_the_page_and_python_agree_on_random_logs(tmp_path: Path) -> None:
    given = [in_steps(f"seed {seed}", random_log(seed)) for seed in range(1000)]
    assert differences(given, tmp_path) == []


def without_beginnings(name: str, events: Sequence[Event], cuts: Iterable[int]) -> Iterable[dict[str, Any]]:
    """A log whose events up to one or another are left out."""
    whole = in_steps(name, events)
    for cut in cuts:
        left = LeftOut()
        left.take_all(events[:cut])
        rows = json.loads(json_text([whole["rows"][0], left.row(), *whole["rows"][cut:]]))
        yield {"name": f"{name} from {cut}", "rows": rows, "after": [whole["after"][0], *whole["after"][cut - 1 :]]}


def test_what_is_left_out_makes_no_difference_to_the_state_after_it(tmp_path: Path) -> None:
    """A page that begins somewhere in a run shows the same from there on."""
    given = [
        one
        for name, events in [*((f"seed {seed}", random_log(seed)) for seed in range(300)), *logs()]
        for one in without_beginnings(name, events, sorted({2, len(events) // 3, len(events) // 2, len(events) - 1}))
        if len(events) > 8
    ]
    assert len(given) > 1000
    assert differences(given, tmp_path) == []


def test_what_is_left_out_keeps_times_turns_and_the_arrows_that_were_used(tmp_path: Path) -> None:
    given = [list(run_page.rows(random_log(seed), limit=10**9)) for seed in range(100)]
    cuts = [len(rows) // 2 for rows in given]
    lefts: list[Any] = []
    for seed, cut in enumerate(cuts):
        left = LeftOut()
        left.take_all(random_log(seed)[:cut])
        lefts.append(left.row())
    script = f"""{run_page.script()}{DIGEST}
    const known = (log) => [...log.stateAt(log.count).nodes].map(([id, n]) => {{
      const {{ waits, calls, logs, retries, reasoning, first, pieces, ...t }} = n.turns.at(-1) ?? {{}}, froms = new Set([...n.earlier.from, ...n.turns.flatMap((x) => x.inputs.map((i) => i[1]))]);
      const sum = n.turns.reduce((s, x, i) => s + (x.end ?? n.turns[i + 1]?.start ?? log.end) - x.start, n.earlier.seconds);
      return [id, n.earlier.turns + n.turns.length, Math.round(sum * 1e6), [...froms].sort(), t.run, t.attempt, t.start, t.end, t.status, t.inputs, t.output ?? null, t.meta, t.error, t.globals, t.heard, t.seq, t.endSeq, t.text, t.sent && [...t.sent.keys()]];
    }});
    const answer = (all) => all.flatMap(([rows, left, cut]) => {{
      const whole = new Recording(), part = new Recording();
      whole.push(rows);
      part.push([rows[0], left, ...rows.slice(cut)]);
      const bad = difference(known(whole).flat(), known(part).flat());
      if (!same(part.times.slice(2), whole.times.slice(cut))) bad.push("times");
      if (part.positionOf(2) !== 2 || part.positionOf(cut) !== 2 || part.positionOf(1) !== 1 || part.positionOf(cut + 1) !== 3) bad.push("positions");
      if (part.leftOut.from !== 2 || part.leftOut.to !== cut || whole.leftOut !== null) bad.push("what is left out");
      return bad;
    }}).slice(0, 5);"""
    assert run_module(script, json.loads(json_text(list(zip(given, lefts, cuts, strict=True)))), tmp_path) == []


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_seeking_gives_the_states_of_a_fold_from_the_start_and_keeps_those_given_out(tmp_path: Path, every: int) -> None:
    """Also while more comes in, and with what was folded kept after every few rows."""
    script = run_page.script().replace("const EVERY = 1000;", f"const EVERY = {every};")
    script += f"""{DIGEST}
    const answer = (logs) => logs.flatMap((rows) => {{
      const log = new Recording(), fold = new Fold(), after = [digest(fold.give())], bad = [], kept = [];
      let random = rows.length;
      const next = () => (random = (random * 1103515245 + 12345) % 2147483648);
      rows.forEach((row, i) => {{
        log.push([row, row]);
        fold.take(row, log.times[i]);
        after.push(digest(fold.give()));
        for (const at of [next() % log.count, log.count]) {{ const s = log.stateAt(at); kept.push([s, at]); bad.push(...difference(digest(s), after[at])); }}
      }});
      if (log.count !== rows.length) bad.push("rows that came twice count twice");
      for (const [s, at] of kept) bad.push(...difference(digest(s), after[at]).map((d) => `changed since: ${{d}}`));
      return bad;
    }}).slice(0, 5);"""
    given = [list(run_page.rows(random_log(seed))) for seed in range(60)]
    assert run_module(script, given, tmp_path) == []


def test_the_time_in_which_a_run_lay_cut_off_does_not_count(tmp_path: Path) -> None:
    rows = [
        [1, "execution_started", 100.0, None, {"labels": {"a": "A"}}],
        [2, "node_started", 101.0, "a", {"run": 1, "inputs": {}}],
        [3, "execution_started", 900.0, None, {"resumed": 2}],
        [4, "node_started", 901.5, "a", {"run": 1, "attempt": 2, "inputs": {}}],
    ]
    script = f"""{run_page.script()}
    const answer = (rows) => {{
      const log = new Recording();
      log.push(rows);
      const turns = log.stateAt(4).nodes.get("a").turns.map((t) => [t.start, t.end, t.status, t.attempt]);
      return [log.times, turns, log.positionAt(1.2), log.positionOf(3), log.stateAt(2).status];
    }};"""
    turns = [[1, 1, "interrupted", 1], [2.5, None, "running", 2]]
    assert run_module(script, rows, tmp_path) == [[0, 1, 1, 2.5], turns, 3, 3, "running"]


def test_how_far_a_node_is_counts_steps_or_megabytes(tmp_path: Path) -> None:
    """A model that is fetched is told in megabytes, until it is loaded or says something."""
    fetching = {
        "kind": "progress",
        "text": "Fetching",
        "run": 1,
        "data": {"done": 40_000_000, "total": 92_871_040, "unit": "bytes"},
    }
    loading = {"kind": "progress", "text": "Loading", "run": 1, "data": {"done": None, "total": None}}
    parsing = {"kind": "progress", "text": "Parsing a.py", "run": 1, "data": {"done": 3, "total": 10}}
    large = {**fetching, "data": {"done": 1_240_000_000, "total": 4_900_000_000, "unit": "bytes"}}
    said = {"kind": "text", "text": "Hello", "run": 1, "is_partial": True}
    rows = [
        [1, "execution_started", 100.0, None, {"labels": {"a": "A"}}],
        [2, "node_started", 101.0, "a", {"run": 1, "inputs": {}}],
        *([n, "node_output", 102.0, "a", p] for n, p in enumerate((fetching, loading, large, said, parsing, said), start=3)),
    ]
    script = f"""{run_page.script()}
    const answer = (rows) => {{
      const fold = new Fold();
      return rows.map((row, i) => {{ fold.take(row, i); const {{ share }} = fold.give().nodes.get("a"); return share && howFar(share); }});
    }};"""
    expected = [None, None, "40 of 93 MB", None, "1.2 of 4.9 GB", None, "3 of 10", "3 of 10"]
    assert run_module(script, rows, tmp_path) == expected


def test_a_note_does_not_make_a_run_longer(tmp_path: Path) -> None:
    rows = [
        [1, "execution_started", 100.0, None, {"labels": {"a": "A"}}],
        [2, "execution_completed", 103.0, None, {"status": "completed", "total_duration_ms": 3000.0}],
        [3, "run_note", 90_000.0, None, {"first": 1, "last": 2, "text": "Too short."}],
        [4, "execution_started", 95_000.0, None, {"resumed": 2}],
        [5, "execution_completed", 95_001.0, None, {"status": "completed", "total_duration_ms": 4000.0}],
    ]
    script = f"""{run_page.script()}
    const answer = (rows) => {{
      const log = new Recording();
      log.push(rows);
      return [log.times, log.stateAt(3).notes[0].text, log.stateAt(3).status, log.stateAt(5).notes.length];
    }};"""
    assert run_module(script, rows, tmp_path) == [[0, 3, 3, 3, 4], "Too short.", "completed", 1]


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path: Path) -> None:
    rows = [
        [1, "execution_started", 100.0, None, {"labels": {"a": "A"}}],
        [2, "node_started", 101.0, "a", {"run": 1, "inputs": {}}],
        [3, "node_output", 102.0, "a", {"kind": "text", "text": "half of it", "run": 1}],
    ]
    script = f"""{run_page.script()}
    const answer = (rows) => {{
      const log = new Recording();
      log.push(rows);
      const before = log.stateAt(3);
      log.over = true;
      const after = log.stateAt(3), turn = after.nodes.get("a").turns[0];
      return [before.status, after.status, after.nodes.get("a").status, turn.text, turn.end, estimatedTokens(after), log.stateAt(2).status];
    }};"""
    assert run_module(script, rows, tmp_path) == ["running", "interrupted", "interrupted", "half of it", 2, 1, "running"]


def test_a_whole_event_takes_the_place_of_one_that_was_cut(tmp_path: Path) -> None:
    script = f"""{run_page.script()}
    const answer = ([cut, whole]) => {{
      const log = new Recording();
      log.push(cut);
      const before = log.stateAt(3).outputs.get("A"), changed = log.push(whole);
      return [before.$cut, changed, log.stateAt(3).outputs.get("A").length, log.push(whole)];
    }};"""

    def log(limit: int) -> list[list[Any]]:
        done = {"node_type": "endpoint", "output": "x" * 5000, "run": 1}
        return [
            [1, "execution_started", 100.0, None, {"labels": {"a": "A"}}],
            [2, "node_started", 101.0, "a", {"run": 1, "inputs": {}}],
            [3, "node_completed", 102.0, "a", run_page.cut(done, limit)],
        ]

    assert run_module(script, [log(100), log(10**6)[2:]], tmp_path) == [5000, [2], 5000, []]


def test_what_a_node_prints_is_its_beginning_where_it_was_cut(tmp_path: Path) -> None:
    start = (
        [1, "execution_started", 100.0, None, {"labels": {"a": "A"}}],
        [2, "node_started", 101.0, "a", {"run": 1, "inputs": {}}],
    )
    printed = {"kind": "stdout", "text": "x" * 30, "run": 1}, {"kind": "reasoning", "text": "y" * 30, "run": 1}
    rows = [*start, *([n, "node_output", 102.0, "a", run_page.cut(p, 20)] for n, p in enumerate(printed, 3))]
    script = f"""{run_page.script()}
    const answer = (rows) => {{
      const log = new Recording();
      log.push(rows);
      const node = log.stateAt(4).nodes.get("a");
      return [node.text, node.turns[0].text, node.turns[0].reasoning];
    }};"""
    assert run_module(script, rows, tmp_path) == ["x" * 20 + "…", "x" * 20 + "…", "y" * 20 + "…"]


def batch(count: int) -> list[Event]:
    """A batch that begins so many runs, some of which are told of twice."""
    started = [
        Event(1, EventType.EXECUTION_STARTED, "r", 1.0, None, {"labels": {"a": "A"}}),
        Event(2, EventType.NODE_STARTED, "r", 1.0, "a", {"label": "A", "run": 1}),
    ]
    told = [n // 2 if n % 10 == 9 else n for n in range(count)]
    begun = [{"kind": "run", "text": "", "data": {"run_id": f"r{n}", "index": n, "diagram": "d"}} for n in told]
    return [*started, *(Event(n, EventType.NODE_OUTPUT, "r", 1.0, "a", payload) for n, payload in enumerate(begun, 3))]


def test_runs_of_a_batch_are_known_by_their_ids(tmp_path: Path) -> None:
    """Each run that a batch begins is looked at, not all before it; in Python and in the page."""
    compared: list[str] = []

    class Id(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(self)
            return str.__eq__(self, other)

    events = batch(300)
    for event in events[2:]:
        event.payload["data"]["run_id"] = Id(event.payload["data"]["run_id"])
    state = RunState.fold(events)
    assert len(state.nodes["a"].children) == len({str(event.payload["data"]["run_id"]) for event in events[2:]}) < 300
    assert len(compared) <= 3 * 300
    assert differences([in_steps("batch", batch(300))], tmp_path) == []
    script = f"""{run_page.script()}
    const answer = (rows) => {{
      let read = 0;
      const fold = new Fold();
      for (const row of rows) {{
        const data = row[4].data, id = data?.run_id;
        if (id) Object.defineProperty(data, "run_id", {{ get() {{ read += 1; return id; }} }});
        fold.take(row, 0);
      }}
      return [fold.give().nodes.get("a").children.length, read];
    }};"""
    count, read = run_module(script, list(run_page.rows(events, limit=10**9)), tmp_path)
    assert count == len(state.nodes["a"].children)
    assert read <= 4 * 300


def test_thousands_of_open_questions_are_found_by_their_place(tmp_path: Path):
    """Each event looks at its own question, not at all that wait with it: how often a path is looked at is counted."""
    script = f"""{run_page.script()}
    const looked = {{ paths: 0 }};
    const asks = (n, items) => {{
      const label = (i) => (items ? "Batch" : "N" + i), rows = [[1, "execution_started", 1, null, {{ labels: Object.fromEntries(Array.from({{ length: n }}, (_, i) => [label(i), label(i)])) }}]];
      const add = (type, i, payload) => rows.push([rows.length + 1, type, 1, label(i), payload]);
      const path = (i) => ({{ get path() {{ looked.paths += 1; return [label(i) + (items ? "[" + i + "]" : ""), "Ask"]; }} }});
      for (let i = 0; i < n; i++) add("node_started", i, {{ run: 1 }});
      for (const attempt of ["first", "second"]) for (let i = 0; i < n; i++) add("interactive_prompt", i, Object.defineProperties({{ request_id: attempt + i, label: "Ask" }}, Object.getOwnPropertyDescriptors(path(i))));
      for (let i = 0; i < n; i += 2) add("interactive_response", i, {{ request_id: "second" + i }});
      if (!items) for (let i = 1; i < n; i += 4) add("node_error", i, {{}});
      return rows;
    }};
    const answer = (sizes) => [false, true].map((items) => sizes.map((n) => {{
      const rows = asks(n, items), fold = new Fold();
      looked.paths = 0;
      for (const row of rows) fold.take(row, 1);
      const s = fold.give(), waiting = [...s.nodes.keys()].filter((id) => look(s, id, 1) === "waiting").length;
      return [looked.paths, s.questions.size, waiting];
    }}));
    """
    (few, many), (few_items, many_items) = run_module(script, [40, 160], tmp_path)
    assert few[1:] == [10, 10]
    assert many[1:] == [40, 40]
    assert many_items[1:] == [80, 1]
    for less, more in ((few, many), (few_items, many_items)):
        assert more[0] < 4.5 * less[0], (less, more)


def test_a_long_log_keeps_no_more_states_than_a_short_one_by_much(tmp_path: Path):
    """Each may hold as much as the log so far; how often one is made is counted. Seeking gives the state of any position."""
    script = f"""{run_page.script()}
    const gives = {{ count: 0 }};
    const realGive = Fold.prototype.give;
    Fold.prototype.give = function () {{ gives.count += 1; return realGive.call(this); }};
    const answer = ({{ count, positions }}) => {{
      const log = new Recording();
      log.push([[1, "execution_started", 1, null, {{ labels: {{}} }}]]);
      for (let i = 2; i <= count; i++) log.push([[i, "execution_log", 1, null, {{}}]]);
      const kept = gives.count;
      return [kept, positions.map((p) => log.stateAt(p).seq), log.push([[5, "execution_log", 1, null, {{}}]]).length];
    }};
    """
    positions = [270_000, 1, 0, 63_999, 64_000, 64_001, 200_123, 199_000, 128_000, 3]
    kept, found, changed = run_module(script, {"count": 270_000, "positions": positions}, tmp_path)
    assert found == positions
    assert kept <= 64 + 3 * 32
    assert changed == 0
