"""`%load_ext dipeo_nb`: `%%prompt` and `%dipeo`, in an IPython of this process and in a real kernel."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

import dipeo_nb as dp
from dipeo_nb.config import reset_settings
from dipeo_nb.errors import TemplateError, UnsupportedError, ValidationError
from dipeo_nb.notebook import facade
from dipeo_nb.notebook.magics import USAGE
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.scripted_kernel import ScriptedEvents, own_shell, text_event


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    """An IPython like that of a notebook, with the extension loaded."""
    with own_shell(kernel=True) as opened:
        opened.run_line_magic("load_ext", "dipeo_nb")
        yield opened


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The default session's service: a script whose `requests` are kept."""
    service = scripted(lambda request: f"to {request.messages[-1].content}")
    replace_default(monkeypatch, service)
    return service


def replace_default(monkeypatch: pytest.MonkeyPatch, service: Any) -> None:
    settings = dp.get_settings()
    monkeypatch.setattr(facade, "_default", Session(settings=settings, llm=service))


def prompt(shell: InteractiveShell, line: str, cell: str = "Hello") -> Any:
    return shell.run_cell_magic("prompt", line, cell)


def updates(shell: InteractiveShell) -> list[Any]:
    return shell.display_pub.sent  # type: ignore[attr-defined]


# %%prompt.


def test_the_cell_is_the_prompt(shell: InteractiveShell, asked: Any):
    """The cell is sent, the answer streams, its text goes into the variable, its facts into the output's metadata."""
    answer = prompt(shell, "--model openai:m > reply", "Say hello.\nTwice.\n")
    assert asked.requests[0].messages[-1].content == "Say hello.\nTwice.\n"
    assert asked.requests[0].model == "m"
    assert shell.user_ns["reply"] == answer.text == "to Say hello.\nTwice.\n"
    assert updates(shell)[-1].data["text/markdown"].startswith("to Say hello.")
    assert set(updates(shell)[-1].metadata["dipeo"]) >= {"model", "usage", "cost_usd"}


def test_options_of_the_line(shell: InteractiveShell, asked: Any):
    """Every option reaches the request; short forms and quotes work; `>name` needs no space."""
    prompt(shell, "-m openai:m -s 'Be a {{ role }} > all.' -t 0.5 --max-tokens 7 >reply".replace("{{ role }}", "poet"))
    (request,) = asked.requests
    assert (request.temperature, request.max_tokens) == (0.5, 7)
    assert request.messages[0].content == "Be a poet > all."
    assert shell.user_ns["reply"] == "to Hello"


def test_variables_of_the_notebook(shell: InteractiveShell, asked: Any):
    """`{{name}}` is a variable, in the cell, the system prompt and the model; values are never expanded again."""
    shell.user_ns |= {
        "topic": "{{secret}} $HOME {x}",
        "user": {"name": "Ada"},
        "items": ["a", "b"],
        "which": "openai:m",
    }
    prompt(shell, "--model {{which}} --system 'For {{user.name}}'", "About {{topic}}: {{#each items}}{{this}},{{/each}}")
    (request,) = asked.requests
    assert [m.content for m in request.messages] == ["For Ada", "About {{secret}} $HOME {x}: a,b,"]
    assert request.model == "m"


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ("About {{topik}} and {{other}}", "'topik', 'other'"),
        ("{{user.age}}", "'user.age'"),
        ("{{nothing}}", "'nothing'"),
    ],
)
def test_missing_names_are_an_error(shell: InteractiveShell, asked: Any, cell: str, named: str):
    """Names that are not there, or None, are named and nothing is sent; a close spelling is proposed."""
    shell.user_ns |= {"topic": "x", "user": {"name": "Ada"}, "nothing": None}
    with pytest.raises(TemplateError) as caught:
        prompt(shell, "--model echo", cell)
    assert named in caught.value.message
    assert ("Did you mean 'topic'?" in str(caught.value.hint)) == ("topik" in cell)
    assert asked.requests == []
    prompt(shell, "", "{{missing | default('fine')}}{{#if missing}}x{{/if}}")
    assert asked.requests[0].messages[-1].content == "fine"


def test_templates_are_sandboxed(shell: InteractiveShell, asked: Any):
    """A prompt cannot reach into Python's insides."""
    with pytest.raises(TemplateError):
        prompt(shell, "", "{{ ''.__class__.__mro__ }}")
    assert asked.requests == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--modle echo", "'--modle' is not an option"),
        ("--model", "expected one argument"),
        ("--temperature warm", "invalid number value: 'warm'"),
        ("--temperature -1", "invalid number value: '-1'"),
        ("--max-tokens 0", "invalid number of tokens value: '0'"),
        ("--system Be brief", "'brief' is not an option; quote texts with spaces"),
        ("--system 'Be brief", "no closing quotation"),
        (">", "'>' has no variable after it"),
        ("> 1x", "'1x' is not a variable name"),
    ],
)
def test_bad_options_are_one_error_with_the_usage(shell: InteractiveShell, asked: Any, line: str, message: str):
    """What is wrong with the line is said in one message that ends with the usage; nothing is sent."""
    with pytest.raises(ValidationError) as caught:
        prompt(shell, line)
    assert message in caught.value.message
    assert caught.value.hint == f"Usage: {USAGE}"
    assert asked.requests == []


def test_an_unknown_model_lists_the_choices(shell: InteractiveShell):
    """The error of a wrong service is that of `dp.chat`."""
    with pytest.raises(UnsupportedError, match="openai"):
        prompt(shell, "--model nope:x")


