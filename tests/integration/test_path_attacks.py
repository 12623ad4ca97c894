"""Names that try to leave their place, on every surface that takes one: refused, typed, and nothing was touched."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.locks import CacheFileLock
from dipeo_nb.config import Settings, override_settings
from dipeo_nb.diagram.document import load, load_named
from dipeo_nb.domain.enums import Severity
from dipeo_nb.domain.ports import Artifact
from dipeo_nb.errors import (
    DiagramError,
    DiagramNotFoundError,
    DipeoError,
    NodeExecutionError,
    StorageError,
    ValidationError,
)
from dipeo_nb.execution.state.in_memory import InMemoryRunStore
from dipeo_nb.runtime import Runtime
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from dipeo_nb.storage.diagrams import DiagramService
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalBlobAdapter, LocalFileSystemAdapter

OUTSIDE = [
    # traversal
    "../x.yaml", "../../etc/passwd", "a/../../x.yaml", "a/b/../../../x.yaml", "a/..//../x.yaml", "..", "../", "....//..//../../../x.yaml",
    "a/./../../outside/x.yaml", "missing/../../outside/x.yaml", "./../outside/x.yaml",
    # absolute, home, devices, addresses
    "/etc/passwd", "//etc/passwd", "/", "~/x.yaml", "~root/x.yaml", "/dev/null", "/dev/zero", "/dev/stdin", "/proc/self/environ",
    "/proc/self/root/etc/passwd", "file:///etc/passwd", "file:/etc/passwd", "http://127.0.0.1/x.yaml", "s3://bucket/x.yaml",
    # other systems: UNC, drives, device names
    "\\\\host\\share\\x.yaml", "//host/share/x.yaml", "a\\..\\..\\x.yaml", "C:\\x.yaml", "c:/x.yaml", "C:x.yaml", "con", "NUL.yaml",
    "aux.yaml", "com1.yaml", "a/prn/b.yaml", "LPT9.yaml", "COM¹.yaml", "CONIN$", "nul:x.yaml", "con .yaml",
    # NUL and control characters
    "a\0b.yaml", "x.yaml\0.png", "a\nb.yaml", "a\rb.yaml", "\x1b[31m.yaml", "a\x7fb.yaml", "a\x9bb.yaml",
    # Unicode tricks
    "\u202elmay.x", "a\u200bb.yaml", "\ufeffx.yaml", "a\u2066b.yaml", "a\u206fb.yaml", "a\u00adb.yaml", "\u200c.env", "a\u2028b.yaml",
    # lengths and endings
    "x" * 256 + ".yaml", "é" * 200 + ".yaml", "a/" * 3000 + "x.yaml", "x.yaml.", "x.yaml ", "a /b.yaml", "a./b.yaml",
    # nothing
    "", " ", "\t",
    # through links that lead out
    "link/x.yaml", "link", "to_file.yaml", "a/up/outside/x.yaml", "round.yaml",
]  # fmt: skip
"""Paths that lead out of the base directory, or that no file should have."""
PROTECTED = (
    ".env", ".env.local", ".git/config", ".git/hooks/pre-commit", ".dipeo/kept.json", ".vscode/tasks.json",
    ".claude/settings.json", ".ssh/id_rsa", "a/.env", "dipeo.toml", "keys/apikeys.json", "stores/runs.db", "stores/runs.db-wal",
)  # fmt: skip
"""Files below the base directory that no diagram reaches."""
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda path: path,
    "capitals": str.upper,
    "dot": lambda path: f"./{path}",
    "back": lambda path: f"a/../{path}",
    "back from nothing": lambda path: f"missing/x/../../{path}",
    "slashes": lambda path: path.replace("/", "//./"),
    "absolute": lambda path: f"{{base}}/{path}",
    "link": lambda path: f"links/{PROTECTED.index(path)}.yaml",
    "link to a link": lambda path: f"links/again{PROTECTED.index(path)}.yaml",
    "linked folder": lambda path: f"links/base/{path}",
    "second name": lambda path: f"second/{PROTECTED.index(path)}.yaml",
    "stream": lambda path: f"{path}::$DATA",
}
"""How the same file can be called."""
CLOSED = [spell(path) for spell in SPELLINGS.values() for path in PROTECTED] + [
    "DiPeO.ToMl", "keyſ/apikeys.json", "GIT~1/config", "DIPEO~1.TOM", "ENV~1", "KEYS/ApiKeys.JSON", "a/.new.yaml", ".new/x.yaml",
    "new/.hidden/x.yaml", "a/b/.x", "dipeo.toml:x", "keys", ".git", ".dipeo/blobs/objects/x.yaml", "keys/new.yaml",
]  # fmt: skip
"""Paths of protected files, there or not."""
RUN_BY_THEMSELVES = [
    "conftest.py", "a/conftest.py", "ConfTest.py", "sitecustomize.py", "a/b/usercustomize.py", "x.pth", "a/X.PTH", "a/../conftest.py",
    "links/conftest.yaml", "conftest.py:x",
]  # fmt: skip
"""Files that Python runs without being asked: closed for writing."""
ATTACKS = OUTSIDE + CLOSED
LINKED = ("link", "to_file", "a/up", "round", "links/", "second/")
"""Beginnings of paths that only links on the disk make into something."""


def test_the_table_is_whole():
    """So that nothing is lost from it without being seen."""
    assert len(set(ATTACKS)) >= 220
    assert len(SURFACES) >= 30


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


_runtime: ContextVar[Runtime] = ContextVar("_runtime")


@asynccontextmanager
async def one_runtime(base: Path) -> AsyncIterator[None]:
    """All runs of a test share a runtime: it is their paths that are tried."""
    with own_places(base) as settings:
        async with Runtime(settings, store=InMemoryRunStore()) as runtime:
            _runtime.set(runtime)
            yield


async def _run(base: Path, diagram: dict[str, Any]) -> None:
    """Run it; what made it fail is raised."""
    runtime = _runtime.get()
    assert runtime.settings.base_dir == base
    execution = runtime.execution(runtime.prepare(diagram))
    await runtime.run(execution)
    if execution.error is not None:
        raise execution.error


async def _compile(base: Path, diagram: dict[str, Any]) -> None:
    with own_places(base):
        found = load(diagram).check(base_dir=base)
    problem = next((d for d in found if d.severity is Severity.ERROR), None)
    if problem is not None:
        raise ValidationError(problem.message, hint=problem.hint)


def own_places(base: Path) -> AbstractContextManager[Settings]:
    """Settings whose keys and runs are below the base directory, under names like any other."""
    return override_settings(base_dir=base, data_dir=base / "keys", state_store_path=base / "stores/runs.db")


def _person(path: str) -> dict[str, Any]:
    diagram = _nodes("person_job", prompt_file=path, person="Ada")
    return {**diagram, "persons": {"Ada": {"service": "echo", "model": "echo"}}}


def _found(base: Path, path: str) -> Any:
    with own_places(base):
        return load_named(path, base)


def _cache(base: Path, path: str, mode: str) -> None:
    with getattr(CacheFileLock(base / "cache"), mode)(path) as place:
        place.read_bytes() if mode == "read" else place.write_text("x")


def _open(base: Path, path: str) -> None:
    with _files(base).open(path, "a") as file:
        file.write("x")


def _files(base: Path) -> LocalFileSystemAdapter:
    with own_places(base) as settings:
        return LocalFileSystemAdapter.of(settings)


def _diagram() -> Any:
    return load("version: light\nnodes:\n- {label: s, type: start}\n")


SURFACES: dict[str, Work] = {
    "files: read": lambda base, path: asyncio.to_thread(_files(base).read_bytes, path),
    "files: write": lambda base, path: asyncio.to_thread(_files(base).write_bytes, path, b"x"),
    "files: exists": lambda base, path: asyncio.to_thread(_files(base).exists, path),
    "files: stat": lambda base, path: asyncio.to_thread(_files(base).stat, path),
    "files: remove": lambda base, path: asyncio.to_thread(_files(base).remove, path),
    "files: open": lambda base, path: asyncio.to_thread(_open, base, path),
    "files: mkdir": lambda base, path: asyncio.to_thread(_files(base).mkdir, path),
    "files: rmdir": lambda base, path: asyncio.to_thread(_files(base).rmdir, path, recursive=True),
    "files: rename to": lambda base, path: asyncio.to_thread(_files(base).rename, "fine.yaml", path),
    "files: rename from": lambda base, path: asyncio.to_thread(_files(base).rename, path, "moved.yaml"),
    "files: copy to": lambda base, path: asyncio.to_thread(_files(base).copy, "fine.yaml", path),
    "files: copy from": lambda base, path: asyncio.to_thread(_files(base).copy, path, "copied.yaml"),
    "cache: read": lambda base, path: asyncio.to_thread(_cache, base, path, "read"),
    "cache: write": lambda base, path: asyncio.to_thread(_cache, base, path, "write"),
    "blobs: put": lambda base, path: LocalBlobAdapter(base / "cache").put(path, b"x"),
    "blobs: get": lambda base, path: LocalBlobAdapter(base / "cache").get(path),
    "blobs: delete": lambda base, path: LocalBlobAdapter(base / "cache").delete(path),
    "blobs in memory: put": lambda base, path: InMemoryBlobAdapter().put(path, b"x"),
    "artifacts: name": lambda base, path: ArtifactStoreAdapter(LocalBlobAdapter(base / "cache")).push(Artifact(path, "1", b"x")),
    "artifacts: version": lambda base, path: ArtifactStoreAdapter(LocalBlobAdapter(base / "cache")).push(Artifact("a", path, b"x")),
    "artifacts: tag": lambda base, path: ArtifactStoreAdapter(LocalBlobAdapter(base / "cache")).push(
        Artifact("a", "1", b"x", tags=(path,))
    ),
    "json db: write": lambda base, path: DBOperationsDomainService(_files(base)).execute_operation(path, "write", {"a": 1}),
    "json db: append": lambda base, path: DBOperationsDomainService(_files(base)).execute_operation(path, "append", 1),
    "json db: read": lambda base, path: DBOperationsDomainService(_files(base)).execute_operation(path, "read"),
    "diagrams: load": lambda base, path: DiagramService(_files(base)).load_from_file(path),
    "diagrams: save": lambda base, path: DiagramService(_files(base)).save_to_file(_diagram(), path),
    "diagrams: delete": lambda base, path: DiagramService(_files(base)).delete(path),
    "diagrams: update": lambda base, path: DiagramService(_files(base)).update(path, _diagram()),
    "diagrams: by name": lambda base, path: asyncio.to_thread(_found, base, path),
    "prompt file": lambda base, path: _compile(base, _person(path)),
    "sub_diagram": lambda base, path: _run(base, _nodes("sub_diagram", diagram_name=path)),
    "template_job: template": lambda base, path: _run(base, _nodes("template_job", template_path=path)),
    "template_job: include": lambda base, path: _run(
        base, _nodes("template_job", template_content=f"{{% include {json.dumps(path)} %}}", engine="jinja2")
    ),
    "template_job: output": lambda base, path: _run(base, _nodes("template_job", template_content="x", output_path=path)),
    "diff_patch": lambda base, path: _run(base, _nodes("diff_patch", target_path=path, create_missing=True, diff=DIFF)),
    "hook: file": lambda base, path: _run(base, _nodes("hook", hook_type="file", config={"file_path": path})),
    "json_schema_validator": lambda base, path: _run(base, _nodes("json_schema_validator", schema_path=path)),
    "db node: write": lambda base, path: _run(base, _nodes("db", operation="write", file=path)),
    "db node: read": lambda base, path: _run(base, _nodes("db", operation="read", file=path)),
    "endpoint: save": lambda base, path: _run(base, _nodes("endpoint", save_to_file=True, file_name=path)),
    "code_job: file": lambda base, path: _run(base, _nodes("code_job", file_path=path)),
}  # fmt: skip
WRITERS = [
    s for s in SURFACES
    if s in ("files: remove", "files: open", "files: mkdir", "files: rmdir", "files: rename to", "files: rename from", "files: copy to",
             "cache: write", "diff_patch", "template_job: output", "hook: file", "endpoint: save", "files: write")
    or s.startswith(("json db: w", "json db: a", "json db: u", "db node: w"))
]  # fmt: skip
FINE = {
    ("endpoint: save", ""),  # no name: the default one
    ("template_job: output", ""),  # no file
    # Blanks at the end go, and a name without an ending is that of a file of its own.
    *(
        (s, "x.yaml ")
        for s in (
            "json db: write",
            "json db: append",
            "db node: write",
            "endpoint: save",
            "template_job: output",
            "diff_patch",
            "hook: file",
        )
    ),
    *((s, p) for s in ("json db: write", "json db: append", "db node: write") for p in ("link", "keys", "con .yaml", "ENV~1")),
}
"""Surfaces that make another, harmless name of a path."""
DIFF = "--- a\n+++ b\n@@ -0,0 +1 @@\n+x\n"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with links, protected files and second names of them, beside a folder that nothing may reach."""
    folder, outside = tmp_path / "base", tmp_path / "outside"
    for place in (folder / "a/b", folder / "links", folder / "second", folder / "cache", outside):
        place.mkdir(parents=True)
    (outside / "x.yaml").write_text("secret: 1")
    (folder / "fine.yaml").write_text("fine: 1")
    (folder / "conftest.py").write_text("secret = 1")
    (folder / "a/conftest.py").write_text("secret = 1")
    for link, target in {
        "link": outside, "to_file.yaml": outside / "x.yaml", "a/up": "../..", "round.yaml": "a/up/outside/x.yaml",
        "links/base": "..", "links/conftest.yaml": "../conftest.py",
    }.items():  # fmt: skip
        (folder / link).symlink_to(target)
    for number, path in enumerate(PROTECTED):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("secret: 1")
        (folder / f"links/{number}.yaml").symlink_to(f"../{path}")
        (folder / f"links/again{number}.yaml").symlink_to(folder / f"links/{number}.yaml")
        os.link(folder / path, folder / f"second/{number}.yaml")
    return folder


