"""The report of a recording: pure, and slow, so that `python -m cachebus.monitoring.advice.computing` does it.

That program reads a job from stdin and writes the report to stdout, at low priority, without a connection.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping

import msgspec

from cachebus.cache.foresight.recording import Recording
from cachebus.cache.upkeep.reporter import is_view
from cachebus.monitoring.advice.advising import LOADS, Day, Hours, advised, why_silent
from cachebus.monitoring.advice.curves import TtlShare, memory_curve, ttl_points, ttl_shares
from cachebus.monitoring.advice.endings import Ends, Share, ends_of, estimated
from cachebus.monitoring.advice.habits import big_keys, co_reads, gaps, hot_keys
from cachebus.monitoring.advice.report import (
    HourFigures,
    RecordingSummary,
    ReleaseFigures,
    Report,
    TagReport,
    ViewReport,
)
from cachebus.monitoring.advice.trace import Trace
from cachebus.monitoring.layers import layers_of

NICE = 10
DAY_S = 86_400
WHOLE_DAY = 23
"""Hours of counters that make a day known."""
MOST_VIEWS = 100
MOST_TAGS = 50


class Analysable(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is made of."""

    recording: Recording
    hours: dict[int, dict[str, dict[str, int]]] = {}
    """Those in which something was counted (`history.Buckets`)."""
    releases: list[tuple[str, float]] = []
    """Name, and when it was first seen, ms; newest first."""
    at_ms: float
    version: str


def report_of(job: Analysable) -> Report:
    """Return the report. Raises: ConfigurationError for a recording that cannot be read."""
    trace = Trace(job.recording)
    day, ends, silent = _day(trace, job.hours), ends_of(trace), why_silent(trace)
    curve = memory_curve(trace) if not silent else None
    ttls = ttl_shares(trace) if not silent else {}
    wanted = job.recording.wanted
    return Report(
        at_ms=job.at_ms,
        version=job.version,
        recording=RecordingSummary(
            id=wanted.id,
            asked_by=wanted.asked_by,
            began_ms=wanted.from_us / 1000,
            seconds=trace.seconds,
            processes=len(trace.processes),
            reads=trace.reads,
            sampled=len(trace.accesses),
            rate=trace.rate,
            lost=trace.lost,
        ),
        silent=silent,
        advice=advised(trace, ends, curve, ttls, day, job.hours) if not silent else [],
        memory=curve.curve if curve is not None else None,
        views=_views(trace, ends, ttls, day)[:MOST_VIEWS],
        tags=_tags(trace, ends)[:MOST_TAGS],
        hot_keys=hot_keys(trace),
        big_keys=big_keys(trace),
        co_reads=co_reads(trace),
        hours=[_hour(at, job.hours[at]) for at in sorted(job.hours)],
        releases=_releases(job),
    )


def _day(trace: Trace, hours: Hours) -> Day:
    """Return what the recording stands for: a day as the last one was, or as these minutes where none is known."""
    if hours and max(hours) - min(hours) >= WHOLE_DAY * 3600:
        last = [views for at, views in hours.items() if at > max(hours) - DAY_S]
        reads = sum(_figures(views)[0] for views in last)
        if reads > trace.reads > 0:
            return Day(reads / trace.reads)
    return Day(DAY_S / trace.seconds)


def _views(trace: Trace, ends: Ends, ttls: Mapping[str, list[TtlShare]], day: Day) -> list[ViewReport]:
    places = {view.name: place for place, view in enumerate(trace.views)}
    sizes: dict[int, list[int]] = {}
    for load in trace.loads:
        sizes.setdefault(trace.keys[load.key].view, []).append(load.bytes)
    of_gaps, background = gaps(trace), Counter(trace.keys[load.key].view for load in trace.loads if load.purpose)
    rows = []
    for name, counters in trace.counted.items():
        place = places.get(name)
        if not counters.reads and not counters.loads:
            continue
        view = trace.views[place] if place is not None else None
        of = estimated(trace, ends.views[place]) if place is not None else Share(0, 0, 0)
        values = sizes.get(place, []) if place is not None else []
        rows.append(
            ViewReport(
                name=name,
                reads=counters.reads,
                hits=1 - counters.missed / counters.reads if counters.reads else None,
                loads=counters.loads,
                background_loads=round(background[place] / trace.key_rate) if place is not None else 0,
                load_ms=counters.load_ms / counters.loads if counters.loads else None,
                database_s=day.seconds(counters.load_ms),
                value_bytes=sum(values) // len(values) if values else None,
                ttl_s=view.ttl_ms / 1000 if view is not None and view.ttl_ms else None,
                ttl=ttl_points(ttls.get(name, []), counters.reads * day.times),
                ttl_keys=sum(facts.view == place for facts in trace.keys.values()),
                ended_unread=of.unread,
                ended_invalidated_unread=of.invalidated_unread,
                ended=of.ended,
                gaps=of_gaps[place] if place is not None else [],
            )
        )
    return sorted(rows, key=lambda row: (-row.database_s, -row.reads, row.name))


def _tags(trace: Trace, ends: Ends) -> list[TagReport]:
    rows = [
        TagReport(
            template=template,
            invalidations=trace.tags[template],
            met=of.met / trace.key_rate / trace.tags[template] if trace.tags[template] else 0.0,
            met_unread=of.met_unread / of.met if of.met else 0.0,
            reloads=of.reloads,
            reloads_same=of.reloads_same,
        )
        for template, of in ends.tags.items()
    ]
    return sorted(rows, key=lambda row: (-row.invalidations, row.template))


def _hour(at: int, views: Mapping[str, Mapping[str, int]]) -> HourFigures:
    reads, hits, loads, load_ms = _figures(views)
    ended = sum(number for of in views.values() for name, number in of.items() if name.startswith("ended "))
    unread = sum(number for of in views.values() for name, number in of.items() if name.startswith("unread "))
    return HourFigures(at, reads, hits / reads if reads else None, loads, load_ms, ended, unread)


def _figures(views: Mapping[str, Mapping[str, int]]) -> tuple[int, int, int, int]:
    """Return reads that the cache could answer, those it answered, loads, and ms spent in those."""
    counters = [Counter(of) for name, of in views.items() if is_view(name)]
    layers = layers_of(counters)
    hits = layers["memory"] + layers["redis"] + layers["joined"]
    loads = sum(of.get(name, 0) for of in counters for name in LOADS)
    return hits + layers["missed"], hits, loads, sum(of.get("load_ms", 0) for of in counters)


def _releases(job: Analysable) -> list[ReleaseFigures]:
    """Return what each release was like: from the first whole hour after it was seen until the next."""
    found, until_ms = [], job.at_ms
    for name, at_ms in job.releases:
        hours = [views for at, views in job.hours.items() if at_ms <= at * 1000 and (at + 3600) * 1000 <= until_ms]
        figures = [_figures(views) for views in hours]
        reads, hits, loads, load_ms = (sum(part) for part in zip(*figures, strict=True)) if figures else (0, 0, 0, 0)
        found.append(
            ReleaseFigures(name, at_ms, reads, hits / reads if reads else None, load_ms / loads if loads else None)
        )
        until_ms = at_ms
    return found


def main() -> None:
    """Read a job from stdin, write its report to stdout."""
    if hasattr(os, "nice"):
        os.nice(NICE)
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Analysable)
    sys.stdout.buffer.write(msgspec.json.encode(report_of(job)))


if __name__ == "__main__":
    main()
