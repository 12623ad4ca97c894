"""Tools of MCP servers: over stdio and HTTP, in nodes and notebooks; servers that fail, hang, ask and die."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb import config
from dipeo_nb.domain.chat import ToolCall
from dipeo_nb.errors import (
    InvalidDiagramError,
    ManifestError,
    ProviderRejectedError,
    ProviderUnavailableError,
    TrustError,
    UnknownOutcomeError,
    ValidationError,
)
from dipeo_nb.integrations.mcp_client import McpTool, check_arguments
from dipeo_nb.integrations.mcp_servers import McpFile, provider_name
from dipeo_nb.testing import scripted
from tests.support.tool_calls import Calls, service

ROOT = Path(__file__).parents[3]
STDIO = {
    "command": sys.executable,
    "args": ["-m", "tests.support.mcp_tools"],
    "cwd": str(ROOT),
    "env": {"GIVEN": "${MCP_GIVEN:-nothing}"},
}


def configured(base: Path, **servers: Any) -> None:
    (base / ".mcp.json").write_text(json.dumps({"mcpServers": servers}))


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dp.Session]:
    monkeypatch.setenv("MCP_GIVEN", "a value of mine")
    configured(tmp_path, Tools=STDIO)
    with dp.Session(tmp_path, llm=scripted()) as session:
        yield session


def node(**props: Any) -> dict[str, Any]:
    nodes = [
        {"label": "S", "type": "start"},
        {"label": "Call", "type": "integrated_api", "props": props},
        {"label": "E", "type": "endpoint"},
    ]
    return {
        "version": "light",
        "nodes": nodes,
        "connections": [{"from": "S", "to": "Call"}, {"from": "Call", "to": "E", "content_type": "object"}],
    }


def test_tools_of_a_program(session: dp.Session):
    """One process for all calls: results, structured data, checks of arguments, errors, and what comes after its end."""
    tools = session.provider("mcp_tools")
    assert {"add", "echo", "erase"} <= set(dir(tools))
    assert tools.add(a=1, b=2) == {"sum": 3}
    assert tools.echo(text='"q" 😀\n{{ x }}') in ({"result": '"q" 😀\n{{ x }}'}, '"q" 😀\n{{ x }}')
    assert "a value of mine" in str(tools.environment(name="GIVEN"))
    with pytest.raises(ValidationError, match="do not fit"):
        tools.add(a="one", b=2)
    with pytest.raises(ValidationError, match="do not fit"):
        tools.add(a=1)
    with pytest.raises(ProviderRejectedError, match="it did not work"):
        tools.fail()
    with pytest.raises(UnknownOutcomeError, match=r"did not answer within 0\.3 s"):
        session.call("mcp_tools.hang", timeout=0.3).result()
    with pytest.raises(UnknownOutcomeError, match="is gone"):
        tools.die()
    assert tools.add(a=2, b=2) == {"sum": 4}  # started anew
    assert "cancel" in str(tools.greet())  # nobody is there to ask


def test_a_server_gets_another_tool(session: dp.Session):
    """It is found when it is called; one that is not there is an error as before."""
    with pytest.raises(ValidationError, match="no tool 'grown'"):
        session.call("mcp_tools.grown").result()
    session.call("mcp_tools.grow").result()
    assert "I am new" in str(session.call("mcp_tools.grown").result())
    assert "grown" in dir(session.provider("mcp_tools"))


def test_a_node_calls_a_tool(session: dp.Session):
    """Its progress is in the run's log; what it asks is a question of the run."""
    run = session.run(node(provider="mcp_tools", operation="count"), view=False)
    assert "done" in str(run.outputs["E"])
    logged = [event.payload["message"] for event in session.open_run(run.id).events if event.type == "execution_log"]
    assert logged == [f"mcp_tools.count: {n} of 3, step {n}" for n in (1, 2, 3)]
    answered = session.run(node(provider="mcp_tools", operation="greet", timeout=20), answers={"Call": "Ada"}, view=False)
    assert "Hello Ada" in str(answered.outputs["E"])
    with pytest.raises(InvalidDiagramError, match="names no server for 'mcp_tolls'"):
        session.run(node(provider="mcp_tolls", operation="add"), view=False)


