"""The run store of one process; gone with it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from types import CoroutineType
from typing import Any

from dipeo_nb.common import injection
from dipeo_nb.common.aio import DONE
from dipeo_nb.common.values import json_text
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import FINAL_EVENTS, SEARCHED, Event, RunSummary, notes_only
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.execution.state.packed_log import PackedLog
from dipeo_nb.execution.state.rules import answered, check_claim, check_delete, check_order, final_status, relatives


class InMemoryRunStore(RunStore):
    """`RunStore` in memory. Of equal big values in payloads one is kept; callers must not change them afterwards."""

    def __init__(self) -> None:
        self._runs: dict[str, PackedLog] = {}
        self._claimed: set[str] = set()
        """Runs that ended and go on."""
        self._answers: dict[str, dict[str, str]] = {}

    async def initialize(self) -> None:
        """Nothing to open."""

    async def cleanup(self) -> None:
        """Nothing to close; the runs stay readable."""

    def append(self, events: Sequence[Event]) -> CoroutineType[Any, Any, None]:
        if not events:
            return DONE
        run_id = events[0][2]
        log = self._runs.get(run_id)
        if log is None:
            check_order(events, 0, False)
            log = self._runs[run_id] = PackedLog(run_id)
        else:
            check_order(events, log.stored, log.latest_of_run[1] in FINAL_EVENTS and run_id not in self._claimed)
        if self._claimed and not notes_only(events):
            self._claimed.discard(run_id)
        log.extend(events)
        if injection.hook is not None:
            injection.reach("store.append")
        return DONE

    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        log = self._runs.get(run_id)
        return [] if log is None else log[after : None if limit is None else after + limit]

    async def runs(
        self,
        *,
        limit: int = 100,
        status: str | None = None,
        diagram: str | None = None,
        parent: str | None = None,
        nested: bool = False,
    ) -> list[RunSummary]:
        rows = (self._summary(log) for log in reversed(self._runs.values()))
        if parent is not None or not nested:
            rows = (r for r in rows if r.parent_run_id == parent)
        return list(islice((r for r in rows if status in (None, r.status) and diagram in (None, r.diagram)), max(limit, 0)))

    async def holding(self, text: str) -> set[str]:
        low = json_text(text)[1:-1].casefold()  # as it stands in the JSON of a payload
        return {
            run_id
            for run_id, log in self._runs.items()
            if any(event.type in SEARCHED and low in json_text(event.payload).casefold() for event in log)
        }

    async def run(self, run_id: str) -> RunSummary | None:
        log = self._runs.get(run_id)
        return None if log is None else self._summary(log)

    async def claim(self, run_id: str, *, owned: bool = False) -> None:
        log = self._runs.get(run_id)
        check_claim(run_id, None if log is None else self._summary(log).status, owned)
        self._claimed.add(run_id)

    async def put_answer(self, run_id: str, request_id: str, answer: str) -> None:
        left = self._answers.setdefault(run_id, {})
        if request_id in left:
            raise answered(run_id, request_id)
        left[request_id] = answer

    async def answers(self, run_id: str) -> dict[str, str]:
        return dict(self._answers.get(run_id, {}))

    async def drop_answer(self, run_id: str, request_id: str) -> None:
        self._answers.get(run_id, {}).pop(request_id, None)

    async def compact(self) -> None:
        """Nothing is kept of deleted runs."""

    async def beat(self, run_id: str) -> bool:
        return True  # nobody else has this object

    async def delete(self, *run_ids: str, owned: bool = False, compact: bool = True) -> list[str]:
        parents = {run_id: log.first.started.get("parent") for run_id, log in self._runs.items()}
        going = [
            run_id
            for run_id, log in self._runs.items()
            if self._summary(log).status == Status.RUNNING or run_id in self._claimed
        ]
        family, above = relatives(parents, run_ids)
        check_delete([] if owned else going, family, above)
        for run_id in family:
            del self._runs[run_id]
            self._answers.pop(run_id, None)
            self._claimed.discard(run_id)
        injection.reach("store.delete")
        return family

    @staticmethod
    def _summary(log: PackedLog) -> RunSummary:
        first, last = log.first, log.latest_of_run
        ended = last.type in FINAL_EVENTS
        return RunSummary(
            first.run_id,
            first.started.get("diagram", ""),
            final_status(last) if ended else Status.RUNNING,
            first.occurred_at,
            last.occurred_at if ended else None,
            len(log),
            first.started.get("parent"),
        )
