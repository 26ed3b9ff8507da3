"""Publishing: an event goes into the stream once, and to plain listeners."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from cachebus.bus.batches import REMEMBER_CALL_MS, Outgoing, ServerEvents
from cachebus.bus.effects import delay_of
from cachebus.bus.engine.delayed import DelayedEvents
from cachebus.bus.events import PAYLOAD_BYTES, encode, envelope_fault
from cachebus.bus.letters import DelayedItem
from cachebus.bus.local import LocalBus
from cachebus.bus.signatures import Signatures
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError, NotDelayed, PublishRefused, StreamFull
from cachebus.pubsub.channels import LocalChannels
from cachebus.redis.client import Connector, InProcess
from cachebus.redis.part import Part
from cachebus.templates import has_surrogate
from cachebus.tracing import installed

MOST_EVENTS = 1_000_000
"""With this many events in the stream publishing is refused: about 250 MB at 200 bytes each. Nothing is dropped."""
REMEMBER_IDS = "1h"
"""How long an id given by the publisher is known; longer than any relay repeats itself."""
TIMEOUT = "5s"


class Bus:
    """Publishes events. `Bus(cache)`, connected or not, or `Bus(client)`; any number of them, in any process.

    Without a server (`Cache.memory()`, `REDIS_ENABLED=false`) events go to the handlers of a worker in this process.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        shards: int = 1,
        max_events: int = MOST_EVENTS,
        max_payload_bytes: int = PAYLOAD_BYTES,
        remember_ids: Duration = REMEMBER_IDS,
        signatures: Signatures | None = None,
    ) -> None:
        if shards < 1:
            raise ConfigurationError(f"BUS_SHARDS: {shards} must be 1 or more")
        self.shards = shards
        self.observers: tuple[Callable[[str], None], ...] = ()
        """What is called at each `publish`: see `observed_by`."""
        self._max_events = max_events
        self._max_payload_bytes = max_payload_bytes
        self._remember_ms = milliseconds(remember_ids, "remember_ids")
        self._part: Part[ServerEvents | LocalEvents] = Part(
            connector,
            lambda client: ServerEvents(client, shards, max_events, signatures),
            partial(LocalEvents, max_events),
        )
        self._delayed: Part[DelayedEvents | LocalDelayed] = Part(
            connector, lambda client: DelayedEvents(client, max_events), partial(LocalDelayed, max_events)
        )

    @contextlib.contextmanager
    def observed_by(self, observer: Callable[[str], None]) -> Iterator[None]:
        """Have *observer* called with the channel of each `publish` while this block runs, before anything is sent.

        It is called in the caller's thread and context, and must not block. Several may be at once, and end in any
        order.
        """
        self.observers = (*self.observers, observer)
        try:
            yield
        finally:
            at = self.observers.index(observer)
            self.observers = self.observers[:at] + self.observers[at + 1 :]

    def publish(  # noqa: PLR0913 - what may be said of one event
        self,
        channel: str,
        event: Any,
        *,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's own name
        delay: Duration | None = None,
        wait_replicas: int = 0,
        timeout: Duration = TIMEOUT,
    ) -> Coroutine[Any, Any, str]:
        """Append *event* to the stream and send it to plain listeners of *channel*; returns its id.

        One round trip, shared with what else is published in this loop tick. *event* is a Struct, a Pydantic model,
        plain data, or JSON bytes. Events with one *key* keep their order whatever the number of shards. Safe to repeat
        with the same *id*, known for `remember_ids`: the event is then in the stream once. Lost replies and short
        outages are repeated here, up to *timeout*, without doubling the event; what cannot be repeated is an *id* made
        here, once this has raised.

        With a *delay* it is kept until then, 30 days at most, and handled once, even where every worker is down when it
        is due; `cancel` takes it back by its id. Plain listeners hear it when it is due.

        Raises: PublishRefused (nothing was stored) when the channel, payload, id or delay can never be; StreamFull, one
        of them, when they can be later; Unavailable when the server did not answer in *timeout*, or fewer than
        *wait_replicas* replicas have it by then: it may or may not be stored.
        """
        if type(wait_replicas) is not int or wait_replicas < 0:
            raise PublishRefused(f"wait_replicas: {wait_replicas!r} is not a whole number of 0 or more; write 1")
        self._observe(channel)
        timeout_s = milliseconds(timeout, "timeout") / 1000
        if delay is None or not (delay_ms := delay_of(delay, "delay")):
            return self._publish(channel, event, key, id, timeout_s, wait_replicas)
        if wait_replicas:
            raise PublishRefused("wait_replicas: a delayed event does not wait for replicas; leave it out")
        return self._delay_one(channel, event, key, id, delay_ms, timeout_s)

    async def cancel(self, id: str) -> None:  # noqa: A002 - the field's own name
        """Take back an event that is delayed, by `publish(delay=)` or `Publish(after=)`. One round trip.

        Its id is free again.
        Raises: NotDelayed when no event waits under *id*: it was published by now, cancelled already, or never delayed;
        Unavailable when nobody knows whether it is cancelled.
        """
        delayed = await self._delayed.get()
        if has_surrogate(str(id)) or not await delayed.cancel(id):
            raise NotDelayed(id)

    def publish_many(
        self,
        channel: str,
        events: Iterable[Any],
        *,
        key: str | None = None,
        delay: Duration | None = None,
        timeout: Duration = TIMEOUT,
    ) -> Coroutine[Any, Any, list[str]]:
        """Append *events* in this order, as `publish` does with each, now or after a *delay*; returns their ids.

        One round trip, and one script for each hundred. Raises: as `publish`. PublishRefused: nothing was stored;
        StreamFull: those that there was room for are stored.
        """
        self._observe(channel)
        timeout_s = milliseconds(timeout, "timeout") / 1000
        return self._publish_many(channel, events, key, 0 if delay is None else delay_of(delay, "delay"), timeout_s)

    async def close(self) -> None:
        """Close the connection that `wait_replicas=` opened, if any. Idempotent."""
        if self._part.made is not None:
            await self._part.made.close()

    def _observe(self, channel: str) -> None:
        for observer in self.observers:
            observer(channel)

    async def _publish(
        self, channel: str, event: Any, key: str | None, given_id: str | None, timeout_s: float, wait_replicas: int
    ) -> str:
        outgoing = self._outgoing(channel, event, key, given_id)
        await self._append(channel, [outgoing], timeout_s, wait_replicas)
        return outgoing.id

    async def _delay_one(
        self, channel: str, event: Any, key: str | None, given_id: str | None, delay_ms: int, timeout_s: float
    ) -> str:
        outgoing = self._outgoing(channel, event, key, given_id)
        await self._delay(channel, [outgoing], delay_ms, timeout_s)
        return outgoing.id

    async def _publish_many(
        self, channel: str, events: Iterable[Any], key: str | None, delay_ms: int, timeout_s: float
    ) -> list[str]:
        outgoing = [self._outgoing(channel, event, key, None) for event in events]
        if delay_ms:
            await self._delay(channel, outgoing, delay_ms, timeout_s)
        else:
            await self._append(channel, outgoing, timeout_s)
        return [each.id for each in outgoing]

    def _outgoing(self, channel: str, event: Any, key: str | None, given_id: str | None) -> Outgoing:
        if fault := envelope_fault(channel, key, given_id):
            raise PublishRefused(fault)
        payload = encode(event, self._max_payload_bytes)
        if given_id is None:
            return Outgoing(channel, payload, secrets.token_hex(12), key, 0)
        return Outgoing(channel, payload, given_id, key, self._remember_ms)

    async def _append(self, channel: str, events: list[Outgoing], timeout_s: float, wait_replicas: int = 0) -> None:
        if (tracer := installed.tracer) is not None and events and not events[0].traceparent:
            with tracer.publishing(channel, [event.id for event in events]) as traceparent:
                marked = [event._replace(traceparent=traceparent) for event in events]
                await self._append(channel, marked, timeout_s, wait_replicas)
            return
        target = await self._part.get()
        if not all(await target.append(events, timeout_s, wait_replicas)):
            raise StreamFull(channel, self._max_events)

    async def _delay(self, channel: str, events: list[Outgoing], delay_ms: int, timeout_s: float) -> None:
        if (tracer := installed.tracer) is not None and events and not events[0].traceparent:
            with tracer.publishing(channel, [event.id for event in events]) as traceparent:
                marked = [event._replace(traceparent=traceparent) for event in events]
                await self._delay(channel, marked, delay_ms, timeout_s)
            return
        delayed = await self._delayed.get()
        if not await delayed.put(events, delay_ms, timeout_s):
            raise StreamFull(channel, self._max_events)


