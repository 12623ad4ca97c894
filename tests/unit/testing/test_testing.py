"""`dipeo_nb.testing`: the suites we ship fail for adapters that break a promise, and say which one and how."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pydantic import SecretStr

import dipeo_nb as dp
from dipeo_nb.domain.chat import LLMRequest, Message, StreamEvent
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Artifact, ArtifactRef
from dipeo_nb.errors import ProviderError, StorageError, ValidationError
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.security.in_memory import InMemoryAPIKeyService
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.conversation import InMemoryConversationRepository, InMemoryPersonRepository
from dipeo_nb.storage.in_memory import InMemoryFileSystem
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.testing import Contract, Report, check
from dipeo_nb.testing.contracts import (
    APIKeyContract,
    ArtifactStoreContract,
    BlobStoreContract,
    BrokenPromiseError,
    ConversationRepositoryContract,
    DBOperationsContract,
    FileSystemContract,
    LLMClientContract,
    PersonRepositoryContract,
    RunStoreContract,
)
from dipeo_nb.testing.contracts.api_keys import CANARY

ROOT = Path(__file__).parents[3]

# Adapters with one fault each.


class LosesVersions(InMemoryBlobAdapter):
    async def put(self, key: str, data: Any, *more: Any, **options: Any) -> str:
        version = await super().put(key, data, *more, **options)
        self._blobs[key] = {version: self._blobs[key][version]}
        return version


class LosesOldOnWrongCreate(InMemoryBlobAdapter):
    async def put(self, key: str, data: Any, metadata: Any = None, *, create_only: bool = False) -> str:
        return await super().put(key, data, metadata)


class TakesDots(InMemoryBlobAdapter):
    async def put(self, key: str, data: Any, *more: Any, **options: Any) -> str:
        return await super().put(key.replace("..", "dots"), data, *more, **options)


class ForgetsMetadata(InMemoryBlobAdapter):
    async def put(self, key: str, data: Any, metadata: Any = None, **options: Any) -> str:
        return await super().put(key, data, None, **options)


class ListsFolders(InMemoryBlobAdapter):
    async def list(self, prefix: str = "", limit: int = 1000) -> AsyncIterator[str]:
        async for key in super().list(prefix.rstrip("/") + "/" if prefix else "", limit):
            yield key


class ClosesFiles(InMemoryBlobAdapter):
    async def put(self, key: str, data: Any, *more: Any, **options: Any) -> str:
        version = await super().put(key, data, *more, **options)
        if hasattr(data, "close"):
            data.close()
        return version


class KeepsHalves(InMemoryBlobAdapter):
    async def put(self, key: str, data: Any, *more: Any, **options: Any) -> str:
        if hasattr(data, "__aiter__"):
            content = b""
            try:
                async for piece in data:
                    content += piece
            finally:
                version = await super().put(key, content, *more, **options)
            return version
        return await super().put(key, data, *more, **options)


class RaisesKeyError(InMemoryBlobAdapter):
    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        if key not in self._blobs:
            raise KeyError(key)
        return await super().get(key, version)


class NoHints(InMemoryBlobAdapter):
    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        try:
            return await super().get(key, version)
        except StorageError as error:
            raise StorageError(error.message, **error.facts) from error


class NoLimit(InMemoryBlobAdapter):
    def __init__(self) -> None:
        super().__init__(None)


class ClosesOnce(InMemoryBlobAdapter):
    closed = False

    async def cleanup(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class Half:
    async def put(self, key: str, data: bytes) -> str:
        return "1"


BLOBS: list[tuple[Callable[[], Any], str, str]] = [
    (LosesVersions, "versions_are_kept", "newest first"),
    (LosesVersions, "writers_at_the_same_time", "got 1, promised is 20"),
    (LosesOldOnWrongCreate, "only_the_first_may_create", "got 0, promised is 4"),
    (TakesDots, "bad_keys_are_refused_everywhere", "raises nothing"),
    (ForgetsMetadata, "metadata_is_any_text", "got {}"),
    (ListsFolders, "listing_is_by_prefix_in_order_and_limited", "'a/x'"),
    (ClosesFiles, "streams_are_taken_and_given", "closes the file"),
    (KeepsHalves, "a_failing_source_leaves_no_trace", "half of a stream"),
    (RaisesKeyError, "what_is_missing_is_an_error_of_its_own", "raises KeyError: 'nothing'; promised is StorageError"),
    (NoHints, "what_is_missing_is_an_error_of_its_own", "does not say what to do"),
    (NoLimit, "too_much_is_refused_and_leaves_no_trace", "raises nothing"),
    (ClosesOnce, "urls_are_honest", "RuntimeError: closed already"),
    (Half, "it_is_the_port", "lacks get, exists, delete, list"),
]


@pytest.mark.parametrize(("make", "name", "says"), BLOBS, ids=[f"{m.__name__}-{n}" for m, n, _ in BLOBS])  # type: ignore[attr-defined]
def test_blob_stores_with_a_fault_are_found(make: Callable[[], Any], name: str, says: str):
    """The promise that is broken is, and its message says how."""
    report = check(BlobStoreContract, make, only=name, limit=1_000_000)
    (outcome,) = report.broken
    assert outcome.name == f"test_{name}"
    assert says in outcome.message
    assert not report


class ForgetsTags(ArtifactStoreAdapter):
    async def tag(self, ref: ArtifactRef, tags: Any) -> None: ...


class TrustsItsBlobs(ArtifactStoreAdapter):
    async def push(self, artifact: Artifact) -> ArtifactRef:
        return (await super().push(artifact))._replace(checksum="00")


class Shares(InMemoryConversationRepository):
    async def get_messages(self, execution_id: str | None = None, *, limit: int | None = None) -> list[Message]:
        return await super().get_messages(None, limit=limit)


class FirstOnes(InMemoryConversationRepository):
    async def get_messages(self, execution_id: str | None = None, *, limit: int | None = None) -> list[Message]:
        found = await super().get_messages(execution_id)
        return found if limit is None else found[:limit]


class TwiceTheSame(InMemoryConversationRepository):
    async def add_message(self, message: Message, execution_id: Any = None, node_id: Any = None) -> Message:
        try:
            return await super().add_message(message, execution_id, node_id)
        except StorageError:
            return message


class NobodyIsNone(InMemoryPersonRepository):
    async def get(self, person_id: str) -> Any:
        return await super().get(person_id) if await self.exists(person_id) else None


class Unconfined(InMemoryFileSystem):
    def exists(self, path: str | Path) -> bool:
        try:
            return super().exists(path)
        except StorageError:
            return False


class Truncates(InMemoryFileSystem):
    def write_bytes(self, path: str | Path, data: bytes) -> int:
        return super().write_bytes(path, data[:1000])


class EmptyWhenMissing(DBOperationsDomainService):
    def op_read(self, request: Any) -> Any:
        try:
            return super().op_read(request)
        except StorageError as error:
            if error.facts["cause"] != "not_found":
                raise
            return None, {}


class LosesAppends(DBOperationsDomainService):
    CHANGING = frozenset()

    def op_append(self, request: Any) -> Any:
        import time

        old = self._existing(request)
        time.sleep(0.01)
        items = old if isinstance(old, list) else []
        return request.value, self._save(request, [*items, request.value])


class Gaps(InMemoryRunStore):
    async def append(self, events: Any) -> None:
        try:
            await super().append(events)
        except StorageError as error:
            if "is due" not in str(error):
                raise
            self._gaps = True

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        return await super().events(run_id, after=after, limit=None)


class NoEnd(EchoClient):
    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        async for event in super().stream(request):
            if event.kind != "usage":
                yield event


class Mumbles(EchoClient):
    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        async for event in super().stream(request):
            yield StreamEvent("text", event.text.upper() + "?") if event.kind == "text" else event


class VendorError(EchoClient):
    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        raise OSError("429 from the vendor")
        yield


class OneForAll(EchoClient):
    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        raise ProviderError("it failed", hint="Try again.", provider="echo", status=500)
        yield


class Plain(InMemoryAPIKeyService):
    async def get_api_key(self, key_id: str) -> Any:
        return (await super().get_api_key(key_id)).get_secret_value()


class Shows(InMemoryAPIKeyService):
    async def list_api_keys(self) -> list[dict[str, Any]]:
        rows = await super().list_api_keys()
        return [{**row, "key": f"{CANARY[:9]}…"} for row in rows]


def keys(kind: type[InMemoryAPIKeyService]) -> Callable[[], InMemoryAPIKeyService]:
    return lambda: kind({"openai": CANARY})


OTHERS: list[tuple[type[Contract], Callable[[], Any], str, str, dict[str, Any]]] = [
    (ArtifactStoreContract, lambda: ForgetsTags(InMemoryBlobAdapter()), "tags", "'good'", {}),
    (ArtifactStoreContract, lambda: TrustsItsBlobs(InMemoryBlobAdapter()), "streams_are_pushed", "checksum", {}),
    (ConversationRepositoryContract, Shares, "executions_do_not_meet", "execution 'one'", {}),
    (ConversationRepositoryContract, FirstOnes, "a_limit_gives_the_last_ones", "the last 2 of 5", {}),
    (ConversationRepositoryContract, TwiceTheSame, "an_id_is_taken_once", "got 0, promised is 4", {}),
    (PersonRepositoryContract, NobodyIsNone, "a_missing_person_is_a_key_error", "gives None", {}),
    (FileSystemContract, Unconfined, "no_path_leads_out", "exists of the path '../x' raises nothing", {}),
    (FileSystemContract, Truncates, "size_limits", "raises nothing", {"limit": 2000}),
    (DBOperationsContract, lambda: EmptyWhenMissing(InMemoryFileSystem()), "what_is_missing_is_told", "nothing", {}),
    (DBOperationsContract, lambda: LosesAppends(InMemoryFileSystem()), "appends_at_the_same_time_all_arrive", "fifty", {}),
    (RunStoreContract, Gaps, "gaps_and_repeats_are_refused_whole", "raises nothing", {}),
    (RunStoreContract, Gaps, "reading_from_a_place_and_a_few", "three events", {}),
    (LLMClientContract, NoEnd, "a_stream_has_one_beginning_and_one_end", "the last two events", {}),
    (LLMClientContract, Mumbles, "a_stream_has_one_beginning_and_one_end", "pieces of text", {}),
    (LLMClientContract, EchoClient, "refusals_are_told_apart", "raises OSError", {"refused": lambda _: VendorError()}),
    (LLMClientContract, EchoClient, "refusals_are_told_apart", "3 of 4", {"refused": lambda _: OneForAll()}),
    (APIKeyContract, keys(Plain), "a_key_is_found_by_service_and_alias", "no SecretStr", {}),
    (APIKeyContract, keys(Shows), "lists_show_no_secret", "the list shows the key", {}),
]  # fmt: skip


@pytest.mark.parametrize(("contract", "make", "name", "says", "options"), OTHERS, ids=[f"{c[0].__name__}-{c[2]}" for c in OTHERS])  # fmt: skip
def test_adapters_of_every_port_with_a_fault_are_found(
    contract: type[Contract], make: Callable[[], Any], name: str, says: str, options: dict[str, Any]
):
    """Each suite finds what is wrong, in one message."""
    (outcome,) = check(contract, make, only=name, **options).broken
    assert says in outcome.message, outcome.message
    assert "\n" not in outcome.message


SOUND: dict[str, tuple[type[Contract], Callable[[], Any]]] = {
    "blobs": (BlobStoreContract, InMemoryBlobAdapter),
    "artifacts": (ArtifactStoreContract, lambda: ArtifactStoreAdapter(InMemoryBlobAdapter())),
    "conversations": (ConversationRepositoryContract, InMemoryConversationRepository),
    "persons": (PersonRepositoryContract, InMemoryPersonRepository),
    "files": (FileSystemContract, InMemoryFileSystem),
    "databases": (DBOperationsContract, lambda: DBOperationsDomainService(InMemoryFileSystem())),
    "runs": (RunStoreContract, InMemoryRunStore),
    "clients": (LLMClientContract, EchoClient),
    "keys": (APIKeyContract, keys(InMemoryAPIKeyService)),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_adapters_keep_every_promise(name: str):
    """No promise is broken; what cannot be checked says why."""
    report = check(*SOUND[name])
    assert report.ok, report
    assert report.kept
    assert all(outcome.message for outcome in report.not_here)
    assert report.require() is report


# The report.


def test_a_report_is_a_table():
    """As text and as HTML: what was checked, what is kept, what is broken and why; HTML of an adapter's is shown as text."""

    class Nasty(InMemoryBlobAdapter):
        async def versions(self, key: str) -> Any:
            raise RuntimeError("<script>boom</script>")

    report = dp.testing.check(BlobStoreContract, make=Nasty, only=["test_versions_are_kept", "urls_are_honest", "too_much_is_refused_and_leaves_no_trace"])  # fmt: skip
    assert isinstance(report, Report)
    assert [o.status for o in report] == ["broken", "not here", "kept"]
    first, *rows = repr(report).splitlines()
    assert first == "BlobStoreContract: 1 promises kept, 1 broken, 1 not here"
    assert rows[0].startswith("  ✗ versions are kept")
    assert "RuntimeError: <script>boom</script> (test_testing.py:" in rows[0]
    assert rows[1].endswith("no limit is given")
    assert rows[2] == "  ✓ urls are honest"
    page = report._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;boom" in page
    assert "gives a URL, or says that there are none" in page


