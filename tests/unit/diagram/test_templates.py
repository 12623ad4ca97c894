"""Prompt templates."""

import contextlib
import datetime
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram import template_program
from dipeo_nb.diagram.template_names import check
from dipeo_nb.diagram.templates import SimpleTemplateProcessor, resolve
from dipeo_nb.domain.ports import TemplateProcessorPort
from dipeo_nb.errors import TemplateError
from dipeo_nb.execution.inputs import ConversationView, TextView
from tests.support.waiting import cpu_within

processor = SimpleTemplateProcessor()
keeping = SimpleTemplateProcessor(keep_missing=True)

CONTEXT = {
    "a": {"b": [{"c": 1}, {"c": 2}], "items": ["x"], "keys": {"k": 9}},
    "i": 1,
    "key": "b",
    "name": "Ada",
    "nothing": None,
    "false": False,
    "no": "No",
    "zero": 0,
    "blank": "",
    "day": datetime.date(2025, 1, 2),
    "at": datetime.datetime(2025, 1, 2, 3, 4, tzinfo=datetime.UTC),
    "numbers": [1, 2, 3, 4, 5, 6],
    "people": [{"name": "Bob", "tags": ["x", "y"]}, {"name": "Cy", "tags": []}],
    "table": {"k1": "v1", "k2": "v2"},
    "secret": "{{name}} {% if 1 %} {#each} {{#if name}}",
    "user-name": "U",
    "Judge Panel": "JP",
    "view": TextView('{"q": [1, 2]}', {"q": [1, 2]}),
    "list_view": TextView("[4, 5]", [4, 5]),
    "talk": ConversationView(messages=[{"content": "hi"}], last_message={"content": "hi"}),
}


def render(template: str) -> str:
    return processor.process(template, CONTEXT).content


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain { text } }} {{", "plain { text } }} {{"),
        ("{{name}}, {{ name }}", "Ada, Ada"),
        ("{{a.b[0].c}} {{a.b[i].c}} {{a.b[-1].c}} {{a.b.0.c}}", "1 2 2 1"),
        ("{{a[key][0].c}}", "1"),
        ("{{numbers[:2]}}", "[\n  1,\n  2\n]"),
        ("{{numbers[-2:] | join('/')}} {{name[1:]}}", "5/6 da"),
        ("{{a.items[0]}} {{a.keys.k}}", "x 9"),
        ("{{false}} {{zero}} [{{blank}}]", "False 0 []"),
        ("{{day}} {{at}}", "2025-01-02 2025-01-02T03:04:00+00:00"),
        ("{{table}}", '{\n  "k1": "v1",\n  "k2": "v2"\n}'),
        ("{{{name}}} {{{ table.k1 }}}", "Ada v1"),
        ("{{name | upper}} {{name|length}} {{missing | default('d')}}", "ADA 3 d"),
        ("{{1 + 2}} {{'a' ~ name}} {{name if zero else 'else'}}", "3 aAda else"),
        ("{{name.lower()}}", "ada"),
        ("a{{! comment }}b{{!-- {{name}} --}}c{# d #}e", "abce"),
        ("{{view}} {{view.q[1]}} {{view | length}} {{view.q}}", '{"q": [1, 2]} 2 1 [\n  1,\n  2\n]'),
        ("{{talk}} {{talk.messages[0].content}}", "hi hi"),
        ("A {{~ name ~}} B {{- name -}} C", "AAdaBAdaC"),
        ("line\r\n{{name}}\n\n", "line\n{{name}}\n\n".replace("{{name}}", "Ada")),
    ],
)
def test_values(template: str, expected: str) -> None:
    """Paths, filters and expressions print values; everything else stays."""
    assert render(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{#if name}}yes{{/if}}", "yes"),
        ("{{#if missing}}yes{{else}}no{{/if}}", "no"),
        ("{{#if no}}yes{{else}}no{{/if}}", "no"),
        ("{{#if zero}}a{{else if numbers}}b{{else}}c{{/if}}", "b"),
        ("{{#if zero}}a{{^}}c{{/if}}", "c"),
        ("{{#unless missing}}u{{/unless}}{{#unless name}}x{{else}}y{{/unless}}", "uy"),
        ("{{#if i > 0 and name == 'Ada'}}both{{/if}}", "both"),
        ("{{#if name}}{{#if zero}}z{{else}}{{#if day}}d{{/if}}{{/if}}{{/if}}", "d"),
        ("{{#each people}}{{@index}}{{this.name}}{{#unless @last}}, {{/unless}}{{/each}}", "0Bob, 1Cy"),
        ("{{#each people}}{{#if @first}}>{{/if}}{{this.name}}{{#each this.tags}}[{{this}}{{@index}}]{{/each}};{{/each}}", ">Bob[x0][y1];Cy;"),
        ("{{#each table}}{{@key}}={{this}} {{/each}}", "k1=v1 k2=v2 "),
        ("{{#each people}}{{this.name}}-{{i}} {{/each}}", "Bob-1 Cy-1 "),
        ("{{#each people}}{{tags[0]}}{{/each}}", "x"),
        ("{{#each table as |value key|}}{{key}}:{{value}} {{/each}}", "k1:v1 k2:v2 "),
        ("{{#each missing}}x{{else}}none{{/each}}", "none"),
        ("{{#each list_view}}<{{this}}>{{/each}}", "<4><5>"),
        ("{{#each numbers[:2]}}{{this * 2}} {{/each}}", "2 4 "),
        ("{% for n in numbers if n > 4 %}{{n}},{% endfor %}", "5,6,"),
        ("{% for n in list_view %}{{loop.index}}{{n}} {% endfor %}", "14 25 "),
        ("{% if name == 'Ada' %}A{% elif 1 %}B{% endif %}{% set v = 3 %}{{v}}", "A3"),
        ("{% raw %}{{name}}{% endraw %}", "{{name}}"),
        ("{% for p in people %}{{#if p.tags}}{{p.name}}{{/if}}{% endfor %}", "Bob"),
    ],
)  # fmt: skip
def test_blocks(template: str, expected: str) -> None:
    """Blocks of both kinds nest and see inner and outer names."""
    assert render(template) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{person:name}}",
        "{{ }}",
        "{{ 3 apples }}",
        "{{a, b}}",
        "{{Nobody Here}}",
        "{% 50 %} off",
        "\\frac{a}{b} {x}",
        '{"json": {"a": {"b": 1}}}',
        "{{",
        "}} {{ name",
        "{%",
        "{# open",
    ],
)
def test_foreign_text_is_left_alone(text: str) -> None:
    """What is no tag of ours is text."""
    assert render(text) == text


