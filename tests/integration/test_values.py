"""What values become in a run (common/values.py, docs/values.md): the same on every way, or one clear error."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import subprocess
import sys
import types
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, SecretStr

import dipeo_nb as dp
from dipeo_nb.common import values
from dipeo_nb.common.json_values import decode, encode
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.values import (
    UnsupportedValueError,
    is_plain,
    json_text,
    parse_json,
    parse_structured,
    plain_value,
    same,
    well_formed,
)
from dipeo_nb.config import Settings
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import CodeError, NodeExecutionError, StorageError, ValidationError
from dipeo_nb.events import redis
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Runtime
from dipeo_nb.server import RunServer
from dipeo_nb.testing import scripted
from tests.support import value_kinds
from tests.support.examples import examples

HALF = "\ud83d"
OTHER_HALF = "\ude00"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path, llm=scripted()) as session:
        yield session


def strictly(text: str | bytes) -> Any:
    """Read as every other reader of JSON does: without NaN and infinities."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def diagram(*nodes: dict[str, Any], arrows: str = "generic") -> dict[str, Any]:
    """Start → the nodes in a row → End; what comes into a node of the row is `v`."""
    row = [{"label": "Start", "type": "start"}, *nodes, {"label": "End", "type": "endpoint"}]
    labels = [n["label"] for n in row]
    arrow = {"content_type": arrows}
    return {
        "version": "light",
        "nodes": row,
        "connections": [
            {"from": a, "to": b, **arrow, **({} if a == "Start" or b == "End" else {"label": "v"})} for a, b in pairwise(labels)
        ],
    }


def code(label: str, text: str, **props: Any) -> dict[str, Any]:
    return {"label": label, "type": "code_job", "props": {"code": text, **props}}


# The table.


def test_the_document_shows_what_happens():
    """Every row of docs/values.md is what a run of today gives; rows of libraries that are not installed are left out."""
    text = value_kinds.DOCUMENT.read_text(encoding="utf-8")
    for row in value_kinds.rows():
        assert value_kinds.line(row) in text, "run `python -m tests.support.value_kinds`"
        assert row.code == row.expression == row.resumed
    for kind in value_kinds.REFUSED:
        if kind.there:
            message, hint = value_kinds.refusal(kind.make)
            assert f"| {value_kinds.cell(kind.given)} | {message} {hint} |" in text
    assert text.count("\n| ``") == len(value_kinds.FORMS) + len(value_kinds.REFUSED)


@pytest.mark.parametrize("kind", [k for k in value_kinds.FORMS if k.there], ids=lambda k: k.given)
def test_a_form_is_plain_and_stays(kind: value_kinds.Kind):
    """Converted again, and through the record, it is what it was."""
    form = plain_value(kind.make())
    assert is_plain(form)
    assert same(plain_value(form), form)
    text = encode({"v": kind.make()})
    strictly(text)
    assert same(decode(text)["v"], form)