def test_tools_over_http(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.mcp_tools", str(port)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        configured(tmp_path, web={"type": "http", "url": f"http://127.0.0.1:{port}/mcp"})
        with dp.Session(tmp_path, llm=scripted()) as session:
            assert session.provider("mcp_web").add(a=20, b=3) == {"sum": 23}
            process.kill()
            process.wait()
            with pytest.raises((ProviderUnavailableError, UnknownOutcomeError)):
                session.provider("mcp_web").add(a=1, b=1)
    finally:
        process.kill()
        process.wait()


def test_a_server_of_an_untrusted_folder_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is named in lists, and nothing is started."""
    mark = tmp_path / "started"
    configured(tmp_path, evil={"command": sys.executable, "args": ["-c", f"open({str(mark)!r}, 'w')"]})
    monkeypatch.setenv("DIPEO_TRUST", str(tmp_path / "elsewhere"))
    config.reset_settings()
    with dp.Session(tmp_path, llm=scripted()) as session:
        assert "no: " in next(row["ready"] for row in session.providers() if row["provider"] == "mcp_evil")
        with pytest.raises(TrustError, match="which programs are started"):
            session.provider("mcp_evil")
        with pytest.raises(InvalidDiagramError, match="is not trusted"):
            session.run(node(provider="mcp_evil", operation="x"), view=False)
    assert not mark.exists()


def test_a_program_that_is_no_server(tmp_path: Path):
    configured(
        tmp_path, nothing={"command": sys.executable, "args": ["-c", "print('hello')"]}, gone={"command": "/no/such/program"}
    )
    with dp.Session(tmp_path, llm=scripted()) as session:
        for name in ("mcp_nothing", "mcp_gone"):
            with pytest.raises(ProviderUnavailableError, match="cannot be used"):
                session.provider(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "no mapping `mcpServers`"),
        ('{"mcpServers": {"x": 1}}', "x is not a mapping"),
        ('{"mcpServers": {"x": {"args": []}}}', "needs a `command`"),
        ('{"mcpServers": {"x": {"command": "a", "args": "b"}}}', "list of texts"),
        ('{"mcpServers": {"x": {"command": "a", "env": {"A": 1}}}}', "not a mapping of texts"),
        ('{"mcpServers": {"x": {"type": "sse", "url": "http://a"}}}', "given up"),
        ('{"mcpServers": {"x": {"type": "ws", "url": "http://a"}}}', "Use stdio or http"),
        ('{"mcpServers": {"x": {"url": "file:///etc"}}}', "no `url` of a web server"),
        ('{"mcpServers": {"x": {"url": "http://a", "headers": {"A": "${NOT_SET}"}}}}', "needs the variable NOT_SET"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, says: str):
    (tmp_path / ".mcp.json").write_text(text)
    with pytest.raises(ManifestError, match=says.replace("`", ".")):
        McpFile(tmp_path, lambda path: True, lambda name: None).find("mcp_x")


def test_names_of_servers():
    assert [provider_name(n) for n in ("Files", "my-server", "a b/c")] == ["mcp_files", "mcp_my_server", "mcp_a_b_c"]


@pytest.mark.parametrize("schema", [{"type": "strnig"}, {"$ref": "http://elsewhere.example/x"}, {"$ref": "#/nowhere"}])
def test_a_schema_that_lies(schema: dict[str, Any]):
    with pytest.raises(ManifestError, match="author of the server"):
        check_arguments("s.t", McpTool("t", "", schema), {"a": 1})


def test_none_means_not_given():
    """Unless the parameter is required, or takes null."""
    fields = {"a": {"type": "string"}, "b": {"type": ["string", "null"]}, "c": {}, "d": True, "e": {"type": "integer"}}
    tool = McpTool("t", "", {"type": "object", "properties": fields, "required": ["e"]})
    assert check_arguments("s.t", tool, {"a": None, "b": None, "c": None, "d": None, "e": 1}) == {
        "b": None,
        "c": None,
        "d": None,
        "e": 1,
    }
    with pytest.raises(ValidationError, match="do not fit"):
        check_arguments("s.t", tool, {"e": None})


# Tools of a person.


def person(tools: Any) -> dict[str, Any]:
    return {
        "version": "light",
        "persons": {"Ada": {"service": "openai", "model": "m"}},
        "nodes": [
            {"label": "S", "type": "start"},
            {"label": "Say", "type": "person_job", "props": {"person": "Ada", "default_prompt": "hi", "tools": tools}},
            {"label": "E", "type": "endpoint"},
        ],
        "connections": [{"from": "S", "to": "Say"}, {"from": "Say", "to": "E"}],
    }


def test_a_person_uses_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the model calls is carried out; a tool that destroys something asks before, and a tool may ask itself."""
    configured(tmp_path, Tools=STDIO)
    turns = [
        ("mcp_tools_add", {"a": 1, "b": 2}),
        ("mcp_tools_erase", {"path": "/x"}),
        ("mcp_tools_erase", {"path": "/y"}),
        ("mcp_tools_greet", {}),
    ]
    model = Calls(*([ToolCall(f"c{n}", name, given)] for n, (name, given) in enumerate(turns)), "done")
    with dp.Session(tmp_path, llm=service(model, monkeypatch)) as session:
        run = session.start(person(["mcp_tools"]), view=False)
        asked: list[str] = []
        for answer in ("no", "yes", "Ada"):
            while not run.finished and (run.question is None or run.question["prompt"] in asked):
                time.sleep(0.01)
            assert run.question is not None
            asked.append(run.question["prompt"])
            run.answer(answer)
        assert run.result().outputs["E"] == "done"
    told = [message.tool_result.content for message in model.asked[-1].messages if message.tool_result is not None]
    assert json.loads(told[0]) == {"sum": 3}
    assert told[1] == "The user did not allow this call."
    assert "erased /y" in told[2]
    assert "Hello Ada" in told[3]
    assert "/x" in asked[0]
    assert "What is your name?" in asked[2]


def test_a_tool_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with dp.Session(tmp_path, llm=service(Calls("done"), monkeypatch)) as session:
        with pytest.raises(dp.DipeoError, match="Did you mean 'search'"):
            session.run(person(["wikipedia.serch"]), view=False)
        assert session.run(person(["wikipedia.search", "websearch"]), view=False).outputs["E"] == "done"
