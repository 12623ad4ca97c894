"""All models behind one entry point.

A request goes down these steps, each of which reads from top to bottom:

1. `stream`: defaults and checks, the phase; then rounds: call the model, run the tools it calls, ask again; once more when
   a structured answer does not fit; the next way to structure when a server refuses one.
2. `recording.through`: a recorded answer instead of a call, when recordings are on.
3. `_live`: this model, or one of its fallbacks.
4. `Attempts.run`: budget, circuit, concurrency, time limits, retries; then the provider's client.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.common.aio import gather_limited
from dipeo_nb.common.root import own_root
from dipeo_nb.config import DEFAULT_MODEL, Settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, OutputMode, StreamEvent, normalize_service, parse_model
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import (
    APIKeyNotFoundError,
    AuthError,
    ConfigurationError,
    EmptyAnswerError,
    LLMError,
    LLMTimeoutError,
    MissingDependencyError,
    StructureError,
    UnsupportedError,
    ValidationError,
)
from dipeo_nb.llm import batch, phases, providers, recording
from dipeo_nb.llm.accounting import Spent
from dipeo_nb.llm.attempts import Attempts
from dipeo_nb.llm.batch import BatchClient, BatchJob, BatchStore
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.catalogue import BY_DEFAULT
from dipeo_nb.llm.client_pool import ClientManager
from dipeo_nb.llm.core.client import BATCH_CONCURRENCY
from dipeo_nb.llm.core.retry import transient
from dipeo_nb.llm.core.types import RetryConfig
from dipeo_nb.llm.endings import ANSWERED, empty_error, ended
from dipeo_nb.llm.options import adapted
from dipeo_nb.llm.output_modes import OutputModes, in_prose, parse_output, refuses_structure, repair_request, with_output_mode
from dipeo_nb.llm.partial_answer import PartialAnswer
from dipeo_nb.llm.request_defaults import RequestDefaults
from dipeo_nb.llm.streaming import SPOKEN, collect, incomplete_stream_error, with_notices
from dipeo_nb.llm.structured import made, prepare_request
from dipeo_nb.llm.tool_loop import after_first, are_ours, check_round, results_of

if TYPE_CHECKING:
    import stamina
else:
    stamina = lazy.module("stamina")  # with tenacity a tenth of the start of a command; only what is repeated needs it


class LLMService:
    """`LLMServicePort` over the registered providers, and what no client should repeat; see the module's description."""

    def __init__(
        self,
        settings: Settings,
        keys: APIKeyPort,
        *,
        clients: ClientManager | None = None,
        retries: RetryConfig | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._clients = clients or ClientManager(settings, keys)
        self._attempts = Attempts(
            settings, self._clients, retries or RetryConfig(max_attempts=settings.llm_max_retries + 1), sleep
        )
        self._defaults = RequestDefaults(settings)
        self._modes = OutputModes(self._clients.base_url)

    @property
    def services(self) -> Sequence[str]:
        return providers.services()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        """As `LLMServicePort.stream`."""
        request = asked = self._defaults.filled(phases.apply_phase(self._defaults.named(request)))
        await prepare_request(request)
        modes = self._modes.of(request)
        spent = Spent()
        try:
            async with contextlib.aclosing(self._answered(request, asked, modes, spent)) as events:
                async for event in events:
                    yield event
        finally:
            spent.note(request.meter)

    async def _answered(
        self, request: LLMRequest, asked: LLMRequest, modes: tuple[OutputMode, ...], spent: Spent
    ) -> AsyncGenerator[StreamEvent]:
        """The events of an answer, its repairs and its rounds of tools included; what they take is added to *spent*."""
        started = repaired = False
        rounds = 0
        while True:
            mode = modes[0] if modes else None
            wire = with_output_mode(asked, mode)
            try:
                response: LLMResponse | None = None
                view = PartialAnswer() if mode else None
                async with contextlib.aclosing(self._recorded(wire, spent)) as events:
                    async for event in events:
                        match event.kind:
                            case "start" if started and not (event.data or {}).get("notice"):
                                continue
                            case "start":
                                started = True
                            case "usage":
                                continue  # one for all rounds, at the end
                            case "end":
                                response = event.response
                                continue
                            case "tool_call_start" | "tool_call_delta" | "tool_call_end" if mode == "tool":
                                event = view.as_text(event) if view else event
                                if event is None:
                                    continue
                            case _:
                                pass
                        yield event
                        if view is not None and event.kind == "text" and (seen := view.after(event.text)) is not None:
                            yield seen
                if response is None:
                    raise incomplete_stream_error(request)
                spent.add(response)
                response = await made(functools.partial(parse_output, response, asked, mode), asked)
            except StructureError as error:
                spent.add_failed(error, request)
                if request.allow_prose and error.repairable:
                    response = ended(spent.total(in_prose(error, request)), request)
                    yield StreamEvent("usage", data=response.usage.to_dict())
                    yield StreamEvent("end", response=response)
                    return
                if repaired or not error.repairable:
                    spent.within(error)
                    raise
                repaired = True
                asked = repair_request(asked, error)
                yield StreamEvent("stream_restarted", data={"reason": error.problem})
                continue
            except LLMError as error:
                spent.add_failed(error, request)
                if len(modes) < 2 or not refuses_structure(error):
                    spent.within(error)
                    raise
                self._modes.remember(request, modes[0], error)
                modes = modes[1:]
                yield StreamEvent("error", error.message, data={"code": error.code, "rung": modes[0]})
                continue
            calls = response.tool_calls
            if not calls or not are_ours(calls, request):
                try:
                    response = ended(spent.total(response), request)
                except EmptyAnswerError as error:
                    raise spent.within(error) from None
                yield StreamEvent("usage", data=response.usage.to_dict())
                yield StreamEvent("end", response=response)
                return
            rounds += 1
            try:
                check_round(response, rounds, request)
            except LLMError as error:
                raise spent.within(error) from None
            turn = ChatMessage("assistant", response.text, tool_calls=calls, raw=response.raw)
            results: list[ChatMessage] = []
            async for event, message in results_of(calls, request):
                results.append(message)
                yield event
            order = {c.id: i for i, c in enumerate(calls)}
            results.sort(key=lambda m: order[m.tool_result.call_id] if m.tool_result else 0)
            asked = replace(asked, messages=(*asked.messages, turn, *results), tool_choice=after_first(asked.tool_choice))

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once; same errors."""
        notices: list[str] = []
        return with_notices(await collect(self.stream(request), request, notices), notices)

    async def batch(
        self, requests: Sequence[LLMRequest], *, max_concurrent: int = BATCH_CONCURRENCY
    ) -> list[LLMResponse | LLMError]:
        """The answers of many requests at once, in their order; failed ones are the error itself.

        `submit_batch` uses the provider's own batch API, which is cheaper and takes up to a day.
        """

        async def answer(request: LLMRequest) -> LLMResponse | LLMError:
            try:
                return await self.complete(request)
            except LLMError as error:
                return error

        return await gather_limited(answer, requests, max_concurrent)

    # Batches at the providers.

    async def submit_batch(self, requests: Sequence[LLMRequest]) -> BatchJob:
        """Hand requests to the provider's own batch API: cheaper, and answered within a day.

        The job is recorded below `<base_dir>/.dipeo/batches` and survives this process: see `batches`, `poll_batch`,
        `collect_batch`. Tools are not run; calls of them are in the answers.

        Raises:
            UnsupportedError: the service has no batch API.
            ConfigurationError: requests for several services, or recordings are replayed.
        """
        if not requests:
            raise ValidationError("The batch is empty.", hint="Give at least one request.")
        recordings = recording.active(self._settings)
        if recordings is not None and recordings.mode == "replay":
            raise ConfigurationError(
                "Batch APIs are not recorded, so they cannot be replayed.", hint="Use batch(), or DIPEO_LLM_MODE=live."
            )
        filled = [self._defaults.filled(phases.apply_phase(self._defaults.named(r))) for r in requests]
        for request in filled:
            await prepare_request(request)
        modes: list[OutputMode | None] = [next(iter(self._modes.of(r)), None) for r in filled]
        async with self._clients.client(filled[0]) as client:
            able = batch.batch_client(client, filled[0].service)
            return self._batches.save(await batch.submit(able, filled, modes, self._clients.base_url(filled[0])))

    async def poll_batch(self, job: BatchJob | str) -> BatchJob:
        """The job as the provider sees it now; passing failures of asking are retried."""
        job = self._job(job)
        async for attempt in stamina.retry_context(on=transient, attempts=4, timeout=60):
            with attempt:
                async with self._batch_client(job) as client:
                    job = batch.updated(job, await client.poll_batch(job.id))
        return self._batches.save(job)

    async def collect_batch(self, job: BatchJob | str, *, response_format: Any = None) -> list[LLMResponse | LLMError]:
        """The answers in the order of the requests; a request that failed is its error. Costs are those
        of the batch API, which asks less.

        Raises:
            ProviderError: it is not done yet.
        """
        job = self._job(job)
        if not job.over:
            job = await self.poll_batch(job)
        async with self._batch_client(job) as client:
            return await batch.collect(client, job, response_format)

    async def wait_for_batch(self, job: BatchJob | str, *, interval: float = 30.0, timeout: float | None = None) -> BatchJob:
        """Poll every *interval* seconds until the job is over.

        Raises:
            LLMTimeoutError: it was not over within *timeout* seconds.
        """
        job = await self.poll_batch(job)
        start = time.monotonic()
        while not job.over:
            if timeout is not None and time.monotonic() - start + interval > timeout:
                raise LLMTimeoutError(
                    f"The batch {job.id} was not done within {timeout:g} s: {job.state}.",
                    hint="The provider continues to work on it; poll it later.",
                    provider=job.service,
                )
            await asyncio.sleep(interval)
            job = await self.poll_batch(job)
        return job

    async def cancel_batch(self, job: BatchJob | str) -> BatchJob:
        """Stop a job; what is done can be collected."""
        job = self._job(job)
        async with self._batch_client(job) as client:
            return self._batches.save(batch.updated(job, await client.cancel_batch(job.id)))

    def batches(self) -> list[BatchJob]:
        """The jobs of this base directory, newest first, as they were when last looked at."""
        return self._batches.jobs()

    @property
    def _batches(self) -> BatchStore:
        return BatchStore(own_root(self._settings.base_dir).below("batches"))

    def _job(self, job: BatchJob | str) -> BatchJob:
        return self._batches.load(job) if isinstance(job, str) else job

    @contextlib.asynccontextmanager
    async def _batch_client(self, job: BatchJob) -> AsyncIterator[BatchClient]:
        request = LLMRequest(job.service, "", (), base_url=job.base_url, api_key_id=job.api_key_id)
        async with self._clients.client(request) as client:
            yield batch.batch_client(client, job.service)

    async def check_server(self, service: str, *, base_url: str | None = None, api_key_id: str | None = None) -> None:
        """Look whether words may go to the server of a service, before anything is sent.

        Raises:
            SettingNotApprovedError: only the folder names it, and nobody approved that.
        """
        await self._clients.check(LLMRequest(normalize_service(service), "", (), api_key_id=api_key_id, base_url=base_url))

    async def validate_api_key(self, service: str, api_key_id: str | None = None, *, base_url: str | None = None) -> bool:
        """Whether the provider takes the key; asks for its list of models, which costs nothing.

        Raises:
            APIKeyNotFoundError: there is no key.
            LLMError: the provider could not be asked.
        """
        request = LLMRequest(normalize_service(service), "", (), api_key_id=api_key_id, base_url=base_url)
        async with self._clients.client(request) as client:
            check = getattr(client, "check_key", None)
            if check is None:
                raise UnsupportedError(f"{service} has no way to check a key.", hint="Ask it something.", provider=service)
            try:
                await check()
            except AuthError:
                return False
        return True

    async def announced_ends(self, service: str) -> dict[str, date]:
        """When models of a service are shut down, as its list of models says; asking costs nothing. Empty when it does not say.

        Raises:
            APIKeyNotFoundError: there is no key.
            LLMError: the provider could not be asked.
        """
        request = LLMRequest(normalize_service(service), "", ())
        async with self._clients.client(request) as client:
            ask = getattr(client, "announced_ends", None)
            return {} if ask is None else await ask()

    async def cleanup(self) -> None:
        await self._clients.cleanup()

    # One model call.

    def _recorded(self, request: LLMRequest, spent: Spent) -> AsyncGenerator[StreamEvent]:
        """The recorded answer, or that of `_live`. Which server is asked is part of what is asked."""
        addressed = replace(request, base_url=self._clients.base_url(request))
        earlier: LLMRequest | None = None
        if request.context.get(BY_DEFAULT):
            earlier = replace(addressed, model=DEFAULT_MODEL)
        store = recording.active(self._settings)
        if store is None:
            return recording.through(None, addressed, lambda asked: self._live(asked, spent))
        return self._kept(store, addressed, earlier, spent)

    async def _kept(
        self, store: recording.Recordings, request: LLMRequest, earlier: LLMRequest | None, spent: Spent
    ) -> AsyncGenerator[StreamEvent]:
        """As `recording.through`; what failed attempts and models took is recorded with the answer, as replays do not repeat them."""
        failed = Spent()
        events = recording.through(
            store, request, lambda asked: self._live(asked, failed), earlier=earlier, whole=failed.including
        )
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    yield event
        finally:
            spent.merge(failed)

    async def _live(self, request: LLMRequest, spent: Spent) -> AsyncGenerator[StreamEvent]:
        """The answer of the request's model, or of the first of its fallbacks that has one.

        Args:
            spent: gets what those failed calls took whose errors are not raised; an answer and an error carry their own.
        """
        for name, following in zip([None, *request.fallbacks], [*request.fallbacks, None], strict=True):
            spoken = False
            try:
                candidate = request
                if name is not None:
                    candidate, left_out = self._fallback(request, name)
                    if left_out:
                        yield StreamEvent("start", data={"notice": f"{name} takes no {', no '.join(left_out)}; left out."})
                async with contextlib.aclosing(self._attempts.run(candidate, spent)) as events:
                    async for event in events:
                        if (
                            event.response is not None
                            and following is not None
                            and (empty := empty_error(event.response, candidate))
                        ):
                            raise empty
                        spoken = (spoken or event.kind in SPOKEN) and event.kind != "stream_restarted"
                        yield event
                return
            except (LLMError, APIKeyNotFoundError, MissingDependencyError) as error:
                if following is None or isinstance(error, ANSWERED):
                    raise
                if isinstance(error, LLMError):
                    spent.add_failed(error, request)
                yield StreamEvent("error", error.message, data={"code": error.code, "fallback": following})
                if spoken:
                    yield StreamEvent("stream_restarted", data={"reason": error.message})

    def _fallback(self, request: LLMRequest, name: str) -> tuple[LLMRequest, list[str]]:
        """The request as it goes to another model, and the options that this one does not take."""
        service, model = parse_model(name, self.services)
        other = self._defaults.named(replace(request, service=service, model=model or "", base_url=None, api_key_id=None))
        other, left_out = adapted(request, other)
        mode = capabilities_of(service, other.model).structured[0] if request.response_format is not None else None
        mode = mode if mode in ("grammar", "native", "json_mode") else request.output_mode
        return self._defaults.filled(replace(other, output_mode=mode)), left_out
