"""*Now*: five figures of a window, the time axis with its marks, and what would change the state. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from cachebus.cache.upkeep.reporter import LATENCY, is_view
from cachebus.monitoring.history import Buckets, percentiles, shown, total
from cachebus.monitoring.layers import layers_of
from cachebus.monitoring.page.window import FigureWindow
from cachebus.monitoring.verdict.assessment import LATE_MS
from cachebus.monitoring.verdict.chronicle import AlertRules, Sample, Silence, time_to_full_ms
from cachebus.monitoring.verdict.gathering import Glance
from cachebus.monitoring.verdict.marks import Mark
from cachebus.monitoring.verdict.thresholds import Threshold, thresholds


class Step(msgspec.Struct, frozen=True):
    """One bar of the charts. Latencies of -1 are beyond the last step that is counted."""

    at: int
    """Seconds of the epoch."""
    memory: int
    redis: int
    joined: int
    missed: int
    bypassed: int
    loads: int
    """Whatever for."""
    load_ms: int
    """Spent in them, all together."""
    events: int
    p50: float | None
    p95: float | None
    p99: float | None


class FreshnessTile(msgspec.Struct, frozen=True):
    """How soon events took effect."""

    events: int
    within: int
    """Of them, those that took no longer than the target."""
    target_ms: float
    p50: float | None
    p95: float | None
    p99: float | None


class ReadsTile(msgspec.Struct, frozen=True):
    """How users' reads were answered, and what loads there were whatever for."""

    memory: int
    redis: int
    joined: int
    missed: int
    bypassed: int
    loads: int
    refreshes: int
    warms: int
    errors: int
    load_ms: int


class WaitingTile(msgspec.Struct, frozen=True):
    """What is still to be done."""

    events: int
    retries: int
    refreshes: int
    delayed: int
    letters: int
    sockets: int


class MemoryTile(msgspec.Struct, frozen=True):
    """Of all servers together, bytes."""

    used: int
    limit: int
    """0: none is set."""
    full_in_ms: float | None
    """If it grows on as in the last hour; None where it does not grow, has no limit, or is not known."""
    of_ms: float
    """How far back the samples of that go."""


class NowShown(msgspec.Struct, frozen=True):
    """The answer of `api/now`; parts are None while Redis does not answer."""

    window: FigureWindow
    thresholds: list[Threshold]
    steps: list[Step] = []
    marks: list[Mark] = []
    fresh: FreshnessTile | None = None
    reads: ReadsTile | None = None
    waiting: WaitingTile | None = None
    memory: MemoryTile | None = None
    rules: AlertRules | None = None
    """None: nobody watches while nobody looks."""
    silence: Silence | None = None


def show_now(
    glance: Glance, window: FigureWindow, hours: Buckets, samples: Sequence[Sample], silence: Silence | None
) -> NowShown:
    """Return it."""
    signs = thresholds(glance.signs)
    known = glance.known
    if known is None:
        return NowShown(window, signs)
    buckets = hours if window.hourly else known.minutes
    first_ms = min(buckets, default=0) * 1000
    chosen = {at: bucket for at, bucket in buckets.items() if window.holds(at)}
    shards = known.waits.shards
    return NowShown(
        window,
        signs,
        [step(at, bucket) for at, bucket in buckets.items()],
        [mark for mark in known.marks if mark.reaches(first_ms)],
        freshness(total(chosen).get(LATENCY, Counter())),
        reads(total(chosen)),
        WaitingTile(
            sum(shard.waiting for shard in shards),
            sum(shard.retries for shard in shards),
            known.waits.refreshes,
            known.waits.delayed,
            known.waits.dead_letters,
            int(sum(process.gauges.get("sockets", 0) for process in known.processes)),
        ),
        MemoryTile(
            sum(server.memory for server in glance.servers),
            sum(server.memory_limit for server in glance.servers),
            time_to_full_ms(list(samples)),
            min(3_600_000.0, glance.at_ms - samples[0].at_ms) if samples else 0.0,
        ),
        known.watch.rules if known.watch is not None else None,
        silence,
    )


def step(at: int, bucket: Mapping[str, Mapping[str, int]]) -> Step:
    """Return one bar."""
    found = reads({name: Counter(counters) for name, counters in bucket.items()})
    latencies = bucket.get(LATENCY, {})
    p50, p95, p99 = (shown(value) for value in percentiles(latencies))
    loads = found.loads + found.refreshes + found.warms
    return Step(
        at,
        found.memory,
        found.redis,
        found.joined,
        found.missed,
        found.bypassed,
        loads,
        found.load_ms,
        sum(latencies.values()),
        p50,
        p95,
        p99,
    )


def reads(views: Mapping[str, Counter[str]]) -> ReadsTile:
    """Add up some views."""
    counted = [counters for name, counters in views.items() if is_view(name)]
    layers = layers_of(counted)
    return ReadsTile(
        memory=layers["memory"],
        redis=layers["redis"],
        joined=layers["joined"],
        missed=layers["missed"],
        bypassed=layers["bypassed"],
        loads=sum(view["loads"] for view in counted),
        refreshes=layers["refreshes"],
        warms=layers["warms"],
        errors=layers["errors"],
        load_ms=sum(view["load_ms"] for view in counted),
    )


def freshness(latencies: Mapping[str, int], target_ms: float = LATE_MS) -> FreshnessTile:
    """Say how soon some events took effect."""
    within = sum(count for bound, count in latencies.items() if bound != "more" and float(bound) <= target_ms)
    found = (shown(value) for value in percentiles(latencies))
    return FreshnessTile(sum(latencies.values()), within, target_ms, *found)
