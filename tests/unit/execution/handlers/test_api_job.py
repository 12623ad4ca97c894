"""api_job: real HTTP against a server of this machine."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import DipeoError, IntegrationError, NodeExecutionError, NodeTimeoutError, ValidationError
from dipeo_nb.integrations.http import HTTPClient
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.api_server import Server
from tests.support.provider_server import FakeClock
from tests.support.single_node import run_node
from tests.support.wire_openai import run as run_async


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts are noted, not made: the clock of the client moves on instead."""
    clock = FakeClock()
    monkeypatch.setattr(clock, "now", time.time)  # what servers say in dates
    monkeypatch.setattr("dipeo_nb.integrations.http.TIME", clock)
    return clock.slept


def test_what_is_sent(tmp_path: Path, server: Server):
    """Templates everywhere, params in the query, the body as JSON, a key that makes repeating harmless."""
    server.answers = [(201, {}, b'{"id": 7}')]
    props = {
        "url": server.url + "/users/{{user}}",
        "method": "POST",
        "headers": {"X-Trace": "t-{{user}}"},
        "params": {"page": 2, "tag": ["a", "b"], "none": None},
        "body": {"name": "{{user}}", "n": 3, "list": ["{{user}}"]},
    }
    done = run_node(tmp_path, "api_job", props, {"user": 'Ada "L"'})
    assert done.output == {"id": 7}
    (asked,) = server.asked
    assert asked["method"] == "POST"
    assert asked["query"] == {"page": ["2"], "tag": ["a", "b"]}
    assert json.loads(asked["body"]) == {"name": 'Ada "L"', "n": 3, "list": ['Ada "L"']}
    assert asked["headers"]["x-trace"] == 't-Ada "L"'
    assert asked["headers"]["idempotency-key"].startswith(done.id)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_methods(tmp_path: Path, server: Server, method: str):
    """Params reach the query with each of them; GET sends no body."""
    run_node(tmp_path, "api_job", {"url": server.url, "method": method, "params": {"a": 1}, "body": "plain"})
    (asked,) = server.asked
    assert (asked["method"], asked["query"]) == (method, {"a": ["1"]})
    assert asked["body"] == ("" if method == "GET" else "plain")


def test_inputs_take_the_place_of_fields(tmp_path: Path, server: Server):
    """Arrows labelled url, headers, params and body; JSON text is tolerated in the fields."""
    inputs = {"url": server.url + "/in", "params": {"q": "x"}, "headers": {"X-A": 1}, "body": [1, 2]}
    diagram = {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "Work", "type": "api_job", "props": {"url": "http://0.0.0.0/", "method": "PUT"}},
            *({"label": n, "type": "code_job", "props": {"code": f"return {v!r}"}} for n, v in inputs.items()),
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [
            *({"from": "Start", "to": n} for n in inputs),
            *({"from": n, "to": "Work", "label": n, "content_type": "generic"} for n in inputs),
            {"from": "Work", "to": "End"},
        ],
    }
    with Session(tmp_path, llm=scripted()) as dp:
        dp.run(diagram, view=False)
    (asked,) = server.asked
    assert (asked["path"], asked["query"], asked["body"].replace(" ", "")) == ("/in", {"q": ["x"]}, "[1,2]")
    assert asked["headers"]["x-a"] == "1"
    run_node(tmp_path, "api_job", {"url": server.url, "headers": '{"X-B": "b"}', "params": '{"p": 1}'})
    assert server.asked[-1]["headers"]["x-b"] == "b"


