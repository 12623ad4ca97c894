"""The persons of a run, each with the model that it has there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dipeo_nb.domain.chat import parse_model
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.domain.ports import LLMServicePort
from dipeo_nb.errors import NodeExecutionError
from dipeo_nb.execution.run_options import RunOptions


class Persons:
    """Of one run.

    Args:
        note: writes a line to its log.
    """

    def __init__(
        self,
        persons: Mapping[str, DomainPerson],
        options: RunOptions,
        llm: LLMServicePort,
        note: Callable[[str], None],
    ) -> None:
        self._persons, self._options, self._llm, self._note = persons, options, llm, note
        self._reported: set[str] = set()
        """Those whose own options were left out, as the log says."""

    def person(self, reference: str) -> DomainPerson:
        """A person with its model settled: the run's `model` option wins over the diagram, except for `own_models`.

        Raises:
            NodeExecutionError: there is none of that id or label.
        """
        person = self._persons.get(reference) or next(
            (p for p in self._persons.values() if reference in (p.label, f"person_{p.label}")), None
        )
        if person is None:
            raise NodeExecutionError(
                f"There is no person '{reference}'.",
                hint=f"Persons: {', '.join(p.label for p in self._persons.values()) or 'none'}.",
            )
        if self._options.model is None or person.id in self._options.own_models:
            return person
        service, model = parse_model(self._options.model, self._llm.services)
        llm = person.llm
        if llm.own_options and person.id not in self._reported:
            self._reported.add(person.id)
            left = ", ".join(llm.own_options)
            self._note(f"'{person.label}' is moved to {self._options.model}; left out, as of its own model: {left}.")
        moved = LLMConfig(
            service=service,
            model=model,
            system_prompt=llm.system_prompt,
            temperature=llm.temperature,
            max_tokens=llm.max_tokens,
        )
        return DomainPerson(person.id, person.label, moved)
