"""The whole system on one machine: server, database with real prices, worker, gateway, applications, a live status.

`python -m examples.run` until Ctrl-C; `--demo` for a while, then a verdict and an exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from sqlalchemy import func, select

from cachebus import Cache, ServerError
from cachebus.bus.backlog import backlog
from cachebus.monitoring.page import one_use_code
from cachebus.monitoring.workers import workers
from cachebus.redis.embedded.embedded import EmbeddedServer
from cachebus.schedules.scheduler import Scheduler
from cachebus.worker.commands.state.stats import Stats
from cachebus.worker.loading import load
from cachebus.worker.settings import WorkerSettings
from examples.figures import Figures, percentile
from examples.processes import LOG, Process, Site
from examples.screen import Screen, ms
from tradesense.database import database
from tradesense.seed import seed
from tradesense.tables import outbox
from worker.__main__ import TRADESENSE

APPS = ("app-a", "app-b")
APP_PORT, GATEWAY_PORT, WORKER_PORT = 8000, 8080, 8081
TRADE = '{"user_id": 7, "action": "new_trade"}'
PYTHON = os.path.relpath(sys.executable)
SHOW_S = 1.0
DEMO_S = 20.0
DAY_S = 86_400
SETTLE_S = 8.0
"""After the demo's traffic ends, what is under way may take this long."""
WANTED_HIT_RATE = 0.8


