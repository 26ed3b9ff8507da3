"""Running handlers on events. Whatever a handler raises ends here: as a retry, a dead letter or a count."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cachebus.effects import Answer, Drop, Retry
from cachebus.events import PAYLOAD_BYTES, Event, InvalidEvent, Record, channel_and_payload, fields_of, read_record
from cachebus.handlers import Handler, Routes
from cachebus.plan import Plan, RetryItem, Unfit, dead_letter
from cachebus.signatures import Signatures

log = logging.getLogger("cachebus")

AnyHandler = Handler[..., Any]
Cut = Callable[[Plan], Awaitable[Plan]]
"""Commits a plan and returns an empty one."""
Loading = Callable[[], AbstractContextManager[Any]]

OPEN_S = 0.05
"""A plan is committed when its first event was begun this long ago, full or not."""

_SURVIVED = (Exception, SystemExit)
"""A handler that calls `sys.exit` ends itself, not the worker."""


@dataclass(slots=True)
class HandlerStats:
    """What became of events: plain counters of one consumer."""

    handled: int = 0
    """Runs of a handler that ended well."""
    failed: int = 0
    """Runs that raised, timed out, or asked for a retry."""
    dropped: int = 0
    """Runs that raised `Drop`."""
    dead_lettered: int = 0
    skipped: int = 0
    """Events on channels that no handler here listens to."""
    unsigned: int = 0
    """Events let through that `require` would have refused."""
    failures: dict[str, int] = field(default_factory=dict)
    """Failed runs by handler."""


class Run(NamedTuple):
    """One handler on one event: out of the stream, or once more out of the retries."""

    handler: AnyHandler
    event: Event
    retry: str = ""
    """Its name in the retries; '' for a first run."""


class TakenRetry(NamedTuple):
    """A retry that is due, as the server handed it out."""

    name: str
    attempt: int
    item: RetryItem


Groups = dict[AnyHandler, list[tuple[Any, Event]]]
"""Events that wait for the one call of a handler that takes lists."""


class Dispatcher:
    """Runs handlers and puts what they answer into plans. Knows no server."""

    def __init__(
        self,
        routes: Routes,
        *,
        loading: Loading | None = None,
        concurrency: int = 16,
        max_payload_bytes: int = PAYLOAD_BYTES,
        signatures: Signatures | None = None,
    ) -> None:
        self.routes = routes
        self.stats = HandlerStats()
        self.busy_since: float | None = None
        """Since when one and the same event is being handled, seconds of `time.monotonic`; None: none is."""
        self._loading: Loading = loading or nullcontext
        self._concurrency = concurrency
        self._max_payload_bytes = max_payload_bytes
        self._signatures = signatures
        self._asynchronous = any(handler.asynchronous for handler in routes.handlers)

    async def work(self, records: Sequence[Record], plan: Plan, cut: Cut) -> Plan:
        """Run the handlers of *records* in order; *cut* commits whenever the plan is full. Returns the open plan.

        Plain handlers run one after the other and cost no await. Asynchronous ones of up to `concurrency` events run
        side by side; their answers are taken in the order of the events.
        """
        groups: Groups = {}
        with self._loading():
            for portion in self._portions(records):
                ahead = self._begin(portion)
                try:
                    for record in portion:
                        now = self.busy_since = time.monotonic()
                        plan.begin(record[0], now)
                        rest = self._handle(record, plan)
                        if rest:
                            await self._handle_rest(rest, record, plan, ahead, groups)
                        if plan.full or now - plan.opened > OPEN_S:
                            await self._flush(groups, plan)
                            self.busy_since = None
                            plan = await cut(plan)
                finally:
                    for task in ahead:
                        task.cancel()
            await self._flush(groups, plan)
        self.busy_since = None
        return plan

    async def repeat(self, retries: Iterable[TakenRetry], plan: Plan, cut: Cut) -> Plan:
        """Run handlers once more on events of the retries. As `work`; a handler of lists gets a list of one."""
        runs: list[Run] = []
        for name, attempt, item in retries:
            handler = self.routes.by_name.get(item.handler)
            if handler is not None:
                runs.append(Run(handler, item.event(attempt), name))
                continue
            self.stats.dead_lettered += 1
            reason = f"no handler is called {item.handler!r} any more"
            plan.bury(dead_letter("lost handler", item.event(attempt), item.handler, reason))
            plan.finish(name)
        with self._loading():
            for first in range(0, len(runs), self._concurrency):
                plan = await self._repeat_portion(runs[first : first + self._concurrency], plan, cut)
        self.busy_since = None
        return plan

    def condemn(self, event: Event, plan: Plan, others: int) -> None:
        """Make dead letters of an event that ended whoever ran it."""
        for handler in self.routes.of(event.channel.encode()):
            self._bury(Run(handler, event), plan, "poison", _poisoned(others))

    def condemn_retry(self, retry: TakenRetry, plan: Plan, others: int) -> None:
        """Make a dead letter of a retry that ended whoever ran it."""
        self.stats.dead_lettered += 1
        plan.bury(dead_letter("poison", retry.item.event(retry.attempt), retry.item.handler, _poisoned(others)))
        plan.finish(retry.name)

    # -- one event --------------------------------------------------------------------------------------------------

    def _handle(self, record: Record, plan: Plan) -> Sequence[AnyHandler]:
        """Run the plain handlers of an event; returns those that are not."""
        try:
            channel, payload = self._open(record)
        except InvalidEvent as invalid:
            self.stats.dead_lettered += 1
            plan.bury(dead_letter("invalid", _whatever(record), "", str(invalid)))
            return ()
        handlers = self.routes.of(channel)
        if not handlers:
            self.stats.skipped += 1
        rest: list[AnyHandler] | None = None
        for handler in handlers:
            if handler.asynchronous or handler.batch:
                rest = [*(rest or ()), handler]
                continue
            try:
                event = handler.decode(payload)
                if handler.takes_envelope:
                    plan.add(handler.run(event, read_record(record)))
                else:
                    plan.add(handler.run(event))
                self.stats.handled += 1
            except _SURVIVED as error:
                self._failed(Run(handler, read_record(record)), plan, error)
        return rest or ()

    def _open(self, record: Record) -> tuple[bytes, bytes]:
        channel, payload = channel_and_payload(record)
        if len(payload) > self._max_payload_bytes:
            raise InvalidEvent(f"the payload is longer than {self._max_payload_bytes:,} bytes")
        if self._signatures is not None:
            self._check_signature(self._signatures, record, channel.decode(errors="replace"))
        return channel, payload

    def _check_signature(self, signatures: Signatures, record: Record, channel: str) -> None:
        policy = signatures.policy(channel)
        if policy == "off":
            return
        try:
            signatures.check(fields_of(record), record[0])
        except InvalidEvent as bad:
            if policy == "require":
                raise
            self.stats.unsigned += 1
            log.warning("an event on %s would be refused: %s", channel, bad)

    async def _handle_rest(
        self,
        handlers: Sequence[AnyHandler],
        record: Record,
        plan: Plan,
        ahead: deque[asyncio.Task[Answer]],
        groups: Groups,
    ) -> None:
        event = read_record(record)
        for handler in handlers:
            run = Run(handler, event)
            if not handler.batch:
                await self._take(run, plan, ahead.popleft())
                continue
            try:
                groups.setdefault(handler, []).append((handler.decode(event.payload), event))
            except InvalidEvent as invalid:
                self._failed(run, plan, invalid)
            if len(groups.get(handler, ())) >= handler.batch:
                await self._run_group(handler, groups.pop(handler), plan)

    async def _take(self, run: Run, plan: Plan, task: asyncio.Task[Answer]) -> bool:
        """Wait for an asynchronous handler and take what it answered."""
        await asyncio.wait([task])
        try:
            if task.cancelled():
                raise RuntimeError("the handler was cancelled, not by us")
            plan.add(task.result())
        except _SURVIVED as error:
            self._failed(run, plan, error)
            return False
        self.stats.handled += 1
        return True

    async def _repeat_portion(self, runs: Sequence[Run], plan: Plan, cut: Cut) -> Plan:
        tasks = {run.retry: asyncio.create_task(_answered(run)) for run in runs if run.handler.asynchronous}
        try:
            for run in runs:
                self.busy_since = time.monotonic()
                task = tasks.get(run.retry)
                if await self._take(run, plan, task) if task else self._run_plain(run, plan):
                    plan.finish(run.retry)
                if plan.full:
                    self.busy_since = None
                    plan = await cut(plan)
        finally:
            for task in tasks.values():
                task.cancel()
        return plan

    def _run_plain(self, run: Run, plan: Plan) -> bool:
        try:
            plan.add(run.handler.run(*_arguments(run)))
        except _SURVIVED as error:
            self._failed(run, plan, error)
            return False
        self.stats.handled += 1
        return True

    # -- several events ---------------------------------------------------------------------------------------------

    def _portions(self, records: Sequence[Record]) -> Iterable[Sequence[Record]]:
        if not self._asynchronous:
            return (records,)
        return [records[at : at + self._concurrency] for at in range(0, len(records), self._concurrency)]

    def _begin(self, records: Sequence[Record]) -> deque[asyncio.Task[Answer]]:
        """Start the asynchronous handlers of single events, in the order in which `_handle_rest` takes them."""
        tasks: deque[asyncio.Task[Answer]] = deque()
        if not self._asynchronous:
            return tasks
        for record in records:
            try:
                channel, _ = self._open(record)
            except InvalidEvent:
                continue
            for handler in self.routes.of(channel):
                if handler.asynchronous and not handler.batch:
                    tasks.append(asyncio.create_task(_answered(Run(handler, read_record(record)))))
        return tasks

    async def _flush(self, groups: Groups, plan: Plan) -> None:
        while groups:
            handler, members = groups.popitem()
            await self._run_group(handler, members, plan)

    async def _run_group(self, handler: AnyHandler, members: Sequence[tuple[Any, Event]], plan: Plan) -> None:
        """Call a handler of lists. Where that fails each event goes to the retries alone: that finds the bad one."""
        events, envelopes = [event for event, _ in members], [envelope for _, envelope in members]
        try:
            arguments = (events, envelopes) if handler.takes_envelope else (events,)
            plan.add(await _bounded(handler, arguments) if handler.asynchronous else handler.run(*arguments))
        except _SURVIVED as error:
            if len(members) == 1:
                self._failed(Run(handler, envelopes[0]), plan, error)
                return
            self.stats.failed += 1
            for envelope in envelopes:
                plan.retry(_item(Run(handler, envelope)), 0, attempts=0)
        else:
            self.stats.handled += len(members)

    # -- what became of it ------------------------------------------------------------------------------------------

    def _failed(self, run: Run, plan: Plan, error: BaseException) -> None:
        """Decide what becomes of a run that raised."""
        handler, event, retry = run
        if isinstance(error, Drop):
            self.stats.dropped += 1
            if retry:
                plan.finish(retry)
            return
        self.stats.failed += 1
        self.stats.failures[handler.name] = self.stats.failures.get(handler.name, 0) + 1
        if isinstance(error, InvalidEvent | Unfit):
            kind = "invalid" if isinstance(error, InvalidEvent) else "unfit"
            self._bury(run, plan, kind, _text(error), error if kind == "unfit" else None)
        elif event.attempt >= handler.policy.attempts:
            self._bury(run, plan, "failed", f"{type(error).__name__}: {_text(error)}", error)
        else:
            after_ms = error.after_ms if isinstance(error, Retry) else None
            if after_ms is None:
                after_ms = handler.policy.delay_ms(event.attempt, random.random())  # noqa: S311 - jitter, not a secret
            if retry:
                plan.retry_again(retry, after_ms)
            else:
                plan.retry(_item(run), after_ms)

    def _bury(self, run: Run, plan: Plan, kind: str, reason: str, error: BaseException | None = None) -> None:
        self.stats.dead_lettered += 1
        plan.bury(dead_letter(kind, run.event, run.handler.name, reason, error))
        if run.retry:
            plan.finish(run.retry)


async def _answered(run: Run) -> Answer:
    """Run an asynchronous handler. Raises: what it raises, TimeoutError, InvalidEvent."""
    return await _bounded(run.handler, _arguments(run))


async def _bounded(handler: AnyHandler, arguments: Sequence[Any]) -> Answer:
    timeout_s = handler.policy.timeout_ms / 1000
    try:
        async with asyncio.timeout(timeout_s) as limit:
            answer = handler.run(*arguments)
            return [effect async for effect in answer] if isinstance(answer, AsyncIterator) else await answer
    except TimeoutError as late:
        raise TimeoutError(f"not done within {timeout_s:g} s") if limit.expired() else late from None


def _arguments(run: Run) -> tuple[Any, ...]:
    event: Any = run.handler.decode(run.event.payload)
    if run.handler.batch:
        return ([event], [run.event]) if run.handler.takes_envelope else ([event],)
    return (event, run.event) if run.handler.takes_envelope else (event,)


def _item(run: Run) -> RetryItem:
    event = run.event
    return RetryItem(run.handler.name, event.position, event.channel, event.payload, event.id, event.key)


def _whatever(record: Record) -> Event:
    """Return a record that is no proper event as one, so that a dead letter can hold it."""
    try:
        return read_record(record)
    except InvalidEvent:
        return Event(record[0].decode(), "", b" ".join(record[1]))


def _poisoned(others: int) -> str:
    return f"{others} processes ended while they handled it; it is not tried again"


def _text(error: BaseException) -> str:
    """Return what an error says; some cannot even say that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - its __str__ is a handler's code, too
        return "(its message cannot be read)"
