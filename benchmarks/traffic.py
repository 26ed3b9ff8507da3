"""The processes of a soak: who publishes, who reads, and a worker whose allocations are traced.

`python -m benchmarks.traffic publish|read SECONDS RATE`, and `work FOLDER`; servers are named by the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachebus import Client
from cachebus.bus.publisher import Bus
from tradesense import views
from tradesense.database import database
from tradesense.events import MarketEvent, SettingsEvent, TradeEvent
from tradesense.market import INSTRUMENTS

USERS, TRADES = 500, 25_000
TICK_S = 0.05
READERS = 4
FRAMES = 4
"""Of each traced allocation. With twelve the worker is too slow to keep up with anything."""


def event(draw: random.Random) -> tuple[str, TradeEvent | SettingsEvent | MarketEvent, str]:
    """Return a channel, an event and its ordering key: mostly trades, then settings, rarely a bar."""
    kind, user_id = draw.random(), draw.randint(1, USERS)
    if kind < 0.0005:
        symbol = draw.choice(list(INSTRUMENTS))
        return "market:bars", MarketEvent(symbol), symbol
    if kind < 0.2:
        return "settings:updates", SettingsEvent(user_id, ("theme", "grouping")), str(user_id)
    action = draw.choices(("new_trade", "updated_trade", "deleted_trade"), (8, 1, 1))[0]
    trade = TradeEvent(user_id, action, draw.randint(1, TRADES), draw.choice(list(INSTRUMENTS)))  # type: ignore[arg-type]  # one of its literals
    return "trade:updates", trade, str(user_id)


async def publish(seconds: float, rate: float) -> None:
    """Publish at *rate*; what an outage held up is made up for. Prints how many were accepted."""
    draw, sent = random.Random(1), 0  # noqa: S311 - the same events every time
    async with Client(os.environ["REDIS_URL"]) as client:
        bus, began = Bus(client), time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            due = [event(draw) for _ in range(min(2_000, int(passed * rate) - sent))]
            await asyncio.gather(*[bus.publish(channel, body, key=key) for channel, body, key in due])
            sent += len(due)
            await asyncio.sleep(max(0.0, TICK_S - (time.monotonic() - began - passed)))
    print(json.dumps({"published": sent}))


async def read(seconds: float, rate: float) -> None:
    """Read pages of users as browsers would. Prints how many, how they were answered, and the tasks now and then."""
    draw, tasks = random.Random(2), []  # noqa: S311 - the same pages every time
    began = time.monotonic()
    async with views.cache as cache:

        async def browse(turn: int) -> None:
            pages: list[Callable[[int], Any]] = [views.portfolio, views.user_settings, views.user_profile]
            pages += [views.analytics, views.risk_figures]
            others: list[Callable[[], Any]] = [views.statistics, views.reference_data]
            others += [lambda: views.market_data(draw.choice(list(INSTRUMENTS)))]
            for number in range(int(seconds * rate / READERS)):
                await asyncio.sleep(max(0.0, began + (number + turn / READERS) * READERS / rate - time.monotonic()))
                if time.monotonic() - began > seconds:
                    return
                if draw.random() < 0.3:
                    await draw.choice(others)()
                else:
                    await draw.choices(pages, (4, 4, 2, 2, 1))[0](draw.randint(1, USERS))
                if turn == 0 and number % 100 == 99:
                    tasks.append(len(asyncio.all_tasks()))

        await asyncio.gather(*[browse(turn) for turn in range(READERS)])
        totals = cache.stats().totals
    await database.close()
    counts = {name: getattr(totals, name) for name in ("l1_hits", "l2_hits", "joined", "loads", "load_errors")}
    print(json.dumps({**counts, "tasks": tasks}))


def traced_worker(folder: Path) -> int:
    """Be a worker whose allocations are traced: SIGUSR2 writes a snapshot into *folder*."""
    from cachebus.worker.cli import main as work  # noqa: PLC0415 - the others do without

    def dump(*_: object) -> None:
        tracemalloc.take_snapshot().dump(str(folder / f"{len(list(folder.glob('*.snapshot')))}.snapshot"))

    tracemalloc.start(FRAMES)
    signal.signal(signal.SIGUSR2, dump)
    return work(["run"])


if __name__ == "__main__":
    if sys.argv[1] == "work":
        sys.exit(traced_worker(Path(sys.argv[2])))
    work: Callable[[float, float], Any] = {"publish": publish, "read": read}[sys.argv[1]]
    asyncio.run(work(float(sys.argv[2]), float(sys.argv[3])))
