"""Dead letters: shown, replayed to the handler that failed alone, purged; left where a handler no longer exists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from cachebus.bus.dead_letters import DeadLetters, told
from cachebus.bus.effects import Broadcast, Effects, Retry
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.handlers import on
from cachebus.bus.letters import Letter
from cachebus.redis.client import Client
from tests.support.serving import add, data, number, running

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


async def test_a_replayed_dead_letter_is_handled_by_its_handler_alone(client: Client, until: Until) -> None:
    """Once the cause is mended, replay runs that handler once more and the letter is gone."""
    broken = True

    @on("numbers", Number, retries=0, name="sick")
    def sick(event: Number) -> Effects:
        if broken:
            raise RuntimeError("broken")
        return [Broadcast("numbers", "sick", -event.n)]

    letters = DeadLetters(client)
    await add(client, "numbers", number(1), number(2))
    consumer = Consumer(client, [echo, sick])
    async with running(consumer):
        await until(lambda: consumer.stats.handlers.dead_lettered == 2)
        first, second = await until(letters.list)
        assert await letters.list(after=first.letter_id) == [second]
        assert await letters.show(second.letter_id) == second
        broken = False
        assert await letters.replay([second.letter_id, "1-1"]) == 1
        await until(lambda: consumer.stats.retries == 1)
        await until(lambda: consumer.stats.handlers.handled == 3)
        await until(lambda: consumer.stats.commits >= 2)
    assert await data(client) == [1, 2, -2]
    assert await letters.list() == [first]
    assert await letters.purge() == 1
    assert await letters.count() == 0


async def test_a_letter_that_fails_again_keeps_its_id_and_its_attempts(
    client: Client, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is put back; newest last. It is found, put back and deleted by the id it had first.

    A consumer that waits for events and nothing else hears of it.
    """
    monkeypatch.setattr("cachebus.bus.engine.consumer.BLOCK_MS", 60_000)

    @on("numbers", Number, retries=0, name="sick")
    def sick(event: Number) -> Effects:
        raise RuntimeError(f"broken {len(tried)}")

    tried: list[int] = []
    letters = DeadLetters(client)
    await add(client, "numbers", number(1), number(2))
    async with running(Consumer(client, [sick])):
        first, second = await until(lambda: has_letters(letters, 2))
        for attempts in (2, 3):
            tried.append(attempts)
            assert await letters.replay([first.letter_id]) == 1
            await until(lambda: has_letters(letters, 2))
            again = await letters.show(first.letter_id)
            assert again is not None
            assert (again.letter_id, again.attempts, again.position) == (first.letter_id, attempts, first.position)
            assert await letters.list() == [second, again]
            assert await letters.list(after=second.place) == [again]
            assert await letters.outcome(first) == ("failed", f"RuntimeError: broken {len(tried)}")
    assert await letters.purge([first.letter_id]) == 1
    assert await letters.list() == [second]
    assert await client.store.call("EXISTS", client.names.bus("deadletter-ids")) == 0


async def test_a_letter_that_is_put_back_while_no_worker_runs_is_not_being_tried(client: Client, until: Until) -> None:
    """Who put it back is told so, and that it is being tried once a worker has begun."""
    gate = asyncio.Event()

    @on("numbers", Number, retries=0, name="slow")
    async def slow(event: Number) -> Effects:
        if event.n < 0:
            raise RuntimeError("broken")
        await gate.wait()
        return []

    letters = DeadLetters(client)
    await add(client, "numbers", number(-1))
    async with running(Consumer(client, [slow])):
        (letter,) = await until(lambda: has_letters(letters, 1))
    assert await letters.replay_changed(letter.letter_id, b'{"n": 1}')
    outcome = await letters.outcome(letter)
    assert told([outcome]) == ": 1 waiting: no worker runs"
    consumer = Consumer(client, [slow])
    async with running(consumer):
        await until(lambda: consumer.stats.retries == 1)
        assert told([await letters.outcome(letter), outcome]) == ": 1 still being tried, 1 waiting: no worker runs"
        gate.set()
        await until(lambda: consumer.stats.handlers.handled == 1)


async def test_ids_of_letters_that_were_trimmed_are_not_kept(client: Client, until: Until) -> None:
    """What the stream has forgotten stays nowhere else."""
    letters = DeadLetters(client)

    @on("numbers", Number, retries=0, name="sick")
    def sick(event: Number) -> Effects:
        raise RuntimeError("broken")

    await add(client, "numbers", number(1))
    async with running(Consumer(client, [sick])):
        (kept,) = await until(lambda: has_letters(letters, 1))
        assert [await letters.newest(0), await letters.list(0)] == [[], []]  # who asks for none gets none
        ids = client.names.bus("deadletter-ids")
        await client.store.call("HSET", ids, "1-1", "2-1", "1-2", "2-2")
        assert await letters.replay([kept.letter_id]) == 1
        await until(lambda: has_letters(letters, 1))
        assert await client.store.call("HKEYS", ids) == [kept.letter_id.encode()]


async def has_letters(letters: DeadLetters, count: int) -> Sequence[Letter]:
    """Return the letters once there are *count*, none before."""
    found = await letters.list()
    return found if len(found) == count else ()


async def test_a_handler_that_no_longer_exists_leaves_a_dead_letter(client: Client, until: Until) -> None:
    """A retry that names a handler of an older deploy is not lost and does not stop the shard."""

    @on("numbers", Number, backoff="1ms", name="removed")
    def removed(event: Number) -> None:
        raise Retry("1ms")

    await add(client, "numbers", number(1))
    before = Consumer(client, [removed], worker="before")
    async with running(before):
        await until(lambda: before.stats.events == 1)
        await before.drain()
    after = Consumer(client, [echo], worker="after")
    async with running(after):
        (letter,) = await until(lambda: DeadLetters(client).list())
    assert (letter.kind, letter.handler) == ("lost handler", "removed")
