"""Declaration of settings, and what makes values of what is written in variables and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dipeo_nb.common import child_environment
from dipeo_nb.common.paths import from_home
from dipeo_nb.config.addresses import is_url, ollama_address
from dipeo_nb.config.scopes import Scope
from dipeo_nb.errors import UserError

_SECRET = "SecretStr | None"
_PLAIN: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "Path": (Path,),
    "Path | None": (Path, type(None)),
    "Path | str | None": (Path, str, type(None)),
    "tuple[str, ...]": (str,),
    "tuple[Path, ...]": (Path,),
    _SECRET: (str, type(None)),
}
"""Types of fields that any text fits, or any path → what fits, or is in the tuple."""


class Declared(NamedTuple):
    """Declaration of a field; see `setting`."""

    variables: tuple[str, ...]
    scope: Scope
    default: Any
    before: Callable[[Any], Any] | None = None
    limits: Mapping[str, float] = {}
    type: str = ""
    """Its annotation."""

    @property
    def secret(self) -> bool:
        return self.type == _SECRET

    def plain(self, value: Any) -> Any:
        """Return the value of the field, if pydantic has nothing to check about it; a secret as text.

        Raises:
            ValueError: it has to be checked.
        """
        value = value if self.before is None else self.before(value)
        fitting = _PLAIN.get(self.type, ())
        parts: Any = value if isinstance(value, tuple) else (value,)
        if isinstance(value, tuple) != self.type.startswith("tuple") or not all(isinstance(part, fitting) for part in parts):
            raise ValueError("to be checked")
        return value


def setting(
    *names: str, default: Any, scope: Scope = "personal", before: Callable[[Any], Any] | None = None, **limits: float
) -> Any:
    """Declare a field of `Settings`.

    Args:
        names: environment variables; the first one that is set counts.
        default: value when nothing sets it.
        scope: effect of a value in a folder's files.
        before: makes the value of what is given.
        limits: constraints (`gt=0`), as for pydantic's `Field`.
    """
    return Declared(names, scope, default, before, limits)


def declared(kind: type) -> dict[str, Declared]:
    """Take the declarations out of a class, which is left with what it does, and return them by name."""
    found = {name: value for name, value in vars(kind).items() if isinstance(value, Declared)}
    for name in found:
        delattr(kind, name)
    return {name: value._replace(type=kind.__annotations__.pop(name)) for name, value in found.items()}


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


def paths(value: Any) -> Any:
    """Split the value of a variable such as PATH, and make the paths absolute."""
    parts = [part for part in value.split(os.pathsep) if part.strip()] if isinstance(value, str) else value
    return tuple(map(absolute, parts)) if isinstance(parts, (list, tuple)) else parts  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def names(value: Any) -> Any:
    """Split names at commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def address(value: Any) -> Any:
    """Complete the address of an Ollama server."""
    return ollama_address(value) if isinstance(value, str) else value


def passed(value: Any) -> Any:
    """Join a list of variables, and refuse those that are never handed on."""
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(text, str) and (never := child_environment.refused(listed(text))):
        raise ValueError(f"{', '.join(never)}: never handed to the code of diagrams")
    return text


def listed(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())
