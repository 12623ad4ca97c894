"""`Diagram`: loading, places, editing, saving, showing."""

from __future__ import annotations

import base64
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram import Diagram, from_model, load, load_text
from dipeo_nb.diagram.formats import FORMATS
from dipeo_nb.diagram.source import parse
from dipeo_nb.domain.diagram import DomainDiagram, DomainNode
from dipeo_nb.errors import StorageError, ValidationError
from tests.support.examples import examples

LIGHT = """# A debate
version: light   # the format
nodes:
  - label: Start
    type: start
    custom_data: {topic: cats, "n": 1}   # data
  - label: Judge Panel   # decides
    type: PERSON_JOB
    position: {x: 1, y: 2}
    # the prompt
    default_prompt: |
      Judge
      this: "well"

    person: Judge
    props:
      max_iteration: 3
  - {label: Check, type: condition, node_indices: [Judge Panel]}
  - label: End
    type: endpoint
    file_path: 'out.txt'
connections:
  - from: Start
    to: Judge Panel__first   # first
  - {from: Judge Panel, to: Check}
  - from: Check[condtrue]
    to: End
persons:
  Judge:   # the person
    service: openai
    model: gpt-5-nano
"""


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


# ----------------------------------------------------------------------------------------------------- loading


def test_what_can_be_loaded(tmp_path: Path) -> None:
    """A path, text of a path, YAML text, JSON text and plain data give the same model."""
    path = tmp_path / "debate.light.yaml"
    path.write_text(LIGHT)
    expected = load(path)
    data = yaml.safe_load(LIGHT)
    native = expected.to_text("native")
    for source in (str(path), LIGHT, data):
        assert load(source).model == expected.model
    assert load(native).format == "native"
    assert load("\ufeff" + native).model == load(native).model
    assert (expected.name, expected.path, expected.format) == ("debate", path, "light")
    assert load(LIGHT).name == "diagram"
    assert load("debate", base_dir=tmp_path).model == expected.model


def test_every_diagram_has_a_native_form_as_data() -> None:
    """It is what reading the native text gives; of a native text it is that text, also in YAML and behind a byte order mark."""
    diagram = load(LIGHT)
    native = diagram.to_text("native")
    assert diagram.to_data() == json.loads(native) == load(native).to_data()
    shuffled = {name: json.loads(native)[name] for name in ("persons", "arrows", "nodes")}
    assert list(load(json.dumps(shuffled)).to_data()) == list(shuffled)
    for text in (
        "\ufeff" + native,
        yaml.safe_dump(json.loads(native)),
        yaml.safe_dump(json.loads(native), default_flow_style=True),
    ):
        found = load(text)
        assert (found.format, found.to_data()) == ("native", json.loads(native))


def test_flow_style_yaml_on_one_line_is_text() -> None:
    """A text that begins with a brace is a diagram, JSON or not."""
    assert len(load("{version: light, nodes: [{label: A, type: start}]}").nodes) == 1


@pytest.mark.parametrize("text", [LIGHT, LIGHT.replace("\n", "\r\n"), "\ufeff" + LIGHT, "\ufeff" + LIGHT.replace("\n", "\r\n")])
def test_unchanged_text_is_saved_byte_for_byte(tmp_path: Path, text: str) -> None:
    """Comments, line ends, byte order mark: nothing is touched."""
    path = tmp_path / "x.light.yaml"
    path.write_bytes(text.encode())
    copy = load(path).save(tmp_path / "y.light.yaml")
    assert copy.read_bytes() == text.encode()


def test_saving_by_suffix(tmp_path: Path) -> None:
    """The file name chooses the format; without one the diagram keeps its own."""
    diagram = load_text(LIGHT)
    assert load(diagram.save(tmp_path / "x.native.json")).format == "native"
    assert load(diagram.save(tmp_path / "x.readable.yaml")).format == "readable"
    assert load(diagram.save(tmp_path / "x.yaml")).text == LIGHT
    assert load(diagram.save(tmp_path / "z", format="native")).format == "native"


