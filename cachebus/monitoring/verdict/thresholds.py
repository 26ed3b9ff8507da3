"""What would change the state: every sign that is watched, with its figure of now and where it would matter. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cachebus.monitoring.verdict.assessment import (
    ALMOST,
    ENOUGH_READS,
    FULL,
    GOOD_HIT_RATE,
    LAG_MS,
    LATE_MS,
    MANY_ERRORS,
    SLOW_HIT_MS,
    WAITING,
    Level,
    Signs,
)


class Threshold(msgspec.Struct, frozen=True):
    """One sign."""

    what: str
    now: str
    """The figure of now with its unit; '' where there is none to give."""
    warn: str
    """From when on somebody should look today; '': never."""
    bad: str
    """From when on somebody should look now; '': never."""
    level: Level
    """What it is now."""
    tab: str


def thresholds(signs: Signs) -> list[Threshold]:
    """Return every sign, the worst first."""
    found = [*_of_servers(signs), *_of_workers(signs), *_of_work(signs), *_of_reads(signs)]
    return sorted(found, key=lambda each: ("bad", "warn", "ok").index(each.level))


def _of_servers(signs: Signs) -> Iterator[Threshold]:
    answers = "no answer" if signs.away else "answers"
    yield Threshold("Redis answers", answers, "", "it does not", _level(bad=bool(signs.away)), "machine")
    memory = _level(bad=signs.memory > FULL, warn=signs.memory > ALMOST)
    yield Threshold("Redis memory", f"{signs.memory:.0%}", f"{ALMOST:.0%}", f"{FULL:.0%}", memory, "machine")
    clients = _level(warn=signs.clients > ALMOST)
    yield Threshold("connections to Redis", f"{signs.clients:.0%}", f"{ALMOST:.0%}", "", clients, "machine")
    evicted = f"{signs.evictions:,} in 10 min"
    rising = "more than in the ten minutes before"
    yield Threshold("evictions beyond the usual", evicted, rising, "", _level(warn=signs.evictions > 0), "machine")


def _of_workers(signs: Signs) -> Iterator[Threshold]:
    unheld = f"{len(signs.unheld)} without a worker"
    yield Threshold("shards of events", unheld, "", "1 for 15 s", _level(bad=bool(signs.unheld)), "machine")
    unready = f"{len(signs.unready)} of {signs.workers} not ready"
    yield Threshold("workers", unready, "1 for 15 s", "", _level(warn=bool(signs.unready)), "machine")
    waiting = _level(warn=signs.waiting > WAITING)
    yield Threshold("events that wait", f"{signs.waiting:,}", f"{WAITING:,}", "", waiting, "events")
    queued = _level(bad=signs.queued > 0)
    yield Threshold("invalidations queued in a process", f"{signs.queued:,}", "", "1", queued, "machine")
    lag = f"{signs.lag_ms:.0f} ms"
    yield Threshold("journal lag", lag, f"{LAG_MS:.0f} ms", "", _level(warn=signs.lag_ms > LAG_MS), "machine")


def _of_work(signs: Signs) -> Iterator[Threshold]:
    half = signs.p50_ms is not None and signs.p50_ms > LATE_MS
    slowest = signs.p99_ms is not None and signs.p99_ms > LATE_MS
    target = f"{LATE_MS / 1000:.0f} s"
    p50, p99 = (_ms(each) for each in (signs.p50_ms, signs.p99_ms))
    yield Threshold("event to fresh, p50 of 10 min", p50, "", target, _level(bad=half), "events")
    yield Threshold("event to fresh, p99 of 10 min", p99, target, "", _level(warn=slowest), "events")
    letters = _level(warn=signs.newest_letter_is_recent)
    yield Threshold("dead letters", f"{signs.letters:,}", "1 within the hour", "", letters, "failures")
    jobs = _level(warn=bool(signs.failed_jobs or signs.late_jobs))
    said = f"{len(signs.failed_jobs)} failed, {len(signs.late_jobs)} late"
    yield Threshold("jobs", said, "1 failed, or late by 1 min", "", jobs, "jobs")


def _of_reads(signs: Signs) -> Iterator[Threshold]:
    known = signs.hit_rate is not None
    rate = f"{signs.hit_rate:.1%}" if known else f"fewer than {ENOUGH_READS:,} reads"
    low = _level(warn=signs.hit_rate is not None and signs.hit_rate < GOOD_HIT_RATE)
    yield Threshold("hit rate of the last hour", rate, f"below {GOOD_HIT_RATE:.0%}", "", low, "views")
    tried = signs.loads + signs.load_errors
    share = signs.load_errors / tried if tried else 0.0
    errors = _level(bad=share > MANY_ERRORS, warn=signs.load_errors > 0)
    failed = f"{signs.load_errors:,} of {tried:,} in 10 min"
    yield Threshold("loads that fail", failed, "1", f"{MANY_ERRORS:.0%}", errors, "views")
    stale = _level(bad=signs.stale_detected > 0)
    yield Threshold(
        "sampled values that differ from the source", f"{signs.stale_detected:,} in 1 h", "", "1", stale, "views"
    )
    slow = max(signs.slow_hits.values(), default=0.0)
    slowest = f"{slow:.1f} ms" if slow else f"below {SLOW_HIT_MS:.0f} ms"
    yield Threshold("slowest hit from memory", slowest, f"{SLOW_HIT_MS:.0f} ms", "", _level(warn=slow > 0), "views")


def _level(*, bad: bool = False, warn: bool = False) -> Level:
    return "bad" if bad else "warn" if warn else "ok"


def _ms(ms: float | None) -> str:
    return "no event" if ms is None else "more than 10 s" if ms == float("inf") else f"{ms:.0f} ms"
