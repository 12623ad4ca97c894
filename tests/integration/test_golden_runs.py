"""Databases written by earlier versions open for ever: one golden file per schema version."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from dipeo_nb.domain.events import RunSummary
from dipeo_nb.execution.state.sqlite import SCHEMA_VERSION, SqliteRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("runs-v*.db"))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_every_released_schema_opens(tmp_path: Path, golden: Path):
    """Each run is listed, opens with its drawing, and replays; the one that was cut off is known as such."""
    (tmp_path / ".dipeo").mkdir()
    shutil.copy(golden, tmp_path / ".dipeo/runs.db")
    with Session(tmp_path, llm=scripted()) as dp:
        rows = dp.runs()
        assert sorted(row.status for row in rows) == ["completed", "failed", "interrupted"]
        for row in rows:
            run = dp.open_run(row.run_id)
            assert run.status == row.status
            assert "<svg" in run._repr_mimebundle_()["text/html"] or "data:image/svg" in run._repr_mimebundle_()["text/html"]
            again = dp.replay(run, speed=float("inf"), view=False)
            again.wait(20)
            assert [e.to_wire() for e in again.events] == [e.to_wire() for e in run.events]
            assert again.status == row.status


def test_an_old_file_is_brought_up_to_date(tmp_path: Path):
    """Once, with everything in it; its runs can be listed by parent."""
    path = tmp_path / "runs.db"
    shutil.copy(GOLDEN[0], path)
    with sqlite3.connect(path) as connection:
        before = connection.execute("SELECT * FROM events").fetchall()
    connection.close()

    async def rows(parent: str) -> list[RunSummary]:
        store = SqliteRunStore(path)
        await store.initialize()
        try:
            return await store.runs(parent=parent)
        finally:
            await store.cleanup()

    for _ in range(2):
        assert asyncio.run(rows("nobody")) == []
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert connection.execute("SELECT * FROM events").fetchall() == before
    plan = connection.execute("EXPLAIN QUERY PLAN SELECT * FROM runs WHERE parent_run_id = 'x'").fetchall()
    assert "runs_by_parent" in str(plan)
    connection.close()


def test_there_is_one_per_version():
    """A new schema version brings its golden file along."""
    assert [path.stem for path in GOLDEN] == [f"runs-v{n + 1}" for n in range(SCHEMA_VERSION)]
