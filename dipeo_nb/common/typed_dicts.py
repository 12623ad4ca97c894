"""`typing.TypedDict` for pydantic, which takes only that of `typing_extensions` before Python 3.12."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typing_extensions

NEEDED = sys.version_info < (3, 12)
"""Whether pydantic refuses `typing.TypedDict`."""
_QUALIFIERS = (typing_extensions.Required, typing_extensions.NotRequired, typing_extensions.ReadOnly)


def readable(kind: Any) -> Any:
    """The type with each `typing.TypedDict` in it, at any depth, as one of `typing_extensions` with the same keys; others as they are.

    Raises:
        NameError: an annotation names what its module does not have.
    """
    return _readable(kind, {}, {}) if NEEDED else kind


def _readable(kind: Any, known: dict[Any, Any], given: Mapping[Any, Any]) -> Any:
    """The type, made again.

    Args:
        known: what was made of each TypedDict so far.
        given: the types that stand for type variables here.
    """
    if isinstance(kind, TypeVar):
        return given.get(kind, kind)
    if typing_extensions.is_typeddict(kind):
        return known.get(kind) or _typed_dict(kind, kind, (), known)
    arguments, origin = get_args(kind), get_origin(kind)
    if origin is None or not arguments or origin is Literal:
        return kind
    if origin is Annotated:
        return Annotated[(_readable(arguments[0], known, given), *arguments[1:])]
    # the list is that of a Callable
    found = tuple(_readable(a, known, given) if not isinstance(a, list) else a for a in arguments)
    if typing_extensions.is_typeddict(origin):
        return known.get(key := origin[found]) or _typed_dict(origin, key, found, known)
    if all(a is b for a, b in zip(found, arguments, strict=True)):
        return kind
    if origin in (Union, types.UnionType):
        return Union[found]  # noqa: UP007 - the members are values here
    if origin in _QUALIFIERS:
        return origin[found[0]]
    return kind.copy_with(found) if hasattr(kind, "copy_with") else origin[found]


def _typed_dict(kind: Any, key: Any, arguments: Sequence[Any], known: dict[Any, Any]) -> Any:
    """The class, made again. It is known, by *key*, before its keys are read, as they may refer to it."""
    made: Any = typing_extensions.TypedDict(kind.__name__, {})  # pyright: ignore[reportArgumentType] - the name is not known before
    known[key] = made
    given = dict(zip(getattr(kind, "__parameters__", ()), arguments, strict=False))
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    optional = {name for name, hint in hints.items() if _is_optional(hint, name in kind.__optional_keys__)}
    made.__annotations__ = {name: _readable(hint, known, given) for name, hint in hints.items()}
    made.__required_keys__ = frozenset(hints.keys() - optional)
    made.__optional_keys__ = frozenset(optional)
    made.__doc__, made.__module__, made.__qualname__ = kind.__doc__, kind.__module__, kind.__qualname__
    if (config := getattr(kind, "__pydantic_config__", None)) is not None:
        made.__pydantic_config__ = config
    return made


def _is_optional(hint: Any, otherwise: bool) -> bool:
    """Whether a key may be missing: what its own qualifier says, which Python does not see in an annotation that was a text."""
    while (origin := get_origin(hint)) in (Annotated, typing_extensions.ReadOnly):
        hint = get_args(hint)[0]
    return {typing_extensions.Required: False, typing_extensions.NotRequired: True}.get(origin, otherwise)
