"""The tables of a run store in an SQLite file, and how files of earlier versions are brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dipeo_nb.domain.events import SEARCHED
from dipeo_nb.errors import StorageError

SCHEMA_VERSION = 6
"""`PRAGMA user_version` of the files this version writes."""
APPLICATION_ID = 0x44495045
"""`PRAGMA application_id` ("DIPE"): tells a run store from other SQLite files."""

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
_LISTING = """
CREATE INDEX runs_by_start ON runs (started_at DESC);
CREATE INDEX runs_by_parent ON runs (parent_run_id, started_at DESC);
CREATE INDEX runs_by_diagram ON runs (diagram, started_at DESC);
CREATE INDEX runs_by_status ON runs (status, started_at DESC)
"""
"""The orders in which runs are listed: a listing reads the rows that it shows. (The run_id is the end of each index.)"""
_SNAPSHOTS = """
CREATE TABLE snapshots (
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    version INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    content TEXT NOT NULL,
    blobs TEXT NOT NULL,
    PRIMARY KEY (run_id, kind)
) WITHOUT ROWID
"""
"""What readers had made of the events of a run up to `seq`; the latest of each kind. `blobs`: a JSON array of hashes."""
SCHEMA = f"""
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
{_LISTING};
{_BLOBS};
{_LEASES};
{_ANSWERS};
{_SNAPSHOTS}
"""
_MIGRATIONS = {
    1: "CREATE INDEX runs_by_parent ON runs (parent_run_id)",
    2: _BLOBS,
    3: f"{_LEASES};{_ANSWERS}",
    4: f"DROP INDEX IF EXISTS runs_by_start; DROP INDEX IF EXISTS runs_by_parent; {_LISTING}; {_SNAPSHOTS}",
    5: "",  # `runs.events` may be behind, see COUNT
}
"""Version → what makes the next one of it."""
COUNT = "max(events, coalesce((SELECT max(seq) FROM events WHERE events.run_id = runs.run_id), 0))"
"""The number of the last event of a run that has not ended. Its row is left alone as long as this can be known without, which saves a
page per commit: it is written when the run begins, is claimed or ends, and when the last row of an append holds several events.
"""
HOLDING = f"""
SELECT DISTINCT run_id FROM events WHERE type IN ({", ".join(f"'{kind}'" for kind in SEARCHED)}) AND (
    payload LIKE ? ESCAPE '\\' OR EXISTS (
        SELECT 1 FROM event_blobs JOIN blobs USING (run_id, hash)
        WHERE event_blobs.run_id = events.run_id AND seq = events.seq AND value LIKE ? ESCAPE '\\'
    )
)
"""
"""Runs with a text in what people look for, big values included."""


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file, and bring those of an earlier version up to date.

    Raises:
        StorageError: the file is something else, or a newer version wrote it.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    if owner == APPLICATION_ID and version == SCHEMA_VERSION:
        return
    if version > SCHEMA_VERSION and owner == APPLICATION_ID:
        raise StorageError(
            f"{path} was written by a newer version of dipeo_nb (schema {version}; this one knows {SCHEMA_VERSION}).",
            hint="Upgrade dipeo-nb, or use another file (STATE_STORE_PATH).",
            operation="open",
        )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and owner != APPLICATION_ID:
        raise StorageError(
            f"{path} is an SQLite file of something else, not a run store.",
            hint="Use another file (STATE_STORE_PATH).",
            operation="open",
        )
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have created them in the meantime.
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in SCHEMA.split(";"):
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


def temporary_tables(connection: sqlite3.Connection) -> None:
    """Stand in for the tables that a file which cannot be written lacks: it is of an earlier version, or empty.

    Raises:
        sqlite3.DatabaseError: the file is not a run store.
    """
    present = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if present and connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise sqlite3.DatabaseError("file is not a database of runs")
    for statement in SCHEMA.split(";"):
        words = statement.split()
        if words[:2] == ["CREATE", "TABLE"] and words[2] not in present:
            connection.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE", 1))
