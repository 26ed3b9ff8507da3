"""What the state was and when it changed: written by the watch of a deployment, read by the page and by alerts.

A few records a day, bounded, and they end by themselves.
"""

from __future__ import annotations

import asyncio

import msgspec

from cachebus.monitoring.verdict.assessment import Assessment, Level
from cachebus.monitoring.verdict.servers import ServerFacts
from cachebus.redis.client import Client
from cachebus.redis.replies import named

CHANGES = 200
SAMPLES = 1600
"""A day of minutes, and some."""
KEPT_S = 30 * 86_400
STATE_S = 3600
"""What was seen longer ago says nothing of since when something is so."""


class StateChange(msgspec.Struct, frozen=True):
    """A moment from which on the state was another."""

    at_ms: float
    level: Level
    says: str


class Sample(msgspec.Struct, frozen=True):
    """The servers at one moment, added up."""

    at_ms: float
    memory: int
    limit: int
    """0: none is set."""
    evicted: int
    clients: int
    commands_a_second: int


class AlertRules(msgspec.Struct, frozen=True):
    """Who is told of what."""

    told: bool = False
    """Whether there is anybody to tell."""
    level: str = "bad"
    """From which level on: warn or bad."""
    after_ms: float = 60_000
    """So long it must last."""


class WatchState(msgspec.Struct):
    """What a watch knows that the next one takes over."""

    at_ms: float = 0.0
    first_ms: dict[str, float] = {}
    """Reason -> when it was first seen."""
    level: Level = "ok"
    says: str = ""
    firing: dict[str, float] = {}
    """Reasons that somebody was told of -> when each was last seen."""
    rules: AlertRules = msgspec.field(default_factory=AlertRules)


class Silence(msgspec.Struct, frozen=True):
    """Nobody is told anything until then."""

    until_ms: float
    who: str


class Chronicle:
    """The records of a deployment. Each method is one shared round trip. Raise: ServerError."""

    def __init__(self, client: Client) -> None:
        self._client = client
        names = client.names
        self._changes, self._samples = names.bus("verdicts"), names.bus("samples")
        self._state, self._silence = names.bus("watch-state"), names.bus("silence")

    async def changes(self) -> list[StateChange]:
        """Return the last changes of the state, newest first."""
        lines = await self._client.store.call("XREVRANGE", self._changes, "+", "-", "COUNT", CHANGES)
        return [msgspec.json.decode(named(fields)["change"], type=StateChange) for _, fields in lines]

    async def note_change(self, at_ms: float, assessment: Assessment) -> None:
        """Add a change."""
        change = msgspec.json.encode(StateChange(at_ms, assessment.level, assessment.says))
        await self._client.store.call("XADD", self._changes, "MAXLEN", "~", CHANGES, "*", "change", change)
        await self._client.store.call("EXPIRE", self._changes, KEPT_S)

    async def samples(self) -> list[Sample]:
        """Return what was measured of the servers each minute, of a day, oldest first."""
        lines = await self._client.store.call("XRANGE", self._samples, "-", "+", timeout_s=2.0)
        return [msgspec.json.decode(named(fields)["sample"], type=Sample) for _, fields in lines]

    async def note_sample(self, at_ms: float, servers: list[ServerFacts]) -> None:
        """Add a measurement."""
        sample = Sample(
            at_ms,
            sum(each.memory for each in servers),
            sum(each.memory_limit for each in servers) if all(each.memory_limit for each in servers) else 0,
            sum(each.evicted for each in servers),
            sum(each.clients for each in servers),
            sum(each.commands_a_second for each in servers),
        )
        packed = msgspec.json.encode(sample)
        await self._client.store.call("XADD", self._samples, "MAXLEN", "~", SAMPLES, "*", "sample", packed)
        await self._client.store.call("EXPIRE", self._samples, 2 * 86_400)

    async def state(self) -> WatchState | None:
        """Return what the watch last knew, None where nobody has watched for an hour."""
        kept = await self._client.store.call("GET", self._state)
        return msgspec.json.decode(kept, type=WatchState) if kept is not None else None

    async def keep_state(self, state: WatchState) -> None:
        """Keep what the next watch takes over."""
        await self._client.store.call("SET", self._state, msgspec.json.encode(state), "EX", STATE_S)

    async def silence(self) -> Silence | None:
        """Return who asked for silence until when, None where nobody did."""
        kept = await self._client.store.call("GET", self._silence)
        return msgspec.json.decode(kept, type=Silence) if kept is not None else None

    async def keep_silent(self, who: str, lasts_ms: int) -> None:
        """Tell nobody anything for so long; 0: from now on again."""
        if not lasts_ms:
            await self._client.store.call("DEL", self._silence)
            return
        silence = Silence(self._client.now_us() / 1000 + lasts_ms, who)
        await self._client.store.call("SET", self._silence, msgspec.json.encode(silence), "PX", lasts_ms)


def time_to_full_ms(samples: list[Sample]) -> float | None:
    """Return in how many ms memory is full if it grows on as in the last hour; None where it does not, or has no limit.

    The median of the slopes between the two halves of the hour: one purge or one import does not turn it. Pure.
    Source: Theil 1950, Siegel 1982.
    """
    if not samples or not samples[-1].limit:
        return None
    recent = [each for each in samples if each.at_ms > samples[-1].at_ms - 3_600_000]
    half = len(recent) // 2
    pairs = zip(recent[:half], recent[len(recent) - half :], strict=True)
    slopes = sorted((late.memory - early.memory) / (late.at_ms - early.at_ms) for early, late in pairs)
    if len(slopes) < 3 or slopes[len(slopes) // 2] <= 0:
        return None
    left = samples[-1].limit - samples[-1].memory
    return max(0.0, left / slopes[len(slopes) // 2])


async def changes_and_state(chronicle: Chronicle) -> tuple[list[StateChange], WatchState | None]:
    """Return both in one shared round trip. Raises: ServerError."""
    changes, state = await asyncio.gather(chronicle.changes(), chronicle.state())
    return changes, state
