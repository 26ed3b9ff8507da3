"""Finds any view, key, tag, event, letter, user, job, lock or process by a piece of its name."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import msgspec

from cachebus.bus.dead_letters import DeadLetters
from cachebus.cache.cache import Cache
from cachebus.errors import LockUnavailable, ServerError
from cachebus.locks.locks import Locks
from cachebus.monitoring.event_lookup import find_events
from cachebus.monitoring.inspection import LONGEST_BEGINNING, copies, stored
from cachebus.monitoring.page.tabs.limits import held
from cachebus.monitoring.verdict.gathering import Glance
from cachebus.templates import has_surrogate

SHOWN_A_KIND = 6
LOOKUP_S = 1.5
MOST_LOOKED_AT = 5_000
LONGEST = 300
_POSITION = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


class FoundThing(msgspec.Struct, frozen=True):
    """One thing, and where its page is."""

    kind: str
    """view, key, tag, event, letter, user, job, lock or process."""
    name: str
    says: str = ""


async def find(
    cache: Cache, glance: Glance, locks: Locks, known_locks: list[str], text: str, *, shards: int
) -> list[FoundThing]:
    """Return what has *text* in its name, the exact ones first. Raises: ServerError."""
    wanted = text.strip()[:LONGEST]
    known = glance.known
    if not wanted or known is None or has_surrogate(wanted):
        return []
    low = wanted.lower()

    def named(kind: str, names: list[str]) -> list[FoundThing]:
        met = sorted((name for name in set(names) if low in name.lower()), key=lambda name: (name != wanted, name))
        return [FoundThing(kind, name) for name in met[:SHOWN_A_KIND]]

    views = [name for process in known.processes for name in process.ttls_ms] + [*cache.views]
    found = [
        *named("view", views),
        *named("job", [job.name for job in known.jobs]),
        *named("process", [each.name for each in known.workers] + [each.name for each in known.processes]),
    ]
    parts = await asyncio.gather(
        _locks(locks, named("lock", known_locks), wanted),
        _letter(cache, wanted),
        _event(cache, wanted, shards),
        _keys(cache, wanted),
    )
    for part in parts:
        found += part
    tag = await cache.client.store.call("ZSCORE", cache.names.ledger, f"t:{wanted}")
    found.append(FoundThing("tag", wanted, "was invalidated before" if tag is not None else "entries that have it"))
    found.append(FoundThing("user", wanted, "cached values, sessions, sockets; forget"))
    return found


async def _locks(locks: Locks, listed: list[FoundThing], wanted: str) -> list[FoundThing]:
    with suppress(LockUnavailable, ValueError):
        names = [*[each.name for each in listed], wanted]
        return [FoundThing("lock", each.name, f"held by {each.owner}") for each in await held(locks, names)]
    return []


async def _letter(cache: Cache, wanted: str) -> list[FoundThing]:
    letter = await DeadLetters(cache.client).show(wanted) if _POSITION.fullmatch(wanted) else None
    return [FoundThing("letter", wanted, letter.reason)] if letter is not None else []


async def _event(cache: Cache, wanted: str, shards: int) -> list[FoundThing]:
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOKUP_S):
            events = await find_events(cache.client, wanted, shards)
            return [
                FoundThing("event", event.id or event.position, f"on {event.channel}, {event.state}")
                for event in events[:SHOWN_A_KIND]
            ]
    return []


async def _keys(cache: Cache, wanted: str) -> list[FoundThing]:
    """Look for a key, then for those that begin so, among the first of a walk."""
    found: dict[str, None] = {wanted: None} if await copies(cache, wanted) else {}
    looked_at, entries = 0, cache.names.entries
    with suppress(ServerError):
        async for page in stored(cache, wanted[:LONGEST_BEGINNING]):
            for name in page:
                found.setdefault(name[len(entries) + 1 : name.rindex("}")])
            looked_at += max(len(page), 500)
            if len(found) >= SHOWN_A_KIND or looked_at >= MOST_LOOKED_AT:
                break
    return [FoundThing("key", key) for key in [*found][:SHOWN_A_KIND]]
