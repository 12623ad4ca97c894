"""The filters and macros of code generation, and the service that renders with them."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.codegen.filters import BUILT_IN, COLLECTIONS, FILTERS
from dipeo_nb.codegen.filters.tables import Tables
from dipeo_nb.codegen.macros import LIBRARY
from dipeo_nb.codegen.templates import CodegenTemplateService
from dipeo_nb.codegen.type_text import read_type, to_python
from dipeo_nb.errors import StorageError, TemplateError, ValidationError

MODULES = ("case", "strings", "types", "python", "graphql", "frontend")


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    """Each filter's row says what it does, and what it does better than DiPeO's."""
    module = importlib.import_module(f"dipeo_nb.codegen.filters.{name}")
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted >= 4


def test_every_filter_is_there_with_its_row() -> None:
    """51 names; the six that Jinja2 has itself are left to it."""
    assert len({*FILTERS, *BUILT_IN}) == 51
    assert not FILTERS.keys() & set(BUILT_IN)
    assert [name for name, function in FILTERS.items() if ">>>" not in (function.__doc__ or "")] == []
    counted = {name: len(COLLECTIONS[name]) for name in ("case", "string", "type_conversion", "python", "graphql", "frontend")}
    assert counted == {"case": 4, "string": 5, "type_conversion": 12, "python": 16, "graphql": 5, "frontend": 6}
    assert set(COLLECTIONS) == {*counted, "base", "backend", "typescript"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ missing | default('d') }}{{ none | default('d', true) }}", "dd"),
        ("{{ users | map(attribute='n') | join('-') }}{{ users | join(',', attribute='n') }}", "a-ba,b"),
        ("{{ 'aaa' | replace('a', 'b', 2) }}", "bba"),
        ("{{ 'abC' | upper }} {{ 'ABC' | lower }} {{ 'abC' | capitalize }}", "ABC abc Abc"),
        ("{{ 'NodeID' | pascal_case }} {{ pascal_case('my-name') }}", "NodeID MyName"),
        ("{{ field | python_type_with_context('api_job') }} = {{ field | python_default }}", 'str = "a \\"b\\""'),
        ("{{ field | python_type_with_context('x', {'ts_to_py_type': {'string': 'Text'}}) }}", "Text"),
        (
            "{{ {'name': 'kind', 'type': 'enum'} | python_type_with_context(tables={'field_types': {'kind': 'Kind'}}) }}",
            "Optional[Kind]",
        ),
        ("{{ [field] | get_enum_imports | length }}{{ python_class_name('a_b') }}", "0ABNode"),
    ],
)
def test_filters_in_templates(template: str, text: str) -> None:
    """As filters and as functions, with arguments; Jinja2's own do what they always do."""
    names = {"none": None, "users": [{"n": "a"}, {"n": "b"}], "field": {"name": "q", "type": "string", "default": 'a "b"'}}
    assert CodegenTemplateService().render_string(template, names) == text


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "clear_cache"])
def test_a_missing_name_is_an_error_for_every_filter(name: str) -> None:
    more = {"get_field_python_type": "({})", "get_operation_return_type": "('query')"}.get(name, "")
    with pytest.raises(TemplateError, match="'missing' is undefined"):
        CodegenTemplateService().render_string(f"{{{{ missing | {name}{more} }}}}")


