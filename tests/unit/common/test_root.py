"""Files by the handles of their folders: links, races, protected places, other systems."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common import walk
from dipeo_nb.common.protected import ProtectedPlaces
from dipeo_nb.common.root import Root, own_root, private_root
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.local import LocalFileSystemAdapter

TRIES = 10_000
"""Uses of a path whose folder is exchanged with a link all the while."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a file and links, beside a folder that nothing may reach."""
    folder, outside = tmp_path / "base", tmp_path / "outside"
    for place in (folder / "d", outside):
        place.mkdir(parents=True)
        (place / "s.txt").write_text("in" if place != outside else "OUT")
    (folder / "out").symlink_to(outside)
    (folder / "same").symlink_to("d")
    (folder / "absolute").symlink_to(folder / "d")
    (folder / "loop").symlink_to("loop")
    (folder / "back").symlink_to("d/../../outside")
    return folder


@pytest.fixture(params=[True, False] if walk.HANDLES else [False], ids=lambda has: "handles" if has else "names")
def handles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With handles of folders, and without, as on Windows."""
    monkeypatch.setattr(walk, "HANDLES", request.param)
    return request.param


@contextmanager
def exchanging(one: Path, other: Path) -> Iterator[None]:
    """Exchange two names as fast as possible within the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        pytest.skip("not here: this system cannot exchange two names in one step")
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            libc.renameat2(-100, bytes(one), -100, bytes(other), 2)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.skipif(not walk.HANDLES, reason="not here: folders have no handles on this system")
def test_a_folder_that_is_exchanged_with_a_link_leads_nowhere(base: Path):
    """Whoever exchanges a folder on the way with a link that leads out: nothing outside is read, listed, written or removed."""
    outside = base.parent / "outside"
    files = LocalFileSystemAdapter(base)
    before = sorted(os.listdir(outside))
    works: tuple[Callable[[int], Any], ...] = (
        lambda n: files.read_bytes("d/s.txt"),
        lambda n: files.write_bytes(f"d/w{n % 7}.txt", b"x") if n % 5 == 0 else files.exists(f"d/w{n % 7}.txt"),
        lambda n: files.remove(f"d/w{n % 7}.txt"),
        lambda n: files.mkdir(f"d/m{n % 7}"),
        lambda n: files.glob("d/*.txt"),
        lambda n: files.rename("d/s.txt", "d/s.txt"),
        lambda n: files.rmdir(f"d/m{n % 7}"),
    )
    done = refused = 0
    (outside / "m0").mkdir()
    with exchanging(base / "d", base / "out"):
        for n in range(TRIES):
            try:
                result = works[n % len(works)](n)
            except StorageError as error:
                refused += error.facts["cause"] in ("refused", "not_a_directory")
            else:
                done += 1
                assert result != b"OUT"
    assert done
    assert refused
    assert sorted(os.listdir(outside)) == sorted([*before, "m0"])
    assert (outside / "s.txt").read_text() == "OUT"


def test_links_are_followed_inside_only(base: Path, handles: bool):
    """Relative and absolute ones, one after the other, through `..`; not out of the folder, not without end."""
    root = Root(base)
    for path in ("d/s.txt", "same/s.txt", "absolute/s.txt", "d/../same/s.txt", "missing/../d/s.txt", str(base / "d/s.txt")):
        assert root.read(path) == b"in"
        assert root.locate(path) == base / "d/s.txt"
    (base / "to_missing").symlink_to("d/new.txt")
    root.write("to_missing", b"x")
    assert (base / "d/new.txt").read_text() == "x"
    assert (base / "to_missing").is_symlink()
    for path in (
        "out/s.txt",
        "back/s.txt",
        "loop",
        "loop/x",
        "out",
        "d/../../outside/s.txt",
        str(base.parent / "outside/s.txt"),
    ):
        for work in (root.read, root.exists, root.locate, root.unlink, root.mkdir, root.listdir, lambda p: root.write(p, b"x")):
            with pytest.raises(StorageError) as caught:
                work(path)
            assert caught.value.facts["cause"] == "refused", path
    assert (base.parent / "outside/s.txt").read_text() == "OUT"


