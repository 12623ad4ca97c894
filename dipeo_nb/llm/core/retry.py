"""The one policy of repeating failed calls; the SDKs' own retries are off, as two layers would multiply."""

from __future__ import annotations

from dataclasses import replace

from dipeo_nb.common.retry import Backoff
from dipeo_nb.errors import LLMConnectionError, LLMError, LLMTimeoutError, ProviderError, RateLimitError
from dipeo_nb.llm.core.types import RetryConfig

TRANSIENT = frozenset({408, 409, 425})
"""Statuses below 500 that another try may succeed after; 429 is a RateLimitError."""


def transient(error: BaseException) -> bool:
    """Whether the same call may succeed later: 408, 409, 429, 5xx, no connection, no answer in time; never 400, 401, 403. What the
    server says itself (`x-should-retry`) goes before."""
    if isinstance(error, LLMError) and error.retryable is not None:
        return error.retryable
    if isinstance(error, (RateLimitError, LLMConnectionError, LLMTimeoutError)):
        return True
    return isinstance(error, ProviderError) and ((error.status or 0) in TRANSIENT or (error.status or 0) >= 500)


def pause(error: LLMError, attempt: int, config: RetryConfig) -> float | None:
    """Seconds to wait after try number *attempt* (from 1) failed; None when another try cannot help.

    What the provider asks for (read from each answer) goes before the exponential pause.
    """
    if attempt >= config.max_attempts or not transient(error):
        return None
    backoff = Backoff(config.initial_delay, config.max_delay, config.exponential_base, config.jitter)
    asked = getattr(error, "retry_after", None)
    if asked is None:
        return backoff.delay(attempt)
    if asked > config.max_delay:
        return None
    least = config.initial_delay / 4  # a server that says 0 is busy all the same
    return replace(backoff, maximum=config.max_delay * (1 + config.jitter)).delay(attempt, max(asked, least))
