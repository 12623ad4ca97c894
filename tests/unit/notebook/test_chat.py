"""Asking models from a notebook or a script: `dp.chat`, `dp.llm`, conversations, batches, and what a cell shows of them."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import nbclient
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from pydantic import BaseModel

import dipeo_nb as dp
from dipeo_nb.common.loop import run_on_loop, run_sync
from dipeo_nb.config import reset_settings
from dipeo_nb.domain.chat import LLMResponse, StreamEvent, ToolCall
from dipeo_nb.errors import (
    APIKeyNotFoundError,
    BudgetExceededError,
    ConfigurationError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
    ValidationError,
)
from dipeo_nb.llm.catalogue import named
from dipeo_nb.notebook import answer as look
from dipeo_nb.notebook.answer import Answer, of_response
from dipeo_nb.notebook.answer_display import FACE_S
from dipeo_nb.notebook.chat_feed import ChatFeed
from dipeo_nb.notebook.facade import default_session
from dipeo_nb.notebook.session import Session
from dipeo_nb.notebook.streaming_answer import StreamingAnswer
from dipeo_nb.testing import FailingClient, SlowClient, scripted
from tests.support.scripted_kernel import ScriptedEvents, Shown, end, own_shell
from tests.support.waiting import wait_until
from tests.support.wire_openai import ScriptedServer, final, says

text = lambda piece: StreamEvent("text", piece)  # noqa: E731


class Verdict(BaseModel):
    winner: str
    points: int


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    with own_shell(kernel=True) as opened:
        yield opened


def sent(shell: InteractiveShell) -> list[Shown]:
    return shell.display_pub.sent  # type: ignore[attr-defined]


def interrupt_when(ready: Callable[[], object]) -> None:
    """Ctrl-C, from outside, as soon as something is so."""

    def work() -> None:
        wait_until(ready)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=work).start()


# One call.


def test_an_answer_is_a_response_with_more():
    """`dp.chat` gives the text, usage, cost and time; it is an LLMResponse, and `str` of it is the text."""
    answer = dp.chat("Hello there", model="echo")
    assert isinstance(answer, LLMResponse)
    assert str(answer) == answer.text == "[echo] Hello there"
    assert (answer.provider, answer.cost_usd, answer.usage.total, answer.cached) == ("echo", 0.0, 5, False)
    assert answer.seconds is not None
    assert not answer.stopped
    assert repr(answer).startswith("Answer('[echo] Hello there', echo:echo · 5 tokens · no cost · ")


def test_options_reach_the_request():
    """System prompt, temperature, limits, fallbacks, schema and budget are in the request that the service gets."""
    service, budget = scripted({"*": [{"winner": "Ada", "points": 3}]}), dp.Budget(calls=5)
    with Session(llm=service) as session:
        answer = session.chat(
            "Who?",
            model="anthropic:claude-x",
            system="Be brief.",
            temperature=0.5,
            max_tokens=9,
            response_format=Verdict,
            budget=budget,
            fallbacks="local",
        )
    (request,) = service.requests
    assert answer.structured == Verdict(winner="Ada", points=3)
    assert (request.service, request.model, request.temperature, request.max_tokens) == (
        "anthropic",
        "claude-x",
        0.5,
        9,
    )
    assert [(m.role, m.content) for m in request.messages] == [("system", "Be brief."), ("user", "Who?")]
    assert (request.fallbacks, request.budget, request.response_format) == (("local",), budget, Verdict)


def test_the_default_model_is_that_of_the_settings():
    """Without `model` the settings' default is asked, which may be any service."""
    assert (dp.llm().service, dp.llm().model) == ("openai", "gpt-5-nano-2025-08-07")
    with dp.override_settings(default_llm_model="echo"):
        assert dp.chat("Hi").provider == "echo"
    with pytest.raises(APIKeyNotFoundError, match="OPENAI_API_KEY"):
        dp.chat("Hi")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai:gpt-5-nano", ("openai", "gpt-5-nano")),
        ("google:gemini-2.5-flash", ("gemini", "gemini-2.5-flash")),
        ("gpt-5", ("openai", "gpt-5")),
        ("ft:gpt-4o:me:x:1", ("openai", "ft:gpt-4o:me:x:1")),
        ("echo", ("echo", "")),
        ("llama3.2:3b", ("ollama", "llama3.2:3b")),
        ("qwen2.5-coder:7b-instruct-q4_K_M", ("ollama", "qwen2.5-coder:7b-instruct-q4_K_M")),
        ("vicuna:latest", ("ollama", "vicuna:latest")),
        ("mistral:7b", ("ollama", "mistral:7b")),
        ("ollama:mistral:instruct", ("ollama", "mistral:instruct")),
    ],
)
def test_names_of_models(name: str, expected: tuple[str, str]):
    """`service:model`, aliases, bare names of known families, and Ollama's own names with a tag."""
    assert named(name, dp.get_settings()) == expected


