"""The dry run of a session. The module behind it is imported by those who use it."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.calls import checked_call
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.runtime import Runtime

if TYPE_CHECKING:
    from dipeo_nb.notebook.dry_run import Effects


class DryRunMethod(ABC):
    """Part of `Session`."""

    runtime: Runtime

    @abstractmethod
    def load(self, source: Diagram | str | os.PathLike[str] | Mapping[str, Any], *, format: str | None = None) -> Diagram: ...

    @checked_call
    def dry_run(
        self,
        diagram: Diagram | str | os.PathLike[str] | Mapping[str, Any],
        *,
        model: str | None = None,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        max_iterations: int | None = None,
        **variables: Any,
    ) -> Effects:
        """Show what a run would do, and which keys it lacks: nothing is sent, written or executed, and no run is recorded.

            dp.dry_run("report", topic="tea")            # a table: node, kind, what, detail
            dp.dry_run("report").missing                 # keys and packages that are missing, and how to set them

        Prompts, requests (keys hidden) and files are those of a run, with placeholders (`‹answer of Ada›`) for what only a run gives.
        Files are read. What placeholders do not lead to is listed as the diagram says it (`reached` is False).

        Args:
            model, answers, inputs, max_iterations: see `start`.

        Raises:
            UserError: the diagram cannot be read or run, or an option has an impossible value.
        """
        module: Any = importlib.import_module("dipeo_nb.notebook.dry_run")
        return module.dry_run(self.runtime, self.load(diagram), model, answers, inputs, max_iterations, variables)
