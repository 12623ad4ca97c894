"""The words of Anthropic's Messages API, for a `ScriptedServer`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.support.wire_openai import Call, Reply

USAGE = {"input_tokens": 20, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 3, "output_tokens": 1}


def start(**more: Any) -> dict[str, Any]:
    """The first event of an answer."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-20260801",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": USAGE,
        **more,
    }
    return {"type": "message_start", "message": message}


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """A block of content, piece by piece."""
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": d} for d in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(words: str, index: int = 0) -> list[dict[str, Any]]:
    """A block of text, word by word."""
    pieces = words.replace(" ", " \0").split("\0")
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": p} for p in pieces))


def thinking(words: str, signature: str, index: int = 0) -> list[dict[str, Any]]:
    """A block of signed thinking."""
    said = {"type": "thinking_delta", "thinking": words}
    return block(
        index,
        {"type": "thinking", "thinking": "", "signature": ""},
        said,
        {"type": "signature_delta", "signature": signature},
    )


def tool_use(call_id: str, name: str, arguments: dict[str, Any], index: int = 0) -> list[dict[str, Any]]:
    """A call of a tool, its arguments in two pieces."""
    data = json.dumps(arguments)
    pieces = ({"type": "input_json_delta", "partial_json": p} for p in (data[:5], data[5:]))
    return block(index, {"type": "tool_use", "id": call_id, "name": name, "input": {}}, *pieces)


def end(reason: str = "end_turn", **usage: Any) -> list[dict[str, Any]]:
    """The last events."""
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 12, **usage}},
        {"type": "message_stop"},
    ]


def body(events: Sequence[dict[str, Any]]) -> str:
    """Events as they stand in the body."""
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)


def streams(*events: dict[str, Any], **headers: str) -> Reply:
    """A reply of these events."""

    def reply(call: Call) -> None:
        call.headers(content_type="text/event-stream", connection="close", request_id="req_1", **headers)
        for event in events:
            call.send(body([event]))

    return reply


def says(words: str, **usage: Any) -> Reply:
    """A reply that streams a text word by word."""
    details = {"output_tokens_details": {"thinking_tokens": 4}}
    return streams(start(), {"type": "ping"}, *text(words), *end(**(details | usage)))


def error(status: int, message: str, kind: str = "", **headers: str) -> Reply:
    """A refusal as Anthropic words it."""
    kinds = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
    kinds |= {413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"}
    inner = {"type": kind or kinds.get(status, "api_error"), "message": message}
    return lambda call: call.json(status, {"type": "error", "error": inner}, request_id="req_e", **headers)