# Random values.

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
    st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010), max_size=4), st.binary(max_size=4), st.dates(),
    st.datetimes(), st.timedeltas(), st.decimals(), st.fractions(), st.complex_numbers(), st.uuids(),
)  # fmt: skip
KEYS = st.text(max_size=5) | st.integers(0, 50) | st.dates() | st.tuples(st.integers(0, 5), st.text(max_size=2))
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.tuples(inner, inner)
        | st.frozensets(st.text(max_size=3) | st.integers() | st.floats(), max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_every_value_has_a_form_or_a_clear_error(value: Any):
    """The form is plain, its own, and comes back from strict JSON as it was."""
    try:
        form = plain_value(value)
    except UnsupportedValueError as caught:
        error = caught
        form = None
    else:
        error = None
    if error is not None:
        assert "two keys" in error.message
        assert is_plain(plain_value(value, lossy=True))
        return
    assert is_plain(form)
    assert same(form, plain_value(form))
    text = encode({"v": value})
    strictly(text.encode())
    assert same(decode(text)["v"], form)
    assert decode(text).keys() == {"v"}
    strictly(json_text(value).encode())


CHILD = """
version: light
nodes:
- {label: Start, type: start}
- {label: Work, type: code_job, code: "return v"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Work, content_type: generic}
- {from: Work, to: End, content_type: generic}
"""
WAYS = """
version: light
nodes:
- {label: Start, type: start}
- {label: Function, type: ways_take}
- {label: Code, type: code_job, code: "kept = v; return v"}
- {label: Shared, type: code_job, code: "return kept"}
- {label: Text, type: code_job, code: "return v"}
- {label: Branch, type: condition, expression: "True"}
- {label: Passed, type: code_job, code: "return v"}
- {label: Object, type: code_job, code: "return v"}
- {label: Child, type: sub_diagram, diagram_name: child}
- {label: List, type: code_job, code: "return {'items': [{'v': v}, {'v': v}]}"}
- {label: Batch, type: sub_diagram, diagram_name: child, batch: true, batch_input_key: items}
- {label: Gate, type: ways_gate}
- {label: After, type: ways_take}
- {label: AfterCode, type: code_job, code: "return [v, kept]"}
connections:
- {from: Start, to: Function, content_type: generic}
- {from: Function, to: Code, label: v, content_type: generic}
- {from: Code, to: Shared, content_type: generic}
- {from: Code, to: Text, label: v, content_type: raw_text}
- {from: Text, to: Branch, label: v, content_type: raw_text}
- {from: "Branch[condtrue]", to: Passed, label: v, content_type: raw_text}
- {from: Passed, to: Object, label: v, content_type: object}
- {from: Function, to: Child, label: v, content_type: raw_text}
- {from: Function, to: List, label: v, content_type: generic}
- {from: List, to: Batch, content_type: generic}
- {from: Function, to: Gate, label: v, content_type: generic}
- {from: Code, to: Gate, content_type: generic}
- {from: Gate, to: After, label: v, content_type: raw_text}
- {from: After, to: AfterCode, label: v, content_type: generic}
"""


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Session, Path]]:
    base = tmp_path_factory.mktemp("ways")
    (base / "child.light.yaml").write_text(CHILD)
    with Session(base, llm=scripted(), trust_base=True) as session:
        yield session, base


@examples(6)
@given(st.lists(VALUES, min_size=4, max_size=6))
def test_random_values_are_the_same_on_every_way(ways: tuple[Session, Path], given_values: list[Any]):
    """Input, function, code, shared variable, arrows of every kind, condition, sub-diagram, batch, resume and fork."""
    session, base = ways
    try:
        expected = plain_value(given_values)
    except UnsupportedValueError:
        return
    seen: list[Any] = []
    failed: list[bool] = []

    @dp.node
    def ways_take(v: Any = None) -> Any:
        seen.append(plain_value(v))
        return v

    @dp.node
    def ways_gate(v: Any = None) -> Any:
        seen.append(plain_value(v))
        if not failed:
            failed.append(True)
            raise RuntimeError("the first time")
        return v

    run = session.start(WAYS, view=False, v=given_values)
    assert run.wait(60)
    assert failed, run.error
    run = session.resume(run.id, view=False)
    run.result(60)
    forked = session.fork(run, at="Code", view=False)
    forked.result(60)
    assert all(same(value, expected) for value in seen)
    for state in (run.state, forked.state):
        of = {state.label(i): n.output for i, n in state.nodes.items()}
        for label in ("Function", "Code", "Shared", "Text", "Branch", "Passed", "Object", "Child", "Gate", "After"):
            found = of[label]["v"] if label == "Branch" and isinstance(of[label], dict) else of[label]
            assert same(found, expected), label
        assert same(of["Batch"], [expected, expected])
        assert same(of["AfterCode"], [expected, expected])
    events = run_sync(session.runtime.services.store.events(run.id))
    assert same(events[0].payload["variables"]["v"], expected)
    for event in events:
        arrived = redis._decoded({b"event": redis._encoded(event)})
        assert arrived is not None
        assert encode(arrived._asdict()) == encode(event._asdict())
    with sqlite3.connect(base / ".dipeo" / "runs.db") as store:
        for (text,) in store.execute("SELECT payload FROM events WHERE run_id = ?", (run.id,)):
            strictly(text)
    store.close()


# Between nodes.


