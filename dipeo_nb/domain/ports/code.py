"""Code of diagrams, and code generation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable


class CodeResult(NamedTuple):
    """Result of a piece of code."""

    value: Any
    variables: Mapping[str, Any]
    """JSON values that it assigned, or changed in place."""
    stdout: str
    code: Mapping[str, Any] = {}
    """Other names that it bound or deleted: see `execution.code_state.Change`."""


@runtime_checkable
class CodeRunner(Protocol):
    """Runs the code of one run outside this process; can be killed at any time."""

    @abstractmethod
    async def run_python(
        self,
        code: str,
        *,
        filename: str,
        inputs: Any,
        variables: Mapping[str, Any],
        node_id: str,
        function_name: str,
        timeout: float,
        view: Any = ...,
        shared: bool = True,
        file: Path | None = None,
        modules: Mapping[str, bytes] | None = None,
        on_output: Callable[[str], None] | None = None,
        on_log: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> CodeResult:
        """Run *code*; several pieces may run concurrently.

        Args:
            filename: its name in tracebacks.
            inputs: the node's inputs (`execution.inputs.Inputs`).
            variables: the run's global variables.
            function_name: function to call if the code defines it and returns no result otherwise.
            timeout: seconds.
            view: names assigned by earlier code of the run (`execution.code_state.View`).
            shared: False gives the code a namespace of its own.
            file: where the code comes from; modules next to it can be imported.
            modules: the importable files of the base directory, by their paths below it, the same for all code of the run: only
                these, with this content. None: the files on disk.
            on_output: called with printed text, in chunks.
            on_log: called with log records, as payloads of `execution_log` events.

        Raises:
            CodeError: it raised, or its result cannot be transferred.
            NodeTimeoutError: it was slower than *timeout* seconds; the worker is killed.
        """
        ...

    @abstractmethod
    async def cleanup(self) -> None:
        """Kill the worker. Safe to call twice."""
        ...


@runtime_checkable
class ASTParserPort(Protocol):
    """Parses TypeScript."""

    @abstractmethod
    async def parse(self, sources: Mapping[str, str], options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return name of a source → {"ast": …, "metadata": …}.

        Args:
            sources: name → text.
            options: the node's fields: extract_patterns, include_jsdoc, parse_mode, transform_enums, flatten_output,
                output_format.

        Raises:
            CodeError: a source is not TypeScript; the message has the position.
        """
        ...


@runtime_checkable
class IRBuilderPort(Protocol):
    """Builds a code generator's intermediate representation."""

    @abstractmethod
    async def build(self, source: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return {"data": …, "metadata": …} for the parser's result.

        Args:
            options: the node's fields: builder_type, builder_name, source_type, config_path, output_format, cache_enabled,
                validate_output; and `config`, the mapping in that file.

        Raises:
            ValidationError: the source does not have the shape that the builder needs.
        """
        ...
