"""From diagrams to plans: what is refused, what is warned about, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram.compile import check_diagram, compile_diagram
from dipeo_nb.diagram.document import Diagram, load_text
from dipeo_nb.diagram.python_code import code_problem
from dipeo_nb.diagram.specs import build_spec
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, DomainPerson, LLMConfig
from dipeo_nb.domain.enums import ConditionType, HookTriggerMode, HttpMethod, Severity, SupportedLanguage
from dipeo_nb.domain.nodes import CodeJobNode, ConditionNode, PersonJobNode
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import InvalidDiagramError

HEAD = """\
version: light
nodes:
- label: start
  type: start
- label: end
  type: endpoint
"""
ADA = "persons:\n  Ada:\n    service: echo\n"


def diagram(nodes: str = "", connections: str = "", persons: str = ADA, head: str = HEAD, path: Path | None = None) -> Diagram:
    return load_text(f"{head}{nodes}connections:\n{connections}{persons}", path=path)


def with_node(node: str, label: str = "X", persons: str = ADA, path: Path | None = None) -> Diagram:
    """start → X → end, with X as given (a condition leaves on both branches)."""
    handle = ["[condtrue]", "[condfalse]"] if "type: condition" in node else [""]
    connections = f"- {{from: start, to: {label}}}\n" + "".join(f"- {{from: '{label}{h}', to: end}}\n" for h in handle)
    return diagram(f"- label: {label}\n{node}", connections, persons, path=path)


def findings(found: Diagram, **options: Any) -> tuple[Diagnostic, ...]:
    return check_diagram(
        found.model, source=found.source, name=found.name, path=found.path, diagnostics=found.diagnostics, **options
    )


def plan(found: Diagram, **options: Any) -> Plan:
    return compile_diagram(
        found.model, source=found.source, name=found.name, path=found.path, diagnostics=found.diagnostics, **options
    )


def codes(found: Diagram, **options: Any) -> list[str]:
    return [f"{d.severity}:{d.code}" for d in findings(found, **options)]


def only(found: Diagram, **options: Any) -> Diagnostic:
    (finding,) = findings(found, **options)
    return finding


PERSON_JOB = "  type: person_job\n  person: Ada\n  default_prompt: hi\n"


def test_plan() -> None:
    """A sound diagram has no findings; the plan has typed nodes, persons by id and linked edges."""
    made = plan(with_node(PERSON_JOB + "  max_iteration: '3'\n"))
    assert made.diagnostics == ()
    node = made.node("X")
    assert isinstance(node.spec, PersonJobNode)
    assert node.spec.max_iteration == 3
    assert node.spec.person == "Ada"
    assert made.persons["Ada"].llm.service == "echo"
    assert [made.nodes[e.target].label for e in made.edges] == ["X", "end"]
    assert made.by_id[node.id] == node.index


# --- what is refused ---------------------------------------------------------------------------------------------

ERRORS = [
    ("  type: person_job\n  person: ''\n  default_prompt: hi\n", "missing-person", 9, "person"),
    ("  type: person_job\n  default_prompt: hi\n", "missing-person", 7, "person"),
    ("  type: person_job\n  person: Adda\n  default_prompt: hi\n", "unknown-person", 9, "person"),
    ("  type: person_job\n  person: Ada\n", "missing-prompt", 7, None),
    ("  type: person_job\n  person: Ada\n  default_prompt: ' '\n", "missing-prompt", 7, None),
    (PERSON_JOB + "  max_iteration: 0\n", "wrong-value", 11, "max_iteration"),
    (PERSON_JOB + "  at_most: 501\n", "wrong-value", 11, "at_most"),
    (PERSON_JOB + "  batch: perhaps\n", "wrong-value", 11, "batch"),
    (PERSON_JOB + "  temperature: hot\n", "wrong-value", 11, "temperature"),
    ("  type: person_job\n  person: Ada\n  default_prompt: [a]\n", "wrong-value", 10, "default_prompt"),
    ("  type: person_job\n  person: Ada\n  default_prompt: |\n    Hello\n    {{#if a}}x\n", "bad-template", 12, "default_prompt"),
    (PERSON_JOB + "  text_format: |\n    class A(BaseModel):\n        x: foo\n", "bad-text-format", 13, "text_format"),
    ("  type: condition\n", "missing-expression", 7, None),
    ("  type: condition\n  expression: a >\n", "bad-expression", 9, "expression"),
    ("  type: condition\n  condition_type: costum\n", "wrong-value", 9, "condition_type"),
    ("  type: condition\n  condition_type: nodes_executed\n  node_indices: [Y]\n", "unknown-node", 10, "node_indices"),
    ("  type: condition\n  condition_type: check_nodes_executed\n", "missing-node-indices", 9, "condition_type"),
    ("  type: condition\n  condition_type: llm_decision\n  judge_by: ok?\n", "missing-person", 7, None),
    ("  type: condition\n  condition_type: llm_decision\n  person: Ada\n", "missing-prompt", 7, None),
    ("  type: code_job\n", "missing-code", 7, None),
    ("  type: code_job\n  code: |\n    a = 1\n    b = {\\\"x\\\": 1}\n", "bad-code", 11, "code"),
    ("  type: code_job\n  code: 'if x'\n", "bad-code", 9, "code"),
    ("  type: code_job\n  code: break\n", "bad-code", 9, "code"),
    ("  type: code_job\n  language: cobol\n  code: x\n", "wrong-value", 9, "language"),
    ("  type: db\n  operation: read\n", "missing-file", 7, None),
    ("  type: db\n  operation: update\n  file: a.json\n", "missing-keys", 9, "operation"),
    ("  type: db\n  operation: write\n  file: a.json\n  lines: '1:2'\n", "wrong-value", 11, "lines"),
    ("  type: sub_diagram\n", "missing-diagram", 7, None),
    ("  type: diff_patch\n  diff: x\n", "missing-target-path", 7, "target_path"),
    ("  type: persn_job\n  person: Ada\n", "unknown-type", 8, "type"),
    ("  type: db\n  file: a.txt\n  timeout: -1\n", "wrong-value", 10, "timeout"),
    ("  type: db\n  file: a.txt\n  on_error: ignore\n", "wrong-value", 10, "on_error"),
    ("  type: user_response\n  prompt: '{{#each}}'\n", "bad-template", 9, "prompt"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "code", "line", "field"), ERRORS)
def test_errors_of_nodes(node: str, code: str, line: int, field: str | None) -> None:
    """Each mistake in a node is one error with its line, node and remedy, and refuses the diagram."""
    found = with_node(node)
    errors = [d for d in findings(found) if d.severity is Severity.ERROR]
    assert [d.code for d in errors] == [code]
    (error,) = errors
    assert (error.line, error.field) == (line, field)
    assert error.node == "X"
    assert error.hint
    with pytest.raises(InvalidDiagramError) as caught:
        plan(found)
    assert error in caught.value.diagnostics
    assert f"error[{code}]" in str(caught.value)
    assert caught.value.hint == "Nothing was run."


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (diagram(head="version: light\nnodes: []\n", persons=""), "no-nodes"),
        (diagram(head="version: light\nnodes:\n- {label: e, type: endpoint}\n"), "no-start"),
        (diagram(connections="- {from: start, to: nowhere}\n"), "unknown-node"),
        (diagram(connections="- {from: nowhere, to: end}\n"), "unknown-node"),
        (diagram(connections="- {from: end, to: end}\n"), "arrow-out-of-endpoint"),
        (diagram(connections="- {from: start, to: start}\n"), "arrow-into-start"),
        (diagram(connections="- {from: 'start[condtrue]', to: end}\n"), "unknown-handle"),
        (diagram(connections="- {from: start, to: 'end[first]'}\n"), "unknown-handle"),
        (diagram(connections="- {from: start, to: end, content_type: blob}\n"), "unknown-content-type"),
        (
            diagram(
                head="version: light\nnodes:\n- {label: s, type: start, trigger_mode: hook}\n- {label: end, type: endpoint}\n",
                connections="- {from: s, to: end}\n",
            ),
            "missing-hook-event",
        ),
    ],
)
def test_errors_of_the_whole(found: Diagram, code: str) -> None:
    """Each mistake in the structure is one error with a place where the text has one, and a remedy."""
    errors = [d for d in findings(found) if d.severity is Severity.ERROR]
    assert code in [d.code for d in errors]
    assert all(d.hint for d in errors)
    assert all(d.line for d in errors) or code in ("no-nodes", "no-start")
    with pytest.raises(InvalidDiagramError):
        plan(found)


def test_errors_of_models_made_by_hand() -> None:
    """A model without a text gets the same checks, without places."""
    start, end = DomainNode("s", "start", "s"), DomainNode("e", "endpoint", "e")
    cases = {
        "duplicate-id": DomainDiagram((start, start, end), (DomainArrow("a", "s", "e"),)),
        "unknown-node": DomainDiagram((start, end), (DomainArrow("a", "s", "x"),)),
        "unknown-handle": DomainDiagram((start, end), (DomainArrow("a", "s", "e", "sucess"),)),
        "unknown-content-type": DomainDiagram((start, end), (DomainArrow("a", "s", "e", content_type="json"),)),
    }
    for code, model in cases.items():
        assert code in [d.code for d in check_diagram(model) if d.severity is Severity.ERROR]
        with pytest.raises(InvalidDiagramError):
            compile_diagram(model)


def test_reading_errors_refuse() -> None:
    """An error of the reader refuses the diagram, even when the rest compiles."""
    found = diagram(connections="- {from: start, to: end}\n")
    said = Diagnostic(Severity.ERROR, "wrong-type", "Something did not fit.")
    with pytest.raises(InvalidDiagramError) as caught:
        compile_diagram(found.model, diagnostics=[said])
    assert caught.value.diagnostics == (said,)


def test_all_errors_are_told_at_once() -> None:
    """Several mistakes are all in the message, in file order."""
    nodes = "- {label: A, type: person_job, person: Nobody}\n- {label: B, type: code_job, code: 'x ='}\n"
    with pytest.raises(InvalidDiagramError, match="3 errors") as caught:
        plan(diagram(nodes, "- {from: start, to: A}\n- {from: A, to: B}\n- {from: B, to: end}\n"))
    message = str(caught.value)
    assert message.index("missing-prompt") < message.index("bad-code")
    assert "unknown-person" in message


def test_nearest_spellings() -> None:
    """Hints carry the nearest correct spelling."""
    assert "'Ada'" in str(only(with_node("  type: person_job\n  person: Adda\n  default_prompt: hi\n")))
    assert "'person_job'" in str(next(d for d in findings(with_node("  type: persn_job\n")) if d.code == "unknown-type"))
    assert "'custom'" in str(only(with_node("  type: condition\n  condition_type: costum\n")))
    assert "'default_prompt'" in str(only(with_node(PERSON_JOB + "  defualt_prompt: x\n")))


def test_not_runnable() -> None:
    """With a registry, types it cannot run are refused; without one nothing is asked."""
    asked: list[str] = []

    def runnable(kind: str) -> bool:
        asked.append(kind)
        return kind in ("start", "endpoint", "code_job")

    found = with_node("  type: code_job\n  language: bash\n  code: ls\n")
    assert codes(found) == []
    assert codes(found, runnable=runnable) == ["error:not-runnable"]
    assert asked == ["start", "endpoint", "code_job:bash"]
    assert codes(with_node("  type: hook\n  command: ls\n"), runnable=runnable) == ["error:not-runnable"]


# --- what is warned about ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (diagram(head="version: light\nnodes:\n- {label: s, type: start}\n"), "no-endpoint"),
        (diagram("- {label: lone, type: db, file: a}\n", "- {from: start, to: end}\n"), "unreachable"),
        (with_node(PERSON_JOB + "  colour: red\n"), "unknown-property"),
        (with_node(PERSON_JOB + "  ignore_person: Bob\n"), "unknown-person"),
        (with_node("  type: code_job\n  code: x = 1\n  file_path: x.py\n"), "code-and-file"),
        (with_node("  type: condition\n  condition_type: detect_max_iterations\n"), "never-true"),
        (
            diagram(
                "- {label: C, type: condition, expression: 'true'}\n",
                "- {from: start, to: C}\n- {from: 'C[condtrue]', to: end}\n",
            ),
            "missing-branch",
        ),
        (
            diagram("- {label: end, type: endpoint}\n", "- {from: start, to: end}\n- {from: start, to: end~1}\n"),
            "duplicate-label",
        ),
    ],
)
def test_warnings(found: Diagram, code: str) -> None:
    """What can go wrong but need not is a warning with a remedy, and the diagram compiles."""
    said = [d for d in findings(found) if d.code == code]
    assert said
    assert all(d.severity is Severity.WARNING and d.hint for d in said)
    assert plan(found).diagnostics == findings(found)


def test_reading_and_compiling_say_a_thing_once() -> None:
    """A finding that reader and compiler share appears once."""
    found = with_node(PERSON_JOB + "  colour: red\n")
    assert codes(found) == ["warning:unknown-property"]
    assert [c for c in codes(with_node("  type: persn_job\n")) if "unknown-type" in c] == ["error:unknown-type"]


# --- names that nothing provides ---------------------------------------------------------------------------------


def asks(prompt: str, connections: str, nodes: str = "", head: str = HEAD) -> list[str]:
    job = f"- label: X\n  type: person_job\n  person: Ada\n  default_prompt: '{prompt}'\n"
    found = diagram(job + nodes, connections + "- {from: X, to: end}\n", head=head)
    return [d.message for d in findings(found) if d.code == "unknown-name"]


def test_a_name_that_nothing_provides() -> None:
    """A template that names what no arrow brings is warned about, with the way to give it."""
    found = with_node("  type: person_job\n  person: Ada\n  default_prompt: about {{topic}}\n")
    finding = only(found)
    assert finding.severity is Severity.WARNING
    assert finding.line == 10
    assert "'topic'" in finding.message
    assert "--input topic=" in (finding.hint or "")
    assert plan(found)


def test_names_that_arrows_bring() -> None:
    """Labels, handles, source labels, start data and the special names are known."""
    data = HEAD.replace("  type: start\n", "  type: start\n  custom_data: {tone: dry}\n")
    prompt = "{{topic}} {{default}} {{start}} {{tone}} {{inputs}} {{#if x}}{{x}}{{/if}}{{person:name}}"
    assert asks(prompt, "- {from: start, to: X, label: topic}\n- {from: start, to: X}\n", head=data) == []


def test_names_that_mappings_may_bring() -> None:
    """Where a mapping can arrive, nothing is said about names."""
    code = ["- {label: C, type: code_job, code: 'result = {}'}\n", ": x}\n"][0]
    assert asks("{{a}}", "- {from: start, to: C}\n- {from: C, to: X}\n", code) == []
    ask = "- {label: U, type: user_response, prompt: hm}\n"
    assert len(asks("{{a}}", "- {from: start, to: U}\n- {from: U, to: X}\n", ask)) == 1
    assert asks("{{a}}", "- {from: start, to: U}\n- {from: U, to: X, content_type: object}\n", ask) == []


def test_names_that_code_sets() -> None:
    """A variable that some code job assigns is known everywhere."""
    code = "- {label: C, type: code_job, code: 'score = 3'}\n"
    arrows = "- {from: start, to: C}\n- {from: start, to: X}\n- {from: C, to: end}\n"
    assert asks("{{score}}", arrows, code) == []
    assert len(asks("{{other}}", arrows, code)) == 1


def test_expressions_name_things_too() -> None:
    """Unknown names of expressions are warned about like those of templates, nearest spelling included."""
    nodes = "- {label: U, type: user_response, prompt: hm}\n- {label: C, type: condition, expression: agee > '3'}\n"
    arrows = "- {from: start, to: U}\n- {from: U, to: C, label: age}\n- {from: 'C[condtrue]', to: end}\n- {from: 'C[condfalse]', to: end}\n"
    finding = only(diagram(nodes, arrows))
    assert (finding.code, finding.field) == ("unknown-name", "expression")
    assert "Did you mean 'age'" in (finding.hint or "")


# --- files -------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a.txt", "flow/a.txt"),
        ("a.txt", "flow/prompts/a.txt"),
        ("prompts/a.txt", "flow/prompts/a.txt"),
        ("a.txt", "files/prompts/a.txt"),
        ("files/x/a.txt", "files/x/a.txt"),
        ("projects/x/a.txt", "projects/x/a.txt"),
        ("sub/a.txt", "sub/a.txt"),
    ],
)
def test_prompt_files_are_found(tmp_path: Path, name: str, place: str) -> None:
    """A prompt file is found in each place of the search order, and overrides the inline prompt."""
    write(tmp_path / place, "from the file")
    found = with_node(
        PERSON_JOB + f"  prompt_file: {name}\n  first_prompt_file: {name}\n", path=tmp_path / "flow" / "d.light.yaml"
    )
    spec = plan(found, base_dir=tmp_path).node("X").spec
    assert isinstance(spec, PersonJobNode)
    assert spec.resolved_prompt == spec.resolved_first_prompt == "from the file"


def test_first_place_wins(tmp_path: Path) -> None:
    """The folder of the diagram comes before the common folder."""
    write(tmp_path / "files/prompts/a.txt", "common")
    write(tmp_path / "flow/a.txt", "own")
    found = with_node(PERSON_JOB + "  prompt_file: a.txt\n", path=tmp_path / "flow/d.yaml")
    assert plan(found, base_dir=tmp_path).node("X").spec.resolved_prompt == "own"  # type: ignore[attr-defined]


def test_missing_prompt_files(tmp_path: Path) -> None:
    """A missing prompt file is an error that names the places; beside an inline prompt it is a warning."""
    write(tmp_path / "files/prompts/judge.txt", "x")
    alone = with_node("  type: person_job\n  person: Ada\n  prompt_file: juge.txt\n")
    error = only(alone, base_dir=tmp_path)
    assert (error.severity, error.code, error.line) == (Severity.ERROR, "file-not-found", 10)
    assert "Did you mean 'judge.txt'" in (error.hint or "")
    assert str(tmp_path / "files/prompts/juge.txt") in (error.hint or "")
    assert codes(with_node(PERSON_JOB + "  prompt_file: juge.txt\n"), base_dir=tmp_path) == ["warning:file-not-found"]


def test_prompt_files_stay_inside(tmp_path: Path) -> None:
    """A path or a link that leads out of the base directory and the diagram's folder is refused, unread."""
    write(tmp_path / "secret.txt", "secret")
    base = tmp_path / "base"
    base.mkdir()
    (base / "link.txt").symlink_to(tmp_path / "secret.txt")
    for name in ("../secret.txt", str(tmp_path / "secret.txt"), "link.txt"):
        job = f"  type: person_job\n  person: Ada\n  prompt_file: '{name}'\n"
        assert codes(with_node(job), base_dir=base) == ["error:file-outside"]
    for name in ("a\\0b", "x" * 5000):
        job = f'  type: person_job\n  person: Ada\n  prompt_file: "{name}"\n'
        assert [c.split(":")[0] for c in codes(with_node(job), base_dir=base)] == ["error"]


