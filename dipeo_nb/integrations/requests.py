"""Requests of operations, made from a manifest and parameters: pure, and without any secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from dipeo_nb.common.addresses import names_this_network, origin_of
from dipeo_nb.common.text import did_you_mean
from dipeo_nb.common.values import finite, json_text
from dipeo_nb.diagram.schema_check import validator
from dipeo_nb.errors import ConfigurationError, IntegrationError, ValidationError
from dipeo_nb.integrations.http import usable_headers
from dipeo_nb.integrations.manifest import Manifest, Operation, Parameter
from dipeo_nb.integrations.paging import Page
from dipeo_nb.integrations.rendering import OMITTED, rendered, rendered_json, rendered_path, rendered_text


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent to a provider. Secrets are added afterwards, by `authorization`."""

    method: str
    url: str
    """Without a query."""
    headers: Mapping[str, str] = field(default_factory=dict)
    query: tuple[tuple[str, str], ...] = ()
    content: str | bytes | None = None

    @property
    def address(self) -> str:
        """The URL with its query."""
        return f"{self.url}?{urlencode(self.query)}" if self.query else self.url


@dataclass(frozen=True, slots=True)
class Values:
    """What the templates of an operation can name."""

    parameters: Mapping[str, Any]
    variables: Mapping[str, str]
    stamp: str
    config: Mapping[str, Any] = field(default_factory=dict)
    resource_id: str | None = None

    @property
    def names(self) -> dict[str, Any]:
        """All of them by name."""
        of_call = {
            "stamp": self.stamp,
            "config": dict(self.config),
            "params": dict(self.parameters),
            "resource_id": self.resource_id,
        }
        return {**of_call, **self.variables, **self.parameters}


def arguments(
    name: str, operation: Operation, given: Mapping[str, Any], resource_id: str | None = None, *, partial: bool = False
) -> dict[str, Any]:
    """The parameters of a call, with defaults, checked against the schema of the operation.

    Args:
        partial: required ones may come later.

    Raises:
        ValidationError: one is missing, unknown, or does not fit.
    """
    parameters = {n: value for n, value in given.items() if value is not None or n not in operation.parameters}
    if resource_id is not None and operation.resource is not None:
        parameters.setdefault(operation.resource, resource_id)
    for n in parameters:
        if n not in operation.parameters:
            raise ValidationError(
                f"{name} has no parameter '{n:.80}'.",
                hint=did_you_mean(n, operation.parameters, f"It has: {', '.join(operation.parameters) or 'none'}."),
            )
    for n, parameter in operation.parameters.items():
        if parameter.default is not None:
            parameters.setdefault(n, parameter.default)
        if parameter.required and n not in parameters and not partial:
            raise ValidationError(
                f"{name} needs the parameter '{n}'.", hint=f"Give it: {n}={parameter.description or parameter.type}."
            )
    for group in () if partial else (*operation.one_of, *operation.any_of):
        count = sum(n in parameters for n in group)
        if not count or (count > 1 and group in operation.one_of):
            said = f"needs {'exactly one' if group in operation.one_of else 'one'} of the parameters {', '.join(group)}"
            raise ValidationError(f"{name} {said}.", hint=f"Give {' or '.join(group)}.")
    for n, value in parameters.items():
        if isinstance(value, bytes) or _plainly_fits(operation.parameters[n], value):
            continue
        for error in validator(operation.parameters[n].json_schema(), checked=True).iter_errors(finite(value)):
            where = "".join(f"[{step!r}]" for step in error.absolute_path)
            raise ValidationError(f"{name}: {n}{where} does not fit: {error.message[:300].rstrip('.')}.", hint=f"Correct {n}.")
    return parameters


def _plainly_fits(parameter: Parameter, value: Any) -> bool:
    """Whether a value certainly fits. The library of schemas, which may take seconds to import, decides and explains the rest."""
    if parameter.schema_ is not None or parameter.items is not None or (parameter.enum and value not in parameter.enum):
        return False
    match parameter.type:
        case "string":
            return type(value) is str and (parameter.max_length is None or len(value) <= parameter.max_length)
        case "integer":
            low, high = parameter.minimum, parameter.maximum
            return type(value) is int and (low is None or value >= low) and (high is None or value <= high)
        case "boolean":
            return type(value) is bool
        case "array" | "object":
            return type(value) is (list if parameter.type == "array" else dict)
        case _:
            return parameter.type == "any"


