"""Which models a project names that end soon: in diagrams, notebooks, Python code, settings and other texts.

What counts as naming a model: the model of a person in a diagram; in Python, a text that is nothing but a name (`"gpt-6-luna"`,
`"openai:gpt-6-luna"`, a list of fallbacks), a diagram as a text, or `model: NAME` within a text; options of magics and commands
(`--model NAME`); in other files, every word that is such a name. Names put together at run time cannot be seen.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.config import Settings
from dipeo_nb.diagram.document import Diagram, load, load_text
from dipeo_nb.diagram.source_files import read_file
from dipeo_nb.domain.chat import parse_model
from dipeo_nb.domain.lifecycle import SOON, Lifecycle, at_provider, lifecycle
from dipeo_nb.errors import DiagramError, DipeoError, StorageError, ValidationError

SUFFIXES = (".yaml", ".yml", ".json", ".ipynb", ".py")
"""Files of a folder that are looked into; files that are named are, whatever they are."""
MOST_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Mention:
    """A place that names a model whose end is announced."""

    file: str
    """As it was given; empty for settings."""
    line: int | None
    """1-based; in a notebook, of the cell."""
    where: str
    """`person 'Judge'`, `cell 3`, `setting default_llm_model (dipeo.toml)`; empty when the line says all."""
    written: str
    """The name as it stands there."""
    found: Lifecycle

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part)
        return f"{', '.join(filter(None, (place, self.where)))}: {self.found.sentence}; {self.found.advice}"

    def report(self) -> dict[str, Any]:
        """As JSON values."""
        found = self.found
        return {
            "file": self.file, "line": self.line, "where": self.where, "written": self.written, "service": found.service,
            "model": found.model, "status": found.status, "ends": str(found.ends), "days_left": found.days_left,
            "replacement": found.replacement, "source": found.url,
        }  # fmt: skip

    @property
    def renamed(self) -> str | None:
        """What to write instead, in the same form; None when that cannot be said: a fine-tuned version has to be trained again."""
        if self.found.replacement is None or "ft:" in self.written.lower():
            return None
        name = self.found.replacement.partition(":")[2]
        return self.written[: len(self.written) - len(self.found.model)] + (
            f"models/{name}" if self.found.model.startswith("models/") else name
        )


def check(files: Sequence[str], settings: Settings, *, within: int = SOON) -> list[Mention]:
    """The places in files, in files of folders, and in the settings that name models which end within *within* days.

    Args:
        files: paths of files and folders, or names of diagrams.

    Raises:
        StorageError, DiagramError: a file that is named cannot be read.
    """
    there = {Path(name).absolute() for name in files}
    found = [*_of_settings(settings, there)]
    for name in files:
        for file in _files(name):
            found += _of_file(file, settings, named=str(file) == name)
    return [mention for mention in found if mention.found.within(within)]


def fix(mentions: Sequence[Mention], settings: Settings) -> list[Mention]:
    """Write the replacements into the files; comments and everything else stay as they are.

    Returns:
        Those that are left, to be changed by hand: of settings, without a replacement, of notebooks that another program would
        write differently.
    """
    left: list[Mention] = []
    for file in dict.fromkeys(m.file for m in mentions):
        of_file = [m for m in mentions if m.file == file]
        fixable = [m for m in of_file if file and m.renamed]
        if not fixable or not _rewrite(file, fixable, settings):
            left += of_file
        else:
            left += [m for m in of_file if m not in fixable]
    return left


def named_in(text: str) -> Iterator[tuple[int, str, Lifecycle]]:
    """(line, name as written, what is announced) of every word of a text that is the name of a model whose end is announced.

    Bare names without a hyphen (`o1`) are words of their own and do not count.
    """
    for number, line in enumerate(text.splitlines(), 1):
        for match in _WORD.finditer(line):
            word = match[0].rstrip(".:-/")
            if ("-" in word or ":" in word) and (found := _known(word)):
                yield number, word, found


_WORD = re.compile(r"(?<![\w.:/-])[A-Za-z0-9][\w.:/-]*")
_OPTION = re.compile(r"(?:--model[ =]|-m )\s*[\"']?([\w.:/-]+)")
_FIELD = re.compile(r"\bmodel[\"']?\s*[:=]\s*[\"']?([\w.:/-]+)")


def _known(text: str) -> Lifecycle | None:
    """What is announced about the model that a text names; None when it names none, or nothing is."""
    if len(text) > 200 or not text or any(c.isspace() for c in text):
        return None
    try:
        service, model = parse_model(text)
    except DipeoError:
        return None
    found = lifecycle(service, model or "")
    return found if found.ends else None


# Files.


def _files(name: str) -> Iterator[Path]:
    path = Path(name)
    if not path.is_dir():
        yield path
        return
    there = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file())
    yield from islice((p for p in there if not any(part.startswith(".") for part in p.relative_to(path).parts)), MOST_FILES)


def _of_file(path: Path, settings: Settings, *, named: bool) -> Iterator[Mention]:
    """The mentions of a file.

    Args:
        named: whether it was named; files of folders that are not diagrams, or cannot be read, do not count.
    """
    file, suffix = str(path), path.suffix.lower()
    if named and not path.exists():
        document = load(file, base_dir=settings.base_dir)  # a diagram by its name
        yield from _of_diagram(document, str(document.path or file), settings)
        return
    try:
        text = read_file(path)
        if suffix == ".ipynb":
            yield from _of_notebook(file, text, settings)
        elif suffix == ".py":
            yield from (replace(m, file=file) for m in _of_python(text, settings))
        elif suffix in (".yaml", ".yml", ".json"):
            try:
                document = load_text(text, path=path, base_dir=settings.base_dir)
            except DiagramError:
                if named:  # no diagram, or not one that can be read: its words
                    yield from _words(file, text)
                return
            yield from _of_diagram(document, file, settings)
        else:
            yield from _words(file, text)
    except DipeoError:
        if named:
            raise


def _words(file: str, text: str) -> Iterator[Mention]:
    return (Mention(file, line, "", word, found) for line, word, found in named_in(text))


def _of_diagram(document: Diagram, file: str, settings: Settings) -> Iterator[Mention]:
    for person in document.persons:
        found = lifecycle(person.llm.service, person.llm.model or "")
        if found.ends and at_provider(person.llm.service, person.llm.base_url, settings):
            place = document.source.person(person.id, "model")
            yield Mention(file, place[0] if place else None, f"person '{person.label}'", person.llm.model or "", found)
    for node in document.nodes:
        inner = node.data.get("diagram_data")
        if isinstance(inner, dict):
            place = document.source.node(node.id, "diagram_data")
            for mention in _of_diagram(load(inner, base_dir=settings.base_dir), file, settings):
                yield replace(mention, line=place[0] if place else None, where=f"node '{node.label}', {mention.where}")


def _of_notebook(file: str, text: str, settings: Settings) -> Iterator[Mention]:
    try:
        cells = json.loads(text)["cells"]
        sources = [(n, "".join(cell["source"])) for n, cell in enumerate(cells, 1) if cell.get("cell_type") == "code"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"{file} is not a notebook: {error}.", hint="Save it again from Jupyter.", operation="read", path=file
        ) from error
    for number, source in sources:
        for mention in _of_cell(source, settings):
            where = ", ".join(filter(None, (f"cell {number}", mention.where)))
            yield replace(mention, file=file, where=where)


def _of_cell(source: str, settings: Settings) -> Iterator[Mention]:
    head, _, body = source.partition("\n")
    if not head.startswith("%%"):
        yield from _of_python(source, settings)
        return
    yield from _options(head, 1)
    if head.split()[0] == "%%diagram":
        yield from _shifted(_of_text(body, settings), 1)
    elif head.split()[0] in ("%%bash", "%%sh", "%%script", "%%!"):
        for number, line in enumerate(body.splitlines(), 2):
            yield from _options(line, number)
    elif head.split()[0] in ("%%time", "%%timeit", "%%capture"):
        yield from _shifted(_of_python(body, settings), 1)


def _of_python(source: str, settings: Settings) -> Iterator[Mention]:
    lines = source.splitlines()
    for number, line in enumerate(lines):
        if line.lstrip().startswith(("%", "!")):  # a magic or a command within a cell
            yield from _options(line, number + 1)
            lines[number] = line[: len(line) - len(line.lstrip())] + "pass"
    try:
        tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        for number, line in enumerate(lines, 1):
            for word in re.findall(r"[\"']([\w.:/-]+)[\"']", line):
                if found := _known(word):
                    yield Mention("", number, "", word, found)
        return
    models = {id(node) for node in _of_models(tree)}
    prose = {id(statement.value) for statement in ast.walk(tree) if isinstance(statement, ast.Expr)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)) or id(node) in prose:
            continue
        if "\n" in node.value:
            yield from _shifted(_of_text(node.value, settings), node.lineno - 1)
            continue
        for word in node.value.split(","):
            name = word.strip()
            if ("-" in name or ":" in name or id(node) in models) and (found := _known(name)):
                yield Mention("", node.lineno, "", name, found)


def _of_models(tree: ast.AST) -> Iterator[ast.expr]:
    """What is given as a model: `model=…`, `{"model": …}`, the first argument of `llm(…)`."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="model" | "default_llm_model" | "llm_fallbacks"):
                yield node.value
            case ast.keyword(arg="fallbacks", value=ast.List(elts=elements) | ast.Tuple(elts=elements)):
                yield from elements
            case ast.Dict(keys=keys, values=values):
                yield from (v for k, v in zip(keys, values, strict=True) if isinstance(k, ast.Constant) and k.value == "model")
            case ast.Call(func=ast.Attribute(attr="llm") | ast.Name(id="llm"), args=[first, *_]):
                yield first
            case _:
                pass


