"""Refresh effects: loaded by some worker, after the invalidation that asked, however workers end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from cachebus import Cache, CacheSettings, Warmed
from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Effects, Refresh
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.engine.refresher import Refresher
from cachebus.bus.handlers import on
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.serving import add, running

Until = Callable[..., Any]


class Trade(msgspec.Struct):
    user_id: int


class Slow:
    """A view whose loads the test lets go."""

    name = "slow:{user_id}"

    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []
        self.go = asyncio.Event()
        self.demanded = 0

    def key(self, user_id: int) -> str:
        return f"slow:{user_id}"

    def encode_arguments(self, user_id: int) -> bytes:
        return b"[%d]" % user_id

    def decode_arguments(self, encoded: bytes) -> tuple[int]:
        (user_id,) = msgspec.json.decode(encoded)
        return (user_id,)

    @contextlib.contextmanager
    def reading(self, *, fresh_after: int) -> Iterator[None]:
        self.demanded = fresh_after
        yield

    async def warm(self, user_id: int) -> Warmed:
        born = self.demanded
        self.started.append((user_id, born))
        await self.go.wait()
        return Warmed(born, loaded=True)


@pytest.fixture
def slow() -> Slow:
    """Return a view whose loads wait."""
    return Slow()


def asks(view: Any) -> Any:
    """Return a handler that refreshes *view*."""

    def ask(event: Trade) -> Effects:
        yield Refresh(view, event.user_id)

    return on("trades", Trade, name="asks")(ask)


async def left(client: Client) -> int:
    """Return how many refreshes are not done with, by both keys that tell."""
    items = await client.store.call("HLEN", client.names.bus("refresh-items"))
    due = await client.store.call("ZCARD", client.names.bus("refreshes"))
    return max(int(items), int(due))


@pytest.fixture
async def cache(server: PrivateServer, client: Client) -> AsyncIterator[Cache]:
    """Return a cache of the test's deployment."""
    settings = CacheSettings(url=server.url, namespace=client.names.namespace)
    async with Cache(settings=settings) as connected:
        yield connected


async def test_a_refresh_effect_makes_the_new_value_readable_at_once(
    client: Client, cache: Cache, until: Until
) -> None:
    """The entry is invalidated with the commit and loaded by a worker; readers then hit."""
    version = 1
    loads: list[int] = []

    @cache.view("portfolio:{user_id}", ttl="1m")
    async def portfolio(user_id: int) -> int:
        loads.append(version)
        return version

    assert await portfolio(7) == 1
    version = 2
    consumer = Consumer(client, [asks(portfolio)], options=ConsumerOptions(loading=cache.loading_only))
    refresher = Refresher(client, cache.views, reading=cache.reading)
    async with running(consumer, refresher):
        await add(client, "trades", b'{"user_id": 7}')
        await until(lambda: refresher.stats.loaded == 1)
        await until(lambda: left_is(client, 0))
    assert await portfolio(7) == 2
    assert loads == [1, 2]


async def left_is(client: Client, count: int) -> bool:
    """Say whether so many refreshes are left."""
    return await left(client) == count


async def test_what_is_not_worth_a_load_is_only_invalidated(client: Client, slow: Slow, until: Until) -> None:
    """`worth=True` asks first, naming view, arguments and clock; asked for without it as well, the entry is loaded."""
    asked: list[tuple[str, bytes, str]] = []

    async def worth(view: str, arguments: bytes, clock: str) -> bool:
        asked.append((view, arguments, clock))
        return arguments == b"[8]"

    @on("trades", Trade, name="asks")
    def ask(event: Trade) -> Effects:
        yield Refresh(slow, event.user_id, worth=True)
        if event.user_id == 9:
            yield Refresh(slow, event.user_id)

    refresher = Refresher(client, {slow.name: slow}, reading=slow.reading, worth=worth)
    slow.go.set()
    async with running(Consumer(client, [ask]), refresher):
        for user in (7, 8, 9):
            await add(client, "trades", b'{"user_id": %d}' % user)
        await until(lambda: refresher.stats.loaded == 2)
        await until(lambda: left_is(client, 0))
    assert sorted(user for user, _ in slow.started) == [8, 9]
    assert refresher.stats.not_worth == 1
    assert [(view, arguments) for view, arguments, _ in asked] == [(slow.name, b"[7]"), (slow.name, b"[8]")]


async def test_equal_refreshes_are_loaded_once(client: Client, slow: Slow, until: Until) -> None:
    """50 events of one user are one load."""
    await add(client, "trades", *[b'{"user_id": 7}'] * 50)
    consumer = Consumer(client, [asks(slow)])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 50)
    refresher = Refresher(client, {slow.name: slow}, reading=slow.reading)
    slow.go.set()
    async with running(refresher):
        await until(lambda: left_is(client, 0))
    assert refresher.stats.loaded == 1


async def test_a_refresh_asked_for_while_one_runs_is_loaded_again(client: Client, slow: Slow, until: Until) -> None:
    """The load under way is older than the second event: its being done does not count for that one."""
    consumer = Consumer(client, [asks(slow)])
    refresher = Refresher(client, {slow.name: slow}, reading=slow.reading)
    async with running(consumer, refresher):
        await add(client, "trades", b'{"user_id": 7}')
        await until(lambda: len(slow.started) == 1)
        await add(client, "trades", b'{"user_id": 7}')
        await until(lambda: consumer.stats.events == 2)
        slow.go.set()
        await until(lambda: left_is(client, 0))
    first, second = slow.started
    assert second[1] > first[1]


