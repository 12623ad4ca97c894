"""Dry runs: every effect of a diagram is shown, and none of them happens."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.errors import InvalidDiagramError, ValidationError
from tests.support.cli import caller
from tests.support.provider_server import serving
from tests.support.service_fakes import FakeSlack

CALLED: list[str] = []


@dp.node(name="dry_run_probe")
def probe(text: str) -> str:
    """A function that must not be called."""
    CALLED.append(text)
    return text


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dp.Session]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-key-0123456789abcdef")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-test-token-12345")
    with dp.Session(tmp_path) as session:
        yield session


def line(*nodes: dict[str, Any], **persons: Any) -> dict[str, Any]:
    """Start → the nodes, each labelled by its name → end."""
    labels = ["S", *(node["label"] for node in nodes), "E"]
    return {
        "version": "light",
        "persons": {"Ada": {"service": "openai", "model": "gpt-4o"}, **persons},
        "nodes": [{"label": "S", "type": "start"}, *nodes, {"label": "E", "type": "endpoint"}],
        "connections": [{"from": a, "to": b, "label": a} for a, b in itertools.pairwise(labels)],
    }


def node(label: str, kind: str, **props: Any) -> dict[str, Any]:
    return {"label": label, "type": kind, "props": props}


ASK = node("W", "person_job", person="Ada", default_prompt="Write on {{topic}}", max_iteration=1)


def by_node(effects: Any) -> dict[str, Any]:
    return {row["node"]: row for row in effects}


def test_every_effect_is_shown_and_none_happens(session: dp.Session, tmp_path: Path):
    """Prompts, requests, programs, code, functions and files: shown as a run would have them; the server hears nothing."""
    with serving(FakeSlack()) as server:
        session.provider("slack", base_url=server.url)
        found = session.dry_run(
            line(
                ASK,
                node("Shell", "hook", hook_type="shell", command="echo {{W}} > made.txt"),
                node("Post", "api_job", url=f"{server.url}/x?token=planted-in-query", method="POST", auth_type="bearer",
                     auth_config={"token": "planted-bearer-token"}, body={"text": "{{Shell}}"}),
                node("Tell", "integrated_api", provider="slack", operation="send_message",
                     config={"channel": "C1", "text": 'He said "{{ topic }}"'}),
                node("Save", "db", operation="write", file="out/a.txt"),
                node("Code", "code_job", language="python", code="open('made.txt', 'w').write('x')\nresult = 1"),
                node("Mine", "dry_run_probe"),
            ),
            topic="tea",
        )  # fmt: skip
        assert server.asked == []
    rows = by_node(found)
    assert found.error == ""
    assert rows["W"]["what"] == "openai:gpt-4o"
    assert rows["W"]["detail"] == "user: Write on tea"
    assert "‹answer of Ada›" in rows["Shell"]["detail"]
    assert rows["Post"]["what"].endswith("/x")
    assert "planted" not in json.dumps(list(found))
    assert 'He said "tea"' in json.loads(rows["Tell"]["detail"])["body"]["text"]
    assert (rows["Save"]["kind"], rows["Save"]["what"]) == ("write", "out/a.txt")
    assert (rows["Code"]["kind"], rows["Mine"]["kind"]) == ("code", "function")
    assert CALLED == []
    assert list(tmp_path.iterdir()) == []
    assert session.runs() == []


def test_a_later_node_reads_what_an_earlier_one_would_have_written(session: dp.Session, tmp_path: Path):
    """Written files are kept in memory for the rest of the dry run."""
    found = session.dry_run(
        line(
            node("Write", "db", operation="write", file="a.txt"),
            node("Read", "db", operation="read", file="a.txt"),
            node("Ask", "person_job", person="Ada", default_prompt="Read: {{Read}}", max_iteration=1),
        ),
        inputs={"x": 1},
    )
    assert found.error == ""
    assert [row["kind"] for row in found if row["node"] in ("Write", "Read")][:2] == ["write", "read"]
    assert not (tmp_path / "a.txt").exists()


def test_a_branch_that_placeholders_do_not_take_is_listed(session: dp.Session):
    """What is not reached is listed with its templates."""
    diagram = line(ASK, node("Long", "condition", condition_type="custom", expression="len(W) > 1000"))
    diagram["nodes"].append(node("Publish", "api_job", url="https://api.example/{{W}}", method="POST"))
    diagram["connections"] = [
        {"from": "S", "to": "W"}, {"from": "W", "to": "Long", "label": "W"},
        {"from": "Long_condtrue", "to": "Publish"}, {"from": "Long_condfalse", "to": "E"},
    ]  # fmt: skip
    row = by_node(session.dry_run(diagram, topic="tea"))["Publish"]
    assert (row["kind"], row["reached"]) == ("net", False)


def test_a_placeholder_that_a_node_cannot_use_ends_it_and_the_rest_is_listed(session: dp.Session):
    """The error says where, and nothing after it is left out."""
    found = session.dry_run(
        line(
            node("Code", "code_job", language="python", code="result = [1]"),
            node("Check", "json_schema_validator", json_schema={"type": "array"}),
            node("Post", "api_job", url="https://api.example/", method="POST"),
        )
    )
    assert "'Check'" in found.error
    assert not by_node(found)["Post"]["reached"]


def test_structures_and_decisions_are_made_up(session: dp.Session):
    """A placeholder would not fit a schema, nor decide; both models are shown with what they are asked."""
    found = session.dry_run(
        """
        version: light
        nodes:
        - {label: S, type: start}
        - {label: P, type: person_job, person: A, default_prompt: Hi, text_format: {type: object, properties: {a: {type: string}}}}
        - {label: C, type: condition, condition_type: llm_decision, person: A, judge_by: "Is it?"}
        - {label: E, type: endpoint}
        connections:
        - {from: S, to: P}
        - {from: P, to: C}
        - {from: C_condtrue, to: E}
        persons:
          A: {service: openai, model: gpt-5-nano}
        """
    )
    assert [(row["node"], row["reached"]) for row in found if row["kind"] == "model"] == [("P", True), ("C", True)]


def test_an_endless_loop_ends(session: dp.Session):
    """A loop whose condition no placeholder meets: after five rounds, effects are counted."""
    diagram = line(ASK, node("Done", "condition", condition_type="custom", expression="W == 'ok'"))
    diagram["nodes"][1]["props"]["max_iteration"] = 40
    diagram["connections"] = [
        {"from": "S", "to": "W"}, {"from": "W", "to": "Done", "label": "W"},
        {"from": "Done_condtrue", "to": "E"}, {"from": "Done_condfalse", "to": "W"},
    ]  # fmt: skip
    asked = [row["times"] for row in session.dry_run(diagram, topic="tea") if row["kind"] == "model"]
    assert asked == [1, 1, 1, 1, 36]
    assert "its loop did not end" in session.dry_run(diagram, max_iterations=5, topic="tea").error


def test_a_stranger_s_diagram_needs_no_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It can be looked at before it is trusted; its sub-diagrams and its structured answers, too."""
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "sub.light.yaml").write_text(
        'version: light\nnodes:\n  - {label: A, type: start}\n  - {label: Run, type: hook, hook_type: shell, command: "touch owned"}\n'
        "  - {label: B, type: endpoint}\nconnections:\n  - {from: A, to: Run}\n  - {from: Run, to: B}\n"
    )
    with dp.Session(tmp_path) as session:
        found = session.dry_run(
            line(node("Sub", "sub_diagram", diagram_name="sub.light.yaml"), {**ASK, "label": "Ask"}), topic="x"
        )
    assert by_node(found)["Run"]["detail"] == "touch owned"
    assert not (tmp_path / "owned").exists()


