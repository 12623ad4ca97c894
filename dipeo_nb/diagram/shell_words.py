"""The scripts that a shell text names: which words of it are files that a shell or Python runs.

`commands` reads a text as a POSIX shell or bash does: words, quotes, expansions, here-documents. It expands nothing. `invocations`
says which words of a command are files that are run, where that is certain. `mentioned` finds, more broadly, every word that may be
the name of a file of code, wherever it stands.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

SHELLS = frozenset(["sh", "bash", "dash", "zsh", "ksh", "ash"])
NODE_SUFFIXES = (".ts", ".mts", ".cts", ".js", ".mjs", ".cjs")
CODE_SUFFIXES = (".sh", ".bash", ".zsh", ".ksh", ".py", ".rb", ".pl", ".lua", ".r", ".R", ".awk", ".sed", *NODE_SUFFIXES)
"""Endings of files that a shell script runs; files of other kinds are data, which may change from run to run."""
_MENTIONED = re.compile(
    r"""(?:(?<![\w./-])(source|\.|(?:ba|z|k|da)?sh|python3?|node|ruby|perl|make[ \t]+-f)[ \t\n]+["']?)?(?<![\w./@%+~-])([\w./@%+~-]+)"""
)
"""A word that may be the name of a file, and the program before it that would run or read it as code."""
_PREFIXES = frozenset(["exec", "command", "builtin", "env", "nohup", "nice", "setsid", "sudo", "time"])
_KEYWORDS = frozenset(["if", "then", "elif", "else", "do", "while", "until", "!", "{", "time"])
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_LEADING_CD = re.compile(r"""\s*(cd[ \t]+(?:[\w.+@%/][\w.+@%/-]*|'[\w.+@%/][^'\n]*'|"[\w.+@%/][\w.+@%/ -]*"))[ \t]*&&""")
_NOT_IN_CHAIN = re.compile(r"[;\n`]|\|\||(?<!&)&(?!&)|&&&")
_RUNNERS = frozenset(["uv", "poetry", "pdm", "pipenv", "rye", "hatch"])
"""Programs whose `run` starts another one in the environment of a project."""
_MOVES = frozenset(["cd", "pushd", "popd"])
_OWN_FOLDER = re.compile(
    r""""?(?:\$\(\s*dirname\s+(?:--\s+)?"?(?:\$0|\$\{0\}|\$BASH_SOURCE|\$\{BASH_SOURCE(?:\[0\])?\})"?\s*\)|\$\{(?:0|BASH_SOURCE(?:\[0\])?)%/\*\})"?"""
)
"""The folder of the script itself, as scripts write it."""


@dataclass(slots=True)
class Word:
    """A word of a command."""

    start: int
    end: int
    value: str | None
    """Its text; None when it holds an expansion or a pattern."""
    beside: str | None = None
    """The path in the folder of the script that it is, when it is written as `"$(dirname "$0")/PATH"`."""


@dataclass(slots=True)
class Command:
    """A simple command: its words without redirections."""

    words: list[Word] = field(default_factory=list[Word])
    in_backticks: bool = False


class Invocation(NamedTuple):
    """A word that names a file which is run."""

    kind: Literal["shell", "source", "program", "python", "module", "text"]
    """The program that runs it: a shell; the shell of the text itself; the system, by its first line; Python, as a file or `-m`; text: the word is
    itself the text of a shell's `-c`."""
    word: Word
    option: Word | None = None
    """Of a module: the `-m`."""


def commands(text: str) -> list[Command]:
    """The simple commands of a text, those in substitutions included."""
    scanner = _Scanner(text)
    scanner.script("")
    return [command for command in scanner.commands if command.words]


def moves(found: list[Command]) -> bool:
    """Whether one of the commands goes into another folder, so that names which are relative mean something else."""
    return any(head is not None and head.value in _MOVES for head in (_head(c)[0] for c in found))


def folders(text: str) -> list[str]:
    """The folders that a text goes into, where they are written out."""
    found = [_head(command) for command in commands(text)]
    return [rest[0].value for head, rest in found if head is not None and head.value in _MOVES and rest and rest[0].value]


def leading_cd(text: str) -> tuple[int, str | None]:
    """(where the rest begins, FOLDER) of a text `cd FOLDER && …`, all of which is run in that folder or not at all; (0, None) for others.

    The rest is a chain of `&&` and pipes: whatever else it has, in quotes too, might run when the folder cannot be entered.
    """
    found = _LEADING_CD.match(text)
    if found is None or _NOT_IN_CHAIN.search(text, found.end()) or "CDPATH" in text or moves(commands(text[found.end() :])):
        return 0, None
    [folder] = commands(text[: found.end(1)])[0].words[1:]
    return found.end(), folder.value


def invocations(command: Command) -> Iterator[Invocation]:
    """The files that a command runs, where its words show it for certain."""
    head, rest = _head(command)
    if head is None:
        return
    name = posixpath.basename(head.value or "")
    if head.value in (".", "source"):
        if rest:
            yield Invocation("source", rest[0])
    elif name in SHELLS:
        yield from _of_shell(rest)
    elif re.fullmatch(r"python[\d.]*", name):
        yield from _of_python(rest)
    elif head.beside is not None or "/" in (head.value or ""):
        yield Invocation("program", head)


def _head(command: Command) -> tuple[Word | None, list[Word]]:
    """The word that names the program, and those after it."""
    words = list(command.words)
    while words:
        value = words[0].value
        raw_assignment = value is not None and _ASSIGNMENT.match(value)
        if raw_assignment or value in _KEYWORDS or value in _PREFIXES or (value is not None and value.startswith("-")):
            words.pop(0)
            continue
        if value == "timeout":
            del words[:2]
            continue
        if value in _RUNNERS and [word.value for word in words[1:3]] in (["run", "python"], ["run", "python3"]):
            del words[:2]
            continue
        return words[0], words[1:]
    return None, []


def _of_shell(rest: list[Word]) -> Iterator[Invocation]:
    while rest:
        word = rest.pop(0)
        value = word.value
        if value is None or not value.startswith(("-", "+")):
            yield Invocation("shell", word)
            return
        if value.startswith("--"):
            if value in ("--rcfile", "--init-file"):
                return
        elif "s" in value:
            return
        elif "c" in value:
            while rest and (rest[0].value or "x").startswith(("-", "+")):
                rest.pop(0)
            if rest and rest[0].value is not None:
                yield Invocation("text", rest[0])
            return
        elif value[1:].endswith(("o", "O")) and rest:
            rest.pop(0)


def _of_python(rest: list[Word]) -> Iterator[Invocation]:
    while rest:
        word = rest.pop(0)
        value = word.value
        if value is None or not value.startswith("-"):
            yield Invocation("python", word)
            return
        if value == "-m":
            if rest:
                yield Invocation("module", rest[0], word)
            return
        if value in ("-W", "-X") and rest:
            rest.pop(0)
        elif value == "-" or (not value.startswith("--") and ("c" in value or "m" in value)):
            return


def mentioned(text: str) -> Iterator[tuple[str, bool]]:
    """(word, whether it is the name of a Python module) of all words that may name files of code."""
    for found in _MENTIONED.finditer(text):
        word = found[2]
        if text[found.start(2) - 1 : found.start(2)] == "$":  # `$DIR/lib.sh`
            word = word[max(word.find("/"), 0) :]
        if found[1] or word.endswith(CODE_SUFFIXES) or (word.startswith("./") and "." not in word[2:]):
            yield word, False
    for command in commands(text):
        for kind, word, _ in invocations(command):
            if kind == "text":
                yield from mentioned(word.value or "")
            elif word.beside or word.value:
                yield f"/{word.beside}" if word.beside else str(word.value), kind == "module"


class _Scanner:
    """Goes through a text once. What it does not understand it takes for an expansion."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.commands: list[Command] = []
        self.heredocs: list[tuple[str, bool]] = []
        self.depth = 0
        self.backticks = 0

    def peek(self, text: str) -> bool:
        return self.text.startswith(text, self.at)

    def script(self, closing: str) -> None:
        """Commands up to *closing*, which is passed over, or to the end."""
        self.depth += 1
        current = self.new()
        while self.at < len(self.text):
            char = self.text[self.at]
            if closing and char == closing:
                self.at += 1
                break
            if self.depth > 100:
                self.at = len(self.text)
                break
            if char in " \t\r":
                self.at += 1
            elif self.peek("\\\n"):
                self.at += 2
            elif char == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif char in ";&|\n":
                if char == "&" and self.peek("&>"):
                    self.redirection()
                    continue
                self.at += 1
                current = self.new()
                if char == "\n":
                    self.bodies()
            elif char == "(":
                self.at += 1
                self.script(")")
                current = self.new()
            elif char == ")":  # of a pattern of `case`
                self.at += 1
                current = self.new()
            elif char in "<>":
                self.redirection()
            else:
                word = self.word()
                if self.at < len(self.text) and self.text[self.at] in "<>" and (word.value or "").isdigit():
                    continue  # the number of a file descriptor
                current.words.append(word)
        self.depth -= 1

    def new(self) -> Command:
        self.commands.append(Command(in_backticks=self.backticks > 0))
        return self.commands[-1]

    def redirection(self) -> None:
        found = re.compile(r"&?(<<<|<<-?|<\(|>\(|<&|>&|<>|>>|>\||<|>)").match(self.text, self.at)
        assert found is not None
        self.at = found.end()
        if found[1] in ("<(", ">("):
            self.script(")")
            return
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1
        if self.at >= len(self.text) or self.text[self.at] in "\n;&|()<>":
            return
        word = self.word()
        if found[1] in ("<<", "<<-"):
            last = word.value if word.value is not None else self.text[word.start : word.end]
            self.heredocs.append((last, found[1] == "<<-"))

    def bodies(self) -> None:
        """Pass over the here-documents that were announced on the line before."""
        for last, strips in self.heredocs:
            while self.at < len(self.text):
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                line = self.text[self.at : end]
                self.at = min(end + 1, len(self.text))
                if (line.lstrip("\t") if strips else line) == last:
                    break
        self.heredocs = []

    def word(self) -> Word:
        start = self.at
        pieces: list[str] = []
        certain = True
        while self.at < len(self.text) and self.text[self.at] not in " \t\r\n;&|<>()":
            char = self.text[self.at]
            if char == "`" and self.backticks:
                break
            if char == "\\":
                piece = self.text[self.at + 1 : self.at + 2]
                self.at += 2
                piece = "" if piece == "\n" else piece
            elif char == "'":
                end = self.text.find("'", self.at + 1)
                end = len(self.text) if end < 0 else end
                piece = self.text[self.at + 1 : end]
                self.at = end + 1
            elif char == '"':
                piece = self.quoted()
            elif char in "$`":
                piece = self.expansion()
            else:
                piece = None if char in "*?[~" and not (char == "~" and self.at > start) else char
                self.at += 1
            certain = certain and piece is not None
            pieces.append(piece or "")
        self.at = min(self.at, len(self.text))
        word = Word(start, self.at, "".join(pieces) if certain else None)
        if not certain and (own := _OWN_FOLDER.match(self.text, start, self.at)) is not None:
            rest = self.text[own.end() : self.at]
            if re.fullmatch(r'(?:/[\w.+-]+)+"?', rest):
                word.beside = rest.strip('"').lstrip("/")
        return word

    def quoted(self) -> str | None:
        """The text in double quotes; None when it holds an expansion."""
        self.at += 1
        pieces: list[str] = []
        certain = True
        while self.at < len(self.text) and self.text[self.at] != '"':
            char = self.text[self.at]
            if char == "`" and self.backticks:
                return None
            if char == "\\":
                piece = self.text[self.at + 1 : self.at + 2]
                self.at += 2
                piece = "" if piece == "\n" else piece if piece in '$`"\\' else f"\\{piece}"
            elif char in "$`":
                piece = self.expansion()
            else:
                piece = char
                self.at += 1
            certain = certain and piece is not None
            pieces.append(piece or "")
        self.at += 1
        return "".join(pieces) if certain else None

    def expansion(self) -> str | None:
        """Pass over what begins with $ or a backtick; None, or a literal $."""
        if self.text[self.at] == "`":
            self.at += 1
            self.backticks += 1
            self.script("`")
            self.backticks -= 1
            return None
        if self.peek("$(("):
            self.at += 3
            self.balanced("(", ")", 2)
            return None
        if self.peek("$("):
            self.at += 2
            self.script(")")
            return None
        if self.peek("${"):
            self.at += 2
            self.balanced("{", "}", 1)
            return None
        self.at += 1
        found = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]|'").match(self.text, self.at)
        if found is None:
            return "$"
        if found[0] == "'":
            end = self.text.find("'", self.at + 1)
            self.at = len(self.text) if end < 0 else end + 1
        else:
            self.at = found.end()
        return None

    def balanced(self, opening: str, closing: str, depth: int) -> None:
        while self.at < len(self.text) and depth:
            char = self.text[self.at]
            depth += (char == opening) - (char == closing)
            self.at += 2 if char == "\\" else 1
