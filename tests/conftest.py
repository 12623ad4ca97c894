"""What holds for every test: no network but the loopback, settings and run store of its own, nothing skipped in CI."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from dipeo_nb import config
from tests.servers import mortal_postgres, mortal_redis, postgres_server, redis_server, s3_server  # noqa: F401 - fixtures

# Two cores are shared with other work: how long an example takes says nothing. In CI the examples are the same every time.
settings.register_profile("dipeo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dipeo"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dipeo")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun with & in a shell: Ctrl-C must work in the tests all the same
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # so with nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

NOT_HERE = "not here:"
"""A skip whose reason starts so is about the platform, not about a missing part; CI accepts it."""


class NetworkError(RuntimeError):
    """A test tried to leave the machine."""


def _loopback(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a unix socket
    host = str(address[0]).partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def only_loopback() -> Iterator[None]:
    """Sockets of this process reach the loopback range only; a test that wants more fails and says so."""
    patch = pytest.MonkeyPatch()
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(address: object) -> None:
        if not _loopback(address):
            raise NetworkError(
                f"Tests stay on this machine; this one wanted {address!r}. Use a fake or a local server."
            )

    def guarded(self: socket.socket, address: Any) -> None:
        refuse(address)
        return connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        refuse(address)
        return connect_ex(self, address)

    def guarded_lookup(host: Any, *more: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        refuse((name or "", 0))
        return getaddrinfo(host, *more, **options)

    patch.setattr(socket.socket, "connect", guarded)
    patch.setattr(socket.socket, "connect_ex", guarded_ex)
    patch.setattr(socket, "getaddrinfo", guarded_lookup)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has its own base directory (so its own run store) and no API key of the developer's."""
    for name in [
        n for n in os.environ if n.endswith("_API_KEY") or (n.startswith("DIPEO_") and n != "DIPEO_CACHE_DIR")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("STATE_STORE_PATH", raising=False)
    monkeypatch.setenv("DIPEO_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / ".data"))
    monkeypatch.setenv("DIPEO_KEYS_STORE", "file")  # never the developer's own keyring
    config.reset_settings()
    yield
    config.reset_settings()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI (CI=true) a test that skips for want of a part fails: green must mean that it ran."""
    report: Any = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(NOT_HERE):
            report.outcome = "failed"
            report.longrepr = f"Skipped, which CI does not accept. {reason}"
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright keeps an event loop in the main thread, which other tests could not share."""
    items.sort(key=lambda item: "browser" in item.keywords)
