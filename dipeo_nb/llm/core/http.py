"""The HTTP connections to models, for all SDKs: time and size limits, proxies, certificates, which headers leave, and event streams
in the plainest form.

The SDKs' own parsers break on streams that are legal: on comments that keep a connection alive, on events that are numbered, on
U+2028 within a text. So a stream is brought into a form that all of them read, before they see it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, cast

from dipeo_nb.common.http_environment import usable_environment
from dipeo_nb.config import is_loopback
from dipeo_nb.llm.core.errors import ForeignAnswerError, said_by, status_named

CONNECT_TIMEOUT_S = 20.0
"""Seconds to reach a server."""
ANSWER_LIMIT = 512 * 1024 * 1024
"""Bytes of one answer, images among them."""
COST_HEADER = "x-litellm-response-cost"
"""Header in which LiteLLM's proxy says what an answer cost, in US dollars."""
DRAIN_S = 0.1
"""Seconds that are waited for the end of a stream that has said that it is done, so that its connection can be used again."""
DONE = b"[DONE]"
"""The data of the event by which many servers end a stream."""


class AnswerTooLargeError(OSError):
    """A server sends more than `ANSWER_LIMIT`."""


def make_client(
    library: Any,
    address: str,
    timeout: float,
    *,
    withheld: Collection[str] = (),
    whole: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None] | None = None,
    lines: bool = False,
    bare: bool = False,
    whole_texts: bool = False,
    unread: bool = False,
    **options: Any,
) -> Any:
    """An `AsyncClient` for one server. Proxies and certificates of the environment count, but not for this machine. It follows no
    redirects: a key goes to the server that was named.

    Args:
        library: `httpx` or `httpx2`, whichever the SDK takes.
        address: of the server.
        timeout: seconds that it may say nothing.
        withheld: names of headers that are taken off.
        lines: its streams are lines of JSON, not events, whatever it calls them.
        bare: its reader knows neither names of events nor `[DONE]`.
        whole_texts: its reader refuses texts with half of a surrogate pair.
        unread: its streams are for `events_of`, which reads them as they come.
        whole: makes events of an answer that comes in one JSON although a stream was asked for; None of what is not an answer.
        options: further ones of the library's `AsyncClient`.

    Raises:
        ConfigurationError: a proxy or certificates that the environment names cannot be used.
    """
    cleaner = _no_cleaner if unread else JsonLines if lines else partial(EventLines, bare=bare, whole=whole_texts)
    own = {"withheld": frozenset(name.lower() for name in withheld), "whole": whole, "cleaner": cleaner, "lines": lines}
    limits = library.Timeout(timeout, connect=CONNECT_TIMEOUT_S)
    with usable_environment():
        return client_class(library)(own, timeout=limits, trust_env=not is_loopback(address), follow_redirects=False, **options)


@cache
def client_class(library: Any) -> Any:
    """The library's `AsyncClient` with streams in the plainest form."""

    class Stream(library.AsyncByteStream):
        """The bytes of an answer, limited and cleaned."""

        def __init__(self, stream: Any, cleaner: Cleaner | None, unpack: Callable[[bytes], bytes] | None = None) -> None:
            self._stream, self._cleaner, self._unpack = stream, cleaner, unpack

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            begins, read = b"", False
            unpack: Callable[[bytes], bytes] | None = self._unpack
            async for data in self._stream:
                if unpack is not None:
                    try:
                        data = unpack(data)
                    except zlib.error as error:
                        raise library.DecodingError(f"its answer cannot be unpacked: {error}") from error
                size += len(data)
                if size > ANSWER_LIMIT:
                    raise AnswerTooLargeError(f"it sends more than {ANSWER_LIMIT:,} bytes")
                if self._cleaner is not None:
                    begins = begins or data[:20].lstrip()
                    data = self._cleaner.feed(data)
                if data:
                    read = True
                    yield data
            if self._cleaner is not None and (rest := self._cleaner.end()):
                read = True
                yield rest
            if not read and begins.startswith(b"<"):
                raise ForeignAnswerError("a web page")

        async def aclose(self) -> None:
            await self._stream.aclose()

    class Client(library.AsyncClient):
        def __init__(self, own: Mapping[str, Any], **options: Any) -> None:
            super().__init__(**options)
            self._own = own

        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            for name in self._own["withheld"]:
                request.headers.pop(name, None)
            streamed = _asks_for_stream(request)
            if streamed:
                request.headers["accept-encoding"] = "identity"
            options["follow_redirects"] = False
            response = await super().send(request, stream=True, **options)
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if streamed and response.is_success and kind == "text/html":
                await response.aclose()
                raise ForeignAnswerError("a web page")
            if not response.is_closed:
                unpack = _unpacker(response.headers)
                plain = unpack is not None or response.headers.get("content-encoding", "identity") == "identity"
                if unpack is not None:
                    del response.headers["content-encoding"]
                if streamed and response.is_success and kind == "application/json":
                    await self._read_whole(response, unpack)
                else:
                    clean = plain and (streamed or kind == "text/event-stream") and response.is_success
                    response.stream = Stream(response.stream, self._own["cleaner"]() if clean else None, unpack)
                    if clean and kind:  # both kinds of stream are UTF-8, whatever the server calls it
                        response.headers["content-type"] = kind
            if not stream:
                await response.aread()
            return response

        async def _read_whole(self, response: Any, unpack: Callable[[bytes], bytes] | None) -> None:
            """What came is not a stream: an error with the wrong status, or the answer in one piece, or in a list of them."""
            limited = Stream(response.stream, None, unpack)
            data = b"".join([piece async for piece in limited])
            await response.aclose()
            try:
                body = json.loads(data)
            except (ValueError, RecursionError):
                body = None
            if isinstance(body, dict):
                body = _with_cost(cast("dict[str, Any]", body), response.headers)
            parts = cast("list[Any]", body) if isinstance(body, list) else [body]
            events_of: Callable[[Any], Sequence[Mapping[str, Any]] | None] = self._own["whole"] or (lambda _: None)
            answers = [events_of(part) if isinstance(part, Mapping) else None for part in parts]
            events = [event for found in answers if found is not None for event in found]
            if answers and None not in answers:
                response.headers["content-type"] = "text/event-stream"
                data = b"".join(_written(event, line=self._own["lines"]) for event in events)
            elif data.strip():
                if (status := status_within(parts[0] if parts else None)) is None:
                    raise ForeignAnswerError("something that is not JSON" if body is None else "JSON of another kind")
                response.status_code = status
            response.headers.pop("content-length", None)
            response.stream = library.ByteStream(data)
            response.is_closed = response.is_stream_consumed = False

    return Client


