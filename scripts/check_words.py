"""Finds words and phrases that our English does not use, in code, comments and messages of the package.

python scripts/check_words.py           exits with 1 when there is one
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "dipeo_nb"
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


def found(folder: Path) -> Iterator[tuple[Path, int, str, str]]:
    """(file, line, phrase, what to write instead) of every phrase in a folder's modules."""
    for file in sorted(folder.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        hits = [(match, instead) for pattern, instead in PHRASES.items() for match in re.finditer(pattern, text)]
        for match, instead in sorted(hits, key=lambda hit: hit[0].start()):
            yield file, text.count("\n", 0, match.start()) + 1, match[0].strip(), instead


def main() -> int:
    phrases = list(found(PACKAGE))
    for file, number, phrase, instead in phrases:
        print(f"{file.relative_to(PACKAGE.parent)}:{number}: '{phrase}': write {instead}")
    return 1 if phrases else 0


if __name__ == "__main__":
    sys.exit(main())
