"""Messages, requests and responses of language models, the same for every provider.

They live here and not in `llm` because the ports need them.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dipeo_nb.common.moved import renamed
from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.domain import llm_providers
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.enums import SERVICE_ALIASES, ExecutionPhase, LLMService, MessageType
from dipeo_nb.domain.llm_providers import normalize_service
from dipeo_nb.domain.request_options import OPTIONS, Reasoning, checked_option
from dipeo_nb.errors import ConfigurationError, UnknownModelError, ValidationError

Role = Literal["system", "user", "assistant", "tool"]
OutputMode = Literal["grammar", "native", "tool", "json_mode", "prompt"]
"""Ways to obtain structured output, best first."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to have a tool run."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    unreadable: str | None = None
    """The text the model gave when it is not a JSON object; `arguments` is empty then."""

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The tool's answer."""

    call_id: str
    content: str
    is_error: bool = False

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class ToolConfig:
    """A tool offered to the model: a built-in one (`type`), or a function with a JSON schema."""

    type: str
    """`function`, `web_search`, `web_search_preview` or `image_generation`."""
    name: str | None = None
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    """JSON schema of the arguments of a function."""
    enabled: bool = True
    config: Mapping[str, Any] | None = None
    """Settings of a built-in tool, sent as they are."""
    function: Callable[..., Any] | None = None
    """The function that runs when the model calls the tool (sync or async); None: the calls are handed to the caller. Never sent."""

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a request, in order. `tool` messages carry results, assistant ones may carry calls."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_result: ToolResult | None = None
    raw: Mapping[str, Any] | None = None
    """An assistant's turn in the provider's own form (`LLMResponse.raw`): sent back verbatim to that provider, so that signed
    reasoning survives a tool call; other providers get `content` and `tool_calls`."""

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class BillItem:
    """One position of a call's bill, as the provider counts it.

    `TokenUsage` has what a reader wants to know; a bill needs more: how long a cache is kept, fees of built-in tools, tokens of
    images, other models that were used, the class of service. One request of a provider is one item, as prices that depend on the
    length of the prompt do so for each request.
    """

    units: Mapping[str, int] = field(default_factory=dict[str, int])
    """Amounts by the unit names of `genai-prices`; a total (`input_tokens`) includes its parts (`cache_read_tokens`). A unit that
    the price list does not know makes the cost unknown."""
    terms: Mapping[str, str] = field(default_factory=dict[str, str])
    """Further facts the price depends on: `{"service_tier": "flex"}`, `{"speed": "fast"}`, `{"inference_geo": "us"}`."""
    model: str | None = None
    """The model that the item is for; None: the one that was called."""
    usd: float | None = None
    """The charge reported by the server, in US dollars; it overrides any estimate."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens in disjoint buckets; None means unknown, never zero-by-default.

    `input` excludes cached tokens, `output` excludes reasoning. `raw` is the provider's own record, verbatim. `bill` is what the
    cost is worked out from; empty: from the buckets.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    raw: Mapping[str, Any] | None = None
    bill: tuple[BillItem, ...] = field(default=(), compare=False)

    __repr__ = bounded_repr

    @property
    def total(self) -> int | None:
        """Sum of the known buckets; None when none is known."""
        known = [n for n in (self.input, self.output, self.cache_read, self.cache_write, self.reasoning) if n is not None]
        return sum(known) if known else None

    def __add__(self, other: TokenUsage) -> TokenUsage:
        def both(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        return TokenUsage(
            both(self.input, other.input),
            both(self.output, other.output),
            both(self.cache_read, other.cache_read),
            both(self.cache_write, other.cache_write),
            both(self.reasoning, other.reasoning),
            bill=(*self.bill, *other.bill),
        )

    def to_dict(self) -> dict[str, int]:
        """The known buckets and their total, without `raw`."""
        pairs = {
            "input": self.input,
            "output": self.output,
            "cache_read": self.cache_read,
            "cache_write": self.cache_write,
            "reasoning": self.reasoning,
            "total": self.total,
        }
        return {k: v for k, v in pairs.items() if v is not None}

    @classmethod
    def from_dict(cls, usage: Mapping[str, Any]) -> TokenUsage:
        """The inverse of `to_dict`; missing values are unknown."""
        get = usage.get
        return cls(get("input"), get("output"), get("cache_read"), get("cache_write"), get("reasoning"))


@dataclass(slots=True)
class Meter:
    """Usage of a call so far, for a call that ends without an answer: its client notes what the provider has reported, the
    service what all calls for one answer took."""

    usage: TokenUsage | None = None
    """None: nothing was reported."""
    cost_usd: float | None = None
    """The cost as far as the service knows it; None when unknown."""


@dataclass(frozen=True, slots=True)
class LLMRequest:
    """One call of a model. Its options are checked when it is made.

    Raises:
        ValidationError: an option has the wrong type or is out of range, or `extra` names what the request sets itself.
    """

    service: str
    """A service name such as `openai` or `local` (see `LLMService`; third parties add more)."""
    model: str
    messages: Sequence[ChatMessage]
    temperature: float | None = None
    """From 0, the likeliest words, to 2."""
    max_tokens: int | None = None
    """Limit of the answer in tokens; what a model thinks before it counts, too."""
    response_format: Any = None
    """A pydantic model class, or a JSON schema; None for text."""
    output_mode: OutputMode | None = None
    """The way to obtain structured output; None: the best way the model has."""
    allow_prose: bool = False
    """Whether an answer in words will do where structure is asked for: what does not fit is then neither asked for once more nor
    an error; `structured` is None and `text` the answer. One that was cut off at its limit is an error all the same."""
    tools: Sequence[ToolConfig] = ()
    tool_choice: str | None = None
    """`auto`, `required`, `none` or the name of a tool; None: the provider's default."""
    tool_rounds: int = 10
    """Rounds of tool calls that are answered before the loop is called endless."""
    phase: ExecutionPhase = ExecutionPhase.DEFAULT
    api_key_id: str | None = None
    base_url: str | None = None
    timeout: float | None = None
    """Seconds for the whole call; None: DIPEO_LLM_TIMEOUT."""
    fallbacks: Sequence[str] = ()
    """Models (`service:model`) to ask in turn when this one cannot answer."""
    budget: Budget | None = None
    """The budget; checked before each call on the wire."""
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """For logs and fakes: person, node, run number. Never sent."""
    top_p: float | None = None
    """Only the likeliest words that make up this share (from 0 to 1) are chosen from."""
    stop: Sequence[str] = ()
    """Texts at which the answer ends, without them; one text is taken, too."""
    seed: int | None = None
    """The same seed makes the same choices, as far as the server can."""
    reasoning: Reasoning | None = None
    """Reasoning effort: `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`. A model that has fewer steps takes
    the nearest one; `none` is refused by models that always think."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further fields of the provider's request, sent as they are: `{"options": {"num_ctx": 16384}}` for ollama, `{"top_k": 40}` …
    For claude-code, further fields of `ClaudeAgentOptions`."""

    meter: Meter | None = field(default=None, compare=False)
    """Collects the usage of the call so far. Never sent."""

    __repr__ = bounded_repr

    def note(self, usage: TokenUsage) -> None:
        """Keep what the provider has reported so far; clients call it before the answer is complete."""
        if self.meter is not None:
            self.meter.usage = usage

    def __post_init__(self) -> None:
        for name, usual in _USUAL.items():
            value = getattr(self, name)
            if value is not usual and value != usual and (checked := checked_option(name, value)) is not value:
                object.__setattr__(self, name, checked)


