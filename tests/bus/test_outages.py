"""The server restarts, refuses, forgets, hangs: the bus waits, goes on, and says what may be lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from cachebus.bus.backlog import backlog
from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.engine.refresher import Refresher
from cachebus.bus.engine.shard_lease import Shard
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.errors import CommandRefused, ServerError
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.serving import add, data, number, running

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


async def has(client: Client, numbers: list[int]) -> bool:
    """Say whether the feed holds exactly these numbers, once the server can be asked."""
    return client.store.up and await data(client) == numbers


def parts(client: Client) -> tuple[Consumer, Bridge, Refresher]:
    """Return everything a worker runs."""
    return Consumer(client, [echo], lease="2s"), Bridge(client, [echo]), Refresher(client, {}, reading=dict)  # type: ignore[arg-type] # it loads nothing here


# -- the server comes and goes --------------------------------------------------------------------------------------


async def test_a_restart_with_its_data_loses_and_doubles_nothing(until: Until) -> None:
    """Killed and restarted (append-only, every write kept) in the middle of 600 events: each once, in order."""
    with PrivateServer.start("appendfsync always") as server:
        async with Client(server.url) as client:
            consumer, bridge, refresher = parts(client)
            async with running(consumer, bridge, refresher) as tasks:
                bus = Bus(client)
                for n in range(600):
                    if n in (200, 400):
                        await asyncio.to_thread(server.restart)
                    await bus.publish("numbers", {"n": n}, timeout="20s")
                await until(lambda: has(client, list(range(600))))
                assert not any(task.done() for task in tasks)
        assert server.ask("XLEN", "{cachebus}:deadletters") == 0


async def test_a_server_restarted_empty_is_served_anew(own_server: PrivateServer, until: Until) -> None:
    """Everything is gone: the worker goes on with what comes then."""
    async with Client(own_server.url) as client:
        consumer, bridge, refresher = parts(client)
        async with running(consumer, bridge, refresher) as tasks:
            await add(client, "numbers", number(1))
            await until(lambda: has(client, [1]))
            await asyncio.to_thread(own_server.restart, empty=True)
            await Bus(client).publish("numbers", {"n": 2}, timeout="20s")
            await until(lambda: has(client, [2]))
            await until(lambda: bridge.listening)
            await client.store.call("PUBLISH", "numbers", number(3))
            await until(lambda: has(client, [2, 3]))
            assert not any(task.done() for task in tasks)


async def test_a_flush_is_survived(own_server: PrivateServer, until: Until) -> None:
    """FLUSHALL under a running worker: it takes the shard again, and handles what comes then, once."""
    async with Client(own_server.url) as client:
        consumer, bridge, refresher = parts(client)
        async with running(consumer, bridge, refresher):
            await add(client, "numbers", number(1))
            await until(lambda: has(client, [1]))
            await client.store.call("FLUSHALL")
            await Bus(client).publish("numbers", {"n": 2})
            await until(lambda: has(client, [2]))
            await client.store.call("PUBLISH", "numbers", number(3))
            await until(lambda: has(client, [2, 3]))


async def test_connections_killed_by_the_server_are_made_again(own_server: PrivateServer, until: Until) -> None:
    """CLIENT KILL of everything, three times, under a stream of events: each once, in order."""
    async with Client(own_server.url) as client:
        consumer, bridge, refresher = parts(client)
        async with running(consumer, bridge, refresher) as tasks:
            bus = Bus(client)
            for n in range(30):
                if n % 10 == 5:
                    own_server.ask("CLIENT", "KILL", "TYPE", "normal")
                    own_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                await bus.publish("numbers", {"n": n}, timeout="20s")
            await until(lambda: has(client, list(range(30))))
            assert not any(task.done() for task in tasks)


async def test_a_server_that_hangs_is_waited_for(own_server: PrivateServer, until: Until) -> None:
    """SIGSTOP for longer than every deadline, sockets open: afterwards each event once, in order."""
    async with Client(own_server.url) as client:
        consumer, bridge, refresher = parts(client)
        async with running(consumer, bridge, refresher) as tasks:
            await add(client, "numbers", number(0))
            await until(lambda: has(client, [0]))
            own_server.pause()
            publishing = asyncio.create_task(Bus(client).publish("numbers", {"n": 1}, timeout="30s"))
            await asyncio.sleep(4.5)  # beyond the reader's two seconds, the probe's four and the lease
            own_server.resume()
            await publishing
            await until(lambda: has(client, [0, 1]))
            await until(lambda: bridge.listening)
            await client.store.call("PUBLISH", "numbers", number(2))
            await until(lambda: has(client, [0, 1, 2]))
            assert not any(task.done() for task in tasks)


# -- the server refuses -----------------------------------------------------------------------------------------------


async def read_only(server: PrivateServer) -> None:
    """Make it a replica of nobody."""
    server.ask("REPLICAOF", "127.0.0.1", "1")


async def writable(server: PrivateServer) -> None:
    """Make it a primary."""
    server.ask("REPLICAOF", "NO", "ONE")


async def out_of_memory(server: PrivateServer) -> None:
    """Leave it no memory."""
    server.ask("CONFIG", "SET", "maxmemory", "1")


async def with_memory(server: PrivateServer) -> None:
    """Give it memory."""
    server.ask("CONFIG", "SET", "maxmemory", "0")


async def forbidden(server: PrivateServer) -> None:
    """Take the right to run scripts away."""
    server.ask("ACL", "SETUSER", "default", "-evalsha", "-eval")


async def allowed(server: PrivateServer) -> None:
    """Give it back."""
    server.ask("ACL", "SETUSER", "default", "+@all")


async def busy(server: PrivateServer) -> None:
    """Let a script run for ever."""
    server.ask("CONFIG", "SET", "busy-reply-threshold", "1")

    def spin() -> None:
        with contextlib.suppress(CommandRefused, OSError):
            server.ask("EVAL", "while true do end", 0)

    threading.Thread(target=spin, daemon=True).start()


async def idle(server: PrivateServer) -> None:
    """End the script."""
    server.ask("SCRIPT", "KILL")


async def forgets_scripts(server: PrivateServer) -> None:
    """Forget every script."""
    server.ask("SCRIPT", "FLUSH")


async def nothing(server: PrivateServer) -> None:
    """Need no mending."""


async def feed_is_taken(server: PrivateServer) -> None:
    """Put something else where the feed belongs."""
    server.ask("RENAME", "{cachebus}:feed", "{cachebus}:kept")
    server.ask("SET", "{cachebus}:feed", "somebody's")


async def feed_is_free(server: PrivateServer) -> None:
    """Put the feed back."""
    server.ask("RENAME", "{cachebus}:kept", "{cachebus}:feed")


async def locked(server: PrivateServer) -> None:
    """Ask for a password that nobody has, and close every connection."""
    server.ask("CONFIG", "SET", "requirepass", "secret")
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(b"AUTH secret\r\nCLIENT KILL TYPE normal\r\nCLIENT KILL TYPE pubsub\r\n")
        while connection.recv(1000).count(b":") == 0:
            pass


async def unlocked(server: PrivateServer) -> None:
    """Let everybody in again."""
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(b'AUTH secret\r\nCONFIG SET requirepass ""\r\n')
        while connection.recv(1000).count(b"+OK") == 0:
            pass


Action = Callable[[PrivateServer], Awaitable[None]]


@pytest.mark.parametrize(
    ("breaks", "mends", "refusal"),
    [
        (read_only, writable, "ReadOnlyServer"),
        (out_of_memory, with_memory, "ServerOutOfMemory"),
        (forbidden, allowed, "AccessDenied"),
        (feed_is_taken, feed_is_free, "WrongType"),
        (busy, idle, ""),
        (locked, unlocked, ""),
        (forgets_scripts, nothing, ""),
    ],
)
async def test_a_server_that_refuses_is_waited_for_and_no_task_dies(
    own_server: PrivateServer,
    until: Until,
    caplog: pytest.LogCaptureFixture,
    breaks: Action,
    mends: Action,
    refusal: str,
) -> None:
    """READONLY, OOM, NOPERM, WRONGTYPE, BUSY, NOAUTH, NOSCRIPT: told once, waited out, each event's effects once."""
    caplog.set_level(logging.WARNING, "cachebus")
    async with Client(own_server.url) as client:
        consumer, bridge, refresher = parts(client)
        entered, leave = asyncio.Event(), asyncio.Event()

        @on("gate", Number, timeout="60s")
        async def gate(event: Number) -> Effects:
            entered.set()
            await leave.wait()
            return [Broadcast("numbers", "n", event.n)]

        consumer = Consumer(client, [echo, gate], lease="2s")
        async with running(consumer, bridge, refresher) as tasks:
            await add(client, "numbers", number(1))
            await until(lambda: has(client, [1]))
            await until(lambda: bridge.listening)
            await add(client, "gate", number(2))
            await entered.wait()
            before = len(asyncio.all_tasks())
            await breaks(own_server)
            leave.set()
            if mends is not nothing:
                await until(lambda: consumer.stats.faults > 2, "the consumer did not notice")
            await mends(own_server)
            await Bus(client).publish("numbers", {"n": 3}, timeout="20s")
            await until(lambda: has(client, [1, 2, 3]))
            assert not any(task.done() for task in tasks)
            await until(lambda: len(asyncio.all_tasks()) <= before)
            await until(lambda: bridge.listening)
            await client.store.call("PUBLISH", "numbers", number(4))
            await until(lambda: has(client, [1, 2, 3, 4]))
    told = [record.message.split(": ")[1] for record in caplog.records if "shard 0 waits" in record.message]
    assert len(told) == len(set(told)) <= 2
    assert any(refusal in message for message in told) or not refusal


