"""What grows with use: runs of a million events, histories of 100,000 runs, large texts and variables.

Each figure is taken in a process of its own. `BENCH_EVENTS` is the number of events of the long run (1,000,000, which takes a
minute to record; goals are for that many).

Usage: python -m tests.benchmarks.growth [--rounds N] [--only WORD] [--json FILE]
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, redirect_stdout
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

import dipeo_nb as dp
from dipeo_nb.common.loop import submit
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.testing import ScriptedClient
from tests.benchmarks import engine
from tests.benchmarks.harness import OURS, Goal, Make, Row, Run, cpu, main

EVENTS = int(os.environ.get("BENCH_EVENTS", "1000000"))
RUNS = 100_000
NOOP = engine.Noop.META.type
LOOP = f"""version: light
nodes:
- {{label: Start, type: start}}
- {{label: A, type: {NOOP}}}
- {{label: B, type: {NOOP}}}
- {{label: Enough, type: condition, expression: x >= 1000000000}}
- {{label: End, type: endpoint}}
connections:
- {{from: Start, to: A}}
- {{from: A, to: B}}
- {{from: B, to: Enough}}
- {{from: Enough_condfalse, to: A}}
- {{from: Enough_condtrue, to: End}}
"""
SAY = """version: light
persons:
  Ada: {service: openai, model: gpt-4o}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, props: {person: Ada, default_prompt: "Go on."}}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: End}
"""
JOBS = """version: light
nodes:
- {label: Start, type: start}
- {label: Make, type: code_job, language: python, code: "big = 'x' * 1_000_000\\nn = 0\\nresult = 0"}
- {label: Use, type: code_job, language: python, code: "n = n + 1\\nresult = n"}
- {label: Enough, type: condition, expression: default >= 80}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Make}
- {from: Make, to: Use}
- {from: Use, to: Enough}
- {from: Enough_condfalse, to: Use}
- {from: Enough_condtrue, to: End}
"""


class Words(ScriptedClient):
    """Says a number of pieces of five characters, so many a second (0: as fast as they are read)."""

    def __init__(self, count: int, a_second: float = 0) -> None:
        super().__init__()
        self.count, self.pause = count, 1 / a_second if a_second else 0.0

    async def stream(self, request: LLMRequest) -> Any:
        yield StreamEvent("start")
        for n in range(self.count):
            if self.pause or n % 100 == 0:
                await asyncio.sleep(self.pause)
            yield StreamEvent("text", f"w{n % 1000:03} ")
        yield StreamEvent("end", response=LLMResponse("".join(f"w{n % 1000:03} " for n in range(self.count)), "fast", "fast",
                                                      TokenUsage(1, self.count), cost_usd=0.0))  # fmt: skip


_FOLDERS = ExitStack()
"""Of the long run and of the long history."""

# What is done in the other process: name → function of the folder and the run, which returns figures beside CPU and memory.


def record(base: Path, _: str) -> dict[str, float]:
    """A run that is killed behind `EVENTS` events."""
    session = dp.Session(base)
    session.start(LOOP, view=False, max_iterations=10**9)
    path = _store(base)
    while True:
        time.sleep(0.2)
        with sqlite3.connect(path) as connection:
            ((count,),) = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchall()
        if count >= EVENTS:
            os._exit(0)


def open_run(base: Path, run: str) -> dict[str, float]:
    with dp.Session(base) as session:
        assert session.open_run(run).state.events >= EVENTS
    return {}


def explain(base: Path, run: str) -> dict[str, float]:
    with dp.Session(base) as session:
        assert str(session.open_run(run).explain())
    return {}


def html(base: Path, run: str) -> dict[str, float]:
    """The file with which it is passed on."""
    with dp.Session(base) as session:
        assert session.open_run(run).to_html(base / "run.html").stat().st_size < 20_000_000
    return {}


def resume(base: Path, run: str) -> dict[str, float]:
    """Until its first event."""
    with dp.Session(base) as session:
        seen = threading.Event()
        session.runtime.services.bus.subscribe(lambda event: seen.set())
        resumed = session.resume(run, view=False)
        assert seen.wait(600)
        used = cpu()
        resumed.stop()
    return {"cpu": used}


def listed(base: Path, _: str) -> dict[str, float]:
    with dp.Session(base) as session:
        session.runs()
        begin = cpu()
        assert len(session.runs()) == 50
        return {"seconds": cpu() - begin}


def answer(base: Path, _: str) -> dict[str, float]:
    """1 MB, in pieces of five characters."""
    with dp.Session(base, llm=Words(200_000)) as session:
        assert len(session.run(SAY, view=False).outputs["End"]) == 1_000_000
    return {"file": _size(base) / 1e6}


def jobs(base: Path, _: str) -> dict[str, float]:
    """80 code jobs with a variable of 1 MB, and the longest that another run's loop had to wait meanwhile."""
    with dp.Session(base, trust_base=True) as session:
        session.run(JOBS.replace("80", "2"), view=False, trust=True)
        before, begin, pauses = _size(base), time.process_time(), []

        async def tick() -> None:
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0.005)
                now = time.perf_counter()
                pauses.append(now - last - 0.005)
                last = now

        ticking = submit(tick())
        session.run(JOBS, view=False, trust=True, max_iterations=1000)
        ticking.cancel()
        return {"file": (_size(base) - before) / 1e6, "job": (time.process_time() - begin) / 80, "pause": max(pauses)}


