"""L2: entries in Redis. Reads of one loop tick travel together; leases decide who loads; a fill wakes who waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any

import msgspec

from cachebus.dictionaries import Dictionaries
from cachebus.errors import ServerError, UnknownScript
from cachebus.freshness import LedgerAnswer
from cachebus.ledger import Ledger
from cachebus.link import Link
from cachebus.scripts import script
from cachebus.wire import Argument, Reply

log = logging.getLogger("cachebus")

READS_A_CALL = 150
"""Two keys and three arguments each: within the 1,000 a script takes."""
NEVER = 10**16
"""A floor that nothing reaches: the read takes the lease whatever lies there."""
LEASE_MS = 3_000
"""A dead loader is replaced after this long; a living one renews at a third of it."""


class State(IntEnum):
    """What a read found out about loading."""

    USE = 0
    OURS = 1
    ELSEWHERE = 2
    ALONE = 3
    """No lease to be had (the server has no memory left): load without one."""


STATES = tuple(State)


class Ask(msgspec.Struct, frozen=True, gc=False):
    """One read. `floor`: least born acceptable, a clock; `token` '' never takes the lease."""

    entry: str
    lease: str
    floor: int
    token: str = ""
    born: int = 0
    until: int = 0
    """Least end of life acceptable, microseconds of the server's time."""
    touch_ms: int = 0
    scopes: tuple[str, ...] = ()
    """Non-empty: the ledger is asked about these in the same round trip, after the read."""


class Told:
    """What the ledger answered beside a batch of reads: looked into only where an entry is too old for our table."""

    __slots__ = ("_answer", "_ledger", "_reply", "_scopes")

    def __init__(self, ledger: Ledger, scopes: tuple[str, ...], reply: Reply) -> None:
        self._ledger = ledger
        self._scopes = scopes
        self._reply = reply
        self._answer: LedgerAnswer | None = None

    def answer(self) -> LedgerAnswer:
        """Return it, read once for the whole batch."""
        if self._answer is None:
            self._answer = self._ledger.answered(self._scopes, self._reply)
        return self._answer


class Found(msgspec.Struct, frozen=True, gc=False):
    """What a read brought: the stored bytes, who loads, and the ledger's word if asked."""

    data: bytes | None
    state: State
    wait_ms: int
    told: Told | None
    ask: Ask
    """The question this answers; perhaps another caller's, whose lease it then is."""


class _Read(msgspec.Struct, eq=False):
    """One read under way, and everyone who waits for it."""

    ask: Ask
    callers: list[asyncio.Future[Found]]

    def serves(self, ask: Ask) -> bool:
        """Return whether the answer will do for another caller: as demanding, and loading or not like that one."""
        mine = self.ask
        return mine.floor >= ask.floor and mine.until >= ask.until and bool(mine.token) == bool(ask.token)

    def succeed(self, found: Found) -> bool:
        """Answer everyone; False where nobody waits any more."""
        awaited = False
        for caller in self.callers:
            if not caller.done():
                caller.set_result(found)
                awaited = True
        return awaited

    def fail(self, error: ServerError) -> None:
        """Tell everyone that it failed."""
        for caller in self.callers:
            if not caller.done():
                caller.set_exception(error)


