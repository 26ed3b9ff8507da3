"""Who made values old, by name: a day as processes counted it, the last two minutes as the journal keeps them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cachebus.cache.cache import Cache
from cachebus.cache.upkeep.reporter import NamedCause, causes_key
from cachebus.freshness.cause import read_causes
from cachebus.monitoring.history import History
from cachebus.redis.client import Client
from cachebus.redis.walk import stream_pages

HOURS = 25
"""The one under way and 24 before it."""
MOST_CAUSES = 30

Counted = Mapping[str, Mapping[NamedCause, tuple[int, float]]]
"""View -> cause -> how often, and when it was last, ms."""


class SeenCause(msgspec.Struct, frozen=True):
    """Who made values of the view old in the last day."""

    kind: str
    who: str
    """'' for all of a kind whose names found no room."""
    what: str
    """Of an event the id of the last one, as long as the journal keeps it: two minutes."""
    times: int
    """Names invalidated under which the view may have values."""
    last_ms: float
    """To within ten seconds."""
    scope: str
    """One of the names; '' where the journal no longer has one."""


async def causes_of_day(client: Client) -> Counted:
    """Return what all processes counted in a day. One shared round trip. Raises: ServerError."""
    starts = History(client).starts(3600, HOURS)
    replies = await asyncio.gather(*[client.store.call("HGETALL", causes_key(client, start)) for start in starts])
    found: dict[str, dict[NamedCause, tuple[int, float]]] = {}
    for reply in replies:  # the oldest hour first
        for name, said in zip(reply[::2], reply[1::2], strict=True):
            view, *named = msgspec.json.decode(name, type=tuple[str, str, str, str])
            times, _, last_us = said.partition(b" ")
            by_cause, cause = found.setdefault(view, {}), NamedCause(*named)
            before, _ = by_cause.get(cause, (0, 0.0))
            by_cause[cause] = before + int(times), int(last_us) / 1000
    return found


async def recent_causes(cache: Cache, view: str) -> list[SeenCause]:
    """Read in the journal who invalidated names of a view's values, the oldest first. Raises: ServerError."""
    of, found = cache.observed.reach.of, []
    async for page in stream_pages(cache.client.store, cache.client.names.journal):
        for identity, fields in page:
            scopes = fields.get("scopes", b"").decode(errors="replace").split("\n")
            for (kind, who, what), named in read_causes(fields.get("cause", b""), scopes):
                met = [scope for scope in named if view in of(scope).views]
                if met:
                    at_ms = int(identity.partition(b"-")[0]) / 1000
                    found.append(SeenCause(kind, who, what, len(met), at_ms, met[0]))
    return found


def seen_causes(day: Mapping[NamedCause, tuple[int, float]], recent: Iterable[SeenCause]) -> Sequence[SeenCause]:
    """Return the causes of a day, the most frequent first, with what the journal still knows of each. Pure."""
    seen = {cause: SeenCause(*cause, times, last_ms, "") for cause, (times, last_ms) in day.items()}
    journal: dict[NamedCause, int] = {}
    for each in recent:
        cause = NamedCause(each.kind, each.who, "" if each.kind == "event" else each.what)
        journal[cause] = journal.get(cause, 0) + each.times
        times = max(journal[cause], seen[cause].times if cause in seen else 0)  # not reported yet, or not at all
        seen[cause] = msgspec.structs.replace(each, times=times)
    return heapq.nlargest(MOST_CAUSES, seen.values(), key=lambda cause: cause.times)
