"""A run as a notebook shows it: in cells that follow it, and as a static picture where nothing follows."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from dipeo_nb.common.text import displayed
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import kernel, static_view
from dipeo_nb.notebook.awaited_run import AwaitedRun
from dipeo_nb.notebook.run_display import Orders, RunDisplay

R = TypeVar("R")


class ShownRun(AwaitedRun[R]):
    """A run that can be displayed."""

    repeated: bool
    """Whether all answers of models are recorded ones and no user is there: two executions leave the same outputs then."""
    _diagram: DomainDiagram | None
    _view: bool
    _shown: RunDisplay | None
    _shown_in: str | None = None
    """The execution of a cell that displays it."""

    @property
    @abstractmethod
    def state(self) -> RunState: ...

    @abstractmethod
    def _orders(self) -> Orders | None:
        """What pages may order of it."""

    @abstractmethod
    def _answered_in_view(self, request_id: str, text: str) -> None: ...

    def show(self) -> None:
        """Display the run in the running cell; what is shown follows it while it executes.

        Outside a kernel: print its state as lines of text.
        """
        self.attended = self._finished.is_set() or kernel.in_kernel()  # its output will show the end
        if not kernel.in_kernel():
            sys.stdout.write(static_view.plain(self.state, self._diagram) + "\n")
            return
        self._shown_in = kernel.execution()
        if self._diagram is None or not self._view or (self._finished.is_set() and kernel.unattended()):
            from IPython.display import display

            display(self._repr_mimebundle_(), raw=True)
            return
        shown = self._display().show()
        if shown is not None and shown not in self._displays:
            self._displays.append(shown)

    def html_inside(self) -> str:
        """What shows it among other things, such as the history: its face, over which pages put its view."""
        self.attended = self._finished.is_set()
        if self._diagram is None:
            return static_view.html(self.state, None, self.timeline)
        return self._display().inside()

    async def _show_below(self, upper: RunDisplay) -> str:
        """Display it below another run, from whose view it was ordered. On the loop thread."""
        self.attended = True  # its view will show the end
        return await self._display().show_below(upper)

    @contextmanager
    def shown_meanwhile(self) -> Iterator[None]:
        """Display it in a notebook cell that waits for it; where no user is there, when it has ended."""
        shown = self._view and kernel.in_kernel()
        try:
            if shown and not kernel.unattended():
                try:
                    self.show()
                except KeyboardInterrupt as interrupt:  # it takes a second for the first one
                    self._interrupted(interrupt)
                    raise
            yield
        finally:
            if shown and kernel.unattended():
                self.show()

    @property
    def shown_here(self) -> bool:
        """Whether the cell that is being executed displays it."""
        return self._shown_in is not None and self._shown_in == kernel.execution()

    def _display(self) -> RunDisplay:
        if self._shown is None:
            assert self._diagram is not None
            execution = self._execution if isinstance(self._execution, Execution) else None
            budget = None if execution is None else execution.options.budget
            self._shown = RunDisplay(
                self._runtime,
                self._state,
                self._diagram,
                read=self._pages,
                finished=self._finished.is_set,
                stop=None if self._execution is None else self.stop,
                answer=None if execution is None else self._answered_in_view,
                answers=self._answers,
                budget=None if budget is None else budget.usd,
                timeless=self.repeated,
                timeline=lambda: self.timeline,
                orders=self._orders(),
            )
        return self._shown

    def _display_(self) -> Any:
        # marimo's protocol: what it returns is displayed instead.
        self.attended = True
        if self._diagram is None or not self._view:
            from IPython.display import HTML

            return HTML(self._repr_mimebundle_()["text/html"])
        return self._display().widget()

    def _ipython_display_(self) -> None:
        # Not a mimebundle alone: its output follows the run, for which it needs a handle.
        self.show()

    @displayed
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The static form of the run, as it is now."""
        state = static_view.timeless(self.state) if self.repeated else self.state
        return static_view.bundle(state, self._diagram, when=None if self.repeated else self.timeline)
