"""Operations on files as databases."""

from __future__ import annotations

import codecs
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from dipeo_nb.common.cancellable import check, in_thread, is_cancelled
from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.locks import FileLock
from dipeo_nb.common.operation_log import logged
from dipeo_nb.common.root import own_root
from dipeo_nb.domain.ports import FileSystemPort
from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage import csv_text
from dipeo_nb.storage.json_db.keys import key_list, put_all, select_keys
from dipeo_nb.storage.json_db.lines import line_ranges, lines_of, select_lines
from dipeo_nb.storage.json_db.request import DBRequest, LongYamlError, path_of
from dipeo_nb.storage.json_db.text import as_text, counted, guessed, is_text, json_lines, parse, serialized, with_line
from dipeo_nb.storage.json_db.yaml_changes import with_appended_yaml, with_updated_yaml
from dipeo_nb.storage.local.text import decoded, encoded
from dipeo_nb.storage.structured_text import json_text, with_item, yaml_text
from dipeo_nb.workers import WORKERS

LOCK_TIMEOUT_S = 30.0
"""Seconds to wait for another writer of the same file."""
QUICK_YAML = 200_000
"""Maximum characters of a YAML text that is parsed in the reading thread."""
LONG_TRIES = 5
"""Attempts to change a longer one while others change the file."""


class _Known(NamedTuple):
    """A JSON list that this process has just written: items can be appended without parsing it."""

    signature: tuple[int, int, int]
    items: int


class _Stored(NamedTuple):
    """The content of a file."""

    mark: bytes
    """Its byte order mark, if it has one."""
    text: str


