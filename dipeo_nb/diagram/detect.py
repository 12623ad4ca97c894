"""Detects the format of a text, and the file that a name means. The only module that guesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

from dipeo_nb.common.protected import ProtectedPlaces
from dipeo_nb.common.root import Root
from dipeo_nb.common.text import did_you_mean, nearest, shorten
from dipeo_nb.common.walk import Entry
from dipeo_nb.config import get_settings
from dipeo_nb.diagram.format_errors import format_error
from dipeo_nb.diagram.formats import FORMATS
from dipeo_nb.errors import DiagramNotFoundError, StorageError, ValidationError

SUFFIXES = {
    ".light.yaml": "light",
    ".light.yml": "light",
    ".native.json": "native",
    ".executable.json": "executable",
    ".readable.yaml": "readable",
    ".readable.yml": "readable",
}
PLAIN_SUFFIXES = (".yaml", ".yml", ".json")
SEARCH_ROOTS = ("", "examples", "examples/simple_diagrams", "projects", "projects/mcp-diagrams", "files")
"""Folders below the base directory that a bare name is looked up in, in this order."""


DEMOS = Path(__file__).parents[1] / "demo"
"""The diagrams of this package: `demo:debate` is one."""
DEMO_PREFIX = "demo:"


def check_format(name: str) -> str | None:
    """A format given by name: `light`, `native`, `readable`, `executable`; `json` means native, `yaml` and `yml` any of the
    two YAML ones.

    Raises:
        ValidationError: another name.
    """
    text = str(name).lower()
    if text in FORMATS:
        return text
    if text in ("json", "yaml", "yml"):
        return "native" if text == "json" else None
    raise ValidationError(
        f"'{shorten(name)}' is not a diagram format.",
        hint=did_you_mean(text, FORMATS, f"The formats are {', '.join(FORMATS)}."),
    )


def format_of_name(path: str | Path) -> str | None:
    """The format that a file name implies; None for plain `.yaml` and other names."""
    name = Path(path).name.lower()
    for suffix, found in SUFFIXES.items():
        if name.endswith(suffix):
            return found
    return "native" if name.endswith(".json") else None


def stem(path: str | PurePath) -> str:
    """A file name without the suffixes of diagrams: `debate.light.yaml` → `debate`."""
    name = PurePath(path).name
    for suffix in (*SUFFIXES, *PLAIN_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)] or name
    return name


def detect(value: Any, path: str | Path | None = None, file: str | None = None) -> str:
    """The format of a document: by its file name, else by its content.

    Args:
        value: the parsed document.
        path: its file name, when it has one. A plain `.json` means native unless the content shows otherwise.
        file: how errors call the file.

    Raises:
        DiagramFormatError: not a mapping, or a mapping without any part of a diagram.
    """
    if not isinstance(value, Mapping):
        kind = {list: "a list", str: "a text", bool: "a boolean"}.get(type(value), "a single value")
        raise format_error(
            f"A diagram is a mapping with 'nodes', but this is {kind}.",
            "Begin with 'version: light', then 'nodes:' and 'connections:'.",
            file,
            (1, 1),
        )
    named = format_of_name(path) if path else None
    if named and str(path).lower().endswith(tuple(SUFFIXES)):
        return named
    declared = {str(value.get(key)).lower() for key in ("version", "format")}
    for name in ("light", "readable"):
        if name in declared:
            return name
    if "executable" in declared:
        return "executable"
    if "native" in declared or ("nodes" in value and "arrows" in value):
        return "native"
    if "flow" in value:
        return "readable"
    if "connections" in value:
        return "light"
    if named:
        return named
    nodes = value.get("nodes")
    if isinstance(nodes, list) and any(isinstance(n, Mapping) for n in nodes):
        one_entry = [isinstance(n, Mapping) and len(n) == 1 and "label" not in n for n in nodes if n is not None]
        return "readable" if all(one_entry) else "light"
    if "nodes" in value or "persons" in value:
        return "light"
    keys = ", ".join(f"'{shorten(key, 20)}'" for key in list(value)[:5])
    raise format_error(
        f"This is not a diagram: it holds {keys or 'nothing'}, but no 'nodes'.",
        "Begin with 'version: light', then 'nodes:' and 'connections:'.",
        file,
        (1, 1),
    )


class Found(NamedTuple):
    """A diagram's file."""

    path: Path
    data: bytes
    """At most one byte more than the limit."""


def find(name: str, base_dir: Path, *, beside: Path | None = None, format: str | None = None) -> Path:
    """The file that a diagram's name means.

    Args:
        name: a file name or a bare name, e.g. `debate` or `codegen/parse`.
        base_dir: where the search roots are.
        beside: folder of the diagram that uses the name; looked up first.
        format: look for files of this format first.

    Raises:
        DiagramNotFoundError: nothing there, the name leads out of these folders, or is protected.
    """
    return opened(name, base_dir, beside=beside, format=format, limit=0).path


