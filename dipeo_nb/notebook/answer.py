"""An answer of a model: as it comes, as it is shown in a cell, and as the object that stays."""

from __future__ import annotations

import asyncio
import contextvars
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pydantic_core import to_jsonable_python

from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.common.text import displayed, inert
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.chat import LLMResponse, StreamEvent
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.safe_markdown import literal, safe
from dipeo_nb.notebook.static_view import money

INTERVAL_S = 0.05
"""Seconds between two updates of a cell: jupyter_server drops everything beyond 1000 messages a second."""
SHARE = 0.1
"""Of the time, at most this much goes into drawing one answer."""
LIVE_LIMIT = 60_000
"""Characters of text shown while it comes (its end)."""
THOUGHT_LIMIT = 160
"""Characters of reasoning shown while it comes (its end)."""
LINE_LIMIT = 120
"""Characters of a tool's arguments, and of its result, in the line that reports it."""
ROWS = 200
"""Rows of a structured answer shown."""
BAR = 20
"""Characters of the bar of a download."""
_IMAGE = re.compile(r"image/[\w.+-]+")
_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One call of a tool that was run for the model."""

    name: str
    arguments: Mapping[str, Any]
    result: str | None = None
    """What the model was told; None when the answer was stopped before."""
    is_error: bool = False

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True, repr=False)
class Answer(LLMResponse):
    """An `LLMResponse` with what a notebook wants to know. `str(answer)` is the text.

    As the last line of the cell that streamed it, it shows nothing more; anywhere else it shows the answer again.
    """

    reasoning: str = ""
    """What the model thought aloud."""
    tools_used: tuple[ToolUse, ...] = ()
    """Tools that were run on the way; `tool_calls` has those that are left to you."""
    notices: tuple[str, ...] = ()
    """What you should know, such as an option that the model does not take."""
    seconds: float | None = None
    """From the call to its end; None for answers of a batch."""
    stopped: bool = False
    """Whether it was cut off, by you or by an error; `text` is what had come."""
    told: str = field(default="", compare=False)
    """Why it was cut off."""
    cell: int | None = field(default=None, compare=False)
    """Number of the cell that showed it while it came."""

    def __str__(self) -> str:
        return self.text

    @displayed
    def __repr__(self) -> str:
        said = repr(self.text if len(self.text) <= 200 else self.text[:199] + "…")
        return f"Answer({said}, {summary(self)})"

    def _ipython_display_(self) -> None:
        if not kernel.in_kernel():
            raise NotImplementedError  # IPython then uses the forms below
        if self.cell is None or self.cell != cell_number():
            from IPython.display import display

            data, metadata = self._repr_mimebundle_()
            display(data, raw=True, metadata=metadata)

    @displayed
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        """text/markdown and text/plain; facts in the metadata `dipeo`."""
        return _sendable({"text/markdown": markdown(self), "text/plain": plain(self)}), {"dipeo": facts(self)}


class Unfolding:
    """An answer while it comes: the fold of its stream's events."""

    def __init__(self, name: str) -> None:
        self.name = name
        """`service:model` as asked for."""
        self.began = time.monotonic()
        self.pieces: list[str] = []
        """Text of the round that goes on."""
        self.thoughts: list[str] = []
        self.earlier: list[str] = []
        """Text before tools were called."""
        self.tools: dict[str, ToolUse] = {}
        self.notices: list[str] = []
        self.status = ""
        """What happens just now, when that is not text."""
        self.partial: Any = None
        self.response: LLMResponse | None = None
        self._thought_before = 0
        self._run: set[str] = set()
        """Calls whose round is over: a restart does not undo them."""

    def take(self, event: StreamEvent) -> None:
        """One more event of the stream."""
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

    def answer(self, *, told: str = "", cell: int | None = None) -> Answer:
        """What has come so far, or the whole.

        Args:
            told: why it ends here, when it is not whole.
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
            told=told,
            cell=cell,
        )

    def bundle(self) -> dict[str, str]:
        """How it looks while it comes."""
        parts: list[str] = []
        text = "".join(self.pieces)
        lines = [f"ℹ {notice}" for notice in self.notices] + [_use(use) for use in self.tools.values()]
        if self.thoughts and not text and self.partial is None:
            said = " ".join("".join(self.thoughts).split())
            lines.append(f"💭 {_end(said, THOUGHT_LIMIT)}")
        if lines:
            parts.append(_small(*lines))
        if self.partial is not None:
            parts.append(_table(self.partial))
        elif text.strip():
            parts.append(safe(_end(text, LIVE_LIMIT)))
        parts.append(_small(f"{self.name} · {_line(self.status) or '…'}"))
        return _sendable({"text/markdown": "\n\n".join(parts), "text/plain": inert(text or self.status) or "…"})

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
        self.pieces.clear()
        self.status = ""
        self._thought_before = len(self.thoughts)

    def _forget(self) -> None:
        """The model answers anew: what came since the last results of tools never was."""
        self.pieces.clear()
        self.partial = None
        del self.thoughts[self._thought_before :]
        for call in [c for c in self.tools if c not in self._run]:
            del self.tools[call]


class CellDisplay:
    """One answer in one output of a cell, under one display id. Made and shown in the cell; `changed` on the loop thread.

    Few updates however fast the pieces come; the last one is the whole answer and needs no kernel.
    """

    def __init__(self, seen: Unfolding) -> None:
        self._seen = seen
        self._handle: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0
        self.cell = cell_number()

    def show(self) -> None:
        """Display what there is, which is nothing yet, in the running cell."""
        from IPython.core.displaypub import CapturingDisplayPublisher
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        if isinstance(getattr(get_ipython(), "display_pub", None), CapturingDisplayPublisher):
            return  # %%capture would keep every update as an output of its own
        self._handle = display(self._seen.bundle(), raw=True, display_id=True)

    def changed(self) -> None:
        """Draw soon. A busy loop that lets no timer through is seen by the clock."""
        now = time.monotonic()
        if self._handle is None or (now < self._next and self._timer is not None):
            return
        if now >= self._next:
            self._paint()
        else:
            self._timer = asyncio.get_running_loop().call_later(self._next - now, self._paint)

    def finish(self, answer: Answer) -> None:
        """The last update."""
        self._unset()
        data, metadata = answer._repr_mimebundle_()
        if self._handle is None:
            from IPython.display import display

            display(data, raw=True, metadata=metadata)
        else:
            self._update(data, metadata)

    def _paint(self) -> None:
        self._unset()
        began = time.monotonic()
        self._update(self._seen.bundle())
        now = time.monotonic()
        self._next = now + max(INTERVAL_S, (now - began) / SHARE)

    def _update(self, data: Mapping[str, str], metadata: Mapping[str, Any] | None = None) -> None:
        # An empty context: the update belongs to the display, not to the cell that happens to run now.
        contextvars.Context().run(self._handle.update, dict(data), raw=True, metadata=dict(metadata or {}))

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class TextDisplay:
    """One answer in a terminal: its text on stdout as it comes, all else on stderr."""

    cell = None

    def __init__(self, seen: Unfolding) -> None:
        self._seen = seen
        self._written = 0
        self._tools: set[str] = set()
        self._line_open = False

    def show(self) -> None:
        """Nothing yet."""

    def changed(self) -> None:
        seen = self._seen
        if self._written > len(seen.pieces):  # forgotten, or a new round
            self._written = 0
            self._break()
        for call, use in seen.tools.items():
            if use.result is not None and call not in self._tools:
                self._tools.add(call)
                self._break()
                sys.stderr.write(f"{inert(_use(use))}\n")
        if len(seen.pieces) > self._written:
            piece = "".join(seen.pieces[self._written :])
            self._written = len(seen.pieces)
            self._line_open = not piece.endswith("\n")
            sys.stdout.write(inert(piece) if sys.stdout.isatty() else piece)
            sys.stdout.flush()

    def finish(self, answer: Answer) -> None:
        self.changed()
        self._break()
        for notice in (*answer.warnings, *answer.notices):
            sys.stderr.write(f"{inert(notice)}\n")
        sys.stderr.write(f"{inert(summary(answer))}\n")

    def _break(self) -> None:
        if self._line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._line_open = False


def of_response(response: LLMResponse, **more: Any) -> Answer:
    """An answer out of a response; *more* are the fields that only answers have."""
    return Answer(**{f.name: getattr(response, f.name) for f in fields(LLMResponse)}, **more)


def cell_number() -> int | None:
    """The number of the running cell; None outside IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return None if shell is None else int(shell.execution_count)


