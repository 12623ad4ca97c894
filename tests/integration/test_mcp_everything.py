"""The reference server of the Model Context Protocol (npm: server-everything) used by nodes, notebooks and persons."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.domain.chat import ToolCall
from dipeo_nb.errors import ProviderRejectedError, ValidationError
from dipeo_nb.testing import scripted
from tests.support.npm import command, environment
from tests.support.servers import free_ports
from tests.support.tool_calls import Calls, service

pytest.importorskip("mcp", reason="not here: the extra mcp")
pytestmark = [pytest.mark.slow, pytest.mark.process]
PACKAGE = "@modelcontextprotocol/server-everything"


@pytest.fixture(params=["stdio", "http"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder whose .mcp.json names the server."""
    if request.param == "stdio":
        program, *arguments = command(PACKAGE, "stdio")
        configured(tmp_path, command=program, args=arguments)
        yield tmp_path
        return
    (port,) = free_ports(1)
    process = subprocess.Popen(
        command(PACKAGE, "streamableHttp"), stderr=subprocess.PIPE, text=True, env={**environment(), "PORT": str(port)}
    )
    assert process.stderr is not None
    try:
        assert any("listening" in line for line in process.stderr)
        configured(tmp_path, type="http", url=f"http://127.0.0.1:{port}/mcp")
        yield tmp_path
    finally:
        process.kill()
        process.communicate()


def configured(base: Path, **server: Any) -> None:
    (base / ".mcp.json").write_text(json.dumps({"mcpServers": {"everything": server}}))


def diagram(node: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "version": "light",
        **more,
        "nodes": [{"label": "S", "type": "start"}, {"label": "Use", **node}, {"label": "E", "type": "endpoint"}],
        "connections": [{"from": "S", "to": "Use"}, {"from": "Use", "to": "E", "content_type": "object"}],
    }


def test_its_tools(base: Path):
    """Text, numbers, structured data, an image, links to files, a wrong argument; also the tools that it adds when it knows its client."""
    with dp.Session(base, llm=scripted()) as session:
        tools = session.provider("mcp_everything")
        assert {"echo", "get-sum", "get-tiny-image", "trigger-elicitation-request"} <= set(dir(tools))
        assert tools.echo(message='"q" 😀 {{ x }}') == 'Echo: "q" 😀 {{ x }}'
        assert "5" in session.call("mcp_everything.get-sum", a=2, b=3).result()
        weather = session.call("mcp_everything.get-structured-content", location="Chicago").result()
        assert set(weather) == {"temperature", "conditions", "humidity"}
        image = next(
            part for part in session.call("mcp_everything.get-tiny-image").result()["content"] if part["type"] == "image"
        )
        assert image["mimeType"] == "image/png"
        assert image["data"].startswith("iVBORw0KGgo")
        links = session.call("mcp_everything.get-resource-links", count=2).result()["content"]
        assert [part["type"] for part in links] == ["resource_link"] * 2
        with pytest.raises(ValidationError, match="do not fit"):
            session.call("mcp_everything.get-structured-content", location="Paris").result()
        with pytest.raises((ProviderRejectedError, ValidationError)):
            session.call("mcp_everything.gzip-file-as-resource", data="file:///etc/passwd").result()


def test_progress_of_a_node(base: Path):
    """Each step of a long operation is a line of the run's log."""
    node = {
        "type": "integrated_api",
        "props": {
            "provider": "mcp_everything",
            "operation": "trigger-long-running-operation",
            "config": {"duration": 0.3, "steps": 3},
        },
    }
    with dp.Session(base, llm=scripted()) as session:
        run = session.run(diagram(node), view=False)
        assert "completed" in str(run.outputs["E"])
        logged = [event.payload["message"] for event in session.open_run(run.id).events if event.type == "execution_log"]
        assert logged == [f"mcp_everything.trigger-long-running-operation: {n} of 3" for n in (1, 2, 3)]


ANSWERS = {
    "full, legal name": "Ada 😀", "terms and conditions": "yes", "first line": "", "email": "ada@example.org",
    "Portfolio": "https://example.org", "date of birth": "1815-12-10", "favorite integer": "7", "Favorite number": "",
    "favorite friend": "Joey", "favorite instruments": "piano, Drums", "favorite hero": "Green Lantern",
    "types of fish": "", "type of pet": "Dogs",
}  # fmt: skip


def test_a_person_uses_its_tools(base: Path, monkeypatch: pytest.MonkeyPatch):
    """A scripted model calls them; a form of thirteen fields of all kinds is thirteen questions of the run."""
    turns = [("get-sum", {"a": 20, "b": 3}), ("trigger-elicitation-request", {}), ("echo", {"message": "done"})]
    model = Calls(*([ToolCall(f"c{n}", f"mcp_everything_{name}", given)] for n, (name, given) in enumerate(turns)), "finished")
    node = {"type": "person_job", "props": {"person": "Ada", "default_prompt": "Go.", "tools": ["mcp_everything"]}}
    with dp.Session(base, llm=service(model, monkeypatch)) as session:
        run = session.start(diagram(node, persons={"Ada": {"service": "openai", "model": "m"}}), view=False)
        asked: list[str] = []
        while not run.finished:
            if run.question is None or run.question["prompt"] in asked:
                time.sleep(0.01)
                continue
            asked.append(run.question["prompt"])
            run.answer(next(answer for part, answer in ANSWERS.items() if part in asked[-1]))
        assert run.result().outputs["E"] == "finished"
    assert len(asked) == len(ANSWERS)
    told = [message.tool_result.content for message in model.asked[-1].messages if message.tool_result is not None]
    assert "23" in told[0]
    assert "Echo: done" in told[2]
    raw = re.search(r"Raw result: (\{.*\})", told[1], re.DOTALL)
    assert raw
    assert json.loads(raw[1])["content"] == {
        "name": "Ada 😀", "check": True, "firstLine": "It was a dark and stormy night.", "email": "ada@example.org",
        "homepage": "https://example.org", "birthdate": "1815-12-10", "integer": 7, "number": 3.14,
        "untitledSingleSelectEnum": "Joey", "untitledMultipleSelectEnum": ["Piano", "Drums"], "titledSingleSelectEnum": "hero-2",
        "titledMultipleSelectEnum": ["fish-1"], "legacyTitledEnum": "pet-2",
    }  # fmt: skip
