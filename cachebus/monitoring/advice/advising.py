"""From figures to sentences: what to change, what that would bring, how sure that is. Silent where little is known.

Nothing here acts. A longer TTL is never advised without saying what must be announced for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from cachebus.cache.foresight.recording import RecordedView
from cachebus.monitoring.advice.curves import Halves, SizeCurve, TtlShare
from cachebus.monitoring.advice.endings import Ends, TagEnds, ViewEnds
from cachebus.monitoring.advice.replay import REDIS_MS
from cachebus.monitoring.advice.report import Advice, Evidence, Spread
from cachebus.monitoring.advice.trace import Trace
from cachebus.monitoring.layers import layers_of

LEAST_SAMPLED = 2_000
"""Sampled reads without which there is no advice."""
LEAST_GAIN = 0.02
"""Of the hit ratio."""
MOST_APART = 0.03
"""By which the halves of the recording may disagree."""
MOST_OF_IT = 0.8
"""The smallest change is advised that brings this share of what the largest would."""
LEAST_ENDED = 50
"""Sampled values that must have ended before it is said how."""
LEAST_RELOADED = 50
MOSTLY = 0.5
HARDLY = 0.9
"""Of the values that ended, unread: hardly anybody reads them again."""
FAR = 3.0
"""Entries that one invalidation of a tag meets, from which on it may reach too far."""


MANY_KEYS = 256
"""Sampled keys from which on a sample is off by a point or so."""
LEAST_HOURS = 6
"""Of counters, for what a recording is too short for."""
LOADS = ("loads", "refreshes", "warms")

Hours = Mapping[int, Mapping[str, Mapping[str, int]]]
"""Start of an hour -> view -> counter -> number (`history.Buckets`); those in which something was counted."""


class Day(NamedTuple):
    """What the recording stands for in a day."""

    times: float
    """How often what was recorded happens in a day."""

    def seconds(self, ms: float) -> float:
        """Return milliseconds of the recording as seconds a day."""
        return ms * self.times / 1000


def why_silent(trace: Trace) -> str:
    """Return why no advice is given, '' where it may be."""
    sampled = len(trace.accesses)
    if sampled >= LEAST_SAMPLED:
        return ""
    return (
        f"{sampled:,} sampled reads say too little; {LEAST_SAMPLED:,} are needed: record longer, or when more is read"
    )


def memory_advice(trace: Trace, found: SizeCurve | None, day: Day) -> Iterator[Advice]:
    """Yield whether memory should be larger."""
    if found is None:
        return
    now, halves = found.curve.entries_now, found.halves
    larger = {size: _gains(halves[size], halves[now]) for size in halves if size > now}
    size = _smallest(larger)
    if size is None:
        return
    gains = larger[size]
    point = {point.entries: point.hits for point in found.curve.points}
    error = _error(gains, _sampling(trace, len(trace.keys)))
    share_now, share_then = halves[now].whole, halves[size].whole
    yield Advice(
        kind="memory",
        subject="CACHE_MAX_MEMORY_ENTRIES",
        sentence=(
            f"CACHE_MAX_MEMORY_ENTRIES {now:,} → {size:,} would raise memory hits "
            f"from {_percent(share_now)} to {_percent(share_then)} (± {_points(error)})"
        ),
        now=f"{now:,}",
        then=f"{size:,}",
        hits_now=share_now,
        hits_then=share_then,
        database_s=0.0,
        waiting_s=day.seconds(gains.whole * trace.reads * REDIS_MS),
        error=error,
        confidence=_confidence(error, len(trace.accesses)),
        why=[
            Evidence("memory hits by process, now", _spread(point[now])),
            Evidence("memory hits by process, then", _spread(point[size])),
            Evidence("the two halves of the recording gain", f"{_percent(gains.first)} and {_percent(gains.second)}"),
            Evidence("a read of Redis is taken to wait", f"{REDIS_MS:.0f} ms"),
        ],
    )


def ttl_advice(trace: Trace, name: str, shares: Sequence[TtlShare], day: Day) -> Advice | None:
    """Return whether a view's TTL should be longer."""
    view = next(view for view in trace.views if view.name == name)
    now = next(share for share in shares if share.ttl_ms == view.ttl_ms)
    larger = {share.ttl_ms: _gains(share.hits, now.hits) for share in shares if share.ttl_ms > view.ttl_ms}
    then_ms = _smallest(larger)
    if then_ms is None:
        return None
    then, gains = next(share for share in shares if share.ttl_ms == then_ms), larger[then_ms]
    counters = trace.counted[name]
    keys = sum(1 for _ in _keys_of(trace, name))
    error = _error(gains, max(then.error, _sampling(trace, keys)))
    saved_s = day.seconds((now.load_ms - then.load_ms) * counters.reads)
    is_announced = any(trace.ended(key, -1, round(trace.seconds * 1000)) is not None for key in _keys_of(trace, name))
    return Advice(
        kind="ttl",
        subject=name,
        sentence=(
            f"`{name}`: ttl {duration(view.ttl_ms)} → {duration(then_ms)} would raise hits from "
            f"{_percent(now.hits.whole)} to {_percent(then.hits.whole)} (± {_points(error)}) "
            f"and save {_seconds(saved_s)} of loads a day"
        ),
        now=duration(view.ttl_ms),
        then=duration(then_ms),
        hits_now=now.hits.whole,
        hits_then=then.hits.whole,
        database_s=saved_s,
        waiting_s=day.seconds(gains.whole * counters.reads * _load_ms(trace, name)),
        error=error,
        confidence=_confidence(error, len(trace.accesses)),
        caution=(
            "whatever changes its values must invalidate them, as some changes did while this was recorded"
            if is_announced
            else f"nothing invalidated a value of it meanwhile: what changes unannounced is served {duration(then_ms)}"
        ),
        why=[
            Evidence("reads recorded of it", f"{counters.reads:,}"),
            Evidence("loads a read, now and then", f"{now.loads:.2f} and {then.loads:.2f}"),
            Evidence("one load takes", f"{_load_ms(trace, name):.0f} ms"),
            Evidence("the two halves of the recording gain", f"{_percent(gains.first)} and {_percent(gains.second)}"),
        ],
    )


