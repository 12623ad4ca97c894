"""Hooks of the Notion provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.text import did_you_mean
from dipeo_nb.errors import ProviderRejectedError

if TYPE_CHECKING:
    from dipeo_nb.integrations.manifest_provider import Steps

MOST_BLOCKS = 100
"""Blocks that one request appends."""
LONGEST_TEXT = 2_000
"""Characters of one rich text."""
_ID = re.compile(
    r"(?<![0-9a-f])([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})(?:\?|$)", re.IGNORECASE
)


async def read_page(call: Steps, parameters: Mapping[str, Any]) -> Any:
    """Read the page in the format that is wanted."""
    page_id = id_of(parameters["page_id"])
    match parameters["format"]:
        case "markdown":
            return await call("page_markdown", page_id=page_id)
        case "blocks":
            return await call("list_blocks", block_id=page_id, _all=True)
        case _:
            return await call("get_page", page_id=page_id)


async def query_database(call: Steps, parameters: Mapping[str, Any]) -> Any:
    """Look up the data source of the database, then query that."""
    source = parameters.get("data_source_id")
    if source is None:
        database = await call("get_database", database_id=id_of(parameters["database_id"]))
        source = _data_source(database.get("data_sources") or [], parameters.get("data_source"))
    given = {name: parameters.get(name) for name in ("filter", "sorts")}
    limit = parameters.get("limit")
    return await call(
        "query_data_source", data_source_id=source, **given, **({"_all": True} if limit is None else {"_limit": limit})
    )


async def append_blocks(call: Steps, parameters: Mapping[str, Any]) -> Any:
    """Append the blocks, 100 in each request, one after the other."""
    children, text = parameters.get("children"), parameters.get("text")
    blocks = children if children is not None else paragraphs(text or "")
    made: list[Any] = []
    after = parameters.get("after")
    for start in range(0, len(blocks), MOST_BLOCKS):
        part = await call(
            "append_children", block_id=id_of(parameters["block_id"]), children=blocks[start : start + MOST_BLOCKS], after=after
        )
        made += part
        if after is not None and part:
            after = part[-1]["id"]
    return made


def paragraphs(text: str) -> list[dict[str, Any]]:
    """The paragraphs of a text as blocks."""
    parts = [part.strip("\n") for part in re.split(r"\n\s*\n", text) if part.strip()]
    return [{"type": "paragraph", "paragraph": {"rich_text": rich_text(part)}} for part in parts]


def rich_text(text: str) -> list[dict[str, Any]]:
    """A text as Notion's rich text, in pieces of at most 2,000 characters."""
    return [{"type": "text", "text": {"content": text[at : at + LONGEST_TEXT]}} for at in range(0, len(text), LONGEST_TEXT)]


def id_of(given: str) -> str:
    """The id in the address of a page or database; anything else as it is."""
    found = _ID.search(given.strip())
    return "-".join(found.groups()).lower() if found else given.strip()


def _data_source(sources: list[Mapping[str, Any]], name: str | None) -> str:
    names = [str(source.get("name", "")) for source in sources]
    if name is not None:
        found = [source for source in sources if source.get("name") == name]
        if len(found) != 1:
            raise ProviderRejectedError(
                f"The database has no data source '{name}'.",
                hint=did_you_mean(name, names, f"It has: {', '.join(names) or 'none'}."),
            )
        return str(found[0]["id"])
    if len(sources) != 1:
        listed = ", ".join(names) or "none that the integration can see"
        raise ProviderRejectedError(
            f"The database has {len(sources)} data sources: {listed}.", hint="Say which with data_source."
        )
    return str(sources[0]["id"])
