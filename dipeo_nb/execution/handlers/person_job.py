"""person_job: a person answers a prompt."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dipeo_nb.common import lazy
from dipeo_nb.common.values import plain_value
from dipeo_nb.domain import selection
from dipeo_nb.domain.chat import ChatMessage, LLMResponse, Message, ToolConfig
from dipeo_nb.domain.diagram import DomainPerson
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.domain.nodes import FUNCTION_TOOLS, PersonJobNode, provider_tool
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import DipeoError, LLMError, NodeExecutionError, TemplateError
from dipeo_nb.execution import batches, conversation
from dipeo_nb.execution.answer_stream import sent_on
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain
from dipeo_nb.execution.provider_tools import provider_tools
from dipeo_nb.execution.record import count
from dipeo_nb.execution.sent_prompts import show_prompt

if TYPE_CHECKING:
    import pydantic

    from dipeo_nb.diagram import text_format
else:
    pydantic = lazy.module("pydantic")
    text_format = lazy.module("dipeo_nb.diagram.text_format")


def missing(node: PlanNode, services: Services) -> tuple[str, str] | None:
    """Why a node cannot run here: its answer cannot be sent to where `stream_to` says."""
    target = cast(PersonJobNode, node.spec).stream_to
    if not target:
        return None
    check = getattr(services.integrations, "check_node", None)  # a port of the user's own need not have it
    provider = str(target.get("provider") or "")
    if check is None or "{{" in provider:
        return None
    try:
        check(provider, "start_stream", {name: value for name, value in target.items() if name != "provider"})
        for operation in ("append_stream", "stop_stream"):
            check(provider, operation, {})
    except DipeoError as error:
        return f"{node.label}: `stream_to`: {error.message}", error.hint or "Correct it."
    return None


async def execute(context: NodeContext) -> Output:
    spec = cast(PersonJobNode, context.node.spec)
    person = context.execution.person(spec.person or "")
    if spec.batch:
        return await _batch(context, spec, person)
    answer = await _answer(context, spec, person, context.names)
    if answer is None:
        return Output("", meta={"person_id": person.id, "skipped": "the prompt is empty", **context.spent()})
    return answer


async def _answer(
    context: NodeContext, spec: PersonJobNode, person: DomainPerson, names: Mapping[str, Any], index: int | None = None
) -> Output | None:
    template = _template(context, spec)
    prompt = await context.rendered(template, names)
    if not prompt.strip():
        return None
    messages = [ChatMessage("system", person.llm.system_prompt)] if person.llm.system_prompt else []
    recalled = await remembered(
        context, person, spec.memorize_to, spec.at_most, spec.ignore_person, prompt, brought=_brought(context)
    )
    messages += [*recalled.messages, ChatMessage("user", prompt)]
    # The compiler has read a text_format_file into text_format.
    shape = text_format.response_model(spec.text_format) if spec.text_format else None
    show_prompt(context, person, prompt, recalled.facts, template=template, names=names, index=index)
    async with sent_on(context, spec) as hear:
        response = await context.complete(
            person.asked(
                messages,
                temperature=_first(spec.temperature, person.llm.temperature),
                max_tokens=_first(spec.max_tokens, person.llm.max_tokens),
                response_format=shape,
                tools=(*tools(spec.tools), *await provider_tools(context, spec.tools)),
                phase=ExecutionPhase.DIRECT_EXECUTION,
                context={"person": person.label, "node": context.node.label, "run": context.run},
            ),
            hear=hear,
        )
    if response.tool_calls:
        _unanswered(context, response)
    return _output(context, person, prompt, response, recalled)


def _unanswered(context: NodeContext, response: LLMResponse) -> None:
    """Say that the model called functions that nobody runs.

    Raises:
        NodeExecutionError: and it said nothing besides.
    """
    called = ", ".join(sorted({f"'{call.name}'" for call in response.tool_calls}))
    message = f"The model called {called}, and no function runs in a diagram."
    if not response.text.strip():
        raise NodeExecutionError(f"{message} It said nothing besides.", hint=FUNCTION_TOOLS)
    context.log("WARNING", f"{message} {FUNCTION_TOOLS}")


def _template(context: NodeContext, spec: PersonJobNode) -> str:
    """The first prompt on run 1 when there is one, else the default one; a lone first prompt serves every run."""
    first = spec.resolved_first_prompt or spec.first_only_prompt
    default = spec.resolved_prompt or spec.default_prompt
    if context.run == 1 and first:
        return first
    given = context.names.get("prompt")
    return default or first or (given if isinstance(given, str) else "")


def _output(context: NodeContext, person: DomainPerson, prompt: str, response: LLMResponse, recalled: Remembered) -> Output:
    execution = context.execution
    now = execution.now()
    node_id = context.node.id
    asked = execution.progress.log.add(conversation.SYSTEM, person.id, prompt, timestamp=now, node_id=node_id)
    said = execution.progress.log.add(person.id, conversation.SYSTEM, response.text, timestamp=now, node_id=node_id)
    structured = response.structured
    if isinstance(structured, pydantic.BaseModel):
        structured = plain_value(structured)
    body = response.text if structured is None else structured
    turn = [conversation.as_record(asked), conversation.as_record(said)]
    meta = {
        "person_id": person.id,
        "messages": turn,
        "memory": recalled.facts,
        "is_structured": structured is not None,
        "rung": response.output_mode,
        "finish_reason": response.finish_reason,
        **({"warnings": list(response.warnings)} if response.warnings else {}),
        **context.spent(),
    }
    record = execution.progress.log.conversation(
        person.id, response.model, len(execution.progress.log.messages), _wants_conversation(context)
    )
    return Output(body, response.text, meta=meta, conversation=record)


def _wants_conversation(context: NodeContext) -> bool:
    edges = context.execution.plan.edges
    return any(edges[e].content_type == "conversation_state" for e in context.node.outgoing)


def _brought(context: NodeContext) -> list[Mapping[str, Any]]:
    """Last messages of the conversations that arrive on edges in this run."""
    found: list[Mapping[str, Any]] = []
    for arrived in context.inputs.arrived:
        if not arrived.fresh or arrived.edge.content_type != "conversation_state":
            continue
        last = (arrived.output.conversation or {}).get("last_message")
        if isinstance(last, Mapping):
            found.append(last)
    return found


class Remembered(NamedTuple):
    """What a person brings along to a turn."""

    messages: list[ChatMessage]
    """As its model hears them."""
    facts: dict[str, Any]
    """For the record: view or criterion, ids (of the messages, in order), brought (ids included only because an edge brought
    them), candidates (how many there were to choose from), chosen_by (`model` or `score`, for a criterion)."""


async def remembered(
    context: NodeContext,
    person: DomainPerson,
    memorize_to: str | None,
    at_most: int | None,
    ignore_person: str | None,
    task: str,
    *,
    brought: Sequence[Mapping[str, Any]] = (),
) -> Remembered:
    """What the person brings along.

    `brought` are messages that an edge delivers in this run: they are included once, whatever the view says.
    """
    execution = context.execution
    names = execution.person_labels
    view = conversation.view_name(memorize_to)
    facts: dict[str, Any] = {"view": view} if view is not None else {"criterion": memorize_to}
    seen = execution.progress.log.view(person.id, _ids(ignore_person, names), view or "ALL_MESSAGES")
    candidates = seen.candidates
    if view is not None:
        chosen = seen.limited(at_most)
    else:
        log = list(seen.messages)  # others may speak while the model chooses
        chosen, facts["chosen_by"] = await _select(context, person, log, memorize_to or "", at_most, task, names)
        chosen = conversation.limited(chosen, at_most)
    recalled = conversation.as_seen_by(chosen, person.id, names)
    known = {m.id for m in chosen}
    facts |= {"ids": [m.id for m in chosen], "brought": [], "candidates": candidates}
    for message in brought:
        if message.get("id") in known or message.get("from_person_id") == person.id:
            continue
        sender = str(message.get("from_person_id", ""))
        recalled.append(ChatMessage("user", f"[{names.get(sender, sender)}]: {message.get('content', '')}"))
        facts["brought"].append(message.get("id"))
    return Remembered(recalled, facts)


async def _select(
    context: NodeContext,
    person: DomainPerson,
    log: Sequence[Message],
    criterion: str,
    at_most: int | None,
    task: str,
    names: Mapping[str, str],
) -> tuple[list[Message], str]:
    """Let the person's own model choose by a criterion, as the facet `selector`; an answer in words is read. The best-scored
    ones, with a warning, when it cannot be asked or its answer names none.

    Returns:
        The messages in log order, and who chose: `model` or `score`.
    """
    if not log:
        return [], "score"
    selector = person.facet("selector")
    candidates = selection.ranked(log, context.execution.now())
    request = selector.asked(
        [
            ChatMessage(
                "user",
                selection.selection_prompt(candidates, criterion=criterion, task=task, at_most=at_most, names=names),
            )
        ],
        response_format=selection.SELECTION_SCHEMA,
        allow_prose=True,
        phase=ExecutionPhase.MEMORY_SELECTION,
        stop=(),  # it could cut the ids
        context={"person": person.label, "facet": selector.id, "node": context.node.label, "run": context.run},
    )
    try:
        response = await context.complete(request, show=False)
    except LLMError as error:
        ids, problem = None, error.message
    else:
        ids = selection.chosen_ids(response.structured, response.text, candidates)
        problem = f"its answer names no message: {' '.join(response.text.split())[:200]!r}"
    by = "model"
    if ids is None:
        context.log("WARNING", f"Memory was chosen by score, as the model could not choose: {problem}")
        by, ids = "score", [m.id for m in candidates[: at_most or selection.CHOSEN_BY_SCORE]]
    wanted = set(ids[:at_most] if at_most else ids)
    return [m for m in log if m.id in wanted], by


def _ids(ignore_person: str | None, names: Mapping[str, str]) -> list[str]:
    """Ids of the persons in a comma list of ids or labels."""
    wanted = [part.strip() for part in (ignore_person or "").split(",") if part.strip()]
    if not wanted:
        return []
    by_name = set(wanted) - names.keys()  # a text that is an id means that person, not others who are labelled so
    return [i for i, label in names.items() if i in wanted or label in by_name or f"person_{label}" in by_name]


def tools(value: Any) -> tuple[ToolConfig, ...]:
    """`tools` of a node, in any of its spellings: none, image, websearch, a list of them, or configurations."""
    if value is None or value in ("", "none"):
        return ()
    items = value if isinstance(value, list) else [value]
    found: list[ToolConfig] = []
    short = {"image": "image_generation", "websearch": "web_search", "web_search_preview": "web_search"}
    for item in items:
        if provider_tool(item) is not None:
            continue
        config: dict[str, Any] = dict(item) if isinstance(item, Mapping) else {"type": str(item)}
        kind = str(config.get("type", "none"))
        if kind == "none" or config.get("enabled") is False:
            continue
        found.append(
            ToolConfig(
                short.get(kind, kind),
                config.get("name"),
                config.get("description"),
                config.get("parameters"),
                True,
                config.get("config"),
            )
        )
    return tuple(found)


async def _batch(context: NodeContext, spec: PersonJobNode, person: DomainPerson) -> Output:
    """One answer per item, in the order of the items; items that fail are reported. Each answer is durable when it is there: a
    retry, or a resumed run, asks only for those that lack."""
    items = batches.batch_items(context, spec)
    finished = context.items
    counted = itertools.count(len(finished) + 1)
    failed: dict[int, dict[str, Any]] = {}

    async def one(index: int, item: Any) -> None:
        names = {**context.names, **batches.item_names(item, index, len(items))}
        try:
            answer = await _answer(context, spec, person, names, index)
        except (LLMError, TemplateError) as error:
            failed[index] = {"index": index, "error": error.message, "error_type": type(error).__name__}
            return
        meta = {} if answer is None else {name: answer.meta[name] for name in _TURN}
        output = None if answer is None else plain(answer.body)
        await context.finish_item(index, {"output": output, "meta": meta})
        context.show(count(context.run, next(counted), len(items)))  # others may have become durable while this one did

    lacking = [(index, item) for index, item in enumerate(items) if index not in finished]
    await batches.for_each(lacking, one, at_once=spec.max_concurrent if spec.batch_parallel else 1)
    first = failed[min(failed)] if failed else {}
    if failed and not context.last_try:
        raise NodeExecutionError(
            f"{len(failed)} of {len(items)} items failed; item {first['index']}: {first['error']}",
            hint="See the node's log.",
        )
    if items and len(failed) == len(items):
        raise NodeExecutionError(f"Every item of the batch failed; the first one: {first['error']}", hint="See the node's log.")
    done = [finished[index] for index in range(len(items)) if index in finished]
    body = {
        "total_items": len(items),
        "successful": len(items) - len(failed),
        "failed": len(failed),
        "results": [{"index": i, "output": finished[i]["output"]} for i in range(len(items)) if i in finished],
        "errors": [failed[index] for index in sorted(failed)],
    }
    messages = [m for one in done for m in one["meta"].get("messages", ())]
    turns = [{"index": i, **meta} for i in sorted(finished) if i < len(items) and (meta := finished[i]["meta"])]
    return Output(body, meta={"person_id": person.id, "messages": messages, "turns": turns, **context.spent()})


_TURN = ("person_id", "memory", "messages")
"""What is kept of the turn of an item."""


def _first(*values: Any) -> Any:
    return next((v for v in values if v is not None), None)
