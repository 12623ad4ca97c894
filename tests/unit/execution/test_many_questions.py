"""Thousands of questions that wait at once: each event, and each look at the store, is no more work than with one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dipeo_nb.config import Settings
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import Question, RunStore
from dipeo_nb.execution import questions
from dipeo_nb.execution.asked import Asked, OpenQuestions
from dipeo_nb.execution.journal import Journal
from dipeo_nb.execution.questions import Questions
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Prepared, Runtime
from dipeo_nb.testing import scripted
from tests.support.graphs import START, plan_of
from tests.support.line_steps import steps


def asking(count: int, *, items: bool) -> list[Event]:
    """All ask, all ask again as nobody answered in time, half are answered, and the others fail."""
    nodes = ["Batch"] * count if items else [f"N{n}" for n in range(count)]
    places = [[f"Batch[{n}]", "Ask"] if items else [f"N{n}"] for n in range(count)]
    found = [(T.EXECUTION_STARTED, None, {"labels": {node: node for node in nodes}})]
    for attempt in ("first", "second"):
        found += [
            (T.INTERACTIVE_PROMPT, nodes[n], {"request_id": f"{attempt}:{n}", "label": places[n][-1], "path": places[n], "prompt": "?"})
            for n in range(count)
        ]  # fmt: skip
    found += [(T.INTERACTIVE_RESPONSE, nodes[n], {"request_id": f"second:{n}"}) for n in range(0, count, 2)]
    found += [(T.NODE_ERROR, node, {"run": 1, "error": {}}) for node in dict.fromkeys(nodes[1::2])]
    return [Event(i, kind, "r", 1.0, node, payload) for i, (kind, node, payload) in enumerate(found, 1)]


@pytest.mark.parametrize("items", [False, True], ids=["nodes", "items of a batch"])
@pytest.mark.parametrize("reader", [RunState, OpenQuestions])
def test_questions_are_found_by_their_place(reader: Any, items: bool) -> None:
    def work(count: int) -> int:
        events, taken = asking(count, items=items), reader()
        take = taken.apply if reader is RunState else taken.take
        return steps(lambda: [take(event) for event in events])

    work(4)  # what is made once
    few, many = work(50), work(200)
    assert many < 4.5 * few, (few, many)


@pytest.mark.parametrize("items", [False, True], ids=["nodes", "items of a batch"])
def test_what_stays_open(items: bool) -> None:
    """Also where the state is a copy that goes on, which knows no places yet."""
    events = asking(6, items=items)
    state, asked = RunState.fold(events[:8]), OpenQuestions()
    for event in events[:8]:
        asked.take(event)
    assert list(state.questions) == list(asked.found) == ["first:1", "first:2", "first:3", "first:4", "first:5", "second:0"]
    state = state.snapshot()
    for event in events[8:16]:
        state.apply(event)
        asked.take(event)
    assert list(state.questions) == list(asked.found) == ["second:1", "second:3", "second:5"]
    gone = asked.take(events[16])
    assert gone == (["second:1", "second:3", "second:5"] if items else ["second:1"])
    assert list(asked.found) == [name for name in ("second:1", "second:3", "second:5") if name not in gone]


def test_a_question_that_comes_again_under_its_id_is_there_once() -> None:
    asked = Asked()
    asked.ask({"request_id": "q", "node_id": "A", "path": ["A"]})
    assert asked.ask({"request_id": "q", "node_id": "B", "path": ["B"]}) == ["q"]
    assert asked.drop_of("A") == []
    assert asked.drop_of("B") == ["q"]
    assert asked == {}


def test_one_look_at_the_store_is_for_all_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "POLL_S", 0)
    names = [f"q{n}" for n in range(50)]
    looks, left = 0, dict[str, str]()

    async def answers(run_id: str) -> dict[str, str]:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        return dict(left)

    async def go() -> list[tuple[str, str]]:
        nonlocal looks
        asked = Questions(cast(RunStore, SimpleNamespace(answers=answers)), "r", None, cast(Journal, None))
        for name in names:
            asked.open(name)
        waiting = [
            asyncio.create_task(asked.asked(Question("r", name, name, "?", None, None, name, (name,)), None)) for name in names
        ]
        while looks < len(names) + 3:  # each has looked when it was asked, and all since
            await asyncio.sleep(0)
        left.update({name: f"answer to {name}" for name in names})
        looks = 0
        found = await asyncio.gather(*waiting)
        assert len(asyncio.all_tasks()) == 1, "nothing looks for answers any more"
        return found

    assert asyncio.run(go()) == [(f"answer to {name}", "user") for name in names]
    assert looks <= 3, "the one under way, and the one that found them"


def test_a_store_that_breaks_tells_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "POLL_S", 0)
    broken = False

    async def answers(run_id: str) -> dict[str, str]:
        if broken:
            raise ZeroDivisionError
        return {}

    async def go() -> list[Any]:
        nonlocal broken
        asked = Questions(cast(RunStore, SimpleNamespace(answers=answers)), "r", None, cast(Journal, None))
        waiting: list[Any] = []
        for name in ("a", "b"):
            asked.open(name)
            waiting.append(asyncio.create_task(asked.asked(Question("r", name, name, "?", None, None, name, (name,)), None)))
        await asyncio.sleep(0.01)
        broken = True
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(one) for one in asyncio.run(go())] == [ZeroDivisionError, ZeroDivisionError]


def test_what_many_wait_to_be_committed_is_committed_together() -> None:
    """Each of those who wait for a commit under way goes on when another has committed its events; else it would commit what came
    meanwhile, one after the other, and each of these commits would wake all."""
    sizes: list[int] = []

    class Slow(InMemoryRunStore):
        async def append(self, events: Sequence[Event]) -> None:
            await asyncio.sleep(0)
            sizes.append(len(events))
            await super().append(events)

    async def go() -> None:
        async with Runtime(Settings(), llm=scripted(), store=Slow()) as runtime:
            await runtime.services.store.initialize()
            execution = runtime.execution(Prepared.own(plan_of({"S": START}, []), runtime.services))
            journal = execution.journal

            async def node(name: str) -> None:
                journal.emit(T.EXECUTION_LOG, None, {"message": name})
                seq = journal.seq
                await journal.flush()
                assert journal.state.events >= seq

            async def others() -> None:
                while True:
                    journal.emit(T.EXECUTION_LOG, None, {"message": "meanwhile"})
                    await asyncio.sleep(0)

            journal.emit(T.EXECUTION_STARTED, None, {"labels": {}})
            going_on = asyncio.create_task(others())
            await asyncio.gather(*(node(f"N{n}") for n in range(100)))
            going_on.cancel()

    asyncio.run(go())
    assert sum(sizes) > 100
    assert len(sizes) <= 20, "not one for each who waits"