@logged("execute_operation")
class DBOperationsDomainService:
    """JSON, YAML, CSV and text files below the base directory of a file system.

    A subclass adds an operation as a method `op_<name>(self, request) -> (value, metadata)`; it runs in a worker thread, and
    under the file's lock when its name is in `CHANGING`.

    Args:
        file_system: confines every path and limits every size.
        validation_service: kept for subclasses, for compatibility with DiPeO; not used here.
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
        """Names of the operations, including those of subclasses."""
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
        """Execute one operation on one file.

        Args:
            db_name: a path, or a bare name: `users` is `dbs/users.json`.
            operation: read, write, append, update or prompt (returns the name); see `allowed_operations`.
            value: value to write.
            keys: dotted paths with list indexes (`users[0].name`, comma separated or several): one returns the bare value, several
                a mapping by path; missing ones are None. update needs them; write with keys is update.
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
            raise ValidationError("`lines` works with read only, and not together with `keys`.", hint="Remove one of them.")
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
            except LongYamlError as error:
                long = error  # unrelated to errors raised below
            # A thread cannot be stopped, and YAML takes a second per few hundred kilobytes. The lock is not held meanwhile; if the
            # file has changed since, this is repeated.
            done = await WORKERS.call(long.function, long.text, *long.arguments)
            request = request._replace(worked_out=(long.text, done))
        else:
            raise StorageError(
                f"Cannot change '{request.path}': it changes faster than its {len(request.worked_out[0]):,} characters can be processed.",
                hint="Keep what changes often in a smaller file, or as JSON.",
                operation=operation,
                path=request.path,
                cause="unavailable",
            )
        metadata = {"operation": operation, "file_path": request.path, **facts}
        return {"value": result, "metadata": metadata}

    @contextmanager
    def locked(self, path: str) -> Iterator[None]:
        """Hold the lock of a file, across processes; for files that are not on disk, across threads.

        Raises:
            StorageError: another process holds it (`unavailable`), or the disk is not writable.
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
        return body, {**facts, **counted(body)}

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
            # Keep the byte order mark.
            return request.value, self._begin(request, b"" if stored is None else stored.mark)
        match request.form:
            case "csv":
                text, count = csv_text.appended(stored.text, request.value, request.path)
                facts: dict[str, Any] = {"items_count": count}
            case "json" | "yaml":
                text, facts = self._with_item(request, stored.text)
            case "jsonl":
                text, facts = with_line(stored.text, json_lines(request.value, request.path), whole=True), {}
            case _:
                text, facts = with_line(stored.text, as_text(request.value, request.path)), {}
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
        put_all(body, request.value, request.keys, request.path)
        return request.value, {**self._save(request, body), "keys": request.keys}

    # Files.

    def _stored(self, path: str) -> _Stored | None:
        """Return the text of a file; None when there is no such file."""
        if not self.file_system.exists(path):
            return None
        data = self.file_system.read_bytes(path)
        mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
        return _Stored(mark, decoded(data, path))

    def _existing(self, request: DBRequest) -> Any:
        """Return the value of a file, or None when there is no such file. For operations of subclasses."""
        stored = self._stored(request.path)
        return None if stored is None else parse(stored.text, request.form, request.path)

    def _save(self, request: DBRequest, content: Any) -> dict[str, Any]:
        text = serialized(content, request.form, request.path)
        facts = self._replace(request, b"", text, counted(content))
        if request.form == "json" and isinstance(content, list) and content and text.endswith("\n]\n"):
            self._known[request.path] = _Known(self._signature(request.path), len(content))  # pyright: ignore[reportUnknownArgumentType]
        return facts

    def _replace(self, request: DBRequest, mark: bytes, text: str, facts: dict[str, Any]) -> dict[str, Any]:
        data = mark + encoded(text, request.path)
        check()  # a third-party file system may not support cancellation
        size = self.file_system.write_bytes(request.path, data)
        self._known.pop(request.path, None)
        return {"size": size, "format": request.form, **facts}

    def _begin(self, request: DBRequest, mark: bytes) -> dict[str, Any]:
        """Append to a missing or empty file."""
        if request.form == "jsonl":
            return self._replace(request, mark, json_lines(request.value, request.path), {})
        if request.form in ("text", "xml"):
            return self._replace(request, mark, as_text(request.value, request.path), {})
        if request.form == "csv":
            text, count = csv_text.appended("", request.value, request.path)
            return self._replace(request, mark, text, {"items_count": count})
        return self._save(request, [request.value])

    def _with_item(self, request: DBRequest, text: str) -> tuple[str, dict[str, Any]]:
        """Append an item to a JSON or YAML text, leaving the other items untouched; a value other than a list becomes the first item."""
        if request.form == "yaml":
            if len(text) > QUICK_YAML:
                yaml_text([request.value], request.path)  # refused here, if at all
                longer, facts = request.of_long(
                    text, f"{with_appended_yaml.__module__}:with_appended_yaml", request.value, request.path
                )
                return longer, facts
            return with_appended_yaml(text, request.value, request.path)
        old = parse(text, request.form, request.path)
        if isinstance(old, str) and request.form == "json" and is_text(request.path):
            return with_line(text, as_text(request.value, request.path)), {}
        if isinstance(old, list):
            count = len(old) + 1  # pyright: ignore[reportUnknownArgumentType]
            return with_item(text, json_text(request.value, request.path), count - 1), {"items_count": count}
        items: list[Any] = [request.value] if old is None or old == {} else [old, request.value]
        return serialized(items, request.form, request.path), {"items_count": len(items)}

    def _update_yaml(self, request: DBRequest, text: str) -> dict[str, Any]:
        if len(text) > QUICK_YAML:
            yaml_text([request.value], request.path)  # refused here, if at all
            changed, facts = request.of_long(
                text, f"{with_updated_yaml.__module__}:with_updated_yaml", request.value, request.keys, request.path
            )
        else:
            changed, facts = with_updated_yaml(text, request.value, request.keys, request.path)
        return {**self._replace(request, b"", changed, facts), "keys": request.keys}

    def _spliced(self, request: DBRequest, known: _Known) -> dict[str, Any]:
        """Append to a known list without parsing its items."""
        data = self.file_system.read_bytes(request.path)
        item = json_text(request.value, request.path).replace("\n", "\n  ")
        check()
        size = self.file_system.write_bytes(request.path, b"".join((data[:-3], f",\n  {item}\n]\n".encode())))
        self._known[request.path] = _Known(self._signature(request.path), known.items + 1)
        return {"size": size, "format": request.form, "items_count": known.items + 1}

    def _signature(self, path: str) -> tuple[int, int, int]:
        """Return a signature that changes whenever another writer changes the file."""
        try:
            facts = self.file_system.resolve(path).stat()
        except OSError:
            return (0, 0, 0)
        return facts.st_ino, facts.st_size, facts.st_mtime_ns
