"""What a worker remembers of its handlers' runs, and who an event says to be from."""

from __future__ import annotations

import asyncio
from typing import Any

from cachebus import Client
from cachebus.bus.effects import Effects, Publish
from cachebus.bus.engine.commit import Plan
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.dispatcher import Dispatcher
from cachebus.bus.engine.mover import Mover
from cachebus.bus.engine.run_log import MOST_RUNS, RememberedRun
from cachebus.bus.events import EventRecord
from cachebus.bus.handlers import Routes, on
from cachebus.bus.publisher import Bus
from cachebus.redis.walk import stream_pages


@on("plain", dict)
def plain(event: dict[str, int]) -> Effects:
    """Nothing."""
    del event
    return
    yield


@on("slow", dict)
async def slow(event: dict[str, int]) -> None:
    """Take a while."""
    await asyncio.sleep(event["ms"] / 1000)


@on("broken", dict)
async def broken(event: dict[str, int]) -> None:
    """Fail."""
    raise LookupError(event)


@on("many", dict, batch=10)
async def many(events: list[dict[str, int]]) -> None:
    """Take several at once."""
    del events


def record(number: int, channel: str, payload: bytes = b"{}") -> EventRecord:
    """Return an event as the stream has it."""
    return EventRecord([f"{number}-1".encode(), [b"channel", channel.encode(), b"payload", payload]])


async def cut(plan: Plan) -> Plan:
    """Commit nothing."""
    del plan
    return Plan()


async def test_each_run_is_remembered_with_how_long_it_took() -> None:
    """Plain, asynchronous (its own time, not that of its neighbours), failed, for several events; not for ever."""
    dispatcher = Dispatcher(Routes([plain, slow, broken, many]))
    channels = {1: "plain", 2: "slow", 3: "slow", 4: "broken", 5: "many", 6: "many"}
    payloads = {2: b'{"ms":60}', 3: b'{"ms":5}'}
    await dispatcher.work([record(at, name, payloads.get(at, b"{}")) for at, name in channels.items()], Plan(), cut)
    found: dict[int, RememberedRun] = {}
    for at in channels:
        (found[at],) = dispatcher.runs.of(f"{at}-1", lambda moment: int(moment * 1e6))
    assert [run.handler.rpartition(".")[2] for run in found.values()] == [*("plain", "slow", "slow", "broken")] + 2 * [
        "many"
    ]
    assert [run.error for run in found.values()] == ["", "", "", "LookupError", "", ""]
    assert [run.events for run in found.values()] == [1, 1, 1, 1, 2, 2]
    assert found[2].until_ms - found[2].from_ms >= 55
    assert found[3].until_ms <= found[2].until_ms
    await dispatcher.work([record(at, "plain") for at in range(10, 10 + MOST_RUNS)], Plan(), cut)
    assert not list(dispatcher.runs.of("1-1", int))


async def test_an_event_says_who_published_it(client: Client, until: Any) -> None:
    """A process by its name, a handler by its own, also what waits; a client without a name says nothing."""

    @on("first", dict)
    def first(event: dict[str, int]) -> Effects:
        del event
        yield Publish("second", {})
        yield Publish("third", {}, after="10ms")

    bus = Bus(client)
    await bus.publish("plain", {})
    client.process = "web.1"
    await bus.publish("first", {})
    await bus.publish("plain", {}, delay="10ms")
    consumer, mover = Consumer(client, [first, plain]), Mover(client)
    running = [asyncio.create_task(each.run()) for each in (consumer, mover)]
    found: list[tuple[str, str]] = []

    async def all_there() -> bool:
        found.clear()
        async for page in stream_pages(client.store, client.names.bus("events", "0")):
            found.extend((fields["channel"].decode(), fields.get("by", b"").decode()) for _, fields in page)
        return len(found) == 5

    try:
        await until(all_there)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert sorted(found) == sorted(
        [("plain", ""), ("first", "web.1"), ("second", first.name), ("third", first.name), ("plain", "web.1")]
    )
