"""Prediction in a process that runs: what is loaded ahead, of whom, what lies in Redis of it, what switches it off."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from cachebus import Cache, CacheSettings, ConfigurationError, Policy, View, sync
from cachebus.cache.foresight.prediction.contexts import Context
from cachebus.cache.foresight.prediction.decision import Totals
from cachebus.cache.foresight.prediction.follows import add_follows, days_of, read_follows, reset_follows
from cachebus.cache.foresight.prediction.outcomes import FoundElsewhere
from cachebus.cache.foresight.prediction.predictor import Predictor
from cachebus.clock import now_s
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect

CART, ORDERS = "cart:{user_id}", "orders:{user_id}:{kind}"
SURE = {
    Context(CART, ORDERS, "0", ""): Totals(300, 297, 0, 0, 0, 0),
    Context("!", ORDERS, "own", "1m"): Totals(300, 297, 0, 0, 0, 0),
}
request: ContextVar[str] = ContextVar("request", default="none")
Until = Callable[..., Awaitable[Any]]


class Shop:
    """A process of an application: two views, and what it has loaded."""

    def __init__(self, cache: Cache, *, ttl: str = "5m") -> None:
        self.cache = cache
        self.loaded: list[tuple[int, str]] = []
        self.in_request: list[str] = []
        self.failing = False

        @cache.view(CART, ttl="5m")
        async def cart(user_id: int) -> int:
            return user_id

        @cache.view(ORDERS, ttl=ttl, tags=["user:{user_id}"], policy=Policy(predict=True))
        async def orders(user_id: int, kind: str = "open") -> str:
            self.loaded.append((user_id, kind))
            self.in_request.append(request.get())
            await asyncio.sleep(0.005)  # what is as fast as a hit is never loaded ahead
            if self.failing:
                raise RuntimeError("the database")
            return f"{user_id} {kind}"

        self.cart: View[[int], int] = cart
        self.orders: View[[int, str], str] = orders

    @property
    def predictor(self) -> Predictor:
        """The predictor of the process."""
        running = self.cache._running
        assert running is not None
        assert running.predictor is not None
        return running.predictor

    async def knows(self) -> None:
        """Have it learn what is in Redis, and let it waste what it likes."""
        await self.predictor.learn()
        self.predictor.look()
        self.predictor.forecaster._look()
        self.predictor.forecaster.budget.earn(10_000)

    def has_expired(self) -> None:
        """Age what was read: it no longer lies ready."""
        self.cache.reader.memory.store.held.clear()  # type: ignore[union-attr] # connected
        people = self.predictor.forecaster.people
        for identity in people:
            person = people.get(identity)
            assert person is not None
            person.ready_until = 0.0
            for habit in person.calls.values():
                habit.until = 0.0


@pytest.fixture
async def shop(connect: Connect) -> Shop:
    """One process, which has the counts of many users."""
    cache = await connect()
    await add_follows(cache.client, days_of(cache.client)[0], SURE)
    shop = Shop(cache)
    await shop.knows()
    return shop


def entry_of(shop: Shop, user_id: int, kind: str = "open") -> str:
    """Return what a call's value is stored under."""
    followed = next(each for each in shop.predictor._followed if each.view is shop.orders)
    return followed.entry_of((followed.known.number, user_id, kind))


async def gone(shop: Shop, user_id: int, kind: str = "open") -> None:
    """Let an entry expire, here and in Redis."""
    entry = entry_of(shop, user_id, kind)
    await shop.cache.client.entries.call("DEL", entry, key=entry)
    shop.has_expired()


async def visited(shop: Shop, user_id: int, kind: str = "open") -> None:
    """Have a user make the call once, long enough ago that it has to be loaded again."""
    await shop.orders(user_id, kind)
    await gone(shop, user_id, kind)
    shop.loaded.clear()


