"""A JavaScript engine for tests: the Node that playwright's package brings along."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

driver = pytest.importorskip("playwright._impl._driver", reason="pip install -e '.[dev]'")


def run_module(script: str, given: Any, folder: Path) -> Any:
    """What the function `answer(given)` of an ES module returns, as JSON.

    Args:
        folder: where the module and its input are written.
    """
    module, data = folder / "module.mjs", folder / "given.json"
    reading = "import { readFileSync as readFile } from 'node:fs';\n"
    telling = "process.stdout.write(JSON.stringify(answer(JSON.parse(readFile(process.argv[2], 'utf8')))) ?? 'null');\n"
    module.write_text(reading + script + telling, encoding="utf-8")
    data.write_text(json.dumps(given), encoding="utf-8")
    node = driver.compute_driver_executable()
    node = node[0] if isinstance(node, tuple) else node
    done = subprocess.run([node, str(module), str(data)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)
