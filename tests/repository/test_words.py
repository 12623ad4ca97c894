"""Words that our English does not use (scripts/check_words.py): none in the package."""

from __future__ import annotations

import pytest

from scripts import check_words


def test_words() -> None:
    phrases = [
        f"{file.relative_to(check_words.PACKAGE)}:{line}: '{phrase}': write {instead}"
        for file, line, phrase, instead in check_words.found(check_words.PACKAGE)
    ]
    assert not phrases


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
    assert [found for _, _, found, _ in check_words.found(file.parent)][:1] == ([phrase] if phrase else [])
