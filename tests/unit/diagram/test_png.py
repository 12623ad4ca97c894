"""PNG pictures: the same on every machine, fonts or not."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from resvg_py import svg_to_bytes

from dipeo_nb.diagram import png
from dipeo_nb.diagram.drawing import draw
from dipeo_nb.diagram.png import FONTS, svg_to_png
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
from dipeo_nb.errors import ValidationError


def model(label: str = "Optimist") -> DomainDiagram:
    return DomainDiagram(
        (DomainNode("a", "start", "Start"), DomainNode("b", "person_job", label)), (DomainArrow("x", "a", "b"),)
    )


def size(picture: bytes) -> tuple[int, int]:
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", picture[16:24])


def test_labels_are_drawn_with_our_own_font() -> None:
    """With the machine's fonts shut out, the text is there: without our font the picture would be another."""
    svg = draw(model(), theme="light")
    ours = svg_to_png(svg, width=400)
    fontless = svg_to_bytes(svg_string=svg, width=400, skip_system_fonts=True)
    assert size(ours) == size(fontless)
    assert ours != fontless
    assert svg_to_png(draw(model("Pessimist"), theme="light"), width=400) != ours


def test_latin_greek_and_cyrillic_need_no_other_font(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The picture is the same on a machine whose font settings lead nowhere."""
    svg = draw(model("Łódź Ελλάδα Москва → × ✓ …"), theme="dark")
    here = svg_to_png(svg)
    for variable in ("HOME", "XDG_DATA_HOME", "FONTCONFIG_PATH"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert svg_to_png(svg) == here


def test_size() -> None:
    """Twice the natural width by default; a given width is exact."""
    svg = draw(model())
    wide = int(svg.split('viewBox="0 0 ')[1].split()[0])
    assert size(svg_to_png(svg))[0] == 2 * wide
    assert size(svg_to_png(svg, width=333))[0] == 333


def test_a_huge_drawing_is_made_smaller() -> None:
    """A thousand nodes still give a picture, of bounded size."""
    nodes = tuple(DomainNode(f"n{i}", "db", f"Node {i}") for i in range(1000))
    arrows = tuple(DomainArrow(f"a{i}", f"n{i}", f"n{i + 1}") for i in range(999))
    wide, high = size(svg_to_png(draw(DomainDiagram(nodes, arrows))))
    assert wide * high <= 25_000_000


def test_themes() -> None:
    """A drawing that follows the reader is rendered on the side asked for."""
    auto = draw(model(), theme="auto")
    light, dark = svg_to_png(auto), svg_to_png(auto, theme="dark")
    assert light != dark
    assert light == svg_to_png(draw(model(), theme="light"))
    assert dark == svg_to_png(draw(model(), theme="dark"))


@pytest.mark.parametrize("label", ["日本語", "שלום", "🚀", "<b>&amp;"])
def test_other_scripts_are_no_error(label: str) -> None:
    """Text beyond our font is drawn with the machine's fonts, or as boxes; it never fails."""
    assert size(svg_to_png(draw(model(label))))[0] > 0


@pytest.mark.parametrize("svg", ["", "hello", "<svg/>", '<svg xmlns="x" viewBox="0 0 10 10"><g', "\x00"])
def test_what_is_no_drawing_is_refused(svg: str) -> None:
    """Anything but a drawing is a clear error."""
    with pytest.raises(ValidationError, match="draw"):
        svg_to_png(svg)


@pytest.mark.parametrize("width", [0, -5, 1_000_000])
def test_senseless_widths_are_refused(width: int) -> None:
    """A width out of range is a clear error."""
    with pytest.raises(ValidationError, match="pixels wide"):
        svg_to_png(draw(model()), width=width)


def test_the_fonts_are_small_and_carry_their_licence() -> None:
    """Less than 300 KB in all, under the Open Font License, which lies beside them."""
    files = sorted(p.name for p in FONTS.iterdir())
    assert files == ["Inter-Regular.ttf", "Inter-SemiBold.ttf", "OFL.txt"]
    assert sum(p.stat().st_size for p in FONTS.glob("*.ttf")) < 300_000
    assert "SIL OPEN FONT LICENSE" in (FONTS / "OFL.txt").read_text(encoding="utf-8")


def test_where_other_threads_would_wait_a_process_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The renderer holds the interpreter: with other threads there, it works in a process, and makes the same picture."""
    svg = draw(model(), theme="light")
    asked: list[str] = []
    call = png.WORKERS.call_here

    def call_here(function: str, *arguments: Any, **options: Any) -> Any:
        asked.append(function)
        return call(function, *arguments, **options)

    monkeypatch.setattr(png.WORKERS, "call_here", call_here)
    monkeypatch.setattr(png.threading, "active_count", lambda: 1)
    alone = svg_to_png(svg)
    assert asked == []
    monkeypatch.setattr(png.threading, "active_count", lambda: 2)
    assert svg_to_png(svg) == alone
    assert asked == ["dipeo_nb.diagram.png:encoded"]
    with pytest.raises(ValidationError, match="valid SVG"):
        svg_to_png(svg.replace("</svg>", ""))


def test_where_no_process_can_be_started_the_picture_is_drawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError("no processes here")

    monkeypatch.setattr(png.WORKERS, "call_here", refused)
    monkeypatch.setattr(png.threading, "active_count", lambda: 2)
    assert svg_to_png(draw(model(), theme="light")).startswith(b"\x89PNG")


def test_a_picture_has_at_most_so_many_pixels() -> None:
    svg = draw(model(), theme="light")
    wide, high = size(svg_to_png(svg, pixels=40_000))
    assert 30_000 < wide * high <= 41_000
    assert size(svg_to_png(svg, width=5_000, pixels=40_000)) == (wide, high)
