"""Points of the code at which tests can act (common/injection.py)."""

from __future__ import annotations

import pytest

from dipeo_nb.common import injection


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
