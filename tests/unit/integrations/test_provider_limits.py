"""Rate limits and pages of providers: pure functions of the time and of answers, and the pages of a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import IntegrationError, ValidationError
from dipeo_nb.integrations.attempts import Failure, Next, after
from dipeo_nb.integrations.limits import Usage, closed, reserve, wait_asked
from dipeo_nb.integrations.manifest import Limit, Retry
from dipeo_nb.integrations.manifest_provider import Call
from dipeo_nb.integrations.paging import next_link
from tests.support.provider_server import Asked, FakeClock, Reply, provider, serving
from tests.support.wire_openai import run


def times(limit: Limit, arrivals: list[float]) -> list[float]:
    usage, found = Usage(), []
    for now in arrivals:
        at, usage = reserve(limit, usage, now)
        assert at >= now
        found.append(round(at, 6))
    return found


BUCKET: dict[str, Any] = {"capacity": 2, "per_second": 10.0}
WINDOW: dict[str, Any] = {"capacity": 2, "window": 1.0}


@pytest.mark.parametrize(
    ("limit", "arrivals", "expected"),
    [
        (Limit(algorithm="none"), [5.0] * 4, [5.0] * 4),
        (Limit(algorithm="token_bucket", **BUCKET), [0.0] * 5, [0.0, 0.0, 0.1, 0.2, 0.3]),
        (Limit(algorithm="token_bucket", **BUCKET), [7.0, 7.0, 7.05, 9.0, 9.0, 9.0], [7.0, 7.0, 7.1, 9.0, 9.0, 9.1]),
        (Limit(algorithm="leaky_bucket", **BUCKET), [0.0] * 4, [0.0, 0.0, 0.1, 0.2]),
        (Limit(algorithm="leaky_bucket", capacity=1, per_second=0.5), [0.0] * 3, [0.0, 2.0, 4.0]),
        (Limit(algorithm="sliding_window", **WINDOW), [0.0, 0.6, 0.7, 0.8, 3.0], [0.0, 0.6, 1.0, 1.6, 3.0]),
        (Limit(algorithm="fixed_window", **WINDOW), [0.5, 0.6, 0.7, 0.8, 0.9], [0.5, 0.6, 1.0, 1.0, 2.0]),
        (Limit(algorithm="fixed_window", **WINDOW), [0.0, 5.2, 5.3, 5.4], [0.0, 5.2, 5.3, 6.0]),
    ],
)
def test_when_calls_may_go(limit: Limit, arrivals: list[float], expected: list[float]):
    assert times(limit, arrivals) == expected


@pytest.mark.parametrize("algorithm", ["token_bucket", "leaky_bucket", "sliding_window", "fixed_window"])
def test_no_window_has_more_calls_than_allowed(algorithm: Any):
    """Whatever the arrivals: never more than the capacity and what runs out in a window; order is kept."""
    limit = Limit(algorithm=algorithm, capacity=3, per_second=3.0, window=1.0)
    found = times(limit, [i * 0.07 for i in range(60)])
    assert found == sorted(found)
    most = {"sliding_window": 3, "fixed_window": 6}.get(algorithm, 6)
    assert max(sum(1 for other in found if at <= other < at + 1 - 1e-9) for at in found) <= most


def test_a_server_closes_its_limit():
    usage = closed(Usage(), 12.0)
    assert reserve(None, usage, 10.0)[0] == 12.0
    assert reserve(Limit(), closed(usage, 11.0), 10.0)[0] == 12.0
    assert reserve(Limit(), usage, 13.0)[0] == 13.0


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {"retry-after": "7"}, 7.0),
        (403, {"retry-after": "7"}, 7.0),
        (200, {"retry-after": "7"}, None),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1800000009"}, 9.0),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000000"}, 0.0),
        (200, {"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        (200, {"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1800000009"}, None),
        (429, {"retry-after": "soon"}, None),
        (429, {}, None),
    ],
)
def test_what_a_server_asks_for(status: int, headers: dict[str, str], wait: float | None):
    assert wait_asked(status, headers, 1_800_000_000.0) == wait


@pytest.mark.parametrize(
    ("effect", "failure", "expected"),
    [
        ("once", Failure(sent=False), Next.AGAIN),
        ("once", Failure(sent=True), Next.UNKNOWN),
        ("once", Failure(True, 500), Next.UNKNOWN),
        ("once", Failure(True, 408), Next.UNKNOWN),
        ("once", Failure(True, 400), Next.FAIL),
        ("once", Failure(True, 429, refused=True), Next.AGAIN),
        ("read", Failure(sent=True), Next.AGAIN),
        ("keyed", Failure(sent=True), Next.AGAIN),
        ("idempotent", Failure(True, 503), Next.AGAIN),
        ("idempotent", Failure(True, 501), Next.FAIL),
    ],
)
def test_what_follows_a_failure(effect: Any, failure: Failure, expected: Next):
    assert after(failure, effect, 1, Retry().on, 3) is expected
    if expected is Next.AGAIN:
        assert after(failure, effect, 4, Retry().on, 3) is Next.FAIL


# Pages.

LISTS = """
name: demo
base_url: {url}
operations:
  offset: {{path: /offset, paging: {{kind: offset_limit, parameter: start, first: 0, items: /items, total: /total, size: count, default_size: 100}}}}
  number: {{path: /number, paging: {{kind: page_number, parameter: page, items: /items, size: per_page, default_size: 100}}}}
  cursor: {{path: /cursor, paging: {{kind: cursor, parameter: cursor, cursor: /next, more: /more, items: /items, size: limit, default_size: 100}}}}
  token: {{path: /token, paging: {{kind: next_token, parameter: token, cursor: /next, items: /items}}}}
  link: {{path: /link, paging: {{kind: link_header, size: per_page, default_size: 100}}}}
  body: {{path: /body, method: POST, effect: read, body: {{}}, paging: {{kind: cursor, place: body, parameter: cursor, cursor: /next, items: /items}}}}
  repeats: {{path: /repeats, paging: {{kind: cursor, parameter: cursor, cursor: /next, items: /items}}}}
  endless: {{path: /endless, paging: {{kind: cursor, parameter: cursor, cursor: /next, items: /items, max_pages: 5}}}}
  elsewhere: {{path: /elsewhere, paging: {{kind: link_header}}}}
  no_list: {{path: /no_list, paging: {{kind: next_token, parameter: t, cursor: /next, items: /items}}}}
