"""The run store in a file: SQLite in WAL mode, one transaction per append.

What "stored" means: with `sync="normal"` an acknowledged append survives the death of the process at any moment (kill -9
included); `sync="full"` survives a power cut too and costs a disk sync per append (about ten times the time). SQLite's
own statement of both: https://sqlite.org/pragma.html#pragma_synchronous.

A run belongs to the store object that began or claimed it. When its process is gone and the run has no final event, it is listed
as `interrupted`; nothing is rewritten for that, so a run can still be resumed by whoever claims it. Whether a process of another
machine (or container) lives shows by its heartbeat alone. Each claim gives the run a new fencing token, which every append checks in
its own transaction: who was thought dead, and is not, cannot write any more.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from dipeo_nb.common.aio import uncancelled
from dipeo_nb.common.operations import logged
from dipeo_nb.common.sqlite import close_with, connect, in_transaction
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event, RunSummary
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.memory import (
    answered,
    check_claim,
    check_delete,
    check_order,
    final_status,
    relatives,
    taken_over,
)
from dipeo_nb.execution.state.rows import Batch, batch_of, chosen, events_of, storable

T = TypeVar("T")
SCHEMA_VERSION = 4
"""`PRAGMA user_version` of the files this version writes."""
APPLICATION_ID = 0x44495045
"""`PRAGMA application_id` ("DIPE"): tells a run store from other SQLite files."""
BUSY_INLINE_MS = 20
"""Milliseconds the loop thread waits for another process's write; then a worker thread waits on."""
BUSY_TOTAL_S = 30.0
"""Seconds after which another process's write counts as stuck."""
COMPACT_MS = 5000
"""Milliseconds that giving space back waits for other processes."""
ROOM_B = 65_536
"""Bytes without which SQLite can open no file to write: the index of the WAL begins with 32 KiB."""
HEARTBEAT_AGE_S = 120.0
"""Seconds without a heartbeat after which a run of another machine counts as interrupted."""

_BLOBS = """
CREATE TABLE blobs (
    run_id TEXT NOT NULL,
    hash TEXT NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (run_id, hash)
);
CREATE TABLE event_blobs (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (run_id, seq, hash)
) WITHOUT ROWID
"""
"""No column of `events`: processes of an earlier version that have the file open go on writing it."""
_LEASES = """
CREATE TABLE leases (
    run_id TEXT PRIMARY KEY,
    token INTEGER NOT NULL
) WITHOUT ROWID
"""
"""The fencing token of each run that has not ended; a table of its own for the same reason."""
_ANSWERS = """
CREATE TABLE answers (
    run_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (run_id, request_id)
) WITHOUT ROWID
"""
"""What other processes answered, until the run has it in its record."""
_SCHEMA = f"""
CREATE TABLE events (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    occurred_at REAL NOT NULL,
    node_id TEXT,
    payload TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    diagram TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    events INTEGER NOT NULL,
    last_at REAL NOT NULL,
    parent_run_id TEXT,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    process_start TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX runs_by_start ON runs (started_at DESC);
CREATE INDEX runs_by_parent ON runs (parent_run_id);
{_BLOBS};
{_LEASES};
{_ANSWERS}
"""
_MIGRATIONS = {1: "CREATE INDEX runs_by_parent ON runs (parent_run_id)", 2: _BLOBS, 3: f"{_LEASES};{_ANSWERS}"}
"""Version → what makes the next one of it."""