class Entries:
    """The stored entries of one deployment, as one process sees them."""

    def __init__(self, link: Link, ledger: Ledger) -> None:
        self._link = link
        self._server = link.entries
        self.dictionaries = Dictionaries(link)
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._script = script("read")
        self._together = link.entries is link.store and self._server.group("a") == self._server.group("b")
        """Whether one connection answers both a read and a question to the ledger."""
        self._asked: list[_Read] = []
        self._alone = False
        """Whether the last read had no company. The next one then leaves at once, and its tick is one wait shorter."""
        self._reading: dict[str, _Read] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._listening: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, ask: Ask) -> asyncio.Future[Found]:
        """Fetch one entry; where it cannot be used, take the lease or learn who has it.

        One round trip, shared with other reads of this loop tick; a read of the same entry that is under way is joined.
        Raises: ServerError.
        """
        future: asyncio.Future[Found] = self._loop.create_future()
        read = self._reading.get(ask.entry)
        if read is not None and read.serves(ask):
            read.callers.append(future)
            return future
        at_once = self._alone and not self._reading
        self._reading[ask.entry] = read = _Read(ask, [future])
        if at_once:
            self._send([read])
        else:
            if not self._asked:
                self._loop.call_soon(self._flush)
            self._asked.append(read)
        return future

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        self._alone = len(asked) == len(self._reading) == 1
        groups: dict[int, list[_Read]] = {}
        for read in asked:
            groups.setdefault(self._server.group(read.ask.entry), []).append(read)
        for group in groups.values():
            for first in range(0, len(group), READS_A_CALL):
                self._send(group[first : first + READS_A_CALL])

    def _send(self, reads: list[_Read]) -> None:
        """Read, and in the same flight ask the ledger. The read goes first: the answer must not be older than it."""
        args: list[Argument] = [LEASE_MS, reads[0].ask.born]  # asked in one tick: the first is the oldest, if any is
        names: dict[str, None] = {}
        for read in reads:
            ask = read.ask
            floor = b"%016d" % ask.floor if ask.floor < NEVER else b":"  # sorts after every digit
            args += (floor, b"%016d" % ask.until if ask.until else b"", ask.token, ask.touch_ms or b"")
            if ask.scopes:
                names.update(dict.fromkeys(ask.scopes))
        scopes = tuple(names)
        entries, leases = [read.ask.entry for read in reads], [read.ask.lease for read in reads]
        command = (len(reads) * 2, *entries, *leases, *args)
        commands: list[tuple[Argument, ...]] = [("EVALSHA", self._script.digest, *command)]
        if scopes and self._together:
            commands.append(self._ledger.question(scopes))

        def arrived(replies: list[Reply] | ServerError) -> None:
            if isinstance(replies, ServerError):
                self._answer(reads, replies, (), None)
            elif isinstance(replies[0], UnknownScript):
                self._start(self._send_whole(reads, command, scopes))
            elif scopes and not self._together:
                self._start(self._ask_apart(reads, replies[0], scopes))
            else:
                self._answer(reads, replies[0], scopes, replies[1] if scopes else None)

        self._server.submit(reads[0].ask.entry, commands, arrived)

    async def _send_whole(self, reads: list[_Read], command: tuple[Argument, ...], scopes: tuple[str, ...]) -> None:
        """The server has forgotten the script: send its text."""
        try:
            reply = await self._server.call("EVAL", self._script.text, *command, key=reads[0].ask.entry)
        except ServerError as away:
            reply = away
        await self._ask_apart(reads, reply, scopes)

    async def _ask_apart(self, reads: list[_Read], reply: Reply, scopes: tuple[str, ...]) -> None:
        """The ledger lives on another server, or in another slot: it is asked once the read is answered."""
        scores: Reply = None
        if scopes and not isinstance(reply, ServerError):
            try:
                scores = await self._link.store.call(*self._ledger.question(scopes), key=self._link.names.ledger)
            except ServerError as away:
                scores = away
        self._answer(reads, reply, scopes, scores)

    def _answer(self, reads: list[_Read], reply: Reply, scopes: tuple[str, ...], scores: Reply) -> None:
        for read in reads:
            if self._reading.get(read.ask.entry) is read:
                del self._reading[read.ask.entry]
        failed = next((error for error in (reply, scores) if isinstance(error, ServerError)), None)
        if failed is not None:
            for read in reads:
                read.fail(failed)
            return
        told = Told(self._ledger, scopes, scores) if scores is not None else None
        if len(reply) == len(reads):  # all can be used: the usual case comes without states
            for read, data in zip(reads, reply, strict=True):
                read.succeed(Found(data, State.USE, 0, told if read.ask.scopes else None, read.ask))
            return
        for read, data, state, wait in zip(reads, reply[::3], reply[1::3], reply[2::3], strict=True):
            found = Found(data, STATES[state], wait, told if read.ask.scopes else None, read.ask)
            if not read.succeed(found) and state == State.OURS:  # every caller gave up: nobody would load
                self._start(self.release(read.ask))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