def test_bad_prompt_file_contents(tmp_path: Path) -> None:
    """A file that is no text, and a template in a file that is no template, are told with the field of the file."""
    (tmp_path / "bin.txt").write_bytes(b"\xff\xfe\x00")
    write(tmp_path / "bad.txt", "a\n{{#if x}}")
    assert codes(with_node("  type: person_job\n  person: Ada\n  prompt_file: bin.txt\n"), base_dir=tmp_path) == [
        "error:file-not-text"
    ]
    finding = only(with_node("  type: person_job\n  person: Ada\n  prompt_file: bad.txt\n"), base_dir=tmp_path)
    assert (finding.code, finding.field, finding.line) == ("bad-template", "prompt_file", 10)
    assert "In 'bad.txt': Line 2" in finding.message


def test_person_and_judge_files(tmp_path: Path) -> None:
    """System prompts of persons and judge prompts come from files too; an inline judge prompt wins."""
    write(tmp_path / "files/prompts/ada.txt", "You are Ada.")
    write(tmp_path / "files/prompts/judge.txt", "Is it good?")
    condition = "  type: condition\n  condition_type: llm_decision\n  person: Ada\n  judge_by_file: judge.txt\n"
    persons = ADA + "    prompt_file: ada.txt\n"
    made = plan(with_node(condition, persons=persons), base_dir=tmp_path)
    assert made.persons["Ada"].llm.system_prompt == "You are Ada."
    spec = made.node("X").spec
    assert isinstance(spec, ConditionNode)
    assert spec.judge_by == "Is it good?"
    made = plan(with_node(condition + "  judge_by: mine\n", persons=persons), base_dir=tmp_path)
    assert made.node("X").spec.judge_by == "mine"  # type: ignore[attr-defined]
    assert codes(with_node(PERSON_JOB, persons=ADA + "    prompt_file: no.txt\n"), base_dir=tmp_path) == [
        "error:file-not-found"
    ]


