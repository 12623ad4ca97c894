"""api_job: calls an HTTP API.

Inputs named `url`, `headers`, `params` and `body` take the place of the fields. Texts in all four are templates. `params` go into
the query. What is sent again, and when, is the rule of all requests (`integrations.attempts`). A POST or PATCH carries an
`Idempotency-Key` that is the same for every attempt at the same work, so that a service that knows it does that once, also when the
run is resumed after a crash (https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, cast

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.secret_names import of_pair
from dipeo_nb.common.values import json_text, parse_json
from dipeo_nb.domain.enums import AuthType
from dipeo_nb.domain.nodes import ApiJobNode
from dipeo_nb.domain.ports import HTTPResponse
from dipeo_nb.errors import IntegrationError, NodeExecutionError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Output, as_text, plain

API_TIMEOUT = 30.0
"""Seconds that one attempt waits for the server; a node's `timeout` is the time for all of them together."""
MAX_RETRIES = 3
"""Attempts after the first, as in DiPeO."""
TIMEOUT = 300.0  # seconds for all attempts and their pauses, when the node names none
SHOWN = 500
"""Characters of an answer that an error shows."""


async def execute(context: NodeContext) -> Output:
    spec = cast(ApiJobNode, context.node.spec)
    url = as_text(_field(context, "url", spec.url)).strip()
    if not url:
        raise NodeExecutionError("The node has no `url`.", hint="Set it, or draw an arrow labelled url.")
    method = str(spec.method)
    headers = {name: in_a_line(value) for name, value in _mapping(context, "headers", spec.headers).items()}
    headers |= _credentials(context, spec)
    if method in ("POST", "PATCH"):
        headers.setdefault("Idempotency-Key", context.idempotency_key)
    params = _mapping(context, "params", spec.params)
    redactor.add_named({"headers": headers, "params": params})
    redactor.add_found(url)
    response = await context.services.http.request(
        method,
        url,
        headers=headers,
        params={k: in_a_line(v) if isinstance(v, Mapping) else v for k, v in params.items()},
        **({} if method == "GET" else _body(context, spec)),
        timeout=API_TIMEOUT if spec.timeout is None else min(spec.timeout, API_TIMEOUT),
        max_retries=MAX_RETRIES,
    )
    meta = {"status": response.status, "url": response.url, "attempts": response.attempts}
    if not 200 <= response.status < 300:
        raise IntegrationError(
            f"{method} {response.url} answers {response.status}: {beginning(response.text)}",
            hint=_advice(response.status),
            **meta,
        )
    return Output(answer_of(response), meta={**meta, "content_type": response.headers.get("content-type", "")})


def beginning(text: str) -> str:
    """What an error shows of an answer. Secrets are taken out first: the cut could leave a piece of one."""
    return redactor.text(text[: 20 * SHOWN])[:SHOWN].strip() or "nothing"


def in_a_line(value: Any) -> str:
    """A value as a header or parameter takes it: text as it is, structure as JSON on one line."""
    return json_text(plain(value)) if isinstance(value, (Mapping, list)) else as_text(value)


def answer_of(response: HTTPResponse) -> Any:
    """JSON as its value, everything else as text."""
    try:
        return parse_json(response.text)
    except ValueError:
        return response.text


def _field(context: NodeContext, name: str, own: Any) -> Any:
    given = context.inputs.values.get(name)
    return plain(given) if given is not None else context.render_within(own)


def _mapping(context: NodeContext, name: str, own: Any) -> dict[str, Any]:
    """Headers or params: a mapping, or JSON text of one."""
    value = _field(context, name, own)
    if isinstance(value, str):
        try:
            value = parse_json(value) if value.strip() else {}
        except ValueError as error:
            raise NodeExecutionError(f"`{name}` is not JSON: {error}.", hint="Write it as a mapping.") from None
    if not isinstance(value, Mapping):
        raise NodeExecutionError(
            f"`{name}` is {type(value).__name__}, not a mapping.", hint=f"Write {name} as `name: value` lines."
        )
    return {str(key): item for key, item in value.items() if item is not None}


def _body(context: NodeContext, spec: ApiJobNode) -> dict[str, Any]:
    body = _field(context, "body", spec.body)
    if not isinstance(body, str):
        return {} if body is None else {"json": body}
    try:
        return {"json": parse_json(body)}
    except ValueError:
        return {"content": body}


def _credentials(context: NodeContext, spec: ApiJobNode) -> dict[str, str]:
    """The header that the authorisation makes; what it holds is redacted wherever the run is shown."""
    if spec.auth_type in (None, AuthType.NONE):
        return {}
    config = _mapping(context, "auth_config", spec.auth_config)

    def wanted(name: str) -> str:
        value = str(config.get(name) or "")
        if not value:
            raise NodeExecutionError(
                f"auth_type {spec.auth_type} needs auth_config.{name}.",
                hint=f"Set it, best from an input of the run: {name}: '{{{{globals.{name}}}}}'.",
            )
        return value

    match spec.auth_type:
        case AuthType.BEARER:
            redactor.add(wanted("token"))
            return {"Authorization": f"Bearer {wanted('token')}"}
        case AuthType.BASIC:
            pair = f"{wanted('username')}:{config.get('password', '')}"
            encoded = base64.b64encode(pair.encode()).decode()
            redactor.add(*of_pair(wanted("username"), str(config.get("password", ""))))
            return {"Authorization": f"Basic {encoded}"}
        case _:
            redactor.add(wanted("key_value"))
            return {str(config.get("key_name") or "X-API-Key"): wanted("key_value")}


def _advice(status: int) -> str:
    match status:
        case 401 | 403:
            return "Check auth_type and auth_config."
        case 404:
            return "Check the address."
        case 400 | 422:
            return "Check params and body against the service's documentation."
        case 429:
            return "Wait, or ask less often."
        case _:
            return "The service failed; try again later." if status >= 500 else "See the service's documentation."
