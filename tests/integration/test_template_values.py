"""What templates name, and what becomes of it: keys and methods, fields that are one tag, names of the run, shell commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dipeo_nb as dp
from dipeo_nb.diagram.file_templates import render_file
from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from dipeo_nb.errors import DipeoError, NodeExecutionError, TemplateError
from dipeo_nb.execution import shell_text
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
from tests.support.api_server import Server
from tests.support.run_events import warnings_of
from tests.support.single_node import diagram, run_node

processor = SimpleTemplateProcessor()

# Keys and methods.

NAMES = {
    "order": {"id": 1, "none": None}, "reply": '{"title": "x"}', "scores": [1, 2], "n": 5, "f": 1.5, "no": None, "yes": True,
    "d": {"items": [7], "values": "V", "pop": {"keys": "K"}},
}  # fmt: skip
LEAKS = [
    "reply.title", "reply['title']", "reply.upper", "scores.count", "scores.index", "scores[0].real", "order.items", "order.values",
    "order.keys", "order.copy", "order.get", "order.pop", "order.update", "n.bit_length", "n.real", "f.hex", "yes.numerator",
    "order.items.x", "reply | attr('title')", "[reply] | map(attribute='title') | first",
]  # fmt: skip


@pytest.mark.parametrize("expression", LEAKS)
def test_a_method_is_no_attribute(expression: str):
    """What a value does not have as a key is missing and said to be, and never one of Python's own methods or attributes."""
    result = processor.process(f"<{{{{ {expression} }}}}>", NAMES)
    assert result.content == "<>"
    assert result.missing_keys
    path = expression.split(" ")[0]
    if "[" not in path and "|" not in expression:
        assert processor.process_simple(f"{{{{#if {path}}}}}yes{{{{else}}}}no{{{{/if}}}}", NAMES) == "no"
        assert processor.process_simple(f"{{{{#unless {path}}}}}none{{{{/unless}}}}", NAMES) == "none"
        assert processor.process(f"{{{{#each {path}}}}}x{{{{/each}}}}", NAMES).missing_keys == (path,)
    assert processor.process_simple(f"{{{{ {expression} | default('d') }}}}", NAMES) == "d"
    with pytest.raises(TemplateError, match="no attribute"):  # files have no holes
        render_file(f"{{{{ {expression} }}}}", NAMES, load=lambda _: None)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("d.items", "[\n  7\n]"), ("d.values", "V"), ("d.pop.keys", "K"), ("reply.upper()", '{"TITLE": "X"}'), ("order.get('id')", "1"),
        ("order.get('zz', 3)", "3"), ("scores.count(2)", "1"), ("order.keys()", '[\n  "id",\n  "none"\n]'), ("n.bit_length()", "3"),
        ("scores | map('string')", '[\n  "1",\n  "2"\n]'), ("range(3)", "[\n  0,\n  1,\n  2\n]"), ("(order | items | list)[0][1]", "1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("engine", ["internal", "jinja2"])
def test_keys_win_and_calls_work(engine: str, expression: str, text: str):
    """A key is the key whatever it is called; methods that are called do their work; nothing prints as an object of Python. Lists
    are JSON in prompts, and in files what Jinja2 makes of them."""
    template = f"{{{{ {expression} }}}}"
    if engine == "internal":
        assert processor.process(template, NAMES) == processor.process(template, NAMES)._replace(content=text, missing_keys=())
    else:
        assert render_file(template, NAMES, load=lambda _: None) == (str(json.loads(text)) if text.startswith("[") else text)


@pytest.mark.parametrize(
    "template", ["{{ range }}", "{% macro m() %}x{% endmacro %}{{ m }}", "{% for i in scores %}{{ loop }}{% endfor %}"]
)
def test_what_is_not_called_prints_nothing(template: str):
    """Macros and functions are no values."""
    result = processor.process(template, NAMES)
    assert (result.content, len(result.missing_keys)) == ("", 1)
    with pytest.raises(TemplateError, match="not called"):
        render_file(template, NAMES, load=lambda _: None)


def test_a_method_that_changes_its_value_is_refused_when_it_is_called():
    """Templates read; the values of a run stay as they are."""
    for call in ("scores.append(3)", "order.pop('id')", "order.update({})"):
        with pytest.raises(TemplateError, match="unsafe"):
            processor.process_simple(f"{{{{ {call} }}}}", NAMES)


KEYS = st.sampled_from(
    ["items", "keys", "values", "get", "pop", "title", "upper", "count", "index", "real", "a", "b", "name", "loop"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x", "true"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
STEPS = st.lists(KEYS | st.integers(-3, 3), min_size=1, max_size=4)


def reference(names: Any, path: list[Any]) -> Any:
    """A path, looked up as one would by hand."""
    value = names
    for step in path:
        if (
            (isinstance(value, dict) and step in value)
            or (isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value))
            or (isinstance(value, str) and isinstance(step, int) and -len(value) <= step < len(value))
        ):
            value = value[step]
        else:
            return None
    return value


@given(st.dictionaries(KEYS, VALUES, max_size=4), KEYS, STEPS)
def test_any_path_is_the_plain_look_up(names: dict[str, Any], first: str, rest: list[Any]):
    """Random mappings and keys, many of them called as Python's methods are: a template finds what is there, and nothing else."""
    path = first + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)
    expected = reference(names, [first, *rest])
    value, result = processor.process_value(f"{{{{{path}}}}}", names)
    assert value == ("" if expected is None and result.missing_keys else expected)
    assert bool(processor.process(f"{{{{{path}}}}}", names).missing_keys) is (expected is None)
    truth = processor.process_simple(f"{{{{#if {path}}}}}1{{{{/if}}}}", names)
    assert truth == ("1" if expected not in (None, "") and bool(expected) else "")


# Fields that are one tag.


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{o}}", {"a": [1, {"b": 2}]}), (" {{ o.a }} ", [1, {"b": 2}]), ("{{{o.a[0]}}}", 1), ("{{ n * 2 }}", 6), ("{{ o.a | length }}", 2),
        ("{{z}}", None), ("{{f}}", False), ("{{missing}}", ""), ("{{o.items}}", ""), ("{{missing | default([1])}}", [1]), ("n={{n}}", "n=3"),
        ("{{n}}{{n}}", "33"), ("{{#if n}}{{n}}{{/if}}", "3"), ("{{user name}}", [5]), ("{{person:x}}", "{{person:x}}"), ("plain", "plain"),
    ],
)  # fmt: skip
def test_a_field_of_one_tag_is_its_value(template: str, value: Any):
    """`{{x}}` alone is x itself; with anything beside it, it is text."""
    names = {"o": {"a": [1, {"b": 2}]}, "n": 3, "z": None, "f": False, "user name": [5]}
    assert processor.process_value(template, names)[0] == value


