"""Templates that make files: Jinja2 as it is, in the sandbox of prompts.

Unlike in a prompt, a name that is missing is an error, and other templates can be included, extended and imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any

import inflection
from jinja2 import FunctionLoader, StrictUndefined, TemplateNotFound, UndefinedError, nodes

from jinja2.exceptions import SecurityError, TemplateError as JinjaError, TemplateSyntaxError  # isort: skip

from dipeo_nb.common.text import known_names
from dipeo_nb.diagram.metering import NotQuickError, meter, metered
from dipeo_nb.diagram.template_names import Names, check_filters, names_of
from dipeo_nb.diagram.template_sandbox import Counted, SandboxEnvironment, gathered, make_environment
from dipeo_nb.diagram.values import TooLargeError, as_text
from dipeo_nb.errors import TemplateError

MAX_LENGTH = 50_000_000
"""Characters that a rendering may give."""


def snake_case(text: Any) -> str:
    """`MyHTTPThing`, `my thing` → `my_http_thing`, `my_thing`."""
    words = re.sub(r"[^0-9A-Za-z]+", "_", str(text)).strip("_")
    words = re.sub(r"(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z\d])(?=[A-Z])", "_", words)
    return words.lower()


def pascal_case(text: Any) -> str:
    """`my_thing` → `MyThing`."""
    return inflection.camelize(snake_case(text))


def camel_case(text: Any) -> str:
    """`my_thing` → `myThing`."""
    return inflection.camelize(snake_case(text), uppercase_first_letter=False)


def kebab_case(text: Any) -> str:
    """`MyThing` → `my-thing`."""
    return snake_case(text).replace("_", "-")


def humanize(text: Any) -> str:
    """`author_name` → `Author name`."""
    return inflection.humanize(snake_case(text))


def escape_js(text: Any) -> str:
    """A text for between quotes of JavaScript."""
    escapes = {"\\": "\\\\", "'": "\\'", '"': '\\"', "`": "\\`", "\n": "\\n", "\r": "\\r", "</": "<\\/"}
    return re.sub(r"""[\\'"`\n\r]|</""", lambda found: escapes[found[0]], str(text))


def strip_inline_comments(text: Any) -> str:
    """Without what follows `//` or `#` after a blank, line by line."""
    return "\n".join(re.sub(r"(?<!\s)\s++(?://|#\s).*", "", line) for line in str(text).split("\n"))


def _last_word(text: Any, change: Callable[[str], str]) -> str:
    """A text with its end changed; the rules look at the last letters."""
    words = str(text)
    at = max(len(words) - LONGEST_WORD, 0)
    return words[:at] + change(words[at:])


LONGEST_WORD = 200
"""Characters of a word."""
FILTERS: Mapping[str, Callable[[Any], str]] = {
    "snake_case": snake_case,
    "pascal_case": pascal_case,
    "camel_case": camel_case,
    "kebab_case": kebab_case,
    "humanize": humanize,
    "pluralize": lambda text: _last_word(text, inflection.pluralize),
    "singularize": lambda text: _last_word(text, inflection.singularize),
    "escape_js": escape_js,
    "strip_inline_comments": strip_inline_comments,
}
"""Filters on top of Jinja2's own; each is a function too."""


def check_file(template: str) -> Names:
    """The names that a template asks for; those that an included one asks for are not looked at.

    Raises:
        TemplateError: bad syntax, or a filter that is not there; facts: line.
    """
    try:
        tree = _ENVIRONMENT.parse(template)
    except (TemplateSyntaxError, RecursionError) as error:
        raise _failed("the template", error, "Correct the template.") from error
    check_filters(_ENVIRONMENT, tree, template)
    names = names_of(tree, template)
    return Names(names.all, names.needed - _ENVIRONMENT.globals.keys())


def parse_file(template: str) -> nodes.Template:
    """The syntax tree of a template.

    Raises:
        jinja2.TemplateError: bad syntax.
    """
    return _ENVIRONMENT.parse(template)


def _function(name: str, function: Callable[[Any], str]) -> Callable[[Any], str]:
    """A filter as a function; its work is counted, too."""

    def call(value: Any) -> str:
        meter().weigh(value)
        return function(value)

    call.__name__ = name
    return call


def render_file(
    template: str, names: Mapping[str, Any], *, load: Callable[[str], str | None], what: str = "the template"
) -> str:
    """The text that a template gives.

    Args:
        load: a template that it includes, extends or imports, by its name; None: there is none.
        what: how errors call it.

    Raises:
        TemplateError: bad syntax, a name that is missing, something that templates may not do, or too much of it.
    """
    env = _ENVIRONMENT.overlay(loader=FunctionLoader(load), cache_size=100)
    try:
        pieces: list[str] = []
        length = 0
        with metered():
            for piece in env.from_string(template).generate(dict(names)):
                length += len(piece)
                if length > MAX_LENGTH:
                    raise TooLargeError(f"it gives more than {MAX_LENGTH:,} characters")
                pieces.append(piece)
        return "".join(pieces)
    except (TemplateError, NotQuickError):
        raise
    except UndefinedError as error:
        raise _failed(
            what, error, f"Give it a value, or write `| default(…)`. Known names: {known_names(names)}."
        ) from error
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
    """The text that a tag prints: nothing for None, JSON for structures, as in prompts."""
    if callable(value) and not isinstance(value, StrictUndefined):
        raise UndefinedError(
            f"'{getattr(value, '__name__', None) or getattr(value, 'name', 'it')}' is a function that is not called"
        )
    if isinstance(value, StrictUndefined):
        return value
    value = gathered(value)
    meter().weigh(value)
    return as_text(value)


class _Environment(SandboxEnvironment):
    """The work of all templates is metered, and each is compiled once."""

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return Counted().visit(super()._parse(source, name, filename))

    def compile(self, source: Any, name: str | None = None, filename: str | None = None, raw: bool = False, defer_init: bool = False) -> Any:
        if type(source) is str and not raw and not defer_init:
            return _compiled(source, name, filename)
        return super().compile(source, name, filename, raw, defer_init)

    def compiled(self, source: str, name: str | None, filename: str | None) -> CodeType:
        return super().compile(source, name, filename)


def _made_environment() -> _Environment:
    env = make_environment(_Environment, FILTERS, undefined=StrictUndefined, finalize=_finished)
    env.globals |= {name: _function(name, function) for name, function in FILTERS.items()}
    return env


_ENVIRONMENT = _made_environment()
"""What a rendering overlays with its own way to find other templates."""


@lru_cache(maxsize=200)
def _compiled(source: str, name: str | None, filename: str | None) -> CodeType:
    return _ENVIRONMENT.compiled(source, name, filename)
