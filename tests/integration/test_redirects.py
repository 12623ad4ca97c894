"""Redirects and addresses: what another server gets, and which servers are called at all. Real servers of this machine."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.addresses import is_private, names_this_network, origin_of
from dipeo_nb.errors import DipeoError, IntegrationError, NodeTimeoutError, ValidationError
from dipeo_nb.integrations import checked_transport
from dipeo_nb.integrations.http import HTTPClient
from tests.support.api_server import Server
from tests.support.single_node import run_node
from tests.support.wire_openai import run as run_async

CANARY = "canary7Hq2Lx9Pz4"
CLIENT = HTTPClient()
CREDENTIALS = {
    "Authorization": f"Bearer {CANARY}",
    "Proxy-Authorization": f"Basic {CANARY}",
    "X-API-Key": CANARY,
    "api-key": CANARY,
    "Private-Token": CANARY,
    "x-goog-api-key": CANARY,
    "Cookie": f"session={CANARY}",
    "X-Anything-At-All": CANARY,
}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Server, Server]]:
    pair = Server(), Server()
    yield pair
    for server in pair:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def servers(running: tuple[Server, Server]) -> tuple[Server, Server]:
    """Two that have not been asked yet."""
    for server in running:
        server.answers, server.asked[:] = [(200, {}, b"{}")], []
    return running


def ask(method: str, url: str, **more: Any) -> Any:
    return run_async(CLIENT.request(method, url, max_retries=0, **more))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PUT"])
def test_another_server_gets_no_credentials_and_no_body(servers: tuple[Server, Server], status: int, method: str):
    """Every header of the node but a few stays, however it is called; so does Basic authorisation. What still has a body after
    the redirect is an error that names the other server."""
    first, other = servers
    first.answers = [(status, {"location": f"{other.url}/there?page=2"}, b"")]
    body = {} if method in ("GET", "DELETE") else {"json": {"secret": CANARY}}
    headers = {**CREDENTIALS, "Accept": "text/x", "User-Agent": "mine"}
    keeps_body = body and not (status == 303 or (status in (301, 302) and method == "POST"))
    if keeps_body:
        with pytest.raises(IntegrationError, match="not sent on to another server") as caught:
            ask(method, first.url, headers=headers, **body)
        assert other.url in str(caught.value.hint)
        assert other.asked == []
        return
    assert ask(method, first.url, headers=headers, auth=("me", CANARY), **body).status == 200
    (asked,) = other.asked
    assert CANARY not in json.dumps(asked)
    assert "authorization" not in asked["headers"]
    assert (asked["headers"]["accept"], asked["headers"]["user-agent"]) == ("text/x", "mine")
    assert (asked["path"], asked["query"], asked["body"]) == ("/there", {"page": ["2"]}, "")
    assert asked["method"] == ("GET" if status == 303 or (status in (301, 302) and method == "POST") else method)
    assert CANARY in json.dumps(first.asked)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_same_server_keeps_them(servers: tuple[Server, Server], status: int):
    """On the same server a redirect changes nothing but the address, and the method where HTTP says so."""
    first, _ = servers
    first.answers = [(status, {"location": "/there"}, b""), (200, {}, b"1")]
    ask("POST", f"{first.url}/here", headers=CREDENTIALS, json={"a": 1})
    asked = first.asked[-1]
    assert asked["headers"]["x-api-key"] == CANARY
    assert (asked["method"], asked["body"]) == (("POST", '{"a":1}') if status > 303 else ("GET", ""))


@pytest.mark.parametrize("name", ["api_key", "key", "token", "access_token", "sig", "X-Amz-Signature", "client_secret"])
def test_credentials_in_the_query_are_not_carried_on(servers: tuple[Server, Server], name: str):
    """A server that repeats the query in its redirect does not hand the key on; the rest of the query goes."""
    first, other = servers
    first.answers = [(302, {"location": f"{other.url}/x?a=1&{name}={CANARY}&again={CANARY}"}, b"")]
    ask("GET", first.url, params={name: CANARY, "a": 1})
    assert CANARY not in json.dumps(other.asked)
    assert other.asked[0]["query"] == {"a": ["1"]}


def test_user_and_password_of_an_address_stay(servers: tuple[Server, Server]):
    """Neither those of the first address nor ones in the redirect's address are sent to another server."""
    first, other = servers
    port = other.http.server_port
    first.answers = [(302, {"location": f"http://u:{CANARY}x@127.0.0.1:{port}/"}, b"")]
    ask("GET", f"http://me:{CANARY}@127.0.0.1:{first.http.server_port}/")
    assert "authorization" in first.asked[0]["headers"]
    assert "authorization" not in other.asked[0]["headers"]


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://x/", "data:text/plain,x", "javascript:1", "http://[bad"],
)
def test_redirects_to_what_is_no_web_server(servers: tuple[Server, Server], location: str):
    """One error that names the first address without its query; nothing of the kind is opened."""
    servers[0].answers = [(302, {"location": location}, b"")]
    with pytest.raises(IntegrationError, match=r"not an address of a web server|cannot be reached") as caught:
        ask("GET", f"{servers[0].url}/?key={CANARY}")
    assert CANARY not in str(caught.value)


