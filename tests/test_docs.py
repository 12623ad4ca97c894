"""The guides tell the truth: every diagram in them is valid, and runs where it says nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dipeo_nb as dp
from dipeo_nb.diagram import load_text
from dipeo_nb.diagram.formats import FORMATS
from dipeo_nb.domain.enums import NodeType
from dipeo_nb.errors import InvalidDiagramError

DOCS = Path(__file__).parent.parent / "docs"
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
