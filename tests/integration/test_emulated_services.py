"""Slack and GitHub as the npm package `emulate` plays them on this machine: services that were written by others, for everybody's SDKs."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

import dipeo_nb as dp
from dipeo_nb.errors import ProviderNotFoundError, ProviderRejectedError
from dipeo_nb.testing import scripted
from tests.support import npm
from tests.support.servers import free_ports
from tests.support.waiting import wait_until

slack_sdk = pytest.importorskip("slack_sdk", reason="not here: slack-sdk is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.process]

SLACK_TOKEN, GITHUB_TOKEN = "xoxb-test-token-12345", "ghp-test-token-12345"
TEXT = 'He said "hi"\n{{ x }} \\ 😀 {% raw %}'
SEED = f"""
tokens:
  {SLACK_TOKEN}: {{login: dev}}
  {GITHUB_TOKEN}: {{login: me, scopes: [repo, user]}}
github:
  users: [{{login: me, name: Me, email: me@example.com}}]
  repos: [{{owner: me, name: mine, auto_init: true}}]
slack:
  team: {{name: Work, domain: work}}
  users: [{{name: dev, real_name: Dev, email: dev@example.com}}]
  channels: [{{name: general}}, {{name: random}}]
  bots: [{{name: bot}}]
"""


class Services(NamedTuple):
    """Where they are."""

    github: str
    slack: str


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("emulate")
    (folder / "seed.yaml").write_text(SEED)
    port = _two_ports()
    command = npm.command("emulate", "start", "--port", str(port), "--service", "github,slack", "--seed", "seed.yaml")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=npm.environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until(lambda: process.poll() is not None or all(map(_listens, (port, port + 1))))
        assert process.poll() is None, (folder / "log").read_text()
        yield Services(f"http://localhost:{port}", f"http://localhost:{port + 1}")
    finally:
        process.kill()
        process.wait()


def _two_ports() -> int:
    """The first of two neighbours that nobody listens at; it numbers its services itself."""
    return wait_until(lambda: next((port for port in free_ports(8) if not _listens(port + 1)), 0))


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dp.Session]:
    monkeypatch.setenv("SLACK_BOT_TOKEN", SLACK_TOKEN)
    monkeypatch.setenv("GITHUB_TOKEN", GITHUB_TOKEN)
    with dp.Session(tmp_path, llm=scripted()) as session:
        yield session


@pytest.fixture
def slack(session: dp.Session, services: Services) -> Any:
    return session.provider("slack", base_url=f"{services.slack}/api")


@pytest.fixture
def github(session: dp.Session, services: Services) -> Any:
    return session.provider("github", base_url=services.github)


def test_slack(slack: Any, services: Services):
    """Messages, a thread, history, a file: what ours writes the SDK reads, and the other way round."""
    sdk = slack_sdk.WebClient(SLACK_TOKEN, base_url=f"{services.slack}/api/")
    channels = {channel["name"]: channel["id"] for channel in slack.list_channels(all=True)}
    assert channels == {channel["name"]: channel["id"] for channel in sdk.conversations_list()["channels"]}
    assert {"general", "random"} <= channels.keys()
    channel = channels["general"]
    sent = slack.send_message(channel=channel, text=TEXT)
    slack.send_message(channel=channel, text="an answer", thread_ts=sent["ts"])
    theirs = sdk.chat_postMessage(channel=channel, text="by the SDK")
    assert [m["text"] for m in slack.read_thread(channel=channel, ts=sent["ts"])] == [TEXT, "an answer"]
    assert [m["text"] for m in slack.read_channel(channel=channel)][:2] == ["by the SDK", TEXT]
    assert [m["text"] for m in sdk.conversations_replies(channel=channel, ts=sent["ts"])["messages"]] == [TEXT, "an answer"]
    slack.update_message(channel=channel, ts=sent["ts"], text="changed")
    slack.add_reaction(channel=channel, timestamp=theirs["ts"], name="tada")
    slack.delete_message(channel=channel, ts=theirs["ts"])
    assert sdk.conversations_history(channel=channel)["messages"][0]["text"] == "changed"
    made = slack.create_channel(name="new-one")
    assert made["id"] in [found["id"] for found in sdk.conversations_list()["channels"]]
    (shared,) = slack.upload_file(filename="a.txt", content=TEXT, channel=channel, initial_comment="see")
    assert sdk.files_info(file=shared["id"])["file"]["size"] == len(TEXT.encode())
    assert [user["name"] for user in slack.list_users(all=True)]


def test_what_slack_refuses(slack: Any):
    with pytest.raises(ProviderNotFoundError, match="channel_not_found"):
        slack.send_message(channel="nowhere", text="x")
    with pytest.raises((ProviderNotFoundError, ProviderRejectedError)):
        slack.update_message(channel="nowhere", ts="1.1", text="x")


PLACE = {"owner": "me", "repo": "mine"}


def test_github(github: Any):
    """Issues over two pages, comments, a release: each comes back as it was sent."""
    numbers = [github.create_issue(**PLACE, title=f"{n} {TEXT}", body=TEXT)["number"] for n in range(101)]
    issues = github.list_issues(**PLACE, all=True, sort="created", direction="asc")
    assert [issue["title"] for issue in issues] == [f"{n} {TEXT}" for n in range(101)]
    assert TEXT in github.get_issue(**PLACE, number=numbers[0])["body"]
    comment = github.add_comment(**PLACE, number=numbers[0], body=TEXT)
    assert [found["id"] for found in github.list_comments(**PLACE, number=numbers[0], all=True)] == [comment["id"]]
    github.update_issue(**PLACE, number=numbers[0], state="closed")
    assert len(github.list_issues(**PLACE, all=True)) == 100
    release = github.create_release(**PLACE, tag_name="v1", name=TEXT)
    assert release["name"] == TEXT
    assert [found["tag_name"] for found in github.list_releases(**PLACE, all=True)] == ["v1"]
    assert github.get_repository(**PLACE)["full_name"] == "me/mine"


def test_pull_requests(github: Any, services: Services):
    """Opened, listed and merged."""
    branch = _asked(services, "GET", "git/ref/heads/main")
    _asked(services, "POST", "git/refs", {"ref": "refs/heads/work", "sha": branch["object"]["sha"]})
    made = github.create_pull(**PLACE, title=TEXT, head="work", base="main", body=TEXT)
    (listed,) = github.list_pulls(**PLACE, all=True)
    assert (listed["number"], listed["title"]) == (made["number"], TEXT)
    assert TEXT in github.get_pull(**PLACE, number=made["number"])["body"]
    assert github.merge_pull(**PLACE, number=made["number"], merge_method="squash")["merged"]
    assert github.list_pulls(**PLACE, all=True) == []


def _asked(services: Services, method: str, path: str, body: Any = None) -> Any:
    """What no operation of ours does."""
    url, headers = f"{services.github}/repos/me/mine/{path}", {"Authorization": f"Bearer {GITHUB_TOKEN}"}
    return httpx2.request(method, url, headers=headers, json=body).raise_for_status().json()


def test_what_github_refuses(github: Any):
    with pytest.raises(ProviderNotFoundError):
        github.get_repository(owner="me", repo="nothing")
    with pytest.raises(ProviderNotFoundError):
        github.add_comment(**PLACE, number=99999, body="x")
    with pytest.raises(ProviderRejectedError, match="422"):
        github.create_issue(**PLACE, title="")
