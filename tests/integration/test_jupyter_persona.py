"""Our persona in the persona manager of jupyter-ai 3: found by its entry point, addressed in a real chat, which it answers with runs."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb import config
from tests.support.waiting import until

persona_manager = pytest.importorskip("jupyter_ai_persona_manager", reason="not here: the extra jupyter-ai")
from jupyterlab_chat.models import Message  # noqa: E402
from jupyterlab_chat.websocket_model import WsChatModel  # noqa: E402
from traitlets.config import Config  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # those of its own imports


def line(*nodes: dict[str, Any]) -> dict[str, Any]:
    labels = ["S", *(node["label"] for node in nodes), "E"]
    start = {"label": "S", "type": "start", "props": {"custom_data": {"topic": ""}}}
    return {
        "version": "light",
        "persons": {"Ada": {"service": "echo", "model": "echo"}},
        "nodes": [start, *nodes, {"label": "E", "type": "endpoint"}],
        "connections": [{"from": a, "to": b} for a, b in itertools.pairwise(labels)],
    }


SAY = {"label": "Say", "type": "person_job", "props": {"person": "Ada", "default_prompt": "On {{topic}}", "max_iteration": 1}}
ASK = {"label": "Ask", "type": "user_response", "props": {"prompt": "Publish it?", "timeout": 60}}
SHELL = {"label": "Run", "type": "hook", "props": {"hook_type": "shell", "command": "touch owned"}}
HANG = {
    "label": "Wait",
    "type": "code_job",
    "props": {"language": "python", "code": "import time\ntime.sleep(600)\nresult = 1"},
}
Say = Callable[[str], Any]


@asynccontextmanager
async def chat(folder: Path, **settings: Any) -> AsyncIterator[tuple[Any, Say]]:
    """A chat file of that folder with all personas, and what says something to ours: the texts of its replies."""
    room = WsChatModel("room.chat", folder)
    room.load_from_file()
    persona_manager.PersonaManager._ep_persona_classes = None
    manager = persona_manager.PersonaManager(
        chat=room, root_dir=str(folder), event_loop=asyncio.get_running_loop(), config=Config(DipeoPersona=settings)
    )
    persona = manager.personas["jupyter-ai-personas::dipeo_nb::DipeoPersona"]

    async def say(text: str) -> list[str]:
        before = len(room.get_messages())
        await persona.on_message(Message(id="m", body=text, time=0, sender="me"))
        return [message.body for message in room.get_messages()[before:]]

    try:
        yield persona, say
    finally:
        await persona.shutdown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIPEO_TRUST", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / "data"))
    config.reset_settings()
    work = tmp_path / "work"
    work.mkdir()
    for name, nodes in {"say": [SAY], "ask": [SAY, ASK], "evil": [SHELL]}.items():
        (work / f"{name}.light.yaml").write_text(json.dumps(line(*nodes)))
    return work


@pytest.mark.parametrize(
    "text",
    ["say tea", "say.light.yaml tea", "@DiPeO say tea", "@say tea", "`say`: tea", '@DiPeO say {"topic": "tea"}', "say\ntea"],
)
def test_a_message_runs_the_diagram_that_it_names(folder: Path, text: str):
    async def go() -> list[str]:
        async with chat(folder) as (_, say):
            return await say(text)

    (reply,) = asyncio.run(go())
    assert "- Say ✓" in reply
    assert "On tea" in reply


def test_a_message_that_names_none(folder: Path):
    """The diagram of the settings runs; without one the persona says what there is."""

    async def go(**settings: Any) -> list[str]:
        async with chat(folder, **settings) as (_, say):
            return await say("tea with ../../etc/passwd")

    assert "On tea with" in asyncio.run(go(diagram="say.light.yaml", model="echo"))[0]
    (reply,) = asyncio.run(go())
    assert "Which diagram?" in reply
    assert "say.light.yaml" in reply


def test_only_diagrams_of_the_folder_are_named(folder: Path, tmp_path: Path):
    (tmp_path / "outside.light.yaml").write_text(json.dumps(line(SAY)))

    async def go() -> list[list[str]]:
        async with chat(folder) as (_, say):
            return [await say(text) for text in ("../outside.light.yaml tea", str(tmp_path / "outside.light.yaml"))]

    assert all("Which diagram?" in reply for (reply,) in asyncio.run(go()))


def test_a_chat_trusts_nothing(folder: Path):
    """What a diagram of another one wants is listed, and does not happen, whatever the message says."""

    async def go() -> list[str]:
        async with chat(folder) as (_, say):
            return await say("evil trust allow code yes")

    (reply,) = asyncio.run(go())
    assert "touch owned" in reply
    assert "dipeo-nb trust" in reply or "--trust" in reply or "--allow" in reply
    assert not (folder / "owned").exists()


def test_a_question_is_answered_by_the_next_message(folder: Path):
    async def go() -> list[list[str]]:
        async with chat(folder) as (_, say):
            return [await say(text) for text in ("ask tea", "by all means", "ask tea", "/stop", "say tea")]

    (asked,), (ended,), _, (stopped,), (after,) = asyncio.run(go())
    assert "Publish it?" in asked
    assert ended == "- Ask ✓\n- E ✓\n\nby all means"
    assert stopped == "Stopped."
    assert "On tea" in after


def test_the_stop_button_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIPEO_TRUST", str(folder))
    config.reset_settings()
    (folder / "hang.light.yaml").write_text(json.dumps(line(HANG)))

    async def go() -> list[str]:
        async with chat(folder) as (persona, say):
            replying = asyncio.create_task(say("hang tea"))
            await until(lambda: persona._runs is not None and persona._runs._run_id != "" and persona.processing)
            await asyncio.sleep(0)
            await persona.cancel_response()
            return await replying

    assert "stopped in the chat" in "".join(asyncio.run(go()))


def test_nothing_of_the_server_is_shown_when_a_diagram_is_broken(folder: Path):
    (folder / "broken.light.yaml").write_text("version: light\nnodes: [}")

    async def go() -> list[str]:
        async with chat(folder) as (_, say):
            return await say("broken tea")

    (reply,) = asyncio.run(go())
    assert "Traceback" not in reply
    assert "broken.light.yaml" in reply
