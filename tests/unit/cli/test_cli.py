"""The command `dipeo-nb`: what it prints where, its exit codes, and that it never leaves a mess."""

from __future__ import annotations

import inspect
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dipeo_nb.cli.group import COMMANDS, loaded
from dipeo_nb.config import reset_settings
from dipeo_nb.diagram.detect import DEMOS
from dipeo_nb.terminal import safe
from tests.support.cli import HELLO, Call, caller

ASKING = """\
version: light
nodes:
  - {label: Start, type: start}
  - {label: Your name, type: user_response, prompt: "Who are you?"}
  - {label: End, type: endpoint}
connections:
  - {from: Start, to: Your name}
  - {from: Your name, to: End}
"""
CODE = """\
version: light
nodes:
  - {label: Start, type: start}
  - label: Work
    type: code_job
    code: |
CODE
  - {label: End, type: endpoint}
connections:
  - {from: Start, to: Work}
  - {from: Work, to: End}
"""
REPORT_KEYS = {
    "run_id", "status", "diagram", "outputs", "node_runs", "node_status", "usage", "cost_usd", "duration_s", "events", "notes", "error",
}  # fmt: skip


def code(*lines: str) -> str:
    return CODE.replace("CODE", "\n".join(f"      {line}" for line in lines))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command in this process, in a folder of its own that holds the diagrams above."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("hello", HELLO), ("asking", ASKING)):
        Path(f"{name}.light.yaml").write_text(text)

    return caller(capsys)


# run


def test_run_prints_outputs_on_stdout_and_progress_on_stderr(call: Call) -> None:
    """The endpoint's text is all of stdout; what happened on the way is on stderr."""
    done = call("run", "hello.light.yaml", "--model", "echo", "--input", "name=Bo")
    assert done.code == 0
    assert "Bo" in done.out
    assert "Greet" in done.err
    assert "completed" in done.err


def test_run_json_is_one_object_of_the_promised_shape(call: Call) -> None:
    """`run --json` has exactly the documented keys."""
    done = call("run", "hello.light.yaml", "--model", "echo", "--json", "--input", "name=Bo")
    assert done.code == 0
    assert set(done.json) == REPORT_KEYS
    assert done.json["status"] == "completed"
    assert done.json["node_runs"] == {"Start": 1, "Greet": 1, "End": 1}
    assert set(done.json["node_status"].values()) == {"completed"}
    assert "Bo" in done.json["outputs"]["End"]
    assert done.json["error"] is None


def test_quiet_run_says_nothing_on_stderr(call: Call) -> None:
    """-q leaves only the result."""
    assert call("run", "hello.light.yaml", "--model", "echo", "-q", "--input", "name=Bo").err == ""


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("true", True), ('{"a": [1]}', {"a": [1]}), ("tabs", "tabs"), ("", "")])
def test_inputs_are_json_when_they_parse(call: Call, text: str, value: object) -> None:
    """--input x=3 is a number, --input x=tabs is text."""
    Path("code.light.yaml").write_text(code("return repr(x)"))
    done = call("run", "code.light.yaml", "--json", "--input", f"x={text}")
    assert done.json["outputs"]["End"] == repr(value)


def test_inputs_file_gives_variables_that_input_overrides(call: Call) -> None:
    """--inputs holds one JSON object; --input wins over it."""
    Path("code.light.yaml").write_text(code("return f'{x} {y}'"))
    Path("in.json").write_text('{"x": 1, "y": 2}')
    done = call("run", "code.light.yaml", "--json", "--inputs", "in.json", "--input", "y=3")
    assert done.json["outputs"]["End"] == "1 3"


def test_inputs_that_are_json_but_no_object_are_refused_as_such(call: Call) -> None:
    """A list is not taken for the name of a file."""
    done = call("run", "hello.light.yaml", "--inputs", "[1]")
    assert done.code == 2
    assert "--inputs holds a list, not an object." in done.err


def test_a_resumed_run_is_still_named_at_its_end(call: Call) -> None:
    """The last line of a resumed run names the diagram and the model, which only the first part of its record has."""
    Path("failing.light.yaml").write_text(code("raise ValueError(1)"))
    run_id = call("run", "failing.light.yaml", "--model", "echo", "--json").json["run_id"]
    assert "failed · failing · echo · " in call("resume", run_id).err


