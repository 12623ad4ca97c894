"""Large content through the stores in little memory: 300 MB with less than 100 MB more than before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import S3Server
from tests.support.skips import NOT_HERE

ROOT = Path(__file__).parents[3]
SIZE_MB = 300
LIMIT_MB = 100

PROGRAM = """
import asyncio, hashlib, os, sys
from pathlib import Path
from dipeo_nb.domain.ports import Artifact
from dipeo_nb.storage.artifacts import ArtifactStoreAdapter
from dipeo_nb.storage.cloud import S3Adapter, blob_store

url, folder, size_mb = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])


def memory(field):  # MB
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def content():
    block = os.urandom(1_000_000)
    for n in range(size_mb):
        yield n.to_bytes(4, "big") + block[4:]


async def stream():
    for piece in content():
        yield piece


async def main():
    blobs = blob_store(url)
    store = ArtifactStoreAdapter(blobs)
    await store.initialize()
    async with store.pulled(await store.push(Artifact("small", "1", b"x"))):
        pass
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far: the server's libraries are loaded now
    before = memory("VmRSS")

    ref = await store.push(Artifact("from-stream", "1", stream()))
    print("push stream", memory("VmHWM") - before)
    path = await store.pull(ref, folder / "out")
    print("pull", memory("VmHWM") - before)
    assert path.stat().st_size == ref.size == size_mb * 1_000_000
    with path.open("rb") as file:
        await blobs.put("from-file", file, create_only=True)
    print("put file", memory("VmHWM") - before)
    path.unlink()
    with await blobs.get("from-file") as file:
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    print("get", memory("VmHWM") - before)
    assert digest.hexdigest() == ref.checksum
    for key in [key async for key in blobs.list()]:
        await blobs.delete(key)
    await store.cleanup()


asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "s3"])
def test_300_mb_in_little_memory(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    """Pushing, pulling, putting and getting 300 MB never takes 100 MB more than a process that did a small push before."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip(f"{NOT_HERE} the peak of memory is read from Linux's /proc")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    if kind == "local":
        url = str(tmp_path / "blobs")
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        url = f"s3://{server.plain}/memory?endpoint_url={server.url}"
        environment |= {"AWS_ACCESS_KEY_ID": server.access_key_id, "AWS_SECRET_ACCESS_KEY": server.secret_access_key}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, str(tmp_path), str(SIZE_MB)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    growth = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in told.stdout.splitlines()}
    print(growth)
    assert set(growth) == {"push stream", "pull", "put file", "get"}
    assert max(growth.values()) < LIMIT_MB, growth
