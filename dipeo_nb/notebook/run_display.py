"""The outputs that show one run: its static face, which a saved notebook keeps, and what the views over it are given."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from dipeo_nb.common import lazy
from dipeo_nb.common.loop import submit
from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import StorageError
from dipeo_nb.execution import run_page
from dipeo_nb.execution.run_file import diagram_of
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.snapshots import pages
from dipeo_nb.notebook import kernel, static_view
from dipeo_nb.notebook.prompter import NotebookPrompter
from dipeo_nb.notebook.saved_output import SavedOutput
from dipeo_nb.notebook.timeline import Timeline
from dipeo_nb.runtime import Runtime

if TYPE_CHECKING:
    from dipeo_nb.notebook import run_feed, run_table, view
else:
    view = lazy.module("dipeo_nb.notebook.view")  # the views bring ipywidgets along
    run_feed = lazy.module("dipeo_nb.notebook.run_feed")
    run_table = lazy.module("dipeo_nb.notebook.run_table")

CHECK_S = 0.05
"""Seconds between two looks whether the run has ended."""
AGAIN_S = 1.0
"""Seconds until a record that could not be read is read again."""
FACE_S = 10.0
"""Seconds between two faces of a run that is going on: what a notebook has that is saved, and loses its kernel, meanwhile."""
_LOG = logger(__name__)


class OrderedRun(Protocol):
    """A run that a page has ordered."""

    @property
    def id(self) -> str: ...
    async def _show_below(self, upper: RunDisplay) -> str: ...


class Orders(Protocol):
    """What pages may order; see `run_orders`."""

    def can(self) -> list[str]: ...
    def another(self, given: Mapping[str, Any]) -> OrderedRun: ...
    def inputs(self) -> Mapping[str, Any]: ...
    def copy(self, kind: str, node_id: str | None, of: int | None) -> Mapping[str, Any]: ...
    def compared(self, run_id: str) -> Mapping[str, Any]: ...
    async def others(self) -> Mapping[str, Any]: ...


class RunDisplay:
    """All outputs that show one run.

    Args:
        read: gives the events after a number, in pages, from the record of the run.
        answers: prompts the user in a waiting cell, unless the form of a view works.
        stop: ends the run; None when it cannot be stopped here.
        answer: takes (request id, text).
        finished: whether the run has ended.
        budget: US dollars that it may cost.
        timeless: whether faces leave out what differs between two runs that do the same.
        timeline: reads when nodes worked and waited; not on the loop thread.
        orders: what pages may order besides, such as another run; None: nothing.
    """

    def __init__(
        self,
        runtime: Runtime | None,
        state: RunState,
        diagram: DomainDiagram,
        *,
        read: Callable[[int], AsyncIterator[Iterable[Event]]],
        finished: Callable[[], bool],
        stop: Callable[[], None] | None = None,
        answer: Callable[[str, str], None] | None = None,
        answers: NotebookPrompter | None = None,
        budget: float | None = None,
        timeless: bool = False,
        timeline: Callable[[], Timeline | None] = lambda: None,
        orders: Orders | None = None,
    ) -> None:
        self._runtime, self._state, self._diagram = runtime, state, diagram
        self._read, self._finished, self._answers = read, finished, answers
        self._stop, self._answer = stop, answer
        self._budget, self._timeless, self._timeline = budget, timeless, timeline
        self._orders = orders
        self._outputs: list[SavedOutput] = []
        self._upper: RunDisplay | None = None
        """The display that this one stands below, in the same outputs."""
        self._below: list[RunDisplay] = []
        self._feed: run_feed.RunFeed | None = None
        self._following: concurrent.futures.Future[None] | None = None
        self._own: view.Views | None = None

    @property
    def _views(self) -> view.Views:
        """The views to which this one belongs: those of the kernel, or its own."""
        return self._own or view.views()

    def widget(self) -> view.PageWidget:
        """A widget that shows the run and nothing else, for front ends that close every widget off from the page (marimo)."""
        if self._own is None:
            self._own = view.Views()
            self._feed = self._new_feed(live=not self._finished())
            self._own.widget.shows = self._feed.id
            if self._feed.live:
                self._begin()
            else:
                submit(self._add())
        return self._own.widget

    def show(self) -> concurrent.futures.Future[None] | None:
        """Display the run in the running cell.

        Returns:
            Done when every output shows the end of the run; None when it had ended before.
        """
        if self._answers is not None:
            self._answers.view_since = time.monotonic()
        ended = self._finished()
        if not kernel.unattended() and self._feed is None:
            if not ended and not run_table.has_room():
                return submit(self._in_table(run_table.table_here()))
            self._feed = self._new_feed(live=not ended)  # not asked again: it may end in this moment
            if not ended:
                run_table.count(self._finished)
        face, metadata = self._face(self._state, png=ended), dict[str, Any]()
        if self._feed is not None and not ended and kernel.displays_widgets_alone():
            data, metadata = self._views.displayed(self._feed.id)  # until the run has ended
            face = data | face
        self._outputs.append(SavedOutput(face, metadata))
        if ended:
            if self._feed is not None:
                submit(self._add())
            return None
        if self._following is None or self._following.done():
            return self._begin()
        return self._following

    def _begin(self) -> concurrent.futures.Future[None]:
        """Follow the run; done when every output shows its end."""
        self._following = submit(self._follow())
        self._following.add_done_callback(_report)
        return self._following

    def inside(self) -> str:
        """The face of the run in HTML, over which pages put its view, for what shows it among other things."""
        if not kernel.unattended():
            ended = self._finished()
            if self._feed is None:
                self._feed = self._new_feed(live=not ended)
                if not ended:
                    self._begin()
            if ended:
                submit(self._add())
        return self._face(self._state, png=False)["text/html"]

    async def show_below(self, upper: RunDisplay) -> str:
        """Display the run below another one, in the outputs of that; returns the id under which pages see it. On the loop thread."""
        if self._answers is not None:
            self._answers.view_since = time.monotonic()
        self._upper = upper
        self._feed = self._new_feed(live=True)
        upper._below.append(self)
        await self._draw(self._state.snapshot(), final=False)
        self._begin()
        return self._feed.id

    async def _in_table(self, table: run_table.RunTable) -> None:
        """Be a row of a table until the run has ended."""
        table.add(run_table.TableRow(self._state, self._finished, time.time()))
        view.views().add(table)
        while not self._finished():  # noqa: ASYNC110 - it ends on the loop thread, one of many
            await asyncio.sleep(CHECK_S)
        if table.ended:
            table.draw()

    def _new_feed(self, *, live: bool) -> run_feed.RunFeed:
        return run_feed.RunFeed(
            self._views.new_id(),
            self._state,
            self._diagram,
            read=self._read,
            stop=self._stop or (lambda: None),
            answer=self._answer or (lambda request, text: None),
            can=self._can,
            order=self._order,
            budget=self._budget,
            face=lambda: asyncio.to_thread(self._saved),
            live=live,
            reached=self._reached,
        )

    def _can(self) -> list[str]:
        """What the user may do in a view now."""
        can = ["since", "body", *(self._orders.can() if self._orders is not None else ())]
        if self._finished():
            return can
        if self._stop is not None:
            can.append("stop")
        answers = self._answers
        elsewhere = answers is not None and answers.waiting_cells > 0 and not answers.form_works
        if self._answer is not None and not elsewhere:  # else the waiting cell asks
            can.append("answer")
        return can

    def _reached(self) -> None:
        if self._answers is not None:
            self._answers.form_got_through()

    async def _order(self, order: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Carry out an order of a page; None when there is no such thing here.

        Raises:
            DipeoError: it is refused.
        """
        orders, runtime = self._orders, self._runtime
        if order.get("what") == "child":
            return await self._child(str(order.get("run")))
        if orders is None or runtime is None or order.get("what") not in (*orders.can(), "runs", "inputs"):
            return None
        match order:
            case {"what": "fork" | "alone" | "again" as kind, **given}:
                run = await asyncio.to_thread(orders.another, {**given, "kind": kind})
                return {"shows": await run._show_below(self), "run_id": run.id}
            case {"what": "note", "first": int(first), "last": int(last), "text": str(text)}:
                await runtime.note(self._state.run_id, first, last, text)
                if self._feed is not None and (part := await self._feed.later()):
                    self._views.tell(self._feed.id, part)
                return {}
            case {"what": "copy", "as": str(kind)}:
                return await asyncio.to_thread(orders.copy, kind, order.get("node"), order.get("of"))
            case {"what": "inputs"}:
                return await asyncio.to_thread(orders.inputs)
            case {"what": "runs"}:
                return await orders.others()
            case {"what": "compare", "run": str(run_id)}:
                return await asyncio.to_thread(orders.compared, run_id)
            case _:
                return None

    async def _child(self, run_id: str) -> Mapping[str, Any] | None:
        """The record of a run of a sub-diagram, as a page takes it."""
        if self._runtime is None:
            return None
        events = [event async for page in pages(self._runtime.services.store, run_id) for event in page]
        state = RunState.fold(events)
        diagram = diagram_of(state)
        if diagram is None:
            return None
        name, live = state.diagram, not state.finished
        head = run_page.head_of(run_id, diagram, name=name, model=state.model, live=live, can=[])
        return {"head": head, "events": list(run_feed.joined(events))}

    async def _add(self) -> None:
        assert self._feed is not None
        if self._feed.last == 0:
            self._feed.last = self._state.events
        self._views.add(self._feed)

    async def _follow(self) -> None:
        """Keep the outputs and the views up to date until the run has ended. On the loop thread."""
        feed, runtime = self._feed, self._runtime
        assert runtime is not None
        await runtime.initialize()
        bus = runtime.services.bus
        # Subscribed first: an event that is stored meanwhile comes twice rather than never, and the feed takes each number once.
        subscription = None if feed is None else bus.subscribe(feed.see, run_id=self._state.run_id)
        try:
            if feed is not None:
                await self._read_into(feed)
                self._views.add(feed)
            drawn_at, drawn = time.monotonic(), 0
            while not self._finished():
                await asyncio.sleep(CHECK_S)
                if (
                    time.monotonic() - drawn_at >= FACE_S
                    and self._state.events != drawn
                    and not kernel.displays_widgets_alone()
                ):
                    drawn_at, drawn = time.monotonic(), self._state.events
                    await self._draw(self._state.snapshot(), final=False)
            if feed is not None:
                await self._read_into(feed)  # what was not published, as the end of a run that is not recorded
        finally:
            if subscription is not None:
                bus.unsubscribe(subscription)
            if feed is not None:
                feed.end()
            await self._draw(self._state, final=True)

    async def _read_into(self, feed: run_feed.RunFeed) -> None:
        """Give a feed what is recorded and it has not seen. While the run continues, a store that cannot be read is tried again."""
        while True:
            try:
                async for page in self._read(feed.seen):
                    for event in page:
                        feed.see(event)
            except StorageError as error:
                if self._finished():
                    raise
                _LOG.warning("The record of run %s cannot be read now: %s", self._state.run_id, error)
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def _draw(self, state: RunState, *, final: bool) -> None:
        if self._upper is not None:
            upper = self._upper
            await upper._draw(upper._state if upper._finished() else upper._state.snapshot(), final=upper._finished())
            return
        if not self._outputs:
            return
        face = await asyncio.to_thread(self._face, state, png=final)
        for output in list(self._outputs):
            output.update(face, final=final)

    def _saved(self) -> dict[str, Any]:
        """What a notebook holds of the outputs that show the run, now that it has ended."""
        return self._face(self._state, png=True) if self._upper is None else self._upper._saved()

    def _face(self, state: RunState, *, png: bool) -> dict[str, Any]:
        """What a notebook holds of the run as it is now."""
        ended = self._finished()
        if self._timeless:
            state = static_view.timeless(state)
        when = self._timeline() if ended and not self._timeless else None
        data = static_view.bundle(state, self._diagram, png=png, when=when)
        if self._feed is not None:
            data["text/html"] = self._marked(data["text/html"])
        return data

    def _marked(self, html: str) -> str:
        """The face of a run in HTML, over which pages put its view, and behind it those of the runs below."""
        assert self._feed is not None
        ended = self._finished()
        whole = html + ("" if ended else static_view.unfinished(self._state.run_id))
        below = "".join(other._marked(static_view.short_html(other._state.snapshot())) for other in self._below)
        return self._views.mark(self._feed.id, whole, final=ended) + below


def _report(following: concurrent.futures.Future[None]) -> None:
    """Log the failure of a display; it must not break the run that it shows."""
    if not following.cancelled() and (error := following.exception()) is not None:
        _LOG.error("The view of a run ended early: %s", error, exc_info=error)