def test_values_of_fields_reach_template_jobs(tmp_path: Path):
    """`variables` of a template_job, and those within them."""
    props = {
        "template_content": "{% for m in models %}{{ m.name }}{% endfor %}{{ deep.k[0] + 1 }} {{ text }}",
        "variables": {"models": "{{found}}", "deep": {"k": ["{{n}}"]}, "text": "n is {{n}}"},
    }
    assert run_node(tmp_path, "template_job", props, {"found": [{"name": "M"}], "n": 4}).output == "M5 n is 4"


def test_values_of_fields_reach_servers(tmp_path: Path, server: Server):
    """Bodies, parameters and headers of an API call: structure in the body, text in a header."""
    props = {
        "url": server.url, "method": "POST", "headers": {"X-N": "{{n}}", "X-O": "{{o}}"}, "params": {"ids": "{{ids}}"},
        "body": {"order": "{{o}}", "note": "n={{n}}", "all": ["{{ids}}", "{{yes}}"]},
    }  # fmt: skip
    run_node(tmp_path, "api_job", props, {"o": {"id": 1}, "n": 5, "ids": [1, 2], "yes": True})
    (asked,) = server.asked
    assert json.loads(asked["body"]) == {"order": {"id": 1}, "note": "n=5", "all": [[1, 2], True]}
    assert (asked["headers"]["x-n"], json.loads(asked["headers"]["x-o"])) == ("5", {"id": 1})
    assert asked["query"] == {"ids": ["1", "2"]}


