"""The repository of diagrams: nobody's work is overwritten, formats stay, and files that are no diagrams are left alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.config import get_settings
from dipeo_nb.diagram.document import load
from dipeo_nb.errors import DiagramError, DiagramNotFoundError, StorageError, ValidationError
from dipeo_nb.storage.diagrams import DiagramService
from dipeo_nb.storage.in_memory import InMemoryFileSystem
from dipeo_nb.storage.local import LocalFileSystemAdapter
from tests.support.wire_openai import run

TEXT = "version: light\nnodes:\n- {label: Start, type: start}\n- {label: End, type: endpoint}\nconnections:\n- {from: Start, to: End}\n"


def diagram(label: str = "Start") -> Any:
    return load(TEXT.replace("Start", label))


@pytest.mark.parametrize("storage", ["memory", "local"])
def test_diagrams_created_at_the_same_time_are_all_kept(tmp_path: Path, storage: str):
    """Each has an id of its own, and its own content."""

    async def go() -> None:
        files = InMemoryFileSystem() if storage == "memory" else LocalFileSystemAdapter(tmp_path)
        service = DiagramService(files)
        ids = await asyncio.gather(*(service.create("mine", diagram(f"N{n}")) for n in range(8)))
        assert len(set(ids)) == 8
        for n, one in enumerate(ids):
            found = await service.get(one)
            assert found is not None
            assert found.nodes[0].label == f"N{n}"

    run(go())


CREATE = """
import asyncio, sys
from dipeo_nb.diagram.document import load
from dipeo_nb.storage.diagrams import DiagramService
from dipeo_nb.storage.local import LocalFileSystemAdapter
async def go():
    service = DiagramService(LocalFileSystemAdapter(sys.argv[1]))
    diagram = load(sys.argv[2])
    for _ in range(15):
        print(await service.create("mine", diagram))
asyncio.run(go())
"""


def test_processes_create_without_loss(tmp_path: Path):
    """Three at once: as many files as ids that were given."""
    command = [sys.executable, "-c", CREATE, str(tmp_path), TEXT]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ids = [line for writer in writers for line in writer.communicate(timeout=60)[0].split()]
    assert len(ids) == len(set(ids)) == 45
    assert sorted(ids) == sorted(p.name for p in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (".hidden", "hidden.light.yaml"), ("_x", "x.light.yaml"), ("..", "diagram.light.yaml"), ("", "diagram.light.yaml"),
        ("con", "con_.light.yaml"), ("NUL", "NUL_.light.yaml"), ("a/b: c?", "a_b_ c_.light.yaml"), ("日本語" * 40, None),
        ("x" * 400, None), ("../../etc/passwd", "etc_passwd.light.yaml"),
    ],
)  # fmt: skip
def test_any_name_makes_a_file_that_is_listed(tmp_path: Path, name: str, made: str | None):
    """Below the base directory, found by its id and without its ending."""

    async def go() -> None:
        service = DiagramService(LocalFileSystemAdapter(tmp_path))
        one, two = await service.create(name, diagram()), await service.create(name, diagram())
        assert made in (None, one)
        assert sorted([one, two]) == [info.id for info in await service.list()]
        assert await service.exists(one)
        assert await service.exists(one.removesuffix(".light.yaml"))

    run(go())


PLAIN = {"light": "light.yaml", "native": "diagram.json", "readable": "plain.yml"}


@pytest.mark.parametrize("kind", PLAIN)
def test_the_format_of_a_file_stays(kind: str):
    """An update writes what the file was, whatever its name says; plain names are listed."""

    async def go() -> None:
        files = InMemoryFileSystem({"other.json": '{"nodes": 3}', "list.yaml": "- nodes\n", "broken.json": '{"nodes": ['})
        service = DiagramService(files)
        files.write_text(PLAIN[kind], service.converter.serialize(diagram(), kind))
        await service.update(PLAIN[kind], diagram("New"))
        found = await service.load_from_file(PLAIN[kind])
        assert (found.format, found.nodes[0].label) == (kind, "New")
        assert [(info.id, info.format) for info in await service.list()] == [(PLAIN[kind], kind)]

    run(go())


def test_what_is_no_diagram_by_its_name_is_left_alone(tmp_path: Path):
    """Neither loaded nor updated nor deleted; a folder is none; names that say two formats are refused."""
    (tmp_path / "precious.py").write_text("x = 1")
    (tmp_path / "folder.light.yaml").mkdir()
    (tmp_path / "same.light.yaml").write_text(TEXT)

    async def go() -> None:
        service = DiagramService(LocalFileSystemAdapter(tmp_path))
        for work in (
            service.delete("precious.py"),
            service.load_from_file("precious.py"),
            service.update("precious.py", diagram()),
            service.save_to_file(diagram(), "precious.py"),
        ):
            with pytest.raises(StorageError, match="not allowed here"):
                await work
        assert not await service.exists("folder.light.yaml")
        with pytest.raises(DiagramNotFoundError):
            await service.delete("folder.light.yaml")
        for name in ("x.native.yaml", "y.light.json", "z.readable.json"):
            with pytest.raises(ValidationError, match="not a file ending of diagrams"):
                await service.save_to_file(diagram(), name)
        assert await service.exists("same")
        await service.update("same", diagram("New"))
        await service.delete("same")
        assert not (tmp_path / "same.light.yaml").exists()

    run(go())
    assert (tmp_path / "precious.py").read_text() == "x = 1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.light.yaml", "precious.py"]


def test_the_list_is_what_can_be_loaded(tmp_path: Path):
    """Every diagram below the base that load takes is listed, however its file is called, and nothing else."""
    for name in ("a.light.yaml", "_b.light.yaml", "_c/d.yaml", "UP.Light.YAML", "e.YML", "deep/er/f.light.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "big.yaml").write_text(f"{TEXT}{'#' * 1_100_000}")
    (tmp_path / "to_a.light.yaml").symlink_to("a.light.yaml")
    for name in (".git/x.light.yaml", ".hidden.yaml", "x.light.yaml.bak"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "other.json").write_text('{"nodes": 3}')
    (tmp_path / "out.light.yaml").symlink_to("/etc/passwd")

    async def go() -> None:
        service = DiagramService(LocalFileSystemAdapter(tmp_path))
        listed = [info.id for info in await service.list()]
        loaded: list[str] = []
        for path in sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()):
            try:
                await service.load_from_file(path)
            except (DiagramError, StorageError):
                continue
            loaded.append(path)
        assert listed == loaded
        assert len(listed) == 8

    run(go())


def test_the_settings_hold_for_the_default_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The size limit, and the data folder, which is nobody's to read or delete."""
    settings = get_settings().model_copy(update={"base_dir": tmp_path, "data_dir": tmp_path / "data", "max_file_size": 100})
    monkeypatch.setattr("dipeo_nb.storage.diagrams.get_settings", lambda: settings)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/apikeys.json").write_text("{}")
    (tmp_path / "big.light.yaml").write_text(TEXT + "#" * 200)

    async def go() -> None:
        service = DiagramService()
        for work in (service.delete_file("data/apikeys.json"), service.load_from_file("data/apikeys.json")):
            with pytest.raises(StorageError, match="place of dipeo-nb itself"):
                await work
        with pytest.raises(StorageError) as caught:
            await service.load_from_file("big.light.yaml")
        assert caught.value.facts["cause"] == "too_large"

    run(go())
    assert (tmp_path / "data/apikeys.json").exists()
