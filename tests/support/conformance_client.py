"""Our MCP client as the conformance suite starts it: `python -m tests.support.conformance_client URL`.

A run calls each tool that the scenario names, else each that there is; it answers every question with the default.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dipeo_nb as dp
from dipeo_nb.common.loop import run_sync
from dipeo_nb.errors import DipeoError
from dipeo_nb.testing import scripted

EXAMPLES = {"integer": 2, "number": 2, "boolean": True, "array": [], "object": {}}


def main(url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(DIPEO_TRUST=folder, DIPEO_DATA_DIR=f"{folder}/.data", DIPEO_KEYS_STORE="file", XDG_CONFIG_HOME=folder)
        Path(folder, ".mcp.json").write_text(json.dumps({"mcpServers": {"suite": {"type": "http", "url": url}}}))
        with dp.Session(folder, llm=scripted()) as session:
            offered = {tool.operation.removeprefix("mcp_suite."): tool.schema for tool in run_sync(offers(session))}
            calls = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}").get("toolCalls")
            for call in calls or [{"name": name, "arguments": arguments(schema, offered)} for name, schema in offered.items()]:
                try:
                    print(call["name"], carried_out(session, call["name"], call.get("arguments", {})))
                except DipeoError as error:  # some tools of the suite are to be refused
                    print(call["name"], error)


async def offers(session: dp.Session) -> Any:
    return await session.runtime.services.integrations.find("mcp_suite").offered()


def arguments(schema: Any, offered: Any) -> dict[str, Any]:
    """An example of what a tool takes; one that wants the schema of a tool gets it."""
    fields = schema.get("properties", {})
    return {
        name: next(iter(offered.values())) if name == "schema" else EXAMPLES.get(fields[name].get("type"), "x")
        for name in schema.get("required", fields)
    }


def carried_out(session: dp.Session, operation: str, config: Any) -> Any:
    node = {"provider": "mcp_suite", "operation": operation, "config": config, "timeout": 25}
    nodes = [
        {"label": "S", "type": "start"},
        {"label": "Call", "type": "integrated_api", "props": node},
        {"label": "E", "type": "endpoint"},
    ]
    arrows = [{"from": "S", "to": "Call"}, {"from": "Call", "to": "E", "content_type": "object"}]
    run = session.start({"version": "light", "nodes": nodes, "connections": arrows}, view=False)
    answered: set[str] = set()
    while not run.finished:
        if (asked := run.question) is not None and asked["request_id"] not in answered:
            answered.add(asked["request_id"])
            run.answer("")
        time.sleep(0.02)
    return run.result().outputs


if __name__ == "__main__":
    main(sys.argv[-1])