TYPES: dict[str, str] = {
    "string": "str", "number": "float", "boolean": "bool", "bigint": "int", "any": "Any", "unknown": "Any", "void": "None", "never": "Never",
    "object": "Dict[str, Any]", "Date": "datetime", "true": "Literal[True]", "'a'": 'Literal["a"]', "'it\\'s'": 'Literal["it\'s"]', "-1": "Literal[-1]",
    "1.5": "float", "`a${string}`": "str", "string[]": "List[str]", "readonly Foo[]": "List[Foo]", "Foo[][]": "List[List[Foo]]",
    "Array<string | null>": "List[Optional[str]]", "ReadonlyArray<Foo>": "List[Foo]", "Set<number>": "Set[float]",
    "Map<string, Foo>": "Dict[str, Foo]", "Record<string, any>": "Dict[str, Any]", "Record<'a' | 'b', Foo[]>": 'Dict[Literal["a", "b"], List[Foo]]',
    "[string, number?]": "Tuple[str, float]", "[]": "Tuple[()]", "[...string[]]": "Tuple[str, ...]", "[a: string, ...b: Foo[]]": "Tuple[Any, ...]",
    "'a' | 'b'": 'Literal["a", "b"]', "| 'a'\n  | 1 // one": 'Literal["a", 1]', "string | null | undefined": "Optional[str]",
    "null": "None", "null | undefined": "None", "string | number | string": "Union[str, float]", "'a' | string": 'Union[Literal["a"], str]', "Foo | 'a' | Bar | 1": 'Union[Foo, Literal["a", 1], Bar]',
    "{ [key: string]: Foo[]; }": "Dict[str, List[Foo]]", "{ [key: string]: Foo; a: 1 }": "Dict[str, Any]",
    "any | null": "Any", "string & { readonly __brand: 'X' }": "str", "{ a: 1 } & { b: 2 }": "Dict[str, Any]", "A & B": "Any",
    "{ a: string; b?: { c: 1 } }": "Dict[str, Any]", "Partial<Foo>": "Dict[str, Any]", "Readonly<Foo>": "Foo", "Pick<Foo, 'a'>": "Dict[str, Any]",
    "Promise<Foo[]>": "List[Foo]", "NonNullable<Foo | null>": "Foo", "() => void": "Callable[[], None]",
    "(a: string, b?: number) => Foo": "Callable[[str, float], Foo]", "(...args: any[]) => Foo": "Callable[..., Foo]", "new () => Foo": "Callable[[], Foo]",
    "(() => Foo)[]": "List[Callable[[], Foo]]", "x is string": "bool", "asserts x": "bool", "keyof Foo": "str", "typeof x": "Any",
    "Foo['a']": "Any", "A extends B ? C : D": "Any", "{ [K in T]: Foo }": "Dict[str, Any]", "Kind.FIRST": "Literal[Kind.FIRST]", "React.FC<P>": "FC",
    "Foo<Bar>": "Foo", "import('x').Y": "Any", "unique symbol": "Any", "": "Any", "not a type": "Any", "x; import os": "Any", "a | ": "Any",
}  # fmt: skip


@pytest.mark.parametrize("ts_type", TYPES)
def test_types(ts_type: str) -> None:
    assert to_python(read_type(ts_type)) == TYPES[ts_type]


def test_there_are_enough_types() -> None:
    assert len(TYPES) == 70


