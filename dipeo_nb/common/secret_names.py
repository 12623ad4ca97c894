"""Telling a secret by the name it goes by: a field, a header, a variable, a parameter of a query; and finding those that stand
in texts, with their values.

`is_secret_name` is for names that hardly mean anything else (`api_key`, `X-Auth-Token`, `dbPassword2`); `may_be_secret_name` also
takes `key`, `auth` or `sig`, whose values count only when they look random.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

USER, PASSWORD = "user@", "password@"
"""Parts of an address; no parameter has these names."""
_PARTS = re.compile(r"[A-Z]{1,200}(?![a-z])|[A-Z]?[a-z]{1,200}")
_LONGEST_NAME = 200
_CERTAIN = frozenset((
    "token", "tok", "password", "passwd", "pwd", "passphrase", "passcode", "secret", "credential", "credentials",
    "authorization", "bearer", "jwt", "pat", "apikey", "accesskey", "secretkey", "privatekey", "cookie",
))  # fmt: skip
_ENDINGS = ("password", "passwd", "token", "secret", "apikey", "secretkey", "accesskey", "privatekey", "passphrase")
"""Of words without a gap, such as `dbpassword`."""
_KINDS_OF_KEYS = frozenset((
    "api", "access", "secret", "private", "subscription", "account", "storage", "auth", "encryption", "signing", "service",
    "master", "client", "app", "application",
))  # fmt: skip
"""Before `key`."""
_POSSIBLE = frozenset((
    "key", "keys", "auth", "session", "sig", "signature", "pass", "sas", "dsn", "webhook", "connection", "pin", "otp", "nonce",
    "csrf",
))  # fmt: skip
_BEHIND = frozenset((
    "value", "prod", "production", "dev", "test", "staging", "live", "old", "new", "primary", "secondary", "header", "text",
    "string", "plain",
))  # fmt: skip
"""Words that may follow the one that counts."""


def is_secret_name(name: str) -> bool:
    """Whether what goes by that name is a secret, whatever it looks like."""
    words = _words(name)
    if not words:
        return False
    last = words[-1]
    if last in _CERTAIN or last.endswith(_ENDINGS):
        return True
    return last == "key" and len(words) > 1 and words[-2] in _KINDS_OF_KEYS


_ATOMS = frozenset({int, float, bool, type(None)})


def may_be_secret_name(name: str) -> bool:
    """Whether what goes by that name is a secret if it looks like one (`looks_random`)."""
    words = _words(name)
    return bool(words) and (words[-1] in _POSSIBLE or is_secret_name(name))


def looks_random(value: str) -> bool:
    """Whether a text looks made by a generator: one word of at least 12 characters with letters and digits."""
    return len(value) >= 12 and not _GAP.search(value) and bool(_DIGIT.search(value)) and bool(_LETTER.search(value))


def names_secret(name: str, value: str) -> bool:
    """Whether a value under a name is a secret as it stands: neither a template nor a reference to a variable."""
    certain = is_secret_name(name)
    if not certain and not may_be_secret_name(name):
        return False
    return bool(value.strip()) and not is_reference(value) and (certain or looks_random(value))


def is_reference(value: str) -> bool:
    """Whether a text only refers to a secret: `{{globals.token}}`, `${TOKEN}`, `<your key>`, `…`."""
    text = value.strip()
    return "{{" in text or text.startswith(("$", "%(", "<", "env:", "…", "...")) or not text.strip("*xX.•-_ ")


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """The values in plain data whose names mark them as secrets, at any depth."""
    if type(value) is str:
        if names_secret(name, value):
            yield from of_header(value)
        return
    waiting: list[tuple[str, Any, int]] = [(name, value, 0)]
    while waiting:
        called, item, depth = waiting.pop()
        kind = type(item)
        if isinstance(item, str):
            if names_secret(called, item):
                yield from of_header(item)
        elif depth > 50 or kind in _ATOMS:
            continue
        elif kind is dict or isinstance(item, Mapping):
            waiting += [(str(key), inner, depth + 1) for key, inner in item.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting += [(called, inner, depth + 1) for inner in item]  # pyright: ignore[reportUnknownVariableType]


def of_header(value: str) -> Iterator[str]:
    """The secrets of a header's value: behind the scheme (`Bearer …`), and both halves of a Basic pair."""
    text = value.strip()
    scheme, gap, rest = text.partition(" ")
    if gap and scheme.lower() in _SCHEMES:
        yield rest.strip()
        if scheme.lower() == "basic":
            yield from _of_basic(rest.strip())
    else:
        yield text


def of_pair(user: str, password: str) -> Iterator[str]:
    """A password and the text that Basic authorisation makes of it."""
    if password:
        yield password
    if user or password:
        yield base64.b64encode(f"{user}:{password}".encode()).decode()


