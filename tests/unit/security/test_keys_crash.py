"""`kill -9` in the middle of writing the file of keys: old or new, never a mix, and nothing lost that was acknowledged."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import signal
import stat
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dipeo_nb.security.keys import APIKeyService
from dipeo_nb.security.keystore import KeyFile
from tests.support.kills import kills
from tests.support.skips import NOT_HERE
from tests.support.wire_openai import run

KILLS = kills(20)
LONGEST_S = 0.01
"""Seconds a writer lives at most after its first acknowledgement."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "forkserver" not in multiprocessing.get_all_start_methods(), reason=f"{NOT_HERE} killing needs POSIX signals"
    ),
]


def content(number: int) -> str:
    """A key that shows whether it is whole and which it is."""
    return f"{number:08d}" * 1000


def number_of(key: str) -> int:
    number = int(key[:8])
    assert key == content(number), "a mix of two keys, or a part of one"
    return number


def opened(folder: Path, passphrase: str | None) -> APIKeyService:
    secret = SecretStr(passphrase) if passphrase else None
    return APIKeyService(stores=[KeyFile(folder / "apikeys.json", passphrase=secret)])


def write_keys(folder: Path, passphrase: str | None, first: int, told: Connection) -> None:
    """Set one key again and again, and create others; tell each number when both are acknowledged."""

    async def go() -> None:
        keys = opened(folder, passphrase)
        number = first
        while True:
            await keys.set_api_key("openai", content(number))
            row = await keys.create_api_key(f"n{number}", "github", content(number))
            told.send((number, row["id"]))
            number += 1

    asyncio.run(go())


def killed(folder: Path, passphrase: str | None, first: int, moment: random.Random) -> list[tuple[int, str]]:
    """Start a writer, kill it at a random moment after its first acknowledgement; what it had acknowledged."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=write_keys, args=(folder, passphrase, first, there), daemon=True)
    process.start()
    there.close()
    with here:
        told: list[tuple[int, str]] = [here.recv()]
        time.sleep(moment.uniform(0, LONGEST_S))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        try:
            while True:
                told.append(here.recv())
        except EOFError:
            return told


@pytest.mark.parametrize(("passphrase", "kills"), [(None, KILLS), ("correct horse", KILLS // 5)], ids=["plain", "encrypted"])
def test_kill_9_while_writing_keys(tmp_path: Path, passphrase: str | None, kills: int):
    """The file is whole and private, has the last acknowledged key or the one after it, and all that were created."""
    moment = random.Random(6)
    unfinished, number = 0, 0
    file = tmp_path / "apikeys.json"

    async def check(acknowledged: list[tuple[int, str]]) -> int:
        keys = opened(tmp_path, passphrase)
        current = number_of((await keys.get_api_key("openai")).get_secret_value())
        assert current in (acknowledged[-1][0], acknowledged[-1][0] + 1)
        rows: list[dict[str, Any]] = await keys.list_api_keys()
        assert {name for _, name in acknowledged} <= {row["id"] for row in rows}
        for row in rows:
            found = number_of((await keys.get_api_key(row["id"])).get_secret_value())
            assert row["service"] == "openai" or row["label"] == f"n{found}"
        return current

    while kills > 0 or (not unfinished and kills > -60):  # a few more, when none came in the middle
        kills -= 1
        acknowledged = killed(tmp_path, passphrase, number + 1, moment)
        number = run(check(acknowledged))
        drafts = list(tmp_path.glob(".*.tmp"))
        assert len(drafts) <= 1, "a writer removes what a killed one left"
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in [file, *drafts])
        unfinished += bool(drafts) or number > acknowledged[-1][0]
        if len(acknowledged) > 3 or number % 20 == 0:
            file.unlink()  # it only grows
    assert unfinished, "the kills did not come in the middle"
