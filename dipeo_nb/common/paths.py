"""Names of files: what a path from a diagram, a request or a user may look like. `common.root` follows it on the disk."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePath

from dipeo_nb.errors import StorageError, ValidationError

NAME_LIMIT = 255
"""Bytes of one path component, as file systems have it."""
PATH_LIMIT = 4096
"""Bytes of a whole path."""
_WINDOWS_DRIVE = re.compile(r"^[A-Za-z]:")
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")
_NOT_ON_WINDOWS = re.compile(r'[<>"|?*]')
_RESERVED = re.compile(r"^(con|prn|aux|nul|conin\$|conout\$|com[\d¹²³]|lpt[\d¹²³]) *(\..*|:.*)?$", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")


def from_home(path: str | os.PathLike[str]) -> Path:
    """A path of the user's, with `~` and `~name` as the home of a user.

    Raises:
        ValidationError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise ValidationError(
            f"'{path!s:.200}' begins with the home of a user, and there is no user '{user[1:]:.60}'.",
            hint="Name the folder itself; one that is called so is './~…'.",
        ) from None


def path_parts(
    path: str | os.PathLike[str], base: Path | None = None, *, suffixes: Collection[str] | None = None
) -> tuple[str, ...]:
    """The components of a path below a folder, `..` among them where it goes back to a component before it.

    Nothing on the disk is looked at.

    Args:
        base: the folder; an absolute path is accepted when it lies inside. None: only relative ones are.
        suffixes: endings of names that are allowed (`.json`), in lower case; None: all.

    Raises:
        StorageError: it leads outside, or is not a name a file here should have: empty, NUL or control characters, invisible
            characters, addresses (`http://…`), `C:` drives, `\\\\host` shares, `~user`, device names of Windows, components
            over 255 bytes, components that end in a blank or a dot, another ending than those of `suffixes`.
    """
    text = path.as_posix() if isinstance(path, PurePath) and not path.is_absolute() else os.fspath(path)
    absolute = os.path.isabs(text) or text.startswith("/")
    _check(text, absolute)
    parts = _below(text, base) if absolute else tuple(part for part in text.split("/") if part not in ("", "."))
    depth = 0
    for part in parts:
        _check_component(part, text)
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise outside(text, base)
    if suffixes is not None and PurePath(text).suffix.lower() not in suffixes:
        names = ", ".join(sorted(suffixes))
        raise refused(text, "files of that kind are not allowed here", hint=f"Use a name that ends in one of {names}.")
    return parts


def plain_parts(parts: Iterable[str]) -> tuple[str, ...]:
    """Components without `..`, as where there are no links."""
    plain: list[str] = []
    for part in parts:
        if part == "..":
            plain.pop()
        else:
            plain.append(part)
    return tuple(plain)


def _check(text: str, absolute: bool) -> None:
    if not text.strip():
        raise refused(text, "it is empty")
    refuse_unseen(text)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise refused(text, "it is not valid text") from None
    if len(encoded) > PATH_LIMIT:
        raise refused(text, f"it is longer than {PATH_LIMIT} bytes")
    native = os.name == "nt" and absolute
    if text.startswith(("\\\\", "//")) or (not native and ("\\" in text or _WINDOWS_DRIVE.match(text))):
        raise refused(
            text,
            "it is a path of another system",
            hint="Write it with forward slashes, relative to the base directory.",
        )
    if _URL.match(text) and not absolute:
        raise refused(text, "it is an address, not a file", hint="Fetch it with an api_job node, then name the file.")
    if text.startswith("~"):
        raise refused(text, "it names a home directory")


def _check_component(part: str, text: str) -> None:
    if len(part) > NAME_LIMIT // 4 and len(os.fsencode(part)) > NAME_LIMIT:
        raise refused(text, f"a component is longer than {NAME_LIMIT} bytes")
    if is_device(part):
        raise refused(text, f"'{part}' is a device name on Windows")
    if part != ".." and part[-1] in ". ":
        raise refused(text, f"'{part}' ends in a space or a dot")
    if os.name == "nt" and ":" in part:
        raise refused(text, f"'{part}' names a stream of a file")


def _below(text: str, base: Path | None) -> tuple[str, ...]:
    """The components of an absolute path below *base*, by its name, else by where it really is."""
    if base is None:
        raise refused(text, "it is absolute")
    for place in (text, os.path.realpath(text)):
        if place == str(base):
            return ()
        beginning = os.path.join(base, "")
        if place.startswith(beginning):
            return tuple(part for part in place[len(beginning) :].split(os.sep) if part not in ("", "."))
    raise outside(text, base)


def outside(path: str, base: Path | None) -> StorageError:
    """The error for a path that leads outside a folder."""
    where = f"the base directory {base}" if base else "its folder"
    hint = "Use a path below it, or another --base-dir."
    return refused(path, f"it leads outside {where}", hint=hint, reason="outside")


def is_device(name: str) -> bool:
    """Whether a name means a device on Windows."""
    return _RESERVED.match(name) is not None


def refuse_unseen(text: str) -> None:
    """Raises StorageError for a name with characters that a reader does not see: control characters, direction marks."""
    if text.isascii() and text.isprintable():
        return
    if _CONTROL.search(text):
        raise refused(text, "it has control characters")
    if _INVISIBLE.search(text):
        raise refused(text, "it has invisible characters")


def refuse_unportable(text: str) -> None:
    """Raises StorageError for a name that a file on Windows could not have; for files that are not there yet."""
    if _NOT_ON_WINDOWS.search(text):
        raise refused(text, "it has characters that names on Windows cannot have")


def refused(path: str, why: str, *, hint: str | None = None, reason: str = "name") -> StorageError:
    """The error of a path that is not allowed; the path is shown cut and without control characters.

    Args:
        reason: kept among the facts: `outside`, `protected`, or `name` for all others.
    """
    shown = _CONTROL.sub("�", _INVISIBLE.sub("�", path))[:120].encode("utf-8", "replace").decode()
    return StorageError(
        f"The path '{shown}' is refused: {why}.",
        hint=hint or "Use a plain relative path below the base directory.",
        operation="resolve",
        path=shown,
        cause="refused",
        reason=reason,
    )


def name_below(path: str, base: Path) -> str:
    """The name of a path below a folder: without `.`, `..` and blanks around it, and relative also when it was absolute."""
    name = posixpath.normpath(path.strip())
    for folder in dict.fromkeys((str(base), os.path.realpath(base))):
        if name.startswith(f"{folder}/"):
            return name.removeprefix(f"{folder}/")
    return name
