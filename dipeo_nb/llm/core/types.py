"""The types of the LLM layer in one place; those that other rooms need come from `domain.chat`.

`as_json` and `from_json` carry any of them through JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationInfo, field_validator

from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import (
    ChatMessage,
    LLMRequest,
    LLMResponse,
    Rung,
    StreamEvent,
    TokenUsage,
    ToolCall,
    ToolConfig,
    ToolResult,
    normalize_service,
)
from dipeo_nb.domain.enums import ExecutionPhase, LLMService, ToolType
from dipeo_nb.domain.request_options import checked_option

T = TypeVar("T")

ProviderType = LLMService
"""The seed's name for the services."""


class StreamingMode(StrEnum):
    """How an answer travels from the provider."""

    NONE = "none"
    SSE = "sse"
    WEBSOCKET = "websocket"


class AdapterConfig(BaseModel):
    """What a unified client is made with. Defaults of its requests; a request may say otherwise.

    The key is a secret: it is not in reprs and JSON holds it masked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider_type: str
    """A service name or an alias of one."""
    model: str = ""
    api_key: SecretStr | None = None
    base_url: str | None = None
    ambient_headers: bool = True
    """Whether headers that variables of the provider's SDK name (`OPENAI_CUSTOM_HEADERS`) may go to the server."""
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    """Seconds for one call; None: DIPEO_LLM_TIMEOUT."""
    max_retries: int = Field(default=3, ge=0)
    retry_delay: float = Field(default=0.5, ge=0)
    """Seconds before the first retry."""
    retry_backoff: float = Field(default=2.0, ge=1)
    """Each further pause is this much longer."""
    execution_phase: ExecutionPhase = ExecutionPhase.DEFAULT
    streaming_mode: StreamingMode = StreamingMode.SSE
    extra_params: Mapping[str, Any] = Field(default_factory=dict)
    """Further fields of the provider's request, sent as they are; `extra` of a request goes before."""

    @field_validator("temperature", "max_tokens", "timeout", mode="before")
    @classmethod
    def _checked(cls, value: Any, info: ValidationInfo) -> Any:
        return checked_option(str(info.field_name), value)

    @field_validator("extra_params", mode="before")
    @classmethod
    def _checked_extra(cls, value: Any) -> Any:
        return checked_option("extra", value)

    @field_validator("provider_type")
    @classmethod
    def _normalized(cls, value: str) -> str:
        return normalize_service(value)


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """How often and when a failed call is repeated."""

    max_attempts: int = 4
    """Tries, the first included."""
    initial_delay: float = 0.5
    """Seconds before the second try."""
    max_delay: float = 60.0
    """Seconds; a provider that asks for a longer pause is reported instead of waited for."""
    exponential_base: float = 2.0
    jitter: float = 0.2
    """Pauses vary by this share, so that callers do not come back all at once."""


@dataclass(frozen=True, slots=True)
class ProviderCapabilities:
    """What a model can do; see `llm.capabilities` for where it is written down."""

    provider: str
    model: str
    supports_streaming: bool = True
    supports_tools: bool = True
    supports_parallel_tools: bool = True
    supports_web_search: bool = False
    supports_image_generation: bool = False
    supports_temperature: bool = True
    limited_while_thinking: bool = False
    """Whether a request that says how much to think takes neither a temperature nor a tool that has to be called."""
    supports_system_prompt: bool = True
    supports_batch: bool = False
    options: tuple[str, ...] = ("stop", "top_p", "seed")
    """Which of these options it takes."""
    reasoning: str | None = "effort"
    """How it is told how much to think: `effort` in words, `adaptive` (Claude: an effort, and it thinks as it sees fit), `budget` in
    tokens, `level` (Gemini), `think` (Ollama); None: it cannot be told."""
    efforts: tuple[str, ...] = ()
    """The efforts that it has, least first; empty: all, or not known."""
    always_thinks: bool = False
    """Whether it cannot be kept from thinking."""
    structured: tuple[Rung, ...] = ("prompt",)
    """Ways to structured output, best first."""
    max_context_length: int | None = None
    """Tokens; None when unknown."""
    max_output_tokens: int | None = None
    """Tokens; None when unknown."""
    streaming_modes: tuple[StreamingMode, ...] = (StreamingMode.SSE,)


BatchState = Literal["submitted", "running", "completed", "failed", "cancelled", "expired"]
"""States of a batch job, whatever the provider calls them."""


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a provider is with a batch."""

    id: str
    """The provider's name for it."""
    state: BatchState
    completed: int = 0
    failed: int = 0


def as_json(value: Any) -> str:
    """JSON of any of these types."""
    return TypeAdapter(type(value)).dump_json(value).decode()


def from_json(kind: type[T], text: str | bytes) -> T:
    """A value of *kind* out of its JSON.

    Raises:
        pydantic.ValidationError: it is not one.
    """
    return TypeAdapter(kind).validate_json(text)


__all__ = [
    "AdapterConfig",
    "BatchState",
    "BatchStatus",
    "Budget",
    "ChatMessage",
    "ExecutionPhase",
    "LLMRequest",
    "LLMResponse",
    "ProviderCapabilities",
    "ProviderType",
    "RetryConfig",
    "StreamEvent",
    "StreamingMode",
    "TokenUsage",
    "ToolCall",
    "ToolConfig",
    "ToolResult",
    "ToolType",
    "as_json",
    "from_json",
]
