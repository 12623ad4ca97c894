"""Databases written by earlier versions open for ever: one golden file per schema version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

GOLDEN = sorted((Path(__file__).parent / "golden").glob("runs-v*.db"))


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
            assert (
                "<svg" in run._repr_mimebundle_()["text/html"]
                or "data:image/svg" in run._repr_mimebundle_()["text/html"]
            )
            again = dp.replay(run, speed=float("inf"), view=False)
            again.wait(20)
            assert [e.to_wire() for e in again.events] == [e.to_wire() for e in run.events]
            assert again.status == row.status


def test_there_is_one_per_version():
    """A new schema version brings its golden file along."""
    from dipeo_nb.execution.state.sqlite import SCHEMA_VERSION

    assert [path.stem for path in GOLDEN] == [f"runs-v{n + 1}" for n in range(SCHEMA_VERSION)]
