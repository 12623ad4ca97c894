"""Providers as they are used: nodes, notebooks, the command line, recordings; against Slack, Notion and GitHub of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb import config
from dipeo_nb.cli import main
from dipeo_nb.errors import (
    InvalidDiagramError,
    ProviderAuthError,
    ProviderNotFoundError,
    ProviderRejectedError,
    RecordingNotFoundError,
    TrustError,
    ValidationError,
)
from dipeo_nb.integrations.providers import BaseProvider
from dipeo_nb.testing import scripted
from tests.support.provider_server import WebServer, serving
from tests.support.service_fakes import FakeGitHub, FakeNotion, FakeSlack

NASTY = 'He said "hi"\n{{ not_a_template }} 😀 \\ </script>'


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-test-token-12345")
    monkeypatch.setenv("NOTION_API_KEY", "ntn_test-token-12345")
    monkeypatch.setenv("GITHUB_TOKEN", "ghp-test-token-12345")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[dp.Session]:
    with dp.Session(tmp_path, llm=scripted()) as session:
        yield session


def at(session: dp.Session, name: str, server: WebServer) -> Any:
    return session.provider(name, base_url=server.url + ("/v1" if name == "notion" else ""))


def diagram(**props: Any) -> dict[str, Any]:
    nodes = [
        {"label": "S", "type": "start"},
        {"label": "Call", "type": "integrated_api", "props": props},
        {"label": "E", "type": "endpoint"},
    ]
    return {
        "version": "light",
        "nodes": nodes,
        "connections": [{"from": "S", "to": "Call"}, {"from": "Call", "to": "E", "content_type": "object"}],
    }


# Services.


def test_slack(session: dp.Session):
    """Messages with everything in them, 250 channels, an upload in three steps, and errors with what to do."""
    fake = FakeSlack()
    with serving(fake) as server:
        slack = at(session, "slack", server)
        sent = slack.send_message(channel="C1", text=NASTY)
        assert sent["message"]["text"] == NASTY
        assert slack.read_channel(channel="C1")[0]["text"] == NASTY
        assert [row["id"] for row in slack.list_channels(all=True)] == [f"C{n}" for n in range(250)]
        fake.rate_limited = 2
        slack.send_message(channel="C2", text="again")
        slack.upload_file(filename="a.txt", content=NASTY, channel="C1", initial_comment="see")
        assert fake.uploads == {"F1": NASTY.encode()}
        assert fake.shared == [{"files": [{"id": "F1", "title": "a.txt"}], "channel_id": "C1", "initial_comment": "see"}]
        with pytest.raises(ProviderRejectedError, match=r"not_in_channel.*Invite the app"):
            slack.send_message(channel="C9", text="x")
        with pytest.raises(ProviderNotFoundError, match="channel_not_found"):
            slack.send_message(channel="nowhere", text="x")
        with pytest.raises(ValidationError, match="one of the parameters text, markdown_text, blocks"):
            slack.send_message(channel="C1")
    assert [m["text"] for m in fake.messages] == [NASTY, "again"]
    upload = next(asked for asked in server.asked if asked.path.startswith("/files/"))
    assert upload.content == NASTY.encode()


def test_notion(session: dp.Session):
    """Rows of a database through its data source, three pages of them; pages, blocks in hundreds, Markdown."""
    fake = FakeNotion()
    with serving(fake) as server:
        notion = at(session, "notion", server)
        rows = notion.query_database(database_id="db1")
        assert [row["properties"]["N"]["number"] for row in rows] == list(range(250))
        assert len(notion.query_database(database_id="db1", limit=120)) == 120
        with pytest.raises(ProviderRejectedError, match="2 data sources: Rows, Other"):
            notion.query_database(database_id="db2")
        assert len(notion.query_database(database_id="db2", data_source="Rows", limit=1)) == 1
        assert (
            notion.create_page(page_id="p1", title=NASTY, markdown="# x")["properties"]["title"][0]["text"]["content"] == NASTY
        )
        assert (
            len(
                notion.append_blocks(block_id="p1", text="\n\n".join(f"{n} {NASTY}" for n in range(230)).replace("\n{{", " {{"))
            )
            == 230
        )
        assert notion.read_page(page_id="https://www.notion.so/My-page-0123456789abcdef0123456789abcdef").startswith("# Title")
        with pytest.raises(ProviderNotFoundError, match="Share the page with the integration"):
            notion.get_page(page_id="nothing")
    assert server.asked[-2].path == "/v1/pages/01234567-89ab-cdef-0123-456789abcdef/markdown"


@pytest.mark.parametrize("cut", ["", "before", "after"])
def test_github(session: dp.Session, cut: str):
    """All issues by links; an issue is opened once whatever happens to the connection."""
    fake = FakeGitHub()
    with serving(fake) as server:
        github = at(session, "github", server)
        issues = github.list_issues(owner="me", repo="mine", all=True)
        assert [issue["number"] for issue in issues] == list(range(1, 251))
        fake.cut_next = cut
        assert github.create_issue(owner="me", repo="mine", title=NASTY)["number"] == 251
        with pytest.raises(ProviderNotFoundError):
            github.get_repository(owner="me", repo="other")
    assert [issue["title"] for issue in fake.issues[250:]] == [NASTY]


def test_a_wrong_key(session: dp.Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-wrong-token-99999")
    with (
        serving(FakeSlack()) as server,
        dp.Session(session.settings.base_dir) as other,
        pytest.raises(ProviderAuthError, match=r"invalid_auth.*dipeo-nb keys set slack") as caught,
    ):
        at(other, "slack", server).send_message(channel="C1", text="x")
    assert "xoxb-wrong" not in repr(caught.value)


# Nodes.


def test_a_node_reads_all_pages(session: dp.Session):
    """Each page is told in the run's log; the result is the list."""
    with serving(FakeSlack()) as server:
        at(session, "slack", server)
        run = session.run(diagram(provider="slack", operation="list_channels", all=True), view=False)
    assert len(run.outputs["E"]) == 250
    logged = [event.payload["message"] for event in session.open_run(run.id).events if event.type == "execution_log"]
    assert logged == ["slack.list_channels: page 1, 200 items", "slack.list_channels: page 2, 250 items"]


