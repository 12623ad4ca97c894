"""One run has one engine: in one process, in several, and on several machines with one record."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import RunAbortedError, StorageError
from dipeo_nb.execution import engine, live
from dipeo_nb.execution.state import sqlite
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Runtime
from dipeo_nb.testing.contracts.runs import ended, event, started
from tests.support.parent_diagram import parent_of
from tests.support.waiting import wait_until

ASK = """\
version: light
nodes:
  - {label: S, type: start}
  - {label: Q, type: user_response, props: {prompt: "Colour?", timeout: 100}}
  - {label: E, type: endpoint}
connections:
  - {from: S, to: Q}
  - {from: Q, to: E}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "ask.light.yaml").write_text(ASK)
    (tmp_path / "parent.light.yaml").write_text(parent_of("ask.light.yaml"))
    return tmp_path


@pytest.fixture
def session(base: Path) -> Iterator[Session]:
    with Session(settings=Settings(base_dir=base)) as made:
        yield made


def asking(run: Run) -> Run:
    wait_until(lambda: run.question)
    return run


def refused(work: Any) -> str:
    with pytest.raises(StorageError) as error:
        work()
    assert error.value.facts["cause"] == "going_on"
    return error.value.message


def finished_well(run: Run) -> None:
    run.answer("blue")
    assert run.result(30).output == "blue"
    events = run.events
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert sum(e.type == "node_started" for e in events) == 3


def test_a_live_run_is_not_resumed_in_this_process(session: Session, base: Path):
    """By the session that has it, another one, a bare runtime, or one with a store of the same file by another name."""
    run = asking(session.start("ask.light.yaml"))
    elsewhere = base.parent / f"{base.name}-link"  # below the base directory a link would be refused
    elsewhere.symlink_to(base / ".dipeo")
    link = Settings(base_dir=base, STATE_STORE_PATH=str(elsewhere / "runs.db"))  # pyright: ignore[reportCallIssue]
    with Session(settings=Settings(base_dir=base)) as other, Session(settings=link) as third:
        for s in (session, other, third):
            assert "is still running in this process" in refused(lambda s=s: s.resume(run.id))
        with Runtime(Settings(base_dir=base)) as runtime:
            assert "in this process" in refused(lambda: run_sync(runtime.recover(run.id)))
    finished_well(run)


def test_a_child_is_not_resumed_while_its_parent_runs(session: Session):
    run = asking(session.start("parent.light.yaml"))
    (child,) = session.runs(parent=run.id)
    assert f"as a part of run {run.id}" in refused(lambda: session.resume(child.run_id))
    run.answer("green")
    assert run.result(30).output == "green"
    assert [row.status for row in session.runs(nested=True)] == ["completed", "completed"]


def test_of_many_that_resume_at_once_one_does(session: Session, base: Path):
    run = asking(session.start("ask.light.yaml"))
    run.stop()
    with pytest.raises(RunAbortedError):
        run.result(30)
    runtimes = [Runtime(Settings(base_dir=base)) for _ in range(5)]

    async def race() -> list[Any]:
        return await asyncio.gather(*(r.recover(run.id) for r in runtimes), return_exceptions=True)

    try:
        done = run_sync(race())
        kinds = [type(one).__name__ for one in done]
        assert sorted(kinds) == ["Recovery", *["StorageError"] * 4]
        del done
        again = session.resume(run.id)  # whoever took it over has not begun and is gone
        asking(again).answer("red")
        assert again.result(30).output == "red"
    finally:
        for runtime in runtimes:
            run_sync(runtime.cleanup())


def test_an_ended_run_leaves_the_register(session: Session):
    run = session.start("ask.light.yaml", answers={"Q": "x"})
    run.result(30)
    assert live.holder(session.runtime.services.store, run.id) is None


def test_equal_ids_in_two_memories_are_two_runs():
    a, b = InMemoryRunStore(), InMemoryRunStore()
    one, two = type("One", (), {})(), type("Two", (), {})()
    live.enter(a, "r", one)
    live.enter(b, "r", two)
    with pytest.raises(StorageError):
        live.enter(a, "r", two)
    live.leave(a, "r", two)  # not its own
    assert live.holder(a, "r") is one
    live.leave(a, "r", one)
    live.enter(a, "r", two)
    live.leave(a, "r", two)
    live.leave(b, "r", two)


# The fencing token.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


async def opened(path: Path) -> SqliteRunStore:
    store = SqliteRunStore(path)
    await store.initialize()
    return store


