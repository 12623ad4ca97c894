"""Helpers for parts of a syntax tree: their names, and their text for a message."""

from __future__ import annotations

import ast
import copy

from dipeo_nb.diagram.pydantic_source.words import STATEMENTS, TypeNames


def last_name(node: ast.expr) -> str | None:
    """`Field` of `Field`, `pydantic.Field` and `t.Field`; None for everything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and first_name(node):
        return node.attr
    return None


def first_name(node: ast.expr) -> str:
    """`pydantic` of `pydantic.Field`; empty for what is not a dotted name."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def moved_to(node: ast.expr, place: ast.AST) -> ast.expr:
    """A copy of *node* at the position of *place*."""
    moved = copy.deepcopy(node)
    for part in ast.walk(moved):
        ast.copy_location(part, place)
    return moved


def substituted(node: ast.expr, names: TypeNames) -> ast.expr:
    """*node* with type variables replaced."""

    class Replace(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return names.get(node.id, node)

    return Replace().visit(copy.deepcopy(node)) if names else node


def construct(node: ast.AST) -> str:
    """A statement, named for a message."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return f"the function '{node.name}'"
    if isinstance(node, ast.Expr):
        return f"`{source_of(node.value)}`"
    return STATEMENTS.get(type(node), f"`{source_of(node)}`")


def source_of(node: ast.AST) -> str:
    """The text of a node, shortened."""
    return short(ast.unparse(node))


def short(text: str, limit: int = 60) -> str:
    """Text on one line, at most *limit* characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def reason(error: BaseException) -> str:
    """The last line of an error's message."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip() and "errors.pydantic.dev" not in line]
    return short(lines[-1] if lines else type(error).__name__, 200)
