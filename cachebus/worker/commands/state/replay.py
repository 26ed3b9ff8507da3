"""`replay`: run a recording once more with other TTLs, another memory or prediction: what would have been."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import msgspec

from cachebus.cache.settings import CacheSettings
from cachebus.cache.stats import ViewStats
from cachebus.durations import milliseconds
from cachebus.errors import CannotStart
from cachebus.monitoring.advice.predicted import Predicted, predicted, with_identity
from cachebus.monitoring.advice.replay import Replay, Replayed, Tally, WhatIf, tallied
from cachebus.monitoring.advice.trace import Trace
from cachebus.worker.commands.output import write_json, write_table
from cachebus.worker.commands.state.analyze import read_recording

COLUMNS = (
    *("VIEW", "READS", "MEMORY %", "→ MEMORY %", "HIT %", "→ HIT %", "LOADS", "→ LOADS"),
    *("LOADING S", "→ LOADING S", "MS/READ", "→ MS/READ"),
)
"""As it is, and behind the arrow as it would have been."""
PREDICTED = (
    *("VIEW", "AHEAD", "USED", "WASTED", "REFUSED", "FORESEEN", "SAVED S"),
    *("MS/READ", "→ MS/READ", "DATABASE S", "→ DATABASE S"),
)


class ReplayedView(msgspec.Struct, frozen=True):
    """One view, or all. Shares are per cent; reads, loads and seconds are scaled up from the sample."""

    view: str
    reads: int
    memory: float | None
    memory_then: float | None
    hits: float | None
    hits_then: float | None
    loads: int
    loads_then: int
    loading_s: float
    loading_s_then: float
    wait_ms: float | None
    """A read waits, on average, for Redis or a load."""
    wait_ms_then: float | None


class PredictedView(msgspec.Struct, frozen=True):
    """One view, or all, with its calls loaded ahead. Counts and seconds are the sample's, not scaled up."""

    view: str
    loads: int
    """Made ahead."""
    used: int
    wasted: int
    refused: int
    would: int
    """Reads that were foreseen and not loaded ahead: the budget, or nothing else, was missing."""
    saved_s: float
    wait_ms: float | None
    wait_ms_then: float | None
    database_s: float | None
    database_s_then: float | None


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print one row a view. Raises: CannotStart, ConfigurationError for what cannot be read."""
    trace = Trace(read_recording(asked.recording))
    if asked.predict:
        return _predict(asked, trace, CacheSettings.from_environment(environment))
    what = _what_if(asked, trace)
    replay = Replay(trace)
    rows = rows_of(trace, replay.run(_as_it_is(trace)), replay.run(what))
    if asked.json:
        write_json(rows)
        return 0
    reads = f"{len(trace.accesses):,} of {trace.reads:,} reads"
    sys.stdout.write(f"{trace.seconds:,.0f} s of {len(trace.processes)} processes, {reads}\n")
    write_table(COLUMNS, [msgspec.structs.astuple(row) for row in rows], "the recording has no reads")
    return 0


def _predict(asked: argparse.Namespace, trace: Trace, settings: CacheSettings) -> int:
    if asked.memory is not None:
        raise CannotStart(["--memory: prediction is replayed with Redis alone; leave one of the two out"])
    views = with_identity(trace)
    found = predicted(trace, _ttls(asked.ttl, trace), views, waste=settings.predict_waste, price=settings.predict_price)
    rows = [_predicted_row(name, stats) for name, stats in found.with_it.views.items() if name in views]
    rows.append(_predicted_whole(rows, found))
    if asked.json:
        write_json(rows)
        return 0
    sys.stdout.write(f"{trace.seconds:,.0f} s, {found.alone.reads:,} sampled reads; it began knowing nothing\n")
    write_table(PREDICTED, [msgspec.structs.astuple(row) for row in rows], "the recording has no reads")
    return 0


def _predicted_row(name: str, stats: ViewStats) -> PredictedView:
    saved_s = round(stats.ahead_saved_ms / 1000, 1)
    counts = (stats.ahead_loads, stats.ahead_used, stats.ahead_wasted, stats.ahead_refused, stats.shadow_right)
    return PredictedView(name, *counts, saved_s, None, None, None, None)


def _predicted_whole(rows: list[PredictedView], found: Predicted) -> PredictedView:
    alone, with_it = found
    return PredictedView(
        "(all)",
        sum(row.loads for row in rows),
        sum(row.used for row in rows),
        sum(row.wasted for row in rows),
        sum(row.refused for row in rows),
        sum(row.would for row in rows),
        round(sum(row.saved_s for row in rows), 1),
        round(alone.mean_wait_ms, 2),
        round(with_it.mean_wait_ms, 2),
        round(alone.database_ms / 1000, 1),
        round(with_it.database_ms / 1000, 1),
    )


def rows_of(trace: Trace, now: Replayed, then: Replayed) -> list[ReplayedView]:
    """Return a row for each view that was read or loaded, what costs most first, and one for all."""
    rows = [
        _row(trace, view.name, now.view(place), then.view(place))
        for place, view in enumerate(trace.views)
        if now.view(place).reads or now.view(place).loads
    ]
    rows.sort(key=lambda row: -row.loading_s)
    every = range(len(trace.views))
    whole = [tallied([replayed.view(place) for place in every]) for replayed in (now, then)]
    return [*rows, _row(trace, "(all)", *whole)] if rows else []


def _row(trace: Trace, name: str, now: Tally, then: Tally) -> ReplayedView:
    rate, reads = trace.key_rate, now.reads

    def a_read(number: float, digits: int) -> float | None:
        return round(number / reads, digits) if reads else None

    return ReplayedView(
        name,
        round(reads / rate),
        a_read(100 * now.memory, 1),
        a_read(100 * then.memory, 1),
        a_read(100 * now.hits, 1),
        a_read(100 * then.hits, 1),
        round(now.loads / rate),
        round(then.loads / rate),
        round(now.load_ms / rate / 1000, 1),
        round(then.load_ms / rate / 1000, 1),
        a_read(now.wait_ms, 2),
        a_read(then.wait_ms, 2),
    )


def _as_it_is(trace: Trace) -> WhatIf:
    return WhatIf(_miniature(trace, max((process.entries_most for process in trace.processes), default=0)))


def _what_if(asked: argparse.Namespace, trace: Trace) -> WhatIf:
    what = _as_it_is(trace)
    if asked.memory is not None:
        what.entries = _miniature(trace, asked.memory)
    what.ttls_ms = _ttls(asked.ttl, trace)
    return what


def _miniature(trace: Trace, entries: int) -> int:
    """Return how many of *entries* are the sample's."""
    return round(entries * trace.key_rate)


def _ttls(given: Sequence[str], trace: Trace) -> dict[str, int]:
    """Return TTLs by view. Raises: CannotStart."""
    known = {view.name for view in trace.views}
    ttls = {}
    for each in given:
        name, equals, ttl = each.rpartition("=")
        if not equals:
            raise CannotStart(
                [f"--ttl: {each!r} names no view; write VIEW=TTL, such as 'orders:{{customer}}:total=10m'"]
            )
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise CannotStart([f"--ttl: the recording has no view {name!r}; it has {names}"])
        ttls[name] = milliseconds(ttl, f"--ttl {name}")
    return ttls
