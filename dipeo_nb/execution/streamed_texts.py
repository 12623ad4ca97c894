"""Texts that nodes write piece by piece, until they are events: all pieces of a text that come between two commits are one event.

A model sends ten to hundreds of pieces a second. Of each only its text is kept here; secrets are looked for, and an event is made,
signed, stored, folded and shown, once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.payloads import STREAMED

LONGEST = 16_384
"""Characters of an event, about: of a program that prints very much there are several."""


class StreamedText:
    """One text of a node."""

    __slots__ = ("_count", "_payload", "_pieces", "_size", "_stream", "at", "node_id")

    def __init__(self, node_id: str) -> None:
        self.node_id: str = node_id
        self.at = 0.0
        """When the first piece came that is in no event yet."""
        self._pieces: list[str] = []
        """Those that are in no event yet."""
        self._size = self._count = 0
        self._payload: Mapping[str, Any] = {}
        self._stream = redactor.stream()

    @property
    def waits(self) -> bool:
        """Whether pieces are in no event yet."""
        return bool(self._pieces)

    def takes(self, payload: Mapping[str, Any]) -> bool:
        """Whether a piece can be in one event with those that wait."""
        return self._size < LONGEST and {**payload, "text": ""} == self._payload and "restart" not in payload

    def begin(self, payload: Mapping[str, Any], at: float) -> None:
        """The next pieces are like this one."""
        if payload.get("restart"):
            self._stream, self._count = redactor.stream(), 0
        self._payload, self.at = {**payload, "text": ""}, at

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        self._size += len(piece)

    def taken(self) -> Mapping[str, Any] | None:
        """The payload of an event with all that came, without secrets; None when the end waits for the next piece, as it may be the
        beginning of one, and there is nothing before it."""
        text = "".join(self._pieces)
        self._count += len(self._pieces)
        self._pieces, self._size = [], 0
        shown = self._stream.feed(text)
        return None if text and not shown else self._shown(shown)

    def rest(self) -> Mapping[str, Any] | None:
        """The payload of an event with what was held back; None when nothing was."""
        rest = self._stream.rest()
        return self._shown(rest) if rest else None

    def _shown(self, text: str) -> Mapping[str, Any]:
        count, self._count = self._count, 0
        pieces = {"pieces": count} if count > 1 else {}
        return {**self._payload, "text": text, **pieces}


class NewText(NamedTuple):
    """What is to be an event."""

    node_id: str
    at: float
    payload: Mapping[str, Any]


class StreamedTexts:
    """Those of one run."""

    def __init__(self) -> None:
        self.known: dict[str, dict[Any, StreamedText]] = {}
        """Those of nodes at work, by node."""
        self.waiting: list[StreamedText] = []
        """Those with pieces that are in no event yet, in the order in which these came."""

    def of(self, node_id: str, payload: Mapping[str, Any]) -> StreamedText | None:
        """The text that a piece of output belongs to; None: it is something else."""
        kind = payload.get("kind")
        if kind not in STREAMED or not isinstance(payload.get("text"), str):
            return None
        name = kind, payload.get("run"), payload.get("call_id")
        texts = self.known.get(node_id)
        if texts is None:
            texts = self.known[node_id] = {}
        text = texts.get(name)
        if text is None:
            text = texts[name] = StreamedText(node_id)
        return text

    def take(self) -> Iterator[NewText]:
        """What came since the last time."""
        waiting, self.waiting = self.waiting, []
        for text in waiting:
            if (payload := text.taken()) is not None:
                yield NewText(text.node_id, text.at, payload)

    def end(self, node_id: str) -> list[Mapping[str, Any]]:
        """The node writes no more: what was held back of its texts. All that came was taken."""
        texts = self.known.pop(node_id, {}).values()
        return [payload for text in texts if (payload := text.rest()) is not None]
