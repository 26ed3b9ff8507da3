"""publish(): one script, once, or a refusal that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cachebus.bus import Bus
from cachebus.errors import PublishRefused, ServerTimeout, StreamFull, Unavailable
from cachebus.events import shard_of
from cachebus.link import Link
from cachebus.private_server import PrivateServer


class Trade(msgspec.Struct):
    user_id: int


async def events(link: Link, shard: int = 0) -> list[dict[bytes, bytes]]:
    """Return what the stream holds."""
    records = await link.store.call("XRANGE", link.names.bus("events", str(shard)), "-", "+")
    return [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in records]


async def test_an_event_is_in_the_stream_and_on_the_channel(link: Link, until: Callable[..., Any]) -> None:
    """Plain listeners get the payload as it is; the stream gets channel, payload, id and key."""
    heard: list[tuple[str, bytes]] = []
    await link.subscriptions.subscribe("trade:updates", lambda channel, payload: heard.append((channel, payload)))
    name = await Bus(link).publish("trade:updates", Trade(7), key="user:7")
    assert await events(link) == [
        {b"channel": b"trade:updates", b"payload": b'{"user_id":7}', b"id": name.encode(), b"key": b"user:7"}
    ]
    await until(lambda: heard == [("trade:updates", b'{"user_id":7}')])


async def test_the_same_id_is_published_once(link: Link) -> None:
    """A repeated id is dropped, whatever it carries; other ids are not."""
    bus = Bus(link)
    assert [await bus.publish("a:b", {"n": n}, id=i) for n, i in ((1, "x"), (2, "x"), (3, "y"))] == ["x", "x", "y"]
    assert [event[b"payload"] for event in await events(link)] == [b'{"n":1}', b'{"n":3}']


async def test_a_full_stream_refuses_and_drops_nothing(link: Link) -> None:
    """Past its cap publish() raises; what is there stays."""
    bus = Bus(link, max_events=2)
    await bus.publish("a:b", 1)
    await bus.publish("a:b", 2)
    with pytest.raises(StreamFull, match="is a worker running") as refused:
        await bus.publish("a:b", 3, id="third")
    assert isinstance(refused.value, PublishRefused)  # who does not care which, catches both
    assert (refused.value.channel, refused.value.max_events) == ("a:b", 2)
    assert len(await events(link)) == 2
    await link.store.call("DEL", link.names.bus("events", "0"))
    await bus.publish("a:b", 3, id="third")
    assert [event[b"payload"] for event in await events(link)] == [b"3"]


@pytest.mark.parametrize(
    ("channel", "event", "options", "field"),
    [
        ("ws:user:7", {}, {}, "channel"),
        ("", {}, {}, "channel"),
        ("a:b", "x" * 200, {}, "event"),
        ("a:b", b"{", {}, "event"),
        ("a:b", {}, {"id": ""}, "id"),
    ],
)
async def test_a_refusal_names_the_field_and_stores_nothing(
    link: Link, channel: str, event: Any, options: dict[str, Any], field: str
) -> None:
    """Bad channel, oversize event, bytes that are no JSON, an empty id."""
    with pytest.raises(PublishRefused, match=field):
        await Bus(link, max_payload_bytes=100).publish(channel, event, **options)
    assert await events(link) == []


async def test_events_with_one_key_go_to_one_shard(link: Link) -> None:
    """Routing is CRC-32 of the key, so that other languages can do it too; order per key is order in a stream."""
    bus = Bus(link, shards=3)
    for n in range(6):
        await bus.publish("a:b", n, key="user:7" if n % 2 else "user:8")
    assert shard_of("user:7", 3) != shard_of("user:8", 3)
    seven = await events(link, shard_of("user:7", 3))
    assert [event[b"payload"] for event in seven] == [b"1", b"3", b"5"]


class Lossy:
    """A store whose scripts run, but the first reply to each publish is lost."""

    def __init__(self, link: Link) -> None:
        self._store = link.store
        self.lost: set[str] = set()

    async def run(self, verb: str, keys: list[str], *args: Any, **kwargs: Any) -> Any:
        reply = await self._store.run(verb, keys, *args, **kwargs)
        if keys[1] not in self.lost:
            self.lost.add(keys[1])
            raise ServerTimeout("the reply was lost")
        return reply


async def test_a_lost_reply_is_repeated_and_never_doubles_the_event(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 1,000 publishes loses its first reply: 1,000 events."""
    lossy = Lossy(link)
    bus = Bus(link)
    store = link.store
    monkeypatch.setattr(link, "store", lossy)
    await asyncio.gather(*[bus.publish("a:b", n) for n in range(950)])
    for n in range(950, 1000):
        await bus.publish("a:b", n)
    monkeypatch.setattr(link, "store", store)
    assert len(lossy.lost) == 1000
    assert sorted(int(event[b"payload"]) for event in await events(link)) == list(range(1000))


async def test_publishing_outlasts_a_restart_of_the_server(own_server: PrivateServer) -> None:
    """A publish() begun while the server is away is stored once it is back."""
    async with Link(own_server.url) as link:
        own_server.kill()
        publishing = asyncio.create_task(Bus(link).publish("a:b", 1, timeout="20s"))
        await asyncio.to_thread(own_server.restart)
        await publishing
        assert len(await events(link)) == 1


async def test_publishing_gives_up_when_its_time_is_over(own_server: PrivateServer) -> None:
    """Unavailable after the timeout; nobody waits for ever."""
    async with Link(own_server.url) as link:
        own_server.kill()
        with pytest.raises(Unavailable):
            await Bus(link).publish("a:b", 1, timeout="0.2s")


async def test_a_publish_that_wants_replicas_says_when_they_do_not_confirm(own_server: PrivateServer) -> None:
    """Without a replica it raises after its timeout, and the event is stored; with one that follows it returns."""
    async with Link(own_server.url) as link:
        bus = Bus(link)
        with pytest.raises(ServerTimeout, match="0 of 1 replicas"):
            await bus.publish("a:b", 1, id="x", wait_replicas=1, timeout="0.3s")
        assert len(await events(link)) == 1
        own_server.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        with PrivateServer.start() as replica:
            replica.ask("REPLICAOF", own_server.host, own_server.port)
            await bus.publish("a:b", 1, id="x", wait_replicas=1, timeout="20s")
            assert len(await events(link)) == 1
            assert replica.ask("XLEN", link.names.bus("events", "0")) == 1
        await bus.close()
