"""What every file system promises (`domain.ports.FileSystemPort`), and what none of them lets through."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dipeo_nb.domain.ports import FileSystemPort
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.local import LocalFileSystemAdapter
from dipeo_nb.storage.memory import InMemoryFileSystem

LIMIT = 1000
SYSTEMS: dict[str, Callable[[Path], FileSystemPort]] = {
    "memory": lambda folder: InMemoryFileSystem(max_file_size=LIMIT),
    "local": lambda folder: LocalFileSystemAdapter(folder, max_file_size=LIMIT),
}


@pytest.fixture(params=SYSTEMS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> FileSystemPort:
    base = tmp_path / "base"
    base.mkdir()
    return SYSTEMS[request.param](base)


def cause(error: pytest.ExceptionInfo[StorageError]) -> str:
    assert error.value.hint, "every error says what to do"
    return str(error.value.facts.get("cause"))


def test_it_is_the_port(files: FileSystemPort):
    """Every method of the port is there."""
    assert isinstance(files, FileSystemPort)


def test_text_and_bytes(files: FileSystemPort):
    """What is written is read back; folders are made; sizes are bytes."""
    assert files.write_text("a/b/c.txt", "größe\n") == 8
    assert files.read_text("a/b/c.txt") == "größe\n"
    assert files.write_bytes("a/x.bin", b"\x00\xff") == 2
    assert files.read_bytes("a/x.bin") == b"\x00\xff"
    assert files.stat("a/x.bin").size == 2
    assert files.stat("a").is_dir
    assert files.exists("a/b/c.txt")
    assert files.exists("a/b")
    assert not files.exists("a/nothing")


def test_writing_replaces(files: FileSystemPort):
    """A second write replaces the first."""
    files.write_text("x.txt", "one")
    files.write_text("x.txt", "2")
    assert files.read_text("x.txt") == "2"


def test_missing_and_folders_are_told_apart(files: FileSystemPort):
    """Missing files and folders in place of files have their own causes."""
    files.write_text("d/x.txt", "x")
    for action in (files.read_bytes, files.read_text, files.stat, files.remove):
        with pytest.raises(StorageError) as error:
            action("nothing.txt")
        assert cause(error) == "not_found"
    for action in (files.read_bytes, files.remove, lambda p: files.write_text(p, "x")):
        with pytest.raises(StorageError) as error:
            action("d")
        assert cause(error) == "is_directory"
    with pytest.raises(StorageError) as error:
        files.write_text("d/x.txt/y", "x")
    assert cause(error) == "not_a_directory"


def test_size_limits(files: FileSystemPort):
    """Files over the limit are neither written nor read; the old content stays."""
    files.write_bytes("x", b"a" * LIMIT)
    with pytest.raises(StorageError) as error:
        files.write_bytes("x", b"a" * (LIMIT + 1))
    assert cause(error) == "too_large"
    assert len(files.read_bytes("x")) == LIMIT


def test_text_that_is_none(files: FileSystemPort):
    """Bytes that are no UTF-8 are an error that names the place and the likely encoding; a BOM is dropped."""
    files.write_bytes("utf16.txt", "hello".encode("utf-16"))
    with pytest.raises(StorageError, match="UTF-16"):
        files.read_text("utf16.txt")
    files.write_bytes("latin.txt", b"one\ntwo \xe9")
    with pytest.raises(StorageError, match="line 2"):
        files.read_text("latin.txt")
    files.write_bytes("bom.txt", b"\xef\xbb\xbfhello")
    assert files.read_text("bom.txt") == "hello"
    with pytest.raises(StorageError, match="not valid Unicode"):
        files.write_text("x.txt", "\ud800")


def test_globbing(files: FileSystemPort):
    """Patterns find files, sorted, relative to the base."""
    for name in ("b.txt", "a.txt", "d/c.txt", "d/e/f.txt", "d/g.md"):
        files.write_text(name, "x")

    def found(pattern: str) -> list[str]:
        return [p.as_posix() for p in files.glob(pattern)]

    assert found("*.txt") == ["a.txt", "b.txt"]
    assert found("d/*.txt") == ["d/c.txt"]
    assert found("**/*.txt") == ["a.txt", "b.txt", "d/c.txt", "d/e/f.txt"]
    assert found("[ab].txt") == ["a.txt", "b.txt"]
    assert found("?.txt") == ["a.txt", "b.txt"]
    assert found("none*") == []


def test_removing(files: FileSystemPort):
    """A removed file is gone."""
    files.write_text("x.txt", "x")
    files.remove("x.txt")
    assert not files.exists("x.txt")


ATTACKS = [
    "../x", "../../etc/passwd", "a/../../x", "a/b/../../../x", "/etc/passwd", "//etc/passwd", "/", "..", "../", "a/..//../x",
    "\\\\host\\share", "\\x", "a\\..\\..\\x", "C:\\x", "c:/x", "C:x", "~/x", "~root/x", "~", "", " ", "\t", "\n",
    "a\0b", "a\nb", "a\rb", "\x1b[31m", "a\x7fb", "con", "NUL", "nul.txt", "aux.json", "com1", "LPT9.txt", "a/prn/b",
    "x.", "x ", "a /b", "a./b", "\u202egpj.exe", "a\u200bb", "\ufeffx", "a\u2066b", "x" * 256, "é" * 200, "a/" * 3000,
    "/dev/null", "/dev/zero", "/proc/self/environ", "....//....//etc/passwd/..../../../../../../x",
]  # fmt: skip


@pytest.mark.parametrize("path", ATTACKS, ids=range(len(ATTACKS)))
def test_attacks(files: FileSystemPort, path: str):
    """No spelling leaves the base directory or names a device: refused with a typed error, before anything happens."""
    for action in (files.resolve, files.read_bytes, lambda p: files.write_bytes(p, b"x"), files.exists, files.remove):
        with pytest.raises(StorageError) as error:
            action(path)
        assert cause(error) == "refused"
        assert "\0" not in str(error.value)
        assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "a/../../*", "", "**/../../*", "a\0*"])
def test_patterns_stay_inside(files: FileSystemPort, pattern: str):
    """Patterns cannot leave the base directory."""
    with pytest.raises(StorageError):
        files.glob(pattern)


class TestLocalOnly:
    """What only a real disk can do."""

    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        folder = tmp_path / "base"
        folder.mkdir()
        return folder

    def test_links_that_lead_out(self, base: Path, tmp_path: Path):
        """Symbolic links to outside are refused for reading, writing and globbing; links inside work."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret.txt").write_text("secret")
        (base / "file").symlink_to(outside / "secret.txt")
        (base / "folder").symlink_to(outside)
        (base / "loop").symlink_to(base / "loop")
        (base / "real.txt").write_text("fine")
        (base / "inside").symlink_to(base / "real.txt")
        files = LocalFileSystemAdapter(base)
        for path in ("file", "folder/secret.txt", "folder/new.txt", "loop"):
            with pytest.raises(StorageError):
                files.read_bytes(path)
            with pytest.raises(StorageError):
                files.write_bytes(path, b"x")
        assert [p.as_posix() for p in files.glob("**/*.txt")] == ["real.txt"]
        assert files.read_text("inside") == "fine"
        assert (outside / "secret.txt").read_text() == "secret"

    def test_devices_and_pipes(self, base: Path):
        """Named pipes inside the base are refused instead of read for ever."""
        os.mkfifo(base / "pipe")
        with pytest.raises(StorageError, match="neither a regular file nor a folder"):
            LocalFileSystemAdapter(base).read_bytes("pipe")

    def test_an_absolute_path_inside_is_fine(self, base: Path):
        """An absolute path below the base names its file."""
        files = LocalFileSystemAdapter(base)
        files.write_text("x.txt", "x")
        assert files.read_text(base / "x.txt") == "x"

    def test_modes_are_kept_and_no_temporary_file_stays(self, base: Path):
        """Replacing keeps the file's mode; only the file itself is left in the folder."""
        files = LocalFileSystemAdapter(base)
        files.write_text("x.sh", "one")
        (base / "x.sh").chmod(0o750)
        files.write_text("x.sh", "two")
        assert (base / "x.sh").stat().st_mode & 0o777 == 0o750
        assert [p.name for p in base.iterdir()] == ["x.sh"]
