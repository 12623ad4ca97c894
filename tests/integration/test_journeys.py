"""How often people are asked on everyday ways through the product, in a terminal and in notebooks, and what they see then."""

from __future__ import annotations

import inspect
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pexpect
import pytest

import dipeo_nb as dp
from dipeo_nb import cli
from dipeo_nb.cli import consent
from dipeo_nb.config import FolderSettingWarning, get_settings, reset_settings
from dipeo_nb.diagram.document import load_text
from dipeo_nb.errors import ConfigurationError, RunError, TrustError
from dipeo_nb.notebook.refusal import bundle
from dipeo_nb.notebook.session import Session
from dipeo_nb.security.folder_settings import declined_settings
from dipeo_nb.security.trust import Trust
from tests.support.rendering_attacks import HARMFUL, PAGES, live
from tests.support.untrusted_folder import light, node, write

CODE = node("code_job", "Clean", code="return 1 + 1")
ASK = node("person_job", "Ask", person="A", default_prompt="Hi")
ECHO = {"A": {"service": "echo"}}
PAID = {"A": {"service": "openai", "model": "gpt-5-nano"}}
PROXY = "https://proxy.example/v1"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nobody has trusted: the base and current directory."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("DIPEO_TRUST", "DIPEO_BASE_DIR"):
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    reset_settings()
    return folder


class Desk:
    """Somebody at a terminal, who gives one answer to every question."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch = monkeypatch
        self._capsys = capsys
        self.questions = 0

    def run(self, *arguments: str, answer: str = "y", there: bool = True) -> tuple[int, int, str]:
        """(questions, exit status, what is shown) of a command.

        Args:
            there: whether anybody is at the terminal.
        """
        desk, self.questions = self, 0

        class Keys(io.StringIO):
            def readline(self, *_: Any) -> str:
                desk.questions += 1
                return f"{answer}\n"

        reset_settings()
        self._patch.setattr(consent, "interactive", lambda: there)
        self._patch.setattr(sys, "stdin", Keys())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FolderSettingWarning)
            status = cli.main([*arguments, "--quiet"] if arguments[0] in ("run", "resume") else arguments)
        shown = self._capsys.readouterr()
        return self.questions, status, shown.err + shown.out


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(monkeypatch, capsys)


# The journeys. Each takes the folder and the desk, and says (questions, exit status) of each of its steps.

Steps = list[tuple[int, int]]


def readme(base: Path, desk: Desk) -> Steps:
    """What the README shows, on a model that costs nothing."""
    commands = (
        ("run", "demo:debate", "--model", "echo"), ("validate", "demo:debate"), ("inspect", "demo:debate"),
        ("convert", "demo:debate", "-o", "d.native.json"), ("render", "demo:debate", "-o", "d.svg"), ("runs",),
    )  # fmt: skip
    return [desk.run(*command)[:2] for command in commands]


def own_folder(base: Path, desk: Desk) -> Steps:
    """A new folder of one's own: once for all that is and will be in it."""
    write(base, light(CODE))
    first = desk.run("run", "d.light.yaml", answer="f")[:2]
    write(base, light(node("code_job", code="return 3")), "other.light.yaml")
    return [first, desk.run("run", "other.light.yaml")[:2], desk.run("run", "d.light.yaml")[:2]]


def pull(base: Path, desk: Desk) -> Steps:
    """Others have changed what is in a trusted folder."""
    Trust(get_settings()).trust_folder(base)
    write(base, light(CODE))
    first = desk.run("run", "d.light.yaml")[:2]
    write(base, light(node("code_job", "Clean", code="return 4"), node("hook", hook_type="shell", command="true")))
    return [first, desk.run("run", "d.light.yaml")[:2]]


