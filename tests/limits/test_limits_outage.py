"""What the limiter decides while the server is away, hangs, has forgotten its scripts, or takes no writes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from cachebus.errors import Unavailable
from cachebus.limits import server_backend
from cachebus.limits.limiter import RateLimiter
from cachebus.limits.local_counters import LocalCounters
from cachebus.limits.rules import Limit
from cachebus.redis import subscriptions
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until

MINUTE = 60_000_000


@pytest.fixture
def own() -> Iterator[PrivateServer]:
    """A server that this test may kill."""
    with PrivateServer.start("appendonly no") as private:
        yield private


@pytest.fixture
async def away(own: PrivateServer) -> AsyncIterator[Client]:
    """A client whose server has just been killed."""
    async with Client(own.url) as client:
        own.kill()
        await until(lambda: not client.store.up)
        yield client


async def test_each_rule_decides_for_itself_while_the_server_is_away(away: Client) -> None:
    """Open lets everything pass, closed nothing, local counts here; nothing raises, and who decided is said."""
    limiter = RateLimiter(away)
    for _ in range(5):
        passed = await limiter.check("k", limit=2, window=60, on_outage="open")
        assert (passed.allowed, passed.reset_after, passed.source) == (True, 0.0, "open")
        refused = await limiter.check("k", limit=2, window=60, on_outage="closed")
        assert (*refused, refused.retry_after, refused.source) == (False, 0, 1.0, "closed")
    counted = [await limiter.check("k", limit=2, window=60, on_outage="local") for _ in range(3)]
    assert [tuple(result) for result in counted] == [(True, 1), (True, 0), (False, 0)]
    assert all(result.source == "local" for result in counted)
    assert limiter.counts["default", "open allowed"] == 5
    assert limiter.counts["default", "closed refused"] == 5
    assert limiter.counts["default", "local refused"] == 1


async def test_without_a_word_a_rule_counts_locally(away: Client) -> None:
    """The default neither opens a login to guessing nor closes an application."""
    limiter = RateLimiter(away)
    assert [bool(await limiter.check("login:1", limit=2, window=60)) for _ in range(3)] == [True, True, False]


async def test_several_limits_are_all_or_nothing_in_an_outage_too(away: Client) -> None:
    """A rule that is closed refuses the request, and the local counters beside it are not charged."""
    limiter = RateLimiter(away)
    local = Limit(5, 60, on_outage="local")
    for _ in range(3):
        refused = await limiter.check_all("k", {"a": local, "b": Limit(5, 60, on_outage="closed")})
        assert not refused
        assert refused.source == "closed"
    assert (await limiter.check_all("k", {"a": local})).remaining == 4


async def test_a_peek_counts_nothing_in_an_outage_either(away: Client) -> None:
    """Looking is free, whoever decides."""
    limiter = RateLimiter(away)
    for _ in range(3):
        assert (await limiter.peek("k", limit=2, window=60)).remaining == 2


async def test_each_instance_admits_its_part(away: Client) -> None:
    """Four processes that cannot ask admit the limit between them; a limit smaller than that still admits one each."""
    limiter = RateLimiter(away, instances=4)
    assert [bool(await limiter.check("k", limit=8, window=60)) for _ in range(3)] == [True, True, False]
    assert [bool(await limiter.check("few", limit=2, window=60)) for _ in range(2)] == [True, False]
    assert await limiter.check("one", limit=8, window=60, cost=5)
    assert (await limiter.check("one", limit=8, window=60, cost=9)).retry_after is None


async def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(
    own: PrivateServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand decisions in an outage are one line; when the server is back it decides again, on its own counters."""
    async with Client(own.url) as client:
        limiter = RateLimiter(client, patience="5s")

        async def server_decides() -> bool:
            return (await limiter.check("k", limit=10, window=60)).source == "server"

        with caplog.at_level(logging.INFO, logger="cachebus.limits.limiter"):
            own.kill()
            await until(lambda: not client.store.up)
            for _ in range(1000):
                await limiter.check("k", limit=10, window=60)
            own.restart()
            await until(server_decides)
            await limiter.check("k", limit=10, window=60)
            assert not limiter._part.made._local  # type: ignore[union-attr] # the counters of the outage
        ours = [record.getMessage() for record in caplog.records if record.name == "cachebus.limits.limiter"]
        assert [line.partition(" (")[0] for line in ours] == [
            "rate limits: server unavailable",
            "rate limits: server available again",
        ]


