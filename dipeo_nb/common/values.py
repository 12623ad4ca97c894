"""Converts Python values to values of a run: one conversion, where a value enters it.

Run inputs, outputs of nodes, published variables and variables of code jobs are *plain values*: None, booleans, whole
numbers, floats (NaN and the infinities too), texts that UTF-8 can hold, lists, and mappings with texts as keys. A plain value is
recorded and restored without any change, so a node sees the same before and after a resume, in a fork and in a sub-diagram.
`plain_value` makes one of everything that has an obvious form (docs/values.md is the table), and raises `UnsupportedValueError`, which
names the place and the next action, for what has none. It never calls `str` or `repr` on an object it does not know, never follows a
cycle, and takes a bounded number of steps.

Standard library only and without imports of this package: the worker process of code jobs loads this file, too. Libraries
(numpy, pandas, pydantic, attrs) are recognised without importing them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections import UserString
from collections.abc import (
    AsyncIterable,
    Awaitable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    Set,
    ValuesView,
)
from enum import Enum
from io import IOBase
from typing import Any, cast

MAX_DEPTH = 200
"""Levels of lists and mappings within each other."""
EVENT_DEPTH = MAX_DEPTH + 40
"""Levels of an event, which enclose those of its values."""
MAX_VALUES = 10_000_000
"""Values within one value."""
MAX_ITERATED = 1_000_000
"""Maximum number of items taken from one iterator, which may be endless."""
MAX_DIGITS = 4300
"""Digits of a whole number: what Python itself reads and writes at most (`sys.set_int_max_str_digits`)."""
BASE64 = "base64"
"""The only key of the mapping that bytes become."""

_INT_LIMIT, _SIMPLE = 10**MAX_DIGITS, frozenset((float, bool, type(None)))
_TEXTS = {
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "uuid": ("UUID",),
    "pathlib": ("PurePath",),
    "zoneinfo": ("ZoneInfo",),
    "ipaddress": ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface"),
}
"""Module → types that `str` converts without loss."""
_GIVE = "Pass text, numbers, lists or mappings; save anything else to a file and pass its path."


class UnsupportedValueError(ValueError):
    """A value, or something within it, has no form in a run.

    Attributes:
        message: what and where, one sentence.
        hint: the next action.
        place: where in the value, as Python would name it: `result.rows[3].price`.
    """

    def __init__(self, message: str, hint: str = _GIVE, place: str = "") -> None:
        super().__init__(message)
        self.message, self.hint, self.place = message, hint, place


def is_plain(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether a value is plain as it stands. Runs over everything that nodes give, so it is written for speed."""
    kind = type(value)
    if kind is dict and len(value) < 9 and levels:
        for key, item in value.items():
            kind = type(item)
            simple = item.isascii() if kind is str else -1e300 < item < 1e300 if kind is int else kind in _SIMPLE
            if not simple or type(key) is not str or not key.isascii():
                break
        else:
            return True  # as most are
    elif kind is str:
        return value.isascii() or _fits_utf8(value)
    left, level, seen, shared = MAX_VALUES, [value], set[int](), False
    for depth in range(levels + 1):
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                if not item.isascii() and not _fits_utf8(item):
                    return False
            elif kind is int:
                if not -_INT_LIMIT < item < _INT_LIMIT:
                    return False
            elif kind is float or kind is bool or item is None:
                continue
            elif kind is list or kind is dict:
                if (left := left - len(item)) < 0 or depth == levels:
                    return False
                if item:
                    if id(item) in seen:
                        shared = True
                        continue
                    seen.add(id(item))
                if kind is dict:
                    for key in item:
                        if type(key) is not str or not (key.isascii() or _fits_utf8(key)):
                            return False
                    item = item.values()
                many = len(item) > 16 and {*map(type, item)} == {str}  # texts, which are looked at at once
                below += () if many and all(map(str.isascii, item)) else item
            else:
                return False
        if not (level := below):
            return not shared or _fits(value, levels, {})
    return False


