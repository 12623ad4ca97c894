"""Answers to many prompts: the results of a batch, and the handle of a batch that a provider processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.text import displayed
from dipeo_nb.errors import DipeoError, LLMError
from dipeo_nb.llm.batch import BatchJob
from dipeo_nb.llm.service import LLMService
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.answer import Answer, of_response, summary


class BatchResults(list["Answer | LLMError"]):
    """Answers to many prompts, with the error in the place of each that failed; shown as a table."""

    def __init__(self, answers: Sequence[Answer | LLMError], prompts: Sequence[str]) -> None:
        super().__init__(answers)
        self.prompts: list[str] = list(prompts)

    @property
    def failed(self) -> list[tuple[int, LLMError]]:
        """(position, error) of the prompts without an answer."""
        return [(i, item) for i, item in enumerate(self) if isinstance(item, DipeoError)]

    @property
    def cost_usd(self) -> float | None:
        """Cost of all answers, and of errors that were charged, in US dollars; None when one of them is unknown."""
        costs = [item.cost_usd for item in self if isinstance(item, Answer) or item.charged]
        return None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs)

    @displayed
    def __repr__(self) -> str:
        return f"Batch of {len(self)}, {len(self.failed)} failed, {static_view.money(self.cost_usd)}"

    @displayed
    def _repr_html_(self) -> str:
        rows = [(prompt, *_batch_row(item)) for prompt, item in zip(self.prompts, self, strict=True)]
        return static_view.titled(escape(repr(self)), static_view.table(("prompt", "answer", "details"), rows))


class BatchHandle:
    """A batch that was submitted to a provider; its repr shows the progress.

    Args:
        response_format: the pydantic class of the answers; None: JSON objects, if a structure was requested.
    """

    def __init__(self, service: LLMService, job: BatchJob, response_format: Any = None) -> None:
        self._service = service
        self._format = response_format
        self.job = job

    @property
    def id(self) -> str:
        """Its id at the provider."""
        return self.job.id

    def poll(self) -> BatchHandle:
        """Update the progress."""
        self.job = run_sync(self._service.poll_batch(self.job))
        return self

    def wait(self, interval: float = 30.0, timeout: float | None = None) -> BatchHandle:
        """Poll every *interval* seconds until it has ended; Stop ends the waiting, not the job.

        Raises:
            LLMTimeoutError: it had not ended after *timeout* seconds.
        """
        self.job = run_sync(self._service.wait_for_batch(self.job, interval=interval, timeout=timeout))
        return self

    def cancel(self) -> BatchHandle:
        """Cancel it; answers that are ready can be collected."""
        self.job = run_sync(self._service.cancel_batch(self.job))
        return self

    def collect(self) -> BatchResults:
        """The answers in the order of the prompts; where one failed, its place has the error.

        Raises:
            ProviderError: it has not ended yet.
        """
        found = run_sync(self._service.collect_batch(self.job, response_format=self._format))
        answers = [item if isinstance(item, LLMError) else of_response(item) for item in found]
        return BatchResults(answers, [item.id for item in self.job.items])

    @displayed
    def __repr__(self) -> str:
        return repr(self.job)


def _batch_row(item: Answer | LLMError) -> tuple[str, str]:
    if isinstance(item, Answer):
        value = item.text if item.structured is None else item.structured
        return (value if isinstance(value, str) else _json(value)), summary(item)
    return f"{type(item).__name__}: {item.message}", item.hint or ""


def _json(value: Any) -> str:
    dump = getattr(value, "model_dump_json", None)
    return dump() if dump is not None else json.dumps(value, ensure_ascii=False, default=str)


# The former names, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "Batch": "dipeo_nb.notebook.answers:BatchResults",
            "Submitted": "dipeo_nb.notebook.answers:BatchHandle",
        },
    )
