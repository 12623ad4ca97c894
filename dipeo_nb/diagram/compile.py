"""From a diagram to a plan that can run, with everything that can be known to go wrong said beforehand (spec §4).

All checks run, so one look shows every finding; a plan is made only when none is an error. Nothing of the diagram is
executed: code is parsed, expressions and templates are parsed, prompt files are read.

    structure → nodes (typed specs, files, code, expressions, templates) → arrows → flow (who can be reached, what names
    the arrows bring) → `graph.link`
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

from dipeo_nb.common.text import nearest, shorten
from dipeo_nb.config import get_settings
from dipeo_nb.diagram import expressions, graph, templates
from dipeo_nb.diagram.credentials import of_node
from dipeo_nb.diagram.given_names import CODE_FILE, SPECIAL_NAMES, GivenNames
from dipeo_nb.diagram.loop_checks import check_loops
from dipeo_nb.diagram.person_fields import PersonNames
from dipeo_nb.diagram.prompt_files import PromptFiles
from dipeo_nb.diagram.python_code import code_hint, code_problem, module_names
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.diagram.specs import Problem, build_spec, shape
from dipeo_nb.diagram.text_format import answer_shape
from dipeo_nb.domain.chat import DEFAULT_MODEL_SERVICE
from dipeo_nb.domain.diagnostics import Diagnostic, has_errors
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, DomainPerson
from dipeo_nb.domain.enums import (
    ConditionType,
    ContentType,
    DBOperation,
    HookTriggerMode,
    Severity,
    SupportedLanguage,
    TemplateEngine,
)
from dipeo_nb.domain.lifecycle import at_provider, lifecycle
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
    TemplateJobNode,
)
from dipeo_nb.domain.plan import Plan, PlanEdge, PlanNode
from dipeo_nb.errors import ExpressionError, InvalidDiagramError, TemplateError, ValidationError

__all__ = ["build_spec", "check_diagram", "compile_diagram"]

Runnable = Callable[[str], bool]


def compile_diagram(
    model: DomainDiagram,
    *,
    source: SourceMap | None = None,
    name: str = "diagram",
    path: Path | None = None,
    base_dir: Path | None = None,
    diagnostics: Sequence[Diagnostic] = (),
    runnable: Runnable | None = None,
) -> Plan:
    """The plan of a diagram.

    Args:
        source: where things stand in the text, for places in findings.
        path: the diagram's file; prompt files are also looked up beside it.
        base_dir: root of relative names; default: the settings' one.
        diagnostics: findings of reading; they are kept, and an error among them refuses the diagram.
        runnable: whether nodes of a type can run (`code_job:bash` for a code job in another language than Python);
            None: not asked.

    Returns:
        The plan, with all findings as `diagnostics`. Prompt files are read into it.

    Raises:
        InvalidDiagramError: the diagram cannot run; `diagnostics` has all findings.
    """
    compiler = _Compiler(model, source, path, base_dir, runnable)
    compiler.check()
    found = _merged(diagnostics, compiler.found)
    if has_errors(found):
        raise _refusal(name, found)
    plan_nodes, plan_edges = compiler.link()
    return Plan(
        name=name,
        nodes=plan_nodes,
        edges=plan_edges,
        persons=compiler.persons,
        diagram=model,
        diagnostics=found,
        source_path=str(path) if path else None,
        by_id={node.id: node.index for node in plan_nodes},
    )


def check_diagram(
    model: DomainDiagram,
    *,
    source: SourceMap | None = None,
    name: str = "diagram",
    path: Path | None = None,
    base_dir: Path | None = None,
    diagnostics: Sequence[Diagnostic] = (),
    runnable: Runnable | None = None,
) -> tuple[Diagnostic, ...]:
    """All findings of reading and compiling, in file order. Never raises for a bad diagram; arguments as above."""
    compiler = _Compiler(model, source, path, base_dir, runnable)
    compiler.check()
    return _merged(diagnostics, compiler.found)


def _merged(reading: Iterable[Diagnostic], compiling: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Both lists in file order, each finding once: the more severe one when both speak of the same thing."""

    def subject(finding: Diagnostic) -> tuple[Any, ...]:
        return (finding.code, finding.line, finding.node, finding.field, None if finding.line else finding.message)

    read = list(dict.fromkeys(reading))
    found = list(dict.fromkeys(compiling))
    severe = {subject(d) for d in found if d.severity is Severity.ERROR}
    kept = [d for d in read if d.severity is Severity.ERROR or subject(d) not in severe]
    known = {subject(d) for d in kept}
    return tuple(sorted((*kept, *(d for d in found if subject(d) not in known)), key=lambda d: (d.line or 0, d.column or 0)))