@pytest.mark.parametrize("name", ["opnai:gpt-5", "nonsense:model"])
def test_an_unknown_service_lists_the_choices(name: str):
    """A name that is no service is refused before anything is asked; the message has the choices, the hint the form."""
    with pytest.raises(UnsupportedError, match=r"echo.*local.*openai") as caught:
        dp.llm(name)
    assert f"ollama:{name}" in str(caught.value.hint)


def test_bad_input_is_one_clear_error():
    """No name, no prompt, an unknown option, an untyped tool: each is refused with the next action."""
    with pytest.raises(ConfigurationError, match="no name"):
        dp.llm(" ")
    with pytest.raises(ValidationError, match="no message"):
        dp.chat("", model="echo")
    with pytest.raises(ValidationError, match=r"no option temprature.*temperature"):
        dp.llm("echo", temprature=1)
    with pytest.raises(ValidationError, match="'x' of the tool 'f' has no type"):
        dp.chat("Hi", model="echo", tools=[lambda_tool])


def lambda_tool(x):  # type: ignore[no-untyped-def]
    """Without a type."""


lambda_tool.__name__ = "f"


def test_tools_are_functions_or_named():
    """Plain functions, `dp.tool` with another name, as a decorator, and built-in names become tools of the request."""

    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    @dp.tool(description="Adds.")
    def add(a: int, b: int) -> int:
        return a + b

    request = dp.llm("openai:gpt-5").request("Hi", tools=[weather, dp.tool(weather, name="sky"), add, "websearch"])
    assert [t.name or t.type for t in request.tools] == ["weather", "sky", "add", "web_search"]
    assert request.tools[2].description == "Adds."
    assert dp.chat('weather {"city": "Bern"}', model="echo", tools=weather).text.endswith("weather: Bern")


def test_a_budget_stops_before_the_call():
    """The second call of a budget of one is refused; the answer of the error is empty."""
    budget = dp.Budget(calls=1)
    dp.chat("one", model="echo", budget=budget)
    with pytest.raises(BudgetExceededError) as caught:
        dp.chat("two", model="echo", budget=budget)
    assert caught.value.answer.text == ""  # type: ignore[attr-defined]


def test_an_error_keeps_what_had_come():
    """A call that breaks raises its error; the text so far is in `error.answer`."""
    with Session(llm=ScriptedEvents([text("Half "), text("an"), ProviderError("It broke.")])) as session, pytest.raises(ProviderError) as caught:  # fmt: skip
        session.chat("Hi")
    answer: Answer = caught.value.answer  # type: ignore[attr-defined]
    assert (answer.text, answer.stopped, answer.stop_reason) == ("Half an", True, "It broke.")


def test_a_stream_without_an_end_is_an_error():
    """A service that stops in the middle is said to have done so, never taken for an answer."""
    with Session(llm=ScriptedEvents([text("Half")])) as session, pytest.raises(dp.ServiceError, match="before it was complete"):
        session.chat("Hi")


def test_ctrl_c_ends_the_call_and_keeps_the_text():
    """Ctrl-C in a script: the stream is closed, KeyboardInterrupt goes on, and carries what had come."""
    service = ScriptedEvents([text("so far"), -1.0])
    with Session(llm=service) as session:
        interrupt_when(service.waits.is_set)
        with pytest.raises(KeyboardInterrupt) as caught:
            session.chat("Hi")
    assert caught.value.answer.text == "so far"  # type: ignore[attr-defined]
    assert caught.value.answer.stopped  # type: ignore[attr-defined]
    assert service.closed == 1


def test_chat_works_inside_a_running_loop_and_achat_beside_others():
    """In an async cell the blocking form works too; `achat` gives several answers at once, in their order."""

    async def cell() -> tuple[str, list[str]]:
        first = dp.chat("first", model="echo")
        others = await asyncio.gather(*(dp.achat(str(i), model="echo") for i in range(5)))
        return first.text, [a.text for a in others]

    assert asyncio.run(cell()) == ("[echo] first", [f"[echo] {i}" for i in range(5)])


