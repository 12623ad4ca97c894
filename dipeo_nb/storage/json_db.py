"""Files as a small database: read, write, append, update by keys; safe between tasks, threads and processes (infra-spec §2.7)."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import yaml
from pydantic_core import from_json, to_json

from dipeo_nb.common.locks import FileLock
from dipeo_nb.common.operations import logged
from dipeo_nb.common.values import UnsupportedValueError, parse_json, plain_value
from dipeo_nb.domain.ports import FileSystemPort
from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage.local import failed

FORMATS = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".csv": "csv", ".xml": "xml"}
"""Suffix → format; every other suffix is text."""
SUFFIXES = {"yaml": ".yaml", "csv": ".csv", "text": ".txt", "xml": ".xml"}
"""Format → suffix of a name that has none; `.json` for the others."""
LOCK_TIMEOUT_S = 30.0
"""Seconds to wait for somebody else who changes the same file."""
FOLDER = "dbs"
"""Where databases are that are named without a folder."""


class _Known(NamedTuple):
    """A JSON list that this process has just written: it may be appended to without being read."""

    signature: tuple[int, int, int]
    items: int


@logged("execute_operation")
class DBOperationsDomainService:
    """JSON, YAML, CSV and text files below the base directory of a file system.

    A subclass adds an operation as a method `op_<name>(self, request) -> (value, metadata)`; it runs in a worker thread, and
    under the file's lock when its name is in `CHANGING`.

    Args:
        file_system: confines every path and limits every size.
        validation_service: accepted as in the seed's recipe and kept for subclasses; nothing here needs one.
    """

    CHANGING = frozenset({"write", "append", "update"})
    """Operations that hold the file's lock."""

    def __init__(self, file_system: FileSystemPort, validation_service: Any = None) -> None:
        self.file_system = file_system
        self.validation_service = validation_service
        self._known: dict[str, _Known] = {}
        self._threads = threading.RLock()

    @property
    def allowed_operations(self) -> tuple[str, ...]:
        """The operations there are, subclasses' included."""
        return tuple(sorted(name.removeprefix("op_") for name in dir(self) if name.startswith("op_")))

    async def execute_operation(
        self,
        db_name: str,
        operation: str,
        value: Any = None,
        keys: str | Iterable[str] | None = None,
        lines: Any = None,
        *,
        format: str | None = None,
    ) -> dict[str, Any]:
        """One operation on one file.

        Args:
            db_name: a path, or a bare name: `users` is `dbs/users.json`.
            operation: read, write, append, update or prompt (gives back the name); see `allowed_operations`.
            value: what is written.
            keys: dotted paths with list indexes (`users[0].name`, comma separated or several): one gives the bare value, several
                a mapping by path; absent ones None. update needs them; write with keys is update.
            lines: ranges of lines to read, 1-based and inclusive: `5`, `"1:120"`, `"5,10:20"`, `[1, (4, 6)]`, `{start, end}`.
            format: json, yaml, csv, text or xml; default: by the suffix.

        Returns:
            `{"value": …, "metadata": {operation, file_path, size (bytes), format, keys, items_count, line_ranges …}}`.

        Raises:
            ValidationError: an unknown operation, a value or keys that do not fit.
            StorageError: no such file (`not_found`), a bad path, too large, not readable.
        """
        run: Callable[[DBRequest], tuple[Any, dict[str, Any]]] | None = getattr(self, f"op_{operation}", None)
        if run is None:
            raise ValidationError(
                f"There is no operation '{operation}'.", hint=f"Choose one of {', '.join(self.allowed_operations)}."
            )
        if lines is not None and (keys or operation != "read"):
            raise ValidationError("`lines` goes with read only, and without `keys`.", hint="Remove one of them.")
        request = DBRequest(path_of(db_name, format, reading=operation == "read"), value, key_list(keys), lines, format)

        def work() -> tuple[Any, dict[str, Any]]:
            if operation not in self.CHANGING:
                return run(request)
            with self.locked(request.path):
                return run(request)

        result, facts = await asyncio.to_thread(work)
        metadata = {"operation": operation, "file_path": request.path, **facts}
        return {"value": result, "metadata": metadata}

    @contextmanager
    def locked(self, path: str) -> Iterator[None]:
        """Hold the lock of a file, between processes too; of files that are nowhere on the disk, between threads.

        Raises:
            StorageError: another process keeps it (`unavailable`), or the disk cannot be written.
        """
        target = self.file_system.resolve(path)
        if not self.file_system.base_path.is_dir():
            with self._threads:
                yield
            return
        name = hashlib.blake2b(str(target).encode(), digest_size=16).hexdigest()
        lock = FileLock(self.file_system.base_path / ".dipeo" / "locks" / f"{name}.lock", timeout=LOCK_TIMEOUT_S)
        try:
            mine = lock.acquire()
        except OSError as error:
            raise failed("change", path, error) from error
        if not mine:
            raise StorageError(
                f"Cannot change '{path}': another process has held it for {LOCK_TIMEOUT_S:g} s.",
                hint="End that process, or try again later.",
                operation="change",
                path=path,
                cause="unavailable",
            )
        try:
            yield
        finally:
            lock.release()

    # Operations.

    def op_prompt(self, request: DBRequest) -> tuple[Any, dict[str, Any]]:
        return request.path, {}

    def op_read(self, request: DBRequest) -> tuple[Any, dict[str, Any]]:
        text = self.file_system.read_text(request.path)
        facts: dict[str, Any] = {"size": len(text.encode()), "format": request.form}
        if request.lines is not None:
            total = text.splitlines()
            part = select_lines(text, request.lines)
            resolved = [list(r) for r in line_ranges(request.lines, len(total))]
            ranges = {"requested": request.lines, "resolved": resolved}
            return part, {**facts, "partial_content": True, "total_lines": len(total), "line_ranges": ranges}
        body = parse(text, request.form if request.format else guessed(request.path, text), request.path)
        if request.keys:
            return select_keys(body, request.keys, request.path), {**facts, "keys": request.keys}
        return body, {**facts, **_counted(body)}

    def op_write(self, request: DBRequest) -> tuple[Any, dict[str, Any]]:
        if request.keys:
            return self.op_update(request)
        return request.value, self._save(request, request.value)

    def op_append(self, request: DBRequest) -> tuple[Any, dict[str, Any]]:
        known = self._known.get(request.path)
        if known is not None and any(known.signature) and known.signature == self._signature(request.path):
            return request.value, self._spliced(request, known)
        old = self._existing(request)
        if isinstance(old, str) or (old is None and request.form in ("text", "xml")):
            before = old or ""
            content: Any = before + ("" if not before or before.endswith("\n") else "\n") + as_text(request.value)
        else:
            items = old if isinstance(old, list) else [] if old in (None, {}) else [old]
            content = [*items, request.value]
        return request.value, self._save(request, content)

    def op_update(self, request: DBRequest) -> tuple[Any, dict[str, Any]]:
        if not request.keys:
            raise ValidationError("update needs `keys`.", hint="Name the dotted path to set, e.g. keys='user.name'.")
        old = self._existing(request)
        body = {} if old is None else old
        if not isinstance(body, (dict, list)):
            raise ValidationError(
                f"'{request.path}' holds no mapping, so it cannot be updated by keys.", hint="Use write."
            )
        for key in request.keys:
            put(body, key, _part(request.value, key, several=len(request.keys) > 1))
        return request.value, {**self._save(request, body), "keys": request.keys}

    # Files.

    def _existing(self, request: DBRequest) -> Any:
        if not self.file_system.exists(request.path):
            return None
        return parse(self.file_system.read_text(request.path), request.form, request.path)

    def _save(self, request: DBRequest, content: Any) -> dict[str, Any]:
        text = serialized(content, request.form, PurePosixPath(request.path).suffix.lower())
        size = self.file_system.write_text(request.path, text)
        self._known.pop(request.path, None)
        if request.form == "json" and isinstance(content, list) and content and text.endswith("\n]\n"):
            self._known[request.path] = _Known(self._signature(request.path), len(content))  # pyright: ignore[reportUnknownArgumentType]
        return {"size": size, "format": request.form, **_counted(content)}

    def _spliced(self, request: DBRequest, known: _Known) -> dict[str, Any]:
        """Append to a list that is known to be one, without reading its items."""
        data = self.file_system.read_bytes(request.path)
        item = _json(request.value).replace("\n", "\n  ")
        size = self.file_system.write_bytes(request.path, b"".join((data[:-3], f",\n  {item}\n]\n".encode())))
        self._known[request.path] = _Known(self._signature(request.path), known.items + 1)
        return {"size": size, "format": request.form, "items_count": known.items + 1}

    def _signature(self, path: str) -> tuple[int, int, int]:
        """What changes whenever anybody else writes the file."""
        try:
            facts = self.file_system.resolve(path).stat()
        except OSError:
            return (0, 0, 0)
        return facts.st_ino, facts.st_size, facts.st_mtime_ns


