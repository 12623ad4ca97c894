"""The configuration of a service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dipeo_nb.errors import ConfigurationError
from dipeo_nb.mixins.base import Mixin


class ConfigurationMixin(Mixin):
    """Configuration as nested mappings, accessed by dotted names.

    Args:
        config: the mapping, by keyword or as first argument; it is copied.
    """

    def __init__(self, *args: Any, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        if args and (args[0] is None or isinstance(args[0], Mapping)):
            given: Mapping[str, Any] | None = args[0]
            config, args = given if config is None else config, args[1:]
        if config is not None:
            self.config = config
        super().__init__(*args, **options)

    @property
    def config(self) -> dict[str, Any]:
        return self.__dict__.setdefault("_configuration", {})

    @config.setter
    def config(self, value: Mapping[str, Any] | None) -> None:
        self.__dict__["_configuration"] = _copied(value or {})

    def get_config_value(self, name: str, default: Any = None) -> Any:
        """Return the value of a dotted name (`llm.timeout`), or *default* if there is none. False, 0 and "" are values."""
        return self.safe_get_nested(self.config, name, default)

    def set_config_value(self, name: str, value: Any) -> None:
        """Set the value of a dotted name, creating mappings as needed.

        Raises:
            ConfigurationError: a part of the name is not a mapping.
        """
        *path, last = name.split(".")
        at = self.config
        for part in path:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise ConfigurationError(f"'{name}' cannot be set: '{part}' is {at!r}.", hint="Choose another name.")
        at[last] = value

    def safe_get_nested(self, data: Mapping[str, Any], name: str, default: Any = None) -> Any:
        at: Any = data
        for part in name.split("."):
            if not isinstance(at, Mapping) or part not in at:
                return default
            at = at[part]
        return at


def _copied(value: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, Mapping) else v for k, v in value.items()}
