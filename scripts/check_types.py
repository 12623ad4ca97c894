"""Measures how much of the package's public interface has known types, as users' type checkers see it, and fails below the floor.

python scripts/check_types.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEAST = 95.0
"""Per cent of the symbols."""


def main() -> int:
    with tempfile.TemporaryDirectory() as elsewhere:  # below the root pyright takes the package for the project itself
        command = [
            sys.executable,
            "-m",
            "pyright",
            "--pythonpath",
            sys.executable,
            "--verifytypes",
            "dipeo_nb",
            "--ignoreexternal",
        ]
        site = Path(elsewhere, "site")
        site.mkdir()
        (site / "dipeo_nb").symlink_to(ROOT / "dipeo_nb")
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    found = re.search(r"^Type completeness score: ([\d.]+)%", done.stdout, re.MULTILINE)
    if found is None:
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
        return 1
    print(f"Type completeness: {found[1]} %, at least {LEAST} %")
    if float(found[1]) < LEAST:
        print("\n".join(line.replace(str(site), "") for line in done.stdout.splitlines() if " - error: " in line))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
