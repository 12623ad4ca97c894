"""Diagrams that nobody has trusted: what they are refused, what they may do as guests, and how a yes is said and remembered
(security/trust.py, security/gate, diagram/closure.py)."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.config import get_settings, reset_settings
from dipeo_nb.diagram.closure import closure
from dipeo_nb.diagram.document import Diagram, load, load_text
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.capabilities import as_pattern, origin_of_template, path_fits
from dipeo_nb.domain.enums import EventType, NodeType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import NODE_SPECS
from dipeo_nb.errors import NodeExecutionError, NotGrantedError, RunError, StorageError, TrustError, UserError
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Runtime
from dipeo_nb.security.gate import Level
from dipeo_nb.security.signatures import signed
from dipeo_nb.security.trust import Trust
from dipeo_nb.testing import scripted
from tests.support.api_server import Server
from tests.support.untrusted_folder import KINDS, MARK, base, code_files, light, marking, node, session, write

__all__ = ["base", "session"]  # fixtures

# Code without a yes, in each way it can hide.

FORMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "direct": lambda n: light(n),
    "without a type": lambda n: light({k: v for k, v in n.items() if k != "type"}),
    "in capitals": lambda n: light({**n, "type": n["type"].upper()}),
    "with blanks": lambda n: light({**n, "type": f" {n['type']} "}),
    "inline": lambda n: light(node("sub_diagram", "Sub", diagram_data=light(n))),
    "inline without a type": lambda n: light(
        node("sub_diagram", "Sub", diagram_data=light({k: v for k, v in n.items() if k != "type"}))
    ),
    "inline in inline": lambda n: light(
        node("sub_diagram", "Sub", diagram_data=light(node("sub_diagram", "Sub", diagram_data=light(n))))
    ),
    "inline native": lambda n: light(
        node(
            "sub_diagram",
            "Sub",
            diagram_data=json.loads(dp.load(json.dumps(light(n))).to_text("native")),
            diagram_format="native",
        )
    ),
    "batch of inline": lambda n: light(node("sub_diagram", "Sub", diagram_data=light(n), batch=True, batch_input_key="items")),
    "not waited for": lambda n: light(node("sub_diagram", "Sub", diagram_data=light(n), wait_for_completion=False)),
}
NAMED = ("named", "named with its suffix", "chain", "in a folder", "named by a variable", "native file", "readable file")
CODE_CASES = [
    (kind, form)
    for kind in KINDS
    for form in (*FORMS, *NAMED)
    if not (kind == "file" and form.endswith("without a type"))  # a path alone says nothing about the type
]


def hostile(folder: Path, kind: str, form: str) -> Path:
    """The diagram of a case, with the files it needs."""
    code_files(folder)
    evil = light(KINDS[kind])
    if form in FORMS:
        return write(folder, FORMS[form](KINDS[kind]))
    match form:
        case "in a folder":
            write(folder, evil, "sub/evil.light.yaml")
            name = "sub/evil"
        case "native file":
            write(folder, load_text(json.dumps(evil)).to_text("native"), "evil.native.json")
            name = "evil"
        case "readable file":
            write(folder, load_text(json.dumps(evil)).to_text("readable"), "evil.readable.yaml")
            name = "evil"
        case "named by a variable":
            write(folder, evil, "evil.light.yaml")
            name = "{which}"
        case "chain":
            write(folder, evil, "evil.light.yaml")
            write(folder, light(node("sub_diagram", "Mid", diagram_name="evil")), "mid.light.yaml")
            name = "mid"
        case _:
            write(folder, evil, "evil.light.yaml")
            name = "evil.light.yaml" if "suffix" in form else "evil"
    return write(folder, light(node("sub_diagram", "Sub", diagram_name=name)))


@pytest.mark.parametrize(("kind", "form"), CODE_CASES, ids=[f"{k}-{f}" for k, f in CODE_CASES])
def test_code_runs_only_after_a_yes(base: Path, kind: str, form: str) -> None:
    """No kind of code runs, however it hides; that it would is on the list, which a yes then covers."""
    path = hostile(base, kind, form)
    try:
        document = load(path)
        document.compile()
    except dp.DiagramError:
        pytest.fail("the case is no diagram, so it shows nothing")
    if form == "named by a variable":
        kinds = {u.kind for u in document.capabilities().uses}
        assert "diagram" in kinds
    else:
        assert {u.kind for u in document.capabilities().uses} & {"code", "process"}
    with Session(llm=scripted("Fine.")) as session, pytest.raises(TrustError) as caught:
        session.run(path, which="evil", inputs={"items": [1]}, view=False)
    assert not (base / MARK).exists()
    assert caught.value.listing()
    assert caught.value.facts["pin"] == document.capabilities().code


def test_there_are_enough_cases() -> None:
    """The table of ways to run code unasked."""
    assert len(CODE_CASES) >= 160
    assert len(CODE_CASES) + len(WANTS) + len(CHANGES) + len(MADE) >= 200


# What a guest is refused besides.

SENSITIVE = ("notes.json", ".env", "dipeo.toml", ".git/config", "sub/data.csv", "*.json")
WANTS: dict[str, dict[str, Any]] = {
    **{f"db reads {name}": node("db", operation="read", file=name) for name in SENSITIVE},
    **{f"data_path {name}": node("json_schema_validator", json_schema=True, data_path=name) for name in SENSITIVE},
    **{f"typescript {name}": node("typescript_ast", file=name) for name in SENSITIVE[:2]},
    "patch": node("diff_patch", target_path="notes.json", diff="--- a\n+++ b\n"),
    "db updates": node("db", operation="update", file="notes.json", keys="a", data=1),
    "db appends": node("db", operation="append", file="notes.json", data=1),
    "api": node("api_job", url="http://127.0.0.1:9/x"),
    "api by a variable": node("api_job", url="{{u}}"),
    "api with a host by a variable": node("api_job", url="https://{{h}}.example.org/"),
    "hook http": node("hook", hook_type="http", url="http://127.0.0.1:9/x"),
    "hook http in config": node("hook", hook_type="http", config={"url": "http://127.0.0.1:9/x"}),
    "dynamic include": node("template_job", template_content="{% include name %}"),
    "unknown include": node("template_job", template_content="{% include 'not-there.j2' %}"),
    "template by a variable": node("template_job", template_path="{{t}}.j2"),
}
PERSONS: dict[str, dict[str, Any]] = {
    "base_url": {"service": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"},
    "claude code": {"service": "claude-code", "model": "sonnet"},
    "path as a model": {"service": "local", "model": "/root/.ssh/id_rsa"},
}


@pytest.mark.parametrize("case", WANTS)
def test_a_guest_gets_none_of_the_users_files_and_no_server(session: Session, base: Path, case: str) -> None:
    """It is asked about before anything runs."""
    write(base, '{"a": "CANARY"}', "notes.json")
    path = write(base, light(WANTS[case]))
    if "typescript" in case:  # there is no parser here: what it wants is known all the same
        assert any(u.kind == "read" for u in closure(load(path), base_dir=base).uses)
        return
    with pytest.raises(TrustError):
        session.run(path, view=False, u="http://127.0.0.1:9/", h="x", t="notes", name="notes.json")
    assert (base / "notes.json").read_text() == '{"a": "CANARY"}'


@pytest.mark.parametrize("case", PERSONS)
@pytest.mark.parametrize("tools", [None, "websearch"])
def test_a_guest_does_not_choose_servers_and_programs_of_models(session: Session, base: Path, case: str, tools: Any) -> None:
    """Base URLs, Claude Code, paths as models and web search are asked about; a model that the user chooses is not."""
    ask = node("person_job", person="A", default_prompt="Hi", **({"tools": tools} if tools else {}))
    path = write(base, light(ask, persons={"A": PERSONS[case]}))
    with pytest.raises(TrustError):
        session.run(path, view=False)
    if tools is None:
        assert session.run(path, model="echo", view=False).status == "completed"


def test_a_guest_talks_to_models_and_writes_into_a_folder_of_its_own(session: Session, base: Path) -> None:
    """The usual download runs without a question; what it writes is not where the user's files are."""
    ask = node("person_job", "Ask", person="A", default_prompt="Hi")
    nodes = light(
        ask,
        node("template_job", template_content="made", output_path="notes.txt"),
        node("db", "Read", operation="read", file="notes.txt"),
        persons={"A": {"service": "openai", "model": "gpt-5-nano"}},
    )
    write(base, "mine", "notes.txt")
    result = session.run(write(base, nodes), view=False)
    assert result.output == "made"
    assert (base / "notes.txt").read_text() == "mine"
    drafts = list((base / ".dipeo" / "drafts").glob("d-*/notes.txt"))
    assert [d.read_text() for d in drafts] == ["made"]


