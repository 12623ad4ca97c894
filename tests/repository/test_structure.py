"""Limits of size and of imports that tests/repository/test_architecture.py does not set: what is beyond them is listed here, with how far, and may
only shrink."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.source_tree import FILES, PACKAGE, imports, nodes

MOST_LINES = 500
"""Of a module."""
LONG: dict[str, int] = {
    "common/values.py": 551, "execution/code_worker.py": 1101,
}  # fmt: skip
MOST_FIELDS = 25
"""Of a class: attributes that are declared in it, or stored on `self`."""
LARGE: dict[str, int] = {
    "config/settings.py:Settings": 48, "execution/journal.py:Journal": 26, "integrations/manifest.py:Operation": 32,
}  # fmt: skip
LATE: dict[str, int] = {
    "__init__.py": 3, "cli/__init__.py": 1, "codegen/services.py": 2, "integrations/http.py": 1,
    "integrations/on_use.py": 6, "notebook/tab.py": 2,
}  # fmt: skip
"""Modules with imports of this package within functions. Packages that are optional or slow to load may be imported late."""
CIRCLES: list[set[str]] = [

]  # fmt: skip
"""Modules that import each other in a circle, imports for type checkers included."""


def within(found: Mapping[str, int], limit: int, listed: Mapping[str, int]) -> None:
    """See to it that what is beyond a limit is listed, and has not grown."""
    beyond = {name: size for name, size in found.items() if size > limit}
    grown = {name: (size, listed.get(name, limit)) for name, size in beyond.items() if size > listed.get(name, limit)}
    assert not grown, f"(size, limit): {grown}"
    assert not listed.keys() - beyond.keys(), "these are within the limit now: take them off the list"


def test_modules_are_short() -> None:
    within({_name(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}, MOST_LINES, LONG)


def test_classes_have_few_fields() -> None:
    found: dict[str, int] = {}
    for file in FILES:
        for node in nodes(file):
            if isinstance(node, ast.ClassDef):
                found[f"{_name(file)}:{node.name}"] = len(set(_fields(node)))
    within(found, MOST_FIELDS, LARGE)


def test_imports_stand_at_the_top() -> None:
    found = dict.fromkeys(map(_name, FILES), 0)
    for file in FILES:
        late = {
            child.lineno
            for node in nodes(file)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for child in ast.walk(node)
            if isinstance(child, (ast.Import, ast.ImportFrom))
        }
        found[_name(file)] = len({line for line, _ in imports(file) if line in late})
    within(found, 0, LATE)


def test_modules_form_no_circles() -> None:
    """Also counting what is imported for type checkers only."""
    modules = {"dipeo_nb." + ".".join(f.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): f for f in FILES}
    graph = {name: set(_top_imports(file, modules)) - {name} for name, file in modules.items()}
    circles = [{name.removeprefix("dipeo_nb.") for name in group} for group in _circles(graph)]
    new = [group for group in circles if not any(group <= known for known in CIRCLES)]
    assert not new
    gone = [known for known in CIRCLES if not any(group <= known for group in circles)]
    assert not gone, "these are no circles any more: take them off the list"


@pytest.mark.parametrize(
    ("found", "fine"), [({"a": 5}, True), ({"a": 6}, False), ({"a": 5, "b": 4}, False), ({"a": 3}, False), ({"b": 3}, False)]
)
def test_the_limits_hold(found: dict[str, int], fine: bool) -> None:
    """What is listed may be as large as it was; nothing else is beyond the limit; what is not beyond it is not listed."""
    if fine:
        within(found, 3, {"a": 5})
    else:
        with pytest.raises(AssertionError):
            within(found, 3, {"a": 5})


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e2"}, "e2": {"e"}, "f": set[str]()}
    assert sorted(map(sorted, _circles(graph))) == [["a", "b", "c"], ["e", "e2"]]


def _name(file: Path) -> str:
    return str(file).removeprefix(f"{PACKAGE}/")


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and "ClassVar" not in ast.unparse(statement.annotation)
        ):
            yield statement.target.id
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store) and getattr(child.value, "id", "") == "self":
            yield child.attr


def _top_imports(file: Path, modules: Collection[str]) -> Iterator[str]:
    """The modules of this package that a module imports at its top, a name of theirs or themselves."""
    module = nodes(file)[0]
    assert isinstance(module, ast.Module)
    todo: list[ast.stmt] = list(module.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If):
            todo += node.body + node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from named & set(modules) or {node.module} & set(modules)


def _circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The groups of nodes that reach each other."""
    reached: dict[str, set[str]] = {}
    for name in graph:
        seen: set[str] = set()
        todo = [name]
        while todo:
            for other in graph[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        reached[name] = seen
    groups: list[set[str]] = []
    for name in graph:
        group = {other for other in reached[name] if name in reached[other]}
        if len(group) > 1 and group not in groups:
            groups.append(group)
    return groups
