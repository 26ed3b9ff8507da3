"""Load while credentials change: `python -m tests.support.changing_credentials --seconds 60 --every 2`.

Two issuers, as there are two kinds. `Rotation`: one user whose password is replaced, the old one refused from then on,
and some of its connections closed. `Tokens`: each token is a user of its own, deleted when it expires, which closes
every connection that did not say AUTH with a newer one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import secrets
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field

from cachebus import Bus, Cache, CacheBusError, CacheSettings, Client
from cachebus.bus.effects import Effects, Invalidate
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.handlers import on
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until

RULES = ("on", "+@all", "~*", "&*")
Answer = tuple[str | None, str, float | None]


class Rotation:
    """One user; its password changes every *every_s*, and a connection or two are closed then."""

    def __init__(self, server: PrivateServer, every_s: float, draw: random.Random) -> None:
        self._server, self._every_s, self._draw = server, every_s, draw
        self._password = ""
        self.changes = 0
        self._change()

    def _change(self) -> None:
        self._password = secrets.token_urlsafe(12)
        self._server.ask("ACL", "SETUSER", "app", *RULES, "resetpass", f">{self._password}")
        self.changes += 1

    async def token(self) -> Answer:
        """Return what is valid now."""
        await asyncio.sleep(0)
        return "app", self._password, None

    async def run(self) -> None:
        """Change it again and again."""
        while True:
            await asyncio.sleep(self._every_s)
            self._change()
            clients = self._server.ask("CLIENT", "LIST").decode().splitlines()
            ours = [line.split()[0].removeprefix("id=") for line in clients if " user=app " in line]
            for identity in self._draw.sample(ours, min(2, len(ours))):
                self._server.ask("CLIENT", "KILL", "ID", identity)


class Tokens:
    """Each answer is a new user, deleted when it expires."""

    def __init__(self, server: PrivateServer, lives_s: float) -> None:
        self._server, self._lives_s = server, lives_s
        self.changes = 0
        self.closed = 0
        """Connections that were closed because their token ended."""
        self._ends: list[tuple[float, str]] = []

    async def token(self) -> Answer:
        """Issue a token."""
        await asyncio.sleep(0)
        self.changes += 1
        user, password, ends = f"token-{self.changes}", secrets.token_urlsafe(12), time.time() + self._lives_s
        self._server.ask("ACL", "SETUSER", user, *RULES, f">{password}")
        self._ends.append((ends, user))
        return user, password, ends

    async def run(self) -> None:
        """Delete what has expired."""
        while True:
            await asyncio.sleep(0.02)
            while self._ends and self._ends[0][0] <= time.time():
                _, user = self._ends.pop(0)
                left = self._server.ask("CLIENT", "LIST").decode()
                self.closed += left.count(f" user={user} ")
                self._server.ask("ACL", "DELUSER", user)


@dataclass
class Outcome:
    """What callers saw."""

    errors: list[str] = field(default_factory=list)
    reads: int = 0
    published: int = 0
    handled: int = 0
    sent: int = 0
    heard: int = 0
    twice: int = 0
    """Messages heard twice. An event's handler may run twice when its commit is cut off; its effects may not."""
    gaps: int = 0
    changes: int = 0
    closed: int = 0


async def load(server: PrivateServer, issuer: Rotation | Tokens, seconds: float) -> Outcome:
    """Read, write, invalidate, publish, handle and listen for *seconds*."""
    outcome = Outcome()
    namespace = f"t{secrets.token_hex(4)}"
    handled: list[int] = []
    heard: list[int] = []

    @on("numbers", int)
    def number(event: int) -> Effects:
        handled.append(event)
        yield Invalidate(tags=[f"n:{event % 7}"])

    async with contextlib.AsyncExitStack() as stack:
        settings = CacheSettings(url=server.url, namespace=namespace, credentials=issuer.token)
        cache = await stack.enter_async_context(Cache(settings=settings))
        listening = await stack.enter_async_context(Client(server.url, namespace=namespace, credentials=issuer.token))

        @cache.view("item:{n}", ttl="1s", tags=["n:{n}"])
        async def item(n: int) -> int:
            await asyncio.sleep(0)
            return n

        bus, consumer = Bus(cache), Consumer(cache.client, [number], lease="2s")
        await listening.subscriptions.subscribe(
            f"{namespace}:plain",
            lambda _, payload: heard.append(int(payload)),
            on_gap=lambda: setattr(outcome, "gaps", outcome.gaps + 1),
        )
        until_s = time.monotonic() + seconds

        async def again(what: str) -> None:
            while time.monotonic() < until_s:
                try:
                    if what == "read":
                        await item(outcome.reads % 7)
                        outcome.reads += 1
                    elif what == "write":
                        await cache.set("plain", outcome.reads)
                        await cache.get("plain")
                        await cache.invalidate(tags=["n:3"])
                    else:
                        await bus.publish("numbers", outcome.published)
                        outcome.published += 1
                except CacheBusError as error:
                    outcome.errors.append(f"{what}: {type(error).__name__}: {error}")
                await asyncio.sleep(0.001)

        async def send() -> None:
            while time.monotonic() < until_s:
                receivers = server.ask("PUBLISH", f"{namespace}:plain", outcome.sent)
                outcome.sent += receivers > 0  # two while one connection takes over from another
                await asyncio.sleep(0.002)

        async with _running(issuer.run()), _running(consumer.run()):
            await asyncio.gather(*[again(what) for what in ("read", "read", "write", "publish")], send())
            # A handler may run twice when its commit is cut off: that is one event all the same.
            await until(lambda: outcome.errors or len(set(handled)) >= outcome.published, "every event is handled")
            # A connection that is closed takes what was on its way along: that is a gap, which is told.
            await until(lambda: outcome.errors or outcome.gaps or len(heard) >= outcome.sent, "every message is heard")
            await consumer.drain()
    outcome.handled, outcome.heard = len(set(handled)), len(set(heard))
    outcome.twice = len(heard) - outcome.heard
    outcome.changes, outcome.closed = issuer.changes, getattr(issuer, "closed", 0)
    return outcome


@contextlib.asynccontextmanager
async def _running(work: object) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)  # type: ignore[call-overload] # a coroutine of any kind
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def main() -> None:
    """Run both and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=2)
    asked = parser.parse_args()
    with PrivateServer.start("appendonly no") as server:
        for issuer in (Rotation(server, asked.every, random.Random(1)), Tokens(server, 2 * asked.every)):  # noqa: S311
            outcome = asyncio.run(load(server, issuer, asked.seconds))
            sys.stdout.write(f"{type(issuer).__name__}: {json.dumps(asdict(outcome))}\n")


if __name__ == "__main__":
    main()
