"""Structured answers: schemas out of what users give, values out of what models say.

A response format is a type that pydantic knows (a model, a dataclass, `list[City]`, `Literal["a", "b"]`; the answer is a value of
it) or a JSON schema (the answer is the object).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, PydanticUserError, TypeAdapter
from pydantic import ValidationError as PydanticValidationError
from pydantic_core import to_json

from dipeo_nb.common import json_schema, user_code
from dipeo_nb.common.typed_dicts import readable
from dipeo_nb.diagram.metering import NotQuickError, metered, quick
from dipeo_nb.diagram.schema_check import validator
from dipeo_nb.diagram.values import TooLargeError
from dipeo_nb.domain.chat import LLMRequest, TokenUsage
from dipeo_nb.errors import StructureError, ValidationError, ValidatorCodeError
from dipeo_nb.llm.answer_json import values_in
from dipeo_nb.llm.samples.schemas import resolved
from dipeo_nb.workers import WORKERS

T = TypeVar("T")

# Schemas.


def schema_of(response_format: Any) -> dict[str, Any]:
    """The JSON schema of a type, or the given schema itself.

    Raises:
        ValidationError: it is neither.
    """
    if isinstance(response_format, Mapping):
        return dict(response_format)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    if isinstance(response_format, type) and issubclass(response_format, BaseModel):
        try:
            with user_code.contained():
                return response_format.model_json_schema()
        except Exception as error:  # pydantic has several, and the class may have code of its own
            raise _no_format(response_format, error) from error
    return adapter_of(response_format).json_schema()


def adapter_of(response_format: Any) -> TypeAdapter[Any]:
    """What reads and writes values of a type.

    Raises:
        ValidationError: pydantic does not know it.
    """
    try:
        with user_code.contained():
            return _adapter(response_format)
    except Exception as error:  # pydantic has several, and Python's own for what is not a type
        raise _no_format(response_format, error) from error


def _no_format(response_format: Any, error: Exception) -> ValidationError:
    kind = response_format if isinstance(response_format, type) else type(response_format)
    if isinstance(error, PydanticUserError) and error.code == "class-not-fully-defined":
        try:  # pydantic does not say which name is missing
            with user_code.contained():
                get_type_hints(response_format)
        except TypeError:
            pass  # what is made of several types has no annotations of its own
        except Exception as missing:  # noqa: BLE001 - whatever evaluating an annotation raises is the reason
            error = missing
    said = (user_code.failure_text(error).splitlines() or [""])[0][:200].rstrip(".")
    return ValidationError(
        f"A response format is a type or a JSON schema, which {kind.__name__} is not: {said}.",
        hint="Give a subclass of pydantic.BaseModel whose fields JSON can carry, list[…] of one, a dataclass, a Literal, or a dict such as "
        "{'type': 'object', 'properties': {…}}.",
    )


@lru_cache(maxsize=256)
def _adapter(response_format: Any) -> TypeAdapter[Any]:
    if isinstance(response_format, (str, int, float, bytes, list, tuple)) or response_format is Any:
        raise TypeError("it is a value, not a type")
    adapter: TypeAdapter[Any] = TypeAdapter(readable(response_format))
    adapter.json_schema()
    return adapter


def name_of(response_format: Any) -> str:
    """A name for the schema, as providers want one: letters, digits, `_`, `-`."""
    name = getattr(response_format, "__name__", None) or (
        response_format.get("title") if isinstance(response_format, Mapping) else None
    )
    return re.sub(r"[^A-Za-z0-9_-]", "_", str(name or "answer"))[:64]


def is_object(schema: Mapping[str, Any]) -> bool:
    """Whether a schema plainly asks for a JSON object: what most providers' native structure can give."""
    choices = {"$ref", "anyOf", "oneOf", "enum", "const"}
    return schema.get("type", "object") == "object" and choices.isdisjoint(schema)


_DROPPED = frozenset({"default", "title", "discriminator"})
"""Keywords that say nothing about which values fit and that strict mode refuses or does not need."""
_LOOSE = frozenset({"patternProperties", "allOf", "not", "if", "dependentRequired", "dependentSchemas"})
"""Keywords that strict mode does not take."""