def test_text_format_files(tmp_path: Path) -> None:
    """text_format is the text of text_format_file, which is checked; the name stays, for what the diagram is shown to bring."""
    write(tmp_path / "shape.py", "class A(BaseModel):\n    x: int\n")
    write(tmp_path / "bad.py", "import os\n")
    spec = plan(with_node(PERSON_JOB + "  text_format_file: shape.py\n"), base_dir=tmp_path).node("X").spec
    assert isinstance(spec, PersonJobNode)
    assert (spec.text_format, spec.text_format_file) == ("class A(BaseModel):\n    x: int\n", "shape.py")
    assert codes(with_node(PERSON_JOB + "  text_format_file: bad.py\n"), base_dir=tmp_path) == ["error:bad-text-format"]
    assert codes(with_node(PERSON_JOB + "  text_format_file: no.py\n"), base_dir=tmp_path) == ["error:file-not-found"]


def test_code_files(tmp_path: Path) -> None:
    """Code files must exist below the base directory, parse, and have the function."""
    write(tmp_path / "base/code.py", "def main(inputs):\n    return 1\n")
    write(tmp_path / "base/bad.py", "def main(:\n")
    write(tmp_path / "base/flow/near.py", "def main(): pass\n")
    write(tmp_path / "outside/far.py", "def main(): pass\n")
    base = tmp_path / "base"

    def code(rest: str, folder: str = "base/flow") -> Diagram:
        return with_node(f"  type: code_job\n  {rest}\n", path=tmp_path / folder / "d.yaml")

    assert codes(code("file_path: code.py"), base_dir=base) == []
    spec = plan(code("file_path: near.py"), base_dir=base).node("X").spec
    assert isinstance(spec, CodeJobNode)
    assert spec.file_path == "flow/near.py"
    assert codes(code("file_path: no.py"), base_dir=base) == ["error:file-not-found"]
    assert codes(code("file_path: bad.py"), base_dir=base) == ["error:bad-code"]
    assert codes(code("file_path: code.py\n  function_name: mian"), base_dir=base) == ["error:unknown-function"]
    write(tmp_path / "base/sets.py", "result = 1\n")
    write(tmp_path / "base/returns.py", "return 1\n")
    write(tmp_path / "base/helpers.py", "def helper(): pass\n")
    assert codes(code("file_path: sets.py"), base_dir=base) == codes(code("file_path: returns.py"), base_dir=base) == []
    assert codes(code("file_path: helpers.py"), base_dir=base) == ["warning:unknown-function"]
    assert codes(code("file_path: far.py", "outside"), base_dir=base) == ["error:file-outside"]
    assert codes(code("code: code.py"), base_dir=base) == []


