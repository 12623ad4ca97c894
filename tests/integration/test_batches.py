"""Batches of person_job and sub_diagram nodes: which items there are, what each one's work sees, and that each is done once."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dipeo_nb
from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import LLMRequest
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.errors import BudgetExceededError, NodeExecutionError, ProviderError
from dipeo_nb.execution.metrics import measure
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import ScriptedClient, SlowClient
from tests.support.examples import examples
from tests.support.row_diagrams import asking, diagram

Answer = Callable[[LLMRequest], Any]


def nested(child: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"label": "Sub", "type": "sub_diagram", "diagram_data": child, **more}


def prompts(llm: ScriptedClient) -> list[str]:
    return [request.messages[-1].content for request in llm.requests]


def echo(request: LLMRequest) -> str:
    return request.messages[-1].content


def logged(run: Any) -> str:
    return "\n".join(e.payload["message"] for e in run.events if e.type is EventType.EXECUTION_LOG)


# What `default` is.

ITEMS: list[tuple[Any, str]] = [
    ("hello world", "hello world"),
    (7, "7"),
    ([1, 2], "[\n  1,\n  2\n]"),
    ({"region": "EU"}, '{\n  "region": "EU"\n}'),
    ({"name": "timeout", "default": 30}, '{\n  "name": "timeout",\n  "default": 30\n}'),
    ({"default": "inner"}, "inner"),
    ({"default": {"default": {"path": "a"}}}, '{\n  "path": "a"\n}'),
]


@pytest.mark.parametrize(("item", "text"), ITEMS, ids=[str(item) for item, _ in ITEMS])
@pytest.mark.parametrize("how", ["person", "sub", "grandchild"])
def test_default_is_the_item(tmp_path: Path, item: Any, text: str, how: str):
    """In a batch of a person_job, in a child, and in a child's child: `{{default}}` is the item, whatever keys it has."""
    llm = ScriptedClient(echo)
    one = asking("<{{ default }}>")
    batch: Mapping[str, Any]
    if how == "person":
        batch = {**one, "batch": True}
    elif how == "sub":
        batch = nested(diagram(one), batch=True)
    else:
        batch = nested(diagram(nested(diagram(one))), batch=True)
    with Session(tmp_path, llm=llm) as dp:
        dp.run(diagram(batch), inputs={"items": [item, item]}, view=False)
    assert prompts(llm) == [f"<{text}>"] * 2


@pytest.mark.parametrize(("item", "text"), ITEMS[:5], ids=[str(item) for item, _ in ITEMS[:5]])
def test_default_is_what_was_passed(tmp_path: Path, item: Any, text: str):
    """An unlabelled input of a sub_diagram is `{{default}}` of the child, however deep, also behind a condition, in
    expressions and as the first parameter of a function."""

    @dipeo_nb.node
    def make() -> Any:
        return item

    @dipeo_nb.node
    def same(value: Any) -> Any:
        return value

    inner = diagram(
        {"label": "If", "type": "condition", "condition_type": "custom", "expression": "default == default"},
        asking("<{{ default }}>"),
        arrows=[
            {"from": "Start", "to": "If"},
            {"from": "If_condtrue", "to": "Ask"},
            {"from": "Ask", "to": "End"},
        ],
    )
    llm = ScriptedClient(echo)
    with Session(tmp_path, llm=llm) as dp:
        dp.run(diagram({"label": "Make", "type": "make"}, nested(diagram(nested(inner)))), view=False)
        whole = nested(diagram(nested(diagram({"label": "Same", "type": "same"}))))
        assert dp.run(diagram({"label": "Make", "type": "make"}, whole), view=False).output == item
    assert prompts(llm) == [f"<{text}>"]


def test_keys_of_an_item_are_names(tmp_path: Path):
    """Also one that is called `item`; `_batch_index` and `_batch_total` are the batch's."""
    llm = ScriptedClient(echo)
    prompt = "{{ region }} {{ item }} {{ _batch_index }}/{{ _batch_total }} {{ other }}"
    items = [{"region": "EU", "item": "tea", "_batch_index": 9}, {"region": "US", "item": "jam"}]
    with Session(tmp_path, llm=llm) as dp:
        for batch in ({**asking(prompt), "batch": True}, nested(diagram(asking(prompt)), batch=True)):
            dp.run(diagram(batch), inputs={"items": items, "other": "x"}, view=False)
    assert prompts(llm) == ["EU tea 0/2 x", "US jam 1/2 x"] * 2


