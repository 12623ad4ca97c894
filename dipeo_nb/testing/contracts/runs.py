"""What every run store promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore, Snapshot
from dipeo_nb.errors import StorageError
from dipeo_nb.testing.contracts.events_alike import texts_of, without_text
from dipeo_nb.testing.contracts.promises import Contract, promise, refusal, same, that


def event(seq: int, kind: T = T.NODE_STARTED, run: str = "r1", **payload: Any) -> Event:
    """An event of the suite's, at second 1000 + seq."""
    return Event(seq, kind, run, 1000.0 + seq, "node_1" if kind is T.NODE_STARTED else None, payload)


def started(run: str = "r1", **payload: Any) -> Event:
    """The first event of a run."""
    return event(1, T.EXECUTION_STARTED, run, **{"diagram": "d", **payload})


def ended(seq: int, run: str = "r1", **payload: Any) -> Event:
    """The last event of a run."""
    return event(seq, T.EXECUTION_COMPLETED, run, status="completed", **payload)


def piece(seq: int, text: str, node: str = "n", run: str = "r1", **payload: Any) -> Event:
    """A piece of streamed text, at a time that no short decimal number is."""
    at = 1_700_000_000.1 + seq / 3
    return Event(seq, T.NODE_OUTPUT, run, at, node, {"kind": "text", "text": text, "is_partial": True, "run": 1, **payload})


def snapshot(seq: int, run: str = "r1", kind: str = "state", version: int = 1, **content: Any) -> Snapshot:
    """A snapshot of the suite's."""
    return Snapshot(run, kind, version, seq, content)


BROKEN: dict[str, tuple[Sequence[Event], str]] = {
    "no beginning": ([event(2)], "begins with execution_started"),
    "gap": ([started(), event(3)], "event 3 comes where 2 is due"),
    "repeat": ([started(), event(2), event(2)], "event 2 comes where 3 is due"),
    "two runs": ([started(), event(2, run="r2")], "different runs"),
    "after the end": ([started(), ended(2), event(3)], "final event"),
}
"""Name → (a batch, what its error says)."""


