"""What a new process costs before it does anything: CPU seconds of whole processes, their children included.

Usage: python -m tests.benchmarks.startup [--rounds N] [--only WORD] [--ours] [--json FILE]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from tests.benchmarks.harness import OURS, Goal, Make, Row, Run, main

HELLO = """version: light
nodes:
- {label: Start, type: start}
- {label: Hello, type: template_job, template_content: "Hello!"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Hello}
- {from: Hello, to: End}
"""
FILE = "hello.light.yaml"
BARE = "python alone"


def process(*arguments: str) -> Make:
    """`python ARGUMENTS` in a folder that holds a small diagram; it must end with status 0."""

    async def make(stack: AsyncExitStack, n: int) -> Run:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / FILE).write_text(HELLO)

        async def run() -> None:
            command = [sys.executable, *arguments]
            await asyncio.to_thread(subprocess.run, command, cwd=folder, check=True, capture_output=True, timeout=120)

        return run

    return make


def cli(*arguments: str) -> Make:
    return process("-m", "dipeo_nb", *arguments)


def imports(module: str) -> Make:
    """A process that imports a module; a peer that is not installed is left out."""
    made = process("-c", f"import {module}")

    async def make(stack: AsyncExitStack, n: int) -> Run:
        __import__(module)
        return await made(stack, n)

    return make


def row(title: str, ours: Make, goal: float, **peers: Make) -> Row:
    return Row(title, 1, "run", {OURS: ours, BARE: process("-c", "pass"), **peers}, Goal(goal), "ms")


ROWS = [
    row(
        "import dipeo_nb",
        process("-c", "import dipeo_nb"),
        150,
        langgraph=imports("langgraph.graph"),
        burr=imports("burr.core"),
    ),
    row("first dp.load", process("-c", f"import dipeo_nb as dp; dp.load('{FILE}')"), 120),
    row("dipeo-nb --help", cli("--help"), 200),
    row("dipeo-nb validate FILE", cli("validate", FILE), 200),
    row("dipeo-nb runs", cli("runs"), 200),
    row("dipeo-nb keys list", cli("keys", "list"), 200),
    row("dipeo-nb run FILE", cli("run", FILE), 1000),
]
GROUP = "startup"

if __name__ == "__main__":
    main(GROUP, ROWS, "What a new process costs before it does anything.")
