"""sub_diagram: diagrams within diagrams."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.errors import DiagramNotFoundError, InvalidDiagramError, NodeExecutionError, RunAbortedError, UserError
from dipeo_nb.execution.metrics import measure
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import ScriptedClient, SlowClient, scripted

ECHO = """
version: light
nodes:
- {label: Start, type: start}
- {label: Work, type: code_job, code: "%s"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Work, content_type: generic}
- {from: Work, to: End, content_type: generic}
"""


def parent(*, code: str = "return {'a': 1, 'b': 'two'}", label: str | None = None, **props: Any) -> dict[str, Any]:
    """Start, a code job, a sub_diagram with *props*, an endpoint."""
    into: dict[str, Any] = {"from": "Make", "to": "Sub", "content_type": "generic"}
    return {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "Make", "type": "code_job", "props": {"code": code}},
            {"label": "Sub", "type": "sub_diagram", "props": props},
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [
            {"from": "Start", "to": "Make"},
            {**into, "label": label} if label else into,
            {"from": "Sub", "to": "End", "content_type": "generic"},
        ],
    }


@pytest.fixture
def dp(tmp_path: Path) -> Any:
    with Session(tmp_path, llm=scripted("fine")) as session:
        yield session


def child(base: Path, code: str, name: str = "child") -> None:
    (base / f"{name}.light.yaml").write_text(ECHO % code.replace('"', '\\"').replace("\n", "\\n"))


def test_all_inputs_are_variables_of_the_child(dp: Session, tmp_path: Path):
    """Without input_mapping the child gets every input; a mapping is spread, and is `default` too."""
    child(tmp_path, "return [a, b, default['b']]")
    assert dp.run(parent(diagram_name="child"), view=False).output == [1, "two", "two"]


def test_labelled_inputs_keep_their_names(dp: Session, tmp_path: Path):
    """An arrow's label is the child's variable."""
    child(tmp_path, "return data['a'] + 1")
    assert dp.run(parent(label="data", diagram_name="child"), view=False).output == 2


def test_input_mapping_renames_and_limits(dp: Session, tmp_path: Path):
    """Only what is mapped arrives, by paths into the inputs; passInputData brings the rest as well."""
    child(tmp_path, "return sorted(k for k in ('x', 'a', 'b') if k in globals)")
    mapping = {"x": "default.b"}
    assert dp.run(parent(diagram_name="child", input_mapping=mapping), view=False).output == ["x"]
    both = parent(diagram_name="child", input_mapping=mapping, passInputData=True)
    assert dp.run(both, view=False).output == ["a", "b", "x"]


def test_output_mapping_projects(dp: Session, tmp_path: Path):
    """The result is what the mapping makes of the child's."""
    child(tmp_path, "return {'deep': {'n': [5, 6]}}")
    assert dp.run(parent(diagram_name="child", output_mapping={"n": "deep.n[1]"}), view=False).output == {"n": 6}


@pytest.mark.parametrize("mapping", ["input_mapping", "output_mapping"])
def test_mappings_to_nowhere(dp: Session, tmp_path: Path, mapping: str):
    """One error that names the path and what there is."""
    child(tmp_path, "return {'n': 1}")
    with pytest.raises(NodeExecutionError, match=r"'nothing\.here'") as caught:
        dp.run(parent(diagram_name="child", **{mapping: {"x": "nothing.here"}}), view=False)
    assert caught.value.hint


def test_inline_data(dp: Session):
    """A diagram within the diagram."""
    inner = {
        "version": "light",
        "nodes": [
            {"label": "S", "type": "start"},
            {"label": "W", "type": "code_job", "props": {"code": "return a * 10"}},
        ],
        "connections": [{"from": "S", "to": "W"}],
    }
    assert dp.run(parent(diagram_data=inner), view=False).output == 10


