"""The folder of the local blob store: what was stored by earlier versions, links, damage, and drafts of killed writers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import StorageError
from dipeo_nb.storage.local import DRAFT_LIFE_S, LocalBlobAdapter
from tests.support.wire_openai import run

SHA = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
"""Of b"x"."""


def stored(base: Path, folder: str, key: str) -> None:
    """A blob as it is on the disk."""
    place = base / "objects" / folder
    place.mkdir(parents=True)
    (place / f"{SHA[:32]}.data").write_bytes(b"x")
    facts = {"key": key, "size": 1, "sha256": SHA, "created": 1.0, "metadata": {"a": "b"}}
    (place / f"{SHA[:32]}.json").write_text(json.dumps(facts))
    (place / "current").write_text(SHA[:32])


async def content(store: LocalBlobAdapter, key: str) -> bytes:
    with await store.get(key) as file:
        return file.read()


OLD = {
    "a/b": "a/b@",
    "Model v1.bin": "%4Dodel v1.bin@",
    "x@/~y": "x%40/%7Ey@",
    "ü/50%": "%C3%BC/50%25@",
    "é" * 42: "%C3%A9" * 42 + "@",
    "/".join("d" * 150): "/".join("d" * 150) + "@",
}
"""Key → the folder that every version has put it into."""


def test_what_was_stored_is_found(tmp_path: Path):
    """The names of folders are a promise: read, listed, put again into, deleted."""
    for key, folder in OLD.items():
        stored(tmp_path, folder, key)

    async def go() -> None:
        store = LocalBlobAdapter(tmp_path)
        assert [key async for key in store.list()] == sorted(OLD)
        for key, folder in OLD.items():
            assert await content(store, key) == b"x"
            assert [v.metadata for v in await store.versions(key)] == [{"a": "b"}]
            await store.put(key, b"y")
            assert len(list((tmp_path / "objects" / folder).glob("*.data"))) == 2
            await store.delete(key)
        assert [key async for key in store.list()] == []

    run(go())


@pytest.mark.parametrize("place", ["objects", "objects/evil", "objects/x@", "drafts", "locks"])
def test_links_in_the_folder_lead_nowhere(tmp_path: Path, place: str):
    """A folder that came with somebody else's files: nothing is written or read where a link leads."""
    base, outside = tmp_path / "base", tmp_path / "outside"
    stored(tmp_path / "outside", "evil/x@", "evil/x")
    stored(tmp_path / "outside", "x@", "x")
    (base / place).parent.mkdir(parents=True)
    (base / place).symlink_to(outside if place in ("objects", "drafts", "locks") else outside / place)
    before = {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()}

    async def go() -> None:
        store = LocalBlobAdapter(base)
        refusals = 0
        for key in ("evil/x", "x", "evil"):
            for work in (
                store.put(key, b"y"),
                store.get(key),
                store.delete(key),
                store.versions(key),
                store.exists(key),
            ):
                try:
                    result: Any = await work
                except StorageError as error:
                    refusals += error.facts["cause"] == "refused"
                else:
                    if hasattr(result, "close"):
                        result.close()
        assert refusals
        if place == "objects":
            with pytest.raises(StorageError):
                assert [k async for k in store.list()]

    run(go())
    assert {p: p.read_bytes() for p in outside.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["current", f"{SHA[:32]}.data", f"{SHA[:32]}.json"])
def test_links_in_place_of_files_are_not_followed(tmp_path: Path, name: str):
    """What they name is not given out as a blob."""
    stored(tmp_path, "x@", "x")
    secret = tmp_path / "secret"
    secret.write_bytes((tmp_path / "objects/x@" / name).read_bytes())
    (tmp_path / "objects/x@" / name).unlink()
    (tmp_path / "objects/x@" / name).symlink_to(secret)

    async def go() -> None:
        store = LocalBlobAdapter(tmp_path)
        work = store.versions("x") if name.endswith(".json") else store.get("x")
        with pytest.raises(StorageError) as caught:
            await work
        assert caught.value.facts["cause"] == "refused"
        before = secret.read_bytes()
        await store.put("x", b"x")  # replaces the link
        assert await content(store, "x") == b"x"
        assert secret.read_bytes() == before

    run(go())


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"key": "x"}', b"\xff\xfe"])
def test_a_damaged_record_is_said(tmp_path: Path, record: bytes):
    """A typed error that names the file."""
    stored(tmp_path, "x@", "x")
    (tmp_path / f"objects/x@/{SHA[:32]}.json").write_bytes(record)

    async def go() -> None:
        store = LocalBlobAdapter(tmp_path)
        with pytest.raises(StorageError) as caught:
            await store.versions("x")
        assert caught.value.facts["cause"] == "corrupt"
        assert await content(store, "x") == b"x"
        (tmp_path / "objects/x@/current").write_bytes(b"\xff" * 99)
        with pytest.raises(StorageError) as caught:
            await store.get("x")
        assert caught.value.facts["cause"] == "not_found"

    run(go())


@pytest.mark.parametrize("way", ["initialize", "put"])
def test_drafts_of_killed_writers_go(tmp_path: Path, way: str):
    """After a day; a younger one may still be somebody's."""
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    for name, age in (("old", DRAFT_LIFE_S + 60), ("young", 60)):
        (drafts / name).write_bytes(b"x")
        os.utime(drafts / name, (time.time() - age,) * 2)
    store = LocalBlobAdapter(tmp_path)
    run(store.initialize() if way == "initialize" else store.put("k", b"x"))
    assert [p.name for p in drafts.iterdir()] == ["young"]


def test_a_cancelled_put_leaves_nothing(tmp_path: Path):
    """Neither a blob nor a draft, and no open file."""

    async def go() -> None:
        store = LocalBlobAdapter(tmp_path)
        begun = asyncio.Event()

        async def slow() -> Any:
            yield b"x"
            begun.set()
            await asyncio.sleep(60)

        task = asyncio.create_task(store.put("k", slow()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list((tmp_path / "drafts").iterdir()) == []
        assert not await store.exists("k")

    run(go())
