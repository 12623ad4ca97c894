"""Runs are forgotten with those of their sub-diagrams, never while one of them lives, and their space is given back."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.cli import main
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.enums import EventType
from dipeo_nb.errors import StorageError, UserError
from dipeo_nb.execution.state import sqlite_file
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing.contracts.runs import ended, event, started
from tests.support.parent_diagram import parent_of
from tests.support.waiting import wait_until

CHILD = """\
version: light
nodes:
  - {label: S, type: start}
  - {label: Big, type: code_job, props: {language: python, code: "return {'text': 'x' * size}"}}
  - {label: Q, type: user_response, props: {prompt: "Go on?", timeout: 100}}
  - {label: E, type: endpoint}
connections:
  - {from: S, to: Big}
  - {from: Big, to: Q}
  - {from: Q, to: E}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "child.light.yaml").write_text(CHILD)
    (tmp_path / "parent.light.yaml").write_text(parent_of("child.light.yaml"))
    return tmp_path


@pytest.fixture
def session(base: Path) -> Iterator[Session]:
    with Session(settings=Settings(base_dir=base)) as made:
        yield made


def done(session: Session, diagram: str = "parent.light.yaml", size: int = 10) -> str:
    run = session.start(diagram, answers={"Q": "yes"}, inputs={"size": size}, view=False)
    run.result(60)
    return run.id


def living(session: Session) -> Run:
    run = session.start("parent.light.yaml", inputs={"size": 10}, view=False)
    wait_until(lambda: run.question)
    return run


def rows(base: Path, table: str) -> int:
    connection = sqlite3.connect(base / ".dipeo/runs.db")
    try:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    finally:
        connection.close()


def test_children_go_with_their_parent_and_space_is_given_back(session: Session, base: Path):
    kept = done(session)
    before = (base / ".dipeo/runs.db").stat().st_size
    gone = done(session, size=3_000_000)
    assert len(session.runs(parent=gone)) == 1
    deleted = run_sync(session.runtime.delete_runs([gone]))
    assert len(deleted) == 2
    assert [row.run_id for row in session.runs()] == [kept]
    assert len(session.runs(nested=True)) == 2
    assert (base / ".dipeo/runs.db").stat().st_size < before + 200_000
    for table in ("events", "blobs", "event_blobs", "leases", "answers"):
        connection = sqlite3.connect(base / ".dipeo/runs.db")
        names = {row[0] for row in connection.execute(f"SELECT DISTINCT run_id FROM {table}")}
        connection.close()
        assert names.isdisjoint(deleted), table
    assert session.open_run(kept).status == "completed"


def test_living_runs_are_refused_whole(session: Session, base: Path, capsys: pytest.CaptureFixture[str]):
    """Also by a child, and from a listing; what is asked for with them stays, too."""
    old, run = done(session), living(session)
    (child,) = session.runs(parent=run.id)
    for ids in ([run.id], [child.run_id], [old, run.id]):
        with pytest.raises(StorageError, match="is still running in this process") as error:
            run_sync(session.runtime.delete_runs(ids))
        assert error.value.facts["cause"] == "going_on"
    with pytest.raises(StorageError):
        session.runs().delete()
    assert main(["runs", "delete", run.id, "--base-dir", str(base)]) == 1
    assert "is still running" in capsys.readouterr().err
    assert len(session.runs(nested=True)) == 4
    run.answer("yes")
    run.result(60)
    assert len(session.runs().delete()) == 4
    assert session.runs(nested=True) == []


def test_pruning(session: Session, base: Path, capsys: pytest.CaptureFixture[str]):
    ids = [done(session) for _ in range(4)]
    with pytest.raises(UserError, match="Which runs"):
        run_sync(session.runtime.prune())
    assert main(["runs", "prune", "--base-dir", str(base)]) == 2
    for wrong in ("30", "d", "-1d", "1y", "٣d", "1e3d"):
        assert main(["runs", "prune", f"--older-than={wrong}", "--base-dir", str(base)]) == 2
    capsys.readouterr()
    connection = sqlite3.connect(base / ".dipeo/runs.db")
    with connection:
        connection.execute(
            "UPDATE runs SET started_at = started_at - 900000, ended_at = ended_at - 900000 WHERE run_id = ?", (ids[0],)
        )
    connection.close()
    run = living(session)
    assert main(["runs", "prune", "--older-than", "10d", "--dry-run", "--base-dir", str(base)]) == 0
    assert capsys.readouterr().out.split() == [ids[0]]
    assert main(["runs", "prune", "--older-than", "10d", "--json", "--base-dir", str(base)]) == 0
    assert ids[0] in json.loads(capsys.readouterr().out)["deleted"]
    assert main(["runs", "prune", "--status", "failed", "--base-dir", str(base)]) == 0
    assert "0 runs" in capsys.readouterr().out
    assert main(["runs", "prune", "--keep", "2", "--base-dir", str(base)]) == 0
    assert [row.run_id for row in session.runs()] == [run.id, ids[3]]
    assert main(["runs", "prune", "--keep", "0", "--base-dir", str(base)]) == 0
    assert [row.run_id for row in session.runs()] == [run.id], "a living run is left alone"
    assert main(["runs", "--base-dir", str(base)]) == 0
    run.stop()
    run.wait(30)


