"""The SDKs of Slack and Notion as referees: they work with our Slack and Notion of this machine, and send what our manifests send."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.errors import IntegrationError
from dipeo_nb.testing import scripted
from tests.support.provider_server import Asked, WebServer, serving
from tests.support.service_fakes import FakeNotion, FakeSlack

notion_client = pytest.importorskip("notion_client", reason="not here: notion-client is not installed")
slack_sdk = pytest.importorskip("slack_sdk", reason="not here: slack-sdk is not installed")
from slack_sdk.errors import SlackApiError  # noqa: E402

TEXT = 'He said "hi"\n{{ x }} 😀 <b>'


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dp.Session]:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-test-token-12345")
    monkeypatch.setenv("NOTION_API_KEY", "ntn_test-token-12345")
    with dp.Session(tmp_path, llm=scripted()) as session:
        yield session


def said(asked: Asked) -> tuple[str, dict[str, Any]]:
    """What a request asks for: method, path, kind of the body, and fields as text."""
    kind = asked.headers.get("content-type", "")
    body = asked.json if "json" in kind and asked.content else asked.form if "urlencoded" in kind else {}
    query = {name: values[0] for name, values in asked.query.items()}
    kind = "json" if "json" in kind else "form" if "urlencoded" in kind else ""
    return f"{asked.method} {asked.path} {kind}".rstrip(), {name: str(value) for name, value in {**query, **body}.items()}


def both(
    server: WebServer, theirs: Any, ours: Any
) -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, dict[str, Any]]]]:
    """The requests of either."""
    server.asked.clear()
    theirs()
    first = [said(asked) for asked in server.asked]
    server.asked.clear()
    ours()
    return first, [said(asked) for asked in server.asked]


def tolerant(call: Any) -> Any:
    """The call, whether or not our Slack has such a method: what is sent counts."""

    def made() -> None:
        with contextlib.suppress(SlackApiError, IntegrationError):
            call()

    return made


def switched(requests: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """With one spelling of truth values: the SDK writes 1 and 0, ours true and false; Slack takes either."""
    spelling = {"1": "true", "0": "false"}
    return [(path, {name: spelling.get(value, value) for name, value in given.items()}) for path, given in requests]


def test_slack_sdk_sends_the_same(session: dp.Session):
    fake = FakeSlack()
    with serving(fake) as server:
        sdk = slack_sdk.WebClient("xoxb-test-token-12345", base_url=f"{server.url}/")
        slack = session.provider("slack", base_url=server.url)
        first, second = both(
            server, lambda: sdk.chat_postMessage(channel="C1", text=TEXT), lambda: slack.send_message(channel="C1", text=TEXT)
        )
        second[0][1].pop("metadata")  # the mark by which ours are found again
        assert first == second == [("POST /chat.postMessage json", {"channel": "C1", "text": TEXT})]
        for theirs, ours in (
            (lambda: sdk.conversations_list(limit=200, types="public_channel", exclude_archived=True), slack.list_channels),
            (lambda: sdk.conversations_history(channel="C1", limit=100), lambda: slack.read_channel(channel="C1")),
            (lambda: sdk.conversations_replies(channel="C1", ts="1.1", limit=100), lambda: slack.read_thread(channel="C1", ts="1.1")),
            (lambda: sdk.users_list(limit=200), slack.list_users),
            (lambda: sdk.conversations_create(name="new", is_private=False), lambda: slack.create_channel(name="new")),
            (lambda: sdk.reactions_add(channel="C1", timestamp="1.1", name="x"), lambda: slack.add_reaction(channel="C1", timestamp="1.1", name="x")),
            (lambda: sdk.chat_update(channel="C1", ts="1.1", text=TEXT), lambda: slack.update_message(channel="C1", ts="1.1", text=TEXT)),
            (lambda: sdk.chat_delete(channel="C1", ts="1.1"), lambda: slack.delete_message(channel="C1", ts="1.1")),
        ):  # fmt: skip
            first, second = both(server, tolerant(theirs), tolerant(ours))
            assert switched(first) == switched(second)
        with pytest.raises(SlackApiError, match="channel_not_found"):
            sdk.chat_postMessage(channel="nowhere", text="x")
        first, second = both(
            server,
            lambda: sdk.files_upload_v2(filename="a.txt", content=TEXT, channel="C1"),
            lambda: slack.upload_file(filename="a.txt", content=TEXT, channel="C1"),
        )
        steps = ["/files.getUploadURLExternal", "/files/upload/F1", "/files.completeUploadExternal"]
        assert (
            [path.split()[1] for path, _ in first if path.split()[1] in steps]
            == [path.split()[1] for path, _ in second]
            == steps
        )
        assert fake.uploads["F1"] == TEXT.encode()
        assert fake.shared[0]["channel_id"] == fake.shared[1]["channel_id"] == "C1"


def test_notion_client_sends_the_same(session: dp.Session):
    fake = FakeNotion()
    with serving(fake) as server:
        sdk = notion_client.Client(auth="ntn_test-token-12345", base_url=server.url, notion_version="2026-03-11")
        with contextlib.closing(sdk):
            notion = session.provider("notion", base_url=f"{server.url}/v1")

            def theirs() -> None:
                source = sdk.databases.retrieve("db1")["data_sources"][0]["id"]
                rows = list(
                    notion_client.helpers.iterate_paginated_api(sdk.data_sources.query, data_source_id=source, page_size=100)
                )
                assert len(rows) == 250

            first, second = both(server, theirs, lambda: notion.query_database(database_id="db1"))
            assert [path for path, _ in first] == [path for path, _ in second]
            assert [given.get("start_cursor") for _, given in first] == [given.get("start_cursor") for _, given in second]
            properties = {"title": [{"type": "text", "text": {"content": TEXT}}]}
            first, second = both(
                server,
                lambda: sdk.pages.create(parent={"type": "page_id", "page_id": "p1"}, properties=properties),
                lambda: notion.create_page(page_id="p1", title=TEXT),
            )
            assert first == second
