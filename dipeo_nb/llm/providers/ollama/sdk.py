"""The official SDK: its client, and its errors as ours."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx

from dipeo_nb.errors import AuthError, ContextLengthError, LLMError, UnsupportedError
from dipeo_nb.llm.core import sdk_client
from dipeo_nb.llm.core.errors import SAID_LIMIT, ErrorContext, said_by, said_in_stream, status_error

DEFAULT_PORT = 11434
CONNECT_S = 0.3
"""Seconds that looking for a server of this machine may take."""
NO_OBJECT = "dipeo_no_object"
"""Key of the arguments of a call that are not an object."""


def load_sdk() -> Any:
    return sdk_client.load("ollama", "ollama")


@cache
def client_class() -> Any:
    sdk = load_sdk()

    class Client(sdk.AsyncClient):
        """The SDK's client, with a chat that sends tools as they are.

        `AsyncClient.chat` (0.6) keeps of a tool's parameters only their type, items, description and enum: nested objects,
        choices and limits are lost. It has no `truncate` either.
        """

        def __init__(self, connections: Callable[..., Any], address: str, **options: Any) -> None:
            super(sdk.AsyncClient, self).__init__(connections, address, **options)

        async def chat_as_it_is(self, body: Mapping[str, Any]) -> AsyncIterator[Any]:
            return self._lines(body)

        async def _lines(self, body: Mapping[str, Any]) -> AsyncGenerator[Any]:
            # As `AsyncClient._request` does, whose errors within a stream can only be texts.
            async with self._client.stream("POST", "/api/chat", json=body) as response:
                try:
                    response.raise_for_status()
                except httpx.HTTPStatusError as error:
                    await response.aread()
                    raise sdk.ResponseError(response.text, response.status_code) from error
                async for line in response.aiter_lines():
                    part = json.loads(line)
                    if error := part.get("error"):
                        raise sdk.ResponseError(json.dumps({"error": error}))
                    yield _line(**part)

    def _line(**line: Any) -> Any:
        """A line of an answer. Arguments of a call that are not an object, which the SDK's class refuses, are put into one."""
        message = line.get("message")
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and not isinstance(function.get("arguments"), dict):
                function["arguments"] = {NO_OBJECT: function.get("arguments")}
        return sdk.ChatResponse(**line)

    return Client


def authorized(key: str) -> Callable[[httpx.Request], httpx.Request]:
    def auth(request: httpx.Request) -> httpx.Request:
        request.headers.pop("authorization", None)
        if key:
            request.headers["authorization"] = f"Bearer {key}"
        return request

    return auth


# Failures.


def refused(error: Any, context: ErrorContext) -> LLMError:
    said = (said_by({"error": error.error})[1] or str(error.error))[:SAID_LIMIT]
    if error.status_code < 0:  # said within the stream: the request was taken, then the server failed
        return said_in_stream(context, "server_error", said)
    low = said.lower()
    if error.status_code == 401:
        return AuthError(
            f"ollama: {context.harmless(said)}.",
            hint="Models at ollama.com want an account: run `ollama signin`, or use a model of your own server.",
            status=401,
            **context.facts,
        )
    if error.status_code == 400 and "context" in low and "exceed" in low:
        return ContextLengthError(
            f"ollama: {context.harmless(said)}",
            hint="Remember less (at_most), or give models more context: OLLAMA_CONTEXT_LENGTH=16384 ollama serve, "
            "or extra={'options': {'num_ctx': 16384}} (in a diagram: `extra` of the person).",
            status=400,
            **context.facts,
        )
    if error.status_code == 400 and "does not support" in low:
        return UnsupportedError(
            f"ollama: {context.harmless(said)}",
            hint=f"Use a model that does; `ollama show {context.model}` lists what this one can.",
            status=400,
            **context.facts,
        )
    # The SDK's error has no headers; the one of the HTTP library that it was made of has.
    cause = error.__context__
    headers = cause.response.headers if isinstance(cause, httpx.HTTPStatusError) else {}
    return status_error(context, error.status_code, said, headers=headers)


def may_listen(address: str) -> bool:
    """Whether a server listens at an address of this machine; servers of other machines are not looked for and may."""
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname or "127.0.0.1", parts.port or DEFAULT_PORT
    except ValueError:
        return False
    if host == "0.0.0.0":
        host = "127.0.0.1"
    if host not in ("localhost", "127.0.0.1", "::1"):
        return True
    try:
        with socket.create_connection((host, port), CONNECT_S):
            return True
    except OSError:
        return False
