"""How one page leads to the next: pure functions of the request before and its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dipeo_nb.errors import IntegrationError
from dipeo_nb.integrations.manifest import Paging
from dipeo_nb.integrations.pointers import ABSENT, at


@dataclass(frozen=True, slots=True)
class Page:
    """Which page a request asks for.

    Attributes:
        number: counts from 0.
        value: of the paging parameter; None: that of the first page.
        url: a whole address that the server gave (link_header); None: that of the operation.
        seen: items on the pages before.
    """

    number: int = 0
    value: Any = None
    url: str | None = None
    seen: int = 0


def first_page(paging: Paging) -> Page:
    """The first page, with the parameter that it needs."""
    return Page(value=paging.first if paging.kind == "page_number" else None)


def items_of(paging: Paging, answer: Any, name: str) -> list[Any]:
    """The items of a page.

    Raises:
        IntegrationError: where they should be is not a list.
    """
    items = at(answer, paging.items)
    if items is None or items is ABSENT:
        items = []
    if not isinstance(items, list):
        raise IntegrationError(
            f"{name} answers without a list of items at '{paging.items or '/'}'.",
            hint="Correct `paging.items` of the operation, or the answer has changed.",
        )
    return items  # pyright: ignore[reportUnknownVariableType]


def next_page(paging: Paging, page: Page, answer: Any, headers: Mapping[str, str], count: int, size: int | None) -> Page | None:
    """The page that follows; None after the last one.

    Args:
        count: items on this page.
        size: items that were asked for; None when the request does not say.
    """
    seen = page.seen + count
    if paging.more is not None and at(answer, paging.more) is not True:
        return None
    match paging.kind:
        case "link_header":
            url = next_link(headers.get("link", ""))
            return None if url is None else Page(page.number + 1, None, url, seen)
        case "cursor" | "next_token":
            token = at(answer, paging.cursor or "")
            return None if token is ABSENT or token in (None, "") else Page(page.number + 1, token, None, seen)
        case "page_number" | "offset_limit":
            total_found = at(answer, paging.total) if paging.total is not None else ABSENT
            if isinstance(total_found, (int, str)) and str(total_found).isdigit():
                if seen >= int(total_found):
                    return None
            elif size is not None and count < size:
                return None
            if count == 0:
                return None
            value = paging.first + (page.number + 1 if paging.kind == "page_number" else seen)
            return Page(page.number + 1, value, None, seen)


_LINK = re.compile(r"<([^<>]{1,4000}+)>((?:\s*+;\s*+[A-Za-z*]++\s*+=\s*+(?:\"[^\"]*+\"|[^\s;,\"]++))*+)")
_REL = re.compile(r";\s*+rel\s*+=\s*+(?:\"([^\"]*+)\"|([^\s;,\"]++))", re.IGNORECASE)


def next_link(header: str) -> str | None:
    """The address of the relation `next` in a `Link` header (RFC 8288)."""
    for link in _LINK.finditer(header[:20_000]):
        relation = _REL.search(link[2])
        if relation is not None and "next" in (relation[1] or relation[2] or "").lower().split():
            return link[1]
    return None
