"""Errors that the user can fix: nothing was run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from dipeo_nb.errors.base import DipeoError
from dipeo_nb.errors.rendering import line_of_caller, printable, quoted

if TYPE_CHECKING:
    from dipeo_nb.domain.diagnostics import Diagnostic


class UserError(DipeoError):
    """You made a mistake; nothing was run."""

    code = "user_error"


class ValidationError(UserError):
    """A value has the wrong type, shape or size."""

    code = "validation_error"


class UnknownNodeError(UserError, KeyError):
    """A run or a diagram has no node of that label or id."""

    code = "unknown_node"


class ConfigurationError(UserError):
    """A setting, or a combination of options, cannot work."""

    code = "configuration_error"


class SettingNotApprovedError(ConfigurationError):
    """A file of the folder suggests this value, and the user has not approved it; `variable`, `file` and `folder` say which."""

    code = "setting_not_approved"


class ManifestError(ConfigurationError):
    """The manifest of a provider cannot be used; `path` and `line` say where."""

    code = "manifest_error"
    path: str | None = None
    line: int | None = None


class MissingDependencyError(ConfigurationError):
    """An optional package is not installed; the hint names the extra to install."""

    code = "missing_dependency"

    @classmethod
    def for_extra(cls, package: str, *, extra: str) -> MissingDependencyError:
        """The error for an optional *package* that the *extra* of this distribution brings."""
        return cls(
            f"This needs the package '{package}', which is not installed.",
            hint=f'Run: pip install "dipeo-nb[{extra}]"',
            package=package,
            extra=extra,
        )


class TrustError(UserError):
    """A diagram wants more than an untrusted one may do, and the user has not approved it.

    `lines` list what it wants for people, `uses` the same as JSON values; `pin` is the code that approves exactly this;
    `folder` is the folder that could be trusted instead, when the diagram is below the base directory, and `settings` are the
    settings of that folder that would be approved with it.
    """

    code = "not_trusted"
    shown: ClassVar[Callable[[TrustError], bool]] = staticmethod(lambda _: False)
    """Shows the error as a panel, and returns whether the user sees it; notebooks replace it."""
    bundle: ClassVar[Callable[[TrustError], dict[str, str]]] = staticmethod(lambda error: {"text/plain": error.text()})
    """The panel as a mimebundle; notebooks replace it."""

    def listing(self) -> list[str]:
        """The lines of what it wants, with characters that a screen does not show as escapes."""
        return [printable(str(line)) for line in self.facts.get("lines", ())]

    def ways(self) -> list[tuple[str, str]]:
        """(meaning, line of Python to copy) of each way to approve it; empty when there is none."""
        found: list[tuple[str, str]] = []
        function, first = self.facts.get("call", ("dp.run", self.facts.get("path")))
        if self.facts.get("pin"):
            given = "…" if first is None else quoted(str(first))
            found.append(("Exactly this, as it is now", f'{function}({given}, trust="{self.facts["pin"]}")'))
        if self.facts.get("folder"):
            found.append((f"Everything in {printable(self.facts['folder'])}", f"dp.trust({quoted(self.facts['folder'])})"))
        return found

    def settings_lines(self) -> list[str]:
        """The settings of the folder that trusting it approves."""
        return [printable(str(setting)) for setting in self.facts.get("settings", ())]

    def text(self) -> str:
        """All of it as plain text."""
        lines = [f"{type(self).__name__}: {printable(self.message)}", *self.listing()]
        if ways := self.ways():
            lines.append("To say yes, copy one of these lines:")
            for meaning, line in ways:
                lines += [f"  # {meaning}", f"  {line}"]
            if settings := self.settings_lines():
                lines += ["  # with these settings of the folder:", *(f"  #   {setting}" for setting in settings)]
        elif self.hint:
            lines.append(printable(self.hint))
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return TrustError.bundle(self)

    def _render_traceback_(self) -> list[str]:
        if not TrustError.shown(self):
            place = line_of_caller(self)
            return [*([place] if place else []), *self.text().splitlines()]
        *lines, _ = super()._render_traceback_() if self.hint else [*super()._render_traceback_(), ""]
        return [*lines, "The list of what it would do, and the lines that say yes, are above."]


class DiagramError(UserError):
    """The diagram cannot be read or run."""

    code = "diagram_error"
    diagnostics: Sequence[Diagnostic] = ()


class DiagramNotFoundError(DiagramError):
    """No diagram under that path or name."""

    code = "diagram_not_found"


class DiagramFormatError(DiagramError):
    """The text is not a diagram: bad YAML or JSON, binary data, wrong encoding, too large."""

    code = "diagram_format"


class InvalidDiagramError(DiagramError):
    """The diagram was read and then refused; `diagnostics` says where and why."""

    code = "invalid_diagram"
