"""What every artifact store promises (`domain.ports.ArtifactStorePort`), over every blob store."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from dipeo_nb.domain.ports import Artifact, ArtifactRef, ArtifactStorePort, BlobStorePort
from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.local import LocalBlobAdapter
from tests.contracts.test_blob_store import ATTACKS
from tests.llm_wire import run

ROOT = Path(__file__).parents[2]


BLOBS: dict[str, Callable[[Path, pytest.FixtureRequest], BlobStorePort]] = {
    "memory": lambda folder, _: InMemoryBlobAdapter(),
    "local": lambda folder, _: LocalBlobAdapter(folder / "blobs"),
    "s3": lambda _, request: request.getfixturevalue("s3_server").adapter(),
    "s3-unversioned": lambda _, request: request.getfixturevalue("s3_server").adapter(versioning=False),
}


@pytest.fixture(params=BLOBS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStorePort:
    return BLOBS[request.param](tmp_path, request)


@pytest.fixture
def store(blobs: BlobStorePort) -> Iterator[ArtifactStoreAdapter]:
    made = ArtifactStoreAdapter(blobs)
    run(made.initialize())
    yield made
    run(made.cleanup())
    run(made.cleanup())


def cause(work: Any) -> Any:
    with pytest.raises(StorageError) as caught:
        run(work)
    assert caught.value.hint, "every error says what to do"
    return caught.value.facts.get("cause")


def versions(refs: Any) -> list[str]:
    return [ref.version for ref in refs]


async def data_keys(blobs: BlobStorePort) -> list[str]:
    return [key async for key in blobs.list("artifacts/data/")]


def test_it_is_the_port(store: ArtifactStoreAdapter):
    """Every method of the port is there."""
    assert isinstance(store, ArtifactStorePort)


def test_a_push_is_pulled_as_it_was(store: ArtifactStoreAdapter, tmp_path: Path):
    """Content, size, checksum and metadata come back; names may have slashes; a pull replaces an older file."""

    async def go() -> None:
        content = os.urandom(100_000)
        ref = await store.push(Artifact("models/größe/v", "1.0", content, {"acc": 0.9, "tags": ["ü"]}))
        assert ref == ArtifactRef(
            "models/größe/v", "1.0", "artifact:models/größe/v@1.0", 100_000, ref.created,
            {"acc": 0.9, "tags": ["ü"]}, hashlib.sha256(content).hexdigest(),
        )  # fmt: skip
        target = tmp_path / "out" / "models" / "größe" / "v"
        assert await store.pull(ref, tmp_path / "out") == target
        assert target.read_bytes() == content
        newer = await store.push(Artifact("models/größe/v", "2.0", b"newer"))
        assert (await store.pull(newer, tmp_path / "out")).read_bytes() == b"newer"
        assert [path.name for path in target.parent.iterdir()] == ["v"], "nothing else is left in the folder"

    run(go())


def test_streams_are_pushed(store: ArtifactStoreAdapter):
    """Files and async iterators are read to their end, and not closed."""

    async def parts() -> AsyncIterator[bytes]:
        for n in range(3):
            yield bytes([n]) * 3_000_000

    async def go() -> None:
        file = io.BytesIO(b"abc" * 1_000_000)
        from_file = await store.push(Artifact("file", "1", file))
        assert not file.closed
        assert from_file.checksum == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
        from_parts = await store.push(Artifact("parts", "1", parts()))
        assert from_parts.size == 9_000_000
        whole = b"".join(bytes([n]) * 3_000_000 for n in range(3))
        assert (await store.pull(from_parts)).read_bytes() == whole

    run(go())


def test_temporary_files_go(store: ArtifactStoreAdapter):
    """Without a folder each pull has a file of its own, and cleanup removes them; `pulled` does so at the end of its block."""

    async def go() -> None:
        ref = await store.push(Artifact("a/model.bin", "1", b"x"))
        one, two = await asyncio.gather(store.pull(ref), store.pull(ref))
        assert one != two
        assert one.name == two.name == "model.bin"
        async with store.pulled(ref) as path:
            assert path.read_bytes() == b"x"
        assert not path.parent.exists()
        await store.cleanup()
        assert not one.exists()
        assert not two.exists()
        assert not [p for p in Path(tempfile.gettempdir()).glob("dipeo-artifacts-*") if p in one.parents]

    run(go())


def test_versions_are_listed_newest_first(store: ArtifactStoreAdapter, blobs: BlobStorePort):
    """Each version once, the last pushed first; one that is pushed again has its new content, and the old is gone."""

    async def go() -> None:
        for version in ("1", "2", "3"):
            await store.push(Artifact("m", version, version.encode()))
        await store.push(Artifact("m/sub", "1", b"other"))
        assert versions(await store.list_versions("m")) == ["3", "2", "1"]
        again = await store.push(Artifact("m", "1", b"again"))
        listed = await store.list_versions("m")
        assert versions(listed) == ["1", "3", "2"]
        assert listed[0] == again
        assert (await store.pull(again)).read_bytes() == b"again"
        assert await store.list_versions("nothing") == []
        assert versions(await store.list_versions("m/sub")) == ["1"]
        assert len(await data_keys(blobs)) == 4

    run(go())


def test_stages(store: ArtifactStoreAdapter):
    """A stage has the version promoted to it last; `latest` is what was pushed or promoted to it last."""

    async def go() -> None:
        refs = [await store.push(Artifact("m", str(n), str(n).encode())) for n in range(3)]
        assert await store.get_latest("m", "prod") is None
        await store.promote(refs[0], "prod")
        await store.promote(refs[1], "staging")
        assert await store.get_latest("m", "prod") == refs[0]
        assert await store.get_latest("m", "staging") == refs[1]
        assert await store.get_latest("m", "dev") is None
        assert await store.get_latest("m") == await store.get_latest("m", "latest") == refs[2]
        await store.promote(refs[1], "latest")
        assert await store.get_latest("m") == await store.get_latest("m", "latest") == refs[1]
        new = await store.push(Artifact("m", "9", b"9"))
        assert await store.get_latest("m") == new
        await store.promote(refs[2], "prod")
        assert await store.get_latest("m", "prod") == refs[2]
        assert await store.get_latest("m", "production") is None
        assert await store.get_latest("nothing") is None
        with pytest.raises(ValidationError, match="staging"):
            await store.promote(new, "production")

    run(go())


def test_tags(store: ArtifactStoreAdapter):
    """Tags given at the push and later are found exactly, and stay through promotion and another push."""

    async def go() -> None:
        one = await store.push(Artifact("m", "1", b"1", tags=("good", "team/a")))
        two = await store.push(Artifact("m", "2", b"2"))
        other = await store.push(Artifact("a/b", "1/x", b"3", tags=("good",)))
        await store.tag(two, ["good", "goodish", "good"])
        await store.promote(one, "prod")
        assert await store.find_by_tag("good") == [other, two, one]
        assert await store.find_by_tag("goodish") == [two]
        assert await store.find_by_tag("team/a") == [one]
        assert [await store.find_by_tag(t) for t in ("goo", "team", "a", "GOOD")] == [[], [], [], []]
        again = await store.push(Artifact("m", "1", b"again", tags=("new",)))
        assert await store.find_by_tag("team/a") == await store.find_by_tag("new") == [again]

    run(go())


def test_what_is_not_there(store: ArtifactStoreAdapter):
    """Pulling, promoting and tagging a version that was never pushed is `not_found`."""
    ghost = ArtifactRef("m", "1", "artifact:m@1", 1, 0.0, {}, "00")
    assert cause(store.pull(ghost)) == "not_found"
    assert cause(store.promote(ghost, "prod")) == "not_found"
    assert cause(store.tag(ghost, ["t"])) == "not_found"


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


def test_a_failing_source_leaves_no_trace(store: ArtifactStoreAdapter, blobs: BlobStorePort):
    """A stream that breaks in the middle pushes nothing, and the version that was there stays."""

    async def breaks() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("source")

    async def go() -> None:
        ref = await store.push(Artifact("m", "1", b"old"))
        for version in ("1", "2"):
            with pytest.raises(RuntimeError, match="source"):
                await store.push(Artifact("m", version, breaks()))
        assert await store.list_versions("m") == [ref]
        assert (await store.pull(ref)).read_bytes() == b"old"
        assert len(await data_keys(blobs)) == 1

    run(go())


@pytest.mark.parametrize("text", [*ATTACKS, "@", "@x", "a/@/b"], ids=lambda text: ascii(text)[:30])
def test_bad_names_are_refused(text: str, tmp_path: Path):
    """Neither name, version nor tag takes what no blob store takes, or what separates them."""
    store = ArtifactStoreAdapter(LocalBlobAdapter(tmp_path / "blobs"))
    ref = ArtifactRef(text, "1", "", 0, 0.0, {}, "")
    for work in (
        store.push(Artifact(text, "1", b"")), store.push(Artifact("m", text, b"")), store.pull(ref, tmp_path / "out"),
        store.push(Artifact("m", "1", b"", tags=(text,))), store.list_versions(text), store.find_by_tag(text),
        store.get_latest(text), store.promote(ref, "prod"), store.tag(ref._replace(name="m"), [text]),
    ):  # fmt: skip
        assert cause(work) == "refused"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_metadata_is_json(store: ArtifactStoreAdapter):
    """Other values are an error before anything is stored."""
    assert cause(store.push(Artifact("m", "1", b"", {"x": object()}))) == "not_json"
    assert run(store.list_versions("m")) == []


def test_a_link_does_not_lead_out(tmp_path: Path):
    """A pull does not follow a symbolic link out of its folder."""
    store = ArtifactStoreAdapter(InMemoryBlobAdapter())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "models").symlink_to(tmp_path)

    async def go() -> None:
        ref = await store.push(Artifact("models/x", "1", b"x"))
        await store.pull(ref, tmp_path / "out")

    assert cause(go()) == "refused"
    assert not (tmp_path / "x").exists()


def test_a_place_that_is_no_folder(tmp_path: Path):
    """Pulling to where a file is, or over a folder, is one clear error that leaves both as they are."""
    store = ArtifactStoreAdapter(InMemoryBlobAdapter())
    (tmp_path / "file").write_text("mine")
    (tmp_path / "out" / "x").mkdir(parents=True)
    ref = run(store.push(Artifact("x", "1", b"content")))
    assert cause(store.pull(ref, tmp_path / "file")) == "not_a_directory"
    assert cause(store.pull(ref, tmp_path / "out")) == "is_directory"
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]


def test_many_at_once(store: ArtifactStoreAdapter):
    """Pushes, tags and promotions at the same time all arrive; a reader sees a whole version at any time."""

    async def go() -> None:
        ref = await store.push(Artifact("m", "0", b"0" * 1000))
        contents = {bytes([n]) * 1000 for n in range(10)} | {b"0" * 1000}

        async def read() -> None:
            for _ in range(10):
                async with store.pulled(ref) as path:
                    assert path.read_bytes() in contents

        await asyncio.gather(
            *(store.push(Artifact("m", "0", bytes([n]) * 1000)) for n in range(10)),
            *(store.push(Artifact("m", f"v{n}", b"x")) for n in range(10)),
            *(store.tag(ref, [f"t{n}"]) for n in range(10)),
            *(store.promote(ref, "prod") for _ in range(5)),
            read(),
        )
        assert len(await store.list_versions("m")) == 11
        for n in range(10):
            assert versions(await store.find_by_tag(f"t{n}")) == ["0"]

    run(go())


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
