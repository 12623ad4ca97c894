"""All models behind one door.

A request goes down these steps, each a method that reads from top to bottom:

1. `stream`: defaults and checks, the phase; then rounds: call the model, run the tools it calls, ask again; once more when
   a structured answer does not fit; the next way to structure when a server refuses one.
2. `recording.through`: a recorded answer instead of a call, when recordings are on.
3. `_live`: this model, or one of its fallbacks.
4. `_attempts`: budget, circuit, concurrency, time limits, retries; then the provider's client.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import stamina

from dipeo_nb.common.aio import gather_limited
from dipeo_nb.common.root import own_root
from dipeo_nb.common.scrub import redactor
from dipeo_nb.common.values import is_plain, well_formed
from dipeo_nb.config import DEFAULT_MODEL, Settings
from dipeo_nb.domain.budget import CHARACTERS_PER_TOKEN
from dipeo_nb.domain.chat import (
    DEFAULT_MODEL_SERVICE,
    ChatMessage,
    LLMRequest,
    LLMResponse,
    Meter,
    Rung,
    StreamEvent,
    TokenUsage,
    ToolCall,
    ToolResult,
    normalize_service,
    parse_model,
)
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import (
    APIKeyNotFoundError,
    AuthError,
    ConfigurationError,
    ContentFilteredError,
    ContextLengthError,
    EmptyAnswerError,
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    MissingDependencyError,
    ProviderError,
    StructureError,
    ToolLoopError,
    UnsupportedError,
    ValidationError,
    ValidatorCodeError,
)
from dipeo_nb.llm import batch, phases, providers, recording
from dipeo_nb.llm.batch import BatchClient, BatchJob, BatchStore
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.catalogue import BY_DEFAULT, is_successor, model_of, named
from dipeo_nb.llm.core.client import BATCH_CONCURRENCY
from dipeo_nb.llm.core.retry import pause, transient
from dipeo_nb.llm.core.types import RetryConfig
from dipeo_nb.llm.endings import empty_error, ended, without_keys
from dipeo_nb.llm.options import adapted, check_options
from dipeo_nb.llm.pool import ClientManager
from dipeo_nb.llm.pricing import cost_usd, is_priced
from dipeo_nb.llm.stream import SPOKEN, TimeLimits, broken_off, collected
from dipeo_nb.llm.structured import (
    ANSWER_TOOL,
    in_prose,
    laddered,
    made,
    partial,
    prepare_request,
    repair_request,
    schema_of,
    unladdered,
)
from dipeo_nb.llm.tools import run_tool

PROMPT_LIMIT = 10_000_000
"""Characters of one request at most."""
REFUSALS_KEPT = 256
"""Refused ways to structure that are remembered."""
ANSWERED = (StructureError, ContentFilteredError, ValidatorCodeError)
"""Errors that are about an answer: the model gave one, and the server works."""
PARTIAL_S = 1 / 20
"""Seconds between two views of a structured answer that is still coming."""


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
        self._retries = retries or RetryConfig(max_attempts=settings.llm_max_retries + 1)
        self._sleep = sleep
        self._refused: dict[tuple[str, ...], None] = {}
        """Ways to structure that servers refused; see `_refusal`."""

    @property
    def services(self) -> Sequence[str]:
        return providers.services()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        """As `LLMServicePort.stream`."""
        request = asked = self._filled(phases.shaped(self._named(request)))
        await prepare_request(request)
        ladder = self._ladder(request)
        spent = _Spent()
        try:
            async with contextlib.aclosing(self._answered(request, asked, ladder, spent)) as events:
                async for event in events:
                    yield event
        finally:
            spent.note(request.meter)

    async def _answered(
        self, request: LLMRequest, asked: LLMRequest, ladder: tuple[Rung, ...], spent: _Spent
    ) -> AsyncGenerator[StreamEvent]:
        """The events of an answer, its repairs and its rounds of tools included; what they take is added to *spent*."""
        started = repaired = False
        rounds = 0
        while True:
            rung = ladder[0] if ladder else None
            wire = laddered(asked, rung)
            try:
                response: LLMResponse | None = None
                view = _Partial() if rung else None
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
                            case "tool_call_start" | "tool_call_delta" | "tool_call_end" if rung == "tool":
                                event = view.as_text(event) if view else event
                                if event is None:
                                    continue
                            case _:
                                pass
                        yield event
                        if view is not None and event.kind == "text" and (seen := view.after(event.text)) is not None:
                            yield seen
                if response is None:
                    raise broken_off(request)
                spent.add(response)
                response = await made(functools.partial(unladdered, response, asked, rung), asked)
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
                if len(ladder) < 2 or not _refuses_structure(error):
                    spent.within(error)
                    raise
                self._remember(request, ladder[0], error)
                ladder = ladder[1:]
                yield StreamEvent("error", error.message, data={"code": error.code, "rung": ladder[0]})
                continue
            calls = response.tool_calls
            if not calls or not _ours(calls, request):
                try:
                    response = ended(spent.total(response), request)
                except EmptyAnswerError as error:
                    raise spent.within(error) from None
                yield StreamEvent("usage", data=response.usage.to_dict())
                yield StreamEvent("end", response=response)
                return
            rounds += 1
            facts: dict[str, Any] = {"provider": response.provider, "model": response.model}
            if rounds > request.tool_rounds:
                raise spent.within(
                    ToolLoopError(
                        f"The model called tools {rounds} rounds in a row without giving an answer.",
                        hint="Raise tool_rounds, or say in the prompt when to stop.",
                        **facts,
                    )
                )
            if response.finish_reason == "length" and any(c.unreadable is not None for c in calls):
                raise spent.within(
                    ProviderError(
                        "The answer was cut off at its limit of tokens, within a call of a tool.", hint="Raise max_tokens.", **facts
                    )
                )
            turn = ChatMessage("assistant", response.text, tool_calls=calls, raw=response.raw)
            results: list[ChatMessage] = []
            async for event, message in _results(calls, request):
                results.append(message)
                yield event
            order = {c.id: i for i, c in enumerate(calls)}
            results.sort(key=lambda m: order[m.tool_result.call_id] if m.tool_result else 0)
            asked = replace(
                asked, messages=(*asked.messages, turn, *results), tool_choice=_after_first(asked.tool_choice)
            )

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once; same errors."""
        return await collected(self.stream(request), request)

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
        filled = [self._filled(phases.shaped(self._named(r))) for r in requests]
        for request in filled:
            await prepare_request(request)
        rungs: list[Rung | None] = [next(iter(self._ladder(r)), None) for r in filled]
        async with self._clients.client(filled[0]) as client:
            able = batch.batch_client(client, filled[0].service)
            return self._batches.save(await batch.submit(able, filled, rungs, self._clients.base_url(filled[0])))

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

    async def wait_for_batch(
        self, job: BatchJob | str, *, interval: float = 30.0, timeout: float | None = None
    ) -> BatchJob:
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
                    hint="It goes on at the provider; poll it later.",
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

    async def check_server(
        self, service: str, *, base_url: str | None = None, api_key_id: str | None = None
    ) -> None:
        """Look whether words may go to the server of a service, before anything is sent.

        Raises:
            SettingNotApprovedError: only the folder names it, and nobody approved that.
        """
        await self._clients.check(LLMRequest(normalize_service(service), "", (), api_key_id=api_key_id, base_url=base_url))

    async def validate_api_key(
        self, service: str, api_key_id: str | None = None, *, base_url: str | None = None
    ) -> bool:
        """Whether the provider takes the key; asks for its list of models, which costs nothing.

        Raises:
            APIKeyNotFoundError: there is no key.
            LLMError: the provider could not be asked.
        """
        request = LLMRequest(normalize_service(service), "", (), api_key_id=api_key_id, base_url=base_url)
        async with self._clients.client(request) as client:
            check = getattr(client, "check_key", None)
            if check is None:
                raise UnsupportedError(
                    f"{service} has no way to check a key.", hint="Ask it something.", provider=service
                )
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

    def _recorded(self, request: LLMRequest, spent: _Spent) -> AsyncGenerator[StreamEvent]:
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
        self, store: recording.Recordings, request: LLMRequest, earlier: LLMRequest | None, spent: _Spent
    ) -> AsyncGenerator[StreamEvent]:
        """As `recording.through`; what failed attempts and models took is recorded with the answer, as replays do not repeat them."""
        failed = _Spent()
        events = recording.through(store, request, lambda asked: self._live(asked, failed), earlier=earlier, whole=failed.including)
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    yield event
        finally:
            spent.merge(failed)

    async def _live(self, request: LLMRequest, spent: _Spent) -> AsyncGenerator[StreamEvent]:
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
                async with contextlib.aclosing(self._attempts(candidate, spent)) as events:
                    async for event in events:
                        if event.response is not None and following is not None and (empty := empty_error(event.response, candidate)):
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
        other = self._named(replace(request, service=service, model=model or "", base_url=None, api_key_id=None))
        other, left_out = adapted(request, other)
        rung = capabilities_of(service, other.model).structured[0] if request.response_format is not None else None
        rung = rung if rung in ("grammar", "native", "json_mode") else request.rung
        return self._filled(replace(other, rung=rung)), left_out

    async def _attempts(self, request: LLMRequest, spent: _Spent) -> AsyncGenerator[StreamEvent]:
        """The answer of one model; failures that may pass are tried again. A stream that had begun is restarted visibly."""
        assert request.timeout is not None
        limits: TimeLimits | None = None
        """From the first turn on, once the client is ready: waiting for either is not the call's fault."""
        circuit, concurrency = self._clients.guards(request)
        attempt = 1
        while True:
            spoken = False
            try:
                circuit.before_call(request.model)
                async with concurrency.slot() as ended:
                    held = self._book(request)
                    heard = _Heard()
                    try:
                        async with self._clients.client(request) as client:
                            # A registered client may be older than this method, or no subclass of the port.
                            if (prepare := getattr(client, "prepare", None)) is not None:
                                await prepare()
                            limits = limits or TimeLimits(request.timeout, self._settings.llm_idle_timeout)
                            stream = limits.applied(client.stream(replace(request, meter=heard.meter)), request)
                            async with contextlib.aclosing(stream) as events:
                                async for event in events:
                                    heard.take(event)
                                    if event.response is not None:
                                        event = replace(event, response=self._charged(event.response, request, heard))
                                        ended(None)
                                        circuit.succeeded()
                                        yield event
                                        return
                                    spoken = spoken or event.kind in SPOKEN
                                    yield event
                        raise broken_off(request)
                    except LLMError as error:
                        redactor.error(error)
                        self._charge_failed(error, request, heard)
                        if isinstance(error, ANSWERED):
                            ended(None)
                            circuit.succeeded()
                            raise
                        ended(error)
                        circuit.failed(error)
                        raise
                    except BaseException:  # nobody waits for the answer any more
                        if heard.begun and not heard.answered:
                            spent.add(self._cut_off(request, heard))
                        raise
                    finally:
                        if request.budget is not None:
                            request.budget.release(held)
            except LLMError as error:
                wait = pause(error, attempt, self._retries)
                if limits is None or wait is None or wait >= limits.left or getattr(error, "circuit_open", False):
                    raise
                spent.add_failed(error, request)
                yield StreamEvent(
                    "error", error.message, data={"code": error.code, "attempt": attempt, "retry_in_s": round(wait, 3)}
                )
                if spoken:
                    yield StreamEvent("stream_restarted", data={"reason": error.message})
            attempt += 1
            await self._sleep(wait)

    def _book(self, request: LLMRequest) -> int:
        """Tokens that the call holds of the budget until it is charged."""
        if request.budget is None:
            return 0
        size = sum(len(m.content) for m in request.messages)
        base_url = self._clients.base_url(request)
        tools = [tool.type for tool in request.tools]
        priced = request.budget.usd is None or is_priced(request.service, request.model, base_url=base_url, tools=tools)
        return request.budget.before_call(
            size, answer=request.max_tokens or 0, model=request.model or request.service, priced=priced
        )

    def _charged(self, response: LLMResponse, request: LLMRequest, heard: _Heard) -> LLMResponse:
        """The response with its price, booked. What the server says about it (not the answer itself) may repeat a key."""
        if response.cost_usd is None:
            response = replace(response, cost_usd=self._price(request, response.model, response.usage))
        if request.budget is not None:
            tokens = response.usage.total
            request.budget.charge(heard.estimate(request).total if tokens is None else tokens, response.cost_usd)
        return without_keys(response, request)

    def _price(self, request: LLMRequest, model: str | None, usage: TokenUsage) -> float | None:
        asked, base_url = request.model, self._clients.base_url(request)
        return cost_usd(request.service, model or asked, usage, base_url=base_url, requested=asked)

    def _charge_failed(self, error: LLMError, request: LLMRequest, heard: _Heard) -> None:
        """A refusal and an answer that does not fit were paid for all the same, and so was what came of one that broke off."""
        if error.usage is not None and error.usage.total is not None:
            error.cost_usd, error.charged = self._price(request, error.model, error.usage), True
            if request.budget is not None:
                request.budget.charge(error.usage.total, error.cost_usd)
        elif error.usage is not None or heard.gave or (heard.begun and isinstance(error, LLMConnectionError)):
            paid = self._cut_off(request, heard)
            error.usage, error.cost_usd, error.charged = paid.usage, paid.cost_usd, True

    def _cut_off(self, request: LLMRequest, heard: _Heard) -> LLMResponse:
        """A call whose end was not reported, booked: the tokens that were. Its cost is unknown, unless calls cost nothing; a budget
        is charged with an estimate, so that its limits are kept."""
        usage = heard.meter.usage or TokenUsage()
        cost = self._price(request, request.model, TokenUsage())
        if request.budget is not None:
            estimate = heard.estimate(request)
            request.budget.charge(estimate.total, self._price(request, request.model, estimate))
        return LLMResponse("", request.service, request.model, usage, cost_usd=cost)

    # What comes before.

    def _named(self, request: LLMRequest) -> LLMRequest:
        """The request with its service by its own name, and a model: without one, the default of its service. Without a service, a
        model and a server it is the default of the settings."""
        if not (request.service or request.model or request.base_url):
            service, model = named(None, self._settings)
        else:
            service = normalize_service(request.service or DEFAULT_MODEL_SERVICE)
            model = request.model or model_of(service, self._settings)
        if request.model or not is_successor(service, self._settings):
            return replace(request, service=service, model=model)
        return replace(request, service=service, model=model, context={**request.context, BY_DEFAULT: True})

    def _filled(self, request: LLMRequest) -> LLMRequest:
        """The request with defaults, checked."""
        if not any(m.content.strip() or m.tool_result or m.raw for m in request.messages):
            raise ValidationError("The request has no message.", hint="Give the person a prompt.")
        size = sum(len(m.content) for m in request.messages)
        if size > PROMPT_LIMIT:
            raise ValidationError(
                f"The request has {size:,} characters, more than {PROMPT_LIMIT:,}.",
                hint="Remember less (memorize_to, at_most), or shorten the inputs.",
            )
        settings = self._settings
        if not all(is_plain(m.content) for m in request.messages):  # half characters cannot be sent
            whole = (m if is_plain(m.content) else replace(m, content=well_formed(m.content)) for m in request.messages)
            request = replace(request, messages=tuple(whole))
        request = _answered(request)
        filled = replace(
            request,
            timeout=settings.llm_timeout if request.timeout is None else request.timeout,
            temperature=settings.llm_temperature if request.temperature is None else request.temperature,
            max_tokens=settings.llm_max_tokens if request.max_tokens is None else request.max_tokens,
            fallbacks=request.fallbacks or self._fallbacks(),
        )
        _check_able(filled)
        for name in filled.fallbacks:
            parse_model(name, self.services)  # a wrong name is found before anything is asked
        return filled

    def _fallbacks(self) -> list[str]:
        """The settings' fallbacks; none while they are a suggestion of the folder that nobody approved."""
        if self._settings.waits("llm_fallbacks"):
            return []
        return [name.strip() for name in self._settings.llm_fallbacks.split(",") if name.strip()]

    def _ladder(self, request: LLMRequest) -> tuple[Rung, ...]:
        """The ways to structure that are tried, in order."""
        if request.response_format is None:
            return ()
        if request.rung is not None:
            return (request.rung,)
        ladder = capabilities_of(request.service, request.model).structured
        if not self._refused:
            return ladder

        def refused(rung: Rung) -> bool:
            return not self._refused.keys().isdisjoint((self._refusal(request, rung), self._refusal(request, rung, schema=True)))

        return tuple([rung for rung in ladder if not refused(rung)]) or ladder[-1:]

    def _remember(self, request: LLMRequest, rung: Rung, error: LLMError) -> None:
        """A server refused a way to structure: for that schema, if it says so, else for all."""
        if error.status is None:
            return  # refused before the call, which costs nothing
        said = error.message.lower()
        of_schema = "schema" in said and any(word in said for word in ("invalid", "not a valid", "not permitted", "must be", "is required"))
        self._refused[self._refusal(request, rung, schema=of_schema)] = None
        if len(self._refused) > REFUSALS_KEPT:
            del self._refused[next(iter(self._refused))]

    def _refusal(self, request: LLMRequest, rung: Rung, *, schema: bool = False) -> tuple[str, ...]:
        """What a refusal is remembered by: model, server, way to structure, and the schema when it is to blame."""
        text = json.dumps(schema_of(request.response_format), sort_keys=True, default=str) if schema else ""
        return request.service, str(self._clients.base_url(request)), request.model, rung, text