class _Unreadable:
    """Fails on any access."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"there is no {name}")


def _cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


UNSTORABLE: dict[str, Callable[[], Any]] = {
    "an object": object,
    "an object that fails": _Unreadable,
    "a cycle": _cyclic,
    "half a pair of surrogates": lambda: "\ud83d",
    "a number of 5,000 digits": lambda: 10**5000,
}


class RunStoreContract(Contract):
    """The promises of `RunStore`."""

    port: ClassVar[type] = RunStore

    @promise
    async def test_events_come_back_in_order(self, store: RunStore) -> None:
        """What was appended is read back, in order, with its types and its own times."""
        batch = [started(), event(2, inputs={"x": ["n", 1]}), event(3), ended(4)]
        await store.append(batch[:2])
        await store.append(batch[2:])
        same(await store.events("r1"), batch, "the events of two batches")
        same((await store.runs())[0].started_at, 1001.0, "the time at which a run began")

    @promise
    async def test_reading_from_a_place_and_a_few(self, store: RunStore) -> None:
        """`after` and `limit` cut without gap."""
        await store.append([started(), *(event(n) for n in range(2, 11))])
        same([e.seq for e in await store.events("r1", after=4, limit=3)], [5, 6, 7], "three events after the fourth")
        same(await store.events("r1", after=10), [], "events after the last")
        same(await store.events("unknown"), [], "events of an unknown run")

    @promise
    async def test_scanning_in_pages(self, store: RunStore) -> None:
        """`scan` gives what `events` gives, in pages without gap, and ends, also while more is appended all the time."""
        await store.append([started(), *(event(n) for n in range(2, 8))])
        pages = [[e.seq for e in page] async for page in store.scan("r1", after=1, page=2)]
        same(pages, [[2, 3], [4, 5], [6, 7]], "the pages after the first event")
        same([page async for page in store.scan("unknown")], [], "the pages of an unknown run")
        seen, following = list[int](), 8
        async for page in store.scan("r1", page=2):
            seen += [e.seq for e in page]
            await store.append([event(following), event(following + 1)])
            following += 2
            same(len(seen) < 20, True, "whether it ends when it takes longer than what it reads")
        same(seen, list(range(1, len(seen) + 1)), "the numbers of events of a run that continues")
        same(len(seen) >= 7, True, "whether all are there that were when it began")

    @promise
    async def test_streamed_text(self, store: RunStore) -> None:
        """Pieces of text that are appended together come back one by one, exactly as they were, from whatever place on."""
        texts = ["Hel", "lo", "", " \u05e9 \U0001f600 \\", "\n", "x" * 70_000, *(f"w{n} " for n in range(50))]
        pieces = [piece(2 + n, text) for n, text in enumerate(texts)]
        pieces.append(piece(58, "a", node="m", call_id="c"))
        pieces.append(piece(59, "b", kind="reasoning"))
        pieces.append(piece(60, "", restart=True)._replace(occurred_at=pieces[-1].occurred_at - 5))
        batch = [started(), *pieces, event(61), piece(62, "alone"), ended(63)]
        await store.append(batch[:30])
        await store.append(batch[30:])
        same(await store.events("r1"), batch, "the events")
        same(list((await store.events("r1"))[1].payload), list(pieces[0].payload), "the order of the fields of a piece")
        for after in range(64):
            same(await store.events("r1", after=after), batch[after:], f"the events after {after}")
            same(await store.events("r1", after=after, limit=3), batch[after : after + 3], f"three events after {after}")
        found = [e async for page in store.scan("r1", page=7) for e in page]
        same(found, batch, "the events in pages")

    @promise
    async def test_condensedtexts_of(self, store: RunStore) -> None:
        """Whatever a store does when it is asked to condense a run that has ended: every event stays, and so does every text, on its
        side of other events and of a snapshot; a run that has not ended is left alone."""
        long = "x" * 20_000
        again = [
            piece(8, "hm ", kind="reasoning"),
            piece(9, "", restart=True),
            piece(10, "again "),
            piece(11, "and ", pieces=3),
        ]
        batches = [
            [started(), *(piece(seq, f"{seq} ", "ab"[seq % 2]) for seq in range(2, 8)), *again],
            *([piece(seq, f"{seq} {long}")] for seq in range(12, 18)),
            [event(18), *(piece(seq, f"{seq} ") for seq in range(19, 30))],
        ]
        for batch in batches:
            if batch[0].seq == 12:
                store.attach_snapshot(snapshot(12))
            await store.append(batch)
        same(await store.condense("r1"), 0, "the rows saved of a run that has not ended")
        events = [*(e for batch in batches for e in batch), ended(30)]
        await store.append(events[-1:])
        await store.condense("r1")
        found = await store.events("r1")
        same(list(map(without_text, found)), list(map(without_text, events)), "all but the texts")
        for first, last in ((2, 12), (13, 17), (19, 29)):
            same(texts_of(found, first, last), texts_of(events, first, last), f"the texts from event {first} to {last}")
        same(await store.condense("r1"), 0, "the rows that doing it again saves")
        for after in range(31):
            same(await store.events("r1", after=after, limit=3), found[after : after + 3], f"three events after {after}")

    @promise
    async def test_a_piece_is_not_written_twice(self, store: RunStore) -> None:
        """Numbers within a batch of pieces are taken as any others are."""
        await store.append([started(), *(piece(n, "x") for n in range(2, 8))])
        for seq in (4, 7, 9):
            with refusal(f"appending event {seq}, where 8 is due", says="where 8 is due"):
                await store.append([piece(seq, "y")])
        await store.append([piece(8, "y")])
        same([e.seq for e in await store.events("r1")], list(range(1, 9)), "the numbers of the events")

    @promise
    async def test_snapshots(self, store: RunStore) -> None:
        """A store may keep snapshots; what it gives back is what it was given last, of events that it has. They go with their run."""
        await store.append([started()])
        same(await store.snapshot("r1", "state"), None, "the snapshot of a run without one")
        big = "0123456789" * 10_000
        store.attach_snapshot(snapshot(2, text=big, at=0.1, nothing=None))
        await store.append([event(2), event(3)])
        found = await store.snapshot("r1", "state")
        if found is None:
            return  # the store keeps none
        same(found, snapshot(2, text=big, at=0.1, nothing=None), "the snapshot")
        same(await store.snapshot("r1", "other"), None, "the snapshot of another kind")
        same(await store.snapshot("unknown", "state"), None, "the snapshot of an unknown run")
        await store.put_snapshot(snapshot(1, text="early"))
        same(await store.snapshot("r1", "state"), found, "the snapshot, after an earlier one was put")
        await store.put_snapshot(snapshot(4, text="late"))
        same(await store.snapshot("r1", "state"), found, "the snapshot, after one of events that are not stored was put")
        await store.put_snapshot(snapshot(3, run="unknown"))
        same(await store.snapshot("unknown", "state"), None, "a snapshot of an unknown run that was put")
        await store.put_snapshot(snapshot(3, text="late"))
        await store.put_snapshot(snapshot(3, kind="other", version=7))
        same(await store.snapshot("r1", "state"), snapshot(3, text="late"), "a later snapshot that was put")
        same(
            await store.snapshot("r1", "other"), snapshot(3, kind="other", version=7), "a snapshot of another kind that was put"
        )
        await store.put_snapshot(snapshot(2, version=2))
        same(await store.snapshot("r1", "state"), snapshot(2, version=2), "a snapshot of another version that was put")
        store.attach_snapshot(snapshot(9, text="ahead"))
        await store.append([ended(4)])
        same(
            await store.snapshot("r1", "state"),
            snapshot(2, version=2),
            "the snapshot, after one of events to come was attached",
        )
        await store.delete("r1")
        await store.append([started()])
        same(await store.snapshot("r1", "state"), None, "the snapshot of a deleted run")

    @promise
    async def test_a_refused_batch_takes_its_snapshot_along(self, store: RunStore) -> None:
        """What is attached belongs to the next append alone, also when that is refused."""
        await store.append([started()])
        store.attach_snapshot(snapshot(2, text="of a batch that is refused"))
        with refusal("appending event 3, where 2 is due", says="where 2 is due"):
            await store.append([event(3)])
        await store.append([event(2)])
        same(await store.snapshot("r1", "state"), None, "the snapshot that was attached to a batch that was refused")

    @promise
    async def test_listing_what_is_asked_for(self, store: RunStore) -> None:
        """Filters and limits are right in any combination, whatever the order in which runs were begun."""
        rows: list[tuple[str, str, str, str | None]] = []
        for n in range(24):
            run, diagram, parent = f"r{n:02}", f"d{n % 3}", None if n % 4 else "p"
            first = started(run, diagram=diagram, parent=parent)._replace(occurred_at=1000.0 + n * 7 % 24)
            await store.append([first])
            if status := (None, "completed", "failed", "aborted")[n % 4]:
                kind = T.EXECUTION_COMPLETED if status == "completed" else T.EXECUTION_ERROR
                await store.append([event(2, kind, run, status=status)])
            rows.append((run, status or "running", diagram, parent))
        for status in (None, "running", "completed", "failed", "interrupted"):
            for diagram in (None, "d0", "d1", "d9"):
                for parent, nested in ((None, False), (None, True), ("p", False), ("r01", True)):
                    expected = [
                        r for r, s, d, p in rows
                        if status in (None, s) and diagram in (None, d) and (p == parent or (parent is None and nested))
                    ]  # fmt: skip
                    found = await store.runs(status=status, diagram=diagram, parent=parent, nested=nested)
                    same(sorted(r.run_id for r in found), expected, f"runs({status=}, {diagram=}, {parent=}, {nested=})")
                    few = await store.runs(limit=3, status=status, diagram=diagram, parent=parent, nested=nested)
                    same(few, found[:3], "the first three of them")

    @promise(cases=BROKEN)
    async def test_gaps_and_repeats_are_refused_whole(self, store: RunStore, case: tuple[Sequence[Event], str]) -> None:
        """A batch that breaks the numbering is refused, and nothing of it is stored."""
        batch, says = case
        with refusal(f"appending the events {[e.seq for e in batch]}", says=says):
            await store.append(batch)
        same(await store.events("r1"), [], "the events after a batch that was refused")
        await store.append([started()])
        same(len(await store.events("r1")), 1, "the number of events after a batch that fits")

    @promise
    async def test_nothing_after_the_end(self, store: RunStore) -> None:
        """An ended run takes no more events."""
        await store.append([started(), ended(2)])
        with refusal("appending to a run that has ended", says="has ended"):
            await store.append([event(3)])

    @promise
    async def test_notes_after_the_end(self, store: RunStore) -> None:
        """A run that has ended takes notes, which change neither its status nor its end; numbers go on without a gap."""
        await store.append([started(), ended(2)])
        before = await store.run("r1")
        note = event(3, T.RUN_NOTE, first=1, last=2, text="fine")
        await store.append([note])
        with refusal("appending the same note twice"):
            await store.append([note])
        await store.append([event(4, T.RUN_NOTE, first=1, last=1, text="more")])
        with refusal("appending to a run that has ended and has notes", says="has ended"):
            await store.append([event(5)])
        after = await store.run("r1")
        assert before is not None
        same(after, before._replace(events=4), "the row of a run with notes")
        same([e.payload.get("text") for e in await store.events("r1", after=2)], ["fine", "more"], "its notes")
        same(await store.delete("r1"), ["r1"], "the runs that are gone")

    @promise
    async def test_a_repeat_across_batches_is_refused(self, store: RunStore) -> None:
        """The numbering is checked against what is stored."""
        await store.append([started(), event(2)])
        with refusal("appending an event a second time", says="where 3 is due"):
            await store.append([event(2)])
        same(len(await store.events("r1")), 2, "the number of events after a repeat")

    @promise
    async def test_an_empty_batch_is_nothing(self, store: RunStore) -> None:
        """Appending nothing does nothing."""
        await store.append([])
        same(await store.runs(), [], "the runs")

    @promise
    async def test_history(self, store: RunStore) -> None:
        """Runs are listed newest first, with status, times and counts; going on, ended and failed ones."""
        await store.append([started("a")])
        await store.append([Event(1, T.EXECUTION_STARTED, "b", 2000.0, None, {"diagram": "other"})])
        await store.append([Event(2, T.EXECUTION_ERROR, "b", 2001.0, None, {"status": "failed"})])
        rows = await store.runs()
        found = [(r.run_id, r.status, r.diagram, r.events) for r in rows]
        same(found, [("b", "failed", "other", 2), ("a", "running", "d", 1)], "(run, status, diagram, events) of runs()")
        times = rows[0].started_at, rows[0].ended_at, rows[1].ended_at
        same(times, (2000.0, 2001.0, None), "beginning and end of an ended run, and the end of one that is running")
        same(rows[1].parent_run_id, None, "the parent of a run that nobody began")
        same([r.run_id for r in await store.runs(status="running")], ["a"], "the runs that go on")
        same([r.run_id for r in await store.runs(diagram="other")], ["b"], "the runs of one diagram")
        same([r.run_id for r in await store.runs(limit=1)], ["b"], "the newest run")
        one = await store.run("a")
        same(one and one.status, "running", "the status of run('a')")
        same(await store.run("zzz"), None, "run() of an unknown id")

    @promise
    async def test_runs_of_sub_diagrams(self, store: RunStore) -> None:
        """They are listed by their parent, or when they are asked for."""
        await store.append([started("p")])
        await store.append([started("c", parent="p")._replace(occurred_at=2000.0)])
        await store.append([started("d", parent="c")._replace(occurred_at=3000.0)])
        same([r.run_id for r in await store.runs()], ["p"], "the runs of their own")
        same([r.run_id for r in await store.runs(nested=True)], ["d", "c", "p"], "all runs")
        same([r.run_id for r in await store.runs(parent="p")], ["c"], "the runs that 'p' began")
        same(await store.runs(parent="d"), [], "the runs that 'd' began")
        same([r.run_id for r in await store.runs(parent="c", diagram="d", status="running")], ["d"], "what all filters leave")

    @promise
    async def test_ids_that_no_run_has(self, store: RunStore) -> None:
        """Whatever is asked for, also what no store can hold, is a run that is not there."""
        for run_id in ("", "\0", "\ud83d", "' OR 1=1", "x" * 10_000):
            same(await store.run(run_id), None, f"run({run_id[:10]!a})")
            same(await store.events(run_id), [], f"events({run_id[:10]!a})")
            same(await store.runs(diagram=run_id, status=run_id), [], f"the runs of the diagram {run_id[:10]!a}")

    @promise
    async def test_forgetting(self, store: RunStore) -> None:
        """A deleted run is gone with its events and answers; unknown ones are ignored; its id may be used again."""
        await store.append([started(), ended(2)])
        same(await store.delete("r1", "never"), ["r1"], "the runs that delete says are gone")
        same(await store.delete("r1"), [], "the runs that are gone when one is deleted twice")
        same(await store.delete(), [], "the runs that are gone when none is named")
        same(await store.runs(), [], "the runs after the only one was deleted")
        same(await store.run("r1"), None, "the row of a deleted run")
        same(await store.events("r1"), [], "the events of a deleted run")
        await store.append([started()])

    @promise
    async def test_forgetting_families(self, store: RunStore) -> None:
        """The runs of sub-diagrams go with their parents, to any depth, and no others; a part may go alone."""
        for run, parent in (("p", None), ("c", "p"), ("d", "c"), ("e", "c"), ("q", None), ("f", "q"), ("lone", "unknown")):
            await store.append([started(run, parent=parent), ended(2, run)])
        same(sorted(await store.delete("c", "e")), ["c", "d", "e"], "the runs that are gone with 'c'")
        same(
            sorted(await store.delete("p", "lone")),
            ["lone", "p"],
            "the runs that are gone with 'p' and a part of an unknown one",
        )
        same(sorted(r.run_id for r in await store.runs(nested=True)), ["f", "q"], "the runs that are left")

    @promise
    async def test_runs_that_have_a_text(self, store: RunStore) -> None:
        """`holding` looks through inputs, outputs, answers and notes, also big ones, for the text as it is; in any case of a to z.
        A store may leave that out."""
        if type(store).holding is RunStore.holding:
            return
        texts = {
            "input": (T.EXECUTION_STARTED, "Amber 100%"),
            "output": (T.NODE_COMPLETED, 'a_b "c" \\d\n\u00e9'),
            "answer": (T.INTERACTIVE_RESPONSE, "aXb 1000"),
            "note": (T.RUN_NOTE, "\U0001f600 amber"),
            "big": (T.NODE_COMPLETED, "0" * 90_000 + " Needle " + "1" * 90_000),
            "other": (T.NODE_OUTPUT, "amber a_b needle"),
        }
        for run, (kind, text) in texts.items():
            if kind is T.EXECUTION_STARTED:
                await store.append([started(run, inputs={"text": text}), ended(2, run)])
            else:
                await store.append([started(run), event(2, kind, run, text=text), ended(3, run)])
        for text, runs in {
            "amber": ["input", "note"], "100%": ["input"], "100": ["answer", "input"], "a_b": ["output"], "a%b": [], '"c" \\d\n': ["output"],
            "\u00e9": ["output"], "\U0001f600 AM": ["note"], "needle": ["big"], "nowhere": [], "\ud83d": [], "\0": [],
        }.items():  # fmt: skip
            same(sorted(await store.holding(text)), runs, f"the runs with {text!a}")

    @promise
    async def test_living_runs_stay(self, store: RunStore) -> None:
        """A running run is not deleted, nor one that is a part of it, nor one that it is a part of, nor what is asked for with
        them; one that was claimed is running. A caller that knows that those of this process have stopped can delete them."""
        await store.append([started("done"), ended(2, "done")])
        await store.append([started("p")])
        await store.append([started("c", parent="p"), ended(2, "c")])
        await store.append([started("top"), event(2, T.EXECUTION_ERROR, "top", status="failed")])
        await store.append([started("part", parent="top")])
        await store.append([started("again"), event(2, T.EXECUTION_ERROR, "again", status="failed")])
        await store.claim("again")
        for asked, living in (("p", "p"), ("c", "p"), ("top", "part"), ("part", "part"), ("again", "again")):
            with refusal(f"deleting {asked!r}, while {living!r} is running", says="still ", cause="going_on") as found:
                await store.delete("done", asked)
            same(found[0].facts.get("run_id"), living, "the run_id of the error")
        same(len(await store.runs(nested=True)), 6, "the number of runs after all deletions were refused")
        same(len(await store.events("done")), 2, "the number of events of a run that was to be deleted with a living one")
        await store.append([event(2, run="p"), ended(3, "p")])
        same(sorted(await store.delete("p")), ["c", "p"], "the runs that are gone when the living one has ended")
        same(
            sorted(await store.delete("top", "again", owned=True)),
            ["again", "part", "top"],
            "the runs of this process that are gone",
        )

    @promise
    async def test_forgetting_while_others_are_at_work(self, store: RunStore) -> None:
        """Deleting runs hinders neither those who read them nor those who write others; it gives space back or leaves it for later."""
        for run in "abcdef":
            await store.append([started(run), *(event(n, run=run, text="x" * 2000) for n in range(2, 40)), ended(40, run)])
        await store.append([started("w")])

        async def read() -> None:
            while rows := [row for row in await store.runs() if row.run_id != "w"]:
                for row in rows:
                    seen = [e.seq for e in await store.events(row.run_id)]
                    that(seen in ([], list(range(1, 41))), f"a run that is being deleted has the events {seen}")
                await asyncio.sleep(0)

        async def write() -> None:
            for seq in range(2, 40):
                await store.append([event(seq, run="w")])

        await asyncio.gather(read(), write(), *(store.delete(run) for run in "abcdef"), store.delete("a", "b"))
        same([e.seq for e in await store.events("w")], list(range(1, 40)), "the events of a run that was written meanwhile")

    @promise
    async def test_a_cancelled_append_is_whole(self, store: RunStore) -> None:
        """When a cancelled append has ended, all of the batch is stored or nothing, `run` tells which, and appending continues there."""
        await store.append([started()])
        seq = 1
        for turns in range(30):
            batch = [event(seq + n, text="x" * 1000) for n in (1, 2, 3)]
            task = asyncio.ensure_future(store.append(batch))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            row = await store.run("r1")
            stored = row.events if row is not None else 0
            that(stored in (seq, seq + 3), f"{stored} events are stored after a cancelled append of the events after {seq}")
            seq = stored
        await store.append([ended(seq + 1)])
        same([e.seq for e in await store.events("r1")], list(range(1, seq + 2)), "the numbers of the events")

    @promise(cases=UNSTORABLE)
    async def test_what_cannot_be_stored_is_refused(self, store: RunStore, case: Callable[[], Any]) -> None:
        """A value without an encoding is a StorageError, nothing of its batch is stored, and appending continues. (A store that keeps
        the values themselves may take it.)"""
        await store.append([started()])
        try:
            await store.append([event(2), event(3, value=case())])
        except StorageError:
            same(len(await store.events("r1")), 1, "the number of events after a batch that was refused")
            await store.append([event(2), event(3)])
        same(len(await store.events("r1")), 3, "the number of events")

    @promise
    async def test_any_text_survives(self, store: RunStore) -> None:
        """Text of any script, quotes, newlines and NUL-like escapes come back as they were."""
        text = 'שלום "quoted" \\u0000 \n\t 😀 <script>'
        await store.append([started(text=text)])
        same((await store.events("r1"))[0].payload["text"], text, "a text of a payload")

    @promise
    async def test_closing_twice(self, store: RunStore) -> None:
        """cleanup may be called again; initialize opens again."""
        await store.cleanup()
        await store.cleanup()
        await store.initialize()
        await store.append([started()])

    @promise
    async def test_many_runs_interleave(self, store: RunStore) -> None:
        """Runs that write in turn keep each their own numbering."""
        for run in "abc":
            await store.append([started(run)])
        for seq in range(2, 30):
            for run in "abc":
                await store.append([event(seq, run=run)])
        for run in "abc":
            same([e.seq for e in await store.events(run)], list(range(1, 30)), f"the numbers of the run {run!r}")

    @promise
    async def test_a_log_outlives_the_object(self, store: RunStore) -> None:
        """A store that is opened again has the events of ended runs, and refuses what they refuse."""
        await store.append([started(), ended(2)])
        before = await store.events("r1")
        async with self.opened(lambda: self.reopen(store)) as again:
            same(await again.events("r1"), before, "the events after a restart")
            that([r.run_id for r in await again.runs()] == ["r1"], "the run is not in the history after a restart")
            with refusal("appending, after a restart, to a run that has ended", says="has ended"):
                await again.append([event(3)])
