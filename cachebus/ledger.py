"""The ledger's border: invalidate scopes, ask for their clocks, and keep what could not be sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from cachebus.errors import ServerError, Unavailable, UnknownScript
from cachebus.freshness import Freshness, LedgerAnswer
from cachebus.keys import EVERYTHING
from cachebus.link import Link
from cachebus.scripts import script
from cachebus.wire import Argument, Reply, Wire

log = logging.getLogger("cachebus")

SCOPES_A_CALL = 990
"""A script takes at most 1,000 arguments: Lua's stack, and Redis' patience."""
NEWEST = 5_000
"""Scopes a process learns when it begins anew, about 300 KB: what is older than them it asks about as it comes."""
MOST_QUEUED = 10_000
"""Scopes kept while the server is away; one more and the queue becomes "everything"."""


class Clock(int):
    """The clock of an invalidation, microseconds; pass it on as `fresh_after`.

    `queued` is true when the server was away: the invalidation holds in this process and is sent when it is back.
    """

    queued = False


class QueuedClock(Clock):
    """The newest clock known when an invalidation had to be queued."""

    queued = True


class Ledger:
    """This process's hand on the ledger. Invalidations of one loop tick share one script call."""

    def __init__(self, link: Link, freshness: Freshness) -> None:
        self._link = link
        self._freshness = freshness
        self._keys = (link.names.ledger, link.names.journal)
        self._script = script("invalidate")
        self._waiting: dict[str, None] = {}
        self._callers: list[asyncio.Future[Clock]] = []
        self._under_way = 0
        self._alone = False
        """Whether the last invalidation had no company: the next one then leaves at once, not with its tick."""
        self._outbox: dict[str, None] = {}
        self._sending = asyncio.Lock()
        self.invalidations = 0
        link.welcomes.append(self._welcome)

    @property
    def queued(self) -> int:
        """How many scopes wait for the server."""
        return len(self._outbox)

    async def invalidate(self, scopes: Sequence[str]) -> Clock:
        """Make everything under *scopes* unreadable: here when this returns, elsewhere after journal lag.

        One round trip, shared with other callers of this tick. Safe to repeat. Never raises for an absent server: the
        clock then says `queued`.
        """
        self._waiting.update(dict.fromkeys(scopes))
        self.invalidations += 1
        loop = asyncio.get_running_loop()
        caller: asyncio.Future[Clock] = loop.create_future()
        self._callers.append(caller)
        if self._alone and not self._under_way:
            self._flush()
        elif len(self._callers) == 1:
            loop.call_soon(self._flush)
        return await caller

    async def tick(self) -> Clock:
        """Move the clock on without invalidating anything; returns the new clock."""
        return await self.invalidate(())

    async def ask(self, scopes: Iterable[str]) -> LedgerAnswer:
        """Return the ledger's clocks of *scopes*; what it says goes into this process's table. One round trip.

        Raises: Unavailable.
        """
        names = tuple(dict.fromkeys(scopes))
        return self.answered(names, await self._link.store.call(*self.question(names)))

    def question(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the command that asks for the clocks of *names*; `answered` reads its reply."""
        return ("ZMSCORE", self._keys[0], "@clock", "@start", "@floor", *names)

    def answered(self, names: Sequence[str], reply: Sequence[bytes | None]) -> LedgerAnswer:
        """Read a ZMSCORE reply for `@clock @start @floor names…`; what it says goes into this process's table."""
        clock, start, floor, *scores = [int(score) if score is not None else 0 for score in reply]
        answer = LedgerAnswer(clock, start, floor, dict(zip(names, scores, strict=True)))
        self._freshness.heard(answer.clocks, clock)
        return answer

    def _flush(self) -> None:
        if not self._callers:  # the one this tick began with left at once
            return
        scopes, self._waiting = tuple(self._waiting), {}
        callers, self._callers = self._callers, []
        self._alone = len(callers) == 1
        if self._outbox or len(scopes) > SCOPES_A_CALL:
            self._send_apart(scopes, callers)
            return
        self._under_way += 1

        def arrived(replies: list[Reply] | ServerError) -> None:
            self._under_way -= 1
            reply = replies if isinstance(replies, ServerError) else replies[0]
            if isinstance(reply, UnknownScript):
                self._send_apart(scopes, callers)
                return
            if isinstance(reply, ServerError):
                clock = self._queue(scopes, reply)
            else:
                clock = Clock(int(reply[0]))
                self._freshness.invalidated(scopes, int(clock))
            for caller in callers:
                if not caller.done():
                    caller.set_result(clock)

        command: tuple[Argument, ...] = (
            "EVALSHA",
            self._script.digest,
            len(self._keys),
            *self._keys,
            self._freshness.seen,
            *scopes,
        )
        self._link.store.submit(self._keys[0], [command], arrived)

    def _send_apart(self, scopes: tuple[str, ...], callers: list[asyncio.Future[Clock]]) -> None:
        """What takes more than one command: behind the queue, in parts, or with the script's text."""
        task = asyncio.ensure_future(self._send(scopes))
        task.add_done_callback(lambda sent: _answer(callers, sent))

    async def _send(self, scopes: tuple[str, ...]) -> Clock:
        clock = 0
        try:
            if self._outbox:
                await self.deliver()
            for first in range(0, max(1, len(scopes)), SCOPES_A_CALL):
                part = scopes[first : first + SCOPES_A_CALL]
                reply = await self._link.store.run("invalidate", self._keys, (self._freshness.seen, *part))
                clock = int(reply[0])
                self._freshness.invalidated(part, clock)
        except ServerError as away:
            return self._queue(scopes, away)
        return Clock(clock)

    def _queue(self, scopes: tuple[str, ...], away: ServerError) -> Clock:
        self._freshness.queued(scopes)
        self._outbox.update(dict.fromkeys(scopes))
        if len(self._outbox) > MOST_QUEUED:
            self._outbox = {EVERYTHING: None}
            self._freshness.queued(self._outbox)
        if not isinstance(away, Unavailable):
            log.warning("an invalidation of %d scopes waits: %s", len(scopes), away)
        return QueuedClock(self._freshness.seen)

    async def deliver(self) -> None:
        """Send what was queued. Raises: ServerError; nothing is lost then."""
        async with self._sending:
            while self._outbox:
                part, moment = tuple(self._outbox)[:SCOPES_A_CALL], self._freshness.moment()
                reply = await self._link.store.run("invalidate", self._keys, (self._freshness.seen, *part))
                self._delivered(part, moment, int(reply[0]))

    def _delivered(self, part: tuple[str, ...], moment: int, clock: int) -> None:
        self._freshness.invalidated(part, clock)
        self._freshness.delivered(part, moment)
        for scope in part:
            self._outbox.pop(scope, None)

    async def _welcome(self, wire: Wire) -> None:
        """Before a new connection is trusted: does this server run know all we know? Then send what was queued."""
        freshness = self._freshness
        run = await _run_id(wire) or freshness.run
        keys = (len(self._keys), *self._keys)
        reply = await wire.call("EVAL", script("vouch").text, *keys, freshness.seen, run, freshness.run)
        clock, start = int(reply[0]), int(reply[1])
        if run != freshness.run or start != freshness.start:
            await resync(wire, freshness, self._keys[0], clock, start)
            freshness.run = run
        while self._outbox:
            part, moment = tuple(self._outbox)[:SCOPES_A_CALL], freshness.moment()
            reply = await wire.call("EVAL", script("invalidate").text, *keys, freshness.seen, *part)
            self._delivered(part, moment, int(reply[0]))


async def resync(wire: Wire, freshness: Freshness, ledger: str, clock: int, start: int) -> None:
    """Begin anew at *clock*, read from the ledger before, with the ledger's newest scopes. One round trip."""
    reply: Sequence[bytes] = await wire.call("ZRANGE", ledger, 0, NEWEST - 1, "REV", "WITHSCORES")
    newest = {scope.decode(): int(score) for scope, score in zip(reply[::2], reply[1::2], strict=True)}
    if len(newest) == NEWEST:
        since = min(newest.values())
    else:  # all there are; unless this is another ledger by now, which does not know what the one before did
        since = newest["@floor"] if newest.get("@start") == start else clock
    freshness.resync(clock, start, since, newest)


async def _run_id(wire: Wire) -> str:
    """Return the id of this server run; '' where the user may not ask (the journal's probe still notices)."""
    try:
        info: bytes = await wire.call("INFO", "server")
    except ServerError:
        if wire.lost.done():
            raise
        return ""
    for line in info.splitlines():
        if line.startswith(b"run_id:"):
            return line[7:].decode()
    return ""


def _answer(callers: list[asyncio.Future[Clock]], sent: asyncio.Future[Any]) -> None:
    for caller in callers:
        if not caller.done():
            if sent.cancelled():
                caller.cancel()
            elif error := sent.exception():
                caller.set_exception(error)
            else:
                caller.set_result(sent.result())
