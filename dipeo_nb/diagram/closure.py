"""The closure of a diagram: all that a run of it would read as program, and what it may do. Nothing is run.

It holds the plans of the diagram and of all that it runs by name or inline, read and compiled as for a run, and the bytes of the
files that these name: code and the modules it imports, templates and what they include, schemas. Its digest changes with each of
them, and with nothing else: positions, comments and the file format do not count.
"""

from __future__ import annotations

import ast
import base64
import enum
import hashlib
import itertools
import json
import posixpath
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from jinja2 import TemplateError as JinjaError
from jinja2 import nodes as jinja

from dipeo_nb.common.paths import name_below
from dipeo_nb.common.protected import ProtectedPlaces
from dipeo_nb.common.root import Root
from dipeo_nb.config import get_settings
from dipeo_nb.diagram.file_templates import MACROS, parse_file
from dipeo_nb.diagram.loading import DEEPEST, load_nested
from dipeo_nb.diagram.parsed import ParsedDiagram
from dipeo_nb.diagram.prompt_files import PromptFiles
from dipeo_nb.diagram.shell_words import CODE_SUFFIXES, NODE_SUFFIXES, mentioned
from dipeo_nb.diagram.shell_words import folders as entered_folders
from dipeo_nb.domain.capabilities import Capabilities, Use, as_pattern, effects_of, uses_of
from dipeo_nb.domain.enums import HookType, SupportedLanguage
from dipeo_nb.domain.nodes import (
    CODE_FILE,
    CodeJobNode,
    ConditionNode,
    HookNode,
    JsonSchemaValidatorNode,
    PersonJobNode,
    SubDiagramNode,
    TemplateJobNode,
)
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.errors import DiagramError, StorageError, TemplateError, ValidationError

MAX_FILES = 500
MAX_BYTES = 20_000_000
VERSION = 2
"""Of the digest's form."""
_NOT_RUN = frozenset({"flipped", "metadata"})
"""Fields of nodes that no run looks at."""


@dataclass(frozen=True, slots=True)
class Closure:
    """All that a run of a diagram would read as program."""

    name: str
    plans: Mapping[str, Plan]
    """By digest; the diagram's own is the first."""
    files: Mapping[str, bytes]
    """By path below the base directory."""
    places: tuple[Path, ...]
    """Files of the diagrams, the diagram's own first when it has one."""
    uses: Capabilities
    modules: frozenset[str]
    """First names of the modules that its Python code imports; `*` when that cannot be known."""
    digest: str
    """SHA-256 in hex."""

    @property
    def code(self) -> str:
        """160 bits of the digest as 32 characters, for pinned runs (`--pin`, `trust=`)."""
        return pin_of(self.digest)


def pin_of(digest: str) -> str:
    """A digest as it is pinned."""
    return base64.b32encode(bytes.fromhex(digest)[:20]).decode().lower()


def closure(document: ParsedDiagram, *, base_dir: Path, plan: Plan | None = None) -> Closure:
    """The closure of a diagram in a base directory.

    Args:
        plan: that of the document, where it is compiled already.

    Raises:
        InvalidDiagramError: the diagram itself cannot run. Sub-diagrams that cannot are left out: they are not granted anything.
        ValidationError: it has more than 500 files, 20 MB, or 10 levels.
    """
    found = _Collector(base_dir)
    found.diagram(document, plan or document.compile(base_dir=base_dir), (), 0)
    record = {
        "v": VERSION,
        "plans": sorted(found.plans),
        "nested": sorted(found.links),
        "root": next(iter(found.plans)),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(found.files.items())},
    }
    return Closure(
        document.name,
        found.plans,
        found.files,
        tuple(dict.fromkeys(found.places)),
        Capabilities(found.uses),
        frozenset(found.modules),
        hashlib.sha256(_canonical(record)).hexdigest(),
    )