def test_several_endpoints_and_none(dp: Session, tmp_path: Path):
    """One endpoint: its value; several: by label; none: the last output."""
    two = """
version: light
nodes:
- {label: S, type: start}
- {label: One, type: endpoint}
- {label: Two, type: endpoint}
connections:
- {from: S, to: One, content_type: generic}
- {from: S, to: Two, content_type: generic}
"""
    (tmp_path / "two.light.yaml").write_text(two)
    given = {"a": 1, "b": "two", "default": {"a": 1, "b": "two"}}
    assert dp.run(parent(diagram_name="two"), view=False).output == {"One": given, "Two": given}


def test_the_child_is_a_run_of_its_own(dp: Session, tmp_path: Path):
    """In the store, with its parent's id; the parent's log tells where it is."""
    child(tmp_path, "return 1")
    run = dp.run(parent(diagram_name="child"), view=False)
    (inner,) = run.run.node("Sub").children
    opened = dp.open_run(inner)
    assert opened.status == Status.COMPLETED
    assert opened.state.parent == run.id
    texts = [e.payload["text"] for e in run.events if e.payload.get("kind") == "progress"]
    assert texts == ["Start …", "Start ✓", "Work …", "Work ✓", "End …", "End ✓"]


def test_a_failing_child_fails_the_node(dp: Session, tmp_path: Path):
    """With the diagram's and the node's name and the cause."""
    child(tmp_path, "return 1 / 0")
    with pytest.raises(NodeExecutionError, match=r"The diagram 'child' failed at 'Work': ZeroDivisionError"):
        dp.run(parent(diagram_name="child"), view=False)


def test_a_failing_child_can_be_survived(dp: Session, tmp_path: Path):
    """on_error: continue."""
    child(tmp_path, "return 1 / 0")
    assert "ZeroDivisionError" in dp.run(parent(diagram_name="child", on_error="continue"), view=False).output["error"]


def test_batch_keeps_the_order(dp: Session, tmp_path: Path):
    """One child per item, its own keys spread; outputs in the order of the items, a summary in meta."""
    child(tmp_path, "import time\ntime.sleep(0.02 * (3 - _batch_index))\nreturn [name, other, _batch_index, _batch_total]")
    diagram = parent(
        code="return {'items': [{'name': n} for n in 'abc'], 'other': 7}",
        diagram_name="child",
        batch=True,
        max_concurrent=3,
    )
    run = dp.run(diagram, view=False)
    assert run.output == [["a", 7, 0, 3], ["b", 7, 1, 3], ["c", 7, 2, 3]]
    node = run.run.node("Sub")
    assert (node.meta["total_items"], node.meta["successful"], len(node.children)) == (3, 3, 3)


def test_batch_over_plain_items_under_another_name(dp: Session, tmp_path: Path):
    """`batch_input_key`; items that are no mappings are `default`."""
    child(tmp_path, "return item * 2")
    diagram = parent(code="return {'indices': [1, 2, 3]}", diagram_name="child", batch=True, batch_input_key="indices")
    assert dp.run(diagram, view=False).output == [2, 4, 6]


def test_a_batch_with_failures_does_only_them_again(dp: Session, tmp_path: Path):
    """All items are tried; the node fails with the first cause; resumed, finished items stay."""
    log = tmp_path / "log.txt"
    child(
        tmp_path,
        f"import pathlib\nopen({str(log)!r}, 'a').write(item)\n"
        f"if item == 'b' and not pathlib.Path({str(tmp_path / 'ok')!r}).exists():\n    raise ValueError('b is bad')\nreturn item.upper()",
    )
    diagram = parent(code="return {'items': ['a', 'b', 'c']}", diagram_name="child", batch=True, batch_parallel=False)
    run = dp.start(diagram, view=False)
    with pytest.raises(NodeExecutionError, match=r"1 of 3 items failed; item 1: .*b is bad"):
        run.result()
    assert log.read_text() == "abc"
    (tmp_path / "ok").write_text("")
    assert run.resume(view=False).result().output == ["A", "B", "C"]
    assert log.read_text() == "abcb"