def _fits(value: Any, levels: int, measured: dict[int, tuple[int, int] | None]) -> bool:
    """Whether a list or mapping, parts of which are shared, is within the limits, and no part within itself.

    Args:
        levels: that there may be from here on.
        measured: identity of a part → (levels, values) of it; None while it is being measured.
    """
    deep, size = 1, len(value)
    measured[id(value)] = None
    for item in value if type(value) is list else value.values():
        if type(item) in (list, dict) and item:
            if id(item) not in measured and (levels == 1 or not _fits(item, levels - 1, measured)):
                return False
            if (known := measured[id(item)]) is None:
                return False
            deep, size = max(deep, known[0] + 1), size + known[1]
    measured[id(value)] = deep, size
    return deep <= levels and size <= MAX_VALUES


def plain_value(
    value: Any, name: str = "value", *, lossy: bool = False, levels: int = MAX_DEPTH, iterators: bool = True
) -> Any:
    """A plain value of its own (nothing is shared with *value*).

    Args:
        name: what the value is called where an error names a place in it.
        lossy: write `<type>` where there is no form, instead of raising.
        levels: of lists and mappings within each other, at most.
        iterators: False to refuse iterators, which reading uses up.

    Raises:
        UnsupportedValueError: something in it has no form, two keys would become one, it contains itself, is too deep or too large.
    """
    return _Conversion(name, lossy, levels, iterators and not lossy).convert(value)


def well_formed(text: str) -> str:
    """*text* as UTF-8 can hold it: halves of a surrogate pair are joined, a lone half is written as its escape, `\\udXXX`."""
    if text.isascii() or _fits_utf8(text):
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return joined.encode("utf-8", "backslashreplace").decode()


def parse_json(text: str) -> Any:
    """The plain value of a JSON text. NaN and Infinity within it are read, as Python writes them; alone they are words.

    Raises:
        ValueError: it is not JSON, or it is too deep.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if isinstance(value, float) and not math.isfinite(value) and text.strip().lstrip("-").isalpha():
        raise ValueError("it is not JSON")
    return value if is_plain(value) else plain_value(value)


def parse_structured(value: Any) -> Any:
    """The list or mapping of a JSON text; any other value as it is. This is how code jobs see texts."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


def finite(value: Any) -> Any:
    """A plain value for strict JSON, which has no NaN and no infinities: None replaces them, as in JavaScript."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [finite(item) for item in cast(list[Any], value)]
    return value


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Any value as strict JSON that UTF-8 can hold, to be shown or sent; never raises. `null` replaces NaN and infinities."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except Exception:  # noqa: BLE001 - NaN, no JSON, or the value's own code raised
        text = ""
    if text and (text.isascii() or _fits_utf8(text)):
        return text
    return json.dumps(finite(plain_value(value, lossy=True)), indent=indent, ensure_ascii=False)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same: 1, 1.0 and True are not, NaN and NaN are."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def error_text(error: BaseException) -> str:
    """`Type: message` of an exception, whatever its own methods do."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - its own code raised
        words = "(its text cannot be read)"
    return well_formed(f"{type(error).__name__}: {words}" if words else type(error).__name__)


def _fits_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _loaded(value: Any, module: str, *names: str) -> bool:
    """Whether a value is of one of the named types of a module, which is loaded if it is."""
    found = sys.modules.get(module)
    types = tuple(t for name in names if isinstance(t := getattr(found, name, None), type))
    return bool(types) and isinstance(value, types)


