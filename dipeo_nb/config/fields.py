"""Declaration of settings, and the types of their values."""

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
    """Declare a field of `Settings`.

    Args:
        names: environment variables; the first one that is set counts.
        default: value when nothing sets it.
        scope: effect of a value in a folder's files.
        more: constraints (`gt=0`), as for pydantic's `Field`.
    """
    return Field(default=default, json_schema_extra={"variables": list(names), "scope": scope}, **more)


class Declared(NamedTuple):
    """Declaration of a field; see `setting`."""

    variables: tuple[str, ...]
    scope: Scope


def declared(fields: Mapping[str, Any]) -> dict[str, Declared]:
    """Return the declarations of a model's fields by name."""
    extras = ((name, info.json_schema_extra) for name, info in fields.items())
    return {name: Declared(tuple(extra["variables"]), extra["scope"]) for name, extra in extras}


def home(value: Any) -> Any:
    """Expand `~` to the user's home directory."""
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
    """Make a path absolute; leave URLs and `memory:` as they are."""
    if isinstance(value, str) and (is_url(value) or value in (":memory:", "memory:")):
        return value
    return absolute(value)


def path_or_url_text(value: Any) -> Any:
    return str(path_or_url(value)) if isinstance(value, str | Path) else value


def upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


def path_list(value: Any) -> Any:
    """Split the value of a variable such as PATH."""
    return tuple(part for part in value.split(os.pathsep) if part.strip()) if isinstance(value, str) else value


def listed(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


AbsolutePath = Annotated[Path, BeforeValidator(absolute)]