@pytest.mark.parametrize("code", ["return []", "return {'items': []}", "return '[]'"])
def test_an_empty_batch_has_an_empty_result(dp: Session, tmp_path: Path, code: str):
    """No items are no failure: nothing runs, the log says so, and what follows gets an empty list."""
    child(tmp_path, "return 1")
    run = dp.run(parent(code=code, diagram_name="child", batch=True), view=False)
    assert run.output == []
    assert not run.run.node("Sub").children
    assert any("'items' of 'Sub' is empty" in e.payload["message"] for e in run.events if e.type is EventType.EXECUTION_LOG)


PERSON = """
version: light
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, person: Ada, default_prompt: inner}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: End}
"""
OUTER = """
version: light
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: First, type: person_job, person: Ada, default_prompt: first}
- {label: Sub, type: sub_diagram, diagram_name: inner, isolate_conversation: %s}
- {label: Last, type: person_job, person: Ada, default_prompt: last}
- {label: End, type: endpoint}
connections:
- {from: Start, to: First}
- {from: First, to: Sub}
- {from: Sub, to: Last}
- {from: Last, to: End}
"""


@pytest.mark.parametrize("isolated", [False, True])
def test_conversations_are_shared_or_not(tmp_path: Path, isolated: bool):
    """Persons of the child talk in the parent's conversation, unless it is isolated."""
    (tmp_path / "inner.light.yaml").write_text(PERSON)
    llm = ScriptedClient(["one", "two", "three"])
    with Session(tmp_path, llm=llm) as dp:
        run = dp.run(OUTER % str(isolated).lower(), view=False)
    heard = [[m.content for m in r.messages] for r in llm.requests]
    if isolated:
        assert heard == [["first"], ["inner"], ["first", "one", "last"]]
        assert len(run.conversation) == 4
    else:
        assert heard == [["first"], ["first", "one", "inner"], ["first", "one", "inner", "two", "last"]]
        assert [m["content"] for m in run.conversation] == ["first", "one", "inner", "two", "last", "three"]
    assert run.usage.total == sum(dp.open_run(c).usage.total or 0 for c in run.run.node("Sub").children) + sum(
        run.run.node(n).usage.total for n in ("First", "Last")
    )


def test_ignore_if_sub(dp: Session, tmp_path: Path):
    """A diagram that would run itself passes its input on when it is part of another one."""
    looped = parent(code="return 5", diagram_name="looped", ignoreIfSub=True)
    (tmp_path / "looped.light.yaml").write_text(json.dumps(looped))
    assert dp.run("looped", view=False).output == 5


def test_endless_nesting(dp: Session, tmp_path: Path):
    """A diagram that runs itself ends with one clear error."""
    (tmp_path / "looped.light.yaml").write_text(json.dumps(parent(diagram_name="looped")))
    with pytest.raises(NodeExecutionError, match="seems to lead back to itself"):
        dp.run("looped", view=False)


def test_not_waiting(tmp_path: Path):
    """Successors go on at once; the run ends when the child has ended; a failure of it is told in the log."""
    (tmp_path / "inner.light.yaml").write_text(PERSON)
    with Session(tmp_path, llm=SlowClient("a b c", delay=0.02)) as dp:
        run = dp.run(parent(diagram_name="inner", wait_for_completion=False), view=False)
        assert set(run.output) == {"run_id", "diagram"}
        assert dp.open_run(run.output["run_id"]).status == Status.COMPLETED
        child(tmp_path, "raise ValueError('alone')")
        run = dp.run(parent(diagram_name="child", wait_for_completion=False), view=False)
        assert any("alone" in e.payload["message"] for e in run.events if e.type is EventType.EXECUTION_LOG)


def test_stop_reaches_the_child(tmp_path: Path):
    """Both end as aborted, and nothing works on."""
    (tmp_path / "inner.light.yaml").write_text(PERSON)
    llm = SlowClient("word " * 200, delay=0.02)
    with Session(tmp_path, llm=llm) as dp:
        run = dp.start(parent(diagram_name="inner"), view=False)
        while not llm.requests:
            run.wait(0.01)
        run.stop()
        with pytest.raises(RunAbortedError):
            run.result(10)
        (inner,) = run.node("Sub").children
        assert dp.open_run(inner).status == Status.ABORTED
        assert llm.cancelled == 1


