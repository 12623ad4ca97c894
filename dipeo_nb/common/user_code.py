"""The one way to call code that users wrote: tools, functions of nodes, event handlers, validators, hooks.

Whatever such code raises is an ordinary failure of that call. `SystemExit` and `KeyboardInterrupt` would end the event loop,
`StopIteration` cannot leave a coroutine, and `CancelledError` or `GeneratorExit` would be taken for the end of other work.

A plain function runs in a thread of its own, which is not waited for when its caller gives up and does not hold the exit of the
process: Python cannot end a thread, and a pool of them would fill up with functions that never return. An async function runs on
the event loop of functions when its caller is on the library's (`common.function_loop`), else on its caller's own.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import re
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeVar

from dipeo_nb.common import function_loop
from dipeo_nb.common.loop import on_library_loop
from dipeo_nb.common.values import MAX_ITERATED, error_text

T = TypeVar("T")

ESCAPING = (SystemExit, KeyboardInterrupt, StopIteration, StopAsyncIteration, asyncio.CancelledError, GeneratorExit)
"""Exceptions that mean something else to the caller than to the code that raised them."""


class UserCodeError(Exception):
    """User code raised something that would have ended more than its call; the text names it."""

    def __init__(self, error: BaseException) -> None:
        text = str(error)
        super().__init__(f"{type(error).__name__}: {text}" if text else type(error).__name__)
        self.__cause__ = error

    def __reduce__(self) -> tuple[Any, ...]:
        return UserCodeError, (self.__cause__,)


def as_failure(error: BaseException) -> Exception:
    """An exception of user code as an ordinary one; ordinary ones are left as they are."""
    if isinstance(error, Exception) and not isinstance(error, ESCAPING):
        return error
    return UserCodeError(error)


def failure_text(error: BaseException) -> str:
    """`Type: message` of what user code raised."""
    return str(error) if isinstance(error, UserCodeError) else error_text(error)


def own_traceback(error: BaseException, *packages: str) -> str:
    """The traceback of what user code raised, from its first frame outside this package and the folders of *packages*."""
    raised = error.__cause__ if isinstance(error, UserCodeError) and error.__cause__ is not None else error
    folders = tuple(os.path.dirname(str(sys.modules[name].__file__)) + os.sep for name in ("dipeo_nb", *packages))
    shown = traceback.TracebackException.from_exception(raised)
    frames = list(shown.stack)
    first = next((at for at, frame in enumerate(frames) if not frame.filename.startswith(folders)), len(frames))
    shown.stack = traceback.StackSummary.from_list(frames[first:])
    return "".join(shown.format(chain=False))


class contained:
    """Around plain user code that runs in this thread: what it raises is an ordinary exception."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if error is not None and (failure := as_failure(error)) is not error:
            raise failure from error


async def awaited(work: Awaitable[T]) -> T:
    """The result of an awaitable of user code. A cancellation of the caller stays one."""
    task = _current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await work
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > before:
            raise
        raise UserCodeError(error) from error
    except GeneratorExit as error:
        if task is None or _current_task() is not task:  # the coroutine is being closed from outside
            raise
        raise UserCodeError(error) from error
    except Exception as error:
        if isinstance(error, ESCAPING):
            raise as_failure(error) from error
        raise
    except BaseException as error:
        raise as_failure(error) from error


async def call(function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
    """The result of a user's function; see `finished`."""
    return await finished(functools.partial(function, *args), lambda: named)


async def finished(
    function: Callable[..., Any], arguments: Callable[[], Mapping[str, Any]], finish: Callable[[Any], Any] = lambda value: value
) -> Any:
    """The result of a user's function: an async one runs on the loop of functions, any other in a thread of its own. What a plain one
    returns is awaited when it can be; what an async generator yields is a list.

    Args:
        arguments: gives them by name; both this and *finish* may run code of the user's, and do so where the function runs.
        finish: makes the value of the call from what the function returns.
    """

    async def finished_async() -> Any:
        return finish(await _whole(function(**arguments())))

    if is_async(function):
        return await apart(finished_async)
    unfinished: list[Any] = []

    def finished_plain() -> Any:
        value = function(**arguments())
        if not inspect.isawaitable(value) and not inspect.isasyncgen(value):
            return finish(value)
        unfinished.append(value)
        return None

    async def rest() -> Any:
        return finish(await _whole(unfinished[0]))

    value = await in_thread(finished_plain)
    return await apart(rest) if unfinished else value


def plain_bool(value: object) -> bool:
    """The truth of what a predicate gave. What is to be awaited has none.

    Raises:
        TypeError: it has none; or whatever its own `__bool__` raises.
    """
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError("the predicate returned an awaitable; write it with `def`, so that it returns at once")
    return bool(value)


def name_of(function: Callable[..., Any]) -> str:
    """The name of a function, a partial, a method or a callable object."""
    inner = function.func if isinstance(function, functools.partial) else function
    return getattr(inner, "__name__", None) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(inner).__name__).lower()


def described_by(function: Callable[..., Any]) -> Callable[..., Any]:
    """The object that has the annotations and the docstring of a callable."""
    if isinstance(function, functools.partial):
        return described_by(function.func)
    return function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__


def is_async(function: object) -> bool:
    """Whether calling it begins asynchronous work, and nothing else: an async function or generator, a partial of one, an object
    whose `__call__` is one."""
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (function, type(function).__call__)
    )


async def _whole(value: Any) -> Any:
    return await (_gathered(value) if inspect.isasyncgen(value) else value)


async def _gathered(pieces: AsyncGenerator[Any, Any]) -> Any:
    found: list[Any] = []
    async with aclosing(pieces):
        async for piece in pieces:
            found.append(piece)
            if len(found) > MAX_ITERATED:  # maybe without end: the conversion to a value refuses an iterator of that length
                return iter(found)
    return found


async def apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of a coroutine with user code in it, run on the loop of functions when this is the library's."""

    async def contained_work() -> T:
        return await awaited(work())

    return await function_loop.run(contained_work) if on_library_loop() else await contained_work()


async def in_thread(function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
    """Call a plain function of a user's in a thread of its own, in this context."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: Exception | None) -> None:
        if done.done():
            return  # its caller has given up
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = context.run(function, *args, **named)
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            failure = as_failure(error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=work, name=f"dipeo-{getattr(function, '__name__', 'call')}", daemon=True).start()
    return await done


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs here any more
        return None
