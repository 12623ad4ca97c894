"""`dipeo-nb acp`: a diagram as an agent of editors (Agent Client Protocol: Zed, JetBrains, jupyter-ai).

| of a run | in the protocol |
|---|---|
| inputs | the prompt: a JSON object is the inputs, any other text the value of the first input that has no default |
| nodes | the plan; each run of one is a tool call |
| user_response | a request for permission: yes, no, the node's default, or an answer in words, which is the next prompt |
| result | a message of the agent |
| cancel | the run is stopped |

Needs the extra `acp`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from dipeo_nb.common.loop import blocking_result, submit
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.values import json_text
from dipeo_nb.domain.enums import EventType, NodeType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import DipeoError, MissingDependencyError
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.server.diagram_tools import Asked, DiagramTool, DiagramTools, described, inputs_of, place_of, text_of

try:
    import acp
    from acp import helpers, schema
except ImportError as error:
    raise MissingDependencyError.for_extra("agent-client-protocol", extra="acp") from error

SHOWN = 4_000
"""Characters of what a node gave that are shown with its tool call."""
_KINDS: dict[str, Any] = {
    NodeType.PERSON_JOB: "think", NodeType.CONDITION: "think", NodeType.CODE_JOB: "execute", NodeType.HOOK: "execute",
    NodeType.DB: "read", NodeType.API_JOB: "fetch", NodeType.INTEGRATED_API: "fetch", NodeType.ENDPOINT: "edit",
}  # fmt: skip
_IN_WORDS = "in words"


@dataclass
class _Session:
    """A conversation of the editor."""

    run_id: str | None = None
    """The run that is going on, or that waits for the next prompt."""
    asked: Asked | None = None
    """The question that the next prompt answers."""
    busy: bool = False
    cancelled: bool = False


class DiagramAgent:
    """An agent of the protocol over one diagram."""

    def __init__(self, tools: DiagramTools, version: str = "") -> None:
        self.tools = tools
        self._version = version
        self._client: Any = None
        self._sessions: dict[str, _Session] = {}

    def on_connect(self, conn: Any) -> None:
        """The client's side of the connection."""
        self._client = conn

    async def initialize(self, protocol_version: int, **more: Any) -> schema.InitializeResponse:
        return schema.InitializeResponse(
            protocol_version=min(protocol_version, acp.PROTOCOL_VERSION),
            agent_capabilities=schema.AgentCapabilities(prompt_capabilities=schema.PromptCapabilities(embedded_context=True)),
            agent_info=schema.Implementation(name="dipeo-nb", title=self._tool().title, version=self._version),
        )

    async def new_session(self, cwd: str, **more: Any) -> schema.NewSessionResponse:
        session_id = uuid.uuid4().hex
        self._sessions[session_id] = _Session()
        return schema.NewSessionResponse(session_id=session_id)

    async def prompt(self, session_id: str, prompt: list[Any], **more: Any) -> schema.PromptResponse:
        session = self._session(session_id)
        if session.busy:
            raise acp.RequestError.invalid_request({"reason": "The run of this session has not ended."})
        session.busy, session.cancelled, since = True, False, 0
        try:
            if session.asked is not None and session.run_id is not None:
                asked, since = session.asked, session.asked.seq
                session.asked = None
                await self.tools.answer(place_of(asked), _text(prompt))
                after = asked.request_id
            else:
                tool = self._tool()
                session.run_id, after = await self.tools.start(tool.name, inputs_of(tool, _text(prompt))), None
            return await self._followed(session_id, session, since, after)
        except DipeoError as error:
            await self._say(session_id, redactor.text(described(error)))
            return schema.PromptResponse(stop_reason="refusal")
        finally:
            session.busy = False

    async def cancel(self, session_id: str, **more: Any) -> None:
        session = self._session(session_id)
        session.cancelled, session.asked = True, None
        if session.run_id is not None:
            self.tools.stop(session.run_id, "stopped in the editor")

    async def _followed(self, session_id: str, session: _Session, since: int, after: str | None) -> schema.PromptResponse:
        """Show a run until it has ended, or asks for an answer in words."""
        assert session.run_id is not None
        shown = _Shown(self, session_id, self._tool())
        while True:
            found = await self.tools.until_it_asks(session.run_id, since=since, after=after, tell=shown.event)
            if isinstance(found, RunState):
                session.run_id = None
                if session.cancelled:
                    return schema.PromptResponse(stop_reason="cancelled")
                await self._say(session_id, redactor.text(text_of(found)))
                return schema.PromptResponse(stop_reason="end_turn" if found.status == Status.COMPLETED else "refusal")
            since, after = found.seq, found.request_id
            answer = await self._permission(session_id, found)
            if session.cancelled:
                self.tools.stop(found.run_id, "stopped in the editor")
            elif answer == _IN_WORDS:
                session.asked = found
                await self._say(session_id, redactor.text(found.prompt))
                return schema.PromptResponse(stop_reason="end_turn")
            else:
                await self.tools.answer(place_of(found), answer)

    async def _permission(self, session_id: str, asked: Asked) -> str | None:
        """The user's answer; None: the question was dismissed."""
        options = [
            schema.PermissionOption(option_id="yes", name="Yes", kind="allow_once"),
            schema.PermissionOption(option_id="no", name="No", kind="reject_once"),
        ]
        if asked.kind in ("number", "integer"):
            options = []
        if asked.default is not None and asked.default.lower() not in ("yes", "no"):
            options.append(schema.PermissionOption(option_id="default", name=asked.default[:80], kind="allow_once"))
        if asked.kind != "boolean":
            options.append(schema.PermissionOption(option_id=_IN_WORDS, name="Answer in the chat", kind="allow_once"))
        call = schema.ToolCallUpdate(
            tool_call_id=f"{asked.run_id}:{asked.request_id}", title=redactor.text(asked.prompt), kind="other", status="pending"
        )
        given = await self._client.request_permission(session_id=session_id, tool_call=call, options=options)
        chosen = getattr(given.outcome, "option_id", None)
        return asked.default if chosen == "default" else chosen if chosen in {option.option_id for option in options} else None

    async def _say(self, session_id: str, text: str) -> None:
        await self._client.session_update(session_id=session_id, update=helpers.update_agent_message_text(text))

    async def show(self, session_id: str, update: Any) -> None:
        """Show something in the editor."""
        await self._client.session_update(session_id=session_id, update=update)

    def _session(self, session_id: str) -> _Session:
        if session_id not in self._sessions:
            raise acp.RequestError.invalid_params({"reason": "There is no such session.", "session_id": session_id[:80]})
        return self._sessions[session_id]

    def _tool(self) -> DiagramTool:
        return next(iter(self.tools.tools().values()))

    # What this agent does not have; the protocol lets an agent say so.

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        raise acp.RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """Notifications of extensions are not for us."""


