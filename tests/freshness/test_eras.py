"""What a restart, a failover or a flush may have lost is never taken for valid; what lost nothing stays warm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cachebus import Cache, CacheSettings, Client, View
from cachebus.redis import keyspace
from cachebus.redis.embedded.embedded import EmbeddedServer
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.support.waiting import caught_up, until


class Truth:
    """The database: a number for each key, and how often it was read."""

    def __init__(self) -> None:
        self.values = {1: 1, 2: 1, 3: 1}
        self.loads = 0

    def view(self, cache: Cache) -> View[[int], int]:
        """Return a view of it."""

        @cache.view("era:{n}", ttl="1h", tags=["eras"])
        async def number(n: int) -> int:
            self.loads += 1
            return self.values[n]

        return number


@pytest.fixture
def truth() -> Truth:
    """One database."""
    return Truth()


class Site:
    """A server, a copy of an earlier moment of it, and a network whose end can be moved to that copy."""

    def __init__(self, server: PrivateServer, replica: PrivateServer, proxy: FaultProxy) -> None:
        self.server, self.replica, self.proxy = server, replica, proxy
        self.copy: dict[bytes, tuple[int, bytes]] = {}

    async def remember(self) -> None:
        """Keep this moment: as a file that is written now and then, and as a replica that lags from now on."""
        self.server.ask("SET", "marker", "1", "PX", 60_000)
        await until(lambda: self.replica.ask("EXISTS", "marker"), "replication")
        self.replica.ask("REPLICAOF", "NO", "ONE")
        for key in self.server.ask("KEYS", "*"):
            self.copy[key] = (max(0, self.server.ask("PTTL", key)), self.server.ask("DUMP", key))

    def flush(self) -> None:
        """Somebody empties the server."""
        self.server.ask("FLUSHALL")

    def restore(self) -> None:
        """The server ends, and comes back with what was remembered."""
        self.server.ask("FLUSHALL")
        for key, (left_ms, data) in self.copy.items():
            self.server.ask("RESTORE", key, left_ms, data)
        self.server.restart()

    def fail_over(self) -> None:
        """The replica takes the primary's place."""
        self.server.pause()
        self.proxy.move(self.replica.port)
        self.proxy.cut()


@pytest.fixture
def replica() -> Iterator[PrivateServer]:
    """A second server."""
    with PrivateServer.start("appendonly no") as running:
        yield running


@pytest.fixture
async def site(own_server: PrivateServer, replica: PrivateServer) -> AsyncIterator[Site]:
    """A primary with one replica."""
    own_server.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    replica.ask("REPLICAOF", own_server.host, own_server.port)
    async with FaultProxy(own_server.port) as proxy:
        yield Site(own_server, replica, proxy)
        own_server.resume()


Fault = Callable[[Site], None]
FAULTS: dict[str, Fault] = {"flush": Site.flush, "restore": Site.restore, "failover": Site.fail_over}
ALIVE = ("everybody", "a reader", "nobody")


async def read_through(site: Site, truth: Truth, fault: str, alive: str, *, trust: bool = False) -> list[int]:
    """Invalidate what a copy does not know of, let the *fault* happen, and return what is read from then on."""
    async with AsyncExitStack() as stack:

        async def opened() -> Cache:
            settings = CacheSettings(url=site.proxy.url, trust_restarts=trust, report=False, max_staleness_ms=0)
            return await stack.enter_async_context(Cache(settings=settings))

        writer, reader = await opened(), await opened()
        views = {cache: truth.view(cache) for cache in (writer, reader)}
        assert [await view(n) for view in views.values() for n in (1, 3)] == [1] * 4
        await site.remember()
        truth.values[1] = truth.values[3] = 2
        await caught_up(reader, await writer.invalidate(keys=["era:1", "era:3"]))
        for cache in {"everybody": (), "a reader": (writer,), "nobody": (writer, reader)}[alive]:
            await cache.close()
            del views[cache]
        was = {cache: era(cache) for cache in views}
        FAULTS[fault](site)
        if not views:
            cache = await opened()
            views[cache] = truth.view(cache)
        seen: list[int] = []

        async def settled() -> bool:
            seen.extend([await view(1) for view in views.values()])
            return all(
                cache.stats().journal_lag_ms is not None and (trust or era(cache) != was.get(cache)) for cache in views
            )

        await until(settled, "everyone in the new era")
        for _ in range(20):
            seen.extend([await view(1) for view in views.values()])
            await asyncio.sleep(0.005)
        return [*seen, *[await view(3) for view in views.values()]]


