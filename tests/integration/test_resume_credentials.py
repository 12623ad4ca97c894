"""Diagrams in which a credential stands: it is in no record, and their runs go on all the same, with exactly what ran."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.redaction import HIDDEN
from dipeo_nb.errors import RunError, TrustError, UserError
from dipeo_nb.notebook.run import Run
from dipeo_nb.notebook.session import Session
from tests.support.untrusted_folder import light, node, write

KEY = "sk-" + "a1B2" * 8
OTHER = "sk-" + "c3D4" * 8


def failing(key: str = KEY) -> dict[str, Any]:
    """A run of it fails behind its first node until there is a file `go`; it gives how often the first ran, and the key's length."""
    count = "open('count', 'a').write('x')\nreturn len(open('count').read())"
    use = f"token = {key!r}\nopen('go').close()\nreturn [First, len(token)]"
    return light(node("code_job", "First", code=count), node("code_job", "Use", code=use)) | {
        "connections": [
            {"from": "Start", "to": "First"}, {"from": "First", "to": "Use", "label": "First"}, {"from": "Use", "to": "End"},
        ]
    }  # fmt: skip


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.chdir(tmp_path)
    with Session() as made:
        yield made


def failed(session: Session, diagram: Any) -> Run:
    """A run that has failed; the record of it holds no key."""
    run = session.start(diagram, view=False)
    with pytest.raises(RunError):
        run.result(30)
    assert HIDDEN in json.dumps(run.events[0].payload["source"])
    for path in session.settings.base_dir.rglob("*"):
        if path.is_file() and path.suffix not in (".yaml", ".json"):
            assert KEY.encode() not in path.read_bytes(), path
    return run


@pytest.mark.parametrize("how", ["resume", "fork"])
def test_the_file_is_read_again(session: Session, tmp_path: Path, how: str) -> None:
    """What had finished does not run again; the credential is the one of the file."""
    run = failed(session, write(tmp_path, failing()))
    write(tmp_path, "", "go")
    again = session.resume(run.id, view=False) if how == "resume" else session.fork(run.id, at="Use", view=False)
    assert again.result(30).output == [1, len(KEY)]
    assert KEY not in json.dumps([event.payload for event in again.events], default=str)


def test_a_fork_may_change_it(session: Session, tmp_path: Path) -> None:
    """Also the node that has the credential."""
    run = failed(session, write(tmp_path, failing()))
    assert session.fork(run.id, set={"nodes.Use.code": "return First"}, view=False).result(30).output == 1


@pytest.mark.parametrize("change", ["another credential", "another code", "gone", "no diagram"])
@pytest.mark.parametrize("how", ["resume", "fork"])
def test_another_file_is_refused(session: Session, tmp_path: Path, change: str, how: str) -> None:
    """One clear error with both ways out; giving the diagram as it was goes on."""
    path = write(tmp_path, failing())
    run = failed(session, path)
    write(tmp_path, "", "go")
    match change:
        case "another credential":
            write(tmp_path, failing(OTHER))
        case "another code":
            write(tmp_path, failing(KEY + "'+open('evil','w').write('x')+'"))
        case "gone":
            path.unlink()
        case _:
            path.write_text("no: diagram")

    def again(**options: Any) -> Run:
        return (
            session.resume(run, view=False, **options)
            if how == "resume"
            else session.fork(run, at="Use", view=False, **options)
        )

    with pytest.raises(UserError, match="held a credential, which is not recorded") as caught:
        again()
    assert "diagram=" in str(caught.value.hint)
    assert KEY not in str(caught.value)
    with pytest.raises(UserError, match="what was given is not what ran"):
        again(diagram=failing(OTHER))
    assert again(diagram=failing()).result(30).output == [1, len(KEY)]
    assert not (tmp_path / "evil").exists()


def test_a_diagram_that_was_typed_is_given_again(session: Session, tmp_path: Path) -> None:
    """There is no file to read it from; a run of it says so, and takes it by its own methods, too."""
    run = failed(session, failing())
    write(tmp_path, "", "go")
    with pytest.raises(UserError, match="it came from no file"):
        run.resume(view=False)
    assert run.resume(diagram=json.dumps(failing()), view=False).result(30).output == [1, len(KEY)]


def test_a_record_of_somebody_else_reads_no_file(session: Session, tmp_path: Path) -> None:
    """A foreign record that names a file of the user's is not completed from it, and runs nothing."""
    write(tmp_path, failing())
    run = failed(session, "d.light.yaml")
    write(tmp_path, "", "go")
    (session.settings.data_dir / "signing.key").unlink()
    with Session() as other, pytest.raises((UserError, TrustError), match="credential"):
        other.resume(run.id, view=False)


def test_a_sub_diagram_goes_on(session: Session, tmp_path: Path) -> None:
    """What has finished in it does not run again."""
    write(tmp_path, failing(), "child.light.yaml")
    run = session.start(light(node("sub_diagram", "Sub", diagram_name="child")), view=False)
    with pytest.raises(RunError):
        run.result(30)
    write(tmp_path, "", "go")
    session.resume(run.id, view=False).result(30)
    assert (tmp_path / "count").read_text() == "x"


def test_a_sub_diagram_whose_file_is_gone(session: Session, tmp_path: Path) -> None:
    """It never runs with the mark of what is hidden in place of the credential."""
    path = write(tmp_path, failing(), "child.light.yaml")
    run = session.start(light(node("sub_diagram", "Sub", diagram_name="child")), view=False)
    with pytest.raises(RunError):
        run.result(30)
    write(tmp_path, "", "go")
    path.unlink()
    with pytest.raises((RunError, UserError), match="child"):
        session.resume(run.id, view=False).result(30)
    assert (tmp_path / "count").read_text() == "x"
