"""Prepares, starts, resumes, answers, replays and deletes runs, with the services that `dipeo_nb.container` builds."""

from typing import TYPE_CHECKING

from dipeo_nb.common import lazy

if TYPE_CHECKING:
    from dipeo_nb.runtime.prepared import Prepared, Recovery
    from dipeo_nb.runtime.runtime import Runtime, with_services
else:  # who looks up a run, or checks a diagram, starts none
    __getattr__ = lazy.attributes(
        __name__, {"Prepared": "prepared", "Recovery": "prepared", "Runtime": "runtime", "with_services": "runtime"}
    )

__all__ = ["Prepared", "Recovery", "Runtime", "with_services"]
