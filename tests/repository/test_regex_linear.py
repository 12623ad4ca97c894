"""Every regular expression of the package takes linear time: twice the text, at most three times the steps."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.regex_steps import Steps, TooManyStepsError, attacks
from tests.support.source_tree import FILES, PACKAGE, nodes

pytestmark = pytest.mark.slow
UNITS = 24
"""Repetitions of an attack's unit; compared with twice as many."""
GROWTH = 3
FLOOR = 1_000
"""Steps that are few, however they grow."""
TOO_MANY = 10**9
"""Stands for more steps than are counted."""
CALLS = ("compile", "match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer")


class Use(NamedTuple):
    """A regular expression of the package."""

    where: str
    pattern: str
    flags: int
    methods: frozenset[str]
    """How it is used: match, search …"""


def _calls(found: Iterable[ast.AST]) -> Iterator[ast.Call]:
    for node in found:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and node.func.attr in CALLS
        ):
            yield node


def _text(node: ast.expr, names: dict[str, Any]) -> str | None:
    """The pattern that an expression of a module gives; None: it depends on what only a run knows."""
    try:
        value = eval(compile(ast.Expression(node), "<pattern>", "eval"), names)
    except NameError:
        return None
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


def _uses() -> Iterator[Use]:
    for file in FILES:
        if " re\n" not in _TEXTS[file]:
            continue
        found = nodes(file)
        if not any(_calls(found)):
            continue
        dotted = ".".join(("dipeo_nb", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        names = dict(vars(importlib.import_module(dotted)))
        assigned = {
            id(node.value): target.id
            for node in found
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in _calls(found):
            where = f"{file.relative_to(PACKAGE)}:{call.lineno}"
            pattern = _text(call.args[0], names)
            if pattern is None:
                assert where.rsplit(":", 1)[0] in MADE_AT_RUN_TIME, f"{where}: write down in this test why it is linear"
                continue
            flags = 0
            given = [k.value for k in call.keywords if k.arg == "flags"]
            given += call.args[1:2] if call.func.attr == "compile" else []  # type: ignore[attr-defined]
            given += call.args[2:3] if call.func.attr in ("match", "fullmatch", "search") else []  # type: ignore[attr-defined]
            for node in given:
                flags |= int(eval(compile(ast.Expression(node), "<flags>", "eval"), names))
            method = call.func.attr  # type: ignore[attr-defined]
            name = assigned.get(id(call))
            used = _methods(name, file) if method == "compile" and name else []
            methods = frozenset(used) & set(CALLS) if method == "compile" else frozenset([method])
            yield Use(where, pattern, flags, methods or frozenset(["finditer"]))


def _methods(name: str, file: Path) -> list[str]:
    """How a compiled expression is used, in its module or else elsewhere."""
    own = re.findall(rf"\b{name}\.(\w+)\b", _TEXTS[file])
    return own or [method for called, method in _METHOD_CALLS if called == name]


_TEXTS = {file: file.read_text(encoding="utf-8") for file in FILES}
_METHOD_CALLS = [found for text in _TEXTS.values() for found in re.findall(r"\b(\w+)\.(\w+)\(", text)]
MADE_AT_RUN_TIME = {
    "diagram/printed_values.py": "a number between two marks, each of a fixed text",
    "domain/llm_providers.py": "patterns of the class of a provider, which is code that its user installed",
    "common/redaction.py": "alternatives of fixed beginnings of keys",
    "llm/pricing.py": "the patterns of names in the price list that comes with genai-prices",
    "common/child_environment.py": "a name between word boundaries",
    "execution/handlers/code_job.py": "a name between word boundaries",
    "execution/node_js.py": "a name after `function`, at the beginning of a line",
    "execution/patches.py": "two fixed patterns, given by name",
    "execution/shell_text.py": "a token of fixed length and digits",
    "llm/providers/echo.py": "the name of a tool between word boundaries",
    "llm/samples/__init__.py": "the pattern of a schema, which runs where it can be killed",
    "diagram/schema_check.py": "the pattern of a schema, which is matched in linear time or where it can be killed",
    "diagram/expressions/errors.py": "signs of a table of two characters",
    "storage/cloud/metadata.py": "letters, digits and dashes, one of two",
    "storage/in_memory.py": "made of a glob",
    "storage/patterns.py": "made of a glob, without any repetition within another",
}
"""Files with patterns that are made of what a run brings → why they are linear."""
BOUNDED = {
    "(?P<quote>": "of a line, the last 200 characters are looked at",
    "%%prompt": "of a line, the last 200 characters are looked at",
    "(?P<parenthesis>": "formulas have 2,000 characters at most",
    "eyJ": "the first part of a token is followed for 300 characters at most",
}
"""What a pattern holds → why it is linear, though the test cannot see it with few repetitions."""
USES = [use for use in _uses() if not any(text in use.pattern for text in BOUNDED)]


def test_all_are_found() -> None:
    """The list is not empty by mistake."""
    assert len(USES) >= 120


@pytest.mark.parametrize("use", USES, ids=[use.where for use in USES])
def test_steps_grow_linearly(use: Use) -> None:
    """No part of an expression, repeated, makes it slow."""
    anchored = use.methods <= {"match", "fullmatch"}
    whole = use.methods == {"fullmatch"}
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        steps = Steps(use.pattern, use.flags)
        for before, unit, after in attacks(use.pattern, use.flags):
            many = _steps(steps, before + unit * UNITS * 2 + after, anchored, whole)
            if many <= FLOOR:
                continue
            few = _steps(steps, before + unit * UNITS + after, anchored, whole)
            growth = many / max(few, 1)
            slow = many >= TOO_MANY or growth > GROWTH
            assert not slow, f"{use.where}: {before[:20]!r} + {unit[:20]!r} * n + {after!r}: {few} → {many}"
    finally:
        sys.setrecursionlimit(limit)


def _steps(steps: Steps, text: str, anchored: bool, whole: bool) -> int:
    try:
        return steps.run(text, anchored=anchored, whole=whole, limit=60_000)
    except TooManyStepsError:
        return TOO_MANY


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(a+)+$", "aaaa!"),
        (r"\s+(?://|#)", "      x"),
        (r"(?P<q>['\"]).*?(?P=q)", "say 'this' and \"that\""),
        (r"(?<=b)c|(?!a)b", "abcb"),
        (r"^x.*?y$", "x1y\nx2y"),
        (r"(?>a|ab)c|\Bd", "abc ad"),
        (r"[^\W\d]++1?", "ab1 cd"),
    ],
)
def test_the_counter_matches_as_re_does(pattern: str, text: str) -> None:
    """The engine that counts finds what `re` finds."""
    steps = Steps(pattern, re.MULTILINE)
    found: list[int] = []
    for at in range(len(text) + 1):
        steps.text, steps.count, steps.limit = text, 0, 10**6
        steps.groups.clear()
        ends: list[int] = []
        found += [at] if steps._match(at, lambda stop, ends=ends: ends.append(stop) is None) else []
    assert found == [at for at in range(len(text) + 1) if re.compile(pattern, re.MULTILINE).match(text, at)]


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"\s+$", r"(?:\"(?:\\.|[^\"])*\"|[^{}])*?\}", r"x*y*x*z", r"\{%.*?%\}"])
def test_the_counter_sees_what_is_slow(pattern: str) -> None:
    """Expressions that are known to be slow fail the test above."""
    with pytest.raises(AssertionError):
        test_steps_grow_linearly(Use("here", pattern, 0, frozenset(["search"])))