def plan_digest(plan: Plan) -> str:
    """SHA-256 in hex of all that a run reads of a plan: nodes with every field, arrows, persons."""
    labels = {node.id: node.label for node in plan.nodes}
    people = {person.id: person.label for person in plan.persons.values()}

    def value(name: str, given: Any) -> Any:
        if name == "person" and isinstance(given, str):  # ids differ between formats, labels do not
            return people.get(given, given)
        if name == "node_indices" and isinstance(given, list):
            return [labels.get(str(item), item) for item in given]
        return given

    record = {
        "nodes": [
            [n.type, n.label, {f.name: value(f.name, getattr(n.spec, f.name)) for f in fields(n.spec) if f.name not in _NOT_RUN}]
            for n in plan.nodes
        ],
        "edges": sorted(
            [e.source, e.target, e.source_handle, e.target_handle, e.label or "", e.content_type or "", e.priority]
            for e in plan.edges
        ),
        "persons": sorted(
            [p.label, p.llm.service, p.llm.model or "", p.llm.base_url or "", p.llm.api_key_id or "", p.llm.system_prompt or "",
             json.dumps([p.llm.temperature, p.llm.max_tokens, *filter(None, [p.llm.own_options])], sort_keys=True)]
            for p in plan.persons.values()
        ),
    }  # fmt: skip
    return hashlib.sha256(_canonical(record)).hexdigest()


