"""The consumer of a process without a server: the same handlers, and their effects applied here, in the same order."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from cachebus.bus.batches import REMEMBER_CALL_MS
from cachebus.bus.effects import IF_WORTH
from cachebus.bus.engine.commit import Plan, Publication
from cachebus.bus.engine.consumer import Committed, ConsumerStats
from cachebus.bus.engine.dispatcher import Dispatcher
from cachebus.bus.engine.draining import Drainable
from cachebus.bus.engine.refresher import (
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    MOST_FAILURES,
    Taken,
    Warmable,
    span_of,
)
from cachebus.bus.engine.runs import DueRetry
from cachebus.bus.engine.traced import traced
from cachebus.bus.engine.watchdog import Watchdog
from cachebus.bus.events import Event, EventRecord, channel_fault
from cachebus.bus.handlers import Handler, Routes
from cachebus.bus.letters import DelayedItem, RetryItem, buried, dead_letter
from cachebus.bus.local import LocalBus
from cachebus.bus.publisher import MOST_EVENTS
from cachebus.bus.settings import HANDLER_LIMIT
from cachebus.durations import Duration, backoff_s, milliseconds
from cachebus.pubsub.channels import LocalChannels
from cachebus.redis.client import Client, InProcess

log = logging.getLogger("cachebus")

EVENTS_AT_ONCE = 200
REFRESHES_AT_ONCE = 4
REFRESH_S = 60.0


class Host(Protocol):
    """What effects are applied to: a `Cache`."""

    @property
    def in_process(self) -> InProcess:
        """What the parts of this process share."""
        ...

    @property
    def views(self) -> Mapping[str, Warmable]:
        """Every view, by name."""
        ...

    async def connection(self) -> Client | None:
        """Connect unless that is done."""
        ...

    async def invalidate(self, *, keys: Iterable[str] = (), tags: Iterable[str] = (), prefix: str | None = None) -> str:
        """Make everything under these scopes unreadable."""
        ...

    async def clear(self) -> str:
        """Make everything unreadable."""
        ...

    def reading(self, *, fresh_after: str) -> AbstractContextManager[Any]:
        """Demand that reads in a block are not older than a clock."""
        ...

    def loading_only(self) -> AbstractContextManager[Any]:
        """Have views in a block load and never serve."""
        ...


class LocalConsumer(Drainable):
    """Handles the events of this process. `run` in a task of its own, one a cache. Drained, it empties the queue."""

    def __init__(
        self,
        cache: Host,
        handlers: Iterable[Handler[..., Any]],
        *,
        concurrency: int = 16,
        handler_limit: Duration = HANDLER_LIMIT,
        on_committed: Callable[[Committed], None] | None = None,
    ) -> None:
        super().__init__()
        self._cache = cache
        self._dispatcher = Dispatcher(Routes(traced(handlers)), loading=cache.loading_only, concurrency=concurrency)
        self._limit_s = milliseconds(handler_limit, "handler_limit") / 1000
        self._on_committed = on_committed
        self.stats = ConsumerStats(self._dispatcher.stats)
        self.active = False
        """Whether it is running."""
        self._clock = ""
        self._refreshing: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(REFRESHES_AT_ONCE)

    # -- the main path ----------------------------------------------------------------------------------------------

    async def _work(self, stop: asyncio.Future[None]) -> None:
        await self._cache.connection()
        bus, channels = self._cache.in_process.of(LocalBus), self._cache.in_process.of(LocalChannels)
        leave = await channels.subscribe("*", self._heard, lambda: None)
        self.active = True
        try:
            with Watchdog(self._limit_s, self._blame):
                while not stop.done() or bus.events or bus.windows:
                    arrived = bus.arrived.wait()
                    await self._publish_delayed(bus)
                    if not bus.events:  # those that came before a window closes are in it
                        bus.close_windows(every=stop.done())
                    plan = await self._dispatcher.repeat([DueRetry(*due) for due in bus.due()], Plan(), self._apply)
                    records = [EventRecord(bus.events.popleft()) for _ in range(min(EVENTS_AT_ONCE, len(bus.events)))]
                    plan = await self._dispatcher.work(records, plan, self._apply)
                    await self._apply(plan)
                    if not bus.events:
                        await asyncio.wait(
                            (stop, arrived), timeout=bus.next_due_s(), return_when=asyncio.FIRST_COMPLETED
                        )
                    arrived.cancel()
            await asyncio.gather(*self._refreshing, return_exceptions=True)
        finally:
            leave()
            self.active = False

    async def _close(self) -> None:
        for task in self._refreshing:
            task.cancel()
        await asyncio.gather(*self._refreshing, return_exceptions=True)
        bus = self._cache.in_process.of(LocalBus)
        if waiting := len(bus.retries) + len(bus.delayed):
            log.warning("%d events that were to be retried or published later end with this process", waiting)

    async def _apply(self, plan: Plan) -> Plan:
        """Do what a commit does: invalidate, broadcast, then everything that is for later. Returns an empty plan."""
        if plan.empty:
            return plan
        bus = self._cache.in_process.of(LocalBus)
        if plan.scopes:
            self._clock = await self._invalidate(plan.scopes)
        for line in plan.broadcasts:
            topic, _, body = line.partition(b"\n")
            bus.send(topic.decode(), body, self._clock)
            await self._cache.in_process.of(LocalChannels).publish(f"ws:{topic.decode()}", bus.feed[-1][2])
        for key, refresh in plan.refreshes.items():
            view, arguments, trace = (*refresh.split(b"\n"), b"")[:3]
            name = view.decode().removeprefix(IF_WORTH)  # nothing is counted here: each is loaded
            self._refresh(Taken(key, self._clock, 0, name, arguments, trace.decode()))
        self._keep(plan, bus)
        for publication in plan.publishes:
            await self._publish(bus, publication)
        self._committed(plan, len(bus.events))
        return Plan()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _keep(self, plan: Plan, bus: LocalBus) -> None:
        """Note what is to be done later, and what is done with."""
        for _, delay_ms, blob in plan.retries:
            attempts, _, item = blob.partition(b"\n")
            bus.retry(RetryItem.unpack(item), delay_ms, int(attempts))
        for name, delay_ms in plan.again:
            bus.again(name, delay_ms)
        for name in plan.done:
            bus.retries.pop(name, None)
        for letter in plan.dead:
            bus.bury(letter)
            log.warning("%s", buried(letter))
        for window in plan.windows.values():
            newest = RetryItem.unpack(window.run.partition(b"\n")[2])
            bus.debounce(window.name, window.quiet_ms, window.most_ms, newest)
        for delayed in plan.delayed:
            bus.delay(delayed.id, msgspec.msgpack.decode(delayed.item, type=DelayedItem), delayed.delay_ms)

    async def _invalidate(self, scopes: Iterable[str]) -> str:
        """Apply scopes as a ledger names them: key, tag, prefix, or everything."""
        kinds: dict[str, list[str]] = {"k:": [], "t:": [], "p:": []}
        clock = ""
        for scope in scopes:
            if scope[:2] in kinds:
                kinds[scope[:2]].append(scope[2:])
            else:
                clock = await self._cache.clear()
        if kinds["k:"] or kinds["t:"]:
            clock = await self._cache.invalidate(keys=kinds["k:"], tags=kinds["t:"])
        for prefix in kinds["p:"]:
            clock = await self._cache.invalidate(prefix=prefix)
        return clock

    async def _publish(self, bus: LocalBus, event: Publication) -> None:
        if len(bus.events) >= MOST_EVENTS:
            envelope = Event("", event.channel, event.payload, event.id, event.key)
            bus.bury(dead_letter("unfit", envelope, "", f"{MOST_EVENTS:,} events wait already"))
            return
        bus.append(
            event.channel,
            event.payload,
            name=event.id,
            key=event.key,
            remember_ms=REMEMBER_CALL_MS,
            traceparent=event.traceparent,
        )
        with bus.announcing():
            await self._cache.in_process.of(LocalChannels).publish(event.channel, event.payload)

    async def _publish_delayed(self, bus: LocalBus) -> None:
        """Publish the delayed events that are due, as the mover does."""
        for event in list(bus.take_delayed()):
            with bus.announcing():
                await self._cache.in_process.of(LocalChannels).publish(event.channel, event.payload)

    def _heard(self, channel: str, payload: bytes) -> None:
        """Make an event of a plain message, as the bridge does, if there is a handler for it."""
        bus = self._cache.in_process.of(LocalBus)
        if not bus.announced and not channel_fault(channel) and self._dispatcher.routes.of(channel.encode()):
            name = f"plain:{bus.position().decode()}"
            bus.append(channel, payload, name=name, key="", remember_ms=REMEMBER_CALL_MS)

    def _refresh(self, refresh: Taken) -> None:
        task = asyncio.create_task(self._load(refresh), name=f"cachebus refresh {refresh.view}")
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)

    async def _load(self, refresh: Taken) -> None:
        """Load an entry that a handler asked for; after a few failures it is a dead letter."""
        for failures in range(1, MOST_FAILURES + 1):
            try:
                async with self._turns, asyncio.timeout(REFRESH_S):
                    view = self._cache.views[refresh.view]
                    with span_of(refresh), self._cache.reading(fresh_after=refresh.clock):
                        await view.warm(*view.decode_arguments(refresh.arguments))
            except Exception as failed:  # noqa: BLE001 - whatever a loader raises, the others are loaded
                error = failed
            else:
                return
            if failures < MOST_FAILURES and not self.draining:
                await asyncio.sleep(backoff_s(failures, FIRST_BACKOFF_S, LONGEST_BACKOFF_S, random.random()))  # noqa: S311 - jitter, not a secret
        reason = f"{type(error).__name__}: {error}"
        event = Event("", "", refresh.arguments, "", refresh.key, MOST_FAILURES)
        self._cache.in_process.of(LocalBus).bury(dead_letter("refresh", event, refresh.view, reason, error))
        log.warning("refresh of %s given up: %s", refresh.key, reason)

    def _committed(self, plan: Plan, waiting: int) -> None:
        stats = self.stats
        stats.commits += 1
        stats.events += plan.events
        stats.waiting = waiting
        if self._on_committed is not None:
            try:
                self._on_committed(Committed(0, plan.events, self._clock, 0 if plan.events else -1, 0, waiting))
            except Exception:
                log.exception("on_committed failed")  # the effects are applied; an observer must not stop the bus

    def _blame(self, task: asyncio.Task[Any] | None) -> str:
        names = self._dispatcher.running_in(task)
        return f"event {', '.join(names)}" if names else f"not by a handler, but by {task}"
