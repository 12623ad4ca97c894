"""One suite per port of `dipeo_nb.domain.ports`: what every adapter promises. The adapters of this package run through them.

dp.testing.check(BlobStoreContract, make=lambda: MyStore(fresh_prefix()), limit=10_000_000)
"""

from __future__ import annotations

from dipeo_nb.testing.contracts.api_keys import APIKeyContract
from dipeo_nb.testing.contracts.artifacts import ArtifactStoreContract
from dipeo_nb.testing.contracts.blobs import BlobStoreContract
from dipeo_nb.testing.contracts.clients import LLMClientContract
from dipeo_nb.testing.contracts.conversations import ConversationRepositoryContract, PersonRepositoryContract
from dipeo_nb.testing.contracts.crashes import CrashContract
from dipeo_nb.testing.contracts.databases import DBOperationsContract
from dipeo_nb.testing.contracts.events import EventBusContract
from dipeo_nb.testing.contracts.files import FileSystemContract
from dipeo_nb.testing.contracts.promises import BrokenPromiseError, Contract, NotHereError, promise, refusal, same, that
from dipeo_nb.testing.contracts.runs import RunStoreContract

__all__ = [
    "APIKeyContract",
    "ArtifactStoreContract",
    "BlobStoreContract",
    "BrokenPromiseError",
    "Contract",
    "ConversationRepositoryContract",
    "CrashContract",
    "DBOperationsContract",
    "EventBusContract",
    "FileSystemContract",
    "LLMClientContract",
    "NotHereError",
    "PersonRepositoryContract",
    "RunStoreContract",
    "promise",
    "refusal",
    "same",
    "that",
]
