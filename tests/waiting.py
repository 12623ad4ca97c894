"""Waiting for what happens elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(true: Callable[[], bool], *, seconds: float = 40) -> None:
    """Wait until something is so; the limit only ends a test that would hang."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.002)