def era(cache: Cache) -> str:
    """Return the era a process is in."""
    assert cache.reader is not None
    return cache.reader.freshness.era


@pytest.mark.parametrize("alive", ALIVE)
@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_lost_is_never_taken_for_valid(site: Site, truth: Truth, fault: str, alive: str) -> None:
    """Nobody vouches for a server: whoever is left or comes, the cache is cold and shows nothing old."""
    seen = await read_through(site, truth, fault, alive)
    assert set(seen) == {2}


async def test_a_ledger_put_back_while_the_server_runs_begins_a_new_era(
    own_server: PrivateServer, truth: Truth
) -> None:
    """`RESTORE` of both: run and era are as before, but whoever followed the journal knows that it was further."""
    settings = CacheSettings(url=own_server.url, report=False)
    async with Cache(settings=settings) as cache:
        view, was = truth.view(cache), era(cache)
        await cache.invalidate(tags=["something"])  # the journal is there
        assert await view(1) == 1
        copy = {key: own_server.ask("DUMP", key) for key in own_server.ask("KEYS", "*")}
        truth.values[1] = 2
        await caught_up(cache, await cache.invalidate(keys=["era:1"]))
        own_server.ask("FLUSHALL")
        for key, data in copy.items():
            own_server.ask("RESTORE", key, 0, data)
        await until(lambda: era(cache) != was, "a new era")
        async with Cache(settings=settings) as newcomer:
            assert [await view(1), await truth.view(newcomer)(1)] == [2, 2]


async def test_the_same_harness_shows_what_trust_in_a_lagging_copy_costs(site: Site, truth: Truth) -> None:
    """It is able to fail: where the operator's word is wrong, the old value is served."""
    assert 1 in await read_through(site, truth, "restore", "nobody", trust=True)


async def test_a_cold_cache_loads_each_key_once(own_server: PrivateServer, truth: Truth) -> None:
    """After a restart twenty processes' worth of readers cause one load a key, not twenty."""
    async with AsyncExitStack() as stack:
        caches = [
            await stack.enter_async_context(Cache(settings=CacheSettings(url=own_server.url, report=False)))
            for _ in range(5)
        ]
        views = [truth.view(cache) for cache in caches]
        assert [await view(n) for view in views for n in (1, 2)] == [1] * 10
        was, loads = {cache: era(cache) for cache in caches}, truth.loads
        own_server.restart()
        await until(lambda: all(cache.stats().up and era(cache) != was[cache] for cache in caches), "the new era")
        await asyncio.gather(*[view(n) for view in views for n in (1, 2) for _ in range(4)])
        assert (loads, truth.loads) == (2, 4)


async def test_applications_that_restart_find_the_cache_warm(own_server: PrivateServer, truth: Truth) -> None:
    """All of them end, the server lives: nothing was lost, nothing is loaded."""
    for _ in range(3):
        async with Cache(own_server.url) as cache:
            assert await truth.view(cache)(1) == 1
    assert truth.loads == 1


async def test_an_operator_may_vouch_for_a_server(own_server: PrivateServer, truth: Truth) -> None:
    """`CACHE_TRUST_RESTARTS`: a server that keeps every write stays warm over a restart, for old and new processes."""
    settings = CacheSettings(url=own_server.url, trust_restarts=True)
    async with Cache(settings=settings) as old:
        view = truth.view(old)
        assert await view(1) == 1
        own_server.restart()
        await until(lambda: not old.stats().up or old.client.store.connects > 1, "the loss")  # type: ignore[attr-defined]
        await until(lambda: old.stats().up and old.stats().journal_lag_ms is not None, "the return")
        assert await view(1) == 1
        async with Cache(settings=settings) as new:
            assert await truth.view(new)(1) == 1
    assert truth.loads == 1


