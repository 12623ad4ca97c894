"""Syntax trees of TypeScript, by tree-sitter. The only module that imports it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict

from dipeo_nb.errors import MissingDependencyError

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Tree

MAX_BYTES = 4_000_000
"""Of a source."""
MAX_SECONDS = 20.0
"""That the parsing of one source may take."""
MAX_NESTING = 10_000
"""Levels of a syntax tree. A union of as many members has as many levels."""
MAX_DIAGNOSTICS = 20
"""Of the syntax of one source, one for each line."""
MAX_WARNINGS = 1000
"""Diagnostics of one source, of its values included."""
_WHOLE = 64_000
"""Bytes that are parsed in one go; larger sources are handed over in pieces, so that other threads run meanwhile."""
_LINE_END = re.compile(rb"\r\n?")
_BOM = b"\xef\xbb\xbf"
_UNKNOWN = re.compile(rb"(?<=\bexport\s)\s*type(?=\s*\*)|(?<=[<,])\s*(?:in\s+out|in|out)(?=\s+[A-Z])")
"""What the grammar does not know, and nothing here depends on: `export type * from './x'` (TypeScript 5.0), `<in out T>` (4.7)."""


class Position(TypedDict):
    """Where something is, counted from 1; columns in characters; the end is that of the last character, exclusive."""

    line: int
    column: int
    endLine: int
    endColumn: int


class Diagnostic(TypedDict):
    """What could not be read."""

    severity: str
    """`error`: the text was not understood; `warning`: a value was not evaluated; `info`: a value is a function."""
    line: int
    column: int
    message: str
    text: str
    """What stands there, up to 80 characters."""


_MORE = " There are more such places."


class SourceError(Exception):
    """A source of which nothing can be read."""

    def __init__(self, message: str, line: int = 1, column: int = 1, text: str = "") -> None:
        super().__init__(message)
        self.diagnostic = Diagnostic(severity="error", line=line, column=column, message=message, text=text)


@dataclass(slots=True)
class Source:
    """A source and its syntax tree."""

    name: str
    data: bytes
    """UTF-8, with `\\n` at the ends of lines."""
    root: Node
    diagnostics: list[Diagnostic] = field(default_factory=list["Diagnostic"])
    _tree: Any = None
    """Keeps the nodes alive."""
    _ascii: bool = True

    def text(self, node: Node) -> str:
        return self.data[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def position(self, node: Node) -> Position:
        (line, column), (end_line, end_column) = node.start_point, node.end_point
        if not self._ascii:
            column = self._characters(node.start_byte, column)
            end_column = self._characters(node.end_byte, end_column)
        return Position(line=line + 1, column=column + 1, endLine=end_line + 1, endColumn=end_column + 1)

    def _characters(self, end: int, column: int) -> int:
        return len(self.data[end - column : end].decode("utf-8", "replace"))

    def diagnose(self, node: Node, message: str, severity: str = "error") -> None:
        if len(self.diagnostics) >= MAX_WARNINGS:
            last = self.diagnostics[-1]
            last["message"] = f"{last['message'].removesuffix(_MORE)}{_MORE}"
            return
        at = self.position(node)
        text = " ".join(
            self.data[node.start_byte : min(node.end_byte, node.start_byte + 320)].decode("utf-8", "replace").split()
        )
        self.diagnostics.append(
            Diagnostic(
                severity=severity, line=at["line"], column=at["column"], message=message,
                text=text if len(text) <= 80 else f"{text[:79]}…",
            )
        )  # fmt: skip


def read(name: str, text: str | bytes, *, tsx: bool, cancelled: Callable[[], bool] = lambda: False) -> Source:
    """Parse a source.

    Args:
        name: for nothing but the result's `name`.
        tsx: with JSX, where `<T>x` is not a type assertion.
        cancelled: asked while a large source is parsed; True ends the parsing.

    Raises:
        SourceError: nothing can be read: it is too large, binary, nested too deeply, or took too long.
        MissingDependencyError: tree-sitter is not installed.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_BYTES:
        raise SourceError(f"The source has more than {MAX_BYTES:,} bytes, the most that is read.")
    # As TypeScript does in templates. Elsewhere line ends have no meaning, and the same source must give the same everywhere.
    data = _LINE_END.sub(b"\n", data.removeprefix(_BOM))
    if (zero := data.find(b"\0")) >= 0:
        line, column = data.count(b"\n", 0, zero) + 1, zero - data.rfind(b"\n", 0, zero)
        raise SourceError("The source is binary: it holds the character U+0000.", line, column)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = data.count(b"\n", 0, error.start) + 1, error.start - data.rfind(b"\n", 0, error.start)
        raise SourceError("The source is not UTF-8 text.", line, column) from error
    tree = _parsed(data, tsx, cancelled)
    if tree.root_node.has_error and _UNKNOWN.search(data):
        # Blanks of the same length: all offsets hold, and texts are taken from the original.
        tree = _parsed(_UNKNOWN.sub(lambda found: re.sub(rb"[^\n]", b" ", found[0]), data), tsx, cancelled)
    source = Source(name, data, tree.root_node, [], tree, data.isascii())
    _check_nesting(source)
    if tree.root_node.has_error:
        _diagnose_errors(source)
    return source