def _refusal(name: str, found: tuple[Diagnostic, ...]) -> InvalidDiagramError:
    errors = [str(d) for d in found if d.severity is Severity.ERROR]
    if len(errors) == 1:
        message = errors[0]
    else:
        shown = "\n  ".join(errors[:10])
        more = f"\n  and {len(errors) - 10} more" if len(errors) > 10 else ""
        message = f"The diagram '{shorten(name)}' cannot run, it has {len(errors)} errors:\n  {shown}{more}\n"
    error = InvalidDiagramError(message, hint="Nothing was run.")
    error.diagnostics = found
    return error


class _Compiler:
    """One check of one diagram; `found`, `specs` and `persons` are its results."""

    def __init__(
        self,
        model: DomainDiagram,
        source: SourceMap | None,
        path: Path | None,
        base_dir: Path | None,
        runnable: Runnable | None,
    ) -> None:
        self.model = model
        self.source = source
        self.file = source.file if source and source.file else str(path) if path else None
        self.files = PromptFiles(base_dir or get_settings().base_dir, path)
        self.runnable = runnable
        self.found: list[Diagnostic] = []
        self.specs: dict[str, NodeSpec | None] = {}
        self.persons: dict[str, DomainPerson] = {}
        self.references = PersonNames(model.persons)
        self.nodes = {node.id: node for node in model.nodes}
        self.incoming: dict[str, list[DomainArrow]] = {node.id: [] for node in model.nodes}
        self.outgoing: dict[str, list[DomainArrow]] = {node.id: [] for node in model.nodes}
        self.given = GivenNames(model, self.incoming, self.specs)
        self.names: list[tuple[DomainNode, str, frozenset[str]]] = []
        """(node, field, names it needs) of templates and expressions."""
        self.linked: tuple[tuple[PlanNode, ...], tuple[PlanEdge, ...]] | None = None

    def check(self) -> None:
        for arrow in self.model.arrows:
            if arrow.source in self.nodes and arrow.target in self.nodes:
                self.outgoing[arrow.source].append(arrow)
                self.incoming[arrow.target].append(arrow)
        self.check_structure()
        self.check_persons()
        for node in self.model.nodes:
            self.specs[node.id] = self.check_node(node)
        for arrow in self.model.arrows:
            self.check_arrow(arrow)
        self.check_flow()
        self.check_batches()
        self.check_names()
        if not has_errors(self.found):
            self.check_loops()

    def link(self) -> tuple[tuple[PlanNode, ...], tuple[PlanEdge, ...]]:
        """Nodes and edges of the plan of a diagram without errors."""
        if self.linked is None:
            nodes = [(node, cast(NodeSpec, self.specs[node.id])) for node in self.model.nodes]
            self.linked = graph.link(nodes, self.model.arrows)
        return self.linked

    # findings

    def report(
        self,
        severity: Severity,
        code: str,
        message: str,
        hint: str | None,
        *,
        node: DomainNode | None = None,
        field: str | None = None,
        place: tuple[int, int] | None = None,
    ) -> None:
        if place is None and node is not None and self.source is not None:
            place = self.source.node(node.id, field)
        line, column = place or (None, None)
        label = shorten(node.label or node.id) if node else None
        self.found.append(Diagnostic(severity, code, message, hint, self.file, line, column, label, field))

    def error(self, code: str, message: str, hint: str | None, **where: Any) -> None:
        self.report(Severity.ERROR, code, message, hint, **where)

    def warn(self, code: str, message: str, hint: str | None, **where: Any) -> None:
        self.report(Severity.WARNING, code, message, hint, **where)

    # the whole

    def check_structure(self) -> None:
        nodes = self.model.nodes
        if not nodes:
            self.error("no-nodes", "The diagram has no nodes.", "Add at least a start node under `nodes`.")
            return
        if len(self.nodes) != len(nodes):
            for node_id, times in Counter(node.id for node in nodes).items():
                if times > 1:
                    node = self.nodes[node_id]
                    self.error(
                        "duplicate-id",
                        f"{times} nodes have the id '{shorten(node_id)}'.",
                        "Give each its own id.",
                        node=node,
                    )
        labels = Counter(node.label for node in nodes)
        if len(labels) != len(nodes):
            seen: set[str] = set()
            for node in nodes:
                if node.label in seen and node.label:
                    self.warn(
                        "duplicate-label",
                        f"Another node is already labelled '{shorten(node.label)}'.",
                        f"Rename one of them, for example '{shorten(node.label)} 2'.",
                        node=node,
                    )
                seen.add(node.label)
        if not any(node.type == "start" for node in nodes):
            self.error(
                "no-start", "The diagram has no start node.", "Add a node of `type: start` and an arrow from it."
            )
        if not any(node.type == "endpoint" for node in nodes):
            self.warn(
                "no-endpoint", "The diagram has no endpoint, so a run has no result of its own.",
                "Add a node of `type: endpoint`, or read the nodes' outputs.",
            )  # fmt: skip

    def check_persons(self) -> None:
        for person in self.model.persons:
            if person.id in self.persons:
                place = self.source.person(person.id) if self.source else None
                self.error(
                    "duplicate-id",
                    f"Two persons have the id '{shorten(person.id)}'.",
                    "Give each its own id.",
                    place=place,
                )
            self.persons[person.id] = self.with_system_prompt(person)
            self.check_model(person)
        for person, other in self.references.clashes():
            name = shorten(person.label)
            self.warn(
                "person-clash",
                f"'{name}' is the label of one person and the id of another, '{shorten(other.label)}': "
                f"a node with 'person: {name}' asks '{shorten(other.label)}'.",
                f"Rename one of them, or let nodes name ids, such as '{shorten(person.id)}'.",
                place=self.source.person(person.id) if self.source else None,
            )

    def check_model(self, person: DomainPerson) -> None:
        """Warn of a model that its provider shuts down soon, or has shut down. Never an error: recordings answer for it, other
        dates may hold for a server of one's own, and a run may move its persons to another model."""
        llm = person.llm
        service = llm.service or DEFAULT_MODEL_SERVICE
        found = lifecycle(service, llm.model or "")
        if not found.soon or not at_provider(service, llm.base_url, get_settings()):
            return
        how = ": `dipeo-nb models check --fix FILE` does." if found.replacement else "."
        self.warn(
            "model-ends",
            f"Person '{shorten(person.label)}': {found.sentence}.",
            f"{found.advice[0].upper()}{found.advice[1:]}{how}",
            place=self.source.person(person.id, "model") if self.source else None,
            field="model",
        )

    def with_system_prompt(self, person: DomainPerson) -> DomainPerson:
        name = person.llm.prompt_file
        if not name:
            return person
        text, problem = self.files.read(name)
        if text is not None:
            return dataclasses.replace(person, llm=dataclasses.replace(person.llm, system_prompt=text))
        place = self.source.person(person.id, "prompt_file") if self.source else None
        severity = Severity.WARNING if person.llm.system_prompt else Severity.ERROR
        message = f"The prompt file of person '{shorten(person.label)}': {problem.message}"
        self.report(severity, problem.code, message, problem.hint, place=place, field="prompt_file")
        return person

    # nodes

    def check_node(self, node: DomainNode) -> NodeSpec | None:
        spec, problems = build_spec(node)
        for problem in problems:
            self.problem(node, problem)
        if spec is None:
            return None
        if self.runnable is not None and not self.check_runnable(node, spec):
            return spec
        self.check_credentials(node)
        spec = self.with_files(node, spec)
        check = _CHECKS.get(node.type)
        if check is not None:
            spec = check(self, node, spec)
        known = shape(type(spec))
        for field in known.expressions:
            if text := getattr(spec, field):
                self.check_expression(node, field, text)
        for field in (*known.templates, *_ALSO_RENDERED.get(node.type, ())):
            for text in _texts_with(getattr(spec, field), "{" if field in known.templates else "{{"):
                self.check_template(node, field, text)
        for field in _path_fields(type(spec)):
            for text in _texts_with(getattr(spec, field), "{"):
                self.names.append((node, field, templates.braced_names(text)))
        return spec

    def check_credentials(self, node: DomainNode) -> None:
        for field in dict.fromkeys(field for field, _ in of_node(node)):
            self.warn(
                "literal-credential",
                f"`{field}` of '{shorten(node.label)}' holds a credential as it is: it goes wherever the file goes.",
                "Give it as an input of the run, and name that: '{{globals.token}}'.",
                node=node,
                field=field,
            )

    def problem(self, node: DomainNode, problem: Problem) -> None:
        self.report(problem.severity, problem.code, problem.message, problem.hint, node=node, field=problem.field)

    def check_runnable(self, node: DomainNode, spec: NodeSpec) -> bool:
        assert self.runnable is not None
        kind, what = node.type, f"Nodes of type '{node.type}'"
        if isinstance(spec, CodeJobNode) and spec.language is not SupportedLanguage.PYTHON:
            kind, what = f"{node.type}:{spec.language}", f"Code in {spec.language}"
        if self.runnable(kind):
            return True
        self.error(
            "not-runnable",
            f"{what} can be read and drawn, but not run yet in this version.",
            "Remove the node, or do its work in a Python code_job.",
            node=node,
            field="type",
        )
        return False

    def with_files(self, node: DomainNode, spec: NodeSpec) -> NodeSpec:
        """The spec with the texts of its prompt files; they win over inline prompts, but for judge_by."""
        changes: dict[str, Any] = {}
        for field in shape(type(spec)).prompt_files:
            name = getattr(spec, field)
            if not name:
                continue
            into, inline = _PROMPT_FIELDS[field]
            text, problem = self.files.read(name)
            if text is None:
                # A saved diagram may carry the text that was once read.
                kept = getattr(spec, inline) or getattr(spec, into)
                severity = Severity.WARNING if kept else Severity.ERROR
                self.report(severity, problem.code, problem.message, problem.hint, node=node, field=field)
            elif into != inline or not getattr(spec, into):
                changes[into] = text
        return dataclasses.replace(spec, **changes) if changes else spec

    def check_start(self, node: DomainNode, spec: NodeSpec) -> NodeSpec:
        spec = cast(StartNode, spec)
        if spec.trigger_mode is HookTriggerMode.HOOK and not (spec.hook_event or "").strip():
            self.error(
                "missing-hook-event",
                "A start node in hook mode waits for an event and names none.",
                "Add `hook_event`, or use `trigger_mode: manual`.",
                node=node,
                field="trigger_mode",
            )
        return spec

    def check_person_job(self, node: DomainNode, spec: NodeSpec) -> NodeSpec:
        spec = cast(PersonJobNode, spec)
        person = self.check_person(node, spec.person)
        changes: dict[str, Any] = {"person": person} if person is not None and person != spec.person else {}
        prompts = (spec.first_only_prompt, spec.default_prompt, spec.resolved_first_prompt, spec.resolved_prompt)
        promised = spec.prompt_file or spec.first_prompt_file  # a missing file has its own finding
        if not promised and not any((p or "").strip() for p in prompts) and not self.brings(node, "prompt"):
            self.error(
                "missing-prompt",
                "This person_job has no prompt.",
                "Add `default_prompt`, or label an incoming arrow `prompt`.",
                node=node,
            )
        self.check_tools(node, spec)
        for reference in (spec.ignore_person or "").split(","):
            if (word := reference.strip()) and not self.references.ids(word):
                self.warn(
                    "unknown-person",
                    f"'ignore_person' names '{shorten(word)}', who is no person of this diagram.",
                    self.person_hint(word),
                    node=node,
                    field="ignore_person",
                )
        self.check_memory(node, spec.memorize_to)
        changes.update(self.check_text_format(node, spec))
        return dataclasses.replace(spec, **changes) if changes else spec

    def check_memory(self, node: DomainNode, memorize_to: str | None) -> None:
        """Warn about a misspelt name of a view, which would be taken for a criterion and cost a call each time."""
        word = (memorize_to or "").strip()
        name = word.upper().replace(" ", "_").replace("-", "_")
        if "_" in word or (word.isupper() and " " not in word):
            close = nearest(name, MEMORY_VIEWS)
            if name not in MEMORY_VIEWS and close:
                self.warn(
                    "unknown-memory",
                    f"'memorize_to' is '{shorten(word)}', which is no view of the conversation: a model would select messages by it.",
                    f"Did you mean '{close}'? A criterion is a sentence, such as `memorize_to: what was decided`.",
                    node=node,
                    field="memorize_to",
                )

    def check_tools(self, node: DomainNode, spec: PersonJobNode) -> None:
        for tool in spec.tools if isinstance(spec.tools, list) else [spec.tools]:
            if not isinstance(tool, Mapping) or tool.get("type") != "function" or tool.get("enabled") is False:
                continue
            inner = tool.get("function")
            name = tool.get("name") or (inner.get("name") if isinstance(inner, Mapping) else None) or "without a name"
            self.warn(
                "function-tool",
                f"The tool '{shorten(str(name))}' is a function, and no function runs in a diagram: a call of it is not answered.",
                FUNCTION_TOOLS,
                node=node,
                field="tools",
            )

    def check_text_format(self, node: DomainNode, spec: PersonJobNode) -> dict[str, Any]:
        """Changes: `text_format` is the text of `text_format_file`."""
        shape_source, field, changes = spec.text_format, "text_format", {}
        if spec.text_format_file:
            field = "text_format_file"
            text, problem = self.files.read(spec.text_format_file, base_first=True)
            if text is None:
                self.error(problem.code, problem.message, problem.hint, node=node, field=field)
                return {}
            shape_source, changes = text, {"text_format": text}
        if not shape_source:
            return changes
        if not isinstance(shape_source, (str, Mapping)):
            self.error(
                "wrong-value",
                "'text_format' is pydantic source or a JSON schema.",
                "Write it with `|`.",
                node=node,
                field=field,
            )
            return changes
        try:
            shape_of_answer = answer_shape(shape_source)
        except ValidationError as error:
            line = getattr(error, "line", None)
            place = self.inside(node, field, line, 1) if line and field == "text_format" else None
            self.error("bad-text-format", error.message, error.hint, node=node, field=field, place=place)
            return changes
        if shape_of_answer.skipped:
            shown = ", ".join(shape_of_answer.skipped[:10]) + (" …" if len(shape_of_answer.skipped) > 10 else "")
            self.report(
                Severity.INFO,
                "text-format-skipped",
                f"The source of the answer's shape is read and not executed; it was read without {shown}.",
                None,
                node=node,
                field=field,
            )
        return changes

    def check_person(self, node: DomainNode, reference: str | None) -> str | None:
        """The id of a person that a node refers to; None, with a finding, when there is none of that name."""
        found = self.references.ids(reference or "")
        if len(found) > 1:
            self.error(
                "ambiguous-person",
                f"{len(found)} persons are labelled '{shorten((reference or '').strip())}'.",
                f"Name the id of the one you mean: {', '.join(map(shorten, found[:10]))}.",
                node=node,
                field="person",
            )
        elif not found and reference:
            self.error(
                "unknown-person",
                f"There is no person '{shorten(reference)}' in this diagram.",
                self.person_hint(reference),
                node=node,
                field="person",
            )
        return found[0] if len(found) == 1 else None

    def person_hint(self, reference: str) -> str:
        labels = [person.label for person in self.model.persons]
        if close := nearest(reference, labels):
            return f"Did you mean '{close}'?"
        return (
            f"Persons: {', '.join(labels[:20])}." if labels else "The diagram has no persons; add them under `persons`."
        )

    def check_condition(self, node: DomainNode, spec: NodeSpec) -> NodeSpec:
        spec = cast(ConditionNode, spec)
        self.check_memory(node, spec.memorize_to)
        changes: dict[str, Any] = {}
        match spec.condition_type:
            case ConditionType.CUSTOM if not (spec.expression or "").strip():
                self.error(
                    "missing-expression",
                    "This condition has no expression.",
                    "Add one, such as `expression: score > 10`, or another `condition_type`.",
                    node=node,
                )
            case ConditionType.CHECK_NODES_EXECUTED:
                self.check_node_references(node, spec)
            case ConditionType.DETECT_MAX_ITERATIONS if not any(n.type == "person_job" for n in self.model.nodes):
                self.warn(
                    "never-true",
                    "This condition waits for person_job nodes to reach max_iteration, and there are none.",
                    "Use `condition_type: custom` with an expression.",
                    node=node,
                    field="condition_type",
                )
            case ConditionType.LLM_DECISION:
                if not (spec.person or "").strip():
                    self.error("missing-person", "An llm_decision needs a person.", "Add `person`.", node=node)
                elif (person := self.check_person(node, spec.person)) is not None and person != spec.person:
                    changes["person"] = person
                if not (spec.judge_by or "").strip() and not spec.judge_by_file:
                    self.error(
                        "missing-prompt",
                        "An llm_decision needs a question.",
                        "Add `judge_by` or `judge_by_file`.",
                        node=node,
                    )
        used = {arrow.source_handle for arrow in self.outgoing[node.id]}
        for handle, when in (("condtrue", "holds"), ("condfalse", "does not hold")):
            if handle not in used:
                self.warn(
                    "missing-branch",
                    f"No arrow leaves this condition on '{handle}': when it {when}, nothing follows.",
                    f"Add a connection from '{shorten(node.label)}[{handle}]'.",
                    node=node,
                )
        return dataclasses.replace(spec, **changes) if changes else spec

    def check_node_references(self, node: DomainNode, spec: ConditionNode) -> None:
        if not spec.node_indices:
            self.error(
                "missing-node-indices",
                "This condition names no nodes to check.",
                "Add `node_indices`, a list of labels.",
                node=node,
                field="condition_type",
            )
        known = {n.id for n in self.model.nodes} | {n.label for n in self.model.nodes}
        for reference in spec.node_indices:
            if reference not in known:
                labels = [n.label for n in self.model.nodes]
                close = nearest(reference, labels)
                self.error(
                    "unknown-node",
                    f"'node_indices' names '{shorten(reference)}', which is no node.",
                    f"Did you mean '{close}'?" if close else f"Nodes: {', '.join(map(shorten, labels[:20]))}.",
                    node=node,
                    field="node_indices",
                )

    def check_code_job(self, node: DomainNode, spec: NodeSpec) -> NodeSpec:
        spec = cast(CodeJobNode, spec)
        code = spec.code or ""
        if not code.strip():
            if not (spec.file_path or "").strip():
                self.error(
                    "missing-code", "This code_job has no code.", "Add `code` with `|`, or `file_path`.", node=node
                )
                return spec
            return self.check_code_file(node, spec)
        if spec.file_path:
            self.warn(
                "code-and-file",
                "This code_job has both code and file_path; the code is used.",
                "Remove one of them.",
                node=node,
                field="file_path",
            )
        if spec.language is not SupportedLanguage.PYTHON or (
            CODE_FILE.fullmatch(code.strip()) and self.files.below_base(code.strip())
        ):
            return spec
        if problem := code_problem(code):
            self.error(
                "bad-code",
                f"The code does not parse: {problem.message}.",
                code_hint(code, problem),
                node=node,
                field="code",
                place=self.inside(node, "code", problem.line, problem.column),
            )
        return spec

    def check_code_file(self, node: DomainNode, spec: CodeJobNode) -> CodeJobNode:
        name = (spec.file_path or "").strip()
        text, problem = self.files.read(name, base_first=True)
        where = {"node": node, "field": "file_path"}
        if text is None:
            # Code that an earlier node writes cannot be there yet.
            made = any(n.id != node.id and n.type in _WRITERS for n in self.model.nodes)
            severity = Severity.WARNING if made and problem.code == "file-not-found" else Severity.ERROR
            self.report(severity, problem.code, problem.message, problem.hint, **where)
            return spec
        inside = self.files.relative(name)
        if inside is None:
            self.error(
                "file-outside",
                f"'{shorten(name)}' is beside the diagram, but outside the base directory {self.files.base}.",
                "Set the base directory (--base-dir, DIPEO_BASE_DIR) to a folder above it.",
                **where,
            )
            return spec
        if spec.language is SupportedLanguage.PYTHON:
            self.check_module(node, spec, name, text)
        return dataclasses.replace(spec, file_path=inside) if inside != spec.file_path else spec

    def check_module(self, node: DomainNode, spec: CodeJobNode, name: str, text: str) -> None:
        if problem := code_problem(text):
            message = f"{name}:{problem.line}:{problem.column}: the code does not parse: {problem.message}."
            self.error("bad-code", message, code_hint(text, problem), node=node, field="file_path")
            return
        names = module_names(text)
        if names is not None and spec.function_name not in names and "result" not in names:
            named = "function_name" in node.data
            close = nearest(spec.function_name, names)
            self.report(
                Severity.ERROR if named else Severity.WARNING,  # a file may be there for what it defines
                "unknown-function",
                f"'{shorten(name)}' has no function '{shorten(spec.function_name)}'"
                + ("." if named else " and sets no `result`, so the node gives nothing."),
                f"Did you mean '{close}'?"
                if close
                else f"Add it, or set `function_name` ({', '.join(sorted(names)[:10])}).",
                node=node,
                field="function_name" if named else "file_path",
            )

    def check_db(self, node: DomainNode, spec: NodeSpec) -> NodeSpec:
        spec = cast(DbNode, spec)
        given = spec.file if isinstance(spec.file, list) else [spec.file or ""]
        if not any(str(name).strip() for name in given):
            report = self.error if spec.data is None else self.warn
            report(
                "missing-file",
                "This db node names no file"
                + ("." if spec.data is None else ": its `data` is its result, and nothing is read or written."),
                "Add `file`, a path below the base directory.",
                node=node,
            )
            return spec
        if spec.operation is DBOperation.UPDATE and not spec.keys:
            self.error(
                "missing-keys", "An update needs `keys`.", "Add the dotted path to set.", node=node, field="operation"
            )
        if spec.lines is not None and spec.lines != "":
            if spec.operation is not DBOperation.READ:
                self.error(
                    "wrong-value", f"'lines' selects what is read; it cannot go with '{spec.operation}'.", "Remove it.",
                    node=node, field="lines",
                )  # fmt: skip
            elif spec.keys:
                self.error(
                    "wrong-value", "'lines' and 'keys' exclude each other.", "Remove one.", node=node, field="lines"
                )
        return spec

    def check_sub_diagram(self, node: DomainNode, spec: NodeSpec) -> NodeSpec:
        spec = cast(SubDiagramNode, spec)
        if not (spec.diagram_name or "").strip() and not spec.diagram_data:
            self.error("missing-diagram", "This sub_diagram names no diagram.", "Add `diagram_name`.", node=node)
        return spec

    # texts that are parsed

    def check_expression(self, node: DomainNode, field: str, text: str) -> None:
        try:
            parsed = expressions.parse(text)
        except ExpressionError as error:
            line, column = getattr(error, "line", 1), getattr(error, "column", 1)
            place = self.inside(node, field, line, column)
            self.error("bad-expression", error.message.rstrip(), error.hint, node=node, field=field, place=place)
            return
        self.names.append((node, field, parsed.names))

    def check_template(
        self,
        node: DomainNode,
        field: str,
        text: str,
        *,
        check: Callable[[str], templates.Names] = templates.check,
        own: frozenset[str] = frozenset(),
        open_names: bool = False,
    ) -> None:
        """Check a template's syntax, and note the names that it needs.

        Args:
            own: names that the node itself provides.
            open_names: whether it may provide any others too.
        """
        try:
            names = check(text)
        except TemplateError as error:
            line = getattr(error, "line", None)
            origin = next((f for f, (into, _) in _PROMPT_FIELDS.items() if into == field and node.data.get(f)), field)
            written_here = origin == field and node.data.get(field, text) == text
            place = self.inside(node, field, line, 1) if written_here and line else None
            message = error.message if origin == field else f"In '{shorten(node.data[origin])}': {error.message}"
            # A file of its own may still be changed, or written by an earlier node.
            severity = Severity.WARNING if field == "template_path" and text != node.data.get(field) else Severity.ERROR
            self.report(severity, "bad-template", message, error.hint, node=node, field=origin, place=place)
            return
        if names.needed - own and not open_names:
            self.names.append((node, field, names.needed - own))

    def check_template_job(self, node: DomainNode, spec: NodeSpec) -> NodeSpec:
        """Check the template itself, where it can be known before the run."""
        spec = cast(TemplateJobNode, spec)
        field, text = "template_content", spec.template_content
        if text is None and spec.template_path and "{" not in spec.template_path:
            field = "template_path"
            text = self.files.read(spec.template_path, base_first=True)[0]
        if not isinstance(text, str) or "{" not in text:
            return spec
        from dipeo_nb.diagram.file_templates import check_file  # only diagrams that make files need it

        check = templates.check if spec.engine is TemplateEngine.INTERNAL else check_file
        own = frozenset(spec.variables) | {"generated_at"}
        self.check_template(node, field, text, check=check, own=own, open_names=bool(spec.preprocessor))
        return spec

    def inside(self, node: DomainNode, field: str, line: int, column: int) -> tuple[int, int] | None:
        """Place in the file of a line and column (1-based) inside the text of a field."""
        source = self.source
        base = source.nodes.get(node.id) if source else None
        path = source.field_path(base, field) if source and base else None
        pair = source.spot(*path) if source and path else None
        if source is None or pair is None:
            return None
        _, spot = pair
        value = spot.text or ""
        raw = source.text[spot.start : spot.end]
        lines = value.split("\n")
        wanted = lines[line - 1] if line <= len(lines) else ""
        if raw[:1] == "|":
            # A literal block: its lines follow the indicator one by one, indented.
            at = spot.line + line
            row = source.text.split("\n")[at - 1] if at <= source.text.count("\n") + 1 else ""
            return at, max(row.find(wanted), 0) + column
        if len(lines) == 1 and raw[:1] not in "'\">":
            return spot.line, spot.column + column - 1
        if len(lines) == 1 and raw[:1] in "'\"":
            return spot.line, spot.column + column
        # Quoted or folded over several lines: look for the line's own words.
        needle = wanted.strip()
        found = raw.find(needle) if len(needle) > 2 and raw.count(needle) == 1 else -1
        if found < 0:
            return spot.line, spot.column
        before = raw[:found]
        return spot.line + before.count("\n"), (
            spot.column + found if "\n" not in before else found - before.rindex("\n")
        ) + max(column - 1 - (len(wanted) - len(wanted.lstrip())), 0)

    # arrows

    def check_arrow(self, arrow: DomainArrow) -> None:
        place = self.source.arrow(arrow.id) if self.source is not None and self._suspicious(arrow) else None
        for end, verb in ((arrow.source, "comes from"), (arrow.target, "leads to")):
            if end not in self.nodes:
                known = [*self.nodes, *(n.label for n in self.model.nodes)]
                close = nearest(end, known)
                self.error(
                    "unknown-node",
                    f"An arrow {verb} '{shorten(end)}', which is no node.",
                    f"Did you mean '{shorten(close)}'?" if close else "Correct the name, or add the node.",
                    place=place,
                )
        source, target = self.nodes.get(arrow.source), self.nodes.get(arrow.target)
        if source is not None:
            self.check_handle(arrow, source, arrow.source_handle, "output", place)
        if target is not None:
            self.check_handle(arrow, target, arrow.target_handle, "input", place)
        if arrow.content_type is not None and arrow.content_type not in _CONTENT_TYPES:
            close = nearest(arrow.content_type, _CONTENT_TYPES)
            self.error(
                "unknown-content-type",
                f"'{shorten(arrow.content_type)}' is not a content type.",
                f"Did you mean '{close}'?" if close else f"Content types: {', '.join(sorted(_CONTENT_TYPES))}.",
                place=place,
                field="content_type",
            )

    def _suspicious(self, arrow: DomainArrow) -> bool:
        """Whether a finding is to be expected: places cost a second parse of the text."""
        source, target = self.specs.get(arrow.source), self.specs.get(arrow.target)
        return (
            source is None
            or target is None
            or not source.META.has_output(arrow.source_handle)
            or arrow.target_handle not in target.META.inputs
            or (arrow.content_type is not None and arrow.content_type not in _CONTENT_TYPES)
        )

    def check_handle(
        self, arrow: DomainArrow, node: DomainNode, handle: str, direction: str, place: tuple[int, int] | None
    ) -> None:
        spec = self.specs.get(node.id)
        if spec is None:
            return
        allowed = spec.META.outputs if direction == "output" else spec.META.inputs
        if handle in allowed or (direction == "output" and spec.META.has_output(handle)):
            return
        if not allowed:
            verb = "leads into" if direction == "input" else "leaves"
            what = (
                "a start node, which takes nothing"
                if node.type == "start"
                else f"the {node.type} '{shorten(node.label)}'"
            )
            if node.type == "endpoint":
                what = "an endpoint, which ends the run"
            self.error(f"arrow-{'into' if direction == 'input' else 'out-of'}-{node.type}", f"An arrow {verb} {what}.",
                       "Remove the arrow, or turn it around.", node=node, place=place)  # fmt: skip
            return
        close = nearest(handle, allowed)
        self.error(
            "unknown-handle",
            f"'{shorten(handle)}' is not an {direction} of a {node.type}.",
            f"Did you mean '{close}'?" if close else f"Its {direction}s: {', '.join(allowed)}.",
            node=node,
            place=place,
        )

    # flow

    def check_flow(self) -> None:
        """Warn about nodes that no start node leads to."""
        stack = [node.id for node in self.model.nodes if node.type == "start"]
        if not stack:
            return
        reached = set(stack)
        while stack:
            for arrow in self.outgoing[stack.pop()]:
                if arrow.target not in reached:
                    reached.add(arrow.target)
                    stack.append(arrow.target)
        if len(reached) == len(self.nodes):
            return
        for node in self.model.nodes:
            if node.id in reached:
                continue
            alone = not self.incoming[node.id]
            self.warn(
                "unreachable",
                "No arrow leads to this node: it runs once, by itself."
                if alone
                else "No start node leads to this node.",
                "Connect it to the others, or remove it.",
                node=node,
            )

    def brings(self, node: DomainNode, name: str) -> bool:
        """Whether an arrow into *node* is labelled so, or a start node publishes that name."""
        return any(arrow.label == name for arrow in self.incoming[node.id]) or name in self.given.published()

    def check_loops(self) -> None:
        for severity, code, message, hint, node in check_loops(*self.link(), max_iterations=get_settings().max_iterations):
            self.report(severity, code, message, hint, node=self.nodes[node])

    def check_batches(self) -> None:
        """Warn about batch nodes whose items nothing in the diagram can bring."""
        for node in self.model.nodes:
            spec = self.specs.get(node.id)
            if not isinstance(spec, (PersonJobNode, SubDiagramNode)) or not spec.batch:
                continue
            name = spec.batch_input_key
            if self.given.may_bring_items(node, name):
                continue
            labels = sorted({arrow.label for arrow in self.incoming[node.id] if arrow.label})
            close = nearest(name, labels) or (labels[0] if len(labels) == 1 else None)
            advice = f"Did you mean batch_input_key: {close}?" if close else f"Label an arrow '{name}'"
            advice += f" Or give it to the run: --input {name}=…" if close else f", or give it to the run: --input {name}=…"
            self.warn(
                "unknown-name",
                f"'batch_input_key' names '{shorten(name)}', which no arrow into this node brings.",
                advice,
                node=node,
                field="batch_input_key" if "batch_input_key" in node.data else "batch",
            )

    def check_names(self) -> None:
        """Warn about names in templates and expressions that nothing in the diagram can provide."""
        if not self.names:
            return
        everywhere = SPECIAL_NAMES | self.given.published()
        words: set[str] | None = None
        needs: dict[tuple[str, str], frozenset[str]] = {}
        for node, field, needed in self.names:
            needs[node.id, field] = needs.get((node.id, field), frozenset()) | needed
        for (node_id, field), needed in needs.items():
            node = self.nodes[node_id]
            given = self.given.into(node)
            if given is None:
                continue
            lacking = needed - given - everywhere
            if not lacking:
                continue
            if words is None:
                words = self.given.written()
                if words is None:
                    return
            for name in sorted(lacking - words):
                known = sorted(given - {"default", "first"} | self.given.published())
                close = nearest(name, known)
                advice = f"Did you mean '{close}'?" if close else f"Label an arrow '{name}'"
                advice += (
                    f" Or give it to the run: --input {name}=…"
                    if close
                    else f", or give it to the run: --input {name}=…"
                )
                origin = next(
                    (f for f, (into, _) in _PROMPT_FIELDS.items() if into == field and node.data.get(f)), field
                )
                self.warn(
                    "unknown-name",
                    f"'{origin}' names '{shorten(name)}', which no arrow into this node brings.",
                    advice,
                    node=node,
                    field=origin,
                )


_CHECKS: dict[str, Callable[[_Compiler, DomainNode, NodeSpec], NodeSpec]] = {
    "start": _Compiler.check_start,
    "person_job": _Compiler.check_person_job,
    "condition": _Compiler.check_condition,
    "code_job": _Compiler.check_code_job,
    "db": _Compiler.check_db,
    "sub_diagram": _Compiler.check_sub_diagram,
    "template_job": _Compiler.check_template_job,
}
_ALSO_RENDERED = {
    "api_job": ("auth_config",),
    "db": ("data",),
    "hook": ("command", "config"),
    "sub_diagram": ("input_mapping",),
    "template_job": ("variables",),
}
"""Fields whose texts are rendered where they have double braces, besides those that are templates as a whole."""
_PROMPT_FIELDS = {
    "prompt_file": ("resolved_prompt", "default_prompt"),
    "first_prompt_file": ("resolved_first_prompt", "first_only_prompt"),
    "judge_by_file": ("judge_by", "judge_by"),
}
"""Field with a file's name → (field that takes its text, inline field that it stands beside)."""


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


_CONTENT_TYPES = frozenset(str(c) for c in ContentType)
_WRITERS = frozenset(["code_job", "db", "diff_patch", "hook", "sub_diagram", "template_job"])