@pytest.mark.parametrize(
    ("props", "says"),
    [
        ({"provider": "slak", "operation": "send_message"}, "Did you mean 'slack'"),
        ({"provider": "slack", "operation": "send_mesage"}, "Did you mean 'send_message'"),
        ({"provider": "slack", "operation": "send_message", "config": {"chanel": "C1"}}, "Did you mean 'channel'"),
        ({"provider": "slack", "operation": "send_message", "config": {"chanel": "{{ x }}"}}, "Did you mean 'channel'"),
        ({"provider": "slack", "operation": "send_message", "config": {"channel": 5}}, "channel does not fit"),
        ({"provider": "slack", "operation": "send_message", "all": True}, "has no pages"),
        ({"provider": "slack"}, "Set `operation` to one of: send_message"),
    ],
)
def test_mistakes_are_found_before_a_run(session: dp.Session, props: dict[str, Any], says: str):
    with pytest.raises(InvalidDiagramError, match=says.replace("(", r"\(")):
        session.run(diagram(**props), view=False)


def test_what_arrives_and_is_no_parameter_does_not_matter(session: dp.Session):
    fake = FakeSlack()
    wanted = diagram(provider="slack", operation="send_message", config={"text": "{{ name }}"})
    wanted["nodes"].insert(
        1, {"label": "Code", "type": "code_job", "props": {"code": "return {'channel': 'C1', 'more': 1, 'name': 'Ada'}"}}
    )
    wanted["connections"][0] = {"from": "S", "to": "Code"}
    wanted["connections"].append({"from": "Code", "to": "Call", "content_type": "object"})
    with serving(fake) as server:
        at(session, "slack", server)
        session.run(wanted, view=False)
    assert [(m["channel"], m["text"]) for m in fake.messages] == [("C1", "Ada")]


