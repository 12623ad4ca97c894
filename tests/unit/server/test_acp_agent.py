"""`dipeo-nb acp` in a process of its own, with a scripted editor: plan, tool calls, permissions, answers in words, stop."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp

acp = pytest.importorskip("acp", reason="not here: the extra acp")
from acp import RequestError, schema, text_block  # noqa: E402
from acp.stdio import spawn_agent_process  # noqa: E402

WAIT_S = 60.0
ASK = """version: light
metadata: {name: Ask}
persons:
  Ada: {service: echo, model: m}
nodes:
- {label: Start, type: start, custom_data: {who: Bo}}
- {label: Say, type: person_job, person: Ada, default_prompt: "Hello {{who}}: {{topic}}", max_iteration: 1}
- {label: Sure, type: user_response, prompt: "Send {{Say}}?", timeout: 300}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: Sure, label: Say}
- {from: Sure, to: End}
"""


class Editor:
    """A client that chooses these options in turn."""

    def __init__(self, *choices: str | None) -> None:
        self.choices = list(choices)
        self.updates: list[Any] = []
        self.asked: list[Any] = []
        self.began = asyncio.Event()

    def on_connect(self, conn: Any) -> None:
        self.agent = conn

    async def session_update(self, session_id: str, update: Any, **more: Any) -> None:
        self.updates.append(update)
        if update.session_update == "tool_call" and update.title == "Slow":
            self.began.set()

    async def request_permission(self, session_id: str, tool_call: Any, options: list[Any], **more: Any) -> Any:
        self.asked.append((tool_call.title, [option.option_id for option in options]))
        choice = self.choices.pop(0)
        outcome: Any = (
            schema.DeniedOutcome(outcome="cancelled")
            if choice is None
            else schema.AllowedOutcome(outcome="selected", option_id=choice)
        )
        return schema.RequestPermissionResponse(outcome=outcome)

    @property
    def said(self) -> list[str]:
        return [u.content.text for u in self.updates if u.session_update == "agent_message_chunk"]

    def calls(self) -> list[tuple[str, str]]:
        return [(u.title, u.kind) for u in self.updates if u.session_update == "tool_call"]


def agent(base: Path, editor: Editor, file: str = "ask.light.yaml", *options: str) -> Any:
    return spawn_agent_process(
        lambda _: editor, sys.executable, "-m", "dipeo_nb", "acp", file, "--base-dir", str(base), *options, env=dict(os.environ)
    )


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ask.light.yaml").write_text(ASK)
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / ".data"))
    return tmp_path


async def opened(connection: Any) -> str:
    found = await connection.initialize(protocol_version=1)
    assert found.protocol_version == 1
    return (await connection.new_session(cwd="/", mcp_servers=[])).session_id


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, WAIT_S))


def test_a_prompt_runs_the_diagram(base: Path):
    """Nodes are the plan and tool calls, the question a permission, the result a message; inputs may be JSON, also with a default."""

    async def use() -> None:
        editor = Editor("yes", "no")
        async with agent(base, editor) as (connection, _):
            session = await opened(connection)
            done = await connection.prompt(session_id=session, prompt=[text_block("tea 😀")])
            assert done.stop_reason == "end_turn"
            assert editor.asked == [("Send [Ada] Hello Bo: tea 😀?", ["yes", "no", "in words"])]
            assert editor.said == ["yes"]
            assert ("Say", "think") in editor.calls()
            plans = [[e.status for e in u.entries] for u in editor.updates if u.session_update == "plan"]
            assert plans[0] == ["in_progress", "pending", "pending", "pending"]
            assert set(plans[-1]) == {"completed"}
            done = await connection.prompt(session_id=session, prompt=[text_block('{"who": "Al", "topic": "x"}')])
            assert editor.asked[1][0] == "Send [Ada] Hello Al: x?"
            assert editor.said == ["yes", "no"]

    run(use())


def test_an_answer_in_words_is_the_next_prompt(base: Path):
    """The turn ends with the question; a question that is dismissed stops the run."""

    async def use() -> None:
        editor = Editor("in words", None)
        async with agent(base, editor) as (connection, _):
            session = await opened(connection)
            await connection.prompt(session_id=session, prompt=[text_block("tea")])
            assert editor.said == ["Send [Ada] Hello Bo: tea?"]
            await connection.prompt(session_id=session, prompt=[text_block("on Monday")])
            assert editor.said[-1] == "on Monday"
            done = await connection.prompt(session_id=session, prompt=[text_block("tea")])
            assert done.stop_reason == "refusal"
            assert "did not answer" in editor.said[-1]

    run(use())


def test_stop_and_hostile_prompts(base: Path):
    """Stopping ends the run; unknown sessions, inputs that do not fit and a second prompt meanwhile are errors, and it goes on."""
    (base / "slow.light.yaml").write_text(
        'version: light\nnodes:\n- {label: S, type: start}\n- {label: Slow, type: code_job, language: python, code: "import time\\ntime.sleep(60)"}\n'
        "- {label: E, type: endpoint}\nconnections:\n- {from: S, to: Slow}\n- {from: Slow, to: E}\n"
    )

    async def use() -> None:
        editor = Editor()
        async with agent(base, editor, "slow.light.yaml") as (connection, _):
            session = await opened(connection)
            going = asyncio.ensure_future(connection.prompt(session_id=session, prompt=[text_block("")]))
            await editor.began.wait()
            with pytest.raises(RequestError):
                await connection.prompt(session_id=session, prompt=[text_block("again")])
            await connection.cancel(session_id=session)
            assert (await going).stop_reason == "cancelled"
            with dp.Session(base) as opened_:
                assert [row.status for row in opened_.runs()] == ["aborted"]
            with pytest.raises(RequestError):
                await connection.prompt(session_id="nothing\r\n", prompt=[text_block("x")])
            refused = await connection.prompt(session_id=session, prompt=[text_block('{"bad": "x"}')])
            assert refused.stop_reason == "refusal"
            assert "do not fit" in editor.said[-1]

    run(use())


def test_a_stranger_s_diagram_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch):
    """As everywhere: the message lists what it wants, and nothing was run."""
    monkeypatch.delenv("DIPEO_TRUST")
    (base / "code.light.yaml").write_text(
        "version: light\nnodes:\n- {label: S, type: start}\n- {label: C, type: code_job, language: python, code: \"open('ran', 'w')\"}\n"
        "- {label: E, type: endpoint}\nconnections:\n- {from: S, to: C}\n- {from: C, to: E}\n"
    )

    async def use() -> None:
        editor = Editor()
        async with agent(base, editor, "code.light.yaml") as (connection, _):
            session = await opened(connection)
            assert (await connection.prompt(session_id=session, prompt=[text_block("")])).stop_reason == "refusal"
            assert "runs code" in editor.said[-1]

    run(use())
    assert not (base / "ran").exists()
