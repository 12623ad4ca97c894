"""The contract of artifact stores (`dipeo_nb.testing.contracts.artifacts`) over every blob store; what is ours alone below it."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from dipeo_nb.domain.ports import Artifact, ArtifactRef, BlobStorePort
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.local import LocalBlobAdapter
from dipeo_nb.testing.contracts import ArtifactStoreContract
from tests.support.wire_openai import run

ROOT = Path(__file__).parents[2]
BLOBS = "memory", "local", "s3", "s3-unversioned"


@pytest.fixture(params=BLOBS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], BlobStorePort]:
    """Opens the same blob store each time."""
    match request.param:
        case "memory":
            kept = InMemoryBlobAdapter()
            return lambda: kept
        case "local":
            return lambda: LocalBlobAdapter(tmp_path / "blobs")
        case kind:
            server, prefix = request.getfixturevalue("s3_server"), f"test/{uuid.uuid4().hex}"
            return lambda: server.adapter(prefix=prefix, versioning=kind == "s3")


class TestArtifactStores(ArtifactStoreContract):
    @pytest.fixture(autouse=True)
    def adapter(self, place: Callable[[], BlobStorePort]) -> None:
        self.make = lambda: ArtifactStoreAdapter(place())

        def reopen(made: Any) -> ArtifactStoreAdapter:
            return ArtifactStoreAdapter(place())

        self.reopen = reopen


@pytest.fixture
def blobs(place: Callable[[], BlobStorePort]) -> BlobStorePort:
    return place()


@pytest.fixture
def store(blobs: BlobStorePort) -> ArtifactStoreAdapter:
    return ArtifactStoreAdapter(blobs)


async def data_keys(blobs: BlobStorePort) -> list[str]:
    return [key async for key in blobs.list("artifacts/data/")]


def test_content_that_is_replaced_is_removed(store: ArtifactStoreAdapter, blobs: BlobStorePort):
    """A version that is pushed again leaves no old content behind, a push that fails no new one."""

    async def breaks() -> Any:
        yield b"half"
        raise RuntimeError("source")

    async def go() -> None:
        for version in ("1", "2", "1"):
            await store.push(Artifact("m", version, version.encode()))
        assert len(await data_keys(blobs)) == 2
        with pytest.raises(RuntimeError, match="source"):
            await store.push(Artifact("m", "1", breaks()))
        assert len(await data_keys(blobs)) == 2
        await store.cleanup()

    run(go())


@pytest.mark.parametrize("there", [False, True], ids=["new", "replaced"])
def test_pushes_at_once_leave_no_orphans(
    request: pytest.FixtureRequest, store: ArtifactStoreAdapter, blobs: BlobStorePort, there: bool
):
    """Whoever wins, there is one content, one record and no tag of a push that failed."""
    if there and "unversioned" in request.node.name:
        pytest.skip("not here: a store without versions does not tell which contents were replaced")

    async def go() -> None:
        if there:
            await store.push(Artifact("m", "1", b"before"))
        pushed = [store.push(Artifact("m", "1", b"%d" % n, tags=(f"t{n}",))) for n in range(12)]
        done = await asyncio.gather(*pushed, return_exceptions=True)
        refs = [ref for ref in done if isinstance(ref, ArtifactRef)]
        assert len(refs) == (12 if there else 1)
        assert all(isinstance(d, (ArtifactRef, StorageError)) for d in done)
        (current,) = await store.list_versions("m")
        assert current in refs
        assert len(await data_keys(blobs)) == 1
        assert len(await blobs.versions("artifacts/versions/m/@/1")) == 1
        tags = [key async for key in blobs.list("artifacts/tags/")]
        assert len(tags) == len(refs)
        await store.cleanup()

    run(go())


PUSHER = """
import asyncio, sys
from dipeo_nb.domain.ports import Artifact
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.local import LocalBlobAdapter

folder, own = sys.argv[1:]

async def main():
    store = ArtifactStoreAdapter(LocalBlobAdapter(folder))
    made = []
    for n in range(20):
        try:
            await store.push(Artifact("m", str(n), own.encode()), create_only=True)
            made.append(n)
        except StorageError as error:
            assert error.facts["cause"] == "exists", error
    print(*made)