def streams(base: Path, _: str) -> dict[str, float]:
    """1,000 runs of 200 tokens each, 50 a second: 4 s when nobody waits for another."""
    with dp.Session(base, llm=Words(200, 50)) as session:
        session.run(SAY, view=False)
        begin, used = time.perf_counter(), cpu()
        runs = [session.start(SAY, view=False) for _ in range(1000)]
        for run in runs:
            run.result()
        return {"seconds": time.perf_counter() - begin, "token": (cpu() - used) / 200_000}


def metrics(base: Path, run: str) -> dict[str, float]:
    """As the last line of a cell."""
    with dp.Session(base) as session:
        assert len(repr(session.open_run(run).metrics)) <= 1000
    return {}


def diff(base: Path, run: str) -> dict[str, float]:
    """With itself."""
    with dp.Session(base) as session:
        assert str(session.diff(run, run))
    return {}


def condensed(base: Path, _: str) -> dict[str, float]:
    """A run of an answer that came at 500 pieces a second, before and after."""
    with dp.Session(base, llm=Words(5_000, 500)) as session:
        run = session.run(SAY, view=False)
        store = session.runtime.services.store
        before = _rows(base)
        begin = cpu()
        submit(store.condense(run.id)).result()
        return {"seconds": cpu() - begin, "rows": _rows(base) / before}


def viewed(base: Path, _: str) -> dict[str, float]:
    """A live run of 500 nodes in a notebook: the longest that another thread waits for the interpreter, until two seconds after it."""
    InteractiveShell.instance()
    labels = [f"N{n}" for n in range(500)]
    nodes = "".join(f"- {{label: {label}, type: {NOOP}}}\n" for label in labels)
    arrows = "".join(f"- {{from: {a}, to: {b}}}\n" for a, b in pairwise(["Start", *labels, "End"]))
    text = f"version: light\nnodes:\n- {{label: Start, type: start}}\n{nodes}- {{label: End, type: endpoint}}\nconnections:\n{arrows}"
    pauses: list[float] = []
    over = threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not over.wait(0.002):
            now = time.perf_counter()
            pauses.append(now - last)
            last = now

    with dp.Session(base) as session, redirect_stdout(StringIO()):
        session.run(text, view=False)
        ticking = threading.Thread(target=tick)
        ticking.start()
        session.start(text).result()
        time.sleep(2)
        over.set()
        ticking.join()
    return {"pause": max(pauses)}


def _rows(base: Path) -> int:
    with sqlite3.connect(_store(base)) as connection:
        return connection.execute("SELECT count(*) FROM events").fetchone()[0]


def _store(base: Path) -> Path:
    return next(iter(sorted(base.rglob("*.db"))))


def _size(base: Path) -> int:
    return sum(path.stat().st_size for path in base.rglob("*.db*"))


WORK: dict[str, Callable[[Path, str], dict[str, float]]] = {
    work.__name__: work
    for work in (record, open_run, explain, metrics, diff, html, resume, listed, answer, jobs, streams, condensed, viewed)
}


