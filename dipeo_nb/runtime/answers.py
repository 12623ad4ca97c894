"""Answers the questions of runs, wherever they are executing."""

from __future__ import annotations

import asyncio
from typing import cast

from dipeo_nb.common import injection
from dipeo_nb.common.redaction import HIDDEN
from dipeo_nb.common.values import well_formed
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.domain.payloads import InteractiveResponse
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import UserError
from dipeo_nb.execution import live
from dipeo_nb.execution.asked import OpenQuestions
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.interaction import no_question
from dipeo_nb.execution.questions import chosen
from dipeo_nb.execution.snapshots import read_run
from dipeo_nb.execution.state.rules import answered

TAKEN_S = 2.0
"""Seconds to wait until the process that executes a run has recorded the answer."""
TAKEN_POLL_S = 0.1
"""Seconds between two looks at its record."""


async def answer_question(store: RunStore, row: RunSummary, text: str, *, node: str | None, request_id: str | None) -> None:
    """Answer a question of the run of that row; see `Runtime.answer`."""
    if row.status not in (Status.RUNNING, Status.INTERRUPTED):
        raise no_question(request_id or node, row.run_id)
    if row.parent_run_id is not None:
        raise UserError(
            f"Run {row.run_id} is a part of run {row.parent_run_id}, which asks for it.",
            hint=f"Answer there: dipeo-nb answer {row.parent_run_id} NODE=TEXT.",
        )
    here = live.holder(store, row.run_id)
    if isinstance(here, Execution):  # which knows its questions: of thousands, each answer would read the whole log
        here.answer(chosen(dict(here.state.questions), row.run_id, node=node, request_id=request_id), text)
        return
    asked = OpenQuestions()
    await read_run(store, row.run_id, asked.take)
    question = chosen(asked.found, row.run_id, node=node, request_id=request_id)
    await store.put_answer(row.run_id, question, text)
    injection.reach("answer.stored")
    if row.status == Status.RUNNING:
        await _recorded(store, row.run_id, question, text, after=asked.seq)


async def _recorded(store: RunStore, run_id: str, request_id: str, text: str, *, after: int) -> None:
    """Wait, for `TAKEN_S` at most, until the process that executes the run has recorded an answer.

    Raises:
        StorageError: another answer was first.
    """
    for _ in range(int(TAKEN_S / TAKEN_POLL_S)):
        for event in await store.events(run_id, after=after):
            after = event.seq
            response = cast(InteractiveResponse, event.payload)
            if event.type is EventType.INTERACTIVE_RESPONSE and response["request_id"] == request_id:
                await store.drop_answer(run_id, request_id)
                if (recorded := response["answer"]) != well_formed(text) and HIDDEN not in recorded:
                    raise answered(run_id, request_id)
                return
        await asyncio.sleep(TAKEN_POLL_S)
