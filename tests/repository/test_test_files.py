"""Where test files are, and what they import: CONTRIBUTING.md, "Where tests are"."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.source_tree import PACKAGE

TESTS = Path(__file__).parents[1]
MODULES = sorted(TESTS.rglob("*.py"))
TEST_MODULES = [file for file in MODULES if file.name.startswith("test_")]
FOLDERS = {"browser", "contracts", "integration", "repository", "unit"}
IMPORT = re.compile(r"^ *((?:from|import) tests\b.*)$", re.MULTILINE)
TEST_MODULE = re.compile(r"[ .](test_\w+|conftest)\b")
SCRIPT = TESTS.parent / "scripts" / "test.sh"


def _name(file: Path) -> str:
    return file.relative_to(TESTS.parent).as_posix()


def test_nothing_is_imported_from_a_test() -> None:
    """What several test modules need is in `tests.support`. A module may import itself, in programs of other processes."""
    wrong = [
        f"{_name(file)}: {line}"
        for file in MODULES
        for line in IMPORT.findall(file.read_text(encoding="utf-8"))
        if _name(file).removesuffix(".py").replace("/", ".") not in line.split() and TEST_MODULE.search(line)
    ]
    assert not wrong


def test_files_are_in_the_folder_of_their_subject() -> None:
    """Unit tests are in the room that they test; no test is elsewhere."""
    places = [file.relative_to(TESTS).parts for file in TEST_MODULES]
    assert {parts[0] for parts in places} == FOLDERS
    rooms = {parts[1] for parts in places if parts[0] == "unit" and len(parts) > 2}
    assert rooms <= {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert {parts[-1] for parts in places if parts[0] == "unit" and len(parts) == 2} <= {
        f"test_{path.name}" for path in PACKAGE.glob("*.py")
    }


def test_folders_are_packages() -> None:
    """So modules of the same name in two of them are two."""
    assert not [folder for folder in {file.parent for file in TEST_MODULES} if not (folder / "__init__.py").exists()]


@pytest.mark.parametrize("what", ["all", "quick"])
def test_each_file_is_in_one_group(what: str) -> None:
    """`scripts/test.sh` runs every test file once; the quick ones are nowhere else."""
    groups = SCRIPT.read_text(encoding="utf-8").split("groups='")[1 if what == "quick" else 2].split("'")[0]
    found: list[str] = []
    for line in groups.splitlines():
        words = line.split()
        left_out = tuple(f"{word.removeprefix('--ignore=')}/" for word in words if word.startswith("--ignore="))
        for word in words:
            if word.startswith("tests/"):
                for path in sorted(TESTS.parent.glob(word)):
                    files = [path] if path.is_file() else path.rglob("test_*.py")
                    found += [name for name in map(_name, files) if not name.startswith(left_out)]
    expected = [
        name
        for name in map(_name, TEST_MODULES)
        if what == "all" or not name.startswith(("tests/browser/", "tests/contracts/"))
    ]
    assert sorted(found) == sorted(expected)
