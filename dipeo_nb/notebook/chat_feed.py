"""What the pages are given of one answer while it streams in: its text by appending, the lines around it when they change."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from dipeo_nb.notebook.answer import Answer, lines_of, summary
from dipeo_nb.notebook.answer_markup import table
from dipeo_nb.notebook.streaming_answer import StreamingAnswer

WHOLE_S = 1.0
"""Seconds between two times that all of an answer is given to pages that have not asked."""


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
        self._told: tuple[tuple[str, ...], str, list[str], int] | None = None
        """What all pages know of: the lines, the line below, the pieces and their number; None when they do not know the same."""
        self._asked = False
        """Whether a page has asked. Until then pages are given all of it once a second: a question may wait until the cell has ended."""
        self._whole_at = 0.0
        self._ended = 0.0

    def end(self, answer: Answer) -> None:
        """Take the complete answer."""
        self._answer, self.changed, self._ended = answer, True, time.monotonic()

    def head(self) -> Mapping[str, Any]:
        return {"kind": "chat", "name": self._seen.name}

    def part(self, room: int) -> dict[str, Any] | None:
        unasked = not self._asked and time.monotonic() - self._whole_at >= WHOLE_S
        if not self.live or not (self.changed or unasked):
            return None
        self.changed, after = False, self.last
        self.last += 1
        seen, known = self._seen, None if unasked else self._told
        if self._answer is not None:
            self.live = False
            return {"after": 0, "last": self.last, "fresh": self._whole(), "live": False, "now": round(self.now(), 3)}
        lines, foot, pieces, _ = self._told = (seen.lines(), seen.foot(), seen.pieces, len(seen.pieces))
        if known is not None and seen.partial is None and known[:2] == (lines, foot) and known[2] is pieces:
            return {"after": after, "last": self.last, "rows": sendable("".join(pieces[known[3] :]))}
        self._whole_at = time.monotonic()
        all_of_it = {} if self._asked else {"head": self.head(), "live": True, "now": round(self.now(), 3)}
        return {"after": 0, "last": self.last, "fresh": self._whole(), **all_of_it}

    def _whole(self) -> dict[str, Any]:
        answer, seen = self._answer, self._seen
        if answer is not None:
            text = answer.text if answer.structured is None else table(answer.structured)
            return {"lines": [sendable(line) for line in lines_of(answer)], "text": sendable(text), "foot": summary(answer)}
        text = "".join(seen.pieces) if seen.partial is None else table(seen.partial)
        return {"lines": [sendable(line) for line in seen.lines()], "text": sendable(text), "foot": sendable(seen.foot())}

    def now(self) -> float:
        return (time.monotonic() if self.live else self._ended) - self._seen.began

    async def given(self, after: int) -> AsyncIterator[dict[str, Any]]:
        self._asked = True
        if self.changed:
            self._told = None  # the page that asks is given more than the others have
        yield {"after": 0, "last": self.last, "fresh": self._whole()}

    async def asked(self, message: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if message.get("type") == "face" and self._answer is not None:
            data, metadata = self._answer._repr_mimebundle_()
            return {"type": "face", "data": data, "metadata": metadata}
        return None


def sendable(text: str) -> str:
    """Without lone surrogates, which cannot be sent to a page."""
    return text.encode("utf-8", "replace").decode()
