"""Twenty keys in each of eighteen places: none comes out of a run's displays, files, logs and errors, and the work has them all."""

from __future__ import annotations

import base64
import html
import json
import logging
import traceback
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.secret_names import is_secret_name, may_be_secret_name, secrets_of_text
from dipeo_nb.diagram.document import load
from dipeo_nb.domain.ports import HTTPResponse
from dipeo_nb.errors import DipeoError
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

SHAPES = (
    "canaryQ7Hq2Lx9Pz4", "CANARY-apikey-77f3", "0123456789abcdef0123456789abcdef", "pw-with-sl/ash99x", "a+b=c==Zm9vYmFy12",
    "tok_live_8f3kQz", "Zürich-geheim-42x", "percent%20and%2Fmore1", "deadBEEFcafe0042", "sk_test_51HabcDEF",
    "glcanary-Xy12Xy12", "9f8e7d6c5b4a3f2e", "correct1horse2battery", "MiXeDcAsEsEcReT", "under_score_key_000111",
    "dots.in.the.key.2024", "tilde~key~value~77", "ctx.Abc123.Def456", "long" + "K9" * 40, "AAAAAAAAAAAAAAAA1",
)  # fmt: skip


def canaries(place: str) -> list[str]:
    """Twenty keys of one place, of all shapes, each for itself."""
    mark = base64.b32encode(place.encode()).decode().strip("=")[-6:]
    return [f"{shape}{mark}{n}" for n, shape in enumerate(SHAPES)]


class Echo:
    """A web service that repeats everything it is sent, as bad ones do."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def request(self, method: str, url: str, **more: Any) -> HTTPResponse:
        told = json.dumps([url, more], default=str, ensure_ascii=False)
        self.sent.append(told)
        answer = json.dumps([told, quote(told, safe=""), html.escape(told), *encodings(more)])
        return HTTPResponse(200, {"content-type": "application/json"}, answer.encode(), "utf-8", url.partition("?")[0], 1)


def encodings(value: Any) -> list[str]:
    """The texts in a value as Base64, alone and behind a name."""
    if isinstance(value, str):
        return [base64.b64encode(f"{before}{value}".encode()).decode() for before in ("", "me:")]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [text for item in items for text in encodings(item)]


def api(**props: Any) -> dict[str, Any]:
    return {"type": "api_job", "props": {"url": "https://api.test/x", "method": "POST", **props}}


def code(text: str, language: str = "python") -> dict[str, Any]:
    return {"type": "code_job", "props": {"language": language, "code": text}}


Place = Callable[[str], dict[str, Any]]
PLACES: dict[str, Place] = {
    "auth_config bearer": lambda k: api(auth_type="bearer", auth_config={"token": k}),
    "auth_config key_value": lambda k: api(auth_type="api_key", auth_config={"key_name": "X-Mine", "key_value": k}),
    "auth_config basic": lambda k: api(auth_type="basic", auth_config={"username": "me", "password": k}),
    "auth_config as JSON": lambda k: api(auth_type="bearer", auth_config=json.dumps({"token": k})),
    "header": lambda k: api(headers={"X-API-Key": k}),
    "header with a scheme": lambda k: api(headers={"Authorization": f"Bearer {k}"}),
    "params": lambda k: api(params={"api_key": k}),
    "query": lambda k: api(url=f"https://api.test/x?access_token={quote(k, safe='')}"),
    "query, of two inputs": lambda k: api(url=f"https://api.test/x?access_token={{{{ {named(k)}a }}}}{{{{ {named(k)}b }}}}"),
    "user of an address": lambda k: api(url=f"https://me:{quote(k, safe='')}@api.test/x"),
    "hook header": lambda k: {
        "type": "hook", "props": {"hook_type": "http", "url": "https://h.test/", "config": {"headers": {"Private-Token": k}}},
    },
    "hook command": lambda k: {
        "type": "hook", "props": {"hook_type": "shell", "command": f'echo -H "X-Auth-Token: {k}"'},
    },
    "hook variable": lambda k: {
        "type": "hook", "props": {"hook_type": "shell", "command": "echo $MY_PASSWORD", "config": {"env": {"MY_PASSWORD": k}}},
    },
    "python variable": lambda k: code(f"api_key = {k!r}\nprint(api_key)\nreturn api_key"),
    "python, key of a mapping": lambda k: code(f"api_key = {k!r}\nfound = [{{api_key: 1}}]\nreturn {{api_key: {{api_key: found}}}}"),
    "python header": lambda k: code(f'h = {{"X-API-Key": "{k}"}}\nreturn h'),
    "bash variable": lambda k: code(f"export GH_TOKEN='{k}'\necho \"$GH_TOKEN\"", "bash"),
    "custom field": lambda k: {**code("return 1"), "props": {"language": "python", "code": "return 1", "my_secret": k}},
    "input": lambda k: code("return 1"),
    "nested input": lambda k: code("return 1"),
}  # fmt: skip


def named(key: str) -> str:
    """A name of an input that says nothing of what it holds."""
    return f"v{zlib.crc32(key.encode())}"


INPUTS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "input": lambda keys: {f"tok{n}": key for n, key in enumerate(keys)},
    "query, of two inputs": lambda keys: {
        f"{named(key)}{half}": part for key in keys for half, part in zip("ab", halves(key), strict=True)
    },
    "nested input": lambda keys: {"config": {"services": [{"clientSecret": key} for key in keys]}},
}


def halves(key: str) -> tuple[str, str]:
    """Both as an address has them."""
    return quote(key[: len(key) // 2], safe=""), quote(key[len(key) // 2 :], safe="")


def diagram(place: str, keys: list[str]) -> dict[str, Any]:
    nodes = [{"label": f"Work {n}", **PLACES[place](key)} for n, key in enumerate(keys)]
    return {
        "version": "light",
        "nodes": [{"label": "Start", "type": "start"}, *nodes, {"label": "End", "type": "endpoint"}],
        "connections": [
            *({"from": "Start", "to": f"Work {n}"} for n in range(len(keys))),
            *({"from": f"Work {n}", "to": "End", "label": f"n{n}"} for n in range(len(keys))),
        ],
    }


def spellings(key: str) -> set[str]:
    """How a key may stand in a text."""
    return {
        key, json.dumps(key)[1:-1], quote(key, safe=""), html.escape(key), base64.b64encode(f"me:{key}".encode()).decode(), repr(key)[1:-1],
        base64.b64encode(key.encode()).decode().rstrip("=")[:-2],
    }  # fmt: skip


def leaks(text: str, keys: list[str]) -> list[str]:
    return [key for key in keys if any(form in text for form in spellings(key))]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests taught the redactor does not help here."""
    monkeypatch.setattr(redactor, "known", ())


