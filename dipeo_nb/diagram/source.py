"""From text to values, with places: YAML and JSON become plain data, and every value can say where it stands.

YAML is read from the parser's events by our own loop, not by PyYAML's constructor. That is four times faster, needs no
recursion (deep nesting crashes the C composer), and lets us decide what a value is: dates stay text, `1:20` stays text,
mapping keys are always text as written, aliases become copies within a budget, tags that build objects are refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from dipeo_nb.config import get_settings
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.enums import Severity
from dipeo_nb.errors import DiagramFormatError, DiagramNotFoundError

try:
    from yaml.cyaml import CParser as _EventParser  # pyright: ignore[reportAttributeAccessIssue]
except ImportError:  # PyYAML built without libyaml: slower, same events
    from yaml.parser import Parser as _PyParser
    from yaml.reader import Reader as _PyReader
    from yaml.scanner import Scanner as _PyScanner

    class _EventParser(_PyReader, _PyScanner, _PyParser):  # type: ignore[no-redef]
        def __init__(self, stream: str) -> None:
            _PyReader.__init__(self, stream)
            _PyScanner.__init__(self)
            _PyParser.__init__(self)


MAX_BYTES = 10 * 1024 * 1024
"""Largest diagram that is read; the largest real one known is 60 KB."""
MAX_DEPTH = 100
"""Levels of nesting."""
SPARE_VALUES = 10_000
"""Values that aliases may add beyond one per character of the text."""

DocumentPath = tuple[str | int, ...]
"""Keys and indexes from the top of a document, e.g. `("nodes", 3, "code")`."""


class Document(NamedTuple):
    """A text as plain data (mappings with text keys, lists, text, numbers, booleans, None)."""

    value: Any
    source: SourceMap
    json: bool
    """Whether the text is JSON (else YAML)."""
    duplicates: bool
    """Whether some mapping holds a key twice (the last one counts)."""


class Spot:
    """Where one value stands: offsets into the text, and its children."""

    __slots__ = ("column", "end", "items", "line", "start", "text")

    def __init__(self, line: int, column: int, start: int, text: str | None = None, end: int = -1) -> None:
        self.line = line
        self.column = column
        self.start = start
        self.end = end
        self.text = text
        """A scalar's text after unquoting; None for collections."""
        self.items: list[Spot] | dict[str, tuple[Spot, Spot]] | None = None
        """Children of a sequence; (key, value) by key of a mapping."""


