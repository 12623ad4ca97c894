"""The application over one runtime: authorization, and the handling of each request."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import ValidationError as PydanticValidationError

import dipeo_nb.server.web as web
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import shorten
from dipeo_nb.common.values import json_text
from dipeo_nb.diagram.detect import available
from dipeo_nb.diagram.document import load_named
from dipeo_nb.domain.enums import Status
from dipeo_nb.errors import (
    DipeoError,
    TrustError,
    UserError,
)
from dipeo_nb.execution import run_file, run_page
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.interaction import ScriptedPrompter, Unanswered
from dipeo_nb.execution.nested import check_answers
from dipeo_nb.execution.run_pages import RunQuery, page_of_runs, run_facts
from dipeo_nb.runtime import Runtime
from dipeo_nb.server.going import GoingRuns
from dipeo_nb.server.requests import AnswerBody, KnownHosts, ResumeBody, SignalBody, StartBody, read_body
from dipeo_nb.server.responses import broken, frame, refused, status_of, unknown_run
from dipeo_nb.server.run_orders import ORDERS, RunOrders

LAST_SEQ = 2**53
"""Largest number of an event."""
FRAMES = 32
"""Events sent to a client before other work on the loop gets its turn."""


class RunServer:
    """An ASGI application over one runtime; see the module for its requests.

    Args:
        runtime: opened and closed with the application.
        token: who knows it may do everything; default: a new one.
        hosts: names under which the server is reached; requests for others are refused (DNS rebinding).

    Raises:
        MissingDependencyError: the extra `serve` is not installed.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        token: str | None = None,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]"),
    ) -> None:
        web.check_installed()
        self.runtime = runtime
        self.token: str = token or secrets.token_urlsafe(24)
        redactor.add(self.token)
        self._runs_here = GoingRuns(runtime)
        routes = [
            web.Route("/health", self._health),
            web.Route("/runs", self._guarded(self._runs), methods=["GET"]),
            web.Route("/runs", self._guarded(self._start), methods=["POST"]),
            web.Route("/runs/page", self._history, methods=["GET"]),
            web.Route("/runs/{run_id}", self._guarded(self._run), methods=["GET"]),
            web.Route("/runs/{run_id}/page", self._page, methods=["GET"]),
            web.Route("/runs/{run_id}/head", self._guarded(self._head), methods=["GET"]),
            web.Route("/runs/{run_id}/beginning", self._guarded(self._beginning), methods=["GET"]),
            web.Route("/runs/{run_id}/events", self._guarded(self._events), methods=["GET"]),
            web.Route("/runs/{run_id}/stop", self._guarded(self._stop), methods=["POST"]),
            web.Route("/runs/{run_id}/signal", self._guarded(self._signal), methods=["POST"]),
            web.Route("/runs/{run_id}/answer", self._guarded(self._answer), methods=["POST"]),
            web.Route("/runs/{run_id}/resume", self._guarded(self._resume), methods=["POST"]),
            web.Route("/runs/{run_id}", self._guarded(self._delete), methods=["DELETE"]),
            web.Route("/diagrams", self._guarded(self._diagrams), methods=["GET"]),
            *RunOrders(runtime, self._runs_here, self._known).routes(self._guarded),
        ]
        between = [web.Middleware(KnownHosts, hosts=hosts)] if hosts else []
        if origins := [o.strip().rstrip("/") for o in runtime.settings.cors_origins.split(",") if o.strip()]:
            headers = ["Authorization", "Content-Type", "Last-Event-ID"]
            methods = ["GET", "POST", "DELETE"]
            between.append(
                web.Middleware(web.CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=headers)
            )
        # What Starlette itself refuses (unknown paths, methods) and what breaks is JSON, too.
        self.app: Any = web.Starlette(
            routes=routes, middleware=between, exception_handlers={404: refused, 405: refused, 500: broken}
        )

    async def initialize(self) -> None:
        """Open the runtime."""
        await self.runtime.initialize()

    async def end(self) -> None:
        """Stop the runs that are executing here; clients that follow them get the last events, and the streams end.

        From then on no run is started.
        """
        await self._runs_here.end("the server ends")
        self.runtime.router.finish()

    async def cleanup(self) -> None:
        """Stop all runs, see `end`, and close the runtime."""
        await self.end()
        await self.runtime.cleanup()

    # Requests.

    def _guarded(self, handle: Any) -> Any:
        """*handle* for those who know the token; errors as JSON with the next action."""

        async def guarded(request: Any) -> Any:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            given = given.strip() if scheme.lower() == "bearer" else request.query_params.get("token", "")
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                hint = (
                    "Send the token that `dipeo-nb serve` printed, or has from DIPEO_SERVE_TOKEN: Authorization: Bearer TOKEN."
                )
                return web.JSONResponse({"error": {"message": "The token is missing or wrong.", "hint": hint}}, 401)
            try:
                return await handle(request)
            except PydanticValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                message = f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}."
                return web.JSONResponse({"error": {"message": message, "hint": "See `dipeo-nb serve --help`."}}, 422)
            except DipeoError as error:
                status = status_of(error)
                described = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
                if isinstance(error, TrustError):
                    described |= {"code": error.code, "listing": error.listing(), "pin": error.facts.get("pin")}
                return web.JSONResponse({"error": redactor(described)}, status)

        return guarded

    async def _health(self, request: Any) -> Any:
        return web.JSONResponse({"status": "ok"})

    async def _runs(self, request: Any) -> Any:
        query = request.query_params
        if any(name in query for name in ("offset", "text", "sort")):
            return await self._page_of_runs(query)
        try:
            limit = min(max(int(query.get("limit", 50)), 1), 1000)
        except ValueError:
            raise UserError("`limit` is not an integer.", hint="Use ?limit=50.") from None
        rows = await self.runtime.services.store.runs(
            limit=limit,
            status=query.get("status"),
            diagram=query.get("diagram"),
            parent=query.get("parent"),
            nested=query.get("nested", "") not in ("", "0", "false"),
        )
        return web.JSONResponse({"runs": [row._asdict() for row in rows]})

    async def _page_of_runs(self, query: Mapping[str, str]) -> Any:
        store = self.runtime.services.store
        page = await page_of_runs(store, RunQuery.of(query))
        answer = {"total": page.total, "runs": await run_facts(store, page.runs)}
        return web.Response(json_text(answer), media_type="application/json")

    async def _start(self, request: Any) -> Any:
        order = StartBody.model_validate_json(await read_body(request))
        self._runs_here.check_open()
        if "\n" in order.diagram or order.diagram.lstrip().startswith("{"):
            raise UserError(
                "A diagram is sent by name, not by its text.", hint="Save it below the base directory and send its name."
            )
        base = self.runtime.settings.base_dir
        document = await asyncio.to_thread(load_named, order.diagram, base)  # never beyond the base directory
        prepared = await asyncio.to_thread(self.runtime.prepare, document, model=order.model)
        await asyncio.to_thread(check_answers, order.answers, prepared.plan, base)
        answers = ScriptedPrompter(order.answers, Unanswered()) if order.answers else None
        execution = self.runtime.execution(
            prepared,
            variables=order.inputs,
            model=order.model,
            **order.limits,
            interaction=answers,
            source=document.to_data(),
        )
        self._runs_here.begin(execution)
        return web.JSONResponse({"run_id": execution.run_id}, 201)

    async def _resume(self, request: Any) -> Any:
        order = ResumeBody.model_validate_json(await read_body(request) or b"{}")
        self._runs_here.check_open()
        run_id = await self._known(request)
        recovery = await self.runtime.recover(run_id, variables=order.inputs, answers=order.answers)
        answers = ScriptedPrompter(order.answers, Unanswered()) if order.answers else None
        execution = self.runtime.resumption(recovery, interaction=answers, **order.limits)
        self._runs_here.begin(execution)
        return web.JSONResponse({"run_id": execution.run_id}, 201)

    async def _delete(self, request: Any) -> Any:
        deleted = await self.runtime.delete_runs([await self._known(request)])
        return web.JSONResponse({"deleted": deleted})

    async def _diagrams(self, request: Any) -> Any:
        return web.JSONResponse({"diagrams": await asyncio.to_thread(available, self.runtime.settings.base_dir)})

    async def _known(self, request: Any) -> str:
        """The id in the path, of a run that exists."""
        run_id = request.path_params["run_id"]
        if self._runs_here.get(run_id) is None and await self.runtime.services.store.run(run_id) is None:
            raise unknown_run(run_id)
        return run_id

    async def _run(self, request: Any) -> Any:
        state = await self._runs_here.state(request.path_params["run_id"])
        return web.Response(json_text(state.report()), media_type="application/json")

    async def _page(self, request: Any) -> Any:
        # The same for every run, and so without a token: what it shows it asks for with the one in its address.
        return web.HTMLResponse(await asyncio.to_thread(run_page.document, "serve.js", title="Run", connects=True))

    async def _history(self, request: Any) -> Any:
        page = await asyncio.to_thread(run_page.document, "serve_history.js", title="Runs", connects=True)
        return web.HTMLResponse(page)

    async def _head(self, request: Any) -> Any:
        """What the page of a run is given besides its events."""
        run_id = await self._known(request)
        state = await self._runs_here.state(run_id)
        live = not state.finished and str(state.status) in (Status.PENDING, Status.RUNNING)
        diagram = await asyncio.to_thread(run_file.diagram_of, state)
        can = ["stop", "answer"] if self._runs_here.get(run_id) is not None else ["answer"] if live else []
        head = await asyncio.to_thread(
            run_page.head_of, run_id, diagram, name=state.diagram, model=state.model, live=live, can=[*ORDERS, *can]
        )
        head["now"] = max(0.0, self.runtime.services.clock.now() - (state.started_at or 0.0)) if live else state.duration_s
        return web.Response(json_text(head), media_type="application/json")

    async def _beginning(self, request: Any) -> Any:
        """What the page of a very long run is given in the place of all but its last events."""
        run_id, keep = await self._known(request), request.query_params.get("keep", str(run_file.EVENTS))
        if not keep.isascii() or not keep.isdecimal() or not 0 < int(keep[:20]) <= LAST_SEQ:
            raise UserError(f"'{shorten(keep)}' is not a number of events.", hint="Use ?keep=100000, or leave it out.")
        store = self.runtime.services.store
        row, rows = await store.run(run_id), list[run_page.Row]()
        if row is not None and row.events > int(keep) + 1:
            state = await self._runs_here.state(run_id)
            rows = await run_file.beginning(run_file.stored(store, run_id, state.snapshot()), int(keep))
        return web.Response(await asyncio.to_thread(json_text, {"rows": rows}), media_type="application/json")

    async def _stop(self, request: Any) -> Any:
        execution = await self._here(request)
        execution.stop("stopped over HTTP")
        return web.JSONResponse({"run_id": execution.run_id}, 202)

    async def _answer(self, request: Any) -> Any:
        answer = AnswerBody.model_validate_json(await read_body(request))
        run_id = await self._known(request)
        await self.runtime.answer(run_id, answer.text, node=answer.node, request_id=answer.request_id)
        return web.JSONResponse({"run_id": run_id}, 202)

    async def _signal(self, request: Any) -> Any:
        execution = await self._here(request)
        signal = SignalBody.model_validate_json(await read_body(request))
        execution.signal(signal.name, signal.payload)
        return web.JSONResponse({"run_id": execution.run_id}, 202)

    async def _here(self, request: Any) -> Execution:
        run_id = await self._known(request)
        if (execution := self._runs_here.get(run_id)) is None:
            raise UserError(
                f"Run {run_id} is not running here.",
                hint="See GET /runs for its state; POST /runs/ID/resume continues it.",
                cause="elsewhere",
            )
        return execution

    # Events.

    async def _events(self, request: Any) -> Any:

        run_id = await self._known(request)
        last = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        if not last.isascii() or not last.isdecimal() or int(last[:20]) > LAST_SEQ:
            raise UserError(
                f"'{shorten(last)}' is not the number of an event.", hint="Use ?after=SEQ, with the last seq you have."
            )
        await self._runs_here.recorded(run_id)
        if self._runs_here.get(run_id) is None:
            row = await self.runtime.services.store.run(run_id)
            if row is not None and row.status != Status.RUNNING and row.events <= int(last):
                return web.Response(status_code=204)
        return web.EventSourceResponse(self._events_after(run_id, int(last)))

    async def _events_after(self, run_id: str, after: int) -> AsyncIterator[Mapping[str, Any]]:
        async with aclosing(self.runtime.router.events(run_id, after=after)) as events:
            sent = 0
            async for event in events:
                yield frame(event)
                sent += 1
                # neither the log nor a disconnected client makes us wait, and other requests need their turn
                if not sent % FRAMES:
                    await asyncio.sleep(0)
