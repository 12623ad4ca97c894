"""`dipeo-nb doctor`: check what runs and notebooks need."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.request import getproxies

import typer

from dipeo_nb.cli.arguments import settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.options import AsJson, BaseDir
from dipeo_nb.common.http_environment import usable_environment
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.text import visible_json
from dipeo_nb.common.values import json_text
from dipeo_nb.config import Settings, without_password
from dipeo_nb.container import run_store
from dipeo_nb.errors import DipeoError
from dipeo_nb.llm import catalogue, model_store
from dipeo_nb.security.folder_settings import pending_settings
from dipeo_nb.security.keys import APIKeyChain
from dipeo_nb.terminal import new_console, new_table, safe

app: typer.Typer = typer.Typer()

Verdict = Literal["ok", "note", "problem"]
ENOUGH_DISK = 1_000_000_000
"""Bytes below which there is a note."""
LITTLE_DISK = 50_000_000
"""Bytes below which runs may not be recorded."""
WIDGETS = ("anywidget", "@jupyter-widgets/jupyterlab-manager")
"""Extensions of JupyterLab that the live view needs."""


class Finding(NamedTuple):
    """The result of one check."""

    what: str
    verdict: Verdict
    found: str
    fix: str = ""
    """The next action; empty if there is none."""


@app.command()
def doctor(as_json: AsJson = False, base_dir: BaseDir = None) -> int:
    """Check the installation: Python, extras, key names, models, Jupyter, stores, disk, proxy. Exit code 1: there is a problem.

    It contacts no server except a run store that is a database and an Ollama server on this machine, and writes nothing.
    """
    settings = settings_for(base_dir)
    findings = [found for check in CHECKS for found in _findings(check, settings)]
    bad = any(found.verdict == "problem" for found in findings)
    if as_json:
        print(visible_json(json_text({"ok": not bad, "findings": [found._asdict() for found in findings]})))
    else:
        table = new_table("", "what", "about", "fix")
        for found in findings:
            table.add_row(*(safe(text, 300) for text in (found.verdict, found.what, found.found, found.fix)))
        new_console(stderr=False).print(table)
    return ExitCode.FAILED if bad else ExitCode.DONE


def _findings(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    try:
        return list(check(settings))
    except (DipeoError, OSError) as error:
        message = error.message if isinstance(error, DipeoError) else str(error)
        return [
            Finding(check.__name__.removeprefix("_").replace("_", " "), "problem", message, getattr(error, "hint", None) or "")
        ]


def _python(settings: Settings) -> Iterator[Finding]:
    running = f"{platform.python_version()} at {sys.executable}; dipeo-nb {metadata.version('dipeo-nb')} at {Path(__file__).parents[1]}"
    yield Finding("python", "ok", running)  # the package cannot be installed with an older one than it needs


def _extras(settings: Settings) -> Iterator[Finding]:
    missing: dict[str, list[str]] = {}
    for requirement in metadata.requires("dipeo-nb") or ():
        named, wanted = re.match(r"[\w.-]++", requirement), re.search(r"\bextra == ['\"]([\w-]++)['\"]", requirement)
        if named is None or wanted is None or wanted[1] in ("all", "test", "bench", "dev"):
            continue
        try:
            metadata.version(named[0])
            missing.setdefault(wanted[1], [])
        except metadata.PackageNotFoundError:
            missing.setdefault(wanted[1], []).append(named[0])
    here = [extra for extra, packages in missing.items() if not packages]
    absent = [extra for extra, packages in missing.items() if packages]
    fix = f'pip install "dipeo-nb[{absent[0]}]" adds one' if absent else ""
    said = f"installed: {', '.join(here) or 'none'}" + (f"; not: {', '.join(absent)}" if absent else "")
    yield Finding("extras", "note" if absent else "ok", said, fix)


def _settings(settings: Settings) -> Iterator[Finding]:
    waiting = pending_settings(settings.folder, settings=settings)
    if waiting:
        names = ", ".join(setting.variable for setting in waiting)
        yield Finding(
            "settings",
            "note",
            f"{settings.folder} suggests {names}, which need your approval",
            "dipeo-nb trust --list . shows them; dipeo-nb trust . approves them",
        )
    else:
        yield Finding("settings", "ok", f"base directory {settings.base_dir}")


def _keys(settings: Settings) -> Iterator[Finding]:
    chain = APIKeyChain.of(settings)
    rows = run_sync(chain.list_api_keys())
    names = sorted({str(row["service"]) for row in rows})
    if names:
        yield Finding("keys", "ok", ", ".join(names))
    else:
        yield Finding("keys", "note", "none; echo, local and ollama need none", "dipeo-nb keys set openai")


def _models(settings: Settings) -> Iterator[Finding]:
    rows = run_sync(catalogue.services(settings, APIKeyChain.of(settings)))
    ready = [row.service for row in rows if row.ready]
    yield Finding("models", "ok", f"ready: {', '.join(ready)}", "dipeo-nb models says what the others need")
    if settings.waits("default_llm_model"):
        yield Finding("default model", "note", f"{settings.peek('default_llm_model')} needs your approval", "dipeo-nb trust .")
    else:
        service, model = catalogue.named(None, settings)
        row = next((row for row in rows if row.service == service), None)
        fine = row is None or row.ready
        fix = "" if fine or row is None else f"{row.why_not}; or name another: --model, default_llm_model in dipeo.toml"
        yield Finding("default model", "ok" if fine else "note", f"{service}:{model}" if model else service, fix)


def _local_model(settings: Settings) -> Iterator[Finding]:
    engine = importlib.util.find_spec("xllamacpp") is not None
    if not engine:
        yield Finding("local model", "note", "the engine is not installed", 'pip install "dipeo-nb[local]"')
        return
    name = settings.peek("local_model")
    rows = {row.name: row.path for row in model_store.list_models(settings)}
    path = rows[name] if name in rows else Path(name)
    if path is not None and path.is_file():
        yield Finding("local model", "ok", f"{name} at {path}")
    elif name in rows:
        yield Finding(
            "local model", "note", f"{name} is not downloaded yet; the first run downloads it", "dipeo-nb models pull"
        )
    else:
        yield Finding(
            "local model", "problem", f"{name} is not a file", "dipeo-nb models list shows the models that can be downloaded"
        )


def _jupyter(settings: Settings) -> Iterator[Finding]:
    if importlib.util.find_spec("jupyterlab") is None:
        yield Finding(
            "jupyter", "note", "JupyterLab is not installed here", 'pip install "dipeo-nb[lab]", or the VS Code extension'
        )
        return
    from jupyter_core.paths import jupyter_path

    folders = [Path(folder) for folder in jupyter_path("labextensions")]
    absent = [name for name in WIDGETS if not any((folder / name / "package.json").is_file() for folder in folders)]
    version = metadata.version("jupyterlab")
    if absent:
        yield Finding("jupyter", "problem", f"JupyterLab {version} lacks {', '.join(absent)}: live views stay empty",
            "pip install --force-reinstall --no-deps anywidget ipywidgets jupyterlab_widgets, in Jupyter's own environment")  # fmt: skip
    else:
        yield Finding("jupyter", "ok", f"JupyterLab {version} with the extensions of the live view")


def _run_store(settings: Settings) -> Iterator[Finding]:
    place = settings.run_store
    if place is None:
        yield Finding("run store", "note", "in memory only: runs are lost at exit", "unset STATE_STORE_PATH to keep them")
    elif isinstance(place, Path) and not place.exists():
        yield _writable("run store", place)
    else:

        async def look() -> None:
            store = run_store(settings)
            await store.initialize()
            try:
                await store.runs(limit=1)
            finally:
                await store.cleanup()

        run_sync(look())
        yield Finding("run store", "ok", without_password(str(place)))


def _folders(settings: Settings) -> Iterator[Finding]:
    yield _writable("base directory", settings.base_dir)
    yield _writable("your data", settings.data_dir)
    yield _writable("cache", settings.cache_dir)


def _writable(what: str, place: Path) -> Finding:
    """Whether a file or folder can be created or changed, judged by permissions alone."""
    nearest = next(folder for folder in (place, *place.parents) if folder.exists())
    if os.access(nearest, os.W_OK | (os.X_OK if nearest.is_dir() else 0)):
        return Finding(what, "ok", str(place))
    return Finding(
        what, "problem", f"{nearest} is not writable", "change its permissions, or choose another folder (docs/settings.md)"
    )


def _disk(settings: Settings) -> Iterator[Finding]:
    free = shutil.disk_usage(settings.base_dir).free
    verdict: Verdict = "ok" if free >= ENOUGH_DISK else "note" if free >= LITTLE_DISK else "problem"
    fix = "" if verdict == "ok" else "dipeo-nb runs prune --older-than 30d deletes old runs"
    yield Finding("disk", verdict, f"{free / 1e9:.1f} GB free in {settings.base_dir}", fix)


def _proxy(settings: Settings) -> Iterator[Finding]:
    import httpx  # slow to load

    with usable_environment():
        httpx.Client().close()
    found = {name: url if "://" in url else f"http://{url}" for name, url in getproxies().items() if name != "no"}
    proxies = {name: without_password(url) for name, url in found.items()}
    said = ", ".join(f"{name}: {url}" for name, url in sorted(proxies.items()))
    yield Finding("proxy", "ok", said or "none")


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _python, _extras, _settings, _keys, _models, _local_model, _jupyter, _run_store, _folders, _disk, _proxy,
)  # fmt: skip
