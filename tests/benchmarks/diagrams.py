"""Large diagrams: reading, compiling, rendering templates, drawing.

Usage: python -m tests.benchmarks.diagrams [--rounds N] [--only WORD] [--ours] [--json FILE]
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import yaml
from resvg_py import svg_to_bytes

from dipeo_nb.diagram.document import load
from dipeo_nb.diagram.png import svg_to_png
from dipeo_nb.diagram.prompts import PromptBuilder
from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from tests.benchmarks.harness import OURS, Goal, Make, Row, Run, main

Work = Callable[[int], Callable[[], Any]]
"""Size → what to do."""


def each(work: Work) -> Make:
    async def make(stack: AsyncExitStack, n: int) -> Run:
        done = work(n)

        async def run() -> None:
            done()

        return run

    return make


def text_of(nodes: int) -> str:
    """A light diagram: a chain of prompts with every tenth a condition that goes back."""
    lines = ["version: light", "persons:", "  Ada: {service: openai, model: gpt-4o}", "nodes:", "- {label: Start, type: start}"]
    arrows: list[str] = []
    last = "Start"
    for n in range(nodes - 2):
        if n % 10 == 9:
            lines += [f"- label: Check {n}", "  type: condition", "  props:", f"    expression: default != '{n}'"]
            arrows += [f"- {{from: {last}, to: Check {n}}}", f"- {{from: Check {n}_condfalse, to: Ask {n - 1}}}"]
            last = f"Check {n}_condtrue"
        else:
            lines += [
                f"- label: Ask {n}", "  type: person_job", "  props:", "    person: Ada",
                f"    default_prompt: 'Continue with {{{{default}}}} as {n}.'", "    max_iteration: 2",
            ]  # fmt: skip
            arrows.append(f"- {{from: {last}, to: Ask {n}}}")
            last = f"Ask {n}"
    return "\n".join([*lines, "- {label: End, type: endpoint}", "connections:", *arrows, f"- {{from: {last}, to: End}}"]) + "\n"


def loops_of(nodes: int) -> str:
    """A light diagram: loops of two persons and a condition that watches their limits, one behind the other, last arrow first."""
    lines = ["version: light", "persons:", "  Ada: {service: openai, model: gpt-5}", "nodes:", "- {label: Start, type: start}"]
    arrows: list[str] = []
    last = "Start"
    for n in range((nodes - 1) // 3):
        lines += [
            f"- {{label: {name}{n}, type: person_job, person: Ada, default_prompt: Go on as {n}., max_iteration: 2}}"
            for name in "AB"
        ]
        lines.append(f"- {{label: C{n}, type: condition, condition_type: detect_max_iterations}}")
        arrows += [f"- {{from: {last}, to: A{n}}}", f"- {{from: A{n}, to: B{n}}}", f"- {{from: B{n}, to: C{n}}}"]
        arrows.append(f"- {{from: C{n}_condfalse, to: A{n}}}")
        last = f"C{n}_condtrue"
    return "\n".join([*lines, "connections:", *reversed(arrows)]) + "\n"


def load_and_compile(text_of: Callable[[int], str]) -> Work:
    def make(n: int) -> Callable[[], Any]:
        text = text_of(n)

        def work() -> None:
            plan = load(text).compile()
            assert len(plan.nodes) == n

        return work

    return make


def bare_parse(text_of: Callable[[int], str]) -> Work:
    def make(n: int) -> Callable[[], Any]:
        text, loader = text_of(n), yaml.CSafeLoader
        return lambda: yaml.load(text, Loader=loader)

    return make


PLACEHOLDERS = 400
TEMPLATE = "".join(f"{'Some prose around it. ' * 10}{{{{v{n}}}}}\n" for n in range(PLACEHOLDERS))
"""About 95 KB."""
VALUES = {f"v{n}": f"value {n}" for n in range(PLACEHOLDERS)}


def our_template(n: int) -> Callable[[], Any]:
    templates = SimpleTemplateProcessor()
    return lambda: [templates.process(TEMPLATE, VALUES) for _ in range(n)]


def jinja_template(n: int) -> Callable[[], Any]:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    compiled = ImmutableSandboxedEnvironment().from_string(TEMPLATE)
    return lambda: [compiled.render(VALUES) for _ in range(n)]


PROMPT = "".join(f"{'A sentence of the prompt. ' * 10}{{{{v{n}}}}}\n" for n in range(20))
PROMPT_VALUES = {f"v{n}": f"value {n}" for n in range(20)}


def our_prompt(n: int) -> Callable[[], Any]:
    builder = PromptBuilder()
    return lambda: [builder.build(PROMPT, PROMPT_VALUES) for _ in range(n)]


def jinja_prompt(n: int) -> Callable[[], Any]:
    from jinja2 import Environment

    compiled = Environment().from_string(PROMPT)
    return lambda: [compiled.render(PROMPT_VALUES) for _ in range(n)]


def our_drawing(n: int) -> Callable[[], Any]:
    text = text_of(n)
    return lambda: load(text).svg()


async def dot(stack: AsyncExitStack, n: int) -> Run:
    """Graphviz, if it is there."""
    program = shutil.which("dot")
    if program is None:
        raise ImportError("graphviz is not installed")
    model = load(text_of(n)).model
    arrows = [f'"{a.source}" -> "{a.target}"' for a in model.arrows]
    graph = f"digraph {{ node [shape=box]; {'; '.join(arrows)} }}"

    async def run() -> None:
        await asyncio.to_thread(subprocess.run, [program, "-Tsvg"], input=graph.encode(), check=True, capture_output=True)

    return run


def pause_of(drawn: Callable[[str], Any]) -> Make:
    """The longest that another thread waits while a picture of *n* nodes is made."""

    async def make(stack: AsyncExitStack, n: int) -> Run:
        svg = load(text_of(n)).svg(theme="light")

        async def run() -> float:
            work = asyncio.ensure_future(asyncio.to_thread(drawn, svg))
            longest, last = 0.0, time.perf_counter()
            while not work.done():
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                longest, last = max(longest, now - last - 0.001), now
            await work
            return longest

        return run

    return make


PARSE, JINJA = "CSafeLoader alone", "Jinja2, compiled"
ROWS = [
    Row(f"load and compile {n:,} nodes{shape}", n, "node", {OURS: each(load_and_compile(text)), PARSE: each(bare_parse(text))},
        Goal(within={PARSE: 2}))
    for n, text, shape in ((500, text_of, ""), (2_000, text_of, ""), (10_000, text_of, ""), (10_000, loops_of, " in 3,333 loops"))
] + [
    Row("template of 95 KB with 400 values", 20, "render", {OURS: each(our_template), JINJA: each(jinja_template)},
        Goal(within={JINJA: 2})),
    Row("PromptBuilder again, 5 KB with 20 values", 1000, "prompt", {OURS: each(our_prompt), "Jinja2": each(jinja_prompt)},
        Goal(faster={"Jinja2": 5})),
    Row("PNG of 500 nodes: longest pause of other threads, wall time", 500, "run",
        {OURS: pause_of(svg_to_png), "resvg in a thread": pause_of(lambda svg: svg_to_bytes(svg_string=svg))}, Goal(50), "ms"),
    Row("drawing of 500 nodes", 500, "run", {OURS: each(our_drawing), "graphviz dot": dot}, Goal(faster={"graphviz dot": 1}), "ms"),
]  # fmt: skip
GROUP = "diagrams"

if __name__ == "__main__":
    main(GROUP, ROWS, "Large diagrams: reading, compiling, rendering, drawing.")