@pytest.mark.parametrize("place", PLACES)
def test_no_key_comes_out(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]):
    """Displays of the diagram before it runs, of the run, its result, its record, its export, the comparison; files; logs; streams."""
    keys = canaries(place)
    assert len(set(keys)) == 20
    assert len(PLACES) >= 12
    caplog.set_level(logging.DEBUG)
    source = diagram(place, keys)
    shown: list[str] = []
    web = Echo()
    with Session(tmp_path, llm=scripted(), http=web) as dp:
        document = load(source, base_dir=tmp_path)
        shown += [repr(document), str(document._repr_mimebundle_()), document.svg(), document.html(), document.mermaid()]
        inputs = INPUTS[place](keys) if place in INPUTS else {}
        run = dp.run(source, view=False, inputs=inputs).run
        result = run.result()
        assert result.status == "completed"
        difference = dp.diff(run.id, run.id)
        opened = dp.open_run(run.id)
        shown += [
            repr(result),
            result._repr_html_(),
            repr(run),
            str(run._repr_mimebundle_()),
            repr(opened),
            str(list(opened.events)),
        ]
        shown += [str(opened._repr_mimebundle_()), repr(difference), difference._repr_html_(), repr(opened.explain())]
        shown += [opened.explain()._repr_html_(), repr(dp.runs()), dp.runs()._repr_html_(), repr(run.conversation)]
        shown += [json.dumps(opened.to_dict(), default=str), repr(opened.explain().table), opened.explain().table._repr_html_()]
    out = capsys.readouterr()
    shown += [caplog.text, out.out, out.err]
    assert leaks("\n".join(shown), keys) == []
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert leaks(path.read_bytes().decode("utf-8", "replace"), keys) == [], path
    if web.sent:
        assert len(set(web.sent)) >= 20  # the service got what it was to get


def test_a_failing_node_shows_no_key_and_no_piece_of_one(tmp_path: Path):
    """Error, traceback and hint; also where a long text is cut in the middle of a key."""
    for key in canaries("failing")[::5]:
        text = f"password = {key!r}\nraise ValueError('x' * 190 + password)"
        source = diagram("input", [key])
        source["nodes"][1]["props"]["code"] = text
        with pytest.raises(DipeoError) as caught, Session(tmp_path, llm=scripted()) as dp:
            dp.run(source, view=False)
        told = [str(caught.value), "".join(traceback.format_exception(caught.value)), repr(caught.value.facts)]
        told += caught.value._render_traceback_()
        assert leaks("\n".join(told), [key]) == []
        assert key[:10] not in "\n".join(told).replace("[hidden]", "")


