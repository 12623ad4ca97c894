"""What every file system promises, and what none of them lets through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dipeo_nb.domain.ports import FileSystemPort
from dipeo_nb.testing.contracts.promises import Contract, NotHereError, named, promise, refusal, same, that

BAD_PATHS = (
    "../x", "../../etc/passwd", "a/../../x", "a/b/../../../x", "/etc/passwd", "//etc/passwd", "/", "..", "../", "a/..//../x",
    "\\\\host\\share", "\\x", "a\\..\\..\\x", "C:\\x", "c:/x", "C:x", "~/x", "~root/x", "~", "", " ", "\t", "\n",
    "a\0b", "a\nb", "a\rb", "\x1b[31m", "a\x7fb", "con", "NUL", "nul.txt", "aux.json", "com1", "LPT9.txt", "a/prn/b",
    "x.", "x ", "a /b", "a./b", "\u202egpj.exe", "a\u200bb", "\ufeffx", "a\u2066b", "x" * 256, "é" * 200, "a/" * 3000,
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
        """Bytes that are no UTF-8 are an error that names the place or the likely encoding; a BOM is dropped."""
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

        actions: tuple[Callable[[str], Any], ...] = (files.resolve, files.read_bytes, write, files.exists, files.remove)
        for action in actions:
            with refusal(f"{action.__name__} of the path {ascii(path)[:60]}", cause="refused") as caught:
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
