"""The names a person types: sessions, runs as objects, results, history."""

from __future__ import annotations

import ast
import asyncio
import builtins
import collections.abc
import inspect
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.common.loop import LoopThread
from dipeo_nb.errors import (
    CodeError,
    ConfigurationError,
    InvalidDiagramError,
    MissingDependencyError,
    ProviderError,
    RunAbortedError,
    RunError,
    TrustError,
    UserError,
)
from dipeo_nb.execution.run_options import RunLimits
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.facade import default_session
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import FailingClient, SlowClient, scripted
from tests.support.row_diagrams import BROKEN_CODE, LETTER
from tests.support.waiting import wait_until

QUESTION = """
version: light
nodes:
- {label: Start, type: start}
- {label: Name, type: user_response, prompt: Your name?, timeout: 20}
- {label: Age, type: user_response, prompt: Your age?, timeout: 20}
- {label: N, type: endpoint}
- {label: A, type: endpoint}
connections:
- {from: Start, to: Name}
- {from: Start, to: Age}
- {from: Name, to: N}
- {from: Age, to: A}
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path, llm=scripted("Dear cats")) as opened:
        yield opened


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path, llm=SlowClient("word " * 200, delay=0.02)) as opened:
        yield opened


class Keyboard:
    """A terminal on which somebody types the given lines."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lines: str | BaseException) -> None:
        self.lines = list(lines)
        self.prompts: list[str] = []
        monkeypatch.setattr("sys.stdin", self)
        monkeypatch.setattr("builtins.input", self.input)

    def isatty(self) -> bool:
        return True

    def input(self, prompt: str = "") -> str:
        self.prompts.append(prompt)
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line


# Importing.


