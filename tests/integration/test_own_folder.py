"""The folder `.dipeo`: for nobody but the user, and never a way out of the base directory, whoever brought it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.config import get_settings, override_settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, Message, StreamEvent
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.errors import DipeoError, StorageError
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.llm.batch import BatchItem, BatchJob
from dipeo_nb.llm.recording import through
from dipeo_nb.llm.service import LLMService
from dipeo_nb.runtime import Runtime
from dipeo_nb.security.keys import APIKeyChain
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalFileSystemAdapter

DIAGRAM = {
    "version": "light",
    "nodes": [
        {"label": "Start", "type": "start", "custom_data": {"value": 1}},
        {"label": "Work", "type": "db", "props": {"operation": "append", "file": "list.json"}},
    ],
    "connections": [{"from": "Start", "to": "Work"}],
}


async def _run(base: Path) -> None:
    async with Runtime() as runtime:
        execution = runtime.execution(runtime.prepare(DIAGRAM))
        await runtime.run(execution)
    if execution.error is not None:
        raise execution.error


async def _blob(base: Path) -> None:
    async with Runtime() as runtime:
        await runtime.services.blobs.put("a/b", b"x")


async def _message(base: Path) -> None:
    async with Runtime() as runtime:
        message = Message("1", "a", "b", "x", MessageType.PERSON_TO_PERSON, 0.0)
        await runtime.services.conversations.add_message(message)


async def _recording(base: Path) -> None:
    async def call(request: LLMRequest) -> Any:
        yield StreamEvent("end", response=LLMResponse("yes", "echo", "m"))

    recordings = dp.recording(mode="record")
    async for _ in through(recordings, LLMRequest("echo", "m", [ChatMessage("user", "hi")]), call):
        pass


async def _batch(base: Path) -> None:
    settings = get_settings()
    store = LLMService(settings, APIKeyChain.of(settings))._batches
    await asyncio.to_thread(store.save, BatchJob("b1", "openai", "running", 1.0, (BatchItem("1", "m"),)))


async def _lock(base: Path) -> None:
    await DBOperationsDomainService(LocalFileSystemAdapter(base)).execute_operation("list.json", "append", 1)


WRITERS: dict[str, Callable[[Path], Awaitable[None]]] = {
    "run": _run, "blob": _blob, "message": _message, "recording": _recording, "batch": _batch, "lock": _lock,
}  # fmt: skip


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_user_reads_it(tmp_path: Path, umask: int):
    """Whoever makes it first, and whatever the umask: folders 0700, files 0600, also those that SQLite has beside its own."""
    base = tmp_path / "base"
    base.mkdir()
    before = os.umask(umask)
    try:
        with override_settings(base_dir=base):
            for write in reversed(WRITERS.values()):
                asyncio.run(write(base))
    finally:
        os.umask(before)
    found = [base / ".dipeo", *base.glob(".dipeo/**/*")]
    assert {path.name for path in found} >= {"runs.db", "conversations.db", "recordings", "batches", "blobs", "locks"}
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert path.suffix == ".lock" or mode == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("place", ["", "runs.db", "conversations.db", "recordings", "batches", "blobs", "locks"])
@pytest.mark.parametrize("dangling", [False, True], ids=["there", "dangling"])
def test_a_link_in_its_place_leads_nowhere(tmp_path: Path, place: str, dangling: bool):
    """A folder of somebody else's brings `.dipeo`, or something in it, as a link: one clear error, and nothing is made outside."""
    base, outside = tmp_path / "base", tmp_path / "outside"
    base.mkdir()
    if not dangling:
        outside.mkdir()
        (outside / "kept").write_text("kept")
    link = base / ".dipeo" / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside / "kept" if place.endswith(".db") else outside)
    refused: dict[str, DipeoError] = {}
    for name, write in WRITERS.items():
        with override_settings(base_dir=base):
            try:
                asyncio.run(write(base))
            except DipeoError as error:
                refused[name] = error
    users = {"runs.db": ["run"], "conversations.db": ["message"], "recordings": ["recording"], "batches": ["batch"],
             "blobs": ["blob"], "locks": ["run", "lock"], "": list(WRITERS)}  # fmt: skip
    assert set(refused) >= set(users[place])
    assert all(error.hint for error in refused.values())
    assert not outside.exists() if dangling else [p.name for p in outside.iterdir()] == ["kept"]
    assert dangling or (outside / "kept").read_text() == "kept"


@pytest.mark.parametrize("program", [
    "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM events; END", "CREATE VIEW v AS SELECT * FROM runs",
])  # fmt: skip
def test_a_record_with_programs_in_it_is_not_opened(tmp_path: Path, program: str):
    """Triggers and views would run whenever something is recorded; the file is left as it is."""
    path = tmp_path / "runs.db"

    async def made() -> None:
        store = SqliteRunStore(path)
        await store.initialize()
        await store.cleanup()

    asyncio.run(made())
    with sqlite3.connect(path) as connection:
        connection.execute(program)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="program of its own") as caught:
        asyncio.run(SqliteRunStore(path).initialize())
    assert caught.value.facts["cause"] == "refused"
    assert path.read_bytes() == before
