"""What the page of a run orders of its kernel: the same as its methods do, and no more than the record is trusted for."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.budget import Budget
from dipeo_nb.errors import TrustError, UserError, ValidationError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.run_orders import RunOrders
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import SlowClient
from tests.support.row_diagrams import ASKING_LETTER, ECHO_LETTER, with_code

LETTER = with_code(ECHO_LETTER, "Mark", "result = inputs['default'] + '!'")


@pytest.fixture
def session(tmp_path: Path):
    with Session(tmp_path) as made:
        yield made


def orders_of(session: Session, run: Run) -> RunOrders:
    return RunOrders(run, session)


def begun(orders: RunOrders, **given: Any) -> Run:
    run = orders.another(given)
    assert isinstance(run, Run)
    run.result()
    return run


def test_an_edited_prompt_of_a_diagram_of_the_user_runs_with_its_code(session: Session) -> None:
    """It was typed here, and so its code may run; what comes before the node is taken over."""
    run = session.start(LETTER, inputs={"topic": "tea"})
    run.result()
    orders = orders_of(session, run)
    assert set(orders.can()) == {"copy", "note", "fork", "alone", "again", "compare"}
    fork = begun(orders, kind="fork", node=run.node_id("Write"), prompt="Praise {{topic}}.")
    assert fork.outputs == {"End": "[Ada] Praise tea.!"}
    again = begun(orders, kind="again", inputs={"topic": "ink"}, model="echo")
    assert again.outputs == {"End": "[Ada] About ink.!"}
    assert begun(orders, kind="alone", node=run.node_id("Write"), prompt="Hey").outputs == {"Output": "[Ada] Hey"}
    kinds = {node["label"]: node["kind"] for node in orders_of(session, fork).compared(run.id)["nodes"]}
    assert kinds == {"Start": "same", "Write": "changed", "Mark": "changed", "End": "changed"}
    listed = run_sync(orders.others())["runs"]
    assert [row["diagram"] for row in listed] == ["Letter", "Letter", "Letter: Write"]
    assert run.id not in {row["run_id"] for row in listed}


@pytest.mark.parametrize("order", [{"kind": "again"}, {"kind": "fork", "node": "Write"}, {"kind": "alone", "node": "Write"}])
def test_an_ordered_run_may_spend_as_much_as_the_one_it_is_made_from(session: Session, order: dict[str, Any]) -> None:
    """Who looks at a run with a limit does not expect a button to have none; the limit begins anew."""
    run = session.start(LETTER, inputs={"topic": "tea"}, budget=Budget(calls=1))
    run.result()
    orders = run._orders()
    assert orders is not None
    made = orders.another({**order, **({"node": run.node_id("Write")} if "node" in order else {}), "prompt": None})
    assert isinstance(made, Run)
    assert isinstance(made._execution, Execution)
    made.result()
    budget = made._execution.options.budget
    assert budget is not None
    assert budget is not run._execution.options.budget
    assert (budget.calls, budget.used_calls) == (1, 1)


def test_a_record_from_elsewhere_asks_before_its_code_runs(session: Session, tmp_path: Path) -> None:
    """The record of another user's folder is shown and forked, but not trusted: the page gets the list and the code to say yes with."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Session(elsewhere) as other:
        run = other.start(LETTER, inputs={"topic": "tea"})
        run.result()
        events = [
            event._replace(payload={**event.payload, "trust": None} if "trust" in event.payload else event.payload)
            for event in run.events
        ]
    run_sync(_stored(session, events))
    opened = session.open_run(run.id)
    orders = orders_of(session, opened)
    order = {"kind": "fork", "node": opened.node_id("Write"), "prompt": "Praise."}
    with pytest.raises(TrustError) as refused:
        orders.another(order)
    assert any("code" in line.lower() for line in refused.value.listing())
    assert len(session.runs()) == 1, "nothing was begun"
    allowed = begun(orders, **order, trust=refused.value.facts["pin"])
    assert allowed.outputs == {"End": "[Ada] Praise.!"}
    with pytest.raises(TrustError):  # that yes was for exactly that
        orders.another({**order, "prompt": "Praise more.", "trust": refused.value.facts["pin"]})


