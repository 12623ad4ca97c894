"""What a hostile client of `dipeo-nb serve` tries: one real server, raw requests; each is refused as a client's mistake."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from starlette.requests import Request

from dipeo_nb.common.loop import run_sync
from dipeo_nb.errors import UserError
from dipeo_nb.server.requests import read_body
from tests.support.served import HELLO, Served

CANARY = "canary-7Hq2Lx9Pz4"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    outside = tmp_path_factory.mktemp("outside")
    base = outside / "base"
    base.mkdir()
    (base / "hello.light.yaml").write_text(HELLO)
    (base / ".env").write_text(f"SOME_KEY={CANARY}\n")
    (outside / "secret.light.yaml").write_text(HELLO.replace("Hello {{name}}", CANARY))
    (base / "link.light.yaml").symlink_to(outside / "secret.light.yaml")
    (base / "folder").symlink_to(outside)
    served = Served(base, "--port", "0", DIPEO_LLM_MODE="live")
    yield served
    served.http.close()
    served.process.terminate()
    served.process.communicate(timeout=30)


def ask(
    target: Served, method: str, path: str, *, headers: dict[str, str] | None = None, body: Any = None, host: str | None = None
) -> tuple[int, str]:
    """A request as it is, with the token unless *headers* has another Authorization."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=20)
    sent = {"Authorization": f"Bearer {target.token}", "Host": host or f"127.0.0.1:{target.port}", **(headers or {})}
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    if data is not None:
        sent["Content-Length"] = str(len(data))
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in sent.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(data)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def here(target: Served, text: str) -> str:
    return text.replace("TOKEN", target.token)


TOKENS = (
    "", "Bearer ", "Bearer wrong", "Basic TOKEN", "Bearer TOKENx", "TOKEN TOKEN", "Bearer null",
    "Bearer TOKEN,Bearer x", "Token TOKEN", 'Bearer "TOKEN"', "Bearer " + "x" * 5000, "Bearer \xe4\xf6", "Digest TOKEN",
)  # fmt: skip
ROUTES = (("GET", "/runs"), ("POST", "/runs"), ("GET", "/runs/x"), ("GET", "/runs/x/events"), ("POST", "/runs/x/stop"),
          ("POST", "/runs/x/signal"), ("POST", "/runs/x/answer"))  # fmt: skip
NAMES = (
    "../secret", "../secret.light.yaml", "..\\secret", "folder/secret", "folder/secret.light.yaml", "link", "link.light.yaml",
    "/etc/passwd", "//etc/passwd", "file:///etc/passwd", "http://127.0.0.1/x.light.yaml", "~/x", "$HOME/x", "%2e%2e/secret",
    "..%2fsecret", "．．/secret", "․․/secret", ".env", "./.env", ".dipeo/runs.db", "hello\0.light.yaml", "",
    "x" * 999, "a/" * 500 + "x", "CON", "hello.light.yaml:stream", "\ud800", "/proc/self/environ", "version: light\nnodes: []",
    '{"nodes": []}', "hello\u202e", "....//secret", "*", "?", "[a-z]*", "demo:../x",
)  # fmt: skip
IDS = (
    "x", "../runs", "..%2f..%2fetc", "%00", "x" * 3000, "exec_'; DROP TABLE runs; --", "%ff", "%ed%a0%80", "..", "%2e%2e", "*", "exec_%0d%0aX: y",
)  # fmt: skip
BODIES: tuple[tuple[Any, str], ...] = (
    (b"", "nothing"), (b"{", "cut"), (b"[]", "a list"), (b"null", "null"), (b'"x"', "a text"), (b"\xff\xfe", "no UTF-8"),
    (b"{" * 100_000, "deep"), (b'{"diagram": "hello", "diagram": 1}', "twice"), (b"[" * 50_000 + b"]" * 50_000, "deep list"),
    (b"x" * 2_000_000, "too much"), (b'{"diagram": ["hello"]}', "a list for a name"), (b'{"diagram": {"nodes": []}}', "a diagram"),
    (b'{"diagram": "hello", "trust": true}', "trust"), (b'{"diagram": "hello", "base_dir": "/"}', "another base"),
    (b'{"diagram": "hello", "timeout": NaN}', "NaN"), (b'{"diagram": "hello", "timeout": -1}', "negative"),
    (b'{"diagram": "hello", "inputs": [1]}', "inputs"), (b'{"diagram": "hello", "answers": 1}', "answers"),
    (b'{"diagram": "hello", "model": 5}', "model"), (b'{"diagram": "hello", "settings": {}}', "settings"),
)  # fmt: skip
HOSTS = ("evil.test", "127.0.0.1.evil.test", "localhost.evil.test", "evil.test:80", "[::1].evil.test", "169.254.169.254")
NUMBERS = ("-1", "1.5", "x", "9" * 5000, str(2**63), str(2**64), "٣", "0x10", "1e3", "%00")
METHODS = (("DELETE", "/runs"), ("PUT", "/runs"), ("PATCH", "/runs/x"), ("TRACE", "/runs"), ("GET", "/runs/x/stop"),
           ("DELETE", "/runs/x"), ("OPTIONS", "/runs"), ("CONNECT", "/runs"))  # fmt: skip


