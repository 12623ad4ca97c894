"""What adapters write into the log: debug for what works, one error for what fails (S124)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.domain.enums import EventType, MessageType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Artifact
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.conversation import SqliteConversationRepository, SqlitePersonRepository
from dipeo_nb.storage.diagrams import DiagramService
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalBlobAdapter, LocalFileSystemAdapter

MESSAGE = Message("m", "ada", "bob", "hi", MessageType.PERSON_TO_PERSON, 0.0)
PERSON = DomainPerson("ada", "Ada", LLMConfig(service="openai", model="m"))
EVENT = Event(1, EventType.EXECUTION_STARTED, "r", 0.0, None, {"diagram": "d", "labels": {}})
DIAGRAM = "version: light\nnodes:\n- {label: s, type: start}\n"


async def _files(base: Path) -> None:
    LocalFileSystemAdapter(base).write_bytes("x.txt", b"x")


async def _save(base: Path) -> None:
    service = DiagramService(LocalFileSystemAdapter(base))
    await service.save_to_file(await service.load_from_string(DIAGRAM), "x.light.yaml")


async def _log(base: Path) -> None:
    store = SqliteRunStore(base / "r.db")
    await store.append([EVENT])
    await store.cleanup()


async def _say(base: Path) -> None:
    repository = SqliteConversationRepository(base / "c.db")
    await repository.add_message(MESSAGE)
    await repository.cleanup()


async def _keep(base: Path) -> None:
    repository = SqlitePersonRepository(base / "p.db")
    await repository.save(PERSON)
    await repository.cleanup()


WORK: dict[str, Callable[[Path], Awaitable[Any]]] = {
    "files": _files,
    "blobs": lambda base: LocalBlobAdapter(base).put("k", b"x"),
    "artifacts": lambda base: ArtifactStoreAdapter(LocalBlobAdapter(base)).push(Artifact("a", "1", b"x")),
    "json db": lambda base: DBOperationsDomainService(LocalFileSystemAdapter(base)).execute_operation("x.json", "write", 1),
    "diagrams": _save,
    "runs": _log,
    "conversations": _say,
    "persons": _keep,
}


@pytest.mark.parametrize("name", WORK)
def test_what_works_is_debug(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A success has a debug line with its milliseconds, and nothing louder."""
    caplog.set_level(logging.DEBUG, logger="dipeo_nb")
    asyncio.run(WORK[name](tmp_path))  # pyright: ignore[reportArgumentType]
    done = [r for r in caplog.records if hasattr(r, "duration_ms")]
    assert done
    assert all(r.levelno == logging.DEBUG for r in caplog.records)


@pytest.mark.parametrize("name", WORK)
def test_what_fails_is_one_error(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A failure has exactly one error line, however many adapters it passes through, and is raised."""
    caplog.set_level(logging.DEBUG, logger="dipeo_nb")
    place = tmp_path / "file"
    place.write_text("where a folder should be")
    with pytest.raises(StorageError):
        asyncio.run(WORK[name](place))  # pyright: ignore[reportArgumentType]
    errors = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.levelname for r in errors] == ["ERROR"]


def test_answers_are_no_failures(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Asking for what is not there, or with a name that is refused, is not an error of the store."""
    caplog.set_level(logging.DEBUG, logger="dipeo_nb")
    for key in ("nothing", "../x"):
        with pytest.raises(StorageError):
            asyncio.run(LocalBlobAdapter(tmp_path).get(key))
    assert {r.levelname for r in caplog.records} == {"DEBUG"}
