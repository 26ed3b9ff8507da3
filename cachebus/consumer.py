"""The consumer of a shard: read, handle, commit. One commit at a time, the next batch handled meanwhile.

Execution is at least once, effects are once: a commit writes them all together with the position, and only for whoever
holds the shard.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from cachebus.dispatch import Dispatcher, HandlerStats, Loading, TakenRetry
from cachebus.durations import Duration, milliseconds
from cachebus.errors import AccessDenied, ServerError, Unavailable
from cachebus.events import PAYLOAD_BYTES, Record, read_record
from cachebus.handlers import Handler, Routes
from cachebus.intake import RECORDS_A_READ, Intake
from cachebus.link import Link
from cachebus.plan import ENOUGH_EVENTS, Plan, RetryItem
from cachebus.shard import HUNG_S, Shard, ShardLost
from cachebus.signatures import Signatures

log = logging.getLogger("cachebus")

LEASE = "5s"
RETENTION = "5m"
"""How long handled events stay in the stream, for people to look at."""
MOST_EVENTS = 1_000_000
FEED_LENGTH = 10_000
DEAD_LETTERS = 10_000
COMMIT_S = 2.0
"""A commit takes milliseconds; after this long its reply is taken for lost, and it is sent again."""
PAUSE_S = 0.5
"""Between attempts while the server refuses: resumes well within two seconds, and costs nothing meanwhile."""
RETRIES_AT_ONCE = 100
CAREFUL_EVENTS = 2 * ENOUGH_EVENTS
"""A dead owner had at most two batches in hand: one being committed, one being handled."""
MOST_DEATHS = 2
"""So many marked deaths, and an event is a poison."""
CERTAIN_DEATHS = 4
"""So many owners are not all cut off: the verdict waits for none of them, else one that dies waiting adds one more."""


class Committed(NamedTuple):
    """What `on_committed` is told of each commit. Times are the server's."""

    shard: int
    events: int
    clock: int
    """The ledger's, microseconds: what broadcasts carry as `fresh_after`."""
    oldest_ms: int
    """From the publication of its oldest event to this commit; -1 where it had none (retries)."""
    newest_ms: int
    waiting: int
    """Events in the stream behind its last one."""


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


