"""Clients over a provider's SDK, which is imported when it is needed and whose object is kept from call to call."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from dipeo_nb.errors import MissingDependencyError
from dipeo_nb.llm.core.client import UnifiedClient


def load(module: str, package: str) -> Any:
    """The module of an SDK.

    Args:
        package: what pip calls it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"The package '{package}' is not installed.", hint=f"Run: pip install {package}"
        ) from error


def as_sent(body: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a request that has an `extra_body`."""
    return {**{name: value for name, value in body.items() if name != "extra_body"}, **body.get("extra_body", {})}


async def open_stream(client: Any, path: str, body: Mapping[str, Any], stream: type[Any]) -> Any:
    """The response to a request for a stream, which is not read yet (`events_of` does).

    The SDK's methods search each message for files to encode, and its streams make a checked object of every event, which together
    take longer than all else; the streams fail on legal input, too, and leave generators behind where they end early.

    Args:
        client: the SDK's asynchronous client.
        stream: the SDK's `AsyncStream`.
    """
    import httpx2  # the SDKs' own library

    return await client.post(
        path, cast_to=httpx2.Response, body={**as_sent(body), "stream": True}, stream=True, stream_cls=stream
    )


class SDKClient(UnifiedClient):
    """A client that makes the SDK's object at its first call, and closes it."""

    _sdk: Any = None

    def _load_sdk(self) -> Any:
        """Import the SDK. Raises MissingDependencyError."""
        raise NotImplementedError

    async def prepare(self) -> None:
        if self._sdk is None:
            await asyncio.to_thread(self._load_sdk)  # its import takes up to a second

    async def made(self, make: Callable[..., Any], *arguments: Any) -> Any:
        """The SDK's object, made by *make* once the SDK is imported, unless another call has made it meanwhile."""
        await self.prepare()
        if self._sdk is None:
            self._sdk = make(*arguments)
        return self._sdk

    async def cleanup(self) -> None:
        client, self._sdk = self._sdk, None
        if client is not None:
            await client.close()
