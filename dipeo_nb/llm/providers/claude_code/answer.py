"""Turns of Claude Code, while they come and when they are finished."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dipeo_nb.domain.chat import BillItem, LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.errors import LLMConnectionError, LLMError, ProviderError
from dipeo_nb.llm.core.errors import SAID_LIMIT, ErrorContext, said_in_stream, status_error
from dipeo_nb.llm.providers.claude_code.sessions import Session, load_sdk
from dipeo_nb.llm.streaming import TextPieces, incomplete_stream_error, words
from dipeo_nb.llm.structured import parsed
from dipeo_nb.llm.usage import merged_counts, of_anthropic, record

ERRORS = {
    "authentication_failed": "authentication_error",
    "oauth_org_not_allowed": "permission_error",
    "billing_error": "billing_error",
    "rate_limit": "rate_limit_error",
    "overloaded": "overloaded_error",
    "server_error": "api_error",
}
"""What the SDK calls an error → what Anthropic's API calls it."""


class IncomingAnswer:
    """A turn while it comes."""

    def __init__(self, request: LLMRequest, context: ErrorContext) -> None:
        self._request = request
        self._context = context
        self._said, self._thoughts = TextPieces(), TextPieces()
        self._model = request.model
        self._error: str | None = None
        self._result: Any = None
        self._counts: list[dict[str, Any]] = []
        """What the events said of tokens, for each message of the turn; the result has the sum."""

    def take(self, message: Any) -> list[StreamEvent]:
        """What a message of the SDK means for the reader."""
        sdk = load_sdk()
        if isinstance(message, sdk.StreamEvent):
            delta = record(message.event.get("delta"))
            if message.event.get("type") == "message_start":
                self._counts.append(record(record(message.event.get("message")).get("usage")))
            elif message.event.get("type") == "message_delta" and self._counts:
                self._counts[-1] = merged_counts(self._counts[-1], record(message.event.get("usage")))
            if message.event.get("type") == "content_block_delta" and message.parent_tool_use_id is None:
                if delta.get("type") == "text_delta":
                    return [StreamEvent("text", self._said.add(delta.get("text")))]
                if delta.get("type") == "thinking_delta":
                    return [StreamEvent("reasoning", self._thoughts.add(delta.get("thinking")))]
        elif isinstance(message, sdk.AssistantMessage):
            self._model = words(message.model) or self._model
            self._error = message.error or self._error
        elif isinstance(message, sdk.ResultMessage):
            self._result = message
        return []

    @property
    def usage(self) -> TokenUsage:
        """What the turn took so far."""
        return sum((of_anthropic(counts) for counts in self._counts if counts), TokenUsage())

    def finished(self, session: Session) -> LLMResponse:
        """The response.

        Raises:
            LLMError: the turn failed, or ended without a result.
        """
        result = self._result
        if result is None:
            raise incomplete_stream_error(self._request)
        session.session_id = words(result.session_id) or None
        said = str(result.result or "; ".join(map(str, result.errors or ())) or result.subtype)[:SAID_LIMIT]
        cost, usage = None, of_anthropic(record(result.usage))
        if result.total_cost_usd is not None:
            cost, session.spent_usd = max(0.0, result.total_cost_usd - session.spent_usd), result.total_cost_usd
            usage = replace(usage, bill=(BillItem(usd=cost),))
        if result.is_error or self._error:
            error = self._failure(result, said)
            error.usage = usage if usage.total or cost else None
            raise error
        text = words(result.result) or self._said.text
        structured = mode = None
        if self._request.response_format is not None:
            text = text if result.structured_output is None else json.dumps(result.structured_output, ensure_ascii=False)
            structured = parsed(
                text,
                self._request.response_format,
                provider=self._context.provider,
                model=self._model,
                usage=usage,
                cut=result.stop_reason == "max_tokens",
            )
            mode = "native"
        finish = "length" if result.stop_reason == "max_tokens" else "stop"
        return LLMResponse(
            text, self._context.provider, self._model or "claude-code", usage, structured,
            finish_reason=finish, request_id=result.session_id, cost_usd=cost, output_mode=mode,
        )  # fmt: skip

    def _failure(self, result: Any, said: str) -> LLMError:
        if result.api_error_status:
            return status_error(self._context, result.api_error_status, said)
        if self._error in ERRORS:
            return said_in_stream(self._context, ERRORS[self._error], said)
        return ProviderError(
            f"{self._context.provider}: {self._context.harmless(said)}", hint="Try again.", **self._context.facts
        )


def known_error(error: Any, context: ErrorContext) -> LLMError | None:
    """The SDK's errors as ours."""
    sdk = load_sdk()
    if isinstance(error, sdk.CLINotFoundError):
        return LLMConnectionError(
            "The program of Claude Code is not there.",
            hint='Run: pip install "dipeo-nb[claude-code]", or install Claude Code.',
            **context.facts,
        )
    if isinstance(error, sdk.ClaudeSDKError) or type(error) is Exception:  # so the SDK says what its reader met
        said = next(iter(context.harmless(str(error)).strip()[:SAID_LIMIT].splitlines()), "no reason given")
        return LLMConnectionError(f"Claude Code ended: {said}", hint="Try again.", **context.facts)
    return None
