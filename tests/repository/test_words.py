"""Words that our English does not use (scripts/check_words.py): none in rooms that are clean, and no more than listed in the others."""

from __future__ import annotations

import pytest

from scripts import check_words
from tests.support.source_tree import PACKAGE

LEFT = {
    "execution": 19,
}  # fmt: skip
"""Room → phrases that are left in it. The numbers may only shrink; a room without any moves to `check_words.CLEAN`."""
ROOMS = check_words.rooms()


@pytest.mark.parametrize("room", ROOMS)
def test_words(room: str) -> None:
    phrases = [f"{file.relative_to(PACKAGE)}:{line}: '{phrase}': write {instead}" for file, line, phrase, instead in check_words.found(ROOMS[room])]
    if room in check_words.CLEAN:
        assert not phrases
    else:
        assert len(phrases) <= LEFT.get(room, 0), phrases
        assert phrases or room not in LEFT, "nothing is left here: take the room off the list, and add it to CLEAN"


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("'x' is no number", "is no"),
        ("keys that are no text", "are no"),
        ("There is no file 'x', and there are no others; it is no longer there", None),
        ("is no more than one", None),
        ("Mend the condition", "Mend"),
        ("mend it", "mend"),
        ("the bus is told", "told"),
        ("options as of `start`", "as of `"),
        ("as of today", None),
        ("(diagram-spec §2.2)", "diagram-spec"),
        ("§2.2", "§"),
        ("waits for ever", "for ever"),
        ("the run goes on", "goes on"),
        ("Say --to light", "Say --"),
    ],
)
def test_phrases(line: str, phrase: str | None, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("room") / "module.py"
    file.write_text(f"# {line}\n", encoding="utf-8")
    assert [found for _, _, found, _ in check_words.found(file)][:1] == ([phrase] if phrase else [])
