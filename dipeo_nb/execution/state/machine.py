"""Which machine and which process a run belongs to."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def _host() -> str:
    """This machine, this boot of it and this container: a process id means nothing beyond them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # containers may share name and boot, and not their process ids
    except OSError:
        namespace = ""
    return f"{platform.node()}:{boot}:{namespace}"


HOST = _host()
"""Of this process."""


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in the system's own terms; None when there is none (or it is a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return None
    except OSError:
        return None
    else:
        # The command's name may hold blanks and parentheses; the fields begin after the last one (proc(5)).
        fields = text.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "alive"
    return "alive"


def holder(host: str, pid: int) -> str:
    """Who has a run, in words."""
    return f"process {pid} on {host.partition(':')[0] or 'this machine'}"
