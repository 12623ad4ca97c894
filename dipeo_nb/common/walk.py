"""Following a path by open folders: each one is opened in the one before, links are read and followed by hand.

Where a system has no handles of folders (Windows), a folder is its path; `real_path` of a file's handle then says where the
file really is.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dipeo_nb.common.paths import outside, refuse_unportable, refused
from dipeo_nb.common.protected import ProtectedPlaces, folded, own_place
from dipeo_nb.errors import StorageError

Check = Callable[[str, bool], str | None]
"""(path, whether it is written) → why it may not be used, or None."""

MAX_LINKS = 40
"""Symbolic links followed for one path."""
HANDLES = {os.open, os.stat, os.mkdir, os.unlink, os.rmdir, os.rename, os.link, os.readlink} <= os.supports_dir_fd
"""Whether folders have handles here."""
NO_LINK = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_NOFOLLOW", 0)
A_LINK = (errno.ELOOP, getattr(errno, "EMLINK", errno.ELOOP), getattr(errno, "EFTYPE", errno.ELOOP))
"""Errors of systems for opening a link that is not to be followed."""
_WALKING = NO_LINK | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", os.O_RDONLY)
_LISTING = NO_LINK | getattr(os, "O_DIRECTORY", 0) | os.O_RDONLY
_REPARSE_POINT = 0x400
_SHORT = re.compile(r"[^.~]{1,6}~\d{1,6}(\.[^.]{0,3})?")
"""The second name that Windows gives to files (`DIPEO~1.TOM`)."""


class ExchangedError(Exception):
    """Something on the way is not what it was a moment ago."""


class Entry(NamedTuple):
    """An entry of a folder."""

    name: str
    is_dir: bool
    is_link: bool


class Folder:
    """An open folder; what it holds is reached by its names only."""

    __slots__ = ("__weakref__", "_fd", "_path")

    def __init__(self, path: str, fd: int | None) -> None:
        self._path, self._fd = path, fd

    @classmethod
    def of(cls, path: Path) -> Folder:
        """Raises OSError: there is none, or it is a link."""
        if HANDLES:
            return cls("", os.open(path, _WALKING))
        _refuse_indirect(os.lstat(path))
        return cls(str(path), None)

    def at(self, name: str) -> tuple[str, int | None]:
        """(path, dir_fd) of something in it, for functions of `os`."""
        return (os.path.join(self._path, name), None) if self._fd is None else (name, self._fd)

    def folder(self, name: str) -> Folder:
        """Raises OSError: there is none, or it is a link."""
        path, fd = self.at(name)
        if fd is not None:
            return Folder("", os.open(path, _WALKING, dir_fd=fd))
        _refuse_indirect(os.lstat(path))
        return Folder(path, None)

    def stat(self, name: str | None = None) -> os.stat_result:
        """Facts of the folder, or of something in it, links not followed."""
        if name is None:
            return os.stat(self._path) if self._fd is None else os.fstat(self._fd)
        path, fd = self.at(name)
        return os.stat(path, dir_fd=fd, follow_symlinks=False)

    def link(self, name: str) -> str:
        """Target of a symbolic link."""
        path, fd = self.at(name)
        return os.readlink(path, dir_fd=fd)

    def entries(self) -> list[Entry]:
        if self._fd is None:
            return _entries(self._path)
        handle = os.open(".", _LISTING, dir_fd=self._fd)
        try:
            return _entries(handle)
        finally:
            os.close(handle)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _entries(folder: str | int) -> list[Entry]:
    with os.scandir(folder) as found:
        return [Entry(e.name, e.is_dir(follow_symlinks=False), e.is_symlink()) for e in found]


def _refuse_indirect(info: os.stat_result) -> None:
    """Raises OSError for what is not a folder, or is a substitute for another."""
    if stat.S_ISLNK(info.st_mode) or getattr(info, "st_file_attributes", 0) & _REPARSE_POINT:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISDIR(info.st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


class Base:
    """A folder that is kept open: what moves it or its parents does not change which one is meant."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder: Folder | None = None
        self._opening = threading.Lock()

    def folder(self, *, make: int | None = None) -> Folder:
        """The open folder. Raises FileNotFoundError without *make*, the mode of a new one; NotADirectoryError."""
        folder = self._folder
        if folder is None or not _is_there(folder):
            with self._opening:
                folder = self._folder
                if folder is None or not _is_there(folder):
                    folder = self._folder = self._opened(make)
        return folder

    def _opened(self, make: int | None) -> Folder:
        try:
            folder = Folder.of(self.path)
        except FileNotFoundError:
            if make is None:
                raise
            os.makedirs(self.path, make, exist_ok=True)
            folder = Folder.of(self.path)
        except OSError as error:
            if error.errno in A_LINK:
                raise refused(str(self.path), "it has become a symbolic link", hint="Open it again.") from error
            raise
        fd = folder.at("")[1]
        if fd is not None:
            weakref.finalize(folder, os.close, fd)
        return folder


