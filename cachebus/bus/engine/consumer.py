"""The consumer of a shard: read, handle, commit. One commit at a time, the next batch handled meanwhile.

Execution is at least once, effects are once: a commit writes them all together with the position, and only for whoever
holds the shard.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cachebus.bus.engine.commit import Plan
from cachebus.bus.engine.dispatcher import Dispatcher, HandlerStats, Loading
from cachebus.bus.engine.draining import Drainable, unless
from cachebus.bus.engine.runs import DueRetry
from cachebus.bus.engine.shard_lease import Shard, ShardLost
from cachebus.bus.engine.takeover import Takeover
from cachebus.bus.engine.traced import traced
from cachebus.bus.engine.watchdog import Watchdog
from cachebus.bus.events import PAYLOAD_BYTES, EventRecord, order
from cachebus.bus.handlers import Handler, Routes
from cachebus.bus.letters import RetryItem, buried
from cachebus.bus.permissions import refused_commands
from cachebus.bus.publisher import MOST_EVENTS
from cachebus.bus.settings import HANDLER_LIMIT, RETENTION
from cachebus.bus.signatures import Signatures
from cachebus.durations import Duration, milliseconds
from cachebus.errors import AccessDenied, ServerError, Unavailable
from cachebus.freshness.ledger import new_era
from cachebus.redis.client import Client
from cachebus.redis.stream_tail import StreamTail

log = logging.getLogger("cachebus")

LEASE = "5s"
FEED_LENGTH = 10_000
DEAD_LETTERS = 10_000
BLOCK_MS = 5000
RECORDS_A_READ = 200
"""Bounds what one reply may hold: two reads of the largest events are 100 MB, not more."""
COMMIT_S = 2.0
"""A commit takes milliseconds; after this long its reply counts as lost, and the commit is sent again."""
PAUSE_S = 0.5
"""Between attempts while the server refuses: resumes well within two seconds, and costs nothing meanwhile."""
RETRIES_AT_ONCE = 100
FAR_AHEAD_MS = 3_600_000
"""An id this far ahead of the server's clock is of a foreign XADD (`take_shard.lua` begins the stream again)."""


class Committed(NamedTuple):
    """What `on_committed` learns of each commit. Times are the server's."""

    shard: int
    events: int
    clock: str
    """The ledger's, `<number>.<era>`: what broadcasts carry as `fresh_after`."""
    oldest_ms: int
    """From the publication of its oldest event to this commit; -1 where it had none (retries)."""
    newest_ms: int
    waiting: int
    """Events in the stream behind its last one."""
    scopes: Mapping[str, str] = {}
    """What it made unreadable, each with a handler that named it."""


@dataclass(slots=True)
class ConsumerStats:
    """What a consumer has done: plain counters, and the latest readings."""

    handlers: HandlerStats
    events: int = 0
    """Events passed, each once, whatever became of them."""
    retries: int = 0
    """Runs out of the retries."""
    commits: int = 0
    commit_ms: float = 0.0
    """How long the latest commit took, there and back."""
    latency_ms: int = 0
    """Publication to commit, of the oldest event of the latest commit."""
    waiting: int = 0
    takeovers: int = 0
    lost: int = 0
    """Times the shard was found to be held by another."""
    gaps: int = 0
    """Times events may have been lost because somebody else trimmed or deleted the stream."""
    faults: int = 0
    """Times the server refused or could not be asked."""


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """How a consumer works; the same for every shard."""

    retention: Duration = RETENTION
    """How long handled events stay in the stream."""
    max_events: int = MOST_EVENTS
    feed_length: int = FEED_LENGTH
    max_payload_bytes: int = PAYLOAD_BYTES
    signatures: Signatures | None = None
    concurrency: int = 16
    """Events whose asynchronous handlers run side by side."""
    handler_limit: Duration = HANDLER_LIMIT
    """How long a handler may block the event loop before the process ends."""
    loading: Loading | None = None
    """Entered around handlers: `cache.loading_only`."""
    on_committed: Callable[[Committed], None] | None = None