def test_saving_fails_clearly(tmp_path: Path) -> None:
    """No file name, an unknown format, a missing folder: an error of ours, and nothing is written."""
    diagram = load_text(LIGHT)
    with pytest.raises(ValidationError, match="no file"):
        diagram.save()
    with pytest.raises(ValidationError, match="not a diagram format"):
        diagram.save(tmp_path / "x", format="xml")
    with pytest.raises(StorageError, match="cannot be written"):
        diagram.save(tmp_path / "no" / "x.light.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_diagram_can_be_sent_to_another_process() -> None:
    """Pickling keeps everything, places included."""
    diagram = load_text(LIGHT)
    assert diagram.source.node("node_0") == (4, 5)
    again = pickle.loads(pickle.dumps(diagram))
    assert (again.model, again.text, again.source.node("node_1", "default_prompt")) == (diagram.model, LIGHT, (11, 5))


# ------------------------------------------------------------------------------------------------------ places


def test_places() -> None:
    """Nodes, their fields in any spelling, arrows and persons know line and column; unknown things None."""
    source = load_text(LIGHT).source
    assert source.node("node_1") == (7, 5)
    assert source.node("node_1", "max_iteration") == (17, 7)
    assert source.node("node_3", "file_name") == (21, 5)
    assert source.node("node_1", "at_most") == (7, 5)
    assert source.node("node_2", "node_indices") == (18, 37)
    assert source.arrow("arrow_0") == (23, 5)
    assert source.arrow("arrow_1", "to") == (25, 25)
    assert source.person("Judge") == (29, 3)
    assert source.person("Judge", "model") == (31, 5)
    assert source.place("nodes", 0, "custom_data", "n") == (6, 32)
    assert source.place("nodes", 99) is source.place("x") is source.node("x") is source.arrow("x") is None


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_has_places(name: str) -> None:
    """Each node, arrow and person of each format is placed on a line that says its label or id."""
    diagram = from_model(load_text(LIGHT).model, format=name)
    lines = diagram.text.splitlines()
    for node in diagram.nodes:
        place = diagram.source.node(node.id)
        assert place
        said = lines[place[0] - 1 + (name == "executable")]  # there an item of a list begins with a line of its own
        assert node.label in said or node.id in said
    assert all(diagram.source.arrow(a.id) for a in diagram.arrows)
    assert all(diagram.source.person(p.id) for p in diagram.persons)


def test_places_behind_a_byte_order_mark() -> None:
    """The mark counts as no column."""
    assert load_text("\ufeff{version: light, nodes: [{label: A, type: db}]}").source.place("version") == (1, 2)


# ----------------------------------------------------------------------------------------------------- editing


@pytest.mark.parametrize(
    ("path", "value", "removed", "added"),
    [
        ("nodes.End.file_name", "new.txt", ["    file_path: 'out.txt'"], ["    file_path: new.txt"]),
        ("nodes.node_3.file_path", "a: b", ["    file_path: 'out.txt'"], ["    file_path: 'a: b'"]),
        ("nodes.Judge Panel.default_prompt", "One line", ["    default_prompt: |", "      Judge", '      this: "well"'], ["    default_prompt: One line"]),
        ("nodes.Judge Panel.default_prompt", "Two\n\nlines\n", ["      Judge", '      this: "well"'], ["      Two", "      lines"]),
        ("nodes.Judge Panel.max_iteration", 5, ["      max_iteration: 3"], ["      max_iteration: 5"]),
        ("nodes.Judge Panel.at_most", 7, [], ["    at_most: 7"]),
        ("nodes.Judge Panel.position", {"x": 5, "y": 6}, ["    position: {x: 1, y: 2}"], ["    position: {x: 5, y: 6}"]),
        ("nodes.Judge Panel.position.x", 5, ["    position: {x: 1, y: 2}"], ["    position: {x: 5, y: 2}"]),
        ("nodes.Start.custom_data.topic", "dogs, 'n' cats", ['    custom_data: {topic: cats, "n": 1}   # data'], ["    custom_data: {topic: 'dogs, ''n'' cats', \"n\": 1}   # data"]),
        ("nodes.Start.custom_data.new", [1, None], ['    custom_data: {topic: cats, "n": 1}   # data'], ['    custom_data: {topic: cats, "n": 1, new: [1, null]}   # data']),
        ("nodes.Start.output_data_structure.a.b", "x", [], ["    output_data_structure:", "      a:", "        b: x"]),
        ("nodes.End.file_path", None, ["    file_path: 'out.txt'"], []),
        ("nodes.Start.hook_event", None, [], []),
        ("persons.Judge.model", "local", ["    model: gpt-5-nano"], ["    model: local"]),
        ("persons.Judge.temperature", 0.2, [], ["    temperature: 0.2"]),
        ("persons.Judge.label", "Jury", ["    person: Judge", "  Judge:   # the person"], ["    person: Jury", "  Jury:   # the person"]),
        ("arrows.arrow_2.label", "v", [], ["    label: v"]),
        ("connections.arrow_1.content_type", None, ["  - {from: Judge Panel, to: Check}"], ["  - {from: Judge Panel, to: Check, content_type: null}"]),
        ("name", "Debate", [], ["name: Debate"]),
    ],
)  # fmt: skip
def test_setting_one_value_changes_only_its_lines(path: str, value: Any, removed: list[str], added: list[str]) -> None:
    """The new text differs in the lines of the value and nowhere else; the model has the new value."""
    diagram = load_text(LIGHT)
    after = diagram.set(path, value)
    assert changed_lines(LIGHT, after.text) == (removed, added)
    assert diagram.text == LIGHT


def test_a_new_label_is_followed_by_all_that_use_it() -> None:
    """Connections with their handles and conditions get the new label; comments stay."""
    after = load_text(LIGHT).set("nodes.Judge Panel.label", "The [jury]").set("nodes.Check.label", "No")
    assert [(a.source, a.target, a.target_handle, a.data) for a in after.arrows] == [
        (a.source, a.target, a.target_handle, a.data) for a in load_text(LIGHT).arrows
    ]
    assert after.nodes[2].data["node_indices"] == ["The [jury]"]
    assert "  - label: The [jury]   # decides\n" in after.text
    assert "    to: The [jury]__first   # first\n" in after.text
    assert "  - {from: The [jury], to: Check}" not in after.text
    assert after.diagnostics == ()


@pytest.mark.parametrize("name", ["native", "readable"])
def test_other_formats_can_be_edited_too(name: str) -> None:
    """Every kind of edit works on every format."""
    diagram = load_text(load_text(LIGHT).to_text(name))
    after = (
        diagram.set("nodes.Judge Panel.default_prompt", 'New\n"prompt"')
        .set("nodes.Judge Panel.at_most", 3)
        .set("nodes.Judge Panel.position", {"x": 7, "y": 8})
        .set("nodes.Judge Panel.label", "Jury")
        .set("nodes.Start.custom_data.topic", "dogs")
        .set("persons.Judge.model", "m")
        .set("persons.Judge.label", "P")
        .set("arrows.arrow_1.content_type", "object")
        .set("arrows.arrow_1.label", "v")
        .set("arrows.arrow_1.execution_priority", 2)
        .set("description", "D")
    )
    node = after.nodes[1]
    assert (node.label, node.data["default_prompt"], node.data["at_most"], node.position and node.position.x) == (
        "Jury",
        'New\n"prompt"',
        3,
        7,
    )
    assert after.nodes[0].data["custom_data"] == {"topic": "dogs", "n": 1}
    assert (after.persons[0].label, after.persons[0].llm.model) == ("P", "m")
    assert after.model.person(str(node.data["person"])) is after.persons[0]
    assert (after.arrows[1].content_type, after.arrows[1].label, after.arrows[1].execution_priority) == ("object", "v", 2)
    assert after.model.metadata
    assert after.model.metadata.description == "D"
    assert after.format == name


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nodes.Judge.default_prompt", "Did you mean 'Judge Panel'"),
        ("nodes.Judge Panel.defualt_prompt", "Did you mean 'default_prompt'"),
        ("nodes.Judge Panel", "names no field"),
        ("persons.Jugde.model", "Did you mean 'Judge'"),
        ("persons.Judge.modle", "Did you mean 'model'"),
        ("arrows.arrow_0.lable", "Did you mean 'label'"),
        ("arrows.x.label", "There is no 'x'"),
        ("node.Judge.model", "Did you mean 'nodes'"),
        ("", "not a path"),
    ],
)
def test_paths_to_nothing_name_the_nearest(path: str, said: str) -> None:
    """A wrong path is an error with the nearest correct one."""
    with pytest.raises(ValidationError, match=said):
        load_text(LIGHT).set(path, "x")


