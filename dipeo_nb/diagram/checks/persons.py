"""Checks of persons, and of how nodes refer to them."""

from __future__ import annotations

import dataclasses

from dipeo_nb.common.text import nearest, shorten
from dipeo_nb.config import get_settings
from dipeo_nb.diagram.checks.state import CheckState
from dipeo_nb.domain.chat import DEFAULT_MODEL_SERVICE
from dipeo_nb.domain.diagram import DomainNode, DomainPerson
from dipeo_nb.domain.enums import Severity
from dipeo_nb.domain.lifecycle import at_provider, lifecycle


def check_persons(state: CheckState) -> None:
    """Check all persons, and keep them with the texts of their prompt files."""
    for person in state.model.persons:
        if person.id in state.persons:
            place = state.source.person(person.id) if state.source else None
            state.error(
                "duplicate-id",
                f"Two persons have the id '{shorten(person.id)}'.",
                "Use a different id for each.",
                place=place,
            )
        state.persons[person.id] = _with_system_prompt(state, person)
        _check_model(state, person)
    for person, other in state.references.clashes():
        name = shorten(person.label)
        state.warn(
            "person-clash",
            f"'{name}' is the label of one person and the id of another, '{shorten(other.label)}': "
            f"a node with 'person: {name}' asks '{shorten(other.label)}'.",
            f"Rename one of them, or let nodes name ids, such as '{shorten(person.id)}'.",
            place=state.source.person(person.id) if state.source else None,
        )


def _check_model(state: CheckState, person: DomainPerson) -> None:
    """Warn of a model that its provider shuts down soon, or has shut down. Never an error: recordings answer for it, other
    dates may hold for a server of one's own, and a run may move its persons to another model."""
    llm = person.llm
    service = llm.service or DEFAULT_MODEL_SERVICE
    found = lifecycle(service, llm.model or "")
    if not found.soon or not at_provider(service, llm.base_url, get_settings()):
        return
    how = ": `dipeo-nb models check --fix FILE` does." if found.replacement else "."
    state.warn(
        "model-ends",
        f"Person '{shorten(person.label)}': {found.sentence}.",
        f"{found.advice[0].upper()}{found.advice[1:]}{how}",
        place=state.source.person(person.id, "model") if state.source else None,
        field="model",
    )


def _with_system_prompt(state: CheckState, person: DomainPerson) -> DomainPerson:
    name = person.llm.prompt_file
    if not name:
        return person
    text, problem = state.files.read(name)
    if text is not None:
        return dataclasses.replace(person, llm=dataclasses.replace(person.llm, system_prompt=text))
    place = state.source.person(person.id, "prompt_file") if state.source else None
    severity = Severity.WARNING if person.llm.system_prompt else Severity.ERROR
    message = f"The prompt file of person '{shorten(person.label)}': {problem.message}"
    state.report(severity, problem.code, message, problem.hint, place=place, field="prompt_file")
    return person


def check_person(state: CheckState, node: DomainNode, reference: str | None) -> str | None:
    """The id of a person that a node refers to; None, with a finding, when there is none of that name."""
    found = state.references.ids(reference or "")
    if len(found) > 1:
        state.error(
            "ambiguous-person",
            f"{len(found)} persons are labelled '{shorten((reference or '').strip())}'.",
            f"Name the id of the one you mean: {', '.join(map(shorten, found[:10]))}.",
            node=node,
            field="person",
        )
    elif not found and reference:
        state.error(
            "unknown-person",
            f"There is no person '{shorten(reference)}' in this diagram.",
            person_hint(state, reference),
            node=node,
            field="person",
        )
    return found[0] if len(found) == 1 else None


def person_hint(state: CheckState, reference: str) -> str:
    """A hint for a reference to a person that does not exist."""
    labels = [person.label for person in state.model.persons]
    if close := nearest(reference, labels):
        return f"Did you mean '{close}'?"
    return f"Persons: {', '.join(labels[:20])}." if labels else "The diagram has no persons; add them under `persons`."
