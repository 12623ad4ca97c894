"""`kill -9` in the middle of writing: old or new content, never a mix, and nothing lost that was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import multiprocessing
import random
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common import clock
from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.locks import CacheFileLock
from dipeo_nb.common.root import own_root
from dipeo_nb.config import get_settings
from dipeo_nb.diagram.document import load, load_text
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, Message, StreamEvent
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.domain.enums import EventType, MessageType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Artifact
from dipeo_nb.errors import RecordingNotFoundError
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.llm.batch import BatchItem, BatchJob, BatchStore
from dipeo_nb.llm.model_check import check, fix
from dipeo_nb.llm.recording import Recordings, through
from dipeo_nb.security.trust_store import DiagramTrust, TrustStore
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.conversation import SqliteConversationRepository, SqlitePersonRepository
from dipeo_nb.storage.diagrams import DiagramService
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalBlobAdapter, LocalFileSystemAdapter
from tests.support.claude_code import claude_code_settings
from tests.support.kills import kills
from tests.support.skips import NOT_HERE
from tests.support.wire_openai import run

KILLS = kills(20)
"""Times that each of the first writers is killed, and that of keys; the others a quarter of that. 100 before a release."""
LONGEST_S = 0.03
"""Seconds a writer lives at most after its first acknowledgement."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "forkserver" not in multiprocessing.get_all_start_methods(), reason=f"{NOT_HERE} killing needs POSIX signals"
    ),
]


def content(number: int) -> bytes:
    """Bytes that show whether they are whole and which they are."""
    return number.to_bytes(4, "big") * 25_000


def number_of(data: bytes) -> int:
    """The number that *data* is the whole content of."""
    number = int.from_bytes(data[:4], "big")
    assert data == content(number), "a mix of two contents, or a part of one"
    return number


def put_blobs(folder: Path, first: int, told: Connection) -> None:
    """Put numbered contents under one key for ever; tell each number when it is acknowledged."""

    async def go() -> None:
        store = LocalBlobAdapter(folder)
        number = first
        while True:
            version = await store.put("some/key", content(number), {"n": str(number)})
            told.send((number, version))
            number += 1

    asyncio.run(go())


def push_artifacts(folder: Path, first: int, told: Connection) -> None:
    """Push numbered contents as the same version again and again, and as a version of their own, with a tag."""

    async def go() -> None:
        store = ArtifactStoreAdapter(LocalBlobAdapter(folder))
        number = first
        while True:
            await store.push(Artifact("m", "same", content(number), {"n": number}))
            await store.push(Artifact("m", f"v{number}", content(number), tags=(f"t{number}",)))
            told.send((number, f"v{number}"))
            number += 1

    asyncio.run(go())