@pytest.mark.parametrize(
    ("path", "value"),
    [("nodes.End.label", "Start"), ("nodes.End.label", " "), ("nodes.End.label", None), ("nodes.End.file_path", object())],
)
def test_values_that_cannot_be_set(path: str, value: Any) -> None:
    """Labels stay unique and not empty, values are plain data."""
    with pytest.raises(ValidationError):
        load_text(LIGHT).set(path, value)


def test_anchored_values_are_edited_at_one_place_only() -> None:
    """Where two nodes share an anchored value, the edit changes one of them; comments survive."""
    text = "version: light\nnodes:\n- {label: A, type: db, file: &f x.txt}  # one\n- {label: B, type: db, file: *f}  # two\n"
    after = load_text(text).set("nodes.A.file", "y.txt").set("nodes.B.file", "z.txt")
    assert [n.data["file"] for n in after.nodes] == ["y.txt", "z.txt"]
    inherited = "version: light\nnodes:\n- &a {label: A, type: db, file: x}\n- <<: *a  # like A\n  label: B\n"
    after = load_text(inherited).set("nodes.B.file", "y")
    assert [n.data["file"] for n in after.nodes] == ["x", "y"]
    assert "# like A" in after.text


def test_dotted_keys_are_edited_as_they_are_written() -> None:
    """A value written with a dotted key is changed there."""
    text = "version: light\nnodes:\n- label: A\n  type: start\n  custom_data.a: 1\n"
    after = load_text(text).set("nodes.A.custom_data.a", 2).set("nodes.A.custom_data.b", 3)
    assert after.nodes[0].data["custom_data"] == {"a": 2, "b": 3}
    assert "  custom_data.a: 2\n" in after.text


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)


