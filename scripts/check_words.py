"""Finds words and phrases that our English does not use, in code, comments and messages of the package.

    python scripts/check_words.py           rooms that are clean: exits with 1 when a phrase is in one
    python scripts/check_words.py --all     every room, with the number of phrases in each
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "dipeo_nb"
CLEAN = (
    "__init__", "__main__", "application", "cli", "codegen", "common", "config", "container",
    "database", "diagram", "dipeo_words", "domain", "errors", "events", "infrastructure", "integrations", "llm", "mixins", "notebook", "runtime",
    "security", "server", "shared", "storage", "terminal", "testing", "workers",
)  # fmt: skip
"""Rooms (folders or modules of the package) in which no phrase is left. Add a room when its last one goes; none may leave."""
PHRASES = {
    r"(?<!there )(?<!There )\b(?:is|are|was|were) no (?!longer|more\b|less\b|different|matter\b)": "is not a …",
    r"\b[Mm]end(?:s|ed|ing)?\b": "fix",
    r"\b(?:told|heard)\b": "notified, reported, passed, described",
    r"\b(?:goes|gone|went) on\b": "continues, resumed, kept running",
    r"\b[Aa]s of `": "as for `…`, see `…`",
    r"\b(?:[Ww]hoever|[Ss]omebody else)\b": "the caller, another process, another user",
    r"\b(?:anew|dearer|for want of)\b": "again, more expensive, without",
    r"\bfor ever\b": "forever",
    r"\bSay (?:e\.g\.|--)": "Use e.g. …, Use --…",
    r"\bslip of the pen\b": "typo",
    r"§|\b(?:diagram|infra)-spec\b|\b(?:architecture|jupyter|trust|style|rivals)\.md\b": "a document that is in the repository",
}
"""Pattern → what to write instead."""


def found(room: Path) -> Iterator[tuple[Path, int, str, str]]:
    """(file, line, phrase, what to write instead) of every phrase in a room."""
    for file in [room] if room.suffix == ".py" else sorted(room.rglob("*.py")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            for pattern, instead in PHRASES.items():
                for match in re.finditer(pattern, line):
                    yield file, number, match[0].strip(), instead


def rooms() -> dict[str, Path]:
    """Every room of the package by its name."""
    return {
        path.stem: path
        for path in sorted(PACKAGE.iterdir())
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
    }


def main() -> int:
    everything = "--all" in sys.argv[1:]
    wrong = 0
    for name, room in rooms().items():
        if not everything and name not in CLEAN:
            continue
        count = 0
        for file, number, phrase, instead in found(room):
            print(f"{file.relative_to(PACKAGE.parent)}:{number}: '{phrase}': write {instead}")
            count += 1
        wrong += count if name in CLEAN else 0
        if everything:
            print(f"{name}: {count}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
