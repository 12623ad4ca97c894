"""Claude Code as a model, through the Claude Agent SDK (the extra `claude-code`): one program per session, kept warm.

A session is a process of Claude Code with a conversation of its own. Starting one takes seconds, so sessions are pooled: the
one that already holds the beginning of a conversation continues it; a spare one, started ahead, takes the next new
conversation; one whose conversation goes two ways at once is forked. No session ever sees a conversation that is not its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from dipeo_nb.common.programs import find_program
from dipeo_nb.config import Settings, claude_code_environment
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, StreamEvent
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.domain.request_options import Reasoning, merged
from dipeo_nb.errors import UnsupportedError, ValidationError
from dipeo_nb.llm.core.client import NO_KEY, UnifiedClient
from dipeo_nb.llm.core.errors import reading
from dipeo_nb.llm.options import check_options, nearest_effort
from dipeo_nb.llm.providers.claude_code.answer import IncomingAnswer, known_error
from dipeo_nb.llm.providers.claude_code.sessions import Pool, SessionSettings, Turns, load_sdk
from dipeo_nb.llm.structured import is_object, made, name_of, schema_of

LIMITED = (ExecutionPhase.MEMORY_SELECTION, ExecutionPhase.DECISION_EVALUATION)
"""Phases that limit the answer themselves."""


class UnifiedClaudeCodeClient(UnifiedClient):
    """`LLMClient` over Claude Code. Without ANTHROPIC_API_KEY the user's own login of Claude Code is used.

    By default it has no tools, reads no settings and no files, and works in a folder of its own below `.dipeo`.
    """

    provider = "claude-code"
    added_paths: ClassVar[tuple[str, ...]] = ("/messages", "/v1")

    @classmethod
    def why_unavailable(cls, settings: Settings) -> str:
        return "" if find_program("claude") or _is_bundled(cls.sdk_module) else "install the program `claude`"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pool = Pool()

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        await asyncio.to_thread(load_sdk)  # its import takes a second
        settings = self._session_settings(request)
        history, prompt = turns_of(request.messages)
        yield self.started(request)
        context = self.error_context(request, self.config.api_key or NO_KEY)
        answer = IncomingAnswer(request, context)
        with reading(context, lambda error: known_error(error, context)) as progress:
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
        await asyncio.to_thread(load_sdk)  # its import takes up to a second

    async def cleanup(self) -> None:
        await self._pool.close()

    def notices(self, request: LLMRequest) -> list[str]:
        """Claude Code takes neither a temperature nor a limit of tokens; nothing is said of those that a phase has set."""
        if request.phase in LIMITED:
            return []
        limit = request.max_tokens
        return [
            *super().notices(request),
            *([f"{request.model or self.provider} takes no max_tokens; {limit} is left out."] if limit else []),
        ]

    def _session_settings(self, request: LLMRequest) -> SessionSettings:
        """What a session is started with.

        Raises:
            UnsupportedError: it does not take an option, or has no such tool or structure.
            ValidationError: `extra` is not a field of the program's options, or one that is set here.
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
        if self.output_mode(request) is not None:
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
        return SessionSettings(
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


_OWN_OPTIONS = frozenset({
    "system_prompt", "verbatim_prompts", "max_buffer_size", "model", "tools", "allowed_tools", "permission_mode", "setting_sources",
    "strict_mcp_config", "include_partial_messages", "output_format", "cwd", "env", "resume", "fork_session",
})  # fmt: skip
"""Options of the program that a session is started with."""


def _is_bundled(sdk_module: str) -> bool:
    """Whether the SDK brought the program along."""
    spec = importlib.util.find_spec(sdk_module)
    if spec is None or not spec.submodule_search_locations:
        return False
    return any((Path(folder) / "_bundled").is_dir() for folder in spec.submodule_search_locations)


def _program_options(extra: Mapping[str, Any], reasoning: Reasoning | None) -> dict[str, Any]:
    """Further options of the program, how much it thinks among them.

    Raises:
        ValidationError: there is no such option, or it is one of `_OWN_OPTIONS`.
    """
    known = {field.name for field in dataclasses.fields(load_sdk().ClaudeAgentOptions)}
    for name in extra:
        if name in _OWN_OPTIONS or name not in known:
            why = "is set by this package" if name in _OWN_OPTIONS else "is not an option of Claude Code"
            raise ValidationError(
                f"extra= cannot hold '{name}': it {why}.", hint="It takes fields of ClaudeAgentOptions, such as betas."
            )
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
