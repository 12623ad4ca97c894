"""diff_patch: a file, a patch, and what is left when it does not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import DipeoError, NodeExecutionError, StorageError
from tests.support.diffs import NEW, OLD, unified
from tests.support.single_node import run_node

KIND = "diff_patch"
DIFF = unified(OLD, NEW)


def patch(base: Path, inputs: dict[str, Any] | None = None, **props: Any) -> Any:
    return run_node(base, KIND, {"target_path": "src/x.txt", **props}, inputs)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x.txt").write_text(OLD)
    return tmp_path / "src/x.txt"


def test_it_is_applied(tmp_path: Path, target: Path):
    """The file is new, its backup is old, and the output says what was done."""
    out = patch(tmp_path, diff=DIFF).output
    assert target.read_text() == NEW
    assert (tmp_path / out["backup_path"]).read_text() == OLD
    assert out == {
        "status": "success", "target_path": "src/x.txt", "applied_hunks": 2, "rejected_hunks": 0, "dry_run": False,
        "errors": [], "backup_path": out["backup_path"], "file_hash": hashlib.sha256(NEW.encode()).hexdigest(),
    }  # fmt: skip


def test_the_diff_comes_over_an_arrow(tmp_path: Path, target: Path):
    """As `diff`, without a backup."""
    out = patch(tmp_path, {"diff": DIFF}, backup=False).output
    assert (target.read_text(), out["backup_path"]) == (NEW, None)
    assert [p.name for p in target.parent.iterdir()] == ["x.txt"]


def test_modes(tmp_path: Path, target: Path):
    """dry_run writes nothing; reverse takes a patch back; force applies what fits and writes the rest to the reject file."""
    assert patch(tmp_path, diff=DIFF, apply_mode="dry_run").output["status"] == "dry_run"
    assert target.read_text() == OLD
    target.write_text(NEW)
    patch(tmp_path, diff=DIFF, apply_mode="reverse")
    assert target.read_text() == OLD
    target.write_text(OLD.replace("line 5\n", "LINE 5\n"))
    out = patch(tmp_path, diff=DIFF, apply_mode="force", reject_file="src/x.rej", backup_dir="old").output
    assert (out["status"], out["applied_hunks"], out["rejected_hunks"]) == ("partial", 1, 1)
    assert out["backup_path"].startswith("old/")
    assert "+line five" in (tmp_path / "src/x.rej").read_text()
    assert "line 15a" in target.read_text()


def test_missing_files_and_several(tmp_path: Path, target: Path):
    """create_missing begins with an empty file; of a diff of several files the target's part is taken."""
    run_node(tmp_path, KIND, {"target_path": "new.txt", "diff": unified("", "a\nb\n"), "create_missing": True})
    assert (tmp_path / "new.txt").read_text() == "a\nb\n"
    both = unified(OLD, "other\n").replace("/x", "/src/y.txt") + DIFF.replace("/x", "/src/x.txt")
    patch(tmp_path, diff=both)
    assert target.read_text() == NEW


@pytest.mark.parametrize(
    ("props", "kind", "words"),
    [
        ({"diff": ""}, NodeExecutionError, "has no diff"),
        ({"diff": "nonsense"}, NodeExecutionError, "cannot be read as unified"),
        ({"diff": DIFF, "format": "ed"}, NodeExecutionError, "cannot be read as ed"),
        ({"diff": DIFF.replace("-line 5\n", "")}, NodeExecutionError, "is none of a hunk"),
        ({"diff": DIFF.replace("line 5\n", "line X\n")}, NodeExecutionError, "Hunk 1 does not fit"),
        ({"diff": DIFF + DIFF.replace("/x", "/y")}, NodeExecutionError, "not for 'src/x.txt'"),
        ({"diff": DIFF, "target_path": "none.txt"}, StorageError, "no file 'none.txt'"),
        ({"diff": DIFF, "target_path": "../x.txt"}, StorageError, "../x.txt"),
        ({"diff": DIFF, "target_path": "/etc/hostname"}, StorageError, "/etc/hostname"),
        ({"diff": DIFF, "backup_dir": "../out"}, StorageError, "../out"),
        ({"diff": DIFF, "target_path": "binary"}, NodeExecutionError, "not UTF-8 text"),
    ],
)
def test_bad_input(tmp_path: Path, target: Path, props: dict[str, Any], kind: type[DipeoError], words: str):
    """One error that says what to do; the file is as it was."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(kind) as caught:
        patch(tmp_path, **props)
    assert words in str(caught.value)
    assert caught.value.hint
    assert target.read_text() == OLD
