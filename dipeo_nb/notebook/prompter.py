"""Asks the questions of a run in a notebook: in a cell that waits for it, or in the form of its live view."""

from __future__ import annotations

import asyncio
import queue
import sys
import time
from typing import TYPE_CHECKING

from dipeo_nb.common.loop import LoopThread
from dipeo_nb.common.moved import moved_names
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.ports import Question
from dipeo_nb.execution.interaction import nobody
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.cell_input import CellInput, QuestionOverError, hide_box

VIEW_S = 2.0
"""Seconds that a page has to show a live view and to send its first message."""


class NotebookPrompter:
    """Prompts the user of a notebook.

    A cell that waits for the run asks with input() where messages of the live view's form do not reach a busy kernel. `run.answer(…)`
    answers as well; the first answer counts.
    """

    def __init__(self) -> None:
        self.waiting_cells = 0
        self.form_works = False
        """Whether a message of a live view arrived while a cell was busy, so that its form works."""
        self.view_since: float | None = None
        """When a live view was shown."""
        self._input = CellInput()
        self._waiting: dict[str, asyncio.Future[tuple[str, str]]] = {}
        self._questions: queue.SimpleQueue[Question] = queue.SimpleQueue()

    async def ask(self, question: Question) -> tuple[str, str]:
        answered: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._waiting[question.request_id] = answered
        self._questions.put(question)
        try:
            return await answered
        finally:
            del self._waiting[question.request_id]
            self._input.release(question.request_id)

    def set_result(self, request_id: str, answer: str | BaseException, source: str = "user") -> None:
        """Answer a question of the run. Safe from any thread; the first answer counts."""

        def settle() -> None:
            waiting = self._waiting.get(request_id)
            if waiting is None or waiting.done():
                return
            if isinstance(answer, str):
                waiting.set_result((answer, source))
            else:
                waiting.set_exception(answer)

        LoopThread.get().loop.call_soon_threadsafe(settle)

    def ask_here(self) -> None:
        """Ask the next waiting question with input(), unless the form of a live view works. Returns when it is answered or over.

        Call it in the thread from which the kernel reads.
        """
        if self.form_works or self._view_is_coming():
            return
        question = self._next()
        if question is None:
            return
        request_id, default = question.request_id, question.default
        try:
            if not kernel.in_kernel() and not sys.stdin.isatty():
                raise EOFError
            prompt = f"{question.text} " if default is None else f"{question.text} [{default}] "
            text = self._input.read(prompt, request_id, lambda: request_id in self._waiting)
        except QuestionOverError as over:
            if over.open_box:
                form = request_id in self._waiting
                _close_box(question, "is asked in the form of the view now" if form else "no longer needs an answer")
        except KeyboardInterrupt:
            if kernel.in_kernel():
                _close_box(question, "no longer needs an answer")
            raise
        except (EOFError, NotImplementedError) as error:
            # StdinNotImplementedError of a kernel without a front end (nbclient, nbmake) is a NotImplementedError.
            if default is not None:
                self.set_result(request_id, default, "default")
            else:
                refused = nobody(question)
                refused.__cause__ = error
                self.set_result(request_id, refused)
        else:
            if text or default is None:
                self.set_result(request_id, text)
            else:
                self.set_result(request_id, default, "default")

    def form_got_through(self) -> None:
        """Note that a message of a live view arrived. Safe from any thread."""
        if self.waiting_cells > 0 and not self.form_works:
            self.form_works = True
            for request_id in list(self._waiting):
                self._input.release(request_id)

    def _view_is_coming(self) -> bool:
        shown = self.view_since is not None and not kernel.unattended()
        return shown and time.monotonic() - (self.view_since or 0.0) < VIEW_S

    def _next(self) -> Question | None:
        while not self._questions.empty():
            question = self._questions.get()
            if question.request_id in self._waiting:
                return question
        return None


def _close_box(question: Question, why: str) -> None:
    """Explain why a question is over that is still shown: below a cell, or at the end of a terminal's line."""
    said = f"“{clean(question.prompt, 200)}” {why}."
    if kernel.in_kernel():
        hide_box(said)
    else:
        sys.stdout.write(f"\n{said}\n")


# The former name, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "Answers": "dipeo_nb.notebook.prompter:NotebookPrompter",
        },
    )
