"""What the cache counts: per view, never per key, so that a million users are one line."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class ViewStats:
    """Counters of one view in this process, since it started."""

    l1_hits: int = 0
    l2_hits: int = 0
    joined: int = 0
    """Calls answered by a read of the same key that was under way."""
    loads: int = 0
    load_errors: int = 0
    load_ms: float = 0.0
    waits: int = 0
    """Times this process waited for another one's load."""
    stale: int = 0
    """Values served past their TTL, within a window the view declares. Never an invalidated one."""
    bypassed: int = 0
    """Calls without an identity, or with the cache switched off: loaded, not stored."""
    fill_errors: int = 0
    bytes_raw: int = 0
    bytes_stored: int = 0
    invalidations: int = 0
    samples: int = 0
    """Hits compared with the source by the consistency sampler."""
    stale_detected: int = 0
    """Samples that differed although nothing was invalidated: a write path that does not announce itself."""

    def loaded(self, load_ms: float, raw: int) -> None:
        """Count one load."""
        self.loads += 1
        self.load_ms += load_ms
        self.bytes_raw += raw

    @property
    def reads(self) -> int:
        """Reads answered, however."""
        return self.l1_hits + self.l2_hits + self.joined + self.loads + self.bypassed

    @property
    def hit_rate(self) -> float:
        """Share of reads answered without a load, 0.0 to 1.0; 0.0 before the first."""
        hits = self.l1_hits + self.l2_hits
        return hits / (hits + self.loads) if hits + self.loads else 0.0


@dataclass(slots=True)
class CacheStats:
    """A snapshot of one process's cache."""

    views: dict[str, ViewStats]
    entries: int
    bytes: int
    evictions: int
    up: bool
    journal_lag_ms: float | None
    """Since the journal was last heard of, milliseconds; None without a server."""
    gaps: int
    queued: int
    """Invalidations that wait for the server."""
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