def test_the_products_own_folders_have_no_links(base: Path, handles: bool):
    """Neither on the way nor in them; a link in place of a file is replaced, not followed."""
    outside = base.parent / "outside"
    (base / ".dipeo").symlink_to(outside)
    own = own_root(base)
    for work in (lambda: own.read("s.txt"), lambda: own.write("x", b"x"), lambda: own.mkdir("locks"), own.listdir, own.mkdir):
        with pytest.raises(StorageError, match="symbolic link"):
            work()
    (base / ".dipeo").unlink()
    own.write("a/x", b"mine")
    (base / ".dipeo/a/y").symlink_to(outside / "s.txt")
    (base / ".dipeo/b").symlink_to(outside)
    for path in ("a/y", "b/s.txt"):
        with pytest.raises(StorageError, match="symbolic link"):
            own.read(path)
    own.write("a/y", b"new")
    assert own.read("a/y") == b"new"
    own.unlink("b")
    assert (outside / "s.txt").read_text() == "OUT"
    assert stat.S_IMODE((base / ".dipeo").stat().st_mode) == stat.S_IMODE((base / ".dipeo/a").stat().st_mode) == 0o700
    assert stat.S_IMODE((base / ".dipeo/a/x").stat().st_mode) == 0o600


def test_a_folder_of_another_user_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever may write in a shared folder could have made `.dipeo` there to see what goes into it."""
    if os.geteuid() != 0:
        pytest.skip("not here: giving a file away needs root")
    (tmp_path / ".dipeo").mkdir(mode=0o777)
    os.chown(tmp_path / ".dipeo", 12345, 12345)
    own_root(tmp_path).write("x", b"x")  # root may: containers run as root in folders of others
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(StorageError, match="belongs to another user"):
        own_root(tmp_path).write("x", b"y")
    assert own_root(tmp_path).read("x") == b"x"


def test_what_is_moved_stays_the_same_folder(base: Path):
    """A folder that is open is meant, wherever it is moved; one that was removed is made anew."""
    if not walk.HANDLES:
        pytest.skip("not here: folders have no handles on this system")
    root = Root(base)
    assert root.read("d/s.txt") == b"in"
    base.rename(base.parent / "moved")
    (base.parent / "outside").rename(base)
    assert root.read("d/s.txt") == b"in"
    other = Root(base.parent / "made")
    other.write("x", b"1")
    (base.parent / "made/x").unlink()
    (base.parent / "made").rmdir()
    with pytest.raises(FileNotFoundError):
        other.read("x")
    other.write("x", b"2")
    assert (base.parent / "made/x").read_bytes() == b"2"


def test_special_files_are_refused(base: Path, handles: bool):
    """Pipes and sockets are neither opened nor waited for."""
    os.mkfifo(base / "pipe")
    for work in (Root(base).read, Root(base).look, lambda p: Root(base).write(p, b"")):
        with pytest.raises(StorageError, match="neither a regular file"):
            work("pipe")


def test_a_check_sees_where_a_path_leads(base: Path, handles: bool):
    """After links, and before anything is made."""
    seen: list[tuple[str, bool]] = []

    def check(path: str, writing: bool) -> str | None:
        seen.append((path, writing))
        return "it is a notebook" if writing and path.endswith(".ipynb") else None

    files = LocalFileSystemAdapter(base).restricted(check)
    (base / "plain.txt").symlink_to("d/nb.ipynb")
    for path in ("plain.txt", "new/nb.ipynb", "d/nb.ipynb"):
        with pytest.raises(StorageError, match="notebook"):
            files.write_text(path, "x")
    assert not (base / "new").exists()
    assert not files.exists("plain.txt")
    files.write_text("d/nb.txt", "x")
    assert files.read_text("same/nb.txt") == "x"
    assert seen[0] == ("d/nb.ipynb", True)
    with pytest.raises(StorageError, match="notebook"):
        files.rename("d/nb.txt", "d/nb.ipynb")
    (base / "d/own.ipynb").write_text("{}")
    for work in (lambda: files.rename("d", "e"), lambda: files.rmdir("d", recursive=True)):
        with pytest.raises(StorageError, match="notebook"):
            work()
    with pytest.raises(StorageError, match="second"):
        files.restricted(lambda path, writing: "the second rule").read_text("d/nb.txt")


@pytest.mark.parametrize("links", [1, 2])
def test_second_names_of_protected_files(base: Path, links: int, handles: bool):
    """A hard link to a file that is protected by its name, or by its folder, is no way to it."""
    (base / ".env").write_text("KEY=1")
    (base / ".git/hooks").mkdir(parents=True)
    (base / ".git/hooks/pre-commit").write_text("#!")
    keys = base.parent / "data"
    keys.mkdir()
    (keys / "apikeys.json").write_text("{}")
    root = Root(base, protected=ProtectedPlaces([keys, base / "runs.db"]))
    (base / "runs.db").write_text("db")
    (base / "runs.db-wal").write_text("db")
    for number, file in enumerate((".env", ".git/hooks/pre-commit", keys / "apikeys.json", "runs.db", "runs.db-wal")):
        for link in range(links):
            os.link(base / file, base / f"d/plain{number}{link}.txt")
        for work in (root.read, root.open, root.exists, lambda p: root.write(p, b"x"), root.unlink):
            with pytest.raises(StorageError, match=r"another name of a protected file|place of dipeo-nb itself"):
                work(f"d/plain{number}0.txt")
    os.link(base / "d/s.txt", base / "d/twice.txt")
    assert root.read("d/twice.txt") == b"in"


def test_a_created_file_is_open_while_its_draft_is_there(base: Path, handles: bool, monkeypatch: pytest.MonkeyPatch):
    """Exclusive creation links the draft to the name: between the two steps, or after a kill there, the file is no secret."""
    root = Root(base, protected=ProtectedPlaces([base.parent / "data"]))
    with monkeypatch.context() as killed:
        killed.setattr(os, "unlink", lambda *_, **__: None)
        root.write("d/new.txt", b"new", create_only=True)
    assert os.stat(base / "d/new.txt").st_nlink == 2
    assert root.read("d/new.txt") == b"new"
    with pytest.raises(FileExistsError):
        root.write("d/new.txt", b"other", create_only=True)
    root.write("d/new.txt", b"newer")
    assert root.read("d/new.txt") == b"newer"


def test_a_second_mount_of_a_protected_folder(base: Path):
    """The folder is known by what it is, not by its name."""
    keys = base.parent / "data"
    keys.mkdir()
    (keys / "apikeys.json").write_text("{}")
    (base / "m").mkdir()
    done = subprocess.run(["mount", "--bind", keys, base / "m"], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"not here: mounting needs the right to ({done.stderr.strip()})")
    try:
        with pytest.raises(StorageError, match="place of dipeo-nb itself"):
            Root(base, protected=ProtectedPlaces([keys])).read("m/apikeys.json")
    finally:
        subprocess.run(["umount", "-l", base / "m"], check=True, capture_output=True)


def test_folders_that_hold_protected_files_stay(base: Path, handles: bool):
    """They are neither moved nor removed, whatever else is in them."""
    files = LocalFileSystemAdapter(base)
    (base / "d/e").mkdir()
    (base / "d/e/.env").write_text("KEY=1")
    for work in (lambda: files.rmdir("d", recursive=True), lambda: files.rename("d", "f")):
        with pytest.raises(StorageError, match=r"holds 'd/e/\.env'"):
            work()
    assert (base / "d/s.txt").exists()
    (base / "d/e/.env").unlink()
    (base / "d/out").symlink_to(base.parent / "outside")
    files.rmdir("d", recursive=True)
    assert (base.parent / "outside/s.txt").read_text() == "OUT"


def test_names_that_the_user_opens(base: Path):
    """open_places opens names that begin with a dot, never the product's own."""
    files = LocalFileSystemAdapter(base, protected=ProtectedPlaces(opened=[".GitHub", ".dipeo", ".env", "dipeo.toml"]))
    files.write_text(".github/workflows/x.yml", "x")
    assert [p.as_posix() for p in files.glob("**/*.yml")] == [".github/workflows/x.yml"]
    for path in (".dipeo/x", ".env", "dipeo.toml", ".git/x"):
        with pytest.raises(StorageError, match="closed to diagrams"):
            files.write_text(path, "x")


