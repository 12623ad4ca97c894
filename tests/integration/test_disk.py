"""A disk that is full, and one that may not be written: one clear error, the old data whole, and it goes on when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dipeo_nb.cli import main
from dipeo_nb.common import clock
from dipeo_nb.common.root import Root, own_root
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, Message, StreamEvent
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.domain.enums import EventType, MessageType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Artifact
from dipeo_nb.errors import APIKeyError, RecordingError, StorageError
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.llm.batch import BatchItem, BatchJob, BatchStore
from dipeo_nb.llm.recording import Recordings, through
from dipeo_nb.security.keystore import KeyFile, StoredKey
from dipeo_nb.security.trust_store import DiagramTrust, TrustStore
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.conversation import SqliteConversationRepository, SqlitePersonRepository
from dipeo_nb.storage.diagrams import DiagramService
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalBlobAdapter, LocalFileSystemAdapter
from tests.support.claude_code import claude_code_settings

LARGE = os.urandom(2 * 1024 * 1024)
"""Twice the disk."""


@dataclass
class Disk:
    """A file system of 1 MB of its own."""

    path: Path

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.path], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("not here: this system has no mount")
    if done.returncode:
        pytest.skip(f"not here: small disks need the right to mount ({done.stderr.strip()})")
    yield Disk(path)
    subprocess.run(["umount", "-l", path], check=True, capture_output=True)


@dataclass(frozen=True)
class Surface:
    """One thing that writes: how it is opened, what it writes, and what it says it holds."""

    name: str
    make: Callable[[Path], Any]
    write: Callable[[Any, bytes, str], Awaitable[Any]]
    """(thing, what to write, a name of it)"""
    held: Callable[[Any], Awaitable[Any]]


async def _files(files: LocalFileSystemAdapter, data: bytes, name: str) -> None:
    await asyncio.to_thread(files.write_bytes, name, data)


async def _file_held(files: LocalFileSystemAdapter) -> Any:
    return {p.as_posix(): files.read_bytes(p) for p in files.glob("**/*")}


async def _blob_held(blobs: LocalBlobAdapter) -> Any:
    found: dict[str, bytes] = {}
    async for key in blobs.list():
        with await blobs.get(key) as file:
            found[key] = file.read()
    return found


async def _artifact_held(store: ArtifactStoreAdapter) -> Any:
    return [ref async for ref in _refs(store)]


async def _refs(store: ArtifactStoreAdapter) -> AsyncIterator[Any]:
    for name in ("old", "new"):
        for ref in await store.list_versions(name):
            yield ref.name, ref.version, ref.size


async def _append(db: DBOperationsDomainService, data: bytes, name: str) -> None:
    await db.execute_operation("list.json", "append", {"name": name, "data": data.hex()})


async def _db_held(db: DBOperationsDomainService) -> Any:
    return (await db.execute_operation("list.json", "read"))["value"]


async def _say(repository: SqliteConversationRepository, data: bytes, name: str) -> None:
    await repository.add_message(Message(name, "ada", "bob", data.hex(), MessageType.PERSON_TO_PERSON, 0.0))


async def _save(repository: SqlitePersonRepository, data: bytes, name: str) -> None:
    await repository.save(DomainPerson(name, name, LLMConfig(service="openai", model="m", system_prompt=data.hex())))


async def _log(store: SqliteRunStore, data: bytes, name: str) -> None:
    kind = EventType.EXECUTION_STARTED if name == "old" else EventType.EXECUTION_LOG
    seq = 1 if name == "old" else len(await store.events("r")) + 1
    await store.append([Event(seq, kind, "r", 0.0, None, {"diagram": "d", "labels": {}, "pad": data.hex()})])


async def _log_held(store: SqliteRunStore) -> Any:
    return [(e.seq, e.payload) for e in await store.events("r")]


async def _append_row(db: DBOperationsDomainService, data: bytes, name: str) -> None:
    await db.execute_operation("rows.csv", "append", {"name": name, "data": data.hex()})


async def _rows_held(db: DBOperationsDomainService) -> Any:
    return (await db.execute_operation("rows.csv", "read"))["value"]


async def _own(root: Root, data: bytes, name: str) -> None:
    await asyncio.to_thread(LocalFileSystemAdapter(root).write_bytes, f"drafts/{name}", data)


def _own_held(root: Root) -> Any:
    files = LocalFileSystemAdapter(root)
    return {p.as_posix(): files.read_bytes(p) for p in files.glob("**/*")}


async def _key(keys: KeyFile, data: bytes, name: str) -> None:
    def change() -> None:
        with keys.changing() as known:
            known[name] = StoredKey(name, "openai", SecretStr(data.hex()))

    await asyncio.to_thread(change)


async def _keys_held(keys: KeyFile) -> Any:
    return {name: key.secret and key.secret.get_secret_value() for name, key in keys.read().items()}


async def _trust(trusted: TrustStore, data: bytes, name: str) -> None:
    await asyncio.to_thread(trusted.add, DiagramTrust(digest=name, base="", name=data.hex()))


async def _trust_held(trusted: TrustStore) -> Any:
    return trusted.records()


async def _draw(service: DiagramService, data: bytes, name: str) -> None:
    text = f"version: light\nname: {name}\nnodes:\n- {{label: s, type: start, custom_data: {{a: '{data.hex()}'}}}}\n"
    await service.save_to_file(await service.load_from_string(text), f"{name}.light.yaml")


async def _drawn(service: DiagramService) -> Any:
    return [(info.id, info.size) for info in await service.list()]


async def _batch(batches: BatchStore, data: bytes, name: str) -> None:
    job = BatchJob(name, "openai", "running", 1.0, (BatchItem("1", data.hex()),))
    await asyncio.to_thread(batches.save, job)


async def _batches_held(batches: BatchStore) -> Any:
    return batches.jobs()


async def _record(recordings: Recordings, data: bytes, name: str) -> None:
    """A recording is an error of the model's call when it cannot be kept."""
    request = LLMRequest("echo", "m", [ChatMessage("user", name)])

    async def call(request: LLMRequest) -> AsyncIterator[StreamEvent]:
        yield StreamEvent("end", response=LLMResponse(data.hex(), "echo", "m"))

    async for _ in through(recordings, request, call):
        pass


