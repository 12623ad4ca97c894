"""What every file system promises, and what none of them lets through."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

from dipeo_nb.domain.ports import FileSystemPort
from dipeo_nb.errors import StorageError
from dipeo_nb.testing.contracts.promises import Contract, NotHereError, named, promise, refusal, same, that

BAD_PATHS = (
    "../x", "../../etc/passwd", "a/../../x", "a/b/../../../x", "/etc/passwd", "//etc/passwd", "/", "..", "../", "a/..//../x",
    "\\\\host\\share", "\\x", "a\\..\\..\\x", "C:\\x", "c:/x", "C:x", "~/x", "~root/x", "~", "", " ", "\t", "\n",
    "a\0b", "a\nb", "a\rb", "\x1b[31m", "a\x7fb", "con", "NUL", "nul.txt", "aux.json", "com1", "LPT9.txt", "a/prn/b",
    "x.", "x ", "a /b", "a./b", "\u202egpj.exe", "a\u200bb", "\ufeffx", "a\u2066b", "x" * 256, "é" * 200, "a/" * 3000,
    "http://x/y", "file:///etc/passwd", "s3://bucket/x", "x|y", "x?y", "a/x*y", "x<y", "x>y", 'x"y', "COM¹", "lpt².txt", "CONIN$",
    "/dev/null", "/dev/zero", "/proc/self/environ", "....//....//etc/passwd/..../../../../../../x",
)  # fmt: skip
"""Paths that leave the base directory, name a device, or that no file could have on one of the systems people use."""
BAD_PATTERNS = "../*", "/etc/*", "a/../../*", "", "**/../../*", "a\0*"


class FileSystemContract(Contract):
    """The promises of `FileSystemPort`."""

    port: ClassVar[type] = FileSystemPort
    limit: int | None = None
    """Bytes: the largest file that the system of `make` takes. None: that it has a limit is not checked."""

    @promise
    def test_text_and_bytes(self, files: FileSystemPort) -> None:
        """What is written is read back; folders are made; sizes are bytes."""
        same(files.write_text("a/b/c.txt", "größe\n"), 8, "what write_text returns: the size in bytes of 'größe\\n'")
        same(files.read_text("a/b/c.txt"), "größe\n", "the text")
        same(files.write_bytes("a/x.bin", b"\x00\xff"), 2, "what write_bytes returns: the size in bytes")
        same(files.read_bytes("a/x.bin"), b"\x00\xff", "the bytes")
        same(files.stat("a/x.bin").size, 2, "the size of stat()")
        that(files.stat("a").is_dir, "stat() does not say that a folder is one")
        that(files.exists("a/b/c.txt"), "exists() is False for a file")
        that(files.exists("a/b"), "exists() is False for a folder")
        that(not files.exists("a/nothing"), "exists() is True for what is not there")

    @promise
    def test_writing_replaces(self, files: FileSystemPort) -> None:
        """A second write replaces the first."""
        files.write_text("x.txt", "one")
        files.write_text("x.txt", "2")
        same(files.read_text("x.txt"), "2", "the text after a second write")

    @promise
    def test_missing_and_folders_are_told_apart(self, files: FileSystemPort) -> None:
        """Missing files and folders in place of files have their own causes."""
        files.write_text("d/x.txt", "x")

        def write(path: str) -> int:
            return files.write_text(path, "x")

        for action in (files.read_bytes, files.read_text, files.stat, files.remove):
            with refusal(f"{action.__name__} of a missing file", cause="not_found"):
                action("nothing.txt")
        for action in (files.read_bytes, files.remove, write):
            with refusal(f"{action.__name__} of a folder", cause="is_directory"):
                action("d")
        with refusal("write below a file", cause="not_a_directory"):
            write("d/x.txt/y")

    @promise
    def test_size_limits(self, files: FileSystemPort) -> None:
        """A file over the limit is not written; the old content stays."""
        if self.limit is None:
            raise NotHereError("no limit is given")
        files.write_bytes("x", b"a" * self.limit)
        with refusal("writing a byte more than the limit", cause="too_large"):
            files.write_bytes("x", b"a" * (self.limit + 1))
        same(len(files.read_bytes("x")), self.limit, "the size after a write that was refused")

    @promise
    def test_text_that_is_none(self, files: FileSystemPort) -> None:
        """Bytes that are not UTF-8 are an error that names the place or the likely encoding; a BOM is dropped."""
        files.write_bytes("utf16.txt", "hello".encode("utf-16"))
        with refusal("reading UTF-16 as text", says="UTF-16"):
            files.read_text("utf16.txt")
        files.write_bytes("latin.txt", b"one\ntwo \xe9")
        with refusal("reading Latin-1 as text", says="line 2"):
            files.read_text("latin.txt")
        files.write_bytes("bom.txt", b"\xef\xbb\xbfhello")
        same(files.read_text("bom.txt"), "hello", "a text with a BOM")
        with refusal("writing half of a surrogate pair", says="not valid Unicode"):
            files.write_text("x.txt", "\ud800")

    @promise
    def test_globbing(self, files: FileSystemPort) -> None:
        """Patterns find files, sorted, relative to the base."""
        for name in ("b.txt", "a.txt", "d/c.txt", "d/e/f.txt", "d/g.md"):
            files.write_text(name, "x")
        for pattern, names in {
            "*.txt": ["a.txt", "b.txt"],
            "d/*.txt": ["d/c.txt"],
            "**/*.txt": ["a.txt", "b.txt", "d/c.txt", "d/e/f.txt"],
            "[ab].txt": ["a.txt", "b.txt"],
            "?.txt": ["a.txt", "b.txt"],
            "none*": [],
        }.items():
            same([p.as_posix() for p in files.glob(pattern)], names, f"glob({pattern!r})")

    @promise
    def test_creating_is_exclusive(self, files: FileSystemPort) -> None:
        """Of many writers that create one file at the same time, one succeeds, and its content is the file's."""

        def create(number: int) -> int | None:
            try:
                files.write_text("d/x.txt", str(number), create_only=True)
            except StorageError as error:
                same(error.facts.get("cause"), "exists", "the cause of a second creation")
                return None
            return number

        with ThreadPoolExecutor(8) as threads:
            won = [number for number in threads.map(create, range(40)) if number is not None]
        same(len(won), 1, "the writers of forty that created the file")
        same(files.read_text("d/x.txt"), str(won[0]), "the content of the file")
        files.write_text("d/x.txt", "replaced")
        same(files.read_text("d/x.txt"), "replaced", "the content after a plain write")

    @promise
    def test_open_files(self, files: FileSystemPort) -> None:
        """Modes mean what they mean to Python's `open`; what is written appears at the close, or not at all."""
        with files.open("a/x.txt", "w") as file:
            file.write("grö")
            file.write("ße\n")
            that(not files.exists("a/x.txt"), "a file is seen before it is closed")
        with files.open("a/x.txt") as file:
            same(file.read(), "größe\n", "the text")
        with files.open("a/x.txt", "a") as file:
            file.write("more")
        with files.open("a/x.txt", "rb") as file:
            same(file.read(), "größe\nmore".encode(), "the bytes after an append")
        with files.open("a/x.txt", "r+b") as file:
            file.write(b"G")
            file.seek(-1, 2)
            file.truncate()
        same(files.read_text("a/x.txt"), "Größe\nmor", "the text after a change in place")
        with files.open("y.bin", "xb") as file:
            file.write(b"\x00")
        same(files.read_bytes("y.bin"), b"\x00", "the bytes of a created file")
        with refusal("opening a file that is there with mode x", cause="exists"):
            files.open("y.bin", "x")
        with refusal("opening a missing file", cause="not_found"):
            files.open("nothing", "r+")
        for mode in ("", "rw", "z", "rr", "rbt", "U"):
            with refusal(f"opening with the mode {mode!r}", cause="unsupported"):
                files.open("y.bin", mode)
        for mode in ("w", "wb", "a"):
            try:
                with files.open("a/x.txt", mode) as file:
                    file.write(b"lost" if "b" in mode else "lost")
                    raise InterruptedError
            except InterruptedError:
                pass
            same(files.read_text("a/x.txt"), "Größe\nmor", f"the text after an error in a block of mode {mode!r}")

    @promise
    def test_folders(self, files: FileSystemPort) -> None:
        """They are made, listed, moved and removed."""
        files.mkdir("a/b")
        files.mkdir("a/b")
        files.write_text("a/x.txt", "x")
        same([p.as_posix() for p in files.listdir()], ["a"], "listdir() of the base")
        same([p.as_posix() for p in files.listdir("a")], ["a/b", "a/x.txt"], "listdir('a')")
        same(files.listdir("a/b"), [], "listdir() of an empty folder")
        with refusal("mkdir of a folder that is there", cause="exists"):
            files.mkdir("a/b", exist_ok=False)
        with refusal("mkdir of a file", cause="exists"):
            files.mkdir("a/x.txt")
        with refusal("mkdir below a folder that is missing", cause="not_found"):
            files.mkdir("p/q", parents=False)
        with refusal("mkdir below a file", cause="not_a_directory"):
            files.mkdir("a/x.txt/y")
        with refusal("listdir of what is missing", cause="not_found"):
            files.listdir("nothing")
        with refusal("listdir of a file", cause="not_a_directory"):
            files.listdir("a/x.txt")
        files.rename("a", "c/d")
        same([p.as_posix() for p in files.listdir("c/d")], ["c/d/b", "c/d/x.txt"], "a folder that was moved")
        with refusal("moving a folder into itself", cause="refused"):
            files.rename("c", "c/d/e")
        files.rmdir("c/d/b")
        with refusal("rmdir of a folder that is not empty", cause="not_empty"):
            files.rmdir("c/d")
        with refusal("rmdir of a file", cause="not_a_directory"):
            files.rmdir("c/d/x.txt", recursive=True)
        with refusal("rmdir of what is missing", cause="not_found"):
            files.rmdir("nothing")
        with refusal("rmdir of the base", cause="refused"):
            files.rmdir(".", recursive=True)
        files.rmdir("c", recursive=True)
        same(files.listdir(), [], "the base after all was removed")

    @promise
    def test_moving_and_copying(self, files: FileSystemPort) -> None:
        """A file takes the place of another; a folder does not."""
        files.write_text("x.txt", "x")
        files.write_text("y.txt", "yy")
        files.mkdir("d")
        files.copy("x.txt", "e/z.txt")
        files.rename("x.txt", "y.txt")
        same(files.read_text("y.txt"), "x", "the text after rename over another file")
        that(not files.exists("x.txt"), "exists() is True for a file that was moved away")
        same(files.read_text("e/z.txt"), "x", "the text of a copy")
        same(files.size("e/z.txt"), 1, "size() of a copy")
        same(files.stat("e/z.txt").mime_type, "text/plain", "the mime_type of stat()")
        files.rename("y.txt", "y.txt")
        same(files.read_text("y.txt"), "x", "the text of a file that was moved to itself")
        with refusal("size of a folder", cause="is_directory"):
            files.size("d")
        with refusal("rename of what is missing", cause="not_found"):
            files.rename("nothing", "z")
        with refusal("rename of a file to a folder", cause="exists"):
            files.rename("y.txt", "d")
        with refusal("rename of a folder to a file", cause="exists"):
            files.rename("d", "y.txt")
        with refusal("copy of what is missing", cause="not_found"):
            files.copy("nothing", "z")

    @promise
    def test_removing(self, files: FileSystemPort) -> None:
        """A removed file is gone."""
        files.write_text("x.txt", "x")
        files.remove("x.txt")
        that(not files.exists("x.txt"), "exists() is True for a removed file")

    @promise(cases=named(BAD_PATHS))
    def test_no_path_leads_out(self, files: FileSystemPort, path: str) -> None:
        """No spelling leaves the base directory or names a device: refused with a typed error, before anything happens."""

        def write(path: str) -> int:
            return files.write_bytes(path, b"x")

        files.write_bytes("fine", b"x")
        actions: tuple[Callable[[str], Any], ...] = (
            files.resolve, files.read_bytes, write, files.exists, files.remove, files.open, files.mkdir, files.listdir,
            files.rmdir, files.size, partial(files.copy, "fine"), partial(files.rename, "fine"),
        )  # fmt: skip
        for action in actions:
            with refusal(
                f"{getattr(action, '__name__', 'copying or moving')} of the path {ascii(path)[:60]}", cause="refused"
            ) as caught:
                action(path)
            that(not set("\0\x1b") & set(str(caught[0])), f"the error of {ascii(path)[:60]} has control characters")

    @promise(cases=named(BAD_PATTERNS))
    def test_patterns_stay_inside(self, files: FileSystemPort, pattern: str) -> None:
        """Patterns cannot leave the base directory."""
        with refusal(f"glob({pattern!r})"):
            files.glob(pattern)

    @promise
    def test_what_was_written_outlives_the_object(self, files: FileSystemPort) -> None:
        """A file system that is opened again has the files."""
        files.write_text("a/x.txt", "kept")
        same(self.reopen(files).read_text("a/x.txt"), "kept", "the text after a restart")
