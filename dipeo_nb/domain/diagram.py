"""The diagram as data. Formats read and write these; nothing here knows a format.

Two deliberate differences from the wire model: a node's `label` is next to `data` instead of inside it, and an
arrow names its nodes and handles separately instead of through handle ids. `handle_id` builds the wire spelling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.domain.enums import HandleDirection, HandleLabel
from dipeo_nb.domain.request_options import Reasoning

if TYPE_CHECKING:
    from dipeo_nb.domain import chat
else:
    chat = lazy.module("dipeo_nb.domain.chat")  # reading a diagram asks nobody


@dataclass(frozen=True, slots=True)
class Vec2:
    """A place on the canvas, in pixels; y grows downwards."""

    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class DomainNode:
    """A node as a diagram has it: its type, its place and its properties."""

    id: str
    type: str
    """One of the 16 `NodeType` values or a registered one, lower case; an unknown type is kept as it is."""
    label: str
    position: Vec2 | None = None
    """None when the file gives none (the layout then chooses)."""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Properties under their canonical names, unknown ones included, without `label`."""

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class DomainArrow:
    """A connection of two nodes."""

    id: str
    source: str
    """Id of the source node."""
    target: str
    """Id of the target node."""
    source_handle: str = HandleLabel.DEFAULT.value
    target_handle: str = HandleLabel.DEFAULT.value
    label: str | None = None
    """Variable name at the target."""
    content_type: str | None = None
    execution_priority: float = 0
    """Siblings with a higher number get their token first."""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class DomainHandle:
    """A place of a node that arrows begin or end at."""

    id: str
    node_id: str
    label: str
    direction: HandleDirection
    data_type: str = "any"
    position: str | None = None


@dataclass(frozen=True, slots=True)
class LLMConfig:
    """Model settings of a person. `service` is normalised (aliases applied) by the readers."""

    service: str = ""
    """Empty: that of the settings' default model, where neither a model nor a server is named; else OpenAI."""
    model: str | None = None
    """None: the default model of the service."""
    api_key_id: str | None = None
    system_prompt: str | None = None
    prompt_file: str | None = None
    """A file that holds the system prompt; searched like a node's prompt file."""
    temperature: float | None = None
    max_tokens: int | None = None
    base_url: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Keys we do not know, kept for round trips."""
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    reasoning: Reasoning | None = None
    passthrough: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """`extra` in files: further fields of the provider's request (see `LLMRequest.extra`)."""

    __repr__ = bounded_repr

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(self.stop))

    @property
    def follows_default(self) -> bool:
        """Whether the settings' default model answers: neither a service nor a model nor a server is named."""
        return not (self.service or self.model or self.base_url)

    @property
    def own_options(self) -> dict[str, Any]:
        """The options that belong to the model that is named, by their names in files; those that are set."""
        values: dict[str, Any] = {"top_p": self.top_p, "stop": list(self.stop), "seed": self.seed, "reasoning": self.reasoning}
        given = {**values, "extra": dict(self.passthrough)}
        return {name: value for name, value in given.items() if value not in (None, [], {})}


@dataclass(frozen=True, slots=True)
class DomainPerson:
    """A person of a diagram, who answers prompts."""

    id: str
    label: str
    llm: LLMConfig = field(default_factory=LLMConfig)

    __repr__ = bounded_repr

    def asked(self, messages: Sequence[chat.ChatMessage], **more: Any) -> chat.LLMRequest:
        """A request to the person's model: where it is, its key, how it samples and thinks.

        Args:
            more: further fields of the request, and others than the person's.
        """
        llm = self.llm
        given: dict[str, Any] = {
            "top_p": llm.top_p,
            "stop": llm.stop,
            "seed": llm.seed,
            "reasoning": llm.reasoning,
            "extra": llm.passthrough,
            "api_key_id": llm.api_key_id,
            "base_url": llm.base_url,
        }
        return chat.LLMRequest(llm.service, llm.model or "", messages, **{**given, **more})

    def facet(self, name: str, *, system_prompt: str | None = None) -> DomainPerson:
        """A side of the person that does one job, such as `selector`: the same model under the id `<id>.__<name>`, with a
        system prompt of its own. Its messages are never part of a person's memory."""
        llm = replace(self.llm, system_prompt=system_prompt)
        return DomainPerson(f"{self.id}{FACET}{name}", f"{self.label}{FACET}{name}", llm)


FACET = ".__"
"""Stands between the id of a person and the name of a facet."""


def is_facet(person_id: str) -> bool:
    """Whether an id is one of a facet."""
    return FACET in person_id


@dataclass(frozen=True, slots=True)
class DiagramMetadata:
    """What a diagram says of itself."""

    version: str = "1.0.0"
    created: str | None = None
    modified: str | None = None
    id: str | None = None
    name: str | None = None
    description: str | None = None
    author: str | None = None
    tags: tuple[str, ...] | None = None
    format: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class DomainDiagram:
    """A diagram in the form that all formats are read into and written from."""

    nodes: tuple[DomainNode, ...] = ()
    arrows: tuple[DomainArrow, ...] = ()
    persons: tuple[DomainPerson, ...] = ()
    metadata: DiagramMetadata | None = None
    handles: tuple[DomainHandle, ...] = ()
    """Handles that the file lists explicitly; the others follow from the node types."""

    __repr__ = bounded_repr

    def node(self, reference: str) -> DomainNode:
        """The node with that id, else with that label; KeyError if there is none."""
        for node in self.nodes:
            if node.id == reference:
                return node
        for node in self.nodes:
            if node.label == reference:
                return node
        raise KeyError(reference)

    def person(self, reference: str) -> DomainPerson:
        """The person with that id, else with that label; KeyError if there is none."""
        for person in self.persons:
            if person.id == reference:
                return person
        for person in self.persons:
            if reference in (person.label, f"person_{person.label}"):
                return person
        raise KeyError(reference)


def handle_id(node_id: str, label: str, direction: HandleDirection | str) -> str:
    """The wire id of a handle: `node_3_condtrue_output`."""
    return f"{node_id}_{label}_{direction}"


def parse_handle_id(text: str) -> tuple[str, str, HandleDirection]:
    """Split a wire handle id into (node id, handle label, direction); the node id may hold underscores.

    Raises:
        ValueError: fewer than three pieces, or the last one is not input/output.
    """
    node, _, rest = text.rpartition("_")
    node, _, label = node.rpartition("_")
    if not node or rest not in ("input", "output"):
        raise ValueError(f"'{text}' is not a handle id of the form <node>_<handle>_input|output")
    return node, label, HandleDirection(rest)
