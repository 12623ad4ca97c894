"""Where nothing can be written, runs go on in memory with one warning, and recorded runs can be looked at."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipeo_nb.cli import main
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.execution.state.sqlite_file import RunFile
from dipeo_nb.notebook.session import Session
from tests.support.waiting import wait_until

DIAGRAM = """\
version: light
nodes:
  - {label: S, type: start}
  - {label: Q, type: user_response, props: {prompt: "Colour?", default: blue}}
  - {label: E, type: endpoint}
connections:
  - {from: S, to: Q}
  - {from: Q, to: E}
"""
GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("runs-v*.db"))


class Place:
    """A folder that can be made read-only for everybody, root included."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def close(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.path], check=True, capture_output=True)

    def fill(self) -> Path:
        """Take the last byte of room; the file that has it."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 65_536)
        return filler


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    path = tmp_path / "place"
    path.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], capture_output=True, text=True, check=False
        )
    except OSError:
        pytest.skip("not here: this system has no mount")
    if done.returncode:
        pytest.skip(f"not here: read-only places need the right to mount ({done.stderr.strip()})")
    (path / "d.light.yaml").write_text(DIAGRAM)
    yield Place(path)
    subprocess.run(["umount", "-l", path], check=True, capture_output=True)


def session(place: Place) -> Session:
    return Session(settings=Settings(base_dir=place.path))


def test_a_run_in_a_read_only_folder(place: Place, capsys: pytest.CaptureFixture[str]):
    """It completes, its events are there while the process is, and it says once that it is not recorded, and what to do."""
    place.close()
    with session(place) as dp:
        run = dp.start("d.light.yaml", answers={"Q": "red"}, view=False)
        assert run.result(30).output == "red"
        assert [e.seq for e in run.events] == list(range(1, len(run.events) + 1))
        warnings = [e.payload for e in run.events if e.type == "execution_log"]
        assert len(warnings) == 1
        assert warnings[0]["level"] == "WARNING"
        assert "may not be written" in warnings[0]["message"]
        assert "STATE_STORE_PATH" in warnings[0]["extra_fields"]["hint"]
        assert dp.runs() == []
    assert main(["run", "d", "--answer", "Q=green", "--base-dir", str(place.path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == "green"
    assert shown.err.count("not recorded") == 1
    assert ": :" not in shown.err


def test_the_doctor_of_a_read_only_folder(place: Place, capsys: pytest.CaptureFixture[str]):
    """What can keep nothing is a problem, each with its cause and a next action."""
    place.close()
    assert main(["doctor", "--json", "--base-dir", str(place.path)]) == 1
    found = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert [found[what]["verdict"] for what in ("base directory", "run store")] == ["problem", "problem"]
    assert found["base directory"]["fix"]
    assert found["run store"]["fix"]


def test_recorded_runs_can_be_looked_at(place: Place, capsys: pytest.CaptureFixture[str]):
    """Listed, opened, explained, replayed; what would write is refused with the cause; new runs go on in memory."""
    with session(place) as dp:
        recorded = dp.start("d.light.yaml", answers={"Q": "red"}, view=False)
        recorded.result(30)
    place.close()
    with session(place) as dp:
        assert [row.run_id for row in dp.runs()] == [recorded.id]
        run = dp.open_run(recorded.id)
        assert run.outputs == {"E": "red"}
        assert len(run.events) == len(recorded.events)
        again = dp.replay(run, speed=float("inf"), view=False)
        assert again.result(30).output == "red"
        for refused in (lambda: dp.runs().delete(), lambda: run_sync(dp.runtime.services.store.claim(run.id, owned=True))):
            with pytest.raises(StorageError) as error:
                refused()
            assert error.value.facts["cause"] == "read_only"
        assert dp.start("d.light.yaml", answers={"Q": "new"}, view=False).result(30).output == "new"
    assert main(["runs", "--base-dir", str(place.path)]) == 0
    assert recorded.id.removeprefix("exec_")[:8] in capsys.readouterr().out


def test_a_disk_that_is_full_when_the_store_is_opened(place: Place, capsys: pytest.CaptureFixture[str]):
    """SQLite has no room for the index of its WAL, without which it opens nothing to write: recorded runs can be looked at, new runs
    go on in memory, deleting is one error, and all is well in the same session as soon as there is room."""
    with session(place) as dp:
        recorded = [dp.start("d.light.yaml", answers={"Q": colour}, view=False) for colour in ("red", "blue")]
        assert [run.result(30).output for run in recorded] == ["red", "blue"]
    filler = place.fill()
    with session(place) as dp:
        assert {row.run_id for row in dp.runs()} == {run.id for run in recorded}
        assert dp.open_run(recorded[0].id).outputs == {"E": "red"}
        run = dp.start("d.light.yaml", answers={"Q": "green"}, view=False)
        assert run.result(30).output == "green"
        logged = [e.payload for e in run.events if e.type == "execution_log"]
        assert [("no room" in payload["message"], payload["level"]) for payload in logged] == [(True, "ERROR")]
        for refused in (lambda: dp.runs().delete(), lambda: run_sync(dp.runtime.services.store.compact())):
            with pytest.raises(StorageError, match="no room") as error:
                refused()
            assert error.value.facts["cause"] == "disk_full"
            assert "Free some disk space" in str(error.value)
        assert main(["runs", "prune", "--keep", "1", "--base-dir", str(place.path)]) == 1
        assert capsys.readouterr().err.count("error: Run store") == 1
        filler.unlink()
        again = dp.start("d.light.yaml", answers={"Q": "grey"}, view=False)
        assert again.result(30).output == "grey"
        assert {row.run_id for row in dp.runs()} == {run.id for run in (*recorded, again)}
        assert len(dp.runs().delete()) == 3


def test_deleting_on_a_disk_that_has_become_full(place: Place):
    """The store is open already, and its WAL cannot grow: one error, and every run is there still."""
    with session(place) as dp:
        runs = [dp.start("d.light.yaml", answers={"Q": "red" * 20_000}, view=False) for _ in range(3)]
        for run in runs:
            run.result(30)
        filler = place.fill()
        with pytest.raises(StorageError) as error:
            dp.runs().delete()
        assert error.value.facts["cause"] == "disk_full"
        assert "Free some" in str(error.value)
        assert len(dp.runs()) == 3
        filler.unlink()
        assert len(dp.runs().delete()) == 3
        assert dp.runs() == []


def test_an_error_of_a_full_disk_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """SQLite reports an I/O error where the file system has no room; with room it is one of the disk."""
    store = SqliteRunStore(tmp_path / "runs.db")
    run_sync(store.initialize())
    run_sync(store.cleanup())
    monkeypatch.setattr(RunFile, "_connected", refuse_to_connect)
    with pytest.raises(StorageError) as error:
        run_sync(store.initialize())
    assert error.value.facts["cause"] == "failed"
    monkeypatch.setattr("dipeo_nb.execution.state.sqlite_file.ROOM_B", float("inf"))
    run_sync(store.initialize())
    assert run_sync(store.runs()) == []
    with pytest.raises(StorageError) as error:
        run_sync(store.delete("r"))
    assert error.value.facts["cause"] == "disk_full"
    monkeypatch.undo()
    assert run_sync(store.delete("r")) == []
    run_sync(store.cleanup())


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced by a copy", "its folder moved"])
def test_a_run_store_that_is_taken_away(tmp_path: Path, how: str):
    """What is written to the open file would be found nowhere: runs go on in memory and say so, nothing is deleted, and a session
    that opens the place anew records there."""
    folder = tmp_path / "store"
    folder.mkdir()
    path = folder / "runs.db"
    settings = Settings(base_dir=tmp_path, state_store_path=str(path))
    (tmp_path / "d.light.yaml").write_text(DIAGRAM)
    with Session(settings=settings) as dp:
        dp.start("d.light.yaml", answers={"Q": "red"}, view=False).result(30)
        going = dp.start("d.light.yaml", view=False)
        wait_until(lambda: going.question is not None)
        if how == "its folder moved":
            folder.rename(tmp_path / "elsewhere")
        elif how == "replaced by a copy":
            shutil.copy(path, folder / "copy.db")
            (folder / "copy.db").replace(path)
        else:
            for file in list(folder.iterdir()):
                file.unlink() if how == "deleted" else file.rename(folder / f"old-{file.name}")
        going.answer("blue")
        for run, output in ((going, "blue"), (dp.start("d.light.yaml", answers={"Q": "green"}, view=False), "green")):
            assert run.result(30).output == output
            (logged,) = [e.payload["message"] for e in run.events if e.type == "execution_log"]
            assert "not recorded" in logged
            assert "moved, replaced or deleted" in logged
        with pytest.raises(StorageError, match="moved, replaced or deleted"):
            dp.runs().delete()
    for file in (path.with_name("runs.db-wal"), path.with_name("runs.db-shm")):
        file.unlink(missing_ok=True)
    with Session(settings=settings) as dp:
        again = dp.start("d.light.yaml", answers={"Q": "grey"}, view=False)
        assert again.result(30).output == "grey"
        assert again.id in {row.run_id for row in dp.runs()}
        assert not [e for e in again.events if e.type == "execution_log"]


def refuse_to_connect(store: SqliteRunStore) -> sqlite3.Connection:
    raise sqlite3.OperationalError("disk I/O error")


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_records_of_earlier_versions(place: Place, golden: Path):
    """They cannot be brought up to date there, and are shown all the same."""
    (place.path / ".dipeo").mkdir()
    shutil.copy(golden, place.path / ".dipeo/runs.db")
    place.close()
    with session(place) as dp:
        rows = dp.runs()
        assert sorted(row.status for row in rows) == ["completed", "failed", "interrupted"]
        assert all(dp.open_run(row.run_id).events for row in rows)


def test_a_record_that_a_process_left_unfinished(place: Place):
    """What is in the WAL alone is seen, as far as SQLite can read it there."""
    with session(place) as dp:
        dp.start("d.light.yaml", answers={"Q": "x"}, view=False).result(30)
        store = dp.runtime.services.store
        assert isinstance(store, SqliteRunStore)
        shutil.copytree(place.path / ".dipeo", place.path / "copy")
    os.rename(place.path / ".dipeo", place.path / "old")
    os.rename(place.path / "copy", place.path / ".dipeo")
    place.close()
    with session(place) as dp:
        assert len(dp.runs()) == 1


def test_a_place_that_is_none_is_an_error(tmp_path: Path):
    """A folder in place of the file is a mistake, not a place to read."""
    (tmp_path / "runs.db").mkdir()
    with pytest.raises(StorageError):
        run_sync(SqliteRunStore(tmp_path / "runs.db").initialize())
