#!/usr/bin/env python3
"""Compare dipeo_nb/domain/lifecycle.toml with what the installed SDKs say about the ends of models: `make constraints`.

The SDKs of OpenAI and Anthropic name dates, the price list names models that are deprecated. Exit status 1 when one of them knows
something that the table does not: look it up on the provider's page, and add it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dipeo_nb.domain.lifecycle import row_of, table

PRICED = {"openai": "openai", "anthropic": "anthropic", "google": "gemini"}
"""Provider of the price list → service."""


def main() -> int:
    said = [*openai(), *anthropic()]
    wrong = [
        f"{s}: {m} ends on {d}, the table says {r.ends if r else 'nothing'}"
        for s, m, d in said
        if (r := row_of(s, m)) is None or r.ends != d
    ]
    wrong += [f"{s}: {m} is deprecated in the price list, the table says nothing" for s, m in priced() if not known(s, m)]
    for line in wrong:
        print(line)
    print(f"{len(said)} dates of the SDKs compared with the table")
    return 1 if wrong else 0


def openai() -> Iterator[tuple[str, str, date]]:
    """What the docstrings of the SDK's lists of models say."""
    import openai.types

    folder = Path(openai.types.__file__).parent
    for name in ("shared/chat_model.py", "responses/response_compact_params.py", "realtime/realtime_session_create_request.py"):
        text = re.sub(r"\s+", " ", (folder / name).read_text(encoding="utf-8"))
        for models, day in re.findall(r"- ((?:\"[\w.-]+\",? ?)+): Announced shutdown date: (\d{4}-\d\d-\d\d)", text):
            for model in re.findall(r"\"([\w.-]+)\"", models):
                yield "openai", model, date.fromisoformat(day)


def anthropic() -> Iterator[tuple[str, str, date]]:
    """What the SDK warns of."""
    from anthropic.resources.messages.messages import DEPRECATED_MODELS

    for model, day in DEPRECATED_MODELS.items():
        plain = re.sub(r"(?<=\d)(st|nd|rd|th)", "", day)
        yield "anthropic", model, datetime.strptime(plain, "%B %d, %Y").replace(tzinfo=UTC).date()


def priced() -> Iterator[tuple[str, str]]:
    from genai_prices.data import providers

    for provider in providers:
        if provider.id in PRICED:
            yield from ((PRICED[provider.id], model.id) for model in provider.models if model.deprecated)


def known(service: str, model: str) -> bool:
    """Whether the table has that model, or versions of it (the price list names families)."""
    return any(name.startswith(model) for name in table(service))


if __name__ == "__main__":
    sys.exit(main())
