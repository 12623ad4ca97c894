"""A run with a loop, a batch of sub-diagrams, a shared sub-diagram and persons, and processes that die in the middle of it.

    python -m tests.support.durable_run BASE [NUMBER …]

makes, for each NUMBER, a process that starts the run and is killed with SIGKILL right after that many commits of the run store;
a NUMBER with a run id (`12:exec_…`) resumes that run instead. Prints one line for each: the number, the run's id, how the
process ended (`killed`, or the run's status), and the commits it made.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dipeo_nb.config import get_settings
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

MAIN = """
version: light
metadata: {name: Durable}
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start, custom_data: {topic: cats}}
- {label: Count, type: code_job, code: "try:\\n    n += 1\\nexcept NameError:\\n    n = 1\\nreturn {'n': n}"}
- {label: Enough, type: condition, expression: n >= 3, expose_index_as: round}
- {label: Note, type: db, operation: append, file: effects.json}
- {label: Items, type: code_job, code: "return {'items': ['a', 'b', 'c'], 'n': n}"}
- {label: Batch, type: sub_diagram, diagram_name: part, batch: true}
- {label: Ask, type: person_job, person: Ada, default_prompt: "About {{topic}}, {{round}}."}
- {label: Talk, type: sub_diagram, diagram_name: talk}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Count}
- {from: Count, to: Enough}
- {from: Enough_condfalse, to: Note, label: value}
- {from: Note, to: Count}
- {from: Enough_condtrue, to: Items}
- {from: Items, to: Batch}
- {from: Batch, to: Ask, label: parts}
- {from: Ask, to: Talk, label: said}
- {from: Talk, to: End}
- {from: Batch, to: End, label: parts}
"""
PART = """
version: light
nodes:
- {label: Start, type: start}
- {label: Upper, type: code_job, code: "return {'value': default.upper() if isinstance(default, str) else item}"}
- {label: Keep, type: db, operation: append, file: effects.json}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Upper, label: item}
- {from: Upper, to: Keep}
- {from: Upper, to: End}
- {from: Keep, to: End, label: kept, content_type: empty}
"""
TALK = """
version: light
persons:
  Ada: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: Again, type: person_job, person: Ada, default_prompt: "Again: {{said}}"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Again}
- {from: Again, to: End}
"""


class Mortal(SqliteRunStore):
    """A run store whose process dies right after a commit."""

    commits = 0
    last = 0

    async def append(self, events: Sequence[Event]) -> None:
        await super().append(events)
        self.commits += 1
        if self.commits == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def prepare(base: Path) -> None:
    """The three diagrams, in *base*."""
    for name, text in (("main", MAIN), ("part", PART), ("talk", TALK)):
        (base / f"{name}.light.yaml").write_text(text)


def session(base: Path, store: SqliteRunStore | None = None) -> Session:
    settings = get_settings().model_copy(update={"base_dir": base, "execution_parallelism": 4})
    more: dict[str, Any] = {} if store is None else {"store": store}
    return Session(settings=settings, trust_base=True, llm=scripted("Fine."), **more)


def live(base: Path, last: int, run_id: str | None) -> None:
    """In a process of its own: run, or resume, until the commit number *last*."""
    store = Mortal(base / ".dipeo" / "runs.db")
    store.last = last
    dp = session(base, store)
    run = dp.resume(run_id, view=False) if run_id else dp.start("main.light.yaml", view=False)
    (base / f"{last}.id").write_text(run.id)
    run.wait(60)
    (base / f"{last}.end").write_text(f"{run.status} {store.commits}")
    dp.close()


def main() -> None:
    base = Path(sys.argv[1])
    for word in sys.argv[2:]:
        number, _, run_id = word.partition(":")
        pid = os.fork()
        if pid == 0:
            live(base, int(number), run_id or None)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        known = (base / f"{number}.id").read_text() if (base / f"{number}.id").exists() else "unknown"
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            print(number, known, "killed", number)
        else:
            print(number, known, (base / f"{number}.end").read_text())


if __name__ == "__main__":
    main()