def test_labels_with_blanks_and_hyphens() -> None:
    """An input whose name is no identifier is found by its exact name."""
    assert render("{{user-name}} {{Judge Panel}} {{i-1}} {{ i - 1 }}") == "U JP 0 0"


def test_values_are_never_expanded_again() -> None:
    """Tags inside of values are printed as they are, also from loops and in JSON."""
    assert render("{{secret}}") == CONTEXT["secret"]
    result = processor.process("{{#each xs}}{{this}}{{/each}}{{m}}", {"xs": ["{{m}}"], "m": ["{{xs}}"]})
    assert result.content == '{{m}}[\n  "{{xs}}"\n]'


@given(st.text(max_size=80), st.text(max_size=40))
def test_any_text(template: str, value: str) -> None:
    """Any template renders or says what is wrong; any value comes out as it went in."""
    with contextlib.suppress(TemplateError):
        processor.process(template, {"a": value})
    normal = value.replace("\r\n", "\n")
    assert processor.process("<{{a}}>", {"a": normal}).content == f"<{normal}>"


@given(st.lists(st.sampled_from(["{{#if a}}", "{{/if}}", "{{else}}", "{{#each a}}", "{{/each}}", "{{a}}", "{% if a %}", "{% endif %}", "x\n", "{{@index}}"]), max_size=8))  # fmt: skip
def test_any_nesting(parts: list[str]) -> None:
    """Any sequence of tags renders or is a TemplateError with a line."""
    try:
        processor.process("".join(parts), {"a": [1]})
    except TemplateError as error:
        line = error.facts["line"]
    else:
        line = 1
    assert line >= 1


def test_missing_names() -> None:
    """Missing names and None print nothing and are listed; with keep_missing the tags stay."""
    template = "[{{missing}}] [{{nothing}}] [{{a.zz.y}}] [{{ a.b[9].c }}] [{{gone | upper}}] [{{name}}]"
    result = processor.process(template, CONTEXT)
    assert result.content == "[] [] [] [] [] [Ada]"
    assert result.missing_keys == ("missing", "nothing", "a.zz.y", "a.b[9].c", "gone")
    assert result.used_keys == ("nothing", "a", "name")
    assert keeping.process(template, CONTEXT).content == template.replace("{{name}}", "Ada")


def test_testing_a_name_is_not_missing_it() -> None:
    """A name that is only tested, or has a default, is not reported."""
    result = processor.process("{{#if x}}{{x}}{{/if}}{{y | default('d')}}{% if z is defined %}{% endif %}", {})
    assert result.missing_keys == ()


def test_each_over_text_is_reported() -> None:
    """An #each over something that has no items says so and renders nothing."""
    result = processor.process("1\n{{#each name}}x{{/each}}", CONTEXT)
    assert result.content == "1\n"
    assert result.errors == ("Line 2: {{#each name}} iterates over nothing, because 'name' is text.",)


