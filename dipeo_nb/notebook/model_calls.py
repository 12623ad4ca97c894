"""Calls of language models: the part of a session that needs no diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.llm import catalogue
from dipeo_nb.notebook.answer import Answer
from dipeo_nb.notebook.chat import LLM
from dipeo_nb.notebook.services import LLMServices
from dipeo_nb.runtime import Runtime


class ModelCalls:
    """The methods of `Session` that call models."""

    settings: Settings
    runtime: Runtime

    def llm(self, model: str | None = None, **defaults: Any) -> LLM:
        """A model, ready to use: `.chat()`, `.achat()`, `.stream()`, `.batch()`, `.conversation()`.

        Args:
            model: `openai:gpt-6-luna`, `anthropic`, `local` …; None: the settings' default (DIPEO_DEFAULT_LLM_MODEL).
            defaults: options for its calls; see `LLM`.

        Raises:
            UnsupportedError: there is no such service; the message lists the choices.
        """
        return LLM(self.runtime, model, **defaults)

    def chat(
        self,
        prompt: LLMRequest | str | Sequence[ChatMessage | Mapping[str, Any]],
        *,
        model: str | None = None,
        system: str | None = None,
        tools: Sequence[Any] = (),
        response_format: Any = None,
        budget: Budget | None = None,
        fallbacks: Sequence[str] = (),
        display: bool | None = None,
        **options: Any,
    ) -> Answer:
        """Ask a model; the answer streams into the cell and is returned. Works in any cell and script.

        Args:
            prompt: a text, or messages as `{"role": …, "content": …}`.
            model: see `llm`.
            system: the system prompt.
            tools: typed Python functions (they run when the model calls them), or `websearch`, `image`.
            response_format: a pydantic class or a JSON schema; `answer.structured` is then an instance, or a value.
            budget: limit of cost: `dp.Budget(usd=0.01)`; shared by all calls that are given the same one.
            fallbacks: models to ask in turn when this one cannot answer.
            display: False shows nothing; True also streams to a terminal; None: in notebooks only.
            options: temperature, max_tokens, top_p, stop, seed, reasoning, extra (further fields of the provider's request), timeout
                (seconds) and the other fields of `LLMRequest`.

        Raises:
            LLMError, BudgetExceededError, APIKeyNotFoundError: why there is no answer; `error.answer` has what had arrived.
            KeyboardInterrupt: the call was stopped; its `answer`, too, has what had arrived.
        """
        return self.llm(model).chat(
            prompt,
            display=display,
            system=system,
            tools=tools,
            response_format=response_format,
            budget=budget,
            fallbacks=fallbacks,
            **options,
        )

    async def achat(
        self,
        prompt: LLMRequest | str | Sequence[ChatMessage | Mapping[str, Any]],
        *,
        model: str | None = None,
        system: str | None = None,
        tools: Sequence[Any] = (),
        response_format: Any = None,
        budget: Budget | None = None,
        fallbacks: Sequence[str] = (),
        display: bool | None = None,
        **options: Any,
    ) -> Answer:
        """Like `chat`, but awaited: `await dp.achat(…)`, or several at once with `asyncio.gather`, each with its own output."""
        return await self.llm(model).achat(
            prompt,
            display=display,
            system=system,
            tools=tools,
            response_format=response_format,
            budget=budget,
            fallbacks=fallbacks,
            **options,
        )

    def models(self) -> LLMServices:
        """List the LLM services: the default model of each and when that is shut down, what it lacks, and what it can do.

        Only this machine is asked; no model is called.
        """
        return LLMServices(run_sync(catalogue.services(self.settings, self.runtime.services.keys)))

    services = models