def test_a_broken_report_raises():
    """`require` names every broken promise, one a line, and keeps the first cause."""
    with pytest.raises(BrokenPromiseError) as caught:
        check(BlobStoreContract, LosesVersions).require()
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("BlobStoreContract: ")
    assert lines[0].startswith("- versions are kept: ")
    assert isinstance(caught.value.__cause__, BrokenPromiseError)


def test_cases_are_counted():
    """A promise with cases is one row, which says in how many of them it is broken, and shows the first few."""
    (outcome,) = check(BlobStoreContract, TakesDots, only="bad_keys_are_refused_everywhere").broken
    assert outcome.message.startswith(f"in {len(outcome.errors)} of 42 cases: put() with the key '../x' raises nothing")
    assert outcome.message.endswith(f"and {len(outcome.errors) - 3} more")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limits": 3}, "no option limits.*limit, make, reopen, timeout"),
        ({"test_tags": 3}, "no option test_tags"),
        ({"only": ["tags"]}, "no promise test_tags.*test_versions_are_kept"),
    ],
)
def test_wrong_calls_are_refused(options: dict[str, Any], says: str):
    """Unknown options and promises are one clear error, with those there are."""
    with pytest.raises(ValidationError, match=says):
        check(BlobStoreContract, InMemoryBlobAdapter, **options)


