"""`SourceMap`: positions of the parts of a diagram in its text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dipeo_nb.diagram.json_reader import json_spans
from dipeo_nb.diagram.spans import DocumentPath, SourceSpan
from dipeo_nb.diagram.yaml_reader import yaml_spans


class SourceMap:
    """Positions of the parts of a diagram in its text, computed on first use.

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
        self._root: SourceSpan | None = None
        self._duplicates: list[SourceSpan] = []
        self._beginning: tuple[str, SourceSpan | None] | None = None
        """The key that was asked for first, and the tree that ends with it: warnings about persons, which come first, need no more."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_root": None, "_duplicates": [], "_beginning": None}

    @property
    def root(self) -> SourceSpan | None:
        """The tree of places; None for an empty text."""
        if self._root is None and self.text:
            places = json_spans if self.json else yaml_spans
            self._root, self._duplicates = places(self.text)
        return self._root

    def span(self, *path: str | int) -> tuple[SourceSpan, SourceSpan] | None:
        """The (key, value) pair at a document path; in sequences and at the top both are the value."""
        here = self._as_far_as(path[0]) if path else self.root
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

    def _as_far_as(self, key: str | int) -> SourceSpan | None:
        """A tree of places that has what is below a key of the outermost mapping."""
        if self.json or self._root is not None or not isinstance(key, str) or not self.text:
            return self.root
        if self._beginning is None:
            self._beginning = key, yaml_spans(self.text, until=key)[0]
        return self._beginning[1] if self._beginning[0] == key else self.root

    def place(self, *path: str | int) -> tuple[int, int] | None:
        """Line and column of a document path: of the key in a mapping, of the item in a list."""
        pair = self.span(*path)
        return (pair[0].line, pair[0].column) if pair else None

    def written(self, *path: str | int) -> str | None:
        """The text of a scalar as the author wrote it (`No` rather than False), without quotes."""
        pair = self.span(*path)
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
                if self.span(*base, *inner, name):
                    return (*base, *inner, name)
        pair = self.span(*base)
        keys = pair[1].items if pair else None
        if isinstance(keys, dict):
            for key in keys:
                if key.split(".")[0] in names:
                    return (*base, key)
        return None

    def inside(self, node_id: str, field: str, line: int, column: int) -> tuple[int, int] | None:
        """Place in the file of a line and column (1-based) inside the text of a node's field."""
        base = self.nodes.get(node_id)
        path = self.field_path(base, field) if base else None
        pair = self.span(*path) if path else None
        if pair is None:
            return None
        _, span = pair
        value = span.text or ""
        raw = self.text[span.start : span.end]
        lines = value.split("\n")
        wanted = lines[line - 1] if line <= len(lines) else ""
        if raw[:1] == "|":
            # A literal block: its lines follow the indicator one by one, indented.
            at = span.line + line
            row = self.text.split("\n")[at - 1] if at <= self.text.count("\n") + 1 else ""
            return at, max(row.find(wanted), 0) + column
        if len(lines) == 1 and raw[:1] not in "'\">":
            return span.line, span.column + column - 1
        if len(lines) == 1 and raw[:1] in "'\"":
            return span.line, span.column + column
        # Quoted or folded over several lines: look for the line's own words.
        needle = wanted.strip()
        found = raw.find(needle) if len(needle) > 2 and raw.count(needle) == 1 else -1
        if found < 0:
            return span.line, span.column
        before = raw[:found]
        return span.line + before.count("\n"), (
            span.column + found if "\n" not in before else found - before.rindex("\n")
        ) + max(column - 1 - (len(wanted) - len(wanted.lstrip())), 0)

    def duplicates(self) -> list[tuple[str, int, int]]:
        """Keys that a mapping holds more than once: (key, line, column) of the later ones."""
        return [(s.text or "", s.line, s.column) for s in self._duplicates] if self.root else []

    def _part(self, table: Mapping[str, DocumentPath], name: str, field: str | None) -> tuple[int, int] | None:
        base = table.get(name)
        if base is None:
            return None
        path = self.field_path(base, field) if field else None
        return self.place(*(path or base))
