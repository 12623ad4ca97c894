"""Large values are made without collections of cycles in between, which would hold the event loop."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dipeo_nb.common import collecting, stepwise_json
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.storage.conversation import InMemoryConversationRepository, SqliteConversationRepository

NESTED = json.dumps([{"id": n, "more": {"tags": [n]}} for n in range(30_000)])
"""Of containers that the collector keeps track of."""


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    """As in most applications; `make quick` freezes what collecting the tests has made."""
    frozen = gc.get_freeze_count() > collecting.OWN_FROZEN
    gc.unfreeze()
    collecting._others_freeze = False
    yield
    collecting._others_freeze = frozen
    if frozen:
        gc.freeze()


@contextmanager
def collections() -> Iterator[list[int]]:
    """The generations of which collections begin."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    try:
        yield seen
    finally:
        gc.callbacks.remove(note)


def messages_of(repository: Any) -> Callable[[], Any]:
    async def go() -> list[Message]:
        for number in range(1_000):
            await repository.add_message(
                Message("", "ada", "bob", "Hi", MessageType.PERSON_TO_PERSON, float(number), None, {"a": {"b": [number]}})
            )
        with collections() as seen:
            found = await repository.get_messages()
            await repository.get_conversation_history("ada")
            assert seen.count(2) == 0
        await repository.cleanup()
        return found

    return lambda: asyncio.run(go())


def test_parsing_a_large_text_sets_off_no_collection():
    with collections() as without:
        json.loads(NESTED)
    with collections() as seen:
        value = stepwise_json.loads(NESTED)
        assert seen == []
    assert without, "such a text does, by itself"
    assert value == json.loads(NESTED)
    assert gc.isenabled()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_long_conversation_sets_off_no_full_collection(kind: str, tmp_path: Any):
    made = InMemoryConversationRepository() if kind == "memory" else SqliteConversationRepository(tmp_path / "c.db")
    assert len(messages_of(made)()) == 1_000
    assert gc.isenabled()


def test_what_was_made_counts_as_old():
    """No collection of young objects walks it."""
    gc.collect()
    with collecting.paused():
        value = json.loads(NESTED)
    assert len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1)) < 30_000
    assert any(one is value for one in gc.get_objects(generation=2))
    assert gc.get_freeze_count() == 0


def test_blocks_of_several_threads():
    """The collector is back after the last of them, also when one fails."""
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with collecting.paused():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with pytest.raises(ZeroDivisionError), collecting.paused(), collecting.paused():  # noqa: PT012 - all of it is within the blocks
        thread.start()
        assert entered.wait(10)
        raise ZeroDivisionError
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off():
    gc.disable()
    try:
        with collecting.paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_objects_that_the_application_froze_stay_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        for _ in range(2):
            with collecting.paused():
                pass
            assert gc.get_freeze_count() > frozen / 2 > 0
        assert collecting._others_freeze, "counting them takes long, and is done once"
    finally:
        gc.unfreeze()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_collects():
    with collecting.paused():
        child = os.fork()
        if child == 0:
            os._exit(0 if gc.isenabled() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gc.isenabled()
