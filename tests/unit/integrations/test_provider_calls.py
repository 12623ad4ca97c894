"""Calls of providers on the wire: what is sent, repetition by effect, limits, pages, authorisation, and everything a server may do wrong."""

from __future__ import annotations

import asyncio
import base64
import logging
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.redaction import redactor
from dipeo_nb.errors import (
    ConfigurationError,
    DipeoError,
    IntegrationError,
    ProviderAuthError,
    ProviderNotFoundError,
    ProviderRateLimitError,
    ProviderRejectedError,
    ProviderUnavailableError,
    UnknownOutcomeError,
    ValidationError,
)
from dipeo_nb.integrations.manifest_provider import Call
from tests.support.provider_server import Asked, FakeClock, Keys, Reply, WebServer, provider, serving
from tests.support.wire_openai import run

KEY = "demo-key-1234567"
DEMO = """
name: demo
base_url: {url}/api
auth: {auth}
errors:
  - {{code: /code, message: /message, hints: {{no_such_room: "Ask for another room."}}}}
operations:
  read: {{path: /items, parameters: {{q: {{}}, n: {{type: integer}}}}, query: {{q: "{{{{ q }}}}", n: "{{{{ n }}}}"}}}}
  replace: {{method: PUT, path: "/items/{{id}}", parameters: {{id: {{required: true}}}}, body: {{id: "{{{{ id }}}}"}}}}
  pay:
    method: POST
    path: /payments
    effect: keyed
    parameters: {{amount: {{type: number, required: true}}}}
    body: {{amount: "{{{{ amount }}}}"}}
  post:
    method: POST
    path: /messages
    parameters: {{text: {{required: true}}}}
    body: {{text: "{{{{ text }}}}", mark: "{{{{ stamp }}}}"}}
    find: {{operation: messages, pointer: /mark}}
  create:
    method: POST
    path: /rooms
    parameters: {{name: {{required: true}}}}
    body: {{name: "{{{{ name }}}}"}}
  messages: {{path: /messages, result: /list}}
  header: {{path: /h, parameters: {{v: {{}}}}, headers: {{X-V: "{{{{ v }}}}"}}}}
"""


def demo(server: WebServer, tmp_path: Path, auth: str = "{kind: bearer}", **options: Any) -> Any:
    return provider(DEMO.format(url=server.url, auth=auth), tmp_path, **options)


def call(one: Any, operation: str, call: Call | None = None, **parameters: Any) -> Any:
    return run(one.execute(operation, call or Call(parameters, stamp="run:node:1")))


def test_what_is_sent(tmp_path: Path):
    """Values keep their types, what is not given is left out, and nothing in a value is a template."""
    hostile = 'q"uote\nline {{ stamp }} {% raw %} \\ 😀 </script>'
    with serving(lambda asked: Reply({"ok": 1})) as server:
        one = demo(server, tmp_path)
        assert call(one, "read", q=hostile, n=3) == {"ok": 1}
        assert call(one, "post", text=hostile) == {"ok": 1}
        call(one, "replace", id="a/b?c#d")
        call(one, "read")
    read, post, replace, bare = server.asked
    assert (read.method, read.path, read.query) == ("GET", "/api/items", {"q": [hostile], "n": ["3"]})
    assert post.json == {"text": hostile, "mark": "run:node:1"}
    assert replace.path == "/api/items/a/b?c#d"  # one segment on the wire, decoded by the server
    assert bare.query == {}
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "says"),
    [
        (401, {"code": "bad_key", "message": "no"}, {}, ProviderAuthError, "bad_key: no. Check the key"),
        (403, {"message": "scope"}, {}, ProviderAuthError, "403"),
        (404, {"code": "no_such_room"}, {}, ProviderNotFoundError, "Ask for another room."),
        (422, {"code": "invalid", "message": f"with {KEY} in it"}, {}, ProviderRejectedError, "[hidden]"),
        (429, {"code": "slow"}, {"retry-after": "120"}, ProviderRateLimitError, "Wait 120 s"),
        (500, {"message": "boom"}, {}, ProviderUnavailableError, "boom"),
        (502, b"<h1>Bad gateway of the proxy</h1>", {"content-type": "text/html"}, ProviderUnavailableError, "Bad gateway of the proxy"),
        (200, b"<html>login</html>", {"content-type": "text/html"}, ProviderRejectedError, "text/html, not JSON"),
        (200, b"{" + b" " * 300_000 + b"}", {}, IntegrationError, "more than 200,000 bytes"),
        (302, b"", {"location": "http://other.example/x"}, IntegrationError, "none of its servers"),
        (302, b"", {"location": "http://localhost:1/x"}, IntegrationError, "none of its servers"),
    ],
)  # fmt: skip
def test_one_typed_error_with_the_next_action(
    tmp_path: Path, status: int, body: Any, headers: dict[str, str], kind: type[DipeoError], says: str
):
    with serving(lambda asked: Reply(body, status, headers)) as server, pytest.raises(kind) as caught:
        call(demo(server, tmp_path), "read", Call(max_retries=0))
    assert says in str(caught.value)
    assert caught.value.hint
    assert KEY not in repr(caught.value) + str(caught.value.facts)


