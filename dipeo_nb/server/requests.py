"""Reads the bodies of requests, and checks the host that they name."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

import dipeo_nb.server.web as web
from dipeo_nb.errors import UserError
from dipeo_nb.execution.run_options import RunLimits
from dipeo_nb.server.responses import error_response

BODY_LIMIT = 1024 * 1024
"""Largest size of a request in bytes."""


class ResumeBody(BaseModel):
    """The body of `POST /runs/ID/resume`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    inputs: dict[str, Any] = {}
    answers: dict[str, str | list[str]] = {}
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def limits(self) -> RunLimits:
        return {"timeout": self.timeout}


class StartBody(ResumeBody):
    """The body of `POST /runs`."""

    diagram: str = Field(min_length=1, max_length=1000)
    model: str | None = None


class AnswerBody(BaseModel):
    """The body of `POST /runs/ID/answer`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    text: str
    request_id: str | None = None
    node: str | None = None


class SignalBody(BaseModel):
    """The body of `POST /runs/ID/signal`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    payload: dict[str, Any] = {}


async def read_body(request: Any) -> bytes:
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > BODY_LIMIT:
                raise UserError(
                    f"The request has more than {BODY_LIMIT:,} bytes.",
                    hint="Send less; put data into files.",
                    cause="too_large",
                )
    except web.ClientDisconnect:  # an answer that is never read, instead of a traceback in the log
        raise UserError("The request ended before its body did.", hint="Send it again.") from None
    return bytes(body)


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]++\]|[^\[\]:/@\s]++)(?::\d++)?")
"""A host, with a port or without."""


class KnownHosts:
    """Refuses requests for host names that are not this server's, as in DNS rebinding."""

    def __init__(self, app: Any, hosts: tuple[str, ...]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
            found = _HOST.fullmatch(host)
            if found is None or found[1].lower() not in self._hosts:
                hint = f"Ask for it as {', '.join(self._hosts)}."
                await error_response(400, "This server is not known by that name (Host).", hint)(scope, receive, send)
                return
        await self._app(scope, receive, send)
