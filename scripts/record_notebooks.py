"""Make the recordings of notebooks/02_llm.ipynb anew: `make record`.

Scripted servers on the loopback stand in for the providers, the notebook runs against them with DIPEO_LLM_MODE=record, then
once more with DIPEO_LLM_MODE=replay and no server at all. Between the two, the recordings get the addresses that a reader
has who sets nothing, and the list prices. Only when both runs succeed do they replace the old ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for `tests`: the servers are those that the clients are tested with

from dipeo_nb.common.root import Root  # noqa: E402
from dipeo_nb.config import get_settings, ollama_address  # noqa: E402
from dipeo_nb.domain.chat import TokenUsage  # noqa: E402
from dipeo_nb.llm.cassette import name_of, read, written  # noqa: E402
from dipeo_nb.llm.pricing import cost_usd  # noqa: E402
from tests.support.wire_openai import Call  # noqa: E402
from tests.support.wire_protocols import WIRES  # noqa: E402

NOTEBOOK = ROOT / "notebooks" / "02_llm.ipynb"
RECORDINGS = ROOT / "notebooks" / "recordings" / "02_llm"
KEY = "a-key-for-the-loopback-only"
VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    "anthropic": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),  # Claude Code reads them, too
    "gemini": ("GOOGLE_BASE_URL", "GOOGLE_API_KEY"),
    "ollama": ("OLLAMA_HOST", None),
}
"""Service → what names its server, and what holds its key."""
USUAL = {"ollama": ollama_address("")}
"""Addresses of a reader who sets nothing; those of the other services are not part of a request."""

ANSWERING = {"openai": "gpt-6-luna", "gemini": "gemini-3.5-flash-lite"}
"""Service → the model that is to have answered; the servers give names of their own."""

ROME = {"name": "Rome", "country": "Italy", "founded": -753}
WEATHER = [("call_1", "weather", {"city": "Rome"}), ("call_2", "weather", {"city": "Oslo"})]
SAID: Mapping[str, Any] = {
    "Tabs or spaces? One sentence.": "Spaces, because they look the same on **every** machine.",
    "Say hello in your own way.": {
        "openai": "Hello there! What shall we build today?",
        "anthropic": "Hello, and welcome. I am glad you are here.",
        "gemini": "Hi! Two stars rise to greet you.",
        "ollama": "Hey hey, from your own machine!",
    },
    "Count to five.": "One, two, three, four, five.",
    "A word for joy?": "Mirth",
    "A word for rain?": "Petrichor",
    "My cat is called Ada.": "What a fine name for a cat.",
    "What is my cat called?": "Ada.",
    "Is it warmer in Rome or in Oslo?": WEATHER,
    "sunny, 31 degrees": "In **Rome**: it has 31 degrees, Oslo only 12.",  # a result of the tool
    "Describe Rome.": json.dumps(ROME),
    "Capital of Italy?": "Rome",
    "Capital of Norway?": "Oslo",
    "Capital of Kenya?": "Nairobi",
    "Does P equal NP?": "Nobody knows; most people who work on it think not.",
    "Two lines about the sea.": "The sea keeps every secret it is told,\nand turns them over, green and gold.",
}
"""What is asked → what the servers say: a text, calls of tools, or a text for each service."""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        shutil.copytree(NOTEBOOK.parent, home / "notebooks", ignore=shutil.ignore_patterns("recordings", ".*"))
        made = home / "notebooks" / RECORDINGS.relative_to(NOTEBOOK.parent)
        with contextlib.ExitStack() as servers:
            addresses = {wire.service: address(servers, wire) for wire in WIRES if wire.service in VARIABLES}
            environment = {VARIABLES[service][0]: url for service, url in addresses.items()}
            keys = {key: KEY for _, key in VARIABLES.values() if key}
            execute(home, {**environment, **keys, "DIPEO_LLM_MODE": "record"})
        settle(made, {url: USUAL.get(service) for service, url in addresses.items()})
        execute(home, {"DIPEO_LLM_MODE": "replay"})
        shutil.rmtree(RECORDINGS, ignore_errors=True)
        shutil.copytree(made, RECORDINGS)
    size = sum(file.stat().st_size for file in RECORDINGS.iterdir())
    print(f"{RECORDINGS.relative_to(ROOT)}: {len(list(RECORDINGS.iterdir()))} recordings, {size / 1000:.0f} kB")


def address(servers: contextlib.ExitStack, wire: Any) -> str:
    """The address of a server that is started for one provider."""
    server = servers.enter_context(wire.server(lambda call: answer(wire, call)))
    return server.url.removesuffix("/v1") + wire.path


def answer(wire: Any, call: Call) -> None:
    """Say what the script has for the last thing that was asked."""
    body = json.dumps(call.seen.body, ensure_ascii=False)
    if call.seen.body.get("model") == "gpt-99":
        wire.refuses(404, "The model `gpt-99` does not exist.")(call)
        return
    places = {asked: body.rfind(asked) for asked in SAID}
    last = max(places, key=lambda asked: places[asked])
    said = SAID[last] if places[last] >= 0 else "ok"
    said = said[wire.service] if isinstance(said, dict) else said
    (wire.says(said) if isinstance(said, str) else wire.calls(said))(call)


def execute(home: Path, variables: Mapping[str, str]) -> None:
    """Run the copy of the notebook; its error, with the cell, is shown and ends the script."""
    theirs = ("DIPEO_", "OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_", "OLLAMA_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    ours |= {
        "DIPEO_CACHE_DIR": str(get_settings().cache_dir),
        "HOME": str(home),
        "CLAUDE_CONFIG_DIR": str(home / "claude"),
    }
    ours |= {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", **variables}
    print(f"Executing {NOTEBOOK.name} with DIPEO_LLM_MODE={variables['DIPEO_LLM_MODE']}")
    command = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        "--stdout",
        "--log-level=WARN",
        NOTEBOOK.name,
    ]
    done = subprocess.run(command, cwd=home / "notebooks", env=ours, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit("error: the notebook failed; the recordings are as they were.")
    shown = [o for c in json.loads(done.stdout)["cells"] for o in c.get("outputs", ()) if o.get("name") == "stdout"]
    print("".join(f"    {line}\n" for output in shown for line in "".join(output["text"]).splitlines()), end="")


def settle(folder: Path, addresses: Mapping[str, str | None]) -> None:
    """Give the recordings the usual addresses and, as they now stand for the providers themselves, the list prices."""
    root = Root(folder)
    for file in sorted(folder.iterdir()):
        request, answers = read(root, file.name)
        if request.get("base_url") in addresses:
            usual = addresses[request["base_url"]]
            request = {k: usual if k == "base_url" else v for k, v in request.items() if k != "base_url" or usual}
        for response in (a["response"] for a in answers if "response" in a):
            response["model"] = ANSWERING.get(response["provider"], response["model"])
            models = [
                response["model"],
                *([request.get("model", "")] if response["provider"] == request["service"] else []),
            ]
            usage = TokenUsage(**response.get("usage", {}))
            costs = (cost_usd(response["provider"], model, usage) for model in models)
            response.setdefault("cost_usd", next((cost for cost in costs if cost is not None), None))
        file.unlink()
        (folder / name_of(request)).write_bytes(written(request, answers))


if __name__ == "__main__":
    main()
