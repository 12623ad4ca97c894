"""Sessions of Claude Code: what one is started with, its process, and the pool that keeps them warm."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.root import private_root
from dipeo_nb.errors import LLMConnectionError, MissingDependencyError

SESSIONS = 4
"""Processes of Claude Code at most, for one key and server."""
IDLE_S = 300.0
"""Seconds after which a session that nobody uses is closed."""
ARGUMENT_LIMIT = 100_000
"""Bytes of a system prompt that is handed over as an argument; systems take 128 KiB at most."""
LINE_LIMIT = 64 * 1024 * 1024
"""Bytes of a message of the program, an answer with all its events among them."""
CLOSING_S = 10.0
"""Seconds that a session may take to end by itself."""

Turns = tuple[tuple[str, str], ...]
"""A conversation: what was asked and answered, in order."""


def load_sdk() -> Any:
    try:
        import claude_agent_sdk
    except ImportError as error:
        raise MissingDependencyError.for_extra("claude-agent-sdk", extra="claude-code") from error
    return claude_agent_sdk


def first_prompt(history: Turns, prompt: str) -> str:
    """The first prompt of a session that does not have the conversation so far."""
    if not history:
        return prompt
    lines = [f"[{who}]: {text}" for asked, said in history for who, text in (("user", asked), ("you", said)) if text]
    return "The conversation so far:\n\n" + "\n\n".join(lines) + f"\n\nNow answer this message:\n\n{prompt}"


class SessionSettings(NamedTuple):
    """What a session is started with; sessions that differ in it are never exchanged."""

    system: str
    model: str | None
    tools: tuple[str, ...]
    schema: str | None
    folder: Path
    environment: tuple[tuple[str, str], ...]
    extra: str
    """Further options of the program, in JSON."""

    def __repr__(self) -> str:  # the environment holds the key
        return f"SessionSettings(model={self.model!r}, tools={self.tools!r})"

    def options(self, fork: str | None) -> Any:
        """What the program is started with. Raises StorageError when its folder, or the file of a long prompt, cannot be written."""
        try:
            private_root(self.folder, self.folder.parents[1]).mkdir()
            system_prompt = self._system_prompt()
        except OSError as error:
            raise failed("keep the system prompt in", self.folder, error) from error
        return load_sdk().ClaudeAgentOptions(
            system_prompt=system_prompt,
            verbatim_prompts=True,  # else it reads the file of an `@path` and runs a `/command`, wherever a prompt has one
            max_buffer_size=LINE_LIMIT,
            model=self.model,
            tools=list(self.tools),
            allowed_tools=list(self.tools),
            permission_mode="dontAsk",
            setting_sources=[],
            strict_mcp_config=True,
            include_partial_messages=True,
            output_format=None if self.schema is None else {"type": "json_schema", "schema": json.loads(self.schema)},
            max_turns=1 if self.schema is None and not self.tools else None,
            cwd=self.folder,
            env=dict(self.environment),
            resume=fork,
            fork_session=fork is not None,
            **json.loads(self.extra),
        )

    def _system_prompt(self) -> Any:
        """The prompt itself, or the file that holds a long one."""
        data = self.system.encode("utf-8", "backslashreplace")
        if len(data) <= ARGUMENT_LIMIT:
            return self.system
        name = f"system-{sha256(data).hexdigest()[:32]}.txt"
        private_root(self.folder, self.folder.parents[1]).write(name, data)
        return {"type": "file", "path": str((self.folder / name).absolute())}


class Session:
    """One process of Claude Code and the one task that owns it: its cancel scopes must not cross tasks."""

    def __init__(self, settings: SessionSettings, fork: Session | None = None) -> None:
        self.settings = settings
        self.turns: Turns = fork.turns if fork else ()
        """Its conversation; only turns that were answered completely."""
        self.session_id: str | None = None
        self.spent_usd: float = 0.0
        """What its turns cost so far; the SDK reports the sum."""
        self.busy = False
        self.used: float = 0.0
        self.ready = False
        self._fork = fork.session_id if fork else None
        self._asked: asyncio.Queue[tuple[str, asyncio.Queue[Any]] | None] = asyncio.Queue()
        self._failure: Exception | None = None
        self._closing = False
        """Whether the SDK is ending the process."""
        self._left = False
        """Whether a turn was left before its end, which ends the session."""
        self._task = asyncio.create_task(self._live(), name="dipeo-claude-code")

    @property
    def alive(self) -> bool:
        return not self._task.done()

    @property
    def usable(self) -> bool:
        """Whether it may have another turn: its process neither ended nor is it about to."""
        return self.alive and not self._left and not self._closing

    async def ask(self, history: Turns, prompt: str) -> AsyncGenerator[Any]:
        """The SDK's messages of one turn. Leaving early ends the session: what it would remember is not known."""
        text = prompt if self.turns == history else first_prompt(history, prompt)
        box: asyncio.Queue[Any] = asyncio.Queue()
        self._asked.put_nowait((text, box))
        complete = False
        waiting: asyncio.Future[Any] | None = None
        try:
            while True:
                waiting = asyncio.ensure_future(box.get())
                await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    raise self._failure or LLMConnectionError("Claude Code ended.", hint="Try again.")
                message = waiting.result()
                if message is None:
                    complete = True
                    return
                yield message
        finally:
            if waiting is not None:
                waiting.cancel()
            if not complete:
                self._left = True
                if not self._closing:  # a cancellation within the SDK's closing would leave things open
                    self._task.cancel()

    async def close(self) -> None:
        """End the process."""
        self._asked.put_nowait(None)
        done, _ = await asyncio.wait({self._task}, timeout=CLOSING_S)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSING_S)

    async def _live(self) -> None:
        try:
            async with load_sdk().ClaudeSDKClient(self.settings.options(self._fork)) as client:
                self.ready: bool = True
                try:
                    while (turn := await self._asked.get()) is not None:
                        text, box = turn
                        await client.query(text)
                        message: Any = None
                        async for message in client.receive_response():
                            box.put_nowait(message)
                        box.put_nowait(None)
                        if not isinstance(message, load_sdk().ResultMessage):
                            return  # the program ended within the turn
                finally:
                    self._closing = True
        except Exception as error:  # noqa: BLE001 - raised by the next call
            self._failure = error


