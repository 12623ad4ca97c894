"""A process with a run whose question waits, for tests that kill it: `python question_process.py BASE start|resume RUN`. Prints the
run's id when the question can be answered, and the output when the run has ended."""

from __future__ import annotations

import sys
import time

from dipeo_nb.config import Settings
from dipeo_nb.notebook.session import Session

ASKING = """\
version: light
nodes:
  - {label: S, type: start}
  - {label: Before, type: code_job, props: {language: python, code: "return 1"}}
  - {label: Colour, type: user_response, props: {prompt: "Which colour?", timeout: 300, default: "grey"}}
  - {label: E, type: endpoint}
connections:
  - {from: S, to: Before}
  - {from: Before, to: Colour}
  - {from: Colour, to: E}
"""


def main(base: str, what: str, run_id: str = "") -> None:
    session = Session(settings=Settings(base_dir=base))  # pyright: ignore[reportArgumentType]
    run = session.start(ASKING, view=False) if what == "start" else session.resume(run_id, view=False)
    while not run.question and not run.finished:
        time.sleep(0.002)
    print(run.id, flush=True)
    run.wait(200)
    print(run.status, run.outputs, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
