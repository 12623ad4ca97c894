"""The words that all formats share: node types, properties and their aliases, labels, persons, metadata.

Readers turn every accepted spelling into the canonical one here; writers turn it back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cache
from typing import Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram.source import DocumentPath, Reading
from dipeo_nb.domain.chat import normalize_service
from dipeo_nb.domain.diagram import (
    DiagramMetadata,
    DomainNode,
    DomainPerson,
    LLMConfig,
    Vec2,
)
from dipeo_nb.domain.enums import OWN_SERVICES, SERVICE_ALIASES, LLMService
from dipeo_nb.domain.nodes import MEMORY_PROFILES, NODE_SPECS, NodeSpec, field_names
from dipeo_nb.domain.request_options import checked_option
from dipeo_nb.errors import ValidationError

# ------------------------------------------------------------------------------------------------------- words


def as_text(value: Any, reading: Reading, *at: str | int) -> str | None:
    """A scalar as the author wrote it (`No`, `007`, `1.0`), stripped; None for null, lists and mappings."""
    if isinstance(value, str):
        return value.strip()
    if value is None or isinstance(value, (list, dict)):
        return None
    written = reading.source.written(*at)
    return (written if written is not None else str(value)).strip()


# -------------------------------------------------------------------------------------------------- properties


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Property names of one node type."""

    known: frozenset[str]
    aliases: Mapping[str, str]
    """Other spelling → canonical."""
    dropped: frozenset[str]
    empty: frozenset[str]
    """Properties that mean nothing when empty: their default is empty too. Writers leave them out then."""

    @property
    def words(self) -> tuple[str, ...]:
        """Every accepted spelling."""
        return (*self.known, *self.aliases)


@cache
def vocabulary(cls: type[NodeSpec]) -> Vocabulary:
    """The property names of a node type, from its spec."""
    aliases = dict(cls.META.aliases)
    for field in fields(cls):
        spellings = field.metadata.get("aliases", ())
        if isinstance(spellings, tuple):  # a mapping holds aliases of values instead
            aliases |= dict.fromkeys(spellings, field.name)
    empty = {
        field.name
        for field in fields(cls)
        # `default` is a value that is used as it is, so an empty one says something.
        if field.name != "default" and _default(field) in (None, "", {}, [])
    }
    return Vocabulary(frozenset(field_names(cls)), aliases, frozenset(cls.META.dropped), frozenset(empty))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def spellings() -> dict[str, tuple[str, ...]]:
    """Canonical property → its other spellings, over all node types (for finding places)."""
    found: dict[str, tuple[str, ...]] = {}
    for cls in NODE_SPECS.values():
        for alias, name in vocabulary(cls).aliases.items():
            if alias not in found.get(name, ()):
                found[name] = (*found.get(name, ()), alias)
    return found


def properties(
    raw: Mapping[str, Any], node_type: str, reading: Reading, at: DocumentPath, label: str
) -> dict[str, Any]:
    """A node's properties under canonical names: dotted keys expanded, aliases applied, legacy ones dropped.

    An alias counts only when the canonical name is absent. Unknown names are kept and reported.
    """
    cls = NODE_SPECS.get(node_type)
    words = vocabulary(cls) if cls else None
    if words and raw.keys() <= words.known:
        return dict(raw)
    result = {key: value for key, value in raw.items() if "." not in key}
    if len(result) < len(raw):
        for key, value in raw.items():
            if "." in key:
                _expand(result, key, value, reading, at, label)
    if not words:
        return result
    for alias, name in words.aliases.items():
        if alias in result:
            value = result.pop(alias)
            if name not in result:
                if alias == "memory_profile" and isinstance(value, str):
                    value = MEMORY_PROFILES.get(value.strip().upper(), value)
                result[name] = value
    for name in words.dropped:
        if result.pop(name, None) and name.startswith("memory_"):
            reading.warn(
                "ignored-value",
                f"'{name}' has no effect.",
                *at,
                *_key_path(reading, at, name),
                hint="Say what the person remembers with memorize_to and at_most.",
                node=shorten(label),
                field=name,
            )
    for name in result:
        if name not in words.known:
            reading.warn(
                "unknown-property",
                f"'{shorten(name)}' is not a property of {node_type}; it is kept and has no effect.",
                *at,
                *_key_path(reading, at, name),
                hint=did_you_mean(name, words.words, f"A {node_type} takes {', '.join(sorted(words.known))}."),
                node=shorten(label),
                field=name,
            )
    return result


