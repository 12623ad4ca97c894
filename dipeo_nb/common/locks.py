"""Locks between processes, on `filelock`: an exclusive one, an async one, and one for files of a cache."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.paths import confine, refused

TIMEOUT_S = 30.0
"""Seconds that a lock is waited for, unless told otherwise."""
POLL_S = 0.02
"""Seconds between two looks at a lock that somebody else has."""


LOCK_NAME_LIMIT = 200
"""Bytes of a lock's name; longer ones are hashed."""


class FileLock:
    """An exclusive lock, between processes and between threads that share the object; the thread that has it may take it again.

    The operating system frees it when its process ends, however that ends.

    Args:
        lock_file: its path; folders are made.
        timeout: seconds to wait; negative: for ever.
    """

    def __init__(self, lock_file: str | os.PathLike[str], timeout: float = TIMEOUT_S) -> None:
        self.lock_file = Path(lock_file)
        self.timeout = timeout
        self._lock = filelock.FileLock(self.lock_file, timeout=timeout, poll_interval=POLL_S, thread_local=True)

    @property
    def is_locked(self) -> bool:
        """Whether this thread has it."""
        return self._lock.is_locked

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock. False when it could not be had in time, or at once with blocking=False."""
        self.lock_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=blocking)
        except filelock.Timeout:
            return False
        return True

    def release(self) -> None:
        """Give the lock back; as often as it was taken. Without having it, nothing happens."""
        self._lock.release()

    def __enter__(self) -> FileLock:
        if not self.acquire():
            raise _late(self.lock_file, self.timeout)
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class AsyncFileLock:
    """`FileLock` for coroutines: waiting blocks neither the event loop nor a worker thread, and can be cancelled.

    Each `async with` is a holder of its own: two tasks that share the object exclude each other, and only the task that has
    the lock can give it back.
    """

    def __init__(self, lock_file: str | os.PathLike[str], timeout: float = TIMEOUT_S) -> None:
        self.lock_file = Path(lock_file)
        self.timeout = timeout
        self._held: dict[asyncio.Task[Any] | None, filelock.FileLock] = {}

    async def acquire(self, blocking: bool = True) -> bool:
        """As `FileLock.acquire`."""
        self.lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.lock_file, thread_local=False)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.timeout if self.timeout >= 0 else float("inf")
        while True:
            try:
                lock.acquire(blocking=False)  # a system call that returns at once
            except filelock.Timeout:
                if not blocking or clock() >= deadline:
                    return False
                await asyncio.sleep(POLL_S)
            else:
                self._held[asyncio.current_task()] = lock
                return True

    async def release(self) -> None:
        """Give the lock back. Without having it, nothing happens."""
        lock = self._held.pop(asyncio.current_task(), None)
        if lock is not None:
            lock.release()

    async def __aenter__(self) -> AsyncFileLock:
        if not await self.acquire():
            raise _late(self.lock_file, self.timeout)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.release()


class CacheFileLock:
    """Reading and writing files of a cache folder that several processes use: many readers or one writer for each file.

    A write is seen whole or not at all; one that fails leaves the old file.

    Args:
        cache_dir: where the files are.
        lock_dir: where the locks are; default: `.locks` in it.
        timeout: seconds to wait for a file.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str],
        lock_dir: str | os.PathLike[str] | None = None,
        timeout: float = TIMEOUT_S,
    ) -> None:
        self.cache_dir = Path(cache_dir)
        self.lock_dir = self.cache_dir / ".locks" if lock_dir is None else Path(lock_dir)
        self.timeout = timeout

    @contextlib.contextmanager
    def read(self, name: str) -> Iterator[Path]:
        """The path of a file, which nobody changes within the block.

        Raises:
            StorageError: `refused` (the name leads out of the folder), or the lock cannot be made.
        """
        target = self._path(name)
        lock = self._lock(target)
        try:
            with _in_time(target, self.timeout), lock.read_lock(timeout=self.timeout):
                yield target
        finally:
            lock.close()

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """The path of an empty temporary file; what is in it at the end of the block becomes the file. Raises as `read`, and
        when the disk is full or may not be written."""
        target = self._path(name)
        lock = self._lock(target)
        try:
            with _in_time(target, self.timeout), lock.write_lock(timeout=self.timeout):
                draft = _draft(target)
                try:
                    yield draft
                    _finish(draft, target)
                finally:
                    draft.unlink(missing_ok=True)
        finally:
            lock.close()

    @contextlib.asynccontextmanager
    async def aread(self, name: str) -> AsyncIterator[Path]:
        """`read` for coroutines."""
        target = self._path(name)
        lock = filelock.AsyncReadWriteLock(self._lock_file(target), timeout=self.timeout, is_singleton=False)
        try:
            with _in_time(target, self.timeout):
                async with lock.read_lock(timeout=self.timeout):
                    yield target
        finally:
            await lock.close()

    @contextlib.asynccontextmanager
    async def awrite(self, name: str) -> AsyncIterator[Path]:
        """`write` for coroutines."""
        target = self._path(name)
        lock = filelock.AsyncReadWriteLock(self._lock_file(target), timeout=self.timeout, is_singleton=False)
        try:
            with _in_time(target, self.timeout):
                async with lock.write_lock(timeout=self.timeout):
                    draft = await asyncio.to_thread(_draft, target)
                    try:
                        yield draft
                        await asyncio.to_thread(_finish, draft, target)
                    finally:
                        draft.unlink(missing_ok=True)
        finally:
            await lock.close()

    def _path(self, name: str) -> Path:
        target = confine(self.cache_dir, name)
        if target == self.cache_dir.resolve():
            raise refused(name, "it is the folder itself")
        return target

    def _lock_file(self, target: Path) -> Path:
        """One lock for a file, however its path is spelled."""
        name = target.relative_to(self.cache_dir.resolve()).as_posix()
        plain = name.replace("%", "%25").replace("/", "%2F")
        if len(plain.encode()) > LOCK_NAME_LIMIT:  # room for endings that locks add
            plain = f"~{hashlib.sha256(name.encode()).hexdigest()}"
        try:
            self.lock_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise failed("lock", name, error) from error
        return self.lock_dir / f"{plain}.lock"

    def _lock(self, target: Path) -> Any:
        return filelock.ReadWriteLock(self._lock_file(target), timeout=self.timeout, is_singleton=False)


def _draft(target: Path) -> Path:
    """A new, empty file beside *target*."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:40]}.", suffix=".draft", dir=target.parent)
    except OSError as error:
        raise failed("write", target, error) from error
    os.close(handle)
    return Path(name)


def _finish(draft: Path, target: Path) -> None:
    try:
        write_atomic(target, draft.read_bytes())
    except OSError as error:
        raise failed("write", target, error) from error


def get_cache_lock_manager(cache_dir: str | os.PathLike[str] | None = None) -> CacheFileLock:
    """The locks of a cache folder; default: the user's cache folder of this package."""
    return CacheFileLock(cache_dir or platformdirs.user_cache_dir("dipeo-nb", appauthor=False))


@contextlib.contextmanager
def _in_time(path: Path, timeout: float) -> Iterator[None]:
    try:
        yield
    except filelock.Timeout as error:
        raise _late(path, timeout) from error


def _late(path: Path, timeout: float) -> TimeoutError:
    return TimeoutError(
        f"{path} was locked by somebody else for {timeout:g} s. Wait for it to end, or raise the timeout."
    )
