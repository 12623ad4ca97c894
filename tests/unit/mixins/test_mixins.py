"""The five mixins, as the seed's sample service uses them."""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
import threading
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import pytest

from dipeo_nb.errors import ConfigurationError, ValidationError
from dipeo_nb.mixins import (
    CachingMixin,
    ConfigurationMixin,
    InitializationMixin,
    LoggingMixin,
    ValidationMixin,
    log_operation,
    mixins_of,
    require_initialized,
    with_cache,
)
from dipeo_nb.mixins.base import Mixin


class CustomService(LoggingMixin, ValidationMixin, CachingMixin):
    """The seed's sample, word for word (but for `_do_processing`, which it leaves out)."""

    def __init__(self, config: dict):  # type: ignore[type-arg]
        # Initialize mixins
        LoggingMixin.__init__(self)
        ValidationMixin.__init__(self)
        CachingMixin.__init__(self, ttl=300)

        self.config = config
        self.processed = 0

    async def process_data(self, data: dict) -> dict:  # type: ignore[type-arg]
        # Use logging from LoggingMixin
        self.log_info("Processing data", extra={"data_size": len(data)})

        # Use validation from ValidationMixin
        if not self.validate_field(data, "required_field", str):
            raise ValueError("Invalid data")

        # Use caching from CachingMixin
        cache_key = f"processed_{data['id']}"
        if cached := self.get_cached(cache_key):
            return cached

        result = await self._do_processing(data)
        self.set_cached(cache_key, result)
        return result

    async def _do_processing(self, data: dict) -> dict:  # type: ignore[type-arg]
        self.processed += 1
        return {"id": data["id"]}


def test_the_seeds_service_runs(caplog: pytest.LogCaptureFixture):
    """It logs, validates, and answers the second call from its cache."""
    caplog.set_level(logging.INFO)
    service = CustomService({"a": 1})
    data = {"id": 7, "required_field": "x"}
    assert asyncio.run(service.process_data(data)) == asyncio.run(service.process_data(data)) == {"id": 7}
    assert service.processed == 1
    assert caplog.records[0].data_size == 2  # type: ignore[attr-defined]
    assert caplog.records[0].name == "tests.unit.mixins.test_mixins.CustomService"
    with pytest.raises(ValueError, match="Invalid data"):
        asyncio.run(service.process_data({"id": 7}))


def test_cooperative_construction_works_in_any_order():
    """`super().__init__` reaches every mixin; options go to the one that knows them."""

    class One(CachingMixin, ConfigurationMixin, LoggingMixin):
        def __init__(self) -> None:
            super().__init__(ttl=5, config={"a": {"b": 0}})

    class Two(LoggingMixin, ConfigurationMixin, CachingMixin):
        def __init__(self) -> None:
            super().__init__(config={"a": {"b": 0}}, ttl=5)

    class Three(ConfigurationMixin, LoggingMixin, CachingMixin):
        """Calls none of them."""

        def __init__(self) -> None:
            self.config = {"a": {"b": 0}}

    for service in (One(), Two(), Three()):
        assert service.get_config_value("a.b", 9) == 0
        service.cache_set("x", None)
        assert service.cache_get("x", "missing") is None
    assert One().cache_stats()["ttl"] == 5


MIXINS = (LoggingMixin, ValidationMixin, CachingMixin, ConfigurationMixin, InitializationMixin)


def test_explicit_construction_works_in_any_order():
    """Whatever the order of the bases and of the calls, what a call gives stays: 14,400 combinations."""
    arguments = {CachingMixin: (5,), ConfigurationMixin: ({"a": 1},)}
    for bases in itertools.permutations(MIXINS):
        kind = type("Service", bases, {"__init__": lambda self: None})
        for order in itertools.permutations(MIXINS):
            service: Any = kind()
            for mixin in order:
                mixin.__init__(service, *arguments.get(mixin, ()))
            assert (service.cache_stats()["ttl"], service.config) == (5, {"a": 1}), (bases, order)


def test_a_second_construction_replaces_only_what_it_gives():
    """Falsy values are given ones."""

    class Service(ConfigurationMixin, CachingMixin):
        pass

    service = Service({"a": 1}, ttl=7)
    service.cache_set("k", 1)
    CachingMixin.__init__(service)
    assert (service.config, service.cache_stats()["ttl"], service.cache_get("k")) == ({"a": 1}, 7, 1)
    ConfigurationMixin.__init__(service, {})
    CachingMixin.__init__(service, cache_ttl=0)
    assert (service.config, service.cache_stats()["ttl"]) == ({}, 0)
    assert Service(None, 3).cache_stats()["ttl"] == 3


def test_a_base_class_that_hides_a_mixin_is_refused_when_the_class_is_made():
    """Unless the class says which one it means; a port only describes methods."""

    class Base:
        def cache_get(self, key: Any) -> None: ...

    class Port(Protocol):
        def cache_get(self, key: Any) -> None: ...

    for bases in ((Base, CachingMixin), (CachingMixin, Base)):
        with pytest.raises(TypeError, match=r"CachingMixin and Base.*'cache_get'"):
            type("Service", bases, {})
        type("Service", bases, {"cache_get": CachingMixin.cache_get})

    class Service(CachingMixin, Port): ...

    assert Service().cache_get("k") is None


