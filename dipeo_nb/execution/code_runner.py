"""The parent's side of the code workers: the processes that run the Python code of one run.

The first is started on first use; a further one when code waits for a free one for longer than `GROW_AFTER`. All are killed at the
end. Which of them runs a piece of code makes no difference to it: the worker gets the variables that the code is to see as far as
it does not have them. Only what cannot be made again in another process (an open connection, a running thread) ties code that can
see it to the process that has it; such code takes turns.

Workers get harmless variables of the environment only (`common.child_environment`).
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dipeo_nb.config import code_environment, missing_variable
from dipeo_nb.domain.ports import CodeResult
from dipeo_nb.errors import CodeError, NodeTimeoutError
from dipeo_nb.execution import code_worker
from dipeo_nb.execution.child_process import BASE_DIR, kill_group
from dipeo_nb.execution.code_state import EMPTY, Change, View
from dipeo_nb.execution.inputs import Inputs, plain

FRAME_LIMIT = 256 * 1024 * 1024
"""Bytes of one answer at most."""
WORKERS = 8
"""Processes of one run at most."""
GROW_AFTER = 0.05
"""Seconds without any piece of code coming to its end before waiting code gets a further worker: quick code shares one process."""
_LAUNCH = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("_dipeo_code_worker", sys.argv.pop())
sys.modules[spec.name] = module = module_from_spec(spec)
spec.loader.exec_module(module)
del spec, module_from_spec, spec_from_file_location
module.main()
"""
"""Loads the worker by its path, compiled as it was the last time."""


