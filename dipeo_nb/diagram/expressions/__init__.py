"""Expressions of conditions: Python's own, evaluated safely.

An expression is parsed by `ast` and turned into closures; it is never given to `eval`. It can read values and compute
with them, and nothing else: no imports, no names with underscores, no attributes but keys of mappings, fields of
records and the methods listed here, no changes to the values, and limits on length, depth, steps and size.

An unknown name is None, so `missing is None` holds; when the evaluation then fails, the error states that the name is
unknown and which names there are. JavaScript's `true`, `false` and `null` are understood when nothing has that name.
Handlebars braces around names are ignored: `{{score}} > 10` is `score > 10`.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from dipeo_nb.diagram.expressions.builder import Closure
from dipeo_nb.diagram.expressions.compiler import Compiler
from dipeo_nb.diagram.expressions.errors import ExpressionText, syntax_error
from dipeo_nb.diagram.expressions.scope import Scope
from dipeo_nb.diagram.metering import Meter
from dipeo_nb.diagram.values import plain
from dipeo_nb.errors import ExpressionError

MAX_LENGTH = 4_000
"""Characters of an expression."""


class Expression:
    """A parsed expression, ready to be evaluated many times, from any thread."""

    __slots__ = ("_run", "names", "source", "text")

    def __init__(self, text: str, source: str, names: frozenset[str], run: Closure) -> None:
        self.text: str = text
        """As written."""
        self.source: str = source
        """As parsed: braces removed; columns count in here, as in `text`."""
        self.names: frozenset[str] = names
        """Free names."""
        self._run = run

    def evaluate(self, names: Mapping[str, Any], *, quick: bool = False) -> Any:
        """The value of the expression.

        Args:
            quick: it may take no longer than a quick evaluation.

        Raises:
            ExpressionError: it cannot be evaluated; the message shows where and with which values.
            NotQuickError: it takes longer.
        """
        return plain(self._run(Scope(self.names, names, Meter(quick=quick))))

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def evaluate(expression: str, names: Mapping[str, Any], *, quick: bool = False) -> Any:
    """The value of *expression*, with *names* as its variables.

    Args:
        quick: it may take no longer than a quick evaluation.

    Raises:
        ExpressionError: it does not parse, or cannot be evaluated; facts: expression, column (1-based).
        NotQuickError: it takes longer.
    """
    return parse(expression).evaluate(names, quick=quick)


@lru_cache(maxsize=1024)
def parse(expression: str) -> Expression:
    """Parse *expression*.

    Raises:
        ExpressionError: not an expression, or one that uses what is not allowed; facts: expression, line and column
            (1-based).
    """
    text = expression.strip()
    if not text:
        raise ExpressionError("The expression is empty.", hint="Write one, such as `score > 10`.", expression=expression)
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"The expression has {len(text):,} characters; {MAX_LENGTH:,} are allowed.",
            hint="Compute the value in a code_job and test that.",
            expression=expression,
        )
    source = _BRACES.sub(lambda m: m[0] if m[1] is None else f"( {m[1]} )", text)
    # In parentheses an expression may span lines. They count as one column of the first line.
    wrapped = f"({source}\n)" if "\n" in source else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(wrapped, mode="eval")
    except SyntaxError as error:
        column = max((error.offset or 1) - (wrapped is not source and error.lineno == 1), 1)
        raise syntax_error(text, source, error.msg, error.lineno or 1, column) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise syntax_error(text, source, str(error) or "too deeply nested", 1, 1) from None
    compiler = Compiler(ExpressionText(text, source, wrapped))
    run = compiler.build(tree.body)
    return Expression(text, source, frozenset(compiler.names), run)


_BRACES = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\{\{([^{}]*)\}\}""", re.DOTALL)
