"""A provider's client by itself, on a scripted server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pydantic import SecretStr

from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.providers.openai import UnifiedOpenAIClient
from tests.support.wire_openai import (
    Reply,
    ScriptedServer,
    run,
)

T = TypeVar("T")
KEY = "sk-canary-0123456789abcdefghij"


def client(kind: Any, server: ScriptedServer, model: str = "m") -> Any:
    url = server.url if kind is UnifiedOpenAIClient else server.url.removesuffix("/v1")
    return kind(AdapterConfig(provider_type=kind.provider, base_url=url, api_key=SecretStr(KEY), model=model, max_retries=0))


def with_client(kind: Any, reply: Reply, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """What *work* makes of a client of a server that replies so."""

    async def go(server: ScriptedServer) -> T:
        made = client(kind, server)
        try:
            return await work(made)
        finally:
            await made.cleanup()

    with ScriptedServer(reply) as server:
        return run(go(server))
