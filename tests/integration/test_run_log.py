"""Row S88: what code logs inside a run is an event of the run, also from threads; and nothing else is."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event

LOG = logging.getLogger("mine.deep")
PYTHON = """
version: light
nodes:
  - {{label: Start, type: start}}
  - {{label: Work, type: code_job, props: {{language: python, code: {code}}}}}
  - {{label: End, type: endpoint}}
connections:
  - {{from: Start, to: Work}}
  - {{from: Work, to: End}}
"""


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """What a test sets is not there in the next."""
    LOG.setLevel(logging.INFO)
    yield
    LOG.setLevel(logging.NOTSET)


def of_type(*kinds: str) -> str:
    nodes = "".join(f"  - {{label: N{n}, type: {kind}}}\n" for n, kind in enumerate(kinds))
    arrows = "".join(f"  - {{from: Start, to: N{n}}}\n  - {{from: N{n}, to: End}}\n" for n in range(len(kinds)))
    ends = "  - {label: Start, type: start}\n  - {label: End, type: endpoint}\n"
    return f"version: light\nnodes:\n{ends}{nodes}connections:\n{arrows}"


def logs(run: Any) -> list[tuple[str, str, str, str]]:
    """Label of the node, level, logger, message."""
    events = run.events
    labels = events[0].payload["labels"]
    return [
        (labels.get(one.node_id, ""), one.payload["level"], one.payload["logger_name"], one.payload["message"])
        for one in events
        if one.type == T.EXECUTION_LOG
    ]


def run(diagram: str, **options: Any) -> Any:
    done = dp.run(diagram, trust=True, **options)
    assert done.status == "completed", done.error
    return done


def test_a_plain_and_an_async_function():
    """Level, logger, formatted message, extra fields and traceback; before the node's end; at the user's level."""

    @dp.node
    def plainly() -> str:
        LOG.info("%d of %s", 3, "ten", extra={"batch": 7, "odd": {1, 2}})
        LOG.debug("not at this level")
        try:
            raise KeyError("gone")
        except KeyError:
            LOG.exception("It failed")
        return "x"

    @dp.node
    async def later() -> str:
        LOG.warning("on the loop")
        await asyncio.sleep(0)
        return "y"

    done = run(of_type("plainly", "later"))
    assert sorted(logs(done)) == [
        ("N0", "ERROR", "mine.deep", "It failed"),
        ("N0", "INFO", "mine.deep", "3 of ten"),
        ("N1", "WARNING", "mine.deep", "on the loop"),
    ]
    kept = {one.payload["message"]: one for one in done.events if one.type == T.EXECUTION_LOG}
    assert kept["3 of ten"].payload["extra_fields"] == {"batch": 7, "odd": "{1, 2}"}
    assert "KeyError: 'gone'" in kept["It failed"].payload["extra_fields"]["exception"]
    ends = {one.node_id: one.seq for one in done.events if one.type == T.NODE_COMPLETED}
    assert all(one.seq < ends[one.node_id] for one in kept.values())


def test_threads_that_a_function_starts():
    """Threads of its own and those of a pool; what a thread logs that was there before is not of the run."""
    ask, answered = threading.Event(), threading.Event()

    def stranger() -> None:
        ask.wait(30)
        LOG.warning("not of the run")
        answered.set()

    @dp.node
    def threaded() -> str:
        own = threading.Thread(target=lambda: LOG.warning("from a thread"))
        own.start()
        own.join()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda n: LOG.warning("from a pool %d", n), range(3)))
        ask.set()
        answered.wait(30)
        return "x"

    other = threading.Thread(target=stranger)
    other.start()
    done = run(of_type("threaded"))
    other.join()
    assert sorted(message for _, _, _, message in logs(done)) == [
        "from a pool 0", "from a pool 1", "from a pool 2", "from a thread",
    ]  # fmt: skip
    assert {label for label, *_ in logs(done)} == {"N0"}


def test_two_runs_at_once_do_not_mix():
    """Each function's own thread knows its run, whatever else goes on."""

    @dp.node
    def says(name: str) -> str:
        for n in range(50):
            LOG.info("%s %d", name, n)
        return name

    session = dp.Session()
    with session.runtime:
        going = [session.start(of_type("says"), name=f"run {n}") for n in range(5)]
        for n, one in enumerate(going):
            one.wait()
            assert one.status == "completed"
            assert [message for *_, message in logs(one)] == [f"run {n} {k}" for k in range(50)]


