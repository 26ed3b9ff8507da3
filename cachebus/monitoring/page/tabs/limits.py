"""*Locks and limits*: who holds what since when, and who has used how much of a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from cachebus.locks.locks import Locks
from cachebus.monitoring.page.tabs.inventory import Inventory, LimitUse


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


async def show_limits(locks: Locks, found: Inventory, asked: str) -> LimitsShown:
    """Return it, with the lock that was asked for by name. Raises: LockUnavailable."""
    return LimitsShown(await held(locks, [*found.locks, *([asked] if asked else [])]), found.limits, found.complete)


async def held(locks: Locks, names: Iterable[str]) -> list[LockRow]:
    """Return those of some locks that somebody holds. Raises: LockUnavailable."""
    wanted = sorted(set(names))
    holders = await asyncio.gather(*[locks.holder(name) for name in wanted])
    return [
        LockRow(name, holder.owner, holder.token, holder.remaining * 1000, holder.waiting, holder.held * 1000)
        for name, holder in zip(wanted, holders, strict=True)
        if holder is not None
    ]
