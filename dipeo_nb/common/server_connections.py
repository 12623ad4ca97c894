"""Connections of `dipeo-nb serve`: a limit in time for each request, and one in number for all.

A client that sends only the beginning of a request, keeps a connection open without asking anything, or follows a run without
reading otherwise holds a connection forever, and enough of them lock all other clients out.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

HEAD_S = 10.0
"""Seconds for the head of a request, from the opening of the connection or the end of the answer before. (One that sends nothing at all
after an answer is closed earlier, by uvicorn.)"""
BODY_S = 10.0
"""Seconds for the body of a request, and again as many for each part of it that came at `BODY_RATE`."""
BODY_RATE = 10_000
"""Bytes in a second."""
STALLED_S = 60.0
"""Seconds for which a client may leave what is sent to it unread, once no more can be sent."""
CONNECTIONS = 500
"""Open connections at most. Beyond, the one that has waited longest for a request makes room; when none does, the new one is refused."""


def connections() -> int:
    """Maximum number of connections, given the open files that this process may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return CONNECTIONS
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if most == resource.RLIM_INFINITY else max(1, min(CONNECTIONS, most // 2))


def protocol() -> type[asyncio.Protocol]:
    """The class of connections, for `uvicorn.Config(http=…)`; uvicorn must be installed."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    most = connections()
    limits = {h11.IDLE: HEAD_S, h11.SEND_BODY: BODY_S}

    class Connection(H11Protocol):
        _awaited: Any = None
        """The part of a request that is due (a state of h11); None: it is complete."""
        _since = 0.0
        _received = 0
        """Bytes since then."""
        _due: asyncio.TimerHandle | None = None
        _stalled: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()
            others = [
                c for c in self.connections if isinstance(c, Connection) and c is not self and not c.transport.is_closing()
            ]
            if len(others) >= most:
                waiting = [c for c in others if c._awaited is not None]
                if not waiting:
                    self._refuse(503, "The server has as many connections as it takes.", "Close some, or try again later.")
                    return
                min(waiting, key=lambda c: (c._awaited is not h11.IDLE, c._since)).transport.abort()

        def data_received(self, data: bytes) -> None:
            self._received += len(data)
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in (self._due, self._stalled):
                if timer is not None:
                    timer.cancel()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

        def resume_writing(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None
            super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, msg, "Send HTTP/1.1.")

        def _watch(self) -> None:
            """Start the time limit for the part of a request that is due; further data does not restart it."""
            awaited = self.conn.their_state if self.conn.their_state in limits else None
            if awaited is self._awaited:
                return
            if self._due is not None:
                self._due.cancel()
                self._due = None
            self._awaited, self._since = awaited, self.loop.time()
            if awaited is not None:
                self._wait(limits[awaited])

        def _wait(self, seconds: float) -> None:
            self._received = 0
            self._due = self.loop.call_later(seconds, self._late)

        def _late(self) -> None:
            if self._awaited is h11.SEND_BODY and self._received >= BODY_S * BODY_RATE:
                self._wait(BODY_S)
            elif self._awaited is h11.SEND_BODY and self.cycle.response_started:
                self.transport.abort()  # it is answered already
            else:
                self._refuse(408, "The request did not come in time.", "Send it whole.")

        def _refuse(self, status: int, message: str, hint: str) -> None:
            """Answer without the application, and close the connection."""
            body = json.dumps({"error": {"message": message, "hint": hint}}).encode()
            head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + body)
            self.transport.close()

    return Connection
