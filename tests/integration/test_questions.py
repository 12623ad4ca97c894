"""A question belongs to its run: answered once, from anywhere, also after the death of the process that asked.

The kills are few here; `DIPEO_KILLS=200 pytest tests/integration/test_questions.py -k killed` makes 200 of them.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import IPython  # noqa: F401 - a kernel has it loaded
import pytest
from IPython.core.interactiveshell import InteractiveShell

from dipeo_nb.cli import main
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import NodeTimeoutError, RunAbortedError, RunError, StorageError, UserError
from dipeo_nb.execution.asked import unanswered
from dipeo_nb.execution.questions import POLL_S
from dipeo_nb.notebook import kernel, prompter
from dipeo_nb.notebook.cell_input import CellInput, QuestionOverError
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Runtime
from tests.support.kills import kills
from tests.support.parent_diagram import parent_of
from tests.support.question_process import ASKING
from tests.support.scripted_kernel import own_shell
from tests.support.waiting import wait_until

KILLS = kills(3)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "ask.light.yaml").write_text(ASKING)
    (tmp_path / "parent.light.yaml").write_text(parent_of("ask.light.yaml"))
    return tmp_path


@pytest.fixture
def session(base: Path) -> Iterator[Session]:
    with Session(settings=Settings(base_dir=base)) as made:
        yield made


def asking(session: Session, diagram: str = "ask.light.yaml", **options: Any) -> Run:
    run = session.start(diagram, view=False, **options)
    wait_until(lambda: run.question)
    return run


# One answer.


def test_the_first_answer_counts_and_the_second_raises(session: Session):
    run = asking(session)
    request_id = run.question["request_id"]  # pyright: ignore[reportOptionalSubscript]
    run.answer("blue")
    assert run.question is None, "a loop that polls does not answer twice"
    with pytest.raises(RunError, match="waits for an answer"):
        run.answer("red", request_id)
    assert run.result(30).output == "blue"
    for late in (None, request_id):
        with pytest.raises(RunError, match="waits for an answer"):
            run.answer("late", late)
    assert [e.payload["answer"] for e in run.events if e.type == "interactive_response"] == ["blue"]


def test_an_answer_that_comes_as_soon_as_the_question_is_shown(session: Session):
    """Before the node has begun to wait for it."""
    runs: list[Run] = []
    begun = threading.Event()

    def reply(event: Event) -> None:
        if event.type is EventType.INTERACTIVE_PROMPT:
            begun.wait(30)
            runs[0].answer("blue", request_id=event.payload["request_id"])

    session.runtime.services.bus.subscribe(reply)
    runs.append(session.start("ask.light.yaml", view=False))
    begun.set()
    wait_until(lambda: runs[0].state.finished)  # who waits for the result without a terminal takes the default at once
    assert "blue" in str(runs[0].result().output)


def test_of_many_threads_one_answers(session: Session):
    run = asking(session)
    request_id = run.question["request_id"]  # pyright: ignore[reportOptionalSubscript]
    outcomes: list[str] = []

    def answer(text: str) -> None:
        try:
            run.answer(text, request_id)
        except RunError:
            outcomes.append("refused")
        else:
            outcomes.append(text)

    threads = [threading.Thread(target=answer, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") == 7
    assert run.result(30).output == next(o for o in outcomes if o != "refused")


@pytest.mark.parametrize("end", ["stop", "timeout"])
def test_an_answer_to_a_question_that_is_over_raises(session: Session, end: str):
    diagram = ASKING.replace('timeout: 300, default: "grey"', "timeout: 0.2" if end == "timeout" else "timeout: 300")
    run = session.start(diagram, view=False)
    question = wait_until(lambda: run.question or ({"request_id": "none"} if run.state.finished else None))
    assert question is not None
    request_id = question["request_id"]
    if end == "stop":
        run.stop()
    assert run.wait(30)
    assert run.status == ("aborted" if end == "stop" else "failed")
    with pytest.raises(RunError):
        run.answer("late", request_id)
    with pytest.raises(RunError):
        session.open_run(run.id).answer("late")
    with pytest.raises(RunError):
        run_sync(session.runtime.answer(run.id, "late"))


# From elsewhere.


def test_answered_from_the_command_line(session: Session, base: Path, capsys: pytest.CaptureFixture[str]):
    """The command is another runtime with a store of its own; here it finds the run in this process."""
    run = asking(session)
    assert main(["answer", run.id, "Nobody=x", "--base-dir", str(base)]) != 0
    assert "'Nobody'" in capsys.readouterr().err
    assert main(["answer", run.id, "Colour=deep=blue", "--base-dir", str(base)]) == 0
    assert run.result(30).output == "deep=blue"
    assert main(["answer", run.id, "Colour=red", "--base-dir", str(base)]) != 0
    assert "waits for an answer" in capsys.readouterr().err
    assert main(["answer", "nothing", "Colour=red", "--base-dir", str(base)]) == 2


@pytest.mark.parametrize(("theirs", "refused"), [("red", True), ("blue", False)])
def test_answered_here_while_an_answer_comes_from_elsewhere(
    session: Session, monkeypatch: pytest.MonkeyPatch, theirs: str, refused: bool
):
    """One counts; whoever gave the other one learns it, unless they say the same."""
    run = asking(session)
    runtime, store = session.runtime, session.runtime.services.store
    monkeypatch.setattr("dipeo_nb.runtime.answers.live.holder", lambda *_: None)  # as another process sees it
    put = store.put_answer

    async def put_late(run_id: str, request_id: str, answer: str) -> None:
        run.answer("blue")
        await put(run_id, request_id, answer)

    monkeypatch.setattr(store, "put_answer", put_late)
    if refused:
        with pytest.raises(StorageError, match="answered already") as error:
            run_sync(runtime.answer(run.id, theirs))
        assert error.value.facts["cause"] == "answered"
    else:
        run_sync(runtime.answer(run.id, theirs))
    assert run.result(30).output == "blue"
    assert run_sync(store.answers(run.id)) == {}


@pytest.mark.parametrize("name", ["Colour", "Sub/Colour"])
def test_a_question_of_a_sub_diagram(session: Session, base: Path, name: str):
    run = asking(session, "parent.light.yaml")
    (child,) = session.runs(parent=run.id)
    with pytest.raises(UserError, match="part of run"):
        run_sync(session.runtime.answer(child.run_id, "x"))
    assert main(["answer", run.id, f"{name}=teal", "--base-dir", str(base)]) == 0
    assert run.result(30).output == "teal"


def test_two_questions_want_a_name(session: Session):
    two = ASKING.replace(
        "  - {label: E,", '  - {label: Size, type: user_response, props: {prompt: "Size?", timeout: 300}}\n  - {label: E,'
    )
    two = two.replace("  - {from: Colour", "  - {from: Before, to: Size}\n  - {from: Size, to: E}\n  - {from: Colour")
    run = session.start(two, view=False)
    wait_until(lambda: len(run.state.questions) == 2)
    with pytest.raises(UserError, match=r"'Colour', 'Size'|'Size', 'Colour'"):
        run_sync(session.runtime.answer(run.id, "x"))
    run_sync(session.runtime.answer(run.id, "L", node="Size"))
    run_sync(session.runtime.answer(run.id, "red", node="Colour"))
    run.result(30)


def test_an_answer_to_a_run_that_is_here_does_not_read_its_log(session: Session, monkeypatch: pytest.MonkeyPatch):
    """Thousands of questions may wait in it."""
    run = asking(session)
    read: list[str] = []

    async def read_run(store: RunStore, run_id: str, *take: Any) -> None:
        read.append(run_id)

    monkeypatch.setattr("dipeo_nb.runtime.answers.read_run", read_run)
    with pytest.raises(RunError, match="'Nobody'"):
        run_sync(session.runtime.answer(run.id, "x", node="Nobody"))
    run_sync(session.runtime.answer(run.id, "blue", node="Colour"))
    assert run.result(30).output == "blue"
    assert read == []


def process(base: Path, *arguments: str) -> subprocess.Popen[str]:
    script = str(Path(__file__).parents[1] / "support/question_process.py")
    return subprocess.Popen([sys.executable, script, str(base), *arguments], stdout=subprocess.PIPE, text=True)


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def test_another_process_is_answered(base: Path):
    child = process(base, "start")
    try:
        run_id = line(child)
        with Runtime(Settings(base_dir=base)) as runtime:
            run_sync(runtime.answer(run_id, "violet", node="Colour"))
            with pytest.raises((StorageError, RunError)):
                run_sync(runtime.answer(run_id, "second", node="Colour"))
        assert line(child) == "completed {'E': 'violet'}"
        with Runtime(Settings(base_dir=base)) as runtime:
            assert run_sync(runtime.services.store.answers(run_id)) == {}, "what is recorded is not kept twice"
    finally:
        end(child)


@pytest.mark.timeout(1200 + 20 * KILLS)
def test_killed_while_a_question_waits_and_answered_from_elsewhere(base: Path):
    """The process that asks is killed; the question is there with its form; the answer is given before or after a new process goes
    on, which may be killed in turn; the run completes with that answer and one final event."""
    random.seed(5)
    done = 0
    while done < KILLS:
        child = process(base, "start")
        run_id = line(child)
        time.sleep(random.random() * 0.1)
        end(child)
        done += 1
        with Session(settings=Settings(base_dir=base)) as session:
            run = session.open_run(run_id)
            assert run.status == "interrupted"
            question = run.question
            assert question is not None
            assert (question["prompt"], question["default"], question["label"]) == ("Which colour?", "grey", "Colour")
            first = done % 2 == 1
            if first:
                run.answer("amber")
                with pytest.raises((StorageError, RunError)):
                    run.answer("twice")
            if done % 3 == 0 and done < KILLS:
                again = process(base, "resume", run_id)
                if not first:
                    line(again)  # it asks
                else:
                    time.sleep(random.random())
                end(again)
                done += 1
            status = session.open_run(run_id).status
            if status == "interrupted":
                resumed = session.resume(run_id, view=False)
                if not first:
                    wait_until(lambda r=resumed: r.question)
                    with Runtime(Settings(base_dir=base)) as other:
                        run_sync(other.services.store.put_answer(run_id, resumed.question["request_id"], "amber"))  # pyright: ignore[reportOptionalSubscript]
                assert resumed.wait(60)
                assert resumed.outputs == {"E": "amber"}
            events = session.open_run(run_id).events
            assert [e.seq for e in events] == list(range(1, len(events) + 1))
            assert sum(e.type == "execution_completed" for e in events) == 1
            assert events[-1].payload["status"] == "completed"
            assert sum(e.type == "node_completed" and e.payload["label"] == "Before" for e in events) == 1
            assert not unanswered(events)


def test_an_answer_to_the_former_question_that_comes_after_the_run_was_resumed(base: Path):
    """Who answers has read the record before, and is slower than the process that asks again."""
    child = process(base, "start")
    run_id = line(child)
    end(child)
    with Session(settings=Settings(base_dir=base)) as session:
        former = session.open_run(run_id).question
        assert former is not None
        resumed = session.resume(run_id, view=False)
        wait_until(lambda: resumed.question)
        time.sleep(2 * POLL_S)  # it has looked for answers that were left for the former question
        with Runtime(Settings(base_dir=base)) as other:
            run_sync(other.services.store.put_answer(run_id, former["request_id"], "amber"))
            assert resumed.wait(60)
            assert resumed.outputs == {"E": "amber"}
            assert run_sync(other.services.store.answers(run_id)) == {}


# A waiting cell.


@pytest.fixture
def closed() -> list[str]:
    """What was said about input boxes whose questions were over."""
    return []


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """A kernel of this process."""
    with own_shell(kernel=True) as shell:
        yield shell


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch, closed: list[str], shell: InteractiveShell) -> threading.Event:
    """input() of a kernel: polls in the main thread until somebody types, which nobody does."""
    reading = threading.Event()

    def read(prompt: str = "") -> str:
        reading.set()
        for _ in range(6000):
            time.sleep(0.01)
        raise AssertionError("nobody released the cell")

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(kernel, "unattended", lambda: False)
    monkeypatch.setattr(prompter, "hide_box", closed.append)
    return reading


def later(event: threading.Event, work: Callable[[], Any]) -> threading.Thread:
    def go() -> None:
        event.wait(30)
        time.sleep(0.02)
        work()

    thread = threading.Thread(target=go)
    thread.start()
    return thread


def test_stop_releases_a_waiting_cell(session: Session, cell: threading.Event, closed: list[str]):
    run = session.start("ask.light.yaml", view=False)
    thread = later(cell, run.stop)
    with pytest.raises(RunAbortedError):
        run.result(60)
    thread.join()
    assert [said.split("” ")[1] for said in closed] == ["no longer needs an answer."]


def test_the_deadline_of_a_question_releases_a_waiting_cell(session: Session, cell: threading.Event, closed: list[str]):
    with pytest.raises(NodeTimeoutError):
        session.run(ASKING.replace('timeout: 300, default: "grey"', "timeout: 0.3"), view=False)
    assert cell.is_set()
    assert [said.split("” ")[1] for said in closed] == ["no longer needs an answer."]


def test_the_limit_of_the_run_releases_a_waiting_cell(session: Session, cell: threading.Event, closed: list[str]):
    with pytest.raises(RunError, match="limit"):
        session.run("ask.light.yaml", timeout=1, view=False)
    assert cell.is_set()
    assert [said.split("” ")[1] for said in closed] == ["no longer needs an answer."]


def test_an_answer_from_elsewhere_releases_a_waiting_cell(session: Session, cell: threading.Event, closed: list[str]):
    run = session.start("ask.light.yaml", view=False)
    thread = later(cell, lambda: run.answer("from a form"))
    assert run.result(60).output == "from a form"
    thread.join()
    assert [said.split("” ")[1] for said in closed] == ["no longer needs an answer."]


def test_a_form_that_gets_through_takes_over(session: Session, cell: threading.Event, closed: list[str]):
    run = session.start("ask.light.yaml", view=False)
    answers = run._answers
    assert answers is not None

    def form() -> None:
        answers.form_got_through()
        while not closed:
            time.sleep(0.01)
        run.answer("clicked")

    thread = later(cell, form)
    assert run.result(60).output == "clicked"
    thread.join()
    assert [said.split("” ")[1] for said in closed] == ["is asked in the form of the view now."]


def test_ctrl_c_is_still_the_users(session: Session, cell: threading.Event, closed: list[str]):
    import signal

    run = session.start("ask.light.yaml", view=False)
    thread = later(cell, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run.result(60)
    thread.join()
    assert run.status == "aborted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [said.split("” ")[1] for said in closed] == ["no longer needs an answer."]


def test_releasing_at_any_moment_never_reaches_the_caller(monkeypatch: pytest.MonkeyPatch):
    """200 answers that come while, before or after the question is over: a line or the end, and no stray interrupt."""
    random.seed(11)
    reader = CellInput(request_s=0)

    def read(prompt: str) -> str:
        time.sleep(random.random() * 0.002)
        return "line"

    monkeypatch.setattr("builtins.input", read)
    outcomes: list[str] = []
    for n in range(200):
        thread = threading.Timer(random.random() * 0.003, reader.release, args=(f"q{n}",))
        thread.start()
        try:
            outcomes.append(reader.read("", f"q{n}", lambda: True))
        except QuestionOverError:
            outcomes.append("over")
        for _ in range(50):
            pass
        thread.join()
    assert len(outcomes) == 200
    assert set(outcomes) == {"line", "over"}


def test_where_nobody_sits_every_way_of_waiting_fails_at_once(
    session: Session, monkeypatch: pytest.MonkeyPatch, shell: InteractiveShell
):
    def refuses(prompt: str = "") -> str:
        raise NotImplementedError("raw_input was called, but this frontend does not support input requests.")

    monkeypatch.setattr("builtins.input", refuses)
    monkeypatch.setattr(kernel, "unattended", lambda: True)
    diagram = ASKING.replace(', default: "grey"', "")
    run = session.start(diagram, view=False)
    assert run.wait(0.05) is False
    assert run.wait()
    assert "answers={'Colour': '…'}" in str(run.error)

    async def follow() -> int:
        run = session.start(diagram, view=False)
        return len([event async for event in run])

    import asyncio

    assert asyncio.run(follow())
    with pytest.raises(RunError, match="answers="):
        session.run(diagram, view=False)


def test_state_is_a_snapshot(session: Session):
    """What was read does not change under the reader, whatever the run does meanwhile; many readers at once see whole states."""
    run = asking(session)
    before, node = run.state, run.node("Colour")
    assert (before.status, node.status) == ("running", "running")
    seen = before.events
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not run.finished:
                state = run.state
                for part in (state.nodes, state.questions, state.outputs, state.persons):
                    dict(part)
                assert len(run.nodes) <= 4
                run.conversation, run.outputs, run.question  # noqa: B018
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    run.answer("blue")
    run.wait(30)
    for reader in readers:
        reader.join(30)
    assert not failures
    assert (before.status, before.events, node.status) == ("running", seen, "running")
    assert (run.state.status, run.node("Colour").status) == ("completed", "completed")
