"""The server as the rest of the library sees it: always there, or plainly unavailable.

One shared connection carries every command; it is kept by one task, at most one attempt a second. A server that answers
too late too often counts as unavailable. Connections that block (journal, events) or listen are opened beside it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from cachebus.errors import AccessDenied, ServerError, Unavailable, UnknownScript
from cachebus.redis.address import Address, Place
from cachebus.redis.connection import Argument, Connection, Done
from cachebus.redis.keyspace import Names, key_slot
from cachebus.redis.replies import Reply, remedy
from cachebus.redis.scripts import script
from cachebus.waiting import end

log = logging.getLogger("cachebus")

TIMEOUT_S = 0.25
"""How long one command may take before its caller continues without it."""
RETRY_S = 1.0
"""At most one connection attempt in this time, plus up to a quarter at random."""
STEADY_S = 5.0
"""A connection that is lost sooner is part of the same outage: it is logged once, however often it comes and goes."""

Welcome = Callable[[Connection], Awaitable[None]]
"""Called with each new shared connection before anyone may use it; raising refuses the connection."""


class Server(Protocol):
    """What the parts of this library ask of a Redis or Valkey, be it one node, behind Sentinel, or a cluster."""

    @property
    def up(self) -> bool:
        """Whether there is a connection on which the server answers in time."""
        ...

    @property
    def slots(self) -> bool:
        """Whether the keys of one command must share a slot: a cluster, or one endpoint that fronts many shards."""
        ...

    @property
    def one_connection(self) -> bool:
        """Whether commands for any keys travel on one connection, and are answered in order."""
        ...

    def group(self, key: str) -> int:
        """Return a number that is equal for keys which one command may name together."""
        return key_slot(key) if self.slots else 0

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

    def submit(
        self, key: str, commands: Sequence[tuple[Argument, ...]], done: Done, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Send several commands now, in this order, to the node of *key*; *done* is called with the replies.

        Error replies are among them; a ServerError in their place says that there are none.
        """
        ...

    def fetch(self, keys: Sequence[str], done: Done, *, timeout_s: float = TIMEOUT_S) -> None:
        """Read the values of *keys*, wherever each lives, now; *done* is called with them in order, None for no value.

        A key of another type has none. What could not be read is an error reply in its place; a ServerError in place of
        all says that there are none. One round trip.
        """
        ...

    async def run(
        self, verb: str, keys: Sequence[str], args: Sequence[Argument] = (), *, timeout_s: float = TIMEOUT_S
    ) -> Reply:
        """Run a script, such as `freshness/invalidate`; all *keys* share a slot. One round trip. Raises: as `call`.

        By its digest, or whole where the server does not know it (it did not run then).
        """
        known, rest = script(verb), (len(keys), *keys, *args)
        try:
            return await self.call("EVALSHA", known.digest, *rest, key=keys[0], timeout_s=timeout_s)
        except UnknownScript:
            return await self.call("EVAL", known.text, *rest, key=keys[0], timeout_s=timeout_s)

    def submit_run(
        self,
        verb: str,
        keys: Sequence[str],
        args: Sequence[Argument],
        done: Done,
        *,
        then: Sequence[tuple[Argument, ...]] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Run a script now, without a task, and the commands *then* behind it in the same write.

        *done* is called as by `submit`, with the script's reply first. Where the server does not know the script, all
        of it is sent once more: *then* must be safe to repeat.
        """
        known, rest = script(verb), (len(keys), *keys, *args)

        def arrived(replies: list[Reply] | ServerError) -> None:
            if isinstance(replies, list) and isinstance(replies[0], UnknownScript):
                self.submit(keys[0], [("EVAL", known.text, *rest), *then], done, timeout_s=timeout_s)
            else:
                done(replies)

        self.submit(keys[0], [("EVALSHA", known.digest, *rest), *then], arrived, timeout_s=timeout_s)

    async def dedicated(self, key: str, on_push: Callable[[Any], None] | None = None) -> Connection:
        """Open a connection of one's own to the node of *key*, for commands that block or listen."""
        ...

    def opener(self, key: str) -> Callable[[], Awaitable[Connection]]:
        """Return what opens a connection to the node of *key* in any thread and event loop. It is of no other use."""
        ...

    async def ready(self) -> None:
        """Return when the server is up, however long that takes."""
        ...

    def reconnect(self, reason: ServerError) -> None:
        """Drop the shared connection because of *reason*; a new one is made at once."""
        ...


def value_of(reply: Reply) -> Reply:
    """Return the reply to a GET as MGET gives it: no value where the key holds another type."""
    return None if isinstance(reply, ServerError) and str(reply).startswith("WRONGTYPE") else reply


class Node(Server):
    """One server, found by URL or through Sentinel; at *place*, one node of a cluster."""

    def __init__(
        self, address: Address, names: Names, welcome: Welcome | None = None, *, place: Place | None = None
    ) -> None:
        self.address = address
        self._names = names
        self._place = place
        self._welcome = welcome
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._attempted = asyncio.Event()
        self._connected = asyncio.Event()
        self._slots = place is not None
        self._outage_logged = False
        self._recovery: asyncio.TimerHandle | None = None
        self.fault: ServerError | None = None
        """Why the server is unavailable; None while it is up."""
        self.connects = 0

    async def start(self) -> None:
        """Keep a connection from now on; return after the first attempt, whatever came of it."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name=f"cachebus server {self}")
        await self._attempted.wait()

    async def close(self) -> None:
        """Drop the connection and stop keeping one. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if self._recovery is not None:
            self._recovery.cancel()
        if keeper is not None:
            await end([keeper])
            self._attempted.set()  # whoever waits for it in `start` need wait no longer
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    @property
    def up(self) -> bool:
        """Whether there is a connection on which the server answers in time."""
        return self._connection is not None

    @property
    def slots(self) -> bool:
        """Whether the server refuses keys of different slots in one command, as far as it was asked."""
        return self._slots

    @property
    def one_connection(self) -> bool:
        """All commands share one."""
        return True

    async def ready(self) -> None:
        """Return when the server is up."""
        await self._connected.wait()

    async def call(self, *command: Argument, key: str | None = None, timeout_s: float = TIMEOUT_S) -> Reply:
        """Send one command. See `Server.call`."""
        return await self._current().call(*command, timeout_s=timeout_s)

    async def call_asking(self, *command: Argument, timeout_s: float = TIMEOUT_S) -> Reply:
        """Send one command that another node of the cluster redirected here with ASK."""
        connection = self._current()
        asking, answer = connection.send("ASKING", timeout_s=timeout_s), connection.send(*command, timeout_s=timeout_s)
        await asyncio.wait([asking, answer])
        asking.exception()
        return answer.result()

    def submit(
        self, key: str, commands: Sequence[tuple[Argument, ...]], done: Done, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Send several commands now. See `Server.submit`."""
        try:
            self._current().submit(commands, done, timeout_s)
        except ServerError as unavailable:
            done(unavailable)

    def fetch(self, keys: Sequence[str], done: Done, *, timeout_s: float = TIMEOUT_S) -> None:
        """Read values now. See `Server.fetch`."""

        def arrived(replies: list[Reply] | ServerError) -> None:
            if isinstance(replies, ServerError):
                done(replies)
            else:
                done([value_of(reply) for reply in replies] if apart else replies[0])

        apart = self._slots
        self.submit("", [("GET", key) for key in keys] if apart else [("MGET", *keys)], arrived, timeout_s=timeout_s)

    def reconnect(self, reason: ServerError) -> None:
        """Drop the shared connection. See `Server.reconnect`."""
        if self._connection is not None:
            self._connection.abort(reason)

    def _current(self) -> Connection:
        if self._connection is None:
            fault = self.fault or Unavailable("not connected")
            raise type(fault)(*fault.args)  # a fresh one: raising one object again and again grows its traceback
        return self._connection

    async def dedicated(self, key: str, on_push: Callable[[Any], None] | None = None) -> Connection:
        """Open a connection of one's own. Waits until the server is up, so an outage costs no attempts here."""
        await self.ready()
        return await self.address.connect(self._place, on_push=on_push)

    def opener(self, key: str) -> Callable[[], Awaitable[Connection]]:
        """Return what opens a connection in any thread. See `Server.opener`."""
        return partial(self.address.connect, self._place, apart=True)

    async def _keep(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            started = now()
            try:
                connection = await self._connect()
            except ServerError as refused:
                self._unavailable(refused)
            else:
                self._available(connection)
                await asyncio.wait([connection.lost])  # not awaited itself: being cancelled must not cancel it
                self._unavailable(connection.lost.result())
                await connection.close()
            pause = RETRY_S + random.uniform(0, RETRY_S / 4) - (now() - started)  # noqa: S311 - jitter, not a secret
            if pause > 0:
                await asyncio.sleep(pause)

    async def _connect(self) -> Connection:
        self.connects += 1
        connection = await self.address.connect(self._place)
        try:
            await connection.call("PING", timeout_s=TIMEOUT_S)
            if self._place is None:
                self._slots = await self._refuses_two_slots(connection)
            if self._welcome is not None:
                await self._welcome(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _refuses_two_slots(self, connection: Connection) -> bool:
        """Ask with a script that reads nothing: some proxies spread an MGET over their shards, but never a script."""
        names = (self._names.ledger, self._names.entry("another-slot", ""))
        try:
            await connection.call("EVAL", "return 1", len(names), *names)
        except Unavailable:
            raise
        except ServerError as refused:
            return str(refused).startswith("CROSSSLOT")
        return False

    def _available(self, connection: Connection) -> None:
        self._connection, self.fault = connection, None
        self._connected.set()
        self._attempted.set()
        if self._outage_logged:
            self._recovery = asyncio.get_running_loop().call_later(STEADY_S, self._recovered)

    def _recovered(self) -> None:
        self._outage_logged = False
        log.warning("redis available again: %s", self)

    def _unavailable(self, reason: Exception) -> None:
        self._connection = None
        self._connected.clear()
        self._attempted.set()
        self.fault = reason if isinstance(reason, ServerError) else Unavailable(str(reason))
        if self._recovery is not None:
            self._recovery.cancel()
        if not self._outage_logged:
            self._outage_logged = True
            hint = f"; {remedy(reason)}" if isinstance(reason, AccessDenied) else ""
            log.warning("redis unavailable: %s: %s%s", self, reason, hint)

    def __str__(self) -> str:
        return str(self.address) if self._place is None else f"cluster node {self._place[0]}:{self._place[1]}"