def _answered(request: LLMRequest) -> LLMRequest:
    """The request with a result for every call of a tool: providers refuse a conversation that leaves one open."""
    results = {m.tool_result.call_id for m in request.messages if m.tool_result is not None}
    if all(call.id in results for m in request.messages for call in m.tool_calls):
        return request
    messages: list[ChatMessage] = []
    for message in request.messages:
        messages.append(message)
        for call in message.tool_calls:
            if call.id not in results:
                said = "This call was not answered."
                messages.append(ChatMessage("tool", said, call.name, tool_result=ToolResult(call.id, said, is_error=True)))
    return replace(request, messages=tuple(messages))


def _check_able(request: LLMRequest) -> None:
    """Refuses before the call what the model cannot do."""
    check_options(request)
    able = capabilities_of(request.service, request.model)
    name = f"{request.service}:{request.model}" if request.model else request.service
    for tool in request.tools:
        kind = {"function": "tools", "web_search": "web search", "image_generation": "image generation"}.get(tool.type)
        flags = {
            "function": able.supports_tools,
            "web_search": able.supports_web_search,
            "image_generation": able.supports_image_generation,
        }
        if kind is not None and not flags[tool.type]:
            others = {
                "function": "openai, anthropic, gemini and ollama call functions",
                "web_search": "openai, anthropic and gemini search the web",
                "image_generation": "openai makes images",
            }
            raise UnsupportedError(
                f"{name} has no {kind}.",
                hint=f"Remove the tool, or use another model: {others[tool.type]}.",
                provider=request.service,
                model=request.model,
            )


