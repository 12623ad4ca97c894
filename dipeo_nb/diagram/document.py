"""`Diagram`: a diagram with the text it came from. What `dp.load` returns and notebooks show."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.disk_errors import CAUSES
from dipeo_nb.common.text import shorten
from dipeo_nb.config import get_settings
from dipeo_nb.diagram import detect, edit, formats, loading
from dipeo_nb.diagram.display import DisplayedDiagram
from dipeo_nb.diagram.loading import plain_data
from dipeo_nb.diagram.parsed import ParsedDiagram
from dipeo_nb.domain.diagram import DiagramMetadata, DomainDiagram
from dipeo_nb.errors import StorageError, ValidationError

if TYPE_CHECKING:
    from dipeo_nb.diagram import closure as closures
else:
    closures = lazy.module("dipeo_nb.diagram.closure")  # only what asks for capabilities needs it


@dataclass(frozen=True, eq=False, repr=False)
class Diagram(DisplayedDiagram):
    """A diagram: its model, its text, and the findings of reading. Immutable; `set` makes another one.

    In a notebook its display is the drawing, with the findings of reading and compiling under it.
    """

    @classmethod
    def of(cls, parsed: ParsedDiagram) -> Diagram:
        """The same diagram, with displays and editing."""
        return cls(parsed.model, parsed.format, parsed.text, parsed.path, parsed.source, parsed.diagnostics, parsed.base_dir)

    @checked_call
    def to_text(self, format: str | None = None) -> str:
        """The diagram as text: in its own format the text as it is, else written from the model.

        The executable form holds the texts of the prompt files.

        Raises:
            ValidationError: an unknown format.
            InvalidDiagramError: the executable form of a diagram that cannot run.
        """
        wanted = (detect.check_format(format) if format else None) or self.format
        if wanted == self.format:
            return self.text
        model = formats.executable.self_contained(self.compile()) if wanted == "executable" else self.model
        return formats.write(model, wanted)

    def to_data(self) -> dict[str, Any]:
        """The diagram as plain data in native form: what a run of it records. That is the very text of a native diagram, if it is JSON."""
        if self.format == "native":
            try:
                return json.loads(self.text)
            except ValueError:  # YAML, or a byte order mark
                pass
        return formats.native_data(self.model)

    @checked_call
    def save(self, path: str | os.PathLike[str] | None = None, format: str | None = None) -> Path:
        """Write the diagram to a file, all or nothing, and return its path.

        Args:
            path: default: the file it was loaded from.
            format: default: that of the file name, else the diagram's own.

        Raises:
            ValidationError: no path is known, or an unknown format.
            StorageError: the file cannot be written.
        """
        if path is not None and not isinstance(path, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(f"{path!r:.80} is not a path of a file.", hint="Provide one: save('name.light.yaml').")
        target = Path(path) if path is not None else self.path
        if target is None:
            raise ValidationError("This diagram has no file yet.", hint="Provide one: save('name.light.yaml').")
        wanted = format or (detect.format_of_name(target) if target != self.path else None)
        data = self.to_text(wanted).encode("utf-8")
        try:
            write_atomic(target, data)
            if self.path is None:  # made in code; what was loaded from a file stays what that file is
                _saved.add(hashlib.sha256(data).digest())
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            unknown = ("failed", "", "Check that the folder exists and may be written to.")
            cause, _, hint = CAUSES.get(getattr(exc, "errno", None) or 0, unknown)
            raise StorageError(
                f"The diagram cannot be written to '{shorten(target, 200)}': {reason}.",
                hint=unknown[2] if cause == "not_found" else hint,
                operation="write",
                path=str(target),
                cause=cause,
            ) from exc
        return target

    @checked_call
    def set(self, path: str, value: Any) -> Diagram:
        """Another diagram with one value changed; this one and its file stay as they are.

        Args:
            path: `nodes.<label or id>.<field>`, `persons.<label or id>.<field>`, `arrows.<id>.<field>`, `name`
                or `description`. Fields may go deeper (`custom_data.topic`); aliases are accepted. A new
                `label` is changed wherever connections or nodes use it.
            value: plain data; None removes the field.

        Raises:
            ValidationError: there is nothing at that path, or the value is not plain data.
        """
        return load_text(
            edit.set_value(self, path, plain_data(value)), format=self.format, path=self.path, base_dir=self.base_dir
        )

    def capabilities(self, *, base_dir: Path | None = None) -> closures.Closure:
        """The programs a run would read, and the uses it may make: `uses.listing()`, `files`, and the `code` that pins it. Nothing is run.

        Raises:
            InvalidDiagramError: the diagram cannot run.
        """
        return closures.closure(self, base_dir=base_dir or self.base_dir or get_settings().base_dir)


_saved: set[bytes] = set()
"""Digests of diagrams that were made and saved by this process."""


def saved_here(text: str) -> bool:
    """Whether this process has made and saved a diagram of exactly that text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() in _saved


def load(
    source: str | os.PathLike[str] | Mapping[str, Any], *, format: str | None = None, base_dir: Path | None = None
) -> Diagram:
    """Load a diagram from a path, a name, YAML or JSON text, or plain data.

    Args:
        source: text with several lines, or beginning with `{`, is the diagram itself; any other text is a path,
            else a name that is looked up in the base directory, `examples/`, `projects/` and `files/`.
        format: `light`, `native`, `readable` or `executable`; default: by file name, else by content.
        base_dir: root of names, and of relative names in the diagram; default: the settings' one.

    Raises:
        DiagramNotFoundError: no such file or name.
        DiagramFormatError: not a diagram at all. A readable diagram with mistakes loads; see `diagnostics`.
        ValidationError: an unknown format, or data that is not plain.
    """
    return Diagram.of(loading.load(source, format=format, base_dir=base_dir))


def load_named(name: str, base_dir: Path, *, beside: Path | None = None, format: str | None = None) -> Diagram:
    """Load a diagram by its name or its path below a folder, and from nowhere else.

    Args:
        base_dir: root of names, and of relative names in the diagram.
        beside: folder of the diagram that uses the name; looked up first.
        format: `light`, `native`, `readable` or `executable`; default: by file name, else by content.

    Raises:
        DiagramNotFoundError, DiagramFormatError, ValidationError: as `load`.
    """
    return Diagram.of(loading.load_named(name, base_dir, beside=beside, format=format))


def load_text(
    text: str, *, format: str | None = None, path: str | os.PathLike[str] | None = None, base_dir: Path | None = None
) -> Diagram:
    """Load a diagram from YAML or JSON text; *path* is the file it belongs to, for names and messages.

    Raises:
        DiagramFormatError, ValidationError: as `load`.
    """
    return Diagram.of(loading.load_text(text, format=format, path=path, base_dir=base_dir))


def from_model(model: DomainDiagram, name: str | None = None, *, format: str = "light") -> Diagram:
    """A diagram from its model; the text is written in *format*, *name* goes into the metadata."""
    if name:
        model = replace(model, metadata=replace(model.metadata or DiagramMetadata(), name=name))
    return load_text(formats.write(model, detect.check_format(format) or "light"), format=format)
