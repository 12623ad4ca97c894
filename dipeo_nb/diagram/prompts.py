"""PromptBuilder: the prompt of a node's run, from templates and inputs, with a cache of renderings.

Part of DiPeO's API. Runs do not use it: their prompts are rendered by `diagram.templates`.
Use it where the same prompt is rendered often (sweeps, prompt labs, batches); a single rendering needs only
`SimpleTemplateProcessor`.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import re
import uuid
import warnings
import zoneinfo
from collections.abc import Mapping, Sequence
from itertools import count
from threading import Lock
from typing import Any, NamedTuple

from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from dipeo_nb.diagram.values import plain
from dipeo_nb.domain.ports import TemplateProcessorPort, TemplateResult

CACHE_LIMIT = 1000
"""Renderings kept."""
CONVERSATION_LIMIT = 10
"""Messages that `prepend_conversation_if_needed` includes."""
CONVERSATION_MARK = "[Previous conversation"
"""Marks a prepended conversation; a prompt that has it is left as it is."""


class CacheInfo(NamedTuple):
    """Statistics of the cache."""

    hits: int
    misses: int
    bypassed: int
    """Renderings that are never cached: with values whose content cannot be known (arbitrary objects), or of chance (`random`)."""
    size: int


class MissingValueWarning(UserWarning):
    """A template names what its values do not have."""


class PromptBuilder:
    """Builds prompts. Safe to share between threads.

    The cache is keyed by the template and the content of the values, with their types: 1, True, 1.0 and "1" never
    meet, nor do two objects that merely look alike. It drops the least recently used rendering beyond its limit.

    Args:
        processor: renders the templates; it must be pure.
        cache_limit: renderings kept; 0 switches the cache off.
        conversation_limit: messages that `prepend_conversation_if_needed` includes.
    """

    def __init__(
        self,
        processor: TemplateProcessorPort | None = None,
        *,
        cache_limit: int = CACHE_LIMIT,
        conversation_limit: int = CONVERSATION_LIMIT,
    ) -> None:
        self.processor: TemplateProcessorPort | SimpleTemplateProcessor = processor or SimpleTemplateProcessor()
        self.cache_limit = cache_limit
        self.conversation_limit = conversation_limit
        self._cache: dict[Any, _Entry] = {}
        self._clock = count()
        self._lock = Lock()
        self._hits = self._misses = self._bypassed = 0

    def build(
        self,
        prompt: str,
        template_values: Mapping[str, Any],
        first_only_prompt: str | None = None,
        execution_count: int = 0,
    ) -> str:
        """The rendered prompt; the first-only one when *execution_count* is 1 and there is one.

        Missing names render empty; `build_result` lists them.

        Raises:
            TemplateError: bad syntax, or a tag that fails.
        """
        if execution_count == 1 and first_only_prompt:
            prompt = first_only_prompt
        # The path that has to be quick: one look-up and no lock, as reading a dict is atomic. The types are in the
        # key, since 1 == True; a type that is not simple is never found, as such values are stored in another form.
        content = tuple(template_values.values())
        try:
            entry = self._cache.get((prompt, tuple(template_values), tuple(map(type, content)), content))
        except TypeError:  # a list or mapping among the values
            entry = None
        if entry is not None:
            entry.used = next(self._clock)
            self._hits += 1
            return entry.text
        return self._render(prompt, template_values).content

    def build_result(
        self,
        prompt: str,
        template_values: Mapping[str, Any],
        first_only_prompt: str | None = None,
        execution_count: int = 0,
    ) -> TemplateResult:
        """As `build`, with the names that were missing and used; a hit of the cache has them too."""
        if self.should_use_first_only_prompt(first_only_prompt, execution_count):
            prompt = first_only_prompt or ""
        return self._render(prompt, template_values)

    def build_with_context(
        self,
        prompt: str,
        context: Mapping[str, Any],
        first_only_prompt: str | None = None,
        execution_count: int = 0,
    ) -> str:
        """As `build`, without the cache, and with a Python warning for each missing name.

        Warns:
            MissingValueWarning: the template names what *context* does not have.
        """
        if self.should_use_first_only_prompt(first_only_prompt, execution_count):
            prompt = first_only_prompt or ""
        result = self.processor.process(prompt, context)
        for name in result.missing_keys:
            warnings.warn(
                f"The prompt names '{name}', which nothing provides; it is left empty.",
                MissingValueWarning,
                stacklevel=2,
            )
        return result.content

    @staticmethod
    def should_use_first_only_prompt(first_only_prompt: str | None, execution_count: int) -> bool:
        """Whether this run (1-based; 0: unknown) takes the first-only prompt."""
        return execution_count == 1 and bool(first_only_prompt)

    @staticmethod
    def prepare_template_values(inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Template values from a node's inputs.

        Mappings under `default` and `first` are spread to the top, where no input has that name (a mapping whose only
        key is `default` is unwrapped first). A conversation `x` (a mapping with a list of `messages`) also gives
        `x_messages` and `x_last_message`. Lists of mappings and objects stay as they are.
        """
        values: dict[str, Any] = {}
        for name in ("first", "default"):
            inner = plain(inputs.get(name))
            while isinstance(inner, Mapping) and inner.keys() == {"default"}:
                inner = plain(inner["default"])
            if isinstance(inner, Mapping) and not _is_conversation(inner):
                values.update(inner)
        values.update(inputs)
        for name, value in inputs.items():
            seen = plain(value)
            if isinstance(seen, Mapping) and _is_conversation(seen):
                messages = seen["messages"]
                last = seen.get("last_message", messages[-1] if messages else None)
                values.setdefault(f"{name}_messages", messages)
                values.setdefault(f"{name}_last_message", _content(last))
        return values

    def prepend_conversation_if_needed(self, prompt: str, conversation: Any) -> str:
        """*prompt*, preceded by the last messages of a conversation.

        Args:
            conversation: a mapping with `messages`, or a list of messages (mappings with `role` or `from_person_id`,
                and `content`). Anything else, an empty one, or a prompt that has one already: the prompt alone.
        """
        seen = plain(conversation)
        messages = seen.get("messages") if isinstance(seen, Mapping) else seen
        if not isinstance(messages, Sequence) or isinstance(messages, str) or CONVERSATION_MARK in prompt:
            return prompt
        included = [m for m in messages if CONVERSATION_MARK not in _content(m)]
        included = included[-self.conversation_limit :] if self.conversation_limit > 0 else []
        if not included:
            return prompt
        left_out = len(messages) - len(included)
        head = f"{CONVERSATION_MARK}{f', {left_out} earlier messages left out' if left_out else ''}]"
        lines = [f"{_speaker(m)}: {_content(m)}" for m in included]
        return "\n".join([head, *lines, "", prompt])

    @property
    def cache_info(self) -> CacheInfo:
        with self._lock:
            return CacheInfo(self._hits, self._misses, self._bypassed, len(self._cache))

    def clear_cache(self) -> None:
        """Forget all renderings and counts."""
        with self._lock:
            self._cache.clear()
            self._hits = self._misses = self._bypassed = 0

    def _render(self, prompt: str, values: Mapping[str, Any]) -> TemplateResult:
        try:
            key = _key(prompt, values)
        except _UnknowableError:
            self._bypassed += 1
            return self.processor.process(prompt, values)
        entry = self._cache.get(key)
        if entry is not None:
            entry.used = next(self._clock)
            self._hits += 1
            return entry.result
        result = self.processor.process(prompt, values)
        with self._lock:
            self._misses += 1
            if self.cache_limit > 0:
                if key not in self._cache and len(self._cache) >= self.cache_limit:
                    # A look through all entries is quicker than the rendering that made it necessary.
                    del self._cache[min(self._cache, key=lambda k: self._cache[k].used)]
                self._cache[key] = _Entry(result, next(self._clock))
        return result


