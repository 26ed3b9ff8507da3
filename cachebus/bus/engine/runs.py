"""One run of one handler: what it is called with, how long it may take, how its answer comes back."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, NamedTuple

from cachebus.bus.effects import Answer
from cachebus.bus.events import Event, EventRecord, InvalidEvent
from cachebus.bus.handlers import Handler
from cachebus.bus.letters import REASON_CHARACTERS, RetryItem
from cachebus.bus.signatures import Signatures
from cachebus.freshness.cause import caused_by
from cachebus.waiting import pass_on

log = logging.getLogger("cachebus")

AnyHandler = Handler[..., Any]

GRACE_S = 1.0
"""How long an asynchronous handler may take to end after its timeout, before it is left behind."""


LONGEST_WINDOW = 400
"""Longer names of windows are stored as a digest."""


class HandlerRun(NamedTuple):
    """One handler on one event: out of the stream, or once more out of the retries."""

    handler: AnyHandler
    event: Event
    retry: str = ""
    """Its name in the retries; '' for a first run."""
    before: int = 0
    """Attempts made before somebody put it back."""
    letter: str = ""
    """The id of the dead letter it was then."""


class DueRetry(NamedTuple):
    """A retry that is due, as the server returned it."""

    name: str
    attempt: int
    item: RetryItem


TASK = "cachebus event "
"""Tasks of handlers are named by what they work on: see `running_in`."""


class Started:
    """An asynchronous handler under way."""

    __slots__ = ("_ends", "began", "ended", "task")

    def __init__(self, handler: AnyHandler, work: Coroutine[Any, Any, Answer], name: str) -> None:
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(_contained(work), name=TASK + name)
        self.began = time.monotonic()
        self.ended = 0.0
        """0 while it runs."""
        self.task.add_done_callback(self._end)
        self._ends = loop.time() + handler.policy.timeout_ms / 1000 + GRACE_S

    def _end(self, _: object) -> None:
        self.ended = time.monotonic()

    async def answer(self) -> Answer:
        """Return its answer. Raises: what it raised, TimeoutError, InvalidEvent.

        A handler that ignores its cancellation is left behind: it holds up nobody, and what it answers is not kept.
        """
        task = self.task
        await asyncio.wait([task], timeout=max(0.0, self._ends - asyncio.get_running_loop().time()))
        is_late = not task.done()
        if is_late:
            task.cancel()
            await asyncio.wait([task], timeout=GRACE_S)
        if not task.done():
            task.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise TimeoutError("it was cancelled at its timeout and still runs: it swallows CancelledError")
        if task.cancelled():
            if is_late:
                raise TimeoutError(
                    "it swallowed its cancellation at its timeout, and ended when it was cancelled again"
                )
            raise RuntimeError("the handler was cancelled, not by its timeout")
        return task.result()


async def _contained(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Return what *work* answers. Raises: what it raises; RuntimeError for `sys.exit` and its like."""
    try:
        return await work
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        pass_on(error)
        raise RuntimeError(f"{type(error).__name__}: {message_of(error)}") from error


def start(run: HandlerRun, name: str) -> Started:
    """Begin *run*, in a task named by what it works on."""
    return Started(run.handler, _answered(run), name)


async def _answered(run: HandlerRun) -> Answer:
    """Run an asynchronous handler. Raises: what it raises, TimeoutError, InvalidEvent."""
    with caused_by("event", run.handler.name, run.event.id):
        return await bounded(run.handler, arguments_of(run))


async def bounded(handler: AnyHandler, arguments: Sequence[Any]) -> Answer:
    """Run an asynchronous handler within its timeout. Raises: what it raises, TimeoutError."""
    timeout_s = handler.policy.timeout_ms / 1000
    try:
        async with asyncio.timeout(timeout_s) as limit:
            answer = handler.run(*arguments)
            return [effect async for effect in answer] if isinstance(answer, AsyncIterator) else await answer
    except TimeoutError as late:
        raise TimeoutError(f"not done within {timeout_s:g} s") if limit.expired() else late from None


def arguments_of(run: HandlerRun) -> tuple[Any, ...]:
    """Return what the handler is called with; one of lists gets a list of one. Raises: InvalidEvent."""
    event: Any = run.handler.decode(run.event.payload)
    if run.handler.batch:
        return ([event], [run.event]) if run.handler.takes_envelope else ([event],)
    return (event, run.event) if run.handler.takes_envelope else (event,)


def retry_item(run: HandlerRun) -> RetryItem:
    """Return the run as it is kept in the retries."""
    event = run.event
    return RetryItem(
        run.handler.name, event.position, event.channel, event.payload, event.id, event.key, event.traceparent
    )


def window_name(handler: AnyHandler, event: Event, group: str) -> str:
    """Return what the window of a debounced handler is called: one for each channel and group of events."""
    name = "\n".join((event.channel, handler.name, group))
    return name if len(name) <= LONGEST_WINDOW else hashlib.blake2b(name.encode(), digest_size=20).hexdigest()


def message_of(error: BaseException) -> str:
    """Return what an error says; some cannot even say that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - its __str__ is a handler's code, too
        return "(its message cannot be read)"


def failure_line(run: HandlerRun, error: BaseException) -> str:
    """Return what a log says of a run that is tried again, in one line."""
    handler, event, *_ = run
    what = f"attempt {event.attempt} of {handler.policy.attempts} at event {event.id or event.position}"
    reason = f"{type(error).__name__}: {message_of(error)}"[:REASON_CHARACTERS]
    return f"{handler.name}: {what} on {event.channel} failed: {reason}"


def poisoned(others: int) -> str:
    return f"{others} processes crashed or hung while they handled it"


def portions(records: Sequence[EventRecord], size: int) -> Sequence[Sequence[EventRecord]]:
    """Return records in portions of *size*."""
    return [records[at : at + size] for at in range(0, len(records), size)] if size < len(records) else (records,)


def is_let_through(signatures: Signatures, record: EventRecord) -> bool:
    """Note on a record what is wrong with its signature; returns whether the channel's policy lets it through."""
    channel = record.channel.decode(errors="replace")
    policy = signatures.policy(channel)
    if policy == "off":
        return False
    try:
        signatures.check(record.fields(), record.position)
    except InvalidEvent as bad:
        if policy == "require":
            record.fault = str(bad)
            return False
        log.warning("an event on %s would be refused: %s", channel, bad)
        return True
    return False