def _of_text(text: str, settings: Settings) -> Iterator[Mention]:
    """The mentions of a text of several lines: a diagram, or another one with fields `model: NAME`."""
    if "nodes" in text or "flow" in text:
        try:
            yield from _of_diagram(load_text(text), "", settings)
            return
        except DipeoError:
            pass  # a template of one, or something else
    for number, line in enumerate(text.splitlines(), 1):
        for word in _FIELD.findall(line):
            if found := _known(word):
                yield Mention("", number, "", word, found)


def _options(line: str, number: int) -> Iterator[Mention]:
    for word in _OPTION.findall(line):
        if found := _known(word):
            yield Mention("", number, "", word, found)


def _shifted(mentions: Iterator[Mention], lines: int) -> Iterator[Mention]:
    return (replace(m, line=None if m.line is None else m.line + lines) for m in mentions)


def _of_settings(settings: Settings, files: Collection[Path] = ()) -> Iterator[Mention]:
    """The models that settings name, but for those of *files*, which are looked into; the default of nobody's choice moves by itself."""
    for name in ("default_llm_model", "llm_fallbacks"):
        origin = settings.origin(name)
        if origin.source == "default" or origin.file in files:
            continue
        for word in str(settings.peek(name)).split(","):
            found = _known(word.strip())
            if found and at_provider(found.service, None, settings):
                yield Mention("", None, f"setting {name} ({origin})", word.strip(), found)


