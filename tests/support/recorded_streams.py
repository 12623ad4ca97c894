"""Streams as providers send them, event by event, and how their bytes look: what `fuzzed_streams` damages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support import wire_anthropic as anthropic
from tests.support import wire_google as google
from tests.support import wire_ollama as ollama
from tests.support import wire_openai as openai

WORDS = "Grüße aus 東京 👩‍🔬, first line\nand\u2028a second: “done”."
"""A text with what trips readers of lines and of bytes."""
CITY = '{"city": "Paris", "temperature": 21.5}'
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "temperature": {"type": "number"}},
    "required": ["city", "temperature"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Recording:
    """One answer of a provider."""

    name: str
    events: Sequence[Any]
    structured: bool = False
    """Whether the request asks for `SCHEMA`."""
    tools: bool = False
    headers: dict[str, str] = field(default_factory=dict[str, str])


def pieces(text: str) -> list[str]:
    return text.replace(" ", " \0").split("\0")


# OpenAI's Responses API.


def _numbered(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**event, "sequence_number": n} for n, event in enumerate(events)]


def _begun() -> list[dict[str, Any]]:
    response = openai.final(status="completed")["response"] | {"status": "in_progress", "usage": None}
    return [{"type": f"response.{kind}", "response": response} for kind in ("created", "in_progress")]


def _message(text: str, at: int = 0, **part: Any) -> Iterator[dict[str, Any]]:
    """A message of the output, piece by piece."""
    item = openai.message(text)
    item["content"][0] |= part
    place = {"item_id": item["id"], "output_index": at, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    added = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": at, "item": added}
    yield {"type": "response.content_part.added", **place, "part": empty}
    for piece in pieces(text):
        yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": item["content"][0]}
    yield {"type": "response.output_item.done", "output_index": at, "item": item}


def _thought(text: str, at: int = 0) -> Iterator[dict[str, Any]]:
    item = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": text}], "encrypted_content": "gAAA"}
    place = {"item_id": "rs_1", "output_index": at, "summary_index": 0}
    yield {"type": "response.output_item.added", "output_index": at, "item": {**item, "summary": []}}
    yield {"type": "response.reasoning_summary_part.added", **place, "part": {"type": "summary_text", "text": ""}}
    for piece in pieces(text):
        yield {"type": "response.reasoning_summary_text.delta", **place, "delta": piece}
    yield {"type": "response.reasoning_summary_text.done", **place, "text": text}
    yield {"type": "response.output_item.done", "output_index": at, "item": item}


def _called(call_id: str, name: str, arguments: str, at: int) -> Iterator[dict[str, Any]]:
    item = {"id": f"fc_{at}", "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    place = {"item_id": item["id"], "output_index": at}
    yield {"type": "response.output_item.added", "output_index": at, "item": {**item, "arguments": "", "status": "in_progress"}}
    for piece in (arguments[:7], arguments[7:]):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
    yield {"type": "response.function_call_arguments.done", **place, "arguments": arguments}
    yield {"type": "response.output_item.done", "output_index": at, "item": {**item, "status": "completed"}}


def _items(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e["item"] for e in events if e["type"] == "response.output_item.done"]


def _openai(*parts: Iterator[dict[str, Any]], **end: Any) -> list[dict[str, Any]]:
    events = [event for part in parts for event in part]
    return _numbered(*_begun(), *events, openai.final(*_items(events), **end))


def _openai_searched() -> list[dict[str, Any]]:
    search = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "cats"}}
    image = {
        "id": "ig_1",
        "type": "image_generation_call",
        "status": "completed",
        "result": "iVBORw0KGgo=",
        "output_format": "png",
    }
    cited = [{"type": "url_citation", "url": "https://example.org/a", "title": "A", "start_index": 0, "end_index": 4}]
    steps = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**search, "status": "in_progress"}},
        {"type": "response.web_search_call.searching", "output_index": 0, "item_id": "ws_1"},
        {"type": "response.output_item.done", "output_index": 0, "item": search},
        {
            "type": "response.image_generation_call.partial_image",
            "output_index": 1,
            "item_id": "ig_1",
            "partial_image_b64": "iVBO",
        },
        {"type": "response.output_item.done", "output_index": 1, "item": image},
    ]
    return _openai(iter(steps), _message(WORDS, 2, annotations=cited))


def _openai_refused() -> list[dict[str, Any]]:
    item = openai.message("")
    item["content"] = [{"type": "refusal", "refusal": "I cannot help with that."}]
    steps = [
        {"type": "response.refusal.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "I cannot "}
    ]
    return _openai(iter([*steps, {"type": "response.output_item.done", "output_index": 0, "item": item}]))


_LIMIT = {"code": "rate_limit_exceeded", "message": "Slow down, please."}
_SAID = openai.final(openai.message(WORDS))["response"]
_CUT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}

OPENAI = (
    Recording("text", _openai(_thought("I think it over."), _message(WORDS, 1))),
    Recording("tools", _openai(_thought("Two calls."), _called("c1", "weather", '{"city": "Paris"}', 1),
                               _called("c2", "weather", '{"city": "Rome"}', 2)), tools=True),
    Recording("search", _openai_searched()),
    Recording("structure", _openai(_message(CITY)), structured=True),
    Recording("refused", _openai_refused()),
    Recording("cut", _openai(_message(WORDS), **_CUT)),
    Recording("failed", [*_openai(_message(WORDS))[:-1], openai.final(status="failed", error=_LIMIT)]),
    Recording("error", [*_openai(_message(WORDS))[:-3], {"type": "error", "code": "server_error", "message": "Oops", "param": None}]),
)  # fmt: skip
OPENAI_WHOLE = (
    _SAID,
    {"error": {"message": "Insufficient credits", "type": "billing", "code": 402}},
    _openai_searched()[-1]["response"],
)


# Anthropic's Messages API.


def _anthropic(*parts: list[dict[str, Any]], reason: str = "end_turn", **usage: Any) -> list[dict[str, Any]]:
    return [anthropic.start(), {"type": "ping"}, *(e for part in parts for e in part), *anthropic.end(reason, **usage)]


_RESULTS = {
    "type": "web_search_tool_result",
    "tool_use_id": "srv_1",
    "content": [{"type": "web_search_result", "url": "https://example.org", "title": "A", "encrypted_content": "x"}],
}
_CITATION = {
    "type": "web_search_result_location",
    "url": "https://example.org",
    "title": "A",
    "cited_text": "a",
    "encrypted_index": "i",
}
_SERVER_TOOL = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}}

ANTHROPIC = (
    Recording("text", _anthropic(anthropic.thinking("I think it over.", "c2ln", 0), anthropic.text(WORDS, 1))),
    Recording("tools", _anthropic(anthropic.text("I look.", 0), anthropic.tool_use("t1", "weather", {"city": "Paris"}, 1),
                                  anthropic.tool_use("t2", "weather", {"city": "Rome"}, 2), reason="tool_use"), tools=True),
    Recording("search", _anthropic(
        anthropic.block(0, _SERVER_TOOL, {"type": "input_json_delta", "partial_json": '{"query": "cats"}'}),
        anthropic.block(1, _RESULTS),
        anthropic.block(2, {"type": "text", "text": "", "citations": []}, {"type": "citations_delta", "citation": _CITATION},
                        *({"type": "text_delta", "text": p} for p in pieces(WORDS))),
        server_tool_use={"web_search_requests": 1})),
    Recording("structure", _anthropic(anthropic.text(CITY)), structured=True),
    Recording("refused", _anthropic(anthropic.text("I"), reason="refusal")),
    Recording("cut", _anthropic(anthropic.text(WORDS), reason="max_tokens")),
    Recording("error", [*_anthropic(anthropic.text(WORDS))[:-3],
                        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}]),
    Recording("timeout", [*_anthropic(anthropic.text(WORDS))[:-3],
                          {"type": "error", "error": {"type": "timeout_error", "message": "Too slow"}}]),
)  # fmt: skip
_ANTHROPIC_MESSAGE = anthropic.start()["message"] | {"content": [{"type": "text", "text": WORDS}], "stop_reason": "end_turn"}
ANTHROPIC_WHOLE = (_ANTHROPIC_MESSAGE, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


# The Gemini API.


def _google(text: str, *before: dict[str, Any], finish: str = "STOP", **candidate: Any) -> list[dict[str, Any]]:
    said = pieces(text)
    return [
        *before,
        *(google.chunk(google.text(p)) for p in said[:-1]),
        google.chunk(google.text(said[-1]), finish=finish, **candidate),
    ]


_GROUNDED = {
    "groundingMetadata": {
        "webSearchQueries": ["cats"],
        "groundingChunks": [{"web": {"uri": "https://example.org", "title": "A"}}],
    }
}
_IMAGE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
_BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": google.USAGE, "modelVersion": "gemini-2.5-flash"}

GOOGLE = (
    Recording("text", _google(WORDS, google.chunk(google.text("I think it over.", thought=True)))),
    Recording("tools", [google.chunk(google.text("I look.")),
                        google.chunk(google.function_call("weather", {"city": "Paris"}, id="g1", thoughtSignature="c2ln")),
                        google.chunk(google.function_call("weather", {"city": "Rome"}), finish="STOP")], tools=True),
    Recording("search", _google(WORDS, google.chunk(_IMAGE), finish="STOP", **_GROUNDED)),
    Recording("structure", _google(CITY), structured=True),
    Recording("refused", _google("I will", finish="SAFETY")),
    Recording("blocked", [_BLOCKED]),
    Recording("cut", _google(WORDS, finish="MAX_TOKENS")),
    Recording("malformed", [google.chunk(google.text("I look.")), google.chunk(finish="MALFORMED_FUNCTION_CALL")], tools=True),
    Recording("error", [*_google(WORDS)[:-1], {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}]),
)  # fmt: skip
GOOGLE_WHOLE = (
    google.chunk(google.text(WORDS), finish="STOP"),
    {"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}},
)


# Ollama.


def _ollama(text: str, *before: dict[str, Any], reason: str = "stop") -> list[dict[str, Any]]:
    return [*before, *map(ollama.chunk, pieces(text)), ollama.end(reason)]


OLLAMA = (
    Recording("text", _ollama(WORDS, ollama.chunk(thinking="I think it over."))),
    Recording("tools", [ollama.chunk(thinking="Two."), ollama.chunk(tool_calls=[ollama.tool_call("weather", {"city": "Paris"})]),
                        ollama.chunk(tool_calls=[ollama.tool_call("weather", {"city": "Rome"})]), ollama.end()], tools=True),
    Recording("structure", _ollama(CITY), structured=True),
    Recording("cut", _ollama(WORDS, reason="length")),
    Recording("error", [*_ollama(WORDS)[:-1], {"error": "llama runner process has terminated: exit status 2"}]),
)  # fmt: skip
OLLAMA_WHOLE = (
    ollama.chunk(WORDS) | ollama.end() | {"message": {"role": "assistant", "content": WORDS}},
    {"error": "model is busy"},
)


# Claude Code, whose program sends messages of its own with Anthropic's events within.


def _claude(*events: dict[str, Any], text: str = WORDS, **result: Any) -> list[dict[str, Any]]:
    facts = {"session_id": "s1", "uuid": "u1", "parent_tool_use_id": None}
    content = [{"type": "text", "text": text}]
    return [
        {"type": "system", "subtype": "init", "session_id": "s1", "tools": [], "model": "claude-sonnet-5"},
        *({"type": "stream_event", "event": event, **facts} for event in events),
        {"type": "assistant", "message": {"role": "assistant", "model": "claude-sonnet-5", "content": content}, **facts},
        {
            "type": "result", "subtype": "success", "duration_ms": 5, "duration_api_ms": 4, "is_error": False, "num_turns": 1,
            "session_id": "s1", "result": text, "total_cost_usd": 0.01, "stop_reason": "end_turn",
            "usage": {"input_tokens": 20, "output_tokens": 12}, **result,
        },
    ]  # fmt: skip


CLAUDE_CODE = (
    Recording("text", _claude(*_anthropic(anthropic.thinking("Hm.", "c2ln"), anthropic.text(WORDS, 1)))),
    Recording(
        "structure", _claude(*_anthropic(anthropic.text(CITY)), text=CITY, structured_output=json.loads(CITY)), structured=True
    ),
    Recording("failed", _claude(*_anthropic(anthropic.text("I"))[:4], text="Overloaded", is_error=True, api_error_status=529)),
    Recording("cut", _claude(*_anthropic(anthropic.text(WORDS)), stop_reason="max_tokens")),
)


# Files of results of batches: a line for each of the requests `a`, `b`, `c`.


def _line(name: str, body: Any, status: int = 200, **more: Any) -> dict[str, Any]:
    return {
        "id": f"b_{name}",
        "custom_id": name,
        "response": {"status_code": status, "request_id": "r", "body": body},
        "error": None,
        **more,
    }


OPENAI_BATCH = (_line("a", _SAID), _line("b", {"error": {"message": "no", "code": "bad"}}, 400), _line("c", _SAID))
ANTHROPIC_BATCH = (
    {"custom_id": "a", "result": {"type": "succeeded", "message": _ANTHROPIC_MESSAGE}},
    {
        "custom_id": "b",
        "result": {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "no"}}},
    },
    {"custom_id": "c", "result": {"type": "succeeded", "message": _ANTHROPIC_MESSAGE}},
)
GOOGLE_BATCH = (
    {"response": GOOGLE_WHOLE[0], "metadata": {"key": "a"}},
    {"error": {"code": 8, "message": "no"}, "metadata": {"key": "b"}},
    {"response": GOOGLE_WHOLE[0], "metadata": {"key": "c"}},
)


# What is refused before an answer begins.

ERROR_BODIES: tuple[bytes, ...] = (
    b'{"error": {"message": "no", "type": "invalid_request_error", "code": "bad", "param": null}}',
    b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}, "request_id": "r"}',
    b'{"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "3s"}]}}',
    b'[{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}]',
    b'{"error": "no such model"}',
    b'{"detail": [{"loc": ["body"], "msg": "field required", "type": "missing"}]}',
    b'{"message": "Too large"}',
    b'{"error": {"message": {"nested": ["a", 1]}, "code": 17}}',
    b'{"error": null}',
    b"<html><body><h1>502 Bad Gateway</h1></body></html>",
    b"upstream connect error",
    b"",
    b"null",
    b"[]",
    b'"no"',
    b"\xff\xfe\x00",
)
STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 425, 429, 500, 502, 503, 504, 529, 599, 200, 204, 301, 302)
