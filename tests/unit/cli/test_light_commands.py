"""What the short commands, and reading a diagram, import: a command that imports the engine takes twice as long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HELLO = """version: light
nodes:
- {label: Start, type: start}
- {label: Hello, type: template_job, template_content: "Hello {{name}}!"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Hello}
- {from: Hello, to: End}
"""
NEVER = "openai anthropic google.genai ollama xllamacpp IPython ipywidgets jsonschema resvg_py dipeo_nb.notebook.session"
COMMANDS: dict[str, tuple[str, str]] = {
    "--help": ("main(['--help'])", "pydantic rich.live dipeo_nb.config dipeo_nb.domain.ports dipeo_nb.container"),
    "runs": (
        "main(['runs'])",
        "pydantic jinja2 yaml dipeo_nb.diagram.document dipeo_nb.execution.engine dipeo_nb.llm.service dipeo_nb.runtime.runtime",
    ),
    "keys list": (
        "main(['keys', 'list'])",
        "pydantic jinja2 dipeo_nb.diagram.document dipeo_nb.execution.engine dipeo_nb.llm.service dipeo_nb.container",
    ),
    "validate": (
        "main(['validate', 'hello.light.yaml'])",
        "pydantic sqlite3 dipeo_nb.execution.engine dipeo_nb.llm.service dipeo_nb.runtime.runtime dipeo_nb.security dipeo_nb.storage",
    ),
    "dp.load": (
        "dp.load('hello.light.yaml')",
        "pydantic asyncio jinja2 sqlite3 dipeo_nb.execution dipeo_nb.llm dipeo_nb.container dipeo_nb.runtime",
    ),
}
"""What is done → how, and what is not imported for it."""


def test_table() -> None:
    assert len(COMMANDS) == 5


@pytest.mark.parametrize("what", COMMANDS)
def test_a_short_command_imports_no_more_than_it_uses(tmp_path: Path, what: str) -> None:
    code, unused = COMMANDS[what]
    (tmp_path / "hello.light.yaml").write_text(HELLO)
    program = (
        "import sys, dipeo_nb as dp\nfrom dipeo_nb.cli import main\n" if what != "dp.load" else "import sys, dipeo_nb as dp\n"
    ) + f"{code}\nprint(sorted(set(sys.argv[1].split()) & set(sys.modules)))\n"
    done = subprocess.run(
        [sys.executable, "-c", program, f"{NEVER} {unused}"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "DIPEO_KEYS_STORE"},  # a choice, which is checked
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