def test_cancelling_achat_closes_the_stream():
    """A cancelled `achat` ends its call at once."""
    service = ScriptedEvents([text("so far"), -1.0])

    async def cell(session: Session) -> None:
        task = asyncio.create_task(session.achat("Hi"))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Session(llm=service) as session:
        asyncio.run(cell(session))
    assert service.closed == 1


def test_on_the_librarys_own_loop_only_achat_works():
    """A tool that is async may ask a model itself, by `achat`; the blocking form says so instead of hanging."""

    async def tool() -> str:
        with pytest.raises(RuntimeError, match="achat"):
            dp.chat("Hi", model="echo")
        return (await dp.achat("Hi", model="echo")).text

    assert run_sync(tool()) == "[echo] Hi"
    assert asyncio.run(run_on_loop(tool())) == "[echo] Hi"


def test_the_whole_way_to_a_server_and_back(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch):
    """A real service and client: the function is run, its result sent, both are shown, the key is nowhere."""
    key = "sk-canary-7f3a9b2c4d5e6f"
    item = {"type": "function_call", "id": "f", "call_id": "c", "name": "weather", "arguments": '{"city": "Oslo"}'}
    calling = [
        {"type": "response.output_item.added", "output_index": 0, "sequence_number": 1, "item": {**item, "arguments": ""}},
        {"type": "response.function_call_arguments.done", "item_id": "f", "output_index": 0, "sequence_number": 2,
         "name": "weather", "arguments": item["arguments"]},
        final(item),
    ]  # fmt: skip

    def weather(city: str) -> str:
        """The weather of a city."""
        print("asked for", city)
        return f"12 degrees in {city}"

    with ScriptedServer(lambda call: call.stream(calling), says("It is mild.")) as server:
        monkeypatch.setenv("OPENAI_API_KEY", key)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        reset_settings()
        answer = dp.chat("Weather in Oslo?", model="openai:gpt-5-nano", tools=[weather], budget=dp.Budget(calls=2))
        run_sync(default_session().runtime.cleanup())
    assert answer.text == "It is mild."
    assert [(t.name, t.arguments, t.result) for t in answer.tools_used] == [("weather", {"city": "Oslo"}, "12 degrees in Oslo")]
    outputs = [m for m in server.seen[1].body["input"] if m.get("type") == "function_call_output"]
    assert [m["output"] for m in outputs] == ["12 degrees in Oslo"]
    last = sent(shell)[-1]
    assert "weather(city=&#34;Oslo&#34;) → 12 degrees in Oslo" in last.data["text/markdown"]
    assert last.metadata["dipeo"]["usage"]["total"] == 84
    assert key not in repr((answer, sent(shell), dp.llm("openai")))


# A model as an object.