KILLED = """
import sys
import dipeo_nb as dp
from dipeo_nb.testing import scripted
session = dp.Session(sys.argv[1], llm=scripted())
session.provider("slack", base_url=sys.argv[2])
session.start({"version": "light", "nodes": [{"label": "S", "type": "start"},
  {"label": "Call", "type": "integrated_api", "props": {"provider": "slack", "operation": "send_message", "config": {"channel": "C1", "text": "once"}}},
  {"label": "E", "type": "endpoint"}], "connections": [{"from": "S", "to": "Call"}, {"from": "Call", "to": "E"}]}, view=False).result()
"""


def test_a_killed_process_sends_one_message(tmp_path: Path):
    """kill -9 between the message and its answer; the run goes on in another process, and looks for the message first."""
    fake = FakeSlack()
    fake.hold = threading.Event()
    with serving(fake) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), server.url], env={**os.environ, "DIPEO_BASE_DIR": str(tmp_path)}
        )
        assert fake.kept.wait(60)
        process.kill()
        process.wait()
        fake.hold.set()
        fake.hold = None
        with dp.Session(tmp_path, llm=scripted()) as session:
            at(session, "slack", server)
            (row,) = session.runs()
            result = session.resume(row.run_id, view=False).result()
    assert len(fake.messages) == 1
    assert result.outputs["E"]["text"] == "once"


# Notebooks.


def test_calls_are_awaited(session: dp.Session):
    """A list of records is a table; the call is shown before it is made, without the key."""
    with serving(FakeGitHub()) as server:
        at(session, "github", server)
        call = session.call("github.list_issues", owner="me", repo="mine", limit=150)
        assert "not called yet" in repr(call)
        assert "ghp-test-token" not in repr(call)
        assert server.asked == []

        async def cell() -> Any:
            return await call

        rows = asyncio.run(cell())
        assert len(rows) == 150
        assert list(rows.to_dataframe().columns) == ["number", "title", "body"]

        async def pages() -> list[int]:
            return [len(page) async for page in session.call("github.list_issues", owner="me", repo="mine").pages()]

        assert asyncio.run(pages()) == [100, 100, 50]


def test_help_and_completion(session: dp.Session):
    slack = session.provider("slack")
    assert {"send_message", "upload_file"} <= set(dir(slack))
    assert "find_messages" not in dir(slack)
    assert "channel: string, required. id of the channel" in slack.send_message.__doc__
    assert str(slack.send_message.__signature__).startswith("(*, channel: str, text: str = None")
    with pytest.raises(AttributeError, match="Did you mean 'send_message'"):
        _ = slack.send_mesage
    rows = {row["provider"]: row for row in session.providers()}
    assert rows["slack"]["ready"] == "yes"
    assert rows["brave"]["ready"] == "no: dipeo-nb keys set brave"
    assert "searxng" in rows
    with pytest.raises(ValidationError, match=r"provider\.operation"):
        session.call("slack")


class JiraProvider(BaseProvider):
    """Jira."""

    name = "jira"

    async def create_issue(self, project: str, summary: str) -> dict[str, str]:
        """Open an issue."""
        return {"key": f"{project}-1", "summary": summary}


def test_a_provider_of_ones_own_beside_the_others(session: dp.Session, tmp_path: Path):
    """A class, and the file of a manifest; both for nodes, too."""
    jira = session.provider(JiraProvider())
    assert jira.create_issue(project="DP", summary="x") == {"key": "DP-1", "summary": "x"}
    assert (
        session.run(
            diagram(provider="jira", operation="create_issue", config={"project": "P", "summary": "s"}), view=False
        ).outputs["E"]["key"]
        == "P-1"
    )
    (tmp_path / "rooms.yaml").write_text("name: rooms\nbase_url: 'http://localhost:1'\noperations: {list: {path: /rooms}}\n")
    assert session.provider("rooms.yaml").list.preview()["url"] == "http://localhost:1/rooms"
    assert "rooms" in [row["provider"] for row in session.providers()]


