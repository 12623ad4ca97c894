"""Expressions of conditions."""

import ast
import contextlib
import datetime
import gc
import weakref
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram.expressions import MAX_LENGTH, evaluate, parse
from dipeo_nb.errors import ExpressionError
from dipeo_nb.execution.inputs import ConversationView, TextView
from tests.support.waiting import cpu_within

NAMES = {
    "a": 11,
    "s": "abc",
    "x": {"n": 5, "items": [1, 2, 3], "deep": {"k": "v"}},
    "people": [{"name": "Ada", "score": 9}, {"name": "Bob", "score": 3}],
    "empty": [],
    "none": None,
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a > 10", True),
        ("1 < a <= 11", True),
        ("x['n'] == 5", True),
        ("x.n > -1", True),
        ("x.items[0] + x.items[-1] * 2", 7),
        ("x.deep.k", "v"),
        ("x.nothing is None", True),
        ("x.get('nothing', 4)", 4),
        ("missing == None", True),
        ("missing is None and not missing", True),
        ("s.upper() == 'ABC'", True),
        ("s[1:] + s[:1]", "bca"),
        ("'b' in s and 'z' not in s", True),
        ("len(x['items']) // 2", 1),
        ("[p.name for p in people if p.score > 5]", ["Ada"]),
        ("{p.name: p.score for p in people}", {"Ada": 9, "Bob": 3}),
        ("{n % 2 for n in x['items']}", {0, 1}),
        ("sum(p.score for p in people)", 12),
        ("any(p.score > 8 for p in people) and not all(p.score > 8 for p in people)", True),
        ("max(people, key=lambda p: p.score).name", "Ada"),
        ("sorted(x['items'], reverse=True)", [3, 2, 1]),
        ("min([], default=0)", 0),
        ("'yes' if a else 'no'", "yes"),
        ("f'{a:>4}|{s!r}'", "  11|'abc'"),
        ("a or missing", 11),
        ("isinstance(x, dict) and isinstance(a, (int, str))", True),
        ("[*empty, 1, *x['items']]", [1, 1, 2, 3]),
        ("{**x['deep'], 'z': 1}", {"k": "v", "z": 1}),
        ("[i for i, p in enumerate(people) for c in p.name if c == 'a']", [0]),
        ("list(zip([1, 2], 'ab'))", [(1, "a"), (2, "b")]),
        ("round(2.567, 1)", 2.6),
        ("', '.join(str(n) for n in range(3))", "0, 1, 2"),
        ("~5 & 7 | 8", 10),
        ("int('ff', 16)", 255),
        ("1000 is 1000", True),
        ("{{a}} > 10", True),
        ("{{ x.n }} == 5", True),
        ("true and not false", True),
        ("null is None", True),
        ("a > 1\n  and a < 20", True),
        ("-a ** 2", -121),
    ],
)
def test_values(expression: str, expected: object) -> None:
    """An expression has the value Python would give it."""
    assert evaluate(expression, NAMES) == expected


arithmetic = st.recursive(
    st.integers(-50, 50).map(str) | st.sampled_from(["a", "b"]),
    lambda inner: (
        st.tuples(inner, st.sampled_from("+ - * // % < <= == != and or".split()), inner).map(  # noqa: SIM905
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        )
        | inner.map(lambda e: f"(not {e})")
        | st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})")
    ),
    max_leaves=12,
)


@given(arithmetic, st.integers(-9, 9), st.integers(-9, 9))
def test_agrees_with_python(expression: str, a: int, b: int) -> None:
    """Random arithmetic and logic give exactly Python's result, or fail where Python fails."""
    try:
        expected = eval(compile(ast.parse(expression, mode="eval"), "", "eval"), {"a": a, "b": b})
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="zero"):
            evaluate(expression, {"a": a, "b": b})
    else:
        assert evaluate(expression, {"a": a, "b": b}) == expected


@given(st.text(max_size=60))
def test_any_text_is_safe(text: str) -> None:
    """Whatever is written, there is a value or an ExpressionError."""
    with contextlib.suppress(ExpressionError):
        evaluate(text, NAMES)


def test_unknown_name_is_explained() -> None:
    """A failure that an unknown name causes says so, with the nearest name and a caret."""
    with pytest.raises(ExpressionError) as caught:
        evaluate("scor > 10", {"score": 1, "topic": "x"})
    told = str(caught.value)
    assert "'scor' is not a known name" in told
    assert "did you mean 'score'" in told
    assert "    scor > 10\n    ^^^^^^^^^" in told
    assert caught.value.facts["column"] == 1


def test_missing_key_is_explained() -> None:
    """A failure that a missing key causes names the keys there are."""
    with pytest.raises(ExpressionError, match="'x' has no 'm'; there are: n, items, deep"):
        evaluate("x.m > 3", NAMES)
    with pytest.raises(ExpressionError, match="there is no key 'm'"):
        evaluate("x['m']", NAMES)


def test_values_are_shown() -> None:
    """A failure shows the values that took part, and what to do."""
    with pytest.raises(ExpressionError, match=r"s is str 'abc'.*\n.*\n.*\n.*float\(name\)"):
        evaluate("s > 3", NAMES)


def test_caret_counts_characters() -> None:
    """The caret stands under the failing part, also after letters of several bytes."""
    with pytest.raises(ExpressionError) as caught:
        evaluate("größe == 1 and x.n.y", {**NAMES, "größe": 1})
    line, caret = str(caught.value).split("\n")[1:3]
    assert line[caret.index("^") : caret.rindex("^") + 1] == "x.n.y"
    assert caught.value.facts["column"] == 16