def test_a_server_of_tools_is_not_started(session: dp.Session, tmp_path: Path):
    """Tools of an MCP server: named, and its program is not begun."""
    session.trust(tmp_path)
    (tmp_path / ".mcp.json").write_text(
        json.dumps({"mcpServers": {"bad": {"command": "sh", "args": ["-c", f"touch {tmp_path}/begun"]}}})
    )
    found = session.dry_run(
        line(
            node("W", "person_job", person="Ada", default_prompt="Hi", max_iteration=1, tools=["mcp_bad"]),
            node("Call", "integrated_api", provider="mcp_bad", operation="do", config={"a": "{{ W }}"}),
        )
    )
    assert by_node(found)["Call"]["what"] == "mcp_bad.do"
    assert not (tmp_path / "begun").exists()


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Keys of models and of providers, each with the nodes that need it; a scripted model needs none."""
    for name in ("OPENAI_API_KEY", "SLACK_BOT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    tell = node("Tell", "integrated_api", provider="slack", operation="send_message", config={"channel": "C", "text": "x"})
    with dp.Session(tmp_path) as session:
        missing = {m.service: m for m in session.dry_run(line(ASK, tell), topic="x").missing}
        assert missing["openai"].nodes == ("W",)
        assert "OPENAI_API_KEY" in missing["openai"].hint
        assert missing["slack"].hint == "dipeo-nb keys set slack"
        assert [m.service for m in session.dry_run(line(ASK, tell), model="echo", topic="x").missing] == ["slack"]
        assert "Missing: openai" in repr(session.dry_run(line(ASK), topic="x"))


def test_hostile_values_stay_text(session: dp.Session):
    """A prompt with markup, templates and control characters is shown as text, and is no row of its own."""
    nasty = '</td><script>alert(1)</script>{{ x }}\x1b[2J"'
    found = session.dry_run(line(ASK), topic=nasty)
    assert "<script>" not in found._repr_html_()
    assert "\x1b" not in repr(found)
    assert found[0]["detail"] == f"user: Write on {nasty}"


def test_what_cannot_run_is_refused_as_a_run_is(session: dp.Session):
    """Mistakes of the diagram and of options are the same errors."""
    with pytest.raises(InvalidDiagramError):
        session.dry_run(line(node("Tell", "integrated_api", provider="slack", operation="send_mesage", config={})))
    with pytest.raises(ValidationError, match="max_iterations"):
        session.dry_run(line(ASK), max_iterations=0)


def test_the_command_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """`run --dry-run` prints the effects, and its exit code says whether a key is missing."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    file = tmp_path / "d.json"
    file.write_text(json.dumps(line(ASK)))
    run = caller(capsys)
    done = run("run", file, "--format", "light", "--dry-run", "-i", "topic=tea", "--base-dir", tmp_path)
    assert done.code == 1
    assert "'W'   model: openai:gpt-4o\n    user: Write on tea" in done.out
    assert "missing: openai, for W" in done.err
    done = run("run", file, "--format", "light", "--dry-run", "--json", "-m", "echo", "-i", "topic=tea", "--base-dir", tmp_path)
    assert done.code == 0
    assert done.json["effects"][0]["detail"] == "user: Write on tea"
    assert [path.name for path in tmp_path.iterdir()] == ["d.json"]
