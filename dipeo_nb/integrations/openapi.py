"""OpenAPI documents (3.0 to 3.2) as manifests: each operation with its parameters, body and authorisation.

What such a document does not say (pages, limits, effects, how to find what was made) is said over it, in a manifest that begins with
`openapi: FILE`.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any

import inflection

from dipeo_nb.errors import ManifestError

METHODS = ("get", "put", "post", "patch", "delete", "head")
DEEPEST = 5
"""References that are followed into each other; beyond, and in circles, a schema takes anything."""
LONGEST = 60
_RESERVED = frozenset(
    ("and", "or", "not", "in", "is", "if", "else", "for", "true", "false", "none", "loop", "recursive", "import", "range")
)
_OWN_HEADERS = frozenset(("accept", "content-type", "authorization", "cookie", "host", "content-length"))
_KEPT = frozenset((
    "type", "description", "default", "enum", "items", "properties", "required", "minimum", "maximum", "minLength", "maxLength", "minItems",
    "maxItems", "additionalProperties", "anyOf", "oneOf", "allOf", "const", "not",
))  # fmt: skip
"""Keywords of schemas that are taken over; formats and patterns are left to the server."""


def is_document(value: Any) -> bool:
    """Whether data is an OpenAPI document, of whatever version."""
    return isinstance(value, Mapping) and (
        "swagger" in value or re.fullmatch(r"\d+\.\d+(\.\d+)?", str(value.get("openapi", ""))) is not None
    )


def manifest_data(document: Mapping[str, Any], path: str, name: str) -> dict[str, Any]:
    """The data of a manifest for a document.

    Args:
        path: of the document, for messages.
        name: of the provider.

    Raises:
        ManifestError: it is of another version, or has no operation.
    """
    version = str(document.get("openapi") or document.get("swagger"))
    if not version.startswith("3."):
        raise ManifestError(
            f"{path} is OpenAPI {version[:20]}.", hint="Convert it to 3.0 or newer: npx swagger2openapi FILE.", path=path
        )
    info = _mapping(document.get("info"))
    operations: dict[str, Any] = {}
    for address, item in _mapping(document.get("paths")).items():
        item = _resolved(document, item)
        shared = _listed(item.get("parameters"))
        for method in METHODS:
            if isinstance(given := item.get(method), Mapping):
                own = _unique(_slug(str(given.get("operationId") or f"{method}_{address}")), operations)
                operations[own] = _operation(document, str(address), method, given, shared)
    if not operations:
        raise ManifestError(f"{path} has no operation.", hint="Give a document with `paths`.", path=path)
    base, variables = _server(document)
    return {
        "name": name, "title": str(info.get("title", "")), "description": str(info.get("description", ""))[:500],
        "version": str(info.get("version", "")), "base_url": base, "variables": variables, "auth": _auth(document),
        "errors": [{"code": "/code", "message": "/message"}], "operations": operations,
    }  # fmt: skip


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Data with other data over it: mappings are merged, anything else is replaced."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = (
            overlaid(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) and name != "parameters" else value
        )  # pyright: ignore[reportUnknownArgumentType]
        if name == "parameters" and isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = {**old, **value}
    return merged


def _operation(
    document: Mapping[str, Any], address: str, method: str, given: Mapping[str, Any], shared: list[Any]
) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    made: dict[str, Any] = {
        "description": str(given.get("summary") or given.get("description") or "")[:300],
        "method": method.upper(),
    }
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    path = address
    own = {
        (_resolved(document, p).get("name"), _resolved(document, p).get("in")): _resolved(document, p)
        for p in (*shared, *_listed(given.get("parameters")))
    }
    for (name, place), parameter in own.items():
        if (
            place not in ("path", "query", "header")
            or not isinstance(name, str)
            or (place == "header" and name.lower() in _OWN_HEADERS)
        ):
            continue
        slug = _unique(_slug(name), parameters)
        schema = _schema(document, parameter.get("schema") or _first_content(parameter).get("schema") or {})
        parameters[slug] = _parameter(
            schema, parameter.get("description"), required=place == "path" or parameter.get("required") is True
        )
        if place == "path":
            path = path.replace("{" + name + "}", "{" + slug + "}")
        elif place == "query":
            query[name] = (
                f"{{{{ {slug} }}}}"
                if parameter.get("explode", True) or schema.get("type") != "array"
                else f"{{{{ {slug} | join(',') if {slug} }}}}"
            )
        else:
            headers[name] = f"{{{{ {slug} }}}}"
    for name in re.findall(r"\{([^{}]+)\}", path):  # those that the document does not describe
        if name not in parameters:
            slug = _unique(_slug(name), parameters)
            parameters[slug] = _parameter({"type": "string"}, None, required=True)
            path = path.replace("{" + name + "}", "{" + slug + "}")
    made |= {"path": path, "query": query, "headers": headers}
    if method not in ("get", "head"):
        made |= _body(document, _resolved(document, given.get("requestBody")), parameters, headers)
    if given.get("deprecated") is True:
        made["deprecated"] = "it is deprecated by the provider."
    if not _answers_json(document, _mapping(given.get("responses"))):
        made["answer"] = "text"
    return made | {"parameters": parameters}


def _body(
    document: Mapping[str, Any], given: Mapping[str, Any], parameters: dict[str, Any], headers: dict[str, str]
) -> dict[str, Any]:
    """The body of an operation; adds its parameters."""
    content = _mapping(given.get("content"))
    kind = next(
        (k for k in content if "json" in k),
        next((k for k in content if k == "application/x-www-form-urlencoded"), next(iter(content), None)),
    )
    if kind is None:
        return {}
    schema = _schema(document, _mapping(content[kind]).get("schema") or {})
    required = given.get("required") is True
    fields = schema.get("properties")
    if (
        ("json" in kind or "urlencoded" in kind)
        and isinstance(fields, Mapping)
        and fields
        and "oneOf" not in schema
        and "anyOf" not in schema
    ):
        tree: dict[str, Any] = {}
        for name, part in fields.items():
            slug = _unique(_slug(str(name)), parameters)
            parameters[slug] = _parameter(
                part,
                part.get("description") if isinstance(part, Mapping) else None,
                required=required and name in schema.get("required", ()),
            )
            tree[str(name)] = f"{{{{ {slug} }}}}"
        return {"form" if "urlencoded" in kind else "body": tree}
    slug = _unique("body", parameters)
    parameters[slug] = _parameter(schema if "json" in kind else {}, given.get("description"), required=required)
    if "json" in kind:
        return {"body": f"{{{{ {slug} }}}}"}
    headers["Content-Type"] = kind
    return {"content": f"{{{{ {slug} }}}}"}


def _parameter(schema: Any, description: Any, *, required: bool) -> dict[str, Any]:
    said = dict(schema) if isinstance(schema, Mapping) else {}
    if description:
        said["description"] = str(description)[:300]
    return {"schema": said, "required": required, "description": str(description or "")[:300]}


def _schema(document: Mapping[str, Any], given: Any, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A schema without references, in the dialect of 2020-12; what is beyond `DEEPEST`, or a circle, takes anything."""
    if not isinstance(given, Mapping):
        return {}
    if isinstance(reference := given.get("$ref"), str):
        if reference in seen or len(seen) >= DEEPEST:
            return {}
        return _schema(document, _at(document, reference), (*seen, reference))
    made: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _KEPT:
            continue
        if name == "properties":
            made[name] = {str(n): _schema(document, part, seen) for n, part in _mapping(value).items()}
        elif name in ("items", "not") or (name == "additionalProperties" and isinstance(value, Mapping)):
            made[name] = _schema(document, value, seen)
        elif name in ("anyOf", "oneOf", "allOf"):
            made["anyOf" if name == "oneOf" else name] = [_schema(document, part, seen) for part in _listed(value)]
        else:
            made[name] = value
    if given.get("nullable") is True and isinstance(made.get("type"), str):  # 3.0
        made["type"] = [made["type"], "null"]
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
    if isinstance(made.get("required"), bool):
        del made["required"]
    return made


