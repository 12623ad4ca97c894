"""Sub-diagrams that are chosen while a run goes on: what `--allow` and a yes let them do, with the files they bring
(security/gate)."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.capabilities import Use
from dipeo_nb.errors import NodeExecutionError, NotGrantedError, RunError, TrustError, UserError
from dipeo_nb.notebook.session import Session
from dipeo_nb.security.gate import granting
from tests.support.untrusted_folder import MARK, base, light, marking, node, session, write

__all__ = ["base", "session"]  # fixtures

CHILDREN: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "code": (node("code_job", code=marking()), {}),
    "code file": (node("code_job", file_path="w.py"), {"w.py": marking()}),
    "line that names a file": (node("code_job", code="w.py"), {"w.py": marking()}),
    "module": (node("code_job", code=f"import helper\n{marking()}"), {"helper.py": "x = 1"}),
    "bash file": (node("code_job", language="bash", code="w.sh"), {"w.sh": f"echo x > {MARK}"}),
    "python hook": (
        node("hook", hook_type="python", config={"script": "w.py"}),
        {"w.py": f"def hook(**k):\n open({MARK!r}, 'w')\n return 1"},
    ),
    "shell hook": (node("hook", hook_type="shell", command="sh w.sh"), {"w.sh": f"echo x > {MARK}"}),
    "template": (node("template_job", template_path="t.j2", output_path=MARK), {"t.j2": "{% include 'u.j2' %}", "u.j2": "hi"}),
    "preprocessor": (
        node("template_job", template_content="x", preprocessor="helper.prepare"),
        {"helper.py": f"def prepare(names):\n open({MARK!r}, 'w')\n return {{}}"},
    ),
    "diagram in it": (node("sub_diagram", "In", diagram_data=light(node("code_job", code=marking()))), {}),
    "write": (node("db", operation="write", file=MARK), {}),
}
ALL = {"diagram": True, "code": True, "read": True, "write": True}


def chosen(base: Path, case: str, **fields: Any) -> Path:
    """A diagram that runs the one of a case, whose name it is told."""
    kind, files = CHILDREN[case]
    for name, text in files.items():
        write(base, text, name)
    write(base, light(kind), "sub/child.light.yaml")
    return write(base, light(node("sub_diagram", diagram_name="{{which}}", **fields)))


@pytest.mark.parametrize("case", CHILDREN)
def test_what_was_allowed_is_granted(session: Session, base: Path, case: str) -> None:
    assert session.run(chosen(base, case), allow=ALL, which="sub/child", view=False).status == "completed"
    assert (base / MARK).exists()


@pytest.mark.parametrize("case", CHILDREN)
def test_a_refusal_names_what_to_add(session: Session, base: Path, case: str) -> None:
    """The list of the yes has only that some diagram is chosen; with what the refusal names it runs, and with nothing less."""
    path = chosen(base, case)
    with pytest.raises(NotGrantedError) as caught:
        session.run(path, trust=True, which="sub/child", view=False)
    assert not (base / MARK).exists()
    named = re.search(r"--allow \S+ \(allow=(\{.*?\})\)", str(caught.value.hint))
    assert named
    assert session.run(path, trust=True, allow=ast.literal_eval(named[1]), which="sub/child", view=False).status == "completed"
    assert (base / MARK).exists()


def test_a_diagram_is_allowed_by_its_path(session: Session, base: Path) -> None:
    """That one, with what is allowed besides, and no other of that name."""
    path = chosen(base, "code file")
    write(base, light(node("code_job", file_path="w.py")), "child.light.yaml")
    for name in ("sub/child", "sub/child.light.yaml", "sub/*"):
        allow = {"diagram": name, "code": True}
        assert session.run(path, allow=allow, which="sub/child", view=False).status == "completed"
        (base / MARK).unlink()
        with pytest.raises(NotGrantedError, match="was not part of what was shown") as caught:
            session.run(path, allow=allow, which="child", view=False)
        assert "diagram=child" in str(caught.value.hint)
    assert not (base / MARK).exists()


def test_a_guest_among_guests(session: Session, base: Path) -> None:
    """What a guest may do unasked, a chosen diagram may: it writes into the folder of the run."""
    path = chosen(base, "write")
    run = session.run(path, allow={"diagram": True}, which="sub/child", view=False)
    assert run.status == "completed"
    assert not (base / MARK).exists()
    assert list((base / ".dipeo" / "drafts").rglob(MARK))


def test_a_code_file_changed_by_the_run_is_not_run(session: Session, base: Path) -> None:
    """Not as a part of a diagram that is chosen later either."""
    chosen(base, "template")
    path = write(
        base,
        light(
            node("template_job", "Write", template_content=MARK, output_path="u.j2"),
            node("sub_diagram", diagram_name="{{which}}"),
        ),
    )
    with pytest.raises(NotGrantedError, match="was written by this run"):
        session.run(path, allow=ALL, which="sub/child", view=False)
    assert not (base / MARK).exists()


def test_the_bytes_that_were_shown_first_are_run(session: Session, base: Path) -> None:
    """A file of the diagram that was shown stays what it was, also for a diagram that is chosen later."""
    write(base, "result = 1", "w.py")
    write(base, light(node("code_job", file_path="w.py")), "sub/child.light.yaml")
    change = f"open('w.py', 'w').write({marking()!r})\nreturn 1"
    path = write(
        base,
        light(
            node("code_job", "First", file_path="w.py"),
            node("code_job", "Change", code=change),
            node("sub_diagram", diagram_name="{{which}}"),
        ),
    )
    assert session.run(path, allow=ALL, which="sub/child", view=False).output == 1
    assert not (base / MARK).exists()


@pytest.mark.parametrize("way", ["batch", "again", "resume", "resume after a yes", "fork"])
def test_other_entrances(session: Session, base: Path, way: str) -> None:
    allow = {"diagram": True, "code": True}
    match way:
        case "batch":
            path = chosen(base, "code file", batch=True, batch_input_key="items")
            run = session.run(path, allow=allow, inputs={"which": "sub/child", "items": [1, 2]}, view=False)
            assert run.output == [1, 1]
        case "again":
            path = chosen(base, "code file")
            assert [session.run(path, allow=allow, which="sub/child", view=False).status for _ in "ab"] == ["completed"] * 2
        case "fork":
            path = chosen(base, "code file")
            run = session.run(path, allow=allow, which="sub/child", view=False)
            with pytest.raises(TrustError):
                session.fork(run.id, at="Work", view=False)
            assert session.fork(run.id, at="Work", allow=allow, view=False).result().status == "completed"
        case _:
            path = chosen(base, "code file")
            with pytest.raises((NotGrantedError, NodeExecutionError)) as caught:
                session.run(
                    path,
                    which="sub/child",
                    view=False,
                    trust=True if "yes" in way else None,
                    allow=None if "yes" in way else {"diagram": True},
                )
            run_id = str(caught.value.facts.get("run_id") or session.runs()[0].run_id)
            with pytest.raises((NotGrantedError, RunError, UserError)):
                session.resume(run_id, view=False).result()
            assert not (base / MARK).exists()
            assert session.resume(run_id, allow=allow, view=False).result().status == "completed"
    assert (base / MARK).exists()


@pytest.mark.parametrize("what", ["a,code", "a\ncode", "a b,process ", "a "])
def test_what_is_named_to_add_grants_nothing_else(what: str) -> None:
    """A name may hold what ends a name on the command line."""
    text = granting([Use("write", what)])
    assert text == f"allow={ {'write': what} }"


@pytest.mark.parametrize("what", ["$(touch x)", "a;b", "a'b", "`x`", "a b"])
def test_what_is_named_to_add_is_quoted(what: str) -> None:
    line = granting([Use("write", what)]).partition(" (allow=")[0]
    assert shlex.split(line) == ["--allow", f"write={what}"]