def strict_schema(response_format: Any) -> dict[str, Any] | None:
    """The schema as OpenAI's strict mode wants it: every object closed, every property required.

    None when that would ask for something else than the user did: free-form dictionaries, and in a given JSON schema (whose
    answer is used as it comes) properties that may be missing. A pydantic class has its own defaults; its optional fields
    may be filled.
    """
    given = isinstance(response_format, Mapping)
    schema = schema_of(response_format)

    def walk(node: Any, inside: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [walk(item, inside) for item in node]  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(node, Mapping):
            return node
        if not _LOOSE.isdisjoint(node):  # pyright: ignore[reportUnknownArgumentType]
            raise _Loose
        if "$ref" in node and len(node) > 1:
            # A reference must stand alone. With a description beside it, it is replaced by what it refers to.
            reference = str(node["$ref"])
            if reference in inside:
                return {"$ref": reference}
            beside = {k: v for k, v in node.items() if k != "$ref"}
            return walk({**(resolved(reference, schema) or {}), **beside}, (*inside, reference))
        result: dict[str, Any] = {}
        for key, value in node.items():  # pyright: ignore[reportUnknownVariableType]
            if key in ("properties", "$defs"):
                result[key] = {name: walk(part, inside) for name, part in value.items()}
            elif key in ("enum", "const"):
                result[key] = value
            elif key not in _DROPPED:
                result["anyOf" if key == "oneOf" else key] = walk(value, inside)
        if result.get("type") == "object" or "properties" in result:
            properties: Mapping[str, Any] = result.get("properties", {})
            if not properties or node.get("additionalProperties") not in (None, False):
                raise _Loose
            if given and set(properties) - set(node.get("required", ())):
                raise _Loose
            result |= {"additionalProperties": False, "required": list(properties)}
        return result

    try:
        return walk(schema, ())
    except _Loose:
        return None


class _Loose(Exception):  # a way out of the recursion
    """The schema cannot be strict."""


# Answers.


def parsed(
    text: str, response_format: Any, *, provider: str, model: str, usage: TokenUsage | None = None, cut: bool = False
) -> Any:
    """The value in an answer: an instance of the pydantic class, or an object of the schema.

    JSON in a code fence or between words is found.

    Args:
        usage: of the call; travels with the error, as the tokens were spent.
        cut: the answer ended at its limit of tokens.

    Raises:
        StructureError: there is no JSON, or it does not fit; the message says where.
        ValidatorCodeError: a validator of the user's failed.
    """
    found, problem = values_in(text)
    fitting: dict[str, Any] = {}
    for value in found:
        try:
            written, instance = validated(value, response_format)
        except ValueError as error:
            problem = problem or str(error)  # that of the likeliest value
        except ValidatorCodeError as error:
            error.provider, error.model, error.usage = provider, model, usage
            raise
        else:
            fitting.setdefault(written, instance)
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if fitting:
        problem = f"it holds {len(fitting)} different answers, and one is asked for"
    if cut:
        problem = "it was cut off at its limit of tokens"
    raise StructureError(
        f"The answer of {model} does not fit the requested structure: {problem}. It begins: {text.strip()[:120]!r}.",
        hint="Raise max_tokens, or ask for fewer fields." if cut else "Ask for fewer fields, or use a larger model.",
        provider=provider,
        model=model,
        problem=problem,
        text=text,
        usage=usage,
        repairable=not cut,
    )


def validated(value: Any, response_format: Any) -> tuple[str, Any]:
    """(JSON text, value) of a value that fits.

    Raises:
        ValueError: it does not; the message says where.
        ValidatorCodeError: a validator of the user's failed.
    """
    if not isinstance(response_format, Mapping):
        return _instance(value, response_format)
    problem = _problem(schema_of(response_format), value)
    if problem is not None:
        raise ValueError(problem)
    return json.dumps(value, ensure_ascii=False), value


def _instance(value: Any, response_format: Any) -> tuple[str, Any]:
    """As `validated`, of a type."""
    adapter = adapter_of(response_format)
    given: bytes | None = None
    if not (isinstance(value, BaseModel) or dataclasses.is_dataclass(value) or isinstance(value, Enum)):
        # as JSON, where a strict class takes texts for dates and lists for tuples
        given = to_json(value, inf_nan_mode="constants")
    try:
        with user_code.contained():
            instance = adapter.validate_python(value) if given is None else adapter.validate_json(given)
    except PydanticValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'the value'}: {first['msg']}") from None
    except Exception as error:
        raise ValidatorCodeError(
            f"A validator of {name_of(response_format)} failed: {user_code.failure_text(error)}.",
            hint="Correct it. For an answer that does not fit, raise ValueError: then the model is asked once more.",
            traceback=user_code.own_traceback(error, "pydantic"),
        ) from error
    try:
        with user_code.contained():
            return adapter.dump_json(instance).decode(), instance
    except Exception:  # noqa: BLE001 - serializers of the user's, and types that have no JSON: the answer fits all the same
        return to_json(value, fallback=repr).decode(), instance


