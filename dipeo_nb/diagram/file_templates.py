"""Templates that make files: Jinja2 as it is, in the sandbox of prompts.

Unlike in a prompt, a name that is missing is an error, other templates can be included, extended and imported, and a list prints as
Jinja2 prints it (`['a', 'b']`; `| tojson` gives JSON): templates of Python sources, DiPeO's among them, rely on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from itertools import islice
from types import CodeType
from typing import Any

from jinja2 import FunctionLoader, StrictUndefined, TemplateNotFound, Undefined, UndefinedError, nodes

from jinja2.exceptions import SecurityError, TemplateError as JinjaError, TemplateSyntaxError  # isort: skip

from dipeo_nb.common import lazy
from dipeo_nb.common.text import known_names
from dipeo_nb.diagram.metering import NotQuickError, meter, metered
from dipeo_nb.diagram.template_names import Names, check_filters, names_of
from dipeo_nb.diagram.template_sandbox import Counted, SandboxEnvironment, gathered, make_environment
from dipeo_nb.diagram.values import TooLargeError, as_text
from dipeo_nb.errors import TemplateError

MAX_LENGTH = 50_000_000
"""Characters that a rendering may give."""
MACROS = "macros"
"""The template, and the name, that has the macros of code generation; no file takes its place."""


_FILTERS = lazy.module("dipeo_nb.codegen.filters")
_MACROS = lazy.module("dipeo_nb.codegen.macros")
"""The room of code generation stands above this one: its filters and macros are plugged in by name."""


def filters() -> Mapping[str, Callable[..., Any]]:
    """The filters on top of Jinja2's own; each is a function too. They are imported with the first template of a file."""
    return _FILTERS.FILTERS


def check_file(template: str) -> Names:
    """The names that a template asks for; those that an included one asks for are not looked at.

    Raises:
        TemplateError: bad syntax, or a filter that is not there; facts: line.
    """
    env = _environment()
    try:
        tree = env.parse(template)
    except (TemplateSyntaxError, RecursionError) as error:
        raise _failed("the template", error, "Correct the template.") from error
    check_filters(env, tree, template)
    names = names_of(tree, template)
    return Names(names.all, names.needed - env.globals.keys() - {MACROS})


def parse_file(template: str) -> nodes.Template:
    """The syntax tree of a template.

    Raises:
        jinja2.TemplateError: bad syntax.
    """
    return _environment().parse(template)


def _strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter for which a missing name is an error, whatever it does with its values."""

    @wraps(function)
    def call(*values: Any, **options: Any) -> Any:
        for value in (*values, *options.values()):
            if isinstance(value, StrictUndefined):
                str(value)  # raises
        return function(*values, **options)

    return call


def _function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter as a function; its work is counted, too."""

    def call(*values: Any, **options: Any) -> Any:
        for value in (*values, *options.values()):
            meter().weigh(value)
        return strict(*values, **options)

    strict = _strict(function)
    call.__name__ = name
    return call


def render_file(
    template: str,
    names: Mapping[str, Any],
    *,
    load: Callable[[str], str | None],
    what: str = "the template",
    macros: Mapping[str, str] | None = None,
) -> str:
    """The text that a template gives.

    Args:
        load: a template that it includes, extends or imports, by its name; None: there is none.
        what: how errors call it.
        macros: name → source of macros besides those of code generation.

    Raises:
        TemplateError: bad syntax, a name that is missing, something that templates may not do, or too much of it.
    """

    def loaded(name: str) -> str | None:
        return _MACROS.library(macros) if name == MACROS else load(name)

    env = _environment().overlay(loader=FunctionLoader(loaded), cache_size=100)
    try:
        pieces: list[str] = []
        length = 0
        with metered():
            given = dict(names)
            if MACROS in template and MACROS not in given:
                given[MACROS] = env.get_template(MACROS).make_module()
            text = env.from_string(template).generate(given)
            while some := list(islice(text, 100)):
                pieces.append("".join(some))
                length += len(pieces[-1])
                if length > MAX_LENGTH:
                    raise TooLargeError(f"it gives more than {MAX_LENGTH:,} characters")
        return "".join(pieces)
    except (TemplateError, NotQuickError):
        raise
    except UndefinedError as error:
        raise _failed(what, error, f"Give it a value, or write `| default(…)`. Known names: {known_names(names)}.") from error
    except TemplateNotFound as error:
        raise TemplateError(
            f"{_begun(what)} needs the template '{error.name}', which is not there.", hint="Check its path."
        ) from error
    except SecurityError as error:
        raise _failed(what, error, "Templates may read values only.") from error
    except (JinjaError, RecursionError) as error:
        raise _failed(what, error, "Correct the template.") from error
    except Exception as error:  # what the template's own expressions raise: 1 / 0, "a" + 1
        raise _failed(what, error, "Fix the template, or what the arrows provide.") from error


def _failed(what: str, error: BaseException, hint: str) -> TemplateError:
    line = error.lineno if isinstance(error, TemplateSyntaxError) else None
    where = f"{_begun(what)}, line {line}" if line else _begun(what)
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error) or type(error).__name__
    return TemplateError(f"{where}: {reason.rstrip('.')}.", hint=hint, line=line, tag="")


def _begun(what: str) -> str:
    return what[:1].upper() + what[1:]


def _finished(value: Any) -> Any:
    """The text that a tag prints: nothing for None, as in prompts; a list or a mapping in Python's notation, as Jinja2 does."""
    if type(value) is str:
        meter().weigh(value)
        return value
    if isinstance(value, Undefined) and not isinstance(value, StrictUndefined):
        return ""  # `{{ x if y }}` where y does not hold: Jinja2 gives nothing, also when names are strict
    if callable(value) and not isinstance(value, StrictUndefined):
        raise UndefinedError(
            f"'{getattr(value, '__name__', None) or getattr(value, 'name', 'it')}' is a function that is not called"
        )
    if isinstance(value, StrictUndefined):
        return value
    value = gathered(value)
    meter().weigh(value)
    return as_text(value, python=True)


class _Environment(SandboxEnvironment):
    """The work of all templates is metered, and each is compiled once."""

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return Counted().visit(super()._parse(source, name, filename))

    def compile(
        self, source: Any, name: str | None = None, filename: str | None = None, raw: bool = False, defer_init: bool = False
    ) -> Any:
        if type(source) is str and not raw and not defer_init:
            return _compiled(source, name, filename)
        return super().compile(source, name, filename, raw, defer_init)

    def compiled(self, source: str, name: str | None, filename: str | None) -> CodeType:
        return super().compile(source, name, filename)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    """What a rendering overlays with its own way to find other templates."""
    strict = {name: _strict(function) for name, function in filters().items()}
    env = make_environment(_Environment, strict, undefined=StrictUndefined, finalize=_finished)
    env.globals |= {name: _function(name, function) for name, function in filters().items()}
    return env


@lru_cache(maxsize=200)
def _compiled(source: str, name: str | None, filename: str | None) -> CodeType:
    return _environment().compiled(source, name, filename)
