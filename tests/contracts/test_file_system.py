"""The contract of file systems (`dipeo_nb.testing.contracts.files`) on every one we have; what only a disk can do below."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.ports import FileSystemPort
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.in_memory import InMemoryFileSystem
from dipeo_nb.storage.local import LocalFileSystemAdapter
from dipeo_nb.testing.contracts import FileSystemContract

LIMIT = 1000


class TestFileSystems(FileSystemContract):
    limit = LIMIT

    @pytest.fixture(autouse=True, params=["memory", "local"])
    def adapter(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        if request.param == "memory":
            self.make = lambda: InMemoryFileSystem(max_file_size=LIMIT)
            return
        base = tmp_path / "base"
        base.mkdir()
        self.make = lambda: LocalFileSystemAdapter(base, max_file_size=LIMIT)

        def reopen(made: Any) -> FileSystemPort:
            return LocalFileSystemAdapter(base)

        self.reopen = reopen


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
