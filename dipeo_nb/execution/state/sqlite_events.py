"""Events written to an SQLite run store, within a transaction: the rows, the fencing token that gives the right to write them, and the
row of their run."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence

from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event
from dipeo_nb.execution.state.machine import HOST, holder, process_start
from dipeo_nb.execution.state.rows import PACK, Batch, compressed
from dipeo_nb.execution.state.rules import check_order, final_status, taken_over
from dipeo_nb.execution.state.snapshots import SnapshotRow
from dipeo_nb.execution.state.sqlite_schema import COUNT


def write(
    connection: sqlite3.Connection,
    events: Sequence[Event],
    batch: Batch,
    token: int | None,
    snapshots: Sequence[SnapshotRow],
    *,
    follows: bool,
    of_ended: bool,
) -> None:
    """Store events, within a transaction.

    Args:
        token: the fencing token of the run that the writer has; None: it neither began nor claimed it.
        follows: the writer is known to have stored the event before them.
        of_ended: they are notes on a run that has ended, which is nobody's.

    Raises:
        StorageError: `going_on`, another has it now.
    """
    first, last = events[0], events[-1]
    if first.seq != 1:
        counted = not follows or of_ended or last.type in FINAL_EVENTS or batch.events[-1][1] == PACK
        if counted or token is None or token_of(connection, first.run_id) != token:
            _go_on(connection, first, last, token, of_ended=of_ended)
    insert(connection, first.run_id, batch)
    if first.seq == 1:
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?)",
            (
                first.run_id,
                str(first.started.get("diagram", "")),
                str(Status.RUNNING),
                first.occurred_at,
                last.seq,
                time.time(),
                first.started.get("parent"),
                HOST,
                os.getpid(),
                process_start(os.getpid()) or "",
            ),
        )
        connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", (first.run_id, token))
    for snapshot in snapshots:
        write_snapshot(connection, snapshot)
    if last.type in FINAL_EVENTS:
        query = "UPDATE runs SET status = ?, ended_at = ? WHERE run_id = ?"
        connection.execute(query, (final_status(last), last.occurred_at, last.run_id))
        connection.execute("DELETE FROM leases WHERE run_id = ?", (last.run_id,))


def _go_on(connection: sqlite3.Connection, first: Event, last: Event, token: int | None, *, of_ended: bool) -> None:
    """Count events of a run that was begun before, if they come behind those that are stored and the run is the writer's.

    Raises:
        StorageError: as `write`.
    """
    values = (last.seq, time.time(), last.run_id, first.seq - 1)
    query = f"UPDATE runs SET events = ?, last_at = ? WHERE run_id = ? AND {COUNT} = ?"
    if token is not None and not of_ended:
        held = f"{query} AND (SELECT token FROM leases WHERE run_id = runs.run_id) = ?"
        if connection.execute(held, (*values, token)).rowcount:
            return
    if not of_ended:
        check_lease(connection, first.run_id, token)
    if not connection.execute(
        f"{query} AND (ended_at IS NULL) = ?", (*values, not of_ended)
    ).rowcount:  # deleted, or written by another meanwhile
        query = f"SELECT {COUNT}, ended_at IS NOT NULL FROM runs WHERE run_id = ?"
        stored, ended = connection.execute(query, (last.run_id,)).fetchone() or (0, False)
        check_order([first], stored, bool(ended))


def token_of(connection: sqlite3.Connection, run_id: str) -> int | None:
    """The fencing token of a run; None: it has ended, or an earlier version began it."""
    held = connection.execute("SELECT token FROM leases WHERE run_id = ?", (run_id,)).fetchone()
    return held[0] if held else None


def insert(connection: sqlite3.Connection, run_id: str, batch: Batch) -> None:
    """Store the rows of events."""
    connection.executemany(
        "INSERT INTO events (run_id, seq, type, occurred_at, node_id, payload) VALUES (?, ?, ?, ?, ?, ?)",
        [(run_id, *row) if row[1] != PACK else (run_id, *row[:4], compressed(row[4])) for row in batch.events],
    )
    if batch.blobs:
        connection.executemany(
            "INSERT OR IGNORE INTO blobs (run_id, hash, value) VALUES (?, ?, ?)",
            [(run_id, name, text) for name, text in batch.blobs.items()],
        )
        connection.executemany(
            "INSERT INTO event_blobs (run_id, seq, hash) VALUES (?, ?, ?)",
            [(run_id, seq, name) for seq, names in batch.references.items() for name in names],
        )


def write_snapshot(connection: sqlite3.Connection, snapshot: SnapshotRow) -> None:
    run_id = snapshot.row[0]
    connection.executemany(
        "INSERT OR IGNORE INTO blobs (run_id, hash, value) VALUES (?, ?, ?)",
        [(run_id, name, text) for name, text in snapshot.blobs.items()],
    )
    connection.execute(
        "INSERT OR REPLACE INTO snapshots (run_id, kind, version, seq, content, blobs) VALUES (?, ?, ?, ?, ?, ?)", snapshot.row
    )


def check_lease(connection: sqlite3.Connection, run_id: str, token: int | None) -> None:
    held = token_of(connection, run_id)
    owner = connection.execute("SELECT host, pid FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    if owner is None:
        return  # deleted: the order of its events says so
    if held is None:  # begun by an earlier version, which gives no tokens: its process tells
        if owner != (HOST, os.getpid()):
            raise taken_over(run_id, holder(*owner))
    elif held != token:
        raise taken_over(run_id, holder(*owner))
