"""What the cache counts: per view, never per key, so that a million users are one line."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Purpose(Enum):
    """What a load is for. Only the first is part of the hit ratio: nobody waits for the others."""

    READ = "read"
    """Somebody asked for the value and waits."""
    REFRESH = "refresh"
    """A value is renewed behind readers, or after an invalidation (the `Refresh` of an event)."""
    WARM = "warm"
    """A schedule, or `View.warm`, loads before anybody asks."""


@dataclass(slots=True)
class ViewStats:
    """Counters of one view in this process, since it started."""

    l1_hits: int = 0
    l2_hits: int = 0
    joined: int = 0
    """Calls answered by a read of the same key that was under way."""
    loads: int = 0
    """Loads that the read which began them waited for."""
    load_errors: int = 0
    """Those of them that raised; they are not among `loads`."""
    misses: int = 0
    """Plain reads (`get`) that found nothing; a load, if there was one, was the caller's."""
    refreshes: int = 0
    """Loads that renewed a value behind its readers, or after an invalidation."""
    warms: int = 0
    """Loads of schedules and of `warm`, before anybody asked."""
    background_errors: int = 0
    """Refreshes and warming loads that raised."""
    load_ms: float = 0.0
    """Spent in loads, whatever for."""
    waits: int = 0
    """Times this process waited for another one's load."""
    stale: int = 0
    """Values served past their TTL, within a window the view declares. Never an invalidated one."""
    bypassed: int = 0
    """Calls without an identity, or with the cache switched off: loaded, not stored. Never a hit."""
    direct: int = 0
    """Calls in handlers and before a commit, which load and store nothing."""
    dropped: int = 0
    """Calls of `set` whose value was old by the time it came: a newer one, or an invalidation, overtook it."""
    fill_errors: int = 0
    """Values that could not be stored because the server was unavailable or refused them."""
    uncacheable: int = 0
    """Loads whose value is served without being stored: of another type, too large, with a refused field."""
    not_kept: int = 0
    """Loads whose value the view's `keep=` did not want stored."""
    bytes_raw: int = 0
    bytes_stored: int = 0
    invalidations: int = 0
    """Keys, tags and prefixes under which values of the view may lie that this process made unreadable."""
    samples: int = 0
    """Hits compared with the source by the consistency sampler."""
    stale_detected: int = 0
    """Samples that differed although nothing was invalidated: a write path that does not announce itself."""

    ahead_loads: int = 0
    """Loads made ahead of an expected read (`Policy(predict=True)`); they are among `warms`."""
    ahead_used: int = 0
    """Those of them that a read found."""
    ahead_wasted: int = 0
    """Those that nobody read before they expired or were invalidated."""
    ahead_refused: int = 0
    """Loads that were worth making and were not made: the budget was used up, the view busy, Redis unavailable."""
    ahead_saved_ms: float = 0.0
    """What readers would have waited for the used ones."""
    shadow_right: int = 0
    """Expectations that would have loaded, were not allowed to, and came true."""
    shadow_wrong: int = 0
    """Those that did not come true."""

    hits_timed: int = 0
    """Memory hits whose time was taken; one in some hundreds."""
    hit_us: float = 0.0
    """What those took altogether."""

    def loaded(self, purpose: Purpose, load_ms: float, raw: int) -> None:
        """Count one load."""
        if purpose is Purpose.READ:
            self.loads += 1
        elif purpose is Purpose.REFRESH:
            self.refreshes += 1
        else:
            self.warms += 1
        self.load_ms += load_ms
        self.bytes_raw += raw

    def failed(self, purpose: Purpose) -> None:
        """Count a load that raised."""
        if purpose is Purpose.READ:
            self.load_errors += 1
        else:
            self.background_errors += 1

    @property
    def reads(self) -> int:
        """Reads of the application, however they were answered: each is counted once."""
        return self.cached_reads + self.bypassed

    @property
    def cached_reads(self) -> int:
        """Reads that the cache could have answered."""
        return self.l1_hits + self.l2_hits + self.joined + self.loads + self.load_errors + self.misses

    @property
    def all_loads(self) -> int:
        """Loads that brought a value, whatever for: what the source has answered."""
        return self.loads + self.refreshes + self.warms

    @property
    def hit_rate(self) -> float:
        """Share of the cached reads that needed no load of their own, 0.0 to 1.0; 0.0 before the first."""
        hits, reads = self.l1_hits + self.l2_hits + self.joined, self.cached_reads
        return hits / reads if reads else 0.0


@dataclass(slots=True)
class CacheStats:
    """A snapshot of one process's cache."""

    views: dict[str, ViewStats]
    entries: int = 0
    bytes: int = 0
    evictions: int = 0
    up: bool = False
    journal_lag_ms: float | None = None
    """How far behind this process was at the last answer of the journal, milliseconds; None while it follows none."""
    gaps: int = 0
    ledger_s: float | None = None
    """How far back the ledger remembers invalidations, seconds: to what it forgot, or the era's beginning."""
    outlived: int = 0
    """Looks at entries that were of no use only because they are older than that."""
    queued: int = 0
    """Invalidations that wait for the server."""
    refused: str = ""
    """Why Redis refuses this process's reads, although it answers: everything is loaded. '' while it serves them."""
    totals: ViewStats = field(default_factory=ViewStats)

    def __post_init__(self) -> None:
        for stats in self.views.values():
            for name, count in asdict(stats).items():
                setattr(self.totals, name, getattr(self.totals, name) + count)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data, with the hit rates worked out."""
        plain = asdict(self)
        plain["hit_rate"] = round(self.totals.hit_rate, 4)
        for name, stats in self.views.items():
            plain["views"][name]["hit_rate"] = round(stats.hit_rate, 4)
        return plain
