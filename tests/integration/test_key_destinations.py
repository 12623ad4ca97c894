"""Which key goes to which server: where the URL and the key come from decides (llm/client_pool.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from dipeo_nb.cli import main
from dipeo_nb.config import FolderSettingWarning, get_settings, override_settings, reset_settings
from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.errors import APIKeyError, DipeoError, SettingNotApprovedError
from dipeo_nb.llm import client_pool
from dipeo_nb.llm.client_pool import ClientManager
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.folder_settings import approve_settings
from dipeo_nb.security.keys import APIKeyChain, APIKeyService
from dipeo_nb.security.trust_store import FolderTrust, TrustStore


class Service(NamedTuple):
    key_variable: str
    url_variable: str
    url_field: str
    own: str


SERVICES = {
    "openai": Service("OPENAI_API_KEY", "OPENAI_BASE_URL", "openai_base_url", "https://api.openai.com/v1"),
    "anthropic": Service("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "anthropic_base_url", "https://api.anthropic.com"),
    "gemini": Service("GOOGLE_API_KEY", "GOOGLE_BASE_URL", "google_base_url", "https://generativelanguage.googleapis.com"),
    "claude-code": Service("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "anthropic_base_url", "https://api.anthropic.com"),
}
USERS, FOLDERS = "canary-of-the-user-12345", "canary-of-the-folder-12345"
REMOTE = "https://proxy.example/v1"
LOOPBACK = "http://127.0.0.1:9/v1"

Url = Literal["own", "own in the folder", "own in the diagram", "personal", "approved", "remote", "loopback", "diagram", "diagram loopback",
              "diagram personal", "diagram remote"]  # fmt: skip
Key = Literal["environment", "stored", "same file", "other file", "none"]
Result = Literal["user's", "folder's", "no key", "not approved", "refused", "missing"]

TABLE: dict[Url, dict[Key, Result]] = {
    # The provider's own server.
    "own": {"environment": "user's", "stored": "user's", "same file": "folder's", "other file": "folder's", "none": "missing"},
    "own in the folder": {"environment": "user's", "stored": "user's", "same file": "folder's", "other file": "folder's", "none": "no key"},
    "own in the diagram": {"environment": "user's", "stored": "user's", "same file": "folder's", "other file": "folder's", "none": "no key"},
    # A server that the user named, or approved.
    "personal": {"environment": "user's", "stored": "user's", "same file": "refused", "other file": "refused", "none": "no key"},
    "approved": {"environment": "user's", "stored": "user's", "same file": "folder's", "other file": "refused", "none": "no key"},
    "diagram personal": {"environment": "user's", "stored": "user's", "same file": "refused", "other file": "refused", "none": "no key"},
    # A server that only the folder names.
    "remote": {"environment": "not approved", "stored": "not approved", "same file": "folder's", "other file": "not approved",
               "none": "not approved"},
    "loopback": {"environment": "no key", "stored": "no key", "same file": "folder's", "other file": "no key", "none": "no key"},
    # The diagram's person names what the folder names: no more than that.
    "diagram remote": {"environment": "not approved", "stored": "not approved", "same file": "folder's", "other file": "not approved",
                       "none": "not approved"},
    # A server that only a diagram names.
    "diagram": {"environment": "no key", "stored": "no key", "same file": "no key", "other file": "no key", "none": "no key"},
    "diagram loopback": {"environment": "no key", "stored": "no key", "same file": "no key", "other file": "no key", "none": "no key"},
}  # fmt: skip
CELLS = [(url, key, service) for url, row in TABLE.items() for key in row for service in SERVICES]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cloned repository as the current directory."""
    for service in SERVICES.values():
        monkeypatch.delenv(service.key_variable, raising=False)
        monkeypatch.delenv(service.url_variable, raising=False)
    monkeypatch.delenv("DIPEO_BASE_DIR", raising=False)
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / "data"))
    clone = tmp_path / "clone"
    clone.mkdir()
    monkeypatch.chdir(clone)
    monkeypatch.setattr(client_pool, "_said", set[str]())
    reset_settings()
    return clone