async def test_what_follows_is_there_before_it_is_asked_for(shop: Shop, until: Until) -> None:
    """The arguments are those of the same user's last call; the read that comes is a hit, and counted as a use."""
    await visited(shop, 7, "late")
    await shop.cart(7)
    await until(lambda: shop.orders.stats.ahead_loads)
    assert shop.loaded == [(7, "late")]
    assert await shop.orders(7, "late") == "7 late"
    assert shop.loaded == [(7, "late")]
    assert (shop.orders.stats.ahead_used, shop.orders.stats.ahead_wasted) == (1, 0)
    assert shop.orders.stats.warms == 1


async def test_nobody_s_arguments_are_loaded_for_another(shop: Shop, until: Until) -> None:
    """A user who never made the call has nothing loaded, whatever all others do."""
    for user_id in (1, 2, 3):
        await visited(shop, user_id, f"of {user_id}")
    await shop.cart(99)
    await shop.cart(2)
    await until(lambda: shop.orders.stats.ahead_loads)
    assert shop.loaded == [(2, "of 2")]


async def test_what_is_invalidated_before_it_is_read_is_wasted_and_never_served(shop: Shop, until: Until) -> None:
    """As fresh as any value: the read loads again."""
    await visited(shop, 7)
    shop.predictor.forecaster.cells[Context("!", ORDERS, "own", "1m")].forget()
    await shop.cart(7)
    await until(lambda: shop.orders.stats.ahead_loads)
    await shop.cache.invalidate(tags=["user:7"])
    await until(lambda: shop.orders.stats.ahead_wasted)
    await shop.orders(7, "open")
    assert shop.loaded == [(7, "open")] * 2
    assert shop.orders.stats.ahead_used == 0


async def test_what_a_user_changed_is_loaded_again_at_once(shop: Shop, until: Until) -> None:
    """The user's own tag names the user; another user's changes nothing."""
    await shop.orders(7, "open")
    await shop.orders(8, "open")
    await shop.cache.invalidate(tags=["user:7"])
    await until(lambda: shop.orders.stats.ahead_loads)
    await shop.orders(7, "open")
    assert shop.loaded == [(7, "open"), (8, "open"), (7, "open")]
    assert shop.orders.stats.ahead_used == 1


async def test_a_load_ahead_is_of_no_request(shop: Shop, until: Until) -> None:
    """What the request before had in its context (its user, its transaction, its demands) is not part of it."""
    await visited(shop, 7)
    request.set("GET /cart")
    with shop.cache.reading(strict=True):
        await shop.cart(7)
    await until(lambda: shop.orders.stats.ahead_loads)
    assert shop.in_request[-1] == "none"


async def test_a_load_ahead_that_fails_is_wasted(shop: Shop, until: Until) -> None:
    """Nobody hears of it but the counters; the read runs the load itself."""
    await visited(shop, 7)
    shop.failing = True
    await shop.cart(7)
    await until(lambda: shop.orders.stats.ahead_wasted)
    shop.failing = False
    assert await shop.orders(7, "open") == "7 open"


async def test_a_read_within_a_load_is_nobody_s(connect: Connect) -> None:
    """A report that reads the cart does not say that the user looked at the cart."""
    shop = Shop(await connect())

    @shop.cache.view("report:{user_id}", ttl="5m")
    async def report(user_id: int) -> int:
        return await shop.cart(user_id)

    shop.predictor.look()
    await visited(shop, 7)
    await report(7)
    assert {cell.context.after for cell in shop.predictor.forecaster.cells.values()} == {"report:{user_id}"}


