"""Processes for work that must be possible to end at any moment: what a regular expression or a C function does holds the
interpreter, so no thread, signal or time limit of the same process can stop it."""

from dipeo_nb.workers.pool import WORKERS, WorkerPool

__all__ = ["WORKERS", "WorkerPool"]