def test_questions_of_the_child_come_up(tmp_path: Path):
    """The parent's run asks what the child asks; answers are given by the label of the child's node."""
    (tmp_path / "asks.light.yaml").write_text(
        "version: light\nnodes:\n- {label: S, type: start}\n- {label: Name, type: user_response, prompt: Who?}\n"
        "- {label: E, type: endpoint}\nconnections:\n- {from: S, to: Name}\n- {from: Name, to: E}\n"
    )
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.start(parent(diagram_name="asks"), view=False)
        while run.question is None:
            run.wait(0.01)
        assert (run.question["label"], run.question["prompt"]) == ("Name", "Who?")
        run.answer("Ada")
        assert run.result(10).output == "Ada"


def test_a_missing_diagram(dp: Session):
    """The node fails with the nearest name; without any name it is a mistake of the diagram."""
    with pytest.raises(DiagramNotFoundError, match="no diagram 'chold'"):
        dp.run(parent(diagram_name="chold"), view=False)
    with pytest.raises(InvalidDiagramError, match="names no diagram"):
        dp.run(parent(), view=False)


def test_names_are_templates(dp: Session, tmp_path: Path):
    """`{name}` in diagram_name is filled in."""
    child(tmp_path, "return 'chosen'", "part_two")
    assert dp.run(parent(diagram_name="part_{b}"), view=False).output == "chosen"


