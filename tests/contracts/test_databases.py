"""The contract of databases of files (`dipeo_nb.testing.contracts.databases`), over every file system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.ports import DBOperationsPort, FileSystemPort
from dipeo_nb.storage.in_memory import InMemoryFileSystem
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalFileSystemAdapter
from dipeo_nb.testing.contracts import DBOperationsContract


class TestDatabases(DBOperationsContract):
    @pytest.fixture(autouse=True, params=["memory", "local"])
    def adapter(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        files: FileSystemPort = InMemoryFileSystem() if request.param == "memory" else LocalFileSystemAdapter(tmp_path)
        self.make = lambda: DBOperationsDomainService(files)

        def reopen(made: Any) -> DBOperationsPort:
            return DBOperationsDomainService(files)

        self.reopen = reopen
