"""Imports of code that somebody said yes to: what was shown runs, and nothing else that lies beside it
(execution/code_modules.py, diagram/closure.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.diagram.closure import closure
from dipeo_nb.diagram.document import load
from dipeo_nb.errors import CodeError, NodeExecutionError, RunError, TrustError
from dipeo_nb.execution import node_js
from dipeo_nb.notebook.session import Session
from tests.support.untrusted_folder import base, files, light, node, output, session, write

__all__ = ["base", "session"]  # fixtures


FOUND: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "module": ("import helper\nreturn helper.x", {}, {"helper.py": "x = 1"}),
    "in a function": ("def f():\n    from helper import x\n    return x\nreturn f()", {}, {"helper.py": "x = 1"}),
    "module of a module": ("import helper\nreturn helper.x", {}, {"helper.py": "from deep import x", "deep.py": "x = 1"}),
    "package": ("import pkg\nreturn pkg.x", {}, {"pkg/__init__.py": "x = 1"}),
    "module of a package": ("from pkg.inner import x\nreturn x", {}, {"pkg/__init__.py": "", "pkg/inner.py": "x = 1"}),
    "module as an attribute": ("from pkg import inner\nreturn inner.x", {}, {"pkg/__init__.py": "", "pkg/inner.py": "x = 1"}),
    "relative": ("import pkg\nreturn pkg.x", {}, {"pkg/__init__.py": "from .inner import x", "pkg/inner.py": "x = 1"}),
    "relative module": (
        "import pkg\nreturn pkg.inner.x",
        {},
        {"pkg/__init__.py": "from . import inner", "pkg/inner.py": "x = 1"},
    ),
    "two levels up": (
        "import pkg.a.b\nreturn pkg.a.b.x",
        {},
        {"pkg/__init__.py": "", "pkg/a/__init__.py": "", "pkg/a/b.py": "from ..inner import x", "pkg/inner.py": "x = 1"},
    ),
    "namespace package": ("import space.inner\nreturn space.inner.x", {}, {"space/inner.py": "x = 1"}),
    "deep namespace package": ("import a.b.c\nreturn a.b.c.x", {}, {"a/b/c.py": "x = 1"}),
    "star": ("from pkg import *\nreturn inner.x", {}, {"pkg/__init__.py": "__all__ = ['inner']", "pkg/inner.py": "x = 1"}),
    "by name": ("import importlib\nreturn importlib.import_module('helper').x", {}, {"helper.py": "x = 1"}),
    "by name in a package": (
        "import pkg\nreturn pkg.x",
        {},
        {"pkg/__init__.py": "import importlib\nx = importlib.import_module('.inner', __name__).x", "pkg/inner.py": "x = 1"},
    ),
    "by __import__": ("return __import__('helper').x", {}, {"helper.py": "x = 1"}),
    "beside its file": (
        "",
        {"file_path": "sub/work.py"},
        {"sub/work.py": "import helper\nresult = helper.x", "sub/helper.py": "x = 1"},
    ),
    "below the base": (
        "",
        {"file_path": "sub/work.py"},
        {"sub/work.py": "import helper\nresult = helper.x", "helper.py": "x = 1"},
    ),
    "cycle": ("import one\nreturn one.x", {}, {"one.py": "x = 1\nimport two", "two.py": "import one"}),
    "optional": (
        "import helper\nreturn helper.x",
        {},
        {"helper.py": "try:\n    import not_there\nexcept ImportError:\n    x = 1"},
    ),
    "data beside it": (
        "import pkg\nreturn pkg.x",
        {},
        {
            "pkg/__init__.py": "from importlib import resources\nx = int(resources.files(__name__).joinpath('n.txt').read_text())",
            "pkg/n.txt": "1",
        },
    ),
    "its own file": (
        "import helper\nreturn helper.x",
        {},
        {"helper.py": "from pathlib import Path\nx = int(Path(__file__).with_name('n.txt').read_text())", "n.txt": "1"},
    ),
    "coding": ("import helper\nreturn helper.x", {}, {"helper.py": "# coding: latin-1\nx = len('a')"}),
    "spawned process": (
        "import multiprocessing as m, helper\nwith m.get_context('spawn').Pool(1) as pool:\n    return pool.map(helper.f, [0])[0]",
        {},
        {"helper.py": "import deep\ndef f(n):\n    return deep.x + n", "deep.py": "x = 1"},
    ),
    "fork server": (
        "import multiprocessing as m, helper\nwith m.get_context('forkserver').Pool(1) as pool:\n    return pool.map(helper.f, [0])[0]",
        {},
        {"helper.py": "def f(n):\n    return n + 1"},
    ),
}
"""Case → (code, other fields, files); its value is 1."""


@pytest.mark.parametrize("case", FOUND)
def test_modules_that_were_shown(session: Session, base: Path, case: str) -> None:
    """They are found as Python finds them, and are those of the yes: the disk says something else by now."""
    code, fields, contents = FOUND[case]
    files(base, contents)
    path = write(base, light(node("code_job", code=code or None, **fields)))
    prepared = session.runtime.prepare(path, trust=True)
    for name in contents:
        if name.endswith(".py"):
            (base / name).write_text("raise SystemError('this was not shown')")
    assert session.runtime.settings.base_dir == base
    assert output(session, prepared) == 1
    assert not list(base.rglob("__pycache__"))


UNSHOWN: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "name made while running": ("import importlib\nreturn importlib.import_module('hel' + 'per').x", {}, {}),
    "by exec": ("exec('import hel' 'per')\nreturn helper.x", {}, {}),
    "in a package": (
        "import importlib, pkg\nreturn importlib.import_module('pkg.' + 'helper').x",
        {},
        {"pkg/__init__.py": "", "pkg/helper.py": "open('ran.txt', 'w')"},
    ),
    "in a namespace package": (
        "import importlib, pkg.a\nreturn importlib.import_module('pkg.' + 'helper').x",
        {},
        {"pkg/a.py": "", "pkg/helper.py": "open('ran.txt', 'w')"},
    ),
    "compiled": (
        "import importlib\nreturn importlib.import_module('comp' + 'iled')",
        {},
        {"compiled.pyc": "", "compiled/__init__.pyc": ""},
    ),
    "beside its file": (
        "",
        {"file_path": "sub/work.py"},
        {
            "sub/work.py": "import importlib\nresult = importlib.import_module('hel' + 'per').x",
            "sub/helper.py": "open('ran.txt', 'w')",
        },
    ),
    "by pickle": ("import pickle\nreturn pickle.loads(b'chelper\\nx\\n.')", {}, {}),
    "as a package of zip files": ("import importlib\nreturn importlib.import_module('zip' + 'ped')", {}, {"zipped.zip": ""}),
    "plug-ins": (
        "import pkgutil, importlib\nreturn [importlib.import_module(m.name).x for m in pkgutil.iter_modules(['.'])][0]",
        {},
        {},
    ),
    "in a spawned process": (
        "import multiprocessing as m, importlib\nwith m.get_context('spawn').Pool(1) as pool:\n    return pool.map(importlib.import_module, ['hel' + 'per'])",
        {},
        {},
    ),
}


@pytest.mark.parametrize("case", UNSHOWN)
def test_modules_that_were_not_shown(session: Session, base: Path, case: str) -> None:
    """Whatever lies beside the code is not imported, and the error says what to do where it is there."""
    code, fields, contents = UNSHOWN[case]
    files(base, {"helper.py": "open('ran.txt', 'w')\nx = 1", **contents})
    path = write(base, light(node("code_job", code=code or None, **fields)))
    with pytest.raises((NodeExecutionError, CodeError), match="No module named") as caught:
        session.run(path, trust=True, view=False)
    assert not (base / "ran.txt").exists()
    if "compiled" not in case and "zip" not in case and "spawned" not in case:
        assert "dipeo-nb trust" in str(caught.value.hint)


def test_what_is_installed_comes_first(session: Session, base: Path) -> None:
    """Of the standard library, too."""
    files(base, {"json.py": "open('ran.txt', 'w')", "yaml.py": "open('ran.txt', 'w')"})
    path = write(base, light(node("code_job", code="import json, yaml\nreturn yaml.safe_load('1')")))
    assert session.run(path, trust=True, view=False).output == 1
    assert not (base / "ran.txt").exists()


def test_ones_own_code_imports_what_lies_there(session: Session, base: Path, tmp_path: Path) -> None:
    """A diagram of the user's own: also names that no statement says."""
    files(base, {"helper.py": "x = 1"})
    own = light(node("code_job", code="import importlib\nreturn importlib.import_module('hel' + 'per').x"))
    assert session.run(own, view=False).output == 1


