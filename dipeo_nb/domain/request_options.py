"""Options of a model's answer and what they may be: checked where a request is made, before anything is sent.

`extra` carries further fields of the provider's own request. What we set ourselves (the messages, tools, the server, its keys) is no
field of it, and a diagram that is not the user's own may fill in only what shapes the words of an answer (`beyond_wording`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, cast, get_args

from dipeo_nb.errors import ValidationError

Reasoning = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""Reasoning efforts, least first."""
EFFORTS: tuple[Reasoning, ...] = get_args(Reasoning)
OPTIONS = ("temperature", "max_tokens", "top_p", "stop", "seed", "reasoning", "timeout", "tool_rounds", "extra",
           "tool_choice", "base_url", "api_key_id")  # fmt: skip
"""The fields of a request that are checked here."""
_UNSET: Mapping[str, Any] = {"stop": (), "tool_rounds": 10}
"""Options whose default is not None."""
_TEXTS: Mapping[str, str] = {"tool_choice": "'auto'", "base_url": "'http://localhost:8080/v1'", "api_key_id": "'APIKEY_ABC123'"}
"""Options that are texts → an example."""
STOPS = 16
"""Texts at which an answer may stop, at most."""


def checked_option(name: str, value: Any) -> Any:
    """The value of an option in its own type: `stop` as a tuple, numbers as they are; None stands for the default.

    Raises:
        ValidationError: it has the wrong type, or is out of range.
    """
    if value is None:
        return {} if name == "extra" else _UNSET.get(name)
    match name:
        case "temperature":
            return _number(name, value, 0, 2)
        case "top_p":
            return _number(name, value, 0, 1)
        case "timeout":
            if not _is_real(value) or not 0 < float(value) < math.inf:
                raise _wrong(name, value, "is not a number of seconds above 0", "60")
            return value
        case "max_tokens":
            return _whole(name, value, 1, "1000")
        case "tool_rounds":
            return _whole(name, value, 0, "10")
        case "seed":
            return _whole(name, value, None, "7")
        case "stop":
            return _stop(value)
        case "reasoning":
            if value not in EFFORTS:
                raise _wrong(name, value, "is not an effort", "'low'", f"Efforts: {', '.join(EFFORTS)}.")
            return value
        case "extra":
            return checked_extra(value)
        case "tool_choice" | "base_url" | "api_key_id":
            if not isinstance(value, str):
                raise _wrong(name, value, "is not a text", _TEXTS[name])
            return value
        case _:
            return value


def _is_real(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real)


def _number(name: str, value: Any, least: float, most: float) -> Any:
    if not _is_real(value) or not least <= float(value) <= most:
        raise _wrong(name, value, f"is not a number from {least:g} to {most:g}", "0.5")
    return value


def _whole(name: str, value: Any, least: int | None, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and value < least):
        raise _wrong(name, value, "is not an integer" if least is None else f"is not an integer >= {least}", example)
    return int(value)


def _stop(value: Any) -> tuple[str, ...]:
    given: Any = (value,) if isinstance(value, str) else value
    if not isinstance(given, Sequence) or isinstance(given, (bytes, bytearray)):
        raise _wrong("stop", value, "is not text or a list of texts", "['END']")
    texts = cast(Sequence[Any], given)
    if not all(isinstance(text, str) and text for text in texts) or len(texts) > STOPS:
        raise _wrong("stop", value, f"is not a list of up to {STOPS} texts that are not empty", "['END']")
    return tuple(texts)


def _wrong(name: str, value: Any, what: str, example: str, hint: str = "") -> ValidationError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:79]}…"
    return ValidationError(f"{name}={shown} {what}.", hint=hint or f"Use e.g. {name}={example}.")


# Further fields of the provider's request.

_OURS: Mapping[str, str] = {
    **dict.fromkeys(("model",), "model="),
    **dict.fromkeys(("messages", "input", "contents", "prompt", "conversation", "previous_response_id"), "the prompt or its messages"),
    **dict.fromkeys(("system", "instructions", "system_instruction", "system_prompt"), "system="),
    **dict.fromkeys(("stream", "stream_options"), "nothing: every answer streams"),
    **dict.fromkeys(("tools", "tool_choice", "tool_config", "functions", "function_call"), "tools= and tool_choice="),
    **dict.fromkeys(("response_format", "format", "output_format", "response_schema", "response_json_schema"), "response_format="),
    **dict.fromkeys(("n", "best_of", "candidate_count"), "several calls: one answer is read"),
    **dict.fromkeys(("api_key", "authorization", "user_config"), "the keys of the settings: dipeo-nb keys"),
    **dict.fromkeys(("base_url", "api_base", "api_version", "url"), "base_url="),
    **dict.fromkeys(("headers", "extra_headers", "extra_query", "extra_body", "http_options"), "nothing: extra= is of the body only"),
}  # fmt: skip
"""Fields, in snake case, that a request sets itself → how they are set."""
_SAMPLED: Mapping[str, str] = {
    "temperature": "temperature=", "top_p": "top_p=",
    **dict.fromkeys(("max_tokens", "max_output_tokens", "max_completion_tokens", "num_predict"), "max_tokens="),
}  # fmt: skip
"""The same of options that all providers have."""
_NESTED = ("options", "generation_config", "text", "output_config")
"""Fields that hold options of the answer among others."""


