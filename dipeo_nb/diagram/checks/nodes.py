"""Checks of nodes: their properties, the files that they name, and what each type needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from dipeo_nb.common import lazy
from dipeo_nb.common.text import nearest, shorten
from dipeo_nb.diagram import templates
from dipeo_nb.diagram.checks.code import check_code_job
from dipeo_nb.diagram.checks.names import PROMPT_FIELDS, brings, check_expression, check_template, check_template_job
from dipeo_nb.diagram.checks.persons import check_person, person_hint
from dipeo_nb.diagram.checks.state import CheckState
from dipeo_nb.diagram.credentials import of_node
from dipeo_nb.diagram.specs import build_spec, shape
from dipeo_nb.domain.diagram import DomainNode
from dipeo_nb.domain.enums import ConditionType, DBOperation, HookTriggerMode, Severity, SupportedLanguage
from dipeo_nb.domain.nodes import (
    FUNCTION_TOOLS,
    MEMORY_VIEWS,
    CodeJobNode,
    ConditionNode,
    DbNode,
    NodeSpec,
    PersonJobNode,
    StartNode,
    SubDiagramNode,
)
from dipeo_nb.errors import ValidationError

if TYPE_CHECKING:
    from dipeo_nb.diagram import text_format
else:
    text_format = lazy.module("dipeo_nb.diagram.text_format")  # brings pydantic

_ALSO_RENDERED = {
    "api_job": ("auth_config",),
    "db": ("data",),
    "hook": ("command", "config"),
    "sub_diagram": ("input_mapping",),
    "template_job": ("variables",),
}
"""Fields whose texts are rendered where they have double braces, besides those that are templates as a whole."""


def check_node(state: CheckState, node: DomainNode) -> NodeSpec | None:
    """Check one node; its spec, with the texts of its prompt files, or None when its properties are wrong."""
    spec, problems = build_spec(node)
    for problem in problems:
        state.problem(node, problem)
    if spec is None:
        return None
    if state.runnable is not None and not _check_runnable(state, node, spec):
        return spec
    _check_credentials(state, node)
    spec = _with_files(state, node, spec)
    check = _CHECKS.get(node.type)
    if check is not None:
        spec = check(state, node, spec)
    known = shape(type(spec))
    for field in known.expressions:
        if text := getattr(spec, field):
            check_expression(state, node, field, text)
    for field in (*known.templates, *_ALSO_RENDERED.get(node.type, ())):
        for text in _texts_with(getattr(spec, field), "{" if field in known.templates else "{{"):
            check_template(state, node, field, text)
    for field in _path_fields(type(spec)):
        for text in _texts_with(getattr(spec, field), "{"):
            state.names.append((node, field, templates.braced_names(text)))
    return spec


def _check_credentials(state: CheckState, node: DomainNode) -> None:
    for field in dict.fromkeys(field for field, _ in of_node(node)):
        state.warn(
            "literal-credential",
            f"`{field}` of '{shorten(node.label)}' holds a credential as it is: it goes wherever the file goes.",
            "Pass it as an input of the run and refer to it: '{{globals.token}}'.",
            node=node,
            field=field,
        )


def _check_runnable(state: CheckState, node: DomainNode, spec: NodeSpec) -> bool:
    assert state.runnable is not None
    kind, what = node.type, f"Nodes of type '{node.type}'"
    if isinstance(spec, CodeJobNode) and spec.language is not SupportedLanguage.PYTHON:
        kind, what = f"{node.type}:{spec.language}", f"Code in {spec.language}"
    if state.runnable(kind):
        return True
    state.error(
        "not-runnable",
        f"{what} can be read and drawn, but not run yet in this version.",
        "Remove the node, or do its work in a Python code_job.",
        node=node,
        field="type",
    )
    return False


def _with_files(state: CheckState, node: DomainNode, spec: NodeSpec) -> NodeSpec:
    """The spec with the texts of its prompt files; they win over inline prompts, but for judge_by."""
    changes: dict[str, Any] = {}
    for field in shape(type(spec)).prompt_files:
        name = getattr(spec, field)
        if not name:
            continue
        into, inline = PROMPT_FIELDS[field]
        text, problem = state.files.read(name)
        if text is None:
            # A saved diagram may carry the text that was once read.
            kept = getattr(spec, inline) or getattr(spec, into)
            severity = Severity.WARNING if kept else Severity.ERROR
            state.report(severity, problem.code, problem.message, problem.hint, node=node, field=field)
        elif into != inline or not getattr(spec, into):
            changes[into] = text
    return dataclasses.replace(spec, **changes) if changes else spec


def _check_start(state: CheckState, node: DomainNode, spec: NodeSpec) -> NodeSpec:
    spec = cast(StartNode, spec)
    if spec.trigger_mode is HookTriggerMode.HOOK and not (spec.hook_event or "").strip():
        state.error(
            "missing-hook-event",
            "A start node in hook mode waits for an event and names none.",
            "Add `hook_event`, or use `trigger_mode: manual`.",
            node=node,
            field="trigger_mode",
        )
    return spec


def _check_person_job(state: CheckState, node: DomainNode, spec: NodeSpec) -> NodeSpec:
    spec = cast(PersonJobNode, spec)
    person = check_person(state, node, spec.person)
    changes: dict[str, Any] = {"person": person} if person is not None and person != spec.person else {}
    prompts = (spec.first_only_prompt, spec.default_prompt, spec.resolved_first_prompt, spec.resolved_prompt)
    promised = spec.prompt_file or spec.first_prompt_file  # a missing file has its own finding
    if not promised and not any((p or "").strip() for p in prompts) and not brings(state, node, "prompt"):
        state.error(
            "missing-prompt",
            "This person_job has no prompt.",
            "Add `default_prompt`, or label an incoming arrow `prompt`.",
            node=node,
        )
    _check_tools(state, node, spec)
    for reference in (spec.ignore_person or "").split(","):
        if (word := reference.strip()) and not state.references.ids(word):
            state.warn(
                "unknown-person",
                f"'ignore_person' names '{shorten(word)}', who is not a person of this diagram.",
                person_hint(state, word),
                node=node,
                field="ignore_person",
            )
    _check_memory(state, node, spec.memorize_to)
    changes.update(_check_text_format(state, node, spec))
    return dataclasses.replace(spec, **changes) if changes else spec


def _check_memory(state: CheckState, node: DomainNode, memorize_to: str | None) -> None:
    """Warn about a misspelt name of a view, which would be taken for a criterion and cost a call each time."""
    word = (memorize_to or "").strip()
    name = word.upper().replace(" ", "_").replace("-", "_")
    if name in MEMORY_VIEWS or not ("_" in word or (word.isupper() and " " not in word)):
        return
    if close := nearest(name, MEMORY_VIEWS):
        state.warn(
            "unknown-memory",
            f"'memorize_to' is '{shorten(word)}', which is not a view of the conversation: a model would select messages by it.",
            f"Did you mean '{close}'? A criterion is a sentence, such as `memorize_to: what was decided`.",
            node=node,
            field="memorize_to",
        )


def _check_tools(state: CheckState, node: DomainNode, spec: PersonJobNode) -> None:
    for tool in spec.tools if isinstance(spec.tools, list) else [spec.tools]:
        if not isinstance(tool, Mapping) or tool.get("type") != "function" or tool.get("enabled") is False:
            continue
        inner = tool.get("function")
        name = tool.get("name") or (inner.get("name") if isinstance(inner, Mapping) else None) or "without a name"
        state.warn(
            "function-tool",
            f"The tool '{shorten(str(name))}' is a function, and no function runs in a diagram: a call of it is not answered.",
            FUNCTION_TOOLS,
            node=node,
            field="tools",
        )


def _check_text_format(state: CheckState, node: DomainNode, spec: PersonJobNode) -> dict[str, Any]:
    """Changes: `text_format` is the text of `text_format_file`."""
    shape_source, field, changes = spec.text_format, "text_format", {}
    if spec.text_format_file:
        field = "text_format_file"
        text, problem = state.files.read(spec.text_format_file, base_first=True)
        if text is None:
            state.error(problem.code, problem.message, problem.hint, node=node, field=field)
            return {}
        shape_source, changes = text, {"text_format": text}
    if not shape_source:
        return changes
    if not isinstance(shape_source, (str, Mapping)):
        state.error(
            "wrong-value",
            "'text_format' is pydantic source or a JSON schema.",
            "Write it with `|`.",
            node=node,
            field=field,
        )
        return changes
    try:
        shape_of_answer = text_format.answer_shape(shape_source)
    except ValidationError as error:
        line = getattr(error, "line", None)
        place = state.inside(node, field, line, 1) if line and field == "text_format" else None
        state.error("bad-text-format", error.message, error.hint, node=node, field=field, place=place)
        return changes
    if shape_of_answer.skipped:
        shown = ", ".join(shape_of_answer.skipped[:10]) + (" …" if len(shape_of_answer.skipped) > 10 else "")
        state.report(
            Severity.INFO,
            "text-format-skipped",
            f"The source of the answer's shape is read and not executed; it was read without {shown}.",
            None,
            node=node,
            field=field,
        )
    return changes


def _check_condition(state: CheckState, node: DomainNode, spec: NodeSpec) -> NodeSpec:
    spec = cast(ConditionNode, spec)
    _check_memory(state, node, spec.memorize_to)
    changes: dict[str, Any] = {}
    match spec.condition_type:
        case ConditionType.CUSTOM if not (spec.expression or "").strip():
            state.error(
                "missing-expression",
                "This condition has no expression.",
                "Add one, such as `expression: score > 10`, or another `condition_type`.",
                node=node,
            )
        case ConditionType.CHECK_NODES_EXECUTED:
            _check_node_references(state, node, spec)
        case ConditionType.DETECT_MAX_ITERATIONS if not any(n.type == "person_job" for n in state.model.nodes):
            state.warn(
                "never-true",
                "This condition waits for person_job nodes to reach max_iteration, and there are none.",
                "Use `condition_type: custom` with an expression.",
                node=node,
                field="condition_type",
            )
        case ConditionType.LLM_DECISION:
            if not (spec.person or "").strip():
                state.error("missing-person", "An llm_decision needs a person.", "Add `person`.", node=node)
            elif (person := check_person(state, node, spec.person)) is not None and person != spec.person:
                changes["person"] = person
            if not (spec.judge_by or "").strip() and not spec.judge_by_file:
                state.error(
                    "missing-prompt",
                    "An llm_decision needs a question.",
                    "Add `judge_by` or `judge_by_file`.",
                    node=node,
                )
    used = {arrow.source_handle for arrow in state.outgoing[node.id]}
    for handle, when in (("condtrue", "holds"), ("condfalse", "does not hold")):
        if handle not in used:
            state.warn(
                "missing-branch",
                f"No arrow leaves this condition on '{handle}': when it {when}, nothing follows.",
                f"Add a connection from '{shorten(node.label)}[{handle}]'.",
                node=node,
            )
    return dataclasses.replace(spec, **changes) if changes else spec


def _check_node_references(state: CheckState, node: DomainNode, spec: ConditionNode) -> None:
    if not spec.node_indices:
        state.error(
            "missing-node-indices",
            "This condition names no nodes to check.",
            "Add `node_indices`, a list of labels.",
            node=node,
            field="condition_type",
        )
    known = {n.id for n in state.model.nodes} | {n.label for n in state.model.nodes}
    for reference in spec.node_indices:
        if reference not in known:
            labels = [n.label for n in state.model.nodes]
            close = nearest(reference, labels)
            state.error(
                "unknown-node",
                f"'node_indices' names '{shorten(reference)}', which is not a node.",
                f"Did you mean '{close}'?" if close else f"Nodes: {', '.join(map(shorten, labels[:20]))}.",
                node=node,
                field="node_indices",
            )


def _check_db(state: CheckState, node: DomainNode, spec: NodeSpec) -> NodeSpec:
    spec = cast(DbNode, spec)
    given = spec.file if isinstance(spec.file, list) else [spec.file or ""]
    if not any(str(name).strip() for name in given):
        report = state.error if spec.data is None else state.warn
        report(
            "missing-file",
            "This db node names no file"
            + ("." if spec.data is None else ": its `data` is its result, and nothing is read or written."),
            "Add `file`, a path below the base directory.",
            node=node,
        )
        return spec
    if spec.operation is DBOperation.UPDATE and not spec.keys:
        state.error("missing-keys", "An update needs `keys`.", "Add the dotted path to set.", node=node, field="operation")
    if spec.lines is not None and spec.lines != "":
        if spec.operation is not DBOperation.READ:
            state.error(
                "wrong-value", f"'lines' selects what is read; it cannot go with '{spec.operation}'.", "Remove it.",
                node=node, field="lines",
            )  # fmt: skip
        elif spec.keys:
            state.error("wrong-value", "'lines' and 'keys' exclude each other.", "Remove one.", node=node, field="lines")
    return spec


def _check_sub_diagram(state: CheckState, node: DomainNode, spec: NodeSpec) -> NodeSpec:
    spec = cast(SubDiagramNode, spec)
    if not (spec.diagram_name or "").strip() and not spec.diagram_data:
        state.error("missing-diagram", "This sub_diagram names no diagram.", "Add `diagram_name`.", node=node)
    return spec


_CHECKS: dict[str, Callable[[CheckState, DomainNode, NodeSpec], NodeSpec]] = {
    "start": _check_start,
    "person_job": _check_person_job,
    "condition": _check_condition,
    "code_job": check_code_job,
    "db": _check_db,
    "sub_diagram": _check_sub_diagram,
    "template_job": check_template_job,
}


@cache
def _path_fields(cls: type[NodeSpec]) -> tuple[str, ...]:
    """Fields with names of files, whose braces are filled in."""
    return tuple(f.name for f in dataclasses.fields(cls) if f.metadata.get("path"))


def _texts_with(value: Any, sign: str) -> Iterator[str]:
    """The texts within a JSON value that have that sign in them."""
    if isinstance(value, str):
        if sign in value:
            yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_with(item, sign)
