"""The figures of the live page are those of somebody who counts for himself."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import httpx
import pytest

from cachebus import Cache, caused_by
from cachebus.bus.dead_letters import DeadLetters
from cachebus.freshness.clock import parse_clock
from cachebus.locks.locks import Locks
from cachebus.monitoring.history import History
from cachebus.monitoring.layers import READS
from cachebus.monitoring.timeline import Timeline
from cachebus.schedules import store
from cachebus.schedules.decorators import every
from cachebus.schedules.scheduler import Scheduler
from tests.conftest import Connect
from tests.support.page_site import Site, site
from tests.support.waiting import until

ORDERS, PRICE, ANSWER = "orders:{user_id}", "price:{symbol}", "answer:{user_id}"


class Count:
    """What somebody counts who stands beside: the calls they make, and the calls of their own functions."""

    def __init__(self, *caches: Cache) -> None:
        self.reads: Counter[str] = Counter()
        self.loads: Counter[str] = Counter()
        self.invalidations: Counter[str] = Counter()
        for cache in caches:
            self._declare(cache)

    def _declare(self, cache: Cache) -> None:
        @cache.view(ORDERS, ttl="1h", tags=["user:{user_id}"])
        async def orders(user_id: int) -> int:
            self.loads[ORDERS] += 1
            return user_id

        @cache.view(PRICE, ttl="1h", tags=["prices"])
        async def price(symbol: str) -> str:
            self.loads[PRICE] += 1
            await asyncio.sleep(0)
            return symbol

        @cache.view(ANSWER, ttl="1h")
        async def answer(user_id: int | None) -> str:
            self.loads[ANSWER] += 1
            return "no" if user_id is None else "yes"


async def flush(*caches: Cache) -> None:
    """Have processes say at once what they counted."""
    for cache in caches:
        assert cache._running is not None
        assert cache._running.reporter is not None
        await cache._running.reporter.flush()


async def shown(shop: Site, tab: str = "views") -> dict[str, Any]:
    """Return what a tab of the page shows of the last ten minutes."""
    async with httpx.AsyncClient(base_url=shop.url, timeout=30) as browser:
        data: dict[str, Any] = (await browser.get(f"/page/api/{tab}?window=10m")).json()["data"]
        return data


async def test_ten_thousand_operations_are_all_counted_once(connect: Connect) -> None:
    """Reads however they are answered, loads by purpose, invalidations whoever made them, dead letters: all of them."""
    first, second = await connect(), await connect()
    count, draw = Count(first, second), random.Random(16)  # noqa: S311 - no secret
    async with site(first) as shop:
        warmed = refreshed = letters = events = 0
        while count.reads.total() < 10_000:
            cache, user = draw.choice((first, second)), draw.randrange(40)
            symbol = draw.choice("ABCDEF")
            for _ in range(10):
                await cache.views[ORDERS](user)
            await asyncio.gather(*[cache.views[PRICE](symbol) for _ in range(8)])
            await cache.views[ANSWER](draw.choice((None, 7)))
            await cache.get(f"draft:{user}")
            count.reads += Counter({ORDERS: 10, PRICE: 8, ANSWER: 1, "(plain keys)": 1})
            chance = draw.random()
            if chance < 0.1:
                await cache.views[ORDERS].invalidate(user)
                count.invalidations[ORDERS] += 1
            elif chance < 0.2:
                await cache.invalidate(tags=[f"user:{user}", "prices"])
                count.invalidations += Counter({ORDERS: 1, PRICE: 1})
            elif chance < 0.25:
                await cache.invalidate(prefix="orders:")
                count.invalidations[ORDERS] += 1
            elif chance < 0.3:
                before = count.loads[ORDERS]
                await cache.views[ORDERS].warm(user)
                warmed += count.loads[ORDERS] - before
            elif chance < 0.35:
                await shop.bus.publish("trade:created", {"user_id": user})
                count.invalidations[ORDERS] += 1
                events += 1
                published = events + letters
                await until(lambda all_of=published: shop.consumer.stats.events == all_of, "the event")  # type: ignore[misc]
            elif chance < 0.37:
                letters += 1
                await shop.bus.publish("mail:requested", {"to": f"{letters}@example.com"})
        await until(lambda: _letters(first, letters), "the dead letters")
        await flush(first, second)
        rows = {row["name"]: row for row in (await shown(shop))["rows"]}
        now = await shown(shop, "now")
    assert {name: rows[name]["requests"] for name in count.reads} == count.reads
    assert {name: rows[name]["loads"] + rows[name]["bypassed"] for name in count.loads} == count.loads
    assert (rows[ORDERS]["warms"], rows[ORDERS]["refreshes"]) == (warmed, refreshed)
    assert {name: round(rows[name]["invalidations"] * 10) for name in count.invalidations} == count.invalidations
    by_hand = count.invalidations[ORDERS] - events
    assert rows[ORDERS]["causes"] == {"event": events, "process": by_hand}
    assert now["waiting"]["letters"] == letters
    answered = sum(now["reads"][layer] for layer in READS)
    assert answered == count.reads.total()


async def _letters(cache: Cache, number: int) -> bool:
    return await DeadLetters(cache.client).count() == number


async def test_what_is_never_cached_is_no_hit(connect: Connect) -> None:
    """A view that is only read without an identity has no hit rate, and its reads are named."""
    cache = await connect()
    Count(cache)
    async with site(cache) as shop:
        for _ in range(20):
            await cache.views[ANSWER](None)
        await flush(cache)
        rows = (await shown(shop))["rows"]
    (row,) = [row for row in rows if row["name"] == ANSWER]
    assert (row["bypassed"], row["memory"] + row["redis"] + row["joined"] + row["missed"]) == (20, 0)
    assert cache.views[ANSWER].stats.hit_rate == 0.0


async def test_warming_is_no_part_of_the_hit_rate(connect: Connect) -> None:
    """A schedule's hundred loads leave the readers' rate as it was."""
    cache = await connect()
    Count(cache)
    orders = cache.views[ORDERS]
    for user in range(100):
        await orders.warm(user)
    for user in range(100):
        await orders(user)
    assert (orders.stats.warms, orders.stats.loads, orders.stats.hit_rate) == (100, 0, 1.0)


async def test_an_entry_under_several_names_is_counted_once(connect: Connect) -> None:
    """A purge of a user announces what there is, though each entry lies under a tag and under a prefix."""
    cache = await connect()
    async with (
        site(cache) as shop,
        httpx.AsyncClient(
            base_url=shop.url, headers={"Origin": shop.url}, cookies=await shop.admin(), timeout=30
        ) as admin,
    ):
        for page in range(8):
            await cache.views["portfolio:{user_id}:trades:{page}"](7, page)
        reach = {"kind": "user", "name": "7"}
        said = (await admin.get("/page/api/reach", params=reach)).json()["data"]
        assert said["entries"] == 8
        await admin.post("/page/api/purge", json=reach)
        assert (await admin.get("/page/api/reach", params=reach)).json()["data"]["entries"] == 0


@pytest.mark.parametrize("kind", ["admin", "deploy"])
async def test_the_tail_names_who_invalidated(connect: Connect, kind: Any) -> None:
    """The journal says it; nothing is guessed from what happened at about that time."""
    cache = await connect()
    async with site(cache) as shop:
        with caused_by(kind, "ada\n<b>", "release 12"):
            clock = await cache.invalidate(tags="user:7")
        await cache.invalidate(tags="user:8")
        await shop.bus.publish("trade:created", {"user_id": 9}, id="trade-1")
        await until(lambda: shop.consumer.stats.events == 1, "the event")
        steps = await Timeline(cache.client).look()
    named = {step.scopes[0]: step for step in steps if step.scopes}
    (cause,) = named["t:user:7"].causes
    assert (cause.kind, cause.who, cause.what) == (kind, "ada\n<b>", "release 12")
    number = parse_clock(clock)
    assert number is not None
    assert named["t:user:7"].clock == number.number
    assert [cause.kind for cause in named["t:user:8"].causes] == ["process"]
    (event,) = named["t:user:9"].events
    assert (event.id, event.channel, event.handlers) == ("trade-1", "trade:created", ["tests.support.page_site.traded"])


async def test_a_release_leaves_a_mark(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform's commit, once for all its processes, with the time when the first of them reported."""
    for commit in ("0a1b2c3", "0a1b2c3", "4d5e6f7"):
        monkeypatch.setenv("RAILWAY_GIT_COMMIT_SHA", commit)
        cache = await connect()
        await cache.set("greeting", "hello")
        await cache.get("greeting")
        await flush(cache)
    found = await History(cache.client).releases()
    assert [release.name for release in found] == ["4d5e6f7", "0a1b2c3"]
    assert found[0].at_ms > found[1].at_ms
    (*_, process) = await History(cache.client).processes()
    assert process.version