async def test_a_server_that_hangs_is_an_outage_too(own: PrivateServer) -> None:
    """When the server accepts and never answers, the rule decides; each request counts once, late, never twice."""
    async with Client(own.url) as client:
        limiter = RateLimiter(client)
        await RateLimiter(client, patience="5s").check("k", limit=10, window=60)
        own.pause()
        try:
            assert (await limiter.check("k", limit=10, window=60, on_outage="closed")).source == "closed"
            assert (await limiter.check("k", limit=10, window=60, on_outage="open")).source == "open"
        finally:
            own.resume()
        await client.store.ready()
        assert (await RateLimiter(client, patience="5s").peek("k", limit=10, window=60)).remaining == 7


async def test_a_server_out_of_memory_is_an_outage_and_not_an_error(own: PrivateServer) -> None:
    """A write that the server refuses (OOM) is decided by the rule; nobody gets an exception."""
    async with Client(own.url) as client:
        limiter = RateLimiter(client, patience="5s")
        own.ask("CONFIG", "SET", "maxmemory", "1")
        assert (await limiter.check("k", limit=1, window=60, on_outage="open")).source == "open"
        own.ask("CONFIG", "SET", "maxmemory", "0")
        assert (await limiter.check("k", limit=1, window=60, on_outage="open")).source == "server"


async def test_a_server_that_forgot_its_scripts_is_told_again(server: PrivateServer, client: Client) -> None:
    """SCRIPT FLUSH costs nobody a decision."""
    limiter = RateLimiter(client, patience="5s")
    await limiter.check("k", limit=2, window=60)
    server.ask("SCRIPT", "FLUSH")
    assert tuple(await limiter.check("k", limit=2, window=60)) == (True, 0)


async def test_a_reset_that_cannot_be_made_says_so(away: Client) -> None:
    """Unlocking somebody is not pretended: away, it raises."""
    with pytest.raises(Unavailable):
        await RateLimiter(away).reset("k")


async def test_where_resets_cannot_be_heard_no_refusal_is_remembered(
    own: PrivateServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every request is asked for. One line says so; half a minute later listening is tried again, and then holds."""
    now = 1000.0
    monkeypatch.setattr(server_backend, "now_s", lambda: now)
    own.ask("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "resetchannels")
    async with Client(f"redis://app:pw@127.0.0.1:{own.port}") as client:
        limiter = RateLimiter(client, patience="5s")

        async def deciders(times: int) -> list[str]:
            return [(await limiter.check("k", limit=1, window=300)).source for _ in range(times)]

        with monkeypatch.context() as impatient:
            impatient.setattr(subscriptions, "CONFIRM_S", 0.05)  # no confirmation comes, however long it waits
            assert await deciders(4) == ["server"] * 4
        own.ask("ACL", "SETUSER", "app", "allchannels")
        now += 29
        assert await deciders(2) == ["server"] * 2
        assert caplog.text.count("resets cannot be heard") == 1
        now += 2
        assert await deciders(3) == ["server", "memory", "memory"]


async def test_a_refusal_does_not_wait_for_a_subscription_that_is_never_confirmed(
    own: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is refused is told, though nobody says whether resets can be heard."""
    async with Client(own.url) as client:
        limiter = RateLimiter(client, patience="50ms")
        monkeypatch.setattr(client.subscriptions, "subscribe", lambda *_, **__: asyncio.Event().wait())
        for allowed in (True, False, False):
            async with asyncio.timeout(20):
                assert bool(await limiter.check("k", limit=1, window=300)) is allowed


@pytest.mark.parametrize("limit", [10, 100])
def test_local_counts_never_exceed_the_limit_in_any_window(limit: int) -> None:
    """A sliding window counted here admits no more than the limit in any window, and what it asks to wait is enough."""
    draw = random.Random(3)  # noqa: S311 - a seed, not a secret
    rule = Limit(limit, 60)
    counters, now, admitted = LocalCounters(), 1_000_012_345_678, []
    waited = False
    for _ in range(5000):
        free, retry, _ = counters.look("k", rule, limit, 1, now)
        assert (retry == 0) == (free > 0)
        assert retry == 0 or not waited
        waited = retry > 0 and draw.random() < 0.5
        if retry == 0:
            counters.take("k", rule, limit, 1, now)
            admitted.append(now)
            now += draw.choice([0, 1, draw.randint(0, 2 * MINUTE // limit)])
        else:
            now += retry if waited else draw.randint(0, retry)
    assert len(admitted) > 1000
    assert all(later - earlier >= MINUTE for earlier, later in zip(admitted, admitted[limit:], strict=False))
