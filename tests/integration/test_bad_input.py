"""Bad input: one clear error each, with a place and a next action, never a traceback of a parser, never a hang."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.config import override_settings
from dipeo_nb.diagram import load, load_text
from dipeo_nb.diagram.source_files import MAX_BYTES
from dipeo_nb.errors import DiagramError, DiagramFormatError, DiagramNotFoundError, UserError, ValidationError
from tests.support.examples import examples
from tests.support.waiting import cpu_within

GOOD = "version: light\nnodes:\n- {label: A, type: start}\n"


def refused(text: str) -> DiagramFormatError:
    with pytest.raises(DiagramFormatError) as caught:
        load_text(text)
    assert caught.value.hint
    return caught.value


def refused_file(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(DiagramFormatError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    """A path to nothing is not found, as a path and as text."""
    for source in (tmp_path / "x.light.yaml", str(tmp_path / "x.light.yaml")):
        with pytest.raises(DiagramNotFoundError) as caught:
            load(source)
        assert caught.value.hint


def test_directory(tmp_path: Path) -> None:
    """A folder is named as such."""
    with pytest.raises(DiagramFormatError, match="folder"):
        load(tmp_path)


def test_not_a_regular_file(tmp_path: Path) -> None:
    """A pipe is refused rather than waited for."""
    os.mkfifo(tmp_path / "pipe.light.yaml")
    with pytest.raises(DiagramFormatError, match="regular file"):
        load(tmp_path / "pipe.light.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="not here: root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    """Missing permission is said."""
    path = tmp_path / "x.light.yaml"
    path.write_text(GOOD)
    path.chmod(0)
    with pytest.raises(DiagramFormatError, match="cannot be read"):
        load(path)


def test_huge_file_is_refused_before_reading(tmp_path: Path) -> None:
    """A 100 MB file costs nothing; the message gives both sizes."""
    path = tmp_path / "x.light.yaml"
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)
    with cpu_within(5), pytest.raises(DiagramFormatError, match=r"104,857,600 bytes.*10,485,760"):
        load(path)


def test_smaller_limit_of_the_settings(tmp_path: Path) -> None:
    """DIPEO_MAX_FILE_SIZE counts when it is smaller."""
    (tmp_path / "x.light.yaml").write_text(GOOD)
    with override_settings(max_file_size=10), pytest.raises(DiagramFormatError, match="at most 10"):
        load(tmp_path / "x.light.yaml")


def test_huge_text() -> None:
    """The same limit holds for text."""
    assert "at most" in str(refused("#" * (MAX_BYTES + 1) + "\n"))


@pytest.mark.parametrize("text", ["", " \n\n", "# only a comment\n", "---\n", "--- \n...\n", "\ufeff"])
def test_empty(text: str, tmp_path: Path) -> None:
    """Nothing, blanks, and comments alone are an empty diagram."""
    assert "empty" in str(refused(text))
    assert "empty" in refused_file(tmp_path / "x.light.yaml", text.encode())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "binary"),
        (GOOD.encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + GOOD.encode("utf-16-be"), "UTF-16"),
        (GOOD.encode("utf-32"), "UTF-32"),
        (GOOD.encode("utf-16-le"), "binary"),
        ("version: light\nname: Café\n".encode("latin-1"), "UTF-8"),
    ],
)
def test_binary_and_other_encodings(tmp_path: Path, data: bytes, said: str) -> None:
    """The encoding is named when it can be known."""
    assert said in refused_file(tmp_path / "x.light.yaml", data)


def test_wrong_encoding_has_a_place(tmp_path: Path) -> None:
    """The first byte that is not UTF-8 has line and column."""
    assert ":2:10: " in refused_file(tmp_path / "x.light.yaml", "version: light\nname: Café\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("version: light\nnodes:\n\t- a\n", (3, 1)),
        ("version: light\nname: a: b\n", (2, 8)),
        ("nodes: [1, 2\n", (2, 1)),
        ("nodes:\n- label: 'x\n", (3, 1)),
        ("nodes: {a: b}}\n", (1, 14)),
        ("nodes: @x\n", (1, 8)),
        ("a: 1\n---\nb: 2\n", (2, 1)),
        ("nodes: *nowhere\n", (1, 8)),
        ("? [a, b]\n: c\n", (1, 1)),
        ("nodes: !!python/object/apply:os.system ['x']\n", (1, 8)),
        ("nodes: !mine x\n", (1, 8)),
        ("nodes: !!binary aGk=\n", (1, 8)),
        ("nodes: !!int x\n", (1, 8)),
        ("a: \x07\n", None),
        ('{"nodes": [1,]\n', None),
    ],
)
def test_not_yaml(text: str, place: tuple[int, int] | None) -> None:
    """What the parser says comes as one sentence with its place; tags that build objects are refused."""
    error = refused(text)
    if place:
        assert (error.facts["line"], error.facts["column"]) == place
    assert "Traceback" not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        '{"nodes": [1,',
        "{'nodes': []}",
        '{"nodes": NaN}',
        '{"a": 1} x',
        '{"n": ' + "9" * 5000 + "}",
        '{"nodes": "\\ud800"}',
        "nodes: []",
    ],
)
def test_not_json(tmp_path: Path, text: str) -> None:
    """A .json file has to be JSON."""
    refused_file(tmp_path / "x.native.json", text.encode())


@pytest.mark.parametrize("text", ['{"version": "light", "nodes": [{"label": "\\ud800"}]}', "version: light\nname: \ud800\n"])
def test_half_characters(text: str) -> None:
    """Half of a surrogate pair is not a character and could never be saved."""
    assert "surrogate" in str(refused(text))


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "5\n", "[]", '"text"\n', "null\n", "foo: 1\nbar: 2\n"])
def test_not_a_diagram(text: str) -> None:
    """Lists, texts and unrelated mappings say what a diagram begins with."""
    assert "diagram" in str(refused(text))


@pytest.mark.parametrize("text", ["version: light\nnodes: {a: 1}\n", "version: light\nnodes: x\n", "version: light\nnodes: []\nconnections: 5\n",
                                  "version: readable\nnodes: 5\n", "version: readable\nflow: x\n", '{"nodes": 5, "arrows": []}'])  # fmt: skip
def test_main_parts_of_a_wrong_shape(text: str) -> None:
    """Nodes and connections that are no lists cannot be read at all."""
    assert "is a list of" in str(refused(text))


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"nodes: *a{levels - 1}", ""])


def test_alias_bomb() -> None:
    """Aliases of aliases are counted, and refused long before they fill the memory."""
    with cpu_within(10):
        assert "expand" in str(refused(bomb(9)))


def test_aliases_within_reason_are_copies() -> None:
    """Anchors, aliases and merge keys work, and no two nodes share a value."""
    diagram = load_text(
        "version: light\nnodes:\n- &base {label: A, type: start, custom_data: &d {k: [1]}}\n- {<<: *base, label: B, hook_filters: *d}\n- {<<: [*base], label: C}\n"
    )
    assert [(n.label, n.type, n.data["custom_data"]) for n in diagram.nodes] == [(x, "start", {"k": [1]}) for x in "ABC"]
    first, second = (n.data["custom_data"]["k"] for n in diagram.nodes[:2])
    assert first is not second


@pytest.mark.parametrize("text", ["nodes: &a [*a]\n", "nodes: &a {b: {c: *a}}\n", "a: &a\n- &b [*a]\nnodes: *a\n"])
def test_cyclic_anchors(text: str) -> None:
    """An alias inside its own anchor is named."""
    assert "own anchor" in str(refused(text))


@pytest.mark.parametrize("text", ["nodes: " + "[" * 100_000, "nodes:\n" + "- " * 100_000, '{"nodes": ' + "[" * 100_000 + "]" * 100_000 + "}",
                                  "nodes: " + "{a: " * 5000, "a: &x [1]\n" + "".join(f"b{i}: &y{i} [*{'x' if not i else f'y{i - 1}'}]\n" for i in range(500))])  # fmt: skip
def test_deep_nesting(text: str) -> None:
    """Depth is limited before any recursion could crash."""
    assert "nested deeper" in str(refused(text))


def test_duplicate_keys_are_a_warning_with_a_place() -> None:
    """The last one counts, in YAML and in JSON."""
    for text, place in (
        ("version: light\nnodes:\n- label: A\n  type: start\n  label: B\n", (5, 3)),
        ('{"version": "light",\n "nodes": [{"label": "A", "type": "start", "label": "B"}]}', (2, 44)),
    ):
        diagram = load_text(text)
        assert [n.label for n in diagram.nodes] == ["B"]
        assert [(d.code, d.line, d.column) for d in diagram.diagnostics] == [("duplicate-key", *place)]


@pytest.mark.parametrize(
    "node", [{"label": ["x"], "type": "db"}, {"label": "A", "type": ["db"]}, {"label": "A", "type": "db", "props": "x"}]
)
def test_wrong_types_in_a_node_are_errors_with_a_place(node: dict[str, Any]) -> None:
    """The diagram loads, so that it can be shown, and cannot run."""
    diagram = load_text(json.dumps({"version": "light", "nodes": [node]}))
    errors = [d for d in diagram.diagnostics if d.severity.value == "error"]
    assert [d.code for d in errors] == ["wrong-type"]
    assert errors[0].line == 1


def test_persons_of_a_wrong_shape() -> None:
    """`persons: text` is one error, and the rest loads."""
    assert [d.code for d in load_text(GOOD + "persons: x\n").diagnostics] == ["wrong-type"]


@pytest.mark.parametrize("source", [5, None, ["x"], b"version: light"])
def test_load_takes_paths_texts_and_mappings_only(source: Any) -> None:
    """Other objects are refused by type."""
    with pytest.raises(ValidationError):
        load(source)


def test_data_that_is_not_plain() -> None:
    """Cycles and objects in a mapping are refused; dates become text."""
    from datetime import date

    cyclic: dict[str, Any] = {"nodes": []}
    cyclic["nodes"].append(cyclic)
    for bad in (cyclic, {"nodes": [{"label": object()}]}, {"nodes": [float("inf")]}):
        with pytest.raises(ValidationError, match="plain data"):
            load(bad)
    diagram = load(
        {"nodes": [{"label": "A", "type": "start", "custom_data": {"d": date(2025, 1, 2), "t": (1, 2)}}], "connections": []}
    )
    assert diagram.nodes[0].data["custom_data"] == {"d": "2025-01-02", "t": [1, 2]}


@pytest.mark.parametrize("name", ["a\x00b", "x" * 100_000, "~nobody/x", "no/such/thing", ".", "version: light"])
def test_strange_names(name: str) -> None:
    """Texts that are no path are a user's error like any other."""
    with pytest.raises(DiagramError):
        load(name)


