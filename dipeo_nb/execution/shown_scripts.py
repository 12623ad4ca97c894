"""Shell texts whose scripts are those that were shown before the run, whatever the disk has by now.

    sh build.sh fast            ──▶   sh -c "$(/bin/cat COPY)" build.sh fast
    . "$(dirname "$0")/lib.sh"  ──▶   . COPY
    python tool.py x            ──▶   python code_program.py DATA tool.py tool.py x

The copies are private to the user and gone with the node. `$0`, arguments, the working directory and relative paths stay what they
were. Where the words of a text do not say for certain which file they mean (after `cd`, in backticks, behind variables, as an
argument of another program), the files that they may mean are compared with what was shown right before the text runs.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dipeo_nb.common.paths import name_below
from dipeo_nb.diagram.closure import script_names
from dipeo_nb.diagram.shell_words import SHELLS, Command, Invocation, Word, commands, invocations, leading_cd, moves
from dipeo_nb.domain.ports import RunGate

_PROGRAM = Path(__file__).with_name("code_program.py")
_SOURCE = re.compile(r"\$\{BASH_SOURCE(?:\[0\])?\}|\$BASH_SOURCE\b")
_LARGEST = 100_000
"""Bytes of a script that is handed on as an argument; systems take 128 KiB."""


@contextmanager
def as_shown(gate: RunGate, base: Path, folder: Path) -> Iterator[ShownScripts | None]:
    """The scripts of a node, for as long as it runs; None: they are run as the disk has them.

    Args:
        base: the base directory.
        folder: where the node's text runs.
    """
    sources = gate.sources
    if sources is None or os.name == "nt":
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="dipeo-") as place:
        yield ShownScripts(gate, sources, base, name_below(str(folder), base.resolve()), Path(place))


class ShownScripts:
    """The scripts that texts of one node run.

    Args:
        sources: what was shown, by path below the base directory.
        cwd: where the texts run, below the base directory.
        place: a private folder for copies.
    """

    def __init__(self, gate: RunGate, sources: Mapping[str, bytes], base: Path, cwd: str, place: Path) -> None:
        self._gate = gate
        self._sources = sources
        self._base = base.resolve()
        self._cwd = "" if cwd in (".", str(self._base)) else cwd
        self._place = place
        self._copies: dict[tuple[str, str, bool, bool], Path | None] = {}
        self._uncertain: set[str] = set()

    def text(self, text: str, script: str | None = None, *, env: Mapping[str, str] | None = None) -> str:
        """A text whose scripts are what was shown.

        Args:
            script: the file that the text is from, below the base directory.
            env: variables that the diagram sets for it.

        Raises:
            NotGrantedError: a file that it may run without saying so for certain has changed, or the run has written it.
        """
        folder = self._cwd if script is None else posixpath.dirname(script)
        start, entered = leading_cd(text)
        before = self._cwd
        if entered is None or self._outside(entered) or "CDPATH" in (env or {}):
            start = 0
        else:
            place = posixpath.normpath(posixpath.join(self._cwd, entered))
            self._cwd = "" if place == "." else place
            folder = self._cwd if script is None else folder
        try:
            made = text[:start] + self._written(text[start:], folder, moved=False)
        finally:
            self._cwd = before
        self._gate.check_programs(sorted(self._uncertain), env=env, folder=self._cwd)
        return made

    def _outside(self, path: str) -> bool:
        """Whether a folder is none below the base directory, by its name."""
        place = posixpath.normpath(posixpath.join(self._cwd, path))
        return posixpath.isabs(place) or place == ".." or place.startswith("../")

    def words(self, words: Sequence[str], *, env: Mapping[str, str] | None = None) -> list[str]:
        """A program and its arguments, whose scripts are what was shown; see `text`."""
        line = shlex.join(words)
        made = self.text(line, env=env)
        return list(words) if made == line else ["sh", "-c", f"exec {made}"]

    def _written(self, text: str, folder: str, *, moved: bool) -> str:
        found = commands(text)
        moved = moved or self._moves(found, folder, set())
        edits: list[tuple[int, int, str]] = []
        known: list[tuple[int, int]] = []
        for command in found:
            for invocation in invocations(command):
                if (edit := self._edit(command, invocation, text, folder, moved)) is not None:
                    edits.append(edit)
                    known.append((invocation.word.start, invocation.word.end))
        self._look_at(_without(text, known), folder, set())
        for start, end, new in sorted(edits, reverse=True):
            text = f"{text[:start]}{new}{text[end:]}"
        return text

    def _edit(
        self, command: Command, invocation: Invocation, text: str, folder: str, moved: bool
    ) -> tuple[int, int, str] | None:
        """(start, end, what is written there) for a file that is run; None when it is not known for certain, or none of ours."""
        kind, word, option = invocation
        if command.in_backticks:
            return None
        if kind == "text":
            inner = self._written(word.value or "", folder, moved=moved)
            return None if inner == word.value else (word.start, word.end, shlex.quote(inner))
        if kind == "module":
            stem = posixpath.join(self._cwd, (word.value or "").replace(".", "/"))
            if moved or option is None or not {f"{stem}.py", f"{stem}/__main__.py"} & self._sources.keys():
                return None
            return option.start, option.end, f"{shlex.quote(str(_PROGRAM))} {shlex.quote(self._data())} -m"
        name = self._name(word, folder, moved)
        if name is None:
            return None
        written = text[word.start : word.end]
        if kind == "source":
            copy = self._copy(name, sourced=True, moved=moved)
            return None if copy is None else (word.start, word.end, shlex.quote(str(copy)))
        if kind == "program":
            if not os.access(self._base / name, os.X_OK):
                return None  # which is what the shell will say
            interpreter = _interpreter(self._sources[name])
            program = posixpath.basename(interpreter[0])
            if program == "env" and len(interpreter) > 1:
                program = posixpath.basename(interpreter[1])
            before = f"{shlex.join(interpreter)} "
            kind = "shell" if program in SHELLS else "python" if re.fullmatch(r"python[\d.]*", program) else "program"
        else:
            before = ""
        if kind == "shell":
            copy = self._copy(name, sourced=False, moved=moved)
            if copy is None:
                return None
            place = shlex.quote(str(copy))
            code = f'"$(/bin/cat {place})"' if copy.stat().st_size < _LARGEST else shlex.quote(f". {place}")
            return word.start, word.end, f"{before}-c {code} {written}"
        if kind == "python":
            parts = [shlex.quote(str(_PROGRAM)), shlex.quote(self._data()), shlex.quote(name), written]
            return word.start, word.end, before + " ".join(parts)
        return None

    def _name(self, word: Word, folder: str, moved: bool) -> str | None:
        """The file that a word means, if that is certain and it was shown."""
        if word.beside is not None:
            name = posixpath.normpath(posixpath.join(folder, word.beside))
        elif word.value is not None and posixpath.isabs(word.value):
            name = name_below(word.value, self._base)
        elif word.value and not moved:
            name = posixpath.normpath(posixpath.join(self._cwd, word.value))
        else:
            return None
        return name if name in self._sources else None

    def _moves(self, found: Sequence[Command], folder: str, seen: set[str]) -> bool:
        """Whether a text, or one that it reads as its own, goes into another folder."""
        if moves(list(found)):
            return True
        for command in found:
            for kind, word, _ in invocations(command):
                if kind != "source" or (name := self._name(word, folder, False)) is None or name in seen:
                    continue
                seen.add(name)
                inner = commands(self._sources[name].decode("utf-8", "surrogateescape"))
                if self._moves(inner, folder, seen):
                    return True
        return False

    def _copy(self, name: str, *, sourced: bool, moved: bool) -> Path | None:
        """A file with the text of a script, whose own scripts are what was shown; None for one that runs itself."""
        key = name, self._cwd, sourced, moved
        if key not in self._copies:
            self._copies[key] = None  # until it is made
            text = self._sources[name].decode("utf-8", "surrogateescape")
            text = self._written(text, posixpath.dirname(name), moved=moved)
            own = re.sub(r'([\\$`"])', r"\\\1", str(self._base / name)) if sourced else "$0"
            text = _SOURCE.sub(lambda _: own, text)  # a text that is not a file has no BASH_SOURCE
            copy = self._place / f"{len(self._copies)}-{posixpath.basename(name)}"
            copy.write_bytes(text.encode("utf-8", "surrogateescape"))
            self._copies[key] = copy
        elif self._copies[key] is None:
            self._uncertain.add(name)
        return self._copies[key]

    def _data(self) -> str:
        """The file with what was shown, for Python."""
        path = self._place / "shown.json"
        if not path.exists():
            texts = {name: data.decode("latin-1") for name, data in self._sources.items()}
            path.write_text(json.dumps([str(self._base), texts]), encoding="utf-8")
        return str(path)

    def _look_at(self, text: str, folder: str, seen: set[str]) -> None:
        """Note the files that a text may run, and those that these may run."""
        for name in script_names(text, (folder, self._cwd, ""), self._base):
            self._uncertain.add(name)  # one that was not shown may have been written by the run
            if name in self._sources and name not in seen:
                seen.add(name)
                self._look_at(self._sources[name].decode("utf-8", "replace"), posixpath.dirname(name), seen)


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """A text with blanks in place of some parts."""
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def _interpreter(script: bytes) -> list[str]:
    """The program and argument of a script's first line; a shell when there is none."""
    first = script[:200].partition(b"\n")[0].decode("utf-8", "replace")
    if not first.startswith("#!"):
        return ["sh"]
    program, _, argument = first[2:].strip().partition(" ")
    if posixpath.basename(program) == "env":
        return [program, *argument.split()]
    return [program, *filter(None, [argument.strip()])]
