"""What runs really do is what was shown, for diagrams made at random and for each part that says or guards it
(domain/capabilities.py, diagram/closure.py, security/gate)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain import capabilities
from tests.support.effect_mutants import mutants

COUNT = int(os.environ.get("DIPEO_TEST_EFFECTS", "40"))
"""Diagrams that are made at random, each run in three ways; 5,000 take some minutes."""
NAMES = [name for name, _, _ in mutants("http://127.0.0.1:1")]
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="not here: the folder of a handle is told by /proc")


def observed(*arguments: str) -> Any:
    """What `tests.support.observed_effects` prints, run as a program."""
    command = [sys.executable, "-m", "tests.support.observed_effects", *arguments]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=60 + COUNT
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_diagrams_do_is_what_was_shown() -> None:
    """After a yes, as a guest, and with something allowed: nothing beyond the list, and of a guest nothing beyond its powers."""
    seed = os.environ.get("DIPEO_TEST_SEED", "20261128")
    result = observed("random", str(COUNT), seed)
    assert not result["problems"], "\n".join(result["problems"])
    counts, kinds = result["counts"], result["kinds"]
    assert min(counts.get(way, 0) for way in ("trusted", "guest", "allowed", "refused")) >= COUNT // 12, counts
    assert {"read", "write", "net", "process", "code", "model", "service", "function", "list"} <= kinds.keys(), kinds


@pytest.fixture(scope="module")
def outcomes() -> Any:
    return observed("mutants")


@pytest.mark.parametrize("name", NAMES)
def test_each_part_is_needed(outcomes: Any, name: str) -> None:
    """All is well with its diagrams as things are, and with none of them when the part is taken away."""
    assert outcomes[name]["intact"] == []
    assert all(outcomes[name]["mutated"]), "nobody would notice"


def test_there_is_a_mutant_of_each_part() -> None:
    """Fields with an effect, rules, and wrapped services."""
    rules = len(capabilities._BY_FIELD) + sum(map(len, capabilities._BY_TYPE.values()))
    assert len(NAMES) >= 45
    assert sum(name.startswith("rule") for name in NAMES) == rules
    assert sum(name.startswith("wrapper") for name in NAMES) == 7
