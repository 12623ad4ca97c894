"""What holds for every test: no network but the loopback, settings and run store of its own, nothing skipped in CI."""

from __future__ import annotations

import ast
import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from dipeo_nb import config
from dipeo_nb.common import clock, json_schema, loop
from tests.support import loop_steps, node_types
from tests.support.api_server import server  # noqa: F401 - a fixture
from tests.support.no_egress import loopback
from tests.support.servers import mortal_postgres, mortal_redis, postgres_server, redis_server, s3_server  # noqa: F401 - fixtures
from tests.support.skips import NOT_HERE

# Two cores are shared with other work: how long an example takes says nothing. In CI the examples are the same every time.
settings.register_profile("dipeo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dipeo"), derandomize=True)
settings.register_profile("quick", settings.get_profile("dipeo"), max_examples=20)
QUICK = os.environ.get("HYPOTHESIS_PROFILE") == "quick"
"""Whether this is `make quick`."""
settings.load_profile("quick" if QUICK else "ci" if os.environ.get("CI") == "true" else "dipeo")

json_schema.load()  # before nbformat or a test imports `jsonschema`, and with it a grammar that takes seconds to build

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun with & in a shell: Ctrl-C must work in the tests all the same
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # so with nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

NO_EGRESS = str(Path(loopback.__file__).parent)


@pytest.fixture(scope="session", autouse=True)
def only_loopback() -> Iterator[None]:
    """Sockets of this process reach the loopback range only; a test that wants more fails and says so."""
    undo = loopback.only()
    yield
    undo()


@pytest.fixture(scope="session", autouse=True)
def steps_of_the_loop() -> Iterator[None]:
    """Long steps on the library's loop go to the file that LOOP_STEPS names; without it nothing is measured."""
    with loop_steps.reported():
        yield


@pytest.fixture(scope="session", autouse=True)
def library_loop() -> Iterator[None]:
    """Generators that libraries leave behind are closed by the library's loop; pytest looks for leftovers when that has ended.

    Otherwise its collections, on another thread, could close a generator while the loop does so, too ("async generator already
    executing"), and the whole run would fail after its last test.
    """
    yield
    library = loop.LoopThread.get()

    async def collect() -> None:
        gc.collect()

    for _ in range(3):  # what was closed may have held others
        library.submit(collect()).result(timeout=60)
    library.close()


@pytest.fixture(autouse=True)
def fixed_day() -> Iterator[None]:
    """Tests are not about the day on which they run: which models have ended by then is said by those that ask."""
    with clock.on(date(2026, 6, 1)):
        yield


@pytest.fixture(autouse=True)
def own_node_types() -> Iterator[None]:
    """Node types that a test registers are gone after it."""
    with node_types.restored():
        yield


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has its own base directory (so its own run store) and no API key of the developer's."""
    for name in [n for n in os.environ if n.endswith("_API_KEY") or (n.startswith("DIPEO_") and n != "DIPEO_CACHE_DIR")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("STATE_STORE_PATH", raising=False)
    # So that the processes of a test stay on this machine, too.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (NO_EGRESS, os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("DIPEO_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / ".data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))  # never the developer's own settings
    monkeypatch.setenv("DIPEO_KEYS_STORE", "file")  # never the developer's own keyring
    monkeypatch.setenv("DIPEO_TRUST", str(tmp_path))  # the one place where the diagrams of tests are the user's own
    config.reset_settings()
    yield
    config.reset_settings()


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes of their own that can import the package; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(code), *args]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


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


SERVERS = {"child", "chrome", "mortal_postgres", "mortal_redis", "postgres_server", "redis_server", "s3_server"}
"""Fixtures that start processes."""
STARTERS = {
    "subprocess", "pexpect", "nbclient", "ProcessCodeRunner", "run_module", "ScriptedServer", "spawn_agent_process", "uvicorn", "Session", "main",
}  # fmt: skip
"""What modules import whose tests start processes or talk to servers: kernels, commands, Node, agents, the workers of code jobs."""
WIRES = ("tests/contracts/", "tests/unit/llm/providers/", "tests/unit/storage/test_cloud_storage")
"""Where tests talk to servers."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """`make quick` does not import the modules that it leaves out as a whole."""
    if not QUICK or collection_path.suffix != ".py":
        return None
    if collection_path.relative_to(Path(__file__).parents[1]).as_posix().startswith(WIRES):
        return True
    imports = (n for n in ast.parse(collection_path.read_bytes()).body if isinstance(n, (ast.Import, ast.ImportFrom)))
    names = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
    return True if STARTERS & names else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make quick` leaves out. Browser tests last: Playwright keeps an event loop in the main thread, which other
    tests could not share."""
    for item in items:
        names = set(vars(item.module)) if isinstance(item, pytest.Function) else set[str]()
        starts = SERVERS & set(getattr(item, "fixturenames", ())) or STARTERS & names
        if starts or item.nodeid.startswith(WIRES):
            item.add_marker("process")
    items.sort(key=lambda item: "browser" in item.keywords)


def pytest_collection_finish() -> None:
    """Leave what collecting has made out of collections of garbage: tests that ask for one take a hundredth of the time.

    In `make quick` only: `common.collecting` does without its means where an application has frozen objects of its own.
    """
    if QUICK:
        gc.collect()
        gc.freeze()
