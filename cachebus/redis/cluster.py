"""A Redis or Valkey Cluster as one `Server`: each command goes to the node of its key's slot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from cachebus.errors import CommandRefused, Moved, ServerError, Unavailable
from cachebus.redis.address import Address, Place
from cachebus.redis.connection import Argument, Connection, Done
from cachebus.redis.keyspace import Names, key_slot
from cachebus.redis.replies import Reply
from cachebus.redis.server import TIMEOUT_S, Node, Server, Welcome, value_of
from cachebus.waiting import end

log = logging.getLogger("cachebus")

REDIRECTS = 4
"""A slot under migration redirects once or twice; more is a cluster that does not know itself."""
REFRESH_S = 1.0
"""How long to wait between looks at the slot map while no node answers."""

_Keyed = tuple[str, tuple[Argument, ...]]
"""A command, and the key whose slot it belongs to."""


class _NotSent(Unavailable):
    """Stands where there is no reply yet."""


class Cluster(Server):
    """All nodes of a cluster. Its home is the node of the bus's slot, where the ledger lives.

    A redirected command did not run, so following the redirect is safe. The slot map is read again after a redirect.
    """

    def __init__(self, address: Address, names: Names, welcome: Welcome | None = None) -> None:
        self.address = address
        self._names = names
        self._welcome = welcome
        self._home = names.ledger
        self._owners: dict[int, Place] = {}
        self._nodes: dict[Place, Node] = {}
        self._looking: asyncio.Task[None] | None = None
        self._outage_logged = False
        """Whether it was said that no node knows who owns what; once some do, each speaks for itself."""
        self._sending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read the slot map from any node and connect to the home node; returns after the first attempt."""
        await self._look()
        if self._owners:
            await self._node(self._owner(self._home))
        elif self._looking is None:
            self._looking = asyncio.create_task(self._look_until_found(), name=f"cachebus {self.address}")

    async def close(self) -> None:
        """Drop every connection. Idempotent."""
        looking, self._looking = self._looking, None
        await end([*self._sending, *([looking] if looking is not None else [])])
        for node in self._nodes.values():
            await node.close()
        self._nodes.clear()
        self._owners.clear()

    @property
    def up(self) -> bool:
        """Whether the home node answers; single entries may still be unavailable with their node."""
        home = self._nodes.get(self._owners.get(key_slot(self._home), ("", 0)))
        return home is not None and home.up

    @property
    def slots(self) -> bool:
        """It has them."""
        return True

    @property
    def one_connection(self) -> bool:
        """Each node has its own."""
        return False

    async def ready(self) -> None:
        """Return when the home node is up."""
        while not self._owners:
            await asyncio.sleep(REFRESH_S)
            await self._look()
        await (await self._node(self._owner(self._home))).ready()

    async def call(self, *command: Argument, key: str | None = None, timeout_s: float = TIMEOUT_S) -> Reply:
        """Send one command to the node of *key*. See `Server.call`."""
        node = await self._node(self._owner(key or self._home))
        for _ in range(REDIRECTS):
            try:
                return await node.call(*command, timeout_s=timeout_s)
            except Moved as moved:
                node = await self._node(moved.address)
                if moved.ask:
                    return await node.call_asking(*command, timeout_s=timeout_s)
                await self._look()
            except Unavailable:
                self._look_behind()
                raise
        raise Unavailable(f"{self.address}: redirected more than {REDIRECTS} times")

    def submit(
        self, key: str, commands: Sequence[tuple[Argument, ...]], done: Done, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        """Send several commands to the node of *key*, following redirects. See `Server.submit`."""
        self._submit(self._owners.get(key_slot(key)), [(key, command) for command in commands], done, timeout_s)

    def fetch(self, keys: Sequence[str], done: Done, *, timeout_s: float = TIMEOUT_S) -> None:
        """Read values now, in one write to each node. See `Server.fetch`.

        A key whose node is unavailable has the error in its place.
        """
        by_owner: dict[Place | None, list[int]] = {}
        for position, key in enumerate(keys):
            by_owner.setdefault(self._owners.get(key_slot(key)), []).append(position)
        values: list[Reply] = [None] * len(keys)
        waiting = len(by_owner)

        def arrived(positions: list[int], replies: list[Reply] | ServerError) -> None:
            nonlocal waiting
            waiting -= 1
            each = repeat(replies) if isinstance(replies, ServerError) else map(value_of, replies)
            for position, reply in zip(positions, each, strict=False):
                values[position] = reply
            if not waiting:
                done(values)

        for owner, positions in by_owner.items():
            commands: list[_Keyed] = [(keys[position], ("GET", keys[position])) for position in positions]
            self._submit(owner, commands, partial(arrived, positions), timeout_s)

    def _submit(self, owner: Place | None, commands: list[_Keyed], done: Done, timeout_s: float) -> None:
        """Send commands to one node in one write, without a task where it is connected; redirected ones go on alone."""
        node = self._nodes.get(owner) if owner is not None else None
        if node is None or not node.up:
            self._start(self._send_one_by_one(commands, [_NotSent()] * len(commands), done, timeout_s))
            return

        def arrived(replies: list[Reply] | ServerError) -> None:
            if isinstance(replies, ServerError):
                self._look_behind()
                done(replies)
            elif any(isinstance(reply, Moved) for reply in replies):
                self._start(self._send_one_by_one(commands, replies, done, timeout_s))
            else:
                done(replies)

        node.submit("", [command for _, command in commands], arrived, timeout_s=timeout_s)

    async def _send_one_by_one(
        self, commands: list[_Keyed], replies: list[Reply], done: Done, timeout_s: float
    ) -> None:
        """Send those that were not sent, or redirected: they did not run."""
        answered = list[Reply]()
        for (key, command), reply in zip(commands, replies, strict=True):
            if not isinstance(reply, Moved | _NotSent):
                answered.append(reply)
                continue
            try:
                answered.append(await self.call(*command, key=key, timeout_s=timeout_s))
            except Unavailable as unavailable:
                done(unavailable)
                return
            except ServerError as refused:
                answered.append(refused)
        done(answered)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def dedicated(self, key: str, on_push: Callable[[Any], None] | None = None) -> Connection:
        """Open a connection of one's own to the node of *key*, which is asked whether it is.

        A node that was replaced takes subscriptions, too; it hears from others what is published, and not all of it.
        """
        await self.ready()
        for _ in range(REDIRECTS):
            connection = await (await self._node(self._owner(key))).dedicated(key, on_push)
            try:
                await connection.call("TYPE", key)
            except Moved as moved:
                if moved.ask:  # the slot is about to move, and still here
                    return connection
                await connection.close()
                await self._look()
            except BaseException:
                await connection.close()
                raise
            else:
                return connection
        raise Unavailable(f"{self.address}: redirected more than {REDIRECTS} times")

    def opener(self, key: str) -> Callable[[], Awaitable[Connection]]:
        """Return what opens a connection to the node of *key* in any thread. Raises: Unavailable."""
        return partial(self.address.connect, self._owner(key), apart=True)

    def reconnect(self, reason: ServerError) -> None:
        """Drop the connection to the home node. See `Server.reconnect`."""
        home = self._nodes.get(self._owners.get(key_slot(self._home), ("", 0)))
        if home is not None:
            home.reconnect(reason)

    def _owner(self, key: str) -> Place:
        try:
            return self._owners[key_slot(key)]
        except KeyError:
            raise Unavailable(f"{self.address}: no node serves the slot of {key!r}") from None

    async def _node(self, place: Place) -> Node:
        node = self._nodes.get(place)
        if node is None:
            node = self._nodes[place] = Node(self.address, self._names, self._welcome_home, place=place)
        await node.start()
        return node

    async def _welcome_home(self, connection: Connection) -> None:
        """The ledger is asked where it lives; other nodes hold entries, which need no vouching of their own."""
        if self._welcome is None:
            return
        try:
            await self._welcome(connection)
        except Moved:
            log.debug("a node that does not hold the ledger was connected")

    # -- the slot map -----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask one node after the other for the slot map; the first answer counts."""
        why: ServerError = Unavailable("no node is named")
        for place in dict.fromkeys((*self._nodes, *self.address.hosts)):
            try:
                shards = await self._slots_of(place)
            except ServerError as refused:
                log.debug("%s knows no slots: %s", place, refused)
                why = refused
                continue
            before = self._owners.get(key_slot(self._home))
            self._owners = {slot: owner for first, last, owner in shards for slot in range(first, last + 1)}
            now = self._owners.get(key_slot(self._home))
            if before not in (None, now) and now is not None and now in self._nodes:
                await self._nodes.pop(now).close()  # a new connection vouches for the ledger it now holds
            if self._outage_logged:
                self._outage_logged = False
                log.warning("redis available again: %s", self.address)
            return
        if not self._owners and not self._outage_logged:
            self._outage_logged = True
            hint = "; this server is no cluster: write redis:// in place of redis+cluster://" if _is_alone(why) else ""
            log.warning("redis unavailable: %s: %s%s", self.address, why, hint)

    async def _slots_of(self, place: Place) -> list[tuple[int, int, Place]]:
        connection = await self.address.connect(place)
        try:
            reply = await connection.call("CLUSTER", "SLOTS", timeout_s=1.0)
        finally:
            await connection.close()
        if not reply:
            raise CommandRefused(f"{place} serves no slots yet")
        return [(first, last, (node[0].decode() or place[0], node[1])) for first, last, node, *_ in reply]

    async def _look_until_found(self) -> None:
        while not self._owners:
            await asyncio.sleep(REFRESH_S)
            await self._look()
        await self._node(self._owner(self._home))

    def _look_behind(self) -> None:
        """A node went away: perhaps its slots have another owner by now. One look at a time."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_once())

    async def _look_once(self) -> None:
        await asyncio.sleep(REFRESH_S)
        await self._look()


def _is_alone(refused: ServerError) -> bool:
    return "cluster support disabled" in str(refused)
