"""A JupyterLab of its own, driven through a real Chromium (recipe: measured on JupyterLab 4.6, ipykernel 6.31 to 7.4)."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as NotInTime

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
READY = """() => { const a = window.jupyterapp; if (!a) return false; const w = a.shell.currentWidget;
  return !!(w && w.context && w.context.isReady && w.sessionContext && w.sessionContext.isReady && w.sessionContext.session
            && w.sessionContext.session.kernel && w.sessionContext.session.kernel.status === 'idle'); }"""
CELLS = """window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')"""
BEGUN = f"() => {CELLS}.some(c => c.model.executionState === 'running' || c.model.executionCount !== null)"
FINISHED = f"() => {CELLS}.every(c => c.model.executionCount !== null && c.model.executionState !== 'running')"
START_S = 90.0
"""Seconds the server may take to answer."""


def chromium() -> str | None:
    """The Chromium of this machine; Playwright's own downloads are not used."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        try:
            yield started
        finally:
            started.close()


class Lab:
    """A server on the loopback with settings, history and home of its own."""

    def __init__(self, root: Path, environment: dict[str, str] | None = None) -> None:
        self.root = root
        self.token = secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._home = Path(tempfile.mkdtemp(prefix="dipeo-lab-"))
        self._settings({
            "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
            "notebook-extension/tracker": {"windowingMode": "none"},
            "docmanager-extension/plugin": {"autosave": False},
        })  # fmt: skip
        folders = {
            name: str(self._home / name)
            for name in (
                "HOME",
                "IPYTHONDIR",
                "JUPYTER_CONFIG_DIR",
                "JUPYTER_DATA_DIR",
                "JUPYTER_RUNTIME_DIR",
                "JUPYTERLAB_WORKSPACES_DIR",
            )
        }
        for folder in folders.values():
            Path(folder).mkdir()
        inherited = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
        env = {**inherited, **folders, "JUPYTERLAB_SETTINGS_DIR": str(self._home / "settings"), **(environment or {})}
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={self.port}",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={root}",
            "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly",
            "--ServerApp.disable_check_xsrf=True",
        ]  # fmt: skip
        self._log = (self._home / "server.log").open("wb")
        self._server = subprocess.Popen(
            command, env=env, cwd=self._home, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self, page: Page, notebook: str) -> Notebook:
        """Open a notebook with a fresh kernel in a workspace of its own."""
        self.visit(page, notebook)
        page.wait_for_function(READY)
        return Notebook(page)

    def visit(self, page: Page, notebook: str) -> Notebook:
        """Open a notebook whose kernel may be busy, or gone."""
        workspace = secrets.token_hex(4)
        page.goto(
            f"{self.base}/lab/workspaces/{workspace}/tree/{notebook}?token={self.token}&reset",
            wait_until="domcontentloaded",
        )
        return Notebook(page)

    def close(self) -> None:
        """Stop kernels and server; nothing stays behind."""
        try:
            request = urllib.request.Request(f"{self.base}/api/shutdown?token={self.token}", method="POST")
            urllib.request.urlopen(request, timeout=5).read()
            self._server.wait(60)
        except Exception:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(60)
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _settings(self, settings: dict[str, dict[str, Any]]) -> None:
        for name, values in settings.items():
            package, plugin = name.split("/")
            folder = self._home / "settings" / "@jupyterlab" / package
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{plugin}.jupyterlab-settings").write_text(json.dumps(values))

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{self.base}/api/status?token={self.token}", timeout=2).read()
                return
            except OSError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._home / "server.log").read_text()) from None
                time.sleep(0.1)


class Notebook:
    """The open notebook of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        return self.cell(index).locator(".jp-OutputArea-output:not(.dipeo-covered)")

    def theme(self, name: str) -> None:
        """Change to `light` or `dark`, as a user does, while everything goes on."""
        self.page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})",
            f"JupyterLab {name.title()}",
        )
        self.page.wait_for_selector(f'body[data-jp-theme-light="{str(name == "light").lower()}"]', state="attached")
        # Lab's own splash screen; it breaks when the next change comes before it has gone.
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")

    def interrupt(self) -> None:
        """Lab's own Stop: interrupt the kernel."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:interrupt-kernel'); }")

    def wait(self, timeout: float = 600.0) -> None:
        """Wait until every cell has finished; *timeout* in seconds."""
        self.page.wait_for_function(FINISHED, timeout=timeout * 1000)

    def wait_busy(self, index: int) -> None:
        """Wait until the code cell *index* is running."""
        self.page.wait_for_function(f"i => {CELLS}[i].model.executionState === 'running'", arg=index)

    def start_all(self) -> None:
        """Run every cell; returns when the first one has begun."""
        for _ in range(3):
            self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
            try:
                self.page.wait_for_function(BEGUN, timeout=10_000)
            except NotInTime:
                continue  # Lab drops the command while it is still connecting to the kernel
            return
        raise AssertionError("the notebook does not start")

    def start_cell(self, index: int) -> None:
        """Run one code cell; returns at once."""
        self.page.evaluate(
            "i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i;"
            " window.jupyterapp.commands.execute('notebook:run-cell'); }",
            index,
        )

    def run_cell(self, index: int) -> None:
        """Run one code cell to its end, also after another one has failed."""
        for _ in range(3):
            self.page.evaluate(
                "i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i;"
                " return window.jupyterapp.commands.execute('notebook:run-cell'); }",
                index,
            )
            if self.page.evaluate(f"i => {CELLS}[i].model.executionCount !== null", index):
                return
            self.page.wait_for_timeout(500)  # Lab drops the command while it is still connecting to the kernel
        raise AssertionError(f"cell {index} does not run")

    def save(self) -> None:
        """Write the notebook to its file."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def shut_down(self) -> None:
        """End the kernel."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
