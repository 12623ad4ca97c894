"""Notion's own OpenAPI document judges every request of our manifest: `prism proxy` stands before our Notion of this machine.

The document is that of the package `@notionhq/notion-mcp-server` (API 2025-09-03; the newest that a package has). It does not know
`POST` and `PATCH /databases`, says that a page is made below a page or a database and not in a data source, and that blocks in the
body of a new page are strings, which Notion does not take: those requests are judged by notion-client (test_provider_referees.py).
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import dipeo_nb as dp
from dipeo_nb.errors import ProviderRejectedError
from dipeo_nb.testing import scripted
from tests.support import npm
from tests.support.provider_server import Asked, Reply, WebServer, serving
from tests.support.servers import free_ports
from tests.support.service_fakes import FakeNotion
from tests.support.waiting import wait_until

notion_client = pytest.importorskip("notion_client", reason="not here: notion-client is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.process]

TOKEN = "ntn_test-token-12345"
TEXT = 'He said "hi"\n{{ x }} \\ 😀'
PAGE, BLOCK, SOURCE = (f"01234567-89ab-cdef-0123-456789abcde{n}" for n in "123")


class Judged(NamedTuple):
    """Our Notion, and the address of the referee before it."""

    server: WebServer
    url: str


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    folder = tmp_path_factory.mktemp("prism")
    (port,) = free_ports(1)
    with serving(FakeNotion()) as server, (folder / "log").open("w") as log:
        document = npm.FOLDER / "@notionhq/notion-mcp-server/scripts/notion-openapi.json"
        command = npm.command("@stoplight/prism-cli", "proxy", str(document), server.url, "--port", str(port), "--errors")
        process = subprocess.Popen(command, cwd=folder, env=npm.environment(), stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: process.poll() is not None or _listens(port))
            assert process.poll() is None, (folder / "log").read_text()
            yield Judged(server, f"http://127.0.0.1:{port}")
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def notion(judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("NOTION_API_KEY", TOKEN)
    judged.server.respond = FakeNotion()
    judged.server.asked.clear()
    with dp.Session(tmp_path, llm=scripted()) as session:
        yield session.provider("notion", base_url=f"{judged.url}/v1")


def test_what_ours_and_notions_own_client_do(notion: Any, judged: Judged):
    """250 rows over three pages, a page, 230 blocks, Markdown; the referee lets both through, and both read the same."""
    rows = notion.query_database(database_id="db1")
    with contextlib.closing(notion_client.Client(auth=TOKEN, base_url=judged.url, notion_version="2026-03-11")) as sdk:
        theirs = list(notion_client.helpers.iterate_paginated_api(sdk.data_sources.query, data_source_id="ds1", page_size=100))
        assert rows == theirs
        made = notion.create_page(page_id=PAGE, title=TEXT)
        assert made["properties"]["title"][0]["text"]["content"] == TEXT
        assert len(notion.append_blocks(block_id=BLOCK, text="\n\n".join(f"{n} text" for n in range(230)))) == 230
        assert notion.read_page(page_id=PAGE).startswith("# Title")
    with pytest.raises(ProviderRejectedError, match="2 data sources: Rows, Other"):
        notion.query_database(database_id="db2")


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("get_page", {"page_id": PAGE}),
    ("update_page", {"page_id": PAGE, "properties": {"title": [{"text": {"content": TEXT}}]}}),
    ("delete_page", {"page_id": PAGE}),
    ("create_page", {"page_id": PAGE, "title": TEXT, "markdown": TEXT}),
    ("read_page", {"page_id": PAGE, "format": "blocks"}),
    ("list_blocks", {"block_id": BLOCK}),
    ("append_blocks", {"block_id": BLOCK, "text": "a\n\n- b", "after": PAGE}),
    ("search", {"query": TEXT, "sort": {"timestamp": "last_edited_time", "direction": "ascending"}}),
    ("get_database", {"database_id": SOURCE}),
    ("query_data_source", {"data_source_id": SOURCE, "sorts": [{"property": "N", "direction": "ascending"}],
                           "filter": {"property": "N", "rich_text": {"equals": TEXT}}}),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "parameters"), CALLS)
def test_the_document_allows_each_request(notion: Any, judged: Judged, operation: str, parameters: dict[str, Any]):
    judged.server.respond = anything
    getattr(notion, operation)(**parameters)
    assert len(judged.server.asked) >= 1


def test_the_referee_refuses_what_the_document_does_not_allow(notion: Any, judged: Judged):
    """An id that is none: without it, a green test of the others would say nothing."""
    with pytest.raises(ProviderRejectedError, match=r"422.*UNPROCESSABLE_ENTITY.*page_id"):
        notion.create_page(page_id="no-id", title="x")
    assert judged.server.asked == []


def anything(asked: Asked) -> Reply:
    """An answer that every operation takes."""
    return Reply(
        {"object": "list", "id": PAGE, "results": [], "has_more": False, "next_cursor": None, "markdown": "", "url": ""}
    )
