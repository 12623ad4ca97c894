"""A hostile repository is cloned and used by the command line: looked at, converted, run. Nothing leaves, nothing runs unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.hostile_repository import CONTROL_NAME, HIDDEN_NAME, STORES, WANTING, Repository, hostile_repository
from tests.support.rendering_attacks import HARMFUL, live

pytestmark = pytest.mark.skipif(os.name == "nt", reason="not here: names and links of the repository need POSIX")

DRIVER = """
    import io, json, os, sys
    sys.path.insert(0, "")  # as in a kernel and in interactive Python: what lies in the folder can be imported
    outside = json.loads(sys.argv[1])
    events = []
    def watch(event, args):
        if event == "open" and isinstance(args[0], (str, bytes)) and isinstance(args[1], str):
            name = os.path.realpath(os.fsdecode(args[0]))
            if name.startswith(outside):
                events.append(["open", name, args[1]])
        elif event in ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            events.append([event, repr(args[1:3])[:200], ""])
    sys.addaudithook(watch)
    from dipeo_nb import cli
    from dipeo_nb.cli import consent

    class Keys(io.StringIO):
        questions = 0
        def readline(self, *_):
            Keys.questions += 1
            return chr(10)

    class Screen(io.StringIO):
        def isatty(self):
            return True

    consent.interactive = lambda: True
    done = []
    for command in json.load(sys.stdin):
        sys.stdin, sys.stdout, sys.stderr = Keys(), Screen(), Screen()
        Keys.questions, before = 0, len(events)
        status = cli.main(command)
        out, err = sys.stdout.getvalue(), sys.stderr.getvalue()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        done.append({"command": command, "questions": Keys.questions, "status": status, "out": out, "err": err, "events": events[before:]})
    print(json.dumps(done))
"""
"""Commands in one process, with what each shows, asks and does."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with hostile_repository(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.fixture
def clone(repository: Repository) -> Iterator[Repository]:
    """The repository; afterwards nothing of it has run, nobody has called, and nothing outside has changed."""
    before = repository.snapshot()
    yield repository
    assert repository.ran == []
    assert repository.canary.heard == []
    assert repository.snapshot() == before


