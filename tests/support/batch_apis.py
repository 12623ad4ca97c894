"""The batch APIs of three providers."""

from __future__ import annotations

import json
from typing import Any

from tests.support import wire_openai as openai_words
from tests.support.wire_openai import Call

FAILING = {7, 23, 42}


def prompt_in(text: str) -> int:
    """The number in `item 7`."""
    return int(text.rsplit(" ", 1)[1])


class Provider:
    """A batch API that is done after a number of looks; items in `FAILING` fail."""

    service = "openai"
    model = "gpt-4o"

    def __init__(self, looks: int = 2, end: str = "completed", answer: str = "Answer") -> None:
        self.looks, self.end, self.answer = looks, end, answer
        self.items: list[tuple[str, int]] = []
        self.cancelled = False

    @property
    def over(self) -> bool:
        self.looks -= 1
        return self.looks <= 0 or self.cancelled

    def text(self, n: int) -> str:
        return self.answer if self.answer.startswith("{") else f"{self.answer} {n}"


class OpenAI(Provider):
    def __call__(self, call: Call) -> None:
        path = call.seen.path.removeprefix("/v1")
        if path == "/files":
            body = call.seen.raw.decode()
            lines = [json.loads(x) for x in body.splitlines() if x.startswith("{")]
            assert all(x["url"] == "/v1/responses" for x in lines)
            self.items = [(x["custom_id"], prompt_in(x["body"]["input"][-1]["content"])) for x in lines]
            call.json(
                200,
                {
                    "id": "file-in",
                    "object": "file",
                    "bytes": 1,
                    "created_at": 1,
                    "filename": "b",
                    "purpose": "batch",
                    "status": "processed",
                },
            )
        elif path.startswith("/files/"):
            failed = "errors" in path
            lines = [self.line(name, n) for name, n in reversed(self.items) if (n in FAILING) is failed]
            data = "\n".join(lines).encode()
            call.headers(content_type="application/jsonl", content_length=str(len(data)))
            call.send(data.decode())
        else:
            self.cancelled = self.cancelled or path.endswith("/cancel")
            over = call.seen.method == "GET" and self.over
            state = ("cancelled" if self.cancelled else self.end) if over else "in_progress"
            counts = {
                "total": len(self.items),
                "completed": len(self.items) - 3 if over else 0,
                "failed": 3 if over else 0,
            }
            files = {"output_file_id": "file-out", "error_file_id": "file-errors"} if over and self.end == "completed" else {}
            call.json(
                200,
                {
                    "id": "batch_1",
                    "object": "batch",
                    "endpoint": "/v1/responses",
                    "completion_window": "24h",
                    "created_at": 1,
                    "input_file_id": "file-in",
                    "status": state,
                    "request_counts": counts,
                    **files,
                },
            )

    def line(self, name: str, n: int) -> str:
        if n in FAILING:
            body: Any = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
            return json.dumps({"custom_id": name, "response": {"status_code": 429, "body": body}, "error": None})
        body = openai_words.final(openai_words.message(self.text(n)))["response"]
        return json.dumps({"custom_id": name, "response": {"status_code": 200, "request_id": "r", "body": body}, "error": None})


class Anthropic(Provider):
    service = "anthropic"
    model = "claude-sonnet-5"

    def __call__(self, call: Call) -> None:
        path = call.seen.path
        if path == "/v1/messages/batches" and call.seen.method == "POST":
            requests = call.seen.body["requests"]
            self.items = [(r["custom_id"], prompt_in(r["params"]["messages"][-1]["content"][0]["text"])) for r in requests]
            call.json(200, self.batch("in_progress"))
        elif path.endswith("/results"):
            data = "\n".join(json.dumps(self.entry(name, n)) for name, n in reversed(self.items))
            call.headers(content_type="application/x-jsonl", content_length=str(len(data)))
            call.send(data)
        else:
            self.cancelled = self.cancelled or path.endswith("/cancel")
            call.json(200, self.batch("ended" if call.seen.method == "GET" and self.over else "in_progress", call))

    def batch(self, state: str, call: Call | None = None) -> dict[str, Any]:
        total = len(self.items)
        counts = {"processing": total, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        if state == "ended":
            counts = {**counts, "processing": 0}
            if self.cancelled:
                counts["canceled"] = total
            elif self.end == "expired":
                counts["expired"] = total
            else:
                counts |= {"succeeded": total - 3, "errored": 3}
        url = f"http://127.0.0.1:{self.port}/v1/messages/batches/msgbatch_1/results" if state == "ended" else None
        return {
            "id": "msgbatch_1",
            "type": "message_batch",
            "processing_status": state,
            "request_counts": counts,
            "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z",
            "ended_at": None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": url,
        }

    port = 0

    def entry(self, name: str, n: int) -> dict[str, Any]:
        if self.cancelled or self.end == "expired":
            return {"custom_id": name, "result": {"type": "canceled" if self.cancelled else "expired"}}
        if n in FAILING:
            inner = {"type": "rate_limit_error", "message": "slow down"}
            return {
                "custom_id": name,
                "result": {"type": "errored", "error": {"type": "error", "error": inner, "request_id": None}},
            }
        usage = {"input_tokens": 20, "output_tokens": 8}
        message = {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [{"type": "text", "text": self.text(n)}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }
        return {"custom_id": name, "result": {"type": "succeeded", "message": message}}


class Google(Provider):
    service = "gemini"
    model = "gemini-2.5-flash"

    def __call__(self, call: Call) -> None:
        path = call.seen.path
        if path.endswith(":batchGenerateContent"):
            requests = call.seen.body["batch"]["inputConfig"]["requests"]["requests"]
            self.items = [(r["metadata"]["key"], prompt_in(r["request"]["contents"][-1]["parts"][0]["text"])) for r in requests]
            call.json(200, self.job(over=False))
        elif path.endswith(":cancel"):
            self.cancelled = True
            call.json(200, {})
        else:
            call.json(200, self.job(over=self.over))

    def job(self, *, over: bool) -> dict[str, Any]:
        end = {"completed": "SUCCEEDED", "expired": "EXPIRED", "failed": "FAILED"}[self.end]
        state = ("CANCELLED" if self.cancelled else end) if over else "RUNNING"
        metadata: dict[str, Any] = {
            "@type": "t",
            "model": f"models/{self.model}",
            "state": f"BATCH_STATE_{state}",
            "createTime": "2026-01-01T00:00:00Z",
        }
        job: dict[str, Any] = {"name": "batches/b1", "metadata": metadata}
        if over and state == "SUCCEEDED":
            answers = {"inlinedResponses": {"inlinedResponses": [self.answered(name, n) for name, n in self.items]}}
            metadata["output"] = answers
            job |= {"done": True, "response": {"@type": "r", **answers}}
        return job

    def answered(self, name: str, n: int) -> dict[str, Any]:
        if n in FAILING:
            return {"metadata": {"key": name}, "error": {"code": 8, "message": "slow down"}}
        part = {"content": {"role": "model", "parts": [{"text": self.text(n)}]}, "finishReason": "STOP", "index": 0}
        usage = {"promptTokenCount": 20, "candidatesTokenCount": 8, "totalTokenCount": 28}
        return {
            "metadata": {"key": name},
            "response": {"candidates": [part], "usageMetadata": usage, "modelVersion": self.model},
        }
