"""Texts for models, and questions for people."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable


class TemplateResult(NamedTuple):
    """A rendered template and what was met on the way."""

    content: str
    missing_keys: tuple[str, ...] = ()
    used_keys: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@runtime_checkable
class TemplateProcessorPort(Protocol):
    """Renders prompts. Pure; values are never expanded again."""

    @abstractmethod
    def process(self, template: str, context: Mapping[str, Any]) -> TemplateResult:
        """Render; missing names render empty and are listed. Raises TemplateError for bad syntax."""
        ...

    @abstractmethod
    def process_value(self, template: str, context: Mapping[str, Any]) -> tuple[Any, TemplateResult]:
        """(value, result): what a template of one tag names, as it is; the text of any other. Raises as `process`."""
        ...

    @abstractmethod
    def process_placed(self, template: str, context: Mapping[str, Any], place: Callable[[str], str]) -> TemplateResult:
        """Render with what *place* makes of the text of each value in its place. Raises as `process`."""
        ...

    @abstractmethod
    def process_simple(self, template: str, context: Mapping[str, Any]) -> str: ...

    @abstractmethod
    def process_single_brace(self, template: str, context: Mapping[str, Any]) -> str:
        """`{a.b[0]}` of file names; unknown names stay as they are."""
        ...

    @abstractmethod
    def extract_variables(self, template: str) -> tuple[str, ...]:
        """Top-level names the template asks for."""
        ...


class Question(NamedTuple):
    """A question of a user_response node to the person at the keyboard."""

    run_id: str
    node_id: str
    label: str
    prompt: str
    timeout: float | None
    default: str | None
    request_id: str
    path: tuple[str, ...] = ()
    """The labels on the way from the run's diagram down to the node that asks, with the number of the item in a batch: `Sub[2]`."""


@runtime_checkable
class InteractionPort(Protocol):
    """Who answers questions: a form in the live view, `input()`, given answers."""

    @abstractmethod
    async def ask(self, question: Question) -> tuple[str, str]:
        """(answer, source), source being `user`, `answers` or `default`.

        Raises:
            RunError: nobody can answer here; the hint names `answers=` / `--answer`.
        """
        ...
