"""Calls of providers in recordings: replayed and recorded by the same rules as those of models, each request in a file of its own
in the folder `providers` of the recordings."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.values import json_text, parse_json
from dipeo_nb.config import Settings
from dipeo_nb.errors import RecordingError, RecordingNotFoundError, StorageError
from dipeo_nb.llm.recording import Recordings, active

FOLDER = "providers"
VERSION = 1


async def recorded_call(settings: Settings, name: str, request: Mapping[str, Any], call: Callable[[], Awaitable[Any]]) -> Any:
    """The result of a provider's operation: the recorded one, or that of *call*, which is recorded when it succeeds.

    Args:
        name: of the operation, `slack.send_message`.
        request: its parameters, as they tell one request from another.

    Raises:
        RecordingNotFoundError: mode `replay`, and it is not recorded.
        RecordingError: a file cannot be read or written.
        Exception: whatever *call* raises.
    """
    recordings = active(settings)
    if recordings is None:
        return await call()
    said = parse_json(redactor.text(json_text({"operation": name, "parameters": dict(request)})))
    key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    file = f"{FOLDER}/{name.replace('.', '-')}-{key[:12]}.json"
    number = recordings.count(key)
    if recordings.mode != "record" and (results := await asyncio.to_thread(_read, recordings, file)):
        recordings.replayed += 1
        return results[min(number, len(results) - 1)]
    if recordings.mode == "replay":
        raise RecordingNotFoundError(
            f"This call of {name} is not recorded in {recordings.path / FOLDER}.",
            hint="Record it with DIPEO_LLM_MODE=record or dp.recording(path, mode='record').",
            path=recordings.path, provider=name.partition(".")[0],
        )  # fmt: skip
    result = await call()
    await asyncio.to_thread(_write, recordings, file, said, number, result)
    recordings.recorded += 1
    return result


def may_answer(settings: Settings) -> bool:
    """Whether a call made here and now may be answered by recordings."""
    recordings = active(settings)
    return recordings is not None and recordings.mode != "record"


def _read(recordings: Recordings, file: str) -> list[Any]:
    try:
        document = parse_json(recordings.root.read(file).decode())
    except FileNotFoundError:
        return []
    except (OSError, StorageError, ValueError) as error:
        raise _unusable(recordings, file, str(error)) from error
    if (
        not isinstance(document, Mapping)
        or document.get("recording") != VERSION
        or not isinstance(document.get("results"), list)
    ):
        raise _unusable(recordings, file, "it is not a recording of a provider")
    return document["results"]


def _write(recordings: Recordings, file: str, request: Any, number: int, result: Any) -> None:
    before = _read(recordings, file)[:number] if number else []
    document = {"recording": VERSION, "request": request, "results": [*before, result]}
    text = redactor.text(json_text(document, indent=1)) + "\n"
    try:
        folder_root = recordings.root.below(FOLDER)
        folder_root.mkdir(parents=True)
        recordings.root.write(file, text.encode("utf-8", "backslashreplace"))
    except (OSError, StorageError) as error:
        raise RecordingError(
            f"Recordings cannot be written to {recordings.path}: {str(error).rstrip('.')}.",
            hint="Make the folder writable, or name another one (DIPEO_LLM_RECORDINGS, dp.recording(path)).", path=recordings.path,
        ) from error  # fmt: skip


def _unusable(recordings: Recordings, file: str, why: str) -> RecordingError:
    return RecordingError(
        f"The recording {recordings.path / file} cannot be used: {why.rstrip('.')}.",
        hint="Restore it from version control, or delete it and record it again (DIPEO_LLM_MODE=record).", path=recordings.path / file,
    )  # fmt: skip
