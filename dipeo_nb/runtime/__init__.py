"""Prepares, starts, resumes, answers, replays and deletes runs, with the services that `dipeo_nb.container` builds."""

from dipeo_nb.runtime.prepared import Prepared, Recovery
from dipeo_nb.runtime.runtime import Runtime, with_services

__all__ = ["Prepared", "Recovery", "Runtime", "with_services"]
