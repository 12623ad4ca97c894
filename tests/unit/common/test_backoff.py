"""Delays between attempts: how long they are, and what a server asks for in their place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dipeo_nb.common.retry import Backoff, retry_after

NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)


def test_delays_grow_up_to_the_maximum() -> None:
    """An outage of hours overflows nothing."""
    backoff = Backoff(0.05, 2.0)
    assert [backoff.delay(n) for n in (1, 2, 3, 6, 7, 100_000)] == [0.05, 0.1, 0.2, 1.6, 2.0, 2.0]


def test_jitter_stays_within_its_share() -> None:
    found = {Backoff(1.0, 8.0, jitter=0.25).delay(2) for _ in range(100)}
    assert len(found) > 1
    assert all(1.5 <= delay <= 2.5 for delay in found)


@pytest.mark.parametrize(("asked", "delay"), [(0.0, 0.0), (3.0, 3.0), (60.0, 8.0)])
def test_the_server_goes_before(asked: float, delay: float) -> None:
    assert Backoff(1.0, 8.0).delay(5, asked) == delay


def test_what_the_server_asks_for_is_waited_in_full() -> None:
    """Jitter only makes it longer."""
    assert all(3.0 <= Backoff(1.0, 8.0, jitter=0.5).delay(1, 3.0) <= 4.5 for _ in range(100))


VALUES = [
    (None, None), ("", None), ("soon", None), ("-3", 0.0), ("1.5", 1.5), ("7", 7.0), (" 7 ", 7.0),
    ("Sat, 28 Nov 2026 12:00:30 GMT", 30.0), ("Sat, 28 Nov 2026 12:00:30 -0000", 30.0),
    ("Sat, 28 Nov 2026 13:00:30 +0100", 30.0), ("Sat, 28 Nov 2026 11:00:00 GMT", 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("value", "seconds"), VALUES)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """A number or a date; anything else asks for nothing."""
    assert retry_after(value, NOW) == seconds


def test_the_table_is_whole() -> None:
    assert len(VALUES) == 11