def arrange(url: Url, key: Key, service: str, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str = "") -> str | None:
    """Put URL and key where the cell says; returns the base URL of the diagram's person."""
    facts = SERVICES[service]
    remote, loopback = where or REMOTE, where or LOOPBACK
    value = {"own in the folder": facts.own, "loopback": loopback}.get(url, remote)
    if url in ("own in the folder", "approved", "remote", "loopback", "diagram remote"):
        (folder / ".env").write_text(f"{facts.url_variable}={value}\n")
    elif url in ("personal", "diagram personal"):
        monkeypatch.setenv(facts.url_variable, remote)
    if key == "environment":
        monkeypatch.setenv(facts.key_variable, USERS)
    elif key == "stored":
        asyncio.run(APIKeyService().set_api_key(service, USERS))
    elif key == "same file":
        with (folder / ".env").open("a") as file:
            file.write(f"{facts.key_variable}={FOLDERS}\n")
    elif key == "other file":
        (folder / "dipeo.toml").write_text(f'{facts.key_variable} = "{FOLDERS}"\n')
    reset_settings()
    if url == "approved":
        approve_settings(folder)
    return {
        "own in the diagram": facts.own,
        "diagram": remote,
        "diagram loopback": loopback,
        "diagram personal": f"{remote}/",
        "diagram remote": remote,
    }.get(url)


def test_every_cell_is_tried_with_four_services():
    assert len(CELLS) == 11 * 5 * 4


@pytest.mark.parametrize(("url", "key", "service"), CELLS)
def test_the_table(url: Url, key: Key, service: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """What a client would be made with, or why there is none."""
    base_url = arrange(url, key, service, folder, monkeypatch)
    expected = TABLE[url][key]
    if service == "claude-code":
        # Without a key it uses the user's login: never where a key would not go.
        if url in ("diagram", "diagram loopback"):
            expected = "refused"
        elif expected == "missing":
            expected = "no key"
        elif url == "loopback" and expected == "no key":
            expected = "not approved"
    settings = get_settings()
    manager = ClientManager(settings, APIKeyChain.of(settings))
    request = LLMRequest(service, "m", (ChatMessage("user", "hi"),), base_url=base_url)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            identity = asyncio.run(manager._identity(request))
            asyncio.run(manager._identity(request))
        except SettingNotApprovedError:
            result = "not approved"
        except APIKeyError as error:
            result = "missing" if "There is no API key" in str(error) else "refused"
        else:
            secret = identity.secret.get_secret_value() if identity.secret else None
            result = {None: "no key", USERS: "user's", FOLDERS: "folder's"}[secret]
    assert result == expected
    if result == "folder's" and url != "approved":
        assert len(said) == 1
        assert issubclass(said[0].category, FolderSettingWarning)
        assert f"{folder}" in str(said[0].message)


class Canary:
    """A server of this machine that writes down what reaches it and refuses everything."""

    def __init__(self) -> None:
        self.log: list[str] = []
        log = self.log

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
                log.append(f"{self.requestline}\n{self.headers}\n{body}")
                answer = json.dumps({"error": {"message": "no", "type": "authentication_error"}}).encode()
                self.send_response(401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    server = Canary()
    yield server
    server.close()


WIRE = [
    (u, k, s)
    for u in ("loopback", "diagram loopback", "personal", "approved")
    for k in TABLE["own"]
    for s in list(SERVICES)[:3]
]


@pytest.mark.parametrize(("url", "key", "service"), WIRE)
def test_on_the_wire(url: Url, key: Key, service: str, folder: Path, monkeypatch: pytest.MonkeyPatch, canary: Canary):
    """What a server of this machine really gets: the key of the table, and no header that is meant for another one."""
    for name in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, "X-Mine: canary-header-12345")
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "ANTHROPIC_AUTH_TOKEN", "OPENAI_ADMIN_KEY", "GEMINI_API_KEY"):
        if not (name == "GEMINI_API_KEY" and service == "gemini"):
            monkeypatch.setenv(name, f"canary-{name.lower()}-12345")
    base_url = arrange(url, key, service, folder, monkeypatch, canary.url)
    settings = get_settings()
    request = LLMRequest(service, "m", (ChatMessage("user", "hi"),), base_url=base_url)

    async def ask() -> None:
        llm = LLMService(settings, APIKeyChain.of(settings))
        try:
            with contextlib.suppress(DipeoError):
                await llm.validate_api_key(service, base_url=base_url)
            with contextlib.suppress(DipeoError):
                await llm.complete(request)
        finally:
            await llm.cleanup()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FolderSettingWarning)
        asyncio.run(ask())
    expected = TABLE[url][key]
    log = "\n".join(canary.log)
    assert bool(canary.log) == (expected != "refused")
    assert (USERS in log) == (expected == "user's")
    assert (FOLDERS in log) == (expected == "folder's")
    ours = expected in ("user's", "no key") or url == "approved"
    if url in ("loopback", "diagram loopback") or not ours:
        assert "canary" not in log.replace(USERS, "").replace(FOLDERS, "")
    assert "canary-anthropic_auth_token" not in log
    assert "canary-openai_admin_key" not in log