def test_code_files_that_the_run_writes(tmp_path: Path) -> None:
    """A missing code file is a warning when another node could write it."""
    nodes = "- {label: W, type: db, operation: write, file: out.py}\n- {label: X, type: code_job, file_path: out.py}\n"
    found = diagram(nodes, "- {from: start, to: W}\n- {from: W, to: X}\n- {from: X, to: end}\n")
    assert codes(found, base_dir=tmp_path) == ["warning:file-not-found"]


# --- code and places ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["return 1", "if a:\n    return 2\nresult = 3", "x = await f()", "", "def f():\n    return 1", "'\\d'"]
)
def test_code_that_parses(code: str) -> None:
    """Top-level return and await are allowed; warnings of Python are not errors."""
    assert code_problem(code) is None


@pytest.mark.parametrize("code", ["a b", "break", "def f(a, a): pass", "nonlocal x", "x = \\", "\x00", "(" * 500])
def test_code_that_does_not_parse(code: str) -> None:
    """What Python would refuse is refused before anything runs."""
    assert code_problem(code)


@pytest.mark.parametrize(
    ("field", "line", "column"),
    [
        ("  code: |\n    a = 1\n    b c\n", 11, 7),
        ("  code: |-\n      a = 1\n      b c\n", 11, 9),
        ("  code: 'b c'\n", 9, 12),
        ("  code: b c\n", 9, 11),
        ('  code: "a = 1\\nlonger bad\\\n    \\ line"\n', 9, 9),
        ("  props:\n    code: |\n      a = 1\n      b c\n", 12, 9),
    ],
)
def test_places_inside_texts(field: str, line: int, column: int) -> None:
    """Errors inside a text point at the line of the file, in every style of YAML."""
    finding = only(with_node("  type: code_job\n" + field))
    assert (finding.line, finding.column) == (line, column) or '"' in field
    assert finding.line is not None
    assert abs(finding.line - line) <= 1


