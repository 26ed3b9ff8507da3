"""The report of an analysis: what was recorded, what follows from it, and what it says should be changed.

Shares are 0.0 to 1.0, times milliseconds or seconds as their names say. Keys and identities are hashes: nobody finds
the key of one who cannot guess it. Templates of views and of tags are as they are declared.
"""

from __future__ import annotations

import msgspec

SCHEMA = 1
"""Of the report as JSON; another number means that fields changed their meaning or are gone."""
REPORT_TTL_S = 8 * 86_400
MOST_REPORT_BYTES = 512 * 1024


class Spread(msgspec.Struct, frozen=True):
    """One figure of several processes, or of the parts of a recording."""

    median: float
    low: float
    high: float


class Evidence(msgspec.Struct, frozen=True):
    """One line of *why*: what was measured, as text and number."""

    what: str
    """Such as "loads that brought the same value again"."""
    value: str
    """Such as "1,164 of 1,200"."""


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to change, and what it would bring. Nothing acts on it by itself."""

    kind: str
    """`memory`, `ttl`, `tag` (reaches too far), `unread` (cached or warmed for nobody)."""
    subject: str
    """What it is about: a setting, a view's template, or a tag's template."""
    sentence: str
    """All of it in one sentence: now, what to change, what is expected."""
    now: str
    """The value in force, such as "5m" or "1,000"; '' where there is none."""
    then: str
    """The value advised; '' where there is no single one."""
    hits_now: float | None
    """Share of reads that it is about, answered without a load (`memory`: by memory); None where that is no share."""
    hits_then: float | None
    database_s: float
    """Seconds of loads that it would save a day; what advice is ordered by."""
    waiting_s: float
    """Seconds a day that readers would wait less."""
    error: float
    """± of `hits_then`, or of the share that it rests on."""
    confidence: str
    """`high`, `medium` or `low`: by the error, and by how much was seen."""
    caution: str = ""
    """What must be true for it, such as that all changes are announced; '' where nothing more must."""
    why: list[Evidence] = []


class MemoryPoint(msgspec.Struct, frozen=True):
    """One size of memory."""

    entries: int
    hits: Spread
    """Share of reads that memory would answer, by process."""


class MemoryCurve(msgspec.Struct, frozen=True, kw_only=True):
    """How much memory would answer, by `CACHE_MAX_MEMORY_ENTRIES`."""

    entries_now: int
    """The setting of most processes."""
    hits_measured: Spread
    """What memory did answer, by process."""
    points: list[MemoryPoint]
    """By rising size; one of them is `entries_now`."""
    processes: int


class TtlPoint(msgspec.Struct, frozen=True):
    """One TTL of a view."""

    ttl_s: float
    hits: float
    """Share of reads that would need no load."""
    loads_a_day: float
    database_s: float
    """Seconds of loads a day."""


class GapStep(msgspec.Struct, frozen=True):
    """Reads of a key by how long ago it was read before."""

    up_to_s: float
    """-1: longer than the last step."""
    reads: int


class ViewReport(msgspec.Struct, frozen=True, kw_only=True):
    """One view."""

    name: str
    reads: int
    """Estimated from the sample, in the time of the recording, all processes."""
    hits: float | None
    """Share of reads that needed no load; None where nobody read."""
    loads: int
    background_loads: int
    """Of them, those nobody waited for: schedules and refreshes."""
    load_ms: float | None
    """One load, on average."""
    database_s: float
    """Seconds of loads a day, as recorded."""
    value_bytes: int | None
    """One value, on average."""
    ttl_s: float | None
    ttl: list[TtlPoint]
    """By rising TTL; empty where too little was seen. No TTL longer than half the recording."""
    ttl_keys: int
    """Keys that these rest on."""
    ended_unread: int
    """Of the loads below, those whose value nobody read again before it ended."""
    ended_invalidated_unread: int
    """Of them, those that an invalidation ended."""
    ended: int
    """Loads whose value expired, was invalidated or was replaced within the recording; estimated."""
    gaps: list[GapStep]


class TagReport(msgspec.Struct, frozen=True, kw_only=True):
    """One tag, by the template that views declare."""

    template: str
    invalidations: int
    met: float
    """Live entries that one of them met, on average."""
    met_unread: float
    """Share of these that nobody had read again."""
    reloads: int
    """Loads of an entry that it had ended."""
    reloads_same: int
    """Of them, those that brought the same value as before: that invalidation was not needed."""


class HotKey(msgspec.Struct, frozen=True):
    """One key, by its hash; `cachebus top` names what is read most."""

    view: str
    hash: str
    """Eight hexadecimal digits; another recording gives another hash."""
    reads: int
    share: float
    """Of all reads."""
    value_bytes: int


class CoRead(msgspec.Struct, frozen=True):
    """After a read of one view, the same identity read another one within some seconds."""

    first: str
    then: str
    share: float
    """Of the reads of `first`."""
    of: int
    """Reads of `first` that were looked at."""


class HourFigures(msgspec.Struct, frozen=True):
    """One hour, from the counters that always run."""

    at_s: int
    """Its start, seconds since 1970 by the server's clock."""
    reads: int
    hits: float | None
    loads: int
    load_ms: int
    ended: int
    """Values that left memory."""
    ended_unread: int
    """Of them, those that nobody had read again."""


class ReleaseFigures(msgspec.Struct, frozen=True):
    """One release, from when it was first seen until the next."""

    name: str
    at_ms: float
    reads: int
    hits: float | None
    load_ms: float | None
    """One load, on average."""


class RecordingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded."""

    id: str
    asked_by: str
    began_ms: float
    """By the server's clock."""
    seconds: float
    processes: int
    reads: int
    """All reads of these processes meanwhile, from their counters."""
    sampled: int
    """Of them, recorded: those of the keys in the sample."""
    rate: float
    """Share of the keys that are sampled."""
    lost: int
    """Sampled reads that found no room; 0 unless a process was much busier than before."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an analysis found. Kept as JSON for eight days, one at a time."""

    schema: int = SCHEMA
    at_ms: float
    """When it was computed, by the server's clock."""
    version: str
    """Of the library."""
    recording: RecordingSummary
    silent: str = ""
    """Why there is no advice at all, such as too few reads; '' where it was looked for."""
    advice: list[Advice]
    """What would save most database time first."""
    memory: MemoryCurve | None
    """None where too little was read."""
    views: list[ViewReport]
    """What costs most first."""
    tags: list[TagReport]
    """What was invalidated most first; those that views declare by name."""
    hot_keys: list[HotKey]
    big_keys: list[HotKey]
    co_reads: list[CoRead]
    hours: list[HourFigures]
    """Up to eight days, oldest first."""
    releases: list[ReleaseFigures]
    """Newest first."""


class Progress(msgspec.Struct, frozen=True):
    """An analysis that runs, whoever asked for it."""

    id: str
    asked_by: str
    began_ms: float
    """When processes begin to record, by the server's clock; some seconds after it was asked for."""
    ends_ms: float
    """When they stop; the report is there some fifteen seconds later."""
    sampled: int
    """Reads recorded so far."""
