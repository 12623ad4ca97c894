"""The parent's side of the code worker: one process per run, started on first use, killed at the end.

The worker sees no API keys: variables of the environment whose name looks like a secret are not handed down.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dipeo_nb.config import child_environment
from dipeo_nb.domain.ports import CodeResult
from dipeo_nb.errors import CodeError, NodeTimeoutError
from dipeo_nb.execution import code_worker
from dipeo_nb.execution.commands import kill_group
from dipeo_nb.execution.inputs import Inputs, plain

FRAME_LIMIT = 256 * 1024 * 1024
"""Bytes of one answer at most."""


class ProcessCodeRunner:
    """Runs the Python code of one run in one worker process.

    Args:
        base_dir: working directory of the code, and first place of its imports.
    """

    def __init__(self, base_dir: Path) -> None:
        self._base_dir = base_dir
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._errors: asyncio.Task[None] | None = None
        self._on_output: Callable[[str], None] | None = None

    async def run_python(
        self,
        code: str,
        *,
        filename: str,
        inputs: Inputs,
        variables: Mapping[str, Any],
        assigned: Mapping[str, Any],
        node_id: str,
        function_name: str,
        timeout: float,
        shared: bool = True,
        folder: Path | None = None,
        on_output: Callable[[str], None] | None = None,
        on_log: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> CodeResult:
        """See `domain.ports.CodeRunner`."""
        names = inputs.names({})
        request = {
            "code": code,
            "filename": filename,
            "names": {k: plain(v) for k, v in names.items()},
            "labels": list(inputs.values),
            "whole": {k: plain(inputs.values[k]) for k in inputs.passed},
            "stale": [*inputs.stale, *(k for k in inputs.spread if inputs.stale == set(inputs.values))],
            "globals": {k: plain(v) for k, v in variables.items()},
            "variables": dict(assigned),
            "node_id": node_id,
            "function": function_name,
            "shared": shared,
            "path": [str(p) for p in (self._base_dir, folder) if p is not None],
        }
        printed: list[str] = []

        def output(text: str) -> None:
            printed.append(text)
            if on_output is not None:
                on_output(text)

        async with self._one_at_a_time:
            self._on_output = output
            try:
                async with asyncio.timeout(timeout):
                    answer = await self._exchange(request, output, on_log)
            except TimeoutError:
                await self._kill()
                raise NodeTimeoutError(
                    f"The code took longer than its limit of {timeout:g} s and was stopped.",
                    hint="Give the node a larger `timeout` (seconds).",
                ) from None
            except asyncio.CancelledError:
                await self._kill()
                raise
            finally:
                self._on_output = None
        if "error" in answer:
            line = f" (line {answer['line']})" if answer.get("line") else ""
            kind = f"{answer['error']}: " if answer["error"] else "The "
            raise CodeError(
                f"{kind}{answer['message']}{line}",
                hint=answer.get("hint") or "Mend the code of the node; the traceback is in the error's `traceback`.",
                traceback=answer["traceback"],
            )
        return CodeResult(answer["value"], answer["variables"], "".join(printed))

    async def cleanup(self) -> None:
        """Kill the worker. Safe to call twice."""
        await self._kill()

    async def _exchange(
        self,
        request: Mapping[str, Any],
        output: Callable[[str], None],
        log: Callable[[Mapping[str, Any]], None] | None,
    ) -> dict[str, Any]:
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        data = json.dumps(request).encode()
        try:
            process.stdin.write(struct.pack(">I", len(data)) + data)
            await process.stdin.drain()
            while True:
                head = await process.stdout.readexactly(4)
                size = struct.unpack(">I", head)[0]
                if size > FRAME_LIMIT:
                    await self._kill()
                    raise CodeError(
                        f"The result of the code has {size:,} bytes, more than the limit of {FRAME_LIMIT:,}.",
                        hint="Write it to a file and return its name.",
                    )
                frame = json.loads(await process.stdout.readexactly(size))
                if "out" in frame:
                    output(frame["out"])
                elif "log" in frame:
                    if log is not None:
                        log(frame["log"])
                else:
                    return frame
        except (asyncio.IncompleteReadError, ConnectionError, BrokenPipeError):
            code = await process.wait()
            await self._kill()
            raise CodeError(
                f"The process of the code ended by itself (exit status {code}).",
                hint="The code crashed the interpreter or was killed (out of memory?).",
                traceback="",
            ) from None

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-s",
                "-u",
                code_worker.__file__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._base_dir,
                env=child_environment(),
                start_new_session=True,
            )
            self._errors = asyncio.create_task(self._relay(self._process))
        return self._process

    async def _relay(self, process: asyncio.subprocess.Process) -> None:
        """What children of the code print belongs to its output."""
        assert process.stderr is not None
        while data := await process.stderr.read(65536):
            if self._on_output is not None:
                self._on_output(data.decode("utf-8", "replace"))

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                kill_group(process.pid)
            await process.wait()
            if process.stdin is not None:
                process.stdin.close()
        errors, self._errors = self._errors, None
        if errors is not None:
            errors.cancel()
            await asyncio.gather(errors, return_exceptions=True)