def _auth(document: Mapping[str, Any]) -> dict[str, Any]:
    schemes = _mapping(_mapping(document.get("components")).get("securitySchemes"))
    wanted = [name for option in _listed(document.get("security")) if isinstance(option, Mapping) for name in option]
    for name in (*wanted, *schemes):
        scheme = _resolved(document, schemes.get(name))
        if (auth := _auth_of(scheme)) is not None:
            return auth | ({} if wanted else {"optional": True})
    return {"kind": "none"}


def _auth_of(scheme: Mapping[str, Any]) -> dict[str, Any] | None:
    match scheme.get("type"), str(scheme.get("scheme", "")).lower(), scheme.get("in"):
        case "http", "bearer", _:
            return {"kind": "bearer"}
        case "http", "basic", _:
            return {"kind": "basic"}
        case "apiKey", _, ("header" | "query") as place:
            return {"kind": place, "name": str(scheme.get("name", ""))}
        case "oauth2", _, _:
            flows = _mapping(scheme.get("flows"))
            for flow, kind in (("clientCredentials", "client_credentials"), ("authorizationCode", "oauth2_code")):
                if isinstance(found := flows.get(flow), Mapping):
                    auth = {
                        "kind": kind,
                        "token_url": str(found.get("tokenUrl", "")),
                        "scopes": list(_mapping(found.get("scopes"))),
                    }
                    return auth | ({"authorize_url": str(found.get("authorizationUrl", ""))} if kind == "oauth2_code" else {})
            return {"kind": "bearer"}
        case ("openIdConnect", _, _):
            return {"kind": "bearer"}
        case _:
            return None