@pytest.mark.parametrize("thread", [False, True])
def test_code_in_its_own_process(thread: bool):
    """From INFO on, with extra fields; threads too; the logger is there by name."""
    call = "log.info('%s there', 'hello', extra={'n': 1})"
    code = f"import logging, threading\\nlog = logging.getLogger('theirs')\\nlog.debug('no')\\ndef say(): {call}\\n"
    code += "t = threading.Thread(target=say); t.start(); t.join()" if thread else "say()"
    done = run(PYTHON.format(code=f'"{code}"'))
    assert logs(done) == [("Work", "INFO", "theirs", "hello there")]
    assert [one.payload["extra_fields"] for one in done.events if one.type == T.EXECUTION_LOG] == [{"n": 1}]


def test_code_may_set_logging_up_as_ever():
    """`basicConfig` works: its level holds, and what it prints is printed."""
    code = "import logging\\nlogging.basicConfig(level=logging.WARNING)\\nlogging.info('no')\\nlogging.warning('yes')"
    done = run(PYTHON.format(code=f'"{code}"'))
    assert logs(done) == [("Work", "WARNING", "root", "yes")]
    printed = [one.payload.get("text", "") for one in done.events if one.type == T.NODE_OUTPUT]
    assert "WARNING:root:yes" in "".join(printed)


def test_code_that_logs_without_end():
    """The log of one piece of code is cut, and says so."""
    code = "import logging\\nfor n in range(12000): logging.warning('%d', n)\\nresult = 'done'"
    done = run(PYTHON.format(code=f'"{code}"'))
    told = [message for *_, message in logs(done)]
    assert len(told) == 10_001
    assert told[-2:] == ["9999", "The log is cut here."]
    assert done.output == "done"


def test_secrets_stay_out():
    """Of messages, extra fields and tracebacks."""
    key = "sk-" + "a1B2" * 8

    @dp.node
    def leaks() -> str:
        try:
            raise ValueError(f"with {key}")
        except ValueError:
            LOG.exception("calling with %s", key, extra={"header": key})
        return "x"

    done = run(of_type("leaks"))
    assert len(logs(done)) == 1
    assert key not in str(done.events)


def test_bad_arguments_and_long_messages(monkeypatch: pytest.MonkeyPatch):
    """A logging call never fails a node."""
    monkeypatch.setattr(logging, "raiseExceptions", False)

    @dp.node
    def clumsy() -> str:
        LOG.warning("%d and %d", "no number")  # noqa: PLE1206 - the point
        LOG.warning("x" * 100_000)
        return "x"

    first, second = (message for *_, message in logs(run(of_type("clumsy"))))
    assert first == "%d and %d ('no number',)"
    assert second.endswith("… (100,000 characters)")
    assert len(second) < 21_000


def test_who_watches_a_run_is_not_part_of_it():
    """Handlers of the bus that log each event, in whatever thread, do not make events."""

    @dp.node
    def quiet() -> str:
        return "x"

    session = dp.Session()

    async def later(one: Event) -> None:
        LOG.warning("async %d", one.seq)
        await asyncio.to_thread(LOG.warning, "in a thread %d", one.seq)

    async def subscribe() -> None:
        bus = session.runtime.services.bus
        bus.subscribe(lambda one: LOG.warning("plain %d", one.seq))
        bus.subscribe(later)

    with session.runtime:
        run_sync(subscribe())
        done = session.run(of_type("quiet"), trust=True)
        run_sync(session.runtime.services.bus.drain())
        assert logs(done) == []


def test_python_still_prints_warnings_when_nobody_set_logging_up(capsys: pytest.CaptureFixture[str]):
    """What is recorded is logged as ever; no handler of ours is in the way of `logging.basicConfig`."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:

        @dp.node
        def warns() -> str:
            LOG.warning("look here")
            LOG.info("not printed")
            assert root.handlers == []
            return "x"

        run(of_type("warns"))
        assert root.handlers == []
    finally:
        root.handlers = before
    assert capsys.readouterr().err == "look here\n"


def test_what_comes_after_the_run_is_not_of_it():
    """A thread that outlives its run logs into the void."""
    let, said = threading.Event(), threading.Event()

    @dp.node
    def leaves() -> str:
        def late() -> None:
            let.wait(30)
            LOG.warning("too late")
            said.set()

        threading.Thread(target=late).start()
        return "x"

    done = run(of_type("leaves"))
    count = len(done.events)
    let.set()
    assert said.wait(30)
    assert len(done.events) == count
    assert done.events[-1].type == T.EXECUTION_COMPLETED