def test_validate_counts_in_the_singular(call: Call) -> None:
    """One arrow is an arrow."""
    Path("two.light.yaml").write_text(
        "version: light\nnodes: [{label: A, type: start}, {label: B, type: endpoint}]\nconnections: [{from: A, to: B}]\n"
    )
    assert "2 nodes, 1 arrow\n" in call("validate", "two.light.yaml").out


def test_given_answers_reach_the_questions(call: Call) -> None:
    """--answer NODE=TEXT answers a user_response node; the text may hold `=`."""
    done = call("run", "asking.light.yaml", "--json", "--answer", "Your name=a=b")
    assert done.code == 0
    assert done.json["outputs"]["End"] == "a=b"


def test_given_answers_reach_questions_of_sub_diagrams(call: Call) -> None:
    """By label or path, also for one item of a batch; a name of nobody is refused with the nearest one."""
    batch = {"label": "Each = one", "type": "sub_diagram", "diagram_name": "asking.light.yaml", "batch": True}
    nodes = [{"label": "Start", "type": "start"}, batch, {"label": "End", "type": "endpoint"}]
    arrows = [{"from": "Start", "to": batch["label"]}, {"from": batch["label"], "to": "End", "content_type": "object"}]
    Path("outer.light.yaml").write_text(json.dumps({"version": "light", "nodes": nodes, "connections": arrows}))
    base = ["run", "outer.light.yaml", "--json", "--input", "items=[1, 2]"]
    done = call(*base, "--answer", "Your name=Ada", "--answer", "Each = one[1]/Your name=B=b")
    assert done.json["outputs"]["End"] == ["Ada", "B=b"]
    refused = call(*base, "--answer", "Your nam=Ada")
    assert refused.code == 2
    assert "Did you mean 'Your name'?" in refused.err


def test_a_question_without_answer_fails_with_the_way_out(call: Call) -> None:
    """Where nobody can answer the run fails and the hint names --answer."""
    done = call("run", "asking.light.yaml", "--json")
    assert done.code == 1
    assert done.json["status"] == "failed"
    assert done.json["error"]["node"] == "Your name"
    assert "--answer" in done.json["error"]["hint"]


def test_a_failed_run_exits_1_and_names_node_and_cause(call: Call) -> None:
    """A run that fails is reported with its counts, and in one line on stderr."""
    Path("code.light.yaml").write_text(code("raise ValueError('no luck')"))
    done = call("run", "code.light.yaml", "--json")
    assert done.code == 1
    assert set(done.json) == REPORT_KEYS
    assert set(done.json["error"]) == {"type", "message", "node", "hint"}
    assert (done.json["status"], done.json["error"]["node"]) == ("failed", "Work")
    assert "no luck" in done.json["error"]["message"]
    assert "error: " in done.err


def test_timeout_fails_the_run(call: Call) -> None:
    """--timeout limits the whole run."""
    Path("code.light.yaml").write_text(code("import time", "time.sleep(60)"))
    done = call("run", "code.light.yaml", "--json", "--timeout", "0.5")
    assert (done.code, done.json["error"]["type"]) == (1, "RunTimeoutError")