TABLE: list[tuple[str, list[Reply], int, Any]] = [
    # operation, answers, requests, result or error
    ("read", [Reply(cut=True), Reply({"ok": 1})], 2, {"ok": 1}),
    ("read", [Reply(None, 503)] * 9, 4, ProviderUnavailableError),
    ("read", [Reply(None, 500), Reply(None, 502), Reply({"ok": 1})], 3, {"ok": 1}),
    ("read", [Reply(None, 400)], 1, ProviderRejectedError),
    ("replace", [Reply(cut=True), Reply({"ok": 1})], 2, {"ok": 1}),
    ("pay", [Reply(cut=True), Reply({"ok": 1})], 2, {"ok": 1}),
    ("create", [Reply(cut=True)], 1, UnknownOutcomeError),
    ("create", [Reply(None, 503)], 1, UnknownOutcomeError),
    ("create", [Reply(None, 429, {"retry-after": "2"}), Reply({"ok": 1})], 2, {"ok": 1}),
    ("create", [Reply(None, 429), Reply({"ok": 1})], 2, {"ok": 1}),
    ("create", [Reply(None, 409)], 1, ProviderRejectedError),
]


@pytest.mark.parametrize(("operation", "replies", "requests", "expected"), TABLE)
def test_what_is_sent_again(tmp_path: Path, operation: str, replies: list[Reply], requests: int, expected: Any):
    """By effect: what must not be done twice is sent again only when it was certainly not done."""
    given = {"replace": {"id": "1"}, "pay": {"amount": 5}, "create": {"name": "x"}}.get(operation, {})
    left = list(replies)
    with serving(lambda asked: left.pop(0)) as server:
        one = demo(server, tmp_path)
        if isinstance(expected, type):
            with pytest.raises(expected):
                call(one, operation, **given)
        else:
            assert call(one, operation, **given) == expected
        assert len(server.asked) == requests
        keys = {asked.headers.get("idempotency-key") for asked in server.asked}
        assert keys == ({"run:node:1"} if operation == "pay" else {None})


def test_nothing_listens_so_it_is_tried_again(tmp_path: Path):
    """Nothing was sent, so even what must happen once is tried again."""
    with serving(lambda asked: Reply()) as server:
        one = demo(server, tmp_path)
    clock = one._surroundings.clock
    with pytest.raises(ProviderUnavailableError, match="cannot be reached"):
        call(one, "create", name="x")
    assert len(clock.slept) == 3


