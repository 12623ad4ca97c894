"""Ctrl-C, the end of the process, and runs that nobody waits for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pexpect
import pytest

import dipeo_nb as dp
from dipeo_nb.errors import RunInterruptedError
from dipeo_nb.notebook.calls import RunGoesOnWarning
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.session import Session
from tests.support.scripted_kernel import own_shell

CODE = """
version: light
nodes:
- {label: Start, type: start}
- {label: Work, type: code_job, code: "%s"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Work}
- {from: Work, to: End}
"""
SLOW, FAILING = CODE % "import time; time.sleep(30)", CODE % "return 1 / 0"

SCRIPT = f'''
import sys, time, dipeo_nb as dp
SLOW, FAILING = """{SLOW}""", """{FAILING}"""
def at_work(run):
    while "running" != run._state.nodes.get("node_1", run._state).status:
        time.sleep(0.01)
    time.sleep(0.1)
'''


def script(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + code], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


ENDS = {
    "failed": ("run = dp.start(FAILING); run.wait()", "failed and its result was never read: ZeroDivisionError"),
    "dropped": ("dp.start(FAILING).wait()", "failed and its result was never read: ZeroDivisionError"),
    "cut off": ("run = dp.start(SLOW); at_work(run)", "was interrupted by the end of the process"),
    "several": ("runs = [dp.start(SLOW) for _ in range(2)]; [at_work(r) for r in runs]", "2 runs were interrupted"),
    "exit": ("run = dp.start(SLOW); at_work(run); sys.exit(3)", "was interrupted by the end of the process"),
    "error": ("run = dp.start(SLOW); at_work(run); raise KeyError(1)", "was interrupted by the end of the process"),
    "looked at": ("run = dp.start(FAILING); run.wait(); print(run.status)", ""),
    "asked": ("try: dp.run(FAILING)\nexcept dp.RunError: pass", ""),
    "completed": ("run = dp.start(FAILING.replace('1 / 0', '1')); run.wait()", ""),
    "stopped": ("run = dp.start(SLOW); at_work(run); run.stop(); run.wait()", ""),
}


@pytest.mark.parametrize("end", ENDS)
def test_runs_that_nobody_waits_for_say_how_they_ended(tmp_path: Path, end: str):
    """A failure, or the end of the process, is on stderr; what somebody has seen is not told again."""
    code, expected = ENDS[end]
    done = script(tmp_path, code)
    assert done.returncode == {"exit": 3, "error": 1}.get(end, 0)
    told = [line for line in done.stderr.splitlines() if line.startswith("dipeo_nb: ")]
    assert len(told) == bool(expected), done.stderr
    assert expected in done.stderr
    with Session(tmp_path) as session:
        cut = [session.open_run(row) for row in session.runs() if row.status == "interrupted"]
        assert len(cut) == {"cut off": 1, "several": 2, "exit": 1, "error": 1}.get(end, 0)
        for run in cut:
            with pytest.raises(RunInterruptedError, match=f"dp.resume\\('{run.id}'\\)"):
                run.result()
            assert run.events[-1].payload["status"] == "interrupted", "it is recorded, not guessed"
            assert run.node("Work").status == "interrupted"


def test_a_run_that_was_cut_off_in_order_goes_on(tmp_path: Path):
    """Its record says interrupted, and resume takes it up."""
    waits = CODE % "import os, time\\nwhile not os.path.exists('ready'): time.sleep(0.02)\\nreturn 'done'"
    script(tmp_path, f'run = dp.start(r"""{waits}"""); at_work(run)')
    (tmp_path / "ready").write_text("")
    with Session(tmp_path) as session:
        (row,) = session.runs(status="interrupted")
        assert session.resume(row, view=False).result().output == "done"


def test_interrupts_are_shown_in_two_lines(tmp_path: Path):
    """The exception is Python's own; IPython shows the run and how to go on, not our waiting."""
    with Session(tmp_path) as session:
        run = session.start(SLOW)
        run._asking_here = lambda: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[assignment, method-assign]
        with pytest.raises(KeyboardInterrupt) as caught:
            run.result()
        lines = caught.value._render_traceback_()  # type: ignore[attr-defined]
        assert run.status == "aborted"
        assert len(lines) == 2
        assert run.id in lines[0]
        assert "dp.resume" in lines[1]


