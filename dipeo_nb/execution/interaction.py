"""Who answers the questions of user_response nodes."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from dipeo_nb.common import user_code
from dipeo_nb.common.moved import moved_names
from dipeo_nb.domain.ports import InteractionPort, Question
from dipeo_nb.errors import RunError
from dipeo_nb.execution.nested import question_names


class ScriptedPrompter:
    """Answers given beforehand; a list answers repeated questions in turn.

    Args:
        answers: the label or id of a node → text, or a list of texts. Nodes of sub-diagrams are named by their label or, where
            several have the same one, by a path: `Sub/Question`; for one item of a batch (from 0) `Sub[2]/Question`.
        fallback: who answers nodes that have none; None: an error naming the node.
    """

    def __init__(
        self, answers: Mapping[str, str | Sequence[str]] | None = None, fallback: InteractionPort | None = None
    ) -> None:
        self._answers = {k: [v] if isinstance(v, str) else list(v) for k, v in (answers or {}).items()}
        self._fallback = fallback

    async def ask(self, question: Question) -> tuple[str, str]:
        path = question.path or (question.label,)
        for key in (*question_names(path), *((question.node_id,) if len(path) == 1 else ())):
            if key in self._answers:
                left = self._answers[key]
                if not left:
                    break
                # The last answer serves every further question.
                return (left.pop(0) if len(left) > 1 else left[0]), "answers"
        if self._fallback is not None:
            return await asked_of(self._fallback, question)
        raise nobody(question)


class ConsolePrompter:
    """Asks on the terminal; refuses at once where there is none."""

    def __init__(self, read: TextIO | None = None, write: TextIO | None = None) -> None:
        self._read = read
        self._write = write

    async def ask(self, question: Question) -> tuple[str, str]:
        read, write = self._read or sys.stdin, self._write or sys.stderr
        if self._read is None and not read.isatty():
            if question.default is not None:
                return question.default, "default"
            raise nobody(question)
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[str] = loop.create_future()

        def prompt() -> None:
            default = f" [{question.default}]" if question.default is not None else ""
            write.write(f"{question.text}{default}\n> ")
            write.flush()
            line = read.readline()
            loop.call_soon_threadsafe(lambda: answered.done() or answered.set_result(line))

        # A daemon thread: a question nobody answers any more must not hold the interpreter's exit.
        threading.Thread(target=prompt, name="dipeo-question", daemon=True).start()
        line = (await answered).rstrip("\r\n")
        return (line, "user") if line or question.default is None else (question.default, "default")


class Unanswered:
    """Asks no one here: the question is answered through the run (`Execution.answer`, HTTP, another process)."""

    async def ask(self, question: Question) -> tuple[str, str]:
        return await asyncio.get_running_loop().create_future()


class NoAnswers:
    """Nobody is asked: the default of a question counts, and without one it is an error."""

    async def ask(self, question: Question) -> tuple[str, str]:
        if question.default is None:
            raise nobody(question)
        return question.default, "default"


async def asked_of(port: InteractionPort, question: Question) -> tuple[str, str]:
    """What a port answers. One that users wrote is called as all their code is: whatever it does, it holds nobody else.

    Raises:
        RunError: its answer is none.
    """
    if type(port).__module__.partition(".")[0] == __name__.partition(".")[0]:
        return await port.ask(question)
    answer: object = await user_code.call(port.ask, question)
    match answer:
        case (str() as text, str() as source):
            return text, source
        case _:
            raise RunError(
                f"{type(port).__name__}.ask answered '{question.label}' with {type(answer).__name__}, not with (text, source).",
                hint='Return e.g. ("yes", "user").',
                node=question.label,
                run_id=question.run_id,
            )


def no_question(name: str | None, run_id: str, waiting: Sequence[str] = ()) -> RunError:
    """The error of an answer to a question that does not wait, or not any more.

    Args:
        name: the id or the node of the question; None: any.
        waiting: the nodes whose questions wait.
    """
    which = f" '{name}'" if name else ""
    names = ", ".join(f"'{one}'" for one in waiting)
    hint = f"Those of {names} wait." if names else "See run.question for the one that does."
    return RunError(f"No question{which} waits for an answer.", hint=hint, run_id=run_id, cause="no_question")


def nobody(question: Question) -> RunError:
    """The error of a question that nobody can answer here."""
    return RunError(
        f"'{question.label}' asks \"{question.prompt}\" and nobody can answer here.",
        hint=f"Give the answer beforehand: answers={{'{question.label}': '…'}} in Python, "
        f"--answer '{question.label}=…' on the command line.",
        node=question.label,
        run_id=question.run_id,
    )


# The former names, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "ConsoleAnswers": "dipeo_nb.execution.interaction:ConsolePrompter",
            "GivenAnswers": "dipeo_nb.execution.interaction:ScriptedPrompter",
        },
    )
