"""Every Python snippet of the document the project was created from, run. `MODULES` is the table of its import paths."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydantic import BaseModel

from dipeo_nb import storage
from dipeo_nb.domain import ports
from dipeo_nb.domain.ports import BlobStorePort, FileSystemPort
from dipeo_nb.errors import DiagramNotFoundError, StorageError
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.blobs import InMemoryBlobAdapter
from tests.support.wire_openai import ScriptedServer, message, run

MODULES = {
    "dipeo.domain.ports": "dipeo_nb.domain.ports",
    "dipeo.application.mixins": "dipeo_nb.mixins",
    "dipeo.infrastructure.config": "dipeo_nb.config",
    "dipeo.infrastructure.codegen.parsers.parser_service": "dipeo_nb.codegen.services",
    "dipeo.infrastructure.codegen.parsers.typescript.parser": "dipeo_nb.codegen.typescript.parser",
    "dipeo.infrastructure.codegen.templates.drivers.template_service": "dipeo_nb.codegen.templates",
    "dipeo.infrastructure.codegen.ir_registry": "dipeo_nb.codegen.ir.registry",
    "dipeo.infrastructure.codegen.ir_cache": "dipeo_nb.codegen.ir.cache",
    "dipeo.infrastructure.common.utils.cache": "dipeo_nb.common.cache",
    "dipeo.infrastructure.common.utils.locks": "dipeo_nb.common.locks",
    "dipeo.infrastructure.storage.local": "dipeo_nb.storage.local",
    "dipeo.infrastructure.storage.cloud": "dipeo_nb.storage.cloud",
    "dipeo.infrastructure.storage.artifacts": "dipeo_nb.storage.artifacts",
    "dipeo.infrastructure.storage.conversation": "dipeo_nb.storage.conversation",
    "dipeo.infrastructure.storage.json_db": "dipeo_nb.storage.json_db",
    "dipeo.infrastructure.database": "dipeo_nb.database",
    "dipeo.infrastructure.diagram.drivers": "dipeo_nb.storage.diagrams",
    "dipeo.infrastructure.diagram.prompt_templates.prompt_builder": "dipeo_nb.diagram.prompts",
    "dipeo.infrastructure.diagram.prompt_templates.simple_processor": "dipeo_nb.diagram.templates",
    "dipeo.infrastructure.security.keys": "dipeo_nb.security.keys",
    "dipeo.infrastructure.llm.core.types": "dipeo_nb.llm.core.types",
    "dipeo.infrastructure.llm.adapters": "dipeo_nb.llm.adapters",
    "dipeo.infrastructure.llm.drivers.factory": "dipeo_nb.llm.providers",
    "dipeo.infrastructure.llm.providers.openai.unified_client": "dipeo_nb.llm.providers.openai",
    "dipeo.infrastructure.llm.providers.anthropic.unified_client": "dipeo_nb.llm.providers.anthropic",
    "dipeo.infrastructure.llm.providers.google.unified_client": "dipeo_nb.llm.providers.google",
    "dipeo.infrastructure.llm.providers.ollama.unified_client": "dipeo_nb.llm.providers.ollama",
    "dipeo.infrastructure.llm.providers.claude_code.unified_client": "dipeo_nb.llm.providers.claude_code",
}
"""The seed's module → ours. The client of a provider is in the module that is named after it."""
NAMES = {
    "dipeo.infrastructure.common.utils.cache": ["SingleFlightCache"],
    "dipeo.infrastructure.common.utils.locks": ["FileLock", "AsyncFileLock", "CacheFileLock"],
    "dipeo.infrastructure.storage.local": ["LocalFileSystemAdapter", "LocalBlobAdapter"],
    "dipeo.infrastructure.storage.cloud": ["S3Adapter"],
    "dipeo.infrastructure.storage.artifacts": ["ArtifactStoreAdapter"],
    "dipeo.infrastructure.storage.conversation": ["InMemoryConversationRepository", "InMemoryPersonRepository"],
    "dipeo.infrastructure.storage.json_db": ["DBOperationsDomainService"],
    "dipeo.infrastructure.codegen.parsers.parser_service": ["ParserService"],
    "dipeo.infrastructure.codegen.parsers.typescript.parser": ["TypeScriptParser"],
    "dipeo.infrastructure.codegen.templates.drivers.template_service": ["CodegenTemplateService"],
    "dipeo.infrastructure.codegen.ir_registry": ["IRBuilderRegistry"],
    "dipeo.infrastructure.codegen.ir_cache": ["IRCache"],
    "dipeo.infrastructure.diagram.drivers": ["DiagramService"],
    "dipeo.infrastructure.diagram.prompt_templates.prompt_builder": ["PromptBuilder"],
    "dipeo.infrastructure.diagram.prompt_templates.simple_processor": ["SimpleTemplateProcessor"],
    "dipeo.infrastructure.security.keys": ["APIKeyService", "EnvironmentAPIKeyService"],
    "dipeo.infrastructure.llm.core.types": ["AdapterConfig", "TokenUsage", "LLMResponse"],
    "dipeo.infrastructure.llm.drivers.factory": ["create_adapter"],
    "dipeo.infrastructure.llm.providers.openai.unified_client": ["UnifiedOpenAIClient"],
    "dipeo.infrastructure.llm.providers.anthropic.unified_client": ["UnifiedAnthropicClient"],
    "dipeo.infrastructure.llm.providers.google.unified_client": ["UnifiedGoogleClient"],
    "dipeo.infrastructure.llm.providers.ollama.unified_client": ["UnifiedOllamaClient"],
    "dipeo.infrastructure.llm.providers.claude_code.unified_client": ["UnifiedClaudeCodeClient"],
    "dipeo.application.mixins": [
        "LoggingMixin", "ValidationMixin", "ConfigurationMixin", "CachingMixin", "InitializationMixin",
    ],
}  # fmt: skip