def test_nothing_to_check():
    """A contract without an adapter says what to override."""
    assert "override make()" in check(BlobStoreContract, only="it_is_the_port").broken[0].message


def test_slow_adapters_are_given_up():
    """A promise that hangs is broken after the time limit, and the adapter is closed."""
    closed = []

    class Hangs(InMemoryBlobAdapter):
        async def exists(self, key: str, version: str | None = None) -> bool:
            await asyncio.Event().wait()
            return False

        async def cleanup(self) -> None:
            closed.append(1)

    (outcome,) = check(BlobStoreContract, Hangs, only="versions_are_kept", timeout=0.2).broken
    assert "longer than 0.2 seconds" in outcome.message
    assert closed == [1, 1]


def test_reopening():
    """`reopen` gets the adapter and gives another on the same content; one that lost it is found."""
    kept: dict[int, Any] = {}

    class Durable(InMemoryBlobAdapter):
        pass

    def again(old: Durable) -> Durable:
        new = Durable()
        new._blobs = old._blobs
        kept[id(new)] = new
        return new

    name = "what_was_put_outlives_the_object"
    assert check(BlobStoreContract, Durable, reopen=again, only=name).kept
    assert len(kept) == 1
    assert "after a restart" in check(BlobStoreContract, Durable, reopen=lambda _: Durable(), only=name).broken[0].message


