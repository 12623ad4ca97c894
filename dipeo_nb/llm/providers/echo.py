"""A model that costs nothing and knows nothing: it repeats what it was asked. For tests, for trying a diagram's flow.

Any diagram runs on it, offline and at once, and the same request has the same answer in every process:

| asked for | answer |
|---|---|
| text | `[person] ` and the last user message on one line, cut to 200 characters |
| structure | the smallest value that fits the schema or class: true, 0, "echo", the first choice, no optional fields |
| a decision | yes |
| memories | the last five messages listed |
| a function | one that is named in the question, once: `weather {"city": "Bern"}`, or with the smallest arguments that fit; then the text, with what the functions answered |
| a web search | the text, and two results of example.com as citations |
| an image | the text, and a picture of 64 × 64 pixels whose colours depend on the question |

`echo:7`, or any other whole number, is a seed: structure, decisions and arguments are random then, and depend on the question, so that
a loop that waits for a no ends. The same seed and question give the same answer. Usage counts words; the cost is 0.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import json
import re
import struct
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall, ToolConfig
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.errors import UnsupportedError
from dipeo_nb.llm.core.client import UnifiedClient
from dipeo_nb.llm.samples import candidates, is_risky, sample
from dipeo_nb.llm.structured import made, name_of, prepare, schema_of, validated
from dipeo_nb.workers import WORKERS

ECHO_LIMIT = 200
"""Characters of the question that are repeated."""
MAKE_S = 10.0
"""Seconds that making up a value for a schema may take."""
REMEMBERED = 5
"""Messages it selects when it is asked to select memories: the last ones listed."""
PICTURE_SIDE = 64
"""Pixels of its pictures, wide and high."""


class EchoClient(UnifiedClient):
    """`LLMClient` without a model, instant and deterministic; see the module."""

    provider = "echo"

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        await prepare({} if request.tools else request.response_format)
        calls = tuple(_calls(request))
        text, structured = ("", None) if calls else await _answer(request)
        yield StreamEvent("start")
        for word in words(text):
            yield StreamEvent("text", word)
        for call in calls:
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            yield StreamEvent("tool_call_start", call.name, data={"id": call.id})
            yield StreamEvent("tool_call_delta", arguments, data={"id": call.id})
            yield StreamEvent("tool_call_end", call.name, data={"id": call.id, "arguments": arguments})
        usage = counted(request, text or " ".join(call.name for call in calls))
        yield StreamEvent("usage", data=usage.to_dict())
        yield StreamEvent(
            "end",
            response=LLMResponse(
                text,
                self.provider,
                request.model or "echo",
                usage,
                structured,
                calls,
                finish_reason="tool_calls" if calls else "stop",
                cost_usd=0.0,
                output_mode=None if request.response_format is None or calls else "native",
                tool_outputs=() if calls else tuple(_outputs(request)),
            ),
        )


def words(text: str) -> list[str]:
    """A text word by word, as models stream it; together they are the text."""
    return re.findall(r"(?<!\s)\s*+\S++(?:\s++\Z)?", text)


def counted(request: LLMRequest, text: str) -> TokenUsage:
    """Words instead of tokens, marked as an estimate."""
    asked = sum(len(m.content.split()) for m in request.messages)
    return TokenUsage(input=asked, output=len(text.split()), raw={"estimated": True})


def _question(request: LLMRequest) -> str:
    return next((m.content for m in reversed(request.messages) if m.role == "user"), "")


def _seed(request: LLMRequest) -> str | None:
    """What random answers depend on: the number that is the model's name, and the question."""
    return f"{request.model}:{_question(request)}" if request.model.isdecimal() else None


# Text and structure.