@pytest.mark.parametrize("pattern", ["m/**/*.ts", "m/**", "**/m/**/*.ts", "m/{{depth}}/*.ts"])
def test_a_pattern_of_folders_reads_what_was_agreed_to(session: Session, base: Path, pattern: str) -> None:
    """A diagram of a file reads what it would read without a gate; `*` of a template stays within a folder."""
    for name in ("a.ts", "b/c.ts", "b/d/e.ts"):
        write(base, name, f"m/{name}")
    path = write(base, light(node("db", "Read", operation="read", file=pattern, glob=True)))
    result = session.run(path, view=False, trust=True, depth="b")
    (read,) = (e.payload["output"] for e in result.events if e.type == "node_completed" and e.payload["label"] == "Read")
    assert sorted(read) == (["m/b/c.ts"] if "depth" in pattern else ["m/a.ts", "m/b/c.ts", "m/b/d/e.ts"])


def test_a_guest_brings_its_prompts_schemas_and_templates(session: Session, base: Path) -> None:
    """Files beside it that it names are part of what it is."""
    write(base, "Say {{default}}", "prompts/p.txt")
    write(base, "{% include 'part.j2' %}!", "t.j2")
    write(base, "part", "part.j2")
    write(base, '{"type": "string"}', "s.json")
    nodes = light(
        node("template_job", "T", template_path="t.j2"),
        node("json_schema_validator", "V", schema_path="s.json"),
        node("person_job", "Ask", person="A", prompt_file="p.txt"),
        persons={"A": {"service": "openai", "model": "gpt-5-nano"}},
    )
    assert session.run(write(base, nodes), view=False).output == "Fine."