def variables_of(manifest: Manifest, given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a provider with their defaults; `base_url` may be among the given ones."""
    known = {name: variable.default for name, variable in manifest.variables.items() if variable.default is not None}
    return known | {name: value for name, value in given.items() if name in manifest.variables}


def check_variables(manifest: Manifest, given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a provider. Raises ConfigurationError when one has no value."""
    variables = variables_of(manifest, given)
    for name, variable in manifest.variables.items():
        if name not in variables and not (given.get("base_url") and f"{{{name}}}" in manifest.base_url):
            what = f" ({variable.description})" if variable.description else ""
            raise ConfigurationError(
                f"{manifest.name} needs to know {name}{what}.",
                hint=f'Say it once: dp.provider("{manifest.name}", {name}="…"), or --set {name}=…',
            )
    return variables


def base_of(manifest: Manifest, given: Mapping[str, str]) -> str:
    """The base URL of a provider.

    Raises:
        ConfigurationError: a variable in it is not set, or it is not an address that a key can be sent to.
    """
    base = given.get("base_url") or manifest.base_url
    variables = check_variables(manifest, given)

    def filled(found: re.Match[str]) -> str:
        value = variables.get(found[1], "")
        if found.start() == 0:
            return value
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", value):
            raise ConfigurationError(
                f"{manifest.name}: {found[1]} is {value[:80]!r}, which cannot stand in an address.", hint="Correct it."
            )
        return value

    base = re.sub(r"\{(\w+)\}", filled, base).rstrip("/")
    parts = urlsplit(base)
    try:
        origin_of(base)
    except ValueError:
        raise ConfigurationError(
            f"{manifest.name}: '{base[:100]}' is not the address of a web server.", hint="Write it as https://host/path."
        ) from None
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ConfigurationError(
            f"{manifest.name}: its base URL has more than server and path.", hint="Write it as https://host/path."
        )
    if parts.scheme == "http" and manifest.auth.kind != "none" and not names_this_network(parts.hostname or ""):
        raise ConfigurationError(
            f"{manifest.name}: a key would be sent to {origin_of(base)} without encryption.", hint="Use https."
        )
    return base


def servers_of(manifest: Manifest, given: Mapping[str, str]) -> frozenset[str]:
    """The servers that may be called."""
    base = base_of(manifest, given)
    own = (base,) if given.get("base_url") else (base, *(host for host in manifest.hosts))
    return frozenset(origin_of(address) for address in own)


def build(
    manifest: Manifest,
    operation: Operation,
    values: Values,
    given: Mapping[str, str],
    page: Page | None = None,
    size: int | None = None,
) -> Request:
    """The request of an operation.

    Args:
        given: variables of the user's, and `base_url`.
        page: of a list.
        size: items on a page.

    Raises:
        TemplateError: a template fails with these values.
        ValidationError: a header cannot be sent.
        IntegrationError: the address is of another server.
    """
    names = values.names
    base = base_of(manifest, given)
    if re.fullmatch(r"\{\w+\}", operation.path):
        url = str(names.get(operation.path[1:-1]))
    else:
        url = base + (rendered_path(operation.path, names) if operation.path != "/" else "")
    query = rendered(operation.query, names)
    body = rendered(operation.body, names) if operation.body is not None else None
    form = rendered(operation.form, names) if operation.form is not None else None
    paging = operation.paging
    if page is not None and paging is not None:
        place = {"query": query, "body": body, "form": form}[paging.place]
        if paging.size and size is not None:
            place[paging.size] = size
        if page.value is not None:
            place[paging.parameter] = page.value
    if page is not None and page.url is not None:  # the server's own address has the parameters already
        url = urljoin(url, page.url)
        parts = urlsplit(url)
        url, query = urlunsplit(parts._replace(query="", fragment="")), dict(parse_qsl(parts.query, keep_blank_values=True))
    check_server(manifest, url, servers_of(manifest, given))
    headers = {name: rendered_text(text, names) for name, text in manifest.headers.items()}
    for name, text in operation.headers.items():
        if (value := rendered(text, names)) is not OMITTED:
            headers[name] = str(value)
    if operation.effective == "keyed" and operation.idempotency_header:
        headers[operation.idempotency_header] = values.stamp
    content, kind = _content(operation, names, body, form)
    if content is not None and kind and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = kind
    return Request(operation.method, url, usable_headers(headers), tuple(_pairs(query)), content)


def check_server(manifest: Manifest, url: str, servers: frozenset[str]) -> None:
    """Refuse an address of a server that the provider is not known by.

    Raises:
        IntegrationError: it is one.
    """
    try:
        server = origin_of(url)
    except ValueError:
        server = url.partition("?")[0][:100]
    if server not in servers:
        raise other_server(f"{manifest.name} leads to {server}, which is none of its servers ({', '.join(sorted(servers))}).")


def other_server(message: str) -> IntegrationError:
    """The error for an address, or a redirect, that leads elsewhere."""
    hint = "Nothing was sent there. If that server belongs to it, add it to `hosts` of the manifest."
    return IntegrationError(message, hint=hint, cause="other_server")


def _content(operation: Operation, names: Mapping[str, Any], body: Any, form: Any) -> tuple[str | bytes | None, str]:
    if operation.body_template is not None:
        return json_text(rendered_json(operation.body_template, names)), "application/json"
    if operation.content is not None:
        content = rendered(operation.content, names)
        return (content if isinstance(content, bytes) else str(content)), "application/octet-stream"
    if form is not None:
        return urlencode(list(_pairs(form))), "application/x-www-form-urlencoded"
    if body is OMITTED or operation.body is None:
        return None, ""
    return json_text(finite(body)), "application/json"


def _pairs(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Fields of a query or form: a list is its items under the same name, a mapping is JSON."""
    pairs: list[tuple[str, str]] = []
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:  # pyright: ignore[reportUnknownVariableType]
            if item is None:
                continue
            text = (
                ("true" if item else "false") if isinstance(item, bool) else item if isinstance(item, str) else json_text(item)
            )
            pairs.append((name, text))
    return pairs
