"""The result of a run as content of the Model Context Protocol: its text, and the images, sounds and files among its outputs.

An output that is bytes, a `data:` address, or what a tool of another MCP server gave besides text becomes content of its own. The
structured result only names it, so that no model reads a picture as letters.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import mcp_types as types
from pydantic import TypeAdapter
from pydantic import ValidationError as WrongShape

from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.enums import Status
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.server.diagram_tools import in_words, result_of, text_of

_BLOCKS: TypeAdapter[list[types.ContentBlock]] = TypeAdapter(list[types.ContentBlock])
_BEGINNINGS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"ID3": "audio/mpeg",
    b"fLaC": "audio/flac",
    b"OggS": "audio/ogg",
    b"%PDF-": "application/pdf",
}
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}


def result(state: RunState, *more: types.ContentBlock, meta: Mapping[str, Any] | None = None) -> types.CallToolResult:
    """The result of a call.

    Args:
        more: content behind that of the run.
        meta: for the program that calls, not for its model.
    """
    failed, data = state.status != Status.COMPLETED, result_of(state)
    found = {} if failed else {name: blocks for name, value in state.outputs.items() if (blocks := _blocks(name, value))}
    content: list[types.ContentBlock] = []
    if texts := {name: value for name, value in state.outputs.items() if name not in found} if found else None:
        content.append(types.TextContent(text=redactor.text(in_words(texts))))
    elif not found:
        content.append(types.TextContent(text=redactor.text(text_of(state))))
    for name, blocks in found.items():
        content += blocks
        data["outputs"] = {**data["outputs"], name: "; ".join(f"({_about(block)})" for block in blocks)}
    return types.CallToolResult(
        content=[*content, *more], structured_content=redactor(data), is_error=failed, _meta=dict(meta) if meta else None
    )


def _blocks(name: str, value: Any) -> list[types.ContentBlock]:
    """The content that a value is; empty when it is only a text or data."""
    if isinstance(value, str) and value.startswith("data:"):
        head, _, text = value[5:].partition(",")
        kind, encoded = head.removesuffix(";base64"), head.endswith(";base64")
        data = _decoded(text) if encoded else unquote_to_bytes(text)
        return [] if data is None else [_block(name, data, kind.partition(";")[0] or "text/plain")]
    if not isinstance(value, Mapping):
        return []
    if set(value) == {"base64"} and isinstance(value["base64"], str):  # bytes
        data = _decoded(value["base64"])
        return [] if data is None else [_block(name, data, _kind(data))]
    if set(value) == {"text", "content"} and isinstance(value["content"], list):  # of a tool: see `integrations.mcp_client`
        try:
            blocks = _BLOCKS.validate_python(redactor(value["content"]))
        except WrongShape:
            return []  # another program's `content`
        said = [types.TextContent(text=redactor.text(str(value["text"])))] if value["text"] else []
        return [*said, *blocks] if blocks else []
    return []


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _block(name: str, data: bytes, kind: str) -> types.ContentBlock:
    packed = base64.b64encode(data).decode()
    if kind.startswith("image/"):
        return types.ImageContent(data=packed, mime_type=kind)
    if kind.startswith("audio/"):
        return types.AudioContent(data=packed, mime_type=kind)
    return types.EmbeddedResource(
        resource=types.BlobResourceContents(uri=f"dipeo://outputs/{quote(name)}", mime_type=kind, blob=packed)
    )


def _kind(data: bytes) -> str:
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12], "application/octet-stream")
    return next((kind for beginning, kind in _BEGINNINGS.items() if data.startswith(beginning)), "application/octet-stream")


def _about(block: types.ContentBlock) -> str:
    match block:
        case types.ImageContent() | types.AudioContent():
            return block.mime_type
        case types.EmbeddedResource():
            return block.resource.mime_type or "a file"
        case types.ResourceLink():
            return block.uri
        case types.TextContent():
            return f"text of {len(block.text):,} characters"
