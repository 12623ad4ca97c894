"""The error index: each page of tests/diagnostics shows a mistake, the exact message that it gets, and the fix, and is run here.

After a change of words, `WRITE_DIAGNOSTICS=1` writes the messages into the pages: read the difference.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import dipeo_nb as dp
from dipeo_nb import cli
from dipeo_nb.domain import llm_providers
from dipeo_nb.errors import DipeoError

PAGES = sorted((Path(__file__).parents[1] / "diagnostics").glob("*.md"))
PAGE = re.compile(
    r"# (?P<title>[^\n]+)\n\n```(?P<kind>yaml|console|python)\n(?P<wrong>.*?)```\n\n```text\n(?P<message>.*?)```\n\n"
    r"## Fix\n\n```(?P=kind)\n(?P<fix>.*?)```\n\Z",
    re.DOTALL,
)
HELLO = """\
version: light
persons: {Ada: {service: echo}}
nodes:
- {label: Start, type: start}
- {label: Hello, type: person_job, person: Ada, default_prompt: Say hello.}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Hello}
- {from: Hello, to: End}
"""
"""The diagram `hello` of the pages."""
Shown = tuple[int, str]
"""(exit code, what is shown)."""


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str, str], Shown]:
    """Runs a block of a page in a folder that holds the diagram `hello` and nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(llm_providers, "_REGISTERED", {})
    for facts in llm_providers.BUILT_IN.values():
        for variable in facts.key_variables:
            monkeypatch.delenv(variable, raising=False)
    (tmp_path / "hello.light.yaml").write_text(HELLO, encoding="utf-8")

    def run(kind: str, text: str) -> Shown:
        if kind == "python":
            try:
                exec(compile(text, "page", "exec"), {"dp": dp, "__name__": "page"})
            except DipeoError as error:
                capsys.readouterr()
                return 1, f"{type(error).__name__}: {error}\n"
            capsys.readouterr()
            return 0, ""
        if kind == "yaml":
            (tmp_path / "diagram.light.yaml").write_text(text, encoding="utf-8")
            commands = [["validate", "diagram.light.yaml"]]
        else:
            commands = [shlex.split(line)[2:] for line in text.splitlines()]
        code, shown = 0, ""
        for command in commands:
            capsys.readouterr()
            code = _exit_code(command)
            err = capsys.readouterr().err
            shown += err  # the findings; what was done is on stdout
        return code, shown.replace(str(tmp_path), "BASE")

    return run


def _exit_code(command: list[str]) -> int:
    try:
        return cli.main(command)
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_is_true(page: Path, show: Callable[[str, str], Shown]) -> None:
    """The mistake gets exactly this message; the fix gets none."""
    text = page.read_text(encoding="utf-8")
    found = PAGE.fullmatch(text)
    assert found, "a page is: # title, the mistake, ```text with the message, ## Fix, the fix"
    code, message = show(found["kind"], found["wrong"])
    if os.environ.get("WRITE_DIAGNOSTICS"):
        page.write_text(text[: found.start("message")] + message + text[found.end("message") :], encoding="utf-8")
    else:
        assert message == found["message"]
    assert code or "warning[" in message
    code, message = show(found["kind"], found["fix"])
    assert code == 0, message
    if found["kind"] == "yaml":
        assert not re.search(rf"\[{re.escape(_code(found['message']))}\]", message), message


def test_pages_are_published() -> None:
    """The index of errors leads to each."""
    index = (PAGES[0].parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"](../tests/diagnostics/{page.name})" not in index] == []


def _code(message: str) -> str:
    """The code of the first finding of a message."""
    found = re.search(r"(?:error|warning|info)\[([\w-]+)\]", message)
    return found[1] if found else "-"


def test_there_are_pages_for_every_kind_of_mistake() -> None:
    kinds = [found["kind"] for page in PAGES if (found := PAGE.fullmatch(page.read_text(encoding="utf-8")))]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == json.loads('{"console": 10, "python": 12, "yaml": 41}')
    titles = [page.read_text(encoding="utf-8").partition("\n")[0] for page in PAGES]
    assert len(set(titles)) == len(titles)