def test_an_awaitable_adapter():
    """`make` may be a coroutine function; it runs on the library's loop."""

    async def make() -> InMemoryBlobAdapter:
        await asyncio.sleep(0)
        return InMemoryBlobAdapter()

    assert check(BlobStoreContract, make, only=["versions_are_kept", "it_is_the_port"]).ok


def test_pytest_is_not_needed():
    """The suites import and run without pytest, and bring no SDK along; `import dipeo_nb` does not load them."""
    code = """
import sys
sys.modules["pytest"] = None
import dipeo_nb as dp
assert "dipeo_nb.testing" not in sys.modules
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.testing.contracts import BlobStoreContract
report = dp.testing.check(BlobStoreContract, InMemoryBlobAdapter)
assert report.ok, report
print([m for m in ("openai", "anthropic", "google.genai", "ollama", "obstore", "redis", "boto3") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[]\n", "")


SUITE = """
import pytest
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.testing.contracts import BlobStoreContract

class TestMine(BlobStoreContract):
    def make(self):
        return InMemoryBlobAdapter()

class Forgetful(InMemoryBlobAdapter):
    async def versions(self, key):
        return (await super().versions(key))[:1]

class TestForgetful(BlobStoreContract):
    @pytest.fixture(autouse=True)
    def adapter(self, tmp_path):
        self.make = Forgetful