asyncio.run(main())
"""


def test_one_of_several_processes_makes_a_version(tmp_path: Path):
    """Each version has the content of the one process whose push succeeded, and nothing of the others is left."""
    command = [sys.executable, "-c", PUSHER, str(tmp_path)]
    pushers = {own: subprocess.Popen([*command, own], cwd=ROOT, stdout=subprocess.PIPE, text=True) for own in "abc"}
    made = {own: [int(n) for n in process.communicate(timeout=60)[0].split()] for own, process in pushers.items()}
    assert sorted(n for numbers in made.values() for n in numbers) == list(range(20))

    async def go() -> None:
        blobs = LocalBlobAdapter(tmp_path)
        store = ArtifactStoreAdapter(blobs)
        refs = {ref.version: ref for ref in await store.list_versions("m")}
        for own, numbers in made.items():
            for n in numbers:
                async with store.pulled(refs[str(n)]) as path:
                    assert path.read_text() == own
        assert len(await data_keys(blobs)) == 20
        await store.cleanup()

    run(go())


def test_a_blob_store_without_exclusive_creation(store: ArtifactStoreAdapter, blobs: BlobStorePort):
    """A store of an earlier version of the port, whose `put` does not know create_only, still keeps artifacts."""

    class Earlier:
        def __getattr__(self, name: str) -> Any:
            return getattr(blobs, name)

        async def put(self, key: str, data: Any, metadata: Any = None) -> str:
            return await blobs.put(key, data, metadata)

    async def go() -> None:
        earlier: Any = Earlier()
        older = ArtifactStoreAdapter(earlier)
        ref = await older.push(Artifact("m", "1", b"x", tags=("t",)))
        assert list(await older.find_by_tag("t")) == [ref]

    run(go())


def test_a_pull_for_a_block(store: ArtifactStoreAdapter):
    """`pulled` removes its file at the end of the block; cleanup leaves no folder of its own."""

    async def go() -> None:
        ref = await store.push(Artifact("a/model.bin", "1", b"x"))
        kept = await store.pull(ref)
        async with store.pulled(ref) as path:
            assert path.read_bytes() == b"x"
        assert not path.parent.exists()
        await store.cleanup()
        assert not [p for p in Path(tempfile.gettempdir()).glob("dipeo-artifacts-*") if p in kept.parents]

    run(go())


def cause(work: Any) -> Any:
    with pytest.raises(StorageError) as caught:
        run(work)
    assert caught.value.hint, "every error says what to do"
    return caught.value.facts.get("cause")


def test_damage_is_noticed(store: ArtifactStoreAdapter, blobs: BlobStorePort, tmp_path: Path):
    """Content that is not what was pushed, or is gone, is an error; no file is left."""

    async def damaged() -> None:
        ref = await store.push(Artifact("m", "1", b"right"))
        (key,) = await data_keys(blobs)
        await blobs.delete(key)
        with pytest.raises(StorageError) as lost:
            await store.pull(ref, tmp_path / "out")
        assert lost.value.facts["cause"] == "not_found"
        await blobs.put(key, b"wrong")
        await store.pull(ref, tmp_path / "out")

    assert cause(damaged()) == "corrupt"
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


TAGGER = """
import asyncio, sys
from dipeo_nb.domain.ports import ArtifactRef
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.local import LocalBlobAdapter

async def main():
    store = ArtifactStoreAdapter(LocalBlobAdapter(sys.argv[1]))
    [ref] = await store.list_versions("m")
    for n in range(50):
        await store.tag(ref, [f"{sys.argv[2]}{n}"])
        await store.promote(ref, "prod")

asyncio.run(main())
"""


def test_two_processes_tag_at_once(tmp_path: Path):
    """All tags of both are there afterwards."""
    store = ArtifactStoreAdapter(LocalBlobAdapter(tmp_path))
    ref = run(store.push(Artifact("m", "1", b"x")))
    taggers = [subprocess.Popen([sys.executable, "-c", TAGGER, str(tmp_path), own], cwd=ROOT) for own in "ab"]
    assert [tagger.wait(60) for tagger in taggers] == [0, 0]
    for tag in (f"{own}{n}" for own in "ab" for n in range(50)):
        assert run(store.find_by_tag(tag)) == [ref]


class SeedStore:
    """A blob store as the seed's sample writes one: bytes in, a file out, no options."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> str:
        self._blobs[key] = data
        return "1"

    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        if key not in self._blobs:
            raise StorageError(f"no {key}", cause="not_found")
        return io.BytesIO(self._blobs[key])

    async def exists(self, key: str) -> bool:
        return key in self._blobs

    async def delete(self, key: str) -> None:
        self._blobs.pop(key, None)


def test_a_store_as_the_seed_writes_it():
    """Push, tag, promote and pull ask of a blob store only what the seed's port has."""
    blobs: Any = SeedStore()
    store = ArtifactStoreAdapter(blobs)

    async def go() -> None:
        metadata: Mapping[str, Any] = {"a": 1}
        ref = await store.push(Artifact("m", "1", b"content", metadata, ("t",)))
        await store.promote(ref, "prod")
        assert await store.get_latest("m", "prod") == ref
        async with store.pulled(ref) as path:
            assert path.read_bytes() == b"content"

    run(go())
