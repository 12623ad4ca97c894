"""Record, replay, cache: the calls of models on a folder of small files that can be read and kept in version control.

    with dp.recording("recordings"):                 # replays what is there, records what is not
        dp.chat("Tabs or spaces?")

A recording belongs to a *request*: `content_key` says which requests are the same. Its file holds the answers in order: the
n-th time the request is made within one `with` it gets the n-th answer, and the last one from then on.

| mode | recorded call | unrecorded call |
|---|---|---|
| `live` | called | called |
| `record` | called, written again | called, written |
| `replay` | replayed | `RecordingNotFoundError`, which names the difference to the nearest recording |
| `auto` | replayed, also within the same `with`: a cache | called, written |

Which recordings apply to a call is decided where the call is made: the innermost `with dp.recording(…)` around it, else the
last one that was `start`ed, else what DIPEO_LLM_MODE says. A context variable carries it to the library's loop, as
`run_coroutine_threadsafe` copies the context of its caller; so neither threads nor tasks disturb each other, and a run keeps
the recordings it was started with. Threads of your own begin outside every `with`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from dipeo_nb.common.aio import closing_iterator
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.paths import from_home
from dipeo_nb.common.root import Root, private_root
from dipeo_nb.config import Settings, get_settings, secret_values
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent
from dipeo_nb.errors import (
    ConfigurationError,
    LLMError,
    RecordingError,
    RecordingNotFoundError,
    StorageError,
    StructureError,
)
from dipeo_nb.llm.cassette import (
    HEX,
    REFUSALS,
    RecordedAnswer,
    Words,
    answer_of,
    answer_words,
    content_key,
    difference,
    in_words,
    key_of,
    name_of,
    nearest,
    read,
    unreadable,
    written,
)
from dipeo_nb.llm.output_modes import ANSWER_TOOL

__all__ = ["Mode", "Recordings", "active", "content_key", "recording", "through"]

Mode = Literal["live", "record", "replay", "auto"]
MODES: tuple[Mode, ...] = get_args(Mode)
Call = Callable[[LLMRequest], AsyncIterator[StreamEvent]]
"""What makes a call and streams its answer."""


@dataclass(frozen=True)
class _Asked:
    """One call: what is asked, and how often it was asked before."""

    request: LLMRequest
    words: Words
    key: str
    number: int


class Recordings:
    """A folder of recordings in use, made with `dp.recording`; its repr says what was replayed, recorded and saved.

    Args:
        path: the folder, or its `Root`; it is made when the first answer is written.
        mode: see the module.

    Raises:
        ConfigurationError: there is no such mode, or the path is a file.
    """

    def __init__(self, path: str | os.PathLike[str] | Root, mode: Mode = "auto") -> None:
        if mode not in MODES:
            raise ConfigurationError(f"There is no mode '{mode}' for recordings.", hint=f"Modes: {', '.join(MODES)}.")
        self._root = path if isinstance(path, Root) else Root(path, links=False, private=True)
        self.path: Path = self._root.path
        self.mode: Mode = mode
        if self.path.exists() and not self.path.is_dir():
            raise ConfigurationError(f"{self.path} is a file; recordings need a folder.", hint="Name a folder.")
        self.replayed: int = 0
        """Calls that were answered from a file."""
        self.recorded: int = 0
        """Answers that were written."""
        self.saved_usd: float = 0.0
        """What the replayed answers would have cost, in US dollars, as far as their prices are known."""
        self._counting = threading.Lock()
        self._writing = threading.Lock()
        self._asked: dict[str, int] = {}
        self._kept: dict[str, dict[int, Any]] = {}
        self._uses = 0
        self._hidden: set[str] = set()

    # Use: within a block, or from one cell to another.

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
        with self._counting:
            self._uses += 1
            if self._uses == 1:  # a new beginning: the first call gets the first answer again
                self._asked.clear()
                self._kept.clear()

    def _end(self) -> None:
        with self._counting:
            self._uses -= 1

    def hide(self, *texts: str) -> Recordings:
        """Keep further texts out of the files, besides known keys and what looks like one: `[hidden]` stands there instead."""
        self._hidden |= {text for text in texts if text.strip()}
        return self

    @property
    def root(self) -> Root:
        """The folder, as it is read and written."""
        return self._root

    def count(self, key: str) -> int:
        """How often a request was made before in this use; counts it."""
        with self._counting:
            number = self._asked.get(key, 0)
            self._asked[key] = number + 1
        return number

    def __repr__(self) -> str:
        saved = f", {f'{self.saved_usd:.6f}'.rstrip('0').rstrip('.')} USD saved" if self.saved_usd else ""
        return f"recordings in {self.path} ({self.mode}): {self.replayed} replayed, {self.recorded} recorded{saved}"

    # Calls.

    async def replay(self, request: LLMRequest) -> AsyncGenerator[StreamEvent] | None:
        """The events of the recorded answer; None when the request is not recorded. Counts as a call.

        Raises:
            RecordingError: its file cannot be read.
        """
        return await self._replay(await asyncio.to_thread(self._ask, request))

    async def _replay(self, asked: _Asked) -> AsyncGenerator[StreamEvent] | None:
        answer = await asyncio.to_thread(self._answer, asked)
        return None if answer is None else self._played(answer)

    async def _played(self, answer: RecordedAnswer) -> AsyncGenerator[StreamEvent]:
        """A recorded answer as it streamed, but as fast as it is read."""
        with self._counting:
            self.replayed += 1
            self.saved_usd += answer.saved_usd or 0.0
        if not any(event.kind == "start" for event in answer.events):
            yield StreamEvent("start", data={"cached": True})
        for event in answer.events:
            await asyncio.sleep(0)  # others get their turn, and a Stop gets through
            yield replace(event, data={**(event.data or {}), "cached": True}) if event.kind == "start" else event
        if isinstance(answer.end, LLMError):
            raise answer.end
        yield StreamEvent("end", response=answer.end)

    def _secrets(self) -> set[str]:
        return secret_values() | self._hidden

    def _ask(self, request: LLMRequest) -> _Asked:
        words = in_words(request, self._secrets())
        key = key_of(words)
        return _Asked(request, words, key, self.count(key))

    def _answer(self, asked: _Asked) -> RecordedAnswer | None:
        for name in self._candidates(asked.key):
            words, answers = read(self._root, name)
            if key_of(words) != asked.key:
                continue
            if self.mode == "auto":  # a refusal is not an answer: the call is made again
                answers = [a for a in answers if "response" in a or a.get("error", {}).get("code") not in REFUSALS]
            if answers:
                return answer_of(answers[min(asked.number, len(answers) - 1)], self.path / name, asked.request)
        return None

    def _open(self) -> None:
        """See to it that the answer can be written, before it is paid for."""
        try:
            self._root.mkdir()
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "it is read-only")
        except (OSError, StorageError) as error:
            raise self._unwritable(error) from error

    def _keep(self, asked: _Asked, events: Sequence[StreamEvent], end: LLMResponse | LLMError) -> None:
        """Write an answer at its place among those of the request."""
        answer = answer_words(events, end, self._secrets())
        with self._writing:
            kept = self._kept.setdefault(asked.key, {})
            kept[asked.number] = answer
            try:
                self._root.write(self._file(asked), written(asked.words, [kept[n] for n in sorted(kept)]))
            except (OSError, StorageError) as error:
                del kept[asked.number]  # what did not fit does not keep the next answer out
                raise self._unwritable(error) from error
            self.recorded += 1

    def _file(self, asked: _Asked) -> str:
        """Where a request is written: in the file that has it (whatever stands before the key in its name), else a new one."""
        for name in self._candidates(asked.key):
            with contextlib.suppress(RecordingError):  # a file that cannot be read is written again
                if key_of(read(self._root, name)[0]) != asked.key:
                    continue
            return name
        name = name_of(asked.words)
        return name_of(asked.words, 2 * HEX) if self._root.exists(name) else name

    def _names(self) -> list[str]:
        """The files that may be recordings, in order."""
        try:
            return sorted(entry.name for entry in self._root.listdir() if entry.name.endswith(".json"))
        except FileNotFoundError:
            return []
        except (OSError, StorageError) as error:
            raise unreadable(self.path, _why(error)) from error

    def _candidates(self, key: str) -> list[str]:
        names = self._names()
        return [name for digits in (HEX, 2 * HEX) for name in names if name.endswith(f"-{key[:digits]}.json")]

    def _unwritable(self, error: OSError | StorageError) -> RecordingError:
        ours = error if isinstance(error, StorageError) else failed("write", self.path, error)
        cause = ours.facts.get("cause")
        hint = "Make the folder writable, or name another one (DIPEO_LLM_RECORDINGS, dp.recording(path))."
        return RecordingError(
            f"Recordings cannot be written to {self.path}: {_why(error)}.",
            hint=ours.hint if cause in ("disk_full", "refused") else hint,
            path=self.path,
            cause=cause,
        )

    def _missing(self, asked: _Asked) -> RecordingNotFoundError:
        """The error of a call that may not be made; it names the difference to the nearest recording."""
        recorded: dict[Path, Words] = {}
        broken: list[str] = []
        for name in self._names():
            try:
                recorded[self.path / name] = read(self._root, name)[0]
            except RecordingError:
                broken.append(name)
        near = nearest(asked.words, recorded)
        if near is None:
            reason = "There are no recordings in that folder."
        elif recorded[near] == asked.words:
            reason = f"{near.name} asks the same under another name: rename it to {name_of(asked.words)}."
        else:
            reason = f"The nearest is {near.name}; {difference(recorded[near], asked.words)}\n"
        if broken:
            reason = f"{reason.rstrip()}\nNot readable: {', '.join(broken)}.\n"
        request = asked.request
        return RecordingNotFoundError(
            f"This call of {request.service} ({request.model or 'default model'}) is not recorded in {self.path}. {reason}",
            hint="Record it with DIPEO_LLM_MODE=record or dp.recording(path, mode='record').",
            path=self.path,
            nearest=near,
            provider=request.service,
            model=request.model,
        )


def _why(error: OSError | StorageError) -> str:
    return error.message.removesuffix(".") if isinstance(error, StorageError) else error.strerror or str(error)


_blocks: ContextVar[tuple[Recordings, ...]] = ContextVar("dipeo_nb_recordings", default=())
"""The recordings of the `with` blocks around here, the innermost last."""
_started: tuple[Recordings, ...] = ()
"""The recordings in use in the whole process, the last started last."""
_of_settings: dict[tuple[Path, Mode], Recordings] = {}


def _without(those: tuple[Recordings, ...], one: Recordings) -> tuple[Recordings, ...]:
    """*those* without the last appearance of *one*."""
    last = max((i for i, other in enumerate(those) if other is one), default=len(those))
    return those[:last] + those[last + 1 :]


@checked_call
def recording(
    path: str | os.PathLike[str] | None = None, mode: Literal["live", "record", "replay", "auto"] = "auto"
) -> Recordings:
    """Record and replay the calls of models and providers: `with dp.recording("recordings"): …`, or `.start()` … `.stop()` for many cells.

    Everything called within (`dp.chat`, `dp.llm`, runs started there) uses the folder; of nested ones the inner one counts.
    `async with` works too. The environment may be stricter: with DIPEO_LLM_MODE=replay `auto` and `record` are `replay`, so
    that CI calls nothing but what says `live`; with DIPEO_LLM_MODE=record `auto` is `record`, which records everything again.

    Args:
        path: the folder, below base_dir when relative; None: that of DIPEO_LLM_RECORDINGS.
        mode: `auto` replays what is recorded, and calls and records the rest; `record` calls always; `replay` never;
            `live` does not record.

    Raises:
        ConfigurationError: there is no such mode, or the path is a file.
    """
    if path is not None and not isinstance(path, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{path!r:.80} is not a folder.", hint="Give its path.")
    settings = get_settings()
    folder = settings.recordings if path is None else settings.base_dir / from_home(path)
    if mode == "auto" and settings.llm_mode == "record":
        mode = "record"
    if mode in ("auto", "record") and settings.llm_mode == "replay":
        mode = "replay"
    return Recordings(private_root(folder, settings.base_dir), mode)


def active(settings: Settings) -> Recordings | None:
    """The recordings that apply to a call made here and now; None when it is simply made."""
    blocks = _blocks.get()
    found = blocks[-1] if blocks else _started[-1] if _started else None
    if found is None and settings.llm_mode != "live":
        place = settings.recordings, settings.llm_mode
        if place not in _of_settings:
            _of_settings[place] = Recordings(private_root(settings.recordings, settings.base_dir), settings.llm_mode)
        found = _of_settings[place]
    return None if found is None or found.mode == "live" else found.hide(*secret_values(settings))


def replaying(settings: Settings) -> bool:
    """Whether a call made here and now calls nothing: its answer is recorded, or it fails."""
    recordings = active(settings)
    return recordings is not None and recordings.mode == "replay"


async def through(
    recordings: Recordings | None,
    request: LLMRequest,
    call: Call,
    *,
    earlier: LLMRequest | None = None,
    whole: Callable[[LLMResponse], LLMResponse] = lambda response: response,
) -> AsyncGenerator[StreamEvent]:
    """The events of one call of a model: the recorded ones, or those of *call*, which are recorded if the answer ends well.

    Args:
        recordings: see `active`; None makes the call and nothing else.
        request: as it goes to the client: service, model, base URL and parameters filled in.
        call: makes the call.
        earlier: what the same call asked before the default model was another one; its recording counts, too.
        whole: the response as it is recorded, with what else it took.

    Raises:
        RecordingNotFoundError: mode `replay`, and the call is not recorded.
        RecordingError: a file cannot be read or written.
        LLMError: those of *call*.
    """
    if recordings is None or recordings.mode == "live":
        async with closing_iterator(call(request)) as events:
            async for event in events:
                yield event
        return
    asked = await asyncio.to_thread(recordings._ask, request)
    if recordings.mode != "record":
        events = await recordings._replay(asked)
        if events is None and earlier is not None:
            events = await recordings.replay(earlier)
        if events is not None:
            async with contextlib.aclosing(events):
                async for event in events:
                    yield event
            return
    if recordings.mode == "replay":
        raise await asyncio.to_thread(recordings._missing, asked)
    await asyncio.to_thread(recordings._open)
    tape: list[StreamEvent] = []
    try:
        async with closing_iterator(call(request)) as events:
            async for event in events:
                if event.response is not None:
                    await asyncio.to_thread(recordings._keep, asked, tape, whole(event.response))
                elif event.kind != "progress":  # a model being fetched, a turn being waited for: nothing of the answer
                    tape.append(event)
                yield event
    except LLMError as error:
        if _is_answer(error, request):
            await asyncio.to_thread(recordings._keep, asked, tape, error)
        raise


def _is_answer(error: LLMError, request: LLMRequest) -> bool:
    """Whether a failed call belongs to an answer that may end well all the same, and has to be replayed with it: the structure
    did not fit, and the model is asked once more; or the server refused this way to structure, and the next one is taken."""
    if isinstance(error, StructureError):
        return True
    shaped = request.response_format is not None or any(t.name == ANSWER_TOOL for t in request.tools)
    return shaped and type(error) in REFUSALS.values() and error.status in (None, 400, 404, 422, 501)
