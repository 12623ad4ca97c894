"""Clients over a provider's SDK, which is imported when it is needed and whose object is kept from call to call."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
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
