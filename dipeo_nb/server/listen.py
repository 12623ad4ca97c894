"""Listens at an address, on the library's loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Literal

from dipeo_nb.common.loop import blocking_result, submit
from dipeo_nb.common.server_connections import protocol
from dipeo_nb.errors import ConfigurationError, MissingDependencyError
from dipeo_nb.runtime import Runtime
from dipeo_nb.server.app import RunServer

END_S = 20.0
"""Seconds that runs have to end when the server shuts down."""


def serve(runtime: Runtime, *, host: str, port: int, token: str | None = None, ready: Any = None) -> None:
    """Listen until Ctrl-C or SIGTERM; everything runs on the library's loop.

    Args:
        host: address to listen at; other machines reach it only when that is intended, as the token alone protects it.
        port: 0 chooses a free one.
        ready: called with (server, port) when it listens.

    Raises:
        ConfigurationError: the address cannot be listened at.
        MissingDependencyError: the extra `serve` is not installed.
    """
    server = RunServer(runtime, token=token) if is_local(host) else RunServer(runtime, token=token, hosts=())

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        await server.initialize()
        try:
            yield
        finally:
            await server.cleanup()

    listen(server.app, opened(), host=host, port=port, end=server.end, ready=lambda port: ready and ready(server, port))


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host in ("127.0.0.1", "localhost", "::1")


def listen(
    app: Any,
    opened: AbstractAsyncContextManager[Any],
    *,
    host: str,
    port: int,
    end: Callable[[], Awaitable[None]],
    ready: Callable[[int], Any],
    lifespan: Literal["on", "off"] = "off",
) -> None:
    """Serve an ASGI application until Ctrl-C or SIGTERM, on the library's loop.

    Args:
        opened: what has to be open meanwhile.
        end: stops what is going on, before connections are closed.
        ready: called with the port when it listens.

    Raises: as `serve`.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "uvicorn", extra="serve") from error
    try:
        sock = uvicorn.Config(app, host=host, port=port, log_level="warning").bind_socket()
        sock.listen(128)  # from now on clients wait instead of being refused
    except (OSError, SystemExit) as error:
        raise ConfigurationError(
            f"{host}:{port} cannot be listened at: {getattr(error, 'strerror', None) or 'it is in use'}.",
            hint="Choose another port: --port N (DIPEO_PORT), 0 for any free one.",
        ) from error
    config = uvicorn.Config(
        app,
        http=protocol(),
        ws="none",
        log_level="warning",
        access_log=False,
        lifespan=lifespan,
        timeout_graceful_shutdown=5,
    )
    web = uvicorn.Server(config)

    async def run() -> None:
        async with opened:
            ready(sock.getsockname()[1])
            await web.serve(sockets=[sock])

    future = submit(run())
    try:
        blocking_result(future)
    except KeyboardInterrupt:
        # The runs first, so that those who follow them get the last events before the connections are closed.
        with suppress(TimeoutError):
            submit(_awaited(end())).result(END_S)
        web.should_exit = True
        future.result(15)
    finally:
        sock.close()


async def _awaited(work: Awaitable[None]) -> None:
    await work
