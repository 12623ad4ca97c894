"""Time limits, stops and signals work while a run evaluates what takes for ever: on the command line, in a session, in the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.errors import DipeoError

NODES: dict[str, dict[str, Any]] = {
    "pattern": {
        "type": "json_schema_validator",
        "props": {"json_schema": {"type": "object", "properties": {"v": {"pattern": "^(?=(a+)+$)"}}}},
    },
}
"""Nodes whose work never ends, and holds the interpreter."""


def _diagram(folder: Path, name: str = "slow", **props: Any) -> Path:
    node = {"label": "Slow", **NODES["pattern"]}
    node["props"] = {**node["props"], **props}
    path = folder / f"{name}.light.yaml"
    document = {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start", "props": {"custom_data": {"v": "a" * 60 + "!"}}},
            node,
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [{"from": "Start", "to": "Slow"}, {"from": "Slow", "to": "End"}],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def _cli(folder: Path, *args: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dipeo_nb", *args]
    environment = {**os.environ, "PYTHONPATH": str(Path(dp.__file__).parent.parent)}
    return subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment, start_new_session=True, **more,
    )  # fmt: skip


def _working(process: subprocess.Popen[str]) -> None:
    """Wait until a worker process of the command uses the processor."""
    for _ in range(600):
        for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
            for child in task.read_text().split():
                ticks = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                if int(ticks[11]) > 80:
                    return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the worker did not begin")


def test_the_time_limit_of_a_run_ends_it(tmp_path: Path) -> None:
    """--timeout ends a run whose node never ends, and the command."""
    _diagram(tmp_path)
    output = _cli(tmp_path, "run", "slow.light.yaml", "--timeout", "3").communicate(timeout=90)[0]
    assert "limit of 3 s" in output


def test_the_time_limit_of_a_node_ends_it(tmp_path: Path) -> None:
    """So does the node's own."""
    _diagram(tmp_path, timeout=2)
    process = _cli(tmp_path, "run", "slow.light.yaml")
    output = process.communicate(timeout=90)[0]
    assert "limit of 2 s" in output
    assert process.returncode == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals of POSIX, and /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_command(tmp_path: Path, sent: signal.Signals) -> None:
    """One signal is enough; nothing of it stays behind."""
    _diagram(tmp_path)
    process = _cli(tmp_path, "run", "slow.light.yaml")
    _working(process)
    process.send_signal(sent)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0, output
    assert "Traceback" not in output


def test_stop_ends_a_run_of_a_session(tmp_path: Path) -> None:
    """The Stop of a notebook reaches the run while its worker is at work, and nothing is left of it."""
    from dipeo_nb.workers import WORKERS

    path = _diagram(tmp_path)
    with dp.Session(base_dir=tmp_path) as session:
        run = session.start(session.load(path))
        for _ in range(300):
            if WORKERS._all:
                break
            time.sleep(0.1)
        time.sleep(1)
        run.stop()
        with pytest.raises(DipeoError):
            run.result()
    assert not [worker for worker in WORKERS._all if worker not in WORKERS._idle]


def test_the_server_answers_meanwhile(tmp_path: Path) -> None:
    """`/health` is answered while a run is at work that never ends, and the run ends at its limit."""
    _diagram(tmp_path)
    port = _free_port()
    token = "token-of-the-test-1234"
    server = subprocess.Popen(
        [sys.executable, "-m", "dipeo_nb", "serve", "--port", str(port)], cwd=tmp_path, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(dp.__file__).parent.parent), "DIPEO_SERVE_TOKEN": token},
    )  # fmt: skip

    def ask(path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"{}")

    try:
        for _ in range(300):
            try:
                ask("/health")
                break
            except OSError:
                time.sleep(0.2)
        ask("/runs", {"diagram": "slow", "timeout": 4})
        for _ in range(10):
            assert ask("/health") is not None
            time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("kind", ["person_job", "template_job", "api_job", "hook", "user_response", "condition"])
def test_every_kind_of_node_renders_what_takes_long(tmp_path: Path, kind: str) -> None:
    """A prompt, a template, an address, a command, a question and a condition that are not quick are evaluated all the same."""
    long = "{% for i in range(20000) %}{% endfor %}{{ text }}{{ missing }}"
    props: dict[str, Any] = {
        "person_job": {"person": "A", "default_prompt": long},
        "template_job": {"template_content": "{% for i in range(20000) %}{% endfor %}{{ text }}", "engine": "jinja2"},
        "api_job": {"url": long + "://nowhere", "method": "GET"},
        "hook": {"hook_type": "shell", "command": "echo " + long},
        "user_response": {"prompt": long, "timeout": 5},
        "condition": {"condition_type": "custom", "expression": "len([i for i in range(20000)]) == 20000"},
    }[kind]
    node = {"label": "N", "type": kind, "props": props}
    arrow = {"from": "N_condtrue" if kind == "condition" else "N", "to": "End"}
    document = {
        "version": "light",
        "persons": {"A": {"service": "echo"}},
        "nodes": [{"label": "Start", "type": "start", "props": {"custom_data": {"text": "words"}}}, node, {"label": "End", "type": "endpoint"}],
        "connections": [{"from": "Start", "to": "N"}, arrow],
    }  # fmt: skip
    path = tmp_path / "long.light.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    with dp.Session(base_dir=tmp_path) as session:
        run = session.start(session.load(path), trust=True, answers={"N": "yes"} if kind == "user_response" else None)
        if kind == "api_job":
            with pytest.raises(DipeoError, match="words://nowhere"):
                run.result()
        else:
            result = run.result()
            shown = json.dumps(result.outputs)
            assert "words" in shown or kind in ("user_response", "condition")
        told = [e for e in run.events if "names 'missing'" in json.dumps(dict(e.payload), default=str)]
        assert len(told) == (kind in ("person_job", "api_job", "hook", "user_response"))


def test_the_loop_is_free_while_a_worker_works(tmp_path: Path) -> None:
    """Other work goes on."""
    from dipeo_nb.workers import WORKERS

    async def go() -> int:
        task = asyncio.create_task(WORKERS.call("re:fullmatch", "(a+)+$", "a" * 60 + "!"))
        turns = 0
        for _ in range(100):
            await asyncio.sleep(0.01)
            turns += 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return turns

    assert asyncio.run(go()) == 100
