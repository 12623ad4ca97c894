"""The contract of blob stores (`dipeo_nb.testing.contracts.blobs`) on every one we have."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.ports import BlobStorePort
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.local import LocalBlobAdapter
from dipeo_nb.testing.contracts import BlobStoreContract

LIMIT = 3_000_000


class TestBlobStores(BlobStoreContract):
    limit = LIMIT

    @pytest.fixture(autouse=True, params=["memory", "local", "s3"])
    def adapter(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        """Opens the same place each time, where it is durable."""
        make: Callable[[], BlobStorePort]
        match request.param:
            case "memory":
                self.make = lambda: InMemoryBlobAdapter(max_size=LIMIT)
                return
            case "local":
                make = lambda: LocalBlobAdapter(tmp_path / "blobs", max_size=LIMIT)  # noqa: E731
            case _:
                server, prefix = request.getfixturevalue("s3_server"), f"test/{uuid.uuid4().hex}"
                make = lambda: server.adapter(prefix=prefix, max_size=LIMIT)  # noqa: E731
        self.make = make

        def reopen(made: Any) -> BlobStorePort:
            return make()

        self.reopen = reopen