def test_mixins_that_clash_are_refused_when_the_class_is_made():
    """A name that two of them have is named with both."""

    class Other(Mixin):
        def cache_get(self, key: Any) -> None: ...

    with pytest.raises(TypeError, match=r"CachingMixin and Other.*'cache_get'"):
        type("Service", (CachingMixin, Other), {})
    assert [m.__name__ for m in mixins_of(CustomService)] == ["LoggingMixin", "ValidationMixin", "CachingMixin"]


class Noisy(LoggingMixin):
    @log_operation("adding")
    async def add(self, a: int, b: int) -> int:
        return a + b

    @log_operation()
    def fail(self) -> None:
        raise RuntimeError("no")


def test_operations_are_logged(caplog: pytest.LogCaptureFixture):
    """Debug when done, error when failed, once each; reserved names do no harm."""
    caplog.set_level(logging.DEBUG)
    service = Noisy()
    assert asyncio.run(service.add(1, b=2)) == 3
    with pytest.raises(RuntimeError):
        service.fail()
    service.log_warning("odd", name="x", extra={"message": "y", "size": 3})
    done, failed, odd = (r for r in caplog.records if r.name.endswith("Noisy"))
    assert (done.levelname, done.operation) == ("DEBUG", "adding")  # type: ignore[attr-defined]
    assert (failed.levelname, failed.operation, failed.error) == ("ERROR", "fail", "RuntimeError")  # type: ignore[attr-defined]
    assert (odd.name_, odd.message_, odd.size) == ("x", "y", 3)  # type: ignore[attr-defined]
    assert odd.funcName == "test_operations_are_logged"


class Color(Enum):
    RED = "red"


def test_validation(tmp_path: Path):
    """Fields, types (generics too), choices and paths: what fits is given back, what does not says what would."""
    v = ValidationMixin()
    assert v.validate_type([1, 2], list[int]) == [1, 2]
    assert v.validate_enum("red", Color) == "red"
    assert v.validate_enum(Color.RED, Color) is Color.RED
    assert v.validate_field({"a": [1]}, "a", list[int])
    assert not v.validate_field({"a": None}, "a")
    assert v.validate_file_path("x/y.txt", tmp_path) == tmp_path.resolve() / "x" / "y.txt"
    for call, said in (
        (lambda: v.validate_type(True, int, "n"), "n is bool, not int"),
        (lambda: v.validate_type(["a"], list[int]), r"list\[int\]"),
        (lambda: v.validate_enum("blue", Color, "color"), "red"),
        (lambda: v.validate_required_fields({"a": 1}, ["a", "b", "c"]), "b, c"),
        (lambda: v.validate_file_path("../x", tmp_path), "outside"),
        (lambda: v.validate_file_path("", tmp_path), "not a path"),
    ):
        with pytest.raises(ValidationError, match=said):
            call()


def test_configuration_is_read_and_set_by_dotted_names():
    """What was set is read back; the mapping that was given is left alone; a way through a value is refused."""
    given = {"llm": {"timeout": 0}}
    c = ConfigurationMixin(given)
    c.set_config_value("llm.retry.count", 3)
    assert c.get_config_value("llm.retry.count") == 3
    assert c.get_config_value("llm.timeout", 5) == 0
    assert c.get_config_value("llm.nothing.there", "d") == "d"
    assert given == {"llm": {"timeout": 0}}
    with pytest.raises(ConfigurationError, match="'timeout' is 0"):
        c.set_config_value("llm.timeout.x", 1)


def test_the_cache_forgets_in_time_and_is_bounded():
    """Values leave after their seconds; None is a value; a decorated method runs once for the same arguments."""
    now = [0.0]

    class Cached(CachingMixin):
        cache_timer = staticmethod(lambda: now[0])
        calls = 0

        @with_cache()
        def double(self, x: int) -> None:
            self.calls += 1

        @with_cache(key=lambda x: x % 2)
        async def parity(self, x: int) -> int:
            self.calls += 1
            return x

    c = Cached(ttl=10)
    c.double(2), c.double(2), c.double(3)
    assert c.calls == 2
    assert asyncio.run(c.parity(1)) == asyncio.run(c.parity(3)) == 1
    now[0] = 11
    c.double(2)
    assert c.calls == 4
    for n in range(3000):
        c.cache_set(n, n)
    assert c.cache_stats()["size"] == 1024
    c.cache_invalidate()
    assert c.cache_stats()["size"] == 0


class Started(InitializationMixin):
    def __init__(self) -> None:
        super().__init__()
        self.times = 0
        self.broken = False

    async def initialize(self) -> None:
        self.times += 1
        await asyncio.sleep(0.01)
        if self.broken:
            raise OSError("disk")

    @require_initialized
    async def work(self) -> str:
        return "done"


