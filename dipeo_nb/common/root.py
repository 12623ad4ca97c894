"""Files below one folder, reached by its handle: no name leads outside, even if folders and links are moved meanwhile.

What was opened on the way (see `common.walk`) is what is read, written or removed. Where a system has no handles of folders
(Windows), files are opened by name, and before a byte is used the path that their handle really has is compared with the one
that was meant; that is weaker against other processes of the same user.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from dipeo_nb.common import walk
from dipeo_nb.common.atomic import replacing
from dipeo_nb.common.paths import path_parts, refused
from dipeo_nb.common.protected import ProtectedPlaces
from dipeo_nb.common.walk import Base, Check, Entry, ExchangedError, Rules, Spot, follow
from dipeo_nb.errors import StorageError

R = TypeVar("R")

TRIES = 3
"""Number of times a path is resolved again when a component was replaced meanwhile."""
_READING = walk.NO_LINK | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CREATING = walk.NO_LINK | os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_PIECE = 1 << 16
"""Bytes read at once, at least."""


class Root:
    """A folder, and what is below it.

    Every method takes a path below the folder and raises StorageError (`refused`) for one that leads outside it or is closed,
    before anything happens; errors of the system are raised as OSError.

    Args:
        base: the folder; links in its own path are followed now, not later. It need not exist.
        links: follow symbolic links below it that stay inside. False: the folder is the product's own, and links in it are
            refused.
        private: for the user only: new folders have the mode 0700, new files 0600, and nothing is written into folders
            of others.
        protected: what is closed; None: nothing is.
    """

    def __init__(
        self,
        base: str | os.PathLike[str],
        *,
        links: bool = True,
        private: bool = False,
        protected: ProtectedPlaces | None = None,
    ) -> None:
        folder = Base(Path(os.path.realpath(base)))
        own = protected.below(folder.path) if protected else frozenset[tuple[str, ...]]()
        self._rules = Rules(folder, (), links, private, protected, own)

    @classmethod
    def _of(cls, rules: Rules) -> Root:
        made = cls.__new__(cls)
        made._rules = rules
        return made

    @property
    def path(self) -> Path:
        """The folder."""
        return self._rules.base.path.joinpath(*self._rules.prefix)

    def below(self, path: str | os.PathLike[str]) -> Root:
        """A folder in this one, without links: neither it nor what is on the way to it may be one."""
        return self._of(replace(self._rules, prefix=(*self._rules.prefix, *path_parts(path)), links=False))

    def restricted(self, check: Check) -> Root:
        """This folder, with a further rule.

        Args:
            check: returns why a path may not be used, or None; called with the path below the folder, after links, and whether
                it is to be written.
        """
        before = self._rules.check

        def both(path: str, writing: bool) -> str | None:
            return (before(path, writing) if before else None) or check(path, writing)

        return self._of(replace(self._rules, check=both))

    # Looking.

    def locate(self, path: str | os.PathLike[str], *, writing: bool = False) -> Path:
        """The absolute path, after links; nothing need be there. By the time it is used by name it may lead elsewhere."""
        return self._at(path, lambda spot: self._rules.base.path.joinpath(*spot.parts), writing=writing)

    def look(self, path: str | os.PathLike[str]) -> tuple[Path, os.stat_result]:
        """The absolute path, after links, and facts of what is there."""
        return self._at(path, lambda spot: (self._rules.base.path.joinpath(*spot.parts), spot.there()))

    def exists(self, path: str | os.PathLike[str]) -> bool:
        return self._at(path, lambda spot: spot.info is not None)

    def listdir(self, path: str | os.PathLike[str] = ".") -> list[Entry]:
        """The entries of a folder that are not protected, in no order."""

        def done(spot: Spot) -> list[Entry]:
            with spot.inside() as folder:
                return [entry for entry in folder.entries() if self._rules.is_open((*spot.parts, entry.name))]

        return self._at(path, done)

    # Files.

    def open(self, path: str | os.PathLike[str]) -> BinaryIO:
        """A regular file, for reading."""
        return self._at(path, lambda spot: os.fdopen(self._opened(spot, _READING), "rb"))

    def read(self, path: str | os.PathLike[str], limit: int = sys.maxsize - 1) -> bytes:
        """The content of a file: at most *limit* bytes, and one more, which shows that it is larger."""
        return self.located(path, limit)[1]

    def located(self, path: str | os.PathLike[str], limit: int = sys.maxsize - 1) -> tuple[Path, bytes]:
        """The absolute path of a file, after links, and its content as `read` gives it."""

        def done(spot: Spot) -> tuple[Path, bytes]:
            handle = self._opened(spot, _READING)
            try:
                return self._rules.base.path.joinpath(*spot.parts), _content(handle, limit + 1)
            finally:
                os.close(handle)

        return self._at(path, done)

    def write(self, path: str | os.PathLike[str], data: bytes, *, create_only: bool = False) -> int:
        """Write a file as `replacing` does; returns its size."""
        with self.replacing(path, create_only=create_only) as file:
            file.write(data)
        return len(data)

    @contextmanager
    def replacing(self, path: str | os.PathLike[str], *, create_only: bool = False) -> Iterator[BinaryIO]:
        """A file to be written, which is there at the end of the block, whole or not at all; its folders are made.

        Raises:
            FileExistsError: create_only, and there is something.
            OSError: it is a folder, the disk is full …; what was there is as it was.
        """
        with self._found(path, writing=True, make=True) as spot:
            if spot.is_dir:
                raise _error(errno.EISDIR)
            if create_only and spot.info is not None:
                raise _error(errno.EEXIST)
            name, folder = spot.at()
            mode = 0o600 if self._rules.private else None
            with replacing(
                Path(name), mode=mode, create_only=create_only, dir_fd=folder, opened=lambda h: self._verify(h, spot)
            ) as file:
                yield file

    def create(self, path: str | os.PathLike[str]) -> BinaryIO:
        """A new, empty file, for reading and writing; its folders are made. Raises FileExistsError."""

        def done(spot: Spot) -> BinaryIO:
            if spot.info is not None:
                raise _error(errno.EEXIST)
            return os.fdopen(self._opened(spot, _CREATING, 0o600 if self._rules.private else 0o666), "w+b")

        return self._at(path, done, writing=True, make=True)

    def unlink(self, path: str | os.PathLike[str]) -> None:
        """Remove a file."""

        def done(spot: Spot) -> None:
            if stat.S_ISDIR(spot.there().st_mode):
                raise _error(errno.EISDIR)
            name, folder = spot.at()
            os.unlink(name, dir_fd=folder)

        self._at(path, done, writing=True)

    def rename(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
        """Move a file or folder; a file takes the place of a file, in one step. Folders of the target are made.

        Raises:
            StorageError: `refused`, also for a folder that holds something protected, or would move into itself.
            FileExistsError: a folder is there, or a file where a folder is to go.
        """

        def moved(begin: Spot) -> None:
            is_dir = stat.S_ISDIR(begin.there().st_mode)
            if is_dir:
                self._refuse_holding(begin)
                if self.locate(target).is_relative_to(self._rules.base.path.joinpath(*begin.parts)):
                    raise refused(begin.shown, "a folder cannot be moved into itself")

            def done(end: Spot) -> None:
                if end.parts == begin.parts:
                    return
                if end.is_dir or (is_dir and end.info is not None):
                    raise _error(errno.EEXIST)
                (old, old_folder), (new, new_folder) = begin.at(), end.at()
                os.replace(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)

            self._at(target, done, writing=True, make=True)

        self._at(source, moved, writing=True)

    # Folders.

    def mkdir(self, path: str | os.PathLike[str] = ".", *, parents: bool = True, exist_ok: bool = True) -> None:
        """Make a folder. Raises FileExistsError; FileNotFoundError without *parents*."""

        def done(spot: Spot) -> None:
            if spot.info is None:
                if spot.name is None:  # the base itself is made on the way, but for what stands there
                    raise _error(errno.ENOTDIR)
                name, folder = spot.at()
                try:
                    os.mkdir(name, self._rules.folder_mode, dir_fd=folder)
                except FileExistsError:  # made meanwhile
                    raise ExchangedError from None
            elif stat.S_ISLNK(spot.info.st_mode):
                raise self._rules.is_a_link(spot.parts, spot.shown)
            elif not (exist_ok and spot.is_dir):
                raise _error(errno.EEXIST)

        self._at(path, done, writing=True, make=parents)

    def rmdir(self, path: str | os.PathLike[str], *, recursive: bool = False) -> None:
        """Remove a folder; links in it are removed, not followed.

        Raises:
            StorageError: `refused`, also for the root itself and for a folder that holds something protected.
        """

        def done(spot: Spot) -> None:
            if not stat.S_ISDIR(spot.there().st_mode):
                raise _error(errno.ENOTDIR)
            self._refuse_holding(spot)
            if recursive:
                with spot.inside() as folder:
                    walk.empty(folder)
            name, parent = spot.at()
            os.rmdir(name, dir_fd=parent)

        self._at(path, done, writing=True)

    def _refuse_holding(self, spot: Spot) -> None:
        """Raises StorageError for a folder that is not to be moved or removed, because of itself or of what is in it."""
        rules = self._rules
        if len(spot.parts) <= len(rules.prefix):
            raise refused(spot.shown, "it is the base directory itself")
        if rules.protected is None and rules.check is None:
            return
        with spot.inside() as folder:
            for parts in walk.names_below(folder, spot.parts):
                rules.check_path(parts, True, spot.shown)
                if not rules.is_open(parts, writing=True):
                    name = "/".join(parts)
                    hint = "Move or remove the folder yourself."
                    raise refused(spot.shown, f"it holds '{name}', which is protected", hint=hint)

    # The way to a place.

    def _at(self, path: str | os.PathLike[str], work: Callable[[Spot], R], *, writing: bool = False, make: bool = False) -> R:
        """The result of *work* for the location of *path*; repeated when a component was replaced meanwhile."""
        for _ in range(TRIES):
            try:
                with self._found(path, writing=writing, make=make) as spot:
                    return work(spot)
            except ExchangedError:
                continue
        raise _unsteady(path)

    def _found(self, path: str | os.PathLike[str], *, writing: bool, make: bool) -> Spot:
        """The place of *path*. Raises StorageError `refused`."""
        shown, names = os.fspath(path), path_parts(path, self.path)
        for _ in range(TRIES):
            try:
                spot = follow(self._rules, names, shown, writing=writing)
                if make and spot.folder is None and isinstance(spot.error, FileNotFoundError):
                    # Folders are made only when it is known that nothing of the path is closed.
                    with spot:
                        pass
                    spot = follow(self._rules, names, shown, writing=writing, make=True)
            except ExchangedError:
                continue
            return spot
        raise _unsteady(path)

    def _opened(self, spot: Spot, flags: int, mode: int = 0) -> int:
        """The handle of a regular file: the one that was looked at, or another that may be used, too."""
        if flags == _READING and stat.S_ISDIR(spot.there().st_mode):
            raise _error(errno.EISDIR)
        name, folder = spot.at()
        try:
            handle = os.open(name, flags, mode, dir_fd=folder)
        except OSError as error:
            if error.errno in walk.A_LINK:
                raise ExchangedError from None
            raise
        try:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode):
                raise ExchangedError
            if spot.info is None or not os.path.samestat(info, spot.info):
                self._rules.check_file(info, spot.parts, flags != _READING, spot.shown)
            self._verify(handle, spot)
        except BaseException:
            os.close(handle)
            if flags & os.O_CREAT:
                os.unlink(name, dir_fd=folder)
            raise
        return handle

    def _verify(self, handle: int, spot: Spot) -> None:
        """Without handles of folders: raises StorageError unless an open file is at the path of its name."""
        if spot.folder is None or spot.folder.at("")[1] is not None:
            return
        real = Path(walk.real_path(handle))
        parts = spot.parts[:-1] if real.name != spot.name else spot.parts  # the folder of a draft
        rules = self._rules
        if not real.is_relative_to(rules.base.path):
            raise _unsteady(spot.shown)
        for depth in range(1, len(parts) + 1):
            rules.check_name(real.relative_to(rules.base.path).parts[:depth], False, spot.shown)


def private_root(folder: Path, base: Path, *, protected: ProtectedPlaces | None = None) -> Root:
    """A folder of the product itself: private, and reached through no link as far as it lies below *base*.

    Args:
        protected: what is closed in the folder.
    """
    place, above = Path(os.path.abspath(base / folder)), Path(os.path.abspath(base))
    if place != above and place.is_relative_to(above):
        return Root(above, private=True, protected=protected).below(place.relative_to(above))
    return Root(place, links=False, private=True, protected=protected)


def own_root(base: Path) -> Root:
    """The product's own folder below a base directory."""
    return private_root(Path(".dipeo"), base)


def _content(handle: int, limit: int) -> bytes:
    """The contents of a file, at most *limit* bytes."""
    size = os.fstat(handle).st_size
    pieces: list[bytes] = []
    left = limit
    while left > 0 and (piece := os.read(handle, min(left, max(size + 1, _PIECE)))):
        pieces.append(piece)
        left -= len(piece)
        if len(pieces) == 1 and len(piece) == size:  # more was asked for: this is the end
            break
    return b"".join(pieces)


def _unsteady(path: str | os.PathLike[str]) -> StorageError:
    return refused(os.fspath(path), "something on its way is being exchanged", hint="See who else writes there, and try again.")


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
