"""Random diagrams in the notation of `tests.support.loop_interpreter`."""

from __future__ import annotations

import random

from tests.support.loop_interpreter import Shape

End = tuple[str, str]
"""A node, and the branch on which it goes on."""


class _Drawing:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.kinds: dict[str, str] = {}
        self.arrows: list[tuple[End, str, str]] = []

    def new(self, kind: str) -> str:
        name = f"{'c' if kind in ('?', '?~') else 'n'}{len(self.kinds) + 1}"
        self.kinds[name] = kind
        return name

    def condition(self) -> str:
        return self.new("?~" if self.rng.random() < 0.15 else "?")

    def worker(self) -> str:
        return self.new("" if self.rng.random() < 0.7 else f"/{self.rng.randint(1, 4)}")

    def connect(self, ends: list[End], target: str, mark: str = "") -> None:
        for end in ends:
            if (end, target, mark) not in self.arrows:
                self.arrows.append((end, target, mark))

    def branch(self, node: str) -> str:
        """A random branch of a node."""
        if self.kinds.get(node, "") in ("?", "?~"):
            return self.rng.choice("+-")
        return self.rng.choice(["", "", "!"]) if self.kinds.get(node) == "!" else ""

    def text(self) -> str:
        seen: set[str] = set()

        def written(node: str) -> str:
            kind = "" if node in seen else self.kinds.get(node, "").strip("!")
            seen.add(node)
            return f"{kind}{node}" if kind.startswith("?") else f"{node}{kind}"

        return "; ".join(f"{written(node)}{branch} > {written(target)}{mark}" for (node, branch), target, mark in self.arrows)

    # Structured programs.

    def block(self, ends: list[End], depth: int, budget: list[int]) -> list[End]:
        """Some steps after *ends*; the ends after them."""
        rng = self.rng
        for _ in range(rng.randint(1, 3)):
            if budget[0] <= 0:
                break
            budget[0] -= 1
            match rng.choices(["step", "loop", "if", "parallel", "error"], [30, 20 if depth < 3 else 0, 20, 15, 15])[0]:
                case "step":
                    ends = self.one(ends, self.worker())
                case "loop":
                    header = self.worker()
                    self.connect(ends, header)
                    condition = self.condition()
                    self.connect(self.joined(self.block([(header, "")], depth + 1, budget)), condition)
                    self.connect([(condition, "-")], header)
                    if rng.random() < 0.3:
                        self.connect([(condition, "-")], self.new(""))
                    ends = [(condition, "+")]
                case "if":
                    condition = self.condition()
                    self.connect(self.joined(ends), condition)
                    yes: list[End] = [(condition, "+")]
                    no: list[End] = [(condition, "-")]
                    ends = self.block(yes, depth + 1, budget) if rng.random() < 0.8 else yes
                    ends = ends + (self.block(no, depth + 1, budget) if rng.random() < 0.5 else no)
                case "parallel":
                    fork = self.one(ends, self.new(""))
                    ends = self.block(fork, depth + 1, budget) + self.block(fork, depth + 1, budget)
                case _:
                    failing = self.new("!")
                    self.connect(ends, failing)
                    failed: list[End] = [(failing, "!")]
                    ends = self.block([(failing, "")], depth + 1, budget)
                    ends = ends + (self.block(failed, depth + 1, budget) if rng.random() < 0.6 else failed)
        return ends

    def one(self, ends: list[End], node: str) -> list[End]:
        self.connect(ends, node)
        return [(node, "")]

    def joined(self, ends: list[End]) -> list[End]:
        return ends if len(ends) == 1 else self.one(ends, self.new(""))


def random_program(rng: random.Random, size: int) -> str:
    """Steps, loops, ifs, parallel branches and error branches inside each other, and a few more arrows across them."""
    drawing = _Drawing(rng)
    last = drawing.new("")
    drawing.connect(drawing.block([("s", "")], 0, [size]), last)
    workers = [n for n, kind in drawing.kinds.items() if not kind.startswith("?")]
    for _ in range(rng.randint(0, 4)):
        source, target = rng.choice([*drawing.kinds, "s"]), rng.choice(workers)
        backwards = source in workers and workers.index(target) <= workers.index(source)
        if backwards and rng.random() < 0.8:
            continue
        branch = rng.choice("+-") if source not in workers and source != "s" else ""
        first = drawing.kinds[target].startswith("/") and rng.random() < 0.4
        drawing.connect([(source, branch)], target, "^" if first else "")
    if rng.random() < 0.2:
        target = rng.choice(workers)
        drawing.connect([("t", "")], target, "^" if drawing.kinds[target].startswith("/") and rng.random() < 0.5 else "")
    return drawing.text()


def random_graph(rng: random.Random, size: int) -> str:
    """Any graph in which everything can be reached: cycles, self loops, loops with several entries."""
    drawing = _Drawing(rng)
    kinds = ["?", "?~", "!", "/1", "/2", "/3", ""]
    nodes = [drawing.new(rng.choices(kinds, [25, 5, 7, 4, 4, 4, 51])[0]) for _ in range(size)]
    workers = [n for n in nodes if not drawing.kinds[n].startswith("?")] or [drawing.new("")]
    drawing.connect([("s", "")], nodes[0])
    for i, node in enumerate(nodes[1:], 1):
        source = rng.choice(nodes[:i])
        drawing.connect([(source, drawing.branch(source))], node)
    for _ in range(rng.randint(0, size)):
        source, target = rng.choice(nodes), rng.choice(workers)
        first = drawing.kinds[target].startswith("/") and rng.random() < 0.3
        drawing.connect([(source, drawing.branch(source))], target, "^" if first else "")
    if rng.random() < 0.2:
        drawing.connect([("t", "")], rng.choice(workers))
    return drawing.text()


def random_decisions(rng: random.Random, shape: Shape) -> dict[str, str]:
    """What conditions decide and which runs fail; mostly so that loops end."""
    decided: dict[str, str] = {}
    for node, kind in shape.kinds.items():
        if kind in ("condition", "skippable"):
            decided[node] = "".join(rng.choices("+-", k=rng.randint(1, 4))) + rng.choice("+++-")
        elif any(a.source == node and a.branch == "!" for a in shape.arrows):
            decided[node] = "".join(rng.choices("!.", k=rng.randint(1, 3))) + "."
    return decided
