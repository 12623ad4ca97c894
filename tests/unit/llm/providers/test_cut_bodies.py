"""Answers that end in the middle, in every way a connection can end: streams, answers that come whole, files of batches."""

from __future__ import annotations

import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import SecretStr

from dipeo_nb.domain.chat import Budget, ChatMessage, LLMRequest, LLMResponse
from dipeo_nb.errors import LLMConnectionError, LLMError, ProviderError
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.retry import transient
from dipeo_nb.llm.core.types import AdapterConfig
from tests.support import recorded_streams as recorded
from tests.support import wire_anthropic as anthropic
from tests.support import wire_google as google
from tests.support import wire_ollama as ollama
from tests.support import wire_openai as openai
from tests.support.loopback_providers import FAST, WIRES, Wire, through_service
from tests.support.wire_openai import Call, Reply, ScriptedServer, run, settings_with

# How a body ends: (call, its content type, what is sent of it, how long it was to be).


def _head(call: Call, kind: str, **headers: str) -> None:
    call.headers(200, content_type=kind, connection="close", **headers)


def _write(call: Call, data: bytes) -> None:
    call._handler.wfile.write(data)
    call._handler.wfile.flush()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _before_its_length(call: Call, kind: str, data: bytes, whole: int) -> None:
    _head(call, kind, content_length=str(whole))
    _write(call, data)


def _in_a_chunk(call: Call, kind: str, data: bytes, whole: int) -> None:
    _head(call, kind, transfer_encoding="chunked")
    _write(call, b"%x\r\n%s" % (whole, data))


def _after_a_chunk(call: Call, kind: str, data: bytes, whole: int) -> None:
    _head(call, kind, transfer_encoding="chunked")
    _write(call, _chunk(data))


def _in_the_size_of_a_chunk(call: Call, kind: str, data: bytes, whole: int) -> None:
    _after_a_chunk(call, kind, data, whole)
    _write(call, b"1f")


def _with_a_chunk_that_is_none(call: Call, kind: str, data: bytes, whole: int) -> None:
    _after_a_chunk(call, kind, data, whole)
    _write(call, b"<html>\r\n")


def _by_a_reset(call: Call, kind: str, data: bytes, whole: int) -> None:
    _before_its_length(call, kind, data, whole)
    time.sleep(0.05)  # a reset discards what was not read yet
    call._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    call._handler.connection.close()


def _packed(call: Call, kind: str, data: bytes, whole: int) -> None:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    packed = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
    _head(call, kind, content_encoding="gzip", transfer_encoding="chunked")
    _write(call, _chunk(packed))


def _without_a_word(call: Call, kind: str, data: bytes, whole: int) -> None:
    _head(call, kind)
    _write(call, data)


Cut = Callable[[Call, str, bytes, int], None]
REPORTED: Mapping[str, Cut] = {
    "before its length": _before_its_length,
    "in a chunk": _in_a_chunk,
    "after a chunk": _after_a_chunk,
    "in the size of a chunk": _in_the_size_of_a_chunk,
    "with a chunk that is none": _with_a_chunk_that_is_none,
    "by a reset": _by_a_reset,
    "packed": _packed,
}
"""Ends that HTTP tells from those of whole bodies."""
CUTS: Mapping[str, Cut] = {**REPORTED, "without a word": _without_a_word}
assert len(CUTS) == 8

EVENTS, LINES, JSON = "text/event-stream", "application/x-ndjson", "application/json"
MESSAGE = {**anthropic.start()["message"], "content": [{"type": "text", "text": "Hello world"}], "stop_reason": "end_turn"}
STREAMED: Mapping[str, tuple[str, str, str]] = {
    "openai": (
        EVENTS,
        "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in [openai.delta("Hello "), openai.delta("world")]),
        f"data: {json.dumps(openai.final(openai.message('Hello world')))}\n\n",
    ),
    "anthropic": (EVENTS, anthropic.body([anthropic.start(), *anthropic.text("Hello world")]), anthropic.body(anthropic.end())),
    "gemini": (
        EVENTS,
        google.body([google.chunk(google.text("Hello ")), google.chunk(google.text("world"))]),
        google.body([google.chunk(finish="STOP")]),
    ),
    "ollama": (
        LINES,
        "".join(json.dumps(part) + "\n" for part in (ollama.chunk("Hello "), ollama.chunk("world"))),
        json.dumps(ollama.end()) + "\n",
    ),
}
"""Content type, the text, and the end of a stream."""
WHOLE: Mapping[str, Any] = {
    "openai": openai.final(openai.message("Hello world"))["response"],
    "anthropic": MESSAGE,
    "gemini": google.chunk(google.text("Hello world"), finish="STOP"),
    "ollama": {**ollama.end(), **ollama.chunk("Hello world"), "done": True},
}


@pytest.fixture(params=WIRES, ids=lambda wire: wire.service)
def wire(request: pytest.FixtureRequest) -> Wire:
    return request.param


def _cut(how: Cut, kind: str, sent: str, whole: str) -> Reply:
    return lambda call: how(call, kind, sent.encode(), len(whole.encode()))


PLACES = (
    *((name, "between events") for name in CUTS),
    *((name, "in an event") for name in ("in a chunk", "without a word")),
    *((name, "after its end") for name in ("before its length", "after a chunk", "by a reset")),
)


