"""Results of runs as content of the protocol."""

from __future__ import annotations

import base64
from typing import Any

import pytest

types = pytest.importorskip("mcp_types", reason="not here: the extra mcp")
from dipeo_nb.domain.enums import Status  # noqa: E402
from dipeo_nb.execution.run_state import RunState  # noqa: E402
from dipeo_nb.server import mcp_content  # noqa: E402


def result(**outputs: Any) -> Any:
    state = RunState("exec_1")
    state.status, state.outputs = Status.COMPLETED, outputs
    return mcp_content.result(state)


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n123", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\x04\0\0\0WEBP", "image/webp"),
        (b"RIFF\x04\0\0\0WAVE", "audio/wav"),
        (b"RIFF", "application/octet-stream"),
        (b"%PDF-1.7", "application/pdf"),
        (b"", "application/octet-stream"),
    ],
)
def test_bytes(data: bytes, kind: str):
    """An image is one, a sound is one, other bytes are a file; the structured result does not repeat them."""
    got = result(End={"base64": packed(data)})
    (block,) = got.content
    blob = block.resource.blob if block.type == "resource" else block.data
    assert (base64.b64decode(blob), block.type) == (data, {"image": "image", "audio": "audio"}.get(kind[:5], "resource"))
    assert (block.resource if block.type == "resource" else block).mime_type == kind
    assert got.structured_content["outputs"] == {"End": f"({kind})"}


def test_texts_stand_before_images():
    got = result(Words="A dot:", Dot=f"data:image/png;base64,{packed(b'x')}", Page="data:text/html,%3Cp%3E")
    assert [block.type for block in got.content] == ["text", "image", "resource"]
    assert got.content[0].text == "A dot:"
    assert base64.b64decode(got.content[2].resource.blob) == b"<p>"
    assert got.structured_content["outputs"] == {"Words": "A dot:", "Dot": "(image/png)", "Page": "(text/html)"}


def test_content_of_a_tool_is_passed_on():
    got = result(End={"text": "See", "content": [{"type": "image", "data": packed(b"x"), "mimeType": "image/gif"}]})
    assert [block.type for block in got.content] == ["text", "image"]
    assert got.structured_content["outputs"] == {"End": "(text of 3 characters); (image/gif)"}


@pytest.mark.parametrize(
    "value",
    [
        "text", "data:image/png;base64,???", "database: x", {"base64": "???"}, {"base64": 3}, {"base64": "", "other": 1},
        {"text": "a", "content": [{"type": "nothing"}]}, {"text": "a", "content": "b"}, {"text": "a", "content": []}, None, [],
    ],
)  # fmt: skip
def test_what_only_looks_like_content_is_text(value: Any):
    got = result(End=value)
    assert [block.type for block in got.content] == ["text"]
    assert got.structured_content["outputs"] == {"End": value}


def test_a_failed_run_shows_its_error():
    state = RunState("exec_1")
    state.status, state.error = Status.FAILED, {"message": "It broke.", "hint": "Mend it.", "node": "A"}
    got = mcp_content.result(state)
    assert got.is_error
    assert got.content[0].text == "It broke. (node 'A') Mend it."
