"""What became of an event, where several shards have one of the same position."""

from __future__ import annotations

from cachebus.bus.publisher import Bus
from cachebus.monitoring.event_lookup import find_events
from cachebus.redis.client import Client

POSITION = "1900000000000-0"


async def test_two_shards_with_an_event_at_one_position(client: Client) -> None:
    """Both are found, each with its own shard and payload."""
    bus = Bus(client, shards=2)
    wanted: dict[int, str] = {}
    for n in range(20):
        await bus.publish("orders", {"n": n}, key=f"key-{n}")
    for shard in range(2):
        stream = client.names.bus("events", str(shard))
        (_, fields), *_ = await client.store.call("XRANGE", stream, "-", "+")
        await client.store.call("XADD", stream, POSITION, *fields)
        wanted[shard] = dict(zip(fields[::2], fields[1::2], strict=True))[b"payload"].decode()
    found = await find_events(client, POSITION, shards=2)
    assert {event.shard: event.payload for event in found} == wanted
