"""Bodies of web answers: bombs, damage, drips."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import httpx2
import pytest

from dipeo_nb.errors import IntegrationError
from dipeo_nb.integrations.http import HTTPClient

LIMIT = 100_000
ZEROS = gzip.compress(bytes(50_000_000))
BARE = zlib.compressobj(wbits=-zlib.MAX_WBITS)
TEXT = b"some words " * 500


class _Pieces(httpx2.AsyncByteStream):
    def __init__(self, pieces: list[bytes], pause: float = 0.0) -> None:
        self.pieces, self.pause = pieces, pause

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(self.pause)
            yield piece


def _fetched(encoding: str | None, body: list[bytes], *, pause: float = 0.0, timeout: float = 20.0) -> bytes:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["accept-encoding"] == "gzip, deflate"
        headers = {} if encoding is None else {"Content-Encoding": encoding}
        return httpx2.Response(200, headers=headers, stream=_Pieces(body, pause))

    client = HTTPClient(max_size=LIMIT, transport=httpx2.MockTransport(answer))
    return asyncio.run(client.request("GET", "https://host/x", max_retries=0, timeout=timeout)).content


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (None, [TEXT]),
        ("identity", [TEXT]),
        ("gzip", [gzip.compress(TEXT)]),
        ("gzip", [bytes([b]) for b in gzip.compress(TEXT)]),
        ("GZIP", [gzip.compress(TEXT[:2000]) + gzip.compress(TEXT[2000:])]),
        ("x-gzip", [gzip.compress(TEXT) + bytes(20)]),
        ("deflate", [zlib.compress(TEXT)]),
        ("deflate", [BARE.compress(TEXT) + BARE.flush()]),
    ],
)
def test_encodings(encoding: str | None, body: list[bytes]) -> None:
    """What servers send is decoded, in whatever pieces it comes."""
    assert _fetched(encoding, body) == TEXT


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", [ZEROS], "more than 100,000 bytes"),
        ("gzip", [ZEROS[n : n + 100] for n in range(0, len(ZEROS), 100)], "more than 100,000 bytes"),
        ("deflate", [zlib.compress(bytes(50_000_000))], "more than 100,000 bytes"),
        ("gzip, gzip", [gzip.compress(ZEROS)], "encoded 2 times"),
        ("gzip,deflate , gzip", [b""], "encoded 3 times"),
        (None, [TEXT] * 100, "more than 100,000 bytes"),
        ("br", [b"x"], "not understood"),
        ("zstd", [b"x"], "not understood"),
        ("gzip", [b"no gzip at all"], "damaged"),
        ("gzip", [gzip.compress(TEXT)[:40]], "cut off"),
        ("deflate", [b"\xff\xff\xff"], "damaged"),
    ],
)
def test_what_is_refused(encoding: str | None, body: list[bytes], words: str) -> None:
    """One clear error, before memory is used for it."""
    with pytest.raises(IntegrationError, match=words) as caught:
        _fetched(encoding, body)
    assert caught.value.hint


def test_a_body_that_drips_has_the_time_of_the_request() -> None:
    """Pieces that come one by one do not make the time longer."""
    with pytest.raises(IntegrationError, match=r"within 0\.5 s"):
        _fetched(None, [b"x"] * 1_000, pause=0.05, timeout=0.5)