async def test_the_embedded_server_keeps_the_cache_warm(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last user leaves, it stops; the next one starts it, with everything it held."""
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        async with Cache(settings=CacheSettings()) as cache:
            assert await truth.view(cache)(1) == 1
    assert truth.loads == 1


async def test_whoever_uses_the_embedded_server_by_its_url_is_in_the_same_era(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cachebus dev` passes its URL on: who was given it and who found it do not end each other's era."""
    monkeypatch.chdir(tmp_path)
    with EmbeddedServer.start() as server:
        async with Cache(server.url) as told:
            assert await truth.view(told)(1) == 1
            for _ in range(2):
                for settings in (CacheSettings(), CacheSettings(url=server.url)):
                    async with Cache(settings=settings) as newcomer:
                        assert await truth.view(newcomer)(1) == 1
                        assert era(newcomer) == era(told)
    async with Cache(settings=CacheSettings()) as later:  # it has been stopped, and started
        assert await truth.view(later)(1) == 1
    assert truth.loads == 1


async def test_without_a_run_id_an_unbroken_connection_is_the_proof(
    own_server: PrivateServer, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INFO refused: a newcomer asks those who are connected; with nobody to answer it begins a new era."""
    own_server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info")
    url = own_server.url.replace("redis://", "redis://app:secret@")
    async with Cache(url) as first:
        assert await truth.view(first)(1) == 1
        await until(lambda: own_server.ask("PUBSUB", "NUMSUB", first.names.bus("proof"))[1] == 1, "a listener")
        async with Cache(url) as second:
            assert await truth.view(second)(1) == 1
            assert era(second) == era(first)
    assert truth.loads == 1
    async with Client(url) as silent:
        await silent.subscriptions.subscribe(silent.names.bus("proof"), lambda *_: None)
        async with Cache(url) as third:
            assert await truth.view(third)(1) == 1
    assert truth.loads == 2
    async with Cache(url) as fourth:
        assert await truth.view(fourth)(1) == 1
    assert truth.loads == 3


async def test_who_may_ask_for_the_run_and_who_may_not_share_one_era(own_server: PrivateServer, truth: Truth) -> None:
    """INFO refused to some: they need proof, give it to the others, and the cache is warm for everybody."""
    own_server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info")
    refused = own_server.url.replace("redis://", "redis://app:secret@")
    async with Cache(own_server.url) as first, Cache(refused) as second:
        views = {cache: truth.view(cache) for cache in (first, second)}

        async def agree() -> bool:
            [await view(2) for view in views.values()]
            listening = own_server.ask("PUBSUB", "NUMSUB", first.names.bus("proof"))[1] == 2
            return listening and era(first) == era(second)

        await until(agree, "one era, in which both vouch")
        shared = era(first)
        for url in (refused, own_server.url, refused, own_server.url):
            async with Cache(url) as newcomer:
                assert era(newcomer) == shared
    assert own_server.ask("ZSCORE", first.names.ledger, f"@era:{shared}")


async def test_whoever_enters_an_era_by_its_journal_gives_proof_of_it(own_server: PrivateServer, truth: Truth) -> None:
    """Else each process that came to it would begin another one, and several would never agree again."""
    own_server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info")
    url = own_server.url.replace("redis://", "redis://app:secret@")
    async with Cache(url) as first:
        before = era(first)
        own_server.ask("DEL", first.names.ledger, first.names.journal)
        await until(lambda: era(first) != before, "another era, which the journal's connection finds")

        assert first._running is not None
        assert first._running.ledger is not None
        proof = first._running.ledger._proof
        await until(lambda: proof._era == era(first), "a connection that was opened in that era, to answer on")
        was = era(first)
        async with Cache(url) as newcomer:
            assert era(newcomer) == was


async def test_code_that_writes_another_form_shares_nothing(
    own_server: PrivateServer, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rolling deploy: neither version serves what the other stored, nor reads its ledger or journal."""
    async with Cache(own_server.url) as new, AsyncExitStack() as stack:
        with monkeypatch.context() as before:
            before.setattr(keyspace, "FORMAT", "1")
            old = await stack.enter_async_context(Cache(own_server.url))
            assert await truth.view(old)(1) == 1
        names = {name for name in own_server.ask("KEYS", "*") if own_server.ask("TYPE", name) == b"string"}
        assert len(names) == 1
        truth.values[1] = 2
        assert await truth.view(new)(1) == 2
        assert names < {name for name in own_server.ask("KEYS", "*") if own_server.ask("TYPE", name) == b"string"}
        assert era(new) != era(old)
        assert old.names.journal != new.names.journal


async def test_own_invalidations_are_repeated_in_another_era(own_server: PrivateServer, truth: Truth) -> None:
    """What a deposed primary acknowledged holds in its successor, too, from the moment its writer arrives."""
    with PrivateServer.start("appendonly no") as successor:
        async with FaultProxy(own_server.port) as proxy, Cache(proxy.url) as writer, Cache(successor.url) as elsewhere:
            mine, theirs = truth.view(writer), truth.view(elsewhere)
            assert [await mine(1), await theirs(1)] == [1, 1]
            truth.values[1] = 2
            await writer.invalidate(keys=["era:1"])
            assert await theirs(1) == 1  # it follows another primary, which nobody has told
            proxy.move(successor.port)
            proxy.cut()

            async def told() -> bool:
                return await theirs(1) == 2

            await until(told, "the repeated invalidation")
            assert await mine(1) == 2