def test_manifests_of_an_untrusted_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They are not used, in a run either; with trust they are."""
    monkeypatch.setenv("DIPEO_TRUST", str(tmp_path / "elsewhere"))
    config.reset_settings()
    (tmp_path / "integrations").mkdir()
    (tmp_path / "integrations" / "rooms.yaml").write_text(
        "name: rooms\nbase_url: 'http://localhost:1'\noperations: {list: {path: /rooms}}\n"
    )
    with dp.Session(tmp_path, llm=scripted()) as session:
        with pytest.raises(TrustError, match="dipeo-nb trust"):
            session.provider("rooms")
        with pytest.raises(InvalidDiagramError, match="is not trusted"):
            session.run(diagram(provider="rooms", operation="list"), view=False)
    with dp.Session(tmp_path, llm=scripted(), trust_base=True) as session:
        assert session.provider("rooms").list.preview()["url"] == "http://localhost:1/rooms"


def test_recordings_cover_providers(session: dp.Session, tmp_path: Path):
    """As they cover models: recorded once, replayed without a server, refused when it is not there; no key in the files."""
    fake = FakeSlack()
    with serving(fake) as server:
        slack = at(session, "slack", server)
        with dp.recording(tmp_path / "rec", mode="record"):
            sent = slack.send_message(channel="C1", text="hi")
    with dp.recording(tmp_path / "rec", mode="replay") as recordings:
        assert slack.send_message(channel="C1", text="hi") == sent
        assert (
            session.run(
                diagram(provider="slack", operation="send_message", config={"channel": "C1", "text": "hi"}), view=False
            ).outputs["E"]
            == sent
        )
        with pytest.raises(RecordingNotFoundError, match=r"slack\.send_message is not recorded"):
            slack.send_message(channel="C1", text="other")
    assert recordings.replayed == 2
    (file,) = (tmp_path / "rec" / "providers").iterdir()
    assert "xoxb-" not in file.read_text()


# The command line.


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fake = FakeSlack()
    with serving(fake) as server:
        there = ["--base-dir", str(tmp_path)]
        send = [
            "providers",
            "call",
            "slack.send_message",
            "channel=C1",
            f"text={NASTY}",
            "--set",
            f"base_url={server.url}",
            *there,
        ]
        assert main([*send, "--dry-run"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["body"]["text"] == NASTY
        assert shown["headers"]["Authorization"] == "Bearer …"
        assert server.asked == []
        assert main(send) == 0
        assert json.loads(capsys.readouterr().out)["ok"] is True
        assert (
            main(["providers", "call", "slack.list_channels", "--limit", "3", "--set", f"base_url={server.url}", *there]) == 0
        )
        assert len(json.loads(capsys.readouterr().out)) == 3
    assert main(["providers", "--json", *there]) == 0
    assert "slack" in [row["provider"] for row in json.loads(capsys.readouterr().out)["providers"]]
    assert main(["providers", "show", "slack.send_message", "--json", *there]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["required"] == ["channel"]
    assert main(["providers", "show", "slack", *there]) == 0
    assert main(["providers", "call", "slack.send_message", "chanel=C1", *there]) == 2
    assert "Did you mean 'channel'" in capsys.readouterr().err


def test_a_run_takes_variables_of_providers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`dipeo-nb run --set slack.base_url=…`; a name that is none is refused before anything runs."""
    file = tmp_path / "d.light.yaml"
    file.write_text(json.dumps(diagram(provider="slack", operation="send_message", config={"channel": "C1", "text": "hi"})))
    fake = FakeSlack()
    with serving(fake) as server:
        run = ["run", str(file), "--base-dir", str(tmp_path), "--quiet"]
        assert main([*run, "--set", f"slack.base_url={server.url}"]) == 0
        assert [message["text"] for message in fake.messages] == ["hi"]
        for wrong, words in (
            ("slack.base_ur=x", "no variable 'base_ur'"),
            ("base_url=x", "names no provider"),
            ("slack", "not NAME=VALUE"),
        ):
            assert main([*run, "--set", wrong]) == 2
            assert words in capsys.readouterr().err
    assert len(fake.messages) == 1