def test_a_guest_spends_little(base: Path) -> None:
    """All calls of a run, also of its children and batches, share one budget; a budget that is given takes its place."""
    ask = light(
        node("person_job", "Ask", person="A", default_prompt="Hi {{default}}"),
        persons={"A": {"service": "openai", "model": "gpt-5-nano"}},
    )
    many = write(base, light(node("sub_diagram", "Sub", diagram_data=ask, batch=True, batch_input_key="items")))
    with Session(llm=scripted("Fine.")) as session:
        gate = session.runtime.prepare(many).gate
        assert gate.budget is not None
        assert (gate.budget.usd, gate.budget.calls, gate.budget.tokens) == (0.10, 50, 200_000)
        mine = Budget(calls=2)
        run = session.start(many, inputs={"items": [1, 2]}, budget=mine, view=False)
        run.result(30)


def test_the_budget_of_a_guest_is_that_of_the_whole_run(base: Path) -> None:
    """Children that each ask a few times are refused together at the 51st call."""
    ask = light(node("person_job", "Ask", person="A", default_prompt="Hi {{default}}"), persons={"A": {"service": "echo"}})
    many = write(base, light(node("sub_diagram", "Sub", diagram_data=ask, batch=True, batch_input_key="items")))
    with Session() as session:
        assert session.run(many, inputs={"items": list(range(50))}, view=False).status == "completed"
        with pytest.raises(dp.DipeoError, match="budget is used up"):
            session.run(many, inputs={"items": list(range(51))}, view=False)


