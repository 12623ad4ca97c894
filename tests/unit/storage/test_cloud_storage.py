"""What is particular to S3: its URLs, credentials and errors, streams in bounded memory; and which store a URL names."""

from __future__ import annotations

import asyncio
import pickle
import re
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import ConfigurationError, MissingDependencyError, StorageError
from dipeo_nb.storage import cloud
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.cloud import S3Adapter, blob_store
from dipeo_nb.storage.local import LocalBlobAdapter
from tests.support.servers import S3Server
from tests.support.wire_openai import run

CANARY = "test-secret-canary"


def failure(work: Any) -> StorageError:
    with pytest.raises(StorageError) as caught:
        run(work)
    error = caught.value
    assert error.hint, "every error says what to do"
    assert CANARY not in f"{error} {error.facts} {error.__cause__!r}"
    assert pickle.loads(pickle.dumps(error)).facts == error.facts
    return error


def cause(work: Any) -> Any:
    return failure(work).facts["cause"]


async def pieces(count: int, size: int = 1_000_000) -> AsyncIterator[bytes]:
    for n in range(count):
        yield bytes([n % 256]) * size


# Against the real server.


def test_versions_have_the_stores_own_ids(s3_server: S3Server):
    """What put returns is the VersionId that other tools see."""
    store = s3_server.adapter()

    async def go() -> None:
        version = await store.put("a/b", b"x", {"k": "v"})
        path = store.url.removeprefix(f"s3://{s3_server.versioned}/") + "/a/b"
        head = s3_server.boto.head_object(Bucket=s3_server.versioned, Key=path, VersionId=version)
        assert head["VersionId"] == version
        assert head["Metadata"] == {"k": "v"}
        large = await store.put("a/b", pieces(9), {"k": "w"})
        assert [v.version for v in await store.versions("a/b")] == [large, version]
        await store.delete("a/b")
        listed = s3_server.boto.list_object_versions(Bucket=s3_server.versioned, Prefix=path)
        assert not listed.get("Versions")
        assert not listed.get("DeleteMarkers")
        await store.cleanup()

    run(go())


def test_what_others_hid_is_not_there(s3_server: S3Server):
    """A delete marker of another tool hides the key; its versions can still be read."""
    store = s3_server.adapter()

    async def go() -> None:
        version = await store.put("k", b"x")
        path = store.url.removeprefix(f"s3://{s3_server.versioned}/") + "/k"
        s3_server.boto.delete_object(Bucket=s3_server.versioned, Key=path)
        assert not await store.exists("k")
        assert [key async for key in store.list()] == []
        assert [(v.version, v.current) for v in await store.versions("k")] == [(version, False)]
        with await store.get("k", version) as file:
            assert file.read() == b"x"
        await store.cleanup()

    run(go())


def test_a_bucket_without_versioning(s3_server: S3Server):
    """There is one version, called `null` as S3 calls it; an older one is not there."""
    store = s3_server.adapter(versioning=False)

    async def go() -> None:
        assert await store.put("k", b"1") == "null"
        assert await store.put("k", b"22") == "null"
        assert [(v.version, v.size, v.current) for v in await store.versions("k")] == [("null", 2, True)]
        with await store.get("k", "null") as file:
            assert file.read() == b"22"
        assert not await store.exists("k", "0" * 32)
        await store.delete("k", "null")
        assert not await store.exists("k")
        await store.put("k", b"1")
        await store.delete("k")
        assert await store.versions("k") == []
        await store.cleanup()

    run(go())


def http(method: str, url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data=body, method=method), timeout=10) as answer:
        return answer.read()


