"""What protects a server from us, and us from a server: a circuit breaker and a limit of concurrent calls that adapts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from dipeo_nb.errors import LLMConnectionError, LLMError, RateLimitError
from dipeo_nb.llm.core.retry import transient

FAILURES = 8
"""Failures in a row after which a server is left alone."""
REST_S = 30.0
"""Seconds it is left alone; then one call tries it."""
AT_FIRST = 10
"""Calls at the same time, to begin with."""
AT_MOST = 256


class CircuitBreaker:
    """Stops calling a server that fails every time: after `FAILURES` in a row all calls are refused for `REST_S` seconds, then one
    goes through as a trial.

    A failure is a connection that fails, an answer that is late, or a status of 500 and more. Rate limits are not: the server works.
    """

    def __init__(self, provider: str, clock: Callable[[], float]) -> None:
        self._provider = provider
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._last = ""

    def before_call(self, model: str) -> None:
        """Raises LLMConnectionError while the server is left alone."""
        open_until = self._open_until  # read once: a call in another thread may close the circuit meanwhile
        if open_until is None:
            return
        left = open_until - self._clock()
        if left > 0:
            raise LLMConnectionError(
                f"{self._provider} failed {self._failures} times in a row and is left alone for {left:.0f} s more. "
                f"The last time: {self._last}",
                hint="Wait, or use another model (--model local).",
                provider=self._provider,
                model=model,
                circuit_open=True,
            )
        self._open_until = self._clock() + REST_S  # one trial; the others go on waiting

    def succeeded(self) -> None:
        self._failures, self._open_until = 0, None

    def failed(self, error: LLMError) -> None:
        if not transient(error) or isinstance(error, RateLimitError):
            self.succeeded()  # it answered
            return
        self._failures += 1
        self._last = error.message
        if self._failures >= FAILURES:
            self._open_until = self._clock() + REST_S


@dataclass(slots=True, eq=False)
class _Turn:
    """A call that waits for a slot, in an event loop that may be another one than that of the call which ends."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]
    given: bool = False

    def wake(self) -> bool:
        """Wake the waiting call; whether its loop is still there."""
        try:
            self.loop.call_soon_threadsafe(self._set_result)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _set_result(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class AdaptiveLimit:
    """Calls to one server at the same time: grows with each success until the first 429, is halved by it, then grows slowly.

    After the first 429 a limit of n grows by one with every n successes (additive increase, multiplicative decrease). Calls of
    several event loops may share one limit.
    """

    def __init__(self, at_first: int = AT_FIRST) -> None:
        self.limit = float(at_first)
        self._cut_once = False
        self._working = 0
        self._generation = 0
        self._waiting: deque[_Turn] = deque()
        self._lock = threading.RLock()
        """Reentrant: a call that is collected as garbage gives its slot back in whatever thread collects it."""

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[Callable[[LLMError | None], None]]:
        """One call; the function it gives takes how the call ended: None, or the error."""
        turn = self._turn()
        if turn is not None:
            try:
                await turn.future
            except BaseException:
                self._give_up(turn)
                raise
        generation = self._generation
        try:
            yield lambda error: self._ended(error, generation)
        finally:
            self._release()

    def _turn(self) -> _Turn | None:
        """A place in the queue; None: a slot was free and is taken."""
        with self._lock:
            if self._working < int(self.limit) and not self._waiting:
                self._working += 1
                return None
            loop = asyncio.get_running_loop()
            turn = _Turn(loop, loop.create_future())
            self._waiting.append(turn)
            return turn

    def _give_up(self, turn: _Turn) -> None:
        with self._lock:
            if turn.given:
                self._release()
            elif turn in self._waiting:
                self._waiting.remove(turn)

    def _release(self) -> None:
        with self._lock:
            self._working -= 1
            self._wake()

    def _ended(self, error: LLMError | None, generation: int) -> None:
        with self._lock:
            if isinstance(error, RateLimitError):
                if generation == self._generation:  # one cut for all calls that were refused together
                    self._generation += 1
                    self._cut_once = True
                    self.limit = max(1.0, min(self.limit, self._working) / 2)
            elif error is None:
                self.limit: float = min(AT_MOST, self.limit + (1 / self.limit if self._cut_once else 1))

    def _wake(self) -> None:
        while self._waiting and self._working < int(self.limit):
            turn = self._waiting.popleft()
            if turn.wake():
                turn.given = True
                self._working += 1
