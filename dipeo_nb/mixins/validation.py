"""Validation of arguments and data."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.errors import ValidationError
from dipeo_nb.mixins.base import Mixin


class ValidationMixin(Mixin):
    """Checks that raise one clear ValidationError."""

    def validate_required_fields(self, data: Mapping[str, Any], fields: Iterable[str]) -> None:
        """Raise when fields are missing or None, naming all of them."""
        missing = [f for f in fields if data.get(f) is None]
        if missing:
            raise ValidationError(f"Missing: {', '.join(missing)}.", hint=f"There are: {', '.join(map(str, data)) or 'none'}.")

    def validate_field(self, data: Mapping[str, Any], field: str, kind: Any = Any) -> bool:
        """Whether *data* has *field*, not None and of that type (including generics such as `list[int]`)."""
        return data.get(field) is not None and _fits(data[field], kind)

    def validate_type(self, value: Any, kind: Any, name: str = "value") -> Any:
        """Return the value; raise when it has another type. A bool is not an int."""
        if not _fits(value, kind):
            wanted = getattr(kind, "__name__", str(kind)) if not getattr(kind, "__args__", None) else str(kind)
            raise ValidationError(f"{name} is {type(value).__name__}, not {wanted}.", hint=f"Provide a value of type {wanted}.")
        return value

    def validate_enum(self, value: Any, allowed: Collection[Any], name: str = "value") -> Any:
        """Return the value; raise when it is not one of *allowed* (an Enum class or a collection)."""
        choices = [getattr(a, "value", a) for a in allowed]
        if getattr(value, "value", value) not in choices:
            raise ValidationError(f"{name} is {value!r}.", hint=f"Choose one of: {', '.join(map(str, choices))}.")
        return value

    def validate_file_path(self, path: str | os.PathLike[str], allowed_base: str | os.PathLike[str] | None = None) -> Path:
        """Return the absolute path; raise when it is empty, or outside *allowed_base* once links are followed."""
        if not str(path).strip() or "\0" in str(path):
            raise ValidationError(f"{str(path)!r} is not a path.", hint="Provide the path of a file.")
        if allowed_base is None:
            return Path(path).resolve()
        base = Path(allowed_base).resolve()
        full = (base / path).resolve()
        if not full.is_relative_to(base):
            raise ValidationError(f"{path} is outside {base}.", hint="Provide a path within it.")
        return full


def _fits(value: Any, kind: Any) -> bool:
    if kind is int and isinstance(value, bool):
        return False
    if isinstance(kind, tuple):
        return any(_fits(value, one) for one in kind)
    if isinstance(kind, type) and not getattr(kind, "__args__", None):
        return isinstance(value, kind)
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except PydanticValidationError:
        return False
    return True