def _key_path(reading: Reading, at: DocumentPath, name: str) -> DocumentPath:
    path = reading.source.field_path(at, name)
    return path[len(at) :] if path else ()


def _expand(result: dict[str, Any], key: str, value: Any, reading: Reading, at: DocumentPath, label: str) -> None:
    """`custom_data.a.b: 1` ⇒ `custom_data: {a: {b: 1}}`, merged into what is there."""
    *outer, last = key.split(".")
    here = result
    for part in outer:
        inner = here.get(part)
        if inner is None:
            inner = here[part] = {}
        elif not isinstance(inner, dict):
            reading.warn(
                "dotted-key",
                f"'{shorten(key)}' cannot be set inside '{shorten(part)}', which is not a mapping; it is ignored.",
                *at,
                key,
                hint=f"Write '{shorten(part)}' as a mapping.",
                node=shorten(label),
                field=key,
            )
            return
        here = inner
    here[last] = value


def written_properties(node: DomainNode, *, aliases: bool) -> dict[str, Any]:
    """A node's properties for the light (*aliases* reversed, §2.2.6) and readable writers.

    `false` and `0` are kept. Null, empty text, empty mappings and empty lists are left out where they mean nothing.
    """
    cls = NODE_SPECS.get(node.type)
    names = cls.META.write_aliases if cls and aliases else {}
    empty = vocabulary(cls).empty if cls else frozenset[str]()
    return {
        names.get(key, key): value
        for key, value in node.data.items()
        if key not in empty or not (value is None or (isinstance(value, (str, dict, list, tuple)) and not value))
    }


# ------------------------------------------------------------------------------------------------------- nodes

_START_LABELS = ("start",)
_END_LABELS = ("end", "endpoint")


def infer_type(label: str, props: Mapping[str, Any], *, first: bool, branches: bool = False) -> str:
    """The type of a node that names none (§2.3): by its properties, its label, its use, its place in the file."""
    base = label.partition("~")[0].strip().lower()
    if base in _START_LABELS or props.keys() & {"trigger_mode", "custom_data"}:
        return "start"
    if props.keys() & {"person", "default_prompt", "first_only_prompt", "max_iteration"} and not props.keys() & {
        "condition_type"
    }:
        return "person_job"
    if props.keys() & {"condition_type", "expression"} or branches:
        return "condition"
    if props.keys() & {"code", "language", "code_type"}:
        return "code_job"
    if "operation" in props and props.keys() & {"file", "source_details", "sub_type", "subType"}:
        return "db"
    if props.keys() & {"save_to_file", "file_format"} or base in _END_LABELS:
        return "endpoint"
    for evidence, node_type in _EVIDENCE:
        if evidence <= props.keys():
            return node_type
    return "start" if first else "person_job"


_EVIDENCE: tuple[tuple[set[str], str], ...] = (
    ({"url", "method"}, "api_job"),
    ({"diagram_name"}, "sub_diagram"),
    ({"template_path"}, "template_job"),
    ({"template_content"}, "template_job"),
    ({"hook_type"}, "hook"),
    ({"prompt"}, "user_response"),
)


def node_type(value: Any, reading: Reading, at: DocumentPath, label: str) -> str | None:
    """A `type` as a known one in lower case; an unknown one is kept and reported; None when it must be inferred."""
    if value is None:
        return None
    text = as_text(value, reading, *at)
    if text is None:
        reading.error(
            "wrong-type",
            "The type of a node is one word.",
            *at,
            hint="Write e.g. 'type: person_job'.",
            node=shorten(label),
            field="type",
        )
        return None
    text = text.lower()
    if text in ("job", ""):
        return None
    if text not in NODE_SPECS:
        reading.warn(
            "unknown-type",
            f"'{shorten(text)}' is not a node type; the node is kept but cannot run.",
            *at,
            hint=did_you_mean(text, NODE_SPECS, f"The types are {', '.join(NODE_SPECS)}."),
            node=shorten(label),
            field="type",
        )
    return text