def _written(event: Mapping[str, Any], *, line: bool) -> bytes:
    """An event of a stream as it is sent: as a line of JSON, or a server-sent event."""
    data = json.dumps(event).encode()
    kind = event.get("type")
    return (
        data + b"\n"
        if line
        else (f"event: {kind}\n".encode() if isinstance(kind, str) and kind.isascii() else b"") + b"data: " + data + b"\n\n"
    )


def _unpacker(headers: Any) -> Callable[[bytes], bytes] | None:
    """What unpacks a body that came packed although nobody asked for that; None for one that is not, or in another way."""
    if headers.get("content-encoding", "").strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return None
    made: list[Any] = []

    def unpack(data: bytes) -> bytes:
        if not made:  # `deflate` should have a header (RFC 9110, section 8.4.1.2), and often has none
            has_header = data[:1] == b"\x1f" or (data[:1] == b"\x78" and data[1:2] in b"\x01\x5e\x9c\xda")
            made.append(zlib.decompressobj(zlib.MAX_WBITS | 32 if has_header else -zlib.MAX_WBITS))
        return made[0].decompress(data)

    return unpack


def _no_cleaner() -> None:
    """What is to be read as it comes."""


def _with_cost(body: dict[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """An answer that came whole, with what its gateway says in a header that it cost; what the usage says itself goes before that.
    The header of a stream is sent before there is anything to charge for, so it says nothing."""
    usage = body.get("usage")
    with contextlib.suppress(ValueError):
        if isinstance(usage, dict) and COST_HEADER in headers:
            return {**body, "usage": {"cost": float(headers[COST_HEADER]), **cast("dict[str, Any]", usage)}}
    return body


def _asks_for_stream(request: Any) -> bool:
    if request.url.path.endswith(":streamGenerateContent"):  # Gemini says it in the address
        return True
    try:
        content = request.content
    except Exception:  # noqa: BLE001 - the libraries' RequestNotRead: a body that is streamed itself
        return False
    return b'"stream":true' in content or b'"stream": true' in content


def status_within(body: Any) -> int | None:
    """The HTTP status that a JSON error says it has, as a number or by its name; 400 without any. None of what says no error."""
    error = body.get("error") if isinstance(body, Mapping) else None
    for place in (error, body):
        for name in ("code", "status"):
            value = place.get(name) if isinstance(place, Mapping) else None  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
            if isinstance(value, (int, str)) and re.fullmatch("[45][0-9]{2}", str(value)):
                return int(value)
    code, said = said_by(body)
    return status_named(code, said) or (400 if said or error is not None else None)


# Streams.

_BOM = b"\xef\xbb\xbf"
_SEPARATORS = {"\u2028": b"\\u2028", "\u2029": b"\\u2029", "\u0085": b"\\u0085"}
"""Characters that some readers take for the end of a line → how JSON writes them."""


class Cleaner:
    """Brings a stream of lines into the plainest form, piece by piece."""

    def feed(self, data: bytes) -> bytes:
        """What is complete with *data*."""
        raise NotImplementedError

    def end(self) -> bytes:
        """What is left when no more comes."""
        raise NotImplementedError


_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
"""Escape sequences of JSON: a surrogate pair, a half of one that stands alone, any other."""


def escaped(data: bytes, *, whole: bool = False) -> bytes:
    """JSON that every reader of UTF-8 and of lines takes: bytes that are not UTF-8 are U+FFFD, as the standard of event streams has
    it.

    Args:
        whole: halves of surrogate pairs are texts, too: their escape sequences. Else they may be joined with the next piece.
    """
    plain = data.isascii()  # most are, and the searches take as long as all else here
    if not plain:
        try:
            data.decode()
        except UnicodeDecodeError:
            data = data.decode(errors="replace").encode()
    if whole and (b"\\ud" in data or b"\\uD" in data):
        data = _ESCAPES.sub(lambda found: b"\\" * (found["half"] is not None) + found[0], data)
    if not plain:
        for character, escape in _SEPARATORS.items():
            data = data.replace(character.encode(), escape)
    return data


class JsonLines(Cleaner):
    """JSON, one value a line: without empty lines."""

    def __init__(self) -> None:
        self._rest = b""
        self._first = True

    def feed(self, data: bytes) -> bytes:
        self._rest += data
        if self._first and len(self._rest) >= 3:
            self._first = False
            self._rest = self._rest.removeprefix(_BOM)
        lines = self._rest.split(b"\n")
        self._rest = lines.pop()
        return b"".join(escaped(line, whole=True) + b"\n" for line in lines if line.strip())

    def end(self) -> bytes:
        return self.feed(b"\n")


class Events:
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), piece by piece: (name, data) of each that
    has data, which is one line."""

    def __init__(self) -> None:
        self._rest = b""
        self._first = True

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """What is complete with *data*."""
        self._rest += data
        if self._first and len(self._rest) >= 3:
            self._first = False
            self._rest = self._rest.removeprefix(_BOM)
        if b"\r" in self._rest:
            held = self._rest.endswith(b"\r")  # its line feed may be next
            text = self._rest[:-1] if held else self._rest
            self._rest = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + b"\r" * held
        end = self._rest.rfind(b"\n\n")
        if end < 0:
            return []
        events, self._rest = self._rest[: end + 2], self._rest[end + 2 :]
        return _read(events)

    def end(self) -> list[tuple[bytes, bytes]]:
        """What is left when no more comes; an event that was cut off is none."""
        rest = _read(self._rest.replace(b"\r", b"\n"))
        try:
            return rest if rest and (rest[-1][1].strip() == DONE or json.loads(rest[-1][1]) is not None) else []
        except (ValueError, RecursionError):
            return []


def _read(events: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    for event in events.split(b"\n\n"):
        name, lines = b"", list[bytes]()
        for line in event.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                lines.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.strip()
        if lines and any(lines):
            found.append((name, lines[0] if len(lines) == 1 else b" ".join(lines)))  # within JSON, line breaks are blanks
    return found


class EventLines(Cleaner):
    """Server-sent events, each with its name and its data in one line; no comments, no numbers, no events without data."""

    def __init__(self, *, bare: bool = False, whole: bool = False) -> None:
        self._events = Events()
        self._bare, self._whole = bare, whole

    def feed(self, data: bytes) -> bytes:
        return self._plain(self._events.feed(data))

    def end(self) -> bytes:
        return self._plain(self._events.end())

    def _plain(self, events: Iterable[tuple[bytes, bytes]]) -> bytes:
        found: list[bytes] = []
        for name, data in events:
            if self._bare:
                if data.strip() == DONE:
                    continue
                name = b""
            data = escaped(data, whole=self._whole)
            found.append((b"event: " + escaped(name) + b"\n" if name else b"") + b"data: " + data + b"\n\n")
        return b"".join(found)


async def events_of(response: Any) -> AsyncGenerator[dict[str, Any]]:
    """The events of a stream, each the JSON object that it holds. The response is closed at the end, whatever the end is.

    Args:
        response: of a client that was made with *unread*.

    Raises:
        ValueError: one is not JSON.
        TypeError: one is JSON, but no object.
        AnswerTooLargeError: there is more than `ANSWER_LIMIT`.
        ForeignAnswerError: it is not a stream of events, but a web page.
    """
    events = Events()
    size, begins, read = 0, b"", False
    async with contextlib.aclosing(response):
        # Closed here, so that none of its generators is left to a garbage collection, which may be on another thread.
        async with contextlib.aclosing(response.aiter_bytes()) as pieces:
            async for piece in pieces:
                size += len(piece)
                begins = begins or piece[:20].lstrip()
                if size > ANSWER_LIMIT:  # what was compressed may be larger than what was sent
                    raise AnswerTooLargeError(f"it sends more than {ANSWER_LIMIT:,} bytes")
                for _, data in events.feed(piece):
                    if data.startswith(DONE):
                        await drained(pieces)
                        return
                    read = True
                    yield _object(data)
        for _, data in events.end():
            if data.strip() != DONE:
                read = True
                yield _object(data)
        if not read and begins.startswith(b"<"):
            raise ForeignAnswerError("a web page")


def _object(data: bytes) -> dict[str, Any]:
    value = json.loads(data.decode(errors="replace"))
    if not isinstance(value, dict):
        raise TypeError("an event is not an object")
    return cast("dict[str, Any]", value)


async def drained(items: AsyncIterator[Any]) -> None:
    """Read what is left of a stream that has said all, so that its connection can be used again. A server that leaves it open is
    not waited for."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(DRAIN_S):
            async for _ in items:
                pass
