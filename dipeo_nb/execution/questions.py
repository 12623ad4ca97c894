"""The questions of a run that wait for an answer, from wherever one comes first: the port that asks (a terminal, a waiting cell,
answers given beforehand), `Execution.answer` of this process (the form in the live view, HTTP), or another process, which leaves
its answer in the run store.

A question belongs to its run: each takes one answer, and a later one is refused. One that a process asked which is gone is asked
again when the run is resumed, and takes the answer that was left for it meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from dipeo_nb.common.redaction import logger, redactor
from dipeo_nb.common.values import well_formed
from dipeo_nb.domain.answer_forms import TEXT, AnswerForm
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.payloads import InteractiveResponse
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.domain.ports import InteractionPort, Question, RunStore
from dipeo_nb.errors import NodeTimeoutError, StorageError, UserError
from dipeo_nb.execution import record
from dipeo_nb.execution.asked import path_of, place_of
from dipeo_nb.execution.interaction import asked_of, no_question
from dipeo_nb.execution.journal import Journal
from dipeo_nb.execution.nested import question_names

POLL_S = 0.25
"""Seconds between two looks for an answer that another process left."""
_LOG = logger(__name__)
Answered = tuple[str, str]
"""Text and source of an answer."""


class Questions:
    """Those of one run.

    Args:
        before: the questions that were open when the run was cut off.
        elsewhere: whether other processes may answer, too.
    """

    def __init__(
        self,
        store: RunStore,
        run_id: str,
        port: InteractionPort | None,
        journal: Journal,
        *,
        before: Mapping[str, Mapping[str, Any]] | None = None,
        elsewhere: bool = True,
    ) -> None:
        self._store, self._run_id, self._port, self._elsewhere = store, run_id, port, elsewhere
        self._journal = journal
        self._lock = threading.Lock()
        self._open: dict[str, asyncio.Future[Answered]] = {}
        """Those that take an answer."""
        self._waiting: dict[str, asyncio.Future[Answered]] = {}
        """Those, and the ones whose answer is on its way."""
        self._asked_before = {place_of(p): request_id for request_id, p in (before or {}).items()}
        """Questions that a process asked which is gone."""
        self._left: list[str] = []
        """Questions whose answers were found in the store."""
        self._sought: dict[str, asyncio.Future[Answered]] = {}
        """Questions whose answers may come from another process: one look at the store is for all of them."""
        self._looking: asyncio.Task[None] | None = None

    def waits(self, request_id: str) -> bool:
        """Whether a question can be answered. Any thread."""
        return request_id in self._open

    def answer(self, request_id: str, text: str, source: str = "user") -> None:
        """Answer a question. Any thread; the first answer counts.

        Raises:
            RunError: the question is over, or there is none of that id.
        """
        with self._lock:
            waiting = self._open.pop(request_id, None)
        if waiting is None or waiting.get_loop().is_closed():
            raise no_question(request_id, self._run_id)
        waiting.get_loop().call_soon_threadsafe(lambda: waiting.done() or waiting.set_result((text, source)))

    # On the loop thread.

    async def ask(
        self,
        node: PlanNode,
        prompt: str,
        *,
        timeout: float | None,
        default: str | None,
        path: tuple[str, ...] = (),
        form: AnswerForm = TEXT,
    ) -> Answered:
        """Put a question to the user. Without an answer in time: the default.

        Args:
            path: see `Question`, when the node that asks is part of a sub-diagram.
            form: what an answer is; the caller checks whether it is one.

        Raises:
            NodeTimeoutError: there is neither.
        """
        path = path or (node.label,)
        journal = self._journal
        request_id = f"{node.id}:{journal.seq + 1}"
        question = Question(self._run_id, node.id, path[-1], redactor(prompt), timeout, default, request_id, path, form)
        self.open(request_id)
        try:
            journal.emit(EventType.INTERACTIVE_PROMPT, node.id, record.prompt(question))
            await journal.flush()
            answer, source = await self.asked(question, timeout)
            answer = well_formed(answer)
        except TimeoutError:
            if default is None:
                raise NodeTimeoutError(
                    f"Nobody answered '{path[-1]}' within {timeout:g} s.",
                    hint="Give the node a `default`, a longer `timeout`, or the answer beforehand (answers= / --answer).",
                    node=node.label,
                ) from None
            answer, source = default, "default"
        finally:
            self.close(request_id)
        response: InteractiveResponse = {"request_id": request_id, "answer": answer, "source": source}
        journal.emit(EventType.INTERACTIVE_RESPONSE, node.id, response)
        await journal.flush()
        await self.recorded()
        return answer, source

    def open(self, request_id: str) -> None:
        """From here on the question can be answered, also before `asked` is awaited, which gives the answer."""
        with self._lock:
            self._open[request_id] = self._waiting[request_id] = asyncio.get_running_loop().create_future()

    def close(self, request_id: str) -> None:
        """The question is over."""
        with self._lock:
            self._open.pop(request_id, None)
            self._waiting.pop(request_id, None)

    async def asked(self, question: Question, timeout: float | None) -> Answered:
        """The answer to an open question, from any source.

        Raises:
            TimeoutError: there was none in time.
        """
        request_id = question.request_id
        waiting = self._waiting[request_id]
        if request_id not in self._open:
            return await waiting  # it was answered as soon as it was shown
        before = self._asked_before.pop((question.node_id, question.path), None)
        if (found := await self._look(request_id, before)) is not None:
            return found
        asking: list[asyncio.Future[Any]] = [waiting]
        if self._port is not None:
            asking.append(asyncio.ensure_future(asked_of(self._port, question)))
        if self._elsewhere:
            # Also under the former id: who answers may have read the record just before the run was resumed.
            asking.append(self._seek(request_id, *([] if before is None else [before])))
        try:
            done, _ = await asyncio.wait(asking, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            with self._lock:  # an answer that was accepted meanwhile counts
                accepted = self._open.pop(request_id, None) is None
            if accepted:
                return await waiting
            if not done:
                raise TimeoutError
            return next(one for one in asking if one in done).result()
        finally:
            for one in asking:
                one.cancel()
            for name in (request_id, before):
                self._sought.pop(name or "", None)
            if not self._sought and self._looking is not None:
                self._looking.cancel()
                asking.append(self._looking)
                self._looking = None
            await asyncio.gather(*asking, return_exceptions=True)

    async def recorded(self) -> None:
        """The answers so far are in the record of the run: what was left for it in the store is not needed any more."""
        while self._left:
            try:
                await self._store.drop_answer(self._run_id, self._left[-1])
            except StorageError as error:
                _LOG.warning("Run %s: %s", self._run_id, error)
            self._left.pop()

    async def _look(self, *request_ids: str | None) -> Answered | None:
        """The answer that another process has left for one of these questions."""
        left = await self._answers()
        for request_id in request_ids:
            if request_id is not None and request_id in left:
                self._left.append(request_id)
                return left[request_id], "user"
        return None

    async def _answers(self) -> Mapping[str, str]:
        """What other processes have left for the run."""
        if not self._elsewhere or not hasattr(self._store, "answers"):
            return {}
        try:
            return await self._store.answers(self._run_id)
        except StorageError as error:
            _LOG.warning("Run %s: answers of other processes cannot be read: %s", self._run_id, error)
            return {}

    def _seek(self, *request_ids: str) -> asyncio.Future[Answered]:
        """The answer that another process leaves for one of these questions, some time."""
        found: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._sought.update(dict.fromkeys(request_ids, found))
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look_again_and_again())
        return found

    async def _look_again_and_again(self) -> None:
        """Look for the answers to all that are sought, as long as any is."""
        try:
            while True:
                await asyncio.sleep(POLL_S)
                for request_id, answer in (await self._answers()).items():
                    if (waiting := self._sought.get(request_id)) is not None and not waiting.done():
                        self._left.append(request_id)
                        waiting.set_result((answer, "user"))
        except Exception as error:  # noqa: BLE001 - of the store, to all who wait for it
            for waiting in self._sought.values():
                if not waiting.done():
                    waiting.set_exception(error)
            self._looking = None


def chosen(open_questions: Mapping[str, Mapping[str, Any]], run_id: str, *, node: str | None, request_id: str | None) -> str:
    """The id of the question that is meant.

    Args:
        open_questions: request_id → payload.
        node: the label, path or id of the node that asks.

    Raises:
        RunError: it does not wait.
        UserError: several could be meant.
    """
    if request_id is not None:
        if request_id not in open_questions:
            raise no_question(request_id, run_id, _names(open_questions))
        return request_id
    found = [r for r, p in open_questions.items() if node is None or node == p["node_id"] or node in question_names(path_of(p))]
    if not found:
        raise no_question(node, run_id, _names(open_questions))
    if len(found) > 1:
        several = [f"'{'/'.join(path_of(open_questions[r]))}'" for r in found]
        raise UserError(
            f"{len(found)} questions of run {run_id} wait: {', '.join(several)}.",
            hint="Name the node whose question you answer.",
        )
    return found[0]


def _names(open_questions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return ["/".join(path_of(p)) for p in open_questions.values()]
