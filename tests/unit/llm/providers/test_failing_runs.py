"""Runs over a server whose every answer is malformed: its circuit opens, the fallback answers, and the record says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.chat import Budget
from dipeo_nb.domain.events import EventType
from dipeo_nb.errors import BudgetExceededError, ProviderError
from dipeo_nb.llm.limits import FAILURES
from dipeo_nb.notebook.session import Session
from tests.support.loopback_providers import WIRES, Wire, settings_for
from tests.support.row_diagrams import asking, diagram
from tests.support.wire_openai import ScriptedServer

NODES = FAILURES + 3
REPORTED = {"openai": 0, "anthropic": 20, "gemini": 30, "ollama": 0}
"""Tokens that a server reports before its answer is malformed: of the prompt, without those of its cache."""


def chain(wire: Wire) -> dict[str, Any]:
    nodes = [{**asking(f"Word {n}"), "label": f"Ask {n}"} for n in range(NODES)]
    return {**diagram(*nodes), "persons": {"P": {"service": wire.service, "model": wire.model}}}


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.service)
def test_malformed_answers_in_a_row(wire: Wire, tmp_path: Path):
    """The server is asked until its circuit opens, and no more; every answer comes from the fallback; what was paid is counted."""
    with ScriptedServer(*wire.script(wire.malformed)) as server:
        settings = settings_for(server, base_dir=tmp_path, llm_max_retries=0, llm_fallbacks="echo")
        with Session(settings=settings) as session:
            alone = session.run({**chain(wire), "persons": {"P": {"service": "echo", "model": "echo"}}}).usage
            result = session.run(chain(wire))
        assert len(wire.asked(server)) == FAILURES
    assert result.status == "completed"
    assert str(result.output).endswith(f"Word {NODES - 1}")
    assert (result.usage.input or 0) - (alone.input or 0) == FAILURES * REPORTED[wire.service]
    assert result.cost is None or wire.service == "ollama"  # what they took in full is not known
    logs = [e.payload for e in result.events if e.type == EventType.EXECUTION_LOG]
    warnings = [log["message"] for log in logs if log["level"] == "WARNING" and log["extra_fields"].get("fallback") == "echo"]
    assert len(warnings) == NODES
    assert all(wire.service in words and "sent" in words for words in warnings[:FAILURES])
    assert all(f"failed {FAILURES} times in a row and is left alone" in words for words in warnings[FAILURES:])


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.service)
def test_without_a_fallback_the_run_fails_and_a_budget_counts(wire: Wire, tmp_path: Path):
    """The error is the server's; of a run with a budget of calls, each malformed answer is one."""
    with (
        ScriptedServer(*wire.script(wire.malformed)) as server,
        Session(settings=settings_for(server, base_dir=tmp_path, llm_max_retries=1)) as session,
    ):
        with pytest.raises(ProviderError, match=f"{wire.service} sent"):
            session.run(chain(wire))
        assert len(wire.asked(server)) == 2
        budget = Budget(calls=1)
        with pytest.raises(BudgetExceededError):
            session.run(chain(wire), budget=budget)
        assert budget.used_calls == 1
        assert len(wire.asked(server)) == 3