async def set_up(console: Console) -> None:
    """Fill the database on the first run, with progress."""
    columns = (TextColumn("database     {task.description}"), BarColumn(30), TextColumn("{task.percentage:3.0f} %"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("users", total=1.0)
        done = await seed(progress=lambda what, share: bars.update(task, description=what, completed=share))
    console.print(f"database     {done.users:,} users, {done.trades:,} trades, {done.bars:,} real daily prices")
    await database.close()


async def watch(cache: Cache, screen: Screen, settings: WorkerSettings) -> None:
    """Look at the worker's side each second, as `python -m worker stats` does."""
    figures, scheduler = screen.figures, Scheduler(cache.client, load(settings.application).jobs)
    while True:
        with contextlib.suppress(ServerError):
            waits = await backlog(cache.client, settings.bus.shards)
            if figures.stats is None:
                figures.dead_before = waits.dead_letters
            figures.stats = Stats(await workers(cache.client), waits, await scheduler.status())
            figures.now_us = cache.client.now_us()
        screen.update()
        await asyncio.sleep(SHOW_S)


class System:
    """Every process of the example, on the server at *url*."""

    def __init__(self, url: str, screen: Screen) -> None:
        environment = {"REDIS_URL": url, "LOG_FORMAT": "json"}
        relay = {"OUTBOX": "tradesense.tables:outbox"}
        figures, told = screen.figures, screen.say
        self._screen = screen
        # First what people look at first.
        page = ("-m", "uvicorn", "tradesense.web.app:app", "--fd", "{fd}", "--log-level", "warning")
        self.page = Site("page", APP_PORT, page, environment, told)
        gateway = {**environment, "GATEWAY_DRAIN": "100ms"}
        self.gateway = Site("gateway", GATEWAY_PORT, ("-m", "gateway"), gateway, told)
        # Neither has begun yet: a child starts when this process next waits, in the order they are named here.
        self.page.environment["GATEWAY_URL"] = f"http://localhost:{self.gateway.port}/"
        self.gateway.environment["GATEWAY_ORIGINS"] = f"http://localhost:{self.page.port}"
        self.worker = Site("worker", WORKER_PORT, ("-m", "worker"), {**environment, **relay}, told)
        self.apps = [Process(name, ("-m", "examples.traffic", name), environment, figures.hear, told) for name in APPS]
        self.listener = Process("listener", ("-m", "examples.listener"), environment, figures.hear_listener, told)

    @property
    def processes(self) -> list[Process]:
        """All of them."""
        return [self.worker, *self.apps, self.listener, self.page, self.gateway]

    async def announce(self, screen: Screen, cache: Cache) -> None:
        """Show each link once what it leads to listens, the dashboard's first; one to a live page signs in, once."""

        async def link(what: str, site: Site, path: str) -> None:
            if await site.answers():
                where = f"http://localhost:{site.port}{path}"
                screen.links.append((what, where))
                if not screen.drawn:
                    screen.say(f"{what:<12} {where}")

        await link("dashboard", self.page, "/#user=7")
        await asyncio.gather(
            link("live page", self.gateway, f"/#enter={await one_use_code(cache.client, lasts_s=DAY_S)}"),
            link("with jobs", self.worker, f"/#enter={await one_use_code(cache.client, lasts_s=DAY_S)}"),
        )

    async def stop(self) -> int:
        """End the traffic, wait until what it caused is done, then stop the rest; returns the worker's exit code."""
        await asyncio.gather(*[self._stop(app) for app in self.apps])
        await self._drain()
        others = (self.listener, self.page, self.gateway)
        code, *_ = await asyncio.gather(self._stop(self.worker), *[self._stop(each) for each in others])
        return code

    async def _drain(self) -> None:
        """Wait until the worker has published what lies in the outbox, and handled what was published."""
        figures, ends = self._screen.figures, time.monotonic() + SETTLE_S
        while self.worker.alive and time.monotonic() < ends:
            async with database.reading() as connection:
                figures.unsent = await connection.scalar(select(func.count()).select_from(outbox.table)) or 0
            await asyncio.sleep(SHOW_S)
            if not figures.unsent and figures.waiting == 0:
                break
            self._screen.say(f"waiting      {figures.waiting} events to be handled, {figures.unsent} in the outbox")
        await database.close()

    async def _stop(self, process: Process) -> int:
        code = await process.stop()
        self._screen.say(
            f"stopped      {process.name}" + (f", exit code {code}" if code not in (0, -signal.SIGTERM) else "")
        )
        return code


async def run(seconds: float | None) -> int:
    """Run everything for so long, or until Ctrl-C."""
    console = Console(highlight=False, markup=False)
    stop = asyncio.Event()
    system: System | None = None

    def asked() -> None:
        if stop.is_set():  # the second time: at once
            console.print("killing what still runs")
            for process in system.processes if system is not None else ():
                process.kill()
        stop.set()

    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, asked)
    await set_up(console)
    settings = WorkerSettings.from_environment({**TRADESENSE, **os.environ})
    server = None
    url = settings.cache.url
    if url is None:
        server = await asyncio.to_thread(EmbeddedServer.start)
        url = server.url
        console.print(f"server       embedded {server.kind} {server.version} at {url}")
    figures = Figures()
    screen = Screen(figures, console)
    console.print(f"log          {LOG}")
    command = f"{PYTHON} -m worker publish trade:updates {shlex.quote(TRADE)}"
    console.print(f"try          {command}", soft_wrap=True)
    system = System(url, screen)
    code = -1
    try:
        async with Cache(url) as cache:
            watching = [
                asyncio.create_task(each) for each in (watch(cache, screen, settings), system.announce(screen, cache))
            ]
            with screen.shown():
                await asyncio.wait([asyncio.ensure_future(stop.wait())], timeout=seconds)
            screen.say("stopping     applications, then the worker once it is done; Ctrl-C again kills")
            code = await system.stop()
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
    finally:
        await asyncio.gather(*[process.stop() for process in system.processes])
        if server is not None:
            await asyncio.to_thread(server.stop)
    return verdict(figures, code) if seconds is not None else 0


def verdict(figures: Figures, worker_code: int) -> int:
    """Say whether everything that must hold did; 0 if so."""
    waiting, dead = figures.waiting, figures.dead_letters
    checks = {
        f"events were published ({figures.published}, {figures.total('outbox')} by outbox)": figures.published > 0,
        f"every event left the outbox ({figures.unsent} wait)": figures.unsent == 0,
        f"every event was handled ({waiting} wait, {dead} dead letters)": waiting == dead == 0,
        f"every broadcast arrived ({figures.total('missing')} missing)": figures.total("missing") == 0,
        f"the feed has no hole ({figures.broadcasts} broadcasts followed)": figures.holes == 0 < figures.broadcasts,
        f"no read was stale ({figures.total('stale')} of {figures.total('reads'):,})": figures.total("stale") == 0,
        f"hit rate {figures.hit_rate:.1%} is above {WANTED_HIT_RATE:.0%}": figures.hit_rate > WANTED_HIT_RATE,
        f"the worker drained and left with code {worker_code}": worker_code == 0,
    }
    print(f"\nevent to fresh: p50 {ms(percentile(figures.fresh, 0.5))}, p95 {ms(percentile(figures.fresh, 0.95))}")
    for what, holds in checks.items():
        print(f"{'ok  ' if holds else 'FAIL'} {what}")
    return 0 if all(checks.values()) else 1


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", action="store_true", help=f"run {DEMO_S:g} s, then say whether everything held")
    parser.add_argument("--seconds", type=float, help="run so long instead")
    asked = parser.parse_args()
    return asyncio.run(run(asked.seconds or (DEMO_S if asked.demo else None)))


if __name__ == "__main__":
    sys.exit(main())