def test_values_of_fields_reach_functions(tmp_path: Path):
    """A property of a function's node is the object where the parameter takes one, and text where it takes text."""

    @dp.node(name="values_of_fields")
    def values_of_fields(items: list[int], title: str, other: Any = None) -> Any:
        return {"sum": sum(items), "title": title, "other": other}

    props = {"items": "{{ids}}", "title": "{{n}}", "other": "{{o.id}}"}
    result = run_node(tmp_path, "values_of_fields", props, {"ids": [1, 2], "n": 5, "o": {"id": None}})
    assert result.output == {"sum": 3, "title": "5", "other": None}


def test_values_of_fields_reach_children(tmp_path: Path):
    """An input mapping takes a path or a tag."""
    (tmp_path / "child.light.yaml").write_text(
        "version: light\nnodes:\n- {label: S, type: start}\n- {label: C, type: code_job, code: 'return [a, b, c]'}\n"
        "- {label: E, type: endpoint}\nconnections:\n- {from: S, to: C}\n- {from: C, to: E}\n"
    )
    props = {"diagram_name": "child.light.yaml", "input_mapping": {"a": "{{o}}", "b": "o.id", "c": "{{o.id + 1}}"}}
    assert run_node(tmp_path, "sub_diagram", props, {"o": {"id": 1}}).output == [{"id": 1}, 1, 2]


# Names of the run.

TALK = """
version: light
persons:
  Ada: {service: openai, model: m}
  Judge: {service: openai, model: m}
nodes:
- {label: S, type: start}
- {label: A, type: person_job, person: Ada, default_prompt: cats, max_iteration: 2}
- {label: again, type: condition, condition_type: detect_max_iterations}
- label: J
  type: person_job
  person: Judge
  max_iteration: 1
  default_prompt: "{{global_message_count}}:{{#each global_conversation}} <{{this.from}}>{{this.to}}: {{this.content}}{{/each}}"
- {label: E, type: endpoint}
connections:
- {from: S, to: A}
- {from: A, to: again}
- {from: again_condfalse, to: A}
- {from: again_condtrue, to: J}
- {from: J, to: E}
"""


def test_the_whole_conversation_can_be_named(tmp_path: Path):
    """`global_conversation` and `global_message_count`, in the run and after a fork of it; validate and run have no complaint."""
    assert not [d for d in dp.load(TALK).check() if d.code == "unknown-name"]
    said = "4: <system>Ada: cats <Ada>system: meow <system>Ada: cats <Ada>system: purr"
    with Session(tmp_path, llm=scripted({"A": ["meow", "purr"], "J": lambda r: r.messages[-1].content})) as session:
        result = session.run(TALK, view=False)
        assert (result.output, warnings_of(result)) == (said, [])
        assert session.fork(result.run.id, at="J", view=False).result(20).output == said


@pytest.mark.parametrize("name", ["loop", "branch", "nothing"])
def test_what_nothing_provides_is_said_before_and_in_the_run(tmp_path: Path, name: str):
    """Each name that is left empty is named by validate and by the run."""
    text = TALK.replace("{{global_message_count}}:", f"{{{{{name}}}}}{{{{other}}}}")
    found = [d.message for d in dp.load(text).check() if d.code == "unknown-name"]
    assert [f"'{n}'" in message for n, message in zip(sorted([name, "other"]), found, strict=True)] == [True, True]
    with Session(tmp_path, llm=scripted("x")) as session:
        said = warnings_of(session.run(text, view=False))
    assert [f"'{name}'" in said[0], "'other'" in said[1]] == [True, True]


