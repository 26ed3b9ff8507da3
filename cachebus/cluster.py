"""A Redis or Valkey Cluster as one `Server`: each command goes to the node of its key's slot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from cachebus.errors import CommandRefused, Moved, ServerError, Unavailable
from cachebus.server import TIMEOUT_S, Node, Welcome, run_script
from cachebus.wire import Address, Argument, Done, Reply, Wire, key_slot

log = logging.getLogger("cachebus")

Place = tuple[str, int]

REDIRECTS = 4
"""A slot under migration redirects once or twice; more is a cluster that does not know itself."""
REFRESH_S = 1.0
"""How long to wait between looks at the slot map while no node answers."""


class Cluster:
    """All nodes of a cluster. Implements `Server`. *home* is the key of the bus's slot, where the ledger lives.

    A redirected command did not run, so following the redirect is safe. The slot map is read again after a redirect.
    """

    def __init__(self, address: Address, welcome: Welcome | None, *, home: str) -> None:
        self.address = address
        self._welcome = welcome
        self._home = home
        self._owners: dict[int, Place] = {}
        self._nodes: dict[Place, Node] = {}
        self._looking: asyncio.Task[None] | None = None
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
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            self._looking = None
        for node in self._nodes.values():
            await node.close()
        self._nodes.clear()
        self._owners.clear()

    @property
    def up(self) -> bool:
        """Whether the home node answers; single entries may still be away with their node."""
        home = self._nodes.get(self._owners.get(key_slot(self._home), ("", 0)))
        return home is not None and home.up

    def group(self, key: str) -> int:
        """Keys of one slot may share a script."""
        return key_slot(key)

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

    def submit(self, key: str, commands: Sequence[tuple[Argument, ...]], done: Done) -> None:
        """Send several commands to the node of *key*, following redirects. See `Server.submit`."""

        async def send() -> None:
            replies: list[Reply] = []
            for command in commands:
                try:
                    replies.append(await self.call(*command, key=key))
                except Unavailable as away:
                    done(away)
                    return
                except ServerError as refused:
                    replies.append(refused)
            done(replies)

        task = asyncio.ensure_future(send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def run(
        self, verb: str, keys: Sequence[str], args: Sequence[Argument] = (), *, timeout_s: float = TIMEOUT_S
    ) -> Reply:
        """Run a script on the node of its keys. See `Server.run`."""
        return await run_script(self.call, verb, keys, args, timeout_s)

    async def dedicated(self, key: str, on_push: Callable[[Any], None] | None = None) -> Wire:
        """Open a connection of one's own to the node of *key*."""
        await self.ready()
        return await (await self._node(self._owner(key))).dedicated(key, on_push)

    def _owner(self, key: str) -> Place:
        try:
            return self._owners[key_slot(key)]
        except KeyError:
            raise Unavailable(f"{self.address}: no node serves the slot of {key!r}") from None

    async def _node(self, place: Place) -> Node:
        node = self._nodes.get(place)
        if node is None:
            node = self._nodes[place] = Node(self.address, self._welcome_home, place=place)
        await node.start()
        return node

    async def _welcome_home(self, wire: Wire) -> None:
        """The ledger is asked where it lives; other nodes hold entries, which need no vouching of their own."""
        if self._welcome is None:
            return
        try:
            await self._welcome(wire)
        except Moved:
            log.debug("a node that does not hold the ledger was connected")

    # -- the slot map -----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask one node after the other for the slot map; the first answer counts."""
        for place in dict.fromkeys((*self._nodes, *self.address.hosts)):
            try:
                shards = await self._slots_of(place)
            except ServerError as away:
                log.debug("%s knows no slots: %s", place, away)
                continue
            before = self._owners.get(key_slot(self._home))
            self._owners = {slot: owner for first, last, owner in shards for slot in range(first, last + 1)}
            now = self._owners.get(key_slot(self._home))
            if before not in (None, now) and now is not None and now in self._nodes:
                await self._nodes.pop(now).close()  # a new connection vouches for the ledger it now holds
            return

    async def _slots_of(self, place: Place) -> list[tuple[int, int, Place]]:
        wire = await self.address.connect(place)
        try:
            reply = await wire.call("CLUSTER", "SLOTS", timeout_s=1.0)
        finally:
            await wire.close()
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