def test_places_in_json() -> None:
    """JSON has places too; code on one line points at its field."""
    text = """{"nodes": [{"id": "s", "type": "start", "data": {}},
 {"id": "x", "type": "code_job",
  "data": {"label": "X", "code": "a = 1\\nb c"}}], "arrows": [{"id": "a", "source": "s_default_output", "target": "x_default_input"}],
 "persons": []}"""
    finding = next(d for d in findings(load_text(text)) if d.code == "bad-code")
    assert finding.line == 3


# --- typed specs -------------------------------------------------------------------------------------------------


def spec_of(kind: str, **data: Any) -> Any:
    spec, problems = build_spec(DomainNode("n", kind, "N", data=data))
    assert not [p for p in problems if p.severity is Severity.ERROR], problems
    return spec


def test_lenient_spellings() -> None:
    """Numbers and truth values as text, enum values in any case, aliases, empty text for "not set"."""
    job = spec_of(
        "person_job",
        person="A",
        max_iteration="4",
        batch="yes",
        at_most="",
        temperature=1,
        prompt="first",
        memory_profile="FULL",
    )
    assert (job.max_iteration, job.batch, job.at_most, job.temperature) == (4, True, None, 1.0)
    assert (job.first_only_prompt, job.memorize_to) == ("first", "ALL_MESSAGES")
    assert spec_of("api_job", method="post").method is HttpMethod.POST
    assert spec_of("start", trigger_mode="automatic").trigger_mode is HookTriggerMode.NONE
    assert spec_of("condition", condition_type="NODES-EXECUTED", node_indices="a").node_indices == ["a"]
    assert spec_of("condition", condition_type="nodes_executed").condition_type is ConditionType.CHECK_NODES_EXECUTED
    assert spec_of("code_job", language=None, code_type="Bash").language is SupportedLanguage.BASH
    assert spec_of("db", file=["a", "b"]).file == ["a", "b"]
    assert spec_of("user_response", default_value=3).default == "3"
    assert spec_of("sub_diagram", input_mapping='{"a": "b"}', batch="").input_mapping == {"a": "b"}
    assert spec_of("start", flipped=[True, False]).flipped == (True, False)


