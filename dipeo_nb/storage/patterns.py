"""Patterns of paths: `*`, `?` and `[…]` within a component, `**` for any number of folders, or for everything below at the end."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import PurePosixPath

from dipeo_nb.common.paths import refuse_unseen, refused

States = frozenset[int]
"""Indices of the pattern components that the next path component may match."""
_WILDCARDS = re.compile(r"[*?\[]")


class PathPattern:
    """A pattern that is matched against paths component by component.

    Raises:
        StorageError: `refused`: it is empty, absolute, or has `..`.
    """

    def __init__(self, text: str) -> None:
        refuse_unseen(text)
        parts = PurePosixPath(text).parts
        if not parts or text.startswith("/") or os.path.isabs(text) or ".." in parts:
            raise refused(text, "a pattern must be relative and stay below the base directory")
        flags = re.IGNORECASE if os.name == "nt" else 0
        self._parts = [None if part == "**" else re.compile(fnmatch.translate(part), flags) for part in parts]
        literal = 0
        while literal < len(parts) - 1 and not _WILDCARDS.search(parts[literal]):
            literal += 1
        self.folder: tuple[str, ...] = parts[:literal]
        """The components before the first one with wildcards; not the last component."""
        self.first: States = self._and_without_folders({literal})
        """Initial states in that folder."""

    def step(self, states: States, name: str, *, any_folders: bool = True) -> States:
        """Return the states after one more component.

        Args:
            any_folders: whether `**` matches it, too.
        """
        found: set[int] = set()
        for state in states:
            part = self._parts[state] if state < len(self._parts) else None
            if part is not None:
                if part.match(name):
                    found.add(state + 1)
            elif state < len(self._parts) and any_folders:
                found.add(state)
        return self._and_without_folders(found)

    def is_whole(self, states: States) -> bool:
        """Whether the components so far match the pattern."""
        return len(self._parts) in states

    def goes_on(self, states: States) -> bool:
        """Whether further components may match."""
        return any(state < len(self._parts) for state in states)

    def matches(self, path: PurePosixPath) -> bool:
        """Whether a whole path matches."""
        states = self._and_without_folders({0})
        for name in path.parts:
            states = self.step(states, name)
        return self.is_whole(states)

    def _and_without_folders(self, states: set[int]) -> States:
        """`**` may also match no folder at all."""
        todo = list(states)
        while todo:
            state = todo.pop()
            if state < len(self._parts) and self._parts[state] is None and state + 1 not in states:
                states.add(state + 1)
                todo.append(state + 1)
        return frozenset(states)