def tag_advice(trace: Trace, template: str, ends: TagEnds, day: Day) -> Advice | None:
    """Return whether invalidations of a tag reach too far: what they end comes back the same, or ends unread."""
    invalidations = trace.tags[template]
    met = ends.met / trace.key_rate / invalidations if invalidations else 0.0
    same = ends.reloads_same / ends.reloads if ends.reloads else 0.0
    unread = ends.met_unread / ends.met if ends.met else 0.0
    comes_back = ends.reloads >= LEAST_RELOADED and same >= MOSTLY
    dies = ends.met >= 2 * LEAST_ENDED and met >= FAR and unread >= MOSTLY
    if not comes_back and not dies:
        return None
    share, of = (same, ends.reloads) if comes_back else (unread, ends.met)
    error = 2 * (share * (1 - share) / of) ** 0.5
    saved_s = day.seconds(ends.same_us / 1000 / trace.key_rate)
    views = ", ".join(f"`{trace.views[place].name}`" for place, _ in ends.views.most_common(3))
    what = (
        f"{_percent(same)} of the loads after its invalidations bring the same value again"
        if comes_back
        else f"{_percent(unread)} of what its invalidations end had not been read again"
    )
    saving = f", {_seconds(saved_s)} of loads a day" if saved_s >= 1 else ""
    return Advice(
        kind="tag",
        subject=template,
        sentence=f"tag `{template}` reaches too far: {what}{saving}; tag {views} by what changes",
        now=template,
        then="",
        hits_now=None,
        hits_then=None,
        database_s=saved_s,
        waiting_s=saved_s,
        error=error,
        confidence=_confidence(error, of * 20),
        caution="values that hold the time of their load never come back the same; those are not counted here",
        why=[
            Evidence("invalidations of it", f"{invalidations:,}"),
            Evidence("live entries that one of them meets", f"{met:.1f}"),
            Evidence("of these, not read again", _percent(unread)),
            Evidence("loads after that which brought the same value", f"{ends.reloads_same:,} of {ends.reloads:,}"),
        ],
    )


