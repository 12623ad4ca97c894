"""The body of an answer, decoded with a limit on what comes out: a few kilobytes can stand for gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

ACCEPT_ENCODING = "gzip, deflate"
"""The encodings that are understood here; the request header names them."""
_PIECE = 256 * 1024
"""Bytes that are decoded at once."""


class BodyError(Exception):
    """A body that cannot be read.

    Attributes:
        message: what is wrong with it, as the end of a sentence about the server.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


async def read_body(answer: httpx2.Response, limit: int) -> bytes:
    """The decoded body of an answer that is being streamed.

    Raises:
        BodyError: it has more than *limit* bytes, it is encoded more than once or in an unknown way, or it is damaged.
    """
    encodings = [name.strip().lower() for name in answer.headers.get("content-encoding", "").split(",")]
    encodings = [name for name in encodings if name not in ("", "identity")]
    if len(encodings) > 1:
        raise BodyError(f"answers with a body that is encoded {len(encodings)} times ({', '.join(encodings)[:80]})")
    decoder = _decoder(encodings[0]) if encodings else None
    pieces: list[bytes] = []
    size = 0
    async for piece in _decoded(answer.aiter_raw(), decoder):
        size += len(piece)
        if size > limit:
            raise BodyError(f"answers with more than {limit:,} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _decoder(name: str) -> Callable[[bytes], zlib._Decompress]:
    if name in ("gzip", "x-gzip"):
        return lambda _: zlib.decompressobj(zlib.MAX_WBITS | 16)
    if name == "deflate":  # with a header as it should be, or bare as some servers send it
        return lambda first: zlib.decompressobj(
            zlib.MAX_WBITS if first[:1] and first[0] & 0x0F == 8 and int.from_bytes(first[:2]) % 31 == 0 else -zlib.MAX_WBITS
        )
    raise BodyError(f"answers with the encoding '{name[:40]}', which is not understood")


async def _decoded(raw: AsyncIterator[bytes], make: Callable[[bytes], zlib._Decompress] | None) -> AsyncIterator[bytes]:
    """The body piece by piece, none larger than `_PIECE`, or than what came in one piece undecoded."""
    decoder: zlib._Decompress | None = None
    async for piece in raw:
        if make is None:
            yield piece
            continue
        left = piece
        while left:
            if decoder is None:
                decoder = make(left)
            elif decoder.eof:  # gzip may be several streams, one after the other; anything else is filling
                if not left.startswith(b"\x1f\x8b"):
                    break
                decoder = make(left)
            try:
                made = decoder.decompress(left, _PIECE)
            except zlib.error as error:
                raise BodyError(f"answers with a damaged body ({error})") from None
            left = decoder.unconsumed_tail or decoder.unused_data
            if made:
                yield made
            elif not left:
                break
    if decoder is not None and not decoder.eof:
        while made := decoder.decompress(decoder.unconsumed_tail, _PIECE):
            yield made
        if not decoder.eof:
            raise BodyError("answers with a body that is cut off")