@logged("append", "events", "runs", "run")
class SqliteRunStore:
    """`RunStore` in one SQLite file, which other processes may use at the same time.

    Args:
        path: the file; it and its folder are made when missing.
        sync: `normal` or `full`, see above.
        base: a folder below which no symbolic link leads to the file.
    """

    def __init__(
        self, path: str | Path, *, sync: Literal["normal", "full"] = "normal", base: Path | None = None
    ) -> None:
        self.path = Path(path)
        self._base = base
        self._sync = sync
        self._connection: sqlite3.Connection | None = None
        """Of the loop's thread alone: what it reads is committed."""
        self._waiting: sqlite3.Connection | None = None
        """Of the worker threads that wait for another process's write, one at a time."""
        self._one_waits = threading.Lock()
        self._pid = 0
        self._stored: dict[str, tuple[int, bool]] = {}
        self._unwritable: StorageError | None = None
        """Why nothing can be recorded here."""
        self._opened: tuple[int, int] | None = None
        """Which file is open: what is written to one that is at its place no more would be found nowhere."""
        self._tokens: dict[str, int] = {}
        """Of the runs that this object began or claimed."""

    @property
    def place(self) -> str:
        """The file, by its one true name."""
        return os.path.realpath(self.path)

    async def initialize(self) -> None:
        await asyncio.to_thread(self._open)

    async def cleanup(self) -> None:
        connections, self._connection, self._waiting = (self._connection, self._waiting), None, None
        if self._pid == os.getpid():
            for connection in filter(None, connections):
                connection.close()

    async def append(self, events: Sequence[Event]) -> None:
        if not events:
            return
        run_id = events[0].run_id
        self._check_writable()
        stored, ended = self._stored.get(run_id) or self._count(run_id)
        try:
            check_order(events, stored, ended)
        except StorageError:
            self._check_held(events)  # what another wrote meanwhile is in the way: that it was taken over is the reason
            raise
        last = events[-1]
        try:
            batch = batch_of(events)
            await self._transaction("append", lambda connection: _write(connection, events, batch, self._token(events)))
        except (StorageError, asyncio.CancelledError):
            self._stored.pop(run_id, None)  # how much is stored is looked up by the next append
            raise
        except Exception as error:
            self._stored.pop(run_id, None)
            raise self._failed("append", error) from error
        if last.type in FINAL_EVENTS:
            self._stored.pop(run_id, None)
            self._tokens.pop(run_id, None)
        else:
            self._stored[run_id] = (last.seq, False)
            if events[0].seq == 1:
                self._tokens[run_id] = 1

    def _check_writable(self) -> None:
        if self._unwritable is not None and self._unwritable.facts["cause"] == "disk_full" and self._connection is not None:
            self._connection.close()  # there may be room by now
            self._connection = None
        if self._db and (error := self._unwritable) is not None:
            raise StorageError(error.message, hint=error.hint, **error.facts) from error.__cause__
        if self._unwritable is None and _identity(self.path) != self._opened:
            raise StorageError(
                f"Run store {self.path}: the file was moved, replaced or deleted while it was open.",
                hint="Put it back, or start the process (the kernel) anew; that makes a new file if there is none.",
                operation="append",
                path=str(self.path),
                cause="moved",
            )

    def _check_held(self, events: Sequence[Event]) -> None:
        """Raises StorageError when the run that these events go on with was taken over."""
        run_id = events[0].run_id
        if run_id in self._tokens and events[0].seq != 1:
            try:
                _check_lease(self._db, run_id, self._tokens[run_id])
            except sqlite3.Error as error:
                raise self._failed("append", error) from error

    def _token(self, events: Sequence[Event]) -> int | None:
        return 1 if events[0].seq == 1 else self._tokens.get(events[0].run_id)

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        rows = self._read(
            "SELECT seq, type, run_id, occurred_at, node_id, payload FROM events "
            "WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            (run_id, after, -1 if limit is None else limit),
        )
        if not rows:
            return []
        references = dict(
            self._read(
                "SELECT seq, count(*) FROM event_blobs WHERE run_id = ? AND seq > ? AND seq <= ? GROUP BY seq",
                (run_id, after, rows[-1][0]),
            )
        )
        blobs = self._blobs(run_id, after, rows[-1][0]) if references else {}
        return events_of(rows, references, blobs)

    def _blobs(self, run_id: str, after: int, last: int) -> dict[str, str]:
        return dict(
            self._read(
                "SELECT hash, value FROM blobs WHERE run_id = ? AND hash IN "
                "(SELECT hash FROM event_blobs WHERE run_id = ? AND seq > ? AND seq <= ?)",
                (run_id, run_id, after, last),
            )
        )

    async def runs(
        self,
        *,
        limit: int = 100,
        status: str | None = None,
        diagram: str | None = None,
        parent: str | None = None,
        nested: bool = False,
    ) -> list[RunSummary]:
        found: list[RunSummary] = []
        where, values = chosen("?", diagram=diagram, parent=parent, nested=nested)
        for row in self._read(f"{_SELECT_RUNS} {where} ORDER BY started_at DESC, run_id", tuple(values)):
            summary = _summary(row)
            if status is None or summary.status == status:
                found.append(summary)
                if len(found) >= limit:
                    break
        return found

    async def run(self, run_id: str) -> RunSummary | None:
        rows = self._read(f"{_SELECT_RUNS} WHERE run_id = ?", (run_id,))
        return _summary(rows[0]) if rows else None

    async def claim(self, run_id: str, *, mine: bool = False) -> None:
        def take(connection: sqlite3.Connection) -> int:
            rows = connection.execute(f"{_SELECT_RUNS} WHERE run_id = ?", (run_id,)).fetchall()
            own = bool(rows) and _is_own(rows[0])
            holder = _holder(*rows[0][7:9]) if rows else ""
            check_claim(run_id, _summary(rows[0]).status if rows else None, mine and own, holder)
            held = connection.execute("SELECT token FROM leases WHERE run_id = ?", (run_id,)).fetchone()
            token = held[0] + 1 if held else time.time_ns()  # never one that somebody had before the run ended
            connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", (run_id, token))
            connection.execute(
                "UPDATE runs SET status = ?, ended_at = NULL, host = ?, pid = ?, process_start = ? WHERE run_id = ?",
                (str(Status.RUNNING), _HOST, os.getpid(), process_start(os.getpid()) or "", run_id),
            )
            return token

        token = await self._transaction("claim", take)
        self._stored.pop(run_id, None)
        self._tokens[run_id] = token

    async def beat(self, run_id: str) -> bool:
        token = self._tokens.get(run_id)
        if token is None:
            return False
        beat = "UPDATE runs SET last_at = ? WHERE run_id = ? AND (SELECT token FROM leases WHERE run_id = ?) = ?"
        values = (time.time(), run_id, run_id, token)
        try:
            return self._db.execute(beat, values).rowcount == 1
        except sqlite3.Error:
            return True  # whether it is still ours shows at the next beat, or at the next append

    async def put_answer(self, run_id: str, request_id: str, answer: str) -> None:
        def put(connection: sqlite3.Connection) -> None:
            row = (run_id, request_id, answer)
            if not connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", row).rowcount:
                raise answered(run_id, request_id)

        await self._transaction("answer", put)

    async def answers(self, run_id: str) -> dict[str, str]:
        return dict(self._read("SELECT request_id, answer FROM answers WHERE run_id = ?", (run_id,)))

    async def drop_answer(self, run_id: str, request_id: str) -> None:
        query = "DELETE FROM answers WHERE run_id = ? AND request_id = ?"
        await self._transaction("answer", lambda connection: connection.execute(query, (run_id, request_id)))

    async def delete(self, *run_ids: str, mine: bool = False, compact: bool = True) -> list[str]:
        def forget(connection: sqlite3.Connection) -> list[str]:
            rows = {row[0]: row for row in connection.execute(_RELATED, (json.dumps(run_ids), json.dumps(run_ids)))}
            family, above = relatives({run_id: row[6] for run_id, row in rows.items()}, run_ids)
            for row in rows.values():
                if _summary(row).status == Status.RUNNING and not (mine and _is_own(row)):
                    check_delete([row[0]], family, above, _holder(*row[7:9]))
            for table in ("events", "event_blobs", "blobs", "leases", "answers", "runs"):
                connection.execute(f"DELETE FROM {table} WHERE run_id IN (SELECT value FROM json_each(?))", (json.dumps(family),))
            return family

        # Off the loop, as a large run takes its time.
        deleted = await self._transaction("delete", forget, inline=False)
        for run_id in deleted:
            self._stored.pop(run_id, None)
            self._tokens.pop(run_id, None)
        if deleted and compact:
            await self.compact()
        return deleted

    async def compact(self) -> None:
        """Give the space of deleted runs back to the file system; what other processes do meanwhile only waits, or keeps it from
        happening."""
        await asyncio.to_thread(self._compact)

    def _compact(self) -> None:
        self._check_writable()
        connection = self._connected()
        try:
            connection.execute(f"PRAGMA busy_timeout = {COMPACT_MS}")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            # Somebody reads or writes all the time, or there is no room for the copy that this makes: the space stays in the file,
            # and what is recorded next uses it.
            failed = self._failed("compact", error)
            if not _is_busy(error) and failed.facts["cause"] != "disk_full":
                raise failed from error
        finally:
            connection.close()

    # Opening.

    @property
    def _db(self) -> sqlite3.Connection:
        # A connection must not cross a fork (https://sqlite.org/howtocorrupt.html §2.6).
        if self._connection is None or self._pid != os.getpid():
            self._open()
        assert self._connection is not None
        return self._connection

    def _open(self) -> None:
        if self._connection is not None and self._pid == os.getpid():
            return
        deadline = time.monotonic() + BUSY_TOTAL_S
        while True:
            try:
                self._connection = self._connected()
            except (sqlite3.Error, OSError) as error:
                full = self._failed("open", error).facts["cause"] == "disk_full"
                if full or (not _is_busy(error) and not self._can_be_written()):
                    self._open_to_read(error, full=full)
                    return
                # Changing to WAL needs the file alone and does not wait by itself (two processes that start at once).
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise self._failed("open", error) from error
                time.sleep(0.01)
            else:
                if self._pid != os.getpid():
                    self._tokens = {}
                self._pid, self._stored, self._waiting, self._unwritable = os.getpid(), {}, None, None
                self._opened = _identity(self.path)
                return

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
            raise self._failed("open", found) from found
        self._pid, self._stored, self._waiting, self._unwritable = os.getpid(), {}, None, error

    def _connected_to_read(self) -> sqlite3.Connection:
        problem: sqlite3.Error | None = None
        # What is in a WAL file is seen without `immutable` alone, which needs its index file, or a folder to make that in.
        places = [f"{self.path.absolute().as_uri()}?{how}" for how in ("mode=ro", "mode=ro&immutable=1")]
        for place in places if self.path.exists() else [":memory:"]:
            connection = sqlite3.connect(place, isolation_level=None, check_same_thread=False, uri=True)
            try:
                connection.execute("PRAGMA temp_store = MEMORY")
                there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if there and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                    raise sqlite3.DatabaseError("file is not a database of runs")
                for statement in _SCHEMA.split(";"):
                    words = statement.split()
                    if words[:2] == ["CREATE", "TABLE"] and words[2] not in there:  # of an earlier version, or none at all
                        connection.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE", 1))
            except sqlite3.Error as error:
                connection.close()
                problem = error
            else:
                return close_with(self, connection)
        assert problem is not None
        raise problem

    def _connected(self) -> sqlite3.Connection:
        connection = connect(
            self.path, self._base, isolation_level=None, check_same_thread=False, timeout=BUSY_TOTAL_S
        )
        try:
            connection.execute(f"PRAGMA synchronous = {self._sync.upper()}")
            self._migrate(connection)
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA busy_timeout = {BUSY_INLINE_MS}")
        except BaseException:
            connection.close()
            raise
        return close_with(self, connection)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        if owner == APPLICATION_ID and version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION and owner == APPLICATION_ID:
            raise StorageError(
                f"{self.path} was written by a newer version of dipeo_nb (schema {version}; this one knows {SCHEMA_VERSION}).",
                hint="Upgrade dipeo-nb, or use another file (STATE_STORE_PATH).",
                operation="open",
            )
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and owner != APPLICATION_ID:
            raise StorageError(
                f"{self.path} is an SQLite file of something else, not a run store.",
                hint="Use another file (STATE_STORE_PATH).",
                operation="open",
            )
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have made it in the meantime.
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            else:
                for number in range(connection.execute("PRAGMA user_version").fetchone()[0], SCHEMA_VERSION):
                    for statement in _MIGRATIONS[number].split(";"):
                        connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    # Writing.

    async def _transaction(self, operation: str, work: Callable[[sqlite3.Connection], T], *, inline: bool = True) -> T:
        """What *work* gives, done whole or not at all.

        Args:
            inline: on the loop's thread, which takes less than another thread would, unless another process is writing.

        Raises:
            StorageError: the store refuses, or *work* does.
        """
        self._check_writable()
        try:
            if inline:
                return in_transaction(self._db, work)
        except sqlite3.Error as error:
            if not _is_busy(error):
                raise self._failed(operation, error) from error
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
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise self._failed(operation, error) from error
                time.sleep(pause)
                pause = min(pause * 2, 0.2)

    # Reading.

    def _read(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if not storable(values):
            return []
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            raise self._failed("read", error) from error

    def _count(self, run_id: str) -> tuple[int, bool]:
        rows = self._read("SELECT events, ended_at IS NOT NULL FROM runs WHERE run_id = ?", (run_id,))
        return (rows[0][0], bool(rows[0][1])) if rows else (0, False)

    def _failed(self, operation: str, error: Exception) -> StorageError:
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
            hint = "The file is damaged or is no database; it is left as it is. Move it away, or use another one (STATE_STORE_PATH)."
        elif not isinstance(error, (sqlite3.Error, OSError)):
            hint = "Store JSON values: text, numbers, lists, mappings."
        elif _is_busy(error):
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


def _write(connection: sqlite3.Connection, events: Sequence[Event], batch: Batch, token: int | None) -> None:
    """Store events, within a transaction.

    Args:
        token: the fencing token of the run that the writer has; None: it neither began nor claimed it.

    Raises:
        StorageError: `going_on`, another has it now.
    """
    first, last = events[0], events[-1]
    if first.seq != 1:
        _check_lease(connection, first.run_id, token)
    connection.executemany(
        "INSERT INTO events (run_id, seq, type, occurred_at, node_id, payload) VALUES (?, ?, ?, ?, ?, ?)",
        [(first.run_id, *row) for row in batch.events],
    )
    if batch.blobs:
        connection.executemany(
            "INSERT OR IGNORE INTO blobs (run_id, hash, value) VALUES (?, ?, ?)",
            [(first.run_id, name, text) for name, text in batch.blobs.items()],
        )
        connection.executemany(
            "INSERT INTO event_blobs (run_id, seq, hash) VALUES (?, ?, ?)",
            [(first.run_id, seq, name) for seq, names in batch.references.items() for name in names],
        )
    if first.seq == 1:
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?)",
            (
                first.run_id,
                str(first.payload.get("diagram", "")),
                str(Status.RUNNING),
                first.occurred_at,
                last.seq,
                time.time(),
                first.payload.get("parent"),
                _HOST,
                os.getpid(),
                process_start(os.getpid()) or "",
            ),
        )
        connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", (first.run_id, token))
    if last.type in FINAL_EVENTS:
        connection.execute(
            "UPDATE runs SET status = ?, ended_at = ?, events = ?, last_at = ? WHERE run_id = ?",
            (final_status(last), last.occurred_at, last.seq, time.time(), last.run_id),
        )
        connection.execute("DELETE FROM leases WHERE run_id = ?", (last.run_id,))
    elif first.seq != 1:
        connection.execute(
            "UPDATE runs SET events = ?, last_at = ? WHERE run_id = ?",
            (last.seq, time.time(), last.run_id),
        )


