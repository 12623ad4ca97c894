"""db: reads and writes files below the base directory (diagram-spec §3.6 "Do")."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, cast

import yaml
from filelock import FileLock

from dipeo_nb.domain.enums import DBOperation
from dipeo_nb.domain.nodes import DbNode
from dipeo_nb.domain.ports import FileSystemPort
from dipeo_nb.errors import NodeExecutionError, StorageError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, as_text, plain

FORMATS = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".csv": "csv", ".xml": "xml"}
"""Suffix → format; every other suffix is text."""
VALUE_NAMES = ("generated_code", "content", "value")
"""Inputs that hold what is to be written, in this order, before the first input of any name."""
LOCK_TIMEOUT = 30.0
"""Seconds to wait for another process that changes the same file."""


async def run(context: NodeContext) -> Output:
    spec = cast(DbNode, context.node.spec)
    paths = _paths(context, spec)
    match spec.operation:
        case DBOperation.PROMPT:
            return Output(", ".join(paths))
        case DBOperation.READ:
            return await asyncio.to_thread(_read, context.services.files, spec, paths)
        case _:
            if len(paths) != 1 or _is_glob(paths[0]):
                raise NodeExecutionError(
                    f"{spec.operation} takes exactly one file, not {len(paths)}.",
                    hint="Name one path without wildcards.",
                )
            value = written_value(context)
            return await asyncio.to_thread(_change, context.services.files, spec, paths[0], value)


def _paths(context: NodeContext, spec: DbNode) -> list[str]:
    given = spec.file if isinstance(spec.file, list) else [spec.file or ""]
    processor = context.services.templates
    paths = [processor.process_single_brace(str(p), context.names).strip() for p in given]
    if not any(paths):
        raise NodeExecutionError("The db node names no file.", hint="Set `file` (source_details).")
    return [p if "/" in p or _is_glob(p) or "." in p else f"dbs/{p}.json" for p in paths if p]


def _is_glob(path: str) -> bool:
    return any(c in path for c in "*?[")


# Reading.


def _read(files: FileSystemPort, spec: DbNode, paths: list[str]) -> Output:
    if len(paths) == 1 and not _is_glob(paths[0]):
        try:
            text = files.read_text(paths[0])
        except StorageError as error:
            if spec.default is not None and not files.exists(paths[0]):
                return Output(spec.default, meta={"path": paths[0], "missing": True})
            raise _with_hint(error, paths[0]) from error
        body, text = _content(text, paths[0], spec)
        return Output(body, text, meta={"path": paths[0]})
    found: dict[str, Any] = {}
    for path in paths:
        for name in [p.as_posix() for p in files.glob(path)] if _is_glob(path) else [path]:
            try:
                found[name] = _content(files.read_text(name), name, spec)[0]
            except StorageError:
                found[name] = None  # spec §3.6: an unreadable one of several is None
    return Output(found, meta={"paths": list(found)})


def _with_hint(error: StorageError, path: str) -> StorageError:
    return StorageError(
        error.message,
        hint=f"Create '{path}' below the base directory (--base-dir, DIPEO_BASE_DIR), mend the node's `file`, "
        "or give the node a `default`.",
        operation="read",
    )


def _content(text: str, path: str, spec: DbNode) -> tuple[Any, str | None]:
    """(parsed content, text form)."""
    if spec.lines is not None:
        if spec.keys:
            raise NodeExecutionError("`lines` and `keys` exclude each other.", hint="Remove one of them.")
        text = select_lines(text, spec.lines)
        return text, text
    body = parse(text, str(spec.format) if spec.format else _format(path, text), path)
    if spec.keys:
        return select_keys(body, _keys(spec.keys), path), None
    if spec.serialize_json and isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError as error:
            raise NodeExecutionError(
                f"'{path}' is not JSON: {error}.", hint="Mend the file, or remove serialize_json."
            ) from None
    return body, text


def _format(path: str, text: str) -> str:
    form = FORMATS.get(PurePosixPath(path).suffix.lower(), "text")
    return "json-if-it-is" if form == "text" and text.lstrip()[:1] in ("{", "[") else form


def parse(text: str, form: str, path: str) -> Any:
    """Content by format: json and yaml to values, csv to a list of rows, anything else as text.

    Raises:
        NodeExecutionError: a .json or .yaml file that is none, with the place.
    """
    match form:
        case "json":
            try:
                return json.loads(text)
            except ValueError as error:
                if PurePosixPath(path).suffix.lower() != ".json":
                    return text
                raise NodeExecutionError(
                    f"'{path}' is not JSON: {error}.", hint="Mend the file, or set format: text."
                ) from None
        case "json-if-it-is":
            try:
                return json.loads(text)
            except ValueError:
                return text
        case "yaml":
            try:
                return json.loads(json.dumps(yaml.safe_load(text), default=str))
            except yaml.YAMLError as error:
                raise NodeExecutionError(
                    f"'{path}' is not YAML: {error}.", hint="Mend the file, or set format: text."
                ) from None
        case "csv":
            return [{k: v for k, v in row.items() if k is not None} for row in csv.DictReader(io.StringIO(text))]
        case _:
            return text


def _keys(keys: Any) -> list[str]:
    parts = keys.split(",") if isinstance(keys, str) else list(keys)
    return [str(k).strip() for k in parts if str(k).strip()]


_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d+)\]")


def _steps(key: str) -> list[str | int]:
    return [int(number) if number else name for name, number in _STEP.findall(key)]


def select_keys(body: Any, keys: list[str], path: str) -> Any:
    """One key → its value, several → mapping key → value; absent → None."""
    if not isinstance(body, (Mapping, list)):
        raise NodeExecutionError(f"'{path}' holds no mapping, so `keys` cannot select.", hint="Remove `keys`.")
    values = {key: _at(body, _steps(key)) for key in keys}
    return next(iter(values.values())) if len(values) == 1 else values


def _at(value: Any, steps: Iterable[str | int]) -> Any:
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(str(step))
        elif isinstance(value, list):
            try:
                value = value[int(step)]
            except (ValueError, IndexError):
                return None
        else:
            return None
    return value


def select_lines(text: str, lines: Any) -> str:
    """The lines of 1-based inclusive ranges: `5`, `1:120`, `5,10:20`, [1, 2], {start, end}, nested."""
    content = text.splitlines(keepends=True)
    wanted: list[int] = []
    for first, last in _ranges(lines, len(content)):
        wanted += range(first, min(last, len(content)) + 1)
    return "".join(content[i - 1] for i in dict.fromkeys(wanted))


def _ranges(lines: Any, total: int) -> list[tuple[int, int]]:
    try:
        if isinstance(lines, Mapping):
            first, last = lines.get("start", lines.get("from")), lines.get("end", lines.get("to"))
            return [(int(first or 1), int(last or total))]
        if isinstance(lines, (list, tuple)):
            return [r for part in lines for r in _ranges(part, total)]
        if isinstance(lines, str) and "," in lines:
            return [r for part in lines.split(",") for r in _ranges(part.strip(), total)]
        if isinstance(lines, str) and ":" in lines:
            first, _, last = lines.partition(":")
            ranges = [(int(first or 1), int(last or total))]
        else:
            ranges = [(int(lines), int(lines))]
    except (TypeError, ValueError):
        raise NodeExecutionError(
            f"'{lines}' is not a line range.", hint="Write 5, 1:120, '5,10:20' or {start: 1, end: 20}."
        ) from None
    if any(a < 1 or b < a for a, b in ranges):
        raise NodeExecutionError(f"'{lines}' is not a line range.", hint="Lines count from 1, and ranges go upwards.")
    return ranges


# Writing.


def written_value(context: NodeContext) -> Any:
    """The first of generated_code, content, value; else the first input; a mapping that holds one of them is unwrapped."""
    values = context.inputs.values
    chosen = next((values[n] for n in VALUE_NAMES if values.get(n) is not None), None)
    if chosen is None:
        chosen = next((v for v in values.values() if v is not None), None)
    if isinstance(chosen, Mapping) and not hasattr(chosen, "__dipeo_text__"):
        chosen = next((chosen[n] for n in VALUE_NAMES if chosen.get(n) is not None), chosen)
    if chosen is None:
        spec = cast(DbNode, context.node.spec)
        chosen = spec.data
    if chosen is None:
        raise NodeExecutionError(
            "There is nothing to write: no input has a value.", hint="Draw an arrow into the node."
        )
    return str(chosen) if hasattr(chosen, "__dipeo_text__") else chosen


def _change(files: FileSystemPort, spec: DbNode, path: str, value: Any) -> Output:
    if not PurePosixPath(path).suffix:
        path += {"yaml": ".yaml", "csv": ".csv", "text": ".txt", "xml": ".xml"}.get(str(spec.format or ""), ".json")
    target = files.resolve(path)
    locks = files.base_path / ".dipeo" / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.blake2b(str(target).encode(), digest_size=16).hexdigest()
    with FileLock(locks / f"{name}.lock", timeout=LOCK_TIMEOUT):
        match spec.operation:
            case DBOperation.APPEND:
                content = _appended(files, spec, path, value)
            case DBOperation.UPDATE:
                content = _updated(files, spec, path, value)
            case _:
                content = _updated(files, spec, path, value) if spec.keys else value
        size = files.write_text(
            path,
            serialized(
                content,
                str(spec.format) if spec.format else FORMATS.get(target.suffix.lower(), "text"),
                target.suffix.lower(),
            ),
        )
    verb = {DBOperation.WRITE: "Wrote", DBOperation.APPEND: "Appended to", DBOperation.UPDATE: "Updated"}[
        spec.operation
    ]
    return Output(
        {"path": path, "bytes": size, "value": plain(value)},
        f"{verb} {path} ({size} bytes)",
        meta={"path": path, "bytes": size},
    )


def serialized(value: Any, form: str, suffix: str) -> str:
    """The file's text: strings raw for text formats, structure as JSON, YAML or CSV by the format."""
    value = plain(value) if not isinstance(value, str) else str(value)
    if form == "yaml":
        return value if isinstance(value, str) else yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    if form == "csv":
        return value if isinstance(value, str) else _as_csv(value)
    if form == "json" and suffix in ("", ".json"):
        return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
    return as_text(value)


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