def test_code_from_elsewhere_is_not_slipped_in(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """A trusted diagram from elsewhere that chooses, as it runs, another one there with code: refused."""
    folder = tmp_path_factory.mktemp("elsewhere")
    child(folder, "return 1", "evil")
    path = folder / "main.light.yaml"
    path.write_text(json.dumps(parent(code="return {'which': 'evil'}", diagram_name="{which}")))
    with Session(tmp_path, llm=scripted()) as dp, pytest.raises(NodeExecutionError, match="not allowed to run code"):
        dp.run(path, trust=True, view=False)


# Answers given beforehand.

ASKS = """
version: light
nodes:
- {label: Start, type: start}
- {label: Q1, type: user_response, prompt: "first?", timeout: 20}
- {label: Q2, type: user_response, prompt: "second?", timeout: 20}
- {label: Both, type: code_job, code: "return q1 + '/' + q2"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Q1}
- {from: Q1, to: Q2}
- {from: Q1, to: Both, label: q1}
- {from: Q2, to: Both, label: q2}
- {from: Both, to: End}
"""


def nest(base: Path, *names: str, **props: Any) -> dict[str, Any]:
    """A diagram whose node Sub runs *names[0]*, whose node Sub runs the next one …, and the last one asks Q1 and Q2."""
    for name, inner in pairwise(names):
        (base / f"{name}.light.yaml").write_text(json.dumps(parent(diagram_name=inner)))
    (base / f"{names[-1]}.light.yaml").write_text(ASKS)
    return parent(diagram_name=names[0], **props)


@pytest.mark.parametrize("names", [("asks",), ("middle", "asks"), ("outer", "middle", "asks")])
@pytest.mark.parametrize(
    "answers", [{"Q1": "a", "Q2": "b"}, {"Sub/Q1": "a", "Q2": "b"}, {"Q1": "wrong", "Sub/Q1": "a", "Q2": ["b", "c"]}]
)
def test_answers_reach_questions_of_any_depth(dp: Session, tmp_path: Path, names: tuple[str, ...], answers: dict[str, Any]):
    """By label or by a path; the longer path wins."""
    assert dp.run(nest(tmp_path, *names), answers=answers, view=False).output == "a/b"


def test_answers_for_items_of_a_batch(dp: Session, tmp_path: Path):
    """One answer for all items, and others for single ones."""
    diagram = nest(tmp_path, "asks", batch=True)
    diagram["nodes"][1]["props"]["code"] = "return [1, 2, 3]"
    answers = {"Q1": "a", "Sub/Q2": "b", "Sub[1]/Q2": "c"}
    assert dp.run(diagram, answers=answers, view=False).output == ["a/b", "a/c", "a/b"]


def test_answers_to_nobody(dp: Session, tmp_path: Path):
    """Refused before anything runs, with the nearest name; also by resume and fork."""
    diagram = nest(tmp_path, "middle", "asks")
    for answers, name in (
        ({"Q3": "x"}, "Q1"),
        ({"Sub/Sub/Q3": "x"}, "Q1"),
        ({"Start": "x"}, "Q1, Q2"),
        ({"Made": "x"}, "Q1, Q2"),
    ):
        with pytest.raises(UserError, match=name):
            dp.start(diagram, answers=answers, view=False)
    assert not list(dp.runs(nested=True))
    run = dp.start(diagram, answers={"Q1": "a"}, view=False)
    while run.question is None:
        run.wait(0.01)
    run.stop()
    run.wait(10)
    with pytest.raises(UserError, match="'Nobody'"):
        run.resume(answers={"Nobody": "b"}, view=False)
    with pytest.raises(UserError, match="'Nobody'"):
        dp.fork(run, at="Sub", answers={"Nobody": "b"}, view=False)
    assert run.resume(answers={"Q2": "b"}, view=False).result().output == "a/b"
    assert dp.fork(run, at="Sub", answers={"Q1": "c", "Sub/Sub/Q2": "d"}, view=False).result().output == "c/d"


def test_answers_for_a_diagram_that_is_chosen_as_it_runs(dp: Session, tmp_path: Path):
    """Who asks there cannot be known before, so any name is taken."""
    nest(tmp_path, "asks")
    chosen = parent(code="return {'which': 'asks'}", diagram_name="{which}")
    assert dp.run(chosen, answers={"Q1": "a", "Sub/Q2": "b", "Other": "c"}, view=False).output == "a/b"


def test_a_diagram_that_runs_itself_is_looked_through_once(dp: Session, tmp_path: Path):
    """Looking for who asks ends."""
    looped = parent(diagram_name="looped", ignoreIfSub=True)
    (tmp_path / "looped.light.yaml").write_text(json.dumps(looped))
    with pytest.raises(UserError, match="none"):
        dp.start("looped", answers={"Q": "a"}, view=False)


# Failures.


def test_the_place_of_a_deep_failure_is_named_once(dp: Session, tmp_path: Path):
    """The way down to the node at fault, and what was wrong there, however deep."""
    child(tmp_path, "raise ValueError('it broke')", "leaf")
    for depth in range(7):
        (tmp_path / f"level{depth}.light.yaml").write_text(
            json.dumps(parent(diagram_name=f"level{depth + 1}" if depth < 6 else "leaf"))
        )
    with pytest.raises(NodeExecutionError) as caught:
        dp.run("level0", view=False)
    path = " › ".join(["Sub"] * 6 + ["Work"])
    assert caught.value.message == f"The diagram 'level1' failed at '{path}': ValueError: it broke (line 1)"
    assert caught.value.node == "Sub"


def test_the_place_of_a_failure_in_batches_names_the_items(dp: Session, tmp_path: Path):
    """Of a batch in a batch: the item of each."""
    child(tmp_path, "return 1 / default", "leaf")
    (tmp_path / "middle.light.yaml").write_text(json.dumps(parent(code="return [1, 0]", diagram_name="leaf", batch=True)))
    outer = parent(code="return ['x']", diagram_name="middle", batch=True)
    with pytest.raises(NodeExecutionError) as caught:
        dp.run(outer, view=False)
    assert caught.value.message.startswith(
        "1 of 1 items failed; item 0: The diagram 'middle' failed at 'Sub[1] › Work': ZeroDivisionError"
    )


# Files that change between a failure and a resume.


def effects(base: Path, text: str) -> str:
    """Code that notes *text*."""
    return f"open({str(base / 'effects.txt')!r}, 'a').write({text})"


TWO = """
version: light
nodes:
- {label: Start, type: start}
- {label: First, type: code_job, code: %s}
%s- {label: Second, type: code_job, code: %s}
- {label: End, type: endpoint}
connections:
- {from: Start, to: First, content_type: generic}
- {from: First, to: %s, label: n, content_type: generic}
%s- {from: Second, to: End, content_type: generic}
"""


def two(base: Path, second: str, between: bool = False) -> None:
    """The child: First has an effect, Second is the given code; between them, perhaps, a new node, which moves ids."""
    node = "- {label: Between, type: code_job, code: 'return n * 100'}\n" if between else ""
    arrow = "- {from: Between, to: Second, label: n, content_type: generic}\n" if between else ""
    into = "Between" if between else "Second"
    first = effects(base, "f'{default} '") + "\nreturn default"
    (base / "child.light.yaml").write_text(TWO % (json.dumps(first), node, json.dumps(second), into, arrow))


@pytest.fixture(params=["memory", "sqlite"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A session with either run store."""
    own: dict[str, Any] = {"store": InMemoryRunStore()} if request.param == "memory" else {}
    with Session(tmp_path, llm=scripted("fine"), **own) as session:
        yield session


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("batch", [False, True])
def test_a_fixed_child_is_taken_where_it_has_changed(stored: Session, tmp_path: Path, batch: bool, between: bool):
    """Failed children go on with the file as it is now; what is the same up to there, and finished items, are not done again."""
    two(tmp_path, "return 10 / (n - 2)")
    code = "return [1, 2, 3]" if batch else "return 2"
    run = stored.start(parent(code=code, diagram_name="child", batch=batch), view=False)
    with pytest.raises(NodeExecutionError, match="division by zero"):
        run.result()
    two(tmp_path, "return n + 5", between)
    run = run.resume(view=False)
    output = run.result().output
    fixed = 205 if between else 7
    assert output == ([-10, fixed, 10] if batch else fixed)
    words = (tmp_path / "effects.txt").read_text().split()
    assert sorted(words) == (["1", "2", "3"] if batch else ["2"])
    assert any("has changed since" in e.payload["message"] for e in run.events if e.type is EventType.EXECUTION_LOG)
    last = stored.open_run(run.node("Sub").children[-1])
    assert last.state.forked_from is not None
    assert last.status == Status.COMPLETED


def test_a_child_whose_looks_have_changed_goes_on(stored: Session, tmp_path: Path):
    """Comments and places are no change."""
    ok = tmp_path / "ok"
    two(tmp_path, f"import pathlib\nassert pathlib.Path({str(ok)!r}).exists()\nreturn n")
    run = stored.start(parent(code="return 2", diagram_name="child"), view=False)
    with pytest.raises(NodeExecutionError):
        run.result()
    ok.write_text("")
    path = tmp_path / "child.light.yaml"
    path.write_text(path.read_text().replace("label: First,", "label: First, position: {x: 9, y: 9},"))
    run = run.resume(view=False)
    assert run.result().output == 2
    assert len(run.node("Sub").children) == 1
    assert (tmp_path / "effects.txt").read_text().split() == ["2"]


def test_a_fixed_grandchild(stored: Session, tmp_path: Path):
    """Also two levels down, and when both files have changed."""
    two(tmp_path, "return 1 / 0")
    middle = tmp_path / "middle.light.yaml"
    middle.write_text(json.dumps(parent(code=f"{effects(tmp_path, repr('m '))}\nreturn 2", diagram_name="child")))
    run = stored.start(parent(code="return 1", diagram_name="middle"), view=False)
    with pytest.raises(NodeExecutionError, match="Sub › Second"):
        run.result()
    two(tmp_path, "return 1 / 0 # still")
    run = run.resume(view=False)
    with pytest.raises(NodeExecutionError, match="Sub › Second"):
        run.result()
    two(tmp_path, "return n + 1")
    changed = json.loads(middle.read_text())
    changed["nodes"].append({"label": "Other", "type": "endpoint"})
    changed["connections"].append({"from": "Start", "to": "Other"})
    middle.write_text(json.dumps(changed))
    assert run.resume(view=False).result().output["End"] == 3
    assert (tmp_path / "effects.txt").read_text().split() == ["m", "2"]


def test_a_batch_within_a_changed_child_goes_on(stored: Session, tmp_path: Path):
    """Items that had finished there stay, where the change is elsewhere."""
    child(
        tmp_path,
        f"{effects(tmp_path, 'item')}\nif item == 'b' and not open({str(tmp_path / 'ok')!r}).read():\n    raise ValueError('bad')\nreturn item",
    )
    (tmp_path / "ok").write_text("")
    middle = tmp_path / "middle.light.yaml"
    inner = parent(code="return ['a', 'b', 'c']", diagram_name="child", batch=True, batch_parallel=False)
    middle.write_text(json.dumps(inner))
    run = stored.start(parent(diagram_name="middle"), view=False)
    with pytest.raises(NodeExecutionError, match="bad"):
        run.result()
    (tmp_path / "ok").write_text("yes")
    inner["nodes"].append({"label": "Note", "type": "code_job", "props": {"code": "return 1"}})
    inner["connections"].append({"from": "Start", "to": "Note"})
    middle.write_text(json.dumps(inner))
    assert run.resume(view=False).result().output == ["a", "b", "c"]
    assert (tmp_path / "effects.txt").read_text() == "abcb"


@pytest.mark.parametrize("batch", [False, True])
def test_a_child_whose_file_is_gone(stored: Session, tmp_path: Path, batch: bool):
    """It goes on as it was recorded, and the log says so."""
    ok = tmp_path / "ok"
    two(tmp_path, f"import pathlib\nassert pathlib.Path({str(ok)!r}).exists() or n != 2\nreturn n")
    code = "return [1, 2, 3]" if batch else "return 2"
    run = stored.start(parent(code=code, diagram_name="child", batch=batch), view=False)
    with pytest.raises(NodeExecutionError):
        run.result()
    ok.write_text("")
    (tmp_path / "child.light.yaml").unlink()
    run = run.resume(view=False)
    assert run.result().output == ([1, 2, 3] if batch else 2)
    assert sorted((tmp_path / "effects.txt").read_text().split()) == (["1", "2", "3"] if batch else ["2"])
    assert any("as it was recorded" in e.payload["message"] for e in run.events if e.type is EventType.EXECUTION_LOG)


def test_a_child_that_was_resumed_alone(stored: Session, tmp_path: Path):
    """Its parent takes what it gave."""
    ok = tmp_path / "ok"
    two(tmp_path, f"import pathlib\nassert pathlib.Path({str(ok)!r}).exists()\nreturn n")
    run = stored.start(parent(code="return 2", diagram_name="child"), view=False)
    with pytest.raises(NodeExecutionError):
        run.result()
    ok.write_text("")
    (inner,) = run.node("Sub").children
    assert stored.resume(inner, view=False).result().output == 2
    assert run.resume(view=False).result().output == 2
    assert (tmp_path / "effects.txt").read_text().split() == ["2"]


def test_children_that_nobody_waits_for_are_paid_once(tmp_path: Path):
    """Their usage is their parent's, though its node had finished."""
    (tmp_path / "inner.light.yaml").write_text(PERSON)
    with Session(tmp_path, llm=SlowClient("a b c", delay=0.01)) as dp:
        run = dp.run(parent(diagram_name="inner", wait_for_completion=False), view=False)
        assert run.usage.total == dp.open_run(run.output["run_id"]).usage.total
        assert run.usage.total
        assert measure(run.events).usage.total == run.usage.total
