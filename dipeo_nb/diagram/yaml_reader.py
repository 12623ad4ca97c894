"""YAML text as plain data, and the positions of its values.

YAML is read from the parser's events by our own loop, not by PyYAML's constructor. That is four times faster, needs no
recursion (deep nesting crashes the C composer), and lets us decide what a value is: dates stay text, `1:20` stays text,
mapping keys are always text as written, aliases become copies within a budget, tags that build objects are refused.
"""

from __future__ import annotations

import re
from typing import Any

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

from dipeo_nb.diagram.format_errors import MAX_DEPTH, format_error, too_deep
from dipeo_nb.diagram.spans import SourceSpan, SpanTree
from dipeo_nb.errors import DiagramFormatError

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


SPARE_VALUES = 10_000
"""Values that aliases may add beyond one per character of the text."""
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
        raise format_error(f"'{event.value[:40]}' is not a valid {kind}.", f"Remove the tag '!!{kind}'.", file, _mark(event))
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
    ("'\\t'", "Indent with spaces, not with tabs."),
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
    cause = f"{context}, {problem}" if context else problem
    hint = next((advice for sign, advice in _YAML_ADVICE if sign in cause), "Check quotes and indentation around there.")
    place = (mark.line + 1, mark.column + 1) if mark else None
    return format_error(f"This is not valid YAML: {cause}.", hint, file, place)


def yaml_value(text: str, file: str | None) -> tuple[Any, bool]:
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
                raise too_deep(file, _mark(event))
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
                    f"The alias '*{event.anchor}' is inside its own anchor '&{event.anchor}', without end.",
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
                raise format_error("The text holds several YAML documents.", "Remove the line '---' here.", file, _mark(event))
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
    """A separate copy of an anchored value, so that a change of one does not change the other; refuses "billion laughs"."""
    budget -= 1
    if budget < 0:
        raise format_error(
            "The aliases of this text expand to far more values than it has characters.",
            "Write the values out, or use fewer aliases of aliases.",
            file,
            _mark(event),
        )
    if depth > MAX_DEPTH:
        raise too_deep(file, _mark(event))
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


def yaml_spans(text: str, *, until: str | None = None) -> tuple[SourceSpan | None, list[SourceSpan]]:
    """The positions of a YAML text that `yaml_value` can read, and the keys that a mapping holds again.

    Args:
        until: a key of the outermost mapping; what comes after its list or mapping is not read.
    """
    shift = len(text) - len(text.removeprefix("\ufeff"))
    parser: Any = _EventParser(text[shift:])
    places = SpanTree()
    anchors: dict[str, SourceSpan] = {}
    while True:
        event = parser.get_event()
        kind = type(event)
        if kind is StreamEndEvent:
            return places.root, places.duplicates
        mark = event.start_mark
        span = SourceSpan(mark.line + 1, mark.column + 1, mark.index + shift)
        if kind is ScalarEvent:
            span.text = event.value
            span.end = event.end_mark.index + shift
            places.add(span)
        elif kind is AliasEvent:
            target = anchors[event.anchor]
            span.text, span.items = target.text, target.items
            span.end = event.end_mark.index + shift
            places.add(span)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            if kind is SequenceStartEvent and not places.stack:
                until = None  # the outermost is not a mapping
            places.open(span)
            if event.anchor:
                anchors[event.anchor] = span
            continue
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            end = event.end_mark.index + shift
            places.close(end, kind is MappingEndEvent)
            if until is not None and places.is_at(until):
                places.close(end, True)
                return places.root, places.duplicates
        if getattr(event, "anchor", None) and kind is ScalarEvent:
            anchors[event.anchor] = span
