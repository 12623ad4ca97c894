"""What every artifact store promises."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import ClassVar

from dipeo_nb.domain.ports import Artifact, ArtifactRef, ArtifactStorePort
from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.testing.contracts.blobs import BAD_KEYS
from dipeo_nb.testing.contracts.promises import Contract, named, promise, refusal, same, that

GHOST = ArtifactRef("m", "1", "artifact:m@1", 1, 0.0, {}, "00")
"""One that was never pushed."""


class ArtifactStoreContract(Contract):
    """The promises of `ArtifactStorePort`."""

    port: ClassVar[type] = ArtifactStorePort

    @promise
    async def test_a_push_is_pulled_as_it_was(self, store: ArtifactStorePort) -> None:
        """Content, size, checksum and metadata come back; names may have slashes; a pull replaces an older file."""
        content = os.urandom(100_000)
        name, metadata = "models/größe/v", {"acc": 0.9, "tags": ["ü"]}
        ref = await store.push(Artifact(name, "1.0", content, metadata))
        digest = hashlib.sha256(content).hexdigest()
        promised = ArtifactRef(name, "1.0", f"artifact:{name}@1.0", 100_000, ref.created, metadata, digest)
        same(ref, promised, "what push() returns")
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "models", "größe", "v")
            same(await store.pull(ref, Path(folder)), target, "the path that pull() returns")
            that(target.read_bytes() == content, "the content that is pulled is not what was pushed")
            newer = await store.push(Artifact(name, "2.0", b"newer"))
            same((await store.pull(newer, Path(folder))).read_bytes(), b"newer", "the content of the second version")
            same([path.name for path in target.parent.iterdir()], ["v"], "what two pulls leave in the folder")

    @promise
    async def test_streams_are_pushed(self, store: ArtifactStorePort) -> None:
        """Files and async iterators are read to their end, and not closed."""

        async def parts() -> AsyncIterator[bytes]:
            for n in range(3):
                yield bytes([n]) * 3_000_000

        file = io.BytesIO(b"abc" * 1_000_000)
        from_file = await store.push(Artifact("file", "1", file))
        that(not file.closed, "push() closes the file it was given")
        same(from_file.checksum, hashlib.sha256(b"abc" * 1_000_000).hexdigest(), "the checksum of a file")
        from_parts = await store.push(Artifact("parts", "1", parts()))
        same(from_parts.size, 9_000_000, "the size of an async iterator's content")
        whole = b"".join(bytes([n]) * 3_000_000 for n in range(3))
        that((await store.pull(from_parts)).read_bytes() == whole, "an async iterator is not pulled as it was pushed")

    @promise
    async def test_temporary_files_go(self, store: ArtifactStorePort) -> None:
        """Without a folder each pull has a file of its own, and cleanup removes them."""
        ref = await store.push(Artifact("a/model.bin", "1", b"x"))
        one, two = await asyncio.gather(store.pull(ref), store.pull(ref))
        that(one != two, "two pulls without a folder share a file")
        same({one.name, two.name}, {"model.bin"}, "the names of the files")
        await store.cleanup()
        that(not one.exists() and not two.exists(), "a temporary file is there after cleanup()")

    @promise
    async def test_versions_are_listed_newest_first(self, store: ArtifactStorePort) -> None:
        """Each version once, the last pushed first; one that is pushed again has its new content, and is the newest."""
        for version in ("1", "2", "3"):
            await store.push(Artifact("m", version, version.encode()))
        await store.push(Artifact("m/sub", "1", b"other"))
        same(versions(await store.list_versions("m")), ["3", "2", "1"], "the versions")
        again = await store.push(Artifact("m", "1", b"again"))
        listed = await store.list_versions("m")
        same(versions(listed), ["1", "3", "2"], "the versions after the oldest was pushed again")
        same(listed[0], again, "what is listed of a version that was pushed again")
        same((await store.pull(again)).read_bytes(), b"again", "the content of a version that was pushed again")
        same(list(await store.list_versions("nothing")), [], "the versions of an unknown name")
        same(versions(await store.list_versions("m/sub")), ["1"], "the versions of a longer name")

    @promise
    async def test_stages(self, store: ArtifactStorePort) -> None:
        """A stage has the version promoted to it last; `latest` is what was pushed or promoted to it last."""
        refs = [await store.push(Artifact("m", str(n), str(n).encode())) for n in range(3)]
        same(await store.get_latest("m", "prod"), None, "a stage that nothing was promoted to")
        await store.promote(refs[0], "prod")
        await store.promote(refs[1], "staging")
        same(await store.get_latest("m", "prod"), refs[0], "the stage prod")
        same(await store.get_latest("m", "staging"), refs[1], "the stage staging")
        same(await store.get_latest("m", "dev"), None, "the stage dev")
        for stage in (None, "latest"):
            same(await store.get_latest("m", stage), refs[2], f"the last pushed, as the stage {stage}")
        await store.promote(refs[1], "latest")
        for stage in (None, "latest"):
            same(await store.get_latest("m", stage), refs[1], f"the last promoted to latest, as the stage {stage}")
        new = await store.push(Artifact("m", "9", b"9"))
        same(await store.get_latest("m"), new, "the last pushed, after another was promoted to latest")
        await store.promote(refs[2], "prod")
        same(await store.get_latest("m", "prod"), refs[2], "the version promoted to prod last")
        same(await store.get_latest("m", "production"), None, "a stage that there is not")
        same(await store.get_latest("nothing"), None, "an unknown name")
        with refusal("promoting to a stage that there is not", ValidationError, says="staging"):
            await store.promote(new, "production")

    @promise
    async def test_tags(self, store: ArtifactStorePort) -> None:
        """Tags given at the push and later are found exactly, and stay through promotion and another push."""
        one = await store.push(Artifact("m", "1", b"1", tags=("good", "team/a")))
        two = await store.push(Artifact("m", "2", b"2"))
        other = await store.push(Artifact("a/b", "1/x", b"3", tags=("good",)))
        await store.tag(two, ["good", "goodish", "good"])
        await store.promote(one, "prod")
        found = {
            "good": [other, two, one],
            "goodish": [two],
            "team/a": [one],
            "goo": [],
            "team": [],
            "a": [],
            "GOOD": [],
        }
        for tag, refs in found.items():
            same(list(await store.find_by_tag(tag)), refs, f"the versions with the tag {tag!r}")
        again = await store.push(Artifact("m", "1", b"again", tags=("new",)))
        for tag in ("team/a", "new"):
            same(list(await store.find_by_tag(tag)), [again], f"the tag {tag!r} of a version that was pushed again")

    @promise
    async def test_one_string_is_no_list_of_tags(self, store: ArtifactStorePort) -> None:
        """A string given as the tags is refused: its letters are not meant. Nothing is stored."""
        with refusal("pushing with a string as the tags", ValidationError):
            await store.push(Artifact("m", "1", b"1", tags="abc"))  # pyright: ignore[reportArgumentType]
        same(list(await store.list_versions("m")), [], "the versions after a push that was refused")
        ref = await store.push(Artifact("m", "1", b"1"))
        with refusal("tagging with a string as the tags", ValidationError):
            await store.tag(ref, "abc")
        same(list(await store.find_by_tag("a")), [], "the versions with the first letter of that string as their tag")

    @promise
    async def test_each_version_has_its_own_uri(self, store: ArtifactStorePort) -> None:
        """`@` and `%` within a name or a version do not make two versions one URI."""
        places = [("p@1", "2"), ("p", "1@2"), ("p%401", "2"), ("p%2540", "1"), ("p%40", "1"), ("p@", "1")]
        uris = [(await store.push(Artifact(name, version, b""))).uri for name, version in places]
        same(len(set(uris)), len(places), f"different URIs of {len(places)} versions: {uris}")

    @promise
    async def test_what_is_not_there(self, store: ArtifactStorePort) -> None:
        """Pulling, promoting and tagging a version that was never pushed is `not_found`."""
        with refusal("pulling what was never pushed", cause="not_found"):
            await store.pull(GHOST)
        with refusal("promoting what was never pushed", cause="not_found"):
            await store.promote(GHOST, "prod")
        with refusal("tagging what was never pushed", cause="not_found"):
            await store.tag(GHOST, ["t"])

    @promise
    async def test_a_failing_source_leaves_no_trace(self, store: ArtifactStorePort) -> None:
        """A stream that breaks in the middle pushes nothing, and the version that was there stays."""

        async def breaks() -> AsyncIterator[bytes]:
            yield b"half"
            raise _SourceError("the source breaks")

        ref = await store.push(Artifact("m", "1", b"old"))
        for version in ("1", "2"):
            try:
                await store.push(Artifact("m", version, breaks()))
            except _SourceError:
                continue
            that(False, "pushing a stream that breaks raises nothing; promised is the error of the stream")
        same(list(await store.list_versions("m")), [ref], "the versions after pushes that failed")
        same((await store.pull(ref)).read_bytes(), b"old", "the content after a push that failed")

    @promise(cases=named([*BAD_KEYS, "@", "@x", "a/@/b"]))
    async def test_bad_names_are_refused(self, store: ArtifactStorePort, text: str) -> None:
        """Neither name, version nor tag takes what no blob store takes, or what separates them."""
        ref = ArtifactRef(text, "1", "", 0, 0.0, {}, "")
        with tempfile.TemporaryDirectory() as folder:
            inside = Path(folder, "inside")
            for doing, work in {
                "a name of push": lambda: store.push(Artifact(text, "1", b"")),
                "a version": lambda: store.push(Artifact("m", text, b"")),
                "a name of pull": lambda: store.pull(ref, inside),
                "a tag of push": lambda: store.push(Artifact("m", "1", b"", tags=(text,))),
                "a name of list_versions": lambda: store.list_versions(text),
                "a tag to find": lambda: store.find_by_tag(text),
                "a name of get_latest": lambda: store.get_latest(text),
                "a name to promote": lambda: store.promote(ref, "prod"),
                "a tag": lambda: store.tag(ref._replace(name="m"), [text]),
            }.items():
                with refusal(f"{ascii(text)[:60]} as {doing}", cause="refused"):
                    await work()
            same([p for p in Path(folder).rglob("*") if p.is_file()], [], "files that refused calls have written")
        same(list(await store.list_versions("m")), [], "the versions after refused pushes")

    @promise
    async def test_metadata_is_json(self, store: ArtifactStorePort) -> None:
        """Other values are an error before anything is stored."""
        with refusal("pushing metadata that is not JSON", cause="not_json"):
            await store.push(Artifact("m", "1", b"", {"x": object()}))
        same(list(await store.list_versions("m")), [], "the versions after a push that was refused")

    @promise
    async def test_a_link_does_not_lead_out(self, store: ArtifactStorePort) -> None:
        """A pull does not follow a symbolic link out of its folder."""
        ref = await store.push(Artifact("models/x", "1", b"x"))
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out")
            out.mkdir()
            (out / "models").symlink_to(folder)
            with refusal("pulling through a link that leads out", cause="refused"):
                await store.pull(ref, out)
            that(not Path(folder, "x").exists(), "the link that leads out was followed")

    @promise
    async def test_a_place_that_is_no_folder(self, store: ArtifactStorePort) -> None:
        """Pulling to where a file is, or over a folder, is one clear error that leaves both as they are."""
        ref = await store.push(Artifact("x", "1", b"content"))
        with tempfile.TemporaryDirectory() as folder:
            file, out = Path(folder, "file"), Path(folder, "out")
            file.write_text("mine")
            (out / "x").mkdir(parents=True)
            with refusal("pulling into a file", cause="not_a_directory"):
                await store.pull(ref, file)
            with refusal("pulling over a folder", cause="is_directory"):
                await store.pull(ref, out)
            same(file.read_text(), "mine", "the file that was in the way")
            same([path.name for path in out.iterdir()], ["x"], "what is in the folder")

    @promise
    async def test_many_at_once(self, store: ArtifactStorePort) -> None:
        """Pushes, tags and promotions at the same time all arrive; a reader sees a whole version at any time."""
        ref = await store.push(Artifact("m", "0", b"0" * 1000))
        contents = {bytes([n]) * 1000 for n in range(10)} | {b"0" * 1000}

        async def read() -> None:
            with tempfile.TemporaryDirectory() as folder:
                for _ in range(10):
                    path = await store.pull(ref, Path(folder))
                    that(path.read_bytes() in contents, "a reader sees a content that nobody pushed")

        await asyncio.gather(
            *(store.push(Artifact("m", "0", bytes([n]) * 1000)) for n in range(10)),  # in place of the one that is there
            *(store.push(Artifact("m", f"v{n}", b"x")) for n in range(10)),
            *(store.tag(ref, [f"t{n}"]) for n in range(10)),
            *(store.promote(ref, "prod") for _ in range(5)),
            read(),
        )
        same(len(await store.list_versions("m")), 11, "the number of versions after pushes at once")
        for n in range(10):
            same(versions(await store.find_by_tag(f"t{n}")), ["0"], f"the versions with the tag t{n}, given at once")

    @promise
    async def test_one_of_several_makes_a_version(self, store: ArtifactStorePort) -> None:
        """Of pushes that make a version at the same time one succeeds, whole and with its tags alone; create_only refuses one
        that is there."""

        async def push(number: int) -> ArtifactRef | None:
            try:
                return await store.push(Artifact("m", "1", b"%d" % number, {"n": number}, (f"t{number}", "all")))
            except StorageError as error:
                same(error.facts.get("cause"), "exists", "the cause of a push that was not the first")
                return None

        made = [ref for ref in await asyncio.gather(*(push(n) for n in range(12))) if ref is not None]
        same(len(made), 1, "the number of pushes that made the version")
        (ref,) = made
        winner = ref.metadata["n"]
        same((await store.pull(ref)).read_bytes(), b"%d" % winner, "the content of the version")
        same(list(await store.find_by_tag("all")), [ref], "the versions with the tag that all gave")
        tagged = [n for n in range(12) if await store.find_by_tag(f"t{n}")]
        same(tagged, [winner], "the pushes whose tags are there")
        with refusal("pushing with create_only what is there", cause="exists"):
            await store.push(Artifact("m", "1", b"other", tags=("other",)), create_only=True)
        same(await store.get_latest("m"), ref, "the version after a push that was refused")
        same(list(await store.find_by_tag("other")), [], "the versions with the tag of a push that was refused")

    @promise
    async def test_what_was_pushed_outlives_the_object(self, store: ArtifactStorePort) -> None:
        """A store that is opened again has content, stages and tags."""
        ref = await store.push(Artifact("m", "1", b"kept", tags=("good",)))
        await store.promote(ref, "prod")
        async with self.opened(lambda: self.reopen(store)) as again:
            same((await again.pull(ref)).read_bytes(), b"kept", "the content after a restart")
            same(await again.get_latest("m", "prod"), ref, "the stage after a restart")
            same(list(await again.find_by_tag("good")), [ref], "the tag after a restart")


class _SourceError(Exception):
    pass


def versions(refs: Iterable[ArtifactRef]) -> list[str]:
    """The versions of references."""
    return [ref.version for ref in refs]
