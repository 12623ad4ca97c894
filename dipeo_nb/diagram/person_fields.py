"""Persons in all formats: their settings, how nodes refer to them, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram.reading import ReadContext, as_text
from dipeo_nb.diagram.spans import DocumentPath
from dipeo_nb.domain.diagram import DomainNode, DomainPerson, LLMConfig
from dipeo_nb.domain.enums import SERVICE_ALIASES, LLMService
from dipeo_nb.domain.llm_providers import is_service, normalize_service
from dipeo_nb.domain.request_options import checked_option
from dipeo_nb.errors import ValidationError

PERSON_TEXTS = ("model", "api_key_id", "system_prompt", "prompt_file", "base_url")
PERSON_NUMBERS = ("temperature", "max_tokens")
PERSON_OPTIONS = ("top_p", "stop", "seed", "reasoning", "extra")
"""Further options of the model; see `LLMRequest`."""
_ONE_TURN = ("max_turns", "maxTurns")
"""DiPeO's limit of the turns of one answer of Claude Code."""
_PERSON_WORDS = (*PERSON_TEXTS, *PERSON_NUMBERS, *PERSON_OPTIONS, "service", "id", "label", "type", "name", "llm_config")


def service_name(value: str) -> str:
    """A service in its canonical spelling: lower case, dashes, aliases applied."""
    return normalize_service(value)


def person(
    name: str | None, config: Mapping[str, Any], default_id: Callable[[str], str], reading: ReadContext, at: DocumentPath
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
                f"'{key}' of person '{shorten(label)}' is kept and has no effect: here a person answers in a single turn.",
                *where(key),
                field=key,
            )
            continue
        reading.warn(
            "unknown-property",
            f"'{shorten(key)}' is not a property of a person (person '{shorten(label)}'); it is kept and has no effect.",
            *where(key),
            hint=did_you_mean(
                key, _PERSON_WORDS, f"A person takes {', '.join(PERSON_TEXTS + PERSON_NUMBERS + PERSON_OPTIONS)}."
            ),
            field=key,
        )
    return DomainPerson(given_id or default_id(name or label), label, llm)


def _checked(key: str, value: Any, label: str, reading: ReadContext, at: DocumentPath) -> Any:
    """The value of an option of the person's model; None, with an error, when it cannot be one."""
    try:
        return checked_option(key, value)
    except ValidationError as error:
        reading.error(
            "wrong-option", f"Person '{shorten(label)}': {shorten(error.message, 300)}", *at, hint=error.hint or "", field=key
        )
        return None


def _wrong_person_field(key: str, wanted: str, value: Any, label: str, reading: ReadContext, at: DocumentPath) -> None:
    reading.error(
        "wrong-type",
        f"'{key}' of person '{shorten(label)}' is {wanted}, not '{shorten(value)}'.",
        *at,
        hint=f"Write {wanted}.",
        field=key,
    )


def _service(value: Any, label: str, reading: ReadContext, at: DocumentPath) -> str:
    if value is None or value == "":
        return ""
    text = as_text(value, reading, *at)
    if text is None:
        _wrong_person_field("service", "text", value, label, reading, at)
        return LLMService.OPENAI.value
    name = service_name(text)
    if name not in set(LLMService) and not is_service(name):
        reading.warn(
            "unknown-service",
            f"'{shorten(text)}' of person '{shorten(label)}' is not a known service.",
            *at,
            hint=did_you_mean(text, [*LLMService, *SERVICE_ALIASES], f"The services are {', '.join(LLMService)}."),
            field="service",
        )
    return name


def persons(value: Any, default_id: Callable[[str], str], reading: ReadContext) -> tuple[DomainPerson, ...]:
    """Persons from `{name: settings}`, a list of such, or a list of settings with `label` or `id`.

    Entries that are not mappings are ignored with a warning.
    """
    found: list[DomainPerson] = []

    def add(name: str | None, config: Any, at: DocumentPath) -> None:
        if config is None and name is not None:
            config = {}
        if not isinstance(config, dict):
            reading.warn(
                "stray-entry",
                f"'{shorten(name or config)}' under persons is not a person; it is ignored.",
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
    """The names by which each person can be referred to: its id before all, else its label or `person_<label>`."""

    def __init__(self, people: Iterable[DomainPerson]) -> None:
        self.by_id: dict[str, DomainPerson] = {p.id: p for p in people}
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
        """The id of the one person that *reference* means; None when there is none or several."""
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
    shared, or that are the id of another person, would let a reference mean another person: then persons are keyed by
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