def killed(writer: Any, folder: Path, first: int, moment: random.Random) -> list[tuple[int, str]]:
    """Start *writer*, kill it at a random moment after its first acknowledgement; what it had acknowledged."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=writer, args=(folder, first, there), daemon=True)
    process.start()
    there.close()
    with here:
        told: list[tuple[int, str]] = [here.recv()]
        time.sleep(moment.uniform(0, LONGEST_S))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        try:
            while True:
                told.append(here.recv())
        except EOFError:
            return told


def test_kill_9_while_putting_blobs(tmp_path: Path):
    """The current content is the last acknowledged or the one after it; all acknowledged versions are there, and whole."""
    moment = random.Random(4)
    unfinished, number = 0, 0

    async def check(acknowledged: list[tuple[int, str]]) -> int:
        store = LocalBlobAdapter(tmp_path)
        last, _ = acknowledged[-1]
        with await store.get("some/key") as file:
            current = number_of(file.read())
        assert current in (last, last + 1)
        versions = {v.version: v for v in await store.versions("some/key")}
        assert {version for _, version in acknowledged} <= set(versions)
        for version, facts in versions.items():
            with await store.get("some/key", version) as file:
                data = file.read()
            assert facts.metadata == {"n": str(number_of(data))}
            assert facts.checksum == hashlib.sha256(data).hexdigest()
        assert [key async for key in store.list()] == ["some/key"]
        for version in list(versions)[1:]:
            await store.delete("some/key", version)
        return current

    for _ in range(KILLS):
        acknowledged = killed(put_blobs, tmp_path, number + 1, moment)
        number = run(check(acknowledged))
        drafts = list((tmp_path / "drafts").glob("*"))
        unfinished += bool(drafts) or number > acknowledged[-1][0]
        for draft in drafts:
            draft.unlink()
    assert unfinished > 0, "the kills did not come in the middle"


def test_kill_9_while_pushing_artifacts(tmp_path: Path):
    """The version that is pushed again and again is whole; all acknowledged versions and their tags are there."""
    moment = random.Random(5)
    unfinished, number = 0, 0

    async def check(acknowledged: list[tuple[int, str]]) -> int:
        store = ArtifactStoreAdapter(LocalBlobAdapter(tmp_path / "store"))
        last, _ = acknowledged[-1]
        listed = {ref.version: ref for ref in await store.list_versions("m")}
        same = listed.pop("same")
        async with store.pulled(same) as path:
            current = number_of(path.read_bytes())
        assert same.metadata == {"n": current}
        assert current in (last, last + 1)
        assert {version for _, version in acknowledged} <= set(listed)
        for version, ref in listed.items():
            async with store.pulled(ref) as path:
                assert version == f"v{number_of(path.read_bytes())}"
            assert [found.version for found in await store.find_by_tag(f"t{version[1:]}")] == [version]
        await store.cleanup()
        return current

    for _ in range(KILLS):
        acknowledged = killed(push_artifacts, tmp_path / "store", number + 1, moment)
        current = run(check(acknowledged))
        unfinished += current > acknowledged[-1][0] or bool(list((tmp_path / "store" / "drafts").glob("*")))
        number = current
        shutil.rmtree(tmp_path / "store")
    assert unfinished > 0, "the kills did not come in the middle"


def write_files(folder: Path, first: int, told: Connection) -> None:
    """Replace one file for ever, and create another for each number."""
    write_files_in(LocalFileSystemAdapter(folder), first, told)


def write_files_in(files: LocalFileSystemAdapter, first: int, told: Connection) -> None:
    number = first
    while True:
        files.write_bytes("same.bin", content(number))
        files.write_bytes(f"n{number}.bin", content(number), create_only=True)
        told.send((number, ""))
        number += 1


def append_rows(folder: Path, first: int, told: Connection) -> None:
    """Append numbered rows to a CSV file with its own manner."""

    async def go() -> None:
        db = DBOperationsDomainService(LocalFileSystemAdapter(folder))
        number = first
        while True:
            await db.execute_operation("t.csv", "append", {"n": number, "pad": "x;y"})
            told.send((number, ""))
            number += 1

    asyncio.run(go())


def add_messages(folder: Path, first: int, told: Connection) -> None:
    """Add numbered messages."""

    async def go() -> None:
        repository = SqliteConversationRepository(folder / "c.db")
        number = first
        while True:
            message = Message(f"m{number}", "a", "b", str(number), MessageType.PERSON_TO_PERSON, 0.0)
            await repository.add_message(message, "run")
            told.send((number, ""))
            number += 1

    asyncio.run(go())


def files_held(folder: Path) -> list[int]:
    number_of((folder / "same.bin").read_bytes())
    return sorted(number_of(path.read_bytes()) for path in folder.glob("n*.bin"))


def rows_held(folder: Path) -> list[int]:
    head, *rows = (folder / "t.csv").read_bytes().decode().removesuffix("\r\n").split("\r\n")
    assert head == "n;pad"
    assert all(row.endswith(';"x;y"') for row in rows)
    return [int(row.partition(";")[0]) for row in rows]


def messages_held(folder: Path) -> list[int]:
    async def go() -> list[int]:
        repository = SqliteConversationRepository(folder / "c.db")
        found = [int(m.content) for m in await repository.get_messages("run")]
        await repository.cleanup()
        return found

    return run(go())


def cache_files(folder: Path, first: int, told: Connection) -> None:
    """Replace one file of a cache, and make another for each number."""
    cache = CacheFileLock(folder)
    number = first
    while True:
        for name in ("same.bin", f"n{number}.bin"):
            with cache.write(name) as draft:
                draft.write_bytes(content(number))
        told.send((number, ""))
        number += 1


def own_files(folder: Path, first: int, told: Connection) -> None:
    """Write below the product's own folder, as recordings, batches and blobs do."""
    root = own_root(folder)
    number = first
    while True:
        root.write("same.bin", content(number))
        root.write(f"n{number}.bin", content(number), create_only=True)
        told.send((number, ""))
        number += 1


