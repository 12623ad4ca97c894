"""Manifests in DiPeO's own shape (`auth.strategy`, `retry_policy`, `request`, `response`, `pagination`), as ours.

What such a file says and DiPeO itself never did (query parameters, path placeholders, limits of operations, pages) is done here. What
has no counterpart is an error rather than left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dipeo_nb.common.text import did_you_mean
from dipeo_nb.common.values import parse_json

_AUTH = {
    "none": "none", "api_key_header": "header", "api_key_query": "query", "oauth2_bearer": "bearer", "basic": "basic",
    "oauth2_client_credentials": "client_credentials", "custom": "custom",
}  # fmt: skip
_LEFT_OUT = frozenset(("webhook_events", "metadata", "schemas_directory", "$schema"))
"""Without a counterpart, and without effect on calls."""
_CONFIG = re.compile(r"\bconfig(?:\.|\[['\"])([A-Za-z_]\w*)")
_IN_PATH = re.compile(r"\{\{\s*(?:config\.)?([A-Za-z_]\w*)\s*\}\}")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
_PREFIX = re.compile(r"(.*?)\{\{?\s*(?:api_key|secret|key|token)\s*\}?\}")


class NotTranslatedError(ValueError):
    """A part that has no counterpart: `where` says which, `hint` what to do."""

    def __init__(self, where: tuple[str, ...], message: str, hint: str) -> None:
        super().__init__(message)
        self.where, self.message, self.hint = where, message, hint


def is_dipeo(value: Mapping[str, Any]) -> bool:
    """Whether a manifest has DiPeO's shape."""
    auth, operations = value.get("auth"), value.get("operations")
    if {"retry_policy", "rate_limit", "default_headers", "default_timeout", "hooks_module"} & set(value):
        return True
    if isinstance(auth, Mapping) and "strategy" in auth:
        return True
    return isinstance(operations, Mapping) and any(
        isinstance(operation, Mapping) and {"request", "response", "pagination"} & set(operation)
        for operation in operations.values()
    )


