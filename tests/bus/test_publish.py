"""publish(): one script, once, or a refusal that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cachebus.bus.events import shard_of
from cachebus.bus.publisher import Bus
from cachebus.errors import PublishRefused, ServerTimeout, StreamFull, Unavailable
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer


class Trade(msgspec.Struct):
    user_id: int


async def events(client: Client, shard: int = 0) -> list[dict[bytes, bytes]]:
    """Return what the stream holds."""
    records = await client.store.call("XRANGE", client.names.bus("events", str(shard)), "-", "+")
    return [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in records]


async def test_an_event_is_in_the_stream_and_on_the_channel(client: Client, until: Callable[..., Any]) -> None:
    """Plain listeners get the payload as it is; the stream gets channel, payload, id and key."""
    heard: list[tuple[str, bytes]] = []
    await client.subscriptions.subscribe("trade:updates", lambda channel, payload: heard.append((channel, payload)))
    name = await Bus(client).publish("trade:updates", Trade(7), key="user:7")
    assert await events(client) == [
        {b"channel": b"trade:updates", b"payload": b'{"user_id":7}', b"id": name.encode(), b"key": b"user:7"}
    ]
    await until(lambda: heard == [("trade:updates", b'{"user_id":7}')])


async def test_the_same_id_is_published_once(client: Client) -> None:
    """A repeated id is dropped, whatever it carries; other ids are not."""
    bus = Bus(client)
    assert [await bus.publish("a:b", {"n": n}, id=i) for n, i in ((1, "x"), (2, "x"), (3, "y"))] == ["x", "x", "y"]
    assert [event[b"payload"] for event in await events(client)] == [b'{"n":1}', b'{"n":3}']


async def test_a_full_stream_refuses_and_drops_nothing(client: Client) -> None:
    """Past its cap publish() raises; what is there stays."""
    bus = Bus(client, max_events=2)
    await bus.publish("a:b", 1)
    await bus.publish("a:b", 2)
    with pytest.raises(StreamFull, match="is a worker running") as refused:
        await bus.publish("a:b", 3, id="third")
    assert isinstance(refused.value, PublishRefused)  # who does not care which, catches both
    assert (refused.value.channel, refused.value.max_events) == ("a:b", 2)
    assert len(await events(client)) == 2
    await client.store.call("DEL", client.names.bus("events", "0"))
    await bus.publish("a:b", 3, id="third")
    assert [event[b"payload"] for event in await events(client)] == [b"3"]


@pytest.mark.parametrize(
    ("channel", "event", "options", "field"),
    [
        ("ws:user:7", {}, {}, "channel"),
        ("", {}, {}, "channel"),
        ("a:b", "x" * 200, {}, "event"),
        ("a:b", b"{", {}, "event"),
        ("a:b", {}, {"id": ""}, "id"),
        ("a:b", {}, {"id": 7}, "id: 7 must be text of 1 to 200 characters"),
        ("a:b", {}, {"key": 7}, "key: 7 must be text, such as 'user:7'"),
        ("a:b", {}, {"wait_replicas": "two"}, "wait_replicas: 'two' is not a whole number of 0 or more; write 1"),
        ("a:b", {}, {"wait_replicas": -1}, "wait_replicas: -1"),
        ("a:b", {}, {"wait_replicas": True}, "wait_replicas: True"),
        ("a:b", {}, {"wait_replicas": 1.5, "delay": "1m"}, "wait_replicas: 1.5 is not"),
        (7, {}, {}, "channel: 7 must be 1 to 200 characters"),
    ],
)
async def test_a_refusal_names_the_field_and_stores_nothing(
    client: Client, channel: str, event: Any, options: dict[str, Any], field: str
) -> None:
    """Bad channel, oversize event, bytes that are no JSON, an empty id, replicas that are no number."""
    with pytest.raises(PublishRefused, match=field):
        await Bus(client, max_payload_bytes=100).publish(channel, event, **options)
    assert await events(client) == []


async def test_events_with_one_key_go_to_one_shard(client: Client) -> None:
    """Routing is CRC-32 of the key, so that other languages can do it too; order per key is order in a stream."""
    bus = Bus(client, shards=3)
    for n in range(6):
        await bus.publish("a:b", n, key="user:7" if n % 2 else "user:8")
    assert shard_of("user:7", 3) != shard_of("user:8", 3)
    seven = await events(client, shard_of("user:7", 3))
    assert [event[b"payload"] for event in seven] == [b"1", b"3", b"5"]


class Lossy:
    """A store whose scripts run, but the first reply to each call is lost."""

    def __init__(self, client: Client) -> None:
        self._store = client.store
        self.calls = 0
        self.lost: set[str] = set()

    def submit_run(
        self, verb: str, keys: list[str], args: list[Any], done: Callable[[Any], None], **options: Any
    ) -> None:
        def arrived(replies: Any) -> None:
            lost = keys[1] not in self.lost
            self.lost.add(keys[1])
            done(ServerTimeout("the reply was lost") if lost else replies)

        self.calls += 1
        self._store.submit_run(verb, keys, args, arrived, **options)


async def test_a_lost_reply_is_repeated_and_never_doubles_the_event(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call of 1,000 publishes loses its first reply: 1,000 events, in order where they were awaited."""
    lossy = Lossy(client)
    bus = Bus(client)
    store = client.store
    monkeypatch.setattr(client, "store", lossy)
    await asyncio.gather(*[bus.publish("a:b", n) for n in range(900)])
    await bus.publish_many("a:b", range(900, 980))
    for n in range(980, 1000):
        await bus.publish("a:b", n)
    monkeypatch.setattr(client, "store", store)
    assert lossy.calls == 2 * len(lossy.lost)
    assert sorted(int(event[b"payload"]) for event in await events(client)) == list(range(1000))


