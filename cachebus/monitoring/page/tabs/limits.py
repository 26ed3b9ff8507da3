"""*Locks and limits*: who holds what since when, and who has used how much of a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from cachebus.cache.upkeep.answers import ask
from cachebus.limits.seen import SeenLimit
from cachebus.locks.locks import Locks
from cachebus.monitoring.page.tabs.inventory import Inventory, LimitUse, named
from cachebus.redis.client import Client


class LockRow(msgspec.Struct, frozen=True):
    """A lock that somebody holds."""

    name: str
    owner: str
    token: int
    """Its fencing number."""
    left_ms: float
    waiting: int
    held_ms: float


class LimitsShown(msgspec.Struct, frozen=True):
    """The answer of `api/limits`; parts are None while Redis does not answer."""

    locks: list[LockRow] | None
    limits: list[LimitUse] | None
    complete: bool = True
    """False: only the first 200,000 keys were looked at."""
    answered: int = 0
    """Processes that said which limits they know: they do within ten seconds."""
    walked_ms_ago: float = 0.0
    """How old the counters are."""


async def show_limits(client: Client, locks: Locks, found: Inventory, asked: str) -> LimitsShown:
    """Return it, with the lock that was asked for by name. Raises: LockUnavailable, ServerError."""
    rows, told = await asyncio.gather(
        held(locks, [*found.locks, *([asked] if asked else [])]), ask(client, "limits", SeenLimit)
    )
    limits = known_limits(found.limits, [seen for process in told for seen in process.told])
    age_ms = (client.now_us() - found.at_us) / 1000
    return LimitsShown(rows, limits, found.complete, answered=len(told), walked_ms_ago=age_ms)


def known_limits(used: Iterable[LimitUse], seen: Iterable[SeenLimit]) -> list[LimitUse]:
    """Return counters with what processes say of them, the most refused first, then the fullest. Pure."""
    by_counter: dict[str, SeenLimit] = {}
    for each in seen:
        before = by_counter.get(each.counter)
        refused = each.refused + (before.refused if before is not None else 0)
        by_counter[each.counter] = msgspec.structs.replace(each, refused=refused)
    rows = []
    for use in used:
        known = by_counter.pop(use.counter, None)
        rows.append(
            use
            if known is None
            else msgspec.structs.replace(use, limit=known.limit, window_ms=known.window_ms, refused=known.refused)
        )
    for known in by_counter.values():  # beside the busiest ones
        if known.refused:
            key, strategy = named(known.counter)
            rows.append(LimitUse(key, strategy, None, -1, known.counter, known.limit, known.window_ms, known.refused))
    return sorted(rows, key=lambda row: (-(row.refused or 0), -(row.used or 0) / (row.limit or 1)))


async def held(locks: Locks, names: Iterable[str]) -> list[LockRow]:
    """Return those of some locks that somebody holds. Raises: LockUnavailable."""
    wanted = sorted(set(names))
    holders = await asyncio.gather(*[locks.holder(name) for name in wanted])
    return [
        LockRow(name, holder.owner, holder.token, holder.remaining * 1000, holder.waiting, holder.held * 1000)
        for name, holder in zip(wanted, holders, strict=True)
        if holder is not None
    ]