async def test_redis_and_logs_name_templates_and_no_arguments(
    connect: Connect, server: PrivateServer, namespace: str, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """One hash a day, which ends by itself; beside an entry, in its own name, why it was loaded."""
    caplog.set_level(logging.DEBUG)
    shop = Shop(await connect())
    await add_follows(shop.cache.client, days_of(shop.cache.client)[0], SURE)
    await shop.knows()
    await visited(shop, 7, "mine-alone")
    await shop.cart(7)
    await until(lambda: shop.orders.stats.ahead_loads)
    await shop.orders(7, "mine-alone")
    await shop.predictor.flush()
    names = [name.decode() for name in server.ask("KEYS", f"*{namespace}*")]
    (follow,) = [name for name in names if ":follow:" in name]
    assert 7 * 86_400_000 < server.ask("PTTL", follow) <= 8 * 86_400_000
    told = b"\n".join(server.ask("HGETALL", follow))
    assert CART.encode() in told
    assert b"mine-alone" not in told
    assert "mine-alone" not in "".join(record.getMessage() for record in caplog.records)
    beside = [name for name in names if "mine-alone" in name]
    assert {name.removeprefix(namespace)[:4] for name in beside} <= {":e2:", ":a2:"}


async def test_another_process_begins_with_what_is_known(connect: Connect, until: Until) -> None:
    """And what it has seen is added."""
    first, second = Shop(await connect(predict="shadow")), Shop(await connect(predict="shadow"))
    for shop in (first, second):
        for user_id in range(40):
            await visited(shop, user_id)
            await shop.cart(user_id)
            await gone(shop, user_id)
            await shop.orders(user_id, "open")
        await shop.predictor.flush()
    today = days_of(first.cache.client)[0]
    counted = await read_follows(first.cache.client, today)
    assert counted[Context(CART, ORDERS, "0", "1h").name] == Totals(80, 80, 0, 0, 0, 0)
    third = Shop(await connect())
    await third.knows()
    await visited(third, 7)
    await third.cart(7)
    await until(lambda: third.orders.stats.ahead_loads)
    await third.orders(7, "open")
    assert await reset_follows(first.cache.client, ORDERS) > 0
    await third.predictor.learn()
    await gone(third, 7)
    await third.cart(7)
    (expected,) = third.predictor.forecaster.people.get(("user_id", 7)).expected.values()  # type: ignore[union-attr] # known
    assert expected.because is None


def test_plain_functions_are_followed_in_any_thread(server: PrivateServer, namespace: str) -> None:
    """Hits of `cachebus.sync` are answered in the caller's thread, and noted in the loop's."""
    cache = sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace)))
    loaded_ahead = threading.Event()
    loads: list[int] = []

    @cache.view(CART, ttl="5m")
    def cart(user_id: int) -> int:
        return user_id

    @cache.view("orders:{user_id}", ttl="100ms", policy=Policy(predict=True))
    def orders(user_id: int) -> str:
        time.sleep(0.005)
        loads.append(user_id)
        if len(loads) == 2:
            loaded_ahead.set()
        return "ok"

    with cache:
        client, predictor = cache.cache.client, cache.cache._running.predictor  # type: ignore[union-attr] # connected
        assert predictor is not None
        sure = {Context(CART, orders.name, "0", ""): Totals(300, 297)}
        cache.run(add_follows(client, days_of(client)[0], sure))
        cache.run(predictor.learn())
        predictor.forecaster.budget.earn(10_000)
        cart(7)
        orders(7)
        held = cache.cache.reader.memory.held["orders:7"]  # type: ignore[union-attr] # connected
        time.sleep(max(0.0, held.keep_until - now_s()))
        cart(7)
        assert loaded_ahead.wait(20)
    assert loads == [7, 7]