def test_many_bad_references_stay_quick() -> None:
    """Two thousand connections to nowhere among two thousand nodes take seconds at most, and one error each."""
    nodes = [{"label": f"Node number {i}", "type": "db"} for i in range(2000)]
    text = json.dumps(
        {"version": "light", "nodes": nodes, "connections": [{"from": f"Nod number {i}", "to": "x_" * 50} for i in range(2000)]}
    )
    with cpu_within(20):
        diagram = load_text(text)
    assert len(diagram.diagnostics) == 4000


yamlish = st.lists(
    st.sampled_from(
        [
            *"ab:-[]{}&*!|>'\"#\n \t%@,?0.1~<",
            "nodes:",
            "- label: A\n",
            "version: light\n",
            "connections:\n",
            "flow:\n",
            "\ud7ff",
            "\x85",
        ]
    ),
    max_size=80,
).map("".join)


@examples(300)
@given(
    text=yamlish | yamlish.map(lambda t: GOOD + t) | yamlish.map(lambda t: "version: readable\nnodes:\n- A: {}\nflow:\n- " + t)
)
def test_any_text_loads_or_is_a_users_error(text: str) -> None:
    """Whatever the text, there is a diagram whose findings can be read, or one error of ours."""
    try:
        diagram = load_text(text)
    except UserError:
        return
    for found in diagram.diagnostics:
        assert str(found)
    load_text(diagram.to_text("native"))
    load_text(diagram.to_text("readable"))
