"""L2: entries in Redis. Reads of one loop tick travel together; leases decide who loads; a fill wakes who waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from enum import IntEnum
from typing import Any

import msgspec

from cachebus.cache.tiers.entry import stamp
from cachebus.clock import now_s
from cachebus.errors import ServerError
from cachebus.freshness.clock import Born
from cachebus.freshness.ledger import Ledger, Question
from cachebus.freshness.rule import LedgerAnswer
from cachebus.redis.client import Client
from cachebus.redis.connection import Argument, Done
from cachebus.redis.replies import Reply

log = logging.getLogger("cachebus")

READS_A_CALL = 150
"""Two keys and three arguments each: within the 1,000 a script takes."""
NEVER = 10**16
"""A floor that nothing reaches: the read takes the lease, whatever is stored."""
LEASE_MS = 3_000
"""A dead loader is replaced after this long; a living one renews at a third of it."""


class LeaseState(IntEnum):
    """What a read found out about loading."""

    USE = 0
    OURS = 1
    ELSEWHERE = 2
    ALONE = 3
    """No lease to be had (the server has no memory left): load without one."""


STATES = tuple(LeaseState)


class Ask(msgspec.Struct, frozen=True, gc=False):
    """One read. `floor`: era, and least born acceptable in it; `token` '' never takes the lease."""

    entry: str
    lease: str
    floor: Born
    token: str = ""
    born: int = 0
    until: int = 0
    """Least end of life acceptable, microseconds of the server's time."""
    scopes: tuple[str, ...] = ()
    """Non-empty: the ledger is asked about these in the same round trip, after the read."""
    position: int = 0
    """Up to where this process had applied the journal."""


class LedgerReply:
    """What the ledger answered beside a batch of reads: looked into only where an entry is too old for our table."""

    __slots__ = ("_answer", "_ledger", "_question", "_reply")

    def __init__(self, ledger: Ledger, question: Question, reply: Reply) -> None:
        self._ledger = ledger
        self._question = question
        self._reply = reply
        self._answer: LedgerAnswer | None = None

    def answer(self) -> LedgerAnswer:
        """Return it, read once for the whole batch."""
        if self._answer is None:
            self._answer = self._ledger.answered(self._question, self._reply)
        return self._answer


class _Given:
    """How many callers a lease was given to who may load with it: the last to give it back does."""

    __slots__ = ("callers",)

    def __init__(self) -> None:
        self.callers = 0


class Found(msgspec.Struct, frozen=True, gc=False):
    """What a read brought: the stored bytes, who loads, and the ledger's word if asked."""

    data: bytes | None
    state: LeaseState
    wait_ms: int
    ledger: LedgerReply | None
    ask: Ask
    """The question this answers; perhaps another caller's, whose lease it then is."""
    given: _Given | None = None
    """Where the lease is ours: to how many."""


class _Read(msgspec.Struct, eq=False):
    """One read under way, and everyone who waits for it."""

    ask: Ask
    callers: list[asyncio.Future[Found]]
    sent: bool = False

    def serves(self, ask: Ask) -> bool:
        """Return whether the answer will do for another caller: as demanding, and loading or not like that one."""
        mine = self.ask
        if self.sent and ask.scopes:  # what the ledger says must not be older than the question
            return False
        return mine.floor >= ask.floor and mine.until >= ask.until and bool(mine.token) == bool(ask.token)

    def succeed(self, found: Found) -> int:
        """Answer everyone; returns how many still wait."""
        waiting = [caller for caller in self.callers if not caller.done()]
        for caller in waiting:
            caller.set_result(found)
        return len(waiting)

    def fail(self, error: ServerError) -> None:
        """Tell everyone that it failed."""
        for caller in self.callers:
            if not caller.done():
                caller.set_exception(error)


