"""How the deployment is, in one sentence: what is wrong, the worst first, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec
from msgspec.structs import replace

from cachebus.monitoring.wording import counted

Level = Literal["ok", "warn", "bad"]
"""A reason that is "ok" is worth knowing, and no alarm."""

LATE_MS = 1000
"""Events that take longer than this from publication to fresh values are late."""
WAITING = 1000
"""From this many waiting events on it is a backlog, and not merely the next batch."""
FULL, ALMOST = 0.95, 0.80
RECENT_MS = 3_600_000
GOOD_HIT_RATE = 0.8
ENOUGH_READS = 1000
"""With fewer reads in an hour a hit rate says nothing: most of them are first ones."""
SLOW_HIT_MS = 5.0
LAG_MS = 250.0
"""`CACHE_MAX_LAG`: beyond it reads ask the ledger."""
MANY_ERRORS = 0.05
NEVER_CACHED = 100
"""Bypassed reads of one view in an hour that are worth a word."""
START_MS = 15_000
"""What is normal while processes start is no alarm before it has lasted this long."""


class Reason(msgspec.Struct, frozen=True):
    """One thing that is not as it should be."""

    level: Level
    text: str
    tab: str
    """Where on the page to look."""
    key: str = ""
    """What it is about, the same as long as it lasts, whatever the figures."""
    since_ms: float = 0.0
    """Since when it is so, as far as anybody watched; 0: not known."""
    starting: bool = False
    """Whether it is normal for the first seconds of a start."""
    began: str = ""
    """What happened right before it began, such as a release; '' where nothing is known of that."""


class Assessment(msgspec.Struct, frozen=True):
    """The state in a sentence, and everything behind it."""

    level: Level
    says: str
    reasons: list[Reason]


class Signs(msgspec.Struct, kw_only=True):
    """What is known; each field left alone means: nothing wrong there."""

    away: list[str] = []
    """Servers that do not answer."""
    workers: int = 0
    unready: list[str] = []
    unheld: list[int] = []
    """Shards that have events and no worker."""
    waiting: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    letters: int = 0
    newest_letter_ms: float = 0
    now_ms: float = 0
    failed_jobs: list[str] = []
    late_jobs: list[str] = []
    paused_jobs: list[str] = []
    memory: float = 0.0
    unlimited: bool = False
    """Whether a server has no `maxmemory`; *memory* is then a share of the machine's."""
    evictions: int = 0
    """Entries the servers evicted in the last minutes, more than in those before."""
    clients: float = 0.0
    evicts: bool = False
    queued: int = 0
    refused: str = ""
    """Why Redis refuses the reads of some process."""
    lag_ms: float = 0.0
    """Of the process that is furthest behind the journal."""
    hit_rate: float | None = None
    """Of the last hour; None where there were too few reads."""
    slow_hits: dict[str, float] = {}
    """Views whose memory hits take long, ms."""
    bypassed: dict[str, int] = {}
    """Views that are read without being cached, and how often in the last hour."""
    load_errors: int = 0
    """In the last ten minutes."""
    loads: int = 0
    stale_detected: int = 0
    shared_views: list[str] = []
    """Views that two applications declare."""

    @property
    def newest_letter_is_recent(self) -> bool:
        """Whether a letter came within the hour."""
        return bool(self.letters) and self.now_ms - self.newest_letter_ms < RECENT_MS


class Since:
    """Remembers when each reason was first seen, as long as it lasts."""

    def __init__(self) -> None:
        self._first: dict[str, float] = {}

    def learn(self, known: Mapping[str, float]) -> None:
        """Take over what a watch that was there before has seen begin earlier."""
        for key, at_ms in known.items():
            self._first[key] = min(at_ms, self._first.get(key, at_ms))

    def dated(self, reasons: list[Reason], now_ms: float) -> list[Reason]:
        """Return the reasons with their since-when; those of a start only once they last."""
        self._first = {each.key: self._first.get(each.key, now_ms) for each in reasons}
        dated = [replace(each, since_ms=self._first[each.key]) for each in reasons]
        return [each for each in dated if not each.starting or now_ms - each.since_ms >= START_MS]


def verdict(signs: Signs, since: Since | None = None) -> Assessment:
    """Return the state: green if everything flows, amber if somebody should look today, red if now."""
    if signs.away:
        names = " and ".join(signs.away)
        text = f"{names} does not answer: memory serves what it may, loads go to the source, events wait at the sender"
        found = [Reason("bad", text, "machine", "away")]
    else:
        found = [*_of_servers(signs), *_of_workers(signs), *_of_work(signs), *_of_reads(signs)]
    if since is not None:
        found = since.dated(found, signs.now_ms)
    reasons = sorted(found, key=lambda reason: ("bad", "warn", "ok").index(reason.level))
    wrong = [reason for reason in reasons if reason.level != "ok"]
    if not wrong:
        return Assessment("ok", "Everything flows: what is served is fresh, and nothing waits.", reasons)
    rest = len(wrong) - 1
    also = f" (and {counted(rest, 'more thing')})" if rest else ""
    return Assessment(wrong[0].level, wrong[0].text[0].upper() + wrong[0].text[1:] + also + ".", reasons)