async def _recorded(recordings: Recordings) -> Any:
    return sorted(path.read_bytes() for path in recordings.path.glob("*.json"))


async def _prompt(folder: Path, data: bytes, name: str) -> None:
    await asyncio.to_thread(claude_code_settings(folder, f"{name} {data.hex()}").options, None)


async def _prompts_held(folder: Path) -> Any:
    return {path.name: path.read_bytes() for path in folder.rglob("system-*.txt")}


SURFACES = [
    Surface("files", LocalFileSystemAdapter, _files, _file_held),
    Surface("blobs", LocalBlobAdapter, lambda s, data, name: s.put(name, data), _blob_held),
    Surface(
        "artifacts",
        lambda path: ArtifactStoreAdapter(LocalBlobAdapter(path)),
        lambda s, data, name: s.push(Artifact(name, "1", data)),
        _artifact_held,
    ),
    Surface("json db", lambda path: DBOperationsDomainService(LocalFileSystemAdapter(path)), _append, _db_held),
    Surface(
        "conversations",
        lambda path: SqliteConversationRepository(path / "c.db"),
        _say,
        lambda s: s.get_global_conversation(),
    ),
    Surface("persons", lambda path: SqlitePersonRepository(path / "p.db"), _save, lambda s: s.get_all()),
    Surface("runs", lambda path: SqliteRunStore(path / "r.db"), _log, _log_held),
    Surface("diagrams", lambda path: DiagramService(LocalFileSystemAdapter(path)), _draw, _drawn),
    Surface("batches", lambda path: BatchStore(Root(path, links=False, private=True)), _batch, _batches_held),
    Surface("recordings", lambda path: Recordings(path, "record"), _record, _recorded),
    Surface("trust", TrustStore, _trust, _trust_held),
    Surface("csv rows", lambda path: DBOperationsDomainService(LocalFileSystemAdapter(path)), _append_row, _rows_held),
    Surface("own files", own_root, _own, lambda root: asyncio.to_thread(_own_held, root)),
    Surface("prompts of Claude Code", lambda path: path / "claude-code", _prompt, _prompts_held),
    Surface("keys", lambda path: KeyFile(path / "keys.json"), _key, _keys_held),
]
each = pytest.mark.parametrize("surface", SURFACES, ids=lambda s: s.name)


async def opened(surface: Surface, path: Path) -> Any:
    thing = surface.make(path)
    if hasattr(thing, "initialize"):
        await thing.initialize()
    await surface.write(thing, b"old", "old")
    return thing


async def closed(thing: Any) -> None:
    if hasattr(thing, "cleanup"):
        await thing.cleanup()


def cause_of(error: Any, surface: Surface) -> str | None:
    """None for records of trust and keys, whose errors say it in words."""
    return None if surface.name in ("trust", "keys") else error.facts["cause"]


def files_in(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and p.suffix != ".lock"}


@each
def test_a_full_disk(disk: Disk, surface: Surface):
    """Writing what does not fit is one StorageError that says so and what to do; what was there is whole, no half file stays,
    and writing goes on when it fits."""

    async def go() -> None:
        thing = await opened(surface, disk.path)
        before = await surface.held(thing)
        there = files_in(disk.path)
        with pytest.raises((StorageError, RecordingError, APIKeyError)) as caught:
            await surface.write(thing, LARGE, "new")
        assert caught.value.hint
        assert cause_of(caught.value, surface) in ("disk_full", None)
        assert await surface.held(thing) == before
        assert files_in(disk.path) <= there | {"r.db-wal", "c.db-wal", "p.db-wal"}
        await surface.write(thing, b"new", "new")
        assert await surface.held(thing) != before
        await closed(thing)

    asyncio.run(go())