def test_the_table_is_long_enough():
    """Fifty at least; each is a test below."""
    assert sum(len({str(case) for case in cases}) for cases in (TOKENS, NAMES, IDS, BODIES, HOSTS, NUMBERS, METHODS)) >= 100


@pytest.mark.parametrize("token", TOKENS, ids=range(len(TOKENS)))
def test_tokens(target: Served, token: str):
    """A token that is not quite the one opens no route; the answer does not say what is there."""
    for method, path in ROUTES:
        status, text = ask(target, method, path, headers={"Authorization": here(target, token)})
        assert status in (400, 401), (method, path)
        assert target.token not in text


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_diagrams(target: Served, name: str):
    """Nothing outside the base directory, nothing with a dot in front, no diagram in the request: a client's mistake each time."""
    status, text = ask(target, "POST", "/runs", body={"diagram": name})
    assert 400 <= status < 500, text
    assert CANARY not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("run_id", IDS, ids=range(len(IDS)))
def test_ids_of_runs(target: Served, run_id: str):
    """Unknown, whatever it is made of."""
    quoted = run_id.replace(" ", "%20").replace("'", "%27")
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/stop"), ("POST", "/answer")):
        status, text = ask(target, method, f"/runs/{quoted}{path}", body={} if method == "POST" else None)
        assert 400 <= status < 500, text


@pytest.mark.parametrize("body", [body for body, _ in BODIES], ids=[name for _, name in BODIES])
def test_bodies(target: Served, body: bytes):
    """What is no order is refused; extra fields grant nothing."""
    status, text = ask(target, "POST", "/runs", body=body, headers={"Content-Type": "application/json"})
    assert 400 <= status < 500 or (status == 201 and b"twice" in body), text


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(target: Served, host: str):
    """A page of another site whose name leads here (DNS rebinding) gets nothing, not even with the token."""
    assert ask(target, "GET", "/runs", host=host)[0] == 400


@pytest.mark.parametrize("number", NUMBERS, ids=range(len(NUMBERS)))
def test_numbers_of_events(target: Served, number: str):
    """No number of an event is an error before the stream begins."""
    run_id = target.start(diagram="hello", inputs={"name": "Bo"})
    status, text = ask(target, "GET", f"/runs/{run_id}/events?after={quote(number, safe='%')}")
    assert status == 400, text


@pytest.mark.parametrize(("method", "path"), METHODS)
def test_methods(target: Served, method: str, path: str):
    """Other methods than those that there are do nothing, and no page elsewhere is allowed to ask (CORS)."""
    status, text = ask(target, method, path, headers={"Origin": "http://evil.test"})
    assert 400 <= status < 500, text


def test_a_client_that_leaves_within_a_body_is_no_defect():
    """Its order is a client's mistake: the server logs no traceback for it."""
    pieces = iter(({"type": "http.request", "body": b'{"dia', "more_body": True}, {"type": "http.disconnect"}))

    async def receive() -> dict[str, Any]:
        return next(pieces)

    request = Request({"type": "http", "method": "POST", "path": "/runs", "headers": []}, receive)
    with pytest.raises(UserError, match="ended before its body did"):
        run_sync(read_body(request))


def test_the_server_lives(target: Served):
    """After all that it works, and what it wrote shows neither the token nor foreign files."""
    run_id = target.start(diagram="hello", inputs={"name": "Bo"})
    assert [frame["event"] for frame in target.events(run_id)][-1] == "execution_completed"
    assert ask(target, "GET", "/health", headers={"Authorization": ""})[0] == 200