@pytest.mark.parametrize(
    ("expression", "advice"),
    [
        ("a && s", "Write `and`"),
        ("a || s", "Write `or`"),
        ("a = 3", "Write =="),
        ("a === 3", "Write =="),
        ("!a", "Write `not`"),
        ("a ? 1 : 2", "if test else"),
        ("(a", "never closed"),
        ("", "empty"),
        ("a > ", "does not parse"),
        ("import os", "does not parse"),
        ("len", None),
        ("sizeof(a)", "no function 'sizeof'"),
        ("lenn(a)", "did you mean 'len'"),
        ("s.uper()", "did you mean 'upper'"),
        ("empty.append(1)", "Methods that change a value"),
        ("'{{s}}' == 'abc'", "without quotes and braces"),
        ("x.n()", "no method 'n'"),
        ("people.length", r"write len\(people\)"),
        ("s.field", "content_type object"),
        ("1 / 0", "division by zero"),
    ],
)
def test_mistakes_teach(expression: str, advice: str | None) -> None:
    """Common mistakes get the remedy that fits them."""
    if advice is None:
        assert evaluate(expression, NAMES) is None
        return
    with pytest.raises(ExpressionError, match=advice):
        evaluate(expression, NAMES)


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__",
        "().__class__.__bases__[0].__subclasses__()",
        "__import__('os')",
        "open('/etc/passwd')",
        "eval('1')",
        "getattr(s, 'upper')",
        "s.format(a)",
        "'{0.__class__}'.format(a)",
        "type(a)",
        "(lambda: 1)()",
        "[x := 3]",
        "max(people, key=lambda p, q=1: 1)",
        "a @ s",
        "b'abc'",
        "1j",
        "...",
        "__builtins__",
        "[__a for __a in x]",
        "x.deep.update(k=1)",
        "{1: 2}.pop(1)",
    ],
)
def test_nothing_else_is_reachable(expression: str) -> None:
    """Dunder names, foreign functions, changing methods and odd constants are refused."""
    with pytest.raises(ExpressionError):
        evaluate(expression, NAMES)


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "2 ** 10**9",
        "1 << 10**9",
        "'a' * 10**9",
        "[0] * 10**9",
        "[[0] * 10**6 for i in range(1000)]",
        "sum(range(10**12))",
        "[0 for i in range(99999) for j in range(99999)]",
        "sum([[1]] * 9, [])",
        "f'{a:>999999999}'",
        "f'{a:{\"9\" * 9}}'",
        "'%999999999d' % 1",
        "'%*d' % (999999999, 1)",
        "s.ljust(10**9)",
        "s.zfill(10**9)",
        "('a' * 10**6).replace('a', 'b' * 1000)",
        "round(5, -10**9)",
        "(" * 300 + ")" * 300,
        "-" * 3000 + "1",
        "not " * 900 + "1",
        "a" * (MAX_LENGTH + 1),
        "[" * 80 + "]" * 80,
    ],
)
def test_limits(expression: str) -> None:
    """What would take all time or memory is refused at once."""
    with cpu_within(10), pytest.raises(ExpressionError):
        evaluate(expression, NAMES)


def test_names_of_an_expression() -> None:
    """`names` has the free names: no functions, no loop variables, no constants."""
    assert parse("len(a) > b.c and any(d.e for d in f) and true and max(g, key=lambda h: h)").names == {
        "a",
        "b",
        "f",
        "g",
    }


def test_text_views() -> None:
    """A text that remembers its value compares as the value with numbers and as text with text."""
    names = {"n": TextView("12", 12), "m": TextView('{"k": 1}', {"k": 1}), "l": TextView("[]", [])}
    assert evaluate("n > 10 and n == 12 and n == '12' and '1' in n", names)
    assert evaluate("m.k == 1 and m['k'] + 1 == 2 and len(m) == 1 and 'k' in m", names)
    assert evaluate("not l and n.startswith('1') and float(n) == 12", names)
    assert evaluate("n", names) == 12


def test_conversations_read_as_their_last_message() -> None:
    """A conversation takes part in text tests as its last message."""
    talk = ConversationView(messages=[{"content": "I AGREE"}], last_message={"content": "I AGREE"})
    assert evaluate("'AGREE' in talk and talk == 'I AGREE' and talk.lower() == 'i agree'", {"talk": talk})
    assert evaluate("len(talk.messages) == 1", {"talk": talk})


def test_records_and_dates() -> None:
    """Fields of records and dates can be read, their methods and private parts cannot."""

    @dataclass
    class Point:
        x: int
        _secret: int = 1

        def boom(self) -> None:
            raise AssertionError

    names = {"p": Point(3), "day": datetime.date(2025, 1, 2)}
    assert evaluate("p.x == 3 and day.year == 2025 and day.isoformat() == '2025-01-02'", names)
    with pytest.raises(ExpressionError):
        evaluate("p.boom()", names)


def test_values_are_not_changed() -> None:
    """Evaluating never changes the names."""
    names = {"items": [3, 1, 2]}
    assert evaluate("sorted(items)", names) == [1, 2, 3]
    assert names == {"items": [3, 1, 2]}


def test_parse_is_cached() -> None:
    """The same text is parsed once."""
    assert parse("a > 12345") is parse("a > 12345")


def test_an_evaluation_leaves_nothing_to_the_garbage_collector() -> None:
    """What its names reach is freed when the last reference goes: a loop of a diagram evaluates its condition at every turn."""

    class Names(dict[str, object]):
        pass

    gc.collect()
    gc.disable()
    try:
        for expression in ("x >= 10", "[y for y in [1, 2] if y < x]", "unknown is None"):
            names = Names(x=3)
            left = weakref.ref(names)
            evaluate(expression, names)
            del names
            assert left() is None, expression
    finally:
        gc.enable()
