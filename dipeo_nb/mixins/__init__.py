"""Five optional mixins for services: logging, validation, configuration, caching, initialization.

Each works whether its `__init__` is called through `super().__init__()`, on its own (`CachingMixin.__init__(self, ttl=300)`, in
any order and any number of times) or not at all: state is created on first use, and only given arguments replace it. Two
mixins with a public name in common cannot be combined; that fails when the class is defined, not when it is used.
`mixins_of(service)` lists the mixins of a service.
"""

from dipeo_nb.mixins.base import mixins_of
from dipeo_nb.mixins.caching import CachingMixin, with_cache
from dipeo_nb.mixins.configuration import ConfigurationMixin
from dipeo_nb.mixins.initialization import InitializationMixin, require_initialized
from dipeo_nb.mixins.logging import LoggingMixin, log_operation
from dipeo_nb.mixins.validation import ValidationMixin

__all__ = [
    "CachingMixin",
    "ConfigurationMixin",
    "InitializationMixin",
    "LoggingMixin",
    "ValidationMixin",
    "log_operation",
    "mixins_of",
    "require_initialized",
    "with_cache",
]
