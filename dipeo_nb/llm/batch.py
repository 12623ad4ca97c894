"""Batches through the providers' own batch APIs: half the price, an answer within a day, whatever happens to this process.

A job is a small file below `<base_dir>/.dipeo/batches`, written before `submit` returns and after each look: a kernel that was
restarted finds it in `jobs()` and continues with `poll` and `collect`. The file holds no key and no prompt.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.root import Root
from dipeo_nb.common.walk import Entry
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, OutputMode, TokenUsage
from dipeo_nb.errors import ConfigurationError, LLMError, ProviderError, UnsupportedError, UserError
from dipeo_nb.llm.core.types import BatchState, BatchStatus, as_json, from_json
from dipeo_nb.llm.endings import ended, without_keys
from dipeo_nb.llm.options import left_out
from dipeo_nb.llm.output_modes import parse_output, with_output_mode
from dipeo_nb.llm.pricing import cost_usd
from dipeo_nb.llm.streaming import with_notices
from dipeo_nb.llm.structured import made, schema_of

OVER: frozenset[BatchState] = frozenset({"completed", "failed", "cancelled", "expired"})
"""States that do not change any more."""


class BatchClient(Protocol):
    """What a client of a provider with a batch API has."""

    async def submit_batch(self, requests: Mapping[str, LLMRequest]) -> BatchStatus: ...
    async def poll_batch(self, batch_id: str) -> BatchStatus: ...
    async def cancel_batch(self, batch_id: str) -> BatchStatus: ...
    async def batch_results(
        self, batch_id: str, requests: Mapping[str, LLMRequest]
    ) -> Mapping[str, LLMResponse | LLMError]: ...


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One request of a job: what is needed to understand its answer."""

    id: str
    model: str
    rung: OutputMode | None = None
    """The output mode; files of batches have it under this name."""
    schema: Mapping[str, Any] | None = None
    notices: tuple[str, ...] = ()
    """What is to be known of the request, such as options that its model does not take."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A batch at a provider."""

    id: str
    """The provider's name for it."""
    service: str
    state: BatchState
    created_at: float
    """Seconds since the epoch."""
    items: tuple[BatchItem, ...]
    """In the order of the requests."""
    base_url: str | None = None
    api_key_id: str | None = None
    completed: int = 0
    failed: int = 0

    @property
    def over(self) -> bool:
        """Whether it can be collected."""
        return self.state in OVER

    def __repr__(self) -> str:
        done = f"{self.completed} done, {self.failed} failed of {len(self.items)}"
        return f"<BatchJob {self.id} at {self.service}: {self.state}, {done}>"


