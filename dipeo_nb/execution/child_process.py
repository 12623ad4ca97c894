"""Programs that a run starts for one node: bash, Node, shell hooks. They see no secrets and leave no orphans."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import code_environment
from dipeo_nb.domain.ports import FileSystemPort
from dipeo_nb.errors import CodeError, NodeTimeoutError

OUTPUT_LIMIT = 16 * 1024 * 1024
"""Bytes that a program may print."""
BASE_DIR = "DIPEO_BASE_DIR"
"""Variable of the environment of a diagram's programs that names the base directory."""
TAIL = 2000
"""Characters of what it printed on stderr that an error shows."""


class Finished(NamedTuple):
    """What a program left behind."""

    stdout: str
    stderr: str
    status: int


async def run_command(
    command: Sequence[str],
    *,
    cwd: Path,
    timeout: float,
    env: Mapping[str, str] | None = None,
    pass_env: Sequence[str] = (),
    stdin: bytes = b"",
    on_output: Callable[[str], None] | None = None,
) -> Finished:
    """Run a program to its end; it is killed with all it started when it is late, prints too much, or the run stops.

    Args:
        timeout: seconds.
        env: variables on top of those that every child gets (`common.child_environment`).
        pass_env: names of further variables of the process that it gets.
        on_output: called with each piece that it prints, stdout and stderr.

    Raises:
        CodeError: there is no such program, or it printed more than `OUTPUT_LIMIT`.
        NodeTimeoutError: it took longer than *timeout*.
    """
    whole = {**code_environment(pass_env), **(env or {})}
    try:
        _check(command[0], cwd, whole)
        process = await asyncio.create_subprocess_exec(
            *_watched(command),
            cwd=cwd,
            env=whole,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=(_lifeline(),) if _POSIX else (),
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CodeError(
            f"'{command[0]}' cannot be started: {why}.", hint="Install it, or fix its name and the node's `cwd`."
        ) from error
    work = [
        asyncio.ensure_future(step)
        for step in (_read(process.stdout, on_output), _read(process.stderr, on_output), _feed(process.stdin, stdin))
    ]
    try:
        async with asyncio.timeout(timeout):
            out, err, _ = await asyncio.gather(*work)
            status = await process.wait()
    except TimeoutError:
        raise NodeTimeoutError(
            f"'{command[0]}' took longer than its limit of {timeout:g} s and was stopped.",
            hint="Give the node a larger `timeout` (seconds).",
        ) from None
    finally:
        kill_group(process.pid)
        for step in work:
            step.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await asyncio.shield(_ended(process))
    return Finished(str(out), str(err), status)


_POSIX = os.name == "posix"


@cache
def _lifeline() -> int:
    """The reading end of a pipe whose writing end only this process has: it ends when this process does, however that comes."""
    return os.pipe()[0]


def _watched(command: Sequence[str]) -> Sequence[str]:
    """The command beside a process of its group that kills the group when this process is gone, be it by `kill -9`."""
    if not _POSIX:
        return command
    watch = f'(read -r _; kill -9 0) </dev/fd/{_lifeline()} >/dev/null 2>&1 & exec "$@"'
    return ["/bin/sh", "-c", watch, "sh", *command]


def _check(program: str, cwd: Path, env: Mapping[str, str]) -> None:
    """Whether there is such a program; the shell that starts it would not say so as clearly.

    Raises:
        OSError: there is none.
    """
    if not _POSIX or "\0" in program:
        return
    place = str(cwd / program) if "/" in program else program
    if shutil.which(place, path=env.get("PATH", os.defpath)) is None:
        number = errno.EACCES if os.path.exists(place) else errno.ENOENT
        raise OSError(number, os.strerror(number), program)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait until a killed program is gone. asyncio tells so only when its pipes are read to their ends."""
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    try:
        async with asyncio.timeout(2):
            await asyncio.gather(*(_drained(stream) for stream in streams))
            await process.wait()
    except TimeoutError:  # something that left the group holds a pipe
        process._transport.close()  # type: ignore[attr-defined] # pyright: ignore - no public way


async def _drained(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


async def _read(stream: asyncio.StreamReader | None, on_output: Callable[[str], None] | None) -> str:
    assert stream is not None
    pieces: list[bytes] = []
    size = 0
    while piece := await stream.read(65536):
        size += len(piece)
        if size > OUTPUT_LIMIT:
            raise CodeError(
                f"The program printed more than {OUTPUT_LIMIT:,} bytes.", hint="Write it to a file and print its name."
            )
        pieces.append(piece)
        if on_output is not None:
            on_output(piece.decode("utf-8", "replace"))
    return b"".join(pieces).decode("utf-8", "replace")


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    assert stream is not None
    try:
        stream.write(data)
        await stream.drain()
    except (BrokenPipeError, ConnectionResetError):
        return  # it does not want to read; what it does instead counts
    finally:
        stream.close()


def kill_group(pid: int) -> None:
    """End a process that has a session of its own, and whatever it started; ones that are gone are fine."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # It ended between the look and the kill.
        return
    except AttributeError:  # Windows has no process groups
        os.kill(pid, signal.SIGTERM)


def base_dir(files: FileSystemPort) -> dict[str, str]:
    """The variable of the environment that names the base directory."""
    return {BASE_DIR: str(files.base_path.resolve())}


def tail(text: str) -> str:
    """The end of what a program printed, for an error message."""
    text = redactor.text(text[-20 * TAIL :]).strip()  # before it is cut: a piece of a secret would not be found any more
    return text if len(text) <= TAIL else f"… {text[-TAIL:]}"


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for the files of one node run, gone afterwards."""
    return tempfile.TemporaryDirectory(prefix="dipeo-")