@pytest.mark.parametrize("service", list(SERVICES)[:3])
def test_keys_test_follows_the_table(
    service: str, folder: Path, monkeypatch: pytest.MonkeyPatch, canary: Canary, capsys: pytest.CaptureFixture[str]
):
    """A key in the environment is not tested at a server of the folder; the line says why, and both ways out."""
    monkeypatch.setenv(SERVICES[service].key_variable, USERS)
    elsewhere = canary.url.replace("127.0.0.1", "127.0.0.2")  # no loopback by name, but it would be reached
    (folder / ".env").write_text(f"{SERVICES[service].url_variable}={elsewhere}\n")
    reset_settings()
    assert main(["keys", "test", service]) == 1
    said = capsys.readouterr().out
    assert "not tested" in said
    assert "dipeo-nb trust" in said
    assert canary.log == []


def test_a_trusted_folders_key_goes_before_the_stored_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Environment, .env, stored; without trust: environment, stored, .env."""
    monkeypatch.delenv("DIPEO_TRUST", raising=False)
    asyncio.run(APIKeyService().set_api_key("openai", USERS))
    (folder / ".env").write_text(f"OPENAI_API_KEY={FOLDERS}\nGITHUB_TOKEN={FOLDERS}\n")
    reset_settings()
    keys = APIKeyChain.of(get_settings())

    def key(name: str) -> str:
        return asyncio.run(keys.get_api_key(name)).get_secret_value()

    assert (key("openai"), key("github")) == (USERS, FOLDERS)
    rows = [(r["id"], r["source"]) for r in asyncio.run(keys.list_api_keys()) if r["service"] == "openai"]
    assert [source for _, source in rows] == ["key file", ".env"]
    assert key(rows[1][0]) == FOLDERS
    TrustStore(get_settings().data_dir).add(FolderTrust(path=str(folder), inode=folder.stat().st_ino))
    assert key("openai") == FOLDERS
    TrustStore(get_settings().data_dir).add(FolderTrust(path=str(folder), inode=1))
    assert key("openai") == USERS
    with override_settings(trusted_folders=(folder.parent,)) as trusting:
        assert asyncio.run(APIKeyChain.of(trusting).get_api_key("openai")).get_secret_value() == FOLDERS
    monkeypatch.setenv("GH_TOKEN", USERS)
    assert key("github") == USERS  # the user's own variable, though another one of the service stands in .env


def test_no_variable_of_the_folder_reaches_the_environment(folder: Path):
    """So no SDK and no child process finds it there."""
    (folder / ".env").write_text(
        "OPENAI_BASE_URL=https://evil.example\nANTHROPIC_AUTH_TOKEN=x\nHTTPS_PROXY=http://evil.example\n"
    )
    reset_settings()
    get_settings().explain()
    assert not {"OPENAI_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "HTTPS_PROXY"} & set(os.environ)