def _existing(files: FileSystemPort, spec: DbNode, path: str) -> Any:
    if not files.exists(path):
        return None
    text = files.read_text(path)
    return parse(
        text, str(spec.format) if spec.format else FORMATS.get(PurePosixPath(path).suffix.lower(), "text"), path
    )


def _appended(files: FileSystemPort, spec: DbNode, path: str, value: Any) -> Any:
    old = _existing(files, spec, path)
    if isinstance(old, str):
        return old + ("" if not old or old.endswith("\n") else "\n") + as_text(value)
    if old is None and FORMATS.get(PurePosixPath(path).suffix.lower(), "text") == "text" and spec.format is None:
        return as_text(value)
    items = old if isinstance(old, list) else [] if old in (None, {}) else [old]
    return [*items, plain(value)]


def _updated(files: FileSystemPort, spec: DbNode, path: str, value: Any) -> Any:
    keys = _keys(spec.keys or [])
    if not keys:
        raise NodeExecutionError("update needs `keys`.", hint="Name the dotted path to set, e.g. keys: user.name.")
    old = _existing(files, spec, path)
    body = {} if old is None else old
    if not isinstance(body, dict):
        raise NodeExecutionError(f"'{path}' holds no mapping, so it cannot be updated by keys.", hint="Use write.")
    for key in keys:
        part = value
        if len(keys) > 1:
            if not isinstance(value, Mapping):
                raise NodeExecutionError(
                    "Several `keys` need a mapping of values.", hint="Update one key, or give a mapping."
                )
            part = value.get(key, value.get(key.rpartition(".")[2]))
        _set(body, _steps(key), plain(part), key)
    return body


def _set(body: Any, steps: list[str | int], value: Any, key: str) -> None:
    for i, step in enumerate(steps):
        last = i == len(steps) - 1
        if isinstance(body, list):
            if not isinstance(step, int) or not -len(body) <= step < len(body):
                raise NodeExecutionError(f"'{key}' names no item of the list at '{step}'.", hint="Mend the path.")
            if last:
                body[step] = value
            else:
                body = body[step]
        elif isinstance(body, dict):
            name = str(step)
            if last:
                body[name] = value
            else:
                if not isinstance(body.get(name), (dict, list)):
                    body[name] = {}
                body = body[name]