MISTAKES = {
    "no file": (["run", "nothing.light.yaml"], "nothing.light.yaml"),
    "a folder": (["run", "."], ""),
    "input without =": (["run", "hello.light.yaml", "--input", "name"], "NAME=VALUE"),
    "inputs missing": (["run", "hello.light.yaml", "--inputs", "nothing.json"], "nothing.json"),
    "inputs not an object": (["run", "hello.light.yaml", "--inputs", "list.json"], "a list"),
    "answer without =": (["run", "asking.light.yaml", "--answer", "Ada"], "'Your name'"),
    "answer to no node": (["run", "asking.light.yaml", "--answer", "Nobody=Ada"], "'Your name'"),
    "answer nobody asks for": (["run", "hello.light.yaml", "--answer", "Greet=Ada"], "--answer"),
    "base dir missing": (["run", "hello.light.yaml", "--base-dir", "nowhere"], "nowhere"),
    "empty model": (["run", "hello.light.yaml", "--model", ""], "--model"),
    "negative timeout": (["run", "hello.light.yaml", "--timeout", "-1"], "--timeout"),
    "empty file": (["run", "empty.light.yaml"], "empty"),
    "not a diagram": (["run", "list.json"], ""),
    "binary file": (["run", "binary.light.yaml"], ""),
    "bad YAML": (["run", "bad.light.yaml"], "bad.light.yaml"),
    "unknown person": (["run", "person.light.yaml"], "Adda"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_exit_2_with_one_message_and_a_next_action(call: Call, case: str) -> None:
    """Bad arguments and bad diagrams: exit code 2, one error with a hint, nothing run, the JSON object still printed."""
    Path("list.json").write_text("[1, 2]")
    Path("empty.light.yaml").write_text("")
    Path("binary.light.yaml").write_bytes(bytes(range(256)) * 4)
    Path("bad.light.yaml").write_text("version: light\nnodes: [\n  - {label: x")
    Path("person.light.yaml").write_text(HELLO.replace("person: Ada", "person: Adda"))
    arguments, expected = MISTAKES[case]
    before = set(Path().rglob("*"))
    done = call(*arguments, "--json")
    assert done.code == 2
    assert set(done.json) == REPORT_KEYS
    assert (done.json["status"], done.json["run_id"]) == ("refused", None)
    assert done.err.count("error: ") >= 1
    assert expected in done.err
    assert set(Path().rglob("*")) == before


def test_unknown_options_and_commands_exit_2(call: Call) -> None:
    """What the parser refuses looks like every other mistake."""
    for arguments in (
        ["rnu"],
        ["run"],
        ["run", "hello.light.yaml", "--modle", "echo"],
        ["render", "hello.light.yaml"],
        [],
    ):
        done = call(*arguments)
        assert done.code == 2
        assert done.err.startswith("error: ") or not arguments


def test_code_from_elsewhere_needs_trust(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of a diagram that is not below a trusted folder runs only with --trust."""
    (tmp_path / "inside").mkdir()
    monkeypatch.setenv("DIPEO_TRUST", str(tmp_path / "inside"))
    Path("code.light.yaml").write_text(code("return 42"))
    done = call("run", "code.light.yaml", "--json", "--base-dir", "inside")
    assert done.code == 2
    assert "--trust" in done.json["error"]["hint"]
    assert call("run", "code.light.yaml", "--json", "--base-dir", "inside", "--trust").json["outputs"]["End"] == 42


def test_a_name_given_to_the_run_is_no_cause_for_a_warning(call: Call) -> None:
    """The warning about a name that no arrow brings appears only when the run is not given it either."""
    assert "unknown-name" in call("run", "hello.light.yaml", "--model", "echo").err
    assert "unknown-name" not in call("run", "hello.light.yaml", "--model", "echo", "--input", "name=Bo").err


# The other commands


def test_validate_says_what_is_wrong_and_where(call: Call) -> None:
    """Each finding has a place; exit code 2 when one is an error."""
    assert call("validate", "hello.light.yaml").code == 0
    Path("person.light.yaml").write_text(HELLO.replace("person: Ada", "person: Adda"))
    done = call("validate", "person.light.yaml")
    assert done.code == 2
    assert "person.light.yaml:6:" in done.err
    found = call("validate", "person.light.yaml", "--json").json
    assert found["valid"] is False
    error = next(d for d in found["diagnostics"] if d["severity"] == "error")
    assert (error["line"], error["node"]) == (6, "Greet")
    assert "Ada" in error["hint"]


def test_validate_json_of_something_unreadable(call: Call) -> None:
    """A file that is no diagram is one finding."""
    Path("empty.light.yaml").write_text("")
    done = call("validate", "empty.light.yaml", "--json")
    assert (done.code, done.json["valid"], len(done.json["diagnostics"])) == (2, False, 1)


@pytest.mark.parametrize("target", ["light", "native", "readable", "executable"])
def test_convert_writes_what_can_be_read_again(call: Call, target: str) -> None:
    """There and back gives the same diagram; stdout and -o give the same text."""
    suffix = f".{target}.json" if target in ("native", "executable") else f".{target}.yaml"
    printed = call("convert", "hello.light.yaml", "--to", target)
    written = call("convert", "hello.light.yaml", "-o", f"out{suffix}")
    assert (printed.code, written.code, written.out) == (0, 0, "")
    assert Path(f"out{suffix}").read_text() == printed.out
    counts = call("run", f"out{suffix}", "--model", "echo", "--json", "--input", "name=Bo").json["node_runs"]
    assert counts == {"Start": 1, "Greet": 1, "End": 1}


def test_convert_refuses_without_touching_the_target(call: Call) -> None:
    """An error leaves the file that was there as it was."""
    Path("out.native.json").write_text("precious")
    Path("empty.light.yaml").write_text("")
    for arguments in (["empty.light.yaml", "--to", "native"], ["hello.light.yaml", "--to", "gibberish"]):
        assert call("convert", *arguments, "-o", "out.native.json").code == 2
    assert call("convert", "hello.light.yaml").code == 2
    assert Path("out.native.json").read_text() == "precious"


@pytest.mark.parametrize(("suffix", "begin"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!"), ("mmd", b"")])
def test_render_draws_every_kind(call: Call, suffix: str, begin: bytes) -> None:
    """The suffix of OUT decides what is drawn."""
    assert call("render", "hello.light.yaml", "-o", f"out.{suffix}").code == 0
    data = Path(f"out.{suffix}").read_bytes()
    assert data.lstrip().lower().startswith(begin.lower())
    assert b"Greet" in data or suffix == "png"


def test_render_refuses_what_it_cannot_draw(call: Call) -> None:
    """An unknown suffix or theme is a mistake, and no file appears."""
    assert call("render", "hello.light.yaml", "-o", "out.gif").code == 2
    assert call("render", "hello.light.yaml", "-o", "out.svg", "--theme", "pink").code == 2
    assert not list(Path().glob("out.*"))


def test_runs_lists_what_was_run(call: Call) -> None:
    """Finished and failed runs are listed, newest first; before the first run that is said."""
    assert "No runs" in call("runs").out
    first = call("run", "hello.light.yaml", "--model", "echo", "--json", "--input", "name=Bo").json["run_id"]
    second = call("run", "asking.light.yaml", "--json").json["run_id"]
    rows = call("runs", "--json").json["runs"]
    assert [(r["run_id"], r["status"]) for r in rows] == [(second, "failed"), (first, "completed")]
    table = call("runs").out
    for run_id in (first, second):
        assert run_id not in table
        assert run_id.removeprefix("exec_")[:8] in table
    assert "just now" in table or " s ago" in table
    full = call("runs", "--full").out
    assert first in full
    assert second in full
    rights = [line.index(" tokens") + len(" tokens") for line in table.splitlines() if " tokens" in line]
    (row,) = [line for line in table.splitlines() if first.removeprefix("exec_")[:8] in line]
    assert row[rights[0] - 1].isdigit()
    assert row[: rights[0] + 1].endswith(" ")
    assert [r["run_id"] for r in call("runs", "--json", "--status", "completed").json["runs"]] == [first]
    assert call("runs", "--status", "purple").code == 2
    for command in (("runs",), ("runs", "prune", "--older-than", "1d")):
        refused = call(*command, "--status", "complted")
        assert (refused.code, "Did you mean 'completed'" in refused.err) == (2, True)


def test_a_key_of_a_misspelt_service_is_remarked_on(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any service may have a key; one that is nearly called as a service of models is probably meant for that."""
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path_factory.mktemp("data")))
    for name, remark in (("opnai", "If you mean 'openai'"), ("openai", None), ("slack", None)):
        monkeypatch.setattr("sys.stdin", io.StringIO("sk-0123456789abcdef\n"))
        done = call("keys", "set", name)
        assert done.code == 0
        assert ("If you mean" in done.err) == (remark is not None)
        assert remark is None or remark in done.err


def test_short_ids_name_runs_in_every_command(call: Call) -> None:
    """What the list shows is taken by every command; a beginning of several runs is one clear error that names them."""
    run_id = call("run", "hello.light.yaml", "--model", "echo", "--json", "--input", "name=Bo").json["run_id"]
    call("run", "hello.light.yaml", "--model", "echo", "--json", "--input", "name=Ada")
    short = run_id.removeprefix("exec_")[:8]
    assert call("replay", short, "--speed", "1000").code == 0
    assert call("explain", short).code == 0
    assert call("diff", short, f"exec_{short}").code == 0
    assert call("export", short, "-o", "out.json").code == 0
    assert call("export", short, "-o", "out.html").code == 0
    assert Path("out.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert call("runs", "--parent", short, "--json").json == {"runs": []}
    for refused in (("resume", short), ("answer", short, "x"), ("runs", "--parent", "nope"), ("replay", "nope")):
        done = call(*refused)
        assert done.code != 0
        assert ("There is no run" in done.err) is ("nope" in refused)
    several = call("runs", "delete", "exec_")
    assert several.code != 0
    assert "2 runs begin with 'exec_': " in several.err
    assert short in several.err
    assert call("runs", "delete", short).code == 0
    assert [row["run_id"] for row in call("runs", "--json").json["runs"]] != [run_id]


def test_schema_is_a_schema_that_takes_the_demo(call: Call) -> None:
    """The printed JSON Schema is one, and the packaged diagram fits it."""
    import jsonschema
    import yaml

    printed = call("schema").json
    jsonschema.Draft202012Validator.check_schema(printed)
    jsonschema.validate(yaml.safe_load((DEMOS / "debate.light.yaml").read_text()), printed)


def test_a_group_alone_lists_or_shows_its_help(call: Call) -> None:
    assert call("keys").out == call("keys", "list").out
    assert call("keys", "--json").json == call("keys", "list", "--json").json
    shown = call("codegen")
    assert shown.code == 2
    assert "parse" in shown.out
    assert shown.err == ""


def test_models_are_listed(call: Call) -> None:
    """The default embedded model is in the list."""
    names = [m["name"] for m in call("models", "list", "--json").json["models"]]
    assert "smollm2-135m" in names
    assert "smollm2-135m" in call("models", "list").out


def test_demo_runs_on_any_model(call: Call) -> None:
    """The packaged debate: two rounds of two persons, then the editor."""
    done = call("demo", "--model", "echo", "--json", "--topic", "homework for robots")
    assert done.code == 0
    assert {k: done.json["node_runs"][k] for k in ("Sunny", "Grump", "Editor", "Headline")} == {
        "Sunny": 2, "Grump": 2, "Editor": 1, "Headline": 1,
    }  # fmt: skip
    assert "homework for robots" in done.json["outputs"]["Headline"]


# Being a good citizen of the terminal


def test_text_cannot_steer_the_terminal() -> None:
    """Escapes, other controls and direction overrides are spelled out; newlines stay."""
    assert safe("a\x1b[31mb\x07\nc\u202ed\x9b1m") == r"a\x1b[31mb\x07" + "\n" + r"c\u202ed\x9b1m"
    assert safe("x" * 100, 10) == "x" * 9 + "…"


def test_a_hostile_label_is_shown_harmless(call: Call) -> None:
    """Progress lines carry no escape sequences of a label."""
    evil = '"\\e]0;owned\\a\\e[2J<script>"'
    text = (
        HELLO.replace("label: Greet", f"label: {evil}")
        .replace("to: Greet", f"to: {evil}")
        .replace("from: Greet", f"from: {evil}")
    )
    Path("evil.light.yaml").write_text(text)
    done = call("run", "evil.light.yaml", "--model", "echo", "--input", "name=Bo")
    assert done.code == 0
    assert "\x1b" not in done.err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    """The table from which `--help` lists the commands, and the help of each."""
    assert inspect.cleandoc(loaded(name).help).partition("\n\n")[0].replace("\n", " ") == COMMANDS[name].help


def test_help_and_first_run_import_nothing_heavy(tmp_path: Path) -> None:
    """The command starts fast: no vendor SDK, no notebook machinery, no model engine for a run on echo."""
    (tmp_path / "hello.light.yaml").write_text(HELLO)
    program = """
import sys
from dipeo_nb.cli import main
assert not {"rich", "pydantic", "dipeo_nb.container"} & set(sys.modules), "too much for --help"
assert main(["run", "hello.light.yaml", "--model", "echo", "-q"]) == 0
heavy = {"openai", "anthropic", "google.genai", "ollama", "xllamacpp", "IPython", "ipywidgets", "anywidget", "genai_prices",
         "jsonschema", "resvg_py", "dipeo_nb.notebook"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_is_recorded_and_leaves_no_process(tmp_path: Path, number: int) -> None:
    """Ctrl-C (SIGTERM, a closed terminal): exit code 130, the run is marked aborted, its code's process is gone, JSON is still printed."""
    (tmp_path / "code.light.yaml").write_text(
        code("import os, pathlib, time", "pathlib.Path('pid').write_text(str(os.getpid()))", "time.sleep(60)")
    )
    command = [sys.executable, "-m", "dipeo_nb", "run", "code.light.yaml", "--json", "--base-dir", "."]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker = int((tmp_path / "pid").read_text())
    assert worker != process.pid
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert json.loads(out)["status"] == "aborted"
    assert "Traceback" not in err
    assert not psutil.pid_exists(worker)
    listed = subprocess.run(
        [sys.executable, "-m", "dipeo_nb", "runs", "--json", "--base-dir", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [r["status"] for r in json.loads(listed.stdout)["runs"]] == ["aborted"]


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`dipeo-nb schema | head -1` ends quietly."""
    done = subprocess.run(
        f"'{sys.executable}' -m dipeo_nb schema | head -c 10",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="not here: needs a pseudo-terminal")
def test_live_view_and_question_in_a_terminal(tmp_path: Path) -> None:
    """On a terminal the run is drawn in place, and a question waits for the keyboard."""
    import pexpect

    (tmp_path / "asking.light.yaml").write_text(ASKING)
    child = pexpect.spawn(
        sys.executable, ["-m", "dipeo_nb", "run", "asking.light.yaml"], cwd=str(tmp_path), timeout=20, encoding="utf-8",
        dimensions=(30, 100), env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    child.expect("Who are you")
    child.sendline("Ada Lovelace")
    child.expect("completed")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Ada Lovelace" in (child.before or "")


@pytest.mark.skipif(os.name == "nt", reason="not here: needs a pseudo-terminal")
@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 2)])
def test_trust_is_asked_for_in_a_terminal(tmp_path: Path, answer: str, status: int) -> None:
    """The code is shown first; only a yes runs it."""
    import pexpect

    (tmp_path / "inside").mkdir()
    (tmp_path / "code.light.yaml").write_text(code("return 6 * 7"))
    child = pexpect.spawn(
        sys.executable, ["-m", "dipeo_nb", "run", "code.light.yaml", "--base-dir", "inside"], cwd=str(tmp_path), timeout=20,
        encoding="utf-8", env={**os.environ, "TERM": "xterm-256color", "DIPEO_TRUST": str(tmp_path / "inside")},
    )  # fmt: skip
    child.expect("return 6")
    child.expect(r"Run it\?")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == status


# Words of DiPeO's own command line, and diagrams through pipes


def pipe(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_the_format_may_be_given_in_three_ways(call: Call) -> None:
    """`--light`, `--format light` and the name say the same; a wrong one is a mistake."""
    Path("plain.txt").write_text(HELLO)
    for flag in (["--light"], ["--format", "light"], ["--from-format", "light"], ["--from-format=light"]):
        assert call("validate", "plain.txt", *flag).code == 0
        assert call("convert", "plain.txt", "--to", "native", *flag).code == 0
        assert call("render", "plain.txt", "-o", "out.mmd", *flag).code == 0
        assert call("run", "plain.txt", *flag, "-m", "echo", "-q", "-i", "name=Bo").code == 0
    assert "'connections' is not a part" in call("validate", "plain.txt", "--readable").err
    assert "Did you mean 'light'" in call("validate", "plain.txt", "--format", "lihgt").err


def test_variables_are_an_object_or_a_file_of_one(call: Call) -> None:
    """`--inputs` and `--input-data` take either."""
    Path("inputs.json").write_text('{"name": "Bo"}')
    for option in ("--inputs", "--input-data"):
        for value in ('{"name": "Bo"}', ' {"name": "Bo"}', "inputs.json"):
            assert "Bo" in call("run", "hello.light.yaml", "-m", "echo", option, value).out
    assert "not JSON" in call("run", "hello.light.yaml", "--input-data", "{name: Bo}").err


def test_debug_may_stand_behind_the_command(tmp_path: Path) -> None:
    """It shows the traceback there, too; behind `--` it is an argument."""
    for arguments, shown in (
        (["render", "nothing", "-o", "a.svg", "--debug"], True),
        (["render", "nothing", "-o", "a.svg"], False),
        (["render", "-o", "a.svg", "--", "--debug"], False),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "dipeo_nb", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert ("Traceback" in done.stderr) is shown


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["run", "hello", "--timing"], "dipeo-nb explain"),
        (["run", "hello", "--background"], "dipeo-nb serve"),
        (["run", "hello", "--simple"], "--quiet"),
        (["metrics", "--latest"], "dipeo-nb runs -n 1"),
        (["ask", "--to", "a haiku"], "dipeo-nb init"),
        (["export", "hello.light.yaml", "out.py", "--light"], 'dp.run("hello.light.yaml")'),
        (["export", "hello", "-o", "out.py"], 'dp.run("hello")'),
    ],
)
def test_other_words_of_dipeo_have_a_line_of_advice(call: Call, arguments: list[str], advice: str) -> None:
    """Exit code 2, and our word for it."""
    done = call(*arguments)
    assert done.code == 2
    assert advice in done.err.splitlines()[1]


def test_commands_of_dipeo_that_do_the_same(call: Call) -> None:
    """`compile` and `stats` check, `metrics` explains, `results` prints the report, with their options before or behind."""
    for arguments in (["compile", "hello", "--light"], ["--debug", "stats", "hello.light.yaml"]):
        assert "is valid" in call(*arguments).out
    call("run", "hello", "-m", "echo", "-q")
    run_id = call("runs", "--json").json["runs"][0]["run_id"]
    assert "completed in" in call("metrics", run_id).out
    assert call("results", run_id).json == call("export", run_id).json
    assert call("results", run_id).json["run_id"] == run_id


def test_nobody_is_asked_without_interaction(call: Call) -> None:
    """A question then has its default, or is an error that says how to answer beforehand."""
    done = call("run", "asking.light.yaml", "--no-interactive")
    assert (done.code, "--answer 'Your name=…'" in done.err) == (1, True)
    Path("asking.light.yaml").write_text(ASKING.replace("prompt:", "default: Ada, prompt:"))
    assert call("run", "asking.light.yaml", "--no-interactive", "-q").out.strip() == "Ada"


@pytest.mark.parametrize("target", ["light", "native", "readable", "executable"])
def test_a_diagram_through_a_pipe(call: Call, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """`-` is checked, converted, drawn and run like a file, in any format."""
    text = call("convert", "hello.light.yaml", "--to", target).out
    for arguments in (["validate", "-"], ["convert", "-", "--to", "light"], ["render", "-", "-o", "out.svg"]):
        pipe(monkeypatch, text)
        assert call(*arguments).code == 0
    pipe(monkeypatch, text)
    assert "Greet Bo" in call("run", "-", "-m", "echo", "-i", "name=Bo").out


def test_what_comes_through_a_pipe_is_checked_and_not_trusted(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistakes have places; code runs with --trust only; no text and no UTF-8 are mistakes."""
    pipe(monkeypatch, HELLO.replace("person: Ada", "person: Adda"))
    done = call("validate", "-")
    assert (done.code, "6:" in done.err, "Did you mean 'Ada'" in done.err) == (2, True, True)
    pipe(monkeypatch, code("return 42"))
    assert "--trust" in call("run", "-").err
    pipe(monkeypatch, code("return 42"))
    assert call("run", "-", "--trust", "-q").out.strip() == "42"
    for data in ("", b"\xff\xfe\x00"):
        pipe(monkeypatch, data)
        assert call("validate", "-").code == 2


def test_names_near_by_and_demos(call: Call) -> None:
    """A misspelt name has a suggestion, with the path where the name is not enough; `demo:` names the packaged ones."""
    folder = Path("examples/light_diagrams")
    folder.mkdir(parents=True)
    (folder / "debate.light.yaml").write_text(HELLO)
    for name, meant in (
        ("helo", "'hello'"),
        ("helo.light.yaml", "'hello'"),
        ("debat", "'examples/light_diagrams/debate.light.yaml'"),
        ("demo:debat", "'demo:debate'"),
    ):
        done = call("validate", name)
        assert (done.code, f"Did you mean {meant}" in done.err) == (2, True)
    assert call("validate", "demo:debate").code == 0


UNRUNNABLE = HELLO.replace(
    'type: person_job, person: Ada, default_prompt: "Greet {{name}}", max_iteration: 1', "type: integrated_api, operation: read"
)
PARENT = HELLO.replace(
    'type: person_job, person: Ada, default_prompt: "Greet {{name}}", max_iteration: 1',
    "type: sub_diagram, diagram_name: child",
)


@pytest.mark.parametrize(
    ("child", "code"),
    [
        (UNRUNNABLE, 2),
        (PARENT.replace("child", "grandchild"), 2),
        (PARENT, 0),  # leads back to itself
        (HELLO, 0),
        (HELLO.replace("person: Ada", "person: Adda"), 0),  # a warning: it may be put right before it is reached
        (None, 0),
    ],
)
def test_validate_says_what_run_would_refuse(call: Call, child: str | None, code: int) -> None:
    """What has no adapter here is an error of both, in the diagram and in those it runs, before anything runs."""
    Path("grandchild.light.yaml").write_text(UNRUNNABLE)
    Path("parent.light.yaml").write_text(PARENT)
    if child is not None:
        Path("child.light.yaml").write_text(child)
    done = call("validate", "parent.light.yaml")
    assert done.code == code
    if code:
        assert "no operation" in done.err
        refused = call("run", "parent.light.yaml", "-m", "echo", "--json")
        assert (refused.code, refused.json["status"]) == (2, "refused")
        assert call("validate", "grandchild.light.yaml").code == call("run", "grandchild.light.yaml", "-m", "echo").code == 2
        tolerant = PARENT.replace("diagram_name: child", "diagram_name: child, on_error: continue")
        Path("tolerant.light.yaml").write_text(tolerant)
        assert call("validate", "tolerant.light.yaml").code == 0
    elif child is None or "Adda" in child:
        assert "warning[not-runnable]" in done.err


@pytest.mark.parametrize("setting", ["DIPEO_EVENT_BUS", "STATE_STORE_PATH", "DIPEO_BLOB_STORE", "DIPEO_CONVERSATION_STORE"])
def test_validate_refuses_settings_that_run_would_refuse(call: Call, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """They are looked at without building what runs need."""
    monkeypatch.setenv(setting, "nothing://of-the-kind")
    reset_settings()
    validated, run = (call(command, "hello.light.yaml") for command in ("validate", "run"))
    assert validated.code == run.code == 2
    assert validated.err.startswith("error: ")
    assert validated.err == run.err


def test_what_a_loop_repeats_is_counted(tmp_path: Path):
    """A hundred equal rounds are a few lines, also on stderr of a pipe."""
    (tmp_path / "endless.light.yaml").write_text(
        "version: light\nnodes:\n  - {label: S, type: start}\n  - {label: A, type: condition, expression: 'True'}\n"
        "  - {label: C, type: condition, expression: 'False'}\n  - {label: E, type: endpoint}\nconnections:\n"
        "  - {from: S, to: A}\n  - {from: A_condtrue, to: C}\n  - {from: C_condfalse, to: A}\n  - {from: C_condtrue, to: E}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "dipeo_nb", "run", "endless.light.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "  C: false (97 more times)" in lines
    assert sum(line.startswith("  C: false") for line in lines) == 4


def test_shells_can_complete():
    """The completion of bash offers commands."""
    words = {"_DIPEO_NB_COMPLETE": "complete_bash", "COMP_WORDS": "dipeo-nb rep", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dipeo_nb"], env={**os.environ, **words}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["replay"]
