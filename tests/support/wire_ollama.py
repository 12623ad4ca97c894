"""An Ollama server for tests: a `ScriptedServer` whose one reply is an `Ollama`, which knows models and can fetch more."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.wire_openai import Call, Reply

CREATED = "2026-11-01T10:00:00.000000Z"


def chunk(content: str = "", *, model: str = "llama3.2", **message: Any) -> dict[str, Any]:
    """A line of a streamed answer."""
    said = {"role": "assistant", "content": content, **message}
    return {"model": model, "created_at": CREATED, "message": said, "done": False}


def end(reason: str = "stop", *, model: str = "llama3.2", **counts: int) -> dict[str, Any]:
    """The last line, with the counts."""
    given = {"prompt_eval_count": 20, "eval_count": 9, "total_duration": 5_000_000, "load_duration": 1_000_000} | counts
    message = {"role": "assistant", "content": ""}
    return {"model": model, "created_at": CREATED, "message": message, "done": True, "done_reason": reason, **given}


def tool_call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call as it stands in `message.tool_calls`."""
    return {"function": {"name": name, "arguments": arguments}}


def lines(
    *items: dict[str, Any], between: Callable[[], object] = lambda: None, before_last: Callable[[], None] = lambda: None
) -> Reply:
    """A reply of these lines, with what is done between two of them. What the last one tells has happened before it is sent:
    `before_last` does it."""

    def reply(call: Call) -> None:
        call.headers(content_type="application/x-ndjson", connection="close")
        for number, item in enumerate(items, 1):
            if number == len(items):
                before_last()
            call.send(json.dumps(item) + "\n")
            if number < len(items):
                between()

    return reply


def says(words: str, **counts: int) -> Reply:
    """A reply that streams a text word by word."""
    return lines(*map(chunk, words.replace(" ", " \0").split("\0")), end(**counts))


def error(status: int, message: str) -> Reply:
    """A refusal as Ollama words it."""
    return lambda call: call.json(status, {"error": message})


def layer(digest: str, completed: int, total: int) -> dict[str, Any]:
    """A step of a download."""
    return {"status": f"pulling {digest}", "digest": f"sha256:{digest}", "completed": completed, "total": total}


DOWNLOAD = (
    {"status": "pulling manifest"},
    layer("aaa", 50, 100),
    layer("aaa", 100, 100),
    layer("bbb", 10, 10),
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
)


class Ollama:
    """A reply that answers as an Ollama server with these models does.

    Args:
        answers: to `/api/chat`, in turn; the last one serves further calls.
        models: that are there.
        download: the steps of a download; one that ends with success adds the model.
        between: what is done between two steps of a download.
    """

    def __init__(
        self,
        *answers: Reply,
        models: Sequence[str] = ("llama3.2:latest",),
        download: Sequence[dict[str, Any]] = DOWNLOAD,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self.models = list(models)
        self.asked: list[str] = []
        """The paths, in order."""
        self._answers = list(answers)
        self._download = download
        self._between = between
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> None:
        with self._lock:
            self.asked.append(call.seen.path)
        match call.seen.method, call.seen.path:
            case "GET", "/api/tags":
                call.json(200, {"models": [{"name": m, "model": m, "size": 100} for m in self.models]})
            case "POST", "/api/pull":

                def fetched() -> None:
                    if self._download[-1].get("status") == "success":
                        self.models.append(f"{call.seen.body['model']}:latest")

                lines(*self._download, between=self._between, before_last=fetched)(call)
            case "POST", "/api/chat":
                wanted = call.seen.body["model"]
                if not {wanted, f"{wanted}:latest"} & {m.lower() for m in self.models} and wanted not in self.models:
                    call.json(404, {"error": f"model '{wanted}' not found"})
                    return
                with self._lock:
                    reply = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                reply(call)
            case _:
                call.json(404, {"error": "404 page not found"})

    def times(self, path: str) -> int:
        """How often a path was asked for."""
        return self.asked.count(path)