class LocalDelayed:
    """Delayed events in a process without a server."""

    def __init__(self, most: int, in_process: InProcess) -> None:
        self._most = most
        self._bus = in_process.of(LocalBus)

    async def put(self, events: Sequence[Outgoing], delay_ms: int, _timeout_s: float) -> bool:
        """Keep events until they are due; False where there are too many."""
        return all(self._put(event, delay_ms) for event in events)

    def _put(self, event: Outgoing, delay_ms: int) -> bool:
        if len(self._bus.delayed) >= self._most:
            return False
        known_ms = event.remember_ms or REMEMBER_CALL_MS
        if self._bus.remember(event.id, delay_ms + known_ms):
            self._bus.delay(
                event.id, DelayedItem(event.channel, event.payload, event.key or "", event.traceparent), delay_ms
            )
        return True

    async def cancel(self, event_id: str) -> bool:
        """Take an event back; False where none waits under this id."""
        return self._bus.cancel(event_id)


class LocalEvents:
    """Where events go in a process without a server."""

    def __init__(self, max_events: int, in_process: InProcess) -> None:
        self._max_events = max_events
        self._bus = in_process.of(LocalBus)
        self._channels = in_process.of(LocalChannels)

    async def append(self, events: Sequence[Outgoing], _timeout_s: float, _wait_replicas: int) -> list[bool]:
        """Add events and tell plain listeners; False for those that there is no room for."""
        return [await self._append(event) for event in events]

    async def _append(self, event: Outgoing) -> bool:
        if len(self._bus.events) >= self._max_events:
            return False
        if self._bus.append(
            event.channel,
            event.payload,
            name=event.id,
            key=event.key or "",
            remember_ms=event.remember_ms or REMEMBER_CALL_MS,
            traceparent=event.traceparent,
        ):
            with self._bus.announcing():
                await self._channels.publish(event.channel, event.payload)
        return True

    async def close(self) -> None:
        """Nothing is open."""
