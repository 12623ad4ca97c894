"""Names that have moved within the package: importable where they were for one release, with a warning that says where they are."""

from __future__ import annotations

import ast
import asyncio
import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import LLMResponse
from dipeo_nb.errors import UserError
from dipeo_nb.llm.core.client import as_request
from dipeo_nb.runtime import Runtime
from tests.support.source_tree import FILES, PACKAGE


def _tables() -> Iterator[tuple[str, str, str]]:
    """(former module, name, module that has it, with `:NAME` when it has another name there) of every table of moved names."""
    for file in FILES:
        module = ".".join((PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "moved_names(" in text else ():
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "moved_names"
                and isinstance(node.args[1], ast.Dict)
            ):
                for name, home in ast.literal_eval(node.args[1]).items():
                    yield module, name, home


MOVED = list(_tables())


@pytest.mark.parametrize(("module", "name", "home"), MOVED, ids=[f"{module}.{name}" for module, name, _ in MOVED])
def test_a_moved_name_is_where_it_was(module: str, name: str, home: str) -> None:
    home, _, now = home.partition(":")
    with pytest.warns(DeprecationWarning, match=f"import {now or 'it'} from {home}"):
        found = getattr(importlib.import_module(module), name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found is getattr(importlib.import_module(home), now or name)


def test_all_tables_are_seen() -> None:
    assert len(MOVED) == 92


@pytest.mark.parametrize("module", sorted({module for module, _, _ in MOVED}))
def test_other_names_are_not_there(module: str) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = importlib.import_module(module).nothing


RENAMED = [
    ("dipeo_nb.domain.chat", "Rung", "OutputMode"),
    ("dipeo_nb.llm.cassette", "Answer", "RecordedAnswer"),
    ("dipeo_nb.llm.core.errors", "Caller", "ErrorContext"),
    ("dipeo_nb.llm.core.errors", "stainless", "map_sdk_error"),
    ("dipeo_nb.llm.core.errors", "translated", "translate_errors"),
    ("dipeo_nb.llm.output_modes", "laddered", "with_output_mode"),
    ("dipeo_nb.llm.output_modes", "unladdered", "parse_output"),
    ("dipeo_nb.llm.phases", "shaped", "apply_phase"),
    ("dipeo_nb.llm.streaming", "broken_off", "incomplete_stream_error"),
    ("dipeo_nb.llm.streaming", "collected", "collect"),
]


def test_the_former_name_of_the_output_mode() -> None:
    """As an attribute of answers, and as an option of requests: with a warning."""
    with pytest.warns(DeprecationWarning, match="output_mode"):
        assert LLMResponse("{}", "echo", "echo", output_mode="native").rung == "native"
    with pytest.warns(DeprecationWarning, match="output_mode"):
        assert as_request("Who?", service="echo", model="echo", rung="prompt").output_mode == "prompt"


def test_the_former_name_of_find_run(tmp_path: Path) -> None:
    async def go() -> None:
        async with Runtime(Settings(base_dir=tmp_path)) as runtime:
            with pytest.warns(DeprecationWarning, match="it is called find_run"), pytest.raises(UserError):
                await runtime.summary("nothing")

    asyncio.run(go())


@pytest.mark.parametrize("module", ["dipeo_nb.execution.state.memory", "dipeo_nb.security.memory"])
def test_a_module_that_has_moved_is_where_it_was(module: str) -> None:
    home = module.replace(".memory", ".in_memory")
    sys.modules.pop(module, None)
    with pytest.warns(DeprecationWarning, match=f"import {home}"):
        former = importlib.import_module(module)
    names = [name for name in vars(importlib.import_module(home)) if name.startswith("InMemory")]
    assert names
    assert all(getattr(former, name) is getattr(importlib.import_module(home), name) for name in names)


@pytest.mark.parametrize(("module", "former", "name"), RENAMED)
def test_a_renamed_name_is_still_there(module: str, former: str, name: str) -> None:
    """For one release, with a warning that says its new name."""
    home = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"it is called {name}"):
        assert getattr(home, former) is getattr(home, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = home.nothing
