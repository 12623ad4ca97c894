"""How answers end: one that spent its whole limit without a word is an error; one that was cut off, or is empty, says so."""

from __future__ import annotations

from dataclasses import replace

from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.chat import LLMRequest, LLMResponse
from dipeo_nb.errors import ContentFilteredError, EmptyAnswerError, StructureError, ValidatorCodeError
from dipeo_nb.llm.capabilities import capabilities_of

ANSWERED = (StructureError, ContentFilteredError, ValidatorCodeError)
"""Errors that are about an answer: the model gave one, and the server works."""
_COMPLETE = frozenset({"stop", "tool_calls", "length"})


def empty_error(response: LLMResponse, request: LLMRequest) -> EmptyAnswerError | None:
    """The error of an answer that reached its limit before it had a word; None when it has one, or ended by itself."""
    if response.finish_reason != "length" or not _is_empty(response):
        return None
    name = response.model or request.model or request.service
    facts = {"provider": response.provider, "model": name, "request_id": response.request_id}
    spent = {"usage": response.usage, "cost_usd": response.cost_usd, "charged": True, "cached": response.cached}
    if response.warnings:  # another limit than that of tokens
        return EmptyAnswerError(
            f"{name} gave no answer: {response.warnings[0]}",
            hint="Remember less (at_most), or shorten the inputs.",
            **facts,
            **spent,
        )
    limit = f"its limit of {request.max_tokens:,} tokens" if request.max_tokens else "its limit of tokens"
    thought = f" ({response.usage.reasoning:,} of them on thinking)" if response.usage.reasoning else ""
    less = ", or let it think less: reasoning='low'" if capabilities_of(request.service, request.model).reasoning else ""
    return EmptyAnswerError(
        f"{name} reached {limit}{thought} before it gave an answer.",
        hint=f"Raise max_tokens (of the call, the node or the person; DIPEO_LLM_MAX_TOKENS){less}.",
        **facts,
        **spent,
    )


def without_keys(response: LLMResponse, request: LLMRequest) -> LLMResponse:
    """The response with no key in what the server says about it: the model, how it ended, warnings, the terms of its bill."""
    usage = response.usage
    if (
        response.model == request.model
        and response.finish_reason in _COMPLETE
        and not response.warnings
        and not any(item.terms for item in usage.bill)
    ):
        return response
    said = response.model, response.finish_reason, response.warnings, [dict(item.terms) for item in usage.bill]
    if (clean := redactor(said)) == said:
        return response
    bill = tuple(replace(item, terms=terms) for item, terms in zip(usage.bill, clean[3], strict=True))
    return replace(response, model=clean[0], finish_reason=clean[1], warnings=tuple(clean[2]), usage=replace(usage, bill=bill))


def ended(response: LLMResponse, request: LLMRequest) -> LLMResponse:
    """The answer with warnings of what is wrong with it.

    Raises:
        EmptyAnswerError: it reached its limit before it had a word.
    """
    if (error := empty_error(response, request)) is not None:
        raise error
    name = response.model or request.model or request.service
    found = list(response.warnings)
    if found:
        pass  # the provider's own words are better
    elif response.finish_reason == "length":
        limit = f"its limit of {request.max_tokens:,} tokens" if request.max_tokens else "its limit of tokens"
        found.append(f"The answer of {name} was cut off at {limit}; raise max_tokens.")
    elif response.finish_reason not in (None, *_COMPLETE):
        found.append(f"The answer of {name} may not be whole: it ended with '{response.finish_reason}'.")
    elif _is_empty(response):
        found.append(f"{name} gave an empty answer (it ended with '{response.finish_reason or 'stop'}').")
    return replace(response, warnings=tuple(found)) if found else response


def _is_empty(response: LLMResponse) -> bool:
    return not (response.text.strip() or response.structured is not None or response.tool_calls or response.tool_outputs)
