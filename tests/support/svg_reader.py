"""What a drawing shows, read back from its SVG, and what lies on what in it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.etree import ElementTree

from dipeo_nb.diagram.labels import measure

_SVG = "{http://www.w3.org/2000/svg}"


class Rect(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Rect, near: float = 0.0) -> bool:
        """Whether the two overlap, or come closer than *near* pixels."""
        return (
            self.left - near < other.right
            and other.left - near < self.right
            and self.top - near < other.bottom
            and other.top - near < self.bottom
        )


class Piece(NamedTuple):
    """A straight piece of an arrow."""

    arrow: str
    rect: Rect
    """Of no height, or of no width."""
    outermost: bool
    """Whether it is the first or the last of its arrow."""


@dataclass
class Picture:
    width: float
    boxes: dict[str, Rect] = field(default_factory=dict[str, Rect])
    tags: list[Rect] = field(default_factory=list[Rect])
    tag_owner: list[str] = field(default_factory=list[str])
    words: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Arrow → what stands on it."""
    arrows: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Arrow → (source, target)."""
    pieces: list[Piece] = field(default_factory=list[Piece])
    smallest_text: float = 0.0

    def text_at(self, width: int) -> float:
        """Pixels of the smallest text when the drawing is shown in so many pixels."""
        return self.smallest_text * min(1.0, width / self.width)


def read(svg: str) -> Picture:
    """A static drawing."""
    root = ElementTree.fromstring(svg)
    wide, high = map(float, (root.get("viewBox") or "").split()[2:])
    found = Picture(wide)
    sizes = [float(size) for size in re.findall(r"font-size:([\d.]+)px", root.findtext(f"{_SVG}style") or "")]
    found.smallest_text = min(size for size in sizes if size > 10)  # 10: the number of runs, in a badge of its own
    for group in root.iter(f"{_SVG}g"):
        kind = (group.get("class") or "").split(" ")[0].partition("-")[2]
        if kind == "node":
            x, y = map(float, re.findall(r"-?[\d.]+", group.get("transform") or ""))
            found.boxes[group.get("data-node") or ""] = _outline(group, x, y)
        elif kind == "arrow":
            name = group.get("data-arrow") or ""
            found.arrows[name] = (group.get("data-source") or "", group.get("data-target") or "")
            points = _points(next(group.iter(f"{_SVG}path")).get("d") or "")
            last = len(points) - 2
            for i, ((ax, ay), (bx, by)) in enumerate(itertools.pairwise(points)):
                rect = Rect(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))
                assert rect.left == rect.right or rect.top == rect.bottom, f"{name} slants: {rect}"
                found.pieces.append(Piece(name, rect, i in (0, last)))
        elif kind == "tag":
            rect = next(group.iter(f"{_SVG}rect"))
            x, y, w, h = (float(rect.get(name) or 0) for name in ("x", "y", "width", "height"))
            found.tags.append(Rect(x, y, x + w, y + h))
            found.tag_owner.append(group.get("data-of") or "")
            found.words[found.tag_owner[-1]] = [(t.text or "") for t in group.iter(f"{_SVG}text")]
            words = [measure(text, 11, bold=not i) for i, text in enumerate(found.words[found.tag_owner[-1]])]
            assert sum(words) <= w + 4, (words, w)
    page = Rect(0, 0, wide, high)
    for rect in (*found.boxes.values(), *found.tags, *(piece.rect for piece in found.pieces)):
        inside = page.left <= rect.left and rect.right <= page.right and page.top <= rect.top and rect.bottom <= page.bottom
        assert inside, rect
    return found


def _outline(group: ElementTree.Element, x: float, y: float) -> Rect:
    box = next(e for e in group.iter() if (e.get("class") or "").endswith("-box"))
    if box.tag == f"{_SVG}rect":
        return Rect(x, y, x + float(box.get("width") or 0), y + float(box.get("height") or 0))
    numbers = [float(n) for n in re.findall(r"-?[\d.]+", box.get("d") or "")]
    return Rect(x, y, x + numbers[3], y + numbers[6])  # the right point and the lower side of a condition


def _points(d: str) -> list[tuple[float, float]]:
    """The corners of a line whose corners are rounded."""
    points: list[tuple[float, float]] = []
    for command, numbers in re.findall(r"([MLQ])([^MLQ]*)", d):
        values = [float(n) for n in numbers.split()]
        points.append((values[0], values[1]))
        if command == "Q":
            points.append((values[2], values[3]))
    corners: list[tuple[float, float]] = []
    for point in points:
        if corners and abs(point[0] - corners[-1][0]) <= 0.11 and abs(point[1] - corners[-1][1]) <= 0.11:
            continue
        if corners:  # one decimal of a rounded path
            (ax, ay), (bx, by) = corners[-1], point
            point = (ax if abs(ax - bx) <= 0.11 else bx, ay if abs(ay - by) <= 0.11 else by)
        corners.append(point)
    return corners


def faults(picture: Picture) -> dict[str, int]:
    """How many things lie on others."""
    boxes, tags = picture.boxes, picture.tags
    near_boxes = _pairs([(rect, name) for name, rect in boxes.items()], [(p.rect, p) for p in picture.pieces])
    through = [
        (piece.arrow, name)
        for name, piece in near_boxes
        if piece.rect.meets(boxes[name], -1.5 if name not in picture.arrows[piece.arrow] or not piece.outermost else -35.0)
    ]
    level = sorted((p for p in picture.pieces if p.rect.top == p.rect.bottom), key=lambda p: p.rect.top)
    upright = sorted((p for p in picture.pieces if p.rect.left == p.rect.right), key=lambda p: p.rect.left)
    along = [
        pair
        for pieces, at in ((level, 1), (upright, 0))
        for i, a in enumerate(pieces)
        for pair in _along(a, pieces[i + 1 :], at)
    ]
    tag_items = [(rect, i) for i, rect in enumerate(tags)]
    under = [
        (i, p.arrow)
        for i, p in _pairs(tag_items, [(p.rect, p) for p in picture.pieces])
        if picture.tag_owner[i] != p.arrow and p.rect.meets(tags[i])
    ]
    return {
        "boxes on boxes": _overlaps([(rect, name) for name, rect in boxes.items()]),
        "labels on labels": _overlaps(tag_items),
        "labels on boxes": sum(
            tags[i].meets(boxes[name], 2) for i, name in _pairs(tag_items, [(rect, name) for name, rect in boxes.items()])
        ),
        "arrows under labels": len(under),
        "arrows through boxes": len(through),
        "arrows on arrows": len(along),
    }


def _along(a: Piece, others: Iterable[Piece], at: int) -> Iterable[tuple[str, str]]:
    for b in others:
        if b.rect[at] - a.rect[at] >= 4:
            break
        low, high = (a.rect.left, a.rect.right) if at else (a.rect.top, a.rect.bottom)
        other = (b.rect.left, b.rect.right) if at else (b.rect.top, b.rect.bottom)
        if a.arrow != b.arrow and min(high, other[1]) - max(low, other[0]) > 1:
            yield a.arrow, b.arrow


def _overlaps(items: Sequence[tuple[Rect, Any]]) -> int:
    rects = {item: rect for rect, item in items}
    return sum(a != b and rects[a].meets(rects[b]) for a, b in _pairs(items, items)) // 2


def _pairs(first: Sequence[tuple[Rect, Any]], second: Sequence[tuple[Rect, Any]]) -> Iterable[tuple[Any, Any]]:
    """Pairs of items that might meet."""
    cells: dict[tuple[int, int], list[Any]] = {}
    for rect, item in first:
        for cell in _cells(rect):
            cells.setdefault(cell, []).append(item)
    for rect, item in second:
        seen: set[Any] = set()
        for cell in _cells(rect):
            for other in cells.get(cell, ()):
                if other not in seen:
                    seen.add(other)
                    yield other, item


def _cells(rect: Rect) -> Iterable[tuple[int, int]]:
    for x in range(int(rect.left // 200), int(rect.right // 200) + 1):
        for y in range(int(rect.top // 200), int(rect.bottom // 200) + 1):
            yield x, y