def test_llm_is_a_package_and_a_function():
    """`dp.llm(…)` works although `dipeo_nb.llm` is a package, in any order of imports; both keep working."""
    code = (
        "import dipeo_nb as dp; print(dp.llm('echo').name)\n"
        "import dipeo_nb.llm.service as s, dipeo_nb.llm; from dipeo_nb.llm import streaming\n"
        "from dipeo_nb import llm; print(llm('echo').chat('x').text, dipeo_nb.llm.service is s)"
    )
    for first in ("", "import dipeo_nb.llm.service\n"):
        done = subprocess.run([sys.executable, "-c", first + code], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "echo\n[echo] x True\n"
    assert isinstance(dp.llm, ModuleType)
    assert list(inspect.signature(dp.llm).parameters) == ["model", "defaults"]


def test_defaults_are_overridden_per_call():
    """Options of `dp.llm` hold for its calls unless a call says otherwise; the repr shows them."""
    service = scripted("ok")
    with Session(llm=service) as session:
        model = session.llm("openai:m", temperature=0.2, system="Short.")
        model.chat("a")
        model.chat("b", temperature=0.9)
    assert [r.temperature for r in service.requests] == [0.2, 0.9]
    assert repr(model) == "dp.llm(\"openai:m\", temperature=0.2, system='Short.')"
    assert "<strong>openai:m</strong>" in model._repr_html_()
    assert model.capabilities.supports_web_search


def test_stream_gives_the_events_in_both_worlds():
    """`for` and `async for` go through the same events; the last has the response."""
    model = dp.llm("echo")
    kinds = [event.kind for event in model.stream("a b")]
    assert kinds == ["start", "text", "text", "text", "usage", "end"]

    async def cell() -> list[str]:
        return [event.kind async for event in model.stream("a b")]

    assert asyncio.run(cell()) == kinds
    assert run_sync(cell()) == kinds


@pytest.mark.parametrize("world", ["sync", "async"])
def test_leaving_a_stream_early_closes_it(world: str):
    """`break` in either loop ends the call; an error of the stream is raised in the loop."""
    service = ScriptedEvents([text("one"), text("two"), -1.0])
    with Session(llm=service) as session:
        model = session.llm()

        async def cell() -> None:
            events = aiter(model.stream("x"))
            async for _ in events:
                break
            await events.aclose()  # type: ignore[attr-defined]

        if world == "sync":
            for _ in model.stream("x"):
                break
        else:
            asyncio.run(cell())
        deadline = time.monotonic() + 5
        while not service.closed:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    async def failing() -> None:
        async for _ in session.llm().stream("x"):
            pass

    with Session(llm=FailingClient()) as session:
        with pytest.raises(ProviderError, match="on purpose"):
            list(session.llm().stream("x"))
        with pytest.raises(ProviderError, match="on purpose"):
            asyncio.run(failing())


def test_batch_keeps_order_and_failures():
    """Answers come in the order of the prompts; one failure does not take the others with it."""
    service = scripted(lambda r: RateLimitError("Too fast.") if r.messages[-1].content == "2" else r.messages[-1].content)
    with Session(llm=service) as session:
        batch = session.llm().batch(["1", "2", "3"], temperature=0.1)
    assert [getattr(item, "text", None) for item in batch] == ["1", None, "3"]
    assert [(i, type(e)) for i, e in batch.failed] == [(1, RateLimitError)]
    assert repr(batch) == "Batch of 3, 1 failed, no cost"
    assert "Too fast." in batch._repr_html_()
    assert [a.text for a in dp.llm("echo").batch(["x", "y"])] == ["[echo] x", "[echo] y"]  # type: ignore[union-attr]


def test_a_conversation_remembers():
    """Each turn is sent with what was said before; a turn that failed leaves no trace; `clear` forgets."""
    answers: list[Any] = ["Hello!", ProviderError("No."), "Fine."]
    service = scripted(answers)
    with Session(llm=service) as session:
        talk = session.llm("openai:m").conversation("Be kind.")
        talk("Hi")
        with pytest.raises(ProviderError):
            talk("Broken?")
        asyncio.run(talk.asay("How are you?"))
        said = [(m.role, m.content) for m in service.requests[-1].messages]
        assert said == [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "How are you?")]
        assert [m.content for m in talk.messages] == ["Hi", "Hello!", "How are you?", "Fine."]
        assert talk.cost_usd == 0.0
        assert "assistant: 'Fine.'" in repr(talk)
        assert "<td" in talk._repr_html_()
        talk.clear()
        assert talk.messages == []


# In a terminal.


def test_display_writes_to_a_terminal_when_asked(capsys: pytest.CaptureFixture[str]):
    """Outside a notebook nothing is shown by default; `display=True` streams text to stdout, the rest to stderr."""
    events = [
        StreamEvent("start", data={"notice": "No temperature."}),
        StreamEvent("tool_call_start", "look", data={"id": "1"}),
        StreamEvent("tool_call_end", "look", data={"id": "1", "arguments": '{"at": "x"}'}),
        StreamEvent("tool_result", "seen", data={"id": "1", "name": "look"}),
        text("One "),
        StreamEvent("stream_restarted", data={"reason": "again"}),
        text("Two"),
        end("Two"),
    ]
    with Session(llm=ScriptedEvents(events)) as session:
        session.chat("x")
        assert capsys.readouterr() == ("", "")
        session.chat("x", display=True)
    out, err = capsys.readouterr()
    assert out == "One \nTwo\n"
    assert err.splitlines()[:2] == ['🔧 look(at="x") → seen', "No temperature."]
    assert err.splitlines()[2].startswith("test:m · 10 tokens · $0.0012 · ")


# In a cell.


