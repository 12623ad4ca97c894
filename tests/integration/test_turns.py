"""What the log tells of a turn before it is over: what was sent, that a node waits for a place, what an answer has to be, and how much of
an answer that was cut off had come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dipeo_nb.common.values import json_text
from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.ports import OfferedTool
from dipeo_nb.errors import NodeExecutionError, RunAbortedError
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.session import Session
from tests.support.waiting import wait_until

TALK = """\
version: light
name: Talk
persons:
  Ann: {service: echo, model: "1", system_prompt: You are Ann.}
nodes:
- {label: S, type: start, custom_data: {topic: cats}}
- {label: First, type: person_job, person: Ann, default_prompt: "Write about {{topic}} for {{reader}}."}
- {label: Second, type: person_job, person: Ann, default_prompt: "Shorten: {{draft}}"}
- {label: E, type: endpoint}
connections:
- {from: S, to: First}
- {from: First, to: Second, label: draft}
- {from: Second, to: E}
"""


class HeldModel:
    """Answers with three words, the last of them when `go` is set; a function of the request is called first."""

    services = ()

    def __init__(self, before: Callable[[LLMRequest], Any] | None = None, *, held: bool = False) -> None:
        self.go = not held
        self._before = before
        self.speaking = 0

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        if self._before is not None:
            await self._before(request)
        self.speaking += 1
        yield StreamEvent("text", "one ")
        yield StreamEvent("text", "two ")
        while not self.go:
            await asyncio.sleep(0.005)
        yield StreamEvent("text", "three")
        yield StreamEvent(
            "end",
            response=LLMResponse("one two three", request.service, request.model, TokenUsage(input=9, output=3), cost_usd=0.0),
        )

    async def complete(self, request: LLMRequest) -> LLMResponse:
        async for event in self.stream(request):
            if event.response is not None:
                return event.response
        raise AssertionError


def session(base: Path, model: HeldModel, **options: Any) -> Session:
    return Session(settings=Settings(base_dir=base, **options.pop("settings", {})), llm=model, **options)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Session, HeldModel]]:
    model = HeldModel(held=True)
    with session(tmp_path, model) as made:
        yield made, model


def payloads(run: Run, kind: str) -> list[Any]:
    return [e.payload for e in run.events if e.type == EventType.NODE_OUTPUT and e.payload["kind"] == kind]


def test_what_is_sent_is_known_while_the_model_works(held: tuple[Session, HeldModel]) -> None:
    """The prompt, the system prompt, and of each value of the template where it stands and where it came from."""
    made, model = held
    run = made.start(TALK, view=False, reader="children")
    wait_until(lambda: run.node("First").sent)
    sent = run.node("First").sent[""]
    assert run.status == "running"
    assert sent["prompt"] == "Write about cats for children."
    assert (sent["system"], sent["template"]) == ("You are Ann.", "Write about {{topic}} for {{reader}}.")
    found = {v["name"]: (sent["prompt"][v["start"] : v["end"]], v["origin"], v.get("node")) for v in sent["variables"]}
    assert found["topic"][:2] == ("cats", "node")
    assert found["reader"] == ("children", "input", None)
    model.go = True
    run.result()
    first, second = run.state.turns
    assert first["prompt"] == "Write about cats for children."
    assert first["system"] == second["system"] == "You are Ann."
    assert second["variables"][0]["node"] == next(i for i, label in run.state.labels.items() if label == "First")
    assert run.node("First").meta["messages"][0]["content"] == first["prompt"]


def test_nothing_of_it_is_stored_twice(held: tuple[Session, HeldModel]) -> None:
    """A system prompt stands in the first turn of its person, and a prompt where it is sent and as a message of the conversation."""
    made, model = held
    model.go = True
    run = made.start(TALK, view=False, reader="children")
    run.result()
    assert [("system" in payload["data"]) for payload in payloads(run, "prompt")] == [True, False]
    told = json_text([e.payload for e in run.events if e.type != EventType.EXECUTION_STARTED])
    assert told.count("Write about cats for children.") == 2
    assert told.count("You are Ann.") == 1


def test_a_fork_and_an_opened_run_know_it_too(held: tuple[Session, HeldModel]) -> None:
    made, model = held
    model.go = True
    run = made.start(TALK, view=False, reader="children")
    run.result()
    assert made.open_run(run.id).state == run.state
    forked = made.fork(run.id, at="Second", view=False)
    forked.result()
    assert [turn["prompt"] for turn in forked.state.turns] == [turn["prompt"] for turn in run.state.turns]


def test_secrets_are_not_in_what_is_sent(held: tuple[Session, HeldModel]) -> None:
    """A place that hiding has moved is not told."""
    made, model = held
    model.go = True
    run = made.start(TALK.replace("{{reader}}", "{{password}} {{topic}}"), view=False, password="hunter2-hunter2")
    run.result()
    first = payloads(run, "prompt")[0]
    assert "hunter2" not in json_text(first)
    assert [("start" in variable) for variable in first["data"]["variables"]] == [False, False, False]


def test_an_answer_that_was_cut_off_has_an_estimate(held: tuple[Session, HeldModel]) -> None:
    """Its pieces are counted, and are no part of what was accounted for."""
    made, model = held
    run = made.start(TALK, view=False, reader="children")
    wait_until(lambda: run.node("First").pieces == 2)
    assert run.state.estimated_tokens == 2
    run.stop()
    with pytest.raises(RunAbortedError):
        run.result()
    state = run.state
    assert (run.node("First").estimated, run.node("First").pieces, state.estimated_tokens) == (2, 0, 2)
    assert state.usage.total is None
    model.go = True
    resumed = made.resume(run.id, view=False)
    resumed.result()
    assert (resumed.state.estimated_tokens, resumed.state.usage.output) == (2, 6)


def test_a_node_that_waits_for_a_place_says_so(tmp_path: Path) -> None:
    both = TALK.replace("- {from: First, to: Second, label: draft}", "- {from: S, to: Second}\n- {from: First, to: E}")
    model = HeldModel(held=True)
    with session(tmp_path, model, settings={"execution_parallelism": 1}) as made:
        run = made.start(both, view=False, reader="x", draft="y")
        wait_until(lambda: run.node("Second").waiting_since)
        assert run.node("Second").status == "pending"
        model.go = True
        run.result()
        waits = [e for e in run.events if e.type == EventType.NODE_WAITING]
        assert [run.state.label(e.node_id or "") for e in waits] == ["Second"]
        assert run.node("Second").waiting_since is None
        assert RunState.fold(run.events) == run.state


ASK = """\
version: light
nodes:
- {label: S, type: start}
- {label: Ask, type: user_response, prompt: "Which?", KIND}
- {label: E, type: endpoint}
connections: [{from: S, to: Ask}, {from: Ask, to: E}]
"""


@pytest.mark.parametrize(
    ("props", "asked", "answers", "output"),
    [
        ("choices: [red, green]", {"kind": "choice", "choices": ["red", "green"]}, ["blue", "2"], "green"),
        ("kind: multiline", {"kind": "multiline"}, ["a\nb"], "a\nb"),
        ("kind: approval", {"kind": "approval"}, ["perhaps", "no: too early"], False),
        ("kind: approval", {"kind": "approval"}, ["approve"], True),
        ("kind: text", {}, ["red"], "red"),
    ],
)
def test_a_question_says_what_its_answer_is(tmp_path: Path, props: str, asked: Any, answers: list[str], output: Any) -> None:
    """An answer of another kind is asked for again, with the reason."""
    with session(tmp_path, HeldModel()) as made:
        run = made.start(ASK.replace("KIND", props), view=False)
        for answer in answers:
            question = wait_until(lambda: run.question)
            assert {k: question[k] for k in ("kind", "choices") if k in question} == asked
            before = question["request_id"]
            run.answer(answer)
            wait_until(lambda old=before: run.finished or (run.question or {}).get("request_id") != old)
        assert run.result().output == output


def test_a_choice_without_choices_is_an_error(tmp_path: Path) -> None:
    with session(tmp_path, HeldModel()) as made, pytest.raises(NodeExecutionError, match="no choices"):
        made.run(ASK.replace("KIND", "kind: choice"), view=False)


@pytest.mark.parametrize(
    ("answers", "called"),
    [
        (["hm", "approve"], {"to": "ann"}),
        (['{"to": "bob"}'], {"to": "bob"}),
        (["reject: not today"], None),
        (["hm", "hm", "hm"], None),
    ],
)
def test_a_call_is_approved_with_other_arguments_or_rejected(tmp_path: Path, answers: list[str], called: Any) -> None:
    """A tool that changes something for good waits for an approval, which tells what would be called with what."""
    calls: list[Any] = []
    said: list[Any] = []

    async def offered(name: str) -> list[OfferedTool]:
        schema = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
        return [OfferedTool("mail.send", "Sends.", schema, destructive=True)]

    async def execute(provider: str, operation: str, **options: Any) -> str:
        calls.append(options["config"])
        return "sent"

    async def call_tool(request: LLMRequest) -> None:
        (tool,) = request.tools
        said.append(await tool.function(to="ann"))  # type: ignore[misc]

    port = SimpleNamespace(offered=offered, execute=execute, operations=dict)
    diagram = TALK.replace('person: Ann, default_prompt: "Write', 'person: Ann, tools: [mail.send], default_prompt: "Write')
    with session(tmp_path, HeldModel(_once(call_tool)), integrations=port) as made:
        run = made.start(diagram, view=False, reader="x", trust=True)
        for answer in answers:
            question = wait_until(lambda: run.question)
            assert (question["kind"], question["tool"], question["arguments"]) == ("approval", "mail.send", {"to": "ann"})
            before = question["request_id"]
            run.answer(answer)
            wait_until(lambda old=before: run.finished or (run.question or {}).get("request_id") != old)
        run.result()
    assert calls == ([] if called is None else [called])
    assert ("not allow" in json.dumps(said)) is (called is None)


def _once(act: Callable[[LLMRequest], Any]) -> Callable[[LLMRequest], Any]:
    async def first(request: LLMRequest) -> None:
        if request.tools:
            await act(request)

    return first
