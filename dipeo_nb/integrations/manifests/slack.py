"""Hooks of the Slack provider."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dipeo_nb.errors import ValidationError

if TYPE_CHECKING:
    from dipeo_nb.integrations.manifest_provider import Steps


async def upload_file(call: Steps, parameters: Mapping[str, Any]) -> Any:
    """Get an address, send the bytes there, share the file."""
    data = _bytes(parameters)
    place = await call("upload_address", filename=parameters["filename"], length=len(data))
    await call("upload_content", upload_url=place["upload_url"], data=data)
    given = {name: parameters.get(name) for name in ("channel", "initial_comment", "thread_ts")}
    title = parameters.get("title") or parameters["filename"]
    return await call("upload_complete", file=place["file_id"], title=title, **given)


def _bytes(parameters: Mapping[str, Any]) -> bytes:
    text, encoded = parameters.get("content"), parameters.get("content_base64")
    if text is not None:
        return str(text).encode()
    try:
        return base64.b64decode(str(encoded), validate=True)
    except binascii.Error as error:
        raise ValidationError(
            f"slack.upload_file: content_base64 is not base64 ({error}).", hint="Encode the bytes again."
        ) from None