def prompts_only(base: Path, desk: Desk) -> Steps:
    """A clone whose diagrams talk to models, write, and ask the user."""
    made = node("template_job", "Make", template_content="x", output_path="notes.md")
    write(base, light(ASK, made, persons=ECHO))
    write(base, light(node("sub_diagram", "Sub", diagram_name="d"), persons=ECHO), "top.light.yaml")
    return [
        desk.run(command, name)[:2] for name in ("d.light.yaml", "top.light.yaml") for command in ("run", "validate", "inspect")
    ]


def with_code(base: Path, desk: Desk) -> Steps:
    """A clone with code: once, also with another model, under another name, and for what else is in the file."""
    write(base, light(CODE, node("sub_diagram", "Sub", diagram_data=light(CODE)), ASK, persons=ECHO))
    first = desk.run("run", "d.light.yaml")[:2]
    (base / "copy.light.yaml").write_bytes((base / "d.light.yaml").read_bytes())
    return [first, desk.run("run", "d.light.yaml", "--model", "echo")[:2], desk.run("run", "copy.light.yaml")[:2]]


def with_code_and_server(base: Path, desk: Desk) -> Steps:
    """A clone with code, and a server for its models: one answer does for both."""
    (base / ".env").write_text(f"OPENAI_BASE_URL={PROXY}\n")
    write(
        base,
        light(CODE, node("condition", "Never", condition_type="custom", expression="1 == 2"), persons=PAID) | connections(),
    )
    count, status, shown = desk.run("run", "d.light.yaml")
    assert PROXY in shown
    return [(count, status), desk.run("run", "d.light.yaml")[:2]]


def connections() -> dict[str, Any]:
    """A model that is there and never asked, behind code."""
    nodes = [
        {"label": "Start", "type": "start"}, CODE, node("condition", "Never", condition_type="custom", expression="1 == 2"), ASK,
        {"label": "End", "type": "endpoint"},
    ]  # fmt: skip
    arrows = [("Start", "Clean"), ("Clean", "Never"), ("Never[condtrue]", "Ask"), ("Never[condfalse]", "End")]
    return {"nodes": nodes, "connections": [{"from": a, "to": b} for a, b in arrows]}


def own_key_and_server(base: Path, desk: Desk) -> Steps:
    """A folder whose `.env` has a server and the key for it."""
    (base / ".env").write_text(f"OPENAI_BASE_URL={PROXY}\nOPENAI_API_KEY=sk-of-the-folder-0123456789\n")
    nodes = connections() | {"persons": PAID, "version": "light"}
    nodes["nodes"] = [
        n if n["label"] != "Clean" else node("template_job", "Clean", template_content="x") for n in nodes["nodes"]
    ]
    write(base, nodes)
    return [desk.run("run", "d.light.yaml")[:2]]


def cron(base: Path, desk: Desk) -> Steps:
    """Nobody is there: refused with the list, and pinned, allowed or trusted beforehand it runs."""
    write(base, light(CODE))
    count, status, shown = desk.run("run", "d.light.yaml", there=False)
    pin = dp.load("d.light.yaml").capabilities().code
    assert f"--pin {pin}" in shown
    assert "return 1 + 1" in shown
    ways = (("--pin", pin), ("--allow", "code"), ("--no-interactive", "--pin", pin))
    return [
        (count, status),
        *(desk.run("run", "d.light.yaml", *way, there=False)[:2] for way in ways),
        desk.run("run", "d.light.yaml", "--no-interactive")[:2],
    ]


def changed(base: Path, desk: Desk) -> Steps:
    """Code that changed since a yes: asked again, and told what is different."""
    write(base, light(CODE))
    first = desk.run("run", "d.light.yaml")[:2]
    write(base, light(node("code_job", "Clean", code="return 2")))
    count, status, shown = desk.run("run", "d.light.yaml")
    assert shown.lstrip().splitlines()[0].startswith("'d' has changed since you approved it: code of 'Clean'; the same powers")
    return [first, (count, status), desk.run("run", "d.light.yaml")[:2]]


