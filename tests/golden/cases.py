"""What is recorded: cases by name for each golden file."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from dipeo_nb import cli
from dipeo_nb.cli.group import COMMANDS, loaded
from dipeo_nb.config import reset_settings
from dipeo_nb.diagram.document import Diagram, from_model, load_text
from dipeo_nb.errors import DipeoError
from tests.golden import runs
from tests.support.graph_shapes import SHAPES, of_shape

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BAD = HERE / "bad"
SUFFIXES = (".yaml", ".yml", ".json")

Cases = dict[str, str]
"""Name → text."""
Texts = dict[str, str]
"""Name of a diagram's file, or where it stands → its text."""


def repository() -> Texts:
    """The diagrams of the repository: demo, guide, tutorials, and those of `diagrams/`."""
    found = texts_of(ROOT / "dipeo_nb/demo") | texts_of(HERE / "diagrams")
    guide = (ROOT / "docs/light-format.md").read_text(encoding="utf-8")
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", guide, re.DOTALL | re.MULTILINE), 1):
        found[f"guide {number}"] = block
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for number, text in enumerate(_in_notebook(path), 1):
            found[f"{path.stem} {number}"] = text
    return found


def texts_of(folder: Path) -> Texts:
    """All diagrams below a folder."""
    return {name: (folder / name).read_text(encoding="utf-8") for name in _files(folder)}


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in SUFFIXES)


def _in_notebook(path: Path) -> Iterator[str]:
    """The texts in a notebook's cells that are diagrams."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or "version: light" not in source:
            continue
        source = "".join(line for line in source.splitlines(keepends=True) if not line.startswith(("%", "!")))
        for part in ast.walk(ast.parse(source)):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.startswith("\nversion: light"):
                yield part.value


def shapes() -> Cases:
    """The runs of all shapes."""
    return {case.name: runs.of_shape(case) for case in SHAPES}


def diagrams(texts: Texts, beside: Path) -> Cases:
    """The runs of diagrams, each in a copy of a folder: what they read, and which diagrams they run.

    Diagrams that are files are also resumed and forked.
    """
    cases: Cases = {}
    for name, text in texts.items():
        with own_folder() as base:
            shutil.copytree(beside, base, dirs_exist_ok=True)
            try:
                cases[name] = runs.of_diagram(load_text(text), again=name.endswith(SUFFIXES))
            except DipeoError as error:
                cases[name] = f"refused: {error.message}"
    return cases


def drawings(texts: Texts) -> Cases:
    """SVGs: one element in a line; the style, which all have, in the first one only."""
    cases: Cases = {}
    styles: list[str] = []
    for name, diagram in _drawn(texts):
        svg = diagram.svg()
        prefix = re.search(r'class="(\w+)-drawing"', svg)
        assert prefix is not None
        svg = svg.replace(prefix[1], "P")
        style = svg[svg.index("<style>") : svg.index("</style>")]
        if style in styles:
            svg = svg.replace(style, f"<style>as number {styles.index(style) + 1}")
        else:
            styles.append(style)
            svg = svg.replace(style, style.replace("}", "}\n"))
        cases[name] = f"P: {prefix[1]}\n" + svg.replace("><", ">\n<")
    return cases


def _drawn(texts: Texts) -> Iterator[tuple[str, Diagram]]:
    for name, text in texts.items():
        with contextlib.suppress(DipeoError):  # what cannot be read is not drawn
            yield name, load_text(text)


def shape_texts() -> Texts:
    """The shapes as diagrams."""
    return {f"shape {case.name}": from_model(of_shape(case.arrows)).text for case in SHAPES}


def findings(folder: Path) -> Cases:
    """What `validate --json` says of each file, and its exit code."""
    cases: Cases = {}
    with own_folder() as base:
        shutil.copytree(folder, base, dirs_exist_ok=True)
        for name in _files(folder):
            code, output = _command("validate", name, "--json")
            lines = output.rstrip().replace('{"severity"', '\n{"severity"')
            cases[name] = f"{lines}\nexit code {code}".replace(str(base), "BASE")
    return cases


def helps() -> Cases:
    """`--help` of each command and group."""
    with own_folder():
        return {" ".join(("dipeo-nb", *path)): _without_padding(_command(*path, "--help")[1]) for path in _commands()}


def _without_padding(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def _commands() -> Iterable[tuple[str, ...]]:
    def below(command: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, part in sorted(getattr(command, "commands", {}).items()):
            yield from below(part, (*path, name))

    yield ()
    for name in sorted(COMMANDS):
        yield from below(loaded(name), (name,))


def _command(*arguments: str) -> tuple[int, str]:
    """Exit code of a command, and what it wrote to stdout."""
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()):
        code = cli.main(arguments)
    return code, output.getvalue()


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """An empty base directory and current one, trusted, with settings and keys of its own."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        base, home = Path(name, "base").resolve(), Path(name, "home").resolve()
        base.mkdir()
        home.mkdir()
        variables = {
            "DIPEO_BASE_DIR": base, "DIPEO_TRUST": base, "DIPEO_DATA_DIR": home / "data", "XDG_CONFIG_HOME": home / "config",
            "DIPEO_KEYS_STORE": "file", "HOME": home,
        }  # fmt: skip
        os.environ.update({name: str(value) for name, value in variables.items()})
        os.chdir(base)
        reset_settings()
        try:
            yield base
        finally:
            os.chdir(before)


def goldens() -> dict[str, Cases]:
    """All of them, by the name of their file."""
    texts = repository()
    return {
        "shapes": shapes(),
        "runs": diagrams(texts, HERE / "diagrams"),
        "drawings": drawings(texts | shape_texts()),
        "help": helps(),
        "findings": findings(BAD),
    }
