"""Dead letters: shown, replayed to the handler that failed alone, purged; left where a handler no longer exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from serving import add, data, number, running

from cachebus.consumer import Consumer
from cachebus.deadletters import DeadLetters
from cachebus.effects import Broadcast, Effects, Retry
from cachebus.handlers import on
from cachebus.link import Link

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


async def test_a_replayed_dead_letter_is_handled_by_its_handler_alone(link: Link, until: Until) -> None:
    """Once the cause is mended, replay runs that handler once more and the letter is gone."""
    broken = True

    @on("numbers", Number, retries=0, name="sick")
    def sick(event: Number) -> Effects:
        if broken:
            raise RuntimeError("broken")
        return [Broadcast("numbers", "sick", -event.n)]

    letters = DeadLetters(link)
    await add(link, "numbers", number(1), number(2))
    consumer = Consumer(link, [echo, sick])
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
    assert await data(link) == [1, 2, -2]
    assert await letters.list() == [first]
    assert await letters.purge() == 1
    assert await letters.count() == 0


async def test_a_handler_that_no_longer_exists_leaves_a_dead_letter(link: Link, until: Until) -> None:
    """A retry that names a handler of an older deploy is not lost and does not stop the shard."""

    @on("numbers", Number, backoff="1ms", name="removed")
    def removed(event: Number) -> None:
        raise Retry("1ms")

    await add(link, "numbers", number(1))
    before = Consumer(link, [removed], worker="before")
    async with running(before):
        await until(lambda: before.stats.events == 1)
        await before.drain()
    after = Consumer(link, [echo], worker="after")
    async with running(after):
        (letter,) = await until(lambda: DeadLetters(link).list())
    assert (letter.kind, letter.handler) == ("lost handler", "removed")
