"""One transaction for all that runs append in one turn of the event loop: a commit takes as long for many runs as for one.

A batch is stored alone when the others with it are refused, so no run fails for another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from dipeo_nb.common.aio import uncancelled
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.rows import Batch
from dipeo_nb.execution.state.snapshots import SnapshotRow

B = TypeVar("B")
MOST_TOGETHER = 100
"""Batches of one transaction: it holds up the event loop no longer than a moment."""


class Addition(NamedTuple):
    """What a run appends."""

    events: Sequence[Event]
    batch: Batch
    snapshots: Sequence[SnapshotRow]
    of_ended: bool
    """It is a note on a run that has ended."""


class _Waiting(NamedTuple, Generic[B]):
    batch: B
    stored: asyncio.Future[None]


class GroupCommit(Generic[B]):
    """Gathers batches and has them written.

    Args:
        write: stores batches as one, all or nothing; each of them is then stored alone when it raises, unless the store is away
            (a StorageError of the cause `unavailable`), which it is for all of them.
    """

    def __init__(self, write: Callable[[Sequence[B]], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: list[_Waiting[B]] = []
        self._writing: asyncio.Task[None] | None = None
        self._unsettled = 0
        """Calls of `add` that have not ended."""

    @property
    def busy(self) -> bool:
        """Whether batches wait, or are being written."""
        return self._unsettled > 0

    async def add(self, batch: B) -> None:
        """Store a batch with those that come in this turn of the loop, in the order in which they come.

        A caller that is cancelled before it is written withdraws it; afterwards, the cancellation waits until it is stored or refused.

        Raises:
            Exception: what *write* raises for this batch.
        """
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        self._waiting.append(_Waiting(batch, stored))
        if (writing := self._writing) is None or writing.done() or writing.get_loop() is not loop:
            writing = self._writing = loop.create_task(self._write_all())
        self._unsettled += 1
        try:
            await stored
        except asyncio.CancelledError:
            if not any(one.stored is stored for one in self._waiting):
                await uncancelled(asyncio.wait({writing}))
            raise
        finally:
            self._unsettled -= 1

    async def _write_all(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
            waiting = [one for one in waiting if not one.stored.done()]  # the others were withdrawn
            try:
                if waiting:
                    await self._write([one.batch for one in waiting])
            except Exception as error:  # noqa: BLE001 - each batch has its own error
                if len(waiting) == 1 or (isinstance(error, StorageError) and error.facts.get("cause") == "unavailable"):
                    for one in waiting:
                        _settle(one, error)
                else:
                    for one in waiting:
                        await self._write_alone(one)
            else:
                for one in waiting:
                    _settle(one, None)
            await asyncio.sleep(0)  # others have their turn

    async def _write_alone(self, one: _Waiting[B]) -> None:
        try:
            await self._write([one.batch])
        except Exception as error:  # noqa: BLE001 - raised where the batch was added
            _settle(one, error)
        else:
            _settle(one, None)


def _settle(one: _Waiting[B], error: Exception | None) -> None:
    if one.stored.done():  # its caller was cancelled meanwhile
        return
    if error is None:
        one.stored.set_result(None)
    else:
        one.stored.set_exception(error)