def _canonical(value: Any) -> bytes:
    """JSON with sorted keys; texts exactly as they are."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return repr(value)


class _Collector:
    def __init__(self, base: Path) -> None:
        settings = get_settings()
        self.base = base
        self.root = Root(base, protected=ProtectedPlaces(settings.own_places, settings.open_places))
        self.plans: dict[str, Plan] = {}
        self.files: dict[str, bytes] = {}
        self.links: set[tuple[str, str, str]] = set()
        """(plan, label of its node, plan that the node runs), by digest."""
        self.places: list[Path] = []
        self.uses: set[Use] = set()
        self.modules: set[str] = set()
        self._folder: Path | None = None
        """Of the diagram's file; files below it come with it, others are the user's."""
        self._size = 0

    def diagram(self, document: ParsedDiagram, plan: Plan, way: tuple[str, ...], depth: int) -> None:
        digest = plan_digest(plan)
        if document.path is not None:
            self.places.append(document.path.resolve())
        if digest in self.plans:
            return
        if depth > DEEPEST:
            raise ValidationError(f"More than {DEEPEST} diagrams are nested in '{plan.name}'.", hint="Nest them less deep.")
        self.plans[digest] = plan
        self._count(len(document.text))
        around = self._folder
        if document.path is not None:
            self._folder = document.path.resolve().parent  # of one within another: that of the outer one
        for node in plan.nodes:
            for use in uses_of(node, plan):
                self._use(use, way)
            self._files_of(node, plan, way)
            if isinstance(node.spec, SubDiagramNode):
                self._nested(node, node.spec, plan, way, depth)
        self._folder = around

    def _is_beside(self, path: Path) -> bool:
        """Whether a file, after links, lies in the folder of the diagram or below it."""
        return self._folder is not None and path.is_relative_to(self._folder)

    def _use(self, use: Use, way: tuple[str, ...]) -> None:
        place = " › ".join((*way, use.node)) if use.node else use.node
        self.uses.add(Use(use.kind, use.what, place, use.detail, use.of_model))

    def _nested(self, node: PlanNode, spec: SubDiagramNode, plan: Plan, way: tuple[str, ...], depth: int) -> None:
        name = (spec.diagram_name or "").strip()
        field = "diagram_data" if spec.diagram_data else "diagram_name"
        if (not spec.diagram_data and "{" in name) or "diagram" not in _effects(node, field):
            return
        try:
            document = load_nested(spec, name, source_path=plan.source_path, base_dir=self.base)
            inner = document.compile(base_dir=self.base)
        except (DiagramError, StorageError):
            return  # it may be there when its node is reached; what was not shown is not granted then
        self.links.add((plan_digest(plan), node.label, plan_digest(inner)))
        if document.path is not None and not self._is_beside(document.path.resolve()):
            self._use(Use("diagram", name, node.label), way)
        self.diagram(document, inner, (*way, node.label), depth + 1)

    # Files.

    def _files_of(self, node: PlanNode, plan: Plan, way: tuple[str, ...]) -> None:
        match node.spec:
            case CodeJobNode() as spec:
                line = (spec.code or "").strip()
                named = bool(CODE_FILE.fullmatch(line))
                path = line if named else None if spec.code else spec.file_path
                text = self._read(path, node, way, code=True) if path else None
                if spec.language is SupportedLanguage.PYTHON:
                    self._imports(
                        text.decode("utf-8", "replace") if text else spec.code or "", path if text else None, node, way
                    )
                elif spec.language is SupportedLanguage.TYPESCRIPT and path and text:
                    self._scripts(text, path, node, way)
                elif spec.language is SupportedLanguage.BASH:
                    script = text.decode("utf-8", "replace") if text else spec.code or ""
                    self._programs(
                        script, posixpath.dirname(name_below(path, self.base)) if path and text else "", node, way, set()
                    )
            case HookNode(hook_type=HookType.SHELL) as spec:
                words = [spec.command or spec.config.get("command") or "", *_words(spec.config.get("args"))]
                folder = name_below(str(spec.config.get("cwd") or ""), self.base)
                text = shlex.join(map(str, words)) if len(words) > 1 else str(words[0])
                self._programs(text, folder, node, way, set())
                for name in environment_names(spec.config.get("env"), folder, self.root, self.base):
                    self._read(name, node, way, code=True)
            case HookNode(hook_type=HookType.PYTHON) as spec:
                path = str(spec.config.get("script") or spec.command or "")
                text = self._read(path, node, way, code=True)
                self._imports((text or b"").decode("utf-8", "replace"), path, node, way)
            case TemplateJobNode() as spec:
                self._template(spec, node, way)
            case JsonSchemaValidatorNode(json_schema=None, schema_path=str() as path) if "brings" in _effects(
                node, "schema_path"
            ):
                self._data(path, node, way)
            case PersonJobNode() | ConditionNode() as spec:
                for f in fields(spec):
                    name = getattr(spec, f.name)
                    if "brings" in effects_of(f) and isinstance(name, str):
                        self._prompt(name, node, plan, way, base_first=not f.metadata.get("prompt_file"))
            case _:
                pass

    def _read(self, path: str, node: PlanNode, way: tuple[str, ...], *, code: bool = False) -> bytes | None:
        """A file that a node names, kept; None when it cannot be read, which its node will report.

        Args:
            code: it is code, which is listed as such; else a file beyond the diagram's own folder is one of the user's.
        """
        name = name_below(path, self.base)
        if name in self.files:
            return self.files[name]
        try:
            data = self.root.read(name, MAX_BYTES)
            brought = code or self._is_beside(self.root.locate(name))
        except (OSError, StorageError, ValueError):
            return None
        self._count(len(data))
        self.files[name] = data
        self._use(Use("brings" if brought else "read", name, node.label), way)
        if len(self.files) > MAX_FILES:
            raise ValidationError(f"The diagram brings more than {MAX_FILES} files.", hint="Let it name fewer.")
        return data

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAX_BYTES:
            raise ValidationError(f"The diagram and its files have more than {MAX_BYTES:,} bytes.", hint="Let it name fewer.")

    def _data(self, path: str, node: PlanNode, way: tuple[str, ...]) -> None:
        """A file that is read as it is there; one whose name is computed during the run is any that matches."""
        if "{" in path or self._read(path, node, way) is None:
            self._use(Use("read", as_pattern(path), node.label), way)

    def _prompt(self, name: str, node: PlanNode, plan: Plan, way: tuple[str, ...], *, base_first: bool) -> None:
        """The compiler has put the text of a prompt file into the plan. One beyond the diagram's own folder is the user's."""
        files = PromptFiles(self.base, Path(plan.source_path) if plan.source_path else None)
        if files.read(name, base_first=base_first)[0] is None:
            return
        path = files.path_of(name)
        beside = path is not None and self._is_beside(path)
        self._use(Use("brings" if beside else "read", files.relative(name) or name, node.label), way)

    def _template(self, spec: TemplateJobNode, node: PlanNode, way: tuple[str, ...]) -> None:
        if spec.preprocessor:
            given = spec.preprocessor
            module = given.rpartition(".")[0] if isinstance(given, str) else str(given.get("module") or "")
            self._imports(f"import {module}", None, node, way)
        if spec.template_content is None and spec.template_path and "brings" in _effects(node, "template_path"):
            if "{" in spec.template_path:
                self._data(spec.template_path, node, way)
                return
            text = self._read(spec.template_path, node, way)
            if text is None:
                self._use(Use("read", as_pattern(spec.template_path), node.label), way)
                return
            self._includes(text.decode("utf-8", "replace"), node, way, set())
        elif spec.template_content:
            self._includes(spec.template_content, node, way, set())

    def _includes(self, template: str, node: PlanNode, way: tuple[str, ...], seen: set[str]) -> None:
        for name in _included(template):
            if name == MACROS:
                continue  # of the package
            if name is None:
                self._use(Use("read", "**", node.label, "templates that are chosen while it runs"), way)
            elif name not in seen:
                seen.add(name)
                if (text := self._read(name, node, way)) is not None:
                    self._includes(text.decode("utf-8", "replace"), node, way, seen)
                else:
                    self._use(Use("read", as_pattern(name), node.label), way)

    def _imports(self, code: str, file: str | None, node: PlanNode, way: tuple[str, ...]) -> None:
        """Keep the modules that Python code imports and that lie next to its file or below the base directory."""
        place = posixpath.dirname(name_below(file, self.base)) if file else ""
        for level, module in _imported(code):
            if level:  # of the package that the file is in
                folder = place
                for _ in range(level - 1):
                    folder = posixpath.dirname(folder)
                self._module(module, [folder], node, way)
                continue
            first = module.partition(".")[0]
            self.modules.add(first or "*")
            if first and first not in sys.stdlib_module_names:
                self._module(module, [place, ""], node, way)

    def _module(self, module: str, folders: list[str], node: PlanNode, way: tuple[str, ...]) -> None:
        """Keep the files of a module, and of the packages that it is in, in each of these folders."""
        parts = module.split(".")
        for folder in dict.fromkeys(folders):
            for depth in range(1, len(parts) + 1):
                stem = posixpath.join(folder, *parts[:depth])
                for name in (f"{stem}.py", f"{stem}/__init__.py"):
                    known = name in self.files
                    text = self._read(name, node, way, code=True)
                    if text is not None and not known:
                        self._imports(text.decode("utf-8", "replace"), name, node, way)

    def _scripts(self, text: bytes, file: str, node: PlanNode, way: tuple[str, ...]) -> None:
        """Keep the files that TypeScript imports by a relative name, as Node finds them."""
        for found in _SCRIPT.finditer(text.decode("utf-8", "replace")):
            name = posixpath.normpath(posixpath.join(posixpath.dirname(name_below(file, self.base)), found[1]))
            known = name in self.files
            if (inner := self._read(name, node, way, code=True)) is not None and not known:
                self._scripts(inner, name, node, way)

    def _programs(self, text: str, folder: str, node: PlanNode, way: tuple[str, ...], seen: set[str]) -> None:
        """Keep the scripts that a shell script runs or reads, as far as its text writes their names out.

        Args:
            folder: that of the script, or where it runs.
            seen: names that were looked for.
        """
        for name in script_names(text, (folder, ""), self.base):
            if name not in seen:
                seen.add(name)
                if len(seen) > MAX_FILES:
                    raise ValidationError(f"A script names more than {MAX_FILES} others.", hint="Let it name fewer.")
                known = name in self.files
                inner = self._read(name, node, way, code=True)
                if inner is None or known:
                    continue
                read, beside = inner.decode("utf-8", "replace"), posixpath.dirname(name)
                if name.endswith(".py"):
                    self._imports(read, name, node, way)
                elif name.endswith(NODE_SUFFIXES):
                    self._scripts(inner, name, node, way)
                else:
                    self._programs(read, beside, node, way, seen)


def script_names(text: str, folders: Iterable[str], base: Path) -> Iterator[str]:
    """Paths below the base directory that may be the files of code which a shell text names, were they looked for in these folders, or in
    those that it goes into."""
    places = dict.fromkeys(folders)
    places |= dict.fromkeys(
        posixpath.join(place, name_below(entered, base)) for entered in entered_folders(text) for place in list(places)
    )
    for word, is_module in mentioned(text):
        if is_module:
            stem = word.replace(".", "/")
            names = [f"{stem}.py", f"{stem}/__main__.py", f"{stem}/__init__.py"]
            names += [f"{parent}/__init__.py" for parent in itertools.accumulate(stem.split("/")[:-1], "{}/{}".format)]
        elif posixpath.isabs(word) and Path(word).is_relative_to(base):
            yield name_below(word, base)
            continue
        else:
            names = [word.lstrip("/")]  # what comes before a "/" may be an expansion, as in "$(dirname "$0")/lib.sh"
        for folder in places:
            yield from (posixpath.normpath(posixpath.join(folder, name)) for name in names)


def environment_names(env: object, folder: str, root: Root, base: Path) -> Iterator[str]:
    """Paths of the files that variables of a program's environment name, and of the programs and modules in the folders that they name:
    `BASH_ENV=lib.sh`, `PATH=bin:/usr/bin`, `PYTHONPATH=lib`. Variables of other names hold data."""
    if not isinstance(env, Mapping):
        return
    for variable, value in cast(Mapping[object, object], env).items():
        parts = re.split(r"[\s:;,=]+", str(value)) if _STEERS.search(str(variable)) else ()
        for part in filter(None, parts):
            name = posixpath.normpath(posixpath.join(folder, name_below(part, base)))
            if name.startswith(("/", "..")):
                continue  # beyond the base directory; `/usr/bin` is the system's
            try:
                entries = root.listdir(name)
            except OSError:
                yield name
                continue
            except StorageError:
                continue  # closed, or beyond the base directory by a link
            for entry in entries:
                if str(variable) == "PATH" or entry.name.endswith((*CODE_SUFFIXES, ".so", ".pm")):
                    yield posixpath.normpath(posixpath.join(name, entry.name))


def _words(given: object) -> list[object]:
    """Arguments of a command, which are a list or one text."""
    return list(cast(list[object], given)) if isinstance(given, (list, tuple)) else [given] if given else []


def _effects(node: PlanNode, name: str) -> tuple[str, ...]:
    """The effects that a field declares for its node."""
    return next(effects_of(f) for f in fields(node.spec) if f.name == name)


def _included(template: str) -> Iterator[str | None]:
    """Names of the templates that a template includes, extends or imports; None for one that is not written out."""
    try:
        tree = parse_file(template)
    except (JinjaError, TemplateError, RecursionError):
        return  # the run will report it
    for found in tree.find_all((jinja.Include, jinja.Extends, jinja.Import, jinja.FromImport)):
        wanted = found.template
        if isinstance(wanted, jinja.Const):
            values = wanted.value if isinstance(wanted.value, (list, tuple)) else [wanted.value]
            yield from (str(value) for value in values)
        elif isinstance(wanted, (jinja.List, jinja.Tuple)):
            yield from (str(item.value) if isinstance(item, jinja.Const) else None for item in wanted.items)
        else:
            yield None


def _imported(code: str) -> Iterator[tuple[int, str]]:
    """(level of a relative import, else 0; dotted name) of the modules that Python code imports, as far as its text shows: by
    statements, by `import_module` and `__import__` of a name that is written out, and the names in `__all__` of a package."""
    try:
        tree = ast.parse(f"async def _():\n{''.join(f' {line}' for line in code.splitlines(keepends=True))}\n pass")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return  # it does not run either
    for found in ast.walk(tree):
        match found:
            case ast.Import(names):
                yield from ((0, alias.name) for alias in names)
            case ast.ImportFrom(module, names, level):
                if module:
                    yield level, module
                yield from ((level, f"{module}.{alias.name}" if module else alias.name) for alias in names if alias.name != "*")
            case ast.Call(ast.Name(called) | ast.Attribute(_, called), [ast.Constant(str() as name), *_]):
                if called in ("import_module", "__import__") and (dotted := name.lstrip(".")):
                    yield len(name) - len(dotted), dotted
            case ast.Assign([ast.Name("__all__")], ast.List(items) | ast.Tuple(items)):
                yield from ((1, item.value) for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str))
            case _:
                pass


_STEERS = re.compile(r"(?:PATH|LIB|OPTS?|OPTIONS|PRELOAD|ENV|STARTUP|EDITOR|PAGER|SHELL|COMMAND|CMD|FLAGS)\Z")
"""Names of variables that make programs run or load files."""
_SCRIPT = re.compile(r"""(?:\bfrom|\bimport|\brequire)[ \t]*(?:\([ \t]*)?["'](\.{1,2}/[^"'\n]*)["']""")
"""An import of TypeScript or JavaScript by a relative name."""