def snake(name: str) -> str:
    """`maxOutputTokens` as `max_output_tokens`; a name of any spelling is compared in this form."""
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name)).replace("-", "_")


def checked_extra(value: Any) -> dict[str, Any]:
    """Further fields of a request, as a dict.

    Raises:
        ValidationError: it is not a mapping of names to JSON values, or names what a request sets in another way.
    """
    if not isinstance(value, Mapping):
        raise ValidationError(f"extra= takes a mapping, not {type(value).__name__}.", hint="Use e.g. extra={'top_k': 40}.")
    given = cast(Mapping[Any, Any], value)
    for name in given:
        if not isinstance(name, str) or not name.strip():
            raise ValidationError(
                f"extra= has the key {name!r:.80}, which is not a name.", hint="Use e.g. extra={'top_k': 40}."
            )
    for path, name in _names(given):
        how = _OURS.get(snake(name)) or (_SAMPLED.get(snake(name)) if path == name else None)
        if how is not None:
            raise ValidationError(f"extra= cannot hold '{path}', which the request sets itself.", hint=f"Use {how}.")
    try:
        json.dumps(dict(given), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(
            f"extra= holds what JSON cannot: {error}.", hint="Use texts, numbers, booleans, lists and mappings."
        ) from error
    return dict(given)


def _names(extra: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, name) of the fields, and of those that hold options of the answer."""
    for name, value in extra.items():
        yield name, name
        if snake(name) in _NESTED and isinstance(value, Mapping):
            for inner in cast(Mapping[Any, Any], value):
                yield f"{name}.{inner}", str(inner)


def merged(body: Any, extra: Any) -> Any:
    """A request's field merged with that of *extra*: mappings are merged, anything else is replaced."""
    if not isinstance(body, Mapping) or not isinstance(extra, Mapping):
        return extra
    ours, theirs = cast(Mapping[str, Any], body), cast(Mapping[str, Any], extra)
    return {**ours, **{name: merged(ours.get(name), value) for name, value in theirs.items()}}


_SAMPLING = (
    "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty", "repeat_last_n",
    "logit_bias", "seed", "stop", "mirostat", "mirostat_eta", "mirostat_tau", "tfs_z",
)  # fmt: skip
_WORDING = frozenset({
    *_SAMPLING,
    *(f"options.{name}" for name in _SAMPLING), "options.num_ctx", "options.num_keep",
    *(f"generation_config.{name}" for name in _SAMPLING), "generation_config.stop_sequences",
    "generation_config.thinking_config.thinking_budget", "generation_config.thinking_config.thinking_level",
    "generation_config.thinking_config.include_thoughts",
    "think", "effort", "verbosity", "text.verbosity", "output_config.effort", "stop_sequences",
    "thinking.type", "thinking.budget_tokens", "thinking.display",
    "reasoning_effort", "reasoning.effort", "reasoning.summary", "reasoning.enabled", "reasoning.exclude", "reasoning.max_tokens",
    "chat_template_kwargs.enable_thinking", "chat_template_kwargs.thinking", "chat_template_kwargs.reasoning_effort",
    "parallel_tool_calls",
})  # fmt: skip
"""Fields of `extra` that shape the words of an answer and nothing else, of all services alike: no tool, no file, no address, nothing
that is stored or kept, no price class."""
_LARGEST_CONTEXT = 131_072
"""Tokens of context that `num_ctx` may ask for unasked: the memory for it is this machine's."""


def beyond_wording(extra: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The entries of *extra* that do more than shape the words of an answer, as (path, value in JSON): hosted tools, servers of tools, what is
    stored or paid for otherwise, and every field that is not known to be harmless."""
    found: list[tuple[str, str]] = []
    for path, value in _leaves(extra):
        plain = isinstance(value, (str, int, float, type(None))) or path.rpartition(".")[2] in (
            "stop",
            "stop_sequences",
            "logit_bias",
        )
        large = path == "options.num_ctx" and not (isinstance(value, (int, float)) and value <= _LARGEST_CONTEXT)
        if path not in _WORDING or not plain or large:
            found.append((path, json.dumps(value, ensure_ascii=False, sort_keys=True)))
    return found


def _leaves(extra: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in extra.items():
        path = f"{before}{snake(str(name))}"
        inner = cast("Mapping[str, Any] | None", value if isinstance(value, Mapping) else None)
        if inner and path not in _WORDING:
            yield from _leaves(inner, f"{path}.")
        else:
            yield path, value
