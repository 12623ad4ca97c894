"""Words of DiPeO's own command line: what means the same here is translated, for the rest there is a line of advice."""

from __future__ import annotations

import re
from collections.abc import Sequence

FORMAT_FLAGS = ("--light", "--native", "--readable", "--executable")
"""Short for `--format light` and so on."""
RENAMED = {"--from-format": "--format", "--stdin": "-"}
ADVICE = {
    "--timing": "Every run records its times: see `dipeo-nb explain RUN` afterwards.",
    "--background": "`dipeo-nb serve` runs diagrams in the background; or put `&` behind the command.",
    "--simple": "Say --quiet.",
    "--verbose": "Progress is shown unless --quiet is given; `dipeo-nb --debug COMMAND` shows tracebacks.",
    "--check-only": "`dipeo-nb validate` never runs anything.",
    "--push-as": "Diagrams are files here: save it below the base directory and run it by name.",
    "--breakdown": "`dipeo-nb explain RUN` shows every node.",
    "--latest": "`dipeo-nb runs -n 1` shows the newest run.",
    "compile": "Say `dipeo-nb validate FILE`, with --json for tools.",
    "results": "Say `dipeo-nb runs`, and `dipeo-nb export RUN -o FILE.json`.",
    "metrics": "Say `dipeo-nb explain RUN`.",
    "stats": "Say `dipeo-nb validate FILE --json`.",
    "list": "Say `dipeo-nb runs` for runs.",
    "monitor": "A run shows itself while it goes on; `dipeo-nb serve` shows it to others.",
    "ask": "Diagrams are not made from words here; `dipeo-nb demo` shows one.",
}
"""Option or command → what to say here instead."""


def translated(arguments: Sequence[str]) -> list[str]:
    """The arguments in our words; `--debug` may stand anywhere. What follows `--` stays."""
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    words: list[str] = []
    for word in given[:end]:
        if word in FORMAT_FLAGS:
            words += ["--format", word.removeprefix("--")]
        else:
            name, equals, value = word.partition("=")
            words.append(RENAMED.get(name, name) + equals + value if name in RENAMED else word)
    if "--debug" in words[1:]:
        words = ["--debug", *(w for w in words if w != "--debug")]
    return words + given[end:]


def advice(message: str) -> str | None:
    """What to say instead of the option or command that the parser did not know."""
    found = re.search(r"No such (?:option: |command ')([\w-]+)", message)
    return ADVICE.get(found[1]) if found else None
