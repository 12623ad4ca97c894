"""Diagrams as tools of other programs: what a diagram takes, and a run of it up to its end or its next question.

A question leaves the run waiting. Its place is in a signed text, with which its answer also reaches a later process: one that was
killed left the run in the store, and the answer resumes it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipeo_nb.common.text import did_you_mean
from dipeo_nb.common.values import json_text, parse_json
from dipeo_nb.diagram.detect import available
from dipeo_nb.diagram.document import Diagram, load, load_named
from dipeo_nb.diagram.drawing import draw
from dipeo_nb.diagram.labels import NodeLook
from dipeo_nb.diagram.schema_check import validator
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.nodes import StartNode, UserResponseNode
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import ConfigurationError, DiagramError, RunError, ValidationError
from dipeo_nb.execution.asked import OpenQuestions, path_of
from dipeo_nb.execution.interaction import Unanswered
from dipeo_nb.execution.run_file import diagram_of
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.runtime import Runtime
from dipeo_nb.security.trust import Allow
from dipeo_nb.server.going import GoingRuns

MOST_ARGUMENTS = 5_000_000
"""Characters of the arguments of a call, as JSON."""
LEFT_S = 2.0
"""Seconds that an answer which was left in the store may take to be taken up."""
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
_NAMED = re.compile(r"names '(\w{1,100})', which no arrow")


@dataclass(frozen=True, slots=True)
class DiagramTool:
    """A diagram as others see it."""

    name: str
    title: str
    description: str
    schema: Mapping[str, Any]
    """JSON schema of its inputs."""
    document: Diagram


@dataclass(frozen=True, slots=True)
class Asked:
    """A run that waits for an answer."""

    run_id: str
    request_id: str
    label: str
    prompt: str
    default: str | None
    kind: str
    """`string`, `email`, `url`, `number`, `integer` or `boolean`, which an approval is, too."""
    seq: int
    """Number of the last event that was looked at."""
    choices: tuple[str, ...] = ()
    """Answers to choose from; none: any."""


class DiagramTools:
    """The diagrams of a server, and the runs of them.

    Args:
        names: files of diagrams; none: those below the base directory.
        allow: what diagrams that are not the user's own may do besides calling models.
        model: moves every person.

    Raises:
        DiagramError: a file cannot be read.
    """

    def __init__(
        self, runtime: Runtime, names: Sequence[str] = (), *, allow: Allow | None = None, model: str | None = None
    ) -> None:
        self.runtime = runtime
        self.runs = GoingRuns(runtime)
        self._names = tuple(names)
        self._allow = allow
        self._model = model
        for name in self._names:
            load(name, base_dir=runtime.settings.base_dir)

    def tools(self) -> dict[str, DiagramTool]:
        """The diagrams that can run, as they are now, by the names of their tools."""
        base = self.runtime.settings.base_dir
        found: dict[str, DiagramTool] = {}
        for name in self._names or available(base):
            try:
                document = load(name, base_dir=base) if self._names else load_named(name, base)
                tool = _tool(_free(_tool_name(name), found), document, self.runtime.compile(document))
            except DiagramError:  # `dipeo-nb validate` says what is wrong with it; its neighbours are none the worse
                if self._names:
                    raise
                continue
            found[tool.name] = tool
        return found

    def tool(self, name: str) -> DiagramTool:
        """One of them. Raises ValidationError."""
        tools = self.tools()
        if name not in tools:
            raise ValidationError(
                f"There is no tool '{name:.80}'.",
                hint=did_you_mean(name, tools, f"There are: {', '.join(tools) or 'none'}."),
                cause="no_tool",
            )
        return tools[name]

    async def start(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Begin a run; returns its id.

        Raises:
            ValidationError: there is no such tool, or the arguments do not fit.
            TrustError: the diagram wants more than it may do.
        """
        tool = await asyncio.to_thread(self.tool, name)
        if len(json_text(dict(arguments))) > MOST_ARGUMENTS:
            raise ValidationError(f"The arguments have more than {MOST_ARGUMENTS:,} characters.", hint="Send less.")
        for problem in validator(dict(tool.schema)).iter_errors(dict(arguments)):
            where = "".join(f"[{step!r}]" for step in problem.absolute_path)
            raise ValidationError(
                f"{name}: the arguments{where} do not fit: {problem.message[:300].rstrip('.')}.",
                hint=f"It takes: {', '.join(tool.schema['properties']) or 'nothing'}.",
            )
        prepared = await asyncio.to_thread(
            self.runtime.prepare, tool.document, trust=None, allow=self._allow, model=self._model
        )
        execution = self.runtime.execution(
            prepared,
            variables=arguments,
            model=self._model,
            interaction=Unanswered(),
            source=tool.document.to_data(),
        )
        self.runs.begin(execution)
        return execution.run_id

    async def until_it_asks(
        self, run_id: str, *, since: int = 0, after: str | None = None, tell: Callable[[Event], Any] | None = None
    ) -> Asked | RunState:
        """Follow a run until a question waits, or to its end.

        Args:
            since: events up to this one are not passed on again.
            after: a question that the user has been asked already.
            tell: hears of each event; may be a coroutine function.

        Raises:
            UserError: there is no such run.
        """
        questions = OpenQuestions()
        async with aclosing(self.runtime.router.events(run_id)) as events:
            async for event in events:
                questions.take(event)
                if tell is not None and event.seq > since and (telling := tell(event)) is not None:
                    await telling
                for request_id, payload in list(questions.found.items()):
                    if request_id != after and await self._waits(run_id, request_id):
                        return self._asked(run_id, request_id, payload, event.seq)
        return await self.runs.state(run_id)

    async def answer(self, asked: Mapping[str, Any], text: str | None) -> None:
        """Answer a question; without a text its default counts, and where there is none the run is stopped.

        A run whose process is gone is resumed with the answer. An answer to a question that no longer waits changes nothing.

        Raises:
            UserError: there is no such run.
        """
        run_id, request_id = str(asked["run"]), str(asked["question"])
        text = asked.get("default") if text is None else text
        row = await self.runtime.find_run(run_id)
        if row.status not in (Status.RUNNING, Status.INTERRUPTED):
            return
        if text is None:
            if (execution := self.runs.get(run_id)) is not None:
                execution.stop("the user did not answer")
            return
        try:
            await self.runtime.answer(run_id, text, request_id=request_id)
        except RunError as error:  # answered already, or too late
            if error.facts.get("cause") != "no_question":
                raise
        if row.status == Status.INTERRUPTED:
            await self._resume(run_id)

    async def wake(self, run_id: str) -> None:
        """Resume a run whose process is gone, so that its question waits again. Raises as `answer`."""
        if (await self.runtime.find_run(run_id)).status == Status.INTERRUPTED:
            await self._resume(run_id)

    async def _resume(self, run_id: str) -> None:
        recovery = await self.runtime.recover(run_id, allow=self._allow)
        self.runs.begin(self.runtime.resumption(recovery, interaction=Unanswered()))
        await self.runs.recorded(run_id)

    def stop(self, run_id: str, reason: str) -> None:
        """Stop a run that is executing here."""
        if (execution := self.runs.get(run_id)) is not None:
            execution.stop(reason)

    def drawing(self, state: RunState) -> str | None:
        """The drawing of a run; None when its record has no diagram."""
        if (diagram := diagram_of(state)) is None:
            return None
        looks = {i: NodeLook(str(n.status), n.runs, "") for i, n in state.nodes.items()}
        return draw(diagram, status=looks, title=f"{state.diagram}, {state.status}")

    # Signed places of questions.

    def sealed(self, tool: str, asked: Asked) -> str:
        """A text that brings an answer to its question, which only this user's processes can make.

        Raises:
            ConfigurationError: there is no secret to sign with.
        """
        place = {
            "tool": tool, "run": asked.run_id, "question": asked.request_id, "seq": asked.seq, "label": asked.label,
            "default": asked.default,
        }  # fmt: skip
        return f"{base64.urlsafe_b64encode(json_text(place).encode()).decode()}.{self._mac(place)}"

    def opened(self, tool: str, text: str) -> Mapping[str, Any]:
        """The place in such a text. Raises ValidationError when it was not made here, or for another tool."""
        try:
            data, _, mac = text.partition(".")
            place = json.loads(base64.urlsafe_b64decode(data.encode("ascii")))
            if hmac.compare_digest(self._mac(place).encode(), mac.encode()) and place["tool"] == tool:
                return place
        except (ValueError, TypeError, KeyError, RecursionError):
            pass  # as one that is not signed
        raise ValidationError(
            "This is not the place of a question of this tool.", hint="Call the tool again.", cause="no_place"
        )

    def _mac(self, place: Any) -> str:
        mac = self.runtime.trust.signatures.mark(["question of a tool", place])
        if mac is None:
            raise ConfigurationError(
                "Questions cannot be signed: the folder of the user's data is not writable.",
                hint="Make it writable (DIPEO_DATA_DIR).",
            )
        return mac

    # Inside.

    async def _waits(self, run_id: str, request_id: str) -> bool:
        """Whether an open question of the log waits: not one of a process that is gone, nor one whose answer is on its way."""
        execution = self.runs.get(run_id)
        if execution is None:
            return (await self.runtime.find_run(run_id)).status == Status.RUNNING
        store = self.runtime.services.store
        for _ in range(int(LEFT_S / 0.05)):
            if not execution.questions.waits(request_id):
                return False
            if not hasattr(store, "answers") or not await store.answers(run_id):
                return True
            await asyncio.sleep(0.05)
        return execution.questions.waits(request_id)

    def _asked(self, run_id: str, request_id: str, payload: Mapping[str, Any], seq: int) -> Asked:
        execution, kind = self.runs.get(run_id), None
        if execution is not None and (index := execution.plan.by_id.get(payload["node_id"])) is not None:
            spec = execution.plan.nodes[index].spec
            kind = spec.validation_type if isinstance(spec, UserResponseNode) else None
        if payload.get("kind") == "approval":
            kind = "boolean"
        return Asked(
            run_id, request_id, path_of(payload)[-1], str(payload["prompt"]), payload.get("default"),
            kind if kind in ("email", "url", "number", "integer", "boolean") else "string", seq, tuple(payload.get("choices", ())),
        )  # fmt: skip


