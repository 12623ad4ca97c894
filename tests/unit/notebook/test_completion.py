"""What Tab offers inside texts, and that IPython asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import dipeo_nb as dp
from dipeo_nb.notebook import tab
from dipeo_nb.notebook.completion import DIPEO_WORDS, complete
from dipeo_nb.notebook.magics import DipeoMagics

DIAGRAM = """
version: light
metadata: {name: Say}
persons: {Anna: {service: echo}}
nodes:
- {label: Start, type: start}
- {label: Write it, type: person_job, person: Anna, default_prompt: Hi}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Write it}
- {from: Write it, to: End}
"""


@pytest.fixture
def names(tmp_path: Path) -> Iterator[dict[str, Any]]:
    (tmp_path / "say.light.yaml").write_text(DIAGRAM)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other.light.yaml").write_text(DIAGRAM)
    with dp.override_settings(base_dir=tmp_path):
        result = dp.run("say", view=False)
        asking = dp.load(
            DIAGRAM.replace("label: Write it, type: person_job", "label: Colour, type: user_response").replace(
                "Write it", "Colour"
            )
        )
        yield {"d": dp.load("say"), "asking": asking, "r": result, "run": result.run, "dp": dp, "number": 5}


OFFERED = [
    ('r.node("', ["Start", "Write it", "End"]),
    ("run.node('W", ["Write it"]),
    ('x = r.run.node("E', ["End"]),
    ('number.node("', []),
    ('r.outputs["', ["End"]),
    ('run.fork(at="W', ["Write it"]),
    ('dp.fork(run, at="W', ["Write it"]),
    ('dp.fork(run, model="x", at="W', ["Write it"]),
    ('dp.load("', ["deep/other.light.yaml", "say.light.yaml", "demo:debate", "demo:slogan"]),
    ('dp.run("s', ["say.light.yaml"]),
    ('dp.run(d, model="ec', ["echo"]),
    ('dp.llm("anth', ["anthropic"]),
    ('dp.chat("Hi", model="local:', ["local:smollm2-135m"]),
    ('d.set("nodes.Write it.default', ["nodes.Write it.default_prompt"]),
    ('d.set("persons.Anna.mo', ["persons.Anna.model"]),
    ('run.fork(set={"persons.Anna.ser', ["persons.Anna.service"]),
    ('run.fork(set={"name": "x", "persons.Anna.ser', ["persons.Anna.service"]),
    ('dp.run(asking, model="echo", answers={"', ["Colour"]),
    ('dp.start(asking, answers={"Colour": "grey", "', ["Colour"]),
    ('dp.run(d, answers={"', []),
    ('dp.runs(status="fa', ["failed"]),
    ('dp.runs(5, status="inter', ["interrupted"]),
    ('dp.load("say", format="li', ["light"]),
    ('d.save("x.json", format="na', ["native"]),
    ('dp.chat("Hi", reasoning="mi', ["minimal"]),
    ("%dipeo ", list(DIPEO_WORDS)),
    ("%dipeo keys d", ["delete"]),
    ("%%prompt --m", ["--model", "--max-tokens"]),
    ("%%prompt --system 'x' --model ec", ["echo"]),
]


@pytest.mark.parametrize("at", range(len(OFFERED)))
def test_what_is_offered(names: dict[str, Any], at: int):
    """Labels, diagrams, models, paths and words of magics, each where it can stand."""
    line, expected = OFFERED[at]
    found = complete(line, names)
    assert found is not None
    assert found[1] == expected
    assert all(word.startswith(found[0]) for word in found[1])
    assert len(OFFERED) == 29


@pytest.mark.parametrize("line", ['dp.open_run("', 'dp.resume("exec_', 'dp.diff(run, "', "%dipeo replay "])
def test_ids_of_runs_are_offered(names: dict[str, Any], line: str):
    """Wherever a run is named."""
    found = complete(line, names)
    assert found is not None
    assert found[1] == [names["run"].id]


@pytest.mark.parametrize("line", ['print("', "x = 5", 'f(models="', "", '"a" + r.node('])
def test_elsewhere_nothing_is_offered(names: dict[str, Any], line: str):
    """Other texts are none of our business."""
    assert complete(line, names) is None


def test_all_words_of_the_magic_are_known():
    """The words offered are those that `%dipeo` takes."""
    documented = DipeoMagics.dipeo.__doc__ or ""
    assert all(f"%dipeo {word}" in documented for word in DIPEO_WORDS)


def test_ipython_asks(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """The matcher is registered once, and its words replace nothing but what was typed."""
    shell = InteractiveShell(user_ns={**names})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    before = len(shell.Completer.custom_matchers)
    tab.register_here()
    tab.register_here()
    assert len(shell.Completer.custom_matchers) == before + 1
    line = 'r.node("Wr'
    with provisionalcompleter():
        (found,) = shell.Completer.completions(line, len(line))
    assert (found.text, line[found.start : found.end]) == ("Write it", "Wr")
