"""Recorded answers: a folder of small files that can be read, replayed and kept in version control.

    with dp.recording("recordings"):                 # replays what is there, records what is not
        dp.chat("Tabs or spaces?")

A recording belongs to a *request*: `content_key` says which requests are the same. Each file holds one request in words and
the answers to it, in order: the n-th time it is made within one `with` it gets the n-th answer, and the last one from then
on. Modes:

| mode | recorded call | unrecorded call |
|---|---|---|
| `live` | called | called |
| `record` | called, written anew | called, written |
| `replay` | replayed | `RecordingNotFoundError`, which names the difference to the nearest recording |
| `auto` | replayed (also within the same `with`: a cache) | called, written |

Which recordings apply to a call is decided where the call is made: the innermost `with dp.recording(…)` around it, else the
last one that was `start`ed, else what DIPEO_LLM_MODE says. A context variable carries it from the caller's thread to the
library's loop, as `run_coroutine_threadsafe` copies the context of its caller; so neither threads nor tasks disturb each
other, and a run keeps the recordings it was started with. Threads of your own start outside every `with`.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import hashlib
import json
import os
import re
import threading
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.scrub import scrubbed
from dipeo_nb.config import Settings, get_settings, secret_values
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage, ToolCall
from dipeo_nb.errors import (
    ConfigurationError,
    LLMError,
    ProviderError,
    RecordingError,
    RecordingNotFoundError,
    StructureError,
    UnsupportedError,
)
from dipeo_nb.llm.structured import ANSWER_TOOL, schema_of, validated

Mode = Literal["live", "record", "replay", "auto"]
MODES: tuple[Mode, ...] = get_args(Mode)
VERSION = 1
"""Of the files."""
HEX = 8
"""Digits of the key in a file's name."""
RECORD_HINT = "To record it: DIPEO_LLM_MODE=record, or dp.recording(path, mode='record')."

Call = Callable[[LLMRequest], AsyncIterator[StreamEvent]]
"""What makes a call and streams its answer."""
Words = dict[str, Any]
"""A request as it stands in a file: JSON, in a fixed order, without defaults and secrets."""


# Which request it is.


def content_key(request: LLMRequest, secrets: Iterable[str] = ()) -> str:
    """64 hexadecimal digits that are equal for requests that ask the same of the same model, in any process.

    What counts: service, model, base URL, messages, tools, tool choice, the response's schema, the way to structure, and
    the parameters (temperature, max_tokens). What does not: keys, budget, fallbacks, timeout, context, Python's order of
    dictionaries. Secrets are taken out first, as files do not have them.
    """
    return _key(in_words(request, secrets))


def in_words(request: LLMRequest, secrets: Iterable[str] = ()) -> Words:
    """What counts of a request, as JSON."""
    words: Words = {
        "service": request.service,
        "model": request.model,
        "base_url": request.base_url,
        "temperature": None if request.temperature is None else float(request.temperature),
        "max_tokens": request.max_tokens,
        "messages": [
            _given(
                {
                    "role": m.role,
                    "name": m.name,
                    "content": m.content,
                    "tool_calls": [_call_words(c) for c in m.tool_calls],
                    "tool_result": m.tool_result
                    and _given({"call_id": m.tool_result.call_id, "is_error": m.tool_result.is_error or None}),
                    "raw": m.raw,
                }
            )
            for m in request.messages
        ],
        "tools": [
            _given(
                {
                    "type": t.type,
                    "name": t.name,
                    "description": t.description,
                    "parameters": t.parameters,
                    "config": t.config,
                }
            )
            for t in request.tools
            if t.enabled
        ],
        "tool_choice": request.tool_choice,
        "rung": request.rung,
        "response_schema": None if request.response_format is None else schema_of(request.response_format),
    }
    return scrubbed(_json(_given(words)), secrets)


