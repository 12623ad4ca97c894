"""The contract of conversation repositories (`dipeo_nb.testing.contracts.conversations`) on every one we have; what is ours below."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.ports import ConversationRepository
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.conversation import InMemoryConversationRepository, SqliteConversationRepository
from dipeo_nb.storage.redis import RedisConversationRepository
from dipeo_nb.testing.contracts import ConversationRepositoryContract
from dipeo_nb.testing.contracts.conversations import message, said

ROOT = Path(__file__).parents[2]
Make = Callable[[], ConversationRepository]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Opens the same repository each time, where it is durable."""
    match request.param:
        case "memory":
            return InMemoryConversationRepository
        case "sqlite":
            return lambda: SqliteConversationRepository(tmp_path / "deep" / "conversations.db")
        case _:
            url, prefix = request.getfixturevalue("redis_server"), uuid.uuid4().hex
            return lambda: RedisConversationRepository(url, prefix=prefix)


class TestConversationRepositories(ConversationRepositoryContract):
    @pytest.fixture(autouse=True)
    def adapter(self, make: Make) -> None:
        self.make = make
        if make is not InMemoryConversationRepository:

            def reopen(made: Any) -> ConversationRepository:
                return make()

            self.reopen = reopen


@pytest.fixture
def repository(make: Make) -> Iterator[ConversationRepository]:
    made = make()
    run_sync(made.initialize())
    yield made
    run_sync(made.cleanup())


def cause(error: pytest.ExceptionInfo[StorageError]) -> Any:
    assert error.value.hint, "every error says what to do"
    return error.value.facts["cause"]


MANY = int(os.environ.get("DIPEO_MESSAGES", "10000"))
"""Messages of one conversation, whole thousands; 100,000 take a minute."""


@pytest.mark.slow
def test_many_messages(repository: ConversationRepository):
    """Every one of many thousand messages has an id of its own and keeps its place."""
    count = MANY

    async def go() -> None:
        for start in range(0, count, 1000):
            await asyncio.gather(*(repository.add_message(message(f"{n}"), "run") for n in range(start, start + 1000)))
        assert await repository.get_message_count("run") == count
        kept = await repository.get_messages("run")
        assert len({m.id for m in kept}) == count
        assert {int(m.content) for m in kept} == set(range(count))
        # Those of one batch were added at once and may come in any order; the batches may not.
        assert [int(m.content) // 1000 for m in kept] == [n // 1000 for n in range(count)]

    run_sync(go())


WRITER = """
import asyncio, sys
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.storage.conversation import SqliteConversationRepository
from dipeo_nb.storage.redis import RedisConversationRepository

async def main():
    kind, place, prefix, own = sys.argv[1:]
    repository = (
        SqliteConversationRepository(place) if kind == "sqlite" else RedisConversationRepository(place, prefix=prefix)
    )
    for n in range(200):
        kept = Message("", own, "bob", f"{own} {n}", MessageType.PERSON_TO_PERSON, float(n))
        await repository.add_message(kept, "run")
    await repository.cleanup()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_two_processes_write_and_a_third_reads(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    """Messages of two processes at once all arrive, each one's in its order, and are there for another process later."""
    place = str(tmp_path / "c.db") if kind == "sqlite" else request.getfixturevalue("redis_server")
    prefix = uuid.uuid4().hex
    command = [sys.executable, "-c", WRITER, kind, place, prefix]
    writers = [subprocess.Popen([*command, own], cwd=ROOT) for own in ("ann", "cyd")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    durable = SqliteConversationRepository(place) if kind == "sqlite" else RedisConversationRepository(place, prefix=prefix)
    kept = run_sync(durable.get_messages("run"))
    run_sync(durable.cleanup())
    assert len(kept) == 400
    for own in ("ann", "cyd"):
        assert said([m for m in kept if m.from_person_id == own]) == [f"{own} {n}" for n in range(200)]


def test_a_file_of_something_else_is_left_alone(tmp_path: Path):
    """Neither text nor another application's database is written to."""
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("These are my notes.\n" * 100)
    import sqlite3

    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for file, expected in ((text, "corrupt"), (other, "refused")):
        before = file.read_bytes()
        with pytest.raises(StorageError) as error:
            run_sync(SqliteConversationRepository(file).initialize())
        assert cause(error) == expected
        assert str(file) in str(error.value)
        assert file.read_bytes() == before


def test_a_busy_file_does_not_block_the_loop(tmp_path: Path):
    """While another process writes, the loop goes on and the message waits."""
    import sqlite3

    async def go() -> None:
        repository = SqliteConversationRepository(tmp_path / "c.db")
        await repository.initialize()
        other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.create_task(repository.add_message(message("x"), "run"))
        turns, begin = 0, time.monotonic()
        while time.monotonic() - begin < 0.3 or turns < 3:  # the loop itself ends the other's transaction
            await asyncio.sleep(0.005)
            turns += 1
            assert not adding.done(), "it did not wait, or held the loop until it gave up"
        other.execute("COMMIT")
        other.close()
        await adding
        await repository.cleanup()

    run_sync(go())


def test_a_redis_that_is_not_there(tmp_path: Path):
    """A server that cannot be reached is `unavailable`; the password in the URL is shown nowhere."""
    repository = RedisConversationRepository("redis://user:canary-secret@127.0.0.1:1/0")
    with pytest.raises(StorageError) as error:
        run_sync(repository.initialize())
    run_sync(repository.cleanup())
    assert cause(error) == "unavailable"
    assert "127.0.0.1:1" in str(error.value)
    assert "canary-secret" not in f"{error.value} {error.value.facts} {repository!r}"


def test_a_wrong_password_of_redis(redis_server: str):
    """A refused login is `permission`."""
    repository = RedisConversationRepository(redis_server.replace("redis://", "redis://nobody:canary-secret@"))
    with pytest.raises(StorageError) as error:
        run_sync(repository.initialize())
    run_sync(repository.cleanup())
    assert cause(error) == "permission"
    assert "canary-secret" not in str(error.value)
