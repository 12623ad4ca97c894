"""Streams of answers: their end, and their time limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from dipeo_nb.common.moved import renamed
from dipeo_nb.common.values import well_formed
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.errors import LLMConnectionError, LLMTimeoutError

SPOKEN = frozenset({"text", "reasoning", "tool_call_start"})
"""Kinds of events after which a repeated call would show things twice."""


async def collect(events: AsyncIterator[StreamEvent], request: LLMRequest, notices: list[str] | None = None) -> LLMResponse:
    """The whole answer of a stream.

    Args:
        notices: gets the notices of the stream.

    Raises:
        LLMConnectionError: the stream ended without one.
    """
    response: LLMResponse | None = None
    async for event in events:
        if notices is not None and event.kind == "start" and (notice := (event.data or {}).get("notice")):
            notices.append(str(notice))
        response = event.response or response
    if response is None:
        raise incomplete_stream_error(request)
    return response


def with_notices(response: LLMResponse, notices: Sequence[str]) -> LLMResponse:
    """The response with notices of its stream among its warnings."""
    return replace(response, warnings=(*response.warnings, *notices)) if notices else response


def words(value: Any) -> str:
    """A text as a server sends it: empty where there is none, and such as UTF-8 can hold.

    Raises:
        TypeError: it is another value.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"a text is expected, not {type(value).__name__}")
    return well_formed(value)


def named(value: Any) -> str:
    """As `words`, of what has to be there: the name of a tool, the id of a call.

    Raises:
        TypeError: it is another value, or empty.
    """
    if not (text := words(value)):
        raise TypeError("a name is missing")
    return text


def batch_lines(data: bytes, requests: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(custom id, entry) of the lines of a batch's results that belong to *requests*. Only a line feed ends a line. Whose answer a
    line is that cannot be read is not known: that answer is missing, the others are there."""
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        try:
            entry = json.loads(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            continue
        name = cast("Mapping[str, Any]", entry).get("custom_id") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and name in requests:
            yield name, cast("Mapping[str, Any]", entry)


class TextPieces:
    """A text that comes in pieces, which may end within a surrogate pair."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._half = ""

    def add(self, piece: Any) -> str:
        """What is complete with one more piece; see `words`."""
        if isinstance(piece, str):
            piece = self._half + piece
            self._half = piece[-1] if "\ud800" <= piece[-1:] <= "\udbff" else ""
            piece = piece[:-1] if self._half else piece
        said = words(piece)
        self._pieces.append(said)
        return said

    @property
    def text(self) -> str:
        """All that is complete."""
        return "".join(self._pieces)


def incomplete_stream_error(request: LLMRequest) -> LLMConnectionError:
    """The error of a stream that ended before its answer did."""
    return LLMConnectionError(
        f"The answer of {request.service} ended before it was complete.",
        hint="Try again.",
        provider=request.service,
        model=request.model,
    )


class TimeLimits:
    """How long a call may take, all its tries together: *total* seconds, and *idle* seconds between two pieces.

    The first piece may take as long as the whole call: models think before they speak. Work before the call (`progress`: a
    model being fetched or loaded, a turn being waited for) is not counted.
    """

    def __init__(self, total: float, idle: float) -> None:
        self.total = total
        self.idle = idle
        self._time = asyncio.get_running_loop().time
        self._deadline = self._time() + total

    @property
    def left(self) -> float:
        """Seconds until the whole call is too slow; negative when it is."""
        return self._deadline - self._time()

    async def guard(self, events: AsyncIterator[StreamEvent], request: LLMRequest) -> AsyncGenerator[StreamEvent]:
        """*events* within the limits; the stream is closed at the end, whatever the end is.

        Raises:
            LLMTimeoutError: a limit was passed.
        """
        first = True
        timer = _Timer()
        try:
            while True:
                left = self.left
                limit = left if first else min(left, self.idle)
                timer.start(limit)
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
                except (asyncio.CancelledError, TimeoutError):
                    if not timer.stop():  # not ours: another task cancelled, or a client raised one of its own
                        raise
                    raise self._error(request, idle=limit < left) from TimeoutError()
                finally:
                    timer.stop()
                if event.kind == "progress":
                    self._deadline = self._time() + self.total
                elif event.kind != "start":
                    first = False
                yield event
        finally:
            timer.close()
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    def _error(self, request: LLMRequest, *, idle: bool) -> LLMTimeoutError:
        what = f"silence for {self.idle:g} s" if idle else f"no complete answer within {self.total:g} s"
        return LLMTimeoutError(
            f"{request.service} ({request.model or 'default model'}): {what}.",
            hint="Raise DIPEO_LLM_IDLE_TIMEOUT, or try again." if idle else "Raise DIPEO_LLM_TIMEOUT.",
            usage=TokenUsage(),  # the model may have worked on it all the time
            provider=request.service,
            model=request.model,
        )


class _Timer:
    """As `asyncio.timeout`, for many waits one after another: the timer of the event loop is set once and moves along, as setting
    and cancelling one for each piece of an answer costs more than passing the piece on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._task: asyncio.Task[Any] | None = None
        """That waits; None between the waits."""
        self._cancelling = 0
        self._expired = False

    def start(self, seconds: float) -> None:
        """Begin a wait of the current task, which is cancelled when it takes longer."""
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._until = self._loop.time() + max(seconds, 0.0)
        if self._handle is None or self._handle.when() > self._until:
            self.close()
            self._handle = self._loop.call_at(self._until, self._due)

    def stop(self) -> bool:
        """End the wait. Whether it took too long, and that alone cancelled it; a second call says False."""
        task, self._task = self._task, None
        if task is None or not self._expired:
            return False
        self._expired = False
        return task.uncancel() <= self._cancelling

    def close(self) -> None:
        """Give the timer of the event loop back."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _due(self) -> None:
        self._handle = None  # without a wait, the next one sets it again
        if self._task is None:
            return
        if self._loop.time() < self._until:
            self._handle = self._loop.call_at(self._until, self._due)
        else:
            self._expired = True
            self._task.cancel()


__getattr__: Callable[[str], Any] = renamed(__name__, {"broken_off": "incomplete_stream_error", "collected": "collect"})
