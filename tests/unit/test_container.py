"""The composition root: services from settings, replaced in tests, opened once, closed without a trace."""

from __future__ import annotations

import asyncio
import gc
import pickle
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from dipeo_nb import errors
from dipeo_nb.config import Settings, get_settings, reset_settings
from dipeo_nb.container import build
from dipeo_nb.domain import ports
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, Message
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.domain.ports import Artifact, Services
from dipeo_nb.errors import ConfigurationError, DipeoError, StorageError
from dipeo_nb.events.in_memory import InMemoryEventBus
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Runtime
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.conversation import InMemoryConversationRepository, InMemoryPersonRepository
from dipeo_nb.storage.in_memory import InMemoryFileSystem
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.redis import RedisConversationRepository
from dipeo_nb.testing import scripted
from tests.support.wire_openai import run

PORTS = {
    "llm": ports.LLMServicePort,
    "files": ports.FileSystemPort,
    "db": ports.DBOperationsPort,
    "store": ports.RunStore,
    "bus": ports.EventBus,
    "blobs": ports.BlobStorePort,
    "artifacts": ports.ArtifactStorePort,
    "conversations": ports.ConversationRepository,
    "persons": ports.PersonRepository,
    "keys": ports.APIKeyPort,
    "templates": ports.TemplateProcessorPort,
    "http": ports.HTTPPort,
    "integrations": ports.IntegrationPort,
    "typescript": ports.ASTParserPort,
    "ir": ports.IRBuilderPort,
}
DIAGRAM = {
    "version": "light",
    "persons": {"Ada": {"service": "openai", "model": "m"}},
    "nodes": [
        {"label": "Start", "type": "start"},
        {"label": "Code", "type": "code_job", "props": {"code": "return {'n': 1}"}},
        {"label": "Say", "type": "person_job", "props": {"person": "Ada", "default_prompt": "hi"}},
        {"label": "Save", "type": "db", "props": {"operation": "append", "file": "out/x.json"}},
        {"label": "End", "type": "endpoint"},
    ],
    "connections": [
        {"from": "Start", "to": "Code"},
        {"from": "Code", "to": "Say"},
        {"from": "Say", "to": "Save"},
        {"from": "Save", "to": "End"},
    ],
}


def test_every_service_is_built_and_keeps_its_port():
    """The default container has all services, each of its port."""
    services = build()
    assert {f.name for f in fields(Services)} == {*PORTS, "code", "clock"}
    for name, port in PORTS.items():
        assert isinstance(getattr(services, name), port), name


def test_any_service_can_be_replaced():
    """By name, for tests; a name that is none is refused with the choices."""
    llm, store = scripted(), InMemoryRunStore()
    services = build(llm=llm, store=store)
    assert services.llm is llm
    assert services.store is store
    with pytest.raises(TypeError, match=r"no service lmm; it has .*llm"):
        build(lmm=llm)


def test_settings_choose_the_stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_server: str):
    """DIPEO_BLOB_STORE and DIPEO_CONVERSATION_STORE name folder, memory or server, and what is kept is kept there."""

    def built(blobs: str, conversations: str) -> Services:
        monkeypatch.setenv("DIPEO_BLOB_STORE", blobs)
        monkeypatch.setenv("DIPEO_CONVERSATION_STORE", conversations)
        reset_settings()
        return build()

    async def go() -> None:
        services = built(str(tmp_path / "elsewhere"), "talk.db")
        await services.blobs.put("a/b", b"x")
        await services.conversations.get_messages("run1")
        base = Path(get_settings().base_dir)
        assert any(p.is_file() for p in (tmp_path / "elsewhere").rglob("*"))
        assert (base / "talk.db").exists()
        services = built("memory:", "memory:")
        assert isinstance(services.blobs, InMemoryBlobAdapter)
        assert isinstance(services.conversations, InMemoryConversationRepository)
        services = built("memory:", redis_server)
        await services.conversations.add_message(Message("m1", "ada", "bob", "hi", MessageType.PERSON_TO_PERSON, 0.0), "run1")
        other = RedisConversationRepository(redis_server)
        assert [m.content for m in await other.get_messages("run1")] == ["hi"]
        for repository in (services.conversations, other):
            await repository.cleanup()

    asyncio.run(go())


