"""The contract of run stores (`dipeo_nb.testing.contracts.runs`) on every one we have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.ports import RunStore
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.execution.state.postgres import PostgresRunStore
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.testing.contracts import RunStoreContract


class TestRunStores(RunStoreContract):
    @pytest.fixture(autouse=True, params=["memory", "sqlite", "sqlite-full", "postgres"])
    def adapter(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        if request.param == "memory":
            self.make = InMemoryRunStore
            return
        if request.param == "postgres":
            url = request.getfixturevalue("postgres_server").schema()
            self.make = lambda: PostgresRunStore(url)

            async def once_more(made: Any) -> RunStore:
                await made.cleanup()
                return PostgresRunStore(url)

            self.reopen = once_more
            return
        sync = "full" if request.param == "sqlite-full" else "normal"
        self.make = lambda: SqliteRunStore(tmp_path / "runs.db", sync=sync)

        def reopen(made: Any) -> RunStore:
            return SqliteRunStore(tmp_path / "runs.db", sync=sync)

        self.reopen = reopen