def test_canonical_name_wins_over_its_alias() -> None:
    """An alias counts only when the canonical name is absent."""
    assert spec_of("endpoint", file_path="a", file_name="b").file_name == "b"
    assert spec_of("endpoint", file_path="a").file_name == "a"


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)  # fmt: skip


@given(
    st.sampled_from(["start", "person_job", "condition", "code_job", "db", "endpoint", "hook", "api_job", "typescript_ast", "sub_diagram"]),
    st.dictionaries(
        st.sampled_from(["person", "max_iteration", "at_most", "expression", "code", "file", "timeout", "flipped", "language", "default_prompt", "custom_data", "keys", "lines", "tools", "extract_patterns", "text_format", "prompt_file", "metadata", "batch"]),
        values,
        max_size=6,
    ),
)  # fmt: skip
def test_any_properties(kind: str, data: dict[str, Any]) -> None:
    """Whatever a node holds, checking ends with findings and not with an exception."""
    nodes = (DomainNode("s", "start", "s"), DomainNode("x", kind, "X", data=data))
    model = DomainDiagram(nodes, (DomainArrow("a", "s", "x"),), (DomainPerson("p", "P", LLMConfig("echo")),))
    for finding in check_diagram(model):
        assert finding.message
        assert str(finding)


LOOP = """
version: light
persons:
  A: {service: echo, model: echo}
nodes:
  - {label: Start, type: start}
  - {label: Plan, type: person_job, person: A, default_prompt: plan}
  - {label: Write, type: person_job, person: A, default_prompt: write, max_iteration: 3}
  - {label: Review, type: person_job, person: A, default_prompt: review%s}
  - {label: Done, type: condition, condition_type: detect_max_iterations}
  - {label: Publish, type: person_job, person: A, default_prompt: "publish {{draft}}"}
  - {label: End, type: endpoint}
connections:
  - {from: Start, to: Plan}
  - {from: Plan, to: Write}
  - {from: Write, to: Review}
  - {from: Review, to: Done}
  - {from: Done_condfalse, to: Write}
  - {from: Done_condtrue, to: Publish}
  - {from: Write, to: Publish, label: draft}
  - {from: Publish, to: End}
"""