def secrets_of_text(text: str, *, code: bool = True) -> Iterator[str]:
    """Secrets in a text: in addresses, behind `Bearer`; in *code* also values given to names of secrets.

    Takes linear time: every pattern has an anchor and a bounded length.
    """
    if "://" in text:
        for found in _ADDRESS.finditer(text):
            yield from _of_address(found[0])
    lower = text.lower()
    if "bearer" in lower or "basic" in lower:
        for found in _SCHEME.finditer(text):
            if looks_random(found["value"]):
                yield found["value"]
                if found["scheme"].lower() == "basic":
                    yield from _of_basic(found["value"])
    if not code or not _HINT.search(lower):
        return
    for pattern in (_QUOTED, _IN_HEADER, _OPTION, _SHELL):
        for found in pattern.finditer(text):
            if names_secret(found["name"], found["value"]):
                yield from of_header(found["value"])
    for found in _USER_OPTION.finditer(text):
        yield from of_pair(found["user"], found["password"])


_GAP = re.compile(r"\s")
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[A-Za-z]")
_SCHEMES = frozenset(("bearer", "basic", "token", "apikey", "api-key", "key", "digest", "negotiate", "bot"))
_HINT = re.compile(
    "tok|key|pass|pwd|secret|auth|credential|jwt|pat|cookie|session|sig|sas|dsn|webhook|bearer|connection|pin|otp|nonce|csrf|-u"
)
"""One of these is in every text in which the patterns below find something; looking for them is faster."""
_NAME = r"(?<![\w-])(?P<name>[A-Za-z_][\w-]{0,80})"
_QUOTED = re.compile(
    _NAME
    + r"""(?P<after>["'`]?)\]?[ \t]{0,8}(?:[:=]|(?<=["'`]),)[ \t]{0,8}[rbuf]?(?P<mark>["'`])(?P<value>[^"'`\n]{4,4096})(?P=mark)"""
)
"""`token = "…"`, `"token": "…"`, `headers["X-API-Key"] = "…"`, `("token", "…")`."""
_IN_HEADER = re.compile(
    _NAME + r"""[ \t]{0,4}:[ \t]{1,4}(?P<value>(?:[A-Za-z-]{1,12}[ \t])?[^\s"'`,;{}]{4,4096})[ \t]{0,8}(?=["'`\r\n]|\Z)"""
)
"""`X-API-Key: …`, in quotes as one text or on a line of its own."""
_OPTION = re.compile(r"""(?<!\S)--(?P<name>[A-Za-z][\w-]{0,60})[= ]["']?(?P<value>[^\s"'`]{4,4096})""")
"""`--password=…`."""
_SHELL = re.compile(r"""(?:^|[\s;&|])(?P<name>[A-Za-z_]\w{0,80})=(?P<value>[^\s"'`$;&|<>(){},]{4,4096})(?=[\s;&|]|\Z)""")
"""`TOKEN=…`."""
_USER_OPTION = re.compile(
    r"""(?<!\S)(?:-u|--user)[= ]{0,4}["']?(?P<user>[^\s"':{}$]{1,200}):(?P<password>[^\s"'{}$]{1,4096})"""
)
"""`curl -u user:password`."""
_SCHEME = re.compile(r"(?<![A-Za-z])(?P<scheme>bearer|basic)[ \t]{1,4}(?P<value>[A-Za-z0-9._~+/=-]{8,4096})", re.IGNORECASE)
_ADDRESS = re.compile(r"""(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s"'`<>]{1,4096}""")


def _words(name: str) -> Sequence[str]:
    return _words_of(name) if len(name) <= _LONGEST_NAME else ()


@lru_cache(maxsize=4096)  # every run asks for the same variables and fields
def _words_of(name: str) -> Sequence[str]:
    words = [word.lower() for word in _PARTS.findall(name)]
    while len(words) > 1 and words[-1] in _BEHIND:
        words.pop()
    return tuple(words)


def _of_basic(encoded: str) -> Iterator[str]:
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return
    if colon:
        yield password or user  # some services take the key as the name


def _of_address(url: str) -> Iterator[str]:
    """The secrets of an address, as written and decoded; with a password also the pair that Basic authorisation sends."""
    user = ""
    for place, secret in credentials_of_address(url):
        if place == USER:
            user = unquote(secret)
        if is_reference(secret) or (place == USER and not looks_random(secret)):
            continue
        yield secret
        yield unquote(secret)
        if place == PASSWORD:
            yield from of_pair(user, unquote(secret))


def credentials_of_address(url: str) -> Iterator[tuple[str, str]]:
    """(`USER`, `PASSWORD` or the name of a parameter; the text there, as written) for all that an address may have
    for a secret: user and password, and those parameters of its query that are named like one.

    A password may hold `/`, `@` and `:` that ought to have been encoded: it ends at the last `@`.
    """
    _, there, rest = url.partition("://")
    if not there:
        return
    whole, question_mark, query = rest.partition("?")
    before, at, _ = whole.partition("#")[0].rpartition("@")
    first, slash, _ = before.partition("/")
    host, colon, port = first.partition(":")
    if at and not (slash and host and (not colon or port.isdecimal())):  # else the `@` is in the path
        user, colon, password = before.partition(":")
        if user:
            yield USER, user
        if password:
            yield PASSWORD, password
    if question_mark:
        for part in query.partition("#")[0].split("&"):
            name, _, value = part.partition("=")
            if value and may_be_secret_name(unquote(name)):
                yield unquote(name), value
