"""What a handler gets: the node, its inputs, and the run's services. Nothing is global; two runs never meet."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

from dipeo_nb.common.values import is_plain, plain_value, well_formed
from dipeo_nb.diagram.metering import NotQuickError
from dipeo_nb.diagram.templates import unfilled
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, Meter, StreamEvent, TokenUsage
from dipeo_nb.domain.payloads import ItemData, NodeMeta, NodeOutput, PromptData, UsageCounts, UsageData, UsageOutput
from dipeo_nb.domain.ports import CodeRunner, RunGate, Services, TemplateResult
from dipeo_nb.domain.spending import Spending
from dipeo_nb.errors import DipeoError, LLMConnectionError, LLMError, NodeExecutionError
from dipeo_nb.execution import evaluation, shell_text
from dipeo_nb.execution.evaluation import Rendering, Request, SlowEvaluationError
from dipeo_nb.execution.inputs import Inputs, NamesAsRead

if TYPE_CHECKING:
    from dipeo_nb.domain.answer_forms import AnswerForm
    from dipeo_nb.domain.diagram import DomainPerson
    from dipeo_nb.domain.plan import Plan, PlanNode
    from dipeo_nb.execution.code_state import View
    from dipeo_nb.execution.external_events import Signals
    from dipeo_nb.execution.journal import Journal
    from dipeo_nb.execution.progress import RunProgress
    from dipeo_nb.execution.run_options import RunOptions
    from dipeo_nb.execution.run_state import RunState
    from dipeo_nb.execution.shell_text import ShellText

_HEAD = re.compile(r"\w*")
"""The name that a path in a template begins with."""


class ChildRun(Protocol):
    """A run that is part of another one."""

    @property
    def run_id(self) -> str: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def state(self) -> RunState: ...
    @property
    def progress(self) -> RunProgress: ...

    error: DipeoError | None

    def result(self) -> Any: ...
    async def run(self) -> RunState: ...
    def stop(self, reason: str = ...) -> None: ...


class RunScope(Protocol):
    """What a run offers to the work of its nodes: the engine, as handlers see it."""

    @property
    def run_id(self) -> str: ...

    plan: Plan
    gate: RunGate
    services: Services
    options: RunOptions
    parent: NodeContext | None
    """The node of another run whose sub-diagram this run is."""
    progress: RunProgress
    journal: Journal
    signals: Signals
    person_labels: Mapping[str, str]

    @property
    def code(self) -> CodeRunner: ...
    def now(self) -> float: ...
    def person(self, reference: str) -> DomainPerson: ...
    def hear(self, node: PlanNode, payload: Mapping[str, Any]) -> None: ...
    def emit_log(self, node: PlanNode | None, level: str, message: str, **extra: Any) -> None: ...
    def emit_delta(self, node: PlanNode, payload: Mapping[str, Any]) -> None: ...
    async def record(self, node: PlanNode, payload: Mapping[str, Any]) -> None: ...
    async def ask(
        self,
        node: PlanNode,
        prompt: str,
        *,
        timeout: float | None,
        default: str | None,
        path: tuple[str, ...] = ...,
        form: AnswerForm = ...,
    ) -> tuple[str, str]: ...
    async def wait_for(self, node: PlanNode, name: str, filters: Mapping[str, Any], timeout: float) -> dict[str, Any]: ...
    def in_background(self, work: Coroutine[Any, Any, None]) -> None: ...
    def spawn(self, plan: Plan, gate: RunGate, options: RunOptions, **more: Any) -> ChildRun: ...


class NodeContext:
    """One run of one node."""

    def __init__(self, execution: RunScope, node: PlanNode, run: int, inputs: Inputs, attempt: int = 1) -> None:
        self.execution = execution
        self.node = node
        self.run = run
        """1-based number of this run of the node."""
        self.attempt = attempt
        """1-based; more than 1 when it was begun before, by this process (retries) or by one that is gone."""
        self.inputs = inputs

    # One is made for every run of a node, and most need little of what follows: it is made on first use.

    last_try = True
    """False while `retries` of the node are left."""
    acting = False
    """Whether a function of the user's own is at work, which cannot be begun again."""
    published: Mapping[str, Any] = MappingProxyType({})
    """Global variables set so far."""
    _assigned: View | None = None

    @cached_property
    def begun(self) -> set[str]:
        """Runs of sub-diagrams that this process began for it."""
        return set()

    @cached_property
    def _slow(self) -> dict[tuple[str, str, int], Rendering]:
        return {}

    @cached_property
    def _kept(self) -> list[Mapping[str, Any]]:
        """What the identities in the keys of `_slow` belong to."""
        return []

    @cached_property
    def _warned(self) -> list[str]:
        return []

    @cached_property
    def _again(self) -> list[str]:
        """Warnings of the attempt before."""
        return []

    @cached_property
    def _token(self) -> str:
        """Of marks in commands; no value can hold one."""
        return secrets.token_hex(8)

    @cached_property
    def _meta(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _spent(self) -> Spending:
        return Spending()

    @cached_property
    def _paid(self) -> list[UsageData]:
        """Calls that no event tells of yet."""
        return []

    @cached_property
    def prompts(self) -> dict[int | None, tuple[str, PromptData]]:
        """The prompts that were sent last, by the item of a batch."""
        return {}

    @property
    def services(self) -> Services:
        return self.execution.services

    @property
    def assigned(self) -> View:
        """What code has assigned, as this run of the node can know it."""
        if self._assigned is None:
            self._assigned = self.execution.progress.seen_by(self.node, self.inputs)
        return self._assigned

    @property
    def variables(self) -> dict[str, Any]:
        """Variables the node can name: start data < run inputs < published values < what code assigned."""
        return {**self.execution.progress.variables, **self.assigned.variables()}

    @cached_property
    def names(self) -> dict[str, Any]:
        """Everything a template or expression of this node can name."""
        variables = self.variables
        names = self.inputs.names(variables)
        said = self._conversation()
        given = {
            "inputs": dict(self.inputs.values),
            "globals": variables,
            "local": {},
            "global_conversation": said,
            "global_message_count": len(said),
        }
        return {**given, **names}  # a label of the same name wins

    @property
    def names_as_read(self) -> Mapping[str, Any]:
        """The same as `names`, of which only those are worked out that are read: for what reads few."""
        if self.assigned.names:
            return self.names
        return NamesAsRead(self.inputs, self.execution.progress.variables, lambda: self.names)

    def _conversation(self) -> list[Mapping[str, Any]]:
        """The messages of the run so far, of all persons, with their labels as `from` and `to`."""
        return self.execution.progress.log.spoken(self.execution.person_labels)

    def publish(self, name: str, value: Any) -> None:
        """Set a global variable of the run.

        Raises:
            UnsupportedValueError: the value has no form.
        """
        value = value if is_plain(value) else plain_value(value, f"variable {name}")
        self.execution.progress.variables[name] = value
        self.published = {**self.published, name: value} if self.published else {name: value}

    def program(self, path: str, *, code: bool = False) -> str:
        """The text of a file that is run: for a diagram that is not the user's own, as it was shown before the run.

        Args:
            code: it is code, not a template.
        """
        shown = self.execution.gate.source(path, code=code)
        return self.services.files.read_text(path) if shown is None else shown.decode("utf-8-sig")

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt at this run of this node, and for no other: what a service needs to do a thing once."""
        return f"{self.execution.run_id}:{self.node.id}:{self.run}"

    def render(self, template: str, names: Mapping[str, Any] | None = None) -> str:
        """Render a template; names that are missing render empty and are noted in the run's log.

        Before anything that has an effect: when the rendering takes long, the handler is begun again once it is there. Where that
        cannot be, use `rendered`.
        """
        return self._noted(self._rendering("text", template, names).result)

    async def rendered(self, template: str, names: Mapping[str, Any] | None = None) -> str:
        """As `render`, at any moment."""
        if "{" not in template:
            return well_formed(template)
        request = Request("text", template, self.names if names is None else names)
        made = await evaluation.rendered(self.services.templates, request, self.time_limit)
        return self._noted(made.result)

    @property
    def time_limit(self) -> float:
        """Seconds that the node may take, as far as its type has no other limit."""
        timeout = self.node.spec.timeout
        return self.execution.options.node_timeout if timeout is None else timeout

    def _rendering(self, kind: str, template: str, names: Mapping[str, Any] | None = None, token: str = "") -> Rendering:
        if "{" not in template:
            return Rendering(TemplateResult(template), template)
        request = Request(kind, template, self.names if names is None else names, token)
        if self._slow and (ready := self._slow.get(request.key)) is not None:
            return ready
        processor = self.services.templates
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # a function of the user's own, in a thread
            return evaluation.rendered_here(processor, request)
        try:
            return evaluation.rendered_quickly(processor, request)
        except NotQuickError:
            if self.acting:
                raise NodeExecutionError(
                    "The template takes too long to be rendered on the event loop.",
                    hint="Write `await context.rendered(…)` instead of `context.render(…)`.",
                ) from None
            raise SlowEvaluationError(request) from None

    async def finish(self, request: Request) -> None:
        """Make what `SlowEvaluationError` asks for; the handler is begun again after it."""
        made = await evaluation.rendered_elsewhere(self.services.templates, request, self.time_limit)
        self._slow[request.key] = made
        self._kept.append(request.names)
        self._again, self._warned = [*self._warned], []

    def render_value(self, template: str, names: Mapping[str, Any] | None = None) -> Any:
        """The value of a field: what a lone tag (`{{x}}`) names, as it is; any other template's text. Notes as `render`."""
        made = self._rendering("value", template, names)
        self._noted(made.result)
        return made.value

    def render_within(self, value: Any) -> Any:
        """The texts within a JSON value rendered, a lone tag as its value; names of fields and everything else stay."""
        if isinstance(value, str):
            return self.render_value(value)
        if isinstance(value, Mapping):
            return {name: self.render_within(item) for name, item in value.items()}
        return [self.render_within(item) for item in value] if isinstance(value, (list, tuple)) else value

    def render_shell(self, template: str) -> ShellText:
        """A shell command; its values are variables of the environment and never part of the command. Notes as `render`."""
        made = self._rendering("placed", template, token=self._token)
        return shell_text.Values(self._token, made.placed).command(self._noted(made.result))

    def holds_numbers(self, template: str) -> bool:
        """Whether all values of a template are whole numbers."""
        made = self._rendering("placed", template, token=self._token)
        return all(shell_text.NUMBER.fullmatch(value) for value in made.placed)

    def file_name(self, template: str, names: Mapping[str, Any] | None = None) -> str:
        """A file's name with its braces (`{a.b}`, `{{a.b}}`) filled in; what nothing provides stays, and is noted in the log."""
        name = self.services.templates.process_single_brace(template, self.names if names is None else names)
        for tag in unfilled(template, name):
            self.log(
                "WARNING",
                f"The name '{template}' has {tag}, for which there is no text or number; it is left as it is.",
            )
        return name

    def _noted(self, result: TemplateResult) -> str:
        """The text of a rendering, after a warning for each name that was missing and each tag that could not do its work."""
        for missing in result.missing_keys:
            why = self.assigned.unshown(_HEAD.findall(missing)[0]) if self.assigned.names else ""
            cause = f"is left empty: {why}." if why else "nothing provides; it is left empty."
            self._warn(f"The template names '{missing}', which {cause}")
        for problem in result.errors:
            self._warn(problem)
        return well_formed(result.content)

    def _warn(self, words: str) -> None:
        """Write a warning about a template; what was written before the handler was begun again is not repeated."""
        self._warned.append(words)
        if words in self._again:
            self._again.remove(words)
        else:
            self.log("WARNING", words)

    async def complete(
        self, request: LLMRequest, *, show: bool = True, hear: Callable[[str | None], None] | None = None
    ) -> LLMResponse:
        """Call a model, showing its text as it comes; usage and cost are charged to this node and the run's budget.

        Args:
            hear: takes the pieces of the answer; None when it begins again.
        """
        response: LLMResponse | None = None
        request = replace(request, budget=self.execution.options.budget, meter=(meter := Meter()))
        self._meta["person"] = request.context.get("person")
        self._show_paid()  # should this one be cut off, what was paid before it is known
        try:
            async for event in self.services.llm.stream(request):
                if event.kind == "end":
                    response = event.response
                else:
                    self._report(event, show)
                    if hear is not None and event.kind in ("text", "stream_restarted"):
                        hear(event.text if event.kind == "text" else None)
        except LLMError as error:
            if error.usage is not None:  # it was paid for
                self.charge(LLMResponse("", error.provider or "", error.model or "", error.usage, cost_usd=error.cost_usd))
            raise
        except BaseException:  # the run is stopped; what the call has taken until now is known
            if meter.usage is not None:
                self.charge(LLMResponse("", request.service, request.model, meter.usage, cost_usd=meter.cost_usd))
                self._show_usage(self._paid.pop())
            raise
        if response is None:
            raise LLMConnectionError(
                f"The answer of {request.service} ended before it was complete.",
                provider=request.service,
                model=request.model,
                hint="Run it again.",
            )
        self.charge(response)
        for warning in response.warnings:
            self.log("WARNING", warning, finish_reason=response.finish_reason)
        if request.model and request.model != response.model:
            self._meta["requested_model"] = request.model
        return response if is_plain(response.text) else replace(response, text=well_formed(response.text))

    def _report(self, event: StreamEvent, show: bool) -> None:
        """One step of an answer, as an event of the run."""
        match event.kind:
            case "text" | "reasoning" if show:
                self.show({"kind": event.kind, "text": event.text, "is_partial": True, "run": self.run})
            case "stream_restarted" if show:
                self.show({"kind": "text", "text": "", "is_partial": True, "run": self.run, "restart": True})
            case "tool_call_end" | "tool_result" if show:
                step = "call" if event.kind == "tool_call_end" else "result"
                self.show(
                    {
                        "kind": "tool",
                        "text": event.text,
                        "is_partial": True,
                        "run": self.run,
                        "data": event.data,
                        "step": step,
                    }
                )
            case "progress":
                data = {**event.data, "unit": "bytes"} if event.data and event.data.get("total") else event.data
                self.show({"kind": "progress", "text": event.text, "is_partial": True, "run": self.run, "data": data})
            case "start" if event.data and event.data.get("notice"):
                self.log("WARNING", event.data["notice"])
            case "error":
                self.log("WARNING", f"{event.text} {_next_step(event.data or {})}", **(event.data or {}))
            case _:
                pass  # pieces of tool calls and partial values are views of what follows

    def show(self, output: NodeOutput) -> None:
        """Show a piece of output as it comes. Any thread."""
        self.execution.emit_delta(self.node, output)

    def show_printed(self, text: str) -> None:
        """Show what a program of the node has printed. Any thread."""
        self.show({"kind": "stdout", "text": text, "is_partial": True, "run": self.run})

    async def record(self, output: NodeOutput) -> None:
        """Record a piece of output: when this returns it is stored."""
        await self.execution.record(self.node, output)

    def log(self, level: str, message: str, **extra: Any) -> None:
        """Write a line to the log of the run. Any thread."""
        self.execution.emit_log(self.node, level, message, **extra)

    def _show_usage(self, data: UsageData, *, background: bool = False) -> None:
        output: UsageOutput = {"kind": "usage", "text": "", "is_partial": True, "run": self.run, "data": data}
        self.show({**output, "background": True} if background else output)

    def _show_paid(self) -> None:
        for call in self._paid:
            self._show_usage(call)
        self._paid.clear()

    def charge(self, response: LLMResponse) -> None:
        """Add a call's usage and cost to this node's account."""
        counts = self._add(Spending.of(response.usage, response.cost_usd))
        self._meta["provider"] = response.provider
        self._meta["model"] = response.model
        self._paid.append({"usage": counts, "cost_usd": response.cost_usd, "person": self._meta.get("person")})
        if response.cached:
            self._meta["saved_usd"] = self._meta.get("saved_usd", 0.0) + (response.saved_usd or 0.0)

    @property
    def items(self) -> dict[int, Mapping[str, Any]]:
        """What finished items of this run of a batch node gave, by index; also before the run was cut off."""
        return self.execution.progress.begun.items.setdefault((self.node.index, self.run), {})

    async def finish_item(self, index: int, given: Mapping[str, Any]) -> None:
        """Record what an item gave, with what was paid until now: when this returns it is stored, and never done again."""
        self._show_paid()
        self.items[index] = given
        data = cast(ItemData, {"index": index, **given})
        await self.record({"kind": "item", "text": "", "run": self.run, "data": data})

    def charge_run(self, state: RunState, *, background: bool = False) -> None:
        """Add to this node's account what a run of a sub-diagram has spent since it was last charged.

        Args:
            background: the node has finished already.
        """
        charged = self.execution.progress.begun.charged.setdefault((self.node.index, self.run), {})
        before = charged.get(state.run_id)
        spent = charged[state.run_id] = Spending.of(
            state.usage, state.cost_usd, sum(person.calls for person in state.persons.values())
        )
        if not spent.calls and spent.usage.total is None:
            return
        new = spent if before is None else spent.since(before)
        if not new.calls and not new.usage.total:
            return
        counts = self._add(new)
        data: UsageData = {"usage": counts, "cost_usd": new.cost_usd, "calls": new.calls, "run_id": state.run_id}
        self._show_usage(data, background=background)

    def _add(self, new: Spending) -> UsageCounts:
        """Add calls to this node's account; their tokens, as events have them."""
        self._spent.add(new.usage, new.cost_usd, new.calls)
        self._meta["usage"] = _counts(self._spent.usage)
        self._meta["cost_usd"] = self._spent.cost_usd
        self._meta["calls"] = self._spent.calls
        return _counts(new.usage)

    def spent(self) -> NodeMeta:
        """usage, cost_usd (None when a price is unknown), calls, person, provider, model of this run so far, and saved_usd when
        answers came from recordings; empty without calls."""
        return cast(NodeMeta, dict(self._meta))


def _counts(usage: TokenUsage) -> UsageCounts:
    counts = usage.to_dict()
    counts.pop("total", None)
    return cast(UsageCounts, counts)


def _next_step(data: Mapping[str, Any]) -> str:
    if "fallback" in data:
        return f"Asking {data['fallback']} instead."
    if "rung" in data:
        return f"Asking for structure by '{data['rung']}' instead."
    return f"Trying again in {data.get('retry_in_s', 0):g} s."
