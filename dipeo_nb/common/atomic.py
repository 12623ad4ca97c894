"""Writing files so that a reader sees the old content or the new, never a mix, whatever kills the writer."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dipeo_nb.common import cancellable

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
_EXCLUSIVE = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL
    | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
)  # fmt: skip


_DRAFT = re.compile(r"\..{1,40}\.[0-9a-f]{16}\.tmp", re.DOTALL)


def is_draft(name: str) -> bool:
    """Whether a file of this name is one that is being written, or that a writer which was killed has left."""
    return _DRAFT.fullmatch(name) is not None


def write_atomic(
    path: Path,
    data: bytes,
    *,
    mode: int | None = None,
    create_only: bool = False,
    dir_fd: int | None = None,
    opened: Callable[[int], None] | None = None,
) -> int:
    """Write *data* to *path*, as `replacing` does; returns the size in bytes."""
    with replacing(path, mode=mode, create_only=create_only, dir_fd=dir_fd, opened=opened) as file:
        file.write(data)
    return len(data)


@contextmanager
def replacing(
    path: Path,
    *,
    mode: int | None = None,
    create_only: bool = False,
    dir_fd: int | None = None,
    opened: Callable[[int], None] | None = None,
) -> Iterator[BinaryIO]:
    """A temporary file next to *path*, which replaces it at the end of the block.

    The temporary file is synced, takes over the mode of an existing file, and replaces it in one step; then the folder is
    synced, so an acknowledged write survives a power cut.

    Args:
        mode: the permissions, whatever those of an existing file are; the file never has others.
        create_only: only where there is no such file; of several writers, also in other processes, one succeeds.
        dir_fd: the open folder that *path* is a name in; None: the folder of the path.
        opened: called with the handle of the temporary file before anything is written; may raise.

    Raises:
        FileExistsError: create_only, and there is one.
        OSError: the folder is missing or read-only, the disk is full. The old content is then still there, and no
            temporary file is left.
        WorkCancelledError: see `common.cancellable`; as after an OSError.
    """
    draft, handle = _draft(path, mode, dir_fd)
    try:
        with os.fdopen(handle, "wb") as file:
            if opened is not None:
                opened(handle)
            yield file
            file.flush()
            os.fsync(handle)
        with cancellable.commit():
            if create_only:
                _create(draft, path, dir_fd)
            else:
                os.replace(draft, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=dir_fd)
        raise
    sync_folder(path.parent, dir_fd)


def _draft(path: Path, mode: int | None, dir_fd: int | None) -> tuple[Path, int]:
    """A new, empty file with a unique name, and its handle."""
    old = None if mode is not None else _mode(path, dir_fd)
    beginning = os.fsencode(path.name)[:40].decode(errors="ignore")
    while True:
        draft = path.with_name(f".{beginning}.{secrets.token_hex(8)}.tmp")
        try:
            handle = os.open(draft, _EXCLUSIVE, (0o666 if old is None else 0o600) if mode is None else mode, dir_fd=dir_fd)
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = str(path)  # the name that the caller knows
            raise
        break
    try:
        exact = old if mode is None else mode  # what the umask left may be less
        if exact is not None and hasattr(os, "fchmod"):
            os.fchmod(handle, exact)
    except BaseException:
        os.close(handle)
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=dir_fd)
        raise
    return draft, handle


def _mode(path: Path, dir_fd: int | None) -> int | None:
    """The mode of the file that is replaced; None when there is none."""
    try:
        return stat.S_IMODE(os.stat(path, dir_fd=dir_fd).st_mode)
    except FileNotFoundError:
        return None


def _create(draft: Path, path: Path, dir_fd: int | None) -> None:
    """Give a draft its name unless there is a file of that name."""
    try:
        os.link(draft, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links: the name is taken first, as an empty file.
        os.close(os.open(path, _EXCLUSIVE, dir_fd=dir_fd))
        os.replace(draft, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    else:
        os.unlink(draft, dir_fd=dir_fd)


def sync_folder(folder: Path, dir_fd: int | None = None) -> None:
    """Make the names in a folder survive a power cut, where the file system can."""
    if os.name == "nt":  # Windows cannot open folders
        return
    try:
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0), dir_fd=dir_fd)
    except PermissionError:  # it may be written to, but not be read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)
