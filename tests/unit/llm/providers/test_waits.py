"""How long is waited between tries, to the millisecond: each form in which servers ask for it, through the whole service."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from dipeo_nb.common import clock
from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.errors import LLMError
from dipeo_nb.llm.core.types import RetryConfig
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.keys import EnvironmentAPIKeyService
from tests.support import wire_google as google
from tests.support.loopback_providers import WIRES, Wire, settings_for
from tests.support.wire_openai import Reply, ScriptedServer, run

OPENAI, ANTHROPIC, GEMINI, _ = WIRES
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
STAMP = int(NOW.timestamp())
BACKOFF = [0.5, 1.0, 2.0]
"""Seconds when the server says nothing."""
LEAST = [0.125] * 3
"""When it says that it can be asked at once."""


def waited(
    wire: Wire, reply: Reply, monkeypatch: pytest.MonkeyPatch, *, jitter: float = 0.0, timeout: float = 600
) -> list[float]:
    """The pauses of a call whose server always replies so."""
    monkeypatch.setattr(clock, "now", lambda: NOW)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with ScriptedServer(*wire.script(reply)) as server:
        settings = settings_for(server)

        async def go() -> None:
            service = LLMService(settings, EnvironmentAPIKeyService(settings), retries=RetryConfig(jitter=jitter), sleep=sleep)
            try:
                with pytest.raises(LLMError):
                    await service.complete(LLMRequest(wire.service, wire.model, (ChatMessage("user", "Hi"),), timeout=timeout))
            finally:
                await service.cleanup()

        run(go())
        assert len(wire.asked(server)) == len(waits) + 1
    return waits


def _used_up(name: str, value: str) -> dict[str, str]:
    return {f"x_ratelimit_reset{name}": value, f"x_ratelimit_remaining{name}": "0"}


TABLE: Sequence[tuple[int, dict[str, str], Sequence[float]]] = (
    # Seconds.
    (429, {"retry_after": "7"}, [7] * 3),
    (503, {"retry_after": "7"}, [7] * 3),
    (529, {"retry_after": " 7 "}, [7] * 3),
    (429, {"retry_after": "2.5"}, [2.5] * 3),
    (429, {"retry_after": "0.2"}, [0.2] * 3),
    (429, {"retry_after": "0"}, LEAST),
    (429, {"retry_after": "-5"}, LEAST),
    (429, {"retry_after": "60"}, [60] * 3),
    (429, {"retry_after": "60.1"}, []),
    (429, {"retry_after": "86400"}, []),
    (429, {"retry_after": "1e300"}, []),
    # What is no number.
    (429, {"retry_after": "nan"}, BACKOFF),
    (429, {"retry_after": "inf"}, BACKOFF),
    (429, {"retry_after": "-inf"}, BACKOFF),
    (429, {"retry_after": "1e400"}, BACKOFF),
    (429, {"retry_after": ""}, BACKOFF),
    (429, {"retry_after": "soon"}, BACKOFF),
    (429, {"retry_after": "lundi 23 novembre 2026"}, BACKOFF),
    (429, {"retry_after": "Mon, 99 Nov 2026 12:00:07 GMT"}, BACKOFF),
    (429, {}, BACKOFF),
    (500, {}, BACKOFF),
    # Durations, and times since 1970.
    (429, {"retry_after": "1m30s"}, []),
    (429, {"retry_after": "30s"}, [30] * 3),
    (429, {"retry_after": str(STAMP + 7)}, [7] * 3),
    (429, {"retry_after": str((STAMP + 7) * 1000)}, [7] * 3),
    (429, {"retry_after": str(STAMP - 7)}, LEAST),
    # Dates.
    (429, {"retry_after": "Mon, 23 Nov 2026 12:00:07 GMT"}, [7] * 3),
    (429, {"retry_after": "Mon, 23 Nov 2026 13:00:07 +0100"}, [7] * 3),
    (429, {"retry_after": "Mon, 23 Nov 2026 12:00:07"}, [7] * 3),
    (429, {"retry_after": "Monday, 23-Nov-26 12:00:07 GMT"}, [7] * 3),
    (429, {"retry_after": "Mon Nov 23 12:00:07 2026"}, [7] * 3),
    (429, {"retry_after": "Mon, 23 Nov 2026 11:59:00 GMT"}, LEAST),
    (429, {"retry_after": "Fri, 31 Dec 1999 23:59:59 GMT"}, LEAST),
    (429, {"retry_after": "Fri, 31 Dec 9999 23:59:59 GMT"}, []),
    # Milliseconds, which go before.
    (429, {"retry_after_ms": "1500"}, [1.5] * 3),
    (429, {"retry_after_ms": "1500", "retry_after": "9"}, [1.5] * 3),
    (429, {"retry_after_ms": "0"}, LEAST),
    (429, {"retry_after_ms": "-1"}, LEAST),
    (429, {"retry_after_ms": "nan", "retry_after": "9"}, [9] * 3),
    (429, {"retry_after_ms": "x"}, BACKOFF),
    # Limits that are used up.
    (429, _used_up("_requests", "1s"), [1] * 3),
    (429, _used_up("_tokens", "20ms"), LEAST),
    (429, _used_up("_tokens", "1m30s"), []),
    (429, _used_up("_tokens", "0m30.5s"), [30.5] * 3),
    (429, _used_up("_requests", "2s") | _used_up("_tokens", "9s"), [9] * 3),
    (429, _used_up("_requests", "2s") | _used_up("_tokens", "9s") | {"x_ratelimit_remaining_tokens": "5"}, [2] * 3),
    (429, {"x_ratelimit_reset_requests": "1s", "x_ratelimit_remaining_requests": "5"}, BACKOFF),
    (429, _used_up("", str(STAMP + 7)), [7] * 3),
    (429, _used_up("", str((STAMP + 7) * 1000)), [7] * 3),
    (429, _used_up("", str(STAMP - 100)), LEAST),
    (429, _used_up("", "-1"), LEAST),
    (429, _used_up("", "later"), BACKOFF),
    (429, _used_up("_tokens", "9s") | {"retry_after": "3"}, [3] * 3),
    (429, {"anthropic_ratelimit_tokens_reset": "2026-11-23T12:00:30Z", "anthropic_ratelimit_tokens_remaining": "0"}, [30] * 3),
    (429, {"anthropic_ratelimit_tokens_reset": "2026-11-23T12:00:30", "anthropic_ratelimit_tokens_remaining": "0"}, [30] * 3),
    (
        429,
        {"anthropic_ratelimit_tokens_reset": "2026-11-23T13:00:30+01:00", "anthropic_ratelimit_tokens_remaining": "0"},
        [30] * 3,
    ),
    (429, {"anthropic_ratelimit_requests_reset": "2026-11-23T11:00:00Z", "anthropic_ratelimit_requests_remaining": "0"}, LEAST),
    (429, {"anthropic_ratelimit_tokens_reset": "2026-11-23T12:00:30Z", "anthropic_ratelimit_tokens_remaining": "9"}, BACKOFF),
    (429, {"anthropic_ratelimit_unified_reset": str(STAMP + 30)}, [30] * 3),
    (429, {"anthropic_ratelimit_tokens_reset": "tomorrow", "anthropic_ratelimit_tokens_remaining": "0"}, BACKOFF),
    # Whether to try again at all.
    (500, {"x_should_retry": "false"}, []),
    (429, {"x_should_retry": "False", "retry_after": "1"}, []),
    (400, {"x_should_retry": "true"}, BACKOFF),
    (400, {"x_should_retry": "TRUE", "retry_after": "2"}, [2] * 3),
    (400, {"x_should_retry": "maybe"}, []),
    (500, {"x_should_retry": ""}, BACKOFF),
    (400, {"retry_after": "2"}, []),
    (401, {"retry_after": "2"}, []),
    (408, {"retry_after": "2"}, [2] * 3),
    (409, {}, BACKOFF),
)
assert len(TABLE) == 70


@pytest.mark.parametrize(("status", "headers", "waits"), TABLE)
def test_waits(status: int, headers: dict[str, str], waits: Sequence[float], monkeypatch: pytest.MonkeyPatch):
    assert waited(OPENAI, OPENAI.refuses(status, "busy", **headers), monkeypatch) == pytest.approx(waits)


@pytest.mark.parametrize("wire", WIRES[1:], ids=lambda wire: wire.service)
def test_waits_are_those_of_every_provider(wire: Wire, monkeypatch: pytest.MonkeyPatch):
    """The forms that differ most, where other SDKs are between."""
    for status, headers, waits in [
        case for case in TABLE if case[1].keys() & {"retry_after_ms", "x_should_retry", "x_ratelimit_reset"}
    ][::4]:
        found = waited(wire, wire.refuses(status, "busy", **headers), monkeypatch)
        assert found == pytest.approx(waits), (status, headers)


@pytest.mark.parametrize(
    ("delay", "header", "waits"),
    [
        ("34.07s", {}, [34.07] * 3), ("0s", {}, LEAST), ("3600s", {}, []), ("-3s", {}, BACKOFF), ("soon", {}, BACKOFF),
        ("9s", {"retry_after": "3"}, [3] * 3),
    ],
)  # fmt: skip
def test_waits_in_the_details_of_gemini(delay: str, header: Any, waits: Sequence[float], monkeypatch: pytest.MonkeyPatch):
    reply = google.error(429, "slow down", "RESOURCE_EXHAUSTED", google.retry_info(delay), **header)
    assert waited(GEMINI, reply, monkeypatch) == pytest.approx(waits)


def test_waits_vary_upwards_only_where_a_server_asked(monkeypatch: pytest.MonkeyPatch):
    """Never before the server's time, and callers do not come back all at once."""
    drawn = iter((0.0, 1.0, 0.5) * 3)
    monkeypatch.setattr("random.uniform", lambda low, high: low + (high - low) * next(drawn))
    assert waited(OPENAI, OPENAI.refuses(429, "busy", retry_after="10"), monkeypatch, jitter=0.2) == pytest.approx([10, 12, 11])
    assert waited(OPENAI, OPENAI.refuses(429, "busy", retry_after="0"), monkeypatch, jitter=0.2) == pytest.approx(
        [0.125, 0.15, 0.1375]
    )
    assert waited(OPENAI, OPENAI.refuses(500, "busy"), monkeypatch, jitter=0.2) == pytest.approx([0.4, 1.2, 2.0])


def test_no_wait_beyond_the_time_of_the_call(monkeypatch: pytest.MonkeyPatch):
    assert waited(OPENAI, OPENAI.refuses(429, "busy", retry_after="30"), monkeypatch, timeout=20) == []
