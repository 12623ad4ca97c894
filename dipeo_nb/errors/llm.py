"""Errors of calls of language models."""

from __future__ import annotations

from typing import Any

from dipeo_nb.errors.run import CodeError
from dipeo_nb.errors.service import ServiceError
from dipeo_nb.errors.user import UserError


class LLMError(ServiceError):
    """A call of a language model failed. Attributes: provider, model, status, request_id (None when unknown)."""

    code = "llm_error"
    provider: str | None = None
    model: str | None = None
    status: int | None = None
    request_id: str | None = None
    retryable: bool | None = None
    """Whether the server indicated that a retry may succeed; None when it did not."""
    usage: Any = None
    """`TokenUsage` of an answer that was charged nevertheless (a refusal, or one that does not fit); None without one."""
    cost_usd: float | None = None
    """Its cost in US dollars; None when unknown."""
    charged: bool = False
    """Whether `cost_usd` was computed."""
    cached: bool = False
    """Whether the answer came from a recording, and cost nothing."""
    saved_usd: float | None = None
    """The cost that a recorded answer saved."""


class AuthError(LLMError):
    """The provider refused the key (401, 403)."""

    code = "llm_auth"


class RateLimitError(LLMError):
    """Too many requests (429); `retry_after` in seconds when the provider said so."""

    code = "llm_rate_limit"
    retry_after: float | None = None


class ContextLengthError(LLMError):
    """The prompt does not fit into the model's context."""

    code = "llm_context_length"


class ContentFilteredError(LLMError):
    """The provider refused to answer for reasons of content."""

    code = "llm_content_filtered"


class LLMTimeoutError(LLMError):
    """No answer, or no further token, within the time limit."""

    code = "llm_timeout"


class LLMConnectionError(LLMError):
    """The provider cannot be reached, or the connection broke."""

    code = "llm_connection"


class UnsupportedError(LLMError):
    """The model cannot do that; refused before the call, the hint says what would work."""

    code = "llm_unsupported"


class UnknownModelError(UserError, UnsupportedError):
    """A name that is neither a service nor a model of a known family; nothing was called or run."""

    code = "llm_unknown_model"


class ProviderError(LLMError):
    """Any other answer of the provider that is not a success; `retry_after` in seconds when it said so."""

    code = "llm_provider"
    retry_after: float | None = None


class EmptyAnswerError(ProviderError):
    """The model reached its limit of tokens before it gave an answer: it thought too long, or its context is full."""

    code = "llm_empty_answer"


class StructureError(ProviderError):
    """The answer does not fit the requested structure."""

    code = "llm_structure"
    problem: str = ""
    """The part that does not fit, and where it is."""
    text: str = ""
    """The answer."""
    repairable: bool = False
    """Whether asking once more, with the problem named, may help; not when the answer was cut off."""


class RecordingError(LLMError):
    """A recorded answer cannot be read or written; `path` is its file or folder."""

    code = "llm_recording"
    path: Any = None


class RecordingNotFoundError(RecordingError):
    """Nothing may be called (`replay`), and this call is not recorded; `nearest` is the file of the most similar one."""

    code = "llm_recording_not_found"
    nearest: Any = None


class ValidatorCodeError(CodeError, LLMError):
    """A validator of the class that was asked for raised neither ValueError nor AssertionError, by which it would say that the answer
    does not fit: a failure of the user's code, not of the provider. The answer was paid for; nothing is asked again."""

    code = "validator_code_error"


class ToolLoopError(LLMError):
    """The model kept calling tools beyond the limit of rounds."""

    code = "llm_tool_loop"


class ModelUnavailableError(LLMError):
    """An embedded or local model cannot be fetched or loaded."""

    code = "llm_model_unavailable"
