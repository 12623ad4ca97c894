"""Positions of values in a text: a tree of spots, one for each key and value."""

from __future__ import annotations

DocumentPath = tuple[str | int, ...]
"""Keys and indexes from the top of a document, e.g. `("nodes", 3, "code")`."""


class Spot:
    """Position of one value: offsets into the text, and its children."""

    __slots__ = ("column", "end", "items", "line", "start", "text")

    def __init__(self, line: int, column: int, start: int, text: str | None = None, end: int = -1) -> None:
        self.line: int = line
        self.column: int = column
        self.start: int = start
        self.end: int = end
        self.text: str | None = text
        """A scalar's text after unquoting; None for collections."""
        self.items: list[Spot] | dict[str, tuple[Spot, Spot]] | None = None
        """Children of a sequence; (key, value) by key of a mapping."""


class SpotTree:
    """Builds the tree of spots from a stream of starts, ends and scalars."""

    def __init__(self) -> None:
        self.root: Spot | None = None
        self.duplicates: list[Spot] = []
        self.stack: list[tuple[Spot, list[Spot]]] = []

    def add(self, spot: Spot) -> None:
        """Add a complete value."""
        if self.stack:
            self.stack[-1][1].append(spot)
        elif self.root is None:
            self.root = spot

    def open(self, spot: Spot) -> None:
        """Begin a sequence or mapping."""
        self.stack.append((spot, []))

    def close(self, end: int, mapping: bool) -> Spot:
        """End the innermost sequence or mapping."""
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