def by_code(text: str) -> dict[str, str]:
    found = load_text(text).check()
    return {d.code: f"{d.severity} {d.node}: {d.message}" for d in found}


def test_who_waits_for_the_end_of_a_loop_is_noted():
    """A node that takes values of a loop's body and an exit of it is named, without being a warning."""
    assert by_code(LOOP % ", max_iteration: 2") == {
        "waits-for-loop": "info Publish: This node runs when the loop of 'Done' is over, with the newest value of 'Write'."
    }


def test_a_person_without_limit_that_keeps_a_loop_turning_is_named():
    """Only persons of the condition's own loop count: `Plan` has no limit either and hurts nobody."""
    assert by_code(LOOP % "")["no-limit"] == (
        "warning Done: The loop repeats until 'Review' has run 100 times, the default max_iteration: this condition becomes "
        "true when every person_job of its loop has reached its own."
    )


def test_limits_above_that_of_the_run_are_noted():
    """A max_iteration of 120 raises what the run allows in that loop."""
    assert by_code(LOOP % ", max_iteration: 120")["large-limit"] == (
        "info Review: max_iteration is 120, more than the 100 visits that a run allows a node in a loop; in the loop of "
        "'Done' it allows 220."
    )


@pytest.mark.parametrize(
    ("node_type", "data", "field", "value"),
    [
        ("db", {"file": "f", "sub_type": "memory"}, "sub_type", "fixed_prompt"),
        ("db", {"file": "f", "sub_type": ["a"]}, "sub_type", "fixed_prompt"),
        ("template_job", {"template_content": "x", "engine": "handlebars"}, "engine", "jinja2"),
        ("endpoint", {"save_to_file": True, "file_name": "a.jpg", "file_format": "jpg"}, "file_format", None),
        ("code_job", {"code": "1", "flipped": "left"}, "flipped", None),
        ("start", {"output_data_structure": "text"}, "output_data_structure", {}),
    ],
)
def test_a_foreign_value_of_a_field_without_effect_is_a_warning(
    node_type: str, data: dict[str, Any], field: str, value: object
) -> None:
    """What upstream's tools write there does not keep a diagram from running; the default counts."""
    spec, problems = build_spec(DomainNode("n", node_type, "N", None, data))
    assert [(p.severity.value, p.code, p.field) for p in problems] == [("warning", "ignored-value", field)]
    assert getattr(spec, field) == value


