"""hook: commands, web servers, Python, files, and events from outside."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from dipeo_nb.errors import (
    CodeError,
    DipeoError,
    IntegrationError,
    NodeExecutionError,
    NodeTimeoutError,
    RunError,
    StorageError,
    ValidationError,
)
from dipeo_nb.execution.handlers import hook as handler
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.api_server import Server
from tests.support.single_node import diagram, run_node


def output(base: Path, props: dict[str, Any], inputs: dict[str, Any] | None = None) -> Any:
    return run_node(base, "hook", props, inputs).output


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch):
    """Attempts follow one another at once."""
    monkeypatch.setattr(handler, "RETRY_PAUSE", 0)


@pytest.mark.parametrize(
    ("props", "value"),
    [
        ({"hook_type": "shell", "command": "echo hello"}, "hello"),
        ({"hook_type": "shell", "command": 'printf "%s" "$DIPEO_INPUT_DATA"'}, {"a": [1]}),
        ({"command": "pwd | xargs basename", "config": {"cwd": "sub"}}, "sub"),
        ({"config": {"command": "printf", "args": ["%s-%s", "a b", "$HOME"]}}, "a b-$HOME"),
        ({"config": {"command": "echo $MINE", "env": {"MINE": "{{who}}"}}}, "Ada; rm x"),
        ({"config": {"command": "echo 42", "args": []}}, 42),
    ],
)
def test_shell(tmp_path: Path, props: dict[str, Any], value: Any):
    """Both shapes; inputs are variables of the environment as JSON; what it prints is JSON where it can be."""
    (tmp_path / "sub").mkdir()
    assert output(tmp_path, props, {"data": {"a": [1]}, "who": "Ada; rm x"}) == value


def test_shell_retries(tmp_path: Path):
    """retry_count tries again; then the exit status and stderr are the error."""
    command = "echo x >> tries; test $(wc -l < tries) -ge 3 && echo done"
    assert output(tmp_path, {"command": command, "retry_count": 2}) == "done"
    with pytest.raises(CodeError, match="exit status 7: no luck"):
        output(tmp_path, {"command": "echo no luck >&2; exit 7"})
    with pytest.raises(NodeTimeoutError, match="limit of 1 s"):
        output(tmp_path, {"command": "sleep 60", "timeout": 1})


def test_web_hook(tmp_path: Path, server: Server):
    """`webhook` and `http` are one: the inputs are posted, or the body that is given; the answer is the value."""
    server.answers = [(200, {}, b'{"ok": true}')]
    assert output(tmp_path, {"hook_type": "webhook", "url": server.url + "/{{who}}"}, {"who": "ada"}) == {"ok": True}
    (asked,) = server.asked
    sent = json.loads(asked["body"])
    assert (asked["method"], asked["path"], sent["inputs"]["who"], sent["hook_type"]) == ("POST", "/ada", "ada", "http")
    config = {"url": server.url, "method": "put", "headers": {"X-A": "{{who}}"}, "body": {"hi": "{{who}}"}}
    output(tmp_path, {"hook_type": "http", "config": config}, {"who": "ada"})
    assert (server.asked[1]["method"], server.asked[1]["headers"]["x-a"]) == ("PUT", "ada")
    assert json.loads(server.asked[1]["body"]) == {"hi": "ada"}
    server.answers = [(500, {}, b"no"), (200, {}, b"1")]
    assert output(tmp_path, {"hook_type": "http", "url": server.url, "retry_count": 1}) == 1


def test_python_hook(tmp_path: Path):
    """A function of a file below the base directory is called with the inputs."""
    (tmp_path / "h.py").write_text(
        "def hook(inputs):\n    return inputs['n'] + 1\ndef other(n, times=2):\n    return n * times\n"
    )
    assert output(tmp_path, {"hook_type": "python", "config": {"script": "h.py"}}, {"n": 3}) == 4
    assert output(tmp_path, {"hook_type": "python", "config": {"script": "h.py", "function": "other"}}, {"n": 3}) == 6


def test_file_hook(tmp_path: Path):
    """The inputs as JSON, YAML or text, by the format or the file's name."""
    for name in ("o.json", "o.yaml", "o.txt"):
        done = output(tmp_path, {"hook_type": "file", "config": {"file_path": f"out/{{who}}-{name}"}}, {"who": "ada"})
        assert done["path"] == f"out/ada-{name}"
    assert json.loads((tmp_path / "out/ada-o.json").read_text())["who"] == "ada"
    assert yaml.safe_load((tmp_path / "out/ada-o.yaml").read_text())["who"] == "ada"
    assert json.loads((tmp_path / "out/ada-o.txt").read_text()) == {"who": "ada"}


