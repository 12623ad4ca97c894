"""All ports (interfaces) of the system, by family; adapters are in the packages above.

A class that inherits a port without implementing all of its methods cannot be instantiated: Python's TypeError lists the missing
ones. A class that only has the same methods is checked by `container.build`, and conforms if it passes the port's contract
(`dipeo_nb.testing.contracts`). The few methods with a body here are optional: opening and closing, if there is nothing to open or
close, and operations that a store may not support.

All errors named here are from `dipeo_nb.errors`. Methods with I/O are async unless noted otherwise.
"""

from __future__ import annotations

import warnings
from typing import Any

from dipeo_nb.domain.ports.blobs import Artifact, ArtifactRef, ArtifactStorePort, BlobData, BlobStorePort, BlobVersion
from dipeo_nb.domain.ports.code import ASTParserPort, CodeResult, CodeRunner, IRBuilderPort
from dipeo_nb.domain.ports.conversations import ConversationRepository, PersonRepository
from dipeo_nb.domain.ports.diagrams import (
    DiagramFilePort,
    DiagramFormatPort,
    DiagramPort,
    DiagramRepositoryPort,
    DiagramStoragePort,
)
from dipeo_nb.domain.ports.files import DBOperationsPort, FileInfo, FileSystemPort
from dipeo_nb.domain.ports.http import HTTPPort, HTTPResponse, IntegrationPort, OfferedTool
from dipeo_nb.domain.ports.llm import APIKeyPort, LLMClient, LLMServicePort
from dipeo_nb.domain.ports.prompts import InteractionPort, Question, TemplateProcessorPort, TemplateResult
from dipeo_nb.domain.ports.runs import EventBus, EventHandler, Overflow, RunStore, Snapshot, Subscription
from dipeo_nb.domain.ports.services import Clock, RunGate, Services

__all__ = [
    "APIKeyPort",
    "ASTParserPort",
    "Artifact",
    "ArtifactRef",
    "ArtifactStorePort",
    "BlobData",
    "BlobStorePort",
    "BlobVersion",
    "Clock",
    "CodeResult",
    "CodeRunner",
    "ConversationRepository",
    "DBOperationsPort",
    "DiagramFilePort",
    "DiagramFormatPort",
    "DiagramPort",
    "DiagramRepositoryPort",
    "DiagramStoragePort",
    "EventBus",
    "EventHandler",
    "FileInfo",
    "FileSystemPort",
    "HTTPPort",
    "HTTPResponse",
    "IRBuilderPort",
    "IntegrationPort",
    "InteractionPort",
    "LLMClient",
    "LLMServicePort",
    "OfferedTool",
    "Overflow",
    "PersonRepository",
    "Question",
    "RunGate",
    "RunStore",
    "Services",
    "Snapshot",
    "Subscription",
    "TemplateProcessorPort",
    "TemplateResult",
]

FORMER_NAMES = {
    "ApiInvoker": "IntegrationPort",
    "ApiProvider": "IntegrationPort",
    "ApiProviderRegistry": "IntegrationPort",
    "EventStore": "RunStore",
    "ExecutionStateRepository": "RunStore",
    "ExecutionStateService": "RunStore",
    "LLMService": "LLMServicePort",
    "MemoryService": "ConversationRepository",
    "TemplateRendererPort": "TemplateProcessorPort",
}
"""Ports of DiPeO → the port with the same task here, whose methods differ."""


def __getattr__(name: str) -> Any:
    if name not in FORMER_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    now = FORMER_NAMES[name]
    warnings.warn(
        f"{__name__}.{name} is deprecated; its task is that of {now}, whose methods differ.", DeprecationWarning, stacklevel=2
    )
    return globals()[now]
