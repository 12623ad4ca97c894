"""`dipeo-nb serve`: runs over HTTP, their events as server-sent events. One process, this machine by default, a token for everything.

| request | answer |
|---|---|
| `GET /health` | `{"status": "ok"}`; the only one without a token |
| `GET /runs?limit=&status=&diagram=&parent=&nested=` | the run history, newest first |
| `POST /runs` `{"diagram": NAME, "inputs": {…}, "model": …, "answers": {…}, "timeout": S}` | 201, `{"run_id": …}` |
| `GET /runs/ID` | status, outputs, usage, cost … as `run --json` |
| `GET /runs/ID/events?after=SEQ` | every event after SEQ (or `Last-Event-ID`), stored ones first, then live, to the end of the run |
| `POST /runs/ID/stop`, `POST /runs/ID/answer` `{"text": …, "node": …, "request_id": …}` | 202; 404 when no such question waits |
| `POST /runs/ID/signal` `{"name": …, "payload": {…}}` | 202; an event that a hook or a start node waits for |
| `POST /runs/ID/resume` `{"inputs": {…}, "answers": {…}, "timeout": S}` | 201; the run continues here |
| `DELETE /runs/ID` | 200; the run and those of its sub-diagrams are forgotten; 409 while one of them is running |
| `GET /diagrams` | names of diagrams for `POST /runs` |

Errors are JSON: `{"error": {"type": …, "message": …, "hint": …}}`. The stream of a run that has ended is answered with 204 when there is
nothing new, which makes an EventSource stop asking.

The token goes into `Authorization: Bearer TOKEN`, or `?token=` for an EventSource of a browser. Diagrams are named, never sent, and lie
below the base directory, so no code comes in over the wire. Pages of other origins are let in by DIPEO_CORS_ORIGINS. A diagram that
nobody has trusted beforehand runs as a guest, or is refused with 403 and the list of what it wants.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.common.loop import submit
from dipeo_nb.common.scrub import logger, redactor
from dipeo_nb.common.server_connections import protocol
from dipeo_nb.common.text import shorten
from dipeo_nb.common.values import json_text
from dipeo_nb.container import Runtime
from dipeo_nb.diagram.detect import available
from dipeo_nb.diagram.document import load_named
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import (
    ConfigurationError,
    DiagramNotFoundError,
    DipeoError,
    MissingDependencyError,
    TrustError,
    UserError,
)
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.fold import RunState, interrupted
from dipeo_nb.execution.interaction import GivenAnswers, Unanswered
from dipeo_nb.execution.nested import check_answers

LAST_SEQ = 2**53
"""Numbers of events beyond are none."""
BODY_LIMIT = 1024 * 1024
"""Bytes of a request at most."""
FRAMES = 32
"""Events sent to a client before other work on the loop gets its turn."""
END_S = 20.0
"""Seconds that runs have to end when the server does."""
_LOG = logger(__name__)


class _Start(BaseModel):
    """The body of `POST /runs`."""

    model_config = ConfigDict(extra="forbid")

    diagram: str = Field(min_length=1, max_length=1000)
    inputs: dict[str, Any] = {}
    model: str | None = None
    answers: dict[str, str | list[str]] = {}
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class _Answer(BaseModel):
    """The body of `POST /runs/ID/answer`."""

    model_config = ConfigDict(extra="forbid")

    text: str
    request_id: str | None = None
    node: str | None = None


class _Resume(BaseModel):
    """The body of `POST /runs/ID/resume`."""

    model_config = ConfigDict(extra="forbid")

    inputs: dict[str, Any] = {}
    answers: dict[str, str | list[str]] = {}
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class _Signal(BaseModel):
    """The body of `POST /runs/ID/signal`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    payload: dict[str, Any] = {}


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
        try:
            from starlette.applications import Starlette
            from starlette.middleware import Middleware
            from starlette.middleware.cors import CORSMiddleware
            from starlette.routing import Route
        except ImportError as error:
            raise MissingDependencyError.for_extra(error.name or "starlette", extra="serve") from error
        self.runtime = runtime
        self.token = token or secrets.token_urlsafe(24)
        redactor.add(self.token)
        self._going: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        routes = [
            Route("/health", self._health),
            Route("/runs", self._guarded(self._runs), methods=["GET"]),
            Route("/runs", self._guarded(self._start), methods=["POST"]),
            Route("/runs/{run_id}", self._guarded(self._run), methods=["GET"]),
            Route("/runs/{run_id}/events", self._guarded(self._events), methods=["GET"]),
            Route("/runs/{run_id}/stop", self._guarded(self._stop), methods=["POST"]),
            Route("/runs/{run_id}/signal", self._guarded(self._signal), methods=["POST"]),
            Route("/runs/{run_id}/answer", self._guarded(self._answer), methods=["POST"]),
            Route("/runs/{run_id}/resume", self._guarded(self._resume), methods=["POST"]),
            Route("/runs/{run_id}", self._guarded(self._delete), methods=["DELETE"]),
            Route("/diagrams", self._guarded(self._diagrams), methods=["GET"]),
        ]
        between = [Middleware(_Hosts, hosts=hosts)] if hosts else []
        if origins := [o.strip().rstrip("/") for o in runtime.settings.cors_origins.split(",") if o.strip()]:
            headers = ["Authorization", "Content-Type", "Last-Event-ID"]
            methods = ["GET", "POST", "DELETE"]
            between.append(Middleware(CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=headers))
        self._ending = False
        # What Starlette itself refuses (unknown paths, methods) and what breaks is JSON, too.
        self.app = Starlette(routes=routes, middleware=between, exception_handlers={404: _refused, 405: _refused, 500: _broken})

    async def initialize(self) -> None:
        """Open the runtime."""
        await self.runtime.initialize()

    async def end(self) -> None:
        """Stop the runs that go on here; those who follow them get their last events, and the streams end. No run is started any
        more."""
        self._ending = True
        for execution in list(self._going.values()):
            execution.stop("the server ends")
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.runtime.router.finish()

    async def cleanup(self) -> None:
        """End what is running, see `end`, and close the runtime."""
        await self.end()
        await self.runtime.cleanup()

    # Requests.

    def _guarded(self, handle: Any) -> Any:
        """*handle* for those who know the token; errors as JSON with the next action."""
        from starlette.responses import JSONResponse

        async def guarded(request: Any) -> Any:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            given = given.strip() if scheme.lower() == "bearer" else request.query_params.get("token", "")
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                hint = "Send the token that `dipeo-nb serve` printed, or has from DIPEO_SERVE_TOKEN: Authorization: Bearer TOKEN."
                return JSONResponse({"error": {"message": "The token is missing or wrong.", "hint": hint}}, 401)
            try:
                return await handle(request)
            except PydanticValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                message = f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}."
                return JSONResponse({"error": {"message": message, "hint": "See `dipeo-nb serve --help`."}}, 422)
            except DipeoError as error:
                status = _status_of(error)
                described = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
                if isinstance(error, TrustError):
                    described |= {"code": error.code, "listing": error.listing(), "pin": error.facts.get("pin")}
                return JSONResponse({"error": redactor(described)}, status)

        return guarded

    async def _health(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        return JSONResponse({"status": "ok"})

    async def _runs(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        query = request.query_params
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
        return JSONResponse({"runs": [row._asdict() for row in rows]})

    async def _start(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        order = _Start.model_validate_json(await _body(request))
        self._check_open()
        if "\n" in order.diagram or order.diagram.lstrip().startswith("{"):
            raise UserError(
                "A diagram is named here, not sent.", hint="Save it below the base directory and send its name."
            )
        base = self.runtime.settings.base_dir
        document = await asyncio.to_thread(load_named, order.diagram, base)  # never beyond the base directory
        prepared = await asyncio.to_thread(self.runtime.prepare, document, model=order.model)
        await asyncio.to_thread(check_answers, order.answers, prepared.plan, base)
        answers = GivenAnswers(order.answers, Unanswered()) if order.answers else None
        execution = self.runtime.execution(
            prepared,
            variables=order.inputs,
            model=order.model,
            timeout=order.timeout,
            interaction=answers,
            source=json.loads(document.to_text("native")),
        )
        self._begin(execution)
        return JSONResponse({"run_id": execution.run_id}, 201)

    def _check_open(self) -> None:
        if self._ending:
            raise UserError("The server ends; no run is started any more.", hint="Start the server again.", cause="ending")

    def _begin(self, execution: Execution) -> None:
        self._check_open()
        self._going[execution.run_id] = execution
        task = asyncio.get_running_loop().create_task(self._carried_out(execution))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resume(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        order = _Resume.model_validate_json(await _body(request) or b"{}")
        self._check_open()
        run_id = await self._known(request)
        recovery = await self.runtime.recover(run_id, variables=order.inputs, answers=order.answers)
        execution = self.runtime.execution(
            recovery.prepared,
            model=recovery.model,
            own_models=recovery.own_models,
            timeout=order.timeout,
            max_iterations=recovery.max_iterations,
            interaction=GivenAnswers(order.answers, Unanswered()) if order.answers else None,
            source=recovery.recovered.events[0].payload["source"],
            recovered=recovery.recovered,
        )
        self._begin(execution)
        return JSONResponse({"run_id": execution.run_id}, 201)

    async def _delete(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        deleted = await self.runtime.delete_runs([await self._known(request)])
        return JSONResponse({"deleted": deleted})

    async def _diagrams(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        return JSONResponse({"diagrams": await asyncio.to_thread(available, self.runtime.settings.base_dir)})

    async def _known(self, request: Any) -> str:
        """The id in the path, of a run that there is."""
        run_id = request.path_params["run_id"]
        if run_id not in self._going and await self.runtime.services.store.run(run_id) is None:
            raise _unknown(run_id)
        return run_id

    async def _carried_out(self, execution: Execution) -> None:
        try:
            await self.runtime.run(execution)
        except DipeoError as error:
            _LOG.error("Run %s: %s", execution.run_id, error)
        finally:
            self._going.pop(execution.run_id, None)

    async def _run(self, request: Any) -> Any:
        from starlette.responses import Response

        state = await self._state(request.path_params["run_id"])
        return Response(json_text(state.report()), media_type="application/json")

    async def _state(self, run_id: str) -> RunState:
        if run_id in self._going:
            return self._going[run_id].state
        store = self.runtime.services.store
        summary = await store.run(run_id)
        if summary is None:
            raise _unknown(run_id)
        state = RunState.fold(await store.events(run_id))
        return interrupted(state) if summary.status == Status.INTERRUPTED else state

    async def _stop(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        execution = await self._here(request)
        execution.stop("stopped over HTTP")
        return JSONResponse({"run_id": execution.run_id}, 202)

    async def _answer(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        answer = _Answer.model_validate_json(await _body(request))
        run_id = await self._known(request)
        await self.runtime.answer(run_id, answer.text, node=answer.node, request_id=answer.request_id)
        return JSONResponse({"run_id": run_id}, 202)

    async def _signal(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        execution = await self._here(request)
        signal = _Signal.model_validate_json(await _body(request))
        execution.signal(signal.name, signal.payload)
        return JSONResponse({"run_id": execution.run_id}, 202)

    async def _here(self, request: Any) -> Execution:
        run_id = await self._known(request)
        if run_id not in self._going:
            raise UserError(
                f"Run {run_id} is not running here.", hint="See GET /runs for its state; POST /runs/ID/resume continues it.",
                cause="elsewhere",
            )
        return self._going[run_id]

    # Events.

    async def _events(self, request: Any) -> Any:
        from sse_starlette import EventSourceResponse
        from starlette.responses import Response

        run_id = await self._known(request)
        last = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        if not last.isascii() or not last.isdecimal() or int(last[:20]) > LAST_SEQ:
            raise UserError(f"'{shorten(last)}' is not a number of an event.", hint="Use ?after=SEQ, with the last seq you have.")
        if run_id not in self._going:
            row = await self.runtime.services.store.run(run_id)
            if row is not None and row.status != Status.RUNNING and row.events <= int(last):
                return Response(status_code=204)
        return EventSourceResponse(self._told(run_id, int(last)))

    async def _told(self, run_id: str, after: int) -> AsyncIterator[Mapping[str, Any]]:
        async with aclosing(self.runtime.router.events(run_id, after=after)) as events:
            sent = 0
            async for event in events:
                yield _frame(event)
                sent += 1
                if not sent % FRAMES:  # neither the log nor a client that has gone makes us wait, and others want their turn
                    await asyncio.sleep(0)


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]++\]|[^\[\]:/@\s]++)(?::\d++)?")
"""A host, with a port or without."""


class _Hosts:
    """Refuses requests for names that are not this server's, as DNS rebinding makes them."""

    def __init__(self, app: Any, hosts: tuple[str, ...]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
            found = _HOST.fullmatch(host)
            if found is None or found[1].lower() not in self._hosts:
                hint = f"Ask for it as {', '.join(self._hosts)}."
                await _error(400, "This server is not known by that name (Host).", hint)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _status_of(error: DipeoError) -> int:
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


def _error(status: int, message: str, hint: str, headers: Any = None) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": {"message": message, "hint": hint}}, status, headers=headers)


async def _refused(request: Any, error: Any) -> Any:
    """An unknown path, or a method that it does not take."""
    what = "takes no" if error.status_code == 405 else "is not here, nor is its"
    hint = "GET, POST /runs; GET, DELETE /runs/ID; GET /runs/ID/events; POST /runs/ID/stop, answer, signal, resume; GET /diagrams."
    return _error(error.status_code, f"{request.url.path} {what} {request.method}.", hint, error.headers)


async def _broken(request: Any, error: Exception) -> Any:
    return _error(500, f"The server failed: {type(error).__name__}.", "See its log; this is a defect of dipeo-nb.")


def _frame(event: Event) -> Mapping[str, Any]:
    return {
        "id": str(event.seq),
        "event": str(event.type),
        "data": json_text(event.to_wire()),
    }


def _unknown(run_id: str) -> UserError:
    return UserError(f"There is no run '{run_id}'.", hint="See GET /runs for those there are.", cause="not_found")


async def _body(request: Any) -> bytes:
    from starlette.requests import ClientDisconnect

    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > BODY_LIMIT:
                raise UserError(
                    f"The request has more than {BODY_LIMIT:,} bytes.", hint="Send less; put data into files.", cause="too_large"
                )
    except ClientDisconnect:  # an answer that nobody reads, instead of a traceback in the log
        raise UserError("The request ended before its body did.", hint="Send it again.") from None
    return bytes(body)


def serve(runtime: Runtime, *, host: str, port: int, token: str | None = None, ready: Any = None) -> None:
    """Listen until Ctrl-C or SIGTERM; everything runs on the library's loop.

    Args:
        host: address to listen at; beyond this machine it must be meant, since the token is all that protects it.
        port: 0 chooses a free one.
        ready: called with (server, port) when it listens.

    Raises:
        ConfigurationError: the address cannot be listened at.
        MissingDependencyError: the extra `serve` is not installed.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "uvicorn", extra="serve") from error
    local = host in ("127.0.0.1", "localhost", "::1")
    server = RunServer(runtime, token=token) if local else RunServer(runtime, token=token, hosts=())
    try:
        sock = uvicorn.Config(server.app, host=host, port=port, log_level="warning").bind_socket()
        sock.listen(128)  # from now on nobody is refused, only kept waiting
    except (OSError, SystemExit) as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be listened at: {getattr(error, 'strerror', None) or 'it is in use'}.",
            hint="Choose another port: --port N (DIPEO_PORT), 0 for any free one.",
        ) from error
    config = uvicorn.Config(
        server.app,
        http=protocol(),
        ws="none",
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
    )
    web = uvicorn.Server(config)

    async def run() -> None:
        await server.initialize()
        try:
            if ready is not None:
                ready(server, sock.getsockname()[1])
            await web.serve(sockets=[sock])
        finally:
            await server.cleanup()

    future = submit(run())
    try:
        while not future.done():
            try:
                future.result(0.2)
            except TimeoutError:
                continue
    except KeyboardInterrupt:
        # The runs first, so that those who follow them get the last events before the connections are closed.
        with suppress(TimeoutError):
            submit(server.end()).result(END_S)
        web.should_exit = True
        future.result(15)
    finally:
        sock.close()
