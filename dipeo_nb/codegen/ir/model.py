"""The parts of an IR: frozen, typed, and plain when a template reads them (`plain`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, cast

VERSION = 3
"""Of the shapes below, and of what the steps make of a source."""


@dataclass(frozen=True, slots=True)
class Field:
    """A property of a model."""

    ALSO: ClassVar = {"is_optional": "optional"}
    """Names by which DiPeO's templates know a part, too; likewise below."""

    name: str
    type: str
    """In TypeScript, as written."""
    python_name: str
    python_type: str
    """Without what `optional` says."""
    graphql_type: str
    """Without `!`."""
    optional: bool
    readonly: bool = False
    literal: bool = False
    """Whether only one value is possible: `literal_value`, as Python source."""
    literal_value: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """An interface, with the properties that it inherits from interfaces of the sources, its own last."""

    name: str
    fields: tuple[Field, ...]
    extends: tuple[str, ...]
    description: str
    source: str
    open: bool = False
    """Whether there may be further properties: `[key: string]: unknown`."""


@dataclass(frozen=True, slots=True)
class NewType:
    """A branded primitive: `string & {readonly __brand: …}`."""

    name: str
    base: str
    source: str


@dataclass(frozen=True, slots=True)
class Alias:
    """Another alias of a type."""

    name: str
    type: str
    """In Python."""
    typescript: str
    source: str
    literals: tuple[Any, ...] = ()
    """The values, where all members are literals."""


@dataclass(frozen=True, slots=True)
class EnumValue:
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class EnumDef:
    """An enum. `values`, as templates have it, are its members."""

    name: str
    values: tuple[EnumValue, ...]
    description: str
    source: str


@dataclass(frozen=True, slots=True)
class NodeSpecIR:
    """A node type: what its constant says, by DiPeO's names."""

    node_type: str
    node_name: str
    """In PascalCase."""
    spec_name: str
    """Of the constant."""
    display_name: str
    category: str
    icon: str
    color: str
    description: str
    fields: tuple[Mapping[str, Any], ...]
    """As the constant has them, and `default` beside `defaultValue`."""
    source: str
    raw_data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """All of the constant."""


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    graphql_type: str
    """Without `!`."""
    python_type: str
    required: bool
    type: str = ""
    """As in the source."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of GraphQL."""

    ALSO: ClassVar = {"operation_name": "name", "operation_type": "type"}

    name: str
    type: str
    """query, mutation or subscription."""
    entity: str
    variables: tuple[Variable, ...]
    fields: tuple[Mapping[str, Any], ...]
    """name, args, fields."""
    query_string: str
    return_type: str
    """In Python, by its name (the filter get_operation_return_type)."""
    source: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class BackendIR:
    version: int
    node_specs: tuple[NodeSpecIR, ...]
    enums: tuple[EnumDef, ...]
    domain_models: Mapping[str, tuple[Any, ...]]
    """models, aliases, newtypes."""
    types: tuple[Model, ...]
    type_aliases: Mapping[str, Alias]
    node_factory: Mapping[str, Any]
    """imports, factory_cases, categories."""
    integrations: tuple[Mapping[str, Any], ...]
    conversions: Mapping[str, Any]
    """node_type_map, type_mappings, field_mappings."""
    typescript_indexes: Mapping[str, tuple[str, ...]]
    """Source → what it exports."""
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FrontendIR:
    version: int
    node_specs: tuple[NodeSpecIR, ...]
    node_configs: tuple[Mapping[str, Any], ...]
    node_registry: Mapping[str, str]
    """Node type → name of its constant."""
    registry_data: Mapping[str, Any]
    field_configs: tuple[Mapping[str, Any], ...]
    typescript_models: tuple[Model, ...]
    graphql_queries: tuple[Operation, ...]
    queries: tuple[Operation, ...]
    mutations: tuple[Operation, ...]
    subscriptions: tuple[Operation, ...]
    grouped_queries: Mapping[str, tuple[str, ...]]
    """Entity → names of its operations."""
    enums: tuple[EnumDef, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StrawberryIR:
    ALSO: ClassVar = {"raw_queries": "queries", "raw_mutations": "mutations", "raw_subscriptions": "subscriptions"}
    version: int
    operations: tuple[Operation, ...]
    queries: tuple[Operation, ...]
    mutations: tuple[Operation, ...]
    subscriptions: tuple[Operation, ...]
    types: tuple[Mapping[str, Any], ...]
    """All but the inputs, with what they are in Strawberry: `resolved_fields`."""
    domain: tuple[Model, ...]
    """The models that are neither inputs nor results; as `interfaces`."""
    interfaces: tuple[Model, ...]
    inputs: tuple[Model, ...]
    results: tuple[Model, ...]
    enums: tuple[EnumDef, ...]
    scalars: tuple[NewType, ...]
    node_specs: tuple[Mapping[str, Any], ...]
    """With what their fields are in GraphQL: `spec`."""
    imports: Mapping[str, tuple[str, ...]]
    """What the operations' variables need: `strawberry` (Upload), `domain` (inputs and enums of the sources)."""
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IRMetadata:
    """How an IR came to be. No time: the same sources give the same bytes."""

    builder_type: str
    version: int
    source_files: int
    sources: tuple[str, ...]
    digest: str
    """SHA-256 of sources, version and options."""


@dataclass(frozen=True, slots=True)
class IRData:
    """What a builder gives."""

    metadata: IRMetadata
    data: Any
    """A BackendIR, FrontendIR, StrawberryIR, or what a custom builder makes."""

    def to_dict(self) -> dict[str, Any]:
        """`{"data": …, "metadata": …}` of plain values."""
        return {"data": plain(self.data), "metadata": plain(self.metadata)}

    def names(self) -> dict[str, Any]:
        """What templates are given (`template_names`)."""
        return template_names(self.to_dict())

    def to_bytes(self) -> bytes:
        """JSON in UTF-8, with sorted keys: identical for identical sources."""
        return json.dumps(self.to_dict(), ensure_ascii=False, sort_keys=True, indent=1).encode()


def template_names(found: Mapping[str, Any]) -> dict[str, Any]:
    """`{"data": …, "metadata": …}` with the keys of the data beside it, and its counts among the metadata."""
    data, metadata = found["data"], found["metadata"]
    if not isinstance(data, Mapping) or not isinstance(metadata, Mapping):
        return dict(found)
    named = cast(Mapping[str, Any], data)
    counts = named.get("metadata")
    return {**named, "data": data, "metadata": {**(counts if isinstance(counts, Mapping) else {}), **metadata}}


def plain(value: Any) -> Any:
    """Dataclasses as mappings, tuples as lists: as JSON and templates have them."""
    if is_dataclass(value) and not isinstance(value, type):
        made = {each.name: plain(getattr(value, each.name)) for each in fields(value)}
        also: Mapping[str, str] = getattr(value, "ALSO", {})
        return made | {name: made[own] for name, own in also.items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast(list[Any], value)]
    return value
