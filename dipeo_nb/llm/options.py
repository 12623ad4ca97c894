"""Which options of an answer a model takes, and what is done with those that it does not: refused, or left out for another model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dipeo_nb.domain.chat import LLMRequest
from dipeo_nb.domain.request_options import EFFORTS, Reasoning
from dipeo_nb.errors import UnsupportedError
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.output_modes import ANSWER_TOOL

_OTHERS = {
    "stop": "anthropic, gemini, ollama and the embedded model take it",
    "top_p": "models that do not reason take it",
    "seed": "gemini, ollama and the embedded model take it",
    "reasoning": "models that think before they answer take it",
}


def refused_options(request: LLMRequest) -> list[str]:
    """The options of a request that its model does not take, of `stop`, `top_p`, `seed` and `reasoning`."""
    able = capabilities_of(request.service, request.model)
    found: list[str] = []
    if request.stop and "stop" not in able.options:
        found.append("stop")
    if request.top_p is not None and "top_p" not in able.options:
        found.append("top_p")
    if request.seed is not None and "seed" not in able.options:
        found.append("seed")
    none = able.always_thinks if request.reasoning == "none" else able.reasoning is None
    if request.reasoning is not None and none:  # a model that does not think can be asked not to
        found.append("reasoning")
    return found


def check_options(request: LLMRequest) -> None:
    """See to it that the model takes the options of a request.

    Raises:
        UnsupportedError: it does not; the message names the first that it does not take.
    """
    for name in refused_options(request):
        model = f"{request.service}{f':{request.model}' if request.model else ''}"
        thinks = name == "reasoning" and request.reasoning == "none"
        raise UnsupportedError(
            f"{model} always thinks." if thinks else f"{model} takes no {name}.",
            hint="Take reasoning='low'." if thinks else f"Leave {name} out, or use another model: {_OTHERS[name]}.",
            provider=request.service,
            model=request.model,
        )


def left_out(request: LLMRequest) -> list[str]:
    """A sentence about each option that is not sent, as the model does not take it, although the request is answered all the same."""
    able = capabilities_of(request.service, request.model)
    model = request.model or request.service
    limited = able.limited_while_thinking and request.reasoning not in (None, "none")
    found: list[str] = []
    if request.temperature is not None and (limited or not able.supports_temperature):
        when = " while it thinks" if able.supports_temperature else ""
        found.append(f"{model} takes no temperature{when}; {request.temperature:g} is left out.")
    ours = any(tool.name == ANSWER_TOOL for tool in request.tools)  # then the choice is not the caller's
    if limited and request.tool_choice not in (None, "auto", "none") and not ours:
        found.append(f"{model} takes no tool_choice while it thinks; '{request.tool_choice}' is left out.")
    return found


def adapted(request: LLMRequest, other: LLMRequest) -> tuple[LLMRequest, list[str]]:
    """(*other*, a request for another model, without what that model does not take; what was left out).

    Args:
        request: the one that the options were given for. `extra` means nothing to another service.
    """
    left_out = refused_options(other)
    none: dict[str, Any] = {"stop": (), "top_p": None, "seed": None, "reasoning": None, "extra": {}}
    if request.extra and request.service != other.service:
        left_out.append("extra")
    return replace(other, **{name: none[name] for name in left_out}) if left_out else other, left_out


def nearest_effort(wanted: Reasoning, steps: tuple[str, ...]) -> str:
    """The effort of *steps*, least first, that is nearest to *wanted*; the greater one of two."""
    place = EFFORTS.index(wanted)
    return min(steps, key=lambda step: (abs(EFFORTS.index(step) - place), -EFFORTS.index(step)))