def _is_there(folder: Folder) -> bool:
    """Whether an open folder has not been removed."""
    try:
        return folder.stat().st_nlink > 0
    except OSError:  # a file system that is gone, too
        return False


@dataclass(frozen=True, slots=True)
class Rules:
    """The paths that may be reached below a folder; see `Root`."""

    base: Base
    prefix: tuple[str, ...] = ()
    """Folders below the base that no path leaves, and that are not protected themselves."""
    links: bool = True
    private: bool = False
    protected: ProtectedPlaces | None = None
    own: frozenset[tuple[str, ...]] = frozenset()
    """The product's own places below the base."""
    check: Check | None = None

    def check_name(self, parts: tuple[str, ...], writing: bool, shown: str) -> None:
        """Raises StorageError for a place that is protected by the name of its last component."""
        if self.protected is None or len(parts) <= len(self.prefix):
            return
        self.protected.check_name(parts[-1], writing, shown)
        if self.own and (() in self.own or tuple(map(folded, parts)) in self.own):
            raise own_place(shown)

    def check_file(self, info: os.stat_result, parts: tuple[str, ...], writing: bool, shown: str) -> None:
        """Raises StorageError for what is protected under another name, or would be written into a folder of others."""
        if self.protected is not None and len(parts) > len(self.prefix):
            self.protected.check_file(info, shown, self.base.path)
        if self.private and writing and stat.S_ISDIR(info.st_mode) and not _is_mine(info):
            where = self.base.path.joinpath(*parts)
            raise refused(shown, f"the folder {where} belongs to another user", hint="Move it away, or use another one.")

    def check_path(self, parts: tuple[str, ...], writing: bool, shown: str) -> None:
        """Raises StorageError for a whole path that is not granted."""
        if self.check is not None and (why := self.check("/".join(parts[len(self.prefix) :]), writing)):
            raise refused(shown, why)

    def is_open(self, parts: tuple[str, ...], writing: bool = False) -> bool:
        """Whether a place is not protected by its name."""
        try:
            self.check_name(parts, writing, parts[-1])
        except StorageError:
            return False
        return True

    def make(self, folder: Folder, name: str) -> None:
        """Make a folder. Raises FileExistsError."""
        path, fd = folder.at(name)
        os.mkdir(path, self.folder_mode, dir_fd=fd)

    @property
    def folder_mode(self) -> int:
        return 0o700 if self.private else 0o777

    def is_a_link(self, parts: tuple[str, ...], shown: str) -> StorageError:
        where = self.base.path.joinpath(*parts)
        return refused(shown, f"{where} is a symbolic link", hint="Remove the link.")

    def leads_out(self, shown: str) -> StorageError:
        return outside(shown, self.base.path.joinpath(*self.prefix))


