"""Parse TypeScript: one source, a file, or a batch whose modules know each other."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from dipeo_nb.codegen.typescript.evaluator import Evaluator
from dipeo_nb.codegen.typescript.extract import COLLECTIONS, extracted
from dipeo_nb.codegen.typescript.forms import formed
from dipeo_nb.codegen.typescript.grammar import MAX_BYTES, Source, SourceError, read
from dipeo_nb.codegen.typescript.outline import Outline, outline
from dipeo_nb.codegen.typescript.shapes import Ast, Metadata, Parsed
from dipeo_nb.common import cancellable, steps
from dipeo_nb.common.paths import name_below
from dipeo_nb.common.root import Root
from dipeo_nb.errors import StorageError, ValidationError

DEFAULT_PATTERNS = ("interface", "type", "enum")
ALL_PATTERNS = tuple(COLLECTIONS)
_PLURALS = {plural: pattern for pattern, plural in COLLECTIONS.items()} | {"consts": "const", "constant": "const"}
CACHE_BYTES = 64_000_000
"""Of results that a parser keeps."""


def parse(
    source: str | bytes,
    extract_patterns: Iterable[str] = DEFAULT_PATTERNS,
    *,
    include_jsdoc: bool = False,
    tsx: bool = False,
    name: str = "source",
) -> Parsed:
    """Parse one source.

    Args:
        source: the text; bytes are UTF-8.
        extract_patterns: interface, type, enum, class, function, const, export.
        include_jsdoc: with the texts of JSDoc comments.
        tsx: with JSX, as in a file `.tsx`.
        name: what stands for its path when a constant names another module.

    Returns:
        {"ast": collections, "metadata": {success, extractedPatterns, astSummary, diagnostics}}. What is not understood is a
        diagnostic; `success` is False, and `error` says why, only when nothing was read.

    Raises:
        ValidationError: there is no such pattern.
        MissingDependencyError: the extra `codegen` is not installed.
    """
    return parse_batch({name: source}, extract_patterns, include_jsdoc=include_jsdoc, tsx=tsx or None)[name]


def parse_batch(
    sources: Mapping[str, str | bytes],
    extract_patterns: Iterable[str] = DEFAULT_PATTERNS,
    *,
    include_jsdoc: bool = False,
    tsx: bool | None = None,
) -> dict[str, Parsed]:
    """Parse sources that may import each other: name → as `parse`. Its progress: `common.steps`.

    Args:
        sources: name (a path, with `/`) → text.
        tsx: None: by the name; JSX in `.tsx` and `.jsx`.

    Raises:
        ValidationError, MissingDependencyError: as `parse`.
    """
    wanted = patterns(extract_patterns)
    outlines: dict[str, Outline] = {}
    failed: dict[str, Parsed] = {}
    for number, (name, text) in enumerate(sources.items(), 1):
        cancellable.check()
        steps.begun(name, number, len(sources))
        try:
            outlines[name] = outline(_read(name, text, tsx))
        except SourceError as error:
            failed[name] = _failed(error, wanted)
    evaluator = Evaluator(outlines)
    made: dict[str, Parsed] = {}
    for name in sources:
        cancellable.check()
        made[name] = failed[name] if name in failed else extracted(outlines[name], wanted, evaluator, jsdoc=include_jsdoc)
    return made


def _read(name: str, text: str | bytes, tsx: bool | None) -> Source:
    jsx = name.lower().endswith((".tsx", ".jsx")) if tsx is None else tsx
    return read(name, text, tsx=jsx, cancelled=cancellable.is_cancelled)


def _failed(error: SourceError, wanted: Sequence[str]) -> Parsed:
    at = error.diagnostic
    summary: dict[str, Any] = {"kind": "SourceFile", "childCount": 0}
    metadata = Metadata(
        success=False, extractedPatterns=list(wanted), astSummary=summary, diagnostics=[at],
        error=f"{at['line']}:{at['column']}: {error}",
    )  # fmt: skip
    return Parsed(ast=Ast(), metadata=metadata)


def patterns(given: Iterable[str]) -> tuple[str, ...]:
    """Patterns by their own names, each once; plurals are known, too. Raises ValidationError."""
    found: dict[str, None] = {}
    for name in [given] if isinstance(given, str) else given:
        pattern = _PLURALS.get(str(name), str(name))
        if pattern not in COLLECTIONS:
            raise ValidationError(f"There is no pattern '{name}'.", hint=f"Patterns: {', '.join(COLLECTIONS)}.")
        found[pattern] = None
    return tuple(found)


class TypeScriptParser:
    """Parses off the event loop, and remembers results by content.

    Args:
        base_dir: where `parse_file` and `parse_files` look; paths cannot lead out of it.
        cache_enabled: False: parse the same source each time.
    """

    def __init__(self, base_dir: str | Path = ".", *, cache_enabled: bool = True) -> None:
        self._base = Path(base_dir)
        self._cache: LRUCache[str, bytes] | None = LRUCache(CACHE_BYTES, getsizeof=len) if cache_enabled else None
        self.hits = 0
        self.misses = 0

    async def parse(self, sources: Mapping[str, str | bytes], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Parse a batch (`ASTParserPort`); *options*: the fields of a typescript_ast node (see `formed`), and `tsx`."""
        found = await self.parse_batch(
            sources,
            options.get("extract_patterns") or DEFAULT_PATTERNS,
            include_jsdoc=bool(options.get("include_jsdoc")),
            tsx=options.get("tsx"),
        )
        return {name: formed(result, options) for name, result in found.items()}

    async def parse_batch(
        self,
        sources: Mapping[str, str | bytes],
        extract_patterns: Iterable[str] = DEFAULT_PATTERNS,
        *,
        include_jsdoc: bool = False,
        tsx: bool | None = None,
    ) -> dict[str, Parsed]:
        """As the function `parse_batch`, in a thread; when the waiting is cancelled, the work ends at the next source."""
        wanted = patterns(extract_patterns)

        def work() -> dict[str, Parsed]:
            key = _key(sources, wanted, include_jsdoc, tsx)
            if self._cache is not None and (known := self._cache.get(key)) is not None:
                self.hits += 1
                return pickle.loads(known)  # our own bytes, from this process
            made = parse_batch(sources, wanted, include_jsdoc=include_jsdoc, tsx=tsx)
            self.misses += 1
            if self._cache is not None:
                kept = pickle.dumps(made)
                if len(kept) <= CACHE_BYTES // 4:
                    self._cache[key] = kept
            return made

        return await cancellable.in_thread(work)

    async def parse_file(
        self, path: str | Path, extract_patterns: Iterable[str] = DEFAULT_PATTERNS, *, include_jsdoc: bool = False
    ) -> Parsed:
        """Parse a file below the base directory. Raises StorageError: it cannot be read."""
        found = await self.parse_files([path], extract_patterns, include_jsdoc=include_jsdoc)
        return next(iter(found.values()))

    async def parse_files(
        self, paths: Iterable[str | Path], extract_patterns: Iterable[str] = DEFAULT_PATTERNS, *, include_jsdoc: bool = False
    ) -> dict[str, Parsed]:
        """Parse files below the base directory that may import each other: path below it, with `/` → result."""
        sources = await asyncio.to_thread(self._texts, list(paths))
        return await self.parse_batch(sources, extract_patterns, include_jsdoc=include_jsdoc)

    def _texts(self, paths: Sequence[str | Path]) -> dict[str, str | bytes]:
        root = Root(self._base)
        return {name_below(str(path), self._base): _content(root, path) for path in paths}

    def clear_cache(self) -> None:
        """Forget all results."""
        if self._cache is not None:
            self._cache.clear()


def _content(root: Root, path: str | Path) -> bytes:
    try:
        return root.read(path, MAX_BYTES)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror or error}.", hint="Name a file below the base directory."
        ) from error


def _key(sources: Mapping[str, str | bytes], wanted: Sequence[str], jsdoc: bool, tsx: bool | None) -> str:
    digest = hashlib.sha256(repr((wanted, jsdoc, tsx)).encode())
    for name, text in sources.items():
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        digest.update(f"\0{name}\0{len(data)}\0".encode("utf-8", "surrogatepass"))
        digest.update(data)
    return digest.hexdigest()
