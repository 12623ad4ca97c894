"""Files as a small database: read, write, append, update by keys; safe between tasks, threads and processes (infra-spec §2.7)."""

from __future__ import annotations

import codecs
import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dipeo_nb.common.cancellable import check, in_thread, is_cancelled
from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.locks import FileLock
from dipeo_nb.common.operations import logged
from dipeo_nb.common.root import own_root
from dipeo_nb.common.short_repr import short_repr
from dipeo_nb.domain.ports import FileSystemPort
from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage import csv_text
from dipeo_nb.storage.local import decoded, encoded
from dipeo_nb.storage.structured_text import (
    has_comments,
    json_line,
    json_text,
    json_value,
    with_item,
    with_yaml_item,
    with_yaml_scalar,
    yaml_native,
    yaml_text,
    yaml_value,
)
from dipeo_nb.workers import WORKERS

FORMATS = {
    ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".csv": "csv", ".xml": "xml", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
"""Suffix → format; every other suffix is text."""
SUFFIXES = {"yaml": ".yaml", "csv": ".csv", "text": ".txt", "xml": ".xml"}
"""Format → suffix of a name that has none; `.json` for the others."""
LOCK_TIMEOUT_S = 30.0
"""Seconds to wait for somebody else who changes the same file."""
QUICK_YAML = 200_000
"""Characters of a YAML text that is parsed where it is read."""
LONG_TRIES = 5
"""Times that a change of a longer one is worked out anew because somebody else has changed the file."""
LINES_AT_ONCE = 200_000
"""Characters that are searched for lines at once, at least."""
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

        for _ in range(LONG_TRIES):
            try:
                result, facts = await in_thread(work)
                break
            except _LongYamlError as error:
                long = error  # what is raised below has nothing to do with it
            # A thread could not be stopped, and YAML takes a second for every few hundred kilobytes. The lock is not held
            # meanwhile; a file that somebody has changed since is worked out again.
            done = await WORKERS.call(long.function, long.text, *long.arguments)
            request = request._replace(worked_out=(long.text, done))
        else:
            raise StorageError(
                f"Cannot change '{request.path}': it is changed faster than its {len(request.worked_out[0]):,} characters are worked out.",
                hint="Keep what changes often in a smaller file, or as JSON.",
                operation=operation,
                path=request.path,
                cause="unavailable",
            )
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
        locks = own_root(self.file_system.base_path).below("locks")
        lock = FileLock(locks.path / f"{name}.lock", timeout=LOCK_TIMEOUT_S, private=True, subject=path)
        try:
            locks.mkdir()
        except OSError as error:
            raise failed("change", path, error) from error
        if not lock.acquire(cancelled=is_cancelled):
            check()
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
        data = self.file_system.read_bytes(request.path)
        text = decoded(data, request.path)
        facts: dict[str, Any] = {"size": len(data), "format": request.form}
        if request.lines is not None:
            total = len(lines_of(text))
            part = select_lines(text, request.lines)
            resolved = [list(r) for r in line_ranges(request.lines, total)]
            ranges = {"requested": request.lines, "resolved": resolved}
            return part, {**facts, "partial_content": True, "total_lines": total, "line_ranges": ranges}
        if request.form == "yaml" and len(text) > QUICK_YAML:
            body = request.of_long(text, "dipeo_nb.storage.structured_text:yaml_value", request.path)
        else:
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
        stored = self._stored(request.path)
        if stored is None or not stored.text.strip():
            # The first line of a text keeps the mark that says how it is encoded.
            return request.value, self._begin(request, b"" if stored is None else stored.mark)
        match request.form:
            case "csv":
                text, count = csv_text.appended(stored.text, request.value, request.path)
                facts: dict[str, Any] = {"items_count": count}
            case "json" | "yaml":
                text, facts = self._with_item(request, stored.text)
            case "jsonl":
                text, facts = _with_line(stored.text, _json_lines(request.value, request.path), whole=True), {}
            case _:
                text, facts = _with_line(stored.text, as_text(request.value, request.path)), {}
        return request.value, self._replace(request, stored.mark, text, facts)

    def op_update(self, request: DBRequest) -> tuple[Any, dict[str, Any]]:
        if not request.keys:
            raise ValidationError("update needs `keys`.", hint="Name the dotted path to set, e.g. keys='user.name'.")
        stored = self._stored(request.path)
        text = "" if stored is None else stored.text
        if request.form == "yaml" and text.strip():
            return request.value, self._update_yaml(request, text)
        body = parse(text, request.form, request.path) if text.strip() else {}
        if request.form == "csv" and text.strip():
            csv_text.refuse_uneven(text, request.path)
        _put_all(body, request.value, request.keys, request.path)
        return request.value, {**self._save(request, body), "keys": request.keys}

    # Files.

    def _stored(self, path: str) -> _Stored | None:
        """The content of a file as it is; None when there is none."""
        if not self.file_system.exists(path):
            return None
        data = self.file_system.read_bytes(path)
        mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
        return _Stored(mark, decoded(data, path))

    def _existing(self, request: DBRequest) -> Any:
        """The value of a file; None when there is none. For operations of subclasses."""
        stored = self._stored(request.path)
        return None if stored is None else parse(stored.text, request.form, request.path)

    def _save(self, request: DBRequest, content: Any) -> dict[str, Any]:
        text = serialized(content, request.form, request.path)
        facts = self._replace(request, b"", text, _counted(content))
        if request.form == "json" and isinstance(content, list) and content and text.endswith("\n]\n"):
            self._known[request.path] = _Known(self._signature(request.path), len(content))  # pyright: ignore[reportUnknownArgumentType]
        return facts

    def _replace(self, request: DBRequest, mark: bytes, text: str, facts: dict[str, Any]) -> dict[str, Any]:
        data = mark + encoded(text, request.path)
        check()  # a file system of somebody else may know nothing of cancellation
        size = self.file_system.write_bytes(request.path, data)
        self._known.pop(request.path, None)
        return {"size": size, "format": request.form, **facts}

    def _begin(self, request: DBRequest, mark: bytes) -> dict[str, Any]:
        """Append to nothing."""
        if request.form == "jsonl":
            return self._replace(request, mark, _json_lines(request.value, request.path), {})
        if request.form in ("text", "xml"):
            return self._replace(request, mark, as_text(request.value, request.path), {})
        if request.form == "csv":
            text, count = csv_text.appended("", request.value, request.path)
            return self._replace(request, mark, text, {"items_count": count})
        return self._save(request, [request.value])

    def _with_item(self, request: DBRequest, text: str) -> tuple[str, dict[str, Any]]:
        """A JSON or YAML text with another item, the others as they stand there; what is no list becomes the first item."""
        if request.form == "yaml":
            if len(text) > QUICK_YAML:
                yaml_text([request.value], request.path)  # refused here, if at all
                longer, facts = request.of_long(text, f"{__name__}:with_appended_yaml", request.value, request.path)
                return longer, facts
            return with_appended_yaml(text, request.value, request.path)
        old = parse(text, request.form, request.path)
        if isinstance(old, str) and request.form == "json" and _is_text(request.path):
            return _with_line(text, as_text(request.value, request.path)), {}
        if isinstance(old, list):
            count = len(old) + 1  # pyright: ignore[reportUnknownArgumentType]
            return with_item(text, json_text(request.value, request.path), count - 1), {"items_count": count}
        items: list[Any] = [request.value] if old is None or old == {} else [old, request.value]
        return serialized(items, request.form, request.path), {"items_count": len(items)}

    def _update_yaml(self, request: DBRequest, text: str) -> dict[str, Any]:
        if len(text) > QUICK_YAML:
            yaml_text([request.value], request.path)  # refused here, if at all
            changed, facts = request.of_long(text, f"{__name__}:with_updated_yaml", request.value, request.keys, request.path)
        else:
            changed, facts = with_updated_yaml(text, request.value, request.keys, request.path)
        return {**self._replace(request, b"", changed, facts), "keys": request.keys}

    def _spliced(self, request: DBRequest, known: _Known) -> dict[str, Any]:
        """Append to a list that is known to be one, without reading its items."""
        data = self.file_system.read_bytes(request.path)
        item = json_text(request.value, request.path).replace("\n", "\n  ")
        check()
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


def with_appended_yaml(text: str, value: Any, path: str) -> tuple[str, dict[str, Any]]:
    """(text, facts) of a YAML list with another item, the others as they stand there; what is no list becomes the first item."""
    old = yaml_value(text, path)
    if isinstance(old, list):
        count = len(old) + 1  # pyright: ignore[reportUnknownArgumentType]
        longer = with_yaml_item(text, value, path)
        if longer is not None:
            return longer, {"items_count": count}
    _refuse_to_lose_comments(text, path)
    native = yaml_native(text, path)
    before: list[Any] = native if isinstance(native, list) else [] if old is None or old == {} else [native]
    items = [*before, value]
    return serialized(items, "yaml", path), {"items_count": len(items)}


def with_updated_yaml(text: str, value: Any, keys: list[str], path: str) -> tuple[str, dict[str, Any]]:
    """(text, facts) of YAML with other values: single ones are replaced where they stand, so that comments stay; else the whole
    is written anew."""
    body = yaml_native(text, path)
    body = {} if body is None else body
    _put_all(body, value, keys, path)
    whole = serialized(body, "yaml", path)
    wanted = parse(whole, "yaml", path)
    changed: str | None = text
    for key in keys:
        part = _part(value, key, several=len(keys) > 1)
        changed = None if changed is None else with_yaml_scalar(changed, _steps(key) or [key], part, path)
    if changed is not None:
        try:
            fits = parse(changed, "yaml", path) == wanted
        except (ValidationError, StorageError):
            fits = False
        if fits:
            return changed, _counted(body)
    _refuse_to_lose_comments(text, path)
    return whole, _counted(body)


class _LongYamlError(Exception):
    """A YAML text with which something takes long: *function* (`module:name`), called with it and *arguments*."""

    def __init__(self, text: str, function: str, arguments: tuple[Any, ...]) -> None:
        super().__init__("the YAML is long")
        self.text = text
        self.function = function
        self.arguments = arguments


class _Stored(NamedTuple):
    """The content of a file."""

    mark: bytes
    """Its byte order mark, if it has one."""
    text: str


class DBRequest(NamedTuple):
    """What an operation works with."""

    path: str
    value: Any
    keys: list[str]
    lines: Any
    format: str | None
    worked_out: tuple[str, Any] = ("", None)
    """(text, what was worked out of it elsewhere), of a long text."""

    def of_long(self, text: str, function: str, *arguments: Any) -> Any:
        """What a function makes of a long text. Raises _LongYamlError where that is not worked out yet."""
        if self.worked_out[0] != text:
            raise _LongYamlError(text, function, arguments)
        return self.worked_out[1]

    @property
    def form(self) -> str:
        """json, jsonl (a value of JSON in each line), yaml, csv, xml or text."""
        named = FORMATS.get(PurePosixPath(self.path).suffix.lower(), "text")
        return named if named == "jsonl" and self.format == "json" else self.format or named


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
    return "json-if-it-is" if form in ("text", "jsonl") and text.lstrip()[:1] in ("{", "[") else form


def parse(text: str, form: str, path: str) -> Any:
    """Content by format: json and yaml to values, csv to a list of rows, anything else as text.

    Raises:
        ValidationError: a .json or .yaml file that is none, with the place.
    """
    match form:
        case "json" | "json-if-it-is" | "jsonl":
            try:
                return json_value(text, path)
            except ValidationError:
                if form != "json" or _is_text(path):
                    return text
                raise
        case "yaml":
            return yaml_value(text, path)
        case "csv":
            return csv_text.rows_of(text, path)
        case _:
            return text


def serialized(value: Any, form: str, path: str) -> str:
    """The file's text: strings as they are for text formats, structure as JSON, YAML or CSV by the format.

    Raises:
        StorageError: `not_json` or `not_csv`: the format cannot hold the value, with the place in it.
    """
    if form == "yaml":
        return value if isinstance(value, str) else yaml_text(value, path)
    if form == "csv":
        return value if isinstance(value, str) else csv_text.text_of(value, path)
    if form == "jsonl":
        items: list[Any] = value if isinstance(value, list) else [value]
        return value if isinstance(value, str) else "".join(f"{json_line(item, path)}\n" for item in items)
    if form == "json" and not _is_text(path):
        return json_text(value, path) + "\n"
    return as_text(value, path)


def as_text(value: Any, path: str) -> str:
    """Text as it is, None empty, everything else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json_text(value, path)


def _is_text(path: str) -> bool:
    """Whether a file is text by its name, in which JSON may stand."""
    return PurePosixPath(path).suffix.lower() not in ("", ".json")


def _with_line(text: str, line: str, *, whole: bool = False) -> str:
    """A text with another line (*whole*: or several, with their ends), under its own kind of line ends."""
    newline = "\r\n" if "\r\n" in text else "\r" if "\r" in text and "\n" not in text else "\n"
    return text + ("" if text.endswith(("\n", "\r")) else newline) + (line.replace("\n", newline) if whole else line)


def _json_lines(value: Any, path: str) -> str:
    """A value as a line of JSON; a text that is lines of lists and mappings in JSON as it is."""
    if isinstance(value, str):
        lines = [line.rstrip("\r\n") for line in lines_of(value) if line.strip()]
        if lines and all(line.lstrip()[0] in "[{" and _is_json(line, path) for line in lines):
            return "".join(f"{line}\n" for line in lines)
    return f"{json_line(value, path)}\n"


def _is_json(text: str, path: str) -> bool:
    try:
        json_value(text, path)
    except ValidationError:
        return False
    return True


def _refuse_to_lose_comments(text: str, path: str) -> None:
    if has_comments(text):
        raise ValidationError(
            f"'{path}' has comments, which this change would lose.",
            hint="Change single values that are there, remove the comments, or write the whole file.",
        )


# Keys.


def key_list(keys: Any) -> list[str]:
    """Keys as users give them: comma separated, or several."""
    if keys is None:
        return []
    if isinstance(keys, Mapping) or not isinstance(keys, Iterable) or isinstance(keys, (bytes, bytearray)):
        raise ValidationError(f"`keys` is {keys!r:.60}.", hint="Write dotted paths: 'user.name' or ['a', 'b[0]'].")
    parts = keys.split(",") if isinstance(keys, str) else list(keys)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    return [str(k).strip() for k in parts if str(k).strip()]


_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d{1,18})\]")


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


def _put_all(body: Any, value: Any, keys: list[str], path: str) -> None:
    """Set what belongs to each key."""
    if not isinstance(body, (dict, list)):
        raise ValidationError(f"'{path}' holds no mapping, so it cannot be updated by keys.", hint="Use write.")
    for key in keys:
        check()
        put(body, key, _part(value, key, several=len(keys) > 1))


def _part(value: Any, key: str, *, several: bool) -> Any:
    """What belongs to one of the keys."""
    if not several:
        return value
    if not isinstance(value, Mapping):
        raise ValidationError("Several `keys` need a mapping of values.", hint="Update one key, or give a mapping.")
    last = key.rpartition(".")[2]
    if key not in value and last not in value:
        raise ValidationError(f"The mapping has no value for '{key:.200}'.", hint=f"It has: {short_repr(list(value))}.")
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
            name = _named(body, step)
            inner = body.get(name)
            if inner is None:
                inner = body[name] = {}
            body = inner
        if not isinstance(body, (dict, list)):
            raise ValidationError(
                f"'{key:.200}' leads through {short_repr(body)} at '{following!s:.60}'.", hint="Correct the path, or write the whole."
            )
    if isinstance(body, list):
        body[_index(body, last, key)] = value
    else:
        body[_named(body, last)] = value


def _named(body: Mapping[Any, Any], step: str | int) -> Any:
    """The name in a mapping that a step means; YAML has others than texts."""
    text = str(step)
    if text in body or not any(name in body for name in _meant(text)):
        return text
    check()  # each name of the mapping is looked at
    return next((name for name in body if str(name) == text), text)


def _meant(text: str) -> Iterator[Any]:
    """The names other than texts that look like this one."""
    yield from {"None": [None], "True": [True], "False": [False]}.get(text, [])
    for kind in (int, float, date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            yield kind(text)


def _index(items: list[Any], step: str | int, key: str) -> int:
    try:
        index = int(step)
    except ValueError:
        index = len(items)
    if not -len(items) <= index < len(items):
        raise ValidationError(f"'{key:.200}' names no item of the list at '{step!s:.60}'.", hint="Correct the path.")
    return index


# Lines.


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends, as editors count them: \\n, \\r\\n and \\r end one, nothing else does."""
    found: list[str] = []
    begin = 0
    while begin < len(text):  # in parts: the search holds the interpreter, and with it the event loop
        check()
        end = text.find("\n", begin + LINES_AT_ONCE) + 1 or len(text)
        found += _LINE.findall(text, begin, end)
        begin = end
    return found


_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def select_lines(text: str, lines: Any) -> str:
    """The lines of 1-based inclusive ranges, each once, in the order they are asked for."""
    content = lines_of(text)
    free = list(range(len(content) + 2))  # of a line that is taken already: one further on, where the search goes on

    def next_free(n: int) -> int:
        while free[n] != n:
            free[n] = n = free[free[n]]
        return n

    wanted: list[str] = []
    for first, last in line_ranges(lines, len(content)):
        check()
        n = next_free(min(first, len(content) + 1))
        while n <= min(last, len(content)):
            wanted.append(content[n - 1])
            free[n] = n + 1
            n = next_free(n + 1)
    return "".join(wanted)


def line_ranges(lines: Any, total: int) -> list[tuple[int, int]]:
    """(first, last) of each range in: `5`, `5.0`, `"1:120"`, `":9"`, `"5,10:20"`, `[1, 2]`, `(10, 20)`, {start, end}, {from, to}, nested.

    Raises:
        ValidationError: something else, or a range that counts from 0 or goes downwards.
    """
    try:
        if isinstance(lines, Mapping):
            if not lines or not lines.keys() <= {"start", "from", "end", "to"}:
                raise ValueError("other names")
            ranges = [_range(lines.get("start", lines.get("from")), lines.get("end", lines.get("to")), total)]
        elif isinstance(lines, tuple) and len(lines) == 2:
            ranges = [(_whole(lines[0]), _whole(lines[1]))]
        elif isinstance(lines, (list, tuple)):
            return [r for part in lines for r in line_ranges(part, total)]
        elif isinstance(lines, str) and "," in lines:
            return [r for part in lines.split(",") for r in line_ranges(part.strip(), total)]
        elif isinstance(lines, str) and ":" in lines:
            first, _, last = lines.partition(":")
            ranges = [_range(first or None, last or None, total)]
        else:
            ranges = [(_whole(lines), _whole(lines))]
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ValidationError(
            f"{short_repr(lines)} is not a line range.", hint="Write 5, 1:120, '5,10:20' or {start: 1, end: 20}."
        ) from None
    if any(a < 1 or b < a for a, b in ranges):
        raise ValidationError(f"{short_repr(lines)} is not a line range.", hint="Lines count from 1, and ranges go upwards.")
    return ranges


def _range(first: Any, last: Any, total: int) -> tuple[int, int]:
    """The range between two ends, either of which may be None: the first line, the last one (none when *first* is after it)."""
    start = 1 if first is None else _whole(first)
    return start, max(start, total) if last is None else _whole(last)


def _whole(value: Any) -> int:
    number = float(value) if not isinstance(value, bool) else float("nan")
    if number != int(number):
        raise ValueError(value)
    return int(number)