async def test_a_failing_loader_is_tried_again_and_then_a_dead_letter(
    client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five attempts; the dead letter has the view, the arguments and the traceback; replay loads it."""
    monkeypatch.setattr("cachebus.bus.engine.refresher.FIRST_BACKOFF_S", 0.001)
    broken = True

    class Failing(Slow):
        async def warm(self, user_id: int) -> Warmed:
            self.started.append((user_id, 0))
            if broken:
                raise ValueError("no database")
            return Warmed(self.demanded, loaded=True)

    view = Failing()
    consumer, letters = Consumer(client, [asks(view)]), DeadLetters(client)
    refresher = Refresher(client, {view.name: view}, reading=view.reading)
    async with running(consumer, refresher):
        await add(client, "trades", b'{"user_id": 7}')
        (letter,) = await until(letters.list)
        assert (letter.kind, letter.handler, letter.payload, letter.key) == ("refresh", view.name, b"[7]", "slow:7")
        assert letter.reason == "ValueError: no database"
        assert "raise ValueError" in letter.detail
        assert len(view.started) == 5
        assert await left(client) == 0
        assert await letters.replay([letter.letter_id]) == 1
        (again,) = await until(letters.list)
        assert (again.letter_id, again.attempts) == (letter.letter_id, 10)
        broken = False
        assert await letters.replay([letter.letter_id]) == 1
        await until(lambda: refresher.stats.loaded == 1)
        await until(lambda: left_is(client, 0))


async def test_an_entry_whose_loads_end_their_processes_is_given_up(client: Client, slow: Slow, until: Until) -> None:
    """Two takers fall silent: the third one makes a dead letter of it and does not load."""
    consumer = Consumer(client, [asks(slow)])
    async with running(consumer):
        await add(client, "trades", b'{"user_id": 7}')
        await until(lambda: left_is(client, 1))
    keys = [*map(client.names.bus, ("refreshes", "refresh-items", "deadletters", "deadletter-ids"))]
    for _ in range(2):  # what a worker does just before its process ends
        taken = await client.store.run("bus/engine/take_refreshes", keys, (4, 1, 2, 100))
        assert taken[2] == b"slow:7"
        await until(lambda: due_is_past(client))
    refresher = Refresher(client, {slow.name: slow}, reading=slow.reading)
    async with running(refresher):
        (letter,) = await until(lambda: DeadLetters(client).list())
    assert (letter.kind, letter.attempts) == ("refresh", 2)
    assert "poison" in letter.reason
    assert slow.started == []
    assert refresher.stats.dead_lettered == 1


async def due_is_past(client: Client) -> bool:
    """Say whether the first refresh is due by the server's clock."""
    _, due = await client.store.call("ZRANGE", client.names.bus("refreshes"), 0, 0, "WITHSCORES")
    seconds, micros = await client.store.call("TIME")
    return int(float(due)) < int(seconds) * 1_000_000 + int(micros)


async def test_what_one_worker_cannot_finish_another_does(client: Client, slow: Slow, until: Until) -> None:
    """A worker that is stopped hands back what it loads, at once, and it does not count as a death."""
    consumer = Consumer(client, [asks(slow)])
    async with running(consumer):
        await add(client, "trades", b'{"user_id": 7}')
        for _ in range(4):
            refresher = Refresher(client, {slow.name: slow}, reading=slow.reading)
            before = len(slow.started)
            async with running(refresher):
                await until(lambda: len(slow.started) > before)  # noqa: B023 - awaited in this round
        slow.go.set()
        last = Refresher(client, {slow.name: slow}, reading=slow.reading)
        async with running(last):
            await until(lambda: left_is(client, 0))
    assert last.stats.loaded == 1
    assert await DeadLetters(client).count() == 0


async def test_drain_finishes_the_loads_under_way(client: Client, slow: Slow, until: Until) -> None:
    """After drain() they are done and nothing more is taken."""
    consumer = Consumer(client, [asks(slow)])
    refresher = Refresher(client, {slow.name: slow}, reading=slow.reading)
    async with running(consumer, refresher):
        await add(client, "trades", b'{"user_id": 7}')
        await until(lambda: slow.started)
        draining = asyncio.create_task(refresher.drain())
        slow.go.set()
        await draining
        assert await left(client) == 0
        await add(client, "trades", b'{"user_id": 8}')
        await until(lambda: left_is(client, 1))
    assert [user_id for user_id, _ in slow.started] == [7]


async def test_a_view_that_exists_nowhere_ends_as_a_dead_letter(
    client: Client, slow: Slow, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh of a view that a deploy removed does not go round for ever."""
    monkeypatch.setattr("cachebus.bus.engine.refresher.FIRST_BACKOFF_S", 0.001)
    consumer = Consumer(client, [asks(slow)])
    async with running(consumer, Refresher(client, {}, reading=slow.reading)):
        await add(client, "trades", b'{"user_id": 7}')
        (letter,) = await until(lambda: DeadLetters(client).list())
    assert "there is no view 'slow:{user_id}'" in letter.reason


@pytest.mark.parametrize("raised", [SystemExit, GeneratorExit, asyncio.CancelledError])
async def test_whatever_a_loader_raises_the_refresh_is_settled(
    client: Client, cache: Cache, until: Until, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It failed, and is tried again: it is not left to the time after which its worker counts as dead."""
    monkeypatch.setattr("cachebus.bus.engine.refresher.FIRST_BACKOFF_S", 0.001)
    loads = 0

    @cache.view("exits:{user_id}", ttl="1m")
    async def exits(user_id: int) -> int:
        nonlocal loads
        loads += 1
        if loads == 1:
            raise raised
        return user_id

    refresher = Refresher(client, cache.views, reading=cache.reading)
    async with running(Consumer(client, [asks(exits)])), running(refresher):
        await add(client, "trades", msgspec.json.encode(Trade(7)))
        await until(lambda: refresher.stats.loaded == 1)
        await until(lambda: left_is(client, 0))
    assert refresher.stats.failed == 1
