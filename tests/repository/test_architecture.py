"""Who may import whom (dipeo_nb/README.md), read from every import, those inside functions too."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipeo_nb.common import injection
from tests.support.source_tree import FILES, PACKAGE, imports, nodes

ROWS = {
    "errors": 0,
    "common": 1, "dipeo_words": 1,
    "config": 2,
    "domain": 3, "mixins": 3, "workers": 3,
    "diagram": 4,
    "execution": 5, "llm": 5, "storage": 5, "events": 5, "integrations": 5, "security": 5, "codegen": 5,
    "container": 6, "database": 6, "shared": 6, "infrastructure": 6, "application": 6,
    "runtime": 7, "terminal": 7,
    "server": 8, "testing": 8,
    "notebook": 9, "cli": 9,
    "__init__": 10, "__main__": 10,
}  # fmt: skip
"""Room → row. A room imports only rooms on rows below its own, and itself."""
TYPES_ONLY = {("errors", "domain")}
"""Named in an annotation, never imported at run time."""


def room(module: str) -> str:
    """The room of a dotted module name."""
    return module.split(".")[1] if "." in module else "__init__"


def test_imports_point_down() -> None:
    """A room imports only rooms below it; siblings never meet; no import is relative."""
    wrong = [line for file in FILES for line in upward(file, file.relative_to(PACKAGE))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "line", "wrong"),
    [
        ("llm/x.py", "from dipeo_nb.domain.chat import LLMRequest", ""),
        ("llm/x.py", "from dipeo_nb.runtime import Runtime", "llm must not import runtime"),
        ("llm/x.py", "from dipeo_nb import storage", "llm must not import storage"),
        ("domain/x.py", "if TYPE_CHECKING:\n    import dipeo_nb.llm.service", "domain must not import llm"),
        ("domain/x.py", "def f():\n    import dipeo_nb.cli", "domain must not import cli"),
        ("llm/x.py", "from . import service", "relative import"),
        ("llm/x.py", "import dipeo_nb.elsewhere", "dipeo_nb.elsewhere is not a room"),
        ("elsewhere/x.py", "", "elsewhere is not in the table of rooms"),
    ],
)
def test_imports_that_do_not_point_down_are_found(path: str, line: str, wrong: str, tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(line, encoding="utf-8")
    found = list(upward(file, Path(path)))
    assert [wrong in text for text in found] == ([True] if wrong else [])


def upward(file: Path, path: Path) -> Iterator[str]:
    """What of a file's imports does not point down, when it is at *path* below the package."""
    own = path.with_suffix("").parts[0]
    if own not in ROWS:
        yield f"{own} is not in the table of rooms: add it to dipeo_nb/README.md and here"
        return
    for line, name in imports(file):
        other = room(name)
        if name.startswith("."):
            yield f"{file}:{line}: relative import"
        elif other not in ROWS:
            yield f"{file}:{line}: {name} is not a room"
        elif other != own and ROWS[other] >= ROWS[own] and (own, other) not in TYPES_ONLY:
            yield f"{file}:{line}: {own} must not import {other} ({name})"


def test_extras_are_those_that_bring_the_package() -> None:
    """An error that names an extra to install names one that there is, and that brings what is missing."""
    extras = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    calls = [
        node
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "for_extra"
    ]
    assert calls
    for call in calls:
        package, extra = call.args[0], ast.literal_eval(call.keywords[0].value)
        if isinstance(package, ast.BoolOp):  # the name in the ImportError, else this one
            package = package.values[-1]
        assert ast.literal_eval(package) in {re.split(r"[\[>=<]", requirement)[0] for requirement in extras[extra]}


def test_only_config_reads_the_environment() -> None:
    """Settings come from one place; elsewhere `os.environ` and `os.getenv` do not appear."""
    readers = {
        str(file.relative_to(PACKAGE))
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "environb", "getenv")
        and getattr(node.value, "id", "") == "os"
    }
    assert {name for name in readers if not name.startswith("config/")} == set()


