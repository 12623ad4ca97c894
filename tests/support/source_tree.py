"""The modules of the package and their imports, as syntax trees."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "dipeo_nb"
FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """The syntax tree of a file, the whole module first."""
    found = tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    gc.freeze()  # so many objects would slow down every collection of garbage in later tests
    return found


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import of this package in a file; importing a name counts as importing its module."""
    for node in nodes(file):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "dipeo_nb")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level
            elif node.module == "dipeo_nb":
                yield from ((node.lineno, f"dipeo_nb.{alias.name}") for alias in node.names)
            elif node.module and node.module.startswith("dipeo_nb."):
                yield node.lineno, node.module
