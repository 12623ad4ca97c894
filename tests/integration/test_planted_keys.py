"""Keys planted everywhere, everything run at DEBUG, all that comes out searched: files, logs, streams, displays, errors."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.errors import DipeoError
from dipeo_nb.llm.core.types import RetryConfig
from dipeo_nb.llm.recording import recording
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.tools import tools_of
from dipeo_nb.notebook.session import Session
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from tests.support import wire_anthropic as anthropic
from tests.support import wire_google as google
from tests.support import wire_ollama as ollama
from tests.support import wire_openai as openai
from tests.support.wire_openai import Call, run, settings_with
from tests.support.wire_protocols import WIRES

CANARIES = {
    "openai_api_key": "sk-canary-OpenAI-4Qx9Zr7Lw2Tn8Vb",
    "anthropic_api_key": "sk-ant-canary-Anthropic-7Hk3Pm5Rd",
    "google_api_key": "AIza-canary-Google-2Wc8Yf6Jt4Ns",
}


class Shape(BaseModel):
    word: str


def leaks(text: str) -> list[str]:
    return [name for name, key in CANARIES.items() if key in text]


def told(error: BaseException) -> str:
    """All that an error could show, its chain of causes and its pickled form included."""
    shown = [repr(error), str(error), "".join(traceback.format_exception(error))]
    if isinstance(error, DipeoError):
        shown += [repr(error.facts), "\n".join(error._render_traceback_()), repr(pickle.dumps(error))]
    return "\n".join(shown)


@pytest.mark.parametrize("wire", WIRES, ids=lambda w: w.service)
def test_no_key_comes_out(wire: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]):
    """Answers, tools, structure with a repair, refusals that repeat the key, malformed answers, a diagram's run, its views and
    record, recordings: no key in any of it. The server, for whom they are, did get its own."""
    key = CANARIES.get(wire.key_setting or "", "nothing")

    def garbage(call: Call) -> None:
        body = f"data: {{oops {key}\n\n"
        call.headers(content_type="text/event-stream", content_length=str(len(body)))
        call.send(body)

    def secret_tool(word: str) -> str:
        """A tool."""
        return f"tool says {word}"

    replies = [
        wire.says("Hello."),
        wire.calls([("c1", "secret_tool", {"word": "x"})]),
        wire.says("Done."),
        wire.says("no json"),
        wire.says('{"word": "yes"}'),
        wire.refuses(400, f"your key {key} is odd"),
        wire.refuses(401, f"bad key {key}"),
        garbage,
        wire.says("From a run."),
        wire.refuses(403, f"no more for {key}"),
    ]
    shown: list[str] = []
    caplog.set_level(logging.DEBUG)
    with wire.server(*replies) as server:
        url = server.url.removesuffix("/v1") + wire.path
        settings = settings_with(
            base_dir=tmp_path, **{name: SecretStr(k) for name, k in CANARIES.items()}, **{wire.url_setting: url}
        )
        service = LLMService(settings, EnvironmentAPIKeyService(settings), retries=RetryConfig(1))

        async def calls() -> None:
            def ask(**more: Any) -> LLMRequest:
                return LLMRequest(wire.service, wire.model, (ChatMessage("user", "hi"),), **more)

            for request in (ask(), ask(tools=tools_of([secret_tool])), ask(response_format=Shape), ask(), ask(), ask()):
                try:
                    async for event in service.stream(request):
                        shown.append(repr(event))
                except DipeoError as error:
                    shown.append(told(error))
            shown.extend([repr(service), repr(vars(service)), repr(vars(service._clients)), repr(settings)])
            shown.append(repr(settings.explain()) + settings.explain()._repr_html_())
            await service.cleanup()

        with recording(tmp_path / "recordings", mode="record"):
            run(calls())
        session = Session(settings=settings, llm=service)
        diagram = {
            "version": "light",
            "persons": {"Ada": {"service": wire.service, "model": wire.model, "api_key_id": "APIKEY_52609F"}},
            "nodes": [
                {"label": "Start", "type": "start"},
                {"label": "Say", "type": "person_job", "props": {"person": "Ada", "default_prompt": "hi"}},
                {"label": "End", "type": "endpoint"},
            ],
            "connections": [{"from": "Start", "to": "Say"}, {"from": "Say", "to": "End"}],
        }
        assert session.run(diagram, view=False).status == "completed"
        with pytest.raises(DipeoError) as caught:
            session.run(diagram, view=False)
        shown.append(told(caught.value))
        for summary in session.runs():
            opened = session.open_run(summary.run_id)
            shown += [
                repr(opened),
                str(opened._repr_mimebundle_()),
                repr(list(opened.events)),
                json.dumps(opened.state.error),
            ]
        session.close()
        assert leaks(json.dumps([s.headers for s in server.seen])) == ([wire.key_setting] if wire.key_setting else [])
        assert leaks(json.dumps([s.body for s in server.seen])) == []
    assert leaks("\n".join(shown)) == []
    assert leaks(caplog.text) == []
    out = capsys.readouterr()
    assert leaks(out.out + out.err) == []
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any(p.name == "runs.db" for p in files)
    assert any(p.parent.name == "recordings" for p in files)
    for path in files:
        assert leaks(path.read_bytes().decode("utf-8", "replace")) == [], path


HOSTILE = {
    "openai": lambda key: (
        lambda call: call.stream(
            [
                openai.delta("Hi"),
                openai.final(
                    openai.message("Hi"), status="incomplete", incomplete_details={"reason": key}, model=key, service_tier=key
                ),
            ]
        )
    ),
    "anthropic": lambda key: anthropic.streams(anthropic.start(model=key), *anthropic.text("Hi"), *anthropic.end(key)),
    "gemini": lambda key: google.streams(google.chunk(google.text("Hi"), finish=key)),
    "ollama": lambda key: ollama.lines(ollama.chunk("Hi"), ollama.end(key)),
}


@pytest.mark.parametrize("wire", WIRES, ids=lambda w: w.service)
@pytest.mark.filterwarnings("error")
def test_no_key_comes_out_of_what_a_server_says_about_an_answer(wire: Any, tmp_path: Path):
    """It names the key as the model, as the reason of the end, and as the terms of its bill; `extra` holds it, too."""
    key = CANARIES[wire.key_setting or "openai_api_key"]
    url_of = {name: SecretStr(k) for name, k in CANARIES.items()}
    shown: list[str] = []
    with wire.server(*[HOSTILE[wire.service](key)] * 3) as server:
        settings = settings_with(base_dir=tmp_path, **url_of, **{wire.url_setting: server.url.removesuffix("/v1") + wire.path})
        service = LLMService(settings, EnvironmentAPIKeyService(settings), retries=RetryConfig(1))
        with recording(tmp_path / "recordings", mode="record"):
            try:
                asked = LLMRequest(wire.service, wire.model, (ChatMessage("user", "hi"),), extra={"user": key})
                answer = run(service.complete(asked))
                shown += [repr(answer), str(answer.warnings), repr(answer.usage.bill)]
                assert any("[hidden]" in warning for warning in answer.warnings)
            except DipeoError as error:
                shown.append(told(error))
        with Session(settings=settings, llm=service) as session:
            diagram = {
                "version": "light",
                "persons": {"Ada": {"service": wire.service, "model": wire.model}},
                "nodes": [
                    {"label": "S", "type": "start"},
                    {"label": "Say", "type": "person_job", "props": {"person": "Ada", "default_prompt": "hi"}},
                ],
                "connections": [{"from": "S", "to": "Say"}],
            }
            try:
                shown.append(repr(list(session.run(diagram, view=False).events)))
            except DipeoError as error:
                shown.append(told(error))
    assert len(shown) >= 2
    assert leaks("\n".join(shown)) == []
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or leaks(path.read_bytes().decode("utf-8", "replace")) == [], path