PIECES = [
    *"abAB|&<>[](){}'\"`,;:?=.+-*/ \n1$_\\é",
    "=>",
    "...",
    "readonly ",
    "null",
    "string",
    "A.BCD",
    "extends ",
    "None",
    "if",
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_whatever_the_type_the_annotation_is_valid(ts_type: str) -> None:
    """No text of a type gets anything but an annotation into the source that is generated."""
    made = ast.parse(to_python(read_type(ts_type)), mode="eval").body
    allowed = (ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant, ast.Load, ast.UnaryOp, ast.USub)
    assert all(isinstance(node, allowed) for node in ast.walk(made))


@pytest.mark.parametrize("name", ["(", "[", "{", "A<", "a|", "keyof ", "() => ", "A extends B ? ", "/*", "'"])
def test_hostile_types_are_any_at_once(name: str) -> None:
    assert to_python(read_type(name * 100_000)) in ("Any", "str")
    assert FILTERS["strip_inline_comments"](name * 100_000)


def test_macros_are_imported_and_called() -> None:
    """More than once; by import, and by the name `macros`; without anything before the text."""
    service = CodegenTemplateService()
    template = "{% from 'macros' import ts_property %}{{ ts_property('a', 'string') }}{{ ts_property('b', 'Foo', true, true) }}"
    assert service.render_string(template) == "a: string;readonly b?: Foo;"
    assert service.render_string("{% import 'macros' as m %}{{ m.graphql_field('a', 'Int', true) }}") == "a: Int!"
    assert (
        service.render_string("{{ macros.python_type_hint('int', true) }}{{ macros.python_type_hint('str') }}")
        == "int | Nonestr"
    )
    assert service.render_string("{{ macros }}", {"macros": "mine"}) == "mine"
    assert len(LIBRARY) == 7
    calls = {
        'doc_comment(\'a """ b\')': '"""a \\"\\"\\" b"""',
        "doc_comment('a */ b', 'js')": "/** a *\\/ b */",
        "doc_comment('a', 'graphql')": '"""a"""',
        "python_class('A', ['B', 'C'], 'D.')": 'class A(B, C):\n    """D."""',
        "python_class('A')": "class A:\n    pass",
        "ts_interface('A', [{'name': 'b', 'type': 'C'}], ['D'])": "export interface A extends D {\n  b: C;\n}",
        "import_statement('a.b', ['c', 'd'])": "from a.b import c, d",
        "import_statement('./a', ['b'], 'ts')": "import { b } from './a';",
    }
    for call, text in calls.items():
        assert service.render_string(f"{{{{ macros.{call} }}}}") == text


def test_a_macro_of_ones_own_leaves_other_templates_alone() -> None:
    service = CodegenTemplateService()
    service.register_macro("shout", "{{ text | upper }}!", ["text"])
    service.register_macro("whole", "{% macro whole() %}all{% endmacro %}")
    assert service.render_string("plain {{ x }}", {"x": 1}) == "plain 1"
    assert (
        service.render_string("{% from 'macros' import shout, whole %}{{ shout('a') }}{{ shout('b') }}{{ whole() }}")
        == "A!B!all"
    )
    assert service.render_string("{{ macros.shout('a') }}") == "A!"
    with pytest.raises(ValidationError, match="cannot be called 'a b'"):
        service.register_macro("a b", "")


def test_templates_of_folders(tmp_path: Path) -> None:
    """The first folder that has one; includes and inheritance; nothing outside; the caller's names stay as they are."""
    for folder, name, text in (
        ("one", "a.j2", "1 {% include 'part.j2' %}\n"), ("two", "a.j2", "2"), ("two", "part.j2", "{{ x[0] }}"), ("..", "outside.j2", "secret"),
    ):  # fmt: skip
        (tmp_path / "t" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / folder / name).write_text(text)
    service = CodegenTemplateService([tmp_path / "t/one"])
    service.add_template_directory(tmp_path / "t/two")
    context: dict[str, Any] = {"x": [1]}
    assert service.render_template("a.j2", context) == "1 1\n"
    assert context == {"x": [1]}
    (tmp_path / "t/two/part.j2").write_text("new {{ x[0] }}")
    assert service.render_template("a.j2", context) == "1 1\n"
    service.clear_cache()
    assert service.render_template("a.j2", context) == "1 new 1\n"
    with pytest.raises(TemplateError, match=r"no template 'b\.j2'"):
        service.render_template("b.j2")
    for path in ("../outside.j2", str(tmp_path / "outside.j2")):
        with pytest.raises((StorageError, TemplateError)):
            service.render_template(path)
        with pytest.raises((StorageError, TemplateError)):
            service.render_string(f"{{% include '{path}' %}}")
    with pytest.raises(ValidationError, match="not a folder"):
        service.add_template_directory(tmp_path / "missing")


def test_templates_stay_in_the_sandbox() -> None:
    for template in (
        "{{ macros.__class__ }}",
        "{{ snake_case.__globals__ }}",
        "{{ ''.__class__ }}",
        "{{ pascal_case.__init__ }}",
    ):
        with pytest.raises(TemplateError):
            CodegenTemplateService().render_string(template)


def test_tables_are_data() -> None:
    """No filter knows an entity by itself."""
    field = {"name": "method", "type": "enum", "required": True}
    assert FILTERS["python_type_with_context"](field) == "HttpMethod"
    assert FILTERS["python_type_with_context"](field, tables={}) == "str"
    assert FILTERS["ts_to_python"]("number", "timeout", tables=Tables()) == "float"
    with pytest.raises(ValidationError, match="no table 'enums'"):
        Tables.of({"enums": []})