def translated(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same manifest in our shape, to be checked as any other.

    Raises:
        NotTranslatedError: a part has no counterpart.
    """
    renamed = {"default_timeout": "timeout", "default_headers": "headers", "base_url": "base_url", "description": "description"}
    made: dict[str, Any] = {}
    for key, item in value.items():
        match key:
            case "name":
                made["name"] = re.sub(r"[^a-z0-9_]+", "_", str(item).lower())
            case "version":
                made["version"] = str(item)
            case "auth":
                made["auth"] = _auth(item)
            case "retry_policy":
                made["retry"] = _retry(item)
            case "rate_limit":
                made["limit"] = _limit(item, ("rate_limit",))
            case "hooks_module":
                made["hooks"] = f"{str(item).rpartition('.')[2] if not str(item).endswith('.py') else str(item)[:-3]}.py"
            case "operations" if isinstance(item, Mapping):
                made["operations"] = {name: _operation(str(name), operation) for name, operation in item.items()}
            case _ if key in _LEFT_OUT:
                continue
            case _:
                made[renamed.get(key, key)] = item  # our reader names what is unknown
    return made


def _auth(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    strategy = given.get("strategy", "none")
    if strategy not in _AUTH:
        raise NotTranslatedError(
            ("auth", "strategy"),
            f"There is no strategy {strategy!r}.",
            did_you_mean(str(strategy), _AUTH, f"There are: {', '.join(_AUTH)}."),
        )
    kind = _AUTH[strategy]
    made: dict[str, Any] = {"kind": kind}
    if kind == "header":
        made["name"] = given.get("header", "Authorization")
        if form := given.get("format"):
            found = _PREFIX.fullmatch(str(form))
            if found is None:
                raise NotTranslatedError(
                    ("auth", "format"), "`format` does not end with the key.", "Use `custom` with a function."
                )
            made["prefix"] = found[1]
    if kind == "query":
        made["name"] = given.get("query_param", "")
    if kind == "client_credentials":
        made |= {"token_url": given.get("token_endpoint", ""), "scopes": list(given.get("scopes") or ())}
    if kind == "custom":
        made["hook"] = given.get("custom_handler")
    known = {"strategy", "header", "format", "query_param", "token_endpoint", "scopes", "custom_handler"}
    return made | {key: item for key, item in given.items() if key not in known}


def _retry(given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    made: dict[str, Any] = {}
    for key, item in given.items():
        match key:
            case "max_retries":
                made["max"] = item
            case "base_delay_ms" | "max_delay_ms":
                made["delay" if key == "base_delay_ms" else "longest"] = item / 1000 if isinstance(item, (int, float)) else item
            case "retry_on_status":
                made["on"] = item
            case "strategy" | "backoff_factor" | "jitter":
                continue  # delays double here, with jitter
            case _:
                made[key] = item
    return made


def _limit(given: Any, where: tuple[str, ...]) -> Any:
    if not isinstance(given, Mapping):
        return given
    renamed = {"refill_per_sec": "per_second", "window_size_sec": "window"}
    return {renamed.get(key, key): item for key, item in given.items()}


def _operation(name: str, given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    where = ("operations", name)
    made: dict[str, Any] = {}
    request, response = given.get("request") or {}, given.get("response") or {}
    renamed = {
        "timeout_override": "timeout",
        "pre_request_hook": "before",
        "post_response_hook": "after",
        "required_scopes": "scopes",
    }
    for key, item in dict[str, Any](given).items():
        if key == "path":
            made["path"] = _IN_PATH.sub(r"{\1}", str(item))
        elif key == "rate_limit_override":
            made["limit"] = _limit(item, (*where, key))
        elif key not in ("request", "response", "pagination"):
            made[renamed.get(key, key)] = item
    made |= _request(request, made, where)
    made |= _response(response, where)
    if (paging := _paging(given.get("pagination"), where)) is not None:
        made["paging"] = paging
    made["parameters"] = _parameters(request, made) | (made.get("parameters") or {})
    if "resource_id" in made["parameters"]:
        made["resource"] = "resource_id"
    return made


def _request(given: Mapping[str, Any], made: dict[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in given.items():
        match key:
            case "body_template":
                found["body_template" if isinstance(item, str) else "body"] = item
            case "query_params_template" | "headers_template":
                found["query" if key.startswith("query") else "headers"] = _mapping(item, (*where, "request", key))
            case "path_params_template":
                for placeholder, template in _mapping(item, (*where, "request", key)).items():
                    inner = _IN_PATH.fullmatch(str(template).strip())
                    if inner is None:
                        raise NotTranslatedError(
                            (*where, "request", key), f"'{placeholder}' is more than one value.", "Name it in `path`."
                        )
                    made["path"] = made.get("path", "").replace(f"{{{placeholder}}}", f"{{{inner[1]}}}")
            case "body_schema" | "query_params_schema":
                continue  # they describe parameters
            case _:
                raise NotTranslatedError((*where, "request", key), f"There is no key '{key}'.", "Leave it out.")
    return found


def _mapping(value: Any, where: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            value = None
    if not isinstance(value, Mapping):
        raise NotTranslatedError(where, "This is not a mapping of templates.", "Write it as `name: template` lines.")
    return dict(value)


def _response(given: Mapping[str, Any], where: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in given.items():
        match key:
            case "success_codes":
                found["success"] = item
            case "json_pointer":
                found["result"] = (
                    "" if item in ("$", "", "/", None) else f"/{str(item).removeprefix('$').lstrip('./').replace('.', '/')}"
                )
            case "schema":
                found["schema"] = item
            case "error_json_pointer":
                found["errors"] = [{"message": f"/{str(item).lstrip('/')}"}]
            case "transform" if isinstance(item, Mapping):
                found["transform"] = item
            case _:
                raise NotTranslatedError(
                    (*where, "response", key), f"`{key}` has no counterpart here.", "Use `after` with a function of the hooks."
                )
    return found


def _paging(given: Any, where: tuple[str, ...]) -> dict[str, Any] | None:
    if not isinstance(given, Mapping) or given.get("type", "none") == "none":
        return None
    names = {
        "items_path": "items", "cursor_path": "cursor", "next_token_path": "cursor", "total_path": "total", "has_more_path": "more",
        "offset_param": "parameter", "page_param": "parameter", "cursor_param": "parameter", "token_param": "parameter",
        "limit_param": "size", "per_page_param": "size", "default_limit": "default_size",
    }  # fmt: skip
    made: dict[str, Any] = {"kind": given["type"]}
    for key, item in given.items():
        if key == "type":
            continue
        if key not in names:
            raise NotTranslatedError(
                (*where, "pagination", key), f"There is no key '{key}'.", f"There are: {', '.join(names)}."
            )
        pointer = names[key] in ("items", "cursor", "total", "more")
        made[names[key]] = f"/{str(item).lstrip('$./').replace('.', '/')}" if pointer else item
    return made


def _parameters(request: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that templates name, and that schemas describe."""
    found: dict[str, Any] = {}
    for key in ("query_params_schema", "body_schema"):
        schema = request.get(key)
        if isinstance(schema, Mapping):
            required = schema.get("required") or ()
            for name, about in (schema.get("properties") or {}).items():
                found[name] = {"schema": dict(about), "required": name in required}
    for text in _texts([made.get(key) for key in ("query", "headers", "body", "body_template")]):
        for name in _CONFIG.findall(text):
            found.setdefault(name, {"type": "any"})
    for name in _PLACEHOLDER.findall(made.get("path", "")):
        found[name] = {**found.get(name, {"type": "string"}), "required": True}
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
