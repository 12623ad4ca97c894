"""An answer while it streams in."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

from dipeo_nb.common.text import inert
from dipeo_nb.common.values import json_text
from dipeo_nb.domain.chat import LLMResponse, StreamEvent
from dipeo_nb.notebook.answer import Answer, ToolUse, line_of, of_response
from dipeo_nb.notebook.answer_markup import one_line, sendable, tail

LIVE_LIMIT = 60_000
"""Characters of text in a notebook that is saved while it streams in (its end)."""
THOUGHT_LIMIT = 160
"""Characters of reasoning shown while it streams in (its end)."""
BAR = 20
"""Characters of the bar of a download."""


class StreamingAnswer:
    """An answer while it streams in: the state after the events so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        """`service:model` of the request."""
        self.began = time.monotonic()
        self.pieces: list[str] = []
        """Text of the current round; another list when it begins again."""
        self.thoughts: list[str] = []
        self.earlier: list[str] = []
        """Text of earlier rounds, before tools were called."""
        self.tools: dict[str, ToolUse] = {}
        self.notices: list[str] = []
        self.status = ""
        """What is happening now, unless text is arriving."""
        self.partial: Any = None
        self.response: LLMResponse | None = None
        self._thought_before = 0
        self._run: set[str] = set()
        """Ids of calls whose round is over: a restart does not undo them."""

    def take(self, event: StreamEvent) -> None:
        """Apply the next event of the stream."""
        data = event.data or {}
        match event.kind:
            case "start":
                self.status = ""
                self._notice(data.get("notice"))
            case "text":
                self.status = ""
                self.pieces.append(event.text)
            case "reasoning":
                self.status = ""
                self.thoughts.append(event.text)
            case "tool_call_start":
                self.status = ""
                self.tools[str(data.get("id"))] = ToolUse(event.text, {})
            case "tool_call_end":
                given = data.get("arguments")
                self.tools[str(data.get("id"))] = ToolUse(event.text, _arguments(given))
            case "tool_result":
                self._tool_answered(str(data.get("id")), event, bool(data.get("is_error")))
            case "partial":
                self.partial = data.get("value")
            case "stream_restarted":
                self._forget()
                self.status = f"starting again: {data.get('reason', '')}"
            case "progress":
                self.status = _progress(event.text, data)
            case "error":
                if "fallback" in data:
                    self._notice(f"{event.text} Asked {data['fallback']} instead.")
                elif "retry_in_s" in data:
                    self.status = f"{event.text} Trying again in {data['retry_in_s']:.1f} s."
                else:
                    self.status = event.text
            case "end":
                self.status = ""
                self.response = event.response
            case _:
                return

    def answer(self, *, stop_reason: str = "", cell: int | None = None) -> Answer:
        """The answer so far, or the complete one.

        Args:
            stop_reason: why it ends here, when it is not complete.
            cell: see `Answer.cell`.
        """
        service, _, model = self.name.partition(":")
        response = self.response or LLMResponse("".join(self.pieces), service, model, structured=None)
        if self.response is None and self.earlier and not response.text:
            response = replace(response, text="\n\n".join(self.earlier))
        return of_response(
            response,
            reasoning="".join(self.thoughts),
            tools_used=tuple(self.tools[i] for i in self.tools if self.response is None or i in self._run),
            notices=tuple(self.notices),
            seconds=time.monotonic() - self.began,
            stopped=self.response is None,
            stop_reason=stop_reason,
            cell=cell,
        )

    def lines(self) -> tuple[str, ...]:
        """What is said above the text: notices, calls of tools, the end of the reasoning before there is text."""
        lines = [f"ℹ {notice}" for notice in self.notices] + [line_of(use) for use in self.tools.values()]
        if self.thoughts and not self.pieces and self.partial is None:
            said = " ".join("".join(self.thoughts).split())
            lines.append(f"💭 {tail(said, THOUGHT_LIMIT)}")
        return tuple(lines)

    def foot(self) -> str:
        """The line below the text: the model, and what is happening."""
        return f"{self.name} · {one_line(self.status) or '…'}"

    def bundle(self) -> dict[str, str]:
        """What a notebook holds of the answer so far."""
        text = tail("".join(self.pieces), LIVE_LIMIT) if self.partial is None else json_text(self.partial, indent=2)
        plain = inert("\n".join(filter(None, (*self.lines(), text, self.foot()))))
        html = f'<section class="mathjax_ignore tex2jax_ignore"><p style="white-space:pre-wrap">{escape(plain)}</p></section>'
        return sendable({"text/html": html, "text/plain": plain})

    def _notice(self, text: Any) -> None:
        if text and str(text) not in self.notices:
            self.notices.append(str(text))

    def _tool_answered(self, call: str, event: StreamEvent, is_error: bool) -> None:
        known = self.tools.get(call)
        name = str((event.data or {}).get("name") or (known.name if known else "tool"))
        self.tools[call] = ToolUse(name, known.arguments if known else {}, event.text, is_error)
        self._run.update(self.tools)
        if said := "".join(self.pieces).strip():
            self.earlier.append(said)
        self.pieces = []
        self.status = ""
        self._thought_before = len(self.thoughts)

    def _forget(self) -> None:
        """Drop what arrived since the last tool results: the model starts the answer again."""
        self.pieces = []
        self.partial = None
        del self.thoughts[self._thought_before :]
        for call in [c for c in self.tools if c not in self._run]:
            del self.tools[call]


def _arguments(given: Any) -> Mapping[str, Any]:
    """The arguments of a call, given as JSON or as a mapping."""
    if isinstance(given, str):
        try:
            given = json.loads(given or "{}")
        except ValueError:
            return {"…": given}
    return given if isinstance(given, Mapping) else {}


def _progress(text: str, data: Mapping[str, Any]) -> str:
    done, total = data.get("done"), data.get("total")
    if not total or done is None:
        return text
    filled = round(BAR * min(1.0, done / total))
    return f"{text} {'█' * filled}{'░' * (BAR - filled)} {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
