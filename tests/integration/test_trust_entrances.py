"""Every way by which a diagram that nobody has trusted can begin decides alike: nothing of it runs, and the list is shown; and what is
changed after a yes asks again, whichever field of whichever node it is (runtime/gates.py, security/trust.py)."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dipeo_nb.diagram.document import load, load_text
from dipeo_nb.domain.enums import NodeType
from dipeo_nb.domain.nodes import NODE_SPECS
from dipeo_nb.errors import DipeoError, NodeExecutionError, NotGrantedError, TrustError
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.runtime import Runtime
from dipeo_nb.server import RunServer
from dipeo_nb.testing import scripted
from tests.support.untrusted_folder import KINDS, MARK, base, code_files, light, node, write

__all__ = ["base"]  # a fixture

SHORT = ("python", "shell hook", "preprocessor")
"""Kinds of code, one of each way to run it."""


@pytest.fixture
def session(base: Path) -> Iterator[Session]:
    with Session(llm=scripted("Fine."), store=InMemoryRunStore()) as made:
        yield made


def served(session: Session, path: Path, **order: Any) -> httpx.Response:
    """What the server answers to an order to run the diagram."""
    server = RunServer(session.runtime)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(
                "/runs", json={"diagram": path.name, **order}, headers={"authorization": f"Bearer {server.token}"}
            )

    from dipeo_nb.common.loop import run_sync

    return run_sync(ask())


def own(session: Session, **props: Any) -> Any:
    """A run of a diagram of the user's own with the other as its sub-diagram."""
    return session.run(light(node("sub_diagram", "Sub", **props)), inputs={"items": [1], "which": "d"}, view=False)


def server_refuses(session: Session, path: Path, **order: Any) -> None:
    answer = served(session, path, **order)
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"]["listing"]
    raise TrustError("refused by the server")


Entrance = Callable[[Session, Path], Any]
ENTRANCES: dict[str, Entrance] = {
    "run": lambda s, p: s.run(p, view=False),
    "start": lambda s, p: s.start(p, view=False),
    "by its name": lambda s, p: s.run("d", view=False),
    "as a text with its path": lambda s, p: s.run(str(p), view=False),
    "loaded": lambda s, p: s.run(s.load(p), view=False),
    "loaded and changed": lambda s, p: s.run(s.load(p).set("nodes.Start.custom_data", {"x": 1}), view=False),
    "copied by a save": lambda s, p: s.run(s.load(p).save(p.with_name("copy.native.json")), view=False),
    "by a link": lambda s, p: (p.with_name("l.light.yaml").symlink_to(p), s.run("l", view=False)),
    "with another model": lambda s, p: s.run(p, model="echo", view=False),
    "with a budget": lambda s, p: s.run(p, budget=None, timeout=5, view=False),
    "with a wrong code": lambda s, p: s.run(p, trust="a" * 32, view=False),
    "with an empty code": lambda s, p: s.run(p, trust="", view=False),
    "as a guest": lambda s, p: s.run(p, trust=False, view=False),
    "typed, as a guest": lambda s, p: s.run(p.read_text(), trust=False, view=False),
    "with reading allowed": lambda s, p: s.run(p, allow={"read": True, "write": True, "net": True}, view=False),
    "with nothing allowed": lambda s, p: s.run(p, allow={}, view=False),
    "with code that is not allowed": lambda s, p: s.run(p, allow={"code": False}, view=False),
    "prepared": lambda s, p: s.runtime.prepare(p),
    "from a pipe": lambda s, p: s.runtime.prepare(p.read_text(), foreign=True),
    "child": lambda s, p: own(s, diagram_name="d"),
    "child of a variable": lambda s, p: own(s, diagram_name="{which}"),
    "child not waited for": lambda s, p: own(s, diagram_name="d", wait_for_completion=False),
    "children of a batch": lambda s, p: own(s, diagram_name="d", batch=True, batch_input_key="items"),
    "served": server_refuses,
    "served with a model": lambda s, p: server_refuses(s, p, model="echo"),
}


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_each_entrance_asks(session: Session, base: Path, entrance: str, kind: str) -> None:
    """Nothing ran, whatever kind of code it is and however it was to begin."""
    code_files(base)
    path = write(base, light(KINDS[kind]))
    with pytest.raises((TrustError, NotGrantedError)):
        ENTRANCES[entrance](session, path)
    assert not (base / MARK).exists()