def declined(base: Path, desk: Desk) -> Steps:
    """A no: nothing runs, and this process does not ask again; any yes undoes it."""
    write(base, light(CODE))
    first = desk.run("run", "d.light.yaml", answer="")[:2]
    again = desk.run("run", "d.light.yaml")[:2]
    dp.trust("d.light.yaml")
    return [first, again, desk.run("run", "d.light.yaml")[:2]]


def records(base: Path, desk: Desk) -> Steps:
    """A run of one's own goes on; one that came with the folder is asked about."""
    write(base, light(CODE, node("code_job", "Fail", code="open('there')")))
    failed = desk.run("run", "d.light.yaml")[:2]
    [row] = dp.runs()
    write(base, "x", "there")
    resumed = desk.run("resume", row.run_id)[:2]
    (base / "there").unlink()
    assert desk.run("run", "d.light.yaml")[:2] == (0, 1)
    newest = dp.runs()[0].run_id
    (get_settings().data_dir / "signing.key").unlink()
    (get_settings().data_dir / "trust.json").unlink()
    return [failed, resumed, desk.run("resume", newest, answer="")[:2]]


JOURNEYS: Mapping[Callable[[Path, Desk], Steps], Steps] = {
    readme: [(0, 0)] * 6,
    own_folder: [(1, 0), (0, 0), (0, 0)],
    pull: [(0, 0), (0, 0)],
    prompts_only: [(0, 0)] * 6,
    with_code: [(1, 0), (0, 0), (0, 0)],
    with_code_and_server: [(1, 0), (0, 0)],
    own_key_and_server: [(0, 0)],
    cron: [(0, 2), (0, 0), (0, 0), (0, 0), (0, 2)],
    changed: [(1, 0), (1, 0), (0, 0)],
    declined: [(1, 2), (0, 2), (0, 0)],
    records: [(1, 1), (0, 0), (1, 2)],
}
"""Journey → (questions, exit status) of each step."""


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.__name__)
def test_questions(base: Path, desk: Desk, journey: Callable[[Path, Desk], Steps]) -> None:
    """As few as can be: none for what is the user's own or harmless, one for what is more."""
    assert journey(base, desk) == JOURNEYS[journey]


def test_there_are_enough_journeys() -> None:
    """With the notebook, ten at least."""
    assert len(JOURNEYS) >= 10


def test_one_answer_covers_the_folder_and_its_settings(base: Path, desk: Desk) -> None:
    """[f] lists the settings that wait, and they have effect afterwards: no second question."""
    (base / ".env").write_text(f"OPENAI_BASE_URL={PROXY}\nDIPEO_BLOB_STORE=/elsewhere\n")
    write(base, light(CODE, persons=PAID) | connections())
    count, status, shown = desk.run("run", "d.light.yaml", answer="f")
    assert (count, status) == (1, 0)
    before = shown.partition("Run it?")[0]
    assert f"OPENAI_BASE_URL={PROXY}" in before
    assert "DIPEO_BLOB_STORE=/elsewhere" in before
    assert not get_settings().waits("openai_base_url")
    assert not get_settings().waits("blob_store")
    assert desk.run("run", "d.light.yaml")[:2] == (0, 0)


def test_a_no_to_settings_is_kept_on_disk(base: Path, desk: Desk) -> None:
    """Nobody is asked the same twice; another value asks anew, and trusting the folder undoes the no."""
    (base / ".env").write_text(f"OPENAI_BASE_URL={PROXY}\n")
    talk = connections() | {"persons": PAID, "version": "light"}
    talk["nodes"] = [n if n["label"] != "Clean" else node("template_job", "Clean", template_content="x") for n in talk["nodes"]]
    write(base, talk)
    assert desk.run("run", "d.light.yaml", answer="n")[:2] == (1, 2)
    assert declined_settings(base)
    assert desk.run("run", "d.light.yaml")[:2] == (0, 2)
    (base / ".env").write_text("OPENAI_BASE_URL=https://other.example/v1\n")
    assert desk.run("run", "d.light.yaml", answer="n")[:2] == (1, 2)
    reset_settings()
    dp.trust(".")
    assert desk.run("run", "d.light.yaml")[:2] == (0, 0)