def test_braces_of_a_file_name_that_stay_are_reported(tmp_path: Path):
    """An unknown name in a path is a warning before the run and in it."""
    props = {"operation": "write", "file": "out_{nobody}_{who}.txt"}
    result = run_node(tmp_path, "db", props, {"who": "ada"})
    assert (tmp_path / "out_{nobody}_ada.txt").exists()
    assert "{nobody}" in warnings_of(result)[0]
    assert ["nobody" in d.message for d in dp.load(diagram("db", props)).check() if d.code == "unknown-name"] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("kind", "props", "code"),
    [
        ("user_response", {"prompt": "{{ x | uper }}"}, "bad-template"),
        ("user_response", {"prompt": "{% if x is odder %}{% endif %}"}, "bad-template"),
        ("template_job", {"template_content": "{{ 1 | snakecase }}"}, "bad-template"),
        ("template_job", {"template_content": "{{ x | snake_case }}"}, "unknown-name"),
        ("template_job", {"template_content": "{{ x }}", "variables": {"x": "{{ y }}"}}, "unknown-name"),
        ("template_job", {"template_content": "{{#if}}", "engine": "internal"}, "bad-template"),
        ("api_job", {"url": "http://x", "body": {"a": ["{{ x | uper }}"]}}, "bad-template"),
        ("api_job", {"url": "http://x", "headers": {"a": "{{ x }}"}}, "unknown-name"),
        ("api_job", {"url": "http://x", "auth_config": {"token": "{{ x }}"}}, "unknown-name"),
        ("hook", {"command": "echo {{ x }}"}, "unknown-name"),
        ("hook", {"hook_type": "shell", "config": {"command": "echo {{#if}}"}}, "bad-template"),
        ("db", {"file": "{x}.txt"}, "unknown-name"),
    ],
)  # fmt: skip
def test_mistakes_in_any_field_are_found_before_the_run(kind: str, props: dict[str, Any], code: str):
    """Unknown filters and tests, bad syntax and unknown names, also deep within a field."""
    found = [d for d in dp.load(diagram(kind, props)).check() if d.code != "no-endpoint"]
    assert [d.code for d in found] == [code]
    assert found[0].hint


@pytest.mark.parametrize(
    ("kind", "props"),
    [
        (
            "template_job",
            {"template_content": "{{ x | snake_case }}{{ generated_at }}{% set a = 1 %}{{ a }}", "variables": {"x": 1}},
        ),
        (
            "template_job",
            {"template_content": "{% for i in range(3) %}{{ loop.index }}{% endfor %}{{ z | default('') }}"},
        ),
        ("template_job", {"template_content": "{{ anything }}", "preprocessor": "a.b"}),
        ("hook", {"command": "docker ps --format '{{.Names}}' ${x#a} ${#x}"}),
        ("hook", {"command": "awk '{print $1}' f"}),
    ],
)
def test_what_is_right_is_left_alone(kind: str, props: dict[str, Any]):
    """No finding where names are given by the node itself, or are no names."""
    assert dp.load(diagram(kind, props)).check() == ()


def test_a_star_may_be_part_of_a_name(tmp_path: Path):
    """`glob: false` takes `*`, `?` and `[` as letters."""
    for name in ("a*.txt", "ab.txt"):
        (tmp_path / name).write_text(name)
    assert run_node(tmp_path, "db", {"file": "a*.txt", "glob": False}).output == "a*.txt"
    assert run_node(tmp_path, "db", {"file": "a*.txt"}).output == {"a*.txt": "a*.txt", "ab.txt": "ab.txt"}
    assert run_node(tmp_path, "db", {"file": ["a*.txt", "ab.txt"], "glob": False}).output.keys() == {"a*.txt", "ab.txt"}
    run_node(tmp_path, "db", {"file": "n[1].txt", "glob": False, "operation": "write"}, {"value": "v"})
    assert (tmp_path / "n[1].txt").read_text() == "v"


# Shell commands.

HOSTILE = [
    "a b", "", "-n", "$HOME", "*", "it's", '"', "'; touch pwned; '", '"; touch pwned; "', "$(touch pwned)", "`touch pwned`", "\\", "\\'",
    "x\ntouch pwned\n", "& touch pwned &", "| touch pwned", "\nEOF\ntouch pwned\n", "}; touch pwned; {", "a[$(touch pwned)]",
    "\ufdd20\ufdd3", "${DIPEO_VALUE_1}", "ünï ✓", "!!", "~", "#", ") touch pwned (",
]  # fmt: skip
PLACES = [
    "printf '%s' {{x}}", 'printf "%s" "{{x}}"', "printf '%s' '{{x}}'", "printf '%s' \"$(printf '%s' {{x}})\"",
    "printf '%s' \"$(printf '%s' \"{{x}}\")\"", "y={{x}}; printf '%s' \"$y\"", "(printf '%s' {{x}})", "f() { printf '%s' \"$1\"; }; f {{x}}",
    "sh -c 'printf \"%s\" \"$1\"' _ {{x}}", "if true; then printf '%s' {{x}}; fi", "cat <<EOF\n{{x}}\nEOF", "printf '%s' \\{{x}}",
    "{% macro m(a) %}{{a}}{% endmacro %}printf '%s' {{ m(x) }}", "printf '%s' {{x}} # {{x}}", "{{#if true}}printf '%s' {{x}}{{/if}}",
]  # fmt: skip
SHELLS = [shell for shell in ("sh", "bash") if shutil.which(shell)]


