"""A web application without the web: reads views for users who look, records trades, publishes events.

`python -m examples.traffic NAME` prints a line of JSON each second: what it did, and whether a read was stale.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from cachebus import Bus, Client, ServerError
from tradesense import recording
from tradesense.database import database
from tradesense.events import SettingsEvent, TradeEvent
from tradesense.market import INSTRUMENTS
from tradesense.results import Grouping
from tradesense.seed import USERS
from tradesense.views import (
    analytics,
    cache,
    market_data,
    portfolio,
    reference_data,
    risk_figures,
    statistics,
    user_profile,
)

READERS = 4
LOOK_S = 0.02
"""A reader's pause between two looks: 4 readers, about 150 reads a second."""
TRADE_S = 0.7
SETTINGS_S = 3.0
PLAIN = 0.2
"""Of the trades, how many are announced by a plain PUBLISH."""
OUTBOX = 0.2
"""Of the trades, how many are announced by the transaction that records them."""
HOT_USERS = 40
"""Most looks go to a few users, as they do."""
PROMISE_S = 15.0
"""A broadcast that has not come after this long is counted as missing."""


class Counts:
    """What this process did since it last said so, and since it began."""

    def __init__(self) -> None:
        self.published = self.plain = self.outbox = 0
        self.reads = self.stale = self.heard = self.missing = self.errors = 0
        self.fresh_ms: list[float] = []
        """From publishing an event to reading the new value here, load included."""
        self.elsewhere_ms: list[float] = []
        """From the commit of somebody's event to reading the new value here."""

    def line(self, name: str) -> str:
        """Return all of it as JSON; the latencies start empty."""
        stats = cache.stats()
        said = {
            **{field: value for field, value in vars(self).items() if isinstance(value, int)},
            "app": name,
            "fresh_ms": [round(ms, 2) for ms in self.fresh_ms],
            "elsewhere_ms": [round(ms, 2) for ms in self.elsewhere_ms],
            "l1": stats.totals.l1_hits + stats.totals.joined,
            "l2": stats.totals.l2_hits,
            "loads": stats.totals.loads,
            "lag_ms": None if stats.journal_lag_ms is None else round(stats.journal_lag_ms, 1),
            "up": stats.up,
        }
        self.fresh_ms, self.elsewhere_ms = [], []
        return json.dumps(said)


