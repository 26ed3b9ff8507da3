"""Events on their way to a server: those of one loop tick are appended by one script call."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from cachebus.bus.events import shard_of
from cachebus.bus.signatures import Signatures
from cachebus.errors import NotReady, ReadOnlyServer, ServerError, ServerTimeout, Unavailable
from cachebus.redis.client import Client
from cachebus.redis.connection import Argument, Connection
from cachebus.redis.replies import Reply

log = logging.getLogger("cachebus")

REMEMBER_CALL_MS = 60_000
"""How long a call is known: it only has to outlive the attempts to make it."""
EVENTS_A_CALL = 100
BYTES_A_CALL = 1024 * 1024
"""A call of this size keeps the server for about a millisecond."""
ATTEMPT_S = 1.0
PAUSE_S = 0.05
FULL, UNHEARD = -1, 2
"""Answers of the script: not appended, and appended where this user may not PUBLISH."""
PASSING = (Unavailable, NotReady, ReadOnlyServer)
"""Refusals after which a call is worth repeating."""


class Outgoing(NamedTuple):
    """An event that may be published."""

    channel: str
    payload: bytes
    id: str
    key: str | None
    remember_ms: int
    """How long its id is to be known; 0: it was made here, and nobody can repeat it."""
    traceparent: str = ""


class Batch:
    """Events for one stream, appended together. The call as a whole has a name, so that it is safe to repeat."""

    def __init__(self, stream: str, mark: str) -> None:
        self.keys = [stream, mark]
        self.values: list[Argument] = []
        self.bytes = 0
        self.has_own_ids = False
        """Whether the name of the call is needed: the ids of publishers make it safe to repeat, too."""
        self.waiting: list[tuple[asyncio.Future[int], float]] = []
        """Who waits for each event, and until when."""

    def add(self, event: Outgoing, mark: str, further: Sequence[Argument]) -> None:
        """Add an event; *further* are names and values of its other fields."""
        values = (event.channel.encode(), event.payload, event.id.encode())
        if event.key is not None:
            further = ("key", event.key.encode(), *further)
        if event.traceparent:
            further = ("traceparent", event.traceparent, *further)
        if event.remember_ms:
            self.keys.append(mark)
        else:
            self.has_own_ids = True
        self.values += (*values, event.remember_ms or "", len(further), *further)
        self.bytes += len(event.payload)

    @property
    def full(self) -> bool:
        """Whether the next event begins another call."""
        return len(self.waiting) >= EVENTS_A_CALL or self.bytes >= BYTES_A_CALL

    def args(self, max_events: int, skips: str) -> list[Argument]:
        """Return the arguments of the script."""
        return [REMEMBER_CALL_MS if self.has_own_ids else "", max_events, skips, *self.values]

    def settle(self, results: Sequence[int]) -> None:
        """Answer everyone."""
        for (waiter, _), result in zip(self.waiting, results, strict=True):
            if not waiter.done():
                waiter.set_result(result)

    def fail(self, reason: ServerError, until: float = float("inf")) -> bool:
        """Fail whoever waits no longer than *until*; returns whether anybody waits on."""
        for waiter, deadline in self.waiting:
            if deadline <= until and not waiter.done():
                waiter.set_exception(reason)
        return any(not waiter.done() for waiter, _ in self.waiting)


class ServerEvents:
    """Where events go on a server: into the stream of their shard."""

    def __init__(self, client: Client, shards: int, max_events: int, signatures: Signatures | None) -> None:
        self._client = client
        self._streams = [client.names.bus("events", str(shard)) for shard in range(shards)]
        self._max_events = max_events
        self._signatures = signatures
        self._skips = client.names.bus("skip")
        self._loop = asyncio.get_running_loop()
        self._process = secrets.token_hex(12)
        self._calls = 0
        self._open: dict[str, Batch] = {}
        self._under_way = 0
        self._alone = False
        """Whether the last event had no company: the next one then leaves at once, not at the end of its tick."""
        self._durable: Connection | None = None
        self._durable_turn = asyncio.Lock()
        self._silenced = False

    async def append(self, events: Sequence[Outgoing], timeout_s: float, wait_replicas: int) -> list[bool]:
        """Append events; False for those that a full stream had no room for.

        The script is run until it has answered, or time is up. Raises: ServerError.
        """
        deadline = self._loop.time() + timeout_s
        if wait_replicas:
            results = [await self._append_durably(event, wait_replicas, deadline) for event in events]
        elif len(events) == 1:
            results = [await self._enqueue(events[0], deadline)]
        else:
            results = await _all([self._enqueue(event, deadline) for event in events])
        if UNHEARD in results and not self._silenced:
            self._silenced = True
            channel = events[results.index(UNHEARD)].channel
            log.warning(
                "events on %s are stored, but this user may not PUBLISH them to plain listeners; add the rule: "
                "ACL SETUSER <user> &%s &%s",
                channel,
                channel,
                self._skips,
            )
        return [result != FULL for result in results]

    async def close(self) -> None:
        """See `Bus.close`."""
        connection, self._durable = self._durable, None
        if connection is not None:
            await connection.close()

    # -- together with the others of this tick ----------------------------------------------------------------------

    def _enqueue(self, event: Outgoing, deadline: float) -> asyncio.Future[int]:
        stream = self._stream(event)
        batch = self._open.get(stream)
        begun = batch is None or batch.full
        if batch is None or begun:
            batch = self._batch(stream)
        self._add(batch, event)
        waiter: asyncio.Future[int] = self._loop.create_future()
        batch.waiting.append((waiter, deadline))
        if begun and self._alone and not self._under_way and not self._open:
            self._send(batch)
        elif begun:
            self._open[stream] = batch
            self._loop.call_soon(self._send, batch)
        return waiter

    def _send(self, batch: Batch) -> None:
        stream = batch.keys[0]
        if self._open.get(stream) is batch:
            del self._open[stream]
        self._alone = len(batch.waiting) == 1
        self._under_way += 1
        args = batch.args(self._max_events, self._skips)
        self._client.store.submit_run(
            "bus/publish", batch.keys, args, partial(self._arrived, batch), timeout_s=ATTEMPT_S
        )

    def _arrived(self, batch: Batch, replies: list[Reply] | ServerError) -> None:
        self._under_way -= 1
        reply = replies if isinstance(replies, ServerError) else replies[0]
        if isinstance(reply, PASSING):
            if batch.fail(reply, self._loop.time() + PAUSE_S):
                self._loop.call_later(PAUSE_S, self._send, batch)
        elif isinstance(reply, ServerError):
            batch.fail(reply)
        else:
            batch.settle(reply)

    # -- and on replicas --------------------------------------------------------------------------------------------

    async def _append_durably(self, event: Outgoing, replicas: int, deadline: float) -> int:
        batch = self._batch(self._stream(event))
        self._add(batch, event)
        while True:
            try:
                return await self._append_and_wait(batch, replicas, deadline)
            except PASSING:
                if self._loop.time() + PAUSE_S >= deadline:
                    raise
            await asyncio.sleep(PAUSE_S)

    async def _append_and_wait(self, batch: Batch, replicas: int, deadline: float) -> int:
        """Run the script and WAIT, on a connection of their own: WAIT holds up whatever comes after it."""
        left_s = max(PAUSE_S, deadline - self._loop.time())
        args = batch.args(self._max_events, self._skips)
        async with self._durable_turn:
            if self._durable is None or self._durable.lost.done():
                self._durable = await self._client.store.dedicated(batch.keys[0])
            wire = self._durable
            results = await wire.run("bus/publish", batch.keys, args, timeout_s=ATTEMPT_S)
            have = await wire.call("WAIT", replicas, int(left_s * 1000), timeout_s=left_s + ATTEMPT_S)
        if have < replicas:
            raise ServerTimeout(f"the event is stored, but only {have} of {replicas} replicas confirmed it in time")
        result: int = results[0]
        return result

    # -- inside -----------------------------------------------------------------------------------------------------

    def _stream(self, event: Outgoing) -> str:
        return self._streams[shard_of(event.key or event.channel, len(self._streams))]

    def _batch(self, stream: str) -> Batch:
        self._calls += 1
        return Batch(stream, self._mark(f"{self._process}.{self._calls}"))

    def _add(self, batch: Batch, event: Outgoing) -> None:
        further: Sequence[Argument] = ()
        if self._signatures is not None:
            now_s = self._client.now_us() // 1_000_000
            further = self._signatures.sign(event.channel, event.id, event.payload, now_s)
        if self._client.process:
            further = ("by", self._client.process, *further)
        batch.add(event, self._mark(event.id) if event.remember_ms else "", further)

    def _mark(self, name: str) -> str:
        return self._client.names.bus("id", name)


async def _all(waiting: Sequence[asyncio.Future[int]]) -> list[int]:
    """Return the answers of all. Raises: the first error among them, when all have been answered."""
    if not waiting:
        return []
    try:
        await asyncio.wait(waiting)
    finally:
        for waiter in waiting:
            _ = waiter.cancel() or waiter.cancelled() or waiter.exception()  # retrieved: nobody else will
    return [waiter.result() for waiter in waiting]
