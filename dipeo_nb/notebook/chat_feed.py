"""What the pages are given of one answer while it streams in: its text by appending, the lines around it when they change."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from dipeo_nb.notebook.answer import Answer, lines_of, summary
from dipeo_nb.notebook.answer_markup import table
from dipeo_nb.notebook.streaming_answer import StreamingAnswer


class ChatFeed:
    """One answer, as pages see it. On the loop thread, but for what the constructor does."""

    def __init__(self, subject_id: str, seen: StreamingAnswer) -> None:
        self.id = subject_id
        self.live = True
        self.last = 0
        self.changed = False
        """Whether something has come since the pages were given."""
        self._seen = seen
        self._answer: Answer | None = None
        self._told: tuple[tuple[str, ...], str, int] = ((), "", 0)
        """The lines, the line below and the number of pieces that the pages know of."""
        self._ended = 0.0

    def end(self, answer: Answer) -> None:
        """Take the complete answer."""
        self._answer, self.changed, self._ended = answer, True, time.monotonic()

    def head(self) -> Mapping[str, Any]:
        return {"kind": "chat", "name": self._seen.name}

    def part(self, room: int) -> dict[str, Any] | None:
        if not self.changed or not self.live:
            return None
        self.changed, after = False, self.last
        self.last += 1
        seen, (lines, foot, count) = self._seen, self._told
        if self._answer is not None:
            self.live = False
            return {"after": 0, "last": self.last, "fresh": self._whole(), "live": False, "now": round(self.now(), 3)}
        if seen.partial is None and count <= len(seen.pieces) and (seen.lines(), seen.foot()) == (lines, foot):
            text = sendable("".join(seen.pieces[count:]))
            self._told = (lines, foot, len(seen.pieces))
            return {"after": after, "last": self.last, "rows": text}
        return {"after": 0, "last": self.last, "fresh": self._whole()}

    def _whole(self) -> dict[str, Any]:
        answer, seen = self._answer, self._seen
        if answer is not None:
            text = answer.text if answer.structured is None else table(answer.structured)
            return {"lines": [sendable(line) for line in lines_of(answer)], "text": sendable(text), "foot": summary(answer)}
        self._told = (seen.lines(), seen.foot(), len(seen.pieces))
        text = "".join(seen.pieces) if seen.partial is None else table(seen.partial)
        return {"lines": [sendable(line) for line in self._told[0]], "text": sendable(text), "foot": sendable(self._told[1])}

    def now(self) -> float:
        return (time.monotonic() if self.live else self._ended) - self._seen.began

    async def given(self, after: int) -> AsyncIterator[dict[str, Any]]:
        yield {"after": 0, "last": self.last, "fresh": self._whole()}

    async def asked(self, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if message.get("type") == "face" and self._answer is not None:
            data, metadata = self._answer._repr_mimebundle_()
            return {"type": "face", "data": data, "metadata": metadata}
        return None


def sendable(text: str) -> str:
    """Without lone surrogates, which cannot be sent to a page."""
    return text.encode("utf-8", "replace").decode()
