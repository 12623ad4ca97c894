"""Errors of expressions: what is wrong, a caret under it, the values that took part, and what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dipeo_nb.common.text import known_names, nearest
from dipeo_nb.diagram.expressions.scope import Scope
from dipeo_nb.diagram.expressions.values import kind
from dipeo_nb.diagram.values import TooLargeError, plain
from dipeo_nb.errors import ExpressionError

FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MemoryError, RecursionError)
"""Exceptions that the evaluation of user input may raise."""


class ExpressionText:
    """The text of an expression in its three forms."""

    __slots__ = ("source", "text", "wrapped")

    def __init__(self, text: str, source: str, wrapped: str) -> None:
        self.text: str = text
        """As written."""
        self.source: str = source
        """Without braces around names."""
        self.wrapped: str = wrapped
        """As parsed: in parentheses when it has several lines."""

    def segment(self, node: ast.AST) -> str:
        """The text of a part of the expression."""
        return ast.get_source_segment(self.wrapped, node) or "…"

    def failed(self, scope: Scope, node: ast.AST, error: BaseException, *operands: tuple[ast.AST, Any]) -> ExpressionError:
        """The error for a sub-expression that raised, with the values that took part."""
        if isinstance(error, ExpressionError):
            return error
        values = ", ".join(f"{self.segment(n)} is {_shown(value)}" for n, value in operands if not isinstance(n, ast.Constant))
        cause = str(error.args[0] if isinstance(error, LookupError) and error.args else error) or type(error).__name__
        unknown = "; ".join(scope.unknown.values())
        names = [str(n) for n in scope.names]
        unknown_names = [n for n in scope.unknown if n in scope.free]
        if unknown_names:
            close = next((c for n in unknown_names if (c := nearest(n, names))), None)
            hint = f"{unknown}{f'; did you mean {close!r}?' if close else ''}. Known names: {known_names(names)}."
        elif unknown:
            hint = f"{unknown}."
        else:
            hint = _advice(operands, error)
        return self.error(
            node,
            f"The expression cannot be evaluated: {cause}{f' ({values})' if values else ''}.",
            hint,
        )

    def error(self, node: ast.AST, message: str, hint: str) -> ExpressionError:
        """The error for a part of the expression, with a caret under it."""
        line = getattr(node, "lineno", 1)
        start = getattr(node, "col_offset", 0)
        end = getattr(node, "end_col_offset", start + 1) if getattr(node, "end_lineno", line) == line else None
        row = self.wrapped.split("\n")[line - 1]
        raw = row.encode()
        # ast counts bytes of UTF-8; people count characters.
        column = len(raw[:start].decode(errors="replace"))
        width = len(raw[start:end].decode(errors="replace"))
        if self.wrapped is not self.source and line == 1:
            row, column = row[1:], max(column - 1, 0)
        return _error(self.text, row, message, line, column + 1, max(width, 1), hint)


def syntax_error(text: str, source: str, cause: str, line: int, column: int) -> ExpressionError:
    """The error for a text that is not an expression."""
    rows = source.split("\n")
    line = min(line, len(rows))
    hint = next(
        (advice for sign, advice in _SYNTAX_ADVICE if re.search(sign, source)),
        "Conditions are Python expressions, such as `score > 10 and name != ''`.",
    )
    return _error(
        text,
        rows[line - 1],
        f"The expression does not parse: {cause}.",
        line,
        min(column, len(rows[line - 1]) + 1),
        1,
        hint,
    )


_SYNTAX_ADVICE = (
    (r"&&", "Write `and` instead of &&."),
    (r"\|\|", "Write `or` instead of ||."),
    (r"===|!==", "Write == and != instead of === and !==."),
    (r"(?<![=!<>:])=(?!=)", "Write == to compare."),
    (r"!(?!=)", "Write `not` instead of !."),
    (r"\?", "Write `a if test else b` instead of `test ? a : b`."),
)


def _error(text: str, row: str, message: str, line: int, column: int, width: int, hint: str) -> ExpressionError:
    start = max(0, column - 60)
    shown = row[start : start + 110]
    caret = " " * (column - 1 - start) + "^" * max(1, min(width, len(shown) - (column - 1 - start)))
    return ExpressionError(f"{message}\n    {shown}\n    {caret}\n", hint=hint, expression=text, line=line, column=column)


def suggestion(word: str, words: Sequence[str]) -> str:
    """The end of a sentence: the nearest of *words*, else all of them."""
    if close := nearest(word, words):
        return f"; did you mean '{close}'?"
    return f"; there are: {', '.join(list(words)[:20])}" if words else ""


def _advice(operands: Sequence[tuple[ast.AST, Any]], error: BaseException) -> str:
    if isinstance(error, TooLargeError):
        return "Compute it in a code_job."
    values = [plain(value) for _, value in operands]
    if any(isinstance(v, str) for v in values) and any(isinstance(v, (int, float)) for v in values):
        return "One side is text: write float(name) to compare it as a number."
    if any(isinstance(v, Mapping) for v in values):
        return "One value is a mapping: name the key, as in `result.score`."
    if isinstance(error, ZeroDivisionError):
        return "Test the divisor first: `n and total / n > 1`."
    return "Fix the expression, or what the arrows provide."


def no_attribute(path: str, name: str, value: Any) -> str:
    """Why a value has no field of that name."""
    if isinstance(value, str):
        return f"'{path}' is text and has no field '{name}'; let its arrow have content_type object"
    if name == "length" and isinstance(value, (list, tuple)):
        return f"a list has no '{name}'; write len({path})"
    return f"{kind(value)} has no '{name}'"


def _shown(value: Any) -> str:
    if value is None:
        return "None"
    seen = plain(value)
    name = type(seen).__name__
    text = (
        repr(str(seen) if isinstance(seen, str) else seen)
        if not isinstance(seen, (Mapping, list, tuple, set)) or len(seen) <= 20
        else f"of {len(seen)} items"
    )
    return f"{name} {text if len(text) <= 60 else text[:57] + '…'}"