BETWEEN = [
    ("30", "v * 2", 60), ("1.5", "v * 2", 3.0), ("False", "'yes' if v else 'no'", "no"), ("None", "v is None", True),
    ("[1, 2]", "v + [3]", [1, 2, 3]), ("{'a': {'b': 1}}", "v['a']['b']", 1), ("'text'", "v.upper()", "TEXT"),
    ("float('nan')", "v != v", True), ("2**70", "v + 1", 2**70 + 1),
]  # fmt: skip
"""What one code job gives, what the next does with it, and the result."""


@pytest.mark.parametrize("arrows", ["raw_text", "object", "generic", "variable"])
def test_values_stay_themselves_between_code_jobs(session: Session, arrows: str):
    """On arrows of every kind."""
    nodes: list[dict[str, Any]] = [{"label": "Start", "type": "start"}]
    connections: list[dict[str, Any]] = []
    for i, (made, used, _) in enumerate(BETWEEN):
        nodes += [
            code(f"Make{i}", f"return {made}"),
            code(f"Use{i}", f"return {used}"),
            {"label": f"End{i}", "type": "endpoint"},
        ]
        connections += [
            {"from": "Start", "to": f"Make{i}"},
            {"from": f"Make{i}", "to": f"Use{i}", "label": "v", "content_type": arrows},
            {"from": f"Use{i}", "to": f"End{i}", "content_type": arrows},
        ]
    outputs = session.run({"version": "light", "nodes": nodes, "connections": connections}, view=False).outputs
    for i, (_, _, expected) in enumerate(BETWEEN):
        assert outputs[f"End{i}"] == expected
        assert type(outputs[f"End{i}"]) is type(expected)


def test_a_text_arrow_gives_templates_text_and_expressions_the_value(session: Session):
    """Also fields of the value, and None as nothing."""
    row = [code("Make", "return {'n': 11, 'none': None}"), {"label": "Big", "type": "condition", "expression": "v.n > 10"}]
    shown = {"label": "Show", "type": "template_job", "template_content": "{{v}}|{{v.n}}|{{v.none}}"}
    made = diagram(*row, shown, arrows="raw_text")
    made["connections"][2]["from"] = "Big[condtrue]"
    assert session.run(made, view=False).output == '{\n  "n": 11,\n  "none": null\n}|11|'


def test_json_text_that_arrives_at_a_code_job_is_read(session: Session):
    """A list or an object; a number or a word in quotes is text still, except through an object arrow."""
    for text, expected in (
        ('{"a": 1}', {"a": 1}),
        (" [1, 2]\n", [1, 2]),
        ("7", "7"),
        ('{"a": ', '{"a": '),
        ("[link](x)", "[link](x)"),
    ):
        made = diagram(code("Make", f"return {text!r}"), code("Use", "return v"), arrows="raw_text")
        assert session.run(made, view=False).output == expected
    made = diagram(code("Make", "return '7'"), code("Use", "return v"), arrows="object")
    assert session.run(made, view=False).output == 7


@pytest.mark.parametrize(
    ("kind", "answer", "expected", "shown"),
    [("number", "41", 41, "41"), ("number", " 1,5 ", 1.5, " 1,5 "), ("number", "1e3", 1000.0, "1e3"), ("integer", "+007", 7, "+007"),
     ("boolean", "No", False, "No"), ("boolean", "y", True, "y"), (None, "41", "41", "41"), ("email", "a@b.c", "a@b.c", "a@b.c")],
)  # fmt: skip
def test_a_validated_answer_is_what_it_means(session: Session, kind: str | None, answer: str, expected: Any, shown: str):
    """Code gets the number or the boolean, templates what was typed."""
    ask = {"label": "Ask", "type": "user_response", "props": {"prompt": "?", **({"validation_type": kind} if kind else {})}}
    run = session.run(diagram(ask, code("Use", "return v"), arrows="raw_text"), view=False, answers={"Ask": answer})
    assert run.output == expected
    assert type(run.output) is type(expected)
    show = {"label": "Show", "type": "template_job", "template_content": "{{v}}"}
    assert session.run(diagram(ask, show, arrows="raw_text"), view=False, answers={"Ask": answer}).output == shown