def own_files_held(folder: Path) -> list[int]:
    return files_held(folder / ".dipeo")


def create_diagrams(folder: Path, first: int, told: Connection) -> None:
    """Create diagrams, each under a name of its own."""

    async def go() -> None:
        service = DiagramService(LocalFileSystemAdapter(folder))
        number = first
        while True:
            await service.create("d", load_text(f"nodes:\n- {{label: s, type: start, custom_data: {{n: {number}}}}}\n"))
            told.send((number, ""))
            number += 1

    asyncio.run(go())


def diagrams_held(folder: Path) -> list[int]:
    async def go() -> list[int]:
        service = DiagramService(LocalFileSystemAdapter(folder))
        loaded = [await service.load_from_file(info.id) for info in await service.list()]
        return sorted(diagram.nodes[0].data["custom_data"]["n"] for diagram in loaded)

    return run(go())


def remember_trust(folder: Path, first: int, told: Connection) -> None:
    """Remember that a diagram is trusted, one after another."""
    store = TrustStore(folder / "data")
    number = first
    while True:
        store.add(DiagramTrust(digest=f"{number:09d}" * 7, base="/b", parts=(("code of 'Clean'", str(number)),) * 50))
        told.send((number, ""))
        number += 1


def trust_held(folder: Path) -> list[int]:
    store = TrustStore(folder / "data")
    assert all(path.stat().st_mode & 0o077 == 0 for path in store.folder.iterdir())
    return [int(r.digest[:9]) for r in store.records() if isinstance(r, DiagramTrust)]


def log_events(folder: Path, first: int, told: Connection) -> None:
    """Append numbered events to the log of a run."""

    async def go() -> None:
        store = SqliteRunStore(folder / "r.db")
        await store.initialize()
        if first > 1:
            await store.claim("r")  # its process is gone
        number = first
        while True:
            kind = EventType.EXECUTION_STARTED if number == 1 else EventType.EXECUTION_LOG
            await store.append(
                [Event(number, kind, "r", 0.0, None, {"diagram": "d", "labels": {}, "pad": content(number).hex()})]
            )
            told.send((number, ""))
            number += 1

    asyncio.run(go())


def events_held(folder: Path) -> list[int]:
    async def go() -> list[int]:
        store = SqliteRunStore(folder / "r.db")
        await store.initialize()
        found = await store.events("r")
        await store.cleanup()
        assert all(number_of(bytes.fromhex(e.payload["pad"])) == e.seq for e in found)
        return [e.seq for e in found]

    return run(go())


def save_batches(folder: Path, first: int, told: Connection) -> None:
    """Save one batch job again and again, and others."""
    batches = BatchStore(own_root(folder).below("batches"))
    number = first
    while True:
        for name in ("same", f"n{number}"):
            batches.save(BatchJob(name, "openai", "running", float(number), (BatchItem("1", content(number).hex()),)))
        told.send((number, ""))
        number += 1


def batches_held(folder: Path) -> list[int]:
    jobs = BatchStore(own_root(folder).below("batches")).jobs()
    assert all(number_of(bytes.fromhex(job.items[0].model)) == job.created_at for job in jobs)
    return sorted(int(job.id[1:]) for job in jobs if job.id != "same")