def _of_servers(signs: Signs) -> Iterator[Reason]:
    if signs.memory > ALMOST:
        level: Level = "bad" if signs.memory > FULL else "warn"
        whose = "its machine has, and has no limit (maxmemory)" if signs.unlimited else "it may"
        yield Reason(level, f"Redis uses {signs.memory:.0%} of the memory {whose}", "machine", "memory")
    elif signs.unlimited:
        yield Reason("ok", "Redis has no memory limit: set maxmemory", "machine", "maxmemory")
    if signs.evictions:
        text = f"Redis evicted {counted(signs.evictions, 'entry', 'entries')} in ten minutes, more than in those before"
        yield Reason("warn", text, "machine", "evictions")
    if signs.clients > ALMOST:
        text = f"{signs.clients:.0%} of the connections that Redis allows are in use"
        yield Reason("warn", text, "machine", "clients")
    if signs.evicts:
        text = "the server that keeps events may evict them: set maxmemory-policy noeviction"
        yield Reason("warn", text, "machine", "policy")


def _of_workers(signs: Signs) -> Iterator[Reason]:
    if signs.unheld and not signs.workers:
        text = "no worker is running: events are kept and not handled"
        yield Reason("bad", text, "machine", "no worker", starting=True)
    elif signs.unheld:
        shards = ", ".join(map(str, signs.unheld))
        text = f"no worker holds shard {shards}; its events wait"
        yield Reason("bad", text, "machine", "unheld", starting=True)
    if signs.refused:
        yield Reason("warn", f"Redis refuses reads, everything is loaded: {signs.refused}", "machine", "refused")
    if signs.queued:
        waits = counted(signs.queued, "invalidation waits", "invalidations wait")
        text = f"{waits} for Redis in one process"
        yield Reason("bad", text, "machine", "queued")
    if signs.waiting > WAITING:
        yield Reason("warn", f"{signs.waiting:,} events wait to be handled", "machine", "waiting")
    if signs.lag_ms > LAG_MS:
        text = f"a process is {_seconds(signs.lag_ms)} behind the journal: its reads ask the ledger"
        yield Reason("warn", text, "machine", "lag")
    if signs.unready:
        yield Reason("warn", " and ".join(signs.unready), "machine", "unready", starting=True)


def _of_work(signs: Signs) -> Iterator[Reason]:
    if signs.p50_ms is not None and signs.p50_ms > LATE_MS:
        text = f"half of the events took {_seconds(signs.p50_ms)} until values were fresh"
        yield Reason("bad", text, "events", "latency")
    elif signs.p99_ms is not None and signs.p99_ms > LATE_MS:
        text = f"one event in a hundred took {_seconds(signs.p99_ms)} until values were fresh"
        yield Reason("warn", text, "events", "latency")
    if signs.letters:
        recent = signs.newest_letter_is_recent
        newest = "within the hour" if recent else f"{_ago(signs.now_ms - signs.newest_letter_ms)} ago"
        text = f"{counted(signs.letters, 'dead letter')}, the newest {newest}"
        yield Reason("warn" if recent else "ok", text, "failures", "letters")
    if signs.failed_jobs:
        yield Reason("warn", f"the last run of {_some(signs.failed_jobs)} failed", "jobs", "failed jobs")
    if signs.late_jobs:
        yield Reason("warn", f"{_some(signs.late_jobs)} should have started by now", "jobs", "late jobs")
    if signs.paused_jobs:
        yield Reason("ok", f"{_some(signs.paused_jobs)} paused", "jobs", "paused jobs")


def _of_reads(signs: Signs) -> Iterator[Reason]:
    if signs.stale_detected:
        text = f"{counted(signs.stale_detected, 'sampled value')} differed from the source: a write is not announced"
        yield Reason("bad", text, "views", "stale")
    for shared in signs.shared_views[:3]:
        yield Reason("warn", shared, "views", f"shared {shared}")
    if signs.load_errors:
        level: Level = "bad" if signs.load_errors > MANY_ERRORS * (signs.loads + signs.load_errors) else "warn"
        tried = signs.loads + signs.load_errors
        text = f"{signs.load_errors:,} of {counted(tried, 'load')} failed in ten minutes"
        yield Reason(level, text, "views", "load errors")
    if signs.hit_rate is not None and signs.hit_rate < GOOD_HIT_RATE:
        text = f"the hit rate of the last hour is {signs.hit_rate:.0%}, below {GOOD_HIT_RATE:.0%}"
        yield Reason("warn", text, "views", "hit rate")
    for view, hit_ms in list(signs.slow_hits.items())[:3]:
        text = f"a hit of {view} from memory takes {hit_ms:.1f} ms: its value is large"
        yield Reason("warn", text, "views", f"slow {view}")
    for view, number in list(signs.bypassed.items())[:3]:
        text = f"{view} was read {counted(number, 'time')} without an identity in the last hour: loaded each time"
        yield Reason("warn", text, "views", f"bypassed {view}")


def _some(names: list[str]) -> str:
    return " and ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _seconds(ms: float) -> str:
    return "more than 10 s" if ms == float("inf") else f"{ms / 1000:.1f} s"


def _ago(ms: float) -> str:
    hours = ms / 3_600_000
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
