"""Models of a server: their names, and the download of one that it does not have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, ClassVar

from dipeo_nb.domain.chat import StreamEvent
from dipeo_nb.errors import ModelUnavailableError
from dipeo_nb.llm.core.errors import ErrorContext
from dipeo_nb.llm.providers.ollama.sdk import load_sdk

LISTED = 12
"""Models of the server that an error names at most."""


def full_name(model: str) -> str:
    """A model's name as Ollama compares it: with its tag, without the default registry, in lower case.

    The rules are those of Ollama's types/model/name.go.
    """
    name = model.strip().lower().removeprefix("registry.ollama.ai/").removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class Fetch:
    """One look for a model, and its download if the server does not have it; shared by all calls that wait for it.

    It ends when nobody waits any more: Ollama keeps what arrived and resumes from there next time.
    """

    _running: ClassVar[dict[tuple[asyncio.AbstractEventLoop, str, str], Fetch]] = {}

    def __init__(self, work: Callable[[Fetch], Any]) -> None:
        self._news = asyncio.Event()
        self._text = ""
        self._done = self._total = 0
        self._waiting = 0
        self._task = asyncio.create_task(work(self))
        self._task.add_done_callback(self._ended)

    @classmethod
    async def joined(
        cls, address: str, model: str, connected: Callable[[], Any], context: ErrorContext
    ) -> AsyncGenerator[StreamEvent]:
        """Progress until the server has the model.

        Raises:
            ModelUnavailableError: the server cannot fetch it.
        """
        key = asyncio.get_running_loop(), address, full_name(model)
        fetch = cls._running.get(key)
        if fetch is None or fetch._task.done():
            fetch = cls._running[key] = cls(lambda fetch: fetch._work(connected, model, context))
        fetch._waiting += 1
        try:
            while not fetch._task.done():
                news = fetch._news
                await news.wait()
                if fetch._text and not fetch._task.done():
                    yield StreamEvent("progress", fetch._text, data={"done": fetch._done, "total": fetch._total or None})
            fetch._task.result()
        finally:
            fetch._waiting -= 1
            if fetch._task.done() or not fetch._waiting:
                if cls._running.get(key) is fetch:
                    del cls._running[key]
                fetch._task.cancel()

    async def _work(self, connected: Callable[[], Any], model: str, context: ErrorContext) -> None:
        client = connected()  # its own, as the one of the first call may be closed before the download ends
        try:
            present = [str(m.model) for m in (await client.list()).models]
            if full_name(model) not in {full_name(name) for name in present}:
                await self._pull(client, model, present, context)
        finally:
            await client.close()

    async def _pull(self, client: Any, model: str, present: Sequence[str], context: ErrorContext) -> None:
        layers: dict[str, tuple[int, int]] = {}
        status = ""
        try:
            async with contextlib.aclosing(await client.pull(model, stream=True)) as steps:
                async for step in steps:
                    status = step.status or ""
                    if step.digest and step.total:
                        layers[step.digest] = step.completed or 0, step.total
                    self._done, self._total = (sum(n) for n in zip((0, 0), *layers.values(), strict=True))
                    self._text = f"Fetching {model}" if step.digest else f"Fetching {model}: {status}"
                    self._tell()
        except load_sdk().ResponseError as error:
            raise _unavailable(model, context.harmless(str(error.error)), present, context) from context.cause(error)
        if status != "success":
            raise _unavailable(model, f"the download ended with '{status}'", present, context)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # seen, even if the last who waited has just gone
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _unavailable(model: str, said: str, present: Sequence[str], context: ErrorContext) -> ModelUnavailableError:
    names = ", ".join(sorted(present)[:LISTED]) + (" …" if len(present) > LISTED else "")
    has = f"This server has {names}" if names else "This server has no models yet"
    return ModelUnavailableError(
        f"Ollama cannot fetch the model '{model}': {said.strip().rstrip('.')[:300]}.",
        hint=f"Check the name at https://ollama.com/library. {has}. Or use the embedded model: --model local.",
        **context.facts,
    )