async def _answer(request: LLMRequest) -> tuple[str, Any]:
    shape = request.response_format
    if shape is None:
        return _echo(request), None
    problem = "no value fits"
    schema = schema_of(shape)
    values: Iterable[Any] = candidates(schema, _seed(request))
    if is_risky(schema):  # made and checked where it can be ended
        try:
            async with asyncio.timeout(MAKE_S):
                values = await WORKERS.call("dipeo_nb.llm.samples:found", schema, _seed(request))
        except TimeoutError:
            values, problem = (), f"making one up takes longer than {MAKE_S:g} s"
        if values and isinstance(shape, Mapping) and request.phase is not ExecutionPhase.MEMORY_SELECTION:
            (value,) = values  # it was checked there
            return json.dumps(value, ensure_ascii=False), value
    for value in values:
        if request.phase is ExecutionPhase.MEMORY_SELECTION and isinstance(value, dict):
            value = {**cast(dict[str, Any], value), "message_ids": _listed(request)[-REMEMBERED:]}
        try:
            return await made(functools.partial(validated, value, shape), request)
        except ValueError as error:
            problem = str(error)
    raise UnsupportedError(
        f"The echo model cannot make up an answer for '{name_of(shape)}': {problem}.",
        hint="Use dipeo_nb.testing.scripted with an answer of your own, or --model local.",
        provider="echo",
        model=request.model or "echo",
    )


def _echo(request: LLMRequest) -> str:
    person: Any = request.context.get("person") if isinstance(request.context, Mapping) else None
    text = _shortened(_question(request))
    results = "".join(f" | {m.name or 'tool'}: {_shortened(m.content)}" for m in _results(request))
    return f"[{person or 'echo'}] {text}{results}"


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:ECHO_LIMIT]}{'…' if len(text) > ECHO_LIMIT else ''}"


def _listed(request: LLMRequest) -> list[str]:
    text = request.messages[-1].content if request.messages else ""
    return re.findall(r"^- (\S+) \(", text, re.MULTILINE)


# Tools.


def _results(request: LLMRequest) -> Sequence[Any]:
    """What tools answered since the question."""
    last = max((i for i, m in enumerate(request.messages) if m.role == "user"), default=-1)
    return [m for m in request.messages[last + 1 :] if m.role == "tool"]


def _calls(request: LLMRequest) -> Iterator[ToolCall]:
    """The functions that are called: those that the question names, or that have to be, each once for a question."""
    if _results(request) or request.tool_choice == "none":
        return
    question = _question(request)
    tools = [t for t in request.tools if t.type == "function" and t.enabled and t.name]
    named = [t for t in tools if t.name == request.tool_choice]
    if not named:
        # Calls of a tool without a function would be the caller's to answer; a diagram has nobody who does.
        asked = [t for t in tools if re.search(rf"(?<!\w){re.escape(str(t.name))}(?!\w)", question)]
        named = [t for t in asked if t.function is not None] or (tools[:1] if request.tool_choice == "required" else [])
    for number, tool in enumerate(named, start=1):
        yield ToolCall(f"echo_{number}", str(tool.name), _arguments(tool, question, _seed(request)))


def _arguments(tool: ToolConfig, question: str, seed: str | None) -> Mapping[str, Any]:
    """The JSON object after the function's name, else arguments that fit."""
    found = re.search(rf"(?<!\w){re.escape(str(tool.name))}\s*\(?\s*(?=\{{)", question)
    if found:
        try:
            value, _ = json.JSONDecoder().raw_decode(question, found.end())
        except ValueError:
            pass
        else:
            return cast(Mapping[str, Any], value)
    value = sample(tool.parameters or {"type": "object"}, seed)
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def _outputs(request: LLMRequest) -> Iterator[Mapping[str, Any]]:
    """Placeholders of what built-in tools give."""
    kinds = {t.type for t in request.tools if t.enabled}
    if kinds & {"web_search", "web_search_preview"}:
        for number in (1, 2):
            title = f"Placeholder result {number} for: {_shortened(_question(request))[:60]}"
            yield {"type": "citation", "url": f"https://example.com/echo/{number}", "title": title}
    if "image_generation" in kinds:
        data = base64.b64encode(picture(_question(request))).decode()
        yield {"type": "image", "media_type": "image/png", "data": data}


def picture(text: str) -> bytes:
    """A small PNG: two colours in a pattern that depends on the text."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    colours = digest[:3], digest[3:6]
    rows = bytearray()
    for y in range(PICTURE_SIDE):
        rows.append(0)  # no filter
        for x in range(PICTURE_SIDE):
            cell = min(x, PICTURE_SIDE - 1 - x) // 8 + y // 8 * 4  # mirrored, as faces are
            rows += colours[digest[cell] & 1]
    header = struct.pack(">IIBBBBB", PICTURE_SIDE, PICTURE_SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
