"""The engine with real parts: a diagram text in, events and a state out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.diagram.document import load
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.domain.enums import EventType, NodeCategory, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import NODE_SPECS, NodeMeta, NodeSpec
from dipeo_nb.errors import InvalidDiagramError, RunError, StorageError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.interaction import ScriptedPrompter
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Runtime


class Tape:
    """An LLM service that answers from a function and keeps the requests."""

    services = ()

    def __init__(self, answer: Any = None, delay: float = 0.0) -> None:
        self.answer = answer or (lambda request: f"answer of {request.context['node']} {request.context['run']}")
        self.delay = delay
        self.requests: list[LLMRequest] = []
        self.cancelled = 0

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        self.requests.append(request)
        given = self.answer(request)
        if isinstance(given, Exception):
            raise given
        text = given if isinstance(given, str) else ""
        try:
            for word in text.split(" "):
                if self.delay:
                    await asyncio.sleep(self.delay)
                yield StreamEvent("text", word + " ")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        structured = None if isinstance(given, str) else given
        usage = TokenUsage(input=10, output=2)
        response = LLMResponse(text, request.service, request.model or "m", usage, structured, cost_usd=0.001)
        yield StreamEvent("end", response=response)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        async for event in self.stream(request):
            if event.response is not None:
                return event.response
        raise AssertionError

    async def cleanup(self) -> None:
        return None


class Bench:
    """Runs diagram texts in a folder of their own and hands out everything that happened."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.store = InMemoryRunStore()
        self.llm = Tape()
        self.settings = Settings(base_dir=base)

    def runtime(self) -> Runtime:
        return Runtime(self.settings, store=self.store, llm=self.llm)

    def start(self, text: str, **options: Any) -> tuple[Runtime, Execution]:
        runtime = self.runtime()
        plan = runtime.prepare(load(text))
        return runtime, runtime.execution(plan, **options)

    def run(self, text: str, **options: Any) -> RunState:
        runtime, execution = self.start(text, **options)
        with runtime:
            run_sync(execution.run())
        self.execution = execution
        return execution.state

    def events(self) -> list[Event]:
        return run_sync(self.store.events(self.execution.run_id))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def counts(state: RunState) -> dict[str, int]:
    return {state.label(i): n.runs for i, n in state.nodes.items()}


def statuses(state: RunState) -> dict[str, str]:
    return {state.label(i): str(n.status) for i, n in state.nodes.items()}


DEBATE = """
version: light
nodes:
- {label: Start, type: start}
- {label: Topic, type: db, operation: read, file: topic.txt}
- {label: Ada, type: person_job, person: Ada, first_only_prompt: "Argue: {{topic}}", default_prompt: Reply., max_iteration: 2, memorize_to: GOLDFISH}
- {label: Bob, type: person_job, person: Bob, first_only_prompt: "Argue: {{topic}}", default_prompt: Reply., max_iteration: 3, memorize_to: GOLDFISH}
- {label: Judge, type: person_job, person: Judge, default_prompt: Judge., max_iteration: 1, memorize_to: ALL_MESSAGES}
- {label: Done, type: condition, condition_type: detect_max_iterations}
- {label: Save, type: endpoint, save_to_file: true, file_path: out/verdict.txt}
connections:
- {from: Start, to: Topic}
- {from: Topic, to: "Ada[first]", label: topic, content_type: raw_text}
- {from: Topic, to: "Bob[first]", label: topic, content_type: raw_text}
- {from: Ada, to: Bob, content_type: conversation_state}
- {from: Bob, to: Done, content_type: conversation_state}
- {from: "Done[condfalse]", to: Ada, content_type: conversation_state}
- {from: "Done[condtrue]", to: Judge, content_type: conversation_state}
- {from: Judge, to: Save, content_type: raw_text}
persons:
  Ada: {service: openai, model: m, system_prompt: You are Ada.}
  Bob: {service: openai, model: m}
  Judge: {service: openai, model: m}
"""