class DBRequest(NamedTuple):
    """What an operation works with."""

    path: str
    value: Any
    keys: list[str]
    lines: Any
    format: str | None

    @property
    def form(self) -> str:
        """json, yaml, csv, xml or text."""
        return self.format or FORMATS.get(PurePosixPath(self.path).suffix.lower(), "text")


def path_of(name: str, format: str | None = None, *, reading: bool = False) -> str:
    """The path that a name of a database means.

    Raises:
        ValidationError: it is blank.
    """
    name = str(name).strip()
    if not name:
        raise ValidationError("The database has no name.", hint="Name a file.")
    path = name if "/" in name or "." in name else f"{FOLDER}/{name}"
    if not PurePosixPath(path).suffix and not path.endswith(".") and not (reading and "/" in name):
        path += SUFFIXES.get(format or "", ".json")
    return path


def _counted(content: Any) -> dict[str, Any]:
    return {"items_count": len(content)} if isinstance(content, (list, dict)) else {}  # pyright: ignore[reportUnknownArgumentType]


# Text and values.


def guessed(path: str, text: str) -> str:
    """The format of a file: by its suffix; a text that looks like JSON is tried as JSON."""
    form = FORMATS.get(PurePosixPath(path).suffix.lower(), "text")
    return "json-if-it-is" if form == "text" and text.lstrip()[:1] in ("{", "[") else form


