"""A structured answer while it comes."""

from __future__ import annotations

import time
from typing import Any

from dipeo_nb.domain.chat import StreamEvent
from dipeo_nb.llm.answer_json import partial
from dipeo_nb.llm.output_modes import ANSWER_TOOL

PARTIAL_S = 1 / 20
"""Seconds between two views of a structured answer that is still coming."""


class PartialAnswer:
    """A structured answer while it comes."""

    def __init__(self) -> None:
        self._text = ""
        self._next = 0.0
        self._seen: Any = None
        self._own: str | None = None

    def after(self, piece: str) -> StreamEvent | None:
        """What is to be seen after one more piece; None when that is nothing new."""
        self._text += piece
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = now + PARTIAL_S
        value = partial(self._text)
        if value is None or value == self._seen:
            return None
        self._seen = value
        return StreamEvent("partial", data={"value": value})

    def as_text(self, event: StreamEvent) -> StreamEvent | None:
        """An event of the answer's own tool as the text it stands for; those of other tools as they are."""
        call = (event.data or {}).get("id")
        if event.kind == "tool_call_start" and event.text == ANSWER_TOOL:
            self._own = call
        if call != self._own:
            return event
        return StreamEvent("text", event.text) if event.kind == "tool_call_delta" else None