def test_code_that_takes_a_file_for_its_rows_is_told_how_to_get_them(session: Session, tmp_path: Path):
    """The text of a CSV file is what csv.DictReader wants; whoever iterates over it as rows gets the way to the rows."""
    (tmp_path / "sales.csv").write_text("region,amount\nnorth,10\nsouth,20\n")
    load = {"label": "Load", "type": "db", "props": {"operation": "read", "file": "sales.csv"}}
    reader = "import csv, io\nreturn [r['region'] for r in csv.DictReader(io.StringIO(v))]"
    assert session.run(diagram(load, code("Use", reader), arrows="raw_text"), view=False).output == ["north", "south"]
    adds = code("Sum", "return sum(float(row['amount']) for row in v)")
    assert session.run(diagram(load, adds, arrows="object"), view=False).output == 30
    with pytest.raises(CodeError) as caught:
        session.run(diagram(load, adds, arrows="raw_text"), view=False)
    assert (caught.value.hint or "").startswith(
        "The input 'v' arrived as text; to get the rows or fields in it, give the arrow `content_type: object`."
    )
    with pytest.raises(CodeError) as caught:
        session.run(diagram(load, code("Sum", "len(v)\nreturn 1 / 0"), arrows="raw_text"), view=False)
    assert "content_type" not in (caught.value.hint or ""), "another error has nothing to do with it"


def test_functions_get_what_their_annotations_say(session: Session):
    """A `str` the text of a text arrow, `bytes` the bytes, anything else the value; an iterator gives its items."""

    @dp.node
    def as_text(v: str) -> str:
        return v

    @dp.node
    def as_bytes(v: bytes) -> list[int]:
        return list(v)

    @dp.node
    def as_it_is(v: Any) -> Any:
        return [type(v).__name__, v]

    @dp.node
    def many(v: int) -> Any:
        yield from range(v)

    def through(kind: str, made: str) -> Any:
        return session.run(diagram(code("Make", made), {"label": "F", "type": kind}, arrows="raw_text"), view=False).output

    assert through("as_text", "return 30") == "30"
    assert through("as_bytes", r"return b'\x00\xff'") == [0, 255]
    assert through("as_it_is", "return {'a': 1}") == ["dict", {"a": 1}]
    assert through("many", "return 3") == [0, 1, 2]


def test_what_a_node_does_to_its_input_is_not_seen_by_others(session: Session):
    """Nor what a function does to what it gave."""
    log: list[int] = []

    @dp.node
    def grows() -> list[int]:
        log.append(len(log))
        return log

    @dp.node
    def spoils(v: Any) -> Any:
        v.append("spoilt")
        return v

    made = diagram({"label": "A", "type": "grows"}, {"label": "B", "type": "spoils"}, code("C", "return [v, a]"))
    made["connections"].append({"from": "A", "to": "C", "label": "a", "content_type": "generic"})
    assert session.run(made, view=False).output == [[0, "spoilt"], [0]]


# What has no form.


class Raising:
    def __str__(self) -> str:
        raise RuntimeError("str")

    __repr__ = __iter__ = __len__ = __str__  # type: ignore[assignment]


class RaisingMapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("items")


class Endless:
    """A model whose dump is another model."""

    def model_dump(self, **options: Any) -> Any:
        return Endless()


