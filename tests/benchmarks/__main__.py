"""All benchmarks: `make bench`.

Each group runs in a process of its own; at the end all rows stand in one table, and in a file.

Usage: python -m tests.benchmarks [GROUP …] [--rounds N] [--only WORD] [--ours] [--json FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.benchmarks.harness import Result, load, save, table

GROUPS = ("startup", "diagrams", "engine", "llm", "events", "storage", "growth")


def main() -> int:
    """Measure the groups; the exit status is 1 when the work of one was not done."""
    parser = argparse.ArgumentParser(description="All benchmarks, each against its peers.")
    parser.add_argument("groups", nargs="*", help="default: all of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose title has this word")
    parser.add_argument("--ours", action="store_true", help="without the peers")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the results go (benchmarks.json)")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    results: list[Result] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for group in options.groups or GROUPS:
            path = Path(folder) / f"{group}.json"
            command = [sys.executable, "-m", f"tests.benchmarks.{group}", "--rounds", str(options.rounds), "--json", str(path)]
            command += ["--only", options.only] if options.only else []
            command += ["--ours"] if options.ours else []
            if subprocess.run(command, check=False).returncode:
                failed.append(group)
            if path.exists():
                results += load(path)
    save(results, options.json)
    console = Console(width=160)
    console.print(table(results))
    met = [r.met for r in results]
    console.print(f"{met.count(True)} goals met, {met.count(False)} missed, {met.count(None)} rows without one: {options.json}")
    for group in failed:
        console.print(f"[bold]{group} did not do its work; see above.[/bold]")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
