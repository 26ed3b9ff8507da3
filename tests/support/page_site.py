"""A small deployment with a live page: two views, handlers, jobs, limits, sessions, and things that go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette

from cachebus import Cache
from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects, Invalidate
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.events import Event
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.monitoring.page import LivePage
from cachebus.schedules.decorators import every
from cachebus.schedules.scheduler import Scheduler
from cachebus.sessions.store import SessionStore
from tests.support.waiting import until

SUMMARY = "portfolio:{user_id}:summary"
COOKIE = "sid"
"""Not `__Host-sid`: that one needs TLS everywhere but on localhost."""


@on("trade:created", dict)
def traded(trade: dict[str, int], event: Event) -> Effects:
    """A trade changes its user's portfolio."""
    del event
    yield Invalidate(tags=[f"user:{trade['user_id']}"])
    yield Broadcast(f"user:{trade['user_id']}", "portfolio.changed", {})


@on("price:imported", dict)
def priced(price: dict[str, str]) -> Effects:
    """A price changes everything valued at it."""
    yield Invalidate(tags=[f"market:{price['symbol']}"], prefix="analytics:")
    yield Broadcast(f"market:{price['symbol']}", "price.changed", price)


def broken_until(mended: asyncio.Event) -> object:
    """Return a handler that fails until *mended*."""

    @on("mail:requested", dict, retries=0)
    async def mailed(mail: dict[str, str]) -> Effects:
        """A mail is sent."""
        if not mended.is_set():
            raise ConnectionRefusedError(f"smtp.example.com refuses {mail['to']}: 451 try again later")
        return [Broadcast("mail", "mail.sent", mail)]

    return mailed


@every("1h", name="warm.portfolios")
async def warm() -> None:
    """Do nothing, quickly."""


@every("15m", name="report.daily")
async def report() -> None:
    """Fail."""
    raise FileNotFoundError("no template for the daily report")


@dataclass
class Site:
    """What a test talks to."""

    url: str
    app: Starlette
    cache: Cache
    bus: Bus
    sessions: SessionStore
    consumer: Consumer
    scheduler: Scheduler
    mended: asyncio.Event
    """Set it, and mails are sent."""

    async def admin(self) -> dict[str, str]:
        """Return the cookie of an admin."""
        return {COOKIE: await self.sessions.create("ada", {"role": "admin"})}


def declare(cache: Cache) -> None:
    """Declare the views."""

    @cache.view("portfolio:{user_id}:summary", ttl="5m", tags=["user:{user_id}"])
    async def summary(user_id: int) -> dict[str, float]:
        await asyncio.sleep(0.012)
        return {"user_id": user_id, "value": 1000.0 * user_id, "cash": 12.5}

    @cache.view("portfolio:{user_id}:trades:{page}", ttl="15m", tags=["user:{user_id}"])
    async def trades(user_id: int, page: int) -> list[dict[str, float]]:
        await asyncio.sleep(0.03)
        return [{"price": 10.0 * row, "quantity": user_id, "page": page} for row in range(40)]

    @cache.view("market:{symbol}:quote", ttl="30s", tags=["market:{symbol}"])
    async def quote(symbol: str) -> float:
        await asyncio.sleep(0.004)
        return float(len(symbol))

    @cache.view("analytics:sectors:{day}", ttl="1h")
    async def sectors(day: str) -> dict[str, float]:
        await asyncio.sleep(0.12)
        return {f"sector {number} on {day}": number / 7 for number in range(60)}


@asynccontextmanager
async def site(cache: Cache, *, open_to_all: bool = True) -> AsyncIterator[Site]:
    """Serve the page of a connected cache, with what a worker runs beside it."""
    declare(cache)
    client, mended = cache.client, asyncio.Event()
    handlers = (traded, priced, broken_until(mended))
    consumer = Consumer(
        client,
        handlers,  # type: ignore[arg-type] # of several types of event
        worker="worker-1",
        options=ConsumerOptions(
            on_committed=lambda commit: cache.observed.committed(commit.oldest_ms, commit.events, commit.scopes)
        ),
    )
    scheduler = Scheduler(client, [warm, report], worker="worker-1")
    sessions = SessionStore(client)
    page = LivePage(
        cache,
        sessions=sessions,
        scheduler=scheduler,
        sockets_of=lambda _: 1,
        cookie=COOKIE,
        open_to_all=open_to_all,
    )
    running = [asyncio.create_task(part.run()) for part in (consumer, scheduler)]
    try:
        app = Starlette(routes=page.routes())
        async with served(app) as url:
            yield Site(url, app, cache, Bus(client), sessions, consumer, scheduler, mended)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """Serve *app* on a free port of this machine."""
    opened = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve([opened]))
    try:
        await until(lambda: server.started, "a server that listens")
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        opened.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: they are the test's."""
        yield


async def flushed(*caches: Cache) -> None:
    """Have processes say at once what they counted."""
    for cache in caches:
        assert cache._running is not None
        assert cache._running.reporter is not None
        await cache._running.reporter.flush()


async def fail_mails(shop: Site, *people: str) -> None:
    """Publish what cannot be handled, and wait until it is a dead letter each."""
    letters = DeadLetters(shop.cache.client)
    before = await letters.count()
    for person in people:
        await shop.bus.publish("mail:requested", {"to": person})

    async def dead() -> bool:
        return await letters.count() == before + len(people)

    await until(dead, "the dead letters")


async def fail_a_mail(shop: Site) -> str:
    """Publish what cannot be handled; returns the id of the dead letter."""
    await shop.bus.publish("mail:requested", {"to": "ada@example.com"}, id="mail-1")
    letters = DeadLetters(shop.cache.client)
    (letter,) = await until(letters.newest, "a dead letter")
    return str(letter.letter_id)