class Pool:
    """The sessions of one client, `SESSIONS` at most."""

    def __init__(self) -> None:
        self._sessions: list[Session] = []
        self._ending: set[asyncio.Task[None]] = set()

    @cached_property
    def _turns(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(SESSIONS)

    @cached_property
    def _choosing(self) -> asyncio.Lock:
        return asyncio.Lock()

    @contextlib.asynccontextmanager
    async def session(self, settings: SessionSettings, history: Turns) -> AsyncIterator[Session]:
        """A session for one more turn of a conversation."""
        async with self._turns:
            async with self._choosing:
                session = await self._found(settings, history)
                session.busy = True
            try:
                yield session
            finally:
                session.busy = False
                session.used = asyncio.get_running_loop().time()
                if session.usable and session.ready:
                    self._prepare_spare(settings)

    async def close(self) -> None:
        """End all processes. Safe to call twice."""
        sessions, self._sessions = self._sessions, []
        await asyncio.gather(*(s.close() for s in sessions), *self._ending)

    async def _found(self, settings: SessionSettings, history: Turns) -> Session:
        """The session that holds the conversation so far; else a spare one; else a fork or a new one."""
        self._sweep()
        alike = [s for s in self._sessions if s.settings == settings and s.usable]
        for session in alike:
            if not session.busy and session.turns == history:  # its own conversation, or a spare for a new one
                return session
        origin = next((s for s in alike if s.busy and history and s.turns == history and s.session_id), None)
        spare = next((s for s in alike if not s.busy and not s.turns), None)
        if spare is not None and origin is None:
            return spare
        await self._make_room()
        session = Session(settings, origin)
        self._sessions.append(session)
        return session

    def _prepare_spare(self, settings: SessionSettings) -> None:
        """Start a session ahead for the next new conversation of this kind, if there is room."""
        if any(s.settings == settings and not s.turns and not s.busy and s.usable for s in self._sessions):
            return
        if len(self._sessions) + len(self._ending) < SESSIONS:
            self._sessions.append(spare := Session(settings))
            spare.used = asyncio.get_running_loop().time()

    def _sweep(self) -> None:
        """Forget sessions that ended; end those that cannot be used any more, or were idle for long."""
        now = asyncio.get_running_loop().time()
        for session in list(self._sessions):
            if not session.alive:
                self._sessions.remove(session)
            elif not session.busy and (not session.usable or (session.used and now - session.used > IDLE_S)):
                self._end(session)

    async def _make_room(self) -> None:
        """Wait until there is room for one more process; the one unused for longest makes it."""
        while len(self._sessions) + len(self._ending) >= SESSIONS:
            idle = [s for s in self._sessions if not s.busy]
            if len(self._sessions) >= SESSIONS and idle:
                self._end(min(idle, key=lambda s: s.used))
            await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)

    def _end(self, session: Session) -> None:
        self._sessions.remove(session)
        task = asyncio.create_task(session.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
