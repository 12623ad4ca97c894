"""Code of diagrams, and what is made from code."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable


class CodeResult(NamedTuple):
    """What a piece of code gave back."""

    value: Any
    variables: Mapping[str, Any]
    """What it assigned, or changed in place, of JSON values."""
    stdout: str
    code: Mapping[str, Any] = {}
    """What further names it bound or deleted: see `execution.code_state.Change`."""


@runtime_checkable
class CodeRunner(Protocol):
    """Runs the code of one run, apart from this process; killable at any time."""

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
        """Run *code*; several pieces may be run at the same time.

        Args:
            filename: what tracebacks call it.
            inputs: the node's inputs (`execution.inputs.Inputs`).
            variables: the run's global variables.
            function_name: called when the code defines it and gives no result otherwise.
            timeout: seconds.
            view: what earlier code of the run assigned (`execution.code_state.View`).
            shared: False gives the code a namespace of its own.
            file: where the code comes from; modules beside it can be imported.
            modules: the files that can be imported of the base directory, by their paths below it, the same for all code of the
                run: no other ones are then, and these as they are here. None: what lies there.
            on_output: told what the code prints, piece by piece.
            on_log: told what it logs, as payloads of `execution_log` events.

        Raises:
            CodeError: it raised, or its result cannot be carried over.
            NodeTimeoutError: it was slower than *timeout* seconds; the worker is killed.
        """
        ...

    @abstractmethod
    async def cleanup(self) -> None:
        """Kill the worker. Safe to call twice."""
        ...


@runtime_checkable
class ASTParserPort(Protocol):
    """Reads TypeScript."""

    @abstractmethod
    async def parse(self, sources: Mapping[str, str], options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Name of a source → {"ast": …, "metadata": …}.

        Args:
            sources: name → text.
            options: the node's fields: extract_patterns, include_jsdoc, parse_mode, transform_enums, flatten_output,
                output_format.

        Raises:
            CodeError: a source is not TypeScript; the message says where.
        """
        ...


@runtime_checkable
class IRBuilderPort(Protocol):
    """Makes a code generator's intermediate form."""

    @abstractmethod
    async def build(self, source: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """{"data": …, "metadata": …} from what the parser gave.

        Args:
            options: the node's fields: builder_type, source_type, config_path, output_format, cache_enabled, validate_output.

        Raises:
            ValidationError: the source has not the shape that the builder needs.
        """
        ...
