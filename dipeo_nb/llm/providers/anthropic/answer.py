"""Answers of the Messages API, while they come and when they are finished."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall
from dipeo_nb.errors import ContentFilteredError
from dipeo_nb.llm.core.errors import ErrorContext
from dipeo_nb.llm.streaming import TextPieces, named, words
from dipeo_nb.llm.structured import parsed
from dipeo_nb.llm.tools import call_id_of
from dipeo_nb.llm.usage import merged_counts, record
from dipeo_nb.llm.usage import of_anthropic as usage_of

UNREADABLE = "dipeo_unreadable"
"""Our field of a call's block: what the model gave that is not JSON."""
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
"""Anthropic's stop reasons → ours."""
FULL = "The answer ended where the model's context is full; remember less, or shorten the inputs."


def as_events(body: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The events of an answer that came whole."""
    blocks = body.get("content")
    if body.get("type") != "message" or not isinstance(blocks, list):
        return None
    found: list[Mapping[str, Any]] = [{"type": "message_start", "message": {**body, "content": [], "stop_reason": None}}]
    for index, block in enumerate(cast("list[Any]", blocks)):
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        found.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": body.get("stop_reason"), "stop_sequence": body.get("stop_sequence")}
    return [*found, {"type": "message_delta", "delta": end, "usage": body.get("usage")}, {"type": "message_stop"}]


class Turn:
    """A turn of the model while it arrives; one that pauses is continued."""

    def __init__(self, request: LLMRequest) -> None:
        self._request = request
        self.blocks: list[dict[str, Any]] = []
        """Content so far, as it may be sent back."""
        self.stop_reason: str | None = None
        self.complete = False
        self._at: dict[int, dict[str, Any]] = {}
        """Blocks of the response that comes, by the server's numbers, which may have gaps."""
        self._json: dict[int, list[str]] = {}
        self._texts: dict[int, TextPieces] = {}
        self._request_id: str | None = None
        self._model = request.model
        self._usage: dict[str, Any] = {}
        self._spent: list[TokenUsage] = []

    def begin(self, request_id: str | None) -> None:
        """A (further) response begins."""
        self._request_id = request_id
        self._at, self._json, self._texts = {}, {}, {}
        self.complete = False
        self._usage = {}

    def take(self, event: Mapping[str, Any]) -> StreamEvent | None:
        """What an event of the API means for the reader."""
        if (usage := event.get("usage")) is not None:  # of message_delta; elsewhere on servers that imitate it
            self._usage = merged_counts(self._usage, record(usage))
        match event["type"]:
            case "content_block_delta":
                return self._delta(event["index"], event["delta"])
            case "content_block_start":
                block = {name: value for name, value in event["content_block"].items() if value is not None}
                kind = words(block["type"])
                if kind == "tool_use":
                    block |= {
                        "id": call_id_of(block.get("id"), ids_of(self.blocks), "toolu_"),
                        "name": named(block.get("name")),
                    }
                elif kind == "text":
                    block["text"] = words(block.get("text"))
                self._at[event["index"]] = block
                self._texts[event["index"]] = TextPieces()
                self.blocks.append(block)
                if kind == "tool_use":
                    return StreamEvent("tool_call_start", block["name"], data={"id": block["id"]})
                if kind == "text" and block["text"]:
                    return StreamEvent("text", block["text"])
            case "content_block_stop":
                return self._stop(event["index"])
            case "message_start":
                message = event["message"]
                self._model = words(message.get("model")) or self._model
                self._usage = merged_counts(self._usage, record(message.get("usage")))
            case "message_delta":
                self.stop_reason = words(event["delta"].get("stop_reason")) or None
            case "message_stop":
                self.complete: bool = True
                self._spent.append(usage_of(self._usage))
                self._usage = {}
            case _:
                pass  # pings, and what later versions add
        return None

    def _delta(self, at: int, delta: Mapping[str, Any]) -> StreamEvent | None:
        block = self._at[at]
        match delta["type"]:
            case "text_delta" if block["type"] == "text":
                piece = self._texts[at].add(delta.get("text"))
                block["text"] += piece
                return StreamEvent("text", piece)
            case "thinking_delta":
                piece = self._texts[at].add(delta.get("thinking"))
                block["thinking"] = words(block.get("thinking")) + piece
                return StreamEvent("reasoning", piece)
            case "input_json_delta":
                piece = words(delta.get("partial_json"))
                self._json.setdefault(at, []).append(piece)
                if block["type"] == "tool_use":
                    return StreamEvent("tool_call_delta", piece, data={"id": block["id"]})
            case "signature_delta":
                block["signature"] = words(delta.get("signature"))
            case "text_delta":
                raise TypeError(f"text in a block of type {block['type']}")
            case "citations_delta":
                block.setdefault("citations", []).append(record(delta["citation"]))
            case _:
                pass
        return None

    def _stop(self, at: int) -> StreamEvent | None:
        block = self._at[at]
        text = "".join(self._json.pop(at, ()))
        if block["type"] not in ("tool_use", "server_tool_use"):
            return None
        if text:
            try:
                block["input"] = json.loads(text)
            except (ValueError, RecursionError):
                block["input"], block[UNREADABLE] = {}, text
        if block["type"] == "server_tool_use":
            return None
        given = block.get(UNREADABLE, block.get("input"))
        return StreamEvent("tool_call_end", block["name"], data={"id": block["id"], "arguments": given})

    def response(self, context: ErrorContext) -> LLMResponse:
        """The finished answer."""
        return response_of(self.blocks, self.stop_reason, self.usage, self._request, self._model, self._request_id, context)

    @property
    def usage(self) -> TokenUsage:
        """What all responses took so far."""
        parts = [*self._spent, usage_of(self._usage)] if self._usage else self._spent
        return parts[0] if len(parts) == 1 else sum(parts, TokenUsage())


def response_of(
    blocks: Sequence[Mapping[str, Any]],
    stop_reason: str | None,
    usage: TokenUsage,
    request: LLMRequest,
    model: str,
    request_id: str | None,
    context: ErrorContext,
) -> LLMResponse:
    """The content of a finished message as our response.

    Raises:
        ContentFilteredError: the model refused.
        StructureError: it does not fit the requested structure.
    """
    if stop_reason == "refusal":
        raise ContentFilteredError(
            "The model refused to answer.", hint="Change the prompt.", request_id=request_id, usage=usage, **context.facts
        )
    text = "".join(words(b.get("text")) for b in blocks if b["type"] == "text")
    calls = tuple(_call(b) for b in blocks if b["type"] == "tool_use")
    finish = FINISH.get(stop_reason or "", stop_reason or "stop")
    structured = mode = None
    if request.response_format is not None and not calls:
        structured = parsed(
            text,
            request.response_format,
            provider="anthropic",
            model=request.model,
            usage=usage,
            cut=finish == "length",
        )
        mode = "native"
    cited = (c for b in blocks for c in b.get("citations") or () if c.get("url"))
    return LLMResponse(
        text,
        "anthropic",
        model,
        usage,
        structured,
        calls,
        finish,
        request_id,
        output_mode=mode,
        tool_outputs=tuple({"type": "citation", "url": words(c["url"]), "title": words(c.get("title"))} for c in cited),
        raw={"provider": "anthropic", "content": list(map(kept, blocks))} if calls else None,
        warnings=(FULL,) if stop_reason == "model_context_window_exceeded" else (),
    )


def ids_of(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of the calls of a turn."""
    return [block["id"] for block in blocks if block["type"] == "tool_use"]


def _call(block: Mapping[str, Any]) -> ToolCall:
    given = block.get("input")
    if UNREADABLE in block or not isinstance(given, Mapping):
        return ToolCall(block["id"], named(block.get("name")), {}, str(block.get(UNREADABLE, given)))
    return ToolCall(block["id"], named(block.get("name")), cast("Mapping[str, Any]", given))


def kept(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block as it may be sent back."""
    given = {name: value for name, value in block.items() if name != UNREADABLE}
    return given | ({"input": {}} if "input" in given and not isinstance(given["input"], Mapping) else {})
