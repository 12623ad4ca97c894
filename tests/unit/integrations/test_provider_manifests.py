"""Manifests of providers: what is refused and where, templates, where manifests come from, and whom they may ask for keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import ConfigurationError, ManifestError, TemplateError, TrustError, ValidationError
from dipeo_nb.integrations.manifest_reader import read_manifest
from dipeo_nb.integrations.providers import IntegratedApiService
from dipeo_nb.integrations.registry import Registry
from dipeo_nb.integrations.rendering import rendered, rendered_json
from dipeo_nb.integrations.requests import Values, build

GOOD = """\
name: demo
base_url: https://demo.example/api
auth: {kind: bearer}
operations:
  list:
    path: /items/{id}
    parameters:
      id: {required: true}
      q: {type: string}
    query: {q: "{{ q }}"}
  add:
    method: POST
    path: /items
    parameters: {t: {required: true}}
    body: {t: "{{ t }}"}
"""
BAD: list[tuple[str, str, int | None, str]] = [
    # what is replaced, by what, the line, what is said
    ("auth:", "auht:", 3, "Did you mean 'auth'?"),
    ("path: /items\n", "path: /items\n    efect: once\n", 14, "Did you mean 'effect'?"),
    ("{type: string}", "{type: strin}", 9, "Did you mean 'string'?"),
    ("{required: true}\n      q", "{reqired: true}\n      q", 8, "Did you mean 'required'?"),
    ("{kind: bearer}", "{kind: baerer}", 3, "Did you mean 'bearer'?"),
    ("{kind: bearer}", "{kind: header}", 3, "needs `name`"),
    ("{kind: bearer}", "{kind: client_credentials}", 3, "needs `token_url`"),
    ("{kind: bearer}", "{kind: custom, hook: f}", 3, "needs a hooks module"),
    ("{{ q }}", "{{ qq }}", 10, "Did you mean 'q'?"),
    ("{{ q }}", "{{ q ", 10, "cannot be read"),
    ("{{ q }}", "{{ q | nofilter }}", 10, "No filter named"),
    ("{{ q }}", "{{ secret }}", 10, "no template can see a secret"),
    ("{{ q }}", "{{ api_key }}", 10, "no template can see a secret"),
    ("{id}", "{ids}", 6, "Did you mean 'id'?"),
    ("id: {required: true}", "id: {}", 8, "not required"),
    ("/items/{id}", "items/{id}", 6, "Begin it with `/`"),
    ("/items/{id}", "/items/{id}?x=1", 6, "under `query`"),
    ("https://demo.example/api", "ftp://demo.example", 2, "not a base address"),
    ("https://demo.example/api", "https://u:p@demo.example", 2, "not a base address"),
    ("https://demo.example/api", "https://{site}.example", 2, "is not a variable"),
    ("base_url: https://demo.example/api\n", "", 1, "'base_url' is missing"),
    ("name: demo", "name: Demo X", 1, "lower-case"),
    ("name: demo", "name: demo\nname: again", 2, "twice"),
    ("method: POST", "method: POTS", 12, "Did you mean 'POST'?"),
    ("method: POST", "method: GET", 11, "GET has no body"),
    ("path: /items\n", "timeout: 5\n", 11, "needs a `path`"),
    ("body: {t", "headers: {Authorization: x}\n    body: {t", 15, "cannot set the header"),
    ("body: {t", "headers: {'X Y': x}\n    body: {t", 15, "not a name of a header"),
    ("body: {t", "form: {t: 1}\n    body: {t", 11, "one body"),
    ("body: {t", "find: {operation: lst, pointer: /x}\n    body: {t", 15, "Did you mean 'list'?"),
    ("body: {t", "find: {operation: add, pointer: /x}\n    body: {t", 15, "does not only read"),
    ("body: {t", "paging: {kind: cursor, parameter: c}\n    body: {t", 15, "needs `cursor`"),
    ("body: {t", "paging: {kind: offset_limit}\n    body: {t", 15, "needs `parameter`"),
    ("body: {t", "limit: {capacity: '5'}\n    body: {t", 15, "valid integer"),
    ("body: {t", "limit: {capacity: 0}\n    body: {t", 15, "greater than or equal"),
    ("body: {t", "schema: {type: strnig}\n    body: {t", 15, "not a JSON schema"),
    ("body: {t", "before: f\n    body: {t", 15, "needs a hooks module"),
    ("body: {t", "result: x\n    body: {t", 15, "begins with `/`"),
    ("body: {t", "errors: [{when: {pointer: /ok}}]\n    body: {t", 15, "needs `equals` or `present`"),
    ("body: {t", "errors: [{when: {present: true}}]\n    body: {t", 15, "needs `status` or `pointer`"),
    ("body: {t", "resource: tt\n    body: {t", 11, "not a parameter"),
    ("body: {t", "one_of: [[t, u]]\n    body: {t", 11, "not a parameter"),
    ("body: {t", "any_of: [[u]]\n    body: {t", 11, "not a parameter"),
    ("body: {t", "find: {operation: list, pointer: /x, parameters: {ids: x}}\n    body: {t", 15, "Did you mean 'id'?"),
    ("body: {t", "find: {operation: list, pointer: /x, contains: '{{ tt }}'}\n    body: {t", 15, "Did you mean 't'?"),
    ("body: {t", "effect: idempotent\n    find: {operation: list, pointer: /x}\n    body: {t", 11, "whose effect is once"),
    ("body: {t", "paging: {kind: cursor, parameter: c, cursor: /c, place: form}\n    body: {t", 15, "needs a `form`"),
    (
        'body: {t: "{{ t }}"}',
        "paging: {kind: cursor, parameter: c, cursor: /c, place: body}\n    body: [1]",
        15,
        "that is a mapping",
    ),
    ("body: {t", "transform: {x: '{{ itm }}'}\n    body: {t", 15, "Did you mean 'item'?"),
    ("auth:", "hosts: [files.demo.example]\nauth:", 3, "is not a server"),
    ("auth:", "headers: {Cookie: x}\nauth:", 3, "cannot set the header"),
    ("auth:", "headers: {X-A: '{{ q }}'}\nauth:", 3, "is not a parameter"),
    ("auth:", "timeout: 0\nauth:", 3, "greater than or equal"),
    ("auth:", "retry: {max: 99}\nauth:", 3, "less than or equal"),
    ("operations:", "operations: {}\nx:", 4, "at least one operation"),
    (GOOD, "[1, 2]", None, "is a mapping"),
    (GOOD, "a: b: c", 1, "not valid YAML"),
    (GOOD, '{"name": }', None, "Correct the JSON"),
    (GOOD, "!!python/object:os.system {}", 1, "not allowed"),
]


@pytest.mark.parametrize(("what", "by", "line", "says"), BAD)
def test_each_mistake_has_its_line_and_a_hint(what: str, by: str, line: int | None, says: str):
    assert what in GOOD
    with pytest.raises(ManifestError) as caught:
        read_manifest(GOOD.replace(what, by, 1), "demo.yaml")
    assert says in str(caught.value)
    assert caught.value.hint
    assert caught.value.path == "demo.yaml"
    if line is not None:
        assert caught.value.line == line
        assert f"demo.yaml:{line}" in str(caught.value)


def test_all_mistakes_are_tried():
    assert len(BAD) == 59


def test_json_is_read_as_well():
    manifest = {"name": "demo", "base_url": "https://demo.example", "operations": {"x": {"path": "/x"}}}
    assert read_manifest(json.dumps(manifest)).operations["x"].effective == "read"


HOSTILE = [
    "plain",
    'quo"te',
    "back\\slash",
    "line\nbreak",
    "tab\t",
    "emoji 😀",
    "{{ x }}",
    "{% if %}",
    "</script>",
    "\u2028",
    "",
]


@pytest.mark.parametrize("value", [*HOSTILE, 5, 2.5, True, None, [1, "a"], {"a": [1]}])
def test_a_value_stays_the_same_value(value: Any):
    """In a tree, as a whole leaf; in a text template, between quotes or as JSON."""
    names = {"v": value}
    assert rendered({"a": ["{{ v }}"]}, names) == {"a": [value]}
    assert rendered_json('{"a": {{ v | tojson }} }', names) == {"a": value}
    if isinstance(value, str):
        assert rendered_json('{"a": "{{ v }}", "b": "<{{ v }}>"}', names) == {"a": value, "b": f"<{value}>"}
        assert rendered({"a": "<{{ v }}>"}, names) == {"a": f"<{value}>"}


def test_what_is_not_given_is_left_out():
    tree = {
        "a": "{{ a }}",
        "b": {"c": "{{ b.c }}"},
        "d": ["{{ d }}", 1],
        "e": "{{ {'x': a} if a }}",
        "f": "{{ f | default(7) }}",
    }
    assert rendered(tree, {}) == {"b": {}, "d": [1], "f": 7}
    with pytest.raises(TemplateError, match="Give that parameter"):
        rendered("<{{ a }}>", {})


@pytest.mark.parametrize(
    "template", ["{{ a.__class__ }}", "{{ ''.__class__.__mro__ }}", "{{ a.append(1) }}", "{{ range(10**9) | list }}"]
)
def test_templates_only_read(template: str):
    with pytest.raises(TemplateError):
        rendered(template, {"a": [1]})


def test_a_template_text_that_gives_no_json():
    with pytest.raises(TemplateError, match="between quotes"):
        rendered_json('{"a": {{ v }} }', {"v": "text"})


def test_a_path_parameter_stays_one_segment():
    manifest = read_manifest(GOOD)
    request = build(manifest, manifest.operations["list"], Values({"id": "a/../b?c#d é"}, {}, "s"), {})
    assert request.url == "https://demo.example/api/items/a%2F..%2Fb%3Fc%23d%20%C3%A9"


# Where manifests come from.


def folder(tmp_path: Path, name: str = "demo", text: str = GOOD) -> Path:
    (tmp_path / "integrations").mkdir(exist_ok=True)
    path = tmp_path / "integrations" / f"{name}.yaml"
    path.write_text(text)
    return path


def test_the_base_directory_counts_when_it_is_trusted(tmp_path: Path):
    """As it says where keys are sent to."""
    folder(tmp_path)
    assert Registry(tmp_path, lambda path: True).find("demo") is not None
    assert "demo" in Registry(tmp_path).names()
    with pytest.raises(TrustError, match="says where keys and data are sent to"):
        Registry(tmp_path).find("demo")


def test_a_provider_of_the_package_cannot_be_replaced(tmp_path: Path):
    """A file of that name would get the key."""
    path = folder(tmp_path, "slack", GOOD.replace("name: demo", "name: slack"))
    with pytest.raises(ManifestError, match="in this package already"):
        Registry(tmp_path, lambda path: True).find("slack")
    with pytest.raises(ManifestError, match="belongs to another service"):
        Registry().read(path)


def test_file_and_name_agree(tmp_path: Path):
    folder(tmp_path, "other")
    with pytest.raises(ManifestError, match="Name the file like the provider"):
        Registry(tmp_path, lambda path: True).find("other")
    (tmp_path / "integrations" / "demo").mkdir()
    (tmp_path / "integrations" / "demo" / "provider.yaml").write_text(GOOD)
    found = Registry(tmp_path, lambda path: True).find("demo")
    assert found is not None
    assert found.key_service == "demo"


def test_of_many_manifests_only_that_of_the_provider_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each node asks for its provider, and a list of providers for each."""
    path = folder(tmp_path)
    for n in range(100):
        path.with_name(f"other{n}.yaml").write_text(GOOD)
        path.with_name(f"another{n}").mkdir()
        (path.with_name(f"another{n}") / "provider.json").write_text("{}")
    looked: list[Path] = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: looked.append(path) or is_file(path))
    registry = Registry(tmp_path, lambda path: True)
    found = registry.find("demo")
    assert found is not None
    assert found.path == path
    assert registry.find("integrations") is registry.find("..") is registry.find("nothing") is None
    assert len(looked) <= 20
    names = registry.names()
    assert {"demo", "other7", "another7"} <= set(names)
    path.with_name("other7.yml").write_text(GOOD)
    with pytest.raises(ManifestError, match="are both for 'other7'"):
        registry.find("other7")


