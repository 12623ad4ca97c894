"""What pages are told of runs, chats and tables: every event once, in order, within one budget for all of them."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import count
from types import SimpleNamespace
from typing import Any

import comm
import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.diagram.document import load
from dipeo_nb.domain.chat import StreamEvent
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError, UserError
from dipeo_nb.execution import run_page
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import chat_feed, run_display, view
from dipeo_nb.notebook.chat_feed import ChatFeed
from dipeo_nb.notebook.run_feed import RunFeed, joined
from dipeo_nb.notebook.streaming_answer import StreamingAnswer
from tests.support.row_diagrams import HOSTILE_NAME


class Wire(comm.DummyComm):
    """Stands for the connection to the pages: keeps what goes out."""

    sent: list[tuple[float, dict[str, Any]]] = []  # noqa: RUF012 - one kernel, one wire

    def publish_msg(self, msg_type: str, data: Any = None, *args: Any, **kwargs: Any) -> None:
        if (data or {}).get("method") == "custom":
            Wire.sent.append((time.monotonic(), data["content"]))


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> Iterator[view.Views]:
    monkeypatch.setattr(comm, "create_comm", Wire)
    Wire.sent = []
    made = view.Views()
    yield made
    made.widget.close()


class Story:
    """A run told event by event, without an engine; its record is the list of its events."""

    def __init__(self) -> None:
        self.diagram = load(HOSTILE_NAME).model
        self.ids = {n.label: n.id for n in self.diagram.nodes}
        self.state = RunState.fresh("exec_1", "Two <b>nodes</b>", {n.id: n.label for n in self.diagram.nodes})
        self.events: list[Event] = []
        self.at = 1000.0
        self.stopped = 0
        self.answers: list[tuple[str, str]] = []
        self.feeds: list[RunFeed] = []

    def feed(self, subject_id: str = "v1") -> RunFeed:
        async def read(after: int) -> AsyncIterator[Iterable[Event]]:
            for start in range(after, len(self.events), 1000):
                yield self.events[start : start + 1000]

        async def face() -> Mapping[str, Any]:
            return {"text/plain": "the end"}

        async def order(order: Mapping[str, Any]) -> Mapping[str, Any] | None:
            if order["what"] == "fork":
                raise UserError("No.", hint="Not here.")
            return {"head": {"run_id": order["run"]}, "events": []} if order["run"] == "exec_2" else None

        def stop() -> None:
            self.stopped += 1

        made = RunFeed(
            subject_id, self.state, self.diagram, read=read, stop=stop, answer=lambda *a: self.answers.append(a),
            can=lambda: ["stop", "since"], face=face, order=order, live=True,
        )  # fmt: skip
        self.feeds.append(made)
        return made

    def tell(self, kind: EventType, node: str | None = None, /, **payload: Any) -> Event:
        event = Event(len(self.events) + 1, kind, "exec_1", self.at, node and self.ids[node], payload)
        self.events.append(event)
        self.state.apply(event)
        for feed in self.feeds:
            feed.see(event)
        return event

    def say(self, text: str, node: str = "Writer", **more: Any) -> Event:
        return self.tell(EventType.NODE_OUTPUT, node, kind="text", text=text, is_partial=True, **more)


@pytest.fixture
def story() -> Story:
    made = Story()
    made.tell(EventType.EXECUTION_STARTED, diagram="Two", labels={}, model="local")
    made.tell(EventType.NODE_STARTED, "Writer", run=1)
    return made


async def add_with_its_parts_forgotten(views: view.Views, feed: RunFeed) -> None:
    """Let pages see a feed; what they ask for then has to be read from the record."""
    views.add(feed)
    await asyncio.sleep(0.2)
    feed._recent.clear()


def rows_of(part: Mapping[str, Any] | None) -> list[list[Any]]:
    assert part is not None
    return part["rows"]


def folded(rows: Iterable[list[Any]]) -> RunState:
    return RunState.fold(Event(r[0], EventType(r[1]), "exec_1", r[2], r[3], r[4]) for r in rows)


def pieces(rows: Iterable[list[Any]]) -> int:
    return sum(row[4].get("pieces", 1) for row in rows)


def test_every_event_is_told_once_and_pieces_of_a_text_are_one_row(story: Story):
    """The rows fold to the state of the run; each names the last event it stands for, and they stand for all."""
    feed = story.feed()
    for event in story.events:
        feed.see(event)
    for n in range(50):
        story.say(f"w{n} ")
        if n == 20:
            story.tell(EventType.NODE_STARTED, "Start", run=1)
    part = feed.part(100_000)
    rows = rows_of(part)
    assert len(rows) == 4
    assert pieces(rows) == len(story.events)
    assert folded(rows).nodes[story.ids["Writer"]].text == "".join(f"w{n} " for n in range(50))
    assert part is not None
    assert (part["after"], part["last"]) == (0, len(story.events))
    assert feed.part(100_000) is None
    story.say("more")
    again = feed.part(100_000)
    assert again is not None
    assert (again["after"], [r[4]["text"] for r in again["rows"]]) == (part["last"], ["more"])


def test_pieces_are_not_joined_across_what_changes_their_meaning(story: Story):
    """A restart, another kind, another run of the node, and a pause begin a row of their own."""
    story.say("a")
    story.say("b", restart=True)
    story.say("c")
    story.tell(EventType.NODE_OUTPUT, "Writer", kind="reasoning", text="d", is_partial=True)
    story.say("e")
    story.at += 1
    story.say("f")
    story.tell(EventType.NODE_COMPLETED, "Writer", run=1, output="x", meta={}, duration_ms=1)
    story.say("g")
    rows = list(joined(story.events))
    assert [r[4]["text"] for r in rows if "text" in r[4]] == ["a", "bc", "d", "e", "f", "g"]
    assert folded(rows).nodes[story.ids["Writer"]].text == story.state.nodes[story.ids["Writer"]].text
    assert [r[0] for r in rows] == sorted(r[0] for r in rows)


def test_events_that_come_early_wait_for_those_before_them(story: Story):
    """The bus may be ahead of the record that is read meanwhile: nothing is lost, doubled or out of order."""
    for n in range(10):
        story.tell(EventType.EXECUTION_LOG, message=f"line {n}")
    feed = story.feed()
    first, rest = story.events[:6], story.events[6:]
    for event in (rest[1], rest[0], *first, *story.events):
        feed.see(event)
    assert [row[0] for row in rows_of(feed.part(10**6))] == [event.seq for event in story.events]


@pytest.mark.parametrize("after", [0, 3, 500, 1999])
def test_a_page_that_comes_later_is_told_the_same(story: Story, after: int):
    """What is told again begins after what the page has, and ends with what the others have."""
    feed = story.feed()
    for event in story.events:
        feed.see(event)
    for n in range(2500):
        story.say(f"word {n} ") if n % 3 else story.tell(EventType.EXECUTION_LOG, message="x" * 300)
        story.at += 0.02
    feed.part(10**9)
    story.say("not told yet")

    async def told() -> list[dict[str, Any]]:
        return [part async for part in feed.given(after)]

    parts = asyncio.run(told())
    rows = [row for part in parts for row in part["rows"]]
    assert parts[0]["after"] == after
    assert parts[-1]["last"] == feed.last == len(story.events) - 1
    assert pieces(rows) == feed.last - after
    assert all(len(json.dumps(part)) < view.REPLY_BYTES + 2_000 for part in parts)
    if after == 0:
        story.events.pop()
        assert folded(rows).nodes[story.ids["Writer"]].text == RunState.fold(story.events).nodes[story.ids["Writer"]].text


def test_a_page_that_comes_later_catches_up_with_a_run_that_never_pauses(story: Story):
    """However much is told while the record is read, there is an end to it, and nothing is told twice or left out."""
    feed = story.feed()
    for event in story.events:
        feed.see(event)
    read, reads = feed._read, count()

    async def read_slowly(after: int) -> AsyncIterator[Iterable[Event]]:
        assert next(reads) < 20, "it goes on for ever"
        async for page in read(after):
            story.say("told while that was read ")
            feed.part(10**9)
            yield page

    feed._read = read_slowly
    for n in range(3000):
        story.say(f"word {n} ")
        story.at += 0.02
    feed.part(10**9)

    async def told(after: int) -> list[list[Any]]:
        return [row async for part in feed.given(after) for row in part["rows"]]

    for after in (0, 1500):
        rows = asyncio.run(told(after))
        assert pieces(rows) == feed.last - after
        assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    assert feed.last == len(story.events)


def test_long_values_come_cut_and_whole_when_asked_for(story: Story):
    """A value beyond the limit is its beginning and its length; the page can ask for the event."""
    feed = story.feed()
    story.tell(EventType.EXECUTION_LOG, message="é" * 50_000)
    for event in story.events:
        feed.see(event)
    cut = rows_of(feed.part(10**9))[-1][4]["message"]
    assert cut == {"$cut": 50_000, "text": "é" * run_page.VALUE_LIMIT}
    answer = asyncio.run(feed.asked({"type": "body", "seq": 3}))
    assert answer is not None
    assert answer["rows"][0][4]["message"] == "é" * 50_000
    assert asyncio.run(feed.asked({"type": "body", "seq": 99})) is None


def test_what_a_page_may_ask(story: Story):
    """Stop and answers arrive; the face of the end only after it; anything else is ignored."""
    feed = story.feed()
    strange = ({"type": "answer", "id": 1, "text": None}, {"type": "eval", "code": "1"}, {}, {"type": "face"})
    for message in ({"type": "stop"}, {"type": "answer", "id": "q1", "text": "Ada"}, *strange):
        assert asyncio.run(feed.asked(message)) is None
    assert (story.stopped, story.answers) == (1, [("q1", "Ada")])
    for run, found in (("exec_2", {"head": {"run_id": "exec_2"}, "events": []}), ("exec_3", None)):
        answer = asyncio.run(feed.asked({"type": "order", "order": {"what": "child", "run": run}, "request": 7}))
        assert answer == {"type": "order", "request": 7, "found": found}
    refused = asyncio.run(feed.asked({"type": "order", "order": {"what": "fork"}, "request": 8}))
    assert refused == {"type": "order", "request": 8, "error": "No. Not here."}
    feed.end()
    assert (feed.part(10**6) or {})["live"] is False
    assert asyncio.run(feed.asked({"type": "face"})) == {"type": "face", "data": {"text/plain": "the end"}, "metadata": {}}


@pytest.mark.slow
def test_many_views_share_one_budget(views: view.Views):
    """Ten runs that say more than the budget allows: ten messages and 300 KB in any second, nothing lost, nobody starved."""
    stories = [Story() for _ in range(10)]
    feeds = [story.feed(f"v{n}") for n, story in enumerate(stories)]

    async def run() -> None:
        for story, feed in zip(stories, feeds, strict=True):
            story.tell(EventType.EXECUTION_STARTED, diagram="x", labels={})
            story.tell(EventType.NODE_STARTED, "Writer", run=1)
            views.add(feed)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for story in stories:
                story.say("word " * 400)
            await asyncio.sleep(0.01)
        for feed in feeds:
            feed.end()
        while any(feed.live for feed in feeds):
            await asyncio.sleep(0.05)

    run_sync(run())
    told: dict[str, list[list[Any]]] = {f"v{n}": [] for n in range(10)}
    for _, message in Wire.sent:
        for part in message["parts"]:
            told[part["id"]] += part.get("rows", [])
    for n, story in enumerate(stories):
        assert pieces(told[f"v{n}"]) == len(story.events)
    sizes = [(at, len(json.dumps(message))) for at, message in Wire.sent]
    for at, _ in sizes:
        second = [size for other, size in sizes if at <= other < at + 0.95]
        assert len(second) <= 11
        assert sum(second) <= view.BYTES_PER_S * 1.3, "one row may be larger than the room that is left"
    early = {part["id"] for at, message in Wire.sent if at < sizes[0][0] + 2.5 for part in message["parts"] if part.get("rows")}
    assert len(early) == 10


def test_a_lost_message_is_made_up_for(views: view.Views, story: Story):
    """Asked for what follows a number, the kernel answers that page alone, up to what all pages have been told."""
    feed = story.feed()
    for event in story.events:
        feed.see(event)

    async def ask() -> None:
        views.add(feed)
        await asyncio.sleep(0.2)
        Wire.sent.clear()
        views.widget._handle_custom_msg({"type": "since", "of": "v1", "seq": 1, "page": "p1"}, [])
        views.widget._handle_custom_msg({"type": "since", "of": "no such", "seq": 0, "page": "p1"}, [])
        await asyncio.sleep(0.5)

    run_sync(ask())
    replies = [message for _, message in Wire.sent if message.get("to") == "p1"]
    (unknown,) = [reply for reply in replies if reply["id"] == "no such"]
    assert unknown["unknown"] is True
    first, last = [reply for reply in replies if reply["id"] == "v1"]
    assert [row[0] for row in first["rows"]] == [2]
    assert first["head"]["kind"] == "run"
    assert (last["done"], last["live"], last["last"]) == (True, True, 2)
    feed.end()


def test_a_page_may_ask_before_a_subject_is_there(views: view.Views, story: Story):
    """What is displayed before its record is open: the page gets its answer when it is, one for each page."""
    subject_id = views.new_id()

    async def ask() -> None:
        for name in ("p1", "p2", "p1"):
            views.widget._handle_custom_msg({"type": "since", "of": subject_id, "seq": 0, "page": name}, [])
        await asyncio.sleep(0.2)
        assert Wire.sent == []
        feed = story.feed(subject_id)
        feed.end()
        views.add(feed)
        await asyncio.sleep(0.2)

    run_sync(ask())
    replies = [message for _, message in Wire.sent if message["type"] == "reply"]
    assert [(message["to"], message["id"], message["done"]) for message in replies] == [
        ("p1", subject_id, True),
        ("p2", subject_id, True),
    ]


def test_a_record_that_cannot_be_read_at_this_moment_is_asked_for_again(views: view.Views, story: Story):
    """The page is not told that there is no such run, which would end its view, and has its answer when it asks once more."""
    feed, fails = story.feed(), iter([True, True])
    for event in story.events:
        feed.see(event)
    read = feed._read

    async def away(after: int) -> AsyncIterator[Iterable[Event]]:
        if next(fails, False):
            raise StorageError("The database is locked.")
        async for page in read(after):
            yield page

    feed._read = away

    async def ask() -> None:
        await add_with_its_parts_forgotten(views, feed)
        for message in ({"type": "since", "seq": 0}, {"type": "body", "seq": 1}, {"type": "since", "seq": 0}):
            views.widget._handle_custom_msg({**message, "of": "v1", "page": "p1"}, [])
            await asyncio.sleep(0.2)

    run_sync(ask())
    replies = [message for _, message in Wire.sent if message.get("to") == "p1"]
    assert [reply.get("done") for reply in replies] == [False, True]
    feed.end()


def test_a_view_of_a_run_whose_record_cannot_be_read_at_this_moment_comes_later(story: Story, monkeypatch: pytest.MonkeyPatch):
    """A store may be away for a moment; what has ended is not tried again."""
    monkeypatch.setattr(run_display, "AGAIN_S", 0.0)
    feed, fails, going = story.feed(), iter([True, True]), [True]

    async def away(after: int) -> AsyncIterator[Iterable[Event]]:
        yield story.events[after : after + 1]
        if not going or next(fails, False):
            raise StorageError("The server is away.")
        yield story.events[after + 1 :]

    display = run_display.RunDisplay(None, story.state, story.diagram, read=away, finished=lambda: not going)
    run_sync(display._read_into(feed))
    assert feed.seen == len(story.events)
    going.clear()
    with pytest.raises(StorageError):
        run_sync(display._read_into(feed))


def test_a_page_that_asks_again_while_it_is_answered_is_told_once(views: view.Views, story: Story):
    """It does so where the record is slow; each further answer would make it slower."""
    feed, ready = story.feed(), asyncio.Event()
    for event in story.events:
        feed.see(event)
    read = feed._read

    async def slowly(after: int) -> AsyncIterator[Iterable[Event]]:
        await ready.wait()
        async for page in read(after):
            yield page

    feed._read = slowly

    async def ask() -> None:
        await add_with_its_parts_forgotten(views, feed)
        for page in ("p1", "p1", "p2", "p1"):
            views.widget._handle_custom_msg({"type": "since", "of": "v1", "seq": 0, "page": page}, [])
        await asyncio.sleep(0.2)
        ready.set()
        await asyncio.sleep(0.5)
        views.widget._handle_custom_msg({"type": "since", "of": "v1", "seq": 1, "page": "p1"}, [])
        await asyncio.sleep(0.2)

    run_sync(ask())
    replies = [message for _, message in Wire.sent if message["type"] == "reply"]
    assert [reply["to"] for reply in replies if reply["done"]] == ["p1", "p2", "p1"]
    feed.end()


def test_a_subject_that_was_dropped_can_come_back(views: view.Views, monkeypatch: pytest.MonkeyPatch):
    """A run that is displayed once more; pages no longer ask for what was dropped, so they hear of it."""
    monkeypatch.setattr(view, "KEPT", 1)
    feeds = [Story().feed(views.new_id()) for _ in range(2)]

    async def add() -> None:
        for feed in (*feeds, feeds[0]):
            feed.live = False
            views.add(feed)

    run_sync(add())
    assert [(message["type"], message["id"]) for _, message in Wire.sent if message["type"] != "tick"] == [
        ("dropped", "v1"), ("again", "v1"), ("dropped", "v2"),
    ]  # fmt: skip


def test_the_oldest_that_has_ended_is_dropped(views: view.Views, monkeypatch: pytest.MonkeyPatch):
    """A kernel keeps a number of subjects; pages are told which one went, and those at work stay."""
    monkeypatch.setattr(view, "KEPT", 3)

    async def add() -> None:
        for n in range(5):
            feed = Story().feed(f"v{n}")
            feed.live = n == 0
            views.add(feed)
        views._subjects["v0"].live = False

    run_sync(add())
    assert [message["id"] for _, message in Wire.sent if message["type"] == "dropped"] == ["v1", "v2"]


def test_an_answer_is_told_by_appending():
    """New text alone is sent; what else changes brings the whole; the end is whole and says so."""
    seen = StreamingAnswer("test:m")
    feed = ChatFeed("v1", seen)
    for event in (StreamEvent("start", data={}), StreamEvent("text", "One ")):
        seen.take(event)
    feed.changed = True
    first = feed.part(10**6)
    assert first is not None
    assert first["fresh"] == {"lines": [], "text": "One ", "foot": "test:m · …"}
    seen.take(StreamEvent("text", "two\ud800"))
    feed.changed = True
    assert feed.part(10**6) == {"after": 1, "last": 2, "rows": "two?"}
    assert feed.part(10**6) is None
    seen.take(StreamEvent("stream_restarted", data={"reason": "lost"}))
    feed.changed = True
    fresh = feed.part(10**6)
    assert fresh is not None
    assert fresh["fresh"] == {"lines": [], "text": "", "foot": "test:m · starting again: lost"}
    feed.end(seen.answer(stop_reason="enough"))
    end = feed.part(10**6)
    assert end is not None
    assert end["live"] is False
    assert "stopped: enough" in end["fresh"]["foot"]
    assert feed.part(10**6) is None


def test_a_page_that_comes_in_the_middle_of_an_answer_and_the_others_see_the_same():
    """What came since the last message is given to the page that asks; then all are given the whole, and nothing is lost or doubled."""
    seen = StreamingAnswer("test:m")
    feed = ChatFeed("v1", seen)

    async def given() -> dict[str, Any]:
        (part,) = [part async for part in feed.given(0)]
        return part

    early = asyncio.run(given())
    assert early["fresh"] == {"lines": [], "text": "", "foot": "test:m · …"}, "before anything has come"
    for word in ("One ", "two "):
        seen.take(StreamEvent("text", word))
        feed.changed = True
        if word == "One ":
            feed.part(10**6)
    late = asyncio.run(given())
    assert (late["last"], late["fresh"]["text"]) == (1, "One two ")
    both = feed.part(10**6)
    assert both is not None
    assert (both["last"], both["fresh"]["text"]) == (2, "One two ")
    assert asyncio.run(given())["fresh"]["text"] == "One two "
    seen.take(StreamEvent("text", "three"))
    feed.changed = True
    assert feed.part(10**6) == {"after": 2, "last": 3, "rows": "three"}


def test_an_answer_is_given_to_pages_that_cannot_ask(monkeypatch: pytest.MonkeyPatch):
    """The question of a page may wait until the cell has ended: until one comes, all of the answer is sent, with what a view needs."""
    monkeypatch.setattr(chat_feed, "WHOLE_S", 0.0)
    seen = StreamingAnswer("test:m")
    feed = ChatFeed("v1", seen)
    first = feed.part(10**6)
    assert first is not None
    assert (first["head"]["kind"], first["live"], first["fresh"]["text"]) == ("chat", True, "")
    seen.take(StreamEvent("text", "One "))
    feed.changed = True
    for _ in range(2):
        again = feed.part(10**6)
        assert again is not None
        assert (again["head"]["kind"], again["fresh"]["text"]) == ("chat", "One ")

    async def ask() -> None:
        async for _ in feed.given(0):
            pass

    asyncio.run(ask())
    assert feed.part(10**6) is None


def test_an_answer_that_starts_again_between_two_messages_is_told_whole():
    """Also when its new text is longer than what the pages have."""
    seen = StreamingAnswer("test:m")
    feed = ChatFeed("v1", seen)
    seen.take(StreamEvent("text", "Wrong "))
    feed.changed = True
    feed.part(10**6)
    for event in (StreamEvent("stream_restarted", data={}), StreamEvent("text", "Right "), StreamEvent("text", "now.")):
        seen.take(event)
    feed.changed = True
    part = feed.part(10**6)
    assert part is not None
    assert part["fresh"]["text"] == "Right now."


def test_the_head_is_escaped(story: Story):
    """The markup that a page gets has a group per node, and no markup of the diagram's."""
    head = story.feed().head()
    assert all(f'data-node="{i}"' in head["svg"] for i in story.ids.values())
    assert "<b>" not in head["svg"]
    assert "<script" not in head["svg"]


def test_page_files_load_nothing():
    """Scripts and styles are files of the package and name no address; what a page says to the kernel goes by message."""
    script, style = run_page.script("widget.js"), view.PageWidget._css
    assert not re.search(r"//cdn|@import|url\((?!data:)", script + style)
    assert "insertAdjacentHTML" not in script
    assert "save_changes" not in script


def test_a_front_end_that_displays_widgets_itself(views: view.Views):
    """VS Code and Colab load a widget only where it is displayed; there it shows what it is displayed for."""
    data, _ = views.displayed("v7")
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == views.widget.model_id
    assert views.widget.shows == "v7"


def test_colab_is_told_where_its_widgets_come_from(views: view.Views, monkeypatch: pytest.MonkeyPatch):
    """In the metadata of the output; without them Colab shows nothing."""
    where = {"colab": {"custom_widget_manager": {"url": "https://widgets"}}}
    colab = SimpleNamespace(
        enable_custom_widget_manager=lambda: None, _widgets=SimpleNamespace(_installed_url="https://widgets")
    )
    monkeypatch.setitem(sys.modules, "google.colab.output", colab)
    data, metadata = views.displayed("v7")
    assert set(metadata) <= set(data)
    assert list(metadata.values()) == [where]