class Counted(InMemoryRunStore):
    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.opened = self.closed = 0

    async def initialize(self) -> None:
        self.opened += 1
        await asyncio.sleep(0.01)
        await super().initialize()

    async def cleanup(self) -> None:
        self.closed += 1
        await super().cleanup()


class BadBus(InMemoryEventBus):
    fails = True

    async def initialize(self) -> None:
        if self.fails:
            raise StorageError("The bus is not there.", operation="initialize")
        await super().initialize()


def test_initialising_happens_once_however_many_ask():
    """Ten tasks at once open the store once; cleaning up twice closes it once, and it can be opened again."""

    async def go() -> None:
        store = Counted()
        runtime = Runtime(store=store)
        await asyncio.gather(*(runtime.initialize() for _ in range(10)))
        assert store.opened == 1
        await runtime.cleanup()
        await runtime.cleanup()
        assert store.closed == 1
        async with runtime:
            assert store.opened == 2

    run(go())


def test_a_failure_leaves_nothing_half_open():
    """When the bus cannot be opened the store is closed again; the next try is a whole one."""

    async def go() -> None:
        store, bus = Counted(), BadBus()
        runtime = Runtime(store=store, bus=bus)
        with pytest.raises(StorageError, match="bus is not there"):
            await runtime.initialize()
        assert (store.opened, store.closed) == (1, 1)
        bus.fails = False
        await runtime.initialize()
        assert store.opened == 2
        await runtime.cleanup()

    run(go())


def test_services_close_in_reverse_order():
    """What was opened last is closed first; the models, which use the others, before all."""
    order: list[str] = []

    class Store(Counted):
        async def cleanup(self) -> None:
            order.append("store")
            await super().cleanup()

    class Bus(InMemoryEventBus):
        async def cleanup(self) -> None:
            order.append("bus")
            await super().cleanup()

    async def go() -> None:
        llm = scripted()
        closing = llm.cleanup

        async def noted() -> None:
            order.append("llm")
            await closing()

        llm.cleanup = noted  # type: ignore[method-assign]
        async with Runtime(store=Store(), bus=Bus(), llm=llm):
            pass

    run(go())
    assert order == ["llm", "bus", "store"]


def test_nothing_is_left_behind(tmp_path: Path):
    """After a run with a database, a code worker and files: no open file, socket, task or process more than before."""
    me = psutil.Process()

    def open_things() -> tuple[set[str], int, int]:
        files = {f.path for f in me.open_files() if str(tmp_path) in f.path}
        return files, len(me.net_connections()), len(me.children(recursive=True))

    async def go() -> int:
        runtime = Runtime(get_settings(), llm=scripted("hello"))
        async with runtime:
            for _ in range(3):
                execution = runtime.execution(runtime.prepare(DIAGRAM))
                await runtime.run(execution)
                assert execution.state.status == "completed", execution.state.error
        return len([t for t in asyncio.all_tasks() if t is not asyncio.current_task()])

    before = open_things()
    # The test's own loop is closed by then, so what it holds for itself does not count.
    assert run(go()) <= 1
    gc.collect()
    assert open_things() == before
    assert (tmp_path / "out/x.json").exists()


# The error tree.


def tree(cls: type[DipeoError]) -> list[type[DipeoError]]:
    return [cls, *(e for sub in cls.__subclasses__() if sub.__module__.startswith("dipeo_nb") for e in tree(sub))]


ERRORS: list[Any] = list(dict.fromkeys(tree(DipeoError)))


@pytest.mark.parametrize("cls", ERRORS, ids=lambda c: c.__name__)
def test_errors_cross_processes(cls: type[DipeoError]):
    """Every error can be pickled with its message, its next action and its facts; its code is its own and documented."""
    error = cls("It failed.", hint="Do this.", operation="read", path="x", status=500)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), again.hint, again.facts) == ("It failed. Do this.", "Do this.", error.facts)
    assert again.operation == "read"
    assert cls.__doc__


def test_codes_are_unique():
    """A code names one kind of error."""
    codes = [cls.code for cls in ERRORS]
    assert sorted(codes) == sorted(set(codes))
    assert errors.StorageError.code == "storage_error"


# Services that were given.


