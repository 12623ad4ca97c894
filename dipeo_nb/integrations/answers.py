"""What the answer of a provider means: its result, or one typed error with the next action."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.values import parse_json
from dipeo_nb.diagram.schema_check import validator
from dipeo_nb.domain.ports import HTTPResponse
from dipeo_nb.errors import (
    IntegrationError,
    ProviderAuthError,
    ProviderNotFoundError,
    ProviderRateLimitError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from dipeo_nb.integrations.manifest import Condition, ErrorRule, Kind, Manifest, Operation
from dipeo_nb.integrations.pointers import ABSENT, at, text_at
from dipeo_nb.integrations.rendering import rendered

SHOWN = 300
"""Characters of an answer that an error shows."""
ERRORS: dict[Kind, type[IntegrationError]] = {
    "auth": ProviderAuthError, "not_found": ProviderNotFoundError, "rate_limited": ProviderRateLimitError,
    "rejected": ProviderRejectedError, "unavailable": ProviderUnavailableError,
}  # fmt: skip
_HINTS: dict[Kind, str] = {
    "auth": "Check the key: dipeo-nb keys list.",
    "not_found": "Check the name or id, and whether the key may see it.",
    "rate_limited": "Wait, or ask less often.",
    "rejected": "Correct the parameters.",
    "unavailable": "Try again later.",
}


def value_of(name: str, operation: Operation, response: HTTPResponse) -> Any:
    """The body of an answer as a value.

    Raises:
        ProviderRejectedError: it is not what the operation answers with.
    """
    if operation.answer == "text":
        return response.text
    if not response.content.strip():
        return None
    try:
        return _feed(response.text) if operation.answer == "atom" else parse_json(response.text)
    except (ValueError, ElementTree.ParseError):
        kind = response.headers.get("content-type", "").partition(";")[0] or "something else"
        wanted = "a feed" if operation.answer == "atom" else "JSON"
        raise ProviderRejectedError(
            f"{name} answers {response.status} with {kind[:80]}, not {wanted}: {_beginning(response.text)}",
            hint="Check the base URL, and that nothing in between (a proxy, a login page) answers in its place.",
            status=response.status, url=response.url,
        ) from None  # fmt: skip


def error_of(
    name: str, manifest: Manifest, operation: Operation, response: HTTPResponse, attempts: int, wait: float | None
) -> IntegrationError | None:
    """The error that an answer reports; None when it is a success.

    Args:
        name: of the operation, as messages show it.
        wait: seconds for which the server takes no further call.
    """
    success = response.status in operation.success if operation.success else 200 <= response.status < 300
    value = _value(response)
    for rule in (*operation.errors, *manifest.errors, ErrorRule()):
        if holds(rule.when, response.status, value) if rule.when is not None else not success:
            break
    else:
        return None
    code = text_at(value, rule.code, 100)
    message = text_at(value, rule.message)
    if not code and not message:  # what answers is not the provider, such as a proxy
        message = _beginning(response.text)
    kind = rule.kinds.get(code or "") or rule.kind or _kind_of(response, wait)
    said = ": ".join(dict.fromkeys(redactor.text(text) for text in (code, message) if text)) or "nothing"
    status = f" ({response.status})" if not success else ""
    hint = rule.hints.get(code or "") or _HINTS[kind]
    if kind == "auth" and operation.scopes:
        hint = f"{hint.rstrip('.')}. The key needs: {', '.join(operation.scopes)}."
    if kind == "rate_limited" and wait is not None:
        hint = f"Wait {wait:.0f} s, or ask less often."
    facts: dict[str, Any] = {"status": response.status, "url": response.url, "attempts": attempts, "provider_code": code}
    if kind == "rate_limited":
        facts["retry_after"] = wait
    return ERRORS[kind](f"{name} fails{status}: {said.rstrip('.')}.", hint=hint, **facts)


def result_of(name: str, operation: Operation, value: Any) -> Any:
    """The result in an answer.

    Raises:
        ProviderRejectedError: it is not there, or does not fit the schema of the operation.
    """
    result = at(value, operation.result)
    if result is ABSENT and "empty" in operation.model_fields_set:
        return operation.empty
    if result is ABSENT:
        raise ProviderRejectedError(
            f"{name} answers without {operation.result}.",
            hint="The provider has changed, or `result` of the operation is wrong.",
        )
    if operation.schema_ is not None:
        for problem in validator(operation.schema_, checked=True).iter_errors(result):
            raise ProviderRejectedError(
                f"{name} answers with what does not fit: {redactor.text(problem.message)[:SHOWN]}.",
                hint="The provider has changed, or `schema` of the operation is wrong.",
            )
    return result


def transformed(operation: Operation, result: Any, parameters: Mapping[str, Any]) -> Any:
    """The result in the shape that the operation gives it."""
    if operation.transform is None:
        return result
    if isinstance(result, list):
        return [rendered(operation.transform, {**parameters, "item": item}) for item in result]  # pyright: ignore[reportUnknownVariableType]
    return rendered(operation.transform, {**parameters, "result": result})


def holds(condition: Condition, status: int, value: Any) -> bool:
    """Whether a condition holds for an answer."""
    if condition.status and status not in condition.status:
        return False
    if condition.pointer is None:
        return True
    found = at(value, condition.pointer)
    if condition.present is not None:
        return (found is not ABSENT) == condition.present
    return found is not ABSENT and type(found) is type(condition.equals) and found == condition.equals


def _value(response: HTTPResponse) -> Any:
    try:
        return parse_json(response.text)
    except ValueError:
        return None


def _kind_of(response: HTTPResponse, wait: float | None) -> Kind:
    if response.status == 429 or (response.status == 403 and wait is not None):
        return "rate_limited"
    if response.status in (401, 403, 407):
        return "auth"
    if response.status in (404, 410):
        return "not_found"
    return "unavailable" if response.status >= 500 or response.status in (408, 425) else "rejected"


def _beginning(text: str) -> str:
    """What an error shows of an answer; secrets are taken out before it is cut."""
    return re.sub(r"\s+", " ", redactor.text(text[: 20 * SHOWN]))[:SHOWN].strip() or "nothing"


def _feed(text: str) -> dict[str, Any]:
    """An Atom feed as values: its entries, and how many there are altogether."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("a feed with declarations of its own")
    root = ElementTree.fromstring(text)
    if _local(root.tag) != "feed":
        raise ValueError("not a feed")
    total = next((child.text for child in root if _local(child.tag) == "totalResults"), None)
    entries = [_entry(child) for child in root if _local(child.tag) == "entry"]
    return {"total": int(total) if total and total.strip().isdigit() else len(entries), "entries": entries}


def _entry(entry: ElementTree.Element) -> dict[str, Any]:
    found: dict[str, Any] = {"authors": [], "categories": [], "links": []}
    for child in entry:
        name, text = _local(child.tag), re.sub(r"\s+", " ", child.text or "").strip()
        if name == "author":
            found["authors"] += [re.sub(r"\s+", " ", part.text or "").strip() for part in child if _local(part.tag) == "name"]
        elif name == "category":
            found["categories"].append(child.get("term", ""))
        elif name == "link":
            found["links"].append({key: child.get(key) for key in ("href", "rel", "type", "title") if child.get(key)})
        else:
            found[name] = text
    return found


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