# How an answer looks.


def summary(answer: Answer) -> str:
    """Model, tokens, cost and time in one line."""
    parts = [f"{answer.provider}:{answer.model}" if answer.model else answer.provider]
    if (total := answer.usage.total) is not None:
        parts.append(f"{total:,} tokens")
    if answer.cached:
        saved = f", saved {money(answer.saved_usd)}" if answer.saved_usd else ""
        parts.append(f"recorded{saved}")
    elif not answer.stopped:
        parts.append(money(answer.cost_usd))
    if answer.seconds is not None:
        parts.append(f"{answer.seconds:.1f} s")
    if answer.stopped:
        parts.append(f"stopped: {_line(answer.told)}" if answer.told else "stopped")
    elif answer.finish_reason == "length":
        parts.append("cut off at the limit of tokens")
    return " · ".join(parts)


def facts(answer: Answer) -> dict[str, Any]:
    """The same for programs, as it stands in the metadata of the output."""
    return {
        "provider": answer.provider,
        "model": answer.model,
        "usage": answer.usage.to_dict(),
        "cost_usd": answer.cost_usd,
        "seconds": None if answer.seconds is None else round(answer.seconds, 3),
        "finish_reason": answer.finish_reason,
        "cached": answer.cached,
        "stopped": answer.stopped,
        **({"warnings": list(answer.warnings)} if answer.warnings else {}),
    }


