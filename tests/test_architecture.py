"""The house keeps its rooms: who may import whom (architecture.md), read from every import, those inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dipeo_nb"
ROWS = {
    "errors": 0,
    "common": 1, "dipeo_words": 1,
    "config": 2,
    "domain": 3, "mixins": 3, "workers": 3,
    "diagram": 4,
    "execution": 5, "llm": 5, "storage": 5, "events": 5, "integrations": 5, "security": 5, "codegen": 5,
    "container": 6, "database": 6, "shared": 6, "infrastructure": 6, "application": 6,
    "testing": 7, "terminal": 7, "server": 7,
    "notebook": 8, "cli": 8,
    "__init__": 9, "__main__": 9,
}  # fmt: skip
"""Room → row. A room imports only rooms on rows below its own, and itself."""
TYPES_ONLY = {("errors", "domain")}
"""Named in an annotation, never imported at run time."""
FILES = sorted(PACKAGE.rglob("*.py"))


def room(module: Path | str) -> str:
    """The room of a file, or of a dotted module name."""
    if isinstance(module, Path):
        parts = module.relative_to(PACKAGE).with_suffix("").parts
        return parts[0]
    return module.split(".")[1] if "." in module else "__init__"


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """The syntax tree of a file, the whole module first."""
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """So many objects would slow down every collection of garbage in later tests."""
    yield
    nodes.cache_clear()


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


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(PACKAGE)) for f in FILES])
def test_imports_point_down(file: Path) -> None:
    """A room imports only rooms below it; siblings never meet; no import is relative."""
    own = room(file)
    assert own in ROWS, f"{own} is not in the table of rooms: add it to architecture.md and here"
    for line, name in imports(file):
        assert not name.startswith("."), f"{file}:{line}: relative import"
        other = room(name)
        assert other in ROWS, f"{file}:{line}: {name} is no room"
        fine = other == own or ROWS[other] < ROWS[own] or (own, other) in TYPES_ONLY
        assert fine, f"{file}:{line}: {own} must not import {other} ({name})"


def test_the_package_has_no_cycles() -> None:
    """Modules inside a room do not import each other in a circle at import time."""
    names = {"dipeo_nb." + ".".join(f.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): f for f in FILES}
    graph = {name: {n for _, n in _eager_imports(file) if n in names and n != name} for name, file in names.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' → '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def _eager_imports(file: Path) -> Iterator[tuple[int, str]]:
    """Imports that run when the module is imported: at its top, not for type checkers only."""
    module = nodes(file)[0]
    assert isinstance(module, ast.Module)
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dipeo_nb"):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            yield node.lineno, node.module


def test_only_config_reads_the_environment() -> None:
    """Settings come from one place; elsewhere `os.environ` and `os.getenv` do not appear."""
    readers = {
        str(file.relative_to(PACKAGE))
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv") and getattr(node.value, "id", "") == "os"
    }
    assert readers <= {"config.py"}


def test_handlers_reach_files_through_services_only() -> None:
    """What a node reads or writes goes through the file system that confines it: no handler opens a file by itself."""
    opening = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rename", "replace", "touch"}
    for file in sorted(PACKAGE.glob("execution/handlers/*.py")):
        for node in nodes(file):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"os", "io", "tempfile", "glob"}, where
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "shutil":
                assert node.attr == "which", where
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "open", where
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
                made = node.func.value.func
                assert not (isinstance(made, ast.Name) and made.id == "Path" and node.func.attr in opening), where
