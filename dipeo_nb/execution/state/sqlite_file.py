"""The file of an SQLite run store: opened, migrated, read and written, with one clear error for whatever goes wrong."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar

from dipeo_nb.common.aio import uncancelled
from dipeo_nb.common.sqlite import close_with, connect, in_transaction, is_busy
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.rows import storable
from dipeo_nb.execution.state.sqlite_schema import migrate, temporary_tables

T = TypeVar("T")
BUSY_INLINE_MS = 20
"""Milliseconds the loop thread waits for another process's write; then a worker thread waits on."""
BUSY_TOTAL_S = 30.0
"""Seconds after which another process's write counts as stuck."""
COMPACT_MS = 5000
"""Milliseconds that releasing space waits for other processes."""
SEEN_S = 0.01
"""Seconds for which a file that was seen at its place is taken to be there while a run continues."""
ROOM_B = 65_536
"""Bytes without which SQLite can open no file to write: the index of the WAL begins with 32 KiB."""


class Busy(Enum):
    """Another process is writing."""

    BUSY = "busy"


BUSY = Busy.BUSY


class RunFile:
    """The file, and the connections of this process to it.

    Args:
        path: the file; it and its folder are created if missing.
        sync: `normal` or `full`, see `execution.state.sqlite`.
        base: a folder below which no symbolic link leads to the file.
        on_open: called when the file was opened, with whether this is a process that was forked off since.
    """

    def __init__(
        self, path: Path, *, sync: Literal["normal", "full"], base: Path | None, on_open: Callable[[bool], None]
    ) -> None:
        self.path = path
        self._name = str(path)
        self._base = base
        self._sync = sync
        self._on_open = on_open
        self._connection: sqlite3.Connection | None = None
        """Of the loop's thread alone: what it reads is committed."""
        self._waiting: sqlite3.Connection | None = None
        """Of the worker threads that wait for another process's write, one at a time."""
        self._one_waits = threading.Lock()
        self._pid = 0
        self._unwritable: StorageError | None = None
        """Why nothing can be recorded here."""
        self._opened: tuple[int, int] | None = None
        """Which file is open: what is written to one that is not at its place any more would be found nowhere."""
        self._seen = -math.inf
        """When it was seen there."""

    # Opening.

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of the loop's thread, opened on first use.

        Raises:
            StorageError: the file cannot be opened.
        """
        # A connection must not cross a fork (https://sqlite.org/howtocorrupt.html, section 2.6).
        if self._connection is None or self._pid != os.getpid():
            self.open()
        assert self._connection is not None
        return self._connection

    def open(self) -> None:
        """Open the file to write, or to read where it cannot be written. Safe to call twice.

        Raises:
            StorageError: it cannot be opened, or is something else.
        """
        if self._connection is not None and self._pid == os.getpid():
            return
        deadline = time.monotonic() + BUSY_TOTAL_S
        while True:
            try:
                self._connection = self._connected()
            except (sqlite3.Error, OSError) as error:
                full = self.failed("open", error).facts["cause"] == "disk_full"
                if full or (not is_busy(error) and not self._can_be_written()):
                    self._open_to_read(error, full=full)
                    return
                # Changing to WAL needs the file alone and does not wait by itself (two processes that start at once).
                if not is_busy(error) or time.monotonic() > deadline:
                    raise self.failed("open", error) from error
                time.sleep(0.01)
            else:
                self._is_open(None)
                self._opened = _identity(self._name)
                return

    def _is_open(self, unwritable: StorageError | None) -> None:
        forked = self._pid != os.getpid()
        self._pid, self._waiting, self._unwritable, self._seen = os.getpid(), None, unwritable, -math.inf
        self._on_open(forked)

    def close(self) -> None:
        """Close the connections of this process. Safe to call twice."""
        connections, self._connection, self._waiting = (self._connection, self._waiting), None, None
        if self._pid == os.getpid():
            for connection in filter(None, connections):
                connection.close()

    def _can_be_written(self) -> bool:
        """Whether the file, or the first folder on the way to it that exists, may be written."""
        folder = next((p for p in self.path.parents if p.exists()), Path())
        return os.access(folder, os.W_OK) and (not self.path.exists() or os.access(self.path, os.W_OK))

    def _open_to_read(self, cause: Exception, *, full: bool) -> None:
        """The runs of a place that cannot be written, or has no room, can be looked at; nothing is recorded there."""
        what = "there is no room on the disk" if full else "the folder or the file may not be written"
        remedy = "Free some disk space" if full else "Make it writable"
        error = StorageError(
            f"Run store {self.path}: {what}.",
            hint=f"{remedy}, or keep runs elsewhere: STATE_STORE_PATH=~/runs.db.",
            operation="append",
            path=str(self.path),
            cause="disk_full" if full else "read_only",
        )
        error.__cause__ = cause
        try:
            self._connection = self._connected_to_read()
        except sqlite3.Error as found:
            raise self.failed("open", found) from found
        self._is_open(error)

    def _connected_to_read(self) -> sqlite3.Connection:
        problem: sqlite3.Error | None = None
        # What is in a WAL file is seen without `immutable` alone, which needs its index file, or a folder to make that in.
        places = [f"{self.path.absolute().as_uri()}?{how}" for how in ("mode=ro", "mode=ro&immutable=1")]
        for place in places if self.path.exists() else [":memory:"]:
            connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False, uri=True)
            try:
                connection.execute("PRAGMA temp_store = MEMORY")
                temporary_tables(connection)
            except sqlite3.Error as error:
                connection.close()
                problem = error
            else:
                return close_with(self, connection)
        assert problem is not None
        raise problem

    def _connected(self) -> sqlite3.Connection:
        connection = connect(self.path, self._base, isolation_level=None, check_same_thread=False, timeout=BUSY_TOTAL_S)
        try:
            connection.execute(f"PRAGMA synchronous = {self._sync.upper()}")
            migrate(connection, self.path)
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA busy_timeout = {BUSY_INLINE_MS}")
        except BaseException:
            connection.close()
            raise
        return close_with(self, connection)

    # Writing.

    def check_writable(self) -> None:
        """See to it that what is written is stored at the path of the file.

        Raises:
            StorageError: the file cannot be written, or is not at its place any more.
        """
        if self._unwritable is not None and self._unwritable.facts["cause"] == "disk_full" and self._connection is not None:
            self._connection.close()  # there may be room by now
            self._connection = None
        if self.connection and (error := self._unwritable) is not None:
            raise StorageError(error.message, hint=error.hint, **error.facts) from error.__cause__
        if self._unwritable is None and _identity(self._name) != self._opened:
            raise StorageError(
                f"Run store {self.path}: the file was moved, replaced or deleted while it was open.",
                hint="Put it back, or restart the process (the kernel), which makes a new file if there is none.",
                operation="append",
                path=str(self.path),
                cause="moved",
            )
        self._seen = time.monotonic()

    def at_once(self, operation: str, work: Callable[[sqlite3.Connection], T], *, lately: bool = False) -> T | Busy:
        """As `transaction` on the loop's thread; BUSY when another process is writing, and nothing was done.

        Args:
            lately: it is enough that the file was at its place a moment ago (`SEEN_S`); looking takes a tenth of a small commit.

        Raises:
            StorageError: the store refuses, or *work* does.
        """
        if not lately or time.monotonic() - self._seen > SEEN_S:
            self.check_writable()
        try:
            return in_transaction(self.connection, work)
        except sqlite3.Error as error:
            if is_busy(error):
                return BUSY
            raise self.failed(operation, error) from error

    async def transaction(self, operation: str, work: Callable[[sqlite3.Connection], T], *, inline: bool = True) -> T:
        """Return the result of *work*, done as a whole or not at all.

        Args:
            inline: on the loop's thread, which takes less than another thread would, unless another process is writing.

        Raises:
            StorageError: the store refuses, or *work* does.
        """
        if inline:
            done = self.at_once(operation, work)
            if done is not BUSY:
                return done
        else:
            self.check_writable()
        # Another process's write is waited for off the loop, so that other runs go on.
        return await uncancelled(asyncio.get_running_loop().run_in_executor(None, self._patiently, operation, work))

    def _patiently(self, operation: str, work: Callable[[sqlite3.Connection], T]) -> T:
        deadline = time.monotonic() + BUSY_TOTAL_S
        pause = 0.005
        while True:
            try:
                # In a transaction on the connection of the loop's thread, others would read and write in the middle of it.
                with self._one_waits:
                    if self._waiting is None:
                        self._waiting = self._connected()
                    return in_transaction(self._waiting, work)
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise self.failed(operation, error) from error
                time.sleep(pause)
                pause = min(pause * 2, 0.2)

    def compact(self) -> None:
        """Release the space of deleted rows to the file system; what other processes do meanwhile only waits, or prevents it."""
        self.check_writable()
        connection = self._connected()
        try:
            connection.execute(f"PRAGMA busy_timeout = {COMPACT_MS}")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            # Somebody reads or writes all the time, or there is no room for the copy that this makes: the space stays in the file,
            # and what is recorded next uses it.
            failed = self.failed("compact", error)
            if not is_busy(error) and failed.facts["cause"] != "disk_full":
                raise failed from error
        finally:
            connection.close()

    # Reading.

    def read(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Return all rows of a query; none when no row can have these values.

        Raises:
            StorageError: the file cannot be read.
        """
        return list(self.rows(query, values))

    def rows(self, query: str, values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        """As `read`, row by row: a caller that has seen enough reads no further."""
        if not storable(values):
            return
        try:
            yield from self.connection.execute(query, values)
        except (sqlite3.Error, OverflowError) as error:
            raise self.failed("read", error) from error

    # Errors.

    def failed(self, operation: str, error: Exception) -> StorageError:
        """Convert an error of SQLite, or of a value that it cannot store, to ours."""
        text = str(error)
        hint = "Check the file and its folder, or use another one (STATE_STORE_PATH)."
        cause = "failed"
        if "full" in text or getattr(error, "errno", None) == 28 or ("disk I/O error" in text and self._has_no_room(error)):
            cause, hint = "disk_full", "Free some disk space; what was stored before is safe."
        elif "readonly" in text or "read-only" in text or isinstance(error, PermissionError):
            cause, hint = "read_only", "Make the file and its folder writable, or use another one (STATE_STORE_PATH)."
        elif "unable to open" in text:  # what SQLite says of a WAL that it cannot make, among other things
            cause, hint = "permission", "Make the file and its folder accessible, or use another one (STATE_STORE_PATH)."
        elif "not a database" in text or "malformed" in text:
            hint = "The file is damaged or is not a database; it is left as it is. Move it away, or use another one (STATE_STORE_PATH)."
        elif not isinstance(error, (sqlite3.Error, OSError)):
            hint = "Store JSON values: text, numbers, lists, mappings."
        elif is_busy(error):
            hint = "Another process holds the file; end it and try again."
        return StorageError(f"Run store {self.path}: {text}.", hint=hint, operation=operation, path=str(self.path), cause=cause)

    def _has_no_room(self, error: Exception) -> bool:
        """Whether an I/O error comes of a full disk: SQLite says so where it cannot make the index of the WAL larger."""
        if getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE":
            return True
        try:
            return shutil.disk_usage(self.path.parent).free < ROOM_B
        except OSError:
            return False


def _identity(path: str) -> tuple[int, int] | None:
    """Which file is at a path; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