def result_of(state: RunState) -> dict[str, Any]:
    """The result of a run as data."""
    report = state.report()
    kept = ("run_id", "status", "diagram", "outputs", "cost_usd", "duration_s", "error")
    return {name: report[name] for name in kept if report.get(name) is not None}


def text_of(state: RunState) -> str:
    """The result of a run in words: its only output as it is, several as JSON; of a failed one the error and the next step."""
    if state.error is not None or state.status != Status.COMPLETED:
        error = state.error or {}
        where = f" (node '{error['node']}')" if error.get("node") else ""
        return f"{error.get('message') or state.status}{where} {error.get('hint') or ''}".strip()
    return in_words(state.outputs)


def in_words(outputs: Mapping[str, Any]) -> str:
    """Outputs as text: the only one as it is, several as JSON."""
    value = next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)
    return value if isinstance(value, str) else json_text(value)


def place_of(asked: Asked) -> dict[str, Any]:
    """Where an answer goes; see `DiagramTools.answer`."""
    return {"run": asked.run_id, "question": asked.request_id, "default": asked.default}


def inputs_of(tool: DiagramTool, text: str) -> dict[str, Any]:
    """The inputs that a message means: a JSON object is the inputs, any other text the value of the first one without a default."""
    try:
        value = parse_json(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    properties = tool.schema["properties"]
    name = next((name for name, about in properties.items() if "default" not in about), next(iter(properties), None))
    return {} if name is None or not text.strip() else {name: text}


def _tool(name: str, document: Diagram, plan: Plan) -> DiagramTool:
    about = document.model.metadata.description if document.model.metadata else None
    properties: dict[str, Any] = {}
    for node in plan.nodes:
        if isinstance(node.spec, StartNode) and isinstance(node.spec.custom_data, Mapping):
            for key, value in node.spec.custom_data.items():
                kind = _KINDS.get(type(value))
                properties[str(key)] = {
                    **({"type": kind} if kind else {}),
                    **({"default": value} if value not in (None, "") else {}),
                }
    for finding in plan.diagnostics:
        if finding.code == "unknown-name" and (named := _NAMED.search(finding.message)):
            properties.setdefault(named[1], {"description": f"Named by '{finding.node}'."})
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    steps = " → ".join(node.label for node in plan.nodes[:12])
    return DiagramTool(name, document.name, about or f"Runs the diagram {document.name}: {steps}.", schema, document)


def _tool_name(name: str) -> str:
    stem = Path(name).name
    for suffix in (".yaml", ".yml", ".json", ".light", ".native", ".readable", ".executable"):
        stem = stem.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem.rpartition(":")[2])[:60].strip("_") or "diagram"


def _free(name: str, taken: Mapping[str, Any]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def described(error: Any) -> str:
    """An error with the next step, and the list of what a diagram wants when that is the reason."""
    lines = [error.message, *(error.listing() if hasattr(error, "listing") else ()), error.hint or ""]
    return "\n".join(line for line in lines if line)