@pytest.mark.parametrize("call", ["run", "arun"])
def test_an_interrupt_while_the_view_is_made_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str):
    """The first view takes a second to load; whoever interrupts there leaves no run behind."""

    def show(run: Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "show", show)
    with own_shell(kernel=True), Session(tmp_path) as session, pytest.raises(KeyboardInterrupt) as caught:
        asyncio.run(session.arun(SLOW)) if call == "arun" else session.run(SLOW)
    with Session(tmp_path) as session:
        (row,) = session.runs()
        assert row.status == "aborted"
        assert row.run_id in caught.value._render_traceback_()[0]  # type: ignore[attr-defined]


def test_a_cell_that_runs_again_names_the_run_that_it_started_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The earlier run goes on and pays, and no view shows it any more; several runs of one execution, or of other cells, are meant."""
    here = ("a", "1")
    monkeypatch.setattr("dipeo_nb.notebook.kernel.current_cell", lambda: here)

    def start() -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            runs.append(session.start(SLOW, view=False))
        return [str(w.message) for w in caught if w.category is RunGoesOnWarning]

    with Session(tmp_path) as session:
        runs: list[Run] = []
        assert start() == []
        assert start() == []
        here = ("b", "2")
        assert start() == []
        here = ("a", "3")
        said = start()
        assert sorted(said) == sorted(
            f"A run that this cell started before is still running: dp.open_run('{r.id}').stop() ends it." for r in runs[:2]
        )
        for run in runs:
            run.stop()
        for run in runs:
            assert run.wait(20)
        here = ("a", "4")
        assert start() == []
        runs[-1].stop()


def test_an_interrupt_before_anything_runs_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Loading and checking a diagram can be interrupted, too; our frames help nobody."""

    def prepare(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dipeo_nb.runtime.Runtime.prepare", prepare)
    with dp.override_settings(base_dir=tmp_path), pytest.raises(KeyboardInterrupt) as caught:
        dp.run(SLOW, view=False)
    assert caught.value._render_traceback_() == ["\x1b[31mKeyboardInterrupt\x1b[0m: dp.run() was interrupted."]  # type: ignore[attr-defined]


def terminal(folder: Path) -> pexpect.spawn:
    (folder / "slow.light.yaml").write_text(SLOW)
    arguments = ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor", "--HistoryManager.enabled=False"]
    child = pexpect.spawn(sys.executable, arguments, cwd=str(folder), encoding="utf-8", timeout=60)
    child.expect(r"In \[1\]")
    return child


AWAITED = [
    "await dp.arun('slow')",
    "await asyncio.gather(dp.arun('slow'), dp.arun('slow'))",
    "r = dp.start('slow'); await r",
    "dp.run('slow')",
]


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals to drive")
def test_ctrl_c_in_a_terminal_stops_what_is_awaited(tmp_path: Path):
    """IPython leaves its loop with the interrupt and forgets the task: the run is stopped all the same, and says so shortly."""
    child = terminal(tmp_path)
    try:
        child.sendline("import asyncio, dipeo_nb as dp")
        child.expect(r"In \[2\]")
        with Session(tmp_path) as session:
            begun = 0
            for number, line in enumerate(AWAITED, 3):
                child.sendline(line)
                begun += 2 if "gather" in line else 1
                deadline = time.monotonic() + 30
                while sum(row.events >= 4 for row in session.runs()) < begun:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                child.sendintr()
                child.expect(rf"In \[{number}\]")
                assert "KeyboardInterrupt\x1b[0m: " in str(child.before)
                assert "interrupts.py" not in child.before
                while session.runs(status="running"):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert {row.status for row in session.runs()} == {"aborted"}
            assert len(session.runs()) == 5
        child.sendline("import signal; signal.getsignal(signal.SIGINT) is signal.default_int_handler")
        child.expect("True")
    finally:
        child.close(force=True)


def test_ctrl_c_in_asyncio_run_waits_for_the_end(tmp_path: Path):
    """When the exception arrives, the run is over and recorded so."""
    code = """
import asyncio, signal, threading, time, os
async def go():
    run = dp.start(SLOW, view=False)
    def interrupt():
        at_work(run)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    await run
try: asyncio.run(go())
except KeyboardInterrupt: print("status:", dp.runs()[0].status)
"""
    done = script(tmp_path, code)
    assert "status: aborted" in done.stdout, done.stderr
    assert dp.__version__