@pytest.mark.parametrize(
    ("template", "message", "line"),
    [
        ("\n{{#if a}}x", r"\{\{#if a\}\} is not closed. Add \{\{/if\}\}", 2),
        ("x\n{{/if}}", "closes nothing", 2),
        ("{{#if a}}\n{{#each b}}\n{{/if}}", "does not close {{#each b}} of line 2", 3),
        ("{{else}}", "outside a block", 1),
        ("{{#iff a}}{{/iff}}", "Did you mean {{#if", 1),
        ("{{#with a}}{{/with}}", "Blocks: #if, #unless, #each", 1),
        ("{{#if}}{{/if}}", "names nothing", 1),
        ("{{#if (eq a b)}}x{{/if}}", "not a path", 1),
        ("{% if a %}x", "Add {% endif %}", 1),
        ("{% endfor %}", "closes nothing", 1),
        ("{% for x in numbers %}{{/each}}", "does not close", 1),
        ("{% include 'x' %}", "not available", 1),
        ("\n\n{% if %}{% endif %}", "Expected an expression", 3),
        ("{{name|nofilter}}", "No filter named 'nofilter'", 1),
        ("a\n{{ 1 / 0 }}", "division by zero", 2),
        ("{{ missing + 1 }}", "'missing' is undefined.*Known names: .*name", 1),
        ("{{#each a}}{{else if b}}{{/each}}", "not understood", 1),
    ],
)
def test_bad_syntax(template: str, message: str, line: int) -> None:
    """Bad syntax names the line, the tag and the remedy."""
    with pytest.raises(TemplateError, match=message) as caught:
        render(template)
    assert caught.value.facts["line"] == line


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ name.__class__.__mro__ }}",
        "{{ name['__class__'] }}",
        "{{ name|attr('__class__') }}",
        "{{ missing.__class__ }}",
        "{{ '{0.__class__}'.format(name) }}",
        "{{ name.format_map(a) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ numbers.append(3) }}",
        "{{ table.update({'x': 1}) }}",
        "{{ lipsum() }}",
        "{{#each name.__class__.__mro__}}{{this}}{{/each}}",
        "{% for x in ().__class__.__bases__ %}{{x}}{% endfor %}",
        "{{ 'a' * 10000000000 }}",
        "{{ 9 ** 999999 }}",
        "{{ range(10 ** 9) }}",
        "{{ name.ljust(10 ** 9) }}",
        "{{ '%999999999d' % 1 }}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    ],
)
def test_sandbox(template: str) -> None:
    """Templates read values; they do not reach Python's insides, change anything, or take all memory."""
    with cpu_within(10), pytest.raises(TemplateError):
        render(template)


def test_objects_print_as_json() -> None:
    """Records, sets and nested dates print as JSON rather than as Python."""

    @dataclass
    class Point:
        x: int

    assert render("{{x}}".replace("x", "a.b")) == '[\n  {\n    "c": 1\n  },\n  {\n    "c": 2\n  }\n]'
    result = processor.process("{{p}} {{p.x}} {{s}} {{d}}", {"p": Point(1), "s": {1}, "d": [datetime.date(2025, 1, 2)]})
    assert result.content == '{\n  "x": 1\n} 1 [\n  1\n] [\n  "2025-01-02"\n]'
    assert processor.process_simple("{{u}}", {"u": {"ü": "é"}}) == '{\n  "ü": "é"\n}'


def test_single_braces() -> None:
    """File names take scalars in single or double braces, in one pass; the rest stays."""
    path = processor.process_single_brace("f/{a.b[0].c}/{name}-{{name}}/{a.b[i].c}/{nope}/{table}/{secret}.txt", CONTEXT)
    assert path == f"f/1/Ada-Ada/2/{{nope}}/{{table}}/{CONTEXT['secret']}.txt"


def test_resolve() -> None:
    """A path reaches through mappings, lists and views."""
    assert resolve("view.q[-1]", CONTEXT) == 2
    assert resolve('a["items"][0]', CONTEXT) == "x"
    assert resolve("a.b[name]", CONTEXT, "no") == "no"
    assert resolve("name.x", CONTEXT) is None


def test_variables() -> None:
    """The names a template asks for, in order; those it can do without are not needed."""
    template = "{{b.c}} {{#if a}}{{a}}{{/if}}{{#each xs}}{{this}}{{t}}{{/each}}{{d | default(3)}}{{b}} {{p:n}}"
    assert processor.extract_variables(template) == ("b", "a", "xs", "t", "d")
    assert check(template).needed == {"b", "xs"}
    assert check("{{x}} {{y[0].z}}").needed == {"x", "y"}
    assert check("no tags").all == ()


def test_translations_are_cached_and_bounded() -> None:
    """A template is translated once, and the cache does not grow without end."""
    assert template_program.translate("{{a}} once") is template_program.translate("{{a}} once")
    assert template_program.translate.cache_info().maxsize == template_program.CACHED_TEMPLATES


def test_is_a_template_processor() -> None:
    """The class has every method of its port."""
    assert isinstance(processor, TemplateProcessorPort)


@pytest.mark.parametrize("path", ["text['title']", 'text["a b"].c', "order['x'][0]", "order.x['y']"])
def test_a_missing_key_in_quotes_is_named_whole(path: str):
    """The warning names what is missing, not the value in which it is looked for."""
    assert SimpleTemplateProcessor().process(f"{{{{{path}}}}}", {"text": "a", "order": {}}).missing_keys == (path,)


def test_errors_list_names_that_can_be_written():
    """Bookkeeping such as the branch of a condition is in the names of a run, but no template can say it."""
    with pytest.raises(TemplateError) as caught:
        SimpleTemplateProcessor().process("{{nope()}}", {"branch[node_1]": "condtrue", "order": 1})
    assert caught.value.hint == "Known names: order."
