"""`dipeo-nb mcp`: diagrams as tools over the Model Context Protocol, for both of its eras (2025-11-25 and 2026-07-28).

| of a run | in the protocol |
|---|---|
| inputs | the input schema: the data of the start node, and the names that nothing in the diagram provides |
| nodes | progress |
| user_response | elicitation; of 2026-07-28 the place of the question is signed, so its answer survives the server |
| result | text, images, sounds and files, structured data, and a link to the drawing, which is a resource |
| drawing | an MCP App: a page beside the call that shows the run |

Each diagram is also a prompt, which clients offer as a command.

Needs the extra `mcp`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dipeo_nb.common.loop import blocking_result, submit
from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import DipeoError, MissingDependencyError
from dipeo_nb.execution.record import progress_line
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.server.diagram_tools import DiagramTool, DiagramTools, described, place_of
from dipeo_nb.server.listen import is_local, listen

try:
    import mcp_types as types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
    from mcp.server.transport_security import TransportSecuritySettings
    from mcp.shared.exceptions import MCPError
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS

    from dipeo_nb.server import mcp_app, mcp_content, mcp_prompts, mcp_questions
except ImportError as error:
    raise MissingDependencyError.for_extra(error.name or "mcp", extra="mcp") from error

RUN_DRAWING = "dipeo://runs/{run_id}/drawing.svg"
TOOL_DRAWING = "dipeo://diagrams/{name}/drawing.svg"
SVG = "image/svg+xml"


class DiagramServer:
    """A server of the protocol over diagrams."""

    def __init__(self, tools: DiagramTools, version: str = "") -> None:
        self.tools = tools
        self._shown: set[str] = set()
        """Runs that this server has given links to."""
        self.server: Any = Server(
            "dipeo-nb",
            version=version,
            instructions="Each tool runs a diagram of language models, code and services. It may ask for an answer meanwhile.",
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
        )
        self.server.extensions[mcp_app.EXTENSION] = {}

    # Tools.

    async def _list_tools(self, context: Any, params: Any) -> types.ListToolsResult:
        found = await asyncio.to_thread(self.tools.tools)
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=name,
                    title=tool.title,
                    description=tool.description,
                    input_schema=dict(tool.schema),
                    _meta=mcp_app.of_tool(name),
                )
                for name, tool in found.items()
            ]
        )

    async def _call_tool(self, context: Any, params: types.CallToolRequestParams) -> Any:
        given = {key: r for key, r in (params.input_responses or {}).items() if isinstance(r, types.ElicitResult)}
        try:
            if params.request_state is None:
                run_id = await self.tools.start(params.name, params.arguments or {})
                return await self._followed(context, params.name, run_id, given)
            place = self.tools.opened(params.name, params.request_state)
            if (response := given.pop(str(place["label"]), None)) is not None:
                await self.tools.answer(place, mcp_questions.answer(response))
                after = str(place["question"])
            else:  # it is asked again
                await self.tools.wake(str(place["run"]))
                after = None
            return await self._followed(context, params.name, str(place["run"]), given, int(place["seq"]), after)
        except DipeoError as error:
            if error.facts.get("cause") in ("no_tool", "no_place"):
                raise MCPError(types.INVALID_PARAMS, redactor.text(described(error))) from None
            return _failed(redactor.text(described(error)))

    async def _followed(
        self,
        context: Any,
        name: str,
        run_id: str,
        given: dict[str, types.ElicitResult],
        since: int = 0,
        after: str | None = None,
    ) -> Any:
        """The result of a run, or the question that it waits with.

        Args:
            given: answers by the labels of questions.
            since, after: see `DiagramTools.until_it_asks`.
        """

        async def tell(event: Event) -> None:
            if (line := progress_line(event)) is not None:
                await context.session.report_progress(event.seq, None, redactor.text(line))

        while True:
            try:
                found = await self.tools.until_it_asks(run_id, since=since, after=after, tell=tell)
                if isinstance(found, RunState):
                    return await self._result(context, found)
                response = given.pop(found.label, None)
                modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS
                if response is None:
                    if context.session.client_capabilities is None or context.session.client_capabilities.elicitation is None:
                        how = (
                            f"Run {run_id} waits: {found.prompt}\nThis client cannot be asked. Answer with: "
                            f"dipeo-nb answer {run_id} '{found.label}=…', or give the node a `default`."
                        )
                        if modern:
                            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, how, mcp_questions.needed())
                        return _failed(how)
                    if modern:
                        return types.InputRequiredResult(
                            input_requests={found.label: types.ElicitRequest(params=mcp_questions.form(found))},
                            request_state=self.tools.sealed(name, found),
                        )
                    response = await context.session.elicit_form(found.prompt, mcp_questions.schema(found), context.request_id)
            except asyncio.CancelledError:
                self.tools.stop(run_id, "the client cancelled the call")
                raise
            await self.tools.answer(place_of(found), mcp_questions.answer(response))
            since, after = found.seq, found.request_id

    async def _result(self, context: Any, state: RunState) -> types.CallToolResult:
        self._shown.add(state.run_id)
        if state.source is None:
            return mcp_content.result(state)
        uri = RUN_DRAWING.format(run_id=state.run_id)
        link = types.ResourceLink(uri=uri, name=f"{state.diagram}, as it ran", mime_type=SVG)
        store = self.tools.runtime.services.store
        return mcp_content.result(state, link, meta=await mcp_app.of_result(context, store, state.run_id))

    # Prompts.

    async def _list_prompts(self, context: Any, params: Any) -> types.ListPromptsResult:
        found = await asyncio.to_thread(self.tools.tools)
        return types.ListPromptsResult(prompts=[mcp_prompts.prompt(tool) for tool in found.values()])

    async def _get_prompt(self, context: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        tool, arguments = await self._known(params.name), params.arguments or {}
        if strange := set(arguments) - set(tool.schema["properties"]):
            raise MCPError(types.INVALID_PARAMS, f"{tool.name} has no argument {', '.join(sorted(strange))[:200]}.")
        return mcp_prompts.message(tool, arguments)

    async def _complete(self, context: Any, params: types.CompleteRequestParams) -> types.CompleteResult:
        typed = params.argument.value
        if isinstance(params.ref, types.PromptReference):
            found = mcp_prompts.values(await self._known(params.ref.name), params.argument.name, typed)
        else:
            found = [run_id for run_id in self._shown if run_id.startswith(typed)][-mcp_prompts.MOST_VALUES :]
        return types.CompleteResult(completion=types.Completion(values=found))

    async def _known(self, name: str) -> DiagramTool:
        try:
            return await asyncio.to_thread(self.tools.tool, name)
        except DipeoError as error:
            raise MCPError(types.INVALID_PARAMS, redactor.text(described(error))) from None

    # Drawings.

    async def _list_resources(self, context: Any, params: Any) -> types.ListResourcesResult:
        found = await asyncio.to_thread(self.tools.tools)
        drawings = [
            types.Resource(uri=TOOL_DRAWING.format(name=name), name=f"{tool.title}, drawn", mime_type=SVG)
            for name, tool in found.items()
        ]
        return types.ListResourcesResult(resources=[*drawings, *(mcp_app.resource(name, tool) for name, tool in found.items())])

    async def _list_templates(self, context: Any, params: Any) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(uri_template=RUN_DRAWING, name="A run, drawn", mime_type=SVG)
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def _read_resource(self, context: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        kind, _, rest = uri.removeprefix("dipeo://").partition("/")
        name = rest.removesuffix("/drawing.svg")
        found: types.TextResourceContents | None = None
        try:
            if (of_page := mcp_app.named(uri)) is not None:
                found = await mcp_app.page(uri, await asyncio.to_thread(self.tools.tool, of_page))
            elif kind == "diagrams":
                tool = await asyncio.to_thread(self.tools.tool, name)
                found = _drawing(uri, await asyncio.to_thread(tool.document.svg))
            elif kind == "runs" and name in self._shown:
                state = await self.tools.runs.state(name)
                found = _drawing(uri, await asyncio.to_thread(self.tools.drawing, state))
        except DipeoError:  # there is no such diagram, or no such run any more
            pass
        if found is None:
            raise MCPError(types.INVALID_PARAMS, f"There is no resource {uri[:200]}.", {"uri": uri[:200]})
        return types.ReadResourceResult(contents=[found])


def _drawing(uri: str, svg: str | None) -> types.TextResourceContents | None:
    return None if svg is None else types.TextResourceContents(uri=uri, mime_type=SVG, text=redactor.text(svg))


def _failed(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


# Transports.


def serve_stdio(server: DiagramServer) -> None:
    """Serve the program that started this one, until it closes our input."""

    async def run() -> None:
        runtime = server.tools.runtime
        await runtime.initialize()
        async with stdio_server() as (read, write):
            await server.server.run(read, write, server.server.create_initialization_options())

    blocking_result(submit(run()))


def serve_http(server: DiagramServer, *, host: str, port: int, token: str | None, ready: Any) -> None:
    """Serve over streamable HTTP at `/mcp`, to those who know the token, until Ctrl-C or SIGTERM.

    Args:
        ready: called with (token, port) when it listens.

    Raises:
        ConfigurationError: the address cannot be listened at.
    """
    known = token or secrets.token_urlsafe(24)
    redactor.add(known)
    runtime = server.tools.runtime
    security = None if is_local(host) else TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.server.streamable_http_app(host=host, transport_security=security)

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        await runtime.initialize()
        try:
            yield
        finally:
            await server.tools.runs.end("the server ends")
            await runtime.cleanup()

    async def end() -> None:
        await server.tools.runs.end("the server ends")

    listen(_Guarded(app, known), opened(), host=host, port=port, end=end, ready=lambda port: ready(known, port), lifespan="on")


class _Guarded:
    """An ASGI application for those who know a token."""

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._token = f"Bearer {token}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not secrets.compare_digest(given, self._token):
                headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"www-authenticate", b"Bearer")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send(
                    {
                        "type": "http.response.body",
                        "body": b"Send the token that `dipeo-nb mcp --http` printed: Authorization: Bearer TOKEN.",
                    }
                )
                return
        await self._app(scope, receive, send)