async def test_what_is_published_together_is_one_call(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ninety events of one tick: one script; nothing is remembered of an id that nobody can repeat but the call."""
    calls: list[Any] = []
    submit = client.store.submit_run
    monkeypatch.setattr(client.store, "submit_run", lambda *call, **more: (calls.append(call), submit(*call, **more)))
    bus = Bus(client)
    names = await asyncio.gather(*[bus.publish("a:b", n) for n in range(90)])
    stored = await events(client)
    assert [(event[b"payload"], event[b"id"]) for event in stored] == [
        (b"%d" % n, name.encode()) for n, name in enumerate(names)
    ]
    assert len(calls) == 1
    assert len(await client.store.call("KEYS", client.names.bus("id", "*"))) == 1


async def test_each_of_those_published_together_gets_its_own_answer(client: Client) -> None:
    """One id is known, three find room, one does not, and one cannot be written: each caller learns its own."""
    bus = Bus(client, max_events=4)
    await bus.publish("a:b", 0, id="known")
    said = await asyncio.gather(
        bus.publish("a:b", 1, id="known"),
        bus.publish("a:b", 2),
        bus.publish("a:b", 3, key="user:7"),
        bus.publish("a:b", 4, key="\ud800"),
        bus.publish("a:b", 5, id="new"),
        bus.publish("a:b", 6),
        return_exceptions=True,
    )
    assert [type(each).__name__ for each in said] == ["str", "str", "str", "PublishRefused", "str", "StreamFull"]
    assert [event[b"payload"] for event in await events(client)] == [b"0", b"2", b"3", b"5"]


async def test_many_events_are_published_in_order(client: Client) -> None:
    """Calls of a hundred keep the order; where one is refused none is stored; a full stream keeps what had room."""
    bus = Bus(client, max_events=300)
    names = await bus.publish_many("a:b", range(250))
    assert [event[b"id"].decode() for event in await events(client)] == names
    assert [int(event[b"payload"]) for event in await events(client)] == list(range(250))
    with pytest.raises(PublishRefused, match="event"):
        await bus.publish_many("a:b", [1, b"{"])
    assert len(await events(client)) == 250
    with pytest.raises(StreamFull):
        await bus.publish_many("a:b", range(250, 400))
    assert [int(event[b"payload"]) for event in await events(client)] == list(range(300))
    assert await bus.publish_many("a:b", []) == []


async def test_a_publish_that_was_cancelled_is_repeated_for_nobody(own_server: PrivateServer) -> None:
    """An outage, callers that give up: nothing is sent for them when the server is back."""
    async with Client(own_server.url) as client:
        own_server.kill()
        publishing = asyncio.gather(*[Bus(client).publish("a:b", n, timeout="20s") for n in range(3)])
        await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await asyncio.to_thread(own_server.restart)
        await client.store.ready()
        await Bus(client).publish("a:b", 4)
        assert [event[b"payload"] for event in await events(client)] == [b"4"]


async def test_publishing_outlasts_a_restart_of_the_server(own_server: PrivateServer) -> None:
    """A publish() begun while the server is away is stored once it is back."""
    async with Client(own_server.url) as client:
        own_server.kill()
        publishing = asyncio.create_task(Bus(client).publish("a:b", 1, timeout="20s"))
        await asyncio.to_thread(own_server.restart)
        await publishing
        assert len(await events(client)) == 1


async def test_publishing_gives_up_when_its_time_is_over(own_server: PrivateServer) -> None:
    """Unavailable after the timeout; nobody waits for ever."""
    async with Client(own_server.url) as client:
        own_server.kill()
        with pytest.raises(Unavailable):
            await Bus(client).publish("a:b", 1, timeout="0.2s")


async def test_a_publish_that_wants_replicas_says_when_they_do_not_confirm(own_server: PrivateServer) -> None:
    """Without a replica it raises after its timeout, and the event is stored; with one that follows it returns."""
    async with Client(own_server.url) as client:
        bus = Bus(client)
        with pytest.raises(ServerTimeout, match="0 of 1 replicas"):
            await bus.publish("a:b", 1, id="x", wait_replicas=1, timeout="0.3s")
        assert len(await events(client)) == 1
        own_server.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        with PrivateServer.start() as replica:
            replica.ask("REPLICAOF", own_server.host, own_server.port)
            await bus.publish("a:b", 1, id="x", wait_replicas=1, timeout="20s")
            assert len(await events(client)) == 1
            assert replica.ask("XLEN", client.names.bus("events", "0")) == 1
        await bus.close()
