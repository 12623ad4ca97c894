"""The page of a diagram that `dipeo-nb mcp` serves, in the sandboxed frame of a host that speaks SEP-1865, without a network."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
pytest.importorskip("mcp", reason="not here: the extra mcp")

from mcp import Client, StdioServerParameters
from mcp.client.extension import advertise
from mcp.client.stdio import stdio_client
from playwright.sync_api import Browser, Page, expect

from dipeo_nb.common.loop import run_sync

pytestmark = pytest.mark.browser
DIAGRAM = """
version: light
metadata: {name: Greets, description: Greets somebody}
persons:
  Ada: {service: echo, model: m}
nodes:
- {label: Start, type: start, custom_data: {who: Bo}}
- {label: Say, type: person_job, person: Ada, default_prompt: "Hello {{who}} <b>&amp;</b> </script>.", max_iteration: 1}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: End}
"""
HOST = """<!doctype html><html lang="en"><title>Host</title><body><iframe sandbox="allow-scripts" style="width: 1100px; height: 700px"></iframe><script>
const frame = document.querySelector("iframe"), told = window.told = [];
window.say = (message) => frame.contentWindow.postMessage({ jsonrpc: "2.0", ...message }, "*");
addEventListener("message", ({ data, source }) => {
  if (source !== frame.contentWindow) return;
  told.push(data);
  if (data.method === "ui/initialize")
    say({ id: data.id, result: { protocolVersion: data.params.protocolVersion, hostInfo: { name: "host", version: "1" }, hostCapabilities: {}, hostContext: { theme: "dark" } } });
});
frame.srcdoc = PAGE;
</script></body></html>"""


def called(base: Path, mode: Any, *, shows: bool = True) -> tuple[Any, Any, Any]:
    """(tool, its page, the result of a call) as a client gets them that shows pages or does not."""
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "dipeo_nb", "mcp", "--base-dir", str(base)], env=dict(os.environ)
    )
    apps = [advertise("io.modelcontextprotocol/ui", {"mimeTypes": ["text/html;profile=mcp-app"]})] if shows else []

    async def use() -> tuple[Any, Any, Any]:
        async with Client(stdio_client(server), mode=mode, extensions=apps) as client:
            if mode == "auto":  # there are no extensions before 2026-07-28, and hosts take pages all the same
                assert "io.modelcontextprotocol/ui" in client.server_capabilities.extensions
            (tool,) = (await client.list_tools()).tools
            (page,) = (await client.read_resource(tool.meta["ui"]["resourceUri"])).contents
            assert str(page.uri) in [str(resource.uri) for resource in (await client.list_resources()).resources]
            return tool, page, await client.call_tool(tool.name, {"who": "Eve 😀"})

    return run_sync(asyncio.wait_for(use(), 90))  # Playwright has a loop in this thread


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "greets.light.yaml").write_text(DIAGRAM)
    return folder


@pytest.fixture
def offline(chrome: Browser) -> Iterator[Page]:
    """A page without a network; what a script or a policy complains about fails the test."""
    context = chrome.new_context(offline=True, viewport={"width": 1200, "height": 800})
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(error.message))
    opened.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    yield opened
    context.close()
    assert complaints == []


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_page_shows_the_diagram_and_then_its_run(base: Path, mode: Any, offline: Page, shots: Path) -> None:
    tool, page, result = called(base, mode)
    assert tool.meta == {"ui": {"resourceUri": "ui://dipeo/greets.html"}}
    assert page.mime_type == "text/html;profile=mcp-app"
    assert len(page.text) < 400_000
    offline.set_content(HOST.replace("PAGE", json.dumps(page.text).replace("</", "<\\/")))
    inside = offline.frame_locator("iframe")
    expect(inside.locator("svg.dp-drawing")).to_be_visible()
    offline.wait_for_function("told.some((one) => one.method === 'ui/notifications/initialized')")
    offline.screenshot(path=shots / "mcp-app-before.png")
    answer = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    offline.evaluate("(params) => say({ method: 'ui/notifications/tool-result', params })", answer)
    expect(inside.locator(".dp-pill")).to_have_text("done")
    expect(inside.locator(".dp-run")).to_have_attribute("data-theme", "dark")
    inside.locator("[data-node]").filter(has_text="Say").click()
    expect(inside.locator(".dp-run")).to_contain_text("Hello Eve 😀 <b>&amp;</b> </script>.")
    offline.screenshot(path=shots / "mcp-app.png")
    offline.evaluate("say({ method: 'ui/notifications/host-context-changed', params: { theme: 'light' } })")
    expect(inside.locator(".dp-run")).to_have_attribute("data-theme", "light")
    offline.evaluate(
        "say({ id: 7, method: 'ui/resource-teardown', params: {} }); say({ id: 8, method: 'tools/call', params: {} })"
    )
    offline.wait_for_function("told.some((one) => one.id === 8)")
    told = offline.evaluate("told")
    assert told[0]["params"]["protocolVersion"] == "2026-01-26"
    assert {"width", "height"} == set(
        next(one for one in told if one.get("method") == "ui/notifications/size-changed")["params"]
    )
    assert next(one for one in told if one.get("id") == 7)["result"] == {}
    assert next(one for one in told if one.get("id") == 8)["error"]["code"] == -32601


def test_a_host_that_keeps_the_log_back(base: Path, offline: Page) -> None:
    """A client that shows no pages gets no log. A page without one, or with a broken one, says what it can."""
    _, page, result = called(base, "auto", shows=False)
    assert "dipeo-nb/run" not in (result.meta or {})
    offline.set_content(HOST.replace("PAGE", json.dumps(page.text).replace("</", "<\\/")))
    inside = offline.frame_locator("iframe")
    expect(inside.locator("svg.dp-drawing")).to_be_visible()
    answer = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    offline.evaluate("(params) => say({ method: 'ui/notifications/tool-result', params })", answer)
    expect(inside.locator(".dp-result")).to_contain_text("Hello Eve 😀")
    broken = {"content": [], "_meta": {"dipeo-nb/run": "bm8="}}
    offline.evaluate("(params) => say({ method: 'ui/notifications/tool-result', params })", broken)
    expect(inside.get_by_role("alert")).to_contain_text("cannot be shown")
    expect(inside.locator("svg.dp-drawing")).to_be_visible()