@pytest.mark.parametrize("path", NAMES)
def test_the_seeds_classes_are_where_it_says(path: str):
    """Each class of the seed's tables can be imported from the module that the table maps its path to."""
    module = importlib.import_module(MODULES[path])
    for name in NAMES[path]:
        assert hasattr(module, name)


MOVED = {
    **{
        path.replace("dipeo.", "dipeo_nb.", 1): home
        for path, home in MODULES.items()
        if home != path.replace("dipeo.", "dipeo_nb.", 1)
    },
    "dipeo_nb.infrastructure.database": "dipeo_nb.storage.json_db",
    "dipeo_nb.infrastructure.events": "dipeo_nb.events",
    "dipeo_nb.common.utils.cache": "dipeo_nb.common.cache",
    "dipeo_nb.common.utils.locks": "dipeo_nb.common.locks",
    "dipeo_nb.shared.drivers.utils.cache": "dipeo_nb.common.cache",
    "dipeo_nb.shared.drivers.utils.locks": "dipeo_nb.common.locks",
    "dipeo_nb.llm.drivers.factory": "dipeo_nb.llm.providers",
}


def test_paths_of_upstream_lead_to_the_modules():
    """With the package's name in place of theirs; each says where the module is now."""
    code = """
        import importlib, json, sys, warnings
        for path, home in json.loads(sys.argv[1]).items():
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                module, real = importlib.import_module(path), importlib.import_module(home)
                names = getattr(real, "__all__", None) or [n for n in vars(real) if not n.startswith("_")]
                assert all(getattr(module, n) is getattr(real, n) for n in names), path
            assert any(home in str(w.message) for w in said if w.category is DeprecationWarning), path
        for missing in ("dipeo_nb.infrastructure.nothing", "dipeo_nb.application.nothing", "dipeo_nb.infrastructure.storage.nothing"):
            try:
                importlib.import_module(missing)
            except ModuleNotFoundError as error:
                assert missing in str(error)
            else:
                raise AssertionError(missing)
    """
    assert len(MOVED) == 33
    command = [sys.executable, "-c", textwrap.dedent(code), json.dumps(MOVED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_packages_have_the_names_of_their_services():
    """As the seed imports them: from the package."""
    from dipeo_nb.events import InMemoryEventBus
    from dipeo_nb.integrations import BaseProvider, IntegratedApiService
    from dipeo_nb.security import APIKeyService, EnvironmentAPIKeyService

    for found in (InMemoryEventBus, BaseProvider, IntegratedApiService, APIKeyService, EnvironmentAPIKeyService):
        assert isinstance(found, type)
    for name in storage.__all__:
        assert isinstance(getattr(storage, name), type)
    assert storage.LocalBlobAdapter is importlib.import_module("dipeo_nb.storage.local").LocalBlobAdapter
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = storage.Nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["SingleFlightCache", "FileLock", "AsyncFileLock", "CacheFileLock"])
def test_the_package_of_utilities_has_its_names(name: str):
    """With a warning that says where they are."""
    utilities = importlib.import_module("dipeo_nb.common.utils")
    with pytest.warns(DeprecationWarning, match="dipeo_nb.common"):
        assert getattr(utilities, name) is getattr(importlib.import_module("dipeo_nb.common"), name)


@pytest.mark.parametrize(("name", "now"), ports.FORMER_NAMES.items())
def test_ports_of_upstream_are_importable(name: str, now: str):
    """The one that has their task here, with a warning that its methods differ."""
    with pytest.warns(DeprecationWarning, match=now):
        assert getattr(ports, name) is getattr(ports, now)


def test_the_diagram_service_is_the_diagram_ports():
    """As the seed has it: `class DiagramService(…, DiagramPort)` over a `DiagramStoragePort` and a converter."""
    from dipeo_nb.domain.ports import (
        DiagramFilePort,
        DiagramFormatPort,
        DiagramPort,
        DiagramRepositoryPort,
        DiagramStoragePort,
    )
    from dipeo_nb.storage.diagrams import DiagramConverterService, DiagramService

    service = DiagramService()
    assert isinstance(service, DiagramPort | DiagramFilePort)
    assert isinstance(service, DiagramRepositoryPort)
    assert isinstance(service.storage, DiagramStoragePort)
    assert isinstance(DiagramConverterService(), DiagramFormatPort)

    class Half(DiagramPort):
        async def get(self, diagram_id: str) -> Any:
            return None

    with pytest.raises(TypeError, match="create"):
        Half()  # pyright: ignore[reportAbstractUsage]


def test_the_ports_bring_no_adapter_along():
    """Importing the ports loads no adapter and no SDK; a class that lacks a method is no port."""
    code = "import sys, dipeo_nb.domain.ports; print([m for m in sys.modules if m.split('.')[0] in ('openai', 'anthropic', 'obstore', 'redis', 'google') or m.startswith(('dipeo_nb.storage', 'dipeo_nb.llm', 'dipeo_nb.execution'))])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

    class Half:
        async def put(self, key: str, data: bytes) -> str:
            return ""

    assert not isinstance(Half(), BlobStorePort)


def test_the_port_adapter_pattern(tmp_path: Path):
    """The seed's port and adapter: a class of the user's own, written against the port, serves as a blob store."""

    class Port(Protocol):
        async def put(self, key: str, data: bytes) -> str: ...

    class Mine(InMemoryBlobAdapter):
        """Notes what is put."""

        def __init__(self) -> None:
            super().__init__()
            self.puts: list[str] = []

        async def put(self, key: str, data: Any, *more: Any, **options: Any) -> str:
            self.puts.append(key)
            return await super().put(key, data, *more, **options)

    store: Port = Mine()
    assert isinstance(store, BlobStorePort)
    from dipeo_nb.domain.ports import Artifact

    async def go() -> bytes:
        artifacts = ArtifactStoreAdapter(store)  # type: ignore[arg-type]
        ref = await artifacts.push(Artifact(name="model", version="1", data=b"weights"))
        return (await artifacts.pull(ref, tmp_path / "model.bin")).read_bytes()

    assert run(go()) == b"weights"
    assert store.puts  # type: ignore[attr-defined]


def test_the_driver_pattern_and_the_lifecycle(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """`DiagramService(storage, converter)`, initialize, load, cleanup: literally, with arguments and without."""
    caplog.set_level("DEBUG")
    from dipeo_nb.mixins import LoggingMixin, ValidationMixin, mixins_of
    from dipeo_nb.storage.diagrams import DiagramConverterService, DiagramService
    from dipeo_nb.storage.local import LocalFileSystemAdapter

    (tmp_path / "diagram.json").write_text(
        json.dumps(
            {
                "nodes": [{"id": "s", "type": "start", "position": {"x": 0, "y": 0}, "data": {"label": "Start"}}],
                "arrows": [],
            }
        )
    )
    storage, converter = LocalFileSystemAdapter(tmp_path), DiagramConverterService()

    async def go() -> None:
        # 1. Create via DI container with mixin composition
        service = DiagramService(storage, converter)  # Inherits LoggingMixin, ValidationMixin
        # 2. Initialize (mixin methods available)
        await service.initialize()
        # 3. Use with mixin capabilities
        diagram = await service.load_from_file("diagram.json")  # Auto-logging, validation
        assert service.is_initialized
        # 4. Cleanup
        await service.cleanup()

        assert [n.label for n in diagram.nodes] == ["Start"]
        assert {LoggingMixin, ValidationMixin} <= set(mixins_of(service))
        assert not service.is_initialized
        bare = DiagramService()
        assert (await bare.load_from_file("diagram")).format == "native"
        with pytest.raises(StorageError, match="leads outside"):
            await bare.load_from_file("../secret")
        with pytest.raises(DiagramNotFoundError, match="There is no diagram 'nothing'"):
            await bare.load_from_file("nothing")

    run(go())
    assert "load diagram" in {getattr(r, "operation", None) for r in caplog.records}
    assert isinstance(storage, FileSystemPort)


def test_the_repository_of_diagrams():
    """Create, list, get, update, delete, only by the ids that the list gives; formats are found out and converted."""
    from dipeo_nb.storage.diagrams import DiagramService
    from dipeo_nb.storage.in_memory import InMemoryFileSystem

    text = "version: light\nnodes:\n- {label: Start, type: start}\n- {label: End, type: endpoint}\nconnections:\n- {from: Start, to: End}\n"

    async def go() -> None:
        service = DiagramService(InMemoryFileSystem())
        diagram = await service.load_from_string(text)
        ids = [await service.create("my / diagram", diagram, kind) for kind in ("light", "light", "native", "readable")]
        assert len(set(ids)) == 4
        listed = await service.list()
        assert sorted(ids) == [i.id for i in listed]
        for info in listed:
            found = await service.get(info.id)
            assert found is not None
            assert [n.label for n in found.nodes] == ["Start", "End"]
            assert found.format == info.format
            await service.update(info.id, found.set("nodes.End.label", "Stop"))
            changed = await service.get(info.id)
            assert changed is not None
            assert changed.nodes[1].label == "Stop"
            await service.delete(info.id)
            assert not await service.exists(info.id)
            assert await service.get(info.id) is None
        for gone in (service.delete(ids[0]), service.update(ids[0], diagram)):
            with pytest.raises(DiagramNotFoundError):
                await gone
        converted = service.converter.convert_format(text, "native")
        assert service.converter.detect_format(converted) == "native"

    run(go())


def test_the_configuration_pattern():
    """`get_settings()` from the seed's path, one object until it is reset."""
    from dipeo_nb.config import get_settings

    settings = get_settings()  # Uses DIPEO_* env vars
    assert settings is get_settings()


def test_the_error_pattern():
    """`raise StorageError(f"Operation failed: {e}")` works as it stands, and its cause is kept."""

    async def operation() -> None:
        raise OSError("disk")

    async def go() -> None:
        try:
            await operation()
        except Exception as e:
            raise StorageError(f"Operation failed: {e}")  # noqa: B904 - as the seed has it

    with pytest.raises(StorageError, match="Operation failed: disk") as caught:
        run(go())
    assert isinstance(caught.value.__context__, OSError)
    assert caught.value.code == "storage_error"


class YourPydanticModel(BaseModel):
    word: str


def test_the_openai_snippet():
    """The seed's use of `responses.create` and `responses.parse`, access to the text included, against a server of ours."""

    def reply(call: Any) -> None:
        said = '{"word": "yes"}' if "text" in call.seen.body else "Hello."
        body = {
            "id": "r",
            "object": "response",
            "created_at": 1,
            "model": "gpt-5-nano-2025-08-07",
            "status": "completed",
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "output": [message(said)],
        }
        call.json(200, body)

    with ScriptedServer(reply) as server:
        from openai import OpenAI

        client = OpenAI(api_key="sk-test", base_url=server.url)

        # Create response
        response = client.responses.create(
            model="gpt-5-nano-2025-08-07",
            input="Your prompt here",
            max_output_tokens=1000
        )  # fmt: skip
        assert response.output_text == "Hello."

        # Parse structured output
        response = client.responses.parse(
            model="gpt-5-nano-2025-08-07",
            input="Your prompt here",
            text_format=YourPydanticModel
        )  # fmt: skip

        # Access response text
        text = response.output[0].content[0].text  # type: ignore[union-attr]
        assert text == '{"word": "yes"}'
        assert response.output_parsed == YourPydanticModel(word="yes")
        client.close()
    assert server.seen[0].body["max_output_tokens"] == 1000


def test_the_database_package_is_deprecated():
    """The old import works, warns once and gives the same class."""
    sys.modules.pop("dipeo_nb.database", None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        old = importlib.import_module("dipeo_nb.database")
        importlib.import_module("dipeo_nb.database")
    assert [w.category for w in seen] == [DeprecationWarning]
    from dipeo_nb.storage.json_db import DBOperationsDomainService

    assert old.DBOperationsDomainService is DBOperationsDomainService


def test_each_room_imports_alone_and_brings_no_sdk():
    """The seed's modules, one by one in a process of their own: no provider's SDK is loaded by any of them."""
    rooms = ("codegen", "diagram", "events", "execution", "integrations", "llm", "common", "security", "storage")
    there = [r for r in rooms if importlib.util.find_spec(f"dipeo_nb.{r}")]
    code = "import sys\nfor room in sys.argv[1:]:\n    __import__(f'dipeo_nb.{room}')\nprint(sorted({m.split('.')[0] for m in sys.modules} & {'openai', 'anthropic', 'google.genai', 'ollama', 'obstore', 'redis', 'boto3', 'xllamacpp'}))"
    done = subprocess.run([sys.executable, "-c", code, *there], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_gather_for_parallel_operations():
    """`asyncio.gather` over an adapter: the seed's advice on performance."""

    async def go() -> list[str]:
        store = InMemoryBlobAdapter()
        return list(await asyncio.gather(*(store.put(f"k{n}", b"x") for n in range(10))))

    assert len(set(run(go()))) == 1
