"""Whatever lies under the names of an entry and of its lease: a read ends, soon, and the next one hits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from cachebus import Cache
from cachebus.cache.tiers.entry import Header, pack
from cachebus.freshness.clock import Born
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.waiting import until

MOST_COMMANDS = 5
SEED = 20261130


def contents(seed: int) -> Iterator[bytes]:
    """Yield bytes that are no entry: random ones of any length, and entries that were cut or changed."""
    draw = random.Random(seed)  # noqa: S311 - a test that can be repeated
    whole = pack(b"\x01", Born(10**15, "0123456789abcdef"), Header(60_000, 0, 1.0, ("t",)), "k")
    yield from (b"", b"C2", b"C2" + b"\xff" * 16, b"C2" + b"z" * 48, b"C2" + b":" * 34, b"\xff" * 5000, whole[:51])
    yield b"C2" + b"9" * 48 + b"\x00\x01"
    for _ in range(40):
        yield draw.randbytes(draw.choice((1, 17, 18, 19, 34, 36, 40, 200, 70_000)))
        yield b"C2" + draw.randbytes(draw.randrange(60))
        at = draw.randrange(2, 50)
        yield whole[:at] + draw.randbytes(draw.randrange(1, 20)) + whole[at + draw.randrange(1, 20) :]


def scripts(server: PrivateServer) -> int:
    """Return how many scripts clients have run: reads, fills and whatever gives a lease back."""
    lines = server.ask("INFO", "commandstats").decode().splitlines()
    ran = [line for line in lines if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:"))]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in ran)


async def answered(server: PrivateServer, cache: Cache, n: int, most: int = MOST_COMMANDS) -> int:
    """Read, and return how many commands that took; fail as soon as they are too many."""
    before = scripts(server)
    reading = asyncio.ensure_future(cache.views["bytes:{n}"](n))
    try:
        await until(lambda: reading.done() or scripts(server) - before > most, f"the end of read {n}")
        assert reading.done(), f"read {n} has asked {scripts(server) - before} times and is not done"
        assert await reading == n
    finally:
        reading.cancel()
    return scripts(server) - before


@pytest.fixture
async def processes(connect: Connect) -> list[Cache]:
    """Two processes with one view, whose scripts the server knows."""
    caches = [await connect(report=False) for _ in range(2)]
    for cache in caches:

        @cache.view("bytes:{n}", ttl="1h")
        async def value(n: int) -> int:
            return n

        await value(-1)
    await until(lambda: all(cache.stats().journal_lag_ms is not None for cache in caches), "the journal")
    return caches


async def test_any_bytes_under_an_entry_are_a_miss_and_are_overwritten(
    server: PrivateServer, client: Client, processes: list[Cache]
) -> None:
    """Random, cut and changed: loaded once with few commands, and found in Redis by the next process."""
    one, two = processes
    for n, junk in enumerate(contents(SEED)):
        call = one.views["bytes:{n}"]._call((n,), {})
        await client.entries.call("SET", call.entry, junk, "PX", 600_000, key=call.entry)
        assert await answered(server, one, n) <= MOST_COMMANDS
        loads = two.stats().totals.loads
        assert await answered(server, two, n) <= MOST_COMMANDS
        assert two.stats().totals.loads == loads, f"{junk[:40]!r} was not overwritten"


@pytest.mark.parametrize("kind", ["hash", "list", "set"])
async def test_another_type_under_an_entry_is_overwritten(
    server: PrivateServer, client: Client, processes: list[Cache], kind: str
) -> None:
    """A name taken by something that is not even a string."""
    one, two = processes
    call = one.views["bytes:{n}"]._call((1,), {})
    command = {"hash": ("HSET", "f", "v"), "list": ("RPUSH", "v"), "set": ("SADD", "v")}[kind]
    await client.entries.call(command[0], call.entry, *command[1:], key=call.entry)
    assert await answered(server, one, 1) <= MOST_COMMANDS
    loads = two.stats().totals.loads
    assert await answered(server, two, 1) <= MOST_COMMANDS
    assert two.stats().totals.loads == loads


LEASES = {
    "text": [("SET", "KEY", "\xff")],
    "a list": [("RPUSH", "KEY", "x")],
    "a hash of something else": [("HSET", "KEY", "field", "x")],
    "a lease that never ends": [("HSET", "KEY", "token", "nobody")],
    "a lease of a day": [("HSET", "KEY", "token", "nobody"), ("PEXPIRE", "KEY", "86400000")],
}


@pytest.mark.parametrize("kind", LEASES)
async def test_anything_under_a_lease_delays_a_read_by_a_lease_at_most(
    server: PrivateServer, client: Client, processes: list[Cache], kind: str
) -> None:
    """Another type is replaced, a lease without an end gets one; other keys of the same tick do not notice."""
    one, _ = processes
    call = one.views["bytes:{n}"]._call((1,), {})
    for command in LEASES[kind]:
        lease = client.names.lease(call.entry)
        await client.entries.call(*[lease if word == "KEY" else word for word in command], key=lease)
    before = one.stats().totals.fill_errors
    beside = asyncio.ensure_future(one.views["bytes:{n}"](2))
    assert await answered(server, one, 1, most=2 * MOST_COMMANDS)  # two reads
    assert await beside == 2
    assert one.stats().totals.fill_errors == before
    assert await client.entries.call("EXISTS", call.entry, key=call.entry) == 1
