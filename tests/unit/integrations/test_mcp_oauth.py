"""MCP servers that want OAuth: consent once, tokens stored as keys, renewed ones, and runs in which nobody is there."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import dipeo_nb as dp
from dipeo_nb.cli import main
from dipeo_nb.config import Settings
from dipeo_nb.errors import ProviderAuthError
from dipeo_nb.integrations.mcp_oauth import KeptTokens, stored_name
from dipeo_nb.security.keys import APIKeyChain
from dipeo_nb.testing import scripted
from tests.support.provider_server import Keys

pytest.importorskip("mcp", reason="not here: the extra mcp")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose `.mcp.json` names a server that wants OAuth."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.mcp_oauth", str(port)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / ".mcp.json").write_text(json.dumps({"mcpServers": {"docs": {"url": f"http://127.0.0.1:{port}/mcp"}}}))
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / "data"))
    yield folder
    process.kill()
    process.wait()


class _Browser(io.StringIO):
    """Stands for the user: opens the address that was printed, and types the one that it led to."""

    def __init__(self, capsys: pytest.CaptureFixture[str], change: str = "") -> None:
        super().__init__()
        self._capsys, self._change = capsys, change

    def readline(self, *size: int) -> str:
        said = self._capsys.readouterr().err
        address = next(line for line in said.splitlines() if line.startswith("http"))
        return (self._change or httpx2.get(address, follow_redirects=False).headers["location"]) + "\n"


def use(base: Path) -> str:
    with dp.Session(base, llm=scripted()) as session:
        return str(session.provider("mcp_docs").secret())


def test_consent_once_then_runs(base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Without consent a run names the command; with it calls work, in a later session, and after the token has expired."""
    with pytest.raises(ProviderAuthError, match="wants the user's consent") as caught:
        use(base)
    assert "dipeo-nb providers authorize mcp_docs" in (caught.value.hint or "")
    monkeypatch.setattr("sys.stdin", _Browser(capsys))
    assert main(["providers", "authorize", "mcp_docs", "--base-dir", str(base)]) == 0
    assert "42" in use(base)
    stored = asyncio.run(APIKeyChain.of(Settings(base_dir=base)).get_api_key(stored_name("mcp_docs"))).get_secret_value()
    assert "access-" not in stored
    for _ in range(2):  # each refresh token serves once
        time.sleep(3)
        assert "42" in use(base)


@pytest.mark.parametrize("pasted", ["http://localhost:8765/callback?error=access_denied", "nonsense", ""])
def test_consent_that_is_none(base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pasted: str):
    """The user declines, or pastes something else: one error, and nothing is stored."""
    monkeypatch.setattr("sys.stdin", _Browser(capsys, pasted or " "))
    assert main(["providers", "authorize", "mcp_docs", "--base-dir", str(base)]) == 2
    assert "gives no consent" in capsys.readouterr().err
    with pytest.raises(ProviderAuthError):
        use(base)


def test_tokens_that_are_none_of_ours():
    """A damaged key is as none: the user is asked again."""
    for key in ("x", "bnVsbA==", "e30="):
        kept = KeptTokens("mcp_docs", Keys(mcp_docs_oauth=key))
        assert asyncio.run(kept.get_tokens()) is None
