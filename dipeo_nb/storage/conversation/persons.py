"""Stored form of persons, shared by all repositories."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable

from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import DEFAULT_MODEL_SERVICE, normalize_service, parse_model
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.errors import StorageError, UnknownModelError
from dipeo_nb.storage.conversation.messages import not_json


def default_config() -> LLMConfig:
    """Return the default model of the settings."""
    default = get_settings().default_llm_model
    try:
        service, model = parse_model(default)
    except UnknownModelError:  # `service:model` of a third party; only the services know which exist
        if ":" not in default:
            raise
        service, model = parse_model(default, [normalize_service(default.partition(":")[0])])
    return LLMConfig(service=service, model=model)


def encoded_config(person: DomainPerson) -> str:
    """Return a person's model as JSON. Raises StorageError `not_json`."""
    fields = {f.name: getattr(person.llm, f.name) for f in dataclasses.fields(LLMConfig)}
    try:
        return json.dumps(fields | {"extra": dict(person.llm.extra)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise not_json("person", person.id, error) from error


def person_of(label: str, person_id: str, llm: str) -> DomainPerson:
    return DomainPerson(person_id, label, LLMConfig(**json.loads(llm)))


def of_service(persons: Iterable[DomainPerson], service: str) -> list[DomainPerson]:
    wanted, default = normalize_service(service), default_config().service

    def serving(llm: LLMConfig) -> str:
        return default if llm.follows_default else normalize_service(llm.service or DEFAULT_MODEL_SERVICE)

    return [person for person in persons if serving(person.llm) == wanted]


def same_person(person_id: str) -> StorageError:
    return StorageError(
        f"There is a person '{person_id}' already.", hint="Use save() to replace it, or get_or_create().",
        operation="create", cause="exists",
    )  # fmt: skip