KILLED = """
import asyncio, sys
from cachebus import Cache, CacheSettings, Policy
from cachebus.cache.foresight.prediction.contexts import contexts_after_invalidation
async def main(url, namespace):
    async with Cache(settings=CacheSettings(url=url, namespace=namespace)) as cache:
        loads = 0
        @cache.view("orders:{user_id}", ttl="1m", policy=Policy(predict=True))
        async def orders(user_id: int) -> int:
            nonlocal loads
            loads += 1
            await asyncio.sleep(0.01)
            if loads > 1:
                print(cache.names.lease(cache.names.entry("orders:7", orders.fingerprint)), flush=True)
                await asyncio.sleep(60)
            return user_id
        forecaster = cache._running.predictor.forecaster
        forecaster.budget.earn(10_000)
        await orders(7)
        for context in contexts_after_invalidation(orders.name):
            forecaster.cell_of(context).learn_many(300, 300)
        await orders.invalidate(7)
        await asyncio.sleep(60)
asyncio.run(main(*sys.argv[1:]))
"""


async def test_of_a_killed_process_no_lease_is_left(server: PrivateServer, namespace: str) -> None:
    """Whoever reads what it was loading ahead waits three seconds at most."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, server.url, namespace), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lease = (await process.stdout.readline()).decode().strip()
    process.kill()
    await process.wait()
    assert 0 < server.ask("PTTL", lease) <= 3000


def test_switched_off_it_is_not_there(server: PrivateServer, namespace: str) -> None:
    """No task, no key, nobody who watches; the same where no view asks for it."""

    async def look(mode: str, *, asked: bool) -> tuple[bool, int]:
        async with Cache(settings=CacheSettings(url=server.url, namespace=namespace, predict=mode)) as cache:
            policy = Policy(predict=asked)

            @cache.view(CART, ttl="5m", policy=policy)
            async def cart(user_id: int) -> int:
                return user_id

            await cart(7)
            tasks = {task.get_name() for task in asyncio.all_tasks()}
            return "cachebus prediction" in tasks, len(cart.watchers)

    assert asyncio.run(look("off", asked=True)) == (False, 0)
    assert asyncio.run(look("live", asked=False)) == (False, 0)
    assert asyncio.run(look("shadow", asked=True)) == (True, 1)
    assert not [name for name in server.ask("KEYS", f"*{namespace}*") if b":follow:" in name]


async def test_in_shadow_nothing_is_loaded(connect: Connect) -> None:
    """What would have been is counted."""
    shop = Shop(await connect(predict="shadow"))
    await add_follows(shop.cache.client, days_of(shop.cache.client)[0], SURE)
    await shop.knows()
    await visited(shop, 7)
    await shop.cart(7)
    await shop.orders(7, "open")
    assert shop.loaded == [(7, "open")]
    assert (shop.orders.stats.ahead_loads, shop.orders.stats.shadow_right) == (0, 1)


async def test_a_view_that_wastes_falls_back_by_itself(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """One line says so; for an hour it loads nothing ahead."""
    await visited(shop, 7)
    view = shop.predictor.forecaster.views[1]
    for _ in range(200):
        if (share := view.record.ended(0.0, 0.5, used=False)) is not None:
            shop.predictor.forecaster.outcomes.suspended.append((view, share))
    view.record.suspended_until = float("inf")
    with caplog.at_level(logging.WARNING):
        shop.predictor.look()
        shop.predictor.look()
    assert [record.getMessage() for record in caplog.records] == [
        f"{ORDERS}: 0 % of the last 200 loads ahead were used; none for an hour"
    ]
    await shop.cart(7)
    assert shop.orders.stats.ahead_loads + len(shop.predictor._ahead._under_way) == 0


def test_a_view_that_cannot_be_predicted_is_refused() -> None:
    """Where it is declared, with the fix."""
    cache = Cache.memory()
    with pytest.raises(
        ConfigurationError, match=r"predict needs to know whose calls they are: have \{user_id\} in the"
    ):

        @cache.view("prices:{symbol}", policy=Policy(predict=True))
        async def prices(symbol: str) -> int:
            return 1

    with pytest.raises(ConfigurationError, match="a load made later has no session; let the function get that itself"):

        @cache.view(CART, not_in_key="session", policy=Policy(predict=True))
        async def cart(user_id: int, session: object) -> int:
            return user_id


def test_a_method_cannot_be_predicted() -> None:
    """Its object may be gone."""
    cache = Cache.memory()
    with pytest.raises(ConfigurationError, match="nobody has a method's object later"):

        class Users:
            @cache.view("of:{user_id}", not_in_key="self", policy=Policy(predict=True))
            async def of(self, user_id: int) -> int:
                return user_id


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CACHE_PREDICT", "maybe", "CACHE_PREDICT: 'maybe' is unknown; choose off, shadow, live"),
        ("CACHE_PREDICT_WASTE", "2", "CACHE_PREDICT_WASTE: '2' is not a number from 0 to 1"),
        ("CACHE_PREDICT_PRICE", "much", "CACHE_PREDICT_PRICE: 'much' is not a number from 0 to 100"),
    ],
)
def test_bad_settings_are_named(name: str, value: str, said: str) -> None:
    """With what they may be."""
    with pytest.raises(ConfigurationError, match="CACHE_PREDICT") as refused:
        CacheSettings.from_environment({name: value})
    assert said in str(refused.value)


async def test_what_another_process_reads_counts_here(
    connect: Connect, own_server: PrivateServer, until: Until
) -> None:
    """A balancer that knows no users: what was expected here is read there, what was loaded here is used there."""
    here, there = [Shop(await connect(url=own_server.url)) for _ in range(2)]
    await add_follows(here.cache.client, days_of(here.cache.client)[0], SURE)
    for shop in (here, there):
        await shop.knows()
    for user_id in (7, 8):
        await visited(here, user_id)
    await here.cart(7)
    await until(lambda: here.orders.stats.ahead_loads)
    here.predictor.forecaster.budget.tokens = 0.0
    await here.cart(8)
    await here.predictor._ahead.send_reasons()
    people, predictor = here.predictor.forecaster.people, here.predictor
    (loaded,) = people.get(("user_id", 7)).expected.values()  # type: ignore[union-attr] # known
    (not_loaded,) = people.get(("user_id", 8)).expected.values()  # type: ignore[union-attr] # known
    own_server.pause()  # an answer that takes longer than the load took makes nothing older than it is
    asyncio.get_running_loop().call_later(0.1, own_server.resume)
    assert [await predictor._elsewhere(each) for each in (loaded, not_loaded)] == [FoundElsewhere.MISSED] * 2
    for user_id in (7, 8):
        await there.orders(user_id, "open")
    assert there.loaded == [(8, "open")]
    await there.predictor.settle()
    for each in (loaded, not_loaded):
        found = await predictor._elsewhere(each)
        assert found is FoundElsewhere.READ
        predictor.forecaster.outcomes.settled(each, found, now_s())
    assert (here.orders.stats.ahead_used, here.orders.stats.shadow_right) == (1, 1)
    await visited(here, 9)
    await there.orders(9, "open")
    entry = entry_of(there, 9)

    async def left_ms() -> int:
        return int(await there.cache.client.entries.call("PTTL", entry, key=entry))

    whole_ms = await left_ms()

    async def has_aged() -> bool:
        return await left_ms() < whole_ms - 200

    await until(has_aged, "older than what an answer takes")
    await here.cart(9)
    (ready,) = people.get(("user_id", 9)).expected.values()  # type: ignore[union-attr] # known
    assert await predictor._elsewhere(ready) is FoundElsewhere.READY


async def test_what_nobody_reads_was_wasted(shop: Shop, until: Until) -> None:
    """Once its time is over, and Redis knows of nobody who has."""
    await visited(shop, 7)
    await shop.cart(7)
    await until(lambda: shop.orders.stats.ahead_loads)
    (late,) = shop.predictor.forecaster.expire(now_s() + 300)
    found = await shop.predictor._elsewhere(late)
    shop.predictor.forecaster.outcomes.settled(late, found, now_s())
    assert (shop.orders.stats.ahead_used, shop.orders.stats.ahead_wasted) == (0, 1)