def test_too_many_redirects(servers: tuple[Server, Server]):
    """Ten are followed, and no more."""
    first, other = servers
    first.answers = [(302, {"location": other.url}, b"")]
    other.answers = [(302, {"location": first.url}, b"")]
    with pytest.raises(IntegrationError, match="more than 10 times"):
        ask("GET", first.url)
    assert len(first.asked) + len(other.asked) == 11


def test_by_a_node(tmp_path: Path, servers: tuple[Server, Server]):
    """The same by api_job and hook, with the credentials that they make."""
    first, other = servers
    first.answers = [(307, {"location": other.url}, b"")]
    for config in (
        {"auth_type": "api_key", "auth_config": {"key_value": CANARY}},
        {"auth_type": "api_key", "auth_config": {"key_name": "Ocp-Apim-Subscription-Key", "key_value": CANARY}},
        {"auth_type": "bearer", "auth_config": {"token": CANARY}},
        {"auth_type": "basic", "auth_config": {"username": "me", "password": CANARY}},
        {"headers": {"X-Mine": CANARY}},
        {"params": {"api_key": CANARY}},
    ):
        run_node(tmp_path, "api_job", {"url": first.url, **config})
    run_node(
        tmp_path, "hook", {"hook_type": "http", "url": first.url, "config": {"method": "GET", "headers": {"X-Mine": CANARY}}}
    )
    assert len(other.asked) == 7
    assert CANARY not in json.dumps(other.asked)
    with pytest.raises(DipeoError, match="not sent on"):
        run_node(tmp_path, "hook", {"hook_type": "http", "url": first.url, "config": {"body": CANARY}})


# ------------------------------------------------------------------------------------------- which servers


def test_only_allowed_servers_are_called(servers: tuple[Server, Server]):
    """Also by a redirect; the error says which server it was and how to allow it."""
    first, other = servers
    first.answers = [(302, {"location": f"{other.url}/x"}, b"")]
    with pytest.raises(IntegrationError, match="redirects to") as caught:
        ask("GET", first.url, allowed={first.url}.__contains__)
    assert (caught.value.facts["cause"], caught.value.facts["wanted"]) == ("not_granted", f"net={other.url}")
    assert other.asked == []
    with pytest.raises(IntegrationError, match="is to be called"):
        ask("GET", other.url, allowed={first.url}.__contains__)
    assert other.asked == []
    assert ask("GET", first.url, allowed={first.url, other.url}.__contains__).status == 200


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Name → its addresses, for the resolver of the loop."""
    table: dict[str, list[str]] = {}
    real = asyncio.BaseEventLoop.getaddrinfo

    async def getaddrinfo(self: Any, host: Any, port: Any, **more: Any) -> Any:
        if host in table:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in table[host]]
        return await real(self, host, port, **more)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return table


def test_a_name_that_leads_to_this_machine(servers: tuple[Server, Server], names: dict[str, list[str]]):
    """A listed name that resolves to this machine or its network is refused; openly named, it is called; the user's own
    diagrams call what they name."""
    first, _ = servers
    port = first.http.server_port
    names["evil.test"] = ["127.0.0.1"]
    for address in ("127.0.0.1", "10.0.0.5", "169.254.169.254", "192.168.1.1", "0.0.0.0", "100.64.0.1", "172.16.0.1"):
        names["evil.test"] = [address]
        with pytest.raises(IntegrationError, match="this machine or its network") as caught:
            ask("GET", f"http://evil.test:{port}/", allowed=lambda origin: True)
        assert caught.value.facts["cause"] == "not_granted"
    assert first.asked == []
    for host in ("localhost", "127.0.0.1"):
        assert ask("GET", f"http://{host}:{port}/", allowed=lambda origin: True).status == 200
    names["evil.test"] = ["127.0.0.1"]
    assert ask("GET", f"http://evil.test:{port}/").status == 200
    assert first.asked[-1]["headers"]["host"] == f"evil.test:{port}"


def test_the_checked_address_is_the_one_that_is_called(servers: tuple[Server, Server], names: dict[str, list[str]]):
    """A name is resolved once for each request: one that leads elsewhere the second time gains nothing."""
    first, _ = servers
    asked: list[str] = []

    class Flips(list[str]):
        def __iter__(self) -> Iterator[str]:
            asked.append("")
            return iter(["127.0.0.1"] if len(asked) == 1 else ["203.0.113.1"])

    names["flips.test"] = Flips()
    assert ask("GET", f"http://flips.test:{first.http.server_port}/").status == 200
    assert len(asked) == 1


def test_the_internet_does_not_redirect_into_the_private_network(
    servers: tuple[Server, Server], names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
):
    """Not even for the user's own diagrams: a server out there may not choose a port of this machine."""
    first, other = servers
    names["public.test"] = ["127.0.0.1"]
    names["internal.test"] = ["127.0.0.1"]
    public = iter([False, True])  # the first server is out there, the second is not
    monkeypatch.setattr(checked_transport, "is_private", lambda address: next(public))
    first.answers = [(302, {"location": f"http://internal.test:{other.http.server_port}/"}, b"")]
    with pytest.raises(IntegrationError, match="A redirect leads to") as caught:
        ask("GET", f"http://public.test:{first.http.server_port}/")
    assert caught.value.facts["cause"] == "private_address"
    assert other.asked == []