COMMANDS: dict[str, list[str]] = {
    "run": ["run", "d"],
    "run with a wrong code": ["run", "d", "--pin", "a" * 32],
    "run with reading allowed": ["run", "d", "--allow", "read=data/*"],
    "run from a pipe": ["run", "-"],
    "run for a program": ["run", "d", "--json", "--quiet"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_without_a_terminal_ask_nothing_and_run_nothing(base: Path, command: str) -> None:
    """As in cron: exit status 2, and the list."""
    path = write(base, light(KINDS["python"]))
    arguments = [sys.executable, "-m", "dipeo_nb", *COMMANDS[command]]
    done = subprocess.run(arguments, input=path.read_text(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "return 1" in done.stdout + done.stderr
    assert not (base / MARK).exists()


def test_there_are_enough_entrances() -> None:
    """With the commands, and the two ways on from a record."""
    assert len(ENTRANCES) + len(COMMANDS) >= 30
    assert len(ENTRANCES) * len(SHORT) + len(COMMANDS) >= 80


# Changes after a yes.

NOT_RUN = {"flipped", "metadata"}


@pytest.mark.parametrize("kind", [kind for kind in NODE_SPECS if kind in set(NodeType)])
def test_a_change_of_any_field_ends_a_yes(base: Path, kind: str) -> None:
    """By the real reader and the real decision: for each field that a file can change, in three formats."""
    props: dict[str, dict[str, Any]] = {
        "code_job": {"code": "return 1"}, "sub_diagram": {"diagram_data": light()}, "condition": {"expression": "True", "person": "A"},
        "person_job": {"person": "A", "default_prompt": "Hi"}, "db": {"file": "a.txt"}, "diff_patch": {"target_path": "a.txt"},
    }  # fmt: skip
    work = node(kind, **props.get(kind, {}))
    data = light(
        *([] if kind in ("start", "endpoint") else [work]), persons={"A": {"service": "echo"}, "B": {"service": "echo"}}
    )
    label = {"start": "Start", "endpoint": "End"}.get(kind, "Work")
    if kind == "condition":
        data["connections"] = [{"from": "Start", "to": "Work"}, {"from": "Work_condtrue", "to": "End"}]
    document = load_text(json.dumps(data))
    before = document.capabilities(base_dir=base).digest
    tried = 0
    for f in dataclasses.fields(NODE_SPECS[kind]):
        for value in ("other", 7, True, ["other"], {"a": 1}, "B", "write", "bash", "hook", "GET", "PUT"):
            try:
                found = document.set(f"nodes.{label}.{f.name}", value)
                same = found.compile(base_dir=base).node(label).spec == document.compile(base_dir=base).node(label).spec
                after = found.capabilities(base_dir=base).digest
            except (DipeoError, ValueError):
                continue  # no value of that field
            if not same:
                tried += 1
                assert (after == before) is (f.name in NOT_RUN), f"{kind}.{f.name} = {value!r}"
                for form in ("native", "readable"):
                    other = load_text(found.to_text(form), format=form).capabilities(base_dir=base)
                    assert other.digest == after, f"{kind}.{f.name} = {value!r} in {form}"
                break
    assert tried >= 4


def test_a_yes_is_to_what_ran_then(session: Session, base: Path) -> None:
    """Whoever exchanges the file between the question and the run changes nothing; the next run asks."""
    path = write(base, light(node("code_job", code="return 1")))
    prepared = session.runtime.prepare(path, trust=load(path).capabilities().code)
    write(base, light(KINDS["python"]))
    execution = session.runtime.execution(prepared)
    from dipeo_nb.common.loop import run_sync

    run_sync(session.runtime.run(execution))
    assert execution.result() == 1
    with pytest.raises(TrustError), Runtime() as runtime:
        runtime.prepare(path, trust=load_text(json.dumps(light(node("code_job", code="return 1")))).capabilities().code)
    assert not (base / MARK).exists()


# What is no part of a diagram.


BEYOND: dict[str, dict[str, Any]] = {
    "template": node("template_job", template_path="private/diary.txt"),
    "include": node("template_job", template_content="{% include 'private/diary.txt' %}"),
    "schema": node("json_schema_validator", schema_path="private/s.json"),
    "prompt": node("person_job", person="A", prompt_file="private/diary.txt"),
    "shape of an answer": node("person_job", person="A", default_prompt="x", text_format_file="private/s.json"),
    "prompt of a decision": node("condition", condition_type="llm_decision", person="A", judge_by_file="private/diary.txt"),
    "diagram": node("sub_diagram", diagram_name="private/talk"),
    "template through a link": node("template_job", template_path="got/link.txt"),
    "in an inline diagram": node("sub_diagram", diagram_data=light(node("template_job", template_path="private/diary.txt"))),
}


@pytest.mark.parametrize("case", BEYOND)
def test_files_beyond_its_folder_do_not_come_with_a_guest(session: Session, base: Path, case: str) -> None:
    """A diagram in a folder of its own brings what lies there; the user's files elsewhere are listed, and asked about."""
    write(base, "Dear diary", "private/diary.txt")
    write(base, '{"type": "object", "title": "T", "properties": {"x": {"type": "string"}}}', "private/s.json")
    talk = light(node("person_job", person="A", default_prompt="Hi"), persons={"A": {"service": "echo"}})
    write(base, talk, "private/talk.light.yaml")
    (base / "got").mkdir()
    (base / "got" / "link.txt").symlink_to("../private/diary.txt")
    data = light(BEYOND[case], persons={"A": {"service": "echo"}})
    if BEYOND[case]["type"] == "condition":
        data["connections"] = [{"from": "Start", "to": "Work"}, {"from": "Work_condtrue", "to": "End"}]
    path = write(base, data, "got/d.light.yaml")
    with pytest.raises(TrustError) as caught:
        session.run(path, view=False)
    assert any("private/" in line or "link.txt" in line for line in caught.value.listing())
    with pytest.raises((TrustError, NotGrantedError, NodeExecutionError)):
        session.run(path, allow={"read": "other/*"}, view=False)
    write(base, data, "d.light.yaml")  # there, they are below its own folder
    document = load(base / "d.light.yaml")
    assert not [use for use in document.capabilities(base_dir=base).uses if use.kind in ("read", "diagram")]
