"""How many events a run has is right at any time, for every process, though its row says so only now and then."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Snapshot
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.sqlite import SqliteRunStore

KINDS = ["step", "step", "step", "texts", "one text", "mixed", "big", "gap", "stale", "claim", "end", "together"]


def batch(run: str, seq: int, kind: str) -> list[Event]:
    text = {"kind": "text", "text": "a "}
    types = {"texts": [T.NODE_OUTPUT] * 5, "one text": [T.NODE_OUTPUT], "mixed": [T.NODE_STARTED, *[T.NODE_OUTPUT] * 3]}
    made = [
        Event(seq + n, one, run, 1.0, "n", text if one is T.NODE_OUTPUT else {"n": n})
        for n, one in enumerate(types.get(kind, []))
    ]
    if kind == "big":
        return [Event(seq, T.NODE_COMPLETED, run, 1.0, "n", {"output": "x" * 100_000})]
    return made or [Event(seq, T.NODE_COMPLETED, run, 1.0, "n", {}), Event(seq + 1, T.NODE_STARTED, run, 1.0, "m", {})]


@pytest.mark.parametrize("seed", range(12))
def test_counts_are_right_for_everybody(tmp_path: Path, seed: int):
    """Against a plain list per run: whatever is appended, by whom and in which order, and what is refused."""
    rng = random.Random(seed)
    path = tmp_path / "runs.db"

    async def go() -> None:
        stores = [SqliteRunStore(path) for _ in range(3)]
        for store in stores:
            await store.initialize()
        logs: dict[str, list[Event]] = {}
        owner: dict[str, int] = {}
        ended = set[str]()

        async def add(run: str, kind: str) -> None:
            events = batch(run, len(logs[run]) + 1, kind)
            await stores[owner[run]].append(events)
            logs[run] += events

        for n in range(120):
            going = [run for run in logs if run not in ended]
            if len(going) < 2 or rng.random() < 0.05:
                run = f"r{n}"
                first = Event(1, T.EXECUTION_STARTED, run, 1.0, None, {"diagram": "d"})
                owner[run], logs[run] = rng.randrange(3), [first]
                await stores[owner[run]].append([first])
                continue
            run, kind = rng.choice(going), rng.choice(KINDS)
            if kind == "gap":
                with pytest.raises(StorageError, match="is due"):
                    await stores[owner[run]].append(batch(run, len(logs[run]) + 2, "step"))
            elif kind == "stale":
                with pytest.raises(StorageError):
                    await stores[(owner[run] + 1) % 3].append(batch(run, len(logs[run]) + 1, "step"))
            elif kind == "claim":
                owner[run] = rng.randrange(3)
                await stores[owner[run]].claim(run, owned=True)
            elif kind == "end":
                last = Event(len(logs[run]) + 1, T.EXECUTION_COMPLETED, run, 1.0, None, {})
                await stores[owner[run]].append([last])
                logs[run].append(last)
                ended.add(run)
            elif kind == "together":
                await asyncio.gather(*(add(one, rng.choice(["step", "texts", "mixed"])) for one in going))
            else:
                await add(run, kind)
            if rng.random() < 0.3:
                snapshot = Snapshot(run, "state", 1, len(logs[run]), {"n": n})
                await stores[owner[run]].put_snapshot(snapshot)
                found = await stores[rng.randrange(3)].snapshot(run, "state")
                assert found is not None
                assert found.seq == len(logs[run])
            reader = stores[rng.randrange(3)]
            assert {row.run_id: row.events for row in await reader.runs()} == {one: len(log) for one, log in logs.items()}
            assert await reader.events(run) == logs[run]
        for store in stores:
            await store.cleanup()

    run_sync(go())


def test_a_step_leaves_the_row_of_its_run_alone(tmp_path: Path):
    """That saves a page per commit; the row is written when the run ends."""

    def row() -> tuple[int, float]:
        with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
            return connection.execute("SELECT events, last_at FROM runs").fetchone()

    async def go() -> None:
        store = SqliteRunStore(tmp_path / "runs.db")
        await store.initialize()
        await store.append([Event(1, T.EXECUTION_STARTED, "r", 1.0, None, {"diagram": "d"})])
        before = row()
        await store.append(batch("r", 2, "step"))
        await store.append(batch("r", 4, "step"))
        assert row() == before
        assert [one.events for one in await store.runs()] == [5]
        await store.append([Event(6, T.EXECUTION_COMPLETED, "r", 1.0, None, {})])
        assert row()[0] == 6
        await store.cleanup()

    run_sync(go())


@pytest.mark.parametrize("lost", ["token", "run"])
def test_who_lost_the_run_writes_nothing(tmp_path: Path, lost: str):
    """Whether it is another's or was deleted by now is looked at in the transaction of each step."""

    async def go() -> None:
        store = SqliteRunStore(tmp_path / "runs.db")
        await store.initialize()
        await store.append([Event(1, T.EXECUTION_STARTED, "r", 1.0, None, {"diagram": "d"})])
        await store.append(batch("r", 2, "step"))
        with closing(sqlite3.connect(tmp_path / "runs.db")) as connection, connection:
            if lost == "token":
                connection.execute("UPDATE leases SET token = token + 1")
                connection.execute("UPDATE runs SET host = 'another', pid = 1")
            else:
                for table in ("runs", "leases", "events"):
                    connection.execute(f"DELETE FROM {table}")
        with pytest.raises(StorageError):
            await store.append(batch("r", 4, "step"))
        with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
            assert connection.execute("SELECT count(*) FROM events").fetchone()[0] == (3 if lost == "token" else 0)
        await store.cleanup()

    run_sync(go())
