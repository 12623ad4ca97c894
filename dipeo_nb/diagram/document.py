"""`Diagram`: a diagram with the text it came from. What `dp.load` returns and notebooks show."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.disk_errors import CAUSES
from dipeo_nb.common.paths import from_home
from dipeo_nb.common.scrub import redactor
from dipeo_nb.common.text import did_you_mean, displayed, shorten
from dipeo_nb.config import get_settings
from dipeo_nb.diagram import detect, edit, formats
from dipeo_nb.diagram.credentials import credentials_of
from dipeo_nb.diagram.formats import yaml_text
from dipeo_nb.diagram.source import parse
from dipeo_nb.diagram.source_files import read_file, size_limit, text_of
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.diagram import DiagramMetadata, DomainArrow, DomainDiagram, DomainNode, DomainPerson
from dipeo_nb.errors import DiagramNotFoundError, StorageError, ValidationError

if TYPE_CHECKING:
    from dipeo_nb.diagram.closure import Closure
    from dipeo_nb.domain.plan import Plan


@dataclass(frozen=True, eq=False)
class Diagram:
    """A diagram: its model, its text, and what the reader had to say. Unchangeable; `set` makes another one.

    In a notebook its display is the drawing, with the findings of reading and compiling under it.
    """

    model: DomainDiagram
    format: str = "light"
    """`light`, `native`, `readable` or `executable`."""
    text: str = ""
    """As read, byte for byte; comments and order included."""
    path: Path | None = None
    source: SourceMap = field(default_factory=SourceMap, repr=False)
    diagnostics: tuple[Diagnostic, ...] = ()
    """Of reading only; `check()` adds those of compiling."""
    base_dir: Path | None = None
    """Root of relative names in the diagram; None: the settings' one."""

    @property
    def name(self) -> str:
        """The metadata's name, else the file name without suffixes, else `diagram`."""
        named = self.model.metadata.name if self.model.metadata else None
        return named or (detect.stem(self.path) if self.path else "diagram")

    @property
    def nodes(self) -> tuple[DomainNode, ...]:
        """All nodes, in file order."""
        return self.model.nodes

    @property
    def arrows(self) -> tuple[DomainArrow, ...]:
        """All arrows, in file order."""
        return self.model.arrows

    @property
    def persons(self) -> tuple[DomainPerson, ...]:
        """All persons, in file order."""
        return self.model.persons

    # -------------------------------------------------------------------------------------- text and editing

    @checked_call
    def to_text(self, format: str | None = None) -> str:
        """The diagram as text: in its own format the text as it is, else written anew.

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

    @checked_call
    def save(self, path: str | os.PathLike[str] | None = None, format: str | None = None) -> Path:
        """Write the diagram to a file, all or nothing, and return its path.

        Args:
            path: default: the file it was loaded from.
            format: default: what the file name says, else the diagram's own.

        Raises:
            ValidationError: no path is known, or an unknown format.
            StorageError: the file cannot be written.
        """
        if path is not None and not isinstance(path, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(f"{path!r:.80} is no path of a file.", hint="Give one: save('name.light.yaml').")
        target = Path(path) if path is not None else self.path
        if target is None:
            raise ValidationError("This diagram has no file yet.", hint="Give one: save('name.light.yaml').")
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
            ValidationError: nothing stands at that path, or the value is no plain data.
        """
        return load_text(
            edit.edited(self, path, _plain_data(value)), format=self.format, path=self.path, base_dir=self.base_dir
        )

    # --------------------------------------------------------------------------------------------- compiling

    @checked_call
    def compile(self, *, base_dir: Path | None = None) -> Plan:
        """The plan that a run follows.

        Raises:
            InvalidDiagramError: with all findings as `diagnostics`.
        """
        from dipeo_nb.diagram.compile import compile_diagram

        return compile_diagram(self.model, **self._compile_arguments(base_dir))

    @checked_call
    def check(self, *, base_dir: Path | None = None) -> tuple[Diagnostic, ...]:
        """All findings of reading and compiling, in file order; never raises for a bad diagram."""
        from dipeo_nb.diagram.compile import check_diagram

        return check_diagram(self.model, **self._compile_arguments(base_dir))

    def capabilities(self, *, base_dir: Path | None = None) -> Closure:
        """What a run would read as program and may do: `uses.listing()`, `files`, and the `code` that pins it. Nothing is run.

        Raises:
            InvalidDiagramError: the diagram cannot run.
        """
        from dipeo_nb.diagram.closure import closure

        return closure(self, base_dir=base_dir or self.base_dir or get_settings().base_dir)

    def _compile_arguments(self, base_dir: Path | None) -> dict[str, Any]:
        return {
            "source": self.source,
            "name": self.name,
            "path": self.path,
            "base_dir": base_dir or self.base_dir,
            "diagnostics": self.diagnostics,
        }

    # ----------------------------------------------------------------------------------------------- showing

    def svg(self, **options: Any) -> str:
        """The drawing as SVG text; options as of `dipeo_nb.diagram.drawing.draw`."""
        from dipeo_nb.diagram.drawing import draw

        known = inspect.signature(draw).parameters
        for name in options:
            if name not in known:
                raise ValidationError(f"A drawing has no option '{name:.80}'.", hint=did_you_mean(name, known, f"It takes {', '.join(known)}."))
        return redactor(draw(self.model, **{"title": self.name, **options}))

    @checked_call
    def png(self, *, width: int | None = None, theme: Literal["light", "dark"] = "light") -> bytes:
        """The drawing as PNG; *width* in pixels.

        Raises:
            ValidationError: the width is no number of pixels.
        """
        if width is not None and (not isinstance(width, int) or not 16 <= width <= 20_000):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(f"width={width!r:.80} is not between 16 and 20000 pixels.", hint="Leave it out for the natural size.")
        from dipeo_nb.diagram.png import svg_to_png

        return svg_to_png(self.svg(theme=theme), width=width, theme=theme)

    @checked_call
    def html(self, *, theme: str = "auto") -> str:
        """The drawing and all findings as a web page of its own."""
        from dipeo_nb.diagram.html import page

        svg, overview = self._pictures(theme)
        return redactor(page(self.name, svg, self._findings, overview=overview))

    def _pictures(self, theme: str = "auto") -> tuple[str, str | None]:
        """The drawing, and an overview of one that is wider than the page."""
        from dipeo_nb.diagram.drawing import overview
        from dipeo_nb.diagram.layout import place

        layout = place(self.model)
        whole = overview(self.model, layout, theme=theme, title=self.name)  # type: ignore[arg-type]
        return self.svg(theme=theme, layout=layout), None if whole is None else redactor(whole)

    def mermaid(self) -> str:
        """The graph as Mermaid text."""
        from dipeo_nb.diagram.mermaid import to_mermaid

        return redactor(to_mermaid(self.model))

    @checked_call
    def outline(self, *, lines: int = 100) -> str:
        """The diagram as text: nodes with their arrows, then the findings; at most about *lines* lines."""
        from dipeo_nb.diagram.drawing import clean
        from dipeo_nb.diagram.text_tree import text_tree

        count = f"{len(self.nodes)} nodes, {len(self.arrows)} arrows, {len(self.persons)} persons"
        tree = text_tree(self.model).splitlines()
        cut = [*tree[:lines], f"… {len(tree) - lines} more lines"] if len(tree) > lines else tree
        found = [clean(finding, 600) for finding in self._findings]
        shown = [*found[:20], f"… {len(found) - 20} more findings"] if len(found) > 20 else found
        return redactor("\n".join([f"{clean(self.name, 60)} · {count}", *cut, *shown]))

    @displayed
    def __repr__(self) -> str:
        return self.outline()

    @displayed
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from dipeo_nb.diagram.html import figure, findings

        # HTML first: it is what every viewer prefers, and an <img> shows the drawing where scripts and styles are
        # stripped. Mermaid is left out: Lab would prefer HTML to it, others do not know it (`mermaid()` gives it).
        svg, overview = self._pictures()
        shown = figure(svg, self.name, overview=overview) + findings(self._findings[:50])
        return {
            "text/html": f'<div class="mathjax_ignore tex2jax_ignore">{shown}</div>',  # the names in findings hold no mathematics
            "image/svg+xml": svg,
            "text/plain": self.outline(),
        }

    @cached_property
    def _findings(self) -> tuple[Diagnostic, ...]:
        return self.check()