def test_a_resumed_run_has_the_modules_that_were_shown_or_asks(base: Path) -> None:
    """In another process the files must still be those of the yes."""
    files(base, {"helper.py": "x = 1"})
    code = light(
        node("code_job", "First", code="import helper\ny = helper.x\nreturn y"),
        node("code_job", "Then", code="open('go')\nimport helper\nreturn y + helper.x"),
    )
    path = write(base, code)
    with Session() as session:
        run = session.start(path, trust=True, view=False)
        with pytest.raises(RunError):
            run.result(30)
    files(base, {"helper.py": "open('ran.txt', 'w')\nx = 5", "go": ""})
    with Session() as session, pytest.raises(TrustError):
        session.resume(run.id, view=False)
    files(base, {"helper.py": "x = 1"})
    with Session() as session:
        assert session.resume(run.id, view=False).result(30).output == 2
    assert not (base / "ran.txt").exists()


def test_each_file_of_the_imports_is_in_the_list(base: Path) -> None:
    """And in the digest."""
    files(base, {"pkg/__init__.py": "from . import a", "pkg/a.py": "from .b import c", "pkg/b.py": "c = 1", "pkg/other.py": ""})
    path = write(base, light(node("code_job", code="import pkg")))
    found = closure(load(path), base_dir=base)
    assert set(found.files) == {"pkg/__init__.py", "pkg/a.py", "pkg/b.py"}
    assert {use.what for use in found.uses if use.kind == "brings"} == set(found.files)
    files(base, {"pkg/b.py": "c = 2"})
    assert closure(load(path), base_dir=base).digest != found.digest