class Noted:
    """Notes its opening and closing, perhaps failing."""

    def __init__(self, name: str, log: list[str], *, open_fails: bool = False, close_fails: bool = False) -> None:
        self.name, self.log, self.open_fails, self.close_fails = name, log, open_fails, close_fails

    async def initialize(self) -> None:
        self.log.append(f"+{self.name}")
        if self.open_fails:
            raise StorageError(f"No {self.name}.")

    async def cleanup(self) -> None:
        self.log.append(f"-{self.name}")
        if self.close_fails:
            raise StorageError(f"Cannot close {self.name}.")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **options: None  # every method of every port


class Plain(Noted):
    """Its lifecycle is not async."""

    def initialize(self) -> None:  # type: ignore[override]
        self.log.append(f"+{self.name}")

    def cleanup(self) -> None:  # type: ignore[override]
        self.log.append(f"-{self.name}")


class Empty(InMemoryBlobAdapter):
    """False as a condition, as long as nothing is in it."""

    def __len__(self) -> int:
        return 0


ALL = ["bus", "keys", "files", "db", "http", "blobs", "artifacts", "conversations", "persons", "integrations", "llm"]


def noted(log: list[str], **kinds: Any) -> dict[str, Any]:
    options = {"open_fails": kinds.pop("open_fails", ()), "close_fails": kinds.pop("close_fails", ())}
    return {name: Noted(name, log, **{o: name in names for o, names in options.items()}) for name in ALL}


def test_every_service_that_is_given_is_opened_and_closed_once_in_order():
    """What others need first; in reverse at the end; again when it is used again; plain methods too."""
    log: list[str] = []
    services = noted(log) | {"http": Plain("http", log), "store": InMemoryRunStore()}

    async def go() -> None:
        runtime = Runtime(**services)
        for _ in range(2):
            log.clear()
            await asyncio.gather(runtime.initialize(), runtime.initialize())
            assert log == [f"+{name}" for name in ALL]
            await runtime.cleanup()
            await runtime.cleanup()
            assert log == [f"+{name}" for name in ALL] + [f"-{name}" for name in reversed(ALL)]

    run(go())


def test_blobs_below_artifacts_are_opened_once():
    """The artifact store opens and closes its blob store; an object that is two services is one to open."""
    log: list[str] = []

    async def go() -> None:
        async with Runtime(blobs=Noted("blobs", log)):
            assert log == ["+blobs"]
        assert log == ["+blobs", "-blobs"]
        log.clear()
        both = Noted("both", log)
        async with Runtime(conversations=both, persons=both):
            assert log == ["+both"]
        assert log == ["+both", "-both"]

    run(go())


@pytest.mark.parametrize("failing", ALL)
def test_a_service_that_cannot_be_opened_closes_those_before_it(failing: str):
    """In reverse order, all of them, also when closing fails; the first error is the one that is raised."""
    log: list[str] = []
    before = ALL[: ALL.index(failing)]

    async def go() -> None:
        runtime = Runtime(store=InMemoryRunStore(), **noted(log, open_fails=[failing], close_fails=before))
        with pytest.raises(StorageError, match=f"No {failing}") as caught:
            await runtime.initialize()
        assert log == [f"+{name}" for name in before] + [f"+{failing}"] + [f"-{name}" for name in reversed(before)]
        assert len(getattr(caught.value, "__notes__", [])) == len(before)
        assert not runtime.is_initialized

    run(go())


@pytest.mark.parametrize("failing", [["persons"], ["llm", "blobs"], ALL])
def test_all_are_closed_even_when_some_fail(tmp_path: Path, failing: list[str]):
    """The first error is raised, the others are its notes; nothing of ours stays open."""
    log: list[str] = []

    async def go() -> None:
        runtime = Runtime(get_settings(), **noted(log, close_fails=failing))
        await runtime.initialize()
        first, *others = (name for name in reversed(ALL) if name in failing)
        with pytest.raises(StorageError, match=f"Cannot close {first}") as caught:
            await runtime.cleanup()
        assert [name for name in reversed(ALL) if f"-{name}" in log] == list(reversed(ALL))
        assert len(getattr(caught.value, "__notes__", [])) == len(others)
        assert not [f for f in psutil.Process().open_files() if str(tmp_path) in f.path]

    run(go())


def test_a_service_that_is_false_is_still_given():
    """An adapter with a length of 0 replaces the default one; None means the default one."""
    empty = Empty()
    assert build(blobs=empty).blobs is empty
    assert build(blobs=None).blobs is not None


