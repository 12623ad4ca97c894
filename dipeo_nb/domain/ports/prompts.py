"""Prompts for models, and questions for people."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from dipeo_nb.domain.answer_forms import AnswerForm


class TemplateResult(NamedTuple):
    """A rendered template with its keys and errors."""

    content: str
    missing_keys: tuple[str, ...] = ()
    used_keys: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@runtime_checkable
class TemplateProcessorPort(Protocol):
    """Renders prompts. Pure; inserted values are not expanded again."""

    @abstractmethod
    def process(self, template: str, context: Mapping[str, Any]) -> TemplateResult:
        """Render; missing names render empty and are listed. Raises TemplateError for bad syntax."""
        ...

    @abstractmethod
    def process_value(self, template: str, context: Mapping[str, Any]) -> tuple[Any, TemplateResult]:
        """Return (value, result): the value itself for a template of one tag, else the text. Raises like `process`."""
        ...

    @abstractmethod
    def process_placed(self, template: str, context: Mapping[str, Any], place: Callable[[str], str]) -> TemplateResult:
        """Render with each value's text replaced by the result of *place*. Raises like `process`."""
        ...

    @abstractmethod
    def process_simple(self, template: str, context: Mapping[str, Any]) -> str: ...

    @abstractmethod
    def process_single_brace(self, template: str, context: Mapping[str, Any]) -> str:
        """Render `{a.b[0]}` in file names; unknown names stay unchanged."""
        ...

    @abstractmethod
    def extract_variables(self, template: str) -> tuple[str, ...]:
        """Return the top-level names that the template uses."""
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
    """Labels on the path from the run's diagram down to the asking node, with the item number in a batch: `Sub[2]`."""
    form: AnswerForm = AnswerForm()
    """What an answer is."""

    @property
    def text(self) -> str:
        """The prompt and how to answer, for those who type."""
        return self.prompt + self.form.hint


@runtime_checkable
class InteractionPort(Protocol):
    """Answers questions: a form in the live view, `input()`, or scripted answers."""

    @abstractmethod
    async def ask(self, question: Question) -> tuple[str, str]:
        """Return (answer, source), where source is `user`, `answers` or `default`.

        Raises:
            RunError: nobody can answer here; the hint names `answers=` / `--answer`.
        """
        ...