async def test_a_commit_that_cannot_be_written_whole_is_not_written_in_part(client: Client, until: Until) -> None:
    """One of its keys holds something else: no effect is visible until all can be, and then each is once."""
    letters = client.names.bus("deadletters")
    await client.store.call("SET", letters, "somebody's")
    await add(client, "numbers", number(1), b"garbage", number(2))
    consumer = Consumer(client, [echo])
    async with running(consumer):
        await until(lambda: consumer.stats.faults > 2)
        assert await client.store.call("EXISTS", client.names.feed, client.names.journal) == 0
        await client.store.call("DEL", letters)
        await until(lambda: has(client, [1, 2]))
    assert await DeadLetters(client).count() == 1


async def test_a_drain_does_not_wait_for_a_commit_that_is_refused_for_ever(client: Client, until: Until) -> None:
    """What cannot be written is left to whoever comes next, who writes it once."""
    letters = client.names.bus("deadletters")
    await client.store.call("SET", letters, "somebody's")
    await add(client, "numbers", number(1))
    consumer = Consumer(client, [echo], lease="1s")
    async with running(consumer):
        await until(lambda: consumer.stats.faults > 1)
        async with asyncio.timeout(20.0):
            await consumer.drain()
    await client.store.call("DEL", letters)
    async with running(Consumer(client, [echo], worker="next", lease="60s")):
        await until(lambda: has(client, [1]))