def test_a_service_that_lacks_methods_of_its_port_is_refused():
    """Where it is handed over, with the list; a class instead of an instance, too."""

    class Half:
        async def put(self, key: str, data: bytes) -> str:
            return ""

    for make in (lambda: build(blobs=Half()), lambda: Runtime(services=replace(build(), blobs=Half()))):  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"Half is not a BlobStorePort.*delete, exists, get, list, presign_url"):
            make()
    blobs: Any = InMemoryBlobAdapter()
    blobs.presign_url = None
    with pytest.raises(ConfigurationError, match=r"InMemoryBlobAdapter is not a BlobStorePort: it lacks presign_url\."):
        build(blobs=blobs)
    with pytest.raises(ConfigurationError, match=r"blobs= is a class.*blobs=InMemoryBlobAdapter"):
        build(blobs=InMemoryBlobAdapter)


def test_a_replay_leaves_the_services_it_borrows_open():
    """They belong to the runtime whose run is replayed."""
    log: list[str] = []

    async def go() -> None:
        async with Runtime(llm=scripted("hello"), blobs=Noted("blobs", log)) as runtime:
            execution = runtime.execution(runtime.prepare(DIAGRAM))
            await runtime.run(execution)
            other, _ = await runtime.replay(execution.run_id, speed=1000)
            async with other:
                pass
            assert log == ["+blobs"]

    run(go())


# Ports.

PROTOCOLS = [p for p in vars(ports).values() if isinstance(p, type) and getattr(p, "_is_protocol", False) and p is not Protocol]
DEFAULTS = {
    "initialize",
    "cleanup",
    "holding",
    "publish",
    "versions",
    "answers",
    "drop_answer",
    "put_answer",
    "beat",
    "compact",
    "condense",
    "prepare",
    "scan",
    "attach_snapshot",
    "snapshot",
    "put_snapshot",
}
"""Methods that a port has a body for, where it is not abstract."""


@pytest.mark.parametrize("port", PROTOCOLS, ids=lambda p: p.__name__)
def test_a_port_cannot_be_inherited_in_part(port: Any):
    """A class that lacks one method cannot be instantiated; a class that lacks several is told all of them."""
    public = {name for name in vars(port) if not name.startswith("_")}
    assert public - port.__abstractmethods__ <= DEFAULTS
    whole = {name: lambda self: None for name in port.__abstractmethods__}
    type("Whole", (port,), whole)()
    for name in whole:
        with pytest.raises(TypeError, match=rf"abstract.*{name}"):
            type("Half", (port,), {n: m for n, m in whole.items() if n != name})()
    with pytest.raises(TypeError) as caught:
        type("Nothing", (port,), {})()
    assert all(name in str(caught.value) for name in whole)


def test_what_a_port_does_by_itself():
    """Opening and closing do nothing; versions of a store without them are refused."""

    class Store(InMemoryBlobAdapter, ports.BlobStorePort):
        initialize = ports.BlobStorePort.initialize
        cleanup = ports.BlobStorePort.cleanup
        versions = ports.BlobStorePort.versions

    async def go() -> None:
        store = Store()
        await store.initialize()
        with pytest.raises(StorageError) as caught:
            await store.versions("k")
        assert caught.value.facts["cause"] == "unsupported"
        await store.cleanup()

    run(go())


# Services that are used before anything has run.


class Connecting:
    """Stands before an adapter of ours, as one of somebody else's that works between `initialize` and `cleanup` only."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self.calls: list[str] = []

    @property
    def connection(self) -> Any:
        if self.calls.count("initialize") == self.calls.count("cleanup"):
            raise RuntimeError("not connected")
        return self._adapter

    async def initialize(self) -> None:
        self.calls.append("initialize")

    async def cleanup(self) -> None:
        self.calls.append("cleanup")


class OwnBlobs(Connecting):
    async def put(self, key: str, data: Any, metadata: Any = None, *, create_only: bool = False) -> str:
        return await self.connection.put(key, data, metadata, create_only=create_only)

    async def get(self, key: str, version: str | None = None) -> Any:
        return await self.connection.get(key, version)

    async def exists(self, key: str, version: str | None = None) -> bool:
        return await self.connection.exists(key, version)

    async def delete(self, key: str, version: str | None = None) -> None:
        await self.connection.delete(key, version)

    async def list(self, prefix: str = "", limit: int = 1000) -> AsyncIterator[str]:
        async for key in self.connection.list(prefix, limit):
            yield key

    async def versions(self, key: str) -> Any:
        return await self.connection.versions(key)

    async def presign_url(self, key: str, operation: str = "GET", expires_in: int = 3600) -> str:
        return await self.connection.presign_url(key, operation, expires_in)


class AnyMethod(Connecting):
    """Every method of the adapter, as a plain function that gives its coroutine."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._adapter, name)

        def later(*args: Any, **options: Any) -> Any:
            async def work() -> Any:
                assert self.connection is not None
                return await method(*args, **options)

            return work()

        return later


