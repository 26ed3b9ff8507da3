"""One user is forgotten: what is theirs goes, what is another's stays, and the receipt says both."""

from __future__ import annotations

from functools import partial

from cachebus import Bus, Cache, RateLimiter, SessionStore
from cachebus.bus.dead_letters import DeadLetters
from cachebus.cache.foresight.prediction.follows import LoadedAhead, note_reasons
from cachebus.cache.upkeep.declarations import Declarations, Declared
from cachebus.cache.upkeep.popularity import Popularity, popular
from cachebus.monitoring.forgetting import Forgetting, Receipt
from cachebus.redis.walk import names_like
from tests.conftest import Connect

VIEW = "orders:{user_id}:day:{day}"


async def used(cache: Cache) -> None:
    """Leave traces of users 7 and 77."""

    @cache.view(VIEW, ttl="5m", tags=["customer:{user_id}"])
    async def orders(user_id: int, day: str) -> list[str]:
        return [f"{user_id} on {day}"]

    client = cache.client
    counted = Popularity(client)
    for user in (7, 77):
        await orders(user, "monday")
        entry = cache.names.entry(orders.key(user, "monday"), orders.fingerprint)
        why = LoadedAhead(f"cart:{{user_id}}|{VIEW}|0|1d", 0.6, 300, 120.0)
        await note_reasons(client, [(entry, why, 60_000)])
        counted.note(VIEW, partial(orders.encode_arguments, user, "monday"), 10)
        await cache.set(f"basket:{user}", ["tea"], ttl="5m", tags=[f"user:{user}"])
        await SessionStore(cache).create(user)
        await RateLimiter(cache, patience="5s").check(f"login:{user}", limit=5, window="10m")
        letter = {
            "kind": "failed",
            "channel": "orders",
            "payload": f'{{"order": {{"user_id": {user}}}}}',
            "handler": "x",
        }
        flat = [part for pair in letter.items() for part in pair]
        await client.store.call("XADD", client.names.bus("deadletters"), "*", *flat)
        await Bus(cache).publish("orders", {"total": 7}, key=f"user:{user}")
        await Bus(cache).publish("later", {"user_id": user}, delay="1h")
    await counted.flush()


def forgetting(cache: Cache, user: str) -> Forgetting:
    """What `cachebus forget` runs."""
    return Forgetting(cache, user, shards=1, step=lambda _: None)


def counts(receipt: Receipt) -> dict[str, int]:
    """The numbers of a receipt."""
    names = ("entries", "sessions", "letters", "limits", "reads", "events")
    return {name: getattr(receipt, name) for name in names}


async def test_what_is_a_user_s_goes_and_nothing_else(cache: Cache) -> None:
    """By prefix, tag, key, field and word; user 77 keeps everything."""
    await used(cache)
    events = cache.names.bus("events", "0")
    newest = (await cache.client.store.call("XREVRANGE", events, "+", "-", "COUNT", 1))[0][0]
    await cache.client.store.call("HSET", cache.names.bus("shard", "0"), "position", newest, "behind", 2)
    seven = {"entries": 2, "sessions": 1, "letters": 1, "limits": 1, "reads": 1, "events": 1}
    look = await forgetting(cache, "7").run(delete=False)
    assert (look.done, look.clock, counts(look)) == (False, "", seven)
    receipt = await forgetting(cache, "7").run(delete=True)
    assert (receipt.done, counts(receipt)) == (True, seven)
    assert receipt.left == {"events that are published or tried again later": 1}
    assert await cache.get("basket:7") is None
    assert await cache.get("basket:77") == ["tea"]
    beside = [name async for page in names_like(cache.client.entries, cache.names.ahead("") + "*") for name in page]
    assert len(beside) == 1
    assert "77" in beside[0]
    again = await forgetting(cache, "7").run(delete=False)
    assert set(counts(again).values()) == {0}
    assert await popular(cache.client, VIEW, 10) == [b'[77,"monday"]']
    assert [letter.payload for letter in await DeadLetters(cache).list()] == [b'{"order": {"user_id": 77}}']
    other = await forgetting(cache, "77").run(delete=False)
    assert counts(other) == {**seven, "events": 1}


async def test_an_event_that_waits_is_left_to_its_handler(cache: Cache) -> None:
    """Whoever published it was promised that it is handled; the numbers of the backlog stay true."""
    await Bus(cache).publish("orders", {"user_id": "ann"})
    receipt = await forgetting(cache, "ann").run(delete=True)
    assert receipt.events == 0
    assert list(receipt.left.values()) == [1]
    assert await cache.client.store.call("XLEN", cache.names.bus("events", "0")) == 1


async def test_a_process_without_the_views_forgets_as_much(connect: Connect) -> None:
    """A gateway knows what others declare: values, and what was noted as read, are found there too."""
    application, gateway = await connect(), await connect()

    @application.view("profile:{user_id}:{page}", ttl="5m")
    async def profile(user_id: int, page: int) -> str:
        return f"{user_id} {page}"

    for user in (7, 77):
        await profile(user, 1)
    client = gateway.client
    await client.store.call("ZADD", client.names.bus("read-at", profile.name), 1, "[7,1]", 1, "[77,7]", 1, "[77,1]")
    await client.store.call("EXPIRE", client.names.bus("read-at", profile.name), 60)
    await Declarations(client, lambda: ()).declare([Declared(profile.name, "shop", [])])
    receipt = await Forgetting(gateway, "7", shards=1, step=lambda _: None).run(delete=True)
    assert (receipt.entries, receipt.reads) == (1, 2)
    left = await client.store.call("ZRANGE", client.names.bus("read-at", profile.name), 0, -1)
    assert left == [b"[77,1]"]
    assert await application.views[profile.name](77, 1) == "77 1"
    assert profile.stats.loads == 2
