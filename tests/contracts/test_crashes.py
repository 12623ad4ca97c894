"""The contract of killed processes (`dipeo_nb.testing.contracts.crashes`) on every run store we have, and on some with a fault."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.ports import RunStore
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.postgres import PostgresRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.testing.contracts import BrokenPromiseError, CrashContract
from dipeo_nb.testing.crashing import Scene
from tests.support.late_store import LateStore


class TestRunStores(CrashContract):
    made: Callable[[], Any]

    @pytest.fixture(autouse=True, params=["memory", "sqlite", "postgres"])
    def adapter(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        if request.param == "memory":
            self.durable, self.made = False, InMemoryRunStore
        elif request.param == "postgres":
            self.made = partial(PostgresRunStore, request.getfixturevalue("postgres_server").schema())
        else:
            self.made = partial(SqliteRunStore, tmp_path / "runs.db")

    def make(self) -> Any:
        return self.made()

    def elsewhere(self) -> Callable[[], RunStore]:
        return self.made


def broken_by(store: type[SqliteRunStore], folder: Path, point: str, visit: int, *, durable: bool = True) -> str:
    """How the contract describes what is wrong with a run store."""
    suite: Any = CrashContract()
    suite.durable, suite.make = durable, partial(store, folder / "runs.db")
    suite.elsewhere = lambda: suite.make
    with pytest.raises(BrokenPromiseError) as error:
        suite.test_a_killed_run_can_be_resumed((point, visit))
    return str(error.value)


def test_a_store_that_confirms_before_it_writes_is_found(tmp_path: Path):
    """Something was shown, and is lost."""
    assert "was shown, and only" in broken_by(LateStore, tmp_path, "run.commit", 4)


def test_a_store_that_outlives_its_process_is_found(tmp_path: Path):
    """When it is said to be in memory only."""
    assert "events of a process that is gone" in broken_by(SqliteRunStore, tmp_path, "run.stored", 1, durable=False)


def test_a_point_that_is_no_longer_reached_is_found(tmp_path: Path):
    """The process then ends by itself, and not by the signal that the contract asks for."""
    assert "got 0, promised is -9" in broken_by(SqliteRunStore, tmp_path, "nowhere", 1)
    scene = Scene(tmp_path / "other", partial(SqliteRunStore, tmp_path / "other.db"))
    scene.folder.mkdir()
    assert scene.kill("start", "nowhere") == 0
    assert scene.noted("calls") == ["One", "Two", "Three"]