class RaisingModel(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    inner: Any = Raising()


def no_end() -> Iterator[int]:
    while True:
        yield 1


def raising() -> Iterator[int]:
    yield 1
    raise LookupError(HALF)


HOSTILE = [
    Raising(), RaisingMapping(a=1), Endless(), RaisingModel(), no_end, raising, Raising, len, types, NotImplemented, ..., object(),
    {"a": [Raising()]}, {Raising(): 1}, {(object(),): 1}, [{frozenset([object()])}], 10**4300, -(10**5000), {10**5000: 1},
    value_kinds._cycle(), value_kinds._deep(10_000), {True: 1, "true": 2}, {math.nan: 1, "NaN": 2}, {1: 1, "1": 2},
    Enum("E", {"a": object()}).a, asyncio.Lock(),
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=lambda v: type(v).__name__)
def test_hostile_values_are_one_clear_error(value: Any):
    """Whatever they do, the error names the place and says what to do; shown all the same, they are harmless."""
    with pytest.raises(UnsupportedValueError) as caught:
        plain_value({"at": [value]}, "result")
    assert caught.value.place.startswith("result.at[0]")
    assert caught.value.message.startswith(caught.value.place)
    assert caught.value.hint.endswith(".")
    caught.value.message.encode()
    try:
        strictly(encode({"at": value}))
    except StorageError as refused:
        assert "cannot be stored" in refused.message  # noqa: PT017 - mappings with clashing keys are JSON all the same
    assert is_plain(plain_value({"at": [value]}, lossy=True))
    strictly(json_text({"at": value}).encode())


def test_parts_in_several_places_are_fine_and_cycles_are_not():
    """Quickly, however often a part occurs."""
    part: list[Any] = [1]
    assert is_plain({"a": part, "b": [part, part], "c": [[], []]})
    menu = value_kinds._cycle()
    menu["children"] *= 20
    assert not is_plain(menu)
    assert not is_plain([part, menu, menu])
    for _ in range(20):
        part = [part, part]
    assert is_plain(part)
    for _ in range(150):
        part = [part, part]
    assert not is_plain(part)


def test_what_has_no_end_is_not_followed(monkeypatch: pytest.MonkeyPatch):
    """Iterators without end, and values that are small in memory and enormous written out."""
    monkeypatch.setattr(values, "MAX_ITERATED", 1000)
    monkeypatch.setattr(values, "MAX_VALUES", 5000)
    with pytest.raises(UnsupportedValueError, match=r"v\[0\] has more than 1,000 values"):
        plain_value([no_end()], "v")
    with pytest.raises(UnsupportedValueError, match="LookupError"):
        plain_value(raising())
    shared: list[Any] = [1]
    for _ in range(150):
        shared = [shared, shared]
    with pytest.raises(UnsupportedValueError, match="has more than 5,000 values"):
        plain_value(shared)
    assert not is_plain(shared)
    with pytest.raises(UnsupportedValueError, match="has more than 5,000 values"):
        plain_value(range(10**12))


def test_depth_is_limited_where_every_reader_can_follow(session: Session):
    """200 levels go through everything, with a secret in the innermost; 201 do not."""
    secret = "sk-" + "x1" * 12
    made = diagram(code("Make", "for _ in range(n): d = [d]\nreturn d"), code("Use", "return v"), arrows="raw_text")
    for leaf in (1, math.nan, HALF, "sk-" + "x1" * 12):
        deep = leaf
        for _ in range(200):
            deep = [deep]
        run = session.run(diagram(code("Use", "return v"), arrows="raw_text"), view=False, v=deep)
        events = run_sync(session.runtime.services.store.events(run.id))
        assert same(events[0].payload["variables"]["v"], run.output)
    output = session.run(made, view=False, d=secret, n=200).output
    for _ in range(200):
        (output,) = output
    assert output == "[hidden]", "what is recorded"
    with pytest.raises(CodeError, match="nested more than 200 levels deep"):
        session.run(made, view=False, d=1, n=201)


def test_an_input_without_a_form_is_refused_before_anything_runs(session: Session):
    """One error that names the place; no run is recorded."""
    with pytest.raises(ValidationError, match=r"The input x\.rows\[0\] is of type Node") as caught:
        session.start(diagram(code("A", "return x")), view=False, x={"rows": [value_kinds.Node()]})
    assert caught.value.hint
    assert len(session.runs()) == 0


@pytest.mark.parametrize("made", ["10**5000", "print", "{1: 1, '1': 2}", "menu", "(i for i in iter(int, 1))"])
def test_a_result_without_a_form_fails_its_node(session: Session, made: str):
    """Of a code job and of a function; the run goes on where its diagram says so, and the worker lives on."""
    before = "menu = {'children': [{} for _ in range(20)]}\nfor c in menu['children']: c['parent'] = menu\n"
    with pytest.raises(CodeError, match="result") as caught:
        session.run(diagram(code("Make", f"{before}return {made}")), view=False)
    assert caught.value.node == "Make"
    assert "ValueError" not in caught.value.message
    made_on = diagram(code("Make", f"{before}return {made}", on_error="continue"), code("Next", "return str(v['error'])"))
    assert "result" in session.run(made_on, view=False).output

    @dp.node
    def gives() -> Any:
        names: dict[str, Any] = {}
        exec(f"{before}made = {made}", names)
        return names["made"]

    run = session.start(diagram({"label": "F", "type": "gives"}), view=False)
    with pytest.raises(NodeExecutionError, match="The result"):
        run.result(60)
    assert run.status == "failed"
    assert session.runs(1)[0].status == "failed"


def test_a_custom_handler_that_publishes_anything(session: Session):
    """Variables of a run are values, too."""

    @dp.node
    async def publishes(context: NodeContext) -> str:
        context.publish("when", date(2026, 1, 2))
        context.publish("x", {1, 2})
        return "done"

    run = session.run(diagram({"label": "P", "type": "publishes"}, code("Use", "return [when, x]")), view=False)
    assert run.output == ["2026-01-02", [1, 2]]

    @dp.node
    async def publishes_none(context: NodeContext) -> str:
        context.publish("x", object())
        return "done"

    with pytest.raises(NodeExecutionError, match="The variable x is of type object"):
        session.run(diagram({"label": "P", "type": "publishes_none"}), view=False)


# NaN, and what UTF-8 cannot hold.


def test_not_a_number_stays_one_for_python_and_is_null_elsewhere(session: Session, tmp_path: Path):
    """In the run, after a resume and from the store a float; in files of JSON, in exports and over HTTP null."""
    made = diagram(code("Make", "return {'a': float('nan'), 'b': [float('inf')]}"), code("Use", "return v"))
    made["nodes"][-1]["props"] = {"save_to_file": True, "file_name": "out.json"}
    run = session.run(made, view=False)
    assert str(run.output) == "{'a': nan, 'b': [inf]}"
    assert str(session.open_run(run.id).outputs["End"]) == "{'a': nan, 'b': [inf]}"
    assert strictly((tmp_path / "out.json").read_bytes()) == {"a": None, "b": [None]}

    async def asked() -> list[httpx.Response]:
        server = RunServer(Runtime(Settings(base_dir=tmp_path), services=session.runtime.services), token="t", hosts=())
        transport = httpx.ASGITransport(server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x", params={"token": "t"}) as client:
            return [await client.get(f"/runs/{run.id}"), await client.get(f"/runs/{run.id}/events")]

    report, events = run_sync(asked())
    assert strictly(report.content)["outputs"]["End"] == {"a": None, "b": [None]}
    frames = [strictly(line.removeprefix("data: ")) for line in events.text.splitlines() if line.startswith("data: ")]
    assert [f["data"]["output"] for f in frames if f["type"] == EventType.NODE_COMPLETED][-1] == {"a": None, "b": [None]}


def test_old_records_of_not_a_number_are_read_as_they_were_written():
    """0.1 wrote text."""
    assert decode('{"output":"nan","x":null}') == {"output": "nan", "x": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("plain", "plain"), (HALF, "\\ud83d"), (HALF + OTHER_HALF, "😀"), (OTHER_HALF + HALF, "\\ude00\\ud83d"),
     ("caf\udce9", "caf\\udce9"), (HALF + HALF + OTHER_HALF + "é", "\\ud83d😀é")],
)  # fmt: skip
def test_lone_surrogates_are_escaped_and_halves_joined(text: str, expected: str):
    """In one way."""
    assert well_formed(text) == expected
    assert plain_value({text: text}) == {expected: expected}
    assert parse_json(json.dumps({"a": text})) == {"a": expected}
    stream = redactor.stream()
    assert "".join([*map(stream.feed, text), stream.rest()]) == expected


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_no_store_sees_a_surrogate(tmp_path: Path, store: str):
    """From inputs, code, what it prints, logs and raises, functions, pieces of a stream and answers."""

    @dp.node
    async def streams(context: NodeContext) -> str:
        for piece in ("hi ", HALF, OTHER_HALF, " and ", HALF):
            context.execution.emit_delta(context.node, {"kind": "text", "text": piece, "is_partial": True, "run": context.run})
        context.execution.emit_log(context.node, "INFO", HALF, extra={HALF: HALF})
        return HALF

    noisy = f"import logging\nprint({HALF!r})\nlogging.getLogger('x').warning({HALF!r})\nkept = {HALF!r}\nreturn {{v: kept}}"
    ask = {"label": "Ask", "type": "user_response", "props": {"prompt": "{{v}}?", "timeout": 20}}
    fails = code("Fails", f"raise ValueError({HALF!r})", on_error="continue")
    made = diagram({"label": "S", "type": "streams"}, code("Noisy", noisy), ask, fails)
    kept: dict[str, Any] = {"store": InMemoryRunStore()} if store == "memory" else {}
    with Session(tmp_path, llm=scripted(), **kept) as session:
        run = session.run(made, view=False, answers={"Ask": HALF}, inputs={HALF: HALF})
        events = run_sync(session.runtime.services.store.events(run.id))
    assert run.status == "completed"
    assert all(is_plain(json.loads(json.dumps(e.payload))) for e in events)
    told = "".join(e.payload.get("text", "") for e in events if e.type is EventType.NODE_OUTPUT and e.payload["kind"] == "text")
    assert told == "hi 😀 and \\ud83d"


def test_errors_that_cannot_be_shown_are_errors_of_their_node(session: Session):
    """Of code and of a function; an error output is the same before and after a resume."""
    raises = "class Odd(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise Odd(1)"
    with pytest.raises(CodeError, match="its text cannot be read"):
        session.run(diagram(code("A", raises)), view=False)
    seen: list[Any] = []

    @dp.node
    def odd() -> None:
        exec(raises, {})

    @dp.node
    def half() -> None:
        raise ValueError(HALF)

    @dp.node
    def once(v: Any) -> Any:
        seen.append(v)
        if len(seen) == 1:
            raise RuntimeError("the first time")
        return v

    with pytest.raises(NodeExecutionError, match="its text cannot be read"):
        session.run(diagram({"label": "A", "type": "odd"}), view=False)
    goes_on = {"label": "A", "type": "half", "props": {"on_error": "continue"}}
    run = session.start(diagram(goes_on, {"label": "B", "type": "once"}), view=False)
    assert run.wait(60)
    assert session.resume(run.id, view=False).result(60).output == {
        "error": "ValueError: \\ud83d",
        "type": "NodeExecutionError",
    }
    assert seen[0] == seen[1]


def test_arguments_that_cannot_be_decoded_do_not_fail_a_run(tmp_path: Path):
    """Names and values of inputs, and a file name from a listing, through the program itself."""
    (tmp_path / "t.light.yaml").write_text(
        json.dumps(diagram(code("List", "import os\nreturn [x, sorted(os.listdir('names'))]")))
    )
    (tmp_path / "names").mkdir()
    try:
        open(bytes(tmp_path / "names") + b"/caf\xe9", "w").close()
    except OSError:
        pytest.skip("not here: file names are always UTF-8")
    command = [sys.executable, "-m", "dipeo_nb", "run", "t", "--json", "--base-dir", str(tmp_path), "--input", b"x=\xff"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert strictly(done.stdout)["outputs"]["End"] == ["\\udcff", ["caf\\udce9"]]


# Details.


def test_the_worker_loads_nothing_else_of_the_package(session: Session):
    """Its own files alone, by their paths: what the diagram brings cannot take their place."""
    found = session.run(diagram(code("A", "import sys\nreturn sorted(m for m in sys.modules if 'dipeo' in m)")), view=False)
    assert found.output == [
        "__dipeo__",
        "_dipeo_code_modules",
        "_dipeo_code_objects",
        "_dipeo_code_processes",
        "_dipeo_code_worker",
        "_dipeo_values",
    ]


class Word(StrEnum):
    A = "a"


class Number(IntEnum):
    ONE = 1


class OddText(str):
    def __str__(self) -> str:
        raise RuntimeError("odd")

    def isascii(self) -> bool:
        raise RuntimeError("odd")


class OddNumber(int):
    def __int__(self) -> int:
        raise RuntimeError("odd")


class Secretive(BaseModel):
    key: SecretStr = SecretStr("hidden")
    url: AnyUrl = AnyUrl("http://x/")
    data: bytes = b"\xff"
    when: timedelta = timedelta(1)
    ratio: float = math.nan


def test_exotic_subclasses_are_what_they_are_made_of():
    """Their own methods are not asked."""
    given = [Word.A, Number.ONE, OddText("t"), OddNumber(3), {Word.A: Number.ONE, OddText("k"): 1}]
    form = plain_value(given)
    assert form == ["a", 1, "t", 3, {"a": 1, "k": 1}]
    assert is_plain(form)
    shown = plain_value([Secretive()])
    assert str(shown) == "[{'key': '**********', 'url': 'http://x/', 'data': {'base64': '/w=='}, 'when': 'P1D', 'ratio': nan}]"


def test_numbers_and_texts_that_look_alike_stay_apart():
    """1, True and 1.0 are three values."""
    assert not same(1, True)
    assert not same(1, 1.0)
    assert same({"a": math.nan, "b": 1}, {"b": 1, "a": math.nan})
    assert parse_structured("[1, 2") == "[1, 2"
    with pytest.raises(ValueError, match="not JSON"):
        parse_json(" NaN\n")
    with pytest.raises(ValueError, match="deep"):
        parse_json("[" * 100_000)
    assert str(parse_json('{"a": NaN}')) == "{'a': nan}"


def test_durations_and_times_are_read_back_by_pydantic():
    """ISO 8601, also of negative ones and of fractions."""
    from pydantic import TypeAdapter

    for value in (timedelta(0), timedelta(days=-1, seconds=1), timedelta(microseconds=-5), timedelta(days=400, hours=3)):
        assert TypeAdapter(timedelta).validate_python(plain_value(value)) == value
    for kind, value in ((datetime, datetime(2026, 1, 2, 3, 4, 5, 6, UTC)), (Decimal, Decimal("1E+400"))):
        assert TypeAdapter(kind).validate_python(plain_value(value)) == value


def test_pandas_keeps_its_labels():
    """An index that only counts rows is left out; any other is kept, or the clash is an error."""
    pd = pytest.importorskip("pandas")
    np = pytest.importorskip("numpy")
    frame = pd.DataFrame({"k": ["x", "y", "x"], "j": [1, 2, 3], "v": [1.5, math.nan, 3]})
    assert plain_value(frame.groupby("k").v.sum()) == {"x": 4.5, "y": 0.0}
    assert plain_value(frame.groupby(["k", "j"]).v.count()) == {'["x", 1]': 1, '["x", 3]': 1, '["y", 2]': 0}
    assert plain_value(frame.set_index("j").loc[2:2]) == [{"j": 2, "k": "y", "v": pytest.approx(math.nan, nan_ok=True)}]
    assert plain_value(frame.sort_values("j").reset_index(drop=True)[["j"]]) == [{"j": 1}, {"j": 2}, {"j": 3}]
    with pytest.raises(UnsupportedValueError, match="two columns of the name 'j'"):
        plain_value(frame.rename_axis("j"))
    with pytest.raises(UnsupportedValueError, match="two keys"):
        plain_value(frame.set_index("k").v)
    assert plain_value(pd.DataFrame({"i": pd.array([1, None], dtype="Int64")})) == [{"i": 1}, {"i": None}]
    assert plain_value(pd.Categorical(["b", "a"])) == ["b", "a"]
    assert plain_value(np.ma.array([1, 2], mask=[False, True])) == [1, None]
    assert plain_value(np.array([(1, "a")], dtype=[("n", int), ("t", "U1")])) == [{"n": 1, "t": "a"}]
    assert plain_value({np.int64(1): np.float32(0.5), "b": np.bool_(True)}) == {"1": 0.5, "b": True}
    assert plain_value(np.array(["2026-01-02", "NaT"], dtype="datetime64[ns]")) == ["2026-01-02T00:00:00", None]
    assert plain_value(pd.Timedelta("1h 0.5s")) == "PT1H0.5S"


def test_events_hold_what_they_are_given(tmp_path: Path):
    """Logs and facts of a run never fail it."""
    event = Event(
        1, EventType.EXECUTION_LOG, "r", 0.0, None, {"extra": plain_value({"o": object(), "g": no_end()}, lossy=True)}
    )
    assert decode(encode(event.payload)) == {"extra": {"o": "<object>", "g": "<generator>"}}
