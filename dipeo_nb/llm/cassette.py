"""Recorded calls as files: requests and answers in words (JSON), their keys, and how two requests differ.

A file holds one request and the answers to it, in order:

    {"recording": 1,
     "request": {"service", "model", "messages": [{"role", "content"}], …},
     "answers": [{"events": [{"kind": "text", "text": "Tabs are fine.", "pieces": [4, 4, 6]}, …], "response": {…}}]}

Texts of several lines are lists of lines. `pieces` are the lengths in characters of the pieces as they streamed. A response
has no text of its own when that of the events says all. Nothing is there twice, so a text may be edited by hand.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from dipeo_nb.common.moved import renamed
from dipeo_nb.common.redaction import scrubbed
from dipeo_nb.common.root import Root
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall
from dipeo_nb.errors import LLMError, ProviderError, RecordingError, StorageError, StructureError, UnsupportedError
from dipeo_nb.llm.structured import schema_of, validated

Words = dict[str, Any]
"""A request as it stands in a file: JSON, in a fixed order, without defaults and secrets."""
VERSION = 1
"""Of the files."""
HEX = 8
"""Digits of the key in a file's name."""

# Requests.


def content_key(request: LLMRequest, secrets: Iterable[str] = ()) -> str:
    """64 hexadecimal digits that are equal for requests that ask the same of the same model, in any process.

    What counts: service, model, base URL, messages, tools, tool choice, the response's schema, the way to structure, and
    the parameters (temperature, max_tokens, top_p, stop, seed, reasoning, extra). What does not: keys, budget, fallbacks, timeout, context, Python's order of
    dictionaries. Secrets are taken out first, as files do not have them.
    """
    return key_of(in_words(request, secrets))


def in_words(request: LLMRequest, secrets: Iterable[str] = ()) -> Words:
    """What counts of a request, as JSON."""
    schema = None if request.response_format is None else schema_of(request.response_format)
    words = {
        "service": request.service,
        "model": request.model,
        "base_url": request.base_url,
        "temperature": None if request.temperature is None else float(request.temperature),
        "max_tokens": request.max_tokens,
        "top_p": None if request.top_p is None else float(request.top_p),
        "stop": list(request.stop),
        "seed": request.seed,
        "reasoning": request.reasoning,
        "extra": request.extra,
        "messages": [
            {
                "role": m.role,
                "name": m.name,
                "content": m.content,
                "tool_calls": [_call_words(c) for c in m.tool_calls],
                "tool_result": m.tool_result and {"call_id": m.tool_result.call_id, "is_error": m.tool_result.is_error},
                "raw": m.raw,
            }
            for m in request.messages
        ],
        "tools": [
            {
                "type": t.type,
                "name": t.name,
                "description": t.description,
                "parameters": t.parameters,
                "config": t.config,
            }
            for t in request.tools
            if t.enabled
        ],
        "tool_choice": request.tool_choice,
        "rung": request.output_mode,
        "response_schema": schema,
    }
    words["messages"] = [_given(message) for message in words["messages"]]
    words["tools"] = [_given(tool) for tool in words["tools"]]
    return scrubbed(_json(_given(words)), secrets)


