"""user_response: asks the person at the keyboard. The prompt is a template."""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import urlsplit

from dipeo_nb.common.values import MAX_DIGITS
from dipeo_nb.domain.answer_forms import AnswerForm, Kind
from dipeo_nb.domain.nodes import UserResponseNode
from dipeo_nb.errors import NodeExecutionError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output

TIMEOUT = None
OWN_TIMEOUT = True  # that of the question
QUESTION_TIMEOUT = 60.0
"""Seconds to answer when the node names none (DiPeO's default)."""
ATTEMPTS = 3
"""How often an answer of the wrong kind is asked for again."""


async def execute(context: NodeContext) -> Output:
    spec = cast(UserResponseNode, context.node.spec)
    prompt = context.render(spec.prompt) or f"{context.node.label}?"
    timeout = QUESTION_TIMEOUT if spec.timeout is None else spec.timeout
    form = AnswerForm(cast(Kind, spec.kind or ("choice" if spec.choices else "text")), tuple(map(str, spec.choices)))
    if form.kind == "choice" and not form.choices:
        raise NodeExecutionError(f"'{context.node.label}' has no choices.", hint="List them as `choices`.")
    note, problem = "", None
    for _ in range(ATTEMPTS):
        answer, source = await context.execution.ask(
            context.node, prompt + note, timeout=timeout, default=spec.default, form=form
        )
        problem = form.problem(answer) or wrong(answer, spec.validation_type)
        if problem is None:
            return _output(form, spec, prompt, answer, source)
        if source != "user":
            break
        note = f"\n({problem})"
    raise NodeExecutionError(
        f"The answer to '{context.node.label}' is not a valid {spec.validation_type or form.kind}: {problem}.",
        hint="Answer again, or change the node's validation_type, kind or choices.",
    )


def _output(form: AnswerForm, spec: UserResponseNode, prompt: str, answer: str, source: str) -> Output:
    """What the answer means: the choice, whether it was approved, else the value that `validation_type` makes of it."""
    meta: dict[str, Any] = {"prompt": prompt, "source": source}
    if (choice := form.choice(answer)) is not None:
        return Output(value_of(choice, spec.validation_type), choice, meta=meta)
    if form.kind == "approval" and (decision := form.approval(answer)) is not None:
        return Output(decision.approved, answer, meta={**meta, **({"reason": decision.reason} if decision.reason else {})})
    return Output(value_of(answer, spec.validation_type), answer, meta=meta)


def value_of(answer: str, kind: str | None) -> Any:
    """What a fitting answer means: numbers and booleans for those kinds, else the text. Templates print it as it was typed."""
    text = answer.strip().replace(",", ".")
    if kind == "boolean":
        return text.lower() in ("yes", "true", "y", "1")
    if kind not in ("number", "integer") or len(text) > MAX_DIGITS:
        return answer
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def wrong(answer: str, kind: str | None) -> str | None:
    """Why an answer does not fit the node's `validation_type`; None when it does."""
    text = answer.strip()
    match kind:
        case "number":
            fits = re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", text)
        case "integer":
            fits = re.fullmatch(r"[+-]?\d+", text)
        case "boolean":
            fits = text.lower() in ("yes", "no", "true", "false", "y", "n", "1", "0")
        case "email":
            address = re.fullmatch(r"[^@\s]+@([^@\s]+)", text)
            fits = address is not None and "." in address[1][1:-1]
        case "url":
            parts = urlsplit(text)
            fits = parts.scheme in ("http", "https") and parts.netloc
        case _:
            fits = True
    return None if fits else f"please answer with a {kind}"
