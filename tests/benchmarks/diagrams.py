"""Large diagrams: reading, compiling, rendering templates, drawing.

Usage: python -m tests.benchmarks.diagrams [--rounds N] [--only WORD] [--ours] [--json FILE]
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import yaml

from dipeo_nb.diagram.document import load
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


def load_and_compile(n: int) -> Callable[[], Any]:
    text = text_of(n)

    def work() -> None:
        plan = load(text).compile()
        assert len(plan.nodes) == n

    return work


def bare_parse(n: int) -> Callable[[], Any]:
    text, loader = text_of(n), yaml.CSafeLoader
    return lambda: yaml.load(text, Loader=loader)


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
    arrows = [f'"{a.source_node_id}" -> "{a.target_node_id}"' for a in model.arrows]
    graph = f"digraph {{ node [shape=box]; {'; '.join(arrows)} }}"

    async def run() -> None:
        await asyncio.to_thread(subprocess.run, [program, "-Tsvg"], input=graph.encode(), check=True, capture_output=True)

    return run


PARSE, JINJA = "CSafeLoader alone", "Jinja2, compiled"
ROWS = [
    Row(f"load and compile {n:,} nodes", n, "node", {OURS: each(load_and_compile), PARSE: each(bare_parse)}, Goal(within={PARSE: 2}))
    for n in (500, 2_000, 10_000)
] + [
    Row("template of 95 KB with 400 values", 20, "render", {OURS: each(our_template), JINJA: each(jinja_template)},
        Goal(within={JINJA: 2})),
    Row("PromptBuilder again, 5 KB with 20 values", 1000, "prompt", {OURS: each(our_prompt), "Jinja2": each(jinja_prompt)},
        Goal(faster={"Jinja2": 5})),
    Row("drawing of 500 nodes", 500, "run", {OURS: each(our_drawing), "graphviz dot": dot}, Goal(faster={"graphviz dot": 1}), "ms"),
]  # fmt: skip
GROUP = "diagrams"

if __name__ == "__main__":
    main(GROUP, ROWS, "Large diagrams: reading, compiling, rendering, drawing.")