@pytest.mark.parametrize(
    ("kind", "config", "header", "value"),
    [
        ("bearer", {"token": "{{token}}"}, "authorization", "Bearer canary-0123456789abcdef"),
        ("api_key", {"key_value": "{{token}}"}, "x-api-key", "canary-0123456789abcdef"),
        ("api_key", {"key_name": "X-K", "key_value": "{{token}}"}, "x-k", "canary-0123456789abcdef"),
        (
            "basic", {"username": "ada", "password": "{{token}}"}, "authorization",
            "Basic " + base64.b64encode(b"ada:canary-0123456789abcdef").decode(),
        ),
        ("none", {}, "authorization", None),
    ],
)  # fmt: skip
def test_credentials(tmp_path: Path, server: Server, kind: str, config: Any, header: str, value: str | None):
    """They reach the server and nothing that is recorded."""
    server.answers = [(200, {}, b'{"echo": "canary-0123456789abcdef"}')]
    props = {"url": server.url, "auth_type": kind, "auth_config": config}
    done = run_node(tmp_path, "api_job", props, {"token": "canary-0123456789abcdef"})
    assert server.asked[0]["headers"].get(header) == value
    if value:
        assert "canary" not in json.dumps([e.payload for e in done.events], default=str)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_failures_are_asked_for_again(tmp_path: Path, server: Server, status: int, no_waiting: list[float]):
    """Up to three times, doubling the pause, with the same idempotency key."""
    server.answers = [(status, {}, b"busy"), (status, {}, b"busy"), (status, {}, b"busy"), (200, {}, b"[1]")]
    done = run_node(tmp_path, "api_job", {"url": server.url, "method": "POST"})
    assert done.output == [1]
    assert no_waiting == [1, 2, 4]
    assert len({a["headers"]["idempotency-key"] for a in server.asked}) == 1
    server.answers = [(status, {}, b"busy")]
    with pytest.raises(IntegrationError, match=rf"answers {status}: busy") as caught:
        run_node(tmp_path, "api_job", {"url": server.url, "method": "POST"})
    assert (caught.value.status, caught.value.facts["attempts"]) == (status, 4)


def test_the_server_says_how_long_to_wait(tmp_path: Path, server: Server, no_waiting: list[float]):
    """Retry-After in seconds or as a date, a minute at most."""
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 20))
    server.answers = [
        (429, {"retry-after": "7"}, b""), (503, {"retry-after": "9999"}, b""), (503, {"retry-after": soon}, b""),
        (200, {}, b"1"),
    ]  # fmt: skip
    assert run_node(tmp_path, "api_job", {"url": server.url}).output == 1
    assert no_waiting[:2] == [7, 60]
    assert 10 < no_waiting[2] <= 20


@pytest.mark.parametrize("zone", ["-0000", ""])
def test_a_date_without_a_zone_is_in_utc(tmp_path: Path, server: Server, no_waiting: list[float], zone: str):
    """`-0000` says that the zone is not known (RFC 5322)."""
    soon = time.strftime(f"%a, %d %b %Y %H:%M:%S {zone}", time.gmtime(time.time() + 20))
    server.answers = [(503, {"retry-after": soon}, b""), (200, {}, b"1")]
    assert run_node(tmp_path, "api_job", {"url": server.url}).output == 1
    assert 10 < no_waiting[0] <= 20


def test_a_limit_holds_for_all_who_call_with_that_key(tmp_path: Path, server: Server, no_waiting: list[float]):
    """What a server asks for is kept by the next node as well; another path and another key have their own limit."""
    server.answers = [(200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}, b"1"), (200, {}, b"2")]
    nodes = [{"label": n, "type": "api_job", "props": {"url": server.url + path, "headers": {"X-Key": key}}}
             for n, path, key in (("A", "/x", "one-key-12345"), ("B", "/y", "one-key-12345"), ("C", "/x", "other-key-12345"),
                                  ("D", "/x", "one-key-12345"))]  # fmt: skip
    labels = ["Start", "A", "B", "C", "D", "End"]
    diagram = {
        "version": "light",
        "nodes": [{"label": "Start", "type": "start"}, *nodes, {"label": "End", "type": "endpoint"}],
        "connections": [{"from": a, "to": b} for a, b in itertools.pairwise(labels)],
    }
    with Session(tmp_path, llm=scripted()) as dp:
        dp.run(diagram, view=False)
    assert len(server.asked) == 4
    assert [round(seconds) for seconds in no_waiting] == [9]