class Further(Started):
    async def initialize(self) -> None:
        await super().initialize()
        self.times += 10


@pytest.mark.parametrize(("kind", "times"), [(Started, 1), (Further, 11)])
def test_initialisation_happens_once(kind: type[Started], times: int):
    """Ten calls at once, direct and indirect, initialise once; before it, work is refused; a failure may be repeated."""

    async def go() -> None:
        service = kind()
        with pytest.raises(ConfigurationError, match=r"await service\.initialize"):
            await service.work()
        service.broken = True
        with pytest.raises(OSError, match="disk"):
            await service.initialize()
        assert not service.is_initialized
        service.broken, service.times = False, 0
        await asyncio.gather(*(service.initialize() if n % 2 else service.ensure_initialized() for n in range(10)))
        assert service.times == times
        assert await service.work() == "done"

    asyncio.run(go())


class Connection(InitializationMixin):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    async def initialize(self) -> None:
        await asyncio.sleep(0.01)
        self.log.append("open")

    async def cleanup(self) -> None:
        self.log.append("close")


class PlainConnection(Connection):
    def initialize(self) -> Any:  # type: ignore[override]
        self.log.append("open")

    def cleanup(self) -> Any:  # type: ignore[override]
        self.log.append("close")


class Base:
    log: list[str]

    async def initialize(self) -> None:
        await asyncio.sleep(0.01)
        self.log.append("open")

    async def cleanup(self) -> None:
        self.log.append("close")


class Before(Base, InitializationMixin):
    def __init__(self) -> None:
        self.log = []


class After(InitializationMixin, Base):
    def __init__(self) -> None:
        self.log = []


class Inner(Connection):
    """Asks for itself while it is being initialised."""

    async def initialize(self) -> None:
        await self.ensure_initialized()
        await super().initialize()
        assert not self.is_initialized


LIFECYCLES = [Connection, PlainConnection, Before, After, Inner]


@pytest.mark.parametrize("kind", LIFECYCLES)
def test_what_was_closed_can_be_opened_again(kind: Any):
    """Open, close, open: each once for each time, wherever the methods come from."""

    async def go() -> None:
        service = kind()
        for _ in range(2):
            await asyncio.gather(service.ensure_initialized(), service.ensure_initialized())
            await service.ensure_initialized()
            await service.initialize()
            assert service.is_initialized
            assert copy.deepcopy(service).is_initialized
            if (done := service.cleanup()) is not None:
                await done
            assert not service.is_initialized
        assert service.log == ["open", "close", "open", "close"]

    asyncio.run(go())


def test_a_plain_initialize_needs_no_event_loop():
    """It runs when it is called."""
    service = PlainConnection()
    service.initialize()
    service.initialize()
    assert service.is_initialized
    assert service.log == ["open"]


def test_a_failing_cleanup_leaves_a_service_that_can_be_opened():
    """The error is raised; the next `initialize` runs."""

    class Failing(Connection):
        async def cleanup(self) -> None:
            raise OSError("gone")

    async def go() -> None:
        service = Failing()
        await service.initialize()
        with pytest.raises(OSError, match="gone"):
            await service.cleanup()
        await service.initialize()
        assert service.log == ["open", "open"]

    asyncio.run(go())


@pytest.mark.parametrize("kind", LIFECYCLES)
def test_several_event_loops_initialise_once(kind: Any):
    """Eight threads, each with a loop of its own."""
    service, errors = kind(), list[Exception]()

    def thread() -> None:
        try:
            asyncio.run(service.ensure_initialized())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=thread) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(20)
    assert errors == []
    assert service.log == ["open"]


def test_nobody_is_initialised_before_the_end():
    """A base class that is done does not make the service ready: callers at the same time wait for all of it."""

    class Slow(Connection):
        async def initialize(self) -> None:
            await super().initialize()
            await asyncio.sleep(0.02)
            self.log.append("ready")

    async def go() -> None:
        service = Slow()

        async def uses() -> list[str]:
            await service.ensure_initialized()
            return list(service.log)

        assert await asyncio.gather(uses(), uses()) == [["open", "ready"]] * 2

    asyncio.run(go())


def test_arguments_of_cached_methods_are_told_apart():
    """By type and content, within containers too; what cannot be told apart is looked at by its content."""

    class Cached(CachingMixin):
        calls = 0

        @with_cache()
        def seen(self, *values: Any, **named: Any) -> int:
            self.calls += 1
            return self.calls

    service = Cached()
    groups: list[Any] = [1, True, 1.0, "1", (1,), (True,), [1], [[1]], {"a": 1}, {"a": True}, {1}, frozenset({1}), None]
    assert [service.seen(value) for value in groups] == list(range(1, len(groups) + 1))
    assert [service.seen(value) for value in copy.deepcopy(groups)] == list(range(1, len(groups) + 1))
    assert service.seen(a=1) != service.seen(a=True)