@cache
def _language(tsx: bool) -> Language:
    try:
        import tree_sitter
        import tree_sitter_typescript
    except ImportError as error:
        package = (error.name or "tree-sitter-typescript").replace("_", "-")
        raise MissingDependencyError.for_extra(package or "tree-sitter-typescript", extra="codegen") from error
    grammar = tree_sitter_typescript.language_tsx if tsx else tree_sitter_typescript.language_typescript
    return tree_sitter.Language(grammar())


def _parsed(data: bytes, tsx: bool, cancelled: Callable[[], bool]) -> Tree:
    language = _language(tsx)
    from tree_sitter import Parser

    parser = Parser(language)  # parsers are not to be shared between threads, and cost microseconds
    if len(data) <= _WHOLE:
        return parser.parse(data)
    end = time.monotonic() + MAX_SECONDS
    try:
        return parser.parse(
            lambda offset, _: data[offset : offset + _WHOLE],
            progress_callback=lambda *_: cancelled() or time.monotonic() > end,
        )
    except ValueError as error:
        if cancelled():
            raise SourceError("The parsing was cancelled.") from error
        raise SourceError(f"The source took longer than {MAX_SECONDS:g} s to parse.") from error


def _check_nesting(source: Source) -> None:
    if len(source.data) < MAX_NESTING:  # each level needs a character
        return
    level = [source.root]
    for _ in range(MAX_NESTING):
        following = [child for node in level for child in node.named_children]
        if not following:
            return
        level = following
    at = source.position(level[0])
    raise SourceError(f"The source is nested deeper than {MAX_NESTING:,} levels.", at["line"], at["column"])


def _diagnose_errors(source: Source) -> None:
    lines: set[int] = set()
    for node in _errors(source.root):
        line = node.start_point[0]
        if line not in lines and len(lines) < MAX_DIAGNOSTICS:
            source.diagnose(node, f"'{node.type}' is missing here." if node.is_missing else "This is not understood.")
        lines.add(line)
    if len(lines) > MAX_DIAGNOSTICS:
        source.diagnostics[-1]["message"] += f" {len(lines) - MAX_DIAGNOSTICS} more lines are not understood."


def _errors(root: Node) -> Iterator[Node]:
    """The outermost nodes that are errors, in the order of the text; of several in a row the first."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            yield node
        elif node.has_error:
            children = node.children
            kept = [c for at, c in enumerate(children) if c.has_error and not (at and c.is_error and children[at - 1].is_error)]
            waiting += reversed(kept)
