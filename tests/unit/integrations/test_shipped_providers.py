"""The manifests that come with the package: the request of every operation, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.providers import NAMES, REGISTRY, requests, written

GOLDEN = Path(__file__).parents[2] / "golden" / "providers.json"


def test_every_request_is_the_golden_one():
    """`make golden` writes the file anew."""
    made, golden = json.loads(written()), json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert made.keys() == golden.keys()
    for name, found in made.items():
        assert found == golden[name], name


def test_there_are_as_many_as_promised():
    assert len(requests()) == 80
    assert len(NAMES) == 12


@pytest.mark.parametrize("name", NAMES)
def test_every_manifest_says_what_it_is(name: str):
    found = REGISTRY.find(name)
    assert found is not None
    manifest = found.manifest
    assert manifest.name == name
    assert manifest.title
    assert manifest.description
    assert all(operation.description for operation in manifest.operations.values())
    hooks = REGISTRY.hooks(found)
    for operation in manifest.operations.values():
        for hook in (operation.before, operation.after, operation.steps):
            assert hook is None or callable(getattr(hooks, hook))
