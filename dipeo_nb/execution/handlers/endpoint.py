"""endpoint: the value of the run; saves it to a file when asked."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import PurePosixPath
from typing import Any, cast

from dipeo_nb.common import stepwise_yaml
from dipeo_nb.common.cancellable import in_thread
from dipeo_nb.common.values import json_text
from dipeo_nb.domain.nodes import EndpointNode
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, as_text, plain

SUFFIX_FORMATS = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".md": "md", ".txt": "txt"}


def execute(context: NodeContext) -> Output | Coroutine[Any, Any, Output]:
    spec = cast(EndpointNode, context.node.spec)
    body = context.inputs.body
    value = plain(getattr(body, "__dipeo_value__", body)) if not hasattr(body, "__dipeo_text__") else str(body)
    return _save(context, spec, value, as_text(body)) if spec.save_to_file else Output(value)


async def _save(context: NodeContext, spec: EndpointNode, value: Any, plain_text: str) -> Output:
    name = spec.file_name or f"output_{context.node.id}.json"
    path = context.file_name(name)
    form = spec.file_format or SUFFIX_FORMATS.get(PurePosixPath(path).suffix.lower(), "txt")

    def save() -> int:
        return context.services.files.write_text(path, written(value, form, plain_text))

    size = await in_thread(save)
    return Output(value, meta={"saved_to": path, "bytes": size})


def written(value: Any, form: str, text: str) -> str:
    """The file's text: JSON and YAML of the value; for txt and md text as it is, and JSON of what has structure."""
    if form == "json":
        return json_text(value, indent=2) + "\n"
    if form == "yaml":
        return stepwise_yaml.dumps(value)
    return text