class Consumer:
    """Handles one shard's events while it holds the shard; otherwise a hot standby. `run` in a task of its own."""

    def __init__(  # noqa: PLR0913 - the settings of a deployment, each with a default
        self,
        link: Link,
        handlers: Iterable[Handler[..., Any]],
        *,
        shard: int = 0,
        shards: int = 1,
        worker: str = "worker",
        lease: Duration = LEASE,
        retention: Duration = RETENTION,
        max_events: int = MOST_EVENTS,
        feed_length: int = FEED_LENGTH,
        max_payload_bytes: int = PAYLOAD_BYTES,
        signatures: Signatures | None = None,
        concurrency: int = 16,
        loading: Loading | None = None,
        seen: Callable[[], int] = int,  # 0: no clock known
        on_committed: Callable[[Committed], None] | None = None,
    ) -> None:
        self._link = link
        self._dispatcher = Dispatcher(
            Routes(handlers),
            loading=loading,
            concurrency=concurrency,
            max_payload_bytes=max_payload_bytes,
            signatures=signatures,
        )
        self._sign = (
            (lambda channel, name, payload: signatures.sign(channel, name, payload, link.now_us() // 1_000_000))
            if signatures is not None
            else None
        )
        self._shards = shards
        names = link.names
        slowest_s = max((handler.policy.timeout_ms for handler in self._dispatcher.routes.handlers), default=0) / 1000
        self._shard = Shard(
            link,
            shard,
            shards=shards,
            worker=worker,
            lease_ms=milliseconds(lease, "lease"),
            busy_since=lambda: self._dispatcher.busy_since,
            hung_s=HUNG_S + slowest_s,
        )
        self._keys = [
            *(self._shard.lease, self._shard.state, self._shard.events, names.ledger, names.journal, names.feed),
            *(self._shard.retries, self._shard.retry_items, names.bus("deadletters")),
            *(names.bus("refreshes"), names.bus("refresh-items"), self._shard.marks),
        ]
        self._streams = [names.bus("events", str(number)) for number in range(shards)]
        self._retention_us = milliseconds(retention, "retention") * 1000
        self._fixed = (
            self._retention_us,
            max_events // 2,
            feed_length,
            DEAD_LETTERS,
            names.bus("skip"),
            names.bus("refresh"),
        )
        self._seen = seen
        self._on_committed = on_committed
        self.stats = ConsumerStats(self._dispatcher.stats)
        self._committing: asyncio.Task[None] | None = None
        self._careful_events = 0
        self._careful_retries = 0
        self._stop: asyncio.Future[None] | None = None
        self._draining = False
        self._ended = asyncio.Event()
        self._told: set[str] = set()

    @property
    def active(self) -> bool:
        """Whether this consumer holds its shard."""
        return self._shard.held

    async def run(self) -> None:
        """Hold the shard and handle its events, or wait for it, until cancelled. An outage is waited out."""
        self._ended.clear()
        self._stop = asyncio.get_running_loop().create_future()
        try:
            while not self._draining:
                try:
                    if await self._shard.take(self._stop):
                        await self._consume(self._stop)
                except ShardLost as lost:
                    self.stats.lost += 1
                    log.warning("%s", lost)
                except ServerError as fault:
                    self._fault(fault)
                    await asyncio.wait([self._stop], timeout=PAUSE_S)
        finally:
            await self._shard.release()
            self._ended.set()
        await asyncio.get_running_loop().create_future()  # drained: nothing to do until cancelled

    async def drain(self) -> None:
        """Take nothing more, commit what is under way, give the shard back; returns when that is done."""
        self._draining = True
        if self._stop is not None:
            if not self._stop.done():
                self._stop.set_result(None)
            await self._ended.wait()

    # -- the main path ----------------------------------------------------------------------------------------------

    async def _consume(self, stop: asyncio.Future[None]) -> None:
        """Handle events until told to stop. Raises: ShardLost, ServerError."""
        self._taken()
        intake = Intake(self._link, self._shard.events)
        plan = Plan(self._shards, self._sign)
        try:
            await intake.open(self._shard.position)
            while not stop.done() and not self._shard.surplus:
                if not self._shard.held:
                    raise self._shard.lost()
                if self._committing is not None and self._committing.done():
                    await self._settle()
                if self._retries_due():
                    plan = await self._repeat(await self._commit_open(plan))
                records = await intake.next(self._others(stop), self._until_retry())
                if self._careful_events and records:
                    plan = await self._work_carefully(records, plan)
                else:
                    plan = await self._dispatcher.work(records, plan, self._commit_open)
                if len(records) < RECORDS_A_READ:  # else more is there already: fewer, fuller commits
                    plan = await self._commit_open(plan)
            await self._commit_open(plan)
            await self._settle()
            await self._shard.release()  # told to stop, or another worker is to have it
        finally:
            if self._committing is not None:
                self._committing.cancel()
                await asyncio.gather(self._committing, return_exceptions=True)
                self._committing = None
            self._dispatcher.busy_since = None
            await intake.close()

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
            *(shard.token, shard.commits + 1, shard.position, after, plan.events, shard.lease_ms, self._seen()),
            *self._fixed,
            *plan.body(),
        ]
        keys = [*self._keys, *self._streams] if plan.publishes else self._keys
        while True:
            started = time.perf_counter()
            try:
                reply = await self._link.store.run("commit", keys, args, timeout_s=COMMIT_S)
                break
            except ServerError as fault:
                self._fault(fault)
                await asyncio.sleep(PAUSE_S)
                if not shard.held:
                    raise shard.lost() from fault
        if not reply[0]:
            raise shard.lost()
        shard.position, shard.commits, shard.waiting = after, shard.commits + 1, reply[3]
        shard.renewed()
        shard.told_due(reply[4])
        self._committed(plan, reply, (time.perf_counter() - started) * 1000)

    # -- retries ----------------------------------------------------------------------------------------------------

    def _retries_due(self) -> bool:
        return asyncio.get_running_loop().time() >= self._shard.retry_at

    def _until_retry(self) -> float | None:
        left_s = self._shard.retry_at - asyncio.get_running_loop().time()
        return None if left_s == float("inf") else max(0.0, left_s)

    async def _repeat(self, plan: Plan) -> Plan:
        """Run what is due in the retries, and commit it."""
        await self._settle()
        careful = self._careful_retries > 0
        taken, marked = await self._take_retries(careful=careful)
        if careful:
            self._careful_retries = self._careful_retries - 1 if taken else 0
        for retry, others in list(zip(taken, marked, strict=True)):
            if (others := await self._deaths(retry.name, others)) >= MOST_DEATHS:
                self._dispatcher.condemn_retry(retry, plan, others)
                taken.remove(retry)
            if careful:
                plan.unmark(retry.name)
        self.stats.retries += len(taken)
        plan = await self._dispatcher.repeat(taken, plan, self._commit_open)
        plan = await self._commit_open(plan)
        await self._settle()  # the next round must not find the same items
        return plan

    async def _take_retries(self, *, careful: bool) -> tuple[list[TakenRetry], list[int]]:
        shard = self._shard
        keys = (shard.lease, shard.retries, shard.retry_items, shard.marks)
        args = (shard.token, 1 if careful else RETRIES_AT_ONCE, int(careful))
        reply = await self._link.store.run("take_retries", keys, args, timeout_s=COMMIT_S)
        if not reply[0]:
            raise shard.lost()
        shard.told_due(reply[1])
        taken = [
            TakenRetry(name.decode(), attempt, _retry_item(item))
            for name, attempt, item in zip(reply[2::4], reply[3::4], reply[5::4], strict=True)
        ]
        return taken, list(reply[4::4])

    # -- after an owner that died ------------------------------------------------------------------------------------

    def _taken(self) -> None:
        """Note what the shard was found like."""
        shard = self._shard
        self.stats.takeovers += 1
        self.stats.waiting = shard.waiting
        self._careful_events = CAREFUL_EVENTS if shard.careful_until else 0
        self._careful_retries = RETRIES_AT_ONCE if shard.died else 0
        if shard.began_anew:
            self.stats.gaps += 1
            log.error("shard %d: its stream began anew; events may be lost", shard.number)

    async def _work_carefully(self, records: Sequence[Record], plan: Plan) -> Plan:
        """Handle events one at a time, each marked before it runs, up to where the owner that died may have been.

        What ends its process a second time is found by its mark, and not run a third time.
        """
        limit = _order(self._shard.careful_until.encode())
        for at, record in enumerate(records):
            if not self._careful_events or _order(record[0]) > limit:
                self._careful_events = 0
                return await self._dispatcher.work(records[at:], plan, self._commit_open)
            name = record[0].decode()
            others = await self._deaths(name, await self._shard.mark(name))
            if others >= MOST_DEATHS:
                plan.begin(record[0], time.monotonic())
                self._dispatcher.condemn(read_record(record), plan, others)
            else:
                plan = await self._dispatcher.work([record], plan, self._commit_open)
            plan.unmark(name)
            plan = await self._commit_open(plan)
            await self._settle()
            self._careful_events -= 1
        return plan

    async def _deaths(self, name: str, others: int) -> int:
        """Return how many died with *name* in hand: before a verdict, those who live can take their marks back."""
        if not MOST_DEATHS <= others < CERTAIN_DEATHS:
            return others
        await asyncio.sleep(self._shard.pardon_s)
        return await self._shard.mark(name)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _others(self, stop: asyncio.Future[None]) -> list[asyncio.Future[Any]]:
        return [stop] if self._committing is None else [stop, self._committing]

    def _committed(self, plan: Plan, reply: Sequence[Any], took_ms: float) -> None:
        _, clock, now_us, waiting, _, gap = reply
        now_ms = int(now_us) // 1000
        stats = self.stats
        stats.commits += 1
        stats.events += plan.events
        stats.commit_ms, stats.waiting = took_ms, waiting
        oldest_ms = now_ms - _order(plan.first)[0] if plan.events else -1
        newest_ms = now_ms - _order(plan.position)[0] if plan.events else -1
        if plan.events:
            stats.latency_ms = oldest_ms
        if gap:
            stats.gaps += 1
            log.error("shard %d: somebody else trimmed its stream; events may be lost", self._shard.number)
        self._well()
        if self._on_committed is not None:
            try:
                self._on_committed(
                    Committed(self._shard.number, plan.events, int(clock), oldest_ms, newest_ms, waiting)
                )
            except Exception:
                log.exception("on_committed failed")  # the commit stands; who watches must not stop the shard

    def _fault(self, fault: ServerError) -> None:
        """Tell what the server says, each kind once until all is well; that it is away its connection tells."""
        self.stats.faults += 1
        kind = type(fault).__name__
        if kind not in self._told and not isinstance(fault, Unavailable):
            self._told.add(kind)
            hint = "; only a person can mend that" if isinstance(fault, AccessDenied) else ""
            log.warning("shard %d waits: %s: %s%s", self._shard.number, kind, fault, hint)

    def _well(self) -> None:
        if self._told:
            self._told.clear()
            log.warning("shard %d goes on", self._shard.number)


def _retry_item(packed: bytes) -> RetryItem:
    """Return an item of the retries; one that cannot be read names no handler, and so becomes a dead letter."""
    try:
        return msgspec.msgpack.decode(packed, type=RetryItem)
    except msgspec.DecodeError:
        return RetryItem("", "", "", packed, "", "")


def _order(position: bytes) -> tuple[int, int]:
    """Return a stream id as numbers, in the stream's order."""
    milliseconds, _, number = position.partition(b"-")
    return int(milliseconds), int(number)
