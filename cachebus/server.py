"""The server as the rest of the library sees it: always there, or plainly away.

One shared connection carries every command; it is kept by one task, at most one attempt a second. A server that answers
too late too often counts as away. Connections that block (journal, events) or listen are opened beside it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from cachebus.errors import AccessDenied, ServerError, Unavailable, UnknownScript
from cachebus.scripts import script
from cachebus.wire import Address, Argument, Done, Reply, Wire

log = logging.getLogger("cachebus")

TIMEOUT_S = 0.25
"""How long one command may take before its caller goes on without it."""
RETRY_S = 1.0
"""At most one connection attempt in this time, plus up to a quarter at random."""

Welcome = Callable[[Wire], Awaitable[None]]
"""Called with each new shared connection before anyone may use it; raising refuses the connection."""


class Server(Protocol):
    """What the parts of this library ask of a Redis or Valkey, be it one node, behind Sentinel, or a cluster."""

    @property
    def up(self) -> bool:
        """Whether a connection stands and the server has answered in time."""
        ...

    def group(self, key: str) -> int:
        """Return a number that is equal for keys which one script may take together."""
        ...

    async def start(self) -> None:
        """Begin to keep a connection; return after the first attempt."""
        ...

    async def close(self) -> None:
        """Drop every connection. Idempotent."""
        ...

    async def call(self, *command: Argument, key: str | None = None, timeout_s: float = TIMEOUT_S) -> Reply:
        """Send one command; commands of one loop tick leave together. *key* names the node in a cluster.

        Never sent twice. Raises: Unavailable (may or may not have run), or what the server answered.
        """
        ...

    def submit(self, key: str, commands: Sequence[tuple[Argument, ...]], done: Done) -> None:
        """Send several commands now, in this order, to the node of *key*; *done* is called with the replies.

        Error replies stand among them; a ServerError in their place says that there are none.
        """
        ...

    async def run(
        self, verb: str, keys: Sequence[str], args: Sequence[Argument] = (), *, timeout_s: float = TIMEOUT_S
    ) -> Reply:
        """Run `lua/<verb>.lua`; all *keys* share a slot. One round trip. Raises: as `call`."""
        ...

    async def dedicated(self, key: str, on_push: Callable[[Any], None] | None = None) -> Wire:
        """Open a connection of one's own to the node of *key*, for commands that block or listen."""
        ...

    async def ready(self) -> None:
        """Return when the server is up, however long that takes."""
        ...


class Node:
    """One server, found by URL or through Sentinel. Implements `Server`."""

    def __init__(
        self, address: Address, welcome: Welcome | None = None, *, place: tuple[str, int] | None = None
    ) -> None:
        self.address = address
        self._place = place
        self._welcome = welcome
        self._wire: Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._attempted = asyncio.Event()
        self._connected = asyncio.Event()
        self._told_away = False
        self.fault: ServerError | None = None
        """Why the server is away; None while it is up."""
        self.connects = 0

    async def start(self) -> None:
        """Keep a connection from now on; return after the first attempt, whatever came of it."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name=f"cachebus server {self.address}")
        await self._attempted.wait()

    async def close(self) -> None:
        """Drop the connection and stop keeping one. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        if self._wire is not None:
            await self._wire.close()
            self._wire = None

    @property
    def up(self) -> bool:
        """Whether a connection stands and the server has answered in time."""
        return self._wire is not None

    def group(self, key: str) -> int:
        """One node takes all keys together."""
        return 0

    async def ready(self) -> None:
        """Return when the server is up."""
        await self._connected.wait()

    async def call(self, *command: Argument, key: str | None = None, timeout_s: float = TIMEOUT_S) -> Reply:
        """Send one command. See `Server.call`."""
        return await self._current().call(*command, timeout_s=timeout_s)

    async def call_asking(self, *command: Argument, timeout_s: float = TIMEOUT_S) -> Reply:
        """Send one command that another node of the cluster redirected here with ASK."""
        wire = self._current()
        asking, answer = wire.send("ASKING", timeout_s=timeout_s), wire.send(*command, timeout_s=timeout_s)
        await asyncio.wait([asking, answer])
        asking.exception()
        return answer.result()

    def submit(self, key: str, commands: Sequence[tuple[Argument, ...]], done: Done) -> None:
        """Send several commands now. See `Server.submit`."""
        try:
            self._current().submit(commands, done, TIMEOUT_S)
        except ServerError as away:
            done(away)

    def _current(self) -> Wire:
        if self._wire is None:
            fault = self.fault or Unavailable("not connected")
            raise type(fault)(*fault.args)  # a fresh one: raising one object again and again grows its traceback
        return self._wire

    async def run(
        self, verb: str, keys: Sequence[str], args: Sequence[Argument] = (), *, timeout_s: float = TIMEOUT_S
    ) -> Reply:
        """Run a script. See `Server.run`."""
        return await run_script(self.call, verb, keys, args, timeout_s)

    async def dedicated(self, key: str, on_push: Callable[[Any], None] | None = None) -> Wire:
        """Open a connection of one's own. Waits until the server is up, so an outage costs no attempts here."""
        await self.ready()
        return await self.address.connect(self._place, on_push=on_push)

    async def _keep(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            started = now()
            try:
                wire = await self._connect()
            except ServerError as refused:
                self._away(refused)
            else:
                self._back(wire)
                await asyncio.wait([wire.lost])  # not awaited itself: being cancelled must not cancel it
                self._away(wire.lost.result())
                await wire.close()
            pause = RETRY_S + random.uniform(0, RETRY_S / 4) - (now() - started)  # noqa: S311 - jitter, not a secret
            if pause > 0:
                await asyncio.sleep(pause)

    async def _connect(self) -> Wire:
        self.connects += 1
        wire = await self.address.connect(self._place)
        try:
            await wire.call("PING", timeout_s=TIMEOUT_S)
            if self._welcome is not None:
                await self._welcome(wire)
        except BaseException:
            await wire.close()
            raise
        return wire

    def _back(self, wire: Wire) -> None:
        self._wire, self.fault = wire, None
        self._connected.set()
        self._attempted.set()
        if self._told_away:
            self._told_away = False
            log.warning("redis is back: %s", self)

    def _away(self, reason: Exception) -> None:
        self._wire = None
        self._connected.clear()
        self._attempted.set()
        self.fault = reason if isinstance(reason, ServerError) else Unavailable(str(reason))
        if not self._told_away:
            self._told_away = True
            hint = " (only new credentials can mend this)" if isinstance(reason, AccessDenied) else ""
            log.warning("redis is away: %s: %s%s", self, reason, hint)

    def __str__(self) -> str:
        return str(self.address) if self._place is None else f"cluster node {self._place[0]}:{self._place[1]}"


async def run_script(
    call: Callable[..., Awaitable[Reply]],
    verb: str,
    keys: Sequence[str],
    args: Sequence[Argument],
    timeout_s: float,
) -> Reply:
    """Run a script by its digest, or whole where the server has forgotten it (it did not run then)."""
    known = script(verb)
    rest = (len(keys), *keys, *args)
    try:
        return await call("EVALSHA", known.digest, *rest, key=keys[0], timeout_s=timeout_s)
    except UnknownScript:
        return await call("EVAL", known.text, *rest, key=keys[0], timeout_s=timeout_s)