def test_an_answer_streams_into_one_display(shell: InteractiveShell):
    """One output, replaced under one display id; it ends as Markdown and text with model, tokens, cost and seconds."""
    with Session(llm=ScriptedEvents([text("**Hello** "), 0.2, text("world"), 0.2, end("**Hello** world")])) as session:
        session.chat("x")
    first, last = sent(shell)
    assert not first.update
    assert last.update
    assert last.display_id == first.display_id
    assert set(first.data) == {"text/html", "text/plain"}
    assert re.search(r'class="dipeo-of-\w+ dipeo-shows-\w+"', first.data["text/html"])
    assert set(last.data) == {"text/markdown", "text/plain"}
    assert last.data["text/markdown"].startswith(
        '**Hello** world\n\n<small style="opacity:.7">test:m · 10 tokens · <span>&#36;</span>0.0012 · 0.'
    )
    facts = last.metadata["dipeo"]
    assert (facts["model"], facts["cost_usd"], facts["usage"]["total"], facts["stopped"]) == ("m", 0.0012, 10, False)
    json.dumps(last.metadata)


@pytest.mark.parametrize("pause", [False, True])
def test_twenty_thousand_fast_pieces_are_one_update(shell: InteractiveShell, pause: bool):
    """However fast the pieces come, with or without a breath between them, the notebook is given the end only."""
    pieces: list[Any] = []
    for i in range(20_000):
        pieces.append(text(f"w{i} "))
        if pause:
            pieces.append(0.0)
    whole = "".join(p.text for p in pieces if isinstance(p, StreamEvent))
    with Session(llm=ScriptedEvents([*pieces, end(whole)])) as session:
        answer = session.chat("x")
    assert answer.text == whole
    updates = [s for s in sent(shell) if s.update]
    assert updates[-1].data["text/plain"].startswith(whole)
    assert len(updates) <= 1 + (updates[-1].at - sent(shell)[0].at) / FACE_S


def test_display_false_shows_nothing(shell: InteractiveShell):
    """`display=False` is silent in a notebook."""
    dp.chat("x", model="echo", display=False)
    assert sent(shell) == []


def test_the_same_text_is_not_shown_twice(shell: InteractiveShell):
    """As the last line of its cell an answer adds nothing; in a later cell, or when it was silent, it shows itself."""
    shell.user_ns["dp"] = dp
    shell.run_cell("a = dp.chat('x', model='echo')\na", store_history=True)
    assert len({s.display_id for s in sent(shell)}) == 1
    count = len(sent(shell))
    shell.run_cell("a", store_history=True)
    assert len(sent(shell)) == count + 1
    assert sent(shell)[-1].data["text/markdown"].startswith("[echo] x")
    assert sent(shell)[-1].metadata["dipeo"]["provider"] == "echo"
    shell.run_cell("dp.chat('y', model='echo', display=False)", store_history=True)
    assert sent(shell)[-1].data["text/plain"].startswith("[echo] y\n(echo:echo · ")


def test_capturing_a_cell_keeps_the_final_output_only(shell: InteractiveShell):
    """`%%capture` gets one output per answer, the finished one."""
    shell.user_ns["dp"] = dp
    shell.run_cell("%%capture kept\ndp.chat('x', model='echo')")
    output, *rest = shell.user_ns["kept"].outputs
    assert all(o.data == {} for o in rest)  # IPython's own, for the value of the last line
    assert output.data["text/markdown"].startswith("[echo] x")
    assert sent(shell) == []


def test_an_error_freezes_the_display(shell: InteractiveShell):
    """A broken answer leaves the text so far and says why it ended."""
    with Session(llm=ScriptedEvents([text("Half"), ProviderError("It broke.")])) as session, pytest.raises(ProviderError):
        session.chat("x")
    assert sent(shell)[-1].data["text/plain"].startswith("Half\n(openai:gpt-5-nano-2025-08-07 · ")
    assert sent(shell)[-1].data["text/plain"].endswith("stopped: It broke.)")


def unfolded(*events: StreamEvent) -> StreamingAnswer:
    seen = StreamingAnswer("test:m")
    for event in events:
        seen.take(event)
    return seen


def live(*events: StreamEvent) -> str:
    seen = unfolded(*events)
    return "\n".join((*seen.lines(), seen.bundle()["text/plain"], seen.foot()))