def test_further_addresses_are_tried(servers: tuple[Server, Server], names: dict[str, list[str]]):
    """As browsers do: the next address of a name when one is not reached."""
    names["many.test"] = ["127.0.0.9", "127.0.0.1"]
    assert ask("GET", f"http://many.test:{servers[0].http.server_port}/").status == 200


def test_a_proxy_is_used(servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch):
    """The proxy of the environment gets the request; allowed servers are checked all the same."""
    proxy, _ = servers
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "")
    assert ask("GET", "http://does-not-exist.test/x").status == 200
    assert proxy.asked[-1]["headers"]["host"] == "does-not-exist.test"
    with pytest.raises(IntegrationError, match="to be called"):
        ask("GET", "http://does-not-exist.test/x", allowed=lambda origin: False)
    assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("10.1.1.1", True), ("172.16.0.1", True), ("172.32.0.1", False),
        ("192.168.0.1", True), ("169.254.169.254", True), ("100.64.0.1", True), ("0.0.0.0", True), ("224.0.0.1", True),
        ("255.255.255.255", True), ("8.8.8.8", False), ("::1", True), ("::", True), ("fe80::1", True), ("fc00::1", True),
        ("::ffff:127.0.0.1", True), ("::ffff:8.8.8.8", False), ("64:ff9b::7f00:1", True), ("64:ff9b::808:808", False),
        ("2002:7f00:1::", True), ("::7f00:1", True), ("2606:4700::1111", False), ("ff02::1", True),
    ],
)  # fmt: skip
def test_private_addresses(address: str, private: bool):
    """Loopback, private, link-local, shared and reserved ones, also within IPv6."""
    assert is_private(address) is private


def test_hosts_that_are_openly_local():
    """Only what everybody reads as local; odd spellings are names, and names are refused when they lead here."""
    assert all(map(names_this_network, ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "[::1]", "10.0.0.1")))
    assert not any(map(names_this_network, ("127.1", "0x7f.1", "2130706433", "localhost.evil.test", "8.8.8.8", "")))


def test_one_spelling_of_a_server():
    """Case, final dots, default ports and Unicode make no other server; user, path and query are no part of it."""
    assert origin_of("HTTPS://u:p@API.x.org.:443/a?b#c") == "https://api.x.org"
    assert origin_of("http://[::1]:80/") == "http://[::1]"
    assert origin_of("http://bücher.example:8080") == "http://xn--bcher-kva.example:8080"
    for bad in ("ftp://x/", "//x", "", "http://"):
        with pytest.raises(ValueError, match="not the address"):
            origin_of(bad)


@pytest.mark.parametrize(
    ("props", "words"),
    [
        ({"url": "http://127.0.0.1:99999/"}, "no port 99999|not an address"),
        ({"url": "http://127.0.0.1:0/"}, "no port 0"),
        ({"url": "URL", "headers": {"X-Name": "ä"}}, "characters that a header cannot hold"),
        ({"url": "URL", "headers": {"X-Name": "a\r\nX-Other: b"}}, "characters that a header cannot hold"),
        ({"url": "URL", "headers": {"X Name": "a"}}, "not the name of a header"),
        ({"url": "URL", "headers": {"X-Näme": "a"}}, "not the name of a header"),
        ({"url": "URL", "headers": {"Content-Length": "5"}}, "made by the client"),
        ({"url": "URL", "headers": {"Transfer-Encoding": "chunked"}}, "made by the client"),
    ],
)
def test_requests_that_cannot_be_sent(tmp_path: Path, servers: tuple[Server, Server], props: dict[str, Any], words: str):
    """One typed error, before anything is sent."""
    props = {**props, "url": servers[0].url if props["url"] == "URL" else props["url"]}
    with pytest.raises(ValidationError, match=words) as caught:
        run_node(tmp_path, "api_job", props)
    assert caught.value.hint
    assert servers[0].asked == []


def test_a_hook_has_a_total_time_limit(tmp_path: Path):
    """A server that answers drop by drop is given up after the hook's timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b"x")
                        if done.wait(0.05):
                            return
                except OSError:
                    return  # it has gone

        done = threading.Event()
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/?key={CANARY}"
        try:
            with pytest.raises(NodeTimeoutError, match=r"limit of 0\.3 s") as caught:
                run_node(tmp_path, "hook", {"hook_type": "http", "url": url, "config": {"timeout": 0.3}})
        finally:
            done.set()
            listener.close()
            thread.join(timeout=5)
    assert CANARY not in str(caught.value)