def _server(document: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The base URL, and its variables; a relative one is below a `server` that the user names."""
    first = _mapping(next(iter(_listed(document.get("servers"))), {}))
    url = str(first.get("url") or "/").rstrip("/")
    variables: dict[str, Any] = {}
    for name, given in _mapping(first.get("variables")).items():
        slug = _slug(str(name))
        url = url.replace("{" + str(name) + "}", "{" + slug + "}")
        variables[slug] = {
            "default": str(_mapping(given).get("default", "")),
            "description": str(_mapping(given).get("description", "")),
        }
    if not url.startswith(("http://", "https://", "{")):
        variables["server"] = {"description": "address of the server, such as https://host"}
        url = "{server}" + (url if url.startswith("/") or not url else f"/{url}")
    return url, variables


def _answers_json(document: Mapping[str, Any], responses: Mapping[str, Any]) -> bool:
    """Whether the first answer of success that has a content is JSON; an answer without one is, too."""
    for status, given in responses.items():
        content = _mapping(_resolved(document, given).get("content"))
        if str(status).startswith(("2", "default")) and content:
            return any("json" in kind or kind == "*/*" for kind in content)
    return True


def _resolved(document: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """A part of the document, behind its references."""
    for _ in range(DEEPEST):
        if not isinstance(value, Mapping) or not isinstance(reference := value.get("$ref"), str):
            break
        value = _at(document, reference)
    return _mapping(value)


def _at(document: Mapping[str, Any], reference: str) -> Any:
    if not reference.startswith("#/"):
        return {}  # of another file: nothing is fetched
    value: Any = document
    for step in reference[2:].split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        value = value.get(step) if isinstance(value, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return value  # pyright: ignore[reportUnknownVariableType]


def _first_content(parameter: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(next(iter(_mapping(parameter.get("content")).values()), {}))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _slug(name: str) -> str:
    """A name as manifests have them: `petId`, `pulls/list-files` → `pet_id`, `pulls_list_files`."""
    slug = re.sub(r"[^a-z0-9]+", "_", inflection.underscore(name)).strip("_")[:LONGEST] or "x"
    if not slug[0].isalpha():
        slug = f"p_{slug}"
    return f"{slug}_" if keyword.iskeyword(slug) or slug in _RESERVED else slug


def _unique(slug: str, taken: Mapping[str, Any]) -> str:
    return next(name for name in _numbered(slug) if name not in taken)


def _numbered(slug: str) -> Iterator[str]:
    yield slug
    number = 2
    while True:
        yield f"{slug}_{number}"
        number += 1
