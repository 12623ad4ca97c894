"""Finding programs of this machine."""

from __future__ import annotations

import os
import shutil


def find_program(name: str) -> str | None:
    """The path of a program on the PATH. The current directory, which Windows adds and a PATH may name, does not count: a program in
    a folder that was cloned from elsewhere is not one of the machine."""
    folders = [folder for folder in os.get_exec_path() if os.path.isabs(folder)]
    found = shutil.which(name, path=os.pathsep.join(folders) or os.devnull)
    if found is None or not os.path.isabs(found):
        return None
    here = os.path.dirname(found) == os.getcwd()
    return None if here and os.getcwd() not in folders else found