def test_importing_is_light():
    """`import dipeo_nb` loads no SDK, no pydantic, no widget, no SQLite and starts no thread."""
    code = (
        "import sys, threading, dipeo_nb as dp; dir(dp); dp.__version__\n"
        "heavy = {'pydantic', 'openai', 'anthropic', 'httpx', 'anywidget', 'ipywidgets', 'IPython', 'yaml', 'sqlite3', 'asyncio'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_public_name_is_there():
    """`__all__` is sorted, every name of it can be had, `dir` shows it, and others are refused."""
    assert [n for n in dp.__all__ if n[0] != "_"] == sorted(n for n in dp.__all__ if n[0] != "_")
    for name in dp.__all__:
        assert getattr(dp, name) is not None
        assert name in dir(dp)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = dp.nonsense


def test_functions_have_the_signature_of_the_methods():
    """`dp.start?` shows every option, without self, and the documentation."""
    options = list(inspect.signature(dp.start).parameters)
    assert options[:3] == ["diagram", "model", "answers"]
    assert "self" not in options
    assert dp.start.__doc__ == Session.start.__doc__


@pytest.mark.parametrize("owner", [dp, Session])
def test_run_and_arun_take_what_start_takes(owner: Any):
    """All options are declared once; those that say what may be spent are `RunLimits`, as for the command line and the server."""
    shown = inspect.signature(owner.start).parameters
    assert inspect.signature(owner.run).parameters == inspect.signature(owner.arun).parameters == shown
    assert RunLimits.__annotations__.keys() <= shown.keys() & inspect.signature(owner.fork).parameters.keys()
    assert inspect.signature(owner.run).return_annotation == "RunResult"


CLASSES = {"BaseProvider", "ChatMessage", "LLMRequest", "Path", "RunSummary", "os"}
"""Classes beside those of `dp` that parameters may be of."""


@pytest.mark.parametrize("owner", [dp, dp.Session, dp.Run, dp.RunResult], ids=lambda owner: owner.__name__)
def test_signatures_name_types_that_can_be_looked_up(owner: Any):
    """`dp.run?` shows classes and forms of types, never the name of an alias that is known inside the package alone."""
    functions = [getattr(owner, name) for name in getattr(owner, "__all__", None) or dir(owner) if name[0] != "_"]
    known = [builtins, collections.abc, typing, dp]
    looked_at = 0
    for function in filter(inspect.isroutine, functions):
        for parameter in inspect.signature(function).parameters.values():
            if not isinstance(parameter.annotation, str):
                continue
            names = {node.id for node in ast.walk(ast.parse(parameter.annotation)) if isinstance(node, ast.Name)}
            unknown = {name for name in names - CLASSES if not any(hasattr(place, name) for place in known)}
            assert not unknown, f"{function.__qualname__}({parameter})"
            looked_at += 1
    assert looked_at >= {dp: 60, dp.Session: 60, dp.Run: 20, dp.RunResult: 1}[owner]


# Running.


def test_run_gives_outputs_usage_and_conversation(session: Session):
    """A finished run: outputs by label, the only output, tokens, money, time, messages, nodes, events without gap."""
    result = session.run(LETTER, topic="dogs")
    assert result.status == "completed"
    assert result.outputs == {"Letter": "Dear cats"}
    assert result.output == "Dear cats"
    assert result.usage.output == 2
    assert result.cost == 0.0
    assert result.duration > 0
    assert result.error is None
    assert [m["content"] for m in result.conversation] == ["About dogs.", "Dear cats"]
    assert result.node("Writer").runs == 1
    assert [e.seq for e in result.events] == list(range(1, len(result.events) + 1))
    assert [row["node"] for row in result.nodes] == ["Start", "Writer", "Letter"]


def test_inputs_may_have_any_name(session: Session):
    """Variables come as keywords, or in `inputs=` when an option has their name."""
    result = session.run(LETTER.replace("topic}}", "model}}"), inputs={"model": "a car"}, topic="unused")
    assert result.conversation[0]["content"] == "About a car."


def test_diagrams_come_in_every_form(session: Session, tmp_path: Path):
    """A path, a name, a text, a mapping and a Diagram all run."""
    path = tmp_path / "letter.light.yaml"
    path.write_text(LETTER)
    loaded = session.load(path)
    mapping = {"version": "light", "nodes": [{"label": "Start", "type": "start"}, {"label": "E", "type": "endpoint"}],
               "connections": [{"from": "Start", "to": "E"}]}  # fmt: skip
    for source in (path, str(path), "letter", LETTER, loaded, mapping):
        assert session.run(source).status == "completed"


def test_start_returns_at_once_and_can_be_watched(slow: Session):
    """A started run goes on by itself; its state changes meanwhile."""
    run = slow.start(LETTER)
    wait_until(lambda: run.node("Writer").text.count("word") >= 3)
    assert run.status == "running"
    assert not run.finished
    assert "running" in repr(run)
    run.stop()
    assert run.wait(5)
    assert run.status == "aborted"


def test_a_failed_run_raises_what_made_it_fail(session: Session):
    """`run`, `result` and `await` raise the same error, which knows its run; asking twice gives no longer traceback."""
    with pytest.raises(CodeError, match="division") as failure:
        session.run(BROKEN_CODE)
    run: Run = failure.value.run  # type: ignore[attr-defined]
    assert run.status == "failed"
    assert failure.value.run_id == run.id
    assert failure.value.node == "Work"
    assert (run.error or {})["type"] == "CodeError"
    with pytest.raises(CodeError) as again:
        run.result()

    async def awaited() -> None:
        await run

    with pytest.raises(CodeError):
        asyncio.run(awaited())
    assert len(again.traceback) < 5


def test_a_service_that_fails_is_a_service_error(tmp_path: Path):
    """An error of the model's provider keeps its class."""
    with Session(tmp_path, llm=FailingClient()) as session, pytest.raises(ProviderError) as failure:
        session.run(LETTER)
    assert failure.value.run.status == "failed"  # type: ignore[attr-defined]


def test_user_errors_run_nothing(session: Session):
    """A bad diagram, an answer to no node: refused, and nothing is recorded."""
    with pytest.raises(InvalidDiagramError):
        session.run(LETTER.replace("person: Anna", "person: Nobody"))
    with pytest.raises(UserError, match="Nam") as wrong:
        session.start(QUESTION, answers={"Nam": "x"})
    assert "Name, Age" in str(wrong.value)
    assert session.runs() == []


def test_code_of_files_elsewhere_needs_trust(session: Session, tmp_path_factory: pytest.TempPathFactory):
    """A file with code outside the base directory runs only with trust=True."""
    path = tmp_path_factory.mktemp("elsewhere") / "x.light.yaml"
    path.write_text(BROKEN_CODE.replace("1 / 0", "1"))
    with pytest.raises(TrustError):
        session.run(path)
    assert session.run(path, trust=True).output == 1


def test_a_store_that_refuses_fails_the_run(tmp_path: Path):
    """When nothing can be recorded the run ends failed, and says why, instead of hanging."""
    (tmp_path / ".dipeo").mkdir()
    (tmp_path / ".dipeo" / "runs.db").write_bytes(b"this is no database" * 100)
    with Session(tmp_path, llm=scripted()) as session:
        run = session.start(LETTER)
        with pytest.raises(dp.DipeoError, match=r"runs\.db"):
            run.result(10)
        assert run.status == "failed"


def test_a_session_needs_its_folder(tmp_path: Path):
    """A base directory that is not there is refused by name."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        Session(tmp_path / "nowhere")


# Waiting, stopping, watching.


def test_result_waits_no_longer_than_told(slow: Session):
    """After the timeout: TimeoutError, and the run goes on."""
    run = slow.start(LETTER)
    with pytest.raises(TimeoutError, match="still"):
        run.result(0.1)
    wait_until(lambda: run.status == "running")
    run.stop()


def test_stop_from_any_thread(slow: Session):
    """Stop aborts a run that somebody waits for; stopping again, or afterwards, changes nothing."""
    run = slow.start(LETTER)
    threading.Timer(0.1, run.stop, ["enough"]).start()
    with pytest.raises(RunAbortedError, match="enough"):
        run.result(5)
    run.stop("later")
    assert (run.error or {})["message"] == "The run was aborted: enough."
    assert run.node("Writer").status == "aborted"


class Reluctant(SlowClient):
    """A model that needs a while to be cut off, as one that computes in a thread does."""

    async def _pause(self) -> None:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            raise


def test_stopping_again_and_again(tmp_path: Path):
    """Stop from before the start to after the end: the run ends in order all the same, and is recorded so."""
    with Session(tmp_path, llm=Reluctant("word " * 500)) as session:
        for head_start in (0.0, 0.1):
            run = session.start(LETTER)
            run.wait(head_start)
            while not run.finished:
                run.stop("again")
                time.sleep(0.01)
            with pytest.raises(RunAbortedError, match="again"):
                run.result(5)
            assert run.events[-1].type == "execution_error"


def test_ctrl_c_stops_the_run(slow: Session, monkeypatch: pytest.MonkeyPatch):
    """KeyboardInterrupt while waiting aborts the run before it is raised."""
    run = slow.start(LETTER)
    wait = run._finished.wait
    calls: list[float | None] = []

    def interrupted(timeout: float | None = None) -> bool:
        calls.append(timeout)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return wait(timeout)

    monkeypatch.setattr(run._finished, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.result()
    assert run.status == "aborted"


def test_cancelling_an_await_stops_the_run(slow: Session):
    """A cell that is interrupted while it awaits a run aborts it."""

    async def cell() -> None:
        await asyncio.wait_for(run, 0.1)

    run = slow.start(LETTER)
    with pytest.raises(TimeoutError):
        asyncio.run(cell())
    assert run.wait(5)
    assert run.status == "aborted"


def test_result_on_the_loop_thread_is_refused(session: Session):
    """Waiting on the library's own loop would never end; it is refused at once."""
    run = session.start(LETTER)

    async def wrong() -> None:
        run.result()

    with pytest.raises(RuntimeError, match="await run"):
        LoopThread.get().submit(wrong()).result(5)
    run.result(5)


def test_arun_several_at_once(slow: Session):
    """Runs awaited together go on together."""

    async def both() -> list[Any]:
        return await asyncio.gather(slow.arun(LETTER), slow.arun(LETTER))

    slow.runtime.services.llm.delay = 0.001  # type: ignore[attr-defined]
    assert [r.status for r in asyncio.run(both())] == ["completed", "completed"]


@pytest.mark.parametrize("late", [False, True], ids=["from the start", "after the end"])
def test_async_for_gives_every_event(session: Session, late: bool):
    """`async for` gives the events from number 1 without a gap, to late comers too, and ends with the run."""

    async def watch() -> list[int]:
        run = session.start(LETTER)
        if late:
            await run
        return [event.seq async for event in run]

    seen = asyncio.run(watch())
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 6


def test_async_for_ends_with_a_failed_run(session: Session):
    """A failed run's events end with its error; iterating does not raise it."""

    async def watch() -> list[str]:
        return [str(event.type) async for event in session.start(BROKEN_CODE)]

    assert asyncio.run(watch())[-1] == "execution_error"


def test_closing_a_session_stops_its_runs(tmp_path: Path):
    """A closed session leaves no run behind; it opens again when it is used."""
    session = Session(tmp_path, llm=SlowClient("word " * 500, delay=0.02))
    run = session.start(LETTER)
    wait_until(lambda: run.status == "running")
    session.close()
    assert run.status == "aborted"
    assert [r.status for r in session.runs()] == ["aborted"]
    session.close()


# Questions.


def test_given_answers(session: Session):
    """`answers=` answers by label."""
    assert session.run(QUESTION, answers={"Name": "Ada", "Age": "36"}).outputs == {"N": "Ada", "A": "36"}


def test_two_questions_wait_at_once(session: Session):
    """Questions of parallel nodes wait side by side; `run.question` shows one after the other."""
    run = session.start(QUESTION)
    wait_until(lambda: len(run.state.questions) == 2)
    first = dict(run.question or {})
    run.answer("Ada")
    wait_until(lambda: (run.question or first)["request_id"] != first["request_id"])
    run.answer("36")
    assert sorted(run.result(5).outputs.values()) == ["36", "Ada"]
    with pytest.raises(dp.RunError, match="No question"):
        run.answer("late")


def test_a_blocking_run_asks_with_input(session: Session, monkeypatch: pytest.MonkeyPatch):
    """`run` asks on the terminal, an empty line means the default."""
    keyboard = Keyboard(monkeypatch, "Ada", "")
    result = session.run(QUESTION.replace("Your age?", "Your age?, default: '18'"))
    assert result.outputs == {"N": "Ada", "A": "18"}
    assert keyboard.prompts == ["Your name? ", "Your age? [18] "]


def test_await_asks_with_input_too(session: Session, monkeypatch: pytest.MonkeyPatch):
    """A cell that awaits the run asks the same way."""
    Keyboard(monkeypatch, "Ada", "36")

    async def cell() -> Any:
        return await session.start(QUESTION)

    assert asyncio.run(cell()).outputs == {"N": "Ada", "A": "36"}


def test_where_nobody_can_answer_the_error_names_answers(session: Session, monkeypatch: pytest.MonkeyPatch):
    """Without a terminal, and under nbclient, the run fails at once and the hint says what to do; a default is taken."""
    with pytest.raises(dp.RunError, match="answers="):
        session.run(QUESTION)
    Keyboard(monkeypatch, NotImplementedError("raw_input was called, but this frontend does not support input requests."))
    with pytest.raises(dp.RunError, match="answers="):
        session.run(QUESTION)
    Keyboard(monkeypatch, EOFError(), EOFError())
    with_defaults = QUESTION.replace("timeout: 20", "timeout: 20, default: nobody")
    assert session.run(with_defaults).outputs == {"N": "nobody", "A": "nobody"}


# History.


def test_history_and_open_run(session: Session):
    """Runs are listed newest first and open again with everything, in another session too, by the beginning of their id."""
    first = session.run(LETTER)
    with pytest.raises(CodeError):
        session.run(BROKEN_CODE)
    rows = session.runs()
    assert [r.status for r in rows] == ["failed", "completed"]
    assert first.id in repr(rows)
    assert first.id in rows._repr_html_()
    assert [r.run_id for r in session.runs(status="completed")] == [first.id]
    with Session(session.settings.base_dir) as other:
        opened = other.open_run(first.id.removeprefix("exec_")[:12])
        assert opened.result().outputs == first.outputs
        assert opened.events == first.events
        assert "Letter" in opened._repr_mimebundle_()["text/html"]
        with pytest.raises(CodeError, match="division"):
            other.open_run(rows[0].run_id).result()


def test_open_run_of_a_live_run_is_that_run(slow: Session):
    """Opening a run that goes on in this session gives the live object."""
    run = slow.start(LETTER)
    assert slow.open_run(run.id) is run
    wait_until(lambda: run.state.events > 1)
    assert slow.open_run(run.id[:20]) is run
    run.stop()


def test_open_run_needs_an_unmistakable_id(session: Session):
    """No run, or several: said so."""
    session.run(LETTER)
    session.run(LETTER)
    with pytest.raises(UserError, match="There is no run 'nope'"):
        session.open_run("nope")
    with pytest.raises(UserError, match="2 runs begin"):
        session.open_run("exec_")


def test_a_killed_process_leaves_an_interrupted_run(tmp_path: Path):
    """kill -9 in the middle: the run is listed as interrupted, opens, and shows what was finished."""
    code = (
        "import sys, dipeo_nb as dp\n"
        "from dipeo_nb.testing import SlowClient\n"
        f"run = dp.Session({str(tmp_path)!r}, llm=SlowClient('word ' * 1000, delay=0.02)).start({LETTER!r})\n"
        "while 'word' not in run.node('Writer').text if run.state.nodes else True: pass\n"
        "print(run.id, flush=True)\nrun.result()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    run_id = child.stdout.readline().strip()
    with Session(tmp_path) as session:
        elsewhere = session.open_run(run_id)
        assert elsewhere.status == "running"
        with pytest.raises(dp.RunError, match="another process"):
            elsewhere.result()
        child.kill()
        child.wait()
        child.stdout.close()
        assert [r.status for r in session.runs()] == ["interrupted"]
        run = session.open_run(run_id)
        assert run.status == "interrupted"
        assert run.node("Start").status == "completed"
        assert run.node("Writer").status == "interrupted"
        assert "word" in run.node("Writer").text
        with pytest.raises(dp.RunError, match="process of this run ended"):
            run.result()


def test_the_default_session_follows_the_settings(tmp_path: Path):
    """`dp.run` uses the settings of the moment; the run is in their store."""
    result = dp.run(LETTER, model="echo")
    assert result.output == "[Anna] About cats."
    assert dp.runs()[0].run_id == result.id
    assert (tmp_path / ".dipeo" / "runs.db").exists()
    before = default_session()
    other = tmp_path / "other"
    other.mkdir()
    with dp.override_settings(base_dir=other):
        assert default_session() is not before
        assert dp.runs() == []
        default_session().close()
    before.close()
    default_session().close()


def test_services_can_be_replaced(tmp_path: Path):
    """A session takes single services by name; unknown names are refused."""
    store = SqliteRunStore(tmp_path / "elsewhere.db")
    with Session(tmp_path, llm=scripted("x"), store=store) as session:
        session.run(LETTER)
    assert (tmp_path / "elsewhere.db").exists()
    with pytest.raises(ConfigurationError, match="Did you mean llm="):
        Session(tmp_path, lmm=scripted())


def test_a_dataframe_needs_pandas(session: Session, monkeypatch: pytest.MonkeyPatch):
    """Without pandas the error says so and names the same rows without it."""
    result = session.run(LETTER)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"pip install pandas.*run\.nodes"):
        result.to_dataframe()
    assert result.nodes[1]["tokens"] == result.usage.total
    assert "<table>" in result.nodes._repr_html_()


def test_nest_says_what_it_patches():
    """`nest` patches asyncio only when asked, prefers nest-asyncio2, and names what it did."""
    code = "import dipeo_nb as dp, asyncio\nprint(dp.nest())\nasync def f(): return asyncio.run(asyncio.sleep(0, 7))\nassert asyncio.run(f()) == 7"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("nest_asyncio2 has patched asyncio")


ASKING = """
version: light
nodes:
  - {label: Start, type: start}
  - {label: Ask, type: user_response, prompt: "Which colour?", timeout: 60}
  - {label: End, type: endpoint}
connections:
  - {from: Start, to: Ask}
  - {from: Ask, to: End}
"""


def wait_for_question(run: Run) -> None:
    while run.question is None and not run.finished:
        time.sleep(0.002)


def test_an_answer_to_a_question_that_does_not_wait_is_an_error(tmp_path: Path):
    """Unknown ids, a question of the process before, and a run that is over: nothing is lost without a word."""
    with Session(base_dir=tmp_path) as dp:
        run = dp.start(ASKING, view=False)
        wait_for_question(run)
        with pytest.raises(RunError, match="No question 'nope' waits"):
            run.answer("blue", request_id="nope")
        before = run.question
        run.stop()
        with pytest.raises(RunError):
            run.result(30)
        with pytest.raises(RunError, match="waits for an answer"):
            run.answer("blue", request_id=before["request_id"])
        again = dp.resume(run.id, view=False)
        wait_for_question(again)
        assert again.question["request_id"] != before["request_id"]
        again.answer("red")
        assert again.result(30).output == "red"
        with pytest.raises(RunError):
            again.answer("blue")


def test_an_answer_in_the_moment_of_the_question_counts(tmp_path: Path):
    """A question is shown a moment before it is asked; who answers at once is heard."""
    with Session(base_dir=tmp_path) as dp:
        for colour in ("red", "blue", "green") * 5:
            run = dp.start(ASKING, view=False)
            while run.question is None:
                pass
            run.answer(colour)
            assert run.result(30).output == colour
