"""What every conversation repository promises (`domain.ports.ConversationRepository`)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.domain.ports import ConversationRepository
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.conversation import InMemoryConversationRepository, SqliteConversationRepository
from dipeo_nb.storage.redis import RedisConversationRepository

ROOT = Path(__file__).parents[2]
Make = Callable[[], ConversationRepository]


def _redis(folder: Path, request: pytest.FixtureRequest) -> Make:
    url, prefix = request.getfixturevalue("redis_server"), uuid.uuid4().hex
    return lambda: RedisConversationRepository(url, prefix=prefix)


REPOSITORIES: dict[str, Callable[[Path, pytest.FixtureRequest], Make]] = {
    "memory": lambda *_: InMemoryConversationRepository,
    "sqlite": lambda folder, _: lambda: SqliteConversationRepository(folder / "deep" / "conversations.db"),
    "redis": _redis,
}


@pytest.fixture(params=REPOSITORIES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Opens the same repository each time, where it is durable."""
    return REPOSITORIES[request.param](tmp_path, request)


@pytest.fixture
def repository(make: Make) -> Iterator[ConversationRepository]:
    made = make()
    run_sync(made.initialize())
    yield made
    run_sync(made.cleanup())
    run_sync(made.cleanup())


def message(content: str, sender: str = "system", receiver: str = "ann", **more: Any) -> Message:
    facts: dict[str, Any] = {"id": "", "message_type": MessageType.PERSON_TO_PERSON, "timestamp": 1000.5, **more}
    return Message(from_person_id=sender, to_person_id=receiver, content=content, **facts)


def said(messages: list[Message]) -> list[str]:
    return [m.content for m in messages]


def cause(error: pytest.ExceptionInfo[StorageError]) -> Any:
    assert error.value.hint, "every error says what to do"
    return error.value.facts["cause"]


def test_it_is_the_port(repository: ConversationRepository):
    """Every method of the port is there."""
    assert isinstance(repository, ConversationRepository)


def test_messages_come_back_as_they_were_added(repository: ConversationRepository):
    """Everything of a message is kept, and the execution and node it belongs to are added."""

    async def go() -> None:
        given = message("Grüße\n🙂\0!", "ann", "bob", id="m1", node_id="n0", metadata={"a": [1, {"b": None}]})
        kept = await repository.add_message(given, "run", "n1")
        expected = {"a": [1, {"b": None}], "execution_id": "run", "node_id": "n1"}
        assert kept == message("Grüße\n🙂\0!", "ann", "bob", id="m1", node_id="n1", metadata=expected)
        assert await repository.get_messages("run") == [kept]
        assert (await repository.add_message(message("x", node_id="own"), "run")).metadata["node_id"] == "own"

    run_sync(go())


def test_executions_do_not_meet(repository: ConversationRepository):
    """An execution sees and clears its own messages only; without one, all are seen in the order in which they came."""

    async def go() -> None:
        for n in range(6):
            await repository.add_message(message(str(n), id=f"m{n // 3}"), ["one", "two", None][n % 3])
        assert said(await repository.get_messages("one")) == ["0", "3"]
        assert said(await repository.get_messages("two")) == ["1", "4"]
        assert said(await repository.get_messages("nobody")) == []
        assert said(await repository.get_global_conversation()) == ["0", "1", "2", "3", "4", "5"]
        assert [await repository.get_message_count(e) for e in ("one", "nobody", None)] == [2, 0, 6]
        latest = [await repository.get_latest_message(e) for e in ("one", None)]
        assert said([m for m in latest if m]) == ["3", "5"]
        assert await repository.get_latest_message("nobody") is None
        await repository.clear("one")
        assert said(await repository.get_messages()) == ["1", "2", "4", "5"]
        await repository.add_message(message("new", id="m0"), "one")
        await repository.clear()
        assert await repository.get_messages() == []
        assert await repository.get_messages("one") == []
        assert await repository.get_message_count() == 0
        await repository.add_message(message("anew", id="m0"), "one")
        assert said(await repository.get_messages()) == ["anew"]

    run_sync(go())