def test_presigned_urls(s3_server: S3Server):
    """A URL works for its operation, without credentials, until it expires; it does not work for another operation."""
    store = s3_server.adapter()

    async def go() -> None:
        key = "a b/ü#?%41.txt"
        http("PUT", await store.presign_url(key, "PUT"), b"sent")
        got = await store.presign_url(key)
        assert http("GET", got) == b"sent"
        assert CANARY not in got
        assert http("HEAD", await store.presign_url(key, "HEAD")) == b""
        with pytest.raises(urllib.error.HTTPError, match="403"):
            http("PUT", got, b"other")
        short = await store.presign_url(key, expires_in=1)
        await asyncio.sleep(2.1)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            http("GET", short)
        http("DELETE", await store.presign_url(key, "delete"))
        assert not await store.exists(key)
        await store.cleanup()

    run(go())
    for more in ({"operation": "POST"}, {"expires_in": 0}, {"expires_in": 604_801}):
        assert cause(store.presign_url("k", **more)) == "unsupported"


def test_what_is_forbidden(s3_server: S3Server):
    """A key that may only read, a wrong secret and an unknown key are `permission`, also where `exists` would guess."""
    reader = s3_server.adapter(access_key_id="reader", secret_access_key="reader-secret")
    wrong = s3_server.adapter(secret_access_key=CANARY + "-wrong")
    nobody = s3_server.adapter(access_key_id="nobody", secret_access_key=CANARY)
    assert run(reader.exists("k")) is False
    assert cause(reader.put("k", b"x")) == "permission"
    assert cause(reader.put("k", pieces(9))) == "permission"
    for store in (wrong, nobody):
        works = (
            store.initialize(), store.put("k", b"x"), store.get("k"), store.exists("k"), store.delete("k"),
            store.versions("k"),
        )  # fmt: skip
        for work in works:
            assert cause(work) == "permission"
        assert CANARY not in repr(store) + str(vars(store))
    for store in (reader, wrong, nobody):
        run(store.cleanup())


def test_a_bucket_that_is_not_there(s3_server: S3Server):
    """Says so, and not that the blob is missing."""
    store = S3Adapter("no-such-bucket", **s3_server.credentials())
    for work in (store.initialize(), store.get("k")):
        error = failure(work)
        assert error.facts["cause"] == "not_found"
        assert "NoSuchBucket" in str(error)
    run(store.cleanup())


def test_creating_large_blobs(s3_server: S3Server):
    """create_only holds for streams of many parts, too: the slower one loses at its end, and nothing unfinished stays."""
    store = s3_server.adapter()

    async def go() -> None:
        begun, faster = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            async for piece in pieces(20):
                if piece[0] == 15:
                    begun.set()  # past the first part, so past the look whether there is one already
                yield piece
            await faster.wait()

        slow = asyncio.create_task(store.put("k", slowly(), create_only=True))
        await begun.wait()
        await store.put("k", pieces(20), create_only=True)
        faster.set()
        for late in (slow, store.put("k", pieces(20), create_only=True)):
            with pytest.raises(StorageError) as error:
                await late
            assert error.value.facts["cause"] == "exists"
        with await store.get("k") as file:
            assert file.read() == b"".join([bytes([n]) * 1_000_000 for n in range(20)])
        assert len(await store.versions("k")) == 1

        async def breaks() -> AsyncIterator[bytes]:
            async for piece in pieces(20):
                yield piece
            raise RuntimeError("source")

        for create_only in (False, True):
            with pytest.raises(RuntimeError, match="source"):
                await store.put("other", breaks(), create_only=create_only)
        assert not await store.exists("other")
        assert not s3_server.boto.list_multipart_uploads(Bucket=s3_server.versioned).get("Uploads")
        await store.cleanup()

    run(go())


def test_the_loop_stays_free(s3_server: S3Server):
    """While 50 MB go up and come down, a task that wants to run every 5 ms does so about as often as a thread that wants the same."""
    store = s3_server.adapter()
    over = threading.Event()

    def turns_of_a_thread() -> int:
        turns = 0
        while not over.wait(0.005):
            turns += 1
        return turns

    async def turns_of_a_task() -> int:
        turns = 0
        while not over.is_set():
            await asyncio.sleep(0.005)
            turns += 1
        return turns

    async def go() -> tuple[int, int]:
        await store.initialize()
        counting = asyncio.gather(turns_of_a_task(), asyncio.to_thread(turns_of_a_thread))
        await store.put("k", pieces(50))
        (await store.get("k")).close()
        await store.versions("k")
        over.set()
        task, thread = await counting
        await store.delete("k")
        await store.cleanup()
        return task, thread

    task, thread = run(go())
    assert task > thread / 4