@pytest.mark.parametrize("items", [[{"default": {"path": "a"}}, {"default": {"path": "b"}}], [{"path": "a"}, {"path": "b"}]])
def test_code_reads_what_was_passed_under_the_start_nodes_output(tmp_path: Path, items: list[Any]):
    """`inputs["default"]` is all that the start node hands on, and its key `default` is the item; the name `default` is, too."""
    code = "result = [inputs['default']['default']['path'], default['path'], path]"
    child = diagram({"label": "P", "type": "code_job", "code": code})
    with Session(tmp_path, llm=ScriptedClient()) as dp:
        assert dp.run(diagram(nested(child, batch=True)), inputs={"items": items}, view=False).output == [
            ["a"] * 3,
            ["b"] * 3,
        ]


def test_the_same_code_reads_what_a_run_was_given(tmp_path: Path):
    """Run by itself, with its input as a variable: no level is missing, and none shows."""
    code = "result = [inputs['default']['default']['path'], default['path'], path, sorted(inputs['default'])]"
    with Session(tmp_path, llm=ScriptedClient()) as dp:
        found = dp.run(diagram({"label": "P", "type": "code_job", "code": code}), inputs={"path": "a"}, view=False)
    assert found.output == ["a", "a", "a", ["path"]]


def test_a_batch_in_a_batch(tmp_path: Path):
    """An item that is a list is the batch of the child."""
    inner = nested(diagram(nested(diagram(asking("{{ default }}")), batch=True)), batch=True)
    with Session(tmp_path, llm=ScriptedClient(echo)) as dp:
        found = dp.run(diagram(inner), inputs={"items": [["a", "b"], [], ["c"]]}, view=False)
    assert found.output == [["a", "b"], [], ["c"]]


# Which items there are.

FOUND: dict[str, tuple[Any, str | None, list[Any]]] = {
    "unlabelled list": ([1, 2], None, [1, 2]),
    "labelled list": ([1, 2], "items", [1, 2]),
    "mapping with the key": ({"items": [1, 2], "more": 3}, None, [1, 2]),
    "mapping with the key under the label": ({"items": [1, 2]}, "items", [1, 2]),
    "mapping with the key under another label": ({"items": [1, 2]}, "data", [1, 2]),
    "text of a list": ("[1, 2]", "items", [1, 2]),
    "text of a mapping": ('{"items": [1, 2]}', "items", [1, 2]),
    "tuple": ((1, 2), "items", [1, 2]),
    "one value": ("tea", "items", ["tea"]),
    "one mapping": ({"a": 1}, "items", [{"a": 1}]),
    "empty": ([], "items", []),
    "empty text of a list": ("[]", None, []),
    "empty inside": ({"items": []}, "items", []),
}


@pytest.mark.parametrize("kind", ["person", "sub"])
@pytest.mark.parametrize("name", FOUND)
def test_items_are_found(tmp_path: Path, name: str, kind: str):
    """Lists in every form; what is no list is one item, and the log warns of it; nothing is nothing to do."""
    value, label, items = FOUND[name]

    @dipeo_nb.node
    def make() -> Any:
        return value

    one = asking("{{ default }}")
    batch = {**one, "batch": True} if kind == "person" else nested(diagram(one), batch=True)
    last = batch["label"]
    arrows: list[Mapping[str, Any]] = [
        {"from": "Start", "to": "Make"},
        {"from": "Make", "to": last, "content_type": "generic", **({"label": label} if label else {})},
        {"from": last, "to": "End", "content_type": "generic"},
    ]
    llm = ScriptedClient(echo)
    with Session(tmp_path, llm=llm) as dp:
        run = dp.run(diagram({"label": "Make", "type": "make"}, batch, arrows=arrows), view=False)
    assert len(llm.requests) == len(items)
    if kind == "person":
        body = run.output
        assert (body["total_items"], body["successful"], body["failed"], body["errors"]) == (
            len(items),
            len(items),
            0,
            [],
        )
        results = [one["output"] for one in body["results"]]
    else:
        results = run.output
    assert len(results) == len(items)
    assert ("the batch has one item" in logged(run)) == name.startswith("one ")
    assert ("is empty: there is nothing to do" in logged(run)) == name.startswith("empty")