class _Entry:
    """A rendering and when it was last used."""

    __slots__ = ("result", "text", "used")

    def __init__(self, result: TemplateResult, used: int) -> None:
        self.result = result
        self.text = result.content
        self.used = used


_SIMPLE = frozenset([str, int, bool, type(None)])
"""Types whose values equal each other only when they print the same (0.0 and -0.0 do not), given the type."""


def _key(prompt: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """The cache key. Raises _UnknowableError."""
    if _CHANCE.search(prompt):
        raise _UnknowableError
    content = tuple(values.values())
    types = tuple(map(type, content))
    if _SIMPLE.issuperset(types):
        return prompt, tuple(values), types, content
    frozen = [v if t in _SIMPLE else _frozen(v, 0) for v, t in zip(content, types, strict=True)]
    # Longer than the key of simple values: one cannot be taken for the other.
    return prompt, tuple(values), types, tuple(frozen), "by content"


class _UnknowableError(Exception):
    """A value whose content cannot be known, or a template that leaves something to chance."""


_BY_REPR = frozenset([bytes, float, complex, decimal.Decimal, uuid.UUID, datetime.date, datetime.timedelta])
"""Types, without subclasses, whose `repr` is all that there is to a value."""
_ZONES = (type(None), datetime.timezone, zoneinfo.ZoneInfo)
_CHANCE = re.compile(r"\b(random|lipsum)\b")
"""Filters and names whose results depend on more than their values."""


def _frozen(value: Any, depth: int) -> Any:
    """The content of a value as something hashable, with its types.

    Only of types that are known to have no state, and no behaviour, other than that content: a subclass may have attributes of its
    own, and a method or property may look at anything.

    Raises:
        _UnknowableError: any other value, or one that is nested more than 50 levels deep.
    """
    kind = type(value)
    if kind in _SIMPLE:
        return kind, value
    if depth > 50:
        raise _UnknowableError
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        # In order, also that of sets: it is the order of their text.
        return kind, tuple([_frozen(item, depth + 1) for item in value])
    if kind is dict or (isinstance(value, dict) and hasattr(kind, "__dipeo_text__") and not vars(value)):
        return kind, tuple([(_frozen(k, depth + 1), _frozen(v, depth + 1)) for k, v in value.items()])
    if kind in _BY_REPR:
        return kind, repr(value)
    if kind is datetime.datetime or kind is datetime.time:
        if type(getattr(value, "tzinfo", None)) not in _ZONES:
            raise _UnknowableError
        return kind, repr(value)
    if isinstance(value, str) and vars(value).keys() == {"__dipeo_value__", "own"}:
        state = vars(value)
        return kind, str(value), state["own"], _frozen(state["__dipeo_value__"], depth + 1)
    if isinstance(value, enum.Enum):
        return kind, value.name, _frozen(_content_of_enum(value), depth + 1)
    if dataclasses.is_dataclass(kind) and _is_only_fields(kind):
        fields = [field.name for field in dataclasses.fields(kind)]
        if getattr(value, "__dict__", {}).keys() <= set(fields):
            return kind, tuple([_frozen(getattr(value, name), depth + 1) for name in fields])
    raise _UnknowableError


def _content_of_enum(member: enum.Enum) -> Any:
    kind = type(member)
    own = {name for name in vars(member) if not name.startswith("_")}
    behaviour = {name for name in vars(kind) if not name.startswith("_")} - kind.__members__.keys()
    if own or behaviour or kind.__str__ not in _ENUM_TEXTS:
        raise _UnknowableError
    return member.value


_ENUM_TEXTS = (enum.Enum.__str__, int.__repr__, int.__str__, str.__str__, enum.Flag.__str__)
_GENERATED = frozenset(
    [
        "__module__",
        "__doc__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__dict__",
        "__weakref__",
        "__slots__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__match_args__",
        "__init__",
        "__post_init__",
        "__repr__",
        "__eq__",
        "__hash__",
        "__lt__",
        "__le__",
        "__gt__",
        "__ge__",
        "__setattr__",
        "__delattr__",
        "__getstate__",
        "__setstate__",
        "__replace__",
        "__firstlineno__",
        "__static_attributes__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
    ]
)


@functools.cache
def _is_only_fields(kind: type) -> bool:
    """Whether a dataclass has nothing but its fields: no properties, no methods, no text of its own."""
    fields = {field.name for field in dataclasses.fields(kind)}
    for cls in kind.__mro__[:-1]:
        if vars(cls).keys() - _GENERATED - fields:
            return False
        text = vars(cls).get("__repr__")
        if text is not None and not hasattr(text, "__wrapped__"):  # those that dataclass makes are wrapped
            return False
    return True


def _is_conversation(value: Mapping[Any, Any]) -> bool:
    return isinstance(value.get("messages"), (list, tuple))


def _content(message: Any) -> str:
    if isinstance(message, Mapping):
        return str(message.get("content", ""))
    return str(getattr(message, "content", "") if message is not None and not isinstance(message, str) else message or "")


def _speaker(message: Any) -> str:
    for name in ("name", "from_person_id", "role"):
        value = message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)
        if value:
            return str(value)
    return "message"


__all__ = ["CACHE_LIMIT", "CacheInfo", "MissingValueWarning", "PromptBuilder"]
