"""What nodes really give, as JSON: one encoding for every place where events are kept or sent."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from dipeo_nb.errors import StorageError


def encode(payload: Mapping[str, Any]) -> str:
    """A payload as JSON. Beyond JSON it takes what nodes really give: tuples, sets, dates, paths, decimals, bytes (as
    {"base64": …}), dataclasses and pydantic models; infinities and NaN become text.

    Raises:
        StorageError: a value is none of these.
    """
    try:
        return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, default=_default, allow_nan=False)
    except ValueError:  # NaN or an infinity somewhere
        return json.dumps(_finite(payload), separators=(",", ":"), ensure_ascii=False, default=_default)
    except TypeError as error:
        raise StorageError(
            f"An event holds a value that cannot be stored: {error}.",
            hint="Let the node return JSON values: text, numbers, lists, mappings.",
            operation="append",
        ) from error


def _default(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, (PurePath, Decimal)):
        return str(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
    return value
