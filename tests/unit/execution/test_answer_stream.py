"""`stream_to`: a person's answer goes to a thread of Slack as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.errors import InvalidDiagramError, ServiceError
from dipeo_nb.testing import scripted
from tests.support.provider_server import WebServer, serving
from tests.support.service_fakes import FakeSlack

NASTY = 'He said "hi"\n{{ x }} 😀 </script> '


class Slow:
    """A model whose answer comes in pieces; `ends` False: it never ends."""

    services = ("slow",)

    def __init__(self, *pieces: str | None, ends: bool = True) -> None:
        self.pieces, self.ends = pieces, ends

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        for piece in self.pieces:
            yield StreamEvent("stream_restarted") if piece is None else StreamEvent("text", piece)
            await asyncio.sleep(0.03)
        if not self.ends:
            await asyncio.sleep(600)
        text = "".join(piece for piece in self.pieces if piece)
        yield StreamEvent("end", response=LLMResponse(text, "slow", "m", TokenUsage(input=1, output=1), cost_usd=0.0))

    async def complete(self, request: LLMRequest) -> LLMResponse:
        raise AssertionError("nodes stream")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-test-token-12345")
    monkeypatch.setattr("dipeo_nb.execution.answer_stream.INTERVAL_S", 0.05)


@pytest.fixture
def slack() -> Iterator[tuple[FakeSlack, WebServer]]:
    fake = FakeSlack()
    with serving(fake) as server:
        yield fake, server


def diagram(**target: Any) -> dict[str, Any]:
    to = {"provider": "slack", "channel": "C1", "thread_ts": "{{ thread }}", **target}
    return {
        "version": "light",
        "persons": {"Ada": {"service": "slow", "model": "m"}},
        "nodes": [
            {"label": "S", "type": "start"},
            {
                "label": "W",
                "type": "person_job",
                "props": {"person": "Ada", "default_prompt": "Hi", "max_iteration": 1, "stream_to": to},
            },
            {"label": "E", "type": "endpoint"},
        ],
        "connections": [{"from": "S", "to": "W"}, {"from": "W", "to": "E"}],
    }


def test_pieces_arrive_in_order_and_the_message_ends(tmp_path: Path, slack: tuple[FakeSlack, WebServer]):
    """The thread has the whole answer, in several pieces, whatever characters are in it."""
    fake, server = slack
    pieces = [f"{n} {NASTY}" for n in range(8)]
    with dp.Session(tmp_path, llm=Slow(*pieces)) as session:
        session.provider("slack", base_url=server.url)
        result = session.run(diagram(), thread="1.5", view=False)
    (stream,) = fake.streams.values()
    assert (stream["channel"], stream["thread_ts"], stream["ended"]) == ("C1", "1.5", True)
    assert len(stream["pieces"]) > 1
    assert "".join(stream["pieces"]) == "".join(pieces) == result.outputs["E"]


def test_an_answer_that_begins_again_says_so(tmp_path: Path, slack: tuple[FakeSlack, WebServer]):
    """What was sent cannot be taken back."""
    fake, server = slack
    with dp.Session(tmp_path, llm=Slow("half", None, "whole")) as session:
        session.provider("slack", base_url=server.url)
        session.run(diagram(), thread="1", view=False)
    (stream,) = fake.streams.values()
    assert "".join(stream["pieces"]) == "half\n\n_The answer begins again:_\n\nwhole"


def test_a_stopped_run_ends_its_message(tmp_path: Path, slack: tuple[FakeSlack, WebServer]):
    """Stop in the middle: what there was is in the thread, and it is over."""
    fake, server = slack
    with dp.Session(tmp_path, llm=Slow("a", "b", ends=False)) as session:
        session.provider("slack", base_url=server.url)
        run = session.start(diagram(), thread="1", view=False)
        while not any(stream["pieces"] for stream in fake.streams.values()):
            run.wait(0.02)
        run.stop()
        run.wait(20)
    (stream,) = fake.streams.values()
    assert stream["ended"]
    assert "".join(stream["pieces"]) == "ab"


def test_a_message_that_is_lost_costs_no_answer(tmp_path: Path, slack: tuple[FakeSlack, WebServer]):
    """Slack refuses a piece: a warning, and the node ends as it would; where it refuses the beginning, no model is asked."""
    fake, server = slack
    fake.chat_appendStream = lambda given, asked: fake.chat_postMessage({"channel": "none"}, asked)  # type: ignore[method-assign]
    with dp.Session(tmp_path, llm=Slow("a", "b")) as session:
        session.provider("slack", base_url=server.url)
        result = session.run(diagram(), thread="1", view=False)
        assert result.outputs["E"] == "ab"
        said = [e.payload["message"] for e in result.events if e.type == "execution_log"]
        assert any("not sent on any more" in line and "channel_not_found" in line for line in said)
        with pytest.raises(ServiceError, match="invalid_thread_ts"):
            session.run(diagram(), thread="", view=False)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"provider": "slak"}, "Did you mean 'slack'"),
        ({"provider": "wikipedia"}, "no operation 'start_stream'"),
        ({"chanel": "C"}, "chanel"),
    ],
)
def test_mistakes_are_found_before_the_run(tmp_path: Path, target: dict[str, Any], words: str):
    with dp.Session(tmp_path, llm=scripted()) as session, pytest.raises(InvalidDiagramError, match=words):
        session.dry_run(diagram(**target))


def test_a_dry_run_and_a_stranger_s_diagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is on the list of what the diagram does, and not done without a yes."""
    with dp.Session(tmp_path, llm=Slow("x")) as session:
        rows = [row["what"] for row in session.dry_run(diagram(), thread="1") if row["kind"] == "service"]
        assert rows == ["slack.start_stream", "slack.append_stream", "slack.stop_stream"]
        with pytest.raises(dp.TrustError) as caught:
            session.run(diagram(), thread="1", trust=False, view=False)
        assert any("slack.start_stream" in line for line in caught.value.listing())