LACKING: dict[str, tuple[Any, str | None, str]] = {
    "mapping without the key": ({"regions": [1]}, None, "Set batch_input_key: regions"),
    "another label": ([1, 2], "regions", "Set batch_input_key: regions"),
    "text": ("tea", None, "Label an incoming arrow 'items'"),
    "null": (None, "items", "'items', the items of the batch of 'Sub', is null"),
}


@pytest.mark.parametrize("name", LACKING)
def test_no_such_input_is_an_error(tmp_path: Path, name: str):
    """Never a batch of one item that nobody meant; the error says what there is."""
    value, label, words = LACKING[name]

    @dipeo_nb.node
    def make() -> Any:
        return value

    arrows: list[Mapping[str, Any]] = [
        {"from": "Start", "to": "Make"},
        {"from": "Make", "to": "Sub", "content_type": "generic", **({"label": label} if label else {})},
        {"from": "Sub", "to": "End"},
    ]
    llm = ScriptedClient()
    batch = nested(diagram(asking("{{ default }}")), batch=True)
    with Session(tmp_path, llm=llm) as dp, pytest.raises(NodeExecutionError) as caught:
        dp.run(diagram({"label": "Make", "type": "make"}, batch, arrows=arrows), view=False)
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert not llm.requests


@pytest.mark.parametrize(
    ("key", "label", "code", "found"),
    [
        ("items", "regions", "return [1]", True),
        ("nothere", "items", "return [1]", True),
        ("items", "items", "return [1]", False),
        ("items", None, "return [1]", False),
        ("items", "data", "return {'items': [1]}", False),
        ("items", "data", "items = [1]", False),
    ],
)
def test_validate_finds_batches_without_items(tmp_path: Path, key: str, label: str | None, code: str, found: bool):
    """Only where neither an arrow, a mapping nor code can bring them."""
    batch = {**asking("{{ default }}"), "batch": True, "batch_input_key": key}
    arrows: list[Mapping[str, Any]] = [
        {"from": "Start", "to": "Make"},
        {"from": "Make", "to": "Ask", **({"label": label} if label else {})},
        {"from": "Ask", "to": "End"},
    ]
    with Session(tmp_path) as dp:
        document = dp.load(diagram({"label": "Make", "type": "code_job", "code": code}, batch, arrows=arrows))
        told = [d for d in document.check(base_dir=tmp_path) if f"names '{key}'" in d.message]
    assert len(told) == found
    if found:
        assert f"Did you mean batch_input_key: {label}?" in str(told[0])


# Each item once.


class Flaky:
    """A model that fails for an item as often as said, and counts."""

    def __init__(self, failures: Mapping[str, int]) -> None:
        self.left = Counter(failures)
        self.answered: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    def __call__(self, request: LLMRequest) -> Any:
        item = request.messages[-1].content
        self.asked[item] += 1
        if self.left[item] > 0:
            self.left[item] -= 1
            return ProviderError(f"No answer for {item}.", hint="Ask again.", provider="test")
        self.answered[item] += 1
        return f"re {item}"


def test_retries_of_a_person_ask_again_only_what_failed(tmp_path: Path):
    """In the running process; every answer is paid and remembered once; what still fails at the end is reported."""
    model = Flaky({"1": 1, "2": 9})
    batch = asking("{{ default }}", batch=True, retries=2, retry_delay=0.001, batch_parallel=False, memorize_to="ALL_MESSAGES")
    llm = ScriptedClient(model)
    with Session(tmp_path, llm=llm) as dp:
        run = dp.run(diagram(batch), inputs={"items": ["0", "1", "2", "3"]}, view=False)
    assert model.answered == {"0": 1, "1": 1, "3": 1}
    assert model.asked == {"0": 1, "1": 2, "2": 3, "3": 1}
    assert [(r["index"], r["output"]) for r in run.output["results"]] == [(0, "re 0"), (1, "re 1"), (3, "re 3")]
    assert [(e["index"], e["error_type"]) for e in run.output["errors"]] == [(2, "ProviderError")]
    assert len(run.conversation) == 6
    assert run.run.node("Ask").meta["calls"] == 3


