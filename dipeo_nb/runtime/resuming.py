"""Reads the log of a run that is to be resumed: from its last checkpoint on where there is one to be trusted, else all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import UserError
from dipeo_nb.execution import checkpoint
from dipeo_nb.execution.recovery import Recovering
from dipeo_nb.execution.snapshots import read_run, snapshot_state
from dipeo_nb.runtime.records import RecordCheck
from dipeo_nb.security.signatures import Signatures

_LOG = logger(__name__)


async def read_log(
    store: RunStore, plan: Plan, first: Event, signatures: Signatures, *, variables: Mapping[str, Any], max_visits: int
) -> tuple[RecordCheck, Recovering]:
    """Read the log of the run of *plan* that begins with *first*.

    Args:
        variables, max_visits: as for `recovery.recovered`.

    Returns:
        Whose record it is, and the run as the log tells it.
    """
    check, recovering = RecordCheck(signatures), Recovering(plan, variables=variables, max_visits=max_visits)
    after = await _from_checkpoint(store, first, check, recovering)
    if after:
        await read_run(store, first.run_id, check.take, recovering.take, after=after)
    if not (after and check.holds):  # of a record that somebody changed all is looked at
        check, recovering = RecordCheck(signatures), Recovering(plan, variables=variables, max_visits=max_visits)
        await read_run(store, first.run_id, check.take, recovering.take)
    return check, recovering


async def _from_checkpoint(store: RunStore, first: Event, check: RecordCheck, recovering: Recovering) -> int:
    """Bring both to the last checkpoint; the number of its last event, or 0: there is none to be used."""
    run_id = first.run_id
    found = await store.snapshot(run_id, checkpoint.KIND) if hasattr(store, "snapshot") else None
    if found is None or found.version != checkpoint.VERSION:
        return 0
    try:
        signed = checkpoint.signed_event(found)
        if not check.signatures.holds(signed):
            return 0
        state = await snapshot_state(store, run_id)
        events = [
            event
            for seq in checkpoint.events_named(signed.payload)
            for event in await store.events(run_id, after=seq - 1, limit=1)
        ]
        for event in (first, *events):
            check.take(event)
        if not check.holds or state.events < found.seq:
            return 0
        recovering.restore(signed.payload, signed, first, events, state)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, UserError) as error:
        # What is the matter with the run itself shows when its log is read.
        _LOG.warning("Run %s: its checkpoint is not used, and all of its log is read: %r", run_id, error)
        return 0
    return found.seq
