"""Questions the library itself asks of models: what to remember, yes or no."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from dipeo_nb.domain import selection
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, Message
from dipeo_nb.domain.decision import DECISION_SCHEMA, DEFAULT_DECISION, decided, decision_prompt
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.domain.ports import LLMServicePort
from dipeo_nb.errors import ProviderError


class UnreadableAnswerWarning(UserWarning):
    """A model's answer could not be read; the warning says what it counts as."""


class MemorySelectionAdapter:
    """Lets a model choose the messages that matter.

    Args:
        llm: who is asked.
        template: a request with service, model and the like; its messages are replaced.
    """

    def __init__(self, llm: LLMServicePort, template: LLMRequest) -> None:
        self._llm = llm
        self._template = template

    async def select(
        self,
        messages: Sequence[Message],
        *,
        criterion: str,
        task: str = "",
        at_most: int | None = None,
        ignore: Iterable[str] = (),
        names: Mapping[str, str] | None = None,
        now: float | None = None,
    ) -> list[Message]:
        """The chosen messages, *at_most* of them, in the order they were given; near-duplicates are offered once.

        Args:
            criterion: in words; `GOLDFISH` chooses nothing and asks nobody.
            task: what they are for.
            ignore: ids of persons whose messages, sent or received, are left out.
            names: person id → label.
            now: seconds since the epoch, for the age of messages; default: the current time.

        An answer that names no message leaves the choice to the score, with a warning.

        Raises:
            LLMError: the model could not be asked.
        """
        ignored = set(ignore)
        considered = [m for m in messages if not ignored & {m.from_person_id, m.to_person_id}]
        if criterion.strip().upper() == "GOLDFISH" or not considered or at_most == 0:
            return []
        candidates = selection.ranked(considered, time.time() if now is None else now)
        prompt = selection.selection_prompt(candidates, criterion=criterion, task=task, at_most=at_most, names=names or {})
        response = await self._llm.complete(
            replace(
                self._template,
                messages=(ChatMessage("user", prompt),),
                response_format=selection.SELECTION_SCHEMA,
                allow_prose=True,
                phase=ExecutionPhase.MEMORY_SELECTION,
            )
        )
        ids = selection.chosen_ids(response.structured, response.text, candidates)
        if ids is None:
            _warn(f"Memory was chosen by score, as the answer names no message: {_shown(response.text)}.")
            ids = [m.id for m in candidates[: at_most or selection.CHOSEN_BY_SCORE]]
        chosen = set(ids[:at_most])
        return [m for m in considered if m.id in chosen]


class DecisionAdapter:
    """Lets a model answer yes or no. Arguments as `MemorySelectionAdapter`."""

    def __init__(self, llm: LLMServicePort, template: LLMRequest) -> None:
        self._llm = llm
        self._template = template

    async def decide(self, question: str, content: str = "", *, default: bool | None = DEFAULT_DECISION) -> bool:
        """The answer to *question* about *content*.

        Args:
            default: what an answer counts as that says neither yes nor no, with a warning; None: it is an error.

        Raises:
            ProviderError: the model said neither yes nor no, and there is no default.
            LLMError: it could not be asked.
        """
        response = await self._llm.complete(
            replace(
                self._template,
                messages=(ChatMessage("user", decision_prompt(question, content)),),
                response_format=DECISION_SCHEMA,
                allow_prose=True,
                phase=ExecutionPhase.DECISION_EVALUATION,
            )
        )
        decision = decided(response.structured, response.text, question)
        if decision is not None:
            return decision
        message = f"The answer is neither yes nor no: {_shown(response.text)}."
        if default is None:
            raise ProviderError(
                message,
                hint="Ask a question that can be answered with yes or no.",
                provider=response.provider,
                model=response.model,
            )
        _warn(f"{message} It counts as {'yes' if default else 'no'}.")
        return default


def _shown(text: str) -> str:
    return repr(" ".join(text.split())[:200])


def _warn(message: str) -> None:
    warnings.warn(message, UnreadableAnswerWarning, stacklevel=3)
