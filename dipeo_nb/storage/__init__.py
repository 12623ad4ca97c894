"""Storage: files, blobs, artifacts, databases in files, diagrams and repositories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy

if TYPE_CHECKING:
    from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
    from dipeo_nb.storage.cloud import S3Adapter
    from dipeo_nb.storage.conversation import InMemoryConversationRepository, InMemoryPersonRepository
    from dipeo_nb.storage.diagrams import DiagramService
    from dipeo_nb.storage.json_db import DBOperationsDomainService
    from dipeo_nb.storage.local import LocalBlobAdapter, LocalFileSystemAdapter

__all__ = [
    "ArtifactStoreAdapter",
    "DBOperationsDomainService",
    "DiagramService",
    "InMemoryConversationRepository",
    "InMemoryPersonRepository",
    "LocalBlobAdapter",
    "LocalFileSystemAdapter",
    "S3Adapter",
]

__getattr__: Callable[[str], Any] = lazy.attributes(
    __name__,
    {
        "ArtifactStoreAdapter": "artifacts",
        "DBOperationsDomainService": "json_db",
        "DiagramService": "diagrams",
        "InMemoryConversationRepository": "conversation",
        "InMemoryPersonRepository": "conversation",
        "LocalBlobAdapter": "local",
        "LocalFileSystemAdapter": "local",
        "S3Adapter": "cloud",
    },
)