@pytest.mark.skipif(node_js.node() is None, reason="not here: no Node that runs TypeScript")
def test_typescript_that_was_shown(session: Session, base: Path) -> None:
    """Its file and those that it imports run as they were; others cannot be imported."""
    contents = {
        "sub/work.ts": "import { x } from './lib/part.ts';\nexport function main() { return x; }",
        "sub/lib/part.ts": "import data from '../n.json' with { type: 'json' };\nexport const x: number = data.n;",
        "sub/n.json": '{"n": 1}',
    }
    files(base, contents)
    path = write(base, light(node("code_job", language="typescript", file_path="sub/work.ts")))
    prepared = session.runtime.prepare(path, trust=True)
    for name in contents:
        (base / name).write_text("throw new Error('this was not shown')")
    assert output(session, prepared) == 1
    files(base, contents | {"sub/work.ts": "export async function main() { return await import('./' + 'other.ts'); }"})
    files(base, {"sub/other.ts": "import { writeFileSync } from 'node:fs';\nwriteFileSync('ran.txt', 'x');"})
    with pytest.raises((NodeExecutionError, CodeError)):
        session.run(path, trust=True, view=False)
    assert not list(base.rglob("ran.txt"))


@pytest.mark.parametrize("form", ["bash", "typescript", "python"])
def test_a_file_named_absolutely_is_the_one_that_was_shown(session: Session, base: Path, form: str) -> None:
    """Paths that mean the same are the same file."""
    ending, text, bad = {
        "bash": ("sh", "echo 1", "touch ran.txt"),
        "typescript": (
            "ts",
            "export function main() { return 1 }",
            "import { writeFileSync } from 'node:fs';\nwriteFileSync('ran.txt', '')",
        ),
        "python": ("py", "result = 1", "open('ran.txt', 'w')"),
    }[form]
    if form == "typescript" and node_js.node() is None:
        pytest.skip("not here: no Node that runs TypeScript")
    for name in (f"{base}/sub/work.{ending}", f"sub/../sub/./work.{ending}"):
        files(base, {f"sub/work.{ending}": text})
        path = write(base, light(node("code_job", language=form, file_path=name)))
        prepared = session.runtime.prepare(path, trust=True)
        files(base, {f"sub/work.{ending}": bad})
        assert str(output(session, prepared)) == "1"
        assert (base / f"sub/work.{ending}").read_text() == bad
    assert not list(base.rglob("ran.txt"))
