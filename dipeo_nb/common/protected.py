"""Protected places: files and folders that nothing a diagram names may reach, however it spells them.

Closed for reading and writing are names that begin with a dot (`.env`, `.git`, `.dipeo`, `.ssh` …), `dipeo.toml`, and the
product's own files and folders (keys, cache, stores) wherever they are; also closed for writing are the files that Python
and pytest run by themselves (`*.pth`, `sitecustomize.py`, `usercustomize.py`, `conftest.py`).
"""

from __future__ import annotations

import os
import stat
import time
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from dipeo_nb.common.atomic import is_draft
from dipeo_nb.common.paths import refused
from dipeo_nb.errors import StorageError

SETTINGS_FILE = "dipeo.toml"
RUN_BY_THEMSELVES = frozenset({"sitecustomize.py", "usercustomize.py", "conftest.py"})
"""Python files that are run without being named."""
OWN_NAMES = frozenset({".dipeo", ".env", SETTINGS_FILE})
"""Names of the product itself, which no setting opens."""
_SIBLINGS = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps next to a database."""
_KNOWN_NAMES = 10_000
"""Names whose answer is kept."""
_KNOWN_S = 1.0
"""Seconds for which the inodes of the product's own places are kept."""
_MAX_ENTRIES = 200_000
"""Files that are compared with one of several names."""


class ProtectedPlaces:
    """The names and files that are closed.

    Args:
        own: files and folders of the product itself, wherever they are.
        opened: names that begin with a dot and are not protected all the same; never the product's own.
    """

    def __init__(self, own: Iterable[Path] = (), opened: Iterable[str] = ()) -> None:
        self._own = tuple({_real(place.expanduser()): None for place in own})
        self._opened = frozenset(folded(name) for name in opened) - OWN_NAMES
        self._names: dict[tuple[str, bool], str | None] = {}
        self._inodes: tuple[float, frozenset[tuple[int, int]]] = (-_KNOWN_S, frozenset())

    def check_name(self, part: str, writing: bool, shown: str) -> None:
        """Raises StorageError `refused` for a component of a path that is protected, in any spelling."""
        key = (part, writing)
        try:
            why = self._names[key]
        except KeyError:
            if len(self._names) >= _KNOWN_NAMES:
                self._names.clear()
            why = self._names[key] = self._why(part, writing)
        if why is not None:
            raise closed(shown, why, can_be_opened=folded(part) not in OWN_NAMES and part.startswith("."))

    def below(self, base: Path) -> frozenset[tuple[str, ...]]:
        """The product's own places in a folder, as folded components; `()` among them when it is one of them itself."""
        start = tuple(map(folded, base.parts))
        found: set[tuple[str, ...]] = set()
        for place in self._own:
            parts = tuple(map(folded, place.parts))
            if parts[: len(start)] == start:
                rest = parts[len(start) :]
                found.add(rest)
                found |= {(*rest[:-1], rest[-1] + end) for end in _SIBLINGS if rest}
        return frozenset(found)

    def check_file(self, info: os.stat_result, shown: str, base: Path) -> None:
        """Compare what was opened with what is protected, whatever name it was opened by.

        Args:
            info: of the open file or folder.
            base: the folder whose protected files may have a second name.

        Raises:
            StorageError: `refused`.
        """
        inode = (info.st_dev, info.st_ino)
        if inode in self._own_inodes():
            raise own_place(shown)
        if info.st_nlink > 1 and stat.S_ISREG(info.st_mode) and inode in self._protected_inodes(base, shown):
            raise closed(shown, "it is another name of a protected file")

    def _why(self, part: str, writing: bool) -> str | None:
        name = folded(part)
        if name.startswith(".") and name not in self._opened:
            return f"'{part}' begins with a dot"
        if name == SETTINGS_FILE:
            return f"'{part}' holds settings"
        if writing and (name in RUN_BY_THEMSELVES or name.endswith(".pth")):
            return f"'{part}' is run by Python itself"
        return None

    def _own_inodes(self) -> frozenset[tuple[int, int]]:
        since, inodes = self._inodes
        now = time.monotonic()
        if now - since >= _KNOWN_S:
            inodes = frozenset(_inodes(self._own))
            self._inodes = (now, inodes)
        return inodes

    def _protected_inodes(self, base: Path, shown: str) -> Iterator[tuple[int, int]]:
        """The inodes of all protected files, which one of several names may be one of."""
        own = [*self._own, *(Path(f"{place}{end}") for place in self._own for end in _SIBLINGS)]
        todo = [(str(place), True) for place in own] + [(str(base), False)]
        left = _MAX_ENTRIES
        while todo:
            place, protected = todo.pop()
            try:
                info = os.lstat(place)
                entries = list(os.scandir(place)) if stat.S_ISDIR(info.st_mode) else []
            except OSError:
                continue  # gone, or not to be read
            if protected:
                yield info.st_dev, info.st_ino
            for entry in entries:
                is_dir = entry.is_dir(follow_symlinks=False)
                # A file that is created exclusively has its draft's name besides, for a moment, or until it is cleaned up
                # after a writer that was killed in it.
                closed_too = protected or (self._why(entry.name, False) is not None and (is_dir or not is_draft(entry.name)))
                if closed_too or is_dir:
                    todo.append((entry.path, closed_too))
            left -= len(entries)
            if left < 0:
                raise closed(shown, "it has several names, and there are too many files to look for a protected one")


def folded(name: str) -> str:
    """A name as file systems compare it that ignore case and Unicode forms.

    What only Windows leaves out is left out, too: `name:stream` is the file `name` there, and so is `name.`.
    """
    name = name.lower() if name.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return name.partition(":")[0].rstrip(". ") or name


def closed(path: str, why: str, *, can_be_opened: bool = False) -> StorageError:
    """The error of a protected path."""
    hint = "Use another name."
    if can_be_opened:
        hint = "Use another name, or open this one by your own setting open_places (DIPEO_OPEN_PLACES)."
    return refused(path, f"{why}, and such places are closed to diagrams", hint=hint, reason="protected")


def own_place(path: str) -> StorageError:
    """The error of a path of the product's own."""
    return refused(
        path,
        "it is a place of dipeo-nb itself (keys, models, runs, recordings), closed to diagrams",
        hint="Use another name, or keep those elsewhere (DIPEO_DATA_DIR, DIPEO_CACHE_DIR, STATE_STORE_PATH …).",
        reason="protected",
    )


def _real(place: Path) -> Path:
    return Path(os.path.realpath(place))


def _inodes(places: Iterable[Path]) -> Iterator[tuple[int, int]]:
    for place in places:
        try:
            info = os.stat(place)
        except OSError:
            continue  # not made yet
        yield info.st_dev, info.st_ino
