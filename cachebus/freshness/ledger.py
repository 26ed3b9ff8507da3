"""Client of the ledger: the handshake of each connection, invalidations, questions, and what could not be sent yet."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from cachebus.clock import now_s
from cachebus.errors import ServerError, Unavailable
from cachebus.freshness.cause import Cause, causes_of, current_cause
from cachebus.freshness.clock import Born, Clock, clock_of, parse_score
from cachebus.freshness.era import WHY
from cachebus.freshness.proof import Proof
from cachebus.freshness.recall import Recall
from cachebus.freshness.rule import Freshness, LedgerAnswer
from cachebus.freshness.scopes import EVERYTHING
from cachebus.redis.client import Client
from cachebus.redis.connection import Argument, Connection
from cachebus.redis.replies import Reply

log = logging.getLogger("cachebus")

SCOPES_A_CALL = 990
"""A script takes at most 1,000 arguments: Lua's stack, and Redis' patience."""
NEWEST = 5_000
"""Scopes a process learns when it enters an era, about 300 KB: what is older than them it asks about as it comes."""
MOST_QUEUED = 10_000
"""Scopes kept while the server is unavailable; one more and the queue becomes "everything"."""
OWN_S = 60.0
"""How long own invalidations are remembered, to be repeated in another era: a primary that was deposed without knowing
it may have acknowledged them."""


class Question(NamedTuple):
    """What the ledger is asked about some scopes, in the era this process is in."""

    era: str
    command: tuple[str, ...]
    scopes: tuple[str, ...]


class Invalidation(NamedTuple):
    """What an invalidation did: its clock, and the clocks that scopes had before.

    Missing in *before*: a scope that another caller of this process named in the same call.
    """

    clock: Clock
    before: Mapping[str, int]


class Ledger:
    """This process's client of the ledger. Invalidations of one loop tick share one script call."""

    def __init__(
        self,
        client: Client,
        freshness: Freshness,
        *,
        process: str = "",
        trust_restarts: bool = False,
        boot: str = "",
        keeps: int | None = None,
    ) -> None:
        """*trust_restarts*: a server that was restarted lacks nothing. *boot*: nor does one of this boot.

        *process*: named as the cause of invalidations that name none. *keeps*: how many scopes the ledger is to keep,
        None leaves it as it is.
        """
        self._client = client
        self._freshness = freshness
        self._keys = (client.names.ledger, client.names.journal)
        self._trust_restarts = trust_restarts
        self._boot = boot
        self._keeps = keeps
        self._proof = Proof(client)
        self._process = Cause("process", process)
        self._waiting: dict[str, int] = {}
        """Scopes of the next call, and how many callers name each."""
        self._causes: dict[str, Cause] = {}
        """Why the first of them does."""
        self._callers: list[asyncio.Future[Invalidation]] = []
        self._under_way = 0
        self._alone = False
        """Whether the last invalidation had no company: the next one then leaves at once, not with its tick."""
        self._outbox: dict[str, Cause] = {}
        self._refused = ""
        """Why the server does not take them, where it was asked; '' while it takes them."""
        self._own: dict[str, float] = {}
        """Scopes that this process invalidated lately, and when; in that order."""
        self._sending = asyncio.Lock()
        self.invalidations = 0
        self.recall = Recall()
        client.welcomes.append(self._welcome)

    @property
    def queued(self) -> int:
        """How many scopes wait for the server."""
        return len(self._outbox)

    # -- invalidating -----------------------------------------------------------------------------------------------

    async def invalidate(self, scopes: Sequence[str]) -> Clock:
        """Make everything under *scopes* unreadable: here when this returns, elsewhere after journal lag.

        One round trip, shared with other callers of this tick. Safe to repeat. Never raises for an absent server: the
        clock then says `queued`.
        """
        return (await self.take_over(scopes)).clock

    async def take_over(self, scopes: Sequence[str]) -> Invalidation:
        """As `invalidate`; says besides which clocks the scopes had before, for whoever stores a value of its own."""
        cause = current_cause() or self._process
        for scope in dict.fromkeys(scopes):
            self._waiting[scope] = self._waiting.get(scope, 0) + 1
            self._causes.setdefault(scope, cause)
        self.invalidations += 1
        loop = asyncio.get_running_loop()
        caller: asyncio.Future[Invalidation] = loop.create_future()
        self._callers.append(caller)
        if self._alone and not self._under_way:
            self._flush()
        elif len(self._callers) == 1:
            loop.call_soon(self._flush)
        return await caller

    def _flush(self) -> None:
        if not self._callers:  # the one this tick began with left at once
            return
        named, self._waiting = self._waiting, {}
        causes, self._causes = self._causes, {}
        callers, self._callers = self._callers, []
        self._alone = len(callers) == 1
        if self._outbox or len(named) > SCOPES_A_CALL:
            self._send_apart(named, causes, callers)
            return
        self._under_way += 1

        def arrived(replies: list[Reply] | ServerError) -> None:
            self._under_way -= 1
            reply = replies if isinstance(replies, ServerError) else replies[0]
            try:
                done = self._invalidated(named, reply)
            except ServerError as failed:
                done = self._queue(causes, failed)
            for caller in callers:
                if not caller.done():
                    caller.set_result(done)

        self._client.store.submit_run("freshness/invalidate", self._keys, self._arguments(causes), arrived)

    def _invalidated(self, named: Mapping[str, int], reply: Reply) -> Invalidation:
        """Apply what the script answered. Raises: the error it answered; Unavailable where it is of another era."""
        if isinstance(reply, ServerError):
            raise reply
        clock, era = int(reply[0]), reply[2].decode()
        self._remember(named)
        if era != self._freshness.era:
            raise self._estranged()
        self._freshness.invalidated(named, clock)
        before = zip(named.items(), reply[3:], strict=True)
        alone = {scope: parse_score(score) for (scope, callers), score in before if callers == 1}
        return Invalidation(clock_of(Born(clock, era)), alone)

    def _send_apart(
        self, named: Mapping[str, int], causes: Mapping[str, Cause], callers: list[asyncio.Future[Invalidation]]
    ) -> None:
        """What takes more than one command: behind the queue, or in parts."""
        task = asyncio.ensure_future(self._send(named, causes))
        task.add_done_callback(lambda sent: _answer(callers, sent))

    async def _send(self, named: Mapping[str, int], causes: Mapping[str, Cause]) -> Invalidation:
        scopes, done = tuple(named), Invalidation(clock_of(self._freshness.born), {})
        try:
            if self._outbox:
                await self.deliver()
            for first in range(0, max(1, len(scopes)), SCOPES_A_CALL):
                part = scopes[first : first + SCOPES_A_CALL]
                args = self._arguments({scope: causes[scope] for scope in part})
                reply = await self._client.store.run("freshness/invalidate", self._keys, args)
                done = self._invalidated({scope: named[scope] for scope in part}, reply)
        except ServerError as failed:
            return self._queue(causes, failed)
        return done

    def _arguments(self, scopes: Mapping[str, Cause]) -> tuple[Argument, ...]:
        """Return what `invalidate.lua` is given."""
        return (new_era(), causes_of(scopes), *scopes)

    def _queue(self, scopes: Mapping[str, Cause], failed: ServerError) -> Invalidation:
        self._enqueue(scopes)
        if not (isinstance(failed, Unavailable) or self._refused == type(failed).__name__):
            self._refused = type(failed).__name__
            log.warning("invalidations hold in this process alone, and are sent when the server takes them: %s", failed)
        return Invalidation(clock_of(self._freshness.born, queued=True), {})

    def _enqueue(self, scopes: Mapping[str, Cause]) -> None:
        self._freshness.queued(scopes)
        self._outbox.update(scopes)
        if len(self._outbox) > MOST_QUEUED:
            self._outbox = {EVERYTHING: self._process._replace(what="too many were queued while Redis was unavailable")}
            self._freshness.queued(self._outbox)

    async def deliver(self) -> None:
        """Send what was queued. Raises: ServerError; nothing is lost then."""
        async with self._sending:
            while self._outbox:
                part, moment = self._next_queued(), self._freshness.moment()
                reply = await self._client.store.run("freshness/invalidate", self._keys, self._arguments(part))
                self._delivered(part, moment, reply)

    def _next_queued(self) -> dict[str, Cause]:
        return dict(islice(self._outbox.items(), SCOPES_A_CALL))

    def _delivered(self, part: Iterable[str], moment: int, reply: Reply) -> None:
        self._invalidated(dict.fromkeys(part, 1), reply)
        self._freshness.delivered(part, moment)
        for scope in part:
            self._outbox.pop(scope, None)
        if self._refused and not self._outbox:
            self._refused = ""
            log.warning("the server takes invalidations again; none is queued any more")

    def _remember(self, scopes: Iterable[str]) -> None:
        now, own = now_s(), self._own
        for scope in scopes:
            own.pop(scope, None)
            own[scope] = now
        while own and now - own[next(iter(own))] > OWN_S:
            del own[next(iter(own))]
        if len(own) > MOST_QUEUED:
            self._own = {EVERYTHING: now}

    async def notify_set(self, key: str, born: Born, scopes: Iterable[str]) -> Born | None:
        """Have other processes drop their memory copies of a plain value. One round trip.

        Returns: up to when the value is known to be valid; None where it is not. Raises: ServerError.
        """
        args: tuple[Argument, ...] = (new_era(), born.era, born.number, key, *scopes)
        clock = int(await self._client.store.run("freshness/notice", self._keys, args) or 0)
        if not clock or born.era != self._freshness.era:
            return None
        self._freshness.replaced(key, clock)
        return Born(clock, born.era)

    # -- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, scopes: Iterable[str]) -> LedgerAnswer:
        """Return the ledger's clocks of *scopes*; what it says goes into this process's table. One round trip.

        Raises: Unavailable.
        """
        question = self.question(tuple(dict.fromkeys(scopes)))
        return self.answered(question, await self._client.store.call(*question.command))

    def question(self, scopes: tuple[str, ...]) -> Question:
        """Return the question for the clocks of *scopes*; `answered` reads its reply."""
        era = self._freshness.era
        return Question(era, ("ZMSCORE", self._keys[0], f"@era:{era}", "@clock", "@floor", *scopes), scopes)

    def answered(self, question: Question, reply: Sequence[bytes | None]) -> LedgerAnswer:
        """Read the reply to *question*; what it says goes into this process's table."""
        clock, floor, *clocks = map(parse_score, reply[1:])
        if question.era != self._freshness.era:  # this process has entered another one since
            return LedgerAnswer("", 0, 0, {})
        if None in reply[:3]:  # gone, of another era, or damaged
            self._estranged()
            return LedgerAnswer("", 0, 0, {})
        known = {scope: min(last, clock) for scope, last in zip(question.scopes, clocks, strict=True)}
        self._freshness.learn(known, clock)
        self.recall.known_since = max(self.recall.known_since, floor)
        return LedgerAnswer(question.era, clock, floor, known)

    def _estranged(self) -> Unavailable:
        """An answer named another era: the connection is closed, only the handshake of a new one may enter it."""
        reason = Unavailable("the ledger is in another era")
        self._client.store.reconnect(reason)
        return reason

    # -- handshake --------------------------------------------------------------------------------------------------

    async def _welcome(self, connection: Connection) -> None:
        await self.shake(connection)
        self._proof.vouch_on(connection, self._freshness.era)

    async def shake(self, connection: Connection) -> None:
        """Learn the ledger's era before a new connection is trusted, then send what was queued.

        Where it is another one than this process's, all it knew is void, and it repeats its own invalidations of the
        last minute. Raises: ServerError; the connection must not be used then.
        """
        freshness = self._freshness
        run = await _run_id(connection)
        proven = "" if self._trust_restarts else await self._proof.ask(connection, run)
        era, clock, newest = await self.open(connection, run, proven=proven, known=freshness.era)
        if era != freshness.era:
            self.recall.known_since = 0
            freshness.enter(era, clock, *newest)
            repeated = self._process._replace(what="repeated in a new era")
            own = {scope: repeated for scope, at in self._own.items() if now_s() - at <= OWN_S}
            if own:
                self._enqueue(own)
        freshness.observe(clock)
        while self._outbox:
            part, moment = self._next_queued(), freshness.moment()
            reply = await connection.run("freshness/invalidate", self._keys, self._arguments(part))
            self._delivered(part, moment, reply)

    async def shake_journal(self, connection: Connection) -> None:
        """As `shake`, for the journal's connection. What era it enters, the one that gives proof has to enter, too.

        Else nobody would vouch for that era, and each process that comes to it would begin yet another one.
        """
        await self.shake(connection)
        if self._proof.is_behind(self._freshness.era):
            self._estranged()

    async def resync(self, connection: Connection) -> None:
        """Begin the table again at the ledger's clock. One round trip. Raises: Unavailable where the era is another."""
        freshness = self._freshness
        era, clock, newest = await self.open(connection, await _run_id(connection), proven=freshness.era)
        if era != freshness.era:
            raise Unavailable("the ledger is in another era")
        freshness.resync(clock, *newest)

    async def open(
        self, connection: Connection, run: str, *, proven: str, known: str = ""
    ) -> tuple[str, int, tuple[int, dict[str, int]]]:
        """Run `open.lua`. Returns era, clock, and the newest scopes unless it is the *known* one.

        The newest scopes: the clock since which none is missing, and their clocks.
        """
        followed = (self._freshness.era, self._freshness.position)
        keeps = self._keeps or ""
        args = (new_era(), run, int(self._trust_restarts), proven, NEWEST, known, self._boot, *followed, keeps)
        reply = await connection.run("freshness/open", self._keys, args)
        era, clock, why, *pairs = reply
        if why:
            first = why == b"lost" and not self._freshness.era
            level = logging.INFO if first else logging.WARNING
            log.log(level, "the cache is cold, in a new era: %s", WHY[why.decode()])
        now = parse_score(clock)
        scores = {
            name.decode(errors="replace"): min(parse_score(score), now)
            for name, score in zip(pairs[::2], pairs[1::2], strict=True)
        }
        # Fewer than asked for: these are all there are, but for what was pruned.
        since = min(scores.values()) if len(scores) == NEWEST else scores.get("@floor", now)
        return era.decode(), now, (since, scores)


def new_era() -> str:
    """Return a name for an era that a script may have to begin."""
    return secrets.token_hex(8)


async def _run_id(connection: Connection) -> str:
    """Return the id of this server run; '' where the user may not ask."""
    try:
        info: bytes = await connection.call("INFO", "server")
    except ServerError:
        if connection.lost.done():
            raise
        return ""
    for line in info.splitlines():
        if line.startswith(b"run_id:"):
            return line[7:].decode()
    return ""


def _answer(callers: list[asyncio.Future[Invalidation]], sent: asyncio.Future[Any]) -> None:
    for caller in callers:
        if not caller.done():
            if sent.cancelled():
                caller.cancel()
            elif error := sent.exception():
                caller.set_exception(error)
            else:
                caller.set_result(sent.result())
