"""Random event logs: what a run may tell in any order, some of it stranger than runs are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event

IDS = ("a", "b", "__proto__", "constructor", "Zoë 🦊", "node 5")
WORDS = ("one ", "two\n", "🦊", "", "</script>", "\u2028", "*x*", "שלום")
T = EventType


def random_log(seed: int) -> list[Event]:
    """A log of up to about 80 events."""
    return [
        Event(seq, kind, "exec_random", 1000.0 + seq * 0.25, node, payload)
        for seq, (kind, node, payload) in enumerate(_Run(random.Random(seed)).events(), 1)
    ]


class _Run:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.nodes = rng.sample(IDS, rng.randint(1, 4))
        self.runs: dict[str, int] = {}
        self.asked: list[tuple[str, str]] = []

    def events(self) -> Iterator[tuple[EventType, str | None, dict[str, Any]]]:
        rng = self.rng
        labels = {node: f"Label {node}" for node in self.nodes}
        source = {"nodes": {}, "persons": {}}
        yield (
            T.EXECUTION_STARTED,
            None,
            {"variables": {}, "diagram": "Random", "labels": labels, "source": source, "model": rng.choice([None, "m"])},
        )
        for _ in range(rng.randint(3, 60)):
            yield self.step(rng.choice(self.nodes))
            if rng.random() < 0.02:
                yield self.end()
                yield T.EXECUTION_STARTED, None, {"variables": {}, "diagram": "Random", "resumed": 1}
        if rng.random() < 0.8:
            yield self.end()

    def step(self, node: str) -> tuple[EventType, str | None, dict[str, Any]]:
        rng = self.rng
        if node not in self.runs:
            self.runs[node] = 0
            return (
                T.NODE_STARTED,
                node,
                {"label": node, "node_type": "person_job", "run": 1, "inputs": {"x": [self.nodes[0], 1]}},
            )
        match rng.randint(0, 16):
            case 0 | 1:
                return (
                    T.NODE_STARTED,
                    node,
                    {"label": node, "node_type": "person_job", "run": self.runs[node] + 1, "inputs": {}},
                )
            case 2 | 3 | 4 | 5:
                kind = rng.choice(["text", "text", "stdout", "reasoning"])
                more = {"restart": True} if rng.random() < 0.1 else {}
                return T.NODE_OUTPUT, node, {"kind": kind, "text": rng.choice(WORDS), "is_partial": True, "run": 1, **more}
            case 6:
                more = {"background": True} if rng.random() < 0.3 else {}
                return T.NODE_OUTPUT, node, {"kind": "usage", "text": "", "run": 1, "data": self.meta(), **more}
            case 7:
                return T.NODE_OUTPUT, node, self.other()
            case 14:
                return T.NODE_WAITING, node, {"label": node, "node_type": "person_job", "run": self.runs[node] + 1}
            case 15:
                of_item = {"index": rng.randint(0, 2)} if rng.random() < 0.3 else {}
                system = {"system": "You are A."} if rng.random() < 0.5 else {}
                data = {"person_id": "P", "memory": {}, **system, **of_item}
                return T.NODE_OUTPUT, node, {"kind": "prompt", "text": rng.choice(WORDS), "run": 1, "data": data}
            case 16:
                return T.RUN_NOTE, None, {"first": 1, "last": 2, "text": rng.choice(WORDS)}
            case 8:
                request = f"q{rng.randint(0, 3)}"
                self.asked.append((request, node))
                return T.INTERACTIVE_PROMPT, node, {"prompt": "Well?", "timeout": None, "default": None, "request_id": request, "label": rng.choice(["A", "B"])}  # fmt: skip
            case 9 if self.asked:
                request, asker = self.asked.pop()
                return T.INTERACTIVE_RESPONSE, asker, {"request_id": request, "answer": "yes", "source": "user"}
            case 10:
                self.runs[node] += 1
                error = {"type": "E", "message": rng.choice(WORDS), "node": node}
                return (
                    T.NODE_ERROR,
                    node,
                    {"label": node, "run": self.runs[node], "error": error, "meta": self.meta(), "duration_ms": 3.0},
                )
            case 11:
                return T.NODE_COMPLETED, node, {"label": node, "run": self.runs[node], "status": "maxiter_reached"}
            case 12:
                level = rng.choice(["INFO", "WARNING"])
                more = {"retry_in_s": 0.5} if rng.random() < 0.5 else {}
                return T.EXECUTION_LOG, node, {"level": level, "message": "again", "logger_name": "x", "extra_fields": more}
            case _:
                self.runs[node] += 1
                return T.NODE_COMPLETED, node, self.completed(node)

    def completed(self, node: str) -> dict[str, Any]:
        rng = self.rng
        meta = self.meta() if rng.random() < 0.7 else {}
        if rng.random() < 0.5:
            meta |= {
                "messages": [{"id": f"m{rng.random()}", "from_person_id": "system", "to_person_id": "P", "content": "hello"}],
                "memory": {"view": "ALL", "ids": []},
                "person_id": "P",
            }
        if rng.random() < 0.2:
            meta |= {"retries": 2}
        if rng.random() < 0.1:
            meta |= {"reused": {"run_id": "x", "seq": 1}}
        output = rng.choice(["text", {"a": [1, 2.5, None]}, 7, None, "", {"__proto__": 1}])
        return {
            "label": node, "node_type": rng.choice(["person_job", "endpoint", "code_job"]), "run": self.runs[node], "status": "completed",
            "output": output, "meta": meta, "duration_ms": rng.choice([0.5, 1000.0]),
        }  # fmt: skip

    def other(self) -> dict[str, Any]:
        rng = self.rng
        match rng.randint(0, 4):
            case 0:
                return {"kind": "tool", "text": "search", "run": 1, "step": "call", "data": {"id": "c1", "arguments": {"q": 1}}}
            case 1:
                return {"kind": "tool", "text": "found", "run": 1, "step": "result", "data": {"id": "c1", "is_error": False}}
            case 2:
                child = {"run_id": f"exec_{rng.randint(0, 2)}", "index": 0, "diagram": "part"}
                return {"kind": "run", "text": "", "run": 1, "data": child}
            case 3:
                return {
                    "kind": "progress",
                    "text": "1 of 3",
                    "run": 1,
                    "data": rng.choice([None, {"done": 1, "total": 3}, {"run_id": "r", "node": "n"}]),
                }
            case _:
                return {"kind": "of a later version", "text": "", "run": 1}

    def meta(self) -> dict[str, Any]:
        rng = self.rng
        counts = {name: rng.randint(0, 900) for name in ("input", "output", "cache_read", "reasoning") if rng.random() < 0.6}
        made: dict[str, Any] = {"usage": counts, "person": rng.choice(["P", "Q", None])}
        if rng.random() < 0.9:
            made["cost_usd"] = rng.choice([0.0, 0.001, 0.25, None])
        return made

    def end(self) -> tuple[EventType, str | None, dict[str, Any]]:
        rng = self.rng
        statuses = {node: rng.choice(["skipped", "maxiter_reached", "aborted"]) for node in self.nodes if rng.random() < 0.3}
        done = {"total_duration_ms": 1500.0, "node_status": statuses}
        if rng.random() < 0.5:
            return T.EXECUTION_COMPLETED, None, {"status": "completed", **done}
        error = {"type": "E", "message": "no", "node": None}
        return T.EXECUTION_ERROR, None, {"status": rng.choice(["failed", "aborted", "interrupted"]), "error": error, **done}
