"""Work in threads that is cancelled: it ends at its next step, and no change of it comes into force afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common import atomic, cancellable
from dipeo_nb.domain.ports import DBOperationsPort
from dipeo_nb.notebook.session import Session
from dipeo_nb.storage import in_memory as in_memory
from dipeo_nb.storage import json_db, structured_text
from dipeo_nb.storage.json_db import DBOperationsDomainService, yaml_changes
from dipeo_nb.storage.json_db import text as db_text
from dipeo_nb.storage.local import LocalFileSystemAdapter
from dipeo_nb.testing import scripted
from tests.support.single_node import diagram
from tests.support.wire_openai import run

SUFFIX_TEXTS = {
    ".json": '[\n  {"a": 1},\n  {"a": 2}\n]\n',
    ".yaml": "- a: 1\n- a: 2\n",
    ".csv": "a,b\n1,2\n3,4\n",
    ".txt": "one\ntwo\n",
}
OPERATIONS: list[tuple[str, str, Any, str | None]] = [
    *((suffix, "write", [{"a": 5}, {"a": 6}], None) for suffix in SUFFIX_TEXTS),
    *((suffix, "append", {"a": 5}, None) for suffix in SUFFIX_TEXTS),
    *((suffix, "update", 7, "[1].a") for suffix in (".json", ".yaml", ".csv")),
    *((suffix, "read", None, None) for suffix in SUFFIX_TEXTS),
]


class Countdown(cancellable._Work):  # pyright: ignore[reportPrivateUsage]
    """Work that is cancelled after so many looks at whether it is."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        super().__init__()

    @property
    def cancelled(self) -> bool:
        self.steps -= 1
        return self.steps < 0

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        pass