def snapshot(base: Path) -> dict[str, bytes]:
    """What no attack may change."""
    places = [
        *(base / path for path in PROTECTED),
        base / "conftest.py",
        base / "a/conftest.py",
        *base.parent.glob("outside/**/*"),
    ]
    return {str(place): place.read_bytes() for place in places}


def skipped(surface: str, path: str) -> bool:
    """Whether a path means nothing bad to a surface: stores have names of their own, which no file or link is behind."""
    if (surface, path) in FINE:
        return True
    if not surface.startswith(("blobs", "artifacts", "cache")):
        return False
    return path.startswith(LINKED) or any(part in path.casefold() for part in ("keys", "stores", "~1"))


QUICK_NODES = ("db node: read", "db node: write", "hook: file")
"""Of the surfaces that are nodes, those that `make quick` tries."""


def _marked(surface: str) -> Any:
    is_node = "_run" in SURFACES[surface].__code__.co_names
    return pytest.param(surface, marks=[pytest.mark.slow] if is_node and surface not in QUICK_NODES else [])


@pytest.mark.parametrize("surface", [_marked(surface) for surface in SURFACES])
def test_every_attack_is_refused(base: Path, surface: str):
    """No spelling leaves the base directory, names a device or reaches what is protected: one typed error, its text fit for a
    screen, and no such file was read, written or removed."""
    work = SURFACES[surface]
    before = snapshot(base)
    missed: list[str] = []
    refusals: dict[str, DipeoError] = {}

    async def attack() -> None:
        async with one_runtime(base):
            for path in [*ATTACKS, *(RUN_BY_THEMSELVES if surface in WRITERS else ())]:
                if skipped(surface, path):
                    continue
                try:
                    await work(base, path.replace("{base}", str(base)))
                except (StorageError, DiagramError, NodeExecutionError, ValidationError) as error:
                    refusals[path] = error
                else:
                    missed.append(path)

    asyncio.run(attack())
    assert missed == []
    assert len(refusals) >= 150  # were tried here, and none twice
    for path, error in refusals.items():
        text = str(error)
        assert not {"\0", "\x1b"} & set(text), path
        assert "secret" not in text, path
        assert error.hint, (path, error)
    assert snapshot(base) == before
    assert set(os.listdir(base.parent)) - {".data"} == {"base", "outside"}  # .data: the secret that signs run records


@pytest.mark.parametrize("pattern", ["**/*", "*/*", ".*", ".git/*", "**/.env", "*.toml", "keys/*", "[.]env", "?env", "links/**", "second/*",
                                     "links/base/*", "**/conftest.py"])  # fmt: skip
def test_patterns_find_nothing_that_is_protected(base: Path, pattern: str):
    """Neither by its name, nor through a link or under a second name."""
    try:
        found = [path.as_posix() for path in _files(base).glob(pattern)]
    except StorageError:
        found = []
    assert {name for name in found if "conftest" not in name} <= {"fine.yaml", "links/base/fine.yaml"}


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
