"""The types of the LLM layer: they carry through JSON, and hold what the seed says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.domain.chat import parse_model
from dipeo_nb.domain.enums import SERVICE_ALIASES
from dipeo_nb.errors import LLMConnectionError, ProviderError, RateLimitError
from dipeo_nb.llm import providers
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.core import types
from dipeo_nb.llm.core.errors import ErrorContext, retry_after, status_error
from dipeo_nb.llm.core.retry import pause
from dipeo_nb.llm.core.types import (
    AdapterConfig,
    LLMResponse,
    ProviderCapabilities,
    RetryConfig,
    StreamEvent,
    TokenUsage,
    ToolCall,
    ToolConfig,
    as_json,
    from_json,
)

USAGE = TokenUsage(1, 2, 3, None, 5, raw={"input_tokens": 4})
VALUES = [
    AdapterConfig(provider_type="gpt", model="gpt-4o", temperature=0.2, max_tokens=5, extra_params={"a": [1]}),
    USAGE,
    LLMResponse("hi", "openai", "gpt-4o", USAGE, {"a": 1}, (ToolCall("c", "f", {"x": 1}),), "stop", "r", 0.1, "native"),
    ProviderCapabilities("openai", "gpt-4o", structured=("native", "prompt"), max_context_length=10),
    RetryConfig(3, 1.0, 60.0, 2.0),
    ToolConfig("function", "f", "d", {"type": "object"}, config={"a": 1}),
    StreamEvent("text", "x", data={"a": 1}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_values_carry_through_json(value: Any):
    """Written and read they are the same."""
    assert from_json(type(value), as_json(value)) == value


def test_the_seeds_names_are_there():
    """Every type of the layer can be imported from `llm.core.types`."""
    for name in ("AdapterConfig", "TokenUsage", "LLMResponse", "ToolConfig", "ToolCall", "ToolResult", "ExecutionPhase",
                 "ProviderCapabilities", "ProviderType", "RetryConfig", "StreamEvent", "StreamingMode", "ToolType"):  # fmt: skip
        assert hasattr(types, name)
    response = LLMResponse("hi", "p", "m", USAGE)
    assert response.content == "hi"
    assert response.token_usage is USAGE


def test_a_key_is_never_written_down():
    """Neither repr nor JSON of a configuration has it."""
    config = AdapterConfig(provider_type="openai", api_key=SecretStr("sk-canary-123"))
    assert "canary" not in repr(config) + str(config) + as_json(config)
    with pytest.raises(PydanticValidationError):
        AdapterConfig(provider_type="openai", api_kee="x")  # type: ignore[call-arg]


BUCKETS = st.one_of(st.none(), st.integers(0, 10**6))
USAGES = st.builds(TokenUsage, BUCKETS, BUCKETS, BUCKETS, BUCKETS, BUCKETS)


@given(USAGES, USAGES)
def test_usages_add_up(a: TokenUsage, b: TokenUsage):
    """Sums are by bucket; unknown and known is known; the total is that of the known buckets."""
    assert (a + b).total == ((a.total or 0) + (b.total or 0) if a.total is not None or b.total is not None else None)
    assert (a + b).to_dict() == (b + a).to_dict()


# Names of services and models.


@pytest.mark.parametrize("alias", SERVICE_ALIASES)
def test_every_alias_has_a_client(alias: str):
    """All spellings of the spec lead to a class."""
    assert providers.client_class(alias.upper().replace("-", "_")).provider == SERVICE_ALIASES[alias]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("local", ("local", None)),
        ("openai:gpt-5", ("openai", "gpt-5")),
        ("gpt-5-nano", ("openai", "gpt-5-nano")),
        ("claude-sonnet-5", ("anthropic", "claude-sonnet-5")),
        ("claude:claude-sonnet-5", ("anthropic", "claude-sonnet-5")),
        ("gemini-2.5-flash", ("gemini", "gemini-2.5-flash")),
        ("google:gemini-2.5-flash", ("gemini", "gemini-2.5-flash")),
        ("ollama:llama3.2", ("ollama", "llama3.2")),
        ("llama3:8b", ("ollama", "llama3:8b")),
        ("mistral:7b", ("ollama", "mistral:7b")),
        ("ft:gpt-4o:me", ("openai", "ft:gpt-4o:me")),
        ("acme:big-1", ("acme", "big-1")),
    ],
)
def test_a_name_is_a_service_and_a_model(text: str, expected: tuple[str, str | None]):
    """The service before the colon, else the one that a model's name is known for; services of third parties count."""
    assert parse_model(text, ["acme"]) == expected


def test_profiles_go_from_service_to_family():
    """The longest beginning of a model's name says what it can do; unknown services are asked in words."""
    assert not capabilities_of("openai", "gpt-5-nano-2025-08-07").supports_temperature
    assert capabilities_of("openai", "gpt-5-chat-latest").supports_temperature
    assert capabilities_of("anthropic", "claude-3-haiku-20240307").structured == ("tool", "prompt")
    assert capabilities_of("anthropic", "claude-opus-4-8").max_output_tokens == 128_000
    assert capabilities_of("acme", "big-1").structured == ("prompt",)
    for service in providers.BUILT_IN:
        assert capabilities_of(service, "").structured


# Retries.

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2.5"}, 2.5),
        ({"Retry-After": "Mon, 23 Nov 2026 12:00:07 GMT"}, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30.5s"}, 90.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1m"}, None),
        ({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2026-11-23T12:00:30Z"}, 30),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, 0),
        ({}, None),
    ],
)
def test_what_a_provider_asks_to_wait(headers: dict[str, str], seconds: float | None):
    """Retry-After in both forms, milliseconds, and the reset headers of limits that are used up."""
    assert retry_after(headers, NOW) == pytest.approx(seconds) if seconds is not None else retry_after(headers, NOW) is None


def test_pauses_grow_within_limits():
    """Exponential with jitter, capped; what the provider asks for goes first; beyond the cap it is no use."""
    config = RetryConfig(10, 1.0, 8.0, 2.0, 0.2)
    gone = LLMConnectionError("gone")
    for attempt, middle in ((1, 1), (2, 2), (3, 4), (4, 8), (9, 8)):
        waits = [pause(gone, attempt, config) or 0 for _ in range(50)]
        assert all(0.8 * middle <= w <= 1.2 * middle for w in waits)
        assert len(set(waits)) > 1
    assert pause(gone, 10, config) is None
    assert 3 <= (pause(RateLimitError("x", retry_after=3.0), 1, config) or 0) <= 3.6
    assert pause(RateLimitError("x", retry_after=9.0), 1, config) is None
    assert pause(ProviderError("x", status=400), 1, config) is None
    assert 2 <= (pause(ProviderError("x", status=503, retry_after=2.0), 1, config) or 0) <= 2.4


def test_quota_that_is_used_up_is_not_waited_for():
    """OpenAI's 429 for an unpaid bill is no rate limit."""
    error = status_error(ErrorContext("openai", "gpt-4o"), 429, "You exceeded your quota", code="insufficient_quota")
    assert type(error) is ProviderError
    assert json.dumps(error.facts, default=str)