class App:
    """One process of an application."""

    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self.counts = Counts()
        self._client = client
        self._bus = Bus(client)
        self._draw = random.Random(name)  # noqa: S311 - users look at random, nothing is secret
        self._awaited: dict[int, asyncio.Future[int]] = {}
        self._early: dict[int, int] = {}
        self._seen = client.names.bus("example", "seen")

    # -- people who look --------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """One look at something, as a page would."""
        user = self._user()
        pages: list[tuple[int, Callable[[], Awaitable[Any]]]] = [
            (40, lambda: portfolio(user)),
            (20, lambda: analytics(user)),
            (10, lambda: user_profile(user)),
            (20, lambda: market_data(self._draw.choice(list(INSTRUMENTS)))),
            (4, lambda: risk_figures(user)),
            (4, statistics),
            (2, reference_data),
        ]
        (page,) = self._draw.choices([page for _, page in pages], weights=[weight for weight, _ in pages])
        await page()
        self.counts.reads += 1

    def _user(self) -> int:
        if self._draw.random() < 0.97:
            return 1 + int(HOT_USERS * self._draw.random() ** 2)
        return self._draw.randint(1, USERS)

    # -- people who trade -------------------------------------------------------------------------------------------

    async def trade(self) -> None:
        """Record a trade, say so, and read the portfolio once the broadcast says that it is counted."""
        user, symbol = self._user(), self._draw.choice(list(INSTRUMENTS))
        price = (await market_data(symbol)).bars[-1].close
        quantity, by_outbox = self._draw.randint(1, 20), self._draw.random() < OUTBOX
        count = await recording.count_trades(user) + 1  # at least so many when the event is handled
        self._early.clear()
        trade_id = await recording.record_trade(user, symbol, "buy", quantity, price, announce=by_outbox)
        self._awaited[trade_id] = told = asyncio.get_running_loop().create_future()
        if trade_id in self._early:
            told.set_result(self._early[trade_id])
        started = time.perf_counter()
        if by_outbox:
            self.counts.outbox += 1
        else:
            await self._publish(TradeEvent(user, "new_trade", trade_id=trade_id, symbol=symbol))
        try:
            clock = await asyncio.wait_for(told, PROMISE_S)
        except TimeoutError:
            self.counts.missing += 1
            return
        finally:
            del self._awaited[trade_id]
        await self._expect(user, count, clock)
        if not by_outbox:  # that one goes out when the relay looks: each second, on SQLite
            self.counts.fresh_ms.append((time.perf_counter() - started) * 1000)
        await self._client.store.call("HSET", self._seen, user, f"{clock}:{count}")
        await self._client.store.call("EXPIRE", self._seen, 3600)

    async def _publish(self, event: TradeEvent) -> None:
        """Mostly through the bus; now and then as any program with a Redis client would.

        A plain message that nobody listens to is gone, and PUBLISH says so: then the bus, which keeps it.
        """
        message = {"user_id": event.user_id, "action": event.action, "trade_id": event.trade_id}
        plain = self._draw.random() < PLAIN
        if plain and await self._client.store.call("PUBLISH", "trade:updates", json.dumps(message)):
            self.counts.plain += 1
        else:
            await self._bus.publish("trade:updates", event, key=f"user:{event.user_id}")
            self.counts.published += 1

    async def change_settings(self) -> None:
        """Change how a user's figures are grouped."""
        user = self._user()
        await recording.change_settings(user, grouping=self._draw.choice(list(Grouping)))
        await self._bus.publish("settings:updates", SettingsEvent(user, ("grouping",)), key=f"user:{user}")

    # -- what was promised ------------------------------------------------------------------------------------------

    def heard(self, _channel: str, payload: bytes) -> None:
        """A broadcast came: the browsers of this process would read again."""
        self.counts.heard += 1
        message = json.loads(payload)
        clock = str(message["fresh_after"])
        data = message["data"]
        waiting = self._awaited.get((data or {}).get("trade_id") or 0)
        if waiting is not None and not waiting.done():
            waiting.set_result(clock)
        elif message["type"].startswith("trade."):
            if data and data.get("trade_id"):
                self._early[data["trade_id"]] = clock  # perhaps one that is just being recorded
            user = int(message["topic"].partition(":")[2])
            task = asyncio.create_task(self._read_again(user, clock))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _read_again(self, user: int, clock: str) -> None:
        with cache.reading(fresh_after=clock):
            await portfolio(user)
        self.counts.elsewhere_ms.append((self._client.now_us() - int(clock.partition(".")[0])) / 1000)

    async def check(self) -> None:
        """Is what another process made sure of true here?"""
        reply = await self._client.store.call("HRANDFIELD", self._seen, 1, "WITHVALUES")
        if reply:
            clock, _, count = reply[1].decode().partition(":")
            await self._expect(int(reply[0]), int(count), clock)

    async def _expect(self, user: int, count: int, clock: str) -> None:
        with cache.reading(fresh_after=clock):
            summary = await portfolio(user)
        self.counts.reads += 1
        self.counts.stale += summary.trades < count


async def forever(work: Callable[[], Awaitable[None]], pause_s: float, counts: Counts) -> None:
    """Do *work* again and again; an outage is counted and waited out."""
    while True:
        try:
            await work()
        except ServerError:
            counts.errors += 1
        await asyncio.sleep(random.uniform(0.5, 1.5) * pause_s)  # noqa: S311 - people are not regular


async def main(name: str) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    async with cache:
        app = App(name, cache.client)
        await cache.client.subscriptions.subscribe("ws:*", app.heard, pattern=True)
        work = [(app.look, LOOK_S)] * READERS
        work += [(app.trade, TRADE_S), (app.change_settings, SETTINGS_S), (app.check, 0.5)]
        tasks = [asyncio.create_task(forever(what, pause, app.counts)) for what, pause in work]
        while not stop.is_set():
            print(app.counts.line(name), flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        print(app.counts.line(name), flush=True)
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "app"))