def test_a_foreign_manifest_gets_the_key_of_its_own_name(tmp_path: Path):
    path = folder(tmp_path, "demo", GOOD.replace("{kind: bearer}", "{kind: bearer, key: openai}"))
    assert Registry().read(path).key_service == "demo"


def test_hooks_are_code(tmp_path: Path):
    """They run only from a folder that is trusted, and must be beside the manifest."""
    text = GOOD.replace("operations:", "hooks: demo_hooks.py\noperations:").replace("body: {t", "after: shorten\n    body: {t")
    path = folder(tmp_path, "demo", text)
    registry = Registry(tmp_path)
    with pytest.raises(ManifestError, match="no module"):
        registry.hooks(registry.read(path))
    (path.parent / "demo_hooks.py").write_text("def shorten(result):\n    return result[:3]\n")
    with pytest.raises(TrustError, match="are code"):
        registry.hooks(registry.read(path))
    registry = Registry(tmp_path, lambda path: True)
    module = registry.hooks(registry.read(path))
    assert module is not None
    assert module.shorten("abcdef") == "abc"
    (path.parent / "demo_hooks.py").write_text("1 / 0\n")
    with pytest.raises(ManifestError, match="ZeroDivisionError"):
        registry.hooks(registry.read(path))


def test_the_service_knows_them_by_name(tmp_path: Path):
    service = IntegratedApiService(registry=Registry())
    assert {"slack", "notion", "github", "web_search"} <= set(service.names())
    with pytest.raises(ConfigurationError, match="has no manifests"):
        service.manifest_provider("slack")
    with pytest.raises(ValidationError, match="Did you mean 'slack'"):
        IntegratedApiService(registry=Registry()).manifest_provider("slak")
    with pytest.raises(ConfigurationError, match="has no variable 'sight'"):
        service.configure("slack", sight="x")
