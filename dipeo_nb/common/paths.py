"""Confinement: names from diagrams, requests and users stay below one base directory."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

from dipeo_nb.errors import StorageError

NAME_LIMIT = 255
"""Bytes of one path component, as file systems have it."""
PATH_LIMIT = 4096
"""Bytes of a whole path."""
_WINDOWS_DRIVE = re.compile(r"^[A-Za-z]:")
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")
_NOT_ON_WINDOWS = re.compile(r'[<>"|?*]')
_RESERVED = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|com[\d¹²³]|lpt[\d¹²³])(\..*)?$", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")


def confine(
    base: Path, path: str | os.PathLike[str], *, suffixes: Collection[str] | None = None, portable: bool = True
) -> Path:
    """The absolute path that *path* names below *base*; symbolic links are followed and must stay inside.

    An absolute path is accepted when it lies inside. The file need not exist.

    Args:
        suffixes: endings of names that are allowed (`.json`), in lower case; None: all.
        portable: refuse characters that names on Windows cannot have, for what is not there yet; False where they are encoded.

    Raises:
        StorageError: it leads outside, or is no name a file here should have: empty, NUL or control characters,
            invisible direction marks, addresses (`http://…`), `C:` drives, `\\\\host` shares, `~user`, device names of Windows, components over 255 bytes,
            components that end in a blank or a dot, another ending than those of `suffixes`; or it exists and is neither a regular file nor a folder.
    """
    text = os.fspath(path)
    if not text.strip():
        raise refused(text, "it is empty")
    refuse_unseen(text)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise refused(text, "it is not valid text") from None
    if len(encoded) > PATH_LIMIT:
        raise refused(text, f"it is longer than {PATH_LIMIT} bytes")
    if _WINDOWS_DRIVE.match(text) or text.startswith(("\\\\", "//")) or "\\" in text:
        raise refused(
            text,
            "it is a path of another system",
            hint="Write it with forward slashes, relative to the base directory.",
        )
    if _URL.match(text):
        raise refused(text, "it is an address, not a file", hint="Fetch it with an api_job node, then name the file.")
    if text.startswith("~"):
        raise refused(text, "it names a home directory")
    parts = Path(text).parts
    for part in parts:
        if len(os.fsencode(part)) > NAME_LIMIT:
            raise refused(text, f"a component is longer than {NAME_LIMIT} bytes")
        if _RESERVED.match(part):
            raise refused(text, f"'{part}' is a device name on Windows")
        if part not in (".", "..") and part != part.rstrip(". "):
            raise refused(text, f"'{part}' ends in a blank or a dot")
    if suffixes is not None and Path(text).suffix.lower() not in suffixes:
        names = ", ".join(sorted(suffixes))
        raise refused(text, "files of that kind are not allowed here", hint=f"Use a name that ends in one of {names}.")
    root = base.resolve()
    try:
        resolved = (root / text).resolve()
    except (OSError, RuntimeError) as error:
        raise refused(text, f"it cannot be resolved ({error})") from error
    if not resolved.is_relative_to(root):
        raise refused(
            text, f"it leads outside the base directory {root}", hint="Use a path below it, or another --base-dir."
        )
    try:
        mode = resolved.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if portable and _NOT_ON_WINDOWS.search(text):
            raise refused(text, "it has characters that names on Windows cannot have") from None
        return resolved  # whoever uses it says what is missing
    except OSError as error:
        raise refused(text, error.strerror or str(error)) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise refused(text, "it is neither a regular file nor a folder")
    return resolved


def refuse_unseen(text: str) -> None:
    """Raises StorageError for a name with characters that a reader does not see: control characters, direction marks."""
    if _CONTROL.search(text):
        raise refused(text, "it has control characters")
    if _INVISIBLE.search(text):
        raise refused(text, "it has invisible characters")


def refused(path: str, why: str, *, hint: str | None = None) -> StorageError:
    """The error of a path that is not allowed; the path is shown cut and without control characters."""
    shown = _CONTROL.sub("�", _INVISIBLE.sub("�", path))[:120].encode("utf-8", "replace").decode()
    return StorageError(
        f"The path '{shown}' is refused: {why}.",
        hint=hint or "Use a plain relative path below the base directory.",
        operation="resolve",
        path=shown,
        cause="refused",
    )