async def test_a_drain_does_not_wait_for_a_server_that_went_as_the_shard_was_taken(
    own_server: PrivateServer, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between taking the shard and reading its events there is a moment, too."""
    take = Shard.take

    async def take_and_lose(shard: Shard, stop: asyncio.Future[None]) -> bool:
        taken = await take(shard, stop)
        own_server.kill()
        await until(lambda: not client.store.up)
        return taken

    async with Client(own_server.url) as client:
        consumer = Consumer(client, [echo])
        monkeypatch.setattr(Shard, "take", take_and_lose)
        async with running(consumer):
            await until(lambda: consumer.active and not client.store.up)
            async with asyncio.timeout(20.0):
                await consumer.drain()


# -- somebody else meddles with the stream ----------------------------------------------------------------------------


async def test_events_trimmed_by_somebody_else_are_noticed(client: Client, until: Until) -> None:
    """A foreign XADD MAXLEN drops what was not handled: a dead letter says so, and the metric."""
    stream = client.names.bus("events", "0")
    consumer = Consumer(client, [echo])
    async with running(consumer):
        await add(client, "numbers", number(1))
        await until(lambda: has(client, [1]))
        await consumer.drain()
    await add(client, "numbers", *map(number, range(2, 10)))
    await client.store.call("XADD", stream, "MAXLEN", "=", 2, "*", "channel", "numbers", "payload", number(10))
    after = Consumer(client, [echo])
    async with running(after):
        await until(lambda: has(client, [1, 9, 10]))
        await until(lambda: after.stats.gaps == 1)
        await add(client, "numbers", number(11))
        await until(lambda: after.stats.events == 3)
    (letter,) = await DeadLetters(client).list()
    assert letter.kind == "gap"
    assert "may be gone" in letter.reason
    assert not letter.replayable
    assert await DeadLetters(client).replay([letter.letter_id]) == 0


async def test_what_is_handled_is_trimmed_and_what_is_not_never_is(client: Client, until: Until) -> None:
    """With no retention at all the stream shrinks to little, and our own trimming is never taken for a gap."""
    stream = client.names.bus("events", "0")
    consumer = Consumer(client, [echo], options=ConsumerOptions(retention="1ms"))
    async with running(consumer):
        for first in range(0, 2000, 500):
            wire = await client.store.dedicated(stream)
            await asyncio.gather(
                *[
                    wire.send("XADD", stream, "*", "channel", "numbers", "payload", number(n))
                    for n in range(first, first + 500)
                ]
            )
            await wire.close()
            await until(lambda first=first: consumer.stats.events == first + 500)
            await until(lambda: consumer.stats.waiting == 0)
    assert await data(client) == list(range(2000))
    assert consumer.stats.gaps == 0
    assert 1 <= await client.store.call("XLEN", stream) < 500


async def test_handled_events_are_kept_for_their_retention(client: Client, until: Until) -> None:
    """By default whoever looks a minute later still finds them; half the stream's limit at most."""
    stream = client.names.bus("events", "0")
    await add(client, "numbers", *map(number, range(1000)))
    consumer = Consumer(client, [echo])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 1000)
    assert await client.store.call("XLEN", stream) == 1000
    await add(client, "numbers", *map(number, range(1000)))
    crowded = Consumer(client, [echo], options=ConsumerOptions(max_events=1000))
    async with running(crowded):
        await until(lambda: crowded.stats.events == 1000)
        await until(lambda: crowded.stats.waiting == 0)
    assert await client.store.call("XLEN", stream) < 500


async def test_a_stream_deleted_and_begun_anew_with_older_ids_is_read(client: Client, until: Until) -> None:
    """Ids behind our position would never be read; the position is reset, and a gap counted."""
    stream = client.names.bus("events", "0")
    consumer = Consumer(client, [echo])
    async with running(consumer):
        await add(client, "numbers", number(1))
        await until(lambda: has(client, [1]))
        await consumer.drain()
    await client.store.call("DEL", stream)
    await client.store.call("XADD", stream, "5-1", "channel", "numbers", "payload", number(2))
    after = Consumer(client, [echo])
    async with running(after):
        await until(lambda: has(client, [1, 2]))
    assert after.stats.gaps == 1


async def test_a_backlog_that_cannot_be_asked_leaves_no_error_behind(own_server: PrivateServer) -> None:
    """It is one error for who asked; what was asked beside it is not logged as never retrieved."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    async with Client(own_server.url) as client:
        assert (await backlog(client, 2)).delayed == 0
        own_server.kill()
        for _ in range(20):
            with pytest.raises(ServerError):
                await backlog(client, 2)
            await asyncio.sleep(0)
        gc.collect()
    assert reported == []
