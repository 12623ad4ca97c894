"""Points of the code at which tests can act (common/injection.py)."""

from __future__ import annotations

import ast

import pytest

from dipeo_nb.common import injection
from tests.support.source_tree import FILES, nodes


def test_a_hook_is_called_with_each_point(monkeypatch: pytest.MonkeyPatch):
    """Without one, nothing happens; what it raises is raised where the point is."""
    injection.reach("run.stored")
    reached: list[str] = []
    monkeypatch.setattr(injection, "hook", reached.append)
    injection.reach("run.stored")
    injection.reach("run.claim")
    assert reached == ["run.stored", "run.claim"]

    def refuse(point: str) -> None:
        raise OSError(point)

    monkeypatch.setattr(injection, "hook", refuse)
    with pytest.raises(OSError, match=r"store\.append"):
        injection.reach("store.append")


def test_no_hook_is_installed_in_production():
    """Only tests and `dipeo_nb.testing` install one."""
    setting = [
        file
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node) == "injection.hook"
    ]
    assert [file.parent.name for file in setting] == ["testing"]


def test_the_table_has_the_points_of_the_code():
    """Each is reached somewhere, and each that is reached is described; `question` is that of the contract itself."""
    reached = {
        ast.literal_eval(node.args[0])
        for file in FILES
        for node in nodes(file)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "injection.reach"
    }
    assert reached == {*injection.POINTS, "question"}