@pytest.mark.skipif(os.name == "nt", reason="not here: no terminals to drive on Windows")
def test_a_real_terminal(base: Path) -> None:
    """Enter grants nothing; a folder elsewhere is not offered; a name cannot hide or forge anything of the question."""
    evil = node("code_job", "Clean\x1b[2K\r\u202e[y]", code="return 1")
    path = write(base.parent / "down\u202eloads", light(evil))
    child = pexpect.spawn(
        sys.executable, ["-m", "dipeo_nb", "run", str(path), "--quiet"], encoding="utf-8", timeout=60, dimensions=(50, 300)
    )
    child.expect(r"Run it\?[^\n]*> ")
    shown = f"{child.before}{child.after}"
    child.sendline("")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    assert "[f]" not in shown
    assert "\\u202e" in shown
    assert not HARMFUL.search(shown.replace("\r\n", "\n"))


# What is said about a change.

CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "code": (lambda d: d["nodes"][1]["props"].update(code="return 2"), "code of 'Clean'; the same powers"),
    "prompt": (lambda d: d["nodes"][2]["props"].update(default_prompt="Ho"), "default prompt of 'Ask'; the same powers"),
    "model": (lambda d: d["persons"]["A"].update(model="gpt-5"), "model of 'A'; new powers: model openai:gpt-5"),
    "several": (
        lambda d: (d["nodes"][1]["props"].update(code="return 2"), d["nodes"][2]["props"].update(default_prompt="Ho")),
        "code of 'Clean', default prompt of 'Ask'; the same powers",
    ),
    "new node": (lambda d: d["nodes"].append(node("api_job", "Call", url="https://api.x.org/a")), "'Call' (new); new powers: net https://api.x.org"),
    "node gone": (lambda d: (d["nodes"].pop(2), d.update(connections=[{"from": "Start", "to": "Clean"}, {"from": "Clean", "to": "End"}])), "'Ask' (gone); fewer powers"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_what_has_changed(base: Path, case: str) -> None:
    """The parts that differ, by name, and whether it may do more."""
    diagram = json.loads(json.dumps(light(CODE, ASK, persons=PAID)))
    path = write(base, diagram)
    change, said = CHANGES[case]
    with Session() as session:
        session.runtime.prepare(path, trust=True)
        change(diagram)
        write(base, diagram)
        with pytest.raises(TrustError) as caught:
            session.runtime.prepare(path)
    assert f"has changed since you approved it: {said}" in caught.value.message


def test_a_changed_file_is_named(base: Path) -> None:
    """Modules, and sub-diagrams by their names."""
    write(base, "x = 1\n", "helper.py")
    write(base, light(CODE), "child.light.yaml")
    path = write(
        base, light(node("code_job", code="import helper\nreturn helper.x"), node("sub_diagram", "Sub", diagram_name="child"))
    )
    with Session() as session:
        session.runtime.prepare(path, trust=True)
        write(base, "x = 2\n", "helper.py")
        write(base, light(node("code_job", "Clean", code="return 9")), "child.light.yaml")
        with pytest.raises(
            TrustError, match=r"changed since you approved it: file 'helper.py', sub-diagram 'child'; the same powers"
        ):
            session.runtime.prepare(path)


# One rule for everything that begins a run.

STARTERS = ("start", "run", "arun", "resume", "fork")


@pytest.mark.parametrize("name", STARTERS)
@pytest.mark.parametrize("owner", [dp, dp.Session, dp.Run], ids=lambda owner: owner.__name__)
def test_every_start_takes_trust_and_allow(owner: Any, name: str) -> None:
    """As options, never as inputs of the run."""
    if not hasattr(owner, name):
        assert owner is dp.Run
        return
    options = inspect.signature(getattr(owner, name)).parameters
    assert {"trust", "allow"} <= set(options)


def test_no_other_function_begins_runs() -> None:
    """What is not in the list neither takes inputs as keywords nor a budget for a run."""
    for owner in (dp.Session, dp.Run):
        for name, function in inspect.getmembers(owner, inspect.isfunction):
            if name.startswith("_") or name in STARTERS or name in ("provider", "dry_run"):  # of a web service; runs nothing
                continue
            assert "variables" not in inspect.signature(function).parameters, f"{owner.__name__}.{name}"


@pytest.mark.parametrize("how", ["resume", "fork"])
@pytest.mark.parametrize("say", ["trust=True", "trust=code", "allow"])
def test_runs_from_elsewhere_go_on_after_a_yes(base: Path, monkeypatch: pytest.MonkeyPatch, how: str, say: str) -> None:
    """By the methods of a run, too."""
    with Session() as theirs:
        failed = theirs.start(
            light(
                node("code_job", "First", code="return 1"), node("api_job", "Fail", url="http://127.0.0.1:9/{{x}}", timeout=1)
            ),
            view=False,
        )
        with pytest.raises(RunError):
            failed.result(30)
    monkeypatch.setenv("DIPEO_DATA_DIR", str(base.parent / "another"))
    reset_settings()
    with Session() as session:
        run = session.open_run(failed.id)
        again: Callable[..., Any] = run.resume if how == "resume" else (lambda **options: run.fork(at="Fail", **options))
        with pytest.raises(TrustError) as caught:
            again(view=False)
        code = caught.value.facts["pin"]
        assert caught.value.ways()[0][1] == f'session.{how}("{run.id}", trust="{code}")'
        with pytest.raises(TrustError):
            again(allow={"net": "http://127.0.0.1:9"}, view=False)
        options = {
            "trust=True": {"trust": True},
            "trust=code": {"trust": code},
            "allow": {"allow": {"net": "http://127.0.0.1:9", "code": True}},
        }[say]
        with pytest.raises(RunError) as failing:
            again(**options, view=False).result(30)
    assert "Fail" in str(failing.value.node)


# Notebooks.


def test_the_panel_is_inert_and_whole(base: Path) -> None:
    """Nothing in it is live, whatever the diagram says; the plain text has the same; both lines can be copied."""
    for number, text in enumerate((*PAGES, "\u202eevil\x1b[2J", "$x$ \\(y\\)", "</pre><b>")):
        path = write(base, light(node("code_job", f"N {text}", code=f"return {text!r}")), f"d{number}.light.yaml")
        with Session() as session, pytest.raises(TrustError) as caught:
            session.run(path, view=False)
        shown = bundle(caught.value)
        assert live(shown["text/html"]) == []
        assert "<b>" not in shown["text/html"]
        assert "tex2jax_ignore" in shown["text/html"]
        assert not HARMFUL.search(shown["text/html"])
        assert not HARMFUL.search(shown["text/plain"])
        for line in (f'session.run("{path}", trust="{caught.value.facts["pin"]}")', f'dp.trust("{base}")'):
            assert line in shown["text/plain"]
            assert line.replace('"', "&quot;") in shown["text/html"]
        assert caught.value._repr_mimebundle_() == shown


@pytest.mark.parametrize(
    "name", ['a"b.light.yaml', "a\\b.light.yaml", "a'b.light.yaml", "\u202egpj.light.yaml", "a\tb.light.yaml", "ünï.light.yaml"]
)
def test_the_lines_to_copy_are_python(base: Path, name: str) -> None:
    """Whatever the name of the file is, the line names it and runs exactly that."""
    if os.name == "nt":
        pytest.skip("not here: Windows has no such names")
    path = write(base, light(CODE), name)
    with Session() as session:
        with pytest.raises(TrustError) as caught:
            session.run(path, view=False)
        lines = dict(caught.value.ways())
        result = eval(lines["Exactly this, as it is now"][:-1] + ", view=False)", {"session": session})
        assert result.output == 2
        with pytest.raises(TrustError):
            session.run(path, view=False)


CELLS = (
    "import dipeo_nb as dp",
    "dp.run('d.light.yaml', view=False)",
    "dp.start('d.light.yaml')",
    "await dp.arun('d.light.yaml')",
    "try:\n    dp.run('d.light.yaml')\nexcept dp.TrustError as error:\n    held = error\nheld",
    "pin = held.pin\ndp.run('d.light.yaml', trust=pin, view=False).output",
    "print(repr(held)[:10])",
    "dp.trust('.')\ndp.run('d.light.yaml', view=False).output",
)


@pytest.mark.slow
def test_run_all_in_a_notebook(base: Path) -> None:
    """Executed by a program: no question, a panel among the outputs, and an error whose text has the list and both lines."""
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter, MarkdownExporter

    write(base, light(node("code_job", "<script>alert(1)</script>", code="return 1 + 1")))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(base)}}).execute()
    outputs = [cell["outputs"] for cell in notebook.cells]
    for number, call in ((1, 'dp.run("d.light.yaml"'), (2, 'dp.start("d.light.yaml"'), (3, 'await dp.arun("d.light.yaml"')):
        panel, error = outputs[number]
        assert panel["output_type"] == "display_data"
        assert live(panel["data"]["text/html"]) == []
        assert error["output_type"] == "error"
        assert error["ename"] == "TrustError"
        text = "\n".join(error["traceback"])
        for shown in (text, panel["data"]["text/plain"]):
            assert f'{call}, trust="' in shown
            assert f'dp.trust("{base}")' in shown
            assert "return 1 + 1" in shown
    assert set(outputs[4][0]["data"]) == {"text/html", "text/plain"}
    assert [outputs[n][-1]["data"]["text/plain"] for n in (5, 7)] == ["2", "2"]
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "Not run:" in page
    assert "<script>alert(1)" not in page
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    assert "Not run:" in text
    assert not [line for line in text.splitlines() if "<script>alert(1)" in line and not line.startswith("    ")]  # code blocks


