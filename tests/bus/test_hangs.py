"""A handler that never returns, or would end its process: what becomes of the process, the event, and the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.watchdog import EXIT_CODE
from cachebus.bus.handlers import on
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.serving import Workers, add, data, number, running
from tests.support.waiting import until

LIMIT = "1s"


def event(n: int, die: str) -> bytes:
    """Return the payload of an event that hangs the process that handles it."""
    return b'{"n":%d,"die":"%b"}' % (n, die.encode())


@pytest.mark.parametrize(("channel", "die"), [("numbers", "hang"), ("numbers", "hang retry"), ("slow", "hang async")])
async def test_two_workers_hang_the_event_is_a_dead_letter_and_the_stream_resumes(
    server: PrivateServer, client: Client, channel: str, die: str
) -> None:
    """Each says where it hangs and ends with 70; the third does not run the event, and handles all the others."""
    await add(client, "numbers", number(1))
    await add(client, channel, event(2, die))
    await add(client, "numbers", *map(number, range(3, 53)))
    async with Workers(client, server.url) as workers:
        for _ in range(2):
            code, wrote = await workers.hung(await workers.start(LIMIT=LIMIT))
            assert code == EXIT_CODE
            assert "time.sleep(3600)" in wrote, "the stack says where it hangs"
            assert "bus_worker.py" in wrote
            assert "the event loop is blocked" in wrote.splitlines()[-1]
        await workers.start(LIMIT=LIMIT)
        await until(lambda: has(client, 51), "the 51 other events")
        (letter,) = await until(lambda: DeadLetters(client).list(), "the dead letter")
    assert sorted(await data(client)) == [1, *range(3, 53)]
    assert (letter.kind, letter.payload) == ("poison", event(2, die))
    assert "2 processes crashed or hung" in letter.reason


async def has(client: Client, count: int) -> bool:
    """Say whether the feed has so many records."""
    return bool(await client.store.call("XLEN", client.names.feed) >= count)


async def test_one_that_swallows_its_cancellation_is_left_behind(server: PrivateServer, client: Client) -> None:
    """No process ends for it: a timeout like any other, retried, then a dead letter; others are handled meanwhile."""
    async with Workers(client, server.url) as workers:
        await workers.start(LIMIT="60s")
        await add(client, "slow", event(1, "deaf"), number(2))
        await until(lambda: has(client, 1), "the event behind it")
        (letter,) = await until(lambda: DeadLetters(client).list(), "the dead letter")
    assert await data(client) == [2]
    assert letter.kind == "failed"
    assert "swallows CancelledError" in letter.reason


@pytest.mark.parametrize("die", ["exit", "base"])
@pytest.mark.parametrize("channel", ["numbers", "slow"])
async def test_one_that_raises_no_exception_ends_itself_and_not_the_worker(
    server: PrivateServer, client: Client, channel: str, die: str
) -> None:
    """`sys.exit`, or a BaseException of a library: a failed attempt like any other, plain or asynchronous."""
    async with Workers(client, server.url) as workers:
        await workers.start(LIMIT="60s")
        await add(client, channel, event(1, die), number(2))
        await until(lambda: has(client, 1), "the event behind it")
        (letter,) = await until(lambda: DeadLetters(client).list(), "the dead letter")
    assert await data(client) == [2]
    assert letter.kind == "failed"
    assert {"exit": "SystemExit: 1", "base": "Unusual: unusual"}[die] in letter.reason


async def test_a_handler_of_lists_may_swallow_it_too(client: Client) -> None:
    """Its events go to the retries one by one; the stream resumes."""
    ends = asyncio.Event()
    calls: list[int] = []

    @on("numbers", dict[str, int], batch=10, timeout="50ms", backoff="1ms")
    async def stubborn(events: list[dict[str, int]]) -> Effects:
        calls.append(len(events))
        while len(calls) == 1 and not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue
        return [Broadcast("numbers", "n", event["n"]) for event in events]

    await add(client, "numbers", number(1), number(2))
    async with running(Consumer(client, [stubborn])):
        await until(lambda: has(client, 2), "both events")
        ends.set()
    assert calls == [2, 1, 1]


async def test_a_process_that_was_paused_is_not_taken_for_hung(
    server: PrivateServer, client: Client, until: Callable[..., Any]
) -> None:
    """SIGSTOP for longer than the limit: nobody had a turn, neither the loop nor who watches it."""
    async with Workers(client, server.url) as workers:
        name = await workers.start(LIMIT=LIMIT)
        await until(workers.active)
        workers.pause(name)
        await asyncio.sleep(1.5)
        workers.resume(name)
        await add(client, "numbers", number(1))
        await until(lambda: has(client, 1))
        assert workers.deaths == 0
