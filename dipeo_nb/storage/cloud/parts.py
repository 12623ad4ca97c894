"""Data in parts for uploads."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from dipeo_nb.storage.blobs import beyond_limit

PART = 8 << 20
"""Bytes of one part of a multipart upload; smaller blobs are sent in one request."""


async def counted(source: AsyncIterable[bytes], key: str, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in source:
        size += len(piece)
        if size > limit:
            raise beyond_limit(key, limit)
        yield piece


async def chained(head: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    while head:
        piece = head.pop(0)
        for start in range(0, len(piece), PART):
            yield piece[start : start + PART]
    async for piece in rest:
        yield piece


async def parts_of(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Regroup chunks of any size into parts of `PART` bytes; the last one may be smaller."""
    waiting = bytearray()
    async for piece in source:
        waiting += piece
        while len(waiting) >= PART:
            yield bytes(waiting[:PART])
            del waiting[:PART]
    if waiting:
        yield bytes(waiting)