def _refuses_structure(error: LLMError) -> bool:
    """Whether a server refused the way to structure, not the request as such."""
    if isinstance(error, (*ANSWERED, ContextLengthError)):
        return False
    if isinstance(error, UnsupportedError):
        return True
    said = error.message.lower()
    words = (
        "response_format",
        "text.format",
        "json_schema",
        "schema",
        "structured",
        "output_config",
        "output_format",
        "tool",
    )
    return isinstance(error, ProviderError) and error.status in (400, 404, 422, 501) and any(w in said for w in words)


def _ours(calls: Sequence[ToolCall], request: LLMRequest) -> bool:
    """Whether the called tools are run here; calls of a tool without a function are the caller's to answer."""
    theirs = {t.name for t in request.tools if t.type == "function" and t.function is None}
    return any(t.function is not None for t in request.tools) and not any(c.name in theirs for c in calls)


def _after_first(choice: str | None) -> str | None:
    """A tool that had to be called was called; after that the model is free, or it would call it for ever."""
    return choice if choice in (None, "auto", "none") else "auto"


async def _results(calls: Sequence[ToolCall], request: LLMRequest) -> AsyncGenerator[tuple[StreamEvent, ChatMessage]]:
    """The results of calls, run at the same time, as they come."""
    running = {asyncio.ensure_future(run_tool(call, request.tools)): call for call in calls}
    try:
        for done in asyncio.as_completed(running):
            result = await done
            call = next(c for c in calls if c.id == result.call_id)
            data = {"id": call.id, "name": call.name, "is_error": result.is_error}
            message = ChatMessage("tool", result.content, call.name, tool_result=result)
            yield StreamEvent("tool_result", result.content, data=data), message
    finally:
        for task in running:
            task.cancel()


