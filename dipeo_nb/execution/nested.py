"""Diagrams within diagrams, as far as they are known without running them: their files, and who asks questions there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from dipeo_nb.common.text import nearest
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.nested import DEEPEST, nested_document
from dipeo_nb.domain.enums import NodeType
from dipeo_nb.domain.nodes import IntegratedApiNode, SubDiagramNode
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.errors import DiagramError, UserError, ValidationError

_INDEX = re.compile(r"\[\d+\](?=/)")


class Askers(NamedTuple):
    """Who may ask the user something in a run of a diagram."""

    paths: list[tuple[str, ...]]
    """The labels on the way down to each node that asks, its own last."""
    ids: list[str]
    """Ids of nodes of the diagram itself."""
    open: bool
    """Some sub-diagrams are chosen while the run lasts, so there may be others."""

    def known(self, name: str) -> bool:
        """Whether a name, or a path that may name items of batches (`Sub[2]/Question`), is one of them."""
        names = {"/".join(path[start:]) for path in self.paths for start in range(len(path))}
        return name in names or name in self.ids or _INDEX.sub("", name) in names

    @property
    def names(self) -> list[str]:
        """One name for each: its label, or its whole path when others have the same label."""
        labels = Counter(path[-1] for path in self.paths)
        return [path[-1] if labels[path[-1]] == 1 else "/".join(path) for path in self.paths]

    def suggestion(self, name: str) -> str:
        """The nearest of these names, as the beginning of a hint; empty when none is near."""
        close = nearest(name, self.names)
        return f"Did you mean '{close}'? " if close else ""


def askers(plan: Plan, base_dir: Path) -> Askers:
    """Who may ask something in a run of *plan*; files of sub-diagrams are read, nothing is run."""
    paths: list[tuple[str, ...]] = []
    unknown = False

    def visit(plan: Plan, path: tuple[str, ...], seen: frozenset[str]) -> None:
        nonlocal unknown
        for node in plan.nodes:
            if _asks(node):
                paths.append((*path, node.label))
            if not isinstance(node.spec, SubDiagramNode):
                continue
            if _chosen_later(node.spec):
                unknown = True
            elif (below := _compiled(node.spec, plan, base_dir)) is not None:
                document, inner = below
                place = str(document.path or node.id)
                if place not in seen and len(path) < DEEPEST:
                    visit(inner, (*path, node.label), seen | {place})

    visit(plan, (), frozenset({plan.source_path or ""}))
    return Askers(paths, [node.id for node in plan.nodes if _asks(node)], unknown)


def diagrams(
    plan: Plan, base_dir: Path, chosen: Callable[[Plan], Iterable[PlanNode]] = lambda plan: plan.nodes
) -> Iterator[tuple[tuple[str, ...], Plan]]:
    """*plan* and the diagrams that its sub_diagram nodes run, each once, with the labels on the way down to it.

    Args:
        chosen: the nodes of a plan that are looked at.
    """
    seen = {plan.source_path or ""}

    def below(plan: Plan, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Plan]]:
        yield path, plan
        for node in chosen(plan) if len(path) < DEEPEST else ():
            if not isinstance(node.spec, SubDiagramNode) or (node.spec.ignore_if_sub and path) or _chosen_later(node.spec):
                continue
            if (opened := _compiled(node.spec, plan, base_dir)) is None:
                continue
            document, inner = opened
            if document.path is not None:  # one that stands in the node itself stands nowhere else
                if str(document.path) in seen:
                    continue
                seen.add(str(document.path))
            yield from below(inner, (*path, node.label))

    return below(plan, ())


def _chosen_later(spec: SubDiagramNode) -> bool:
    """Whether the diagram is chosen while the run lasts."""
    return "{" in (spec.diagram_name or "") and not spec.diagram_data


def _compiled(spec: SubDiagramNode, plan: Plan, base_dir: Path) -> tuple[Diagram, Plan] | None:
    """The diagram that a node of *plan* runs; None when it cannot: the run will say so, if it comes to that."""
    try:
        document = nested_document(spec, (spec.diagram_name or "").strip(), source_path=plan.source_path, base_dir=base_dir)
        return document, document.compile(base_dir=base_dir)
    except DiagramError:
        return None


def check_answers(answers: Mapping[str, Any] | None, plan: Plan, base_dir: Path) -> None:
    """Refuse answers that nobody can ask for.

    Raises:
        ValidationError: they are not a mapping of names to texts, or lists of texts.
        UserError: a name is that of no node that asks, here or in a sub-diagram; the hint names the nearest one.
    """
    _check_form(answers)
    own = {name for node in plan.nodes if _asks(node) for name in (node.label, node.id)}
    if not answers or set(answers) <= own:
        return
    asking = askers(plan, base_dir)
    strange = sorted(name for name in answers if not asking.known(name))
    if strange and not asking.open:
        raise UserError(
            f"answers= names {', '.join(map(repr, strange))}, which is not a node that asks.",
            hint=f"{asking.suggestion(strange[0])}Nodes that ask: {', '.join(asking.names) or 'none'}.",
        )


def _check_form(answers: Any) -> None:
    example = "Use e.g. answers={'Approve': 'yes'}, or a list for a node that asks several times."
    if answers is not None and not isinstance(answers, Mapping):
        raise ValidationError(f"answers= takes a mapping, not {type(answers).__name__}.", hint=example)
    for name, given in (answers or {}).items():
        texts = [given] if isinstance(given, str) else given
        if not isinstance(name, str):
            raise ValidationError(f"answers= has the key {name!r:.80}, which is not a label of a node.", hint=example)
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValidationError(f"The answer of '{name:.80}' is {given!r:.80}, not a text or a list of texts.", hint=example)


def _asks(node: PlanNode) -> bool:
    """A user_response does, and a tool of an MCP server may; what registered node types do is not known."""
    if isinstance(node.spec, IntegratedApiNode) and node.spec.provider.startswith("mcp_"):
        return True
    return node.type == "user_response" or node.type not in set(NodeType)


def question_names(path: tuple[str, ...]) -> Iterator[str]:
    """The names that an answer to a question may have, the most exact first: its path from the outermost sub-diagram, shorter
    ends of it, and its label; each with and without the numbers of the items of batches."""
    for start in range(len(path)):
        part = path[start:]
        forms = [""]
        for step in part[:-1]:
            plain = re.sub(r"\[\d+\]$", "", step)
            forms = [f"{form}{one}/" for form in forms for one in dict.fromkeys((step, plain))]
        yield from (f"{form}{part[-1]}" for form in forms)


# Changes of a diagram's file since a run of it began.


def matched(before: Plan, after: Plan) -> Plan:
    """*before* with the ids that *after* gives to nodes of the same label and type; ids are places in a light file, so that a
    new node moves those behind it."""
    now = {(node.label, node.type): node.id for node in after.nodes}
    ids = {node.id: now.get((node.label, node.type), f"{node.id} (before)") for node in before.nodes}
    nodes = tuple(replace(node, id=ids[node.id]) for node in before.nodes)
    return replace(before, nodes=nodes, by_id={node.id: node.index for node in nodes})
