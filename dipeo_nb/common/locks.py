"""Locks between processes, on `filelock`: an exclusive one, an async one, and one for files of a cache."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import filelock
import platformdirs

from dipeo_nb.common.disk_errors import failed
from dipeo_nb.common.paths import refused
from dipeo_nb.common.protected import ProtectedPlaces
from dipeo_nb.common.root import Root
from dipeo_nb.common.sqlite import failed_database
from dipeo_nb.errors import StorageError

TIMEOUT_S = 30.0
"""Default timeout for acquiring a lock, in seconds."""
POLL_S = 0.02
"""Seconds between two attempts at a lock that is taken."""


LOCK_NAME_LIMIT = 200
"""Bytes of a lock's name; longer ones are hashed."""


class FileLock:
    """An exclusive lock, between processes and between threads that share the object; the thread that has it may take it again.

    The operating system frees it when its process ends, however that ends.

    Args:
        lock_file: its path; folders are made.
        timeout: seconds to wait; negative: forever.
        private: no other user may open the file, and so hold the lock.
        subject: what is locked, for messages; default: the lock's own file.
    """

    def __init__(
        self,
        lock_file: str | os.PathLike[str],
        timeout: float = TIMEOUT_S,
        *,
        private: bool = False,
        subject: str | os.PathLike[str] | None = None,
    ) -> None:
        self.lock_file: Path = Path(lock_file)
        self.subject: str = os.fspath(lock_file if subject is None else subject)
        self.timeout = timeout
        mode: dict[str, Any] = {"mode": 0o600} if private else {}
        self._lock = filelock.FileLock(self.lock_file, timeout=timeout, poll_interval=POLL_S, thread_local=True, **mode)

    @property
    def is_locked(self) -> bool:
        """Whether this thread has it."""
        return self._lock.is_locked

    def acquire(self, blocking: bool = True, cancelled: Callable[[], bool] | None = None) -> bool:
        """Take the lock. False when it could not be had in time, at once with blocking=False, or before
        *cancelled*, which is asked meanwhile, was true.

        Raises:
            StorageError: it cannot be locked: `unsupported` (the file system has no locks), `read_only`, `permission`, `disk_full` …
        """
        with _errors("lock", self.subject):
            self.lock_file.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(blocking=blocking and cancelled is None)
            except filelock.Timeout:
                return blocking and cancelled is not None and self._waited(cancelled)
        return True

    def _waited(self, cancelled: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + self.timeout if self.timeout >= 0 else float("inf")
        while not cancelled() and time.monotonic() < deadline:
            time.sleep(POLL_S)
            with contextlib.suppress(filelock.Timeout):
                self._lock.acquire(blocking=False)
                return True
        return False

    def release(self) -> None:
        """Give the lock back; as often as it was taken. Without having it, nothing happens. Raises StorageError as `acquire`."""
        with _errors("unlock", self.subject):
            self._lock.release()

    def __enter__(self) -> FileLock:
        if not self.acquire():
            raise _late(self.subject, self.timeout)
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class AsyncFileLock:
    """`FileLock` for coroutines: waiting blocks neither the event loop nor a worker thread, and can be cancelled.

    Each `async with` is a holder of its own: two tasks that share the object exclude each other, and only the task that has
    the lock can give it back.
    """

    def __init__(self, lock_file: str | os.PathLike[str], timeout: float = TIMEOUT_S) -> None:
        self.lock_file: Path = Path(lock_file)
        self.timeout = timeout
        self._held: dict[asyncio.Task[Any] | None, filelock.FileLock] = {}

    async def acquire(self, blocking: bool = True) -> bool:
        """As `FileLock.acquire`."""
        with _errors("lock", self.lock_file):
            self.lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.lock_file, thread_local=False)
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.timeout if self.timeout >= 0 else float("inf")
        while True:
            with _errors("lock", self.lock_file), contextlib.suppress(filelock.Timeout):
                lock.acquire(blocking=False)  # a system call that returns at once
                self._held[asyncio.current_task()] = lock
                return True
            if not blocking or clock() >= deadline:
                return False
            await asyncio.sleep(POLL_S)

    async def release(self) -> None:
        """Give the lock back. Without having it, nothing happens. Raises StorageError as `acquire`."""
        lock = self._held.pop(asyncio.current_task(), None)
        if lock is not None:
            with _errors("unlock", self.lock_file):
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
        self.cache_dir: Path = Path(cache_dir)
        self.lock_dir: Path = self.cache_dir / ".locks" if lock_dir is None else Path(lock_dir)
        self.timeout = timeout
        self._files = Root(cache_dir, protected=ProtectedPlaces())
        self._drafts = Root(cache_dir, links=False)  # their names begin with a dot
        self._locks = Root(cache_dir).below(".locks") if lock_dir is None else Root(lock_dir)

    @contextlib.contextmanager
    def read(self, name: str) -> Iterator[Path]:
        """The path of a file that does not change within the block.

        Raises:
            StorageError: `refused` (the name leads outside the folder, or is protected), or the lock cannot be made.
        """
        target = self._path(name)
        lock_file = self._lock_file(target)
        with _errors("lock", target, self.timeout):
            lock = filelock.ReadWriteLock(lock_file, timeout=self.timeout, is_singleton=False)
        try:
            with _errors("lock", target, self.timeout):
                lock.acquire_read(timeout=self.timeout)
            try:
                yield target
            finally:
                with _errors("unlock", target):
                    lock.release()
        finally:
            lock.close()

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """The path of an empty temporary file; what is in it at the end of the block becomes the file. Raises as `read`, and
        when the disk is full or may not be written."""
        target = self._path(name, writing=True)
        lock_file = self._lock_file(target)
        with _errors("lock", target, self.timeout):
            lock = filelock.ReadWriteLock(lock_file, timeout=self.timeout, is_singleton=False)
        try:
            with _errors("lock", target, self.timeout):
                lock.acquire_write(timeout=self.timeout)
            try:
                draft = self._draft(target)
                try:
                    yield self._place(draft)
                    self._finish(draft, target)
                finally:
                    self._forget(draft)
            finally:
                with _errors("unlock", target):
                    lock.release()
        finally:
            lock.close()

    @contextlib.asynccontextmanager
    async def aread(self, name: str) -> AsyncIterator[Path]:
        """`read` for coroutines."""
        target = self._path(name)
        lock_file = self._lock_file(target)
        with _errors("lock", target, self.timeout):
            lock = filelock.AsyncReadWriteLock(lock_file, timeout=self.timeout, is_singleton=False)
        try:
            with _errors("lock", target, self.timeout):
                await lock.acquire_read(timeout=self.timeout)
            try:
                yield target
            finally:
                with _errors("unlock", target):
                    await lock.release()
        finally:
            await lock.close()

    @contextlib.asynccontextmanager
    async def awrite(self, name: str) -> AsyncIterator[Path]:
        """`write` for coroutines."""
        target = self._path(name, writing=True)
        lock_file = self._lock_file(target)
        with _errors("lock", target, self.timeout):
            lock = filelock.AsyncReadWriteLock(lock_file, timeout=self.timeout, is_singleton=False)
        try:
            with _errors("lock", target, self.timeout):
                await lock.acquire_write(timeout=self.timeout)
            try:
                draft = await asyncio.to_thread(self._draft, target)
                try:
                    yield self._place(draft)
                    await asyncio.to_thread(self._finish, draft, target)
                finally:
                    await asyncio.to_thread(self._forget, draft)
            finally:
                with _errors("unlock", target):
                    await lock.release()
        finally:
            await lock.close()

    def _path(self, name: str, *, writing: bool = False) -> Path:
        try:
            target = self._files.locate(name, writing=writing)
        except OSError as error:
            raise failed("lock", name, error) from error
        if target == self._files.path:
            raise refused(name, "it is the folder itself")
        return target

    def _lock_file(self, target: Path) -> Path:
        """One lock for a file, however its path is spelled."""
        name = target.relative_to(self._files.path).as_posix()
        plain = name.replace("%", "%25").replace("/", "%2F")
        if len(plain.encode()) > LOCK_NAME_LIMIT:  # room for endings that locks add
            plain = f"~{hashlib.sha256(name.encode()).hexdigest()}"
        try:
            self._locks.mkdir()
        except OSError as error:
            raise failed("lock", name, error) from error
        return self._locks.path / f"{plain}.lock"

    def _draft(self, target: Path) -> PurePosixPath:
        """A new, empty file next to *target*, by its path below the folder of drafts."""
        folder = PurePosixPath(target.relative_to(self._files.path).parent.as_posix())
        draft = folder / f".{target.name.encode()[:40].decode(errors='ignore')}.{secrets.token_hex(8)}.draft"
        try:
            self._drafts.create(draft).close()
        except OSError as error:
            raise failed("write", target, error) from error
        return draft

    def _finish(self, draft: PurePosixPath, target: Path) -> None:
        try:
            with self._drafts.open(draft) as file:
                os.fsync(file.fileno())
            self._drafts.rename(draft, target)
        except OSError as error:
            raise failed("write", target, error) from error

    def _forget(self, draft: PurePosixPath) -> None:
        with contextlib.suppress(OSError, StorageError):  # it is in its place, or the first error counts
            self._drafts.unlink(draft)

    def _place(self, draft: PurePosixPath) -> Path:
        return self._files.path / draft


def get_cache_lock_manager(cache_dir: str | os.PathLike[str] | None = None) -> CacheFileLock:
    """The locks of a cache folder; default: the user's cache folder of this package."""
    return CacheFileLock(cache_dir or platformdirs.user_cache_dir("dipeo-nb", appauthor=False))


@contextlib.contextmanager
def _errors(operation: str, subject: str | os.PathLike[str], timeout: float | None = None) -> Iterator[None]:
    """Errors of the system or of the lock library as one of ours.

    Args:
        timeout: seconds that were waited; None: a lock that was not had in time is left to the caller.
    """
    try:
        yield
    except filelock.Timeout as error:
        if timeout is None:
            raise
        raise _late(subject, timeout) from error
    except sqlite3.Error as error:
        raise failed_database(operation, os.fspath(subject), error) from error
    except OSError as error:
        raise failed(operation, os.fspath(subject), error) from error


def _late(subject: str | os.PathLike[str], timeout: float) -> TimeoutError:
    return TimeoutError(
        f"{os.fspath(subject)} was locked by another process for {timeout:g} s. Wait for it to end, or raise the timeout."
    )