def test_metadata_of_other_tools(s3_server: S3Server):
    """What another tool wrote is read as it is, also under the name that we use for what fits no header."""
    store = s3_server.adapter()

    async def go() -> None:
        root = store.url.removeprefix(f"s3://{s3_server.versioned}/")
        theirs = {"percent": "100%41", "dipeo": "their own", "a-b": "c d"}
        s3_server.boto.put_object(Bucket=s3_server.versioned, Key=f"{root}/k", Body=b"", Metadata=theirs)
        assert [v.metadata for v in await store.versions("k")] == [theirs]
        ours = {"dipeo": "ours", "a-b": "c d", "Upper": ""}
        await store.put("k", b"", ours)
        assert (await store.versions("k"))[0].metadata == ours
        await store.cleanup()

    run(go())


def test_listing_by_a_prefix_within_a_name(s3_server: S3Server):
    """Only what begins with the text is asked for; consoles' folder placeholders are no blobs."""
    store = s3_server.adapter()

    async def go() -> None:
        for name in ("models/a", "models/ab", "models/b", "modest"):
            await store.put(name, b"")
        root = store.url.removeprefix(f"s3://{s3_server.versioned}/")
        s3_server.boto.put_object(Bucket=s3_server.versioned, Key=f"{root}/models/", Body=b"")
        assert [key async for key in store.list("mode")] == ["models/a", "models/ab", "models/b", "modest"]
        assert [key async for key in store.list("models/a", 1)] == ["models/a"]
        await store.cleanup()

    run(go())


# Against servers that fail.