def used(clone: Repository, *commands: tuple[str, ...]) -> list[dict[str, Any]]:
    """What came of commands in the clone, for a user with a key and a home."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("DIPEO_") or k == "DIPEO_CACHE_DIR"} | {
        "HOME": str(clone.outside), "OPENAI_API_KEY": "sk-of-the-user-0123456789abcdef", "DIPEO_KEYS_STORE": "file",
        "XDG_CONFIG_HOME": str(clone.outside.parent / "config"), "DIPEO_DATA_DIR": str(clone.outside.parent / "mine"), "COLUMNS": "200", "TERM": "dumb",
    }  # fmt: skip
    driver = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(DRIVER), json.dumps(str(clone.outside))]
    done = subprocess.run(
        driver, input=json.dumps(commands), capture_output=True, text=True, check=False, env=env, cwd=clone.folder, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def harmless(result: dict[str, Any], clone: Repository) -> None:
    """No connection, no program, nothing outside opened, nothing that steers a terminal."""
    own = "from dipeo_nb.workers.child import main"  # isolated: it imports nothing of the folder
    what = [
        event
        for event in result["events"]
        if not event[1].startswith("('-") and not (event[0] == "subprocess.Popen" and own in event[1])
    ]
    assert what == [], result["command"]
    for text in (result["out"], result["err"]):
        assert not HARMFUL.search(text), (result["command"], text)
        assert "CANARY" not in text


def test_looking(clone: Repository) -> None:
    """List, check, inspect, convert, draw, and look at the records that came along: no question."""
    looks = ("looks.light.yaml", "code.light.yaml", HIDDEN_NAME, CONTROL_NAME)
    drawn = clone.outside.parent / "drawn"
    drawn.mkdir(exist_ok=True)
    commands: list[tuple[str, ...]] = [
        ("runs",),
        ("runs", "--json"),
        ("models",),
        ("keys", "list"),
        ("trust", "--list"),
        ("trust", ".", "--list"),
    ]
    commands += [(command, name) for name in looks for command in ("validate", "inspect")]
    commands += [("convert", name, "--to", form) for name in looks[:2] for form in ("native", "readable", "light")]
    commands += [("render", "looks.light.yaml", "-o", str(drawn / f"d.{kind}")) for kind in ("svg", "html", "mmd", "png")]
    commands += [
        ("explain", clone.run_id),
        ("replay", clone.run_id),
        ("export", clone.run_id, "-o", str(drawn / "run.json")),
        ("diff", clone.run_id, clone.run_id),
    ]
    results = used(clone, *commands)
    for result in results:
        harmless(result, clone)
        assert result["questions"] == 0, result["command"]
    assert [r["command"][0] for r in results if r["status"] != 0] == ["replay"]  # which ends as the run did
    assert clone.run_id in results[1]["out"]
    assert live((drawn / "d.html").read_text()) == []
    assert live((drawn / "d.svg").read_text()) == []


def test_prompts_only_run_without_a_question(clone: Repository) -> None:
    """The diagrams that only talk, on a model that costs nothing; what one writes is not where it says."""
    before = (clone.folder / "helper.py").read_bytes()
    commands = [("run", "prompts.light.yaml", "--quiet"), ("run", "looks.light.yaml", "--quiet", "--model", "echo"), ("runs",)]
    *results, written = used(clone, *commands, ("run", "notes.light.yaml", "--quiet"))
    for result in results:
        harmless(result, clone)
        assert (result["questions"], result["status"]) == (0, 0), result
    harmless(written, clone)
    assert (written["questions"], written["status"]) == (0, 1), "the folder of drafts is a link"
    assert "link" in written["err"]
    assert (clone.folder / "helper.py").read_bytes() == before


def test_stores_of_the_folder_are_one_question(clone: Repository) -> None:
    """Where records go is asked about before anything is opened; a no is kept, in another process, too."""
    path = clone.folder / ".env"
    text = path.read_text()
    path.write_text(text + STORES.format(f"127.0.0.1:{clone.canary.port}"))
    try:
        first, second = used(clone, ("run", "prompts.light.yaml", "--quiet"), ("runs",))
        [third] = used(clone, ("run", "prompts.light.yaml", "--quiet"))
    finally:
        path.write_text(text)
    for result, questions in ((first, 1), (second, 0), (third, 0)):
        harmless(result, clone)
        assert (result["questions"], result["status"]) == (questions, 2), result
    assert "STATE_STORE_PATH" in first["err"]


def test_everything_else_is_asked_about_once(clone: Repository) -> None:
    """On the echo model, too; Enter runs nothing. A record that came along is a diagram from elsewhere."""
    commands = [("run", f"{name}.light.yaml", "--quiet") for name in WANTING]
    commands += [("run", HIDDEN_NAME, "--quiet"), ("run", CONTROL_NAME, "--quiet", "--model", "echo"), ("resume", clone.run_id)]
    for result in used(clone, *commands):
        harmless(result, clone)
        assert result["status"] == 2, result
        assert result["questions"] == 1, result


def test_unattended_it_is_refused(clone: Repository) -> None:
    """Also by clients of the library, and by a model that the user moves everything to."""
    code = """
        import json, sys
        import dipeo_nb as dp
        refused = 0
        for name in json.loads(sys.argv[1]):
            d = dp.load(f"{name}.light.yaml")
            d._repr_mimebundle_(), repr(d), d.capabilities().uses.listing()
            try:
                dp.run(d, view=False)
            except dp.TrustError as error:
                error._repr_mimebundle_()
                refused += 1
        print(refused)
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("DIPEO_")} | {
        "HOME": str(clone.outside), "XDG_CONFIG_HOME": str(clone.outside.parent / "config"), "DIPEO_DATA_DIR": str(clone.outside.parent / "mine"),
    }  # fmt: skip
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-P",
        "-c",
        "import sys; sys.path.insert(0, '')\n" + textwrap.dedent(code),
        json.dumps(WANTING),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=clone.folder, timeout=300)
    assert done.stdout.split() == [str(len(WANTING))], done.stderr