"""


def test_a_third_party_under_pytest(tmp_path: Path):
    """A subclass is a test class in anybody's project: one test a promise and case, skips that say why, short failures."""
    (tmp_path / "test_mine.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", "-rs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "there is no reopen()" in done.stdout
    assert "BrokenPromiseError: (version, size, current, metadata) of versions(), newest first: got [(" in done.stdout
    assert done.returncode == 1
    report = check(BlobStoreContract, InMemoryBlobAdapter)
    passed = len(report.kept) - 1 + 42
    assert f"{passed * 2 - 3} passed" in done.stdout.splitlines()[-1], done.stdout


def test_the_seeds_sample_is_half_a_port():
    """What the seed's four-method store lacks is named; it still serves the artifact store (tests/contracts)."""

    class Seed:
        async def put(self, key: str, data: bytes) -> str:
            return "1"

        async def get(self, key: str, version: str | None = None) -> BinaryIO:
            return io.BytesIO()

    assert "lacks exists, delete, list, versions, presign_url, initialize, cleanup" in repr(
        check(BlobStoreContract, Seed, only="it_is_the_port")
    )


def test_wrapped_keys_are_not_shown_by_the_suite():
    """A failing suite does not print the key it looked for."""

    class Other(InMemoryAPIKeyService):
        async def get_api_key(self, key_id: str) -> Any:
            return SecretStr("sk-of-somebody-else")

    report = check(APIKeyContract, lambda: Other({"openai": CANARY}))
    assert report.broken
    assert "sk-of-somebody" not in repr(report) + report._repr_html_()
    assert CANARY not in repr(report)
