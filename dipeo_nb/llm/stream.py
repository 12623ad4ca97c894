"""Streams of answers: their end, and their time limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.errors import LLMConnectionError, LLMTimeoutError

SPOKEN = frozenset({"text", "reasoning", "tool_call_start"})
"""Kinds of events after which a repeated call would show things twice."""


async def collected(events: AsyncIterator[StreamEvent], request: LLMRequest) -> LLMResponse:
    """The whole answer of a stream.

    Raises:
        LLMConnectionError: the stream ended without one.
    """
    response: LLMResponse | None = None
    async for event in events:
        response = event.response or response
    if response is None:
        raise broken_off(request)
    return response


def broken_off(request: LLMRequest) -> LLMConnectionError:
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

    async def applied(self, events: AsyncIterator[StreamEvent], request: LLMRequest) -> AsyncGenerator[StreamEvent]:
        """*events* within the limits; the stream is closed at the end, whatever the end is.

        Raises:
            LLMTimeoutError: a limit was passed.
        """
        first = True
        try:
            while True:
                left = self.left
                limit = left if first else min(left, self.idle)
                scope = asyncio.timeout(max(limit, 0.0))
                try:
                    async with scope:
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    if not scope.expired():  # not ours: a client let one of its own through
                        raise
                    raise self._error(request, idle=limit < left) from error
                if event.kind == "progress":
                    self._deadline = self._time() + self.total
                elif event.kind != "start":
                    first = False
                yield event
        finally:
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