def test_a_folder_within_the_products_own(base: Path, handles: bool):
    """Files in it are reached by its own root, with the same names closed as everywhere; what is beside it is not."""
    root = private_root(Path(".dipeo/drafts/x"), base, protected=ProtectedPlaces([base / ".dipeo"]))
    files = LocalFileSystemAdapter(root)
    files.write_text("a/b.txt", "x")
    assert (base / ".dipeo/drafts/x/a/b.txt").read_text() == files.read_text("a/b.txt") == "x"
    assert [p.as_posix() for p in files.glob("**/*")] == ["a/b.txt"]
    for path in ("../../runs.db", "a/.env", "dipeo.toml", "a/conftest.py", str(base / "d/s.txt"), "../y/b.txt"):
        with pytest.raises(StorageError) as caught:
            files.write_text(path, "x")
        assert caught.value.facts["cause"] == "refused"
    with pytest.raises(StorageError, match="base directory itself"):
        files.rmdir(".", recursive=True)
    seen: list[str] = []
    files.restricted(lambda path, writing: seen.append(path)).read_text("a/b.txt")
    assert seen == ["a/b.txt"]


def test_a_failed_write_leaves_nothing(base: Path, handles: bool, monkeypatch: pytest.MonkeyPatch):
    """The old content stays, no draft is left, and the error is the system's."""
    root = Root(base)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        root.write("d/s.txt", b"new")
    assert os.listdir(base / "d") == ["s.txt"]
    assert root.read("d/s.txt") == b"in"


