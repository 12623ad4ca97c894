"""A notebook with each kind of hang, run by nbclient with 20 seconds a cell: every cell ends with one clear error."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

LIMIT_S = 20
SETUP = '''
import asyncio, sys, threading, time
import dipeo_nb as dp
from dipeo_nb.testing import SlowClient, scripted
from dipeo_nb.common.loop import run_sync

session = dp.Session(llm=scripted())

def diagram(kind, props=""):
    return f"""
version: light
nodes:
  - {{label: S, type: start}}
  - {{label: N, type: {kind}, props: {{{props}}}}}
  - {{label: E, type: endpoint}}
connections:
  - {{from: S, to: N}}
  - {{from: N, to: E}}
"""

ASK = diagram("user_response", 'prompt: "Who?", timeout: 600')

@dp.node
def exits():
    sys.exit(3)

@dp.node
def waits_for_nothing():
    return "done"

@dp.node
def stops():
    return next(iter(()))

@dp.node
async def cancels():
    raise asyncio.CancelledError

@dp.node
async def leaves():
    await asyncio.create_task(_leaves())

async def _leaves():
    raise SystemExit("left")

@dp.node(timeout=1)
def sleeps():
    time.sleep(600)

@dp.node
def sleeps_on():
    time.sleep(600)

@dp.node
def waits_for_a_thread_that_dies():
    threading.excepthook = lambda *_: None
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    raise RuntimeError("the thread died")

def subscribe(handler):
    async def go():
        await session.runtime.initialize()
        session.runtime.services.bus.subscribe(handler)
    run_sync(go())
'''
HANGS: dict[str, tuple[str, str]] = {
    "a question of run": ("session.run(ASK)", "answers={'N'"),
    "a question of start and result": ("session.start(ASK).result()", "answers={'N'"),
    "a question of await": ("await session.start(ASK)", "answers={'N'"),
    "a question of arun": ("await session.arun(ASK)", "answers={'N'"),
    "a question of wait": ("run = session.start(ASK)\nrun.wait()\nrun.result()", "answers={'N'"),
    "a question of a loop over events": ("run = session.start(ASK)\nasync for _ in run: pass\nrun.result()", "answers={'N'"),
    "a question without a view": ("session.run(ASK, view=False)", "answers={'N'"),
    "input() in a code job": ("session.run(diagram('code_job', 'language: python, code: \"return input()\"'))", "EOF"),
    "the deadline of a question": (
        "run = session.start(diagram('user_response', 'prompt: Who, timeout: 1'))\nwhile not run.finished: time.sleep(0.05)\nrun.result()",
        "Nobody answered",
    ),
    "stop while a question waits": (
        "run = session.start(ASK)\nwhile not run.question: time.sleep(0.05)\nrun.stop()\nrun.result()",
        "aborted",
    ),
    "an event that never comes": ("session.run(diagram('waits_for_nothing').replace('type: start', 'type: start, trigger_mode: hook, hook_event: nothing'), timeout=2)", "limit of 2 s"),
    "SystemExit": ("session.run(diagram('exits'))", "SystemExit: 3"),
    "StopIteration": ("session.run(diagram('stops'))", "StopIteration"),
    "CancelledError": ("session.run(diagram('cancels'))", "CancelledError"),
    "SystemExit in a task": ("session.run(diagram('leaves'))", "SystemExit: left"),
    "a function that never returns": ("session.run(diagram('sleeps'))", "limit of 1 s"),
    "the limit of a run": ("session.run(diagram('sleeps_on'), timeout=1)", "limit of 1 s"),
    "a thread that dies": ("session.run(diagram('waits_for_a_thread_that_dies'))", "the thread died"),
    "a run of another session": (
        (
            "run = session.start(ASK)\nwhile not run.question: time.sleep(0.05)\n"
            "try:\n    dp.Session(settings=session.settings).resume(run.id)\nfinally:\n    run.stop(); run.wait(10)"
        ),
        "still goes on in this process",
    ),
}
FINE = {
    "an event handler that exits": ("subscribe(lambda event: sys.exit(4))\nsession.run(diagram('waits_for_nothing')).status", "completed"),
    "answered from another thread": (
        (
            "run = session.start(ASK)\n"
            "def answer():\n    while not run.question: time.sleep(0.02)\n    run.answer('Ada')\n"
            "threading.Thread(target=answer).start()\nwhile not run.finished: time.sleep(0.02)\nrun.result().output"
        ),
        "Ada",
    ),
}


@pytest.mark.timeout(300)
def test_no_cell_hangs(tmp_path: Path):
    """Each hang ends with its one error, and what comes after it works."""
    assert len(HANGS) == 19
    cells = [SETUP, *(source for source, _ in HANGS.values()), *(source for source, _ in FINE.values())]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    client = nbclient.NotebookClient(
        notebook, timeout=LIMIT_S, startup_timeout=60, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    first, *rest = notebook.cells
    assert not [o for o in first.outputs if o.output_type == "error"], first.outputs
    for (name, (_, words)), cell in zip(HANGS.items(), rest, strict=False):
        errors = [o for o in cell.outputs if o.output_type == "error"]
        assert len(errors) == 1, (name, cell.outputs)
        text = "\n".join(errors[0].traceback)
        assert words in text, (name, text)
        assert "CellTimeoutError" not in text
    for (name, (_, words)), cell in zip(FINE.items(), rest[len(HANGS) :], strict=True):
        assert not [o for o in cell.outputs if o.output_type == "error"], (name, cell.outputs)
        assert words in str(cell.outputs[-1]), name
