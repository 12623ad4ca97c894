"""Tokens of users (OAuth) with refresh tokens that work once: several processes, kills, stops and a provider that does not answer."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import ConfigurationError, IntegrationError, ProviderAuthError, ProviderUnavailableError
from dipeo_nb.integrations.manifest_provider import Call
from dipeo_nb.integrations.tokens import Token, packed, unpacked
from dipeo_nb.security.keys import APIKeyService
from dipeo_nb.security.keystore import KeyFile
from tests.support.provider_server import Asked, Keys, Reply, WebServer, provider, serving
from tests.support.waiting import until
from tests.support.wire_openai import run

MANIFEST = """
name: demo
base_url: {url}/api
auth: {{kind: oauth2_code, token_url: "{url}/token", authorize_url: "https://demo.example/allow"}}
operations: {{read: {{path: /me}}}}
"""
OLD = Token("old-access-token", 1.0, "refresh-token-0")
PROCESS = """
import sys
from pathlib import Path
from dipeo_nb.errors import DipeoError
from dipeo_nb.integrations.manifest_provider import Call
from dipeo_nb.security.keys import APIKeyService
from dipeo_nb.security.keystore import KeyFile
from tests.support.provider_server import provider
from tests.support.wire_openai import run
folder = Path(sys.argv[1])
one = provider((folder / "demo.yaml").read_text(), folder, keys=APIKeyService(stores=[KeyFile(folder / "keys.json")]))
print("begins", flush=True)
try:
    print(run(one.execute("read", Call())), flush=True)
except DipeoError as error:
    print(error, flush=True)
"""


class Issuer:
    """Issues tokens as Notion does: a refresh token works once, and one that comes again ends everything."""

    def __init__(self, *, rotates: bool = True) -> None:
        self.valid, self.issued, self.reused = "refresh-token-0", 0, 0
        self.rotates = rotates
        self.answers = threading.Event()
        self.answers.set()
        self.reached = threading.Event()
        self.instead: list[Reply] = []
        """Answers that issue nothing."""

    def __call__(self, asked: Asked) -> Reply:
        if asked.path != "/token":
            return Reply({"as": asked.headers["authorization"]})
        if self.instead:
            return self.instead.pop(0)
        if asked.form["refresh_token"] != self.valid:
            self.reused += 1
            return Reply({"error": "invalid_grant", "error_description": "used"}, 400)
        self.issued += 1
        token = {"access_token": f"access-token-{self.issued}", "expires_in": 3600}
        if self.rotates:
            self.valid = token["refresh_token"] = f"refresh-token-{self.issued}"
        self.reached.set()
        self.answers.wait(30)
        return Reply(token)


def keys_in(folder: Path, server: WebServer, token: Token = OLD) -> APIKeyService:
    """The stored keys of a user who agreed some time ago."""
    keys = APIKeyService(stores=[KeyFile(folder / "keys.json")])
    run(keys.set_api_key("demo", "client-id:client-secret"))
    run(keys.set_api_key("demo-oauth", packed(token)))
    (folder / "demo.yaml").write_text(MANIFEST.format(url=server.url))
    return keys


def made(folder: Path, keys: Any) -> Any:
    return provider((folder / "demo.yaml").read_text(), folder, keys=keys)


def stored(keys: Any) -> Token:
    return unpacked(run(keys.get_api_key("demo-oauth")).get_secret_value())


Child = Callable[..., "subprocess.Popen[str]"]


def test_four_processes_renew_once(tmp_path: Path, child: Child):
    """They find the same expired token at the same time; one asks, and all use what it got."""
    issuer = Issuer()
    issuer.answers.clear()
    with serving(issuer) as server:
        keys = keys_in(tmp_path, server)
        processes = [child(PROCESS, str(tmp_path)) for _ in range(4)]
        assert all(process.stdout is not None and process.stdout.readline() == "begins\n" for process in processes)
        assert issuer.reached.wait(30)
        issuer.answers.set()
        said = [process.communicate(timeout=60)[0] for process in processes]
    assert said == ["{'as': 'Bearer access-token-1'}\n"] * 4
    assert (issuer.issued, issuer.reused) == (1, 0)
    assert stored(keys).refresh == "refresh-token-1"


def test_a_process_that_is_killed_before_it_saves(tmp_path: Path, child: Child):
    """kill -9 after the provider has issued the token: nobody sends the old one again, and the error says what to do."""
    issuer = Issuer()
    issuer.answers.clear()
    with serving(issuer) as server:
        keys = keys_in(tmp_path, server)
        process = child(PROCESS, str(tmp_path))
        assert issuer.reached.wait(60)
        process.kill()
        process.wait()
        issuer.answers.set()
        for _ in range(2):
            with pytest.raises(ProviderAuthError, match=r"cut off.*dipeo-nb providers authorize demo"):
                run(made(tmp_path, keys).execute("read", Call()))
        assert (issuer.issued, issuer.reused) == (1, 0)
        consent = Token("new-access-token", 0.0, "refresh-token-9")
        run(made(tmp_path, keys).authorizer._stored.store("demo-oauth", consent))
        assert run(made(tmp_path, keys).execute("read", Call())) == {"as": "Bearer new-access-token"}


def test_a_provider_that_lets_refresh_tokens_be(tmp_path: Path, child: Child):
    """Once it is known that a refresh token works any number of times, a killed process costs nobody's consent."""
    issuer = Issuer(rotates=False)
    with serving(issuer) as server:
        keys = keys_in(tmp_path, server)
        assert run(made(tmp_path, keys).execute("read", Call())) == {"as": "Bearer access-token-1"}
        run(keys.set_api_key("demo-oauth", packed(Token("x", 1.0, "refresh-token-0", stored(keys).state))))
        issuer.answers.clear()
        issuer.reached.clear()
        process = child(PROCESS, str(tmp_path))
        assert issuer.reached.wait(60)
        process.kill()
        process.wait()
        issuer.answers.set()
        assert run(made(tmp_path, keys).execute("read", Call())) == {"as": "Bearer access-token-3"}


