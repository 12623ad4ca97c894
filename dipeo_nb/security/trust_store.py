"""The user's own record of what is trusted: diagrams, folders and settings of folders, in one private file of the data folder;
next to it the secret that signs run records."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.locks import FileLock
from dipeo_nb.errors import StorageError

FILE_NAME = "trust.json"
KEY_NAME = "signing.key"
KEY_BYTES = 32
VERSION = 1
MAX_BYTES = 64 * 1024 * 1024
"""Maximum bytes of the file; a larger one was not written by this package."""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagramTrust:
    """Approval of one closure of diagrams and files, in one base directory."""

    kind: ClassVar[str] = "diagram"
    key: ClassVar[tuple[str, ...]] = ("digest", "base")
    digest: str
    base: str
    name: str = ""
    listing: tuple[str, ...] = ()
    """Lines shown at the time of approval; only for people, and to describe later differences."""
    by: str = ""
    """Source of the approval: `prompt`, `--trust`, `dp.trust` …"""
    path: str = ""
    """The diagram's file, to find an earlier approval when it has changed; empty for text without a file."""
    parts: tuple[tuple[str, str], ...] = ()
    """(name, digest) of what can change separately, to describe changes; the digest of the whole decides."""
    powers: tuple[str, ...] = ()
    """Its permissions, without details."""
    at: str = field(default_factory=_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderTrust:
    """Approval of everything below a folder, as long as it is the same folder."""

    kind: ClassVar[str] = "folder"
    key: ClassVar[tuple[str, ...]] = ("path",)
    path: str
    inode: int
    at: str = field(default_factory=_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsTrust:
    """Approval of the settings that a folder suggests, for exactly these values."""

    kind: ClassVar[str] = "settings"
    key: ClassVar[tuple[str, ...]] = ("folder",)
    folder: str
    digest: str
    """Digest of the folder and the sorted names and values."""
    values: tuple[tuple[str, str], ...] = ()
    """(name, value for display), to describe changes; the digest decides."""
    at: str = field(default_factory=_now)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestMade:
    """The content of a file that an untrusted diagram wrote: it stays untrusted in a trusted folder until it is edited."""

    kind: ClassVar[str] = "guest-made"
    key: ClassVar[tuple[str, ...]] = ("digest",)
    digest: str
    at: str = field(default_factory=_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """A declined request, so that it is not asked again."""

    kind: ClassVar[str] = "declined"
    key: ClassVar[tuple[str, ...]] = ("of", "where", "digest")
    of: Literal["settings", "diagram", "folder"]
    where: str
    """The folder, or the base directory."""
    digest: str = ""
    at: str = field(default_factory=_now)


Record = DiagramTrust | FolderTrust | SettingsTrust | GuestMade | Declined
_Kind = TypeVar("_Kind", DiagramTrust, FolderTrust, SettingsTrust, GuestMade, Declined)
_KINDS: dict[str, type[Record]] = {kind.kind: kind for kind in (DiagramTrust, FolderTrust, SettingsTrust, GuestMade, Declined)}


class TrustStore:
    """Records in `trust.json` (0600, in a folder of mode 0700), shared by all processes of the user.

    A reader sees the old records or the new. A file that belongs to another user, that others may write or that cannot
    be parsed is an error, never an empty record. Records of kinds unknown to this version are kept.

    Args:
        data_dir: the user's data folder; it is created when something is stored.

    Methods raise StorageError when the file cannot be used, without changing anything.
    """

    def __init__(self, data_dir: Path) -> None:
        self.folder: Path = Path(data_dir).expanduser()
        self.path: Path = self.folder / FILE_NAME
        self._seen: tuple[object, tuple[Any, ...]] = (None, ())
        """Identity of the file when it was last read, and its entries."""

    def __repr__(self) -> str:
        return f"TrustStore({str(self.folder)!r})"

    def records(self) -> list[Record]:
        """Return all records, oldest first."""
        return [entry for entry in self._read() if not isinstance(entry, dict)]

    def find(self, kind: type[_Kind], **facts: Any) -> _Kind | None:
        """Return the newest record of a kind whose fields have these values: `find(DiagramTrust, digest=…, base=…)`."""
        return next((r for r in reversed(self._read()) if isinstance(r, kind) and _fits(r, facts)), None)

    def add(self, *records: Record) -> None:
        """Store a record, replacing the one with the same key; an approval replaces a refusal."""
        self._change(lambda known: [*(old for old in known if not any(_replaces(new, old) for new in records)), *records])

    def forget(self, kind: type[Record], **facts: Any) -> int:
        """Remove the records of a kind whose fields have these values; return their number."""
        gone = sum(isinstance(r, kind) and _fits(r, facts) for r in self._read())
        if gone:
            self._change(lambda known: [r for r in known if not (isinstance(r, kind) and _fits(r, facts))])
        return gone

    def signing_key(self) -> bytes:
        """Return the secret that signs run records of this user; created on first use."""
        path = self.folder / KEY_NAME
        if (key := _private(path, others=0o077)) is None:
            self._prepare()
            with self._errors(path, "written"), contextlib.suppress(FileExistsError):  # another process was first
                write_atomic(path, secrets.token_hex(KEY_BYTES).encode(), mode=0o600, create_only=True)
            key = _private(path, others=0o077) or b""
        try:
            secret = bytes.fromhex(key.decode("ascii"))
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise _unusable(path, "it is damaged", "Remove it; then you are asked before earlier runs are resumed.")
        return secret

    def _change(self, changed: Callable[[Sequence[Any]], list[Any]]) -> None:
        self._prepare()
        with self._errors(self.path, "written"), FileLock(self.path.with_name(f"{FILE_NAME}.lock"), private=True):
            entries = changed(self._read())
            rows = [entry if isinstance(entry, dict) else {"kind": entry.kind, **asdict(entry)} for entry in entries]
            text = json.dumps({"version": VERSION, "records": rows}, indent=1, ensure_ascii=False)
            write_atomic(self.path, text.encode("utf-8", "surrogatepass"), mode=0o600)

    def _prepare(self) -> None:
        """Create the folder without access for others, or remove their write permission."""
        with self._errors(self.folder, "made"):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            facts = self.folder.stat()
            if os.name == "nt":  # access control lists protect the user's folders
                return
            if facts.st_uid != os.geteuid():
                raise _unusable(self.folder, "it belongs to another user")
            if facts.st_mode & 0o022:
                self.folder.chmod(stat.S_IMODE(facts.st_mode) & ~0o022)

    def _read(self) -> tuple[Any, ...]:
        """Return the records, and entries of unknown kinds unchanged."""
        try:
            facts = os.stat(self.path, follow_symlinks=False)
        except OSError:
            facts = None  # missing, or reported below
        state = facts and (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size, facts.st_mode, facts.st_uid)
        if state is None or self._seen[0] != state:
            data = _private(self.path, others=0o022)
            self._seen = state, () if data is None else _parsed(self.path, data)
        return self._seen[1]

    @contextlib.contextmanager
    def _errors(self, path: Path, what: str):
        try:
            yield
        except TimeoutError as error:
            raise _unusable(path, "another process keeps it locked", "Wait for it to end, and try again.") from error
        except OSError as error:
            raise StorageError(
                f"{path} cannot be {what}: {error.strerror or error}.",
                hint="Free some space or correct the permissions of that folder; or choose another with DIPEO_DATA_DIR.",
                operation="remember",
                path=str(path),
            ) from error


def _private(path: Path, *, others: int) -> bytes | None:
    """Return the content of a file that belongs to the user; None when there is no file.

    The checks apply to the opened file, so that it cannot be replaced in between.

    Args:
        others: permissions of the group and of others that are refused; further ones are removed.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        link = path.is_symlink()
        raise _unusable(path, "it is a link" if link else str(error.strerror or error)) from error
    try:
        _check(path, handle, others)
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > MAX_BYTES:
        raise _unusable(path, f"it is larger than {MAX_BYTES} bytes")
    return data


def _check(path: Path, handle: int, others: int) -> None:
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        raise _unusable(path, "it is not a regular file")
    if os.name == "nt":  # access control lists protect the user's folders
        return
    if facts.st_uid != os.geteuid():
        raise _unusable(path, "it belongs to another user")
    if facts.st_mode & others:
        way = f"Look at it, then: chmod 600 {path}; or remove it."
        raise _unusable(path, "other users may have read or changed it", way)
    if facts.st_mode & 0o077:
        with contextlib.suppress(OSError):  # only readable: permissions are removed if possible
            os.fchmod(handle, 0o600)


def _parsed(path: Path, data: bytes) -> tuple[Any, ...]:
    try:
        document = json.loads(data.decode("utf-8", "surrogatepass"))
        if document["version"] != VERSION:
            raise _unusable(path, f"it has version {document['version']!r}, not {VERSION}", "Update dipeo-nb.")
        return tuple(_record(row) for row in document["records"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise _unusable(path, "it is damaged") from error


def _record(row: Any) -> Record | dict[str, Any]:
    if not isinstance(row, dict):
        raise TypeError("a record is a mapping")
    kind = _KINDS.get(row.get("kind", ""))
    if kind is None:
        return row
    given = {f.name: _frozen(row[f.name]) for f in fields(kind) if f.name in row}
    record = kind(**given)
    for f in fields(kind):
        value = getattr(record, f.name)
        wanted = {"int": int, "tuple[str, ...]": tuple, "tuple[tuple[str, str], ...]": tuple}.get(str(f.type), str)
        if type(value) is not wanted:
            raise TypeError(f"{f.name} of a record is {type(value).__name__}")
    return record


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _fits(record: Record, facts: dict[str, Any]) -> bool:
    return all(getattr(record, name) == value for name, value in facts.items())


def _replaces(new: Record, old: Any) -> bool:
    if isinstance(old, Declined) and not isinstance(new, Declined):
        # An approval of a folder's settings counts whatever they were when they were declined.
        at_once = isinstance(new, SettingsTrust) and old.of == "settings" and old.where == new.folder
        diagram = isinstance(new, DiagramTrust) and old.of == "diagram" and old.digest == new.digest
        folder = isinstance(new, FolderTrust) and old.of == "folder" and old.where == new.path
        return at_once or diagram or folder
    return type(old) is type(new) and all(getattr(old, name) == getattr(new, name) for name in new.key)


def _unusable(path: Path, why: str, hint: str = "Correct or remove it; then you are asked again.") -> StorageError:
    return StorageError(f"{path} cannot be used: {why}.", hint=hint, operation="read", path=str(path))
