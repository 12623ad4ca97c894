"""The one way to call code that users wrote: tools, functions of nodes, event handlers, validators, hooks.

Whatever such code raises is an ordinary failure of that call. `SystemExit` and `KeyboardInterrupt` would end the event loop,
`StopIteration` cannot leave a coroutine, and `CancelledError` or `GeneratorExit` would pass for the end of somebody else's work.

A plain function runs in a thread of its own, which is not waited for when its caller gives up and does not hold the exit of the
process: Python cannot end a thread, and a pool of them would fill up with functions that never return.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

ESCAPING = (SystemExit, KeyboardInterrupt, StopIteration, StopAsyncIteration, asyncio.CancelledError, GeneratorExit)
"""Exceptions that mean something else to whoever called than to the code that raised them."""


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


@contextmanager
def contained() -> Iterator[None]:
    """Around plain user code that runs in this thread: what it raises is an ordinary exception."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ESCAPING):
            raise as_failure(error) from error
        raise
    except BaseException as error:
        raise as_failure(error) from error


async def awaited(work: Awaitable[Any]) -> Any:
    """What an awaitable of user code gives. A cancellation of the caller stays one."""
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
    """Call a user's function: an async one on this event loop, any other in a thread of its own. What a plain one returns is
    awaited when it can be."""
    if inspect.iscoroutinefunction(function):
        return await awaited(function(*args, **named))
    value = await in_thread(function, *args, **named)
    return await awaited(value) if inspect.isawaitable(value) else value


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
