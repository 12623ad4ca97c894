"""Redacts secrets from what is stored, shown or logged.

Two strengths: `scrubbed` (recordings, messages, log lines) also hides what is only in the position of a secret; calling
`redactor` (values that a run produces) hides known secrets and the shapes of known kinds of keys, nothing else: a value named
`password` or an address with `?token=` may be what the diagram is for.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import string
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from dipeo_nb.common.many_texts import MANY, joined
from dipeo_nb.common.secret_names import secrets_in, secrets_of_text
from dipeo_nb.common.values import well_formed
from dipeo_nb.errors import ValidationError

HIDDEN = "[hidden]"
"""Stands where a secret stood."""
_FIELD = re.compile(
    r"(^|[-_.])(authorization|api[-_]?key|secret|client[-_]?secret|password|passwd|credentials?|access[-_]?token|"
    r"refresh[-_]?token|auth[-_]?token|set-cookie|cookie|private[-_]?key)$",
    re.IGNORECASE,
)
"""Names of fields whose text is a secret."""
_SHAPES = re.compile(
    r"""
    -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | (?<![A-Za-z0-9])(?:
        sk-(?!learn)[A-Za-z0-9_-]{16,}                 # OpenAI, Anthropic, many that copied them
      | AIza[0-9A-Za-z_-]{30,}                         # Google
      | (?:gsk|xai|hf|ghp|gho|ghs|glpat|pplx|r8)[_-][A-Za-z0-9_-]{20,}
      | github_pat_[A-Za-z0-9_]{20,}
      | xox[abpros]-[A-Za-z0-9-]{10,}                  # Slack
      | (?:AKIA|ASIA)[A-Z0-9]{16}                      # AWS
      | eyJ[A-Za-z0-9_-]{8,300}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}   # JSON web tokens
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_AFTER = re.compile(
    r"""
    (?P<before>
        \b(?:authorization["']?\s*[:=]\s*["']?(?:bearer|basic)\s+ | bearer\s+(?=[A-Za-z0-9._~+/-]*\d))
      | "(?:authorization|(?:x-)?api[-_]?key|password|client_secret|access_token)"\s*:\s*"
      | [?&](?:api[-_]?key|key|access_token|token|sig|signature)=
    )
    (?P<secret>[^\s"'&@,;]{8,})
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Secrets recognised by what precedes them: headers, JSON fields, parts of addresses."""
_USER = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
"""Name and password in an address."""


def scrubbed(value: Any, secrets: Iterable[str] = ()) -> Any:
    """*value* (of JSON: texts, lists, mappings …) with every secret replaced by `[hidden]`.

    Secrets are the given texts, what has the shape of a known kind of key (`sk-…`), and texts in fields such as
    `Authorization`, `api_key` and `password`.
    """
    known = sorted({s for s in secrets if s}, key=len, reverse=True)  # the longest first: one may be part of another

    def walk(node: Any) -> Any:
        if isinstance(node, str):
            return text(node)
        if isinstance(node, Mapping):
            return {
                text(str(k)): HIDDEN if isinstance(v, str) and v and _FIELD.search(str(k)) else walk(v)
                for k, v in node.items()  # pyright: ignore[reportUnknownVariableType]
            }
        if isinstance(node, (list, tuple)):
            return [walk(item) for item in node]  # pyright: ignore[reportUnknownVariableType]
        return node

    def text(words: str) -> str:
        for secret in known:
            words = words.replace(secret, HIDDEN)
        words = _USER.sub(HIDDEN, _SHAPES.sub(HIDDEN, words))
        return _AFTER.sub(lambda found: found["before"] + HIDDEN, words)

    return walk(value)


SHORTEST = 8
"""Characters of a known secret at least; shorter ones are words of ordinary texts."""
SHORTEST_SHAPE = 15
"""Characters of the shortest text that `_SHAPES` finds."""
LONGEST_HELD = 8192
"""Characters of a stream held back at most."""
LONGEST_CARRIED = 100_000
"""Characters and values that belong to an error at most."""
_MARKS = (
    "sk-", "AIza", "xox", "AKIA", "ASIA", "eyJ", "github_pat_", "PRIVATE KEY-----",
    *(f"{kind}{dash}" for kind in ("gsk", "xai", "hf", "ghp", "gho", "ghs", "glpat", "pplx", "r8") for dash in "_-"),
)  # fmt: skip
"""Every text in which `_SHAPES` finds something has one of these: looking for them is a hundred times faster."""
_KEY_PREFIX = re.compile(r"[A-Za-z0-9_.-]{3,}")
_ATOMS = frozenset((int, float, bool, type(None)))
_HEADS = tuple(mark for mark in _MARKS if not mark.endswith("-----"))
_KEY_CHARACTERS = string.ascii_letters + string.digits + "_.-"
_LABEL_CHARACTERS = string.ascii_uppercase + " -"


def _open_key(heads: Iterable[str]) -> re.Pattern[str]:
    """Pattern of a possible beginning of a key, in a text of nothing but characters of keys."""
    parts = sorted({re.escape(head[:n]) for head in heads for n in range(1, len(head))}, key=len, reverse=True)
    return re.compile(rf"(?<![A-Za-z0-9])(?:(?:{'|'.join(map(re.escape, heads))})|(?:{'|'.join(parts)})\Z)")


_OPEN_KEY = _open_key(_HEADS)
_OPEN_LABEL = re.compile(r"-{1,5}(?:B|\Z)")
"""A possible beginning of the first line of a block, in a text of nothing but its characters."""
_BLOCK = re.compile(r"-----BEGIN\ [A-Z ]*PRIVATE\ KEY-----")
_END_OF_BLOCK = "-----END"


def _open(text: str) -> int:
    """Index from which *text* may be the beginning of a key; its length when there is none."""
    run = len(text.rstrip(_KEY_CHARACTERS))
    label = len(text.rstrip(_LABEL_CHARACTERS))
    last = text.rfind(_END_OF_BLOCK)
    within = last if last >= label else len(text)  # what may be the beginning of its last line belongs to a block
    found = (
        _OPEN_KEY.search(text, run),
        _OPEN_LABEL.search(text, label),
        _BLOCK.search(text, text.rfind(_END_OF_BLOCK, 0, within) + 1, within),
    )
    return min((match.start() for match in found if match), default=len(text))


_WORDS = re.compile(r"(?:[A-Z]?[a-z]{1,20}|[A-Z]{1,20})(?:[-_. ](?:[A-Z]?[a-z]{1,20}|[A-Z]{1,20})){0,9}")
_SHORTEST_BASE64 = 12
"""Characters of a piece of Base64 that identify a secret."""


def _forms(secret: str) -> Iterator[str]:
    """A secret as it appears in plain text, JSON, addresses, HTML and Python, and the middle of its Base64 wherever it begins
    there (`user:secret`)."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    data = secret.encode("utf-8", "surrogatepass")  # variables that are not UTF-8 hold halves of surrogate pairs
    yield quote(data, safe="")
    yield quote(data)
    yield quote_plus(data)
    yield html.escape(secret)
    yield repr(secret)[1:-1]
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data)
        start = (0, 2, 3)[before]  # characters that also depend on what precedes
        piece = encoded[start : (before + len(data)) // 3 * 4].decode()
        if len(piece) >= _SHORTEST_BASE64:
            yield piece
            yield piece.replace("+", "-").replace("/", "_")


class Redactor:
    """Hides the secrets it knows, and what has the shape of a key. Thread-safe.

    Known are those that the process has had in its hands: the keys of its settings, and every key that a source of keys gave
    out or was given; and what a diagram, when it is read, or the inputs of a run show to be a credential by its place. Secrets
    under 8 characters, and those under 20 that are plain words (`not-needed`, `LM Studio`: what people write where a key is
    demanded and none is needed), are taken for words.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.known: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self.add(*secrets)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self.known)} known texts>"

    def add(self, *secrets: str) -> None:
        """Add these; also as they appear in JSON, addresses, HTML and, inside of anything, in Base64."""
        forms = {
            form
            for secret in secrets
            if len(secret) >= SHORTEST and (len(secret) >= 20 or not _WORDS.fullmatch(secret))
            for form in _forms(secret)
        }
        if forms <= set(self.known):
            return
        with self._lock:  # the longest first, as one may be part of another; and `marked` looks at the last
            self.known = tuple(sorted({*self.known, *forms}, key=lambda form: (-len(form), form)))

    def add_named(self, values: Mapping[str, Any]) -> None:
        """Add the texts whose names mark them as secrets (`password`, `api_key`, `tok` …), at any depth."""
        self.add(*secrets_in(values))

    def add_found(self, text: str) -> None:
        """Know the secrets that a text (code, an address, a command) shows by their places."""
        self.add(*secrets_of_text(text))

    def __call__(self, value: Any) -> Any:
        """*value* (texts, mappings, lists, tuples …) without secrets; the very object when there is none in it."""
        return self._clean(value) if self._dirty(value) else value

    def text(self, words: str) -> str:
        """A message or a log line without secrets; also without those recognised by what precedes them."""
        return scrubbed(words, self.known)

    def error(self, error: BaseException) -> None:
        """Redact the secrets of an exception, of its attributes and of its causes.

        Looking through a long text (the whole file that is not JSON, for example) would hold up the event loop, so of one that
        is longer than `LONGEST_CARRIED` only the beginning is kept. A cause that shows a secret still (its text is not in its
        arguments), or carries too much still, is cut off.
        """
        seen: set[int] = set()
        waiting: list[BaseException] = [error]
        while waiting:
            node = waiting.pop()
            seen.add(id(node))
            self._shortened(node)
            self._mended(node)
            for link in ("__cause__", "__context__"):
                cause = getattr(node, link)
                if cause is None or id(cause) in seen:
                    continue
                if self._shortened(cause) and self._mended(cause):
                    waiting.append(cause)
                else:
                    setattr(node, link, None)

    def stream(self) -> Stream:
        """For a text that comes in pieces."""
        return Stream(self)

    def without_known(self, text: str) -> str:
        """The text with `[hidden]` for the secrets that are known; the shapes of keys are left."""
        for secret in self.known:
            text = text.replace(secret, HIDDEN)
        return text

    def unfinished(self, text: str) -> int:
        """Index from which *text* may be the beginning of a secret; its length when there is none."""
        cut = _open(text)
        for secret in self.known:
            start = max(len(text) - len(secret) + 1, 0)
            while (start := text.find(secret[0], start, cut)) >= 0:
                if secret.startswith(text[start:]):
                    cut = start
                    break
                start += 1
        return cut

    def _dirty(self, value: Any) -> bool:
        """Whether there is a secret in it. Runs over everything that is recorded, so it is written for speed."""
        kind = type(value)
        if kind is not dict:
            if kind is str:
                return len(value) >= SHORTEST and self.marked(value)
            if kind in _ATOMS:
                return False
            if isinstance(value, (list, tuple, set, frozenset)):
                return any(map(self._dirty, value)) if (texts := joined(value)) is None else self.marked(texts)
            if not isinstance(value, Mapping):
                return isinstance(value, str) and self._dirty(str(value))  # members of enumerations, views of values
        if len(value) > MANY and (texts := joined([*value, *value.values()])) is not None:
            return self.marked(texts)
        for name, item in value.items():
            if type(name) is str and len(name) >= SHORTEST and self.marked(name):
                return True
            kind = type(item)
            if kind not in _ATOMS and (self._dirty(item) if kind is not str else len(item) >= SHORTEST and self.marked(item)):
                return True
        return False

    def marked(self, text: str) -> bool:
        """Whether there is a secret in a text of at least `SHORTEST` characters."""
        if (known := self.known) and len(text) >= len(known[-1]) and any(map(text.__contains__, known)):
            return True
        return len(text) >= SHORTEST_SHAPE and any(map(text.__contains__, _MARKS)) and _SHAPES.search(text) is not None

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return _SHAPES.sub(HIDDEN, self.without_known(value))
        if isinstance(value, Mapping):
            return {self(name): self(item) for name, item in value.items()}
        return tuple(map(self, value)) if isinstance(value, tuple) else [self(item) for item in value]

    def _shortened(self, error: BaseException) -> bool:
        """Cut the long texts that an exception carries. Whether what it carries is short now."""
        if _carries_little(error):
            return True
        error.args = tuple(map(self._beginning, error.args))
        for name, value in vars(error).items():
            vars(error)[name] = self._beginning(value)
        return _carries_little(error)

    def _beginning(self, value: Any) -> Any:
        if type(value) is not str or len(value) <= LONGEST_CARRIED // 10:
            return b"" if type(value) is bytes else value
        begin = self.without_known(value[: LONGEST_CARRIED // 10])  # first, so that the cut goes through none of them
        return f"{begin[: self.unfinished(begin)]}…"  # half a secret would not be found

    def _mended(self, error: BaseException) -> bool:
        """Redact the secrets of one exception. False: it still shows one."""
        try:
            words = _words_of(error)
        except Exception:  # noqa: BLE001 - its own code raised, so what it would show is unknown
            return False
        if self.text(words) == words:
            return True
        error.args = self._strictly(error.args)
        for name, value in vars(error).items():
            vars(error)[name] = self._strictly(value)
        return self.text(words := _words_of(error)) == words

    def _strictly(self, value: Any) -> Any:
        """As calling it, with texts treated as messages."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self._strictly(name): self._strictly(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self._strictly(item) for item in value]
            return tuple(items) if isinstance(value, tuple) else items
        return value


class Stream:
    """Redacts a text that comes in pieces: what may be the beginning of a secret waits for the next piece."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""
        self._inside = ""
        """Stands for the last character shown where that is within a word: no key begins there."""

    def feed(self, piece: str) -> str:
        """The text that can be shown now; may be empty."""
        text = self._held + piece
        if not text.isascii():
            if "\ud800" <= text[-1] <= "\udbff":  # half a character; the next piece may bring the other half
                return self._fed(well_formed(text[:-1]), text[-1])
            text = well_formed(text)
        return self._fed(text)

    def _fed(self, text: str, half: str = "") -> str:
        text = self._redactor.without_known(text)
        cut = max(self._redactor.unfinished(self._inside + text) - len(self._inside), 0)
        if len(text) - cut > LONGEST_HELD:
            cut = len(text)
        self._held = text[cut:] + half
        return self._shown(text[:cut])

    def rest(self) -> str:
        """The text that was held back, at the end."""
        held, self._held = well_formed(self._held), ""
        return self._shown(held)

    def _shown(self, text: str) -> str:
        inside = self._inside
        if text:
            self._inside = "0" if text[-1].isascii() and text[-1].isalnum() else ""
        return _SHAPES.sub(HIDDEN, inside + text)[len(inside) :]


def recognize_keys(*prefixes: str) -> None:
    """Hide from now on texts that begin with one of *prefixes* and continue with 16 or more characters of keys, in this process.

    Args:
        prefixes: beginnings of the keys of a service (`gsk_`): three or more letters, digits, `_`, `.` or `-`.

    Raises:
        ValidationError: one is too short, or has other characters.
    """
    global _SHAPES, _MARKS, _HEADS, _OPEN_KEY
    for prefix in prefixes:
        if not _KEY_PREFIX.fullmatch(prefix):
            raise ValidationError(
                f"'{prefix[:40]}' is not the beginning of keys.",
                hint="Use three or more letters, digits, '_', '.' or '-', such as 'gsk_'.",
            )
    if new := [prefix for prefix in prefixes if prefix not in _MARKS]:
        more = "|".join(rf"{re.escape(prefix)}[A-Za-z0-9_-]{{16,}}" for prefix in new)
        _SHAPES = re.compile(rf"{_SHAPES.pattern}| (?<![A-Za-z0-9])(?:{more})", _SHAPES.flags)
        _HEADS = (*_HEADS, *new)
        _OPEN_KEY = _open_key(_HEADS)
        _MARKS = (*_MARKS, *new)  # last: other threads look for these first


redactor = Redactor()
"""The process's own: what it knows is hidden in all events, errors and log lines."""


class RedactingFilter(logging.Filter):
    """Redacts a record before any handler sees it: message, traceback and extra fields."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if (clean := redactor.text(message)) != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[1] is not None:
            shown = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (clean := redactor.text(shown)) != shown:
                record.exc_info, record.exc_text = None, clean
        for name, value in list(vars(record).items()):
            if name not in _OF_RECORDS and (clean := redactor(value)) is not value:
                setattr(record, name, clean)
        return True


_OF_RECORDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_FILTER = RedactingFilter()


def place_of(url: str) -> str:
    """The address of a server without user, password and options."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


LIBRARIES = (
    "httpx",
    "httpcore",
    "openai",
    "anthropic",
    "google_genai",
    "google.genai",
    "claude_agent_sdk",
    "botocore",
    "urllib3",
)
"""Whose log lines may show what a server was sent or answered."""


class RedactingFactory:
    """Makes the records of libraries that log what servers were sent and answered: without secrets, whichever of their loggers
    it is (a filter of a logger does not hold for those below it).

    Args:
        make: what makes records otherwise.
    """

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self.make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.make(*args, **kwargs)
        if (record.name or "").partition(".")[0] in _tops:  # `logging.makeLogRecord({})` names no logger
            _FILTER.filter(record)
        return record


_tops = {name.partition(".")[0] for name in LIBRARIES}


def redact_logs_of(module: str) -> None:
    """Redact the log lines of another library, whose loggers are named after *module*."""
    _tops.add(module.partition(".")[0])


def redact_logs_of_libraries() -> None:
    """From now on, in this process; again is fine."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, RedactingFactory):
        logging.setLogRecordFactory(RedactingFactory(make))


def logger(name: str) -> logging.Logger:
    """The logger of that name, redacted. (A filter of a logger does not hold for those below it, so each has its own.)"""
    found = logging.getLogger(name)
    found.addFilter(_FILTER)  # again is fine
    return found


def _carries_little(error: BaseException) -> bool:
    left = LONGEST_CARRIED
    waiting: list[Any] = [error.args, vars(error)]
    while waiting and left > 0:
        value = waiting.pop()
        if isinstance(value, (str, bytes, bytearray)):
            left -= len(value)
        elif isinstance(value, Mapping):
            left -= len(value)  # pyright: ignore[reportUnknownArgumentType]
            if left > 0:
                waiting += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            left -= len(value)  # pyright: ignore[reportUnknownArgumentType]
            if left > 0:
                waiting += value
    return left > 0


def _words_of(error: BaseException) -> str:
    return f"{error}\n{error.args!r}\n{vars(error)!r}" if vars(error) else f"{error}\n{error.args!r}"