def parse(text: str, form: str, path: str) -> Any:
    """Content by format: json and yaml to values, csv to a list of rows, anything else as text.

    Raises:
        ValidationError: a .json or .yaml file that is none, with the place.
    """
    match form:
        case "json" | "json-if-it-is":
            try:
                return from_json(text, cache_strings="keys")
            except ValueError:
                pass  # the standard library says where, and reads a little more
            try:
                return parse_json(text)
            except ValueError as error:
                if form == "json-if-it-is" or PurePosixPath(path).suffix.lower() != ".json":
                    return text
                raise ValidationError(
                    f"'{path}' is not JSON: {error}.", hint="Mend the file, or set format: text."
                ) from None
        case "yaml":
            try:
                return plain_value(yaml.safe_load(text), path)
            except UnsupportedValueError as error:
                raise ValidationError(f"The file {error.message}", hint=error.hint) from error
            except yaml.YAMLError as error:
                raise ValidationError(
                    f"'{path}' is not YAML: {error}.", hint="Mend the file, or set format: text."
                ) from None
        case "csv":
            return [{k: v for k, v in row.items() if k is not None} for row in csv.DictReader(io.StringIO(text))]  # pyright: ignore[reportUnnecessaryComparison]
        case _:
            return text


def serialized(value: Any, form: str, suffix: str) -> str:
    """The file's text: strings as they are for text formats, structure as JSON, YAML or CSV by the format."""
    if form == "yaml":
        return value if isinstance(value, str) else yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    if form == "csv":
        return value if isinstance(value, str) else _as_csv(value)
    if form == "json" and suffix in ("", ".json"):
        return _json(value) + "\n"
    return as_text(value)


def as_text(value: Any) -> str:
    """Text as it is, None empty, everything else as JSON."""
    return value if isinstance(value, str) else "" if value is None else _json(value)


def _json(value: Any) -> str:
    return to_json(value, indent=2, inf_nan_mode="constants", fallback=str).decode()


