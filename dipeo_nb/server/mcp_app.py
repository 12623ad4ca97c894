"""The drawing of a diagram as an MCP App: a page that clients show beside a call of its tool, offline.

The page is the run view. It shows the diagram, and when the call has ended its run: the log comes with the result, in its `_meta`, which
no model reads, and only to clients that show pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mcp_types as types
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID, client_supports_apps

from dipeo_nb.domain.ports import RunStore
from dipeo_nb.execution import run_file, run_page
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.server.diagram_tools import DiagramTool

EXTENSION = EXTENSION_ID
LOG = "dipeo-nb/run"
"""Where the log of a run is in the `_meta` of a result."""
SIZE = 300_000
"""Characters of such a log at most, where it can be kept; see `run_file.packed`."""
EVENTS = 5_000
"""Events in it, of a run and of those of its sub-diagrams, at most."""
_PAGE = "ui://dipeo/{}.html"
_SHOWN: dict[str, Any] = {"ui": {"prefersBorder": True}}


def of_tool(name: str) -> dict[str, Any]:
    """The `_meta` of a tool, which names its page."""
    return {"ui": {"resourceUri": _PAGE.format(name)}}


def resource(name: str, tool: DiagramTool) -> types.Resource:
    """The page of a tool in the list of resources."""
    return types.Resource(uri=_PAGE.format(name), name=f"{tool.title}, as it runs", mime_type=APP_MIME_TYPE, _meta=_SHOWN)


def named(uri: str) -> str | None:
    """The tool whose page has this address; None: it is another address."""
    before, after = _PAGE.split("{}")
    return uri[len(before) : -len(after)] if uri.startswith(before) and uri.endswith(after) else None


async def page(uri: str, tool: DiagramTool) -> types.TextResourceContents:
    """The page of a tool."""
    state = RunState(diagram=tool.title, source=tool.document.to_data())
    data = f'<script type="application/octet-stream" id="data">{await run_file.packed([run_file.held((), state)])}</script>'
    html = run_page.document("app.js", title=tool.title, inside=data)
    return types.TextResourceContents(uri=uri, mime_type=APP_MIME_TYPE, text=html, _meta=_SHOWN)


async def of_result(context: Any, store: RunStore, run_id: str) -> Mapping[str, Any] | None:
    """The `_meta` of the result of a run: its log; None for a client that shows no pages."""
    if not client_supports_apps(context):
        return None
    return {LOG: await run_file.packed(await run_file.recorded(store, run_id), SIZE, EVENTS)}
