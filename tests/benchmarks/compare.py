"""Two commits side by side: `make bench-compare BASE=COMMIT [HEAD=COMMIT]`.

Both are checked out beside each other; their rows take turns, commit after commit, round after round, so that a machine that
becomes slower does so for both.

Usage: python -m tests.benchmarks.compare BASE [HEAD] [--groups engine,diagrams] [--only WORD] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.harness import OURS, load

ROOT = Path(__file__).parents[2]
Key = tuple[str, str, str]
"""Group, title, unit of a row."""


def main() -> None:
    """Measure both, and show the ratio of their medians."""
    parser = argparse.ArgumentParser(description="Two commits side by side.")
    parser.add_argument("base")
    parser.add_argument("head", nargs="?", default="HEAD")
    parser.add_argument("--groups", default="engine,diagrams,startup")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=5, help="how often both commits have their turn (5)")
    options = parser.parse_args()
    commits = (options.base, options.head)
    figures: dict[Key, dict[str, list[float]]] = defaultdict(lambda: {commit: [] for commit in commits})
    with ExitStack() as stack:
        trees = {commit: _checked_out(stack, commit) for commit in commits}
        for number in range(options.rounds):
            for commit, tree in trees.items():
                for group in options.groups.split(","):
                    for key, figure in _measured(tree, group, options.only).items():
                        figures[key][commit].append(figure)
            print(f"round {number + 1} of {options.rounds} is done", flush=True)
    shown = Table("", *commits, "against the first")
    for (group, title, unit), found in figures.items():
        before, after = (statistics.median(found[commit]) if found[commit] else None for commit in commits)
        ratio = "" if before is None or after is None or not before else f"{after / before:.3f}×"
        cells = ("–" if value is None else f"{value:,.1f} {unit}" for value in (before, after))
        shown.add_row(f"{group}: {title}", *cells, ratio)
    Console(width=140).print(shown)


def _checked_out(stack: ExitStack, commit: str) -> Path:
    """A tree of the commit, with today's benchmarks in it: both are measured by the same ones."""
    tree = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "tree"
    subprocess.run(["git", "worktree", "add", "--detach", "--quiet", tree, commit], cwd=ROOT, check=True)
    stack.callback(subprocess.run, ["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=False)
    for folder in ("benchmarks", "support"):
        shutil.copytree(
            ROOT / "tests" / folder, tree / "tests" / folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tree


def _measured(tree: Path, group: str, only: str) -> dict[Key, float]:
    """One round of our rows of a group, by the package in *tree*."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        command = [sys.executable, "-m", f"tests.benchmarks.{group}", "--ours", "--rounds", "1", "--json", str(path)]
        command += ["--only", only] if only else []
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        done = subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, text=True)
        if done.returncode:
            print(f"{group} of {tree.name} did not do its work:\n{done.stderr[-2000:]}", file=sys.stderr)
        if not path.exists():
            return {}
        return {(r.group, r.title, r.unit if r.per == "run" else f"{r.unit}/{r.per}"): r.median[OURS] for r in load(path)}


if __name__ == "__main__":
    main()
