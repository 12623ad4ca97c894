"""Runs a Python program that a shell script starts, from the bytes that were shown before the run: `PYTHON code_program.py DATA FILE …`.

What it imports of its folder are the modules that were shown (`code_modules`). `sys.argv`, `__file__` and the working directory are
those of `PYTHON FILE …`. Standard library only, for any Python from 3.8 on: it is started by its path.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportOptionalMemberAccess=false, reportArgumentType=false
from __future__ import annotations

import json
import os
import runpy
import sys
import types
from importlib.util import module_from_spec, spec_from_file_location


def _modules():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "code_modules.py")
    spec = spec_from_file_location("_dipeo_code_modules", path)
    made = module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def main(data: str, name: str, *argv: str) -> None:
    """Run a program.

    Args:
        data: file with the base directory and what was shown: path below it → content in Latin-1, as JSON.
        name: path of the program below the base directory; `-m`: the first of *argv* is the name of a module.
        argv: the program as it is called, and its arguments.
    """
    with open(data, encoding="utf-8") as file:
        base, files = json.load(file)
    shown = _modules().ShownModules(base, {path: text for path, text in files.items() if path.endswith(".py") or path == name})
    sys.argv = list(argv)
    if name == "-m":
        shown.roots = [os.getcwd()]
        shown.install()
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        return
    shown.roots = [os.path.dirname(os.path.abspath(argv[0]))]
    shown.install()
    path = os.path.join(os.getcwd(), argv[0])
    code = compile(shown.files[shown.place(name)], path, "exec")
    program = sys.modules["__main__"] = types.ModuleType("__main__")
    program.__dict__.update(__file__=path, __builtins__=__builtins__)
    exec(code, program.__dict__)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]  # its own folder, from which the program imports nothing
    main(*sys.argv[1:])
