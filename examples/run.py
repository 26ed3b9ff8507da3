"""The whole system on one machine: server, database with real prices, worker, applications, a listener, a live status.

`python -m examples.run` until Ctrl-C; `--demo` for a while, then a verdict and an exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from cachebus import Cache, ServerError
from cachebus.backlog import backlog
from cachebus.embedded import EmbeddedServer
from cachebus.roster import workers
from cachebus.scheduler import Scheduler
from examples.board import Board, ms, percentile
from tradesense.database import database
from tradesense.seed import seed
from tradesense.tables import outbox
from worker.commands.stats import Stats
from worker.loading import load
from worker.settings import Settings

LOG = Path(".data/worker.log")
APPS = ("app-a", "app-b")
GATEWAY_PORT = 8080
WORKER_PORT = 8081
APP_PORT = 8000
TRY = '{"user_id": 7, "action": "new_trade"}'
SHOW_S = 1.0
AGAIN_S = 1.0
"""A process that died is started again after this long."""
DEMO_S = 20.0
SETTLE_S = 8.0
"""After the demo's traffic ends, what is under way may take this long."""
WANTED_HIT_RATE = 0.8

Said = Callable[[dict[str, Any]], None]
"""Called with each line of JSON a process prints."""


class Process:
    """A child process of ours, started again when it dies, stopped with us."""

    def __init__(self, name: str, arguments: tuple[str, ...], environment: dict[str, str], said: Said | None) -> None:
        self.name = name
        self.restarts = 0
        self._arguments = arguments
        self._environment = {**os.environ, **environment}
        self._said = said
        self._stopping = False
        self._child: asyncio.subprocess.Process | None = None
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self, patience_s: float = 12.0) -> int:
        """Ask it to stop, insist if it does not; returns its exit code."""
        self._stopping = True
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self._keeper], timeout=patience_s)
        if not done and self._child is not None:
            self._child.kill()
            await self._keeper
        return -1 if self._child is None or self._child.returncode is None else self._child.returncode

    async def _keep(self) -> None:
        while not self._stopping:
            log = LOG.open("ab") if self._said is None else None  # noqa: ASYNC230 - a local file, opened once
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._arguments,
                env=self._environment,
                stdout=log or asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours to pass on
                limit=1 << 20,
            )
            if log is not None:
                log.close()
            print(f"{self.name:<10} pid {self._child.pid}", flush=True)
            if self._said is not None and self._child.stdout is not None:
                async for line in self._child.stdout:
                    with contextlib.suppress(ValueError):
                        self._said(json.loads(line))
            await self._child.wait()
            if not self._stopping:
                self.restarts += 1
                await asyncio.sleep(AGAIN_S)


async def set_up() -> None:
    """Fill the database on the first run, with progress."""

    def progress(what: str, share: float) -> None:
        if sys.stdout.isatty():
            print(
                f"\r  setting up: {what:<9} {share:4.0%}",
                end="\n" if share >= 1 and what == "ready" else "",
                flush=True,
            )

    done = await seed(progress=progress)
    print(f"database   {done.users:,} users, {done.trades:,} trades, {done.bars:,} real daily prices", flush=True)
    await database.close()


async def watch(cache: Cache, board: Board, settings: Settings) -> None:
    """Look at the worker's side each second, as `python -m worker stats` does."""
    scheduler = Scheduler(cache.link, load(settings.application).jobs)
    while True:
        with contextlib.suppress(ServerError):
            waits = await backlog(cache.link, settings.bus.shards)
            if board.stats is None:
                board.dead_before = waits.dead_letters
            board.stats = Stats(await workers(cache.link), waits, await scheduler.status())
            board.now_us = cache.link.now_us()
        board.show()
        await asyncio.sleep(SHOW_S)


