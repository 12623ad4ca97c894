"""The run store in a file: SQLite in WAL mode, one transaction per append, or for the appends of several runs at about one time.

What "stored" means: with `sync="normal"` an acknowledged append survives the death of the process at any moment (kill -9
included); `sync="full"` survives a power cut too and costs a disk sync per append (about ten times the time). SQLite's
own statement of both: https://sqlite.org/pragma.html#pragma_synchronous.

A run belongs to the store object that began or claimed it. When its process is gone and the run has no final event, it is listed
as `interrupted`; nothing is rewritten for that, so a run can still be resumed by its next owner. Whether a process of another
machine (or container) lives shows by its heartbeat alone. Each claim gives the run a new fencing token, which every append checks in
its own transaction: who was thought dead, and is not, cannot write any more.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from types import CoroutineType
from typing import Any, Literal

from dipeo_nb.common import injection
from dipeo_nb.common.aio import DONE
from dipeo_nb.common.operation_log import logged
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event, RunSummary
from dipeo_nb.domain.ports import RunStore, Snapshot
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.condensing import ROWS, Condensed, condensed, ended_at
from dipeo_nb.execution.state.group_commit import Addition, GroupCommit
from dipeo_nb.execution.state.machine import HOST, holder, process_start
from dipeo_nb.execution.state.rows import PACK, batch_of, chosen, events_of, like
from dipeo_nb.execution.state.rules import (
    answered,
    check_claim,
    check_delete,
    check_order,
    relatives,
)
from dipeo_nb.execution.state.snapshots import Attached, hashes_of, row_of, rows_of, snapshot_of
from dipeo_nb.execution.state.sqlite_events import check_lease, insert, token_of, write, write_snapshot
from dipeo_nb.execution.state.sqlite_file import BUSY, RunFile
from dipeo_nb.execution.state.sqlite_schema import COUNT, HOLDING, SCHEMA_VERSION

__all__ = ["SCHEMA_VERSION", "SqliteRunStore"]

STEPS = frozenset({EventType.NODE_STARTED, EventType.NODE_COMPLETED, EventType.NODE_OUTPUT})
"""Types of most events: of these, many are appended in a moment."""
HEARTBEAT_AGE_S = 120.0
"""Seconds without a heartbeat after which a run of another machine counts as interrupted."""


@logged("append", "events", "runs", "run", _append_together="append", _append_in_turn="append")
class SqliteRunStore(RunStore):
    """`RunStore` in one SQLite file, which other processes may use at the same time.

    Args:
        path: the file; it and its folder are made when missing.
        sync: `normal` or `full`, see above.
        base: a folder below which no symbolic link leads to the file.
    """

    def __init__(self, path: str | Path, *, sync: Literal["normal", "full"] = "normal", base: Path | None = None) -> None:
        self.path = Path(path)
        self._stored: dict[str, tuple[int, bool]] = {}
        """Of runs that are going on: number of the last event, and whether the run has ended."""
        self._tokens: dict[str, int] = {}
        """Of the runs that this object began or claimed."""
        self._written: dict[str, int] = {}
        """Of these: the number of the last event that it is known to have stored."""
        self._attached = Attached()
        self._group = GroupCommit(self._store)
        self._latest = ""
        """The run that appended last: one that has the store to itself for the moment need not wait for others to come."""
        self._file = RunFile(
            self.path, sync=sync, base=base, on_open=partial(_forget, self._stored, self._tokens, self._written)
        )

    @property
    def place(self) -> str:
        """The file, by its one true name."""
        return os.path.realpath(self.path)

    async def initialize(self) -> None:
        await asyncio.to_thread(self._file.open)

    async def cleanup(self) -> None:
        self._file.close()

    def append(self, events: Sequence[Event]) -> CoroutineType[Any, Any, None]:
        if not events:
            return DONE
        run_id = events[0].run_id
        together = self._group.busy or (self._latest != run_id and len(self._tokens) > 1)
        self._latest = run_id
        if together:
            return self._append_together(events)
        addition = self._addition(events)
        write = partial(self._write, (addition,))
        lately = events[0].type in STEPS and events[-1].type in STEPS
        try:
            stored = self._file.at_once("append", write, lately=lately) is not BUSY
        except Exception as error:
            if (failed := self._failed(run_id, error)) is error:
                raise
            raise failed from error
        if stored:
            self._settle((addition,))
            return DONE
        del self._stored[run_id]  # it may never be awaited
        return self._append_in_turn(addition)

    def _addition(self, events: Sequence[Event]) -> Addition:
        """What is to be written; what comes next comes behind it, also when they are written together.

        Raises:
            StorageError: it is not what comes next, or has no encoding.
        """
        run_id, last = events[0].run_id, events[-1]
        attached = self._attached.take(run_id)
        stored, ended = self._stored.get(run_id) or self._count(run_id)
        try:
            check_order(events, stored, ended)
        except StorageError:
            self._check_held(events)  # what another wrote meanwhile is in the way: that it was taken over is the reason
            raise
        addition = Addition(events, batch_of(events), rows_of(attached, last.seq) if attached else (), ended)
        self._stored[run_id] = (last.seq, ended or last.type in FINAL_EVENTS)
        return addition

    async def _append_together(self, events: Sequence[Event]) -> None:
        await self._awaited(events[0].run_id, self._group.add(self._addition(events)))

    async def _append_in_turn(self, addition: Addition) -> None:
        """Another process was writing."""
        last = addition.events[-1]
        self._stored[last.run_id] = (last.seq, addition.of_ended or last.type in FINAL_EVENTS)
        await self._awaited(last.run_id, self._store_in_turn((addition,)))

    async def _awaited(self, run_id: str, storing: Awaitable[None]) -> None:
        try:
            await storing
        except asyncio.CancelledError:
            self._stored.pop(run_id, None)
            raise
        except Exception as error:
            if (failed := self._failed(run_id, error)) is error:
                raise
            raise failed from error

    def _failed(self, run_id: str, error: Exception) -> StorageError:
        self._stored.pop(run_id, None)  # how much is stored is looked up by the next append
        return error if isinstance(error, StorageError) else self._file.failed("append", error)

    def _store(self, additions: Sequence[Addition]) -> Awaitable[None]:
        """Store what several runs add, all of it or nothing; what is returned is to be awaited at once."""
        if self._file.at_once("append", partial(self._write, additions)) is BUSY:
            return self._store_in_turn(additions)
        self._settle(additions)
        return DONE

    async def _store_in_turn(self, additions: Sequence[Addition]) -> None:
        await self._file.transaction("append", partial(self._write, additions), inline=False)
        self._settle(additions)

    def _write(self, additions: Sequence[Addition], connection: sqlite3.Connection) -> None:
        written: dict[str, int] = {}
        for events, batch, snapshots, of_ended in additions:
            first, last = events[0], events[-1]
            run_id = first.run_id
            if first.seq == 1:
                token, before = 1, 0
            elif run_id in written:
                token, before = self._tokens.get(run_id, 1), written[run_id]
            else:
                token, before = self._tokens.get(run_id), self._written.get(run_id)
            write(connection, events, batch, token, snapshots, follows=before == first.seq - 1, of_ended=of_ended)
            written[run_id] = last.seq
        if injection.hook is not None:
            injection.reach("store.append")

    def _settle(self, additions: Sequence[Addition]) -> None:
        """They are stored."""
        for events, _, _, of_ended in additions:
            run_id = events[0].run_id
            if events[0].seq == 1:
                self._tokens[run_id] = 1
            self._written[run_id] = events[-1].seq
            if of_ended or events[-1].type in FINAL_EVENTS:
                self._forget(run_id)

    def _forget(self, run_id: str) -> None:
        """It has ended, or is gone."""
        for known in (self._stored, self._tokens, self._written):
            known.pop(run_id, None)

    def _check_held(self, events: Sequence[Event]) -> None:
        """Raises StorageError when the run that these events go on with was taken over."""
        run_id = events[0].run_id
        if run_id in self._tokens and events[0].seq != 1:
            try:
                check_lease(self._file.connection, run_id, self._tokens[run_id])
            except sqlite3.Error as error:
                raise self._file.failed("append", error) from error

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        rows = self._file.read(_SELECT_EVENTS, (run_id, run_id, after, -1 if limit is None else limit + 1))
        if not rows:
            return []
        references = dict(
            self._file.read(
                "SELECT seq, count(*) FROM event_blobs WHERE run_id = ? AND seq > ? AND seq <= ? GROUP BY seq",
                (run_id, after, rows[-1][0]),
            )
        )
        blobs = self._blobs_of_events(run_id, after, rows[-1][0]) if references else {}
        if rows[0][0] <= after and rows[0][1] != PACK:
            del rows[0]
        return events_of(rows, references, blobs, after=after, limit=limit)

    def _blobs_of_events(self, run_id: str, after: int, last: int) -> dict[str, str]:
        return dict(
            self._file.read(
                "SELECT hash, value FROM blobs WHERE run_id = ? AND hash IN "
                "(SELECT hash FROM event_blobs WHERE run_id = ? AND seq > ? AND seq <= ?)",
                (run_id, run_id, after, last),
            )
        )

    async def snapshot(self, run_id: str, kind: str) -> Snapshot | None:
        query = (
            "SELECT version, seq, content, blobs FROM snapshots WHERE run_id = ? AND kind = ? "
            f"AND seq <= (SELECT {COUNT} FROM runs WHERE run_id = snapshots.run_id)"
        )
        for version, seq, content, names in self._file.read(query, (run_id, kind)):
            query = "SELECT hash, value FROM blobs WHERE run_id = ? AND hash IN (SELECT value FROM json_each(?))"
            blobs = dict(self._file.read(query, (run_id, json.dumps(found)))) if (found := hashes_of(names)) else {}
            return snapshot_of(run_id, kind, (version, seq, content), blobs)
        return None

    def attach_snapshot(self, snapshot: Snapshot) -> None:
        self._attached.add(snapshot)

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        found = row_of(snapshot)

        def put(connection: sqlite3.Connection) -> None:
            query = f"SELECT 1 FROM runs WHERE run_id = ? AND {COUNT} >= ?"
            if connection.execute(query, (snapshot.run_id, snapshot.seq)).fetchone():
                query = "SELECT 1 FROM snapshots WHERE run_id = ? AND kind = ? AND version = ? AND seq >= ?"
                if not connection.execute(query, (snapshot.run_id, snapshot.kind, snapshot.version, snapshot.seq)).fetchone():
                    write_snapshot(connection, found)

        await self._file.transaction("snapshot", put)

    async def runs(
        self,
        *,
        limit: int = 100,
        status: str | None = None,
        diagram: str | None = None,
        parent: str | None = None,
        nested: bool = False,
    ) -> list[RunSummary]:
        where, values = chosen("?", diagram=diagram, parent=parent, nested=nested)
        if status is not None:
            # Whether the process of a run lives stands in no row: those that may be interrupted are looked at one by one.
            unsure = (str(Status.RUNNING), str(Status.INTERRUPTED))
            stored = unsure if status in unsure else (status,)
            where += f"{' AND' if where else 'WHERE'} status IN ({', '.join('?' * len(stored))})"
            values += stored
        rows = self._file.rows(f"{_SELECT_RUNS} {where} ORDER BY started_at DESC, run_id", tuple(values))
        summaries = (summary for row in rows if status in (None, (summary := _summary(row)).status))
        return list(islice(summaries, max(limit, 0)))

    async def holding(self, text: str) -> set[str]:
        pattern = like(text)
        rows = await asyncio.to_thread(self._file.read, HOLDING, (pattern, pattern))
        return {row[0] for row in rows}

    async def run(self, run_id: str) -> RunSummary | None:
        rows = self._file.read(f"{_SELECT_RUNS} WHERE run_id = ?", (run_id,))
        return _summary(rows[0]) if rows else None

    async def claim(self, run_id: str, *, owned: bool = False) -> None:
        def take(connection: sqlite3.Connection) -> int:
            rows = connection.execute(f"{_SELECT_RUNS} WHERE run_id = ?", (run_id,)).fetchall()
            own = bool(rows) and _is_own(rows[0])
            by = holder(*rows[0][7:9]) if rows else ""
            check_claim(run_id, _summary(rows[0]).status if rows else None, owned and own, by)
            held = token_of(connection, run_id)
            token = time.time_ns() if held is None else held + 1  # never one that somebody had before the run ended
            connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", (run_id, token))
            connection.execute(
                f"UPDATE runs SET status = ?, ended_at = NULL, events = {COUNT}, host = ?, pid = ?, process_start = ? WHERE run_id = ?",
                (str(Status.RUNNING), HOST, os.getpid(), process_start(os.getpid()) or "", run_id),
            )
            return token

        token = await self._file.transaction("claim", take)
        self._forget(run_id)
        self._tokens[run_id] = token

    async def beat(self, run_id: str) -> bool:
        token = self._tokens.get(run_id)
        if token is None:
            return False
        beat = "UPDATE runs SET last_at = ? WHERE run_id = ? AND (SELECT token FROM leases WHERE run_id = ?) = ?"
        values = (time.time(), run_id, run_id, token)
        try:
            return self._file.connection.execute(beat, values).rowcount == 1
        except sqlite3.Error:
            return True  # whether it is still ours shows at the next beat, or at the next append

    async def put_answer(self, run_id: str, request_id: str, answer: str) -> None:
        def put(connection: sqlite3.Connection) -> None:
            row = (run_id, request_id, answer)
            if not connection.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", row).rowcount:
                raise answered(run_id, request_id)

        await self._file.transaction("answer", put)

    async def answers(self, run_id: str) -> dict[str, str]:
        return dict(self._file.read("SELECT request_id, answer FROM answers WHERE run_id = ?", (run_id,)))

    async def drop_answer(self, run_id: str, request_id: str) -> None:
        query = "DELETE FROM answers WHERE run_id = ? AND request_id = ?"
        await self._file.transaction("answer", lambda connection: connection.execute(query, (run_id, request_id)))

    async def delete(self, *run_ids: str, owned: bool = False, compact: bool = True) -> list[str]:
        def forget(connection: sqlite3.Connection) -> list[str]:
            rows = {row[0]: row for row in connection.execute(_RELATED, (json.dumps(run_ids), json.dumps(run_ids)))}
            family, above = relatives({run_id: row[6] for run_id, row in rows.items()}, run_ids)
            for row in rows.values():
                if _summary(row).status == Status.RUNNING and not (owned and _is_own(row)):
                    check_delete([row[0]], family, above, holder(*row[7:9]))
            for table in ("events", "event_blobs", "blobs", "leases", "answers", "snapshots", "runs"):
                connection.execute(
                    f"DELETE FROM {table} WHERE run_id IN (SELECT value FROM json_each(?))", (json.dumps(family),)
                )
            injection.reach("store.delete")
            return family

        # Off the loop, as a large run takes its time.
        deleted = await self._file.transaction("delete", forget, inline=False)
        for run_id in deleted:
            self._forget(run_id)
        if deleted and compact:
            await self.compact()
        return deleted

    async def condense(self, run_id: str) -> int:
        breaks = {row[0] for row in self._file.read("SELECT seq FROM snapshots WHERE run_id = ?", (run_id,))}
        saved = last = 0
        end = ended_at(await self.run(run_id))
        while last < end and (rows := self._file.read(_SELECT_ROWS, (run_id, last, ROWS))):
            last = rows[-1][0]
            found = await asyncio.to_thread(lambda rows=rows: list(condensed(rows, breaks)))

            def replace(connection: sqlite3.Connection, found: list[Condensed] = found) -> bool:
                ended = connection.execute("SELECT 1 FROM runs WHERE run_id = ? AND ended_at IS NOT NULL", (run_id,)).fetchone()
                for gone, batch in found if ended else ():
                    query = "DELETE FROM events WHERE run_id = ? AND seq IN (SELECT value FROM json_each(?))"
                    connection.execute(query, (run_id, json.dumps(gone)))
                    insert(connection, run_id, batch)
                injection.reach("store.condense")
                return ended is not None

            if found:
                if not await self._file.transaction("condense", replace, inline=False):
                    break  # it was resumed
                saved += sum(len(gone) - len(batch.events) for gone, batch in found)
        return saved

    async def compact(self) -> None:
        await asyncio.to_thread(self._file.compact)

    def _count(self, run_id: str) -> tuple[int, bool]:
        rows = self._file.read(f"SELECT {COUNT}, ended_at IS NOT NULL FROM runs WHERE run_id = ?", (run_id,))
        return (rows[0][0], bool(rows[0][1])) if rows else (0, False)


def _forget(stored: dict[str, tuple[int, bool]], tokens: dict[str, int], written: dict[str, int], forked: bool) -> None:
    """The file was opened: what it holds may be different from what was known, and a forked process has no runs of its own."""
    stored.clear()
    written.clear()
    if forked:
        tokens.clear()


_SELECT_EVENTS = (
    "SELECT seq, type, run_id, occurred_at, node_id, payload FROM events WHERE run_id = ? "
    "AND seq >= coalesce((SELECT max(seq) FROM events WHERE run_id = ? AND seq <= ?), 0) ORDER BY seq LIMIT ?"
)
"""From the row on that may be a pack with the first event."""
_SELECT_ROWS = (
    "SELECT seq, CASE WHEN EXISTS (SELECT 1 FROM event_blobs WHERE run_id = events.run_id AND seq = events.seq) THEN '' ELSE type END, "
    "run_id, occurred_at, node_id, payload FROM events WHERE run_id = ? AND seq > ? ORDER BY seq LIMIT ?"
)
"""Rows as they are; those that refer to blobs have no type."""
_SELECT_RUNS = (
    "SELECT run_id, diagram, status, started_at, ended_at, "
    f"CASE WHEN ended_at IS NULL THEN {COUNT} ELSE events END, parent_run_id, host, pid, process_start, last_at FROM runs"
)


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


def _is_own(row: tuple[Any, ...]) -> bool:
    """Whether a row of `_SELECT_RUNS` is of a run that this process has."""
    return row[7] == HOST and row[8] == os.getpid()


def _summary(row: tuple[Any, ...]) -> RunSummary:
    run_id, diagram, status, started_at, ended_at, events, parent, host, pid, process, last_at = row
    if status == Status.RUNNING:
        gone = process_start(pid) != (process or None) if host == HOST else time.time() - last_at > HEARTBEAT_AGE_S
        status = str(Status.INTERRUPTED if gone else Status.RUNNING)
    return RunSummary(run_id, diagram, status, started_at, ended_at, events, parent)
