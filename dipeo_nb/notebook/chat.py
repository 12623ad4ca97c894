"""Talking to a model: one call, many, a conversation. Streams into the cell that asks; works in scripts as well."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.common.aio import gather_limited
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.loop import LoopThread, iterate_on_loop, iterate_sync, run_sync, submit, wait_for_future
from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.short_repr import short_repr
from dipeo_nb.common.text import displayed
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, StreamEvent, ToolConfig, parse_model
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.domain.ports import LLMServicePort
from dipeo_nb.errors import DipeoError, LLMError, UnsupportedError, ValidationError
from dipeo_nb.execution.options import checked_budget, checked_flag
from dipeo_nb.llm import providers
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.catalogue import BY_DEFAULT, is_successor, named
from dipeo_nb.llm.core.client import BATCH_CONCURRENCY, Messages, as_request
from dipeo_nb.llm.core.types import ProviderCapabilities
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.streaming import incomplete_stream_error
from dipeo_nb.llm.tools import tool_of, tools_of
from dipeo_nb.notebook import kernel, static_view
from dipeo_nb.notebook.answer import Answer, of_response
from dipeo_nb.notebook.answer_display import CellDisplay, TextDisplay
from dipeo_nb.notebook.answers import BatchHandle, BatchResults
from dipeo_nb.notebook.interrupts import short, stopping_on_ctrl_c
from dipeo_nb.notebook.streaming_answer import StreamingAnswer

if TYPE_CHECKING:
    from dipeo_nb.runtime import Runtime

_facade: Any = lazy.module("dipeo_nb.notebook.facade")  # which creates sessions, and they create models
STOP_GRACE_S = 5.0
"""Seconds that a stopped call gets to close its connection and to draw its last text."""
SHOWN = 20
"""Messages of a conversation in its text form, the last ones."""
TICK_S = 0.2
"""Seconds between two checks for Ctrl-C: not every platform delivers it during a wait without a timeout."""


class LLM:
    """A model, ready to use: `dp.llm("openai:gpt-6-luna", temperature=0.2)`.

    The options given here are the defaults of `chat`, `achat`, `stream`, `batch` and `conversation`:
    `system`, `tools` (Python functions, or `websearch`, `image`), `response_format` (a pydantic class or a JSON schema),
    `budget`, `fallbacks` (names of models), `temperature`, `max_tokens`, `top_p`, `stop`, `seed`, `reasoning` (`low` …), `extra`
    (further fields of the provider's request), `timeout` (seconds) and the other fields of `LLMRequest`.

    Raises:
        UnsupportedError: there is no such service; the message lists the choices.
        ValidationError: an option is unknown, or a tool cannot be one.
    """

    def __init__(self, runtime: Runtime, model: str | None = None, **defaults: Any) -> None:
        self._runtime = runtime
        self.service, self.model = named(model, runtime.settings)
        self._asked = model
        self._unnamed = model is None or parse_model(model, providers.services())[1] is None
        self._by_default = self._unnamed and is_successor(self.service, runtime.settings)
        self._defaults = _tidied(defaults)
        self.request("-")  # options are checked here and not at the first call

    @property
    def name(self) -> str:
        """`service:model`, or the service alone for its default model."""
        return f"{self.service}:{self.model}" if self.model else self.service

    @property
    def _given(self) -> str | None:
        return self._asked if self._by_default else self.name

    @property
    def capabilities(self) -> ProviderCapabilities:
        """The capabilities of the model."""
        return capabilities_of(self.service, self.model)

    def chat(self, prompt: Messages, *, display: bool | None = None, **options: Any) -> Answer:
        """Ask and wait for the answer; it streams into the cell. Stop or Ctrl-C ends the call.

        Args:
            prompt: a text, or messages as `{"role": …, "content": …}`.
            display: False shows nothing; True also streams to the terminal outside a notebook; None: in notebooks only.
            options: see `LLM`.

        Raises:
            LLMError, BudgetExceededError, APIKeyNotFoundError: why there is no answer; `error.answer` has what had arrived.
            KeyboardInterrupt: the call was stopped; its `answer`, too, has what had arrived.
        """
        if threading.current_thread() is LoopThread.get().thread:
            raise RuntimeError("chat() on dipeo_nb's own event loop would never return; use `await achat(…)`.")
        call = _Call(self._service, self.request(prompt, **options), self.name, display, waits=True)
        call.show()
        try:
            future = submit(call.run())
            while not concurrent.futures.wait((future,), TICK_S).done:
                continue
        except BaseException as stop:  # also while the call is submitted, when there is no future yet
            call.stop()
            call.over.wait(STOP_GRACE_S)
            stop.answer = call.answer  # type: ignore[attr-defined]
            short(stop, "The call was stopped; the error's `answer` has what had come.")
            raise
        return future.result()

    async def achat(self, prompt: Messages, *, display: bool | None = None, **options: Any) -> Answer:
        """Like `chat`, but awaited; several at once with `asyncio.gather`, each with its own output."""
        call = _Call(self._service, self.request(prompt, **options), self.name, display, waits=False)
        call.show()
        if threading.current_thread() is LoopThread.get().thread:
            return await call.run()
        future = submit(call.run())
        try:
            with stopping_on_ctrl_c(future.cancel):
                return await wait_for_future(future)
        except asyncio.CancelledError as stop:
            deadline = time.monotonic() + STOP_GRACE_S
            while not call.over.is_set() and time.monotonic() < deadline:  # noqa: ASYNC110 - set on another loop
                await asyncio.sleep(0.01)
            stop.answer = call.answer  # type: ignore[attr-defined]
            short(stop, "The call was stopped; the error's `answer` has what had come.")
            raise

    def stream(self, prompt: Messages, **options: Any) -> EventStream:
        """The events of an answer as they arrive, for `for` and for `async for`; nothing is displayed.

        Leaving the loop early ends the call. The last event, `end`, has the complete response.
        """
        request = self.request(prompt, **options)
        return EventStream(lambda: self._service.stream(request))

    def batch(self, prompts: Sequence[Messages], **options: Any) -> BatchResults:
        """The answers to many prompts, in their order; where one failed, its place has the error.

        `submit` is cheaper when the answers can wait.
        """
        try:
            return run_sync(self.abatch(prompts, **options))
        except KeyboardInterrupt as interrupt:
            short(interrupt, "The batch was stopped.")
            raise

    async def abatch(self, prompts: Sequence[Messages], **options: Any) -> BatchResults:
        """Like `batch`, but awaited."""
        requests = [self.request(prompt, **options) for prompt in _several(prompts)]
        future = submit(_all(self._service, requests))
        on_loop = threading.current_thread() is LoopThread.get().thread
        with contextlib.nullcontext() if on_loop else stopping_on_ctrl_c(future.cancel):
            answers = await wait_for_future(future)
        return BatchResults(answers, [request.messages[-1].content for request in requests])

    def submit(self, prompts: Sequence[Messages], **options: Any) -> BatchHandle:
        """Submit prompts to the provider's batch API: half the price, answers within a day, and the kernel may end meanwhile.

        `submitted` finds the job again.

        Raises:
            UnsupportedError: the service has no batch API.
        """
        requests = [self.request(prompt, **options) for prompt in _several(prompts)]
        service = _with_batches(self._service)
        return BatchHandle(service, run_sync(service.submit_batch(requests)), options.get("response_format"))

    def submitted(self) -> list[BatchHandle]:
        """The jobs that were submitted to this service from this base directory, newest first."""
        service = _with_batches(self._service)
        return [BatchHandle(service, job) for job in service.batches() if job.service == self.service]

    def conversation(self, system: str | None = None, **options: Any) -> Conversation:
        """A conversation with memory: `talk = model.conversation("Be brief.")`, `talk("Hi")`, `talk("And now?")`."""
        if system is not None:
            options["system"] = system
        return Conversation(LLM(self._runtime, self._asked, **{**self._defaults, **options}))

    def request(self, prompt: Messages, **options: Any) -> LLMRequest:
        """The request that `chat` would send."""
        merged = {**self._defaults, **_tidied(options)}
        # since it was created
        if self._unnamed and not self._by_default and is_successor(self.service, self._runtime.settings):
            self.service, self.model = named(self._asked, self._runtime.settings)
            self._by_default = True
        if self._by_default:
            merged["context"] = {**merged.get("context", {}), BY_DEFAULT: True}
        return as_request(prompt, **{"service": self.service, "model": self.model, **merged})

    @property
    def _service(self) -> LLMServicePort:
        return self._runtime.services.llm

    def __reduce__(self) -> tuple[Any, ...]:
        if self._runtime.replaced & {"llm", "keys"}:
            raise TypeError(
                "This model belongs to a session with its own services, which cannot be pickled; "
                "create it in the other process: Session(…).llm(…)."
            )
        return _ready, (self._given, self._defaults)

    def __deepcopy__(self, memo: dict[int, Any]) -> LLM:
        return LLM(self._runtime, self._asked, **self._defaults)  # the services are shared

    def __copy__(self) -> LLM:
        return self.__deepcopy__({})

    @displayed
    def __repr__(self) -> str:
        defaults = "".join(f", {name}={_short(value)}" for name, value in self._defaults.items())
        return f'dp.llm("{self.name}"{defaults})'

    @displayed
    def _repr_html_(self) -> str:
        able = self.capabilities
        has = {
            "tools": able.supports_tools,
            "web search": able.supports_web_search,
            "images": able.supports_image_generation,
            "temperature": able.supports_temperature,
            "batch API": able.supports_batch,
        }
        rows: list[tuple[str, Any]] = [
            ("can", ", ".join(name for name, yes in has.items() if yes) or "text only"),
            ("structured answers by", ", ".join(able.structured)),
        ]
        if able.max_context_length:
            rows.append(("context", f"{able.max_context_length:,} tokens"))
        rows += [(name, _short(value)) for name, value in self._defaults.items()]
        rows.append(("use", ".chat(prompt), await .achat(prompt), .stream(prompt), .batch(prompts), .conversation()"))
        return static_view.titled(f"<strong>{escape(clean(self.name))}</strong>", static_view.table(("", ""), rows))


class Conversation:
    """A conversation: each request includes the earlier prompts and answers. A turn that failed or was stopped is left out.

    `talk("…")` asks, and so does `await talk.asay("…")`; `messages` is the history, which may be changed; `clear()` empties it.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.messages: list[ChatMessage] = []
        self.answers: list[Answer] = []

    def __call__(self, prompt: Messages, *, display: bool | None = None, **options: Any) -> Answer:
        """Ask and wait for the answer; see `LLM.chat`."""
        said = self._turn(prompt)
        return self._kept(said, self.llm.chat([*self.messages, *said], display=display, **options))

    async def asay(self, prompt: Messages, *, display: bool | None = None, **options: Any) -> Answer:
        """Like calling the conversation, but awaited."""
        said = self._turn(prompt)
        return self._kept(said, await self.llm.achat([*self.messages, *said], display=display, **options))

    def clear(self) -> None:
        """Forget all messages."""
        self.messages.clear()
        self.answers.clear()

    @property
    def cost_usd(self) -> float | None:
        """Cost of all answers so far in US dollars; None when one of them is unknown."""
        costs = [answer.cost_usd for answer in self.answers]
        return None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs)

    def _turn(self, prompt: Messages) -> list[ChatMessage]:
        return list(as_request(prompt).messages)

    def _kept(self, said: list[ChatMessage], answer: Answer) -> Answer:
        self.messages += said
        self.messages.append(ChatMessage("assistant", answer.text, tool_calls=answer.tool_calls, raw=answer.raw))
        self.answers.append(answer)
        return answer

    @displayed
    def __repr__(self) -> str:
        hidden = len(self.messages) - SHOWN
        lines = [f"{message.role}: {_short(message.content)}" for message in self.messages[-SHOWN:]]
        return "\n".join(
            [f"{self.llm!r}.conversation(), {len(self.messages)} messages", *(["…"] if hidden > 0 else []), *lines]
        )

    @displayed
    def _repr_html_(self) -> str:
        rows = [(message.role, message.content) for message in self.messages]
        head = f"<strong>{escape(clean(self.llm.name))}</strong>, {len(rows)} messages"
        return static_view.titled(head, static_view.table(("from", "message"), rows) if rows else "")


