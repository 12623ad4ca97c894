"""The commands for a folder: `init`, `list` and `doctor`, and what shells complete."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sqlite3
from pathlib import Path
from typing import Any

import nbformat
import pytest

from dipeo_nb import cli
from dipeo_nb.cli import doctor
from dipeo_nb.cli.folder import STARTER
from dipeo_nb.config import reset_settings
from dipeo_nb.diagram.detect import DEMOS
from tests.support.cli import Call, caller

FILES = {*STARTER, ".gitignore"}
CODE = """\
version: light
nodes:
  - {label: Start, type: start}
  - {label: Work, type: code_job, code: return 1}
  - {label: End, type: endpoint}
connections:
  - {from: Start, to: Work}
  - {from: Work, to: End}
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command in this process, in an empty folder that nobody has trusted yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIPEO_TRUST")
    reset_settings()

    return caller(capsys)


# init


def test_a_new_folder_runs_as_it_is(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The diagram of `init` is valid, needs neither model nor approval, asks one question and writes its file."""
    done = call("init", "mine")
    assert (done.code, "dipeo-nb trust ." in done.err) == (0, True)
    assert {path.name for path in Path("mine").iterdir()} == FILES
    monkeypatch.chdir("mine")
    monkeypatch.delenv("DIPEO_BASE_DIR")
    reset_settings()
    assert call("validate", "slogan").code == 0
    (row,) = call("list", "--json").json["diagrams"]
    assert (row["diagram"], row["persons"], row["needs"]) == ("slogan.light.yaml", ["Writer", "Critic"], [])
    done = call("run", "slogan", "-q", "--no-interactive", "--answer", "Approve=YES", "--input", "product=a tent")
    assert done.code == 0
    assert Path("slogan.txt").read_text() == done.out.rstrip("\n") + "\n"
    assert "a tent" in done.out or "Write a better one" in done.out
    Path("slogan.txt").unlink()
    assert call("run", "slogan", "-q", "--no-interactive", "--answer", "Approve=no").out.strip() == "no"
    assert not Path("slogan.txt").exists()


def test_the_notebook_runs_as_it_is(call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a model, an answer at the keyboard, or approval."""
    call("init")
    names: dict[str, Any] = {}

    async def cells() -> None:
        for cell in nbformat.read("slogan.ipynb", as_version=4).cells:
            if cell.cell_type == "code":
                made = eval(compile(cell.source, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
                if inspect.iscoroutine(made):
                    await made

    reset_settings()
    asyncio.run(cells())
    assert names["result"].outputs["Save"] in capsys.readouterr().out
    assert names["again"].outputs["Save"] == Path("slogan.txt").read_text()
    assert names["again"].outputs["Save"].isupper()


def test_files_that_exist_are_kept(call: Call) -> None:
    """Also empty ones, links and folders; the others are written; a second time nothing changes."""
    Path("dipeo.toml").write_text("")
    Path("elsewhere").write_text("mine")
    Path("slogan.light.yaml").symlink_to("elsewhere")
    Path("slogan.ipynb").mkdir()
    Path(".gitignore").symlink_to("nowhere")
    done = call("init")
    assert (done.code, done.out) == (0, "")
    assert "dipeo-nb trust" not in done.err  # whose files these are is not known
    assert [line for line in done.err.splitlines() if line.startswith("Kept: ")] == [
        "Kept: slogan.light.yaml", "Kept: slogan.ipynb", "Kept: dipeo.toml", "Kept: .gitignore",
    ]  # fmt: skip
    assert Path("elsewhere").read_text() == "mine"
    assert Path("dipeo.toml").read_text() == ""
    assert not Path("nowhere").exists()


def test_init_where_no_folder_can_be(call: Call) -> None:
    """A file of that name is a mistake with a hint; a folder that is not writable is one error."""
    Path("file").write_text("")
    for name in ("file", "file/below"):
        done = call("init", name)
        assert (done.code, Path("file").read_text()) in ((2, ""), (1, ""))
        assert done.err.startswith("error: ")


def test_the_starter_files_hold_together() -> None:
    """The notebook is stripped, its code is Python, and it names the diagram; the settings leave nothing to approve."""
    notebook = nbformat.read(DEMOS / "slogan.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    assert any('dp.load("slogan")' in cell.source for cell in notebook.cells)


# list


def test_list_shows_what_is_there(call: Call) -> None:
    """Diagrams with what they need, broken ones with why, other files not at all; nothing is written."""
    Path("sub").mkdir()
    Path("sub/code.light.yaml").write_text(CODE)
    Path("plain.yaml").write_text(CODE.replace("code_job, code: return 1", "template_job, template_content: x"))
    Path("broken.light.yaml").write_text("nodes: [")
    Path("wrong.light.yaml").write_text(CODE.replace("endpoint", "endpiont"))
    Path("settings.yaml").write_text("a: 1")
    Path("package.json").write_text("{}")
    done = call("list", "--json")
    rows = {row["diagram"]: row for row in done.json["diagrams"]}
    assert list(rows) == ["broken.light.yaml", "plain.yaml", "sub/code.light.yaml", "wrong.light.yaml"]
    assert done.code == 1
    assert rows["sub/code.light.yaml"] == {
        "diagram": "sub/code.light.yaml", "format": "light", "nodes": 3, "persons": [], "needs": ["code"], "error": None,
    }  # fmt: skip
    assert (rows["plain.yaml"]["needs"], rows["plain.yaml"]["error"]) == ([], None)
    assert "not valid YAML" in rows["broken.light.yaml"]["error"]
    assert "endpiont" in rows["wrong.light.yaml"]["error"]
    assert not Path(".dipeo").exists()
    shown = call("list").out
    assert "needs approval for" in shown
    assert "settings.yaml" not in shown
    Path("broken.light.yaml").unlink()
    Path("wrong.light.yaml").unlink()
    assert call("list").code == 0
    assert call("trust", ".").code == 0
    assert [row["needs"] for row in call("list", "--json").json["diagrams"]] == [[], []]


def test_list_of_another_folder(call: Call) -> None:
    """An empty one says how to begin; a missing one is a mistake."""
    Path("empty").mkdir()
    done = call("list", "empty")
    assert (done.code, "dipeo-nb init" in done.err) == (0, True)
    assert call("list", "nowhere").code == 2


def test_names_of_files_cannot_steer_the_terminal(call: Call) -> None:
    """Control characters in names and messages are spelled out."""
    Path("a\x1b[31m.light.yaml").write_text(CODE)
    assert "\x1b[31m" not in call("list").out


# doctor


def findings(call: Call, *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = call("doctor", "--json", *arguments)
    assert done.json["ok"] is (done.code == 0)
    return done.code, {found["what"]: found for found in done.json["findings"]}


def test_a_healthy_installation(call: Call) -> None:
    """Every check is there, none is a problem; looking writes nothing."""
    code, found = findings(call)
    assert code == 0
    assert list(found) == [
        "python", "extras", "settings", "keys", "models", "default model", "local model", "jupyter", "run store", "base directory",
        "your data", "cache", "disk", "proxy",
    ]  # fmt: skip
    assert {f["verdict"] for f in found.values()} <= {"ok", "note"}
    assert all(f["fix"] for f in found.values() if f["verdict"] == "note")
    assert list(Path().iterdir()) == []
    assert "python" in call("doctor").out


def test_keys_are_shown_by_name_only(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the end of one; passwords of proxies and databases are masked."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-abcdefghijklmnop9876")
    monkeypatch.setenv("https_proxy", "http://ann:hunter22@proxy.example:3128")
    monkeypatch.setenv("http_proxy", "ann:hunter22@proxy.example:3128")
    reset_settings()
    done = call("doctor", "--json")
    shown = {found["what"]: found for found in done.json["findings"]}
    assert "openai" in shown["keys"]["found"]
    assert "proxy.example" in shown["proxy"]["found"]
    assert not {"9876", "hunter22"} & {word for word in ("9876", "hunter22") if word in done.out}


@pytest.mark.parametrize(
    ("variable", "value", "what", "said"),
    [
        ("STATE_STORE_PATH", "bad.db", "run store", "bad.db"),
        ("https_proxy", "nonsense://x", "proxy", "nonsense"),
        ("DIPEO_LOCAL_MODEL", "/nowhere/model.gguf", "local model", "not a file"),
    ],
)
def test_problems(call: Call, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, what: str, said: str) -> None:
    """Each names its cause and a next action; the other checks go on."""
    Path("bad.db").write_bytes(b"no database" * 500)
    monkeypatch.setenv(variable, value)
    reset_settings()
    code, found = findings(call)
    assert (code, found[what]["verdict"]) == (1, "problem")
    assert said in found[what]["found"]
    assert found[what]["fix"]
    assert found["disk"]


@pytest.mark.parametrize(("free", "verdict"), [(60_000_000_000, "ok"), (500_000_000, "note"), (1_000_000, "problem")])
def test_the_disk(call: Call, monkeypatch: pytest.MonkeyPatch, free: int, verdict: str) -> None:
    """Little room is a note; none is a problem."""
    usage = type("Usage", (), {"free": free})()
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: usage)
    assert findings(call)[1]["disk"]["verdict"] == verdict


def test_settings_that_wait(call: Call) -> None:
    """What the folder suggests is a note that says how to look at it and approve it."""
    Path("dipeo.toml").write_text('default_llm_model = "openai:gpt-6-luna"\n')
    reset_settings()
    code, found = findings(call)
    assert code == 0
    assert "default_llm_model" in found["settings"]["found"]
    assert "dipeo-nb trust ." in found["default model"]["fix"]
    Path("dipeo.toml").write_text(
        'STATE_STORE_PATH = "postgresql://ann:hunter22@127.0.0.1:1/x"\nOLLAMA_HOST = "http://127.0.0.1:1"\n'
    )
    reset_settings()
    code, found = findings(call)
    assert (code, found["run store"]["verdict"], found["base directory"]["verdict"]) == (1, "problem", "ok")
    assert "needs your approval" in found["run store"]["found"]  # it was not called
    assert "hunter22" not in str(found)


def test_the_run_store_is_opened(call: Call) -> None:
    """One that is there and fine is ok."""
    call("run", "demo:slogan", "-m", "echo", "-q", "--no-interactive", "--answer", "Approve=no")
    sqlite3.connect(".dipeo/runs.db").close()
    assert findings(call)[1]["run store"]["verdict"] == "ok"


# Completion


def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str, *words: str) -> list[str]:
    """What a shell offers for the last of the words."""
    line = " ".join(("dipeo-nb", *words))
    monkeypatch.setenv("_DIPEO_NB_COMPLETE", f"complete_{shell}")
    for name, value in (
        ("COMP_WORDS", line),
        ("COMP_CWORD", str(len(words))),
        ("_TYPER_COMPLETE_ARGS", line),
        ("_TYPER_COMPLETE_FISH_ACTION", "get-args"),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        cli.main([])
    return capsys.readouterr().out.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_are_offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str) -> None:
    """In each shell, new ones too."""
    assert "doctor" in " ".join(offered(monkeypatch, capsys, shell, "doc"))


def test_words_are_offered(call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Diagrams, models, formats, statuses, services, ids of runs and nodes that ask; a name with a space is not, as bash would break it."""
    call("init")
    Path("two words.light.yaml").write_text(CODE)
    run_id = call("run", "slogan", "--json", "-q", "--no-interactive", "--answer", "Approve=no").json["run_id"]
    for words, expected in (
        (["run", "s"], ["slogan.light.yaml"]),
        (["run", "t"], []),
        (["run", "demo"], ["demo:debate", "demo:slogan"]),
        (["validate", "slo"], ["slogan.light.yaml"]),
        (["run", "slogan", "--model", "ec"], ["echo"]),
        (["run", "slogan", "--answer", "A"], ["Approve="]),
        (["run", "--answer", "A"], []),
        (["convert", "slogan", "--to", "na"], ["native"]),
        (["runs", "--status", "comp"], ["completed"]),
        (["keys", "set", "opena"], ["openai"]),
        (["explain", "exec_"], [run_id]),
        (["explain", run_id.removeprefix("exec_")[:3]], [run_id.removeprefix("exec_")[:8]]),
        (["runs", "delete", "exec_"], [run_id]),
    ):
        assert offered(monkeypatch, capsys, "bash", *words) == expected, words
    Path(".dipeo/runs.db").write_bytes(b"no database" * 500)
    assert offered(monkeypatch, capsys, "bash", "explain", "exec_") == []