async def run(seconds: float | None) -> int:
    """Run everything for so long, or until Ctrl-C."""
    stop = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    await set_up()
    settings = Settings.from_environment(os.environ)
    server = None
    url = settings.cache.url
    if url is None:
        server = await asyncio.to_thread(EmbeddedServer.start)
        url = server.url
        print(f"server     embedded {server.kind} {server.version} at {url}", flush=True)
    LOG.parent.mkdir(exist_ok=True)
    board = Board()
    environment = {"REDIS_URL": url, "LOG_FORMAT": "json"}
    pages = open_port(WORKER_PORT)
    of_worker = {"PORT": str(pages), "HOST": "127.0.0.1", "OUTBOX": "tradesense.tables:outbox"}
    worker = Process("worker", ("-m", "worker"), {**environment, **of_worker}, None)
    apps = [Process(name, ("-m", "examples.traffic", name), environment, board.hear) for name in APPS]
    listener = Process("listener", ("-m", "examples.listener"), environment, board.hear_listener)
    web = serve_browsers(environment)
    print(f"jobs       http://localhost:{pages}/   the live page of the worker, with its schedules")
    print(f"log        {LOG}")
    print(f"try        redis-cli -u {url} PUBLISH trade:updates '{TRY}'\n", flush=True)
    code = -1
    try:
        async with Cache(url) as cache:
            watching = asyncio.create_task(watch(cache, board, settings))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), seconds)
            await asyncio.gather(*[app.stop() for app in apps])
            await drained(board)
            await listener.stop()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    finally:
        code = await worker.stop()
        await asyncio.gather(*[process.stop() for process in (*apps, listener, *web)])
        if server is not None:
            await asyncio.to_thread(server.stop)
    return verdict(board, code) if seconds is not None else 0


def serve_browsers(environment: dict[str, str]) -> list[Process]:
    """Start the gateway and the application with a page, and say where they are."""
    gateway, app = open_port(GATEWAY_PORT), open_port(APP_PORT)
    gateway_url, app_url = f"http://localhost:{gateway}/", f"http://localhost:{app}"
    settings = {"PORT": str(gateway), "HOST": "127.0.0.1", "GATEWAY_ORIGINS": app_url, "GATEWAY_COOKIE": "sid"}
    settings["GATEWAY_DRAIN"] = "100ms"
    command = ("-m", "uvicorn", "examples.fastapi_app.app:app", "--port", str(app), "--log-level", "warning")
    print(f"live page  {gateway_url}")
    print(f"portfolio  {app_url}/?user=7   changes by itself when user 7 trades")
    return [
        Process("gateway", ("-m", "gateway"), {**environment, **settings}, None),
        Process("web", command, {**environment, "GATEWAY_URL": gateway_url}, None),
    ]


def open_port(wanted: int) -> int:
    """Return *wanted*, or some other port where somebody else has it."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as found:
            return int(found.getsockname()[1])
    return wanted


async def drained(board: Board) -> None:
    """Wait until the worker has published what lies in the outbox, and handled what was published."""
    ends = time.monotonic() + SETTLE_S
    while time.monotonic() < ends:
        async with database.reading() as connection:
            board.unsent = await connection.scalar(select(func.count()).select_from(outbox.table)) or 0
        await asyncio.sleep(SHOW_S)
        waiting = 0 if board.stats is None else sum(shard.waiting for shard in board.stats.backlog.shards)
        if not board.unsent and board.stats is not None and not waiting:
            break
    await database.close()


def verdict(board: Board, worker_code: int) -> int:
    """Say whether everything that must hold did; 0 if so."""
    waiting = -1 if board.stats is None else sum(shard.waiting for shard in board.stats.backlog.shards)
    dead = -1 if board.stats is None else board.stats.backlog.dead_letters - board.dead_before
    checks = {
        f"events were published ({board.published}, {board.total('outbox')} by outbox)": board.total("published") > 0,
        f"every event left the outbox ({board.unsent} wait)": board.unsent == 0,
        f"every event was handled ({waiting} wait, {dead} dead letters)": waiting == 0 and dead == 0,
        f"every broadcast arrived ({board.total('missing')} missing)": board.total("missing") == 0,
        f"the feed has no hole ({board.broadcasts} broadcasts followed)": board.holes == 0 < board.broadcasts,
        f"no read was stale ({board.total('stale')} of {board.total('reads'):,})": board.total("stale") == 0,
        f"hit rate {board.hit_rate:.1%} is above {WANTED_HIT_RATE:.0%}": board.hit_rate > WANTED_HIT_RATE,
        f"the worker drained and left with code {worker_code}": worker_code == 0,
    }
    print(f"\nevent -> fresh: p50 {ms(percentile(board.fresh, 0.5))}, p95 {ms(percentile(board.fresh, 0.95))}")
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
