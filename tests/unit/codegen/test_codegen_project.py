"""Code generation by hand: `dp.codegen` and `dipeo-nb codegen`, with the words that change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dipeo_nb as dp
from dipeo_nb import cli
from dipeo_nb.common.word_diff import Change, counts, word_diff
from dipeo_nb.errors import StorageError, TemplateError, ValidationError

SHIP = "export enum Kind { A = 'a' }\nexport interface Ship { name: string; kind: Kind }\n"
TEMPLATE = "{% for m in types %}class {{ m.name }}:\n{% for f in m.fields %}    {{ f.python_name }}: {{ f.python_type }}\n{% endfor %}{% endfor %}"
MADE = "class Ship:\n    name: str\n    kind: Kind\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "ship.ts": SHIP,
        "sub/view.tsx": "export const V = () => <b/>;",
        "node_modules/x.ts": "!",
        ".hidden/y.ts": "!",
        "readme.md": "no",
    }.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(text)
    return tmp_path / "src"


def test_parse_look_render_write(folder: Path, tmp_path: Path) -> None:
    """A folder's sources in a table; what would change, word by word; nothing is written before `write`."""
    sources = dp.codegen.parse(folder)
    assert list(sources) == ["ship.ts", "sub/view.tsx"]
    assert sources.rows()[0] == {
        "source": "ship.ts", "interfaces": 1, "types": 0, "enums": 1, "classes": 0, "functions": 0, "constants": 0, "exports": 0, "diagnostics": 0,
    }  # fmt: skip
    assert [row["name"] for row in sources.declarations()] == ["Ship", "Kind", "V"]
    assert "2 sources: 1 interfaces, 1 enums, 1 constants" in repr(sources)
    ir = sources.build("backend")
    files = dp.codegen.render({"out/ship.py": TEMPLATE}, ir, out=tmp_path)
    assert repr(files) == "out/ship.py: new, 6 words added, 0 removed"
    assert not (tmp_path / "out").exists()
    assert files.write() == ["out/ship.py"]
    assert (tmp_path / "out/ship.py").read_text() == MADE
    again = dp.codegen.render({"out/ship.py": TEMPLATE.replace("class", "struct")}, ir, out=tmp_path)
    assert repr(again) == "out/ship.py: changed, 1 words added, 1 removed"
    assert ">class</del><ins" in again._repr_html_()
    assert dp.codegen.render({"out/ship.py": TEMPLATE}, ir, out=tmp_path).write() == []


def test_displays_escape_what_is_in_sources(tmp_path: Path) -> None:
    sources = dp.codegen.parse({"<b>.ts": "interface A {}", "ok.ts": "interface B {}"})
    assert "<b>" not in sources._repr_html_()
    (tmp_path / "x").write_text("<script>alert(1)</script>\u202e")
    shown = dp.codegen.render({"x": "<script>{{ n }}</script>"}, {"n": 2}, out=tmp_path)._repr_html_()
    assert "<script>" not in shown
    assert "\u202e" not in shown


def test_mistakes(folder: Path, tmp_path: Path) -> None:
    """One clear error each; files are read and written below their folder only."""
    (tmp_path / "empty").mkdir()
    for wrong, message in ((tmp_path / "none", "is not there"), (tmp_path / "empty", "holds no TypeScript")):
        with pytest.raises(ValidationError, match=message):
            dp.codegen.parse(wrong)
    with pytest.raises(ValidationError, match="no builder 'other'"):
        dp.codegen.parse(folder).build("other")
    with pytest.raises(TemplateError, match="'nothing' is undefined"):
        dp.codegen.render({"a": "{{ nothing }}"}, {}, out=tmp_path)
    for path in ("../outside", "/tmp/outside", "empty"):
        with pytest.raises(StorageError):
            dp.codegen.render({path: "x"}, {}, out=tmp_path).write()
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(StorageError):
        dp.codegen.render({"link/passwd2": "x"}, {}, out=tmp_path).write()


@given(st.text(alphabet="ab \n.", max_size=40), st.text(alphabet="ab \n.", max_size=40))
def test_the_pieces_are_both_texts(old: str, new: str) -> None:
    """In their order, whole."""
    changes = word_diff(old, new)
    assert "".join(change.old for change in changes) == old
    assert "".join(change.new for change in changes) == new
    assert all(change.old == change.new for change in changes if change.kept)
    assert (old == new) == all(change.kept for change in changes)


