"""Where manifests of providers come from: this package, the base directory, other packages, and files that a user names.

Manifests of the package may use the keys of their services. Any other one gets the key of its own name only, unless the user says
otherwise; those of the base directory count only when the user trusts that folder, as they say where keys are sent to.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.text import did_you_mean
from dipeo_nb.errors import ConfigurationError, ManifestError, TrustError
from dipeo_nb.integrations import openapi
from dipeo_nb.integrations.manifest import Manifest
from dipeo_nb.integrations.manifest_reader import manifest_of, parsed, read_manifest

PACKAGED = Path(__file__).parent / "manifests"
ENTRY_POINTS = "dipeo_nb.providers"
"""Group of entry points: each is the path of a manifest, a `BaseProvider`, or a function that gives one of them."""
FOLDER = "integrations"
"""Below the base directory."""
MAX_DOCUMENT = 50_000_000
"""Characters of a file."""
SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest and where it is from. `source` is `package`, the path of a file, or the name of a distribution."""

    manifest: Manifest
    path: Path
    source: str

    @property
    def key_service(self) -> str:
        """Service of its key; empty: as the manifest says."""
        return "" if self.source == "package" else self.manifest.name


class Registry:
    """Manifests by the name of their provider. Read when they are asked for.

    Args:
        base: the base directory.
        trusted: whether the user trusts a file in it.
        reserved: whether a name has the key of something else, such as a model.
    """

    def __init__(
        self,
        base: Path | None = None,
        trusted: Callable[[Path], bool] = lambda path: False,
        reserved: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._base = base
        self._trusted = trusted
        self._reserved = reserved
        self._read: dict[Path, tuple[int, Found]] = {}

    def names(self) -> list[str]:
        """All providers that have a manifest in the package or the base directory, by the names of their files."""
        return sorted({name_of(path) for path in (*packaged(), *self._files())})

    def find(self, name: str) -> Found | None:
        """The manifest of a provider; None when there is none of that name.

        Raises:
            ManifestError: it cannot be used, or has a name that another one has.
            TrustError: it is in a folder that the user does not trust.
        """
        own = PACKAGED / f"{name}.yaml"
        others = self._files(name)
        if own.is_file():
            if others:
                raise ManifestError(
                    f"{others[0]}: there is a provider '{name}' in this package already.",
                    hint="Rename the file and its `name`.",
                    path=str(others[0]),
                )
            return self._of(own, "package")
        if len(others) > 1:
            raise ManifestError(
                f"{others[0]} and {others[1]} are both for '{name}'.", hint="Remove one of them.", path=str(others[1])
            )
        if not others:
            return None
        if not self._trusted(others[0]):
            raise TrustError(
                f"The manifest {others[0]} says where keys and data are sent to, and its folder is not trusted.",
                hint=f"Read it, then: dipeo-nb trust {others[0].parent} (dp.trust).",
            )
        return self.read(others[0])

    def read(self, path: Path) -> Found:
        """The manifest in a file that the user has named. Raises ManifestError."""
        found = self._of(path, str(path))
        name = found.manifest.name
        if self._reserved(name) or name in {name_of(own) for own in packaged()}:
            raise ManifestError(
                f"{path}: the name '{name}' belongs to another service.", hint="Choose another `name`.", path=str(path)
            )
        return found

    def hooks(self, found: Found) -> ModuleType | None:
        """The module of a manifest's hooks, imported; None when it has none.

        Raises:
            TrustError: it is in a folder that the user does not trust.
            ManifestError: it cannot be imported.
        """
        if (name := found.manifest.hooks) is None:
            return None
        if found.source == "package":
            return importlib.import_module(f"dipeo_nb.integrations.manifests.{name.removesuffix('.py')}")
        path = found.path.parent / name
        if Path(name).name != name or path.suffix != ".py" or not path.is_file():
            raise ManifestError(
                f"{found.path}: there is no module {name[:80]} beside it.",
                hint="Put the hooks into a file next to the manifest.",
                path=str(found.path),
            )
        if found.source == str(found.path) and not self._trusted(path):
            raise TrustError(
                f"The hooks of {found.manifest.name} ({path}) are code, and their folder is not trusted.",
                hint=f"Read them, then: dipeo-nb trust {path.parent} (dp.trust).",
            )
        module_name = f"dipeo_nb_hooks_{found.manifest.name}"
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ManifestError(
                f"The hooks {path} cannot be imported: {type(error).__name__}: {str(error)[:200]}.",
                hint="Correct them.",
                path=str(path),
            ) from error
        sys.modules[module_name] = module
        return module

    def entry_points(self) -> Iterator[tuple[str, Any]]:
        """What other packages offer: (name, manifest or provider).

        Raises:
            ConfigurationError: one of them cannot be loaded.
        """
        for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
            try:
                value = entry.load()
                if callable(value) and not isinstance(value, (str, Path)):
                    value = value()
            except Exception as error:
                raise ConfigurationError(
                    f"The entry point {entry.name} ({entry.value}) cannot be loaded: {type(error).__name__}: {str(error)[:200]}.",
                    hint=f"Correct or remove {entry.dist.name if entry.dist is not None else 'that package'}.",
                ) from error
            if isinstance(value, (str, Path)):
                value = self._of(Path(value), entry.dist.name if entry.dist is not None else entry.name)
            yield entry.name, value

    def _files(self, name: str | None = None) -> list[Path]:
        """The manifests in the base directory: of all providers, or of one, for which the files of others are not looked at."""
        if self._base is None:
            return []
        folder = self._base / FOLDER
        fitting = {name, *(f"{stem}{s}" for stem in (name, "provider") for s in SUFFIXES)}
        try:
            places = [folder / entry for entry in os.listdir(folder) if name is None or entry in fitting]
        except OSError:  # there is no such folder
            return []
        files = [path for path in places if path.suffix in SUFFIXES and path.is_file()]
        inside = [path for place in places for s in SUFFIXES if (path := place / f"provider{s}").is_file()]
        return sorted(path for path in (*files, *inside) if name is None or name_of(path) == name)

    def _of(self, path: Path, source: str) -> Found:
        try:
            changed = path.stat().st_mtime_ns
        except OSError as error:
            raise failed("read", str(path), error) from error
        if (known := self._read.get(path)) is not None and known[0] == changed:
            return known[1]
        text = _text(path)
        found = Found(_manifest(text, path, path.name if source == "package" else str(path)), path, source)
        if source == "package":
            assert found.manifest.name == path.stem
        elif path.stem not in (found.manifest.name, "provider") and source == str(path) and path.parent.name == FOLDER:
            raise ManifestError(
                f"{path} is for a provider named '{found.manifest.name}'.",
                hint="Name the file like the provider.",
                path=str(path),
            )
        self._read[path] = (changed, found)
        return found


def _text(path: Path) -> str:
    """The text of a manifest or document. Raises ManifestError or StorageError when it cannot be read."""
    try:
        if path.stat().st_size > 4 * MAX_DOCUMENT:
            raise ManifestError(
                f"{path} is larger than {MAX_DOCUMENT:,} characters.", hint="Give a smaller document.", path=str(path)
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ManifestError(f"{path} is not UTF-8 text.", hint="Save it as UTF-8.", path=str(path)) from None
    except OSError as error:
        raise failed("read", str(path), error) from error


def _manifest(text: str, path: Path, shown: str) -> Manifest:
    """The manifest in a text, which may be an OpenAPI document, or lie over one."""
    if len(text) > MAX_DOCUMENT:
        raise ManifestError(f"{shown} has more than {MAX_DOCUMENT:,} characters.", hint="Give a smaller document.", path=shown)
    if "openapi" not in text and "swagger" not in text:
        return read_manifest(text, shown)
    value, places = parsed(text, shown)
    if openapi.is_document(value):
        name = re.sub(r"[^a-z0-9]+", "_", path.name.partition(".")[0].lower()).strip("_")
        return manifest_of(openapi.manifest_data(value, shown, name), shown, places)
    if not isinstance(value, Mapping) or "openapi" not in value:
        return manifest_of(value, shown, places)
    over = {key: item for key, item in value.items() if key != "openapi"}
    file = path.parent / str(value["openapi"])
    if Path(str(value["openapi"])).name != str(value["openapi"]) or not file.is_file():
        raise ManifestError(
            f"{shown}: there is no document {str(value['openapi'])[:80]} beside it.",
            hint="Put it next to the manifest.",
            path=shown,
        )
    document = _text(file)
    if len(document) > MAX_DOCUMENT:
        raise ManifestError(
            f"{file} has more than {MAX_DOCUMENT:,} characters.", hint="Give a smaller document.", path=str(file)
        )
    below, _ = parsed(document, str(file))
    if not openapi.is_document(below):
        raise ManifestError(f"{file} is not an OpenAPI document.", hint="Give one of version 3.", path=str(file))
    made = openapi.manifest_data(below, str(file), name_of(path))
    own = over.get("operations")
    unknown = [
        key
        for key, item in (own.items() if isinstance(own, Mapping) else ())
        if key not in made["operations"] and "path" not in (item or {})
    ]
    if unknown:
        raise ManifestError(
            f"{shown}: the document has no operation '{unknown[0]}'.",
            hint=did_you_mean(unknown[0], made["operations"], "See dipeo-nb providers show FILE."),
            path=shown,
        )
    return manifest_of(openapi.overlaid(made, over), shown, places)


def packaged() -> list[Path]:
    """Manifests of this package."""
    return sorted(PACKAGED.glob("*.yaml"))


def name_of(path: Path) -> str:
    """The provider that a manifest is for, by its place."""
    return path.parent.name if path.stem == "provider" else path.stem


def variables_known(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, str]:
    """Variables that a user sets for a provider.

    Raises:
        ConfigurationError: one is not known, or is not a string.
    """
    known = (*manifest.variables, "base_url", "key")
    for name, value in given.items():
        if name not in known:
            raise ConfigurationError(f"{manifest.name} has no variable '{name:.80}'.", hint=f"It has: {', '.join(known)}.")
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(f"{manifest.name}: {name} is not a string.", hint=f'Say {name}="…".')
    return {name: str(value).strip() for name, value in given.items()}
