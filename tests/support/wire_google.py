"""The words of the Gemini API's `streamGenerateContent`, for a `ScriptedServer`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.support.wire_openai import Call, Reply

USAGE = {
    "promptTokenCount": 30,
    "cachedContentTokenCount": 10,
    "candidatesTokenCount": 8,
    "thoughtsTokenCount": 4,
    "totalTokenCount": 42,
}


def text(words: str, **more: Any) -> dict[str, Any]:
    """A part with text; `thought=True` for a thought."""
    return {"text": words, **more}


def function_call(name: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A part with a call; `id=` and `thoughtSignature=` as the newer models have them."""
    signature = {"thoughtSignature": more.pop("thoughtSignature")} if "thoughtSignature" in more else {}
    return {"functionCall": {"name": name, "args": args, **more}, **signature}


def chunk(*parts: dict[str, Any], finish: str | None = None, **candidate: Any) -> dict[str, Any]:
    """One event of the stream; the last one has a *finish* reason and the whole usage."""
    end = {"finishReason": finish} if finish else {}
    usage = {"usageMetadata": USAGE if finish else {"promptTokenCount": 30, "totalTokenCount": 30}}
    return {
        "candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0, **end, **candidate}],
        "modelVersion": "gemini-2.5-flash-001",
        "responseId": "resp_g1",
        **usage,
    }


def body(chunks: Sequence[dict[str, Any]]) -> str:
    """Events as they stand in the body."""
    return "".join(f"data: {json.dumps(c)}\r\n\r\n" for c in chunks)


def streams(*chunks: dict[str, Any], **headers: str) -> Reply:
    """A reply of these events."""

    def reply(call: Call) -> None:
        call.headers(content_type="text/event-stream", connection="close", **headers)
        for one in chunks:
            call.send(body([one]))

    return reply


def says(words: str, **more: Any) -> Reply:
    """A reply that streams a text word by word."""
    pieces = words.replace(" ", " \0").split("\0")
    return streams(*(chunk(text(p)) for p in pieces[:-1]), chunk(text(pieces[-1]), finish="STOP"), **more)


def error(status: int, message: str, word: str = "", *details: dict[str, Any], **headers: str) -> Reply:
    """A refusal in the form of Google's APIs."""
    inner = {"code": status, "message": message, "status": word, "details": list(details)}
    return lambda call: call.json(status, {"error": inner}, **headers)


def retry_info(delay: str) -> dict[str, Any]:
    """The detail that asks to wait."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def quota(quota_id: str) -> dict[str, Any]:
    """The detail that names the quota that is used up."""
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]}


def error_info(reason: str) -> dict[str, Any]:
    """The detail with the reason."""
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
