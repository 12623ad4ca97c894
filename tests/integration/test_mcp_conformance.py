"""`dipeo-nb mcp --http` and the MCP client under the conformance suite of the protocol, for both of its eras."""

from __future__ import annotations

import re
import shlex
import sys
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


@pytest.mark.parametrize(
    ("scenario", "revision"),
    [
        ("initialize", "2025-11-25"),
        ("tools_call", "2025-11-25"),
        ("elicitation-sep1034-client-defaults", "2025-11-25"),
        ("sse-retry", "2025-11-25"),
        ("tools_call", "2026-07-28"),
        ("request-metadata", "2026-07-28"),
        ("sep-2322-client-request-state", "2026-07-28"),
        ("http-standard-headers", "2026-07-28"),
        ("http-custom-headers", "2026-07-28"),
        ("http-invalid-tool-headers", "2026-07-28"),
        ("json-schema-ref-no-deref", "2026-07-28"),
        ("json-schema-2020-12-preservation", "2026-07-28"),
    ],
)
def test_the_client_passes_the_conformance_suite(scenario: str, revision: str, tmp_path: Path):
    """Every scenario for clients but those of OAuth (`test_mcp_oauth`); the tools are called by nodes of a diagram."""
    program = f"{shlex.quote(sys.executable)} -m tests.support.conformance_client"
    done = conformance.suite(
        "client", "--command", program, "--scenario", scenario, "--spec-version", revision, folder=tmp_path, timeout_s=120
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-9000:]
    assert "OVERALL: PASSED" in said