def test_reasoning_is_a_dim_line_and_then_folded():
    """Reasoning shows its end until text comes; the finished answer has it folded away, and as `reasoning`."""
    thought = StreamEvent("reasoning", "Let me think " * 50)
    assert "💭" in live(thought)
    assert len(live(thought)) < 500
    assert "💭" not in live(thought, text("Yes."))
    answer = unfolded(thought, text("Yes."), end("Yes.")).answer()
    shown = look.markdown(answer)
    assert shown.index("<details>") < shown.index("Let me think") < shown.index("</details>") < shown.index("Yes.")
    assert answer.reasoning.startswith("Let me think")


def test_tools_are_small_lines():
    """A call shows as it is made, then with its arguments and result; failures say so; the answer lists what was used."""
    events = [
        text("I look."),
        StreamEvent("tool_call_start", "weather", data={"id": "1"}),
        StreamEvent("tool_call_end", "weather", data={"id": "1", "arguments": {"city": "Oslo"}}),
        StreamEvent("tool_call_start", "sky", data={"id": "2"}),
        StreamEvent("tool_call_end", "sky", data={"id": "2", "arguments": "{}"}),
    ]
    assert '🔧 weather(city="Oslo")' in live(*events)
    events += [
        StreamEvent("tool_result", "no", data={"id": "2", "name": "sky", "is_error": True}),
        StreamEvent("tool_result", "12 °C", data={"id": "1", "name": "weather", "is_error": False}),
        text("12 degrees"),
    ]
    shown = live(*events)
    assert "→ 12 °C" in shown
    assert "sky() failed: no" in shown
    answer = unfolded(*events, end("12 degrees")).answer()
    assert [(t.name, t.result, t.is_error) for t in answer.tools_used] == [
        ("weather", "12 °C", False),
        ("sky", "no", True),
    ]
    assert answer.text == "12 degrees"
    left = unfolded(end(tool_calls=(ToolCall("9", "yours", {"a": 1}),))).answer()
    assert "yours(a=1)" in look.plain(left)


def test_a_restart_clears_what_was_shown():
    """After `stream_restarted` the text, the thoughts and the open calls of the round are gone; answered tools stay."""
    before = [
        StreamEvent("tool_call_start", "kept", data={"id": "1"}),
        StreamEvent("tool_result", "ok", data={"id": "1", "name": "kept"}),
        StreamEvent("reasoning", "gone"),
        text("gone"),
        StreamEvent("tool_call_start", "gone", data={"id": "2"}),
    ]
    shown = live(*before, StreamEvent("stream_restarted", data={"reason": "connection lost"}), text("new"))
    assert "gone" not in shown
    assert "kept" in shown
    assert "new" in shown


def test_progress_retries_and_notices():
    """A download is a bar, a retry says when, a notice is said once and stays, a fallback too."""
    bar = live(StreamEvent("progress", "Fetching m", data={"done": 50_000_000, "total": 100_000_000}))
    assert "█" * 10 + "░" * 10 + " 50 of 100 MB" in bar
    assert "█" not in live(StreamEvent("progress", "Fetching", data={"done": 1, "total": 2}), text("x"))
    assert "Trying again in 2.0 s" in live(StreamEvent("error", "Busy.", data={"attempt": 1, "retry_in_s": 2.0}))
    told = StreamEvent("start", data={"notice": "No temperature."})
    answer = unfolded(told, told, StreamEvent("error", "Down.", data={"fallback": "local"}), end("x")).answer()
    assert answer.notices == ("No temperature.", "Down. Asked local instead.")
    assert look.markdown(answer).count("No temperature.") == 1


def test_structured_answers_are_tables():
    """Fields appear as they come; the finished one is a table, and JSON as plain text; no value can break out of its cell."""
    seen = unfolded(text('{"winner": "A'), StreamEvent("partial", data={"value": {"winner": "A|<b>\nx"}}))
    part = ChatFeed("v1", seen)._whole()["text"]
    assert "| winner | A&#124;&#60;b&#62;<br>x |" in part
    assert '{"winner"' not in part
    answer = unfolded(end('{"winner":"Ada","points":3}', structured=Verdict(winner="Ada", points=3))).answer()
    assert "| winner | Ada |\n| points | 3 |" in look.markdown(answer)
    assert json.loads(look.plain(answer).rpartition("\n(")[0]) == {"winner": "Ada", "points": 3}
    rows = of_response(LLMResponse("", "t", "m", structured=[{"a": 1}, {"a": 2, "b": [3]}]))
    assert "| a | b |\n| :--- | :--- |\n| 1 |  |\n| 2 | &#91;3&#93; |" in look.markdown(rows)


