"""Records of runs that were changed: what a resume or a fork would make again, run or hand on must be as this user's runs have
written it (security/signatures.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import reset_settings
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import NodeExecutionError, RunError, TrustError
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Runtime
from tests.support.untrusted_folder import light, node

CODE = "class Point:\n    x = 1\np = Point()\nn = 1\nreturn n"
INNER = light(node("code_job", "Inner", code=CODE), node("code_job", "Stop", code="open('go')\nreturn p.x"))
DIAGRAM = light(
    node("code_job", "First", code=CODE),
    node("template_job", "Text", template_content="{{n}}"),
    node("sub_diagram", "Sub", diagram_data=INNER),
    node("code_job", "Last", code="return p.x"),
)
EVIL: list[Any] = [
    "made",
    9,
    ["import", "pathlib", "Path.touch"],
    [["made", 8, ["import", "pathlib", "Path"], ["ran.txt"], None, [], []]],
    None,
    [],
    [],
]
"""An object whose making leaves a file."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[Event], list[Event]]]:
    """A run of the user's own that failed in its sub-diagram: (base, its log, that of its child)."""
    base = tmp_path_factory.mktemp("own")
    patch = pytest.MonkeyPatch()
    patch.setenv("DIPEO_BASE_DIR", str(base))
    patch.setenv("DIPEO_DATA_DIR", str(base.parent / "data"))
    patch.chdir(base)
    reset_settings()
    store = InMemoryRunStore()
    with Session(store=store) as session:
        run = session.start(DIAGRAM, inputs={"given": "x"}, view=False)
        with pytest.raises(RunError):
            run.result(30)
        events = run_sync(store.events(run.id))
        (child,) = run_sync(store.runs(parent=run.id))
        yield base, events, run_sync(store.events(child.run_id))
    patch.undo()
    reset_settings()


