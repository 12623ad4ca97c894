"""What is different between two golden files, in a few readable lines."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

SHOWN_CASES, SHOWN_LINES = 5, 12
"""Of a difference."""
AROUND = 60
"""Characters that are shown before and after what differs in a long line."""
NEXT = "Is it meant? Write the goldens anew with `make golden`, and look at `git diff tests/golden` before you commit it."


def split(text: str) -> dict[str, list[str]]:
    """Case → its lines."""
    cases: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("== "):
            lines = cases[line[3:]] = []
        else:
            lines.append(line)
    return cases


def difference(name: str, expected: str, found: str) -> str:
    """What to tell whoever changed the behaviour; empty when nothing is different."""
    if expected == found:
        return ""
    before, after = split(expected), split(found)
    changed = [case for case in before | after if before.get(case) != after.get(case)]
    lines = [f"{len(changed)} of {len(before | after)} cases of tests/golden/{name}.txt are different (- expected, + found):"]
    for case in changed[:SHOWN_CASES]:
        lines.append(f"== {case}")
        if case not in before or case not in after:
            lines.append("  is new" if case in after else "  is missing")
            continue
        changes = list(_changes(before[case], after[case]))
        lines += changes[:SHOWN_LINES]
        if len(changes) > SHOWN_LINES:
            lines.append(f"  … {len(changes) - SHOWN_LINES} more lines")
    if len(changed) > SHOWN_CASES:
        lines.append(f"… and {len(changed) - SHOWN_CASES} more cases")
    if not changed:
        lines.append("The order of the cases, or the end of the file.")
    return "\n".join([*lines, NEXT])


def _changes(before: list[str], after: list[str]) -> Iterator[str]:
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        old, new = before[a:b], after[c:d]
        for i in range(max(len(old), len(new))):
            if i < len(old) and i < len(new):
                yield from _change(old[i], new[i])
            else:
                yield f"- {_cut(old[i])}" if i < len(old) else f"+ {_cut(new[i])}"


def _change(old: str, new: str) -> Iterator[str]:
    """A pair of lines, cut down to where they differ."""
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = min(len(old), len(new)) - start
    same = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    for sign, line in (("-", old), ("+", new)):
        left, right = max(0, start - AROUND), min(len(line), len(line) - same + AROUND)
        if left < 20:
            left = 0
        yield f"{sign} {'…' if left else ''}{_cut(line[left:right], 3 * AROUND)}{'…' if right < len(line) else ''}"


def _cut(line: str, limit: int = 160) -> str:
    return line if len(line) <= limit else f"{line[:limit]}…"
