"""Files that a diagram names: where they are looked for, and what may be read (diagram-spec §2.2.5).

Only files below the base directory or below the diagram's own folder are read, symbolic links followed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from dipeo_nb.common.paths import refuse_unseen
from dipeo_nb.config import get_settings
from dipeo_nb.diagram.fields import nearest, shorten
from dipeo_nb.errors import StorageError


class FileProblem(NamedTuple):
    """Why a file gives no text."""

    code: str
    message: str
    hint: str


_NO_PROBLEM = FileProblem("", "", "")


class PromptFiles:
    """Finds and reads the files one diagram names; each is read once.

    Args:
        base: the base directory.
        diagram: the diagram's file; None: no place beside it.
    """

    def __init__(self, base: Path, diagram: Path | None) -> None:
        self.base = base
        self.folder = diagram.parent if diagram else None
        self._found: dict[tuple[str, bool], tuple[str | None, FileProblem]] = {}
        self._paths: dict[str, Path] = {}

    def read(self, name: str, *, base_first: bool = False) -> tuple[str | None, FileProblem]:
        """The text of a file (UTF-8), or None and why.

        Args:
            base_first: look below the base directory before the other places.
        """
        key = (name, base_first)
        if key not in self._found:
            self._found[key] = self._read(name.strip(), base_first)
        return self._found[key]

    def relative(self, name: str) -> str | None:
        """The path of a file that was read, relative to the base directory; None when it is outside."""
        path = self._paths.get(name.strip())
        root = self.base.resolve()
        return path.relative_to(root).as_posix() if path and path.is_relative_to(root) else None

    def below_base(self, name: str) -> bool:
        """Whether a regular file of that name is below the base directory."""
        try:
            path = (self.base / name).resolve()
            return path.is_relative_to(self.base.resolve()) and path.is_file()
        except (OSError, ValueError, RuntimeError):
            return False  # no name that a file can have

    def places(self, name: str, base_first: bool = False) -> list[Path]:
        """Where a name is looked for, in order, each place once."""
        path = Path(name)
        if path.is_absolute():
            return [path]
        places = [self.base / name] if base_first or name.startswith(("projects/", "files/")) else []
        if self.folder is not None:
            places += [self.folder / name, self.folder / "prompts" / name.removeprefix("prompts/")]
        places += [self.base / "files" / "prompts" / name.removeprefix("files/prompts/"), self.base / name]
        return list(dict.fromkeys(places))

    def _read(self, name: str, base_first: bool) -> tuple[str | None, FileProblem]:
        shown = shorten(name, 120)
        try:
            refuse_unseen(name)
        except StorageError as error:
            return None, FileProblem("bad-file-name", error.message, "Use a plain relative path.")
        places = self.places(name, base_first)
        try:
            roots = [root.resolve() for root in (self.base, self.folder) if root is not None]
            found = [path for path in places if path.is_file()]
            inside = [p for path in found if any((p := path.resolve()).is_relative_to(root) for root in roots)]
            private = get_settings().data_dir.expanduser().resolve()
            inside = [path for path in inside if not path.is_relative_to(private)]
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return None, FileProblem(
                "bad-file-name", f"'{shown}' is no file name: {reason}.", "Use a plain relative path."
            )
        if found and not inside:
            return None, FileProblem(
                "file-outside",
                f"'{shown}' is outside the base directory {self.base} and the diagram's folder.",
                "Move it below one of them, or set --base-dir.",
            )
        if not found:
            looked = ", ".join(str(p) for p in places)
            return None, FileProblem("file-not-found", f"There is no file '{shown}'.", _advice(places, looked))
        path = inside[0]
        self._paths[name] = path
        return self._text(path, shown)

    def _text(self, path: Path, shown: str) -> tuple[str | None, FileProblem]:
        limit = get_settings().max_file_size
        try:
            size = path.stat().st_size
            if size > limit:
                return None, FileProblem(
                    "file-too-large", f"'{shown}' has {size:,} bytes; {limit:,} are allowed.", "Shorten it."
                )
            return path.read_text(encoding="utf-8-sig"), _NO_PROBLEM
        except UnicodeDecodeError as error:
            return None, FileProblem(
                "file-not-text", f"'{shown}' is not UTF-8 (byte {error.start:,}).", "Save it as UTF-8."
            )
        except OSError as error:
            return None, FileProblem(
                "file-unreadable", f"'{shown}' cannot be read: {error.strerror or error}.", "Check its permissions."
            )


def _advice(places: list[Path], looked: str) -> str:
    """The nearest file name in the folders that were looked at, and the places."""
    for place in places:
        try:
            names = [entry.name for entry in os.scandir(place.parent) if entry.is_file()][:1000]
        except OSError:
            continue  # that folder is not there
        if close := nearest(place.name, names):
            return f"Did you mean '{close}'? Looked for {looked}."
    return f"Create it, or correct the name. Looked for {looked}."
