"""Publishing: an event goes into the stream once, and to plain listeners."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from cachebus.durations import Duration, milliseconds
from cachebus.errors import (
    ConfigurationError,
    NotReady,
    PublishRefused,
    ReadOnlyServer,
    ServerTimeout,
    StreamFull,
    Unavailable,
)
from cachebus.events import PAYLOAD_BYTES, channel_fault, encode, shard_of
from cachebus.link import Link
from cachebus.server import run_script
from cachebus.signatures import Signatures
from cachebus.wire import Argument, Reply, Wire

MOST_EVENTS = 1_000_000
"""So many events in the stream, and publishing is refused: about 250 MB at 200 bytes each. Nothing is dropped."""
REMEMBER_IDS = "1h"
"""How long an id given by the publisher is known; longer than any relay repeats itself."""
REMEMBER_OWN_MS = 60_000
"""How long an id made here is known: it only has to outlive the attempts of one `publish()`."""
TIMEOUT = "5s"
ATTEMPT_S = 1.0
PAUSE_S = 0.05
LONGEST_ID = 200


class Bus:
    """Publishes events. Needs nothing but a link; any number of them, in any process."""

    def __init__(
        self,
        link: Link,
        *,
        shards: int = 1,
        max_events: int = MOST_EVENTS,
        max_payload_bytes: int = PAYLOAD_BYTES,
        remember_ids: Duration = REMEMBER_IDS,
        signatures: Signatures | None = None,
    ) -> None:
        if shards < 1:
            raise ConfigurationError(f"BUS_SHARDS: {shards} must be 1 or more")
        self._link = link
        self.shards = shards
        self._max_events = max_events
        self._max_payload_bytes = max_payload_bytes
        self._remember_ms = milliseconds(remember_ids, "remember_ids")
        self._signatures = signatures
        self._skips = link.names.bus("skip")
        self._durable: Wire | None = None
        self._durable_turn = asyncio.Lock()

    async def publish(
        self,
        channel: str,
        event: Any,
        *,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's own name
        wait_replicas: int = 0,
        timeout: Duration = TIMEOUT,  # noqa: ASYNC109 - spans attempts, an outer timeout would not know what became of them
    ) -> str:
        """Append *event* to the stream and send it to plain listeners of *channel*; returns its id.

        One script, one round trip. *event* is a Struct, plain data, or bytes that are JSON. Events with one *key* keep
        their order whatever the number of shards. Safe to repeat with the same *id*, known for `remember_ids`: the
        event is then in the stream once. Lost replies and short outages are repeated here, up to *timeout*, under one
        id; what cannot be repeated is an *id* made here, once this has raised.

        Raises: PublishRefused (nothing was stored) when the channel, payload or id can never be; StreamFull, one of
        them, when they can be later; Unavailable when the server did not answer in *timeout*, or fewer than
        *wait_replicas* replicas have it by then: it may or may not be stored.
        """
        if fault := channel_fault(channel):
            raise PublishRefused(fault)
        payload = encode(event, self._max_payload_bytes)
        name = secrets.token_hex(12) if id is None else id
        if not 0 < len(name) <= LONGEST_ID:
            raise PublishRefused(f"id: {name!r} must be 1 to {LONGEST_ID} characters")
        names = self._link.names
        keys = [names.bus("events", str(shard_of(key or channel, self.shards))), names.bus("id", name)]
        remember_ms = REMEMBER_OWN_MS if id is None else self._remember_ms
        args: list[Argument] = [remember_ms, self._max_events, self._skips, channel, payload, name]
        if key is not None:
            args += ["key", key]
        if self._signatures is not None:
            args += self._signatures.sign(channel, name, payload, self._link.now_us() // 1_000_000)
        stored = await self._run(keys, args, milliseconds(timeout, "timeout") / 1000, wait_replicas)
        if stored == -1:
            raise StreamFull(channel, self._max_events)
        return name

    async def close(self) -> None:
        """Close the connection that `wait_replicas=` opened, if any. Idempotent."""
        wire, self._durable = self._durable, None
        if wire is not None:
            await wire.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _run(self, keys: list[str], args: list[Argument], timeout_s: float, wait_replicas: int) -> Reply:
        """Run the script until it has answered, or time is up: an id makes that safe."""
        now = asyncio.get_running_loop().time
        deadline = now() + timeout_s
        while True:
            try:
                if wait_replicas:
                    return await self._run_durably(keys, args, wait_replicas, deadline)
                return await self._link.store.run("publish", keys, args, timeout_s=ATTEMPT_S)
            except (Unavailable, NotReady, ReadOnlyServer):
                if now() + PAUSE_S >= deadline:
                    raise
            await asyncio.sleep(PAUSE_S)

    async def _run_durably(self, keys: list[str], args: list[Argument], replicas: int, deadline: float) -> Reply:
        """Run the script and WAIT, on a connection of their own: WAIT holds up whatever comes after it."""
        left_s = max(PAUSE_S, deadline - asyncio.get_running_loop().time())
        async with self._durable_turn:
            if self._durable is None or self._durable.lost.done():
                self._durable = await self._link.store.dedicated(keys[0])
            wire = self._durable

            async def call(*command: Argument, key: str, timeout_s: float) -> Reply:
                return await wire.call(*command, timeout_s=timeout_s)

            stored = await run_script(call, "publish", keys, args, ATTEMPT_S)
            have = await wire.call("WAIT", replicas, int(left_s * 1000), timeout_s=left_s + ATTEMPT_S)
        if have < replicas:
            raise ServerTimeout(f"the event is stored, but only {have} of {replicas} replicas confirmed it in time")
        return stored