def test_words() -> None:
    assert word_diff("the red ship\nsails\n", "the blue ship\nsails\n") == [
        Change(True, "the ", "the "), Change(False, "red", "blue"), Change(True, " ship\n", " ship\n"), Change(True, "sails\n", "sails\n"),
    ]  # fmt: skip
    assert counts(word_diff("a b", "a c d")) == (2, 1)
    assert len(word_diff("a\n" * 300_000, "b\n" * 300_000)) == 1
    assert counts(word_diff("".join(f"{n}\n" for n in range(20_000)), "".join(f"{n} x\n" for n in range(20_000))))[0] >= 20_000


def test_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A table or JSON; an IR, the same bytes each time; a rendered file, which can be checked."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["codegen", "parse", str(folder)]) == 0
    assert "ship.ts" in capsys.readouterr().out
    assert cli.main(["codegen", "parse", str(folder / "ship.ts"), "-p", "enum", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ship.ts"]["ast"]["enums"][0]["name"] == "Kind"
    for name in ("a.json", "b.json"):
        assert cli.main(["codegen", "ir", str(folder), "-b", "backend", "-o", name]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_bytes())["metadata"]["sources"] == ["ship.ts", "sub/view.tsx"]
    (tmp_path / "t.j2").write_text(TEMPLATE)
    capsys.readouterr()
    assert cli.main(["codegen", "render", "t.j2", str(folder)]) == 0
    assert capsys.readouterr().out == MADE
    for command, code in ((["--check"], 1), ([], 0), (["--check"], 0)):
        assert cli.main(["codegen", "render", "t.j2", str(folder), "-o", "ship.py", *command]) == code
    assert (tmp_path / "ship.py").read_text() == MADE
    (tmp_path / "m.j2").write_text(
        "{{ metadata.builder_type }}{{ metadata.model_count }}{{ data.types[0].name }}{{ types[0].name }}"
    )
    for source in (str(folder), "a.json"):
        capsys.readouterr()
        assert cli.main(["codegen", "render", "m.j2", source]) == 0
        assert capsys.readouterr().out == "backend1ShipShip\n"
    (tmp_path / "names.yaml").write_text("types: [{name: A, fields: []}]")
    assert cli.main(["codegen", "render", "t.j2", "names.yaml"]) == 0
    assert capsys.readouterr().out == "class A:\n"


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["parse", "none"], 2, "is not there"),
        (["parse", "bad.ts", "--strict"], 1, "bad.ts:1:"),
        (["parse", "bad.ts"], 0, "bad.ts:1:"),
        (["parse", "binary.ts"], 1, "binary"),
        (["parse", "bad.ts", "-p", "struct"], 2, "no pattern 'struct'"),
        (["ir", "binary.ts"], 2, "nothing to build"),
        (["ir", "bad.ts", "--config", "none.yaml"], 2, "cannot be read"),
        (["ir", "bad.ts", "-o", "none/ir.json"], 1, "No such file or directory: none/ir.json\n"),
        (["parse", "linked"], 1, "'out.ts' is a link that leads out of linked"),
        (["render", "none.j2", "bad.ts"], 2, "no template"),
    ],
)
def test_mistakes_of_commands(
    command: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.ts").write_text("interface A { b: ; }")
    Path("binary.ts").write_bytes(b"a\0b")
    Path("linked").mkdir()
    Path("linked/out.ts").symlink_to(tmp_path / "bad.ts")
    assert cli.main(["codegen", *command]) == code
    assert words in capsys.readouterr().err


def test_it_is_loaded_when_it_is_used() -> None:
    """Neither the package nor a session imports the parser; without the extra the error names it."""
    code = (
        "import sys, dipeo_nb as dp; dp.Session; dp.codegen; assert not [m for m in sys.modules if m.startswith(('tree_sitter', 'dipeo_nb.codegen.')) and m != 'dipeo_nb.codegen.services'], 1\n"
        "sys.modules['tree_sitter'] = None\n"
        "try: dp.codegen.parse({'a.ts': ''})\n"
        "except dp.UserError as error: assert 'dipeo-nb[codegen]' in error.hint, error.hint\n"
        "else: raise SystemExit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
