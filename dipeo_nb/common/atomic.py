"""Writing files so that a reader sees the old content or the new, never a mix, whatever kills the writer."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, data: bytes, *, mode: int | None = None, create_only: bool = False) -> int:
    """Write *data* to *path* through a temporary file in the same folder; returns the size in bytes.

    The temporary file is synced, takes over the mode of an existing file, and replaces it in one step; then the folder is
    synced, so an acknowledged write survives a power cut.

    Args:
        mode: the permissions, whatever those of an existing file are; nobody has others at any moment.
        create_only: only where there is no such file; of several writers, also in other processes, one succeeds.

    Raises:
        FileExistsError: create_only, and there is one.
        OSError: the folder is missing or read-only, the disk is full. The old content is then still there, and no
            temporary file is left.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, _mode(path) if mode is None else mode)
        if create_only:
            _create(name, path)
        else:
            os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    return len(data)


def _create(draft: str, path: Path) -> None:
    """Give a draft its name unless there is a file of that name."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without links: the name is taken first, as an empty file.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(draft, path)
    else:
        os.unlink(draft)


def _mode(path: Path) -> int:
    """The mode of the file that is replaced, else what the umask leaves of 0666."""
    try:
        return path.stat().st_mode & 0o7777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
            errno.EOPNOTSUPP,
        ):  # file systems that cannot do it for folders
            raise
    finally:
        os.close(handle)