def opened(name: str, base_dir: Path, *, beside: Path | None = None, format: str | None = None, limit: int) -> Found:
    """`find`, and the content of the very file that was found, at most *limit* bytes of it and one more."""
    text = name.strip()
    if text.startswith(DEMO_PREFIX) and (packaged := DEMOS / f"{text.removeprefix(DEMO_PREFIX)}.light.yaml") in DEMOS.iterdir():
        return Found(packaged, packaged.read_bytes())
    closed: StorageError | None = None
    # A name stays below the folders it is searched in, whatever it holds; paths outside are given as paths.
    if text and len(text) < 1000 and ".." not in Path(text).parts and not Path(text).is_absolute():
        settings = get_settings()
        protected = ProtectedPlaces(settings.own_places, settings.open_places)
        for root, folder in _roots(text, base_dir, beside, protected):
            for candidate in _candidates(folder / text, format):
                try:
                    return Found(root.path / candidate, root.read(candidate, limit))
                except StorageError as error:
                    closed = error if error.facts.get("reason") == "protected" else closed
                except PermissionError as error:
                    raise format_error(
                        "The file cannot be read.", "Check its permissions.", str(root.path / candidate)
                    ) from error
                except OSError:
                    continue  # not there
    if closed is not None:
        raise DiagramNotFoundError(closed.message, hint=closed.hint, path=name)
    raise DiagramNotFoundError(
        f"There is no diagram '{shorten(name)}'.",
        hint=f"{_nearest_file(text, base_dir)}Looked below {base_dir} ({', '.join(filter(None, SEARCH_ROOTS))}).",
        path=name,
    )


def available(base_dir: Path) -> list[str]:
    """The diagrams below a folder, as `find` takes them: those whose names imply a format, in the search roots and three levels down."""
    paths = islice(_diagrams(Root(base_dir, protected=ProtectedPlaces())), 5000)
    return sorted({path.as_posix() for path in paths if path.name.endswith(tuple(SUFFIXES))})


def names(base_dir: Path) -> list[str]:
    """Names under which `find` knows the diagrams that are there, sorted: for completion."""
    found: set[str] = set()
    for path in islice(_diagrams(Root(base_dir, protected=ProtectedPlaces())), 2000):
        found.add(path.name if path.parent.as_posix() in _SEARCHED else path.as_posix())
    return sorted(found)


def _roots(name: str, base_dir: Path, beside: Path | None, protected: ProtectedPlaces) -> Iterator[tuple[Root, PurePosixPath]]:
    """The folders that a name is looked up in."""
    if beside:
        yield Root(beside, protected=protected), PurePosixPath()
    base = Root(base_dir, protected=protected)
    if name.startswith("codegen/"):
        yield base, PurePosixPath("files")
    for folder in SEARCH_ROOTS:
        yield base, PurePosixPath(folder)


def _candidates(path: PurePosixPath, format: str | None) -> Iterator[PurePosixPath]:
    if path.suffix:
        yield path
    preferred = [suffix for suffix, name in SUFFIXES.items() if name == format]
    for suffix in (*preferred, *SUFFIXES, *PLAIN_SUFFIXES):
        yield path.with_name(path.name + suffix)


def _nearest_file(name: str, base_dir: Path) -> str:
    """A suggestion from the diagrams that are there, by their names or by their paths below the base directory."""
    if name.startswith(DEMO_PREFIX):
        return did_you_mean(name, (f"{DEMO_PREFIX}{stem(p)}" for p in DEMOS.glob("*.yaml")), "") + " "
    paths: dict[str, str] = {}
    for path in islice(_diagrams(Root(base_dir, protected=ProtectedPlaces())), 2000):
        # A name of the search roots is enough; others need their path.
        paths.setdefault(stem(path), stem(path) if path.parent.as_posix() in _SEARCHED else path.as_posix())
    for demo in DEMOS.glob("*.yaml"):  # also for its path in a clone, from another folder
        paths.setdefault(stem(demo), f"{DEMO_PREFIX}{stem(demo)}")
    close = nearest(stem(name), paths)
    return f"Did you mean '{shorten(paths[close], 200)}'? " if close else ""


_SEARCHED = {PurePosixPath(folder).as_posix() for folder in SEARCH_ROOTS}


def _diagrams(root: Root) -> Iterator[PurePosixPath]:
    """Files that may be diagrams, in the search roots and three levels below the base directory."""
    for folder in SEARCH_ROOTS:
        place = PurePosixPath(folder)
        yield from (place / e.name for e in _inside(root, place) if e.name.endswith((*SUFFIXES, *PLAIN_SUFFIXES)))
    level = [PurePosixPath()]
    for _ in range(3):
        level = [place / e.name for place in level for e in _inside(root, place) if e.is_dir][:200]
        for place in level:
            yield from (place / e.name for e in _inside(root, place) if e.name.endswith(tuple(SUFFIXES)))


def _inside(root: Root, folder: PurePosixPath) -> list[Entry]:
    """The first 500 entries of a folder that are not protected; none when it cannot be read."""
    try:
        return sorted(root.listdir(folder))[:500]
    except (OSError, StorageError):
        return []