def test_debate_end_to_end(bench: Bench):
    """The debate: two, three and one answers, the topic in the first prompts, arguments carried by the edges, a file at
    the end."""
    (bench.base / "topic.txt").write_text("cats or dogs")
    state = bench.run(DEBATE)
    assert state.error is None
    assert state.status == Status.COMPLETED
    assert {k: v for k, v in counts(state).items() if k in ("Ada", "Bob", "Judge", "Save")} == {
        "Ada": 2, "Bob": 3, "Judge": 1, "Save": 1,
    }  # fmt: skip
    assert (bench.base / "out/verdict.txt").read_text() == "answer of Judge 1"
    assert state.outputs == {"Save": "answer of Judge 1"}
    asked = {(r.context["node"], r.context["run"]): r for r in bench.llm.requests}
    assert [m.content for m in asked["Ada", 1].messages] == ["You are Ada.", "Argue: cats or dogs"]
    second = [m.content for m in asked["Ada", 2].messages]
    assert second[-1] == "Reply."
    assert any("[Bob]: answer of Bob" in text for text in second), "Bob's words reach Ada although she forgets"
    judged = " ".join(m.content for m in asked["Judge", 1].messages)
    assert "[Ada]: answer of Ada 2" in judged
    assert "[Bob]: answer of Bob 3" in judged
    assert state.usage.input == 60
    assert state.cost_usd == pytest.approx(0.006)


def test_events_are_gap_free_and_written_first(bench: Bench):
    """seq counts 1, 2, 3 …; no subscriber sees an event that is not in the store."""
    (bench.base / "topic.txt").write_text("x")
    runtime, execution = bench.start(DEBATE)
    seen: list[int] = []

    def look(event: Event) -> None:
        stored = bench.store._runs[event.run_id] if hasattr(bench.store, "_runs") else None
        if stored is not None:
            assert len(getattr(stored, "events", stored)) >= event.seq
        seen.append(event.seq)

    runtime.services.bus.subscribe(look)
    with runtime:
        run_sync(execution.run())
        run_sync(runtime.services.bus.drain())
    events = run_sync(bench.store.events(execution.run_id))
    assert [e.seq for e in events] == list(range(1, len(events) + 1)) == seen
    assert events[0].type == EventType.EXECUTION_STARTED
    assert events[-1].type == EventType.EXECUTION_COMPLETED
    again = RunState.fold(events)
    assert statuses(again) == statuses(execution.state)
    assert again.conversation == execution.state.conversation


def test_tokens_are_events(bench: Bench):
    """Streamed text is in events of its node, which together are the answer; pieces that come at one moment are one of them."""
    bench.llm = Tape(lambda r: "one two three")
    state = bench.run(
        "version: light\nnodes:\n- {label: s, type: start}\n- {label: p, type: person_job, person: x, default_prompt: hi}\n"
        "- {label: e, type: endpoint}\nconnections:\n- {from: s, to: p}\n- {from: p, to: e}\npersons:\n  x: {service: openai, model: m}\n"
    )
    outputs = [e.payload for e in bench.events() if e.type == EventType.NODE_OUTPUT]
    pieces = [(payload["text"], payload["pieces"]) for payload in outputs if payload["kind"] == "text"]
    assert pieces == [("one two three ", 3)]
    assert next(n.text for i, n in state.nodes.items() if state.label(i) == "p") == "one two three "


def code(*lines: str) -> str:
    return "\\n".join(lines)


COUNTER = """
version: light
nodes:
- {label: start, type: start}
- {label: init, type: code_job, code: "a = 1"}
- {label: add, type: code_job, code: "a += 1\\nresult = f'Iteration {a - 1}'"}
- {label: enough, type: condition, condition_type: custom, expression: a > 5}
- {label: end, type: endpoint}
connections:
- {from: start, to: init}
- {from: init, to: add}
- {from: add, to: enough, label: a}
- {from: "enough[condfalse]", to: add}
- {from: "enough[condtrue]", to: end}
"""


def test_code_variables_survive_and_are_recorded(bench: Bench):
    """The counter of simple_iter_code: `a` lives on between code jobs, and the label `a` does not hide it."""
    state = bench.run(COUNTER)
    assert state.error is None
    assert counts(state)["add"] == 5
    recorded = [
        e.payload["meta"]["variables"]["a"] for e in bench.events() if e.payload.get("label") == "add" and "meta" in e.payload
    ]
    assert recorded == [2, 3, 4, 5, 6]
    assert state.outputs == {"end": "Iteration 5"}