def test_who_was_thought_dead_cannot_write(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another machine claims after the heartbeat stopped; the first one wakes up and is refused, whatever it writes."""

    async def go() -> None:
        first = await opened(path)
        await first.append([started(), event(2)])
        await asyncio.to_thread(_age, path)
        monkeypatch.setattr(sqlite, "HOST", "elsewhere:1:2")
        second = await opened(path)
        row = await second.run("r1")
        assert row is not None
        assert row.status == "interrupted"
        await second.claim("r1")
        monkeypatch.undo()
        for late in ([event(3)], [ended(3)]):
            with pytest.raises(StorageError, match=r"was taken over by process .* on elsewhere") as error:
                await first.append(late)
            assert error.value.facts["cause"] == "going_on"
        assert not await first.beat("r1")
        assert await second.beat("r1")
        await second.append([event(3), ended(4)])
        assert [e.seq for e in await second.events("r1")] == [1, 2, 3, 4]
        await first.cleanup()
        await second.cleanup()

    run_sync(go())


@pytest.mark.parametrize("ended_there", [False, True])
@pytest.mark.parametrize("more", [0, 1, 3])
def test_who_comes_back_late_is_told_of_the_takeover(path: Path, monkeypatch: pytest.MonkeyPatch, more: int, ended_there: bool):
    """However much the other machine has written, or ended: that it took the run over is said at every attempt, not that numbers of
    events do not fit."""

    async def go() -> None:
        first = await opened(path)
        await first.append([started(), event(2)])
        await asyncio.to_thread(_age, path)
        monkeypatch.setattr(sqlite, "HOST", "elsewhere:1:2")
        second = await opened(path)
        await second.claim("r1")
        written = [*map(event, range(3, 3 + more)), *([ended(3 + more)] if ended_there else [])]
        await second.append(written)
        monkeypatch.undo()
        for late in ([event(3)], [ended(3)], [event(3), ended(4)]):
            with pytest.raises(StorageError, match=r"was taken over by process .* on elsewhere"):
                await first.append(late)
        assert [e.seq for e in await second.events("r1")] == list(range(1, 3 + len(written)))
        await first.cleanup()
        await second.cleanup()

    run_sync(go())


def _age(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE runs SET last_at = ?", (time.time() - sqlite.HEARTBEAT_AGE_S - 5,))
    connection.close()


def test_a_run_is_written_by_who_has_it(path: Path):
    """Two objects of one process: only the one that began or claimed it, also after a claim of a claim."""

    async def go() -> None:
        a, b = await opened(path), await opened(path)
        await a.append([started()])
        with pytest.raises(StorageError, match="taken over"):
            await b.append([event(2)])
        for taker, loser in ((b, a), (a, b), (b, a)):
            await taker.claim("r1", owned=True)
            row = await taker.run("r1")
            assert row is not None
            with pytest.raises(StorageError, match="taken over"):
                await loser.append([event(row.events + 1)])
            await taker.append([event(row.events + 1)])
        await b.append([ended(5)])
        await a.cleanup()
        await b.cleanup()

    run_sync(go())


def test_a_failed_run_that_was_claimed_again_refuses_the_old_token(path: Path):
    async def go() -> None:
        a, b = await opened(path), await opened(path)
        await a.append([started(), Event(2, event(2).type.EXECUTION_ERROR, "r1", 1002.0, None, {"status": "failed"})])
        await a.claim("r1")
        await b.claim("r1", owned=True)
        with pytest.raises(StorageError, match="taken over"):
            await a.append([event(3)])
        await b.append([event(3)])
        await a.cleanup()
        await b.cleanup()

    run_sync(go())


# The heartbeat.


def test_a_run_that_waits_beats(session: Session, base: Path, monkeypatch: pytest.MonkeyPatch):
    """A person who thinks is no dead process: other machines see it running."""
    monkeypatch.setattr(engine, "BEAT_S", 0.05)
    run = asking(session.start("ask.light.yaml"))
    _age(base / ".dipeo/runs.db")
    elsewhere = "another:1:2"

    def status() -> str:
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "HOST", elsewhere)
            return session.runs()[0].status

    wait_until(lambda: status() == "running")
    finished_well(run)


def test_a_run_that_lost_its_lease_ends(session: Session, base: Path, monkeypatch: pytest.MonkeyPatch):
    """At the next beat, long before it would write; and nothing of it is written any more."""
    monkeypatch.setattr(engine, "BEAT_S", 0.05)
    run = asking(session.start("ask.light.yaml"))
    connection = sqlite3.connect(base / ".dipeo/runs.db")
    with connection:
        connection.execute("UPDATE leases SET token = token + 1")
        connection.execute("UPDATE runs SET host = 'another:1:2', pid = 7, last_at = ?", (time.time(),))
    connection.close()
    with pytest.raises(StorageError, match="taken over by process 7 on another"):
        run.result(30)
    assert run.status == "failed"
    assert "taken over" in str(run.error)
    assert session.runs()[0].status == "running"
    assert live.holder(session.runtime.services.store, run.id) is None
