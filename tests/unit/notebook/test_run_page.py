"""The page of a run: its modules as one, and what it is given of a run."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from dipeo_nb.domain.diagram import DomainDiagram, DomainNode
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution import run_page
from tests.support.js_engine import run_module

DECLARED = re.compile(r"^(?:async )?(?:function\*?|class|const|let|var) (\w+)", re.MULTILINE)


def entries() -> list[str]:
    """The modules that no other imports."""
    texts = {p.name: p.read_text(encoding="utf-8") for p in run_page.FOLDER.glob("*.js")}
    return [name for name in texts if not any(f'"./{name}"' in text for text in texts.values()) or name == "main.js"]


def test_a_module_stands_after_those_it_needs() -> None:
    modules = list(run_page.modules("main.js"))
    assert modules.index("fold.js") < modules.index("recording.js") < modules.index("main.js") == len(modules) - 1
    assert {name for entry in entries() for name in run_page.modules(entry)} == {p.name for p in run_page.FOLDER.glob("*.js")}


@pytest.mark.parametrize("entry", entries())
def test_no_two_modules_declare_the_same_name(entry: str) -> None:
    names = Counter(name for text in run_page.modules(entry).values() for name in DECLARED.findall(text))
    assert [name for name, times in names.items() if times > 1] == []
    assert names["createHistory" if "history" in entry else "createRunView"] == 1


def test_the_modules_as_one_are_a_module(tmp_path) -> None:
    script = run_page.script()
    assert not re.search(r"^import ", script, re.MULTILINE)
    assert re.findall(r"^export .*$", script, re.MULTILINE) == ["export { createRunView };"]
    assert run_module(f"{script}\nconst answer = (n) => [typeof createRunView, n];\n", 3, tmp_path) == ["function", 3]


def test_nothing_is_loaded_and_no_text_becomes_markup() -> None:
    script, styles = run_page.script(), run_page.styles()
    assert re.findall(r"https?://[^\s\"'`)]+", script.replace("http://www.w3.org/2000/svg", "")) == []
    assert re.findall(r"url\(|@import|@font-face", styles) == []
    assert (
        len(re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", script)) <= 1
    )  # the drawing, which Python has escaped


def test_the_head_of_a_run() -> None:
    diagram = DomainDiagram(
        (DomainNode("a b", "person_job", "Ann\x1b[2J", data={"person": "P", "default_prompt": "Say {{x}}"}),), ()
    )
    head = run_page.head_of("exec_1", diagram, name="Demo", budget=0.1, live=True, can=["stop"])
    assert head["nodes"] == {
        "a b": {"label": head["nodes"]["a b"]["label"], "type": "person_job", "person": "P", "prompt": "Say {{x}}"}
    }
    assert "\x1b" not in head["nodes"]["a b"]["label"]
    assert (head["ids"], head["can"], head["live"]) == ({"a b": "a b"}, ["stop"], True)
    assert 'data-node="a b"' in head["svg"]


def test_long_texts_of_events_are_cut_wherever_they_are() -> None:
    event = Event(3, EventType.NODE_COMPLETED, "r", 2.5, "n", {"output": {"a": ["x" * 12, "short"]}, "text": "y" * 11})
    [row] = run_page.rows([event], limit=10)
    assert row == [
        3,
        "node_completed",
        2.5,
        "n",
        {"output": {"a": [{"$cut": 12, "text": "x" * 10}, "short"]}, "text": {"$cut": 11, "text": "y" * 10}},
    ]


STRING = re.compile(r'"((?:[^"\\\n]|\\.)*+)"|`((?:[^`\\]|\\.)*+)`')
"""A literal of JavaScript; one in the placeholder of another is found when that one is searched."""
TECHNICAL = re.compile(
    r"(?:[.#:]?[\w-]*dp-|jp-|dipeo|data-|aria-|\[|:is\(|https?:|image/|application/|input, |button, |import |M[\d.-]|M1 |noopener|Bearer )"
    r"|[A-Z][a-z]+(?:[A-Z][a-z]+)*$|[^A-Za-z]*(?:px|%|deg)?$"
)
READ_BY_DEVELOPERS = ("console.info(",)


def texts_in(code: str) -> list[str]:
    """The literals of a module that read like words for people: several words, or one that begins a sentence."""
    found: list[str] = []
    for row in code.splitlines():
        bare = re.sub(r"(?:^|\s)(?://|/?\*).*", "", row)
        if bare.startswith("import ") or any(mark in bare for mark in READ_BY_DEVELOPERS):
            continue
        for double, template in STRING.findall(bare):
            words = re.sub(r"\$\{[^{}]*\}", " ", double or template)
            if re.search(r"[a-z]{2,} [a-z]{2,}|^[A-Z][a-z]+ |[a-z]…$|[a-z]\.$", words) and not TECHNICAL.match(words):
                found.append(double or template)
    return found


@pytest.mark.parametrize("module", sorted(p.name for p in run_page.FOLDER.glob("*.js") if p.name != "strings.js"))
def test_words_for_people_stand_in_one_table(module: str) -> None:
    """So that a translation finds all of them; `label`, `title` and text of an element come from it."""
    code = (run_page.FOLDER / module).read_text(encoding="utf-8")
    assert texts_in(code) == []
    named = re.findall(r'(?:"aria-label"|title|placeholder|label): "([^"]*)"', code)
    assert [text for text in named if re.search("[A-Za-z]{2}", text)] == []


def test_every_text_is_there_and_is_used() -> None:
    table = (run_page.FOLDER / "strings.js").read_text(encoding="utf-8")
    keys = re.findall(r'^  "([\w.]+)": ', table, re.MULTILINE)
    assert len(keys) == len(set(keys)) > 200
    code = "".join(p.read_text(encoding="utf-8") for p in run_page.FOLDER.glob("*.js") if p.name != "strings.js")
    asked = set(re.findall(r'\btr\("([\w]+\.[\w.]+|tok|note|cost|of|cancel|menu|show|taken|turns?|usage)"', code))
    families = set(re.findall(r"`(\w+)\.\$\{", code)) | {"one", "many"}
    assert asked <= set(keys)
    assert [key for key in keys if f'"{key}"' not in code and key.partition(".")[0] not in families] == []
