"""`dipeo-nb serve` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

HELLO = """
version: light
metadata: {name: Hello}
persons:
  Ada: {service: echo, model: m}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, person: Ada, default_prompt: "Hello {{name}}."}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: End}
"""


class Served:
    """A server in a process of its own."""

    def __init__(self, base: Path, *options: str, **environment: str) -> None:
        command = [sys.executable, "-m", "dipeo_nb", "serve", "--base-dir", str(base), *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.token = environment.get("DIPEO_SERVE_TOKEN") or self.process.stdout.readline().strip()
        said = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        assert found, said + self.process.stderr.read()
        self.port = int(found[1])
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {self.token}"}, timeout=30
        )

    def start(self, **order: Any) -> str:
        answer = self.http.post("/runs", json=order)
        assert answer.status_code == 201, answer.text
        return answer.json()["run_id"]

    def events(self, run_id: str, **options: Any) -> Iterator[dict[str, Any]]:
        """The stream to its end: (id, event, data) of every frame."""
        with self.http.stream("GET", f"/runs/{run_id}/events", **options) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            frame: dict[str, Any] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name in ("id", "event"):
                    frame[name] = value
                elif name == "data":
                    frame["data"] = json.loads(value)
                elif not line and frame:
                    yield frame
                    frame = {}

    def close(self) -> int:
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.communicate()
