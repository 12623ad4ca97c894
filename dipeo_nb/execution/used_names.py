"""Which inputs of a run its diagram could make use of, as far as its text tells: what nothing names is probably misspelt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from dipeo_nb.diagram.name_analysis import CODE_FILE
from dipeo_nb.domain.enums import NodeType
from dipeo_nb.domain.nodes import (
    CodeJobNode,
    ConditionNode,
    DbNode,
    EndpointNode,
    HookNode,
    NodeSpec,
    PersonJobNode,
    StartNode,
    SubDiagramNode,
    TemplateJobNode,
)
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import DiagramError
from dipeo_nb.execution.nested import DEEPEST, nested_document

_WORD = re.compile(r"[^\W\d]\w*")
_BRACES = re.compile(r"\{(?:[^{}]|\{[^{}]*\})*\}+")
"""What stands in braces: `{{name}}`, `{% if name %}`, `{name}`."""
_WHOLE = re.compile(r"\b(?:inputs|globals|local|default|first)\b(?!\s*[.\[(])(?!\s*=[^=])")
"""Words that stand for all inputs at once in templates and expressions, not followed by one of their keys."""
_WHOLE_IN_CODE = re.compile(
    r"\binputs\b(?!\s*[.\[])|\binputs\.(?!get\b)|\b(?:globals|locals|vars|dir|eval|exec)\s*\(|[\"'](?:default|first)[\"']"
    r"|\bdefault\b(?!\s*[=\"'])"
)
"""The same in code."""
_RELAYS = frozenset(map(str, (NodeType.START, NodeType.CONDITION)))
"""Types of nodes that hand the inputs of the run on as they are."""


class UsedNames:
    """The names that templates, expressions, code and start nodes of a plan say, those of its sub-diagrams included.

    Attributes:
        names: all of them.
        everything: whether some node takes all inputs, whatever their names, or names what is not known here (a file of code).
    """

    def __init__(self, plan: Plan, base_dir: Path) -> None:
        self.names: set[str] = set()
        self.everything = False
        self._base_dir = base_dir
        self._inner: list[tuple[SubDiagramNode, Plan, int]] = []
        """Sub-diagrams not looked at yet, with the plan that they are part of and its depth."""
        self._seen = {plan.source_path or ""}
        self._visit(plan, 1)

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Those of *names* that nothing in the diagram could mean. Files of sub-diagrams are read when they matter."""
        left = [name for name in names if name not in self.names]
        while left and not self.everything and self._inner:
            self._enter(*self._inner.pop())
            left = [name for name in left if name not in self.names]
        return [] if self.everything else left

    def _visit(self, plan: Plan, depth: int) -> None:
        handed = _handed_on(plan)
        for node in plan.nodes:
            self._take(node.spec, str(node.type), node.index in handed)
            if isinstance(node.spec, SubDiagramNode):
                self._inner.append((node.spec, plan, depth))
        for person in plan.persons.values():
            self._take_text(person.llm.system_prompt or "")

    def _enter(self, spec: SubDiagramNode, plan: Plan, depth: int) -> None:
        name = (spec.diagram_name or "").strip()
        if depth >= DEEPEST or ("{" in name and not spec.diagram_data):
            self.everything = True
            return
        try:
            document = nested_document(spec, name, source_path=plan.source_path, base_dir=self._base_dir)
            inner = document.compile(base_dir=self._base_dir)
        except DiagramError:
            return  # the run will say so, if it comes to that
        place = str(document.path or "")
        if not place or place not in self._seen:
            self._seen.add(place)
            self._visit(inner, depth + 1)

    def _take(self, spec: NodeSpec, node_type: str, gets_all: bool) -> None:
        match spec:
            case StartNode():
                for data in (spec.custom_data, spec.output_data_structure):
                    self.names.update(map(str, data) if isinstance(data, Mapping) else ())
            case CodeJobNode():
                code = spec.code or ""
                self.everything |= not code or bool(CODE_FILE.fullmatch(code.strip())) or bool(_WHOLE_IN_CODE.search(code))
                self.names.update(_WORD.findall(code))
            case ConditionNode():
                self.everything |= bool(_WHOLE.search(spec.expression or ""))
                self.names.update(_WORD.findall(spec.expression or ""))
            case SubDiagramNode():
                self.names.add(spec.batch_input_key)
                for path in spec.input_mapping.values():
                    self.names.update(_WORD.findall(str(path)))
            case TemplateJobNode():
                self.everything |= bool(spec.template_path or spec.preprocessor)
            case EndpointNode() | DbNode():
                self.everything |= gets_all  # its result is all that arrives
            case HookNode():
                self.everything = True  # a program has all inputs in its environment, a web service in its body
            case PersonJobNode() if spec.batch:
                self.names.add(spec.batch_input_key)
            case _ if node_type not in _TEXTS_ONLY:
                self.everything = True
            case _:
                pass
        for text in _texts(getattr(spec, field.name) for field in fields(spec)):
            self._take_text(text)

    def _take_text(self, text: str) -> None:
        if "{" in text:
            for tag in _BRACES.findall(text):
                self.everything |= bool(_WHOLE.search(tag))
                self.names.update(_WORD.findall(tag))


_TEXTS_ONLY = frozenset(map(str, (NodeType.PERSON_JOB, NodeType.USER_RESPONSE, NodeType.API_JOB, NodeType.DIFF_PATCH)))
"""Further types of nodes that take from their inputs only what their texts name."""


def _handed_on(plan: Plan) -> set[int]:
    """Nodes to which an arrow brings the inputs of the run as a whole."""
    found: set[int] = set()
    waiting = [node.index for node in plan.nodes if isinstance(node.spec, StartNode)]
    while waiting:
        for edge in plan.nodes[waiting.pop()].outgoing:
            target = plan.nodes[plan.edges[edge].target]
            if target.index not in found:
                found.add(target.index)
                if str(target.type) in _RELAYS:
                    waiting.append(target.index)
    return found


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts([*value, *value.values()])
        elif isinstance(value, (list, tuple)):
            yield from _texts(value)
