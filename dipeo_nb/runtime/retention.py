"""What is kept of runs: deletes some by their ids, or old ones by rule; and condenses streamed texts."""

from __future__ import annotations

from collections.abc import Collection

from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import StorageError, UserError
from dipeo_nb.execution import live

_LOG = logger(__name__)


async def delete_runs(store: RunStore, run_ids: Collection[str], *, compact: bool = True) -> list[str]:
    """Delete runs, and the runs of their sub-diagrams; see `Runtime.delete_runs`."""
    related = [found for run_id in run_ids for found in await _related(store, run_id)]
    # Those that this process owns are not executing: they could not be reserved.
    with live.reserved(store, dict.fromkeys(related), "delete"):
        return await store.delete(*run_ids, owned=True, compact=compact)


async def prune(
    store: RunStore, now: float, *, older_than: float | None, keep: int | None, status: str | None, dry_run: bool
) -> list[str]:
    """Delete the runs that meet all conditions; see `Runtime.prune`.

    Args:
        now: seconds since the epoch.
    """
    if older_than is None and keep is None and status is None:
        raise UserError("Which runs?", hint="Use older_than=, keep= or status= (--older-than, --keep, --status).")
    rows = (await store.runs(limit=1_000_000))[keep or 0 :]
    latest = now - (older_than or 0.0)
    chosen = [
        row.run_id
        for row in rows
        if row.status != Status.RUNNING
        and status in (None, row.status)
        and (older_than is None or (row.ended_at or row.started_at) < latest)
    ]
    if dry_run:
        return chosen
    deleted: list[str] = []
    for run_id in chosen:
        try:
            deleted += await delete_runs(store, [run_id], compact=False)
        except StorageError as error:
            if error.facts.get("cause") != "going_on":  # a part of it is executing, so it stays
                raise
    if deleted:
        await store.compact()
    return deleted


async def condense(store: RunStore, now: float, *, older_than: float | None) -> list[str]:
    """Condense the streamed texts of runs that have ended; see `Runtime.condense`.

    Args:
        now: seconds since the epoch.
    """
    latest = now - (older_than or 0.0)
    rows = await store.runs(limit=1_000_000, nested=True)
    ended = [row.run_id for row in rows if row.ended_at is not None and row.ended_at <= latest]
    changed = [run_id for run_id in ended if await store.condense(run_id)]
    if changed:
        await store.compact()
    return changed


async def condense_whole(store: RunStore, run_id: str) -> None:
    """Condense the streamed texts of a run, and of the runs of its sub-diagrams; a store that cannot do it now leaves them."""
    waiting = [run_id]
    try:
        for name in waiting:  # grows meanwhile
            await store.condense(name)
            waiting += [part.run_id for part in await store.runs(parent=name, limit=1_000_000)]
    except StorageError as error:
        _LOG.warning("Streamed texts of run %s are as they were: %s", run_id, error.message)


async def _related(store: RunStore, run_id: str) -> list[str]:
    """A run with all runs of sub-diagrams below it, and those above it."""
    row = await store.run(run_id)
    related = [] if row is None else [row.run_id]
    known = set(related)
    for member in related:  # grows meanwhile, for a batch by thousands
        below = [part.run_id for part in await store.runs(parent=member, limit=1_000_000)]
        related += [name for name in below if name not in known]
        known.update(below)
    while row is not None and row.parent_run_id is not None and row.parent_run_id not in known:
        related.append(row.parent_run_id)
        known.add(row.parent_run_id)
        row = await store.run(row.parent_run_id)
    return related
