"""Structured answers: schemas out of what users give, values out of what models say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic import ValidationError as PydanticValidationError

from dipeo_nb.errors import ProviderError


def schema_of(response_format: Any) -> dict[str, Any]:
    """The JSON schema of a pydantic class, or the given schema itself."""
    if isinstance(response_format, type) and issubclass(response_format, BaseModel):
        return response_format.model_json_schema()
    if isinstance(response_format, Mapping):
        return dict(response_format)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    raise TypeError(f"response_format must be a pydantic class or a JSON schema, not {type(response_format).__name__}")


def name_of(response_format: Any) -> str:
    """A name for the schema, as providers want one: letters, digits, `_`, `-`."""
    name = getattr(response_format, "__name__", None) or (
        response_format.get("title") if isinstance(response_format, Mapping) else None
    )
    return re.sub(r"[^A-Za-z0-9_-]", "_", str(name or "answer"))[:64]


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as OpenAI's strict mode wants it: every object closed and with all properties required.

    Source: OpenAI, Structured Outputs, "All fields must be required", "additionalProperties: false".
    """

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(node, Mapping):
            return node
        result: dict[str, Any] = {k: walk(v) for k, v in node.items() if k != "default"}  # pyright: ignore[reportUnknownVariableType]
        if result.get("type") == "object" or "properties" in result:
            result["additionalProperties"] = False
            result["required"] = list(result.get("properties", {}))
        return result

    return walk(schema)


def parsed(text: str, response_format: Any, *, provider: str, model: str) -> Any:
    """The value in an answer: an instance of the pydantic class, or an object of the schema.

    JSON in a code fence or between words is found.

    Raises:
        ProviderError: there is no JSON, or it does not fit; the message says where.
    """
    problem = "it holds no JSON"
    for candidate in _candidates(text):
        try:
            value = json.loads(candidate)
        except ValueError:
            continue
        try:
            return validated(value, response_format)[1]
        except ValueError as error:
            problem = str(error)
    raise ProviderError(
        f"The answer of {model} does not fit the requested structure: {problem}. It begins: {text.strip()[:120]!r}.",
        hint="Ask for fewer fields, raise max_tokens, or use a larger model.",
        provider=provider,
        model=model,
    )


def validated(value: Any, response_format: Any) -> tuple[str, Any]:
    """(JSON text, value) of a value that fits; ValueError with the place when it does not."""
    if isinstance(response_format, type) and issubclass(response_format, BaseModel):
        try:
            instance = response_format.model_validate(value)
        except PydanticValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'the value'}: {first['msg']}") from None
        return instance.model_dump_json(), instance
    from jsonschema import Draft202012Validator  # only now: it takes up to a second

    error = next(iter(Draft202012Validator(schema_of(response_format)).iter_errors(value)), None)
    if error is not None:
        place = ".".join(map(str, error.absolute_path)) or "the value"
        raise ValueError(f"{place}: {error.message[:200]}")
    return json.dumps(value, ensure_ascii=False), value


def _candidates(text: str) -> list[str]:
    found = [text.strip()]
    found += re.findall(r"```(?:json)?\s*\n?(.*?)```", text, re.DOTALL)
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            found.append(text[start : end + 1])
    return found


def sample(schema: Mapping[str, Any]) -> Any:
    """The smallest value that fits a schema: true, the minimum or 0, "", the first choice, required fields only."""
    definitions: Mapping[str, Any] = schema.get("$defs", schema.get("definitions", {}))

    def make(node: Any, depth: int) -> Any:
        if not isinstance(node, Mapping) or depth > 20:
            return None
        if "$ref" in node:
            return make(definitions.get(str(node["$ref"]).rpartition("/")[2]), depth + 1)
        for key in ("const", "default"):
            if key in node:
                return node[key]
        if node.get("enum"):
            return node["enum"][0]
        for key in ("anyOf", "oneOf"):
            if node.get(key):
                return make(node[key][0], depth + 1)
        if node.get("allOf"):
            merged = {k: v for part in node["allOf"] for k, v in part.items()}
            return make(merged, depth + 1)
        kind = node.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        match kind:
            case "object":
                properties: Mapping[str, Any] = node.get("properties", {})
                return {name: make(properties.get(name, {}), depth + 1) for name in node.get("required", ())}
            case "array":
                return [make(node.get("items", {}), depth + 1) for _ in range(node.get("minItems", 0))]
            case "boolean":
                return True
            case "integer":
                low = node.get("minimum", node.get("exclusiveMinimum", -1) + 1)
                return max(0, low) if "maximum" not in node else min(max(0, low), node["maximum"])
            case "number":
                return float(max(0, node.get("minimum", 0)))
            case "string":
                text = {"date": "2025-01-01", "date-time": "2025-01-01T00:00:00Z", "email": "a@example.com"}.get(
                    str(node.get("format")), "echo"
                )
                return text.ljust(node.get("minLength", 0), "o")[: node.get("maxLength", 10_000)]
            case _:
                return None if kind == "null" else "echo"

    return make(schema, 0)
