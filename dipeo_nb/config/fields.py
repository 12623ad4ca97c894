"""How a setting is declared, and the types of their values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field

from dipeo_nb.common.paths import from_home
from dipeo_nb.config.addresses import is_url
from dipeo_nb.config.scopes import Scope
from dipeo_nb.errors import UserError


def setting(*names: str, default: Any, scope: Scope = "personal", **more: Any) -> Any:
    """A field of `Settings`.

    Args:
        names: the environment variables that set it; the first that is set counts.
        default: its value where nothing sets it.
        scope: what a folder's files may do with it.
        more: limits of its value (`gt=0`), as pydantic's `Field` takes them.
    """
    return Field(default=default, json_schema_extra={"variables": list(names), "scope": scope}, **more)


class Declared(NamedTuple):
    """What `setting` says of a field."""

    variables: tuple[str, ...]
    scope: Scope


def declared(fields: Mapping[str, Any]) -> dict[str, Declared]:
    """What is said of the fields of a model, by their names."""
    extras = ((name, info.json_schema_extra) for name, info in fields.items())
    return {name: Declared(tuple(extra["variables"]), extra["scope"]) for name, extra in extras}


def home(value: Any) -> Any:
    """`~` is the user's home in every path, wherever it is written."""
    if isinstance(value, str | Path) and str(value).startswith("~"):
        try:
            found = from_home(value)
        except UserError as error:
            raise ValueError(str(error)) from None
        return str(found) if isinstance(value, str) else found
    return value


def absolute(value: Any) -> Any:
    return Path(home(value)).absolute() if isinstance(value, str | Path) else value


def path_or_url(value: Any) -> Any:
    """An absolute path, or the URL or `memory:` that it is."""
    if isinstance(value, str) and (is_url(value) or value in (":memory:", "memory:")):
        return value
    return absolute(value)


def path_or_url_text(value: Any) -> Any:
    return str(path_or_url(value)) if isinstance(value, str | Path) else value


def upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


def path_list(value: Any) -> Any:
    """The paths of a variable such as PATH."""
    return tuple(part for part in value.split(os.pathsep) if part.strip()) if isinstance(value, str) else value


def listed(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


AbsolutePath = Annotated[Path, BeforeValidator(absolute)]