# Changes.


def _rewrite(file: str, mentions: Sequence[Mention], settings: Settings) -> bool:
    """Whether the replacements are written."""
    path = Path(file)
    text = read_file(path)
    if path.suffix.lower() == ".ipynb":
        changed = _in_notebook(text, mentions)
    elif path.suffix.lower() in (".yaml", ".yml", ".json"):
        if any(m.where.startswith("node ") for m in mentions):
            return False  # a diagram within a node of another one
        try:
            changed = _in_diagram(load_text(text, path=path, base_dir=settings.base_dir), mentions)
        except DiagramError:
            changed = _in_lines(text, mentions)
    else:
        changed = _in_lines(text, mentions)
    if changed is None or changed == text:
        return False
    write_atomic(path, changed.encode("utf-8"))
    return True


def _in_diagram(document: Diagram, mentions: Sequence[Mention]) -> str:
    for mention in mentions:
        person = next(p for p in document.persons if mention.where == f"person '{p.label}'" and p.llm.model == mention.written)
        document = document.set(f"persons.{person.id}.model", mention.renamed)
    return document.text


def _in_notebook(text: str, mentions: Sequence[Mention]) -> str | None:
    def written(notebook: Any) -> str:
        return json.dumps(notebook, indent=1, ensure_ascii=False) + ("\n" if text.endswith("\n") else "")

    notebook = json.loads(text)
    if written(notebook) != text:
        return None
    for number in {int(m.where.removeprefix("cell ").partition(",")[0]) for m in mentions}:
        cell = notebook["cells"][number - 1]
        of_cell = [m for m in mentions if m.where.partition(",")[0] == f"cell {number}"]
        changed = _in_lines("".join(cell["source"]), of_cell)
        cell["source"] = changed.splitlines(keepends=True) if isinstance(cell["source"], list) else changed
    return written(notebook)


def _in_lines(text: str, mentions: Sequence[Mention]) -> str:
    """A text with names replaced where they stand as whole words on the mentions' lines, and on those that follow up to it."""
    lines = text.splitlines(keepends=True)
    for mention in mentions:
        for number in range((mention.line or 1) - 1, len(lines)):
            line = lines[number]
            places = _places(line, mention.written)
            for place in reversed(places):
                line = f"{line[:place]}{mention.renamed}{line[place + len(mention.written) :]}"
            if places:
                lines[number] = line
                break
    return "".join(lines)


def _places(line: str, name: str) -> list[int]:
    """Where a name stands on a line: the places right behind a quote when there are some, as the others are prose then; else those
    of fields and options `model`; else all."""
    everywhere = [w.start() for w in _WORD.finditer(line) if w[0].rstrip(".:-/") == name]
    quoted = [at for at in everywhere if at and line[at - 1] in "\"'"]
    named = {m.start(1) for pattern in (_OPTION, _FIELD) for m in pattern.finditer(line)}
    return quoted or [at for at in everywhere if at in named] or everywhere


def checked_within(days: int) -> int:
    """A number of days from 0 on.

    Raises:
        ValidationError: it is negative.
    """
    if days < 0:
        raise ValidationError(f"--within {days} is not a number of days.", hint="Use e.g. --within 30; 0: what has ended.")
    return days
