"""Words of pydantic source that are understood: types, options of fields, settings, packages."""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field

MAX_DEPTH = 50
"""Levels of nesting of an annotation."""
MAX_TYPES = 20_000
"""Parts of annotations and values, including those that names refer to."""
ENUMS: dict[str, type[enum.Enum]] = {"Enum": enum.Enum, "IntEnum": enum.IntEnum, "StrEnum": enum.StrEnum}


def _text_of(form: str) -> Any:
    return typing.Annotated[str, Field(json_schema_extra={"format": form})]


SIMPLE_TYPES: dict[str, Any] = {
    "Any": Any, "AnyStr": str, "None": None, "bool": bool, "bytes": bytes, "date": datetime.date,
    "datetime": datetime.datetime, "Decimal": decimal.Decimal, "dict": dict, "Dict": dict, "float": float,
    "frozenset": frozenset, "FrozenSet": frozenset, "int": int, "list": list, "List": list, "object": Any, "set": set,
    "Set": set, "str": str, "time": datetime.time, "timedelta": datetime.timedelta, "tuple": tuple, "Tuple": tuple,
    "UUID": uuid.UUID, "UUID4": uuid.UUID, "Mapping": dict, "Sequence": list, "Iterable": list,
    "Text": str, "LiteralString": str, "Path": str, "FilePath": str, "DirectoryPath": str, "SecretStr": str,
    "StrictStr": str, "StrictInt": int, "StrictFloat": float, "StrictBool": bool, "AwareDatetime": datetime.datetime,
    "NaiveDatetime": datetime.datetime, "PastDate": datetime.date, "FutureDate": datetime.date,
    "PastDatetime": datetime.datetime, "FutureDatetime": datetime.datetime,
    "EmailStr": _text_of("email"), "HttpUrl": _text_of("uri"), "AnyUrl": _text_of("uri"), "AnyHttpUrl": _text_of("uri"),
    "PositiveInt": typing.Annotated[int, Field(gt=0)], "NegativeInt": typing.Annotated[int, Field(lt=0)],
    "NonNegativeInt": typing.Annotated[int, Field(ge=0)], "NonPositiveInt": typing.Annotated[int, Field(le=0)],
    "PositiveFloat": typing.Annotated[float, Field(gt=0)], "NegativeFloat": typing.Annotated[float, Field(lt=0)],
    "NonNegativeFloat": typing.Annotated[float, Field(ge=0)], "NonPositiveFloat": typing.Annotated[float, Field(le=0)],
    "FiniteFloat": typing.Annotated[float, Field(allow_inf_nan=False)],
}  # fmt: skip
GENERIC_TYPES = {
    "list": list, "List": list, "Sequence": list, "Iterable": list, "Collection": list, "set": set, "Set": set,
    "frozenset": frozenset, "FrozenSet": frozenset, "AbstractSet": set, "dict": dict, "Dict": dict, "Mapping": dict,
    "MutableMapping": dict, "tuple": tuple, "Tuple": tuple,
}  # fmt: skip
SPECIAL_TYPES = ("Annotated", "Literal", "Optional", "Union")
CONSTRAINED_TYPES = {
    "constr": str, "conint": int, "confloat": float, "condecimal": decimal.Decimal, "conlist": list, "conset": set,
    "conbytes": bytes,
}  # fmt: skip
FIELD_OPTIONS = frozenset(
    [
        "default", "default_factory", "alias", "title", "description", "examples", "ge", "gt", "le", "lt",
        "multiple_of", "min_length", "max_length", "pattern", "json_schema_extra", "allow_inf_nan", "max_digits",
        "decimal_places", "discriminator",
    ]
)  # fmt: skip
DOCUMENTING_OPTIONS = frozenset(["title", "description", "examples", "json_schema_extra"])
"""Options that describe a field; a value that is not a constant is skipped."""
OTHER_OPTIONS = frozenset(
    [
        "alias_priority", "coerce_numbers_to_str", "deprecated", "example", "exclude", "exclude_if", "fail_fast",
        "field_title_generator", "frozen", "include", "init", "init_var", "kw_only", "repr", "serialization_alias",
        "strict", "strip_whitespace", "to_lower", "to_upper", "union_mode", "validate_default", "validation_alias",
    ]
)  # fmt: skip
"""Options that do not affect the shape."""
OLD_OPTIONS = {"regex": "pattern", "min_items": "min_length", "max_items": "max_length"}
LIMITS = {
    "Ge": "ge", "Gt": "gt", "Le": "le", "Lt": "lt", "MultipleOf": "multiple_of", "MinLen": "min_length",
    "MaxLen": "max_length",
}  # fmt: skip
"""Constraints of `annotated_types` with one value."""
VALIDATORS = frozenset(
    ["AfterValidator", "BeforeValidator", "PlainValidator", "WrapValidator", "PlainSerializer", "WrapSerializer", "Strict"]
)
FACTORIES: dict[str, Callable[[], Any]] = {
    "dict": dict, "list": list, "set": set, "tuple": tuple, "str": str, "int": int, "float": float, "bool": bool,
    "frozenset": frozenset, "uuid4": uuid.uuid4, "today": datetime.date.today,
    "now": lambda: datetime.datetime.now(datetime.UTC), "utcnow": lambda: datetime.datetime.now(datetime.UTC),
}  # fmt: skip
MODEL_SETTINGS = frozenset(
    ["extra", "title", "frozen", "str_strip_whitespace", "use_enum_values", "populate_by_name", "json_schema_extra"]
)
PLAIN_BASES = frozenset(["ABC", "object", "Generic", "Protocol"])
STATEMENTS: Mapping[type, str] = {
    ast.AsyncFunctionDef: "a function", ast.Assign: "an assignment", ast.Call: "a call", ast.Delete: "del",
    ast.Expr: "an expression", ast.For: "a loop", ast.FunctionDef: "a function", ast.If: "if",
    ast.Import: "an import", ast.ImportFrom: "an import", ast.Lambda: "a lambda", ast.Try: "try",
    ast.While: "a loop", ast.With: "with", ast.Attribute: "an attribute", ast.Subscript: "a subscript",
}  # fmt: skip
KNOWN_PACKAGES = frozenset(
    [
        "__future__", "abc", "annotated_types", "collections", "dataclasses", "datetime", "decimal", "enum", "pathlib", "pydantic",
        "typing", "typing_extensions", "uuid",
    ]
)  # fmt: skip
"""Packages whose names are known here; names from any other are refused where they are needed."""
TypeNames = Mapping[str, ast.expr]
"""Type variables of a generic class → what they stand for."""
