"""`dipeo-nb mcp --http` under the conformance suite of the Model Context Protocol, for both of the protocol's eras."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import conformance

pytest.importorskip("mcp", reason="not here: the extra mcp")
pytestmark = [pytest.mark.slow, pytest.mark.process]
BASELINE = Path(conformance.__file__).with_suffix(".yaml")
PASSED = {"2025-11-25": 18, "2026-07-28": 26}
"""Scenarios that a revision of the protocol requires and that pass, at least."""


@pytest.mark.parametrize("revision", PASSED)
def test_the_server_passes_the_conformance_suite(revision: str, tmp_path: Path):
    """Every scenario that the revision requires passes, but those of the list of reasons, which holds none that passes."""
    base, results = tmp_path / "base", tmp_path / "results"
    base.mkdir()
    results.mkdir()
    conformance.write(base)
    with conformance.served(base) as (url, token), conformance.admitted(url, token) as proxy:
        done = conformance.suite(
            "server", "--url", proxy, "--requirements", revision, "--expected-failures", str(BASELINE), folder=results
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert len(re.findall(r"^✓ .*: [1-9]\d* passed, 0 failed", done.stdout, re.MULTILINE)) >= PASSED[revision]
