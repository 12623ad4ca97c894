"""A loopback server that says, byte for byte, what a test tells it to: for the cases no real server offers on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Exchange:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Any


class Reply:
    """Writes one answer; `lost` is set when the client hung up meanwhile."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler
        self.lost = False

    def json(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.send_header("Content-Length", str(len(data)))
        self._handler.end_headers()
        self._handler.wfile.write(data)

    def stream(self, events: Iterator[Any], *, delay: float = 0.0) -> None:
        """Server-sent events; the connection is closed at their end."""
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "text/event-stream")
        self._handler.send_header("Connection", "close")
        self._handler.end_headers()
        try:
            for event in events:
                if delay:
                    time.sleep(delay)
                text = event if isinstance(event, str) else f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
                self._handler.wfile.write(text.encode())
                self._handler.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.lost = True


@dataclass
class Wire:
    """The running server."""

    url: str
    requests: list[Exchange] = field(default_factory=list[Exchange])
    replies: list[Reply] = field(default_factory=list[Reply])
    connections: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])


@contextmanager
def serve(*scripts: Callable[[Reply, Exchange], None]) -> Iterator[Wire]:
    """Answer the first request by the first script and so on; the last one serves all further requests."""
    wire = Wire("")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            exchange = Exchange(self.path, dict(self.headers), json.loads(raw) if raw else None)
            reply = Reply(self)
            with lock:
                number = len(wire.requests)
                wire.requests.append(exchange)
                wire.replies.append(reply)
                wire.connections.add(self.client_address)
            scripts[min(number, len(scripts) - 1)](reply, exchange)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    wire.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def openai_response(text: str, *, status: str = "completed", **more: Any) -> dict[str, Any]:
    """A Responses API object as OpenAI sends it, a reasoning item first."""
    return {
        "id": "resp_1", "object": "response", "created_at": 0, "status": status, "model": "gpt-5-nano-2025-08-07",
        "output": [
            {"id": "rs_1", "type": "reasoning", "summary": []},
            {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": text, "annotations": []}]},
        ],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None, "incomplete_details": None,
        "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 60},
                  "output_tokens": 30, "output_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 130},
        **more,
    }  # fmt: skip


def openai_events(*words: str, final: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer."""
    response = final or openai_response("".join(words))
    yield {
        "type": "response.created",
        "sequence_number": 0,
        "response": {**response, "status": "in_progress", "output": []},
    }
    for n, word in enumerate(words, start=1):
        yield {"type": "response.output_text.delta", "sequence_number": n, "item_id": "msg_1", "output_index": 1,
               "content_index": 0, "delta": word, "logprobs": []}  # fmt: skip
    kind = {"incomplete": "response.incomplete", "failed": "response.failed"}.get(response["status"], "response.completed")
    yield {"type": kind, "sequence_number": len(words) + 1, "response": response}


def answers(*words: str, delay: float = 0.0, final: dict[str, Any] | None = None) -> Callable[[Reply, Exchange], None]:
    """A script that streams these words."""
    return lambda reply, request: reply.stream(openai_events(*words, final=final), delay=delay)


def refuses(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Callable[[Reply, Exchange], None]:
    """A script that answers with an error."""
    body = {"error": {"message": message, "type": "error", "code": code}}
    return lambda reply, request: reply.json(status, body, **headers)