def markdown(answer: Answer) -> str:
    """The finished answer."""
    parts: list[str] = []
    if answer.reasoning.strip():
        parts.append(
            f"<details><summary>{_small('Reasoning')}</summary>\n\n{safe(answer.reasoning.strip())}\n\n</details>"
        )
    lines = [f"⚠ {warning}" for warning in answer.warnings] + [f"ℹ {notice}" for notice in answer.notices]
    lines += [_use(use) for use in answer.tools_used]
    if lines:
        parts.append(_small(*lines))
    if answer.structured is not None:
        parts.append(_table(answer.structured))
    elif answer.text.strip():
        parts.append(safe(answer.text))
    if answer.tool_calls:
        parts.append(_small(*(_use(ToolUse(call.name, call.arguments)) for call in answer.tool_calls)))
    parts += _outputs(answer.tool_outputs)
    parts.append(_small(summary(answer)))
    return "\n\n".join(parts)


def plain(answer: Answer) -> str:
    """The finished answer as lines of text."""
    text = answer.text if answer.structured is None else json.dumps(_value(answer.structured), indent=2, ensure_ascii=False, default=str)  # fmt: skip
    calls = [_use(ToolUse(call.name, call.arguments)) for call in answer.tool_calls]
    return inert("\n".join(filter(None, (text, *calls, *(f"⚠ {warning}" for warning in answer.warnings), f"({summary(answer)})"))))


def _small(*lines: str) -> str:
    """Lines that step back behind the answer."""
    return f'<small style="opacity:.7">{"<br>".join(map(literal, lines))}</small>'


def _use(use: ToolUse) -> str:
    given = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False, default=str)}" for name, value in use.arguments.items()
    )
    call = f"🔧 {use.name}({_line(given)})"
    if use.result is None:
        return call
    return f"{call} {'failed:' if use.is_error else '→'} {_line(use.result)}"


def _table(value: Any) -> str:
    """A structured answer as a table: fields and values, or rows of a list."""
    value = _value(value)
    if isinstance(value, Mapping):
        head, rows = ("field", "value"), list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str):
        records = [row for row in value if isinstance(row, Mapping)]
        if records and len(records) == len(value):
            names = list(dict.fromkeys(name for row in records for name in row))
            head, rows = tuple(names), [tuple(row.get(name, "") for name in names) for row in records]
        else:
            head, rows = ("", "value"), list(enumerate(value, 1))
    else:
        return literal(_cell(value))
    lines = ["| " + " | ".join(literal(str(name)) for name in head) + " |", "|" + " :--- |" * len(head)]
    lines += ["| " + " | ".join(_in_cell(cell) for cell in row) + " |" for row in rows[:ROWS]]
    more = "\n\n" + _small(f"… and {len(rows) - ROWS} more rows") if len(rows) > ROWS else ""
    return "\n".join(lines) + more


def _in_cell(value: Any) -> str:
    return "<br>".join(literal(line) for line in _cell(value).split("\n"))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _value(value: Any) -> Any:
    return to_jsonable_python(value)


def _outputs(outputs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Images and sources that built-in tools gave."""
    images = [
        f"![image](data:{o['media_type']};base64,{_BASE64.sub('', str(o['data']))})"
        for o in outputs
        if o.get("type") == "image" and o.get("data") and _IMAGE.fullmatch(str(o.get("media_type")))
    ]
    links = dict.fromkeys(
        (str(o["url"]), str(o.get("title") or o["url"]))
        for o in outputs
        if o.get("type") == "citation" and str(o.get("url", "")).startswith(("https://", "http://"))
    )
    sources = "\n".join(f"{n}. [{literal(_line(title))}](<{_address(url)}>)" for n, (url, title) in enumerate(links, 1))
    return [*images, *([sources] if sources else [])]


def _address(url: str) -> str:
    return "".join(c if c not in "<>\\\"'`" and c.isprintable() and not c.isspace() else f"%{ord(c):02X}" for c in url)


def _sendable(data: Mapping[str, str]) -> dict[str, str]:
    """Without half characters, which cannot be sent to the page."""
    return {kind: text.encode("utf-8", "replace").decode() for kind, text in data.items()}


def _arguments(given: Any) -> Mapping[str, Any]:
    """The arguments of a call, which come as JSON or as a mapping."""
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


def _line(text: str) -> str:
    return clean(text, LINE_LIMIT)


def _end(text: str, limit: int) -> str:
    return text if len(text) <= limit else "…" + text[-limit + 1 :]
