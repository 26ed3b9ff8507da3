"""How the deployment is, in one sentence: what is wrong, the worst first, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

Level = Literal["ok", "warn", "bad"]

LATE_MS = 1000
"""Events that take longer than this from publication to fresh values are late."""
WAITING = 1000
"""So many events that wait are a backlog, and not merely the next batch."""
FULL, ALMOST = 0.95, 0.80
RECENT_MS = 3_600_000


class Reason(msgspec.Struct, frozen=True):
    """One thing that is not as it should be."""

    level: Level
    text: str
    panel: str
    """Where on the page to look."""


class Verdict(msgspec.Struct, frozen=True):
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
    p99_ms: float | None = None
    letters: int = 0
    newest_letter_ms: float = 0
    now_ms: float = 0
    failed_jobs: list[str] = []
    memory: float = 0.0
    clients: float = 0.0
    evicts: bool = False
    queued: int = 0
    stale_detected: int = 0


def verdict(signs: Signs) -> Verdict:
    """Return the state: green if everything flows, amber if somebody should look today, red if now."""
    if signs.away:
        names = " and ".join(signs.away)
        text = f"{names} does not answer: memory serves what it may, loads go to the source, events wait at the sender"
        return Verdict("bad", text, [Reason("bad", text, "redis")])
    reasons = sorted(_reasons(signs), key=lambda reason: reason.level != "bad")
    if not reasons:
        return Verdict("ok", "Everything flows: what is served is fresh, and nothing waits.", [])
    rest = len(reasons) - 1
    also = f" (and {rest} more thing{'s' if rest > 1 else ''})" if rest else ""
    return Verdict(reasons[0].level, reasons[0].text[0].upper() + reasons[0].text[1:] + also + ".", reasons)


def _reasons(signs: Signs) -> list[Reason]:
    return [*_of_servers(signs), *_of_workers(signs), *_of_work(signs)]


def _of_servers(signs: Signs) -> Iterator[Reason]:
    if signs.memory > ALMOST:
        level: Level = "bad" if signs.memory > FULL else "warn"
        yield Reason(level, f"Redis uses {signs.memory:.0%} of the memory it may", "redis")
    if signs.clients > ALMOST:
        yield Reason("warn", f"{signs.clients:.0%} of the connections Redis allows are taken", "redis")
    if signs.evicts:
        text = "the server that keeps events may evict them: set maxmemory-policy noeviction"
        yield Reason("warn", text, "redis")


def _of_workers(signs: Signs) -> Iterator[Reason]:
    if signs.unheld and not signs.workers:
        yield Reason("bad", "no worker is at work: events are kept, and nobody handles them", "processes")
    elif signs.unheld:
        shards = ", ".join(map(str, signs.unheld))
        yield Reason("bad", f"nobody holds shard {shards}, its events wait", "processes")
    if signs.queued:
        yield Reason("bad", f"{signs.queued:,} invalidations wait for Redis in one process", "processes")
    if signs.waiting > WAITING:
        yield Reason("warn", f"{signs.waiting:,} events wait to be handled", "processes")
    if signs.unready:
        yield Reason("warn", " and ".join(signs.unready), "processes")


def _of_work(signs: Signs) -> Iterator[Reason]:
    if signs.stale_detected:
        text = f"{signs.stale_detected:,} sampled values differed from their source: a write is not announced"
        yield Reason("bad", text, "views")
    if signs.p99_ms is not None and signs.p99_ms > LATE_MS:
        text = f"one event in a hundred took {_seconds(signs.p99_ms)} until values were fresh"
        yield Reason("warn", text, "latency")
    if signs.letters and signs.now_ms - signs.newest_letter_ms < RECENT_MS:
        several = "s" if signs.letters > 1 else ""
        yield Reason("warn", f"{signs.letters:,} dead letter{several}, the newest within the hour", "letters")
    if signs.failed_jobs:
        yield Reason("warn", f"the last run of {' and '.join(signs.failed_jobs[:3])} failed", "schedules")


def _seconds(ms: float) -> str:
    return "more than 10 s" if ms == float("inf") else f"{ms / 1000:.1f} s"