class SourceMap:
    """Where things stand in the text of a diagram; places are computed when first asked for.

    All lines and columns are 1-based. Lookups answer None when the place is unknown.
    """

    def __init__(self, text: str = "", file: str | None = None, *, json: bool = False) -> None:
        self.text = text
        self.file = file
        self.json = json
        self.nodes: dict[str, DocumentPath] = {}
        """Node id → path of its mapping; the readers fill these three."""
        self.arrows: dict[str, DocumentPath] = {}
        self.persons: dict[str, DocumentPath] = {}
        self.spellings: Mapping[str, tuple[str, ...]] = {}
        """Canonical field → other spellings it may have in the text."""
        self._root: Spot | None = None
        self._duplicates: list[Spot] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_root": None, "_duplicates": []}

    @property
    def root(self) -> Spot | None:
        """The tree of places; None for an empty text."""
        if self._root is None and self.text:
            places = _json_places if self.json else _yaml_places
            self._root, self._duplicates = places(self.text)
        return self._root

    def spot(self, *path: str | int) -> tuple[Spot, Spot] | None:
        """The (key, value) pair at a document path; in sequences and at the top both are the value."""
        here = self.root
        pair = (here, here) if here else None
        for step in path:
            items = pair[1].items if pair else None
            if isinstance(items, dict) and isinstance(step, str):
                pair = items.get(step)
            elif isinstance(items, list) and isinstance(step, int) and step < len(items):
                pair = (items[step], items[step])
            else:
                return None
        return pair

    def place(self, *path: str | int) -> tuple[int, int] | None:
        """Line and column of a document path: of the key in a mapping, of the item in a list."""
        pair = self.spot(*path)
        return (pair[0].line, pair[0].column) if pair else None

    def written(self, *path: str | int) -> str | None:
        """The text of a scalar as the author wrote it (`No` rather than False), without quotes."""
        pair = self.spot(*path)
        return pair[1].text if pair else None

    def node(self, node_id: str, field: str | None = None) -> tuple[int, int] | None:
        """Place of a node, or of one of its fields (in any accepted spelling) when the text has it."""
        return self._part(self.nodes, node_id, field)

    def arrow(self, arrow_id: str, field: str | None = None) -> tuple[int, int] | None:
        """Place of an arrow, or of one of its fields when the text has it."""
        return self._part(self.arrows, arrow_id, field)

    def person(self, person_id: str, field: str | None = None) -> tuple[int, int] | None:
        """Place of a person, or of one of its fields when the text has it."""
        return self._part(self.persons, person_id, field)

    def field_path(self, base: DocumentPath, field: str) -> DocumentPath | None:
        """Path of a field of the node, arrow or person at *base*, in whatever spelling the text has."""
        names = (field, *self.spellings.get(field, ()))
        for inner in ((), ("props",), ("data",), ("llm_config",)):
            for name in names:
                if self.spot(*base, *inner, name):
                    return (*base, *inner, name)
        pair = self.spot(*base)
        keys = pair[1].items if pair else None
        if isinstance(keys, dict):
            for key in keys:
                if key.split(".")[0] in names:
                    return (*base, key)
        return None

    def duplicates(self) -> list[tuple[str, int, int]]:
        """Keys that a mapping holds more than once: (key, line, column) of the later ones."""
        return [(s.text or "", s.line, s.column) for s in self._duplicates] if self.root else []

    def _part(self, table: Mapping[str, DocumentPath], name: str, field: str | None) -> tuple[int, int] | None:
        base = table.get(name)
        if base is None:
            return None
        path = self.field_path(base, field) if field else None
        return self.place(*(path or base))


class Reading:
    """What a format's reader works with: the top mapping, its places, and the findings so far."""

    def __init__(self, value: Mapping[str, Any], source: SourceMap) -> None:
        self.value = value
        self.source = source
        self.found: list[Diagnostic] = []

    def inform(self, code: str, message: str, *at: str | int, **more: Any) -> None:
        """Report something that is as it should be, and good to know."""
        self._add(Severity.INFO, code, message, at, more)

    def warn(self, code: str, message: str, *at: str | int, **more: Any) -> None:
        """Report something that does not keep the diagram from running."""
        self._add(Severity.WARNING, code, message, at, more)

    def error(self, code: str, message: str, *at: str | int, **more: Any) -> None:
        """Report something that forbids running the diagram."""
        self._add(Severity.ERROR, code, message, at, more)

    def refuse(self, message: str, *at: str | int, hint: str) -> DiagramFormatError:
        """The error for a document whose main parts cannot be read at all."""
        return format_error(message, hint, self.source.file, self._nearest_place(at))

    def _add(self, severity: Severity, code: str, message: str, at: DocumentPath, more: dict[str, Any]) -> None:
        line, column = self._nearest_place(at) or (None, None)
        self.found.append(Diagnostic(severity, code, message, file=self.source.file, line=line, column=column, **more))

    def _nearest_place(self, path: DocumentPath) -> tuple[int, int] | None:
        for end in range(len(path), 0, -1):
            if place := self.source.place(*path[:end]):
                return place
        return None


def format_error(
    message: str, hint: str, file: str | None = None, place: tuple[int, int] | None = None
) -> DiagramFormatError:
    """A `DiagramFormatError` whose message starts with the place, `file:line:column: `."""
    line, column = place or (None, None)
    where = ":".join(str(p) for p in (file, line, column) if p is not None)
    return DiagramFormatError(
        f"{where}: {message}" if where else message, hint=hint, file=file, line=line, column=column
    )


# ------------------------------------------------------------------------------------------------------ files


