"""The gateway of a process: one reader of the feed, one hub, and what is done from time to time.

`Gateway` is mounted in any Starlette or FastAPI application:

    gateway = Gateway(cache, public_topics=["news:*"])

    @asynccontextmanager
    async def lifespan(app):
        async with cache, gateway:
            yield

    app.mount("/live", live_app(gateway))
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import random
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Self

from starlette.requests import HTTPConnection

from cachebus.bus.feed import Feed, Page
from cachebus.cache.upkeep.reporter import process_name
from cachebus.errors import ConfigurationError, ServerError, SessionsUnavailable
from cachebus.freshness.present import newest_clock
from cachebus.gateway.admission import Admission, Origins
from cachebus.gateway.delivery.hub import HEARTBEAT_S, Close, Follower, Hub
from cachebus.gateway.delivery.resume import Recovery
from cachebus.gateway.protocol import traced
from cachebus.gateway.seats import USUAL, ConnectionLimits, Seats
from cachebus.gateway.tickets import Visitor
from cachebus.gateway.topics import Rules
from cachebus.integrations.asgi.address import client_address, network_of
from cachebus.monitoring.sockets import MOST_TOLD, TOPICS_TOLD, OpenSocket, SocketsTold, tell_sockets
from cachebus.process.attention import Attention
from cachebus.process.chained_signals import ChainedSignals
from cachebus.redis.client import Connector
from cachebus.sessions.store import SessionStore
from cachebus.tracing import Tracer, installed
from cachebus.waiting import end

log = logging.getLogger("cachebus.gateway")

COOKIE = "__Host-sid"
"""What `SessionMiddleware` calls its cookie."""
SWEEP_S = 1.0
SESSIONS_S = 30.0
"""A session that ends closes its sockets within this time."""
DRAIN_S = 3.0
"""Clients are sent away over this time, so that they do not come back at one moment."""
AGAIN_S = 0.5
AWAY_S = 3.0
"""The feed answers each second; after this long without an answer clients are told."""


class Gateway:
    """Brings the broadcasts of a deployment to browsers. `async with` it, for as long as the application serves.

    *public_topics* may be followed by every user who is signed in; `user:<id>` by that user. *origins*: whose pages may
    connect, beside the gateway's own. *cookie* carries the session's id. May be made at import time, before the
    cache connects.

    It drains when the process is asked to stop: servers wait for its streams before they end the lifespan.
    """

    heeds_signals = True
    """Whether SIGTERM and SIGINT begin the drain. False where somebody who hears of them calls `drain`."""

    def __init__(
        self,
        connector: Connector,
        *,
        sessions: SessionStore | None = None,
        public_topics: str | Sequence[str] = (),
        origins: str | Sequence[str] = (),
        cookie: str = COOKIE,
        limits: ConnectionLimits = USUAL,
    ) -> None:
        self.hub = Hub(Rules(public_topics), time.monotonic, _wall_ms)
        self.origins = Origins(origins)
        self.admission = Admission(connector, sessions or SessionStore(connector), cookie=cookie)
        self.seats = Seats(limits)
        self.attention = Attention()
        self.draining = False
        self._connector = connector
        self.recovery: Recovery
        self._tasks: list[asyncio.Task[None]] = []
        self._begun = asyncio.Event()
        self._signals = ChainedSignals(self._asked_to_stop)

    async def __aenter__(self) -> Self:
        client = await self._connector.connection()
        if client is None:
            raise ConfigurationError("REDIS_ENABLED=false: there is no feed to pass on without Redis")
        self._client, self._feed = client, Feed(client)
        self.recovery = Recovery(self.hub, self._feed)
        self.draining, self._begun = False, asyncio.Event()  # of this run: one before it may have drained
        if self.heeds_signals:
            self._signals.install()
        for work in (self.attention.run, self._follow, self._tick, self._look_at_sessions, self._tell_sockets):
            self._tasks.append(asyncio.create_task(work(), name=f"gateway {work.__name__}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._signals.remove()
        await end(self._tasks)
        self._tasks.clear()

    @property
    def connected(self) -> int:
        """How many connections there are, with those that have not said hello."""
        return self.seats.taken

    def address(self, request: HTTPConnection) -> str:
        """Return whom a connection counts for: an IPv4 address, or a /64 of IPv6."""
        return network_of(client_address(dict(request.scope), self.seats.limits.proxies))

    async def begun(self) -> None:
        """Return when the feed's place is known, or the gateway drains: who is let in before would miss something."""
        await self._begun.wait()

    async def drain(self, seconds: float = DRAIN_S) -> None:
        """Let nobody in, and send everyone away with 1012, spread over *seconds*."""
        self.draining = True
        self._begun.set()  # who still waits for an absent server goes away as well
        clients = list(self.hub.clients)
        random.shuffle(clients)
        for follower in clients:
            follower.close(Close.RESTART)
            await asyncio.sleep(seconds / len(clients))

    def _asked_to_stop(self) -> None:
        if not self.draining:
            self.draining = True  # now: nobody comes in before the task runs
            self._tasks.append(asyncio.create_task(self.drain(), name="gateway drain"))

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(ServerError):
                newest = await self._feed.newest()
                self.hub.begin(newest, await self._clock())
                self._begun.set()
                async for page in self._feed.follow(newest):
                    self.hub.cut_off(away=False)
                    if page.recovered:
                        self.hub.receive(page if installed.tracer is None else self._traced(page, installed.tracer))
                    else:
                        log.warning("gateway: the feed has a gap; clients get a reset")
                        self.hub.receive(page, await self._clock())
            await asyncio.sleep(AGAIN_S)

    def _traced(self, page: Page, tracer: Tracer) -> Page:
        return page._replace(
            records=[traced(record, tracer, self.hub.followers(record.topic)) for record in page.records]
        )

    async def _clock(self) -> str:
        """Return the ledger's clock: what is read after it shows everything that was ever told."""
        return await newest_clock(self._client)

    async def _tick(self) -> None:
        beats = time.monotonic() + HEARTBEAT_S
        heard_at, silent_since = self._feed.heard_at, self.attention.now()
        while True:
            await asyncio.sleep(SWEEP_S)
            self.hub.sweep()
            if self._feed.heard_at != heard_at:
                heard_at, silent_since = self._feed.heard_at, self.attention.now()
            if self._begun.is_set():
                self.hub.cut_off(away=self.attention.now() - silent_since > AWAY_S)
            if time.monotonic() >= beats:
                beats = time.monotonic() + HEARTBEAT_S
                self.hub.heartbeat()

    async def _look_at_sessions(self) -> None:
        while True:
            await asyncio.sleep(SESSIONS_S)
            with contextlib.suppress(ServerError, SessionsUnavailable):  # an outage logs nobody out
                await self.look_at_sessions()

    async def _tell_sockets(self) -> None:
        await tell_sockets(self._client, self._sockets, self._disconnect)

    def _disconnect(self, user: str) -> None:
        """Close the connections of one user; who may still follow comes back."""
        for follower in [each for each in self.hub.clients if str(each.user_id) == user]:
            follower.close(Close.RESTART)

    def _sockets(self, user: str) -> SocketsTold:
        """Return the open sockets, of one user or ('') of everybody, the newest first."""
        chosen = [each for each in self.hub.clients if not user or str(each.user_id) == user]
        newest = heapq.nlargest(MOST_TOLD, chosen, key=lambda follower: follower.since_ms)
        return SocketsTold(process_name(), self.connected, [_open_socket(each) for each in newest])

    async def look_at_sessions(self) -> None:
        """Close the connections whose session has ended. One round trip a user."""
        by_user = groupby(sorted(self.hub.clients, key=_user), key=_user)
        for clients in [list(group) for _, group in by_user]:
            visitors = {Visitor(follower.user_id, follower.ref) for follower in clients}
            live = await self.admission.stands(list(visitors))
            for follower in clients:
                if Visitor(follower.user_id, follower.ref) not in live:
                    follower.close(Close.SESSION)


def _open_socket(follower: Follower) -> OpenSocket:
    topics = sorted(follower.topics)
    told, more = topics[:TOPICS_TOLD], len(topics[TOPICS_TOLD:])
    return OpenSocket(str(follower.user_id), told, more, len(follower.queue), follower.last, follower.since_ms)


def _user(follower: Follower) -> str:
    return str(follower.user_id)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
