"""The conformance suite of the Model Context Protocol against `dipeo-nb mcp`: the diagrams that its scenarios call, and a run of it.

The suite knows no tokens. It talks to a proxy that adds the one of the server to each request and changes nothing else.
"""

from __future__ import annotations

import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.npm import command, environment

ROOT = Path(__file__).parents[2]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
SILENCE = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="


def says(value: Any, **about: Any) -> dict[str, Any]:
    """A diagram whose result is a value."""
    return chain({"label": "Value", "type": "start", "props": {"custom_data": {}}}, code(f"result = {value!r}"), **about)


def code(text: str) -> dict[str, Any]:
    return {"label": "Code", "type": "code_job", "props": {"language": "python", "code": text}}


def asks(label: str, prompt: str, **props: Any) -> dict[str, Any]:
    return {"label": label, "type": "user_response", "props": {"prompt": prompt, "timeout": 60, **props}}


def chain(start: dict[str, Any], *nodes: dict[str, Any], description: str = "For the conformance suite.") -> dict[str, Any]:
    """A diagram of nodes behind each other."""
    row = [start, *nodes, {"label": "End", "type": "endpoint"}]
    return {
        "version": "light",
        "metadata": {"description": description},
        "nodes": row,
        "connections": [{"from": a["label"], "to": b["label"]} for a, b in pairwise(row)],
    }


START = {"label": "Start", "type": "start"}
CONFIRM = asks("confirm", "Please confirm", validation_type="boolean")
FILE = {"type": "resource", "resource": {"uri": "test://embedded-resource", "mimeType": "text/plain", "text": "A file."}}
IMAGE = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
DIAGRAMS: dict[str, dict[str, Any]] = {
    # Results.
    "test_simple_text": says("This is a simple text response for testing."),
    "test_image_content": says(f"data:image/png;base64,{PIXEL}"),
    "test_audio_content": says(f"data:audio/wav;base64,{SILENCE}"),
    "test_embedded_resource": says({"text": "", "content": [FILE]}),
    "test_multiple_content_types": says({"text": "Several kinds:", "content": [IMAGE, FILE]}),
    "test_error_handling": chain(START, code("raise ValueError('This tool intentionally returns an error for testing')")),
    "test_tool_with_progress": says("done"),
    "test_logging_tool": says("done"),
    # Questions.
    "test_elicitation": chain(
        {"label": "Start", "type": "start", "props": {"custom_data": {"message": ""}}},
        asks("username", "{{message}}", default="nobody"),
    ),
    "test_streaming_elicitation": chain(START, CONFIRM),
    "test_missing_capability": chain(START, CONFIRM),
    "test_input_required_result_elicitation": chain(START, asks("user_name", "What is your name?")),
    "test_input_required_result_request_state": chain(START, CONFIRM),
    "test_input_required_result_tampered_state": chain(START, CONFIRM),
    "test_input_required_result_multi_round": chain(
        START, asks("step1", "Step 1: What is your name?"), asks("step2", "Step 2: What is your favorite color?")
    ),
    # Prompts.
    "test_simple_prompt": says("done"),
    "test_prompt_with_arguments": chain(
        {"label": "Start", "type": "start", "props": {"custom_data": {"arg1": "", "arg2": ""}}}
    ),
}
"""Diagrams by the names that the scenarios call them by."""


def write(base: Path) -> None:
    """Write the diagrams into a folder."""
    for name, diagram in DIAGRAMS.items():
        (base / f"{name}.light.yaml").write_text(json.dumps(diagram))


@contextmanager
def served(base: Path, *options: str) -> Iterator[tuple[str, str]]:
    """(address, token) of `dipeo-nb mcp --http` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dipeo_nb", "mcp", "--http", "--port", "0", "--base-dir", str(base), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        token = process.stdout.readline().strip()
        said = process.stderr.readline()
        found = re.search(r"http://\S+/mcp", said)
        assert found, said
        with ThreadPoolExecutor(1) as reader:
            reader.submit(process.stderr.read)  # so that the server never waits for one
            try:
                yield found[0], token
            finally:
                process.terminate()
    finally:
        process.kill()
        process.communicate()


@contextmanager
def admitted(url: str, token: str) -> Iterator[str]:
    """The address of a proxy that adds a token to each request; a connection carries one request."""
    port = int(url.rsplit(":", 1)[1].partition("/")[0])

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines: list[bytes] = []
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                if not line.lower().startswith(b"connection:"):
                    lines.append(line)
            lines += [f"Authorization: Bearer {token}\r\n".encode(), b"Connection: close\r\n\r\n"]
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as theirs:
                theirs.sendall(b"".join(lines))
                back = threading.Thread(target=_copy, args=(theirs.recv, self.connection), daemon=True)
                back.start()
                _copy(self.rfile.read1, theirs)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        proxy.daemon_threads, proxy.block_on_close = True, False  # what is still open ends with the server
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_address[1]}/mcp"
        finally:
            proxy.shutdown()
            thread.join()


def _copy(read: Callable[[int], bytes], target: socket.socket) -> None:
    with suppress(OSError):
        while data := read(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def suite(*arguments: str, folder: Path, timeout_s: int = 30) -> subprocess.CompletedProcess[str]:
    """A run of the suite with its results in a folder; each scenario has as many seconds."""
    line = command("@modelcontextprotocol/conformance", *arguments)
    return subprocess.run(
        [*line, "--output-dir", str(folder), "--timeout", str(timeout_s * 1000)],
        capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=600,
    )  # fmt: skip