def test_the_bill_of_a_batch_that_is_tried_again(tmp_path: Path):
    """Children that failed, and those that were there already, are counted once: after a retry, a failure, a resume."""
    model = Flaky({"b2": 3})
    child = diagram(asking("a{{ default }}"), {**asking("b{{ _batch_index }}"), "label": "Then"})
    batch = nested(child, batch=True, retries=1, retry_delay=0.001)
    with Session(tmp_path, llm=ScriptedClient(model)) as dp:
        run = dp.start(diagram(batch), inputs={"items": [0, 1, 2]}, view=False)
        with pytest.raises(NodeExecutionError, match=r"1 of 3 items failed; item 2: .* at 'Then'"):
            run.result()
        run = run.resume(view=False)
        result = run.result()
        assert result.output == ["re b0", "re b1", "re b2"]
        assert model.answered == {f"{kind}{i}": 1 for kind in "ab" for i in range(3)}
        children = [dp.open_run(one) for one in run.node("Sub").children]
        assert len(children) == 3
        assert result.usage.total == sum(one.usage.total or 0 for one in children)
        metrics = measure(run.events)
        assert (metrics.usage.total, metrics.calls) == (result.usage.total, 6)


def test_a_single_child_goes_on_where_it_failed(tmp_path: Path):
    """`retries` of a sub_diagram that is no batch."""
    model = Flaky({"second": 1})
    child = diagram(asking("first"), {**asking("second"), "label": "Then"})
    with Session(tmp_path, llm=ScriptedClient(model)) as dp:
        run = dp.run(diagram(nested(child, retries=1, retry_delay=0.001)), view=False)
        assert len(run.run.node("Sub").children) == 1
        assert run.usage.total == dp.open_run(run.run.node("Sub").children[0]).usage.total
    assert model.answered == {"first": 1, "second": 1}
    assert [m["content"] for m in run.conversation] == ["first", "re first", "second", "re second"]


def test_a_fork_takes_a_batch_over_or_does_it_anew(tmp_path: Path):
    """Behind the batch its answers are taken over, with their messages; at the batch all items are asked again."""
    llm = ScriptedClient(echo)
    other = {"label": "First", "type": "person_job", "person": "P", "default_prompt": "first"}
    batch = asking("{{ default }}", batch=True, memorize_to="ALL_MESSAGES", batch_parallel=False)
    last = {"label": "Last", "type": "code_job", "code": "return 1"}
    row = pairwise(["Start", "Ask", "Last", "End"])
    arrows = [{"from": a, "to": b, "content_type": "generic"} for a, b in row]
    arrows += [{"from": "Start", "to": "First"}]
    with Session(tmp_path, llm=llm) as dp:
        run = dp.start(diagram(other, batch, last, arrows=arrows), inputs={"items": ["a", "b"]}, view=False)
        run.result()
        before = len(llm.requests)
        behind = run.fork(at="Last", view=False)
        behind.result()
        assert len(llm.requests) == before
        heard = {m["id"]: m["content"] for m in behind.state.conversation}
        for turn in behind.state.turns:
            assert all(heard[m["id"]] == m["content"] for m in turn["messages"])
            assert set(turn["memory"]["ids"]) <= set(heard)
        run.fork(at="Ask", view=False).result()
        assert prompts(llm)[before:] == ["a", "b"]


def test_a_batch_in_a_loop_begins_anew_in_each_round(tmp_path: Path):
    """What is remembered of items is of one run of the node."""
    model = Flaky({})
    loop = diagram(
        asking("{{ default }}", batch=True, max_iteration=3),
        {"label": "Enough", "type": "condition", "condition_type": "detect_max_iterations"},
        arrows=[
            {"from": "Start", "to": "Ask"},
            {"from": "Ask", "to": "Enough", "label": "r"},
            {"from": "Enough_condfalse", "to": "Ask", "label": "again"},
            {"from": "Enough_condtrue", "to": "End", "content_type": "generic"},
        ],
    )
    with Session(tmp_path, llm=ScriptedClient(model)) as dp:
        dp.run(loop, inputs={"items": ["a", "b"]}, view=False)
    assert model.answered == {"a": 3, "b": 3}