@pytest.mark.parametrize(("name", "where"), PLACES)
def test_a_stream_that_is_cut(wire: Wire, name: str, where: str):
    """What had arrived is shown, and the rest asked for anew; whatever comes after the end of an answer is no fault of it."""
    kind, text, end = STREAMED[wire.service]
    sent = text + {"between events": "", "in an event": end[: len(end) // 2], "after its end": end}[where]
    budget = Budget(tokens=100_000)
    with ScriptedServer(*wire.script(_cut(CUTS[name], kind, sent, text + end + " " * 500), wire.says("Again."))) as server:
        events, answer = through_service(server, wire, budget=budget)
        asked = len(wire.asked(server))
    assert isinstance(answer, LLMResponse)
    kinds = [event.kind for event in events]
    before = events[: kinds.index("stream_restarted")] if "stream_restarted" in kinds else events
    assert "".join(event.text for event in before if event.kind == "text") == "Hello world"
    if where == "after its end":
        assert (answer.text, asked) == ("Hello world", 1)
    else:
        assert (answer.text, asked) == ("Again.", 2)
        assert kinds.count("error") == kinds.count("stream_restarted") == 1


@pytest.mark.parametrize("how", [_after_a_chunk, _without_a_word])
def test_a_stream_that_is_always_cut(wire: Wire, how: Cut):
    """The error is that of a connection; all tries were made; what arrived last is there for the reader."""
    kind, text, end = STREAMED[wire.service]
    with ScriptedServer(*wire.script(_cut(how, kind, text, text + end))) as server:
        events, error = through_service(server, wire)
        asked = len(wire.asked(server))
    assert isinstance(error, LLMConnectionError)
    assert asked == FAST.max_attempts
    last = len(events) - [event.kind for event in events][::-1].index("stream_restarted")
    assert "".join(event.text for event in events[last:] if event.kind == "text") == "Hello world"


@pytest.mark.parametrize("how", [_before_its_length, _in_a_chunk, _packed, _without_a_word])
def test_an_answer_in_one_piece_that_is_cut(wire: Wire, how: Cut):
    """Nothing of it can be used. Where HTTP says that it is not all, it is asked for again; else it is no JSON."""
    kind = LINES if wire.service == "ollama" else JSON
    whole = json.dumps(WHOLE[wire.service]) + "\n"
    with ScriptedServer(*wire.script(_cut(how, kind, whole[: len(whole) // 2], whole), wire.says("Again."))) as server:
        events, answer = through_service(server, wire)
    if how in REPORTED.values():
        assert isinstance(answer, LLMResponse)
        assert answer.text == "Again."
    else:
        assert isinstance(answer, (LLMResponse, LLMConnectionError, ProviderError))
    assert "Hello" not in "".join(event.text for event in events if event.kind == "text")


BATCHES = ("openai", "anthropic", "gemini")


def _job(service: str, results: Reply) -> tuple[Reply, bytes]:
    """A batch whose answers are sent by *results*, and these answers."""
    lines = {"openai": recorded.OPENAI_BATCH, "anthropic": recorded.ANTHROPIC_BATCH, "gemini": recorded.GOOGLE_BATCH}[service]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    if service == "gemini":
        listed = {"inlinedResponses": {"inlinedResponses": [*lines]}}
        return results, json.dumps(
            {"name": "batches/b", "metadata": {"state": "BATCH_STATE_SUCCEEDED", "output": listed}}
        ).encode()

    def reply(call: Call) -> None:
        if call.seen.path.endswith(("/content", "/results")):
            results(call)
        elif service == "openai":
            call.json(200, {"id": "b", "object": "batch", "status": "completed", "output_file_id": "f", "error_file_id": None})
        else:
            counts = {"succeeded": 2, "errored": 1, "canceled": 0, "expired": 0, "processing": 0}
            url = f"http://{call.seen.headers['host']}/v1/messages/batches/b/results"
            call.json(
                200,
                {
                    "id": "b",
                    "type": "message_batch",
                    "processing_status": "ended",
                    "request_counts": counts,
                    "results_url": url,
                },
            )

    return reply, data


@pytest.mark.parametrize("how", REPORTED.values(), ids=REPORTED)
@pytest.mark.parametrize("service", BATCHES)
def test_the_answers_of_a_batch_that_are_cut(service: str, how: Cut):
    """It is an error that may pass, rather than answers that are missing: they are paid for, and there for another try."""
    sent: list[Cut] = [how]

    def results(call: Call) -> None:
        kind = JSON if service == "gemini" else "application/x-jsonl"
        if sent:
            sent.pop()(call, kind, data[: len(data) * 2 // 3], len(data))
        else:
            _head(call, kind, content_length=str(len(data)))
            _write(call, data)

    reply, data = _job(service, results)
    wire = next(wire for wire in WIRES if wire.service == service)
    asked = LLMRequest(service, wire.model, (ChatMessage("user", "Hi"),))

    async def go(server: ScriptedServer) -> tuple[LLMError, dict[str, Any]]:
        url = server.url if service == "openai" else server.url.removesuffix("/v1")
        name = "batches/b" if service == "gemini" else "b"
        config = AdapterConfig(provider_type=service, base_url=url, api_key=SecretStr("sk-x"))
        client: Any = providers.create(config, settings_with())
        try:
            with pytest.raises(LLMError) as caught:
                await client.batch_results(name, dict.fromkeys("abc", asked))
            return caught.value, await client.batch_results(name, dict.fromkeys("abc", asked))
        finally:
            await client.cleanup()

    with ScriptedServer(reply) as server:
        error, found = run(go(server))
    assert transient(error)
    assert [type(found[name]) is LLMResponse for name in "abc"] == [True, False, True]
