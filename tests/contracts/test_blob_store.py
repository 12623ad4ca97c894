"""What every blob store promises (`domain.ports.BlobStorePort`)."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.ports import BlobStorePort
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.local import LocalBlobAdapter
from tests.llm_wire import run

LIMIT = 3_000_000
STORES: dict[str, Callable[[Path, pytest.FixtureRequest], BlobStorePort]] = {
    "memory": lambda folder, _: InMemoryBlobAdapter(max_size=LIMIT),
    "local": lambda folder, _: LocalBlobAdapter(folder / "blobs", max_size=LIMIT),
    "s3": lambda _, request: request.getfixturevalue("s3_server").adapter(max_size=LIMIT),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStorePort]:
    made = STORES[request.param](tmp_path, request)
    run(made.initialize())
    yield made
    run(made.cleanup())
    run(made.cleanup())


async def content(store: BlobStorePort, key: str, version: str | None = None) -> bytes:
    with await store.get(key, version) as file:
        return file.read()


async def keys(store: BlobStorePort, prefix: str = "", limit: int = 1000) -> list[str]:
    return [key async for key in store.list(prefix, limit)]


def cause(work: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(StorageError) as caught:
        run(work)
    assert caught.value.hint, "every error says what to do"
    return str(caught.value.facts.get("cause"))


def test_it_is_the_port(store: BlobStorePort):
    """Every method of the port is there."""
    assert isinstance(store, BlobStorePort)


def test_versions_are_kept(store: BlobStorePort):
    """Each distinct content is a version; the last one put is current; each can be read and deleted by itself."""

    async def go() -> None:
        one, two, three = [await store.put("a/b", data, {"n": str(n)}) for n, data in enumerate([b"1", b"22", b"333"])]
        other = await store.put("a_b", b"1")
        assert len({one, two, three}) == 3
        listed = await store.versions("a/b")
        assert [(v.version, v.size, v.current, v.metadata) for v in listed] == [
            (three, 3, True, {"n": "2"}),
            (two, 2, False, {"n": "1"}),
            (one, 1, False, {"n": "0"}),
        ]
        assert await content(store, "a/b") == b"333"
        assert await content(store, "a/b", one) == b"1"
        assert await store.exists("a/b", two)
        await store.delete("a/b", three)
        assert await content(store, "a/b") == b"22"
        assert not await store.exists("a/b", three)
        again = await store.put("a/b", b"1")
        assert next(v.version for v in await store.versions("a/b")) == again
        assert await keys(store) == ["a/b", "a_b"]
        await store.delete("a/b")
        assert await keys(store) == ["a_b"]
        assert await store.versions("a/b") == []
        assert await content(store, "a_b", other) == b"1"

    run(go())


def test_keys_do_not_meet(store: BlobStorePort):
    """A key may be the beginning of another, end like a file of the store's own, or differ in case only."""
    names = [
        "x",
        "x/y",
        "x@",
        "x@/y",
        "x.data",
        "x.json",
        "current",
        "X",
        "x y",
        "ü/ñ",
        "y.json",
        "y.txt",
        "y.meta",
        "%40",
    ]

    async def go() -> None:
        for name in names:
            await store.put(name, name.encode(), {"name": name.encode().hex()})
        assert await keys(store) == sorted(names)
        for name in names:
            assert await content(store, name) == name.encode()
            assert (await store.versions(name))[0].metadata == {"name": name.encode().hex()}
        await store.delete("x")
        assert await keys(store) == sorted(set(names) - {"x"})

    run(go())


def test_listing_is_by_prefix_in_order_and_limited(store: BlobStorePort):
    """A prefix is a beginning of the text, not a folder; the order is that of the text."""
    names = ["a/x.txt", "a/x/1", "a/y", "a-b", "ab", "b", *(f"n/{i:04}" for i in range(30))]

    async def go() -> None:
        for name in random.Random(1).sample(names, len(names)):
            await store.put(name, b"")
        assert await keys(store, "a/x") == ["a/x.txt", "a/x/1"]
        assert await keys(store, "a") == ["a-b", "a/x.txt", "a/x/1", "a/y", "ab"]
        assert await keys(store, "n/", 5) == [f"n/{i:04}" for i in range(5)]
        assert await keys(store, "nothing/") == []
        assert await keys(store, "../") == []

    run(go())


