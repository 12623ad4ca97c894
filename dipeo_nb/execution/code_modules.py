"""Imports of code that was shown before it runs: its modules are made of the bytes that were shown, and nothing else of the folders
that they lie in can be imported. Standard library only: the worker of code jobs loads this file by its path.

The standard library and installed packages come first, as for any code. A module is looked for beside the file of the code, then
below the base directory, as the listing of the diagram has found it.
"""

# pyright: reportMissingParameterType=false, reportUnknownParameterType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
from __future__ import annotations

import linecache
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import decode_source, spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:  # its import would take a while in every worker
    from typing import Any


class ShownModules:
    """The files that may be imported, and the finders that do so.

    Args:
        base: the base directory, an absolute path.
        files: path below it → content, as text in Latin-1.
        on_load: called with the name of each module that is made.
    """

    def __init__(self, base: str, files: Any, on_load: Any = lambda name: None) -> None:
        self.base = base
        self.on_load = on_load
        self.files = {self.place(path): text.encode("latin-1") for path, text in files.items()}
        """By absolute path."""
        self.folders = {parent for path in self.files for parent in self.parents(path)}
        self.roots: list[str] = []
        """Folders that top-level modules are looked for in."""

    def place(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.base, path))

    def parents(self, path: str) -> Any:
        while len(path) > len(self.base) and path != os.path.dirname(path):
            path = os.path.dirname(path)
            yield path

    def install(self) -> None:
        sys.meta_path.insert(0, _OfPackages(self))
        sys.meta_path.append(_AtTop(self))  # after the standard library and what is installed

    def spec(self, fullname: str, folders: Any) -> ModuleSpec | None:
        """The module of that name in the first of these folders that has it."""
        name = fullname.rpartition(".")[2]
        parts = []
        for folder in folders:
            stem = os.path.join(folder, name)
            for path, places in ((os.path.join(stem, "__init__.py"), [stem]), (f"{stem}.py", None)):
                if path in self.files:
                    loader = _Loader(fullname, path, self)
                    return spec_from_file_location(fullname, path, loader=loader, submodule_search_locations=places)
            if stem in self.folders:
                parts.append(stem)
        if not parts:
            return None
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = parts
        return spec

    def as_values(self) -> Any:
        """What makes the same again in another process: (base, files, roots), as JSON values."""
        return [self.base, {path: data.decode("latin-1") for path, data in self.files.items()}, self.roots]


class _Loader(SourceFileLoader):
    """Makes a module of the bytes that were shown; no compiled file is read or written."""

    def __init__(self, fullname: str, path: str, modules: ShownModules) -> None:
        super().__init__(fullname, path)
        self.files, self.on_load = modules.files, modules.on_load

    def get_data(self, path: str) -> bytes:
        if path not in self.files:
            return super().get_data(path)  # data beside the module, which its code asks for
        return self.files[path]

    def path_stats(self, path: str) -> Any:
        raise OSError(f"{path} is not read from the disk")

    def exec_module(self, module: Any) -> None:
        path = self.get_filename(self.name)
        text = decode_source(self.files[path])
        # Tracebacks and `inspect` show what runs, not what the disk has now.
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        self.on_load(self.name)
        super().exec_module(module)


class _AtTop:
    """Finds top-level modules in the folders of the code."""

    def __init__(self, modules: ShownModules) -> None:
        self.modules = modules

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is not None:
            return None
        spec = self.modules.spec(fullname, self.modules.roots)
        if spec is None and _is_there(fullname, self.modules.roots):
            raise not_shown(fullname)
        return spec


class _OfPackages:
    """Finds the modules of packages whose folders lie below the base directory. For these it is the only finder."""

    def __init__(self, modules: ShownModules) -> None:
        self.modules = modules

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is None:
            return None
        ours = [folder for folder in path if folder in self.modules.folders]
        if not ours:
            return None
        others = [folder for folder in path if folder not in self.modules.folders]
        spec = self.modules.spec(fullname, ours) or (PathFinder.find_spec(fullname, others, target) if others else None)
        if spec is None:
            raise not_shown(fullname) if _is_there(fullname, ours) else ModuleNotFoundError(_no(fullname), name=fullname)
        return spec


def _is_there(fullname: str, folders: Any) -> bool:
    stems = [os.path.join(folder, fullname.rpartition(".")[2]) for folder in folders]
    return any(os.path.exists(f"{stem}.py") or os.path.isdir(stem) for stem in stems)


def _no(fullname: str) -> str:
    return f"No module named {fullname!r}"


HINT = (
    "The module is there, but was not part of what was shown before the run: name it in an import statement, so that it is; "
    "or trust the folder: dipeo-nb trust FOLDER."
)


def not_shown(fullname: str) -> ModuleNotFoundError:
    """The error of an import of a module that is there, and was not part of what was shown."""
    error = ModuleNotFoundError(_no(fullname), name=fullname)
    error.add_note(HINT)
    return error
