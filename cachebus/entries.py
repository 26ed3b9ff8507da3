"""L2: entries in Redis. Reads of one loop tick travel together; leases decide who loads; a fill wakes who waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from cachebus.errors import ServerError
from cachebus.freshness import LedgerAnswer
from cachebus.ledger import Ledger
from cachebus.link import Link
from cachebus.wire import Argument

log = logging.getLogger("cachebus")

READS_A_CALL = 150
"""Six arguments each: within the 1,000 a script takes."""
LEASE_MS = 3_000
"""A dead loader is replaced after this long; a living one renews at a third of it."""


class State(IntEnum):
    """What a read found out about loading."""

    USE = 0
    OURS = 1
    ELSEWHERE = 2
    ALONE = 3
    """No lease to be had (the server has no memory left): load without one."""


class Ask(NamedTuple):
    """One read. `floor`: least born acceptable; `token` '' never takes the lease."""

    entry: str
    lease: str
    floor: int
    token: str = ""
    born: int = 0
    need_ms: int = 0
    touch_ms: int = 0
    scopes: tuple[str, ...] = ()
    """Non-empty: the ledger is asked about these in the same round trip, after the read."""


class Found(NamedTuple):
    """What a read brought: the stored bytes, how long they live on, who loads, and the ledger's word if asked."""

    data: bytes | None
    left_ms: int
    state: State
    wait_ms: int
    ledger: LedgerAnswer | None


class Entries:
    """The stored entries of one deployment, as one process sees them."""

    def __init__(self, link: Link, ledger: Ledger) -> None:
        self._link = link
        self._server = link.entries
        self._ledger = ledger
        self._asked: list[tuple[Ask, asyncio.Future[Found]]] = []
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._listening: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- reading ----------------------------------------------------------------------------------------------------

    async def read(self, ask: Ask) -> Found:
        """Fetch one entry; where it cannot be used, take the lease or learn who has it. One shared round trip.

        Raises: ServerError.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._flush)
        self._asked.append((ask, future))
        return await future

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        groups: dict[int, list[tuple[Ask, asyncio.Future[Found]]]] = {}
        for item in asked:
            groups.setdefault(self._server.group(item[0].entry), []).append(item)
        for group in groups.values():
            for first in range(0, len(group), READS_A_CALL):
                task = asyncio.ensure_future(self._read(group[first : first + READS_A_CALL]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _read(self, asked: list[tuple[Ask, asyncio.Future[Found]]]) -> None:
        keys: list[str] = []
        args: list[Argument] = []
        names: dict[str, None] = {}
        for ask, _ in asked:
            keys += (ask.entry, ask.lease)
            args += (f"{ask.floor:016d}", ask.need_ms, ask.token, LEASE_MS, ask.born, ask.touch_ms)
            names.update(dict.fromkeys(ask.scopes))
        try:
            reply, answer = await self._exchange(keys, args, tuple(names))
        except ServerError as away:
            for _, future in asked:
                if not future.done():
                    future.set_exception(type(away)(*away.args))
            return
        for i, (ask, future) in enumerate(asked):
            if not future.done():
                data, left, state, wait = reply[4 * i : 4 * i + 4]
                future.set_result(Found(data, left, State(state), wait, answer if ask.scopes else None))

    async def _exchange(
        self, keys: list[str], args: list[Argument], scopes: tuple[str, ...]
    ) -> tuple[Sequence[Any], LedgerAnswer | None]:
        """Read, and in the same flight ask the ledger. The read goes first: the answer must not be older than it."""
        read = self._server.run("read", keys, args)
        if not scopes:
            return await read, None
        if self._link.entries is self._link.store:
            reply, answer = await asyncio.gather(read, self._ledger.ask(scopes))
            return reply, answer
        return await read, await self._ledger.ask(scopes)

    # -- writing ----------------------------------------------------------------------------------------------------

    async def fill(self, ask: Ask, data: bytes, *, life_ms: int, born: int) -> bool:
        """Store a loaded value and give the lease back; False where a newer one stays. One round trip.

        Raises: ServerError; the lease then ends by itself.
        """
        keys = (ask.entry, ask.lease)
        args = (ask.token, data, life_ms, f"{born:016d}", self._link.names.wake, ask.entry)
        return bool(await self._server.run("fill", keys, args) == 1)

    async def write(self, entry: str, data: bytes, *, life_ms: int, born: int) -> bool:
        """Store a value unless a newer one lies there. One round trip. Raises: ServerError."""
        return bool(await self._server.run("write", (entry,), (data, life_ms, f"{born:016d}")))

    async def release(self, ask: Ask) -> None:
        """Give the lease back without a value. One round trip; a failure only means that it ends by itself."""
        try:
            await self._server.run("release", (ask.lease,), (ask.token, self._link.names.wake, ask.entry))
        except ServerError as away:
            log.debug("lease of %s ends by itself: %s", ask.entry, away)

    async def renew_until_cancelled(self, ask: Ask) -> None:
        """Keep a lease while its load runs."""
        while True:
            await asyncio.sleep(LEASE_MS / 3000)
            try:
                await self._server.run("renew", (ask.lease,), (ask.token, LEASE_MS))
            except ServerError as away:
                log.debug("lease of %s not renewed: %s", ask.entry, away)

    # -- being woken ------------------------------------------------------------------------------------------------

    def expect(self, entry: str) -> asyncio.Future[None]:
        """Return a future that the next fill of *entry*, by whichever process, resolves."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(entry, []).append(waiter)
        return waiter

    def forget(self, entry: str, waiter: asyncio.Future[None]) -> None:
        """Stop expecting."""
        waiters = self._waiters.get(entry, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(entry, None)

    async def listen(self) -> bool:
        """Make sure fills wake us; False where that begins only now (one was perhaps missed)."""
        if self._listening is not None and self._listening.done() and not self._listening.exception():
            return True
        if self._listening is None or self._listening.done():
            self._listening = asyncio.ensure_future(self._listen())
        await asyncio.shield(self._listening)
        return False

    async def _listen(self) -> None:
        await self._link.wakes.subscribe(self._link.names.wake, self._woken, on_gap=self._wake_all)

    def _woken(self, _channel: str, message: bytes) -> None:
        for waiter in self._waiters.pop(message.decode(), ()):
            if not waiter.done():
                waiter.set_result(None)

    def _wake_all(self) -> None:
        for entry in list(self._waiters):
            self._woken("", entry.encode())
