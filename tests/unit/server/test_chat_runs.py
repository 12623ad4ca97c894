"""Runs of diagrams in a chat, without a chat: which diagram a message means, questions, and what a chat does not permit."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.config import get_settings
from dipeo_nb.runtime import Runtime
from dipeo_nb.server.chat_runs import ChatRuns

SAY = {"label": "Say", "type": "person_job", "props": {"person": "Ada", "default_prompt": "On {{topic}}", "max_iteration": 1}}
ASK = {"label": "Ask", "type": "user_response", "props": {"prompt": "Publish it?", "timeout": 60}}


def written(path: Path, *nodes: dict[str, Any]) -> None:
    labels = ["S", *(node["label"] for node in nodes), "E"]
    start = {"label": "S", "type": "start", "props": {"custom_data": {"topic": ""}}}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({
        "version": "light", "persons": {"Ada": {"service": "echo", "model": "echo"}},
        "nodes": [start, *nodes, {"label": "E", "type": "endpoint"}],
        "connections": [{"from": a, "to": b} for a, b in itertools.pairwise(labels)],
    }))  # fmt: skip


def replies(base: Path, *messages: str, **options: Any) -> list[str]:
    async def go() -> list[str]:
        chat = ChatRuns(Runtime(get_settings().model_copy(update={"base_dir": base})), **options)
        try:
            return ["".join([piece async for piece in chat.reply(message)]) for message in messages]
        finally:
            await chat.close()

    return asyncio.run(go())


@pytest.mark.parametrize("message", ["say tea", "@DiPeO @say tea", "`say`: tea", 'sub/say.light.yaml {"topic": "tea"}'])
def test_a_message_names_its_diagram(tmp_path: Path, message: str):
    written(tmp_path / "sub" / "say.light.yaml", SAY)
    written(tmp_path / "ask.light.yaml", SAY, ASK)
    assert "On tea" in replies(tmp_path, message)[0]


def test_one_that_names_none(tmp_path: Path):
    """The one that is set, the only one, or a question back; two of the same name are told apart by their paths."""
    assert "There is no diagram here" in replies(tmp_path, "tea")[0]
    written(tmp_path / "say.light.yaml", SAY)
    assert "On tea" in replies(tmp_path, "tea")[0]
    written(tmp_path / "sub" / "say.light.yaml", SAY)
    assert "Which diagram?" in replies(tmp_path, "tea")[0]
    assert "by its path" in replies(tmp_path, "say tea")[0]
    assert "On tea" in replies(tmp_path, "tea", diagram="say.light.yaml")[0]


def test_a_question_waits_for_the_next_message(tmp_path: Path):
    written(tmp_path / "ask.light.yaml", SAY, ASK)
    asked, ended, _, stopped = replies(tmp_path, "ask tea", "by all means", "ask tea", "/stop")
    assert "Publish it?" in asked
    assert ended.endswith("by all means")
    assert stopped == "Stopped."
