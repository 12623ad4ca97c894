"""Code generation by hand: parse a folder, look at what is in it, build an IR, render templates, see what changes, write.

import dipeo_nb as dp

sources = dp.codegen.parse("models")       # a table of what is in each file
sources["ship.ts"]                         # that of one
ir = sources.build("backend")
files = dp.codegen.render({"ship.py": "…template…"}, ir, out="generated")
files                                      # the words that change in each file
files.write()
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from dipeo_nb.codegen.ir.model import IRData
from dipeo_nb.codegen.ir.service import IRBuilderService
from dipeo_nb.codegen.templates import CodegenTemplateService
from dipeo_nb.codegen.typescript.extract import COLLECTIONS
from dipeo_nb.codegen.typescript.grammar import MAX_BYTES
from dipeo_nb.codegen.typescript.parser import ALL_PATTERNS, parse_batch
from dipeo_nb.codegen.typescript.shapes import Parsed
from dipeo_nb.common.root import Root
from dipeo_nb.common.text import visible
from dipeo_nb.common.word_diff import Change, counts, word_diff
from dipeo_nb.errors import StorageError, ValidationError

SUFFIXES = (".ts", ".tsx", ".mts", ".cts")
MAX_FILES = 5000
"""Of a folder."""
SHOWN_ROWS = 200
SHOWN_CHARACTERS = 20_000
"""Of the changes of one file."""
_SERVICE = IRBuilderService()
_STYLE = "border-collapse:collapse;font-size:90%"
_ADDED = "background:#d4f7d4;color:#0a3d0a;text-decoration:none"
_REMOVED = "background:#fbd9d9;color:#5c0b0b"


@dataclass(frozen=True, slots=True)
class Parsing(Mapping[str, Parsed]):
    """What was parsed: name of a source → result. Its display is a table."""

    results: Mapping[str, Parsed]

    def __getitem__(self, name: str) -> Parsed:
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def rows(self) -> list[dict[str, Any]]:
        """One for each source: how many declarations of each kind, and diagnostics (without functions among constants)."""
        return [
            {
                "source": name,
                **{plural: len(cast(list[Any], result["ast"].get(plural, []))) for plural in COLLECTIONS.values()},
                "diagnostics": sum(d["severity"] != "info" for d in result["metadata"]["diagnostics"]),
            }
            for name, result in self.results.items()
        ]

    def declarations(self) -> list[dict[str, Any]]:
        """One row for each declaration: source, kind, name, line, and whether it is exported."""
        return [
            {
                "source": name,
                "kind": kind,
                "name": item["name"],
                "line": item["position"]["line"],
                "exported": item["isExported"],
            }
            for name, result in self.results.items()
            for kind, plural in COLLECTIONS.items()
            if kind != "export"
            for item in cast(list[Any], result["ast"].get(plural, []))
        ]

    def diagnostics(self) -> list[str]:
        """`source:line:column: message`, errors and warnings."""
        return [
            f"{name}:{d['line']}:{d['column']}: {d['message']}"
            for name, result in self.results.items()
            for d in result["metadata"]["diagnostics"]
            if d["severity"] != "info"
        ]

    def build(self, builder: str = "backend", **options: Any) -> IRData:
        """The IR of these sources. Only what depends on a change since the last time is built.

        Args:
            builder: backend, frontend, strawberry, or the name of a custom one.
            options: config, validate_output, cache_enabled.

        Raises:
            ValidationError: there is no such builder, or the sources are not what it needs.
        """
        kind = (
            {"builder_type": builder}
            if builder in ("backend", "frontend", "strawberry")
            else {"builder_type": "custom", "builder_name": builder}
        )
        return _SERVICE.build_ir(self.results, {**options, **kind})

    def __repr__(self) -> str:
        rows = self.rows()
        totals = {key: sum(row[key] for row in rows) for key in (*COLLECTIONS.values(), "diagnostics")}
        return f"{len(rows)} sources: " + ", ".join(f"{count} {key}" for key, count in totals.items() if count)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{_table(self.rows())}"


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """A file that is to be written."""

    path: str
    text: str
    before: str | None
    """What is there; None: nothing."""

    @property
    def changes(self) -> list[Change]:
        """The words that change."""
        return word_diff(self.before or "", self.text)

    @property
    def state(self) -> str:
        """new, changed or unchanged."""
        return "new" if self.before is None else "unchanged" if self.before == self.text else "changed"

    def __repr__(self) -> str:
        added, removed = counts(self.changes)
        return f"{self.path}: {self.state}" + ("" if self.state == "unchanged" else f", {added} words added, {removed} removed")

    def _repr_html_(self) -> str:
        if self.state != "changed":
            return f"<p><code>{html.escape(repr(self))}</code></p>"
        return f'<p><code>{html.escape(repr(self))}</code></p><pre style="font-family:monospace">{_shown(self.changes)}</pre>'


@dataclass(frozen=True, slots=True)
class Generation(Mapping[str, GeneratedFile]):
    """Files that are to be written, by path. Its display shows the words that change."""

    folder: Path
    files: Mapping[str, GeneratedFile] = field(default_factory=dict[str, GeneratedFile])

    def __getitem__(self, path: str) -> GeneratedFile:
        return self.files[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def write(self) -> list[str]:
        """Write what is new or changed, each file whole or not at all; returns the paths. Raises StorageError."""
        out_root = Root(self.folder)
        written: list[str] = []
        for path, file in self.files.items():
            if file.state == "unchanged":
                continue
            try:
                out_root.mkdir(str(PurePosixPath(path).parent))
                out_root.write(path, file.text.encode())
            except OSError as error:
                raise StorageError(f"{path} cannot be written: {error.strerror or error}.", hint="Check the folder.") from error
            written.append(path)
        return written

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.files.values())) or "no files"

    def _repr_html_(self) -> str:
        return "".join(file._repr_html_() for file in self.files.values()) or "<p>no files</p>"  # pyright: ignore[reportPrivateUsage]


def parse(
    source: str | Path | Mapping[str, str | bytes],
    extract_patterns: Iterable[str] = ALL_PATTERNS,
    *,
    include_jsdoc: bool = True,
) -> Parsing:
    """Parse a file, a folder with all below it, or a mapping of names to texts; modules may import each other.

    Args:
        source: of a folder, files `.ts`, `.tsx`, `.mts`, `.cts`; hidden folders and `node_modules` are left out.

    Raises:
        StorageError: it cannot be read.
        ValidationError: there is no such path or pattern, or the folder holds nothing to parse.
        MissingDependencyError: the extra `codegen` is not installed.
    """
    sources = source if isinstance(source, Mapping) else read_sources(Path(source))
    return Parsing(parse_batch(sources, extract_patterns, include_jsdoc=include_jsdoc))


def read_sources(path: Path) -> dict[str, str | bytes]:
    """Name below the folder → content. Raises StorageError, ValidationError."""
    if not path.exists():
        raise ValidationError(f"{path} is not there.", hint="Name a file or a folder with TypeScript.")
    folder, names = (
        (path.parent, [path.name]) if path.is_file() else (path, list(_names(Root(path), "", 0)) if path.is_dir() else [])
    )
    if not names:
        raise ValidationError(f"{path} holds no TypeScript.", hint=f"Sources end with {', '.join(SUFFIXES)}.")
    if len(names) > MAX_FILES:
        raise ValidationError(f"{path} holds more than {MAX_FILES:,} sources.", hint="Name a folder below it.")
    root = Root(folder)
    try:
        return {name: root.read(name, MAX_BYTES) for name in sorted(names)}
    except StorageError as error:
        if error.facts.get("reason") != "outside":
            raise
        raise StorageError(
            f"'{error.facts['path']}' is a link that leads out of {folder}.", hint="Name what it leads to, or remove the link."
        ) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.", hint="Check the permissions.") from error


def _names(root: Root, below: str, depth: int) -> Iterator[str]:
    if depth > 40:
        return
    for entry in root.listdir(below or "."):
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith(".") or entry.name == "node_modules":
            continue
        if entry.is_dir and not entry.is_link:
            yield from _names(root, name, depth + 1)
        elif name.endswith(SUFFIXES):
            yield name


def render(
    templates: Mapping[str, str],
    context: IRData | Mapping[str, Any],
    *,
    out: str | Path = ".",
    directories: Sequence[str | Path] = (),
) -> Generation:
    """Render templates; nothing is written until `write()`.

    Args:
        templates: path of a file to be written, below *out* → a template's text; or, with *directories*, `@name` of one in them.
        context: an IR (its `names()`), or a mapping of names.

    Raises:
        TemplateError: as a template raises it.
        StorageError: a path leads out of *out*, or a file there cannot be read.
    """
    names = context.names() if isinstance(context, IRData) else dict(context)
    service, folder = CodegenTemplateService(directories), Path(out)
    root = Root(folder)
    files: dict[str, GeneratedFile] = {}
    for path, template in templates.items():
        before = _before(root, path)
        text = (
            service.render_template(template[1:], names)
            if directories and template.startswith("@")
            else service.render_string(template, names)
        )
        files[path] = GeneratedFile(path, text, before)
    return Generation(folder, files)


def _before(root: Root, path: str) -> str | None:
    try:
        return root.read(path).decode("utf-8", "replace") if root.exists(path) else None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.", hint="It must be a file.") from error


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(key)}</th>" for key in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row.values())}</tr>" for row in rows[:SHOWN_ROWS])
    more = f"<p>… and {len(rows) - SHOWN_ROWS} more</p>" if len(rows) > SHOWN_ROWS else ""
    return f'<table style="{_STYLE}"><tr>{head}</tr>{body}</table>{more}'


def _cell(value: Any) -> str:
    return "" if value == 0 else html.escape(visible(str(value)))


def _shown(changes: Iterable[Change]) -> str:
    """Changes as HTML; of long unchanged texts, the lines beside a change."""
    pieces: list[str] = []
    size = 0
    for change in changes:
        if size > SHOWN_CHARACTERS:
            pieces.append("\n…")
            break
        if change.kept:
            lines = change.new.split("\n")
            text = change.new if len(lines) <= 8 else "\n".join([*lines[:3], "⋯", *lines[-3:]])
            pieces.append(html.escape(visible(text)))
        else:
            if change.old:
                pieces.append(f'<del style="{_REMOVED}">{html.escape(visible(change.old))}</del>')
            if change.new:
                pieces.append(f'<ins style="{_ADDED}">{html.escape(visible(change.new))}</ins>')
        size += len(pieces[-1])
    return "".join(pieces)
