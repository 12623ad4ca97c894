"""A folder that nobody has trusted, diagrams for it, and code whose running leaves a trace."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import reset_settings
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

MARK = "ran.txt"


def light(*nodes: dict[str, Any], persons: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A chain of these nodes as a light diagram."""
    chain = [{"label": "Start", "type": "start"}, *nodes, {"label": "End", "type": "endpoint"}]
    arrows = [{"from": a["label"], "to": b["label"]} for a, b in pairwise(chain)]
    return {"version": "light", "persons": dict(persons or {}), "nodes": chain, "connections": arrows}


def node(kind: str, label: str = "Work", **props: Any) -> dict[str, Any]:
    return {"label": label, "type": kind, "props": props}


def marking() -> str:
    """Python code whose running leaves a file."""
    return f"open({MARK!r}, 'w').write('x')\nreturn 1"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cloned folder: the base directory, which nobody has trusted."""
    folder = tmp_path / "clone"
    folder.mkdir()
    monkeypatch.delenv("DIPEO_TRUST")
    monkeypatch.setenv("DIPEO_BASE_DIR", str(folder))
    monkeypatch.chdir(folder)
    reset_settings()
    return folder


@pytest.fixture
def session(base: Path) -> Iterator[Session]:
    with Session(llm=scripted("Fine.")) as made:
        yield made


def write(folder: Path, data: Mapping[str, Any] | str, name: str = "d.light.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


KINDS: dict[str, dict[str, Any]] = {
    "python": node("code_job", code=marking()),
    "bash": node("code_job", language="bash", code=f"echo x > {MARK}"),
    "shell": node("code_job", language="shell", code=f"echo x > {MARK}"),
    "file": node("code_job", file_path="evil.py"),
    "line that names a file": node("code_job", code="evil.py"),
    "shell hook": node("hook", hook_type="shell", command=f"touch {MARK}"),
    "shell hook in config": node("hook", hook_type="shell", config={"command": f"touch {MARK}"}),
    "shell hook with args": node("hook", hook_type="shell", config={"command": "touch", "args": [MARK]}),
    "python hook": node("hook", hook_type="python", config={"script": "evil_hook.py"}),
    "preprocessor": node("template_job", template_content="x", preprocessor="evil_module.prepare"),
}
"""Code without a yes, of each kind."""


def code_files(folder: Path) -> None:
    """The files that the kinds of code name."""
    write(folder, f"open({MARK!r}, 'w').write('x')\ndef main(**kw):\n    return 1\n", "evil.py")
    write(folder, f"def hook(*a, **kw):\n    open({MARK!r}, 'w').write('x')\n    return 1\n", "evil_hook.py")
    write(folder, f"def prepare(names):\n    open({MARK!r}, 'w').write('x')\n    return {{}}\n", "evil_module.py")


def files(base: Path, contents: Mapping[str, str]) -> None:
    """Write files by their names; what they have in common of indentation is taken away."""
    for name, text in contents.items():
        write(base, textwrap.dedent(text), name)


def output(session: Session, prepared: Any) -> Any:
    """The result of a run of what was prepared; its error is raised."""
    execution = session.runtime.execution(prepared)
    run_sync(session.runtime.run(execution))
    if execution.error is not None:
        raise execution.error
    return execution.result()