def test_a_db_without_a_file_has_its_data_as_result() -> None:
    """So run what upstream makes of a to-do list; without data it is an error."""
    found = {
        severity
        for data, severity in (({"data": {"a": 1}}, "warning"), ({}, "error"))
        for d in check_diagram(DomainDiagram((DomainNode("n", "db", "N", None, {"operation": "write", **data}),)))
        if d.code == "missing-file" and d.severity == severity
    }
    assert found == {"warning", "error"}


@pytest.mark.parametrize(
    ("written", "close"),
    [("ALL_INVOLVD", "ALL_INVOLVED"), ("GOLDFSH", "GOLDFISH"), ("sent_to_mee", "SENT_TO_ME")],
)
def test_misspelt_views_of_memory_are_found(written: str, close: str):
    """They would be taken for a criterion, and cost a call of a model each time."""
    text = LOOP.replace("max_iteration: 3", f"max_iteration: 3, memorize_to: {written}") % ", max_iteration: 2"
    found = next(d for d in load_text(text).check() if d.code == "unknown-memory")
    assert f"Did you mean '{close}'" in str(found)


@pytest.mark.parametrize(
    "written", ["ALL_INVOLVED", "goldfish", "sent to me", "what was decided", "PRICES", "snake_case things"]
)
def test_views_and_criteria_are_left_alone(written: str):
    """Names in any spelling, and criteria in words."""
    text = LOOP.replace("max_iteration: 3", f"max_iteration: 3, memorize_to: {written}") % ", max_iteration: 2"
    assert "unknown-memory" not in {d.code for d in load_text(text).check()}


def test_settings_of_memory_without_effect_are_warned_about():
    """`memory_settings` of old files is dropped, and said to be; an empty one is not worth a word."""
    text = LOOP.replace("max_iteration: 3", "max_iteration: 3, memory_settings: {max_messages: 1}") % ", max_iteration: 2"
    assert "'memory_settings' has no effect" in str(next(d for d in load_text(text).check() if d.code == "ignored-value"))
    assert "ignored-value" not in {d.code for d in load_text(text.replace("{max_messages: 1}", "null")).check()}
