"""Settings as a pydantic-settings model, which checks their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dipeo_nb.config.default_model import default_model
from dipeo_nb.config.fields import Declared
from dipeo_nb.config.origins import GIVEN, Origin
from dipeo_nb.config.redaction import without_password
from dipeo_nb.config.settings import FIELDS, Settings, by_field
from dipeo_nb.config.sources import Chosen, Sources
from dipeo_nb.errors import ConfigurationError

TYPES = (Path, Literal, SecretStr)
"""What the declarations name in their types."""


class _Model(Settings, BaseSettings):
    """`CheckedSettings` without its fields."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(frozen=True, extra="forbid", validate_default=False)

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)
    _waiting: dict[str, Any] = PrivateAttr(default_factory=dict)
    _sources: Sources = PrivateAttr()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only what `Sources` has chosen, since the effect of a value depends on its origin."""
        return (init_settings,)

    def __init__(self, **given: Any) -> None:
        sources = Sources.read(FIELDS)
        self._take(sources, sources.chosen(by_field(given)))

    @classmethod
    def of(cls, sources: Sources, chosen: Chosen) -> Self:
        """Return the settings of what was chosen.

        Raises:
            ConfigurationError: a value is invalid.
        """
        made = cls.__new__(cls)
        made._take(sources, chosen)
        return made

    def _take(self, sources: Sources, chosen: Chosen) -> None:
        origins = {name: origin for name, (_, origin) in chosen.items()}
        try:
            BaseSettings.__init__(self, **{name: value for name, (value, _) in chosen.items()})
        except ValidationError as error:
            raise _unusable(error, origins) from None
        self._sources = sources
        self._origins = origins
        for name, origin in origins.items():
            if origin.suggestion:
                self._waiting[name] = vars(self).pop(name)
        if "default_llm_model" not in origins:
            del vars(self)["default_llm_model"]  # it depends on the day on which it is read

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return self._absent(name) if name in FIELDS else super().__getattr__(name)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(deep=deep)
        changes = by_field(update or {})
        blank = type(self).__new__(type(self))
        try:
            BaseModel.__init__(blank, **changes)
        except ValidationError as error:
            raise _unusable(error, {}) from None
        vars(copied).update({name: vars(blank)[name] for name in changes})
        copied._origins = {**self._origins, **dict.fromkeys(changes, GIVEN)}
        copied._waiting = {name: value for name, value in self._waiting.items() if name not in changes}
        return copied

    @model_serializer(mode="wrap")
    def _dumped(self, handler: SerializerFunctionWrapHandler) -> Any:
        whole = BaseModel.model_copy(self)
        if "default_llm_model" not in self._origins:
            vars(whole)["default_llm_model"] = default_model()
        return handler(whole)

    def __repr_name__(self) -> str:
        return Settings.__name__

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, without_password(value) if isinstance(value, str) else value
        if "default_llm_model" not in self._origins:
            yield "default_llm_model", default_model()


def _unusable(error: ValidationError, origins: Mapping[str, Origin]) -> ConfigurationError:
    """Return the error for invalid values. It does not repeat them: one may be a key in the wrong variable."""
    wrong: dict[str, str] = {}
    for found in error.errors(include_input=False, include_url=False):
        name = str(found["loc"][0]) if found["loc"] else "settings"
        origin = origins.get(name, GIVEN)
        where = f"{origin.variable} ({origin.file})" if origin.file else origin.variable or name
        wrong.setdefault(where, str(found["msg"]))
    said = "; ".join(f"{where}: {message}" for where, message in wrong.items())
    return ConfigurationError(f"A setting cannot be used. {said}.", hint="Correct or unset it.")


def _field(declared: Declared) -> tuple[Any, Any]:
    """Return the type and the field of pydantic for a declaration."""
    type_ = declared.type if declared.before is None else Annotated[declared.type, BeforeValidator(declared.before)]
    extra: Any = {"variables": list(declared.variables), "scope": declared.scope}
    limits: Any = declared.limits
    return type_, Field(default=declared.default, json_schema_extra=extra, **limits)


_fields: dict[str, Any] = {name: _field(declared) for name, declared in FIELDS.items()}
CheckedSettings: type[_Model] = create_model("CheckedSettings", __base__=_Model, __module__=__name__, **_fields)
"""`Settings` with each field as a field of the model."""