@pytest.fixture
def in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts count as large ones."""
    monkeypatch.setattr(structured_text, "QUICK", -1)
    monkeypatch.setattr(structured_text.stepwise_json, "LARGE", 0)
    monkeypatch.setattr(structured_text.stepwise_json, "VALUES", 2)


@pytest.mark.usefixtures("in_steps")
@pytest.mark.parametrize(("suffix", "operation", "value", "keys"), OPERATIONS)
@pytest.mark.parametrize("adapter", ["local", "memory"])
def test_an_operation_that_is_cancelled_at_any_step_changes_nothing(
    suffix: str, operation: str, value: Any, keys: str | None, adapter: str, tmp_path: Path
):
    """Either it was cancelled and the file is the old one, or it came to its end."""
    assert len(OPERATIONS) == 15
    files: Any = LocalFileSystemAdapter(tmp_path) if adapter == "local" else in_memory.InMemoryFileSystem()
    db = DBOperationsDomainService(files)
    path, old = f"x{suffix}", SUFFIX_TEXTS[suffix]
    request = json_db.DBRequest(path, value, json_db.key_list(keys), None, None)

    def attempt(steps: int) -> bool:
        """Whether it came to its end."""
        files.write_text(path, old)
        token = cancellable._current.set(Countdown(steps))  # pyright: ignore[reportPrivateUsage]
        try:
            getattr(db, f"op_{operation}")(request)
        except cancellable.WorkCancelledError:
            return False
        finally:
            cancellable._current.reset(token)  # pyright: ignore[reportPrivateUsage]
        return True

    steps = 0
    while not attempt(steps):
        assert files.read_text(path) == old
        assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []
        steps += 1
        assert steps < 500
    assert (files.read_text(path) == old) is (operation == "read")
    assert steps >= (0 if (suffix, operation) == (".txt", "read") else 1)


class Held:
    """Stands where the work is until it is let go on."""

    def __init__(self) -> None:
        self.reached, self.go_on, self.over = threading.Event(), threading.Event(), threading.Event()

    def here(self) -> None:
        self.reached.set()
        assert self.go_on.wait(60)


@pytest.mark.parametrize("suffix", SUFFIX_TEXTS)
@pytest.mark.parametrize("operation", ["append", "write"])
def test_no_late_write(suffix: str, operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Cancelled when the new content is on the disk, under another name: the old file stays, and nothing is left behind."""
    (tmp_path / f"x{suffix}").write_text(SUFFIX_TEXTS[suffix])
    db: DBOperationsPort = DBOperationsDomainService(LocalFileSystemAdapter(tmp_path))
    held, sync = Held(), atomic.os.fsync

    def slow(handle: int) -> None:
        held.here()
        sync(handle)

    async def cancelled() -> None:
        task = asyncio.create_task(db.execute_operation(f"x{suffix}", operation, {"a": 5}))
        assert await asyncio.to_thread(held.reached.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task  # at once: the thread still stands there
        held.go_on.set()

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", slow)
        asyncio.run(cancelled())  # waits for the thread
    assert (tmp_path / f"x{suffix}").read_text() == SUFFIX_TEXTS[suffix]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [f"x{suffix}"]
    # The lock was given back.
    run(db.execute_operation(f"x{suffix}", operation, {"a": 5}))
    assert (tmp_path / f"x{suffix}").read_text() != SUFFIX_TEXTS[suffix]


def test_waiting_for_a_lock_ends_when_it_is_cancelled(tmp_path: Path):
    (tmp_path / "x.json").write_text("[1]")
    first, second = (DBOperationsDomainService(LocalFileSystemAdapter(tmp_path)) for _ in range(2))

    async def go() -> float:
        with first.locked("x.json"):
            task = asyncio.create_task(second.execute_operation("x.json", "append", 2))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            begin = time.monotonic()
            await asyncio.get_running_loop().shutdown_default_executor()  # the lock is held meanwhile
            return time.monotonic() - begin

    assert asyncio.run(go()) < json_db.LOCK_TIMEOUT_S / 2
    assert (tmp_path / "x.json").read_text() == "[1]"


def test_a_change_that_has_begun_is_made(tmp_path: Path):
    """A cancellation that comes while a change comes into force waits for that moment, and does not wait for ever."""
    order: list[str] = []
    begun = threading.Event()

    def work() -> None:
        with cancellable.commit():
            begun.set()
            while not cancellable.is_cancelled():
                time.sleep(0.001)
            order.append("changed")

    async def go() -> None:
        task = asyncio.create_task(cancellable.in_thread(work))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert order == ["changed"]


def test_errors_and_results_are_those_of_the_work():
    async def go() -> None:
        assert await cancellable.in_thread(lambda a, b: a + b, 1, 2) == 3
        with pytest.raises(ZeroDivisionError):
            await cancellable.in_thread(lambda: 1 // 0)

    asyncio.run(go())
    cancellable.check()  # outside such work nothing is cancelled
    with cancellable.commit():
        pass


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Reading JSON and YAML takes for ever, in steps."""
    held = Held()

    def steps(text: str, path: str) -> Any:
        held.reached.set()
        try:
            while True:
                cancellable.check()
                time.sleep(0.001)
        finally:
            held.over.set()

    monkeypatch.setattr(db_text, "json_value", steps)
    for module in (db_text, yaml_changes):
        monkeypatch.setattr(module, "yaml_value", steps)
    return held


ENDLESS = [(".json", "append"), (".json", "update"), (".json", "read"), (".yaml", "append"), (".yaml", "read")]


@pytest.mark.parametrize(("suffix", "operation"), ENDLESS)
@pytest.mark.parametrize(("end", "status"), [("node", "failed"), ("run", "failed"), ("stop", "aborted")])
def test_limits_and_stop_end_work_on_files(suffix: str, operation: str, end: str, status: str, endless: Held, tmp_path: Path):
    """The run ends, so does the thread, and the file is the old one."""
    (tmp_path / f"x{suffix}").write_text(SUFFIX_TEXTS[suffix])
    props: dict[str, Any] = {"operation": operation, "file": f"x{suffix}"}
    if operation == "update":
        props["keys"] = "[0].a"
    if end == "node":
        props["timeout"] = 0.2
    options: dict[str, Any] = {"timeout": 0.3} if end == "run" else {}
    with Session(tmp_path, llm=scripted()) as session:
        started = session.start(diagram("db", props), inputs={"value": {"a": 5}}, **options)
        if end == "stop":
            assert endless.reached.wait(60)
            started.stop()
        assert started.wait(60)
        assert str(started.status) == status
    if endless.reached.is_set():  # on a machine that is busy the limit may come first
        assert endless.over.wait(60)
    assert (tmp_path / f"x{suffix}").read_text() == SUFFIX_TEXTS[suffix]
