"""The PostgreSQL run store when things go wrong: killed processes, a killed server, several stores; what all stores promise is in
`contracts`."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

import dipeo_nb as dp
from dipeo_nb.common import injection
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.container import build
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import ConfigurationError, StorageError
from dipeo_nb.execution.state import postgres_server
from dipeo_nb.execution.state.postgres import PostgresRunStore
from tests.support.servers import PostgresProcess, free_ports
from tests.support.waiting import until

ROOT = Path(__file__).parents[4]
DIAGRAM = """
version: light
metadata: {name: Numbers}
nodes:
- {label: Start, type: start}
- {label: Count, type: code_job, language: python, code: "import os\\nresult = 1 + int(os.path.exists('go'))"}
- {label: Check, type: code_job, language: python, code: "assert int(count) == 2, 'not yet'\\nresult = 'done'"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Count}
- {from: Count, to: Check, label: count}
- {from: Check, to: End}
"""


def event(seq: int, run: str = "r", kind: T = T.NODE_STARTED) -> Event:
    payload = {"diagram": "d"} if seq == 1 else {"i": seq}
    return Event(seq, T.EXECUTION_STARTED if seq == 1 else kind, run, time.time(), None, payload)


WRITER = """
import asyncio, sys
from tests.unit.execution.state.test_postgres import event
from dipeo_nb.execution.state.postgres import PostgresRunStore

