"""The command `dipeo-nb` in this process: what it printed, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from dipeo_nb import cli

HELLO = """\
version: light
persons:
  Ada: {service: openai, model: gpt-5-nano}
nodes:
  - {label: Start, type: start}
  - {label: Greet, type: person_job, person: Ada, default_prompt: "Greet {{name}}", max_iteration: 1}
  - {label: End, type: endpoint}
connections:
  - {from: Start, to: Greet}
  - {from: Greet, to: End}
"""
"""A diagram of one person."""


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What stdout holds."""
        return json.loads(self.out)


Call = Callable[..., Done]


def caller(capsys: pytest.CaptureFixture[str]) -> Call:
    """What runs the command with arguments; none may end in a traceback."""

    def run(*arguments: object) -> Done:
        status = cli.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Done(status, captured.out, captured.err)

    return run
