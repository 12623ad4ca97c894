"""`dipeo-nb mcp` in a process of its own, with the SDK's client: both eras, both transports, questions that survive a killed server."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

import dipeo_nb as dp
from dipeo_nb.config import Settings
from dipeo_nb.errors import DiagramNotFoundError, ValidationError
from dipeo_nb.runtime import Runtime
from dipeo_nb.server.diagram_tools import Asked, DiagramTools

mcp = pytest.importorskip("mcp", reason="not here: the extra mcp")
from mcp import Client, MCPError, StdioServerParameters  # noqa: E402
from mcp.client.stdio import stdio_client  # noqa: E402
from mcp.client.streamable_http import streamable_http_client  # noqa: E402
from mcp.types import ElicitResult, PromptReference  # noqa: E402

ASK = """version: light
metadata: {name: Ask, description: Greets somebody}
persons:
  Ada: {service: echo, model: m}
nodes:
- {label: Start, type: start, custom_data: {who: Bo}}
- {label: Say, type: person_job, person: Ada, default_prompt: "Hello {{who}} {{topic}}.", max_iteration: 1}
- {label: Sure, type: user_response, prompt: "Send {{Say}}?", timeout: 300}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: Sure, label: Say}
- {from: Sure, to: End}
"""
CODE = """version: light
nodes:
- {label: S, type: start}
- {label: Slow, type: code_job, language: python, code: "open('begun', 'w').close()\\nimport time\\ntime.sleep(60)"}
- {label: E, type: endpoint}
connections:
- {from: S, to: Slow}
- {from: Slow, to: E}
"""
WAIT_S = 60.0


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "ask.light.yaml").write_text(ASK)
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / "data"))
    return folder


def program(base: Path, *options: str) -> Any:
    return stdio_client(
        StdioServerParameters(
            command=sys.executable, args=["-m", "dipeo_nb", "mcp", "--base-dir", str(base), *options], env=dict(os.environ)
        )
    )


def answering(*answers: Any) -> tuple[Callable[..., Any], list[str]]:
    """An elicitation callback that gives these answers in turn, and what it was asked."""
    asked, left = [], list(answers)

    async def answered(context: Any, params: Any) -> Any:
        asked.append(params.message)
        return left.pop(0)

    return answered, asked


def accepted(text: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"answer": text})


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_diagram_is_a_tool(base: Path, mode: Any):
    """Its inputs are the schema, its nodes progress, its question an elicitation, its result text and data, its drawing a resource."""
    callback, asked = answering(accepted('yes "please" 😀'))
    told: list[str] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append(str(message))

    async def use() -> None:
        async with Client(program(base), elicitation_callback=callback, mode=mode) as client:
            (tool,) = (await client.list_tools()).tools
            assert (tool.name, tool.description) == ("ask", "Greets somebody")
            assert tool.input_schema["properties"]["who"] == {"type": "string", "default": "Bo"}
            assert "topic" in tool.input_schema["properties"]
            result = await client.call_tool("ask", {"topic": "tea"}, progress_callback=progress)
            assert not result.is_error
            assert result.content[0].text == 'yes "please" 😀'
            assert result.structured_content["outputs"] == {"End": 'yes "please" 😀'}
            assert asked == ["Send [Ada] Hello Bo tea.?"]
            assert told[:2] == ["Start …", "Start ✓"]
            assert "Say ✓" in told
            (link,) = (part for part in result.content if part.type == "resource_link")
            assert (await client.read_resource(link.uri)).contents[0].text.startswith("<svg")
            drawn, page = sorted(str(r.uri) for r in (await client.list_resources()).resources)
            assert (drawn.partition(":")[0], page) == ("dipeo", "ui://dipeo/ask.html")
            assert "<svg" in (await client.read_resource(drawn)).contents[0].text
            assert (await client.read_resource(page)).contents[0].text.startswith("<!doctype html>")

    asyncio.run(asyncio.wait_for(use(), WAIT_S))


def test_hostile_calls(base: Path):
    """Unknown tools, arguments that do not fit, resources that are none, forged places of questions: an error each, and it goes on."""
    callback, _ = answering(ElicitResult(action="decline"), accepted("ok"))

    async def use() -> None:
        async with Client(program(base), elicitation_callback=callback) as client:
            with pytest.raises(MCPError, match=r"no tool 'asc'[\s\S]*ask"):
                await client.call_tool("asc", {})
            for arguments in ({"who": 1}, {"bad\r\nname": "x"}, {"who": {"a": "x"}}):
                result = await client.call_tool("ask", arguments)
                assert result.is_error
                assert "do not fit" in result.content[0].text
            for uri in (
                "dipeo://runs/exec_1/drawing.svg",
                "dipeo://runs/../../etc/passwd",
                "file:///etc/passwd",
                "dipeo://diagrams/x/drawing.svg",
            ):
                with pytest.raises(MCPError, match="no resource"):
                    await client.read_resource(uri)
            for state in ("", "x", "e30=.00", "💥.💥", "A" * 100_000):
                with pytest.raises(MCPError, match="not the place"):
                    await client.session.call_tool("ask", {}, request_state=state)
            declined = await client.call_tool("ask", {"topic": "x"})
            assert declined.is_error
            assert "the user did not answer" in declined.content[0].text
            assert (await client.call_tool("ask", {"topic": "{{ x }}\x00\u202e"})).content[0].text == "ok"

    asyncio.run(asyncio.wait_for(use(), WAIT_S))


@pytest.mark.parametrize("twice", [False, True])
def test_an_answer_survives_a_killed_server(base: Path, twice: bool):
    """kill -9 while an answer is awaited; another process gets it, and the run ends: what had finished is not done again.
    In between a process may have asked again, since the answer was missing, and have been ended by its client."""

    callback, _ = answering()

    async def asked() -> Any:
        async with Client(program(base), elicitation_callback=callback) as client:
            first = await client.session.call_tool("ask", {"topic": "tea"}, allow_input_required=True)
            (process,) = (p for p in psutil.Process().children(recursive=True) if str(base) in p.cmdline())
            process.kill()
            process.wait(10)
            return first

    async def asked_again(first: Any) -> Any:
        async with Client(program(base), elicitation_callback=callback) as client:
            return await client.session.call_tool("ask", {}, request_state=first.request_state, allow_input_required=True)

    async def answer(first: Any, tool: str = "ask") -> Any:
        (key,) = first.input_requests
        async with Client(program(base), elicitation_callback=callback) as client:
            return await client.session.call_tool(
                tool, {"topic": "tea"}, input_responses={key: accepted("yes")}, request_state=first.request_state,
                allow_input_required=True,
            )  # fmt: skip

    async def all_of_it() -> None:
        first = await asyncio.wait_for(asked(), WAIT_S)
        second = await asyncio.wait_for(asked_again(first), WAIT_S) if twice else first
        assert second.input_requests["Sure"].params == first.input_requests["Sure"].params
        result = await asyncio.wait_for(answer(second), WAIT_S)
        assert result.structured_content["status"] == "completed"
        assert result.content[0].text == "yes"
        again = await asyncio.wait_for(answer(second), WAIT_S)  # the answer of a client that did not hear ours
        assert again.structured_content["run_id"] == result.structured_content["run_id"]
        with dp.Session(base) as session:
            run = session.open_run(result.structured_content["run_id"])
            assert [n["runs"] for n in run.nodes if n["node"] == "Say"] == [1]

    asyncio.run(all_of_it())


def test_a_cancelled_call_stops_its_run(base: Path):
    """A client that gives up, or is gone, leaves no program at work."""
    (base / "slow.light.yaml").write_text(CODE)
    (base / "ask.light.yaml").unlink()

    async def use() -> None:
        async with Client(program(base)) as client:
            call = asyncio.ensure_future(client.call_tool("slow", {}))
            while not (base / "begun").exists():
                await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            with dp.Session(base) as session:
                while session.runs()[0].status == "running":
                    await asyncio.sleep(0.05)
                assert session.runs()[0].status == "aborted"
            assert [tool.name for tool in (await client.list_tools()).tools] == ["slow"]

    asyncio.run(asyncio.wait_for(use(), WAIT_S))


def test_a_stranger_s_diagram_is_refused_with_what_it_wants(base: Path, monkeypatch: pytest.MonkeyPatch):
    """As everywhere: it may ask models, and code needs a yes, which --allow gives."""
    (base / "slow.light.yaml").write_text(CODE.replace("time.sleep(60)", "result = 'done'"))

    monkeypatch.delenv("DIPEO_TRUST")

    async def use(*options: str) -> Any:
        async with Client(program(base, "slow.light.yaml", *options)) as client:
            return await client.call_tool("slow", {})

    refused = asyncio.run(asyncio.wait_for(use(), WAIT_S))
    assert refused.is_error
    assert "runs code" in refused.content[0].text
    assert not (base / "begun").exists()
    assert asyncio.run(asyncio.wait_for(use("--allow", "code"), WAIT_S)).content[0].text == "done"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_diagram_is_a_prompt(base: Path, mode: Any):
    """Its arguments are those of the tool, and can be completed; what it has not is an error."""

    async def use() -> None:
        async with Client(program(base), mode=mode) as client:
            (prompt,) = (await client.list_prompts()).prompts
            assert (prompt.name, [a.name for a in prompt.arguments]) == ("ask", ["who", "topic"])
            (message,) = (await client.get_prompt("ask", {"who": 'Bo "😀" {{ x }}'})).messages
            assert message.content.text.startswith('Call the tool `ask` with these arguments: {"who": "Bo \\"😀\\" {{ x }}"}.')
            for name, arguments in (("asc", {}), ("ask", {"what": "x"})):
                with pytest.raises(MCPError, match=r"no tool 'asc'|no argument what"):
                    await client.get_prompt(name, arguments)
            of_prompt = PromptReference(name="ask")
            for argument, typed, found in (("who", "B", ["Bo"]), ("who", "x", []), ("topic", "", []), ("nothing", "", [])):
                completed = await client.complete(of_prompt, {"name": argument, "value": typed})
                assert completed.completion.values == found

    asyncio.run(asyncio.wait_for(use(), WAIT_S))


def test_answers_come_beforehand_or_again(base: Path):
    """A call may bring the answer that will be asked for; one that lacks it, or is of another kind, is asked again."""
    callback, _ = answering()

    async def use() -> None:
        async with Client(program(base), elicitation_callback=callback) as client:

            async def call(**options: Any) -> Any:
                return await client.session.call_tool("ask", {"topic": "tea"}, allow_input_required=True, **options)

            assert (await call(input_responses={"Sure": accepted("yes")})).content[0].text == "yes"
            first = await call(input_responses={"Other": accepted("no")})
            again = await call(input_responses={"Other": accepted("no")}, request_state=first.request_state)
            assert list(first.input_requests) == list(again.input_requests) == ["Sure"]
            result = await call(input_responses={"Sure": accepted("now")}, request_state=again.request_state)
            assert result.content[0].text == "now"
            with dp.Session(base) as session:
                assert len(session.runs()) == 2

    asyncio.run(asyncio.wait_for(use(), WAIT_S))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_that_cannot_be_asked_is_told_how_to_answer(base: Path, mode: Any):
    """Its call fails with the command; the run waits for that answer. Since 2026-07-28 the failure is an error of its own."""

    async def use() -> None:
        async with Client(program(base), mode=mode) as client:
            if mode == "auto":
                with pytest.raises(MCPError) as caught:
                    await client.call_tool("ask", {"topic": "tea"})
                assert caught.value.code == -32021
                assert caught.value.data == {"requiredCapabilities": {"elicitation": {}}}
                said = str(caught.value)
            else:
                result = await client.call_tool("ask", {"topic": "tea"})
                assert result.is_error
                said = result.content[0].text
            command = re.search(r"dipeo-nb answer (\S+) 'Sure=…'", said)
            assert command
            with dp.Session(base) as session:
                session.open_run(command[1]).answer("yes")
                while session.runs()[0].status == "running":
                    await asyncio.sleep(0.05)
                assert session.open_run(command[1]).outputs == {"End": "yes"}

    asyncio.run(asyncio.wait_for(use(), WAIT_S))


@pytest.fixture
def listening(base: Path) -> Iterator[tuple[str, str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dipeo_nb", "mcp", "--http", "--port", "0", "--base-dir", str(base)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    token = process.stdout.readline().strip()
    found = re.search(r"http://\S+/mcp", process.stderr.readline())
    assert found
    yield found[0], token
    process.terminate()
    process.wait(30)
    process.stdout.close()
    process.stderr.close()


def test_over_http(listening: tuple[str, str]):
    """Streamable HTTP: with the token; without it, from another page, or with a body that is none, nothing is run."""
    url, token = listening
    callback, _ = answering(accepted("over HTTP"))

    async def use() -> None:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
            async with Client(streamable_http_client(url, http_client=http), elicitation_callback=callback) as client:
                result = await client.call_tool("ask", {"topic": "tea"})
                assert result.content[0].text == "over HTTP"
            assert (await http.post(url, content=b"\xff{not json")).status_code == 400
            assert (await http.post(url, json={}, headers={"Origin": "https://evil.example"})).status_code == 403
            assert (await http.post(url, content=b"x" * 30_000_000)).status_code in (400, 413)
        async with httpx2.AsyncClient() as stranger:
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
                assert (await stranger.post(url, json={}, headers=given)).status_code == 401

    asyncio.run(asyncio.wait_for(use(), WAIT_S))


def test_places_of_questions_are_signed(base: Path):
    """One that another tool got, or that was changed, is none; one of this user is, in any process."""
    asked = Asked("exec_1", "q", "Sure", "?", None, "string", 3)
    tools = DiagramTools(Runtime(Settings(base_dir=base)))
    sealed = tools.sealed("ask", asked)
    assert DiagramTools(Runtime(Settings(base_dir=base))).opened("ask", sealed)["run"] == "exec_1"
    with pytest.raises(ValidationError):
        tools.opened("other", sealed)
    for position in range(0, len(sealed), 7):
        changed = sealed[:position] + ("A" if sealed[position] != "A" else "B") + sealed[position + 1 :]
        with pytest.raises(ValidationError):
            tools.opened("ask", changed)


def test_names_of_tools(base: Path):
    """Files of the same name, and names that no client takes; a broken one beside them hides none. One that is named has to be there."""
    (base / "a b é.light.yaml").write_text(ASK)
    (base / "sub").mkdir()
    (base / "sub" / "ask.light.yaml").write_text(ASK)
    (base / "broken.light.yaml").write_text("version: light\nnodes: {")
    runtime = Runtime(Settings(base_dir=base))
    assert sorted(DiagramTools(runtime).tools()) == ["a_b", "ask", "ask_2"]
    with pytest.raises(DiagramNotFoundError):
        DiagramTools(runtime, ["nothing"])