class Chat:
    """Keeps messages; breaks the connection of the first posts, before or after it has kept them."""

    def __init__(self, *cuts: str) -> None:
        self.cuts = list(cuts)
        self.messages: list[dict[str, Any]] = []

    def __call__(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            return Reply({"list": self.messages})
        cut = self.cuts.pop(0) if self.cuts else ""
        if cut != "before":
            self.messages.append(asked.json)
        return Reply(cut=True) if cut else Reply(asked.json)


@pytest.mark.parametrize("cuts", [("after",), ("before",), ("before", "after"), ("before", "before", "after")])
def test_a_message_arrives_exactly_once(tmp_path: Path, cuts: tuple[str, ...]):
    """When the connection breaks, what was sent is looked for, and sent again only when it is not there."""
    chat = Chat(*cuts)
    with serving(chat) as server:
        assert call(demo(server, tmp_path), "post", text="hi")["mark"] == "run:node:1"
    assert chat.messages == [{"text": "hi", "mark": "run:node:1"}]


@pytest.mark.parametrize("arrived", [True, False])
def test_a_message_arrives_exactly_once_over_the_end_of_a_process(tmp_path: Path, arrived: bool):
    """A second process with the same work looks first."""
    chat = Chat()
    with serving(chat) as server:
        if arrived:
            call(demo(server, tmp_path), "post", text="hi")
        again = Call({"text": "hi"}, stamp="run:node:1", repeated=True)
        assert call(demo(server, tmp_path), "post", again)["text"] == "hi"
        with pytest.raises(UnknownOutcomeError, match="before this run was cut off"):
            call(demo(server, tmp_path), "create", Call({"name": "x"}, stamp="run:node:2", repeated=True))
    assert len(chat.messages) == 1


def test_after_a_refusal_the_node_may_try_again(tmp_path: Path):
    """What was refused was not done: the next attempt of the same node sends it."""
    replies = [Reply(None, 400), Reply({"ok": 1})]
    with serving(lambda asked: replies.pop(0)) as server:
        one = demo(server, tmp_path)
        with pytest.raises(ProviderRejectedError):
            call(one, "create", Call({"name": "x"}, stamp="s"))
        assert call(one, "create", Call({"name": "x"}, stamp="s", repeated=True)) == {"ok": 1}


def test_a_search_that_fails_leaves_the_outcome_unknown(tmp_path: Path):
    with serving(lambda asked: Reply(None, 403) if asked.method == "GET" else Reply(cut=True)) as server:
        with pytest.raises(UnknownOutcomeError, match="Looking for it failed, too"):
            call(demo(server, tmp_path), "post", text="hi")
        assert [asked.method for asked in server.asked] == ["POST", "GET"]


# Parameters.


@pytest.mark.parametrize(
    ("operation", "parameters", "says"),
    [
        ("reed", {}, "Did you mean 'read'?"),
        ("read", {"nn": 3}, "Did you mean 'n'?"),
        ("read", {"n": "3"}, "n does not fit"),
        ("read", {"n": True}, "n does not fit"),
        ("replace", {}, "needs the parameter 'id'"),
        ("replace", {"id": ".."}, "cannot stand in the path"),
        ("replace", {"id": ""}, "cannot stand in the path"),
        ("header", {"v": "a\r\nX-Evil: 1"}, "header X-V has characters"),
        ("header", {"v": "é"}, "header X-V has characters"),
    ],
)
def test_bad_parameters_send_nothing(tmp_path: Path, operation: str, parameters: dict[str, Any], says: str):
    with serving(lambda asked: Reply({})) as server:
        with pytest.raises(DipeoError) as caught:
            call(demo(server, tmp_path), operation, **parameters)
        assert says in str(caught.value)
        assert server.asked == []


# Authorisation.


@pytest.mark.parametrize(
    ("auth", "key", "where", "value"),
    [
        ("{kind: none}", "", "authorization", None),
        ("{kind: bearer, optional: true}", "", "authorization", None),
        ("{kind: bearer}", KEY, "authorization", f"Bearer {KEY}"),
        ("{kind: header, name: X-Key}", KEY, "x-key", KEY),
        ("{kind: header, name: Authorization, prefix: 'Bot '}", KEY, "authorization", f"Bot {KEY}"),
        ("{kind: basic}", "ada:pass-word-1", "authorization", "Basic " + base64.b64encode(b"ada:pass-word-1").decode()),
        ("{kind: basic, user: ada}", "pass-word-1", "authorization", "Basic " + base64.b64encode(b"ada:pass-word-1").decode()),
        ("{kind: query, name: key}", KEY, "?key", KEY),
    ],
)
def test_each_kind_of_authorisation(tmp_path: Path, auth: str, key: str, where: str, value: str | None):
    with serving(lambda asked: Reply({})) as server:
        one = demo(server, tmp_path, auth, keys=Keys(**({"demo": key} if key else {})))
        call(one, "read", q="x")
        shown = str(one.preview("read", {"q": "x"}))
    asked = server.asked[0]
    found = asked.query.get(where[1:], [None])[0] if where.startswith("?") else asked.headers.get(where)
    assert found == value
    assert not key or (key not in shown and key.rpartition(":")[2] not in shown)


def test_without_a_key_nothing_is_sent(tmp_path: Path):
    with serving(lambda asked: Reply({})) as server:
        with pytest.raises(DipeoError, match=r"demo needs a key\. Store it: dipeo-nb keys set demo\."):
            call(demo(server, tmp_path, keys=Keys()), "read")
        with pytest.raises(ConfigurationError, match="user:password"):
            call(demo(server, tmp_path, "{kind: basic}"), "read")
        assert server.asked == []


def test_the_key_of_another_service_is_not_sent(tmp_path: Path):
    keys = Keys(demo=KEY, openai="sk-other-123456789012", id_of_demo="second-key-12345")
    with serving(lambda asked: Reply({})) as server:
        one = demo(server, tmp_path, keys=keys)
        with pytest.raises(ValidationError, match="another service"):
            call(one, "read", Call(key_id="openai"))
        call(one, "read", Call(key_id="id-of-demo"))
        assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer second-key-12345"]


def test_a_token_is_issued_once_for_ten_calls_and_again_when_it_is_refused(tmp_path: Path):
    issued: list[dict[str, str]] = []

    def respond(asked: Asked) -> Reply:
        if asked.path == "/token":
            issued.append(asked.form)
            return Reply({"access_token": f"token-number-{len(issued)}", "expires_in": 3600})
        return (
            Reply({}, 401)
            if asked.headers["authorization"] == "Bearer token-number-1" and len(server.asked) > 12
            else Reply({"n": 1})
        )

    with serving(respond) as server:
        one = demo(
            server,
            tmp_path,
            f"{{kind: client_credentials, token_url: '{server.url}/token', scopes: [a, b]}}",
            keys=Keys(demo="me:my-secret-123"),
        )

        async def ten() -> None:
            await asyncio.gather(*(one.execute("read", Call({})) for _ in range(10)))

        run(ten())
        assert len(issued) == 1
        assert issued[0] == {
            "grant_type": "client_credentials",
            "client_id": "me",
            "client_secret": "my-secret-123",
            "scope": "a b",
        }
        for _ in range(3):
            call(one, "read")
        assert len(issued) == 2


def test_a_refresh_token_is_used_once_by_two_processes(tmp_path: Path):
    """Agreement with PKCE, then renewal: the new token is stored before it is used, and the other process takes that."""
    seen: list[dict[str, str]] = []

    def respond(asked: Asked) -> Reply:
        if asked.path != "/token":
            return Reply({"as": asked.headers["authorization"]})
        seen.append(asked.form)
        if asked.form["grant_type"] == "refresh_token" and asked.form["refresh_token"] != f"refresh-{len(seen) - 1}":
            return Reply({"error": "invalid_grant"}, 400)
        return Reply({"access_token": f"access-token-{len(seen)}", "refresh_token": f"refresh-{len(seen)}", "expires_in": 100})

    keys, clock = Keys(demo="client-id:client-secret"), FakeClock()
    with serving(respond) as server:
        auth = f"{{kind: oauth2_code, token_url: '{server.url}/token', authorize_url: 'https://demo.example/allow', scopes: [read]}}"
        one, other = (demo(server, tmp_path, auth, keys=keys, clock=clock) for _ in range(2))
        with pytest.raises(DipeoError, match="providers authorize demo"):
            call(one, "read")
        consent = run(one.authorizer.consent())
        with pytest.raises(ValidationError):
            run(one.authorizer.complete(consent, "http://localhost/callback?code=c&state=forged"))
        run(one.authorizer.complete(consent, f"http://localhost/callback?code=the-code-1&state={consent.state}"))
        assert call(one, "read") == {"as": "Bearer access-token-1"} == call(other, "read")
        clock.time += 90
        assert call(one, "read") == {"as": "Bearer access-token-2"} == call(other, "read")
        assert [form["grant_type"] for form in seen] == ["authorization_code", "refresh_token"]
        assert seen[0]["code_verifier"] == consent.verifier
        assert consent.verifier not in consent.url


def test_no_secret_in_logs_errors_or_previews(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with serving(lambda asked: Reply({"message": f"your header was {asked.headers['authorization']}"}, 400)) as server:
        one = demo(server, tmp_path)
        with pytest.raises(ProviderRejectedError) as caught:
            call(one, "create", name="x")
        preview = one.preview("create", {"name": "x"})
    assert KEY not in caplog.text + str(caught.value) + str(preview)
    assert preview["headers"]["Authorization"] == "Bearer …"
    assert preview["body"] == {"name": "x"}
    assert redactor.text(KEY) == "[hidden]"


@pytest.mark.parametrize("base", ["http://api.example.com", "http://93.184.216.34/x"])
def test_a_key_is_not_sent_without_encryption(tmp_path: Path, base: str):
    with serving(lambda asked: Reply({})) as server, pytest.raises(ConfigurationError, match="without encryption"):
        call(demo(server, tmp_path, given={"base_url": base}), "read")


# Limits.


def test_the_servers_limits_win(tmp_path: Path):
    """Remaining 0 closes the provider until its reset, without asking it; a short wait is made."""
    clock = FakeClock()
    replies = [
        Reply({}, 200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(clock.now()) + 5)}),
        Reply({}, 200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(clock.now()) + 3600)}),
    ]
    with serving(lambda asked: replies.pop(0)) as server:
        one = demo(server, tmp_path, clock=clock)
        call(one, "read")
        call(one, "read")
        assert clock.slept == [5.0]
        with pytest.raises(ProviderRateLimitError, match="takes no call for 3595 s") as caught:
            call(one, "read")
        assert caught.value.retry_after == pytest.approx(3595)
        assert len(server.asked) == 2