HANDLERS = [*sorted(PACKAGE.glob("execution/handlers/*.py")), PACKAGE / "execution/children.py"]
"""What does the work of nodes."""


def test_handlers_reach_files_through_services_only() -> None:
    """What a node reads or writes goes through the file system that confines it: no handler opens a file by itself."""
    opening = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "rename", "replace", "touch"}
    for file in HANDLERS:
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


EFFECTS = {
    "os", "io", "subprocess", "socket", "tempfile", "glob", "fileinput", "sqlite3", "ctypes", "multiprocessing", "httpx", "requests", "ssl",
    "urllib.request", "http.client", "ftplib", "smtplib", "openai", "anthropic",
}  # fmt: skip
"""Modules by which a process reaches the world."""


def test_handlers_import_no_effects() -> None:
    """A handler has its run's services, and `execution.commands` for programs; nothing else reaches the world from there."""
    for file in HANDLERS:
        for node in nodes(file):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & EFFECTS, where
            elif isinstance(node, ast.ImportFrom):
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                assert not names & (EFFECTS | {"asyncio.subprocess", "dipeo_nb.common.root", "dipeo_nb.integrations"}), where
            elif isinstance(node, ast.Attribute):
                assert node.attr not in ("create_subprocess_exec", "create_subprocess_shell", "open_connection"), where
            elif isinstance(node, ast.Name):
                assert node.id not in ("exec", "eval", "compile", "__import__"), where


SERVICES = {
    "api_job": {"http"}, "children": {"bus", "files", "store"}, "code_job": {"files"}, "condition": set(), "db": {"db", "files"}, "diff_patch": {"files"}, "endpoint": {"files"},
    "hook": {"files", "http"}, "integrated_api": {"integrations"}, "ir_builder": {"files", "ir"}, "json_schema_validator": {"db"}, "person_job": {"integrations"},
    "start": set(), "sub_diagram": set(), "template_job": {"clock", "files"}, "typescript_ast": {"files", "typescript"},
    "user_response": set(),
}  # fmt: skip
"""Handler → the services that it may use."""


def test_handlers_use_the_services_of_their_kind() -> None:
    """A handler that begins to use another one is looked at: whether the list of a diagram says so, and the gate checks it."""
    for file in (file for file in HANDLERS if file.stem != "__init__"):
        named = {
            node.attr
            for node in nodes(file)
            if isinstance(node, ast.Attribute)
            and (
                (isinstance(node.value, ast.Attribute) and node.value.attr == "services")
                or getattr(node.value, "id", "") == "services"
            )
        }
        assert named == SERVICES[file.stem], file.stem


def test_each_run_has_a_gate() -> None:
    """Executions are made for a session and, by the engine, for a run that is part of another one; both get the gate that was decided for
    them. The services behind the gate of a dry run do nothing."""
    found: dict[str, list[ast.Call]] = {}
    for file in FILES:
        for node in nodes(file):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Execution":
                found.setdefault(str(file.relative_to(PACKAGE)), []).append(node)
    assert {name: [ast.unparse(call.args[1]) for call in calls] for name, calls in found.items()} == {
        "execution/engine.py": ["gate"],
        "runtime/dry_run.py": ["gate"],
        "runtime/runtime.py": ["gate"],
    }


