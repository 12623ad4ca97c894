"""Payloads of the events that the engine writes, each made in one place, and the values that are read back from them.

What is written holds real values; secrets are taken out after that, except of a completed node (see there).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from dipeo_nb.common.recordable import is_recordable
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.values import is_plain, plain_value
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.enums import EventType, MessageType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.node_meta import MessageRecord
from dipeo_nb.domain.nodes import ConditionNode
from dipeo_nb.domain.payloads import (
    ConversationPoint,
    ErrorInfo,
    ExecutionCompleted,
    ExecutionError,
    ExecutionLog,
    ExecutionStarted,
    InteractivePrompt,
    NodeCompleted,
    NodeError,
    NodeMeta,
    NodeStarted,
    NodeWaiting,
    ProgressOutput,
)
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import Question, RunGate
from dipeo_nb.errors import DipeoError
from dipeo_nb.execution.conversation import ConversationLog
from dipeo_nb.execution.inputs import Inputs, Output
from dipeo_nb.execution.run_errors import describe
from dipeo_nb.execution.run_options import RunOptions


def run_started(plan: Plan, options: RunOptions, gate: RunGate, *, resumed: int | None) -> ExecutionStarted:
    """A run begins, or is resumed after the event of that number."""
    source = options.source
    return cast(
        ExecutionStarted,
        {
            "variables": dict(options.variables),
            "diagram": plan.name,
            "diagram_id": plan.source_path,
            "source": source,
            "labels": {n.id: n.label for n in plan.nodes},
            "model": options.model,
            "parent": options.parent_run_id,
            "trust": gate.stamped(source, whole=redactor(source) is source),
            **({} if resumed is None else {"resumed": resumed}),
            **({"forked_from": dict(options.forked_from)} if options.forked_from else {}),
            "options": {
                "node_timeout": options.node_timeout,
                "timeout": options.timeout,
                "parallelism": options.parallelism,
                "max_iterations": options.max_iterations,
                **({"own_models": sorted(options.own_models)} if options.own_models else {}),
            },
        },
    )


def run_completed(duration_ms: float, statuses: Mapping[str, str]) -> ExecutionCompleted:
    return {"status": "completed", "total_duration_ms": duration_ms, "node_status": statuses}


def run_failed(error: DipeoError, status: Status, duration_ms: float, statuses: Mapping[str, str]) -> ExecutionError:
    payload = {
        "status": status,
        "error": describe(error, getattr(error, "node", None)),
        "total_duration_ms": duration_ms,
        "node_status": statuses,
    }
    return cast(ExecutionError, payload)


def node_started(node: PlanNode, run: int, inputs: Inputs, attempt: int | None) -> NodeStarted:
    # Lists, as JSON has them.
    named: Any = {}
    for item in inputs.arrived:  # by number, as this is a part of every step
        edge = item[0]
        named[edge.label or edge.target_handle] = [item[1], item[3]]
    payload: NodeStarted = {"label": node.label, "node_type": node.type, "run": run, "inputs": named}
    if len(named) < len(inputs.arrived):  # two of one name
        payload["arrived"] = [[a.source_id, a.run] for a in inputs.arrived]  # pyright: ignore[reportGeneralTypeIssues]
    if attempt is not None:
        payload["attempt"] = attempt
    return payload


def node_waiting(node: PlanNode, run: int) -> NodeWaiting:
    return {"label": node.label, "node_type": node.type, "run": run}


def node_completed(
    label: str, node_type: str, run: int, output: Output, duration_ms: float, published: Mapping[str, Any], *, clean: bool
) -> NodeCompleted:
    """Without secrets already: part by part, since looking through the whole takes long.

    Args:
        label: of the node, without secrets already.
        published: global variables that it has set.
        clean: whether it is known that the output holds no secret.
    """
    body, text, handles, meta, conversation = output[0], output[1], output[2], output[3], output[4]  # faster than unpacking
    payload: NodeCompleted = {
        "label": label,
        "node_type": node_type,
        "run": run,
        "status": "completed",
        "output": body if clean else redactor(body),
        "text": redactor(text) if text else text,
        "handles": handles,
        "meta": meta if clean or not meta else redactor(meta),  # pyright: ignore[reportAssignmentType]
        "globals": {} if not published else published if is_recordable(published) else redactor(published),
        "duration_ms": duration_ms,
    }
    if conversation is not None and "at" in conversation:
        payload["conversation"] = cast(ConversationPoint, conversation["at"])
    return payload


def node_passed_on(node: PlanNode, run: int) -> NodeCompleted:
    """A node that may not run again passes its last output on."""
    return {"label": node.label, "node_type": node.type, "run": run, "status": "maxiter_reached"}


def error_info(error: DipeoError, node: PlanNode) -> ErrorInfo:
    """The error of a node, without values that have no form."""
    described = describe(error, node.label)
    return cast(ErrorInfo, described if is_plain(described) else plain_value(described, lossy=True))


def node_failed(node: PlanNode, run: int, error: ErrorInfo, duration_ms: float, *, handled: bool, spent: NodeMeta) -> NodeError:
    return {
        "label": node.label,
        "run": run,
        "error": error,
        "handled": handled,
        "meta": spent,
        "duration_ms": duration_ms,
    }


def prompt(question: Question) -> InteractivePrompt:
    payload: InteractivePrompt = {
        "prompt": question.prompt,
        "timeout": question.timeout,
        "default": question.default,
        "request_id": question.request_id,
        "label": question.label,
    }
    form = question.form
    if form.kind != "text":
        payload["kind"] = form.kind
    if form.choices:
        payload["choices"] = list(form.choices)
    if form.arguments is not None:
        payload["arguments"] = plain_value(form.arguments, lossy=True)
    if form.tool is not None:
        payload["tool"] = form.tool
    if len(question.path) > 1:
        payload["path"] = list(question.path)
    return payload


def log_line(level: str, message: str, extra: Mapping[str, Any]) -> ExecutionLog:
    """A line that the engine itself writes."""
    return {"level": level, "message": message, "logger_name": "dipeo_nb", "extra_fields": extra}


def progress(run: int, text: str, data: Mapping[str, Any]) -> ProgressOutput:
    return {"kind": "progress", "text": text, "data": data, "is_partial": True, "run": run}


def count(run: int, done: int, total: int) -> ProgressOutput:
    """How many items of a batch are done."""
    return progress(run, f"{done} of {total}", {"done": done, "total": total})


# Read back.


def progress_line(event: Event) -> str | None:
    """How far an event shows its run to be: `Write …`, `Write ✓` or `Write ✗`; None for events of other kinds."""
    match event.type:
        case EventType.NODE_STARTED:
            mark = "…"
        case EventType.NODE_COMPLETED if cast(NodeCompleted, event.payload)["status"] == Status.COMPLETED:
            mark = "✓"
        case EventType.NODE_ERROR:
            mark = "✗"
        case _:
            return None
    return f"{cast(NodeStarted | NodeCompleted | NodeError, event.payload)['label']} {mark}"


def published(node: PlanNode, completed: NodeCompleted) -> Mapping[str, Any]:
    """Global variables that a finished run of a node set."""
    if "globals" in completed:
        return completed["globals"]
    # Logs of 0.1 do not say; these are the two that did.
    if node.type == "start" and isinstance(output := completed.get("output"), Mapping):
        return cast(Mapping[str, Any], output)
    if isinstance(node.spec, ConditionNode):
        index = {node.spec.expose_index_as: completed["run"] - 1} if node.spec.expose_index_as else {}
        return {**index, f"branch[{node.id}]": completed.get("meta", {}).get("branch")}
    return {}


def output_of(completed: NodeCompleted, log: ConversationLog) -> Output:
    """The output that is recorded; its messages are in *log*."""
    point = completed.get("conversation")
    return Output(
        completed.get("output"),
        completed.get("text"),
        tuple(completed.get("handles", ("default",))),
        cast("Mapping[str, Any]", completed.get("meta", {})),
        None if point is None else log.conversation(**point),
    )


def message_of(record: MessageRecord) -> Message:
    """A message as events carry it, as the log keeps it."""
    return Message(
        record["id"],
        record["from_person_id"],
        record["to_person_id"],
        record["content"],
        MessageType(record["message_type"]),
        record["timestamp"],
        record.get("node_id"),
    )
