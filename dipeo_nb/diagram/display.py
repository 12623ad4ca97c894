"""Displays of a diagram: as SVG, PNG, a web page, Mermaid, text, and in notebooks."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from dipeo_nb.common import lazy
from dipeo_nb.common.calls import checked_call
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import did_you_mean, displayed
from dipeo_nb.diagram.parsed import ParsedDiagram
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.errors import ValidationError

if TYPE_CHECKING:
    from dipeo_nb.diagram import drawing, labels, layout, mermaid, png, text_tree
    from dipeo_nb.diagram import html as page
else:  # reading and running a diagram draws nothing
    drawing, labels, layout, mermaid, page, png, text_tree = (
        lazy.module(f"dipeo_nb.diagram.{name}")
        for name in ("drawing", "labels", "layout", "mermaid", "html", "png", "text_tree")
    )


@dataclass(frozen=True, eq=False, repr=False)
class DisplayedDiagram(ParsedDiagram):
    """A diagram that can be shown. In a notebook its display is the drawing, with all findings under it."""

    def svg(self, **options: Any) -> str:
        """The drawing as SVG text; options as for `dipeo_nb.diagram.drawing.draw`."""
        known = inspect.signature(drawing.draw).parameters
        for name in options:
            if name not in known:
                raise ValidationError(
                    f"A drawing has no option '{name:.80}'.", hint=did_you_mean(name, known, f"It takes {', '.join(known)}.")
                )
        return redactor(drawing.draw(self.model, **{"title": self.name, **options}))

    @checked_call
    def png(self, *, width: int | None = None, theme: Literal["light", "dark"] = "light") -> bytes:
        """The drawing as PNG; *width* in pixels.

        Raises:
            ValidationError: the width is not a number of pixels.
        """
        if width is not None and (not isinstance(width, int) or not 16 <= width <= 20_000):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(
                f"width={width!r:.80} is not between 16 and 20000 pixels.", hint="Leave it out for the natural size."
            )
        return png.svg_to_png(self.svg(theme=theme), width=width, theme=theme)

    @checked_call
    def html(self, *, theme: str = "auto") -> str:
        """The drawing and all findings as a web page of its own."""
        svg, overview = self._pictures(theme)
        return redactor(page.page(self.name, svg, self._findings, overview=overview))

    def _pictures(self, theme: str = "auto") -> tuple[str, str | None]:
        """The drawing, and an overview of one that is wider than the page."""
        placed = layout.place(self.model)
        whole = drawing.overview(self.model, placed, theme=theme, title=self.name)  # type: ignore[arg-type]
        return self.svg(theme=theme, layout=placed), None if whole is None else redactor(whole)

    def mermaid(self) -> str:
        """The graph as Mermaid text."""
        return redactor(mermaid.to_mermaid(self.model))

    @checked_call
    def outline(self, *, lines: int = 100) -> str:
        """The diagram as text: nodes with their arrows, then the findings; at most about *lines* lines."""
        count = f"{len(self.nodes)} nodes, {len(self.arrows)} arrows, {len(self.persons)} persons"
        tree = text_tree.text_tree(self.model).splitlines()
        cut = [*tree[:lines], f"… {len(tree) - lines} more lines"] if len(tree) > lines else tree
        found = [labels.clean(finding, 600) for finding in self._findings]
        shown = [*found[:20], f"… {len(found) - 20} more findings"] if len(found) > 20 else found
        return redactor("\n".join([f"{labels.clean(self.name, 60)} · {count}", *cut, *shown]))

    @displayed
    def __repr__(self) -> str:
        return self.outline()

    @displayed
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        # HTML first: it is what every viewer prefers, and an <img> shows the drawing where scripts and styles are
        # stripped. PNG for LaTeX: there an SVG ends the export of the whole notebook unless Inkscape is installed.
        svg, overview = self._pictures()
        shown = page.figure(svg, labels.summary(self.model, self.name), overview=overview) + page.findings(self._findings[:50])
        picture = png.saved_picture(self.svg(theme="light"))
        return {
            # the names in findings hold no mathematics
            "text/html": f'<div class="mathjax_ignore tex2jax_ignore">{shown}</div>',
            **({"image/png": picture} if picture else {}),
            "text/plain": self.outline(),
        }

    @cached_property
    def _findings(self) -> tuple[Diagnostic, ...]:
        return self.check()