def test_without_a_kernel_it_is_text(base: Path) -> None:
    """In a plain IPython, and in the traceback that it shows, everything is there."""
    path = write(base, light(CODE))
    with Session() as session, pytest.raises(TrustError) as caught:
        session.run(path, view=False)
    text = "\n".join(caught.value._render_traceback_())
    assert "return 1 + 1" in text
    assert f'trust="{caught.value.facts["pin"]}"' in text
    assert f'dp.trust("{base}")' in text


def test_settings_that_wait_say_both_ways_out_in_a_notebook(base: Path) -> None:
    """What needs them is refused before anything is sent; trusting the folder in the notebook lets it go on."""
    (base / ".env").write_text(f"OPENAI_BASE_URL={PROXY}\n")
    reset_settings()
    write(base, light(CODE))
    with Session() as session:
        with pytest.raises(ConfigurationError) as caught:
            session.chat("Hi", model="openai:gpt-5-nano")
        assert "dp.trust(" in str(caught.value)
        with pytest.raises(TrustError) as refused:
            session.run("d.light.yaml", view=False)
        assert f"OPENAI_BASE_URL={PROXY}" in refused.value.text()
        assert "OPENAI_BASE_URL" in bundle(refused.value)["text/html"]
        session.trust(".")
        assert session.run("d.light.yaml", view=False).output == 2
        assert not get_settings().waits("openai_base_url")


def test_what_is_ones_own_asks_nothing(base: Path) -> None:
    """Typed, made in code, saved by the session: no panel."""
    with Session() as session:
        load_text(json.dumps(light(CODE))).save(base / "mine.light.yaml")
        for own in (light(CODE), json.dumps(light(CODE)), "mine.light.yaml"):
            assert session.run(own, view=False).output == 2
