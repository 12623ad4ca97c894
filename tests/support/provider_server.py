"""A web server of this machine for the tests of providers: a function answers, every request is kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from dipeo_nb.errors import APIKeyNotFoundError
from dipeo_nb.integrations.attempts import Limits
from dipeo_nb.integrations.http import HTTPClient
from dipeo_nb.integrations.manifest_provider import ManifestProvider, Surroundings
from dipeo_nb.integrations.manifest_reader import read_manifest


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.content.decode()))


@dataclass(frozen=True)
class Reply:
    """An answer. `body` is JSON unless it is bytes; `cut`: the connection breaks in its place."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


class WebServer:
    """Answers with a function of the request."""

    def __init__(self, respond: Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        self.respond = respond
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                address = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                content = self.rfile.read(int(headers.get("content-length") or 0))
                asked = Asked(
                    self.command, unquote(address.path), parse_qs(address.query, keep_blank_values=True), headers, content
                )
                outer.asked.append(asked)
                reply = outer.respond(asked)
                if reply.cut:
                    self.close_connection = True
                    self.connection.close()
                    return
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=lambda: self._http.serve_forever(poll_interval=0.02), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def serving(respond: Callable[[Asked], Reply]) -> Iterator[WebServer]:
    server = WebServer(respond)
    try:
        yield server
    finally:
        server.close()


class Keys:
    """Keys of services, in memory."""

    def __init__(self, **keys: str) -> None:
        self.keys = {name.replace("_", "-"): key for name, key in keys.items()}

    async def get_api_key(self, key_id: str) -> SecretStr:
        name = key_id.lower().replace("_", "-")
        if name not in self.keys:
            raise APIKeyNotFoundError(f"There is no API key for '{key_id}'.", hint="Store it.", variable=None)
        return SecretStr(self.keys[name])

    async def set_api_key(self, key_id: str, key: str) -> None:
        self.keys[key_id] = key

    async def delete_api_key(self, key_id: str) -> None:
        del self.keys[key_id]

    async def list_api_keys(self) -> list[dict[str, Any]]:
        return [{"id": name, "label": name, "service": name.removeprefix("id-of-"), "key": "…"} for name in self.keys]


class FakeClock:
    """A clock that only moves when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return 1_800_000_000.0 + self.time

    def monotonic(self) -> float:
        return self.time

    def new_id(self, prefix: str = "") -> str:
        return f"{prefix}1"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.time += seconds


def provider(
    text: str, tmp_path: Any, keys: Keys | None = None, clock: FakeClock | None = None, **options: Any
) -> ManifestProvider:
    """A provider with the manifest in a text."""
    clock = clock or FakeClock()
    near = Surroundings(
        keys or Keys(demo="demo-key-1234567"), HTTPClient(max_size=200_000), clock, Limits(clock, clock.sleep), tmp_path
    )
    return ManifestProvider(read_manifest(text), near, **options)