def _key(words: Words) -> str:
    text = json.dumps(words, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _given(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not there: a field that requests get later changes no key of today."""
    return {k: v for k, v in pairs.items() if v not in (None, "", [], {}, ()) or k in ("role", "service")}


def _call_words(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "name": call.name, "arguments": call.arguments}


def _json(value: Any) -> Any:
    """Plain JSON; what has none (a stray object in a tool's settings) is its type's name, the same in each process."""
    return to_jsonable_python(
        value, bytes_mode="base64", fallback=lambda v: f"{type(v).__module__}.{type(v).__qualname__}"
    )


# The folder.


@dataclass(frozen=True)
class _Asked:
    """One call: what is asked, and how often it was asked before."""

    request: LLMRequest
    words: Words
    key: str
    number: int


class Recordings:
    """A folder of recordings in use. Make it with `dp.recording`; its repr says what was replayed, recorded and saved.

    Args:
        path: the folder; it is made when the first answer is written.
        mode: see the module.

    Raises:
        ConfigurationError: there is no such mode, or the path is a file.
    """

    def __init__(self, path: str | os.PathLike[str], mode: Mode = "auto") -> None:
        if mode not in MODES:
            raise ConfigurationError(f"There is no mode '{mode}' for recordings.", hint=f"Modes: {', '.join(MODES)}.")
        self.path = Path(path)
        self.mode: Mode = mode
        if self.path.exists() and not self.path.is_dir():
            raise ConfigurationError(f"{self.path} is a file; recordings need a folder.", hint="Name a folder.")
        self.replayed = 0
        """Calls that were answered from a file."""
        self.recorded = 0
        """Answers that were written."""
        self.saved_usd = 0.0
        """What the replayed answers would have cost, in US dollars, as far as their prices are known."""
        self._lock = threading.Lock()
        self._asked: dict[str, int] = {}
        self._kept: dict[str, dict[int, Any]] = {}
        self._uses = 0

    # Use: one block, or from one cell to another.

    def __enter__(self) -> Recordings:
        self._begin()
        _blocks.set((*_blocks.get(), self))
        return self

    def __exit__(self, *error: object) -> None:
        _blocks.set(_without(_blocks.get(), self))
        self._end()

    async def __aenter__(self) -> Recordings:
        return self.__enter__()

    async def __aexit__(self, *error: object) -> None:
        self.__exit__()

    def start(self) -> Recordings:
        """Use these recordings from now on in the whole process, e.g. in all cells that follow, until `stop`."""
        global _started
        if self not in _started:
            self._begin()
            _started = (*_started, self)
        return self

    def stop(self) -> Recordings:
        """Undo `start`. Safe to call twice."""
        global _started
        if self in _started:
            _started = _without(_started, self)
            self._end()
        return self

    def _begin(self) -> None:
        with self._lock:
            self._uses += 1
            if self._uses == 1:  # a new beginning: the first call gets the first answer again
                self._asked.clear()
                self._kept.clear()

    def _end(self) -> None:
        with self._lock:
            self._uses -= 1

    def __repr__(self) -> str:
        saved = f", {self.saved_usd:.6f}".rstrip("0").rstrip(".") + " USD saved" if self.saved_usd else ""
        return f"recordings in {self.path} ({self.mode}): {self.replayed} replayed, {self.recorded} recorded{saved}"

    # Calls.

    async def replay(self, request: LLMRequest) -> AsyncIterator[StreamEvent] | None:
        """The events of the recorded answer; None when the request is not recorded. Counts as a call.

        Raises:
            RecordingError: its file cannot be read.
        """
        return await self._replay(await asyncio.to_thread(self._ask, request))

    async def _replay(self, asked: _Asked) -> AsyncIterator[StreamEvent] | None:
        found = await asyncio.to_thread(self._find, asked.key)
        if found is None:
            return None
        file, answers = found
        if self.mode == "auto":  # a refusal is not an answer: the call is made again
            answers = [a for a in answers if a.get("error", {}).get("code") not in _REFUSALS]
        if not answers:
            return None
        answer = answers[min(asked.number, len(answers) - 1)]
        return self._played(_Answer.read(answer, file, asked.request))

    async def _played(self, answer: _Answer) -> AsyncGenerator[StreamEvent]:
        """A recorded answer as it streamed, marked as recorded."""
        with self._lock:
            self.replayed += 1
            self.saved_usd += answer.saved_usd or 0.0
        if not any(event.kind == "start" for event in answer.events):
            yield StreamEvent("start", data={"cached": True})
        for event in answer.events:
            await asyncio.sleep(0)  # others get their turn, and a Stop gets through
            yield replace(event, data={**(event.data or {}), "cached": True}) if event.kind == "start" else event
        if answer.error is not None:
            raise answer.error
        yield StreamEvent("end", response=answer.response)

    def _ask(self, request: LLMRequest) -> _Asked:
        words = in_words(request, secret_values())
        key = _key(words)
        with self._lock:
            number = self._asked.get(key, 0)
            self._asked[key] = number + 1
        return _Asked(request, words, key, number)

    def _open(self) -> None:
        """See to it that an answer can be written, before it is paid for."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "not writable")
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> RecordingError:
        return RecordingError(
            f"Recordings cannot be written to {self.path}: {error.strerror or error}.",
            hint="Make the folder writable, or name another one (DIPEO_LLM_RECORDINGS, dp.recording(path)).",
            path=self.path,
        )

    def _keep(self, asked: _Asked, events: Sequence[StreamEvent], ended: LLMResponse | LLMError) -> None:
        """Write an answer at its place among those of the request."""
        answer = {"events": _event_words(events), **_ended_words(ended, events)}
        with self._lock:
            kept = self._kept.setdefault(asked.key, {})
            kept[asked.number] = answer
            document = {
                "recording": VERSION,
                "request": _lined_request(asked.words),
                "answers": [kept[n] for n in sorted(kept)],
            }
            try:
                text = _pretty(scrubbed(_json(document), secret_values()))
                write_atomic(self._target(asked), text.encode("utf-8", "backslashreplace"))
            except OSError as error:
                raise self._cannot_write(error) from error
            self.recorded += 1

    def _target(self, asked: _Asked) -> Path:
        """The file of a request: the one that has it (whatever it is called before the key), else a new one."""
        for file in self._candidates(asked.key):
            with contextlib.suppress(RecordingError):  # it is about to be written anew
                if _key(_read(file)[0]) != asked.key:
                    continue
            return file
        file = self.path / f"{_slug(asked.words)}-{asked.key[:HEX]}.json"
        return file.with_stem(f"{_slug(asked.words)}-{asked.key[: 2 * HEX]}") if file.exists() else file

    def _find(self, key: str) -> tuple[Path, list[Any]] | None:
        for file in self._candidates(key):
            words, answers = _read(file)
            if _key(words) == key:
                return file, answers
        return None

    def _candidates(self, key: str) -> list[Path]:
        return sorted([*self.path.glob(f"*-{key[:HEX]}.json"), *self.path.glob(f"*-{key[: 2 * HEX]}.json")])

    # What is missing.

    def _missing(self, asked: _Asked) -> RecordingNotFoundError:
        request = asked.request
        readable, broken = self._all()
        nearest = _nearest(asked.words, readable)
        if nearest is None:
            what = f"The folder holds no{' readable' if broken else ''} recordings."
        else:
            what = f"Nearest is {nearest.name}, {_difference(readable[nearest], asked, nearest)}"
        if broken:
            what = f"{what.rstrip()}\nNot readable: {', '.join(file.name for file in broken)}.\n"
        return RecordingNotFoundError(
            f"This call of {request.service} ({request.model or 'default model'}) is not recorded in {self.path}. {what}",
            hint=RECORD_HINT,
            path=self.path,
            nearest=nearest,
            provider=request.service,
            model=request.model,
        )

    def _all(self) -> tuple[dict[Path, Words], list[Path]]:
        """Every recorded request, and the files that cannot be read."""
        readable: dict[Path, Words] = {}
        broken: list[Path] = []
        for file in sorted(self.path.glob("*.json")):
            try:
                readable[file] = _read(file)[0]
            except RecordingError:
                broken.append(file)  # named in the message
        return readable, broken


_blocks: ContextVar[tuple[Recordings, ...]] = ContextVar("dipeo_nb_recordings", default=())
"""The recordings of the `with` blocks around here, the innermost last."""
_started: tuple[Recordings, ...] = ()
"""The recordings in use in the whole process, the last started last."""
_of_settings: dict[tuple[Path, Mode], Recordings] = {}


def _without(those: tuple[Recordings, ...], one: Recordings) -> tuple[Recordings, ...]:
    """*those* without the last appearance of *one*."""
    last = max((i for i, r in enumerate(those) if r is one), default=len(those))
    return those[:last] + those[last + 1 :]


def recording(path: str | os.PathLike[str] | None = None, mode: Mode = "auto") -> Recordings:
    """Record and replay the calls of models: `with dp.recording("recordings"): …`, or `.start()` … `.stop()` for many cells.

    Everything called within (`dp.chat`, `dp.llm`, runs started there) uses the folder; of nested ones the inner one counts.
    `async with` works too. The environment may be stricter: with DIPEO_LLM_MODE=replay, `auto` and `record` are `replay`, so
    that CI calls nothing; with DIPEO_LLM_MODE=record, `auto` is `record`, which makes all recordings anew.

    Args:
        path: the folder, below base_dir when relative; None: that of DIPEO_LLM_RECORDINGS.
        mode: `auto` replays what is recorded, and calls and records the rest. `record`, `replay`, `live`: see the module
            `dipeo_nb.llm.recording`.

    Raises:
        ConfigurationError: there is no such mode, or the path is a file.
    """
    settings = get_settings()
    folder = settings.recordings if path is None else settings.base_dir / Path(path).expanduser()
    if mode == "auto" and settings.llm_mode == "record":
        mode = "record"
    if mode in ("auto", "record") and settings.llm_mode == "replay":
        mode = "replay"
    return Recordings(folder, mode)


def active(settings: Settings) -> Recordings | None:
    """The recordings that apply to a call made here and now; None when it is simply made."""
    blocks = _blocks.get()
    found = blocks[-1] if blocks else _started[-1] if _started else None
    if found is None and settings.llm_mode != "live":
        place = settings.recordings, settings.llm_mode
        if place not in _of_settings:
            _of_settings[place] = Recordings(*place)
        found = _of_settings[place]
    return None if found is None or found.mode == "live" else found


async def through(recordings: Recordings | None, request: LLMRequest, call: Call) -> AsyncGenerator[StreamEvent]:
    """The events of one call of a model: recorded ones, or those of *call*, which are recorded when the answer ends well.

    Args:
        recordings: see `active`; None makes the call and nothing else.
        request: as it goes to the client: service, model, base URL and parameters filled in.
        call: makes the call.

    Raises:
        RecordingNotFoundError: mode `replay`, and the call is not recorded.
        RecordingError: a file cannot be read or written.
        LLMError: those of *call*.
    """
    asked = None
    if recordings is not None and recordings.mode != "live":
        asked = await asyncio.to_thread(recordings._ask, request)
        if recordings.mode != "record" and (events := await recordings._replay(asked)) is not None:
            async for event in events:
                yield event
            return
        if recordings.mode == "replay":
            raise await asyncio.to_thread(recordings._missing, asked)
        await asyncio.to_thread(recordings._open)
    tape: list[StreamEvent] = []
    stream = call(request)
    try:
        async for event in stream:
            if recordings is not None and asked is not None:
                if event.response is not None:
                    await asyncio.to_thread(recordings._keep, asked, tape, event.response)
                elif event.kind != "progress":  # a model being fetched: nothing of the answer
                    tape.append(event)
            yield event
    except LLMError as error:
        if recordings is not None and asked is not None and _is_answer(error, request):
            await asyncio.to_thread(recordings._keep, asked, tape, error)
        raise
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


_REFUSALS: Mapping[str, type[LLMError]] = {kind.code: kind for kind in (ProviderError, UnsupportedError)}


def _is_answer(error: LLMError, request: LLMRequest) -> bool:
    """Whether a failed call belongs to an answer that ends well all the same, so that it can be replayed: the structure did
    not fit, and the model is asked once more; or the server refused this way to structure, and the next one is taken."""
    if isinstance(error, StructureError):
        return True
    shaped = request.response_format is not None or any(t.name == ANSWER_TOOL for t in request.tools)
    return shaped and type(error) in _REFUSALS.values() and error.status in (None, 400, 404, 422, 501)


# Answers in words.

_PIECES = frozenset({"text", "reasoning", "tool_call_delta"})


def _event_words(events: Sequence[StreamEvent]) -> list[dict[str, Any]]:
    """Events as JSON; pieces of one text stand together, with their lengths in characters."""
    found: list[dict[str, Any]] = []
    for event in events:
        data = dict(event.data or {})
        last = found[-1] if found else {}
        if event.kind in _PIECES and last.get("kind") == event.kind and last.get("data", {}) == data:
            last["text"] += event.text
            last["pieces"].append(len(event.text))
            continue
        words = {"kind": event.kind} | ({"data": data} if data else {}) | ({"text": event.text} if event.text else {})
        found.append({**words, "text": event.text, "pieces": [len(event.text)]} if event.kind in _PIECES else words)
    for words in found:
        text = scrubbed(words.get("text", ""), secret_values())
        if "pieces" in words and (len(words["pieces"]) == 1 or len(text) != len(words["text"])):
            del words["pieces"]  # it came as one, or the pieces would show where a secret stood
        if text:
            words["text"] = _lined(text)
    return found


def _events(words: Sequence[Mapping[str, Any]]) -> Iterator[StreamEvent]:
    for word in words:
        text = _joined(word.get("text", ""))
        data = word.get("data")
        sizes = word.get("pieces", [])
        start = 0
        for size in sizes[:-1]:
            yield StreamEvent(word["kind"], text[start : start + size], data=data)
            start += size
        yield StreamEvent(
            word["kind"], text[start:], data=data
        )  # all that is left, should somebody have edited the text


def _said(events: Iterable[StreamEvent]) -> str:
    """The text of an answer."""
    text = ""
    for event in events:
        if event.kind == "stream_restarted":
            text = ""
        elif event.kind == "text":
            text += event.text
    return text


def _ended_words(ended: LLMResponse | LLMError, events: Sequence[StreamEvent]) -> dict[str, Any]:
    """How an answer ended, as JSON. The text is that of the events, and stands here only when it is another one."""
    if isinstance(ended, LLMError):
        facts: dict[str, Any] = {
            "code": ended.code,
            "message": ended.message,
            "hint": ended.hint,
            "provider": ended.provider,
            "model": ended.model,
            "status": ended.status,
        }
        if isinstance(ended, StructureError):
            facts |= {
                "problem": ended.problem,
                "text": _lined(ended.text),
                "repairable": ended.repairable or None,
                "usage": _usage_words(ended.usage) if isinstance(ended.usage, TokenUsage) else None,
                "cost_usd": ended.cost_usd,
            }
        return {"error": _given(facts)}
    value = ended.structured
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True, round_trip=True)
    response = _given(
        {
            "provider": ended.provider,
            "model": ended.model,
            "text": None if ended.text == _said(events) else _lined(ended.text),
            "tool_calls": [_call_words(c) for c in ended.tool_calls],
            "rung": ended.rung,
            "tool_outputs": list(ended.tool_outputs),
            "finish_reason": ended.finish_reason,
            "request_id": ended.request_id,
            "usage": _usage_words(ended.usage),
            "cost_usd": ended.cost_usd,
            "raw": ended.raw,
        }
    )
    if value is not None:
        response["structured"] = value  # an empty list is a value
    return {"response": response}


def _usage_words(usage: TokenUsage) -> dict[str, Any]:
    raw = {"raw": usage.raw} if usage.raw else {}
    return {k: v for k, v in usage.to_dict().items() if k != "total"} | raw


@dataclass(frozen=True)
class _Answer:
    """An answer out of a file."""

    events: tuple[StreamEvent, ...]
    response: LLMResponse | None
    error: LLMError | None
    saved_usd: float | None

    @classmethod
    def read(cls, words: Mapping[str, Any], file: Path, request: LLMRequest) -> _Answer:
        """Raises RecordingError: something is missing, or the structured value does not fit the class of today."""
        try:
            events = tuple(_events(words["events"]))
            if "error" in words:
                error = _error(words["error"])
                return cls(events, None, error, getattr(error, "saved_usd", None))
            said: Mapping[str, Any] = words["response"]
            structured = said.get("structured")
            if "structured" in said and request.response_format is not None:
                structured = validated(structured, request.response_format)[1]
            saved = said.get("cost_usd")
            response = LLMResponse(
                text=_joined(said["text"]) if "text" in said else _said(events),
                provider=said["provider"],
                model=said["model"],
                usage=TokenUsage(**said.get("usage", {})),
                structured=structured,
                tool_calls=tuple(ToolCall(**call) for call in said.get("tool_calls", ())),
                finish_reason=said.get("finish_reason"),
                request_id=said.get("request_id"),
                cost_usd=0.0,
                rung=said.get("rung"),
                tool_outputs=tuple(said.get("tool_outputs", ())),
                cached=True,
                saved_usd=saved,
                raw=said.get("raw"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise _unreadable(file, problem) from error
        return cls(events, response, None, saved)


def _error(words: Mapping[str, Any]) -> LLMError:
    facts = dict(words)
    code, message, hint = facts.pop("code"), facts.pop("message"), facts.pop("hint", None)
    if code != StructureError.code:
        return _REFUSALS[code](message, hint=hint, **facts)
    facts["text"] = _joined(facts.get("text", ""))
    facts["usage"] = TokenUsage(**facts.get("usage", {}))
    saved = facts.pop("cost_usd", None)
    return StructureError(message, hint=hint, **facts, cost_usd=0.0, charged=True, cached=True, saved_usd=saved)


# Files.


def _read(file: Path) -> tuple[Words, list[Any]]:
    """The request and the answers of a file.

    Raises:
        RecordingError: it is not a recording; the message says what is wrong and what to do.
    """
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from error
    except ValueError as error:  # also bytes that are not UTF-8
        raise _unreadable(file, f"it is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("recording") != VERSION:
        raise _unreadable(file, f'it does not say "recording": {VERSION}, the format of this version')
    request, answers = document.get("request"), document.get("answers")
    if not isinstance(request, dict) or not isinstance(request.get("messages", []), list):
        raise _unreadable(file, "it has no request")
    if not isinstance(answers, list) or not answers or not all(isinstance(a, dict) for a in answers):
        raise _unreadable(file, "it has no answers")
    return _joined_request(request), answers


def _unreadable(file: Path, why: str) -> RecordingError:
    return RecordingError(
        f"The recording {file} cannot be used: {why}.",
        hint="Restore it from version control, or delete it and record it again (DIPEO_LLM_MODE=record).",
        path=file,
    )


def _lined(text: str) -> str | list[str]:
    """A text of several lines as a list of them: readable, and with small differences."""
    lines = text.split("\n")
    return lines if len(lines) > 1 else text


def _joined(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else "\n".join(text)


def _lined_request(words: Words) -> Words:
    return _messages_mapped(words, _lined)


def _joined_request(words: Words) -> Words:
    return _messages_mapped(words, _joined)


def _messages_mapped(words: Words, how: Callable[[Any], Any]) -> Words:
    messages = [{k: how(v) if k == "content" else v for k, v in m.items()} for m in words.get("messages", ())]
    return {k: messages if k == "messages" else v for k, v in words.items()}


_NUMBERS = re.compile(r"\[\n\s*(\d+(?:,\n\s*\d+)*)\n\s*\]")


def _pretty(document: Any) -> str:
    """JSON for people: indented, in the order given, lists of numbers on one line."""
    text = json.dumps(document, ensure_ascii=False, indent=2)
    return _NUMBERS.sub(lambda found: f"[{', '.join(re.findall(r'[0-9]+', found[1]))}]", text) + "\n"


def _slug(words: Words) -> str:
    """Up to 48 characters for a file's name, out of the last thing the user said."""
    said = [m.get("content", "") for m in words.get("messages", ()) if m.get("role") == "user"]
    for text in (said[-1] if said else "", words.get("model", ""), words["service"]):
        ascii_text = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").decode().lower()
        parts = re.findall(r"[a-z0-9]+", ascii_text)
        slug = ""
        for part in parts:
            if len(slug) + len(part) >= 48:
                break
            slug += f"-{part}" if slug else part
        if slug := slug or "".join(parts)[:48]:
            return slug
    return "call"


# Differences.


def _nearest(words: Words, recorded: Mapping[Path, Words]) -> Path | None:
    """The file of the most similar request."""
    if not recorded:
        return None
    asked = _flat(words)
    matchers = {
        file: difflib.SequenceMatcher(None, _flat(other), asked, autojunk=False) for file, other in recorded.items()
    }
    likely = sorted(matchers, key=lambda file: matchers[file].quick_ratio(), reverse=True)[:5]
    return max(likely, key=lambda file: matchers[file].ratio())


def _flat(words: Words) -> list[str]:
    """The words of a request one by one, what was said last first, as that tells calls apart."""
    said = [m.get("content", "") for m in reversed(words.get("messages", ()))]
    rest = {k: v for k, v in words.items() if k != "messages"}
    return [*" ".join(said).split()[:1500], *json.dumps(rest).split()[:500]]


def _difference(old: Words, asked: _Asked, file: Path) -> str:
    """What differs, in words and as a difference of lines."""
    new = asked.words
    fields = [k for k in dict.fromkeys([*old, *new]) if old.get(k) != new.get(k)]
    if not fields:
        name = f"{_slug(new)}-{asked.key[:HEX]}.json"
        return f"which asks the same, but is not named after it (edited by hand?). Rename it to {name}."
    shown: list[str] = []
    for name in fields:
        before, after = old.get(name), new.get(name)
        if name == "messages":
            shown += _message_difference(before or [], after or [])
        elif isinstance(before, (dict, list)) or isinstance(after, (dict, list)):
            shown += [f"{name}:", *_lines_difference(_pretty(before or {}), _pretty(after or {}))]
        else:
            shown.append(f"{name}: {_shown(before)} is recorded, {_shown(after)} is asked")
    if len(shown) > 40:
        shown = [*shown[:40], "…"]
    return "\n".join([f"which differs in {', '.join(fields)}:", *shown, ""])


def _message_difference(old: Sequence[Words], new: Sequence[Words]) -> list[str]:
    shown: list[str] = []
    if len(old) != len(new):
        shown.append(f"messages: {len(old)} are recorded, {len(new)} are asked")
    for number, (before, after) in enumerate(zip(old, new, strict=False), 1):
        if before != after:
            shown.append(f"message {number} of {len(new)} ({after.get('role')}):")
            shown += _lines_difference(_as_text(before), _as_text(after))
            break
    else:
        more, sign = (new[len(old) :], "+") if len(new) > len(old) else (old[len(new) :], "-")
        shown += [f"{sign} {m.get('role')}: {_shown(m.get('content', ''))}" for m in more[:3]]
    return shown


def _as_text(message: Words) -> str:
    """A message as lines: what was said, then the rest of it."""
    rest = {k: v for k, v in message.items() if k != "content"}
    return "\n".join(
        [message.get("content", ""), *(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in rest.items())]
    )


def _lines_difference(old: str, new: str) -> list[str]:
    before, after = old.split("\n"), new.split("\n")
    lines = list(difflib.unified_diff(before, after, "recorded", "asked", n=1, lineterm=""))
    same = len(os.path.commonprefix([old, new]).rpartition("\n")[2])
    cut = max(0, same - 40)  # of long lines, what stands around the first difference
    return [
        line if len(line) <= 160 else f"{line[0]}{'…' if cut else ''}{line[1 + cut : 1 + cut + 140]}…" for line in lines
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= 80 else text[:79] + "…") if isinstance(value, str) else text