@dataclass
class _Heard:
    """What came of one call."""

    meter: Meter = field(default_factory=Meter)
    """What the provider has reported so far; a usage without counts: that the model works."""
    characters: int = 0
    spoke: bool = False
    answered: bool = False

    @property
    def begun(self) -> bool:
        """Whether the model had begun to work. It may do so in vain, when the server then refuses."""
        return self.spoke or self.meter.usage is not None

    @property
    def gave(self) -> bool:
        """Whether there is something that is paid for: a piece of an answer, or a count of tokens."""
        return self.spoke or (self.meter.usage is not None and self.meter.usage.total is not None)

    def take(self, event: StreamEvent) -> None:
        self.answered = event.response is not None
        if event.kind in ("text", "reasoning", "tool_call_start", "tool_call_delta"):
            self.spoke = True
            self.characters += len(event.text)

    def estimate(self, request: LLMRequest) -> TokenUsage:
        """The tokens of the call: those that were reported, for others what the texts are likely to have."""
        known = self.meter.usage or TokenUsage()
        put_in = sum(len(m.content) for m in request.messages) // CHARACTERS_PER_TOKEN
        put_out = max(self.characters // CHARACTERS_PER_TOKEN - (known.reasoning or 0), known.output or 0)
        return replace(known, input=put_in if known.input is None else known.input, output=put_out, bill=())


@dataclass
class _Spent:
    """What the calls for one answer took together."""

    usage: TokenUsage = field(default_factory=TokenUsage)
    cost: float | None = 0.0
    saved: float | None = None
    live: int = 0
    calls: int = 0

    def add(self, response: LLMResponse) -> None:
        self.calls += 1
        self.live += not response.cached
        self.usage = response.usage if self.calls == 1 else self.usage + response.usage
        self.cost = None if self.cost is None or response.cost_usd is None else self.cost + response.cost_usd
        if response.saved_usd is not None:
            self.saved = (self.saved or 0.0) + response.saved_usd

    def merge(self, other: _Spent) -> None:
        """Add what further calls took."""
        if not other.calls:
            return
        self.usage = self.usage + other.usage if self.calls else other.usage
        self.calls, self.live = self.calls + other.calls, self.live + other.live
        self.cost = None if self.cost is None or other.cost is None else self.cost + other.cost
        if other.saved is not None:
            self.saved = (self.saved or 0.0) + other.saved

    def including(self, response: LLMResponse) -> LLMResponse:
        """A response as if it had taken these calls, too."""
        if not self.calls:
            return response
        known = self.cost is not None and response.cost_usd is not None
        return replace(
            response,
            usage=self.usage + response.usage,
            cost_usd=(self.cost or 0.0) + (response.cost_usd or 0.0) if known else None,
        )

    def add_failed(self, error: LLMError, request: LLMRequest) -> None:
        """An answer that does not fit; one that was counted already (by its response) is not counted twice."""
        if error.charged:
            usage = error.usage or TokenUsage()
            paid = LLMResponse("", request.service, request.model, usage, cost_usd=error.cost_usd)
            self.add(replace(paid, cached=error.cached, saved_usd=error.saved_usd))

    def within(self, error: LLMError) -> LLMError:
        """The error with what all calls took: nobody else will say it."""
        if self.calls:
            error.usage, error.cost_usd, error.charged = self.usage, self.cost, True
            error.cached, error.saved_usd = not self.live, self.saved
        return error

    def note(self, meter: Meter | None) -> None:
        """Leave with the caller what all calls took."""
        if meter is not None and self.calls:
            meter.usage, meter.cost_usd = self.usage, self.cost

    def total(self, response: LLMResponse) -> LLMResponse:
        return replace(
            response,
            usage=self.usage,
            cost_usd=self.cost,
            cached=self.calls > 0 and not self.live,
            saved_usd=self.saved,
        )


class _Partial:
    """A structured answer while it comes."""

    def __init__(self) -> None:
        self._text = ""
        self._next = 0.0
        self._seen: Any = None
        self._own: str | None = None

    def after(self, piece: str) -> StreamEvent | None:
        """What is to be seen after one more piece; None when that is nothing new."""
        self._text += piece
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = now + PARTIAL_S
        value = partial(self._text)
        if value is None or value == self._seen:
            return None
        self._seen = value
        return StreamEvent("partial", data={"value": value})

    def as_text(self, event: StreamEvent) -> StreamEvent | None:
        """An event of the answer's own tool as the text it stands for; those of other tools as they are."""
        call = (event.data or {}).get("id")
        if event.kind == "tool_call_start" and event.text == ANSWER_TOOL:
            self._own = call
        if call != self._own:
            return event
        return StreamEvent("text", event.text) if event.kind == "tool_call_delta" else None