WAITS = {
    "hook_type": "http",
    "config": {"subscribe_to": {"provider": "git", "event_name": "push", "filters": {"repo.name": "{{who}}"}}},
}


def test_an_event_is_waited_for(tmp_path: Path):
    """`run.signal` brings it, from any thread; others with that name pass by; one that came early is kept."""
    with Session(tmp_path, llm=scripted()) as dp:
        for early in (False, True):
            run = dp.start(diagram("hook", WAITS), view=False, inputs={"who": "mine"})
            if early:
                run.signal("git.push", repo={"name": "mine"}, by="Eve")
            else:
                send = [("git.pull", "mine"), ("git.push", "other"), ("git.push", "mine")]
                worker = threading.Thread(
                    target=lambda run=run, send=send: [run.signal(n, repo={"name": r}, by="Eve") for n, r in send]
                )
                worker.start()
                worker.join()
            assert run.result(20).output == {"repo": {"name": "mine"}, "by": "Eve"}
        with pytest.raises(RunError, match="not executing in this process"):
            run.signal("git.push")


def test_a_start_node_waits_for_its_trigger(tmp_path: Path):
    """What the event brings are variables of the run; in a sub-diagram the parent's run hears for it."""
    triggered = {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start", "props": {"trigger_mode": "hook", "hook_event": "go"}},
            {"label": "Work", "type": "code_job", "props": {"code": "return who"}},
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [{"from": "Start", "to": "Work"}, {"from": "Work", "to": "End"}],
    }
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.start(triggered, view=False)
        run.signal("go", who="Ada")
        assert run.result(20).output == "Ada"
        run = dp.start(diagram("sub_diagram", {"diagram_data": triggered}), view=False)
        run.signal("go", who="Eve")
        assert "Eve" in json.dumps(run.result(20).output)


def test_an_event_that_does_not_come(tmp_path: Path):
    """The error says how it is sent."""
    config = {"subscribe_to": {"event_name": "push", "timeout": 0.2}}
    with pytest.raises(NodeTimeoutError, match=r'run.signal\("push"'):
        output(tmp_path, {"hook_type": "http", "config": config})


@pytest.mark.parametrize(
    ("props", "kind", "words"),
    [
        ({}, NodeExecutionError, "has no command"),
        ({"command": "x", "config": {"cwd": "../.."}}, StorageError, "../.."),
        ({"config": {"command": "no-such-program", "args": ["x"]}}, CodeError, "cannot be started"),
        ({"command": "x", "config": {"env": ["A=1"]}}, ValidationError, "config.env is not a mapping"),
        ({"hook_type": "http"}, NodeExecutionError, "has no url"),
        ({"hook_type": "http", "url": "ftp://x"}, ValidationError, "not an address of a web server"),
        ({"hook_type": "http", "url": "http://127.0.0.1:9/"}, IntegrationError, "cannot be reached"),
        (
            {"hook_type": "http", "url": "http://h", "config": {"method": "SPY"}},
            NodeExecutionError,
            "not an HTTP method",
        ),
        ({"hook_type": "http", "config": {"subscribe_to": {"provider": "x"}}}, NodeExecutionError, "names no event"),
        ({"hook_type": "python"}, NodeExecutionError, "has no script"),
        ({"hook_type": "python", "config": {"script": "none.py"}}, StorageError, "none.py"),
        ({"hook_type": "python", "config": {"script": "../h.py"}}, StorageError, "../h.py"),
        ({"hook_type": "file"}, NodeExecutionError, "names no file"),
        ({"hook_type": "file", "config": {"file_path": "/etc/x"}}, StorageError, "/etc/x"),
        ({"hook_type": "file", "config": {"file_path": "x", "format": "xml"}}, NodeExecutionError, "not a file hook format"),
    ],
)
def test_bad_input(tmp_path: Path, props: dict[str, Any], kind: type[DipeoError], words: str):
    """One error that says what to do."""
    with pytest.raises(kind) as caught:
        output(tmp_path, props)
    assert words in str(caught.value)
    assert caught.value.hint