def test_unknown_ids(session: Session, base: Path):
    assert main(["runs", "delete", "nothing", "--base-dir", str(base)]) == 2
    assert run_sync(session.runtime.delete_runs(["nothing"])) == []


OWNER = """
import asyncio, sys, time
from dipeo_nb.execution.state import sqlite_file
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.testing.contracts.runs import started

async def main(path):
    store = SqliteRunStore(path)
    await store.append([started("theirs")])
    await store.append([started("part", parent="theirs")])
    print("begun", flush=True)
    time.sleep(100)

asyncio.run(main(sys.argv[1]))
"""


def test_a_run_of_another_process_is_not_deleted(tmp_path: Path, child: Callable[..., subprocess.Popen[str]]):
    """Whatever this process says of its own; when that process is gone, the run may go, and the file is as small as before."""
    path = tmp_path / "runs.db"
    store = SqliteRunStore(path)
    run_sync(store.append([started("big"), *(event(n, run="big", text="x" * 100_000) for n in range(2, 40)), ended(40, "big")]))
    other = child(OWNER, str(path))
    assert other.stdout is not None
    assert other.stdout.readline() == "begun\n"
    for asked in ("theirs", "part"):
        with pytest.raises(StorageError, match=f"process {other.pid} on .*nothing was deleted") as error:
            run_sync(store.delete("big", asked, owned=True))
        assert error.value.facts["cause"] == "going_on"
    assert len(run_sync(store.runs(nested=True))) == 3
    other.kill()
    other.wait()
    run_sync(store.compact())
    before = path.stat().st_size
    assert before > 100_000
    assert sorted(run_sync(store.delete("big", "theirs"))) == ["big", "part", "theirs"]
    assert path.stat().st_size < before / 2
    run_sync(store.cleanup())


def test_another_process_that_writes_does_not_hold_the_loop(tmp_path: Path):
    """Claims, answers and deletions wait for it, like events, while others on the loop go on."""
    path = tmp_path / "runs.db"
    store = SqliteRunStore(path)
    run_sync(store.append([started(), event(2, EventType.EXECUTION_ERROR, status="failed")]))
    run_sync(store.append([started("gone"), ended(2, "gone")]))
    lock = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    async def go() -> None:
        lock.execute("BEGIN IMMEDIATE")
        works = [
            asyncio.ensure_future(work)
            for work in (
                store.claim("r1"),
                store.put_answer("r1", "q", "yes"),
                store.drop_answer("r1", "p"),
                store.delete("gone"),
            )
        ]
        done, _ = await asyncio.wait(works, timeout=0.3)
        assert not done
        lock.execute("COMMIT")
        await asyncio.gather(*works)

    run_sync(go())
    lock.close()
    assert run_sync(store.answers("r1")) == {"q": "yes"}
    assert run_sync(store.run("gone")) is None
    run_sync(store.append([event(3)]))
    run_sync(store.cleanup())


def test_a_run_is_not_taken_over_while_it_is_deleted(session: Session, monkeypatch: pytest.MonkeyPatch):
    run = session.start("child.light.yaml", inputs={"size": 10}, view=False)
    wait_until(lambda: run.question)
    run.stop()
    run.wait(30)
    store, refused = session.runtime.services.store, []
    delete = store.delete

    async def slow(*run_ids: str, **options: bool) -> list[str]:
        try:
            await session.runtime.recover(run.id)
        except StorageError as error:
            refused.append(error.facts["cause"])
        return await delete(*run_ids, **options)

    monkeypatch.setattr(store, "delete", slow)
    assert run_sync(session.runtime.delete_runs([run.id])) == [run.id]
    assert refused == ["going_on"]


@pytest.mark.parametrize("why", ["database or disk is full", "database is locked"])
def test_space_that_cannot_be_given_back_now_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str):
    """The copy that this makes may find no room, or others who write all the time; the runs are gone nevertheless."""

    class Refusing(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "VACUUM":
                raise sqlite3.OperationalError(why)
            return super().execute(sql, *values)

    connect = sqlite_file.connect
    monkeypatch.setattr(sqlite_file, "connect", lambda *args, **options: connect(*args, factory=Refusing, **options))
    store = SqliteRunStore(tmp_path / "runs.db")
    batch = [started("r"), *(event(n, run="r", text="x" * 100_000) for n in range(2, 20)), ended(20, "r")]
    run_sync(store.append(batch))
    run_sync(store.cleanup())
    size = (tmp_path / "runs.db").stat().st_size
    assert run_sync(store.delete("r")) == ["r"]
    run_sync(store.append(batch))
    run_sync(store.cleanup())
    assert (tmp_path / "runs.db").stat().st_size <= size + 50_000
