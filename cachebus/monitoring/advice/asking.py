"""Ask all processes to record for a time, and collect what they send. One recording at a time in a deployment."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable

import msgspec

from cachebus.cache.foresight.recorder import chunks_key, recording_key
from cachebus.cache.foresight.recording import Recording, Wanted
from cachebus.cache.upkeep.reporter import FLUSH_S, is_view
from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError, RecordingUnderWay, ServerError
from cachebus.monitoring.advice.report import Progress
from cachebus.monitoring.history import History
from cachebus.redis.client import Client
from cachebus.redis.walk import stream_pages

LONGEST_MS = 6 * 3_600_000
SHORTEST_MS = 1_000
SETTLE_S = FLUSH_S + 1
"""Until each process has heard what is wanted; and, at the end, until each has sent its last part."""
RENEW_S = 2.0
KEPT_MS = 20_000
"""A recording nobody renews for so long is over."""
SAMPLED_A_SECOND = 250
"""Reads that are sampled in a second, in the whole deployment: 150,000 in ten minutes, 2 MB."""
MOST_SAMPLED = 500_000
"""In one recording, however long."""
LEAST_RATE = 1 / 64
READ = ("l1_hits", "l2_hits", "joined", "loads", "load_errors", "misses")
"""Counters of reads that the cache could have answered (`ViewStats.cached_reads`)."""


class Asking:
    """One recording, from asking for it until it is collected."""

    def __init__(self, client: Client, wanted: Wanted, settle_s: float) -> None:
        self._client = client
        self._settle_s = settle_s
        self.wanted = wanted
        self._encoded = msgspec.json.encode(wanted)

    @property
    def seconds(self) -> int:
        """How long it takes until all have sent."""
        return round((self.wanted.until_us - self.wanted.from_us) / 1e6 + 2 * self._settle_s)

    @classmethod
    async def begin(
        cls,
        client: Client,
        duration: Duration,
        asked_by: str,
        *,
        rate: float | None = None,
        settle_s: float | None = None,
    ) -> Asking:
        """Ask the processes to record for *duration*. *rate*: share of the keys; None: by how much is read now.
        *settle_s*: `SETTLE_S`, but where processes report more often.

        Raises: ConfigurationError for a bad duration; RecordingUnderWay; ServerError.
        """
        lasts_ms, settle_s = recorded_ms(duration), SETTLE_S if settle_s is None else settle_s
        rate = await usual_rate(client, lasts_ms / 1000) if rate is None else rate
        from_us = client.now_us() + int(settle_s * 1_000_000)
        wanted = Wanted(
            id=secrets.token_hex(4),
            secret=secrets.token_hex(16),
            rate=rate,
            from_us=from_us,
            until_us=from_us + lasts_ms * 1000,
            asked_by=asked_by,
        )
        asking = cls(client, wanted, settle_s)
        running = await client.store.run(
            "cache/foresight/start_recording", (recording_key(client),), (asking._encoded, KEPT_MS)
        )
        if running:
            if (other := _decoded(running)) is None:
                raise RecordingUnderWay("another version of cachebus", KEPT_MS / 1000)
            raise RecordingUnderWay(other.asked_by, max(0.0, (other.until_us - client.now_us()) / 1e6))
        return asking

    async def recorded(self, said: Callable[[Progress], None] = lambda _: None) -> Recording:
        """Renew until the time is over and all have sent, and return what came. Ends the recording, also if cancelled.

        *said* is told how far it is, every two seconds. Raises: ServerError; ConfigurationError where the key was lost.
        """
        try:
            ends_us = self.wanted.until_us + int(self._settle_s * 1_000_000)
            while (left_s := (ends_us - self._client.now_us()) / 1_000_000) > 0:
                said(await self._renewed())
                await asyncio.sleep(min(RENEW_S, left_s))
            chunks = [
                record["chunk"] async for page in stream_pages(self._client.store, self._chunks) for _, record in page
            ]
            return Recording(self.wanted, chunks)
        finally:
            with contextlib.suppress(ServerError):
                await asyncio.shield(self._end())

    async def _renewed(self) -> Progress:
        sampled = await self._client.store.run(
            "cache/foresight/keep_recording", (recording_key(self._client),), (self._encoded, KEPT_MS)
        )
        if sampled < 0:
            raise ConfigurationError("recording: what was wanted is gone from Redis; was it evicted? record again")
        return _progress(self.wanted, sampled)

    async def _end(self) -> None:
        keys = (recording_key(self._client),)
        await self._client.store.run("cache/foresight/keep_recording", keys, (self._encoded, 0))
        await self._client.store.call("DEL", self._chunks)

    @property
    def _chunks(self) -> str:
        return chunks_key(self._client, self.wanted.id)


async def progress(client: Client) -> Progress | None:
    """Return how far the recording that runs has come; None where none of this version does. Raises: ServerError."""
    wanted, sampled = await client.store.call("HMGET", recording_key(client), "wanted", "sampled")
    asked = _decoded(wanted) if wanted is not None else None
    return None if asked is None else _progress(asked, int(sampled))


async def usual_rate(client: Client, lasts_s: float) -> float:
    """Return the share of keys that gives as many samples as are wanted, by the reads of the last whole minute."""
    minute, _ = (await History(client).minutes(2)).values()
    reads = sum(counters[name] for view, counters in minute.items() if is_view(view) for name in READ)
    rate = 1.0
    while rate > LEAST_RATE and reads / 60 * rate > min(SAMPLED_A_SECOND, MOST_SAMPLED / lasts_s):
        rate /= 2
    return rate


def recorded_ms(duration: Duration) -> int:
    """Return how long is recorded. Raises: ConfigurationError."""
    lasts_ms = milliseconds(duration, "for")
    if not SHORTEST_MS <= lasts_ms <= LONGEST_MS:
        raise ConfigurationError(
            f"for: {duration!r} must be from {SHORTEST_MS // 1000}s to {LONGEST_MS // 3_600_000}h; 10m says most"
        )
    return lasts_ms


def _decoded(wanted: bytes) -> Wanted | None:
    """Return what somebody wants; None where another version wants something else."""
    try:
        return msgspec.json.decode(wanted, type=Wanted)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _progress(wanted: Wanted, sampled: int) -> Progress:
    return Progress(wanted.id, wanted.asked_by, wanted.from_us / 1000, wanted.until_us / 1000, sampled)