class Flaky(BaseHTTPRequestHandler):
    """Answers from a script: (status, body, bytes to send before the connection breaks) in turn, the last one again and again."""

    protocol_version = "HTTP/1.1"
    script: list[tuple[int, bytes, int | None]]
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.command, self.headers.get("Range")))
        if length := int(self.headers.get("Content-Length") or 0):
            self.rfile.read(length)
        status, body, cut = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if wanted := re.match(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start, total = int(wanted.group(1)), len(body)
            status, body = 206, body[start:]
        self.send_response(status)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"tag"')
        self.send_header("Last-Modified", "Tue, 24 Nov 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.connection.shutdown(2)

    do_PUT = do_DELETE = do_GET

    def log_message(self, *arguments: Any) -> None:
        """Silent."""


@pytest.fixture
def flaky() -> Iterator[Callable[..., tuple[S3Adapter, list[tuple[str, str | None]]]]]:
    servers: list[ThreadingHTTPServer] = []

    def start(*script: tuple[int, bytes, int | None]) -> tuple[S3Adapter, list[tuple[str, str | None]]]:
        handler = type("Scripted", (Flaky,), {"script": list(script), "seen": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        return S3Adapter("b", endpoint_url=url, access_key_id="k", secret_access_key=CANARY), handler.seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


SLOW_DOWN = (503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>", None)


def test_an_overloaded_server_is_asked_again(flaky: Any):
    """A 503 is repeated; when it does not end, the error is `unavailable` and says what the server said."""
    store, seen = flaky(SLOW_DOWN, SLOW_DOWN, (200, b"", None))
    run(store.put("k", b"x"))
    assert len(seen) == 3
    store, seen = flaky(SLOW_DOWN)
    error = failure(store.put("k", b"x"))
    assert error.facts["cause"] == "unavailable"
    assert "SlowDown" in str(error)
    assert len(seen) == cloud.ATTEMPTS
    store, seen = flaky(SLOW_DOWN)
    assert cause(store.delete("k")) == "unavailable"
    assert len(seen) == cloud.ATTEMPTS, "one layer repeats, not two"
    store, seen = flaky(SLOW_DOWN)
    assert cause(store.put("k", b"x", create_only=True)) == "unavailable"
    assert len(seen) == 1, "a creation whose answer was lost cannot be told from another's"


def test_a_broken_download_goes_on_where_it_broke(flaky: Any):
    """When the connection breaks in the middle, only the rest is asked for."""
    body = bytes(range(256)) * 20_000
    store, seen = flaky((200, body, 3_000_000), (200, body, None))
    with run(store.get("k")) as file:
        assert file.read() == body
    assert [method for method, _ in seen] == ["GET", "GET"]
    assert seen[1][1] is not None
    assert seen[1][1].startswith("bytes=")
    assert seen[1][1] != "bytes=0-"


def test_what_is_wrong_is_not_repeated(flaky: Any):
    """A 400 is asked once."""
    store, seen = flaky((400, b"<Error><Code>InvalidArgument</Code><Message>No.</Message></Error>", None))
    error = failure(store.put("k", b"x"))
    assert error.facts["cause"] == "failed"
    assert "InvalidArgument No." in str(error)
    assert len(seen) == 1


def test_a_server_that_is_not_there():
    """Nobody at that port is `unavailable` for every operation."""
    store = S3Adapter("b", endpoint_url="http://127.0.0.1:1", access_key_id="k", secret_access_key=CANARY)
    for work in (store.put("k", b"x"), store.get("k"), store.exists("k"), store.versions("k"), store.delete("k")):
        assert cause(work) == "unavailable"
    run(store.cleanup())


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """When none are found anywhere, the error says how to give them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    error = failure(S3Adapter("b", endpoint_url="http://127.0.0.1:1").initialize())
    assert error.facts["cause"] == "permission"
    assert "AWS_ACCESS_KEY_ID" in str(error)


def test_credentials_of_the_environment(monkeypatch: pytest.MonkeyPatch, s3_server: S3Server):
    """Key and endpoint are found where AWS tools look for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_access_key)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    store = blob_store(f"s3://{s3_server.versioned}/from/environment")

    async def go() -> None:
        await store.initialize()
        await store.put("k", b"x")
        assert [key async for key in store.list()] == ["k"]
        await store.delete("k")
        await store.cleanup()

    run(go())


# URLs.


def test_a_url_names_a_store(tmp_path: Path):
    """Paths are folders, `memory:` is this process, the others are buckets."""
    assert isinstance(blob_store(tmp_path), LocalBlobAdapter)
    assert isinstance(blob_store("relative/folder"), LocalBlobAdapter)
    assert isinstance(blob_store("memory:"), InMemoryBlobAdapter)
    by_url = blob_store((tmp_path / "ü b").as_uri())
    run(by_url.put("k", b"x"))
    assert (tmp_path / "ü b" / "objects").is_dir()
    for url in ("s3://bucket/a/b", "gs://bucket", "az://container/x"):
        store = blob_store(url)
        assert isinstance(store, S3Adapter)
        assert store.url == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/x", "ftp"),
        ("s3://", "bucket"),
        ("s3:///key", "bucket"),
        ("s3://key:secret@bucket", "must not hold keys"),
        ("s3://bucket?colour=red", "colour"),
        ("gs://bucket?endpoint_url=x", "endpoint_url"),
    ],
)
def test_urls_that_name_nothing(url: str, said: str):
    """One error that says what is wrong, before anything is opened."""
    with pytest.raises(ConfigurationError, match=said) as error:
        blob_store(url)
    assert error.value.hint
    assert "secret" not in str(error.value)


def test_half_a_key_is_refused():
    """A key id without its secret is a mistake."""
    with pytest.raises(ConfigurationError, match="two parts"):
        S3Adapter("b", access_key_id="k")


def test_stores_without_versions(monkeypatch: pytest.MonkeyPatch):
    """Google's and Azure's versions cannot be listed or deleted, and it is said."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    store = blob_store("az://container")
    assert cause(store.versions("k")) == "unsupported"
    assert cause(store.delete("k", "1")) == "unsupported"
    assert "sig=" in run(store.presign_url("k"))


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    """Without obstore the error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(MissingDependencyError, match=r"dipeo-nb\[s3\]"):
        run(S3Adapter("b", access_key_id="k", secret_access_key="s").initialize())