CHECK_S = 5.0
"""Seconds that the check of an answer may take."""


def _problem(schema: dict[str, Any], value: Any) -> str | None:
    """Why a value does not fit a schema, with the place; None when it does."""
    try:
        with quick():
            return first_problem(schema, value)
    except NotQuickError:
        pass
    try:
        return WORKERS.call_here(f"{__name__}:first_problem", schema, value, timeout=CHECK_S)
    except TimeoutError:
        return f"its check takes longer than {CHECK_S:g} s"


def first_problem(schema: dict[str, Any], value: Any) -> str | None:
    """As `_problem`, without a limit of time."""
    try:
        with metered():
            error = next(iter(validator(schema, checked=True).iter_errors(value)), None)
    except TooLargeError as error:
        return f"its check takes too long: {error}"
    if error is None:
        return None
    place = ".".join(map(str, error.absolute_path)) or "the value"
    return f"{place}: {error.message[:200]}"


async def made(make: Callable[[], T], request: LLMRequest) -> T:
    """What *make* gives. It validates an answer, which may be work of a class of the user's: then it has a thread of its own."""
    if request.response_format is None or isinstance(request.response_format, Mapping):
        return make()
    return await user_code.in_thread(make)


async def prepare(response_format: Any) -> None:
    """Load what checks JSON schemas, off the event loop, as that takes a while; and check the schema itself.

    Raises:
        ValidationError: it is not a JSON schema, or refers to what it does not hold.
    """
    if not isinstance(response_format, Mapping):
        return
    if "jsonschema" not in sys.modules:
        await asyncio.to_thread(json_schema.load)
    try:
        text = json.dumps(response_format, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(
            f"The JSON schema holds what JSON cannot: {error}.", hint="Use texts, numbers, booleans, lists and dicts."
        ) from None
    if text not in _right:
        await asyncio.to_thread(_check_schema, text)
        _right.add(text)


async def prepare_request(request: LLMRequest) -> None:
    """`prepare` for all schemas of a request: that of its answer, and those of tools that the caller runs.

    Raises:
        ValidationError: one is not a JSON schema, or refers to what it does not hold; or a tool is to be called that the request does not
            have.
    """
    names = [tool.name or tool.type for tool in request.tools]
    if request.tool_choice not in (None, "auto", "required", "none", *names):
        raise ValidationError(
            f"tool_choice={request.tool_choice!r:.80} names no tool of the request.",
            hint=f"It has: {', '.join(names) or 'none'}. Or say 'auto', 'required' or 'none'.",
        )
    await prepare(request.response_format)
    for tool in request.tools:
        if tool.function is None and tool.parameters:
            await prepare(tool.parameters)


_right: set[str] = set()
"""JSON schemas that were found to be right."""


def _check_schema(text: str) -> None:
    json_schema.load()
    from jsonschema import SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    schema = json.loads(text)
    try:
        with metered():
            validator(schema)
    except (SchemaError, TooLargeError) as error:
        place = ".".join(map(str, getattr(error, "absolute_path", ()))) or "the schema"
        said = str(getattr(error, "message", error))[:200]
        raise ValidationError(
            f"The structure that is asked for is not a JSON schema: {place}: {said}.",
            hint="Correct it; types are object, array, string, number, integer, boolean and null.",
        ) from None
    resolver = Registry().with_resource("", DRAFT202012.create_resource(schema)).resolver()
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except (Unresolvable, ValueError):
            raise ValidationError(
                f"The JSON schema refers to '{reference[:200]}', which it does not hold.",
                hint="Write it below '$defs', and refer to it as '#/$defs/Name'; nothing is fetched from elsewhere.",
            ) from None


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict) and not ("$id" in node and not str(node["$id"]).startswith("#") and "$ref" not in node):
        if isinstance(reference := node.get("$ref"), str):
            yield reference
        for name, value in node.items():
            if name not in ("enum", "const", "default", "examples"):
                yield from _references(
                    list(value.values())
                    if name in ("properties", "$defs", "definitions") and isinstance(value, dict)
                    else value
                )
