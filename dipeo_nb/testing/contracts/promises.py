"""How a port's promises are written down once, and then checked by pytest, in a script and in a notebook alike."""

from __future__ import annotations

import asyncio
import inspect
import unittest
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar

from dipeo_nb.common.loop import run_sync
from dipeo_nb.errors import DipeoError, StorageError

SHOWN = 300
"""Characters of a value that a message shows."""
NOT_HERE = "not here: "


class BrokenPromiseError(AssertionError):
    """An adapter did not do what its port promises; the message says what it did."""


class NotHereError(unittest.SkipTest):
    """A promise that cannot be checked on this adapter. pytest counts it as skipped, as it does every `SkipTest`."""

    def __init__(self, why: str) -> None:
        super().__init__(NOT_HERE + why)


class Contract:
    """The promises of one port, each a method `test_…`. A subclass overrides `make`:

        class TestMyStore(BlobStoreContract):
            def make(self):
                return MyStore()

    Under pytest that is a test class (fixtures: an autouse fixture of the subclass may set `self.make`);
    `dipeo_nb.testing.check` does the same without pytest. Promises of async ports run on the library's event loop, as the
    adapters themselves do.
    """

    port: ClassVar[type]
    """The protocol in `dipeo_nb.domain.ports`."""
    timeout: float = 60.0
    """Seconds that one promise of an async port may take."""

    def make(self) -> Any:
        """A new, empty adapter (or an awaitable of one). Called once for each promise."""
        raise TypeError(f"{type(self).__name__} has nothing to check: override make() to return a new, empty adapter")

    def reopen(self, made: Any) -> Any:
        """Another adapter on the content of *made*, as after a restart. Leave it out where nothing outlives the object."""
        raise NotHereError("nothing outlives the object, or there is no reopen()")

    @asynccontextmanager
    async def opened(self, make: Callable[[], Any] | None = None) -> AsyncIterator[Any]:
        """An adapter, initialised; closed at the end, twice, which every port allows."""
        made = (make or self.make)()
        if inspect.isawaitable(made):
            made = await made
        if hasattr(made, "initialize"):
            await made.initialize()
        try:
            yield made
        except BaseException as error:
            try:
                await _close(made)
            except Exception as second:  # noqa: BLE001 - a note, as the first error is the finding
                error.add_note(f"cleanup() failed, too: {second!r}")
            raise
        await _close(made)

    def test_it_is_the_port(self) -> None:
        """Every method of the port is there."""

        def look(made: Any) -> None:
            missing = [name for name in vars(self.port) if name[0] != "_" and not hasattr(made, name)]
            that(not missing, f"{type(made).__name__} lacks {', '.join(missing)} of {self.port.__name__}")

        async def open_and_look() -> None:
            async with self.opened() as made:
                look(made)

        run_sync(open_and_look())

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Called by pytest: makes one test of each case of a promise."""
        cases = getattr(metafunc.function, "cases", None)
        if cases is not None:
            metafunc.parametrize("case", list(cases.values()), ids=list(cases))


async def _close(made: Any) -> None:
    if hasattr(made, "cleanup"):
        await made.cleanup()
        await made.cleanup()


def promise(check: Callable[..., Any] | None = None, *, cases: Mapping[str, Any] | None = None) -> Any:
    """Makes a test of a method that takes the adapter: `async def test_x(self, store)`, or plain for a port that is not async.

    Args:
        cases: name → value; the method is then called with `(adapter, value)`, once for each, with a new adapter.
    """
    if check is None:
        return lambda check: promise(check, cases=cases)

    def keep(contract: Contract, *case: Any) -> None:
        if not inspect.iscoroutinefunction(check):
            check(contract, contract.make(), *case)
            return

        async def go() -> None:
            async with asyncio.timeout(contract.timeout), contract.opened() as made:
                await check(contract, made, *case)

        try:
            run_sync(go())
        except TimeoutError as error:
            raise BrokenPromiseError(f"it takes longer than {contract.timeout:g} seconds") from error

    # pytest reads the parameters: no `functools.wraps`, which would show it those of `check`.
    def test(self: Contract) -> None:
        keep(self)

    def test_of_case(self: Contract, case: Any) -> None:
        keep(self, case)

    made: Any = test if cases is None else test_of_case
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(made, name, getattr(check, name))
    made.cases = cases
    return made


def named(values: Iterable[str]) -> dict[str, str]:
    """Cases of texts: a number and a readable beginning → the text."""
    return {f"{number}-{ascii(value)[1:31]}": value for number, value in enumerate(values)}


# What promises are written with.


def that(condition: object, message: str) -> None:
    """Raises BrokenPromiseError with *message* when *condition* does not hold (also under `python -O`)."""
    if not condition:
        raise BrokenPromiseError(message)


def same(got: object, promised: object, what: str) -> None:
    """Raises BrokenPromiseError when *got* is not equal to *promised*; *what* says what they are."""
    that(got == promised, f"{what}: got {shown(got)}, promised is {shown(promised)}")


@contextmanager
def refusal(
    doing: str, kind: type[DipeoError] = StorageError, *, cause: str | None = None, says: str = ""
) -> Iterator[list[Any]]:
    """What is done inside must raise a *kind* with that cause and a hint; the list then holds the error.

    Args:
        doing: what is done, as the beginning of a sentence: `reading a blob that is not there`.
        says: text that the message must have.
    """
    wanted = f"{kind.__name__}{f' with cause {cause!r}' if cause else ''}"
    caught: list[Any] = []
    try:
        yield caught
    except kind as error:
        found = error.facts.get("cause")
        that(cause is None or found == cause, f"{doing} raises the cause {found!r}; promised is {wanted}")
        that(error.hint, f"{doing} raises an error that does not say what to do (hint=): {error}")
        that(says in str(error), f"{doing} raises an error that does not say {says!r}: {error}")
        caught.append(error)
    except (BrokenPromiseError, TimeoutError):
        raise
    except Exception as error:
        raise BrokenPromiseError(f"{doing} raises {type(error).__name__}: {error}; promised is {wanted}") from error
    if not caught:
        raise BrokenPromiseError(f"{doing} raises nothing; promised is {wanted}")


def shown(value: object) -> str:
    """The beginning of a value's repr."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"