_saved: set[bytes] = set()
"""Digests of diagrams that were made and saved by this process."""


def saved_here(text: str) -> bool:
    """Whether this process has made and saved a diagram of exactly that text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() in _saved


# ----------------------------------------------------------------------------------------------------- loading


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
    if isinstance(source, Mapping):
        return _load_data(source, format, base_dir)
    if isinstance(source, os.PathLike):
        return _load_file(Path(source), format, base_dir)
    if not isinstance(source, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValidationError(
            f"A diagram is loaded from a path, a text or a mapping, not from {type(source).__name__}.",
            hint="Use from_model() for a DomainDiagram.",
        )
    if "\n" in source or source.lstrip("\ufeff \t").startswith("{") or not source.strip():
        return load_text(source, format=format, base_dir=base_dir)
    root = base_dir or get_settings().base_dir
    for candidate in (from_home(source), root / source):
        if _exists(candidate):
            return _load_file(candidate, format, base_dir)
    if os.path.isabs(source) or ".." in Path(source).parts or source.startswith("~"):
        raise DiagramNotFoundError(f"There is no file '{shorten(source, 200)}'.", hint="Check the path.", path=source)
    return load_named(source, root, format=format)


def load_named(name: str, base_dir: Path, *, beside: Path | None = None, format: str | None = None) -> Diagram:
    """Load a diagram by its name or its path below a folder, and from nowhere else.

    Args:
        base_dir: root of names, and of relative names in the diagram.
        beside: folder of the diagram that uses the name; looked up first.
        format: `light`, `native`, `readable` or `executable`; default: by file name, else by content.

    Raises:
        DiagramNotFoundError, DiagramFormatError, ValidationError: as `load`.
    """
    limit = size_limit()
    found = detect.opened(name, base_dir, beside=beside, format=format, limit=limit)
    text = text_of(found.data, str(found.path), limit)
    return load_text(text, format=format, path=found.path, base_dir=base_dir)


def load_text(
    text: str, *, format: str | None = None, path: str | os.PathLike[str] | None = None, base_dir: Path | None = None
) -> Diagram:
    """Load a diagram from YAML or JSON text; *path* is the file it belongs to, for names and messages.

    Raises:
        DiagramFormatError, ValidationError: as `load`.
    """
    given = detect.check_format(format) if format else None
    location = Path(path) if path is not None else None
    document = parse(text, str(location) if location else None)
    detected = given if given and isinstance(document.value, Mapping) else None
    name = detected or detect.detect(document.value, location, document.source.file)
    model, found = formats.read(document, name)
    redactor.add(*credentials_of(model))  # from here on no display, record or message shows them
    return Diagram(model, name, text, location, document.source, found, base_dir)


def from_model(model: DomainDiagram, name: str | None = None, *, format: str = "light") -> Diagram:
    """A diagram from its model; the text is written in *format*, *name* goes into the metadata."""
    if name:
        model = replace(model, metadata=replace(model.metadata or DiagramMetadata(), name=name))
    return load_text(formats.write(model, detect.check_format(format) or "light"), format=format)


def _load_file(path: Path, format: str | None, base_dir: Path | None) -> Diagram:
    return load_text(read_file(path), format=format, path=path, base_dir=base_dir)


def _load_data(data: Mapping[str, Any], format: str | None, base_dir: Path | None) -> Diagram:
    plain = _plain_data(data)
    name = (detect.check_format(format) if format else None) or detect.detect(plain)
    # Through text, so that places and `set` work as for a file.
    text = json.dumps(plain, ensure_ascii=False, indent=2) if formats.FORMATS[name].suffix.endswith(".json") else yaml_text.dump(plain)
    return load_text(text, format=name, base_dir=base_dir)


def _plain_data(value: Any) -> Any:
    """A deep copy in plain data; dates become ISO text, enum members their values."""

    def convert(item: Any) -> Any:
        if isinstance(item, Mapping):
            return dict(item)
        if isinstance(item, (set, frozenset)):
            return sorted(item, key=str)
        if hasattr(item, "isoformat"):
            return item.isoformat()
        if isinstance(item, os.PathLike):
            return os.fspath(item)
        raise TypeError(f"{type(item).__name__} is no plain data")

    try:
        return json.loads(json.dumps(value, default=convert, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValidationError(
            f"The value is no plain data: {shorten(exc, 200)}.",
            hint="Use texts, numbers, booleans, lists and mappings with text keys.",
        ) from exc


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or a zero byte: no path then
        return False