def read_file(path: Path) -> str:
    """The text of a diagram file, line ends and byte order mark untouched.

    Raises:
        DiagramNotFoundError: there is no such file.
        DiagramFormatError: a folder, a device, unreadable, larger than 10 MB, binary, or not UTF-8.
    """
    name = str(path)
    try:
        if path.is_dir():
            raise format_error("This is a folder, not a diagram file.", "Name a file inside it.", name)
        if not path.exists():
            raise DiagramNotFoundError(f"There is no file '{name}'.", hint="Check the path.", path=name)
        if not path.is_file():
            raise format_error("This is not a regular file.", "Copy its contents into a file first.", name)
        limit = size_limit()
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(limit + 1) if size <= limit else b""
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise format_error(
            f"The file cannot be read: {reason}.", "Check its name and permissions.", name[:200]
        ) from exc
    if size > limit:
        raise _too_large(name, f"{size:,}", limit)
    return text_of(data, name, limit)


def size_limit() -> int:
    """Bytes of a diagram's file at most."""
    return min(MAX_BYTES, get_settings().max_file_size)


def text_of(data: bytes, file: str, limit: int) -> str:
    """The text of a file of which at most one byte more than *limit* was read. Raises DiagramFormatError."""
    if len(data) > limit:
        raise _too_large(file, f"more than {limit:,}", limit)
    return decode(data, file)


def _too_large(file: str, size: str, limit: int) -> DiagramFormatError:
    return format_error(
        f"The file has {size} bytes; a diagram has at most {limit:,}.",
        "Move data into files of its own and read them with a db node.",
        file,
    )