def test_broken_connections(tmp_path: Path, server: Server):
    """What can be repeated without harm is; what cannot is not."""
    server.answers = [(0, {}, b""), (200, {}, b"1")]
    assert run_node(tmp_path, "api_job", {"url": server.url}).output == 1
    server.answers = [(0, {}, b""), (200, {}, b"1")]
    with pytest.raises(IntegrationError, match="broke the connection"):
        run_node(tmp_path, "api_job", {"url": server.url, "method": "POST"})


@pytest.mark.parametrize(
    ("props", "kind", "words"),
    [
        ({}, NodeExecutionError, "has no `url`"),
        ({"url": "ftp://x/y"}, ValidationError, "not an address of a web server"),
        ({"url": "/relative"}, ValidationError, "not an address of a web server"),
        ({"url": "http://[::1"}, ValidationError, "not an address"),
        ({"url": "http://h/\x00"}, ValidationError, "at position 9. Write it whole"),
        ({"url": "file:///etc/passwd"}, ValidationError, "not an address of a web server"),
        ({"url": "http://127.0.0.1:9/"}, IntegrationError, "cannot be reached"),
        ({"url": "URL", "headers": "[1]"}, NodeExecutionError, "`headers` is list, not a mapping"),
        ({"url": "URL", "params": "{"}, NodeExecutionError, "`params` is not JSON"),
        ({"url": "URL", "auth_type": "bearer"}, NodeExecutionError, "needs auth_config.token"),
        ({"url": "URL", "auth_type": "basic"}, NodeExecutionError, "needs auth_config.username"),
        ({"url": "URL", "auth_type": "api_key"}, NodeExecutionError, "needs auth_config.key_value"),
    ],
)
def test_bad_input(tmp_path: Path, server: Server, props: dict[str, Any], kind: type[DipeoError], words: str):
    """One error that says what to do."""
    props = {**props, **({"url": server.url} if props.get("url") == "URL" else {})}
    with pytest.raises(kind, match=words.replace("[", r"\[").replace("(", r"\(")) as caught:
        run_node(tmp_path, "api_job", props)
    assert caught.value.hint
    assert server.asked == []


def test_answers_that_are_no_success(tmp_path: Path, server: Server):
    """Status and the beginning of the answer; the query, where keys hide, is not told. An arrow from `error` gets it."""
    server.answers = [(404, {}, b'{"detail": "no such user"}')]
    props = {"url": server.url + "/u?key=canary0123456789"}
    with pytest.raises(IntegrationError, match=r"answers 404: .*no such user") as caught:
        run_node(tmp_path, "api_job", props)
    assert "canary" not in str(caught.value)
    done = run_node(tmp_path, "api_job", props, error_arrow=True)
    assert done.outputs["Failed"]["status"] == 404
    assert "End" not in done.outputs


def test_text_and_size(tmp_path: Path, server: Server):
    """What is no JSON is text in its own encoding; an answer has a limit."""
    server.answers = [(200, {"content-type": "text/plain; charset=latin-1"}, "é".encode("latin-1"))]
    assert run_node(tmp_path, "api_job", {"url": server.url}).output == "é"
    server.answers = [(200, {}, b"x" * 20_000)]
    with pytest.raises(IntegrationError, match="more than 10,000 bytes"):
        run_node(tmp_path, "api_job", {"url": server.url}, http=HTTPClient(max_size=10_000))


def test_redirects_do_not_carry_credentials_elsewhere(server: Server):
    """A server that sends us to another one does not get to hand it our authorisation."""
    other = Server()
    try:
        server.answers = [(302, {"location": other.url + "/there"}, b"")]
        headers = {"Authorization": "Bearer canary"}
        answer = run_async(HTTPClient().request("GET", server.url, headers=headers))
        assert answer.url == other.url + "/there"
        assert "authorization" not in other.asked[0]["headers"]
    finally:
        other.http.shutdown()
        other.http.server_close()


def test_late_answers(tmp_path: Path):
    """A server that does not answer is given up after the node's `timeout`."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(NodeTimeoutError, match=r"limit of 0.2 s"):
            run_node(tmp_path, "api_job", {"url": url, "method": "POST", "timeout": 0.2})
        with pytest.raises(IntegrationError, match=r"did not answer within 0.2 s"):
            run_async(HTTPClient().request("POST", url, timeout=0.2))
