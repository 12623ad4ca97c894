"""Names that try to leave their place, on every surface that takes one: refused, typed, and nothing was touched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.config import get_settings
from dipeo_nb.container import Runtime
from dipeo_nb.diagram.document import load
from dipeo_nb.domain.ports import Artifact
from dipeo_nb.errors import (
    DiagramError,
    DiagramNotFoundError,
    DipeoError,
    NodeExecutionError,
    StorageError,
    ValidationError,
)
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.diagrams import DiagramService
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalBlobAdapter, LocalFileSystemAdapter

ATTACKS = [
    # traversal
    "../x.yaml", "../../etc/passwd", "a/../../x.yaml", "a/b/../../../x.yaml", "a/..//../x.yaml", "..", "../", "....//..//../../../x.yaml",
    # absolute, home, devices
    "/etc/passwd", "//etc/passwd", "/", "~/x.yaml", "~root/x.yaml", "/dev/null", "/dev/zero", "/dev/stdin", "/proc/self/environ",
    # other systems: UNC, drives, device names
    "\\\\host\\share\\x.yaml", "//host/share/x.yaml", "a\\..\\..\\x.yaml", "C:\\x.yaml", "c:/x.yaml", "C:x.yaml", "con", "NUL.yaml",
    "aux.yaml", "com1.yaml", "a/prn/b.yaml", "LPT9.yaml",
    # NUL and control characters
    "a\0b.yaml", "x.yaml\0.png", "a\nb.yaml", "a\rb.yaml", "\x1b[31m.yaml", "a\x7fb.yaml",
    # Unicode tricks
    "\u202elmay.x", "a\u200bb.yaml", "\ufeffx.yaml", "a\u2066b.yaml",
    # lengths and endings
    "x" * 256 + ".yaml", "é" * 200 + ".yaml", "a/" * 3000 + "x.yaml", "x.yaml.", "x.yaml ", "a /b.yaml", "a./b.yaml",
    # nothing
    "", " ", "\t",
    # through links that lead out
    "link/x.yaml", "link", "to_file.yaml",
]  # fmt: skip
BYTES_51_MB = b"x" * (51 * 1024 * 1024)

Work = Callable[[Path, str], Awaitable[Any]]


def _nodes(kind: str, **props: Any) -> dict[str, Any]:
    return {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start", "custom_data": {"value": "text"}},
            {"label": "Work", "type": kind, "props": props},
        ],
        "connections": [{"from": "Start", "to": "Work"}],
    }


async def _run(base: Path, diagram: dict[str, Any]) -> None:
    """Run it; what made it fail is raised."""
    async with Runtime(get_settings().model_copy(update={"base_dir": base})) as runtime:
        execution = runtime.execution(runtime.prepare(diagram))
        await runtime.run(execution)
        if execution.error is not None:
            raise execution.error


def _files(base: Path) -> LocalFileSystemAdapter:
    return LocalFileSystemAdapter(base)


def _diagram() -> Any:
    return load("version: light\nnodes:\n- {label: s, type: start}\n")


SURFACES: dict[str, Work] = {
    "files: read": lambda base, path: asyncio.to_thread(_files(base).read_bytes, path),
    "files: write": lambda base, path: asyncio.to_thread(_files(base).write_bytes, path, b"x"),
    "files: exists": lambda base, path: asyncio.to_thread(_files(base).exists, path),
    "files: stat": lambda base, path: asyncio.to_thread(_files(base).stat, path),
    "files: remove": lambda base, path: asyncio.to_thread(_files(base).remove, path),
    "blobs: put": lambda base, path: LocalBlobAdapter(base).put(path, b"x"),
    "blobs: get": lambda base, path: LocalBlobAdapter(base).get(path),
    "blobs: delete": lambda base, path: LocalBlobAdapter(base).delete(path),
    "blobs in memory: put": lambda base, path: InMemoryBlobAdapter().put(path, b"x"),
    "artifacts: name": lambda base, path: ArtifactStoreAdapter(LocalBlobAdapter(base)).push(Artifact(path, "1", b"x")),
    "artifacts: version": lambda base, path: ArtifactStoreAdapter(LocalBlobAdapter(base)).push(Artifact("a", path, b"x")),
    "artifacts: tag": lambda base, path: ArtifactStoreAdapter(LocalBlobAdapter(base)).push(
        Artifact("a", "1", b"x", tags=(path,))
    ),
    "json db: write": lambda base, path: DBOperationsDomainService(_files(base)).execute_operation(path, "write", {"a": 1}),
    "json db: append": lambda base, path: DBOperationsDomainService(_files(base)).execute_operation(path, "append", 1),
    "json db: read": lambda base, path: DBOperationsDomainService(_files(base)).execute_operation(path, "read"),
    "diagrams: load": lambda base, path: DiagramService(_files(base)).load_from_file(path),
    "diagrams: save": lambda base, path: DiagramService(_files(base)).save_to_file(_diagram(), path),
    "diagrams: delete": lambda base, path: DiagramService(_files(base)).delete(path),
    "db node: write": lambda base, path: _run(base, _nodes("db", operation="write", file=path)),
    "db node: read": lambda base, path: _run(base, _nodes("db", operation="read", file=path)),
    "endpoint: save": lambda base, path: _run(base, _nodes("endpoint", save_to_file=True, file_name=path)),
    "code_job: file": lambda base, path: _run(base, _nodes("code_job", file_path=path)),
}  # fmt: skip
FINE = {
    ("endpoint: save", ""),  # no name: the default one
    *(
        (s, p) for s in ("json db: write", "json db: append") for p in ("x.yaml ", "link")
    ),  # blanks go; link is db/link.json
    *((s, "x.yaml ") for s in ("db node: write", "endpoint: save")),
    ("db node: write", "link"),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    (folder / "a" / "b").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.yaml").write_text("secret: 1")
    (folder / "link").symlink_to(outside)
    (folder / "to_file.yaml").symlink_to(outside / "x.yaml")
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".dipeo" not in p.parts
    }


@pytest.mark.parametrize("surface", SURFACES)
def test_every_attack_is_refused(base: Path, surface: str):
    """No spelling leaves the base directory or names a device: one typed error, its text fit for a screen, and no file outside
    was read, written or removed."""
    work = SURFACES[surface]
    before = snapshot(base.parent / "outside")
    own = "blobs" in surface or "artifacts" in surface
    missed: list[str] = []
    refusals: dict[str, DipeoError] = {}
    for path in ATTACKS:
        linked = path.startswith(("link", "to_file"))
        if (surface, path) in FINE or (own and linked):  # a store's names are its own: no link can stand behind one
            continue
        try:
            asyncio.run(work(base, path))
        except (StorageError, DiagramError, NodeExecutionError, ValidationError) as error:
            refusals[path] = error
        else:
            missed.append(path)
    assert missed == []
    for path, error in refusals.items():
        text = str(error)
        assert not {"\0", "\x1b"} & set(text), path
        assert "secret" not in text, path
        assert error.hint, (path, error)
    assert snapshot(base.parent / "outside") == before
    assert sorted(os.listdir(base.parent)) == ["base", "outside"]


@pytest.mark.parametrize("surface", ["files: write", "json db: write"])
def test_51_megabytes_are_too_much(base: Path, surface: str):
    """The default limit is 50 MB; nothing is written."""

    async def write() -> None:
        if surface == "files: write":
            await asyncio.to_thread(_files(base).write_bytes, "big.txt", BYTES_51_MB)
        else:
            await DBOperationsDomainService(_files(base)).execute_operation("big.txt", "write", BYTES_51_MB.decode())

    with pytest.raises(StorageError) as caught:
        asyncio.run(write())
    assert caught.value.facts["cause"] == "too_large"
    assert not (base / "big.txt").exists()


def test_51_megabytes_are_not_read_either(base: Path):
    """A file that grew beyond the limit is one clear error, not a full memory."""
    (base / "big.txt").write_bytes(BYTES_51_MB)
    with pytest.raises(StorageError) as caught:
        _files(base).read_bytes("big.txt")
    assert caught.value.facts["cause"] == "too_large"


@pytest.mark.parametrize("name", ["x.exe", "x.sh", "x", "x.yaml.py", ".bashrc", "x.YAML.exe"])
def test_bad_extensions(base: Path, name: str):
    """A diagram is saved as YAML or JSON only; a folder can be limited to kinds of files."""
    with pytest.raises(StorageError, match="not allowed here"):
        asyncio.run(DiagramService(_files(base)).save_to_file(_diagram(), name))
    with pytest.raises(StorageError, match="not allowed here"):
        LocalFileSystemAdapter(base, suffixes={".json", ".yaml"}).write_text(name, "x")


def test_missing_diagrams_are_another_error(base: Path):
    """What is only not there is told apart from what is refused."""
    with pytest.raises(DiagramNotFoundError):
        asyncio.run(DiagramService(_files(base)).load_from_file("nothing.light.yaml"))