def position(value: Any, reading: Reading, at: DocumentPath, label: str) -> Vec2 | None:
    """`{x: 100, y: 100.5}` or `[100, 100.5]` in pixels; anything else is reported and left out."""
    if value is None:
        return None
    pair: Sequence[Any] = ()
    if isinstance(value, dict):
        pair = (value.get("x", 0), value.get("y", 0))
    elif isinstance(value, list) and len(value) == 2:
        pair = value
    if pair and all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in pair):
        x, y = (float(n) if abs(n) < 1e9 else math.nan for n in pair)
        if math.isfinite(x) and math.isfinite(y):
            return Vec2(x, y)
    reading.warn(
        "bad-position",
        f"'{shorten(value)}' is no position; the node is placed automatically.",
        *at,
        hint="Write 'position: {x: 100, y: 200}'.",
        node=shorten(label),
        field="position",
    )
    return None


def given_ids(items: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The ids that the items of a document name."""
    return frozenset(str(item["id"]).strip() for item in items if item.get("id") is not None)


def free_id(index: int, taken: frozenset[str]) -> str:
    """The id of the node at *index*, which names none; never one that another of the nodes names."""
    made = f"node_{index}"
    while made in taken:
        made += "_"
    return made


def whole(number: float) -> int | float:
    """A coordinate for JSON: without a fraction when it has none."""
    return int(number) if number == int(number) else number


def unique_labels(nodes: Sequence[DomainNode], reading: Reading, at: Callable[[int], DocumentPath]) -> list[DomainNode]:
    """The nodes with unique labels: the first keeps the bare name, further ones get `~1`, `~2` …, with a warning."""
    counts = Counter(node.label for node in nodes)
    if len(counts) == len(nodes):
        return list(nodes)
    seen: set[str] = set()
    number: Counter[str] = Counter()
    result: list[DomainNode] = []
    for index, node in enumerate(nodes):
        if node.label in seen:
            label = node.label
            while label in counts:
                number[node.label] += 1
                label = f"{node.label}~{number[node.label]}"
            counts[label] += 1
            reading.warn(
                "duplicate-label",
                f"Another node is already labelled '{shorten(node.label)}'; this one is called '{shorten(label)}'.",
                *at(index),
                hint="Give it a label of its own.",
                node=shorten(label),
                field="label",
            )
            result.append(replace(node, label=label))
        else:
            seen.add(node.label)
            result.append(node)
    return result


# ----------------------------------------------------------------------------------------------------- persons

PERSON_TEXTS = ("model", "api_key_id", "system_prompt", "prompt_file", "base_url")
PERSON_NUMBERS = ("temperature", "max_tokens")
PERSON_OPTIONS = ("top_p", "stop", "seed", "reasoning", "extra")
"""Further options of the model; see `LLMRequest`."""
_ONE_TURN = ("max_turns", "maxTurns")
"""What upstream's persons of Claude Code have: a limit of the turns of one answer."""
_PERSON_WORDS = (*PERSON_TEXTS, *PERSON_NUMBERS, *PERSON_OPTIONS, "service", "id", "label", "type", "name", "llm_config")


def service_name(value: str) -> str:
    """A service in its canonical spelling (§1.3): lower case, dashes, aliases applied."""
    return normalize_service(value)


def person(
    name: str | None, config: Mapping[str, Any], default_id: Callable[[str], str], reading: Reading, at: DocumentPath
) -> DomainPerson:
    """A person from its name and its settings, flat or under `llm_config`.

    *default_id* makes the id of a person that names none, from its key in the file, else from its label.
    """
    nested = config.get("llm_config")
    inside = ("llm_config",) if isinstance(nested, dict) else ()
    settings: dict[str, Any] = {k: v for k, v in config.items() if not isinstance(nested, dict) or k != "llm_config"}
    if isinstance(nested, dict):
        settings |= nested
    given_id = as_text(config.get("id"), reading, *at, "id")
    label = as_text(config.get("label"), reading, *at, "label")
    label = label or as_text(config.get("name"), reading, *at, "name") or name or given_id or "person"

    def where(key: str) -> DocumentPath:
        return (*at, *inside, key) if inside and key in (nested or {}) else (*at, key)

    texts: dict[str, str | None] = {}
    for key in PERSON_TEXTS:
        value = settings.get(key)
        if isinstance(value, (list, dict)):
            _wrong_person_field(key, "text", value, label, reading, where(key))
        elif key == "system_prompt" and isinstance(value, str):
            texts[key] = value or None  # untrimmed: a prompt's line ends are the author's
        else:
            texts[key] = as_text(value, reading, *where(key)) or None
    numbers: dict[str, Any] = {}
    for key in PERSON_NUMBERS:
        value = settings.get(key)
        if value is None:
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            _wrong_person_field(key, "a number", value, label, reading, where(key))
            continue
        number = int(value) if key == "max_tokens" and float(value).is_integer() else value
        if (checked := _checked(key, number, label, reading, where(key))) is not None:
            numbers[key] = checked if key == "max_tokens" else float(checked)
    options: dict[str, Any] = {}
    for key in PERSON_OPTIONS:
        value = settings.get(key)
        if value is not None and value != "" and (checked := _checked(key, value, label, reading, where(key))) is not None:
            options["passthrough" if key == "extra" else key] = checked
    service = _service(settings.get("service"), label, reading, where("service"))
    if not service and (texts.get("model") or texts.get("base_url")):  # those say that it is not the settings' default model
        service = LLMService.OPENAI.value
    llm = LLMConfig(
        service=service,
        extra={k: v for k, v in settings.items() if k not in _PERSON_WORDS},
        **texts,
        **numbers,
        **options,
    )
    for key in llm.extra:
        if key in _ONE_TURN:
            reading.inform(
                "no-effect",
                f"'{key}' of person '{shorten(label)}' is kept and has no effect: here a person answers in one turn.",
                *where(key),
                field=key,
            )
            continue
        reading.warn(
            "unknown-property",
            f"'{shorten(key)}' is not a property of a person (person '{shorten(label)}'); it is kept and has no effect.",
            *where(key),
            hint=did_you_mean(key, _PERSON_WORDS, f"A person takes {', '.join(PERSON_TEXTS + PERSON_NUMBERS + PERSON_OPTIONS)}."),
            field=key,
        )
    return DomainPerson(given_id or default_id(name or label), label, llm)


def _checked(key: str, value: Any, label: str, reading: Reading, at: DocumentPath) -> Any:
    """The value of an option of the person's model; None, with an error, when it cannot be one."""
    try:
        return checked_option(key, value)
    except ValidationError as error:
        reading.error(
            "wrong-option", f"Person '{shorten(label)}': {shorten(error.message, 300)}", *at, hint=error.hint or "", field=key
        )
        return None


def _wrong_person_field(key: str, wanted: str, value: Any, label: str, reading: Reading, at: DocumentPath) -> None:
    reading.error(
        "wrong-type",
        f"'{key}' of person '{shorten(label)}' is {wanted}, not '{shorten(value)}'.",
        *at,
        hint=f"Write {wanted}.",
        field=key,
    )


def _service(value: Any, label: str, reading: Reading, at: DocumentPath) -> str:
    if value is None or value == "":
        return ""
    text = as_text(value, reading, *at)
    if text is None:
        _wrong_person_field("service", "text", value, label, reading, at)
        return LLMService.OPENAI.value
    name = service_name(text)
    if name not in {*LLMService, *OWN_SERVICES}:
        reading.warn(
            "unknown-service",
            f"'{shorten(text)}' of person '{shorten(label)}' is not a known service.",
            *at,
            hint=did_you_mean(text, [*LLMService, *SERVICE_ALIASES], f"The services are {', '.join(LLMService)}."),
            field="service",
        )
    return name


def persons(value: Any, default_id: Callable[[str], str], reading: Reading) -> tuple[DomainPerson, ...]:
    """Persons from `{name: settings}`, a list of such, or a list of settings with `label` or `id`.

    Entries that are no mappings are ignored with a warning.
    """
    found: list[DomainPerson] = []

    def add(name: str | None, config: Any, at: DocumentPath) -> None:
        if config is None and name is not None:
            config = {}
        if not isinstance(config, dict):
            reading.warn(
                "stray-entry",
                f"'{shorten(name or config)}' under persons is no person; it is ignored.",
                *at,
                hint="A person is a name with settings below it; check the indentation.",
            )
            return
        one = person(name, config, default_id, reading, at)
        reading.source.persons.setdefault(one.id, at)
        found.append(one)

    if isinstance(value, dict):
        for name, config in value.items():
            add(name.strip(), config, ("persons", name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            if isinstance(item, dict) and len(item) == 1 and isinstance(next(iter(item.values())), (dict, type(None))):
                name, config = next(iter(item.items()))
                add(name.strip(), config, ("persons", i, name))
            else:
                add(None, item, ("persons", i))
    elif value is not None:
        reading.error(
            "wrong-type",
            f"'persons' is a mapping of names to settings, not '{shorten(value)}'.",
            "persons",
            hint="Write each person as 'Name: {service: …, model: …}'.",
        )
    return tuple(found)


class PersonNames:
    """What texts may call each person: its id before all, else its label or `person_<label>`."""

    def __init__(self, people: Iterable[DomainPerson]) -> None:
        self.by_id = {p.id: p for p in people}
        self._by_name: dict[str, list[str]] = {}
        for p in self.by_id.values():
            for name in (p.label, f"person_{p.label}"):
                self._by_name.setdefault(name, []).append(p.id)

    def ids(self, reference: str) -> tuple[str, ...]:
        """The ids of the persons that *reference* may mean: none, one, or several that share a label."""
        for text in (reference, reference.strip()):
            if text in self.by_id:
                return (text,)
            if text in self._by_name:
                return tuple(self._by_name[text])
        return ()

    def id(self, reference: str) -> str | None:
        """The id of the one person that *reference* means; None when it is nobody or several."""
        found = self.ids(reference)
        return found[0] if len(found) == 1 else None

    def clashes(self) -> Iterator[tuple[DomainPerson, DomainPerson]]:
        """Labels that are the id of another person: (one with that label, the one with that id), once for each label."""
        seen: set[str] = set()
        for p in self.by_id.values():
            other = self.by_id.get(p.label)
            if other is not None and other is not p and p.label not in seen:
                seen.add(p.label)
                yield p, other


def resolve_persons(nodes: Iterable[DomainNode], people: Sequence[DomainPerson]) -> tuple[DomainNode, ...]:
    """Nodes whose `person` is an id, wherever they named one known person in another way."""
    names = PersonNames(people)
    result: list[DomainNode] = []
    for node in nodes:
        reference = node.data.get("person")
        if isinstance(reference, str) and (found := names.id(reference)) is not None and found != reference:
            node = replace(node, data={**node.data, "person": found})
        result.append(node)
    return tuple(result)


def written_persons(
    people: Sequence[DomainPerson], default_id: Callable[[str], str]
) -> tuple[dict[str, dict[str, Any]] | list[dict[str, Any]], dict[str, str]]:
    """Persons for the light and readable writers, and how nodes refer to each id.

    Persons are keyed by label, and `id` is written when it is not what the reader makes of the key. Labels that are
    shared, or that are the id of another person, would let a reference mean somebody else: then persons are keyed by
    id, and nodes name ids. Persons that share an id cannot be keyed; they make a list.
    """
    names = PersonNames(people)
    if len(names.by_id) < len(people):
        return [{"id": p.id, "label": p.label, **llm_settings(p.llm)} for p in people], {}
    if len({p.label for p in people}) < len(people) or any(names.clashes()):
        keyed = {p.id: p for p in people}
    else:
        keyed = {p.label: p for p in people}
    written: dict[str, dict[str, Any]] = {}
    for key, p in keyed.items():
        settings = llm_settings(p.llm)
        if p.id != default_id(key):
            settings["id"] = p.id
        if p.label != key:
            settings["label"] = p.label
        written[key] = settings
    return written, {p.id: key for key, p in keyed.items() if names.id(key) == p.id}


def llm_settings(llm: LLMConfig) -> dict[str, Any]:
    """The settings of a person in wire spelling; those that are set."""
    values = {key: getattr(llm, key) for key in ("service", *PERSON_TEXTS, *PERSON_NUMBERS)}
    return {k: v for k, v in values.items() if v is not None and (v or k != "service")} | llm.own_options | dict(llm.extra)


# ---------------------------------------------------------------------------------------------------- metadata

_METADATA_TEXTS = ("version", "created", "modified", "id", "name", "description", "author", "format")


def metadata(value: Any, top: Mapping[str, Any], reading: Reading) -> DiagramMetadata | None:
    """Metadata from the `metadata:` mapping and from *top*: keys beside it (name, description, unknown ones)."""
    if value is not None and not isinstance(value, dict):
        reading.warn(
            "wrong-type", "'metadata' is a mapping; it is ignored.", "metadata", hint="Write 'name: …' below it."
        )
        value = None
    inside: dict[str, Any] = dict(value or {})
    for key, beside in top.items():
        inside.setdefault(key, beside)
    if not inside:
        return None
    texts = {
        key: as_text(inside[key], reading, *(("metadata", key) if key in (value or {}) else (key,)))
        for key in _METADATA_TEXTS
        if inside.get(key) is not None
    }
    tags = inside.get("tags")
    return DiagramMetadata(
        tags=tuple(str(t) for t in tags) if isinstance(tags, list) else ((str(tags),) if tags else None),
        extra={k: v for k, v in inside.items() if k not in _METADATA_TEXTS and k != "tags"},
        **{k: v for k, v in texts.items() if v},
    )


def written_metadata(meta: DiagramMetadata | None) -> dict[str, Any]:
    """Metadata in wire form. `created` and `modified` are required there, so they are empty when unknown."""
    if meta is None:
        return {}
    values = {key: getattr(meta, key) for key in _METADATA_TEXTS}
    made = {k: v for k, v in values.items() if v is not None or k in ("created", "modified")}
    made |= {k: "" for k in ("created", "modified") if made[k] is None}
    if meta.tags is not None:
        made["tags"] = list(meta.tags)
    return made | dict(meta.extra)


def unknown_top_keys(reading: Reading, known: Iterable[str]) -> dict[str, Any]:
    """Top-level keys that the format does not have, each reported; they are kept with the metadata.

    Keys that begin with `$` (`$schema`) are an editor's, `api_keys` may hold secrets: both are dropped.
    """
    allowed = tuple(known)
    kept: dict[str, Any] = {}
    for key, value in reading.value.items():
        if key in allowed or key.startswith(("$", "__")):
            continue
        if key == "api_keys":
            reading.warn(
                "api-keys",
                "'api_keys' is ignored: keys do not belong in a diagram.",
                key,
                hint="Set the provider's environment variable, e.g. OPENAI_API_KEY.",
            )
            continue
        kept[key] = value
        reading.warn(
            "unknown-key",
            f"'{shorten(key)}' is not a part of a diagram; it is kept and has no effect.",
            key,
            hint=did_you_mean(key, allowed, f"The parts are {', '.join(allowed)}."),
        )
    return kept


def items(reading: Reading, key: str, what: str) -> list[tuple[DocumentPath, dict[str, Any]]]:
    """The mappings of a list, with their paths; stray other items are reported and left out.

    Raises:
        DiagramFormatError: the value is neither a list nor empty.
    """
    value = reading.value.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        kind = "a mapping" if isinstance(value, dict) else f"'{shorten(value, 30)}'"
        raise reading.refuse(f"'{key}' is a list of {what}, not {kind}.", key, hint="Begin each item with '- '.")
    found: list[tuple[DocumentPath, dict[str, Any]]] = []
    for index, item in enumerate(value):
        if isinstance(item, dict):
            found.append(((key, index), item))
        else:
            stray_item(reading, key, index, item)
    return found


def stray_item(reading: Reading, key: str, index: int, item: Any) -> None:
    """Report a list item that is not what the list holds."""
    said = "An empty item" if item is None else f"'{shorten(item)}'"
    reading.warn(
        "stray-item", f"{said} in '{key}' is ignored.", key, index, hint="Remove the '-', or write the item's fields."
    )
