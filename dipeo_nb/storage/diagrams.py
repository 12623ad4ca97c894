"""`DiagramService`: diagram files by name, and a list of them. Usage, as in DiPeO:

service = DiagramService()                 # or DiagramService(storage, converter)
await service.initialize()
diagram = await service.load_from_file("debate.light.yaml")
await service.cleanup()
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from dipeo_nb.common.paths import is_device, path_parts
from dipeo_nb.config import get_settings
from dipeo_nb.diagram import detect
from dipeo_nb.diagram.document import Diagram, from_model, load_text
from dipeo_nb.diagram.formats import FORMATS
from dipeo_nb.diagram.source_files import size_limit
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.ports import DiagramFormatPort, DiagramPort, FileSystemPort
from dipeo_nb.errors import (
    DiagramError,
    DiagramFormatError,
    DiagramNotFoundError,
    StorageError,
    ValidationError,
)
from dipeo_nb.mixins import InitializationMixin, LoggingMixin, ValidationMixin, log_operation
from dipeo_nb.storage.local import LocalFileSystemAdapter

SUFFIXES = {name: form.suffix for name, form in FORMATS.items()}
"""Format → ending of a file name."""
ENDINGS = (".yaml", ".yml", ".json")
"""Endings of file names that can be diagrams."""
MAX_STEM = 150
"""Bytes at most of a name made by `create`."""
_TWO_FORMATS = re.compile(r"\.(light|native|readable)\.\w+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DiagramInfo:
    """An entry in the list of diagrams."""

    id: str
    """Its path below the base directory, which every method here accepts."""
    format: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch."""


class DiagramConverterService(DiagramFormatPort):
    """Converts between diagrams and text of any format, and between formats."""

    def detect_format(self, text: str, path: str | None = None) -> str:
        """`light`, `native`, `readable` or `executable`. Raises DiagramFormatError when the text is not a diagram."""
        return self.deserialize(text, path=path).format

    def deserialize(self, text: str, format: str | None = None, path: str | None = None) -> Diagram:
        """Return the diagram in a text. Raises DiagramFormatError."""
        return load_text(text, format=format, path=path)

    def serialize(self, diagram: Diagram | DomainDiagram, format: str = "light") -> str:
        """Return the diagram as text."""
        document = diagram if isinstance(diagram, Diagram) else from_model(diagram)
        return document.to_text(format)

    def convert_format(self, text: str, to: str, format: str | None = None) -> str:
        """Convert a text to another format."""
        return self.deserialize(text, format).to_text(to)


def _stem(name: str) -> str:
    """Make the stem of a file name from any text: not hidden, and valid on every system."""
    stem = re.sub(r"[^\w\- ]+", "_", name).strip().lstrip("_").strip()
    stem = stem.encode()[:MAX_STEM].decode(errors="ignore").strip() or "diagram"
    return f"{stem}_" if is_device(stem) else stem