def key_of(words: Words) -> str:
    """The content key of a request in words."""
    text = json.dumps(words, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def name_of(words: Words, digits: int = HEX) -> str:
    """The name of a request's file: some of the last thing the user said, and the beginning of its key."""
    return f"{_slug(words)}-{key_of(words)[:digits]}.json"


def _given(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not there: a field that requests get later changes no key of today."""
    return {k: v for k, v in pairs.items() if v not in (None, "", [], {}, ())}


def _call_words(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _json(value: Any) -> Any:
    """Plain JSON; what has none (a stray object in a tool's settings) is its type's name, the same in each process."""

    def name(stray: Any) -> str:
        return f"{type(stray).__module__}.{type(stray).__qualname__}"

    return to_jsonable_python(value, bytes_mode="base64", fallback=name)


def _slug(words: Words) -> str:
    """Up to 48 characters for a file's name."""
    said = [m.get("content", "") for m in words.get("messages", ()) if m.get("role") == "user"]
    for text in (said[-1] if said else "", words.get("model", ""), words.get("service", "")):
        plain = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").decode().lower()
        parts = re.findall(r"[a-z0-9]+", plain)
        slug = ""
        for part in parts:
            if len(slug) + len(part) >= 48:
                break
            slug += f"-{part}" if slug else part
        if slug := slug or "".join(parts)[:48]:
            return slug
    return "call"


# Answers.

_PIECES = frozenset({"text", "reasoning", "tool_call_delta"})
REFUSALS: Mapping[str, type[LLMError]] = {kind.code: kind for kind in (ProviderError, UnsupportedError)}
"""Errors that may stand in a file in place of a response, besides StructureError: refusals of a way to structure."""


@dataclass(frozen=True)
class RecordedAnswer:
    """An answer out of a file: its events, and how it ended."""

    events: tuple[StreamEvent, ...]
    end: LLMResponse | LLMError

    @property
    def saved_usd(self) -> float | None:
        """What it cost when it was recorded, in US dollars; None when unknown."""
        return getattr(self.end, "saved_usd", None)


def answer_words(events: Sequence[StreamEvent], end: LLMResponse | LLMError, secrets: Iterable[str] = ()) -> dict[str, Any]:
    """An answer as JSON, without secrets."""
    ended = {"error": _error_words(end)} if isinstance(end, LLMError) else {"response": _response_words(end, events)}
    return {"events": _event_words(events, tuple(secrets)), **scrubbed(_json(ended), secrets)}


def answer_of(words: Mapping[str, Any], file: Path, request: LLMRequest) -> RecordedAnswer:
    """The answer in a file, marked as recorded: it costs nothing, and says what it would have cost.

    Raises:
        RecordingError: something is missing, or the structured value does not fit the class of today.
    """
    try:
        events = tuple(_events(words["events"]))
        end = _error(words["error"]) if "error" in words else _response(words["response"], events, request)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unreadable(file, f"{error} is missing" if isinstance(error, KeyError) else str(error)) from error
    return RecordedAnswer(events, end)


def _event_words(events: Sequence[StreamEvent], secrets: Sequence[str]) -> list[dict[str, Any]]:
    """Events as JSON; pieces of one text stand together, with their lengths."""
    found: list[dict[str, Any]] = []
    for event in events:
        data = _json(dict(event.data or {}))
        last = found[-1] if found else {}
        if event.kind in _PIECES and last.get("kind") == event.kind and last.get("data", {}) == data:
            last["text"] += event.text
            last["pieces"].append(len(event.text))
        else:
            found.append({"kind": event.kind, "text": event.text, "pieces": [len(event.text)]})
            if data:
                found[-1]["data"] = scrubbed(data, secrets)
    for words in found:
        text = scrubbed(words["text"], secrets)
        if len(words["pieces"]) == 1 or len(text) != len(words["text"]):
            del words["pieces"]  # it came as one, or the pieces would show where a secret stood
        words["text"] = _lined(text)
        if not text:
            del words["text"]
    return found


def _events(words: Sequence[Mapping[str, Any]]) -> Iterator[StreamEvent]:
    for word in words:
        text = _joined(word.get("text", ""))
        data = word.get("data")
        start = 0
        for size in word.get("pieces", ())[:-1]:
            yield StreamEvent(word["kind"], text[start : start + size], data=data)
            start += size
        yield StreamEvent(word["kind"], text[start:], data=data)  # all that is left: somebody may have edited the text


def _said(events: Iterable[StreamEvent]) -> str:
    """The text of an answer."""
    text = ""
    for event in events:
        if event.kind == "stream_restarted":
            text = ""
        elif event.kind == "text":
            text += event.text
    return text


def _response_words(response: LLMResponse, events: Sequence[StreamEvent]) -> dict[str, Any]:
    try:
        value = to_jsonable_python(response.structured, by_alias=True, round_trip=True)
    except ValueError as error:  # pydantic's, of a type without JSON or of a serializer that raised
        raise RecordingError(
            f"The answer cannot be recorded, as a {type(response.structured).__name__} cannot be written as JSON: {error}.",
            hint="Correct its serializers, or record nothing: DIPEO_LLM_MODE=live.",
        ) from error
    words = _given(
        {
            "provider": response.provider,
            "model": response.model,
            "text": None if response.text == _said(events) else _lined(response.text),
            "tool_calls": [_call_words(c) for c in response.tool_calls],
            "rung": response.output_mode,
            "tool_outputs": list(response.tool_outputs),
            "finish_reason": response.finish_reason,
            "request_id": response.request_id,
            "usage": _usage_words(response.usage),
            "cost_usd": response.cost_usd,
            "raw": response.raw,
            "warnings": list(response.warnings),
        }
    )
    return words if value is None else {**words, "structured": value}  # an empty list is a value, too


def _response(words: Mapping[str, Any], events: Sequence[StreamEvent], request: LLMRequest) -> LLMResponse:
    structured = words.get("structured")
    if "structured" in words and request.response_format is not None:
        structured = validated(structured, request.response_format)[1]
    return LLMResponse(
        text=_joined(words["text"]) if "text" in words else _said(events),
        provider=words["provider"],
        model=words.get("model", ""),
        usage=TokenUsage(**words.get("usage", {})),
        structured=structured,
        tool_calls=tuple(ToolCall(**call) for call in words.get("tool_calls", ())),
        finish_reason=words.get("finish_reason"),
        request_id=words.get("request_id"),
        cost_usd=0.0,
        output_mode=words.get("rung"),
        tool_outputs=tuple(words.get("tool_outputs", ())),
        cached=True,
        saved_usd=words.get("cost_usd"),
        raw=words.get("raw"),
        warnings=tuple(words.get("warnings", ())),
    )


def _error_words(error: LLMError) -> dict[str, Any]:
    words: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "provider": error.provider,
        "model": error.model,
        "status": error.status,
    }
    if isinstance(error, StructureError):
        words |= {
            "problem": error.problem,
            "text": _lined(error.text),
            "repairable": error.repairable,
            "usage": _usage_words(error.usage) if isinstance(error.usage, TokenUsage) else None,
            "cost_usd": error.cost_usd,
        }
    return _given(words)


def _error(words: Mapping[str, Any]) -> LLMError:
    facts = dict(words)
    code, message, hint = facts.pop("code"), facts.pop("message"), facts.pop("hint", None)
    if code != StructureError.code:
        return REFUSALS[code](message, hint=hint, **facts)
    facts["text"] = _joined(facts.get("text", ""))
    facts["usage"] = TokenUsage(**facts.get("usage", {}))
    saved = facts.pop("cost_usd", None)
    return StructureError(message, hint=hint, **facts, cost_usd=0.0, charged=True, cached=True, saved_usd=saved)


def _usage_words(usage: TokenUsage) -> dict[str, Any]:
    raw = {"raw": usage.raw} if usage.raw else {}
    return {k: v for k, v in usage.to_dict().items() if k != "total"} | raw


# Files.


def read(root: Root, name: str) -> tuple[Words, list[Any]]:
    """The request and the answers in a file of a folder.

    Raises:
        RecordingError: it is not a recording; the message says what is wrong and what to do.
    """
    file = root.path / name
    try:
        document = json.loads(root.read(name))
    except OSError as error:
        raise unreadable(file, error.strerror or str(error)) from error
    except StorageError as error:
        raise unreadable(file, error.message.removesuffix(".")) from error
    except (ValueError, RecursionError) as error:  # ValueError: also bytes that are not UTF-8
        raise unreadable(file, f"it is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("recording") != VERSION:
        raise unreadable(file, f'it does not say "recording": {VERSION}, the format of this version')
    request, answers = document.get("request"), document.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(a, dict) for a in answers):
        raise unreadable(file, "it has no answers")
    try:
        return _messages_mapped(request, _joined), answers
    except (TypeError, AttributeError) as error:
        raise unreadable(file, "it has no request") from error


def written(words: Words, answers: Sequence[Any]) -> bytes:
    """What a file holds."""
    document = {"recording": VERSION, "request": _messages_mapped(words, _lined), "answers": list(answers)}
    return (_pretty(document) + "\n").encode("utf-8", "backslashreplace")  # a stray surrogate as JSON's own \udXXX


def unreadable(file: Path, why: str) -> RecordingError:
    """The error of a file that cannot be used."""
    return RecordingError(
        f"The recording {file} cannot be used: {why}.",
        hint="Restore it from version control, or delete it and record it again (DIPEO_LLM_MODE=record).",
        path=file,
    )


def _lined(text: str) -> str | list[str]:
    return text.split("\n") if "\n" in text else text


def _joined(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else "\n".join(text)


def _messages_mapped(words: Any, how: Callable[[Any], Any]) -> Words:
    messages = [{k: how(v) if k == "content" else v for k, v in m.items()} for m in words.get("messages", ())]
    return {k: messages if k == "messages" else v for k, v in words.items()}


WIDTH = 110
"""Characters of a line; longer texts are not broken."""


def _pretty(value: Any, used: int = 0, inside: int = 0) -> str:
    """JSON for people: what fits is on one line, the rest indented by two.

    Args:
        used: characters before it on its line.
        inside: how far its line is indented.
    """
    flat = json.dumps(value, ensure_ascii=False)
    numbers = isinstance(value, list) and all(isinstance(item, int) for item in value)  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, (dict, list)) or numbers or used + len(flat) <= WIDTH:
        return flat
    deeper = inside + 2
    heads = [f"{json.dumps(key, ensure_ascii=False)}: " for key in value] if isinstance(value, dict) else [""] * len(value)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    items: list[Any] = list(value.values() if isinstance(value, dict) else value)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    lines = [
        " " * deeper + head + _pretty(item, deeper + len(head) + 1, deeper) for head, item in zip(heads, items, strict=True)
    ]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(lines) + f"\n{' ' * inside}{closing}"


# Differences.

SHOWN_LINES = 40
SHOWN_CHARACTERS = 140
"""Of a difference, in all and of each line."""


def nearest(words: Words, recorded: Mapping[Path, Words]) -> Path | None:
    """The file of the most similar request; None when there is none at all."""
    asked = _flat(words)
    matchers = {f: difflib.SequenceMatcher(None, _flat(other), asked, autojunk=False) for f, other in recorded.items()}
    likely = sorted(matchers, key=lambda file: matchers[file].quick_ratio(), reverse=True)[:5]
    return max(likely, key=lambda file: matchers[file].ratio(), default=None)


def _flat(words: Words) -> list[str]:
    """The words of a request one by one; what was said last comes first, as that tells calls apart."""
    said = [m.get("content", "") for m in reversed(words.get("messages", ()))]
    rest = {k: v for k, v in words.items() if k != "messages"}
    return [*" ".join(said).split()[:1500], *json.dumps(rest).split()[:500]]


def difference(old: Words, new: Words) -> str:
    """How two requests differ: the fields, then each as `recorded` and `asked`, texts as a difference of lines."""
    fields = [k for k in dict.fromkeys([*old, *new]) if old.get(k) != new.get(k)]
    lines = [f"it differs in {', '.join(fields)}:"]
    for name in fields:
        before, after = old.get(name), new.get(name)
        if name == "messages":
            lines += _message_difference(before or [], after or [])
        elif isinstance(before, (dict, list)) or isinstance(after, (dict, list)):
            lines += [f"{name}:", *_line_difference(_indented(before), _indented(after))]
        else:
            lines.append(f"{name}: {_shown(before)} is recorded, {_shown(after)} is asked")
    return "\n".join([*lines[:SHOWN_LINES], *(["…"] if len(lines) > SHOWN_LINES else [])])


def _indented(value: Any) -> str:
    return json.dumps(value or {}, ensure_ascii=False, indent=2)


def _message_difference(old: Sequence[Words], new: Sequence[Words]) -> list[str]:
    shown = [] if len(old) == len(new) else [f"messages: {len(old)} are recorded, {len(new)} are asked"]
    for number, (before, after) in enumerate(zip(old, new, strict=False), 1):
        if before != after:
            shown.append(f"message {number} of {len(new)} ({after.get('role')}):")
            return [*shown, *_line_difference(_as_text(before), _as_text(after))]
    more, sign = (new[len(old) :], "+") if len(new) > len(old) else (old[len(new) :], "-")
    return shown + [f"{sign}{m.get('role')}: {_shown(m.get('content', ''))}" for m in more[:3]]


def _as_text(message: Words) -> str:
    """A message as lines: what was said, then the rest of it."""
    rest = (f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in message.items() if k not in ("content", "role"))
    return "\n".join([message.get("content", ""), *rest])


def _line_difference(old: str, new: str) -> list[str]:
    before, after = old.split("\n"), new.split("\n")
    first = next((pair for pair in zip(before, after, strict=False) if pair[0] != pair[1]), ("", ""))
    same = next((i for i, (a, b) in enumerate(zip(*first, strict=False)) if a != b), min(map(len, first)))
    cut = max(0, same - 40)  # of long lines, what stands around the first difference

    def shown(line: str) -> str:
        if len(line) <= SHOWN_CHARACTERS:
            return line
        end = cut + SHOWN_CHARACTERS
        return f"{line[0]}{'…' if cut else ''}{line[1 + cut : 1 + end]}{'…' if len(line) > 1 + end else ''}"

    return [shown(line) for line in difflib.unified_diff(before, after, "recorded", "asked", n=1, lineterm="")]


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= 80 else text[:79] + "…") if isinstance(value, str) else text


__getattr__: Callable[[str], Any] = renamed(__name__, {"Answer": "RecordedAnswer"})