OPENING_BY_NAME = {
    "cli/__init__.py": "the null device",
    "cli/arguments.py": "files that the user names",
    "cli/codegen.py": "files that the user names",
    "cli/folder.py": "the folder that the user names",
    "common/atomic.py": "writes for those who have checked the place",
    "common/imports.py": "folders of the installation",
    "common/locks.py": "locks of other packages, and of the user's own stores",
    "common/protected.py": "looks at protected places themselves",
    "common/root.py": "opens by handle",
    "common/settings_files.py": "settings of the user and of the folder",
    "common/sqlite.py": "checks a database before SQLite opens it",
    "common/walk.py": "opens by handle",
    "diagram/detect.py": "diagrams that come with the package",
    "diagram/reference.py": "examples that come with the package",
    "execution/code_program.py": "what was shown, for a program of a diagram",
    "execution/code_worker.py": "the process of the code",
    "execution/child_process.py": "scratch folders of programs",
    "execution/node_js.py": "scratch folders of programs",
    "execution/shown_scripts.py": "scratch folders of programs",
    "execution/state/machine.py": "facts of the machine",
    "execution/run_page.py": "files of the package",
    "integrations/mcp_servers.py": "the .mcp.json of the base directory",
    "integrations/registry.py": "manifests of the package, and of files that the user names or trusts",
    "llm/model_check.py": "folders that the user names",
    "llm/model_store.py": "models in the user's cache",
    "notebook/view.py": "files of the package",
    "security/keystore/file.py": "the user's keys",
    "security/keystore/keyring.py": "the lock of the user's keys",
    "security/trust.py": "diagrams that come with the package",
    "security/trust_store.py": "the user's record of trust",
    "storage/artifacts.py": "scratch folders of what is fetched",
    "workers/child.py": "the null device",
}
"""Module → what it opens by name, of which no diagram chooses the place."""
_BY_HANDLE = (
    "files",
    "_root",
    "storage",
    "file_system",
    "_for(",
    "super()",
    "self.read_bytes",
    "self.write_bytes",
    "root(",
    "store.",
    "locks.mkdir",
)


def test_files_are_opened_by_handle() -> None:
    """Files whose names diagrams choose are opened by `common.root` alone; other modules are in the table."""
    system = {
        "os": {"open", "fdopen", "mkdir", "makedirs", "remove", "unlink", "rename", "replace", "link", "symlink", "rmdir", "chmod", "scandir", "listdir", "walk"},
        "shutil": {"copy", "copyfile", "copytree", "rmtree", "move"},
        "tempfile": {"mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryDirectory"},
    }  # fmt: skip
    of_paths = {
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
        "unlink",
        "touch",
        "symlink_to",
        "hardlink_to",
        "rmdir",
        "mkdir",
        "iterdir",
        "rglob",
    }
    found: set[str] = set()
    for file in FILES:
        name = str(file.relative_to(PACKAGE))
        for node in nodes(file):
            if not isinstance(node, ast.Call) or name.startswith("testing/"):
                continue
            function = node.func
            if isinstance(function, ast.Name):
                opens = function.id == "open"
            elif isinstance(function, ast.Attribute):
                owner = getattr(function.value, "id", "")
                named = function.attr in of_paths and not any(word in ast.unparse(function) for word in _BY_HANDLE)
                opens = function.attr in system.get(owner, ()) or named
            else:
                opens = False
            if opens:
                found.add(name)
    assert found <= OPENING_BY_NAME.keys(), "it opens files by name: let it use common.root, or say here why not"
    assert not OPENING_BY_NAME.keys() - found, "these open none any more"


def test_points_for_tests_are_in_the_table() -> None:
    """Each is reached somewhere, and each that is reached is described; `question` is that of the contract itself."""
    reached = {
        ast.literal_eval(node.args[0])
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") == "reach"
        and ast.unparse(node.func) == "injection.reach"
    }
    assert reached == {*injection.POINTS, "question"}


def test_no_hook_is_installed_in_production() -> None:
    """Only tests and `dipeo_nb.testing` install one."""
    setting = [
        file
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and node.attr == "hook"
        and ast.unparse(node) == "injection.hook"
    ]
    assert [file.parent.name for file in setting] == ["testing"]


OUTSIDE = re.compile(r"§|\b(?:diagram|infra)-spec\b|\b(?:jupyter|architecture|rivals|style)\.md")
PUBLISHED = re.compile(r"RFC \d+ §[\d.]+|howtocorrupt\.html §[\d.]+")
"""Sections that anybody can look up."""


def test_comments_refer_to_what_is_here() -> None:
    """Not to documents outside the repository; those of others are named with what they are."""
    found: list[str] = []
    for file in FILES:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if OUTSIDE.search(PUBLISHED.sub("", line)):
                found.append(f"{file.relative_to(PACKAGE)}:{number}")
    assert not found
