"""The tables of a run store in PostgreSQL, how those of earlier versions are brought up to date, and queries over them."""

from __future__ import annotations

from typing import Any

from dipeo_nb.errors import StorageError

SCHEMA_VERSION = 4
"""In `dipeo_schema`."""
_OPENING = 0x44495045  # "DIPE": one store at a time creates or migrates the tables
_BLOBS = """
ALTER TABLE dipeo_events ADD COLUMN blobs TEXT[];
CREATE TABLE dipeo_blobs (
    run_id TEXT NOT NULL,
    hash TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run_id, hash)
)
"""
_ANSWERS = """
CREATE TABLE dipeo_answers (
    run_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (run_id, request_id)
)
"""
_LISTING = """
CREATE INDEX dipeo_runs_by_start ON dipeo_runs (started_at DESC, run_id);
CREATE INDEX dipeo_runs_by_parent ON dipeo_runs (parent_run_id, started_at DESC, run_id);
CREATE INDEX dipeo_runs_by_diagram ON dipeo_runs (diagram, started_at DESC, run_id);
CREATE INDEX dipeo_runs_by_status ON dipeo_runs (status, started_at DESC, run_id)
"""
"""The orders in which runs are listed: a listing reads the rows that it shows."""
_SNAPSHOTS = """
CREATE TABLE dipeo_snapshots (
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    version BIGINT NOT NULL,
    seq INTEGER NOT NULL,
    content TEXT NOT NULL,
    blobs TEXT NOT NULL,
    PRIMARY KEY (run_id, kind)
)
"""
"""What readers had made of the events of a run up to `seq`; the latest of each kind. `blobs`: a JSON array of hashes."""
_MIGRATIONS = {
    1: _BLOBS,
    2: _ANSWERS,
    3: f"DROP INDEX IF EXISTS dipeo_runs_by_start; DROP INDEX IF EXISTS dipeo_runs_by_parent; {_LISTING}; {_SNAPSHOTS}",
}
"""Version → what makes the next one of it."""
_SCHEMA = f"""
CREATE TABLE dipeo_schema (version INTEGER NOT NULL);
INSERT INTO dipeo_schema VALUES ({SCHEMA_VERSION});
CREATE TABLE dipeo_runs (
    run_id TEXT PRIMARY KEY,
    diagram TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at DOUBLE PRECISION NOT NULL,
    ended_at DOUBLE PRECISION,
    events INTEGER NOT NULL,
    parent_run_id TEXT,
    owner BIGINT NOT NULL
);
{_LISTING};
CREATE TABLE dipeo_events (
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    occurred_at DOUBLE PRECISION NOT NULL,
    node_id TEXT,
    payload TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
);
{_BLOBS};
{_ANSWERS};
{_SNAPSHOTS}
"""
EVENTS = """
SELECT seq, type, run_id, occurred_at, node_id, payload, blobs FROM dipeo_events WHERE run_id = %s
AND seq >= coalesce((SELECT max(seq) FROM dipeo_events WHERE run_id = %s AND seq <= %s), 0) ORDER BY seq LIMIT %s
"""
"""From the row on that may be a pack with the first event."""
# A lock on a bigint is shown as its two halves.
RUNS = """
WITH held AS (
    SELECT (classid::bigint << 32) | objid::bigint AS owner FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
), rows AS (
    SELECT run_id, diagram,
           CASE WHEN status = 'running' AND owner NOT IN (SELECT owner FROM held) THEN 'interrupted' ELSE status END AS status,
           started_at, ended_at, events, parent_run_id, status AS stored
    FROM dipeo_runs
)
SELECT run_id, diagram, status, started_at, ended_at, events, parent_run_id FROM rows
"""
"""Summaries of runs. `stored` is the status without a look at who lives, by which runs are found quickly."""
HOLDING = """
SELECT DISTINCT run_id FROM dipeo_events WHERE type = ANY(%s) AND (
    payload ILIKE %s OR EXISTS (
        SELECT 1 FROM dipeo_blobs WHERE dipeo_blobs.run_id = dipeo_events.run_id AND hash = ANY(blobs) AND value ILIKE %s
    )
)
"""
"""Runs with a text in what people look for, big values included. LIKE's escape is a backslash."""
RELATED = """
WITH RECURSIVE below AS (
    SELECT unnest(%s::text[]) AS run_id
    UNION SELECT runs.run_id FROM dipeo_runs runs JOIN below ON runs.parent_run_id = below.run_id
), above AS (
    SELECT unnest(%s::text[]) AS run_id
    UNION SELECT runs.parent_run_id FROM dipeo_runs runs JOIN above USING (run_id) WHERE runs.parent_run_id IS NOT NULL
), related AS (SELECT run_id FROM below UNION SELECT run_id FROM above)
"""
"""Runs, given twice, with all below and above them."""


async def migrate(connection: Any, place: str) -> None:
    """Create the tables where they are missing, and bring those of an earlier version up to date.

    Raises:
        StorageError: a newer version wrote them.
    """
    await connection.execute("SELECT pg_advisory_lock(%s)", (_OPENING,))
    try:
        found = await (await connection.execute("SELECT to_regclass('dipeo_schema') IS NOT NULL")).fetchone()
        if not found[0]:
            async with connection.transaction():
                for statement in _SCHEMA.split(";"):
                    await connection.execute(statement)
            return
        (version,) = await (await connection.execute("SELECT version FROM dipeo_schema")).fetchone()
        if version > SCHEMA_VERSION:
            raise StorageError(
                f"{place} was written by a newer version of dipeo_nb (schema {version}; this one knows {SCHEMA_VERSION}).",
                hint="Upgrade dipeo-nb, or use another database (STATE_STORE_PATH).",
                operation="open",
            )
        async with connection.transaction():
            for number in range(version, SCHEMA_VERSION):
                for statement in _MIGRATIONS[number].split(";"):
                    await connection.execute(statement)
                await connection.execute("UPDATE dipeo_schema SET version = %s", (number + 1,))
    finally:
        await connection.execute("SELECT pg_advisory_unlock(%s)", (_OPENING,))
