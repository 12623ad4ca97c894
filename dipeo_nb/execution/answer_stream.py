"""A person's answer as it comes, sent on to a thread of a chat: `stream_to` of a `person_job`.

The provider needs three operations: `start_stream`, which gives `ts` and takes the fields of `stream_to`, `append_stream(channel, ts,
markdown_text)` and `stop_stream(channel, ts)`; `slack` has them. A message that was begun is always ended, also when the run is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

from dipeo_nb.domain.nodes import PersonJobNode
from dipeo_nb.domain.ports import IntegrationPort
from dipeo_nb.errors import DipeoError, NodeExecutionError
from dipeo_nb.execution.context import NodeContext

INTERVAL_S = 1.0
"""Seconds between two pieces: chats limit how many they take."""
LONGEST = 10_000
"""Characters of a piece at most."""
END_S = 10.0
"""Seconds that ending a message may take when the run is stopped."""
AGAIN = "\n\n_The answer begins again:_\n\n"
Hear = Callable[[str | None], None]
"""Takes pieces of an answer; None: what came before does not count, the answer begins again."""


class _Message:
    """A message of a chat that grows."""

    def __init__(self, context: NodeContext, port: IntegrationPort, target: Mapping[str, Any]) -> None:
        self._context, self._port = context, port
        self._provider = str(target["provider"])
        self._given = {name: value for name, value in target.items() if name != "provider"}
        self._place: dict[str, Any] = {}
        self._text = ""
        """What was not sent yet."""
        self._broken = False
        self._over = asyncio.Event()
        """The answer has ended: what is being sent is not cut off, for nobody would know whether it arrived."""

    async def begin(self) -> None:
        answer = await self._call("start_stream", self._given)
        ts = answer.get("ts") if isinstance(answer, Mapping) else answer
        self._place = {"channel": self._given.get("channel"), "ts": str(ts)}

    def hear(self, piece: str | None) -> None:
        self._text += AGAIN if piece is None else piece

    async def grow(self) -> None:
        """Send pieces until the answer is over, the last one included."""
        over = False
        while not over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    over = await self._over.wait()
            await self.send()

    async def send(self) -> None:
        while self._text.strip() and not self._broken:
            piece, self._text = self._text[:LONGEST], self._text[LONGEST:]
            try:
                await self._call("append_stream", {**self._place, "markdown_text": piece})
            except DipeoError as error:  # the answer itself is none the worse
                self._broken = True
                self._context.log("WARNING", f"The answer is not sent on any more: {error.message} {error.hint or ''}".strip())

    async def end(self, growing: asyncio.Task[None]) -> None:
        self._over.set()
        try:
            await growing
        finally:
            try:
                await self._call("stop_stream", self._place)
            except DipeoError as error:
                self._context.log("WARNING", f"The message could not be ended: {error.message} {error.hint or ''}".strip())

    async def _call(self, operation: str, config: Mapping[str, Any]) -> Any:
        return await self._port.execute(self._provider, operation, config=config)


@contextlib.asynccontextmanager
async def sent_on(context: NodeContext, spec: PersonJobNode) -> AsyncIterator[Hear | None]:
    """What is to hear the answer of a node; None when it is sent nowhere.

    Raises:
        NodeExecutionError: there are no integrations, or `stream_to` names no provider.
        ServiceError: the message cannot be begun.
    """
    if not spec.stream_to:
        yield None
        return
    target = cast(Mapping[str, Any], context.render_within(dict(spec.stream_to)))
    port = context.services.integrations
    if port is None:
        raise NodeExecutionError("There are no integrations here.", hint="Leave out `stream_to`.")
    if not target.get("provider"):
        raise NodeExecutionError(
            "`stream_to` names no provider.", hint="Write stream_to: {provider: slack, channel: …, thread_ts: …}."
        )
    message = _Message(context, port, target)
    await message.begin()
    growing = asyncio.create_task(message.grow())
    try:
        yield message.hear
    finally:
        ending = asyncio.create_task(message.end(growing))
        try:
            await asyncio.wait_for(asyncio.shield(ending), END_S)
        except TimeoutError:
            ending.cancel()
            context.log("WARNING", f"The message could not be ended within {END_S:g} s.")