@pytest.mark.parametrize("kind", ["person", "sub"])
def test_a_limit_of_the_run_ends_a_batch_at_once(tmp_path: Path, kind: str):
    """It is no failure of an item: nothing is asked after it, no retry is tried, and what was answered stays."""
    spent = BudgetExceededError("The budget of 2 calls is spent.", hint="Give a larger one.")
    llm = ScriptedClient(["re a", "re b", spent, "re c", "re d"])
    one, more = asking("{{ default }}"), {"batch": True, "batch_parallel": False, "retries": 3}
    batch = {**one, **more} if kind == "person" else nested(diagram(one), **more)
    with Session(tmp_path, llm=llm) as dp:
        run = dp.start(diagram(batch), inputs={"items": list("abcd")}, view=False)
        with pytest.raises(BudgetExceededError):
            run.result()
        assert prompts(llm) == list("abc")
        output = run.resume(view=False).result().output
        assert (output if kind == "sub" else [r["output"] for r in output["results"]]) == [
            "re a",
            "re b",
            "re c",
            "re d",
        ]
    assert prompts(llm) == list("abccd")


@pytest.mark.parametrize("kind", ["person", "sub"])
def test_stop_in_the_middle_of_a_batch(tmp_path: Path, kind: str):
    """What is finished stays; a resume does the rest, and counts everything once."""
    llm = SlowClient(echo, delay=0.005)
    one = asking("{{ default }}")
    batch = (
        {**one, "batch": True, "max_concurrent": 2} if kind == "person" else nested(diagram(one), batch=True, max_concurrent=2)
    )
    with Session(tmp_path, llm=llm) as dp:
        run = dp.start(diagram(batch), inputs={"items": [str(i) for i in range(12)]}, view=False)
        while len(llm.requests) < 6:
            time.sleep(0.001)
        run.stop()
        run.wait(20)
        assert run.status == Status.ABORTED
        before = len(llm.requests)
        assert before < 12
        result = run.resume(view=False).result()
        values = [r["output"] for r in result.output["results"]] if kind == "person" else result.output
        assert values == [str(i) for i in range(12)]
        assert len(llm.requests) <= 12 + 2
        assert result.usage.total == 12 * per_call(llm)


def per_call(llm: ScriptedClient) -> int:
    """Tokens of one answer; the same for all prompts of one word."""
    from dipeo_nb.testing.models import counted

    return counted(llm.requests[0], "1").total or 0


# Processes that die.

DURABLE = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from dipeo_nb.notebook.session import Session
    from dipeo_nb.testing import ScriptedClient
    from tests.integration.test_batches import durable

    asked = Path(sys.argv[1]) / "asked.txt"

    def answer(request):
        with asked.open("a") as file:
            file.write(request.messages[-1].content + "\\n")
        return "re " + request.messages[-1].content

    class Mortal(ScriptedClient):
        async def _pause(self):
            await asyncio.sleep(0.001)
            if len(self.requests) >= int(sys.argv[2]):
                await asyncio.sleep(0.05)  # what was answered before is committed
                os.kill(os.getpid(), signal.SIGKILL)

    with Session(sys.argv[1], llm=Mortal(answer)) as dp:
        run = dp.resume(sys.argv[3], view=False) if len(sys.argv) > 3 else dp.start(durable(), view=False)
        print(run.id, flush=True)
        run.wait(60)
"""


def durable() -> dict[str, Any]:
    batch = asking("{{ default }}", batch=True, max_concurrent=2, memorize_to="ALL_MESSAGES")
    start = {"label": "Start", "type": "start", "custom_data": {"items": [f"i{n}" for n in range(30)]}}
    made = diagram(batch)
    return {**made, "nodes": [start, *made["nodes"][1:]]}


def test_answers_of_a_killed_batch_are_not_asked_for_again(tmp_path: Path, child: Callable[..., Popen[str]]):
    """kill -9, twice, in the middle of a batch: only what was in flight is asked for again; order, usage and conversation are
    those of a run that was never cut off."""
    first = child(DURABLE, str(tmp_path), "12")
    run_id = (first.stdout.readline() if first.stdout else "").strip()
    assert first.wait(60) == -signal.SIGKILL
    second = child(DURABLE, str(tmp_path), "8", run_id)
    assert second.wait(60) == -signal.SIGKILL
    llm = ScriptedClient(lambda request: f"re {echo(request)}")
    settings = get_settings().model_copy(update={"base_dir": tmp_path})
    with Session(settings=settings, llm=llm) as dp:
        run = dp.resume(run_id, view=False)
        result = run.result()
        recorded = [e for e in run.events if e.payload.get("kind") == "item"]
        answers = [m for m in result.conversation if m["from_person_id"] != "system"]
    asked = (tmp_path / "asked.txt").read_text().split() + prompts(llm)
    assert [r["output"] for r in result.output["results"]] == [f"re i{n}" for n in range(30)]
    assert sorted(e.payload["data"]["index"] for e in recorded) == list(range(30))
    assert set(asked) == {f"i{n}" for n in range(30)}
    assert len(asked) <= 30 + 2 * 2  # two at a time were in flight at each end
    assert len({m["id"] for m in result.conversation}) == len(result.conversation) == 60
    assert sorted(m["content"] for m in answers) == sorted(f"re i{n}" for n in range(30))
    assert result.usage.output == 30 * 2
    assert measure(run.events).usage.output == 30 * 2


class Cut(InMemoryRunStore):
    """What a store has that got the first commits only, as if the process had died after them."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.left = last
        self.dead = False

    async def append(self, events: Any) -> None:
        if self.left > 0:
            self.left -= 1
            await super().append(events)
        else:
            self.dead = True

    def revive(self) -> None:
        """Another process opens the store."""
        self.left, self.dead = sys.maxsize, False


