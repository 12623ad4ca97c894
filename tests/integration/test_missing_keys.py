"""Keys of providers that are missing: reported before anything has run, where a run is certain to need them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.errors import APIKeyNotFoundError, ValidationError
from dipeo_nb.testing import scripted
from tests.support.cli import caller
from tests.support.provider_server import serving
from tests.support.service_fakes import FakeSlack

TOKEN = "xoxb-test-token-12345"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLACK_BOT_TOKEN", raising=False)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[dp.Session]:
    with dp.Session(tmp_path, llm=scripted()) as session:
        yield session


def node(label: str, kind: str, **props: Any) -> dict[str, Any]:
    return {"label": label, "type": kind, "props": props}


def tell(**more: Any) -> dict[str, Any]:
    return node(
        "Tell",
        "integrated_api",
        **{"provider": "slack", "operation": "send_message", "config": {"channel": "C1", "text": "x"}, **more},
    )


def line(*nodes: dict[str, Any]) -> dict[str, Any]:
    """Start → the nodes → end."""
    labels = ["S", *(node["label"] for node in nodes), "E"]
    return {
        "version": "light",
        "nodes": [node("S", "start"), *nodes, node("E", "endpoint")],
        "connections": [{"from": a, "to": b} for a, b in itertools.pairwise(labels)],
    }


def code(path: Path) -> dict[str, Any]:
    return node("Code", "code_job", language="python", code=f"open({str(path)!r}, 'w').write('x')\nresult = 'yes'")


def events(session: dp.Session) -> list[str]:
    (row,) = session.runs()
    return [event.type for event in session.open_run(row.run_id).events if event.node_id]


def test_nothing_runs_when_the_key_is_missing(session: dp.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The error names key and node; with the key the same run is resumed."""
    with serving(FakeSlack()) as server:
        session.provider("slack", base_url=server.url)
        with pytest.raises(APIKeyNotFoundError, match=r"slack needs a key\. Set SLACK_BOT_TOKEN") as caught:
            session.run(line(code(tmp_path / "made"), tell()), view=False)
        assert caught.value.node == "Tell"  # pyright: ignore[reportAttributeAccessIssue]
        assert events(session) == []
        assert not (tmp_path / "made").exists()
        assert server.asked == []
        monkeypatch.setenv("SLACK_BOT_TOKEN", TOKEN)
        (row,) = session.runs()
        with dp.Session(tmp_path, llm=scripted()) as later:
            later.provider("slack", base_url=server.url)
            assert later.resume(row.run_id, view=False).result().outputs["E"]["ok"]
        assert len(server.asked) == 1


@pytest.mark.parametrize("inner", ["slack", "none"])
def test_a_sub_diagram_lacks_its_key(session: dp.Session, tmp_path: Path, inner: str):
    """Its nodes are looked at, too, and named by the way down to them; the dry run lists them."""
    nodes = (tell(),) if inner == "slack" else (node("Quiet", "code_job", language="python", code="result = 1"),)
    (tmp_path / "sub.light.yaml").write_text(json.dumps(line(*nodes)))
    diagram = line(code(tmp_path / "made"), node("Sub", "sub_diagram", diagram_name="sub.light.yaml"))
    missing = session.dry_run(diagram).missing
    if inner == "none":
        assert missing == []
        assert session.run(diagram, view=False).outputs["E"]
        return
    assert [(m.service, m.nodes) for m in missing] == [("slack", ("Sub/Tell",))]
    with pytest.raises(APIKeyNotFoundError) as caught:
        session.run(diagram, view=False)
    assert caught.value.node == "Sub/Tell"  # pyright: ignore[reportAttributeAccessIssue]
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("condition", ["1 == 2", "1 == 1"])
def test_a_branch_may_not_need_it(session: dp.Session, tmp_path: Path, condition: str):
    """A node behind a condition says so when it is reached, and not before."""
    diagram = line(code(tmp_path / "made"), node("If", "condition", condition_type="custom", expression=condition), tell())
    diagram["connections"][2:] = [
        {"from": "If_condtrue", "to": "Tell"}, {"from": "If_condfalse", "to": "E"},
    ]  # fmt: skip
    if condition == "1 == 2":
        session.run(diagram, view=False)
    else:
        with pytest.raises(APIKeyNotFoundError):
            session.run(diagram, view=False)
    assert (tmp_path / "made").exists()


def test_a_loop_needs_it_in_its_first_round(session: dp.Session, tmp_path: Path):
    diagram = line(code(tmp_path / "made"), tell(), node("If", "condition", condition_type="custom", expression="1 == 1"))
    diagram["connections"][3:] = [{"from": "If_condfalse", "to": "Tell"}, {"from": "If_condtrue", "to": "E"}]
    with pytest.raises(APIKeyNotFoundError):
        session.run(diagram, view=False)
    assert not (tmp_path / "made").exists()


def test_a_node_that_may_fail_may_lack_it(session: dp.Session, tmp_path: Path):
    session.run(line(code(tmp_path / "made"), tell(on_error="continue")), view=False)
    assert (tmp_path / "made").exists()


def test_the_key_of_another_service(session: dp.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-key-0123456789abcdef")
    with pytest.raises(ValidationError, match="another service is not sent to slack"):
        session.run(line(code(tmp_path / "made"), tell(api_key_id="openai")), view=False)
    assert not (tmp_path / "made").exists()


def test_recordings_need_no_key(session: dp.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was recorded with a key is replayed without one."""
    with serving(FakeSlack()) as server, monkeypatch.context() as patch:
        patch.setenv("SLACK_BOT_TOKEN", TOKEN)
        with dp.Session(tmp_path, llm=scripted()) as first, dp.recording(tmp_path / "rec", mode="record"):
            first.provider("slack", base_url=server.url)
            recorded = first.run(line(tell()), view=False).outputs["E"]
    with dp.recording(tmp_path / "rec", mode="replay"):
        assert session.run(line(tell()), view=False).outputs["E"] == recorded


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "d.json"
    file.write_text(json.dumps(line(code(tmp_path / "made"), tell())))
    done = caller(capsys)("run", file, "--format", "light", "--quiet", "--base-dir", tmp_path)
    assert done.code == 1
    assert "slack needs a key" in done.err
    assert not (tmp_path / "made").exists()
