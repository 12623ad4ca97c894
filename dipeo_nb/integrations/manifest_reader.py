"""Manifests of providers from their text: read strictly, with the line of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from dipeo_nb.common import json_schema
from dipeo_nb.common.addresses import origin_of
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import did_you_mean, nearest
from dipeo_nb.common.values import json_text
from dipeo_nb.diagram.json_reader import json_value
from dipeo_nb.diagram.schema_check import validator
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.diagram.yaml_reader import yaml_value
from dipeo_nb.errors import DiagramFormatError, ManifestError
from dipeo_nb.integrations.dipeo_manifest import NotTranslatedError, is_dipeo, translated
from dipeo_nb.integrations.manifest import Manifest, Operation
from dipeo_nb.integrations.rendering import TemplateSyntaxProblem, names_in, placeholders

MAX_CHARACTERS = 5_000_000
GIVEN = frozenset(("stamp", "resource_id", "config", "params"))
"""Names that every template has besides parameters and variables: what marks this call, and the arguments of the node."""
SECRETS = frozenset(("secret", "api_key", "key", "token", "password"))
"""Names under which templates of other tools have the key."""
OWN_HEADERS = frozenset(
    ("content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "host", "authorization", "cookie")
)
"""Headers that a manifest does not set: the client makes them, or `auth` does."""
WHOLE = re.compile(r"\{[a-z][a-z0-9_]*\}")
"""A path that is one placeholder: a whole address."""
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def read_manifest(text: str, path: str = "manifest.yaml") -> Manifest:
    """A manifest from YAML or JSON.

    Args:
        path: where it is from, for messages.

    Raises:
        ManifestError: it cannot be read, does not fit, or contradicts itself; facts: path, line.
    """
    if len(text) > MAX_CHARACTERS:
        raise ManifestError(f"{path} has more than {MAX_CHARACTERS:,} characters.", hint="Split it.", path=path)
    value, places = parsed(text, path)
    return manifest_of(value, path, places)


def parsed(text: str, path: str) -> tuple[Any, SourceMap]:
    """The value of a YAML or JSON text, and where its parts are. Raises ManifestError."""
    is_json = text.lstrip()[:1] == "{"
    try:
        if is_json:
            try:
                value, twice = json_value(text, path)
            except ValueError as error:
                raise ManifestError(f"{path}: {str(error).rstrip('.')}.", hint="Correct the JSON there.", path=path) from None
        else:
            value, twice = yaml_value(text, path)
    except DiagramFormatError as error:
        raise ManifestError(
            error.message.replace("in a diagram", "in a manifest"), hint=error.hint, path=path, line=error.facts.get("line")
        ) from None
    places = SourceMap(text, path, json=is_json)
    if twice:
        name, line, _ = (*places.duplicates(), ("a key", 0, 0))[0]
        raise ManifestError(
            f"{path}:{line}: '{name}' is there twice.", hint="Remove one of them.", path=path, line=line or None
        )
    return value, places


def manifest_of(value: Any, path: str, places: SourceMap) -> Manifest:
    """A manifest from its data. Raises ManifestError."""
    problems = _Problems(path, places)
    if not isinstance(value, Mapping):
        raise problems.at((), "A manifest is a mapping.", "Begin with `name:`, `base_url:` and `operations:`.")
    if is_dipeo(value):
        try:
            value = translated(value)
        except NotTranslatedError as error:
            raise problems.at(error.where, error.message, error.hint) from None
    try:
        manifest = Manifest.model_validate_json(json_text(value))
    except ValidationError as error:
        raise _misfit(problems, error) from None
    _check(manifest, problems)
    return manifest


class _Problems:
    def __init__(self, path: str, places: SourceMap) -> None:
        self._path = path
        self._places = places

    def at(self, where: tuple[str | int, ...], message: str, hint: str) -> ManifestError:
        """An error over a part of the manifest; the nearest part that has a line gives it."""
        place = None
        for length in range(len(where), -1, -1):
            if (place := self._places.place(*where[:length])) is not None:
                break
        line = place[0] if place else None
        shown = f"{self._path}:{line}" if line else self._path
        return ManifestError(redactor.text(f"{shown}: {message}"), hint=hint, path=self._path, line=line)


def _misfit(problems: _Problems, error: ValidationError) -> ManifestError:
    """The first thing that does not fit the model."""
    first = error.errors(include_url=False)[0]
    where = tuple(part for part in first["loc"] if part != "[key]")
    what = ".".join(map(str, where)) or "the manifest"
    if first["type"] == "extra_forbidden":
        fields = [field.alias or name for name, field in _model_at(where[:-1]).model_fields.items()]
        return problems.at(
            where,
            f"'{where[-1]}' is not known there.",
            did_you_mean(where[-1], fields, f"There are: {', '.join(sorted(fields))}."),
        )
    if first["type"] == "missing":
        return problems.at(where, f"'{where[-1]}' is missing.", f"Add `{where[-1]}:`.")
    said = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    hint = "Correct it."
    if first["type"] == "literal_error":
        choices = str(first.get("ctx", {}).get("expected", ""))
        choice = nearest(first.get("input"), re.findall(r"'([^']+)'", choices))
        hint = f"Did you mean '{choice}'?" if choice else f"Choose one of: {choices}."
    elif first["type"] == "string_pattern_mismatch":
        said = "a name has lower-case letters, digits and `_`, and a pointer begins with `/`"
    elif first["type"].endswith("_type"):
        hint = 'Check quotes and indentation: `"1"` is a text, `1` a number.'
    return problems.at(where, f"{what}: {said}.", hint)


def _model_at(where: tuple[str | int, ...]) -> type[BaseModel]:
    """The model that is responsible for a place."""
    kind: Any = Manifest
    for part in where:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
            kind = fields.get(str(part), kind)
            kind = (
                next((k for k in get_args(kind) if isinstance(k, type) and issubclass(k, BaseModel)), kind)
                if _is_optional(kind)
                else kind
            )
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif get_origin(kind) is tuple:
            kind = get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else Manifest


def _is_optional(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _check(manifest: Manifest, problems: _Problems) -> None:
    """What the types of the fields do not say."""
    _check_address(manifest, problems)
    for name in manifest.headers:
        _check_header(problems, ("headers", name), name)
    for host in manifest.hosts:
        if "{" not in host and not _is_server(host):
            raise problems.at(("hosts",), f"'{host}' is not a server.", "Write it as https://host.")
    _check_names(manifest, problems, ("headers",), manifest.headers, set())
    _check_names(manifest, problems, ("auth", "user"), manifest.auth.user, set())
    if manifest.auth.kind == "custom" and manifest.hooks is None:
        raise problems.at(("auth",), "auth of the kind custom needs a hooks module.", "Add `hooks: hooks.py`.")
    for name, operation in manifest.operations.items():
        _check_operation(manifest, name, operation, problems)


def _check_address(manifest: Manifest, problems: _Problems) -> None:
    for name in placeholders(manifest.base_url):
        if name not in manifest.variables:
            raise problems.at(("base_url",), f"`{{{name}}}` is not a variable.", f"Add it: variables: {{{name}: {{}}}}.")
    filled = re.sub(r"\{\w+\}", "x", manifest.base_url) if not manifest.base_url.startswith("{") else "https://x.example"
    parts = urlsplit(filled)
    if not _is_server(filled) or parts.query or parts.fragment or parts.username or parts.password:
        raise problems.at(
            ("base_url",),
            f"'{manifest.base_url[:100]}' is not a base address.",
            "Write it as https://host/path, without a query.",
        )


def _check_header(problems: _Problems, where: tuple[str | int, ...], name: str) -> None:
    if not _HEADER.fullmatch(name):
        raise problems.at(where, f"{name[:80]!r} is not a name of a header.", "Use letters, digits and hyphens.")
    if name.lower() in OWN_HEADERS:
        raise problems.at(
            where, f"A manifest cannot set the header {name}.", "`auth` authorises; the client makes the others. Leave it out."
        )


def _check_operation(manifest: Manifest, name: str, operation: Operation, problems: _Problems) -> None:
    at = ("operations", name)
    for placeholder in placeholders(operation.path):
        if placeholder not in operation.parameters and placeholder not in manifest.variables:
            raise problems.at(
                (*at, "path"), f"`{{{placeholder}}}` is not a parameter of {name}.",
                did_you_mean(placeholder, operation.parameters, f"Add it to the parameters of {name}."),
            )  # fmt: skip
        if placeholder in operation.parameters and not operation.parameters[placeholder].required:
            raise problems.at(
                (*at, "parameters", placeholder),
                f"'{placeholder}' stands in the path, but is not required.",
                "Add `required: true`.",
            )
    if operation.path and not operation.path.startswith("/") and not WHOLE.fullmatch(operation.path):
        raise problems.at((*at, "path"), f"'{operation.path[:80]}' is not a path.", "Begin it with `/`.")
    if re.search(r"[\s#?]|\{\{", operation.path):
        raise problems.at(
            (*at, "path"),
            f"'{operation.path[:80]}' is not a path.",
            "Placeholders are `{name}`; parameters of the query stand under `query`.",
        )
    for field in ("query", "headers", "body", "form", "body_template", "content"):
        _check_names(manifest, problems, (*at, field), getattr(operation, field), operation.parameters.keys())
    for header in operation.headers:
        _check_header(problems, (*at, "headers", header), header)
    if operation.transform is not None:
        _check_names(manifest, problems, (*at, "transform"), operation.transform, {"result", "item", *operation.parameters})
    for parameter, given in operation.parameters.items():
        if given.schema_ is None and given.items is None:
            continue  # made of what the model of manifests has checked
        _check_schema(problems, (*at, "parameters", parameter), given.json_schema())
    if operation.schema_ is not None:
        _check_schema(problems, (*at, "schema"), operation.schema_)
    if operation.paging is not None and operation.paging.place == "body" and not isinstance(operation.body, Mapping):
        raise problems.at((*at, "paging"), "paging in the body needs a `body` that is a mapping.", "Add `body: {}`.")
    if operation.paging is not None and operation.paging.place == "form" and operation.form is None:
        raise problems.at((*at, "paging"), "paging in the form needs a `form`.", "Add `form: {}`.")
    if manifest.hooks is None:
        for field in ("before", "after", "steps"):
            if getattr(operation, field) is not None:
                raise problems.at((*at, field), f"`{field}` needs a hooks module.", "Add `hooks: hooks.py` to the manifest.")
    if (find := operation.find) is not None:
        if (other := manifest.operations.get(find.operation)) is None:
            raise problems.at(
                (*at, "find"), f"There is no operation '{find.operation}'.",
                did_you_mean(find.operation, manifest.operations, "Name an operation that lists what was made."),
            )  # fmt: skip
        if other.effective != "read":
            raise problems.at(
                (*at, "find"), f"'{find.operation}' does not only read.", "Name an operation whose effect is read."
            )
        for parameter in find.parameters:
            if parameter not in other.parameters:
                raise problems.at(
                    (*at, "find", "parameters", parameter), f"{find.operation} has no parameter '{parameter}'.",
                    did_you_mean(parameter, other.parameters, f"It has: {', '.join(other.parameters) or 'none'}."),
                )  # fmt: skip
        _check_names(manifest, problems, (*at, "find"), [find.parameters, find.contains], operation.parameters.keys())


def _check_names(
    manifest: Manifest, problems: _Problems, where: tuple[str | int, ...], templates: Any, parameters: Any
) -> None:
    """Templates can be compiled, and ask for nothing that there is not."""
    if templates is None:
        return
    known = {*parameters, *manifest.variables, *GIVEN}
    for path, text in _leaves(templates, where):
        try:
            asked = names_in(text)
        except TemplateSyntaxProblem as error:
            raise problems.at(path, f"This template cannot be read: {error}.", "Correct it.") from None
        for name in sorted(asked - known):
            if name in SECRETS:
                raise problems.at(
                    path,
                    f"`{name}` is not known to templates: no template can see a secret.",
                    "Say under `auth` where the key goes.",
                )
            raise problems.at(
                path, f"`{name}` is not a parameter.", did_you_mean(name, known, f"There are: {', '.join(sorted(known))}.")
            )


def _leaves(value: Any, where: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield (*where, str(key)), str(key)
            yield from _leaves(item, (*where, str(key)))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            yield from _leaves(item, (*where, number))


def _check_schema(problems: _Problems, where: tuple[str | int, ...], schema: Any) -> None:
    json_schema.load()
    from jsonschema import SchemaError

    try:
        validator(schema)
    except SchemaError as error:
        raise problems.at(where, f"This is not a JSON schema: {error.message[:200].rstrip('.')}.", "Correct it.") from None


def _is_server(address: str) -> bool:
    try:
        return bool(origin_of(address))
    except ValueError:
        return False
