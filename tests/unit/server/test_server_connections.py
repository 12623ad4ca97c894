"""Connections to `dipeo-nb serve` that ask nothing, or do not read, end; others are served meanwhile."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from dipeo_nb.common import server_connections
from tests.support.waiting import wait_until

BIG = 20_000_000
"""Bytes of an answer, more than the system holds for who does not read."""
LIMIT = 0.3
"""Seconds of each limit here."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers `/health` at once, `/refused` without reading, `/big` with much, `/events` never to the end, others after the body."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
    if scope["path"] not in ("/health", "/refused", "/big", "/events"):
        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            pass
        if message["type"] != "http.request":
            return
    await send(start)
    if scope["path"] == "/events":
        await send({"type": "http.response.body", "body": b"event", "more_body": True})
        await receive()
        await receive()
    await send({"type": "http.response.body", "body": b"x" * (BIG if scope["path"] == "/big" else 2)})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("HEAD_S", "BODY_S", "STALLED_S"):
        monkeypatch.setattr(server_connections, name, LIMIT)
    monkeypatch.setattr(server_connections, "CONNECTIONS", 12)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            http=server_connections.protocol(),
            ws="none",
            lifespan="off",
            log_level="critical",
            timeout_keep_alive=1,
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def opened(port: int) -> Iterator[Callable[[bytes], socket.socket]]:
    made: list[socket.socket] = []

    def open_one(sent: bytes) -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", port), timeout=30))
        made[-1].sendall(sent)
        return made[-1]

    yield open_one
    for one in made:
        one.close()


def rest(one: socket.socket) -> bytes:
    """What comes to the end of a connection."""
    found = b""
    try:
        while piece := one.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def asked(path: str, *headers: str) -> bytes:
    return "\r\n".join((f"{'POST' if headers else 'GET'} {path} HTTP/1.1", "Host: x", *headers, "", "")).encode()


LATE: dict[str, bytes] = {
    "nothing": b"",
    "a part of a head": b"GET /health HTTP/1.1\r\nHost: x\r\nX: ",
    "no body": asked("/other", "Content-Length: 100"),
    "a part of a body": asked("/other", "Content-Length: 100") + b"abc",
    "a part of a body in chunks": asked("/other", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n",
    "a second head in part": asked("/health") + b"GET /hea",
    "an answer before the body": asked("/refused", "Content-Length: 100") + b"abc",
}


@pytest.mark.parametrize("kind", LATE)
@pytest.mark.parametrize("drips", [False, True])
def test_a_request_that_does_not_come(opened: Callable[[bytes], socket.socket], kind: str, drips: bool):
    """The limit is for all of it: bytes that come one by one do not begin it anew. What was not answered is told so, as JSON."""
    one = opened(LATE[kind])
    over = threading.Event()

    def drip() -> None:
        while drips and not over.wait(0.05):
            try:
                one.send(b"a" if kind != "a part of a body in chunks" else b"1\r\na\r\n")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        found = rest(one)  # it ends
    finally:
        over.set()
        thread.join()
    answers = found.count(b"HTTP/1.1 ")
    if b" 408 " in found:
        told = json.loads(found[found.rindex(b'{"error"') :])
        assert "did not come in time" in told["error"]["message"]
    expected = 2 if kind == "a second head in part" else 1
    assert answers >= expected if drips else answers == expected  # bytes that drip may become a request that is none


def test_every_kind_is_tried():
    assert len(LATE) == 7


def test_a_body_that_comes_slowly_but_comes(opened: Callable[[bytes], socket.socket], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_connections, "BODY_RATE", 1)
    one = opened(asked("/other", "Content-Length: 40", "Connection: close"))
    for _ in range(40):
        one.send(b"x")
        threading.Event().wait(0.02)
    assert b" 200 " in rest(one)


def test_who_does_not_read_is_left(opened: Callable[[bytes], socket.socket], port: int):
    """Nothing is kept for it; others are served. Who reads slowly gets everything."""
    deaf = opened(asked("/big"))
    slow = opened(asked("/big", "Connection: close").replace(b"POST", b"GET"))
    length = 0
    while piece := slow.recv(1_000_000):
        length += len(piece)
    assert length > BIG
    assert b" 200 " in opened(asked("/health")).recv(100)
    threading.Event().wait(LIMIT)
    wait_until(lambda: server_side(port) == 0)
    assert len(rest(deaf)) < BIG


def server_side(port: int) -> int:
    """Connections that the server has open with something unsent, or being served."""
    import psutil

    mine = psutil.Process().net_connections("tcp")
    return sum(c.laddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in mine)


def test_a_full_server_serves_those_who_ask(opened: Callable[[bytes], socket.socket], monkeypatch: pytest.MonkeyPatch):
    """Who asks nothing makes room, the longest first; when all others are being answered, a new one is refused."""
    followers = [opened(asked("/events")) for _ in range(10)]
    assert all(b" 200 " in one.recv(100) for one in followers)
    for _ in range(5):
        waiting = [opened(b"") for _ in range(4)]
        assert b" 200 " in opened(asked("/health", "Connection: close").replace(b"POST", b"GET")).recv(100)
        assert waiting
    more = [opened(asked("/events")) for _ in range(2)]
    assert all(b" 200 " in one.recv(100) for one in more)
    refused = rest(opened(b""))
    assert b" 503 " in refused
    assert "as many connections" in json.loads(refused[refused.index(b"{") :])["error"]["message"]
    followers[0].close()
    wait_until(lambda: b" 200 " in opened(asked("/health")).recv(100))


def test_what_is_no_http(opened: Callable[[bytes], socket.socket]):
    answer = rest(opened(b"GARBAGE\r\n\r\n"))
    assert b" 400 " in answer
    assert json.loads(answer[answer.index(b"{") :])["error"]["message"]


def test_fewer_where_few_files_may_be_open(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 4096))
    assert server_connections.connections() == 50
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert server_connections.connections() == server_connections.CONNECTIONS == 500
