"""Guards imports: what this package imports never comes from the current or the base directory: `yaml.py` next to a notebook is not PyYAML.

In a kernel, with `python -c` and in an interactive Python the current directory is searched for modules first. That is for the user's
own imports. `guard` makes the folders invisible to imports of this package, at any time, and to those of packages that it imports;
imports of the user's code are as they were. (A folder `dipeo_nb` next to the notebook is another matter: then this code never runs.)

Nothing is imported here but what every interpreter has loaded before it looks into a folder; not even `__future__`.
"""

import _frozen_importlib_external as machinery
import _imp
import os
import sys

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LOADERS = (
    (machinery.ExtensionFileLoader, _imp.extension_suffixes()),
    (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
    (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
)
_folders: set[str] = set()
"""Real paths of guarded folders, besides the current one."""


class _Finder(machinery.FileFinder):
    """Finds the modules of a guarded folder, for everybody but this package."""

    def find_spec(self, fullname, target=None):
        return None if _is_ours(sys._getframe(1)) else super().find_spec(fullname, target)


def guard(folder: str | os.PathLike[str] = "") -> None:
    """Exclude a folder from imports of this package, and of the current directory."""
    if folder:
        _folders.add(os.path.realpath(folder))
    if _hook not in sys.path_hooks:
        sys.path_hooks.insert(0, _hook)
    # Every runtime comes here: one stat a path, and its real path only where it is one of these folders.
    guarded = {_identity(os.curdir), _identity(folder)} - {None}
    for path, finder in list(sys.path_importer_cache.items()):
        if type(finder) is machinery.FileFinder and _identity(path) in guarded and _is_guarded(path):
            del sys.path_importer_cache[path]


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        info = os.stat(folder)
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino


def _hook(path: str) -> _Finder:
    if not (os.path.isdir(path) and _is_guarded(path)):
        raise ImportError("not a guarded folder", path=path)
    return _Finder(path, *_LOADERS)


def _is_guarded(path: str) -> bool:
    real = os.path.realpath(path)
    try:
        here = os.path.realpath(os.getcwd())
    except FileNotFoundError:  # it was removed
        here = ""
    return (real == here or real in _folders) and real not in _installed_folders()


def _is_ours(frame) -> bool:
    """Whether an import is one of this package: of the frames that lead to it, the nearest that is not of an installed module is.

    The file is that of the module, so that code which a library has generated counts as the library's.
    """
    while frame is not None:
        file = frame.f_globals.get("__file__")
        if isinstance(file, str) and file.startswith(_PACKAGE):
            return True
        if not (file.startswith(_INSTALLED) if isinstance(file, str) else frame.f_code.co_filename.startswith("<frozen ")):
            return False
        frame = frame.f_back
    return False


def _site_folders() -> list[str]:
    site = sys.modules.get("site")
    if site is None:  # with -S
        return []
    return [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]


def _installed_folders() -> set[str]:
    """Folders that belong to the installation: those of packages, and what an installation in development mode has named there."""
    found = {os.path.realpath(folder) for folder in (_STDLIB, *_site_folders())}
    for folder in _site_folders():
        try:
            names = [name for name in os.listdir(folder) if name.endswith(".pth")]
        except OSError:
            continue
        for name in names:
            try:
                with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                    lines = [line.strip() for line in file if not line.startswith(("import ", "import\t", "#"))]
            except OSError:
                continue
            found |= {os.path.realpath(os.path.join(folder, line)) for line in lines if line}
    return found


_STDLIB: str = getattr(sys, "_stdlib_dir", None) or os.path.dirname(os.__file__)
_INSTALLED: tuple[str, ...] = tuple(
    {path.rstrip(os.sep) + os.sep for folder in (_STDLIB, *_site_folders()) for path in (folder, os.path.realpath(folder))}
)
"""Beginnings of the files of installed modules."""