@examples(150)
@given(
    value=texts | st.lists(texts, max_size=3) | st.dictionaries(texts, texts, max_size=2),
    place=st.sampled_from(
        [
            "nodes.Judge Panel.default_prompt",
            "nodes.End.file_path",
            "nodes.Start.custom_data.topic",
            "nodes.Start.custom_data",
            "nodes.Check.judge_by",
        ]
    ),
)
def test_any_value_can_be_set(value: Any, place: str) -> None:
    """Whatever the value, it is read back, all other values are as they were, and comments stay."""
    after = load_text(LIGHT).set(place, value)
    _, label, *field = place.split(".")
    node = after.model.node(label)
    got: Any = node.data
    for name in ["file_name"] if field == ["file_path"] else field:
        got = got[name]
    assert got == value
    others = [n for n in parse(after.text).value["nodes"] if n["label"] != label]
    assert others == [n for n in parse(LIGHT).value["nodes"] if n["label"] != label]
    assert "# A debate" in after.text


# ------------------------------------------------------------------------------------------- compiling, showing


def test_check_and_compile_use_the_findings_of_reading() -> None:
    """Findings of reading and compiling come together, each with its place; compile gives the plan."""
    diagram = load_text(LIGHT.replace("    file_path:", "    fil_path:"))
    assert "unknown-property" in [d.code for d in diagram.check()]
    assert "unknown-property" in diagram.html()
    good = load_text(
        LIGHT.replace(
            "{label: Check, type: condition,", "{label: Check, type: condition, condition_type: check_nodes_executed,"
        )
    )
    assert [n.label for n in good.compile().nodes] == ["Start", "Judge Panel", "Check", "End"]


