"""Diagrams as files, by id and as text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from dipeo_nb.domain.ports.files import FileSystemPort


@runtime_checkable
class DiagramFilePort(Protocol):
    """Diagrams as files. Diagrams are `Diagram` objects, or the domain's."""

    @abstractmethod
    async def load_from_file(self, path: str, format: str | None = None) -> Any:
        """Raises DiagramNotFoundError, DiagramFormatError."""
        ...

    @abstractmethod
    async def save_to_file(self, diagram: Any, path: str, format: str | None = None) -> str:
        """Write atomically and return the path. Raises StorageError, ValidationError."""
        ...

    @abstractmethod
    async def file_exists(self, path: str) -> bool: ...

    @abstractmethod
    async def delete_file(self, path: str) -> None:
        """Raises DiagramNotFoundError."""
        ...


@runtime_checkable
class DiagramRepositoryPort(Protocol):
    """Diagrams by id."""

    @abstractmethod
    async def create(self, name: str, diagram: Any, format: str = "light") -> str:
        """Save under a new id, which is returned."""
        ...

    @abstractmethod
    async def get(self, diagram_id: str) -> Any:
        """Return a diagram, or None."""
        ...

    @abstractmethod
    async def update(self, diagram_id: str, diagram: Any) -> None:
        """Raises DiagramNotFoundError."""
        ...

    @abstractmethod
    async def delete(self, diagram_id: str) -> None:
        """Raises DiagramNotFoundError."""
        ...

    @abstractmethod
    async def exists(self, diagram_id: str) -> bool: ...

    @abstractmethod
    async def list(self) -> Sequence[Any]:
        """Return id, path, format, size and time of each."""
        ...


@runtime_checkable
class DiagramFormatPort(Protocol):
    """Diagrams as text."""

    @abstractmethod
    def detect_format(self, text: str, path: str | None = None) -> str: ...

    @abstractmethod
    def deserialize(self, text: str, format: str | None = None, path: str | None = None) -> Any:
        """Raises DiagramFormatError."""
        ...

    @abstractmethod
    def serialize(self, diagram: Any, format: str = "light") -> str: ...

    @abstractmethod
    def convert_format(self, text: str, to: str, format: str | None = None) -> str: ...


@runtime_checkable
class DiagramPort(DiagramFilePort, DiagramRepositoryPort, Protocol):
    """Diagrams as files and by id, as implemented by `storage.diagrams.DiagramService`."""


DiagramStoragePort = FileSystemPort
"""Storage of diagrams."""
