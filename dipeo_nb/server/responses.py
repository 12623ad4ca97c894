"""Responses to clients: errors as JSON with the next action, and events as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dipeo_nb.server.web as web
from dipeo_nb.common.values import json_text
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import DiagramNotFoundError, DipeoError, TrustError, UserError


def status_of(error: DipeoError) -> int:
    cause = error.facts.get("cause")
    if isinstance(error, DiagramNotFoundError) or cause in ("not_found", "no_question"):
        return 404
    if cause in ("going_on", "answered", "elsewhere", "completed"):
        return 409
    if cause in ("too_large", "ending"):
        return 413 if cause == "too_large" else 503
    if isinstance(error, TrustError):
        return 403
    return 400 if isinstance(error, UserError) else 500


def error_response(status: int, message: str, hint: str, headers: Any = None) -> Any:
    return web.JSONResponse({"error": {"message": message, "hint": hint}}, status, headers=headers)


async def refused(request: Any, error: Any) -> Any:
    """An unknown path, or a method that it does not support."""
    what = "takes no" if error.status_code == 405 else "is not here, nor is its"
    hint = "GET, POST /runs; GET, DELETE /runs/ID; GET /runs/ID/events, page; POST /runs/ID/stop, answer, signal, resume, another, notes; GET /diagrams."
    return error_response(error.status_code, f"{request.url.path} {what} {request.method}.", hint, error.headers)


async def broken(request: Any, error: Exception) -> Any:
    return error_response(500, f"The server failed: {type(error).__name__}.", "See its log; this is a defect of dipeo-nb.")


def frame(event: Event) -> Mapping[str, Any]:
    return {
        "id": str(event.seq),
        "event": str(event.type),
        "data": json_text(event.to_wire()),
    }


def unknown_run(run_id: str) -> UserError:
    return UserError(f"There is no run '{run_id}'.", hint="See GET /runs for those there are.", cause="not_found")
