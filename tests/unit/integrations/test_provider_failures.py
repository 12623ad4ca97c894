"""What a server of a provider may do wrong on the wire and in its words: one typed error each, nothing sent twice, nothing kept waiting."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.errors import (
    DipeoError,
    IntegrationError,
    ProviderAuthError,
    ProviderNotFoundError,
    ProviderRateLimitError,
    ProviderRejectedError,
    ProviderUnavailableError,
    UnknownOutcomeError,
)
from dipeo_nb.integrations.limits import wait_asked
from dipeo_nb.integrations.manifest_provider import Call
from dipeo_nb.testing import scripted
from tests.support.provider_server import Reply, provider, serving
from tests.support.wire_openai import run

MANIFEST = """
name: demo
base_url: {url}
operations:
  read: {{path: /x}}
  create: {{method: POST, path: /x, body: {{a: 1}}}}
  strict: {{path: /x, result: /found, schema: {{type: array, items: {{type: integer}}}}}}
"""


@contextmanager
def raw(*pieces: bytes, repeat: int = 1) -> Iterator[tuple[str, list[int]]]:
    """A server that answers each connection with these bytes and closes it; the bytes that it sent to each."""
    sent: list[int] = []

    def answer(connection: socket.socket) -> None:
        sent.append(0)
        number = len(sent) - 1
        with connection:
            connection.recv(65_536)
            try:
                for piece in (*pieces[:1], *pieces[1:] * repeat):
                    connection.sendall(piece)
                    sent[number] += len(piece)
            except OSError:
                return  # the client has had enough

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", sent
        listener.shutdown(socket.SHUT_RDWR)


def call(url: str, tmp_path: Path, operation: str = "read", **options: Any) -> Any:
    return run(provider(MANIFEST.format(url=url), tmp_path).execute(operation, Call(stamp="run:node:1", **options)))


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("operation", "kind", "connections"), [("read", ProviderUnavailableError, 4), ("create", UnknownOutcomeError, 1)]
)
@pytest.mark.parametrize(
    "half",
    [HEAD + b'Content-Length: 100\r\n\r\n{"a": ', HEAD + b'Transfer-Encoding: chunked\r\n\r\n20\r\n{"a":', b"HTTP/1.1 2"],
)
def test_half_an_answer(tmp_path: Path, half: bytes, operation: str, kind: type[DipeoError], connections: int):
    """It is none: reading is tried again, what must happen once is not."""
    with raw(half) as (url, sent):
        with pytest.raises(kind) as caught:
            call(url, tmp_path, operation)
        assert len(sent) == connections
    assert caught.value.hint


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00",
        HEAD + b"X: " + b"a" * 300_000 + b"\r\n\r\n{}",
    ],
)
def test_what_is_no_answer_of_a_web_server(tmp_path: Path, answer: bytes):
    with raw(answer) as (url, _), pytest.raises(IntegrationError) as caught:
        call(url, tmp_path, max_retries=0)
    assert caught.value.hint


def test_a_hundred_megabytes(tmp_path: Path):
    """The connection is closed at the limit (here 200,000 bytes); the rest is never read."""
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, repeat=100) as (url, sent):
        with pytest.raises(IntegrationError, match="more than 200,000 bytes"):
            call(url, tmp_path)
        assert len(sent) == 1
    assert sent[0] < 30_000_000


@pytest.mark.parametrize(
    "body", [b"[" * 150_000, b'{"a": "\xff\xfe"}', b'{"a": NaN', b"\xef\xbb\xbf[", b'{"a": 1} trailing', b"1" * 100_000]
)
def test_json_that_is_none(tmp_path: Path, body: bytes):
    """Malformed, too deep, in no encoding: an error or a value, never an exception of a library."""
    with serving(lambda asked: Reply(body)) as server:
        try:
            call(server.url, tmp_path)
        except IntegrationError as error:
            assert error.hint  # noqa: PT017 - either is right
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [({"found": ["x"]}, "answers with what does not fit: 'x' is not of type 'integer'"), ({"found": "many"}, "does not fit"),
     ({"other": []}, "answers without /found"), ([], "answers without /found")],
)  # fmt: skip
def test_a_result_that_is_not_what_the_manifest_says(tmp_path: Path, body: Any, says: str):
    with serving(lambda asked: Reply(body)) as server, pytest.raises(ProviderRejectedError, match=says) as caught:
        call(server.url, tmp_path, "strict")
    assert "The provider has changed" in str(caught.value.hint)


@pytest.mark.parametrize("asked", ["inf", "nan", "-5", "1e400", "9" * 400, "soon", "", "Sun, 99 Foo 2026 99:99:99 GMT"])
@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset"])
def test_a_time_that_is_none(tmp_path: Path, asked: str, name: str):
    """A server that names an impossible pause gets an ordinary one, or the call ends."""
    headers = {name: asked, "x-ratelimit-remaining": "0"}
    found = wait_asked(429, headers, 1_800_000_000.0)
    assert found is None or 0 <= found < float("inf")
    with serving(lambda asked: Reply(None, 429, headers)) as server:
        with pytest.raises(ProviderRateLimitError):
            call(server.url, tmp_path)
        assert 1 <= len(server.asked) <= 4


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("invalid_auth", ProviderAuthError, "dipeo-nb keys set slack"),
        ("token_expired", ProviderAuthError, "Renew the token"),
        ("token_revoked", ProviderAuthError, "Install the app again"),
        ("missing_scope", ProviderAuthError, "The key needs: chat:write"),
        ("channel_not_found", ProviderNotFoundError, "Give the id of the channel"),
        ("not_in_channel", ProviderRejectedError, "/invite"),
        ("msg_too_long", ProviderRejectedError, "40,000"),
        pytest.param("ratelimited", ProviderRateLimitError, "ask less often", marks=pytest.mark.slow),  # waits and tries again
        ("fatal_error", ProviderUnavailableError, "later"),
        ("something_new", ProviderRejectedError, "something_new"),
    ],
)
def test_what_slack_says_in_an_answer_of_200(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[IntegrationError], says: str
):
    """Slack reports errors within successful answers: kind and next step are by its code."""
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-test-token-12345")
    with serving(lambda asked: Reply({"ok": False, "error": code})) as server, dp.Session(tmp_path, llm=scripted()) as session:
        session.provider("slack", base_url=server.url)
        with pytest.raises(kind) as caught:
            session.call("slack.send_message", channel="C1", text="x", max_retries=0).result()
    assert says in str(caught.value)
    assert "xoxb-test" not in str(caught.value) + repr(caught.value.facts)
