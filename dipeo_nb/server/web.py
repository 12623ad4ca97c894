"""The packages of the extra `serve`, imported in one place: without them, creating the server is an error."""

from __future__ import annotations

from dipeo_nb.errors import MissingDependencyError

_missing: ImportError | None = None
try:
    from sse_starlette import EventSourceResponse
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    _missing = error

__all__ = [
    "CORSMiddleware", "ClientDisconnect", "EventSourceResponse", "HTMLResponse", "JSONResponse", "Middleware", "Response", "Route", "Starlette",
    "check_installed",
]  # fmt: skip


def check_installed() -> None:
    """Raise an error without the extra.

    Raises:
        MissingDependencyError: the extra `serve` is not installed.
    """
    if _missing is not None:
        raise MissingDependencyError.for_extra(_missing.name or "starlette", extra="serve") from _missing
