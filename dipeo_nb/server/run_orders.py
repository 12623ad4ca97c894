"""What the page of a run may order over HTTP: another run made from it, a note, a copy as text, a comparison."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

import dipeo_nb.server.web as web
from dipeo_nb.common.values import json_text
from dipeo_nb.errors import UserError
from dipeo_nb.execution.run_comparison import comparison
from dipeo_nb.execution.run_copies import Given, copied, input_facts
from dipeo_nb.execution.snapshots import read_run
from dipeo_nb.runtime import Runtime
from dipeo_nb.runtime.orders import AnotherRun, plan_another
from dipeo_nb.server.going import GoingRuns
from dipeo_nb.server.requests import read_body

ORDERS = ("note", "copy", "fork", "alone", "again", "compare")
"""What the page of a run may order; others are made of what has finished, also when the run continues."""


class NoteBody(BaseModel):
    """The body of `POST /runs/ID/notes`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    first: int = Field(ge=1)
    last: int = Field(ge=1)
    text: str


class RunOrders:
    """The handlers of these requests.

    Args:
        known: the id in the path of a request, of a run that exists.
    """

    def __init__(self, runtime: Runtime, going: GoingRuns, known: Callable[[Any], Awaitable[str]]) -> None:
        self._runtime, self._going, self._known = runtime, going, known

    def routes(self, guarded: Callable[[Any], Any]) -> list[Any]:
        return [
            web.Route("/runs/{run_id}/another", guarded(self._another), methods=["POST"]),
            web.Route("/runs/{run_id}/notes", guarded(self._note), methods=["POST"]),
            web.Route("/runs/{run_id}/inputs", guarded(self._inputs), methods=["GET"]),
            web.Route("/runs/{run_id}/copy", guarded(self._copy), methods=["GET"]),
            web.Route("/runs/{run_id}/compared", guarded(self._compared), methods=["GET"]),
        ]

    async def _another(self, request: Any) -> Any:
        order = AnotherRun.model_validate_json(await read_body(request))
        self._going.check_open()
        run_id = await self._known(request)
        fork = await plan_another(self._runtime, run_id, order)
        execution = fork.execution(self._runtime)
        self._going.begin(execution)
        return web.JSONResponse({"run_id": execution.run_id}, 201)

    async def _note(self, request: Any) -> Any:
        note = NoteBody.model_validate_json(await read_body(request))
        run_id = await self._known(request)
        await self._runtime.note(run_id, note.first, note.last, note.text)
        return web.JSONResponse({"run_id": run_id}, 201)

    async def _inputs(self, request: Any) -> Any:
        state = await self._going.state(await self._known(request))
        return _json({"inputs": input_facts(state), "model": state.model})

    async def _copy(self, request: Any) -> Any:
        run_id, query = await self._known(request), request.query_params
        of, node, given = query.get("of"), query.get("node"), Given()
        if of is not None and not (of.isascii() and of.isdecimal() and len(of) < 10):
            raise UserError("`of` is not the number of a run of the node.", hint="Use ?node=ID&of=1.")
        if node is None:
            await read_run(self._runtime.services.store, run_id, given.take)
        state = await self._going.state(run_id)
        text = await asyncio.to_thread(copied, state, given, query.get("as", "python"), node, of and int(of))
        return _json({"text": text})

    async def _compared(self, request: Any) -> Any:
        after = await self._going.state(await self._known(request))
        before = await self._going.state(request.query_params.get("with", ""))
        return _json(await asyncio.to_thread(comparison, before, after))


def _json(value: Any) -> Any:
    return web.Response(json_text(value), media_type="application/json")