def test_a_stop_does_not_lose_the_token(tmp_path: Path):
    """The one who waits for the renewal is cancelled; the renewal itself is brought to its end and stored."""
    issuer = Issuer()
    issuer.answers.clear()

    async def stopped(one: Any) -> None:
        call = asyncio.create_task(one.execute("read", Call()))
        await until(issuer.reached.is_set)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        issuer.answers.set()
        async with asyncio.timeout(40):
            while unpacked((await keys.get_api_key("demo-oauth")).get_secret_value()).refresh != "refresh-token-1":
                await asyncio.sleep(0.01)

    with serving(issuer) as server:
        keys = keys_in(tmp_path, server)
        run(stopped(made(tmp_path, keys)))
        assert run(made(tmp_path, keys).execute("read", Call())) == {"as": "Bearer access-token-1"}
    assert (issuer.issued, issuer.reused) == (1, 0)


@pytest.mark.parametrize(
    ("reply", "kind", "again"),
    [
        (Reply(None, 503), ProviderUnavailableError, True),
        (Reply(None, 429), ProviderUnavailableError, True),
        (Reply({"error": "invalid_client"}, 401), ProviderAuthError, True),
        (Reply(b"<html>", 200, {"content-type": "text/html"}), ProviderAuthError, True),
        (Reply({"error": "invalid_grant"}, 400), ProviderAuthError, False),
        (Reply(cut=True), IntegrationError, False),
    ],
)
def test_an_answer_without_a_token(tmp_path: Path, reply: Reply, kind: type[IntegrationError], again: bool):
    """What the provider refused is tried again later; what it may have done, or says is over, is not."""
    issuer = Issuer()
    issuer.instead = [reply]
    with serving(issuer) as server:
        keys = keys_in(tmp_path, server)
        one = made(tmp_path, keys)
        with pytest.raises(kind) as caught:
            run(one.execute("read", Call()))
        assert "refresh-token-0" not in repr(caught.value) + str(caught.value.facts)
        if again:
            assert run(one.execute("read", Call())) == {"as": "Bearer access-token-1"}
        else:
            with pytest.raises(ProviderAuthError, match="providers authorize demo"):
                run(one.execute("read", Call()))
            assert len(server.asked) == 1


def test_nothing_is_sent_while_something_is_missing(tmp_path: Path):
    """Nobody listens at the token endpoint, or the client id is not stored: afterwards the token works as before."""
    issuer = Issuer()
    with serving(issuer) as server:
        keys = Keys(demo_oauth=packed(OLD))
        (tmp_path / "demo.yaml").write_text(MANIFEST.format(url=server.url))
        with pytest.raises(ConfigurationError, match="needs a client id"):
            run(made(tmp_path, keys).execute("read", Call()))
        run(keys.set_api_key("demo", "client-id:client-secret"))
        assert run(made(tmp_path, keys).execute("read", Call())) == {"as": "Bearer access-token-1"}
        run(keys.set_api_key("demo-oauth", packed(Token("x", 1.0, "refresh-token-1"))))
        (tmp_path / "demo.yaml").write_text(MANIFEST.format(url="http://127.0.0.1:9"))
        with pytest.raises(IntegrationError, match="cannot be reached"):
            run(made(tmp_path, keys).execute("read", Call()))
        (tmp_path / "demo.yaml").write_text(MANIFEST.format(url=server.url))
        assert run(made(tmp_path, keys).execute("read", Call())) == {"as": "Bearer access-token-2"}


def test_two_accounts_have_tokens_of_their_own(tmp_path: Path):
    """Each key that a node names is renewed by itself."""
    issuer = Issuer()
    with serving(issuer) as server:
        (tmp_path / "demo.yaml").write_text(MANIFEST.format(url=server.url))
        fresh = packed(Token("second-access-token", 0.0, "other"))
        keys = APIKeyService(stores=[KeyFile(tmp_path / "keys.json")])
        run(keys.set_api_key("demo", "client-id:client-secret"))
        run(keys.set_api_key("demo-oauth", packed(OLD)))
        second = run(keys.create_api_key("second", "demo-oauth", fresh))["id"]
        one = made(tmp_path, keys)
        assert run(one.execute("read", Call())) == {"as": "Bearer access-token-1"}
        assert run(one.execute("read", Call(key_id=second))) == {"as": "Bearer second-access-token"}
        assert run(one.execute("read", Call())) == {"as": "Bearer access-token-1"}