class _Conversion:
    """One walk through a value."""

    def __init__(self, name: str, lossy: bool, levels: int, iterators: bool) -> None:
        self._name, self._lossy, self._iterators, self._levels = name, lossy, iterators, levels
        self._path: list[Any] = []
        self._open: set[int] = set()
        """Identities of the containers that the walk is in."""
        self._left = MAX_VALUES
        self._in_model = False

    def convert(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return well_formed(value)
        if kind is bool or kind is float or value is None:
            return value
        if kind is int:
            if not -_INT_LIMIT < value < _INT_LIMIT and not self._lossy:
                raise self._error(
                    f"is an integer of more than {MAX_DIGITS:,} digits, more than Python writes out",
                    "Pass it as text (hex(n)) or as a float.",
                )
            return value if -_INT_LIMIT < value < _INT_LIMIT else "<int>"
        depth, own = len(self._path), id(value)
        try:
            if own in self._open:
                raise self._error("contains itself", "Leave the back reference out, or use an id in its place.")
            if (depth >= self._levels and kind in (list, dict, tuple)) or len(self._open) > 2 * self._levels:
                raise self._error(
                    f"is nested more than {self._levels} levels deep", "Pass a flatter value, or save it to a file."
                )
            self._open.add(own)
            try:
                if kind is dict:
                    return self._mapping(value.items())
                return self._list(value) if kind is list or kind is tuple else self._form(value)
            finally:
                self._open.discard(own)
        except UnsupportedValueError:
            if not self._lossy:
                raise
        except Exception as error:  # the value's own code raised
            if not self._lossy:
                raise self._error(f"could not be read: {error_text(error)}") from error
        del self._path[depth:]
        return f"<{kind.__name__}>"

    def _form(self, value: Any) -> Any:
        """The table of docs/values.md. What is more special comes first: many types are subclasses of others."""
        if isinstance(value, Enum):
            return self.convert(value.value)
        if isinstance(value, str):
            return well_formed(str.__str__(value))
        if isinstance(value, int):
            return self.convert(int.__int__(value))
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _base64(bytes(cast(Any, value)))
        if isinstance(value, UserString):
            return self.convert(value.data)
        if isinstance(value, complex):
            return str(complex(value))
        if "pandas" in sys.modules and (found := self._pandas(value)) is not _NOT:
            return found
        if _loaded(value, "datetime", "datetime", "date", "time"):
            return self.convert(value.isoformat())
        if _loaded(value, "datetime", "timedelta"):
            days = value.days * 86_400_000_000_000
            return _duration(days + value.seconds * 1_000_000_000 + value.microseconds * 1000)
        if any(_loaded(value, module, *names) for module, names in _TEXTS.items()):
            return well_formed(str(value))
        if "numpy" in sys.modules and (found := self._numpy(value)) is not _NOT:
            return found
        return self._object(value)

    def _object(self, value: Any) -> Any:
        """Convert records, collections and iterators."""
        kind = type(value)
        if kind is type or isinstance(value, type):
            raise self._error(f"is the class {value.__name__}, not a value")
        if callable(getattr(kind, "model_dump", None)):
            return self._model(value)
        if kind.__module__.partition(".")[0] in ("pydantic", "pydantic_core"):
            return well_formed(str(value))  # addresses, and secrets as asterisks
        if dataclasses.is_dataclass(value):
            return self._mapping((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        if isinstance(attributes := getattr(kind, "__attrs_attrs__", None), tuple):
            return self._mapping((a.name, getattr(value, a.name)) for a in attributes)
        if isinstance(value, Mapping):
            return self._mapping(cast(Mapping[Any, Any], value).items())
        if isinstance(value, range) and value[self._left :]:
            raise self._too_large(MAX_VALUES)
        if isinstance(value, (Sequence, KeysView, ValuesView, ItemsView)):
            return self._list(cast(Iterable[Any], value))
        if isinstance(value, Set):
            return self._set(cast(Set[Any], value))
        if isinstance(value, Iterator) and not isinstance(value, IOBase) and self._iterators:
            return self._list(cast(Iterator[Any], value), MAX_ITERATED)
        if callable(getattr(kind, "__array__", None)) and callable(getattr(kind, "tolist", None)):
            return self.convert(cast(Any, value).tolist())
        if isinstance(value, (Awaitable, AsyncIterable)):
            raise self._error(f"is of type {kind.__name__}, which was never awaited", "Await it, and pass its result.")
        raise self._error(f"is of type {kind.__name__}, which has no form as a value of a run")

    # Containers.

    def _list(self, items: Iterable[Any], most: int = MAX_VALUES) -> list[Any]:
        found: list[Any] = []
        path, convert = self._path, self.convert
        path.append(0)
        for item in items:
            self._left -= 1
            if self._left < 0 or len(found) >= most:
                path.pop()
                raise self._too_large(min(most, MAX_VALUES))
            path[-1] = len(found)
            found.append(convert(item))
        path.pop()
        return found

    def _mapping(self, items: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        path, convert = self._path, self.convert
        path.append("")
        for key, item in items:
            self._left -= 1
            if self._left < 0:
                path.pop()
                raise self._too_large(MAX_VALUES)
            name = key if type(key) is str and key.isascii() else self._key(key)
            if name in found:
                path.pop()
                raise self._error(
                    f"has two keys that both become the text {name!r}",
                    "Keys are text in a run: use keys that differ as text.",
                )
            path[-1] = name
            found[name] = convert(item)
        path.pop()
        return found

    def _key(self, key: Any) -> str:
        """A key as JSON writes keys; of a tuple and the like the JSON text."""
        form = self.convert(key)
        return form if isinstance(form, str) else json.dumps(form, ensure_ascii=False)

    def _set(self, items: Iterable[Any]) -> list[Any]:
        """In a fixed order, whatever the order of hashes is today."""
        found = self._list(items)
        kinds = set(map(type, found))
        if kinds <= {str} or (kinds <= {int, float} and not any(map(math.isnan, found))):
            return sorted(found)
        return sorted(found, key=json.dumps)

    # Libraries.

    def _model(self, value: Any) -> Any:
        """A pydantic model: by its fields, so that what they hold takes the same forms as everywhere; what only pydantic knows
        as it writes that in JSON."""
        depth, outermost = len(self._path), not self._in_model
        self._in_model = True
        try:
            return self.convert(value.model_dump(warnings=False))
        except UnsupportedValueError:
            if not outermost:
                raise
            del self._path[depth:]
            return self.convert(value.model_dump(mode="json", warnings=False))
        finally:
            self._in_model = not outermost

    def _numpy(self, value: Any) -> Any:
        if _loaded(value, "numpy", "ndarray"):
            if _loaded(value, "numpy.ma", "MaskedArray"):
                return self.convert(value.tolist())
            if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 and type(value).__name__ == "ndarray":
                self._left -= value.size
                if self._left < 0:
                    raise self._too_large(MAX_VALUES)
                return value.tolist()
            return self._list(value) if value.ndim else self.convert(value[()])
        if not _loaded(value, "numpy", "generic"):
            return _NOT
        match value.dtype.kind:
            case "M":
                return _instant(str(value))
            case "m":
                return None if value != value else _duration(int(value.astype("timedelta64[ns]").astype("int64")))
            case "V" if value.dtype.names:
                return self._mapping((name, value[name]) for name in value.dtype.names)
            case "f":
                return float(value)
            case "c":
                return str(complex(value))
            case _:
                return self.convert(value.item())

    def _pandas(self, value: Any) -> Any:
        kind = type(value).__name__
        if kind in ("NaTType", "NAType") and type(value).__module__.startswith("pandas."):
            return None
        if _loaded(value, "pandas", "DataFrame"):
            return self._rows(value)
        if _loaded(value, "pandas", "Series"):
            items = self._column(value)
            return items if _counts(value.index) else self._mapping(zip(value.index.tolist(), items, strict=True))
        if _loaded(value, "pandas", "Index"):
            return self.convert(value.tolist())
        if _loaded(value, "pandas", "Timedelta"):
            return _duration(value.value if value.unit == "ns" else value.as_unit("ns").value)
        if _loaded(value, "pandas", "Period", "Interval"):
            return str(value)
        return _NOT

    def _rows(self, frame: Any) -> list[dict[str, Any]]:
        """One mapping for each row; an index that is more than the number of the row is a column, too, or several."""
        index = frame.index
        columns: dict[str, list[Any]] = {}
        levels = [] if _counts(index) else [index.get_level_values(i) for i in range(index.nlevels)]
        several = len(levels) > 1
        names = [f"level_{i}" if several else "index" for i in range(len(levels))]
        named = [(names[i] if level.name is None else level.name, level) for i, level in enumerate(levels)]
        named += [(frame.columns[i], frame.iloc[:, i]) for i in range(frame.shape[1])]
        for name, column in named:
            key = self._key(name)
            if key in columns:
                raise self._error(
                    f"has two columns of the name {key!r}",
                    "Rename one of them; an index is a column: leave it out with .reset_index(drop=True).",
                )
            self._path.append(key)
            columns[key] = self._column(column)
            self._path.pop()
        if not columns:
            return [{} for _ in range(len(frame))]
        keys = tuple(columns)
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _column(self, column: Any) -> list[Any]:
        if type(column.dtype).__module__.startswith("numpy") and column.dtype.kind in "biuf":
            self._left -= len(column)
            if self._left < 0:
                raise self._too_large(MAX_VALUES)
            return column.tolist()
        return [None if item != item else item for item in self._list(column.tolist())]  # NaN is a missing text there

    # Errors.

    def _error(self, what: str, hint: str = _GIVE) -> UnsupportedValueError:
        place = self._place()
        return UnsupportedValueError(f"{place} {what}.", hint, place)

    def _too_large(self, most: int) -> UnsupportedValueError:
        return self._error(f"has more than {most:,} values", "Pass fewer, or save them to a file and pass its path.")

    def _place(self) -> str:
        """As Python would name it; the middle of a long way is left out."""
        steps = [
            f".{step}" if isinstance(step, str) and step.isidentifier() else f"[{step!r}]"
            for step in (self._path if len(self._path) <= 12 else [*self._path[:8], "…", *self._path[-3:]])
        ]
        return well_formed(f"{self._name}{''.join(step if len(step) <= 80 else f'{step[:80]}…' for step in steps)}")


_NOT: Any = object()
"""No value of that library."""


def _base64(data: bytes) -> dict[str, str]:
    import base64

    return {BASE64: base64.b64encode(data).decode()}


def _counts(index: Any) -> bool:
    """Whether the index of a pandas object only counts its rows from 0."""
    if index.nlevels > 1 or index.name is not None:
        return False
    if type(index).__name__ == "RangeIndex":
        return index.start == 0 and index.step == 1
    return index.dtype.kind in "iu" and index.tolist() == list(range(len(index)))


def _instant(text: str) -> str | None:
    """A time of numpy without trailing zeros."""
    if text == "NaT":
        return None
    whole, dot, part = text.partition(".")
    part = part.rstrip("0")
    return f"{whole}.{part.ljust(6, '0')}" if dot and part else whole


def _duration(nanoseconds: int) -> str:
    """ISO 8601, as pydantic writes and reads durations."""
    sign, rest = "-" if nanoseconds < 0 else "", abs(nanoseconds)
    days, rest = divmod(rest, 86_400_000_000_000)
    hours, rest = divmod(rest, 3_600_000_000_000)
    minutes, rest = divmod(rest, 60_000_000_000)
    seconds, part = divmod(rest, 1_000_000_000)
    fraction = f".{part:09d}".rstrip("0") if part else ""
    time = f"{hours}H" * bool(hours) + f"{minutes}M" * bool(minutes) + f"{seconds}{fraction}S" * bool(seconds or part)
    day = f"{days}D" * bool(days)
    return f"{sign}P{day}{'T' if time else ''}{time}" if day or time else "PT0S"