def test_recorded_cut_off_and_unknown_prices_are_said():
    """The small line says recorded and what was saved, an unknown cost, and an answer cut at its limit."""
    facts = {"usage": dp.chat("x", model="echo").usage, "provider": "p", "model": "m"}
    assert look.summary(of_response(LLMResponse("", **facts))) == "p:m · 3 tokens · cost unknown"
    recorded = of_response(LLMResponse("", **facts, cached=True, saved_usd=0.5, cost_usd=0.0))
    assert look.summary(recorded) == "p:m · 3 tokens · recorded, saved $0.5000"
    cut = of_response(LLMResponse("", **facts, cost_usd=0.0, finish_reason="length"))
    assert look.summary(cut).endswith("no cost · cut off at the limit of tokens")


def test_images_and_sources_of_built_in_tools():
    """A made image is shown, cited pages are listed as links; other addresses are not."""
    outputs = (
        {"type": "image", "media_type": "image/png", "data": "aGk="},
        {"type": "image", "media_type": "image/png)![x](y", "data": "aGk="},
        {"type": "citation", "url": "https://example.org/a b>", "title": "A [b]"},
        {"type": "citation", "url": "javascript:alert(1)", "title": "no"},
    )
    shown = look.markdown(of_response(LLMResponse("x", "p", "m", tool_outputs=outputs)))
    assert "![image](data:image/png;base64,aGk=)" in shown
    assert "1. [A &#91;b&#93;](<https://example.org/a%20b%3E>)" in shown
    assert "javascript" not in shown
    assert "![x]" not in shown


def test_half_characters_do_not_break_the_page():
    """A lone surrogate in an answer is replaced; what is sent is always UTF-8."""
    data, _ = of_response(LLMResponse("a\ud800b", "p", "m"))._repr_mimebundle_()
    assert data["text/markdown"].encode()
    assert unfolded(text("a\ud800")).bundle()["text/plain"] == "a?\ntest:m · …"


# In a real kernel.

SETUP = """
import os, signal, threading
import dipeo_nb as dp
from dipeo_nb.testing import SlowClient
session = dp.Session(llm=SlowClient("one two three four", delay=0.05))
slow = dp.Session(llm=SlowClient("word " * 500, delay=0.02))
"""


def executed(folder: Path, *cells: str) -> list[Any]:
    """The outputs of each cell after the first, run by nbclient."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (SETUP, *cells)])
    client = nbclient.NotebookClient(notebook, timeout=60, allow_errors=True, resources={"metadata": {"path": str(folder)}})
    client.execute()
    assert notebook.cells[0].outputs == []
    return [cell.outputs for cell in notebook.cells[1:]]


def test_in_a_kernel(tmp_path: Path):
    """One static output per answer, in its own cell: blocking, awaited, gathered, in a task that outlives its cell, stopped."""
    blocking, awaited, gathered, begun, ended, stopped, astopped, later = executed(
        tmp_path,
        "answer = session.chat('x')\nanswer",
        "await session.achat('x')",
        "import asyncio\nboth = await asyncio.gather(session.achat('a'), session.achat('b'))",
        "task = asyncio.create_task(session.achat('x'))\nawait asyncio.sleep(0.05)",
        "print((await task).text)",
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\nslow.chat('x')",
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\nawait slow.achat('x')",
        "answer",
    )
    for outputs, count in ((blocking, 1), (awaited, 1), (gathered, 2), (begun, 1), (later, 1)):
        assert [o.output_type for o in outputs] == ["display_data"] * count
        for output in outputs:
            assert set(output.data) == {"text/markdown", "text/plain"}
            assert output.data["text/markdown"].startswith("one two three four\n\n<small style=")
            assert output.metadata["dipeo"]["usage"]["output"] == 4
    assert [o.text for o in ended] == ["one two three four\n"]
    for outputs in (stopped, astopped):
        shown, error = outputs
        assert shown.data["text/markdown"].startswith("word word")
        assert "· stopped</small>" in shown.data["text/markdown"]
        assert shown.metadata["dipeo"]["stopped"]
        assert error.ename in ("KeyboardInterrupt", "CancelledError")


def test_slow_client_is_cut_off():
    """The model of a stopped call stops at once."""
    service = SlowClient("word " * 500, delay=0.02)
    with Session(llm=service) as session:
        interrupt_when(lambda: service.requests)
        with pytest.raises(KeyboardInterrupt):
            session.chat("x")
    assert service.cancelled == 1
