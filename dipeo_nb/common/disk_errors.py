"""Errors of the file system as errors of this package: which file, why, what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from dipeo_nb.errors import StorageError

CAUSES = {
    errno.ENOENT: ("not_found", "There is no such file.", "Check the name, or create it."),
    errno.EISDIR: ("is_directory", "It is a folder.", "Name a file."),
    errno.EACCES: ("permission", "It may not be accessed.", "Change its permissions."),
    errno.EPERM: ("permission", "It may not be accessed.", "Change its permissions."),
    errno.ENOSPC: ("disk_full", "The disk is full.", "Free some space; the old content is untouched."),
    errno.EDQUOT: ("disk_full", "The quota is used up.", "Free some space; the old content is untouched."),
    errno.EFBIG: ("too_large", "The file would be too large.", "Write less; the old content is untouched."),
    errno.ELOOP: ("refused", "A symbolic link is in the way.", "Remove the link."),
    errno.ENAMETOOLONG: ("refused", "Its name is too long.", "Use a shorter name."),
    errno.EROFS: ("read_only", "The file system is read-only.", "Use another base directory."),
    errno.EEXIST: ("not_a_directory", "A part of the path is a file.", "Choose another path."),
    errno.ENOTDIR: ("not_a_directory", "A part of the path is a file.", "Choose another path."),
    errno.ENOLCK: ("unsupported", "The file system has no locks.", "Use a folder on a local disk."),
    errno.ENOTSUP: ("unsupported", "The file system cannot do that.", "Use a folder on a local disk."),
    errno.EOPNOTSUPP: ("unsupported", "The file system cannot do that.", "Use a folder on a local disk."),
    errno.ENOSYS: ("unsupported", "The file system cannot do that.", "Use a folder on a local disk."),
    errno.ESTALE: ("unavailable", "Its server has lost it.", "Try again, or use a folder on a local disk."),
    errno.EIO: ("failed", "The disk does not answer as it should.", "Check the disk, or use another folder."),
    errno.EMFILE: ("failed", "This process has too many files open.", "Close some, or raise the limit (ulimit -n)."),
    errno.ENFILE: ("failed", "The machine has too many files open.", "End programs that you do not need."),
}
"""Number of an error → (cause, what is wrong, what to do)."""


def failed(operation: str, path: str | Path, error: OSError) -> StorageError:
    """The system's error as ours: which file, why, what to do."""
    unknown = ("failed", f"{error.strerror or error}.", "Check the file and its folder.")
    cause, message, hint = CAUSES.get(error.errno or 0, unknown)
    return StorageError(f"Cannot {operation} '{path}': {message}", hint=hint, operation=operation, path=str(path), cause=cause)
