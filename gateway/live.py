"""The gateway of a process: one reader of the feed, one hub, and what is done from time to time.

`Gateway` is mounted in any Starlette or FastAPI application:

    gateway = Gateway(cache.link, public_topics=["market:*"])

    @asynccontextmanager
    async def lifespan(app):
        async with cache, gateway:
            yield

    app.mount("/live", gateway.app())
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Self

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from cachebus.errors import ServerError, SessionsUnavailable
from cachebus.feed import Feed
from cachebus.link import Link
from cachebus.sessions import SessionStore
from gateway.admission import Admission, Origins
from gateway.hub import HEARTBEAT_S, Client, Close, Hub
from gateway.recovery import Recovery
from gateway.routes import routes
from gateway.tickets import Visitor
from gateway.topics import Rules

log = logging.getLogger("cachebus.gateway")

COOKIE = "__Host-sid"
"""What `SessionMiddleware` calls its cookie."""
MOST_CLIENTS = 10_000
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
    connect, beside the gateway's own. *cookie* carries the session's id.
    """

    def __init__(
        self,
        link: Link,
        *,
        sessions: SessionStore | None = None,
        public_topics: Sequence[str] = (),
        origins: Sequence[str] = (),
        cookie: str = COOKIE,
        most_clients: int = MOST_CLIENTS,
    ) -> None:
        self.hub = Hub(Rules(public_topics), time.monotonic, _wall_ms)
        self.origins = Origins(origins)
        self.admission = Admission(link, sessions or SessionStore(link), cookie=cookie)
        self.most_clients = most_clients
        self.draining = False
        self.connected = 0
        """Connections, with those that have not said hello."""
        self._link = link
        self._feed = Feed(link)
        self.recovery = Recovery(self.hub, self._feed)
        self._tasks: list[asyncio.Task[None]] = []
        self._begun = asyncio.Event()

    def routes(self) -> list[BaseRoute]:
        """Return `/ws`, `/events`, `/ticket`, `/client.js`, to mount under any prefix."""
        return routes(self)

    def app(self) -> Starlette:
        """Return them as an application to mount. Its owner enters the gateway: a mounted one has no lifespan."""
        return Starlette(routes=self.routes())

    async def __aenter__(self) -> Self:
        for work in (self._follow, self._tick, self._look_at_sessions):
            self._tasks.append(asyncio.create_task(work(), name=f"gateway {work.__name__}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    @property
    def full(self) -> bool:
        """Whether nobody more is let in."""
        return self.connected >= self.most_clients

    async def begun(self) -> None:
        """Return when the feed's place is known: who is let in before would miss what comes between."""
        await self._begun.wait()

    async def drain(self, seconds: float = DRAIN_S) -> None:
        """Let nobody in, and send everyone away with 1012, spread over *seconds*."""
        self.draining = True
        clients = list(self.hub.clients)
        random.shuffle(clients)
        for client in clients:
            client.close(Close.RESTART)
            await asyncio.sleep(seconds / len(clients))

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(ServerError):
                newest = await self._feed.newest()
                self.hub.begin(newest, await self._clock())
                self._begun.set()
                async for page in self._feed.follow(newest):
                    self.hub.cut_off(away=False)
                    if page.recovered:
                        self.hub.receive(page)
                    else:
                        log.warning("gateway: something is missing in the feed; clients are told to read anew")
                        self.hub.receive(page, await self._clock())
            await asyncio.sleep(AGAIN_S)

    async def _clock(self) -> str:
        """Return the ledger's clock: what is read after it shows everything that was ever told."""
        score = await self._link.store.call("ZSCORE", self._link.names.ledger, "@clock")
        return "" if score is None else f"{float(score):.0f}"

    async def _tick(self) -> None:
        beats = time.monotonic() + HEARTBEAT_S
        while True:
            await asyncio.sleep(SWEEP_S)
            self.hub.sweep()
            if self._begun.is_set():
                self.hub.cut_off(away=asyncio.get_running_loop().time() - self._feed.heard_at > AWAY_S)
            if time.monotonic() >= beats:
                beats = time.monotonic() + HEARTBEAT_S
                self.hub.heartbeat()

    async def _look_at_sessions(self) -> None:
        while True:
            await asyncio.sleep(SESSIONS_S)
            with contextlib.suppress(ServerError, SessionsUnavailable):  # an outage logs nobody out
                await self.look_at_sessions()

    async def look_at_sessions(self) -> None:
        """Close the connections whose session has ended. One round trip a user."""
        by_user = groupby(sorted(self.hub.clients, key=_user), key=_user)
        for clients in [list(group) for _, group in by_user]:
            visitors = {Visitor(client.user_id, client.ref) for client in clients}
            live = await self.admission.stands(list(visitors))
            for client in clients:
                if Visitor(client.user_id, client.ref) not in live:
                    client.close(Close.SESSION)


def _user(client: Client) -> str:
    return str(client.user_id)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