_USUAL: Mapping[str, Any] = {name: checked_option(name, None) for name in OPTIONS}
"""Defaults of options that are not set."""


@dataclass(frozen=True, slots=True)
class LLMResponse:
    """A finished answer."""

    text: str
    provider: str
    model: str
    usage: TokenUsage = field(default_factory=TokenUsage)
    structured: Any = None
    """Instance of the requested pydantic class, or the object of the requested schema."""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    request_id: str | None = None
    cost_usd: float | None = None
    """None when the price is unknown; 0.0 only for models that cost nothing."""
    output_mode: OutputMode | None = None
    """The way structured output was obtained."""
    tool_outputs: tuple[Mapping[str, Any], ...] = ()
    """Results of built-in tools: `{"type": "image", "media_type", "data" (base64)}`, `{"type": "citation", "url", "title"}`."""
    cached: bool = False
    """Whether the answer came from a recording: nothing was called, nothing is billed."""
    saved_usd: float | None = None
    """Cost that a recorded answer saved."""
    raw: Mapping[str, Any] | None = None
    """The turn in the provider's own form, for `ChatMessage.raw`: `{"provider": …, "content": […]}`; None when text is sufficient."""
    warnings: tuple[str, ...] = ()
    """A problem of an answer that can still be used: it was cut off, it is empty."""

    __repr__ = bounded_repr

    @property
    def content(self) -> str:
        """The seed's name for `text`."""
        return self.text

    @property
    def rung(self) -> OutputMode | None:
        """The former name of `output_mode`."""
        warnings.warn("LLMResponse.rung is deprecated; it is called output_mode.", DeprecationWarning, stacklevel=2)
        return self.output_mode

    @property
    def token_usage(self) -> TokenUsage:
        """The seed's name for `usage`."""
        return self.usage


