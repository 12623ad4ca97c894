"""Opening SQLite files safely, and using them in transactions."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dipeo_nb.common.retry import Backoff
from dipeo_nb.common.root import private_root
from dipeo_nb.errors import StorageError

T = TypeVar("T")
BUSY_S = 30.0
"""Seconds after which another process's write counts as stuck."""
BACKOFF = Backoff(0.01, 0.2)
"""Delays between attempts to open a file that another process has locked."""
_creating = threading.Lock()


class Schema(NamedTuple):
    """Identification of one kind of store, and its tables."""

    application_id: int
    """`PRAGMA application_id`."""
    version: int
    """`PRAGMA user_version` of the files that this version writes."""
    statements: str
    """SQL that creates the tables, separated by semicolons."""


class SqliteFile:
    """One SQLite connection in WAL mode, used by one worker thread at a time; each use is a transaction.

    Args:
        path: the file; it and its folder are created if missing.
        base: a folder below which the path to the file must not contain symbolic links.
    """

    def __init__(self, path: Path, schema: Schema, *, base: Path | None = None) -> None:
        self.path: Path = path
        self.base: Path | None = base
        self._schema = schema
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._lock = threading.Lock()

    async def run(self, operation: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* in a worker thread and return its result.

        Raises:
            StorageError: an error of SQLite; the file is something else, or too new (`refused`).
        """
        return await asyncio.to_thread(self._run, operation, work)

    async def close(self) -> None:
        """Close the connection. Safe to call twice; the next use opens it again."""
        if self._connection is not None or self._lock.locked():  # else nothing was opened: no thread for that
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def _run(self, operation: str, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return in_transaction(self._opened(), work, "BEGIN" if operation in ("read", "open") else "BEGIN IMMEDIATE")
            except (sqlite3.Error, OSError) as error:
                raise failed_database(operation, self.path, error) from error

    def _opened(self) -> sqlite3.Connection:
        # A connection must not cross a fork (https://sqlite.org/howtocorrupt.html, section 2.6).
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        deadline = time.monotonic() + BUSY_S
        for attempt in itertools.count(1):
            connection = None
            try:
                connection = connect(self.path, self.base, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
                self._check(connection)
                if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")  # survives the process; see execution.state.sqlite
            except BaseException as error:
                if connection is not None:
                    connection.close()
                # Changing to WAL needs the file alone and does not wait by itself (two processes that start at once).
                if not (is_busy(error) and time.monotonic() < deadline):
                    raise
                time.sleep(BACKOFF.delay(attempt))
            else:
                self._connection, self._pid = close_with(self, connection), os.getpid()
                return connection
        raise AssertionError("unreachable: counted without end")

    def _check(self, connection: sqlite3.Connection) -> None:
        """Create the tables in an empty file; refuse files of other kinds."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if not tables:
                for statement in filter(str.strip, self._schema.statements.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {self._schema.application_id}")
                connection.execute(f"PRAGMA user_version = {self._schema.version}")
            elif owner != self._schema.application_id:
                raise self._refused("is an SQLite file of something else", "Use another file.")
            elif version > self._schema.version:
                raise self._refused("was written by a newer version of dipeo_nb", "Upgrade dipeo-nb.")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _refused(self, why: str, hint: str) -> StorageError:
        return StorageError(f"{self.path} {why}.", hint=hint, operation="open", path=str(self.path), cause="refused")


def is_busy(error: BaseException) -> bool:
    """Whether another process holds the file, so that a retry may succeed."""
    return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "busy" in str(error))


def connect(path: Path, base: Path | None, **options: Any) -> sqlite3.Connection:
    """Open a database file accessible to the user only; its folder is created with mode 0700, and the file with 0600.

    Args:
        base: a folder below which neither the file nor its parents may be symbolic links or belong to other users.
        options: of `sqlite3.connect`.

    Raises:
        StorageError: `refused`: a link, a folder of another user, or a file with triggers or views, which this package
            does not create.
        OSError, sqlite3.Error: it cannot be created or opened.
    """
    place = Path(os.path.abspath(path))
    if base is None or not place.is_relative_to(os.path.abspath(base)):
        place = Path(os.path.realpath(place))  # links that the user made
        base = place.parent
    root = private_root(place.parent, base)
    with _creating, suppress(FileExistsError):  # this process must not open it before the creating handle is closed
        root.create(place.name).close()
    _close_to_others(root.path / place.name)
    _, before = root.look(place.name)
    connection = sqlite3.connect(root.path / place.name, **options)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        programs = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchone()
        if programs is not None:
            raise _refused(path, f"holds a program of its own ('{programs[0]}')")
        # The file was opened by its name.
        if not os.path.samestat(root.look(place.name)[1], before):
            raise _refused(path, "was exchanged while it was opened")
    except BaseException:
        connection.close()
        raise
    return connection


def in_transaction(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T], begin: str = "BEGIN IMMEDIATE"
) -> T:
    """Return the result of *work*, run in a transaction that is rolled back on errors."""
    connection.execute(begin)
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _close_to_others(file: Path) -> None:
    """Remove the permissions of other users from a file that an earlier version, a copy or a clone left open, and from our own
    folder that contains it. Files of other users are left alone.

    Nothing here opens the file: closing any handle of it would take away the locks of all connections that this process has to it
    (https://sqlite.org/howtocorrupt.html, "Posix advisory locks canceled by a separate thread doing close()"), and another process
    would then delete the write-ahead log that they use.
    """
    if os.name != "posix":
        return
    for place, mode in ((file, 0o600), *(((file.parent, 0o700),) if file.parent.name == ".dipeo" else ())):
        with suppress(OSError):  # it is gone: opening it reports that
            info = os.lstat(place)
            if not stat.S_ISLNK(info.st_mode) and info.st_uid == os.geteuid() and info.st_mode & 0o077:
                _set_mode(place, mode, info)


