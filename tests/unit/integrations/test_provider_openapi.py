"""OpenAPI documents as providers: a pet store end to end, circles, versions, authorisation, and manifests over documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.errors import ManifestError, ProviderNotFoundError, ValidationError
from dipeo_nb.integrations.registry import Registry
from dipeo_nb.testing import scripted
from tests.support.provider_server import Asked, Keys, Reply, serving

PET = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "id": {"type": "integer"},
        "name": {"type": "string"},
        "tag": {"type": "string", "nullable": True},
        "parent": {"$ref": "#/components/schemas/Pet"},
    },
}
STORE: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Pet store", "version": "1.0"},
    "servers": [{"url": "/v3"}],
    "security": [{"key": []}],
    "paths": {
        "/pets": {
            "get": {
                "operationId": "listPets", "summary": "List the pets.", "responses": {"200": {"description": "ok"}},
                "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}}, {"name": "tags", "in": "query", "explode": False, "schema": {"type": "array", "items": {"type": "string"}}}, {"name": "in", "in": "query", "schema": {"type": "string"}}, {"name": "X-Trace", "in": "header", "schema": {"type": "string"}}],
            },
            "post": {"operationId": "createPet", "responses": {}, "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}}}},
        },
        "/pets/{petId}": {
            "parameters": [{"name": "petId", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {"operationId": "showPetById", "responses": {}},
            "delete": {"responses": {}},
        },
        "/pets/{petId}/photo": {
            "put": {"operationId": "setPhoto", "parameters": [{"$ref": "#/components/parameters/Pet"}], "requestBody": {"content": {"image/png": {}}}, "responses": {"200": {"content": {"text/plain": {}}}}},
        },
    },
    "components": {
        "schemas": {"Pet": PET},
        "parameters": {"Pet": {"name": "petId", "in": "path", "required": True, "schema": {"type": "integer"}}},
        "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "api_key"}},
    },
}  # fmt: skip


def store(asked: Asked) -> Reply:
    if asked.headers.get("api_key") != "store-key-1234567":
        return Reply({"code": "denied", "message": "no key"}, 401)
    match asked.method, asked.path:
        case "GET", "/v3/pets":
            return Reply([{"id": n} for n in range(int(asked.query.get("limit", ["3"])[0]))])
        case "POST", "/v3/pets":
            return Reply({"id": 7, **asked.json}, 201)
        case "GET", "/v3/pets/7":
            return Reply({"id": 7})
        case "DELETE", "/v3/pets/7":
            return Reply(b"", 204)
        case "PUT", "/v3/pets/7/photo":
            return Reply(b"stored", headers={"content-type": "text/plain"})
    return Reply({"code": "gone", "message": "there is no such pet"}, 404)


def test_the_pet_store(tmp_path: Path):
    """Every operation is called; parameters have names of Python and are checked; circles take anything."""
    (tmp_path / "petstore.json").write_text(json.dumps(STORE))
    with serving(store) as server, dp.Session(tmp_path, llm=scripted(), keys=Keys(petstore="store-key-1234567")) as session:
        pets = session.provider("petstore.json", server=server.url)
        assert [row["operation"] for row in pets.operations()] == [
            "list_pets",
            "create_pet",
            "show_pet_by_id",
            "delete_pets_pet_id",
            "set_photo",
        ]
        assert len(pets.list_pets(limit=2, tags=["a", "b"], in_="x", x_trace="t")) == 2
        assert pets.create_pet(name='Ada "😀"', parent={"anything": [1]}, tag=None) == {
            "id": 7,
            "name": 'Ada "😀"',
            "parent": {"anything": [1]},
        }
        assert pets.show_pet_by_id(pet_id=7) == {"id": 7}
        assert pets.delete_pets_pet_id(pet_id=7) is None
        assert pets.set_photo(pet_id=7, body="bytes") == "stored"
        with pytest.raises(ProviderNotFoundError, match="there is no such pet"):
            pets.show_pet_by_id(pet_id=8)
        with pytest.raises(ValidationError, match="limit does not fit"):
            pets.list_pets(limit=101)
        with pytest.raises(ValidationError, match="needs the parameter 'name'"):
            pets.create_pet(tag="x")
    listed = server.asked[0]
    assert listed.query == {"limit": ["2"], "tags": ["a,b"], "in": ["x"]}
    assert listed.headers["x-trace"] == "t"


def test_a_manifest_over_a_document(tmp_path: Path):
    """It adds pages, limits and effects; an operation that is not there is an error."""
    (tmp_path / "store.json").write_text(json.dumps(STORE))
    over = "openapi: store.json\nname: pets\nlimit: {capacity: 5}\noperations:\n  create_pet: {effect: idempotent}\n  list_pets: {paging: {kind: link_header, size: limit}}\n"
    path = tmp_path / "pets.yaml"
    path.write_text(over)
    manifest = Registry().read(path).manifest
    assert manifest.operations["create_pet"].effective == "idempotent"
    assert manifest.operations["list_pets"].paging is not None
    assert manifest.operations["list_pets"].parameters["limit"].json_schema()["maximum"] == 100
    assert manifest.limit is not None
    path.write_text(over.replace("create_pet", "creat_pet"))
    with pytest.raises(ManifestError, match="Did you mean 'create_pet'"):
        Registry().read(path)
    path.write_text(over.replace("store.json", "../store.json"))
    with pytest.raises(ManifestError, match="there is no document"):
        Registry().read(path)
    path.write_text(over.replace("effect: idem", "effect: idm"))
    with pytest.raises(ManifestError, match=r"pets\.yaml:5.*Did you mean 'idempotent'"):
        Registry().read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe\x00", "not UTF-8"), (b"{", "store.json"), (b"[1]", "not an OpenAPI document"), (b"", "store.json"),
     (b"\x00", "store.json")],
)  # fmt: skip
def test_a_document_that_cannot_be_read(tmp_path: Path, content: bytes, words: str):
    """A document below a manifest: one error, with its name; also one that is too large, or a folder."""
    (tmp_path / "store.json").write_bytes(content)
    (tmp_path / "pets.yaml").write_text("openapi: store.json\nname: pets\n")
    with pytest.raises(ManifestError, match=words) as caught:
        Registry().read(tmp_path / "pets.yaml")
    assert caught.value.hint


def test_a_document_that_is_too_large(tmp_path: Path):
    with (tmp_path / "store.json").open("wb") as file:
        file.truncate(300_000_000)  # no content, only a size
    (tmp_path / "pets.yaml").write_text("openapi: store.json\nname: pets\n")
    with pytest.raises(ManifestError, match="is larger than"):
        Registry().read(tmp_path / "pets.yaml")


AUTHS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "http", "scheme": "bearer"}, {"kind": "bearer"}),
    ({"type": "http", "scheme": "Basic"}, {"kind": "basic"}),
    ({"type": "apiKey", "in": "query", "name": "k"}, {"kind": "query", "name": "k"}),
    ({"type": "apiKey", "in": "cookie", "name": "k"}, {"kind": "none"}),
    (
        {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "https://a/t", "scopes": {"r": ""}}}},
        {"kind": "client_credentials", "token_url": "https://a/t"},
    ),
    (
        {
            "type": "oauth2",
            "flows": {"authorizationCode": {"tokenUrl": "https://a/t", "authorizationUrl": "https://a/a", "scopes": {}}},
        },
        {"kind": "oauth2_code"},
    ),
    ({"type": "openIdConnect", "openIdConnectUrl": "https://a"}, {"kind": "bearer"}),
]


@pytest.mark.parametrize(("scheme", "expected"), AUTHS)
def test_each_kind_of_authorisation(tmp_path: Path, scheme: dict[str, Any], expected: dict[str, Any]):
    path = tmp_path / "api.json"
    path.write_text(json.dumps(STORE | {"components": {"securitySchemes": {"key": scheme}}}))
    auth = Registry().read(path).manifest.auth.model_dump()
    assert {name: auth[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"openapi": "2.0", "swagger": "2.0"}, "swagger2openapi"),
        ({"paths": {}}, "no operation"),
        ({"paths": None}, "no operation"),
        ({"paths": {"/x": {"get": {"parameters": "none"}}}}, None),
        ({"paths": {"/x": {"$ref": "#/paths/~1x"}}}, "no operation"),
        ({"paths": {"/x": {"post": {"requestBody": {"$ref": "https://elsewhere.example/b"}}}}}, None),
        ({"servers": [{"url": "https://{region}.example", "variables": {"region": {"default": "eu"}}}]}, None),
        ({"servers": []}, None),
        ({"openapi": "3.1.0"}, None),
        ({"openapi": "3.2.0"}, None),
    ],
)
def test_odd_documents(tmp_path: Path, change: dict[str, Any], says: str | None):
    """They are read as far as they make sense, or refused with what to do; nothing is fetched."""
    path = tmp_path / "api.json"
    path.write_text(json.dumps(STORE | change))
    if says is None:
        assert Registry().read(path).manifest.operations
    else:
        with pytest.raises(ManifestError, match=says):
            Registry().read(path)
