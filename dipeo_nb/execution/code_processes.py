"""How processes that code starts by itself get its functions and classes, which stand in no file that they could import. Standard
library only: the worker of code jobs loads this file by its path.

Forked processes have them. Those that cloudpickle serves (joblib, ray, dask) get them by value. Those that `multiprocessing` starts
as new programs (`spawn`, `forkserver`; the default on macOS and Windows) make them again when they first ask for the module.
"""

# pyright: reportAttributeAccessIssue=false, reportMissingParameterType=false, reportUnknownMemberType=false
from __future__ import annotations

import importlib.abc
import importlib.machinery

TYPE_CHECKING = False
if TYPE_CHECKING:  # its import would take a while in every worker
    from typing import Any

_INSTALL = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("_dipeo_code_worker", {path!r})
sys.modules[spec.name] = module = module_from_spec(spec)
spec.loader.exec_module(module)
sys.meta_path.insert(0, module.restored({name!r}, {made!r}))
"""


class Patched:
    """Runs a function on certain modules as soon as they are imported.

    Args:
        patches: the end of a module's name → what to do with the module.
    """

    def __init__(self, patches: Any) -> None:
        self.patches = patches

    def find_spec(self, fullname: Any, path: Any = None, target: Any = None) -> Any:
        patch = next((patch for name, patch in self.patches.items() if fullname.endswith(name)), None)
        if patch is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute_module = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute_module(module)
                patch(module)

            spec.loader.exec_module = exec_module
        return spec


class ByValue:
    """Makes every cloudpickle that is imported send the functions and classes of certain modules by value.

    Args:
        modules: their names; those of packages mean all that is in them.
    """

    def __init__(self, *modules: Any) -> None:
        self.modules = set(modules)
        self.sets = []

    def patch(self, cloudpickle: Any) -> None:
        known = getattr(cloudpickle, "_PICKLE_BY_VALUE_MODULES", set())
        known.update(self.modules)
        self.sets.append(known)

    def add(self, module: Any) -> None:
        self.modules.add(module)
        for known in self.sets:
            known.add(module)


class Handed:
    """Stands in what a new process is given, and becomes what makes the module there."""

    def __init__(self, text: Any) -> None:
        self.text = text

    def __reduce__(self) -> Any:
        return exec, (self.text,)


def handed_on(path: Any, changes: Any) -> Any:
    """A patch of `multiprocessing.spawn`: a new process can make the code's module again.

    Args:
        path: of the worker's file.
        changes: gives (the module's name, what makes it and its imports again) as texts.
    """

    def patch(spawn: Any) -> Any:
        original = spawn.get_preparation_data

        def get_preparation_data(*arguments: Any) -> Any:
            name, made = changes()
            text = _INSTALL.format(path=path, name=name, made=made)
            return {**original(*arguments), "dipeo": Handed(text)}

        spawn.get_preparation_data = get_preparation_data

    return patch


class ByName(importlib.abc.Loader):
    """Finds one module, which *make* puts into `sys.modules`."""

    def __init__(self, name: Any, make: Any) -> None:
        self.name, self.make = name, make

    def find_spec(self, fullname: Any, path: Any = None, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == self.name else None

    def create_module(self, spec: Any) -> Any:
        return None

    def exec_module(self, module: Any) -> None:
        self.make(module.__name__)
