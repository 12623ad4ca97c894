"""A killed process loses nothing that was shown: `kill -9` in the middle of a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

import dipeo_nb as dp

ROOT = Path(__file__).parents[2]
DIAGRAM = """
version: light
nodes:
- {label: start, type: start}
- {label: work, type: code_job, code: "import time\\ntime.sleep(0.03)"}
- {label: again, type: condition, condition_type: custom, expression: "false_for_ever == 1"}
- {label: end, type: endpoint}
connections:
- {from: start, to: work}
- {from: work, to: again}
- {from: "again[condfalse]", to: work}
- {from: "again[condtrue]", to: end}
"""


def worker_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_run(tmp_path: Path):
    """The store opens, the run is listed as interrupted with everything that had been shown, and no worker is left."""
    code = textwrap.dedent(
        f"""
        import dipeo_nb as dp, time
        session = dp.Session(base_dir={str(tmp_path)!r})
        run = session.start({DIAGRAM!r}, max_iterations=100_000, false_for_ever=0)
        while True:
            time.sleep(0.02)
            print(run.state.events, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    shown = 0
    begin = time.monotonic()
    for line in process.stdout:
        shown = int(line)
        if shown > 30:
            break
        assert time.monotonic() - begin < 60
    workers = worker_of(process.pid)
    assert workers, "the code runs in a process of its own"
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    shown = max([shown, *map(int, (r for r in rest[:-1] if r.isdigit()))])

    with dp.Session(base_dir=tmp_path) as session:
        [row] = session.runs()
        assert row.status == "interrupted"
        assert row.events >= shown
        run = session.open_run(row.run_id)
        assert run.status == "interrupted"
        assert [e.seq for e in run.events] == list(range(1, row.events + 1))
        assert run.node("work").runs >= 5
        assert {run.node("work").status, run.node("again").status} & {"interrupted", "completed"}
        with pytest.raises(dp.RunError, match="ended before the run did"):
            run.result()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive, "a worker outlived its run"
