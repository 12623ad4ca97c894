"""Write the goldens, or what a folder of diagrams does; see the package."""

from __future__ import annotations

import os
import sys

PATH = os.environ.get("PATH", os.defpath)
os.environ.clear()  # before anything is imported that reads it: nothing of the user counts
os.environ.update(
    PATH=PATH, COLUMNS="100", TERMINAL_WIDTH="100", LINES="40", TERM="dumb", NO_COLOR="1", LANG="C.UTF-8", TZ="UTC"
)

import argparse  # noqa: E402
from datetime import date  # noqa: E402
from pathlib import Path  # noqa: E402

from dipeo_nb.common import clock  # noqa: E402
from tests.golden import cases, providers  # noqa: E402
from tests.support.no_egress import loopback  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description="Write the goldens anew.")
    parser.add_argument("folder", nargs="?", type=Path, help="Record the diagrams of this folder instead, in one file.")
    parser.add_argument(
        "--out", type=Path, help="The file of FOLDER; without FOLDER, a folder to write to instead of tests/golden."
    )
    arguments = parser.parse_args()
    loopback.only()
    with clock.on(date(2026, 6, 1)):
        if arguments.folder is not None:
            if arguments.out is None or not arguments.folder.is_dir():
                parser.error("give a folder that exists, and --out FILE")
            folder, out = arguments.folder.resolve(), arguments.out.resolve()
            texts = cases.texts_of(folder)
            parts = {
                "runs": cases.diagrams(texts, folder),
                "findings": cases.findings(folder),
                "drawings": cases.drawings(texts),
            }
            found = {f"{name} of {case}": text for name, part in parts.items() for case, text in part.items()}
            out.write_text(written(found), encoding="utf-8")
            print(f"Written: {arguments.out}", file=sys.stderr)
            return 0
        target = (arguments.out or cases.HERE).resolve()
        target.mkdir(parents=True, exist_ok=True)
        for name, part in cases.goldens().items():
            (target / f"{name}.txt").write_text(written(part), encoding="utf-8")
    if arguments.out is None:
        (target / "providers.json").write_text(providers.written(), encoding="utf-8")
    print(f"Written: {target}/*.txt. Next: git diff tests/golden", file=sys.stderr)
    return 0


def written(found: cases.Cases) -> str:
    """One file: the cases under their names."""
    return "".join(f"== {name}\n{text}\n" for name, text in found.items())


sys.exit(main())