_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def decode(data: bytes, file: str | None = None) -> str:
    """Bytes as UTF-8 text.

    Raises:
        DiagramFormatError: another encoding (named when it has a byte order mark), or binary data.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            raise format_error(f"The file is encoded as {encoding}; diagrams are UTF-8.", "Save it as UTF-8.", file)
    if b"\x00" in data:
        raise format_error(
            f"The file is binary (a zero byte at offset {data.index(0):,}).", "Name a YAML or JSON diagram.", file
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        before = data[: exc.start]
        place = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        raise format_error(
            f"The file is not UTF-8 (byte 0x{data[exc.start]:02x} at offset {exc.start:,}).",
            "Save it as UTF-8.",
            file,
            place,
        ) from exc


# ------------------------------------------------------------------------------------------------------ values


def parse(text: str, file: str | None = None) -> Document:
    """Read a YAML or JSON text.

    Raises:
        DiagramFormatError: empty, too long, neither YAML nor JSON, nested too deep, cyclic or exploding aliases.
    """
    if len(text) > MAX_BYTES:
        raise format_error(
            f"The text has {len(text):,} characters; a diagram has at most {MAX_BYTES:,}.",
            "Move data into files of its own and read them with a db node.",
            file,
        )
    if "\x00" in text:
        raise format_error("The text is binary (it holds a zero byte).", "Give YAML or JSON text.", file)
    _check_characters(text, file)
    body = text.removeprefix("\ufeff")
    if not body.strip():
        raise format_error("The diagram is empty.", "Write at least 'version: light' and some nodes.", file)
    must_be_json = bool(file) and file.lower().endswith(".json")
    if must_be_json or body.lstrip()[0] == "{":
        try:
            value, duplicates = _json_value(body, file)
            return Document(value, SourceMap(text, file, json=True), True, duplicates)
        except json.JSONDecodeError as exc:
            if must_be_json:
                raise format_error(
                    f"This is not valid JSON: {exc.msg[:1].lower()}{exc.msg[1:]}.",
                    "Check quotes, commas and brackets around this place.",
                    file,
                    (exc.lineno, exc.colno),
                ) from None
            # Otherwise it may be YAML in flow style, `{nodes: [...]}`.
    value, duplicates = _yaml_value(body, file)
    return Document(value, SourceMap(text, file), False, duplicates)


def _check_characters(text: str, file: str | None, *, placed: bool = True) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        before = text[: exc.start]
        raise format_error(
            f"The text holds half of a surrogate pair (U+{ord(text[exc.start]):04X}), which is no character.",
            "Remove it.",
            file,
            (before.count("\n") + 1, exc.start - before.rfind("\n")) if placed else None,
        ) from None


def _json_value(text: str, file: str | None) -> tuple[Any, bool]:
    duplicates = False

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal duplicates
        made = dict(pairs)
        duplicates = duplicates or len(made) != len(pairs)
        return made

    def refuse_constant(name: str) -> Any:
        raise format_error(f"'{name}' is no JSON number.", "Write a number, or null.", file)

    try:
        value = json.loads(text, object_pairs_hook=mapping, parse_constant=refuse_constant)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise _too_deep(file) from None
    except ValueError as exc:  # an integer of thousands of digits
        raise format_error(f"A number cannot be read: {exc}.", "Write a smaller number, or quote it.", file) from None
    _check_depth(value, 0, file)
    if "\\ud" in text or "\\uD" in text:  # only an escape can bring half a character in
        _check_characters(json.dumps(value, ensure_ascii=False), file, placed=False)
    return value, duplicates


def _check_depth(value: Any, depth: int, file: str | None) -> None:
    if depth > MAX_DEPTH:
        raise _too_deep(file)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    for item in value:
        if isinstance(item, (dict, list)):
            _check_depth(item, depth + 1, file)


def _too_deep(file: str | None, place: tuple[int, int] | None = None) -> DiagramFormatError:
    return format_error(f"The text is nested deeper than {MAX_DEPTH} levels.", "Flatten the data.", file, place)


_TRUE = ("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = ("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(_TRUE, True),
    **dict.fromkeys(_FALSE, False),
}
_NUMBER_STARTS = frozenset("+-.0123456789")
# YAML 1.1 as PyYAML writes it, but without base-60 numbers: `lines: 10:20` means two line numbers.
_INTEGER = re.compile(r"[-+]?(?:(0b[01_]+)|(0x[0-9a-fA-F_]+)|(0[0-7_]+)|(0|[1-9][0-9_]*))")
_FLOAT = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_CORE = "tag:yaml.org,2002:"
_MERGE = object()


def _plain(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if match := _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        try:
            return int(digits, next(base for base, group in zip((2, 16, 8, 10), match.groups(), strict=True) if group))
        except ValueError:  # `0_`, or thousands of digits
            return text
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _tagged(event: Any, file: str | None) -> Any:
    kind = event.tag.removeprefix(_CORE) if event.tag.startswith(_CORE) else event.tag
    if kind in ("!", "str", "timestamp"):
        return event.value
    if kind in ("null", "bool", "int", "float"):
        value = _plain(event.value)
        wanted = {"null": type(None), "bool": bool, "int": int, "float": (int, float)}[kind]
        if isinstance(value, wanted) and (kind == "bool" or not isinstance(value, bool)):
            return float(value) if kind == "float" else value
        raise format_error(f"'{event.value[:40]}' is no {kind}.", f"Remove the tag '!!{kind}'.", file, _mark(event))
    raise _forbidden_tag(event, file)


def _forbidden_tag(event: Any, file: str | None) -> DiagramFormatError:
    tag = event.tag.replace(_CORE, "!!")[:80]
    return format_error(f"The tag '{tag}' is not allowed in a diagram.", "Remove the tag.", file, _mark(event))


def _mark(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _next_event(parser: Any, file: str | None) -> Any:
    try:
        return parser.get_event()
    except yaml.YAMLError as exc:
        raise _yaml_error(exc, file) from None


_YAML_ADVICE = (
    ("'\\t'", "Indent with blanks, not with tabs."),
    ("mapping values are not allowed", "Put text that holds ': ' into quotes, and check the indentation."),
    ("did not find expected key", "Check the indentation, and quote text that starts with a quote or bracket."),
    ("unexpected end of stream", "Close the quote or bracket that was opened here."),
    ("undefined alias", "Define it first with '&name', or quote text that starts with '*'."),
    ("cannot start any token", "Put text that starts with a special character into quotes."),
)


def _yaml_error(exc: yaml.YAMLError, file: str | None) -> DiagramFormatError:
    mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
    problem = getattr(exc, "problem", None) or getattr(exc, "reason", None) or str(exc)
    context = getattr(exc, "context", None)
    told = f"{context}, {problem}" if context else problem
    hint = next((advice for sign, advice in _YAML_ADVICE if sign in told), "Check quotes and indentation around there.")
    place = (mark.line + 1, mark.column + 1) if mark else None
    return format_error(f"This is not valid YAML: {told}.", hint, file, place)


def _yaml_value(text: str, file: str | None) -> tuple[Any, bool]:
    """The value of a YAML text, and whether a mapping holds a key twice."""
    try:
        parser: Any = _EventParser(text)
    except yaml.YAMLError as exc:  # the pure Python reader checks characters at once
        raise _yaml_error(exc, file) from None
    anchors: dict[str, Any] = {}
    opened: set[str] = set()
    stack: list[tuple[list[Any], bool, Any]] = []  # (items of the parent, whether it is a mapping, start event)
    items: list[Any] = []
    in_mapping = False
    duplicates = False
    documents = 0
    budget = len(text) + SPARE_VALUES
    while True:
        event = _next_event(parser, file)
        kind = type(event)
        if kind is ScalarEvent:
            value: Any = event.value
            if in_mapping and not len(items) & 1:
                if value == "<<" and event.implicit[0]:
                    value = _MERGE
            elif event.tag is not None:
                value = _tagged(event, file)
            elif event.implicit[0]:
                value = _plain(value)
            if event.anchor:
                anchors[event.anchor] = value
            items.append(value)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            if event.tag is not None and event.tag not in (f"{_CORE}map", f"{_CORE}seq", "!"):
                raise _forbidden_tag(event, file)
            if len(stack) >= MAX_DEPTH:
                raise _too_deep(file, _mark(event))
            if event.anchor:
                opened.add(event.anchor)
            stack.append((items, in_mapping, event))
            items = []
            in_mapping = kind is MappingStartEvent
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            value = items
            items, in_mapping, start = stack.pop()
            if kind is MappingEndEvent:
                pairs = value
                value = _mapping(pairs, start, file)
                duplicates = duplicates or (2 * len(value) != len(pairs) and _MERGE not in pairs[::2])
            if start.anchor:
                anchors[start.anchor] = value
                opened.discard(start.anchor)
            items.append(value)
        elif kind is AliasEvent:
            if event.anchor in opened:
                raise format_error(
                    f"The alias '*{event.anchor}' stands inside its own anchor '&{event.anchor}', without end.",
                    "Remove the alias, or move it out of the anchored part.",
                    file,
                    _mark(event),
                )
            if event.anchor not in anchors:
                raise format_error(
                    f"The alias '*{event.anchor}' has no anchor '&{event.anchor}' before it.",
                    "Define it first, or quote text that starts with '*'.",
                    file,
                    _mark(event),
                )
            value, budget = _copy(anchors[event.anchor], budget, len(stack), file, event)
            items.append(value)
        elif kind is DocumentStartEvent:
            documents += 1
            if documents > 1:
                raise format_error(
                    "The text holds several YAML documents.", "Remove the line '---' here.", file, _mark(event)
                )
        elif kind is StreamEndEvent:
            break
    if not items or (items == [None] and not text.strip().strip("-.").strip()):
        raise format_error("The diagram is empty.", "Write at least 'version: light' and some nodes.", file)
    return items[0], duplicates


def _mapping(items: list[Any], start: Any, file: str | None) -> dict[str, Any]:
    keys = iter(items)
    try:
        made = dict(zip(keys, keys, strict=True))
    except TypeError:
        raise format_error(
            "A key is a list or mapping; keys are text.", "Quote keys with brackets or braces.", file, _mark(start)
        ) from None
    if _MERGE in made:
        inherited = made.pop(_MERGE)
        for part in inherited if isinstance(inherited, list) else [inherited]:
            if not isinstance(part, dict):
                raise format_error("'<<' merges mappings only.", "Give it '*name' of a mapping.", file, _mark(start))
            for key, value in part.items():
                made.setdefault(key, value)
    return made


def _copy(value: Any, budget: int, depth: int, file: str | None, event: Any) -> tuple[Any, int]:
    """An own copy of an anchored value, so that nobody changes two places at once; refuses "billion laughs"."""
    budget -= 1
    if budget < 0:
        raise format_error(
            "The aliases of this text expand to far more values than it has characters.",
            "Write the values out, or use fewer aliases of aliases.",
            file,
            _mark(event),
        )
    if depth > MAX_DEPTH:
        raise _too_deep(file, _mark(event))
    if isinstance(value, list):
        copied = []
        for item in value:
            one, budget = _copy(item, budget, depth + 1, file, event)
            copied.append(one)
        return copied, budget
    if isinstance(value, dict):
        made = {}
        for key, item in value.items():
            made[key], budget = _copy(item, budget, depth + 1, file, event)
        return made, budget
    return value, budget


# ------------------------------------------------------------------------------------------------------ places


class _Places:
    """Builds the tree of spots from a stream of starts, ends and scalars."""

    def __init__(self) -> None:
        self.root: Spot | None = None
        self.duplicates: list[Spot] = []
        self.stack: list[tuple[Spot, list[Spot]]] = []

    def add(self, spot: Spot) -> None:
        if self.stack:
            self.stack[-1][1].append(spot)
        elif self.root is None:
            self.root = spot

    def open(self, spot: Spot) -> None:
        self.stack.append((spot, []))

    def close(self, end: int, mapping: bool) -> Spot:
        spot, children = self.stack.pop()
        spot.end = end
        if mapping:
            pairs: dict[str, tuple[Spot, Spot]] = {}
            for key, value in zip(children[::2], children[1::2], strict=True):
                if key.text in pairs:
                    self.duplicates.append(key)
                pairs[key.text or ""] = (key, value)
            if "<<" in pairs:
                merged = pairs["<<"][1]
                for part in [merged] if isinstance(merged.items, dict) else merged.items or []:
                    if isinstance(part.items, dict):
                        pairs = {**part.items, **pairs}
            spot.items = pairs
        else:
            spot.items = children
        self.add(spot)
        return spot


def _yaml_places(text: str) -> tuple[Spot | None, list[Spot]]:
    shift = len(text) - len(text.removeprefix("\ufeff"))
    parser: Any = _EventParser(text[shift:])
    places = _Places()
    anchors: dict[str, Spot] = {}
    while True:
        event = parser.get_event()
        kind = type(event)
        if kind is StreamEndEvent:
            return places.root, places.duplicates
        mark = event.start_mark
        spot = Spot(mark.line + 1, mark.column + 1, mark.index + shift)
        if kind is ScalarEvent:
            spot.text = event.value
            spot.end = event.end_mark.index + shift
            places.add(spot)
        elif kind is AliasEvent:
            target = anchors[event.anchor]
            spot.text, spot.items = target.text, target.items
            spot.end = event.end_mark.index + shift
            places.add(spot)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            places.open(spot)
            if event.anchor:
                anchors[event.anchor] = spot
            continue
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            places.close(event.end_mark.index + shift, kind is MappingEndEvent)
        if getattr(event, "anchor", None) and kind is ScalarEvent:
            anchors[event.anchor] = spot


_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s,:{}\[\]"]+')


def _json_places(text: str) -> tuple[Spot | None, list[Spot]]:
    places = _Places()
    for line, column, start, token in _json_tokens(text):
        spot = Spot(line, column, start)
        if token in ("{", "["):
            places.open(spot)
        elif token in ("}", "]"):
            places.close(start + 1, token == "}")
        else:
            spot.text = json.loads(token, strict=False) if token[0] == '"' else token.removeprefix("\ufeff")
            spot.end = start + len(token)
            places.add(spot)
    return places.root, places.duplicates


def _json_tokens(text: str) -> Iterator[tuple[int, int, int, str]]:
    line, line_start = 1, 0
    last = 0
    for match in _JSON_TOKEN.finditer(text, len(text) - len(text.removeprefix("\ufeff"))):
        start = match.start()
        breaks = text.count("\n", last, start)
        if breaks:
            line += breaks
            line_start = text.rindex("\n", last, start) + 1
        last = start
        yield line, start - line_start + 1, start, match[0]