def test_start_data_and_run_inputs_are_variables(bench: Bench):
    """custom_data is global in every mode; run inputs win over it."""
    state = bench.run(
        """
version: light
nodes:
- {label: s, type: start, custom_data: {name: default, city: Rome}}
- {label: c, type: code_job, code: "return f'{name} in {city}'"}
- {label: e, type: endpoint}
connections:
- {from: s, to: c}
- {from: c, to: e}
""",
        variables={"name": "Ada"},
    )
    assert state.outputs == {"e": "Ada in Rome"}


def test_a_failing_node_fails_the_run(bench: Bench):
    """An exception is a node error: the run fails with the node's name, and nothing after it runs."""
    state = bench.run(
        """
version: light
nodes:
- {label: s, type: start}
- {label: bad, type: code_job, code: "1 / 0"}
- {label: e, type: endpoint}
connections:
- {from: s, to: bad}
- {from: bad, to: e}
"""
    )
    assert state.status == Status.FAILED
    assert state.error is not None
    assert state.error["node"] == "bad"
    assert "ZeroDivisionError" in state.error["message"]
    assert statuses(state) == {"s": "completed", "bad": "failed", "e": "pending"}
    assert bench.execution.error is not None


def test_on_error_continue_takes_the_error_edge(bench: Bench):
    """With `on_error: continue` the error value leaves on the error output, and the normal path is skipped."""
    state = bench.run(
        """
version: light
nodes:
- {label: s, type: start}
- {label: bad, type: code_job, code: "1 / 0", on_error: continue}
- {label: fine, type: endpoint}
connections:
- {from: s, to: bad}
- {from: bad, to: fine}
"""
    )
    assert state.status == Status.COMPLETED
    assert state.outputs["fine"]["type"] == "CodeError"


SLEEPERS = """
version: light
nodes:
- {label: s, type: start}
- {label: a, type: person_job, person: x, default_prompt: hi}
- {label: b, type: person_job, person: x, default_prompt: hi}
- {label: e, type: endpoint}
connections:
- {from: s, to: a}
- {from: s, to: b}
- {from: a, to: e, label: a}
- {from: b, to: e, label: b}
persons:
  x: {service: openai, model: m}
"""


def test_independent_nodes_overlap_unless_told_not_to(bench: Bench):
    """Two slow nodes run at the same time; with one place only they run one after the other."""
    for parallel, expected in ((True, 2), (False, 1)):
        working, most = 0, 0

        class Counting(Tape):
            async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
                nonlocal working, most
                working += 1
                most = max(most, working)
                async for event in super().stream(request):
                    yield event
                working -= 1

        bench.llm = Counting(lambda r: "x y", delay=0.05)
        bench.settings = Settings(base_dir=bench.base, parallel_execution=parallel)
        assert bench.run(SLEEPERS).status == Status.COMPLETED
        assert most == expected


def test_stop_aborts_and_leaves_nothing_running(bench: Bench):
    """stop() from another thread: status aborted, calls cancelled, the log has an end."""
    bench.llm = Tape(lambda r: "word " * 1000, delay=0.01)
    runtime, execution = bench.start(SLEEPERS)
    with runtime:
        from dipeo_nb.common.loop import submit

        future = submit(execution.run())
        time.sleep(0.3)
        execution.stop("enough")
        execution.stop("again")
        state = future.result(5)
    assert state.status == Status.ABORTED
    assert state.error is not None
    assert "enough" in state.error["message"]
    assert bench.llm.cancelled == 2
    assert statuses(state)["a"] == "aborted"
    assert run_sync(bench.store.events(execution.run_id))[-1].type == EventType.EXECUTION_ERROR


def test_stop_before_the_start(bench: Bench):
    """A run stopped before it began is recorded as aborted."""
    runtime, execution = bench.start(SLEEPERS)
    execution.stop()
    with runtime:
        assert run_sync(execution.run()).status == Status.ABORTED


def test_run_timeout(bench: Bench):
    """A run over its limit fails with the limit's name and how to raise it."""
    bench.llm = Tape(lambda r: "word " * 1000, delay=0.01)
    state = bench.run(SLEEPERS, timeout=0.2)
    assert state.status == Status.FAILED
    assert state.error is not None
    assert state.error["type"] == "RunTimeoutError"


def test_node_timeout(bench: Bench):
    """A node over its own limit fails the run, naming the node."""
    bench.llm = Tape(lambda r: "word " * 1000, delay=0.01)
    state = bench.run(SLEEPERS.replace("{label: a, type: person_job,", "{label: a, type: person_job, timeout: 0.2,"))
    assert state.error is not None
    assert (state.error["type"], state.error["node"]) == ("NodeTimeoutError", "a")


