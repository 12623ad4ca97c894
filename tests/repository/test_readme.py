"""The README tells the truth: its example runs, its commands and variables exist."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

from dipeo_nb.cli.group import COMMANDS, loaded
from dipeo_nb.dipeo_words import FORMAT_FLAGS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "SECURITY.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.model
def test_the_ten_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The Python block runs as it stands, on the embedded model."""
    monkeypatch.chdir(tmp_path)  # it writes run.html
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    program = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(program, names)
    if inspect.iscoroutine(made):
        asyncio.run(made)
    assert names["result"].outputs["Headline"] in capsys.readouterr().out  # type: ignore[attr-defined]
    assert names["run"].status == "completed"  # type: ignore[attr-defined]


def test_commands_are_those_that_exist() -> None:
    """The table of commands and the program have the same ones."""
    told = set(re.findall(r"^\| `dipeo-nb ([a-z]+)", README, re.MULTILINE))
    assert told == COMMANDS.keys()


def test_variables_are_those_that_are_read() -> None:
    """Every variable in the table of settings is one that a field of Settings names."""
    table = (ROOT / "docs/settings.md").read_text(encoding="utf-8").partition("## Variables")[2].partition("\n## ")[0]
    told = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", table))
    config = (ROOT / "dipeo_nb/config/settings.py").read_text(encoding="utf-8")
    assert {name for name in told if f'"{name}"' not in config} == set()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """Files that the README and the pages of docs/ name are there, pictures included."""
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    assert "<script" not in (ROOT / "notebooks/images/debate.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_commands_that_are_shown_exist(name: str) -> None:
    """So do their options, in every page's blocks and tables."""
    shown = re.findall(r"dipeo-nb( [a-z](?:(?!  |dipeo-nb)[^`\n#])*)", (ROOT / name).read_text(encoding="utf-8"))
    for words in (line.replace("\\|", " ").split() for line in shown):
        if words[0] not in COMMANDS:
            assert name == "docs/from-dipeo.md" or words[0] in NOT_COMMANDS, words
            continue
        command = loaded(words[0])
        if len(words) > 1 and words[1] in getattr(command, "commands", {}):
            command = command.commands[words[1]]
        known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {
            "--help",
            "--debug",
            *FORMAT_FLAGS,
        }
        options = {option.partition("=")[0] for option in words if re.match(r"--?[a-z]", option)}
        assert options <= known, (name, words)


NOT_COMMANDS = {"by", "on"}
"""Words that follow the name of the program in a sentence."""