def _set_mode(place: Path, mode: int, info: os.stat_result) -> None:
    """Change the mode of the inspected file, not of one that replaced it."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(place, mode, follow_symlinks=False)
        return
    handle = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)  # of the place alone: it holds and cancels no locks
    try:
        if os.path.samestat(os.fstat(handle), info):
            os.chmod(f"/proc/self/fd/{handle}", mode)
    finally:
        os.close(handle)


def _refused(path: Path, why: str) -> StorageError:
    return StorageError(
        f"{path} {why}.", hint="Move it away, or use another file.", operation="open", path=str(path), cause="refused"
    )


CAUSES: Mapping[str, tuple[str, str]] = {
    "full|No space": ("disk_full", "Free some disk space; what was stored before is safe."),
    "readonly|read-only|Read-only": ("read_only", "Make the file and its folder writable, or use another file."),
    "Permission|unable to open": ("permission", "Make the file and its folder accessible, or use another file."),
    "not a database|malformed": (
        "corrupt",
        "The file is damaged or not a database; it is left as it is. Use another one.",
    ),
    "locking protocol|No locks": ("unsupported", "The file system has no locks; use a folder on a local disk."),
    "locked|busy": ("unavailable", "Another process holds the file; end it and try again."),
}
"""Words of an error → (cause, hint)."""


def failed_database(operation: str, path: str | Path, error: Exception) -> StorageError:
    """Convert an error of SQLite, or of opening its file, to ours."""
    text = str(error)
    unknown = ("failed", "Check the file and its folder.")
    known = (facts for words, facts in CAUSES.items() if any(word in text for word in words.split("|")))
    cause, hint = next(known, unknown)
    return StorageError(f"Cannot {operation} {path}: {text}.", hint=hint, operation=operation, path=str(path), cause=cause)


def close_with(owner: object, connection: sqlite3.Connection) -> sqlite3.Connection:
    """Close a connection when its owner is collected or the interpreter ends, for stores that are never closed.

    Since Python 3.13 a connection that is collected while it is open is reported as a ResourceWarning. A process that
    was forked off leaves the connection of its parent alone (https://sqlite.org/howtocorrupt.html, "Carrying an open
    database connection across a fork").
    """
    weakref.finalize(owner, _close, connection, os.getpid())
    return connection


def _close(connection: sqlite3.Connection, pid: int) -> None:
    if os.getpid() == pid:
        connection.close()
