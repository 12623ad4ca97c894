"""Base of all parts of the compiler: dispatch on the type of a node, and refusal."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, NoReturn

from dipeo_nb.diagram.expressions.errors import ExpressionText
from dipeo_nb.diagram.expressions.scope import Scope

MAX_DEPTH = 60
"""Levels of nesting."""
Closure = Callable[[Scope], Any]


class Builder:
    """Turns nodes of a syntax tree into closures, by methods `build_<type of node>`; other nodes are refused."""

    def __init__(self, source: ExpressionText) -> None:
        self.source = source
        self.names: set[str] = set()
        """Free names met so far."""
        self.bound: list[set[str]] = []
        """Variables of comprehensions and lambdas around the current node, the innermost last."""
        self.depth: int = 0

    def build(self, node: ast.expr) -> Closure:
        """Compile a node of the syntax tree."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.refuse(node, f"The expression is nested more than {MAX_DEPTH} levels deep.")
        method = getattr(self, f"build_{type(node).__name__}", None)
        if method is None:
            kind = _CONSTRUCTS.get(type(node).__name__, type(node).__name__)
            self.refuse(node, f"{kind} cannot be used in an expression.")
        closure = method(node)
        self.depth -= 1
        return closure

    def refuse(self, node: ast.AST, message: str, hint: str | None = None) -> NoReturn:
        """Raise ExpressionError for a node that is not allowed."""
        raise self.source.error(
            node,
            message,
            hint or "Use names, comparisons, arithmetic and the methods of text, lists and mappings; or a code_job.",
        )


_CONSTRUCTS = {
    "Await": "`await`",
    "Lambda": "A lambda (except as `key=` of sorted, min and max)",
    "NamedExpr": "An assignment with :=",
    "Starred": "*",
    "TemplateStr": "A t-string",
    "Yield": "`yield`",
    "YieldFrom": "`yield from`",
}