QUESTION = """
version: light
nodes:
- {label: s, type: start}
- {label: ask, type: user_response, prompt: "Name, {{greeting}}?", timeout: 5}
- {label: e, type: endpoint}
connections:
- {from: s, to: ask}
- {from: ask, to: e}
"""


def test_given_answers(bench: Bench):
    """answers= replies without a user; the prompt is rendered."""
    state = bench.run(QUESTION, interaction=ScriptedPrompter({"ask": "Ada"}), variables={"greeting": "please"})
    assert state.outputs == {"e": "Ada"}
    [prompt] = [e for e in bench.events() if e.type == EventType.INTERACTIVE_PROMPT]
    assert prompt.payload["prompt"] == "Name, please?"


def test_nobody_to_answer(bench: Bench):
    """Without anyone to answer the run fails and names answers= and --answer."""
    state = bench.run(QUESTION, interaction=ScriptedPrompter())
    assert state.error is not None
    assert "--answer" in state.error["hint"]


def test_answer_from_outside(bench: Bench):
    """A pending question is in the state, and `answer` from another thread continues the run."""
    from dipeo_nb.common.loop import submit

    runtime, execution = bench.start(QUESTION)
    with runtime:
        future = submit(execution.run())
        for _ in range(100):
            if execution.state.pending_question:
                break
            time.sleep(0.02)
        question = execution.state.pending_question
        assert question is not None
        with pytest.raises(RunError, match="No question 'no such request' waits"):
            execution.answer("no such request", "x")
        execution.answer(question["request_id"], "Bob")
        assert future.result(5).outputs == {"e": "Bob"}


def test_default_answer_when_nobody_answers_in_time(bench: Bench):
    """After the timeout the node's default is the answer."""
    state = bench.run(QUESTION.replace("timeout: 5", "timeout: 0.1, default: nobody"))
    assert state.outputs == {"e": "nobody"}


def test_wrong_kind_of_answer(bench: Bench):
    """An answer that does not fit validation_type is refused."""
    state = bench.run(QUESTION.replace("timeout: 5", "validation_type: integer"), interaction=ScriptedPrompter({"ask": "x"}))
    assert state.error is not None
    assert "integer" in state.error["message"]


def test_endless_loop(bench: Bench):
    """A loop without end fails with the condition's name."""
    state = bench.run(COUNTER.replace("a > 5", "a < 0"), max_iterations=10)
    assert state.error is not None
    assert state.error["type"] == "MaxIterationsError"
    assert "'enough'" in state.error["message"]


def test_expression_error_fails_the_run(bench: Bench):
    """An expression that cannot be evaluated is an error, not False."""
    state = bench.run(COUNTER.replace("a > 5", "nowhere.x > 5"))
    assert state.error is not None
    assert state.error["type"] == "ExpressionError"
    assert state.error["node"] == "enough"


LLM_CONDITION = """
version: light
nodes:
- {label: s, type: start, custom_data: {text: hello}}
- {label: judge, type: condition, condition_type: llm_decision, person: x, judge_by: "Is {{text}} polite?"}
- {label: yes, type: endpoint}
- {label: no, type: endpoint}
connections:
- {from: s, to: judge}
- {from: "judge[condtrue]", to: "yes"}
- {from: "judge[condfalse]", to: "no"}
persons:
  x: {service: openai, model: m, system_prompt: Be fair.}
"""


@pytest.mark.parametrize(
    ("answer", "branch"),
    [
        ({"decision": True}, "yes"), ({"decision": "false"}, "no"), ("No, that is not correct.", "no"),
        ("**Yes**, it is", "yes"), ('{"decision": false}', "no"), ("Looks correct to me", "yes"), ("That is incorrect", "no"),
        ("It is not correct", "no"),
    ],
)  # fmt: skip
def test_llm_decision(bench: Bench, answer: Any, branch: str):
    """The decision is read from structure first, then from whole words; the system prompt is sent."""
    bench.llm = Tape(lambda r: answer)
    state = bench.run(
        LLM_CONDITION.replace('"yes"', "yes_")
        .replace('"no"', "no_")
        .replace("label: yes", "label: yes_")
        .replace("label: no", "label: no_")
    )
    assert state.error is None
    assert list(state.outputs) == [branch + "_"]
    request = bench.llm.requests[0]
    assert request.messages[0].content == "Be fair."
    assert "Is hello polite?" in request.messages[-1].content


