"""An MCP server for tests, over stdio or HTTP: `python -m tests.support.mcp_tools [PORT]`."""

import asyncio
import os
import sys
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, ElicitationResult, Resolve
from mcp.types import ToolAnnotations
from pydantic import BaseModel

server = MCPServer("tools")


class Agreed(BaseModel):
    """What the user is asked for."""

    name: str


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


@server.tool()
def echo(text: str) -> str:
    """Say it again."""
    return text


@server.tool()
def fail() -> str:
    """Report an error."""
    raise ToolError("it did not work")


@server.tool(annotations=ToolAnnotations(destructive_hint=True))
def erase(path: str) -> str:
    """Delete something."""
    return f"erased {path}"


@server.tool()
async def hang() -> str:
    """Never answer."""
    await asyncio.sleep(3600)
    return ""


@server.tool()
def die() -> str:
    """End the server."""
    os._exit(3)


@server.tool()
async def count(context: Context[Any, Any]) -> str:
    """Say how far it is."""
    for n in (1, 2, 3):
        await context.report_progress(n, 3, f"step {n}")
    return "done"


async def asked_name() -> Elicit[Agreed]:
    return Elicit("What is your name?", Agreed)


@server.tool()
def greet(agreed: Annotated[ElicitationResult[Agreed], Resolve(asked_name)]) -> str:
    """Ask for a name."""
    return f"Hello {agreed.data.name}" if agreed.action == "accept" else f"({agreed.action})"


def grown() -> str:
    """What was not there at first."""
    return "I am new"


@server.tool()
def grow() -> str:
    """Have one tool more from now on."""
    server.add_tool(grown)
    return "grown"


@server.tool()
def environment(name: Annotated[str, "variable"]) -> str:
    """A variable of the server."""
    return os.environ.get(name, "")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
