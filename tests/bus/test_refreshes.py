"""Refresh effects: loaded by some worker, after the invalidation that asked, however workers end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
from serving import add, running

from cachebus import Cache, CacheSettings, Warmed
from cachebus.consumer import Consumer
from cachebus.deadletters import DeadLetters
from cachebus.effects import Effects, Refresh
from cachebus.handlers import on
from cachebus.link import Link
from cachebus.private_server import PrivateServer
from cachebus.refreshes import Refresher

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


async def left(link: Link) -> int:
    """Return how many refreshes are not done with, by both keys that tell."""
    items = await link.store.call("HLEN", link.names.bus("refresh-items"))
    due = await link.store.call("ZCARD", link.names.bus("refreshes"))
    return max(int(items), int(due))


@pytest.fixture
async def cache(server: PrivateServer, link: Link) -> AsyncIterator[Cache]:
    """Return a cache of the test's deployment."""
    settings = CacheSettings(url=server.url, namespace=link.names.namespace)
    async with Cache(settings=settings) as connected:
        yield connected


async def test_a_refresh_effect_makes_the_new_value_readable_at_once(link: Link, cache: Cache, until: Until) -> None:
    """The entry is invalidated with the commit and loaded by a worker; readers then hit."""
    version = 1
    loads: list[int] = []

    @cache.view("portfolio:{user_id}", ttl="1m")
    async def portfolio(user_id: int) -> int:
        loads.append(version)
        return version

    assert await portfolio(7) == 1
    version = 2
    consumer = Consumer(link, [asks(portfolio)], loading=cache.loading_only)
    refresher = Refresher(link, cache.views, reading=cache.reading)
    async with running(consumer, refresher):
        await add(link, "trades", b'{"user_id": 7}')
        await until(lambda: refresher.stats.loaded == 1)
        await until(lambda: left_is(link, 0))
    assert await portfolio(7) == 2
    assert loads == [1, 2]


async def left_is(link: Link, count: int) -> bool:
    """Say whether so many refreshes are left."""
    return await left(link) == count


async def test_equal_refreshes_are_loaded_once(link: Link, slow: Slow, until: Until) -> None:
    """50 events of one user are one load."""
    await add(link, "trades", *[b'{"user_id": 7}'] * 50)
    consumer = Consumer(link, [asks(slow)])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 50)
    refresher = Refresher(link, {slow.name: slow}, reading=slow.reading)
    slow.go.set()
    async with running(refresher):
        await until(lambda: left_is(link, 0))
    assert refresher.stats.loaded == 1


async def test_a_refresh_asked_for_while_one_runs_is_loaded_again(link: Link, slow: Slow, until: Until) -> None:
    """The load under way is older than the second event: its being done does not count for that one."""
    consumer = Consumer(link, [asks(slow)])
    refresher = Refresher(link, {slow.name: slow}, reading=slow.reading)
    async with running(consumer, refresher):
        await add(link, "trades", b'{"user_id": 7}')
        await until(lambda: len(slow.started) == 1)
        await add(link, "trades", b'{"user_id": 7}')
        await until(lambda: consumer.stats.events == 2)
        slow.go.set()
        await until(lambda: left_is(link, 0))
    first, second = slow.started
    assert second[1] > first[1]