def test_no_budget_asks_always(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """guest_budget=0: paid models are asked about, free ones are not."""
    monkeypatch.setenv("DIPEO_GUEST_BUDGET", "0")
    reset_settings()
    ask = node("person_job", "Ask", person="A", default_prompt="Hi")
    paid = write(base, light(ask, persons={"A": {"service": "openai", "model": "gpt-5-nano"}}))
    free = write(base, light(ask, persons={"A": {"service": "echo"}}), "free.light.yaml")
    with Session() as session:
        with pytest.raises(TrustError):
            session.run(paid, view=False)
        assert session.run(free, view=False).status == "completed"


@pytest.mark.parametrize(
    ("default", "asked"), [("echo", False), ("local", False), ("openai:gpt-5-nano", True), ("gpt-5-nano", True)]
)
def test_no_budget_asks_about_the_default_model(base: Path, monkeypatch: pytest.MonkeyPatch, default: str, asked: bool) -> None:
    """A person that names no model has the default one, which may be free."""
    monkeypatch.setenv("DIPEO_GUEST_BUDGET", "0")
    monkeypatch.setenv("DIPEO_DEFAULT_LLM_MODEL", default)
    reset_settings()
    path = write(base, light(node("person_job", "Ask", person="A", default_prompt="Hi"), persons={"A": {}}))
    with Runtime() as runtime:
        if asked:
            with pytest.raises(TrustError):
                runtime.prepare(path)
        else:
            runtime.prepare(path)


# A yes, and what ends it.

BEGIN: dict[str, Any] = {
    **light(
        node("code_job", "Code", language="python", code="import helper\nreturn helper.x", function_name="main"),
        node("hook", "Hook", hook_type="shell", config={"command": "echo", "args": ["a", "b"], "cwd": ".", "env": {"A": "1"}}),
        node("person_job", "Ask", person="A", default_prompt="Hi"),
        node("sub_diagram", "Sub", diagram_name="child"),
        persons={"A": {"service": "openai", "model": "gpt-5-nano"}},
    )
}


def changed(path: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        write(folder, load(folder / "d.light.yaml").set(path, value).text)

    return change


def file_is(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: write(folder, text, name) and None


CHANGES: dict[str, Callable[[Path], None]] = {
    "code": changed("nodes.Code.code", "import helper\nreturn 2"),
    "language": changed("nodes.Code.language", "bash"),
    "function": changed("nodes.Code.function_name", "other"),
    "isolated": changed("nodes.Code.isolated", True),
    "args joined": changed("nodes.Hook.config.args", ["a b"]),
    "args": changed("nodes.Hook.config.args", ["a", "c"]),
    "command": changed("nodes.Hook.config.command", "printf"),
    "cwd": changed("nodes.Hook.config.cwd", "sub"),
    "env value": changed("nodes.Hook.config.env", {"A": "2"}),
    "env PATH": changed("nodes.Hook.config.env", {"A": "1", "PATH": "./bin"}),
    "custom data": changed("nodes.Start.custom_data", {"x": 1}),
    "prompt": changed("nodes.Ask.default_prompt", "Ho"),
    "model": changed("persons.A.model", "gpt-5"),
    "base url": changed("persons.A.base_url", "https://api.openai.com/v1"),
    "system prompt": changed("persons.A.system_prompt", "Be bad."),
    "imported module": file_is("helper.py", "x = 2\n"),
    "module imported by it": file_is("deep.py", "y = 2\n"),
    "child": lambda folder: write(folder, light(node("code_job", "C", code="return 4")), "child.light.yaml") and None,
    "on_error": changed("nodes.Code.on_error", "continue"),
}


@pytest.fixture
def agreed(base: Path) -> Path:
    """A diagram with code that somebody has said yes to."""
    write(base, "x = 1\nimport deep\n", "helper.py")
    write(base, "y = 1\n", "deep.py")
    write(base, light(node("code_job", "C", code="return 3")), "child.light.yaml")
    path = write(base, BEGIN)
    with Runtime() as runtime:
        runtime.prepare(path, trust=True)
        runtime.prepare(path)
    return path


@pytest.mark.parametrize("case", CHANGES)
def test_a_change_asks_again(agreed: Path, case: str) -> None:
    """Whatever can change what runs ends the yes."""
    CHANGES[case](agreed.parent)
    with Runtime() as runtime, pytest.raises(TrustError):
        runtime.prepare(agreed)


SCRIPTS: dict[str, tuple[dict[str, Any], str]] = {
    "source": (node("code_job", language="bash", code="source ./lib.sh\necho done"), "lib.sh"),
    "dot, no ending": (node("code_job", language="bash", code=". ./lib && echo done"), "lib"),
    "dot, ending of data": (node("code_job", language="bash", code=". ./settings.conf"), "settings.conf"),
    "quoted": (node("code_job", language="bash", code='source "lib.sh"'), "lib.sh"),
    "folder of the script": (node("code_job", language="bash", code='. "$(dirname "$0")/lib.sh"'), "lib.sh"),
    "program": (node("code_job", language="bash", code="true; ./tool x"), "tool"),
    "Python of bash": (node("code_job", language="bash", code="python sub/work.py data.csv"), "sub/work.py"),
    "file that reads another": (node("code_job", language="bash", file_path="sub/run.sh"), "sub/lib.sh"),
    "through two": (node("code_job", language="bash", code="sh sub/run.sh"), "sub/lib.sh"),
    "hook": (node("hook", hook_type="shell", command="sh deploy.sh"), "deploy.sh"),
    "hook with arguments": (node("hook", hook_type="shell", config={"command": "sh", "args": ["deploy"]}), "deploy"),
    "hook elsewhere": (node("hook", hook_type="shell", config={"command": "./deploy.sh", "cwd": "sub"}), "sub/deploy.sh"),
    "module of a script": (node("hook", hook_type="shell", command="python go.py"), "helper.py"),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_scripts_of_shells_are_in_a_yes(base: Path, case: str) -> None:
    """A script that a shell reads or runs is listed, and a change of it asks again; one of its data does not."""
    assert len(SCRIPTS) == 13
    given, name = SCRIPTS[case]
    for file in ("lib.sh", "sub/lib.sh", "helper.py", "data.csv", name):
        write(base, "# before\n", file)
    write(base, ". ./lib.sh\n", "sub/run.sh")
    write(base, "import helper\n", "go.py")
    path = write(base, light(given))
    with Runtime() as runtime:
        runtime.prepare(path, trust=True)
        write(base, "1,2\n", "data.csv")
        runtime.prepare(path)
        write(base, "touch ran.txt\n", name)
        with pytest.raises(TrustError) as caught:
            runtime.prepare(path)
    assert name in "\n".join(caught.value.listing())


def test_one_line_is_one_line(base: Path) -> None:
    """The list of a diagram's code counts in English."""
    path = write(base, light(node("code_job", code="return 1"), node("code_job", "More", code="x = 1\nreturn x")))
    listing = "\n".join(closure(load(path), base_dir=base).uses.listing())
    assert "python, 1 line" in listing
    assert "1 lines" not in listing
    assert "python, 2 lines" in listing


LOOKS: dict[str, Callable[[Path], None]] = {
    "copy": lambda folder: None,
    "comment": lambda folder: write(folder, "# a comment\n" + (folder / "d.light.yaml").read_text()) and None,
    "position": changed("nodes.Code.position", {"x": 5, "y": 9}),
    "metadata": changed("nodes.Code.metadata", {"color": "red"}),
    "other files": file_is("data.json", "{}"),
    "native": lambda folder: write(folder, load(folder / "d.light.yaml").to_text("native"), "d.native.json") and None,
}


@pytest.mark.parametrize("case", LOOKS)
def test_looks_ask_nothing(agreed: Path, case: str) -> None:
    """Positions, comments, the name of the file and its format do not count."""
    LOOKS[case](agreed.parent)
    path = agreed
    if case == "copy":
        path = agreed.with_name("other.light.yaml")
        shutil.copy(agreed, path)
    if case == "native":
        path = agreed.with_name("d.native.json")
    with Runtime() as runtime:
        runtime.prepare(path)


def test_another_base_directory_asks_again(agreed: Path, tmp_path: Path) -> None:
    """An innocent text may do harm elsewhere."""
    other = tmp_path / "other"
    shutil.copytree(agreed.parent, other)
    settings = get_settings().model_copy(update={"base_dir": other})
    with Runtime(settings) as runtime, pytest.raises(TrustError):
        runtime.prepare(other / agreed.name)


def _other(value: Any) -> Any:
    """Another value of a field."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case list():
            return [*value, "x"]
        case Mapping():
            return {**value, "x": 1}
        case _:
            return "x"


FIELDS = [(kind, f.name) for kind, spec in NODE_SPECS.items() if kind in set(NodeType) for f in dataclasses.fields(spec)]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{k}.{n}" for k, n in FIELDS])
def test_every_field_is_in_the_digest(kind: str, name: str) -> None:
    """All but what no run looks at."""
    from dipeo_nb.diagram.closure import plan_digest

    plan = load_text(json.dumps(light())).compile()
    spec = NODE_SPECS[kind]()
    with_spec = dataclasses.replace(plan.nodes[0], type=kind, spec=spec)
    other = dataclasses.replace(with_spec, spec=dataclasses.replace(spec, **{name: _other(getattr(spec, name))}))
    digests = {plan_digest(dataclasses.replace(plan, nodes=(n, *plan.nodes[1:]))) for n in (with_spec, other)}
    assert len(digests) == (1 if name in ("flipped", "metadata") else 2)


def test_every_field_with_a_path_code_or_address_has_an_effect() -> None:
    """A new field of that kind cannot be forgotten."""
    for kind, spec in NODE_SPECS.items():
        if kind not in set(NodeType):
            continue
        for f in dataclasses.fields(spec):
            wants = f.metadata.get("path") or f.metadata.get("code") or f.metadata.get("prompt_file") or "url" in f.name
            assert not wants or f.metadata.get("effect"), f"{kind}.{f.name} says not what it makes the node do"


def test_two_children_exchanged_ask_again(base: Path) -> None:
    """Which name means which diagram is part of what was agreed to."""
    write(base, light(node("code_job", code="return 1")), "a.light.yaml")
    write(base, light(node("code_job", code="return 2")), "b.light.yaml")
    path = write(base, light(node("sub_diagram", "A", diagram_name="a"), node("sub_diagram", "B", diagram_name="b")))
    before = load(path).capabilities().digest
    (base / "a.light.yaml").rename(base / "t")
    (base / "b.light.yaml").rename(base / "a.light.yaml")
    (base / "t").rename(base / "b.light.yaml")
    assert load(path).capabilities().digest != before


# While it runs.

MADE: dict[str, tuple[dict[str, Any], ...]] = {
    "diagram that it wrote": (
        node(
            "template_job",
            "Write",
            template_content=json.dumps(light(node("code_job", code=marking()))),
            output_path="made.light.yaml",
        ),
        node("sub_diagram", "Run", diagram_name="made"),
    ),
    "diagram that it wrote, by a variable": (
        node(
            "template_job",
            "Write",
            template_content=json.dumps(light(node("code_job", code=marking()))),
            output_path="made.light.yaml",
        ),
        node("sub_diagram", "Run", diagram_name="{which}"),
    ),
    "child that it changed": (
        node(
            "template_job",
            "Write",
            template_content=json.dumps(light(node("code_job", code=marking()))),
            output_path="child.light.yaml",
        ),
        node("sub_diagram", "Run", diagram_name="child"),
    ),
    "module that it wrote": (
        node("template_job", "Write", template_content=marking().replace("return 1", ""), output_path="helper.py"),
        node("code_job", "Run", code="import helper\nreturn 1"),
    ),
    "code file that it wrote": (
        node("template_job", "Write", template_content=marking(), output_path="made.py"),
        node("code_job", "Run", file_path="made.py"),
    ),
    "code file that it changed": (
        node("template_job", "Write", template_content=marking(), output_path="work.py"),
        node("code_job", "Run", file_path="work.py"),
    ),
    "hook script that it changed": (
        node("template_job", "Write", template_content=f"def hook(**k):\n    open({MARK!r}, 'w')", output_path="work.py"),
        node("hook", "Run", hook_type="python", config={"script": "work.py"}),
    ),
    "template that it wrote": (
        node("template_job", "Write", template_content="x", output_path="made.j2"),
        node("template_job", "Run", template_path="{{n}}.j2"),
    ),
}


@pytest.mark.parametrize("case", MADE)
def test_what_a_run_has_written_is_not_executed_in_it(session: Session, base: Path, case: str) -> None:
    """Not after a yes to the diagram either; what it writes are data."""
    write(base, light(node("code_job", code="return 1")), "child.light.yaml")
    write(base, "def main(**k):\n    return 1\ndef hook(**k):\n    return 1\n", "work.py")
    write(base, "x = 1\n", "helper.py")
    path = write(base, light(*MADE[case]))
    with pytest.raises((NodeExecutionError, StorageError, dp.DiagramError)) as caught:
        session.run(path, trust=True, inputs={"which": "made", "n": "made"}, view=False)
    assert not (base / MARK).exists()
    assert caught.value.hint


def test_a_name_beyond_the_list_is_refused_with_what_grants_it(session: Session, base: Path) -> None:
    """A pattern of the list covers the names it means; any other one is an error of the node."""
    write(base, "1", "data/a.json")
    write(base, "2", "secret.json")
    path = write(base, light(node("db", operation="read", file="data/{which}.json")))
    assert session.run(path, trust=True, which="a", view=False).output == 1
    for name in ("../secret", "x/../../secret"):
        with pytest.raises(NotGrantedError) as caught:
            session.run(path, which=name, view=False)
        assert caught.value.facts["kind"] == "read"
        assert "--allow read=secret.json" in str(caught.value.hint)


def test_allow_grants_exactly_that(session: Session, base: Path) -> None:
    """A guest, and this besides; nothing is remembered."""
    write(base, "1", "data/a.json")
    path = write(base, light(node("db", operation="read", file="data/{which}.json")))
    assert session.run(path, allow={"read": "data/*.json"}, which="a", view=False).output == 1
    with pytest.raises(NotGrantedError):  # which file it is shows while it runs
        session.run(path, allow={"read": "other/*"}, which="a", view=False)
    with pytest.raises(TrustError):
        session.run(path, allow={"net": "api.example.org"}, which="a", view=False)
    with pytest.raises(TrustError):
        session.run(path, which="a", view=False)
    with pytest.raises(UserError, match="nothing that can be allowed"):
        session.run(path, allow={"everything": True}, view=False)


def test_servers_on_the_list_only(session: Session, base: Path) -> None:
    """What a value names while the run goes on must be on the list."""
    server = Server()
    try:
        path = write(base, light(node("api_job", url="{{u}}")))
        got = session.run(path, allow={"net": server.url}, u=f"{server.url}/x", view=False)
        assert got.status == "completed"
        with pytest.raises(NotGrantedError):
            session.run(path, allow={"net": "api.example.org"}, u=f"{server.url}/x", view=False)
    finally:
        server.http.shutdown()
        server.http.server_close()


def test_another_name_of_a_server_is_another_server(session: Session, base: Path) -> None:
    """Servers of many names go by the header Host."""
    server = Server()
    try:
        for name in ("Host", "host"):
            path = write(base, light(node("api_job", url=f"{server.url}/x", headers={name: "elsewhere.example.org"})))
            with pytest.raises(NotGrantedError, match=r"http://elsewhere\.example\.org"):
                session.run(path, trust=True, view=False)
        host = server.url.partition("://")[2]
        path = write(base, light(node("api_job", url=f"{server.url}/x", headers={"Host": host})))
        assert session.run(path, trust=True, view=False).status == "completed"
    finally:
        server.http.shutdown()
        server.http.server_close()


# Whose it is.


def test_what_is_typed_or_made_in_code_is_the_users_own(session: Session, base: Path) -> None:
    """Text, mappings and what the session saved itself run as they are; trust=False makes guests of them."""
    made = light(node("code_job", code="return 7"))
    assert session.run(json.dumps(made), view=False).output == 7
    assert session.run(made, view=False).output == 7
    load_text(json.dumps(made)).save(base / "mine.light.yaml")
    assert session.run("mine.light.yaml", view=False).output == 7
    with pytest.raises(TrustError):
        session.run(made, trust=False, view=False)


def test_saving_a_foreign_diagram_makes_it_nobodys(session: Session, base: Path) -> None:
    """What was loaded from a file stays what that file is, under any name and in any format."""
    path = write(base, light(node("code_job", code="return 7")))
    load(path).save(base / "copy.native.json")
    load(path).set("nodes.Work.code", "return 8").save(base / "copy.light.yaml")
    for name in ("copy.native.json", "copy.light.yaml"):
        with pytest.raises(TrustError):
            session.run(name, view=False)


def test_a_child_of_ones_own_diagram_stays_what_it_is(session: Session, base: Path) -> None:
    """The user's own diagram may run a guest; one that wants more is asked about before the run, alone."""
    write(
        base, light(node("person_job", person="A", default_prompt="x"), persons={"A": {"service": "echo"}}), "talk.light.yaml"
    )
    write(base, light(node("code_job", code=marking())), "evil.light.yaml")
    mine = light(node("code_job", "Mine", code="return 1"), node("sub_diagram", "Sub", diagram_name="{which}"))
    assert session.run(mine, which="talk", view=False).status == "completed"
    with pytest.raises(NotGrantedError, match="not trusted"):
        session.run(mine, which="evil", view=False)
    fixed = light(node("code_job", "Mine", code="return 1"), node("sub_diagram", "Sub", diagram_name="evil"))
    with pytest.raises(TrustError) as caught:
        session.run(fixed, view=False)
    assert not any("Mine" in line for line in caught.value.listing())
    assert not (base / MARK).exists()


def test_a_folder_is_trusted_with_all_below_it(session: Session, base: Path) -> None:
    """Also after changes; not when it is another folder of that name, nor when others may write the file."""
    path = write(base, light(node("code_job", code="return 7")), "sub/d.light.yaml")
    trust = Trust(get_settings())
    trust.trust_folder(base)
    assert session.run(path, view=False).output == 7
    write(base, light(node("code_job", code="return 8")), "sub/d.light.yaml")
    assert session.run(path, view=False).output == 8
    path.chmod(0o666)
    with pytest.raises(TrustError):
        session.run(path, view=False)
    path.chmod(0o644)
    assert trust.forget(str(base))
    with pytest.raises(TrustError):
        session.run(path, view=False)


def test_what_a_guest_wrote_is_no_ones_own_in_a_trusted_folder(session: Session, base: Path, tmp_path: Path) -> None:
    """A diagram that an untrusted one was allowed to write stays untrusted until somebody edits it."""
    text = json.dumps(light(node("code_job", code="return 70")))
    path = write(tmp_path / "elsewhere", light(node("template_job", template_content=text, output_path="made.light.yaml")))
    assert session.run(path, allow={"write": "made.light.yaml"}, view=False).status == "completed"
    Trust(get_settings()).trust_folder(base)
    with pytest.raises(TrustError):
        session.run("made.light.yaml", view=False)
    write(base, text.replace("return 70", "return 8"), "made.light.yaml")
    assert session.run("made.light.yaml", view=False).output == 8


def test_a_folder_made_anew_is_not_trusted(base: Path, tmp_path: Path) -> None:
    """Trust ends with the folder it was given to."""
    trust = Trust(get_settings())
    trust.trust_folder(base)
    path = write(base, light())
    assert trust.in_trusted_folder(path)
    base.rename(tmp_path / "old")
    base.mkdir()
    assert not trust.in_trusted_folder(write(base, light()))


def test_a_link_into_a_trusted_folder_does_not_help(base: Path, tmp_path: Path) -> None:
    """Where a file really is counts."""
    elsewhere = write(tmp_path / "elsewhere", light(node("code_job", code=marking())))
    Trust(get_settings()).trust_folder(base)
    (base / "link.light.yaml").symlink_to(elsewhere)
    with Session() as session, pytest.raises(TrustError):
        session.run("link.light.yaml", view=False)


# Records of runs.


def test_the_record_of_ones_own_run_goes_on(session: Session, base: Path) -> None:
    """What was decided when it began holds, as its signature says."""
    failing = light(
        node("code_job", "First", code="n = 1\nreturn n"), node("code_job", "Then", code="open('go').read()\nreturn n")
    )
    run = session.start(failing, view=False)
    with pytest.raises(RunError):
        run.result(30)
    write(base, "x", "go")
    assert session.resume(run.id, view=False).result(30).output == 1
    assert session.fork(run.id, at="Then", view=False).result(30).output == 1


@pytest.mark.parametrize("way", ["resume", "fork"])
@pytest.mark.parametrize("form", ["python", "shell hook"])
def test_a_record_that_came_with_a_folder_is_foreign(
    base: Path, way: str, form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run store of somebody else, with a failed run whose diagram says it lies in a folder of the user's: refused."""
    failing = light({**KINDS[form], "label": "Evil"}, node("code_job", "Fail", code="1/0"))
    with Session(llm=scripted()) as theirs:
        run = theirs.start(failing, view=False)
        with pytest.raises(RunError):
            run.result(30)
    (base / MARK).unlink()
    mine = tmp_path / "mine"
    write(mine, light())
    with sqlite3.connect(base / ".dipeo" / "runs.db") as store:
        assert store.execute("select count(*) from events").fetchone()[0] > 0
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / "another-user"))
    monkeypatch.setenv("DIPEO_TRUST", str(mine))
    reset_settings()
    with Session() as session, pytest.raises(TrustError):
        session.resume(run.id, view=False) if way == "resume" else session.fork(run.id, at="Evil", view=False)
    assert not (base / MARK).exists()


def test_what_is_signed_cannot_be_moved_or_changed(base: Path) -> None:
    """The signature is of the whole event, its place and its run."""
    trust = Trust(get_settings())
    decision = trust.decide(Diagram(load_text(json.dumps(light())).model), load_text(json.dumps(light())).compile())
    stamp = trust.stamp(decision)
    first = Event(
        1, EventType.EXECUTION_STARTED, "exec_1", 0.0, None, {"trust": stamp, "source": {"a": 1}, "variables": {"x": 1}}
    )
    event = signed(first, trust.signatures.of(first))
    assert trust.verified(event) is Level.YOURS
    assert trust.verified(event._replace(occurred_at=5.0)) is Level.YOURS
    for change in (
        {"source": {"a": 2}}, {"variables": {"x": 2}}, {"trust": {**stamp, "level": "trusted"}}, {"trust": {**stamp, "base": "/"}},
        {"trust": "yours"}, {"trust": None}, {"mac": ""}, {"mac": None}, {"mac": "é"}, {"mac": event.payload["mac"].upper()}, {"more": 1},
    ):  # fmt: skip
        assert trust.verified(event._replace(payload={**event.payload, **change})) is None, change
    for moved in (event._replace(run_id="exec_2"), event._replace(seq=2), event._replace(node_id="node_1"), first):
        assert trust.verified(moved) is None


# The command.


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dipeo_nb", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)


def test_nobody_is_asked_without_a_terminal(base: Path) -> None:
    """Exit 2 with the list, and the code to pin; the pinned code runs exactly that, and is not remembered."""
    path = write(base, light(node("code_job", code="return 1 + 1")))
    refused = cli("run", str(path))
    assert refused.returncode == 2
    assert "return 1 + 1" in refused.stderr
    pin = json.loads(cli("inspect", str(path), "--json").stdout)["pin"]
    assert f"--pin {pin}" in refused.stderr
    assert cli("run", str(path), "--pin", pin).stdout.strip() == "2"
    assert cli("run", str(path)).returncode == 2
    write(base, light(node("code_job", code="return 1 + 2")))
    assert cli("run", str(path), "--pin", pin).returncode == 2


@pytest.mark.parametrize("command", ["validate", "inspect", "convert", "render"])
def test_looking_runs_and_remembers_nothing(base: Path, command: str) -> None:
    """Looking at a diagram is not trusting it."""
    path = write(base, light(node("code_job", code=marking())))
    more = {"convert": ["--to", "native"], "render": ["-o", str(base / "d.svg")]}.get(command, [])
    assert cli(command, str(path), *more).returncode == 0
    assert not (base / MARK).exists()
    with Runtime() as runtime, pytest.raises(TrustError):
        runtime.prepare(path)


def test_trust_by_command(base: Path) -> None:
    """A file as it is; a folder; the list; and taking it back."""
    path = write(base, light(node("code_job", code="return 1 + 1")))
    assert cli("trust", str(path)).returncode == 0
    assert cli("run", str(path)).stdout.strip() == "2"
    assert "diagram  d in" in cli("trust", "--list").stdout
    assert cli("trust", str(path), "--forget").returncode == 0
    assert cli("run", str(path)).returncode == 2
    assert cli("trust", ".").returncode == 0
    assert cli("run", str(path)).stdout.strip() == "2"


def test_the_list_shows_what_a_screen_would_not(base: Path) -> None:
    """Control characters and direction marks are written out."""
    path = write(base, light(node("code_job", code="return 1  # \x1b[8m hidden \u202e")))
    with Session() as session, pytest.raises(TrustError) as caught:
        session.run(path, view=False)
    shown = "\n".join(caught.value._render_traceback_())
    assert "return 1  # \\x1b[8m hidden \\u202e" in shown
    assert 'trust="' in shown


# Patterns.


@pytest.mark.parametrize(
    ("template", "pattern"),
    [
        ("data/{{x}}.csv", "data/*.csv"),
        ("{x}/a", "*/a"),
        ("{{x}}", "**"),
        ("a{", "a{"),
        ("{{a}}{{b}}", "**"),
        ("{a}{{b.c}}.py", "*.py"),
        ("x/{{a}}{{b}}{c}/y", "x/*/y"),
        ("x/**/{{a}}.ts", "x/**/*.ts"),
    ],
)
def test_names_made_while_running_are_patterns(template: str, pattern: str) -> None:
    """What is written out stays."""
    assert as_pattern(template) == pattern


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://api.x.org/{{id}}", "https://api.x.org"),
        ("https://api.x.org{{id}}", "*"),
        ("https://api.x.org:{{p}}/", "*"),
        ("https://api.x.org@{{h}}/", "*"),
        ("https://api.x.org@evil.org/", "https://evil.org"),
        ("https://{{h}}/", "*"),
        ("{{u}}", "*"),
        ("https://api.x.org\\@evil.org/", "*"),
        ("HTTPS://API.X.ORG.:443/", "https://api.x.org"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
        ("ftp://x.org/", "*"),
    ],
)
def test_a_server_is_known_only_when_it_is_written_out(url: str, found: str) -> None:
    """Anything less certain is any server."""
    assert origin_of_template(url) == found


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [("data/a.csv", "data/*.csv", True), ("data/b/a.csv", "data/*.csv", False), ("data/../x.csv", "data/*.csv", False),
     ("out/a/b", "out/**", True), ("outer/a", "out/**", False), ("x", "**", True), ("a[1]", "a[1]", True), ("a1", "a[1]", False),
     ("m/a.ts", "m/**/*.ts", True), ("m/a/b/c.ts", "m/**/*.ts", True), ("m/a/c.js", "m/**/*.ts", False), ("n/m/a.ts", "m/**/*.ts", False),
     ("m/../n/a.ts", "m/**/*.ts", False), ("a/x/b/y/c", "a/**/b/**/c", True), ("a/b/c", "a/**/b/**/c", True), ("a/c", "a/**/b/**/c", False),
     ("out", "out/**", False), ("a/b", "a**", False), ("ab", "a**", True),
     ("../x", "**/x", False), ("../x", "*/x", False), ("../../x", "../**", False), ("../a/x", "../**", True),
     ("/etc/x", "**/x", False), ("/x", "*/x", False), ("/etc/x", "/**/x", True), ("/".join("a" * 900), "/".join(["**", "a"] * 40 + ["b"]), False)],
)  # fmt: skip
def test_a_star_stays_within_a_folder(path: str, pattern: str, fits: bool) -> None:
    """As a reader of the list expects."""
    assert path_fits(path, pattern) is fits
