"""The guides tell the truth: every diagram in them is valid, and runs where it says nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import dipeo_nb as dp
from dipeo_nb.diagram import load_text
from dipeo_nb.diagram.formats import FORMATS
from dipeo_nb.domain import llm_providers
from dipeo_nb.domain.enums import NodeType
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import InvalidDiagramError
from dipeo_nb.testing import contracts

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "light-format.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
HARMLESS = {"unknown-name", "unreachable"}
"""Findings that depend on what a run is given."""


@pytest.mark.parametrize("text", BLOCKS, ids=[str(GUIDE[: GUIDE.index(b)].count("\n") + 1) for b in BLOCKS])
def test_every_diagram_is_valid(text: str, tmp_path: Path) -> None:
    """No errors, no warnings but about names the run is to give; it can run unless it says that it cannot."""
    diagram = load_text(text, format="light", base_dir=tmp_path)
    assert [str(d) for d in diagram.check() if d.code not in HARMLESS] == []
    (tmp_path / "haiku.light.yaml").write_text(BLOCKS[0])
    session = dp.Session(base_dir=tmp_path)
    if text.startswith("# not runnable here"):
        with pytest.raises(InvalidDiagramError, match=r"needs? the service"):
            session.run(diagram, view=False)
    else:
        assert not [d for d in session.runtime.compile(diagram).diagnostics if d.severity != "warning"]


def test_every_type_has_a_section_and_an_example() -> None:
    """All sixteen, each used in some diagram of the guide."""
    assert {node.type for text in BLOCKS for node in load_text(text).nodes} == set(NodeType)
    assert {t for t in NodeType if f"\n## {t}\n" in GUIDE} == set(NodeType)


def test_every_format_is_named() -> None:
    """The table has each format with its suffix."""
    for name, form in FORMATS.items():
        assert f"| {name} | `{form.suffix}` |" in GUIDE


def test_commands_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The first diagram runs as the page says."""
    from dipeo_nb import cli

    monkeypatch.chdir(tmp_path)
    Path("haiku.light.yaml").write_text(BLOCKS[0])
    for command in (["validate", "haiku"], ["render", "haiku.light.yaml", "-o", "haiku.svg"]):
        assert cli.main(command) == 0
    capsys.readouterr()
    assert cli.main(["run", "haiku", "--input", "topic=rain", "--model", "echo"]) == 0
    assert "A haiku about rain." in capsys.readouterr().out


EXTENDING = (DOCS / "extending.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", EXTENDING, re.DOTALL | re.MULTILINE)


@pytest.fixture
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Providers that a program registers are gone afterwards."""
    monkeypatch.setattr(llm_providers, "_REGISTERED", dict(llm_providers._REGISTERED))


@pytest.mark.parametrize("text", PROGRAMS, ids=[str(EXTENDING[: EXTENDING.index(b)].count("\n") + 1) for b in PROGRAMS])
def test_programs_about_extending_run(text: str, tmp_path: Path, nothing_registered: None) -> None:
    """Each by itself, as it stands; all of them check what they say."""
    exec(compile(text, "extending.md", "exec"), {"__name__": "extending"})


def test_extending_names_every_service_and_contract() -> None:
    """The lists of the page are those of the package."""
    section = EXTENDING.partition("## Stores")[2].partition("\n## ")[0]
    services = {field.name for field in fields(Services)} - {"code"}
    assert {name for name in services if f"`{name}`" not in section} == set()
    contracts_named = set(re.findall(r"`(\w+Contract)`", section))
    assert contracts_named == {name for name in vars(contracts) if name.endswith("Contract") and name != "Contract"}
