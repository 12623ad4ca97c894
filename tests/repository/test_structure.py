"""Limits of size and of imports that tests/repository/test_architecture.py does not set: what is beyond them is listed here, with how far, and may
only shrink."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.source_tree import FILES, PACKAGE, imports, nodes

MOST_LINES = 500
"""Of a module; two are files of the process of code jobs, which has nothing else of the package."""
LONG: dict[str, int] = {
    "common/values.py": 551, "execution/code_worker.py": 1101,
}  # fmt: skip
MOST_FIELDS = 25
"""Of a class: attributes that are declared in it, or stored on `self`; two are models of what users write into files."""
LARGE: dict[str, int] = {
    "config/settings.py:Settings": 49, "integrations/manifest.py:Operation": 32,
}  # fmt: skip
LATE: dict[str, int] = {
    "__init__.py": 3, "cli/__init__.py": 1, "codegen/services.py": 2, "integrations/http.py": 1,
    "integrations/on_use.py": 6, "notebook/tab.py": 2,
}  # fmt: skip
"""Modules with imports of this package within functions. Packages that are optional or slow to load may be imported late."""


def within(found: Mapping[str, int], limit: int, listed: Mapping[str, int]) -> None:
    """See to it that what is beyond a limit is listed, and has not grown."""
    beyond = {name: size for name, size in found.items() if size > limit}
    grown = {name: (size, listed.get(name, limit)) for name, size in beyond.items() if size > listed.get(name, limit)}
    assert not grown, f"(size, limit): {grown}"
    assert not listed.keys() - beyond.keys(), "these are within the limit now: take them off the list"


Modules = Mapping[str, Path]
"""Dotted name below the package → file."""


def modules_of(package: Path) -> Modules:
    files = FILES if package == PACKAGE else sorted(package.rglob("*.py"))
    return {str(file.relative_to(package)): file for file in files}


def lines(modules: Modules) -> dict[str, int]:
    return {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in modules.items()}


def fields(modules: Modules) -> dict[str, int]:
    return {
        f"{name}:{node.name}": len(set(_fields(node)))
        for name, file in modules.items()
        for node in nodes(file)
        if isinstance(node, ast.ClassDef)
    }


def late_imports(modules: Modules) -> dict[str, int]:
    return {name: len({line for line, _ in imports(file)} & _within_functions(file)) for name, file in modules.items()}


def circles(modules: Modules) -> list[set[str]]:
    """Also counting what is imported for type checkers only."""
    names = {_dotted(name): file for name, file in modules.items()}
    graph = {name: set(_top_imports(file, names)) - {name} for name, file in names.items()}
    return [{name.removeprefix("dipeo_nb.") for name in group} for group in _circles(graph)]


def test_modules_are_short() -> None:
    within(lines(modules_of(PACKAGE)), MOST_LINES, LONG)


def test_classes_have_few_fields() -> None:
    within(fields(modules_of(PACKAGE)), MOST_FIELDS, LARGE)


def test_imports_stand_at_the_top() -> None:
    within(late_imports(modules_of(PACKAGE)), 0, LATE)


def test_modules_form_no_circles() -> None:
    assert not circles(modules_of(PACKAGE))


CLASS = "class Large:\n"
FIELDS = "".join(f"    f{n}: int\n" for n in range(20))
STORED = "    def __init__(self):\n" + "".join(f"        self.g{n} = 1\n" for n in range(6))
BROKEN: dict[str, tuple[dict[str, str], str]] = {
    "a long module": ({"llm/x.py": "#\n" * 501}, "lines"),
    "a large class": ({"llm/x.py": CLASS + FIELDS + STORED}, "fields"),
    "an import within a function": ({"llm/x.py": "def f():\n    from dipeo_nb.llm import y\n", "llm/y.py": ""}, "late"),
    "an import within a method": ({"llm/x.py": "class C:\n    async def f(self):\n        import dipeo_nb.llm.y\n", "llm/y.py": ""}, "late"),
    "a circle": ({"llm/x.py": "from dipeo_nb.llm import y\n", "llm/y.py": "from dipeo_nb.llm.x import X\n"}, "circles"),
    "a circle for type checkers": (
        {
            "llm/x.py": "from dipeo_nb.llm.y import Y\n",
            "llm/y.py": "from dipeo_nb.llm import z\n",
            "llm/z.py": "if TYPE_CHECKING:\n    from dipeo_nb.llm.x import X\n",
        },
        "circles",
    ),
    "a circle where a package may be missing": (
        {"llm/x.py": "try:\n    import dipeo_nb.llm.y\nexcept ImportError:\n    pass\n", "llm/y.py": "import dipeo_nb.llm.x\n"},
        "circles",
    ),
    "nothing else": ({"llm/x.py": "#\n" * 500 + CLASS + FIELDS + "    g: ClassVar[int]\n", "llm/y.py": "from dipeo_nb.llm import x\n"}, "lines"),
}  # fmt: skip
"""What is wrong → modules, and the rule that finds it."""


@pytest.mark.parametrize("wrong", BROKEN)
def test_each_rule_fails_when_it_is_broken(wrong: str, tmp_path: Path) -> None:
    """And no other rule does."""
    files, rule = BROKEN[wrong]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    modules = modules_of(tmp_path)
    broken = {
        "lines": any(size > MOST_LINES for size in lines(modules).values()),
        "fields": any(size > MOST_FIELDS for size in fields(modules).values()),
        "late": any(late_imports(modules).values()),
        "circles": bool(circles(modules)),
    }
    assert [name for name, is_broken in broken.items() if is_broken] == [rule]


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


def _dotted(name: str) -> str:
    return "dipeo_nb." + name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def _within_functions(file: Path) -> set[int]:
    """The lines of imports within functions."""
    functions = (node for node in nodes(file) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    ranges = [range(node.lineno, (node.end_lineno or node.lineno) + 1) for node in functions]
    found = {node.lineno for node in nodes(file) if isinstance(node, (ast.Import, ast.ImportFrom))}
    return {line for line in found if any(line in lines for lines in ranges)}


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
        elif isinstance(node, ast.Try):
            todo += (
                node.body
                + node.orelse
                + node.finalbody
                + [statement for handler in node.handlers for statement in handler.body]
            )
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
