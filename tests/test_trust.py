"""Code of diagrams from elsewhere: refused, shown, trusted by its hash (container.Runtime.prepare, security/trust.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pexpect
import pytest

from dipeo_nb.config import get_settings
from dipeo_nb.container import Runtime
from dipeo_nb.diagram.document import load
from dipeo_nb.errors import StorageError, TrustError
from dipeo_nb.security.trust import TrustedCode, digest_of, sources_of


def light(*nodes: dict[str, Any]) -> str:
    """A chain of these nodes as a light diagram."""
    chain = [{"label": "Start", "type": "start"}, *nodes, {"label": "End", "type": "endpoint"}]
    arrows = [{"from": a["label"], "to": b["label"]} for a, b in pairwise(chain)]
    return json.dumps({"version": "light", "nodes": chain, "connections": arrows})


def code(text: str) -> dict[str, Any]:
    return {"label": "Work", "type": "code_job", "props": {"language": "python", "code": text}}


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diagram file outside the base directory."""
    path = tmp_path_factory.mktemp("elsewhere") / "odd.light.yaml"
    path.write_text(light(code("return 1 + 1")))
    return path


def test_the_refusal_shows_what_would_run(elsewhere: Path):
    """The error has the code of every node, in what IPython shows too; control characters are written out."""
    elsewhere.write_text(light(code("return 1 + 1  # \x1b[8m hidden \u202e")))
    with pytest.raises(TrustError) as caught:
        Runtime().prepare(elsewhere)
    assert caught.value.facts["sources"][0][0] == "Work"
    shown = "\n".join(caught.value._render_traceback_())
    assert "    return 1 + 1  # \\x1b[8m hidden \\u202e" in shown
    assert "--trust" in shown


def test_trusted_code_is_remembered_and_changed_code_is_not(elsewhere: Path):
    """trust=True once is enough for that code, in other runtimes and for a copy of the file; one character more asks again."""
    Runtime().prepare(elsewhere, trust=True)
    Runtime().prepare(elsewhere)
    copy = elsewhere.with_name("copy.light.yaml")
    copy.write_text(elsewhere.read_text())
    Runtime().prepare(copy)
    elsewhere.write_text(light(code("return 1 + 2")))
    with pytest.raises(TrustError):
        Runtime().prepare(elsewhere)


def test_trust_can_be_taken_back(elsewhere: Path):
    """`forget` undoes `remember`."""
    runtime = Runtime()
    runtime.prepare(elsewhere, trust=True)
    digest = digest_of([("Work", "return 1 + 1")])
    assert runtime.trusted.forget(digest)
    assert not runtime.trusted.forget(digest)
    with pytest.raises(TrustError):
        runtime.prepare(elsewhere)


def test_diagrams_without_code_need_no_trust(elsewhere: Path):
    """Nothing is asked, nothing remembered."""
    elsewhere.write_text(light())
    Runtime().prepare(elsewhere)
    assert not (get_settings().data_dir / "trusted.json").exists()


def test_validate_remembers_nothing(elsewhere: Path):
    """Looking at a diagram is not trusting it."""
    done = cli("validate", str(elsewhere))
    assert done.returncode == 0
    with pytest.raises(TrustError):
        Runtime().prepare(elsewhere)


@pytest.mark.parametrize(
    "node",
    [
        {"label": "Work", "type": "code_job", "props": {"language": "bash", "code": "rm -r /"}},
        {"label": "Work", "type": "hook", "props": {"hook_type": "shell", "command": "rm", "config": {"args": ["-r", "/"]}}},
        {"label": "Work", "type": "hook", "props": {"hook_type": "python", "config": {"script": "evil.py"}}},
        {"label": "Work", "type": "template_job", "props": {"template_content": "x", "preprocessor": "os.system"}},
        {"label": "Work", "type": "sub_diagram", "props": {"diagram_data": json.loads(light(code("return 1")))}},
    ],
    ids=["bash", "shell hook", "python hook", "preprocessor", "inline diagram"],
)  # fmt: skip
def test_every_kind_of_code_needs_trust(elsewhere: Path, node: dict[str, Any]):
    """Shell, hooks, preprocessors and the code in diagrams within diagrams."""
    elsewhere.write_text(light(node))
    assert [label for label, _ in sources_of(load(elsewhere).compile())] == ["Work"]


def test_a_damaged_record_is_kept_and_said(tmp_path: Path):
    """A file that is not ours to read is not overwritten."""
    path = tmp_path / "trusted.json"
    path.write_text("{broken")
    with pytest.raises(StorageError, match="cannot be read"):
        TrustedCode(path).remember("abc", "x")
    assert path.read_text() == "{broken"


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dipeo_nb", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)


def test_the_command_refuses_shows_and_remembers(elsewhere: Path):
    """Without a terminal nobody is asked; --trust once is enough."""
    refused = cli("run", str(elsewhere))
    assert refused.returncode == 2
    assert "    return 1 + 1" in refused.stderr
    assert cli("run", "--trust", str(elsewhere)).stdout.strip() == "2"
    assert cli("run", str(elsewhere)).stdout.strip() == "2"


@pytest.mark.skipif(os.name == "nt", reason="not here: no terminals to drive on Windows")
def test_a_yes_at_the_prompt_is_remembered(elsewhere: Path):
    """The code is shown and asked about; no runs nothing, yes runs it, and the next time nothing is asked."""

    def ask(answer: str | None) -> tuple[str, int | None]:
        arguments = ["-m", "dipeo_nb", "run", "--quiet", str(elsewhere)]
        child = pexpect.spawn(sys.executable, arguments, encoding="utf-8", timeout=60)
        if answer is not None:
            child.expect(r"return 1 \+ 1[\s\S]*Run it\? \[y/N\] ")
            child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        return child.before or "", child.exitstatus

    assert ask("n")[1] == 2
    assert ask("y")[1] == 0
    shown, status = ask(None)
    assert (shown.strip(), status) == ("2", 0)