def test_modes_of_written_files(base: Path, handles: bool):
    """A new file has what the umask leaves; one that is replaced keeps its mode."""
    before = os.umask(0o027)
    try:
        Root(base).write("d/new.txt", b"")
        os.chmod(base / "d/s.txt", 0o604)
        Root(base).write("d/s.txt", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((base / "d/new.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((base / "d/s.txt").stat().st_mode) == 0o604


def test_a_folder_that_may_be_entered_but_not_listed(base: Path):
    """Names in it work as for everybody else."""
    if os.geteuid() == 0:
        pytest.skip("not here: root lists everything")
    os.chmod(base / "d", 0o300)
    try:
        Root(base).write("d/s.txt", b"new")
        assert Root(base).read("d/s.txt") == b"new"
    finally:
        os.chmod(base / "d", 0o700)


def test_without_handles_the_path_of_an_open_file_counts(base: Path, monkeypatch: pytest.MonkeyPatch):
    """As on Windows: a folder that became a link after it was looked at, or has a short name, is seen by what was opened."""
    monkeypatch.setattr(walk, "HANDLES", False)
    root = Root(base, protected=ProtectedPlaces())
    real = str(base.parent / "outside/s.txt")
    for path in (real, str(base / ".git/config"), str(base / ".git/x.tmp")):
        monkeypatch.setattr(walk, "real_path", lambda handle, path=path: path)
        for work in (root.read, lambda path: root.write(path, b"x"), lambda _: root.create("d/new.txt")):
            with pytest.raises(StorageError) as caught:
                work("d/s.txt")
            assert caught.value.facts["cause"] == "refused"
            (base / "d/new.txt").unlink(missing_ok=True)
    monkeypatch.undo()
    assert root.read("d/s.txt") == b"in"
    assert os.listdir(base / "d") == ["s.txt"]


@pytest.mark.parametrize("seed", range(6))
def test_links_lead_where_the_system_says(tmp_path: Path, handles: bool, seed: int):
    """In random trees: what is there and inside is found at the same place, everything else is refused or not there."""
    chance = random.Random(seed)
    names, targets = ["a", "b", "c", "d"], ["..", "../..", ".", "a", "a/b", "../a", "../../out/a", "a/..", "missing/x"]
    for number in range(10):
        base = tmp_path / str(number) / "base"
        (base.parent / "out/a").mkdir(parents=True)
        base.mkdir()
        targets = [*targets[:9], str(base / "a"), str(base / "a/../b"), str(base.parent / "out"), "/etc"]
        folders = [base]
        for _ in range(14):
            place = chance.choice(folders) / chance.choice(names)
            if os.path.lexists(place):
                continue
            kind = chance.random()
            if kind < 0.35:
                place.mkdir()
                folders.append(place)
            elif kind < 0.5:
                place.write_text("x")
            else:
                place.symlink_to(chance.choice(targets))
        root = Root(base)
        for _ in range(60):
            path = "/".join(chance.choice([*names, "..", "."]) for _ in range(chance.randint(1, 5)))
            real = Path(os.path.realpath(base / path))
            try:
                found = root.locate(path)
            except StorageError:
                found = None
            assert found is None or (found == real and real.is_relative_to(base)), path
            leads_back = any(p.startswith("..") for p in (os.path.normpath(path[:n]) for n in range(1, len(path) + 1)))
            if os.path.exists(base / path) and real.is_relative_to(base) and not leads_back:
                assert found == real, path
