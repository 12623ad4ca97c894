"""Two machines on one volume: one that was stopped (a laptop that sleeps, a paused virtual machine) and another that resumed its run.

Each machine is a process with its own name and its own process ids (`unshare`, util-linux), so neither can ask whether the other lives.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.execution.state.sqlite import SqliteRunStore

STEPS = 40
MACHINE = """
    import asyncio, json, socket, sys
    import dipeo_nb as dp
    from dipeo_nb.execution import engine
    from dipeo_nb.execution.state import sqlite

    name, path, action = sys.argv[1:4]
    socket.sethostname(name)
    from dipeo_nb.execution.state import machine
    machine.HOST = sqlite.HOST = name + machine.HOST[machine.HOST.index(":"):]
    engine.BEAT_S, sqlite.HEARTBEAT_AGE_S = 0.2, 3.0

    @dp.node
    async def pause():
        await asyncio.sleep(0.05)
        return "done"

    names = ["step%d" % i for i in range({steps})]
    nodes = [{{"label": "start", "type": "start"}}, *({{"label": n, "type": "pause"}} for n in names), {{"label": "end", "type": "endpoint"}}]
    arrows = [{{"from": a["label"], "to": b["label"]}} for a, b in zip(nodes, nodes[1:])]
    source = json.dumps({{"version": "light", "nodes": nodes, "connections": arrows}})

    with dp.Session(store=sqlite.SqliteRunStore(path)) as session:
        try:
            if action == "start":
                run = session.start(source, view=False)
                print(run.id, flush=True)
            else:
                run = session.resume(action, view=False)
                print(run.id, flush=True)
            print(str(run.result().status), flush=True)
        except Exception as error:
            print(json.dumps([type(error).__name__, str(error)]), flush=True)
"""


class Machine:
    """A process that takes itself for a computer of its own."""

    def __init__(self, name: str, store: Path, action: str) -> None:
        code = textwrap.dedent(MACHINE.format(steps=STEPS))
        command = [
            "unshare",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            sys.executable,
            "-c",
            code,
            name,
            str(store),
            action,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, number: signal.Signals) -> None:
        inner = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in inner:
            os.kill(int(pid), number)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def namespaces() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("not here: unshare (util-linux)")
    if subprocess.run(["unshare", "--uts", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode:
        pytest.skip("not here: namespaces of one's own")


@pytest.mark.slow
@pytest.mark.parametrize("wakes", ["while the run continues there", "after the run ended there"])
def test_a_machine_that_slept_has_lost_its_run(tmp_path: Path, namespaces: None, wakes: str):
    """What it was about to write is refused, and says who has the run; each step is recorded once."""
    path = tmp_path / "runs.db"
    first = Machine("sleeper", path, "start")
    second = None
    try:
        run_id = first.line()
        time.sleep(0.7)  # some steps, not all
        first.send(signal.SIGSTOP)
        time.sleep(4)  # longer than a heartbeat may be old
        second = Machine("taker", path, run_id)
        assert second.line() == run_id
        if wakes.startswith("while"):
            first.send(signal.SIGCONT)
            assert second.line() == "completed"
        else:
            assert second.line() == "completed"
            first.send(signal.SIGCONT)
        kind, said = json.loads(first.line())
        assert kind == "StorageError"
        assert "was taken over by process" in said
        assert "on taker" in said
    finally:
        first.end()
        if second is not None:
            second.end()

    async def recorded() -> list[tuple[int, str, str | None]]:
        store = SqliteRunStore(path)
        await store.initialize()
        try:
            return [(e.seq, str(e.type), e.node_id) for e in await store.events(run_id)]
        finally:
            await store.cleanup()

    log = run_sync(recorded())
    assert [seq for seq, _, _ in log] == list(range(1, len(log) + 1))
    completed = Counter(node for _, kind, node in log if kind == "node_completed")
    assert set(completed.values()) == {1}
    assert len(completed) == STEPS + 2
    assert [kind for _, kind, _ in log].count("execution_completed") == 1
    assert log[-1][1] == "execution_completed"
