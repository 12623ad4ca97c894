"""Secrets are taken out of events, errors and log lines (common/redaction.py); the work itself goes on with the real values."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.common.redaction import HIDDEN, RedactingFactory, Redactor, logger, redactor, scrubbed
from dipeo_nb.config import get_settings
from dipeo_nb.errors import DipeoError, StorageError, UnknownNodeError
from dipeo_nb.mixins import LoggingMixin
from dipeo_nb.notebook.session import Session

KNOWN = "canary-7Hq2Lx9Pz4-known"
SHAPED = "sk-canaryShaped0123456789abcdef"


@pytest.fixture(autouse=True)
def _known() -> None:
    redactor.add(KNOWN)


def session(tmp_path: Path) -> Session:
    return Session(settings=get_settings().model_copy(update={"base_dir": tmp_path}))


def code_diagram(code: str, second: str = "return len(default)") -> dict[str, object]:
    return {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "First", "type": "code_job", "props": {"language": "python", "code": code}},
            {"label": "Second", "type": "code_job", "props": {"language": "python", "code": second}},
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [
            {"from": "Start", "to": "First"},
            {"from": "First", "to": "Second"},
            {"from": "Second", "to": "End"},
        ],
    }


def test_known_and_shaped_texts_are_hidden_wherever_they_stand():
    """Mappings (names too), lists, tuples and nested texts lose their secrets; all else stays, and what has none is the very
    same object."""
    redact = Redactor([KNOWN])
    dirty = {"a": [f"x {KNOWN} y", {"b": (SHAPED, 1)}], KNOWN: None}
    assert redact(dirty) == {"a": [f"x {HIDDEN} y", {"b": (HIDDEN, 1)}], HIDDEN: None}
    clean = {"a": ["sk-learn is a library", {"b": (1, None, True)}], "password": "is what the diagram is about"}
    assert redact(clean) is clean


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop1234", "sk-ant-api03-abcdefghijklmnopq", "AIzaSyA1234567890abcdefghijklmnopqrstu",
        "ghp_abcdefghijklmnopqrstuvwxyz01", "github_pat_abcdefghijklmnopqrst01", "xoxb-1234567890-abcdef", "AKIAABCDEFGHIJKLMNOP",
        "hf_abcdefghijklmnopqrstuvwx", "glpat-abcdefghijklmnopqrst", "eyJhbGciOi1.eyJzdWIiOiIx.SflKxwRJSMeKK",
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_kinds_of_keys_are_known_by_their_shape(secret: str):
    """Keys that nobody told us of are found by their form."""
    assert Redactor()(f"before {secret} after") == f"before {HIDDEN} after"


def test_words_that_stand_in_for_keys_stay():
    """Short secrets and words without a digit (`not-needed`) are not hunted through all texts."""
    assert Redactor(["local", "not-needed", "lm-studio"]).known == ()


def test_a_secret_is_found_as_json_and_addresses_write_it():
    """Quoting does not hide it."""
    redact = Redactor(['pa"ss/w0rd+123'])
    assert redact('{"x": "pa\\"ss/w0rd+123"}') == '{"x": "' + HIDDEN + '"}'
    assert redact("https://h/?k=pa%22ss%2Fw0rd%2B123") == f"https://h/?k={HIDDEN}"


@given(st.lists(st.sampled_from(["a", "sk", "-", KNOWN[:9], KNOWN, SHAPED, " ", "\n", "ghp_", "x" * 30, "9"])), st.data())
def test_a_stream_shows_what_the_whole_text_would(pieces: list[str], data: st.DataObject):
    """However a text is cut into pieces, what is shown in the end is the redacted whole, and never a piece of a secret."""
    redact = Redactor([KNOWN])
    text = "".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    stream = redact.stream()
    shown = ""
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        shown += stream.feed(text[start:end])
        assert KNOWN not in shown
    shown += stream.rest()
    assert shown == redact(text)


def test_a_stream_holds_back_no_more_than_it_must():
    """Ordinary text comes through at once."""
    stream = Redactor([KNOWN]).stream()
    assert [stream.feed(word) for word in ("one ", "two ", "three")] == ["one ", "two ", "three"]


def test_errors_lose_their_secrets_with_their_causes():
    """Message, hint, facts and the chain of causes."""
    cause = ValueError(f"server said: bad key {KNOWN}")
    error = StorageError(f"No entry for {KNOWN}.", hint=f"Not {SHAPED}.", operation="get")
    error.__cause__ = cause
    redactor.error(error)
    shown = f"{error} {error.args} {vars(error)} {cause}"
    assert KNOWN not in shown
    assert SHAPED not in shown
    assert HIDDEN in str(error)
    assert error.facts["operation"] == "get"


def test_a_cause_that_cannot_be_mended_is_cut_off():
    """An exception that makes its text itself cannot keep it."""

    class Stubborn(Exception):
        def __str__(self) -> str:
            return KNOWN

    error = StorageError("No.", operation="get")
    error.__cause__ = Stubborn()
    redactor.error(error)
    assert error.__cause__ is None


def test_a_cut_goes_through_no_secret_whose_end_may_begin_another():
    """A whole secret at the place of the cut is hidden, although its last letter is the first of another one."""
    redact = Redactor([KNOWN, f"{KNOWN[-1]}-begins-another-secret"])
    error = ValueError(f"{'x' * (9_999 - len(KNOWN))} {KNOWN} {'y ' * 500_000}")
    redact.error(error)
    assert KNOWN[:6] not in str(error)
    assert len(str(error)) < 20_000


def test_errors_that_carry_much_keep_the_beginning(monkeypatch: pytest.MonkeyPatch):
    """Of the texts that belong to an error and to its causes nothing long is looked through or kept, and no half of a secret."""
    looked_through: list[int] = []
    monkeypatch.setattr(Redactor, "text", lambda self, words: looked_through.append(len(words)) or scrubbed(words, self.known))
    long = "é " * 500_000
    causes: list[BaseException] = []
    for broken in (lambda: json.loads(f'["{long}" 1]'), lambda: (b"x " * 500_000 + b"\xff").decode()):
        with pytest.raises(ValueError, match=r"Expecting|utf-8") as caught:
            broken()
        causes.append(caught.value)
    told = 0
    for cut in range(9_950, 10_000):  # around the place of the cut
        cause = ValueError(f"{'x' * (cut - 1)} {KNOWN} {long}")
        error = StorageError(f"{'y' * (cut - 1)} {SHAPED} {long}", operation="get")
        error.__cause__ = cause
        redactor.error(error)
        assert error.__cause__ is cause
        told += KNOWN[:6] in str(cause) or SHAPED[:6] in str(error)
        assert len(str(cause)) < 20_000
        assert len(str(error)) < 20_000
    assert told == 0
    for cause in causes:
        error = StorageError("No.", operation="get")
        error.__context__ = cause
        redactor.error(error)
        assert error.__context__ is cause  # its traceback is of use
    many = StorageError("No.", operation="get")
    many.__cause__ = ValueError({str(n): n for n in range(200_000)})
    redactor.error(many)
    assert many.__cause__ is None
    assert max(looked_through) < 150_000


def test_records_may_be_made_without_a_name():
    """As `logging.makeLogRecord` does it for records that came over a network."""
    assert RedactingFactory(logging.LogRecord)(None, None, "", 0, "", (), None, None).name is None
    assert RedactingFactory(logging.LogRecord)("app", 20, "", 0, "hello", (), None).getMessage() == "hello"


def test_log_lines_lose_their_secrets(caplog: pytest.LogCaptureFixture):
    """Message with arguments, extra fields and traceback; also those of a user's service with LoggingMixin."""
    caplog.set_level(logging.DEBUG)
    log = logger("dipeo_nb.test_redaction")
    try:
        raise ValueError(KNOWN)
    except ValueError:
        log.exception("failed with %s", KNOWN, extra={"field": {"k": SHAPED}})

    class Service(LoggingMixin):
        pass

    Service().log_info(f"asked with {KNOWN}", header=SHAPED)
    for record in caplog.records:
        shown = logging.Formatter("%(message)s").format(record) + repr(vars(record))
        assert KNOWN not in shown
        assert SHAPED not in shown
    assert "ValueError: [hidden]" in (caplog.records[0].exc_text or "")