class Consumer(Drainable):
    """Handles one shard's events while it holds the shard; otherwise a hot standby. `run` in a task of its own."""

    def __init__(  # noqa: PLR0913 - which shard of how many, whose, for how long
        self,
        client: Client,
        handlers: Iterable[Handler[..., Any]],
        *,
        shard: int = 0,
        shards: int = 1,
        worker: str = "worker",
        lease: Duration = LEASE,
        options: ConsumerOptions = ConsumerOptions(),
    ) -> None:
        super().__init__()
        self._client = client
        self._dispatcher = Dispatcher(
            Routes(traced(handlers)),
            loading=options.loading,
            concurrency=options.concurrency,
            max_payload_bytes=options.max_payload_bytes,
            signatures=options.signatures,
        )
        signatures = options.signatures
        self._sign = (
            (lambda channel, name, payload: signatures.sign(channel, name, payload, client.now_us() // 1_000_000))
            if signatures is not None
            else None
        )
        self._shards = shards
        names = client.names
        self._shard = Shard(
            client,
            shard,
            shards=shards,
            worker=worker,
            lease_ms=milliseconds(lease, "lease"),
        )
        self._takeover = Takeover(self._shard, self._dispatcher, cut=self._commit_open, settle=self._settle)
        self._limit_s = milliseconds(options.handler_limit, "handler_limit") / 1000
        self._keys = [
            *(self._shard.lease, self._shard.state, self._shard.events, names.ledger, names.journal, names.feed),
            *(self._shard.retries, self._shard.retry_items, names.bus("deadletters")),
            *(names.bus("refreshes"), names.bus("refresh-items"), self._shard.marks),
            *(self._shard.windows, self._shard.window_items, names.bus("delayed"), names.bus("delayed-items")),
            names.bus("deadletter-ids"),
        ]
        self._streams = [names.bus("events", str(number)) for number in range(shards)]
        self._retention_us = milliseconds(options.retention, "retention") * 1000
        self._fixed = (
            self._retention_us,
            options.max_events // 2,
            options.feed_length,
            DEAD_LETTERS,
            names.bus("skip"),
            names.bus("refresh"),
            names.bus("delay"),
        )
        self._on_committed = options.on_committed
        self.stats = ConsumerStats(self._dispatcher.stats)
        self._committing: asyncio.Task[None] | None = None
        self._logged: set[str] = set()
        client.tellers["event"].append(lambda position: self._dispatcher.runs.of(position, client.at_us))
        self._silenced = False

    @property
    def active(self) -> bool:
        """Whether this consumer holds its shard."""
        return self._shard.held

    # -- the main path ----------------------------------------------------------------------------------------------

    async def _work(self, stop: asyncio.Future[None]) -> None:
        """Hold the shard and handle its events, or wait for it. Drained, commit what is under way and release it."""
        with Watchdog(self._limit_s, self._blame), self._shard.guarded():  # their threads start before it is held
            while not stop.done():
                try:
                    await self._permitted()
                    if await self._shard.take(stop):
                        await self._consume(stop)
                except ShardLost as lost:
                    self.stats.lost += 1
                    log.warning("%s", lost)
                except ServerError as fault:
                    self._fault(fault)
                    await asyncio.wait([stop], timeout=PAUSE_S)

    async def _close(self) -> None:
        await self._shard.release()

    async def _consume(self, stop: asyncio.Future[None]) -> None:
        """Handle events until *stop* is done. Raises: ShardLost, ServerError."""
        self._begin()
        tail = StreamTail(self._client.store, self._shard.events, block_ms=BLOCK_MS, count=RECORDS_A_READ)
        plan = Plan(self._shards, self._sign)
        try:
            await unless(stop, tail.open(self._shard.position))
            while not (stop.done() or self._shard.surplus or self._shard.far_ahead):
                if not self._shard.held:
                    raise self._shard.lost()
                if self._committing is not None and self._committing.done():
                    await self._settle()
                    continue
                if self._retries_due():
                    plan = await self._repeat(await self._commit_open(plan))
                records = [EventRecord(entry) for entry in await tail.next(self._others(stop), self._until_retry())]
                if self._takeover.careful_with_events and records:
                    plan = await self._takeover.work(records, plan)
                else:
                    plan = await self._dispatcher.work(records, plan, self._commit_open)
                if len(records) < RECORDS_A_READ:  # else more is there already: fewer, fuller commits
                    plan = await self._commit_open(plan)
            await self._commit_open(plan)
            await self._settle()
            await self._shard.release()  # drained, or it is taken again: by another worker, or with a new stream
        finally:
            if self._committing is not None:
                self._committing.cancel()
                await asyncio.gather(self._committing, return_exceptions=True)
                self._committing = None
            await tail.close()

    async def _commit_open(self, plan: Plan) -> Plan:
        """Begin to commit *plan* once the commit before it is written; returns an empty one.

        Raises: ShardLost, if that is what became of the one before.
        """
        if plan.empty:
            return plan
        await self._settle()
        self._committing = asyncio.create_task(self._commit(plan), name="cachebus commit")
        await asyncio.sleep(0)  # it leaves before handlers keep the loop busy
        return Plan(self._shards, self._sign)

    async def _settle(self) -> None:
        committing, self._committing = self._committing, None
        if committing is not None:
            await committing

    async def _commit(self, plan: Plan) -> None:
        """Write a plan, however often it has to be sent: its number makes that safe. Raises: ShardLost."""
        shard = self._shard
        after = plan.position.decode() if plan.events else shard.position
        args = [
            *(shard.token, shard.commits + 1, shard.position, after, plan.events, shard.lease_ms, new_era()),
            *self._fixed,
            *plan.body(),
        ]
        keys = [*self._keys, *self._streams] if plan.publishes else self._keys
        denied = False
        while True:
            started = time.perf_counter()
            try:
                if denied:  # it ended in the middle of its writes: not again before it can end well
                    await self._permitted()
                reply = await self._client.store.run("bus/engine/commit", keys, args, timeout_s=COMMIT_S)
                break
            except ServerError as fault:
                denied = denied or isinstance(fault, AccessDenied)
                self._fault(fault)
                if self._gives_up(shard.lease_ms / 1000):
                    log.warning("shard %d: %d events are left to the next worker", shard.number, plan.events)
                    raise
                await asyncio.sleep(PAUSE_S)
                if not shard.held:
                    raise shard.lost() from fault
        if not reply[0]:
            raise shard.lost()
        shard.position, shard.commits, shard.waiting = after, shard.commits + 1, reply[3]
        shard.far_ahead = plan.events > 0 and order(plan.position)[0] > self._client.now_us() // 1000 + FAR_AHEAD_MS
        shard.renewed()
        shard.retry_due(reply[4])
        self._committed(plan, reply, (time.perf_counter() - started) * 1000)

    async def _permitted(self) -> None:
        """Try every command that a commit may need: it does not roll back. Raises: AccessDenied, ServerError."""
        if refused := await refused_commands(self._client):
            raise AccessDenied("; ".join(refused))

    # -- retries ----------------------------------------------------------------------------------------------------

    def _retries_due(self) -> bool:
        return self._shard.woken.done() or asyncio.get_running_loop().time() >= self._shard.retry_at

    def _until_retry(self) -> float | None:
        left_s = self._shard.retry_at - asyncio.get_running_loop().time()
        return None if left_s == float("inf") else max(0.0, left_s)

    async def _repeat(self, plan: Plan) -> Plan:
        """Run what is due in the retries, and commit it."""
        await self._settle()
        due = await self._takeover.spare(*await self._take_retries(careful=self._takeover.careful_with_retries), plan)
        self.stats.retries += len(due)
        plan = await self._dispatcher.repeat(due, plan, self._commit_open)
        plan = await self._commit_open(plan)
        await self._settle()  # the next round must not find the same items
        return plan

    async def _take_retries(self, *, careful: bool) -> tuple[list[DueRetry], list[int]]:
        shard = self._shard
        shard.expect()
        keys = (
            *(shard.lease, shard.retries, shard.retry_items, shard.marks),
            *(shard.state, shard.events, shard.windows, shard.window_items),
        )
        args = (shard.token, 1 if careful else RETRIES_AT_ONCE, int(careful))
        reply = await self._client.store.run("bus/engine/take_retries", keys, args, timeout_s=COMMIT_S)
        if not reply[0]:
            raise shard.lost()
        shard.retry_due(reply[1])
        due = [
            DueRetry(name.decode(), attempt, RetryItem.unpack(item))
            for name, attempt, item in zip(reply[2::4], reply[3::4], reply[5::4], strict=True)
        ]
        return due, list(reply[4::4])

    # -- inside -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Note what the shard was found like."""
        shard = self._shard
        self.stats.takeovers += 1
        self.stats.waiting = shard.waiting
        self._takeover.begin()
        if shard.began_anew:
            self.stats.gaps += 1
            log.error("shard %d: its stream began again from the start; events may be lost", shard.number)

    def _blame(self, task: asyncio.Task[Any] | None) -> str:
        """Mark what *task* works on, so that it counts against that. Called by the watchdog, in its thread."""
        names = self._dispatcher.running_in(task)
        for name in names:
            self._shard.mark_apart(name)
        return f"shard {self._shard.number}, event {', '.join(names)}" if names else f"not by a handler, but by {task}"

    def _others(self, stop: asyncio.Future[None]) -> list[asyncio.Future[Any]]:
        return [stop, self._shard.woken, *([] if self._committing is None else [self._committing])]

    def _committed(self, plan: Plan, reply: Sequence[Any], took_ms: float) -> None:
        _, clock, now_us, waiting, _, gap, unheard = reply
        now_ms = int(now_us) // 1000
        stats = self.stats
        stats.commits += 1
        stats.events += plan.events
        stats.commit_ms, stats.waiting = took_ms, waiting
        oldest_ms = now_ms - order(plan.first)[0] if plan.events else -1
        newest_ms = now_ms - order(plan.position)[0] if plan.events else -1
        if plan.events:
            stats.latency_ms = oldest_ms
        if gap:
            stats.gaps += 1
            log.error("shard %d: somebody else trimmed its stream; events may be lost", self._shard.number)
        if unheard and not self._silenced:
            log.error(
                "shard %d: PUBLISH is refused: broadcasts and events reach nobody who listens by plain pub/sub; "
                "add the rules: ACL SETUSER <user> +publish &*",
                self._shard.number,
            )
        self._silenced = bool(unheard)
        for letter in plan.dead:
            log.warning("%s", buried(letter))
        self._well()
        if self._on_committed is not None:
            try:
                self._on_committed(
                    Committed(
                        self._shard.number, plan.events, clock.decode(), oldest_ms, newest_ms, waiting, plan.scopes
                    )
                )
            except Exception:
                log.exception("on_committed failed")  # the commit is written; an observer must not stop the shard

    def _fault(self, fault: ServerError) -> None:
        """Log what the server answered, each kind once until all is well. An outage is logged by the connection."""
        self.stats.faults += 1
        kind = type(fault).__name__
        if kind not in self._logged and not isinstance(fault, Unavailable):
            self._logged.add(kind)
            hint = "; only new permissions or credentials help" if isinstance(fault, AccessDenied) else ""
            log.warning("shard %d waits: %s: %s%s", self._shard.number, kind, fault, hint)

    def _well(self) -> None:
        if self._logged:
            self._logged.clear()
            log.warning("shard %d resumed", self._shard.number)
