"""Base class of the mixins."""

from __future__ import annotations

from typing import Any, ClassVar

_LIFECYCLE = frozenset({"initialize", "cleanup"})
"""Names that other base classes may have, since `InitializationMixin` cooperates with them."""


class Mixin:
    """Base of the mixins: rejects conflicting names."""

    mixin_names: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if Mixin in cls.__bases__:
            cls.mixin_names = frozenset(n for n in vars(cls) if not n.startswith("_") and n != "mixin_names")
            return
        seen: dict[str, type] = {}
        for mixin in mixins_of(cls):
            for name in mixin.mixin_names:
                if name in seen:
                    raise TypeError(
                        f"{cls.__name__} mixes {seen[name].__name__} and {mixin.__name__}, which both have '{name}'. "
                        "Use one of them, or rename."
                    )
                seen[name] = mixin
        for base in cls.__mro__[1:]:
            if issubclass(base, Mixin) or base is object or getattr(base, "_is_protocol", False):
                continue
            for name in sorted(seen.keys() & vars(base).keys() - vars(cls).keys() - _LIFECYCLE):
                raise TypeError(
                    f"{cls.__name__} mixes {seen[name].__name__} and {base.__name__}, which both have '{name}'. "
                    f"Define it in {cls.__name__}, or rename."
                )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)


def mixins_of(service: object) -> tuple[type[Mixin], ...]:
    """Return the mixins of a service or its class in method resolution order."""
    cls = service if isinstance(service, type) else type(service)
    return tuple(c for c in cls.__mro__ if Mixin in c.__bases__)
