"""Shell commands with values in them, safe by construction: a value is never part of the text that the shell reads.

    grep {{word}} "notes of {{who}}.txt"   ──▶   grep "${DIPEO_VALUE_1}" "notes of ${DIPEO_VALUE_2}.txt"

The values go into the environment. A shell does not read what it gets out of a variable as commands, so a value cannot end its
quotes or begin a command, whatever is in it. References are written as their place wants it: quoted outside of quotes, bare in
double quotes, and in single quotes with these closed around them. Should a place be misread, a value is split into words or its
variable's name is printed; it is still not run. Where a program takes the text for code again (`eval`, `sh -c "…"`, the program
of `awk`, arithmetic) only whole numbers are let through, and anything else is an error.
"""

from __future__ import annotations

import posixpath
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dipeo_nb.errors import NodeExecutionError

_OPEN, _CLOSE = "\ufdd2", "\ufdd3"  # noncharacters: Unicode reserves them for internal use
NUMBER = re.compile(r"-?\d{1,18}")
_HEREDOC = re.compile(r"<<(-?)[ \t]*(?:'([^'\n]+)'|\"([^\"\n]+)\"|(\\?)([\w.-]+))")

_SHELLS = frozenset(["sh", "bash", "dash", "zsh", "ksh", "ash", "fish"])
_INTERPRETERS = _SHELLS | frozenset(
    ["python", "python3", "perl", "ruby", "node", "php", "lua", "osascript", "su", "psql", "sqlite3"]
)
_CODE_OPTION = re.compile(r"-\w*[ceEr]|--(?:eval|command|print)(?:=.*)?")
_PROGRAMS = frozenset(["awk", "gawk", "mawk", "nawk", "sed", "jq", "ssh"])
"""Commands whose first argument that is not an option is a program (of ssh: the second, and all that follow)."""
_RUN_ALL = frozenset(["eval", "let", "trap", "watch", "[["])
"""Commands that evaluate all their arguments."""
_INTO_A_SHELL = re.compile(
    r"\|\s*(?:\w+\s+)?(?:/\S*/)?(?:(?:ba|da|z|k|a)?sh|python[\d.]*|perl|ruby|node)\s*(?:-s?\s*)?(?=[;&|\n)]|\Z)"
)


class ShellText(NamedTuple):
    """A command for a shell."""

    command: str
    environment: Mapping[str, str]
    """The values that it refers to."""


class Values:
    """The values of one command: `place` stands a mark for each into its text, `command` makes references of the marks."""

    def __init__(self, token: str = "", values: Sequence[str] = ()) -> None:
        self.values: list[str] = list(values)
        token = token or secrets.token_hex(8)  # so that no value can hold a mark
        self._form = f"{_OPEN}{token}:%d{_CLOSE}"
        self._marks = re.compile(f"{_OPEN}{token}:(\\d+){_CLOSE}")

    def place(self, text: str) -> str:
        """A mark for the text of a value. A macro's text has marks of its own; they become their values again."""
        self.values.append(self._marks.sub(lambda m: self.values[int(m[1])], text))
        return self._form % (len(self.values) - 1)

    def command(self, marked: str) -> ShellText:
        """The command that a text with marks means.

        Raises:
            NodeExecutionError: a value stands where it would be run as code.
        """
        if not self.values:
            return ShellText(marked, {})
        command = _Reader(marked, self.values, self._marks).read()
        return ShellText(command, {_variable(number): value for number, value in enumerate(self.values)})


def _variable(number: int) -> str:
    return f"DIPEO_VALUE_{number + 1}"


def _reference(found: re.Match[str]) -> str:
    return f"${{{_variable(int(found[1]))}}}"


@dataclass
class _Frame:
    """A place that the reader is in, within the ones around it."""

    kind: str
    """command, double, single (quotes), parameter (`${…}`) or arithmetic."""
    closing: str = ""
    words: list[str] = field(default_factory=list[str])
    """Of a command: those that are complete."""
    word: str | None = None
    """Of a command: the one that is being read."""
    heredocs: list[tuple[str, bool, bool, list[str]]] = field(default_factory=list[tuple[str, bool, bool, list[str]]])
    """Announced ones: their last line, whether they are quoted, whether tabs are stripped, whose input they are."""


