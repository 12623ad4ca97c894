"""The run store of several machines: PostgreSQL 12 or later (extra `postgres`).

An acknowledged append is as durable as the server's commits are (`synchronous_commit`, on unless it was switched off there).

A run belongs to the store object that appends it. Each holds, for as long as it is open, a lock of its own on the server (an
advisory lock of its session, https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS), which goes when the
process does, on whatever machine; a run without a final event whose owner's lock is gone is `interrupted`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from dipeo_nb.common import injection
from dipeo_nb.common.aio import uncancelled
from dipeo_nb.common.operation_log import logged
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import FINAL_EVENTS, SEARCHED, Event, RunSummary
from dipeo_nb.domain.ports import RunStore, Snapshot
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.condensing import ROWS, Condensed, condensed, ended_at
from dipeo_nb.execution.state.group_commit import Addition, GroupCommit
from dipeo_nb.execution.state.postgres_schema import EVENTS, HOLDING, RELATED, RUNS
from dipeo_nb.execution.state.postgres_server import PostgresServer
from dipeo_nb.execution.state.rows import PACK, Batch, batch_of, chosen, events_of, like
from dipeo_nb.execution.state.rules import (
    answered,
    check_claim,
    check_delete,
    check_order,
    final_status,
    relatives,
    taken_over,
)
from dipeo_nb.execution.state.snapshots import Attached, SnapshotRow, hashes_of, row_of, rows_of, snapshot_of

_SELECT_ROWS = (
    "SELECT seq, CASE WHEN blobs IS NULL THEN type ELSE '' END, run_id, occurred_at, node_id, payload FROM dipeo_events "
    "WHERE run_id = %s AND seq > %s ORDER BY seq LIMIT %s"
)
"""Rows as they are; those that refer to blobs have no type."""
_INSERT_BLOBS = (
    "INSERT INTO dipeo_blobs (run_id, hash, value) SELECT %s, * FROM unnest(%s::text[], %s::text[]) ON CONFLICT DO NOTHING"
)


@logged("append", "events", "runs", "run")
class PostgresRunStore(RunStore):
    """`RunStore` in a PostgreSQL database, for any number of processes and machines.

    Args:
        url: `postgresql://user:password@host:5432/database`; what libpq knows may follow (`?sslmode=require`). User and password
            are never shown. The tables `dipeo_runs`, `dipeo_events` and `dipeo_schema` are made where they are missing.
    """

    def __init__(self, url: str) -> None:
        self._server = PostgresServer(url)
        self._owner = self._server.owner
        self._stored: dict[str, tuple[int, bool]] = {}
        """Of runs that are going on: number of the last event, and whether the run has ended."""
        self._held: set[str] = set()
        """Runs that were begun or claimed here."""
        self._attached = Attached()
        self._group = GroupCommit(self._store)
        self._latest = ""
        """The run that appended last: one that has the store to itself for the moment need not wait for others to come."""

    def __repr__(self) -> str:
        return f"PostgresRunStore({self.place!r})"

    @property
    def place(self) -> str:
        """The database, without user and password."""
        return self._server.place

    async def initialize(self) -> None:
        await self._server.open()

    async def cleanup(self) -> None:
        await self._server.close()
        self._stored.clear()

    async def append(self, events: Sequence[Event]) -> None:
        if not events:
            return
        first, last = events[0], events[-1]
        attached = self._attached.take(first.run_id)
        stored, ended = self._stored.get(first.run_id) or await self._count(first.run_id)
        try:
            check_order(events, stored, ended)
        except StorageError:
            if first.seq != 1 and first.run_id in self._held and not await self.beat(first.run_id):
                raise taken_over(first.run_id, "another process") from None
            raise
        addition = Addition(events, batch_of(events), rows_of(attached, last.seq), ended)
        together = self._group.busy or (self._latest != first.run_id and len(self._held) > 1)
        self._latest = first.run_id
        try:
            await (self._group.add(addition) if together else uncancelled(self._store([addition])))
        except BaseException:
            self._stored.pop(first.run_id, None)  # how much is stored is looked up by the next append
            raise
        if ended or last.type in FINAL_EVENTS:
            self._stored.pop(first.run_id, None)
            self._held.discard(first.run_id)
        else:
            self._stored[first.run_id] = (last.seq, False)
            if first.seq == 1:
                self._held.add(first.run_id)

    async def _store(self, additions: Sequence[Addition]) -> None:
        """Store what runs add, all of it or nothing."""
        tried = False

        async def write(connection: Any) -> None:
            nonlocal tried
            again, tried = tried, True
            if again:
                last = additions[-1].events[-1]
                if (await self._counted(connection, last.run_id))[0] >= last.seq:
                    return  # they were stored, and only the answer got lost
            blobs = [
                await self._missing(connection, one.events[0].run_id, one.batch.blobs) if one.batch.blobs else {}
                for one in additions
            ]
            async with connection.transaction(), connection.pipeline():
                for one, own in zip(additions, blobs, strict=True):
                    await self._write_parts(connection, one, own)
                await self._go_on([one for one in additions if not one.of_ended], connection)
                injection.reach("store.append")

        await self._server.patiently("append", write)

    async def _write_parts(self, connection: Any, addition: Addition, blobs: Mapping[str, str]) -> None:
        """What of an addition has rows of its own; and all of one to a run that has ended."""
        events, batch, snapshots, of_ended = addition
        first, last = events[0], events[-1]
        if blobs:
            await connection.execute(_INSERT_BLOBS, (first.run_id, list(blobs), list(blobs.values())))
        if first.seq == 1:
            await connection.execute(
                "INSERT INTO dipeo_runs VALUES (%s, %s, %s, %s, NULL, 0, %s, %s)",
                (first.run_id, str(first.started.get("diagram", "")), str(Status.RUNNING), first.occurred_at,
                 first.started.get("parent"), self._owner),
            )  # fmt: skip
        await self._insert(connection, first.run_id, batch)
        for snapshot in snapshots:
            await self._write_snapshot(connection, snapshot)
        if of_ended:  # notes on a run that is nobody's
            done = await connection.execute(
                "UPDATE dipeo_runs SET events = %s WHERE run_id = %s AND events = %s AND ended_at IS NOT NULL RETURNING 1",
                (last.seq, first.run_id, first.seq - 1),
            )
            if await done.fetchone() is None:
                raise taken_over(first.run_id, "another process")

    async def _insert(self, connection: Any, run_id: str, batch: Batch) -> None:
        """Store the rows of events, whose blobs are stored."""
        await connection.execute(
            "INSERT INTO dipeo_events (run_id, seq, type, occurred_at, node_id, payload) SELECT %s, * FROM "
            "unnest(%s::integer[], %s::text[], %s::double precision[], %s::text[], %s::text[])",
            (run_id, *(list(column) for column in zip(*batch.events, strict=True))),
        )
        for seq, names in batch.references.items():
            await connection.execute("UPDATE dipeo_events SET blobs = %s WHERE run_id = %s AND seq = %s", (names, run_id, seq))

    async def _go_on(self, additions: Sequence[Addition], connection: Any) -> None:
        """Count the events of runs that go on.

        Raises:
            StorageError: `going_on`, another process has one of them now.
        """
        if not additions:
            return
        ends = [(one.events[0], last, last.type in FINAL_EVENTS) for one in additions if (last := one.events[-1])]
        done = await connection.execute(
            "UPDATE dipeo_runs SET events = given.events, status = given.status, ended_at = given.ended_at "
            "FROM unnest(%s::text[], %s::integer[], %s::integer[], %s::text[], %s::double precision[]) "
            "AS given (run_id, before, events, status, ended_at) "
            "WHERE dipeo_runs.run_id = given.run_id AND dipeo_runs.events = given.before AND owner = %s RETURNING given.run_id",
            (
                [first.run_id for first, _, _ in ends],
                [first.seq - 1 for first, _, _ in ends],
                [last.seq for _, last, _ in ends],
                [final_status(last) if final else str(Status.RUNNING) for _, last, final in ends],
                [last.occurred_at if final else None for _, last, final in ends],
                self._owner,
            ),
        )
        counted = {row[0] for row in await done.fetchall()}
        for first, _, _ in ends:
            if first.run_id not in counted:
                raise taken_over(first.run_id, "another process")

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        values = (run_id, run_id, after, None if limit is None else limit + 1)
        rows = [row for row in await self._server.read(EVENTS, values) if row[0] > after or row[1] == PACK]
        references: dict[int, list[str]] = {row[0]: row[6] for row in rows if row[6]}
        blobs = await self._blobs(run_id, {name for found in references.values() for name in found})
        return events_of((row[:6] for row in rows), references, blobs, after=after, limit=limit)

    async def _blobs(self, run_id: str, names: Collection[str]) -> dict[str, str]:
        query = "SELECT hash, value FROM dipeo_blobs WHERE run_id = %s AND hash = ANY(%s)"
        return dict(await self._server.read(query, (run_id, list(names)))) if names else {}

    async def snapshot(self, run_id: str, kind: str) -> Snapshot | None:
        query = (
            "SELECT version, seq, content, blobs FROM dipeo_snapshots found WHERE run_id = %s AND kind = %s "
            "AND seq <= (SELECT events FROM dipeo_runs WHERE run_id = found.run_id)"
        )
        for version, seq, content, names in await self._server.read(query, (run_id, kind)):
            return snapshot_of(run_id, kind, (version, seq, content), await self._blobs(run_id, hashes_of(names)))
        return None

    def attach_snapshot(self, snapshot: Snapshot) -> None:
        self._attached.add(snapshot)

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        found = row_of(snapshot)

        async def put(connection: Any) -> None:
            async with connection.transaction():
                query = "SELECT 1 FROM dipeo_runs WHERE run_id = %s AND events >= %s FOR SHARE"
                values = (snapshot.run_id, snapshot.seq)
                if await (await connection.execute(query, values)).fetchone():
                    await self._write_snapshot(connection, found)

        await self._server.patiently("snapshot", put)

    async def _write_snapshot(self, connection: Any, snapshot: SnapshotRow) -> None:
        if snapshot.blobs:
            await connection.execute(_INSERT_BLOBS, (snapshot.row[0], list(snapshot.blobs), list(snapshot.blobs.values())))
        await connection.execute(
            "INSERT INTO dipeo_snapshots AS old VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (run_id, kind) DO UPDATE SET "
            "version = excluded.version, seq = excluded.seq, content = excluded.content, blobs = excluded.blobs "
            "WHERE old.version <> excluded.version OR old.seq < excluded.seq",
            snapshot.row,
        )

    async def _missing(self, connection: Any, run_id: str, blobs: Mapping[str, str]) -> dict[str, str]:
        """Those that the server does not have yet."""
        query = "SELECT hash FROM dipeo_blobs WHERE run_id = %s AND hash = ANY(%s)"
        found = {row[0] for row in await (await connection.execute(query, (run_id, list(blobs)))).fetchall()}
        return {name: text for name, text in blobs.items() if name not in found}

    async def runs(
        self,
        *,
        limit: int = 100,
        status: str | None = None,
        diagram: str | None = None,
        parent: str | None = None,
        nested: bool = False,
    ) -> list[RunSummary]:
        # Who lives is looked up for those alone that may be interrupted.
        unsure = status in (Status.RUNNING, Status.INTERRUPTED)
        where, values = chosen(
            "%s", status=status, stored=None if unsure else status, diagram=diagram, parent=parent, nested=nested
        )
        if unsure:
            where += " AND stored IN ('running', 'interrupted')"
        query = f"{RUNS} {where} ORDER BY started_at DESC, run_id LIMIT %s"
        return [RunSummary(*row) for row in await self._server.read(query, (*values, limit))]

    async def holding(self, text: str) -> set[str]:
        pattern = like(text)
        return {row[0] for row in await self._server.read(HOLDING, (list(map(str, SEARCHED)), pattern, pattern))}

    async def run(self, run_id: str) -> RunSummary | None:
        rows = await self._server.read(f"{RUNS} WHERE run_id = %s", (run_id,))
        return RunSummary(*rows[0]) if rows else None

    async def claim(self, run_id: str, *, owned: bool = False) -> None:
        async def take(connection: Any) -> None:
            async with connection.transaction():
                found = await connection.execute("SELECT owner FROM dipeo_runs WHERE run_id = %s FOR UPDATE", (run_id,))
                row = await found.fetchone()
                shown = await (await connection.execute(f"{RUNS} WHERE run_id = %s", (run_id,))).fetchone()
                own = owned and row is not None and row[0] == self._owner
                holder = await self._holder_of(connection, row[0]) if row is not None and not own else ""
                check_claim(run_id, shown and shown[2], own, holder)
                await connection.execute(
                    "UPDATE dipeo_runs SET status = %s, ended_at = NULL, owner = %s WHERE run_id = %s",
                    (str(Status.RUNNING), self._owner, run_id),
                )

        await self._server.patiently("claim", take)
        self._stored.pop(run_id, None)
        self._held.add(run_id)

    async def condense(self, run_id: str) -> int:
        breaks = {row[0] for row in await self._server.read("SELECT seq FROM dipeo_snapshots WHERE run_id = %s", (run_id,))}
        saved = last = 0
        end = ended_at(await self.run(run_id))
        while last < end and (rows := await self._server.read(_SELECT_ROWS, (run_id, last, ROWS))):
            last = rows[-1][0]
            found = await asyncio.to_thread(lambda rows=rows: list(condensed(rows, breaks)))
            if found:
                if not await self._server.patiently("condense", partial(self._replace, run_id, found)):
                    break  # it was resumed
                saved += sum(len(gone) - len(batch.events) for gone, batch in found)
        return saved

    async def _replace(self, run_id: str, found: Sequence[Condensed], connection: Any) -> bool:
        """Put rows in place of others; False, and nothing is changed, when the run has not ended."""
        async with connection.transaction():
            query = "SELECT 1 FROM dipeo_runs WHERE run_id = %s AND ended_at IS NOT NULL FOR UPDATE"
            if await (await connection.execute(query, (run_id,))).fetchone() is None:
                return False
            for gone, batch in found:
                await connection.execute("DELETE FROM dipeo_events WHERE run_id = %s AND seq = ANY(%s)", (run_id, list(gone)))
                if batch.blobs:
                    await connection.execute(_INSERT_BLOBS, (run_id, list(batch.blobs), list(batch.blobs.values())))
                await self._insert(connection, run_id, batch)
            injection.reach("store.condense")
        return True

    async def compact(self) -> None:
        """The server's autovacuum does it."""

    async def beat(self, run_id: str) -> bool:
        # That the process lives shows by its lock; only who has the run is looked at.
        rows = await self._server.read("SELECT owner FROM dipeo_runs WHERE run_id = %s", (run_id,))
        return not rows or rows[0][0] == self._owner

    async def put_answer(self, run_id: str, request_id: str, answer: str) -> None:
        async def put(connection: Any) -> None:
            row = (run_id, request_id, answer)
            done = await connection.execute("INSERT INTO dipeo_answers VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", row)
            if not done.rowcount:
                raise answered(run_id, request_id)

        await self._server.patiently("answer", put)

    async def answers(self, run_id: str) -> dict[str, str]:
        return dict(await self._server.read("SELECT request_id, answer FROM dipeo_answers WHERE run_id = %s", (run_id,)))

    async def drop_answer(self, run_id: str, request_id: str) -> None:
        async def drop(connection: Any) -> None:
            query = "DELETE FROM dipeo_answers WHERE run_id = %s AND request_id = %s"
            await connection.execute(query, (run_id, request_id))

        await self._server.patiently("answer", drop)

    async def delete(self, *run_ids: str, owned: bool = False, compact: bool = True) -> list[str]:
        names = list(run_ids)

        async def forget(connection: Any) -> list[str]:
            async with connection.transaction():
                query = "SELECT run_id FROM dipeo_runs WHERE run_id IN (SELECT run_id FROM related) ORDER BY run_id FOR UPDATE"
                # nobody claims one of them, or appends to it, from now on
                await connection.execute(f"{RELATED} {query}", (names, names))
                query = "SELECT run_id, parent_run_id, owner FROM dipeo_runs WHERE run_id IN (SELECT run_id FROM related)"
                rows = await (await connection.execute(f"{RELATED} {query}", (names, names))).fetchall()
                family, above = relatives({row[0]: row[1] for row in rows}, names)
                query = f"{RUNS} WHERE run_id = ANY(%s) AND status = 'running'"
                going = {row[0] for row in await (await connection.execute(query, ([row[0] for row in rows],))).fetchall()}
                for run_id, _, owner in rows:
                    if run_id in going and not (owned and owner == self._owner):
                        check_delete([run_id], family, above, await self._holder_of(connection, owner))
                for table in ("dipeo_events", "dipeo_blobs", "dipeo_answers", "dipeo_snapshots", "dipeo_runs"):
                    await connection.execute(f"DELETE FROM {table} WHERE run_id = ANY(%s)", (family,))
                injection.reach("store.delete")
                return family

        deleted = await self._server.patiently("delete", forget)
        for run_id in deleted:
            self._stored.pop(run_id, None)
        return deleted

    async def _holder_of(self, connection: Any, owner: int) -> str:
        """Who has a run, in words; "" when its process is gone."""
        query = (
            "SELECT application_name FROM pg_stat_activity WHERE pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' "
            "AND objsubid = 1 AND granted AND (classid::bigint << 32) | objid::bigint = %s)"
        )
        row = await (await connection.execute(query, (owner,))).fetchone()
        return row[0].removeprefix("dipeo_nb ") if row and row[0] else ""

    async def _count(self, run_id: str) -> tuple[int, bool]:
        return await self._server.patiently("read", lambda connection: self._counted(connection, run_id))

    async def _counted(self, connection: Any, run_id: str) -> tuple[int, bool]:
        query = "SELECT events, ended_at IS NOT NULL FROM dipeo_runs WHERE run_id = %s"
        row = await (await connection.execute(query, (run_id,))).fetchone()
        return (row[0], row[1]) if row else (0, False)