@pytest.fixture(autouse=True)
def same_user(recorded: tuple[Path, list[Event], list[Event]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is of the user whose run it is, at the same place."""
    base = recorded[0]
    monkeypatch.setenv("DIPEO_BASE_DIR", str(base))
    monkeypatch.setenv("DIPEO_DATA_DIR", str(base.parent / "data"))
    monkeypatch.chdir(base)
    reset_settings()


def within(event: Event, path: str, value: Any) -> Event:
    """The event with another value at a path of its payload."""
    first, _, rest = path.partition(".")
    inner = event.payload[first]
    if rest:
        value = dict(within(event._replace(payload=inner), rest, value).payload)
    return event._replace(payload={**event.payload, first: value})


def completed(label: str) -> Callable[[Event], bool]:
    return lambda e: e.type is EventType.NODE_COMPLETED and e.payload["label"] == label


def of_type(event_type: EventType, **facts: Any) -> Callable[[Event], bool]:
    return lambda e: e.type is event_type and all(e.payload.get(name) == value for name, value in facts.items())


def changed(where: Callable[[Event], bool], path: str, value: Any) -> Callable[[list[Event]], list[Event]]:
    def change(events: list[Event]) -> list[Event]:
        found = [e for e in events if where(e)]
        assert len(found) == 1, "the case changes no event"
        return [within(e, path, value) if e is found[0] else e for e in events]

    return change


def without_signatures(events: list[Event]) -> list[Event]:
    return [e._replace(payload={name: value for name, value in e.payload.items() if name != "mac"}) for e in events]


def exchanged(one: str, other: str) -> Callable[[list[Event]], list[Event]]:
    """Two outputs in each other's place, with their signatures."""

    def change(events: list[Event]) -> list[Event]:
        a, b = (next(e for e in events if completed(label)(e)) for label in (one, other))
        places = {a.seq: a._replace(payload=b.payload), b.seq: b._replace(payload=a.payload)}
        return [places.get(e.seq, e) for e in events]

    return change


def added(events: list[Event]) -> list[Event]:
    """An output of a node that has not run."""
    (first,) = (e for e in events if completed("First")(e))
    failed = next(e for e in events if e.type is EventType.NODE_ERROR)
    return [first._replace(seq=e.seq, node_id=e.node_id) if e is failed else e for e in events]


def handled(events: list[Event]) -> list[Event]:
    """A failure that leads on."""
    return [within(e, "handled", True) if e.type is EventType.NODE_ERROR else e for e in events]


CHANGES: dict[str, Callable[[list[Event]], list[Event]]] = {
    "an object": changed(completed("First"), "meta.code.objects.p", EVIL),
    "a definition": changed(completed("First"), "meta.code.definitions.Point.source", "class Point:\n    open('ran.txt', 'w')"),
    "a definition's needs": changed(completed("First"), "meta.code.definitions.Point.needs", {"y": EVIL}),
    "another object": changed(completed("First"), "meta.code.objects", {"q": EVIL}),
    "a variable": changed(completed("First"), "meta.variables.n", 2),
    "an output": changed(completed("First"), "output", 2),
    "a text": changed(completed("Text"), "text", "2"),
    "the way on": changed(completed("Text"), "handles", ["error"]),
    "published values": changed(completed("Text"), "globals", {"n": 2}),
    "the number of a run": changed(completed("First"), "run", 2),
    "objects where there were none": changed(completed("Text"), "meta", {"variables": {}, "code": {"objects": {"p": EVIL}}}),
    "variables of the run": changed(of_type(EventType.EXECUTION_STARTED), "variables", {"given": "y"}),
    "the model of the run": changed(of_type(EventType.EXECUTION_STARTED), "model", "openai:gpt-5"),
    "options of the run": changed(of_type(EventType.EXECUTION_STARTED), "options.max_iterations", 1),
    "the diagram's place": changed(of_type(EventType.EXECUTION_STARTED), "diagram_id", "/elsewhere/d.light.yaml"),
    "the run of a child": changed(of_type(EventType.NODE_OUTPUT, kind="run"), "data.run_id", "exec_other"),
    "no signatures": without_signatures,
    "two outputs exchanged": exchanged("First", "Text"),
    "an output added": added,
    "a failure handled": handled,
}
OF_CHILDREN: dict[str, Callable[[list[Event]], list[Event]]] = {
    "an object": changed(completed("Inner"), "meta.code.objects.p", EVIL),
    "a definition": changed(completed("Inner"), "meta.code.definitions.Point.source", "class Point:\n    open('ran.txt', 'w')"),
    "an output": changed(completed("Inner"), "output", 2),
    "no signatures": without_signatures,
    "an end": lambda events: [
        *events[:-1], events[-1]._replace(type=EventType.EXECUTION_COMPLETED, payload={"status": "completed", "mac": events[-1].payload["mac"]})
    ],
}  # fmt: skip


def store_of(*logs: list[Event]) -> InMemoryRunStore:
    store = InMemoryRunStore()
    for events in logs:
        run_sync(store.append(events))
    return store


WAYS = [("resume", case) for case in CHANGES] + [
    ("fork", case) for case in ("an object", "a definition", "an output", "no signatures")
]


@pytest.mark.parametrize(("way", "case"), WAYS, ids=[f"{way}-{case}" for way, case in WAYS])
def test_a_changed_record_is_foreign(recorded: tuple[Path, list[Event], list[Event]], case: str, way: str) -> None:
    """Its diagram has code, so it is asked about; nothing of it is made or run before."""
    base, events, child = recorded
    with Session(store=store_of(CHANGES[case](events), child)) as session, pytest.raises(TrustError):
        session.resume(events[0].run_id, view=False) if way == "resume" else session.fork(
            events[0].run_id, at="Last", view=False
        )
    assert not (base / "ran.txt").exists()


@pytest.mark.parametrize("case", OF_CHILDREN)
def test_a_changed_record_of_a_child_is_not_gone_on_from(recorded: tuple[Path, list[Event], list[Event]], case: str) -> None:
    """The run of a sub-diagram is one of its own in the store."""
    base, events, child = recorded
    with Session(store=store_of(events, OF_CHILDREN[case](child))) as session, pytest.raises(NodeExecutionError) as caught:
        session.resume(events[0].run_id, view=False).result(30)
    assert "differs from what this user's runs have written" in str(caught.value)
    assert not (base / "ran.txt").exists()


def test_an_unchanged_record_goes_on(recorded: tuple[Path, list[Event], list[Event]]) -> None:
    """Without a question; objects and all. So does one that was changed, after a yes to it."""
    base, events, child = recorded
    (base / "go").write_text("")
    try:
        with Session(store=store_of(events, child)) as session:
            assert session.resume(events[0].run_id, view=False).result(30).output == 1
        other = changed(completed("Text"), "text", "2")(events)
        with Session(store=store_of(other, child)) as session:
            assert session.resume(events[0].run_id, trust=True, view=False).result(30).output == 1
    finally:
        (base / "go").unlink()


def test_the_record_of_another_user_is_foreign(
    recorded: tuple[Path, list[Event], list[Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed with another secret."""
    _, events, child = recorded
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / "another"))
    reset_settings()
    with Runtime(store=store_of(events, child)) as runtime, pytest.raises(TrustError):
        run_sync(runtime.recover(events[0].run_id))


def test_there_are_enough_changes() -> None:
    """Of the run's own record, by two ways, and of its children."""
    assert len(CHANGES) >= 20
    assert len(WAYS) + len(OF_CHILDREN) >= 29
