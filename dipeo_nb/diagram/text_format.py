"""The shape of a structured answer: pydantic source or a JSON schema, read and never executed.

What the chosen class does not need (functions, validators, other classes, `if __name__ == "__main__":`) is skipped;
what it needs and what is not a shape is refused with its line.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import sys
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from dipeo_nb.common import json_schema
from dipeo_nb.diagram.pydantic_source import ModelBuilder
from dipeo_nb.diagram.source import parse
from dipeo_nb.errors import DiagramFormatError, ValidationError

MAX_LENGTH = 100_000
"""Characters of a source."""


class AnswerShape(NamedTuple):
    """The required shape of an answer, and the parts of its source that have no effect."""

    model: type[BaseModel] | dict[str, Any]
    """A model class, or a JSON schema."""
    skipped: tuple[str, ...] = ()
    """Parts of the source that were not read, each with its line."""


def response_model(source: str | Mapping[str, Any]) -> type[BaseModel] | dict[str, Any]:
    """The model class or JSON schema of `answer_shape`."""
    return answer_shape(source).model


def answer_shape(source: str | Mapping[str, Any]) -> AnswerShape:
    """The answer's shape from *source*.

    Args:
        source: Python source with pydantic classes; or a JSON schema, as a mapping or as JSON or YAML text (also inside
            OpenAI's `{"name": …, "schema": {…}}`).

    Returns:
        A model class (the one named `Response`, else the last whose name ends so, else the last one), or the schema as
        a new dict.

    Raises:
        ValidationError: neither, or the class needs what is not a shape; the message names line and construct, fact: line
            (or None).
    """
    if isinstance(source, Mapping):
        return AnswerShape(_schema(copy.deepcopy(dict(source))))
    text = source.strip("\n")
    if not text.strip():
        raise ValidationError("The text_format is empty.", hint="Give a pydantic class or a JSON schema.", line=None)
    if len(text) > MAX_LENGTH:
        raise ValidationError(
            f"The text_format has {len(text):,} characters; {MAX_LENGTH:,} are allowed.", hint="Shorten it.", line=None
        )
    if text.lstrip().startswith("{"):
        try:
            return AnswerShape(_schema(json.loads(text)))
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            raise ValidationError(
                f"The text_format begins like a JSON schema but is not JSON: {error}.",
                hint="Check quotes, commas and brackets.",
                line=line,
            ) from None
    shape = _python(source)
    return shape._replace(model=copy.deepcopy(shape.model)) if isinstance(shape.model, dict) else shape


@lru_cache(maxsize=128)
def _python(source: str) -> AnswerShape:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        newer = line and sys.version_info < (3, 12) and _NEWER.match("\n".join(source.split("\n")[line - 1 :]))
        if not newer and (data := _yaml_mapping(source)) is not None:
            return AnswerShape(_schema(data))
        what = getattr(error, "msg", None) or str(error) or "too deeply nested"
        at = f"Line {line} of the text_format does" if line else "The text_format does"
        hint = "Give pydantic classes or a JSON schema."
        if newer:
            what, hint = "this syntax is of Python 3.12", "Write `Name = …` for `type Name = …`, and `Generic[T]` for `[T]`."
            what += f", and this is Python {sys.version_info.major}.{sys.version_info.minor}"
        raise ValidationError(f"{at} not parse as Python: {what}.", hint=hint, line=line) from None
    if _is_mapping_text(tree):
        # One line of YAML, such as `type: object`, is also Python.
        return AnswerShape(_schema(_yaml_mapping(source)))
    return AnswerShape(*ModelBuilder(tree).build_chosen())


_NEWER = re.compile(r"\s*(type\s+\w+\s*(\[.*\]\s*)?=|class\s+\w+\s*\[|def\s+\w+\s*\[)")
"""The first words of what older versions of Python cannot parse."""


def _yaml_mapping(text: str) -> dict[str, Any] | None:
    try:
        value = parse(text).value
    except DiagramFormatError:
        return None  # then it is judged as Python
    return value if isinstance(value, dict) else None


def _is_mapping_text(tree: ast.Module) -> bool:
    return bool(tree.body) and all(
        isinstance(s, ast.AnnAssign)
        and s.value is None
        and isinstance(s.target, ast.Name)
        and s.target.id in ("type", "anyOf", "properties")
        for s in tree.body
    )


# --- JSON schema -------------------------------------------------------------------------------------------------


def _schema(schema: Any) -> dict[str, Any]:
    # Imported here: a rare case should not slow down every start.
    json_schema.load()
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    if not isinstance(schema, dict):
        raise ValidationError("A JSON schema is a mapping.", hint="Begin with `type: object`.", line=None)
    for name in ("json_schema", "schema"):
        if isinstance(schema.get(name), dict) and "properties" not in schema:
            schema = schema[name]
    known = ("type", "properties", "anyOf", "oneOf", "allOf", "$ref", "enum", "const", "items", "$defs")
    if not any(key in schema for key in known):
        raise ValidationError(
            f"This is not a JSON schema: it has none of {', '.join(known[:5])}.",
            hint='Write, for example, {"type": "object", "properties": {"answer": {"type": "string"}}}.',
            line=None,
        )
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except RecursionError:
        raise ValidationError("The JSON schema is nested too deeply.", hint="Flatten it.", line=None) from None
    except SchemaError as error:
        where = ".".join(str(p) for p in error.absolute_path) or "the top"
        raise ValidationError(
            f"The JSON schema is not valid at {where}: {error.message}.", hint="Correct it there.", line=None
        ) from None
    return schema