def record_answers(folder: Path, first: int, told: Connection) -> None:
    """Record an answer of a model to the same words again and again, and to others."""

    async def go() -> None:
        recordings = Recordings(folder / "recorded", "record")
        number = first
        while True:
            for words in ("same", f"n{number}"):
                async for _ in through(recordings, asked(words), answering(number)):
                    pass
            told.send((number, ""))
            number += 1

    asyncio.run(go())


def answering(number: int) -> Callable[[LLMRequest], AsyncIterator[StreamEvent]]:
    async def call(request: LLMRequest) -> AsyncIterator[StreamEvent]:
        yield StreamEvent("end", response=LLMResponse(content(number).hex(), "echo", "m"))

    return call


def asked(words: str) -> LLMRequest:
    return LLMRequest("echo", "m", [ChatMessage("user", words)])


def recorded(folder: Path) -> list[int]:
    """The numbers of the answers that are replayed; what is there is a recording, or no file of one."""

    async def call(request: LLMRequest) -> AsyncIterator[StreamEvent]:
        raise AssertionError("replaying calls nobody")
        yield

    async def answer(words: str) -> int:
        events = [event async for event in through(Recordings(folder / "recorded", "replay"), asked(words), call)]
        assert events[-1].response is not None
        return number_of(bytes.fromhex(events[-1].response.text))

    async def go() -> list[int]:
        await answer("same")
        found: list[int] = []
        with contextlib.suppress(RecordingNotFoundError):
            while True:
                found.append(await answer(f"n{len(found) + 1}"))
        return found

    return run(go())


def save_persons(folder: Path, first: int, told: Connection) -> None:
    """Save one person again and again, and others."""

    async def go() -> None:
        persons = SqlitePersonRepository(folder / "p.db")
        number = first
        while True:
            for name in ("same", f"n{number}"):
                model = LLMConfig(service="openai", model="m", system_prompt=content(number).hex())
                await persons.save(DomainPerson(name, str(number), model))
            told.send((number, ""))
            number += 1

    asyncio.run(go())


def persons_held(folder: Path) -> list[int]:
    async def go() -> list[int]:
        persons = SqlitePersonRepository(folder / "p.db")
        found = await persons.get_all()
        await persons.cleanup()
        assert all(number_of(bytes.fromhex(p.llm.system_prompt or "")) == int(p.label) for p in found.values())
        return sorted(int(name[1:]) for name in found if name != "same")

    return run(go())


def promote_versions(folder: Path, first: int, told: Connection) -> None:
    """Push versions, and move one stage from each to the next."""

    async def go() -> None:
        store = ArtifactStoreAdapter(LocalBlobAdapter(folder))
        number = first
        while True:
            await store.promote(await store.push(Artifact("m", str(number), content(number))), "prod")
            told.send((number, ""))
            number += 1

    asyncio.run(go())


def promoted(folder: Path) -> list[int]:
    """The numbers up to that of the version that the stage is at."""

    async def go() -> list[int]:
        store = ArtifactStoreAdapter(LocalBlobAdapter(folder))
        ref = await store.get_latest("m", "prod")
        assert ref is not None
        async with store.pulled(ref) as path:
            number = number_of(path.read_bytes())
        assert number == int(ref.version)
        pushed = {int(one.version) for one in await store.list_versions("m")}
        await store.cleanup()
        assert pushed - set(range(1, number + 1)) <= {number + 1}
        return list(range(1, number + 1))

    return run(go())


def save_documents(folder: Path, first: int, told: Connection) -> None:
    """Save a diagram to the same file again and again, and to others, as notebooks and commands do."""
    number = first
    while True:
        document = load_text(
            f"nodes:\n- {{label: s, type: start, custom_data: {{n: {number}, pad: '{content(number).hex()}'}}}}\n"
        )
        for name in ("same", f"n{number}"):
            document.save(folder / f"{name}.light.yaml")
        told.send((number, ""))
        number += 1


