"""The types of the LLM layer in one place; those that other rooms need come from `domain.chat`.

`as_json` and `from_json` carry any of them through JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationInfo, field_validator

from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import (
    ChatMessage,
    LLMRequest,
    LLMResponse,
    OutputMode,
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

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

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
    """Capabilities of a model. `capabilities.toml` has the facts, in fields of the same names."""

    provider: str
    model: str
    supports_streaming: bool = True
    """Whether its answers can be streamed; all providers can."""
    supports_tools: bool = True
    """Whether it calls functions."""
    supports_parallel_tools: bool = True
    """Whether one answer may call several functions; where functions are called at all, all providers can."""
    supports_web_search: bool = False
    """Whether it searches the web itself."""
    supports_image_generation: bool = False
    """Whether its answers may contain images."""
    supports_temperature: bool = True
    """Whether it takes a temperature; where it does not, one that is set is left out, with a notice."""
    limited_while_thinking: bool = False
    """Whether a request with a reasoning effort takes neither a temperature nor a tool that has to be called."""
    supports_system_prompt: bool = True
    """Whether it takes system messages; all providers do."""
    supports_batch: bool = False
    """Whether the provider has a batch API for it."""
    options: tuple[str, ...] = ("stop", "top_p", "seed")
    """Those of `stop`, `top_p` and `seed` that it takes."""
    reasoning: str | None = "effort"
    """How the reasoning effort is sent: `effort` as a word, `adaptive` (Claude: an effort, and the model decides how much it thinks),
    `budget` in tokens, `level` (Gemini), `think` (Ollama); None (in the file: empty): the model takes none."""
    efforts: tuple[str, ...] = ()
    """Reasoning efforts that it takes, lowest first; empty: all, or unknown."""
    always_thinks: bool = False
    """Whether its reasoning cannot be turned off."""
    structured: tuple[OutputMode, ...] = ("prompt",)
    """Ways to structured output, best first; empty: there is none."""
    max_context_length: int | None = None
    """Tokens of a request and its answer together; None: unknown."""
    max_output_tokens: int | None = None
    """Tokens of an answer; None: unknown."""
    streaming_modes: tuple[StreamingMode, ...] = (StreamingMode.SSE,)
    """Transports of streamed answers; the value is for compatibility with DiPeO."""


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
