"""Claude Code as a model, through the Claude Agent SDK (the extra `claude-code`): one program per session, kept warm.

A session is a process of Claude Code with a conversation of its own. Starting one takes seconds, so sessions are pooled: the
one that already holds the beginning of a conversation goes on with it; a spare one, started ahead, takes the next new
conversation; one whose conversation goes two ways at once is forked. No session ever sees a conversation that is not its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.root import private_root
from dipeo_nb.config import OWN_HOSTS, claude_code_environment
from dipeo_nb.domain.chat import BillItem, ChatMessage, LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.domain.request_options import Reasoning, merged
from dipeo_nb.errors import (
    LLMConnectionError,
    LLMError,
    MissingDependencyError,
    ProviderError,
    UnsupportedError,
    ValidationError,
)
from dipeo_nb.llm.core.client import NO_KEY, UnifiedClient
from dipeo_nb.llm.core.errors import SAID_LIMIT, Caller, reading, said_in_stream, status_error
from dipeo_nb.llm.options import check_options, nearest_effort
from dipeo_nb.llm.stream import TextPieces, broken_off, words
from dipeo_nb.llm.structured import is_object, made, name_of, parsed, schema_of
from dipeo_nb.llm.usage import merged_counts, of_anthropic, record

LIMITED = (ExecutionPhase.MEMORY_SELECTION, ExecutionPhase.DECISION_EVALUATION)
"""Phases that limit the answer themselves."""
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
ERRORS = {
    "authentication_failed": "authentication_error",
    "oauth_org_not_allowed": "permission_error",
    "billing_error": "billing_error",
    "rate_limit": "rate_limit_error",
    "overloaded": "overloaded_error",
    "server_error": "api_error",
}
"""What the SDK calls an error → what Anthropic's API calls it."""

Turns = tuple[tuple[str, str], ...]
"""A conversation: what was asked and answered, in order."""


class UnifiedClaudeCodeClient(UnifiedClient):
    """`LLMClient` over Claude Code. Without ANTHROPIC_API_KEY the user's own login of Claude Code is used.

    By default it has no tools, reads no settings and no files, and works in a folder of its own below `.dipeo`.
    """

    provider = "claude-code"
    key_variable = "ANTHROPIC_API_KEY"
    key_optional = True
    base_url_variable = "ANTHROPIC_BASE_URL"
    base_url_setting = "anthropic_base_url"
    hosts = OWN_HOSTS["anthropic"]
    added_paths = ("/messages", "/v1")
    own_login = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pool = _Pool()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        await asyncio.to_thread(_sdk)  # its import takes a second
        settings = self._session_settings(request)
        history, prompt = turns_of(request.messages)
        yield StreamEvent("start", data={"notice": notice} if (notice := self._notice(request)) else None)
        caller = self.caller(request, self.config.api_key or NO_KEY)
        answer = _Answer(request, caller)
        with reading(caller, lambda error: _known(error, caller)) as progress:
            async with self._pool.session(settings, history) as session:
                if not session.ready:
                    yield StreamEvent("progress", "Starting Claude Code")
                try:
                    async with contextlib.aclosing(session.ask(history, prompt)) as messages:
                        async for message in messages:
                            for event in answer.take(message):
                                yield event
                            progress.begun = True
                finally:
                    if (usage := answer.usage).total is not None:
                        request.note(usage)
                response = await made(lambda: answer.finished(session), request)
                session.turns = (*history, (prompt, response.text))
        yield StreamEvent("usage", data=response.usage.to_dict())
        yield StreamEvent("end", response=response)

    async def prepare(self) -> None:
        await asyncio.to_thread(_sdk)  # its import takes up to a second

    async def cleanup(self) -> None:
        await self._pool.close()

    _told = False

    def _notice(self, request: LLMRequest) -> str | None:
        """Claude Code takes neither of these; said once, and not of limits that a phase has set."""
        left_out = [n for n in ("temperature", "max_tokens") if getattr(request, n) is not None]
        if not left_out or self._told or request.phase in LIMITED:
            return None
        self._told = True
        return f"{self.provider} takes no {' and no '.join(left_out)}; left out."

    def _session_settings(self, request: LLMRequest) -> _SessionSettings:
        """What a session is started with.

        Raises:
            UnsupportedError: it does not take an option, or has no such tool or structure.
            ValidationError: `extra` is no field of the program's options, or one that is set here.
        """
        check_options(request)
        tools: list[str] = []
        for tool in request.tools:
            if tool.type not in ("web_search", "web_search_preview"):
                raise UnsupportedError(
                    f"{self.provider} cannot call '{tool.name or tool.type}': it runs its tools itself and hands no calls out.",
                    hint="It has web_search. For functions of your own use anthropic:MODEL.",
                    provider=self.provider,
                    model=request.model,
                )
            tools.append("WebSearch")
        shape = None
        if self.rung(request) is not None:
            schema = schema_of(request.response_format)
            if not is_object(schema):
                raise UnsupportedError(
                    f"{self.provider} answers in JSON objects; '{name_of(request.response_format)}' is none.",
                    hint="Put it into a field of an object.",
                    provider=self.provider,
                    model=request.model,
                )
            shape = json.dumps(schema, sort_keys=True)
        secret = self.given_key()
        environment = claude_code_environment(
            key=secret.get_secret_value() if secret and secret != NO_KEY else None,
            base_url=self.base_url(),
            pass_env=self.settings.passed_variables,
        )
        return _SessionSettings(
            "\n\n".join(m.content for m in request.messages if m.role == "system" and m.content),
            request.model or None,
            tuple(tools),
            shape,
            self.settings.base_dir / ".dipeo" / "claude-code",
            tuple(sorted(environment.items())),
            json.dumps(_program_options(merged(self.config.extra_params, request.extra), request.reasoning), sort_keys=True),
        )