class _Shown:
    """A run as a plan and tool calls."""

    def __init__(self, agent: DiagramAgent, session_id: str, tool: DiagramTool) -> None:
        self._agent, self._session_id = agent, session_id
        nodes = tool.document.model.nodes
        self._types = {node.id: node.type for node in nodes}
        self._plan: dict[str, list[Any]] = {node.id: [node.label, "pending"] for node in nodes}
        self._runs: dict[str, int] = {}

    async def event(self, event: Event) -> None:
        node = event.node_id or ""
        status: Any = {
            EventType.NODE_STARTED: "in_progress", EventType.NODE_COMPLETED: "completed", EventType.NODE_ERROR: "failed",
        }.get(event.type)  # fmt: skip
        if status is None or node not in self._plan:
            return
        if status == "in_progress":
            self._runs[node] = self._runs.get(node, 0) + 1
        self._plan[node][1] = "completed" if status == "failed" else status
        call = f"{event.run_id}:{node}:{self._runs.get(node, 1)}"
        if status == "in_progress":
            kind = _KINDS.get(self._types[node], "other")
            update: Any = helpers.start_tool_call(call, self._plan[node][0], kind=kind, status="in_progress")
        else:
            update = helpers.update_tool_call(
                call, status=status, content=[helpers.tool_content(helpers.text_block(_given(event)))]
            )
        await self._agent.show(self._session_id, update)
        entries = [helpers.plan_entry(label, status=step) for label, step in self._plan.values()]
        await self._agent.show(self._session_id, helpers.update_plan(entries))


def _given(event: Event) -> str:
    error: Any = event.payload.get("error")
    value: Any = error.get("message") if isinstance(error, dict) else event.payload.get("output", "")
    text = value if isinstance(value, str) else json_text(value)
    return redactor.text(text)[:SHOWN]


def _text(prompt: list[Any]) -> str:
    """The words of a prompt, and the texts that come with it."""
    parts = [getattr(block, "text", None) or getattr(getattr(block, "resource", None), "text", None) for block in prompt]
    return "\n".join(part for part in parts if part)


def serve(agent: DiagramAgent) -> None:
    """Serve the editor that started this program, until it closes our input."""

    async def run() -> None:
        await agent.tools.runtime.initialize()
        await acp.run_agent(agent)  # pyright: ignore[reportArgumentType] - the rest of the protocol is optional

    blocking_result(submit(run()))