async def main(url, run):
    store = PostgresRunStore(url)
    await store.initialize()
    await store.append([event(1, run)])
    seq = 1
    while True:
        await store.append([event(seq + i, run) for i in (1, 2, 3)])
        seq += 3
        print(seq, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def test_kill_9_loses_nothing_acknowledged(postgres_server: PostgresProcess, child: Callable[..., subprocess.Popen[str]]):
    """A writer is killed: while it lives its run is running and nobody else's, then it is interrupted and can be gone on with;
    every acknowledged event is there, and batches are whole."""
    url = postgres_server.schema()

    async def go() -> None:
        store = PostgresRunStore(url)
        await store.initialize()
        try:
            for n in range(3):
                writer = child(WRITER, url, f"r{n}")
                assert writer.stdout is not None
                acknowledged = [int(line) for line in itertools.islice(writer.stdout, 20)][-1]
                row = await store.run(f"r{n}")
                assert row is not None
                assert row.status == "running"
                with pytest.raises(StorageError) as error:
                    await store.claim(f"r{n}", owned=True)
                assert error.value.facts["cause"] == "going_on"
                os.kill(writer.pid, signal.SIGKILL)
                writer.wait()
                async with asyncio.timeout(20):  # the server notices when the connection ends
                    while (row := await store.run(f"r{n}")) is not None and row.status != "interrupted":
                        await asyncio.sleep(0.01)
                events = await store.events(f"r{n}")
                assert row is not None
                assert [e.seq for e in events] == list(range(1, row.events + 1))
                assert row.events >= acknowledged
                assert (row.events - 1) % 3 == 0, "a batch is stored whole or not at all"
                await store.claim(f"r{n}")
                await store.append([event(row.events + 1, f"r{n}")])
                assert (await store.runs(status="running"))[0].run_id == f"r{n}"
        finally:
            await store.cleanup()

    run_sync(go())


def test_runs_that_append_at_about_one_time_share_a_transaction(
    postgres_server: PostgresProcess, monkeypatch: pytest.MonkeyPatch
):
    """Beginnings, ends, notes and big values, too."""
    url, transactions = postgres_server.schema(), Counter[str]()
    runs = [f"r{n}" for n in range(30)]
    first = {run: event(1, run) for run in runs}
    second = {run: [event(2, run)] for run in runs}
    second["r1"] = [event(2, "r1", T.EXECUTION_COMPLETED)]
    second["r2"] = [event(2, "r2")._replace(payload={"output": "x" * 200_000}), event(3, "r2")]

    async def go() -> None:
        store = PostgresRunStore(url)
        try:
            for run in runs:
                await store.append([first[run]])
            monkeypatch.setattr(injection, "hook", lambda point: transactions.update([point]))
            await asyncio.gather(*map(store.append, second.values()), store.append([event(1, "new")]))
            assert transactions["store.append"] <= 2
            assert {run: await store.events(run) for run in runs} == {run: [first[run], *second[run]] for run in runs}
            rows = {row.run_id: (row.events, row.status) for row in await store.runs()}
            others = {"r1": (2, "completed"), "r2": (3, "running"), "new": (1, "running")}
            assert rows == {**dict.fromkeys(runs, (2, "running")), **others}
            await asyncio.gather(store.append([event(3, "r1", T.RUN_NOTE)]), store.append([event(3, "r3")]))
            assert [len(await store.events(run)) for run in ("r1", "r3")] == [3, 3]
        finally:
            await store.cleanup()

    run_sync(go())


def test_a_run_that_was_taken_over_does_not_fail_those_it_is_stored_with(postgres_server: PostgresProcess):
    url = postgres_server.schema()
    runs = [f"r{n}" for n in range(10)]

    async def go() -> None:
        store, other = PostgresRunStore(url), PostgresRunStore(url)
        try:
            for run in runs:
                await store.append([event(1, run)])
            with psycopg.connect(url) as connection:  # as `claim` does, were this process gone for a moment
                await other.initialize()
                connection.execute("UPDATE dipeo_runs SET owner = %s WHERE run_id = 'r3'", (other._owner,))
            errors = await asyncio.gather(*(store.append([event(2, run)]) for run in runs), return_exceptions=True)
            assert [run for run, error in zip(runs, errors, strict=True) if error is not None] == ["r3"]
            assert isinstance(errors[3], StorageError)
            assert errors[3].facts["cause"] == "going_on"
            assert {run: len(await store.events(run)) for run in runs} == {**dict.fromkeys(runs, 2), "r3": 1}
        finally:
            await store.cleanup()
            await other.cleanup()

    run_sync(go())


def test_only_one_of_several_claims_a_run(postgres_server: PostgresProcess):
    url = postgres_server.schema()

    async def go() -> None:
        first = PostgresRunStore(url)
        await first.append([event(1), event(2)])
        await first.cleanup()
        stores = [PostgresRunStore(url) for _ in range(4)]
        await asyncio.gather(*(store.initialize() for store in stores))
        try:
            done = await asyncio.gather(*(store.claim("r") for store in stores), return_exceptions=True)
            assert [type(one) for one in done].count(StorageError) == 3
            winner = stores[done.index(None)]
            loser = next(store for store in stores if store is not winner)
            with pytest.raises(StorageError) as error:
                await loser.append([event(3)])
            assert error.value.facts["cause"] == "going_on"
            await winner.append([event(3)])
            assert [e.seq for e in await loser.events("r")] == [1, 2, 3]
        finally:
            await asyncio.gather(*(store.cleanup() for store in stores))

    run_sync(go())


def test_stores_that_open_at_once_make_the_tables_once(postgres_server: PostgresProcess):
    url = postgres_server.schema()

    async def go() -> None:
        stores = [PostgresRunStore(url) for _ in range(8)]
        await asyncio.gather(*(store.initialize() for store in stores))
        await asyncio.gather(*(store.append([event(1, f"r{n}")]) for n, store in enumerate(stores)))
        assert len(await stores[0].runs()) == 8
        await asyncio.gather(*(store.cleanup() for store in stores))

    run_sync(go())


def test_the_server_is_killed_while_runs_are_written(mortal_postgres: PostgresProcess, monkeypatch: pytest.MonkeyPatch):
    """Appending waits for it; nothing is lost, nothing is there twice; the runs are this store's again."""
    monkeypatch.setattr(postgres_server, "HOLD_S", 0.1)
    written = 0

    async def write(store: PostgresRunStore, run: str) -> None:
        nonlocal written
        for seq in range(1, 301):
            await store.append([event(seq, run)])
            written += 1

    async def go() -> None:
        store = PostgresRunStore(mortal_postgres.url)
        await store.initialize()
        try:
            writers = [asyncio.ensure_future(write(store, run)) for run in "abc"]
            for count in (100, 500):
                await until(lambda count=count: written >= count)
                mortal_postgres.kill()
                await asyncio.sleep(0.2)
                await asyncio.to_thread(mortal_postgres.start)
            await asyncio.gather(*writers)
            for run in "abc":
                assert [e.seq for e in await store.events(run)] == list(range(1, 301))
            other = PostgresRunStore(mortal_postgres.url)
            await other.initialize()
            try:
                async with asyncio.timeout(20):
                    while {row.status for row in await other.runs()} != {"running"}:
                        await asyncio.sleep(0.05)
            finally:
                await other.cleanup()
        finally:
            await store.cleanup()

    run_sync(go())


# What is refused.


def refused(url: str) -> StorageError:
    store = PostgresRunStore(url)
    with pytest.raises(StorageError) as error:
        run_sync(store.initialize())
    run_sync(store.cleanup())
    assert error.value.hint
    assert "hunter2" not in f"{error.value} {error.value!r} {error.value.facts} {store!r}"
    return error.value


def test_a_server_that_is_not_there():
    (port,) = free_ports(1)
    error = refused(f"postgresql://ann:hunter2@127.0.0.1:{port}/runs")
    assert error.facts["cause"] == "unavailable"
    assert f"postgresql://127.0.0.1:{port}/runs" in str(error)


def test_no_such_database_and_no_such_user(postgres_server: PostgresProcess):
    assert "does not exist" in str(refused(postgres_server.url.replace("/postgres", "/nothing")))
    assert "does not exist" in str(refused(postgres_server.url.replace("//postgres@", "//ann:hunter2@")))


def test_a_server_that_goes_away_for_good(mortal_postgres: PostgresProcess, monkeypatch: pytest.MonkeyPatch):
    """One clear error, after a while."""
    monkeypatch.setattr(postgres_server, "PATIENCE_S", 0.5)
    monkeypatch.setattr(postgres_server, "CONNECT_S", 1.0)

    async def go() -> None:
        store = PostgresRunStore(mortal_postgres.url)
        await store.append([event(1)])
        mortal_postgres.kill()
        with pytest.raises(StorageError) as error:
            await store.append([event(2)])
        assert error.value.facts["cause"] == "unavailable"
        await store.cleanup()

    run_sync(go())


def test_no_right_to_make_tables(postgres_server: PostgresProcess):
    name = f"reader{time.time_ns()}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
    error = refused(postgres_server.schema().replace("//postgres@", f"//{name}@"))
    assert error.facts["cause"] in ("permission", "failed")
    assert "permission denied" in str(error) or "no schema" in str(error)


def test_a_newer_schema(postgres_server: PostgresProcess):
    url = postgres_server.schema()
    store = PostgresRunStore(url)
    run_sync(store.append([event(1)]))
    run_sync(store.cleanup())
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE dipeo_schema SET version = 99")
    assert "newer version of dipeo_nb (schema 99" in str(refused(url))


def test_no_store():
    with pytest.raises(ConfigurationError, match="'mysql://x/y' is not a run store"):
        build(Settings(state_store_path="mysql://x/y"))


# Sessions.


def test_a_session_on_it(postgres_server: PostgresProcess, monkeypatch: pytest.MonkeyPatch):
    """With nothing but the setting: run, fail, resume, list, open, explain; also by the command."""
    url = postgres_server.schema()
    monkeypatch.setenv("STATE_STORE_PATH", url)
    settings = Settings()
    assert settings.run_store == url
    with dp.Session(settings=settings) as session:
        failed = session.start(DIAGRAM, trust=True)
        failed.wait()
        assert failed.status == "failed"
        (settings.base_dir / "go").touch()
        run = session.fork(failed, at="Count")
        run.wait()
        assert run.error is None, (failed.error, run.error)
        assert run.outputs == {"End": "done"}
        assert {row.status for row in session.runs()} == {"failed", "completed"}
    with dp.Session(settings=settings) as session:
        again = session.open_run(run.id)
        assert again.outputs == {"End": "done"}
        assert str(again.explain()).startswith("'Numbers' completed in ")
    command = [sys.executable, "-m", "dipeo_nb", "runs", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert run.id in done.stdout


FILLING = """
version: light
metadata: {name: Filling}
nodes:
- {label: Start, type: start}
- {label: Fill, type: code_job, language: python, code: "import random\\nresult = random.Random(7).randbytes(400_000).hex()"}
- {label: Again, type: code_job, language: python, code: "result = text[::-1]"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Fill}
- {from: Fill, to: Again, label: text}
- {from: Again, to: End}
"""
"""Writes more than the small disk holds, which PostgreSQL cannot compress away."""


def test_a_full_disk_of_the_server_leaves_the_run_in_memory(mortal_postgres: PostgresProcess, tmp_path: Path):
    """The run ends as it would have, and says that it is not recorded; what was stored before is resumed once there is space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size=1m,uid={mortal_postgres.user},mode=700", "tmpfs", str(disk)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"not here: small disks need the right to mount ({mounted.stderr.strip()})")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # the server runs as another user
    try:
        with psycopg.connect(mortal_postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        url = f"{mortal_postgres.schema()}%20-c%20default_tablespace%3Dsmall"
        with dp.Session(tmp_path, settings=Settings(state_store_path=url), trust_base=True) as session:
            run = session.run(FILLING, view=False).run
            assert len(run.outputs["End"]) == 800_000
            assert [e.seq for e in run.events] == list(range(1, len(run.events) + 1))
            assert run.events[-1].type is T.EXECUTION_COMPLETED
            lines = [e.payload["message"] for e in run.events if e.type is T.EXECUTION_LOG]
            (said,) = [line for line in lines if "not recorded" in line]
            assert "space" in said
        with dp.Session(tmp_path, settings=Settings(state_store_path=url), trust_base=True) as session:
            assert [r.status for r in session.runs()] == ["interrupted"]
            subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True, capture_output=True)
            assert session.resume(run.id, view=False).result().outputs == run.outputs
        with dp.Session(tmp_path, settings=Settings(state_store_path=url), trust_base=True) as session:
            assert session.open_run(run.id).outputs == run.outputs
    finally:
        mortal_postgres.kill()
        subprocess.run(["umount", "-l", disk], check=True, capture_output=True)