def test_a_stopped_prompt_keeps_the_text(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch):
    """Stop ends the call; the variable has the text so far."""
    replace_default(monkeypatch, ScriptedEvents([text_event("so far"), -1.0]))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        prompt(shell, "> reply")
    assert shell.user_ns["reply"] == "so far"


def test_in_a_terminal_the_text_is_written(capsys: pytest.CaptureFixture[str]):
    """Without a notebook the answer goes to stdout once, and no Out[] follows."""
    with own_shell(kernel=False) as shell:
        shell.run_line_magic("load_ext", "dipeo_nb")
        result = shell.run_cell("%%prompt --model echo > reply\nHello")
        assert result.result is None
        assert shell.user_ns["reply"] == "[echo] Hello\n"[:-1]
    out, err = capsys.readouterr()
    assert out == "[echo] Hello\n"
    assert "echo:echo · 3 tokens" in err


# %dipeo.


def dipeo(shell: InteractiveShell, line: str) -> Any:
    return shell.run_line_magic("dipeo", line)


def test_models_are_a_table(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch):
    """One row per service: ready or what to do, the key masked with its variable, default model, abilities."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcd")
    reset_settings()
    table = dipeo(shell, "models")
    rows = {row.service: row for row in table}
    assert set(rows) >= {"openai", "local", "echo"}
    assert (rows["openai"].ready, rows["openai"].key) == (True, "OPENAI_API_KEY sk-…abcd")
    assert rows["openai"].model == "gpt-5-nano-2025-08-07"
    assert "tools" in rows["openai"].abilities
    assert rows["echo"].ready
    for shown in (repr(table), table._repr_html_()):
        assert "gpt-5-nano-2025-08-07" in shown
        assert "canary" not in shown
    monkeypatch.delenv("OPENAI_API_KEY")
    reset_settings()
    row = next(row for row in dipeo(shell, "models") if row.service == "openai")
    assert (row.ready, row.why_not, row.key) == (False, "set OPENAI_API_KEY", "")


def test_keys_are_masked(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch):
    """Each service of models has a row: its variable, the key masked or not set, and where it is from."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcd")
    reset_settings()
    rows = {row["service"]: row for row in dipeo(shell, "keys")}
    own = {"service": "openai", "variable": "OPENAI_API_KEY", "key": "sk-…abcd", "from": "environment", "id": "env_openai"}
    assert rows["openai"] == own
    assert rows["anthropic"]["key"] == "not set"


def test_runs_are_listed(shell: InteractiveShell):
    """`%dipeo runs` is `dp.runs()`; a number limits it."""
    assert repr(dipeo(shell, "runs")) == "no runs"
    diagram = {"version": "light", "nodes": [{"label": "A", "type": "start"}, {"label": "B", "type": "endpoint"}],
               "connections": [{"from": "A", "to": "B"}]}  # fmt: skip
    dp.run(diagram)
    dp.run(diagram)
    assert len(dipeo(shell, "runs")) == 2
    assert len(dipeo(shell, "runs 1")) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "%dipeo what?"),
        ("modles", "There is no '%dipeo modles'"),
        ("models now", "takes no further words, such as 'now'"),
        ("runs many", "'many' is not a number of runs"),
        ("runs 1 2", "takes no further words"),
    ],
)
def test_bad_commands_say_what_there_is(shell: InteractiveShell, line: str, message: str):
    """A wrong command is one error with the next action."""
    with pytest.raises(ValidationError) as caught:
        dipeo(shell, line)
    assert message in caught.value.message
    assert caught.value.hint


def test_unloading_takes_the_magics_away(shell: InteractiveShell):
    """`%unload_ext` and `%reload_ext` work."""
    shell.run_line_magic("reload_ext", "dipeo_nb")
    assert shell.find_cell_magic("prompt")
    shell.run_line_magic("unload_ext", "dipeo_nb")
    assert shell.find_cell_magic("prompt") is None
    assert shell.find_line_magic("dipeo") is None


def test_the_command_line_has_the_same_table(capsys: pytest.CaptureFixture[str]):
    """`dipeo-nb models` prints the services, `--json` the same facts."""
    import json

    from dipeo_nb.cli import main

    assert main(["models"]) == 0
    assert "openai" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    rows = {row["service"]: row for row in json.loads(capsys.readouterr().out)["services"]}
    assert rows["openai"]["why_not"] == "set OPENAI_API_KEY"
    assert rows["echo"]["ready"]


# In a real kernel.


def test_in_a_kernel(tmp_path: Path):
    """One static output per prompt with its metadata; errors are short; the table is HTML."""
    cells = [
        "%load_ext dipeo_nb\nname = 'Ada'",
        "%%prompt --model echo > reply\nHello {{name}}",
        "reply",
        "%%prompt --model echo\nHello {{nmae}}",
        "%dipeo models",
        "_.service if hasattr(_, 'service') else type(_).__name__",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(notebook, timeout=60, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}).execute()
    loaded, prompted, reply, wrong, table, _ = (cell.outputs for cell in notebook.cells)
    assert loaded == []
    (shown,) = prompted
    assert shown.data["text/markdown"].startswith("[echo] Hello Ada\n\n<small ")
    assert shown.metadata["dipeo"]["usage"]["total"] == 5
    assert reply[0].data["text/plain"] == "'[echo] Hello Ada'"
    (error,) = wrong
    assert error.ename == "TemplateError"
    assert "Did you mean 'name'?" in "\n".join(error.traceback)
    assert len(error.traceback) <= 4
    assert "<table>" in table[0].data["text/html"]