def test_check_nodes_executed_and_index(bench: Bench):
    """check_nodes_executed takes labels; expose_index_as counts the rounds from 0."""
    state = bench.run(
        """
version: light
nodes:
- {label: s, type: start}
- {label: w, type: code_job, code: "return globals.get('round', -1)"}
- {label: c, type: condition, condition_type: custom, expression: "round >= 2", expose_index_as: round}
- {label: d, type: condition, condition_type: check_nodes_executed, node_indices: [w, c]}
- {label: e, type: endpoint}
- {label: f, type: endpoint}
connections:
- {from: s, to: w}
- {from: w, to: c}
- {from: "c[condfalse]", to: w}
- {from: "c[condtrue]", to: d}
- {from: "d[condtrue]", to: e}
- {from: "d[condfalse]", to: f}
"""
    )
    assert state.error is None
    assert state.outputs == {"e": 1}
    assert statuses(state)["f"] == "skipped"


def test_model_option_moves_every_person(bench: Bench):
    """model= changes the service of all persons and keeps their prompts."""
    (bench.base / "topic.txt").write_text("x")
    bench.run(DEBATE, model="local:tiny")
    assert {(r.service, r.model) for r in bench.llm.requests} == {("local", "tiny")}
    assert bench.llm.requests[0].messages[0].content == "You are Ada."


def test_memory_selection_by_criterion(bench: Bench):
    """A criterion in words asks the person's model, which names ids; the call is charged but not shown."""

    def answer(request: LLMRequest) -> Any:
        return {"message_ids": ["m2"]} if request.phase == "memory_selection" else f"said {request.context['run']}"

    bench.llm = Tape(answer)
    state = bench.run(
        """
version: light
nodes:
- {label: s, type: start}
- {label: p, type: person_job, person: x, default_prompt: hi, max_iteration: 2}
- {label: c, type: condition, condition_type: detect_max_iterations}
- {label: q, type: person_job, person: x, default_prompt: what?, memorize_to: the first answer}
- {label: e, type: endpoint}
connections:
- {from: s, to: p}
- {from: p, to: c}
- {from: "c[condfalse]", to: p}
- {from: "c[condtrue]", to: q}
- {from: q, to: e}
persons:
  x: {service: openai, model: m}
"""
    )
    assert state.error is None
    last = bench.llm.requests[-1]
    assert [m.content for m in last.messages] == ["said 1", "what?"]
    q = next(n for i, n in state.nodes.items() if state.label(i) == "q")
    assert q.meta["calls"] == 2
    assert q.usage.input == 20


def test_structured_answers_are_objects(bench: Bench):
    """text_format makes the answer an object that templates and edges use."""
    bench.llm = Tape(lambda r: {"city": "Rome"} if r.response_format else "plain")
    state = bench.run(
        """
version: light
nodes:
- {label: s, type: start}
- label: p
  type: person_job
  person: x
  default_prompt: where
  text_format: |
    class Response(BaseModel):
        city: str
- {label: c, type: code_job, code: "return city.upper()"}
- {label: e, type: endpoint}
connections:
- {from: s, to: p}
- {from: p, to: c, content_type: object}
- {from: c, to: e}
persons:
  x: {service: openai, model: m}
"""
    )
    assert state.outputs == {"e": "ROME"}


def test_batch_keeps_order_and_reports_failures(bench: Bench):
    """A batch answers each item in order; one failing item does not lose the others."""
    from dipeo_nb.errors import ProviderError

    bench.llm = Tape(lambda r: ProviderError("no") if "b" in r.messages[-1].content else r.messages[-1].content.upper())
    state = bench.run(
        """
version: light
nodes:
- {label: s, type: start, custom_data: {items: [a, b, c]}}
- {label: p, type: person_job, person: x, default_prompt: "{{item}}", batch: true, memorize_to: GOLDFISH}
- {label: e, type: endpoint}
connections:
- {from: s, to: p}
- {from: p, to: e, content_type: object}
persons:
  x: {service: openai, model: m}
"""
    )
    assert state.error is None
    result = state.outputs["e"]
    assert [r["output"] for r in result["results"]] == ["A", "C"]
    assert (result["total_items"], result["failed"], result["errors"][0]["index"]) == (3, 1, 1)


