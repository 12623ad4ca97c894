"""Attacks on templates, conditions and schema checks: each ends with a right answer or one clear error, within the limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dipeo_nb.diagram.metering import MAX_ROUNDS, NotQuickError, metered, quick
from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from dipeo_nb.errors import DipeoError, NodeTimeoutError, TemplateError
from dipeo_nb.execution.evaluation import Request, file_text, holds, rendered
from dipeo_nb.execution.handlers.json_schema_validator import _quickly, violations
from dipeo_nb.execution.inputs import TextView
from dipeo_nb.llm.structured import validated
from dipeo_nb.workers import WORKERS

pytestmark = pytest.mark.slow
LIMIT = 30.0
"""Seconds of the node."""
GUARD = 90.0
"""Seconds after which a test is taken to hang."""
NAMES: dict[str, Any] = {
    "s": "a" * 50, "n": 5, "l": list(range(50)), "d": {"a": 1}, "big": "x" * 3_000_000, "bl": list(range(100_000)),
    "view": TextView("text", {"k": 1}), "t": "ten words of text that are cut into lines", "rows": [{"k": i} for i in range(100)],
}  # fmt: skip
R = "{% macro r(n) %}{% if n %}{{ r(n-1) }}{{ r(n-1) }}{% endif %}{% endmacro %}"
DOUBLED = "".join(f"{{% set v{i + 1} = [v{i}, v{i}] %}}" for i in range(40))
TEMPLATES = [
    # calls and loops without end
    R + "{{ r(60) }}", R + "{{ r(14) }}", R.replace("{{ r(n-1) }}{{ r(n-1) }}", "{{ r(n-1) ~ r(n-1) }}") + "{{ r(60) }}",
    "{% macro r(n) %}{{ r(n) }}{{ r(n) }}{% endmacro %}{{ r(1) }}",
    "{% macro d(x, n) %}{% if n %}{{ d(x ~ x, n - 1) }}{% endif %}{% endmacro %}{{ d(s, 60) }}",
    "{% macro d(x, n) %}{% if n %}{{ d(x + x, n - 1) }}{% endif %}{% endmacro %}{{ d(l, 60) }}",
    "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call m() %}" * 40 + "x" + "{% endcall %}" * 40,
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{% set _loop = {}.get %}{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "{% set _each = {}.get %}{{#each l}}x{{/each}}", "{% set _out = {}.get %}{{ s }}", "{{#each l as |_true _out|}}x{{/each}}",
    "{% macro _each(a, b) %}{% endmacro %}x", "{% for _out in l %}{{ _out }}{% endfor %}",
    "{{#each bl}}{{#each ../bl}}x{{/each}}{{/each}}", "{{#each bl}}" * 30 + "x" + "{{/each}}" * 30,
    "{% for x in [l] recursive %}{{ loop([l, l]) }}{% endfor %}",
    "{% for x in [l, l] recursive %}{{ loop([x, x]) }}{% endfor %}",
    "{% for i in range(1000) %}" + "text " * 20_000 + "{% endfor %}",
    "{% macro m() %}" + "text " * 20_000 + "{% endmacro %}" + R.replace("{% if n %}", "{% if n %}{{ m() }}") + "{{ r(30) }}",
    "{% for i in bl %}{% set x = big ~ big %}{% endfor %}", "{% for i in bl %}{{ big }}{% endfor %}",
    "{% for i in bl %}{% if big in [big ~ 'a', big ~ 'b'] %}{% endif %}{% endfor %}",
    # sizes
    "{{ [big] * 1000 }}", "{{ ([big] * 1000) | tojson }}", "{{ 'a' * 10**10 }}", "{{ l * 10**8 }}", "{{ 10**10**8 }}",
    "{{ range(10**9) | list }}", "{{ big.encode().center(10**9) }}", "{{ n.to_bytes(3000000000, 'big') }}",
    "{{ n.to_bytes(length=3000000000, byteorder='big') }}", "{{ s.center(10**9) }}", "{{ s.ljust(10**9) }}", "{{ s.zfill(10**9) }}",
    "{{ s.encode().ljust(10**9) }}", "{{ s.expandtabs(10**9) }}", "{{ ('\\t' * 9000).expandtabs(10**9) }}",
    "{{ big | batch(1) | list | length }}", "{{ big | batch(linecount=1) | list | length }}", "{{ bl | groupby(0) | list }}",
    "{{ bl | groupby('k', default=0) | list | length }}", "{{ big.translate({120: 'y'}) | length }}",
    "{{ l | batch(10**8, 'x') | list | length }}", "{{ l | slice(10**8) | list | length }}", "{{ l | slice(99999) | list | length }}",
    "{{ big | wordwrap(1) }}", "{{ t | wordwrap(5) }}", "{{ big | replace('x', big) }}", "{{ big.replace('x', s) }}",
    "{{ big.encode().replace(s.encode()[:1], big.encode()) | length }}", "{{ big.translate({120: big}) | length }}",
    "{{ l | join(big) }}", "{{ big.join(l | map('string')) }}", "{{ big.join(big) }}", "{{ big | join(big) | length }}",
    "{{ '%1000000000d' % 1 }}", "{{ '%*d' % (1000000000, 1) }}", "{{ ('%s' * 4000) % ((big,) * 4000) }}",
    "{{ s | center(10**9) }}", "{{ 1.5 | round(10**8, 'ceil') }}", "{{ 1.5 | round(-10**8, 'floor') }}", "{{ 2**99999999 }}",
    "{{ ([[0]] * 100000) | sum(start=[]) | length }}", "{{ bl | map('string') | join(', ') | length }}",
    "{% set v0 = l %}" + DOUBLED + "{{ v40 }}", "{% set v0 = l %}" + DOUBLED + "{{ v40 == v39 }}",
    "{% set v0 = (1, 2) %}" + DOUBLED.replace("[", "(").replace("]", ")") + "{{ {v40: 1} }}",
    "{{ big | indent(80) | length }}", "{{ big ~ big ~ big | length }}", "{{ bl | tojson(8) | length }}",
    # what takes long within one step
    "{{ ('a.' * 100000).encode('idna') | length }}", "{{ ('b' * 900000).encode('punycode') | length }}",
    "{{ ('<' * 900000) | striptags | length }}", "{{ ('<!--' * 200000) | striptags | length }}",
    "{{ ('www.' * 200000) | urlize | length }}", "{{ ('a@' * 200000) | urlize | length }}", "{{ ('(' * 99999 ~ 'http://a') | urlize | length }}",
    "{{ (' ' * 900000 ~ 'a') | wordwrap(10) | length }}", "{{ big | title | length }}", "{{ big | urlencode | length }}",
    "{{ ('9' * 900000) | int }}", "{{ ('9' * 900000) | float }}", "{{ 10**5999 }}", "{{ bl | sort | sort | length }}",
    "{{ bl | unique | list | length }}", "{{ bl | groupby(0) | length }}", "{{ bl | pprint | length }}",
    # sources
    "{{ " + "''" * 20_000, "{%" * 8_000, "{{!--" * 8_000, "{% raw %}" * 8_000, "{{ '" + "\\'" * 50_000, "{{#if s}}" * 3_000 + "x" + "{{/if}}" * 3_000,
    "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "{{ s|upper" + "|upper" * 380 + " }}", "{{ s }}" * 4_000, "{{#each l as " * 9_000,
    "{{ x.y" + ".z" * 990 + " }}", "{{ " + "-" * 1_900 + "1 }}",
]  # fmt: skip
FILES = [
    "{{ ('A' * 200000) | snake_case | length }}", "{{ ('_' * 900000) | humanize | length }}", "{{ ('aA' * 200000) | kebab_case | length }}",
    "{{ ('a ' * 200000) | pascal_case | length }}", "{{ ('a' * 900000) | pluralize | length }}", "{{ ('s' * 900000) | singularize | length }}",
    "{{ ((' ' * 900000) ~ 'x') | strip_inline_comments | length }}", "{{ snake_case('A' * 900000) | length }}",
    "{{ l | batch(10**8, 'x') | list }}", "{{ ['a'] | slice(100000000) | list }}", R + "{{ r(60) }}", "{% include 'twice' %}",
    "{% block a %}{{ self.a() }}{% endblock %}", "{% set _loop = snake_case %}{% for i in bl %}{% for j in bl %}{% endfor %}{% endfor %}",
    "{% include 'self' %}", "{% for i in bl %}{% include 'small' %}{% endfor %}", "{% for i in l %}{% include 'small' %}{% endfor %}",
    "{% import 'macros' as m %}{{ m.r(60) }}", "{% extends 'base' %}{% block b %}{{ super() }}{{ super() }}{% endblock %}",
]  # fmt: skip
SOURCES = {
    "twice": "{% if n %}{% set n = n - 0.0001 %}{% include 'twice' %}{% include 'twice' %}{% endif %}", "self": "{% include 'self' %}",
    "small": "x", "macros": R, "base": "{% block b %}" + "text" * 1000 + "{% endblock %}",
}  # fmt: skip
PAIRS = "[[b, b] for b in " * 30 + "[l]" + "]" * 30
EXPRESSIONS = [
    "any(sum(range(99999)) + i < 0 for i in range(99999))", "[sum(bl) for i in range(99999)]", "[max(bl) for i in range(99999)]",
    "[min(bl) for i in range(99999)]", "any(big.find('y') > 0 for i in range(99999))", "any(big.count('y') > 0 for i in range(99999))",
    "all(not big.islower() or not big.isdigit() for i in range(99999))", "any(bl.count(-1) for i in range(99999))", "any(-1 in bl for i in range(99999))",
    "any('y' in big for i in range(99999))", "any(big.strip() == s for i in range(99999))", "[big.upper() for i in range(99999)]",
    "[sorted(bl) for i in range(9999)]", "[len(set(bl)) for i in range(9999)]", "[bl == bl + [] for i in range(9999)]",
    "[dict(zip(bl, bl)) for i in range(999)]", "max(bl, key=lambda x: sum(bl))", "sorted(bl, key=lambda x: big.count('y'))",
    "[big in big for i in range(9999)]", "[big + 'a' for i in range(99999)]", "big.replace('', 'yyyy')", "big.join(['a'] * 9)",
    "10**10**8", "2**99999", "1 << 10**9", "'a' * 10**9", "[0] * 10**9", "[[0] * 1000] * 10**6", "f'{s!r:>999999999}'", "f'{n:>{n}{n}{n}{n}{n}{n}}'",
    "'%1000000000d' % 1", "str([big] * 1000)", "f'{[big] * 1000}'", "('%s' * 900) % ((big,) * 900)", f"str({PAIRS})", f"{PAIRS} == {PAIRS}"[:3_990],
    "sum(x for x in bl) > 0", "len([x for x in rows if x.k > 3]) == 96", "n == 5", "view.k == 1", "sum(bl) == 4999950000", "int('9' * 5000)",
    "round(1.5, -10**6)", "[x for x in bl for y in bl]", "any(any(any(x in bl for x in bl) for y in bl) for z in bl)", "l[0:10**9:1]",
]  # fmt: skip
RIGHT: dict[str, Any] = {
    "{{ t | wordwrap(5) }}": None, "{{ bl | map('string') | join(', ') | length }}": "688888", "{{ bl | sort | sort | length }}": "100000",
    R + "{{ r(14) }}": "", "{% for i in l %}{% include 'small' %}{% endfor %}": "x" * 50, "sum(x for x in bl) > 0": True,
    "len([x for x in rows if x.k > 3]) == 96": True, "n == 5": True, "view.k == 1": True, "sum(bl) == 4999950000": True, "{{ s }}" * 4_000: "a" * 200_000,
    "{{ ('A' * 200000) | snake_case | length }}": "200000", "{{ ('aA' * 200000) | kebab_case | length }}": "600000", "{%" * 8_000: "{%" * 8_000,
}  # fmt: skip
"""Attacks that are none: what they give (None: any text)."""


def test_their_number() -> None:
    """None is lost by mistake."""
    assert len({*TEMPLATES, *FILES, *EXPRESSIONS}) >= 150


async def _ends(work: Any) -> Any:
    """What the evaluation gives, or its error."""
    try:
        async with asyncio.timeout(GUARD):
            return await work
    except NodeTimeoutError as error:
        raise AssertionError("it needs the limit of the node to come to an end") from error
    except DipeoError as error:
        return error


def _judge(attack: str, given: Any) -> None:
    if attack in RIGHT:
        assert not isinstance(given, DipeoError), given
        if RIGHT[attack] is not None:
            assert given == RIGHT[attack]
    elif isinstance(given, DipeoError):
        assert given.hint, given
        assert len(given.message) < 2_000


@pytest.mark.parametrize("attack", TEMPLATES, ids=range(len(TEMPLATES)))
def test_templates(attack: str) -> None:
    """A prompt ends with its text or with one error."""

    async def work() -> Any:
        return (await rendered(SimpleTemplateProcessor(), Request("text", attack, NAMES), LIMIT)).result.content

    _judge(attack, asyncio.run(_ends(work())))


@pytest.mark.parametrize("attack", FILES, ids=range(len(FILES)))
def test_templates_of_files(attack: str) -> None:
    """So does a template of a file, also where it includes others."""
    work = file_text(attack, NAMES, load=SOURCES.get, what="the template", limit=LIMIT)
    _judge(attack, asyncio.run(_ends(work)))


@pytest.mark.parametrize("attack", EXPRESSIONS, ids=range(len(EXPRESSIONS)))
def test_expressions(attack: str) -> None:
    """So does a condition."""

    async def work() -> Any:
        answer = holds(attack, NAMES, lambda: None)
        return answer if isinstance(answer, bool) else await answer

    _judge(attack, asyncio.run(_ends(work())))


def test_a_quick_evaluation_gives_up_and_is_done_elsewhere() -> None:
    """What is not quick raises where it must be, and gives the same text from a worker."""
    template = "{{#each bl}}{{this}};{{/each}}{{missing}}"
    with quick(), pytest.raises(NotQuickError):
        SimpleTemplateProcessor().process(template, NAMES)
    there = asyncio.run(rendered(SimpleTemplateProcessor(), Request("text", template, NAMES), LIMIT)).result
    assert there == SimpleTemplateProcessor().process(template, NAMES)
    assert there.missing_keys == ("missing",)


def test_values_come_back_as_they_are() -> None:
    """A lone tag gives its value, also from a worker."""
    template = "{{ bl | map('string') | list }}"
    made = asyncio.run(rendered(SimpleTemplateProcessor(), Request("value", template, NAMES), LIMIT))
    assert made.value == [str(n) for n in range(100_000)]


def test_the_account_is_one_for_everything() -> None:
    """Rounds of loops, calls and filters are counted together; an error says how many there may be."""
    with metered(), pytest.raises(TemplateError, match=f"{MAX_ROUNDS:,}"):
        SimpleTemplateProcessor().process(R + "{{ r(60) }}", {})


SLOW_PATTERN = r"^(?=(a+)+$)"
"""Looks ahead, so only a backtracking engine has it."""
CHAIN = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}}
SCHEMAS: list[tuple[Any, Any, bool | None]] = [
    ({"type": "string", "pattern": "^(a+)+$"}, "a" * 40 + "!", False),
    ({"type": "string", "pattern": "^(a+)+$"}, "a" * 40, True),
    ({"patternProperties": {"^(a+)+$": {"type": "integer"}}}, {"a" * 40 + "!": 1}, True),
    ({"patternProperties": {"^(a|aa)+$": True}, "additionalProperties": False}, {"a" * 60 + "!": 1}, False),
    ({"patternProperties": {"^a": True}, "additionalProperties": False}, {"abc": 1}, True),
    ({"uniqueItems": True}, [{"a": n} for n in range(3_000)], None),
    ({"enum": [list(range(1_000))] * 100}, list(range(999)), False),
    ({"type": "array", "items": {"type": "integer"}}, list(range(50_000)), True),
    ({"$ref": "#/$defs/d0", "$defs": CHAIN}, 1, None),
    ({"allOf": [{"type": "string"}] * 3_000}, list(range(3_000)), None),
]


@pytest.mark.parametrize(("schema", "data", "fits"), SCHEMAS, ids=range(len(SCHEMAS)))
def test_schema_checks(schema: Any, data: Any, fits: bool | None) -> None:
    """A schema check ends, with the right answer or one error (None), for a node and for an answer."""

    async def work() -> Any:
        found = _quickly(schema, data, False)
        return found if found is not None else await WORKERS.call(f"{violations.__module__}:violations", schema, data, False)

    found = asyncio.run(_ends(work()))
    assert isinstance(found, (list, DipeoError))
    if fits is not None:
        assert (found == []) is fits
        assert isinstance(found, list)
    if fits is None:
        return
    if fits:
        validated(data, schema)
        return
    with pytest.raises(ValueError, match=r"\w"):
        validated(data, schema)


def test_patterns_that_look_around_are_checked_where_they_can_be_killed() -> None:
    """What has no linear time is stopped after a short while in the check of an answer, and by its limit in a node."""
    with pytest.raises(ValueError, match="check takes longer"):
        validated("a" * 40 + "!", {"type": "string", "pattern": SLOW_PATTERN})
    assert validated("aaa", {"type": "string", "pattern": r"^(?!b)a+$"})[1] == "aaa"
    assert _quickly({"pattern": SLOW_PATTERN}, "a" * 40 + "!", False) is None


@pytest.mark.parametrize(
    "template", ["{{ big | batch(1) | list }}", "{{ bl | groupby(0) | list }}", "{{ big.translate({120: 'y'}) }}"]
)
def test_filters_that_make_much_of_little_are_not_quick(template: str) -> None:
    """They give up before they begin, so the loop is not held up."""
    with quick(), pytest.raises(NotQuickError):
        SimpleTemplateProcessor().process(template, {"big": "x" * 1_000_000, "bl": list(range(200_000))})