def test_a_limit_gives_the_last_ones(repository: ConversationRepository):
    """`limit` cuts at the beginning."""

    async def go() -> None:
        for n in range(5):
            await repository.add_message(message(str(n)), "run")
        assert said(await repository.get_messages("run", limit=2)) == ["3", "4"]
        assert said(await repository.get_messages("run", limit=9)) == ["0", "1", "2", "3", "4"]
        assert said(await repository.get_messages("run", limit=0)) == []

    run_sync(go())


def test_a_person_has_a_history(repository: ConversationRepository):
    """A person's history has its role in each message it sent or got, and no others."""

    async def go() -> None:
        await repository.add_message(message("rules", "system", "ann"), "run")
        await repository.add_message(message("hi", "ann", "bob", metadata={"k": 1}), "run")
        await repository.add_message(message("hello", "bob", "ann"), "run")
        await repository.add_message(message("aside", "bob", "cyd"), "run")
        await repository.add_message(message("elsewhere", "bob", "ann"), "other")
        told = await repository.get_conversation_history("ann", "run")
        assert [(m["role"], m["content"]) for m in told] == [
            ("system", "rules"),
            ("assistant", "hi"),
            ("user", "hello"),
        ]
        assert told[1] == {
            "role": "assistant", "content": "hi", "from_person_id": "ann", "to_person_id": "bob", "timestamp": 1000.5,
            "metadata": {"k": 1, "execution_id": "run"},
        }  # fmt: skip
        assert len(await repository.get_conversation_history("ann")) == 4

    run_sync(go())


def test_what_is_given_out_is_a_copy(repository: ConversationRepository):
    """Changing what came in or went out changes nothing that is kept."""

    async def go() -> None:
        metadata: dict[str, Any] = {"list": [1]}
        kept = await repository.add_message(message("x", metadata=metadata), "run")
        metadata["list"].append(2)
        changed: Any = kept.metadata
        changed["list"].append(3)
        got = await repository.get_messages("run")
        changed = got[0].metadata
        changed["list"].append(4)
        got.clear()
        (await repository.get_conversation_history("ann"))[0]["metadata"]["list"].append(5)
        assert [m.metadata["list"] for m in await repository.get_messages("run")] == [[1]]

    run_sync(go())


def test_an_id_is_taken_once(repository: ConversationRepository):
    """The same id twice in one execution is an error, also when many try at once; other executions may use it."""

    async def go() -> list[Any]:
        await repository.add_message(message("other", id="m1"), "other")
        await repository.add_message(message("none", id="m1"))
        await repository.add_message(message("empty", id="m1"), "")
        adding = (repository.add_message(message(str(n), id="m1"), "run") for n in range(5))
        return await asyncio.gather(*adding, return_exceptions=True)

    errors = [result for result in run_sync(go()) if isinstance(result, StorageError)]
    assert len(errors) == 4
    assert {error.facts["cause"] for error in errors} == {"exists"}
    assert len(run_sync(repository.get_messages("run"))) == 1


@pytest.mark.parametrize(
    "metadata", [{"x": object()}, {"x": float("nan")}, {"x": "\ud800"}], ids=["object", "nan", "text"]
)
def test_what_is_no_json_is_refused(repository: ConversationRepository, metadata: dict[str, Any]):
    """Metadata that could not be read back is an error before anything is kept."""
    with pytest.raises(StorageError) as error:
        run_sync(repository.add_message(message("x", metadata=metadata), "run"))
    assert cause(error) == "not_json"
    assert run_sync(repository.get_message_count()) == 0


@pytest.mark.slow
def test_100_000_messages(repository: ConversationRepository):
    """Every one of 100,000 messages has an id of its own and keeps its place."""
    count = 100_000

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
    durable = (
        SqliteConversationRepository(place) if kind == "sqlite" else RedisConversationRepository(place, prefix=prefix)
    )
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
        longest, begin = 0.0, time.monotonic()
        while time.monotonic() - begin < 0.3:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - before)
        assert not adding.done()
        other.execute("COMMIT")
        other.close()
        await adding
        await repository.cleanup()
        assert longest < 0.15

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