"""
ROWS = [{"n": n} for n in range(250)]


def lists(asked: Asked) -> Reply:
    kind = asked.path[1:]
    get = {name: values[0] for name, values in asked.query.items()}
    match kind:
        case "offset":
            at = int(get.get("start", 0))
            return Reply({"items": ROWS[at : at + int(get["count"])], "total": 250})
        case "number":
            at = (int(get["page"]) - 1) * int(get["per_page"])
            return Reply({"items": ROWS[at : at + int(get["per_page"])]})
        case "link":
            at = int(get.get("from", 0))
            more = {
                "link": f'<http://{asked.headers["host"]}/link?per_page=100&from={at + 100}>; rel="next", <http://x/>; rel="last"'
            }
            return Reply(ROWS[at : at + 100], 200, more if at + 100 < 250 else {})
        case "elsewhere":
            return Reply([1], 200, {"link": '<https://evil.example/steal>; rel="next"'})
        case "repeats":
            return Reply({"items": [1], "next": "same"})
        case "endless":
            return Reply({"items": [1], "next": str(int(get.get("cursor", 0)) + 1)})
        case "no_list":
            return Reply({"items": {"not": "a list"}})
        case _:
            given = asked.json if kind == "body" else get
            at = int(given.get("cursor") or given.get("token") or 0)
            last = at + 100 >= 250
            return Reply({"items": ROWS[at : at + 100], "next": None if last else str(at + 100), "more": not last})


@pytest.mark.parametrize("kind", ["offset", "number", "cursor", "token", "link", "body"])
def test_250_rows_in_three_pages(tmp_path: Path, kind: str):
    said: list[str] = []
    with serving(lists) as server:
        one = provider(LISTS.format(url=server.url), tmp_path)
        assert run(one.execute(kind, Call(all=True, progress=said.append))) == ROWS
        assert len(server.asked) == 3
        assert said == [f"demo.{kind}: page {n}, {min(n * 100, 250)} items" for n in (1, 2, 3)]
        assert run(one.execute(kind, Call())) == ROWS[:100]
        assert len(server.asked) == 4
        assert run(one.execute(kind, Call(limit=120))) == ROWS[:120]
        assert len(server.asked) == 6


def test_pages_one_after_the_other(tmp_path: Path):
    async def sizes(one: Any) -> list[int]:
        return [len(items) async for items in one.pages("cursor", Call(all=True))]

    with serving(lists) as server:
        assert run(sizes(provider(LISTS.format(url=server.url), tmp_path))) == [100, 100, 50]


@pytest.mark.parametrize(
    ("kind", "says", "requests"),
    [
        ("repeats", "the same page again and again", 2),
        ("endless", "more than 5 pages", 5),
        ("elsewhere", "none of its servers", 1),
        ("no_list", "without a list of items", 1),
    ],
)
def test_pages_that_do_not_end(tmp_path: Path, kind: str, says: str, requests: int):
    with serving(lists) as server:
        with pytest.raises(IntegrationError, match=says):
            run(provider(LISTS.format(url=server.url), tmp_path).execute(kind, Call(all=True)))
        assert len(server.asked) == requests


def test_limit_is_a_number_of_items(tmp_path: Path):
    with serving(lists) as server, pytest.raises(ValidationError, match="at least 1"):
        run(provider(LISTS.format(url=server.url), tmp_path).execute("cursor", Call(limit=0)))


def test_calls_wait_for_their_limit(tmp_path: Path):
    """On the clock: a bucket of 2 with 10 a second, shared by the operations of a provider."""
    clock = FakeClock()
    text = LISTS + "limit: {{algorithm: token_bucket, capacity: 2, per_second: 10}}\n"
    with serving(lists) as server:
        one = provider(text.format(url=server.url), tmp_path, clock=clock)
        run(one.execute("cursor", Call(all=True)))
        run(one.execute("token", Call()))
    assert clock.slept == [0.1, 0.1]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('<https://a/?x=1,2>; rel="next"', "https://a/?x=1,2"),
        ('<https://a/>; rel="prev", <https://b/>; title="a, b"; rel=next', "https://b/"),
        ('<https://a/>; rel="prev next"', "https://a/"),
        ("", None),
        ("nonsense", None),
        ('<https://a/>; rel="last"', None),
    ],
)
def test_the_next_link(header: str, expected: str | None):
    assert next_link(header) == expected
