"""Settings whose values need no check: what nothing sets, texts and paths. They are read without pydantic, which takes longer to import
than a diagram to read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.config.origins import GIVEN
from dipeo_nb.config.settings import FIELDS, Settings, by_field
from dipeo_nb.config.sources import Chosen, Sources

if TYPE_CHECKING:
    import pydantic

    from dipeo_nb.config import checked
else:
    pydantic = lazy.module("pydantic")
    checked = lazy.module("dipeo_nb.config.checked")


class PlainSettings(Settings):
    """Settings without a model, which is made as soon as something asks for more than their values.

    Raises:
        ValueError: a value has to be checked.
    """

    def __init__(self, sources: Sources, chosen: Chosen) -> None:
        origins = {name: origin for name, (_, origin) in chosen.items()}
        values = {name: field.default for name, field in FIELDS.items()}
        values |= {name: FIELDS[name].plain(value) for name, (value, _) in chosen.items()}
        waiting = {name: values.pop(name) for name, origin in origins.items() if origin.suggestion}
        secrets = {name: values.pop(name) for name in chosen if FIELDS[name].secret and values[name] is not None}
        if "default_llm_model" not in origins:
            del values["default_llm_model"]  # it depends on the day on which it is read
        own = {"_sources": sources, "_origins": origins, "_waiting": waiting, "_secrets": secrets, "_chosen": chosen}
        vars(self).update(values, **own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._secrets:
            return pydantic.SecretStr(self._secrets[name])
        return self._absent(name) if name in FIELDS else getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)  # refuses it

    def __repr__(self) -> str:
        return repr(self._model)

    def __eq__(self, other: object) -> bool:
        return self._model == (other._model if isinstance(other, PlainSettings) else other)

    def __hash__(self) -> int:
        return hash(self._model)

    @cached_property
    def _model(self) -> Settings:
        return checked.CheckedSettings.of(self._sources, self._chosen)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Settings:
        changes = {name: (value, GIVEN) for name, value in by_field(update or {}).items()}
        return settings_of(self._sources, {**self._chosen, **changes})


def settings_of(sources: Sources, chosen: Chosen) -> Settings:
    """Return the settings of what was chosen, checked if they have to be.

    Raises:
        ConfigurationError: a value is invalid.
    """
    try:
        return PlainSettings(sources, chosen)
    except ValueError:
        return checked.CheckedSettings.of(sources, chosen)