def unread_advice(trace: Trace, name: str, ends: ViewEnds, day: Day) -> Advice | None:
    """Return whether a view is loaded for nobody: by schedules or refreshes, or cached though hardly read twice."""
    counters = trace.counted[name]
    warmed = ends.background_unread / ends.background if ends.background else 0.0
    hits = 1 - counters.missed / counters.reads if counters.reads else 0.0
    if ends.background >= LEAST_ENDED and warmed >= HARDLY:
        share, of, saved_s = warmed, ends.background, day.seconds(ends.background_unread_us / 1000 / trace.key_rate)
        sentence = (
            f"`{name}`: {_percent(share)} of what is loaded ahead of readers is read by nobody; "
            f"warm less of it, which saves {_seconds(saved_s)} of loads a day"
        )
    elif ends.ended - ends.background >= 10 * LEAST_ENDED and ends.unread >= HARDLY * ends.ended and hits < LEAST_GAIN:
        share, of, saved_s = ends.unread / ends.ended, ends.ended, 0.0
        sentence = (
            f"`{name}`: {_percent(share)} of its values end without being read again; cached with this ttl it only "
            "takes memory"
        )
    else:
        return None
    error = 2 * (share * (1 - share) / of) ** 0.5
    return Advice(
        kind="unread",
        subject=name,
        sentence=sentence,
        now="",
        then="",
        hits_now=hits if counters.reads else None,
        hits_then=None,
        database_s=saved_s,
        waiting_s=0.0,
        error=error,
        confidence=_confidence(error, of * 20),
        why=[
            Evidence("values that ended while this was recorded", f"{ends.ended:,} in the sample"),
            Evidence("of these, not read again", f"{ends.unread:,}"),
            Evidence("loaded ahead of readers, and not read", f"{ends.background_unread:,} of {ends.background:,}"),
            Evidence("reads of it", f"{counters.reads:,}"),
        ],
    )


def advised(
    trace: Trace, ends: Ends, curve: SizeCurve | None, ttls: dict[str, list[TtlShare]], day: Day, hours: Hours
) -> list[Advice]:
    """Return all advice, what saves most database time first. A view is named once: for what is wrong with it."""
    found = [advice for tag, of in ends.tags.items() if (advice := tag_advice(trace, tag, of, day)) is not None]
    blamed = {place for advice in found for place in ends.tags[advice.subject].views}
    for place, view in enumerate(trace.views):
        if place in blamed or view.name not in trace.counted:
            continue
        advice = unread_advice(trace, view.name, ends.views[place], day)
        if advice is None:
            known = view.name in ttls
            advice = ttl_advice(trace, view.name, ttls[view.name], day) if known else long_ttl_advice(view, hours)
        if advice is not None:
            found.append(advice)
    found += memory_advice(trace, curve, day)
    return sorted(found, key=lambda advice: (-advice.database_s, -advice.waiting_s))