def _check_lease(connection: sqlite3.Connection, run_id: str, token: int | None) -> None:
    held = connection.execute("SELECT token FROM leases WHERE run_id = ?", (run_id,)).fetchone()
    owner = connection.execute("SELECT host, pid FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    if owner is None:
        return  # deleted: the order of its events says so
    if held is None:  # begun by an earlier version, which gives no tokens: its process tells
        if owner != (_HOST, os.getpid()):
            raise taken_over(run_id, _holder(*owner))
    elif held[0] != token:
        raise taken_over(run_id, _holder(*owner))


def _holder(host: str, pid: int) -> str:
    """Who has a run, in words."""
    return f"process {pid} on {host.partition(':')[0] or 'this machine'}"


_SELECT_RUNS = "SELECT run_id, diagram, status, started_at, ended_at, events, parent_run_id, host, pid, process_start, last_at FROM runs"


_RELATED = f"""
WITH RECURSIVE below(run_id) AS (
    SELECT value FROM json_each(?)
    UNION SELECT runs.run_id FROM runs JOIN below ON runs.parent_run_id = below.run_id
), above(run_id) AS (
    SELECT value FROM json_each(?)
    UNION SELECT runs.parent_run_id FROM runs JOIN above USING (run_id) WHERE runs.parent_run_id IS NOT NULL
)
{_SELECT_RUNS} WHERE run_id IN (SELECT run_id FROM below UNION SELECT run_id FROM above)
"""
"""Runs, given twice as a JSON array, with all below and above them."""


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at a path; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_own(row: tuple[Any, ...]) -> bool:
    """Whether a row of `_SELECT_RUNS` is of a run that this process has."""
    return row[7] == _HOST and row[8] == os.getpid()


def _summary(row: tuple[Any, ...]) -> RunSummary:
    run_id, diagram, status, started_at, ended_at, events, parent, host, pid, process, last_at = row
    if status == Status.RUNNING:
        gone = process_start(pid) != (process or None) if host == _HOST else time.time() - last_at > HEARTBEAT_AGE_S
        status = str(Status.INTERRUPTED if gone else Status.RUNNING)
    return RunSummary(run_id, diagram, status, started_at, ended_at, events, parent)


def _is_busy(error: Exception) -> bool:
    return "locked" in str(error) or "busy" in str(error)


def _host() -> str:
    """This machine, this boot of it and this container: a process id means nothing beyond them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # containers may share name and boot, and not their process ids
    except OSError:
        namespace = ""
    return f"{platform.node()}:{boot}:{namespace}"


_HOST = _host()


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in the system's own terms; None when there is none (or it is a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return None
    except OSError:
        return None
    else:
        # The command's name may hold blanks and parentheses; the fields begin after the last one (proc(5)).
        fields = text.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"
