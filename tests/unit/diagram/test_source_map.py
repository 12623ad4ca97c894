"""Places in a text are the same whether only its beginning was read for them or all of it."""

from __future__ import annotations

import pytest

from dipeo_nb.diagram import yaml_reader
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.diagram.spans import SourceSpan
from dipeo_nb.diagram.yaml_reader import yaml_spans

TEXTS = {
    "persons first": "version: light\npersons:\n  Ada: {model: a}\n  Bob:\n    model: b\nnodes:\n- {label: Start}\n",
    "persons last": "nodes:\n- {label: Start}\n- label: End\npersons:\n  Ada: {model: a}\n",
    "flow style": "{version: light, persons: {Ada: {model: a}}, nodes: [{label: Start}]}",
    "aliases": "x: &x {model: a}\npersons:\n  Ada: *x\n  Bob:\n    <<: *x\n    model: b\nnodes: []\n",
    "an alias": "x: &x\n  Ada: {model: a}\npersons: *x\nnodes:\n- {label: Start}\n",
    "nested keys of that name": "a:\n  persons:\n    Ada: {model: z}\npersons:\n  Ada: {model: a}\n",
    "a value of that name": "a: persons\nb: [persons, {c: persons}]\npersons:\n  Ada: {model: a}\n",
    "nothing under it": "persons:\nnodes:\n- {label: Start}\n",
    "no persons": "\ufeffnodes:\n- {label: Start}\n",
    "a list": "- persons\n- {persons: {Ada: 1}}\n- 3\n",
}


def paths(span: SourceSpan | None) -> list[tuple[str | int, ...]]:
    """All paths below a span, its own among them."""
    items = span.items if span else None
    inner = items.items() if isinstance(items, dict) else enumerate(items or ())
    return [(), *((step, *rest) for step, at in inner for rest in paths(at if isinstance(at, SourceSpan) else at[1]))]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_places_do_not_depend_on_what_was_read(text: str) -> None:
    whole = SourceMap(text)
    every = [*paths(whole.root), ("persons",), ("persons", "Ada", "model"), ("persons", "nobody"), ("nodes", 7)]
    for path in every:
        fresh = SourceMap(text)
        assert fresh.place(*path) == whole.place(*path)
        assert [fresh.place(*other) for other in every] == [whole.place(*other) for other in every]
        assert fresh.duplicates() == whole.duplicates() == []


def test_what_comes_after_the_persons_is_not_read_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning about a model, which most diagrams have sooner or later, does not read a long diagram a second time."""
    text = TEXTS["persons first"] + "".join(f"- {{label: N{n}}}\n" for n in range(1000))
    events = 0
    parser = yaml_reader._EventParser

    class Counting(parser):
        def get_event(self) -> object:
            nonlocal events
            events += 1
            return super().get_event()

    monkeypatch.setattr(yaml_reader, "_EventParser", Counting)
    assert SourceMap(text).place("persons", "Bob", "model") == (5, 5)
    assert events < 30
    yaml_spans(text)
    assert events > 4000