def long_ttl_advice(view: RecordedView, hours: Hours) -> Advice | None:
    """Return whether a TTL should be longer that the recording is too short for, by the counters that always run.

    They count loads that came within a TTL after the value of the key had expired: what twice the TTL would save.
    """
    known = [hours[at].get(view.name, {}) for at in sorted(hours)]
    parts = [_reloads(known), _reloads(known[: len(known) // 2]), _reloads(known[len(known) // 2 :])]
    whole, counted = parts[0], Counter[str]()
    gains = Halves(*(part.reloaded / part.reads if part.reads else 0.0 for part in parts))
    if len(known) < LEAST_HOURS or whole.reads < LEAST_SAMPLED or not _is_worth(gains):
        return None
    for of in known:
        counted.update(of)
    saved_s = whole.reloaded * whole.load_ms / 1000 * 24 / len(known)
    then, error = duration(2 * view.ttl_ms), _error(gains, 0.0)
    return Advice(
        kind="ttl",
        subject=view.name,
        sentence=(
            f"`{view.name}`: ttl {duration(view.ttl_ms)} → {then} would save up to {_seconds(saved_s)} of loads a day: "
            f"{_percent(whole.reloaded / whole.loads)} of its loads come within a ttl after the value expired"
        ),
        now=duration(view.ttl_ms),
        then=then,
        hits_now=whole.hits,
        hits_then=whole.hits + gains.whole,
        database_s=saved_s,
        waiting_s=saved_s,
        error=error,
        confidence=_confidence(error, whole.reads),
        caution=(
            "whatever changes its values must invalidate them, as some changes do"
            if counted["invalidations"]
            else f"nothing invalidates its values: what changes unannounced is served {then}"
        ),
        why=[
            Evidence("counted in", f"{len(known)} hours"),
            Evidence("reads", f"{whole.reads:,}"),
            Evidence("loads", f"{whole.loads:,}"),
            Evidence("of these, within a ttl after the value had expired", f"{whole.reloaded:,}"),
            Evidence("one load takes", f"{whole.load_ms:.0f} ms"),
        ],
    )


class _Reloads(NamedTuple):
    reads: int
    hits: float
    loads: int
    load_ms: float
    reloaded: int


def _reloads(hours: Sequence[Mapping[str, int]]) -> _Reloads:
    layers = layers_of([Counter(of) for of in hours])
    hits = layers["memory"] + layers["redis"] + layers["joined"]
    reads, loads = hits + layers["missed"], sum(of.get(name, 0) for of in hours for name in LOADS)
    load_ms = sum(of.get("load_ms", 0) for of in hours)
    return _Reloads(
        reads,
        hits / reads if reads else 0.0,
        loads,
        load_ms / loads if loads else 0.0,
        sum(of.get("reloaded", 0) for of in hours),
    )


def duration(ms: float) -> str:
    """Return a time as settings are written: 90s, 5m, 1h30m."""
    seconds = ms / 1000
    if seconds < 1:
        return f"{ms:.0f}ms"
    if seconds < 120 and seconds % 60:
        return f"{seconds:g}s"
    left, parts = round(seconds), []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if left >= length:
            parts.append(f"{left // length}{unit}")
            left %= length
    return "".join(parts)


def _gains(then: Halves, now: Halves) -> Halves:
    return Halves(then.whole - now.whole, then.first - now.first, then.second - now.second)


def _smallest(gains: dict[int, Halves]) -> int | None:
    """Return the smallest change that brings most of what there is to gain; None where none is worth a sentence."""
    worth = {change: each.whole for change, each in gains.items() if _is_worth(each)}
    return min((change for change, gain in worth.items() if gain >= MOST_OF_IT * max(worth.values())), default=None)


def _is_worth(gains: Halves) -> bool:
    """Return whether it is enough to speak of, and whether the halves of the recording say the same."""
    return (
        gains.whole >= LEAST_GAIN
        and min(gains.first, gains.second) > 0
        and abs(gains.first - gains.second) < MOST_APART
    )


def _error(gains: Halves, sampling: float) -> float:
    return max(abs(gains.first - gains.second) / 2, sampling, 0.005)


def _sampling(trace: Trace, keys: int) -> float:
    """Return the error of having only some of the keys: with few of them chance decides which."""
    if trace.rate >= 1:
        return 0.0
    return 0.01 if keys >= MANY_KEYS else 0.05


def _confidence(error: float, sampled: int) -> str:
    if error <= 0.02 and sampled >= 5 * LEAST_SAMPLED:
        return "high"
    return "medium" if error <= 0.05 else "low"


def _keys_of(trace: Trace, name: str) -> Iterator[int]:
    place = next(place for place, view in enumerate(trace.views) if view.name == name)
    return (key for key, facts in trace.keys.items() if facts.view == place)


def _load_ms(trace: Trace, name: str) -> float:
    counters = trace.counted[name]
    return counters.load_ms / counters.loads if counters.loads else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(share: float) -> str:
    return f"{max(1, round(100 * share))}"


def _spread(of: Spread) -> str:
    if of.low == of.high:
        return _percent(of.median)
    return f"{_percent(of.median)}, from {_percent(of.low)} to {_percent(of.high)}"


def _seconds(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 7200 else f"{seconds:,.0f} s"
