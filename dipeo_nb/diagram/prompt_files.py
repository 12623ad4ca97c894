"""Files that a diagram names: where they are looked for, and what may be read.

Only files below the base directory or below the diagram's own folder are read, symbolic links followed; protected ones are not.
"""

from __future__ import annotations

import os
import stat
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dipeo_nb.common.paths import refuse_unseen
from dipeo_nb.common.protected import ProtectedPlaces
from dipeo_nb.common.root import Root
from dipeo_nb.common.text import nearest, shorten
from dipeo_nb.config import get_settings
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
        diagram: the diagram's file; None: there is none.
    """

    def __init__(self, base: Path, diagram: Path | None) -> None:
        self.base = base
        self.folder: Path | None = diagram.parent if diagram else None
        self._found: dict[tuple[str, bool], tuple[str | None, FileProblem]] = {}
        self._paths: dict[str, Path] = {}

    @cached_property
    def _roots(self) -> list[Root]:
        settings = get_settings()
        protected = ProtectedPlaces(settings.own_places, settings.open_places)
        return [Root(root, protected=protected) for root in (self.base, self.folder) if root is not None]

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
        root = self._roots[0].path
        return path.relative_to(root).as_posix() if path and path.is_relative_to(root) else None

    def path_of(self, name: str) -> Path | None:
        """The absolute path of a file that was read, after links."""
        return self._paths.get(name.strip())

    def below_base(self, name: str) -> bool:
        """Whether a regular file of that name is below the base directory."""
        try:
            return stat.S_ISREG(self._roots[0].look(name)[1].st_mode)
        except (OSError, StorageError):
            return False

    def places(self, name: str, base_first: bool = False) -> list[Path]:
        """The paths at which a name is looked up, in order, each once."""
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
        refusals: list[StorageError] = []
        limit = get_settings().max_file_size
        places = self.places(name, base_first)
        outside = 0
        for place in places:
            refusals_here: list[StorageError] = []
            for root in self._roots:
                try:
                    path, data = root.located(place, limit)
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    continue
                except StorageError as error:
                    refusals_here.append(error)
                except OSError as error:
                    reason = f"'{shown}' cannot be read: {error.strerror or error}."
                    return None, FileProblem("file-unreadable", reason, "Check its permissions.")
                else:
                    self._paths[name] = path
                    return _text(data, shown, limit)
            refusals += refusals_here
            outside += len(refusals_here) == len(self._roots) and (os.path.lexists(place) or len(places) == 1)
        return None, self._missing(shown, places, refusals, bool(outside))

    def _missing(self, shown: str, places: list[Path], refusals: list[StorageError], outside: bool) -> FileProblem:
        """Why no place has the file."""
        for error in refusals:
            if error.facts.get("reason") != "outside":
                code = "file-protected" if error.facts.get("reason") == "protected" else "bad-file-name"
                return FileProblem(code, error.message, error.hint or "Use a plain relative path.")
        if outside:
            return FileProblem(
                "file-outside",
                f"'{shown}' is outside the base directory {self.base} and the diagram's folder.",
                "Move it below one of them, or set --base-dir.",
            )
        looked = ", ".join(str(p) for p in places)
        return FileProblem("file-not-found", f"There is no file '{shown}'.", self._advice(places, looked))

    def _advice(self, places: list[Path], looked: str) -> str:
        """The nearest file name in the folders that were looked at, and the places."""
        for place in places:
            for root in self._roots:
                try:
                    names = [entry.name for entry in root.listdir(place.parent) if not entry.is_dir][:1000]
                except (OSError, StorageError):
                    continue  # that folder is not there
                if close := nearest(place.name, names):
                    return f"Did you mean '{close}'? Looked for {looked}."
        return f"Create it, or correct the name. Looked for {looked}."


def _text(data: bytes, shown: str, limit: int) -> tuple[str | None, FileProblem]:
    if len(data) > limit:
        problem = f"'{shown}' has more than the {limit:,} bytes that are allowed."
        return None, FileProblem("file-too-large", problem, "Shorten it.")
    try:
        return data.decode("utf-8-sig"), _NO_PROBLEM
    except UnicodeDecodeError as error:
        problem = f"'{shown}' is not UTF-8 (byte {error.start:,})."
        return None, FileProblem("file-not-text", problem, "Save it as UTF-8.")
