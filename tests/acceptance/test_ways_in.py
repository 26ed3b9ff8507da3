"""What works on a bare local server works as platforms give it: with a password, in database 1, over TLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachebus import Cache, CacheSettings
from cachebus.bus.publisher import Bus
from cachebus.testing.server import PrivateServer
from tests.support.waiting import caught_up
from tests.support.ways_in import WAYS, url_for
from tests.support.worker_program import WorkerProcess, ask, asynchronously

COMMANDS = 5
"""Each ends by closing its connections, which hung in every second run with a password or a database."""


@pytest.fixture(params=WAYS)
def url(request: pytest.FixtureRequest, redis: PrivateServer, tmp_path: Path) -> Iterator[str]:
    """Each way into the server."""
    with url_for(request.param, redis, tmp_path) as found:
        yield found


@pytest.fixture
def environment(environment: dict[str, str], url: str) -> dict[str, str]:
    """The shop's environment, with that URL."""
    return {**environment, "REDIS_URL": url}


async def test_two_processes_share_values_and_invalidations(url: str) -> None:
    """One load for both, and nothing old is read after an invalidation."""
    settings = CacheSettings(url=url)
    async with Cache(settings=settings) as here, Cache(settings=settings) as there:
        loads = 0

        async def load(n: int) -> int:
            nonlocal loads
            loads += 1
            return loads

        mine, theirs = (cache.view("value:{n}", ttl="1m")(load) for cache in (here, there))
        assert [await mine(1), await theirs(1)] == [1, 1]
        clock = await mine.invalidate(1)
        assert await theirs(1, fresh_after=clock) == 2
        await caught_up(there, clock)
        assert [await mine(1), await theirs(1)] == [2, 2]


async def test_a_worker_handles_an_event_and_stops(url: str, environment: dict[str, str]) -> None:
    """From `publish()` to the broadcast; SIGTERM ends it with 0."""
    async with Cache(settings=CacheSettings(url=url)) as cache:
        heard: list[dict[str, object]] = []
        await cache.client.subscriptions.subscribe("ws:user:7", lambda _, message: heard.append(json.loads(message)))
        with WorkerProcess(environment) as worker:
            worker.said("worker started")
            await Bus(cache.client).publish("orders", {"customer": 7, "number": 1})
            await asynchronously(lambda: bool(heard))
            assert worker.stop() == 0
    assert heard[0]["data"] == {"number": 1}


def test_commands_end(environment: dict[str, str]) -> None:
    """`publish` and `invalidate` connect, do it, close and exit; with a wrong URL they say so, and end as well."""
    for number in range(COMMANDS):
        assert ask(environment, "publish", "orders", json.dumps({"customer": 7, "number": number}))[0] == 0
        assert ask(environment, "invalidate", "--tag", "customer:7", "--yes")[0] == 0


def test_wrong_credentials_are_named(environment: dict[str, str]) -> None:
    """A password that is refused ends a command with what the server says, not with a wait."""
    scheme, _, place = environment["REDIS_URL"].partition("://")
    wrong = f"{scheme}://app:wrong@{place.rpartition('@')[2]}"
    code, said = ask({**environment, "REDIS_URL": wrong}, "publish", "orders", "{}", "--force")
    assert code in {1, 2}
    assert "WRONGPASS" in said
