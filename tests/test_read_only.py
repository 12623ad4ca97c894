"""Where nothing can be written, runs go on in memory with one warning, and recorded runs can be looked at."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipeo_nb.cli import main
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.session import Session

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
GOLDEN = sorted((Path(__file__).parent / "golden").glob("runs-v*.db"))


class Place:
    """A folder that can be made read-only for everybody, root included."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def close(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.path], check=True, capture_output=True)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    path = tmp_path / "place"
    path.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)], capture_output=True, text=True, check=False)
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
        for refused in (lambda: dp.runs().delete(), lambda: run_sync(dp.runtime.services.store.claim(run.id, mine=True))):
            with pytest.raises(StorageError) as error:
                refused()
            assert error.value.facts["cause"] == "read_only"
        assert dp.start("d.light.yaml", answers={"Q": "new"}, view=False).result(30).output == "new"
    assert main(["runs", "--base-dir", str(place.path)]) == 0
    assert recorded.id.removeprefix("exec_")[:8] in capsys.readouterr().out


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
