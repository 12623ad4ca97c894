"""Sources of settings, and their precedence."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs

from dipeo_nb.common.settings_files import read_dotenv, read_toml
from dipeo_nb.config.fields import Declared
from dipeo_nb.config.origins import DEFAULT, GIVEN, Origin
from dipeo_nb.config.scopes import HARMLESS, Scope
from dipeo_nb.config.suggestions import Suggestion, Suggestions

Fields = Mapping[str, Declared]
"""Fields of `Settings` by name."""
Chosen = Mapping[str, tuple[Any, Origin]]
"""Field → (value, origin)."""


def user_file() -> Path:
    """Return the path of the user's own settings file."""
    return Path(platformdirs.user_config_dir("dipeo-nb", appauthor=False)) / "config.toml"


@dataclass(frozen=True, repr=False)  # it holds keys
class Layer:
    """Settings of one source: field → (name there, value)."""

    source: Literal["environment", "user", ".env", "dipeo.toml"]
    file: Path | None
    values: Mapping[str, tuple[str, Any]]

    def origin(self, name: str, *, suggestion: bool = False) -> Origin:
        return Origin(self.source, self.values[name][0], self.file, suggestion)

    @property
    def of_folder(self) -> bool:
        return self.source in (".env", "dipeo.toml")


@dataclass(frozen=True, repr=False)
class Sources:
    """All sources as read; decides which value takes precedence."""

    fields: Fields
    folder: Path
    layers: tuple[Layer, ...]
    """In order of precedence."""
    dotenv: Mapping[str, str]
    """Non-empty entries of `.env`, names in upper case."""
    names: tuple[tuple[str, Path | None], ...]
    """Names that may be settings, each with its file."""

    @classmethod
    def read(cls, fields: Fields, folder: Path | None = None) -> Sources:
        """Read the environment, the user's file and a folder's files (default: the current directory)."""
        folder = Path.cwd() if folder is None else folder.resolve()
        dotenv_file, toml_file, own_file = folder / ".env", folder / "dipeo.toml", user_file()
        dotenv, toml, own = read_dotenv(dotenv_file), read_toml(toml_file), read_toml(own_file, own=True)
        layers = (
            Layer("environment", None, _values(fields, os.environ.items())),
            Layer("user", own_file, _values(fields, own.items(), by_name=True)),
            Layer(".env", dotenv_file, _values(fields, dotenv.items())),
            Layer("dipeo.toml", toml_file, _values(fields, toml.items(), by_name=True)),
        )
        places: list[tuple[Iterable[str], Path | None]] = [
            (os.environ, None),
            (own, own_file),
            (dotenv, dotenv_file),
            (toml, toml_file),
        ]
        names = tuple((name, file) for found, file in places for name in found)
        filled = {name: value for name, value in dotenv.items() if not _is_empty(value)}
        return cls(fields, folder, layers, filled, names)

    def chosen(self, given: Mapping[str, Any]) -> dict[str, tuple[Any, Origin]]:
        """Return field → (value, origin) for all fields that are set, and for base_dir."""
        found: dict[str, tuple[Any, Origin]] = {name: (value, GIVEN) for name, value in given.items()}
        for name in self.fields:
            for layer in self.layers:
                if name in found:
                    break
                if name not in layer.values:
                    continue
                value = layer.values[name][1]
                scope = self._scope(name, value) if layer.of_folder else "harmless"
                if scope == "personal":
                    continue
                found[name] = value, layer.origin(name, suggestion=scope == "suggested")
        if found.get("base_dir", (None,))[0] is None:
            found["base_dir"] = self.folder, DEFAULT
        return found

    @property
    def ignored(self) -> dict[str, list[str]]:
        """File of the folder → names of its personal settings, which have no effect."""
        return {
            str(layer.file): names
            for layer in self.layers
            if layer.of_folder
            and (names := [n for field, (n, value) in layer.values.items() if self._scope(field, value) == "personal"])
        }

    @property
    def suggestions(self) -> Suggestions:
        found: dict[str, Suggestion] = {}
        for layer in self.layers:
            for name, (_, value) in layer.values.items() if layer.of_folder else ():
                if name not in found and self._scope(name, value) == "suggested":
                    found[name] = Suggestion(name, value, layer.origin(name, suggestion=True))
        return Suggestions(self.folder, tuple(found.values()))

    def _scope(self, name: str, value: Any) -> Scope:
        """Scope of a folder's value: some fields are harmless with certain values."""
        scope = self.fields[name].scope
        harmless = HARMLESS.get(name)
        if harmless is not None and isinstance(value, str | bool) and harmless(value, self.folder):
            return "harmless"
        return scope


def _values(fields: Fields, pairs: Iterable[tuple[str, Any]], *, by_name: bool = False) -> dict[str, tuple[str, Any]]:
    """Return field → (name, value) of those that are set, by variable in any case; *by_name*: by field, too."""
    upper = {name.upper(): (name, value) for name, value in pairs if not _is_empty(value)}
    found: dict[str, tuple[str, Any]] = {}
    for field, declared in fields.items():
        names = (*((field.upper(),) if by_name else ()), *declared.variables)
        if (there := next((upper[name] for name in names if name in upper), None)) is not None:
            found[field] = there
    return found


def _is_empty(value: Any) -> bool:
    """Whether a value counts as unset: empty variables do, as in the shells' `${X:-default}` and in Compose files."""
    return isinstance(value, str) and not value.strip()