class EventStream:
    """The events of one answer; iterate once, with `for` or `async for`."""

    def __init__(self, begin: Callable[[], AsyncIterator[StreamEvent]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[StreamEvent]:
        return iterate_sync(self._begin())

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return iterate_on_loop(self._begin())


def _ready(name: str, defaults: Mapping[str, Any]) -> LLM:
    """A model that comes from another process; it uses the settings and keys of this one."""
    return _facade.llm(name, **defaults)


@checked_call
def tool(function: Callable[..., Any] | None = None, *, name: str | None = None, description: str | None = None) -> Any:
    """Make a tool for models from a typed Python function: `tools=[dp.tool(f, name="weather")]`, or as a decorator.

    Plain functions work as tools, too; use this for another name or description, and to find mistakes early.

    Args:
        function: its typed parameters become the schema; sync or async.
        name: default: the name of the function.
        description: the description for the model; default: the docstring up to its `Args:` section.

    Raises:
        ValidationError: a parameter has no type, or one that JSON cannot represent.
    """

    def made(given: Callable[..., Any]) -> ToolConfig:
        return tool_of(given, name=name, description=description)

    return made if function is None else made(function)


class _Call:
    """One streamed call and its display. `show` in the cell, `run` on the loop thread."""

    def __init__(self, service: LLMServicePort, request: LLMRequest, name: str, display: bool | None, *, waits: bool) -> None:
        if display is not None:
            checked_flag(display, "display")
        self._service = service
        self._request = request
        self._seen = StreamingAnswer(name)
        self._display: CellDisplay | TextDisplay | None = None
        if kernel.in_kernel() and display is not False:
            self._display = CellDisplay(self._seen, waits=waits)
        elif display:
            self._display = TextDisplay(self._seen)
        self.answer: Answer | None = None
        """The complete answer, or what had arrived when it was cut off."""
        self.over = threading.Event()
        self._task: asyncio.Task[Any] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the call. Any thread."""
        LoopThread.get().loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    def show(self) -> None:
        if self._display is not None:
            self._display.show()

    async def run(self) -> Answer:
        self._task = asyncio.current_task()
        try:
            try:
                if self._stopped:
                    raise asyncio.CancelledError
                stream: Any = self._service.stream(self._request)
                async with contextlib.aclosing(stream) as events:
                    async for event in events:
                        self._seen.take(event)
                        if self._display is not None and event.kind not in ("usage", "end"):
                            self._display.changed()
                if self._seen.response is None:
                    raise incomplete_stream_error(self._request)
            except BaseException as error:
                stopped = isinstance(error, asyncio.CancelledError)
                cut = self._end("" if stopped else getattr(error, "message", None) or str(error))
                if isinstance(error, DipeoError):
                    error.answer = cut  # type: ignore[attr-defined]
                raise
            return self._end("")
        finally:
            self.over.set()

    def _end(self, stop_reason: str) -> Answer:
        cell = None if self._display is None else self._display.cell
        self.answer = self._seen.answer(stop_reason=stop_reason, cell=cell)
        if self._display is not None:
            self._display.finish(self.answer)
        return self.answer


def _with_batches(service: LLMServicePort) -> LLMService:
    if not isinstance(service, LLMService):
        raise UnsupportedError(
            f"{type(service).__name__} has no batch API.", hint="Use batch(): it sends a few requests at a time.", provider=""
        )
    return service


async def _all(service: LLMServicePort, requests: Sequence[LLMRequest]) -> list[Answer | LLMError]:
    """The answers of a service to many requests."""
    batch: Any = getattr(service, "batch", None)
    if batch is not None:
        found = await batch(requests)
    else:  # a service of the user, which has only what the port requires
        found = await _gathered(service, requests)
    return [item if isinstance(item, LLMError) else of_response(item) for item in found]


async def _gathered(service: LLMServicePort, requests: Sequence[LLMRequest]) -> list[Any]:
    async def answer(request: LLMRequest) -> Any:
        try:
            return await service.complete(request)
        except LLMError as error:
            return error

    return await gather_limited(answer, requests, BATCH_CONCURRENCY)


def _several(prompts: Any) -> Sequence[Messages]:
    """Prompts of a batch.

    Raises:
        ValidationError: it is a single text, of which each character would be a prompt, or not a list.
    """
    if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Iterable):
        raise ValidationError(
            f"A batch takes a list of prompts, not {type(prompts).__name__}.",
            hint="Use .batch(['…', '…']); .chat('…') asks once.",
        )
    return list(prompts)


def _tidied(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as users write them → as a request has them; None means not given."""
    given = {name: value for name, value in options.items() if value is not None}
    checked_budget(given.get("budget"))
    if "phase" in given and given["phase"] not in set(ExecutionPhase):
        raise ValidationError(f"There is no phase {given['phase']!r:.80}.", hint=f"There are: {', '.join(ExecutionPhase)}.")
    for name in ("system", "model"):
        if name in given and not isinstance(given[name], str):
            raise ValidationError(f"{name}= takes a text, not {type(given[name]).__name__}.", hint=f"Use e.g. {name}='…'.")
    if "tools" in given:
        given["tools"] = tools_of(given["tools"])
    if isinstance(given.get("fallbacks"), str):
        given["fallbacks"] = (given["fallbacks"],)
    return given


def _short(value: Any) -> str:
    if isinstance(value, tuple) and value and all(isinstance(v, ToolConfig) for v in value):  # pyright: ignore[reportUnknownVariableType]
        return f"[{', '.join(str(v.name or v.type) for v in value)}]"  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
    if isinstance(value, type):
        return value.__name__
    text = value if isinstance(value, str) else short_repr(value)
    text = text if len(text) <= 80 else text[:79] + "…"
    return repr(text) if isinstance(value, str) else text


# The former name, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "Talk": "dipeo_nb.notebook.chat:Conversation",
        },
    )