class Entries:
    """The stored entries of one deployment, as one process sees them."""

    def __init__(self, client: Client, ledger: Ledger) -> None:
        self._client = client
        self._server = client.entries
        self.lease = client.names.lease
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._together = client.entries is client.store and client.store.one_connection
        """Whether one connection answers both a read and a question to the ledger."""
        self._asked: list[_Read] = []
        self._alone = False
        """Whether the last read had no company. The next one then leaves at once, and its tick is one wait shorter."""
        self._reading: dict[str, _Read] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._listening: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- reading ----------------------------------------------------------------------------------------------------

    def read(self, ask: Ask, *, joins: bool) -> asyncio.Future[Found]:
        """Fetch one entry; with a token, where it cannot be used, take the lease or learn who has it.

        One round trip, shared with other reads of this loop tick (MGET without tokens, a script with them). *joins*: it
        may be one of the same entry that is under way, whose lease another caller can give back. Raises: ServerError.
        """
        future: asyncio.Future[Found] = self._loop.create_future()
        read = self._reading.get(ask.entry)
        if joins and read is not None and read.serves(ask):
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

    def fetch(self, entries: list[str], done: Done) -> None:
        """Fetch several entries as they are, now. See `Server.fetch`. One round trip."""

        def arrived(replies: list[Reply] | ServerError) -> None:
            self._failed(replies if isinstance(replies, list) else [replies])
            done(replies)

        self._server.fetch(entries, arrived)

    def _failed(self, replies: Iterable[Reply]) -> ServerError | None:
        """Return the first error among the replies to reads; take note of it, or that they were served."""
        failed = next((reply for reply in replies if isinstance(reply, ServerError)), None)
        if failed is None:
            self._client.refusals.clear()
        else:
            self._client.refusals.note(failed)
        return failed

    def _flush(self) -> None:
        asked, self._asked = self._asked, []
        self._alone = len(asked) == len(self._reading) == 1
        groups: dict[tuple[int, bool], list[_Read]] = {}
        for read in asked:
            groups.setdefault((self._server.group(read.ask.entry), read.ask.token == ""), []).append(read)
        for group in groups.values():
            for first in range(0, len(group), READS_A_CALL):
                self._send(group[first : first + READS_A_CALL])

    def _send(self, reads: list[_Read]) -> None:
        """Read, and in the same flight ask the ledger. The read goes first: the answer must not be older than it."""
        names: dict[str, None] = {}
        for read in reads:
            read.sent = True
            if read.ask.scopes:
                names.update(dict.fromkeys(read.ask.scopes))
        question = self._ledger.question(tuple(names)) if names else None
        entries = [read.ask.entry for read in reads]
        then = [question.command] if question is not None and self._together else []

        def arrived(replies: list[Reply] | ServerError) -> None:
            if isinstance(replies, ServerError):
                self._answer(reads, replies, None, None)
            elif question is not None and not self._together:
                self._start(self._ask_apart(reads, replies[0], question))
            else:
                self._answer(reads, replies[0], question, replies[1] if question is not None else None)

        if not reads[0].ask.token:
            self._server.submit(entries[0], [("MGET", *entries), *then], arrived)
            return
        args: list[Argument] = [LEASE_MS, reads[0].ask.born]  # asked in one tick: the first is the oldest, if any is
        for ask in [read.ask for read in reads]:
            floor = stamp(ask.floor) if ask.floor.number < NEVER else b""
            args += (floor, b"%016d" % ask.until if ask.until else b"", ask.token)
        leases = [read.ask.lease for read in reads]
        self._server.submit_run("cache/tiers/read", (*entries, *leases), args, arrived, then=then)

    async def _ask_apart(self, reads: list[_Read], reply: Reply, question: Question | None) -> None:
        """The ledger lives on another server, or in another slot: it is asked once the read is answered."""
        scores: Reply = None
        if question is not None and not isinstance(reply, ServerError):
            try:
                scores = await self._client.store.call(*question.command, key=self._client.names.ledger)
            except ServerError as away:
                scores = away
        self._answer(reads, reply, question, scores)

    def _answer(self, reads: list[_Read], reply: Reply, question: Question | None, scores: Reply) -> None:
        for read in reads:
            if self._reading.get(read.ask.entry) is read:
                del self._reading[read.ask.entry]
        failed = self._failed((reply, scores))
        if failed is not None:
            for read in reads:
                read.fail(failed)
            return
        ledger = LedgerReply(self._ledger, question, scores) if question is not None and scores is not None else None
        if len(reply) == len(reads):  # without states: MGET, or a script that found that all can be used
            for read, data in zip(reads, reply, strict=True):
                read.succeed(Found(data, LeaseState.USE, 0, ledger if read.ask.scopes else None, read.ask))
            return
        for read, data, state, wait in zip(reads, reply[::3], reply[1::3], reply[2::3], strict=True):
            given = _Given() if state == LeaseState.OURS else None
            callers = read.succeed(
                Found(data, STATES[state], wait, ledger if read.ask.scopes else None, read.ask, given)
            )
            if given is not None:
                given.callers = callers
                if not callers:  # every caller gave up: nobody would load
                    self._start(self.release(read.ask))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- writing ----------------------------------------------------------------------------------------------------

    async def fill(self, ask: Ask, data: bytes, *, life_ms: int, born: Born) -> bool:
        """Store a loaded value and give the lease back; False where a newer one stays. One round trip.

        Raises: ServerError; the lease then ends by itself.
        """
        keys = (ask.entry, ask.lease)
        args = (ask.token, data, life_ms, stamp(born), self._client.names.wake, ask.entry)
        return bool(await self._server.run("cache/tiers/fill", keys, args) == 1)

    async def write(self, entry: str, data: bytes, *, life_ms: int, born: Born) -> bool:
        """Store a value unless a newer one lies there. One round trip. Raises: ServerError."""
        return bool(await self._server.run("cache/tiers/write", (entry,), (data, life_ms, stamp(born))))

    async def give_back(self, found: Found) -> None:
        """Give back the lease that a caller will not load with, unless another caller who got it may."""
        if _is_last(found):
            await self.release(found.ask)

    def abandon(self, asked: asyncio.Future[Found]) -> None:
        """Do the same for a caller of `read` that ends now, with the answer or without."""
        if asked.done() and not asked.cancelled() and asked.exception() is None and _is_last(asked.result()):
            self._start(self.release(asked.result().ask))

    async def release(self, ask: Ask) -> None:
        """Give the lease back without a value. One round trip; a failure only means that it ends by itself."""
        try:
            await self._server.run("cache/tiers/release", (ask.lease,), (ask.token, self._client.names.wake, ask.entry))
        except ServerError as away:
            log.debug("lease of %s ends by itself: %s", ask.entry, away)

    async def renew(self, ask: Ask, for_s: float) -> None:
        """Keep a lease while its load runs, until cancelled; after *for_s* give it back, which wakes who waits."""
        pause_s, ends = LEASE_MS / 3000, now_s() + for_s
        while (left_s := ends - now_s()) > pause_s:
            await asyncio.sleep(pause_s)
            try:
                await self._server.run("cache/tiers/renew", (ask.lease,), (ask.token, LEASE_MS))
            except ServerError as away:
                log.debug("lease of %s not renewed: %s", ask.entry, away)
        await asyncio.sleep(left_s)
        await self.release(ask)

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
        await self._client.wakes.subscribe(self._client.names.wake, self._woken, on_gap=self._wake_all)

    def _woken(self, _channel: str, message: bytes) -> None:
        for waiter in self._waiters.pop(message.decode(), ()):
            if not waiter.done():
                waiter.set_result(None)

    def _wake_all(self) -> None:
        for entry in list(self._waiters):
            self._woken("", entry.encode())


def _is_last(found: Found) -> bool:
    """Count one caller less of a lease; return whether none is left."""
    if found.given is None:
        return False
    found.given.callers -= 1
    return found.given.callers == 0
