"""What is asked of a server about a run that it has just begun, before the store has anything of that: a slow disk, a server far away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.events import Event
from dipeo_nb.runtime import Runtime
from dipeo_nb.server import RunServer
from tests.support.row_diagrams import ASKS


@asynccontextmanager
async def client_of(server: RunServer) -> AsyncIterator[httpx.AsyncClient]:
    await server.initialize()
    transport = httpx.ASGITransport(server.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x", params={"token": server.token}) as client:
        yield client
    await server.cleanup()


def test_the_head_and_the_events_of_a_run_that_is_not_recorded_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its page has the drawing, and a resumed run does not end with the end of its former process."""
    (tmp_path / "asks.light.yaml").write_text(ASKS)
    runtime = Runtime(Settings(base_dir=tmp_path))
    server, held, ready = RunServer(runtime, hosts=()), asyncio.Event(), asyncio.Event()
    append = runtime.services.store.append

    async def slowly(events: Sequence[Event]) -> None:
        held.set()
        await ready.wait()
        await append(events)

    async def go() -> None:
        async with client_of(server) as client:
            monkeypatch.setattr(runtime.services.store, "append", slowly)
            run_id = (await client.post("/runs", json={"diagram": "asks"})).json()["run_id"]
            await held.wait()
            asking = asyncio.ensure_future(client.get(f"/runs/{run_id}/head"))
            await asyncio.sleep(0.1)
            ready.set()
            head = (await asking).json()
            assert head["svg"].startswith("<svg")
            assert (head["live"], head["now"] < 3600) == (True, True)
            await client.post(f"/runs/{run_id}/stop")
            first = (await client.get(f"/runs/{run_id}/events")).text
            assert first.count("event: execution_") == 2
            held.clear()
            ready.clear()
            await client.post(f"/runs/{run_id}/resume", json={"answers": {"Name": "Ada"}})
            await held.wait()
            asking = asyncio.ensure_future(client.get(f"/runs/{run_id}/events"))
            await asyncio.sleep(0.1)
            ready.set()
            assert (await asking).text.count("event: execution_") == 4

    run_sync(go())
