"""Running handlers on events. Whatever a handler raises ends here: as a retry, a dead letter or a count."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from cachebus.bus.effects import Drop, Retry
from cachebus.bus.engine.commit import Plan, Unfit
from cachebus.bus.engine.run_log import RunLog
from cachebus.bus.engine.runs import (
    TASK,
    AnyHandler,
    DueRetry,
    HandlerRun,
    Started,
    arguments_of,
    bounded,
    failure_line,
    is_let_through,
    message_of,
    poisoned,
    portions,
    retry_item,
    start,
    window_name,
)
from cachebus.bus.events import PAYLOAD_BYTES, Event, EventRecord, InvalidEvent
from cachebus.bus.handlers import Debounce, Routes
from cachebus.bus.letters import dead_letter, dead_letter_again
from cachebus.bus.signatures import Signatures
from cachebus.waiting import pass_on

log = logging.getLogger("cachebus")

Cut = Callable[[Plan], Awaitable[Plan]]
"""Commits a plan and returns an empty one."""
Loading = Callable[[], AbstractContextManager[Any]]

OPEN_S = 0.05
"""A plan is committed when its first event was begun this long ago, full or not."""


@dataclass(slots=True)
class HandlerStats:
    """What became of events: plain counters of one consumer."""

    handled: int = 0
    """Runs of a handler that ended well."""
    failed: int = 0
    """Runs that raised, timed out, or asked for a retry."""
    debounced: int = 0
    """Events that waited for the end of their window; a run for all of them counts as handled."""
    dropped: int = 0
    """Runs that raised `Drop`."""
    dead_lettered: int = 0
    skipped: int = 0
    """Events on channels that no handler here listens to."""
    unsigned: int = 0
    """Events let through that `require` would have refused."""
    failures: dict[str, int] = field(default_factory=dict)
    """Failed runs by handler."""


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
        self.runs = RunLog()
        self._loading: Loading = loading or nullcontext
        self._concurrency = concurrency
        self._max_payload_bytes = max_payload_bytes
        self._signatures = signatures
        self._asynchronous = any(handler.asynchronous for handler in routes.handlers)
        self._task: asyncio.Task[Any] | None = None
        self._plain: Sequence[bytes | str] = ()  # what a plain handler is running on, by its names for marks

    async def work(self, records: Sequence[EventRecord], plan: Plan, cut: Cut) -> Plan:
        """Run the handlers of *records* in order; *cut* commits whenever the plan is full. Returns the open plan.

        Plain handlers run one after the other and cost no await. Asynchronous ones of up to `concurrency` events run
        side by side; their answers are taken in the order of the events.
        """
        self._task = asyncio.current_task()
        groups: Groups = {}
        with self._loading():
            for portion in portions(records, self._concurrency if self._asynchronous else len(records)):
                for record in portion:
                    self._check(record)
                ahead = self._begin(portion)
                try:
                    for record in portion:
                        now = time.monotonic()
                        plan.begin(record.position, now)
                        rest = self._handle(record, plan, now)
                        if rest:
                            await self._handle_rest(rest, record, plan, ahead, groups)
                        if plan.full or now - plan.opened > OPEN_S:
                            await self._flush(groups, plan)
                            plan = await cut(plan)
                finally:
                    for started in ahead:
                        started.task.cancel()
            await self._flush(groups, plan)
        return plan

    async def repeat(self, retries: Iterable[DueRetry], plan: Plan, cut: Cut) -> Plan:
        """Run handlers once more on events of the retries. As `work`; a handler of lists gets a list of one."""
        self._task = asyncio.current_task()
        runs: list[HandlerRun] = []
        for name, attempt, item in retries:
            handler = self.routes.by_name.get(item.handler)
            if handler is not None:
                runs.append(HandlerRun(handler, item.event(attempt), name, item.before, item.letter))
                continue
            self.stats.dead_lettered += 1
            reason = f"there is no handler {item.handler!r} any more"
            plan.bury(dead_letter_again("lost handler", item, attempt, reason))
            plan.finish(name)
        with self._loading():
            for first in range(0, len(runs), self._concurrency):
                plan = await self._repeat_portion(runs[first : first + self._concurrency], plan, cut)
        return plan

    def running_in(self, task: asyncio.Task[Any] | None) -> list[str]:
        """Return what the handler that runs in *task* works on: positions of events, or names of retries.

        For another thread, which asks while the event loop is blocked.
        """
        if task is None:
            return []
        if task is self._task:
            return [name.decode() if isinstance(name, bytes) else name for name in self._plain]
        return task.get_name().removeprefix(TASK).split(" ") if task.get_name().startswith(TASK) else []

    def condemn(self, event: Event, plan: Plan, others: int) -> None:
        """Make dead letters of an event that ended every process that handled it."""
        for handler in self.routes.of(event.channel.encode()):
            self._bury(HandlerRun(handler, event), plan, "poison", poisoned(others))

    def condemn_retry(self, retry: DueRetry, plan: Plan, others: int) -> None:
        """Make a dead letter of a retry that ended every process that ran it."""
        self.stats.dead_lettered += 1
        plan.bury(dead_letter_again("poison", retry.item, retry.attempt, poisoned(others)))
        plan.finish(retry.name)

    # -- one event --------------------------------------------------------------------------------------------------

    def _handle(self, record: EventRecord, plan: Plan, began: float) -> Sequence[AnyHandler]:
        """Run the plain handlers of an event; returns those that are not."""
        if record.fault:
            self.stats.dead_lettered += 1
            plan.bury(dead_letter("invalid", record.event, "", record.fault))
            return ()
        handlers = self.routes.of(record.channel)
        if not handlers:
            self.stats.skipped += 1
        rest: list[AnyHandler] | None = None
        for handler in handlers:
            if not handler.inline:
                rest = [*(rest or ()), handler]
                continue
            self._plain = (record.position,)
            try:
                event = handler.decode(record.payload)
                if handler.takes_envelope:
                    plan.add(handler.run(event, record.event), handler.name, (record,))
                else:
                    plan.add(handler.run(event), handler.name, (record,))
                self.stats.handled += 1
                self.runs.add((record.position, handler.name, 1, began, time.monotonic(), 1, ""))
            except BaseException as error:  # noqa: BLE001 - `sys.exit` in a handler ends it, not the worker
                pass_on(error)
                self._failed(HandlerRun(handler, record.event), plan, error, began)
            self._plain, began = (), time.monotonic()
        return rest or ()

    def _check(self, record: EventRecord) -> None:
        """Note on *record* what is wrong with it."""
        if len(record.payload) > self._max_payload_bytes:
            record.fault = record.fault or f"the payload is longer than {self._max_payload_bytes:,} bytes"
        if self._signatures is not None and not record.fault:
            self.stats.unsigned += is_let_through(self._signatures, record)

    async def _handle_rest(
        self,
        handlers: Sequence[AnyHandler],
        record: EventRecord,
        plan: Plan,
        ahead: deque[Started],
        groups: Groups,
    ) -> None:
        event = record.event
        for handler in handlers:
            run = HandlerRun(handler, event)
            if handler.debounce is not None:
                self._debounce(run, handler.debounce, plan)
                continue
            if not handler.batch:
                await self._finish(run, plan, ahead.popleft())
                continue
            try:
                groups.setdefault(handler, []).append((handler.decode(event.payload), event))
            except BaseException as error:  # noqa: BLE001 - its type may raise anything, too
                pass_on(error)
                self._failed(run, plan, error)
            if len(groups.get(handler, ())) >= handler.batch:
                await self._run_group(handler, groups.pop(handler), plan)

    def _debounce(self, run: HandlerRun, debounce: Debounce, plan: Plan) -> None:
        """Have an event wait for those that follow it. One that no handler can read does not wait."""
        handler, event, *_ = run
        try:
            group = debounce.group(handler.decode(event.payload), event)
        except BaseException as error:  # noqa: BLE001 - as in `_handle_rest`
            pass_on(error)
            self._failed(run, plan, error)
            return
        plan.debounce(window_name(handler, event, group), event.published_ms, debounce, retry_item(run))
        self.stats.debounced += 1

    async def _finish(self, run: HandlerRun, plan: Plan, started: Started) -> bool:
        """Wait for an asynchronous handler and add what it answered."""
        try:
            plan.add(await started.answer(), run.handler.name, (run.event,))
        except Exception as error:  # noqa: BLE001 - a handler may raise anything
            self._failed(run, plan, error, started.began, started.ended)
            return False
        self._ended(run, started.began, started.ended)
        return True

    async def _repeat_portion(self, runs: Sequence[HandlerRun], plan: Plan, cut: Cut) -> Plan:
        ahead = {run.retry: start(run, run.retry) for run in runs if run.handler.asynchronous}
        try:
            for run in runs:
                started = ahead.get(run.retry)
                if await self._finish(run, plan, started) if started else self._run_plain(run, plan):
                    plan.finish(run.retry)
                if plan.full:
                    plan = await cut(plan)
        finally:
            for started in ahead.values():
                started.task.cancel()
        return plan

    def _run_plain(self, run: HandlerRun, plan: Plan) -> bool:
        self._plain = (run.retry,)
        began = time.monotonic()
        try:
            plan.add(run.handler.run(*arguments_of(run)), run.handler.name, (run.event,))
        except BaseException as error:  # noqa: BLE001 - as in `_handle`
            pass_on(error)
            self._failed(run, plan, error, began)
            return False
        finally:
            self._plain = ()
        self._ended(run, began, time.monotonic())
        return True

    # -- several events ---------------------------------------------------------------------------------------------

    def _begin(self, records: Sequence[EventRecord]) -> deque[Started]:
        """Start the asynchronous handlers of single events, in the order in which `_handle_rest` takes them."""
        ahead: deque[Started] = deque()
        if not self._asynchronous:
            return ahead
        for record in records:
            if record.fault:
                continue
            for handler in self.routes.of(record.channel):
                if handler.asynchronous and not (handler.batch or handler.debounce):
                    ahead.append(start(HandlerRun(handler, record.event), record.event.position))
        return ahead

    async def _flush(self, groups: Groups, plan: Plan) -> None:
        while groups:
            handler, members = groups.popitem()
            await self._run_group(handler, members, plan)

    async def _run_group(self, handler: AnyHandler, members: Sequence[tuple[Any, Event]], plan: Plan) -> None:
        """Call a handler of lists. Where that fails each event goes to the retries alone: that finds the bad one."""
        events, envelopes = [event for event, _ in members], [envelope for _, envelope in members]
        arguments = (events, envelopes) if handler.takes_envelope else (events,)
        positions = [envelope.position for envelope in envelopes]
        self._plain = positions
        began, error = time.monotonic(), ""
        try:
            if handler.asynchronous:
                answer = await Started(handler, bounded(handler, arguments), " ".join(positions)).answer()
            else:
                answer = handler.run(*arguments)
            plan.add(answer, handler.name, envelopes)
        except BaseException as raised:  # noqa: BLE001 - as in `_handle`
            pass_on(raised, *([asyncio.CancelledError] if handler.asynchronous else []))  # this task's; see `answer`
            if len(members) == 1:
                self._failed(HandlerRun(handler, envelopes[0]), plan, raised, began)
                return
            self.stats.failed += 1
            error = type(raised).__name__
            for envelope in envelopes:
                plan.retry(retry_item(HandlerRun(handler, envelope)), 0, attempts=0)
        else:
            self.stats.handled += len(members)
        finally:
            self._plain = ()
        for position in positions:
            self.runs.add((position, handler.name, 1, began, time.monotonic(), len(members), error))

    # -- what became of it ------------------------------------------------------------------------------------------

    def _ended(self, run: HandlerRun, began: float, ended: float) -> None:
        """Count a run that ended well."""
        self.stats.handled += 1
        self.runs.add((run.event.position, run.handler.name, run.event.attempt, began, ended, 1, ""))

    def _failed(
        self, run: HandlerRun, plan: Plan, error: BaseException, began: float = 0.0, ended: float = 0.0
    ) -> None:
        """Decide what becomes of a run that raised; *began*: 0.0 for one that could not begin."""
        handler, event, retry, *_ = run
        if began:
            self.runs.add(
                (event.position, handler.name, event.attempt, began, ended or time.monotonic(), 1, type(error).__name__)
            )
        if isinstance(error, Drop):
            self.stats.dropped += 1
            if retry:
                plan.finish(retry)
            return
        self.stats.failed += 1
        self.stats.failures[handler.name] = self.stats.failures.get(handler.name, 0) + 1
        if isinstance(error, InvalidEvent | Unfit):
            kind = "invalid" if isinstance(error, InvalidEvent) else "unfit"
            self._bury(run, plan, kind, message_of(error), error if kind == "unfit" else None)
        elif event.attempt >= handler.policy.attempts:
            self._bury(run, plan, "failed", f"{type(error).__name__}: {message_of(error)}", error)
        else:
            after_ms = error.after_ms if isinstance(error, Retry) else None
            if after_ms is None:
                after_ms = handler.policy.delay_ms(event.attempt, random.random())  # noqa: S311 - jitter, not a secret
            log.warning("%s; retried in %.1f s", failure_line(run, error), after_ms / 1000)
            if retry:
                plan.retry_again(retry, after_ms)
            else:
                plan.retry(retry_item(run), after_ms)

    def _bury(self, run: HandlerRun, plan: Plan, kind: str, reason: str, error: BaseException | None = None) -> None:
        self.stats.dead_lettered += 1
        attempts = run.before + run.event.attempt
        plan.bury(dead_letter(kind, run.event, run.handler.name, reason, error, attempts=attempts, letter=run.letter))
        if run.retry:
            plan.finish(run.retry)
