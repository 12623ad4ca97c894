"""Operations of manifests, as helps show them."""

from __future__ import annotations

import inspect
from typing import Any

from dipeo_nb.integrations.manifest import Operation

TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
    "any": Any,
}
"""Types of JSON as Python names them."""


def signature_of(operation: Operation) -> inspect.Signature:
    """The parameters of an operation as Python shows them; those that are required first."""
    ordered = sorted(operation.parameters.items(), key=lambda pair: not pair[1].required)
    parameters = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=TYPES.get(parameter.type, Any),
            default=inspect.Parameter.empty if parameter.required else parameter.default,
        )
        for name, parameter in ordered
    ]  # fmt: skip
    if operation.paging is not None:
        known = {parameter.name for parameter in parameters}
        paged = (("all", bool, False), ("limit", int, None))
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, kind, default in paged
            if name not in known
        ]
    return inspect.Signature(parameters)


def description_of(operation: Operation) -> str:
    """What an operation does, and its parameters."""
    lines = [operation.description, "", f"Effect: {operation.effective}.", ""]
    for name, parameter in operation.parameters.items():
        choices = f" ({', '.join(map(str, parameter.enum))})" if parameter.enum else ""
        needed = ", required" if parameter.required else ""
        lines.append(f"    {name}: {parameter.type}{needed}{choices}. {parameter.description}".rstrip())
    if operation.paging is not None:
        lines.append("    all: boolean. All pages.\n    limit: integer. Items at most.")
    return "\n".join(lines)
