"""What is worth warming: measured from reads, by all processes together, in bounded memory."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from cachebus import Cache, CacheSettings, Client
from cachebus.cache.upkeep.popularity import EPOCH_US, HALF_LIFE_US, MOST_COUNTED, Popularity, popular, recently_active
from cachebus.cache.upkeep.warming import LEAST_READS, Warm
from cachebus.cache.view import SAMPLE_HITS, SAMPLE_READS
from cachebus.testing.server import PrivateServer
from tests.support.clocked import Clock

VIEW = "portfolio:{user_id}"
HOUR_US = 3_600_000_000


def encode(*arguments: object) -> bytes:
    """Encode arguments as a view does, near enough."""
    return repr(list(arguments)).encode()


def reads(table: Popularity, user: int, count: int = 1, view: str = VIEW) -> None:
    """Note reads of one user's portfolio."""
    table.note(view, partial(encode, user), count)


async def test_of_the_hundred_most_read_ninety_five_are_found(client: Client) -> None:
    """Four processes, sampling as reads from memory are, count eight million that follow Zipf's law."""
    calls = 50_000
    shares = 1 / np.arange(1, calls + 1)
    trace = np.random.default_rng(6).choice(calls, 8_000_000, p=shares / shares.sum())
    exact = set(np.argsort(np.bincount(trace, minlength=calls))[-100:].tolist())
    tables = [Popularity(client) for _ in range(4)]
    sampled = trace[::SAMPLE_HITS].tolist()
    for number, call in enumerate(sampled):
        tables[number % 4].note(VIEW, partial(encode, call), SAMPLE_HITS)
        if number % (len(sampled) // 10) == 0:
            await tables[number % 4].flush()
    for table in tables:
        await table.flush()
    found = await popular(client, VIEW, 100)
    assert len(exact & {int(encoded[1:-1]) for encoded in found}) >= 95


async def test_the_most_read_come_first(client: Client) -> None:
    """Across processes and flushes, views apart."""
    one, two = Popularity(client), Popularity(client)
    for user, count in ((1, 5), (2, 30), (3, 20)):
        reads(one, user, count)
    await one.flush()
    reads(two, 3, 20)
    reads(two, 9, 1_000, view="another:{n}")
    await two.flush()
    assert await popular(client, VIEW, 2) == [b"[3]", b"[2]"]
    assert await popular(client, "another:{n}", 10) == [b"[9]"]
    assert await popular(client, "never:{read}", 10) == []


async def test_what_was_popular_fades(client: Client) -> None:
    """A hundred reads two half-lives ago weigh less than thirty now, and more than twenty."""
    clock = Clock(1_800_000_000_000_000)
    clock.set_for(client)
    table = Popularity(client)
    reads(table, 1, 100)
    await table.flush()
    clock.now_us += 2 * HALF_LIFE_US
    reads(table, 2, 30)
    reads(table, 3, 20)
    await table.flush()
    assert await popular(client, VIEW, 3) == [b"[2]", b"[1]", b"[3]"]


async def test_what_was_read_long_ago_is_not_worth_a_load(client: Client) -> None:
    """One noted read of eight hours ago is below the floor, many reads of then are not; nor is one of just now."""
    clock = Clock(1_800_000_000_000_000)
    clock.set_for(client)
    table = Popularity(client)
    reads(table, 1, SAMPLE_HITS)
    reads(table, 2, 100_000)
    await table.flush()
    clock.now_us += 8 * HOUR_US
    assert await popular(client, VIEW, 10, LEAST_READS) == [b"[2]"]
    reads(table, 3, SAMPLE_READS)
    await table.flush()
    assert await popular(client, VIEW, 10, LEAST_READS) == [b"[3]", b"[2]"]
    assert await popular(client, VIEW, 10) == [b"[3]", b"[2]", b"[1]"]


async def test_the_floor_is_the_default_of_a_warm_up(client: Client) -> None:
    """`Warm.popular` leaves out what was read once a day ago; `least=0` has it."""
    clock = Clock(1_800_000_000_000_000)
    clock.set_for(client)
    cache = Cache.memory()

    @cache.view(VIEW, ttl="1m")
    async def portfolio(user_id: int) -> int:
        return user_id

    table = Popularity(client)
    table.note(VIEW, partial(portfolio.encode_arguments, 7), SAMPLE_READS)
    await table.flush()
    warm = Warm(client)
    assert await warm.popular(portfolio) == [(7,)]
    clock.now_us += 24 * HOUR_US
    assert await warm.popular(portfolio) == []
    assert await warm.popular(portfolio, least=0) == [(7,)]


async def test_the_scale_begins_anew_and_nobody_notices(client: Client) -> None:
    """Counts from before and after the end of an epoch are compared as if it had not ended."""
    clock = Clock(1_800_000_000_000_000 // EPOCH_US * EPOCH_US - HALF_LIFE_US // 2)
    clock.set_for(client)
    table = Popularity(client)
    reads(table, 1, 100)
    await table.flush()
    clock.now_us += HALF_LIFE_US
    reads(table, 2, 60)
    reads(table, 3, 40)
    await table.flush()
    assert await popular(client, VIEW, 3) == [b"[2]", b"[1]", b"[3]"]
    assert await recently_active(client, VIEW, "1h", 3) == [b"[2]", b"[1]", b"[3]"]


async def test_recently_active_are_those_read_within_the_time(client: Client) -> None:
    """The most read of them first; whoever was read much, but longer ago, is not among them."""
    clock = Clock(1_800_000_000_000_000)
    clock.set_for(client)
    table = Popularity(client)
    reads(table, 1, 10_000)
    await table.flush()
    clock.now_us += HOUR_US + 1
    reads(table, 2, 5)
    reads(table, 3, 7)
    await table.flush()
    assert await recently_active(client, VIEW, "1h", 10) == [b"[3]", b"[2]"]
    assert await recently_active(client, VIEW, "1h", 1) == [b"[3]"]
    assert await recently_active(client, VIEW, "2h", 10) == [b"[1]", b"[3]", b"[2]"]
    assert await recently_active(client, "never:{read}", "1h", 10) == []


async def test_a_table_is_bounded_and_keeps_what_is_read_most(client: Client) -> None:
    """Far more calls than it holds pass by; those read often stay in it."""
    table = Popularity(client)
    for user in range(4 * MOST_COUNTED):
        reads(table, user)
        reads(table, -(user % 10) - 1)
    assert len(table._views[VIEW]) <= MOST_COUNTED
    await table.flush()
    found = await popular(client, VIEW, 10)
    assert {int(encoded[1:-1]) for encoded in found} == set(range(-10, 0))


async def test_what_redis_keeps_is_bounded_and_ends(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least read calls make room, and both sets expire when nobody reads any more."""
    monkeypatch.setattr("cachebus.cache.upkeep.popularity.MOST_KEPT", 100)
    table = Popularity(client)
    for user in range(1_000):
        reads(table, user, 1 + user % 500)
    await table.flush()
    assert len(await popular(client, VIEW, 1_000)) == 100
    assert len(await recently_active(client, VIEW, "1h", 1_000)) == 100
    keys = await client.store.call("KEYS", f"{{{client.names.namespace}}}:*")
    kept = [key for key in keys if b"popular" in key or b"read-at" in key]
    assert len(kept) == 2
    for key in kept:
        assert await client.store.call("PTTL", key) > 0


async def test_reads_are_counted_without_being_encoded(client: Client) -> None:
    """Arguments are encoded at the flush, once for a call, however often it was read."""
    encoded = []

    def encode_and_note(*arguments: object) -> bytes:
        encoded.append(arguments)
        return encode(*arguments)

    table = Popularity(client)
    for _ in range(50):
        table.note(VIEW, partial(encode_and_note, 7), 1)
    assert encoded == []
    await table.flush()
    assert encoded == [(7,)]
    await table.flush()
    assert encoded == [(7,)]


async def test_calls_that_cannot_be_counted_or_encoded_are_passed_over(client: Client) -> None:
    """A list among the arguments, or a value without a JSON form, hides nobody else's reads."""

    def refuse(*_arguments: object) -> bytes:
        raise TypeError

    table = Popularity(client)
    table.note(VIEW, partial(encode, [1, 2]), 1)
    table.note(VIEW, partial(refuse, 8), 1)
    reads(table, 7)
    await table.flush()
    assert await popular(client, VIEW, 10) == [b"[7]"]


async def test_an_outage_costs_samples_and_nothing_else(server: PrivateServer) -> None:
    """Where Redis is away, a flush raises nothing and keeps nothing."""
    async with Client("redis://127.0.0.1:1") as away:
        table = Popularity(away)
        reads(table, 1)
        await table.flush()
        assert table._views == {}


async def test_reads_of_an_application_say_what_to_warm(server: PrivateServer, namespace: str) -> None:
    """Nothing is configured: what views were called with, through memory or not, comes back as arguments."""
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache:

        @cache.view("holdings:{user_id}:{basis}", ttl="1h")
        async def holdings(user_id: int, basis: str) -> int:
            return user_id

        for _ in range(64):
            await holdings(8, basis="average")
        for _ in range(256):
            await holdings(7, "fifo")
        assert cache._running is not None
        assert cache._running.popularity is not None
        await cache._running.popularity.flush()
        warm = Warm(cache.client)
        assert await warm.popular(holdings) == [(7, "fifo"), (8, "average")]
        assert await warm.recently_active(holdings, "1h", 1) == [(7, "fifo")]


async def test_arguments_of_another_version_of_a_view_are_passed_over(server: PrivateServer, namespace: str) -> None:
    """During a deploy, what an older process noted does not stop the warming."""
    async with Cache(settings=CacheSettings(url=server.url, namespace=namespace)) as cache:

        @cache.view("holdings:{user_id}:{basis}", ttl="1h")
        async def holdings(user_id: int, basis: str) -> int:
            return user_id

        table = Popularity(cache.client)
        table.note(holdings.name, partial(lambda *_: b"[7]", 7), 2)
        table.note(holdings.name, partial(lambda *_: b'["seven", "fifo"]', 8), 2)
        table.note(holdings.name, partial(holdings.encode_arguments, 9, "fifo"), 2)
        await table.flush()
        assert await Warm(cache.client).popular(holdings) == [(9, "fifo")]
