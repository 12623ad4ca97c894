"""A notebook with each kind of hang, run by nbclient with 20 seconds a cell: every cell ends with one clear error."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat

LIMIT_S = 20
SETUP = '''
import _thread, asyncio, json, os, signal, socket, sqlite3, subprocess, sys, threading, time
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

@dp.node(timeout=0.3)
async def blocks():
    time.sleep(600)

@dp.node
async def blocks_on():
    while True:
        pass

@dp.node(timeout=0.3)
async def ignores_its_end():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

@dp.node
async def yields_for_ever():
    while True:
        yield 1

@dp.node
def asks():
    return input("Who? ")

def code(text, **props):
    more = "".join(f", {name}: {value}" for name, value in props.items())
    return diagram("code_job", f"language: python, code: {json.dumps(text)}{more}")

def dripping():
    """The address of a server that sends a byte now and then."""
    listening = socket.create_server(("127.0.0.1", 0))
    def serve():
        connection, _ = listening.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1000\\r\\n\\r\\n")
        try:
            while True:
                connection.sendall(b"x")
                time.sleep(0.1)
        except OSError:
            pass
    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/"

WRITER = """
version: light
persons:
  Anna: {service: openai, model: m}
nodes:
  - {label: S, type: start}
  - {label: N, type: person_job, person: Anna, default_prompt: Write.}
connections:
  - {from: S, to: N}
"""

LOOP = """
version: light
nodes:
  - {label: S, type: start}
  - {label: A, type: waits_for_nothing}
  - {label: C, type: condition, condition_type: custom, expression: "1 > 2"}
  - {label: E, type: endpoint}
connections:
  - {from: S, to: A}
  - {from: A, to: C}
  - {from: C_condfalse, to: A}
  - {from: C_condtrue, to: E}
"""

elsewhere = subprocess.Popen(
    [sys.executable, "-c", f"import dipeo_nb as dp; s = dp.Session(); r = s.start({ASK!r}); print(r.id, flush=True); r.wait()"],
    stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
)

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
    "an event that never comes": (
        "session.run(diagram('waits_for_nothing').replace('type: start', 'type: start, trigger_mode: hook, hook_event: nothing'), timeout=2)",
        "limit of 2 s",
    ),
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
        "is still running in this process",
    ),
    "an async function that blocks": ("session.run(diagram('blocks'))", "limit of 0.3 s"),
    "the limit of a run over one that blocks": ("session.run(diagram('blocks_on'), timeout=0.3)", "limit of 0.3 s"),
    "stop while one blocks": (
        "run = session.start(diagram('blocks_on'))\ntime.sleep(0.3)\nrun.stop()\nrun.result()",
        "aborted",
    ),
    "a function that ignores its end": (
        "from dipeo_nb.common import function_loop\nfunction_loop.CLEANUP_S = 0.3\nsession.run(diagram('ignores_its_end'))",
        "limit of 0.3 s",
    ),
    "a generator without end": ("session.run(diagram('yields_for_ever'))", "1,000,000"),
    "input() in a function": ("session.run(diagram('asks'))", "input"),
    "a code job without end": ("session.run(code('while True: pass', timeout=0.5))", "limit of 0.5 s"),
    "a worker that never answers": (
        "session.run(code('import os, signal\\nos.kill(os.getpid(), signal.SIGSTOP)'), timeout=1)",
        "limit of 1 s",
    ),
    "a command without end": (
        "session.run(diagram('code_job', 'language: bash, code: \"sleep 600 & wait\", timeout: 0.3'))",
        "limit of 0.3 s",
    ),
    "a template without end": (
        "session.run(diagram('template_job', 'template_content: \"{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}\", timeout: 0.3'))",
        "template",
    ),
    "a condition without end": (
        "session.run(LOOP.replace('1 > 2', 'sum(a * b for a in range(99999) for b in range(99999)) > 2'))",
        "more than 100,000 steps",
    ),
    "a pattern without end": (
        (
            "session.run(diagram('json_schema_validator', 'strict_mode: true, timeout: 0.3, json_schema: "
            "{type: object, properties: {t: {type: string, pattern: \"^(?=a)(a+)+$\"}}}'), t='a' * 60 + '!')"
        ),
        "limit of 0.3 s",
    ),
    "a loop without end": ("session.run(LOOP)", "100"),
    "a server that drips": ("session.run(diagram('api_job', f'url: \"{dripping()}\", method: GET, timeout: 0.5'))", "0.5 s"),
    "a model that never answers": (
        "with dp.Session(llm=SlowClient('x', delay=600)) as slow:\n    slow.run(WRITER, timeout=0.5)",
        "limit of 0.5 s",
    ),
    "a run of another process": (
        "try:\n    session.resume(elsewhere.stdout.readline().strip())\nfinally:\n    elsewhere.kill(); elsewhere.wait()",
        "is still running in process",
    ),
    "a store that is locked": (
        (
            "from dipeo_nb.execution.state import sqlite_file\nsqlite_file.BUSY_TOTAL_S = 0.5\n"
            "other = sqlite3.connect(session.runtime.settings.run_store, isolation_level=None)\nother.execute('BEGIN IMMEDIATE')\n"
            "try:\n    session.run(diagram('waits_for_nothing'))\nfinally:\n    other.rollback(); other.close(); sqlite_file.BUSY_TOTAL_S = 30"
        ),
        "locked",
    ),
    "an interrupted kernel": (
        "threading.Timer(0.5, _thread.interrupt_main).start()\nsession.run(diagram('blocks_on'))",
        "was stopped",
    ),
    "a dead event loop": (
        (
            "from dipeo_nb.common.loop import LoopThread\nown = LoopThread()\nwaiting = own.submit(asyncio.sleep(600))\n"
            "own.stop()\nwaiting.result()"
        ),
        "has ended",
    ),
}
FINE = {
    "an event handler that exits": (
        "subscribe(lambda event: sys.exit(4))\nsession.run(diagram('waits_for_nothing')).status",
        "completed",
    ),
    "answered from another thread": (
        (
            "run = session.start(ASK)\n"
            "def answer():\n    while not run.question: time.sleep(0.02)\n    run.answer('Ada')\n"
            "threading.Thread(target=answer).start()\nwhile not run.finished: time.sleep(0.02)\nrun.result().output"
        ),
        "Ada",
    ),
}


def test_no_cell_hangs(tmp_path: Path):
    """Each hang ends with its one error, and what comes after it works."""
    assert len(HANGS) == 38
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
