"""template_job: files out of templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.diagram.file_templates import filters, render_file
from dipeo_nb.errors import CodeError, DipeoError, NodeExecutionError, StorageError, TemplateError
from tests.support.single_node import run_node

KIND = "template_job"


def render(template: str, **names: Any) -> str:
    return render_file(
        template, names, load=lambda name: {"part": "<{{ x }}>", "base": "[{% block b %}{% endblock %}]"}.get(name)
    )


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ x | upper }}\n", "ADA\n"),
        ("{% for i in items %}{{ loop.index }}{{ i.n }} {% endfor %}", "1a 2b "),
        ("{% include 'part' %}", "<Ada>"),
        ("{% extends 'base' %}{% block b %}{{ x }}{% endblock %}", "[Ada]"),
        ("{% from 'm' import f with context %}", None),
        ("{% macro f(n) %}{% for i in range(n) %}{{ i }}{% endfor %}{% endmacro %}{{ f(3) }}", "012"),
        ("{{ none }}{{ items[0] | tojson }}", '{"n": "a"}'),
        ("{{ missing | default('d') }}", "d"),
        ("a{{ ' = 1' if none }}b{{ ' = 2' if x }}", "ab = 2"),
        ("{{ snake_case('AbcDef') }} {{ 'ab cd' | pascal_case }}", "abc_def AbCd"),
    ],
)
def test_jinja(template: str, text: str | None):
    """Statements, includes, inheritance, macros, filters as functions."""
    names = {"x": "Ada", "items": [{"n": "a"}, {"n": "b"}], "none": None}
    if text is None:
        with pytest.raises(TemplateError, match="needs the template 'm'"):
            render(template, **names)
    else:
        assert render(template, **names) == text


@pytest.mark.parametrize(
    ("name", "given", "made"),
    [
        ("snake_case", "MyHTTPThing v2", "my_http_thing_v2"), ("pascal_case", "my-thing", "MyThing"),
        ("camel_case", "My thing", "myThing"), ("kebab_case", "myThing", "my-thing"), ("humanize", "author_name", "Author name"),
        ("pluralize", "category", "categories"), ("singularize", "boxes", "box"), ("escape_js", "a'b\n</s>", "a\\'b\\n<\\/s>"),
        ("strip_inline_comments", "a = 1  // one\nb = 2 # two\nhttp://x", "a = 1\nb = 2\nhttp://x"),
    ],
)  # fmt: skip
def test_filters(name: str, given: str, made: str):
    """The filters that are there by default."""
    assert filters()[name](given) == made


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ x.y.z }}", "has no attribute"),
        ("a\n{% if %}", "line 2"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "more than 1,000,000 rounds",
        ),
        ("{{ x.__class__ }}", "underscore"),
        ("{{ ''.format() }}", "format"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'a' * 999999999 }}", "more than 10,000,000"),
        ("{% include 'nothing' %}", "needs the template 'nothing'"),
        ("{% for i in range(99999) %}{{ y }}{% endfor %}", "50,000,000 characters"),
    ],
)
def test_what_templates_cannot_do(template: str, words: str):
    """One error with the place; the sandbox and its limits hold for files too."""
    with pytest.raises(TemplateError) as caught:
        render(template, x="Ada", y="z" * 1000)
    assert words in str(caught.value)
    assert caught.value.hint


def test_a_file_is_written(tmp_path: Path):
    """Names of files are templates too; a file that says the same already is left alone."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t/hello.j2").write_text("Hello {{ name }}, {{ city }}, {{ twice }}{% include 't/end.j2' %}\n")
    (tmp_path / "t/end.j2").write_text("!")
    props = {
        "template_path": "t/{{kind}}.j2",
        "output_path": "out/{name}.txt",
        "variables": {"city": "Rome", "twice": "{{name}}{{name}}"},
    }
    done = run_node(tmp_path, KIND, props, {"kind": "hello", "name": "Ada"})
    assert done.output == (tmp_path / "out/Ada.txt").read_text() == "Hello Ada, Rome, AdaAda!\n"
    before = (tmp_path / "out/Ada.txt").stat().st_mtime_ns
    again = run_node(tmp_path, KIND, props, {"kind": "hello", "name": "Ada"})
    assert (tmp_path / "out/Ada.txt").stat().st_mtime_ns == before
    assert [e.payload["meta"]["written"] for e in again.events if "written" in e.payload.get("meta", {})] == [False]


def test_the_internal_engine_is_that_of_prompts(tmp_path: Path):
    """Handlebars tags; what is missing prints nothing."""
    props = {"template_content": "{{#if name}}Hi {{name}}{{/if}}{{none}}", "engine": "internal"}
    assert run_node(tmp_path, KIND, props, {"name": "Ada"}).output == "Hi Ada"


@pytest.mark.parametrize("given", ["prep.more", {"module": "prep", "function": "more", "args": {"times": 2}}])
def test_preprocessor(tmp_path: Path, given: Any):
    """A function of a module below the base directory makes further names, in the process of the diagram's code."""
    (tmp_path / "prep.py").write_text("def more(names, times=2):\n    return {'shout': names['name'].upper() * times}\n")
    props = {"template_content": "{{ shout }}", "preprocessor": given}
    assert run_node(tmp_path, KIND, props, {"name": "Ada"}).output == "ADAADA"


@pytest.mark.parametrize(
    ("props", "kind", "words"),
    [
        ({}, NodeExecutionError, "has no template"),
        ({"template_path": "none.j2"}, StorageError, "none.j2"),
        ({"template_path": "../t.j2"}, StorageError, "../t.j2"),
        ({"template_content": "{% include '../../etc/passwd' %}"}, DipeoError, "etc/passwd"),
        ({"template_content": "x", "output_path": "/etc/x"}, StorageError, "/etc/x"),
        ({"template_content": "{{ a }}"}, TemplateError, "'a' is undefined"),
        ({"template_content": "x", "preprocessor": "no dots"}, NodeExecutionError, "names no function"),
        ({"template_content": "x", "preprocessor": {"module": "os; x"}}, NodeExecutionError, "names no function"),
        ({"template_content": "x", "preprocessor": "no_such_module.f"}, CodeError, "no_such_module"),
        ({"template_content": "x", "preprocessor": "prep.number"}, NodeExecutionError, "returned int"),
    ],
)
def test_bad_input(tmp_path: Path, props: dict[str, Any], kind: type[DipeoError], words: str):
    """One error that says what to do; nothing is written."""
    (tmp_path / "prep.py").write_text("def number(names):\n    return 3\n")
    with pytest.raises(kind) as caught:
        run_node(tmp_path, KIND, props)
    assert words in str(caught.value)
    assert caught.value.hint
