"""code_job in TypeScript, bash and sh: real programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from dipeo_nb.errors import CodeError, InvalidDiagramError, NodeTimeoutError
from dipeo_nb.execution import node_js
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted


def run(base: Path, language: str, code: str | None = None, variables: dict[str, Any] | None = None, **props: Any) -> Any:
    diagram = {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "Work", "type": "code_job", "props": {"language": language, "code": code, **props}},
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [
            {"from": "Start", "to": "Work", "content_type": "object"},
            {"from": "Work", "to": "End", "content_type": "generic"},
        ],
    }
    with Session(base, llm=scripted()) as dp:
        return dp.run(diagram, view=False, inputs=variables or {}).output


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("return 1 + 1;", 2),
        ("const x: number = n * 2;\nreturn {x, list: [true, null]};", {"x": 6, "list": [True, None]}),
        ("import { basename } from 'node:path';\nreturn basename('/a/b.txt');", "b.txt"),
        ("export async function main(inputs: {n: number}) { return inputs.n; }", 3),
        ("function main(inputs: any): string { return `n=${inputs.n}`; }", "n=3"),
        ("export default (inputs: any) => Object.keys(inputs).includes('globals');", True),
        ("console.log('seen');", None),
        ("n = n + 1; return await Promise.resolve(n);", 4),
    ],
)
def test_typescript(tmp_path: Path, code: str, value: Any):
    """A body, a named function, a default export; inputs by name; values come back as JSON."""
    assert run(tmp_path, "typescript", code, {"n": 3}) == value


def test_typescript_file(tmp_path: Path):
    """A file below the base directory, with imports beside it and a function of another name."""
    (tmp_path / "lib.ts").write_text("export const twice = (n: number): number => 2 * n;\n")
    (tmp_path / "work.ts").write_text("import { twice } from './lib.ts';\nexport const go = (i: any) => twice(i.n);\n")
    assert run(tmp_path, "typescript", None, {"n": 3}, file_path="work.ts", function_name="go") == 6
    assert run(tmp_path, "typescript", "work.ts", {"n": 4}, function_name="go") == 8


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("throw new TypeError('no such luck');", "TypeError: no such luck"),
        ("return (", "SyntaxError"),
        ("export const other = 1;", "no exported function 'main'"),
        ("process.exit(7);", "exit status 7"),
        ("return 10n;", "BigInt"),
    ],
)
def test_typescript_that_fails(tmp_path: Path, code: str, words: str):
    """One error with what Node said."""
    with pytest.raises(CodeError, match="The TypeScript failed") as caught:
        run(tmp_path, "typescript", code)
    assert words in str(caught.value)


def test_without_node_the_run_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is refused before anything runs, with both ways out."""
    monkeypatch.setattr(node_js, "node", lambda: None)
    with pytest.raises(InvalidDiagramError, match=r"dipeo-nb\[node\]"):
        run(tmp_path, "typescript", "return 1;")


@pytest.mark.parametrize("language", ["bash", "shell"])
def test_shell(tmp_path: Path, language: str):
    """Inputs are variables, whatever is in them; the value is what it prints, in the base directory."""
    nasty = 'a\'b "c" $(touch bad) `x`\n2'
    assert run(tmp_path, language, 'printf "%s" "$INPUT_name"', {"name": nasty}) == nasty
    assert run(tmp_path, language, 'echo " $INPUT_KEYS"; ls', {"name": "x"}).split() == ["name,default"]
    assert not (tmp_path / "bad").exists()


def test_shell_file_and_values(tmp_path: Path):
    """A script runs in its own folder; structures arrive as JSON."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/go.sh").write_text('basename "$PWD"; echo "$INPUT_data"')
    out = run(tmp_path, "bash", None, {"data": [1]}, file_path="tools/go.sh")
    assert out.split() == ["tools", "[", "1", "]"]


def test_secrets_stay_with_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The programs do not see the keys of the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789abcdef")
    assert "canary" not in run(tmp_path, "bash", "env")
    assert run(tmp_path, "typescript", "return process.env.OPENAI_API_KEY ?? 'none';") == "none"


def test_shell_that_fails(tmp_path: Path):
    """Exit status and stderr are the error."""
    with pytest.raises(CodeError, match="exit status 3: no luck"):
        run(tmp_path, "bash", "echo no luck >&2; exit 3")
    with pytest.raises(CodeError, match="printed more than"):
        run(tmp_path, "bash", "yes | head -c 20000000")


@pytest.mark.parametrize(("language", "code"), [("bash", "sleep 61.7 & sleep 61.7"), ("typescript", "for (;;);")])
def test_late_code_is_killed_with_what_it_started(tmp_path: Path, language: str, code: str):
    """No orphan is left."""
    with pytest.raises(NodeTimeoutError, match="limit of 1 s"):
        run(tmp_path, language, code, timeout=1)
    left = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]  # a zombie has none
    assert not [command for command in left if "61.7" in command or "runner.mjs" in command]