@given(
    kind=st.sampled_from(["person", "sub"]),
    failures=st.lists(st.integers(0, 4), max_size=6),
    retries=st.integers(0, 2),
    parallel=st.booleans(),
    cuts=st.lists(st.integers(3, 40), max_size=2),
)
@examples(40)
def test_any_batch_does_each_item_once(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    failures: list[int],
    retries: int,
    parallel: bool,
    cuts: list[int],
):
    """Random batches against a plain model: items fail as often as said, the process dies after some commits, the run is resumed
    until it is complete. An item is answered again only when its answer was not stored, results are in order, and the record
    has each answer once."""
    model = Flaky({str(i): n for i, n in enumerate(failures)})
    one = asking("{{ default }}", max_concurrent=3)
    more: dict[str, Any] = {"batch": True, "batch_parallel": parallel, "retries": retries, "retry_delay": 0.0}
    batch = {**one, **more} if kind == "person" else nested(diagram(one), max_concurrent=3, **more)
    store = Cut(cuts[0] if cuts else sys.maxsize)
    expected = [f"re {i}" for i in range(len(failures))]
    lost = 0
    with Session(tmp_path_factory.mktemp("batch"), llm=ScriptedClient(model), store=store) as dp:
        run = dp.start(diagram(batch), inputs={"items": [str(i) for i in range(len(failures))]}, view=False)
        run.wait(20)
        for number in range(40):
            if store.dead:
                before = dict(model.answered)
                stored = answers_in(store, run.id, kind)
                lost += sum(model.answered.values()) - len(stored)
                store.revive()
                if number + 1 < len(cuts):
                    store.left = cuts[number + 1]
                with Session(dp.settings.base_dir, llm=ScriptedClient(model), store=store) as other:
                    again = other.resume(run.id, view=False)
                    again.wait(20)
                    assert all(model.answered[i] == before[i] for i in stored)
                    run = again
                continue
            if run.status == Status.COMPLETED and not (kind == "person" and run.result().output["failed"]):
                break
            if run.status == Status.COMPLETED:  # a person's batch reports what failed to the end, and is complete
                body = run.result().output
                assert [r["output"] for r in body["results"]] == [expected[r["index"]] for r in body["results"]]
                assert {e["index"] for e in body["errors"]} | {r["index"] for r in body["results"]} == set(range(len(failures)))
                assert all(model.asked[str(e["index"])] > retries for e in body["errors"])
                return
            run = run.resume(view=False)
            run.wait(20)
        output = run.result().output
        values = [r["output"] for r in output["results"]] if kind == "person" else output
        assert values == expected
        assert sum(model.answered.values()) <= len(failures) + lost
        if not cuts:
            assert model.answered == Counter({str(i): 1 for i in range(len(failures))})
            assert model.asked == Counter({str(i): n + 1 for i, n in enumerate(failures)})


def answers_in(store: InMemoryRunStore, run_id: str, kind: str) -> set[str]:
    """Items whose answer a store has."""
    found: set[str] = set()
    for log in store._runs.values():
        state = RunState.fold(log)
        if kind == "person" and state.run_id == run_id:
            found |= {str(e.payload["data"]["index"]) for e in log if e.payload.get("kind") == "item"}
        elif kind == "sub" and state.parent == run_id:
            found |= {m["content"] for m in state.conversation if m["from_person_id"] == "system"}
    return found
