"""Runs of diagrams in a chat: a message begins one or answers its question, and the reply comes piece by piece.

Which diagram: the one that the message names first (`debate tea or coffee`, `@debate …`, `folder/debate.light.yaml …`), else the
one that is set for the chat, else the only one that is there. The rest of the message is the input.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

from dipeo_nb.common.redaction import redactor
from dipeo_nb.diagram.detect import available
from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import DipeoError, UserError
from dipeo_nb.execution.record import progress_line
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.runtime import Runtime
from dipeo_nb.server.diagram_tools import Asked, DiagramTools, described, inputs_of, place_of, text_of

STOP = "/stop"
"""The message that ends a run which waits for an answer."""
_ENDING = re.compile(r"(\.(light|native|readable))?\.(ya?ml|json)$")


class ChatRuns:
    """The runs of one chat, one at a time. Its methods belong on the library's loop.

    Args:
        diagram: file of the diagram that runs when a message names none.
        model: moves every person.
    """

    def __init__(self, runtime: Runtime, *, diagram: str = "", model: str | None = None) -> None:
        self._runtime = runtime
        self._diagram = diagram
        self._model = model
        self._tools: DiagramTools | None = None
        """Of the run that is going on, or that waits."""
        self._run_id = ""
        self._asked: Asked | None = None

    async def reply(self, text: str) -> AsyncIterator[str]:
        """The pieces of the reply to a message. Leaving early stops the run."""
        try:
            await self._runtime.initialize()
            if self._asked is not None and text.strip() == STOP:
                await self.stop()
                self._asked = None
                yield "Stopped."
                return
            since, after = await self._began(text)
            async for piece in self._followed(since, after):
                yield redactor.text(piece)
        except DipeoError as error:
            yield redactor.text(described(error))

    async def stop(self) -> None:
        """Stop the run that is going on."""
        if self._tools is not None:
            self._tools.stop(self._run_id, "stopped in the chat")

    async def close(self) -> None:
        """Stop what is going on, and close what was opened."""
        if self._tools is not None:
            await self._tools.runs.end("the chat was closed")
        await self._runtime.cleanup()

    async def _began(self, text: str) -> tuple[int, str | None]:
        """Begin a run, or answer the question of the last one: where its events go on."""
        asked, self._asked = self._asked, None
        if asked is not None and self._tools is not None:
            await self._tools.answer(place_of(asked), text.strip())
            return asked.seq, asked.request_id
        name, rest = await asyncio.to_thread(self._chosen, text)
        self._tools = DiagramTools(self._runtime, [name], model=self._model)
        (tool,) = (await asyncio.to_thread(self._tools.tools)).values()
        self._run_id = await self._tools.start(tool.name, inputs_of(tool, rest))
        return 0, None

    async def _followed(self, since: int, after: str | None) -> AsyncIterator[str]:
        tools, run_id = self._tools, self._run_id
        assert tools is not None
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        following = asyncio.create_task(tools.until_it_asks(run_id, since=since, after=after, tell=events.put_nowait))
        following.add_done_callback(lambda _: events.put_nowait(None))
        listed = False
        try:
            while (event := await events.get()) is not None:
                if event.type != EventType.NODE_STARTED and (line := progress_line(event)) is not None:
                    listed = True
                    yield f"- {line}\n"
            found = await following
        finally:
            if not following.done():  # who reads has left
                following.cancel()
                tools.stop(run_id, "stopped in the chat")
        begins = "\n" if listed else ""
        if isinstance(found, RunState):
            self._tools = None
            yield begins + (text_of(found) or f"The run has ended ({Status(found.status).value}), without an output.")
            return
        self._asked = found
        default = f" (default: {found.default})" if found.default else ""
        yield f"{begins}{found.prompt}{default}\n\nThe next message is the answer; {STOP} ends the run."

    def _chosen(self, text: str) -> tuple[str, str]:
        """The file of the diagram that a message means, and the rest of the message. Raises UserError."""
        base = self._runtime.settings.base_dir
        known = _known(base)
        rest = text.strip()
        while rest:
            word, _, behind = rest.partition(" ") if " " in rest.split("\n", 1)[0] else rest.partition("\n")
            name = word.rstrip(":,").strip("`").removeprefix("@")
            if found := known.get(name):
                if len(found) > 1:
                    raise UserError(f"'{name}' may be {' or '.join(found)}.", hint="Name one of them by its path.")
                return found[0], behind.strip()
            if not word.startswith("@"):
                break
            rest = behind.strip()  # the name of the one who was addressed
        if self._diagram:
            return self._diagram, rest
        files = available(base)
        if len(files) == 1:
            return files[0], rest
        raise UserError(
            "Which diagram?" if files else "There is no diagram here.",
            hint=f"Begin the message with its name: {', '.join(files[:20])}."
            if files
            else f"Put a *.light.yaml file into {base}.",
        )


def _known(base: Path) -> dict[str, list[str]]:
    """Name → files: each by its path, its name, and its name without the ending."""
    known: dict[str, list[str]] = {}
    for file in available(base):
        for name in dict.fromkeys((file, Path(file).name, _ENDING.sub("", Path(file).name))):
            known.setdefault(name, []).append(file)
    return known
