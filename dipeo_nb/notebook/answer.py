"""The answer of a model, as the object that a call returns, and how it is displayed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.short_repr import bounded_repr
from dipeo_nb.common.text import displayed, inert
from dipeo_nb.domain.chat import LLMResponse
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.answer_markup import one_line, sendable, small, table, tool_line, tool_outputs
from dipeo_nb.notebook.safe_markdown import safe
from dipeo_nb.notebook.static_view import money


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One call of a tool that was run for the model."""

    name: str
    arguments: Mapping[str, Any]
    result: str | None = None
    """What the model was given; None when the answer was stopped before."""
    is_error: bool = False

    __repr__ = bounded_repr


@dataclass(frozen=True, slots=True, repr=False)
class Answer(LLMResponse):
    """An `LLMResponse` with more facts for notebooks. `str(answer)` is the text.

    As the last line of the cell that streamed it, it displays nothing more; anywhere else it displays the answer again.
    """

    reasoning: str = ""
    """The reasoning that the model showed."""
    tools_used: tuple[ToolUse, ...] = ()
    """Tools that were run meanwhile; `tool_calls` has the calls that are left to you."""
    notices: tuple[str, ...] = ()
    """What the user should know, such as an option that the model does not support."""
    seconds: float | None = None
    """Duration of the call; None for answers of a batch."""
    stopped: bool = False
    """Whether it was cut off, by the user or by an error; `text` is what had arrived."""
    stop_reason: str = field(default="", compare=False)
    """Why it was cut off; empty when it was not, or the reason is unknown."""
    cell: int | None = field(default=None, compare=False)
    """Number of the cell in which it streamed."""

    def __str__(self) -> str:
        return self.text

    @displayed
    def __repr__(self) -> str:
        said = repr(self.text if len(self.text) <= 200 else self.text[:199] + "…")
        return f"Answer({said}, {summary(self)})"

    def _ipython_display_(self) -> None:
        if not kernel.in_kernel():
            raise NotImplementedError  # IPython then uses the forms below
        if self.cell is None or self.cell != kernel.cell_number():
            from IPython.display import display

            data, metadata = self._repr_mimebundle_()
            display(data, raw=True, metadata=metadata)

    @displayed
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        """text/markdown and text/plain; facts in the metadata `dipeo`."""
        return sendable({"text/markdown": markdown(self), "text/plain": plain(self)}), {"dipeo": facts(self)}


def of_response(response: LLMResponse, **more: Any) -> Answer:
    """Make an answer from a response; *more* are the fields that only answers have."""
    return Answer(**{f.name: getattr(response, f.name) for f in fields(LLMResponse)}, **more)


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
        parts.append(f"stopped: {one_line(answer.stop_reason)}" if answer.stop_reason else "stopped")
    elif answer.finish_reason == "length":
        parts.append("cut off at the limit of tokens")
    return " · ".join(parts)


def facts(answer: Answer) -> dict[str, Any]:
    """The same for programs, as in the metadata of the output."""
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
        parts.append(f"<details><summary>{small('Reasoning')}</summary>\n\n{safe(answer.reasoning.strip())}\n\n</details>")
    if lines := lines_of(answer):
        parts.append(small(*lines))
    if answer.structured is not None:
        parts.append(table(answer.structured))
    elif answer.text.strip():
        parts.append(safe(answer.text))
    if answer.tool_calls:
        parts.append(small(*(tool_line(call.name, call.arguments) for call in answer.tool_calls)))
    parts += tool_outputs(answer.tool_outputs)
    parts.append(small(summary(answer)))
    return "\n\n".join(parts)


def lines_of(answer: Answer) -> list[str]:
    """What is said above the text: warnings, notices, calls of tools."""
    said = [f"⚠ {warning}" for warning in answer.warnings] + [f"ℹ {notice}" for notice in answer.notices]
    return said + [line_of(use) for use in answer.tools_used]


def plain(answer: Answer) -> str:
    """The finished answer as lines of text."""
    text = answer.text if answer.structured is None else json.dumps(to_jsonable_python(answer.structured), indent=2, ensure_ascii=False, default=str)  # fmt: skip
    calls = [tool_line(call.name, call.arguments) for call in answer.tool_calls]
    return inert(
        "\n".join(filter(None, (text, *calls, *(f"⚠ {warning}" for warning in answer.warnings), f"({summary(answer)})")))
    )


def line_of(use: ToolUse) -> str:
    """A call of a tool in one line."""
    return tool_line(use.name, use.arguments, use.result, is_error=use.is_error)


# Where these were before, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "CellDisplay": "dipeo_nb.notebook.answer_display",
            "TextDisplay": "dipeo_nb.notebook.answer_display",
            "Unfolding": "dipeo_nb.notebook.streaming_answer:StreamingAnswer",
            "cell_number": "dipeo_nb.notebook.kernel",
        },
    )
