"""DiPeO's own command line: what means the same here is translated, for the rest there is a line of advice."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dipeo_nb.errors import ValidationError

FORMAT_FLAGS = ("--light", "--native", "--readable", "--executable")
"""Short for `--format light` and so on."""
OPTIONS = {"--from-format": "--format", "--stdin": "-"}
COMMANDS = {"compile": "validate", "stats": "validate", "metrics": "explain", "results": "export"}
"""DiPeO's command → ours that does the same."""
ADVICE = {
    "--timing": "Every run records its times: see `dipeo-nb explain RUN` afterwards.",
    "--background": "`dipeo-nb serve` runs diagrams in the background; or put `&` after the command.",
    "--simple": "Use --quiet.",
    "--verbose": "Progress is shown unless --quiet is given; `dipeo-nb --debug COMMAND` shows tracebacks.",
    "--check-only": "`dipeo-nb validate` never runs anything.",
    "--push-as": "Diagrams are files here: save it below the base directory and run it by name.",
    "--breakdown": "`dipeo-nb explain RUN` shows every node.",
    "--latest": "`dipeo-nb runs -n 1` shows the newest run.",
    "monitor": "A run is shown while it runs; `dipeo-nb serve` shows it to others.",
    "ask": "Diagrams are not generated from a description here; `dipeo-nb init` writes one to start from.",
}
"""Option or command → what to use here instead."""


def translated(arguments: Sequence[str]) -> list[str]:
    """The arguments in our words; `--debug` may stand anywhere. What follows `--` stays.

    Raises:
        ValidationError: a diagram is to be exported as a Python script.
    """
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    command = next((i for i, word in enumerate(given[:end]) if not word.startswith("-")), None)
    if command is not None and given[command] in COMMANDS:
        given[command] = COMMANDS[given[command]]
    if command is not None and given[command] == "export" and any(word.endswith(".py") for word in given[command:end]):
        _refuse_script(given[command + 1 : end])
    words: list[str] = []
    for word in given[:end]:
        if word in FORMAT_FLAGS:
            words += ["--format", word.removeprefix("--")]
        else:
            name, equals, value = word.partition("=")
            words.append(OPTIONS.get(name, name) + equals + value if name in OPTIONS else word)
    if "--debug" in words[1:]:
        words = ["--debug", *(w for w in words if w != "--debug")]
    return words + given[end:]


def _refuse_script(arguments: Sequence[str]) -> None:
    name = next((word for word in arguments if not word.startswith("-") and not word.endswith(".py")), "FILE")
    raise ValidationError(
        "Diagrams are not exported as Python scripts.",
        hint=f'A script runs the diagram itself: import dipeo_nb as dp; dp.run("{name}").',
    )


def advice(message: str) -> str | None:
    """What to use instead of the option or command that the parser does not know."""
    found = re.search(r"No such (?:option: |command ')([\w-]+)", message)
    return ADVICE.get(found[1]) if found else None
