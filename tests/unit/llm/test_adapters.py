"""What the library asks of models: yes or no, what to remember; and how a phase shapes a request."""

from __future__ import annotations

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, Message
from dipeo_nb.domain.enums import ExecutionPhase, MessageType
from dipeo_nb.llm import phases
from dipeo_nb.llm.adapters import DecisionAdapter, MemorySelectionAdapter
from dipeo_nb.testing import ScriptedClient
from tests.support.wire_openai import request, run

TEMPLATE = LLMRequest("openai", "gpt-5-nano", ())


def test_the_decision_adapter_asks_and_decides():
    """The question and the content are told apart."""
    llm = ScriptedClient(['{"decision": false}'])
    assert run(DecisionAdapter(llm, TEMPLATE).decide("Is it good?", "bad text")) is False
    asked = llm.requests[0]
    assert asked.phase is ExecutionPhase.DECISION_EVALUATION
    assert "Is it good?" in asked.messages[0].content
    assert "--- Content to evaluate ---\nbad text" in asked.messages[0].content


def log(count: int = 200) -> list[Message]:
    return [
        Message(
            f"m{n}",
            "system" if n % 2 else f"p{n % 3}",
            f"p{n % 3}" if n % 2 else "system",
            f"message number {n} about topic {n % 7} {'x' * (n % 11)} {n * n}",
            MessageType.SYSTEM_TO_PERSON,
            1000.0 + n,
        )
        for n in range(count)
    ]


def select(llm: ScriptedClient, **more: object) -> list[str]:
    adapter = MemorySelectionAdapter(llm, TEMPLATE)
    options = {"criterion": "about topic 3", "now": 1300.0, **more}
    return [m.id for m in run(adapter.select(log(), **options))]  # type: ignore[arg-type]


def test_selection_keeps_its_limit_and_order():
    """Two hundred messages, five wanted, nine answered: five come, in the order of the log, always the same."""
    ids = ["m150", "m73", "m80", "m87", "m94", "m101", "m108", "m115", "nonsense"]
    answer = [{"message_ids": ids}]
    assert select(ScriptedClient(answer), at_most=5) == ["m73", "m80", "m87", "m94", "m150"]
    llm = ScriptedClient(answer)
    assert select(llm, at_most=5) == select(ScriptedClient(answer), at_most=5)
    prompt = llm.requests[0].messages[0].content
    assert prompt.count("\n- m") <= 150
    assert "Select at most 5." in prompt


def test_selection_without_need_asks_nobody():
    """GOLDFISH, a limit of zero and an empty log choose nothing and cost nothing; ignored persons are not offered."""
    llm = ScriptedClient([{"message_ids": []}])
    assert select(llm, criterion="goldfish") == select(llm, at_most=0) == []
    assert llm.requests == []
    select(llm, ignore=["p1", "p2"], names={"p0": "Zoe"})
    assert "(Zoe)" in llm.requests[0].messages[0].content
    assert "- m199 (" not in llm.requests[0].messages[0].content


# Phases.


def test_a_phase_shapes_the_request():
    """Selecting and deciding have a prompt, a schema, a limit and a temperature of their own, where the request says nothing."""
    for phase, field in (
        (ExecutionPhase.MEMORY_SELECTION, "message_ids"),
        (ExecutionPhase.DECISION_EVALUATION, "decision"),
    ):
        shaped = phases.apply_phase(request("x", service="openai", model="gpt-4o", phase=phase))
        assert shaped.messages[0] == ChatMessage("system", phases.PHASES[phase].prompt)
        assert shaped.response_format["required"] == [field]
        assert (shaped.max_tokens, shaped.temperature) == (4096, 0.0)
        own = phases.apply_phase(request("x", service="openai", model="gpt-4o", phase=phase, max_tokens=9, temperature=1.0))
        assert (own.max_tokens, own.temperature) == (9, 1.0)
        assert phases.apply_phase(request("x", service="openai", model="gpt-5-nano", phase=phase)).temperature is None


def test_direct_execution_is_left_as_it_is():
    """The other phases add nothing."""
    for phase in (ExecutionPhase.DEFAULT, ExecutionPhase.DIRECT_EXECUTION):
        asked = request("x", phase=phase)
        assert phases.apply_phase(asked) == asked


def test_a_custom_prompt_replaces_the_phases():
    """claude-code-custom speaks with the prompt it is given, and with the phase's where it is given none."""
    given = (ChatMessage("system", "Be a pirate."), ChatMessage("user", "x"))
    asked = LLMRequest("claude-code-custom", "", given, phase=ExecutionPhase.DECISION_EVALUATION)
    assert phases.apply_phase(asked).messages == given
    bare = LLMRequest("claude-code-custom", "", given[1:], phase=ExecutionPhase.DECISION_EVALUATION)
    assert phases.apply_phase(bare).messages[0].role == "system"