class UnifiedClaudeCodeCustomClient(UnifiedClaudeCodeClient):
    """The same with a system prompt of one's own: where there is one, phases add none (see `llm.phases`)."""

    provider = "claude-code-custom"


def _sdk() -> Any:
    try:
        import claude_agent_sdk
    except ImportError as error:
        raise MissingDependencyError.for_extra("claude-agent-sdk", extra="claude-code") from error
    return claude_agent_sdk


_OWN_OPTIONS = frozenset({
    "system_prompt", "verbatim_prompts", "max_buffer_size", "model", "tools", "allowed_tools", "permission_mode", "setting_sources",
    "strict_mcp_config", "include_partial_messages", "output_format", "cwd", "env", "resume", "fork_session",
})  # fmt: skip
"""Options of the program that a session is started with."""


def _program_options(extra: Mapping[str, Any], reasoning: Reasoning | None) -> dict[str, Any]:
    """Further options of the program, how much it thinks among them.

    Raises:
        ValidationError: there is no such option, or it is one of `_OWN_OPTIONS`.
    """
    known = {field.name for field in dataclasses.fields(_sdk().ClaudeAgentOptions)}
    for name in extra:
        if name in _OWN_OPTIONS or name not in known:
            why = "is set by this package" if name in _OWN_OPTIONS else "is no option of Claude Code"
            raise ValidationError(f"extra= cannot hold '{name}': it {why}.", hint="It takes fields of ClaudeAgentOptions, such as betas.")
    thinking: dict[str, Any] = {}
    if reasoning == "none":
        thinking = {"thinking": {"type": "disabled"}}
    elif reasoning is not None:
        thinking = {"effort": nearest_effort(reasoning, ("low", "medium", "high", "xhigh", "max"))}
    return {**thinking, **extra}


