"""Templates of manifests: trees whose leaves are templates, texts, and JSON texts.

Rendered in the sandbox of prompts. Whatever a value contains, it stays a value: no tag in it is evaluated, and no quote or line
break of it changes the structure around it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote

from jinja2 import ChainableUndefined, Undefined, UndefinedError, nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.meta import find_undeclared_variables

from dipeo_nb.common.values import json_text, parse_json
from dipeo_nb.diagram.metering import NotQuickError, metered
from dipeo_nb.diagram.template_sandbox import Counted, SandboxEnvironment, make_environment
from dipeo_nb.diagram.values import as_text
from dipeo_nb.errors import TemplateError, ValidationError

OMITTED: Any = type("Omitted", (), {"__repr__": lambda self: "OMITTED"})()
"""Stands for a leaf whose parameter was not given."""
_EXPRESSION = re.compile(r"\s*\{\{(?P<expression>(?:(?!\{\{|\}\}).)+)\}\}\s*", re.DOTALL)
_NAME = re.compile(r"\{\{ ([a-z_][a-z0-9_]*[a-z0-9]|[a-z]) \}\}")
"""A leaf that is a name, which needs no parser; those that end with `_` may be there because they would mean something else."""
_LITERALS = frozenset(("none", "true", "false"))
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class TemplateSyntaxProblem(Exception):
    """A template that cannot be compiled."""


class _Environment(SandboxEnvironment):
    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return Counted().visit(super()._parse(source, name, filename))


class _Absent(ChainableUndefined):
    """A parameter that was not given, or a part of one: false, and cannot be printed."""

    __str__ = __iter__ = __len__ = Undefined._fail_with_undefined_error  # pyright: ignore[reportAssignmentType]


def _text_of(value: Any) -> Any:
    return value if isinstance(value, Undefined) else as_text(value)


def _json_piece(value: Any) -> Any:
    """A value in the text of a JSON template: what a text needs between quotes, anything else as JSON."""
    if isinstance(value, (Undefined, _Json)):
        return value
    return json.dumps(value, ensure_ascii=False)[1:-1] if isinstance(value, str) else json_text(value)


class _Json(str):
    """Text that is JSON already, from `| tojson`."""

    __slots__ = ()


@cache
def _environment(json_pieces: bool = False) -> SandboxEnvironment:
    env = make_environment(_Environment, undefined=_Absent, finalize=_json_piece if json_pieces else _text_of, cache_size=100)
    env.filters["tojson"] = env.filters["json"] = lambda value: _Json(json_text(value))
    env.filters["digest"] = lambda value: hashlib.sha256(as_text(value).encode()).hexdigest()
    env.filters["urlencode"] = lambda value: quote(as_text(value), safe="")
    return env


@lru_cache(maxsize=4096)
def _compiled(text: str, json_pieces: bool = False) -> Any:
    """A function of the names that gives the text."""
    return _environment(json_pieces).from_string(text)


@lru_cache(maxsize=4096)
def _expression(text: str) -> Any:
    """A function of the names that gives the value, where the text is one expression; None otherwise."""
    found = _EXPRESSION.fullmatch(text)
    return None if found is None else _environment().compile_expression(found["expression"], undefined_to_none=False)


def names_in(value: Any) -> set[str]:
    """The names that the templates in a tree ask for.

    Raises:
        TemplateSyntaxProblem: one of them cannot be parsed; the text says where.
    """
    found: set[str] = set()
    for text in _texts(value):
        if "{" not in text:
            continue
        if (simple := _NAME.fullmatch(text)) is not None and simple[1] not in _LITERALS:
            found.add(simple[1])
            continue
        try:
            tree = _environment().parse(text)
            _environment().compile(tree)
        except (JinjaError, RecursionError) as error:
            raise TemplateSyntaxProblem(f"{str(error).rstrip('.') or type(error).__name__} in `{text[:80]}`") from None
        found |= find_undeclared_variables(tree) - _environment().globals.keys()
    return found


def placeholders(path: str) -> list[str]:
    """The names in `{…}` of a path or address."""
    return _PLACEHOLDER.findall(path)


def rendered(value: Any, names: Mapping[str, Any]) -> Any:
    """A tree with its templates filled in; leaves whose parameter was not given are left out, and so are those that are null where
    the parameter is.

    Raises:
        TemplateError: a template fails with these values.
    """
    if isinstance(value, str):
        return _leaf(value, names)
    if isinstance(value, Mapping):
        pairs = ((_leaf(str(key), names), rendered(item, names)) for key, item in value.items())  # pyright: ignore[reportUnknownVariableType]
        return {str(key): item for key, item in pairs if item is not OMITTED}
    if isinstance(value, (list, tuple)):
        return [item for one in value if (item := rendered(one, names)) is not OMITTED]  # pyright: ignore[reportUnknownVariableType]
    return value


def rendered_text(template: str, names: Mapping[str, Any]) -> str:
    """A text with its templates filled in. Raises TemplateError as above, also for parameters that were not given."""
    return _evaluated(lambda: _compiled(template).render(dict(names)), template)


def rendered_json(template: str, names: Mapping[str, Any]) -> Any:
    """The value of a JSON text with templates in it: between quotes, values are escaped, elsewhere they are JSON.

    Raises:
        TemplateError: a template fails with these values, or the text is not JSON then.
    """
    text = _evaluated(lambda: _compiled(template, json_pieces=True).render(dict(names)), template)
    try:
        return parse_json(text)
    except ValueError as error:
        raise TemplateError(
            f"The body template gives no JSON: {str(error).rstrip('.')}.",
            hint="Put `{{ … }}` between quotes for a text, and without quotes, with `| tojson`, for anything else.",
        ) from None


def rendered_path(path: str, names: Mapping[str, Any]) -> str:
    """A path with its `{placeholders}` filled in; what stands there is one segment, whatever it contains.

    Raises:
        ValidationError: a value is missing, empty, or would lead to another path.
    """

    def segment(found: re.Match[str]) -> str:
        value = names.get(found[1])
        text = "" if value is None else as_text(value)
        if text.strip() in ("", ".", ".."):
            raise ValidationError(f"'{found[1]}' is {text!r}, which cannot stand in the path {path}.", hint=f"Give {found[1]}.")
        return quote(text, safe="")

    return _PLACEHOLDER.sub(segment, path)


def _leaf(text: str, names: Mapping[str, Any]) -> Any:
    if "{" not in text:
        return text
    if (expression := _expression(text)) is not None:
        return _given(_evaluated(lambda: expression(**names), text))
    return rendered_text(text, names)


def _given(value: Any) -> Any:
    """A value of an expression without what was not given."""
    if isinstance(value, Undefined):
        return OMITTED
    if isinstance(value, dict):
        return {name: item for name, one in value.items() if (item := _given(one)) is not OMITTED}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        return [item for one in value if (item := _given(one)) is not OMITTED]  # pyright: ignore[reportUnknownVariableType]
    return value


def _evaluated(work: Any, template: str) -> Any:
    try:
        with metered():
            return work()
    except (TemplateError, NotQuickError):
        raise
    except UndefinedError as error:
        raise TemplateError(f"{str(error).rstrip('.')} (in `{template[:80]}`).", hint="Give that parameter.") from None
    except Exception as error:  # noqa: BLE001 - what the template's own expressions raise
        raise TemplateError(
            f"`{template[:80]}` fails: {str(error).rstrip('.') or type(error).__name__}.",
            hint="Correct the manifest, or the parameters.",
        ) from None


def _texts(value: Any) -> Iterator[str]:
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]  # pyright: ignore[reportUnknownMemberType]
        elif isinstance(item, (list, tuple)):
            waiting += item