def test_streams_are_taken_and_given(store: BlobStorePort):
    """Files and async iterators are read to their end and not closed; what comes back is a file that can be sought."""

    async def parts() -> AsyncIterator[bytes]:
        for n in range(5):
            await asyncio.sleep(0)
            yield bytes([n]) * 100_000

    async def go() -> None:
        file = io.BytesIO(b"abc" * 100_000)
        await store.put("file", file)
        assert not file.closed
        await store.put("parts", parts())
        assert await content(store, "file") == b"abc" * 100_000
        with await store.get("parts") as got:
            got.seek(100_000)
            assert got.read(1) == b"\x01"
        await store.put("nothing", b"")
        assert await content(store, "nothing") == b""

    run(go())


def test_metadata_is_any_text(store: BlobStorePort):
    """Names and values come back as they were, whatever is in them; a version has its own."""
    metadata = {"plain": "a b  c ", "Upper": "Grüße 🙂", "under_score": "100 %41\n", " %": "", "ü": "'\"<&\t\\"}

    async def go() -> None:
        old = await store.put("k", b"1", metadata)
        await store.put("k", b"2" * 2_000_000, {"other": "x"})
        assert {v.version == old: v.metadata for v in await store.versions("k")} == {
            True: metadata,
            False: {"other": "x"},
        }

    run(go())


def test_only_the_first_may_create(store: BlobStorePort):
    """create_only lets exactly one of many writers through."""

    async def go() -> None:
        results = await asyncio.gather(
            *(store.put("k", f"{n}".encode(), create_only=True) for n in range(5)), return_exceptions=True
        )
        errors = [r for r in results if isinstance(r, StorageError)]
        assert len(errors) == 4
        assert {e.facts["cause"] for e in errors} == {"exists"}

    run(go())


def test_what_is_missing_is_an_error_of_its_own(store: BlobStorePort):
    """Reading what is not there is `not_found`; deleting it is nothing."""

    async def go() -> None:
        await store.delete("nothing")
        await store.delete("nothing", "0" * 32)
        assert not await store.exists("nothing")

    run(go())
    assert cause(store.get("nothing")) == "not_found"

    async def versionless() -> None:
        await store.put("k", b"x")
        await store.get("k", "../../../etc/passwd")

    assert cause(versionless()) == "not_found"


def test_too_much_is_refused_and_leaves_no_trace(store: BlobStorePort):
    """Over the limit nothing is stored, and the old content stays."""

    async def go() -> None:
        await store.put("k", b"old")
        await store.put("k", b"x" * (LIMIT + 1))

    assert cause(go()) == "too_large"
    assert run(content(store, "k")) == b"old"
    assert len(run(_versions(store, "k"))) == 1


async def _versions(store: BlobStorePort, key: str) -> Any:
    return await store.versions(key)


def test_a_failing_source_leaves_no_trace(store: BlobStorePort):
    """A stream that breaks in the middle stores nothing."""

    async def breaks() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("source")

    with pytest.raises(RuntimeError, match="source"):
        run(store.put("k", breaks()))
    assert not run(store.exists("k"))


ATTACKS = [
    "", " ", "/", "/etc/passwd", "../x", "a/../../x", "a/..", "..", ".", "./x", "a//b", "a/", "a/./b", "~/x", "~root/x",
    "C:\\x", "C:/x", "\\\\host\\share", "//host/share", "a\\..\\x", "x\0y", "x\ny", "x\ry", "x\x1by", "con", "a/NUL", "lpt1.txt",
    "aux.tar.gz", "x.", "x ", "a./b", "n" * 256, "/".join(["d" * 200] * 25), "a\u202eb", "a\u200bb", "\ufeffx", "a/\u2066b",
    "/proc/self/environ", "/dev/null", "....//....//x", "..%2f..%2fx/..", "x/../x",
]  # fmt: skip


@pytest.mark.parametrize("key", ATTACKS, ids=[ascii(a)[:30] for a in ATTACKS])
def test_bad_keys_are_refused_everywhere(store: BlobStorePort, key: str):
    """No operation takes a key that leaves the store or that no file could have."""
    for work in (store.put(key, b"x"), store.get(key), store.exists(key), store.delete(key), store.versions(key)):
        assert cause(work) == "refused"
    assert run(keys(store)) == []


def test_writers_at_the_same_time(store: BlobStorePort):
    """Twenty writers of one key: the current content is whole and one of theirs; all versions are there."""

    async def go() -> None:
        contents = [bytes([n]) * 10_000 for n in range(20)]
        await asyncio.gather(*(store.put("k", c) for c in contents))
        assert await content(store, "k") in contents
        assert len(await store.versions("k")) == 20
        await asyncio.gather(*(store.delete("k") for _ in range(5)), *(store.put("d/e", c) for c in contents))
        assert await keys(store) == ["d/e"]

    run(go())