def _is_mine(info: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or os.geteuid() == 0 or info.st_uid in (os.geteuid(), 0)


@dataclass(slots=True)
class Spot:
    """The target of a path: a name in an open folder. A block closes what was opened on the way."""

    folder: Folder | None
    """None: there is no such folder."""
    name: str | None
    """None: it is the base itself."""
    parts: tuple[str, ...]
    """Below the base, after links."""
    info: os.stat_result | None
    """Facts of what is there; None: nothing."""
    error: OSError | None
    """Why nothing is there."""
    shown: str
    """The path as it was given."""
    opened: list[Folder] = field(default_factory=list[Folder])

    def there(self) -> os.stat_result:
        """Facts of what is there. Raises OSError: nothing."""
        if self.info is None:
            raise self.error or OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.info

    @property
    def is_dir(self) -> bool:
        return self.info is not None and stat.S_ISDIR(self.info.st_mode)

    def at(self) -> tuple[str, int | None]:
        """(path, dir_fd) for functions of `os`. Raises OSError: the folder is not there, or the place is the base itself."""
        if self.folder is None:
            raise self.error or OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if self.name is None:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return self.folder.at(self.name)

    def inside(self) -> AbstractContextManager[Folder]:
        """The open folder that this place is. Raises OSError: there is none."""
        if not stat.S_ISDIR(self.there().st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        assert self.folder is not None  # something is there
        if self.name is None:
            return nullcontext(self.folder)
        try:
            return self.folder.folder(self.name)
        except OSError as error:
            if error.errno in (*A_LINK, errno.ENOTDIR):
                raise ExchangedError from None
            raise

    def __enter__(self) -> Spot:
        return self

    def __exit__(self, *error: object) -> None:
        for folder in self.opened:
            folder.close()


def follow(rules: Rules, names: tuple[str, ...], shown: str, *, writing: bool, make: bool = False) -> Spot:
    """The place that *names*, below the rules' folder, lead to.

    Args:
        shown: the path in errors.
        make: make folders on the way that are missing.

    Raises:
        StorageError: `refused`.
        ExchangedError: something was exchanged on the way.
    """
    way = _Way(rules, shown, writing, make)
    try:
        return way.to((*rules.prefix, *names))
    except BaseException:
        for folder in way.folders[1:]:
            folder.close()
        raise


class _Way:
    """Progress of following a path."""

    def __init__(self, rules: Rules, shown: str, writing: bool, make: bool) -> None:
        self.rules, self.shown, self.writing, self.make = rules, shown, writing, make
        self.parts: list[str] = []
        self.folders: list[Folder] = []
        """The base, and the open folders of the first of the parts; what follows them is not there."""
        self.error: OSError | None = None
        """Why not."""
        self.links = 0

    def to(self, names: tuple[str, ...]) -> Spot:
        try:
            self.folders.append(self.rules.base.folder(make=self.rules.folder_mode if self.make else None))
        except (FileNotFoundError, NotADirectoryError) as error:
            self.error = error
        todo = list(reversed(names))
        info: os.stat_result | None = None
        while todo:
            part = todo.pop()
            if part == "..":
                self._back()
                continue
            self.parts.append(part)
            self.rules.check_name(tuple(self.parts), self.writing, self.shown)
            if len(self.folders) < len(self.parts):
                continue  # its folder is not there
            if "~" in part:
                self._refuse_short(part)
            if todo:
                self._step(part, todo)
            else:
                info = self._last(part, todo)
        return self._arrived(info)

    def _back(self) -> None:
        if len(self.parts) <= len(self.rules.prefix):
            raise self.rules.leads_out(self.shown)
        if len(self.folders) > len(self.parts):
            self.folders.pop().close()
        self.parts.pop()

    def _step(self, part: str, todo: list[str]) -> None:
        """Into a folder, or along a link."""
        parent = self.folders[-1]
        try:
            folder = parent.folder(part)
        except FileNotFoundError as error:
            if not self.make:
                self.error = error
                return
            folder = self._made(parent, part)
        except OSError as error:
            if error.errno not in (*A_LINK, errno.ENOTDIR):
                raise
            self._around(part, todo)
            return
        self.folders.append(folder)
        self.rules.check_file(folder.stat(), tuple(self.parts), self.writing, self.shown)

    def _made(self, parent: Folder, part: str) -> Folder:
        try:
            self.rules.make(parent, part)
        except FileExistsError:
            pass  # made meanwhile
        try:
            return parent.folder(part)
        except OSError:
            raise ExchangedError from None

    def _around(self, part: str, todo: list[str]) -> None:
        """Handle a component that is not a folder: follow it if it is a link."""
        info = self.folders[-1].stat(part)
        if stat.S_ISLNK(info.st_mode):
            self._follow(part, todo)
        elif stat.S_ISDIR(info.st_mode):
            raise ExchangedError
        else:
            self.error = OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def _last(self, part: str, todo: list[str]) -> os.stat_result | None:
        try:
            info = self.folders[-1].stat(part)
        except FileNotFoundError as error:
            self.error = error
            return None
        if stat.S_ISLNK(info.st_mode):
            if self.writing and not self.rules.links:
                return info  # it is replaced or removed, not followed
            self._follow(part, todo)
            return None
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            raise refused(self.shown, "it is neither a regular file nor a folder")
        self.rules.check_file(info, tuple(self.parts), self.writing, self.shown)
        return info

    def _follow(self, part: str, todo: list[str]) -> None:
        """Put the target of a link in the place of its name."""
        if not self.rules.links:
            raise self.rules.is_a_link(tuple(self.parts), self.shown)
        self.links += 1
        if self.links > MAX_LINKS:
            raise refused(self.shown, "it goes through too many symbolic links")
        try:
            target = self.folders[-1].link(part)
        except OSError:
            raise ExchangedError from None
        self.parts.pop()
        if os.path.isabs(target):
            target = self._below_base(target)
            while len(self.folders) > 1:
                self.folders.pop().close()
            self.parts.clear()
        todo += reversed([name for name in target.split(os.sep) if name not in ("", ".")])

    def _below_base(self, target: str) -> str:
        base = str(self.rules.base.path)
        for place in (target, os.path.realpath(target)):
            if place == base or place.startswith(os.path.join(base, "")):
                return place[len(base) :]
        raise self.rules.leads_out(self.shown)

    def _refuse_short(self, part: str) -> None:
        """A name such as `GIT~1` may be a second one of a file that is protected by its first."""
        if _SHORT.fullmatch(part) and part not in (entry.name for entry in self.folders[-1].entries()):
            raise refused(self.shown, f"'{part}' has the form of short names on Windows")

    def _arrived(self, info: os.stat_result | None) -> Spot:
        parts, folders = tuple(self.parts), self.folders
        if len(folders) > len(parts):  # the path ended in an open folder: the base, `a/..`, a link to `.`
            info = folders[-1].stat()
            parent = folders[-2] if parts else folders[-1]
        else:
            parent = folders[-1] if folders and len(folders) == len(parts) else None
        if info is None:
            refuse_unportable("/".join(parts[max(len(folders) - 1, 0) :]))
        self.rules.check_path(parts, self.writing, self.shown)
        return Spot(parent, parts[-1] if parts else None, parts, info, self.error, self.shown, folders[1:])


def empty(folder: Folder) -> None:
    """Remove everything in an open folder."""
    for entry in folder.entries():
        if entry.is_dir:
            with folder.folder(entry.name) as inside:
                empty(inside)
        name, fd = folder.at(entry.name)
        (os.rmdir if entry.is_dir else os.unlink)(name, dir_fd=fd)


def names_below(folder: Folder, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The components of everything in an open folder, which is at *parts*."""
    for entry in folder.entries():
        yield (*parts, entry.name)
        if entry.is_dir:
            with folder.folder(entry.name) as inside:
                yield from names_below(inside, (*parts, entry.name))


def real_path(handle: int) -> str:
    """The real path of a handle's file, links and short names resolved.

    Raises:
        OSError: the system does not provide it.
    """
    if sys.platform == "win32":
        return _windows_path(handle)
    return os.readlink(f"/proc/self/fd/{handle}")


def _windows_path(handle: int) -> str:
    import ctypes
    import msvcrt

    kernel: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    find = kernel.GetFinalPathNameByHandleW
    find.argtypes = (ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_uint32)
    find.restype = ctypes.c_uint32
    text = ctypes.create_unicode_buffer(32_768)
    if not find(msvcrt.get_osfhandle(handle), text, len(text), 0):  # type: ignore[attr-defined]
        raise OSError(errno.EBADF, "its path cannot be found")
    return text.value.removeprefix("\\\\?\\")
