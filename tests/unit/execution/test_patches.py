"""Patches: what diff and git write is applied as GNU patch would."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.execution.patches import Applied, apply, parse, rejects
from tests.support.diffs import NEW, OLD, unified


def applied(text: str, diff: str, form: str = "unified", *, reverse: bool = False, **options: bool | int) -> Applied:
    (patch,) = parse(diff, text, form=form, reverse=reverse)
    return apply(text, patch, **options)  # type: ignore[arg-type]


lines = st.lists(st.sampled_from(["a", "b", "c", "", "  d", "-e", "+f", "@@ g"]), max_size=25)


@given(lines, lines, st.booleans(), st.booleans(), st.integers(0, 3))
def test_there_and_back(old: list[str], new: list[str], old_end: bool, new_end: bool, context: int):
    """Applying a diff gives the new text, its reverse the old one; also without a line end at the end."""
    before = "\n".join(old) + ("\n" if old_end and old else "")
    after = "\n".join(new) + ("\n" if new_end and new else "")
    diff = unified(before, after, context)
    if not diff:
        return
    assert applied(before, diff).text == after
    assert applied(after, diff, reverse=True).text == before


@pytest.mark.parametrize(("option", "form"), [("-u", "unified"), ("-c", "context"), ("-e", "ed"), ("--normal", "normal")])
@pytest.mark.parametrize(("old", "new"), [(OLD, NEW), (NEW, OLD), (OLD, ""), ("", OLD), (OLD, "first\n" + OLD + "last\n")])
def test_what_diff_writes(tmp_path: Path, option: str, form: str, old: str, new: str):
    """Unified, context, ed and normal."""
    if shutil.which("diff") is None:
        pytest.skip("not here: this system has no diff")
    (tmp_path / "old").write_text(old)
    (tmp_path / "new").write_text(new)
    command = ["diff", option, "old", "new"]
    diff = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout
    assert applied(old, diff, form).text == new
    if form != "ed":
        assert applied(new, diff, form, reverse=True).text == old


def test_git(tmp_path: Path):
    """What git diff writes, several files in one diff."""
    diff = "".join(
        f"diff --git a/{n} b/{n}\nindex 83db48f..bf269f4 100644\n" + unified(OLD, NEW).replace("/x", f"/{n}") for n in "pq"
    )
    patches = parse(diff, form="git")
    assert [p.path.removeprefix("b/") for p in patches] == ["p", "q"]
    assert apply(OLD, patches[1]).text == NEW


def test_moved_and_changed_surroundings():
    """A hunk is found where it has moved to; with fuzz also when the outer context has changed, without it not."""
    diff = unified(OLD, NEW)
    assert applied("new\n" * 7 + OLD, diff).text == "new\n" * 7 + NEW
    changed = OLD.replace("line 2\n", "line two\n")
    assert applied(changed, diff, fuzz=2).text == NEW.replace("line 2\n", "line two\n")
    assert applied(changed, diff, fuzz=0).rejected == (1,)
    result = applied(changed, diff, fuzz=1)
    assert [fuzz for _, _, fuzz in result.placed] == [1, 0, 0][: len(result.placed)]


def test_nothing_or_all():
    """One hunk that does not fit leaves the text as it is; force applies the others and the rest is a reject file."""
    diff = unified(OLD, NEW)
    broken = OLD.replace("line 5\n", "LINE 5\n")
    assert applied(broken, diff) == Applied(broken, (), (1,))
    forced = applied(broken, diff, force=True)
    assert forced.text == NEW.replace("line five\n", "LINE 5\n")
    (patch,) = parse(diff)
    (again,) = parse(rejects(patch, forced.rejected))
    assert apply(OLD, again).text == OLD.replace("line 5\n", "line five\n")


def test_line_ends_and_blanks():
    """CRLF stays CRLF, also in added lines; blanks can be ignored, and those of the text stay."""
    diff = unified(OLD, NEW)
    assert applied(OLD.replace("\n", "\r\n"), diff).text == NEW.replace("\n", "\r\n")
    spaced = OLD.replace("line 4", "line   4  ")
    assert applied(spaced, diff, fuzz=0).rejected == (1,)
    assert applied(spaced, diff, fuzz=0, ignore_whitespace=True).text == NEW.replace("line 4", "line   4  ")


def test_applied_twice():
    """A patch that is in already does not fit again."""
    assert applied(NEW, unified(OLD, NEW)).rejected


@pytest.mark.parametrize(
    "diff",
    ["", "hello", "@@ -1,3 +1,3 @@\n", unified(OLD, NEW).replace("-line 5\n", "")],
    ids=["empty", "no diff", "head only", "cut"],
)
def test_no_diff(diff: str):
    """What is none, or has lost lines, is refused before anything is applied."""
    with pytest.raises(ValueError, match=r"\w"):
        parse(diff)
