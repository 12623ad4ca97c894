"""Templates and conditions of a run, evaluated so that they never hold it up.

Nearly all are small and are evaluated where they stand. One that turns out to take more is given up and evaluated again in a worker
process, which a time limit, a stop or the end of the run kills. Evaluations have no effects, so the second attempt is as good as the
first; a handler that asked for a text in the middle of its work is begun again when the text is there (`SlowEvaluationError`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from dipeo_nb.common import lazy
from dipeo_nb.common.values import is_plain, plain_value
from dipeo_nb.diagram.expressions import evaluate
from dipeo_nb.diagram.metering import NotQuickError, quick
from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from dipeo_nb.domain.ports import TemplateProcessorPort, TemplateResult
from dipeo_nb.errors import ExpressionError, NodeExecutionError, NodeTimeoutError
from dipeo_nb.execution.shell_text import Values

if TYPE_CHECKING:
    from dipeo_nb import workers
    from dipeo_nb.diagram import file_templates
else:
    workers = lazy.module("dipeo_nb.workers")  # only for what takes long
    file_templates = lazy.module("dipeo_nb.diagram.file_templates")  # only for diagrams that make files

QUICK_TAGS = 500
"""Tags of a template that is translated at once."""


class Rendering(NamedTuple):
    """What a template gave."""

    result: TemplateResult
    value: Any = None
    """Of `value`: what a lone tag names, else the text."""
    placed: tuple[str, ...] = ()
    """Of `placed`: the texts that its values have."""


class Request(NamedTuple):
    """A template that is to be rendered."""

    kind: str
    """text, value, or placed (with marks for its values)."""
    template: str
    names: Mapping[str, Any]
    token: str = ""
    """Of the marks."""

    @property
    def key(self) -> tuple[str, str, int]:
        return self.kind, self.template, id(self.names)


class SlowEvaluationError(Exception):
    """A handler needs a text that takes long to make."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"rendering {request.template[:60]!r} takes long")
        self.request = request


def rendered_quickly(processor: TemplateProcessorPort, request: Request) -> Rendering:
    """What the template gives.

    Raises:
        NotQuickError: it takes too long to be rendered here.
        TemplateError: as the processor raises it.
    """
    if type(processor) is not SimpleTemplateProcessor:
        return _rendered(processor, request)  # a service of the user's own
    if len(request.template) > QUICK_TAGS and request.template.count("{{") + request.template.count("{%") > QUICK_TAGS:
        raise NotQuickError
    with quick():
        return _rendered(processor, request)


async def rendered(processor: TemplateProcessorPort, request: Request, limit: float | None) -> Rendering:
    """What the template gives; *limit*: seconds that it may take in a worker. Raises TemplateError, NodeTimeoutError."""
    try:
        return rendered_quickly(processor, request)
    except NotQuickError:
        return await rendered_elsewhere(processor, request, limit)


@asynccontextmanager
async def _within(limit: float | None) -> AsyncGenerator[None]:
    """A limit of seconds, as the error of the node."""
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise NodeTimeoutError(
            f"The template took longer than the node's limit of {limit:g} s and was stopped.",
            hint="Give the node a larger `timeout` (seconds), or let the template do less.",
        ) from None


async def rendered_elsewhere(processor: TemplateProcessorPort, request: Request, limit: float | None) -> Rendering:
    """What the template gives, made by a worker."""
    assert isinstance(processor, SimpleTemplateProcessor)
    async with _within(limit):
        return _received(await workers.WORKERS.call(_NAME + "render", processor.keep_missing, *request))


def rendered_here(processor: TemplateProcessorPort, request: Request) -> Rendering:
    """As `rendered`, for a thread that may wait."""
    try:
        return rendered_quickly(processor, request)
    except NotQuickError:
        assert isinstance(processor, SimpleTemplateProcessor)
        return _received(workers.WORKERS.call_here(_NAME + "render", processor.keep_missing, *request))


async def file_text(
    template: str, names: Mapping[str, Any], *, load: Callable[[str], str | None], what: str, limit: float | None
) -> str:
    """The text of a template of a file (see `diagram.file_templates.render_file`). *load* may block."""
    known: dict[str, str | None] = {}

    def loaded(name: str) -> str | None:
        if name not in known:
            known[name] = load(name)
        return known[name]

    def attempt() -> str | None:
        if template.count("{{") + template.count("{%") > QUICK_TAGS:
            return None
        try:
            with quick():
                return file_templates.render_file(template, names, load=loaded, what=what)
        except NotQuickError:
            return None

    text = await asyncio.to_thread(attempt)
    async with _within(limit):
        while text is None:
            answer = await workers.WORKERS.call(_NAME + "render_with", template, dict(names), known, what)
            text = answer.get("text")
            if text is None:  # it includes one more
                await asyncio.to_thread(loaded, answer["needs"])
    return text


def holds(expression: str, names: Mapping[str, Any], hidden: Callable[[], Mapping[str, Any] | None]) -> bool | Awaitable[bool]:
    """Whether a condition holds: at once, or, when it takes longer, from a worker.

    Args:
        hidden: what its names mean when it fails otherwise; None: nothing else.
    """
    try:
        return _holds(expression, names, hidden, quick=True)
    except NotQuickError:
        return workers.WORKERS.call(_NAME + "holds_there", expression, dict(names), hidden())


# In the worker.

_NAME = "dipeo_nb.execution.evaluation:"


def render(keep_missing: bool, kind: str, template: str, names: Mapping[str, Any], token: str) -> list[Any]:
    """A rendering as JSON has it."""
    made = _rendered(SimpleTemplateProcessor(keep_missing=keep_missing), Request(kind, template, names, token))
    value = made.value
    return [list(made.result), value if is_plain(value) else plain_value(value, lossy=True), list(made.placed)]


def render_with(template: str, names: Mapping[str, Any], known: Mapping[str, str | None], what: str) -> dict[str, str]:
    """The text of a template of a file, or the name of another one that it needs."""
    needed: list[str] = []

    def load(name: str) -> str | None:
        if name in known:
            return known[name]
        needed.append(name)
        raise NodeExecutionError(f"{name} is needed")

    try:
        return {"text": file_templates.render_file(template, names, load=load, what=what)}
    except Exception:
        if needed:
            return {"needs": needed[0]}
        raise


def holds_there(expression: str, names: Mapping[str, Any], hidden: Mapping[str, Any] | None) -> bool:
    """Whether a condition holds."""
    return _holds(expression, names, lambda: hidden, quick=False)


def _holds(expression: str, names: Mapping[str, Any], hidden: Callable[[], Mapping[str, Any] | None], *, quick: bool) -> bool:
    try:
        return bool(evaluate(expression, names, quick=quick))
    except ExpressionError:
        variables = hidden()
        if variables is None:
            raise
        return bool(evaluate(expression, {**names, **variables}, quick=quick))


def _rendered(processor: TemplateProcessorPort, request: Request) -> Rendering:
    if request.kind == "value":
        value, result = processor.process_value(request.template, request.names)
        return Rendering(result, value)
    if request.kind == "placed":
        values = Values(request.token)
        result = processor.process_placed(request.template, request.names, values.place)
        return Rendering(result, None, tuple(values.values))
    return Rendering(processor.process(request.template, request.names))


def _received(answer: list[Any]) -> Rendering:
    (content, missing, used, errors), value, placed = answer
    return Rendering(TemplateResult(content, tuple(missing), tuple(used), tuple(errors)), value, tuple(placed))