async def _stored(session: Session, events: Any) -> None:
    await session.runtime.initialize()
    await session.runtime.services.store.append(list(events))


@pytest.mark.parametrize(
    "given",
    [{"kind": "all"}, {"kind": "fork", "node": 3}, {"kind": "fork", "node": "x", "code": "1"}, {"kind": "fork", "of": "many"}],
)
def test_what_is_no_order_is_refused(session: Session, given: dict[str, Any]) -> None:
    run = session.start(LETTER, inputs={"topic": "tea"})
    run.result()
    with pytest.raises(ValidationError, match="not understood"):
        orders_of(session, run).another(given)


def test_only_prompts_of_persons_can_be_changed(session: Session) -> None:
    run = session.start(LETTER, inputs={"topic": "tea"})
    run.result()
    with pytest.raises(UserError, match="Only prompts"):
        orders_of(session, run).another({"kind": "fork", "node": run.node_id("Mark"), "prompt": "import os"})


def test_a_prompt_in_a_file_is_replaced(session: Session, tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("From the file: {{topic}}")
    run = session.start(LETTER.replace('default_prompt: "About {{topic}}."', "prompt_file: ask.txt"), inputs={"topic": "tea"})
    assert run.result().outputs == {"End": "[Ada] From the file: tea!"}
    fork = begun(orders_of(session, run), kind="fork", node=run.node_id("Write"), prompt="Typed: {{topic}}")
    assert fork.outputs == {"End": "[Ada] Typed: tea!"}


def waits(run: Run) -> Run:
    """The run, when its first node has finished and its question waits."""
    while run.question is None or run.state.nodes[run.node_id("Write")].status != "completed":
        assert not run.finished, run.status
        time.sleep(0.01)
    return run


def test_others_are_made_from_a_run_that_goes_on(session: Session) -> None:
    """From what had finished in that moment; what had not runs again in the new run, and the old one ends as if nothing had been."""
    run = waits(session.start(ASKING_LETTER, view=False))
    orders = orders_of(session, run)
    assert {"fork", "alone", "again", "compare"} <= set(orders.can())
    alone = begun(orders, kind="alone", node=run.node_id("Write"), prompt="Praise {{topic}}.")
    assert alone.outputs == {"Output": "[Ada] Praise tea."}
    fork = orders.another({"kind": "fork", "node": run.node_id("Ask")})
    again = orders.another({"kind": "again", "inputs": {"topic": "ink"}})
    assert isinstance(fork, Run)
    assert isinstance(again, Run)
    assert waits(fork).state.nodes[run.node_id("Write")].reused
    assert not waits(again).state.nodes[run.node_id("Write")].reused
    with pytest.raises(UserError, match=r"'Check' has no run 1 in that run"):
        orders.another({"kind": "fork", "node": run.node_id("Check")})
    facts = orders.compared(alone.id)
    assert facts["status"][1] == "running"
    copy = orders.copy("python", run.node_id("Write"), 1)["text"]
    assert "dp.chat(" in copy
    for one, answer in ((again, "no"), (run, "yes"), (fork, "well")):
        assert not one.finished
        one.answer(answer)
        one.result()
    said = {one: one.outputs["End"] for one in (run, fork, again)}
    assert said[run] == "[Ada] Check [Ada] About tea., yes"
    assert said[fork] == "[Ada] Check [Ada] About tea., well"
    assert said[again] == "[Ada] Check [Ada] About ink., no"
    assert [event.seq for event in run.events] == list(range(1, len(run.events) + 1))


def test_a_replay_is_not_noted(tmp_path: Path) -> None:
    with Session(tmp_path, llm=SlowClient("word " * 100, delay=0.05)) as session:
        run = session.start(LETTER.replace("echo", "openai"), inputs={"topic": "tea"})
        run.stop()
        run.wait()
        replay = session.replay(run.id, speed=float("inf"), view=False)
        replay.wait()
        assert "note" not in orders_of(session, replay).can()
        json.dumps(orders_of(session, run).inputs())
