"""What runs, checks, drawings and helps give is what the golden files say; see `tests.golden`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import compare

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
FILES = ("shapes", "runs", "drawings", "help", "findings")


def record(*arguments: object) -> None:
    """Record in a process of its own: nothing that other tests have left behind counts, nor the terminal or the time zone."""
    command = [sys.executable, "-m", "tests.golden", *map(str, arguments)]
    here = {**os.environ, "COLUMNS": "47", "TZ": "Asia/Tokyo", "FORCE_COLOR": "1", "DIPEO_DEFAULT_LLM_MODEL": "none"}
    done = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what is found now."""
    folder = tmp_path_factory.mktemp("golden")
    record("--out", folder)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_nothing_has_changed(name: str, recorded: Path) -> None:
    """Byte by byte; a difference says where, and what to do."""
    expected, found = (folder / f"{name}.txt" for folder in (GOLDEN, recorded))
    if different := compare.difference(name, expected.read_text(encoding="utf-8"), found.read_text(encoding="utf-8")):
        pytest.fail(different, pytrace=False)


def test_there_are_cases(recorded: Path) -> None:
    """Of each kind, and no golden file that nobody records."""
    assert {p.stem for p in GOLDEN.glob("*.txt")} == {p.stem for p in recorded.iterdir()} == set(FILES)
    counts = {name: len(compare.split((recorded / f"{name}.txt").read_text(encoding="utf-8"))) for name in FILES}
    assert counts == {"shapes": 53, "runs": 54, "drawings": 107, "help": 44, "findings": 166}
    assert sum(p.stat().st_size for p in GOLDEN.glob("*.txt")) < 1_500_000


def test_diagrams_of_any_folder(tmp_path: Path) -> None:
    """Their runs, findings and drawings are recorded in one file."""
    (tmp_path / "sub").mkdir()
    good = "version: light\nnodes:\n- {label: Start, type: start}\n- {label: End, type: endpoint}\nconnections:\n- {from: Start, to: End}\n"
    (tmp_path / "a.light.yaml").write_text(good)
    (tmp_path / "sub/b.light.yaml").write_text(good.replace("endpoint", "endpiont"))
    record(tmp_path, "--out", tmp_path / "found.txt")
    cases = compare.split((tmp_path / "found.txt").read_text(encoding="utf-8"))
    kinds = [f"{kind} of {name}" for kind in ("runs", "findings", "drawings") for name in ("a.light.yaml", "sub/b.light.yaml")]
    assert list(cases) == kinds
    assert any("execution_completed" in line for line in cases["runs of a.light.yaml"])
    assert any("unknown-type" in line for line in cases["findings of sub/b.light.yaml"])


TEXT = f"== one\n{'a' * 500}x{'b' * 500}\nsame\n== two\nline\n"


def test_a_difference_is_shown() -> None:
    """Case and place; long lines only where they differ; the next action."""
    shown = compare.difference("runs", TEXT, TEXT.replace("x", "yz"))
    assert shown.splitlines() == [
        "1 of 2 cases of tests/golden/runs.txt are different (- expected, + found):",
        "== one",
        f"- …{'a' * 60}x{'b' * 60}…",
        f"+ …{'a' * 60}yz{'b' * 60}…",
        compare.NEXT,
    ]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (TEXT.replace("== two\nline\n", ""), ["== two", "  is missing"]),
        (TEXT + "== three\n", ["== three", "  is new"]),
        (TEXT.replace("same\n", ""), ["== one", "- same"]),
        (TEXT.replace("line\n", "line\nmore\n"), ["== two", "+ more"]),
        (TEXT + "\n", ["== two", "+ "]),
        (TEXT.rstrip("\n"), ["The order of the cases, or the end of the file."]),
    ],
)
def test_other_differences(found: str, said: list[str]) -> None:
    """Cases and lines that are missing or new; nothing goes unnoticed."""
    assert compare.difference("runs", TEXT, TEXT) == ""
    assert compare.difference("runs", TEXT, found).splitlines()[1:-1] == said