StreamKind = Literal[
    "start",
    "text",
    "reasoning",
    "tool_call_start",
    "tool_call_delta",
    "tool_call_end",
    "tool_result",
    "partial",
    "usage",
    "stream_restarted",
    "error",
    "end",
    "progress",
]


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One step of a streamed answer. A stream ends with exactly one `end`, which carries the whole `response`, or by raising.

    | kind | text | data |
    |---|---|---|
    | start | | notice: something the user should know (a further start has nothing else); cached: true for a recorded answer |
    | text, reasoning | the piece | |
    | tool_call_start | name of the tool | id |
    | tool_call_delta | a piece of the arguments (JSON) | id |
    | tool_call_end | name of the tool | id, arguments |
    | tool_result | what the tool answered | id, name, is_error |
    | partial | | value: the structured answer as far as it came |
    | usage | | the buckets of `TokenUsage.to_dict` |
    | stream_restarted | | reason. Forget the text so far: the model starts again |
    | error | what failed | code, attempt, retry_in_s; or fallback: the model asked next. Errors that end the stream are raised instead |
    | progress | work before the first token: a model being fetched or loaded, a turn being waited for | done, total in bytes |
    | end | | |
    """

    kind: StreamKind
    text: str = ""
    response: LLMResponse | None = None
    data: Mapping[str, Any] | None = None

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a run's conversation log."""

    id: str
    """Unique within the run."""
    from_person_id: str
    """A person id or `system`."""
    to_person_id: str
    content: str
    message_type: MessageType
    timestamp: float
    """Seconds since the epoch."""
    node_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    __repr__ = bounded_repr


_OLLAMA_TAG = re.compile(r"(?=[\w.\-]+\Z)(?:latest|v?\d[\w.\-]*|[\w.\-]*\d[bBmMkK](?:[-_][\w.\-]*)?|[qQ]\d[\w.\-]*|[fF]p?\d+)")
"""Pattern of the tags of Ollama models: `latest`, `8b`, `7b-instruct`, `q4_K_M`."""
DEFAULT_MODEL_SERVICE = "openai"
"""Service of the settings' default model; other services have a default of their own."""


def parse_model(text: str, known: Collection[str] = ()) -> tuple[str, str | None]:
    """Resolve `service:model`, `service` or `model` to (service, model or None). All names of models that users write go
    through here: those of runs, chats, fallbacks, settings, the command line and the server.

    `local` → ("local", None); `openai:gpt-6-luna` → ("openai", "gpt-6-luna"); `gpt-6-luna` → the same: a bare name goes to the
    service that its family is known for. `llama3.2:3b` → ("ollama", "llama3.2:3b"): a name with a tag as Ollama writes them.
    Nothing else is guessed: a name of unknown family, and a service that is merely spelt like one, are refused.

    Args:
        known: further services, of third parties.

    Raises:
        UnknownModelError: there is no such service, or the name does not determine which service has the model.
        ConfigurationError: the name is empty.
        ValidationError: it is not text.
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValidationError(
            f"A model is named by a text, not by {type(text).__name__}.", hint="Use e.g. model='local' or 'openai:gpt-6-luna'."
        )
    name = text.strip()
    if not name:
        raise ConfigurationError("The model has no name.", hint="Use e.g. local, openai:gpt-6-luna or ollama:llama3.2.")
    services = {*map(str, LLMService), *known, *llm_providers.services()}
    head, colon, tail = name.partition(":")
    service = normalize_service(head)
    if colon and service in services:
        family = service == LLMService.OLLAMA and head.strip().lower() != service
        return service, name if family and tail else tail.strip() or None
    if normalize_service(name) in services:
        # a name that ends in a digit is a model, too
        return normalize_service(name), name if name[-1].isdigit() and name not in services else None
    known_for = llm_providers.service_of_model(name)
    if known_for is not None and (not colon or name[:3].lower() == "ft:" or known_for == LLMService.OLLAMA):
        return known_for, name
    near = _nearest_service(head, services)
    if colon and near is None and _OLLAMA_TAG.fullmatch(tail):
        return str(LLMService.OLLAMA), name
    raise _unknown_model(name, near, services)


def _nearest_service(head: str, services: Collection[str]) -> str | None:
    """The service that a wrong spelling seems to mean. Families of Ollama's are not wrong spellings of its name."""
    word = normalize_service(head)[:60]
    spellings = {**{s: s for s in services}, **{a: str(s) for a, s in SERVICE_ALIASES.items() if s != LLMService.OLLAMA}}
    if "llama" in word and not word.startswith("ollama"):
        spellings.pop(str(LLMService.OLLAMA), None)
    found = difflib.get_close_matches(word, spellings, n=1, cutoff=0.75)
    return spellings[found[0]] if found else None


def _unknown_model(name: str, near: str | None, services: Collection[str]) -> UnknownModelError:
    head, colon, tail = (name if len(name) <= 80 else f"{name[:79]}…").partition(":")
    choices = ", ".join(sorted(services))
    if colon:
        guess = f"Did you mean '{near}:{tail}'? " if near else ""
        return UnknownModelError(
            f"There is no LLM service '{head}'; there are {choices}.",
            hint=f"{guess}Write service:model; a model of Ollama is ollama:{head}:{tail}.",
            provider=head,
        )
    guess = f"Did you mean '{near}'? " if near else ""
    return UnknownModelError(
        f"There is no LLM service '{head}' (there are {choices}), and the name does not say which of them has such a model.",
        hint=f"{guess}Write service:model, e.g. ollama:{head} or openai:{head}.",
        provider=head,
    )


__getattr__: Callable[[str], Any] = renamed(__name__, {"Rung": "OutputMode"})