async def test_runs_are_kept_and_what_they_invalidate_names_them(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last runs of a job, newest first, with what went wrong in a line; its invalidations say which job it was."""
    assert store.RUNS_KEPT == 20
    monkeypatch.setattr(store, "RUNS_KEPT", 2)
    cache = await connect()

    @every("1h", name="nightly")
    async def nightly() -> None:
        await cache.invalidate(tags="user:7")
        if scheduler.started > 2:
            raise FileNotFoundError("no template")

    scheduler = Scheduler(cache.client, [nightly], worker="worker-1")
    running = asyncio.create_task(scheduler.run())
    try:
        for runs in (1, 2, 3):
            await scheduler.run_now("nightly")

            async def ended(wanted: int = runs) -> bool:
                (status,) = await scheduler.status()
                return status.runs == wanted

            await until(ended, "the run")
        (status,) = await scheduler.status()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [(run.outcome, run.error) for run in status.history] == [
        ("failed", "FileNotFoundError: no template"),
        ("done", ""),
    ]
    step = (await Timeline(cache.client).look())[-1]
    assert [(cause.kind, cause.who) for cause in step.causes] == [("schedule", "nightly")]


async def test_a_lock_says_since_when(connect: Connect) -> None:
    """However often it is renewed meanwhile."""
    cache = await connect()
    locks = Locks(cache.client, owner="importer")
    async with locks.lock("import", "30s"):
        first = await locks.holder("import")
        second = await locks.holder("import")
    await locks.close()
    assert first is not None
    assert second is not None
    assert 0 <= first.held <= second.held < 30