class ProcessCodeRunner:
    """Runs the Python code of one run in worker processes.

    Args:
        base_dir: working directory of the code, and a place of its imports.
        pass_env: names of further variables of the environment that the code gets.
    """

    def __init__(self, base_dir: Path, pass_env: Sequence[str] = ()) -> None:
        self._base_dir = base_dir
        self._pass_env = pass_env
        self._workers: list[_Worker] = []
        self._released = asyncio.Event()
        self._moved = 0.0
        """When a worker last came to the end of something."""

    async def run_python(
        self,
        code: str,
        *,
        filename: str,
        inputs: Inputs,
        variables: Mapping[str, Any],
        node_id: str,
        function_name: str,
        timeout: float,
        view: View = EMPTY,
        shared: bool = True,
        file: Path | None = None,
        modules: Mapping[str, bytes] | None = None,
        on_output: Callable[[str], None] | None = None,
        on_log: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> CodeResult:
        """See `domain.ports.CodeRunner`."""
        names = inputs.names({})
        request: dict[str, Any] = {
            "code": code,
            "filename": filename,
            "file": None if file is None else str(file),
            "names": {k: plain(v) for k, v in names.items()},
            "labels": list(inputs.values),
            "whole": {k: plain(inputs.values[k]) for k in inputs.passed},
            "variables_arrive": inputs.variables_arrive,
            "stale": [*inputs.stale, *(k for k in inputs.spread if inputs.stale == set(inputs.values))],
            "globals": {k: plain(v) for k, v in variables.items()},
            "node_id": node_id,
            "function": function_name,
            "shared": shared,
            "path": list(dict.fromkeys(str(p) for p in (*([file.parent] if file else []), self._base_dir))),
        }
        printed: list[str] = []

        def output(text: str) -> None:
            printed.append(text)
            if on_output is not None:
                on_output(text)

        worker = await self._acquire(view if shared else EMPTY)
        try:
            if modules is not None:
                request |= worker.given(modules, request["path"])
            worker.on_output = output
            async with asyncio.timeout(timeout):
                answer = await worker.answer(request, view if shared else EMPTY, on_log)
        except TimeoutError:
            await worker.kill()
            raise NodeTimeoutError(
                f"The code took longer than its limit of {timeout:g} s and was stopped.",
                hint="Give the node a larger `timeout` (seconds).",
            ) from None
        except BaseException:
            await worker.kill()
            raise
        finally:
            worker.on_output = None
            self._release(worker)
        if "error" in answer:
            raise self._error(answer, code)
        changed = {part: answer[part] for part in ("objects", "definitions", "deleted", "lost", "shown") if part in answer}
        result = CodeResult(answer["value"], answer["variables"], "".join(printed), changed)
        if shared:
            worker.keep(result)
        return result

    def _error(self, answer: Mapping[str, Any], code: str) -> CodeError:
        error = _error(answer)
        if "lost" not in answer:
            lines = f"{code}\n{answer['traceback']}"  # also those of modules that it imports
            error.hint = missing_variable(lines, error.message, self._pass_env) or error.hint
        return error

    async def cleanup(self) -> None:
        """Kill the workers. Safe to call twice."""
        workers, self._workers = self._workers, []
        await asyncio.gather(*(worker.kill() for worker in workers))

    async def _acquire(self, view: View) -> _Worker:
        """A worker that nobody else uses until it is released."""
        now = asyncio.get_running_loop().time
        began = now()
        while True:
            tied = [worker for worker in self._workers if worker.has_alone(view)]
            free = [worker for worker in tied or self._workers if not worker.busy]
            if free:
                worker = max(free, key=lambda w: w.known(view))
                break
            grows = not tied and len(self._workers) < WORKERS and all(worker.ready for worker in self._workers)
            left = max(began, self._moved) + GROW_AFTER - now() if self._workers else 0.0
            if grows and left <= 0:
                worker = _Worker(self._base_dir, self._pass_env, self._move)
                self._workers.append(worker)
                break
            self._released.clear()
            try:
                async with asyncio.timeout(left if grows else None):
                    await self._released.wait()
            except TimeoutError:
                continue
        worker.busy = True
        return worker

    def _release(self, worker: _Worker) -> None:
        worker.busy = False
        if not worker.alive and worker in self._workers:
            self._workers.remove(worker)
        self._move()

    def _move(self) -> None:
        """Those who wait look again."""
        self._moved = asyncio.get_running_loop().time()
        self._released.set()


def _error(answer: Mapping[str, Any]) -> CodeError:
    line = f" (line {answer['line']})" if answer.get("line") else ""
    facts: dict[str, Any] = {fact: answer[fact] for fact in ("name", "lost") if fact in answer}
    if "lost" in answer:
        label, why = answer["lost"]
        return CodeError(
            f"'{answer['name']}', which '{label}' set, could not be made again in a new process: {why}.{line}",
            hint=f"Fork the run at '{label}'; or let the code that needs it make it itself.",
            traceback=answer["traceback"],
            **facts,
        )
    kind = f"{answer['error']}: " if answer["error"] else "The "
    return CodeError(
        f"{kind}{answer['message']}{line}",
        hint=answer.get("hint") or "Correct the code of the node.",
        traceback=answer["traceback"],
        **facts,
    )


class _Worker:
    """One worker process, started on first use, and what it has of the run's variables."""

    def __init__(self, base_dir: Path, pass_env: Sequence[str], on_ready: Callable[[], None]) -> None:
        self.busy = False
        self.ready = False
        """Whether the process has started."""
        self._has_modules = False
        self._on_ready = on_ready
        self.on_output: Callable[[str], None] | None = None
        self._base_dir = base_dir
        self._pass_env = pass_env
        self._process: asyncio.subprocess.Process | None = None
        self._errors: asyncio.Task[None] | None = None
        self._has: dict[str, Mapping[str, Any]] = {}
        """Name → the `variables` of the change that it comes from; their identity counts."""
        self._alone: dict[str, Mapping[str, Any]] = {}
        """Those of `_has` that no other process can have."""

    def given(self, modules: Mapping[str, bytes], folders: Sequence[str]) -> dict[str, Any]:
        """The part of a request that says what the code may import; the files once only."""
        part: dict[str, Any] = {"path": [os.path.realpath(folder) for folder in folders]}
        if not self._has_modules:
            self._has_modules = True
            text = {name: data.decode("latin-1") for name, data in modules.items() if name.endswith(".py")}
            part["modules"] = [os.path.realpath(self._base_dir), text]
        return part

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def has_alone(self, view: View) -> bool:
        """Whether something that code with that view sees is in this process only."""
        return any(self._is(name, change, view) for name, change in self._alone.items())

    def _is(self, name: str, variables: Mapping[str, Any], view: View) -> bool:
        change = view.names.get(name)
        return change is not None and change.variables is variables

    def known(self, view: View) -> int:
        """How many of the names it need not be given."""
        return sum(self._is(name, change, view) for name, change in self._has.items())

    def keep(self, result: CodeResult) -> None:
        """Note what the code that it has just run changed."""
        for name in result.code.get("deleted", ()):
            self._has.pop(name, None)
        lost = result.code.get("lost", {})
        for name in (
            *result.variables,
            *(n for part in ("objects", "definitions", "lost") for n in result.code.get(part, ())),
        ):
            self._has[name] = result.variables
        self._alone = {n: v for n, v in self._alone.items() if self._has.get(n) is v} | dict.fromkeys(lost, result.variables)

    async def answer(
        self, request: Mapping[str, Any], view: View, log: Callable[[Mapping[str, Any]], None] | None
    ) -> dict[str, Any]:
        """Run a piece of code that is to see the variables of *view*.

        Raises:
            CodeError: the process died of it.
        """
        process = await self._started()
        shown = request["shared"]
        forget = [name for name, variables in self._has.items() if not self._is(name, variables, view)] if shown else []
        lacking = {n for n in view.names if n not in self._has or n in forget}
        # What shares objects with something that is made again is made again with it.
        lacking |= {m for n in lacking for m in view.names[n].shared_with(n) if view.names.get(m) is view.names[n]}
        missing = {n: view.names[n] for n in view.names if n in lacking} if shown else {}
        forget += [n for n in missing if n in self._has and n not in forget]
        answer = await self._exchange(
            process,
            {
                **request,
                "forget": forget,
                "restore": [_needed(change, names) for change, names in _by_change(missing)],
                "lost": {n: (c.label, c.live[n]) for n, c in missing.items() if n in c.live},
            },
            log,
        )
        for name in forget:
            del self._has[name]
        self._has |= {n: c.variables for n, c in missing.items() if not _gone(n, c)}
        for name in answer.get("spoilt", ()):
            self._has.pop(name, None)
        return answer

    async def _exchange(
        self,
        process: asyncio.subprocess.Process,
        request: Mapping[str, Any],
        log: Callable[[Mapping[str, Any]], None] | None,
    ) -> dict[str, Any]:
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
                    raise CodeError(
                        f"The result of the code has {size:,} bytes, more than the limit of {FRAME_LIMIT:,}.",
                        hint="Write it to a file and return its name.",
                    )
                frame = json.loads(await process.stdout.readexactly(size))
                if "out" in frame:
                    if self.on_output is not None:
                        self.on_output(frame["out"])
                elif "log" in frame:
                    if log is not None:
                        log(frame["log"])
                elif "ready" in frame:
                    self.ready = True
                    self._on_ready()
                else:
                    return frame
        except (asyncio.IncompleteReadError, ConnectionError, BrokenPipeError):
            code = await process.wait()
            raise CodeError(
                f"The process of the code ended by itself (exit status {code}).",
                hint="The code crashed the interpreter or was killed (out of memory?).",
                traceback="",
            ) from None

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",  # a file beside the diagram must not hide a module of the standard library
                "-u",
                "-c",
                _LAUNCH,
                code_worker.__file__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self._base_dir,
                env={**code_environment(self._pass_env), BASE_DIR: str(self._base_dir.resolve())},
                start_new_session=True,
            )
            self._errors = asyncio.create_task(self._relay(self._process))
        return self._process

    async def _relay(self, process: asyncio.subprocess.Process) -> None:
        """What children of the code print belongs to its output."""
        assert process.stderr is not None
        while data := await process.stderr.read(65536):
            if self.on_output is not None:
                self.on_output(data.decode("utf-8", "replace"))

    async def kill(self) -> None:
        """Kill the process with all it started. Safe to call twice."""
        process, self._process = self._process, None
        self._has, self._alone = {}, {}
        if process is not None:
            # Also when it has ended by itself: what it started is still there.
            kill_group(process.pid)
            await process.wait()
            if process.stdin is not None:
                process.stdin.close()
        errors, self._errors = self._errors, None
        if errors is not None:
            errors.cancel()
            await asyncio.gather(errors, return_exceptions=True)


def _gone(name: str, change: Change) -> bool:
    return name in change.code.get("deleted", ()) or name in change.live


def _by_change(names: Mapping[str, Change]) -> list[tuple[Change, list[str]]]:
    """Names by the change they come from, the oldest first."""
    found: dict[int, tuple[Change, list[str]]] = {}
    for name, change in names.items():
        if not _gone(name, change):
            found.setdefault(id(change), (change, []))[1].append(name)
    return sorted(found.values(), key=lambda item: item[0].order)


def _needed(change: Change, names: list[str]) -> dict[str, Any]:
    """What a worker needs to make *names* again."""
    objects: Mapping[str, Any] = change.code.get("objects", {})
    wanted = {other for name in names if name in objects for other in (name, *change.shared_with(name))}
    definitions: Mapping[str, Any] = change.code.get("definitions", {})
    return {
        "label": change.label,
        "names": names,
        "variables": {n: change.variables[n] for n in names if n in change.variables and n not in objects},
        "objects": {n: objects[n] for n in objects if n in wanted},
        "definitions": {n: definitions[n] for n in definitions if n in names},
    }