class DiagramService(InitializationMixin, LoggingMixin, ValidationMixin, DiagramPort):
    """Loads, saves and lists diagrams. Mixes in initialisation, logging and validation.

    Args:
        storage: file system; default: the base directory of the settings.
        converter: reads and writes them; default: all formats.
    """

    def __init__(self, storage: FileSystemPort | None = None, converter: DiagramConverterService | None = None) -> None:
        super().__init__()
        self.storage: LocalFileSystemAdapter | FileSystemPort = (
            LocalFileSystemAdapter.of(get_settings()) if storage is None else storage
        )
        self.converter: DiagramConverterService = DiagramConverterService() if converter is None else converter

    async def initialize(self) -> None:
        """Mark the service as initialized; there is nothing to open."""

    async def cleanup(self) -> None:
        """Nothing is kept open. Safe to call twice."""

    # Files.

    @log_operation("load diagram")
    async def load_from_file(self, path: str, format: str | None = None) -> Diagram:
        """Load the diagram in a file, by path or by name (`debate` finds `debate.light.yaml`).

        Raises:
            DiagramNotFoundError: there is no such file; the hint names the closest match.
            DiagramFormatError: the file is not a diagram.
        """
        name = await asyncio.to_thread(self._named, path)
        return await asyncio.to_thread(self._load, name, format)

    async def load_from_string(self, text: str, format: str | None = None) -> Diagram:
        """Load the diagram in a text; its format is detected."""
        return await asyncio.to_thread(self.converter.deserialize, text, format)

    @log_operation("save diagram")
    async def save_to_file(self, diagram: Diagram | DomainDiagram, path: str, format: str | None = None) -> str:
        """Write a diagram atomically, by default in the format of its name; return the path.

        Raises:
            StorageError: the path is refused (also when it does not end in .yaml, .yml or .json) or cannot be written.
            ValidationError: the name has a format that does not match its ending (`x.native.yaml`).
        """
        await self._save(diagram, path, format)
        return path

    async def file_exists(self, path: str) -> bool:
        """Whether a diagram file exists, by path or by name."""
        try:
            await asyncio.to_thread(self._named, path)
        except DiagramNotFoundError:
            return False
        return True

    async def delete_file(self, path: str) -> None:
        """Delete a file. Raises DiagramNotFoundError; StorageError for files whose names are not those of diagrams."""
        name = await asyncio.to_thread(self._named, path)
        try:
            await asyncio.to_thread(self.storage.remove, name)
        except StorageError as error:
            if error.facts.get("cause") == "not_found":
                raise self._missing(path) from error
            raise

    # A repository: ids are the paths returned by `list`.

    async def create(self, name: str, diagram: Diagram | DomainDiagram, format: str = "light") -> str:
        """Save a new diagram under a name that is unique, also across processes; return its id."""
        if detect.check_format(format) is None:
            raise ValidationError(f"There is no format '{format}'.", hint=f"Choose one of {', '.join(SUFFIXES)}.")
        kind = detect.check_format(format) or "light"
        stem = _stem(name)
        for number in range(1, 10_000):
            candidate = f"{stem if number == 1 else f'{stem}-{number}'}{SUFFIXES[kind]}"
            try:
                await self._save(diagram, candidate, kind, create_only=True)
            except StorageError as error:
                if error.facts.get("cause") not in ("exists", "is_directory"):
                    raise
            else:
                return candidate
        raise StorageError(f"There are too many diagrams called '{stem}'.", hint="Choose another name.")

    async def get(self, diagram_id: str) -> Diagram | None:
        """Return the diagram of that id, or None."""
        try:
            return await self.load_from_file(diagram_id)
        except DiagramNotFoundError:
            return None

    async def update(self, diagram_id: str, diagram: Diagram | DomainDiagram) -> None:
        """Replace a diagram, keeping the format of its file. Raises DiagramNotFoundError."""
        name = await asyncio.to_thread(self._named, diagram_id)
        try:
            kind = (await self.load_from_file(name)).format
        except DiagramFormatError:  # a damaged file is replaced
            kind = None
        await self._save(diagram, name, kind)

    async def delete(self, diagram_id: str) -> None:
        """Delete a diagram. Raises DiagramNotFoundError."""
        await self.delete_file(diagram_id)

    async def exists(self, diagram_id: str) -> bool:
        return await self.file_exists(diagram_id)

    async def list(self) -> Sequence[DiagramInfo]:
        """List all diagrams below the base directory by id: files named as diagrams, and other .yaml and .json files that contain one."""
        return await asyncio.to_thread(self._list)

    def _list(self) -> list[DiagramInfo]:
        found: list[DiagramInfo] = []
        for path in self.storage.glob("**/*"):
            name = path.as_posix()
            if not name.lower().endswith(ENDINGS):
                continue
            try:
                facts = self.storage.stat(name)
                kind = self._kind(name) if facts.size <= size_limit() else None
            except StorageError:  # removed in the meantime, or unreadable
                continue
            if kind is not None:
                found.append(DiagramInfo(name, kind, facts.size, facts.modified))
        return sorted(found, key=lambda info: info.id)

    def _kind(self, name: str) -> str | None:
        """Return the format of a file, by its name or else its content; None when it is not a diagram."""
        if name.lower().endswith(tuple(detect.SUFFIXES)):
            return detect.format_of_name(name)
        text = self.storage.read_text(name)
        if "nodes" not in text:
            return None
        try:
            return self.converter.detect_format(text, name)
        except DiagramError:
            return None

    def _named(self, path: str) -> str:
        """Find the file of a path or name.

        Raises:
            DiagramNotFoundError: there is none.
            StorageError: the path or its ending is refused.
        """
        if self._is_file(path):
            path_parts(path, self.storage.base_path, suffixes=ENDINGS)
            return path
        if not PurePosixPath(path).suffix or detect.format_of_name(path) is None:
            for suffix in (*SUFFIXES.values(), *ENDINGS):
                if self._is_file(f"{path}{suffix}"):
                    return f"{path}{suffix}"
        raise self._missing(path)

    def _is_file(self, path: str) -> bool:
        return self.storage.exists(path) and not self.storage.stat(path).is_dir

    async def _save(
        self, diagram: Diagram | DomainDiagram, path: str, format: str | None, *, create_only: bool = False
    ) -> None:
        path_parts(path, self.storage.base_path, suffixes=ENDINGS)
        if (said := _TWO_FORMATS.search(path)) and said[0].lower() not in detect.SUFFIXES:
            endings = ", ".join(SUFFIXES.values())
            raise ValidationError(f"'{said[0]}' is not a file ending of diagrams.", hint=f"Use one of {endings}.")
        form = format or detect.format_of_name(path) or "light"

        def write() -> None:
            self.storage.write_text(path, self.converter.serialize(diagram, form), create_only=create_only)

        await asyncio.to_thread(write)

    def _load(self, name: str, format: str | None) -> Diagram:
        try:
            text = self.storage.read_text(name)
        except StorageError as error:
            if error.facts.get("cause") in ("not_found", "is_directory"):
                raise self._missing(name) from error
            raise
        return self.converter.deserialize(text, format, str(self.storage.base_path / name))

    def _missing(self, path: str) -> DiagramNotFoundError:
        # By name only: a hint is not worth reading all possible diagrams.
        names = (found.as_posix() for found in self.storage.glob("**/*"))
        known = ", ".join(islice((n for n in names if n.lower().endswith(tuple(detect.SUFFIXES))), 10)) or "none"
        hint = f"Below {self.storage.base_path} there are: {known}."
        return DiagramNotFoundError(f"There is no diagram '{path}'.", hint=hint, path=path)
