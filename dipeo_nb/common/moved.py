"""Import paths that are no longer where the code is: they lead there, with a DeprecationWarning.

`MovedModules` serves import paths of DiPeO, below packages that have little else. `moved_names` serves names of our own that
have moved or changed: the former module keeps `__getattr__ = moved_names(__name__, {name: module})`, for one release.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # importlib.abc brings importlib.resources and tempfile along; a loader needs two methods, and no base


class MovedModules(Loader):
    """Finds the modules below a package that are elsewhere now.

    Args:
        package: its full name.
        homes: dotted name below it → full name of the module that has the contents.
    """

    def __init__(self, package: str, homes: Mapping[str, str]) -> None:
        self._homes = {f"{package}.{name}": home for name, home in homes.items()}
        parts = (name.split(".") for name in homes)
        self._packages = {f"{package}.{'.'.join(names[:n])}" for names in parts for n in range(1, len(names))}

    def install(self) -> None:
        sys.meta_path.append(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._homes and fullname not in self._packages:
            return None
        return ModuleSpec(fullname, self, is_package=fullname in self._packages)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        home = self._homes.get(module.__name__)
        if home is None:
            return
        warnings.warn(f"{module.__name__} is deprecated; import {home}.", DeprecationWarning, stacklevel=2)
        real = importlib.import_module(home)

        def attribute(name: str) -> Any:
            return getattr(real, name)

        public = getattr(real, "__all__", None) or [name for name in vars(real) if not name.startswith("_")]
        vars(module).update({"__getattr__": attribute, "__all__": list(public), "__doc__": real.__doc__})


def moved_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose names are elsewhere now.

    Args:
        package: the full name of the module.
        homes: name → full name of the module that has it, with `:NAME` when it has another name there.
    """

    def home(name: str) -> tuple[str, str, str]:
        module, _, now = homes[name].partition(":")
        return module, now or name, f"import {now or 'it'} from {module}"

    return _former(package, homes, home)


def renamed(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module of which names have been renamed.

    Args:
        package: the full name of the module.
        names: former name → name.
    """

    return _former(package, names, lambda name: (package, names[name], f"it is called {names[name]}"))


def _former(package: str, known: Collection[str], home: Callable[[str], tuple[str, str, str]]) -> Callable[[str], Any]:
    """A `__getattr__` for *known* names; *home* gives the module that has one, its name there, and what to do instead."""

    def attribute(name: str) -> Any:
        if name not in known:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, now, instead = home(name)
        warnings.warn(f"{package}.{name} is deprecated; {instead}.", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(module), now)

    return attribute
