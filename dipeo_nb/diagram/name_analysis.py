"""Names that a node's templates and expressions can rely on, as far as known before a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.domain.enums import ContentType, DBOperation
from dipeo_nb.domain.nodes import CODE_FILE, CodeJobNode, ConditionNode, DbNode, NodeSpec, PersonJobNode, StartNode

SPECIAL_NAMES = frozenset(["inputs", "globals", "local", "global_conversation", "global_message_count"])
"""Names that every run provides; `NodeContext.names` supplies them."""
_TEXT_SUFFIXES = (".txt", ".md", ".csv", ".log", ".html", ".xml")


class GivenNames:
    """The names that arrows, start nodes and code of one diagram bring.

    Args:
        incoming: arrows by the id of their target.
        specs: typed nodes by id; None where a node could not be typed.
    """

    def __init__(
        self, model: DomainDiagram, incoming: Mapping[str, list[DomainArrow]], specs: Mapping[str, NodeSpec | None]
    ) -> None:
        self.model = model
        self.nodes: dict[str, DomainNode] = {node.id: node for node in model.nodes}
        self.incoming = incoming
        self.specs = specs
        self._open: dict[tuple[str, bool], bool] = {}
        """What `_may_be_mapping` has found out, by node and whether it was asked of an object."""

    @cached_property
    def published(self) -> set[str]:
        """Keys of the start nodes' custom_data."""
        found: set[str] = set()
        for node in self.model.nodes:
            data = node.data.get("custom_data") if node.type == "start" else None
            if isinstance(data, Mapping):
                found.update(str(key) for key in data)
        return found

    def into(self, node: DomainNode) -> set[str] | None:
        """Names that arrows bring into a node; None when one may bring a mapping with any keys."""
        spec = self.specs.get(node.id)
        if spec is None or getattr(spec, "batch", False):
            return None
        found: set[str] = set()
        for arrow in self.incoming[node.id]:
            source = self.nodes[arrow.source]
            if self._may_be_mapping(source, arrow.content_type):
                return None
            found.add(arrow.label or "default")
            if not arrow.label:
                found.update(("first", source.label))
        return found

    def may_bring_items(self, node: DomainNode, name: str) -> bool:
        """Whether the items of a batch node can come under that name: as the label of an arrow, as an unlabelled list, as a key
        of a mapping or as a variable of the run; an input that is given to the run is not thought of."""
        if name in self.published:
            return True
        words = self.written
        if words is None or name in words:
            return True
        for arrow in self.incoming[node.id]:
            source, spec = self.nodes[arrow.source], self.specs.get(arrow.source)
            if arrow.label == name or (not arrow.label and not isinstance(spec, StartNode)):
                return True
            own_words = isinstance(spec, CodeJobNode) and not spec.isolated  # they are among `words`
            if not own_words and self._may_be_mapping(source, arrow.content_type):
                return True
        return False

    def _may_be_mapping(self, node: DomainNode, content_type: str | None) -> bool:
        """Whether a node may give a mapping on an arrow of that content type. Conditions pass on what reaches them, so that the
        question goes back through them; each is looked at once, however many ask."""
        start = (node.id, content_type == ContentType.OBJECT)
        came_from: dict[tuple[str, bool], tuple[str, bool] | None] = {start: None}
        waiting = [start]
        while waiting:
            place = waiting.pop()
            spec = self.specs.get(place[0])
            known = self._open.get(place)
            if known is None and isinstance(spec, ConditionNode):
                arrows = self.incoming[place[0]]
                if not arrows or not (place[1] or (len(arrows) > 1 and any(arrow.label for arrow in arrows))):
                    for arrow in arrows:
                        before = (arrow.source, arrow.content_type == ContentType.OBJECT)
                        if before not in came_from:
                            came_from[before] = place
                            waiting.append(before)
                    continue
                known = True
            elif known is None:
                known = self._gives_mapping(self.nodes[place[0]], spec, place[1])
            if known:
                while place is not None:
                    self._open[place] = True
                    place = came_from[place]
                return True
        self._open.update(dict.fromkeys(came_from, False))
        return False

    def _gives_mapping(self, node: DomainNode, spec: NodeSpec | None, is_object: bool) -> bool:
        """The same for a node that is not a condition."""
        if isinstance(spec, StartNode):
            return False  # a start node brings what is known anywhere: its data and the run's variables
        if is_object:
            return True  # text is read as JSON there
        if isinstance(spec, PersonJobNode):
            return bool(spec.text_format or spec.text_format_file or spec.batch)
        if isinstance(spec, DbNode):
            return not (
                spec.operation is DBOperation.READ and isinstance(spec.file, str) and spec.file.lower().endswith(_TEXT_SUFFIXES)
            )
        return node.type not in ("user_response", "template_job")  # these give text

    @cached_property
    def written(self) -> set[str] | None:
        """Words of all code that can set variables of the run, and loop counters; None when code is in files.

        Not to be asked before all nodes have their specs.
        """
        words: set[str] = set()
        for spec in self.specs.values():
            if isinstance(spec, CodeJobNode) and not spec.isolated:
                if not spec.code or CODE_FILE.fullmatch(spec.code.strip()):
                    return None
                words.update(re.findall(r"[^\W\d]\w*", spec.code))
            elif isinstance(spec, ConditionNode) and spec.expose_index_as:
                words.add(spec.expose_index_as)
        return words