@each
def test_a_disk_without_room_for_a_byte(disk: Disk, surface: Surface):
    """What is small fails later than what is large, when it is flushed or closed; it is the same error."""

    async def go() -> None:
        thing = await opened(surface, disk.path)
        before = await surface.held(thing)
        filler = disk.path / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 512)

        async def write() -> None:
            for number in range(100):  # a database may have some room of its own
                await surface.write(thing, b"x" * 1000, f"new{number}")

        with pytest.raises((StorageError, RecordingError, APIKeyError)) as caught:
            await write()
        assert caught.value.hint
        assert cause_of(caught.value, surface) in ("disk_full", None)
        filler.unlink()
        held = await surface.held(thing)
        assert len(held) >= len(before)
        await surface.write(thing, b"new", "new")
        await closed(thing)

    asyncio.run(go())


@each
def test_a_disk_that_may_only_be_read(disk: Disk, surface: Surface):
    """Writing is one StorageError that says so and what to do; reading goes on."""

    async def go() -> None:
        thing = await opened(surface, disk.path)
        await closed(thing)
        thing = surface.make(disk.path)
        before = await surface.held(thing)
        await closed(thing)
        disk.read_only()
        thing = surface.make(disk.path)

        async def write() -> None:
            if hasattr(thing, "initialize"):
                await thing.initialize()
            await surface.write(thing, b"new", "new")

        with pytest.raises((StorageError, RecordingError, APIKeyError)) as caught:
            await write()
        assert caught.value.hint
        assert cause_of(caught.value, surface) in ("read_only", "permission", None)
        if surface.name not in ("runs", "conversations", "persons"):  # WAL needs its files beside the database
            assert await surface.held(thing) == before
        await closed(thing)

    asyncio.run(go())


WRITING = {
    "render": ["render", "d.light.yaml", "-o", "disk/out.svg"],
    "convert": ["convert", "d.light.yaml", "-o", "disk/out.native.json"],
    "export": ["export", "RUN", "-o", "disk/out.jsonl"],
}
"""Commands that write a file of the user's."""


@pytest.mark.parametrize("words", WRITING.values(), ids=WRITING)
def test_commands_say_that_the_disk_is_full(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
):
    """Two lines, what is wrong and what to do; the file that was there is whole, and the same command works when there is room."""
    monkeypatch.chdir(tmp_path)
    out = Path(words[-1])
    out.write_text("old")
    Path("d.light.yaml").write_text(
        "version: light\nnodes:\n- {label: s, type: start}\n- {label: e, type: endpoint}\nconnections:\n- {from: s, to: e}\n"
    )
    assert main(["run", "d.light.yaml"]) == 0
    capsys.readouterr()
    assert main(["runs", "--json"]) == 0
    run_id = json.loads(capsys.readouterr().out)["runs"][0]["run_id"]
    words = [run_id if word == "RUN" else word for word in words]
    with (disk.path / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)
    assert main(words) != 0
    said = capsys.readouterr()
    assert "No space left on device" in said.out + said.err
    assert "hint: Free some space" in said.out + said.err
    assert out.read_text() == "old"
    assert sorted(p.name for p in disk.path.iterdir()) == sorted(["filler", out.name])
    (disk.path / "filler").unlink()
    assert main(words) == 0
    assert len(out.read_text()) > 100


ENDED = "version: light\npersons:\n  Ada: {service: openai, model: gpt-5-nano-2025-08-07}  # the first\nnodes: []\n"


def filled(disk: Disk) -> Path:
    filler = disk.path / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)
    return filler


def test_models_are_replaced_wholly_or_not_at_all(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`models check --fix` writes into files of the user's."""
    monkeypatch.chdir(disk.path)
    path = disk.path / "d.light.yaml"
    path.write_text(ENDED)
    filler = filled(disk)
    with clock.on(date(2026, 11, 28)):
        assert main(["models", "check", path.name, "--fix"]) == 1
        assert "hint: Free some space" in capsys.readouterr().err
        assert path.read_text() == ENDED
        assert files_in(disk.path) == {path.name, filler.name}
        filler.unlink()
        assert main(["models", "check", path.name, "--fix"]) == 0
    assert path.read_text() == ENDED.replace("gpt-5-nano-2025-08-07", "gpt-6-luna")


def test_a_new_folder_on_a_full_disk(disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`init` leaves no half file, and the next one makes what is missing."""
    monkeypatch.chdir(disk.path)
    filler = filled(disk)
    assert main(["init", "new"]) == 1
    assert "hint: Free some space" in capsys.readouterr().err
    assert files_in(disk.path) == {filler.name}
    filler.unlink()
    assert main(["init", "new"]) == 0
    assert {"new/slogan.light.yaml", "new/slogan.ipynb", "new/dipeo.toml", "new/.gitignore"} == files_in(disk.path)