def _as_csv(rows: Any) -> str:
    rows = rows if isinstance(rows, list) else [rows]
    out = io.StringIO()
    if all(isinstance(r, Mapping) for r in rows):
        writer = csv.DictWriter(out, list(dict.fromkeys(k for r in rows for k in r)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        csv.writer(out, lineterminator="\n").writerows(r if isinstance(r, list) else [r] for r in rows)
    return out.getvalue()


# Keys.


def key_list(keys: Any) -> list[str]:
    """Keys as users give them: comma separated, or several."""
    if keys is None:
        return []
    parts = keys.split(",") if isinstance(keys, str) else list(keys)
    return [str(k).strip() for k in parts if str(k).strip()]


_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")


def _steps(key: str) -> list[str | int]:
    return [int(number) if number else name for name, number in _STEP.findall(key)]


def select_keys(body: Any, keys: list[str], path: str) -> Any:
    """One key → its value, several → mapping key → value; absent → None."""
    if not isinstance(body, (Mapping, list)):
        raise ValidationError(f"'{path}' holds no mapping, so `keys` cannot select.", hint="Remove `keys`.")
    values = {key: _at(body, _steps(key)) for key in keys}
    return next(iter(values.values())) if len(values) == 1 else values


def _at(value: Any, steps: Iterable[str | int]) -> Any:
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(str(step))  # pyright: ignore[reportUnknownMemberType]
        elif isinstance(value, list):
            try:
                value = value[int(step)]
            except (ValueError, IndexError):
                return None
        else:
            return None
    return value


def _part(value: Any, key: str, *, several: bool) -> Any:
    """What belongs to one of the keys."""
    if not several:
        return value
    if not isinstance(value, Mapping):
        raise ValidationError("Several `keys` need a mapping of values.", hint="Update one key, or give a mapping.")
    last = key.rpartition(".")[2]
    if key not in value and last not in value:
        raise ValidationError(f"The mapping has no value for '{key}'.", hint=f"It has: {', '.join(map(str, value))}.")
    return value[key] if key in value else value[last]


def put(body: Any, key: str, value: Any) -> None:
    """Set the value at a dotted path, making mappings on the way.

    Raises:
        ValidationError: the path leads into a list where there is no such item, or through a value.
    """
    *path, last = _steps(key) or [key]
    for step, following in zip(path, [*path, last][1:], strict=True):
        if isinstance(body, list):
            body = body[_index(body, step, key)]
        else:
            inner = body.get(str(step))
            if inner is None:
                inner = body[str(step)] = {}
            body = inner
        if not isinstance(body, (dict, list)):
            raise ValidationError(
                f"'{key}' leads through {body!r} at '{following}'.", hint="Mend the path, or write the whole."
            )
    if isinstance(body, list):
        body[_index(body, last, key)] = value
    else:
        body[str(last)] = value


def _index(items: list[Any], step: str | int, key: str) -> int:
    try:
        index = int(step)
    except ValueError:
        index = len(items)
    if not -len(items) <= index < len(items):
        raise ValidationError(f"'{key}' names no item of the list at '{step}'.", hint="Mend the path.")
    return index


# Lines.


def select_lines(text: str, lines: Any) -> str:
    """The lines of 1-based inclusive ranges, each once, in the order they are asked for."""
    content = text.splitlines(keepends=True)
    wanted = [n for first, last in line_ranges(lines, len(content)) for n in range(first, min(last, len(content)) + 1)]
    return "".join(content[n - 1] for n in dict.fromkeys(wanted))


def line_ranges(lines: Any, total: int) -> list[tuple[int, int]]:
    """(first, last) of each range in: `5`, `5.0`, `"1:120"`, `":9"`, `"5,10:20"`, `[1, 2]`, `(10, 20)`, {start, end}, {from, to}, nested.

    Raises:
        ValidationError: something else, or a range that counts from 0 or goes downwards.
    """
    try:
        if isinstance(lines, Mapping):
            first, last = lines.get("start", lines.get("from")), lines.get("end", lines.get("to"))
            ranges = [(_whole(first or 1), _whole(last or total))]
        elif isinstance(lines, tuple) and len(lines) == 2:
            ranges = [(_whole(lines[0]), _whole(lines[1]))]
        elif isinstance(lines, (list, tuple)):
            return [r for part in lines for r in line_ranges(part, total)]
        elif isinstance(lines, str) and "," in lines:
            return [r for part in lines.split(",") for r in line_ranges(part.strip(), total)]
        elif isinstance(lines, str) and ":" in lines:
            first, _, last = lines.partition(":")
            ranges = [(_whole(first or 1), _whole(last or max(total, 1)))]
        else:
            ranges = [(_whole(lines), _whole(lines))]
    except (TypeError, ValueError):
        raise ValidationError(
            f"'{lines}' is not a line range.", hint="Write 5, 1:120, '5,10:20' or {start: 1, end: 20}."
        ) from None
    if any(a < 1 or b < a for a, b in ranges):
        raise ValidationError(f"'{lines}' is not a line range.", hint="Lines count from 1, and ranges go upwards.")
    return ranges


def _whole(value: Any) -> int:
    number = float(value) if not isinstance(value, bool) else float("nan")
    if number != int(number):
        raise ValueError(value)
    return int(number)