def _child(name: str, base: Path, run: str) -> None:
    with dp.Session(base) as session:
        session.runs()  # what everybody pays is no part of it
    before, memory = cpu(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = WORK[name](base, run)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    used = figures.pop("cpu", cpu()) - before
    print(json.dumps({"cpu": used, "memory": grown / 1024, **figures}))


def _measured(name: str, base: Path, run: str = "") -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.growth", "child", name, str(base), run]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=3600)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}


@cache
def _long_run() -> tuple[Path, str]:
    """A folder with a killed run of `EVENTS` events, for as long as this process lives."""
    base = Path(_FOLDERS.enter_context(tempfile.TemporaryDirectory()))
    _measured("record", base)
    with sqlite3.connect(_store(base)) as connection:
        ((run,),) = connection.execute("SELECT run_id FROM runs").fetchall()
    return base, run


@cache
def _history() -> Path:
    """A folder with 100,000 finished runs."""
    base = Path(_FOLDERS.enter_context(tempfile.TemporaryDirectory()))
    with dp.Session(base) as session:
        session.run(SAY.replace("openai", "echo"), view=False)
    with sqlite3.connect(_store(base)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
        chosen = ", ".join({"run_id": "run_id || n", "started_at": "started_at + n"}.get(c, c) for c in columns)
        connection.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {RUNS}) "
            f"INSERT INTO runs ({', '.join(columns)}) SELECT {chosen} FROM numbers, runs"
        )
    return base


def figure(name: str, key: str, folder: Callable[[], tuple[Path, str]] | None = None) -> Make:
    """The figure *key* of a piece of work, in a fresh folder or in that of *folder*."""

    async def make(stack: AsyncExitStack, n: int) -> Run:
        def work() -> float:
            if folder is not None:
                return _measured(name, *folder())[key]
            with tempfile.TemporaryDirectory() as fresh:
                return _measured(name, Path(fresh))[key]

        async def run() -> float:
            return float(await asyncio.to_thread(work))

        return run

    return make


def row(title: str, goal: float | Goal, unit: str, made: Make) -> Row:
    return Row(title, 1, "run", {OURS: made}, goal if isinstance(goal, Goal) else Goal(goal), unit)


async def rows(stack: AsyncExitStack) -> list[Row]:
    """All rows; their folders go with the stack."""
    stack.callback(_FOLDERS.close)
    size = f"run of {EVENTS:,} events"
    return [
        row(f"{size}: open", 0.1, "s", figure("open_run", "cpu", _long_run)),
        row(f"{size}: memory to open", 150, "MB", figure("open_run", "memory", _long_run)),
        row(f"{size}: explain", 8, "s", figure("explain", "cpu", _long_run)),
        row(f"{size}: memory to explain", 150, "MB", figure("explain", "memory", _long_run)),
        row(f"{size}: metrics", 8, "s", figure("metrics", "cpu", _long_run)),
        row(f"{size}: compare with itself", 0.2, "s", figure("diff", "cpu", _long_run)),
        row(f"{size}: HTML file", 15, "s", figure("html", "cpu", _long_run)),
        row(f"{size}: memory to write the HTML file", 150, "MB", figure("html", "memory", _long_run)),
        row(f"{size}: resume, to its first event", 5, "s", figure("resume", "cpu", _long_run)),
        row(f"{size}: memory to resume", 150, "MB", figure("resume", "memory", _long_run)),
        row(f"dp.runs() of {RUNS:,}", 20, "ms", figure("listed", "seconds", lambda: (_history(), ""))),
        row("answer of 1 MB in pieces: file", 4, "MB", figure("answer", "file")),
        row("80 code jobs with a variable of 1 MB: file", 3, "MB", figure("jobs", "file")),
        row("80 code jobs with a variable of 1 MB: CPU of the parent, a job", 3, "ms", figure("jobs", "job")),
        row("80 code jobs with a variable of 1 MB: longest pause of others", 30, "ms", figure("jobs", "pause")),
        row("1,000 streaming runs at once, ideally 4 s: wall time", Goal(8, waits=4), "s", figure("streams", "seconds")),
        row("1,000 streaming runs at once: CPU, a token", 40, "µs", figure("streams", "token")),
        row("answer of 5,000 pieces, 500 a second: rows left when condensed", 0.1, "of 1", figure("condensed", "rows")),
        row("live run of 500 nodes: longest pause of the kernel", 50, "ms", figure("viewed", "pause")),
    ]


GROUP = "growth"

if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _child(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    else:
        main(GROUP, rows, "What grows with use.")