async def test_a_failing_loader_is_tried_again_and_then_a_dead_letter(
    link: Link, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five attempts; the dead letter has the view, the arguments and the traceback; replay loads it."""
    monkeypatch.setattr("cachebus.refreshes.BACKOFF_MS", 1)
    broken = True

    class Failing(Slow):
        async def warm(self, user_id: int) -> Warmed:
            self.started.append((user_id, 0))
            if broken:
                raise ValueError("no database")
            return Warmed(self.demanded, loaded=True)

    view = Failing()
    consumer, letters = Consumer(link, [asks(view)]), DeadLetters(link)
    refresher = Refresher(link, {view.name: view}, reading=view.reading)
    async with running(consumer, refresher):
        await add(link, "trades", b'{"user_id": 7}')
        (letter,) = await until(letters.list)
        assert (letter.kind, letter.handler, letter.payload, letter.key) == ("refresh", view.name, b"[7]", "slow:7")
        assert letter.reason == "ValueError: no database"
        assert "raise ValueError" in letter.detail
        assert len(view.started) == 5
        assert await left(link) == 0
        broken = False
        assert await letters.replay([letter.letter_id]) == 1
        await link.store.call("PUBLISH", link.names.bus("refresh"), "1")
        await until(lambda: refresher.stats.loaded == 1)
        await until(lambda: left_is(link, 0))


async def test_an_entry_whose_loads_end_their_processes_is_given_up(link: Link, slow: Slow, until: Until) -> None:
    """Two takers fall silent: the third one makes a dead letter of it and does not load."""
    consumer = Consumer(link, [asks(slow)])
    async with running(consumer):
        await add(link, "trades", b'{"user_id": 7}')
        await until(lambda: left_is(link, 1))
    keys = [link.names.bus("refreshes"), link.names.bus("refresh-items"), link.names.bus("deadletters")]
    for _ in range(2):  # what a worker does just before its process ends
        taken = await link.store.run("take_refreshes", keys, (4, 1, 2, 100))
        assert taken[2] == b"slow:7"
        await until(lambda: due_is_past(link))
    refresher = Refresher(link, {slow.name: slow}, reading=slow.reading)
    async with running(refresher):
        (letter,) = await until(lambda: DeadLetters(link).list())
    assert (letter.kind, letter.attempts) == ("refresh", 2)
    assert "poison" in letter.reason
    assert slow.started == []
    assert refresher.stats.dead_lettered == 1


async def due_is_past(link: Link) -> bool:
    """Say whether the first refresh is due by the server's clock."""
    _, due = await link.store.call("ZRANGE", link.names.bus("refreshes"), 0, 0, "WITHSCORES")
    seconds, micros = await link.store.call("TIME")
    return int(float(due)) < int(seconds) * 1_000_000 + int(micros)


async def test_what_one_worker_cannot_finish_another_does(link: Link, slow: Slow, until: Until) -> None:
    """A worker that is stopped hands back what it loads, at once, and it does not count as a death."""
    consumer = Consumer(link, [asks(slow)])
    async with running(consumer):
        await add(link, "trades", b'{"user_id": 7}')
        for _ in range(4):
            refresher = Refresher(link, {slow.name: slow}, reading=slow.reading)
            before = len(slow.started)
            async with running(refresher):
                await until(lambda: len(slow.started) > before)  # noqa: B023 - awaited in this round
        slow.go.set()
        last = Refresher(link, {slow.name: slow}, reading=slow.reading)
        async with running(last):
            await until(lambda: left_is(link, 0))
    assert last.stats.loaded == 1
    assert await DeadLetters(link).count() == 0


async def test_drain_finishes_the_loads_under_way(link: Link, slow: Slow, until: Until) -> None:
    """After drain() they are done and nothing more is taken."""
    consumer = Consumer(link, [asks(slow)])
    refresher = Refresher(link, {slow.name: slow}, reading=slow.reading)
    async with running(consumer, refresher):
        await add(link, "trades", b'{"user_id": 7}')
        await until(lambda: slow.started)
        draining = asyncio.create_task(refresher.drain())
        slow.go.set()
        await draining
        assert await left(link) == 0
        await add(link, "trades", b'{"user_id": 8}')
        await until(lambda: left_is(link, 1))
    assert [user_id for user_id, _ in slow.started] == [7]


async def test_a_view_that_exists_nowhere_ends_as_a_dead_letter(
    link: Link, slow: Slow, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh of a view that a deploy removed does not go round for ever."""
    monkeypatch.setattr("cachebus.refreshes.BACKOFF_MS", 1)
    consumer = Consumer(link, [asks(slow)])
    async with running(consumer, Refresher(link, {}, reading=slow.reading)):
        await add(link, "trades", b'{"user_id": 7}')
        (letter,) = await until(lambda: DeadLetters(link).list())
    assert "no view is called 'slow:{user_id}'" in letter.reason
