"""The request of every operation of the providers that come with the package."""

from __future__ import annotations

import json
from typing import Any

from dipeo_nb.integrations.manifest import Operation, Parameter
from dipeo_nb.integrations.paging import first_page
from dipeo_nb.integrations.registry import Registry, packaged
from dipeo_nb.integrations.requests import Values, arguments, build, variables_of

REGISTRY = Registry()
NAMES = [path.stem for path in packaged()]
VARIABLES = {"searxng": {"url": "http://localhost:8888"}, "google_cse": {"cx": "engine-1"}}
TEXT = 'a "quoted"\ntext 😀 {{ x }}'


def example(name: str, parameter: Parameter) -> Any:
    """A value that a parameter takes; texts with everything that breaks templates."""
    if parameter.enum:
        return parameter.enum[-1]
    if name == "upload_url":
        return "https://files.slack.com/upload/v1/abc"
    if name == "method":
        return "conversations.history"
    number = parameter.minimum or 7
    values = {
        "integer": int(number),
        "number": 1.5,
        "boolean": True,
        "array": ["x", {"y": TEXT}],
        "object": {"k": TEXT},
        "any": TEXT,
    }
    if parameter.items is not None:
        return ["x"]
    return values.get(parameter.type, TEXT)


def request(name: str, operation: Operation, values: dict[str, Any]) -> dict[str, Any]:
    found = REGISTRY.find(name)
    assert found is not None
    given = VARIABLES.get(name, {})
    made = Values(arguments(name, operation, values), variables_of(found.manifest, given), "run:node:1", values)
    page = first_page(operation.paging) if operation.paging is not None else None
    size = operation.paging.default_size if operation.paging is not None and operation.paging.size else None
    sent = build(found.manifest, operation, made, given, page, size)
    content = sent.content
    return {
        "request": f"{sent.method} {sent.address}",
        "headers": dict(sent.headers),
        **(
            {}
            if content is None
            else {"body": json.loads(content) if str(sent.headers.get("Content-Type")).endswith("json") else content}
        ),
    }


def requests() -> dict[str, Any]:
    """Of every operation: with every parameter, and with those that are required."""
    found: dict[str, Any] = {}
    for name in NAMES:
        manifest = REGISTRY.find(name)
        assert manifest is not None
        for operation_name, operation in manifest.manifest.operations.items():
            everything = {n: example(n, parameter) for n, parameter in operation.parameters.items()}
            for group in operation.one_of:
                everything = {n: value for n, value in everything.items() if n not in group[1:]}
            needed = {group[0] for group in (*operation.one_of, *operation.any_of)}
            required = {n: everything[n] for n, parameter in operation.parameters.items() if parameter.required or n in needed}
            key = f"{name}.{operation_name}"
            if operation.steps is not None:
                found[key] = {"effect": operation.effective, "steps": operation.steps}
                continue
            found[key] = {
                "effect": operation.effective,
                "all": request(name, operation, everything),
                "required": request(name, operation, required),
            }
    return found


def written() -> str:
    """The golden file."""
    return json.dumps(requests(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
