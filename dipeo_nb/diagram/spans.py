"""Positions of values in a text: a tree of spans, one for each key and value."""

from __future__ import annotations

DocumentPath = tuple[str | int, ...]
"""Keys and indexes from the top of a document, e.g. `("nodes", 3, "code")`."""


class SourceSpan:
    """Position of one value: offsets into the text, and its children."""

    __slots__ = ("column", "end", "items", "line", "start", "text")

    def __init__(self, line: int, column: int, start: int, text: str | None = None, end: int = -1) -> None:
        self.line: int = line
        self.column: int = column
        self.start: int = start
        self.end: int = end
        self.text: str | None = text
        """A scalar's text after unquoting; None for collections."""
        self.items: list[SourceSpan] | dict[str, tuple[SourceSpan, SourceSpan]] | None = None
        """Children of a sequence; (key, value) by key of a mapping."""


class SpanTree:
    """Builds the tree of spans from a stream of starts, ends and scalars."""

    def __init__(self) -> None:
        self.root: SourceSpan | None = None
        self.duplicates: list[SourceSpan] = []
        self.stack: list[tuple[SourceSpan, list[SourceSpan]]] = []

    def add(self, span: SourceSpan) -> None:
        """Add a complete value."""
        if self.stack:
            self.stack[-1][1].append(span)
        elif self.root is None:
            self.root = span

    def open(self, span: SourceSpan) -> None:
        """Begin a sequence or mapping."""
        self.stack.append((span, []))

    def is_at(self, key: str) -> bool:
        """Whether the value that was just closed is that of a key of the outermost mapping."""
        if len(self.stack) != 1:
            return False
        children = self.stack[0][1]
        return len(children) % 2 == 0 and children[-2].text == key

    def close(self, end: int, mapping: bool) -> SourceSpan:
        """End the innermost sequence or mapping."""
        span, children = self.stack.pop()
        span.end = end
        if mapping:
            pairs: dict[str, tuple[SourceSpan, SourceSpan]] = {}
            for key, value in zip(children[::2], children[1::2], strict=True):
                if key.text in pairs:
                    self.duplicates.append(key)
                pairs[key.text or ""] = (key, value)
            if "<<" in pairs:
                merged = pairs["<<"][1]
                for part in [merged] if isinstance(merged.items, dict) else merged.items or []:
                    if isinstance(part.items, dict):
                        pairs = {**part.items, **pairs}
            span.items = pairs
        else:
            span.items = children
        self.add(span)
        return span
