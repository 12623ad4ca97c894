"""Which format a text has, and which file a name means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.diagram import find, load, load_text
from dipeo_nb.diagram.detect import check_format, detect, format_of_name, stem
from dipeo_nb.errors import DiagramFormatError, DiagramNotFoundError, ValidationError


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        ({"nodes": []}, "x.light.yaml", "light"),
        ({"nodes": []}, "x.light.yml", "light"),
        ({"nodes": []}, "X.READABLE.YAML", "readable"),
        ({"nodes": []}, "x.native.json", "native"),
        ({"nodes": []}, "x.json", "native"),
        ({"version": "light", "nodes": []}, "x.json", "light"),
        ({"version": "light", "nodes": []}, "x.readable.yaml", "readable"),
        ({"version": "Readable", "nodes": []}, "x.yaml", "readable"),
        ({"format": "light"}, None, "light"),
        ({"nodes": [], "arrows": []}, "light-thing.yaml", "native"),
        ({"nodes": {}, "arrows": {}, "version": "1.0"}, None, "native"),
        ({"nodes": [], "flow": []}, None, "readable"),
        ({"nodes": [], "connections": []}, None, "light"),
        ({"nodes": [{"A": {}}, None, {"B": None}]}, None, "readable"),
        ({"nodes": [{"label": "A"}]}, None, "light"),
        ({"nodes": [{"A": {}}, {"label": "A", "type": "db"}]}, None, "light"),
        ({"nodes": []}, None, "light"),
        ({"persons": {}}, None, "light"),
        ({"format": "executable", "version": "1.0", "nodes": [], "edges": []}, "x.json", "executable"),
        ({"nodes": [], "edges": []}, "x.executable.json", "executable"),
    ],
)
def test_detection(value: Any, path: str | None, expected: str) -> None:
    """The file name counts first, then what the text declares, then what it holds."""
    assert detect(value, path) == expected


@pytest.mark.parametrize("value", [{}, {"foo": 1}, [], "text", 5, None, True, {"version": "light2"}])
def test_what_is_no_diagram_is_an_error(value: Any) -> None:
    """Other documents are refused with one sentence and a next action."""
    with pytest.raises(DiagramFormatError) as caught:
        detect(value)
    assert caught.value.hint


def test_an_explicit_format_wins() -> None:
    """The caller's choice beats name and content; a wrong one names the nearest."""
    text = "version: light\nnodes: []\nflow: []\n"
    assert load_text(text, format="readable", path="x.light.yaml").format == "readable"
    with pytest.raises(ValidationError, match="Did you mean 'light'"):
        load_text(text, format="lihgt")


def test_names_without_their_suffixes() -> None:
    """A stem is the name people say."""
    assert [stem(p) for p in ("a/debate.light.yaml", "x.native.json", "y.yml", "z", ".light.yaml")] == [
        "debate",
        "x",
        "y",
        "z",
        ".light.yaml",
    ]
    assert format_of_name("a.yaml") is None


def test_a_name_is_looked_up_in_the_known_folders(tmp_path: Path) -> None:
    """A bare name is found below examples/, projects/ and files/ with any known suffix; the diagram's own folder first."""
    for place in (
        "examples/simple_diagrams/iter.light.yaml",
        "projects/mcp-diagrams/hello.yaml",
        "files/codegen/deep.native.json",
        "own/iter.light.yaml",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("version: light\nnodes: []\n")
    assert find("iter", tmp_path) == tmp_path / "examples/simple_diagrams/iter.light.yaml"
    assert find("iter", tmp_path, beside=tmp_path / "own") == tmp_path / "own/iter.light.yaml"
    assert find("hello", tmp_path) == tmp_path / "projects/mcp-diagrams/hello.yaml"
    assert find("codegen/deep", tmp_path) == tmp_path / "files/codegen/deep.native.json"
    assert load("hello", base_dir=tmp_path).name == "hello"


def test_the_wanted_format_is_preferred(tmp_path: Path) -> None:
    """With two files of one name the format decides."""
    (tmp_path / "x.light.yaml").write_text("nodes: []")
    (tmp_path / "x.readable.yaml").write_text("nodes: []")
    assert find("x", tmp_path, format="readable").name == "x.readable.yaml"
    assert find("x", tmp_path).name == "x.light.yaml"


@pytest.mark.parametrize("name", ["../secret", "examples/../../secret", "/etc/passwd", "", "a\x00b", "x" * 5000])
def test_names_never_escape(tmp_path: Path, name: str) -> None:
    """A name leads nowhere outside the searched folders, whatever stands there."""
    (tmp_path / "secret.light.yaml").write_text("nodes: []")
    base = tmp_path / "base"
    (base / "examples").mkdir(parents=True)
    with pytest.raises(DiagramNotFoundError):
        find(name, base)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """A link that leads out of the searched folder is no diagram of that name."""
    (tmp_path / "secret.light.yaml").write_text("nodes: []")
    base = tmp_path / "base"
    base.mkdir()
    (base / "x.light.yaml").symlink_to(tmp_path / "secret.light.yaml")
    with pytest.raises(DiagramNotFoundError):
        find("x", base)


def test_an_unknown_name_says_where_it_was_looked_up(tmp_path: Path) -> None:
    """The error names the nearest diagram and the folders."""
    (tmp_path / "debate.light.yaml").write_text("nodes: []")
    with pytest.raises(DiagramNotFoundError, match="Did you mean 'debate'"):
        load("debat", base_dir=tmp_path)


@pytest.mark.parametrize(("name", "found"), [("yml", None), ("YAML", None), ("Json", "native"), ("readable", "readable")])
def test_formats_by_names(name: str, found: str | None):
    """`yml` and `yaml` are any of the two YAML formats."""
    assert check_format(name) == found
