"""Records the reads of one process, as long as somebody asks for it: into a bounded buffer, sent every ten seconds.

Who asks renews a key in Redis; the answer to each report of this process says what it holds. When it is gone, recording
ends, and what was not sent is thrown away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from cachebus.cache.call import Call
from cachebus.cache.foresight.recording import FORMAT, Hasher, Wanted, encode_chunk
from cachebus.cache.foresight.take import Sources, Take
from cachebus.cache.stats import Purpose
from cachebus.clock import now_s
from cachebus.redis.client import Client

log = logging.getLogger("cachebus")

MOST_BYTES = 32 * 1024 * 1024
"""Of all chunks of a recording."""
CHUNKS_TTL_S = 1800


class Recorder:
    """Records while it is wanted. Everything but `hit` runs in the loop's thread."""

    def __init__(self, client: Client, seen: Sources, process: str, entries_most: int) -> None:
        self._client = client
        self._seen = seen
        self._process = process
        self._entries_most = entries_most
        self._wanted = b""
        self._take: Take | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_recording(self) -> bool:
        """Whether reads are being recorded."""
        return self._take is not None and self._take.is_open

    async def follow(self, wanted: bytes | None) -> None:
        """Do what the server says is wanted now: begin, send what there is, or end. Raises: ServerError."""
        if wanted != (self._wanted or None):
            self.stop()
            self._wanted = wanted or b""
            if wanted is None or (asked := _understood(wanted)) is None:
                return
            wait_s = max(0.0, (asked.from_us - self._client.now_us()) / 1_000_000)
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._begin, asked)
            return
        if self._take is not None and not await self._send(self._take):
            self._take.close()
            self._take = None

    def stop(self) -> None:
        """Record no more; what was not sent is thrown away."""
        self._wanted = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._take is not None:
            self._take.close()
            self._take = None

    def invalidated(self, scopes: Iterable[str], clock: int) -> None:
        """Take note of an invalidation that this process hears of."""
        if self._take is not None:
            self._take.invalidated(scopes, clock)

    def loaded(self, call: Call, load_ms: float, payload: bytes, purpose: Purpose) -> None:
        """Take note of a load."""
        if self._take is not None:
            self._take.loaded(call, load_ms, payload, purpose)

    def _begin(self, wanted: Wanted) -> None:
        """Record from now on, until the time that was named."""
        left_s = (wanted.until_us - self._client.now_us()) / 1_000_000
        if left_s <= 0:
            return
        self._take = Take(wanted, self._seen, self._client.at_us(now_s()))
        self._timer = asyncio.get_running_loop().call_later(left_s, self._take.close)

    async def _send(self, take: Take) -> bool:
        """Send what was recorded; False where no more is to come, or wanted, or has room."""
        is_last = not take.is_open
        chunk, sampled = take.chunk(self._process, self._entries_most)
        keys = (recording_key(self._client), chunks_key(self._client, take.wanted.id))
        args = (self._wanted, encode_chunk(chunk), sampled, MOST_BYTES, CHUNKS_TTL_S)
        added: int = await self._client.store.run("cache/foresight/add_chunk", keys, args)
        if added < 0:
            log.warning("recording: full after %d MB; the rest is left out", MOST_BYTES // 1024**2)
        return added > 0 and not is_last


def _understood(wanted: bytes) -> Wanted | None:
    """Return what is wanted; None where another version asks for it, or something that is no such thing."""
    try:
        asked = msgspec.json.decode(wanted, type=Wanted)
        Hasher(asked)
    except (msgspec.DecodeError, ValueError) as foreign:
        log.warning("recording: what is wanted cannot be read by this version: %s", foreign)
        return None
    return asked if asked.format == FORMAT else None


def recording_key(client: Client) -> str:
    """Return the name of the hash that says what is wanted, and by whom."""
    return client.names.bus("recording")


def chunks_key(client: Client, recording: str) -> str:
    """Return the name of the stream of chunks of a recording."""
    return client.names.bus("recording", recording)
