"""json_schema_validator: data that fits leaves on `success`, data that does not is an error.

The dialect is the schema's own `$schema`, else 2020-12; `format` is checked. A schema refers to itself only: nothing is fetched.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, cast

from dipeo_nb.common import json_schema
from dipeo_nb.common.values import parse_json
from dipeo_nb.diagram.metering import NotQuickError, metered, quick
from dipeo_nb.diagram.schema_check import validator
from dipeo_nb.diagram.values import TooLargeError
from dipeo_nb.domain.nodes import JsonSchemaValidatorNode
from dipeo_nb.errors import NodeExecutionError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, plain
from dipeo_nb.workers import WORKERS

MAX_VIOLATIONS = 100
"""Violations that a strict check lists at most."""


async def execute(context: NodeContext) -> Output:
    spec = cast(JsonSchemaValidatorNode, context.node.spec)
    schema = await _schema(context, spec)
    data = await _read(context, spec.data_path) if spec.data_path else _parsed(plain(context.inputs.body))
    found = await asyncio.to_thread(_quickly, schema, data, spec.strict_mode)
    if found is None:
        found = await WORKERS.call(f"{__name__}:violations", schema, data, spec.strict_mode)
    if found:
        rest = f" and {len(found) - 3} more" if len(found) > 3 else ""
        said = "; ".join(f"{item['path']}: {item['message']}" for item in found[:3])
        raise NodeExecutionError(
            f"The data does not fit the schema: {said}{rest}.",
            hint="Fix the data or the schema; to continue anyway, draw an arrow from the node's error output.",
            violations=found,
        )
    return Output(data, meta={"valid": True})


async def _schema(context: NodeContext, spec: JsonSchemaValidatorNode) -> Any:
    if spec.json_schema is None and not spec.schema_path:
        raise NodeExecutionError("The node has no schema.", hint="Set `json_schema` or `schema_path`.")
    given = spec.json_schema if spec.json_schema is not None else await _read(context, str(spec.schema_path))
    if isinstance(given, str):
        try:
            given = parse_json(given)
        except ValueError as error:
            raise NodeExecutionError(f"The schema is not JSON: {error}.", hint="Fix `json_schema`.") from None
    return _closed(plain(given)) if spec.error_on_extra else plain(given)


def _closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` wherever it lists properties and says nothing of others."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = {name: _closed(item) for name, item in schema.items()}
    if isinstance(schema.get("properties"), Mapping):
        closed.setdefault("additionalProperties", False)
    return closed


async def _read(context: NodeContext, path: str) -> Any:
    name = context.file_name(path)
    done = await context.services.db.execute_operation(name, "read", format=_format(name))
    return done["value"]


def _format(name: str) -> str:
    return "yaml" if PurePosixPath(name).suffix.lower() in (".yaml", ".yml") else "json"


def _parsed(data: Any) -> Any:
    """Text that is JSON is what it says; a model's answer arrives so."""
    if not isinstance(data, str):
        return data
    try:
        return parse_json(data)
    except ValueError:
        return data


def _quickly(schema: Any, data: Any, every: bool) -> list[dict[str, str]] | None:
    """As `violations`; None: that takes longer."""
    try:
        with quick():
            return violations(schema, data, every)
    except NotQuickError:
        return None


def violations(schema: Any, data: Any, every: bool) -> list[dict[str, str]]:
    """[{path, message, rule}], empty when it fits."""
    json_schema.load()
    from jsonschema import SchemaError  # only now: its import takes a tenth of a second
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    if not isinstance(schema, (Mapping, bool)):
        raise NodeExecutionError("The schema is not a mapping.", hint="A JSON schema is a mapping, e.g. {type: object}.")
    try:
        with metered():
            check = validator(schema, registry=Registry(), format_checker=True)
            errors = sorted(check.iter_errors(data), key=lambda e: list(map(str, e.absolute_path)))
            chosen = errors[:MAX_VIOLATIONS] if every else [best_match(errors)] if errors else []
    except SchemaError as error:
        raise NodeExecutionError(
            f"The schema is wrong at {error.json_path}: {error.message}.", hint="Fix the schema."
        ) from None
    except Unresolvable as error:
        raise NodeExecutionError(
            f"The schema refers to '{error.ref}', which is not in it.", hint="Put it under $defs; nothing is fetched."
        ) from None
    except TooLargeError as error:
        raise NodeExecutionError(
            f"The check takes too long: {error}.", hint="Check less at once, or with a simpler schema."
        ) from None
    except re.error as error:
        raise NodeExecutionError(f"The schema has a pattern that is none: {error}.", hint="Correct it.") from None
    return [{"path": e.json_path, "message": e.message[:500], "rule": str(e.validator)} for e in chosen]