@pytest.mark.parametrize(
    "name", ["httpx", "httpcore.http11", "openai._base_client", "anthropic", "google_genai.models", "botocore.auth"]
)
def test_logs_of_libraries_lose_their_secrets(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """What a library logs of a request or an answer, on any of its loggers; loggers of others are left alone."""
    caplog.set_level(logging.DEBUG)
    with session(tmp_path):
        logging.getLogger(name).debug("headers %r, key=%s", {"x-api-key": KNOWN}, SHAPED)
        logging.getLogger("of.somebody.else").debug("kept %s", KNOWN)
    said = [record.getMessage() for record in caplog.records if record.name in (name, "of.somebody.else")]
    assert KNOWN not in said[0]
    assert SHAPED not in said[0]
    assert said[1] == f"kept {KNOWN}"


def test_a_run_records_no_secret_and_works_with_the_real_one(tmp_path: Path):
    """Output, printed text, variables and files of the run hide it; the next node gets the value itself."""
    with session(tmp_path) as dp:
        code = f"print('seen ' + key)\nreturn 'the key is ' + key + ' and {SHAPED}'"
        run = dp.run(code_diagram(code), key=KNOWN, view=False)
        assert run.outputs["End"] == len(f"the key is {KNOWN} and {SHAPED}")
        text = repr(list(dp.open_run(next(iter(dp.runs())).run_id).events)) + repr(run) + run._repr_html_()
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for shown in (text, stored.decode("utf-8", "replace")):
        assert KNOWN not in shown
        assert SHAPED not in shown
        assert HIDDEN in shown


def test_a_failed_run_tells_no_secret(tmp_path: Path):
    """The error that is raised, its traceback, and what is stored of it."""
    with session(tmp_path) as dp, pytest.raises(DipeoError) as caught:
        dp.run(code_diagram(f"raise ValueError('refused: {SHAPED} ' + key)"), key=KNOWN, view=False)
    assert HIDDEN in str(caught.value)
    assert KNOWN not in repr(vars(caught.value)) + str(caught.value)
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()).decode("utf-8", "replace")
    assert KNOWN not in stored
    assert SHAPED not in stored


@pytest.mark.parametrize("kind", [StorageError, UnknownNodeError])
def test_a_hint_given_later_is_shown_and_kept(kind: type[DipeoError]):
    """Also in another process."""
    error = kind("It is not there.")
    assert str(error) == "It is not there."
    error.hint = "Look elsewhere."
    again = pickle.loads(pickle.dumps(error))
    assert str(error) == str(again) == "It is not there. Look elsewhere."
    assert type(again) is kind


def test_records_that_name_no_logger_are_made():
    """`logging.makeLogRecord`, as handlers of the standard library call it, works while the logs of libraries are redacted."""
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(RedactingFactory(logging.LogRecord))
    try:
        assert logging.makeLogRecord({"msg": "x"}).getMessage() == "x"
    finally:
        logging.setLogRecordFactory(before)
