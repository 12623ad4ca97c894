"""Reading `.env` and TOML files of settings: bounded, decoded, and without anything of the environment in their values."""

from __future__ import annotations

import codecs
import io
import os
import re
import stat
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dipeo_nb.errors import ConfigurationError

MAX_BYTES = 256 * 1024
"""Bytes of such a file at most."""
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*+)(?::-(?P<default>[^}$]*+))?\}")


class ForeignFileWarning(UserWarning):
    """A settings file that another user has put into a shared folder."""


def read_dotenv(path: Path) -> dict[str, str]:
    """The variables of a `.env` file, names in upper case; empty when there is no such file.

    `${NAME}` refers to a variable that the file itself sets further up, and for nothing else: a file must not be able to put
    a variable of the environment, such as a key, into a value of its own.

    Raises:
        ConfigurationError: it cannot be read or decoded, is too large, or is not a regular file.
    """
    text = _text(path)
    if not text:
        return {}
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    size = 0
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is not None and binding.value is not None:
            values[binding.key.upper()] = value = _expanded(path, binding.value, values)
            size += len(value)
            if size > MAX_BYTES:
                raise _unreadable(path, "its references make the values too long")
    return values


def _expanded(path: Path, text: str, values: Mapping[str, str]) -> str:
    parts: list[str] = []
    size = end = 0
    for found in _REFERENCE.finditer(text):
        parts += text[end : found.start()], values.get(found["name"].upper()) or found["default"] or ""
        end = found.end()
        size += len(parts[-1])
        if size > MAX_BYTES:
            raise _unreadable(path, "its references make the values too long")
    return "".join((*parts, text[end:]))


def read_toml(path: Path, *, own: bool = False) -> Mapping[str, Any]:
    """The top level of a TOML file; empty when there is no such file.

    Args:
        own: it is the user's own file: it must belong to this user or root, and be writable by no other. Others are taken when
            they belong to this user, to root or to the owner of their folder.

    Raises:
        ConfigurationError: as `read_dotenv`, or it is not TOML.
    """
    try:
        return tomllib.loads(_text(path, own).replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:  # also of a number with too many digits
        raise _unreadable(path, str(error) or "it is nested too deeply") from None


def _text(path: Path, own: bool = False) -> str:
    data = _bytes(path, own)
    bom, encoding = next(((b, e) for b, e in _BOMS if data.startswith(b)), (b"", "utf-8"))
    try:
        text = data[len(bom) :].decode(encoding)
    except UnicodeDecodeError:
        raise _unreadable(path, "it is not UTF-8", "Save it as UTF-8.") from None
    if "\0" in text:
        raise _unreadable(path, "it is not UTF-8 (it has zero bytes)", "Save it as UTF-8.")
    return text


def _bytes(path: Path, own: bool) -> bytes:
    """The content; what is checked is what was opened."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    try:
        facts = os.fstat(handle)
        if stat.S_ISDIR(facts.st_mode):  # such as a virtual environment of that name
            return b""
        if not stat.S_ISREG(facts.st_mode):
            raise _unreadable(path, "it is not a regular file")
        if os.name != "nt" and not _believed(path, handle, facts, own):
            return b""
        if facts.st_size > MAX_BYTES:
            raise _unreadable(path, f"it has more than {MAX_BYTES:,} bytes")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    finally:
        os.close(handle)
    if len(data) > MAX_BYTES:
        raise _unreadable(path, f"it has more than {MAX_BYTES:,} bytes")
    return data


def _believed(path: Path, handle: int, facts: os.stat_result, own: bool) -> bool:
    """Whether a file is taken, by whose it is."""
    ours = facts.st_uid in (os.geteuid(), 0)
    if not own:
        if ours or facts.st_uid == os.stat(path.parent).st_uid:
            return True
        warnings.warn(f"{path} belongs to another user and is ignored.", ForeignFileWarning, stacklevel=2)
        return False
    if not ours:
        raise _unreadable(path, "it belongs to another user")
    if facts.st_mode & 0o022:
        raise _unreadable(path, "other users may write to it", f"Look at it, then: chmod 600 {path}")
    if facts.st_mode & 0o077 and facts.st_uid == os.geteuid():
        os.fchmod(handle, 0o600)  # it may hold keys
    return True


def _unreadable(path: Path, why: str, hint: str = "Correct or remove it.") -> ConfigurationError:
    return ConfigurationError(f"{path} cannot be read: {why.rstrip('.')}.", hint=hint)