async def _listed(services: Services) -> list[str]:
    return [key async for key in services.blobs.list()]


FIRST_USES: dict[str, tuple[str, Callable[[], Any], Callable[[Services], Awaitable[Any]]]] = {
    "blobs": ("blobs", lambda: OwnBlobs(InMemoryBlobAdapter()), lambda s: s.blobs.put("k", b"1")),
    "a list of blobs": ("blobs", lambda: OwnBlobs(InMemoryBlobAdapter()), _listed),
    "artifacts over blobs": (
        "blobs", lambda: OwnBlobs(InMemoryBlobAdapter()), lambda s: s.artifacts.push(Artifact("m", uuid.uuid4().hex, b"1")),
    ),
    "artifacts": (
        "artifacts", lambda: AnyMethod(ArtifactStoreAdapter(InMemoryBlobAdapter())), lambda s: s.artifacts.list_versions("m"),
    ),
    "conversations": (
        "conversations", lambda: AnyMethod(InMemoryConversationRepository()), lambda s: s.conversations.get_messages(),
    ),
    "persons": ("persons", lambda: AnyMethod(InMemoryPersonRepository()), lambda s: s.persons.get_all()),
    "run store": ("store", lambda: AnyMethod(InMemoryRunStore()), lambda s: s.store.runs()),
    "db": (
        "db", lambda: AnyMethod(DBOperationsDomainService(InMemoryFileSystem())),
        lambda s: s.db.execute_operation("q", "append", 1),
    ),
    "llm": ("llm", lambda: AnyMethod(build().llm), lambda s: s.llm.complete(LLMRequest("echo", "m", [ChatMessage("user", "x")]))),
    "keys": ("keys", lambda: AnyMethod(build().keys), lambda s: s.keys.list_api_keys()),
}  # fmt: skip
"""What is used -> (the service that is given, makes it, uses it)."""


@pytest.mark.parametrize(("name", "make", "use"), FIRST_USES.values(), ids=FIRST_USES)
def test_a_service_is_opened_when_it_is_first_used(
    tmp_path: Path, name: str, make: Callable[[], Any], use: Callable[[Services], Awaitable[Any]]
):
    """Before the first run, by several at once, and again after the runtime was closed; once each time."""
    adapter = make()
    runtime = Runtime(Settings(base_dir=tmp_path), **{name: adapter})
    shown = getattr(runtime.services, name)
    assert isinstance(shown, type(adapter))
    assert repr(shown) == repr(adapter)

    async def go() -> None:
        await asyncio.gather(*(use(runtime.services) for _ in range(5)))
        assert adapter.calls == ["initialize"]
        await use(runtime.services)
        await runtime.cleanup()
        assert adapter.calls == ["initialize", "cleanup"]
        await use(runtime.services)
        await runtime.cleanup()
        assert adapter.calls == ["initialize", "cleanup"] * 2

    asyncio.run(go())


def test_a_service_that_cannot_be_opened_says_so_when_it_is_used(tmp_path: Path):
    """Its own error, each time; nothing was done, and nothing stays open."""

    class Refusing(OwnBlobs):
        async def initialize(self) -> None:
            raise StorageError("The server is not there.", operation="initialize")

    adapter = Refusing(InMemoryBlobAdapter())
    runtime = Runtime(Settings(base_dir=tmp_path), blobs=adapter)

    async def go() -> None:
        for _ in range(2):
            with pytest.raises(StorageError, match="not there"):
                await runtime.services.blobs.put("k", b"1")
            with pytest.raises(StorageError, match="not there"):
                await _listed(runtime.services)
        await runtime.cleanup()

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a coroutine that nobody waits for
        asyncio.run(go())
        gc.collect()
    assert adapter.calls == []
