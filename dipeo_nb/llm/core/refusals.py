"""Reasons for which a server refuses a call although nothing is wrong with the key: region, bill, model, a firewall in between."""

from __future__ import annotations

import re
from typing import NamedTuple

from dipeo_nb.errors import AuthError, LLMError, ProviderError


class _Refusal(NamedTuple):
    """A reason for which a server refuses a call although nothing is wrong with the key."""

    statuses: tuple[int, ...]
    words: re.Pattern[str]
    """Found in the code and the message of the server, in lower case."""
    kind: type[LLMError]
    sentence: str
    hint: str
    by_account: bool = False
    """Whether it depends on the account, so that a key may be all that is missing."""


_REGION = (
    AuthError,
    "{name} does not serve this region: {said}",
    "Another key does not help. Use a provider or a model that is offered where the call comes from (a VPN or proxy counts), or --model local.",
)
_ABOUT_KEYS = re.compile(
    r"\bkey\b|api[-_]key|token|authenticat|credential|log ?in\b|sign ?in\b|authorization header|unregistered callers"
)
_REFUSALS = (
    _Refusal(
        (403, 451),
        re.compile(r"\bregions?\b|\bcountry\b|\bcountries\b|territory|\blocation\b|geograph|geo-?block|jurisdiction|sanction"),
        *_REGION,
    ),
    _Refusal(
        (400, 401),  # of a request as well: a parameter may be called `country`
        re.compile(
            r"unsupported_country|(?:user |your )(?:location|region|country)\b.{0,40}\bnot\b|not (?:available|supported|offered) in (?:your|this) (?:location|region|country)"
        ),
        *_REGION,
    ),
    _Refusal(
        (401, 403),
        re.compile(
            r"ip_not_authorized|\bip(?: address)?(?:es)?\b.{0,40}\b(?:not (?:authorized|allowed)|blocked|denied|allow ?list|whitelist)"
        ),
        AuthError,
        "{name} does not accept calls from this IP address: {said}",
        "Add the address to the allowlist of the account, or call from one that is on it.",
    ),
    _Refusal(
        (403,),
        re.compile(
            r"billing|payment|\bcredits?\b|\bbalance\b|insufficient_quota|spending (?:limit|cap)|spend limit|subscription|overdue|upgrade your plan"
        ),
        ProviderError,
        "{name}: {said}",
        "Check plan and billing, or run with --model local.",
    ),
    _Refusal(
        (403,),
        re.compile(
            r"service_disabled|has not been used in project|\bapi\b.{0,60}\b(?:is|are) (?:disabled|not enabled)|not been enabled"
        ),
        AuthError,
        "{name}: the API is not enabled for the project of the key: {said}",
        "Enable it in the console of the provider, or use a key of another project.",
        by_account=True,
    ),
    _Refusal(
        (400, 403, 404),
        re.compile(r"must be verified|organization is not verified|verify (?:your )?organi[sz]ation"),
        AuthError,
        "{name} does not allow the use of '{model}': {said}",
        "Verify the organization with the provider, or choose another model.",
        by_account=True,
    ),
    _Refusal(
        (403,),
        re.compile(
            r"model_not_found|model_not_allowed|model_access|(?:access|permission|permitted|allowed|authori[sz]ed|entitled|enabled)\b.{0,60}\bmodels?\b|"
            r"\bmodels?\b.{0,80}\b(?:access|permission|not (?:permitted|allowed|authori[sz]ed|enabled|available|supported)|restricted|gated)"
        ),
        AuthError,
        "{name} does not allow the use of '{model}': {said}",
        "Ask the provider, or the administrator of the account, for access to the model, or choose another one.",
        by_account=True,
    ),
    _Refusal(
        (401, 403),
        re.compile(
            r"missing scopes?|insufficient[_ ](?:permissions?|scopes?)|restricted api key|access_token_scope_insufficient"
        ),
        AuthError,
        "{name}: the key lacks a permission: {said}",
        "Give the key this permission in the console of the provider, or use another key.",
        by_account=True,
    ),
)
"""In order of precedence."""
_BLOCKED_BY = re.compile(r"cloudflare|firewall|\bwaf\b|captcha|web application|blocked by|access denied by|proxy")


def refusal_of(
    status: int, said: str, *, provider: str, model: str, code: str = "", keyless: bool = False, page: bool = False
) -> tuple[type[LLMError], str, str] | None:
    """(class, message, hint) of the error of a call that is refused for another reason than its key; None when neither the status
    nor the message gives one.

    Args:
        said: the message of the server.
        code: its own name for the problem.
        keyless: whether no key was sent.
        page: whether a web page came in place of an answer of the API.
    """
    low = f"{code} {said}".lower()
    said = f"{said.rstrip('.')}."
    wants_key = keyless and _ABOUT_KEYS.search(low)  # what is said of models and permissions is what a key would give
    for refusal in _REFUSALS:
        if status not in refusal.statuses or not refusal.words.search(low):
            continue
        if not (wants_key and refusal.by_account):
            return refusal.kind, refusal.sentence.format(name=provider, model=model, said=said), refusal.hint
    if status == 403 and (page or _BLOCKED_BY.search(low)):  # the API itself answers with JSON
        hint = (
            "A proxy or firewall may be in the way: check the network and the address of the server, or run with --model local."
        )
        return AuthError, f"Something in front of {provider} refused the call: {said}", hint
    return None
