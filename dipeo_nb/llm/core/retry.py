"""The one policy of repeating failed calls; the SDKs' own retries are off, as two layers would multiply."""

from __future__ import annotations

import random

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
    """Seconds to wait after try number *attempt* (from 1) failed; None when another try is no use.

    What the provider asks for (read anew from each answer) goes before the exponential pause.
    """
    if attempt >= config.max_attempts or not transient(error):
        return None
    asked = getattr(error, "retry_after", None)
    if asked is not None:
        if asked > config.max_delay:
            return None
        least = config.initial_delay / 4  # a server that says 0 is busy all the same
        return max(asked, least) * (1 + random.uniform(0, config.jitter))
    wait = config.initial_delay * config.exponential_base ** (attempt - 1)
    return min(wait, config.max_delay) * random.uniform(1 - config.jitter, 1 + config.jitter)