def spoken(command: str, value: Any, folder: Path, shell: str) -> str:
    """What a command with a value in it prints."""
    values = shell_text.Values()
    made = values.command(processor.process_placed(command, {"x": value}, values.place).content)
    done = subprocess.run(
        [shell, "-c", made.command], env={**os.environ, **made.environment}, cwd=folder, capture_output=True, check=True
    )
    return done.stdout.decode()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("place", PLACES)
def test_a_value_in_a_command_is_itself_and_nothing_else(tmp_path: Path, place: str, shell: str):
    """Hostile values, outside and inside of quotes of every kind: they arrive letter by letter and run nothing."""
    for value in HOSTILE:
        printed = spoken(place, value, tmp_path, shell)
        # A substitution and a here-document take or add the line ends at the end, as shells do.
        assert printed.rstrip("\n") == value.rstrip("\n")
    assert list(tmp_path.iterdir()) == []


CODE = [
    'sh -c "echo {{x}}"', "bash -c {{x}}", "eval echo {{x}}", "python3 -c \"print('{{x}}')\"", "awk \"/{{x}}/\" f", "echo {{x}} | sh",
    "echo $(( {{x}} + 1 ))", "[[ {{x}} -eq 1 ]]", "let y={{x}}", 'sudo -u me sh -ec "{{x}}"', 'find . -exec sh -c "echo {{x}}" \\;',
    "sed s/a/{{x}}/e f", "ssh host ls {{x}}", "bash <<E\necho {{x}}\nE\n", "trap {{x}} EXIT", "echo ${y:-{{x}}}", "cat {{x}} | bash -s",
    'perl -e "{{x}}"', "sh -c \"$(cat {{x}})\"", "(( y = {{x}} ))", "cat <<'E'\n{{x}}\nE\n",
]  # fmt: skip


@pytest.mark.parametrize("command", CODE)
def test_where_text_is_run_as_code_only_numbers_are_placed(tmp_path: Path, command: str):
    """A shell in the shell, an interpreter, arithmetic: a value is refused, with what to do instead; a whole number is not."""
    with pytest.raises(NodeExecutionError, match="as code") as caught:
        run_node(tmp_path, "hook", {"command": command}, {"x": "a; touch pwned"})
    assert "DIPEO_INPUT_" in str(caught.value.hint)
    assert not (tmp_path / "pwned").exists()
    values = shell_text.Values()
    assert values.command(command.replace("{{x}}", values.place("5"))).environment == {"DIPEO_VALUE_1": "5"}


def test_hooks_take_values_in_both_forms(tmp_path: Path):
    """A command for the shell and a program with arguments; `config.command` as `command`; missing names are empty, with a warning."""
    names = {"who": "Ada; touch pwned", "o": {"a": 1}}
    for props, value in (
        ({"command": "echo got {{who}}"}, "got Ada; touch pwned"),
        ({"hook_type": "shell", "config": {"command": "echo 'got {{who}}'"}}, "got Ada; touch pwned"),
        ({"config": {"command": "printf", "args": ["%s|%s", "{{who}}", "x{{o.a}}"]}}, "Ada; touch pwned|x1"),
        ({"config": {"command": "sh", "args": ["-c", 'printf %s "$1"', "_", "{{who}}"]}}, "Ada; touch pwned"),
        ({"command": "printf %s {{o}}"}, {"a": 1}),
        ({"command": "x=abc; echo ${#x} ${x#a} '{{.Names}}'"}, "3 bc {{.Names}}"),
    ):
        assert run_node(tmp_path, "hook", props, names).output == value
    result = run_node(tmp_path, "hook", {"command": "echo a{{nobody}}b"}, names)
    assert (result.output, "'nobody'" in warnings_of(result)[0]) == ("ab", True)
    with pytest.raises(DipeoError, match="is code"):
        run_node(tmp_path, "hook", {"config": {"command": "sh", "args": ["-c", "echo {{who}}"]}}, names)
    assert not (tmp_path / "pwned").exists()
