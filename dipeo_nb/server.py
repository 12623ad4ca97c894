"""`dipeo-nb serve`: runs over HTTP, their events as server-sent events. One process, this machine by default, a token for everything.

| request | answer |
|---|---|
| `GET /health` | `{"status": "ok"}`; the only one without a token |
| `GET /runs?limit=&status=&diagram=&parent=&nested=` | the run history, newest first |
| `POST /runs` `{"diagram": NAME, "inputs": {…}, "model": …, "answers": {…}, "timeout": S}` | 201, `{"run_id": …}` |
| `GET /runs/ID` | status, outputs, usage, cost … as `run --json` |
| `GET /runs/ID/events?after=SEQ` | every event after SEQ (or `Last-Event-ID`), stored ones first, then live, to the end of the run |
| `POST /runs/ID/stop`, `POST /runs/ID/answer` `{"text": …, "request_id": …}` | 202 |
| `POST /runs/ID/signal` `{"name": …, "payload": {…}}` | 202; an event that a hook or a start node waits for |

The token goes into `Authorization: Bearer TOKEN`, or `?token=` for an EventSource of a browser. Diagrams are named, never sent, and lie
below the base directory, so no code comes in over the wire.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.common.loop import submit
from dipeo_nb.common.scrub import logger, redactor
from dipeo_nb.common.values import json_text
from dipeo_nb.container import Runtime
from dipeo_nb.diagram.document import load_named
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import ConfigurationError, DiagramNotFoundError, DipeoError, MissingDependencyError, UserError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.fold import RunState, interrupted
from dipeo_nb.execution.interaction import GivenAnswers
from dipeo_nb.execution.nested import check_answers

BODY_LIMIT = 1024 * 1024
"""Bytes of a request at most."""
_LOG = logger(__name__)


class _Start(BaseModel):
    """The body of `POST /runs`."""

    model_config = ConfigDict(extra="forbid")

    diagram: str = Field(min_length=1, max_length=1000)
    inputs: dict[str, Any] = {}
    model: str | None = None
    answers: dict[str, str | list[str]] = {}
    timeout: float | None = Field(default=None, gt=0)


class _Answer(BaseModel):
    """The body of `POST /runs/ID/answer`."""

    model_config = ConfigDict(extra="forbid")

    text: str
    request_id: str | None = None


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
            from starlette.middleware.trustedhost import TrustedHostMiddleware
            from starlette.routing import Route
        except ImportError as error:
            raise MissingDependencyError.for_extra(error.name or "starlette", "serve") from error
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
        ]
        hosted = [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))] if hosts else []
        self.app = Starlette(routes=routes, middleware=hosted)

    async def initialize(self) -> None:
        """Open the runtime."""
        await self.runtime.initialize()

    async def cleanup(self) -> None:
        """Stop the runs that were started here and close the runtime."""
        for execution in self._going.values():
            execution.stop("the server ends")
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.runtime.cleanup()

    # Requests.

    def _guarded(self, handle: Any) -> Any:
        """*handle* for those who know the token; errors as JSON with the next action."""
        from starlette.responses import JSONResponse

        async def guarded(request: Any) -> Any:
            given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.query_params.get(
                "token", ""
            )
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                hint = "Send the token that `dipeo-nb serve` printed: Authorization: Bearer TOKEN."
                return JSONResponse({"error": {"message": "The token is missing or wrong.", "hint": hint}}, 401)
            try:
                return await handle(request)
            except PydanticValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                message = f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}."
                return JSONResponse({"error": {"message": message, "hint": "See `dipeo-nb serve --help`."}}, 422)
            except DipeoError as error:
                unknown = isinstance(error, DiagramNotFoundError) or error.facts.get("cause") == "not_found"
                status = 404 if unknown else 400 if isinstance(error, UserError) else 500
                told = {"type": type(error).__name__, "message": error.message, "hint": error.hint}
                return JSONResponse({"error": redactor(told)}, status)

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
            raise UserError("`limit` is no whole number.", hint="Say ?limit=50.") from None
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
        if "\n" in order.diagram or order.diagram.lstrip().startswith("{"):
            raise UserError(
                "A diagram is named here, not sent.", hint="Save it below the base directory and send its name."
            )
        base = self.runtime.settings.base_dir
        document = await asyncio.to_thread(load_named, order.diagram, base)  # never beyond the base directory
        plan = await asyncio.to_thread(self.runtime.prepare, document)
        await asyncio.to_thread(check_answers, order.answers, plan, base)
        answers = GivenAnswers(order.answers) if order.answers else None
        execution = self.runtime.execution(
            plan,
            variables=order.inputs,
            model=order.model,
            timeout=order.timeout,
            interaction=answers,
            source=json.loads(document.to_text("native")),
        )
        self._going[execution.run_id] = execution
        task = asyncio.get_running_loop().create_task(self._carried_out(execution))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return JSONResponse({"run_id": execution.run_id}, 201)

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

        execution = self._here(request.path_params["run_id"])
        execution.stop("stopped over HTTP")
        return JSONResponse({"run_id": execution.run_id}, 202)

    async def _answer(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        execution = self._here(request.path_params["run_id"])
        answer = _Answer.model_validate_json(await _body(request))
        question = execution.state.pending_question or {}
        request_id = answer.request_id or question.get("request_id")
        if request_id is None or str(request_id) not in execution.state.questions:
            raise UserError(
                f"No question {request_id!r} waits for an answer." if request_id else "No question waits for an answer.",
                hint="Wait for an interactive_prompt event, and answer with its request_id.",
                cause="not_found",
            )
        execution.answer(str(request_id), answer.text)
        return JSONResponse({"run_id": execution.run_id}, 202)

    async def _signal(self, request: Any) -> Any:
        from starlette.responses import JSONResponse

        execution = self._here(request.path_params["run_id"])
        signal = _Signal.model_validate_json(await _body(request))
        execution.signal(signal.name, signal.payload)
        return JSONResponse({"run_id": execution.run_id}, 202)

    def _here(self, run_id: str) -> Execution:
        if run_id not in self._going:
            raise UserError(f"Run {run_id} does not go on here.", hint="See GET /runs for those there are.")
        return self._going[run_id]

    # Events.

    async def _events(self, request: Any) -> Any:
        from sse_starlette import EventSourceResponse

        run_id = request.path_params["run_id"]
        if run_id not in self._going and await self.runtime.services.store.run(run_id) is None:
            raise _unknown(run_id)
        last = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        if not last.isdecimal():
            raise UserError(f"'{last}' is no number of an event.", hint="Say ?after=SEQ, with the last seq you have.")
        return EventSourceResponse(self._told(run_id, int(last)))

    async def _told(self, run_id: str, after: int) -> AsyncIterator[Mapping[str, Any]]:
        async with aclosing(self.runtime.router.events(run_id, after=after)) as events:
            async for event in events:
                yield _frame(event)


def _frame(event: Event) -> Mapping[str, Any]:
    return {
        "id": str(event.seq),
        "event": str(event.type),
        "data": json_text(event.to_wire()),
    }


def _unknown(run_id: str) -> UserError:
    return UserError(f"There is no run '{run_id}'.", hint="See GET /runs for those there are.", cause="not_found")


async def _body(request: Any) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_LIMIT:
            raise UserError(f"The request has more than {BODY_LIMIT:,} bytes.", hint="Send less; put data into files.")
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
        raise MissingDependencyError.for_extra(error.name or "uvicorn", "serve") from error
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
        server.app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5
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
        web.should_exit = True
        future.result(15)
    finally:
        sock.close()