class _Reader:
    """Goes through a command once and writes a reference for each mark."""

    def __init__(self, text: str, values: Sequence[str], marks: re.Pattern[str]) -> None:
        self.text = text
        self.values = values
        self.marks = marks
        self.at = 0
        self.made: list[str] = []
        self.frames = [_Frame("command")]
        self.piped = _INTO_A_SHELL.search(text) is not None

    def read(self) -> str:
        while self.at < len(self.text):
            frame = self.frames[-1]
            if found := self.marks.match(self.text, self.at):
                self.reference(int(found[1]), frame)
                self.at = found.end()
            elif frame.kind == "single":
                if self.take(1) == "'":
                    self.frames.pop()
            elif frame.kind == "command":
                self.command(frame)
            else:
                self.inside(frame)
        return "".join(self.made)

    def take(self, count: int) -> str:
        piece = self.text[self.at : self.at + count]
        self.made.append(piece)
        self.at += count
        return piece

    def starts(self, text: str) -> bool:
        return self.text.startswith(text, self.at)

    def opened(self) -> bool:
        """Take what opens a place in commands and in double quotes alike."""
        for opening, kind, closing in (
            ("$((", "arithmetic", "))"), ("$(", "command", ")"), ("${", "parameter", "}"), ("`", "command", "`"),
        ):  # fmt: skip
            if self.starts(opening):
                self.take(len(opening))
                self.frames.append(_Frame(kind, closing))
                return True
        return False

    def escaped(self) -> str:
        """Take a backslash and its character; before a value, which needs none, it is left out."""
        if self.marks.match(self.text, self.at + 1):
            self.at += 1
            return ""
        return self.take(2)[1:]

    def inside(self, frame: _Frame) -> None:
        """One step in double quotes, a parameter or arithmetic."""
        if self.starts("\\"):
            self.escaped()
        elif self.starts(frame.closing):
            self.take(len(frame.closing))
            self.frames.pop()
        elif not self.opened():
            char = self.take(1)
            if frame.kind == "parameter" and char in "\"'":
                self.frames.append(_Frame("double" if char == '"' else "single", char))
            elif frame.kind == "arithmetic" and char == "(":
                self.frames.append(_Frame("arithmetic", ")"))

    def command(self, frame: _Frame) -> None:
        """One step of a command outside of quotes."""
        char = self.text[self.at]
        if frame.closing and self.starts(frame.closing):
            self.take(1)
            self.frames.pop()
        elif char == "\\":
            frame.word = (frame.word or "") + self.escaped()
        elif char == "#" and frame.word is None:
            end = self.text.find("\n", self.at)
            comment = self.text[self.at :] if end < 0 else self.text[self.at : end]
            self.made.append(self.marks.sub("", comment))
            self.at += len(comment)
        elif char == "(" and not frame.words and frame.word is None and self.starts("(("):
            self.take(2)
            self.frames.append(_Frame("arithmetic", "))"))
        elif char == "`" or char == "$":
            frame.word = (frame.word or "") + char
            if not self.opened():
                self.take(1)
        elif char in "\"'":
            self.take(1)
            frame.word = frame.word or ""
            self.frames.append(_Frame("double" if char == '"' else "single", char))
        elif char == "(":
            self.take(1)
            self.frames.append(_Frame("command", ")"))
        elif self.starts("<<") and not self.starts("<<<") and (found := _HEREDOC.match(self.text, self.at)):
            self.take(len(found[0]))
            quoted = bool(found[2] or found[3] or found[4])
            frame.heredocs.append((found[2] or found[3] or found[5], quoted, bool(found[1]), list(frame.words)))
        elif char in " \t\n;&|":
            before = self.text[self.at - 1 : self.at]
            self.take(1)
            if frame.word is not None:
                frame.words.append(frame.word)
                frame.word = None
            if char not in " \t" and not (char == "&" and before in ("<", ">")):
                frame.words = []
            if char == "\n":
                self.bodies(frame)
        else:
            frame.word = (frame.word or "") + self.take(1)

    def bodies(self, frame: _Frame) -> None:
        """The here-documents that were announced on the line before."""
        for last, quoted, strips, words in frame.heredocs:
            while self.at < len(self.text):
                end = self.text.find("\n", self.at)
                line = self.text[self.at :] if end < 0 else self.text[self.at : end]
                self.at += len(line)
                for number in (int(m[1]) for m in self.marks.finditer(line)):
                    if quoted or _names(words, _INTERPRETERS) is not None:
                        self.number_only(number, f"<<{last}")
                self.made.append(self.marks.sub(self.values_of if quoted else _reference, line))
                if (line.lstrip("\t") if strips else line) == last:
                    break
                self.take(1)
        frame.heredocs = []

    def values_of(self, found: re.Match[str]) -> str:
        return self.values[int(found[1])]

    def reference(self, number: int, frame: _Frame) -> None:
        own = next(f for f in reversed(self.frames) if f.kind == "command")
        depth = len(self.frames) - 1 - self.frames[::-1].index(own)
        calculated = any(f.kind in ("arithmetic", "parameter") for f in self.frames[depth:])
        if self.piped or calculated or any(runs_code(f.words) for f in self.frames if f.kind == "command"):
            self.number_only(number, " ".join(own.words[:2]) or "the shell")
        name = f"${{{_variable(number)}}}"
        if frame.kind == "single":
            name = f"'\"{name}\"'"
        elif frame.kind == "command":
            name = f'"{name}"'
            frame.word = (frame.word or "") + "x"
        self.made.append(name)

    def number_only(self, number: int, where: str) -> None:
        if not NUMBER.fullmatch(self.values[number]):
            raise NodeExecutionError(
                f"The command has a value where it would be run as code ({where}); only whole numbers can stand there.",
                hint="Let that code read the variable of the environment DIPEO_INPUT_<NAME>, which holds the input as JSON.",
            )


def _names(words: Sequence[str], programs: frozenset[str]) -> int | None:
    """Where a command names one of these programs, the last time."""
    for at in range(len(words) - 1, -1, -1):
        name = posixpath.basename(words[at])
        if name in programs or name.rstrip("0123456789.") in programs:
            return at
    return None


def runs_code(words: Sequence[str]) -> bool:
    """Whether what follows these words of a command is code to it."""
    if any(word in _RUN_ALL for word in words):
        return True
    if words and _CODE_OPTION.fullmatch(words[-1]) and _names(words[:-1], _INTERPRETERS) is not None:
        return True
    at = _names(words, _PROGRAMS)
    if at is None:
        return False
    given = [word for word in words[at + 1 :] if not word.startswith("-")]
    return len(given) > 0 if posixpath.basename(words[at]) == "ssh" else len(given) == 0