def documents_held(folder: Path) -> list[int]:
    found: dict[str, int] = {}
    for path in folder.glob("*.yaml"):
        data = load(path, base_dir=folder).nodes[0].data["custom_data"]
        found[path.name.partition(".")[0]] = data["n"]
        assert number_of(bytes.fromhex(data["pad"])) == data["n"]
    return sorted(number for name, number in found.items() if name != "same")


def write_drafts(folder: Path, first: int, told: Connection) -> None:
    """Write files of a guest, below the product's own folder."""
    write_files_in(LocalFileSystemAdapter(own_root(folder).below("drafts/guest")), first, told)


def drafts_held(folder: Path) -> list[int]:
    return files_held(folder / ".dipeo" / "drafts" / "guest")


def keep_prompts(folder: Path, first: int, told: Connection) -> None:
    """Keep long system prompts for Claude Code, each in a file that its content names."""
    number = first
    while True:
        kept = claude_code_settings(folder, prompt_of(number)).options(None).system_prompt
        told.send((number, kept["path"]))
        number += 1


def prompt_of(number: int) -> str:
    return f"{number} {content(number).hex()}"


def prompts_held(folder: Path) -> list[int]:
    found: list[int] = []
    for path in folder.rglob("system-*.txt"):
        text = path.read_text()
        number = int(text.partition(" ")[0])
        assert text == claude_code_settings(folder, prompt_of(number)).system
        found.append(number)
    return sorted(found)


def fix_models(folder: Path, first: int, told: Connection) -> None:
    """Replace a model that has ended in one file of the user's after the other, and in the same file again and again."""
    number = first
    while True:
        for name in ("same", f"n{number}"):
            path = folder / f"{name}.light.yaml"
            write_atomic(path, ended(number).encode())
            with clock.on(date(2026, 11, 28)):
                assert fix(check([str(path)], get_settings()), get_settings()) == []
        told.send((number, ""))
        number += 1


def ended(number: int) -> str:
    nodes = f"nodes:\n- {{label: s, type: start, custom_data: {{pad: '{content(number).hex()}'}}}}\n"
    return f"version: light\npersons:\n  Ada: {{service: openai, model: gpt-5-nano-2025-08-07}}  # {number}\n{nodes}"


def fixed_held(folder: Path) -> list[int]:
    """The numbers of the files that are changed; those that are not yet are as they were, to the byte."""
    found: list[int] = []
    for path in folder.glob("*.light.yaml"):
        text = path.read_text()
        number = int(text.partition("# ")[2].partition("\n")[0])
        changed = ended(number).replace("gpt-5-nano-2025-08-07", "gpt-6-luna")
        assert text in (ended(number), changed)
        if text == changed and path.name != "same.light.yaml":
            found.append(number)
    return sorted(found)


WRITERS = {
    "prompts of Claude Code": (keep_prompts, prompts_held),
    "replaced models": (fix_models, fixed_held),
    "recordings": (record_answers, recorded),
    "persons": (save_persons, persons_held),
    "stages": (promote_versions, promoted),
    "saved diagrams": (save_documents, documents_held),
    "drafts": (write_drafts, drafts_held),
    "trust": (remember_trust, trust_held),
    "runs": (log_events, events_held),
    "batches": (save_batches, batches_held),
    "files of a cache": (cache_files, files_held),
    "own files": (own_files, own_files_held),
    "diagrams": (create_diagrams, diagrams_held),
    "files": (write_files, files_held),
    "csv rows": (append_rows, rows_held),
    "messages": (add_messages, messages_held),
}


@pytest.mark.parametrize(("writer", "held"), WRITERS.values(), ids=WRITERS)
def test_kill_9_of_the_other_writers(tmp_path: Path, writer: Any, held: Any):
    """Whatever was acknowledged is there, once and in order, and at most one more; the next writer goes on."""
    (tmp_path / "t.csv").write_bytes(b"n;pad\r\n")
    moment = random.Random(6)
    number = 0
    for _ in range(KILLS // 4):
        last, _ = killed(writer, tmp_path, number + 1, moment)[-1]
        found = held(tmp_path)
        assert found == list(range(1, len(found) + 1))
        assert len(found) in (last, last + 1)
        number = len(found)