def test_db_writes_appends_updates(bench: Bench):
    """write, append and update change files; read gets them back in their form."""
    state = bench.run(
        """
version: light
nodes:
- {label: s, type: start}
- {label: c, type: code_job, code: "return {'a': 1}"}
- {label: w, type: db, operation: write, file: out/x.json}
- {label: u, type: db, operation: update, file: out/x.json, keys: b.c}
- {label: ap, type: db, operation: append, file: out/list.json}
- {label: r, type: db, operation: read, file: "out/x.json", keys: "b.c.a"}
- {label: e, type: endpoint}
connections:
- {from: s, to: c}
- {from: c, to: w, content_type: object}
- {from: w, to: u, label: _after}
- {from: c, to: u, label: value, content_type: object}
- {from: c, to: ap, content_type: object}
- {from: u, to: r}
- {from: r, to: e, content_type: object}
"""
    )
    assert state.error is None
    import json

    assert json.loads((bench.base / "out/x.json").read_text()) == {"a": 1, "b": {"c": {"a": 1}}}
    assert json.loads((bench.base / "out/list.json").read_text()) == [{"a": 1}]
    assert state.outputs == {"e": 1}


def test_a_file_is_a_value_and_a_text(bench: Bench):
    """A CSV file arrives as its text on a plain edge, and as rows on an edge of objects."""
    (bench.base / "x.csv").write_text("n,t\n1,a\n2,b\n")
    state = bench.run(
        """
version: light
nodes:
- {label: s, type: start}
- {label: r, type: db, operation: read, file: x.csv}
- {label: text, type: code_job, code: "import csv, io\\nreturn [row['t'] for row in csv.DictReader(io.StringIO(rows))]"}
- {label: rows, type: code_job, code: "return [row['n'] for row in rows]"}
- {label: e, type: endpoint}
- {label: f, type: endpoint}
connections:
- {from: s, to: r}
- {from: r, to: text, label: rows}
- {from: r, to: rows, label: rows, content_type: object}
- {from: text, to: e, content_type: object}
- {from: rows, to: f, content_type: object}
"""
    )
    assert state.error is None
    assert state.outputs == {"e": ["a", "b"], "f": ["1", "2"]}


def test_missing_file_is_an_error_with_the_next_action(bench: Bench):
    """A file to read that is not there fails the node and says what to do."""
    state = bench.run(DEBATE)
    assert state.error is not None
    assert state.error["node"] == "Topic"
    assert "topic.txt" in state.error["message"] + state.error["hint"]


def test_files_cannot_leave_the_base_directory(bench: Bench):
    """`../` in a path is refused before anything is written."""
    state = bench.run(DEBATE.replace("file: topic.txt", "file: ../../etc/passwd"))
    assert state.status == Status.FAILED
    assert not (bench.base / "out").exists()


def test_a_store_that_fails_stops_the_run(bench: Bench):
    """When events cannot be written the run stops with that error instead of going on unrecorded."""

    class Full(InMemoryRunStore):
        async def append(self, events: Sequence[Event]) -> None:
            if events[0].seq > 1:
                raise StorageError("No space left on the disk.", operation="append")
            await super().append(events)

    bench.store = Full()
    with pytest.raises(StorageError):
        bench.run(SLEEPERS)


def test_unrunnable_nodes_are_refused_before_anything_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """A node type that is only known by its fields is a diagnostic, not a failure in the middle."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Drawn(NodeSpec):
        META = NodeMeta("drawn_only", NodeCategory.UTILITY, "Nothing")

    monkeypatch.setitem(NODE_SPECS, "drawn_only", Drawn)
    with pytest.raises(InvalidDiagramError, match="do not run yet"):
        bench.run(
            "version: light\nnodes:\n- {label: s, type: start}\n- {label: h, type: drawn_only}\n"
            "connections:\n- {from: s, to: h}\n"
        )


def test_two_runs_in_one_process_never_meet(bench: Bench):
    """Variables and code of concurrent runs are their own."""

    async def both() -> list[RunState]:
        runtime = bench.runtime()
        await runtime.initialize()
        plan = runtime.prepare(load(COUNTER))
        executions = [runtime.execution(plan) for _ in range(5)]
        states = await asyncio.gather(*(e.run() for e in executions))
        await runtime.cleanup()
        return states

    assert [counts(s)["add"] for s in run_sync(both())] == [5] * 5