@pytest.mark.parametrize("cut", [150, 178, 191, 199])
def test_cut_texts_hold_no_piece_of_a_key(tmp_path: Path, cut: int):
    """Labels, previews and representations are redacted before they are cut or broken into lines."""
    key = canaries("cut")[1]
    source = diagram("input", [key])
    source["nodes"][1]["props"]["code"] = f"x = '{'y ' * (cut // 2)}'\ntoken = '{key}'\nreturn x + token"
    source["nodes"][1]["label"] = f"{'W ' * (cut // 8)}{key}"
    for arrow in source["connections"]:
        arrow.update({k: source["nodes"][1]["label"] for k, v in arrow.items() if v == "Work 0"})
    with Session(tmp_path, llm=scripted()) as dp, suppress(DipeoError):
        document = load(source, base_dir=tmp_path)
        shown = [repr(document), document.svg(), document.html(), document.mermaid()]
        result = dp.run(source, view=False)
        shown += [repr(result), result._repr_html_(), str(result.run._repr_mimebundle_())]
        assert key[:12] not in "\n".join(shown)


def test_validate_warns_of_literal_credentials():
    """Where it stands and what to write instead; templates are no credentials, nor are words in a prompt."""
    document = load(diagram("header", canaries("warn")[:1]))
    found = [d for d in document.check() if d.code == "literal-credential"]
    assert [d.field for d in found] == ["headers"]
    assert canaries("warn")[0] not in str(found[0])
    fine = diagram("input", ["x"])
    fine["nodes"][1] = {"label": "Work 0", **api(auth_type="bearer", auth_config={"token": "{{globals.token}}"})}
    assert not [d for d in load(fine).check() if d.code == "literal-credential"]
    fine["nodes"][1] = {"label": "Work 0", **code("import os\ntoken = os.environ['TOKEN']\nmax_tokens = '10000000'")}
    assert not [d for d in load(fine).check() if d.code == "literal-credential"]


@pytest.mark.parametrize(
    ("name", "certain", "possible"),
    [
        ("token", True, True), ("tok", True, True), ("apikey2", True, True), ("X-API-Key", True, True), ("GH_PAT", True, True),
        ("MYSQL_PWD", True, True), ("dbPassword", True, True), ("Ocp-Apim-Subscription-Key", True, True), ("JWT", True, True),
        ("clientSecret", True, True), ("passphrase", True, True), ("Proxy-Authorization", True, True), ("cookie", True, True),
        ("key", False, True), ("auth", False, True), ("sig", False, True), ("session", False, True), ("DSN", False, True),
        ("max_tokens", False, False), ("api_key_id", False, False), ("key_name", False, False), ("monkey", False, False),
        ("keyboard", False, False), ("secret_name", False, False), ("pattern", False, False), ("topic", False, False),
    ],
)  # fmt: skip
def test_names_of_secrets(name: str, certain: bool, possible: bool):
    """Words count, not letters: `monkey` and `max_tokens` are no secrets."""
    assert (is_secret_name(name), may_be_secret_name(name)) == (certain, possible)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("redis://:CANARY/sl@h", "CANARY/sl"), ("redis://u:CAN@ARYat@h/0", "CAN@ARYat"), ("https://canary12345x@h/x", "canary12345x"),
        ("postgresql://u@h/d?password=CANARYq1", "CANARYq1"), ("curl -u me:hunter22 x", "hunter22"), ("mysql --password=abc123 x", "abc123"),
        ("Authorization: Basic bWU6aHVudGVyMjI=", "hunter22"), ("x --token abcdef12", "abcdef12"), ("https://h:443/@scope/x", ""),
        ("http://h/@user?y=1", ""), ("token = get_token()", ""), ("password: {{globals.p}}", ""), ("TOKEN=$OTHER", ""), ("key: C major", ""),
    ],
)  # fmt: skip
def test_secrets_in_texts(text: str, secret: str):
    """By their places, in linear time."""
    assert secret in secrets_of_text(text) if secret else list(secrets_of_text(text)) == []


@pytest.mark.parametrize(
    "unit",
    ["a", "a=", "-u ", '"a":', "Bearer ", "http://", " --a", ":@", "a: ", 'token="x', "key: aaaa ", "x=y&", "http://a?sig=1&"],
)
def test_texts_are_searched_in_linear_time(unit: str, monkeypatch: pytest.MonkeyPatch):
    """What is matched grows as the text does: no piece of it is looked at again and again."""
    found = [len(list(secrets_of_text(f"token {unit * n}"))) for n in (5_000, 10_000)]
    assert found[1] <= 2 * found[0] + 2