def turns_of(messages: Sequence[ChatMessage]) -> tuple[Turns, str]:
    """(what was asked and answered before, what is asked now) of the messages but the system's."""
    turns: list[tuple[str, str]] = []
    asked: list[str] = []
    for message in messages:
        if message.role == "assistant":
            turns.append(("\n\n".join(asked), message.content))
            asked = []
        elif message.role != "system":
            asked.append(message.content)
    return tuple(turns), "\n\n".join(asked) or "Continue."


def told(history: Turns, prompt: str) -> str:
    """The first prompt of a session that has not heard the conversation so far."""
    if not history:
        return prompt
    lines = [f"[{who}]: {text}" for asked, said in history for who, text in (("user", asked), ("you", said)) if text]
    return "The conversation so far:\n\n" + "\n\n".join(lines) + f"\n\nNow answer this message:\n\n{prompt}"


# Sessions.


class _SessionSettings(NamedTuple):
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
        return f"_SessionSettings(model={self.model!r}, tools={self.tools!r})"

    def options(self, fork: str | None) -> Any:
        """What the program is started with. Raises StorageError when its folder, or the file of a long prompt, cannot be written."""
        try:
            private_root(self.folder, self.folder.parents[1]).mkdir()
            system_prompt = self._system_prompt()
        except OSError as error:
            raise failed("keep the system prompt in", self.folder, error) from error
        return _sdk().ClaudeAgentOptions(
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


class _Session:
    """One process of Claude Code and the one task that owns it: its cancel scopes must not cross tasks."""

    def __init__(self, settings: _SessionSettings, fork: _Session | None = None) -> None:
        self.settings = settings
        self.turns: Turns = fork.turns if fork else ()
        """What it has heard and said; only what was asked and answered wholly."""
        self.session_id: str | None = None
        self.spent_usd = 0.0
        """What its turns cost so far; the SDK reports the sum."""
        self.busy = False
        self.used = 0.0
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
        text = prompt if self.turns == history else told(history, prompt)
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
            async with _sdk().ClaudeSDKClient(self.settings.options(self._fork)) as client:
                self.ready = True
                try:
                    while (turn := await self._asked.get()) is not None:
                        text, box = turn
                        await client.query(text)
                        message: Any = None
                        async for message in client.receive_response():
                            box.put_nowait(message)
                        box.put_nowait(None)
                        if not isinstance(message, _sdk().ResultMessage):
                            return  # the program ended within the turn
                finally:
                    self._closing = True
        except Exception as error:  # noqa: BLE001 - raised to whoever asks
            self._failure = error


class _Pool:
    """The sessions of one client, `SESSIONS` at most."""

    def __init__(self) -> None:
        self._sessions: list[_Session] = []
        self._ending: set[asyncio.Task[None]] = set()

    @cached_property
    def _turns(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(SESSIONS)

    @cached_property
    def _choosing(self) -> asyncio.Lock:
        return asyncio.Lock()

    @contextlib.asynccontextmanager
    async def session(self, settings: _SessionSettings, history: Turns) -> AsyncIterator[_Session]:
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

    async def _found(self, settings: _SessionSettings, history: Turns) -> _Session:
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
        session = _Session(settings, origin)
        self._sessions.append(session)
        return session

    def _prepare_spare(self, settings: _SessionSettings) -> None:
        """Start a session ahead for the next new conversation of this kind, if there is room."""
        if any(s.settings == settings and not s.turns and not s.busy and s.usable for s in self._sessions):
            return
        if len(self._sessions) + len(self._ending) < SESSIONS:
            self._sessions.append(spare := _Session(settings))
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

    def _end(self, session: _Session) -> None:
        self._sessions.remove(session)
        task = asyncio.create_task(session.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


# The answer.


class _Answer:
    """A turn while it comes."""

    def __init__(self, request: LLMRequest, caller: Caller) -> None:
        self._request = request
        self._caller = caller
        self._said, self._thoughts = TextPieces(), TextPieces()
        self._model = request.model
        self._error: str | None = None
        self._result: Any = None
        self._counts: list[dict[str, Any]] = []
        """What the events said of tokens, for each message of the turn; the result has the sum."""

    def take(self, message: Any) -> list[StreamEvent]:
        """What a message of the SDK means for the reader."""
        sdk = _sdk()
        if isinstance(message, sdk.StreamEvent):
            delta = record(message.event.get("delta"))
            if message.event.get("type") == "message_start":
                self._counts.append(record(record(message.event.get("message")).get("usage")))
            elif message.event.get("type") == "message_delta" and self._counts:
                self._counts[-1] = merged_counts(self._counts[-1], record(message.event.get("usage")))
            if message.event.get("type") == "content_block_delta" and message.parent_tool_use_id is None:
                if delta.get("type") == "text_delta":
                    return [StreamEvent("text", self._said.add(delta.get("text")))]
                if delta.get("type") == "thinking_delta":
                    return [StreamEvent("reasoning", self._thoughts.add(delta.get("thinking")))]
        elif isinstance(message, sdk.AssistantMessage):
            self._model = words(message.model) or self._model
            self._error = message.error or self._error
        elif isinstance(message, sdk.ResultMessage):
            self._result = message
        return []

    @property
    def usage(self) -> TokenUsage:
        """What the turn took so far."""
        return sum((of_anthropic(counts) for counts in self._counts if counts), TokenUsage())

    def finished(self, session: _Session) -> LLMResponse:
        """The response.

        Raises:
            LLMError: the turn failed, or ended without a result.
        """
        result = self._result
        if result is None:
            raise broken_off(self._request)
        session.session_id = words(result.session_id) or None
        said = str(result.result or "; ".join(map(str, result.errors or ())) or result.subtype)[:SAID_LIMIT]
        cost, usage = None, of_anthropic(record(result.usage))
        if result.total_cost_usd is not None:
            cost, session.spent_usd = max(0.0, result.total_cost_usd - session.spent_usd), result.total_cost_usd
            usage = replace(usage, bill=(BillItem(usd=cost),))
        if result.is_error or self._error:
            error = self._failure(result, said)
            error.usage = usage if usage.total or cost else None
            raise error
        text = words(result.result) or self._said.text
        structured = rung = None
        if self._request.response_format is not None:
            text = (
                text if result.structured_output is None else json.dumps(result.structured_output, ensure_ascii=False)
            )
            structured = parsed(
                text,
                self._request.response_format,
                provider=self._caller.provider,
                model=self._model,
                usage=usage,
                cut=result.stop_reason == "max_tokens",
            )
            rung = "native"
        finish = "length" if result.stop_reason == "max_tokens" else "stop"
        return LLMResponse(
            text, self._caller.provider, self._model or "claude-code", usage, structured,
            finish_reason=finish, request_id=result.session_id, cost_usd=cost, rung=rung,
        )  # fmt: skip

    def _failure(self, result: Any, said: str) -> LLMError:
        if result.api_error_status:
            return status_error(self._caller, result.api_error_status, said)
        if self._error in ERRORS:
            return said_in_stream(self._caller, ERRORS[self._error], said)
        return ProviderError(
            f"{self._caller.provider}: {self._caller.harmless(said)}", hint="Try again.", **self._caller.facts
        )


def _known(error: Any, caller: Caller) -> LLMError | None:
    """The SDK's errors as ours."""
    sdk = _sdk()
    if isinstance(error, sdk.CLINotFoundError):
        return LLMConnectionError(
            "The program of Claude Code is not there.",
            hint='Run: pip install "dipeo-nb[claude-code]", or install Claude Code.',
            **caller.facts,
        )
    if isinstance(error, sdk.ClaudeSDKError) or type(error) is Exception:  # so the SDK says what its reader met
        said = next(iter(caller.harmless(str(error)).strip()[:SAID_LIMIT].splitlines()), "no reason given")
        return LLMConnectionError(f"Claude Code ended: {said}", hint="Try again.", **caller.facts)
    return None
