"""*Views*: the table with a line of the hit ratio each, and one view over a day with what makes its values old."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from cachebus.cache.cache import Cache
from cachebus.cache.upkeep.popularity import most_read
from cachebus.cache.upkeep.reach import pattern_of
from cachebus.cache.view import View
from cachebus.monitoring.history import Buckets, total
from cachebus.monitoring.layers import CACHED, layers_of
from cachebus.monitoring.page.tabs.causes import Counted, SeenCause, recent_causes, seen_causes
from cachebus.monitoring.page.window import FigureWindow
from cachebus.monitoring.verdict.gathering import Glance, Known
from cachebus.monitoring.verdict.marks import Mark
from cachebus.monitoring.view_table import ViewRow, ttls_of, view_row, view_rows
from cachebus.redis.walk import literal, names_like

SHOWN = 300
"""Views in the table: of more, the cheapest are left out."""
POINTS = 30
"""Of the small line of a view."""
HOTTEST, LARGEST = 10, 10
MOST_LOOKED_AT = 4_000
"""Entries whose size is asked for."""


class ViewsShown(msgspec.Struct, frozen=True):
    """The answer of `api/views`."""

    window: FigureWindow
    rows: list[ViewRow]
    """Those that cost most first."""
    more: int
    """Views that are left out."""
    lines: dict[str, list[float | None]]
    """View -> the share of its reads without a load, in equal parts of the window; None where nobody read."""
    marks: list[Mark]


class ViewStep(msgspec.Struct, frozen=True, kw_only=True):
    """A minute or an hour of one view."""

    at: int
    memory: int
    redis: int
    joined: int
    missed: int
    loads: int
    warms: int
    errors: int
    load_ms: float | None
    """One load, on average."""
    load_p50_ms: float | None
    load_p95_ms: float | None
    """As in the table."""
    raw_bytes: int | None
    stored_bytes: int | None
    causes: dict[str, int]
    """Invalidations by kind of cause."""


class HotCall(msgspec.Struct, frozen=True):
    """What is read most."""

    key: str
    """Its arguments, where this process does not have the view."""
    reads: float
    """An older one counts less: half after half an hour."""


class StoredKey(msgspec.Struct, frozen=True):
    """One entry by its size."""

    key: str
    stored_bytes: int


class ViewShown(msgspec.Struct, frozen=True):
    """The answer of `api/view`."""

    window: FigureWindow
    row: ViewRow | None
    """None: nobody declares or reads it."""
    steps: list[ViewStep]
    marks: list[Mark]
    policy: dict[str, Any]
    """What is declared, as far as this process knows it."""
    recent: Sequence[SeenCause]
    hottest: list[HotCall]
    largest: list[StoredKey]
    looked_at: int
    """Stored entries of it; no more are looked at than 4,000."""


def show_views(glance: Glance, window: FigureWindow, hours: Buckets) -> ViewsShown:
    """Return the table. Pure."""
    known = glance.known
    if known is None:
        return ViewsShown(window, [], 0, {}, [])
    chosen = _chosen(known, window, hours)
    rows = _rows(known, chosen, window)
    lines = {row.name: list(_line(chosen, row.name)) for row in rows[:SHOWN]}
    begins_ms = min(chosen, default=0) * 1000
    marks = [mark for mark in known.marks if mark.reaches(begins_ms)]
    return ViewsShown(window, rows[:SHOWN], len(rows[SHOWN:]), lines, marks)


async def show_view(
    cache: Cache, glance: Glance, name: str, window: FigureWindow, hours: Buckets, causes: Counted
) -> ViewShown:
    """Return one view. Raises: ServerError."""
    known = glance.known
    if known is None:
        return ViewShown(window, None, [], [], {}, [], [], [], 0)
    buckets = hours if window.hourly else known.minutes
    row = next((each for each in _rows(known, _chosen(known, window, hours), window) if each.name == name), None)
    view = cache.views.get(name)
    recent, hottest, (largest, looked_at) = await asyncio.gather(
        recent_causes(cache, name), _hottest(cache, name, view), _largest(cache, name)
    )
    return ViewShown(
        window,
        row,
        [view_step(at, view_row(name, Counter(bucket.get(name, {})), None, 1)) for at, bucket in buckets.items()],
        [mark for mark in known.marks if mark.reaches(min(buckets, default=0) * 1000)],
        _policy(view),
        seen_causes(causes.get(name, {}), recent),
        hottest,
        largest,
        looked_at,
    )


def view_step(at: int, row: ViewRow) -> ViewStep:
    """Return one bar of a view. Pure."""
    return ViewStep(
        at=at,
        memory=row.memory,
        redis=row.redis,
        joined=row.joined,
        missed=row.missed,
        loads=row.loads,
        warms=row.warms + row.refreshes,
        errors=row.errors,
        load_ms=row.load_ms,
        load_p50_ms=row.load_p50_ms,
        load_p95_ms=row.load_p95_ms,
        raw_bytes=row.raw_bytes,
        stored_bytes=row.stored_bytes,
        causes=row.causes,
    )


def _chosen(known: Known, window: FigureWindow, hours: Buckets) -> Buckets:
    return {at: each for at, each in (hours if window.hourly else known.minutes).items() if window.holds(at)}


def _rows(known: Known, chosen: Buckets, window: FigureWindow) -> list[ViewRow]:
    return view_rows(total(chosen), ttls_of(known.processes), round(window.minutes))


def _line(chosen: Buckets, name: str) -> Iterator[float | None]:
    ordered = [each.get(name, {}) for _, each in sorted(chosen.items())]
    width = -(-len(ordered) // POINTS) or 1
    for first in range(0, len(ordered), width):
        found = layers_of([Counter(each) for each in ordered[first : first + width]])
        reads = sum(found[layer] for layer in CACHED)
        yield round(1 - found["missed"] / reads, 4) if reads else None


def _policy(view: View[Any, Any] | None) -> dict[str, Any]:
    """Return what is declared, as people write it, without what is left at its default."""
    if view is None:
        return {}
    policy = view.policy
    named = {name.removesuffix("_ms"): getattr(policy, name) for name in POLICY_FIELDS if getattr(policy, name)}
    more: dict[str, Any] = {"tags": view.tag_templates, "identity": view.identity, "declared by": view.origin}
    if view.critical:
        more["critical"] = True
    return {**named, **{name: value for name, value in more.items() if value}}


POLICY_FIELDS = (
    "ttl_ms",
    "stale_ms",
    "stale_if_error_ms",
    "negative_ttl_ms",
    "serve_invalidated_ms",
    "settle_ms",
    "hard_timeout_ms",
    "max_load_ms",
)


async def _hottest(cache: Cache, name: str, view: View[Any, Any] | None) -> list[HotCall]:
    return [
        HotCall(_named(view, call), round(reads, 1)) for call, reads in await most_read(cache.client, name, HOTTEST)
    ]


def _named(view: View[Any, Any] | None, call: bytes) -> str:
    """Return the key of a call, or its arguments where the view is another process's."""
    if view is not None and not view.is_method:
        try:
            return str(view.key(*view.decode_arguments(call)))
        except (ValueError, TypeError):
            pass
    return call.decode(errors="replace")


async def _largest(cache: Cache, name: str) -> tuple[list[StoredKey], int]:
    """Ask for the size of entries of a view. At most 4,000 of them. Raises: ServerError."""
    server, begin = cache.client.entries, cache.names.entries
    pattern, head = pattern_of(name), name.partition("{")[0][:60]
    found: dict[str, int] = {}
    async for page in names_like(server, f"{literal(begin)}{{{literal(head)}*"):
        keys = {each: each[len(begin) + 1 : each.rindex("}")] for each in page if "}" in each}
        chosen = [each for each, key in keys.items() if pattern.fullmatch(key)]
        sizes = await asyncio.gather(*[server.call("STRLEN", each, key=each) for each in chosen])
        found.update(zip((keys[each] for each in chosen), sizes, strict=True))
        if len(found) >= MOST_LOOKED_AT:
            break
    largest = heapq.nlargest(LARGEST, found.items(), key=lambda item: item[1])
    return [StoredKey(key, size) for key, size in largest], len(found)
