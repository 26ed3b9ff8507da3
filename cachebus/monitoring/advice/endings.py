"""What became of each loaded value in a recording: read again or not, what ended it, and what was loaded after that.

A value that outlives the recording, or was there before it, is not judged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from cachebus.cache.foresight.recording import UNKNOWN
from cachebus.monitoring.advice.trace import SeenLoad, Trace


@dataclass(slots=True)
class ViewEnds:
    """Sampled loads of one view whose values ended within the recording."""

    ended: int = 0
    unread: int = 0
    """Not read again after the load."""
    invalidated_unread: int = 0
    background: int = 0
    """Of `ended`, loads nobody waited for."""
    background_unread: int = 0
    background_unread_us: int = 0
    """Spent in those."""


@dataclass(slots=True)
class TagEnds:
    """Sampled values that invalidations of one tag template ended."""

    met: int = 0
    met_unread: int = 0
    reloads: int = 0
    """Times the key was loaded again, which is what that invalidation cost."""
    reloads_same: int = 0
    """Of them, those that brought the same value."""
    same_us: int = 0
    """Spent in those."""
    views: Counter[int] = field(default_factory=Counter)
    """Of which views the values were."""


class Share(NamedTuple):
    """Loads of one view in the whole deployment, estimated."""

    ended: int
    unread: int
    invalidated_unread: int


class Ends(NamedTuple):
    """All of it."""

    views: list[ViewEnds]
    tags: dict[str, TagEnds]
    """By template."""


def ends_of(trace: Trace) -> Ends:
    """Return what became of the loads of a recording. Pure."""
    reads: dict[int, list[int]] = defaultdict(list)
    for access in trace.accesses:
        reads[access.key].append(access.at_ms)
    loads: dict[int, list[SeenLoad]] = defaultdict(list)
    for load in trace.loads:
        loads[load.key].append(load)
    views, tags = [ViewEnds() for _ in trace.views], defaultdict[str, TagEnds](TagEnds)
    last_ms = round(trace.seconds * 1000)
    for key, of_key in loads.items():
        view = trace.keys[key].view
        policy = trace.views[view]
        lives_ms = policy.ttl_ms + policy.stale_ms
        for at, load in enumerate(of_key):
            after = of_key[at + 1] if at + 1 < len(of_key) else None
            begun_ms = load.at_ms - load.us // 1000
            expires_ms = load.at_ms + lives_ms if lives_ms else last_ms + 1
            replaced_ms = after.at_ms if after is not None else last_ms + 1
            invalidated_ms = trace.ended(key, begun_ms, min(expires_ms, replaced_ms, last_ms))
            ends_ms = invalidated_ms if invalidated_ms is not None else min(expires_ms, replaced_ms)
            if ends_ms > last_ms:
                continue
            # Reads that began before the load ended waited for it, or began it.
            is_unread = bisect_left(reads[key], ends_ms) <= bisect_right(reads[key], load.at_ms)
            _count(views[view], load, is_unread=is_unread, is_invalidated=invalidated_ms is not None)
            if invalidated_ms is not None:
                enders = set(trace.enders_at(key, invalidated_ms))
                if UNKNOWN not in enders:
                    for tag in enders:
                        _meet(tags[policy.tags[tag]], view, load, after, is_unread=is_unread)
    return Ends(views, dict(tags))


def estimated(trace: Trace, ends: ViewEnds) -> Share:
    """Return what the sampled loads of a view say of all of them."""
    return Share(*(round(part / trace.key_rate) for part in (ends.ended, ends.unread, ends.invalidated_unread)))


def _count(ends: ViewEnds, load: SeenLoad, *, is_unread: bool, is_invalidated: bool) -> None:
    ends.ended += 1
    ends.unread += is_unread
    ends.invalidated_unread += is_unread and is_invalidated
    if load.purpose:
        ends.background += 1
        ends.background_unread += is_unread
        ends.background_unread_us += load.us if is_unread else 0


def _meet(tag: TagEnds, view: int, load: SeenLoad, after: SeenLoad | None, *, is_unread: bool) -> None:
    tag.met += 1
    tag.met_unread += is_unread
    tag.views[view] += 1
    if after is not None:
        tag.reloads += 1
        if after.value == load.value:
            tag.reloads_same += 1
            tag.same_us += after.us