class BatchStore:
    """The jobs of a base directory, one file each."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def save(self, job: BatchJob) -> BatchJob:
        try:
            self._root.write(_name(job.id), as_json(job).encode())
        except OSError as error:
            raise failed("record the batch in", self._root.path / _name(job.id), error) from error
        return job

    def load(self, job_id: str) -> BatchJob:
        """The job of that id.

        Raises:
            UserError: there is none, or its file is damaged.
        """
        try:
            return from_json(BatchJob, self._root.read(_name(job_id)))
        except FileNotFoundError:
            known = ", ".join(j.id for j in self.jobs()) or "none"
            raise UserError(f"There is no batch '{job_id}' here.", hint=f"There are: {known}.") from None
        except ValueError as error:
            raise UserError(
                f"The record of batch '{job_id}' is damaged: {str(error).splitlines()[0]}.",
                hint=f"Remove {self._root.path / _name(job_id)}; the batch itself is still at the provider.",
            ) from error

    def jobs(self) -> list[BatchJob]:
        """All jobs, newest first; damaged records are left out (`load` says what is wrong with them)."""
        found: list[BatchJob] = []
        for entry in self._entries():
            try:
                found.append(from_json(BatchJob, self._root.read(entry.name)))
            except (ValueError, FileNotFoundError, IsADirectoryError):
                continue
        return sorted(found, key=lambda job: -job.created_at)

    def forget(self, job_id: str) -> None:
        """Remove the record; the batch at the provider is left alone."""
        with suppress(FileNotFoundError):
            self._root.unlink(_name(job_id))

    def _entries(self) -> list[Entry]:
        try:
            return [entry for entry in self._root.listdir() if entry.name.endswith(".json")]
        except FileNotFoundError:
            return []


def _name(job_id: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', job_id)}.json"


def batch_client(client: Any, service: str) -> BatchClient:
    """The client, if it has a batch API.

    Raises:
        UnsupportedError: it has none.
    """
    if not hasattr(client, "submit_batch"):
        raise UnsupportedError(
            f"{service} has no batch API.",
            hint="Use batch(): it asks a few at a time. openai, anthropic and gemini have batch APIs.",
            provider=service,
        )
    return cast(BatchClient, client)


async def submit(
    client: BatchClient, requests: Sequence[LLMRequest], modes: Sequence[OutputMode | None], base_url: str | None
) -> BatchJob:
    """Hand *requests* over; structure is asked for by *modes*, one for each."""
    first = requests[0]
    if len({(r.service, r.api_key_id, r.base_url) for r in requests}) != 1:
        raise ConfigurationError(
            f"A batch goes to one service, key and server; these are for {', '.join(sorted({r.service for r in requests}))}.",
            hint="Submit one batch for each.",
        )
    items = tuple(
        BatchItem(
            f"item-{n}", r.model, mode, None if r.response_format is None else schema_of(r.response_format), tuple(left_out(r))
        )
        for n, (r, mode) in enumerate(zip(requests, modes, strict=True))
    )
    wire = {i.id: with_output_mode(r, i.rung) for i, r in zip(items, requests, strict=True)}
    status = await client.submit_batch(wire)
    return BatchJob(status.id, first.service, status.state, time.time(), items, base_url, first.api_key_id)


def updated(job: BatchJob, status: BatchStatus) -> BatchJob:
    """The job as the provider sees it now."""
    return replace(job, state=status.state, completed=status.completed, failed=status.failed)


async def collect(client: BatchClient, job: BatchJob, response_format: Any = None) -> list[LLMResponse | LLMError]:
    """The answers in the order of the requests; a request that failed is its error.

    Args:
        response_format: the pydantic class that the answers are to be instances of; None: as JSON schema says, plain objects.

    Raises:
        ProviderError: the job is not over.
    """
    if not job.over:
        raise ProviderError(
            f"The batch {job.id} is not done: {job.state}, {job.completed} of {len(job.items)}.",
            hint="Poll it later, or wait for it.",
            provider=job.service,
        )
    asked = {
        item.id: LLMRequest(job.service, item.model, (), response_format=response_format or item.schema) for item in job.items
    }
    wire = {item.id: with_output_mode(asked[item.id], item.rung) for item in job.items}
    found = await client.batch_results(job.id, wire)
    answers: list[LLMResponse | LLMError] = []
    for item in job.items:
        answer = found.get(item.id)
        if answer is None:
            answer = ProviderError(
                f"{job.service} has no answer for {item.id} of batch {job.id}, which is {job.state}.",
                hint="Submit it again.",
                provider=job.service,
                model=item.model,
            )
        elif isinstance(answer, LLMResponse):
            try:
                answer = await made(functools.partial(parse_output, answer, asked[item.id], item.rung), asked[item.id])
            except LLMError as error:
                answer = error
        usage = answer.usage or TokenUsage()
        answered = answer.model or item.model
        cost = cost_usd(job.service, answered, usage, base_url=job.base_url, batch=True, requested=item.model)
        if isinstance(answer, LLMResponse):
            try:
                answer = with_notices(
                    ended(without_keys(replace(answer, cost_usd=cost), asked[item.id]), asked[item.id]), item.notices
                )
            except LLMError as error:
                answer = error
        elif answer.usage is not None:  # a refusal, or an answer that does not fit, is paid for
            answer.cost_usd, answer.charged = cost, True
        if isinstance(answer, LLMError):
            redactor.error(answer)
        answers.append(answer)
    return answers
