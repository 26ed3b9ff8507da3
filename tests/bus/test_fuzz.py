"""Random events: handled or dead-lettered, never a crash, never a wrong type handed to a handler."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.events import Event, Moment
from cachebus.bus.handlers import on
from cachebus.redis.client import Client
from tests.support.serving import data, running

EVENTS = int(os.environ.get("FUZZ_EVENTS", "20000"))
GOOD = b'{"user_id":7,"action":"new_trade","at":"2026-01-01T00:00:00Z","tags":["a"]}'


class Trade(msgspec.Struct):
    user_id: int
    action: Literal["new_trade", "trade_deleted"]
    at: Moment | None = None
    tags: list[str] = []


def fuzzed(choose: random.Random) -> bytes:
    """Return something that was an event once, or never."""
    what = choose.random()
    if what < 0.2:
        return choose.randbytes(choose.randrange(60))
    if what < 0.3:
        return b"[" * choose.randrange(5000)
    if what < 0.5:
        value: Any = choose.choice([None, True, -1, 1e308, "x", "", [], {}, {"a": [1]}, 2**70, "\ud7ff", "9" * 50])
        field = choose.choice(["user_id", "action", "at", "tags", "other"])
        return msgspec.json.encode({**msgspec.json.decode(GOOD), field: value})
    payload = bytearray(GOOD)
    for _ in range(choose.randint(1, 5)):
        at = choose.randrange(len(payload))
        if choose.random() < 0.5:
            payload[at] = choose.randrange(256)
        else:
            del payload[at]
    return bytes(payload)


async def test_fuzzed_events_never_reach_a_handler_as_a_wrong_type(client: Client, until: Callable[..., Any]) -> None:
    """Every one is counted, as handled or as a dead letter; good events between them are handled, all of them."""
    choose = random.Random(11)  # noqa: S311 - garbage, not a secret
    wrong: list[Any] = []

    @on("trades", Trade, retries=0)
    def handle(event: Any, envelope: Event) -> Effects:
        sound = (
            isinstance(event, Trade),
            isinstance(event.user_id, int),
            event.action in ("new_trade", "trade_deleted"),
            event.at is None or event.at.tzinfo is not None,
            all(isinstance(tag, str) for tag in event.tags),
        )
        if not all(sound):
            wrong.append(envelope)
        if envelope.id == "good":
            yield Broadcast("good", "good", event.user_id)

    stream = client.names.bus("events", "0")
    wire = await client.store.dedicated(stream)
    good = 0
    for _ in range(EVENTS // 200):
        sent = [wire.send("XADD", stream, "*", "channel", "trades", "payload", fuzzed(choose)) for _ in range(199)]
        sent.append(wire.send("XADD", stream, "*", "channel", "trades", "payload", GOOD, "id", "good"))
        good += 1
        odd = [choose.randbytes(choose.randrange(1, 8)) for _ in range(2 * choose.randint(1, 3))]
        sent.append(wire.send("XADD", stream, "*", *odd))
        await asyncio.gather(*sent)
    await wire.close()
    total = EVENTS // 200 * 201
    consumer = Consumer(client, [handle])
    async with running(consumer):
        await until(lambda: consumer.stats.events == total, deadline_s=120)
        await consumer.drain()
    stats = consumer.stats.handlers
    assert wrong == []
    assert stats.handled + stats.dead_lettered == total
    assert await data(client) == [7] * good
    assert all(letter.reason for letter in await DeadLetters(client).list(1000))