def test_the_display_is_the_drawing_with_findings_escaped() -> None:
    """The bundle has HTML with the picture, PNG and text; markup in labels and findings is text. An SVG beside the HTML would end an export
    to LaTeX where Inkscape is missing."""
    bad = "<script>alert(1)</script>"
    diagram = load_text(f"version: light\nnodes:\n- label: '{bad}'\n  type: start\n  {bad!r}: 1\n")
    bundle = diagram._repr_mimebundle_()
    assert list(bundle) == ["text/html", "image/png", "text/plain"]
    assert "<script" not in bundle["text/html"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    picture = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', bundle["text/html"])
    assert picture
    assert base64.b64decode(picture[1]).decode() == diagram.svg()
    assert "unknown-property" in bundle["text/html"]
    assert bad in bundle["text/plain"]


def test_the_outline_is_bounded() -> None:
    """The text form names every node of a small diagram, and stays short for a large one."""
    text = load_text(LIGHT).outline()
    assert text.splitlines()[0] == "diagram · 4 nodes, 3 arrows, 1 persons"
    assert all(label in text for label in ("Start", "Judge Panel", "Check", "End"))
    big = from_model(DomainDiagram(nodes=tuple(DomainNode(f"n{i}", "start", "x" * 10_000 + str(i)) for i in range(500))))
    assert len(big.outline()) < 20_000


def test_loading_is_fast() -> None:
    """Reading is linear: twenty times the nodes do not take a hundred times as long."""
    import time

    def seconds(count: int) -> float:
        nodes = "".join(f"- label: Node {i}\n  type: person_job\n  default_prompt: say {i}\n" for i in range(count))
        arrows = "".join(f"- {{from: Node {i}, to: Node {i + 1}}}\n" for i in range(count - 1))
        text = f"version: light\nnodes:\n{nodes}connections:\n{arrows}"
        best = 9.0
        for _ in range(3):
            began = time.thread_time()
            load_text(text)
            best = min(best, time.thread_time() - began)
        return best

    assert seconds(2000) < 100 * seconds(100)


def test_reading_without_libyaml() -> None:
    """PyYAML built without its C library reads and writes the same, only slower."""
    program = (
        "import sys; sys.modules['yaml.cyaml'] = sys.modules['yaml._yaml'] = None\n"
        "from dipeo_nb.diagram import load_text, from_model\n"
        "import yaml; assert not yaml.__with_libyaml__\n"
        "d = load_text(sys.stdin.read()); print(d.source.node('node_1', 'default_prompt'))\n"
        "print(from_model(d.model, format='native').text)\n"
        "assert load_text(from_model(d.model).text).model == d.model\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=LIGHT, capture_output=True, text=True, check=True)
    place, _, native = done.stdout.partition("\n")
    assert place == "(11, 5)"
    assert load_text(native).model == load_text(load_text(LIGHT).to_text("native")).model


def test_lazy_public_names() -> None:
    """The package gives its names on first use, and says when there is no such name."""
    import dipeo_nb.diagram as room

    assert room.Diagram is Diagram
    assert {"load", "Diagram"} <= set(dir(room))
    with pytest.raises(AttributeError):
        room.nothing  # noqa: B018


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_a_comment_stays_beside_its_field(line_break: str) -> None:
    """When a line becomes a block, and the block a line again; what is in the block is no comment."""
    text = (
        "version: light\npersons:\n  A: {service: echo}\nnodes:\n  - {label: S, type: start}\n  - label: W\n    type: person_job\n"
        "    person: A\n    default_prompt: One sentence.   # v1\n    max_iteration: 1   # once\nconnections:\n  - {from: S, to: W}\n"
    ).replace("\n", line_break)
    before = load_text(text)
    block = before.set("nodes.W.default_prompt", "several\nlines # here")
    assert "default_prompt: |-   # v1" in block.text
    assert "max_iteration: 1   # once" in block.text
    assert block.nodes[1].data["default_prompt"] == "several\nlines # here"
    other = block.set("nodes.W.default_prompt", "two\nlines\n")
    assert "default_prompt: |   # v1" in other.text
    line = other.set("nodes.W.default_prompt", "One sentence.")
    assert line.text.replace("\r\n", "\n") == text.replace("\r\n", "\n")
