"""What every blob store promises."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from dipeo_nb.domain.ports import BlobStorePort
from dipeo_nb.errors import StorageError
from dipeo_nb.testing.contracts.promises import Contract, NotHereError, named, promise, refusal, same, that

BAD_KEYS = (
    "", " ", "/", "/etc/passwd", "../x", "a/../../x", "a/..", "..", ".", "./x", "a//b", "a/", "a/./b", "~/x", "~root/x",
    "C:\\x", "C:/x", "\\\\host\\share", "//host/share", "a\\..\\x", "x\0y", "x\ny", "x\ry", "x\x1by", "con", "a/NUL", "lpt1.txt",
    "aux.tar.gz", "x.", "x ", "a./b", "n" * 256, "/".join(["d" * 200] * 25), "a\u202eb", "a\u200bb", "\ufeffx", "a/\u2066b",
    "/proc/self/environ", "/dev/null", "....//....//x", "..%2f..%2fx/..", "x/../x",
)  # fmt: skip
"""Keys that leave a store, or that no file could have on one of the systems people use."""

LONG_KEYS = (
    "日本語の長い名前" * 4 + "日本語", "é" * 120, "MODEL_" * 40, "/".join(["😀" * 60] * 3), "/".join(["d"] * 400),
    "x" * 240,  # some servers add to it
)  # fmt: skip
"""Keys that need more room than they have letters."""
NOT_TEXT: tuple[Any, ...] = (
    {"a": 1}, {"a": None}, {"a": object()}, {"a": b"x"}, {1: "x"}, {"a": "\ud800"}, {"\ud800": "x"},
)  # fmt: skip


class BlobStoreContract(Contract):
    """The promises of `BlobStorePort`."""

    port: ClassVar[type] = BlobStorePort
    limit: int | None = None
    """Bytes: the largest blob that the store of `make` takes. None: that it has a limit is not checked."""

    @promise
    async def test_versions_are_kept(self, store: BlobStorePort) -> None:
        """Each distinct content is a version; the last one put is current; each can be read and deleted by itself."""
        contents = b"1", b"22", b"333"
        one, two, three = [await store.put("a/b", data, {"n": str(n)}) for n, data in enumerate(contents)]
        other = await store.put("a_b", b"1")
        same(len({one, two, three}), 3, "different versions of three contents")
        same(
            [(v.version, v.size, v.current, v.metadata) for v in await store.versions("a/b")],
            [(three, 3, True, {"n": "2"}), (two, 2, False, {"n": "1"}), (one, 1, False, {"n": "0"})],
            "(version, size, current, metadata) of versions(), newest first",
        )
        same(await content(store, "a/b"), b"333", "the current content")
        same(await content(store, "a/b", one), b"1", "the content of the first of three versions")
        that(await store.exists("a/b", two), "exists() is False for a version that is there")
        await store.delete("a/b", three)
        same(await content(store, "a/b"), b"22", "the current content after the newest version was deleted")
        that(not await store.exists("a/b", three), "exists() is True for a deleted version")
        again = await store.put("a/b", b"1")
        same((await store.versions("a/b"))[0].version, again, "the newest version, after an old content was put again")
        same(await keys(store), ["a/b", "a_b"], "the keys")
        await store.delete("a/b")
        same(await keys(store), ["a_b"], "the keys after one was deleted")
        same(list(await store.versions("a/b")), [], "versions() of a deleted key")
        same(await content(store, "a_b", other), b"1", "the content of the other key")

    @promise
    async def test_keys_do_not_meet(self, store: BlobStorePort) -> None:
        """A key may be the beginning of another, end like a file of the store's own, or differ in case only."""
        names = ["x", "x/y", "x@", "x@/y", "x.data", "x.json", "current", "X", "x y", "ü/ñ", "y.json", "y.txt", "y.meta", "%40"]  # fmt: skip
        for name in names:
            await store.put(name, name.encode(), {"name": name.encode().hex()})
        same(await keys(store), sorted(names), "the keys")
        for name in names:
            same(await content(store, name), name.encode(), f"the content of {name!r}")
            metadata = (await store.versions(name))[0].metadata
            same(metadata, {"name": name.encode().hex()}, f"the metadata of {name!r}")
        await store.delete("x")
        same(await keys(store), sorted(set(names) - {"x"}), "the keys after 'x' was deleted")

    @promise
    async def test_keys_are_as_long_as_names_of_files(self, store: BlobStorePort) -> None:
        """More than 200 bytes a part, hundreds of parts, every script; they are listed, and keep apart from their neighbours."""
        for key in LONG_KEYS:
            parent, _, last = key.rpartition("/")
            other = f"{parent}/{last[:-1]}-".lstrip("/")
            for name in (key, other):
                await store.put(name, name.encode())
            same(await content(store, key), key.encode(), "the content of a long key")
            same(await keys(store), sorted([key, other]), "the keys")
            same(await keys(store, f"{parent}/".lstrip("/")), sorted([key, other]), "the keys with that parent")
            same([v.key for v in await store.versions(key)], [key], "the keys of its versions")
            await store.delete(key)
            same(await keys(store), [other], "the keys after one of two was deleted")
            await store.delete(other)

    @promise
    async def test_metadata_is_text(self, store: BlobStorePort) -> None:
        """Names and values; anything else is refused before anything is stored."""
        for metadata in NOT_TEXT:
            with refusal(f"a put with the metadata {metadata!a:.80}", cause="not_text"):
                await store.put("k", b"x", metadata)
            same(await keys(store), [], "the keys after a put that was refused")

    @promise
    async def test_listing_is_by_prefix_in_order_and_limited(self, store: BlobStorePort) -> None:
        """A prefix is a beginning of the text, not a folder; the order is that of the text."""
        names = ["a/x.txt", "a/x/1", "a/y", "a-b", "ab", "b", *(f"n/{i:04}" for i in range(30))]
        for name in random.Random(1).sample(names, len(names)):
            await store.put(name, b"")
        same(await keys(store, "a/x"), ["a/x.txt", "a/x/1"], "keys that begin with 'a/x'")
        same(await keys(store, "a"), ["a-b", "a/x.txt", "a/x/1", "a/y", "ab"], "keys that begin with 'a'")
        same(await keys(store, "n/", 5), [f"n/{i:04}" for i in range(5)], "the first five keys that begin with 'n/'")
        same(await keys(store, "n/", 0), [], "no keys, when none are asked for")
        same(await keys(store, "nothing/"), [], "keys that begin with 'nothing/'")
        same(await keys(store, "../"), [], "keys that begin with '../'")

    @promise
    async def test_streams_are_taken_and_given(self, store: BlobStorePort) -> None:
        """Files and async iterators are read to their end and not closed; what comes back is a file that can be sought."""

        async def parts() -> AsyncIterator[bytes]:
            for n in range(5):
                await asyncio.sleep(0)
                yield bytes([n]) * 100_000

        file = io.BytesIO(b"abc" * 100_000)
        await store.put("file", file)
        that(not file.closed, "put() closes the file it was given")
        await store.put("parts", parts())
        that(await content(store, "file") == b"abc" * 100_000, "a file that was put is not read back as it was")
        with await store.get("parts") as got:
            got.seek(100_000)
            same(got.read(1), b"\x01", "the byte at 100,000 of an async iterator that was put")
        await store.put("nothing", b"")
        same(await content(store, "nothing"), b"", "an empty content")

    @promise
    async def test_metadata_is_any_text(self, store: BlobStorePort) -> None:
        """Names and values come back as they were, whatever is in them; a version has its own."""
        metadata = {"plain": "a b  c ", "Upper": "Grüße 🙂", "under_score": "100 %41\n", " %": "", "ü": "'\"<&\t\\"}
        old = await store.put("k", b"1", metadata)
        await store.put("k", b"2" * 2_000_000, {"other": "x"})
        found = {v.version == old: v.metadata for v in await store.versions("k")}
        same(found.get(True), metadata, "the metadata of the first version")
        same(found.get(False), {"other": "x"}, "the metadata of the second version")

    @promise
    async def test_only_the_first_may_create(self, store: BlobStorePort) -> None:
        """create_only lets exactly one of many writers through."""
        puts = (store.put("k", f"{n}".encode(), create_only=True) for n in range(5))
        results = await asyncio.gather(*puts, return_exceptions=True)
        errors = [r for r in results if isinstance(r, BaseException)]
        same(len(errors), 4, "how many of five writers with create_only are refused")
        for error in errors:
            with refusal("creating what is there", cause="exists"):
                raise error

    @promise
    async def test_what_is_missing_is_an_error_of_its_own(self, store: BlobStorePort) -> None:
        """Reading what is not there is `not_found`; deleting it is nothing."""
        await store.delete("nothing")
        await store.delete("nothing", "0" * 32)
        that(not await store.exists("nothing"), "exists() is True for a key that was never put")
        with refusal("reading a key that is not there", cause="not_found"):
            await store.get("nothing")
        await store.put("k", b"x")
        for version in ("0" * 32, "../../../etc/passwd", ""):
            with refusal(f"reading version {version!r} of a key that has another", cause="not_found"):
                await store.get("k", version)

    @promise
    async def test_too_much_is_refused_and_leaves_no_trace(self, store: BlobStorePort) -> None:
        """Over the limit nothing is stored, and the old content stays."""
        if self.limit is None:
            raise NotHereError("no limit is given")
        await store.put("k", b"old")
        with refusal("putting a byte more than the limit", cause="too_large"):
            await store.put("k", b"x" * (self.limit + 1))
        same(await content(store, "k"), b"old", "the content after a put that was refused")
        same(len(await store.versions("k")), 1, "the number of versions after a put that was refused")

    @promise
    async def test_a_failing_source_leaves_no_trace(self, store: BlobStorePort) -> None:
        """A stream that breaks in the middle stores nothing, and its own error comes through."""

        async def breaks() -> AsyncIterator[bytes]:
            yield b"half"
            raise _SourceError("the source breaks")

        try:
            await store.put("k", breaks())
        except _SourceError:
            pass  # promised
        else:
            that(False, "putting a stream that breaks raises nothing; promised is the error of the stream")
        that(not await store.exists("k"), "half of a stream that broke is stored")

    @promise(cases=named(BAD_KEYS))
    async def test_bad_keys_are_refused_everywhere(self, store: BlobStorePort, key: str) -> None:
        """No operation takes a key that leaves the store or that no file could have."""
        shown = ascii(key)[:60]
        for name, data in {"put": (b"x",), "get": (), "exists": (), "delete": (), "versions": ()}.items():
            with refusal(f"{name}() with the key {shown}", cause="refused"):
                await getattr(store, name)(key, *data)
        same(await keys(store), [], f"the keys after {shown} was refused")

    @promise
    async def test_writers_at_the_same_time(self, store: BlobStorePort) -> None:
        """Twenty writers of one key: the current content is whole and one of theirs; all versions are there."""
        contents = [bytes([n]) * 10_000 for n in range(20)]
        await asyncio.gather(*(store.put("k", c) for c in contents))
        that(await content(store, "k") in contents, "after twenty puts at once the content is none of the twenty")
        same(len(await store.versions("k")), 20, "the number of versions after twenty puts at once")
        await asyncio.gather(*(store.delete("k") for _ in range(5)), *(store.put("d/e", c) for c in contents))
        same(await keys(store), ["d/e"], "the keys after deleting one and putting another at once")

    @promise
    async def test_urls_are_honest(self, store: BlobStorePort) -> None:
        """presign_url gives a URL, or says that there are none."""
        await store.put("k", b"x")
        try:
            url = await store.presign_url("k")
        except StorageError as error:
            with refusal("asking a store without URLs for one", cause="unsupported"):
                raise error
        else:
            that("://" in url, f"presign_url() gives {url!r}, which is not a URL")

    @promise
    async def test_what_was_put_outlives_the_object(self, store: BlobStorePort) -> None:
        """A store that is opened again has the contents, their versions and metadata."""
        old = await store.put("k", b"old", {"a": "b"})
        new = await store.put("k", b"new")
        async with self.opened(lambda: self.reopen(store)) as again:
            same([v.version for v in await again.versions("k")], [new, old], "the versions after a restart")
            same(await content(again, "k"), b"new", "the content after a restart")
            same((await again.versions("k"))[1].metadata, {"a": "b"}, "the metadata after a restart")


class _SourceError(Exception):
    pass


async def content(store: BlobStorePort, key: str, version: str | None = None) -> bytes:
    """What is stored, whole."""
    with await store.get(key, version) as file:
        return file.read()


async def keys(store: BlobStorePort, prefix: str = "", limit: int = 1000) -> list[str]:
    """What `list` lists."""
    return [key async for key in store.list(prefix, limit)]
