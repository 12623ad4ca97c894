"""Answers of the Gemini API, while they come and when they are finished."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dipeo_nb.domain.chat import BillItem, LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall
from dipeo_nb.domain.lifecycle import warn_of_end
from dipeo_nb.errors import ContentFilteredError, ProviderError
from dipeo_nb.llm.providers.google.request import OWN_ID
from dipeo_nb.llm.streaming import incomplete_stream_error, named, words
from dipeo_nb.llm.structured import parsed
from dipeo_nb.llm.tools import call_id_of
from dipeo_nb.llm.usage import merged_counts, of_google, record

COMPLETE = frozenset({"STOP", "MAX_TOKENS", "FUNCTION_CALL"})
"""Reasons to end an answer that was given; Google says STOP after calls too, servers that imitate it FUNCTION_CALL."""
PASSING = frozenset({"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "OTHER"})
"""Reasons that are a slip of the model: it seldom happens twice."""
FILTERED = frozenset({
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
    "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
})  # fmt: skip
"""Reasons to end an answer that are about its content."""


class IncomingAnswer:
    """An answer while it comes."""

    def __init__(self, request: LLMRequest) -> None:
        self._request = request
        self._parts: list[dict[str, Any]] = []
        """The turn in Google's own form."""
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._outputs: list[Mapping[str, Any]] = []
        self._counts: dict[str, Any] = {}
        self._queries: list[str] = []
        """Searches that were made."""
        self._tier: str | None = None
        """The class of service, where the answer names it."""
        self._grounded = False
        """Whether the answer names pages that were found."""
        self._maps = False
        """Whether it names places of Google Maps, which have a fee of their own."""
        self._reason: str | None = None
        self._id: str | None = None
        self._model: str | None = None

    def take(self, chunk: Any) -> Iterator[StreamEvent]:
        self._id = chunk.response_id or self._id
        if self._tier is None and chunk.sdk_http_response is not None:
            self._tier = (chunk.sdk_http_response.headers or {}).get("x-gemini-service-tier")
        self._model = chunk.model_version or self._model
        if chunk.model_status is not None:
            warn_of_end("gemini", self._request.model, chunk.model_status.retirement_time)
        if chunk.usage_metadata is not None:  # each is the sum so far
            self._counts = merged_counts(self._counts, record(chunk.usage_metadata, by_alias=True))
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason is not None:
            reason = _word(chunk.prompt_feedback.block_reason)
            raise self._filtered(f"gemini blocked the prompt: {reason}.")
        for candidate in (chunk.candidates or ())[:1]:
            for part in (candidate.content.parts if candidate.content else None) or ():
                yield from self._part(part)
            self._cite(candidate)
            if candidate.finish_reason is not None:
                self._reason = _word(candidate.finish_reason)

    @property
    def is_complete(self) -> bool:
        """Whether its end was said, after which only the end of the connection comes."""
        return self._reason in COMPLETE and bool(self._counts)

    @property
    def usage(self) -> TokenUsage:
        """What the answer took so far."""
        images = sum(output["type"] == "image" for output in self._outputs)
        old = re.match(r"(models/)?gemini-[12]\b", self._model or self._request.model) is not None
        usage = of_google(
            self._counts, queries=self._queries, grounded=self._grounded, per_prompt=old, images=images, tier=self._tier
        )
        return usage if not self._maps else replace(usage, bill=(*usage.bill, BillItem({"maps": 1})))

    def finished(self) -> LLMResponse:
        """The whole answer.

        Raises:
            LLMConnectionError: it was not complete.
            ContentFilteredError: filtered.
            StructureError: it does not fit the requested structure.
            ProviderError: it ended for another reason.
        """
        request, reason = self._request, self._reason
        if reason is None:
            raise incomplete_stream_error(request)
        if reason in FILTERED:
            raise self._filtered(f"gemini stopped its answer: {reason}.")
        if reason not in COMPLETE:
            raise ProviderError(
                f"gemini ended its answer with {reason}.",
                hint=_HINTS.get(reason, "Try again."),
                retryable=reason in PASSING or None,
                usage=self.usage,
                **self._facts,
            )
        text, cut, usage = "".join(self._texts), reason == "MAX_TOKENS", self.usage
        structured = mode = None
        if request.response_format is not None and not self._calls:
            structured = parsed(text, request.response_format, provider="gemini", model=request.model, usage=usage, cut=cut)
            mode = "json_mode" if request.output_mode == "json_mode" else "native"
        signed = any("thoughtSignature" in part or "functionCall" in part for part in self._parts)
        return LLMResponse(
            text,
            "gemini",
            self._model or request.model,
            usage,
            structured,
            tuple(self._calls),
            "length" if cut else "tool_calls" if self._calls else "stop",
            self._id,
            output_mode=mode,
            tool_outputs=tuple(self._outputs),
            raw={"provider": "gemini", "model": request.model, "content": self._parts} if signed else None,
        )

    def _part(self, part: Any) -> Iterator[StreamEvent]:
        if (call := part.function_call) is not None:
            given = ToolCall(call_id_of(call.id, [c.id for c in self._calls], OWN_ID), named(call.name), dict(call.args or {}))
            call.id = call.id if given.id == call.id else None
            self._keep(_as_sent(part))
            self._calls.append(given)
            arguments = json.dumps(given.arguments, ensure_ascii=False)
            yield StreamEvent("tool_call_start", given.name, data={"id": given.id})
            yield StreamEvent("tool_call_delta", arguments, data={"id": given.id})
            yield StreamEvent("tool_call_end", given.name, data={"id": given.id, "arguments": arguments})
            return
        self._keep(_as_sent(part))
        if part.inline_data is not None and part.inline_data.data and not part.thought:
            kind = part.inline_data.mime_type or "application/octet-stream"
            data = base64.b64encode(part.inline_data.data).decode()
            self._outputs.append({"type": kind.partition("/")[0], "media_type": kind, "data": data})
        elif part.text and part.thought:
            yield StreamEvent("reasoning", words(part.text))
        elif part.text:
            self._texts.append(text := words(part.text))
            yield StreamEvent("text", text)

    def _keep(self, part: dict[str, Any]) -> None:
        """Pieces of one text become one part; signed ones stay alone, as Google asks."""
        last = self._parts[-1] if self._parts else None
        plain = {"text", "thought"}
        if last and "text" in last and "text" in part and plain >= {*last, *part} and _thought(last) == _thought(part):
            last["text"] += part["text"]
        else:
            self._parts.append(part)

    def _cite(self, candidate: Any) -> None:
        grounding = candidate.grounding_metadata
        if grounding is not None:
            self._queries += [*(grounding.web_search_queries or ()), *(grounding.image_search_queries or ())]
            for found in grounding.grounding_chunks or ():
                self._grounded = self._grounded or found.web is not None or found.image is not None
                self._maps = self._maps or found.maps is not None
        pages = [c.web for c in (grounding.grounding_chunks if grounding else None) or () if c.web is not None]
        quoted = (candidate.citation_metadata.citations if candidate.citation_metadata else None) or ()
        for page in (*pages, *quoted):
            citation = {"type": "citation", "url": page.uri, "title": page.title}
            if page.uri and citation not in self._outputs:
                self._outputs.append(citation)

    @property
    def _facts(self) -> dict[str, Any]:
        return {"provider": "gemini", "model": self._request.model, "request_id": self._id}

    def _filtered(self, message: str) -> ContentFilteredError:
        return ContentFilteredError(message, hint="Change the prompt.", usage=self.usage, **self._facts)


_HINTS = {
    "MALFORMED_FUNCTION_CALL": "The model wrote a call that cannot be read. Try again, or simplify the tool's parameters.",
    "UNEXPECTED_TOOL_CALL": "The model called a tool that it does not have. Try again, or offer the tool.",
    "TOO_MANY_TOOL_CALLS": "Say in the prompt when to stop calling tools.",
    "LANGUAGE": "Ask in another language.",
    "NO_IMAGE": "Ask for an image more plainly.",
}


def _word(value: Any) -> str:
    """An enumeration's word; the SDK passes on words that it does not know."""
    return str(getattr(value, "value", value))


def _as_sent(part: Any) -> dict[str, Any]:
    """A part in the API's own form."""
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)


def _thought(part: Mapping[str, Any]) -> bool:
    return bool(part.get("thought"))
