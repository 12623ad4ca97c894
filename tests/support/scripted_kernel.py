"""A service that yields given events, and an IPython shell of this process that looks like a kernel and keeps what it shows."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.errors import LLMError
from dipeo_nb.testing import ScriptedClient


def text_event(piece: str) -> StreamEvent:
    """A piece of text."""
    return StreamEvent("text", piece)


def end(text: str = "", **more: Any) -> StreamEvent:
    """The last event of an answer of `test:m`."""
    facts = {"usage": TokenUsage(7, 3), "cost_usd": 0.0012, "finish_reason": "stop", **more}
    return StreamEvent("end", response=LLMResponse(text, "test", "m", **facts))


class ScriptedEvents(ScriptedClient):
    """A service that yields given events. An error among them is raised; a number is a pause in seconds (-1: forever)."""

    def __init__(self, events: Iterable[StreamEvent | LLMError | float]) -> None:
        super().__init__()
        self.events = list(events)
        self.closed = 0
        self.waits = threading.Event()
        """Set where it pauses forever: everything before was consumed."""

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        self.requests.append(request)
        try:
            for event in self.events:
                if isinstance(event, StreamEvent):
                    yield event
                elif isinstance(event, LLMError):
                    raise event
                elif event >= 0:
                    await asyncio.sleep(event)
                else:
                    self.waits.set()
                    await asyncio.sleep(3600)
        finally:
            self.closed += 1


class Shown(NamedTuple):
    """One message to the page."""

    at: float
    update: bool
    display_id: str | None
    data: dict[str, str]
    metadata: dict[str, Any]


class Publisher(DisplayPublisher):
    """Keeps what would be sent."""

    def publish(self, data: Any, metadata: Any = None, *, transient: Any = None, update: bool = False, **_: Any) -> None:
        display_id = (transient or {}).get("display_id")
        self.sent.append(Shown(time.monotonic(), update, display_id, dict(data), dict(metadata or {})))

    @property
    def sent(self) -> list[Shown]:
        return self.__dict__.setdefault("_sent", [])


@contextmanager
def own_shell(*, kernel: bool) -> Iterator[InteractiveShell]:
    """An IPython of this process; with *kernel* it looks like one of a notebook. `shell.display_pub.sent` is what it showed."""
    config = Config()
    config.HistoryManager.enabled = False
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=config, display_pub_class=Publisher)
    if kernel:
        shell.kernel = None  # type: ignore[attr-defined]
    try:
        yield shell
    finally:
        shell.reset(new_session=False)
        shell.restore_sys_module_state()
        InteractiveShell.clear_instance()
